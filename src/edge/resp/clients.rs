//! Who is connected: what `CLIENT LIST` shows of others, and the way to end their connection.

use super::encode::Protocol;
use crate::machine::access::DEFAULT_USER;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
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
    end: Notify,
}

/// What a connection says of itself.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) name: String,
    pub(super) library: String,
    pub(super) library_version: String,
    pub(super) db: u8,
    pub(super) protocol: Protocol,
    /// The row of its last command.
    pub(super) command: &'static str,
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
            protocol: Protocol::default(),
            command: "",
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

    /// Ends its connection: at once if it waits for input, else after the command that it runs.
    pub(super) fn end(&self) {
        self.end.notify_one();
    }

    /// Resolves when somebody has ended it. Cancel-safe.
    pub(super) async fn ended(&self) {
        self.end.notified().await;
    }

    /// Its line in `CLIENT LIST`, with the fields of Redis 7.2. What we do not count (buffers) stands as 0.
    pub(super) fn line(&self) -> String {
        let (age, shown) = (self.since.elapsed(), self.shown.lock());
        let idle = millis(age).saturating_sub(self.last_ms.load(Relaxed)) / 1000;
        let mut line = format!(
            "id={} addr={} laddr={} fd=0 name={}",
            self.id, self.peer, self.local, shown.name
        );
        let mut flags = String::new();
        flags.extend(shown.no_evict.then_some('e'));
        flags.extend(shown.no_touch.then_some('T'));
        let flags = if flags.is_empty() { "N" } else { &flags };
        let command = match shown.command {
            "" => "NULL".to_owned(),
            name => name.to_ascii_lowercase(),
        };
        let resp = if shown.protocol == Protocol::Resp3 { 3 } else { 2 };
        write!(
            line,
            " age={} idle={idle} flags={flags} db={} sub=0 psub=0 ssub=0 multi=-1 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 \
             rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd={command} user={} redir=-1 resp={resp} lib-name={} lib-ver={}",
            age.as_secs(), shown.db, String::from_utf8_lossy(&shown.user), shown.library, shown.library_version
        )
        .expect("a String takes everything");
        line
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
    pub(super) fn enter(self: &Arc<Self>, peer: SocketAddr, local: SocketAddr) -> Entered {
        let id = self.last_id.fetch_add(1, Relaxed) + 1;
        let client = Arc::new(Client {
            id,
            peer,
            local,
            since: Instant::now(),
            last_ms: AtomicU64::new(0),
            shown: Mutex::default(),
            end: Notify::new(),
        });
        self.connected.lock().insert(id, client.clone());
        Entered {
            clients: self.clone(),
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
    pub(super) client: Arc<Client>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.clients.connected.lock().remove(&self.client.id);
    }
}
