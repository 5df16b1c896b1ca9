"""Every store leads its lives while the leader of three nodes is killed: failover.py PLENARY

Starts three processes of the program PLENARY on free ports of loopback. The copies of an application and the ends of a queue are each at a
node of their own, with the copies at the leader among them. Amid the traffic the leader is killed with -9. Only what speaks to it may fail, and
only until it is started again; the others must go on by themselves within `RESUME`, without an error. Whatever was acknowledged must be
there: each life looks at what it has written, before and after, and what lives have kept is looked at in the end, on all nodes.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time

from lives import PATIENCE, Resp, same, until
from stores import STORES, STORES_OF_PLENARY

HERE = os.path.dirname(os.path.abspath(__file__))

# The longest time from the kill of a leader to the next write of a store that another node acknowledges, in seconds: that long a node
# holds a write back before it answers that there is no leader. An election takes about a fifth of it.
RESUME = 5
# Lives that each store must lead before the leader is killed, after that, and when all nodes serve again.
LIVES = 2
# Between two beats of a store, in seconds.
BEAT = 0.05


class Node:
    """One process of the cluster. It ends when this program does, however that ends."""

    def __init__(self, program, folder, peers, mine, resp):
        self.resp = f"127.0.0.1:{resp}"
        self.log = f"{folder}/{mine}.log"
        join = ",".join(f"127.0.0.1:{port}" for port in peers)
        self.command = [program, "serve", "--data", f"{folder}/{mine}", "--listen", f"127.0.0.1:{mine}", "--join", join]
        self.command += ["--expect", str(len(peers)), "--resp", self.resp, "--until-stdin-ends"]
        self.start()

    def start(self):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PLENARY_")}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stderr=log, env=environment)

    def ask(self, *command):
        """None while it does not answer."""
        try:
            connection = Resp(self.resp)
            try:
                return connection.call(*command)
            finally:
                connection.close()
        except OSError:
            return None

    def status(self):
        return json.loads(self.ask("PLENARY", "STATUS") or "{}")

    def ready(self):
        assert self.process.poll() is None, f"{self.command} ended"
        return self.status().get("ready")

    def kill(self):
        self.process.kill()
        self.process.wait(PATIENCE)
        self.process.stdin.close()


class Cluster:
    def __init__(self, program, folder):
        free_port = os.path.join(HERE, "../../../.ci/free-port")
        base = int(subprocess.run([free_port], check=True, capture_output=True, text=True).stdout)
        peers = [base + 600, base + 602, base + 603]
        self.nodes = [Node(program, folder, peers, peer, peer - 600) for peer in peers]

    def ready(self):
        for node in self.nodes:
            until(f"{node.resp} serves", node.ready)

    def leader(self):
        return until("there is a leader", lambda: next((n for n in self.nodes if n.status().get("role") == "leader"), None))

    def same_state(self):
        """Waits until all are at one index, and compares the digests of their states."""

        def level():
            digests = [node.ask("PLENARY", "DIGEST") for node in self.nodes]
            return all(digest and digest[0] == digests[0][0] for digest in digests) and digests

        digests = until("all nodes are at one index", level)
        assert all(digest == digests[0] for digest in digests), digests

    def last_words(self):
        for node in self.nodes:
            with open(node.log) as log:
                yield from (node.resp, *(line[:200].rstrip() for line in log.readlines()[-5:]))

    def end(self):
        for node in self.nodes:
            if node.process.poll() is None:
                node.kill()


class Traffic:
    """Threads that lead the lives of a store, one after the other, and one of beats, until they are told to stop or one of them fails."""

    def __init__(self, store):
        self.store = store
        self.stopped = threading.Event()
        self.failure = None
        steps = [self.life] * store.side_by_side + [self.beat]
        self.threads = [threading.Thread(target=self.go_on, args=(step,), daemon=True) for step in steps]
        for thread in self.threads:
            thread.start()

    def go_on(self, step):
        while not self.stopped.is_set():
            try:
                step()
            except Exception as failure:
                self.failure = failure
                self.stopped.set()

    def life(self):
        self.store.life()
        with self.store.lock:
            self.store.lives += 1

    def beat(self):
        self.store.beat()
        self.stopped.wait(BEAT)

    def lives(self):
        if self.failure:
            raise AssertionError(f"{self.store.name} failed") from self.failure
        return self.store.lives

    def stop(self):
        for thread in self.threads:
            thread.join(2 * PATIENCE)
            assert not thread.is_alive(), f"{self.store.name} hangs"
        self.lives()


def go_on(traffics):
    """Waits until each store has led some more lives, and has kept something."""
    before = [traffic.lives() for traffic in traffics]
    for traffic, led in zip(traffics, before):
        until(f"{traffic.store.name} leads its lives", lambda: traffic.lives() >= led + LIVES and traffic.store.kept)


def kill_leader(cluster, leader, stores):
    """The leader, killed amid the traffic of all stores and started again. When it was killed, and when it was gone."""
    traffics = [Traffic(store) for store in stores]
    try:
        go_on(traffics)
        same(leader.status()["role"], "leader", "who is to be killed")
        kept = [(store, len(store.kept)) for store in stores]
        killed = time.time()
        leader.kill()
        gone = time.time()
        go_on(traffics)
        leader.start()
        until("the killed node serves", leader.ready)
        for store in stores:
            store.came_back()
        go_on(traffics)
    finally:
        for traffic in traffics:
            traffic.stopped.set()
    for traffic in traffics:
        traffic.stop()
    for store in stores:
        store.verify()
    cluster.same_state()
    for store, before in kept:
        # What another node acknowledged of what was begun when the leader was gone.
        wait = min(ended for began, ended in store.writes if began >= gone) - killed
        print(
            f"  {store.name}: writes again after {wait:.2f} s, {store.failed} failed, all there of {before} kept before the kill and"
            f" {len(store.kept) - before} after ({store.lives} lives)",
            flush=True,
        )
        assert wait <= RESUME, f"{store.name}: no write for {wait:.1f} s after the kill"


def main(program):
    began = time.monotonic()
    stores = []
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(program, folder)
        try:
            cluster.ready()
            leader = cluster.leader()
            print(f"the leader, {leader.resp}, is killed:")
            # Who has two ends has them at the other nodes.
            addresses = sorted((node.resp for node in cluster.nodes), key=leader.resp.__eq__)
            for kind in STORES + STORES_OF_PLENARY:
                stores.append(kind(addresses))
                stores[-1].doomed = leader.resp
            kill_leader(cluster, leader, stores)
        except BaseException:
            print("The nodes said last:", *cluster.last_words(), sep="\n", file=sys.stderr)
            raise
        finally:
            for store in stores:
                store.close()
            cluster.end()
    print(f"while the leader is killed: ok ({time.monotonic() - began:.0f} s)")


if __name__ == "__main__":
    main(sys.argv[1])
