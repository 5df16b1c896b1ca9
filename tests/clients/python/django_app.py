"""A Django application with sessions: django_app.py redis://HOST:PORT/DATABASE cache|cached_db SQLITE_FILE

Speaks as `http_stores.py` says. Everything of Redis is Django's own: `SessionMiddleware`, the named session engine, `RedisCache`.
"""

import json
import logging
import sys
import threading

import django
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path
from werkzeug.serving import make_server

URL, ENGINE, DATABASE = sys.argv[1:]

settings.configure(
    SECRET_KEY="known to all instances",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.sessions"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    SESSION_ENGINE=f"django.contrib.sessions.backends.{ENGINE}",
    CACHES={
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": URL,
        }
    },
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": DATABASE,
            "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE"},
        }
    },
    LOGGING_CONFIG=None,
)


def items(request):
    session, before = request.session, {}
    before.update((name, session[name]) for name in session.keys() if name != "_session_expiry")
    if request.method == "PUT":
        session.update(json.loads(request.body))
    elif request.method == "DELETE":
        session.flush()
    return JsonResponse({"items": before})


def renew(request):
    request.session.cycle_key()
    return JsonResponse({})


def expire(request):
    request.session.set_expiry(1)
    return JsonResponse({})


def failed(_request):
    return JsonResponse({"error": repr(sys.exc_info()[1])}, status=500)


urlpatterns = [path("session", items), path("renew", renew), path("expire", expire)]
handler500 = failed

django.setup()
call_command("migrate", verbosity=0)
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = make_server("127.0.0.1", 0, get_wsgi_application(), threaded=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.port, flush=True)
# Whoever started it holds the other end.
sys.stdin.read()
