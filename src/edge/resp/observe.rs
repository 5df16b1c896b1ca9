//! What is noted of every command: counts and times, slow ones, refused ones.

use super::acl_log::{Context, Reason};
use super::connection::Caller;
use super::local::quoted;
use super::slowlog::redacted;
use crate::machine::access::Denied;
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{self, Spec};
use crate::node::{Denial, Notes, Slow, shortened};
use bytes::Bytes;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

impl Caller {
    /// A command ran and was answered.
    pub(super) fn ran(&mut self, spec: &Spec, argv: &[Bytes], took: Duration, reply: &Reply) {
        let failed = match reply {
            Reply::Error(error) => {
                self.note_refusal(argv, error);
                true
            }
            _ => false,
        };
        self.tally.ran(spec, took, failed);
        if self.tally.is_full() {
            self.tell_tally();
        }
        let shared = &self.shared;
        // What waits by its own wish is not slow (what waits for a key is timed without its wait), and a transaction is as slow as its
        // commands.
        if matches!(spec.name, "EXEC" | "WAIT" | "WAITAOF" | "PLENARY|WAITFOR") {
            return;
        }
        if shared.slowlog.wants(took) {
            let (peer, name) = (
                self.client.peer.to_string(),
                self.client.shown.lock().name.clone(),
            );
            let argv = shortened(&redacted(spec, argv));
            shared.slowlog.note(argv, took, unix_seconds(), peer, name);
        }
        if shared.latency.wants(took) {
            shared.latency.command(spec, took, unix_seconds());
        }
    }

    /// Tells what was counted: before anybody can ask for it.
    pub(super) fn tell_tally(&mut self) {
        let commands = std::mem::take(&mut self.tally.commands);
        if commands > 0 {
            self.shared.stats.commands.add(commands);
        }
        self.shared.calls.take(&mut self.tally);
    }

    /// The time from which on a command of a script is to be told, because it is slow.
    pub(super) fn slow_after(&self) -> Option<Duration> {
        let thresholds = [self.shared.slowlog.threshold(), self.shared.latency.threshold()];
        thresholds.into_iter().flatten().min()
    }

    /// Notes the slow commands that this call of a request ran in its script, before the call itself. As in Redis, they have no client.
    pub(super) fn note_slow(&self, notes: &Notes, call: usize) {
        let shared = &self.shared;
        for Slow { argv, took, .. } in notes.slow.iter().filter(|slow| slow.call == call) {
            let Ok(spec) = table::lookup(argv) else {
                continue;
            };
            let (took, now) = (*took, unix_seconds());
            if shared.slowlog.wants(took) {
                let (nowhere, unnamed) = ("?:0".to_owned(), String::new());
                shared
                    .slowlog
                    .note(redacted(spec, argv), took, now, nowhere, unnamed);
            }
            if shared.latency.wants(took) {
                shared.latency.command(spec, took, now);
            }
        }
    }

    /// A script of it ran: what it called counts as if it had been called here.
    pub(super) fn note_script(&self, notes: &Notes) {
        let shared = &self.shared;
        for called in &notes.calls {
            let Some(spec) = table::by_name(called.command) else {
                continue;
            };
            let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
            shared.stats.commands.add(count(called.ran));
            shared
                .calls
                .ran_often(spec, called.ran, called.took, called.failed);
            shared.calls.of(spec).rejected.add(count(called.rejected));
        }
        for (error, times) in &notes.errors {
            shared.stats.error(error, *times);
        }
        for Denial { denied, object } in &notes.denials {
            let reason = match denied {
                Denied::Command => Reason::Command,
                Denied::Key(_) => Reason::Key,
                Denied::Channel(_) => Reason::Channel,
            };
            shared.acl_log.note(
                reason,
                Context::Lua,
                object,
                &self.permit.user,
                self.client.line(),
            );
        }
    }

    /// A command was refused before it ran: it is unknown, has a wrong number of arguments, or is not permitted.
    pub(super) fn refused(&self, spec: Option<&Spec>, argv: &[Bytes], error: &CommandError) {
        self.note_refusal(argv, error);
        let known = match (spec, error) {
            (None, CommandError::Arity(name)) => table::by_name(&name.to_ascii_uppercase()),
            (spec, _) => spec.and_then(|spec| table::by_name(spec.name)),
        };
        if let Some(spec) = known {
            self.shared.calls.of(spec).rejected.add(1);
        }
    }

    /// Notes what a client of Redis may send and we do not know.
    fn note_refusal(&self, argv: &[Bytes], error: &CommandError) {
        let name = |argument: Option<&Bytes>| {
            argument
                .map(|argument| quoted(argument).to_ascii_lowercase())
                .unwrap_or_default()
        };
        let what = match error {
            CommandError::Unknown { .. } => name(argv.first()),
            CommandError::UnknownSubcommand { .. } => format!("{}|{}", name(argv.first()), name(argv.get(1))),
            CommandError::Syntax => {
                // Words in capitals, as clients write options: no keys and no values.
                let is_option = |argument: &&Bytes| {
                    (2..=20).contains(&argument.len())
                        && argument.iter().all(|byte| byte.is_ascii_uppercase())
                };
                let options: Vec<_> = argv
                    .iter()
                    .skip(1)
                    .filter(is_option)
                    .map(|option| quoted(option))
                    .collect();
                format!("{} {}", name(argv.first()), options.join(" "))
            }
            _ => return,
        };
        let (library, version) = {
            let shown = self.client.shown.lock();
            (shown.library.clone(), shown.library_version.clone())
        };
        self.shared.compat.note(what.trim_end(), &library, &version);
    }
}

/// Seconds since 1970 by the machine's clock: people compare them with other logs.
fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
