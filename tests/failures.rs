//! The failure table of ARCHITECTURE.md, row by row, with real processes: strangers, wrong secrets and folders, full and damaged disks,
//! lost disks, late starters, partitions (by SIGSTOP), snapshots. Nodes that are killed under load are in `crash.rs`.

#![cfg(all(feature = "cli", unix))]
#![allow(clippy::unwrap_used)]

mod common;
mod process;

use common::{PATIENCE, free_port};
use plenary::cli::client::text;
use plenary::machine::reply::Reply;
use plenary::node::status::Role;
use process::load::{Load, assert_nothing_lost_or_doubled};
use process::{Cluster, Process, plenary, wait_until};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Writers of a load that must only go on.
const WRITERS: usize = 8;

/// Writes that show that it does.
const SOME: u64 = 100;

/// What a disk that will be full has left, in blocks of 512 bytes: 8 MiB.
const FREE_BLOCKS: u64 = 16 << 10;

/// A snapshot each time the log has grown by this much.
const SMALL_LOG: [&str; 2] = ["--snapshot-log-bytes", "20000"];

/// After this long without others a node is not ready.
const SILENT: Duration = Duration::from_secs(10);

fn set(node: &Process, key: &str, value: &str) {
    assert_eq!(node.call(&["SET", key, value]).unwrap(), Reply::OK);
}

fn get(node: &Process, key: &str) -> String {
    text(&node.call(&["GET", key]).unwrap())
}

/// Waits until a node knows exactly three voters, itself among them.
#[track_caller]
fn three_voters(node: &Process) {
    wait_until("there are three voters", || {
        let status = node.status()?;
        let voters: Vec<u64> = status
            .members
            .iter()
            .filter(|member| member.voter)
            .map(|member| member.id)
            .collect();
        if voters.len() == 3 && status.members.len() == 3 && voters.contains(&status.node_id) {
            Ok(())
        } else {
            Err(format!("{:?}; {}", status.members, node.last_words()))
        }
    });
}

/// Sends bytes to a port and reads until the other end hangs up or says nothing for a while.
fn say(address: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    // It may hang up before it has heard all.
    let _ = stream.write_all(bytes);
    let mut answer = [0; 4096];
    while stream.read(&mut answer).is_ok_and(|count| count > 0) {}
}

/// A call between nodes without the proof that it comes from one.
async fn call_without_secret(address: &str, method: &'static str) -> tonic::Status {
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut client = tonic::client::Grpc::new(channel.connect().await.unwrap());
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let path = http_path(method);
    client
        .unary(tonic::Request::new(()), path, codec)
        .await
        .unwrap_err()
}

fn http_path(method: &'static str) -> tonic::codegen::http::uri::PathAndQuery {
    tonic::codegen::http::uri::PathAndQuery::from_static(method)
}

#[test]
fn strangers_on_the_peer_port_are_refused_and_the_cluster_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "a secret that is long enough for anybody\n").unwrap();
    let cluster = Cluster::three(&["--secret-file", secret.to_str().unwrap()]);
    let load = Load::start("load", WRITERS, &cluster.redis());
    let noise: Vec<u8> = (0..65_536u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mut half_frame = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    half_frame.extend_from_slice(&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1, 1]);
    for node in &cluster.nodes {
        say(&node.peers, &noise);
        say(&node.peers, b"GET / HTTP/1.1\r\nHost: plenary\r\n\r\n");
        say(&node.peers, &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 7, 7, 7]);
        say(&node.peers, &half_frame);
        say(&node.peers, b"*1\r\n$4\r\nPING\r\n");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for method in [
        "/plenary.v1.Peer/Vote",
        "/plenary.v1.Peer/Append",
        "/plenary.v1.Peer/ReadIndex",
        "/plenary.v1.Peer/Hello",
        "/plenary.v1.Peer/Promise",
        "/plenary.v1.Peer/ChangeMember",
        "/plenary.v1.Peer/Status",
        "/plenary.v1.Peer/TransferLeader",
    ] {
        let refused = runtime.block_on(call_without_secret(&cluster.nodes[0].peers, method));
        assert_eq!(
            refused.code(),
            tonic::Code::Unauthenticated,
            "{method}: {refused}"
        );
    }
    load.goes_on(SOME);
    let records = load.stop();
    assert!(records.iter().all(|record| record.errors.is_empty()));
    assert_nothing_lost_or_doubled(&cluster, &records);
}

/// A majority has every acknowledged write in any case; who wants it on more has writes refused meanwhile.
#[test]
fn a_node_that_hears_from_too_few_others_refuses_writes_where_it_is_told_to() {
    let mut cluster = Cluster::three(&[]);
    let (leader, config) = (cluster.leader(), ["CONFIG", "SET"]);
    let asked = (leader + 1) % 3;
    let other = (leader + 2) % 3;
    let node = &cluster.nodes[asked];
    let settings = ["min-replicas-max-lag", "1", "min-replicas-to-write", "2"];
    assert_eq!(node.call(&[&config[..], &settings].concat()).unwrap(), Reply::OK);
    // At once: setting it has asked the others.
    set(node, "key", "near");
    cluster.nodes[other].kill();
    let node = &cluster.nodes[asked];
    wait_until("the other is missed", || {
        match node.call(&["SET", "key", "alone"]) {
            Err(refused) if refused.to_string().contains("NOREPLICAS ") => Ok(()),
            said => Err(format!("{said:?}")),
        }
    });
    let value = get(node, "key");
    assert_eq!(text(&node.call(&["GET", "key"]).unwrap()), value, "reads go on");
    set(&cluster.nodes[leader], "key", "as it was not told to");
    cluster.nodes[other].start();
    let node = &cluster.nodes[asked];
    wait_until("the other is back", || match node.call(&["SET", "key", "near"]) {
        Ok(reply) if reply == Reply::OK => Ok(()),
        said => Err(format!("{said:?}")),
    });
}

#[test]
fn a_node_with_a_wrong_secret_never_joins_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, secret: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, secret).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (right, wrong) = (
        file("right", "the secret of all the others"),
        file("wrong", "another one altogether"),
    );
    let cluster = Cluster::three(&["--secret-file", &right]);
    let join = cluster
        .nodes
        .iter()
        .map(|node| node.peers.as_str())
        .collect::<Vec<_>>()
        .join(",");
    let mut stranger = Process::new(
        cluster.folder.path(),
        "stranger",
        &format!("127.0.0.1:{}", free_port()),
        &["--join", &join, "--expect", "3", "--secret-file", &wrong],
    );
    stranger.start();
    stranger.says("wrong or missing cluster secret");
    let status = stranger.status().unwrap();
    assert_eq!(
        (status.role, status.cluster_id),
        (Role::Forming, None),
        "{status:?}"
    );
    set(&cluster.nodes[0], "k", "v");
    assert_eq!(cluster.nodes[0].status().unwrap().members.len(), 3);
    assert!(
        stranger.stop().success(),
        "one that belongs nowhere can be stopped"
    );
}

#[test]
fn a_folder_of_another_cluster_is_refused() {
    let (mut ours, theirs) = (Cluster::three(&[]), Cluster::three(&[]));
    for cluster in [&ours, &theirs] {
        set(&cluster.nodes[0], "k", "v");
    }
    let mut moved = ours.nodes.remove(2);
    moved.kill();
    let join = theirs
        .nodes
        .iter()
        .map(|node| node.peers.as_str())
        .collect::<Vec<_>>()
        .join(",");
    moved.args = ["--join", &join, "--expect", "3"].map(str::to_owned).to_vec();
    moved.start();
    let ended = moved.ended();
    assert_eq!(ended.code(), Some(1), "{}", moved.last_words());
    assert!(
        moved.said().contains("belongs to cluster"),
        "{}",
        moved.last_words()
    );
    for cluster in [&ours, &theirs] {
        set(&cluster.nodes[0], "k", "w");
        cluster.assert_same_state();
    }
}

#[test]
fn a_node_that_moved_to_another_address_is_found_again() {
    let mut cluster = Cluster::three(&[]);
    set(&cluster.nodes[0], "k", "v");
    let id = cluster.nodes[2].status().unwrap().node_id;
    cluster.nodes[2].kill();
    set(&cluster.nodes[0], "k", "w");
    cluster.nodes[2].peers = format!("127.0.0.1:{}", free_port());
    cluster.nodes[2].start();
    cluster.nodes[2].ready();
    wait_until("it has caught up", || {
        match get(&cluster.nodes[2], "k").as_str() {
            "w" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    assert_eq!(cluster.nodes[2].status().unwrap().node_id, id);
    three_voters(&cluster.nodes[2]);
    cluster.assert_same_state();
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for item in std::fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let target = to.join(item.file_name());
        if item.file_type().unwrap().is_dir() {
            copy_folder(&item.path(), &target);
        } else {
            std::fs::copy(item.path(), target).unwrap();
        }
    }
}

#[test]
fn a_copy_of_a_folder_does_not_become_a_second_node_of_one_id() {
    let mut cluster = Cluster::three(&[]);
    set(&cluster.nodes[0], "k", "v");
    cluster.level();
    cluster.nodes[2].kill();
    let mut copy = Process::new(
        cluster.folder.path(),
        "copy",
        &format!("127.0.0.1:{}", free_port()),
        &[],
    );
    copy.args = cluster.nodes[2].args.clone();
    copy_folder(&cluster.nodes[2].data, &copy.data);
    cluster.start_all();
    let load = Load::start("load", WRITERS, &cluster.redis());
    load.goes_on(SOME);
    copy.start();
    let ended = copy.ended();
    assert_eq!(ended.code(), Some(1), "{}", copy.last_words());
    assert!(copy.said().contains("a copy"), "{}", copy.last_words());
    load.goes_on(SOME);
    assert_nothing_lost_or_doubled(&cluster, &load.stop());
    three_voters(&cluster.nodes[2]);
}

#[test]
fn a_node_whose_disk_is_full_stops_taking_part_and_the_others_go_on() {
    let mut cluster = Cluster::three(&[]);
    set(&cluster.nodes[0], "k", "v");
    let full = cluster.leader();
    cluster.nodes[full].kill();
    // Files may not be written beyond so much: the system answers EFBIG, as it would answer ENOSPC. What the log has filled ahead stays.
    let log = cluster.nodes[full].data.join("log/00000000000000000001.log");
    // `ulimit -f` counts blocks of 512 bytes.
    let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(log).unwrap()) + FREE_BLOCKS;
    let mut limited = std::process::Command::new("sh");
    limited.arg("-c");
    limited.arg(format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\""));
    limited.arg(env!("CARGO_BIN_EXE_plenary")).arg("serve");
    cluster.nodes[full].start_by(&mut limited);
    cluster.nodes[full].ready();
    let load = Load::start("load", WRITERS, &cluster.redis());
    let mut filler = cluster.nodes[(full + 1) % 3].client().unwrap();
    let value = "x".repeat(60_000);
    wait_until("the disk is full", || {
        filler.call(&["SET", "large", &value]).unwrap();
        match cluster.nodes[full].child.as_mut().unwrap().try_wait().unwrap() {
            Some(_) => Ok(()),
            None => Err(cluster.nodes[full].last_words()),
        }
    });
    let ended = cluster.nodes[full].ended();
    let said = cluster.nodes[full].said();
    assert_eq!(ended.code(), Some(1), "{}", cluster.nodes[full].last_words());
    assert!(
        said.contains("too large") && said.contains("this node has stopped"),
        "{said}"
    );
    load.goes_on(SOME);
    // With room on its disk it takes part again.
    cluster.start_all();
    load.goes_on(SOME);
    assert_nothing_lost_or_doubled(&cluster, &load.stop());
}

/// Flips a bit of the byte in the middle of each place where the file has these bytes. How many there were.
fn flip(file: &Path, bytes: &[u8]) -> usize {
    let mut content = std::fs::read(file).unwrap();
    // What is not written yet is not searched.
    let used = content
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    let places: Vec<usize> = content[..used]
        .windows(bytes.len())
        .enumerate()
        .filter(|(_, window)| *window == bytes)
        .map(|(place, _)| place)
        .collect();
    for place in &places {
        content[place + bytes.len() / 2] ^= 1;
    }
    std::fs::write(file, content).unwrap();
    places.len()
}

#[test]
fn a_flipped_byte_in_the_log_keeps_a_node_from_starting() {
    let mut cluster = Cluster::three(&[]);
    set(&cluster.nodes[0], "k", "a value that is easily found again");
    for number in 0..20 {
        set(&cluster.nodes[0], "other", &number.to_string());
    }
    cluster.level();
    cluster.nodes[2].stop();
    let log = cluster.nodes[2].data.join("log/00000000000000000001.log");
    assert!(flip(&log, b"a value that is easily found again") > 0);
    cluster.nodes[2].start();
    let ended = cluster.nodes[2].ended();
    let said = cluster.nodes[2].said();
    assert_eq!(ended.code(), Some(1), "{}", cluster.nodes[2].last_words());
    assert!(
        said.contains("empty the folder and let it join"),
        "no advice: {said}"
    );
    set(&cluster.nodes[0], "k", "goes on");
    // The advice, followed: it comes back as a new member.
    std::fs::remove_dir_all(&cluster.nodes[2].data).unwrap();
    cluster.start_all();
    three_voters(&cluster.nodes[2]);
    cluster.level();
    assert_eq!(get(&cluster.nodes[2], "k"), "goes on");
}

#[test]
fn a_damaged_snapshot_is_passed_over_while_the_log_is_whole() {
    let mut cluster = Cluster::three(&SMALL_LOG);
    let load = Load::start("load", WRITERS, &cluster.redis());
    snapshots_everywhere(&cluster);
    let records = load.stop();
    cluster.nodes[1].stop();
    let mut damaged = 0;
    for file in std::fs::read_dir(cluster.nodes[1].data.join("snapshots")).unwrap() {
        let path = file.unwrap().path();
        let mut content = std::fs::read(&path).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        std::fs::write(&path, content).unwrap();
        damaged += 1;
    }
    assert!(damaged > 0);
    cluster.start_all();
    assert_nothing_lost_or_doubled(&cluster, &records);
}

#[track_caller]
fn snapshots_everywhere(cluster: &Cluster) {
    for node in cluster.running() {
        wait_until("a snapshot is taken", || match node.status()?.snapshot_index {
            0 => Err(node.last_words()),
            _ => Ok(()),
        });
    }
}

#[test]
fn everything_is_there_after_a_snapshot_and_a_kill_of_all() {
    let mut cluster = Cluster::three(&SMALL_LOG);
    let load = Load::start("load", WRITERS, &cluster.redis());
    snapshots_everywhere(&cluster);
    load.goes_on(SOME);
    for node in &mut cluster.nodes {
        node.kill();
    }
    let records = load.stop();
    cluster.start_all();
    assert_nothing_lost_or_doubled(&cluster, &records);
}

#[test]
fn a_node_that_was_down_for_long_catches_up_by_a_snapshot_while_writes_go_on() {
    // Every write is an entry, so that the log is soon cut where the node that is down left it.
    let settings = [
        "--durability",
        "os",
        "--group-commands",
        "1",
        "--groups-in-flight",
        "16",
        "--snapshot-log-bytes",
        "100000",
    ];
    let mut cluster = Cluster::three(&settings);
    set(&cluster.nodes[0], "k", "v");
    let leader = cluster.leader();
    let late = (leader + 1) % 3;
    cluster.nodes[late].kill();
    let load = Load::start("load", 64, &cluster.redis());
    let left = cluster.nodes[leader].status().unwrap().last_log_index;
    wait_until("the log is cut behind it", || {
        // 4,096 entries stay below a snapshot.
        let snapshot = cluster.nodes[leader].status()?.snapshot_index;
        if snapshot > left + 5_000 {
            Ok(())
        } else {
            Err(format!("{snapshot} of {left}"))
        }
    });
    cluster.start_all();
    wait_until("it has a snapshot", || {
        let status = cluster.nodes[late].status()?;
        if status.snapshot_index > left {
            Ok(())
        } else {
            Err(format!("{status:?}"))
        }
    });
    load.goes_on(SOME);
    assert_nothing_lost_or_doubled(&cluster, &load.stop());
}

#[test]
fn a_node_whose_disk_was_lost_comes_back_as_another_member() {
    for which in 0..2 {
        let mut cluster = Cluster::three(&[]);
        let load = Load::start("load", WRITERS, &cluster.redis());
        load.goes_on(SOME);
        // Once the leader, once a follower.
        let lost = (cluster.leader() + which) % 3;
        let id = cluster.nodes[lost].status().unwrap().node_id;
        cluster.nodes[lost].kill();
        std::fs::remove_dir_all(&cluster.nodes[lost].data).unwrap();
        cluster.start_all();
        three_voters(&cluster.nodes[lost]);
        let status = cluster.nodes[lost].status().unwrap();
        assert!(status.node_id != id && status.members.iter().all(|member| member.id != id));
        load.goes_on(SOME);
        assert_nothing_lost_or_doubled(&cluster, &load.stop());
    }
}

#[test]
fn two_lost_disks_never_make_a_second_cluster() {
    let mut cluster = Cluster::three(&[]);
    set(&cluster.nodes[2], "k", "v");
    cluster.level();
    let known = cluster.nodes[2].status().unwrap().cluster_id;
    for node in &mut cluster.nodes {
        node.kill();
    }
    // The first founder is the one that could begin a cluster: it is among those that forgot.
    cluster.nodes.sort_by(|a, b| a.peers.cmp(&b.peers));
    for node in &mut cluster.nodes[..2] {
        std::fs::remove_dir_all(&node.data).unwrap();
        node.start();
    }
    for node in &cluster.nodes[..2] {
        node.says("no cluster yet");
    }
    cluster.nodes[2].start();
    let looks_again = |node: &Process| node.said().matches("no cluster yet").count();
    let before: Vec<usize> = cluster.nodes[..2].iter().map(looks_again).collect();
    for (node, before) in cluster.nodes[..2].iter().zip(before) {
        wait_until("it looks around in vain", || {
            if looks_again(node) > before {
                Ok(())
            } else {
                Err(node.last_words())
            }
        });
        let status = node.status().unwrap();
        assert!(
            status.cluster_id.is_none() || status.cluster_id == known,
            "{status:?}"
        );
        assert!(!status.ready, "{status:?}");
        assert!(node.call(&["SET", "k", "w"]).is_err());
    }
    let survivor = cluster.nodes[2].status().unwrap();
    assert_eq!(survivor.cluster_id, known);
    assert!(
        cluster.nodes[2].call(&["SET", "k", "w"]).is_err(),
        "one of three is no majority"
    );
}

#[test]
fn nodes_that_start_in_any_order_and_late_form_one_cluster() {
    let third_comes_late = |late: usize| {
        let mut cluster = Cluster::new(3, &[]);
        for which in (0..3).rev().filter(|which| *which != late) {
            cluster.nodes[which].start();
        }
        // Seconds without the third.
        for node in cluster.running() {
            node.says("no cluster yet");
        }
        cluster.start_all();
        let clusters: Vec<_> = cluster
            .nodes
            .iter()
            .map(|node| node.status().unwrap().cluster_id)
            .collect();
        assert!(
            clusters[0].is_some() && clusters.iter().all(|id| *id == clusters[0]),
            "{clusters:?}"
        );
        set(&cluster.nodes[late], "k", "v");
        cluster.assert_same_state();
    };
    std::thread::scope(|scope| {
        for late in 0..3 {
            scope.spawn(move || third_comes_late(late));
        }
    });
}

#[test]
fn a_minority_refuses_writes_and_linearizable_reads_and_serves_local_ones() {
    let mut cluster = Cluster::three(&["--write-deadline-ms", "1000"]);
    set(&cluster.nodes[0], "k", "v");
    cluster.level();
    let leader = cluster.leader();
    // Once cut off as a follower, once as the leader that it was.
    for alone in [(leader + 1) % 3, leader] {
        let others: Vec<usize> = (0..3).filter(|which| *which != alone).collect();
        for which in &others {
            cluster.nodes[*which].signal("STOP");
        }
        let node = &cluster.nodes[alone];
        let refused = node.call(&["SET", "k", "minority"]).unwrap_err().to_string();
        assert!(
            !refused.contains("os error"),
            "no answer to a write; {}",
            node.last_words()
        );
        assert!(
            refused.contains("LOADING no leader") || refused.contains("UNKNOWN unknown outcome"),
            "{refused}"
        );
        let mut client = node.client().unwrap();
        assert_eq!(text(&client.call(&["GET", "k"]).unwrap()), "v");
        client.call(&["PLENARY", "FRESH", "linearizable"]).unwrap();
        let refused = client.call(&["GET", "k"]).unwrap_err().to_string();
        assert!(refused.contains("TRYAGAIN not fresh enough"), "{refused}");
        client.call(&["PLENARY", "FRESH", "local"]).unwrap();
        assert_eq!(text(&client.call(&["GET", "k"]).unwrap()), "v");
        for which in &others {
            cluster.nodes[*which].signal("CONT");
        }
        wait_until("writes go on", || {
            cluster.nodes[alone]
                .call(&["SET", "k", "v"])
                .map(drop)
                .map_err(|error| error.to_string())
        });
        cluster.level();
    }
    for node in &mut cluster.nodes {
        node.ready();
    }
    cluster.assert_same_state();
}

/// So that no load balancer sends users to it, whose writes it would refuse.
#[test]
fn a_node_that_is_cut_off_is_not_ready_until_it_hears_from_a_majority_again() {
    let cluster = Cluster::three(&["--write-deadline-ms", "1000"]);
    let leader = cluster.leader();
    for alone in [(leader + 1) % 3, leader] {
        let others: Vec<usize> = (0..3).filter(|which| *which != alone).collect();
        let signal =
            |which: &[usize], what| which.iter().for_each(|which| cluster.nodes[*which].signal(what));
        let node = &cluster.nodes[alone];
        signal(&others[..1], "STOP");
        // Time that passes is what is tried here: longer than a member may be silent.
        std::thread::sleep(SILENT);
        assert!(node.status().unwrap().ready, "it is one of a majority");
        signal(&others[1..], "STOP");
        let began = Instant::now();
        wait_until("it says that it cannot serve", || {
            let status = node.status()?;
            (!status.ready).then_some(()).ok_or(format!("{status:?}"))
        });
        assert!(began.elapsed() < SILENT, "after {:?}", began.elapsed());
        signal(&others, "CONT");
        node.ready();
        cluster.level();
    }
}

#[test]
fn a_leader_that_stood_still_loses_nothing_and_reads_nothing_stale() {
    let cluster = Cluster::three(&[]);
    let load = Load::start("load", WRITERS, &cluster.redis());
    for round in 0..5 {
        load.goes_on(SOME);
        let still = cluster.leader();
        let key = format!("key{round}");
        set(&cluster.nodes[still], &key, "old");
        let mut reader = cluster.nodes[still].client().unwrap();
        reader.call(&["PLENARY", "FRESH", "linearizable"]).unwrap();
        cluster.nodes[still].signal("STOP");
        let other = &cluster.nodes[(still + 1) % 3];
        wait_until("another leads", || {
            other
                .call(&["SET", &key, "new"])
                .map(drop)
                .map_err(|error| error.to_string())
        });
        // Asked while it stands still, answered when it wakes and believes that it leads.
        let asked = std::thread::spawn({
            let key = key.clone();
            move || reader.call(&["GET", &key]).map(|reply| text(&reply))
        });
        cluster.nodes[still].signal("CONT");
        match asked.join().unwrap() {
            Ok(read) => assert_eq!(read, "new", "a stale linearizable read"),
            Err(error) => assert!(error.to_string().contains("TRYAGAIN"), "{error}"),
        }
    }
    load.goes_on(SOME);
    assert_nothing_lost_or_doubled(&cluster, &load.stop());
}

/// Reads, then writes what it read and one more: applied twice, it would give a number twice or leave one out.
const INCREMENT: &str =
    "local n = tonumber(redis.call('GET', KEYS[1]) or '0') redis.call('SET', KEYS[1], n + 1) return n + 1";

/// What callers of [`INCREMENT`] were answered.
#[derive(Default)]
struct Counted {
    numbers: Mutex<Vec<i64>>,
    /// Errors that say that it may have been applied, and all errors.
    unknown: AtomicUsize,
    errors: AtomicUsize,
    stop: AtomicBool,
}

impl Counted {
    /// Calls the script on one connection until it is told to stop; each answer comes in time.
    fn call(&self, node: &Process, key: &str, in_time: Duration) {
        let (began, mut client) = (Instant::now(), node.client().unwrap());
        while !self.stop.load(Relaxed) && began.elapsed() < 3 * PATIENCE {
            let asked = Instant::now();
            match client.call(&["EVAL", INCREMENT, "1", key]) {
                Ok(Reply::Integer(number)) => self.numbers.lock().unwrap().push(number),
                Ok(other) => panic!("{other:?}"),
                Err(error) => {
                    let error = error.to_string();
                    let unknown = error.contains("UNKNOWN unknown outcome");
                    assert!(unknown || error.contains("LOADING no leader"), "{error}");
                    self.unknown.fetch_add(usize::from(unknown), Relaxed);
                    self.errors.fetch_add(1, Relaxed);
                }
            }
            let took = asked.elapsed();
            assert!(took < in_time, "{took:?}; {}", node.last_words());
        }
    }

    /// Waits until so many more were answered.
    #[track_caller]
    fn goes_on(&self, more: usize) {
        let answered = || self.numbers.lock().unwrap().len();
        let wanted = answered() + more;
        wait_until("scripts are answered", || match answered() {
            enough if enough >= wanted => Ok(()),
            few => Err(format!("{few} of {wanted}")),
        });
    }
}

#[test]
fn a_script_whose_leader_hangs_is_answered_in_time_and_applied_once() {
    const CALLERS: usize = 4;
    // The deadline of writes, before it what it takes to notice, and a machine that does other things as well.
    const IN_TIME: Duration = Duration::from_secs(8);
    let cluster = Cluster::three(&["--write-deadline-ms", "2000"]);
    for round in 0..4 {
        let still = cluster.leader();
        let followers = [(still + 1) % 3, (still + 2) % 3];
        // Every other time nobody can take over: the other follower stands still with the leader.
        let (asked, others) = match round % 2 {
            0 => (followers, vec![still]),
            _ => ([followers[0]; 2], vec![still, followers[1]]),
        };
        let (counted, key) = (Counted::default(), format!("counter{round}"));
        std::thread::scope(|scope| {
            for caller in 0..CALLERS {
                let node = &cluster.nodes[asked[caller % 2]];
                let (counted, key) = (&counted, &key);
                scope.spawn(move || counted.call(node, key, IN_TIME));
            }
            counted.goes_on(20);
            others
                .iter()
                .for_each(|which| cluster.nodes[*which].signal("STOP"));
            if others.len() == 1 {
                counted.goes_on(20);
            } else {
                wait_until("each caller is told", || match counted.errors.load(Relaxed) {
                    enough if enough >= CALLERS => Ok(()),
                    few => Err(format!("{few} were told")),
                });
            }
            others
                .iter()
                .for_each(|which| cluster.nodes[*which].signal("CONT"));
            counted.goes_on(20);
            counted.stop.store(true, Relaxed);
        });
        cluster.level();
        let last: usize = get(&cluster.nodes[still], &key).parse().unwrap();
        let mut numbers = counted.numbers.into_inner().unwrap();
        numbers.sort_unstable();
        let acknowledged = numbers.len();
        numbers.dedup();
        assert_eq!(numbers.len(), acknowledged, "no number was given twice");
        let unknown = counted.unknown.into_inner();
        assert!(
            (acknowledged..=acknowledged + unknown).contains(&last),
            "{last} of {acknowledged} acknowledged and {unknown} unknown"
        );
    }
    cluster.assert_same_state();
}

#[test]
fn one_folder_is_for_one_process_of_a_cluster_too() {
    let cluster = Cluster::three(&[]);
    let folder = cluster.nodes[0].data.to_str().unwrap();
    let mut second = plenary(["serve", "--listen", "127.0.0.1:0", "--data", folder]);
    process::run(&mut second).failed_with(1, &["in use by another process"]);
    set(&cluster.nodes[0], "k", "v");
}

/// Who loads a value, or has a lock, and is killed with its node keeps the others waiting until the lease's deadline and no longer.
#[test]
fn a_lease_of_a_killed_node_goes_to_the_next_at_its_deadline() {
    let lease_ms = 4_000;
    let mut cluster = Cluster::three(&[]);
    let lease = |ms: u64| ["CACHE.LEASE".to_owned(), "page".to_owned(), ms.to_string()];
    let granted = cluster.nodes[0].client().unwrap().call(&lease(lease_ms)).unwrap();
    let (began, token) = (Instant::now(), token(&granted).expect("nobody else has it"));
    let (answer, answers) = std::sync::mpsc::channel();
    for (which, node) in cluster.nodes.iter().enumerate().skip(1) {
        let (mut client, answer) = (node.client().unwrap(), answer.clone());
        client.set_reply_time_max(PATIENCE).unwrap();
        let waits = lease(600_000)
            .into_iter()
            .chain(["WAIT", "600000"].map(str::to_owned));
        let waits: Vec<String> = waits.collect();
        std::thread::spawn(move || answer.send((which, client.call(&waits).unwrap())));
        wait_until("it waits", || match node.call(&["INFO", "clients"]) {
            Ok(info) if text(&info).contains("blocked_clients:1") => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    cluster.nodes[0].kill();
    let (which, reply) = answers.recv_timeout(PATIENCE).unwrap();
    assert_eq!(which, 1, "it came first");
    // Never before its time is over, by the log's clock, which each node estimates to a little.
    assert!(
        began.elapsed() > Duration::from_millis(lease_ms - 500),
        "{:?}",
        began.elapsed()
    );
    let next = self::token(&reply).expect("it is the next");
    assert!(next > token);
    let put = |token: i64| ["CACHE.SET", "page", "value", "LEASE", &token.to_string()].map(str::to_owned);
    assert_eq!(
        cluster.nodes[2].client().unwrap().call(&put(token)).unwrap(),
        Reply::Nil
    );
    assert_eq!(
        cluster.nodes[1].client().unwrap().call(&put(next)).unwrap(),
        Reply::OK
    );
    let (which, reply) = answers.recv_timeout(PATIENCE).unwrap();
    let value = Reply::Array(vec![Reply::bulk("value"), Reply::Integer(1), Reply::Nil]);
    assert_eq!((which, reply), (2, value));
    cluster.assert_same_state();
}

/// What `CACHE.LEASE` gave to one who is to make the next value.
fn token(reply: &Reply) -> Option<i64> {
    match reply {
        Reply::Array(parts) => match parts[..] {
            [_, _, Reply::Integer(token)] => Some(token),
            _ => None,
        },
        _ => None,
    }
}
