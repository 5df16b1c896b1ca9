//! The whole life of a session as Microsoft's RedisSessionStateProvider and its output cache ask for it: the same bytes to a Redis, to the leader of
//! three nodes and to a follower; the same bytes back. `tests/golden/session-life.txt` has what Redis 7.0.15 answered; with `PLENARY_REDIS_SERVER`
//! the Redis that it names is asked anew, and `PLENARY_GOLDEN=record` writes its answers down.
#![cfg(feature = "resp")]
// Tests are not documented for others, and may panic.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::PATIENCE;
use common::endpoint::{Redis, endpoint};
use plenary::edge::resp::decode::request;
use std::net::SocketAddr;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const GOLDEN: &str = include_str!("golden/session-life.txt");

const LOCK: &str = "{/shop_24ezh5xq}_WriteLock";
const DATA: &str = "{/shop_24ezh5xq}_SessionStateItemCollection";
const TIMEOUT: &str = "{/shop_24ezh5xq}_SessionTimeout";

const TAKE_WRITE_LOCK: &str = "
local answer = {}
local taken = redis.call('SETNX', KEYS[1], ARGV[1])
local refused = true
if taken == 0 then
    answer[1] = redis.call('GET', KEYS[1])
else
    redis.call('EXPIRE', KEYS[1], ARGV[2])
    answer[1] = ARGV[1]
    refused = false
end
answer[2] = ''
if answer[1] == ARGV[1] then
    answer[2] = redis.call('GET', KEYS[2])
end
answer[3] = redis.call('GET', KEYS[3])
if answer[3] ~= false then
    redis.call('EXPIRE', KEYS[2], answer[3])
    redis.call('EXPIRE', KEYS[3], answer[3])
else
    answer[3] = '-1'
end
answer[4] = refused
return answer";

const CHECK_WRITE_LOCK: &str = "
local answer = {}
answer[1] = ''
local holder = redis.call('GET', KEYS[1])
if holder ~= false then
    answer[1] = holder
end
answer[2] = ''
if answer[1] == '' then
    answer[2] = redis.call('GET', KEYS[2])
end
answer[3] = redis.call('GET', KEYS[3])
if answer[3] ~= false then
    redis.call('EXPIRE', KEYS[2], answer[3])
    redis.call('EXPIRE', KEYS[3], answer[3])
else
    answer[3] = '-1'
end
return answer";

const UPDATE_AND_RELEASE: &str = "
if ARGV[1] ~= '' then
    local holder = redis.call('GET', KEYS[1])
    if holder ~= ARGV[1] then
        return 1
    end
end
if tonumber(ARGV[6]) ~= 0 then
    redis.call('SET', KEYS[2], ARGV[10])
end
redis.call('EXPIRE', KEYS[2], ARGV[2])
redis.call('SET', KEYS[3], ARGV[2])
redis.call('EXPIRE', KEYS[3], ARGV[2])
redis.call('DEL', KEYS[1])";

const RELEASE: &str = "
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then
    redis.call('DEL', KEYS[1])
end
local timeout = redis.call('GET', KEYS[3])
if timeout ~= false then
    redis.call('EXPIRE', KEYS[2], timeout)
    redis.call('EXPIRE', KEYS[3], timeout)
else
    redis.call('EXPIRE', KEYS[2], ARGV[2])
end
return 1";

const REMOVE: &str = "
if ARGV[1] ~= '' then
    local holder = redis.call('GET', KEYS[1])
    if holder ~= ARGV[1] then
        return 1
    end
end
redis.call('DEL', KEYS[2])
redis.call('DEL', KEYS[3])
redis.call('DEL', KEYS[1])";

const SET: &str = "
redis.call('SET', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[2])
return 1";

const UPDATE_EXPIRY: &str = "
if redis.call('EXISTS', KEYS[1]) == 0 then
    return 1
end
local timeout = redis.call('GET', KEYS[2])
if timeout ~= false then
    redis.call('EXPIRE', KEYS[1], ARGV[1])
    redis.call('EXPIRE', KEYS[2], ARGV[1])
else
    redis.call('EXPIRE', KEYS[1], ARGV[1])
    redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[1])
end
return 1";

const CACHE_ADD: &str = "
local stored = redis.call('GET', KEYS[1])
if stored == false then
    redis.call('PSETEX', KEYS[1], ARGV[2], ARGV[1])
    return ARGV[1]
end
return stored";

/// How the provider was built, and what it may do: the text of its scripts, and how they are sent.
#[derive(Clone, Copy, Debug)]
struct Build {
    /// The ends of the lines, and what stands before each.
    line: &'static str,
    by_sha: bool,
    protocol: &'static str,
}

const BUILDS: [Build; 4] = [
    Build {
        line: "\n                ",
        by_sha: false,
        protocol: "2",
    },
    Build {
        line: "\r\n                ",
        by_sha: true,
        protocol: "2",
    },
    Build {
        line: "\r\n                ",
        by_sha: false,
        protocol: "3",
    },
    Build {
        line: "\n                ",
        by_sha: true,
        protocol: "3",
    },
];

/// Clients of one server, and everything they were answered.
struct Life {
    clients: Vec<Client>,
    build: Build,
    told: String,
}

impl Life {
    async fn begin(address: SocketAddr, build: Build) -> Self {
        let mut life = Self {
            clients: vec![Client::connect(address).await, Client::connect(address).await],
            build,
            told: String::new(),
        };
        for client in &mut life.clients {
            // Who answers is not the same.
            client.ask(&[b"HELLO", build.protocol.as_bytes()]).await;
        }
        for name in ["FLUSHALL", "SCRIPT"] {
            let argv: &[&[u8]] = if name == "SCRIPT" {
                &[b"SCRIPT", b"FLUSH"]
            } else {
                &[b"FLUSHALL"]
            };
            life.clients[0].ask(argv).await;
        }
        life
    }

    /// One of the two asks; what it is answered is told, byte for byte.
    async fn ask(&mut self, who: usize, argv: &[&[u8]]) {
        let mut reply = self.clients[who].ask(argv).await;
        if argv[0] == b"TTL" {
            // A slow machine may take a second or two of it.
            let seconds: i64 = std::str::from_utf8(&reply[1..reply.len() - 2])
                .unwrap()
                .parse()
                .unwrap();
            reply = format!(":{}\r\n", (seconds + 9) / 10 * 10).into_bytes();
        }
        let short = |argument: &&[u8]| {
            let shown = argument.escape_ascii().to_string();
            if shown.len() > 60 {
                format!("{}…", &shown[..40])
            } else {
                shown
            }
        };
        let asked: Vec<String> = argv.iter().map(short).collect();
        self.told += &format!("{who}> {}\n< {}\n", asked.join(" "), reply.escape_ascii());
    }

    async fn script(&mut self, who: usize, text: &str, keys: &[&str], args: &[&[u8]]) {
        let text = text.replace('\n', self.build.line);
        let count = keys.len().to_string();
        let mut argv: Vec<&[u8]> = vec![b"EVAL", text.as_bytes(), count.as_bytes()];
        argv.extend(keys.iter().map(|key| key.as_bytes()));
        argv.extend(args);
        if !self.build.by_sha {
            return self.ask(who, &argv).await;
        }
        let sha = sha1_hex(&mut self.clients[who], &text).await;
        (argv[0], argv[1]) = (b"EVALSHA", sha.as_bytes());
        self.ask(who, &argv).await;
        // As the provider does where the server has lost it.
        if self
            .told
            .ends_with("NOSCRIPT No matching script. Please use EVAL.\\r\\n\n")
        {
            self.ask(who, &[b"SCRIPT", b"LOAD", text.as_bytes()]).await;
            self.ask(who, &argv).await;
        }
    }

    /// Waits until a key is gone, asking nothing that is told.
    async fn until_gone(&mut self, key: &str) {
        let began = Instant::now();
        while self.clients[1].ask(&[b"EXISTS", key.as_bytes()]).await != b":0\r\n" {
            assert!(began.elapsed() < PATIENCE, "{key} does not end");
        }
    }

    /// Everything from the handshake to the end of the session.
    async fn live(mut self) -> String {
        let session = [LOCK, DATA, TIMEOUT];
        let bytes: Vec<u8> = (0..=255).collect();
        let other: Vec<u8> = (0..=255).rev().chain(0..=255).collect();
        for command in [
            "CLIENT SETNAME web01",
            "CONFIG GET timeout",
            "CONFIG GET databases",
            "SENTINEL MASTERS",
            "CLUSTER NODES",
            "GET __Booksleeve_TieBreak",
            "SELECT 0",
        ] {
            let argv: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
            self.ask(0, &argv).await;
        }
        self.ask(0, &[b"ECHO", &bytes[..16]]).await;

        // A session that is not there yet; then a new one.
        self.script(0, CHECK_WRITE_LOCK, &session, &[]).await;
        self.script(0, TAKE_WRITE_LOCK, &session, &[b"638000000000000001", b"90"])
            .await;
        self.script(0, RELEASE, &session, &[b"638000000000000001", b"1200"])
            .await;
        self.script(0, SET, &session[1..], &[&bytes, b"1200"]).await;
        self.script(0, CHECK_WRITE_LOCK, &session, &[]).await;

        // A request holds it, another one waits, and stores nothing under a lock that is not its own.
        self.script(0, TAKE_WRITE_LOCK, &session, &[b"638000000000000002", b"90"])
            .await;
        self.script(1, TAKE_WRITE_LOCK, &session, &[b"638000000000000003", b"90"])
            .await;
        self.script(1, CHECK_WRITE_LOCK, &session, &[]).await;
        let store = |lock: &'static str, items: &'static str| -> Vec<&'static [u8]> {
            [lock, "1200", "0", "9", "8", items, "9", "10", "SessionState"]
                .map(str::as_bytes)
                .to_vec()
        };
        let mut argv = store("638000000000000003", "1");
        argv.push(b"of nobody");
        self.script(1, UPDATE_AND_RELEASE, &session, &argv).await;
        let mut argv: Vec<&[u8]> = store("638000000000000002", "1");
        argv.push(&other);
        self.script(0, UPDATE_AND_RELEASE, &session, &argv).await;
        for key in session {
            self.ask(1, &[b"GET", key.as_bytes()]).await;
            self.ask(1, &[b"TTL", key.as_bytes()]).await;
        }
        self.script(1, TAKE_WRITE_LOCK, &session, &[b"638000000000000003", b"90"])
            .await;
        // Unchanged: only its time is stored.
        self.script(1, UPDATE_AND_RELEASE, &session, &store("638000000000000003", "0"))
            .await;
        self.ask(0, &[b"GET", DATA.as_bytes()]).await;

        // Releasing by who holds it, and by who does not.
        self.script(0, TAKE_WRITE_LOCK, &session, &[b"638000000000000004", b"90"])
            .await;
        self.script(1, RELEASE, &session, &[b"638000000000000009", b"1200"])
            .await;
        self.ask(0, &[b"EXISTS", LOCK.as_bytes()]).await;
        self.script(0, RELEASE, &session, &[b"638000000000000004", b"1200"])
            .await;
        self.ask(0, &[b"EXISTS", LOCK.as_bytes()]).await;

        // A lock whose holder is gone ends by itself.
        self.script(0, TAKE_WRITE_LOCK, &session, &[b"638000000000000005", b"1"])
            .await;
        self.until_gone(LOCK).await;
        self.script(1, TAKE_WRITE_LOCK, &session, &[b"638000000000000006", b"90"])
            .await;
        self.script(1, RELEASE, &session, &[b"638000000000000006", b"1200"])
            .await;

        // Its time, renewed; and stored anew where only the data is left.
        self.script(0, UPDATE_EXPIRY, &session[1..], &[b"600"]).await;
        self.ask(0, &[b"TTL", DATA.as_bytes()]).await;
        self.ask(0, &[b"DEL", TIMEOUT.as_bytes()]).await;
        self.script(0, UPDATE_EXPIRY, &session[1..], &[b"900"]).await;
        self.ask(0, &[b"GET", TIMEOUT.as_bytes()]).await;
        self.script(
            0,
            UPDATE_EXPIRY,
            &["{/shop_nobody}_Data", "{/shop_nobody}_Timeout"],
            &[b"900"],
        )
        .await;

        // Abandoned: not under another's lock, then under one's own, then without one.
        self.script(0, TAKE_WRITE_LOCK, &session, &[b"638000000000000007", b"90"])
            .await;
        self.script(1, REMOVE, &session, &[b"638000000000000009"]).await;
        self.script(0, REMOVE, &session, &[b"638000000000000007"]).await;
        self.ask(
            1,
            &[b"EXISTS", LOCK.as_bytes(), DATA.as_bytes(), TIMEOUT.as_bytes()],
        )
        .await;
        self.script(0, SET, &session[1..], &[&bytes, b"1200"]).await;
        self.script(0, REMOVE, &session, &[b""]).await;
        self.script(1, CHECK_WRITE_LOCK, &session, &[]).await;

        // One whose time is over is gone, whole.
        self.script(0, SET, &session[1..], &[&bytes, b"1"]).await;
        self.until_gone(DATA).await;
        self.until_gone(TIMEOUT).await;
        self.script(1, TAKE_WRITE_LOCK, &session, &[b"638000000000000008", b"90"])
            .await;
        self.script(1, REMOVE, &session, &[b"638000000000000008"]).await;

        // What is stored under the wrong type is refused, and nothing of the script before it is taken back.
        self.ask(0, &[b"RPUSH", LOCK.as_bytes(), b"no lock"]).await;
        self.script(0, RELEASE, &session, &[b"638000000000000008", b"1200"])
            .await;
        self.ask(0, &[b"DEL", LOCK.as_bytes()]).await;

        // The output cache.
        self.script(0, CACHE_ADD, &["page"], &[&bytes, b"60000"]).await;
        self.script(1, CACHE_ADD, &["page"], &[b"another", b"60000"])
            .await;
        self.ask(1, &[b"GET", b"page"]).await;
        self.ask(0, &[b"SET", b"page", &other, b"PX", b"60000"]).await;
        self.ask(1, &[b"GET", b"page"]).await;
        self.ask(0, &[b"DEL", b"page"]).await;
        self.ask(1, &[b"GET", b"page"]).await;
        self.told
    }
}

/// A connection, and its replies as they came.
struct Client(TcpStream);

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    async fn ask(&mut self, argv: &[&[u8]]) -> Vec<u8> {
        self.0.write_all(&request(argv)).await.unwrap();
        let mut reply = Vec::new();
        while end_of(&reply, 0).is_none() {
            let read = timeout(PATIENCE, self.0.read_buf(&mut reply))
                .await
                .expect("a reply")
                .unwrap();
            assert_ne!(read, 0, "a reply, not the end");
        }
        reply
    }
}

/// Where the reply ends that begins here; none if it is not whole.
fn end_of(bytes: &[u8], from: usize) -> Option<usize> {
    let line = from + bytes.get(from..)?.windows(2).position(|end| end == b"\r\n")?;
    let count = || {
        std::str::from_utf8(&bytes[from + 1..line])
            .unwrap()
            .parse::<i64>()
            .unwrap()
    };
    let after = line + 2;
    match bytes[from] {
        b'$' | b'=' => match count() {
            -1 => Some(after),
            length => {
                let end = after + usize::try_from(length).unwrap() + 2;
                (end <= bytes.len()).then_some(end)
            }
        },
        b'*' | b'~' | b'>' => (0..count().max(0)).try_fold(after, |at, _| end_of(bytes, at)),
        b'%' => (0..2 * count()).try_fold(after, |at, _| end_of(bytes, at)),
        _ => Some(after),
    }
}

/// The name of a script, as the server itself would say it: asked for by a script, so that nothing is loaded.
async fn sha1_hex(client: &mut Client, text: &str) -> String {
    let reply = client
        .ask(&[b"EVAL", b"return redis.sha1hex(ARGV[1])", b"0", text.as_bytes()])
        .await;
    String::from_utf8(reply[5..45].to_vec()).unwrap()
}

/// All builds at one server.
async fn lives(address: SocketAddr) -> String {
    let mut told = String::new();
    for build in BUILDS {
        told += &format!("== {build:?}\n{}", Life::begin(address, build).await.live().await);
    }
    told
}

fn assert_same(who: &str, told: &str, wanted: &str) {
    for (number, (told, wanted)) in told.lines().zip(wanted.lines()).enumerate() {
        assert_eq!(told, wanted, "{who}, line {}", number + 1);
    }
    assert_eq!(told.lines().count(), wanted.lines().count(), "{who}");
}

/// On the Redis that is named, if one is. Whether it was asked to be written down.
async fn on_redis() -> bool {
    let Some(redis) = Redis::start(&[]).await else {
        return false;
    };
    let told = lives(redis.address).await;
    if std::env::var_os("PLENARY_GOLDEN").is_some_and(|how| how == "record") {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/session-life.txt");
        std::fs::write(golden, told).unwrap();
        return true;
    }
    assert_same("Redis", &told, GOLDEN);
    false
}

/// On one of three nodes: the leader, or one that follows it.
async fn on_a_node(leads: bool) -> String {
    let folder = tempfile::tempdir().unwrap();
    let nodes = common::three(folder.path()).await;
    let node = nodes.iter().find(|node| common::leads(node) == leads);
    let end = endpoint(node.unwrap(), |_| {}).await;
    let told = lives(end.address()).await;
    end.stop().await;
    common::assert_same_state(&nodes).await;
    common::stop(&nodes).await;
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_asp_net_lives_here_as_it_does_on_redis() {
    // Side by side: they wait most of the time for something to end.
    let (recorded, leader, follower) = tokio::join!(on_redis(), on_a_node(true), on_a_node(false));
    if recorded {
        return;
    }
    assert_same("the leader", &leader, GOLDEN);
    assert_same("a follower", &follower, GOLDEN);
}
