//! An older program beside today's: a cluster is upgraded one node at a time under load, and goes back where that is promised; where it is not, the older
//! program says what to do.
//!
//! The older program is built from this repository (`process/older.rs`), from the commit in `upgrade/commit`: the last one whose formats are promised. Whoever raises a level or a format lets that file name a commit from before, and a program of
//! each level that is promised still stays in the tests by a second file.

#![cfg(all(feature = "cli", unix))]
#![allow(clippy::unwrap_used)]

mod common;
mod process;

use plenary::machine::entry::Entry;
use plenary::machine::reply::Reply;
use process::load::{Load, assert_nothing_lost_or_doubled};
use process::{Cluster, Process, plenary, program, wait_until};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Writes that must be acknowledged between two steps.
const BETWEEN: u64 = 200;

/// How many write.
const WRITERS: usize = 16;

/// A snapshot after so much log, so that both programs load what the other wrote.
const SETTINGS: &[&str] = &["--snapshot-log-bytes", "65536"];

/// Which commit the older program is of.
const COMMIT: &str = include_str!("upgrade/commit");

/// The older program. None where there is no repository to build it from; it has been said then.
fn older() -> Option<&'static Path> {
    static OLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    OLDER
        .get_or_init(|| process::older::build(COMMIT.trim()))
        .as_deref()
}

fn start(node: &mut Process, older: Option<&Path>) {
    match older {
        Some(older) => node.start_by(&mut program(older, ["serve"])),
        None => node.start_by(&mut plenary(["serve"])),
    }
    node.ready();
}

/// Stops it, and starts it with another program.
fn replace(node: &mut Process, older: Option<&Path>) {
    assert!(node.stop().success(), "{}", node.last_words());
    start(node, older);
}

/// Commands of many kinds. Each must be answered alike by whatever node of whatever program, the second time on other keys.
const KINDS: &[&str] = &[
    "SET {k}s v PX 9000000",
    "SETRANGE {k}s 3 x",
    "HSET {k}h a 1 b 2",
    "HPEXPIRE {k}h 500000 FIELDS 1 a",
    "RPUSH {k}l 1 2 3",
    "SADD {k}set a b c d",
    "SPOP {k}set",
    "ZADD {k}z 1 a 2 b",
    "XADD {k}x * f v",
    "XGROUP CREATE {k}x g 0",
    "XREADGROUP GROUP g c STREAMS {k}x >",
    "PFADD {k}p a b c",
    "GEOADD {k}g 13.361389 38.115556 Palermo",
    "COPY {k}z {k}y",
    "EVAL redis.call('SET',KEYS[1],ARGV[1])return(redis.call('INCR',KEYS[1])) 1 {k}e 41",
    // More than end with one group: by how many, the formats differ.
    "EVAL for\ti=1,300\tdo\tredis.call('SET',KEYS[1]..i,'v','PX','1')end 1 {k}end",
    "SCRIPT LOAD return(1)",
    "SESSION.CREATE {k}ses 600000 OWNER ann ITEMS 1 a 1",
    "SESSION.LOCK {k}ses EXCLUSIVE me 60000",
    "SESSION.RENAME {k}l {k}other",
    "CACHE.SET {k}c value TAGS 1 {k}tag",
    "CACHE.INVALIDATE {k}tag",
    "CONFIG SET notify-keyspace-events KEA",
    "EXPIRE {k}z 1000",
    "NOSUCHCOMMAND {k}",
];

/// Puts all kinds of commands to two nodes, and compares what they answer in kind, then the states.
fn all_kinds(cluster: &Cluster, round: &str, nodes: [usize; 2]) {
    for kind in KINDS {
        let answers = nodes.map(|node| {
            let line = kind.replace("{k}", &format!("{round}{node}:"));
            let argv: Vec<&str> = line.split(' ').collect();
            cluster.nodes[node].call(&argv)
        });
        let alike = match &answers {
            [Ok(one), Ok(other)] => std::mem::discriminant(one) == std::mem::discriminant(other),
            [Err(_), Err(_)] => true,
            _ => false,
        };
        assert!(alike, "{kind}: {answers:?}");
    }
    cluster.level();
}

fn level(node: &Process) -> u8 {
    node.status().unwrap().level
}

#[test]
fn a_cluster_is_upgraded_one_node_at_a_time_and_nothing_is_lost() {
    let Some(older) = older() else { return };
    let mut cluster = Cluster::new(3, SETTINGS);
    // One keeps its log in the other kind of files.
    cluster.nodes[2]
        .args
        .extend(["--log-store", "sled"].map(str::to_owned));
    for node in &mut cluster.nodes {
        node.start_by(&mut program(older, ["serve"]));
    }
    for node in &cluster.nodes {
        node.ready();
    }
    let load = Load::start("upgrade", WRITERS, &cluster.redis());
    load.goes_on(BETWEEN);
    all_kinds(&cluster, "older", [0, 1]);
    for which in 0..3 {
        replace(&mut cluster.nodes[which], None);
        load.goes_on(BETWEEN);
        if which == 2 {
            break;
        }
        // A step back, then forward again: by a kill, for nobody announces that.
        replace(&mut cluster.nodes[which], Some(older));
        load.goes_on(BETWEEN);
        cluster.nodes[which].kill();
        start(&mut cluster.nodes[which], None);
        load.goes_on(BETWEEN);
        if which == 1 {
            // If the last older one leads, it hands over: today's program leads an older member.
            replace(&mut cluster.nodes[2], Some(older));
            load.goes_on(BETWEEN);
        }
        all_kinds(&cluster, &format!("mixed{which}"), [which, 2]);
        assert_eq!(
            level(&cluster.nodes[which]),
            Entry::FIRST_FORMAT,
            "an older program is a member"
        );
    }
    for node in &cluster.nodes {
        wait_until("all know that all understand the new level", || {
            match level(node) {
                Entry::FORMAT => Ok(()),
                level => Err(format!("{level}; {}", node.last_words())),
            }
        });
    }
    all_kinds(&cluster, "newer", [0, 2]);
    let proof = assert_nothing_lost_or_doubled(&cluster, &load.stop());
    println!("upgraded: {proof:?}");

    // From here on there is no way back: the older program says so, changes nothing, and today's goes on.
    assert!(cluster.nodes[1].stop().success());
    cluster.nodes[1].start_by(&mut program(older, ["serve"]));
    assert_eq!(
        cluster.nodes[1].ended().code(),
        Some(1),
        "{}",
        cluster.nodes[1].last_words()
    );
    let said = cluster.nodes[1].last_words();
    assert!(
        said.contains("run a newer one") || said.contains("which a later version may know"),
        "{said}"
    );
    let load = Load::start("after", WRITERS, &cluster.redis());
    load.goes_on(BETWEEN);
    start(&mut cluster.nodes[1], None);
    load.goes_on(BETWEEN);
    assert_nothing_lost_or_doubled(&cluster, &load.stop());
}

#[test]
fn an_older_program_is_not_let_into_a_cluster_that_is_beyond_it() {
    let Some(older) = older() else { return };
    let cluster = Cluster::three(&[]);
    let node = &cluster.nodes[0];
    assert_eq!(node.call(&["SET", "key", "value"]).unwrap(), Reply::OK);
    wait_until("the level is raised", || {
        let told = node
            .call(&["SET", "key", "value"])
            .map_err(|error| error.to_string())?;
        if level(node) == Entry::FORMAT {
            Ok(())
        } else {
            Err(format!("{told:?}"))
        }
    });
    let join = cluster.nodes[0].peers.clone();
    let address = format!("127.0.0.1:{}", common::free_port());
    let mut late = Process::new(cluster.folder.path(), "late", &address, &["--join", &join]);
    late.start_by(&mut program(older, ["serve"]));
    late.says(&format!(
        "the cluster is at level {}, the caller's program understands level 1: run a newer one there",
        Entry::FORMAT
    ));
    let members = node.status().unwrap().members.len();
    assert_eq!(members, 3, "it is no member");
    late.kill();
    // The same folder, by today's program.
    start(&mut late, None);
}
