//! What is noted of every command: counts and times, slow ones, refused ones.

use super::acl_log::{Context, Reason};
use super::connection::Caller;
use super::local::{noted, quoted};
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
                self.note_refusal(Some(spec), argv, error);
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
                noted(&self.client.shown.lock().name).to_owned(),
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
        self.note_refusal(spec, argv, error);
        let known = match (spec, error) {
            (None, CommandError::Arity(name)) => table::by_name(&name.to_ascii_uppercase()),
            (spec, _) => spec.and_then(|spec| table::by_name(spec.name)),
        };
        if let Some(spec) = known {
            self.shared.calls.of(spec).rejected.add(1);
        }
    }

    /// Notes what a client of Redis may send and we do not know.
    fn note_refusal(&self, spec: Option<&Spec>, argv: &[Bytes], error: &CommandError) {
        let name = |argument: Option<&Bytes>| {
            argument
                .map(|argument| quoted(argument).to_ascii_lowercase())
                .unwrap_or_default()
        };
        let what = match error {
            CommandError::Unknown { .. } => name(argv.first()),
            CommandError::UnknownSubcommand { .. } => format!("{}|{}", name(argv.first()), name(argv.get(1))),
            CommandError::Syntax => match spec {
                Some(spec) => {
                    let options = options(spec, argv);
                    format!("{} {}", spec.name.to_ascii_lowercase(), options.join(" "))
                }
                None => name(argv.first()),
            },
            _ => return,
        };
        let (library, version) = {
            let shown = self.client.shown.lock();
            (shown.library.clone(), shown.library_version.clone())
        };
        self.shared.compat.note(what.trim_end(), &library, &version);
    }
}

/// How many arguments are looked at for options: there may be a million keys before them, and applying waits for whoever reads.
const LOOKED_THROUGH: usize = 64;

/// The options of a command, as clients write them: those that its row knows, and the first that it does not know, if that stands where an option
/// may. What is a key or a value, or may be one, is none.
fn options(spec: &Spec, argv: &[Bytes]) -> Vec<String> {
    let mut keys = spec.keys_at(argv);
    keys.retain(|at| *at < LOOKED_THROUGH);
    let argv = redacted(spec, &argv[..argv.len().min(LOOKED_THROUGH)]);
    let syntax: Vec<&str> = spec.syntax.split_whitespace().collect();
    let place = |argument: &Bytes| {
        let names = |token: &&str| {
            let mut words = token.split(['[', ']', '<', '>', '|']);
            words.any(|word| is_option(word.as_bytes()) && word.as_bytes() == &argument[..])
        };
        syntax.iter().position(names)
    };
    let (mut at, mut next) = (spec.words, values(&syntax));
    let mut options = Vec::new();
    while let Some(argument) = argv.get(at) {
        let known = place(argument);
        // Arguments that belong to what stands before them.
        let (skipped, is_placed) = (next.unwrap_or(0), next.is_some());
        next = match (known, is_placed) {
            _ if skipped > 0 => Some(skipped - 1),
            _ if keys.contains(&at) => next,
            (Some(token), _) => {
                options.push(quoted(argument).into_owned());
                next.and(match syntax[token].ends_with([']', '>']) {
                    true => Some(0),
                    false => values(&syntax[token + 1..]),
                })
            }
            (None, true) if is_option(argument) => {
                options.push(quoted(argument).into_owned());
                None
            }
            (None, _) => None,
        };
        at += 1;
    }
    options
}

fn is_option(word: &[u8]) -> bool {
    (2..=20).contains(&word.len()) && word.iter().all(u8::is_ascii_uppercase)
}

/// How many arguments that are no options the syntax has here before the next option may come; none where that cannot be told. Keys are
/// known by their places.
fn values(syntax: &[&str]) -> Option<usize> {
    let mut count = 0;
    for token in syntax {
        match token.trim_start_matches('[').as_bytes().first() {
            Some(b'.') => return None,
            _ if *token == "[key" => break,
            Some(first) if first.is_ascii_lowercase() && token.starts_with('[') => return None,
            Some(first) if first.is_ascii_lowercase() => count += 1,
            _ => break,
        }
        if token.ends_with([']', '>']) {
            break;
        }
    }
    Some(count)
}

/// Seconds since 1970 by the machine's clock: people compare them with other logs.
fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_refused_options_no_key_and_no_value_is_told() {
        for (command, told) in [
            ("SET KEY VALUE BADOPTION", "BADOPTION"),
            ("SET KEY VALUE NX BADOPTION SECRET", "NX BADOPTION"),
            ("SET KEY VALUE EX SECRET XX", "EX XX"),
            ("SET KEY VALUE ten SECRET XX", "XX"),
            ("ZUNION 2 KEY OTHER WITHSCORES BADOPTION", "WITHSCORES BADOPTION"),
            ("SORT KEY GET SECRET GET OTHER ALPHA BADOPTION", "GET GET ALPHA"),
            ("SORT KEY BY SECRET LIMIT ONE TWO BADOPTION", "BY LIMIT BADOPTION"),
            ("CLIENT LIST ID SECRET OTHER", "ID"),
            ("AUTH ADMIN SECRET OTHER", ""),
            ("CONFIG SET requirepass SECRET timeout", ""),
            ("HELLO 3 AUTH USER SECRET OTHER", "AUTH"),
        ] {
            let words = command.split(' ');
            let argv: Vec<Bytes> = words
                .map(|word| Bytes::copy_from_slice(word.as_bytes()))
                .collect();
            let spec = table::lookup(&argv).expect("a command");
            let options = options(spec, &argv);
            assert_eq!(options.join(" "), told, "{command}");
        }
    }

    #[test]
    fn of_many_arguments_few_are_looked_at() {
        let argv = |keys: usize| {
            let mut argv = vec![Bytes::from("ZUNION"), Bytes::from(keys.to_string())];
            argv.resize(2 + keys, Bytes::from("KEY"));
            argv.push(Bytes::from("BADOPTION"));
            argv
        };
        let spec = table::lookup(&argv(1)).expect("a command");
        assert_eq!(options(spec, &argv(LOOKED_THROUGH - 3)), ["BADOPTION"]);
        assert_eq!(options(spec, &argv(LOOKED_THROUGH)), [""; 0]);
    }
}
