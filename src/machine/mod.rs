//! LAYER 1: what the cache means. Pure and deterministic: no clock, no randomness, no I/O, no task.
//!
//! Two machines that applied the same entries are equal, byte for byte of their snapshots; [`Machine::digest`] shows it.

pub mod access;
pub mod args;
pub mod cached;
mod commands;
pub mod effects;
pub mod entry;
pub mod event;
pub mod excerpt;
mod float;
mod geohash;
pub mod glob;
pub mod interface;
pub mod internal;
pub mod keyspace;
mod listpack;
pub mod once;
pub mod overlay;
mod partial_sort;
pub mod rdb;
pub mod recency;
pub mod reply;
pub mod scripts;
pub mod session_events;
pub mod settings;
pub mod snapshot;
pub mod table;
pub mod value;
pub mod waiting;

pub(crate) use commands::session::admit_items;

use crate::mutant::Mutant;
use args::Args;
use bytes::Bytes;
use entry::{Entry, Millis};
use event::Event;
use keyspace::{Call, DATABASES, Store, View};
use once::{Once, Turn};
use reply::{CommandError, OUT_OF_MEMORY, Reply};
use table::Run;

/// The replicated state: the keyspace, and which groups it came from.
#[derive(Debug)]
pub struct Machine {
    store: Store,
    once: Once,
    /// Which scripts were applied.
    scripts: effects::Applied,
    /// Whether the store has its hash seed: that of the first entry.
    seeded: bool,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            store: Store::new(0),
            once: Once::default(),
            scripts: effects::Applied::default(),
            seeded: false,
        }
    }
}

/// What came of a group.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// It was applied; the replies of its commands, in order.
    Applied(Vec<Reply>),
    /// It was applied before, or its node has started anew since. Nothing changed.
    Past,
    /// A group of the same node before it is missing. Nothing changed; both will be sent again.
    Early,
}

impl Machine {
    /// Applies one group. Cannot fail: a refusal is a reply, the same on every node.
    pub fn apply(&mut self, entry: &Entry) -> Outcome {
        self.apply_answering(entry, 0)
    }

    /// The same where nobody here waits for its answers: what only reads is not run, and no large answer is kept.
    pub fn apply_untold(&mut self, entry: &Entry) -> Outcome {
        self.apply_answering(entry, usize::MAX)
    }

    /// Applies a group, as if answers of so many bytes had been given before.
    fn apply_answering(&mut self, entry: &Entry, answered: usize) -> Outcome {
        if !self.seeded {
            let (watched, kept) = (self.store.watches_changes(), self.store.keeps_freed());
            (self.store, self.seeded) = (Store::new(entry.seed), true);
            self.store.watch_changes(watched);
            self.store.keep_freed(kept);
        }
        self.raise_level(entry.format);
        self.store.advance(entry.at, entry.ends_at_most());
        // Keys that have ended, for those who wait for that.
        self.serve(&Call {
            seed: entry.seed,
            ..Call::default()
        });
        match self.once.admit(entry.origin) {
            Turn::Next => {}
            Turn::Past => return Outcome::Past,
            Turn::Early => return Outcome::Early,
        }
        let origin = entry.origin;
        // Only a group with a number has callers who can wait.
        let caller = (origin.number > 0).then_some((origin.node, origin.start));
        if origin.number == 1 {
            self.forget(origin.node, origin.start);
            self.serve(&Call {
                seed: entry.seed,
                ..Call::default()
            });
        }
        let mut call = Call {
            seed: entry.seed,
            caller,
            answered,
            ..Call::default()
        };
        let replies = entry.commands.iter().map(|command| {
            call.seed = call.seed.wrapping_add(1);
            let run = |machine: &mut Self| machine.run(command.db, &command.argv, &call);
            let reply = self.admit(&command.argv).and_then(|()| run(self)).into();
            self.store.tell_emptied();
            self.serve(&call);
            call.told(reply)
        });
        Outcome::Applied(replies.collect())
    }

    /// Raises the level to the format of an entry. Nothing where one before it had a higher one: the leader that stamped this one may not have applied that.
    pub fn raise_level(&mut self, level: u8) {
        let passed = self.store.passed(self.store.clock());
        let settings = self.store.settings_mut();
        let before = settings.level;
        settings.level = before.max(level);
        if !access::holds_rules_to_words(before) && access::holds_rules_to_words(level) {
            self.store.access_mut().hold_rules_to_words();
        }
        self.store.go_beyond(passed);
    }

    /// Lets go of what a node's starts before this one held: its commands that wait, and the locks that are bound to it.
    fn forget(&mut self, node: u64, before_start: u64) {
        for (waiter, wait) in self.store.waiting_mut().forget(node, before_start) {
            self.store.give_up(waiter, wait);
        }
        self.store.release_bound(node, before_start);
    }

    /// Whether a command may run as far as memory goes. As in Redis, what is more than one command is asked for all at its beginning: see `.exec`.
    fn admit(&self, argv: &[Bytes]) -> Result<(), CommandError> {
        if self.store.is_out_of_memory() && needs_memory(argv) {
            return Err(OUT_OF_MEMORY);
        }
        Ok(())
    }

    fn run(&mut self, db: u8, argv: &[Bytes], call: &Call) -> Result<Reply, CommandError> {
        if argv.first().is_some_and(|name| name.starts_with(b".")) {
            return self.run_internal(argv, call);
        }
        let spec = table::lookup_at(argv, self.store.settings().level)?;
        let db = known_database(db)?;
        let mut args = Args::new(argv, spec.words);
        match (spec.run, spec.waits) {
            (Run::Write(run), _) | (Run::Read(_), Some(run)) => {
                let before = self.store.revision();
                let reply = run(&mut self.store.call(db, call.clone()), &mut args);
                self.store.count_write(before);
                reply
            }
            (Run::Read(_), None) if call.is_full() => Err(CommandError::text(
                "ERR not run, for the answers before it take all that the answers of one entry may",
            )),
            (Run::Read(run), None) => {
                let now = call.now.unwrap_or(self.store.clock());
                run(&self.store.view(db, now).with_seed(call.seed), &mut args)
            }
            (Run::Local, _) => Err(CommandError::text("ERR this command is not for the log")),
        }
    }

    /// Runs the commands again that wait for a key which was changed, first come first served; how many it ran. Ends, as each that is served waits no
    /// more.
    fn serve(&mut self, call: &Call) -> usize {
        let (mut call, mut ran) = (call.clone(), 0);
        // Others wait for these answers, on whatever node.
        call.answered = 0;
        while let Some((db, key)) = self.store.next_ready() {
            call.ready = Some(key.clone());
            let mut after = 0;
            while let Some(number) = self.store.waiting().next_for(db, &key, after) {
                after = number;
                let there = self.store.view(db, self.store.clock()).find(&key).is_some();
                if !there && !self.store.waiting().any_even_if_gone() {
                    // Thousands may wait for what the first of them has taken.
                    break;
                }
                let waiting = self.store.waiting().get(number);
                let Some(wait) = waiting.filter(|wait| there || wait.even_if_gone) else {
                    continue;
                };
                let argv = wait.argv.clone();
                call.caller = Some(wait.caller);
                call.seed = call.seed.wrapping_add(1);
                ran += 1;
                let reply = match self.run(db, &argv, &call) {
                    // What was put there is nothing for it.
                    Err(CommandError::WrongType) => continue,
                    Ok(Reply::Waiting(_)) if table::lookup(&argv).is_ok_and(|spec| spec.in_line) => break,
                    Ok(Reply::Waiting(_)) => continue,
                    reply => reply.into(),
                };
                self.store.tell_emptied();
                if let Some((waiter, _)) = self.store.waiting_mut().remove(number)
                    && !Mutant::DropWaiter.is_planted()
                {
                    self.store.tell(Event::Answered { waiter, reply });
                }
            }
        }
        ran
    }

    /// Answers a command that only reads, as of `now` on the log's clock (an earlier `now` counts as the clock). `Waiting` where it is to
    /// wait: only the log can make it do so.
    pub fn read(&self, now: Millis, db: u8, argv: &[Bytes]) -> Reply {
        self.read_as(now, db, argv, false)
    }

    /// The same for one whose reads are no use of the keys, save by `TOUCH`.
    pub fn read_quietly(&self, now: Millis, db: u8, argv: &[Bytes]) -> Reply {
        self.read_as(now, db, argv, true)
    }

    fn read_as(&self, now: Millis, db: u8, argv: &[Bytes], quiet: bool) -> Reply {
        let answer = || {
            let spec = table::lookup_at(argv, self.store.settings().level)?;
            let mut args = Args::new(argv, spec.words);
            let mut view = self.view(now, known_database(db)?);
            if quiet && spec.name != "TOUCH" {
                view = view.quietly();
            }
            match spec.run {
                Run::Read(run) => run(&view, &mut args),
                Run::Write(_) | Run::Local => Err(CommandError::text("ERR this command does not only read")),
            }
        };
        answer().into()
    }

    /// One database (0 to 15) as of `now` on the log's clock.
    pub fn view(&self, now: Millis, db: u8) -> View<'_> {
        self.store.view(db, now.max(self.store.clock()))
    }

    /// The keyspace, for counts and clocks.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The scripts applied, for a leader that is asked for one again.
    pub fn scripts(&self) -> &effects::Applied {
        &self.scripts
    }

    /// The groups applied, for a node that starts or resends.
    pub fn once(&self) -> &Once {
        &self.once
    }

    /// The keyspace, to take its events or say which are wanted.
    pub fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// When the first of what ends by its deadline does.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.store.next_deadline()
    }

    /// By how many milliseconds the first of what ends by its deadline is late: the leader proposes an empty group (a tick) then.
    pub fn late(&self, now: Millis) -> Option<Millis> {
        self.store.passed(now).checked_sub(self.store.next_deadline()?)
    }

    /// A copy that no later change reaches, for a snapshot or a digest; costs a pointer per shard.
    pub fn freeze(&self) -> Machine {
        Machine {
            store: self.store.freeze(),
            once: self.once.clone(),
            scripts: self.scripts.clone(),
            seeded: self.seeded,
        }
    }

    /// 128 bits over the whole state: equal on two nodes exactly when they hold the same. Walks everything.
    pub fn digest(&self) -> u128 {
        snapshot::digest(self)
    }

    /// The same of a [`Machine::freeze`], which is freed on the way. Tells whoever rests between pieces of each, in bytes, that was walked over.
    pub fn into_digest(self, walked: impl FnMut(usize)) -> u128 {
        snapshot::digest_frozen(self, walked)
    }
}

/// Whether a command of the log may need more memory.
fn needs_memory(argv: &[Bytes]) -> bool {
    let is_libraries = argv.first().is_some_and(|name| name == ".libraries");
    is_libraries || table::lookup(argv).is_ok_and(|spec| spec.needs_memory())
}

fn known_database(db: u8) -> Result<u8, CommandError> {
    if usize::from(db) < DATABASES {
        Ok(db)
    } else {
        Err(CommandError::text("ERR DB index is out of range"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use entry::{Command, Origin};

    #[test]
    fn a_command_of_a_later_level_is_unknown_until_the_log_has_that_level() {
        let later = ["TEST.LATER", "k", "v"].map(|word| Bytes::from_static(word.as_bytes()));
        let apply = |machine: &mut Machine, format| {
            machine.apply(&Entry {
                format,
                at: 1,
                seed: 1,
                origin: Origin::default(),
                commands: vec![Command::new(0, later.clone())],
            })
        };
        let mut machine = Machine::default();
        let Outcome::Applied(refused) = apply(&mut machine, Entry::FORMAT) else {
            panic!("a group of no node is applied");
        };
        assert!(
            matches!(refused[..], [Reply::Error(CommandError::Unknown { .. })]),
            "{refused:?}"
        );
        assert_eq!(machine.store().counts(0).0, 0);
        let done = || Outcome::Applied(vec![Reply::OK]);
        assert_eq!(apply(&mut machine, Entry::FORMAT + 1), done());
        assert_eq!(apply(&mut machine, Entry::FIRST_FORMAT), done(), "a level stays");
        assert_eq!(
            apply(&mut Machine::default(), Entry::FORMAT + 1),
            done(),
            "also of the first entry"
        );
    }

    #[test]
    fn a_snapshot_remembers_the_level_and_one_of_a_later_level_is_refused_with_advice() {
        let copy = |machine: &Machine| {
            let mut bytes = Vec::new();
            snapshot::write(machine, &mut bytes).unwrap();
            snapshot::read(&mut &bytes[..])
        };
        let mut machine = Machine::default();
        assert_eq!(copy(&machine).unwrap().store().settings().level, 1);
        let digest = machine.digest();
        machine.raise_level(Entry::FORMAT);
        assert_ne!(machine.digest(), digest, "it is state");
        let read = copy(&machine).unwrap();
        assert_eq!(
            (read.store().settings().level, read.digest()),
            (Entry::FORMAT, machine.digest())
        );
        machine.raise_level(Entry::FORMAT + 1);
        let refused = copy(&machine).unwrap_err().to_string();
        assert!(
            refused.contains("a state of level 5: this program understands level 4; run a newer one"),
            "{refused}"
        );
    }

    #[test]
    fn a_life_ends_with_its_last_millisecond_from_format_3_on_and_what_had_ended_stays_so() {
        let mut machine = Machine::default();
        let mut group = |format, at, line: &str| {
            machine.apply(&Entry {
                format,
                at,
                seed: 7,
                origin: Origin::default(),
                commands: vec![Command::new(0, line.split(' ').map(str::to_owned))],
            })
        };
        let count = |count| Outcome::Applied(vec![Reply::Integer(count)]);
        // More than a group removes.
        let keys: Vec<String> = (0..100).map(|key| format!("k{key}")).collect();
        let exist = format!("EXISTS {}", keys.join(" "));
        for key in &keys {
            group(2, 1_000, &format!("SET {key} v PX 500"));
        }
        assert_eq!(group(2, 1_499, &exist), count(100));
        assert_eq!(group(2, 1_500, &exist), count(0));
        assert_eq!(
            group(3, 1_500, &exist),
            count(0),
            "what has ended does not come back"
        );
        group(3, 2_000, "SET k v PX 500");
        assert_eq!(group(3, 2_500, "EXISTS k"), count(1));
        assert_eq!(group(3, 2_501, "EXISTS k"), count(0));
    }

    /// What a line of a thousand costs when it moves on: not the thousand.
    #[test]
    fn only_the_first_in_a_line_are_run_again() {
        const WAITING: usize = 1_000;
        let words = |text: &str| Command::new(0, text.split(' ').map(str::to_owned));
        for (begin, wait, hand_over) in [
            (
                ["SESSION.CREATE k 60000", "SESSION.LOCK k EXCLUSIVE first 1000"],
                "SESSION.LOCK k EXCLUSIVE other 1000 WAIT 9000",
                "SESSION.UNLOCK k 2",
            ),
            (
                ["DEL k", "CACHE.LEASE k 1000"],
                "CACHE.LEASE k 1000 WAIT 9000",
                "CACHE.RELEASE k 1",
            ),
        ] {
            let mut machine = Machine::default();
            let line = std::iter::repeat_n(wait, WAITING).map(words);
            let commands = begin.into_iter().map(words).chain(line).collect();
            let origin = Origin {
                node: 1,
                start: 1,
                number: 1,
            };
            let (at, seed) = (1, 1);
            machine.apply(&Entry {
                format: Entry::FORMAT,
                at,
                seed,
                origin,
                commands,
            });
            assert_eq!(machine.store.waiting().len(), WAITING);
            let call = Call::default();
            let released = machine.run(0, &words(hand_over).argv, &call);
            assert_eq!(released, Ok(Reply::Integer(1)), "{hand_over}");
            // Who is first has it; the next one finds that out, and once more because the key was changed again.
            assert_eq!(machine.serve(&call), 3, "{hand_over}");
            assert_eq!(machine.store.waiting().len(), WAITING - 1);
        }
    }
}
