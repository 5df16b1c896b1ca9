//! A node with its edges, from start until a signal or a fault.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::plenary::Plenary;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

/// How long a graceful stop may take: handing over leadership, writing what is under way, closing the log.
const STOP_TIME_MAX: Duration = Duration::from_secs(20);

/// How long one wait for a node that does not serve yet lasts, and the pause before the next.
const READY_PATIENCE: Duration = Duration::from_secs(60);
const READY_PAUSE: Duration = Duration::from_millis(100);

/// Exit status of a process that a second signal ended: what it had under way was not finished.
const ENDED_AT_ONCE: i32 = 1;

/// What openraft says of each election that does not come about is for its developers: dozens of lines a second on a node that is alone.
const QUIET: &str = "openraft=warn";

/// The filter of `--log`, `info` by default. It overrules [`QUIET`] where it names openraft.
pub(super) fn log_filter(said: Option<&str>) -> std::result::Result<EnvFilter, String> {
    let said = said.filter(|text| !text.is_empty()).unwrap_or("info");
    EnvFilter::try_new(format!("{QUIET},{said}")).map_err(|error| {
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
    crate::edge::resp::descriptors::raise();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io {
            doing: "starting the runtime".to_owned(),
            source,
        })?;
    let outcome = runtime.block_on(async {
        let mut asked = Asked::listen(until_stdin_ends)?;
        // A request that comes meanwhile is not lost: a start takes no longer than reading the log.
        let started = Plenary::start(config).await?;
        let outcome = run(&started, &mut asked).await;
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

/// Runs until it is asked to stop, or its node stopped by itself.
async fn run(plenary: &Plenary, asked: &mut Asked) -> Result<()> {
    let ready = async {
        while plenary.node().ready(READY_PATIENCE).await.is_err() {
            // It said why by its log; a node that has stopped ends this from outside.
            tokio::time::sleep(READY_PAUSE).await;
        }
        announce(plenary);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = ready => Ok(()),
        fault = plenary.node().stopped() => fault.map_or(Ok(()), |why| Err(Error::Stopped { why })),
        () = asked.first() => Ok(()),
    }
}

/// The line that scripts wait for.
fn announce(plenary: &Plenary) {
    let or_nowhere = |address: Option<SocketAddr>| address.map_or("nowhere".to_owned(), |at| at.to_string());
    let (redis, http) = (or_nowhere(plenary.resp_addr()), or_nowhere(plenary.http_addr()));
    let (peers, id) = (plenary.node().raft_addr(), plenary.node().id());
    tracing::info!(target: "plenary", "ready: peers {peers}, redis {redis}, http {http}, node {id}");
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
