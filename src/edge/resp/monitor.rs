//! `MONITOR`: every command that this node's clients run, as it is run.

use super::clients::Client;
use super::connection::Caller;
use super::hub::Hub;
use super::script;
use super::slowlog::redacted;
use crate::machine::args::Args;
use crate::machine::reply::CommandError;
use crate::machine::table::{self, Spec};
use crate::node::Notes;
use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Who looks on.
#[derive(Debug, Default)]
pub(super) struct Monitors {
    /// How many: none spares the lock.
    count: AtomicUsize,
    /// Held to copy a line to each, never across an await.
    clients: Mutex<BTreeMap<u64, Arc<Client>>>,
}

impl Monitors {
    /// Whether anybody looks on.
    pub(super) fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    fn enter(&self, client: &Arc<Client>) {
        let mut clients = self.clients.lock();
        clients.insert(client.id, client.clone());
        self.count.store(clients.len(), Ordering::Relaxed);
    }

    pub(super) fn leave(&self, client: &Client) {
        if self.any() {
            let mut clients = self.clients.lock();
            clients.remove(&client.id);
            self.count.store(clients.len(), Ordering::Relaxed);
        }
    }

    /// Shows a command to who looks on. Those of administrators and secrets are not shown, as in Redis.
    fn feed(&self, hub: &Hub, db: u8, from: &dyn Display, spec: &Spec, argv: &[Bytes]) {
        let hidden = |flag: &str| matches!(flag, "skip_monitor" | "admin");
        // What runs a script shows itself, so that it stands before what the script runs.
        if !self.any() || spec.flags.split(' ').any(hidden) && !script::runs_one(spec) {
            return;
        }
        let line = line(db, from, spec, argv);
        for client in self.clients.lock().values() {
            hub.push(client, line.clone());
        }
    }
}

impl Caller {
    /// Shows a command of it to who looks on.
    pub(super) fn show(&self, spec: &Spec, argv: &[Bytes]) {
        let from = self.client.peer;
        self.shared
            .monitors
            .feed(&self.shared.hub, self.db, &from, spec, argv);
    }

    /// Shows what this call of a request ran in its script.
    pub(super) fn show_script(&self, notes: &Notes, call: usize) {
        for (_, command) in notes.shown.iter().filter(|(of, _)| *of == call) {
            if let Ok(spec) = table::lookup(&command.argv) {
                let monitors = &self.shared.monitors;
                monitors.feed(&self.shared.hub, command.db, &"lua", spec, &command.argv);
            }
        }
    }
}

fn line(db: u8, from: &dyn Display, spec: &Spec, argv: &[Bytes]) -> Bytes {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut out = BytesMut::new();
    let (seconds, micros) = (now.as_secs(), now.subsec_micros());
    write!(out, "+{seconds}.{micros:06} [{db} {from}]").expect("a buffer takes everything");
    for argument in redacted(spec, argv) {
        out.put_u8(b' ');
        quote(&argument, &mut out);
    }
    out.put_slice(b"\r\n");
    out.freeze()
}

/// Bytes between quotes, as Redis shows them.
fn quote(bytes: &[u8], out: &mut BytesMut) {
    out.put_u8(b'"');
    for byte in bytes {
        match byte {
            b'\\' | b'"' => out.put_slice(&[b'\\', *byte]),
            b'\n' => out.put_slice(b"\\n"),
            b'\r' => out.put_slice(b"\\r"),
            b'\t' => out.put_slice(b"\\t"),
            0x07 => out.put_slice(b"\\a"),
            0x08 => out.put_slice(b"\\b"),
            b' '..=b'~' => out.put_u8(*byte),
            _ => write!(out, "\\x{byte:02x}").expect("a buffer takes everything"),
        }
    }
    out.put_u8(b'"');
}

/// `MONITOR`; said again it is not even answered, as in Redis.
pub(super) fn monitor(caller: &mut Caller, _: &mut Args<'_>, out: &mut BytesMut) -> Result<(), CommandError> {
    if caller.executing {
        return Err(CommandError::text(
            "ERR MONITOR isn't allowed for DENY BLOCKING client",
        ));
    }
    if !caller.monitors {
        caller.monitors = true;
        caller.client.shown.lock().monitors = true;
        caller.shared.monitors.enter(&caller.client);
        out.put_slice(b"+OK\r\n");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_quoted_as_redis_quotes_them() {
        let mut out = BytesMut::new();
        quote(b"a \"b\"\\\n\r\t\x07\x08\x00\xff", &mut out);
        assert_eq!(&out[..], br#""a \"b\"\\\n\r\t\a\b\x00\xff""#);
    }
}
