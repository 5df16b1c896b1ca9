//! Who may come in and what they may do, over real sockets: users, permissions, access keys, TLS.
#![cfg(feature = "resp")]
// Tests are not documented for others, and may panic.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::endpoint::{Client, Redis, Server, endpoint, text};
use common::{PATIENCE, addresses, eventually};
use plenary::config::Secret;
use plenary::edge::resp::decode::request;
use plenary::machine::entry::Command;
use plenary::machine::reply::Reply;
use plenary::node::Node;

/// A node whose clients need a key.
async fn keyed() -> Server {
    Server::with(|config| config.access_key = Some(Secret::new("the first key"))).await
}

/// A node, one of its clients that may all, and one that is in as `ann`, who may all for now.
async fn with_ann() -> (Server, Client, Client) {
    let server = Server::start().await;
    let (mut admin, mut ann) = (server.client().await, server.client().await);
    admin
        .text(&["ACL", "SETUSER", "ann", "on", "nopass", "+@all", "~*"])
        .await;
    assert_eq!(ann.text(&["AUTH", "ann", "x"]).await, "OK");
    (server, admin, ann)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_user_counts_at_once_for_who_is_connected() {
    let server = Server::start().await;
    let (mut admin, mut user) = (server.client().await, server.client().await);
    assert_eq!(
        admin
            .text(&["ACL", "SETUSER", "ann", "on", ">secret", "~a*", "+get"])
            .await,
        "OK"
    );
    assert_eq!(user.text(&["AUTH", "ann", "secret"]).await, "OK");
    assert_eq!(user.text(&["GET", "a1"]).await, "(nil)");
    assert!(user.text(&["SET", "a1", "v"]).await.starts_with("NOPERM"));
    assert_eq!(admin.text(&["ACL", "SETUSER", "ann", "+set"]).await, "OK");
    assert_eq!(user.text(&["SET", "a1", "v"]).await, "OK");
    assert_eq!(
        admin.text(&["ACL", "SETUSER", "ann", "resetkeys", "~b*"]).await,
        "OK"
    );
    assert!(user.text(&["SET", "a1", "v"]).await.contains("one of the keys"));
    let log = admin.text(&["ACL", "LOG"]).await;
    assert!(
        log.contains("reason key context toplevel object a1 username ann"),
        "{log}"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_waited_is_not_run_when_its_user_may_not_any_more() {
    let (server, mut admin, mut user) = with_ann().await;
    admin.text(&["SET", "k", "v"]).await;
    assert_eq!(admin.text(&["CLIENT", "PAUSE", "100000", "WRITE"]).await, "OK");
    user.send(&request(["FLUSHALL"])).await;
    server.until("blocked_clients", "1").await;
    let rules = Command::new(0, ["ACL", "SETUSER", "ann", "-flushall"]);
    server.node.write(vec![rules]).await.unwrap();
    assert_eq!(admin.text(&["CLIENT", "UNPAUSE"]).await, "OK");
    let reply = text(&user.reply().await.expect("a reply"));
    assert!(reply.starts_with("NOPERM"), "{reply}");
    assert_eq!(admin.text(&["GET", "k"]).await, "v");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_lost_while_a_transaction_ran_is_not_run_at_its_end() {
    let server = Server::start().await;
    let (mut admin, mut user) = (server.client().await, server.client().await);
    admin
        .text(&["ACL", "SETUSER", "ann", "on", "nopass", "+@all", "~*", "&news"])
        .await;
    admin.text(&["CONFIG", "SET", "busy-reply-threshold", "10"]).await;
    assert_eq!(user.text(&["AUTH", "ann", "x"]).await, "OK");
    for (argv, reply) in [
        (&["MULTI"][..], "OK"),
        (&["EVAL", "while true do end", "0"], "QUEUED"),
        (&["SUBSCRIBE", "news"], "QUEUED"),
    ] {
        assert_eq!(user.text(argv).await, reply);
    }
    user.send(&request(["EXEC"])).await;
    eventually("the script runs for long", async || {
        admin.text(&["EVAL", "return 1", "0"]).await.starts_with("BUSY")
    })
    .await;
    let rules = Command::new(0, ["ACL", "SETUSER", "ann", "resetchannels"]);
    server.node.write(vec![rules]).await.unwrap();
    assert_eq!(admin.text(&["SCRIPT", "KILL"]).await, "OK");
    let reply = text(&user.reply().await.expect("a reply"));
    assert!(reply.contains("no longer allowed"), "{reply}");
    assert_eq!(admin.text(&["PUBSUB", "NUMSUB", "news"]).await, "news 0");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_select_that_is_not_permitted_any_more_chooses_no_database() {
    let (server, mut admin, mut user) = with_ann().await;
    for argv in [&["MULTI"][..], &["SELECT", "1"], &["SET", "k", "v"]] {
        user.text(argv).await;
    }
    admin.text(&["ACL", "SETUSER", "ann", "-select"]).await;
    let replies = user.text(&["EXEC"]).await;
    assert!(
        replies.starts_with("NOPERM") && replies.ends_with(" OK"),
        "{replies}"
    );
    assert_eq!(user.text(&["GET", "k"]).await, "v");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_of_refused_options_has_no_secret_key_or_value_in_it() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for command in [
        "AUTH ADMIN TOPSECRET X",
        "CONFIG SET requirepass TOPSECRET timeout",
        "MIGRATE 127.0.0.1 1 k 0 1000 AUTH TOPSECRET WRONG",
        "SET TOPSECRET TOPSECRET NX BADOPTION TOPSECRET",
        "SET k v PX TOPSECRET XX",
        "ZUNION 2 k TOPSECRET WITHSCORES BADCHOICE",
    ] {
        let argv: Vec<&str> = command.split(' ').collect();
        let reply = client.text(&argv).await;
        assert!(reply.starts_with("ERR"), "{command}: {reply}");
    }
    let told = client.text(&["INFO", "compat"]).await;
    assert!(!told.contains("TOPSECRET"), "{told}");
    assert!(told.contains("set NX BADOPTION"), "{told}");
    assert!(told.contains("zunion WITHSCORES BADCHOICE"), "{told}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connections_of_a_removed_user_are_closed() {
    let (server, mut admin, mut user) = with_ann().await;
    assert!(admin.text(&["CLIENT", "LIST"]).await.contains("user=ann"));
    assert_eq!(admin.text(&["ACL", "DELUSER", "ann"]).await, "1");
    // It waits for nothing, and is told by the end of its connection.
    assert_eq!(user.reply().await, None);
    assert_eq!(admin.text(&["PING"]).await, "PONG");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_hear_a_channel_any_more_is_closed() {
    let server = Server::start().await;
    let mut admin = server.client().await;
    admin
        .text(&[
            "ACL", "SETUSER", "ann", "on", "nopass", "+@all", "&news*", "&talk",
        ])
        .await;
    let (mut kept, mut closed) = (server.client().await, server.client().await);
    for (client, channel) in [(&mut kept, "talk"), (&mut closed, "news")] {
        assert_eq!(client.text(&["AUTH", "ann", "x"]).await, "OK");
        assert!(
            client
                .text(&["SUBSCRIBE", "other"])
                .await
                .contains("one of the channels")
        );
        assert_eq!(
            client.text(&["SUBSCRIBE", channel]).await,
            format!("subscribe {channel} 1")
        );
    }
    assert_eq!(
        admin
            .text(&["ACL", "SETUSER", "ann", "resetchannels", "&talk"])
            .await,
        "OK"
    );
    assert_eq!(closed.reply().await, None);
    assert_eq!(admin.text(&["PUBLISH", "talk", "hi"]).await, "1");
    assert_eq!(text(&kept.reply().await.unwrap()), "message talk hi");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_of_the_same_name_does_not_inherit_connections() {
    let (server, mut admin, mut user) = with_ann().await;
    let both = [
        request(["ACL", "DELUSER", "ann"]),
        request(["ACL", "SETUSER", "ann", "on", ">new", "+@all", "~*"]),
    ];
    admin.send(&both.concat()).await;
    assert_eq!(
        (admin.reply().await, admin.reply().await),
        (Some(Reply::Integer(1)), Some(Reply::OK))
    );
    assert_eq!(user.reply().await, None);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_access_keys_let_clients_change_from_one_to_the_other() {
    let server = keyed().await;
    let mut client = server.client().await;
    assert!(client.text(&["PING"]).await.starts_with("NOAUTH"));
    assert!(
        client
            .text(&["AUTH", "another key"])
            .await
            .starts_with("WRONGPASS")
    );
    assert_eq!(client.text(&["AUTH", "the first key"]).await, "OK");
    let second = client.text(&["PLENARY", "KEYS", "ROTATE", "secondary"]).await;
    assert_eq!(second.len(), 64);
    for key in ["the first key", &second] {
        assert_eq!(server.client().await.text(&["AUTH", key]).await, "OK", "{key}");
    }
    let third = client
        .text(&["PLENARY", "KEYS", "ROTATE", "primary", "a key that was given"])
        .await;
    assert_eq!(third, "a key that was given");
    assert!(
        server
            .client()
            .await
            .text(&["AUTH", "the first key"])
            .await
            .starts_with("WRONGPASS")
    );
    assert_eq!(
        server.client().await.text(&["AUTH", "default", &third]).await,
        "OK"
    );
    assert_eq!(
        client.text(&["PLENARY", "KEYS", "REMOVE", "secondary"]).await,
        "OK"
    );
    assert!(
        server
            .client()
            .await
            .text(&["AUTH", &second])
            .await
            .starts_with("WRONGPASS")
    );
    let shown = client.text(&["PLENARY", "KEYS", "SHOW"]).await;
    assert!(
        shown.contains("key primary") && shown.contains("key secondary fingerprint (nil)"),
        "{shown}"
    );
    assert!(!shown.contains("given"), "{shown}");
    // No rule for the user lets anybody in without one of the keys.
    assert_eq!(client.text(&["ACL", "SETUSER", "default", "nopass"]).await, "OK");
    assert!(server.client().await.text(&["PING"]).await.starts_with("NOAUTH"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_of_the_default_user_is_asked_for_everywhere() {
    let server = Server::start().await;
    let mut admin = server.client().await;
    assert!(admin.text(&["AUTH", "x"]).await.contains("without any password"));
    assert_eq!(
        admin.text(&["CONFIG", "SET", "requirepass", "secret"]).await,
        "OK"
    );
    assert_eq!(
        admin.text(&["CONFIG", "GET", "requirepass"]).await,
        "requirepass (hidden)"
    );
    let mut other = server.client().await;
    assert!(other.text(&["GET", "k"]).await.starts_with("NOAUTH"));
    assert_eq!(other.text(&["AUTH", "secret"]).await, "OK");
    assert_eq!(admin.text(&["CONFIG", "SET", "requirepass", ""]).await, "OK");
    assert_eq!(server.client().await.text(&["PING"]).await, "PONG");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_reaches_the_disk_or_the_logs() {
    let server = Server::start().await;
    let mut admin = server.client().await;
    admin
        .text(&["CONFIG", "SET", "slowlog-log-slower-than", "0"])
        .await;
    assert_eq!(
        admin.text(&["ACL", "SETUSER", "ann", "on", ">open-sesame"]).await,
        "OK"
    );
    assert_eq!(
        admin
            .text(&["ACL", "SETUSER", "ann", "<open-sesame", ">open-sesame"])
            .await,
        "OK"
    );
    admin.text(&["AUTH", "ann", "open-sesame"]).await;
    let mut admin = server.client().await;
    admin.text(&["CONFIG", "SET", "requirepass", "open-sesame"]).await;
    assert_eq!(admin.text(&["SAVE"]).await, "OK");
    let noted = admin.text(&["SLOWLOG", "GET", "-1"]).await;
    assert!(
        noted.contains("SETUSER (redacted)") && !noted.contains("sesame"),
        "{noted}"
    );
    let folder = server.folder.path().to_owned();
    server.node.stop().await.unwrap();
    let mut folders = vec![folder];
    let mut read = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                read += bytes.len();
                let found = bytes.windows(11).any(|window| window == b"open-sesame");
                assert!(!found, "{} holds the password", path.display());
            }
        }
    }
    assert!(read > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_keys_are_those_of_all_nodes() {
    let folder = tempfile::tempdir().unwrap();
    let addresses = addresses(3);
    let mut nodes = common::three_with(folder.path(), &addresses, |_| {}).await;
    let mut ends = Vec::new();
    for node in &nodes {
        ends.push(
            endpoint(node, |config| {
                config.access_key = Some(Secret::new("the first key"))
            })
            .await,
        );
    }
    let mut admin = Client::connect(ends[0].address()).await;
    assert_eq!(admin.text(&["AUTH", "the first key"]).await, "OK");
    assert_eq!(
        admin
            .text(&["ACL", "SETUSER", "ann", "on", ">secret", "~*", "+@read"])
            .await,
        "OK"
    );
    let key = admin.text(&["PLENARY", "KEYS", "ROTATE", "primary"]).await;
    assert_eq!(admin.text(&["WAIT", "2", "20000"]).await, "2");
    for end in &ends {
        let mut client = Client::connect(end.address()).await;
        assert!(
            client
                .text(&["AUTH", "the first key"])
                .await
                .starts_with("WRONGPASS")
        );
        assert_eq!(client.text(&["AUTH", &key]).await, "OK");
        assert_eq!(client.text(&["AUTH", "ann", "secret"]).await, "OK");
        assert!(client.text(&["SET", "k", "v"]).await.starts_with("NOPERM"));
    }
    common::assert_same_state(&nodes).await;
    for end in &ends {
        end.stop().await;
    }
    drop((ends, admin));
    // What stopped leaves its folder to the next one, though the others go on.
    nodes[1].snapshot().await.unwrap();
    let stopped = nodes.remove(1);
    stopped.stop().await.unwrap();
    drop(stopped);
    let deadline = std::time::Instant::now() + PATIENCE;
    let again = loop {
        match Node::start(common::config(folder.path(), &addresses, 1)).await {
            Err(plenary::Error::FolderInUse { .. }) if std::time::Instant::now() < deadline => {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            started => break started.unwrap(),
        }
    };
    again.ready(PATIENCE).await.unwrap();
    assert!(again.access().user(b"ann").is_some());
    nodes.push(again);
    common::stop(&nodes).await;
}

/// Each command with how its answer begins, of Redis 7.0 as well where there is one to ask.
async fn assert_answers(client: &mut Client, redis: &mut Option<Client>, asked: &[(&[&str], &str)]) {
    for (argv, begins) in asked {
        let answer = client.text(argv).await;
        assert!(answer.starts_with(begins), "{argv:?}: {answer}");
        if let Some(redis) = redis {
            assert_eq!(redis.text(argv).await, answer, "{argv:?}");
        }
    }
}

/// A script reads for its user, and so does a function: what `SORT` refuses to him it refuses there.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_a_sort_does_not_name_are_for_who_may_read_every_key() {
    const BY: &str = "ERR BY option of SORT denied due to insufficient ACL permissions.";
    const GET: &str = "ERR GET option of SORT denied due to insufficient ACL permissions.";
    const LIBRARY: &str = "#!lua name=sorts\nredis.register_function('own', function(keys, args) \
                           return redis.pcall('SORT', keys[1], unpack(args)) end)";
    let server = Server::start().await;
    let judge = Redis::start(&[]).await;
    let mut redis = match &judge {
        Some(judge) => Some(Client::connect(judge.address).await),
        None => None,
    };
    let mut client = server.client().await;
    let call = "return redis.call('SORT', KEYS[1], unpack(ARGV))";
    let call_ro = "return redis.call('SORT_RO', KEYS[1], unpack(ARGV))";
    let pcall = "return redis.pcall('SORT', KEYS[1], unpack(ARGV))";
    let may = "return tostring(redis.acl_check_cmd('SORT', KEYS[1], 'GET', '*'))";
    let all = ["ACL", "SETUSER", "all", "on", "nopass", "+@all", "~by", "%R~*"];
    let begin: [(&[&str], &str); 7] = [
        (&["SET", "secret:1", "s"], "OK"),
        (&["RPUSH", "app:l", "secret:1", "1"], "2"),
        (&["FUNCTION", "LOAD", LIBRARY], "sorts"),
        (&all, "OK"),
        (
            &["ACL", "SETUSER", "ann", "on", "nopass", "+@all", "~app:*", "~by"],
            "OK",
        ),
        (&["AUTH", "ann", "x"], "OK"),
        (&["ACL", "DRYRUN", "ann", "SORT", "app:l", "GET", "*"], "OK"),
    ];
    assert_answers(&mut client, &mut redis, &begin).await;
    let refused: [(&[&str], &str); 14] = [
        (&["EVAL", call, "1", "app:l", "BY", "nosort", "GET", "*"], GET),
        (
            &["EVAL_RO", call_ro, "1", "app:l", "BY", "nosort", "GET", "*"],
            GET,
        ),
        (&["EVAL", pcall, "1", "app:l", "BY", "secret:*", "ALPHA"], BY),
        (
            &[
                "EVAL", pcall, "1", "app:l", "STORE", "by", "BY", "secret:*", "ALPHA",
            ],
            BY,
        ),
        (&["FCALL", "own", "1", "app:l", "BY", "nosort", "GET", "*"], GET),
        (&["SORT", "app:l", "BY", "nosort", "GET", "*"], GET),
        (&["SORT", "app:l", "BY", "nosort", "GET", "#"], GET),
        (&["SORT", "app:l", "GET", "*", "BY", "secret:*"], GET),
        (&["SORT", "app:l", "BY", "nosort", "BY", "secret:*"], BY),
        // What belongs to another option is none.
        (&["SORT", "app:l", "STORE", "by", "BY", "secret:*", "ALPHA"], BY),
        (&["SORT_RO", "app:l", "LIMIT", "0", "1", "GET", "*"], GET),
        (&["EVAL", may, "1", "app:l"], "true"),
        (&["EVAL", pcall, "1", "app:l", "BY", "nosort"], "secret:1 1"),
        (&["SORT", "app:l", "ALPHA", "STORE", "by"], "2"),
    ];
    assert_answers(&mut client, &mut redis, &refused).await;
    let read: [(&[&str], &str); 4] = [
        (&["AUTH", "all", "x"], "OK"),
        (&["SORT", "app:l", "BY", "nosort", "GET", "*"], "s (nil)"),
        (
            &["EVAL_RO", call_ro, "1", "app:l", "BY", "nosort", "GET", "*"],
            "s",
        ),
        (&["SORT", "app:l", "BY", "secret:*", "STORE", "app:x"], "NOPERM"),
    ];
    assert_answers(&mut client, &mut redis, &read).await;
    server.stop().await;
}

/// Redis 7.0 asks for the first `STORE` and obeys the last.
#[tokio::test(flavor = "multi_thread")]
async fn the_keys_that_are_asked_for_are_those_that_a_command_uses() {
    const NO_KEY: &str = "NOPERM this user has no permissions to access one of the keys used as arguments";
    const NOT_THERE: &str =
        "ERR The user executing the script can't access at least one of the keys mentioned in the command";
    let server = Server::start().await;
    let (mut admin, mut client) = (server.client().await, server.client().await);
    for argv in [
        &["GEOADD", "app:g", "0", "0", "m"][..],
        &["SET", "victim", "v"],
        &["XADD", "secret", "1-1", "f", "v"],
        &["XGROUP", "CREATE", "secret", "g", "0"],
        &[
            "ACL", "SETUSER", "ann", "on", "nopass", "+@all", "~app:*", "~streams",
        ],
    ] {
        admin.text(argv).await;
    }
    let call = "return redis.call(unpack(ARGV))";
    let radius = ["GEORADIUS", "app:g", "0", "0", "1", "m"];
    let by_member = ["GEORADIUSBYMEMBER", "app:g", "m", "1", "m"];
    let stores = ["STORE", "app:x", "STORE", "victim"];
    let distances = ["STORE", "app:x", "STOREDIST", "victim"];
    let group = [
        "XREADGROUP",
        "NOACK",
        "GROUP",
        "g",
        "STREAMS",
        "streams",
        "secret",
        ">",
    ];
    let tags = ["TAGS", "1", "app:t", "TAGS", "1", "victim"];
    let named = ["TAGS", "2", "app:t", "TAGS", "TAGS", "1", "victim"];
    assert_answers(
        &mut client,
        &mut None,
        &[
            (&["AUTH", "ann", "x"], "OK"),
            (&[&radius[..], &stores].concat(), NO_KEY),
            (&[&radius[..], &distances].concat(), NO_KEY),
            (&[&by_member[..], &stores].concat(), NO_KEY),
            (&[&by_member[..], &distances].concat(), NO_KEY),
            (&[&["EVAL", call, "0"], &radius[..], &stores].concat(), NOT_THERE),
            (&group, NO_KEY),
            (&["DEBUG", "OBJECT", "secret"], NO_KEY),
            (&["DEBUG", "DIGEST-VALUE", "app:g", "secret"], NO_KEY),
            (
                &[&["CACHE.SET", "app:k", "v", "PX", "100000"], &tags[..]].concat(),
                NO_KEY,
            ),
            (
                &[&["CACHE.SET", "app:k", "v", "PX", "100000"], &named[..]].concat(),
                NO_KEY,
            ),
            (&[&["CACHE.LEASE", "app:l", "100000"], &tags[..]].concat(), NO_KEY),
            (
                &[&["CACHE.LEASE", "app:l", "100000"], &named[..]].concat(),
                NO_KEY,
            ),
            (
                &[&radius[..], &["STORE", "victim", "STORE", "app:x"]].concat(),
                "1",
            ),
            (
                &[&["CACHE.LEASE", "app:l", "100000"], &tags[..3]].concat(),
                "(nil) 0",
            ),
        ],
    )
    .await;
    assert_eq!(admin.text(&["GET", "victim"]).await, "v");
    server.stop().await;
}

#[cfg(feature = "tls")]
mod tls {
    use super::*;
    use common::tls::{Authority, authority, signed};
    use plenary::config::{TlsClients, TlsConfig};
    use std::path::PathBuf;
    use tokio::net::TcpStream;
    use tokio_rustls::client::TlsStream;

    /// Connects as `common::tls` does; none where the endpoint does not agree.
    async fn connect(
        address: &str,
        authority: &Authority,
        own: Option<&(PathBuf, PathBuf)>,
    ) -> Option<Client<TlsStream<TcpStream>>> {
        let mut client = Client::over(common::tls::connect(address, authority, own).await?);
        // TLS 1.3 tells a client only now that its certificate was refused.
        client
            .ask_or_end(&["PING"])
            .await
            .filter(|reply| text(reply) == "PONG")?;
        Some(client)
    }

    /// A server with TLS, and without another port if `alone`; its address.
    async fn serve(alone: bool, tls: TlsConfig) -> (Server, String) {
        let mut address = String::new();
        let server = Server::with(|config| {
            if alone {
                config.listen = String::new();
            }
            let mut tls = tls;
            tls.listen = format!("127.0.0.1:{}", common::free_port());
            address = tls.listen.clone();
            config.tls = Some(tls);
        })
        .await;
        (server, address)
    }

    fn tls((cert_file, key_file): &(PathBuf, PathBuf)) -> TlsConfig {
        TlsConfig {
            listen: String::new(),
            cert_file: cert_file.clone(),
            key_file: key_file.clone(),
            ca_cert_file: None,
            clients: TlsClients::No,
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn clients_are_served_with_tls_and_the_plain_port_can_be_off() {
        let (folder, authority) = (tempfile::tempdir().unwrap(), authority());
        let files = signed(&authority, folder.path(), "node");
        let (server, address) = serve(true, tls(&files)).await;
        let mut client = connect(&address, &authority, None).await.expect("served");
        let large = "x".repeat(1 << 20);
        assert_eq!(client.text(&["SET", "k", &large]).await, "OK");
        assert_eq!(client.text(&["GET", "k"]).await, large);
        assert_eq!(client.text(&["CONFIG", "GET", "port"]).await, "port 0");
        // Whoever speaks without TLS gets no word, and is closed.
        let mut plain = Client::connect(address.parse().unwrap()).await;
        plain.send(b"PING\r\n").await;
        let rest = plain.rest().await;
        assert!(!rest.windows(4).any(|window| window == b"PONG"));
        server.stop().await;
    }

    /// A connection whose system takes little for it that it does not read.
    async fn narrow(address: &str, authority: &Authority) -> Client<TlsStream<TcpStream>> {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4 << 10).unwrap();
        let stream = socket.connect(address.parse().unwrap()).await.unwrap();
        let connected = common::tls::over(stream, authority, None).await;
        Client::over(connected.expect("served"))
    }

    /// The layer takes 64 KiB that the system does not take: of some of these replies the whole end.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_that_reads_late_gets_the_end_of_every_reply() {
        const STEP: usize = 48 << 10;
        let (folder, authority) = (tempfile::tempdir().unwrap(), authority());
        let files = signed(&authority, folder.path(), "node");
        let (server, address) = serve(false, tls(&files)).await;
        let mut admin = server.client().await;
        let large = "x".repeat(8 << 20);
        assert_eq!(admin.text(&["SET", "k", &large]).await, "OK");
        for length in (STEP..=large.len()).step_by(STEP) {
            let mut client = narrow(&address, &authority).await;
            let id = client.text(&["CLIENT", "ID"]).await;
            let end = (length - 1).to_string();
            client.send(&request(["GETRANGE", "k", "0", &end])).await;
            // What waits for it stays the same for a while: the system and the layer took what they take.
            let (mut waiting, mut looks) = (String::new(), 0);
            while looks < 20 {
                let line = admin.text(&["CLIENT", "LIST", "ID", &id]).await;
                let now = line.split(' ').find(|field| field.starts_with("obl=")).unwrap();
                looks = if now == waiting { looks + 1 } else { 0 };
                waiting = now.to_owned();
            }
            let reply = client.reply().await.expect("a reply");
            assert_eq!(text(&reply).len(), length);
            if waiting != "obl=0" {
                break;
            }
        }
        server.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_certificate_that_changes_is_taken_up_without_a_restart() {
        let (folder, old, new) = (tempfile::tempdir().unwrap(), authority(), authority());
        let files = signed(&old, folder.path(), "node");
        let (server, address) = serve(false, tls(&files)).await;
        let mut kept = connect(&address, &old, None).await.expect("the old one is shown");
        assert!(connect(&address, &new, None).await.is_none());
        // What cannot be read leaves the one before in force.
        let mut admin = server.client().await;
        let refused = admin
            .text(&["CONFIG", "SET", "tls-cert-file", "/no/such/file"])
            .await;
        assert!(
            refused.contains("Unable to update TLS configuration"),
            "{refused}"
        );
        assert!(connect(&address, &old, None).await.is_some());
        signed(&new, folder.path(), "node");
        eventually("the new one is shown", async || {
            connect(&address, &new, None).await.is_some()
        })
        .await;
        assert!(connect(&address, &old, None).await.is_none());
        assert_eq!(kept.text(&["PING"]).await, "PONG");
        // At once, where it is asked for.
        let other = signed(&old, folder.path(), "other");
        let (cert, key) = (other.0.to_str().unwrap(), other.1.to_str().unwrap());
        assert_eq!(
            admin
                .text(&["CONFIG", "SET", "tls-cert-file", cert, "tls-key-file", key])
                .await,
            "OK"
        );
        assert!(connect(&address, &old, None).await.is_some());
        server.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn clients_show_a_certificate_where_they_must() {
        let (folder, authority, strangers) = (tempfile::tempdir().unwrap(), authority(), authority());
        let files = signed(&authority, folder.path(), "node");
        let own = signed(&authority, folder.path(), "client");
        let strange = signed(&strangers, folder.path(), "stranger");
        let ca_file = folder.path().join("ca.crt");
        std::fs::write(&ca_file, authority.pem()).unwrap();
        for (clients, without) in [(TlsClients::Yes, false), (TlsClients::Optional, true)] {
            let config = TlsConfig {
                ca_cert_file: Some(ca_file.clone()),
                clients,
                ..tls(&files)
            };
            let (server, address) = serve(false, config).await;
            assert!(
                connect(&address, &authority, Some(&own)).await.is_some(),
                "{clients}"
            );
            assert!(
                connect(&address, &authority, Some(&strange)).await.is_none(),
                "{clients}"
            );
            assert_eq!(
                connect(&address, &authority, None).await.is_some(),
                without,
                "{clients}"
            );
            server.stop().await;
        }
    }
}
