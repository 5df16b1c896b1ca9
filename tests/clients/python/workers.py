"""What the workers of Celery and RQ run, and how they are started. Who started one ends it by closing its standard input."""

import os
import sys
import threading

import celery
import celery.signals
import redis
import rq

app = celery.Celery("workers", broker=os.environ.get("CELERY_BROKER"), backend=os.environ.get("CELERY_BACKEND"))
app.conf.broker_connection_retry_on_startup = True


@app.task
def add(a, b):
    return a + b


@app.task
def total(parts):
    return sum(parts)


@app.task(bind=True, max_retries=2)
def fails_twice(self, value):
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return value


@app.task
def breaks(words):
    raise ValueError(words)


def fails_once(url, key):
    """A job of RQ: its first run fails."""
    if redis.Redis.from_url(url).incr(key) == 1:
        raise ValueError("the first time")
    return "the second time"


def run_celery():
    end_with_input()
    celery.signals.worker_ready.connect(ready, weak=False)
    app.worker_main(["--quiet", "worker", "--pool", "solo", "--loglevel", "CRITICAL"])


def run_rq(url):
    end_with_input()
    worker = rq.SimpleWorker(["default"], connection=redis.Redis.from_url(url))
    ready()
    worker.work(logging_level="CRITICAL")


def ready(**_):
    # Celery has taken `sys.stdout` for its log.
    print("ready", file=sys.__stdout__, flush=True)


def end_with_input():
    def wait():
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
