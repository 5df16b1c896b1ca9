//! A node from start to stop: node, Redis endpoint and HTTP in that order, then until a signal or a fault, then back.

use crate::config::{Config, RespConfig};
use crate::edge::http::Http;
use crate::edge::resp::Resp;
use crate::error::{Error, Result};
use crate::node::Node;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

/// How long a graceful stop may take: handing over leadership, writing what is under way, closing the log.
const STOP_TIME_MAX: Duration = Duration::from_secs(20);

/// How often the node is asked whether it serves yet.
const READY_POLL: Duration = Duration::from_millis(20);

/// Exit status of a process that a second signal ended: what it had under way was not finished.
const ENDED_AT_ONCE: i32 = 1;

/// The filter of `--log`, `info` by default.
pub(super) fn log_filter(said: Option<&str>) -> std::result::Result<EnvFilter, String> {
    let said = said.filter(|text| !text.is_empty()).unwrap_or("info");
    EnvFilter::try_new(said).map_err(|error| {
        format!("log = {said:?}: {error}. Write off, error, warn, info, debug, trace, or a filter as warn,plenary=debug")
    })
}

/// Sends the log to standard error from here on.
pub(super) fn log_to_stderr(filter: EnvFilter) {
    // A program that is `plenary` by calling it may have its own log already; then that one stays.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
}

/// Runs a node until it is asked to stop.
///
/// # Errors
/// What kept it from starting, and the fault if it stopped by itself.
pub(super) fn serve(config: Config, until_stdin_ends: bool) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io {
            doing: "starting the runtime".to_owned(),
            source,
        })?;
    let outcome = runtime.block_on(async {
        let mut asked = Asked::listen(until_stdin_ends)?;
        let started = tokio::select! {
            started = Running::start(config) => started?,
            () = asked.first() => return Ok(()),
        };
        let outcome = started.run(&mut asked).await;
        tokio::select! {
            stopped = tokio::time::timeout(STOP_TIME_MAX, started.stop()) => match stopped {
                Ok(stopped) => outcome.and(stopped),
                Err(_) => outcome.and(Err(Error::Stopped {
                    why: format!("it did not stop within {} s and was ended", STOP_TIME_MAX.as_secs()),
                })),
            },
            () = asked.second() => {
                tracing::warn!(target: "plenary", "asked again to stop: ending at once");
                std::process::exit(ENDED_AT_ONCE)
            }
        }
    });
    // Not by dropping it: that would wait without bound for what did not stop in time.
    runtime.shutdown_background();
    outcome
}

/// What runs in this process, in the order it was started in.
struct Running {
    node: Node,
    resp: Option<Resp>,
    http: Option<Http>,
}

impl Running {
    async fn start(config: Config) -> Result<Self> {
        let (resp, http) = (config.resp.clone(), config.http.clone());
        let mut running = Self {
            node: Node::start(config).await?,
            resp: None,
            http: None,
        };
        match running.start_edges(resp, http).await {
            Ok(()) => Ok(running),
            Err(error) => {
                // The port is the news; that a node which has done nothing stops is not.
                let _ = running.stop().await;
                Err(error)
            }
        }
    }

    async fn start_edges(&mut self, resp: Option<RespConfig>, http: Option<String>) -> Result<()> {
        if let Some(resp) = resp {
            self.resp = Some(Resp::start(self.node.clone(), resp).await?);
        }
        if let Some(listen) = http {
            self.http = Some(Http::start(self.node.clone(), &listen).await?);
        }
        Ok(())
    }

    /// Until it is asked to stop, or its node stopped by itself.
    async fn run(&self, asked: &mut Asked) -> Result<()> {
        let ready = async {
            while !self.node.status().ready {
                tokio::time::sleep(READY_POLL).await;
            }
            self.announce();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = ready => Ok(()),
            fault = self.node.stopped() => fault.map_or(Ok(()), |why| Err(Error::Stopped { why })),
            () = asked.first() => Ok(()),
        }
    }

    /// The line that scripts wait for.
    fn announce(&self) {
        let or_nowhere =
            |address: Option<SocketAddr>| address.map_or("nowhere".to_owned(), |at| at.to_string());
        let redis = or_nowhere(self.resp.as_ref().map(Resp::address));
        let http = or_nowhere(self.http.as_ref().map(Http::address));
        let (peers, id) = (self.node.raft_addr(), self.node.status().node_id);
        tracing::info!(target: "plenary", "ready: peers {peers}, redis {redis}, http {http}, node {id}");
    }

    /// Clients first, so that what they sent is finished; HTTP last, so that `/ready` tells of it.
    async fn stop(self) -> Result<()> {
        if let Some(resp) = self.resp {
            resp.stop().await;
        }
        let stopped = self.node.stop().await;
        if let Some(http) = self.http {
            http.stop().await;
        }
        stopped
    }
}

/// What asks this process to stop.
#[derive(Clone, Copy, PartialEq)]
enum Request {
    Signal,
    StdinEnded,
}

/// Listens from before the node starts, so that no request is lost.
struct Asked {
    requests: mpsc::Receiver<Request>,
}

impl Asked {
    fn listen(until_stdin_ends: bool) -> Result<Self> {
        // Room for the requests that matter: the first, the second, and the end of standard input.
        let (ask, requests) = mpsc::channel(3);
        listen_for_signals(ask.clone()).map_err(|source| Error::Io {
            doing: "listening for signals".to_owned(),
            source,
        })?;
        if until_stdin_ends {
            // A thread, not a task: a read of standard input cannot be cancelled. It ends with the process.
            std::thread::spawn(move || {
                // Whatever the read comes to, nobody is at the other end any more.
                let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
                let _ = ask.blocking_send(Request::StdinEnded);
            });
        }
        Ok(Self { requests })
    }

    async fn first(&mut self) {
        match self.requests.recv().await {
            Some(Request::StdinEnded) => tracing::info!(target: "plenary", "stopping: standard input ended"),
            _ => tracing::info!(target: "plenary", "stopping; a second signal ends at once"),
        }
    }

    /// Only a signal is a second request: a terminal's Ctrl-C also ends the parent that holds standard input.
    async fn second(&mut self) {
        while let Some(request) = self.requests.recv().await {
            if request == Request::Signal {
                return;
            }
        }
        std::future::pending().await
    }
}

#[cfg(unix)]
fn listen_for_signals(ask: mpsc::Sender<Request>) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            // A full channel holds more requests than anybody will read.
            let _ = ask.try_send(Request::Signal);
        }
    });
    Ok(())
}

#[cfg(not(unix))]
fn listen_for_signals(ask: mpsc::Sender<Request>) -> std::io::Result<()> {
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            // A full channel holds more requests than anybody will read.
            let _ = ask.try_send(Request::Signal);
        }
    });
    Ok(())
}
