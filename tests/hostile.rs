//! Who means harm, at the ports of real processes: strangers at the peer port, clients without key, connections that say half of something, never read,
//! or are too many, pipelines of a gigabyte, nesting, lengths that never come. Nothing is done for a stranger, memory stays below a bound that has
//! a name here, and whoever is honest is served meanwhile.
//!
//! A bound is on what the process takes beyond what it had when it served: the peak that Linux counts (`VmHWM`). tests/README.md has them in a table.

#![cfg(all(feature = "cli", target_os = "linux"))]
#![allow(clippy::unwrap_used)]

mod common;
mod process;

use common::{PATIENCE, free_port};
use hmac::{Hmac, KeyInit, Mac};
use plenary::cli::client::text;
use plenary::edge::resp::decode::request;
use plenary::machine::entry::{Command, Entry, Origin, encode};
use plenary::machine::reply::Reply;
use plenary::node::status::Status;
use process::load::Load;
use process::{Process, plenary, run};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use tonic::codegen::http::uri::PathAndQuery;

const MIB: u64 = 1 << 20;

/// Of calls that show no proof, whatever they carry: their connections, and what was on its way when they were refused (the window of each is 16 MiB).
const OF_STRANGERS_CALLS: u64 = 48 * MIB;
/// Of connections to the peer port that say half of something: 256 at once.
const OF_HALF_A_PEER: u64 = 16 * MIB;
/// Of clients that have not said who they are and read nothing: 64 KiB of replies each, and buffers.
const OF_STRANGERS_REPLIES: u64 = 16 * MIB;
/// Of 500 clients, each with half a command: what came of it, and buffers.
const OF_HALF_COMMANDS: u64 = 48 * MIB;
const HALF_COMMANDS: usize = 500;
/// Of 10,000 clients that were answered once.
const OF_TEN_THOUSAND: u64 = 512 * MIB;
/// Of a gigabyte that is read and answered, in commands of 1 MiB: one command, and replies until they are taken.
const OF_A_PIPELINE: u64 = 96 * MIB;
/// Of a gigabyte of writes: the log up to a snapshot (64 MiB) and what is written while one is taken, in memory and on its way to the disk.
const OF_WRITES: u64 = 448 * MIB;
/// Of a client that reads no replies: `max_output_bytes` (64 MiB), a buffer that was doubled, one reply.
const OF_REPLIES: u64 = 192 * MIB;
/// Of half a million names in one command, and of the longest patterns that one client may have: commands of 16 MiB, as bytes and as words.
const OF_PATTERNS: u64 = 192 * MIB;
/// Of nesting: what one script may take (64 MiB), and its answer (four times that, as it is counted), each piece of which an allocator surrounds.
const OF_NESTING: u64 = 640 * MIB;

const SECRET: &str = "a secret that is long enough for anybody";
const KEY: &str = "the key that a client must give";

/// A node by itself with somebody honest at it, and what it took in memory when that began.
struct Target {
    node: Process,
    honest: Option<Load>,
    before: u64,
    folder: tempfile::TempDir,
}

impl Target {
    fn start(settings: &[&str]) -> Self {
        Self::start_by(settings, &mut plenary(["serve"]))
    }

    fn start_by(settings: &[&str], command: &mut std::process::Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut node = Process::new(
            folder.path(),
            "n0",
            &format!("127.0.0.1:{}", free_port()),
            settings,
        );
        node.start_by(command);
        node.ready();
        let honest = Load::start("honest", 2, std::slice::from_ref(&node.redis));
        honest.goes_on(20);
        let before = memory(&node);
        Self {
            node,
            honest: Some(honest),
            before,
            folder,
        }
    }

    /// Whoever is honest is still served.
    #[track_caller]
    fn serves(&self) {
        self.honest.as_ref().unwrap().goes_on(20);
    }

    /// Whoever is honest was served all the time, and memory stayed below the bound.
    #[track_caller]
    fn holds(mut self, bound: u64) {
        self.serves();
        let errors: Vec<String> = self
            .honest
            .take()
            .unwrap()
            .stop()
            .into_iter()
            .flat_map(|record| record.errors)
            .collect();
        assert!(errors.is_empty(), "{errors:?}; {}", self.node.last_words());
        let taken = memory(&self.node).saturating_sub(self.before);
        println!("{} MiB of {} MiB", taken / MIB, bound / MIB);
        assert!(taken < bound, "{} MiB beyond {} MiB", taken / MIB, bound / MIB);
        assert!(self.node.stop().success(), "{}", self.node.last_words());
    }

    fn connect(&self) -> TcpStream {
        connect(&self.node.redis)
    }
}

/// The most memory that a process has taken so far.
fn memory(node: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.id())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends it over and over, until so much was sent or the other side has closed. Whether all was sent.
fn pour(mut stream: &TcpStream, what: &[u8], bytes: u64) -> bool {
    let mut sent = 0;
    while sent < bytes {
        match stream.write(what.get((sent % what.len() as u64) as usize..).unwrap()) {
            Ok(some) => sent += some as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                panic!("neither taken nor closed after {sent} bytes")
            }
            Err(_) => return false,
        }
    }
    true
}

/// What comes until the other side closes.
fn rest(mut stream: &TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("it does not close"),
        // A reset ends it, too.
        _ => String::from_utf8_lossy(&bytes).into_owned(),
    }
}

/// A connection whose system takes hardly anything for it that it does not read.
fn narrow(address: &str) -> TcpStream {
    let address = address.parse().unwrap();
    let connected = runtime().block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4 << 10).unwrap();
        socket.connect(address).await.unwrap().into_std().unwrap()
    });
    connected.set_nonblocking(false).unwrap();
    connected.set_read_timeout(Some(PATIENCE)).unwrap();
    connected.set_write_timeout(Some(PATIENCE)).unwrap();
    connected
}

fn ask(target: &Target, argv: &[&str]) -> String {
    match target.node.call(argv).unwrap() {
        Reply::Array(words) => words.iter().map(text).collect::<Vec<_>>().join(" "),
        other => text(&other),
    }
}

fn reply_line(stream: &mut TcpStream) -> String {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while !line.ends_with(b"\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

/// Lets this process open as many files as it may at all: it holds the other end of every connection.
fn open_many_files() {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, all).unwrap();
}

/// Every call of the services in the .proto file: its service, and its path.
fn calls() -> Vec<(String, String)> {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/plenary.proto");
    let (mut service, mut calls) = (String::new(), Vec::new());
    for line in std::fs::read_to_string(proto).unwrap().lines() {
        if let Some(name) = line.strip_prefix("service ") {
            service = name.trim_end_matches(" {").to_owned();
        } else if let Some(call) = line.trim().strip_prefix("rpc ") {
            let name = call.split('(').next().unwrap();
            calls.push((service.clone(), format!("/plenary.v1.{service}/{name}")));
        }
    }
    assert_eq!(calls.len(), 20, "{calls:?}");
    calls
}

/// What a member shows with its calls, or a process that embeds no node.
fn proof(secret: &str, role: &str) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("plenary {role} v1").as_bytes());
    mac.finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What comes of a call with this proof, for a node of this cluster and in its name, with these bytes as the first field of its message.
async fn call(
    channel: &tonic::transport::Channel,
    path: &str,
    proof: Option<&str>,
    (cluster, to): (u64, u64),
    first: Vec<u8>,
) -> tonic::Status {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let mut request = tonic::Request::new(first);
    let metadata = request.metadata_mut();
    if let Some(proof) = proof {
        metadata.insert("plenary-proof", proof.parse().unwrap());
    }
    for (name, value) in [
        ("plenary-cluster", cluster),
        ("plenary-from", to),
        ("plenary-to", to),
        ("plenary-level", Entry::FORMAT.into()),
    ] {
        metadata.insert(name, value.into());
    }
    let codec = tonic_prost::ProstCodec::<Vec<u8>, ()>::default();
    let path: PathAndQuery = path.parse().unwrap();
    client.unary(request, path, codec).await.unwrap_err()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

async fn channel(address: &str) -> tonic::transport::Channel {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect().await.unwrap()
}

fn guarded(folder: &Path) -> [String; 2] {
    let file = folder.join("secret");
    std::fs::write(&file, SECRET).unwrap();
    ["--secret-file".to_owned(), file.to_str().unwrap().to_owned()]
}

#[test]
fn without_the_proof_no_call_does_anything_or_has_anything_kept() {
    let folder = tempfile::tempdir().unwrap();
    let secret = guarded(folder.path());
    let target = Target::start(&[&secret[0], &secret[1]]);
    let before = target.node.status().unwrap();
    let who = (before.cluster_id.unwrap(), before.node_id);
    runtime().block_on(async {
        let (peer, remote) = (proof(SECRET, "peer"), proof(SECRET, "remote"));
        for (service, path) in calls() {
            // Nothing, another secret's, the other service's, and ours with a letter too few and one too many.
            let (ours, theirs) = if service == "Peer" {
                (&peer, &remote)
            } else {
                (&remote, &peer)
            };
            let wrong = [
                proof("another secret altogether", "peer"),
                ours[1..].to_owned(),
                format!("{ours}0"),
            ];
            let shown = [None, Some(theirs)].into_iter().chain(wrong.iter().map(Some));
            for shown in shown {
                // One that has shown no proof for ten seconds is ended: each call has its own.
                let peers = channel(&target.node.peers).await;
                let refused = call(&peers, &path, shown.map(String::as_str), who, Vec::new()).await;
                assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{path} {refused}");
                assert!(
                    refused.message().starts_with("wrong or missing cluster secret"),
                    "{refused}"
                );
            }
            // Much at once: it is refused before it is read, or its connection is ended when it takes too long.
            let peers = channel(&target.node.peers).await;
            let calls = (0..4).map(|_| call(&peers, &path, Some(theirs), who, vec![0; 24 << 20]));
            for refused in futures::future::join_all(calls).await {
                let ended = matches!(refused.code(), tonic::Code::Unknown | tonic::Code::Unavailable);
                assert!(
                    ended || refused.code() == tonic::Code::Unauthenticated,
                    "{path} {refused}"
                );
            }
        }
        let peers = channel(&target.node.peers).await;
        // A proof that somebody heard on the network opens calls between nodes, as SECURITY.md says: those that mean this node and its cluster.
        for (service, path) in calls().iter().filter(|(service, _)| service == "Peer") {
            let free = ["Hello", "Promise", "ChangeMember"]
                .iter()
                .any(|free| path.ends_with(free));
            for other in [(who.0 ^ 1, who.1), (who.0, who.1 ^ 1), (0, who.1)]
                .iter()
                .filter(|_| !free)
            {
                let refused = call(&peers, path, Some(&peer), *other, Vec::new()).await;
                assert_eq!(
                    refused.code(),
                    tonic::Code::FailedPrecondition,
                    "{service} {path} {refused}"
                );
            }
        }
    });
    let after = target.node.status().unwrap();
    let known = |status: Status| -> Vec<_> {
        let members = status.members.into_iter();
        members
            .map(|member| (member.id, member.voter, member.raft_addr))
            .collect()
    };
    assert_eq!((before.term, known(before)), (after.term, known(after)));
    target.holds(OF_STRANGERS_CALLS);
}

#[test]
fn what_no_peer_says_is_refused_and_the_node_serves_on() {
    let folder = tempfile::tempdir().unwrap();
    let secret = guarded(folder.path());
    let target = Target::start(&[&secret[0], &secret[1]]);
    let before = target.node.status().unwrap();
    let who = (before.cluster_id.unwrap(), before.node_id);
    let origin = Origin {
        node: who.1,
        start: 99,
        number: 1,
    };
    let group = encode(origin, &[Command::new(0, ["SET", "k", "v"])]);
    // A vote for the node itself: term 99 in the first field, who in the second.
    let mut vote = vec![0x08, 99, 0x10];
    prost::encoding::encode_varint(who.1, &mut vote);
    let elected = [&vote[..], &[0x18, 1]].concat();
    let said = [
        ("Forward", group[..group.len() - 1].to_vec()),
        ("Forward", group[..30].to_vec()),
        ("Vote", vote),
        ("Vote", elected),
    ];
    runtime().block_on(async {
        let (peers, proof) = (channel(&target.node.peers).await, proof(SECRET, "peer"));
        for (name, first) in said {
            let path = format!("/plenary.v1.Peer/{name}");
            let refused = call(&peers, &path, Some(&proof), who, first).await;
            assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{name} {refused}");
        }
    });
    assert_eq!(target.node.status().unwrap().term, before.term);
    target.holds(OF_STRANGERS_CALLS);
}

#[test]
fn peers_that_say_half_of_something_are_ended_and_leave_room() {
    let folder = tempfile::tempdir().unwrap();
    let secret = guarded(folder.path());
    let target = Target::start(&[&secret[0], &secret[1]]);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    // A frame of settings, and the head of one of headers, of which nothing comes.
    let frames = [&[0, 0, 0, 4, 0, 0, 0, 0, 0][..], &[0, 1, 0, 1, 4, 0, 0, 0, 1]].concat();
    let halves = [
        &b""[..],
        b"P",
        &preface[..12],
        preface,
        &[preface, &frames[..]].concat(),
    ]
    .map(<[u8]>::to_vec);
    let mut strangers: Vec<TcpStream> = Vec::new();
    for number in 0..600 {
        let mut stream = connect(&target.node.peers);
        // It may be ended already, for one that came later.
        let _ = stream.write_all(&halves[number % halves.len()]);
        strangers.push(stream);
    }
    target.serves();
    // One who belongs here gets in between them.
    let peer = proof(SECRET, "peer");
    let status = target.node.status().unwrap();
    runtime().block_on(async {
        let peers = channel(&target.node.peers).await;
        let answered = call(
            &peers,
            "/plenary.v1.Peer/Status",
            Some(&peer),
            (0, status.node_id),
            Vec::new(),
        )
        .await;
        assert_eq!(answered.code(), tonic::Code::FailedPrecondition, "{answered}");
    });
    for stream in &strangers {
        rest(stream);
    }
    target.holds(OF_HALF_A_PEER);
}

#[test]
fn who_asks_without_a_key_and_reads_nothing_is_cut_off_soon() {
    let target = Target::start(&[]);
    // Somebody honest has come before there was a key.
    let key = ["CONFIG", "SET", "requirepass", KEY];
    assert_eq!(text(&target.node.call(&key).unwrap()), "OK");
    let mut strangers = Vec::new();
    for asks in [&b"HELLO\r\n"[..], b"GET k\r\n", b"COMMAND DOCS\r\n"] {
        let stream = narrow(&target.node.redis);
        assert!(!pour(&stream, &asks.repeat(4 << 10), 1 << 30), "it is cut off");
        strangers.push(stream);
    }
    // One who reads is told as often as it asks.
    let mut reader = target.connect();
    reader.write_all(&b"GET k\r\n".repeat(10_000)).unwrap();
    for _ in 0..10_000 {
        assert_eq!(reply_line(&mut reader), "-NOAUTH Authentication required.\r\n");
    }
    reader.write_all(&request(["AUTH", KEY])).unwrap();
    assert_eq!(reply_line(&mut reader), "+OK\r\n");
    target.holds(OF_STRANGERS_REPLIES);
}

#[test]
fn half_commands_and_lengths_that_never_come_take_no_memory() {
    let target = Target::start(&[]);
    // What Redis 7.0.15 refuses at once, or waits for; and lengths that are within our bounds.
    let refused = [
        (
            &b"*2147483648\r\n"[..],
            "-ERR Protocol error: invalid multibulk length",
        ),
        (
            b"*2147483647\r\n",
            "-ERR Protocol error: invalid multibulk length",
        ),
        (
            b"*1\r\n$536870912\r\n",
            "-ERR Protocol error: invalid bulk length",
        ),
        (
            b"*1\r\n$536870913\r\n",
            "-ERR Protocol error: invalid bulk length",
        ),
        (b"*1\r\n$-1\r\n", "-ERR Protocol error: invalid bulk length"),
        (b"*1\r\n*1\r\n", "-ERR Protocol error: expected '$', got '*'"),
    ];
    for (bytes, said) in refused {
        let mut stream = target.connect();
        stream.write_all(bytes).unwrap();
        assert_eq!(rest(&stream).trim_end(), said);
    }
    // Arrays in arrays in arrays: the first is refused, and nobody reads the others.
    let nested = target.connect();
    pour(&nested, b"*1\r\n", 64 << 10);
    assert!(rest(&nested).starts_with("-ERR Protocol error: expected '$', got '*'"));
    let halves = [
        &b"*1048576\r\n"[..],
        b"*1048576\r\n$16777216\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$16777216\r\nhalf of it",
        b"SET k",
        b"*",
        b"",
    ];
    let mut open: Vec<TcpStream> = (0..HALF_COMMANDS).map(|_| target.connect()).collect();
    for (number, stream) in open.iter_mut().enumerate() {
        stream.write_all(halves[number % halves.len()]).unwrap();
    }
    // A command one byte at a time, of each of some.
    let mut slow: Vec<TcpStream> = (0..32).map(|_| target.connect()).collect();
    for byte in request(["SET", "slow", "but sure"]) {
        for stream in &mut slow {
            stream.write_all(&[byte]).unwrap();
        }
    }
    for stream in &mut slow {
        assert_eq!(reply_line(stream), "+OK\r\n");
    }
    target.serves();
    drop(open);
    target.holds(OF_HALF_COMMANDS);
}

#[test]
fn ten_thousand_clients_are_served_and_one_more_is_told_that_there_are_too_many() {
    open_many_files();
    let target = Target::start(&[]);
    let most = ask(&target, &["CONFIG", "GET", "maxclients"]);
    let most: usize = most.strip_prefix("maxclients ").unwrap().parse().unwrap();
    // Where the system lets a process open fewer files, fewer are served, as with Redis.
    let files = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let expected = if files >= 10_512 {
        10_000
    } else {
        (files - 512).max(files / 2)
    };
    assert_eq!(most as u64, expected);
    let mut clients = Vec::new();
    let refused = loop {
        let mut client = target.connect();
        client.write_all(b"PING\r\n").unwrap();
        let said = reply_line(&mut client);
        if said != "+PONG\r\n" {
            break said;
        }
        clients.push(client);
    };
    assert_eq!(refused, "-ERR max number of clients reached\r\n");
    // Two are honest, and one that asked before may not be gone yet.
    assert!(
        (most - 4..=most - 2).contains(&clients.len()),
        "{}",
        clients.len()
    );
    for client in &mut clients {
        client.write_all(b"PING\r\n").unwrap();
    }
    target.serves();
    for client in &mut clients {
        assert_eq!(reply_line(client), "+PONG\r\n");
    }
    drop(clients);
    target.holds(OF_TEN_THOUSAND);
}

#[test]
fn where_there_are_too_few_files_clients_are_refused_and_the_log_goes_on() {
    let limit = "ulimit -n 300; exec \"$0\" \"$@\"";
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", limit, env!("CARGO_BIN_EXE_plenary"), "serve"]);
    // The log is cut and goes on in a new file again and again.
    let target = Target::start_by(&["--snapshot-log-bytes", "20000"], &mut limited);
    assert_eq!(ask(&target, &["CONFIG", "GET", "maxclients"]), "maxclients 150");
    let set = target
        .node
        .call(&["CONFIG", "SET", "maxclients", "151"])
        .unwrap_err()
        .to_string();
    assert!(set.contains(
        "The operating system is not able to handle the specified number of clients, try with 150"
    ));
    let mut clients: Vec<TcpStream> = (0..400).map(|_| target.connect()).collect();
    let mut told = std::collections::BTreeMap::new();
    for client in &mut clients {
        // One that is not told why is closed all the same.
        let _ = client.write_all(b"PING\r\n");
        *told.entry(reply_line(client)).or_insert(0) += 1;
    }
    // A connection that asked before may not be gone yet.
    let served = told.get("+PONG\r\n").copied().unwrap_or(0);
    assert!((146..=148).contains(&served), "{told:?}");
    assert!(
        told.keys()
            .all(|said| ["+PONG\r\n", "-ERR max number of clients reached\r\n", ""].contains(&said.as_str())),
        "{told:?}"
    );
    // With every place taken snapshots are taken and logs are cut.
    target.honest.as_ref().unwrap().goes_on(500);
    drop(clients);
    target.holds(OF_HALF_COMMANDS);
}

#[test]
fn a_gigabyte_that_is_answered_takes_no_more_than_a_command() {
    let target = Target::start(&[]);
    let stream = target.connect();
    let reader = stream.try_clone().unwrap();
    let read = std::thread::spawn(move || std::io::copy(&mut &reader, &mut std::io::sink()).unwrap());
    let echo = request([&b"ECHO"[..], &vec![b'x'; MIB as usize]]);
    assert!(pour(&stream, &echo, 1 << 30));
    // What was begun and not ended is answered by nobody.
    stream.shutdown(Shutdown::Write).unwrap();
    let answered = read.join().unwrap();
    assert!(answered > (1 << 30) - 3 * MIB, "{answered} bytes were answered");
    target.holds(OF_A_PIPELINE);
}

#[test]
fn a_gigabyte_of_writes_takes_no_more_than_a_log_between_snapshots() {
    let target = Target::start(&["--durability", "os"]);
    let stream = target.connect();
    let reader = stream.try_clone().unwrap();
    let read = std::thread::spawn(move || std::io::copy(&mut &reader, &mut std::io::sink()).unwrap());
    let value = vec![b'x'; MIB as usize];
    let sets: Vec<u8> = (0..4)
        .flat_map(|key| request([&b"SET"[..], format!("key{key}").as_bytes(), &value]))
        .collect();
    let whole = (1 << 30) / sets.len() as u64 * sets.len() as u64;
    assert!(pour(&stream, &sets, whole));
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(
        read.join().unwrap(),
        whole / sets.len() as u64 * 4 * "+OK\r\n".len() as u64
    );
    target.holds(OF_WRITES);
}

#[test]
fn who_never_reads_is_cut_off_at_the_bound_of_replies() {
    let target = Target::start(&[]);
    let value = "x".repeat(MIB as usize);
    for (name, asks) in [
        // A gigabyte of answers, of questions of 22 bytes; and a gigabyte of questions with answers as long.
        ("large", request(["GET", "large"]).repeat(1 << 10)),
        ("echo", request([&b"ECHO"[..], value.as_bytes()])),
    ] {
        assert_eq!(text(&target.node.call(&["SET", name, &value]).unwrap()), "OK");
        let stream = narrow(&target.node.redis);
        assert!(!pour(&stream, &asks, 1 << 30), "it is cut off");
    }
    // A class of clients that is allowed less, by Redis' setting, is cut off there.
    let limit = ["CONFIG", "SET", "client-output-buffer-limit", "normal 4mb 0 0"];
    assert_eq!(text(&target.node.call(&limit).unwrap()), "OK");
    let less: Vec<TcpStream> = (0..16).map(|_| narrow(&target.node.redis)).collect();
    for stream in &less {
        assert!(
            !pour(stream, &request(["GET", "large"]), 1 << 30),
            "it is cut off"
        );
    }
    target.holds(OF_REPLIES);
}

#[test]
fn what_is_asked_for_a_thousand_times_over_is_not_written_out() {
    let target = Target::start(&[]);
    assert_eq!(ask(&target, &["SET", "large", &"x".repeat(MIB as usize)]), "OK");
    let items = vec!["x".repeat(100); 5_000];
    let push: Vec<&str> = ["RPUSH", "list"]
        .into_iter()
        .chain(items.iter().map(String::as_str))
        .collect();
    for _ in 0..4 {
        ask(&target, &push);
    }
    let transaction = |command: &[&str]| {
        let command = request(command.iter().copied());
        [request(["MULTI"]), command.repeat(1_000), request(["EXEC"])].concat()
    };
    let many = |words: &[&str], word: &str, times| {
        request(words.iter().copied().chain(std::iter::repeat_n(word, times)))
    };
    let mut stream = target.connect();
    stream.write_all(&request(["CLIENT", "ID"])).unwrap();
    let itself = reply_line(&mut stream);
    let itself = itself.trim().trim_start_matches(':');
    let asks = [
        transaction(&["GET", "large"]),
        transaction(&["LRANGE", "list", "0", "-1"]),
        many(&["MGET"], "large", 1_000),
        many(&["CLIENT", "LIST", "ID"], itself, 500_000),
    ];
    for (number, asks) in asks.iter().enumerate() {
        let stream = target.connect();
        assert!(pour(&stream, asks, asks.len() as u64));
        let said = rest(&stream);
        let queued = said.replace("+OK\r\n", "").replace("+QUEUED\r\n", "");
        assert!(queued.len() < 9, "cut off: {number} {queued:.80}");
        let counted = format!("client_output_buffer_limit_disconnections:{}\r\n", number + 1);
        assert!(ask(&target, &["INFO", "stats"]).contains(&counted));
        target.serves();
    }
    for words in [
        &["COMMAND", "DOCS"][..],
        &["COMMAND", "INFO"],
        &["LATENCY", "HISTOGRAM"],
    ] {
        stream.write_all(&many(words, "client", 100_000)).unwrap();
        assert_eq!(reply_line(&mut stream), "-ERR too many names of commands\r\n");
    }
    target.holds(OF_REPLIES);
}

#[test]
fn what_is_held_against_each_other_takes_nobodys_time() {
    let target = Target::start(&[]);
    let mut stream = target.connect();
    let mut said = |words: &[&str]| {
        stream.write_all(&request(words.iter().copied())).unwrap();
        reply_line(&mut stream)
    };
    let many: Vec<String> = (0..500_000).map(|number| format!("some{number:06}")).collect();
    let with = |words: &[&str], more: &[String]| -> Vec<String> {
        let words = words.iter().copied().map(str::to_owned);
        words.chain(more.iter().cloned()).collect()
    };
    let prefixes: Vec<String> = many
        .iter()
        .flat_map(|name| ["PREFIX".to_owned(), name.clone()])
        .collect();
    // More keys to watch, and more prefixes, than there may be; as many as there may be; one over and over.
    for (words, answer) in [
        (with(&["WATCH"], &many), "-ERR too many watched keys\r\n"),
        (with(&["UNWATCH"], &[]), "+OK\r\n"),
        (with(&["WATCH"], &many[..65_536]), "+OK\r\n"),
        (with(&["WATCH"], &vec![many[65_535].clone(); 500_000]), "+OK\r\n"),
        (
            with(&["CLIENT", "TRACKING", "ON", "BCAST"], &prefixes),
            "-ERR too many prefixes\r\n",
        ),
    ] {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_eq!(said(&words), answer, "{:?}", &words[..2.min(words.len())]);
        target.serves();
    }
    let long = "*[".to_owned() + &"b".repeat(8 << 20);
    for words in [
        &["KEYS", &long][..],
        &["SCAN", "0", "MATCH", &long],
        &["HSCAN", "hash", "0", "MATCH", &long],
        &["PSUBSCRIBE", &long],
        &["PUBSUB", "CHANNELS", &long],
        &["ACL", "SETUSER", "somebody", "on", &format!("~{long}")],
        &["ACL", "SETUSER", "somebody", "on", &format!("(+get ~a &{long})")],
        &["EVAL", "return redis.call('KEYS', ARGV[1])", "0", &long],
    ] {
        let said = said(words);
        assert!(
            said.starts_with("-ERR pattern is longer than 1024 bytes"),
            "{said}"
        );
    }
    // As many of the longest patterns as one may have, each of which almost fits wherever it begins.
    let patterns: Vec<String> = (0..256)
        .map(|number| format!("*{}{number:04}", "a".repeat(1_019)))
        .collect();
    let mut listener = target.connect();
    let words: Vec<&str> = ["PSUBSCRIBE"]
        .into_iter()
        .chain(patterns.iter().map(String::as_str))
        .collect();
    listener.write_all(&request(words)).unwrap();
    let channel = "a".repeat(16 << 10);
    assert_eq!(said(&["PUBLISH", &channel, "message"]), ":0\r\n");
    target.serves();
    target.holds(OF_PATTERNS);
}

#[test]
fn what_is_nested_without_end_is_refused() {
    let target = Target::start(&[]);
    let refused = [
        // A tenfold of a tenfold, nine times; itself in itself; a string a million deep, and what Lua reads of it.
        (
            "local a = 'laugh' for i = 1, 9 do a = {a, a, a, a, a, a, a, a, a, a} end return a",
            "",
        ),
        ("local a = {} a[1] = a return a", ""),
        ("local a = {} for i = 1, 1000000 do a = {a} end return a", ""),
        (
            "return cjson.decode(string.rep('[', 100000))",
            "Found too many nested data structures (1001)",
        ),
        (
            "local a = {} for i = 1, 100000 do a = {a} end return cjson.encode(a)",
            "Cannot serialise, excessive nesting (1001)",
        ),
        ("return cmsgpack.unpack(string.rep('\\145', 100000))", ""),
        ("return loadstring('return ' .. string.rep('{', 100000))()", ""),
        ("return loadstring('return ' .. string.rep('(', 100000))()", ""),
        ("return string.rep('x', 1000000000)", "not enough memory"),
    ];
    for (script, says) in refused {
        let said = match target.node.call(&["EVAL", script, "0"]) {
            Ok(reply) => panic!("{script}: {:?}", text(&reply).get(..80)),
            Err(error) => error.to_string(),
        };
        assert!(said.contains(says), "{script}: {said}");
    }
    target.serves();
    // A file of settings of which every byte opens something.
    for open in ["[", "a={", "join = [", "a.", "[a.[", "\"\"\""] {
        let file = target.folder.path().join("nested.toml");
        std::fs::write(&file, open.repeat((MIB as usize - 1) / open.len())).unwrap();
        let said = run(plenary(["serve"]).arg("--config").arg(&file));
        assert_eq!(
            said.code,
            Some(2),
            "{open}: {}",
            said.err.get(..200).unwrap_or(&said.err)
        );
    }
    target.holds(OF_NESTING);
}

#[test]
fn half_a_question_keeps_nobody_from_the_http_port() {
    let target = Target::start(&["--http", "127.0.0.1:0"]);
    let said = target.node.said();
    let at = said
        .split("http ")
        .nth(1)
        .unwrap()
        .split(',')
        .next()
        .unwrap()
        .to_owned();
    let mut halves: Vec<TcpStream> = (0..256).map(|_| connect(&at)).collect();
    for (number, half) in halves.iter_mut().enumerate() {
        // It may be closed before, for those that came first.
        let _ = half.write_all([&b"GET /health HTTP/1.1\r\nHost: h"[..], b"GET ", b""][number % 3]);
    }
    let mut honest = connect(&at);
    honest
        .write_all(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
        .unwrap();
    assert!(
        rest(&honest).starts_with("HTTP/1.1 200 "),
        "as soon as those before have had their time"
    );
    let mut long = connect(&at);
    // It is closed when its head is too long.
    let _ = long.write_all(
        &b"GET /health HTTP/1.1\r\nX: "
            .iter()
            .copied()
            .chain(vec![b'x'; 1 << 20])
            .collect::<Vec<_>>(),
    );
    assert!(!rest(&long).starts_with("HTTP/1.1 200 "));
    target.holds(OF_HALF_A_PEER);
}
