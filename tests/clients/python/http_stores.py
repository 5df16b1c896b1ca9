"""Session stores of web frameworks: real applications, each in as many copies as there are nodes and each copy at a node of its own, and
users who go from copy to copy with the cookie they have.

All applications speak alike. `GET`, `PUT` and `DELETE` of `/session` answer what the session held before, `PUT` adds to it, `DELETE` ends it;
`POST /renew` gives it another id, as a login does; `POST /expire` lets it end a second later. What fails is a 500 that says why.
"""

import http.client
import http.cookies
import json
import os
import random
import sys
import time
import urllib.parse

from lives import Program, Resp, Store, same, until

HERE = os.path.dirname(os.path.abspath(__file__))

# Longer than a node holds a write back while it knows no leader, in seconds.
ANSWER = 8


class Copy:
    """One copy of an application."""

    def __init__(self, address, *command):
        self.address = address
        # Taken from among those that users are sent to: the way a load balancer does it, at the first error.
        self.out = False
        self.program = Program(*command)
        self.port = int(self.program.line())

    def ask(self, method, path, cookies, body=None):
        """The status, the answer, and the cookies that came with it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER)
        try:
            headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())} if cookies else {}
            if body is not None:
                headers["Content-Type"] = "application/json"
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            said = response.read().decode()
            fresh = http.cookies.SimpleCookie()
            for header in response.headers.get_all("Set-Cookie", []):
                fresh.load(header)
            try:
                return response.status, json.loads(said), fresh
            except ValueError:
                return response.status, {"error": said}, fresh
        finally:
            connection.close()

    def serves(self):
        """Whether it can save a session."""
        try:
            return self.ask("PUT", "/session", {}, {"user": "nobody"})[0] == 200
        except (OSError, http.client.HTTPException):
            return False


class HttpStore(Store):
    side_by_side = 3
    # Whether a copy shows at once what another one has saved.
    linearizable = False
    # Where a session is kept: the database, and what stands before its id.
    database, prefix = 0, ""

    def __init__(self, addresses):
        super().__init__(addresses)
        self.copies = []
        for address in addresses:
            self.copies.append(Copy(address, *self.command(address)))

    def command(self, address):
        raise NotImplementedError

    def life(self):
        user = User(self)
        for number in range(4):
            user.saves(number)
        user.sees_everywhere()
        if not user.renews():
            return
        user.sees_everywhere()
        user.saves("after the login")
        # Every second session is left as it is.
        if self.lives % 2:
            return self.keep(user)
        user.expires()
        user = User(self)
        user.saves("to be ended")
        user.ends()

    def came_back(self):
        for copy in self.copies:
            until(f"the copy at {copy.address} serves again", copy.serves)
            copy.out = False
        super().came_back()

    def verify(self):
        for user in self.kept:
            user.sees_everywhere()

    def close(self):
        for copy in self.copies:
            copy.program.close()


class User:
    """One user with a browser's memory."""

    def __init__(self, store):
        self.store = store
        self.name = f"user {random.getrandbits(64):x}"
        self.cookies = {}
        self.items = {}

    def copies(self):
        return [copy for copy in self.store.copies if not copy.out]

    def request(self, copy, method, path, body=None):
        """The answer; None where it failed because the copy's node is gone."""
        try:
            status, answer, fresh = copy.ask(method, path, self.cookies, body)
        except (OSError, http.client.HTTPException) as error:
            return self.failed(copy, repr(error))
        if status != 200:
            return self.failed(copy, answer.get("error", str(answer)))
        if method != "GET":
            for name, morsel in fresh.items():
                if morsel.value and morsel["max-age"] != "0":
                    self.cookies[name] = morsel.value
                else:
                    self.cookies.pop(name, None)
        return answer

    def failed(self, copy, words):
        self.store.fails(copy.address, words)
        copy.out = True

    def somewhere(self, method, path, body=None):
        """The answer of whatever copy gives one first."""
        began = time.time()

        def answered():
            nonlocal began
            began = time.time()
            copy = random.choice(self.copies())
            answer = self.request(copy, method, path, body)
            return None if answer is None else (copy, answer)

        copy, answer = until(f"{self.store.name}: {method} {path}", answered)
        if copy.address != self.store.doomed:
            self.store.wrote(began)
        return answer

    def saves(self, value):
        # Everything at once: saved twice is as saved once.
        items = {"user": self.name, "value": value, "text": "déjà vu \u2603 \x01", "list": [1, None, {"a": True}]}
        if self.cookies:
            # No copy is asked to save before it has seen what it adds to.
            self.sees_everywhere()
        failed = self.store.failed
        before = self.somewhere("PUT", "/session", items)["items"]
        # A copy that could not answer any more may have saved it all the same. Nothing else may be there, nor nothing.
        if self.store.failed == failed or before != items:
            same(before, self.items, f"{self.store.name}: what the session held")
        self.items = items

    def sees(self, copy, items):
        answer = None

        def shown():
            nonlocal answer
            if copy.out:
                return True
            answer = self.request(copy, "GET", "/session")
            if self.store.linearizable and answer is not None:
                same(answer["items"], items, f"{self.store.name} at {copy.address}: at once")
            return answer is not None and answer["items"] == items

        try:
            until("", shown)
        except AssertionError as error:
            raise AssertionError(f"{self.store.name} at {copy.address}: got {answer}, wanted {items}") from error

    def sees_everywhere(self):
        for copy in self.copies():
            self.sees(copy, self.items)

    def renews(self):
        """Whether the session has another id; the application takes more than one step to that, and may have been cut off between them."""
        before = dict(self.cookies)
        began = time.time()
        copy = random.choice(self.copies())
        if self.request(copy, "POST", "/renew") is None:
            return False
        if copy.address != self.store.doomed:
            self.store.wrote(began)
        assert self.cookies != before, f"{self.store.name}: the same id after a login"
        old = User(self.store)
        old.cookies = before
        old.sees_everywhere()
        return True

    def expires(self):
        # Asked for at the nodes, because in some applications a session lives on that is looked at.
        sid = urllib.parse.unquote(next(iter(self.cookies.values()))).removeprefix("s:").split(".")[0]
        store = self.store
        nodes = [Resp(address, store.database) for address in store.survivors()]

        def everywhere(there):
            for node in nodes:
                until(f"{store.name} at {node.address}", lambda: node.call("EXISTS", store.prefix + sid) == there)

        everywhere(1)
        began = time.time()
        self.somewhere("POST", "/expire")
        everywhere(0)
        for node in nodes:
            node.close()
        assert time.time() - began >= 0.9, f"{self.store.name}: it ended before its time"
        self.items = {}
        self.sees_everywhere()

    def ends(self):
        # No copy can end what it has not seen.
        self.sees_everywhere()
        cookies = dict(self.cookies)
        self.somewhere("DELETE", "/session")
        self.cookies, self.items = cookies, {}
        self.sees_everywhere()


class DjangoCache(HttpStore):
    name, engine = "Django cache", "cache"
    database, prefix = 1, ":1:django.contrib.sessions.cache"

    def life(self):
        # Django takes a cache that fails for one without the session, and `cached_db` goes on when the cache did not take one: a user
        # who is sent to a copy whose server is gone loses the session whatever the server is. So none is.
        for copy in self.copies:
            copy.out = copy.address == self.doomed
        super().life()

    def command(self, address):
        return sys.executable, f"{HERE}/django_app.py", f"redis://{address}/{self.database}", self.engine, os.environ["TMP"] + "/django.sqlite"


class DjangoCachedDb(DjangoCache):
    name, engine = "Django cached_db", "cached_db"
    database, prefix = 2, ":1:django.contrib.sessions.cached_db"


class FlaskSession(HttpStore):
    name, freshness = "Flask-Session", "local"
    database, prefix = 3, "session:"

    def command(self, address):
        return sys.executable, f"{HERE}/flask_app.py", f"redis://{address}/{self.database}", self.freshness


class FlaskSessionLinearizable(FlaskSession):
    name, freshness, linearizable = "Flask-Session, linearizable", "linearizable", True
    database = 4


class ConnectRedis(HttpStore):
    name = "express-session, connect-redis"
    database, prefix = 5, "sess:"

    def command(self, address):
        return "node", os.environ["NODE_APPS"] + "/express_app.mjs", f"redis://{address}/{self.database}"


STORES = (DjangoCache, DjangoCachedDb, FlaskSession, ConnectRedis)
# These know Plenary's own commands.
STORES_OF_PLENARY = (FlaskSessionLinearizable,)
