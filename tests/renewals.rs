//! Renewals that need no write (`expire-slack-percent`), as clients of three nodes see them: how few entries they cost, what is answered and shown
//! meanwhile, and that everything else is written as before. That no key ends early, and none later than its slack, is shown with simulated time beside
//! `node/renew.rs`.
#![cfg(feature = "resp")]
// Tests are not documented for others, and may panic.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::endpoint::{Client, Server, endpoint, text};
use common::{eventually, run, stop, three};
use plenary::cache::{Cache, Ttl};
use plenary::config::Reads;
use plenary::edge::resp::Resp;
use plenary::edge::resp::decode::request;
use plenary::node::Node;
use std::time::Duration;

/// 20 minutes, in seconds: half of its slack is 30 s, longer than any of these tests.
const LIFE: &str = "1200";

/// Three nodes, an endpoint and a client of each, in which sessions may end late by so much.
struct Cluster {
    nodes: Vec<Node>,
    endpoints: Vec<Resp>,
    clients: Vec<Client>,
    _folder: tempfile::TempDir,
}

impl Cluster {
    async fn start(percent: &str, reads: Reads) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let nodes = three(folder.path()).await;
        let (mut endpoints, mut clients) = (Vec::new(), Vec::new());
        for node in &nodes {
            let resp = endpoint(node, |config| config.reads = reads).await;
            clients.push(Client::connect(resp.address()).await);
            endpoints.push(resp);
        }
        let set = [
            "CONFIG",
            "SET",
            "expire-slack-percent",
            percent,
            "expire-slack-keys",
            "sess:*",
        ];
        assert_eq!(clients[0].text(&set).await, "OK");
        Self {
            nodes,
            endpoints,
            clients,
            _folder: folder,
        }
    }

    /// Waits until every node has applied what one of them has.
    async fn settle(&self) {
        let most = self.nodes.iter().map(|node| node.token()).max().unwrap();
        eventually("all nodes have applied it", async || {
            self.nodes.iter().all(|node| node.token() >= most)
        })
        .await;
    }

    /// Entries of the log so far.
    fn entries(&self) -> u64 {
        self.nodes.iter().map(|node| node.token().0).max().unwrap()
    }

    async fn stop(self) {
        for endpoint in self.endpoints {
            endpoint.stop().await;
        }
        stop(&self.nodes).await;
    }
}

/// What connect-redis does for each page: `GET`, then `EXPIRE` for a session that was not changed. Entries for so many rounds
/// of 60 pages.
async fn entries_of_pages(
    cluster: &mut Cluster,
    rounds: usize,
    renew: impl Fn(&str) -> Vec<String>,
    answer: &str,
) -> u64 {
    let keys: Vec<String> = (0..20).map(|session| format!("sess:{session}")).collect();
    for key in &keys {
        let set = ["SET", key, r#"{"cart":[7]}"#, "EX", LIFE];
        assert_eq!(cluster.clients[0].text(&set).await, "OK");
    }
    cluster.settle().await;
    let before = cluster.entries();
    for _ in 0..rounds {
        for client in &mut cluster.clients {
            for key in &keys {
                assert_eq!(client.text(&["GET", key]).await, r#"{"cart":[7]}"#);
                let renew = renew(key);
                let renew: Vec<&str> = renew.iter().map(String::as_str).collect();
                assert_eq!(client.text(&renew).await, answer);
                assert_eq!(client.text(&["TTL", key]).await, LIFE);
            }
        }
    }
    cluster.entries() - before
}

fn expire(key: &str) -> Vec<String> {
    ["EXPIRE", key, LIFE].map(str::to_owned).to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pages_that_only_renew_cost_next_to_no_entries() {
    let mut cluster = Cluster::start("5", Reads::Local).await;
    let entries = entries_of_pages(&mut cluster, 20, expire, "1").await;
    assert!(entries <= 12, "{entries} entries for 1200 pages");
    let getex = |key: &str| ["GETEX", key, "EX", LIFE].map(str::to_owned).to_vec();
    let entries = entries_of_pages(&mut cluster, 20, getex, r#"{"cart":[7]}"#).await;
    assert!(entries <= 12, "{entries} entries for 1200 pages");
    // Django says it with a pipeline; ASP.NET Core in milliseconds where a part of a second is left.
    let pexpire = |key: &str| ["PEXPIRE", key, "1200000", "XX"].map(str::to_owned).to_vec();
    let entries = entries_of_pages(&mut cluster, 20, pexpire, "1").await;
    assert!(entries <= 12, "{entries} entries for 1200 pages");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_the_setting_and_for_other_keys_each_is_written() {
    let mut cluster = Cluster::start("0", Reads::Local).await;
    let entries = entries_of_pages(&mut cluster, 5, expire, "1").await;
    assert!(entries >= 300, "{entries} entries for 300 pages");
    let set = ["CONFIG", "SET", "expire-slack-percent", "5"];
    assert_eq!(cluster.clients[0].text(&set).await, "OK");
    assert_eq!(
        cluster.clients[0].text(&["SET", "other", "v", "EX", LIFE]).await,
        "OK"
    );
    let before = cluster.entries();
    for _ in 0..20 {
        assert_eq!(cluster.clients[0].text(&["EXPIRE", "other", LIFE]).await, "1");
    }
    assert!(cluster.entries() >= before + 20);
    cluster.stop().await;
}

/// What the provider for ASP.NET runs for a page that only reads its session (`TryCheckWriteLockAndGetData`).
const GET_SESSION: &str = "
    local retArray = {}
    local lockValue = redis.call('GET', KEYS[1])
    retArray[1] = lockValue or ''
    retArray[2] = redis.call('GET', KEYS[2])
    local SessionTimeout = redis.call('GET', KEYS[3])
    retArray[3] = SessionTimeout
    if SessionTimeout ~= false then
        redis.call('EXPIRE', KEYS[2], SessionTimeout)
        redis.call('EXPIRE', KEYS[3], SessionTimeout)
    end
    return retArray";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn scripts_that_only_renew_cost_next_to_no_entries() {
    let mut cluster = Cluster::start("5", Reads::Local).await;
    let set = ["CONFIG", "SET", "expire-slack-keys", "{app_*"];
    assert_eq!(cluster.clients[0].text(&set).await, "OK");
    let keys = [
        "{app_1}_WriteLock",
        "{app_1}_SessionStateItemCollection",
        "{app_1}_SessionTimeout",
    ];
    let create = "redis.call('SET', KEYS[1], ARGV[1]) redis.call('EXPIRE', KEYS[1], ARGV[2])
        redis.call('SET', KEYS[2], ARGV[2]) redis.call('EXPIRE', KEYS[2], ARGV[2]) return 1";
    let create = ["EVAL", create, "2", keys[1], keys[2], "items", LIFE];
    assert_eq!(cluster.clients[0].text(&create).await, "1");
    let get = ["EVAL", GET_SESSION, "3", keys[0], keys[1], keys[2]];
    for client in &mut cluster.clients {
        // Each node learns the script.
        assert_eq!(client.text(&get).await, format!(" items {LIFE}"));
    }
    cluster.settle().await;
    let before = cluster.entries();
    for _ in 0..100 {
        for client in &mut cluster.clients {
            assert_eq!(client.text(&get).await, format!(" items {LIFE}"));
        }
    }
    let entries = cluster.entries() - before;
    assert!(entries <= 3, "{entries} entries for 300 pages");
    // One that writes is in the log, with what it renews beside that.
    let write = "redis.call('EXPIRE', KEYS[1], ARGV[1]) return redis.call('INCR', 'hits')";
    assert_eq!(
        cluster.clients[1]
            .text(&["EVAL", write, "1", keys[1], LIFE])
            .await,
        "1"
    );
    assert!(cluster.entries() > before + entries);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_use_is_written_down_before_the_slack_is_used_up() {
    let mut cluster = Cluster::start("5", Reads::Local).await;
    // A slack of 3 s, half of which is used up soon.
    let key = "sess:short";
    assert_eq!(
        cluster.clients[0].text(&["SET", key, "v", "EX", "60"]).await,
        "OK"
    );
    cluster.settle().await;
    let node = cluster.nodes[1].clone();
    let deadline = || {
        node.view(0, |view| {
            view.find(key.as_bytes()).and_then(|slot| slot.deadline())
        })
    };
    let (first, before) = (deadline().unwrap(), cluster.entries());
    let (mut uses, client) = (0, &mut cluster.clients[1]);
    eventually("the key ends three seconds later", async || {
        uses += 1;
        assert_eq!(client.text(&["EXPIRE", key, "60"]).await, "1");
        deadline().unwrap() >= first + 3_000
    })
    .await;
    let entries = cluster.entries() - before;
    assert!(
        (1..=4).contains(&entries) && uses > 100,
        "{entries} entries for {uses} uses"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reads_that_are_linearizable_make_renewals_so() {
    let mut cluster = Cluster::start("5", Reads::Linearizable).await;
    for _ in 0..50 {
        let [a, b, c] = &mut cluster.clients[..] else {
            unreachable!("three clients");
        };
        assert_eq!(a.text(&["SET", "sess:1", "v", "EX", LIFE]).await, "OK");
        for client in [&mut *b, &mut *c] {
            assert_eq!(client.text(&["EXPIRE", "sess:1", LIFE]).await, "1");
        }
        assert_eq!(b.text(&["DEL", "sess:1"]).await, "1");
        for client in [a, c] {
            assert_eq!(client.text(&["EXPIRE", "sess:1", LIFE]).await, "0");
            assert_eq!(client.text(&["GETEX", "sess:1", "EX", LIFE]).await, "(nil)");
        }
    }
    cluster.stop().await;
}

/// Asks each, and compares.
async fn dialogue(client: &mut Client, lines: &[(&str, &str)]) {
    for (line, answer) in lines {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(client.text(&words).await, *answer, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_a_life_is_written_and_shown_as_it_was_asked_for() {
    let server = Server::start().await;
    let mut client = server.client().await;
    dialogue(
        &mut client,
        &[
            ("CONFIG GET expire-slack-*", "expire-slack-percent 0 expire-slack-keys *"),
            (
                "CONFIG SET expire-slack-percent 51",
                "ERR CONFIG SET failed (possibly related to argument 'expire-slack-percent') - argument must be between 0 and 50 inclusive",
            ),
            ("CONFIG SET expire-slack-percent 5", "OK"),
            ("SET k v EX 1200", "OK"),
            ("TTL k", "1200"),
            // Longer, shorter, and the other conditions.
            ("EXPIRE k 2000", "1"),
            ("TTL k", "2000"),
            ("EXPIRE k 1000", "1"),
            ("TTL k", "1000"),
            ("EXPIRE k 1000 NX", "0"),
            ("EXPIRE k 1001 LT", "0"),
            ("EXPIRE k 900 LT", "1"),
            ("EXPIRE k 900 GT", "0"),
            ("EXPIRE k 1000 GT", "1"),
            ("EXPIRE k 1000 XX", "1"),
            ("TTL k", "1000"),
            ("GETEX k EX 1000", "v"),
            ("GETEX k", "v"),
            ("GETEX k EX 500", "v"),
            ("TTL k", "500"),
            ("SET k w KEEPTTL", "OK"),
            ("TTL k", "500"),
            ("RENAME k l", "OK"),
            ("COPY l k", "1"),
            ("TTL l", "500"),
            ("TTL k", "500"),
            ("PERSIST k", "1"),
            ("TTL k", "-1"),
            ("EXPIRE k 500", "1"),
            ("SET k v", "OK"),
            ("TTL k", "-1"),
            ("EXPIRE gone 500", "0"),
            ("GETEX gone EX 500", "(nil)"),
            ("EXPIRE k x", "ERR value is not an integer or out of range"),
            ("EXPIRE k 10 GT LT", "ERR GT and LT options at the same time are not compatible"),
            ("LPUSH list a", "1"),
            ("EXPIRE list 500", "1"),
            ("EXPIRE list 500", "1"),
            ("GETEX list EX 500", "WRONGTYPE Operation against a key holding the wrong kind of value"),
            // A time is a time.
            ("EXPIREAT k 33177117420", "1"),
            ("EXPIRETIME k", "33177117420"),
            ("EXPIRE k -1", "1"),
            ("EXISTS k", "0"),
            // Nobody watches in vain: what is not written touches nothing, what is in a transaction is written.
            ("SET k v EX 500", "OK"),
            ("WATCH k", "OK"),
            ("EXPIRE k 500", "1"),
            ("MULTI", "OK"),
            ("EXPIRE k 500", "QUEUED"),
            ("TTL k", "QUEUED"),
            ("EXEC", "1 500"),
        ],
    )
    .await;
    // What is said before it in one breath is done before it.
    let pipeline = [
        "SET k v EX 60",
        "EXPIRE k 500",
        "PERSIST k",
        "EXPIRE k 500",
        "EXPIRE k 500",
        "DEL k",
        "EXPIRE k 500",
    ];
    let sent: Vec<u8> = pipeline
        .iter()
        .flat_map(|line| request(line.split(' ').collect::<Vec<_>>()))
        .collect();
    client.send(&sent).await;
    let mut answers = Vec::new();
    for _ in pipeline {
        answers.push(text(&client.reply().await.unwrap()));
    }
    assert_eq!(answers, ["OK", "1", "1", "1", "1", "1", "0"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cache_renews_without_writes_too() {
    let server = Server::start().await;
    let cache = Cache::new(server.node.clone());
    let slack = [("expire-slack-percent".to_owned(), "5".to_owned())];
    server.node.set_settings(&slack).await.unwrap();
    let life = Duration::from_secs(1200);
    cache.set_for("k", "v", life).await.unwrap();
    let before = server.node.token();
    for _ in 0..100 {
        assert!(cache.expire("k", life).await.unwrap());
    }
    assert_eq!(server.node.token(), before);
    assert_eq!(cache.ttl("k").await.unwrap(), Ttl::Left(life));
    assert!(cache.expire("k", life / 2).await.unwrap());
    assert!(server.node.token() > before);
    run(&server.node, &["DEL", "k"]).await;
    assert!(!cache.expire("k", life / 2).await.unwrap());
    server.stop().await;
}
