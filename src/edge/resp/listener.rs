//! The accept loop: who may come in, how many, and the end of all connections when the endpoint stops.

use super::clients::Entered;
use super::stats::Counter;
use super::stream::Stream;
use super::{Listeners, Shared, access, connection, permit};
#[cfg(test)]
use crate::raft::net::simulated;
use std::io;
#[cfg(test)]
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// How long connections may take to finish the command they run when the endpoint stops. A little more than a write waits at most
/// by default: its client should hear what came of it.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(6);

/// Peers that are being told why they are turned away. Beyond it they are closed without a word.
const REFUSALS: usize = 64;

/// How long a peer that is turned away may take to read why.
const REFUSAL_TIME: Duration = Duration::from_secs(1);

/// The wait after the system could not give us a connection (no file descriptors left): they come back when clients leave.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often commands per second are counted, and who does not read is looked for.
const TICK: Duration = Duration::from_secs(1);

/// Accepts connections until `stopping` says so (or its sender is gone), then ends them all. One task per connection.
pub(super) async fn accept(listeners: Listeners, shared: Arc<Shared>, mut stopping: watch::Receiver<bool>) {
    let Listeners {
        mut plain,
        mut secure,
    } = listeners;
    let (mut connections, mut refusals) = (JoinSet::new(), JoinSet::new());
    let (mut tick, mut counted) = (interval(TICK), [0; 3]);
    let mut access_changes = shared.node.access_changes();
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stopping.changed() => break,
            Some(_) = connections.join_next() => {}
            Some(_) = refusals.join_next() => {}
            Ok(()) = access_changes.changed() => permit::end_removed(&shared),
            _ = tick.tick() => {
                counted = count(&shared, counted);
                for client in shared.clients.all() {
                    client.end_if_overdue(&shared.reply_limits, &shared.hub.limits);
                }
            }
            accepted = next(plain.as_mut()) => match accepted {
                Ok((stream, peer)) => match admit(&shared, peer, stream.local_addr()) {
                    Ok(entered) => { connections.spawn(connection::serve(stream, shared.clone(), entered)); }
                    Err(why) if refusals.len() < REFUSALS => { refusals.spawn(refuse(stream, why)); }
                    Err(_) => {}
                },
                Err(error) => pause(&error).await,
            },
            accepted = next(secure.as_mut()) => match accepted {
                // Before TLS there are no words in which a reason could be told.
                Ok((stream, peer)) => if let Ok(entered) = admit(&shared, peer, stream.local_addr()) {
                    connections.spawn(serve_secure(stream, shared.clone(), entered));
                },
                Err(error) => pause(&error).await,
            },
        }
    }
    drop((plain, secure));
    for client in shared.clients.all() {
        client.end();
    }
    let ended = timeout(STOP_GRACE, async {
        while connections.join_next().await.is_some() {}
    });
    if ended.await.is_err() {
        tracing::warn!(
            left = connections.len(),
            "clients did not finish in time and are cut off"
        );
    }
    connections.shutdown().await;
}

/// Where clients are listened for.
#[derive(Debug)]
pub(super) enum Door {
    System(TcpListener),
    /// In memory: `src/simulation/`.
    #[cfg(test)]
    Simulated(simulated::Listener),
}

impl Door {
    /// Its address, after port 0 was resolved.
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::System(listener) => listener.local_addr(),
            #[cfg(test)]
            Self::Simulated(listener) => Ok((Ipv4Addr::LOCALHOST, listener.port()).into()),
        }
    }

    async fn accept(&mut self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Self::System(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Replies leave when they are written, not when there are enough of them. A socket that refuses this is closing anyway.
                let _ = stream.set_nodelay(true);
                Ok((stream.into(), peer))
            }
            #[cfg(test)]
            Self::Simulated(listener) => {
                let wire = listener.accept().await;
                let [.., host] = wire.peer().to_be_bytes();
                let peer = Ipv4Addr::new(127, 0, 0, host);
                Ok((Stream::Wrapped(Box::new(wire)), (peer, 0).into()))
            }
        }
    }
}

/// The next who connects; nobody, where nobody is listened for.
async fn next(door: Option<&mut Door>) -> io::Result<(Stream, SocketAddr)> {
    match door {
        Some(door) => door.accept().await,
        None => std::future::pending().await,
    }
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a client; trying again");
    sleep(ACCEPT_PAUSE).await;
}

/// Agrees on keys first. The client has its place meanwhile, so what is under way is bounded by `max_clients`.
#[cfg(feature = "tls")]
async fn serve_secure(stream: Stream, shared: Arc<Shared>, entered: Entered) {
    let (Some(tls), Stream::Plain(stream)) = (&shared.tls, stream) else {
        return;
    };
    let accepted = tokio::select! {
        accepted = tls.accept(stream) => accepted,
        () = entered.client.ended() => None,
    };
    if let Some(stream) = accepted {
        connection::serve(stream, shared.clone(), entered).await;
    }
}

/// Never called: [`super::Resp::bind`] refuses such settings.
#[cfg(not(feature = "tls"))]
async fn serve_secure(_: Stream, _: Arc<Shared>, _: Entered) {}

/// A place among the clients, or why there is none.
fn admit(shared: &Arc<Shared>, peer: SocketAddr, local: Option<SocketAddr>) -> Result<Entered, &'static str> {
    shared.stats.connections.add(1);
    let refusal = if !access::serves(peer.ip(), shared.access.open(shared)) {
        Some(access::DENIED)
    } else if shared.clients.count() >= shared.max_clients.load(Relaxed) {
        Some("ERR max number of clients reached")
    } else {
        None
    };
    if let Some(why) = refusal {
        shared.stats.rejected.add(1);
        return Err(why);
    }
    Ok(Entered::new(
        shared.clone(),
        peer,
        local.unwrap_or(shared.address),
    ))
}

async fn refuse(stream: Stream, why: &'static str) {
    let (mut reader, mut writer) = stream.into_split();
    let tell = async {
        writer.write_all(format!("-{why}\r\n").as_bytes()).await?;
        connection::linger(&mut reader, &mut writer).await
    };
    // Whoever does not listen to the reason is gone either way.
    let _ = timeout(REFUSAL_TIME, tell).await;
}

/// Notes how many commands ran since the last tick, and bytes came and went; returns how many did in all.
fn count(shared: &Shared, before: [u64; 3]) -> [u64; 3] {
    let stats = &shared.stats;
    let now = [&stats.commands, &stats.input_bytes, &stats.output_bytes].map(Counter::get);
    let places = [
        &stats.commands_per_second,
        &stats.input_per_second,
        &stats.output_per_second,
    ];
    for ((place, now), before) in places.into_iter().zip(now).zip(before) {
        place.set(now.saturating_sub(before));
    }
    now
}
