"""The Python server: Flask and redis-py. app.py HOST:PORT; what it answers, and how the session is kept, stands in ../README.md.

Prints the port that it listens on, and ends when its standard input does.
"""

import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import sys
import threading

import redis
from flask import Flask, jsonify, make_response, request
from werkzeug.serving import make_server

# Milliseconds without use after which a session ends.
IDLE_MS = 20 * 60 * 1000
# Times that a change is tried when others change the session meanwhile.
ATTEMPTS = 32

host, port = sys.argv[1].rsplit(":", 1)
cache = redis.Redis(host=host, port=int(port))
id_key = os.environ["SESSION_ID_KEY"].encode()
app = Flask(__name__)


def key_of(id):
    """Where the session with this id stands. Only a keyed hash of the id is stored: who reads the cache cannot log in."""
    return "session:" + hmac.new(id_key, id.encode(), hashlib.sha256).hexdigest()[:32]


def session_id():
    """The id in the cookie, if it is one."""
    id = request.cookies.get("sid", "")
    return id if re.fullmatch("[0-9a-f]{32}", id) else None


def load():
    """The key, the version and the items of the request's session; None if nobody is logged in, or not any more.

    Another server may have changed it through another node a moment ago: it is read as of now, in the round trip of the read itself.
    """
    id = session_id()
    if id is None:
        return None
    both = cache.pipeline(transaction=False)
    both.execute_command("PLENARY", "FRESH", "linearizable")
    both.execute_command("SESSION.LOAD", key_of(id))
    _, loaded = both.execute()
    if loaded is None:
        return None
    items = {name.decode(): json.loads(value) for name, value in loaded[b"items"].items()}
    return key_of(id), loaded[b"version"], items


@app.get("/")
def page():
    session = load()
    if session is None:
        return "", 401
    _, _, items = session
    return jsonify(server="python", user=items.get("user"), basket=items.get("basket", []))


@app.post("/login")
def login():
    """A login gets a fresh id, against session fixation; what was in the basket stays."""
    id = secrets.token_hex(16)
    key, user, session = key_of(id), request.form["user"], load()
    if session is None:
        items = {"user": user, "basket": []}
        words = [word for name, value in items.items() for word in (name, json.dumps(value))]
        cache.execute_command("SESSION.CREATE", key, IDLE_MS, "OWNER", user, "ITEMS", len(items), *words)
    else:
        both = cache.pipeline(transaction=True)
        both.execute_command("SESSION.RENAME", session[0], key)
        both.execute_command("SESSION.SAVE", key, "*", "OWNER", user, "SET", 1, "user", json.dumps(user))
        both.execute()
    response = make_response("welcome\n")
    response.set_cookie("sid", id, httponly=True, samesite="Lax")
    return response


@app.post("/basket")
def add():
    """A change is saved only on the version that was read: two servers that change the basket at once both get what they put in."""
    for _ in range(ATTEMPTS):
        session = load()
        if session is None:
            return "", 401
        key, version, items = session
        basket = items.get("basket", []) + [request.form["item"]]
        try:
            cache.execute_command("SESSION.SAVE", key, version, "SET", 1, "basket", json.dumps(basket))
            return "it is in\n"
        except redis.ResponseError as error:
            if str(error).startswith("NOSESSION"):
                return "", 401
            if not str(error).startswith("STALESESSION"):
                raise
    return "", 409


@app.post("/logout")
def logout():
    id = session_id()
    if id is not None:
        cache.execute_command("SESSION.END", key_of(id))
    response = make_response("good bye\n")
    response.delete_cookie("sid")
    return response


@app.errorhandler(redis.RedisError)
def failed(error):
    """It could not be done; the request may be sent again."""
    print("python:", error, file=sys.stderr)
    return "", 503


logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = make_server("127.0.0.1", 0, app, threaded=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.port, flush=True)
# Whoever started it holds the other end.
sys.stdin.read()
