"""Starts the example and plays its user: three nodes, three servers in three languages, each at a node of its own, and a browser.

`run` calls it. With --check it ends by itself, and its exit status tells whether all was as it should be; without, it stays until Ctrl-C.
Every process that it starts is ended by its id when it ends, whatever happened.
"""

import argparse
import concurrent.futures
import http.client
import http.cookies
import json
import os
import secrets
import shlex
import subprocess
import sys
import threading
import time
import urllib.parse

# Longest that the nodes may take until they serve, that a server may take until it listens, and that a process may take to end, in seconds.
READY = 60
LISTENING = 30
STOP = 25
# Longer than a node holds a request while it knows no leader, in seconds.
ANSWER = 15
# Redis ports of the example `three-nodes`, from its base port.
OFFSETS = (0, 2, 3)
# What the user buys at once on all three servers.
AT_ONCE = 12


class Started:
    """A process, its standard output, and how it is asked to end."""

    def __init__(self, name, command, **options):
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)

    def line_with(self, text, patience):
        """The first line that holds this text. The process is ended if it does not come in time, so that the wait for it ends too."""
        late = threading.Timer(patience, self.process.kill)
        late.start()
        try:
            for line in self.process.stdout:
                if text in line:
                    return line.strip()
        finally:
            late.cancel()
        raise SystemExit(f"{self.name}: not ready within {patience} s, or it ended ({self.process.poll()})")

    def stop(self):
        self.process.stdin.close()
        try:
            self.process.wait(STOP)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class Nodes(Started):
    """The example `three-nodes`, whose nodes end when it does. SIGTERM asks it to."""

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        super().stop()


class Server(Started):
    """One of the three servers: it prints its port, and ends when its standard input does."""

    def __init__(self, name, command, node, environment):
        super().__init__(name, [*shlex.split(command), node], env=environment)
        self.node = node
        self.port = None

    def url(self):
        return f"http://127.0.0.1:{self.port}"


class Browser:
    """Who has a cookie and goes from server to server with it."""

    def __init__(self):
        self.cookies = {}

    def ask(self, server, method, path, **form):
        """The status and the body."""
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=ANSWER)
        try:
            headers = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
            if self.cookies:
                headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
            connection.request(method, path, urllib.parse.urlencode(form) if form else None, headers)
            response = connection.getresponse()
            body = response.read().decode()
            for header in response.headers.get_all("Set-Cookie", []):
                for name, morsel in http.cookies.SimpleCookie(header).items():
                    if morsel.value:
                        self.cookies[name] = morsel.value
                    else:
                        self.cookies.pop(name, None)
            return response.status, body
        finally:
            connection.close()

    def page(self, server):
        """Who is logged in there, and the basket; None where nobody is."""
        status, body = self.ask(server, "GET", "/")
        if status == 401:
            return None
        same(status, 200, f"GET / of {server.name}")
        page = json.loads(body)
        same(page.pop("server"), server.name, "who answers")
        return page


def same(got, wanted, what):
    if got != wanted:
        raise SystemExit(f"WRONG: {what}: got {got!r}, wanted {wanted!r}")


def told(text):
    print(f"  {text}", flush=True)


def play(rust, python, node):
    """One user's visit."""
    servers = (rust, python, node)
    ada = Browser()

    def everywhere(browser, wanted, what):
        for server in servers:
            same(browser.page(server), wanted, f"{what}, on {server.name}")

    everywhere(ada, None, "before the login")
    same(ada.ask(rust, "POST", "/login", user="ada")[0], 200, "login on rust")
    everywhere(ada, {"user": "ada", "basket": []}, "after the login on rust")
    told("ada logged in on rust: python and node know her")

    same(ada.ask(python, "POST", "/basket", item="bees")[0], 200, "basket on python")
    everywhere(ada, {"user": "ada", "basket": ["bees"]}, "after the change on python")
    told("she put something in the basket on python: rust and node show it")

    items = [f"book {number}" for number in range(AT_ONCE)]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as tabs:
        buy = lambda number: ada.ask(servers[number % 3], "POST", "/basket", item=items[number])[0]
        same(list(tabs.map(buy, range(AT_ONCE))), [200] * AT_ONCE, "tabs at once")
    basket = ada.page(node)["basket"]
    same(sorted(basket), sorted(["bees", *items]), "the basket after all tabs")
    told(f"{AT_ONCE} tabs put something in at once, on all three: it is all there, once")

    before = Browser()
    before.cookies = dict(ada.cookies)
    same(ada.ask(python, "POST", "/login", user="ada lovelace")[0], 200, "another login on python")
    same(ada.cookies["sid"] == before.cookies["sid"], False, "the id after another login is the old one")
    everywhere(ada, {"user": "ada lovelace", "basket": basket}, "after another login on python")
    everywhere(before, None, "with the id of before")
    told("she logged in again on python: another id, the same basket, and the old id opens nothing")

    stranger = Browser()
    stranger.cookies["sid"] = secrets.token_hex(16)
    everywhere(stranger, None, "with a made-up id")
    for server in servers:
        same(stranger.ask(server, "POST", "/basket", item="x")[0], 401, f"basket with a made-up id, on {server.name}")

    tab = Browser()
    tab.cookies = dict(ada.cookies)
    same(ada.ask(node, "POST", "/logout")[0], 200, "sign-out on node")
    same(ada.cookies, {}, "cookies after the sign-out")
    everywhere(tab, None, "in another tab after the sign-out on node")
    same(tab.ask(rust, "POST", "/basket", item="late")[0], 401, "basket after the sign-out")
    told("she signed out on node: it is over everywhere")

    for server in servers:
        visitor = Browser()
        same(visitor.ask(server, "POST", "/login", user=server.name)[0], 200, f"login on {server.name}")
        same(visitor.ask(server, "POST", "/login", user="again")[0], 200, f"another login on {server.name}")
        everywhere(visitor, {"user": "again", "basket": []}, f"after the logins on {server.name}")
        same(visitor.ask(server, "POST", "/logout")[0], 200, f"sign-out on {server.name}")
        everywhere(visitor, None, f"after the sign-out on {server.name}")
    told("logins, renewals and sign-outs on each of the three: known on the others")


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--nodes", required=True, help="the program of the example three-nodes")
    options.add_argument("--base-port", required=True, type=int)
    for language in ("rust", "python", "node"):
        options.add_argument(f"--{language}", required=True, help="command of the server; the node is added")
    options.add_argument("--check", action="store_true", help="play the user, and end")
    options = options.parse_args()

    # What all three servers know: with it an id in a cookie becomes the key under which the session stands.
    environment = {**os.environ, "SESSION_ID_KEY": secrets.token_hex(32)}
    started = []
    try:
        nodes = Nodes("three-nodes", [options.nodes, "--base-port", str(options.base_port)])
        started.append(nodes)
        nodes.line_with("ready", READY)
        addresses = [f"127.0.0.1:{options.base_port + offset}" for offset in OFFSETS]
        commands = {"rust": options.rust, "python": options.python, "node": options.node}
        servers = []
        for (name, command), address in zip(commands.items(), addresses, strict=True):
            server = Server(name, command, address, environment)
            started.append(server)
            servers.append(server)
        for server in servers:
            server.port = int(server.line_with("", LISTENING))
            print(f"{server.name:<7} {server.url()}  at the node {server.node}, process {server.process.pid}", flush=True)
        if options.check:
            play(*servers)
            print("one login, three languages", flush=True)
            return
        print("\nOne cookie is good for all three:")
        print(f"  curl -c jar -b jar -d user=ada {servers[0].url()}/login")
        print(f"  curl -c jar -b jar -d item=bees {servers[1].url()}/basket")
        print(f"  curl -c jar -b jar {servers[2].url()}/")
        print(f"  curl -c jar -b jar -X POST {servers[2].url()}/logout")
        print("Ctrl-C stops all.", flush=True)
        for _ in iter(nodes.process.stdout.readline, ""):
            pass
        raise SystemExit("the nodes have ended")
    except KeyboardInterrupt:
        print("\nstopping")
    finally:
        for process in reversed(started):
            process.stop()


if __name__ == "__main__":
    main()
