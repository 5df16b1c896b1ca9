//! `MIGRATE`: keys from here to here, to a Redis and from one; what it answers beside what Redis answers; and that nothing is lost to a
//! target that is silent, leaves half-way, or is overtaken by a change.

use super::*;
use tokio::net::TcpListener;

/// What is in a database, key by key.
const CONTENT: &[&[&str]] = &[
    &["SET", "string", "value"],
    &["SET", "ending", "12345", "PX", "1000000"],
    &["RPUSH", "list", "a", "1", "-70000", ""],
    &["SADD", "numbers", "1", "2", "3"],
    &["SADD", "set", "a", "b"],
    &["ZADD", "zset", "1.5", "one", "-inf", "least"],
    &["HSET", "hash", "field", "value", "17", "18"],
    &["XADD", "stream", "1-1", "f", "v", "g", "300"],
    &["XADD", "stream", "2-0", "other", "v"],
    &["XADD", "stream", "3-0", "f", "v", "g", "w"],
    &["XDEL", "stream", "2-0"],
    &["XGROUP", "CREATE", "stream", "group", "0"],
    &[
        "XREADGROUP",
        "GROUP",
        "group",
        "alice",
        "COUNT",
        "1",
        "STREAMS",
        "stream",
        ">",
    ],
];

const KEYS: [&str; 8] = [
    "string", "ending", "list", "numbers", "set", "zset", "hash", "stream",
];

/// How it is looked at.
const LOOKS: &[&[&str]] = &[
    &["GET", "string"],
    &["GET", "ending"],
    &["LRANGE", "list", "0", "-1"],
    &["SMEMBERS", "numbers"],
    &["SORT", "set", "ALPHA"],
    &["ZRANGE", "zset", "0", "-1", "WITHSCORES"],
    &["HGETALL", "hash"],
    &["XRANGE", "stream", "-", "+"],
    &["XINFO", "STREAM", "stream", "FULL"],
];

async fn looks(client: &mut Client) -> Vec<String> {
    let mut looks = Vec::new();
    for look in LOOKS {
        looks.push(client.text(look).await);
    }
    looks
}

/// `MIGRATE` to an address, with what follows host and port.
async fn migrate(client: &mut Client, to: SocketAddr, rest: &[&str]) -> String {
    let (host, port) = (to.ip().to_string(), to.port().to_string());
    client.text(&[&["MIGRATE", &host, &port], rest].concat()).await
}

async fn moves(from: SocketAddr, to: SocketAddr) {
    let (mut from, mut there) = (Client::connect(from).await, Client::connect(to).await);
    for command in CONTENT {
        let answer = from.ask(command).await;
        assert!(!matches!(answer, Reply::Error(_)), "{command:?}: {answer:?}");
    }
    let before = looks(&mut from).await;
    let several = [&["", "3", "5000", "KEYS", "none"][..], &KEYS].concat();
    assert_eq!(migrate(&mut from, to, &several).await, "OK");
    assert_eq!(from.text(&["DBSIZE"]).await, "0");
    assert_eq!(there.text(&["SELECT", "3"]).await, "OK");
    assert_eq!(looks(&mut there).await, before);
    let left = there.ask(&["PTTL", "ending"]).await;
    assert!(matches!(left, Reply::Integer(900_000..=1_000_000)), "{left:?}");
    assert_eq!(there.text(&["PTTL", "string"]).await, "-1");
    assert_eq!(migrate(&mut from, to, &several).await, "NOKEY");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_type_move_between_here_and_redis() {
    let (here, other) = (Server::start().await, Server::start().await);
    moves(here.resp.address(), other.resp.address()).await;
    if let Some(redis) = Redis::start(&[]).await {
        moves(here.resp.address(), redis.address).await;
        Client::connect(other.resp.address())
            .await
            .text(&["FLUSHALL"])
            .await;
        moves(redis.address, other.resp.address()).await;
    }
    here.stop().await;
    other.stop().await;
}

/// More than fits into one batch, by count and by bytes.
#[tokio::test(flavor = "multi_thread")]
async fn many_keys_and_great_ones_move() {
    let (here, there) = (Server::start().await, Server::start().await);
    let (mut from, mut to) = (here.client().await, there.client().await);
    let names: Vec<String> = (0..300).map(|number| format!("key {number}")).collect();
    let great = "x".repeat(200_000);
    for (number, name) in names.iter().enumerate() {
        let value = if number % 50 == 0 { &great } else { name };
        assert_eq!(from.text(&["SET", name, value]).await, "OK");
    }
    let mut rest = vec!["", "0", "30000", "KEYS"];
    rest.extend(names.iter().map(String::as_str));
    assert_eq!(migrate(&mut from, there.resp.address(), &rest).await, "OK");
    assert_eq!(from.text(&["DBSIZE"]).await, "0");
    for (number, name) in names.iter().enumerate() {
        let value = if number % 50 == 0 { &great } else { name };
        assert_eq!(&to.text(&["GET", name]).await, value);
    }
    here.stop().await;
    there.stop().await;
}

/// What is answered to whom in which state: the same as by a Redis that is asked the same.
async fn answers(from: SocketAddr, to: SocketAddr) -> Vec<String> {
    // A port where nobody listens.
    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let (mut from, mut there) = (Client::connect(from).await, Client::connect(to).await);
    let mut answers = Vec::new();
    for client in [&mut from, &mut there] {
        client.text(&["FLUSHALL"]).await;
    }
    from.text(&["MSET", "a", "1", "b", "2", "c", "3"]).await;
    there.text(&["SET", "b", "there"]).await;
    let asked: &[&[&str]] = &[
        &["a", "0"],
        &["a", "0", "x"],
        &["a", "x", "500"],
        &["a", "0", "500", "NONSENSE"],
        &["a", "0", "500", "AUTH"],
        &["a", "0", "500", "AUTH2", "user"],
        &["a", "0", "500", "KEYS", "a", "b"],
        &["", "0", "500", "KEYS"],
        &["none", "0", "500"],
        &["", "0", "500", "KEYS", "none", "nor", "this"],
        &["a", "0", "500", "COPY"],
        &["a", "0", "500", "COPY"],
        &["b", "0", "500"],
        &["", "0", "500", "copy", "KEYS", "c", "b"],
        &["", "0", "500", "KEYS", "a", "b", "c"],
        &["a", "0", "500", "REPLACE"],
        &["", "0", "0", "replace", "keys", "a", "b", "c", "none"],
    ];
    for rest in asked {
        answers.push(format!("{rest:?}: {}", migrate(&mut from, to, rest).await));
        let left = from.text(&["MGET", "a", "b", "c"]).await;
        answers.push(format!(
            "{left}, there {}",
            there.text(&["MGET", "a", "b", "c"]).await
        ));
    }
    from.text(&["SET", "a", "1"]).await;
    // Redis has sent the key by then, to a database that was not asked for: what is there is not compared.
    for rest in [
        &["a", "99", "500"][..],
        &["a", "0", "500", "AUTH", "wrong"],
        &["a", "0", "500", "AUTH2", "nobody", "wrong"],
    ] {
        answers.push(migrate(&mut from, to, rest).await);
    }
    for port in [&nobody.port().to_string(), "70000", "port"] {
        answers.push(from.text(&["MIGRATE", "127.0.0.1", port, "a", "0", "500"]).await);
    }
    answers.push(from.text(&["GET", "a"]).await);
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answers_are_those_of_redis() {
    let (here, there) = (Server::start().await, Server::start().await);
    let ours = answers(here.resp.address(), there.resp.address()).await;
    let said = |part: &str| {
        assert!(
            ours.iter().any(|answer| answer.contains(part)),
            "{part}: {ours:#?}"
        )
    };
    said("ERR Target instance replied with error: BUSYKEY Target key name already exists.");
    said("ERR When using MIGRATE KEYS option, the key argument must be set to the empty string");
    said("IOERR error or timeout writing to target instance");
    said("ERR Target instance replied with error: ERR DB index is out of range");
    if let Some(redis) = Redis::start(&[]).await {
        let second = Redis::start(&[]).await.expect("it is named");
        assert_eq!(ours, answers(redis.address, second.address).await);
        assert_eq!(ours, answers(here.resp.address(), redis.address).await);
    }
    here.stop().await;
    there.stop().await;
}

/// Another server, of which a test says what it answers.
struct Target {
    address: SocketAddr,
    listener: TcpListener,
}

impl Target {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            listener,
        }
    }

    /// Who connected, after its `SELECT` was answered.
    async fn accept(&self) -> Client {
        let (stream, _) = timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap();
        let mut client = Client::over(stream);
        assert_eq!(text(&client.reply().await.unwrap()), "SELECT 0");
        client.send(b"+OK\r\n").await;
        client
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_acknowledged_is_removed() {
    let (here, target) = (Server::start().await, Target::start().await);
    let mut from = here.client().await;
    from.text(&["MSET", "a", "1", "b", "2", "c", "3", "d", "4"]).await;
    let leaves = async {
        let mut asking = target.accept().await;
        for _ in 0..4 {
            asking.reply().await.unwrap();
        }
        asking.send(b"+OK\r\n-ERR not this\r\n+OK\r\n").await;
    };
    let rest = ["", "0", "5000", "KEYS", "a", "b", "c", "d"];
    let (answer, ()) = tokio::join!(migrate(&mut from, target.address, &rest), leaves);
    assert_eq!(answer, "ERR Target instance replied with error: ERR not this");
    assert_eq!(from.text(&["MGET", "a", "b", "c", "d"]).await, "(nil) 2 (nil) 4");
    // Nobody answers at all.
    let silent = async { target.accept().await };
    let (answer, asking) = tokio::join!(migrate(&mut from, target.address, &["b", "0", "100"]), silent);
    assert_eq!(answer, "IOERR error or timeout reading to target instance");
    drop(asking);
    // Something answers that is no Redis.
    let babbles = async {
        let mut asking = target.accept().await;
        asking.send(&[b'x'; 100_000]).await;
        asking
    };
    let (answer, asking) = tokio::join!(migrate(&mut from, target.address, &["b", "0", "5000"]), babbles);
    assert_eq!(answer, "IOERR error or timeout reading to target instance");
    drop(asking);
    assert_eq!(from.text(&["MGET", "b", "d"]).await, "2 4");
    here.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_changes_on_its_way_is_sent_anew() {
    let (here, target) = (Server::start().await, Target::start().await);
    let (mut from, mut other) = (here.client().await, here.client().await);
    from.text(&["SET", "a", "first"]).await;
    let overtaken = async {
        let mut asking = target.accept().await;
        let first = text(&asking.reply().await.unwrap());
        assert!(first.contains("first") && !first.ends_with("REPLACE"), "{first}");
        other.text(&["SET", "a", "second"]).await;
        asking.send(b"+OK\r\n").await;
        let second = text(&asking.reply().await.unwrap());
        assert!(
            second.contains("second") && second.ends_with("REPLACE"),
            "{second}"
        );
        asking.send(b"+OK\r\n").await;
    };
    let (answer, ()) = tokio::join!(migrate(&mut from, target.address, &["a", "0", "5000"]), overtaken);
    assert_eq!(answer, "OK");
    assert_eq!(from.text(&["GET", "a"]).await, "(nil)");
    // It never holds still: it stays.
    from.text(&["SET", "n", "0"]).await;
    let always = async {
        let mut asking = target.accept().await;
        let mut sent = 0;
        while asking.reply().await.is_some() {
            sent += 1;
            other.text(&["INCR", "n"]).await;
            asking.send(b"+OK\r\n").await;
        }
        sent
    };
    let (answer, sent) = tokio::join!(migrate(&mut from, target.address, &["n", "0", "5000"]), always);
    assert!(answer.starts_with("TRYAGAIN 'n' was changed"), "{answer}");
    assert_eq!(from.text(&["GET", "n"]).await, sent.to_string());
    here.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_makes_no_connection() {
    let here = Server::with(|config| config.access_key = Some(Secret::new("secret"))).await;
    let target = Target::start().await;
    let mut stranger = here.client().await;
    let rest = ["a", "0", "1000"];
    let answer = migrate(&mut stranger, target.address, &rest).await;
    assert_eq!(answer, "NOAUTH Authentication required.");
    let mut known = here.client().await;
    known.text(&["AUTH", "secret"]).await;
    known.text(&["SET", "a", "1"]).await;
    known
        .text(&[
            "ACL",
            "SETUSER",
            "clerk",
            "on",
            ">word",
            "~*",
            "+@all",
            "-@dangerous",
        ])
        .await;
    known
        .text(&["ACL", "SETUSER", "mover", "on", ">word", "~b*", "%R~*", "+@all"])
        .await;
    for (user, refusal) in [
        ("clerk", "run the 'migrate' command"),
        ("mover", "access one of the keys"),
    ] {
        let mut client = here.client().await;
        client.text(&["AUTH", user, "word"]).await;
        for rest in [&rest[..], &["", "0", "1000", "AUTH", "KEYS", "KEYS", "a"]] {
            let answer = migrate(&mut client, target.address, rest).await;
            assert!(
                answer.starts_with("NOPERM") && answer.contains(refusal),
                "{answer}"
            );
        }
    }
    // A session is a thing that no Redis has.
    known.text(&["SESSION.CREATE", "s", "60000"]).await;
    let answer = migrate(&mut known, target.address, &["", "0", "1000", "KEYS", "a", "s"]).await;
    assert_eq!(answer, "ERR a session cannot be dumped");
    let accepted = timeout(Duration::ZERO, target.listener.accept()).await;
    assert!(accepted.is_err(), "nobody connected");
    here.stop().await;
}
