//! Three real nodes on one machine: the same program three times, each a process with a folder of its own.
//!
//! `cargo run --release --example three-nodes [-- --base-port N --data DIR --check]`
//!
//! This file only starts, watches and stops processes. What they run is `plenary serve`: called with `serve` first, this program
//! *is* `plenary`.

use clap::Parser;
use plenary::cli::client::{self, Client};
use plenary::machine::reply::Reply;
use plenary::node::status::Status;
use std::error::Error;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Redis ports are the base port plus these: 6379, 6381 and 6382 leave 6380 to Redis over TLS.
const OFFSETS: [u16; 3] = [0, 2, 3];

/// Peer ports are the Redis ports plus this.
const PEERS: u16 = 600;

/// How long the three may take until all serve.
const READY_TIME_MAX: Duration = Duration::from_secs(60);

/// How long each may take to stop before it is killed. A node gives itself 20 s.
const STOP_TIME_MAX: Duration = Duration::from_secs(25);

/// How often the processes are looked at.
const TICK: Duration = Duration::from_millis(50);

/// Three nodes of Plenary on this machine, until Ctrl-C.
#[derive(Parser)]
struct Options {
    /// Redis ports are N, N+2 and N+3; peers use N+600, N+602 and N+603
    #[arg(long, value_name = "N", default_value_t = 6379, value_parser = clap::value_parser!(u16).range(1..=64_900))]
    base_port: u16,

    /// Folder that keeps the nodes' state [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// When all serve, write on one, read on the other two, and stop
    #[arg(long)]
    check: bool,
}

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|first| first == "serve") {
        return plenary::cli::main();
    }
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("three-nodes: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Outcome<()> {
    check_ports(options.base_port)?;
    let (folder, temporary) = match &options.data {
        Some(folder) => (folder.clone(), None),
        None => {
            let temporary = tempfile::Builder::new()
                .prefix("plenary-three-nodes-")
                .tempdir()?;
            (temporary.path().to_owned(), Some(temporary))
        }
    };
    let stop = stop_requests()?;
    let mut nodes = Nodes(Vec::new());
    let outcome = watch(options, &folder, &mut nodes, &stop);
    let stopped = nodes.stop(&stop);
    let outcome = outcome.and(stopped);
    if let (Err(_), Some(temporary)) = (&outcome, temporary) {
        // The logs in there are what one wants to read now.
        eprintln!(
            "three-nodes: state and logs are kept in {}",
            temporary.keep().display()
        );
    }
    outcome
}

/// Says which port is taken before anything is started.
fn check_ports(base: u16) -> Outcome<()> {
    for (redis, peers) in OFFSETS.map(|offset| (base + offset, base + offset + PEERS)) {
        for (port, purpose) in [(redis, "Redis clients"), (peers, "peers")] {
            TcpListener::bind(("127.0.0.1", port)).map_err(|error| {
                format!(
                    "port {port} (for {purpose}) cannot be had: {error}. Move all ports with --base-port N"
                )
            })?;
        }
    }
    Ok(())
}

/// From the start of the processes to the request to stop.
fn watch(options: &Options, folder: &Path, nodes: &mut Nodes, stop: &Receiver<()>) -> Outcome<()> {
    let peers = OFFSETS.map(|offset| format!("127.0.0.1:{}", options.base_port + offset + PEERS));
    for (i, offset) in OFFSETS.iter().enumerate() {
        let redis = format!("127.0.0.1:{}", options.base_port + offset);
        nodes
            .0
            .push(Node::start(i + 1, folder, &peers[i], redis, &peers.join(","))?);
    }
    println!("three nodes, one cluster, state in {}:", folder.display());
    for node in &nodes.0 {
        println!(
            "  node {}  redis {}  peers {}  process {}",
            node.number,
            node.redis,
            node.peers,
            node.process.id()
        );
    }
    if !wait_until_ready(nodes, stop)? {
        return Ok(());
    }
    println!("ready");
    if options.check {
        check(nodes)
    } else {
        serve(options.base_port, nodes, stop)
    }
}

/// Waits until every node serves; `false` if it was asked to stop meanwhile.
fn wait_until_ready(nodes: &mut Nodes, stop: &Receiver<()>) -> Outcome<bool> {
    let start = Instant::now();
    while !nodes.0.iter().all(Node::serves) {
        for node in &mut nodes.0 {
            if let Some(how) = node.died()? {
                return Err(format!(
                    "node {} ended before it was ready: {how}; {}",
                    node.number,
                    node.last_words()
                )
                .into());
            }
        }
        if start.elapsed() > READY_TIME_MAX {
            return Err(format!("not all nodes serve after {} s", READY_TIME_MAX.as_secs()).into());
        }
        if asked(stop, TICK) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Until Ctrl-C, or until no node is left. One that dies is the experiment: it is told, and the others go on.
fn serve(base: u16, nodes: &mut Nodes, stop: &Receiver<()>) -> Outcome<()> {
    println!("\nNow try, in another terminal:");
    println!("  redis-cli -p {} SET greeting hello", base + OFFSETS[0]);
    println!("  redis-cli -p {} GET greeting", base + OFFSETS[1]);
    println!(
        "  cargo run --release -- status --resp 127.0.0.1:{}",
        base + OFFSETS[2]
    );
    println!(
        "  kill -9 {}    # then SET and GET again on the other two",
        nodes.0[0].process.id()
    );
    println!("Ctrl-C stops all three.");
    while !asked(stop, TICK) {
        for node in &mut nodes.0 {
            if !node.gone
                && let Some(how) = node.died()?
            {
                println!("node {} ended: {how}; {}", node.number, node.last_words());
            }
        }
        if nodes.0.iter().all(|node| node.gone) {
            return Err("all nodes have ended".into());
        }
    }
    println!("\nstopping");
    Ok(())
}

/// Writes on the first node and reads on the others what the first one's token has seen.
fn check(nodes: &Nodes) -> Outcome<()> {
    let value = format!("hello from process {}", std::process::id());
    let [first, others @ ..] = nodes.0.as_slice() else {
        return Err("no nodes".into());
    };
    let mut writer = Client::connect(&first.redis, None)?;
    writer.call(&["SET", "greeting", &value])?;
    let token = client::text(&writer.call(&["PLENARY", "TOKEN"])?);
    println!("node {}: SET greeting {value:?} -> token {token}", first.number);
    for node in others {
        let mut reader = Client::connect(&node.redis, None)?;
        reader.call(&["PLENARY", "WAITFOR", &token, "5000"])?;
        let read = reader.call(&["GET", "greeting"])?;
        println!("node {}: GET greeting -> {:?}", node.number, client::text(&read));
        if read != Reply::bulk(&value) {
            return Err(format!(
                "node {} does not have what was written on node {}",
                node.number, first.number
            )
            .into());
        }
    }
    println!("check passed");
    Ok(())
}

/// Ctrl-C and SIGTERM, one message each. A second one while the nodes stop kills them.
fn stop_requests() -> Outcome<Receiver<()>> {
    let (ask, asked) = channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Ends with the process.
    std::thread::spawn(move || while runtime.block_on(signalled()).is_ok() && ask.send(()).is_ok() {});
    Ok(asked)
}

#[cfg(unix)]
async fn signalled() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

#[cfg(not(unix))]
async fn signalled() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}

/// Waits for this long, or until asked to stop.
fn asked(stop: &Receiver<()>, wait: Duration) -> bool {
    match stop.recv_timeout(wait) {
        Ok(()) => true,
        Err(RecvTimeoutError::Timeout) => false,
        // The thread could not listen: Ctrl-C then ends this process without it, and that ends the nodes.
        Err(RecvTimeoutError::Disconnected) => {
            std::thread::sleep(wait);
            false
        }
    }
}

/// One process.
struct Node {
    number: usize,
    redis: String,
    peers: String,
    log: PathBuf,
    process: Child,
    gone: bool,
}

impl Node {
    /// Starts this very program as `plenary serve`. It stops when its standard input ends: no node outlives us.
    fn start(number: usize, folder: &Path, peers: &str, redis: String, join: &str) -> Outcome<Self> {
        let data = folder.join(format!("node-{number}"));
        std::fs::create_dir_all(&data)?;
        let log = folder.join(format!("node-{number}.log"));
        let mut command = Command::new(std::env::current_exe()?);
        for (variable, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PLENARY_"))
        {
            command.env_remove(variable);
        }
        command.arg("serve").arg("--data").arg(&data);
        command.args([
            "--listen",
            peers,
            "--join",
            join,
            "--expect",
            "3",
            "--resp",
            &redis,
            "--until-stdin-ends",
        ]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(File::options().create(true).append(true).open(&log)?);
        Ok(Self {
            number,
            redis,
            peers: peers.to_owned(),
            log,
            process: command.spawn()?,
            gone: false,
        })
    }

    fn serves(&self) -> bool {
        let ask = || -> Outcome<bool> {
            let Reply::Bulk(json) = Client::connect(&self.redis, None)?.call(&["PLENARY", "STATUS"])? else {
                return Ok(false);
            };
            Ok(serde_json::from_slice::<Status>(&json)?.ready)
        };
        ask().unwrap_or(false)
    }

    /// How it ended, if it did.
    fn died(&mut self) -> Outcome<Option<String>> {
        let ended = self.process.try_wait()?;
        self.gone |= ended.is_some();
        Ok(ended.map(|status| status.to_string()))
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().next_back().unwrap_or("nothing").to_owned();
        format!("its log {} ends with: {last}", self.log.display())
    }
}

/// All processes; whatever happens here, none stays behind.
struct Nodes(Vec<Node>);

impl Nodes {
    /// Asks all to stop, waits for each, and kills the one that does not.
    fn stop(&mut self, stop: &Receiver<()>) -> Outcome<()> {
        let mut failed = None;
        for node in &mut self.0 {
            drop(node.process.stdin.take());
        }
        let start = Instant::now();
        for node in self.0.iter_mut().filter(|node| !node.gone) {
            let ended = loop {
                if let Some(status) = node.process.try_wait()? {
                    break Some(status);
                }
                if asked(stop, TICK) || start.elapsed() > STOP_TIME_MAX {
                    break None;
                }
            };
            match ended {
                Some(status) if status.success() => {}
                Some(status) => {
                    failed = Some(format!(
                        "node {} stopped with {status}; {}",
                        node.number,
                        node.last_words()
                    ))
                }
                None => {
                    node.process.kill()?;
                    node.process.wait()?;
                    failed = Some(format!(
                        "node {} did not stop and was killed; {}",
                        node.number,
                        node.last_words()
                    ));
                }
            }
            node.gone = true;
        }
        failed.map_or(Ok(()), |why| Err(why.into()))
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in self.0.iter_mut().filter(|node| !node.gone) {
            // It has ended already if it cannot be killed.
            let _ = node.process.kill();
            let _ = node.process.wait();
        }
    }
}
