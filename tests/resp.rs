//! The Redis endpoint over real sockets: what it answers (`tests/golden/resp.txt`, judged by a real Redis where
//! `PLENARY_REDIS_SERVER` names its program), what it does with clients that misbehave, and that the others go on.
#![cfg(feature = "resp")]
// Tests are not documented for others, and may panic.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::PATIENCE;
use common::endpoint::{Client, Redis, Server, text};
use plenary::config::{DebugCommand, Reads, RespConfig, Secret};
use plenary::edge::resp::Resp;
use plenary::edge::resp::decode::request;
use plenary::machine::reply::Reply;
use plenary::machine::table;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

#[path = "resp/migrate.rs"]
mod migrate;

const GOLDEN: &str = include_str!("golden/resp.txt");

// ---- golden scripts ----

struct Script {
    title: String,
    key: bool,
    sent: Vec<u8>,
    answered: Vec<u8>,
}

fn scripts() -> Vec<Script> {
    let blocks = GOLDEN.split("\n\n").skip(1);
    let scripts = blocks.map(|block| {
        let mut script = Script {
            title: String::new(),
            key: false,
            sent: Vec::new(),
            answered: Vec::new(),
        };
        for line in block.lines() {
            match line.split_at(line.len().min(2)) {
                ("# ", title) => script.title = title.to_owned(),
                ("> ", bytes) => script.sent.extend(unescape(bytes)),
                ("< ", bytes) => script.answered.extend(unescape(bytes)),
                ("@k", _) => script.key = true,
                _ => panic!("a line of no kind: {line}"),
            }
        }
        script
    });
    scripts.collect()
}

fn unescape(text: &str) -> Vec<u8> {
    let (mut bytes, mut chars) = (Vec::new(), text.chars());
    while let Some(char) = chars.next() {
        match char {
            '\\' => bytes.push(match chars.next().unwrap() {
                'r' => b'\r',
                'n' => b'\n',
                't' => b'\t',
                'x' => u8::from_str_radix(&chars.by_ref().take(2).collect::<String>(), 16).unwrap(),
                other => u8::try_from(other).unwrap(),
            }),
            char => bytes.push(u8::try_from(char).unwrap()),
        }
    }
    bytes
}

/// What changes from server to server: the client's number and the version.
fn normal(bytes: &[u8]) -> String {
    let text = bytes
        .escape_ascii()
        .to_string()
        .replace(r"$6\r\n7.0.15\r\n", r"$5\r\n7.4.0\r\n");
    let mut parts = text.split(r"$2\r\nid\r\n:");
    let mut normal = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part
            .trim_start_matches(|char: char| char.is_ascii_digit())
            .trim_start_matches("<id>");
        normal.push_str(r"$2\r\nid\r\n:<id>");
        normal.push_str(rest);
    }
    normal.replace(r"\r\n", "\\r\\n\n")
}

/// Runs the scripts against a server without and one with the key `secret`; returns those whose answer is another.
async fn differences(open: SocketAddr, keyed: SocketAddr) -> Vec<String> {
    let mut differences = Vec::new();
    for script in scripts() {
        let mut client = Client::connect(if script.key { keyed } else { open }).await;
        client.send(&script.sent).await;
        // A server that closed already need not take it.
        let _ = client.stream.write_all(b"QUIT\r\n").await;
        let (expected, answered) = (normal(&script.answered), normal(&client.rest().await));
        if expected != answered {
            let line = expected
                .lines()
                .zip(answered.lines())
                .take_while(|(left, right)| left == right)
                .count();
            let from = |text: &str| text.lines().skip(line).take(5).collect::<Vec<_>>().join("\n  ");
            let (expected, answered) = (from(&expected), from(&answered));
            differences.push(format!(
                "# {}, line {line} of the answer\nrecorded\n  {expected}\nanswered\n  {answered}",
                script.title
            ));
        }
    }
    differences
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_that_redis_gave() {
    let open = Server::start().await;
    let keyed = Server::with(|config| config.access_key = Some(Secret::new("secret"))).await;
    assert!(scripts().len() > 50, "the scripts are read");
    let differences = differences(open.resp.address(), keyed.resp.address()).await;
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    open.stop().await;
    keyed.stop().await;
}

/// What Redis 7.0.15 gave for `FUNCTION DUMP` of [`LIBRARY`]: it compresses texts.
const DUMPED: &str = "f5c3405d406f1e23216c7561206e616d653d636f756e746572730a72656469732e7265676973200f0a5f66756e6374696f6e2827602102272c20e00011126b6579732c2061726773292072657475726e20802402656420602ce00107052720656e64290a00dd92f35663876785";

const LIBRARY: &str = "#!lua name=counters\nredis.register_function('count', function(keys, args) return 'counted counted counted' end)";

#[tokio::test(flavor = "multi_thread")]
async fn libraries_of_functions_travel_between_redis_and_here() {
    let server = Server::start().await;
    let mut here = server.client().await;
    let restored = |client: Client, payload: Vec<u8>, policy: &'static str| async move {
        let mut client = client;
        client
            .send(&request([
                b"FUNCTION".as_slice(),
                b"RESTORE",
                &payload,
                policy.as_bytes(),
            ]))
            .await;
        (text(&client.reply().await.unwrap()), client)
    };
    let dumped = |reply: Reply| match reply {
        Reply::Bulk(bytes) => bytes.to_vec(),
        other => panic!("a payload, not {other:?}"),
    };
    assert_eq!(here.text(&["FUNCTION", "LOAD", LIBRARY]).await, "counters");
    let ours = dumped(here.ask(&["FUNCTION", "DUMP"]).await);
    let theirs: Vec<u8> = (0..DUMPED.len() / 2)
        .map(|at| u8::from_str_radix(&DUMPED[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    for payload in [&ours, &theirs] {
        let (answer, back) = restored(here, payload.clone(), "APPEND").await;
        assert_eq!(answer, "ERR Library counters already exists");
        let (answer, back) = restored(back, payload.clone(), "REPLACE").await;
        assert_eq!(answer, "OK");
        here = back;
        here.text(&["FUNCTION", "FLUSH"]).await;
        let (answer, back) = restored(here, payload.clone(), "FLUSH").await;
        assert_eq!(answer, "OK");
        here = back;
        assert_eq!(
            here.text(&["FCALL", "count", "0"]).await,
            "counted counted counted"
        );
    }
    let mut broken = ours.clone();
    broken[3] ^= 1;
    let (answer, back) = restored(here, broken, "REPLACE").await;
    assert_eq!(answer, "ERR DUMP payload version or checksum are wrong");
    let (answer, back) = restored(back, ours.clone(), "merge").await;
    assert_eq!(
        answer,
        "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE."
    );
    here = back;
    here.text(&["SET", "k", "v"]).await;
    let value = dumped(here.ask(&["DUMP", "k"]).await);
    let (answer, _) = restored(here, value, "REPLACE").await;
    assert_eq!(answer, "ERR given type is not a function");
    if let Some(redis) = Redis::start(&[]).await {
        let (answer, mut there) = restored(Client::connect(redis.address).await, ours, "APPEND").await;
        assert_eq!(answer, "OK");
        assert_eq!(
            there.text(&["FCALL", "count", "0"]).await,
            "counted counted counted"
        );
        assert_eq!(dumped(there.ask(&["FUNCTION", "DUMP"]).await), theirs);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_gives_the_answers_that_were_recorded() {
    let (open, keyed) = (
        Redis::start(&[]).await,
        Redis::start(&["--requirepass", "secret"]).await,
    );
    let (Some(open), Some(keyed)) = (open, keyed) else {
        return;
    };
    let differences = differences(open.address, keyed.address).await;
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Rows of ours that Redis 7.0.15 does not know, or knows otherwise: see tests/README.md.
const ROWS_THAT_DIFFER: &[&str] = &[
    // Of Redis 7.2.
    "CLIENT|NO-TOUCH",
    "CLIENT|SETINFO",
    "WAITAOF",
    // They read nothing, but are rows of the machine like their neighbours.
    "OBJECT|HELP",
    "XGROUP|HELP",
    "XINFO|HELP",
    "PFSELFTEST",
];

#[tokio::test(flavor = "multi_thread")]
async fn rows_have_the_arity_flags_keys_and_categories_of_redis() {
    let Some(redis) = Redis::start(&[]).await else {
        return;
    };
    let server = Server::start().await;
    let (mut ours, mut theirs) = (server.client().await, Client::connect(redis.address).await);
    let own = |name: &str| {
        ["PLENARY", "SESSION.", "CACHE."]
            .iter()
            .any(|ours| name.starts_with(ours))
    };
    let later = |since: &str| since.starts_with("7.4");
    let (mut compared, mut differences) = (0, Vec::new());
    for spec in table::all()
        .filter(|spec| !own(spec.name) && !later(spec.since) && !ROWS_THAT_DIFFER.contains(&spec.name))
    {
        let question = ["COMMAND", "INFO", spec.name];
        let (ours, theirs) = (row(&ours.ask(&question).await), row(&theirs.ask(&question).await));
        compared += 1;
        if ours != theirs {
            differences.push(format!("{}:\n  ours  {ours}\n  Redis {theirs}", spec.name));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(compared > 30, "only {compared} rows were compared");
    server.stop().await;
}

/// Name, arity, flags, first and last key, step and categories; sets in alphabetical order.
fn row(reply: &Reply) -> String {
    let Reply::Array(commands) = reply else {
        return format!("{reply:?}");
    };
    let [Reply::Array(fields)] = &commands[..] else {
        return format!("{reply:?}");
    };
    let field = |field: &Reply| match field {
        Reply::Array(items) => {
            let mut items: Vec<String> = items.iter().map(text).collect();
            items.sort();
            format!("{items:?}")
        }
        other => text(other),
    };
    fields.iter().take(7).map(field).collect::<Vec<_>>().join(" ")
}

// ---- what a connection does ----

/// Reads that follow each other are answered at one go; whatever stands between them still has its place, its effect and its count.
#[tokio::test(flavor = "multi_thread")]
async fn reads_of_a_pipeline_keep_their_place_among_what_is_no_read() {
    let server = Server::start().await;
    let (mut client, mut pipeline) = (server.client().await, Vec::new());
    let script = [
        ("SET a 1", "OK"),
        ("RPUSH l x", "1"),
        ("GET a", "1"),
        ("GET none", "(nil)"),
        (
            "GET l",
            "WRONGTYPE Operation against a key holding the wrong kind of value",
        ),
        ("STRLEN a", "1"),
        ("INCR a", "2"),
        ("GET a", "2"),
        ("GET a b", "ERR wrong number of arguments for 'get' command"),
        ("GET a", "2"),
        (
            "NOTHING a",
            "ERR unknown command 'NOTHING', with args beginning with: 'a' ",
        ),
        ("GET a", "2"),
        ("SELECT 1", "OK"),
        ("GET a", "(nil)"),
        ("SELECT 0", "OK"),
        ("MULTI", "OK"),
        ("GET a", "QUEUED"),
        ("EXEC", "2"),
        ("GET a", "2"),
        ("CLIENT REPLY SKIP", ""),
        ("GET a", ""),
        ("GET a", "2"),
    ];
    for (command, _) in script {
        pipeline.extend(request(command.split(' ')));
    }
    // What cannot be parsed comes after all that could.
    pipeline.extend(b"*1\r\n!\r\n");
    client.send(&pipeline).await;
    for (command, answer) in script.iter().filter(|(_, answer)| !answer.is_empty()) {
        let reply = client.reply().await.unwrap();
        assert_eq!(text(&reply), *answer, "{command}");
    }
    let error = client.reply().await.unwrap();
    assert_eq!(text(&error), "ERR Protocol error: expected '$', got '!'");
    assert_eq!(client.reply().await, None);
    let mut client = server.client().await;
    let counted = client.text(&["INFO", "commandstats"]).await;
    let get = counted
        .lines()
        .find(|line| line.starts_with("cmdstat_get:"))
        .unwrap();
    assert!(get.contains("cmdstat_get:calls=11,"), "{get}");
    assert!(get.contains("rejected_calls=1,failed_calls=1"), "{get}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_of_ten_thousand_is_answered_in_order_and_sees_its_own_writes() {
    const COMMANDS: usize = 10_000;
    let server = Server::start().await;
    let (mut client, mut pipeline) = (server.client().await, Vec::new());
    for number in 0..COMMANDS {
        pipeline.extend(request(["INCR", "counter"]));
        pipeline.extend(request(["SET", "last", &number.to_string()]));
        if number % 100 == 0 {
            pipeline.extend(request(["GET", "last"]));
            pipeline.extend(request(["ECHO", &number.to_string()]));
        }
    }
    client.send(&pipeline).await;
    for number in 0..COMMANDS {
        assert_eq!(text(&client.reply().await.unwrap()), (number + 1).to_string());
        assert_eq!(text(&client.reply().await.unwrap()), "OK");
        if number % 100 == 0 {
            assert_eq!(text(&client.reply().await.unwrap()), number.to_string());
            assert_eq!(text(&client.reply().await.unwrap()), number.to_string());
        }
    }
    assert_eq!(client.text(&["GET", "counter"]).await, COMMANDS.to_string());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_come_byte_by_byte_are_answered() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.stream.set_nodelay(true).unwrap();
    for byte in [request(["SET", "k", "v"]), b"GET k\r\n".to_vec()].concat() {
        client.send(&[byte]).await;
    }
    assert_eq!(text(&client.reply().await.unwrap()), "OK");
    assert_eq!(text(&client.reply().await.unwrap()), "v");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_everything_before_it_reads_gets_through() {
    const COMMANDS: usize = 5_000;
    let server = Server::start().await;
    let mut client = server.client().await;
    let message = "m".repeat(4 << 10);
    let one = request(["ECHO", &message]);
    for _ in 0..COMMANDS {
        timeout(PATIENCE, client.stream.write_all(&one))
            .await
            .expect("the endpoint reads on")
            .unwrap();
    }
    for _ in 0..COMMANDS {
        assert_eq!(text(&client.reply().await.unwrap()), message);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_connection_has_a_database_a_protocol_and_a_name_of_its_own() {
    let server = Server::start().await;
    let (mut one, mut two) = (server.client().await, server.client().await);
    assert_eq!(one.text(&["SELECT", "3"]).await, "OK");
    one.ask(&["HELLO", "3"]).await;
    assert_eq!(one.text(&["CLIENT", "SETNAME", "one"]).await, "OK");
    assert_eq!(one.text(&["SET", "k", "v"]).await, "OK");
    assert_eq!(two.text(&["GET", "k"]).await, "(nil)");
    assert_eq!(two.text(&["CLIENT", "GETNAME"]).await, "(nil)");
    assert!(matches!(one.ask(&["CONFIG", "GET", "port"]).await, Reply::Map(_)));
    assert!(matches!(
        two.ask(&["CONFIG", "GET", "port"]).await,
        Reply::Array(_)
    ));
    assert_eq!(one.text(&["RESET"]).await, "RESET");
    assert_eq!(one.text(&["GET", "k"]).await, "(nil)");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_listed_and_killed() {
    let server = Server::start().await;
    let (mut one, mut two, mut three) = (
        server.client().await,
        server.client().await,
        server.client().await,
    );
    two.ask(&["CLIENT", "SETNAME", "two"]).await;
    assert_eq!(
        two.text(&["CLIENT", "SETINFO", "LIB-NAME", "library"]).await,
        "OK"
    );
    assert_eq!(two.text(&["CLIENT", "SETINFO", "lib-ver", "1.2"]).await, "OK");
    assert_eq!(
        two.text(&["CLIENT", "SETINFO", "lib-ver", "1 2"]).await,
        "ERR lib-ver cannot contain spaces, newlines or special characters."
    );
    assert_eq!(
        two.text(&["CLIENT", "SETINFO", "x", "1"]).await,
        "ERR Unrecognized option 'x'"
    );
    let (second, third) = (
        two.text(&["CLIENT", "ID"]).await,
        three.text(&["CLIENT", "ID"]).await,
    );
    let list = one.text(&["CLIENT", "LIST"]).await;
    assert_eq!(list.lines().count(), 3, "{list}");
    let line = one.text(&["CLIENT", "LIST", "ID", &second]).await;
    for field in [
        &format!("id={second} "),
        "name=two ",
        "db=0 ",
        "resp=2 ",
        "cmd=client|id ",
        "lib-name=library ",
        "lib-ver=1.2\n",
    ] {
        assert!(line.contains(field), "{field} in {line}");
    }
    assert!(one.text(&["CLIENT", "INFO"]).await.contains("cmd=client|info "));

    assert_eq!(one.text(&["CLIENT", "KILL", "ID", &second]).await, "1");
    assert_eq!(two.reply().await, None);
    let address = three.stream.local_addr().unwrap().to_string();
    assert_eq!(one.text(&["CLIENT", "KILL", &address]).await, "OK");
    assert_eq!(three.reply().await, None);
    server.until("connected_clients", "2").await;
    assert_eq!(one.text(&["CLIENT", "KILL", "ID", &third]).await, "0");
    // The client that looked at `connected_clients` is gone, but its connection may be noticed a moment later.
    while one.text(&["CLIENT", "LIST"]).await.lines().count() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        one.text(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no"])
            .await,
        "1"
    );
    assert_eq!(one.reply().await, None);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn info_has_the_fields_that_clients_read() {
    let server = Server::start().await;
    server.node.ready(PATIENCE).await.unwrap();
    let mut client = server.client().await;
    client.ask(&["SET", "k", "v"]).await;
    client.ask(&["GET", "k", "too many"]).await;
    let info = client.text(&["INFO"]).await;
    for line in [
        "# Server",
        "redis_version:7.4.0",
        "redis_mode:standalone",
        "# Clients",
        "connected_clients:1",
        "# Memory",
        "# Persistence",
        "loading:0",
        "# Stats",
        "total_commands_processed:3",
        "total_error_replies:1",
        "# Replication",
        "role:master",
        "connected_slaves:0",
        "# CPU",
        "# Errorstats",
        "errorstat_ERR:count=1",
        "# Cluster",
        "cluster_enabled:0",
        "# Keyspace",
        "db0:keys=1,expires=0,avg_ttl=0",
        "# Plenary",
        "raft_role:leader",
    ] {
        assert!(info.lines().any(|other| other == line), "{line} in {info}");
    }
    assert!(!info.contains("# Commandstats"));
    let run_id = info
        .lines()
        .find_map(|line| line.strip_prefix("run_id:"))
        .unwrap();
    assert!(
        run_id.len() == 40 && run_id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{run_id}"
    );
    let some = client.text(&["INFO", "CLUSTER", "nosuch", "keyspace"]).await;
    assert_eq!(
        some,
        "# Cluster\r\ncluster_enabled:0\r\n\r\n# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0\r\n"
    );
    for word in ["all", "everything"] {
        assert!(client.text(&["INFO", word]).await.contains("# Commandstats"));
    }
    assert_eq!(client.text(&["CONFIG", "RESETSTAT"]).await, "OK");
    assert_eq!(server.field("total_error_replies").await, "0");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_describe_themselves() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let count: usize = client.text(&["COMMAND", "COUNT"]).await.parse().unwrap();
    for question in [&["COMMAND"][..], &["COMMAND", "INFO"]] {
        let Reply::Array(all) = client.ask(question).await else {
            panic!("an array")
        };
        assert_eq!(all.len(), count);
    }
    let Reply::Array(listed) = client.ask(&["COMMAND", "LIST"]).await else {
        panic!("an array")
    };
    assert_eq!(
        listed.len(),
        table::all().count(),
        "subcommands are listed as well"
    );
    let Reply::Array(docs) = client.ask(&["COMMAND", "DOCS"]).await else {
        panic!("an array")
    };
    assert_eq!(docs.len(), 2 * count);
    let docs = client.text(&["COMMAND", "DOCS", "config|get", "ping"]).await;
    assert!(
        docs.starts_with(
            "config|get summary Get the values of configuration parameters since 2.0.0 group server"
        ),
        "{docs}"
    );
    assert!(docs.contains("name message type string flags optional"), "{docs}");
    let client_commands = client
        .text(&["COMMAND", "LIST", "FILTERBY", "PATTERN", "client|?ETN*"])
        .await;
    assert_eq!(client_commands, "client|getname client|setname");
    let connection = client
        .text(&["COMMAND", "LIST", "FILTERBY", "ACLCAT", "connection"])
        .await;
    assert!(
        connection.contains("hello") && connection.contains("client|id") && !connection.contains("config"),
        "{connection}"
    );
    for command in ["CLIENT", "COMMAND", "CONFIG", "PLENARY"] {
        let help = client.text(&[command, "HELP"]).await;
        assert!(
            help.starts_with(&format!(
                "{command} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
            )),
            "{help}"
        );
        for subcommand in table::subcommands(command).iter().filter(|name| **name != "HELP") {
            let said = |line: &Reply| text(line).starts_with(subcommand);
            let Reply::Array(lines) = client.ask(&[command, "HELP"]).await else {
                panic!("an array")
            };
            assert!(
                lines.iter().any(said),
                "{command} HELP says nothing of {subcommand}"
            );
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_is_the_logs() {
    let server = Server::start().await;
    let before = server.node.now();
    let time = server.client().await.text(&["TIME"]).await;
    let after = server.node.now();
    let (seconds, micros) = time.split_once(' ').unwrap();
    let millis = seconds.parse::<u64>().unwrap() * 1000 + micros.parse::<u64>().unwrap() / 1000;
    assert!((before..=after).contains(&millis), "{before} {millis} {after}");
    server.stop().await;
}

/// A command that this node cannot answer.
const LATE: [&str; 4] = ["PLENARY", "WAITFOR", "1000000000", "1"];

#[tokio::test(flavor = "multi_thread")]
async fn trouble_within_a_transaction_that_ran_does_not_ask_to_send_it_again() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for argv in [&["MULTI"][..], &["INCR", "n"], &LATE] {
        client.ask(argv).await;
    }
    let replies = client.text(&["EXEC"]).await;
    assert!(
        replies.starts_with("1 ERR this node has not applied index"),
        "{replies}"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_is_sent_again_only_where_nothing_of_it_was_written() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let (late, text) = ("TRYAGAIN this node has not", "ERR this node has not");
    let count = ["EVAL", "return redis.call('INCR', KEYS[1])", "1", "n"];
    for (pipeline, begins) in [
        // Behind a write nobody is asked to send it again.
        (
            vec![&["INCR", "n"][..], &LATE, &["INCR", "n"]],
            vec!["1", text, "2"],
        ),
        (vec![&count[..], &LATE], vec!["3", text]),
        (
            vec![&["MULTI"][..], &["INCR", "n"], &["EXEC"], &LATE],
            vec!["OK", "QUEUED", "4", text],
        ),
        // Behind what asks for it nothing is written.
        (
            vec![&LATE, &["INCR", "n"][..], &["GET", "n"], &count],
            vec![late, late, "4", late],
        ),
        (
            vec![&LATE, &["MULTI"][..], &["INCR", "n"], &["EXEC"]],
            vec![late, "OK", "QUEUED", late],
        ),
        (
            vec![&LATE, &["MULTI"][..], &["GET", "n"], &["EXEC"]],
            vec![late, "OK", "QUEUED", "4"],
        ),
        (
            vec![&LATE, &["RESET"][..], &["INCR", "n"]],
            vec![late, "RESET", late],
        ),
        // What a client says when it comes writes nothing.
        (
            vec![&["HELLO", "2"][..], &["SELECT", "0"], &["GET", "n"], &LATE],
            vec!["", "OK", "4", late],
        ),
        (vec![&["GET", "n"]], vec!["4"]),
    ] {
        let bytes: Vec<u8> = pipeline.iter().flat_map(|argv| request(*argv)).collect();
        client.send(&bytes).await;
        for (argv, begins) in pipeline.iter().zip(begins) {
            let reply = common::endpoint::text(&client.reply().await.expect("a reply"));
            assert!(
                reply.starts_with(begins),
                "{pipeline:?}: {argv:?} came to {reply}"
            );
        }
    }
    // What comes in pieces came together.
    let (late, count) = (request(LATE), request(["INCR", "n"]));
    client.send(&[&late[..], &count[..5]].concat()).await;
    let first = common::endpoint::text(&client.reply().await.expect("a reply"));
    client.send(&count[5..]).await;
    let second = common::endpoint::text(&client.reply().await.expect("a reply"));
    assert_eq!(first, second);
    assert_eq!(client.text(&["INCR", "n"]).await, "5");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plenary_tells_of_the_cluster_and_how_far_a_connection_has_seen() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.ask(&["SET", "k", "v"]).await;
    let token = client.text(&["PLENARY", "TOKEN"]).await;
    assert!(token.parse::<u64>().unwrap() > 0);
    let applied = client.text(&["PLENARY", "WAITFOR", &token, "5000"]).await;
    assert!(applied.parse::<u64>().unwrap() >= token.parse::<u64>().unwrap());
    assert_eq!(
        client.text(&["PLENARY", "WAITFOR", "x"]).await,
        "ERR value is not an integer or out of range"
    );
    client.ask(&["GET", "k"]).await;
    assert!(
        client.text(&["PLENARY", "TOKEN"]).await.parse::<u64>().unwrap() >= token.parse::<u64>().unwrap()
    );

    let status: serde_json::Value = serde_json::from_str(&client.text(&["PLENARY", "STATUS"]).await).unwrap();
    assert_eq!(status["node_id"], server.node.status().node_id);
    let digest = client.text(&["PLENARY", "DIGEST"]).await;
    let (_, hex) = digest.split_once(' ').unwrap();
    assert_eq!(
        u128::from_str_radix(hex, 16).unwrap(),
        server.node.digest().await.1
    );

    assert_eq!(client.text(&["PLENARY", "FRESH", "linearizable"]).await, "OK");
    assert_eq!(client.text(&["GET", "k"]).await, "v");
    assert_eq!(client.text(&["PLENARY", "FRESH", "local"]).await, "OK");
    assert_eq!(
        client.text(&["PLENARY", "FRESH", "x"]).await,
        "ERR freshness is 'local' or 'linearizable'"
    );
    assert!(matches!(
        client.ask(&["PLENARY", "MEMBERS", "LIST"]).await,
        Reply::Array(_)
    ));
    for wrong in [
        &["PLENARY", "MEMBERS", "ADD"][..],
        &["PLENARY", "MEMBERS", "LIST", "x"],
        &["PLENARY", "MEMBERS", "FOO"],
    ] {
        assert!(client.text(wrong).await.starts_with("ERR say PLENARY MEMBERS "));
    }
    assert_eq!(
        client.text(&["PLENARY", "MEMBERS", "REMOVE", "-1"]).await,
        "ERR value is not an integer or out of range"
    );
    assert_eq!(
        client.text(&["PLENARY", "FOO"]).await,
        "ERR unknown subcommand 'FOO'. Try PLENARY HELP."
    );
    server.stop().await;
}

// ---- bad input: the client gets a clear error, the others go on ----

/// The one who must not notice anything.
async fn goes_on(server: &Server, other: &mut Client) {
    assert_eq!(other.text(&["SET", "other", "goes on"]).await, "OK");
    assert_eq!(other.text(&["GET", "other"]).await, "goes on");
    assert_eq!(
        server.client().await.text(&["PING"]).await,
        "PONG",
        "a new client is served"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_resp_is_refused() {
    let server = Server::start().await;
    let mut other = server.client().await;
    for (bytes, answer) in [
        (
            vec![b'x'; 70_000],
            "-ERR Protocol error: too big inline request\r\n",
        ),
        (
            [b"*".to_vec(), vec![b'1'; 70_000]].concat(),
            "-ERR Protocol error: too big mbulk count string\r\n",
        ),
        (
            [b"*1\r\n$".to_vec(), vec![b'1'; 70_000]].concat(),
            "-ERR Protocol error: too big bulk count string\r\n",
        ),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\"\n".to_vec(), ""),
        (
            b"*1\r\n!4\r\nPING\r\n".to_vec(),
            "-ERR Protocol error: expected '$', got '!'\r\n",
        ),
    ] {
        let mut client = server.client().await;
        client.send(&bytes).await;
        if answer.is_empty() {
            // A TLS hello ends in a line, up to its first zero: an unknown command. Its rest waits for more.
            client.stream.shutdown().await.unwrap();
            assert!(client.rest().await.starts_with(b"-ERR unknown command"));
        } else {
            assert_eq!(String::from_utf8_lossy(&client.rest().await), answer);
        }
        goes_on(&server, &mut other).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_beyond_the_limits_are_refused() {
    let server = Server::with(|config| (config.max_bulk_bytes, config.max_arguments) = (1000, 10)).await;
    let mut other = server.client().await;
    for (bytes, answer) in [
        (
            &b"*11\r\n"[..],
            "-ERR Protocol error: invalid multibulk length\r\n",
        ),
        (
            b"*2\r\n$4\r\nECHO\r\n$1001\r\n",
            "-ERR Protocol error: invalid bulk length\r\n",
        ),
    ] {
        let mut client = server.client().await;
        client.send(bytes).await;
        assert_eq!(String::from_utf8_lossy(&client.rest().await), answer);
        goes_on(&server, &mut other).await;
    }
    let largest = "x".repeat(1000);
    assert_eq!(other.text(&["ECHO", &largest]).await, largest);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_what_is_sent_can_be_set() {
    let server = Server::start().await;
    let mut other = server.client().await;
    let mut client = server.client().await;
    for (parameter, too_much, refusal) in [
        (
            "proto-max-bulk-len",
            format!("*2\r\n$4\r\nECHO\r\n${}\r\n", (1 << 20) + 1),
            "invalid bulk length",
        ),
        (
            "client-query-buffer-limit",
            format!("*2\r\n$4\r\nECHO\r\n${}\r\n", 1 << 20),
            "too big request",
        ),
    ] {
        assert_eq!(other.text(&["CONFIG", "SET", parameter, "1mb"]).await, "OK");
        assert_eq!(
            other.text(&["CONFIG", "GET", parameter]).await,
            format!("{parameter} 1048576")
        );
        // Also of who was there before.
        client.send(too_much.as_bytes()).await;
        assert_eq!(
            String::from_utf8_lossy(&client.rest().await),
            format!("-ERR Protocol error: {refusal}\r\n")
        );
        client = server.client().await;
    }
    goes_on(&server, &mut other).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_told_of_his_own_limits_first() {
    let server = Server::with(|config| config.access_key = Some(Secret::new("secret"))).await;
    for (bytes, answer) in [
        ("*100000000\r\n", "unauthenticated multibulk length"),
        ("*1\r\n$100000000\r\n", "unauthenticated bulk length"),
    ] {
        let mut stranger = server.client().await;
        stranger.send(bytes.as_bytes()).await;
        assert_eq!(
            String::from_utf8_lossy(&stranger.rest().await),
            format!("-ERR Protocol error: {answer}\r\n")
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_beyond_the_limit_of_its_class_is_not_sent() {
    let server = Server::start().await;
    let mut other = server.client().await;
    for parameter in ["normal 100000 0 0", "pubsub 100000 0 0"] {
        let set = ["CONFIG", "SET", "client-output-buffer-limit", parameter];
        assert_eq!(other.text(&set).await, "OK");
    }
    other.ask(&["SET", "large", &"x".repeat(200_000)]).await;
    for (nth, commands) in [
        vec![vec!["GET", "large"]],
        // A transaction is run whole, and only then refused its answer.
        vec![
            vec!["MULTI"],
            vec!["GET", "large"],
            vec!["SET", "done", "yes"],
            vec!["EXEC"],
        ],
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = server.client().await;
        let (last, before) = commands.split_last().unwrap();
        for command in before {
            client.ask(command).await;
        }
        client.send(&request(last)).await;
        assert_eq!(String::from_utf8_lossy(&client.rest().await), "");
        let cut_off = (nth + 1).to_string();
        server
            .until("client_output_buffer_limit_disconnections", &cut_off)
            .await;
    }
    assert_eq!(other.text(&["GET", "done"]).await, "yes");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_command_and_a_hang_up_changes_nothing() {
    let server = Server::start().await;
    let mut other = server.client().await;
    for bytes in [
        &b"*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$5\r\nvalu"[..],
        b"SET half value",
        b"*3\r\n$3",
        b"*",
    ] {
        let mut client = server.client().await;
        client.send(&request(["SET", "whole", "value"])).await;
        client.send(bytes).await;
        client.stream.shutdown().await.unwrap();
        assert_eq!(client.rest().await, b"+OK\r\n");
        goes_on(&server, &mut other).await;
    }
    assert_eq!(other.text(&["EXISTS", "half"]).await, "0");
    server.until("connected_clients", "2").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_reads_is_cut_off() {
    let server = Server::with(|config| config.max_output_bytes = 256 << 10).await;
    let mut other = server.client().await;
    let mut client = server.client().await;
    client.ask(&["SET", "large", &"x".repeat(64 << 10)]).await;
    let one = request(["GET", "large"]);
    let flood = async { while client.stream.write_all(&one).await.is_ok() {} };
    timeout(PATIENCE, flood)
        .await
        .expect("the endpoint cuts off a client that does not read");
    server
        .until("client_output_buffer_limit_disconnections", "1")
        .await;
    goes_on(&server, &mut other).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_at_once_for_more_than_may_wait_is_cut_off_when_all_of_it_was_run() {
    let server = Server::with(|config| config.max_output_bytes = 256 << 10).await;
    let mut other = server.client().await;
    other.ask(&["SET", "large", &"x".repeat(64 << 10)]).await;
    let get = &["GET", "large"][..];
    let three = &["MGET", "large", "large", "large"];
    let five = &["MGET", "large", "large", "large", "large", "large"];
    for (number, transaction) in [
        &[
            &["INCR", "count"][..],
            get,
            get,
            get,
            get,
            &["CLIENT", "NO-EVICT", "on"],
        ][..],
        &[get, get, get, get],
        &[&["INCR", "count"], five],
        &[five],
    ]
    .iter()
    .enumerate()
    {
        let mut client = server.client().await;
        let said = [&["MULTI"][..]].into_iter().chain(transaction.iter().copied());
        for words in said.chain([&["EXEC"][..]]) {
            client.send(&request(words.iter().copied())).await;
        }
        let rest = String::from_utf8(client.rest().await).unwrap();
        let queued = "+QUEUED\r\n".repeat(transaction.len());
        assert!(format!("+OK\r\n{queued}").starts_with(&rest), "{rest:.99}");
        let counted = (number + 1).to_string();
        server
            .until("client_output_buffer_limit_disconnections", &counted)
            .await;
    }
    // It was run, as it is in Redis.
    assert_eq!(other.text(&["GET", "count"]).await, "2");
    // What may wait is answered, and who wants no answers is not cut off.
    let mut client = server.client().await;
    for words in [&["MULTI"][..], three, &["EXEC"]] {
        client.send(&request(words.iter().copied())).await;
    }
    client.send(&request(["CLIENT", "REPLY", "OFF"])).await;
    for words in [
        &["MULTI"][..],
        five,
        &["LRANGE", "no", "0", "-1"],
        &["EXEC"],
        five,
    ] {
        client.send(&request(words.iter().copied())).await;
    }
    for words in [&["CLIENT", "REPLY", "ON"][..], &["QUIT"]] {
        client.send(&request(words.iter().copied())).await;
    }
    let rest = String::from_utf8(client.rest().await).unwrap();
    let rest = rest.replace(&format!("$65536\r\n{}\r\n", "x".repeat(64 << 10)), "large ");
    assert_eq!(
        rest,
        "+OK\r\n+QUEUED\r\n*1\r\n*3\r\nlarge large large +OK\r\n+OK\r\n"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_more_members_than_there_are_can_go_and_in_a_transaction_nobody_waits() {
    let server = Server::with(|_| {}).await;
    let mut other = server.client().await;
    for (number, words) in [
        &["WAIT", "9", "0"][..],
        &["WAITAOF", "1", "9", "0"],
        &["WAIT", "9", "1000000"],
    ]
    .iter()
    .enumerate()
    {
        let mut client = server.client().await;
        client
            .send(&request(["SET", "number", &number.to_string()]))
            .await;
        client.send(&request(words.iter().copied())).await;
        server.until("blocked_clients", "1").await;
        // What came before it is answered meanwhile.
        assert_eq!(next(&mut client).await, "OK");
        server.until("connected_clients", "3").await;
        drop(client);
        server.until("connected_clients", "2").await;
        server.until("blocked_clients", "0").await;
    }
    for words in [
        &["MULTI"][..],
        &["SET", "k", "v"],
        &["WAIT", "9", "0"],
        &["WAITAOF", "0", "9", "0"],
        &["WAIT", "x", "0"],
    ] {
        other.ask(words).await;
    }
    assert_eq!(
        other.text(&["EXEC"]).await,
        "OK 0 1 0 ERR value is not an integer or out of range"
    );
    assert_eq!(other.text(&["WAIT", "9", "10"]).await, "0");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_clients_are_told_so() {
    let server = Server::with(|config| config.max_clients = 2).await;
    let (mut one, two) = (server.client().await, server.client().await);
    assert_eq!(one.text(&["PING"]).await, "PONG");
    let refused = server.client().await.rest().await;
    assert_eq!(
        String::from_utf8_lossy(&refused),
        "-ERR max number of clients reached\r\n"
    );
    assert_eq!(one.text(&["SET", "k", "v"]).await, "OK");
    drop(two);
    let deadline = Instant::now() + PATIENCE;
    while server.client().await.text(&["PING"]).await != "PONG" {
        assert!(Instant::now() < deadline, "the place of one who left is free");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_nothing_for_too_long_is_closed() {
    let server = Server::with(|config| config.idle_timeout = Duration::from_secs(2)).await;
    let silent = server.client().await;
    let mut half = server.client().await;
    half.send(b"*1\r\n$4\r\nPI").await;
    assert_eq!(silent.rest().await, b"");
    assert_eq!(half.rest().await, b"");
    server.until("client_idle_disconnections", "2").await;
    assert_eq!(server.client().await.text(&["PING"]).await, "PONG");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_sees_and_changes_nothing() {
    let server = Server::with(|config| config.access_key = Some(Secret::new("secret"))).await;
    let mut known = server.client().await;
    assert_eq!(known.text(&["AUTH", "secret"]).await, "OK");
    assert_eq!(known.text(&["SET", "k", "v"]).await, "OK");
    let mut stranger = server.client().await;
    for spec in table::all()
        .filter(|spec| !spec.flags.contains("no_auth") && table::subcommands(spec.name).is_empty())
    {
        let mut argv: Vec<&str> = spec.name.split('|').collect();
        while (argv.len() as i64) < spec.arity().abs() {
            argv.push("k");
        }
        let answer = stranger.text(&argv).await;
        let refusal = answer.strip_prefix("EXECABORT Transaction discarded because of: ");
        let refusal = refusal.unwrap_or(&answer);
        assert_eq!(refusal, "NOAUTH Authentication required.", "{argv:?}");
    }
    assert_eq!(known.text(&["GET", "k"]).await, "v");
    assert_eq!(
        known.text(&["CONFIG", "GET", "requirepass"]).await,
        "requirepass (hidden)"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_closes_every_connection_and_the_port() {
    let server = Server::start().await;
    let (address, mut client) = (server.resp.address(), server.client().await);
    assert_eq!(client.text(&["PING"]).await, "PONG");
    server.stop().await;
    assert_eq!(client.reply().await, None);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_a_clear_error() {
    let server = Server::start().await;
    let address = server.resp.address().to_string();
    let error = Resp::bind(&mut RespConfig::new(&address))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(&format!("cannot listen on {address}: ")),
        "{error}"
    );
    server.stop().await;
}

// ---- what clients do to each other ----

/// The next reply or message, as `text` tells it.
async fn next(client: &mut Client) -> String {
    text(&client.reply().await.expect("a message, not the end"))
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_reach_the_subscribers_of_channel_pattern_and_shard() {
    let server = Server::start().await;
    let (mut two, mut three, mut publisher) = (
        server.client().await,
        server.client().await,
        server.client().await,
    );
    assert_eq!(two.text(&["SUBSCRIBE", "news"]).await, "subscribe news 1");
    assert_eq!(two.text(&["PSUBSCRIBE", "n?ws"]).await, "psubscribe n?ws 2");
    three.ask(&["HELLO", "3"]).await;
    assert_eq!(three.text(&["SUBSCRIBE", "news"]).await, "subscribe news 1");
    assert_eq!(three.text(&["SSUBSCRIBE", "news"]).await, "ssubscribe news 1");
    // Subscribed twice, it is told twice, and counts twice.
    assert_eq!(publisher.text(&["PUBLISH", "news", "hello"]).await, "3");
    assert_eq!(next(&mut two).await, "message news hello");
    assert_eq!(next(&mut two).await, "pmessage n?ws news hello");
    assert_eq!(next(&mut three).await, "message news hello");
    assert_eq!(publisher.text(&["SPUBLISH", "news", "shard"]).await, "1");
    assert_eq!(next(&mut three).await, "smessage news shard");
    // RESP3 tells messages from replies, so a subscriber may go on.
    assert_eq!(three.text(&["SET", "k", "v"]).await, "OK");
    let line = publisher.text(&["CLIENT", "LIST", "TYPE", "pubsub"]).await;
    assert_eq!(line.lines().count(), 2, "{line}");
    assert!(line.contains("flags=P db=0 sub=1 psub=1 ssub=0 "), "{line}");
    server.until("pubsub_channels", "1").await;
    server.until("pubsub_patterns", "1").await;
    server.until("pubsubshard_channels", "1").await;
    drop((two, three));
    server.until("pubsub_channels", "0").await;
    server.until("pubsub_patterns", "0").await;
    assert_eq!(publisher.text(&["PUBLISH", "news", "nobody"]).await, "0");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_seen_whole_and_its_watch_sees_others() {
    let server = Server::start().await;
    let (mut one, mut two) = (server.client().await, server.client().await);
    for (other, answer) in [
        ("", "OK 1"),
        ("SET", "(nil)"),
        ("EXPIRE", "(nil)"),
        ("FLUSHALL", "(nil)"),
    ] {
        one.ask(&["SET", "k", "v"]).await;
        assert_eq!(one.text(&["WATCH", "k"]).await, "OK");
        match other {
            "SET" => assert_eq!(two.text(&["SET", "k", "v"]).await, "OK"),
            "EXPIRE" => assert_eq!(two.text(&["EXPIRE", "k", "100"]).await, "1"),
            "FLUSHALL" => assert_eq!(two.text(&["FLUSHALL"]).await, "OK"),
            _ => {}
        }
        assert_eq!(one.text(&["MULTI"]).await, "OK");
        assert_eq!(one.text(&["SET", "k", "w"]).await, "QUEUED");
        assert_eq!(one.text(&["DEL", "k"]).await, "QUEUED");
        let line = two.text(&["CLIENT", "LIST"]).await;
        assert!(line.contains("flags=x ") && line.contains("multi=2 "), "{line}");
        assert_eq!(one.text(&["EXEC"]).await, answer, "{other}");
        assert_eq!(
            two.text(&["DEL", "k"]).await,
            if other == "SET" || other == "EXPIRE" {
                "1"
            } else {
                "0"
            }
        );
    }
    // A subscriber has the messages of a transaction in its order.
    two.ask(&["SUBSCRIBE", "c"]).await;
    for argv in [
        &["MULTI"][..],
        &["PUBLISH", "c", "1"],
        &["SET", "k", "v"],
        &["PUBLISH", "c", "2"],
    ] {
        one.ask(argv).await;
    }
    assert_eq!(one.text(&["EXEC"]).await, "1 OK 1");
    assert_eq!(next(&mut two).await, "message c 1");
    assert_eq!(next(&mut two).await, "message c 2");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_subscriber_is_cut_off_and_the_others_go_on() {
    let server = Server::start().await;
    let (mut slow, mut publisher) = (server.client().await, server.client().await);
    slow.ask(&["SUBSCRIBE", "c"]).await;
    // It reads nothing: 32 MB wait for it sooner or later.
    let message = "m".repeat(1 << 20);
    let deadline = Instant::now() + PATIENCE;
    while publisher.text(&["PUBLISH", "c", &message]).await == "1" {
        assert!(Instant::now() < deadline, "it is not cut off");
    }
    server
        .until("client_output_buffer_limit_disconnections", "1")
        .await;
    assert_eq!(publisher.text(&["PING"]).await, "PONG");
    drop(slow);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_clients_wait_and_go_on() {
    let server = Server::start().await;
    let (mut one, mut two) = (server.client().await, server.client().await);
    assert_eq!(two.text(&["CLIENT", "PAUSE", "100000", "WRITE"]).await, "OK");
    assert_eq!(one.text(&["GET", "k"]).await, "(nil)");
    one.send(&request(["SET", "k", "v"])).await;
    one.send(&request(["GET", "k"])).await;
    server.until("blocked_clients", "1").await;
    assert_eq!(two.text(&["GET", "k"]).await, "(nil)");
    let id = two.text(&["CLIENT", "LIST"]).await;
    assert!(id.contains("flags=b "), "{id}");
    assert_eq!(two.text(&["CLIENT", "UNPAUSE"]).await, "OK");
    assert_eq!(
        (next(&mut one).await, next(&mut one).await),
        ("OK".into(), "v".into())
    );
    server.until("blocked_clients", "0").await;
    // A pause ends by itself, and one that is cut short does not outlast its client.
    assert_eq!(two.text(&["CLIENT", "PAUSE", "50"]).await, "OK");
    assert_eq!(one.text(&["SET", "k", "w"]).await, "OK");
    assert_eq!(two.text(&["CLIENT", "PAUSE", "100000", "WRITE"]).await, "OK");
    one.send(&request(["SET", "k", "x"])).await;
    server.until("blocked_clients", "1").await;
    drop(one);
    server.until("blocked_clients", "0").await;
    assert_eq!(two.text(&["CLIENT", "UNPAUSE"]).await, "OK");
    assert_eq!(two.text(&["GET", "k"]).await, "w");
    for (argv, refusal) in [
        (
            &["CLIENT", "PAUSE", "x"][..],
            "ERR timeout is not an integer or out of range",
        ),
        (&["CLIENT", "PAUSE", "-1"], "ERR timeout is negative"),
        (
            &["CLIENT", "PAUSE", "1", "x"],
            "ERR CLIENT PAUSE mode must be WRITE or ALL",
        ),
        (
            &["CLIENT", "UNBLOCK", "x"],
            "ERR value is not an integer or out of range",
        ),
        (
            &["CLIENT", "UNBLOCK", "1", "x"],
            "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR",
        ),
    ] {
        assert_eq!(two.text(argv).await, refusal);
    }
    assert_eq!(two.text(&["CLIENT", "UNBLOCK", "1"]).await, "0");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_connection_has_kept_is_bounded_in_bytes() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let (fits, long) = ("x".repeat(64 << 10), "x".repeat((64 << 10) + 1));
    let refused = "ERR Client names cannot be longer than 65536 bytes.";
    assert_eq!(client.text(&["CLIENT", "SETNAME", &fits]).await, "OK");
    assert_eq!(client.text(&["CLIENT", "SETNAME", &long]).await, refused);
    assert_eq!(
        client.text(&["CLIENT", "SETINFO", "LIB-NAME", &long]).await,
        refused
    );
    assert_eq!(client.text(&["CLIENT", "GETNAME"]).await, fits);
    let keys = ["a", "b"].map(|letter| letter.repeat(9 << 20));
    assert_eq!(client.text(&["WATCH", &keys[0]]).await, "OK");
    assert_eq!(
        client.text(&["WATCH", &keys[1]]).await,
        "ERR too many watched keys"
    );
    // What a script takes for an error is counted by the beginning of its first word, and noted where it was slow by that of the name.
    assert_eq!(
        client
            .text(&["CONFIG", "SET", "slowlog-log-slower-than", "0"])
            .await,
        "OK"
    );
    let script = "return redis.error_reply(string.rep('E', 1000) .. ' it')";
    assert!(client.text(&["EVAL", script, "0"]).await.starts_with("EEE"));
    let told = client.text(&["INFO", "errorstats"]).await;
    let kind = format!("errorstat_{}:count=1", "E".repeat(128));
    assert!(told.contains(&kind), "{told}");
    let slow = client.text(&["SLOWLOG", "GET", "1"]).await;
    assert!(slow.len() < 4096, "{} bytes", slow.len());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_before_stands_before_the_answer_to_reset_and_hello() {
    let server = Server::start().await;
    let mut client = server.client().await;
    // A tracking client has its own message only after the reply to `PUBLISH`: here what comes next is in the same pipeline.
    for (changes, answered) in [(&["RESET"][..], "RESET"), (&["HELLO", "2"], "server redis")] {
        client.ask(&["HELLO", "3"]).await;
        client.ask(&["CLIENT", "TRACKING", "ON"]).await;
        client.ask(&["SUBSCRIBE", "news"]).await;
        let sent = [request(["PUBLISH", "news", "old"]), request(changes)].concat();
        client.send(&sent).await;
        let mut next = async || text(&client.reply().await.expect("a reply"));
        assert_eq!(next().await, "1", "{changes:?}");
        assert_eq!(next().await, "message news old", "{changes:?}");
        assert!(next().await.starts_with(answered), "{changes:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_cache_are_told_what_changed() {
    let server = Server::start().await;
    let (mut cache, mut writer) = (server.client().await, server.client().await);
    cache.ask(&["HELLO", "3"]).await;
    assert_eq!(cache.text(&["CLIENT", "TRACKING", "ON"]).await, "OK");
    cache.ask(&["GET", "a"]).await;
    cache.ask(&["MGET", "b", "c"]).await;
    server.until("tracking_total_keys", "3").await;
    writer.ask(&["SET", "a", "1"]).await;
    writer.ask(&["SET", "a", "2"]).await;
    writer.ask(&["DEL", "b"]).await;
    writer.ask(&["SET", "d", "1"]).await;
    writer.ask(&["SET", "c", "1"]).await;
    // Told once, until it is read again; what was not read or did not change is not told.
    assert_eq!(next(&mut cache).await, "invalidate a");
    assert_eq!(next(&mut cache).await, "invalidate c");
    // One's own change is told after its answer.
    cache.ask(&["GET", "a"]).await;
    assert_eq!(cache.text(&["SET", "a", "3"]).await, "OK");
    assert_eq!(next(&mut cache).await, "invalidate a");
    cache.ask(&["GET", "a"]).await;
    writer.ask(&["FLUSHALL"]).await;
    assert_eq!(next(&mut cache).await, "invalidate (nil)");
    server.until("tracking_total_keys", "0").await;
    // What a transaction writes before it reads it is no news; what it writes afterwards is.
    for argv in [
        &["MULTI"][..],
        &["SET", "x", "1"],
        &["GET", "x"],
        &["GET", "y"],
        &["SET", "y", "1"],
        &["MGET", "x", "y"],
    ] {
        cache.ask(argv).await;
    }
    assert_eq!(cache.text(&["EXEC"]).await, "OK 1 (nil) OK 1 1");
    assert_eq!(next(&mut cache).await, "invalidate y");
    server.until("tracking_total_keys", "2").await;
    writer.ask(&["MSET", "x", "2", "y", "2"]).await;
    assert_eq!(next(&mut cache).await, "invalidate x");
    assert_eq!(next(&mut cache).await, "invalidate y");
    // Of scripts the keys they name, if they read anything.
    let script = |text: &'static str| ["EVAL", text, "1", "x"];
    for (text, tracked) in [
        ("return redis.call('SET', 'y', 1)", "0"),
        ("return redis.call('GET', 'y')", "1"),
    ] {
        cache.ask(&script(text)).await;
        server.until("tracking_total_keys", tracked).await;
        writer.ask(&["SET", "x", "3"]).await;
    }
    assert_eq!(next(&mut cache).await, "invalidate x");
    // In a transaction what a command reads counts, whatever the scripts around it do.
    let writes = script("return redis.call('SET', 'y', 1)");
    for argv in [&["MULTI"][..], &writes, &["GET", "x"], &writes] {
        cache.ask(argv).await;
    }
    assert_eq!(cache.text(&["EXEC"]).await, "OK 3 OK");
    writer.ask(&["SET", "x", "4"]).await;
    assert_eq!(next(&mut cache).await, "invalidate x");
    server.until("tracking_total_keys", "0").await;
    // A key that ends is told without anybody asking for it.
    writer.ask(&["SET", "e", "1", "PX", "2000"]).await;
    cache.ask(&["GET", "e"]).await;
    assert_eq!(next(&mut cache).await, "invalidate e");
    assert_eq!(cache.text(&["CLIENT", "TRACKING", "OFF"]).await, "OK");
    server.until("tracking_clients", "0").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalidations_go_to_whom_they_are_redirected_and_keep_quiet_of_own_writes() {
    let server = Server::start().await;
    let (mut cache, mut listener, mut writer) = (
        server.client().await,
        server.client().await,
        server.client().await,
    );
    let id = listener.text(&["CLIENT", "ID"]).await;
    listener.ask(&["SUBSCRIBE", "__redis__:invalidate"]).await;
    let on = |more: &[&'static str]| -> Vec<String> {
        let words = ["CLIENT", "TRACKING", "ON", "REDIRECT", &id];
        words.iter().chain(more).map(|word| (*word).to_string()).collect()
    };
    let ask = async |client: &mut Client, argv: Vec<String>| {
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        client.text(&argv).await
    };
    // What a node tells itself no subscriber hears.
    let mut all = server.client().await;
    all.ask(&["PSUBSCRIBE", "*"]).await;
    assert_eq!(ask(&mut cache, on(&["NOLOOP"])).await, "OK");
    cache.ask(&["MGET", "a", "b", "c"]).await;
    writer.ask(&["SET", "a", "1"]).await;
    cache.ask(&["SET", "b", "1"]).await;
    let script = ["EVAL", "return redis.call('SET', KEYS[1], '2')", "1", "b"];
    for argv in [
        &["GET", "b"][..],
        &["MULTI"],
        &["SET", "b", "2"],
        &["EXEC"],
        &["GET", "b"],
        &script,
        &["GET", "b"],
        &["MULTI"],
        &script,
        &["EXEC"],
    ] {
        cache.ask(argv).await;
    }
    writer.ask(&["SET", "c", "1"]).await;
    assert_eq!(next(&mut listener).await, "message __redis__:invalidate a");
    assert_eq!(next(&mut listener).await, "message __redis__:invalidate c");
    // Nor does one of another node, whose channel has another name.
    writer.ask(&["PUBLISH", "__plenary__:writer:0", "1"]).await;
    writer.ask(&["PUBLISH", "news", "1"]).await;
    assert_eq!(next(&mut all).await, "pmessage * news 1");

    // All keys of one entry that have a prefix are told together.
    cache.ask(&["CLIENT", "TRACKING", "OFF"]).await;
    assert_eq!(
        ask(&mut cache, on(&["BCAST", "PREFIX", "a:", "PREFIX", "b:"])).await,
        "OK"
    );
    writer
        .ask(&["MSET", "a:1", "1", "b:1", "1", "a:2", "1", "c:1", "1"])
        .await;
    assert_eq!(next(&mut listener).await, "message __redis__:invalidate a:1 a:2");
    assert_eq!(next(&mut listener).await, "message __redis__:invalidate b:1");
    let info = cache.text(&["CLIENT", "TRACKINGINFO"]).await;
    assert_eq!(info, format!("flags on bcast redirect {id} prefixes a: b:"));
    assert_eq!(cache.text(&["CLIENT", "GETREDIR"]).await, id);

    // Chosen key by key.
    cache.ask(&["CLIENT", "TRACKING", "OFF"]).await;
    assert_eq!(ask(&mut cache, on(&["OPTIN"])).await, "OK");
    cache.ask(&["GET", "quiet"]).await;
    cache.ask(&["CLIENT", "CACHING", "YES"]).await;
    cache.ask(&["GET", "told"]).await;
    cache.ask(&["GET", "quiet"]).await;
    writer.ask(&["MSET", "quiet", "1", "told", "1"]).await;
    assert_eq!(next(&mut listener).await, "message __redis__:invalidate told");

    // Who is told is gone: the one that caches is told of that, if it can be.
    cache.ask(&["HELLO", "3"]).await;
    cache.ask(&["CLIENT", "CACHING", "YES"]).await;
    cache.ask(&["GET", "told"]).await;
    assert_eq!(listener.text(&["QUIT"]).await, "OK");
    drop(listener);
    server.until("pubsub_channels", "0").await;
    writer.ask(&["SET", "told", "2"]).await;
    assert_eq!(next(&mut cache).await, format!("tracking-redir-broken {id}"));
    assert!(
        cache
            .text(&["CLIENT", "TRACKINGINFO"])
            .await
            .contains("broken_redirect")
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboards_are_told_what_there_is() {
    let server = Server::with(|config| config.access_key = Some(Secret::new("secret"))).await;
    let mut client = server.client().await;
    assert_eq!(
        client.text(&["AUTH", "wrong"]).await.split(' ').next(),
        Some("WRONGPASS")
    );
    assert_eq!(client.text(&["AUTH", "secret"]).await, "OK");
    client
        .ask(&[
            "ACL", "SETUSER", "ada", "on", "nopass", "+get", "+info", "~a", "&a",
        ])
        .await;
    client.ask(&["EVAL", "return 1", "0"]).await;
    let library = "#!lua name=l\nredis.register_function('f', function() end) redis.register_function('g', function() end)";
    assert_eq!(client.text(&["FUNCTION", "LOAD", library]).await, "l");
    assert_eq!(client.text(&["SAVE"]).await, "OK");
    for argv in [
        &["SET", "k", "1"][..],
        &["APPEND", "k", "2"],
        &["GET", "k"],
        &["DEL", "none"],
    ] {
        client.ask(argv).await;
    }
    let mut listener = server.client().await;
    listener.ask(&["AUTH", "secret"]).await;
    listener.ask(&["SUBSCRIBE", "a", "b"]).await;
    listener.reply().await;
    let mut ada = server.client().await;
    assert_eq!(ada.text(&["AUTH", "ada", ""]).await, "OK");
    ada.ask(&["GET", "b"]).await;
    ada.ask(&["SET", "a", "1"]).await;
    ada.send(b"*2\r\n$4\r\nINFO\r\n$10\r\neverything\r\n*2\r\n$3\r\nGET")
        .await;
    let info = text(&ada.reply().await.unwrap());
    let field = |name: &str| -> u64 {
        let value = info
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value
            .unwrap_or_else(|| panic!("no {name} in {info}"))
            .parse()
            .unwrap()
    };
    for (name, value) in [
        ("number_of_cached_scripts", 1),
        ("used_memory_scripts_eval", 8),
        ("number_of_libraries", 1),
        ("number_of_functions", 2),
        ("used_memory_functions", library.len() as u64),
        ("rdb_changes_since_last_save", 2),
        ("pubsub_clients", 1),
        ("acl_access_denied_auth", 1),
        ("acl_access_denied_key", 1),
        ("acl_access_denied_cmd", 1),
        ("acl_access_denied_channel", 0),
    ] {
        assert_eq!(field(name), value, "{name}");
    }
    assert!(field("mem_clients_normal") > 3 * 16_384);
    assert!(field("client_recent_max_input_buffer") > 0);

    // What waits of a client, and what it has queued.
    client.ask(&["MULTI"]).await;
    client.ask(&["SET", "k", &"x".repeat(1000)]).await;
    let id = client.text(&["CLIENT", "ID"]).await;
    assert_eq!(id, "QUEUED");
    listener.ask(&["RESET"]).await;
    listener.ask(&["AUTH", "secret"]).await;
    let line = listener.text(&["CLIENT", "LIST", "ID", "1"]).await;
    let shown = |name: &str| -> usize {
        let value = line
            .split(' ')
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value
            .unwrap_or_else(|| panic!("no {name} in {line}"))
            .parse()
            .unwrap()
    };
    assert!(shown("multi-mem") > 1000 && shown("tot-mem") > shown("multi-mem") + shown("qbuf-free"));
    assert!(
        shown("qbuf-free") > 0 && shown("rbs") > 0 && shown("rbp") > 0,
        "{line}"
    );

    // Nobody is as old as that; everybody else is a second old some time.
    assert_eq!(listener.text(&["CLIENT", "KILL", "MAXAGE", "1000"]).await, "0");
    for (age, refusal) in [
        ("x", "ERR maxage is not an integer or out of range"),
        ("0", "ERR maxage should be greater than 0"),
    ] {
        assert_eq!(listener.text(&["CLIENT", "KILL", "MAXAGE", age]).await, refusal);
    }
    let (deadline, mut ended) = (Instant::now() + PATIENCE, 0);
    while ended < 2 {
        assert!(Instant::now() < deadline, "{ended} clients are a second old");
        ended += listener
            .text(&["CLIENT", "KILL", "MAXAGE", "1"])
            .await
            .parse::<u32>()
            .unwrap();
    }
    assert_eq!(client.reply().await, None);
    assert_eq!(listener.text(&["PING"]).await, "PONG");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_begin_with_reads_as_fresh_as_the_settings_say() {
    let server = Server::with(|config| config.reads = Reads::Linearizable).await;
    let mut client = server.client().await;
    assert_eq!(client.text(&["SET", "k", "v"]).await, "OK");
    assert_eq!(client.text(&["GET", "k"]).await, "v");
    // A node that takes part no more can say what it knows, but not what is.
    timeout(PATIENCE, server.node.stop()).await.unwrap().unwrap();
    let stopped = async |client: &mut Client| {
        let answer = client.text(&["GET", "k"]).await;
        assert!(answer.starts_with("LOADING "), "{answer}");
    };
    stopped(&mut client).await;
    assert_eq!(client.text(&["PLENARY", "FRESH", "local"]).await, "OK");
    assert_eq!(client.text(&["GET", "k"]).await, "v");
    assert_eq!(client.text(&["RESET"]).await, "RESET");
    stopped(&mut client).await;
    server.resp.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_reply_stands_in_front_of_one() {
    let server = Server::with(|config| config.debug_command = DebugCommand::Yes).await;
    let attribute = "|1\r\n$14\r\nkey-popularity\r\n*2\r\n$7\r\nkey:123\r\n:90\r\n";
    let push = ">2\r\n$16\r\nserver-cpu-usage\r\n:42\r\n";
    let behind = |what: &str| format!("${}\r\nSome real reply following the {what}\r\n", 30 + what.len());
    for (hello, answer) in [
        (
            "HELLO 2",
            format!(
                "{}-ERR RESP2 is not supported by this command\r\n",
                behind("attribute")
            ),
        ),
        (
            "HELLO 3",
            format!("{attribute}{}{push}{}", behind("attribute"), behind("push reply")),
        ),
    ] {
        let mut client = server.client().await;
        client.ask(&hello.split(' ').collect::<Vec<_>>()).await;
        client
            .send(b"DEBUG PROTOCOL attrib\r\nDEBUG PROTOCOL push\r\nMULTI\r\nDEBUG PROTOCOL attrib\r\nEXEC\r\nQUIT\r\n")
            .await;
        let first = answer
            .split_at(answer.find("following the attribute").unwrap() + 25)
            .0;
        let expected = format!("{answer}+OK\r\n+QUEUED\r\n*1\r\n{first}+OK\r\n");
        assert_eq!(String::from_utf8_lossy(&client.rest().await), expected);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_do_not_end_by_themselves_end_when_they_are_found() {
    let server = Server::with(|config| config.debug_command = DebugCommand::Yes).await;
    let (mut client, mut cache) = (server.client().await, server.client().await);
    assert_eq!(client.text(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]).await, "OK");
    cache.ask(&["HELLO", "3"]).await;
    cache.ask(&["CLIENT", "TRACKING", "ON"]).await;
    for key in ["read", "written", "left"] {
        client.ask(&["SET", key, "1", "PX", "1"]).await;
    }
    client.until_nothing(&["GET", "read"]).await;
    // To look at it is not to find it.
    let looked = client.text(&["DEBUG", "OBJECT", "left"]).await;
    assert!(looked.contains("encoding:int"), "{looked}");
    // Found by a read, which is answered as ever; who caches is told behind the answer.
    client.ask(&["SET", "found", "1", "PX", "1"]).await;
    cache.until_nothing(&["GET", "found"]).await;
    assert_eq!(next(&mut cache).await, "invalidate found");
    assert_eq!(
        client
            .text(&["INFO", "KEYSPACE"])
            .await
            .matches("keys=2,expires=2")
            .count(),
        1
    );
    // Found by a write; commands that wait go on to end by themselves, and take no key with them.
    assert_eq!(client.text(&["EXPIRE", "written", "100"]).await, "0");
    assert_eq!(client.text(&["SET", "written", "2"]).await, "OK");
    assert_eq!(client.text(&["BLPOP", "list", "0.001"]).await, "(nil)");
    assert_eq!(client.text(&["DBSIZE"]).await, "2");
    assert_eq!(client.text(&["DEBUG", "SET-ACTIVE-EXPIRE", "1"]).await, "OK");
    server.until("expired_keys", "4").await;
    assert_eq!(client.text(&["KEYS", "*"]).await, "written");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_it_is_told_of_keys_that_were_missed() {
    let server = Server::start().await;
    let (mut listener, mut reader) = (server.client().await, server.client().await);
    listener.ask(&["PSUBSCRIBE", "__key*"]).await;
    // Not among all that is told.
    reader
        .ask(&["CONFIG", "SET", "notify-keyspace-events", "KEA"])
        .await;
    reader.ask(&["GET", "untold"]).await;
    reader
        .ask(&["CONFIG", "SET", "notify-keyspace-events", "KEm"])
        .await;
    reader.ask(&["SET", "there", "1"]).await;
    for argv in [
        &["GET", "there"][..],
        &["OBJECT", "ENCODING", "asked about"],
        &["MGET", "one", "there", "two"],
        &["TTL", "one"],
    ] {
        reader.ask(argv).await;
    }
    for key in ["one", "two", "one"] {
        assert_eq!(
            next(&mut listener).await,
            format!("pmessage __key* __keyspace@0__:{key} keymiss")
        );
        assert_eq!(
            next(&mut listener).await,
            format!("pmessage __key* __keyevent@0__:keymiss {key}")
        );
    }
    // One's own message comes before the answer.
    reader.ask(&["HELLO", "3"]).await;
    reader.ask(&["SUBSCRIBE", "__keyevent@0__:keymiss"]).await;
    assert_eq!(
        reader.text(&["GET", "one"]).await,
        "message __keyevent@0__:keymiss one"
    );
    assert_eq!(next(&mut reader).await, "(nil)");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn monitors_see_what_others_run_and_no_secrets() {
    let server = Server::start().await;
    let (mut monitor, mut one) = (server.client().await, server.client().await);
    assert_eq!(monitor.text(&["MONITOR"]).await, "OK");
    one.ask(&["SELECT", "3"]).await;
    one.ask(&["SET", "k", "a \"b\"\n"]).await;
    one.ask(&["CONFIG", "GET", "port"]).await;
    one.ask(&["HELLO", "2", "AUTH", "default", "secret", "SETNAME", "me"])
        .await;
    one.ask(&["AUTH", "secret"]).await;
    one.ask(&[
        "MIGRATE",
        "127.0.0.1",
        "1",
        "none",
        "0",
        "1",
        "AUTH2",
        "user",
        "secret",
    ])
    .await;
    for argv in [&["MULTI"][..], &["GET", "k"], &["PING"], &["EXEC"]] {
        one.ask(argv).await;
    }
    let peer = one.stream.local_addr().unwrap();
    for (db, shown) in [
        (3, r#""SELECT" "3""#),
        (3, r#""SET" "k" "a \"b\"\n""#),
        (
            3,
            r#""HELLO" "2" "AUTH" "(redacted)" "(redacted)" "SETNAME" "me""#,
        ),
        (3, r#""AUTH" "(redacted)""#),
        (
            3,
            r#""MIGRATE" "127.0.0.1" "1" "none" "0" "1" "AUTH2" "(redacted)" "(redacted)""#,
        ),
        (3, r#""MULTI""#),
        (3, r#""GET" "k""#),
        (3, r#""PING""#),
        (3, r#""EXEC""#),
    ] {
        let line = next(&mut monitor).await;
        let end = format!(" [{db} {peer}] {shown}");
        assert!(line.ends_with(&end), "{line} is not {end}");
    }
    // It looks on, until it says so.
    assert_eq!(
        monitor.text(&["GET", "k"]).await,
        "ERR Replica can't interact with the keyspace"
    );
    assert_eq!(monitor.text(&["RESET"]).await, "RESET");
    one.ask(&["GET", "k"]).await;
    assert_eq!(monitor.text(&["PING"]).await, "PONG");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_waits_holds_back_the_next_ones_and_nobody_else() {
    let server = Server::start().await;
    let (mut waiter, mut other) = (server.client().await, server.client().await);
    let id = waiter.text(&["CLIENT", "ID"]).await;
    // What stands before it is answered; what comes after it is run when it was answered.
    waiter.send(&request(["SET", "k", "1"])).await;
    waiter.send(&request(["BLPOP", "list", "0"])).await;
    waiter.send(&request(["INCR", "k"])).await;
    assert_eq!(next(&mut waiter).await, "OK");
    server.until("blocked_clients", "1").await;
    assert_eq!(other.text(&["GET", "k"]).await, "1");
    let line = other.text(&["CLIENT", "LIST", "ID", &id]).await;
    assert!(line.contains("flags=b ") && line.contains("cmd=blpop "), "{line}");
    assert_eq!(other.text(&["RPUSH", "list", "a"]).await, "1");
    assert_eq!(next(&mut waiter).await, "list a");
    assert_eq!(next(&mut waiter).await, "2");
    server.until("blocked_clients", "0").await;

    // Two that wait in one pipeline take what comes one after the other.
    waiter.send(&request(["BLPOP", "list", "0"])).await;
    waiter.send(&request(["BRPOP", "list", "0"])).await;
    server.until("blocked_clients", "1").await;
    assert_eq!(other.text(&["RPUSH", "list", "a", "b", "c"]).await, "3");
    assert_eq!(next(&mut waiter).await, "list a");
    assert_eq!(next(&mut waiter).await, "list c");
    assert_eq!(other.text(&["LRANGE", "list", "0", "-1"]).await, "b");
    other.ask(&["DEL", "list"]).await;

    // A read that waits does so in the log as well.
    waiter
        .send(&request(["XREAD", "BLOCK", "0", "STREAMS", "stream", "$"]))
        .await;
    server.until("blocked_clients", "1").await;
    assert_eq!(other.text(&["XADD", "stream", "7-1", "f", "v"]).await, "7-1");
    let read = next(&mut waiter).await;
    assert!(read.contains("7-1"), "{read}");

    // Its time is over.
    assert_eq!(waiter.text(&["BLPOP", "list", "0.05"]).await, "(nil)");
    assert_eq!(
        waiter
            .text(&["XREAD", "BLOCK", "50", "STREAMS", "stream", "$"])
            .await,
        "(nil)"
    );
    // In a transaction nobody waits.
    for argv in [
        &["MULTI"][..],
        &["XREAD", "BLOCK", "0", "STREAMS", "stream", "$"],
        &["PING"],
    ] {
        waiter.ask(argv).await;
    }
    assert_eq!(waiter.text(&["EXEC"]).await, "(nil) PONG");
    for argv in [&["MULTI"][..], &["BLPOP", "list", "0"], &["PING"]] {
        waiter.ask(argv).await;
    }
    assert_eq!(waiter.text(&["EXEC"]).await, "(nil) PONG");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_when_somebody_says_so_and_when_its_client_goes() {
    let server = Server::start().await;
    let (mut waiter, mut other) = (server.client().await, server.client().await);
    let id = waiter.text(&["CLIENT", "ID"]).await;
    for (how, answer) in [
        (&[][..], "(nil)"),
        (&["TIMEOUT"], "(nil)"),
        (&["ERROR"], "UNBLOCKED client unblocked via CLIENT UNBLOCK"),
    ] {
        waiter.send(&request(["BLPOP", "list", "0"])).await;
        server.until("blocked_clients", "1").await;
        let argv = [&["CLIENT", "UNBLOCK", &id][..], how].concat();
        assert_eq!(other.text(&argv).await, "1");
        assert_eq!(next(&mut waiter).await, answer);
        server.until("blocked_clients", "0").await;
        assert_eq!(other.text(&argv).await, "0");
    }
    // Gone without a word: what comes is for the next one.
    waiter.send(&request(["BLPOP", "list", "0"])).await;
    server.until("blocked_clients", "1").await;
    drop(waiter);
    server.until("blocked_clients", "0").await;
    let deadline = Instant::now() + PATIENCE;
    while server.node.view(0, |view| view.store().waiting().len()) > 0 {
        assert!(Instant::now() < deadline, "it still waits in the log");
        tokio::task::yield_now().await;
    }
    assert_eq!(other.text(&["RPUSH", "list", "a"]).await, "1");
    assert_eq!(other.text(&["BLPOP", "list", "0"]).await, "list a");
    // Ended from outside while it waits.
    let mut waiter = server.client().await;
    let id = waiter.text(&["CLIENT", "ID"]).await;
    waiter.send(&request(["BLPOP", "list", "0"])).await;
    server.until("blocked_clients", "1").await;
    assert_eq!(other.text(&["CLIENT", "KILL", "ID", &id]).await, "1");
    assert_eq!(waiter.reply().await, None);
    server.until("blocked_clients", "0").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_touch_leaves_keys_as_idle_as_they_were() {
    let server = Server::with(|config| config.debug_command = DebugCommand::Yes).await;
    let mut client = server.client().await;
    let restored = br#"RESTORE k 0 "\x00\xc0\x0c\x0a\x00<*\xf8Q\\\x04\xbc\xd5" REPLACE IDLETIME 1000"#;
    client.send(&[&restored[..], b"\r\n"].concat()).await;
    assert_eq!(next(&mut client).await, "OK");
    let idle = ["OBJECT", "IDLETIME", "k"];
    let object = client.text(&["DEBUG", "OBJECT", "k"]).await;
    assert!(object.contains(" lru_seconds_idle:10"), "{object}");
    client.text(&["CLIENT", "NO-TOUCH", "ON"]).await;
    assert_eq!(client.text(&["GET", "k"]).await, "12");
    for command in [&["MULTI"][..], &["STRLEN", "k"]] {
        client.text(command).await;
    }
    assert_eq!(client.text(&["EXEC"]).await, "2");
    assert!(client.text(&idle).await.parse::<u64>().unwrap() >= 1000);
    client.text(&["RESET"]).await;
    assert_eq!(client.text(&["GET", "k"]).await, "12");
    assert!(client.text(&idle).await.parse::<u64>().unwrap() < 1000);
    server.stop().await;
}

/// As at a Redis, where the next command would evict before it runs.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_answered_a_write_finds_memory_below_its_limit() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let used: u64 = server.field("used_memory").await.parse().unwrap();
    assert_eq!(server.field("used_memory_startup").await, used.to_string());
    let limit = (used + 100_000).to_string();
    let settings = [
        ("maxmemory", limit.as_str()),
        ("maxmemory-policy", "allkeys-lru"),
        ("maxmemory-eviction-tenacity", "100"),
    ];
    for (name, value) in settings {
        assert_eq!(client.text(&["CONFIG", "SET", name, value]).await, "OK");
    }
    let value = "x".repeat(30_000);
    for key in ["a", "b", "c", "d", "e", "f"] {
        assert_eq!(client.text(&["SET", key, &value]).await, "OK");
        let used: u64 = server.field("used_memory").await.parse().unwrap();
        assert!(used <= limit.parse::<u64>().unwrap(), "{key}: {used} of {limit}");
    }
    assert_eq!(client.text(&["DBSIZE"]).await, "3");
    assert_eq!(server.field("evicted_keys").await, "3");
    assert_eq!(server.field("maxmemory").await, limit);
    assert_eq!(server.field("maxmemory_policy").await, "allkeys-lru");
    client.text(&["CONFIG", "RESETSTAT"]).await;
    assert_eq!(server.field("evicted_keys").await, "0");
    server.stop().await;
}

/// What Redis does for `UNLINK` is done whatever takes them away: nobody waits until a large value is freed.
#[tokio::test(flavor = "multi_thread")]
async fn large_values_are_freed_beside_the_log_and_counted() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let elements: Vec<String> = (0..65).map(|element| element.to_string()).collect();
    let push = |key, count| {
        let elements = elements.iter().take(count).map(String::as_str);
        ["SADD", key].into_iter().chain(elements).collect::<Vec<_>>()
    };
    client.ask(&push("small", 64)).await;
    client.ask(&push("large", 65)).await;
    assert_eq!(client.text(&["UNLINK", "small"]).await, "1");
    assert_eq!(client.text(&["SET", "large", "1"]).await, "OK");
    server.until("lazyfreed_objects", "1").await;
    for key in &elements {
        client.ask(&["SET", key, "1"]).await;
    }
    assert_eq!(client.text(&["FLUSHALL"]).await, "OK");
    // With "large".
    server.until("lazyfreed_objects", "67").await;
    server.until("lazyfree_pending_objects", "0").await;
    client.ask(&["CONFIG", "RESETSTAT"]).await;
    assert_eq!(server.field("lazyfreed_objects").await, "0");
    server.stop().await;
}

/// Else `maxmemory` would mean nothing to who keeps many short elements. At a Redis 100,000 of them take five megabytes.
#[tokio::test(flavor = "multi_thread")]
async fn short_elements_count_what_holds_them() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let before: u64 = server.field("used_memory").await.parse().unwrap();
    let members: Vec<String> = (0..10_000).map(|member| member.to_string()).collect();
    let argv: Vec<&str> = ["SADD", "set"]
        .into_iter()
        .chain(members.iter().map(String::as_str))
        .collect();
    assert_eq!(client.text(&argv).await, "10000");
    let used: u64 = server.field("used_memory").await.parse().unwrap();
    assert!(used > before + 1_000_000, "{used} after {before}");
    server.stop().await;
}

/// The log cannot be turned off, and who does not need it is not refused.
#[tokio::test(flavor = "multi_thread")]
async fn appendonly_may_be_set_and_stays() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for value in ["no", "yes", "NO"] {
        let set = ["CONFIG", "SET", "appendonly", value];
        assert_eq!(client.text(&set).await, "OK");
        assert_eq!(
            client.text(&["CONFIG", "GET", "appendonly"]).await,
            "appendonly yes"
        );
    }
    let set = ["CONFIG", "SET", "appendonly", "maybe"];
    assert_eq!(
        client.text(&set).await,
        "ERR CONFIG SET failed (possibly related to argument 'appendonly') - argument must be 'yes' or 'no'"
    );
    server.stop().await;
}

/// What three nodes do is in `failures.rs`.
#[tokio::test(flavor = "multi_thread")]
async fn writes_that_want_more_members_than_there_are_are_refused_and_reads_are_not() {
    const ALONE: &str = "NOREPLICAS Not enough good replicas to write.";
    let server = Server::start().await;
    let (mut client, mut other) = (server.client().await, server.client().await);
    client.ask(&["SET", "k", "1"]).await;
    client.ask(&["MULTI"]).await;
    client.ask(&["INCR", "k"]).await;
    assert_eq!(
        other.text(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await,
        "OK"
    );
    assert_eq!(
        client.text(&["EXEC"]).await,
        format!("EXECABORT Transaction discarded because of: {ALONE}")
    );
    assert_eq!(client.text(&["SET", "k", "2"]).await, ALONE);
    assert_eq!(client.text(&["GET", "k"]).await, "1");
    client.ask(&["MULTI"]).await;
    client.ask(&["GET", "k"]).await;
    assert_eq!(client.text(&["EXEC"]).await, "1");
    let reads = "return redis.call('get', 'k')";
    assert_eq!(client.text(&["EVAL", reads, "1", "k"]).await, "1");
    let says_so = format!("#!lua flags=no-writes\n{reads}");
    assert_eq!(client.text(&["EVAL", &says_so, "1", "k"]).await, "1");
    let may_write = format!("#!lua\n{reads}");
    assert_eq!(client.text(&["EVAL", &may_write, "1", "k"]).await, ALONE);
    let writes = client.text(&["EVAL", "return redis.call('set', 'k', '2')", "1", "k"]);
    let writes = writes.await;
    assert!(writes.starts_with(ALONE), "{writes}");
    assert_eq!(server.field("min_slaves_good_slaves").await, "0");
    other.ask(&["CONFIG", "SET", "min-replicas-max-lag", "0"]).await;
    assert_eq!(client.text(&["SET", "k", "2"]).await, "OK", "as in Redis");
    server.stop().await;
}

/// Whatever a script runs for: it ends when it is killed.
const ENDLESS: &str = "local n = 0 while true do n = n + 1 end";

const BUSY: &str = "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
const BUSY_FUNCTION: &str =
    "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.";

/// Asks until the answer begins so.
async fn until(client: &mut Client, argv: &[&str], begins: &str) {
    let began = std::time::Instant::now();
    loop {
        let answer = client.text(argv).await;
        if answer.starts_with(begins) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{argv:?}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_would_wait_behind_a_long_script_is_told_so_and_the_others_go_on() {
    let server = Server::start().await;
    let (mut looper, mut one, mut queued) = (
        server.client().await,
        server.client().await,
        server.client().await,
    );
    one.ask(&["CONFIG", "SET", "busy-reply-threshold", "10"]).await;
    assert_eq!(
        one.text(&["SCRIPT", "KILL"]).await,
        "NOTBUSY No scripts in execution right now."
    );
    looper
        .send(&request([
            "EVAL",
            &format!("redis.call('SET', KEYS[1], 'never') {ENDLESS}"),
            "1",
            "k",
        ]))
        .await;
    until(&mut one, &["EVAL", "return 1", "0"], BUSY).await;
    assert_eq!(one.text(&["SET", "k", "plain"]).await, "OK");
    assert_eq!(one.text(&["GET", "k"]).await, "plain");
    let sha = one.text(&["SCRIPT", "LOAD", "return 'loaded'"]).await;
    assert_eq!(one.text(&["EVALSHA", &sha, "0"]).await, BUSY);
    for (argv, answer) in [
        (&["MULTI"][..], "OK"),
        (&["SET", "k", "half"], "QUEUED"),
        (&["EVAL", "return 1", "0"], "QUEUED"),
    ] {
        assert_eq!(queued.text(argv).await, answer);
    }
    assert_eq!(
        queued.text(&["EXEC"]).await,
        format!("EXECABORT Transaction discarded because of: {BUSY}")
    );
    assert_eq!(one.text(&["FUNCTION", "KILL"]).await, BUSY);
    assert_eq!(one.text(&["FUNCTION", "STATS"]).await, BUSY);
    assert_eq!(one.text(&["SCRIPT", "KILL"]).await, "OK");
    let ended = text(&looper.reply().await.unwrap());
    assert!(
        ended.starts_with("ERR Script killed by user with SCRIPT KILL..."),
        "{ended}"
    );
    // Nothing of what it wrote is there, and the next one runs.
    assert_eq!(
        one.text(&["EVAL", "return redis.call('GET', KEYS[1])", "1", "k"])
            .await,
        "plain"
    );
    assert_eq!(one.text(&["EVALSHA", &sha, "0"]).await, "loaded");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_waits_for_a_long_script_where_that_is_asked_for() {
    let server = Server::start().await;
    let (mut looper, mut one, mut queued) = (
        server.client().await,
        server.client().await,
        server.client().await,
    );
    one.ask(&[
        "CONFIG",
        "SET",
        "busy-reply-threshold",
        "10",
        "busy-reply-scope",
        "all",
    ])
    .await;
    let library = format!("#!lua name=lib\nredis.register_function('loop', function() {ENDLESS} end)");
    assert_eq!(one.text(&["FUNCTION", "LOAD", &library]).await, "lib");
    queued.ask(&["MULTI"]).await;
    queued.ask(&["SET", "k", "half"]).await;
    looper.send(&request(["FCALL", "loop", "1", "key", "arg"])).await;
    until(&mut one, &["PING"], BUSY_FUNCTION).await;
    // What is allowed then is what Redis allows.
    assert_eq!(one.text(&["MULTI"]).await, "OK");
    assert_eq!(one.text(&["SET", "k", "half"]).await, BUSY_FUNCTION);
    assert_eq!(
        one.text(&["EXEC"]).await,
        format!("EXECABORT Transaction discarded because of: {}", &BUSY_FUNCTION)
    );
    assert_eq!(
        queued.text(&["EXEC"]).await,
        format!("EXECABORT Transaction discarded because of: {BUSY_FUNCTION}")
    );
    let stats = one.text(&["FUNCTION", "STATS"]).await;
    assert!(
        stats.starts_with("running_script name loop command fcall loop 1 key arg duration_ms "),
        "{stats}"
    );
    assert_eq!(one.text(&["SCRIPT", "KILL"]).await, BUSY_FUNCTION);
    assert_eq!(one.text(&["FUNCTION", "KILL"]).await, "OK");
    assert!(text(&looper.reply().await.unwrap()).starts_with("ERR Script killed by user"));
    assert_eq!(one.text(&["GET", "k"]).await, "(nil)");
    assert_eq!(
        one.text(&["CONFIG", "GET", "busy-reply-scope"]).await,
        "busy-reply-scope all"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_goes_on_behind_a_killed_script_unless_that_has_written() {
    let server = Server::start().await;
    let (mut looper, mut one) = (server.client().await, server.client().await);
    one.ask(&["CONFIG", "SET", "busy-reply-threshold", "10"]).await;
    let writes = format!("redis.call('SET', KEYS[1], 'never') {ENDLESS}");
    for (script, k) in [(ENDLESS, "after"), (&writes[..], "before")] {
        one.ask(&["SET", "k", "before"]).await;
        looper.ask(&["MULTI"]).await;
        looper.ask(&["EVAL", script, "1", "k"]).await;
        looper.ask(&["SET", "k", "after"]).await;
        looper.ask(&["EVAL", "return 'ran'", "0"]).await;
        looper.send(&request(["EXEC"])).await;
        until(&mut one, &["EVAL", "return 1", "0"], BUSY).await;
        until(&mut one, &["SCRIPT", "KILL"], "OK").await;
        let answer = looper.reply().await.unwrap();
        match (k, &answer) {
            ("after", Reply::Array(answers)) => {
                assert!(
                    text(&answers[0]).starts_with("ERR Script killed by user"),
                    "{answer:?}"
                );
                assert_eq!(
                    (text(&answers[1]), text(&answers[2])),
                    ("OK".to_owned(), "ran".to_owned())
                );
            }
            ("before", Reply::Error(error)) => {
                let begins = "EXECABORT Transaction discarded because of: Script killed by user";
                assert!(error.to_string().starts_with(begins), "{error}");
            }
            _ => panic!("{k}: {answer:?}"),
        }
        assert_eq!(one.text(&["GET", "k"]).await, k);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_each_of_many_scripts_calls_is_counted() {
    const SCRIPTS: usize = 300;
    let server = Server::start().await;
    let mut client = server.client().await;
    client.ask(&["CONFIG", "RESETSTAT"]).await;
    for _ in 0..SCRIPTS {
        let script = "return redis.call('INCR', KEYS[1])";
        client.ask(&["EVAL", script, "1", "k"]).await;
    }
    let counted = server.field("cmdstat_incr").await;
    assert!(counted.starts_with(&format!("calls={SCRIPTS},")), "{counted}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_scripts_call_is_shown_counted_and_logged() {
    let server = Server::start().await;
    let (mut monitor, mut one) = (server.client().await, server.client().await);
    one.ask(&[
        "ACL", "SETUSER", "reader", "on", "nopass", "~open*", "+@all", "-incr",
    ])
    .await;
    one.ask(&["CONFIG", "RESETSTAT"]).await;
    assert_eq!(monitor.text(&["MONITOR"]).await, "OK");
    let script = "redis.call('SET', KEYS[1], ARGV[1]) redis.pcall('LPUSH', KEYS[1], 'x') return redis.call('GET', KEYS[1])";
    assert_eq!(one.text(&["EVAL", script, "1", "k", "v"]).await, "v");
    for argv in [
        &["MULTI"][..],
        &["EVAL", "return redis.call('GET', 'k')", "0"],
        &["PING"],
        &["EXEC"],
    ] {
        one.ask(argv).await;
    }
    let peer = one.stream.local_addr().unwrap().to_string();
    for (from, shown) in [
        (&peer[..], r#""EVAL" "redis.call("#),
        ("lua", r#""SET" "k" "v""#),
        ("lua", r#""LPUSH" "k" "x""#),
        ("lua", r#""GET" "k""#),
        (&peer, r#""MULTI""#),
        (&peer, r#""EVAL" "return"#),
        ("lua", r#""GET" "k""#),
        (&peer, r#""PING""#),
        (&peer, r#""EXEC""#),
    ] {
        let line = next(&mut monitor).await;
        assert!(
            line.contains(&format!(" [0 {from}] {shown}")),
            "{line} is not {shown}"
        );
    }
    drop(monitor);
    // An error that a command answered is counted once, also where the script answers it.
    let wrong = one
        .text(&["EVAL", "return redis.call('LPUSH', KEYS[1], 'x')", "1", "k"])
        .await;
    assert!(wrong.starts_with("WRONGTYPE"), "{wrong}");
    one.text(&["EVAL", "return redis.error_reply('MINE own')", "0"])
        .await;
    one.text(&["EVAL", "return redis.pcall('nosuch')", "0"]).await;
    let (calls, errors) = (
        one.text(&["INFO", "commandstats"]).await,
        one.text(&["INFO", "errorstats"]).await,
    );
    let has = |name: &str, ends: &str| {
        let line = calls
            .lines()
            .find(|line| line.starts_with(&format!("cmdstat_{name}:")));
        let line = line.unwrap_or_else(|| panic!("{name} in {calls}"));
        assert!(
            line.contains(ends.split(' ').next().unwrap_or_default()),
            "{line}"
        );
        assert!(
            line.ends_with(ends.split(' ').next_back().unwrap_or_default()),
            "{line}"
        );
    };
    has("set", "calls=1, rejected_calls=0,failed_calls=0");
    has("lpush", "calls=2, rejected_calls=0,failed_calls=2");
    has("get", "calls=2, rejected_calls=0,failed_calls=0");
    has("eval", "calls=5, rejected_calls=0,failed_calls=3");
    for count in [
        "errorstat_WRONGTYPE:count=2",
        "errorstat_MINE:count=1",
        "errorstat_ERR:count=1",
    ] {
        assert!(errors.contains(count), "{count} in {errors}");
    }
    // Who may not do something is logged with what asked for it.
    let mut reader = server.client().await;
    assert_eq!(reader.text(&["AUTH", "reader", ""]).await, "OK");
    reader
        .text(&[
            "EVAL",
            "redis.pcall('INCR', 'open') redis.pcall('GET', 'closed')",
            "0",
        ])
        .await;
    let log = one.text(&["ACL", "LOG"]).await;
    for entry in [
        "reason key context lua object closed username reader",
        "reason command context lua object incr username reader",
        "cmd=eval user=reader",
    ] {
        assert!(log.contains(entry), "{entry} in {log}");
    }
    server.stop().await;
}

/// What the slow log keeps where everything is slow: each command with who sent it (`lua`: a script) and under which name.
async fn slow_commands(client: &mut Client) -> Vec<String> {
    const SCRIPT: &str = "redis.call('SET', KEYS[1], ARGV[1]) redis.pcall('LPUSH', KEYS[1], 'x') redis.pcall('nosuch') \
        redis.pcall('GET') redis.pcall('DEL', unpack(ARGV)) return redis.call('GET', KEYS[1])";
    let large = "x".repeat(200);
    let mut long = vec!["EVAL", SCRIPT, "1", "k", &large];
    long.resize(45, "y");
    for argv in [
        &["CLIENT", "SETNAME", "me"][..],
        &["CONFIG", "SET", "slowlog-max-len", "128"],
        &["CONFIG", "SET", "slowlog-log-slower-than", "0"],
        &["SLOWLOG", "RESET"],
        &long,
        &["MULTI"],
        &["EVAL", "return redis.call('SET', KEYS[1], 'v')", "1", "k"],
        &["APPEND", "k", "w"],
        &[
            "EVAL",
            "return {redis.call('GET', 'k'), redis.call('TTL', 'k')}",
            "0",
        ],
        &["EXEC"],
        &["EVAL_RO", "return redis.call('STRLEN', KEYS[1])", "1", "k"],
        // Nothing is slow from here on.
        &["CONFIG", "SET", "slowlog-log-slower-than", "-1"],
        &["EVAL", "return redis.call('GET', 'k')", "0"],
    ] {
        client.ask(argv).await;
    }
    let Reply::Array(entries) = client.ask(&["SLOWLOG", "GET", "-1"]).await else {
        panic!("a list")
    };
    let entries = entries.iter().rev().map(|entry| {
        let Reply::Array(fields) = entry else {
            panic!("{entry:?}")
        };
        let from = if text(&fields[4]) == "?:0" {
            "lua"
        } else {
            "client"
        };
        format!(
            "{from} [{}] {}",
            text(&fields[5]),
            text(&fields[3]).to_lowercase()
        )
    });
    entries.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_scripts_call_is_in_the_slow_log_before_them() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let slow = slow_commands(&mut client).await;
    let names = slow.iter().map(|entry| {
        let mut words = entry.split(' ');
        (words.next().unwrap(), words.nth(1).unwrap())
    });
    assert_eq!(
        names.collect::<Vec<_>>(),
        [
            ("client", "slowlog"),
            ("lua", "set"),
            ("lua", "lpush"),
            ("lua", "del"),
            ("lua", "get"),
            ("client", "eval"),
            ("client", "multi"),
            ("lua", "set"),
            ("client", "eval"),
            ("client", "append"),
            ("lua", "get"),
            ("lua", "ttl"),
            ("client", "eval"),
            ("lua", "strlen"),
            ("client", "eval_ro"),
        ]
    );
    if let Some(redis) = Redis::start(&[]).await {
        let mut there = Client::connect(redis.address).await;
        assert_eq!(slow_commands(&mut there).await, slow);
    }
    // The monitor of latency hears of them as well: nothing else here counts as fast.
    let append = "redis.call('APPEND', KEYS[1], string.rep('x', 25000000))";
    for argv in [
        &["CONFIG", "SET", "latency-monitor-threshold", "1"][..],
        &["LATENCY", "RESET"],
        &["EVAL", append, "1", "large"],
    ] {
        client.ask(argv).await;
    }
    let latest = client.text(&["LATENCY", "LATEST"]).await;
    assert!(latest.contains("fast-command"), "{latest}");
    server.stop().await;
}
