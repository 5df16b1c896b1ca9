"""Locks and queues: redis-py's Lock, Celery, RQ and BullMQ, each with its ends at nodes of their own."""

import os
import random
import sys
import threading
import time

import celery
import redis
import redis.exceptions
import rq

import workers
from lives import PATIENCE, Program, Store, same, split, until

# How a worker is started. Celery warns of being root, as whom CI runs.
RUN = (sys.executable, "-W", "ignore", "-c")
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.abspath(__file__))}

# How long a life's count stays, in seconds.
KEPT_SECONDS = 3600


class Lock(Store):
    """A counter that is read and written in two steps: without mutual exclusion an increment would be lost."""

    name = "redis-py Lock"
    database = 8
    holders, increments = 4, 5

    def life(self):
        key = f"lock:{random.getrandbits(64):016x}"
        nodes = self.survivors()
        clients = [self.client(nodes[which % len(nodes)]) for which in range(self.holders)]
        clients[0].set(f"{key}:count", 0)
        failures, seen = [], []

        def hold(client):
            try:
                for _ in range(self.increments):
                    with client.lock(f"{key}:lock", timeout=PATIENCE, blocking_timeout=PATIENCE, sleep=0.01):
                        count = int(client.get(f"{key}:count"))
                        began = time.time()
                        client.set(f"{key}:count", count + 1)
                        self.wrote(began)
                        seen.append(count)
            except Exception as failure:
                failures.append(failure)

        threads = [threading.Thread(target=hold, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for failure in failures:
            raise failure
        same(seen, list(range(self.holders * self.increments)), "counted under the lock, in order")
        mine, theirs = clients[0], clients[1]
        lock, other = mine.lock(f"{key}:lock", timeout=PATIENCE), theirs.lock(f"{key}:lock", timeout=PATIENCE)
        same(lock.acquire(blocking=False), True, "a free lock")
        same(other.acquire(blocking=False), False, "a lock that is held")
        same((lock.owned(), lock.extend(10), lock.reacquire()), (True, True, True), "extended by its owner")
        stranger = theirs.lock(f"{key}:lock")
        stranger.local.token = b"not the token"
        try:
            stranger.release()
        except redis.exceptions.LockNotOwnedError:
            pass
        else:
            raise AssertionError("a lock was released by a stranger")
        lock.release()
        same(other.acquire(blocking_timeout=PATIENCE), True, "a lock that was released")
        other.release()
        # Whoever forgets it loses it when its time is over.
        same(mine.lock(f"{key}:lock", timeout=0.2).acquire(blocking=False), True, "a lock of a moment")
        same(other.acquire(blocking_timeout=PATIENCE), True, "after its time")
        other.release()
        mine.expire(f"{key}:count", KEPT_SECONDS)
        self.keep(f"{key}:count")
        for client in clients:
            client.close()

    def verify(self):
        for address in self.addresses:
            with self.client(address) as client:
                for key in self.kept:
                    until(f"{key} at {address}", lambda: client.get(key) == b"%d" % (self.holders * self.increments))

    def client(self, address):
        host, port = split(address)
        return redis.Redis(host=host, port=port, db=self.database)


class Celery(Store):
    """A worker at one node, who asks for work at another: broker and results."""

    name = "Celery"
    database = 6

    def __init__(self, addresses):
        super().__init__(addresses)
        worker, asking = (f"redis://{address}/{self.database}" for address in addresses[:2])
        workers.app.conf.update(broker_url=asking, result_backend=asking)
        environment = {**ENVIRONMENT, "CELERY_BROKER": worker, "CELERY_BACKEND": worker}
        self.program = Program(*RUN, "import workers; workers.run_celery()", env=environment)
        same(self.program.line(), "ready", "Celery's worker")

    def life(self):
        one = self.written(workers.add.delay, 1, 1)
        later = self.written(workers.add.apply_async, (2, 2), countdown=0.3)
        again = self.written(workers.fails_twice.delay, "third time")
        broken = self.written(workers.breaks.delay, "déjà vu")
        both = self.written(celery.chord([workers.add.s(number, number) for number in range(5)], workers.total.s()))
        chained = self.written(celery.chain(workers.add.s(1, 2), workers.add.s(3)))
        wanted = [(one, 2), (later, 4), (again, "third time"), (both, 20), (chained, 6)]
        for result, value in wanted:
            same(result.get(timeout=PATIENCE), value, "Celery's result")
            same((result.state, result.ready()), ("SUCCESS", True), "Celery's state")
            if result is both:
                self.keep(result.id)
            else:
                self.written(result.forget)
        try:
            broken.get(timeout=PATIENCE)
        except ValueError as error:
            same(str(error), "déjà vu", "Celery's failure")
        else:
            raise AssertionError("a task that breaks has a result")

    def beat(self):
        self.written(workers.app.backend.store_result, f"beat-{os.getpid()}", None, "STARTED")

    def verify(self):
        for task in self.kept:
            same(workers.app.AsyncResult(task).get(timeout=PATIENCE), 20, "Celery's result, later")

    def close(self):
        self.program.close()
        workers.app.pool.force_close_all()


class Rq(Store):
    """A worker at one node, who asks for work at another."""

    name = "RQ"
    database = 7

    def __init__(self, addresses):
        super().__init__(addresses)
        self.worker_url, url = (f"redis://{address}/{self.database}" for address in addresses[:2])
        self.redis = redis.Redis.from_url(url)
        self.program = Program(*RUN, f"import workers; workers.run_rq({self.worker_url!r})", env=ENVIRONMENT)
        same(self.program.line(), "ready", "RQ's worker")
        self.queue = rq.Queue("default", connection=self.redis)

    def life(self):
        enqueue = self.queue.enqueue
        first = self.written(enqueue, "workers.total", [1, 2, 3], result_ttl=KEPT_SECONDS)
        after = self.written(enqueue, "workers.total", [4, 5], depends_on=first)
        again = self.written(enqueue, "workers.fails_once", self.worker_url, f"runs:{first.id}", retry=rq.Retry(max=1))
        broken = self.written(enqueue, "workers.breaks", "déjà vu")
        for job, value in ((first, 6), (after, 9), (again, "the second time")):
            until(f"RQ's job {job.get_status()}", lambda: job.get_status(refresh=True) == "finished")
            same(job.latest_result().return_value, value, "RQ's result")
            if job is first:
                self.keep(job.id)
            else:
                self.written(job.delete)
        until("RQ's job fails", lambda: broken.get_status(refresh=True) == "failed")
        assert "déjà vu" in broken.latest_result().exc_string
        self.written(broken.delete)

    def beat(self):
        job = self.queue.create_job("workers.total", [])
        self.written(job.save)
        self.written(job.delete)

    def verify(self):
        for job in self.kept:
            job = rq.job.Job.fetch(job, connection=self.redis)
            same((job.get_status(), job.latest_result().return_value), ("finished", 6), "RQ's result, later")

    def close(self):
        self.program.close()
        self.redis.close()


class BullMq(Store):
    """`node/bullmq.mjs`, told to lead one life after the other."""

    name = "BullMQ"

    def __init__(self, addresses):
        super().__init__(addresses)
        self.program = Program("node", os.environ["NODE_APPS"] + "/bullmq.mjs", *addresses[:2])
        same(self.program.line(), "ready", "BullMQ's worker")

    def life(self):
        self.program.tell("life")
        while (line := self.program.line()) != "ok":
            word, what = line.split(" ", 1)
            if word == "keeps":
                self.keep(what)
            else:
                same(word, "wrote", f"BullMQ: {line}")
                self.wrote(float(what))

    def verify(self):
        for job in self.kept:
            self.program.tell(f"look {job}")
            same(self.program.line(), "completed 6", f"BullMQ's job {job}, later")

    def close(self):
        self.program.close()


STORES = (Lock, Celery, Rq, BullMq)
