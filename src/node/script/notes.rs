//! What a script did beside its answer: the commands it called, their errors, what was denied. It goes back to the node that was asked,
//! which counts, logs and shows it as its own. Nothing is decided by it: where an answer comes by another way, it is lost.

use crate::machine::access::Denied;
use crate::machine::entry::{self, Command, Origin};
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{self, Spec};
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::Duration;

/// Errors that are told apart; what goes beyond is counted with the others of its first word.
const ERRORS: usize = 32;

/// Kinds of errors that are counted beyond those.
const ERROR_KINDS: usize = 128;

/// Denials that are told.
const DENIALS: usize = 16;

/// Commands that are shown of one request, and their bytes.
const SHOWN: usize = 1_024;
const SHOWN_BYTES: usize = 256 << 10;

/// Slow commands that are told of one request, the last ones.
const SLOW: usize = 128;

/// Arguments that are kept of a slow command. Redis: 32.
const SLOW_ARGUMENTS: usize = 32;

/// Bytes that are kept of such an argument. Redis: 128.
const SLOW_ARGUMENT_BYTES: usize = 128;

/// What one request did.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// What it called, each command once.
    pub calls: Vec<Called>,
    /// The errors that commands answered it, and how often.
    pub errors: Vec<(String, u64)>,
    /// What its user may not do.
    pub denials: Vec<Denial>,
    /// The commands it ran, with the number of the call of the request that ran each: where somebody looks on.
    pub shown: Vec<(usize, Command)>,
    shown_bytes: usize,
    /// The commands it ran that took long, in order.
    pub slow: VecDeque<Slow>,
}

/// A command of a script that took long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slow {
    /// The number of the call of the request that ran it.
    pub call: usize,
    /// The command, [`shortened`].
    pub argv: Vec<Bytes>,
    /// How long it took.
    pub took: Duration,
}

/// What is kept of a slow command: its first arguments, and their first bytes.
pub fn shortened(argv: &[Bytes]) -> Vec<Bytes> {
    let shorten = |argument: &Bytes| match argument.len().checked_sub(SLOW_ARGUMENT_BYTES) {
        None | Some(0) => Bytes::copy_from_slice(argument),
        Some(more) => [
            &argument[..SLOW_ARGUMENT_BYTES],
            format!("... ({more} more bytes)").as_bytes(),
        ]
        .concat()
        .into(),
    };
    let most = match argv.len() {
        count if count > SLOW_ARGUMENTS => SLOW_ARGUMENTS - 1,
        count => count,
    };
    let mut short: Vec<Bytes> = argv[..most].iter().map(shorten).collect();
    if argv.len() > most {
        short.push(format!("... ({} more arguments)", argv.len() - most).into());
    }
    short
}

/// What became of the calls of one command.
#[derive(Clone, Debug)]
pub struct Called {
    /// Its name in the command table.
    pub command: &'static str,
    /// Calls that ran, and how long all of them took.
    pub ran: u64,
    /// The time of all that ran.
    pub took: Duration,
    /// Those of them that answered an error.
    pub failed: u64,
    /// Calls that were refused before they ran.
    pub rejected: u64,
}

/// Something that the user of a script may not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// What kind of thing; the argument it is about counts for nothing.
    pub denied: Denied,
    /// The command, key or channel.
    pub object: Bytes,
}

impl Notes {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.errors.is_empty()
    }

    /// Whether this is the text of an error that was counted when a command answered it: as it was, or with where the script was.
    pub fn has_counted(&self, error: &str) -> bool {
        let same = |text: &str| {
            let rest = error.strip_prefix(text);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(" script: "))
        };
        self.errors.iter().any(|(text, _)| same(text))
    }

    fn of(&mut self, spec: &Spec) -> &mut Called {
        let known = self.calls.iter().position(|called| called.command == spec.name);
        let at = known.unwrap_or_else(|| {
            self.calls.push(Called {
                command: spec.name,
                ran: 0,
                took: Duration::ZERO,
                failed: 0,
                rejected: 0,
            });
            self.calls.len() - 1
        });
        &mut self.calls[at]
    }

    fn error(&mut self, error: &CommandError) {
        let text = error.to_string();
        let kind = || text.split(' ').next().unwrap_or_default().to_owned();
        let same = |known: &str| known == text;
        if let Some((_, count)) = self.errors.iter_mut().find(|(known, _)| same(known)) {
            *count += 1;
        } else if self.errors.len() < ERRORS {
            self.errors.push((text, 1));
        } else if let Some((_, count)) = self.errors.iter_mut().find(|(known, _)| *known == kind()) {
            *count += 1;
        } else if self.errors.len() < ERRORS + ERROR_KINDS {
            let kind = kind();
            self.errors.push((kind, 1));
        }
    }

    /// A command ran.
    pub(super) fn ran(&mut self, spec: &Spec, took: Duration, reply: &Reply) {
        let called = self.of(spec);
        called.ran += 1;
        called.took += took;
        if let Reply::Error(error) = reply {
            called.failed += 1;
            self.error(error);
        }
    }

    /// A command was refused before it ran; none where there is no such command.
    pub(super) fn rejected(&mut self, spec: Option<&Spec>, error: &CommandError) {
        if let Some(spec) = spec {
            self.of(spec).rejected += 1;
        }
        self.error(error);
    }

    /// The user may not do this.
    pub(super) fn denied(&mut self, denied: Denied, spec: &Spec, argv: &[Bytes]) {
        let object = match denied {
            Denied::Command => Bytes::from(spec.name.to_ascii_lowercase()),
            Denied::Key(at) | Denied::Channel(at) => argv[at].clone(),
        };
        if self.denials.len() < DENIALS {
            self.denials.push(Denial { denied, object });
        }
    }

    /// A command that is to be shown, as far as there is room.
    pub(super) fn show(&mut self, call: usize, db: u8, argv: &[Bytes]) {
        self.shown_bytes += argv.iter().map(Bytes::len).sum::<usize>();
        if self.shown.len() < SHOWN && self.shown_bytes <= SHOWN_BYTES {
            let argv = argv.to_vec();
            self.shown.push((call, Command { db, argv }));
        }
    }

    /// A command that took long; of too many the first are dropped.
    pub(super) fn slow(&mut self, call: usize, argv: &[Bytes], took: Duration) {
        if self.slow.len() >= SLOW {
            self.slow.pop_front();
        }
        let argv = shortened(argv);
        self.slow.push_back(Slow { call, argv, took });
    }

    /// Its bytes between nodes: those of a group whose commands are its parts. Nothing for nothing.
    pub(crate) fn to_bytes(&self) -> Bytes {
        if self.is_empty() {
            return Bytes::new();
        }
        let word = Bytes::from_static;
        let number = |number: u64| Bytes::from(number.to_string());
        let mut parts = Vec::new();
        for called in &self.calls {
            let nanos = u64::try_from(called.took.as_nanos()).unwrap_or(u64::MAX);
            let counts = [called.ran, nanos, called.failed, called.rejected];
            let name = [word(b"called"), word(called.command.as_bytes())];
            parts.push(Command::new(0, name.into_iter().chain(counts.map(number))));
        }
        for (text, count) in &self.errors {
            let text = text.clone().into();
            parts.push(Command::new(0, [word(b"error"), text, number(*count)]));
        }
        for Denial { denied, object } in &self.denials {
            let what = match denied {
                Denied::Command => word(b"command"),
                Denied::Key(_) => word(b"key"),
                Denied::Channel(_) => word(b"channel"),
            };
            parts.push(Command::new(0, [word(b"denied"), what, object.clone()]));
        }
        for (call, command) in &self.shown {
            let mut argv = vec![word(b"shown"), number(*call as u64)];
            argv.extend(command.argv.iter().cloned());
            parts.push(Command { db: command.db, argv });
        }
        for Slow { call, argv, took } in &self.slow {
            let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            let head = [word(b"slow"), number(*call as u64), number(nanos)];
            parts.push(Command::new(0, head.into_iter().chain(argv.iter().cloned())));
        }
        entry::encode(Origin::default(), &parts)
    }

    /// What [`Notes::to_bytes`] wrote. Parts that this version does not know are left out: nothing hangs on them.
    pub(super) fn from_bytes(bytes: &Bytes) -> Self {
        let mut notes = Self::default();
        let Ok(entry) = entry::decode(bytes) else {
            return notes;
        };
        for Command { db, argv } in entry.commands {
            notes.take(db, &argv);
        }
        notes
    }

    fn take(&mut self, db: u8, argv: &[Bytes]) -> Option<()> {
        let number = |bytes: &Bytes| std::str::from_utf8(bytes).ok()?.parse::<u64>().ok();
        let (kind, rest) = argv.split_first()?;
        match (&kind[..], rest) {
            (b"called", [name, ran, nanos, failed, rejected]) => {
                self.calls.push(Called {
                    command: table::by_name(std::str::from_utf8(name).ok()?)?.name,
                    ran: number(ran)?,
                    took: Duration::from_nanos(number(nanos)?),
                    failed: number(failed)?,
                    rejected: number(rejected)?,
                });
            }
            (b"error", [text, count]) => {
                let text = String::from_utf8_lossy(text).into_owned();
                self.errors.push((text, number(count)?));
            }
            (b"denied", [what, object]) => {
                let denied = match &what[..] {
                    b"command" => Denied::Command,
                    b"key" => Denied::Key(0),
                    b"channel" => Denied::Channel(0),
                    _ => return None,
                };
                let object = object.clone();
                self.denials.push(Denial { denied, object });
            }
            (b"shown", [call, _, ..]) => {
                let argv = rest[1..].to_vec();
                let call = usize::try_from(number(call)?).ok()?;
                self.shown.push((call, Command { db, argv }));
            }
            (b"slow", [call, nanos, argv @ ..]) => self.slow.push_back(Slow {
                call: usize::try_from(number(call)?).ok()?,
                argv: argv.to_vec(),
                took: Duration::from_nanos(number(nanos)?),
            }),
            _ => {}
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Bytes> {
        text.split(' ').map(|word| Bytes::from(word.to_owned())).collect()
    }

    #[test]
    fn notes_are_what_their_bytes_say() {
        let mut notes = Notes::default();
        assert!(notes.to_bytes().is_empty() && Notes::from_bytes(&Bytes::new()).is_empty());
        let get = table::by_name("GET").expect("a command");
        let set = table::by_name("SET").expect("a command");
        notes.ran(get, Duration::from_nanos(7), &Reply::Nil);
        notes.ran(
            get,
            Duration::from_nanos(5),
            &Reply::Error(CommandError::WrongType),
        );
        notes.rejected(Some(set), &CommandError::text("ERR no"));
        notes.rejected(None, &CommandError::text("ERR no"));
        notes.denied(Denied::Key(1), set, &words("SET k v"));
        notes.denied(Denied::Command, set, &words("SET k v"));
        notes.show(3, 2, &words("GET k"));
        notes.slow(3, &words("GET k"), Duration::from_nanos(7));
        let told = Notes::from_bytes(&notes.to_bytes());
        let counts: Vec<_> = told
            .calls
            .iter()
            .map(|called| {
                (
                    called.command,
                    called.ran,
                    called.took.as_nanos(),
                    called.failed,
                    called.rejected,
                )
            })
            .collect();
        assert_eq!(counts, [("GET", 2, 12, 1, 0), ("SET", 0, 0, 0, 1)]);
        assert_eq!(told.errors[1], ("ERR no".to_owned(), 2));
        assert_eq!(told.denials.len(), 2);
        assert_eq!(
            (&told.denials[0].object[..], &told.denials[1].object[..]),
            (&b"k"[..], &b"set"[..])
        );
        assert_eq!(told.slow, notes.slow);
        let (call, command) = &told.shown[0];
        assert_eq!((*call, command.db, &command.argv), (3, 2, &words("GET k")));
        assert!(told.has_counted("ERR no script: abc, on @user_script:1."));
        assert!(told.has_counted("ERR no") && !told.has_counted("ERR nothing"));
    }

    #[test]
    fn what_is_kept_of_a_long_script_is_bounded() {
        let mut notes = Notes::default();
        for number in 0..10_000 {
            notes.rejected(None, &CommandError::Other(format!("E{number} text").into()));
            notes.denied(Denied::Command, table::by_name("GET").expect("a command"), &[]);
            notes.show(0, 0, &words("GET k"));
            notes.slow(number, &words(&"x".repeat(1_000)), Duration::ZERO);
        }
        assert_eq!(notes.errors.len(), ERRORS + ERROR_KINDS);
        assert_eq!((notes.denials.len(), notes.shown.len()), (DENIALS, SHOWN));
        assert_eq!((notes.slow.len(), notes.slow[0].call), (SLOW, 10_000 - SLOW));
        assert!(notes.slow[0].argv[0].len() < 160);
    }

    #[test]
    fn long_commands_are_shortened() {
        let many: Vec<Bytes> = (0..34).map(|nth| Bytes::from(format!("{nth}"))).collect();
        let short = shortened(&many);
        assert_eq!(
            (short.len(), short[31].as_ref()),
            (32, &b"... (3 more arguments)"[..])
        );
        let long = shortened(&[Bytes::from(vec![b'A'; 129])]);
        assert!(long[0].ends_with(b"A... (1 more bytes)"));
        assert_eq!(shortened(&[Bytes::from(vec![b'A'; 128])])[0].len(), 128);
    }
}
