//! Applies entries to the machine, answers waiting callers, takes and installs snapshots. Knows nothing of what commands mean.
//!
//! The machine lives in memory. At start the newest snapshot is loaded here, then openraft applies the committed rest of the log.

use super::answers::Answers;
use super::fault::Fault;
use super::freeing::Freeing;
use super::fullness::Fullness;
use super::ground::beside;
use super::log::LogReader;
use super::rests::Rests;
use super::snapshot_store::{SnapshotFile, SnapshotMeta, SnapshotStore};
use super::{Group, LogId, Types};
use crate::error::Error;
use crate::machine::args::Lists;
use crate::machine::entry::{self, Millis, Origin};
use crate::machine::{Machine, Outcome, snapshot};
use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::type_config::alias::{SnapshotOf, StoredMembershipOf};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::{Mutex, RwLock};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

type StoredMembership = StoredMembershipOf<Types>;

/// The state as the rest of the node sees it. Clones are the same state.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// One writer (apply, one group at a time) and many readers, each for one command: nobody holds it over an await, and as
    /// it is let go between two groups a long apply starves no reader.
    machine: Arc<RwLock<Machine>>,
    clock: Arc<Clock>,
    /// The index applied last, as readers look at it without a lock.
    index: Arc<AtomicU64>,
    applied: watch::Receiver<u64>,
    /// The revision of who may do what: see [`State::access_revision`].
    access: Arc<AtomicU64>,
    access_changes: watch::Receiver<u64>,
    /// The level of the state: see [`State::level`].
    level: Arc<AtomicU8>,
    /// The last audit that is complete; held for a copy.
    audit: Arc<Mutex<Option<Audit>>>,
    fullness: Arc<Fullness>,
    freeing: Arc<Freeing>,
}

/// The digest of the whole state at one index. Every member takes it at the same entries, so equal indices must have equal digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Audit {
    /// The index of the log.
    pub(crate) index: u64,
    /// The digest of the machine that has applied it.
    pub(crate) digest: u128,
}

/// Lists of arguments that are kept from one entry to the next: a group of the default size.
const KEPT_LISTS: usize = 1_024;

/// An audit is taken at the first entry whose time lies in another one of these stretches of the log's clock than the entry before it, in
/// milliseconds: by the log alone, so that all members audit the same states.
const AUDIT_EVERY_MS: Millis = 60_000;

/// Audits that may be under way when another minute ends.
const AUDITS: usize = 4;

/// The log's clock, carried on by this node's own. Read without a lock, and moved by the one who applies.
///
/// An entry comes later than it was stamped, sometimes much; so of those of [`Clock::WINDOW_US`] the one that took the least counts. Going by the least of all
/// time instead, a node whose clock is faster than the leaders' would be ahead of the log by more and more: what was written just now would have ended here, and
/// everything early once this node leads.
#[derive(Debug)]
struct Clock {
    began: Instant,
    /// How far the log's clock is ahead of the time since then, in microseconds and [`Clock::BIAS`] more; 0 before the first entry.
    ahead: AtomicU64,
    /// What was shown before it was put back, in microseconds: it stands still until it would go beyond, so that no key comes back to life.
    shown: AtomicU64,
    /// Held by the one who applies.
    window: Mutex<Window>,
}

/// The entries of some time.
#[derive(Debug, Default)]
struct Window {
    /// Time since the clock began, in microseconds.
    begun: u64,
    /// The most that one of them was ahead, as [`Clock::ahead`].
    ahead: u64,
}

impl State {
    /// The machine, to read it: at one applied index as long as the guard lives.
    pub(crate) fn machine(&self) -> &RwLock<Machine> {
        &self.machine
    }

    /// The index applied last, 0 before the first; costs no lock. Whoever holds the machine's lock finds index and state together.
    pub(crate) fn applied_index(&self) -> u64 {
        self.index.load(Ordering::Acquire)
    }

    /// The same, to wait for changes: they are seen in order, and some may be skipped.
    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.applied.clone()
    }

    /// The revision of who may do what, as of the last entry applied; costs no lock. It has moved before the writer is answered.
    pub(crate) fn access_revision(&self) -> u64 {
        self.access.load(Ordering::Acquire)
    }

    /// The same, to wait for changes.
    pub(crate) fn access_changes(&self) -> watch::Receiver<u64> {
        self.access_changes.clone()
    }

    /// The level of the last entry applied, or of one before it, if that is higher; costs no lock. See [`entry`].
    pub(crate) fn level(&self) -> u8 {
        self.level.load(Ordering::Acquire)
    }

    /// How full memory is, as of the last entry applied.
    pub(crate) fn fullness(&self) -> &Fullness {
        &self.fullness
    }

    /// What entries took away and is freed beside the log.
    pub(crate) fn freeing(&self) -> &Freeing {
        &self.freeing
    }

    /// The last audit.
    pub(crate) fn audit(&self) -> Option<Audit> {
        *self.audit.lock()
    }

    /// The log's clock carried on by this node's own since the last apply: an estimate to read deadlines by. Milliseconds
    /// since the Unix epoch; 0 before the first entry.
    pub(crate) fn now(&self) -> Millis {
        self.clock.estimate()
    }
}

impl Clock {
    /// Keeps what is ahead above 0, also where the log's clock is behind the time since this one began.
    const BIAS: u64 = 1 << 62;

    /// The time of which the entry counts that took the least, in microseconds.
    const WINDOW_US: u64 = 10_000_000;

    /// By how much it may be ahead and is left alone, in microseconds: more than an entry takes, mostly.
    const LEFT_ALONE_US: u64 = 50_000;

    /// For how long whoever puts it back may rest in the middle of that while others read it, in microseconds.
    const MEANWHILE_US: u64 = 20_000;

    fn new(at: Millis) -> Self {
        let clock = Self {
            began: Instant::now(),
            ahead: AtomicU64::new(0),
            shown: AtomicU64::new(0),
            window: Mutex::default(),
        };
        clock.move_to(at);
        clock
    }

    fn estimate(&self) -> Millis {
        // Time first: what this comes to is not beyond what is kept when one is put back.
        let elapsed_us = self.elapsed_us();
        match self.ahead.load(Ordering::Acquire) {
            0 => 0,
            ahead => Self::told(ahead, elapsed_us).max(self.shown.load(Ordering::Relaxed)) / 1_000,
        }
    }

    /// Moves it to where the log is, at once where it is behind, and where it was ahead all along once that is certain.
    fn move_to(&self, at: Millis) {
        if at == 0 {
            return;
        }
        let elapsed_us = self.elapsed_us();
        let at_us = at.saturating_mul(1_000).min(Self::BIAS);
        let seen = (at_us + Self::BIAS).saturating_sub(elapsed_us);
        let ahead = self.ahead.load(Ordering::Relaxed);
        let mut window = self.window.lock();
        window.ahead = window.ahead.max(seen);
        if seen > ahead {
            self.ahead.store(seen, Ordering::Release);
        }
        if elapsed_us - window.begun < Self::WINDOW_US {
            return;
        }
        if window.ahead + Self::LEFT_ALONE_US < ahead {
            let shown = Self::told(ahead, self.elapsed_us()) + Self::MEANWHILE_US;
            self.shown.fetch_max(shown, Ordering::Relaxed);
            self.ahead.store(window.ahead, Ordering::Release);
        }
        *window = Window {
            begun: elapsed_us,
            ahead: seen,
        };
    }

    /// What it shows then, in microseconds.
    fn told(ahead: u64, elapsed_us: u64) -> u64 {
        ahead.saturating_add(elapsed_us).saturating_sub(Self::BIAS)
    }

    fn elapsed_us(&self) -> u64 {
        let elapsed = self.began.elapsed();
        elapsed
            .as_secs()
            .saturating_mul(1_000_000)
            .saturating_add(elapsed.subsec_micros().into())
    }
}

/// The state as openraft drives it. There is one.
#[derive(Debug)]
pub(crate) struct StateStore {
    state: State,
    applied: watch::Sender<u64>,
    access_changes: watch::Sender<u64>,
    last_applied: Option<LogId>,
    membership: StoredMembership,
    /// For the arguments of the entry at hand.
    lists: Lists,
    /// Which node and start these answers are for.
    own: (u64, u64),
    answers: Arc<dyn Answers>,
    snapshots: SnapshotStore,
    fault: Fault,
    /// Held by an audit as long as it is under way.
    auditing: Arc<()>,
}

impl StateStore {
    /// Loads the newest snapshot that is whole and from which `log` goes on.
    ///
    /// # Errors
    /// [`Error::Folder`] when there is none although the log was purged; [`Error::Io`].
    pub(crate) fn open(
        snapshots: SnapshotStore,
        log: &LogReader,
        own: (u64, u64),
        answers: Arc<dyn Answers>,
        fault: Fault,
    ) -> Result<Self, Error> {
        let purged = log.bounds().0.map(|id| id.index);
        let loaded = snapshots.load_newest(purged, read_machine)?;
        let (meta, mut machine) = loaded.unwrap_or_else(|| (SnapshotMeta::default(), Machine::default()));
        machine.store_mut().keep_freed(true);
        let index = meta.last_log_id.map_or(0, |id| id.index);
        let applied = watch::Sender::new(index);
        let clock = Clock::new(machine.store().clock());
        let revision = machine.store().access().revision();
        let access_changes = watch::Sender::new(revision);
        let state = State {
            access: Arc::new(AtomicU64::new(revision)),
            access_changes: access_changes.subscribe(),
            level: Arc::new(AtomicU8::new(machine.store().settings().level)),
            machine: Arc::new(RwLock::new(machine)),
            clock: Arc::new(clock),
            index: Arc::new(AtomicU64::new(index)),
            applied: applied.subscribe(),
            audit: Arc::default(),
            fullness: Arc::default(),
            freeing: Arc::new(Freeing::new(snapshots.hurry().clone())),
        };
        state.fullness.note(state.machine.read().store());
        let (last_applied, membership) = (meta.last_log_id, meta.last_membership);
        Ok(Self {
            state,
            applied,
            access_changes,
            last_applied,
            membership,
            lists: Lists::new(KEPT_LISTS),
            own,
            answers,
            snapshots,
            fault,
            auditing: Arc::default(),
        })
    }

    /// What the rest of the node reads.
    pub(crate) fn state(&self) -> State {
        self.state.clone()
    }

    fn apply_group(&mut self, index: u64, group: &Group) -> io::Result<()> {
        let entry = entry::decode_with(&group.0, &mut self.lists).map_err(|error| {
            let why = format!("entry {index} of the log cannot be applied: {error}");
            self.fault.raise(why.clone());
            io::Error::new(io::ErrorKind::InvalidData, why)
        })?;
        let Origin { node, start, number } = entry.origin;
        let own = (node, start) == self.own && number > 0;
        let (outcome, events, freed, audited) = {
            let mut machine = self.state.machine.write();
            let before = machine.store().clock();
            let outcome = if own {
                machine.apply(&entry)
            } else {
                machine.apply_untold(&entry)
            };
            let events = machine.store_mut().take_events();
            let freed = machine.store_mut().take_freed();
            let clock = machine.store().clock();
            self.state.clock.move_to(clock);
            self.note_access(machine.store().access().revision());
            self.note_level(&machine);
            self.state.fullness.note(machine.store());
            // Under the lock, so that a reader finds index and state together.
            self.state.index.store(index, Ordering::Release);
            let due = clock / AUDIT_EVERY_MS != before / AUDIT_EVERY_MS && self.may_audit();
            (outcome, events, freed, due.then(|| machine.freeze()))
        };
        // Without the lock, for this wakes who waits; before the caller is answered, so that whoever has the token of a write can wait for it here.
        self.note_applied(index);
        self.state.freeing.free(freed);
        let argvs = entry.commands.into_iter().map(|command| command.argv);
        argvs.for_each(|argv| self.lists.keep(argv));
        if let Some(frozen) = audited {
            self.audit(index, frozen);
        }
        match outcome {
            Outcome::Applied(replies) if own => self.answers.applied(index, Some((number, replies)), events),
            _ if !events.is_empty() => self.answers.applied(index, None, events),
            // Whoever waited was answered then, unless a snapshot brought it.
            Outcome::Past if own => self.answers.lost(number),
            Outcome::Early if own => self.answers.early(),
            _ => {}
        }
        Ok(())
    }

    fn note_level(&self, machine: &Machine) {
        let level = machine.store().settings().level;
        if self.state.level.swap(level, Ordering::AcqRel) < level {
            tracing::info!(
                level,
                "all members understand this level: what came with it is there from here on"
            );
        }
    }

    fn note_access(&self, revision: u64) {
        if self.state.access.swap(revision, Ordering::AcqRel) != revision {
            self.access_changes.send_replace(revision);
        }
    }

    /// Takes the digest beside the tasks, with rests: walking a large state takes a while, nobody waits for it, and all members do it at the same time. Comes to
    /// what it rested.
    fn audit(&self, index: u64, frozen: Machine) -> JoinHandle<Rests> {
        let (audit, under_way) = (self.state.audit.clone(), self.auditing.clone());
        let mut rests = Rests::of_audit(self.snapshots.hurry());
        beside(move || {
            let digest = frozen.into_digest(|bytes| rests.walked(bytes));
            let mut last = audit.lock();
            if last.is_none_or(|last| last.index < index) {
                *last = Some(Audit { index, digest });
            }
            drop(under_way);
            rests
        })
    }

    /// Whether few audits are under way: a log of a quiet week, applied in seconds, has ten thousand minutes, each of which would hold a frozen machine.
    fn may_audit(&self) -> bool {
        Arc::strong_count(&self.auditing) <= AUDITS
    }

    /// Notes how far the log is applied: for readers, and for those who wait for it.
    fn note_applied(&self, index: u64) {
        self.state.index.store(index, Ordering::Release);
        self.applied.send_replace(index);
    }

    /// What is in the machine now, to be written while it goes on.
    fn builder(&self) -> SnapshotBuilder {
        let meta = SnapshotMeta {
            last_log_id: self.last_applied,
            last_membership: self.membership.clone(),
        };
        // Copies a pointer per shard: a fraction of a millisecond under the lock.
        let frozen = self.state.machine.read().freeze();
        SnapshotBuilder {
            meta,
            frozen: Some(frozen),
            snapshots: self.snapshots.clone(),
        }
    }
}

fn read_machine(mut from: &mut dyn Read) -> io::Result<Machine> {
    snapshot::read(&mut from)
}

/// Runs what blocks on the disk beside the tasks.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    beside(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

impl RaftStateMachine<Types> for StateStore {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            match &entry.payload {
                EntryPayload::Normal(group) => self.apply_group(entry.log_id.index, group)?,
                EntryPayload::Blank => self.note_applied(entry.log_id.index),
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                    self.note_applied(entry.log_id.index);
                }
            }
            self.last_applied = Some(entry.log_id);
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<SnapshotBuilder> {
        Some(self.builder())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        self.builder()
    }

    /// Reads the snapshot into a machine aside and then exchanges the two: readers see the old state or the new one.
    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotFile) -> io::Result<()> {
        if snapshot.meta != *meta {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a snapshot that covers something else",
            ));
        }
        let snapshots = self.snapshots.clone();
        let machine = blocking(move || {
            let machine = snapshot.read_resting(Rests::new(snapshots.hurry()), read_machine)?;
            snapshots.adopt(&snapshot)?;
            Ok(machine)
        })
        .await?;
        let skipped = machine.once().last(self.own.0, self.own.1);
        let old = {
            let mut current = self.state.machine.write();
            self.state.clock.move_to(machine.store().clock());
            self.note_access(machine.store().access().revision());
            self.note_level(&machine);
            self.state.fullness.note(machine.store());
            self.note_applied(meta.last_log_id.map_or(0, |id| id.index));
            let watched = current.store().watches_changes();
            let old = std::mem::replace(&mut *current, machine);
            current.store_mut().watch_changes(watched);
            current.store_mut().keep_freed(true);
            old
        };
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.answers.lost(skipped);
        self.answers.replaced(&self.state.machine.read());
        // Freeing millions of keys takes a while; nobody waits for it.
        beside(move || drop(old));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<Types, SnapshotFile>>> {
        let newest = self.snapshots.newest();
        Ok(newest.map(|snapshot| SnapshotOf::<Types, SnapshotFile> {
            meta: snapshot.meta.clone(),
            snapshot,
        }))
    }
}

/// A frozen machine on its way to a file.
#[derive(Debug)]
pub(crate) struct SnapshotBuilder {
    meta: SnapshotMeta,
    frozen: Option<Machine>,
    snapshots: SnapshotStore,
}

impl RaftSnapshotBuilder<Types> for SnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<Types, SnapshotFile>> {
        let Some(frozen) = self.frozen.take() else {
            return Err(io::Error::other("a snapshot builder builds once"));
        };
        let (snapshots, meta) = (self.snapshots.clone(), self.meta.clone());
        let written =
            blocking(move || snapshots.write(&meta, |mut out| snapshot::write_frozen(frozen, &mut out)))
                .await?;
        Ok(SnapshotOf::<Types, SnapshotFile> {
            meta: written.meta.clone(),
            snapshot: written,
        })
    }
}

#[cfg(test)]
mod tests;
