//! Real processes for tests and benches: the program started, killed, stopped and asked; clusters of it. What writers remember of
//! their load, and the proof that nothing of it was lost or applied twice, is in `load.rs`; programs of former commits are in `older.rs`.

#![allow(dead_code, reason = "each program uses a part")]
#![allow(unreachable_pub, reason = "shared by several programs")]

pub mod failover;
pub mod load;
pub mod network;
pub mod older;

use crate::common::{PATIENCE, free_port};
use network::Network;
use plenary::cli::client::{Client, Error, text};
use plenary::config::Secret;
use plenary::machine::reply::Reply;
use plenary::node::status::{Role, Status};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// How long a node may take to answer a question of a test.
const ANSWER: Duration = Duration::from_secs(10);

/// What members prove to each other, and clients give to `AUTH`, where nodes listen on more than loopback.
const SECRET: &str = "what the nodes of a test share";

/// The program, without settings of whoever runs the tests, save for the bug that is planted.
pub fn plenary<const N: usize>(args: [&str; N]) -> Command {
    program(Path::new(env!("CARGO_BIN_EXE_plenary")), args)
}

/// The same of another build of the program.
pub fn program<const N: usize>(program: &Path, args: [&str; N]) -> Command {
    let mut command = Command::new(program);
    for (variable, _) in std::env::vars_os()
        .filter(|(name, _)| name.to_string_lossy().starts_with("PLENARY_") && name != "PLENARY_MUTANT")
    {
        command.env_remove(variable);
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// What a process that ends by itself said.
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Runs a process that is expected to end by itself; one that goes on is killed, and what it said is told all the same.
pub fn run(command: &mut Command) -> Said {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (process, (ended, end)) = (child.id(), std::sync::mpsc::channel::<()>());
    let guard = std::thread::spawn(move || {
        if end.recv_timeout(PATIENCE).is_err() {
            signal(process, "KILL");
        }
    });
    let output = child.wait_with_output().unwrap();
    // The guard has gone if it had to kill.
    let _ = ended.send(());
    guard.join().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

impl Said {
    #[track_caller]
    pub fn failed_with(&self, code: i32, texts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.err);
        for text in texts {
            assert!(self.err.contains(text), "{text:?} is not in:\n{}", self.err);
        }
        assert_eq!(self.out, "", "errors go to standard error");
    }
}

/// Sends a signal to a process of ours.
pub fn signal(process: u32, name: &str) {
    let kill = format!("kill -{name} {process}");
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

/// A number from the environment: how often, how long.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text:?} is no number"))
    })
}

/// Numbers by chance from a seed that is printed, so that a run can be repeated: `PLENARY_SEED=N`.
pub struct Chance(u64);

impl Chance {
    pub fn new(what: &str) -> Self {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        let seed = setting("PLENARY_SEED", now);
        println!("{what}: PLENARY_SEED={seed}");
        Self(seed)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}

/// Waits for a condition; says what it knows when it does not come.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> Result<(), String>) {
    let began = Instant::now();
    while let Err(why) = condition() {
        assert!(
            began.elapsed() < PATIENCE,
            "{what}: not within {PATIENCE:?}: {why}"
        );
        std::thread::sleep(LOOK);
    }
}

/// A client of an endpoint, that waits so long for a reply.
pub fn connect(redis: &str, reply_time_max: Duration) -> Result<Client, Error> {
    let key = (!redis.starts_with("127.")).then(|| Secret::new(SECRET));
    let client = Client::connect(redis, key.as_ref())?;
    client.set_reply_time_max(reply_time_max)?;
    Ok(client)
}

/// One node of a cluster: a process, while it runs, and what it is started with.
pub struct Process {
    pub peers: String,
    pub redis: String,
    pub data: PathBuf,
    pub log: PathBuf,
    /// Join whom, expecting how many, and whatever else a test sets.
    pub args: Vec<String>,
    /// The network namespace it runs in, if not the test's own.
    pub namespace: Option<String>,
    pub child: Option<Child>,
}

impl Process {
    /// A node that is not started yet.
    pub fn new(folder: &Path, name: &str, peers: &str, args: &[&str]) -> Self {
        Self {
            peers: peers.to_owned(),
            redis: format!("127.0.0.1:{}", free_port()),
            data: folder.join(name),
            log: folder.join(format!("{name}.log")),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            namespace: None,
            child: None,
        }
    }

    pub fn start(&mut self) {
        let mut command = plenary(["serve"]);
        if let Some(namespace) = &self.namespace {
            command = network::within(namespace, &command);
        }
        self.start_by(&mut command);
    }

    /// Starts it by another command than the program itself: one that limits what it may do.
    pub fn start_by(&mut self, command: &mut Command) {
        assert!(self.child.is_none(), "{} runs already", self.data.display());
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        command
            .arg("--data")
            .arg(&self.data)
            .args(["--listen", &self.peers, "--resp", &self.redis])
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// kill -9. Nobody of it is left on return.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// SIGTERM, and waits for its end.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.ended()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if began.elapsed() > PATIENCE {
                let _ = child.kill();
                panic!("it does not end; {}", self.last_words());
            }
            std::thread::sleep(LOOK);
        }
    }

    pub fn client(&self) -> Result<Client, Error> {
        connect(&self.redis, ANSWER)
    }

    /// One command on a connection of its own.
    pub fn call(&self, argv: &[&str]) -> Result<Reply, Error> {
        self.client()?.call(argv)
    }

    pub fn status(&self) -> Result<Status, String> {
        match self
            .call(&["PLENARY", "STATUS"])
            .map_err(|error| error.to_string())?
        {
            Reply::Bulk(json) => serde_json::from_slice(&json).map_err(|error| error.to_string()),
            other => Err(format!("{other:?}")),
        }
    }

    /// Waits until it serves.
    #[track_caller]
    pub fn ready(&self) {
        wait_until(&format!("{} serves", self.data.display()), || {
            let status = self
                .status()
                .map_err(|why| format!("{why}; {}", self.last_words()))?;
            if status.ready {
                Ok(())
            } else {
                Err(format!("{status:?}; {}", self.last_words()))
            }
        });
    }

    /// The digest of its state, and the index it holds for.
    pub fn digest(&self) -> Result<(i64, String), String> {
        match self
            .call(&["PLENARY", "DIGEST"])
            .map_err(|error| error.to_string())?
        {
            Reply::Array(parts) => match parts.as_slice() {
                [Reply::Integer(index), digest] => Ok((*index, text(digest))),
                other => Err(format!("{other:?}")),
            },
            other => Err(format!("{other:?}")),
        }
    }

    /// All it said.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for a line of its log.
    #[track_caller]
    pub fn says(&self, words: &str) {
        wait_until(&format!("{words:?} in {}", self.log.display()), || {
            if self.said().contains(words) {
                Ok(())
            } else {
                Err(self.last_words())
            }
        });
    }

    pub fn last_words(&self) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        format!(
            "its log ends with:\n{}",
            lines[lines.len().saturating_sub(12)..].join("\n")
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It has ended already if it cannot be killed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Several nodes on this machine.
pub struct Cluster {
    pub nodes: Vec<Process>,
    pub folder: tempfile::TempDir,
    network: Option<Network>,
}

impl Cluster {
    /// This many nodes with these further settings, not started.
    pub fn new(count: usize, settings: &[&str]) -> Self {
        let addresses: Vec<String> = (0..count).map(|_| format!("127.0.0.1:{}", free_port())).collect();
        Self::at(&addresses, settings, tempfile::tempdir().unwrap())
    }

    /// The same in a network of their own, which can be cut. None where the machine makes no such network; it has been said then.
    pub fn in_network(count: usize, settings: &[&str]) -> Option<Self> {
        let (network, folder) = (Network::of(count)?, tempfile::tempdir().unwrap());
        let secret = folder.path().join("secret");
        std::fs::write(&secret, SECRET).unwrap();
        let secret = secret.to_str().unwrap();
        let addresses: Vec<String> = (0..count)
            .map(|node| format!("{}:7000", network.address(node)))
            .collect();
        let settings = [settings, &["--secret-file", secret, "--access-key-file", secret]].concat();
        let mut cluster = Self::at(&addresses, &settings, folder);
        for (which, node) in cluster.nodes.iter_mut().enumerate() {
            node.redis = format!("{}:6379", network.address(which));
            node.namespace = Some(network.namespace(which));
        }
        cluster.network = Some(network);
        Some(cluster)
    }

    fn at(addresses: &[String], settings: &[&str], folder: tempfile::TempDir) -> Self {
        let (join, expect) = (addresses.join(","), addresses.len().to_string());
        let mut args = vec!["--join", &join, "--expect", &expect];
        args.extend_from_slice(settings);
        let nodes = addresses
            .iter()
            .enumerate()
            .map(|(which, address)| Process::new(folder.path(), &format!("n{which}"), address, &args));
        Self {
            nodes: nodes.collect(),
            folder,
            network: None,
        }
    }

    /// The network that it was started in.
    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("it has a network of its own")
    }

    /// Three nodes that serve.
    #[track_caller]
    pub fn three(settings: &[&str]) -> Self {
        let mut cluster = Self::new(3, settings);
        cluster.start_all();
        cluster
    }

    /// Starts those that do not run, and waits until all serve.
    #[track_caller]
    pub fn start_all(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| node.child.is_none()) {
            node.start();
        }
        for node in &self.nodes {
            node.ready();
        }
    }

    pub fn redis(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.redis.clone()).collect()
    }

    /// Which node leads: those that run are asked until one of them says so of itself.
    #[track_caller]
    pub fn leader(&self) -> usize {
        let mut leader = None;
        wait_until("there is a leader", || {
            leader = self.nodes.iter().position(|node| {
                node.child.is_some() && node.status().is_ok_and(|status| status.role == Role::Leader)
            });
            leader.map(drop).ok_or_else(|| "none".to_owned())
        });
        leader.expect("waited for")
    }

    /// Waits until every node that runs has applied what any has.
    #[track_caller]
    pub fn level(&self) {
        let token = self
            .running()
            .map(|node| node.digest().map_or(0, |digest| digest.0))
            .max()
            .unwrap_or(0)
            .to_string();
        for node in self.running() {
            wait_until("a node catches up", || {
                node.call(&["PLENARY", "WAITFOR", &token, "5000"])
                    .map(drop)
                    .map_err(|error| format!("{error}; {}", node.last_words()))
            });
        }
    }

    /// Waits until all that run are at one index, and compares their states.
    #[track_caller]
    pub fn assert_same_state(&self) {
        wait_until("all nodes are at one index", || {
            let digests: Vec<_> = self.running().map(Process::digest).collect::<Result<_, _>>()?;
            let level = digests.iter().all(|digest| digest.0 == digests[0].0);
            assert!(
                !level || digests.iter().all(|digest| digest.1 == digests[0].1),
                "digests differ: {digests:?}"
            );
            if level {
                Ok(())
            } else {
                Err(format!("{digests:?}"))
            }
        });
    }

    pub fn running(&self) -> impl Iterator<Item = &Process> {
        self.nodes.iter().filter(|node| node.child.is_some())
    }
}
