//! What is asked of an evaluator: one script, or a transaction that has scripts in it; and its bytes between nodes.

use crate::machine::entry::{self, Command, Origin};
use crate::machine::event::Waiter;
use crate::machine::internal::{SEED_STEP, Watch};
use bytes::Bytes;
use std::time::Duration;

/// What to evaluate, as one unit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// The user in whose name it runs.
    pub user: Bytes,
    /// Keys that must not have changed since they were looked at: a transaction's.
    pub watches: Vec<Watch>,
    /// What to run, in order. One: the answer is its answer. Several, or in a transaction: an array of them.
    pub calls: Vec<(u8, Call)>,
    /// Whether it is a transaction.
    pub transaction: bool,
    /// Whether somebody looks on where it was asked for: the commands that its scripts run are to be shown there.
    pub shows: bool,
    /// Its scripts' commands that take so long are to be told; none: not one.
    pub slow_after: Option<Duration>,
    /// What goes into the log before what it writes, and after; nothing where it writes nothing.
    pub around: Option<(Command, Command)>,
}

/// What a leader must know of a request beside what is to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sender {
    /// Who waits for the answer.
    pub(super) caller: Waiter,
    /// The caller's node asks for no request before this number any more.
    pub(super) finished: u64,
    /// The index that the caller's node had applied: whoever asks there may have seen all up to it, and so must the script.
    pub(super) seen: u64,
}

/// One thing to run.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// `EVAL`: the script's text.
    Script {
        /// The text.
        text: Bytes,
        /// `KEYS`.
        keys: Vec<Bytes>,
        /// `ARGV`.
        args: Vec<Bytes>,
        /// It may not write: `EVAL_RO`, or a first line that says so.
        read_only: bool,
    },
    /// `FCALL`: a function, and the text of its library.
    Function {
        /// The library's text.
        code: Bytes,
        /// The function's name.
        name: Bytes,
        /// `KEYS`.
        keys: Vec<Bytes>,
        /// `ARGV`.
        args: Vec<Bytes>,
        /// It may not write.
        read_only: bool,
    },
    /// A command between scripts of a transaction.
    Command(Vec<Bytes>),
}

impl Call {
    /// What it is named, and for a function the command that calls it; none for a plain command.
    pub(super) fn shown(&self) -> Option<(Bytes, Vec<Bytes>)> {
        match self {
            Self::Script { text, .. } => Some((super::engine::sha1_hex(text).into(), Vec::new())),
            Self::Function { name, keys, args, .. } => {
                let mut command = vec![Bytes::from_static(b"fcall"), name.clone()];
                command.push(keys.len().to_string().into());
                command.extend(keys.iter().chain(args).cloned());
                Some((name.clone(), command))
            }
            Self::Command(_) => None,
        }
    }
}

impl Request {
    /// One script or function, for this user in this database.
    pub fn one(user: Bytes, db: u8, call: Call) -> Self {
        Self {
            user,
            calls: vec![(db, call)],
            ..Self::default()
        }
    }

    /// Whether it may write nothing.
    pub(super) fn only_reads(&self) -> bool {
        let reads = |call: &Call| {
            matches!(
                call,
                Call::Script { read_only: true, .. } | Call::Function { read_only: true, .. }
            )
        };
        !self.transaction && self.calls.iter().all(|(_, call)| reads(call))
    }

    /// What it wrote, with what goes around it.
    pub(super) fn surround(&self, written: Vec<Command>) -> Vec<Command> {
        match &self.around {
            Some((before, after)) if !written.is_empty() => {
                let mut all = Vec::with_capacity(written.len() + 2);
                all.push(before.clone());
                all.extend(written);
                all.push(after.clone());
                all
            }
            _ => written,
        }
    }

    /// The seed that its writes begin with in effects that begin with this one: what goes before them takes a step.
    pub(super) fn seed_of_writes(&self, seed: u64) -> u64 {
        match self.around {
            Some(_) => seed.wrapping_add(SEED_STEP),
            None => seed,
        }
    }

    /// What the request is remembered by: the texts it runs. Transactions are not told apart.
    pub(super) fn name(&self) -> Bytes {
        match &self.calls[..] {
            [(_, Call::Script { text, .. })] if !self.transaction => super::engine::sha1_hex(text).into(),
            [(_, Call::Function { name, .. })] if !self.transaction => name.clone(),
            _ => Bytes::from_static(b"EXEC"),
        }
    }

    /// The keys it names.
    pub(super) fn keys(&self) -> Vec<(u8, Bytes)> {
        let watched = self.watches.iter().map(|watch| (watch.db, watch.key.clone()));
        let called = self.calls.iter().flat_map(|(db, call)| {
            let keys: Vec<Bytes> = match call {
                Call::Script { keys, .. } | Call::Function { keys, .. } => keys.clone(),
                Call::Command(argv) => crate::machine::table::lookup(argv)
                    .map(|spec| spec.keys_of(argv).into_iter().cloned().collect())
                    .unwrap_or_default(),
            };
            keys.into_iter().map(|key| (*db, key))
        });
        watched.chain(called).collect()
    }

    /// Its bytes: those of a group whose commands are its parts.
    pub(super) fn to_bytes(&self, sender: Sender) -> Bytes {
        let Waiter { node, start, number } = sender.caller;
        let origin = Origin { node, start, number };
        let word = Bytes::from_static;
        let mut parts = vec![
            Command::new(0, [word(b"finished"), sender.finished.to_string().into()]),
            Command::new(0, [word(b"seen"), sender.seen.to_string().into()]),
            Command::new(0, [word(b"user"), self.user.clone()]),
        ];
        if self.shows {
            parts.push(Command::new(0, [word(b"shows")]));
        }
        if let Some(slow_after) = self.slow_after {
            let micros = u64::try_from(slow_after.as_micros()).unwrap_or(u64::MAX);
            parts.push(Command::new(0, [word(b"slow"), micros.to_string().into()]));
        }
        if self.transaction {
            parts.push(Command::new(0, [word(b"transaction")]));
        }
        if let Some((before, after)) = &self.around {
            for (kind, command) in [(&b"before"[..], before), (b"after", after)] {
                let argv = std::iter::once(word(kind)).chain(command.argv.iter().cloned());
                parts.push(Command::new(command.db, argv));
            }
        }
        for watch in &self.watches {
            let version = watch.version.to_string().into();
            parts.push(Command::new(
                watch.db,
                [word(b"watch"), watch.key.clone(), version],
            ));
        }
        for (db, call) in &self.calls {
            let mut argv = Vec::new();
            let mut put =
                |kind: &'static [u8], texts: &[&Bytes], read_only: bool, keys: &[Bytes], args: &[Bytes]| {
                    argv.push(word(kind));
                    argv.extend(texts.iter().map(|text| (*text).clone()));
                    argv.push(word(if read_only { b"ro" } else { b"rw" }));
                    argv.push(keys.len().to_string().into());
                    argv.extend(keys.iter().chain(args).cloned());
                };
            match call {
                Call::Script {
                    text,
                    keys,
                    args,
                    read_only,
                } => put(b"script", &[text], *read_only, keys, args),
                Call::Function {
                    code,
                    name,
                    keys,
                    args,
                    read_only,
                } => {
                    put(b"function", &[code, name], *read_only, keys, args);
                }
                Call::Command(words) => {
                    argv.push(word(b"command"));
                    argv.extend(words.iter().cloned());
                }
            }
            parts.push(Command { db: *db, argv });
        }
        entry::encode(origin, &parts)
    }

    /// What [`Request::to_bytes`] wrote; none where it is anything else.
    pub(super) fn from_bytes(bytes: &Bytes) -> Option<(Sender, Self)> {
        let entry = entry::decode(bytes).ok()?;
        let number = |bytes: &Bytes| std::str::from_utf8(bytes).ok()?.parse::<u64>().ok();
        let (mut request, mut finished, mut seen) = (Self::default(), 0, 0);
        let mut around = (None, None);
        for Command { db, argv } in entry.commands {
            let (kind, rest) = argv.split_first()?;
            match (&kind[..], rest) {
                (b"finished", [count]) => finished = number(count)?,
                (b"seen", [index]) => seen = number(index)?,
                (b"user", [user]) => request.user = user.clone(),
                (b"shows", []) => request.shows = true,
                (b"slow", [micros]) => request.slow_after = Some(Duration::from_micros(number(micros)?)),
                (b"transaction", []) => request.transaction = true,
                (b"before", [_, ..]) => around.0 = Some(Command::new(db, rest.to_vec())),
                (b"after", [_, ..]) => around.1 = Some(Command::new(db, rest.to_vec())),
                (b"watch", [key, version]) => request.watches.push(Watch {
                    db,
                    key: key.clone(),
                    version: number(version)?,
                }),
                (b"script", [text, mode, count, rest @ ..]) => {
                    let (keys, args) = split(rest, number(count)?)?;
                    let (text, read_only) = (text.clone(), mode == "ro");
                    request.calls.push((
                        db,
                        Call::Script {
                            text,
                            keys,
                            args,
                            read_only,
                        },
                    ));
                }
                (b"function", [code, name, mode, count, rest @ ..]) => {
                    let (keys, args) = split(rest, number(count)?)?;
                    let (code, name, read_only) = (code.clone(), name.clone(), mode == "ro");
                    request.calls.push((
                        db,
                        Call::Function {
                            code,
                            name,
                            keys,
                            args,
                            read_only,
                        },
                    ));
                }
                (b"command", [_, ..]) => request.calls.push((db, Call::Command(rest.to_vec()))),
                _ => return None,
            }
        }
        request.around = around.0.zip(around.1);
        let Origin { node, start, number } = entry.origin;
        let sender = Sender {
            caller: Waiter { node, start, number },
            finished,
            seen,
        };
        Some((sender, request))
    }
}

/// Keys and arguments out of one list.
fn split(words: &[Bytes], keys: u64) -> Option<(Vec<Bytes>, Vec<Bytes>)> {
    let (keys, args) = words.split_at_checked(usize::try_from(keys).ok()?)?;
    Some((keys.to_vec(), args.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_its_bytes_say() {
        let words = |text: &str| {
            text.split(' ')
                .map(|word| Bytes::from(word.to_owned()))
                .collect::<Vec<_>>()
        };
        let script = Call::Script {
            text: "return 1".into(),
            keys: words("a b"),
            args: words("c"),
            read_only: false,
        };
        let function = Call::Function {
            code: "#!lua name=l".into(),
            name: "f".into(),
            keys: Vec::new(),
            args: words("x"),
            read_only: true,
        };
        let request = Request {
            user: "default".into(),
            watches: vec![Watch {
                db: 3,
                key: "w".into(),
                version: 9,
            }],
            calls: vec![(0, script), (1, function), (2, Call::Command(words("SET k v")))],
            transaction: true,
            shows: true,
            slow_after: Some(Duration::from_millis(10)),
            around: Some((
                Command::new(0, words("PUBLISH c 1")),
                Command::new(0, words("PUBLISH c 0")),
            )),
        };
        let set = vec![Command::new(0, words("SET k v"))];
        assert_eq!(request.surround(set.clone()).len(), 3);
        assert_eq!(request.surround(Vec::new()), Vec::new());
        assert_eq!(Request::default().surround(set.clone()), set);
        let sender = Sender {
            caller: Waiter {
                node: 1,
                start: 2,
                number: 3,
            },
            finished: 2,
            seen: 7,
        };
        let bytes = request.to_bytes(sender);
        assert_eq!(Request::from_bytes(&bytes), Some((sender, request.clone())));
        let keys: Vec<Bytes> = request.keys().into_iter().map(|(_, key)| key).collect();
        assert_eq!(keys, words("w a b k"));
        assert_eq!(Request::from_bytes(&bytes.slice(..bytes.len() - 1)), None);
    }
}
