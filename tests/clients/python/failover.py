"""Every store leads its lives while the leader of a cluster of three is killed: failover.py PLENARY [KILLS]

Starts three processes of the program PLENARY on free ports of loopback. The copies of an application and the ends of a queue are each at a
node of their own. Amid the traffic the leader is killed with -9; the others must go on by themselves, as their clients are by default, and
nothing that was acknowledged may be missing. Then the node is started again, and all that speak to it must serve again.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

from lives import PATIENCE, Cut, Resp, same, until
from stores import STORES, STORES_OF_PLENARY

HERE = os.path.dirname(os.path.abspath(__file__))

# The longest time from the kill of a leader to the next write of a store that is acknowledged by another node, in seconds: that long a
# node holds a write back before it answers that there is no leader. An election takes a tenth of it.
RESUME = 5
# Lives that each store must have led before the leader is killed, and again after that.
LIVES = 2


class Node:
    """One process of the cluster."""

    def __init__(self, program, folder, peers, mine, resp):
        self.resp = f"127.0.0.1:{resp}"
        self.log = f"{folder}/{mine}.log"
        join = ",".join(f"127.0.0.1:{port}" for port in peers)
        self.command = [program, "serve", "--data", f"{folder}/{mine}", "--listen", f"127.0.0.1:{mine}", "--join", join]
        self.command += ["--expect", str(len(peers)), "--resp", self.resp]
        self.process = None
        self.start()

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stderr=log)

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
        assert self.process.poll() is None, f"{self.command} ended:\n" + open(self.log).read()
        return self.status().get("ready")

    def end(self, how):
        os.kill(self.process.pid, how)
        self.process.wait(PATIENCE)


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

    def digests(self):
        """At which index each node is, and the digest of its state."""
        return [node.ask("PLENARY", "DIGEST") for node in self.nodes]

    def same_state(self):
        def level():
            digests = self.digests()
            return all(digest and digest[0] == digests[0][0] for digest in digests) and digests

        digests = until("all nodes are at one index", level)
        assert all(digest == digests[0] for digest in digests), digests

    def end(self):
        for node in self.nodes:
            if node.process.poll() is None:
                node.end(signal.SIGKILL)


class Traffic:
    """Threads that lead the lives of a store, one after the other, until they are told to stop or one of them fails."""

    def __init__(self, store):
        self.store = store
        self.stopped = threading.Event()
        self.failure = None
        self.threads = [threading.Thread(target=self.go_on, daemon=True) for _ in range(store.side_by_side)]
        for thread in self.threads:
            thread.start()

    def go_on(self):
        store = self.store
        while not self.stopped.is_set():
            try:
                store.life()
            except Cut:
                with store.lock:
                    store.cuts += 1
            except Exception as failure:
                self.failure = failure
                self.stopped.set()
            else:
                with store.lock:
                    store.lives += 1

    def lives(self):
        if self.failure:
            raise AssertionError(f"{self.store.name} failed while the leader was killed") from self.failure
        return self.store.lives

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join(2 * PATIENCE)
            assert not thread.is_alive(), f"{self.store.name} hangs"
        self.lives()


def go_on(traffics):
    """Waits until each store has led some more lives."""
    before = [traffic.lives() for traffic in traffics]
    for traffic, led in zip(traffics, before):
        until(f"{traffic.store.name} leads its lives", lambda: traffic.lives() >= led + LIVES)


def kill_leader(cluster, stores):
    """One leader, killed amid the traffic of all stores and started again. How long each store had to wait, in seconds."""
    leader = next(node for node in cluster.nodes if node.resp == stores[0].doomed)
    traffics = [Traffic(store) for store in stores]
    try:
        go_on(traffics)
        same(leader.status()["role"], "leader", "who is to be killed")
        killed = time.time()
        leader.end(signal.SIGKILL)
        go_on(traffics)
        leader.start()
        until("the killed node serves", leader.ready)
        go_on(traffics)
    finally:
        for traffic in traffics:
            traffic.stopped.set()
    for traffic in traffics:
        traffic.stop()
    for store in stores:
        store.came_back()
        store.verify()
    cluster.same_state()
    return [min(ended for began, ended in store.writes if began >= killed) - killed for store in stores]


def main(program, kills):
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(program, folder)
        try:
            cluster.ready()
            for _ in range(kills):
                one_kill(cluster)
        except BaseException:
            for node in cluster.nodes:
                said = [line[:200] for line in open(node.log).read().splitlines()[-5:]]
                print(f"{node.resp} {node.status()} said last:", *said, sep="\n", file=sys.stderr)
            raise
        finally:
            cluster.end()


def one_kill(cluster):
    doomed = cluster.leader().resp
    addresses = [node.resp for node in cluster.nodes if node.resp != doomed] + [doomed]
    stores = []
    try:
        for kind in STORES + STORES_OF_PLENARY:
            store = kind(addresses)
            stores.append(store)
            store.doomed = doomed
        waits = kill_leader(cluster, stores)
    finally:
        for store in stores:
            store.close()
    print(f"killed the leader, {doomed}:")
    for store, wait in zip(stores, waits):
        others = [words for address, words in store.troubles if address != doomed]
        print(
            f"  {store.name}: {store.lives} lives, {store.cuts} cut, writes again after {wait:.2f} s,"
            f" errors: {len(store.troubles)}, of which at the other nodes {len(others)} {sorted(set(others))[:3]}",
            flush=True,
        )
    for store, wait in zip(stores, waits):
        assert wait <= RESUME, f"{store.name}: no write for {wait:.1f} s after the kill"


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1)
