//! Databases, keys, deadlines, versions, byte counts: the only code that changes them.
//!
//! [`Store`] is the whole state. Commands see it through two handles that know the database and the time: [`View`] reads,
//! [`Keyspace`] changes. A key past its deadline is absent to both, also before a `Tick` has removed it.
//!
//! Each database is split in [`SHARDS`] shards behind `Arc`s: a snapshot clones the `Arc`s, and the writer copies a shard before its
//! first change after that. Inside a shard keys have an order of their own (`keyspace/shard.rs`), so every order that can be seen (SCAN, snapshot, digest,
//! random choice) follows from the log and never from a hasher.

mod deadlines;
mod end;
mod entries;
mod field_deadlines;
mod freed;
mod memory;
mod name;
mod shard;

use super::access::Access;
use super::entry::Millis;
use super::event::{Classes, Event, Waiter};
use super::recency::{Recency, Use};
use super::reply::{CommandError, Reply};
use super::scripts::Scripts;
use super::session_events::{EVENTS_MAX, Reason, SessionEvent, SessionEvents, Telling, What};
use super::settings::Settings;
use super::table;
use super::value::{Hash, Kind, List, Living, Session, Set, Str, Stream, Value, Zset};
use super::waiting::{Otherwise, Wait, Waiting};
use bytes::Bytes;
use deadlines::{Deadlines, Ending};
pub use end::{Due, End};
use field_deadlines::FieldDeadlines;
pub use freed::Freed;
use freed::Freeing;
pub use memory::{Candidate, Walk};
pub(super) use shard::Shard;
use siphasher::sip::SipHasher13;
use std::collections::{BTreeSet, VecDeque};
use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Databases, as `SELECT` numbers them from 0.
pub const DATABASES: usize = 16;

/// Shards of a database: few enough that an empty database costs 8 KiB, many enough that copying one (a million keys: about
/// 1,000 keys, 140 µs cold) stops nobody.
pub const SHARDS: usize = 1024;

/// Ids that are followed to the one a session has now, where it had many within their grace times.
pub(super) const RENAMED_MAX: usize = 1_000;

/// Bytes a key costs beside its name and content: map slots, slot, deadline index. As they decide what is refused for memory, every version of
/// this program must count alike.
const OVERHEAD_BYTES: usize = 128;

/// What commands wait for that wait for the next event of a session. A key of this name would wake them as well, which does no harm.
pub(super) const SESSION_EVENTS_KEY: &[u8] = b".session-events";

/// SipHash-1-3 keyed by the cluster: nobody who does not know the key can aim at one shard, and every member counts shards alike.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShardHasher(u64);

impl ShardHasher {
    /// The hash of a key, and its shard.
    fn place(self, key: &[u8]) -> (u64, usize) {
        let mut hasher = SipHasher13::new_with_keys(self.0, self.0.rotate_left(32) ^ 0x706c_656e_6172_7921);
        hasher.write(key);
        let hash = hasher.finish();
        (hash, Self::shard_of(hash))
    }

    /// The shard of a key with this hash.
    fn shard_of(hash: u64) -> usize {
        // Of the upper half: inside the shard keys are placed by the lower half of the same hash, so a shard whose keys had that in common would be
        // one long collision.
        usize::try_from((hash >> 32) % SHARDS as u64).expect("below SHARDS")
    }
}

/// Numbers by chance from a seed: the same seed, the same numbers. Good enough for a choice, not for a secret.
#[derive(Clone, Copy, Debug)]
pub struct Chance(u64);

impl Chance {
    /// Numbers from this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        // SplitMix64: one step of a counter, mixed.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.draw() % bound as u64).expect("below a usize")
    }
}

/// One key's value and what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// What it holds.
    pub value: Value,
    /// When it ends, by the log's clock.
    pub end: End,
    /// The store's revision at its last change; never the same for two states of one key.
    pub version: u64,
    /// When it was last used, and how often; not state.
    pub recency: Recency,
}

impl Slot {
    /// When it is gone, by the log's clock.
    pub fn deadline(&self) -> Option<Millis> {
        self.end.deadline()
    }

    /// Whether it holds a session that has another name.
    fn is_retired(&self) -> bool {
        matches!(&self.value, Value::Session(session) if session.is_retired())
    }
}

/// Deadlines of keys that are being restored.
#[derive(Debug, Default)]
pub(super) struct Endings(Vec<Ending>);

/// A session that has an owner: the owner, when it was created, its key.
type Owned = (Bytes, Millis, Bytes);

#[derive(Clone, Debug)]
struct Database {
    shards: Vec<Arc<Shard>>,
    keys: usize,
    with_deadline: usize,
    /// Of the keys, those that hold a session; and of these, those with a deadline, and those that have another name.
    sessions: usize,
    sessions_with_deadline: usize,
    retired: usize,
    /// Content, names and overhead of its keys, in bytes.
    bytes: usize,
}

impl Database {
    fn new() -> Self {
        Self {
            shards: vec![Arc::default(); SHARDS],
            keys: 0,
            with_deadline: 0,
            sessions: 0,
            sessions_with_deadline: 0,
            retired: 0,
            bytes: 0,
        }
    }

    /// Counts a key that came, but for its bytes.
    fn add(&mut self, slot: &Slot) {
        let (session, deadline) = (slot.value.is_session(), slot.deadline().is_some());
        self.keys += 1;
        self.with_deadline += usize::from(deadline);
        self.sessions += usize::from(session);
        self.sessions_with_deadline += usize::from(session && deadline);
        self.retired += usize::from(slot.is_retired());
    }

    /// Counts a key that went.
    fn subtract(&mut self, slot: &Slot) {
        let (session, deadline) = (slot.value.is_session(), slot.deadline().is_some());
        self.keys -= 1;
        self.with_deadline -= usize::from(deadline);
        self.sessions -= usize::from(session);
        self.sessions_with_deadline -= usize::from(session && deadline);
        self.retired -= usize::from(slot.is_retired());
    }
}

/// Keys that were looked for, and found or not. Aligned to lines of memory of their own: readers on all cores count here, and what stands beside would be
/// taken from each other with it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Lookups {
    hits: AtomicU64,
    misses: AtomicU64,
}

/// Keys that a command waits for, and bytes of its words, from format 4 on: every node keeps them for every client that waits, and counts them nowhere.
const WAIT_KEYS_MAX: usize = 1_024;
const WAIT_BYTES_MAX: usize = 64 << 10;

/// Keys in the order in which they came, each once; none: all of that database.
#[derive(Debug, Default)]
struct Ready {
    line: VecDeque<(u8, Option<Bytes>)>,
    there: BTreeSet<(u8, Option<Bytes>)>,
}

impl Ready {
    fn push(&mut self, db: u8, key: Option<Bytes>) {
        if self.there.insert((db, key.clone())) {
            self.line.push_back((db, key));
        }
    }

    fn pop(&mut self) -> Option<(u8, Option<Bytes>)> {
        let first = self.line.pop_front()?;
        self.there.remove(&first);
        Some(first)
    }

    /// Puts these before all others.
    fn put_first(&mut self, db: u8, keys: Vec<Bytes>) {
        keys.into_iter()
            .rev()
            .for_each(|key| self.line.push_front((db, Some(key))));
    }
}

/// The whole keyspace.
#[derive(Debug)]
pub struct Store {
    hasher: ShardHasher,
    databases: Vec<Database>,
    /// The log's clock: the greatest `at` applied.
    clock: Millis,
    /// Counts changes of keys.
    revision: u64,
    /// Keys that ended by their deadline since the store was born.
    expired: u64,
    /// What all nodes agreed on by `CONFIG SET`.
    settings: Settings,
    /// Who may do what.
    access: Arc<Access>,
    /// Scripts and functions that all nodes know.
    scripts: Scripts,
    /// Commands that wait for a key.
    waiting: Waiting,
    /// Keys that were changed by the command at hand and that somebody waits for; not state.
    ready: Ready,
    /// What happened since [`Store::take_events`]; not state. Bounded by what one entry holds.
    events: Vec<Event>,
    /// Whether changed keys are among the events; not state.
    watched: bool,
    /// The key that the command at hand emptied, to be told after the command's own event; not state.
    emptied: Option<(u8, Bytes)>,
    /// Every deadline in order. Derived from the slots; not part of a snapshot.
    deadlines: Deadlines,
    /// The first deadline among the fields of each hash and the parts of each session, in order. Derived as well.
    field_deadlines: FieldDeadlines,
    /// What happened to sessions.
    session_events: SessionEvents,
    /// Of each database the sessions of each owner, oldest first. Derived.
    owned: [BTreeSet<Owned>; DATABASES],
    /// Counts draws of reads outside the log, so that no two draw the same. Not state: it decides nothing that is kept.
    draws: AtomicU64,
    /// What reads outside the log looked for; not state.
    lookups: Lookups,
    /// Keys that were evicted since this store is in memory; not state.
    evicted: u64,
    /// Commands that changed something since this store is in memory; not state.
    writes: u64,
    /// What was taken away and takes long to free; not state. Bounded by what one entry takes away.
    freeing: Freeing,
}

impl Store {
    /// An empty store whose shards are counted with this seed.
    pub fn new(hash_seed: u64) -> Self {
        let hasher = ShardHasher(hash_seed);
        Self {
            hasher,
            databases: vec![Database::new(); DATABASES],
            clock: 0,
            revision: 0,
            expired: 0,
            settings: Settings::default(),
            access: Arc::default(),
            scripts: Scripts::default(),
            waiting: Waiting::default(),
            ready: Ready::default(),
            events: Vec::new(),
            watched: false,
            emptied: None,
            deadlines: Deadlines::default(),
            field_deadlines: FieldDeadlines::default(),
            session_events: SessionEvents::default(),
            owned: Default::default(),
            draws: AtomicU64::new(0),
            lookups: Lookups::default(),
            evicted: 0,
            writes: 0,
            freeing: Freeing::default(),
        }
    }

    /// A copy that no later change reaches: it shares every shard and costs a pointer for each. Without the indexes of deadlines and owners: it
    /// is for snapshots and digests, not to go on from.
    pub fn freeze(&self) -> Store {
        let draws = AtomicU64::new(self.draws.load(Ordering::Relaxed));
        Store {
            databases: self.databases.clone(),
            settings: self.settings.clone(),
            access: self.access.clone(),
            scripts: self.scripts.clone(),
            waiting: self.waiting.clone(),
            ready: Ready::default(),
            events: Vec::new(),
            emptied: None,
            deadlines: Deadlines::default(),
            field_deadlines: FieldDeadlines::default(),
            session_events: self.session_events.clone(),
            owned: Default::default(),
            draws,
            lookups: Lookups::default(),
            freeing: Freeing::default(),
            ..*self
        }
    }

    /// The seed given to [`Store::new`].
    pub fn hash_seed(&self) -> u64 {
        self.hasher.0
    }

    /// The log's clock.
    pub fn clock(&self) -> Millis {
        self.clock
    }

    /// The last millisecond whose deadlines have passed at this time: the one before it, for a life ends with its last millisecond, as in Redis. Up to format 2
    /// it ended as that began.
    pub fn passed(&self, now: Millis) -> Millis {
        now.saturating_sub(Millis::from(self.settings.level > 2))
    }

    /// Moves the log's clock to `at` (never backwards) and removes nothing: what has ended is absent all the same.
    pub(super) fn move_clock(&mut self, at: Millis) {
        self.clock = self.clock.max(at);
    }

    /// Moves the clock to where these deadlines have passed, if they had before the level was raised: what has ended does not come back.
    pub(super) fn go_beyond(&mut self, passed: Millis) {
        self.clock += passed - self.passed(self.clock);
    }

    /// What all nodes agreed on.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Who may do what.
    pub fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// The same, to be changed by an entry of the log.
    pub(super) fn access_mut(&mut self) -> &mut Access {
        Arc::make_mut(&mut self.access)
    }

    /// The same, to be changed by an entry of the log.
    pub(super) fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// Whether changed keys are to be among the events from now on: for clients that cache.
    pub fn watch_changes(&mut self, watched: bool) {
        self.watched = watched;
    }

    /// Whether changed keys are among the events.
    pub fn watches_changes(&self) -> bool {
        self.watched
    }

    /// What happened since this was last asked, in order.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Adds something that happened.
    pub(super) fn tell(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Scripts and functions that all nodes know.
    pub fn scripts(&self) -> &Scripts {
        &self.scripts
    }

    pub(super) fn scripts_mut(&mut self) -> &mut Scripts {
        &mut self.scripts
    }

    /// What happened to sessions.
    pub fn session_events(&self) -> &SessionEvents {
        &self.session_events
    }

    /// The same, as a snapshot has it.
    pub(super) fn session_events_mut(&mut self) -> &mut SessionEvents {
        &mut self.session_events
    }

    /// Tells what happened to a session.
    fn tell_session(&mut self, db: u8, key: &[u8], session: &Session, what: What) {
        let telling = self.settings.session_events;
        if telling == Telling::No || session.is_retired() {
            return;
        }
        self.session_events.add(SessionEvent {
            position: 0,
            at: self.clock,
            db,
            key: Bytes::copy_from_slice(key),
            owner: session.owner.clone(),
            version: session.version,
            what,
        });
        self.events.push(Event::Session);
        if self.waiting.is_empty() {
            return;
        }
        for db in (0u8..).take(DATABASES) {
            let waited = Bytes::from_static(SESSION_EVENTS_KEY);
            if self.waiting.is_for(db, &waited) {
                self.ready.push(db, Some(waited));
            }
        }
    }

    /// Tells that a session has ended, if it is one: for this reason; or for its own, where its deadline had passed before.
    fn tell_session_end(&mut self, db: u8, key: &[u8], slot: &Slot, reason: Reason) {
        let Value::Session(session) = &slot.value else {
            return;
        };
        let reason = match slot.deadline() {
            Some(deadline) if deadline > self.passed(self.clock) => reason,
            None => reason,
            Some(deadline) if deadline == session.absolute_deadline => Reason::Absolute,
            Some(_) => Reason::Idle,
        };
        let content = self.settings.session_events == Telling::Content;
        let ended = What::Ended(reason, content.then(|| session.clone()));
        self.tell_session(db, key, session, ended);
        if !session.is_retired() {
            self.notify(
                db,
                Classes::MODULE,
                &format!("session.ended.{}", reason.name()),
                key,
            );
        }
    }

    /// Tells that all sessions of a database have ended. Unless keyspace events are asked for, of more than are kept only the last are looked at: a million
    /// that go at once shall hold up nobody.
    fn tell_emptied_sessions(&mut self, db: u8, old: &Database) {
        let ended = old.sessions - old.retired;
        let all = self.settings.notify_keyspace_events.tell(Classes::MODULE);
        let kept = self.settings.session_events != Telling::No;
        let told = match (all, kept) {
            (true, _) => ended,
            (false, true) => ended.min(EVENTS_MAX),
            (false, false) => 0,
        };
        if kept {
            self.session_events.skip(ended - told);
        }
        let from_behind = old.shards.iter().rev().flat_map(|shard| shard.iter().rev());
        let sessions = from_behind.filter(|(_, slot)| slot.value.is_session() && !slot.is_retired());
        let last: Vec<_> = sessions.take(told).collect();
        for (key, slot) in last.into_iter().rev() {
            self.tell_session_end(db, key, slot, Reason::Administrator);
        }
    }

    /// The sessions of an owner in a database, oldest first; those among them that have ended and were not removed yet.
    fn owned(&self, db: u8, owner: &Bytes) -> impl Iterator<Item = &Bytes> {
        let all = self.owned[usize::from(db)].range((owner.clone(), 0, Bytes::new())..);
        let of = all.take_while(move |(by, _, _)| by == owner);
        of.map(|(_, _, key)| key)
    }

    /// Enters a slot into the index of owners, or takes it out.
    fn index_owner(&mut self, db: u8, key: &[u8], old: Option<&Slot>, new: Option<&Slot>) {
        let place = |slot: Option<&Slot>| match slot.map(|slot| &slot.value) {
            Some(Value::Session(session)) if !session.owner.is_empty() && !session.is_retired() => {
                let key = Bytes::copy_from_slice(key);
                Some((session.owner.clone(), session.created_at, key))
            }
            _ => None,
        };
        let (old, new) = (place(old), place(new));
        if old == new {
            return;
        }
        let owned = &mut self.owned[usize::from(db)];
        old.map(|old| owned.remove(&old));
        owned.extend(new);
    }

    /// Commands that wait for a key.
    pub fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    pub(super) fn waiting_mut(&mut self) -> &mut Waiting {
        &mut self.waiting
    }

    /// Answers a command that waited in vain.
    pub(super) fn give_up(&mut self, waiter: Waiter, wait: Wait) {
        let reply = wait.otherwise.into();
        self.leave_line(waiter, wait, reply);
    }

    /// Answers a command that no longer waits. From format 4 on those behind it are looked at again where they stand in a line: readers of a session may have
    /// waited for that writer alone. Of others each would be run again, however many there are, and find nothing.
    pub(super) fn leave_line(&mut self, waiter: Waiter, wait: Wait, reply: Reply) {
        self.tell(Event::Answered { waiter, reply });
        if self.settings.level > 3 && table::lookup(&wait.argv).is_ok_and(|spec| spec.in_line) {
            let waited = wait
                .keys
                .into_iter()
                .filter(|key| self.waiting.is_for(wait.db, key));
            waited.for_each(|key| self.ready.push(wait.db, Some(key)));
        }
    }

    /// The next key that somebody waits for and that was changed.
    #[inline]
    pub(super) fn next_ready(&mut self) -> Option<(u8, Bytes)> {
        if self.ready.line.is_empty() {
            return None;
        }
        self.next_of_ready()
    }

    fn next_of_ready(&mut self) -> Option<(u8, Bytes)> {
        loop {
            match self.ready.pop()? {
                (db, Some(key)) => return Some((db, key)),
                (db, None) => self.ready.put_first(db, self.waiting.keys_of(db)),
            }
        }
    }

    fn changed(&mut self, db: u8, key: &[u8]) {
        if !self.watched && self.waiting.is_empty() {
            return;
        }
        let key = Bytes::copy_from_slice(key);
        if self.waiting.is_for(db, &key) {
            self.ready.push(db, Some(key.clone()));
        }
        if self.watched {
            self.events.push(Event::Changed { db, key });
        }
    }

    /// A database was emptied or exchanged.
    fn flushed(&mut self, db: u8) {
        if !self.waiting.is_empty() {
            self.ready.push(db, None);
        }
        if self.watched {
            self.events.push(Event::Flushed { db });
        }
    }

    /// Tells of a keyspace event, if the settings ask for its class.
    fn notify(&mut self, db: u8, class: Classes, event: &str, key: &[u8]) {
        let asked = self.settings.notify_keyspace_events;
        if !asked.tell(class) {
            return;
        }
        let mut message = |channel: Vec<u8>, message: &[u8]| {
            self.events.push(Event::Message {
                channel: channel.into(),
                message: Bytes::copy_from_slice(message),
                sharded: false,
            });
        };
        if asked.contain(Classes::KEYSPACE) {
            message(
                [format!("__keyspace@{db}__:").as_bytes(), key].concat(),
                event.as_bytes(),
            );
        }
        if asked.contain(Classes::KEYEVENT) {
            message(format!("__keyevent@{db}__:{event}").into_bytes(), key);
        }
    }

    /// Tells that a key was emptied, if the command at hand did that and has not told.
    pub(super) fn tell_emptied(&mut self) {
        if let Some((db, key)) = self.emptied.take() {
            self.notify(db, Classes::GENERIC, "del", &key);
        }
    }

    /// A key was found to have ended by its deadline and is gone.
    fn note_expired(&mut self, db: u8, key: &[u8]) {
        self.expired += 1;
        self.notify(db, Classes::EXPIRED, "expired", key);
    }

    /// How many changes were made.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Counts a command that has changed something since this revision.
    pub(super) fn count_write(&mut self, before: u64) {
        self.writes += u64::from(self.revision > before);
    }

    /// Commands that changed something, since this store is in memory.
    pub fn writes(&self) -> u64 {
        self.writes
    }

    /// How many keys reads outside the log have found, and how many they have missed, since this store is in memory.
    pub fn lookups(&self) -> (u64, u64) {
        (
            self.lookups.hits.load(Ordering::Relaxed),
            self.lookups.misses.load(Ordering::Relaxed),
        )
    }

    /// A number by chance for what decides nothing that is kept.
    fn draw(&self) -> u64 {
        Chance::new(self.draws.fetch_add(1, Ordering::Relaxed)).draw()
    }

    /// Bytes of all keys, as counted where they change.
    pub fn bytes(&self) -> usize {
        self.databases.iter().map(|database| database.bytes).sum()
    }

    /// Keys that ended by their deadline.
    pub fn expired(&self) -> u64 {
        self.expired
    }

    /// Keys of a database, and how many of them have a deadline. Counts keys past it until a tick removes them, as Redis does.
    pub fn counts(&self, db: u8) -> (usize, usize) {
        let database = &self.databases[usize::from(db)];
        (database.keys, database.with_deadline)
    }

    /// The first deadline of all, of keys (unless those end only when they are found) and of commands that wait.
    pub fn next_deadline(&self) -> Option<Millis> {
        let of_keys = self.deadlines.first().map(|(at, _, _)| at);
        let of_fields = self.field_deadlines.first().map(|(at, _)| at);
        let ends = [of_keys, of_fields].into_iter().flatten();
        let ends = ends.filter(|_| self.settings.active_expire);
        ends.chain(self.waiting.next_deadline()).min()
    }

    /// Reads database `db` (0 to 15) as of `now`.
    pub fn view(&self, db: u8, now: Millis) -> View<'_> {
        View {
            store: self,
            db,
            now,
            seed: None,
            quiet: false,
        }
    }

    /// Moves the log's clock to `at` (never backwards) and removes up to so many keys, and as many fields, whose deadline has passed. The rest
    /// are absent all the same and go later.
    pub(super) fn advance(&mut self, at: Millis, most: usize) {
        self.move_clock(at);
        let passed = self.passed(self.clock);
        while let Some((waiter, wait)) = self.waiting.pop_late(passed) {
            self.give_up(waiter, wait);
        }
        if !self.settings.active_expire {
            return;
        }
        for _ in 0..most {
            let Some(ending) = self.deadlines.first().filter(|(at, ..)| *at <= passed) else {
                break;
            };
            let (db, key) = (ending.1, Bytes::copy_from_slice(self.key_that_ends(ending)));
            let slot = self.discard_slot(db, &key);
            self.note_expired(db, &key);
            slot.inspect(|slot| self.tell_session_end(db, &key, slot, Reason::Idle));
        }
        let mut left = most;
        while let Some((deadline, db)) = self.field_deadlines.first() {
            if left == 0 || deadline > passed {
                return;
            }
            let key = self
                .field_deadlines
                .first_of(db)
                .expect("it has the first of all");
            left -= self.remove_ended_fields(db, &key.clone(), left, passed);
        }
    }

    /// The name of a key with this deadline and hash.
    fn key_that_ends(&self, (at, db, hash): Ending) -> &[u8] {
        let shard = &self.databases[usize::from(db)].shards[ShardHasher::shard_of(hash)];
        let alike = shard.alike(hash);
        let ends =
            alike.filter(|(key, slot)| slot.deadline() == Some(at) && self.hasher.place(key).0 == hash);
        // The first by name, so that all nodes take the same.
        let first = ends.map(|(key, _)| key).min();
        first.expect("whoever has a deadline is in its shard until the deadline is forgotten")
    }

    /// Removes up to `most` (at least one) fields of a hash whose deadlines have `passed`, and the hash with the last one; of a session, what
    /// of it has ended. How many went.
    fn remove_ended_fields(&mut self, db: u8, key: &[u8], most: usize, passed: Millis) -> usize {
        let due = |slot: &Slot| slot.value.first_deadline().is_some_and(|at| at <= passed);
        if !self.slot(db, key).is_some_and(due) {
            return 0;
        }
        self.revision += 1;
        let revision = self.revision;
        let slot = self.slot_mut(db, key).expect("seen just above");
        let (before, first) = (slot.value.bytes(), slot.value.first_deadline());
        let gone = match &mut slot.value {
            Value::Session(session) => {
                Arc::make_mut(session).remove_ended(passed);
                1
            }
            value => Hash::of_mut(value)
                .expect("only fields of hashes and parts of sessions end")
                .remove_ended(passed, most),
        };
        let session = slot.value.is_session();
        slot.version = revision;
        let (after, next, empty) = (
            slot.value.bytes(),
            slot.value.first_deadline(),
            slot.value.is_gone(),
        );
        let bytes = &mut self.databases[usize::from(db)].bytes;
        *bytes = *bytes + after - before;
        self.move_field_deadline(db, key, first, next);
        if empty {
            self.remove_slot(db, key);
        } else {
            self.changed(db, key);
        }
        if session {
            self.notify(db, Classes::MODULE, "session.part-ended", key);
            return gone;
        }
        self.notify(db, Classes::HASH, "hexpired", key);
        if empty {
            self.notify(db, Classes::GENERIC, "del", key);
        }
        gone
    }

    /// Takes locks on sessions from holders that are bound to a start of a node before this one.
    pub(super) fn release_bound(&mut self, node: u64, before_start: u64) {
        // Who holds a lock has a deadline.
        let mut held = Vec::new();
        for (at, db, key) in self.field_deadlines.iter() {
            // What has ended goes by itself.
            let living = self.view(db, self.clock).find(key);
            if let Some(Value::Session(session)) = living.map(|slot| &slot.value) {
                let mut released = session.as_ref().clone();
                if released.lock.release_bound(node, before_start) {
                    held.push(((at, db, key.clone()), released));
                }
            }
        }
        // In the order of time, whichever their database: as all nodes do it.
        held.sort_by(|(left, _), (right, _)| left.cmp(right));
        for ((_, db, key), session) in held {
            let end = self.slot(db, &key).map_or(End::NEVER, |slot| slot.end);
            self.insert_untold(db, &key, session.into_value(), end);
            self.notify(db, Classes::MODULE, "session.unlock", &key);
        }
    }

    /// The nodes and starts that hold a lock on a session which is bound to them. Walks over all keys.
    pub fn bound_to(&self) -> BTreeSet<(u64, u64)> {
        let sessions = self
            .slots()
            .filter_map(|(_, _, slot)| slot.value.as_session().ok());
        let holders = sessions.flat_map(|session| session.lock.holders(self.passed(self.clock)));
        holders.filter_map(|holder| holder.bound).collect()
    }

    fn move_field_deadline(&mut self, db: u8, key: &[u8], from: Option<Millis>, to: Option<Millis>) {
        if from == to {
            return;
        }
        self.field_deadlines
            .shift(db, Bytes::copy_from_slice(key), from, to);
    }

    #[cfg(test)]
    /// Changes database `db` at the log's clock, drawing chance from `seed`; nobody can be made to wait.
    pub(super) fn keyspace(&mut self, db: u8, seed: u64) -> Keyspace<'_> {
        let call = Call {
            seed,
            ..Call::default()
        };
        self.call(db, call)
    }

    /// Changes database `db` under these circumstances.
    pub(super) fn call(&mut self, db: u8, call: Call) -> Keyspace<'_> {
        Keyspace {
            store: self,
            db,
            call,
        }
    }

    fn slot(&self, db: u8, key: &[u8]) -> Option<&Slot> {
        let (hash, shard) = self.hasher.place(key);
        self.databases[usize::from(db)].shards[shard].get(hash, key)
    }

    fn slot_mut(&mut self, db: u8, key: &[u8]) -> Option<&mut Slot> {
        let (hash, shard) = self.hasher.place(key);
        let shard = &mut self.databases[usize::from(db)].shards[shard];
        // Looked up first: a miss must not copy a shard that a snapshot shares.
        if shard.contains(hash, key) {
            Arc::make_mut(shard).get_mut(hash, key)
        } else {
            None
        }
    }

    fn remove_slot(&mut self, db: u8, key: &[u8]) -> Option<Slot> {
        let hasher = self.hasher;
        let (hash, index) = hasher.place(key);
        let database = &mut self.databases[usize::from(db)];
        let shard = &mut database.shards[index];
        if !shard.contains(hash, key) {
            return None;
        }
        let slot = Arc::make_mut(shard).remove(hash, key, |key| hasher.place(key).0)?;
        database.subtract(&slot);
        database.bytes -= key.len() + slot.value.bytes() + OVERHEAD_BYTES;
        self.revision += 1;
        self.move_deadline(db, key, slot.deadline(), None);
        self.move_field_deadline(db, key, slot.value.first_deadline(), None);
        self.index_owner(db, key, Some(&slot), None);
        self.changed(db, key);
        Some(slot)
    }

    /// The same for what is not used any more.
    fn discard_slot(&mut self, db: u8, key: &[u8]) -> Option<Slot> {
        let slot = self.remove_slot(db, key)?;
        self.freeing.value(&slot.value);
        Some(slot)
    }

    /// Puts a slot whole, replacing what was there. Copies the name of a new key.
    fn insert_slot(&mut self, db: u8, key: &[u8], value: Value, end: End) {
        let created = if let Value::Session(session) = &value {
            Some(session.clone())
        } else {
            None
        };
        let old = self.insert_untold(db, key, value, end);
        old.inspect(|old| self.tell_session_end(db, key, old, Reason::Replaced));
        created.inspect(|session| self.tell_session(db, key, session, What::Created));
    }

    /// The same without a word of what it means to sessions. What was there.
    fn insert_untold(&mut self, db: u8, key: &[u8], value: Value, end: End) -> Option<Slot> {
        self.revision += 1;
        let mut value = value;
        value.settle(&self.settings);
        let recency = Recency::new(self.clock);
        if self.settings.maxmemory_policy.counts_uses()
            && let Some(old) = self.slot(db, key)
        {
            recency.inherit(&old.recency);
            recency.touch(self.clock, &self.settings, || self.draw());
        }
        let slot = Slot {
            value,
            end,
            version: self.revision,
            recency,
        };
        let old = self.replace(db, key, slot);
        old.iter().for_each(|old| self.freeing.value(&old.value));
        // What it replaces may have ended already, found by nobody so far.
        let ended = old
            .as_ref()
            .and_then(|old| old.deadline())
            .is_some_and(|deadline| deadline <= self.passed(self.clock));
        if ended {
            self.note_expired(db, key);
        }
        if old.is_none() || ended {
            self.notify(db, Classes::NEW, "new", key);
        }
        self.changed(db, key);
        old
    }

    /// Takes a slot away as if it had never been there: no version, no event.
    pub(super) fn forget_slot(&mut self, db: u8, key: &[u8]) {
        let revision = self.revision;
        self.remove_slot(db, key);
        self.revision = revision;
    }

    /// Puts a slot as a snapshot has it, version and all. Whether its key is new.
    pub(super) fn insert_restored(&mut self, db: u8, key: &[u8], slot: Slot) -> bool {
        self.replace(db, key, slot).is_none()
    }

    /// The same where many follow, each with a new key: their deadlines are noted, to be kept in order by [`Store::restore_endings`] once all are there.
    pub(super) fn insert_restored_of_many(
        &mut self,
        db: u8,
        key: &[u8],
        slot: Slot,
        endings: &mut Endings,
    ) -> bool {
        let ending = slot.deadline().map(|at| (at, db, self.hasher.place(key).0));
        endings.0.extend(ending);
        self.place(db, key, slot).is_none()
    }

    /// Keeps these in order: all at once, as sorted they come one behind the other.
    pub(super) fn restore_endings(&mut self, Endings(mut endings): Endings) {
        endings.sort_unstable();
        endings.into_iter().for_each(|ending| self.deadlines.add(ending));
    }

    /// Puts a slot and keeps every count. What was there.
    fn replace(&mut self, db: u8, key: &[u8], slot: Slot) -> Option<Slot> {
        let deadline = slot.deadline();
        let old = self.place(db, key, slot);
        self.move_deadline(db, key, old.as_ref().and_then(Slot::deadline), deadline);
        old
    }

    /// The same but for its deadline.
    fn place(&mut self, db: u8, key: &[u8], slot: Slot) -> Option<Slot> {
        let (hash, index) = self.hasher.place(key);
        let database = &mut self.databases[usize::from(db)];
        database.add(&slot);
        let new = slot.value.is_session().then(|| slot.clone());
        let shard = Arc::make_mut(&mut database.shards[index]);
        let (added, field_deadline) = (slot.value.bytes(), slot.value.first_deadline());
        let old = match shard.get_mut(hash, key) {
            Some(place) => Some(std::mem::replace(place, slot)),
            None => {
                shard.insert(hash, key, slot);
                database.bytes += key.len() + OVERHEAD_BYTES;
                None
            }
        };
        database.bytes += added;
        if let Some(old) = &old {
            database.subtract(old);
            database.bytes -= old.value.bytes();
        }
        let old_field_deadline = old.as_ref().and_then(|old| old.value.first_deadline());
        self.move_field_deadline(db, key, old_field_deadline, field_deadline);
        self.index_owner(db, key, old.as_ref(), new.as_ref());
        old
    }

    fn move_deadline(&mut self, db: u8, key: &[u8], from: Option<Millis>, to: Option<Millis>) {
        if from == to {
            return;
        }
        let (hash, _) = self.hasher.place(key);
        from.inspect(|from| self.deadlines.remove((*from, db, hash)));
        to.inspect(|to| self.deadlines.add((*to, db, hash)));
    }

    /// Sets what a snapshot carries beside the slots.
    pub(super) fn restore_counters(&mut self, clock: Millis, revision: u64, expired: u64) {
        (self.clock, self.revision, self.expired) = (clock, revision, expired);
    }

    /// Makes the index of owners anew, for a copy that has none.
    pub(super) fn index_owners(&mut self) {
        let all: Vec<(u8, Bytes, Slot)> = self
            .slots()
            .filter(|(_, _, slot)| slot.value.is_session())
            .map(|(db, key, slot)| (db, Bytes::copy_from_slice(key), slot.clone()))
            .collect();
        for (db, key, slot) in all {
            self.index_owner(db, &key, None, Some(&slot));
        }
    }

    /// Every slot of every database, in the order a snapshot and the digest have: database, shard, position.
    pub fn slots(&self) -> impl Iterator<Item = (u8, &[u8], &Slot)> {
        self.shards()
            .flat_map(|(db, shard)| shard.iter().map(move |(key, slot)| (db, key, slot)))
    }

    /// The shards that have some, in the same order.
    pub(super) fn shards(&self) -> impl Iterator<Item = (u8, &Arc<Shard>)> {
        let all = (0u8..).zip(&self.databases);
        let all = all.flat_map(|(db, database)| database.shards.iter().map(move |shard| (db, shard)));
        all.filter(|(_, shard)| !shard.is_empty())
    }

    /// The same, taken away from a copy that is not used again: each is let go of as soon as who takes them has done with it.
    pub(super) fn take_shards(&mut self) -> impl Iterator<Item = (u8, Arc<Shard>)> + use<> {
        let all = (0u8..).zip(std::mem::take(&mut self.databases));
        let all = all.flat_map(|(db, database)| database.shards.into_iter().map(move |shard| (db, shard)));
        all.filter(|(_, shard)| !shard.is_empty())
    }
}

/// Reads one database at one time.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    store: &'a Store,
    db: u8,
    now: Millis,
    /// Where chance comes from inside the log; none outside.
    seed: Option<u64>,
    /// Whether looking at a key counts as no use of it: `CLIENT NO-TOUCH`.
    quiet: bool,
}

impl<'a> View<'a> {
    /// The same view, drawing chance from the log's seed instead of from a count of this node's reads.
    pub(super) fn with_seed(self, seed: u64) -> Self {
        Self {
            seed: Some(seed),
            ..self
        }
    }

    /// The same view, in which looking at a key counts as no use of it.
    pub fn quietly(self) -> Self {
        Self { quiet: true, ..self }
    }

    /// The same store as of a time before any key ends: with what has ended and was not removed yet.
    pub fn before_any_end(self) -> Self {
        Self { now: 0, ..self }
    }

    /// A number by chance: inside the log the same on every node, outside it another one at every call.
    pub fn chance(&self) -> u64 {
        let seed = self.seed.unwrap_or_else(|| {
            let draw = self.store.draws.fetch_add(1, Ordering::Relaxed);
            self.now.rotate_left(32) ^ self.store.revision.rotate_left(48) ^ draw
        });
        Chance::new(seed).draw()
    }

    /// The time as of which keys are absent or there.
    pub fn now(&self) -> Millis {
        self.now
    }

    /// The last millisecond whose deadlines have passed: [`Store::passed`].
    pub fn passed(&self) -> Millis {
        self.store.passed(self.now)
    }

    /// The database, 0 to 15.
    pub fn db(&self) -> u8 {
        self.db
    }

    /// The whole store.
    pub fn store(&self) -> &'a Store {
        self.store
    }

    /// The same store seen from another database.
    pub fn of(&self, db: u8) -> View<'a> {
        View { db, ..*self }
    }

    /// A key's slot, if it is there and has not ended: for those who use it.
    pub fn slot(&self, key: &[u8]) -> Option<&'a Slot> {
        let slot = self.glance(key);
        if !self.quiet {
            slot.inspect(|slot| self.touch(slot));
        }
        slot
    }

    /// The same for those who only ask about it, which is no use of it: `TTL`, `TYPE`, `OBJECT` … Redis: `LOOKUP_NOTOUCH`.
    pub fn glance(&self, key: &[u8]) -> Option<&'a Slot> {
        let slot = self.find(key);
        if self.seed.is_none() {
            let lookups = if slot.is_some() {
                &self.store.lookups.hits
            } else {
                &self.store.lookups.misses
            };
            lookups.fetch_add(1, Ordering::Relaxed);
        }
        slot
    }

    /// The same for us: nobody has looked for it.
    pub fn find(&self, key: &[u8]) -> Option<&'a Slot> {
        self.store.slot(self.db, key).filter(|slot| self.lives(slot))
    }

    /// Notes that a key is used, if it is there.
    pub fn note_use(&self, key: &[u8]) {
        self.find(key).inspect(|slot| self.touch(slot));
    }

    fn touch(&self, slot: &Slot) {
        slot.recency
            .touch(self.now, &self.store.settings, || self.store.draw());
    }

    /// When a key was last used and how often, as far as this node knows; asking is no use.
    pub fn last_use(&self, key: &[u8]) -> Option<Use> {
        self.find(key)
            .map(|slot| slot.recency.at(self.now, &self.store.settings))
    }

    /// Whether a key has ended and was not removed yet.
    pub fn is_overdue(&self, key: &[u8]) -> bool {
        self.store
            .slot(self.db, key)
            .is_some_and(|slot| !self.lives(slot))
    }

    fn lives(&self, slot: &Slot) -> bool {
        slot.deadline().is_none_or(|deadline| deadline > self.passed())
    }

    /// A key's value.
    pub fn get(&self, key: &[u8]) -> Option<&'a Value> {
        self.slot(key).map(|slot| &slot.value)
    }

    /// Bytes of a key: its name, its value and what they cost.
    pub fn bytes_of(&self, key: &[u8]) -> Option<usize> {
        self.find(key)
            .map(|slot| key.len() + slot.value.bytes() + OVERHEAD_BYTES)
    }

    /// 128 bits over what a key holds: equal for what a snapshot would write alike.
    pub fn digest_of(&self, key: &[u8]) -> Option<u128> {
        self.find(key).map(|slot| super::snapshot::digest_of(&slot.value))
    }

    /// A key's version; 0 if it is absent.
    pub fn version(&self, key: &[u8]) -> u64 {
        self.find(key).map_or(0, |slot| slot.version)
    }

    /// The string under a key.
    ///
    /// # Errors
    /// `WrongType`.
    pub fn string(&self, key: &[u8]) -> Result<Option<&'a Str>, CommandError> {
        self.get(key).map(Value::as_string).transpose()
    }

    /// What is under a key, if it is of this type.
    ///
    /// # Errors
    /// `WrongType`.
    pub fn kind<K: Kind>(&self, key: &[u8]) -> Result<Option<&'a K>, CommandError> {
        self.get(key).map(Value::as_kind).transpose()
    }

    /// The hash under a key, without the fields that have ended; `WrongType`.
    pub fn hash(&self, key: &[u8]) -> Result<Option<Living<'a>>, CommandError> {
        let hash = self.kind::<Hash>(key)?;
        Ok(hash.map(|hash| hash.after(self.passed())))
    }

    /// The session under a key; `WrongType`. What stays under an id that it had before is there as long as the session itself.
    pub fn session(&self, key: &[u8]) -> Result<Option<&'a Session>, CommandError> {
        let session: Option<&Session> = self.kind(key)?;
        Ok(session.filter(|session| self.goes_on(session)))
    }

    /// Whether a session is there, or goes on under the id it has now.
    pub fn goes_on(&self, session: &Session) -> bool {
        !session.is_retired()
            || self
                .renamed(session)
                .last()
                .is_some_and(|last| !last.is_retired())
    }

    /// What is under a key of a session, and under those it had after that, up to the one it has now.
    pub fn renamed<'s>(&self, session: &'s Session) -> impl Iterator<Item = &'s Session> + use<'s, 'a>
    where
        'a: 's,
    {
        let view = *self;
        let next = move |session: &&'s Session| {
            let successor = session.is_retired().then(|| view.kind(&session.successor));
            successor?.ok()?
        };
        std::iter::successors(Some(session), next).take(RENAMED_MAX)
    }

    /// The keys of the sessions of an owner, oldest first.
    pub fn sessions_of(&self, owner: &Bytes) -> impl Iterator<Item = &'a Bytes> {
        let view = *self;
        let owned = self.store.owned(self.db, owner);
        owned.filter(move |key| view.find(key).is_some())
    }

    /// The list under a key; `WrongType`.
    pub fn list(&self, key: &[u8]) -> Result<Option<&'a List>, CommandError> {
        self.kind(key)
    }

    /// The set under a key; `WrongType`.
    pub fn set(&self, key: &[u8]) -> Result<Option<&'a Set>, CommandError> {
        self.kind(key)
    }

    /// The sorted set under a key; `WrongType`.
    pub fn zset(&self, key: &[u8]) -> Result<Option<&'a Zset>, CommandError> {
        self.kind(key)
    }

    /// The stream under a key; `WrongType`.
    pub fn stream(&self, key: &[u8]) -> Result<Option<&'a Stream>, CommandError> {
        self.kind(key)
    }

    /// What all nodes agreed on by `CONFIG SET`.
    pub fn settings(&self) -> &'a Settings {
        &self.store.settings
    }

    /// Every living key of this database, in the order of shards.
    pub fn keys(&self) -> impl Iterator<Item = (&'a [u8], &'a Slot)> {
        let view = *self;
        self.store.databases[usize::from(self.db)]
            .shards
            .iter()
            .flat_map(|shard| shard.iter())
            .filter(move |(_, slot)| view.lives(slot))
    }

    /// Up to about `count` keys from `cursor` on (0 begins), and the cursor to go on with (0 ends).
    ///
    /// Every key that is there from the first call to the last is seen: a shard is walked from its end, and a removal moves only
    /// its last key, which was seen already. Cursors are the same on every node and stay below 2^53.
    pub fn scan(&self, cursor: u64, count: usize) -> (u64, Vec<(&'a [u8], &'a Slot)>) {
        let shards = &self.store.databases[usize::from(self.db)].shards;
        let mut found = Vec::new();
        // A cursor is `shard << 32 | keys of it still to see, plus 1`; a low half of 0 means the whole shard.
        let (mut index, mut rest) = ((cursor >> 32) as usize, (cursor & 0xffff_ffff) as usize);
        let mut seen = 0;
        while let Some(shard) = shards.get(index) {
            let mut left = if rest == 0 {
                shard.len()
            } else {
                (rest - 1).min(shard.len())
            };
            while left > 0 {
                if seen >= count {
                    return (((index as u64) << 32) | (left as u64 + 1), found);
                }
                left -= 1;
                seen += 1;
                found.extend(shard.at(left).filter(|(_, slot)| self.lives(slot)));
            }
            (index, rest) = (index + 1, 0);
        }
        (0, found)
    }

    /// A key by chance, drawn from `seed`; none if the database has no living key.
    pub fn random_key(&self, seed: u64) -> Option<&'a [u8]> {
        let shards = &self.store.databases[usize::from(self.db)].shards;
        let total = self.store.databases[usize::from(self.db)].keys;
        if total == 0 {
            return None;
        }
        let mut skip = usize::try_from(seed % total as u64).expect("below a usize");
        let nth = shards.iter().find_map(|shard| {
            let found = shard.at(skip);
            skip = skip.saturating_sub(shard.len());
            found
        });
        // A dead one was drawn: any living one will do.
        nth.filter(|(_, slot)| self.lives(slot))
            .map(|(key, _)| key)
            .or_else(|| self.keys().next().map(|(key, _)| key))
    }
}

/// Under what circumstances a command that changes runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Call {
    /// Where its chance comes from.
    pub(super) seed: u64,
    /// The node and start that can be made to wait; none inside transactions and scripts.
    pub(super) caller: Option<(u64, u64)>,
    /// It waited, and this key was changed.
    pub(super) ready: Option<Bytes>,
    /// The time to count as now, where it is not the log's clock: when a script was evaluated.
    pub(super) now: Option<Millis>,
    /// Bytes that the answers before it in its entry take: beyond [`Reply::BYTES_MAX`] no more are given.
    pub(super) answered: usize,
}

impl Call {
    /// Whether answers may be given no more, save small ones.
    pub(super) fn is_full(&self) -> bool {
        self.answered >= Reply::BYTES_MAX
    }

    /// What is told of a command that has run: its answer, where there is room for that. There always is for one that holds no bytes and no other.
    #[inline]
    pub(super) fn told(&mut self, reply: Reply) -> Reply {
        if reply.is_small() {
            reply
        } else {
            self.told_large(reply)
        }
    }

    fn told_large(&mut self, reply: Reply) -> Reply {
        if self.is_full() {
            return Reply::Error(CommandError::text(
                "UNKNOWN it was applied: its answer is not told, for those before it take all that the answers of one entry may",
            ));
        }
        self.answered = self.answered.saturating_add(reply.bytes());
        reply
    }
}

/// Changes one database at the log's clock. Every change of a key stamps its version and counts its bytes.
#[derive(Debug)]
pub struct Keyspace<'a> {
    store: &'a mut Store,
    db: u8,
    call: Call,
}

impl Keyspace<'_> {
    /// The log's clock: what "now" means to a command that changes something.
    pub fn now(&self) -> Millis {
        self.call.now.unwrap_or(self.store.clock)
    }

    /// The last millisecond whose deadlines have passed: [`Store::passed`].
    pub fn passed(&self) -> Millis {
        self.store.passed(self.now())
    }

    /// The database, 0 to 15.
    pub fn db(&self) -> u8 {
        self.db
    }

    /// Of the keys a blocking command names, those to look at: all; or, when it waited and is run again, the one that was changed.
    pub fn candidates<'k>(&'k self, keys: &'k [Bytes]) -> &'k [Bytes] {
        self.call.ready.as_ref().map_or(keys, std::slice::from_ref)
    }

    /// Whether the command at hand waited, and is run again because a key was changed.
    pub fn waited(&self) -> bool {
        self.call.ready.is_some()
    }

    /// The answer of a command that found nothing: it waits, until one of `keys` is changed or `deadline` has come (none: for ever), and
    /// is run again as `argv` says. Where nobody can wait (transactions, scripts) it answers `otherwise` at once.
    pub fn wait_for(
        &mut self,
        keys: &[Bytes],
        argv: &[Bytes],
        deadline: Option<Millis>,
        otherwise: Otherwise,
    ) -> Reply {
        self.wait(keys, argv, deadline, otherwise, false)
    }

    /// [`Keyspace::wait_for`], run again also when a key is gone.
    pub fn wait_even_if_gone(
        &mut self,
        keys: &[Bytes],
        argv: &[Bytes],
        deadline: Option<Millis>,
        otherwise: Otherwise,
    ) -> Reply {
        self.wait(keys, argv, deadline, otherwise, true)
    }

    fn wait(
        &mut self,
        keys: &[Bytes],
        argv: &[Bytes],
        deadline: Option<Millis>,
        otherwise: Otherwise,
        even_if_gone: bool,
    ) -> Reply {
        if self.waited() {
            return Reply::Waiting(0);
        }
        let Some(caller) = self.call.caller else {
            return otherwise.into();
        };
        let bytes: usize = argv.iter().map(Bytes::len).sum();
        if (keys.len() > WAIT_KEYS_MAX || bytes > WAIT_BYTES_MAX) && self.store.settings.level > 3 {
            return Reply::Error(CommandError::Other(
                format!(
                    "ERR a command that waits has at most {WAIT_KEYS_MAX} keys, and {WAIT_BYTES_MAX} bytes"
                )
                .into(),
            ));
        }
        // A command keeps none of the buffer it came in.
        let copies = |list: &[Bytes]| list.iter().map(|bytes| Bytes::copy_from_slice(bytes)).collect();
        let wait = Wait {
            caller,
            db: self.db,
            keys: copies(keys),
            argv: copies(argv),
            deadline,
            otherwise,
            even_if_gone,
        };
        Reply::Waiting(self.store.waiting.add(wait))
    }

    /// A fresh number by chance: the same on every node.
    pub fn random(&mut self) -> u64 {
        let mut chance = Chance::new(self.call.seed);
        let number = chance.draw();
        self.call.seed = chance.0;
        number
    }

    /// What a reader of this database sees now.
    pub fn view(&self) -> View<'_> {
        self.store.view(self.db, self.now()).with_seed(self.call.seed)
    }

    /// Who may do what, to be changed.
    pub(super) fn access_mut(&mut self) -> &mut Access {
        self.store.access_mut()
    }

    /// What all nodes agreed on by `CONFIG SET`.
    pub fn settings(&self) -> &Settings {
        &self.store.settings
    }

    /// Tells of a keyspace event, by the name Redis has for it. A command calls it after its change; that the change emptied a
    /// key is told after it, by itself.
    pub fn notify(&mut self, class: Classes, event: &str, key: &[u8]) {
        self.store.notify(self.db, class, event, key);
        if self
            .store
            .emptied
            .as_ref()
            .is_some_and(|(db, emptied)| *db == self.db && emptied == key)
        {
            self.store.tell_emptied();
        }
    }

    /// Sends a message to the subscribers of a channel on every node.
    pub fn publish(&mut self, channel: &Bytes, message: &Bytes, sharded: bool) {
        let (channel, message) = (channel.clone(), message.clone());
        self.store.tell(Event::Message {
            channel,
            message,
            sharded,
        });
    }

    /// The same store, changed in another database.
    pub fn of(&mut self, db: u8) -> Keyspace<'_> {
        let call = Call {
            seed: self.call.seed ^ u64::from(db),
            ..self.call.clone()
        };
        self.store.call(db, call)
    }

    /// Puts a value; a deadline the key had is gone.
    pub fn put(&mut self, key: &[u8], value: Value) {
        self.store.insert_slot(self.db, key, value, End::NEVER);
    }

    /// Puts a value with a deadline. One that has passed removes the key instead.
    pub fn put_until(&mut self, key: &[u8], value: Value, end: impl Into<End>) {
        let end = end.into();
        if end.deadline().is_some_and(|deadline| deadline <= self.now()) {
            self.remove(key);
        } else {
            self.store.insert_slot(self.db, key, value, end);
        }
    }

    /// The end of a key that is given this life, in milliseconds, now: with the slack that the settings leave it. Sessions have a slack of their own.
    pub fn end_after(&self, key: &[u8], life: Millis) -> End {
        let slack = self.settings().expire_slack_ms(key, life);
        let is_session = |slot: &Slot| slot.value.is_session();
        match slack {
            1.. if self.view().find(key).is_some_and(is_session) => End::after(life, self.now(), 0),
            slack => End::after(life, self.now(), slack),
        }
    }

    /// Writes down that a key was used at this time, if it still has this life: it then ends so long after that, and its slack. Whether it did not
    /// end as late before.
    pub fn renew(&mut self, key: &[u8], life: Millis, used_at: Millis) -> bool {
        let slack = self.settings().expire_slack_ms(key, life);
        let renewed = End::after(life, used_at.min(self.now()), slack);
        let is_later = |slot: &Slot| {
            slack > 0
                && slot.end.life() == life
                && slot.deadline().is_some_and(|at| Some(at) < renewed.deadline())
        };
        self.view().find(key).is_some_and(is_later) && self.set_deadline(key, renewed)
    }

    /// Puts a value; the deadline stays.
    pub fn put_keeping_deadline(&mut self, key: &[u8], value: Value) {
        let end = self.view().slot(key).map_or(End::NEVER, |slot| slot.end);
        self.store.insert_slot(self.db, key, value, end);
    }

    /// Removes a key. Its slot, if it was there.
    pub fn remove(&mut self, key: &[u8]) -> Option<Slot> {
        self.remove_for(key, Reason::Administrator)
    }

    /// The same, with the reason why a session ended so.
    pub fn remove_for(&mut self, key: &[u8], reason: Reason) -> Option<Slot> {
        let slot = self.move_away(key, reason)?;
        self.store.freeing.value(&slot.value);
        Some(slot)
    }

    /// The same for what somebody else goes on to hold.
    pub fn move_away(&mut self, key: &[u8], reason: Reason) -> Option<Slot> {
        let (slot, lived) = self.take(key)?;
        self.store.tell_session_end(self.db, key, &slot, reason);
        lived.then_some(slot)
    }

    /// Removes a key without a word of what it means to sessions. Its slot, and whether it had not ended.
    fn take(&mut self, key: &[u8]) -> Option<(Slot, bool)> {
        let lived = self.view().slot(key).is_some();
        let slot = self.store.remove_slot(self.db, key)?;
        if !lived {
            self.store.note_expired(self.db, key);
        }
        Some((slot, lived))
    }

    /// Puts what became of the living session under a key.
    pub fn change_session(&mut self, key: &[u8], session: Session, deadline: Option<Millis>) {
        if deadline.is_some_and(|deadline| deadline <= self.passed()) {
            self.remove_for(key, Reason::Absolute);
        } else {
            self.store
                .insert_untold(self.db, key, session.into_value(), deadline.into());
        }
    }

    /// The version that the next change gives its key; a lock's token is made of it.
    pub fn next_version(&self) -> u64 {
        self.store.revision + 1
    }

    /// Gives a living session another key, which must be free. `old`, if anything, stays under the one it had until its deadline.
    pub fn rename_session(&mut self, from: &[u8], to: &[u8], old: Option<(Session, Option<Millis>)>) {
        let Some((slot, true)) = self.take(from) else {
            return;
        };
        if let Some((copy, deadline)) = old {
            self.store
                .insert_untold(self.db, from, copy.into_value(), deadline.into());
        }
        self.put_renamed(from, to, slot);
    }

    /// Puts the slot that was under `from`.
    fn put_renamed(&mut self, from: &[u8], to: &[u8], slot: Slot) {
        let replaced = self
            .store
            .insert_untold(self.db, to, slot.value.clone(), slot.end);
        replaced.inspect(|old| self.store.tell_session_end(self.db, to, old, Reason::Replaced));
        if let Value::Session(session) = &slot.value {
            let what = What::Renamed(Bytes::copy_from_slice(from));
            self.store.tell_session(self.db, to, session, what);
        }
        self.inherit_use(to, &slot.recency);
    }

    /// The node and start that the command at hand came from; none inside transactions and scripts.
    pub fn caller(&self) -> Option<(u64, u64)> {
        self.call.caller
    }

    /// Whether a command of this name, which waits in a line, waits for a key before the one at hand: nobody does before one that is run again.
    pub fn others_wait(&self, key: &Bytes, name: &[u8]) -> bool {
        !self.waited() && self.store.waiting.any(self.db, key, name)
    }

    /// Sets or takes away a living key's deadline; one that has passed removes the key. Whether the key was there.
    pub fn set_deadline(&mut self, key: &[u8], end: impl Into<End>) -> bool {
        let end = end.into();
        let (Some(old), deadline) = (self.view().slot(key).map(Slot::deadline), end.deadline()) else {
            return false;
        };
        if deadline.is_some_and(|deadline| deadline <= self.now()) {
            self.remove(key);
            return true;
        }
        self.store.revision += 1;
        let revision = self.store.revision;
        let slot = self.store.slot_mut(self.db, key).expect("seen just above");
        (slot.end, slot.version) = (end, revision);
        let session = slot.value.is_session();
        let database = &mut self.store.databases[usize::from(self.db)];
        for (count, counts) in [
            (&mut database.with_deadline, true),
            (&mut database.sessions_with_deadline, session),
        ] {
            *count += usize::from(counts && deadline.is_some());
            *count -= usize::from(counts && old.is_some());
        }
        self.store.move_deadline(self.db, key, old, deadline);
        self.store.changed(self.db, key);
        true
    }

    /// Changes the value of a living key in place; the deadline stays. `None` if the key is absent.
    ///
    /// An aggregate that is empty afterwards is removed, as in Redis.
    pub fn change<R>(&mut self, key: &[u8], change: impl FnOnce(&mut Value) -> R) -> Option<R> {
        self.view().slot(key)?;
        self.store.revision += 1;
        let (revision, settings) = (self.store.revision, self.store.settings.clone());
        let slot = self.store.slot_mut(self.db, key).expect("seen just above");
        let (before, first) = (slot.value.bytes(), slot.value.first_deadline());
        let result = change(&mut slot.value);
        slot.value.settle(&settings);
        slot.version = revision;
        let (after, gone) = (slot.value.bytes(), slot.value.is_gone());
        let next = slot.value.first_deadline();
        let bytes = &mut self.store.databases[usize::from(self.db)].bytes;
        *bytes = *bytes + after - before;
        self.store.move_field_deadline(self.db, key, first, next);
        if gone {
            self.remove(key);
            self.store.tell_emptied();
            self.store.emptied = Some((self.db, Bytes::copy_from_slice(key)));
        } else {
            self.store.changed(self.db, key);
        }
        Some(result)
    }

    /// Changes what is under a key, which is made if absent and removed if empty afterwards.
    ///
    /// # Errors
    /// `WrongType`, and nothing has changed.
    pub fn change_kind<K: Kind, R>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut K) -> R,
    ) -> Result<R, CommandError> {
        if self.view().kind::<K>(key)?.is_none() {
            self.put(key, K::default().into_value());
        }
        let result = self.change(key, |value| {
            change(K::of_mut(value).expect("of this type: checked above"))
        });
        Ok(result.expect("there: checked above"))
    }

    /// [`Keyspace::change_kind`] of a hash, whose fields that have ended are removed before.
    pub fn change_hash<R>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut Hash) -> R,
    ) -> Result<R, CommandError> {
        if self.view().slot(key).is_some() {
            // Up to format 3 by the log's clock, though a script was told what was so a little before.
            let now = if self.store.settings.level > 3 {
                self.now()
            } else {
                self.store.clock
            };
            let passed = self.store.passed(now);
            self.store.remove_ended_fields(self.db, key, usize::MAX, passed);
        }
        self.change_kind(key, change)
    }

    /// Moves a key, deadline and all, over whatever is at `to`. Whether `from` was there.
    pub fn rename(&mut self, from: &[u8], to: &[u8]) -> bool {
        match self.take(from) {
            Some((slot, true)) => self.put_renamed(from, to, slot),
            Some((slot, false)) => {
                self.store.tell_session_end(self.db, from, &slot, Reason::Idle);
                return false;
            }
            None => return false,
        }
        true
    }

    /// A key takes over what is known of the use of another, whose value it has.
    pub fn inherit_use(&mut self, key: &[u8], of: &Recency) {
        self.view().find(key).inspect(|slot| slot.recency.inherit(of));
    }

    /// Sets how long a key has not been used (in milliseconds), or how often it is used, whichever the policy goes by.
    pub fn set_use(&mut self, key: &[u8], idle_ms: Option<u64>, frequency: Option<u8>) {
        let (now, counts) = (self.now(), self.settings().maxmemory_policy.counts_uses());
        let view = self.view();
        let Some(slot) = view.find(key) else { return };
        match (idle_ms, frequency) {
            (_, Some(frequency)) if counts => slot.recency.set_frequency(now, frequency),
            (Some(idle_ms), _) if !counts => slot.recency.set_idle(now, idle_ms),
            _ => {}
        }
    }

    /// Empties this database. How many keys went.
    pub fn flush(&mut self) -> usize {
        let db = self.db;
        let empty = Database::new();
        let old = std::mem::replace(&mut self.store.databases[usize::from(db)], empty);
        self.store.revision += 1;
        self.store.tell_emptied_sessions(db, &old);
        self.store.flushed(db);
        let keys = old.keys;
        self.store.free_database(db, old);
        keys
    }

    /// Exchanges two databases.
    pub fn swap(&mut self, left: u8, right: u8) {
        if left == right {
            return;
        }
        self.store.databases.swap(usize::from(left), usize::from(right));
        self.store.revision += 1;
        self.store.flushed(left);
        self.store.flushed(right);
        self.store.deadlines.swap(left, right);
        self.store.field_deadlines.swap(left, right);
        self.store.owned.swap(usize::from(left), usize::from(right));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::value::session::{Holder, Mode};
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet, HashMap};

    /// Something that happens to one of a few keys in one of two databases.
    #[derive(Clone, Debug)]
    enum Change {
        Put(u8, String, Option<Millis>),
        Keep(u8),
        Remove(u8),
        Deadline(u8, Option<Millis>),
        Append(u8, usize),
        Field(u8, u8, usize),
        Unfield(u8, u8),
        FieldDeadline(u8, u8, Option<Millis>),
        Session(u8, u8, Option<Millis>),
        Lock(u8, Millis),
        Rename(u8, u8),
        Swap,
        Flush,
        Advance(Millis),
    }

    fn change() -> impl Strategy<Value = (u8, Change)> {
        let key = || 0u8..12;
        let deadline = || proptest::option::of(0u64..400);
        let change = prop_oneof![
            4 => (key(), "[a-z]{0,8}", deadline()).prop_map(|(key, text, at)| Change::Put(key, text, at)),
            1 => key().prop_map(Change::Keep),
            2 => key().prop_map(Change::Remove),
            2 => (key(), deadline()).prop_map(|(key, at)| Change::Deadline(key, at)),
            2 => (key(), 0usize..100).prop_map(|(key, count)| Change::Append(key, count)),
            3 => (key(), 0u8..4, 0usize..100).prop_map(|(key, field, count)| Change::Field(key, field, count)),
            2 => (key(), 0u8..4).prop_map(|(key, field)| Change::Unfield(key, field)),
            2 => (key(), 0u8..4, deadline()).prop_map(|(key, field, at)| Change::FieldDeadline(key, field, at)),
            2 => (key(), 0u8..4, deadline()).prop_map(|(key, owner, at)| Change::Session(key, owner, at)),
            2 => (key(), 1u64..400).prop_map(|(key, at)| Change::Lock(key, at)),
            1 => (key(), key()).prop_map(|(from, to)| Change::Rename(from, to)),
            1 => Just(Change::Swap),
            1 => Just(Change::Flush),
            1 => (0u64..40).prop_map(Change::Advance),
        ];
        (0u8..2, change)
    }

    fn name(key: u8) -> Vec<u8> {
        format!("key {key}").into_bytes()
    }

    fn apply(store: &mut Store, db: u8, change: &Change) {
        if let Change::Advance(by) = change {
            return store.advance(store.clock() + by, 500);
        }
        let mut keys = store.keyspace(db, 0);
        match change {
            Change::Put(key, text, at) => keys.put_until(&name(*key), Value::string(text.as_bytes()), *at),
            Change::Keep(key) => keys.put_keeping_deadline(&name(*key), Value::string(b"kept")),
            Change::Remove(key) => drop(keys.remove(&name(*key))),
            Change::Deadline(key, at) => drop(keys.set_deadline(&name(*key), *at)),
            Change::Append(key, count) => drop(keys.change(&name(*key), |value| {
                if let Value::String(string) = value {
                    string.change(|bytes| bytes.resize(bytes.len() + count, b'+'));
                }
            })),
            Change::Field(key, field, count) => {
                drop(keys.change_hash(&name(*key), |hash| hash.set(&[*field], &vec![b'x'; *count])));
            }
            Change::Unfield(key, field) => drop(keys.change_hash(&name(*key), |hash| hash.remove(&[*field]))),
            Change::FieldDeadline(key, field, at) => {
                drop(keys.change_hash(&name(*key), |hash| hash.set_deadline(&[*field], *at)));
            }
            Change::Session(key, owner, at) => {
                let renamed = *owner == 3;
                let session = Session {
                    owner: Bytes::copy_from_slice(&vec![b'o'; usize::from(*owner)]),
                    successor: if renamed {
                        b"new"[..].into()
                    } else {
                        Box::default()
                    },
                    ..Session::default()
                };
                keys.put_until(&name(*key), session.into_value(), *at);
            }
            Change::Lock(key, at) => {
                let session = keys.view().session(&name(*key)).ok().flatten().cloned();
                if let Some(mut session) = session {
                    session.lock.give(Holder {
                        token: keys.next_version(),
                        mode: Mode::Shared,
                        text: Bytes::from_static(b"me"),
                        since: 0,
                        deadline: *at,
                        bound: None,
                    });
                    session.owner = Bytes::from_static(b"locker");
                    keys.change_session(&name(*key), session, None);
                }
            }
            Change::Rename(from, to) if from != to => drop(keys.rename(&name(*from), &name(*to))),
            Change::Rename(..) | Change::Advance(_) => {}
            Change::Swap => keys.swap(0, 1),
            Change::Flush => drop(keys.flush()),
        }
    }

    /// Every count is what counting anew comes to.
    fn recount(store: &Store) {
        let (mut deadlines, mut field_deadlines) = (Deadlines::default(), FieldDeadlines::default());
        let (mut bytes, mut keys, mut with_deadline) = (0, HashMap::new(), HashMap::new());
        let (mut sessions, mut sessions_with_deadline) = (HashMap::new(), HashMap::new());
        let mut owned: [BTreeSet<Owned>; DATABASES] = Default::default();
        let mut retired = HashMap::new();
        for (db, key, slot) in store.slots() {
            let key = Bytes::copy_from_slice(key);
            let content: usize = match &slot.value {
                Value::String(string) => string.bytes().len(),
                Value::Hash(hash) => {
                    field_deadlines.shift(db, key.clone(), None, hash.first_deadline());
                    let of_deadline = |field: &[u8]| if hash.deadline(field).is_some() { 112 } else { 0 };
                    let size =
                        |(field, value): (&[u8], &[u8])| 192 + field.len() + value.len() + of_deadline(field);
                    hash.iter().map(size).sum()
                }
                other => other.bytes(),
            };
            bytes += key.len() + content + OVERHEAD_BYTES;
            *keys.entry(db).or_insert(0) += 1;
            if let Value::Session(session) = &slot.value {
                field_deadlines.shift(db, key.clone(), None, session.first_deadline());
                if session.is_retired() {
                    *retired.entry(db).or_insert(0) += 1;
                } else if !session.owner.is_empty() {
                    owned[usize::from(db)].insert((session.owner.clone(), session.created_at, key.clone()));
                }
                *sessions.entry(db).or_insert(0) += 1;
                *sessions_with_deadline.entry(db).or_insert(0) += usize::from(slot.deadline().is_some());
            }
            if let Some(deadline) = slot.deadline() {
                *with_deadline.entry(db).or_insert(0) += 1;
                deadlines.add((deadline, db, store.hasher.place(&key).0));
            }
            assert!(!slot.value.is_gone(), "an empty hash is never kept");
        }
        assert_eq!(store.bytes(), bytes);
        assert_eq!(store.deadlines, deadlines);
        assert_eq!(store.field_deadlines, field_deadlines);
        assert_eq!(store.owned, owned);
        for db in 0..2 {
            let count = |of: &HashMap<u8, usize>| of.get(&db).copied().unwrap_or(0);
            assert_eq!(
                store.counts(db),
                (count(&keys), count(&with_deadline)),
                "database {db}"
            );
            let database = &store.databases[usize::from(db)];
            assert_eq!(
                (
                    database.sessions,
                    database.sessions_with_deadline,
                    database.retired
                ),
                (count(&sessions), count(&sessions_with_deadline), count(&retired)),
                "sessions of database {db}"
            );
        }
    }

    type State = BTreeMap<(u8, Vec<u8>), Slot>;

    fn state(store: &Store) -> State {
        store
            .slots()
            .map(|(db, key, slot)| ((db, key.to_vec()), slot.clone()))
            .collect()
    }

    #[test]
    fn of_many_sessions_that_go_at_once_the_last_are_told_of_as_if_all_were() {
        let emptied = |classes: &str| {
            let mut store = Store::new(7);
            store.settings_mut().notify_keyspace_events = Classes::parse(classes).expect("letters");
            for key in 0..EVENTS_MAX + 100 {
                let renamed = key % 1_000 == 0;
                let session = Session {
                    successor: if renamed {
                        b"new"[..].into()
                    } else {
                        Box::default()
                    },
                    ..Session::default()
                };
                let key = format!("session {key}");
                store
                    .keyspace(1, 0)
                    .put_until(key.as_bytes(), session.into_value(), None);
            }
            store.take_events();
            store.keyspace(1, 0).flush();
            let told = store.take_events().len();
            (store.session_events.to_bytes(), store.session_events.last(), told)
        };
        let (few, last, few_told) = emptied("");
        let (all, _, all_told) = emptied("Kd");
        assert_eq!(few, all);
        // Each was made, and ended, but for eleven that have another name.
        assert_eq!(last, 2 * (EVENTS_MAX as u64 + 100 - 11));
        assert_eq!((few_told, all_told), (EVENTS_MAX, 2 * (EVENTS_MAX + 100 - 11)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn counts_are_what_counting_anew_comes_to(changes in prop::collection::vec(change(), 1..60)) {
            let mut store = Store::new(7);
            for (db, change) in &changes {
                apply(&mut store, *db, change);
                recount(&store);
            }
        }

        #[test]
        fn a_frozen_copy_stays_as_it_was(before in prop::collection::vec(change(), 1..30), after in prop::collection::vec(change(), 1..30)) {
            let mut store = Store::new(7);
            before.iter().for_each(|(db, change)| apply(&mut store, *db, change));
            let (frozen, was, revision) = (store.freeze(), state(&store), store.revision());
            after.iter().for_each(|(db, change)| apply(&mut store, *db, change));
            prop_assert_eq!(state(&frozen), was);
            prop_assert_eq!(frozen.revision(), revision);
        }

        #[test]
        fn a_version_never_stands_for_two_states_of_a_key(changes in prop::collection::vec(change(), 1..60)) {
            let mut store = Store::new(7);
            let mut seen: HashMap<(u8, Vec<u8>, u64), Slot> = HashMap::new();
            for (db, change) in &changes {
                apply(&mut store, *db, change);
                for ((db, key), slot) in state(&store) {
                    prop_assert!(slot.version > 0, "0 is for what is absent");
                    let before = seen.entry((db, key, slot.version)).or_insert_with(|| slot.clone());
                    prop_assert_eq!(&*before, &slot);
                }
            }
        }

        /// SCAN's promise: whoever is there from the first call to the last is seen, whatever comes and goes meanwhile.
        #[test]
        fn a_scan_sees_every_key_that_stays(
            meanwhile in prop::collection::vec((0u32..6_000, any::<bool>()), 0..4_000),
            count in 1usize..300,
        ) {
            let mut store = Store::new(7);
            // So many that shards hold several: they are where keys move.
            for key in 0u32..4_000 {
                store.keyspace(0, 0).put(&key.to_le_bytes(), Value::string(b""));
            }
            let mut stay: BTreeSet<u32> = (0..4_000).collect();
            let mut seen = BTreeSet::new();
            let mut meanwhile = meanwhile.into_iter();
            let mut cursor = 0;
            for _ in 0..10_000 {
                let (next, found) = store.view(0, 0).scan(cursor, count);
                prop_assert!(found.len() <= count && next < 1 << 53);
                seen.extend(found.iter().map(|(key, _)| u32::from_le_bytes(key[..].try_into().unwrap())));
                cursor = next;
                if cursor == 0 {
                    break;
                }
                for (key, put) in meanwhile.by_ref().take(count) {
                    let mut keys = store.keyspace(0, 0);
                    if put {
                        keys.put(&key.to_le_bytes(), Value::string(b""));
                    } else {
                        keys.remove(&key.to_le_bytes());
                        stay.remove(&key);
                    }
                }
            }
            prop_assert_eq!(cursor, 0, "it ends");
            prop_assert!(stay.is_subset(&seen));
        }
    }

    #[test]
    fn an_entry_removes_a_bounded_number_of_ended_keys() {
        let mut store = Store::new(7);
        let (most, all) = (500, 510_u64);
        for key in 0..all {
            store
                .keyspace(0, 0)
                .put_until(&key.to_le_bytes(), Value::string(b""), Some(5));
        }
        store.advance(5, most);
        assert_eq!((store.counts(0).0, store.expired()), (10, 500));
        assert_eq!(
            store.view(0, 5).keys().count(),
            0,
            "the rest are absent all the same"
        );
        assert_eq!(store.view(0, 5).random_key(3), None);
        store.advance(5, most);
        assert_eq!(
            (store.counts(0).0, store.expired(), store.next_deadline()),
            (0, all, None)
        );
    }

    #[test]
    fn what_ended_is_counted_once_however_it_is_found() {
        let ended = |find: fn(&mut Keyspace<'_>)| {
            let mut store = Store::new(7);
            store.keyspace(0, 0).put_until(b"k", Value::string(b""), Some(5));
            store.clock = 5;
            find(&mut store.keyspace(0, 0));
            store.advance(6, 1);
            store.expired()
        };
        assert_eq!(ended(|_| {}), 1);
        assert_eq!(ended(|keys| drop(keys.remove(b"k"))), 1);
        assert_eq!(ended(|keys| keys.put(b"k", Value::string(b""))), 1);
        assert_eq!(
            ended(|keys| drop(keys.change_hash(b"k", |hash| hash.set(b"f", b"v")))),
            1
        );
    }

    #[test]
    fn keys_are_spread_over_shards_and_within_them() {
        let store = Store::new(7);
        let mut shards = vec![0; SHARDS];
        let mut low_bits = BTreeSet::new();
        for key in 0u32..50_000 {
            let (hash, shard) = store.hasher.place(&key.to_le_bytes());
            shards[shard] += 1;
            if shard == 0 {
                low_bits.insert(hash % 16);
            }
        }
        assert!(shards.iter().all(|count| (10..120).contains(count)));
        assert!(
            low_bits.len() > 8,
            "a shard must not see all its keys begin in one place"
        );
    }
}
