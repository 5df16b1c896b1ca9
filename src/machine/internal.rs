//! Commands that only a node writes into the log, never a client: their names begin with a dot and have no row in the table.
//!
//! | command | what it does |
//! |---|---|
//! | `.exec` | a transaction: commands applied together, if what they watch is unchanged |
//! | `.scripts` | what scripts came to: see [`super::effects`] |
//! | `.key` | sets one of the cluster's access keys, or takes it away |
//! | `.script`, `.flush-scripts`, `.libraries`, `.delete-library`, `.flush-libraries` | what all nodes know of scripts: [`super::scripts`] |
//! | `.set` | changes settings that all nodes share |
//! | `.gone` | a start of a node is gone: its commands that wait are taken back, and the locks that are bound to it |
//! | `.end` | removes keys that somebody found to have ended, where no tick does |
//! | `.renew` | writes down uses of keys, each with the life that was asked for again: see [`super::keyspace::Keyspace::renew`] |
//! | `.unwait` | takes a command back that waits |
//! | `.evict` | evicts keys that the leader has chosen, while memory is to be freed: [`super::keyspace::Store::to_free`] |

use super::access::{Hash, Which};
use super::args::{Args, integer};
use super::effects;
use super::entry::Command;
use super::event::Classes;
use super::keyspace::{Call, Candidate, Due};
use super::reply::{CommandError, OUT_OF_MEMORY, Reply};
use super::{Machine, needs_memory, settings::Settings};
use bytes::Bytes;

/// By how much the seeds of commands that are applied together differ: far from the numbers of other commands of the group, which count up by one.
pub const SEED_STEP: u64 = 1 << 32;

/// A key and the version it must still have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Its database.
    pub db: u8,
    /// Its name.
    pub key: Bytes,
    /// The version when it was looked at; 0: it was absent.
    pub version: u64,
}

impl Watch {
    /// One that never holds: of a version that no key comes to.
    pub fn of_what_changed() -> Self {
        Self {
            db: 0,
            key: Bytes::new(),
            version: u64::MAX,
        }
    }
}

/// How a command that waits is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwait {
    /// As if its time were over.
    Timeout,
    /// With the error of `CLIENT UNBLOCK … ERROR`.
    Error,
}

/// A transaction as one command of the log.
pub fn exec(watches: &[Watch], commands: Vec<Command>) -> Command {
    let mut argv = vec![Bytes::from_static(b".exec"), decimal(watches.len() as u64)];
    for watch in watches {
        argv.extend([
            decimal(watch.db.into()),
            watch.key.clone(),
            decimal(watch.version),
        ]);
    }
    push_commands(&mut argv, commands);
    Command { db: 0, argv }
}

/// An access key as one command of the log; none takes it away.
pub fn key(which: Which, hash: Option<&Hash>) -> Command {
    let hash = hash.map(|hash| Bytes::copy_from_slice(hash)).unwrap_or_default();
    Command::new(0, [Bytes::from_static(b".key"), which.name().into(), hash])
}

/// New values of shared settings as one command of the log: all are set, or none.
pub fn set(values: &[(String, String)]) -> Command {
    let pairs = values
        .iter()
        .flat_map(|(name, value)| [name.clone(), value.clone()]);
    Command::new(0, std::iter::once(".set".to_owned()).chain(pairs))
}

/// Keys that somebody found to have ended, as a command of the log: those that have are removed.
pub fn end(db: u8, keys: Vec<Bytes>) -> Command {
    let head = [Bytes::from_static(b".end"), decimal(db.into())];
    Command::new(0, head.into_iter().chain(keys))
}

/// Uses of keys that ask for the life they have again, as one command of the log. Replies how many of them now end later.
pub fn renew<'a>(uses: impl IntoIterator<Item = &'a Due>) -> Command {
    let name = Bytes::from_static(b".renew");
    let uses = uses.into_iter().flat_map(|due| {
        [
            decimal(due.db.into()),
            due.key.clone(),
            decimal(due.life),
            decimal(due.used_at),
        ]
    });
    Command::new(0, std::iter::once(name).chain(uses))
}

/// The end of a wait as a command of the log. Replies whether it still waited.
pub fn unwait(number: u64, how: Unwait) -> Command {
    let how = match how {
        Unwait::Timeout => "timeout",
        Unwait::Error => "error",
    };
    Command::new(0, [".unwait".to_owned(), number.to_string(), how.to_owned()])
}

/// The end of a node's start as a command of the log. Nothing where it has started anew since.
pub fn gone(node: u64, start: u64) -> Command {
    Command::new(0, [".gone".to_owned(), node.to_string(), start.to_string()])
}

/// Keys to be evicted in this order, each if it still has the version it had when it was chosen, as one command of the log. Replies how many
/// went.
pub fn evict<'a>(keys: impl IntoIterator<Item = &'a Candidate>) -> Command {
    let name = Bytes::from_static(b".evict");
    let keys = keys.into_iter().flat_map(|candidate| {
        [
            decimal(candidate.db.into()),
            candidate.key.clone(),
            decimal(candidate.version),
        ]
    });
    Command::new(0, std::iter::once(name).chain(keys))
}

/// A number as the text that [`number`] reads.
pub(super) fn decimal(number: u64) -> Bytes {
    number.to_string().into()
}

/// The next argument as a number below 2^64.
pub(super) fn number(args: &mut Args<'_>) -> Result<u64, CommandError> {
    let text = std::str::from_utf8(args.bytes()?).map_err(|_| CommandError::Syntax)?;
    text.parse().map_err(|_| CommandError::Syntax)
}

/// A count that the arguments left can hold.
pub(super) fn count(args: &mut Args<'_>) -> Result<usize, CommandError> {
    let count = usize::try_from(number(args)?).map_err(|_| CommandError::Syntax)?;
    if count <= args.remaining() {
        Ok(count)
    } else {
        Err(CommandError::Syntax)
    }
}

/// A database's number.
pub(super) fn database(args: &mut Args<'_>) -> Result<u8, CommandError> {
    u8::try_from(number(args)?).map_err(|_| CommandError::Syntax)
}

/// How many commands, then each as database, count of words, words.
pub(super) fn push_commands(argv: &mut Vec<Bytes>, commands: Vec<Command>) {
    argv.push(decimal(commands.len() as u64));
    for command in commands {
        argv.extend([decimal(command.db.into()), decimal(command.argv.len() as u64)]);
        argv.extend(command.argv);
    }
}

/// What [`push_commands`] wrote.
pub(super) fn read_commands(args: &mut Args<'_>) -> Result<Vec<Command>, CommandError> {
    let mut commands = Vec::new();
    for _ in 0..count(args)? {
        let (db, words) = (database(args)?, count(args)?);
        let argv = args.many(words)?.to_vec();
        commands.push(Command { db, argv });
    }
    Ok(commands)
}

impl Machine {
    /// Runs a command whose name begins with a dot.
    pub(super) fn run_internal(&mut self, argv: &[Bytes], call: &Call) -> Result<Reply, CommandError> {
        let mut args = Args::new(argv, 1);
        match &argv[0][..] {
            b".exec" => self.exec(&mut args, call),
            b".key" => self.set_key(&mut args),
            b".scripts" => self.apply_scripts(&effects::decode(&mut args)?),
            b".script" => self.store.scripts_mut().add(&mut args),
            b".flush-scripts" => self.store.scripts_mut().flush(),
            b".libraries" => self.store.scripts_mut().add_libraries(&mut args),
            b".delete-library" => self.store.scripts_mut().delete_library(&mut args),
            b".flush-libraries" => self.store.scripts_mut().flush_libraries(),
            b".set" => self.set(&mut args),
            b".end" => self.end(&mut args),
            b".renew" => self.renew(&mut args),
            b".gone" => self.gone(&mut args),
            b".unwait" => self.unwait(&mut args),
            b".evict" => self.evict(&mut args),
            _ => Err(CommandError::text(
                "ERR a command of the log that a later version may know",
            )),
        }
    }

    /// Applies the commands together, unless something watched has changed. Nobody waits in it.
    fn exec(&mut self, args: &mut Args<'_>, call: &Call) -> Result<Reply, CommandError> {
        let mut unchanged = true;
        for _ in 0..count(args)? {
            let (db, key, version) = (
                super::known_database(database(args)?)?,
                args.key()?,
                number(args)?,
            );
            unchanged &= self.view(0, db).version(key) == version;
        }
        let commands = read_commands(args)?;
        args.end()?;
        if self.store.is_out_of_memory() && commands.iter().any(|command| needs_memory(&command.argv)) {
            return Err(CommandError::Other(
                format!("EXECABORT Transaction discarded because of: {OUT_OF_MEMORY}").into(),
            ));
        }
        if !unchanged {
            return Ok(Reply::NilArray);
        }
        let mut call = Call {
            caller: None,
            ..call.clone()
        };
        Ok(Reply::Array(self.run_all(&commands, &mut call)))
    }

    /// Runs commands one after the other; their replies.
    pub(super) fn run_all(&mut self, commands: &[Command], call: &mut Call) -> Vec<Reply> {
        let run = |command: &Command| {
            call.seed = call.seed.wrapping_add(SEED_STEP);
            let reply = self.run(command.db, &command.argv, call).into();
            self.store.tell_emptied();
            call.told(reply)
        };
        commands.iter().map(run).collect()
    }

    fn set_key(&mut self, args: &mut Args<'_>) -> Result<Reply, CommandError> {
        let which = Which::from_name(args.bytes()?).ok_or(CommandError::Syntax)?;
        let hash = match args.bytes()?.as_ref() {
            [] => None,
            hash => Some(Hash::try_from(hash).map_err(|_| CommandError::Syntax)?),
        };
        let now = self.store.clock();
        self.store.access_mut().set_key(which, hash, now);
        Ok(Reply::OK)
    }

    fn set(&mut self, args: &mut Args<'_>) -> Result<Reply, CommandError> {
        let mut settings: Settings = self.store.settings().clone();
        while !args.is_empty() {
            let texts = [args.bytes()?, args.bytes()?].map(|bytes| std::str::from_utf8(bytes));
            let [Ok(name), Ok(value)] = texts else {
                return Err(CommandError::Syntax);
            };
            if !settings.set(name, value) {
                let text = format!(
                    "ERR CONFIG SET failed (possibly related to argument '{name}') - argument couldn't be parsed"
                );
                return Err(CommandError::Other(text.into()));
            }
        }
        *self.store.settings_mut() = settings;
        Ok(Reply::OK)
    }

    fn evict(&mut self, args: &mut Args<'_>) -> Result<Reply, CommandError> {
        let mut keys = Vec::new();
        while !args.is_empty() {
            keys.push((
                super::known_database(database(args)?)?,
                args.key()?,
                number(args)?,
            ));
        }
        let evicted = keys
            .into_iter()
            .filter(|(db, key, version)| self.store.evict(*db, key, *version));
        Ok(Reply::count(evicted.count()))
    }

    fn end(&mut self, args: &mut Args<'_>) -> Result<Reply, CommandError> {
        let db = super::known_database(database(args)?)?;
        let mut here = self.store.call(db, Call::default());
        for key in args.rest() {
            if here.view().is_overdue(key) {
                here.remove(key);
            }
        }
        Ok(Reply::OK)
    }

    fn renew(&mut self, args: &mut Args<'_>) -> Result<Reply, CommandError> {
        let mut uses = Vec::new();
        while !args.is_empty() {
            let db = super::known_database(database(args)?)?;
            uses.push((db, args.key()?, number(args)?, number(args)?));
        }
        let mut renewed = 0;
        for (db, key, life, used_at) in uses {
            let mut keys = self.store.call(db, Call::default());
            if keys.renew(key, life, used_at) {
                keys.notify(Classes::GENERIC, "expire", key);
                renewed += 1;
            }
        }
        Ok(Reply::count(renewed))
    }

    fn gone(&mut self, args: &mut Args<'_>) -> Result<Reply, CommandError> {
        let (node, start) = (number(args)?, number(args)?);
        args.end()?;
        self.forget(node, start.saturating_add(1));
        Ok(Reply::OK)
    }

    fn unwait(&mut self, args: &mut Args<'_>) -> Result<Reply, CommandError> {
        let number = integer(args.bytes()?).and_then(|number| u64::try_from(number).ok());
        let how = args.bytes()?;
        let removed = self
            .store
            .waiting_mut()
            .remove(number.ok_or(CommandError::Syntax)?);
        let Some((waiter, wait)) = removed else {
            return Ok(Reply::Integer(0));
        };
        if how == "error" {
            const UNBLOCKED: CommandError =
                CommandError::text("UNBLOCKED client unblocked via CLIENT UNBLOCK");
            self.store.leave_line(waiter, wait, Reply::Error(UNBLOCKED));
        } else {
            self.store.give_up(waiter, wait);
        }
        Ok(Reply::Integer(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Outcome;
    use crate::machine::effects::{Effects, Expected, encode};
    use crate::machine::entry::{Entry, Origin};
    use crate::machine::event::{Event, Waiter};

    /// Applies commands of one group; their replies, and what happened.
    fn apply(machine: &mut Machine, commands: Vec<Command>) -> (Vec<Reply>, Vec<Event>) {
        let entry = Entry {
            format: Entry::FORMAT,
            at: machine.store().clock() + 1,
            seed: 1,
            origin: Origin::default(),
            commands,
        };
        match machine.apply(&entry) {
            Outcome::Applied(replies) => (replies, machine.store_mut().take_events()),
            other => panic!("a group without callers is applied: {other:?}"),
        }
    }

    fn command(text: &str) -> Command {
        Command::new(0, text.split(' ').map(str::to_owned))
    }

    fn version(machine: &Machine, key: &[u8]) -> u64 {
        machine.view(0, 0).version(key)
    }

    #[test]
    fn a_transaction_is_applied_whole_or_not_at_all() {
        let mut machine = Machine::default();
        apply(&mut machine, vec![command("SET k 1")]);
        let watch = |version| Watch {
            db: 0,
            key: Bytes::from_static(b"k"),
            version,
        };
        let both = || vec![command("INCR k"), command("LPOP"), command("GET k")];
        let seen = watch(version(&machine, b"k"));
        let (replies, _) = apply(&mut machine, vec![exec(std::slice::from_ref(&seen), both())]);
        let [Reply::Array(replies)] = &replies[..] else {
            panic!("one array: {replies:?}")
        };
        assert_eq!(replies[0], Reply::Integer(2));
        assert!(
            matches!(replies[1], Reply::Error(_)),
            "an error does not end a transaction"
        );
        assert_eq!(replies[2], Reply::bulk("2"));
        let digest = machine.store().revision();
        let (replies, _) = apply(&mut machine, vec![exec(&[seen], both())]);
        assert_eq!(replies, [Reply::NilArray], "the key was changed since");
        assert_eq!(machine.store().revision(), digest);
    }

    #[test]
    fn the_answers_of_one_entry_take_no_more_than_they_may_and_what_writes_is_done() {
        let entry = |commands| Entry {
            format: Entry::FORMAT,
            at: 1,
            seed: 1,
            origin: Origin::default(),
            commands,
        };
        let prepared = || {
            let mut machine = Machine::default();
            let words = "x ".repeat(1_000);
            apply(&mut machine, vec![command(&format!("RPUSH l {}", words.trim()))]);
            machine
        };
        let (all, more) = (command("LRANGE l 0 -1"), command("SORT l ALPHA"));
        let commands = vec![
            command("INCR n"),
            all.clone(),
            all,
            more.clone(),
            command("INCR n"),
            command("BLPOP k 0"),
        ];
        let one_by_one = [commands.clone(), vec![more, command("GET n")]].concat();
        for (commands, whole) in [(vec![exec(&[], commands)], true), (one_by_one, false)] {
            let (mut told, mut untold) = (prepared(), prepared());
            let Outcome::Applied(mut replies) =
                told.apply_answering(&entry(commands.clone()), Reply::BYTES_MAX - 20_000)
            else {
                panic!("a group without callers is applied")
            };
            if whole && let Reply::Array(of_it) = replies.remove(0) {
                replies = of_it;
            }
            assert_eq!(
                (&replies[0], &replies[4]),
                (&Reply::Integer(1), &Reply::Integer(2))
            );
            assert!(matches!(&replies[1], Reply::Array(all) if all.len() == 1_000));
            assert!(
                matches!(&replies[2], Reply::Error(refused) if refused.to_string().starts_with("ERR not run"))
            );
            assert!(
                matches!(&replies[3], Reply::Error(hidden) if hidden.to_string().starts_with("UNKNOWN it was applied"))
            );
            assert_eq!(replies[5], Reply::NilArray);
            // Nodes to which nobody listens come to the same.
            let Outcome::Applied(replies) = untold.apply_untold(&entry(commands)) else {
                panic!("a group without callers is applied")
            };
            assert!(replies.iter().all(|reply| reply.bytes() < 1_000));
            assert_eq!(told.digest(), untold.digest());
        }
    }

    #[test]
    fn settings_are_set_all_or_none() {
        let mut machine = Machine::default();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let good = set(&[
            pair("notify-keyspace-events", "Kg"),
            pair("set-max-intset-entries", "3"),
        ]);
        assert_eq!(apply(&mut machine, vec![good]).0, [Reply::OK]);
        let bad = set(&[
            pair("set-max-intset-entries", "4"),
            pair("notify-keyspace-events", "?"),
        ]);
        assert!(matches!(apply(&mut machine, vec![bad]).0[..], [Reply::Error(_)]));
        assert_eq!(machine.store().settings().set_max_intset_entries, 3);
    }

    fn effects(number: u64, relied_on: Vec<(u8, Bytes, Expected)>, commands: &[&str]) -> Effects {
        Effects {
            caller: Waiter {
                node: 7,
                start: 1,
                number,
            },
            finished: 0,
            at: 1,
            seed: 5,
            relied_on,
            revision: None,
            commands: commands.iter().map(|text| command(text)).collect(),
            reply: Reply::Integer(number.cast_signed()),
        }
    }

    /// The numbers of scripts, and whether they were applied.
    fn evaluated(events: Vec<Event>) -> Vec<(u64, bool)> {
        let told = |event| match event {
            Event::Evaluated { caller, reply } => Some((caller.number, reply.is_some())),
            _ => None,
        };
        events.into_iter().filter_map(told).collect()
    }

    #[test]
    fn scripts_are_applied_once_and_only_on_what_they_relied_on() {
        let mut machine = Machine::default();
        apply(&mut machine, vec![command("SET k 1")]);
        let k = || Bytes::from_static(b"k");
        let seen = Expected::Version(version(&machine, b"k"));
        let first = effects(1, vec![(0, k(), seen)], &["SET k 2"]);
        // Evaluated on top of the first.
        let second = effects(2, vec![(0, k(), Expected::Own)], &["INCR k"]);
        let batch = || vec![encode(vec![first.clone(), second.clone()])];
        let (_, events) = apply(&mut machine, batch());
        assert_eq!(evaluated(events), [(1, true), (2, true)]);
        let (_, events) = apply(&mut machine, batch());
        assert_eq!(evaluated(events), [], "applied before");
        assert_eq!(machine.read(0, 0, &command("GET k").argv), Reply::bulk("3"));
        let stale = effects(3, vec![(0, k(), seen)], &["SET k 9"]);
        let on_stale = effects(4, vec![(0, k(), Expected::Own)], &["SET k 10"]);
        let (_, events) = apply(&mut machine, vec![encode(vec![stale, on_stale])]);
        assert_eq!(evaluated(events), [(3, false), (4, false)]);
        assert_eq!(machine.read(0, 0, &command("GET k").argv), Reply::bulk("3"));
    }

    #[test]
    fn a_start_holds_its_waits_and_locks_until_it_is_gone() {
        let mut machine = Machine::default();
        let entry = Entry {
            format: Entry::FORMAT,
            at: 1,
            seed: 1,
            origin: Origin {
                node: 7,
                start: 2,
                number: 1,
            },
            commands: vec![
                command("SESSION.CREATE s 60000"),
                command("SESSION.CREATE t 60000"),
                command("SESSION.LOCK s EXCLUSIVE me 60000 BOUND"),
                command("SESSION.LOCK t EXCLUSIVE me 60000"),
                command("BLPOP jobs 0"),
            ],
        };
        machine.apply(&entry);
        let held = |machine: &Machine| {
            let store = machine.store();
            let waits: Vec<_> = store.waiting().callers().collect();
            (waits, store.bound_to().into_iter().collect::<Vec<_>>())
        };
        assert_eq!(held(&machine), (vec![(7, 2)], vec![(7, 2)]));
        apply(&mut machine, vec![gone(7, 1)]);
        assert_eq!(
            held(&machine),
            (vec![(7, 2)], vec![(7, 2)]),
            "an earlier start of it"
        );
        apply(&mut machine, vec![gone(7, 2)]);
        assert_eq!(held(&machine), (Vec::new(), Vec::new()));
    }

    #[test]
    fn nonsense_changes_nothing() {
        let mut machine = Machine::default();
        for argv in [
            ".exec",
            ".exec 1",
            ".exec 0 1 0 9 x",
            ".scripts 1 2",
            ".scripts 99999999999",
            ".unwait",
            ".evict 0 k",
            ".evict 99 k 1",
            ".set a",
            ".later",
        ] {
            let (replies, _) = apply(&mut machine, vec![command(argv)]);
            assert!(matches!(replies[..], [Reply::Error(_)]), "{argv}: {replies:?}");
        }
        assert_eq!(machine.store().revision(), 0);
    }
}
