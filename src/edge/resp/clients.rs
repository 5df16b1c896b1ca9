//! Who is connected: what `CLIENT LIST` shows of others, and the way to end their connection.

use super::Shared;
use super::blocking::Blocked;
use super::encode::Protocol;
use super::hub::Subscriptions;
use super::outbox::{Outbox, OutputLimits};
use super::tracking::{self, Mode};
use crate::machine::access::DEFAULT_USER;
use crate::machine::table::{self, Spec};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// In the place of a row's id: there is no row behind it.
const NO_COMMAND: usize = usize::MAX;

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
    /// The id of the row of its last command; [`NO_COMMAND`] before the first.
    command: AtomicUsize,
    /// What changes by its own commands. Held to read or set a field, never across an await.
    pub(super) shown: Mutex<Shown>,
    /// What is pushed to it.
    pub(super) outbox: Outbox,
    /// What it is subscribed to. Held to look or to change, before the hub's lock is taken, never across an await.
    pub(super) subscriptions: Mutex<Subscriptions>,
    /// How it tracks what it reads, if it does. Held to look or to change, never across an await.
    pub(super) tracking: Mutex<Option<Mode>>,
    /// Whether a command of it waits.
    pub(super) blocked: Blocked,
    /// Whether its connection has ended: nothing is told to it any more.
    gone: AtomicBool,
    /// Whether it speaks RESP3.
    resp3: AtomicBool,
    /// Bytes of commands that came and were not run when something came or went last, and for how many more there was room.
    input_bytes: AtomicUsize,
    input_room: AtomicUsize,
    /// Bytes of replies that waited then, the room for them, and the most that ever waited.
    output_bytes: AtomicUsize,
    output_room: AtomicUsize,
    output_peak: AtomicUsize,
    /// Since when more of them wait than may wait for long. Held to look and set, never across an await.
    full_since: Mutex<Option<Instant>>,
    end: Notify,
}

/// What a connection says of itself.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) name: String,
    pub(super) library: String,
    pub(super) library_version: String,
    pub(super) db: u8,
    /// Commands queued since `MULTI`, and their bytes.
    pub(super) queued: Option<usize>,
    pub(super) queued_bytes: usize,
    /// Whether it looks on.
    pub(super) monitors: bool,
    pub(super) no_evict: bool,
    pub(super) no_touch: bool,
    /// Who it is, and the revision at which that user was made.
    pub(super) user: Bytes,
    pub(super) user_born: u64,
}

impl Default for Shown {
    fn default() -> Self {
        Self {
            name: String::new(),
            library: String::new(),
            library_version: String::new(),
            db: 0,
            queued: None,
            queued_bytes: 0,
            monitors: false,
            no_evict: false,
            no_touch: false,
            user: Bytes::from_static(DEFAULT_USER),
            user_born: 0,
        }
    }
}

impl Client {
    /// Notes that it sent something.
    pub(super) fn spoke(&self) {
        self.last_ms.store(millis(self.since.elapsed()), Relaxed);
    }

    /// Notes the command that it runs.
    pub(super) fn runs(&self, spec: &Spec) {
        self.command.store(spec.id, Relaxed);
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

    /// Whether its connection has ended.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Relaxed)
    }

    /// Whether it is subscribed to anything.
    pub(super) fn subscribes(&self) -> bool {
        self.subscriptions.lock().total() > 0
    }

    /// Notes how full its buffers are.
    pub(super) fn note_buffers(&self, input: &BytesMut, output: &BytesMut) {
        self.input_bytes.store(input.len(), Relaxed);
        self.input_room.store(input.capacity() - input.len(), Relaxed);
        self.output_bytes.store(output.len(), Relaxed);
        self.output_room.store(output.capacity(), Relaxed);
        self.output_peak.fetch_max(output.len(), Relaxed);
    }

    /// Bytes of commands that wait in its buffer, and of replies and messages that wait for it.
    pub(super) fn waiting_bytes(&self) -> (usize, usize) {
        let (_, pushed) = self.outbox.size();
        (
            self.input_bytes.load(Relaxed),
            self.output_bytes.load(Relaxed) + pushed,
        )
    }

    /// Bytes of its buffers, of what is queued in them or since `MULTI`, and of itself.
    pub(super) fn memory(&self) -> usize {
        let (input, waiting) = self.waiting_bytes();
        let queued = self.shown.lock().queued_bytes;
        let unused =
            |room: &AtomicUsize, used: &AtomicUsize| room.load(Relaxed).saturating_sub(used.load(Relaxed));
        let room = self.input_room.load(Relaxed) + unused(&self.output_room, &self.output_bytes);
        size_of::<Self>() + input + waiting + room + queued
    }

    /// Seconds since it connected.
    pub(super) fn age_seconds(&self) -> u64 {
        self.since.elapsed().as_secs()
    }

    /// Cuts it off if what it does not read has waited too long.
    pub(super) fn end_if_overdue(&self, replies: &OutputLimits, messages: &OutputLimits) {
        let limits = if self.subscribes() { messages } else { replies };
        let waiting = self.output_bytes.load(Relaxed);
        let overdue = limits.exceeds_any(waiting, &mut self.full_since.lock());
        if overdue {
            self.outbox.close();
        }
        if overdue || self.outbox.is_overdue(messages) {
            self.end();
        }
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
        let (tracks, redirect) = tracking::shown(self);
        let memory = self.memory();
        let (input, output) = (self.input_bytes.load(Relaxed), self.output_bytes.load(Relaxed));
        let (input_room, output_room) = (self.input_room.load(Relaxed), self.output_room.load(Relaxed));
        let output_peak = self.output_peak.load(Relaxed);
        let (age, shown) = (self.since.elapsed(), self.shown.lock());
        let idle = millis(age).saturating_sub(self.last_ms.load(Relaxed)) / 1000;
        let mut flags = String::new();
        let set = |flag, is_set: bool| is_set.then_some(flag);
        flags.extend(set('O', shown.monitors));
        flags.extend(set('P', channels + patterns + shards > 0));
        flags.extend(set('x', shown.queued.is_some()));
        flags.extend(set('b', self.blocked.is_waiting()));
        flags.push_str(&tracks);
        flags.extend(set('e', shown.no_evict));
        flags.extend(set('T', shown.no_touch));
        let flags = if flags.is_empty() { "N" } else { &flags };
        let command = table::all().nth(self.command.load(Relaxed));
        let command = command.map_or("NULL".to_owned(), |spec| spec.name.to_ascii_lowercase());
        let queued = shown
            .queued
            .map_or(-1, |queued| i64::try_from(queued).unwrap_or(i64::MAX));
        let resp = if self.protocol() == Protocol::Resp3 { 3 } else { 2 };
        format!(
            "id={} addr={} laddr={} fd=0 name={} age={} idle={idle} flags={flags} db={} sub={channels} psub={patterns} ssub={shards} \
             multi={queued} qbuf={input} qbuf-free={input_room} argv-mem=0 multi-mem={} rbs={output_room} rbp={output_peak} obl={output} \
             oll={messages} omem={pushed} tot-mem={memory} events=r cmd={command} user={} redir={redirect} resp={resp} lib-name={} lib-ver={}",
            self.id,
            self.peer,
            self.local,
            shown.name,
            age.as_secs(),
            shown.db,
            shown.queued_bytes,
            String::from_utf8_lossy(&shown.user),
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
    pub(super) fn enter(&self, peer: SocketAddr, local: SocketAddr) -> Arc<Client> {
        let id = self.last_id.fetch_add(1, Relaxed) + 1;
        let client = Arc::new(Client {
            id,
            peer,
            local,
            since: Instant::now(),
            last_ms: AtomicU64::new(0),
            command: AtomicUsize::new(NO_COMMAND),
            shown: Mutex::default(),
            outbox: Outbox::default(),
            subscriptions: Mutex::default(),
            tracking: Mutex::default(),
            blocked: Blocked::default(),
            gone: AtomicBool::new(false),
            resp3: AtomicBool::new(false),
            input_bytes: AtomicUsize::new(0),
            input_room: AtomicUsize::new(0),
            output_bytes: AtomicUsize::new(0),
            output_room: AtomicUsize::new(0),
            output_peak: AtomicUsize::new(0),
            full_since: Mutex::default(),
            end: Notify::new(),
        });
        self.connected.lock().insert(id, client.clone());
        client
    }

    /// One of them.
    pub(super) fn get(&self, id: u64) -> Option<Arc<Client>> {
        self.connected.lock().get(&id).cloned()
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

/// A place among the clients; it is given up when this is dropped.
pub(super) struct Entered {
    shared: Arc<Shared>,
    pub(super) client: Arc<Client>,
}

impl Entered {
    /// Enters a connection.
    pub(super) fn new(shared: Arc<Shared>, peer: SocketAddr, local: SocketAddr) -> Self {
        let client = shared.clients.enter(peer, local);
        Self { shared, client }
    }

    /// Nothing is told to the client any more: its connection ends.
    pub(super) fn leave(&self) {
        if self.client.gone.swap(true, Relaxed) {
            return;
        }
        let shared = &self.shared;
        shared.hub.leave(&self.client);
        shared.hub.tracking.leave(&self.client);
        shared.hub.tracking.watch_changes(&shared.node);
        shared.monitors.leave(&self.client);
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.leave();
        self.shared.clients.connected.lock().remove(&self.client.id);
    }
}
