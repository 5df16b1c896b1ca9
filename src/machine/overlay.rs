//! Where scripts run before what they came to is in the log: a scratch machine that copies a key when it is first touched.
//!
//! Several scripts may run on top of each other. For each it is noted which keys it relied on, what they were, and what it wrote:
//! [`super::effects`] carries that through the log. Pure as the machine is: what a key is comes from whoever asks.
//!
//! A script may write no more than one entry of the log holds, and the scratch machine may grow by [`GROWTH`] times that: both are counted as it
//! goes, so that one that would write for ever is refused there. Copies share what they hold with where they come from until it is changed, so
//! they take no more than what is stored.

use super::Machine;
use super::args::{Args, integer};
use super::effects::{self, Expected};
use super::entry::{Command, Millis};
use super::internal::SEED_STEP;
use super::keyspace::{Call, DATABASES, Due, RENAMED_MAX, Slot};
use super::reply::{CommandError, Reply};
use super::settings::Settings;
use super::table::{Run, Spec};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Versions that the scratch machine gives out begin here, far above those of any log.
const FIRST_REVISION: u64 = 1 << 60;

/// How many times as much as an entry of the log holds what a script writes may take in memory: the name of a key of a few bytes takes some
/// hundred there. The write that reaches this is the last one, for a few words may say as much as a whole entry (`SETRANGE`, `COPY`).
pub const GROWTH: usize = 8;

/// Uses of keys that one script can have written down later. A use beyond that is not noted; the next one of that key will be.
const DUE_MAX: usize = 1_000;

/// Where a key's slot is read from.
pub type Fetch<'a> = &'a dyn Fn(u8, &[u8]) -> Option<Slot>;

/// A scratch machine for scripts.
#[derive(Debug)]
pub struct Overlay {
    scratch: Machine,
    /// The keys copied so far, with their version where they come from.
    known: BTreeMap<(u8, Bytes), Known>,
    /// Whether it is a copy of the whole state: then nothing is fetched.
    whole: bool,
    /// Whether the copy has the index of owners, which [`Machine::freeze`] leaves out and few scripts need.
    owners: bool,
    /// What a script may take of an entry of the log, in bytes.
    log_bytes: usize,
    call: Call,
    touched: BTreeSet<(u8, Bytes)>,
    written: Vec<Command>,
    /// Lives that were renewed without a write, and are to be written down in time.
    due: BTreeMap<(u8, Bytes), Due>,
    /// Bytes of the log that the touched keys take.
    touched_bytes: usize,
    /// The same of what is written.
    written_bytes: usize,
    /// By how many bytes the script's writes have made the scratch machine grow; less than 0 where they removed more.
    grown: isize,
    /// Bytes that all scripts since [`Overlay::reset`] have made it grow by, with the names of the keys that were copied.
    held: usize,
}

#[derive(Debug)]
struct Known {
    version: u64,
    /// Whether a script that ran here before has changed it.
    own: bool,
}

/// What a script relied on and wrote.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The keys, and what they were.
    pub relied_on: Vec<(u8, Bytes, Expected)>,
    /// The commands that changed something, in order.
    pub commands: Vec<Command>,
    /// Lives that it renewed without a write, and that are to be written down in time.
    pub due: Vec<Due>,
}

/// Why a command cannot run here, or why nothing can become of what the script has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The script looks at more than the keys it names, or at more keys than an entry of the log can say, and this is no copy of the whole state.
    NeedsAll,
    /// The script has written more than it may.
    TooMuch,
}

impl Overlay {
    /// A scratch machine for scripts of which each may take so many bytes of an entry of the log.
    pub fn new(log_bytes: usize) -> Self {
        let mut scratch = Machine::default();
        scratch.store.restore_counters(0, FIRST_REVISION, 0);
        Self::of(scratch, false, log_bytes)
    }

    fn of(scratch: Machine, whole: bool, log_bytes: usize) -> Self {
        Self {
            scratch,
            known: BTreeMap::new(),
            whole,
            owners: false,
            log_bytes,
            call: Call::default(),
            touched: BTreeSet::new(),
            written: Vec::new(),
            due: BTreeMap::new(),
            touched_bytes: 0,
            written_bytes: 0,
            grown: 0,
            held: 0,
        }
    }

    /// Over a copy of the whole state ([`Machine::freeze`]), for scripts that look at all keys.
    pub fn over(frozen: Machine, log_bytes: usize) -> Self {
        Self::of(frozen, true, log_bytes)
    }

    /// Forgets every key and takes on these settings: the next script runs on what is fetched anew.
    pub fn reset(&mut self, settings: &Settings) {
        for (db, key) in std::mem::take(&mut self.known).into_keys() {
            self.scratch.store.forget_slot(db, &key);
        }
        let is_empty = |db| self.scratch.store.counts(db).0 == 0;
        debug_assert!((0..).take(DATABASES).all(is_empty), "whatever is put was known");
        *self.scratch.store.settings_mut() = settings.clone();
        let store = &mut self.scratch.store;
        store.take_events();
        // The next time is that of another script, on nothing that this one saw.
        store.restore_counters(0, store.revision(), store.expired());
        self.held = 0;
    }

    /// A script begins, at this time and with this chance.
    pub fn begin(&mut self, at: Millis, seed: u64) {
        // What has ended within a key goes by the clock before the key is changed, as it does in the log.
        self.scratch.store.move_clock(at);
        self.call = Call {
            seed,
            now: Some(at),
            ..Call::default()
        };
        self.touched.clear();
        self.written.clear();
        self.due.clear();
        (self.touched_bytes, self.written_bytes, self.grown) = (0, 0, 0);
    }

    /// What a script may take of memory beside what is stored, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.log_bytes.saturating_mul(GROWTH)
    }

    /// Whether all scripts together hold as much as one of them may: no further one is to run on top of them.
    pub fn is_full(&self) -> bool {
        self.held > self.memory_bytes()
    }

    /// A key's version where it comes from, which the script then relies on; none where a script before it has changed it.
    pub fn version(&mut self, db: u8, key: &Bytes, fetch: Fetch<'_>) -> Option<u64> {
        if self.whole {
            return Some(self.scratch.view(self.call.now.unwrap_or(0), db).version(key));
        }
        self.know(db, key, fetch);
        let known = self.known.get(&(db, key.clone()))?;
        (!known.own).then_some(known.version)
    }

    /// Runs a command of the script.
    ///
    /// # Errors
    /// See [`Refused`]; then the script is not to go on here, and what it wrote is for nobody.
    pub fn run(&mut self, spec: &Spec, db: u8, argv: &[Bytes], fetch: Fetch<'_>) -> Result<Reply, Refused> {
        if !self.whole {
            if looks_at_all(spec, argv) {
                return Err(Refused::NeedsAll);
            }
            let here = spec.keys_of(argv).into_iter().map(|key| (db, key));
            for (db, key) in here.chain(elsewhere(spec, argv)) {
                self.know(db, key, fetch);
                self.fits()?;
                if spec.group == "session" {
                    self.know_later_ids(db, key, fetch)?;
                }
            }
        }
        if self.whole && !self.owners && spec.group == "session" {
            self.scratch.store.index_owners();
            self.owners = true;
        }
        if !matches!(spec.run, Run::Write(_)) {
            let reply = self.scratch.run(db, argv, &self.call);
            self.scratch.store.take_events();
            return Ok(reply.unwrap_or_else(Reply::Error));
        }
        if let Some(reply) = self.renew(spec, db, argv) {
            return Ok(reply);
        }
        if usize::try_from(self.grown).is_ok_and(|grown| grown > self.memory_bytes()) {
            return Err(Refused::TooMuch);
        }
        let (before, bytes) = (self.changes(), self.scratch.store.bytes());
        // The same step that applying the effects takes: the chance of each write is the same there. Reads draw from the same place.
        self.call.seed = self.call.seed.wrapping_add(SEED_STEP);
        let reply = self.scratch.run(db, argv, &self.call);
        let grown = self.scratch.store.bytes().cast_signed() - bytes.cast_signed();
        self.grown += grown;
        self.held = self.held.saturating_add_signed(grown);
        let told = !self.scratch.store.take_events().is_empty();
        if self.changes() != before || told {
            let argv = argv.to_vec();
            let command = Command { db, argv };
            self.written_bytes += effects::command_bytes(&command);
            self.written.push(command);
            self.fits()?;
        } else {
            self.call.seed = self.call.seed.wrapping_sub(SEED_STEP);
        }
        Ok(reply.unwrap_or_else(Reply::Error))
    }

    /// Counts of what has changed: of keys, and of users, who count by themselves.
    fn changes(&self) -> (u64, u64) {
        let store = &self.scratch.store;
        (store.revision(), store.access().revision())
    }

    /// What a command answers that only renews a key's life, where that needs no write: so a script that does no more is in no log.
    fn renew(&mut self, spec: &Spec, db: u8, argv: &[Bytes]) -> Option<Reply> {
        let renews = spec.renews?;
        let view = self.scratch.view(self.call.now?, db);
        let renewed = renews(&view, &mut Args::new(argv, 1))?;
        if let Some(due) = renewed.due
            && self.due.len() < DUE_MAX
        {
            self.due.insert((due.db, due.key.clone()), due);
        }
        Some(renewed.reply)
    }

    /// Whether what the script has written and touched fits into an entry of the log. One that saw all keys need not name them there: it is
    /// worth to begin anew as such where the names take much of the room.
    fn fits(&self) -> Result<(), Refused> {
        if self.written_bytes + self.touched_bytes <= self.log_bytes {
            Ok(())
        } else if self.touched_bytes > self.log_bytes / 4 {
            Err(Refused::NeedsAll)
        } else {
            Err(Refused::TooMuch)
        }
    }

    fn know(&mut self, db: u8, key: &Bytes, fetch: Fetch<'_>) {
        let (place, bytes) = ((db, key.clone()), effects::key_bytes(key));
        if !self.known.contains_key(&place) {
            let slot = fetch(db, key);
            let version = slot.as_ref().map_or(0, |slot| slot.version);
            if let Some(slot) = slot {
                self.scratch.store.insert_restored(db, key, slot);
            }
            self.known.insert(place.clone(), Known { version, own: false });
            self.held += bytes;
        }
        if self.touched.insert(place) {
            self.touched_bytes += bytes;
        }
    }

    /// Knows the ids that a session had after this one: none of them is named, and without them nobody can tell whether it goes on.
    fn know_later_ids(&mut self, db: u8, key: &Bytes, fetch: Fetch<'_>) -> Result<(), Refused> {
        let mut key = key.clone();
        for _ in 0..RENAMED_MAX {
            let view = self.scratch.view(self.call.now.unwrap_or(0), db);
            let session = view.find(&key).and_then(|slot| slot.value.as_session().ok());
            let Some(retired) = session.filter(|session| session.is_retired()) else {
                break;
            };
            key = Bytes::copy_from_slice(&retired.successor);
            self.know(db, &key, fetch);
            self.fits()?;
        }
        Ok(())
    }

    /// How many writes the script has made so far.
    pub fn writes(&self) -> usize {
        self.written.len()
    }

    /// The script has ended: what it relied on, and what it wrote. Later scripts rely on what it wrote.
    pub fn finish(&mut self) -> Outcome {
        let now = self.call.now.unwrap_or(0);
        let mut relied_on = Vec::new();
        for place in std::mem::take(&mut self.touched) {
            let Some(known) = self.known.get_mut(&place) else {
                continue;
            };
            let (db, key) = place;
            let slot = self.scratch.view(now, db).find(&key);
            let expected = if known.own {
                Expected::Own
            } else {
                Expected::Version(known.version)
            };
            let changed = slot.map_or(0, |slot| slot.version) != known.version;
            known.own |= changed;
            relied_on.push((db, key, expected));
        }
        Outcome {
            relied_on,
            commands: std::mem::take(&mut self.written),
            due: std::mem::take(&mut self.due).into_values().collect(),
        }
    }
}

/// Whether a command looks at keys that it does not name, or tells a number that only the log's own count of changes gives.
fn looks_at_all(spec: &Spec, argv: &[Bytes]) -> bool {
    match spec.name {
        "SORT" | "SORT_RO" => argv
            .iter()
            .any(|word| word.eq_ignore_ascii_case(b"BY") || word.eq_ignore_ascii_case(b"GET")),
        // How many sessions their owner has.
        "SESSION.CREATE" | "SESSION.SAVE" => argv.iter().any(|word| word.eq_ignore_ascii_case(b"MAX")),
        // A token is the number of the change that gives it. A reader asks who waits as well.
        "SESSION.LOCK" => true,
        // The tags of an entry stand in it; what takes tags away names them.
        _ if spec.group == "cache" => spec.name != "CACHE.INVALIDATE",
        _ => spec.group != "pubsub" && spec.keys_of(argv).is_empty(),
    }
}

/// The keys that a command puts into databases it names. Of a `COPY` that names several, all: the last one counts, and to know more does no harm.
fn elsewhere<'a>(spec: &Spec, argv: &'a [Bytes]) -> Vec<(u8, &'a Bytes)> {
    let is_database = |at: &usize| argv[*at - 1].eq_ignore_ascii_case(b"DB");
    let (key, databases): (usize, Vec<usize>) = match spec.name {
        "MOVE" => (1, vec![2]),
        "COPY" => (2, (4..argv.len()).filter(is_database).collect()),
        _ => return Vec::new(),
    };
    let place = |at: usize| {
        let db = u8::try_from(integer(argv.get(at)?)?).ok()?;
        (usize::from(db) < DATABASES).then_some((db, argv.get(key)?))
    };
    databases.into_iter().filter_map(place).collect()
}

/// What a script is told of a command that cannot run in one.
pub const NOT_FROM_SCRIPT: CommandError =
    CommandError::text("ERR This Redis command is not allowed from script");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Outcome as Applied;
    use crate::machine::effects::{Effects, encode};
    use crate::machine::entry::{Entry, Origin};
    use crate::machine::event::{Event, Waiter};
    use crate::machine::internal;
    use crate::machine::table;
    use proptest::prelude::*;

    /// Room for some thousand writes.
    const LOG_BYTES: usize = 64 << 10;

    fn words(text: &str) -> Command {
        Command::new(0, text.split(' ').map(str::to_owned))
    }

    fn apply(machine: &mut Machine, command: Command) -> Vec<Event> {
        apply_at(machine, 1_000, command)
    }

    fn apply_at(machine: &mut Machine, at: Millis, command: Command) -> Vec<Event> {
        let entry = Entry {
            format: Entry::FORMAT,
            at,
            seed: 77,
            origin: Origin::default(),
            commands: vec![command],
        };
        assert!(matches!(machine.apply(&entry), Applied::Applied(_)));
        machine.store_mut().take_events()
    }

    /// Runs the commands of one script on the overlay; its replies, and what it came to under this number.
    fn script(
        overlay: &mut Overlay,
        machine: &Machine,
        number: u64,
        commands: &[&str],
    ) -> (Vec<Reply>, Effects) {
        overlay.begin(1_000, number);
        let fetch = |db: u8, key: &[u8]| machine.view(1_000, db).find(key).cloned();
        let run = |text: &&str| {
            let command = words(text);
            let spec = table::lookup(&command.argv).unwrap();
            overlay.run(spec, command.db, &command.argv, &fetch).unwrap()
        };
        let replies = commands.iter().map(run).collect();
        let outcome = overlay.finish();
        let effects = Effects {
            caller: Waiter {
                node: 1,
                start: 1,
                number,
            },
            finished: 0,
            at: 1_000,
            seed: number,
            relied_on: outcome.relied_on,
            revision: None,
            commands: outcome.commands,
            reply: Reply::Nil,
        };
        (replies, effects)
    }

    /// The command that a line says, in the database before its colon, if there is one.
    fn line(text: &str) -> Command {
        let (db, text) = text
            .split_once(':')
            .map_or((0, text), |(db, text)| (db.parse().unwrap(), text));
        Command { db, ..words(text) }
    }

    fn after(lines: &[&str]) -> Machine {
        let mut machine = Machine::default();
        machine.raise_level(Entry::FORMAT);
        for text in lines {
            apply(&mut machine, line(text));
        }
        machine
    }

    /// A leader who evaluates scripts.
    struct Leader {
        machine: Machine,
        overlay: Overlay,
        asked: u64,
    }

    impl Leader {
        fn of(machine: Machine) -> Self {
            Self {
                machine,
                overlay: Overlay::new(LOG_BYTES),
                asked: 0,
            }
        }

        /// What scripts of these lines answer: evaluated on top of each other, save those that look at all keys, and applied.
        fn scripts(&mut self, at: Millis, scripts: &[Vec<String>]) -> Vec<Vec<Reply>> {
            let (mut all, mut batch) = (Vec::new(), Vec::new());
            self.overlay.reset(self.machine.store().settings());
            for lines in scripts {
                let (replies, effects) = match evaluate(&mut self.overlay, &self.machine, at, lines) {
                    Ok((replies, outcome)) => {
                        batch.push(self.effects(at, None, outcome));
                        all.push(replies);
                        continue;
                    }
                    Err(why) => {
                        assert_eq!(why, Refused::NeedsAll);
                        self.apply(at, std::mem::take(&mut batch));
                        let revision = self.machine.store().revision();
                        let mut whole = Overlay::over(self.machine.freeze(), LOG_BYTES);
                        let (replies, outcome) = evaluate(&mut whole, &self.machine, at, lines).unwrap();
                        (replies, self.effects(at, Some(revision), outcome))
                    }
                };
                self.apply(at, vec![effects]);
                self.overlay.reset(self.machine.store().settings());
                all.push(replies);
            }
            self.apply(at, batch);
            all
        }

        fn effects(&mut self, at: Millis, revision: Option<u64>, outcome: Outcome) -> Effects {
            self.asked += 1;
            Effects {
                caller: Waiter {
                    node: 1,
                    start: 1,
                    number: self.asked,
                },
                finished: 0,
                at,
                seed: 1,
                relied_on: outcome.relied_on,
                revision,
                commands: outcome.commands,
                reply: Reply::Nil,
            }
        }

        fn apply(&mut self, at: Millis, batch: Vec<Effects>) {
            let count = batch.len();
            let mut events = apply_at(&mut self.machine, at, encode(batch));
            events.retain(|event| matches!(event, Event::Evaluated { reply: Some(_), .. }));
            assert_eq!(events.len(), count, "nothing has changed meanwhile");
        }
    }

    /// Runs one script of these lines.
    fn evaluate(
        overlay: &mut Overlay,
        machine: &Machine,
        at: Millis,
        lines: &[String],
    ) -> Result<(Vec<Reply>, Outcome), Refused> {
        overlay.begin(at, 1);
        let fetch = |db: u8, key: &[u8]| machine.view(at, db).find(key).cloned();
        let run = |text: &String| {
            let Command { db, argv } = line(text);
            overlay.run(table::lookup(&argv).unwrap(), db, &argv, &fetch)
        };
        let replies = lines.iter().map(run).collect::<Result<Vec<Reply>, Refused>>()?;
        Ok((replies, overlay.finish()))
    }

    /// What is said of a run of commands and what becomes of it is the same whether a leader evaluates them for a script or they are in the log by
    /// themselves.
    fn assert_true(before: &[&str], lines: &[&str]) {
        assert_true_at(1_000, before, lines);
    }

    /// The same some time after what was before.
    fn assert_true_at(at: Millis, before: &[&str], lines: &[&str]) {
        let lines = lines.iter().map(|text| (*text).to_owned()).collect();
        let (mut leader, mut plain) = (Leader::of(after(before)), after(before));
        assert_same(at, &mut leader, &mut plain, &[lines]);
    }

    fn assert_same(at: Millis, leader: &mut Leader, plain: &mut Machine, scripts: &[Vec<String>]) {
        let told = leader.scripts(at, scripts);
        for (lines, told) in scripts.iter().zip(told) {
            let exec = internal::exec(&[], lines.iter().map(|text| line(text)).collect());
            let entry = Entry {
                format: Entry::FORMAT,
                at,
                seed: 77,
                origin: Origin::default(),
                commands: vec![exec],
            };
            let answered = plain.apply(&entry);
            assert_eq!(
                Applied::Applied(vec![Reply::Array(told)]),
                answered,
                "{lines:?} of {scripts:?}"
            );
        }
        let (evaluated, plain) = (leader.machine.store(), plain.store());
        assert_eq!(evaluated.revision(), plain.revision(), "{scripts:?}");
        assert!(evaluated.slots().eq(plain.slots()), "{scripts:?}");
        assert_eq!(evaluated.access(), plain.access(), "{scripts:?}");
    }

    fn get(machine: &Machine, key: &str) -> Reply {
        machine.read(1_000, 0, &words(&format!("GET {key}")).argv)
    }

    #[test]
    fn scripts_on_top_of_each_other_come_to_what_they_saw() {
        let mut machine = Machine::default();
        apply(&mut machine, words("SET a 1"));
        apply(&mut machine, words("SET gone 1"));
        let mut overlay = Overlay::new(LOG_BYTES);
        overlay.reset(machine.store().settings());
        let (replies, first) = script(
            &mut overlay,
            &machine,
            1,
            &["INCR a", "DEL gone", "SETNX a 9", "GET b"],
        );
        assert_eq!(
            replies,
            [
                Reply::Integer(2),
                Reply::Integer(1),
                Reply::Integer(0),
                Reply::Nil
            ]
        );
        assert_eq!(first.commands.len(), 2, "SETNX changed nothing");
        let (replies, second) = script(
            &mut overlay,
            &machine,
            2,
            &["INCR a", "SETNX gone 5", "HRANDFIELD h"],
        );
        assert_eq!(replies, [Reply::Integer(3), Reply::Integer(1), Reply::Nil]);
        assert_eq!(get(&machine, "a"), Reply::bulk("1"), "nothing is applied yet");
        let events = apply(&mut machine, encode(vec![first, second]));
        assert!(
            events
                .iter()
                .all(|event| matches!(event, Event::Evaluated { reply: Some(_), .. })),
            "{events:?}"
        );
        assert_eq!(
            (get(&machine, "a"), get(&machine, "gone")),
            (Reply::bulk("3"), Reply::bulk("5"))
        );
    }

    #[test]
    fn what_ends_between_a_script_and_its_entry_was_there_for_it() {
        let mut machine = after(&[]);
        // More than one entry ends, and that one last.
        for name in (0..40)
            .map(|number| format!("h{number:02}"))
            .chain(["last".to_owned()])
        {
            apply(&mut machine, words(&format!("HSET {name} f 5")));
            apply(&mut machine, words(&format!("HPEXPIREAT {name} 1500 FIELDS 1 f")));
        }
        let mut leader = Leader::of(machine);
        leader.overlay.reset(leader.machine.store().settings());
        let lines = ["HINCRBY last f 1", "HPTTL last FIELDS 1 f"].map(str::to_owned);
        let (told, outcome) = evaluate(&mut leader.overlay, &leader.machine, 1_400, &lines).unwrap();
        let left = Reply::Array(vec![Reply::Integer(100)]);
        assert_eq!(told, [Reply::Integer(6), left]);
        let effects = leader.effects(1_400, None, outcome);
        leader.apply(2_000, vec![effects]);
        let find = |text: &str| leader.machine.read(2_000, 0, &words(text).argv);
        assert_eq!(find("HGET last f"), Reply::Nil, "it ended when it was to");
    }

    #[test]
    fn a_script_that_only_renews_writes_nothing() {
        let mut machine = Machine::default();
        let slack = [("expire-slack-percent".to_owned(), "5".to_owned())];
        apply(&mut machine, internal::set(&slack));
        apply(&mut machine, words("SET a 1 EX 1200"));
        let mut overlay = Overlay::new(LOG_BYTES);
        overlay.reset(machine.store().settings());
        let commands = ["GET a", "EXPIRE a 1200", "GETEX a EX 1200", "TTL a"];
        let (replies, effects) = script(&mut overlay, &machine, 1, &commands);
        let one = Reply::Integer(1);
        assert_eq!(
            replies,
            [
                Reply::bulk("1"),
                one.clone(),
                Reply::bulk("1"),
                Reply::Integer(1_200)
            ]
        );
        assert_eq!((effects.commands.len(), effects.relied_on.len()), (0, 1));
        // Another life is written, and so is what was set in the script before.
        let commands = ["EXPIRE a 1300", "EXPIRE a 1300", "SET a 2", "EXPIRE a 1300"];
        let (replies, effects) = script(&mut overlay, &machine, 2, &commands);
        assert_eq!(replies, [one.clone(), one.clone(), Reply::OK, one]);
        assert_eq!(effects.commands.len(), 3);
        // Where half of the slack is used up it is told, once for each key.
        overlay.reset(machine.store().settings());
        overlay.begin(1_000 + 40_000, 3);
        let fetch = |db: u8, key: &[u8]| machine.view(1_000, db).find(key).cloned();
        for text in ["EXPIRE a 1200", "EXPIRE a 1200"] {
            let command = words(text);
            let spec = table::lookup(&command.argv).unwrap();
            let reply = overlay.run(spec, command.db, &command.argv, &fetch);
            assert_eq!(reply, Ok(Reply::Integer(1)));
        }
        let outcome = overlay.finish();
        assert_eq!((outcome.commands.len(), outcome.due.len()), (0, 1));
        assert_eq!((outcome.due[0].life, outcome.due[0].used_at), (1_200_000, 41_000));
    }

    #[test]
    fn a_key_changed_meanwhile_is_noticed_even_if_only_read() {
        let mut machine = Machine::default();
        apply(&mut machine, words("SET a 1"));
        let mut overlay = Overlay::new(LOG_BYTES);
        let (_, effects) = script(&mut overlay, &machine, 1, &["GET a", "SET b 1"]);
        apply(&mut machine, words("SET a 2"));
        let events = apply(&mut machine, encode(vec![effects]));
        assert!(
            matches!(events[..], [Event::Evaluated { reply: None, .. }]),
            "{events:?}"
        );
        assert_eq!(get(&machine, "b"), Reply::Nil);
    }

    #[test]
    fn a_command_that_looks_at_all_keys_needs_the_whole_state() {
        let mut machine = Machine::default();
        apply(&mut machine, words("SET a 1"));
        let dbsize = words("DBSIZE").argv;
        let spec = table::lookup(&dbsize).unwrap();
        let mut overlay = Overlay::new(LOG_BYTES);
        assert_eq!(
            overlay.run(spec, 0, &dbsize, &|_, _| None),
            Err(Refused::NeedsAll)
        );
        let mut whole = Overlay::over(machine.freeze(), LOG_BYTES);
        whole.begin(1_000, 1);
        assert_eq!(whole.run(spec, 0, &dbsize, &|_, _| None), Ok(Reply::Integer(1)));
    }

    #[test]
    fn a_change_of_a_user_beside_a_script_is_written() {
        let bob = ["ACL SETUSER bob on nopass +@all"];
        for line in ["ACL SETUSER bob off", "ACL DELUSER bob", "ACL DELUSER nobody"] {
            assert_true(&bob, &[line]);
        }
    }

    #[test]
    fn tokens_are_those_that_the_log_gives() {
        const CREATE: &str = "SESSION.CREATE s 60000";
        for lock in [
            "SESSION.LOCK s EXCLUSIVE me 60000",
            "SESSION.LOCK s SHARED me 60000 BOUND",
        ] {
            assert_true(&[CREATE], &[lock]);
            assert_true(
                &[CREATE, "SET k v"],
                &["GET k", "SET k w", "DEL none", lock, "SESSION.LOCKS s"],
            );
        }
        assert_true(&[], &["CACHE.LEASE page 1000", "CACHE.LEASE page 1000"]);
        let tagged = "CACHE.SET page v EX 9 TAGS 2 a b";
        assert_true(&["SET k v"], &["APPEND k w", tagged, "GET a", "CACHE.GET page"]);
    }

    #[test]
    fn an_entry_of_the_cache_stands_by_the_tags_it_has() {
        let tagged = ["CACHE.SET page v EX 9 TAGS 2 a b"];
        assert_true(&tagged, &["CACHE.GET page"]);
        assert_true(&tagged, &["CACHE.INVALIDATE a", "CACHE.GET page"]);
        assert_true(&tagged, &["CACHE.LEASE page 1000"]);
        assert_true(&tagged, &["CACHE.SET page w EX 9", "CACHE.GET page"]);
    }

    #[test]
    fn a_key_in_another_database_is_looked_at_there() {
        for taken in ["1:SET k b", "1:SET other b", "SET other b"] {
            let before = ["SET k a", taken];
            assert_true(&before, &["MOVE k 1", "1:GET k", "GET k"]);
            for copy in [
                "COPY k k DB 1",
                "COPY k k db 1 replace",
                "COPY k k DB 0 DB 1",
                "COPY k other",
            ] {
                assert_true(&before, &[copy, "1:GET k"]);
            }
        }
        for refused in ["MOVE k 99", "MOVE k x", "COPY k k DB 99", "COPY k k DB"] {
            assert_true(&["SET k a"], &[refused]);
        }
    }

    #[test]
    fn nothing_stays_of_a_key_that_was_moved() {
        let mut machine = after(&["SET k a"]);
        let mut overlay = Overlay::new(LOG_BYTES);
        let (replies, effects) = script(&mut overlay, &machine, 1, &["MOVE k 1"]);
        assert_eq!(replies, [Reply::Integer(1)]);
        apply(&mut machine, encode(vec![effects]));
        apply(&mut machine, line("1:DEL k"));
        overlay.reset(machine.store().settings());
        let (replies, _) = script(&mut overlay, &machine, 2, &["SETNX k b", "MOVE k 1"]);
        assert_eq!(replies, [Reply::Integer(1), Reply::Integer(1)]);
    }

    #[test]
    fn a_session_is_found_by_every_id_it_had() {
        let before = [
            "SESSION.CREATE old 60000 ITEMS 1 cart book",
            "SESSION.RENAME old between GRACE 30000",
            "SESSION.RENAME between new GRACE 30000",
        ];
        for line in [
            "SESSION.GET old cart",
            "SESSION.LOAD between",
            "SESSION.TTL old",
            "SESSION.LOCKS old",
            "SESSION.TOUCH old none new",
            "SESSION.SAVE old 1 SET 1 cart pen",
            "SESSION.RENAME between another",
            "GET old",
        ] {
            assert_true(&before, &[line]);
        }
        let seen = "SESSION.LOAD new";
        assert_true(&before, &["SESSION.END old", seen, "SESSION.TTL between"]);
        assert_true(
            &before,
            &["SESSION.END new", "SESSION.GET old cart", "SESSION.END old"],
        );
        let again = ["SESSION.RENAME new newest GRACE 9", "SESSION.END old", seen];
        assert_true(&before, &again);
        // What it hangs on is relied on.
        let mut machine = after(&before);
        let mut overlay = Overlay::new(LOG_BYTES);
        let (_, effects) = script(&mut overlay, &machine, 1, &["SESSION.GET old cart"]);
        apply(&mut machine, words("SESSION.END new"));
        let events = apply(&mut machine, encode(vec![effects]));
        assert!(
            matches!(events[..], [Event::Evaluated { reply: None, .. }]),
            "{events:?}"
        );
    }

    #[test]
    fn what_has_ended_in_a_key_is_gone_though_nobody_has_removed_it() {
        let before = [
            ".set active-expire false",
            "HSET h f v g w",
            "HPEXPIRE h 100 FIELDS 1 f",
            "SESSION.CREATE s 60000",
            "SESSION.LOCK s EXCLUSIVE me 100",
            "CACHE.SET page v EX 9 FRESH 100",
            "CACHE.LEASE page 500",
        ];
        for line in [
            "HSETNX h f x",
            "HDEL h f",
            "HDEL h none",
            "HINCRBY h f 1",
            "HPERSIST h FIELDS 1 f",
            "SESSION.SAVE s 1 SET 1 cart book",
        ] {
            // By its keys, on a copy of everything, and on top of what it did itself.
            for lines in [&[line][..], &["DBSIZE", line], &[line, line, "HGETALL h"]] {
                assert_true_at(2_000, &before, lines);
            }
        }
        for token in ["SESSION.LOCK s SHARED me 100", "CACHE.LEASE page 500"] {
            assert_true_at(2_000, &before, &["HSETNX h f x", token]);
        }
    }

    /// What is not by chance, by what it is about; the last of it needs the whole state. `@` stands for a key, `#` for a number.
    const LINES: [&[&str]; 4] = [
        &[
            "SET @ 1",
            "SET @ 1 PX #",
            "GET @",
            "DEL @ @",
            "APPEND @ #",
            "SETNX @ 2",
            "MOVE @ 1",
            "MOVE @ 0",
            "COPY @ @ DB 1",
            "COPY @ @ REPLACE DB 0",
            "RENAME @ @",
            "RENAMENX @ @",
            "PEXPIRE @ #",
            "PERSIST @",
            "TYPE @",
            "RPUSH @ # #",
            "LPOP @",
            "SORT @ STORE @",
        ],
        &[
            "HSET @ f # g #",
            "HSETNX @ f #",
            "HDEL @ f",
            "HINCRBY @ g 1",
            "HPEXPIRE @ # FIELDS 1 f",
            "HPERSIST @ FIELDS 1 f",
            "HGETALL @",
        ],
        &[
            "SESSION.CREATE @ #",
            "SESSION.SAVE @ * SET 1 cart #",
            "SESSION.SAVE @ 1 LOCK # UNLOCK SET 1 cart pen",
            "SESSION.GET @ cart",
            "SESSION.LOAD @",
            "SESSION.RENAME @ @ GRACE #",
            "SESSION.END @",
            "SESSION.UNLOCK @ #",
            "SESSION.LOCKS @",
            "SESSION.TTL @",
        ],
        &[
            "SESSION.CREATE @ 60 OWNER ann MAX 2 OLDEST-OUT ITEMS 1 cart book",
            "SESSION.LOCK @ EXCLUSIVE me #",
            "SESSION.LOCK @ SHARED me #",
            "SESSION.OWNED ann",
            "SESSION.ENDOWNED ann",
            "SESSION.EVENTS 0",
            "CACHE.SET @ #",
            "CACHE.SET @ v PX # FRESH # TAGS 1 tag",
            "CACHE.SET @ v PX # LEASE # TAGS 2 tag tags",
            "CACHE.GET @",
            "CACHE.LEASE @ #",
            "CACHE.LEASE @ # TAGS 1 tag",
            "CACHE.EXTEND @ # #",
            "CACHE.RELEASE @ #",
            "CACHE.INVALIDATE tag",
            "DBSIZE",
            "FLUSHDB",
            "SWAPDB 0 1",
            "ACL SETUSER bob on",
            "ACL DELUSER bob",
        ],
    ];

    /// Mostly about one thing: else each would put away what the others are about.
    fn any_line(about: usize) -> impl Strategy<Value = String> {
        let others = LINES.concat();
        let text = prop_oneof![9 => prop::sample::select(LINES[about]), 1 => prop::sample::select(others)];
        let db = prop_oneof![5 => Just(0u8), 1 => Just(1)];
        let words = prop::collection::vec((0..3u8, 1..60u8), 12);
        (text, db, words).prop_map(|(text, db, words)| {
            let word = |(word, (key, number)): (&str, (u8, u8))| match word {
                "@" => format!("k{key}"),
                "#" => number.to_string(),
                _ => word.to_owned(),
            };
            let words: Vec<String> = text.split(' ').zip(words).map(word).collect();
            format!("{db}:{}", words.join(" "))
        })
    }

    /// Batches of scripts, each some time after the one before.
    fn any_batches() -> impl Strategy<Value = Vec<(Millis, Vec<Vec<String>>)>> {
        (0..LINES.len()).prop_flat_map(|about| {
            let scripts = prop::collection::vec(prop::collection::vec(any_line(about), 1..6), 1..4);
            prop::collection::vec((0u64..12, scripts), 1..16)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_scripts_do_they_are_told_what_the_log_comes_to(
            active in any::<bool>(), batches in any_batches(),
        ) {
            let before = format!(".set active-expire {active}");
            let (mut leader, mut plain, mut at) = (Leader::of(after(&[&before])), after(&[&before]), 1_000);
            for (later, scripts) in batches {
                at += later;
                // Keys that have ended are gone before anybody is asked: only a plain write would find them.
                for machine in [&mut leader.machine, &mut plain] {
                    for db in 0..2 {
                        apply_at(machine, at, words(&format!(".end {db} k0 k1 k2 tag tags")));
                    }
                }
                assert_same(at, &mut leader, &mut plain, &scripts);
            }
        }
    }

    /// Runs what this says of each number until it is refused: after how many, and why.
    fn until_refused(overlay: &mut Overlay, text: impl Fn(usize) -> String) -> (usize, Option<Refused>) {
        overlay.begin(1_000, 1);
        for number in 0..LOG_BYTES {
            let command = words(&text(number));
            let spec = table::lookup(&command.argv).unwrap();
            if let Err(refused) = overlay.run(spec, command.db, &command.argv, &|_, _| None) {
                return (number, Some(refused));
            }
        }
        (LOG_BYTES, None)
    }

    fn whole() -> Overlay {
        Overlay::over(Machine::default().freeze(), LOG_BYTES)
    }

    #[test]
    fn what_a_script_writes_is_bounded_while_it_runs() {
        let (value, key) = (|_| "SET k v".to_owned(), |number| format!("SET k{number} v"));
        for mut overlay in [Overlay::new(LOG_BYTES), whole()] {
            let (ran, refused) = until_refused(&mut overlay, value);
            assert_eq!(refused, Some(Refused::TooMuch));
            assert!((LOG_BYTES / 50..LOG_BYTES / 25).contains(&ran), "{ran} writes");
        }
        // The names of many keys take room as well, but none where all keys are relied on.
        let (ran, refused) = until_refused(&mut Overlay::new(LOG_BYTES), key);
        assert_eq!(refused, Some(Refused::NeedsAll));
        assert!(ran < LOG_BYTES / 50, "{ran} writes");
        let (more, refused) = until_refused(&mut whole(), key);
        assert_eq!(refused, Some(Refused::TooMuch));
        assert!(more > ran && more < LOG_BYTES / 25, "{more} writes");
    }

    #[test]
    fn keys_that_are_only_read_are_counted_too_and_all_can_be_read_on_a_copy_of_everything() {
        let read = |number| format!("GET k{number}");
        let (ran, refused) = until_refused(&mut Overlay::new(LOG_BYTES), read);
        assert_eq!(refused, Some(Refused::NeedsAll));
        assert!(ran < LOG_BYTES / 30, "{ran} reads");
        assert_eq!(until_refused(&mut whole(), read), (LOG_BYTES, None));
    }

    #[test]
    fn memory_is_bounded_also_where_few_words_take_much() {
        let most = LOG_BYTES * GROWTH;
        for mut overlay in [Overlay::new(LOG_BYTES), whole()] {
            let large = |number| format!("SETRANGE k{number} 100000 x");
            let (ran, refused) = until_refused(&mut overlay, large);
            assert_eq!((ran, refused), (most / 100_000 + 1, Some(Refused::TooMuch)));
            assert!(overlay.scratch.store.bytes() < most + 101_000);
        }
        // What is removed again counts no more.
        let mut overlay = Overlay::new(LOG_BYTES);
        let (ran, refused) = until_refused(&mut overlay, |number| match number % 2 {
            0 => "SETRANGE k 100000 x".to_owned(),
            _ => "DEL k".to_owned(),
        });
        assert_eq!(refused, Some(Refused::TooMuch));
        assert!(ran > 10 * GROWTH, "the log is full first: {ran}");
    }

    #[test]
    fn scripts_on_top_of_each_other_hold_a_bounded_amount() {
        let mut overlay = Overlay::new(LOG_BYTES);
        let (machine, mut scripts) = (Machine::default(), 0);
        while !overlay.is_full() {
            let set = format!("SETRANGE k{scripts} 100000 x");
            script(&mut overlay, &machine, scripts, &[&set]);
            scripts += 1;
        }
        assert_eq!(scripts, (LOG_BYTES * GROWTH / 100_000 + 1) as u64);
        overlay.reset(machine.store().settings());
        assert!(!overlay.is_full());
    }
}
