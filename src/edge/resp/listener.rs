//! The accept loop: who may come in, how many, and the end of all connections when the endpoint stops.

use super::clients::Entered;
use super::{Shared, access, connection};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
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

/// How often commands per second are counted.
const TICK: Duration = Duration::from_secs(1);

/// Accepts connections until `stopping` says so (or its sender is gone), then ends them all. One task per connection.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>, mut stopping: watch::Receiver<bool>) {
    let (mut connections, mut refusals) = (JoinSet::new(), JoinSet::new());
    let (mut tick, mut counted) = (interval(TICK), 0);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stopping.changed() => break,
            Some(_) = connections.join_next() => {}
            Some(_) = refusals.join_next() => {}
            _ = tick.tick() => counted = count(&shared, counted),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match admit(&shared, &stream, peer) {
                    Ok(entered) => { connections.spawn(connection::serve(stream.into(), shared.clone(), entered)); }
                    Err(why) if refusals.len() < REFUSALS => { refusals.spawn(refuse(stream, why)); }
                    Err(_) => {}
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client; trying again");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
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

/// A place among the clients, or why there is none.
fn admit(shared: &Arc<Shared>, stream: &TcpStream, peer: SocketAddr) -> Result<Entered, &'static str> {
    shared.stats.connections.add(1);
    let refusal = if !access::serves(peer.ip(), shared.config.access_key.as_ref()) {
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
    // Replies leave when they are written, not when there are enough of them. A socket that refuses this is closing anyway.
    let _ = stream.set_nodelay(true);
    let local = stream.local_addr().unwrap_or(shared.address);
    Ok(Entered::new(shared.clone(), peer, local))
}

async fn refuse(mut stream: TcpStream, why: &'static str) {
    let tell = async {
        stream.write_all(format!("-{why}\r\n").as_bytes()).await?;
        connection::linger(&mut stream).await
    };
    // Whoever does not listen to the reason is gone either way.
    let _ = timeout(REFUSAL_TIME, tell).await;
}

/// Notes how many commands ran since the last tick; returns how many ran in all.
fn count(shared: &Shared, before: u64) -> u64 {
    let now = shared.stats.commands.get();
    shared.stats.commands_per_second.set(now.saturating_sub(before));
    now
}
