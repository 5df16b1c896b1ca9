"""redis-py with its default settings: every command that sessions and caches need, and what it must answer.

Called as `check.py HOST:PORT [HOST:PORT ...]`; several addresses are members of one Plenary cluster.
"""

import sys
import time

import redis

DB = 9
ADDRESSES = [(host, int(port)) for host, port in (address.rsplit(":", 1) for address in sys.argv[1:])]


def client(address=0, **options):
    host, port = ADDRESSES[address]
    return redis.Redis(host=host, port=port, db=DB, **options)


def same(got, wanted):
    assert got == wanted, f"got {got!r}, wanted {wanted!r}"


def refused(call, text):
    try:
        got = call()
    except redis.ResponseError as error:
        assert text in str(error), f"refused with {error!s}, wanted {text!r}"
    else:
        raise AssertionError(f"answered {got!r}, wanted a refusal with {text!r}")


def strings(r):
    r.flushdb()
    same(r.set("k", "v"), True)
    same(r.get("k"), b"v")
    same(r.set("k", "w", nx=True), None)
    same(r.set("k", "w", xx=True), True)
    same(r.set("none", "w", xx=True), None)
    same(r.set("k", "x", get=True), b"w")
    same(r.set("fresh", "x", get=True), None)
    same(r.set("k", "y", ex=100), True)
    assert 98 <= r.ttl("k") <= 100
    same(r.set("k", "z", keepttl=True), True)
    assert 98 <= r.ttl("k") <= 100
    same(r.set("k", "z", px=100_000), True)
    assert 98_000 <= r.pttl("k") <= 100_000
    at = int(time.time()) + 500
    same(r.set("k", "z", exat=at), True)
    same(r.expiretime("k"), at)
    same(r.set("k", "z", pxat=at * 1000 + 1), True)
    same(r.pexpiretime("k"), at * 1000 + 1)
    same(r.set("k", "z"), True)
    same(r.ttl("k"), -1)
    same(r.execute_command("SETEX", "k", 100, "e"), True)
    same(r.execute_command("PSETEX", "k", 100_000, "p"), True)
    same(r.setnx("k", "n"), False)
    same(r.getex("k", ex=50), b"p")
    assert 48 <= r.ttl("k") <= 50
    same(r.getex("k", persist=True), b"p")
    same(r.ttl("k"), -1)
    same(r.getset("k", "new"), b"p")
    same(r.getdel("k"), b"new")
    same(r.exists("k"), 0)
    same(r.append("k", "Hello "), 6)
    same(r.append("k", "World"), 11)
    same(r.strlen("k"), 11)
    same(r.getrange("k", -5, -1), b"World")
    same(r.setrange("k", 6, "Redis"), 11)
    same(r.get("k"), b"Hello Redis")
    same(r.mset({"m1": "1", "m2": "2"}), True)
    same(r.msetnx({"m2": "x", "m3": "3"}), False)
    same(r.mget("m1", "none", "m2"), [b"1", None, b"2"])
    same(r.incr("n"), 1)
    same(r.incrby("n", 41), 42)
    same(r.decr("n"), 41)
    same(r.decrby("n", 1), 40)
    same(r.incrbyfloat("n", "2.5"), 42.5)
    refused(lambda: r.incr("k"), "value is not an integer or out of range")
    every = bytes(range(256))
    same(r.set(every, every * 1000), True)
    same(r.get(every), every * 1000)
    same(r.set("empty", b""), True)
    same(r.get("empty"), b"")


def keys(r):
    r.flushdb()
    r.mset({"a": "1", "b": "2"})
    same(r.exists("a", "b", "c", "a"), 3)
    same(r.type("a"), b"string")
    same(r.expire("a", 100), True)
    same(r.expire("c", 100), False)
    same(r.expire("a", 50, nx=True), False)
    same(r.expire("b", 50, xx=True), False)
    same(r.expire("a", 50, gt=True), False)
    same(r.expire("a", 50, lt=True), True)
    assert 48 <= r.ttl("a") <= 50
    same(r.pexpire("a", 70_000, gt=True), True)
    at = int(time.time()) + 500
    same(r.expireat("a", at), True)
    same(r.pexpireat("a", at * 1000 + 7), True)
    same(r.pexpiretime("a"), at * 1000 + 7)
    same(r.persist("a"), True)
    same(r.persist("a"), False)
    same(r.ttl("c"), -2)
    same(r.rename("a", "z"), True)
    refused(lambda: r.rename("a", "z"), "no such key")
    same(r.renamenx("z", "b"), False)
    same(r.copy("z", "y"), True)
    same(r.copy("z", "b"), False)
    same(r.copy("z", "b", replace=True), True)
    same(r.get("b"), b"1")
    same(r.touch("b", "none"), 1)
    same(r.unlink("b", "none"), 1)
    same(r.delete("y", "z"), 2)
    same(r.randomkey(), None)
    same(r.dbsize(), 0)
    same(r.object("encoding", "none"), None)
    r.set("number", "12")
    same(r.object("encoding", "number"), b"int")
    r.set("soon", "gone", px=30)
    until = time.monotonic() + 20
    while r.exists("soon"):
        assert time.monotonic() < until, "a key outlived its deadline"


def hashes(r):
    r.flushdb()
    same(r.hset("h", "f", "1"), 1)
    same(r.hset("h", mapping={"f": "2", "g": b"\x00\xff\r\n"}), 1)
    same(r.hget("h", "g"), b"\x00\xff\r\n")
    same(r.hget("h", "none"), None)
    same(r.hgetall("h"), {b"f": b"2", b"g": b"\x00\xff\r\n"})
    same(r.hmget("h", "g", "none", "f"), [b"\x00\xff\r\n", None, b"2"])
    same(r.hsetnx("h", "f", "x"), False)
    same(r.hincrby("h", "f", 5), 7)
    same(r.hincrbyfloat("h", "f", "0.5"), 7.5)
    same(r.hexists("h", "f"), True)
    same(r.hlen("h"), 2)
    same(r.hstrlen("h", "g"), 4)
    same(sorted(r.hkeys("h")), [b"f", b"g"])
    same(sorted(r.hvals("h")), [b"\x00\xff\r\n", b"7.5"])
    assert r.hrandfield("h") in (b"f", b"g")
    same(len(r.hrandfield("h", -5)), 5)
    same(r.hdel("h", "f", "none"), 1)
    same(r.hdel("h", "g"), 1)
    same(r.exists("h"), 0)
    same(r.hgetall("h"), {})
    r.set("s", "v")
    refused(lambda: r.hget("s", "f"), "wrong kind of value")
    fields = {f"field:{i}".encode(): str(i).encode() for i in range(2000)}
    r.hset("big", mapping=fields)
    same(dict(r.hscan_iter("big", count=50)), fields)
    same(len(dict(r.hscan_iter("big", match="field:19*"))), 111)


def scanning(r):
    r.flushdb()
    with r.pipeline(transaction=False) as pipe:
        for i in range(1000):
            pipe.set(f"key:{i}", i)
        pipe.hset("hash", "f", "v")
        pipe.get("key:999")
        pipe.incr("hash")
        answers = pipe.execute(raise_on_error=False)
    same(answers[:1000], [True] * 1000)
    same(answers[1000:1002], [1, b"999"])
    assert isinstance(answers[1002], redis.ResponseError)
    every = {f"key:{i}".encode() for i in range(1000)}
    same(set(r.scan_iter(match="key:*", count=17)), every)
    same(set(r.scan_iter(_type="hash")), {b"hash"})
    same(set(r.keys("key:??")), {f"key:{i}".encode() for i in range(10, 100)})
    same(r.dbsize(), 1001)


def connection(r):
    same(r.ping(), True)
    same(r.echo("\x00binary"), b"\x00binary")
    assert r.client_id() > 0
    same(r.client_setname("check"), True)
    assert r.client_getname() in (b"check", "check")
    info = r.info()
    same((info["redis_mode"], info["role"], int(info["loading"])), ("standalone", "master", 0))
    assert r.time()[0] > 1_600_000_000
    same(r.role()[0], b"master")
    assert r.command_count() > 50
    assert "maxmemory" in r.config_get("maxmemory*")
    refused(lambda: r.execute_command("NONSENSE", "a"), "unknown command")
    refused(lambda: r.execute_command("GET"), "wrong number of arguments")
    other = redis.Redis(host=ADDRESSES[0][0], port=ADDRESSES[0][1], db=99)
    refused(other.ping, "DB index is out of range")


def cluster():
    """A write on one member, read on the others at least as new, with the token that says how new."""
    writer = client(0, single_connection_client=True)
    for turn in range(20):
        writer.set("across", turn)
        token = writer.execute_command("PLENARY", "TOKEN")
        for address in range(1, len(ADDRESSES)):
            reader = client(address)
            reader.execute_command("PLENARY", "WAITFOR", token)
            same(reader.get("across"), str(turn).encode())


for protocol in (None, 2, 3):
    r = client(**({} if protocol is None else {"protocol": protocol}))
    for check in (connection, strings, keys, hashes, scanning):
        check(r)
text = client(decode_responses=True)
text.set("text", "déjà vu")
same(text.get("text"), "déjà vu")
if len(ADDRESSES) > 1:
    cluster()
client().flushdb()
print(f"redis-py {redis.__version__}: ok")
