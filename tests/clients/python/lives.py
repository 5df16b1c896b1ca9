"""What all stores have in common: whole lives of sessions, locks and jobs. `stores.py` leads them, and `failover.py` while a leader is killed."""

import socket
import subprocess
import threading
import time

# A condition that does not come within this time is a failure, in seconds.
PATIENCE = 30

# How a client says that its own node is gone, or not ready yet. Anything else is wrong, there too.
GONE = ("ConnectionError", "ClientOffline", "SocketClosed", "ECONNRE", "RemoteDisconnected", "LOADING", "BusyLoadingError")


def same(got, wanted, what=""):
    assert got == wanted, f"{what}: got {got!r}, wanted {wanted!r}"


def until(what, condition):
    """Waits until `condition` gives something true, and hands it out."""
    end = time.monotonic() + PATIENCE
    while True:
        if found := condition():
            return found
        assert time.monotonic() < end, f"not within {PATIENCE} s: {what}"
        time.sleep(0.005)


def split(address):
    host, port = address.rsplit(":", 1)
    return host, int(port)


class Store:
    """One thing that is tried. `life` leads one life from its beginning to its end and raises when an answer is wrong."""

    name = "?"
    # Threads that lead lives side by side while the leader is killed.
    side_by_side = 1

    def __init__(self, addresses):
        self.addresses = addresses
        # The address of a node that will be killed or is gone. What fails elsewhere is wrong.
        self.doomed = None
        self.lock = threading.Lock()
        # When writes that were acknowledged by nodes that live began and ended.
        self.writes = []
        # How often something failed at the node that was killed.
        self.failed = 0
        # What lives have left behind to be looked at in the end.
        self.kept = []
        self.lives = 0

    def life(self):
        raise NotImplementedError

    def beat(self):
        """Writes once, where lives wait for more than their writes, such as for a worker: asked for again and again beside them."""

    def verify(self):
        """Looks, after everything, at what was kept."""
        raise NotImplementedError

    def survivors(self):
        return [address for address in self.addresses if address != self.doomed]

    def came_back(self):
        """The node that was killed serves again: from now on nothing may fail there either."""
        self.doomed = None

    def close(self):
        pass

    def wrote(self, began):
        with self.lock:
            self.writes.append((began, time.time()))

    def written(self, write, *arguments, **options):
        """What a call of a client gives that writes."""
        began = time.time()
        given = write(*arguments, **options)
        self.wrote(began)
        return given

    def keep(self, what):
        with self.lock:
            self.kept.append(what)

    def fails(self, address, words):
        """Counts it where it may be."""
        assert address == self.doomed and any(kind in words for kind in GONE), f"{self.name} at {address}: {words}"
        with self.lock:
            self.failed += 1


class Program:
    """A program of ours that ends when its standard input does. Its first line says where it serves, or that it is ready."""

    def __init__(self, *command, env=None, stderr=None):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, env=env
        )

    def line(self):
        """The next line it prints. It is killed if that takes too long, so that nothing hangs."""
        guard = threading.Timer(2 * PATIENCE, self.process.kill)
        guard.start()
        try:
            line = self.process.stdout.readline()
        finally:
            guard.cancel()
        assert line, f"{self.process.args} ended or hangs"
        return line.strip()

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def close(self):
        """Asks it to end, and makes it."""
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class Resp:
    """A bare connection, RESP2. Replies stay as they look on the wire: `+OK` and `-ERR …` are text with their first byte, a bulk is text
    without (Latin-1, so that each byte is one character), an integer is a number, nil is None."""

    def __init__(self, address, database=0):
        self.address = address
        self.socket = socket.create_connection(split(address), timeout=PATIENCE)
        self.file = self.socket.makefile("rb")
        if database:
            same(self.call("SELECT", database), "+OK", address)

    def send(self, *command):
        parts = [part if isinstance(part, bytes) else str(part).encode("latin-1") for part in command]
        self.socket.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts))

    def reply(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError(f"{self.address} closed the connection")
        kind, rest = line[:1], line[1:-2].decode("latin-1")
        if kind in b"+-":
            return kind.decode() + rest
        if kind == b":":
            return int(rest)
        if kind == b"$":
            if rest == "-1":
                return None
            bulk = self.file.read(int(rest) + 2)
            if len(bulk) != int(rest) + 2:
                raise ConnectionError(f"{self.address} closed the connection")
            return bulk[:-2].decode("latin-1")
        assert kind == b"*", line
        return None if rest == "-1" else [self.reply() for _ in range(int(rest))]

    def call(self, *command):
        self.send(*command)
        return self.reply()

    def close(self):
        self.file.close()
        self.socket.close()
