//! Who is connected: what `CLIENT LIST` shows of others, and the way to end their connection.

use super::encode::Protocol;
use super::hub::{Hub, Subscriptions};
use super::outbox::Outbox;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// One connection, as others see it.
#[derive(Debug)]
pub(super) struct Client {
    /// Counted from 1 since the endpoint started; never the same twice.
    pub(super) id: u64,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    since: Instant,
    /// Milliseconds from `since` to the last time it sent something.
    last_ms: AtomicU64,
    /// What changes by its own commands. Held to read or set a field, never across an await.
    pub(super) shown: Mutex<Shown>,
    /// What is pushed to it.
    pub(super) outbox: Outbox,
    /// What it is subscribed to. Held to look or to change, before the hub's lock is taken, never across an await.
    pub(super) subscriptions: Mutex<Subscriptions>,
    /// Whether it speaks RESP3.
    resp3: AtomicBool,
    /// Bytes of commands that came and were not run when something came last.
    input_bytes: AtomicUsize,
    /// Bytes of replies that waited then.
    output_bytes: AtomicUsize,
    end: Notify,
}

/// What a connection says of itself.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) name: String,
    pub(super) library: String,
    pub(super) library_version: String,
    pub(super) db: u8,
    /// Commands queued since `MULTI`.
    pub(super) queued: Option<usize>,
    /// The row of its last command.
    pub(super) command: &'static str,
    pub(super) no_evict: bool,
    pub(super) no_touch: bool,
}

impl Client {
    /// Notes that it sent something.
    pub(super) fn spoke(&self) {
        self.last_ms.store(millis(self.since.elapsed()), Relaxed);
    }

    /// The version of the protocol it speaks.
    pub(super) fn protocol(&self) -> Protocol {
        if self.resp3.load(Relaxed) {
            Protocol::Resp3
        } else {
            Protocol::Resp2
        }
    }

    pub(super) fn speak(&self, protocol: Protocol) {
        self.resp3.store(protocol == Protocol::Resp3, Relaxed);
    }

    /// Notes how full its buffers are.
    pub(super) fn note_buffers(&self, input_bytes: usize, output_bytes: usize) {
        self.input_bytes.store(input_bytes, Relaxed);
        self.output_bytes.store(output_bytes, Relaxed);
    }

    /// Ends its connection: at once if it waits for input, else after the command that it runs.
    pub(super) fn end(&self) {
        self.end.notify_one();
    }

    /// Resolves when somebody has ended it. Cancel-safe.
    pub(super) async fn ended(&self) {
        self.end.notified().await;
    }

    /// Its line in `CLIENT LIST`, with the fields of Redis 7.2. What has no meaning here stands as 0.
    pub(super) fn line(&self) -> String {
        let (channels, patterns, shards) = {
            let subscriptions = self.subscriptions.lock();
            (
                subscriptions.channels.len(),
                subscriptions.patterns.len(),
                subscriptions.shards.len(),
            )
        };
        let (messages, pushed) = self.outbox.size();
        let (input, output) = (self.input_bytes.load(Relaxed), self.output_bytes.load(Relaxed));
        let (age, shown) = (self.since.elapsed(), self.shown.lock());
        let idle = millis(age).saturating_sub(self.last_ms.load(Relaxed)) / 1000;
        let mut flags = String::new();
        for (flag, is_set) in [
            ('P', channels + patterns + shards > 0),
            ('x', shown.queued.is_some()),
            ('e', shown.no_evict),
            ('T', shown.no_touch),
        ] {
            flags.extend(is_set.then_some(flag));
        }
        let flags = if flags.is_empty() { "N" } else { &flags };
        let command = match shown.command {
            "" => "NULL".to_owned(),
            name => name.to_ascii_lowercase(),
        };
        let queued = shown
            .queued
            .map_or(-1, |queued| i64::try_from(queued).unwrap_or(i64::MAX));
        let resp = if self.protocol() == Protocol::Resp3 { 3 } else { 2 };
        format!(
            "id={} addr={} laddr={} fd=0 name={} age={} idle={idle} flags={flags} db={} sub={channels} psub={patterns} ssub={shards} \
             multi={queued} qbuf={input} qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl={output} oll={messages} omem={pushed} \
             tot-mem={} events=r cmd={command} user=default redir=-1 resp={resp} lib-name={} lib-ver={}",
            self.id,
            self.peer,
            self.local,
            shown.name,
            age.as_secs(),
            shown.db,
            input + output + pushed,
            shown.library,
            shown.library_version
        )
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Everybody who is connected; at most `max_clients`.
#[derive(Debug, Default)]
pub(super) struct Clients {
    /// Held for a look-up or a copy of the list, never across an await.
    connected: Mutex<BTreeMap<u64, Arc<Client>>>,
    last_id: AtomicU64,
}

impl Clients {
    /// Enters a connection; it leaves when the guard is dropped.
    pub(super) fn enter(self: &Arc<Self>, hub: &Arc<Hub>, peer: SocketAddr, local: SocketAddr) -> Entered {
        let id = self.last_id.fetch_add(1, Relaxed) + 1;
        let client = Arc::new(Client {
            id,
            peer,
            local,
            since: Instant::now(),
            last_ms: AtomicU64::new(0),
            shown: Mutex::default(),
            outbox: Outbox::default(),
            subscriptions: Mutex::default(),
            resp3: AtomicBool::new(false),
            input_bytes: AtomicUsize::new(0),
            output_bytes: AtomicUsize::new(0),
            end: Notify::new(),
        });
        self.connected.lock().insert(id, client.clone());
        Entered {
            clients: self.clone(),
            hub: hub.clone(),
            client,
        }
    }

    /// How many are connected.
    pub(super) fn count(&self) -> usize {
        self.connected.lock().len()
    }

    /// Everybody, by id.
    pub(super) fn all(&self) -> Vec<Arc<Client>> {
        self.connected.lock().values().cloned().collect()
    }
}

/// A place in [`Clients`].
#[derive(Debug)]
pub(super) struct Entered {
    clients: Arc<Clients>,
    hub: Arc<Hub>,
    pub(super) client: Arc<Client>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.clients.connected.lock().remove(&self.client.id);
        self.hub.leave(&self.client);
    }
}
