//! `SLOWLOG`: the last commands that took long, and what of a command may be shown to others.

use super::connection::Caller;
use super::local::{Answer, help_of};
use crate::machine::args::{Args, integer};
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::Spec;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What is written in the place of a secret.
const REDACTED: Bytes = Bytes::from_static(b"(redacted)");

/// The slow commands.
#[derive(Debug)]
pub(super) struct Slowlog {
    /// `slowlog-log-slower-than`, in microseconds; -1: nothing is noted.
    threshold_us: AtomicI64,
    /// `slowlog-max-len`.
    max_len: AtomicU64,
    /// The newest first. Held to put one in or to copy them.
    entries: Mutex<(u64, VecDeque<Entry>)>,
}

#[derive(Clone, Debug)]
struct Entry {
    id: u64,
    at_seconds: u64,
    took_us: u64,
    argv: Vec<Bytes>,
    peer: String,
    name: String,
}

impl Default for Slowlog {
    fn default() -> Self {
        Self {
            threshold_us: AtomicI64::new(10_000),
            max_len: AtomicU64::new(128),
            entries: Mutex::default(),
        }
    }
}

impl Slowlog {
    pub(super) fn threshold_us(&self) -> i64 {
        self.threshold_us.load(Relaxed)
    }

    pub(super) fn set_threshold_us(&self, micros: i64) {
        self.threshold_us.store(micros, Relaxed);
    }

    pub(super) fn max_len(&self) -> u64 {
        self.max_len.load(Relaxed)
    }

    pub(super) fn set_max_len(&self, most: u64) {
        self.max_len.store(most, Relaxed);
        self.trim(&mut self.entries.lock().1);
    }

    fn trim(&self, entries: &mut VecDeque<Entry>) {
        entries.truncate(usize::try_from(self.max_len()).unwrap_or(usize::MAX));
    }

    /// From when on a command is noted; none: nothing is.
    pub(super) fn threshold(&self) -> Option<Duration> {
        let micros = u64::try_from(self.threshold_us()).ok()?;
        Some(Duration::from_micros(micros))
    }

    /// Whether a command that took so long is noted.
    pub(super) fn wants(&self, took: Duration) -> bool {
        self.threshold().is_some_and(|threshold| took >= threshold)
    }

    /// Notes a command, which has no secrets in it and is short.
    pub(super) fn note(&self, argv: Vec<Bytes>, took: Duration, at_seconds: u64, peer: String, name: String) {
        let mut entries = self.entries.lock();
        let id = entries.0;
        entries.0 += 1;
        entries.1.push_front(Entry {
            id,
            at_seconds,
            took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            argv,
            peer,
            name,
        });
        self.trim(&mut entries.1);
    }
}

/// The command with its secrets taken out: what others may see of it.
pub(super) fn redacted(spec: &Spec, argv: &[Bytes]) -> Vec<Bytes> {
    let mut shown = argv.to_vec();
    let mut hide = |from: usize, to: usize| {
        let to = to.min(shown.len());
        if from < to {
            shown[from..to].fill(REDACTED);
        }
    };
    let is = |at: usize, word: &str| argv[at].eq_ignore_ascii_case(word.as_bytes());
    match spec.name {
        "AUTH" => hide(1, 3),
        "ACL|SETUSER" => hide(2, argv.len()),
        "PLENARY|KEYS" => hide(4, argv.len()),
        "HELLO" => (1..argv.len())
            .filter(|at| is(*at, "AUTH"))
            .for_each(|at| hide(at + 1, at + 3)),
        "MIGRATE" => {
            (6..argv.len())
                .filter(|at| is(*at, "AUTH"))
                .for_each(|at| hide(at + 1, at + 2));
            (6..argv.len())
                .filter(|at| is(*at, "AUTH2"))
                .for_each(|at| hide(at + 1, at + 3));
        }
        "CONFIG|SET" => {
            let secret = |at: &usize| {
                ["requirepass", "masterauth", "masteruser"]
                    .iter()
                    .any(|name| is(*at, name))
            };
            (2..argv.len())
                .step_by(2)
                .filter(secret)
                .for_each(|at| hide(at + 1, at + 2));
        }
        _ => {}
    }
    shown
}

/// `SLOWLOG GET [count]`.
pub(super) fn get(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    const BELOW: CommandError = CommandError::text("ERR count should be greater than or equal to -1");
    let count = match args.peek() {
        None => 10,
        Some(count) => integer(count).filter(|count| *count >= -1).ok_or(BELOW)?,
    };
    let most = usize::try_from(count).unwrap_or(usize::MAX);
    let entries: Vec<Entry> = caller
        .shared
        .slowlog
        .entries
        .lock()
        .1
        .iter()
        .take(most)
        .cloned()
        .collect();
    let number = |number: u64| Reply::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    let shown = |entry: Entry| {
        Reply::Array(vec![
            number(entry.id),
            number(entry.at_seconds),
            number(entry.took_us),
            Reply::Array(entry.argv.into_iter().map(Reply::Bulk).collect()),
            Reply::bulk(entry.peer),
            Reply::bulk(entry.name),
        ])
    };
    Ok(Reply::Array(entries.into_iter().map(shown).collect()))
}

pub(super) fn len(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    Ok(Reply::count(caller.shared.slowlog.entries.lock().1.len()))
}

pub(super) fn reset(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    caller.shared.slowlog.entries.lock().1.clear();
    Ok(Reply::OK)
}

pub(super) fn help(_: &mut Caller, _: &mut Args<'_>) -> Answer {
    Ok(help_of(
        "SLOWLOG",
        &[
            "GET [<count>]",
            "    Return top <count> entries from the slowlog (default: 10, -1 mean all).",
            "    Entries are made of:",
            "    id, timestamp, time in microseconds, arguments array, client IP and port,",
            "    client name",
            "LEN",
            "    Return the length of the slowlog.",
            "RESET",
            "    Reset the slowlog.",
        ],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::table;

    fn shown(command: &str) -> String {
        let argv: Vec<Bytes> = command
            .split(' ')
            .map(|word| Bytes::from(word.to_owned()))
            .collect();
        let spec = table::lookup(&argv).expect("a command");
        let words = redacted(spec, &argv);
        words
            .iter()
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn secrets_are_shown_to_nobody() {
        assert_eq!(shown("auth secret"), "auth (redacted)");
        assert_eq!(shown("auth user secret"), "auth (redacted) (redacted)");
        assert_eq!(
            shown("hello 3 auth user secret setname me"),
            "hello 3 auth (redacted) (redacted) setname me"
        );
        assert_eq!(
            shown("config set timeout 5 requirepass secret"),
            "config set timeout 5 requirepass (redacted)"
        );
        assert_eq!(
            shown("acl setuser user >secret +get"),
            "acl setuser (redacted) (redacted) (redacted)"
        );
        assert_eq!(shown("set auth secret"), "set auth secret");
    }
}
