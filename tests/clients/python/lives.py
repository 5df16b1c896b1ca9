"""What all stores have in common: whole lives of sessions, locks and jobs, which `stores.py` leads; also while a node is killed (`doomed`)."""

import socket
import subprocess
import threading
import time

# A condition that does not come within this time is a failure, in seconds.
PATIENCE = 30

# What a client may be told while there is no leader, or when the node that it spoke to dies. Anything else is wrong.
TRANSIENT = (
    "LOADING",
    "TRYAGAIN",
    "UNKNOWN",
    # As redis-py and node-redis name the first two without the prefix.
    "BusyLoadingError",
    "no leader for",
    "not fresh enough",
    "TryAgainError",
    "Connection",
    "ECONNRE",
    "Socket closed",
    "SocketClosed",
    "timed out",
    "TimeoutError",
    "RemoteDisconnected",
)


class Cut(Exception):
    """A life ends here: whether its last step was taken is open, and it cannot be taken again. Told by nodes that are killed."""


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
        # The address of a node that is or will be killed. Only what speaks to it may be told of trouble.
        self.doomed = None
        self.lock = threading.Lock()
        # When writes that were acknowledged began and ended.
        self.writes = []
        # What was told instead of an acknowledgement: the node, and the words.
        self.troubles = []
        self.lives = 0
        self.cuts = 0

    def life(self):
        raise NotImplementedError

    def verify(self):
        """Looks, after everything, at what must have stayed."""

    def came_back(self):
        """Waits until what speaks to the node that was killed and started again serves."""

    def close(self):
        pass

    def wrote(self, began):
        with self.lock:
            self.writes.append((began, time.time()))

    def trouble(self, address, words):
        """Notes it where it may be, and fails where it must not."""
        with self.lock:
            self.troubles.append((address, words))
        assert self.doomed is not None, f"{self.name} at {address}: {words}"
        assert any(kind in words for kind in TRANSIENT), f"{self.name} at {address}: not transient: {words}"


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
