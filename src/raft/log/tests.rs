//! The log over a journal in memory: order, durability, failure, recovery.

mod crashes;
pub(super) mod disk;
mod power;

use super::*;
use crate::raft::Group;
pub(super) use crate::raft::files::simulated::Chance;
use openraft::impls::leader_id_adv::LeaderId;
use openraft::type_config::TypeConfigExt;
use parking_lot::Condvar;
use std::future::Future;

pub(super) fn id(term: u64, index: u64) -> LogId {
    LogId {
        leader_id: LeaderId { term, node_id: 1 },
        index,
    }
}

pub(super) fn entry(term: u64, index: u64, content: impl Into<Bytes>) -> Entry {
    Entry {
        log_id: id(term, index),
        payload: EntryPayload::Normal(Group(content.into())),
    }
}

pub(super) fn vote(term: u64) -> Vote {
    Vote {
        leader_id: LeaderId { term, node_id: 1 },
        committed: true,
    }
}

/// What a disk would hold, and what it did. A clone is the same disk.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<Disk>);

#[derive(Debug, Default)]
struct Disk {
    batches: Mutex<Vec<(u64, Bytes)>>,
    floor: Mutex<u64>,
    syncs: std::sync::atomic::AtomicUsize,
    broken: std::sync::atomic::AtomicBool,
    /// While this is true, no sync returns.
    held: Mutex<bool>,
    released: Condvar,
}

impl Journal for Memory {
    fn recover(&mut self, each: &mut dyn FnMut(u64, Bytes) -> Result<(), Error>) -> Result<(), Error> {
        let floor = *self.0.floor.lock();
        let batches = self.0.batches.lock().clone();
        batches
            .into_iter()
            .filter(|(position, _)| *position >= floor)
            .try_for_each(|(position, batch)| each(position, batch))
    }

    fn append(&mut self, batch: &[u8]) -> io::Result<u64> {
        let mut batches = self.0.batches.lock();
        let position = batches.last().map_or(1, |(position, _)| position + 1);
        batches.push((position, Bytes::copy_from_slice(batch)));
        Ok(position)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.syncs.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        self.0.released.wait_while(&mut self.0.held.lock(), |held| *held);
        if self.0.broken.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(io::Error::other("the disk is on fire"));
        }
        Ok(())
    }

    fn forget(&mut self, before: u64) -> io::Result<()> {
        *self.0.floor.lock() = before;
        Ok(())
    }

    fn tidy(&mut self) -> io::Result<bool> {
        Ok(false)
    }

    fn folder(&self) -> &Path {
        Path::new("memory")
    }
}

impl Memory {
    fn syncs(&self) -> usize {
        self.0.syncs.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// From now on no sync returns.
    fn hold(&self) {
        *self.0.held.lock() = true;
    }

    fn release(&self) {
        *self.0.held.lock() = false;
        self.0.released.notify_all();
    }

    fn open(&self) -> (LogStore, LogStopper) {
        LogStore::open(Box::new(self.clone()), Durability::Fsync, Fault::default()).unwrap()
    }
}

/// Begins an append; the future ends when it is durable.
pub(super) async fn append(
    log: &mut LogStore,
    entries: Vec<Entry>,
) -> io::Result<impl Future<Output = io::Result<()>> + use<>> {
    let (done, durable) = Types::oneshot();
    log.append(entries, IOFlushed::signal(done)).await?;
    Ok(async move {
        durable
            .await
            .unwrap_or_else(|_| Err(io::Error::other("not answered")))
    })
}

pub(super) async fn indices(log: &LogStore) -> Vec<(u64, u64)> {
    let entries = log.reader().try_get_log_entries(..).await.unwrap();
    entries
        .iter()
        .map(|entry| (entry.log_id.leader_id.term, entry.log_id.index))
        .collect()
}

#[tokio::test]
async fn an_entry_is_readable_at_once_and_acknowledged_when_durable() {
    let memory = Memory::default();
    let (mut log, _) = memory.open();
    memory.hold();
    let mut durable = Box::pin(append(&mut log, vec![entry(1, 1, "a")]).await.unwrap());
    assert_eq!(indices(&log).await, [(1, 1)]);
    assert!(futures::poll!(&mut durable).is_pending());
    memory.release();
    durable.await.unwrap();
    assert_eq!(memory.syncs(), 1);
}

#[tokio::test]
async fn groups_that_wait_share_one_flush() {
    let memory = Memory::default();
    let (mut log, _) = memory.open();
    memory.hold();
    let mut waiting = Vec::new();
    for index in 1..=100 {
        waiting.push(append(&mut log, vec![entry(1, index, "a")]).await.unwrap());
    }
    memory.release();
    futures::future::try_join_all(waiting).await.unwrap();
    assert!(
        memory.syncs() <= 3,
        "{} flushes for what waited together",
        memory.syncs()
    );
}

#[tokio::test]
async fn a_gap_is_refused_and_changes_nothing() {
    let (mut log, _) = Memory::default().open();
    append(&mut log, vec![entry(1, 1, "a")])
        .await
        .unwrap()
        .await
        .unwrap();
    for wrong in [0, 1, 3] {
        assert!(
            append(&mut log, vec![entry(1, wrong, "b")]).await.is_err(),
            "entry {wrong} after 1"
        );
    }
    append(&mut log, vec![entry(1, 2, "b")])
        .await
        .unwrap()
        .await
        .unwrap();
    assert_eq!(indices(&log).await, [(1, 1), (1, 2)]);
}

#[tokio::test]
async fn a_failed_flush_fails_the_store_for_good() {
    let memory = Memory::default();
    let fault = Fault::default();
    let (mut log, stopper) =
        LogStore::open(Box::new(memory.clone()), Durability::Fsync, fault.clone()).unwrap();
    append(&mut log, vec![entry(1, 1, "a")])
        .await
        .unwrap()
        .await
        .unwrap();
    memory.0.broken.store(true, std::sync::atomic::Ordering::SeqCst);
    let error = append(&mut log, vec![entry(1, 2, "b")])
        .await
        .unwrap()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("on fire"), "{error}");
    memory.0.broken.store(false, std::sync::atomic::Ordering::SeqCst);
    let syncs = memory.syncs();
    let again = [
        append(&mut log, vec![entry(1, 3, "c")]).await.map(|_| ()),
        log.save_vote(&vote(2)).await,
        log.save_committed(Some(id(1, 1))).await,
        log.truncate_after(Some(id(1, 1))).await,
        log.purge(id(1, 1)).await,
        log.get_log_state().await.map(|_| ()),
        log.reader().try_get_log_entries(..).await.map(|_| ()),
        stopper.stop().await,
    ];
    for (call, answer) in again.into_iter().enumerate() {
        let text = answer.expect_err(&format!("call {call}")).to_string();
        assert!(
            text.contains("on fire") && text.contains("See to the disk"),
            "call {call}: {text}"
        );
    }
    assert_eq!(memory.syncs(), syncs, "a failed flush is never tried again");
    assert!(fault.get().unwrap().contains("on fire"));
}

#[tokio::test]
async fn the_commit_mark_rides_along_but_never_before_its_entry() {
    let memory = Memory::default();
    let (mut log, stopper) = memory.open();
    log.save_committed(Some(id(1, 2))).await.unwrap();
    append(&mut log, vec![entry(1, 1, "a")])
        .await
        .unwrap()
        .await
        .unwrap();
    let (mut early, _) = memory.open();
    assert_eq!(
        early.read_committed().await.unwrap(),
        None,
        "entry 2 is not written yet"
    );
    append(&mut log, vec![entry(1, 2, "a")])
        .await
        .unwrap()
        .await
        .unwrap();
    let (mut then, _) = memory.open();
    assert_eq!(then.read_committed().await.unwrap(), Some(id(1, 2)));
    append(&mut log, vec![entry(1, 3, "a")])
        .await
        .unwrap()
        .await
        .unwrap();
    log.save_committed(Some(id(1, 3))).await.unwrap();
    stopper.stop().await.unwrap();
    let (mut last, _) = memory.open();
    assert_eq!(
        last.read_committed().await.unwrap(),
        Some(id(1, 3)),
        "a clean stop writes it"
    );
    let error = append(&mut log, vec![entry(1, 4, "a")])
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(error.to_string().contains("has stopped"), "{error}");
}

#[tokio::test]
async fn a_log_that_lost_its_committed_end_is_refused() {
    let memory = Memory::default();
    let (mut log, _) = memory.open();
    for index in 1..=2 {
        log.save_committed(Some(id(1, index))).await.unwrap();
        append(&mut log, vec![entry(1, index, "a")])
            .await
            .unwrap()
            .await
            .unwrap();
    }
    log.truncate_after(Some(id(1, 1))).await.unwrap();
    let error = LogStore::open(Box::new(memory), Durability::Fsync, Fault::default())
        .map(|_| ())
        .unwrap_err();
    assert!(error.to_string().contains("its end is lost"), "{error}");
}

#[tokio::test]
async fn a_read_for_replication_stops_at_a_megabyte_but_not_before_one_entry() {
    let (mut log, _) = Memory::default().open();
    let large = Bytes::from(vec![0; 700 << 10]);
    let entries = (1..=5).map(|index| entry(1, index, large.clone())).collect();
    append(&mut log, entries).await.unwrap().await.unwrap();
    let mut reader = log.reader();
    assert_eq!(reader.limited_get_log_entries(1, 6).await.unwrap().len(), 2);
    assert_eq!(reader.limited_get_log_entries(5, 6).await.unwrap().len(), 1);
    assert_eq!(reader.try_get_log_entries(1..6).await.unwrap().len(), 5);
}

#[tokio::test]
async fn bytes_are_counted_from_the_last_purge() {
    let (mut log, _) = Memory::default().open();
    let reader = log.reader();
    let each = ENTRY_OVERHEAD + 10;
    let entries = (1..=10).map(|index| entry(1, index, vec![0; 10])).collect();
    append(&mut log, entries).await.unwrap().await.unwrap();
    assert_eq!(
        (reader.bytes_after(0), reader.bytes_after(7)),
        (10 * each, 3 * each)
    );
    log.purge(id(1, 4)).await.unwrap();
    assert_eq!(
        (
            reader.bytes_after(0),
            reader.bytes_after(7),
            reader.bytes_after(2)
        ),
        (6 * each, 3 * each, 6 * each)
    );
    log.truncate_after(Some(id(1, 8))).await.unwrap();
    assert_eq!(reader.bytes_after(0), 4 * each);
    log.purge(id(1, 20)).await.unwrap();
    assert_eq!((reader.bytes_after(0), reader.bytes_after(20)), (0, 0));
}

#[tokio::test]
async fn a_surplus_is_what_goes_so_that_no_more_stays() {
    let (mut log, _) = Memory::default().open();
    let reader = log.reader();
    let each = ENTRY_OVERHEAD + 10;
    let entries = (1..=10).map(|index| entry(1, index, vec![0; 10])).collect();
    append(&mut log, entries).await.unwrap().await.unwrap();
    assert_eq!(reader.surplus(8, 8 * each), None);
    assert_eq!(reader.surplus(8, 3 * each), Some(5));
    assert_eq!(
        reader.surplus(8, 3 * each - 1),
        Some(6),
        "no part of an entry stays"
    );
    assert_eq!(reader.surplus(8, 0), Some(8));
    assert_eq!(reader.surplus(11, 0), None, "it is not there yet");
    log.purge(id(1, 5)).await.unwrap();
    assert_eq!(reader.surplus(8, 3 * each), None, "it is gone");
    assert_eq!(reader.surplus(8, 2 * each), Some(6));
    log.purge(id(1, 9)).await.unwrap();
    assert_eq!(reader.surplus(8, 0), None);
}

/// A snapshot from the leader goes beyond the log, and what follows it waits for the writer together with the purge: one batch has both. Read in
/// the wrong order, that batch leaves a hole, and the node never starts again. Met in `crashes.rs`.
#[tokio::test]
async fn what_follows_a_snapshot_comes_back_from_the_batch_of_its_purge() {
    let memory = Memory::default();
    let (mut log, stopper) = memory.open();
    memory.hold();
    let before = append(&mut log, vec![entry(1, 1, "a"), entry(1, 2, "a")]).await;
    log.purge(id(1, 5)).await.unwrap();
    let behind = append(&mut log, vec![entry(1, 6, "b")]).await;
    memory.release();
    before.unwrap().await.unwrap();
    behind.unwrap().await.unwrap();
    stopper.stop().await.unwrap();
    for purged in [5, 6] {
        let (mut again, stopper) = memory.open();
        let state = again.get_log_state().await.unwrap();
        assert_eq!(
            (state.last_purged_log_id, state.last_log_id),
            (Some(id(1, purged)), Some(id(1, 6)))
        );
        again.purge(id(1, 6)).await.unwrap();
        stopper.stop().await.unwrap();
    }
}

/// What a log must hold, kept the simplest way.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Model {
    pub(super) entries: Vec<Entry>,
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
}

/// One step of a history.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Append(Vec<Entry>),
    Vote(Vote),
    Truncate(LogId),
    Purge(LogId),
}

impl Model {
    fn last(&self) -> Option<LogId> {
        self.entries.last().map(|entry| entry.log_id).or(self.purged)
    }

    /// The next step of a history by chance.
    pub(super) fn step(&self, chance: &mut Chance, content_bytes: u64) -> Step {
        let (term, last) = (self.vote.map_or(1, |vote| vote.leader_id.term), self.last());
        let kind = chance.below(20);
        match (last, self.entries.len() as u64) {
            (Some(_), live) if kind == 0 && live > 3 => {
                let back = 1 + chance.below(3);
                Step::Truncate(self.entries[(live - 1 - back) as usize].log_id)
            }
            (Some(_), live) if kind == 1 && live > 0 => {
                Step::Purge(self.entries[chance.below(live) as usize].log_id)
            }
            (_, _) if kind == 2 => Step::Vote(vote(term + 1)),
            _ => {
                let first = last.map_or(1, |last| last.index + 1);
                let size = (chance.below(content_bytes) + 1) as usize;
                let content = |index: u64| Bytes::from(vec![index as u8; size]);
                let count = 1 + chance.below(3);
                Step::Append(
                    (first..first + count)
                        .map(|index| entry(term, index, content(index)))
                        .collect(),
                )
            }
        }
    }

    pub(super) fn apply(&mut self, step: &Step) {
        match step {
            Step::Append(entries) => self.entries.extend(entries.iter().cloned()),
            Step::Vote(vote) => self.vote = Some(*vote),
            Step::Truncate(after) => self.entries.retain(|entry| entry.log_id.index <= after.index),
            Step::Purge(upto) => {
                self.entries.retain(|entry| entry.log_id.index > upto.index);
                self.purged = Some(*upto);
            }
        }
    }

    /// What a log holds.
    pub(super) async fn of(log: &mut LogStore) -> Self {
        let mut reader = log.reader();
        Self {
            entries: reader.try_get_log_entries(..).await.unwrap(),
            vote: reader.read_vote().await.unwrap(),
            purged: log.get_log_state().await.unwrap().last_purged_log_id,
        }
    }
}

impl Step {
    /// Does the step and waits until it is durable. A purge is not waited for: nothing hangs on it.
    pub(super) async fn run(&self, log: &mut LogStore) -> io::Result<()> {
        match self {
            Self::Append(entries) => append(log, entries.clone()).await?.await,
            Self::Vote(vote) => log.save_vote(vote).await,
            Self::Truncate(after) => log.truncate_after(Some(*after)).await,
            Self::Purge(upto) => log.purge(*upto).await,
        }
    }
}

#[tokio::test]
async fn what_is_recovered_is_what_was_written_after_any_history() {
    for seed in 0..30 {
        let memory = Memory::default();
        let (mut chance, mut model) = (Chance(seed), Model::default());
        let (mut log, mut stopper) = memory.open();
        for number in 0..200 {
            let step = model.step(&mut chance, 50);
            step.run(&mut log).await.unwrap();
            model.apply(&step);
            assert_eq!(
                Model::of(&mut log).await,
                model,
                "seed {seed}, step {number}: {step:?}"
            );
            if chance.below(10) == 0 {
                stopper.stop().await.unwrap();
                (log, stopper) = memory.open();
                assert_eq!(
                    Model::of(&mut log).await,
                    model,
                    "seed {seed}, after reopening at step {number}"
                );
            }
        }
        let kept = memory
            .0
            .batches
            .lock()
            .iter()
            .filter(|(position, _)| *position >= *memory.0.floor.lock())
            .count();
        assert!(
            kept < 190,
            "purged batches are forgotten: {kept} of about 200 are kept"
        );
    }
}

#[test]
fn only_damage_is_told_with_the_advice_to_empty_the_folder() {
    const DENIED: i32 = 13;
    const MISSING: i32 = 2;
    let told = |error| unreadable(Path::new("data"), "the log", error);
    let denied = told(io::Error::from_raw_os_error(DENIED));
    assert!(matches!(denied, Error::Io { .. }), "{denied}");
    let advised = |error| told(error).to_string().contains(ADVICE);
    assert!(advised(io::Error::from_raw_os_error(MISSING)));
    assert!(advised(io::ErrorKind::InvalidData.into()));
    assert!(!advised(io::ErrorKind::Unsupported.into()));
}
