"""A Flask application with Flask-Session: flask_app.py redis://HOST:PORT/DATABASE local|linearizable

Speaks as `http_stores.py` says. By default Flask-Session writes a session back with each request, also with one that only looks: where
users go from node to node, such a request must not see an older session than the one that it overwrites. So either each connection asks
Plenary for reads as of now (`linearizable`), or Flask-Session is told to write what was changed only (`local`).
"""

import logging
import sys
import threading
from datetime import timedelta

import redis
import redis.backoff
import redis.retry
from flask import Flask, jsonify, request, session
from flask_session import Session
from werkzeug.exceptions import InternalServerError
from werkzeug.serving import make_server

URL, FRESHNESS = sys.argv[1:]


def linearizable(connection):
    connection.on_connect()
    connection.send_command("PLENARY", "FRESH", "linearizable")
    connection.read_response()


# A copy whose node is gone says so at once, so that users are sent to another one: by itself redis-py tries ten times, for up to 5 s.
options = {"retry": redis.retry.Retry(redis.backoff.NoBackoff(), 1)}
if FRESHNESS == "linearizable":
    options["redis_connect_func"] = linearizable
app = Flask(__name__)
app.logger.disabled = True
app.config.update(
    SESSION_TYPE="redis",
    SESSION_REFRESH_EACH_REQUEST=FRESHNESS == "linearizable",
    SESSION_REDIS=redis.Redis.from_url(URL, **options),
)
Session(app)


@app.route("/session", methods=["GET", "PUT", "DELETE"])
def items():
    before = {name: value for name, value in session.items() if name != "_permanent"}
    if request.method == "PUT":
        session.update(request.get_json())
    elif request.method == "DELETE":
        session.clear()
    return jsonify(items=before)


@app.post("/renew")
def renew():
    app.session_interface.regenerate(session)
    return jsonify({})


@app.post("/expire")
def expire():
    # Flask has one life for all sessions. This one is saved with a life of a second when the request ends.
    app.permanent_session_lifetime = timedelta(seconds=1)
    session.modified = True
    return jsonify({})


@app.teardown_request
def one_life_for_all(_error):
    app.permanent_session_lifetime = timedelta(days=1)


@app.errorhandler(InternalServerError)
def failed(error):
    return jsonify(error=repr(error.original_exception)), 500


logging.getLogger("werkzeug").setLevel(logging.ERROR)
# One request at a time, so that the life above is of one request only.
server = make_server("127.0.0.1", 0, app, threaded=False)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.port, flush=True)
# Whoever started it holds the other end.
sys.stdin.read()
