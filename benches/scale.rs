//! What a million keys cost: the memory of one node beside a redis-server that holds the same, and how long a node with them takes to start again.
//!
//!     cargo bench --bench scale                       # a million keys of each kind, some 3 GB, five minutes
//!     cargo bench --bench scale -- --keys 100000
//!
//! Not a test: nothing here fails for being slow or large.

#[path = "targets/mod.rs"]
mod targets;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use targets::{Fault, free_port};

/// Commands that are sent before their answers are read.
const PIPELINE: usize = 500;

/// Content of each key, in bytes: of eight parts, their names included, where it has parts.
const CONTENT: usize = 512;
const PARTS: usize = 8;

/// A day: what sessions live for.
const LIFE_SECONDS: &str = "86400";
const LIFE_MS: &str = "86400000";

/// How long a process may take to serve.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long memory is given to settle: snapshots are written meanwhile.
const SETTLES: Duration = Duration::from_secs(5);

/// What is stored under each key.
#[derive(Clone, Copy)]
enum Kind {
    Plain,
    String,
    Hash,
    Session,
}

impl Kind {
    const ALL: [(&str, Self); 4] = [
        ("a string of 128 bytes that stays", Self::Plain),
        ("a string of 512 bytes that lives for a day", Self::String),
        ("a hash of 8 fields, 512 bytes, that lives for a day", Self::Hash),
        ("a session of 8 items, 512 bytes (Redis: the hash)", Self::Session),
    ];

    /// The commands that store it under this key.
    fn commands(self, key: &str) -> Vec<Vec<String>> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let parts = (0..PARTS).flat_map(|part| {
            let name = format!("field {part}");
            let value = "v".repeat(CONTENT / PARTS - name.len());
            [name, value]
        });
        match self {
            Self::Plain => vec![words(&["SET", key, &"v".repeat(128)])],
            Self::String => vec![words(&["SET", key, &"v".repeat(CONTENT), "EX", LIFE_SECONDS])],
            Self::Hash => vec![
                words(&["HSET", key]).into_iter().chain(parts).collect(),
                words(&["EXPIRE", key, LIFE_SECONDS]),
            ],
            Self::Session => {
                let head = words(&["SESSION.CREATE", key, LIFE_MS, "ITEMS", &PARTS.to_string()]);
                vec![head.into_iter().chain(parts).collect()]
            }
        }
    }
}

/// A process that ends with its owner.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    /// A node whose folder has so many keys.
    fn plenary(folder: &Path, keys: usize) -> Result<Self, Fault> {
        let (peer, port) = (free_port(), free_port());
        let mut command = Command::new(env!("CARGO_BIN_EXE_plenary"));
        command
            .args([
                "serve",
                "--log",
                "error",
                "--listen",
                &format!("127.0.0.1:{peer}"),
            ])
            .args(["--resp", &format!("127.0.0.1:{port}"), "--data"])
            .arg(folder);
        Self::start(command, port, keys)
    }

    fn redis() -> Result<Self, Fault> {
        let port = free_port();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        Self::start(command, port, 0)
    }

    fn start(mut command: Command, port: u16, keys: usize) -> Result<Self, Fault> {
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let server = Self { process, port };
        server.until_it_has(keys)?;
        Ok(server)
    }

    /// Waits until it serves so many keys.
    fn until_it_has(&self, keys: usize) -> Result<(), Fault> {
        let until = Instant::now() + PATIENCE;
        loop {
            let counted = Client::connect(self.port).and_then(|mut client| client.count_keys());
            if counted.is_ok_and(|counted| counted == keys) {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!(
                    "port {} does not serve {keys} keys within {PATIENCE:?}",
                    self.port
                )
                .into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Bytes of it that are in memory.
    fn resident_bytes(&self) -> Result<f64, Fault> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next());
        Ok(1_024.0 * kilobytes.ok_or("no VmRSS")?.parse::<f64>()?)
    }

    /// Fills it; how many bytes of memory each key took.
    fn fill(&self, kind: Kind, keys: usize) -> Result<f64, Fault> {
        let before = self.resident_bytes()?;
        Client::connect(self.port)?.store(kind, keys)?;
        self.until_it_has(keys)?;
        std::thread::sleep(SETTLES);
        Ok((self.resident_bytes()? - before) / keys as f64)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, which is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A connection that speaks just enough of Redis.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(port: u16) -> Result<Self, Fault> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    fn send(&mut self, commands: &[Vec<String>]) -> Result<(), Fault> {
        let mut request = Vec::new();
        for argv in commands {
            write!(request, "*{}\r\n", argv.len())?;
            for argument in argv {
                write!(request, "${}\r\n{argument}\r\n", argument.len())?;
            }
        }
        Ok(self.0.get_mut().write_all(&request)?)
    }

    /// A reply of one line, which is no error.
    fn line(&mut self) -> Result<String, Fault> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        match line.as_bytes().first() {
            Some(b'+' | b':') => Ok(line[1..].trim_end().to_owned()),
            _ => Err(format!("the answer is {line:?}").into()),
        }
    }

    fn count_keys(&mut self) -> Result<usize, Fault> {
        self.send(&[vec!["DBSIZE".to_owned()]])?;
        Ok(self.line()?.parse()?)
    }

    fn store(&mut self, kind: Kind, keys: usize) -> Result<(), Fault> {
        for first in (0..keys).step_by(PIPELINE) {
            let these = first..keys.min(first + PIPELINE);
            // In no order that memory would know.
            let names = these.map(|key| {
                format!(
                    "session:{:032x}",
                    (key as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
                )
            });
            let commands: Vec<_> = names.flat_map(|name| kind.commands(&name)).collect();
            self.send(&commands)?;
            commands.iter().try_for_each(|_| self.line().map(drop))?;
        }
        Ok(())
    }
}

fn main() -> Result<(), Fault> {
    let arguments: Vec<String> = std::env::args().collect();
    let asked = arguments.iter().position(|argument| argument == "--keys");
    let keys = match asked.and_then(|at| arguments.get(at + 1)) {
        Some(number) => number.parse()?,
        None => 1_000_000,
    };
    println!(
        "| {keys} keys, each | Plenary, bytes | Redis, bytes | of Redis | started again, bytes | of Redis | ready after |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (name, kind) in Kind::ALL {
        let redis = match kind {
            Kind::Session => Server::redis()?.fill(Kind::Hash, keys)?,
            kind => Server::redis()?.fill(kind, keys)?,
        };
        let folder = tempfile::tempdir()?;
        let node = Server::plenary(folder.path(), 0)?;
        let plenary = node.fill(kind, keys)?;
        drop(node);
        let begun = Instant::now();
        let node = Server::plenary(folder.path(), keys)?;
        let ready = begun.elapsed();
        std::thread::sleep(SETTLES);
        let again = node.resident_bytes()? / keys as f64;
        println!(
            "| {name} | {plenary:.0} | {redis:.0} | {:.2} | {again:.0} | {:.2} | {:.1} s |",
            plenary / redis,
            again / redis,
            ready.as_secs_f64()
        );
    }
    Ok(())
}
