//! The copies of an application as children of this process: their ports, started, asked to stop, killed.

use std::error::Error;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long any condition may take to come true.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at a condition.
pub(crate) const LOOK: Duration = Duration::from_millis(10);

/// Where free ports are looked for: below those that the system takes for outgoing connections, one of which could otherwise have a copy's port
/// when it is started again.
const BASE_PORTS: std::ops::Range<u64> = 12_000..31_000;

/// Bases that are tried.
const BASES_MAX: usize = 200;

/// How long a copy may take to stop by itself before it is killed.
const STOP: Duration = Duration::from_secs(30);

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Loopback ports at these distances from a base, or from one at which all of them are free. All are held at once, so that they differ.
pub(crate) fn listeners(base: Option<u16>, offsets: &[u16]) -> Result<Vec<TcpListener>> {
    let bind = |base: u16| {
        let ports = offsets.iter().map(|offset| base.saturating_add(*offset));
        let bound = ports.map(|port| {
            TcpListener::bind(("127.0.0.1", port)).map_err(|error| format!("port {port}: {error}"))
        });
        bound.collect::<std::result::Result<Vec<_>, _>>()
    };
    if let Some(base) = base {
        return Ok(bind(base).map_err(|error| format!("{error}; try another --base-port"))?);
    }
    for _ in 0..BASES_MAX {
        let random = RandomState::new().build_hasher().finish();
        let base = BASE_PORTS.start + random % (BASE_PORTS.end - BASE_PORTS.start);
        if let Ok(bound) = bind(u16::try_from(base)?) {
            return Ok(bound);
        }
    }
    Err("no free ports; try --base-port".into())
}

/// This same program, once for each copy. Those that still run are killed with it.
pub(crate) struct Children {
    arguments: Vec<Vec<String>>,
    children: Vec<Child>,
    secret: String,
}

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Nothing is left to do for one that has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Children {
    /// Starts a copy with each of these arguments.
    pub(crate) fn start(arguments: Vec<Vec<String>>) -> Result<Self> {
        let mut children = Self {
            arguments,
            children: Vec::new(),
            secret: plenary::session::SessionId::random()?.as_str().to_owned(),
        };
        for index in 0..children.arguments.len() {
            let child = children.spawn(index)?;
            children.children.push(child);
        }
        Ok(children)
    }

    fn spawn(&self, index: usize) -> Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("copy")
            .args(&self.arguments[index])
            .env("PLENARY_SECRET", &self.secret);
        Ok(command.stdin(Stdio::piped()).spawn()?)
    }

    /// kill -9: the copy gets no chance to do anything.
    pub(crate) fn kill(&mut self, index: usize) -> Result<()> {
        self.children[index].kill()?;
        self.children[index].wait()?;
        Ok(())
    }

    /// Asks a copy to stop: its standard input ends, as it also does when this process is gone.
    fn ask_to_stop(&mut self, index: usize) {
        drop(self.children[index].stdin.take());
    }

    /// Asks a copy to stop and waits until it has; how it ended.
    #[allow(dead_code, reason = "web-sessions only kills")]
    pub(crate) async fn stop_one(&mut self, index: usize) -> Result<ExitStatus> {
        self.ask_to_stop(index);
        let started = Instant::now();
        while started.elapsed() < STOP {
            if let Some(ended) = self.children[index].try_wait()? {
                return Ok(ended);
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(format!("copy {} does not stop", index + 1).into())
    }

    /// Starts a copy again that has ended.
    pub(crate) fn restart(&mut self, index: usize) -> Result<()> {
        self.children[index] = self.spawn(index)?;
        Ok(())
    }

    /// # Errors
    /// That a copy has ended, which nobody asked for.
    pub(crate) fn all_run(&mut self) -> Result<()> {
        for (index, child) in self.children.iter_mut().enumerate() {
            if let Some(ended) = child.try_wait()? {
                return Err(format!("copy {} ended by itself: {ended}", index + 1).into());
            }
        }
        Ok(())
    }

    /// Lets every copy stop by itself; one that does not is killed when this is dropped.
    pub(crate) async fn stop(&mut self) {
        for index in 0..self.children.len() {
            self.ask_to_stop(index);
        }
        let started = Instant::now();
        while started.elapsed() < STOP {
            let mut children = self.children.iter_mut();
            if children.all(|child| !matches!(child.try_wait(), Ok(None))) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// A plain GET on one copy; none if it does not answer soon.
pub(crate) async fn get(address: &str, path: &str) -> Option<(u16, Vec<u8>)> {
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.take(1 << 16).read_to_end(&mut answer).await.ok()?;
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let status = std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()?;
        Some((status, answer[end..].to_vec()))
    };
    tokio::time::timeout(Duration::from_secs(1), ask).await.ok()?
}
