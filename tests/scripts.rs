//! Scripts on three nodes: each is applied once, on whatever node it was asked for, beside plain writes and while leaders go.

#![cfg(feature = "lua")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use bytes::Bytes;
use common::{argv, assert_same_state, eventually, leader_and_others, one_with, read, run, stop, three};
use plenary::error::Error;
use plenary::machine::entry::Command;
use plenary::machine::reply::Reply;
use plenary::node::{Call, Called, Kind, Node, Request};

fn script(text: &'static str, key: &str, args: &[&str]) -> Request {
    let call = Call::Script {
        text: Bytes::from_static(text.as_bytes()),
        keys: vec![key.to_owned().into()],
        args: args.iter().map(|arg| Bytes::from((*arg).to_owned())).collect(),
        read_only: false,
    };
    Request::one(Bytes::from_static(b"default"), 0, call)
}

async fn answer(node: &Node, request: Request) -> Reply {
    node.script(request)
        .await
        .unwrap()
        .0
        .replies
        .into_iter()
        .next()
        .unwrap()
}

fn get(node: &Node, key: &str) -> Option<u64> {
    match read(node, &["GET", key]) {
        Reply::Bulk(bytes) => Some(String::from_utf8_lossy(&bytes).parse().unwrap()),
        _ => None,
    }
}

/// Reads, then writes what it read and one more: two at once on the same state would lose one.
const INCREMENT: &str =
    "local n = tonumber(redis.call('GET', KEYS[1]) or '0') redis.call('SET', KEYS[1], n + 1) return n + 1";

#[tokio::test(flavor = "multi_thread")]
async fn scripts_of_all_nodes_on_one_key_follow_each_other() {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let tasks = (0..24).map(|task| {
        let node = nodes[task % 3].clone();
        async move {
            let mut seen = Vec::new();
            for _ in 0..10 {
                let Reply::Integer(n) = answer(&node, script(INCREMENT, "counter", &[])).await else {
                    panic!("a number")
                };
                assert!(
                    get(&node, "counter").unwrap() >= n.cast_unsigned(),
                    "its own write is seen"
                );
                seen.push(n);
            }
            seen
        }
    });
    let mut seen = futures::future::join_all(tasks).await.concat();
    seen.sort_unstable();
    assert_eq!(seen, (1..=240).collect::<Vec<i64>>(), "each number once");
    assert_same_state(&nodes).await;
    stop(&nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_writes_beside_scripts_are_never_lost() {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let scripts = (0..6).map(|task| {
        let node = nodes[task % 3].clone();
        async move {
            for _ in 0..20 {
                answer(&node, script(INCREMENT, "counter", &[])).await;
            }
        }
    });
    let writes = (0..6).map(|task| {
        let node = nodes[task % 3].clone();
        async move {
            for _ in 0..20 {
                run(&node, &["INCR", "counter"]).await;
            }
        }
    });
    tokio::join!(
        futures::future::join_all(scripts),
        futures::future::join_all(writes)
    );
    assert_same_state(&nodes).await;
    assert_eq!(get(&nodes[0], "counter"), Some(240));
    stop(&nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_looks_at_all_keys_is_atomic_too() {
    const COUNT: &str = "redis.call('SET', KEYS[1] .. redis.call('DBSIZE'), '1') return redis.call('DBSIZE')";
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let counts = (0..9).map(|task| {
        let node = nodes[task % 3].clone();
        async move {
            let mut sizes = Vec::new();
            for _ in 0..4 {
                let Reply::Integer(size) = answer(&node, script(COUNT, "key", &[])).await else {
                    panic!("a number")
                };
                sizes.push(size);
            }
            sizes
        }
    });
    let mut sizes = futures::future::join_all(counts).await.concat();
    sizes.sort_unstable();
    assert_eq!(
        sizes,
        (1..=36).collect::<Vec<i64>>(),
        "each saw one key more than the one before it"
    );
    assert_same_state(&nodes).await;
    stop(&nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_is_applied_once_while_its_leader_goes() {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let (leader, others) = leader_and_others(&nodes);
    let (sender, mut applied) = tokio::sync::watch::channel(0u64);
    let tasks = (0..8).map(|task| {
        let (node, sender) = (others[task % 2].clone(), sender.clone());
        tokio::spawn(async move {
            let (mut acknowledged, mut unknown) = (0u64, 0u64);
            for _ in 0..30 {
                match node.script(script(INCREMENT, "counter", &[])).await {
                    Ok(_) => acknowledged += 1,
                    Err(Error::Unknown { .. }) => unknown += 1,
                    Err(error) => assert!(!error.may_be_applied(), "{error}"),
                }
                sender.send_modify(|applied| *applied += 1);
            }
            (acknowledged, unknown)
        })
    });
    let tasks: Vec<_> = tasks.collect();
    applied.wait_for(|applied| *applied >= 40).await.unwrap();
    leader.stop().await.unwrap();
    let (mut acknowledged, mut unknown) = (0, 0);
    for task in tasks {
        let (of_it, unknown_of_it) = task.await.unwrap();
        (acknowledged, unknown) = (acknowledged + of_it, unknown + unknown_of_it);
    }
    assert!(acknowledged > 40, "it went on: {acknowledged}");
    assert_same_state(&others).await;
    let counter = get(&others[0], "counter").unwrap();
    assert!(
        (acknowledged..=acknowledged + unknown).contains(&counter),
        "{counter} of {acknowledged} acknowledged and {unknown} unknown"
    );
    stop(&others).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_loaded_on_one_node_is_known_to_all_and_after_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let text = Bytes::from_static(b"return 'known'");
    let sha = nodes[0].load_script(text.clone(), true).await.unwrap();
    for node in &nodes {
        eventually("the script is known", async || {
            node.view(0, |view| view.store().scripts().text(&sha) == Some(&text))
        })
        .await;
        node.stop().await.unwrap();
    }
    drop(nodes);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_on_one_node_is_served_by_a_write_on_another() {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let pop = |node: &Node| {
        let node = node.clone();
        async move {
            node.write(vec![Command::new(0, ["BLPOP", "queue", "0"])])
                .await
                .unwrap()
        }
    };
    let mut waiting = Vec::new();
    for node in &nodes {
        let mut written = pop(node).await;
        assert!(
            matches!(written.replies[..], [Reply::Waiting(_)]),
            "{:?}",
            written.replies
        );
        waiting.push(written.waits.pop().unwrap());
    }
    run(&nodes[2], &["RPUSH", "queue", "a", "b", "c"]).await;
    for (mut wait, element) in waiting.into_iter().zip(["a", "b", "c"]) {
        let served = wait.answer().await;
        assert_eq!(
            served,
            Reply::Array(vec![Reply::bulk("queue"), Reply::bulk(element)]),
            "first come, first served"
        );
    }
    // One who goes leaves nothing behind that would take an element.
    drop(pop(&nodes[0]).await);
    // This node has applied that it waits: on another it may not have come yet.
    eventually("nobody waits", async || {
        nodes[0].view(0, |view| view.store().waiting().is_empty())
    })
    .await;
    run(&nodes[1], &["RPUSH", "queue", "d"]).await;
    assert_eq!(read(&nodes[1], &["LLEN", "queue"]), Reply::Integer(1));
    assert_same_state(&nodes).await;
    stop(&nodes).await;
}

/// A script that runs until it is ended, and what it does before that.
fn endless(before: &str, key: &str) -> Request {
    let text: &'static str = Box::leak(format!("{before} local n = 0 while true do n = n + 1 end").into());
    script(text, key, &[])
}

/// What a script may take of an entry of the log in this test, and what its writes may come to in memory.
const COMMAND_BYTES: usize = 64 << 10;
const MEMORY_BYTES: usize = 8 * COMMAND_BYTES;

/// A run-away script is ended at the bound while it runs, whichever way it runs, and nothing of it is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_writes_without_end_is_ended_at_the_bound() {
    // Each catches what it can; `@` stands for what it looks at first.
    const SAME: &str = "@ while true do pcall(redis.call, 'SET', KEYS[1], 'v') end";
    const OTHERS: &str = "@ local n = 0 while true do n = n + 1 redis.pcall('SET', KEYS[1] .. n, 'v') end";
    const LARGE: &str =
        "@ local n = 0 while true do n = n + 1 redis.pcall('SETRANGE', KEYS[1] .. n, 100000, 'v') end";
    const ONCE: &str = "@ redis.pcall('SET', KEYS[1], string.rep('v', 70000)) return 'done'";
    const ANSWER: &str = "@ redis.call('SET', KEYS[1], 'v') return string.rep('v', 70000)";
    const NEVER: u64 = 2 * COMMAND_BYTES as u64 / 17;
    let data = tempfile::tempdir().unwrap();
    let node = one_with(data.path(), |config| config.limits.command_bytes = COMMAND_BYTES).await;
    let before = node.view(0, |view| view.store().bytes());
    let writes = [
        (SAME, NEVER),
        (OTHERS, NEVER),
        (LARGE, 2 * (MEMORY_BYTES as u64 / 100_000 + 2)),
        (ONCE, 0),
        (ANSWER, 1),
    ];
    for (text, most) in writes {
        // The second one looks at all keys: it runs alone.
        for first in ["", "redis.call('DBSIZE')"] {
            let text = text.replace('@', first);
            let function = Call::Function {
                code: format!("#!lua name=lib\nredis.register_function('f', function(KEYS) {text} end)")
                    .into(),
                name: "f".into(),
                keys: vec!["k".into()],
                args: Vec::new(),
                read_only: false,
            };
            let leaked: &'static str = Box::leak(text.clone().into());
            let script = script(leaked, "k", &[]);
            let set = Call::Command(["SET", "before", "1"].map(Bytes::from).to_vec());
            let transaction = Request {
                calls: [vec![(0, set)], script.calls.clone()].concat(),
                transaction: true,
                ..script.clone()
            };
            let function = Request::one("default".into(), 0, function);
            for (request, prefix) in [
                (script, "ERR Script ended: "),
                (function, "ERR Script ended: "),
                (
                    transaction,
                    "EXECABORT Transaction discarded because of: Script ended: ",
                ),
            ] {
                let (written, notes) = node.script(request).await.unwrap();
                let Reply::Error(ended) = &written.replies[0] else {
                    panic!("{text}: {:?}", written.replies)
                };
                let ended = ended.to_string();
                assert!(
                    ended.starts_with(prefix) && ended.contains("command_bytes"),
                    "{text}: {ended}"
                );
                let set = |called: &&Called| called.command.starts_with("SET");
                let ran = notes.calls.iter().find(set).map_or(0, |called| called.ran);
                assert!(ran <= most, "{text}: {ran} writes ran");
            }
        }
    }
    assert_eq!(
        node.view(0, |view| view.store().bytes()),
        before,
        "nothing of it is left"
    );
    // What is just small enough is written, also by one that looks at all keys.
    for first in ["", "redis.call('DBSIZE')"] {
        let text = format!("{first} redis.call('SET', KEYS[1], string.rep('v', 60000)) return 1");
        let leaked: &'static str = Box::leak(text.into());
        assert_eq!(
            answer(&node, script(leaked, "small", &[])).await,
            Reply::Integer(1)
        );
    }
    node.stop().await.unwrap();
}

/// One that reads more keys than an entry of the log can name runs where none has to be named.
#[tokio::test(flavor = "multi_thread")]
async fn a_script_reads_any_number_of_keys() {
    const READS: &str = "for n = 1, 5000 do redis.call('GET', KEYS[1] .. n) end @ return 'all'";
    let data = tempfile::tempdir().unwrap();
    let node = one_with(data.path(), |config| config.limits.command_bytes = COMMAND_BYTES).await;
    for then in ["", "redis.call('SET', KEYS[1], 1)"] {
        let leaked: &'static str = Box::leak(READS.replace('@', then).into());
        assert_eq!(answer(&node, script(leaked, "k", &[])).await, Reply::bulk("all"));
    }
    assert_eq!(get(&node, "k"), Some(1));
    node.stop().await.unwrap();
}

/// Answers of a transaction are kept until its end: they are bounded together.
#[tokio::test(flavor = "multi_thread")]
async fn the_answers_of_a_transaction_are_bounded() {
    let data = tempfile::tempdir().unwrap();
    let node = one_with(data.path(), |config| config.limits.command_bytes = COMMAND_BYTES).await;
    let one = script("return string.rep('v', 60000)", "k", &[]);
    for (count, fits) in [(8, true), (9, false)] {
        let transaction = Request {
            calls: vec![one.calls[0].clone(); count],
            transaction: true,
            ..one.clone()
        };
        match answer(&node, transaction).await {
            Reply::Array(answers) if fits => assert_eq!(answers.len(), count),
            Reply::Error(ended) if !fits => assert!(ended.to_string().contains("command_bytes"), "{ended}"),
            other => panic!("{count}: {other:?}"),
        }
    }
    node.stop().await.unwrap();
}

/// What runs beside a script is evaluated with it: it is told what comes of it in the log.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_transaction_with_scripts_is_told_is_what_is_in_the_log() {
    let data = tempfile::tempdir().unwrap();
    let node = one_with(data.path(), |_| {}).await;
    run(&node, &["SESSION.CREATE", "s", "60000"]).await;
    run(&node, &["CACHE.SET", "page", "v", "EX", "60", "TAGS", "1", "t"]).await;
    let command = |words: &[&str]| (0, Call::Command(argv(words)));
    let one = script("return 1", "k", &[]);
    let transaction = Request {
        calls: vec![
            command(&["ACL", "SETUSER", "bob", "off"]),
            command(&["SESSION.LOCK", "s", "EXCLUSIVE", "me", "60000"]),
            command(&["CACHE.LEASE", "other", "60000"]),
            command(&["CACHE.GET", "page"]),
            one.calls[0].clone(),
        ],
        transaction: true,
        ..one
    };
    let Reply::Array(answers) = answer(&node, transaction).await else {
        panic!("an answer for each")
    };
    let [Reply::Integer(lock), Reply::Array(lease)] = &answers[1..3] else {
        panic!("{answers:?}")
    };
    let Reply::Integer(lease) = lease[2] else {
        panic!("{lease:?}")
    };
    assert_eq!(answers[3], Reply::bulk("v"));
    assert!(node.view(0, |view| view.store().access().user(b"bob").is_some()));
    for (release, key, token) in [("SESSION.UNLOCK", "s", *lock), ("CACHE.RELEASE", "other", lease)] {
        let released = run(&node, &[release, key, &token.to_string()]).await;
        assert_eq!(released, Reply::Integer(1), "{release}");
    }
    node.stop().await.unwrap();
}

/// Also where something goes into the log before what it writes: for a connection that does not want to hear of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_script_pops_by_chance_is_what_goes() {
    const POP: &str = "return {redis.call('SPOP', KEYS[1]), redis.call('SPOP', KEYS[1])}";
    let data = tempfile::tempdir().unwrap();
    let node = one_with(data.path(), |_| {}).await;
    let members: Vec<String> = (0..1_000).map(|member| member.to_string()).collect();
    let add: Vec<&str> = ["SADD", "s"]
        .into_iter()
        .chain(members.iter().map(String::as_str))
        .collect();
    run(&node, &add).await;
    let bracket = |id: &'static str| Command::new(0, ["PUBLISH", "bracket", id]);
    let one = script(POP, "s", &[]);
    for around in [None, Some((bracket("1"), bracket("0")))] {
        let pop = (0, Call::Command(argv(&["SPOP", "s"])));
        let calls = vec![one.calls[0].clone(), pop, one.calls[0].clone()];
        for (transaction, calls) in [(false, one.calls.clone()), (true, calls)] {
            let request = Request {
                calls,
                transaction,
                around: around.clone(),
                ..one.clone()
            };
            let mut told = vec![answer(&node, request).await];
            while let Some(reply) = told.pop() {
                match reply {
                    Reply::Array(replies) => told.extend(replies),
                    Reply::Bulk(member) => {
                        let member = String::from_utf8_lossy(&member);
                        let left = read(&node, &["SISMEMBER", "s", &member]);
                        assert_eq!(left, Reply::Integer(0), "{member} of {transaction} in {around:?}");
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    assert_eq!(read(&node, &["SCARD", "s"]), Reply::Integer(1_000 - 14));
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_is_ended_from_any_node_and_leaves_nothing() {
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let (leader, others) = leader_and_others(&nodes);
    let (asked, other) = (&others[0], &others[1]);
    for node in &nodes {
        node.set_script_busy_after_ms(10);
    }
    // One that writes runs on the leader, one that reads where it was asked: both are ended from a third node.
    for before in ["redis.call('SET', KEYS[1], 1)", "redis.call('GET', KEYS[1])"] {
        let node = asked.clone();
        let looping = tokio::spawn(async move { answer(&node, endless(before, "k")).await });
        eventually("it is ended", async || {
            other.kill_script(Kind::Script).await.is_ok()
        })
        .await;
        let Reply::Error(ended) = looping.await.unwrap() else {
            panic!("it has no end of its own")
        };
        assert!(ended.to_string().contains("Script killed by user"), "{ended}");
    }
    assert_eq!(get(&leader, "k"), None);
    assert!(other.kill_script(Kind::Script).await.is_err(), "nothing runs");
    assert_eq!(
        answer(asked, script(INCREMENT, "k", &[])).await,
        Reply::Integer(1)
    );
    assert_same_state(&nodes).await;
    stop(&nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_of_a_follower_are_told_when_the_leader_is_busy_and_a_function_is_seen_from_there() {
    const LIBRARY: &str = "#!lua name=lib\nredis.register_function('loop', function(keys) redis.call('SET', keys[1], 1) while true do end end)";
    let data = tempfile::tempdir().unwrap();
    let nodes = three(data.path()).await;
    let (_, others) = leader_and_others(&nodes);
    let follower = others[0].clone();
    for node in &nodes {
        node.set_script_busy_after_ms(10);
    }
    let function = Call::Function {
        code: LIBRARY.into(),
        name: "loop".into(),
        keys: vec!["f".into()],
        args: vec!["a".into()],
        read_only: false,
    };
    let node = follower.clone();
    let looping =
        tokio::spawn(async move { answer(&node, Request::one("default".into(), 0, function)).await });
    eventually("the function is seen", async || {
        let running = follower.running_function().await;
        matches!(running, Ok(Some(running)) if running.busy && running.command == ["fcall", "loop", "1", "f", "a"])
    })
    .await;
    // One that writes wants the leader, which is busy; one that reads does not.
    let Reply::Error(busy) = answer(&follower, script(INCREMENT, "k", &[])).await else {
        panic!("the leader has no time")
    };
    assert!(busy.to_string().starts_with("BUSY "), "{busy}");
    assert_eq!(
        answer(&follower, script("return 7", "k", &[])).await,
        Reply::Integer(7)
    );
    assert!(
        follower.kill_script(Kind::Script).await.is_err(),
        "it is a function"
    );
    follower.kill_script(Kind::Function).await.unwrap();
    assert!(matches!(looping.await.unwrap(), Reply::Error(_)));
    assert_eq!(
        answer(&follower, script(INCREMENT, "k", &[])).await,
        Reply::Integer(1),
        "the refused one was never run"
    );
    // What a script called comes back to the node that was asked for it.
    let (_, notes) = follower.script(script(INCREMENT, "k", &[])).await.unwrap();
    let calls: Vec<_> = notes
        .calls
        .iter()
        .map(|called| (called.command, called.ran))
        .collect();
    assert_eq!(calls, [("GET", 1), ("SET", 1)]);
    assert_same_state(&nodes).await;
    stop(&nodes).await;
}

/// One that relies on everything relies on what ends by itself as well: it must not wait until nothing does.
#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_looks_at_all_keys_is_done_while_keys_end() {
    const KEYS: usize = 10_000;
    let data = tempfile::tempdir().unwrap();
    let node = one_with(data.path(), |_| {}).await;
    for first in (0..KEYS).step_by(500) {
        let set = |number: usize| {
            let life_ms = 2_000 + 2 * number;
            Command::new(
                0,
                format!("SET k{number} v PX {life_ms}")
                    .split(' ')
                    .map(str::to_owned),
            )
        };
        let sets: Vec<Command> = (first..first + 500).map(set).collect();
        node.write(sets).await.unwrap();
    }
    let left = || match read(&node, &["DBSIZE"]) {
        Reply::Integer(left) => left.unsigned_abs(),
        other => panic!("{other:?}"),
    };
    eventually("keys end", async || left() < KEYS as u64).await;
    let count = "return redis.call('SET', KEYS[1], redis.call('DBSIZE'))";
    for number in 0..20 {
        assert_eq!(answer(&node, script(count, "count", &[])).await, Reply::OK);
        assert!(left() > 1, "all others had ended before number {number} was done");
    }
    node.stop().await.unwrap();
}
