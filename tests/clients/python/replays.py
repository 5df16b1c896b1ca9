"""What session stores send that cannot be run here, written down command by command, with the answers that they rely on.

Each replay is a life of one session, job or lock, with keys of its own. The scripts do what those of the named client do; where a client
asks by SHA-1 first, so does the replay.
"""

import hashlib
import random
import time

from lives import Resp, Store, same, until

# Commands that always go through the log: when they are answered, there is a leader.
WRITES = set("SET SETEX SETNX DEL EXPIRE PEXPIRE HSET HMSET HINCRBY HDEL INCR INCRBY SADD SREM ZADD ZREM LPUSH RPUSH UNLINK EXEC".split())

# Where a life leaves a key behind, and for how many seconds it stays.
KEPT_DATABASE, KEPT_SECONDS = 8, 3600


class Replay(Store):
    """A store whose life is a list of commands with their answers."""

    database = 8

    def life(self):
        # Always one that survives; which one changes from life to life.
        self.node = random.choice(self.survivors())
        self.connection = Resp(self.node, self.database)
        self.key = f"{random.getrandbits(64):016x}"
        try:
            self.replay(self.answers)
            self.answers("+OK", "SELECT", KEPT_DATABASE)
            self.answers("+OK", "SETEX", f"kept:{self.key}", KEPT_SECONDS, self.key)
        finally:
            self.connection.close()
        self.keep(self.key)

    def verify(self):
        for address in self.addresses:
            connection = Resp(address, KEPT_DATABASE)
            for key in self.kept:
                until(f"{self.name} at {address}: kept:{key} is there", lambda: connection.call("GET", f"kept:{key}") == key)
            connection.close()

    def replay(self, answers):
        """`answers(wanted, command …)` sends a command and holds the answer to what is wanted."""
        raise NotImplementedError

    def said(self, *command, connection=None):
        began = time.time()
        reply = (connection or self.connection).call(*command)
        if command[0] in WRITES and reply != "+QUEUED":
            self.wrote(began)
        return reply

    def answers(self, wanted, *command):
        same(self.said(*command), wanted, f"{self.name} at {self.node}: {' '.join(map(str, command))[:200]}")

    def near(self, wanted, *command):
        """A time to live that has just begun to run."""
        got = self.said(*command)
        assert wanted * 0.9 - 10 <= got <= wanted, f"{self.name}: {command}: got {got}, wanted about {wanted}"

    def script(self, wanted, text, *arguments):
        """EVALSHA, then EVAL where it is not known, as phpredis, ioredis and others do."""
        reply = self.said("EVALSHA", hashlib.sha1(text.encode()).hexdigest(), *arguments)
        if reply == "-NOSCRIPT No matching script. Please use EVAL.":
            reply = self.said("EVAL", text, *arguments)
        same(reply, wanted, f"{self.name} at {self.node}: script {text.strip()[:60]} {arguments}")

    def multi(self, wanted, *commands):
        """A transaction: wanted are the answers of EXEC."""
        self.answers("+OK", "MULTI")
        for command in commands:
            self.answers("+QUEUED", *command)
        self.answers(wanted, "EXEC")


# Deletes a lock that is still its owner's.
RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end"


class Laravel(Replay):
    name = "Laravel session, cache, lock (replayed)"

    def replay(self, answers):
        session, cache = f"laravel_cache:{self.key}", f"laravel_cache:item:{self.key}"
        answers("+OK", "CLIENT", "SETNAME", "laravel")
        # CacheBasedSessionHandler on RedisStore; `block()` takes the lock of the session first.
        lock, owner, other = f"{session}:lock", "a1b2", "c3d4"
        answers("+OK", "SET", lock, owner, "EX", 10, "NX")
        answers(None, "SET", lock, other, "EX", 10, "NX")
        self.near(10, "TTL", lock)
        answers(None, "GET", session)
        payload = 's:40:"a:1:{s:6:"_token";s:3:"\x00\xff\xe9";}";'
        answers("+OK", "SETEX", session, 7200, payload)
        answers(payload, "GET", session)
        self.near(7200, "TTL", session)
        answers(0, "EVAL", RELEASE, 1, lock, other)
        answers(owner, "GET", lock)
        refresh = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('expire', KEYS[1], ARGV[2]) else return 0 end"
        answers(1, "EVAL", refresh, 1, lock, owner, 60)
        self.near(60, "TTL", lock)
        answers(1, "EVAL", RELEASE, 1, lock, owner)
        answers(0, "EVAL", RELEASE, 1, lock, owner)
        # A lock without an end.
        answers(1, "SETNX", lock, owner)
        answers(0, "SETNX", lock, other)
        answers(1, "DEL", lock)
        # The cache: add, increment, many, tags.
        add = "return redis.call('exists', KEYS[1]) < 1 and redis.call('setex', KEYS[1], ARGV[2], ARGV[1])"
        answers("+OK", "EVAL", add, 1, cache, "i:1;", 60)
        answers(None, "EVAL", add, 1, cache, "i:2;", 60)
        answers("i:1;", "GET", cache)
        answers(5, "INCRBY", f"{cache}:n", 5)
        answers(3, "DECRBY", f"{cache}:n", 2)
        answers(1, "EXPIRE", f"{cache}:n", 60)
        self.multi(["+OK", "+OK"], ("SETEX", f"{cache}:a", 60, "1"), ("SETEX", f"{cache}:b", 60, "2"))
        answers(["1", None, "2"], "MGET", f"{cache}:a", f"{cache}:none", f"{cache}:b")
        tag = f"laravel_cache:tag:{self.key}:entries"
        answers(1, "ZADD", tag, 4102444800, "entry")
        answers(1, "ZADD", tag, -1, "forever")
        answers(1, "ZADD", tag, 1, "stale")
        answers(0, "ZADD", tag, "NX", -1, "forever")
        answers(["0", ["forever", "-1", "stale", "1", "entry", "4102444800"]], "ZSCAN", tag, 0, "MATCH", "*", "COUNT", 1000)
        answers(1, "ZREMRANGEBYSCORE", tag, 0, int(time.time()))
        answers("+OK", "SET", f"{cache}:forever", "b:1;")
        answers(7, "DEL", session, cache, tag, f"{cache}:n", f"{cache}:a", f"{cache}:b", lock, f"{cache}:forever")
        answers(None, "GET", session)


class Phpredis(Replay):
    name = "phpredis session handler with locks (replayed)"

    def replay(self, answers):
        session = f"PHPREDIS_SESSION:{self.key}"
        lock, secret = f"{session}_LOCK", "host|1234567890"
        answers("+OK", "SELECT", self.database)
        # session.use_strict_mode: is the id known?
        answers(0, "EXISTS", session)
        answers("+OK", "SET", lock, secret, "NX", "PX", 30000)
        # Another request with the same cookie spins.
        answers(None, "SET", lock, "another", "NX", "PX", 30000)
        answers(None, "GET", session)
        answers(secret, "GET", lock)
        answers("+OK", "SETEX", session, 1440, "cart|a:1:{i:0;s:3:\"\x00\r\n\";}")
        self.script(0, RELEASE, 1, lock, "another")
        self.script(1, RELEASE, 1, lock, secret)
        answers(None, "GET", lock)
        # The next request, early_refresh.
        answers("+OK", "SET", lock, secret, "NX", "PX", 30000)
        answers('cart|a:1:{i:0;s:3:"\x00\r\n";}', "GETEX", session, "EX", 2000)
        self.near(2000, "TTL", session)
        answers(1, "EXPIRE", session, 1440)
        self.near(1440, "TTL", session)
        answers(1, "EXISTS", session)
        # A lock that ran out while its holder worked belongs to whoever took it.
        answers(1, "PEXPIRE", lock, 1)
        until("the lock runs out", lambda: self.said("SET", lock, "another", "NX", "PX", 30000) == "+OK")
        self.script(0, RELEASE, 1, lock, secret)
        self.script(1, RELEASE, 1, lock, "another")
        answers(1, "DEL", session)
        answers(0, "DEL", session)
        answers(-2, "TTL", session)


class SpringSession(Replay):
    name = "Spring Session RedisSessionRepository (replayed)"

    def replay(self, answers):
        session = f"spring:session:sessions:{self.key}"
        java = "\xac\xed\x00\x05t\x00\x03ada"
        answers(0, "EXISTS", session)
        answers("+OK", "HMSET", session, "creationTime", "1700000000000", "maxInactiveInterval", "1800", "lastAccessedTime", "1")
        at = int(time.time() * 1000) + 1_800_000
        answers(1, "PEXPIREAT", session, at)
        answers(at, "PEXPIRETIME", session)
        answers("+OK", "HMSET", session, "sessionAttr:user", java)
        answers(
            ["creationTime", "1700000000000", "maxInactiveInterval", "1800", "lastAccessedTime", "1", "sessionAttr:user", java],
            "HGETALL",
            session,
        )
        answers(1, "EXISTS", session)
        # Another id after the login. The old one is unknown from then on, and that error is the one that Spring knows.
        renamed = f"{session}-renamed"
        answers("+OK", "RENAME", session, renamed)
        answers("-ERR no such key", "RENAME", session, renamed)
        answers([], "HGETALL", session)
        # An attribute that is taken out is an empty value; delta only.
        answers("+OK", "HMSET", renamed, "sessionAttr:user", "", "lastAccessedTime", "2")
        answers(at, "PEXPIRETIME", renamed)
        answers(1, "EXPIREAT", renamed, at // 1000)
        answers(1, "DEL", renamed)
        answers(0, "DEL", renamed)


class SpringIndexedSession(Replay):
    name = "Spring Session RedisIndexedSessionRepository (replayed)"

    def replay(self, answers):
        prefix = "spring:session"
        session, shadow = f"{prefix}:sessions:{self.key}", f"{prefix}:sessions:expires:{self.key}"
        minute = f"{prefix}:expirations:{self.key}"
        ordered = f"{prefix}:sessions:expirations:{self.key}"
        index = f"{prefix}:index:PRINCIPAL_NAME_INDEX_NAME:{self.key}"
        # Each application sets what it wants to be told where it speaks to; here one listens at another node than the one it writes to.
        listener = Resp(random.choice(self.survivors()))
        for connection in (self.connection, listener):
            same(self.said("CONFIG", "SET", "notify-keyspace-events", "Egx", connection=connection), "+OK", "CONFIG SET")
        answers(["notify-keyspace-events", "gxE"], "CONFIG", "GET", "notify-keyspace-events")
        deleted, expired = f"__keyevent@{self.database}__:del", f"__keyevent@{self.database}__:expired"
        created = f"{prefix}:event:{self.database}:created:"
        listener.send("SUBSCRIBE", deleted, expired)
        listener.send("PSUBSCRIBE", created + "*")

        def subscribed(*answer):
            """Waits for the answer; messages about the keys of others may come before it."""
            while (got := listener.reply())[0].endswith("message"):
                pass
            same(got, list(answer), f"{self.name} subscribes")

        subscribed("subscribe", deleted, 1)
        subscribed("subscribe", expired, 2)
        subscribed("psubscribe", created + "*", 3)

        def hears(*message):
            """Waits for a message about this life's keys; those of others go by."""
            while True:
                got = listener.reply()
                if self.key in str(got[2:]):
                    same(got, list(message), f"{self.name} is told")
                    return time.time()

        # A new session of 1,800 s, in the minute store.
        java = "\xac\xed\x00\x05t\x00\x03ada"
        answers("+OK", "HMSET", session, "lastAccessedTime", "1", "maxInactiveInterval", "1800", "creationTime", "1")
        answers(1, "SADD", minute, f"\xac\xed\x00\x05t\x00,expires:{self.key}")
        answers(1, "EXPIRE", minute, 2100)
        answers(0, "APPEND", shadow, "")
        answers(1, "EXISTS", shadow)
        answers(1, "EXPIRE", shadow, 1800)
        answers(1, "EXPIRE", session, 2100)
        receivers = self.said("PUBLISH", created + self.key, java)
        # How many receive it is counted at the node that was asked.
        assert receivers in (0, 1), receivers
        hears("pmessage", created + "*", created + self.key, java)
        # The principal logs in: an attribute, the index, another id.
        answers("+OK", "HMSET", session, "sessionAttr:org.springframework.session.PRINCIPAL", java, "lastAccessedTime", "2")
        answers(1, "SADD", index, self.key)
        answers([self.key], "SMEMBERS", index)
        answers("+OK", "RENAME", session, f"{session}-2")
        answers("+OK", "RENAME", shadow, f"{shadow}-2")
        answers("-ERR no such key", "RENAME", shadow, f"{shadow}-2")
        answers("+OK", "RENAME", f"{session}-2", session)
        answers("+OK", "RENAME", f"{shadow}-2", shadow)
        self.near(1800, "TTL", shadow)
        answers(0, "APPEND", shadow, "")
        answers(1, "PERSIST", shadow)
        answers(1, "EXPIRE", shadow, 1800)
        # The sorted set store: who is due is poked by EXISTS.
        answers(1, "ZADD", ordered, 5, self.key)
        answers(1, "ZADD", ordered, 4102444800000, "later")
        answers([self.key], "ZREVRANGEBYSCORE", ordered, int(time.time() * 1000), 0, "LIMIT", 0, 100)
        answers(1, "ZREM", ordered, self.key)
        answers(1, "EXISTS", shadow)
        # Logged out: the shadow goes, and whoever listens is told.
        answers(1, "DEL", shadow)
        hears("message", deleted, shadow)
        # The last session ends by itself, on time and untouched; what it held is still there for who is told.
        answers(0, "APPEND", shadow, "")
        began = time.time()
        answers(1, "PEXPIRE", shadow, 300)
        took = hears("message", expired, shadow) - began
        assert took >= 0.3, f"{self.name}: expired after {took:.3f} s of 0.3 s"
        # Nobody leads for a while when a leader was killed.
        assert took <= (2 if self.doomed is None else 10), f"{self.name}: expired only after {took:.3f} s"
        answers(java, "HGET", session, "sessionAttr:org.springframework.session.PRINCIPAL")
        answers(1, "SREM", index, self.key)
        answers(1, "SREM", minute, f"\xac\xed\x00\x05t\x00,expires:{self.key}")
        answers(0, "EXISTS", minute)
        answers(2, "DEL", session, ordered)
        listener.close()


class Sidekiq(Replay):
    name = "Sidekiq's commands (replayed)"
    database = 14
    # All that Sidekiq's adapter says it uses, and what its fetch, scheduler and web pages send beside it.
    USED = set(
        "bitfield bitfield_ro del exists expire flushdb get hdel hget hgetall hincrby hlen hmget hset hsetnx incr incrby lindex llen"
        " lmove lpop lpush lrange lrem mget mset ping pttl publish rpop rpush sadd scard script set sismember smembers srem ttl type"
        " unlink zadd zcard zincrby zrange zrem zremrangebyrank zremrangebyscore"
        " brpop zpopmin sscan zscan info evalsha multi exec".split()
    )

    def said(self, *command, connection=None):
        self.sent.add(str(command[0]).lower())
        return super().said(*command, connection=connection)

    def replay(self, answers):
        self.sent = set()
        key = self.key
        answers("+PONG", "PING")
        assert "redis_version:" in self.said("INFO")
        answers("+OK", "FLUSHDB")
        job, again = f'{{"class":"Mail","jid":"{key}"}}', f'{{"class":"Mail","jid":"{key}","retry_count":0}}'
        # A client pushes; a process fetches by its weights.
        self.multi([1, 1], ("SADD", "queues", "default"), ("LPUSH", "queue:default", job))
        answers(["queue:default", job], "BRPOP", "queue:critical", "queue:default", 2)
        answers(None, "BRPOP", "queue:critical", 0.01)
        # Heartbeat of the process, and the work it does.
        process = f"host:1:{key}"
        self.multi(
            [1, 2, 1, None],
            ("SADD", "processes", process),
            ("HSET", process, "info", "{}", "busy", 1),
            ("EXPIRE", process, 60),
            ("RPOP", f"{process}-signals"),
        )
        self.multi([0, 1, 1], ("UNLINK", f"{process}:work"), ("HSET", f"{process}:work", "tid", job), ("EXPIRE", f"{process}:work", 60))
        answers(["tid", job], "HGETALL", f"{process}:work")
        answers(["{}", "1"], "HMGET", process, "info", "busy")
        answers([process], "SMEMBERS", "processes")
        answers(1, "SISMEMBER", "processes", process)
        answers("1", "HGET", process, "busy")
        answers(0, "HSETNX", process, "busy", 5)
        answers(3, "HINCRBY", process, "busy", 2)
        answers(2, "HLEN", process)
        # Statistics and metrics.
        self.multi([1, 1, 1], ("INCRBY", "stat:processed", 1), ("INCRBY", "stat:processed:2026-11-27", 1), ("EXPIRE", "stat:processed:2026-11-27", 90))
        answers(1, "INCR", "stat:failed")
        answers(["1", "1", None], "MGET", "stat:processed", "stat:failed", "stat:none")
        answers("1", "GET", "stat:processed")
        answers([0, 1], "BITFIELD", f"h|Mail-{key}", "SET", "u16", "#3", 1, "INCRBY", "u16", "#4", 1)
        answers([1, 1], "BITFIELD_RO", f"h|Mail-{key}", "GET", "u16", "#3", "GET", "u16", "#4")
        # It fails, and is tried again when it is due.
        answers(1, "ZADD", "retry", "10.5", again)
        answers(1, "ZADD", "schedule", "4102444800.25", job)
        due = "local jobs = redis.call('zrange', KEYS[1], '-inf', ARGV[1], 'byscore', 'limit', 0, 1)" \
            " if jobs[1] then redis.call('zrem', KEYS[1], jobs[1]) return jobs[1] end"
        sha = self.said("SCRIPT", "LOAD", due)
        same(sha, hashlib.sha1(due.encode()).hexdigest(), "SCRIPT LOAD")
        answers(again, "EVALSHA", sha, 1, "retry", time.time())
        answers(None, "EVALSHA", sha, 1, "retry", time.time())
        answers(None, "EVALSHA", sha, 1, "schedule", time.time())
        answers(1, "LPUSH", "queue:default", again)
        # Dead, trimmed, looked at in the web pages.
        for score in (1, 2, 3):
            answers(1, "ZADD", "dead", score, f"dead {score}")
        answers("2.5", "ZINCRBY", "dead", "0.5", "dead 2")
        answers(1, "ZREMRANGEBYSCORE", "dead", "-inf", 1)
        answers(0, "ZREMRANGEBYRANK", "dead", 0, -10001)
        answers(["dead 2", "2.5", "dead 3", "3"], "ZRANGE", "dead", 0, -1, "WITHSCORES")
        answers(["0", ["dead 2", "2.5", "dead 3", "3"]], "ZSCAN", "dead", 0)
        answers(["dead 2", "2.5"], "ZPOPMIN", "dead", 1)
        answers(1, "ZREM", "dead", "dead 3")
        answers(1, "ZCARD", "schedule")
        answers(["0", ["default"]], "SSCAN", "queues", 0, "COUNT", 100)
        answers(1, "SCARD", "queues")
        answers(1, "LLEN", "queue:default")
        answers([again], "LRANGE", "queue:default", 0, 49)
        answers(again, "LINDEX", "queue:default", -1)
        answers("+list", "TYPE", "queue:default")
        # Stopped: what was under way goes back; super_fetch moves between lists.
        answers(2, "RPUSH", "queue:default", job)
        answers(job, "LMOVE", "queue:default", "queue:private", "RIGHT", "LEFT")
        answers(1, "LREM", "queue:private", -1, job)
        answers(again, "LPOP", "queue:default")
        answers(0, "PUBLISH", f"cancel-{key}", key)
        answers("+OK", "MSET", f"{key}:a", 1, f"{key}:b", 2)
        answers("+OK", "SET", f"it-{key}", "{}", "NX", "EX", 30)
        self.near(30, "TTL", f"it-{key}")
        self.near(30000, "PTTL", f"it-{key}")
        answers(1, "EXISTS", f"it-{key}")
        answers(1, "HDEL", process, "busy")
        answers(1, "SREM", "processes", process)
        answers(1, "SREM", "queues", "default")
        answers(3, "DEL", process, f"{process}:work", f"it-{key}")
        same(self.USED - self.sent, set(), "commands of Sidekiq that were not sent")


class Magento(Replay):
    name = "Magento, Cm_RedisSession (replayed)"

    def replay(self, answers):
        session = f"sess_{self.key}"
        answers("+OK", "SELECT", self.database)
        # Whoever makes it 1 holds it.
        answers(1, "HINCRBY", session, "lock", 1)
        self.multi(["+OK", 1], ("HMSET", session, "pid", "host|1", "req", "GET /"), ("EXPIRE", session, 600))
        answers([None, None], "HMGET", session, "data", "writes")
        # Another request waits, sees who holds it, and gives up.
        answers(2, "HINCRBY", session, "lock", 1)
        answers(1, "HINCRBY", session, "wait", 1)
        answers("host|1", "HGET", session, "pid")
        answers(0, "HINCRBY", session, "wait", -1)
        # Compressed data, the count of writes, the life, in one pipeline; then the lock is let go.
        data = ":gz:x\x9c\x00\xff\r\n"
        for command in (("HMSET", session, "data", data, "lock", 0), ("HINCRBY", session, "writes", 1), ("EXPIRE", session, 7200)):
            self.connection.send(*command)
        for wanted in ("+OK", 1, 1):
            same(self.connection.reply(), wanted, self.name)
        answers([data, "1"], "HMGET", session, "data", "writes")
        answers(0, "HSET", session, "lock", 0)
        answers(1, "HINCRBY", session, "lock", 1)
        answers(1, "UNLINK", session)
        answers(None, "HGET", session, "writes")


class Redisson(Replay):
    name = "Redisson Tomcat, django-redis, lua-resty-session (replayed)"

    def replay(self, answers):
        session = f"redisson:tomcat_session:{self.key}"
        answers(2, "HSET", session, "session:creationTime", "\x00\x01", "session:isValid", "\x01")
        # Lower case, over all keys.
        expire = "local n = 0; for i = 1, #KEYS, 1 do n = n + redis.call('pexpire', KEYS[i], ARGV[1]); end; return n > 0;"
        answers(1, "EVAL", expire, 2, session, f"{session}:none", 60000)
        answers(None, "EVAL", expire, 1, f"{session}:none", 60000)
        self.near(60000, "PTTL", session)
        answers(["\x00\x01", None], "HMGET", session, "session:creationTime", "none")
        answers(["session:creationTime", "session:isValid"], "HKEYS", session)
        answers(1, "SADD", f"redisson:tomcat_notified_nodes:{self.key}", "node")
        answers(1, "SISMEMBER", f"redisson:tomcat_notified_nodes:{self.key}", "node")
        answers(1, "PERSIST", session)
        answers(-1, "PTTL", session)
        answers(2, "DEL", session, f"redisson:tomcat_notified_nodes:{self.key}")
        # django-redis: a count that is not there is not begun.
        count = "if redis.call('EXISTS', KEYS[1]) == 1 then return redis.call('INCRBY', KEYS[1], ARGV[1]) else return false end"
        answers(None, "EVAL", count, 1, self.key, 2)
        answers("+OK", "SET", self.key, 40, "PX", 60000, "NX")
        answers(42, "EVAL", count, 1, self.key, 2)
        # lua-resty-session: SET NX with the token behind the life, then a release by the token.
        answers("+OK", "SET", f"{self.key}.lock", "token", "EX", 6, "NX")
        answers(1, "EVAL", RELEASE, 1, f"{self.key}.lock", "token")
        answers(1, "DEL", self.key)


class Ruts(Replay):
    """Lives of single fields: what Redis has since 7.4."""

    name = "ruts, tower-sessions, actix-session (replayed)"

    def replay(self, answers):
        session = f"ruts:{self.key}"
        save = """
            local existed = redis.call('EXISTS', KEYS[1])
            redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
            local life = tonumber(ARGV[3])
            if life > 0 then redis.call('HEXPIRE', KEYS[1], life, 'FIELDS', 1, ARGV[1])
            else redis.call('HPERSIST', KEYS[1], 'FIELDS', 1, ARGV[1]) redis.call('PERSIST', KEYS[1]) return -1 end
            local left = redis.call('TTL', KEYS[1])
            if existed == 0 or life > left then redis.call('EXPIRE', KEYS[1], life) return life end
            return left
        """
        self.script(600, save, 1, session, "user", "ada", 600)
        self.script(900, save, 1, session, "cart", "\x00\x01", 900)
        same(self.said("HTTL", session, "FIELDS", 3, "user", "none", "cart")[1], -2, "HTTL")
        self.script(-1, save, 1, session, "theme", "dark", -1)
        answers(-1, "TTL", session)
        answers([-1], "HTTL", session, "FIELDS", 1, "theme")
        move = """
            if redis.call('EXISTS', KEYS[2]) == 1 then return redis.error_reply('Target session ID already exists') end
            return redis.call('RENAMENX', KEYS[1], KEYS[2])
        """
        self.script(1, move, 2, session, f"{session}-2")
        self.script("-Target session ID already exists", move, 2, session, f"{session}-2")
        answers([1], "HPEXPIRE", f"{session}-2", 1, "FIELDS", 1, "cart")
        until("the field ends", lambda: self.said("HGET", f"{session}-2", "cart") is None)
        answers(["user", "ada", "theme", "dark"], "HGETALL", f"{session}-2")
        answers(1, "DEL", f"{session}-2")
        # tower-sessions and actix-session: created with NX, saved with XX, so that an ended session stays ended.
        at = int(time.time()) + 600
        answers("+OK", "SET", session, "\x93\x01", "EXAT", at, "NX")
        answers(None, "SET", session, "\x93\x02", "EXAT", at, "NX")
        answers("+OK", "SET", session, "\x93\x02", "XX", "EX", 700)
        answers(1, "DEL", session)
        answers(None, "SET", session, "\x93\x03", "EXAT", at, "XX")


STORES = (Laravel, Phpredis, SpringSession, SpringIndexedSession, Sidekiq, Magento, Redisson)
# These need what Redis has since 7.4.
STORES_OF_PLENARY = (Ruts,)
