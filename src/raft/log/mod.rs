//! The Raft log: entries, vote, commit mark, truncations and purges, in one ordered stream of records on disk, and the live entries
//! in memory. Knows nothing of commands.
//!
//! ```text
//! openraft ── append, save_vote, truncate, purge ─► LogStore ── bounded queue ─► Writer (one thread) ─► Journal (disk)
//! replication, apply ── LogReader ─► live entries in memory (shared)
//! ```
//!
//! The writer drains what waits, encodes it into one batch, appends the batch, makes it durable once, and answers all who waited. So one
//! flush serves many groups, and a vote is never durable after an entry of its term: both pass through the same stream in order. While nothing
//! waits, and for a step after each batch, it tidies.
//!
//! An I/O error is never tried again (after a failed flush nobody knows what the disk has): the store has failed for good, every later
//! call answers the same error, and the fault is raised so that the node stops and says why.

pub(super) mod kind;
mod mark;
pub(super) mod record;
mod segments;
pub(super) mod sled;

use super::fault::Fault;
use super::{Entry, LogId, Types, Vote, files};
use crate::config::Durability;
use crate::error::Error;
use crate::mutant::Mutant;
use bytes::Bytes;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogState, OptionalSend, RaftLogReader};
use parking_lot::Mutex;
use record::{Damage, ENTRY_OVERHEAD, Record};
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Requests that wait for the writer. openraft keeps few appends under way; a full queue makes it wait, nothing is refused.
const QUEUE_REQUESTS: usize = 1_024;

/// Bytes after which the writer stops draining and writes: bounds its buffer and how long the first of a batch waits.
const BATCH_BYTES: usize = 8 << 20;

/// Bytes after which one read for replication stops: a message to a peer is at most this plus one group.
pub(super) const READ_BYTES: u64 = 1 << 20;

/// Purged entries that the writer lets go from memory while it holds the lock once.
const DROPPED_AT_ONCE: usize = 1_024;

/// Where records are kept: an ordered stream of batches, appended at its end and forgotten from its start.
///
/// The narrow part between the log and a disk: segments, sled, a disk in memory for tests. `kind` says which a data folder has.
pub(crate) trait Journal: Send + 'static {
    /// Gives every batch that was appended and not forgotten, in order, with its position. Called once, before anything else.
    ///
    /// A torn batch at the very end, which was never durable, is cut silently.
    ///
    /// # Errors
    /// [`Error::Folder`] when something that was durable is missing or damaged, or when `each` refuses a batch.
    fn recover(&mut self, each: &mut dyn FnMut(u64, Bytes) -> Result<(), Error>) -> Result<(), Error>;

    /// Appends a batch and answers its position, greater than all before. When this returns, the batch survives the death of the process
    /// (it is in the system's page cache), not yet power loss. After a crash a batch is there whole or not at all, and never
    /// without those before it.
    ///
    /// # Errors
    /// What the disk answered. The journal is not to be used again.
    fn append(&mut self, batch: &[u8]) -> io::Result<u64>;

    /// Makes every batch appended so far survive power loss.
    ///
    /// # Errors
    /// What the disk answered. The journal is not to be used again.
    fn sync(&mut self) -> io::Result<()>;

    /// Notes durably that batches before this position are no longer needed. They vanish step by step, with [`Journal::tidy`].
    ///
    /// # Errors
    /// What the disk answered. The journal is not to be used again.
    fn forget(&mut self, before: u64) -> io::Result<()>;

    /// Takes a bounded step of what need not be done while somebody waits: frees what was forgotten, prepares what the next batches will
    /// need. Whether more is left.
    ///
    /// # Errors
    /// What the disk answered. The journal is not to be used again.
    fn tidy(&mut self) -> io::Result<bool>;

    /// The data folder, for errors.
    fn folder(&self) -> &Path;

    /// How long a batch takes beside what it is made to wait for: a simulated disk may be slow.
    #[cfg(test)]
    fn pause(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}

/// The log as openraft writes it. There is one; [`LogReader`] is for all others.
#[derive(Debug)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
}

/// The log as replication, apply and status read it. Clones are cheap.
#[derive(Clone, Debug)]
pub(crate) struct LogReader {
    shared: Arc<Shared>,
}

/// Stops the log's thread. Kept by whoever opened the log, as openraft owns the [`LogStore`].
#[derive(Clone, Debug)]
pub(crate) struct LogStopper {
    requests: mpsc::Sender<Request>,
}

/// A live entry.
#[derive(Debug)]
struct Kept {
    entry: Entry,
    /// Bytes of all entries up to and with this one since the store was opened: a difference of two says how large a stretch is.
    end: u64,
}

/// What is known of the log in memory. Written by openraft's core, and by the writer when it drops purged entries.
#[derive(Debug, Default)]
struct Live {
    /// Entries in order without a hole. The first few may be purged and not dropped yet.
    entries: VecDeque<Kept>,
    /// `Kept::end` of the last entry that was ever appended, and of the one purged last.
    end: u64,
    purged_end: u64,
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    failed: Option<Arc<str>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Held for a few pushes or clones, never over I/O or an await.
    live: Mutex<Live>,
}

#[derive(Debug)]
struct Waiter(oneshot::Sender<io::Result<()>>);

enum Request {
    Append {
        entries: Vec<Entry>,
        done: IOFlushed<Types>,
    },
    Vote {
        vote: Vote,
        done: Waiter,
    },
    Truncate {
        after: Option<LogId>,
        done: Waiter,
    },
    Purge {
        upto: LogId,
    },
    Stop {
        done: Waiter,
    },
}

impl LogStore {
    /// Recovers the log from its journal and starts its thread, which ends with [`LogStopper::stop`] or when the store is dropped.
    ///
    /// # Errors
    /// [`Error::Folder`] where the journal or its content is damaged; [`Error::Io`] without a thread.
    pub(crate) fn open(
        journal: Box<dyn Journal>,
        durability: Durability,
        fault: Fault,
    ) -> Result<(Self, LogStopper), Error> {
        #[cfg(test)]
        if super::simulation::is_on() {
            return Self::open_as_task(journal, durability, fault);
        }
        let (log, writer, queue) = Self::recover(journal, durability, fault)?;
        std::thread::Builder::new()
            .name("plenary-log".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(|source| Error::Io {
                doing: "starting the log's thread".to_owned(),
                source,
            })?;
        let requests = log.requests.clone();
        Ok((log, LogStopper { requests }))
    }

    /// [`LogStore::open`] with a task in the place of the thread: what a simulation can follow step by step.
    #[cfg(test)]
    pub(crate) fn open_as_task(
        journal: Box<dyn Journal>,
        durability: Durability,
        fault: Fault,
    ) -> Result<(Self, LogStopper), Error> {
        let (log, writer, queue) = Self::recover(journal, durability, fault)?;
        tokio::spawn(writer.run_as_task(queue));
        let requests = log.requests.clone();
        Ok((log, LogStopper { requests }))
    }

    fn recover(
        mut journal: Box<dyn Journal>,
        durability: Durability,
        fault: Fault,
    ) -> Result<(Self, Writer, mpsc::Receiver<Request>), Error> {
        let recovered = recover(&mut *journal)?;
        let written = Written {
            vote: recovered.live.vote,
            committed: recovered.live.committed,
            last: recovered.live.last(),
            purged: recovered.live.purged,
        };
        let shared = Arc::new(Shared {
            live: Mutex::new(recovered.live),
        });
        let (requests, queue) = mpsc::channel(QUEUE_REQUESTS);
        let writer = Writer {
            journal,
            durability,
            shared: shared.clone(),
            fault,
            written,
            placed: recovered.placed,
            batch: Vec::new(),
            appended: Vec::new(),
            waiters: Vec::new(),
            purge: None,
            untidy: true,
            failed: None,
        };
        Ok((Self { shared, requests }, writer, queue))
    }

    /// A reader.
    pub(crate) fn reader(&self) -> LogReader {
        LogReader {
            shared: self.shared.clone(),
        }
    }

    async fn submit(&self, request: Request) -> io::Result<()> {
        let sent = self.requests.send(request).await;
        sent.map_err(|_| self.shared.live.lock().check().err().unwrap_or_else(stopped))
    }

    async fn submit_and_wait(&self, request: impl FnOnce(Waiter) -> Request) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        self.submit(request(Waiter(done))).await?;
        answer
            .await
            .unwrap_or_else(|_| Err(self.shared.live.lock().check().err().unwrap_or_else(stopped)))
    }
}

impl LogStopper {
    /// Writes what waits, makes it durable in either durability, and ends the thread. Later appends are answered with an error.
    ///
    /// # Errors
    /// What the disk answered, now or earlier.
    pub(crate) async fn stop(&self) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        if self
            .requests
            .send(Request::Stop { done: Waiter(done) })
            .await
            .is_err()
        {
            return Ok(());
        }
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }
}

fn stopped() -> io::Error {
    io::Error::other("the log has stopped")
}

impl LogReader {
    /// Bytes of live entries after this index: what a restart would apply again if a snapshot were at `index`.
    pub(crate) fn bytes_after(&self, index: u64) -> u64 {
        let live = self.shared.live.lock();
        let before = live
            .position(index)
            .map_or(live.purged_end, |at| live.entries[at].end);
        live.end - before.max(live.purged_end)
    }

    /// Up to which index the log may be purged so that no more than so many bytes of entries stay at or below `index`; none where no more do.
    pub(crate) fn surplus(&self, index: u64, bytes: u64) -> Option<u64> {
        let live = self.shared.live.lock();
        let end = live.entries[live.position(index)?].end;
        let below = end.checked_sub(bytes).filter(|below| *below > live.purged_end)?;
        let at = live.entries.partition_point(|kept| kept.end < below);
        Some(live.entries[at].entry.log_id.index)
    }

    /// The last purged and the last entry.
    pub(crate) fn bounds(&self) -> (Option<LogId>, Option<LogId>) {
        let live = self.shared.live.lock();
        (live.purged, live.last())
    }
}

impl Live {
    fn check(&self) -> io::Result<()> {
        self.failed
            .as_ref()
            .map_or(Ok(()), |why| Err(io::Error::other(why.to_string())))
    }

    fn last(&self) -> Option<LogId> {
        let last = self.entries.back().map(|kept| kept.entry.log_id);
        last.filter(|last| self.purged.is_none_or(|purged| purged.index < last.index))
            .or(self.purged)
    }

    /// Where the entry of this index stands, purged or not.
    fn position(&self, index: u64) -> Option<usize> {
        let first = self.entries.front()?.entry.log_id.index;
        let at = usize::try_from(index.checked_sub(first)?).ok()?;
        (at < self.entries.len()).then_some(at)
    }

    /// Appends one entry.
    ///
    /// # Errors
    /// What is wrong: it leaves a hole, or stands where there is an entry. Only a log without any past may begin anywhere.
    fn push(&mut self, entry: Entry) -> Result<(), String> {
        let index = entry.log_id.index;
        if let Some(last) = self.last()
            && index != last.index + 1
        {
            return Err(format!("entry {index} does not follow entry {}", last.index));
        }
        if self
            .entries
            .back()
            .is_some_and(|kept| kept.entry.log_id.index + 1 != index)
        {
            // All that is left is purged, by a snapshot that went beyond it.
            self.entries.clear();
        }
        self.end += entry_bytes(&entry);
        self.entries.push_back(Kept { entry, end: self.end });
        Ok(())
    }

    fn truncate(&mut self, after: Option<LogId>) {
        let keep = |kept: &Kept| after.is_some_and(|after| kept.entry.log_id.index <= after.index);
        while self.entries.back().is_some_and(|kept| !keep(kept)) {
            self.entries.pop_back();
        }
        self.end = self
            .entries
            .back()
            .map_or(self.purged_end, |kept| kept.end.max(self.purged_end));
    }

    /// Moves the mark: nothing is dropped here, so it costs the same for one entry and a million.
    fn purge(&mut self, upto: LogId) {
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        let before_all = self
            .entries
            .front()
            .is_some_and(|kept| kept.entry.log_id.index > upto.index);
        if !before_all {
            self.purged_end = self
                .position(upto.index)
                .map_or(self.end, |at| self.entries[at].end);
        }
        self.purged = Some(upto);
    }

    /// Drops up to [`DROPPED_AT_ONCE`] purged entries. Whether more are left.
    fn drop_purged(&mut self) -> bool {
        let Some(purged) = self.purged else { return false };
        for _ in 0..DROPPED_AT_ONCE {
            match self.entries.front() {
                Some(kept) if kept.entry.log_id.index <= purged.index => self.entries.pop_front(),
                _ => return false,
            };
        }
        true
    }

    fn range(&self, range: impl RangeBounds<u64>) -> impl Iterator<Item = &Kept> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let start = start.max(self.purged.map_or(0, |purged| purged.index + 1));
        let first = self.entries.front().map_or(start, |kept| kept.entry.log_id.index);
        let skip = usize::try_from(start.saturating_sub(first))
            .unwrap_or(usize::MAX)
            .min(self.entries.len());
        self.entries
            .range(skip..)
            .take_while(move |kept| kept.entry.log_id.index < end)
    }
}

fn entry_bytes(entry: &Entry) -> u64 {
    let content = match &entry.payload {
        EntryPayload::Normal(group) => group.0.len() as u64,
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    ENTRY_OVERHEAD + content
}

impl RaftLogReader<Types> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let live = self.shared.live.lock();
        live.check()?;
        Ok(live.range(range).map(|kept| kept.entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        let live = self.shared.live.lock();
        live.check()?;
        Ok(live.vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let live = self.shared.live.lock();
        live.check()?;
        let mut bytes = 0;
        let limited = live.range(start..end).take_while(|kept| {
            let take = bytes < READ_BYTES;
            bytes += entry_bytes(&kept.entry);
            take
        });
        Ok(limited.map(|kept| kept.entry.clone()).collect())
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let live = self.shared.live.lock();
        live.check()?;
        Ok(LogState {
            last_purged_log_id: live.purged,
            last_log_id: live.last(),
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        {
            let mut live = self.shared.live.lock();
            live.check()?;
            live.vote = Some(*vote);
        }
        if Mutant::ForgetVote.is_planted() {
            return Ok(());
        }
        self.submit_and_wait(|done| Request::Vote { vote: *vote, done })
            .await
    }

    /// Only noted: it is written with the next batch. Lost with the process, it costs a restarted node that it learns again from
    /// the leader what is committed.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let mut live = self.shared.live.lock();
        live.check()?;
        live.committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let live = self.shared.live.lock();
        live.check()?;
        Ok(live.committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        {
            let mut live = self.shared.live.lock();
            live.check()?;
            for entry in &entries {
                live.push(entry.clone())
                    .map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
            }
        }
        self.submit(Request::Append {
            entries,
            done: callback,
        })
        .await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        {
            let mut live = self.shared.live.lock();
            live.check()?;
            live.truncate(last_log_id);
        }
        self.submit_and_wait(|done| Request::Truncate {
            after: last_log_id,
            done,
        })
        .await
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        {
            let mut live = self.shared.live.lock();
            live.check()?;
            live.purge(log_id);
        }
        self.submit(Request::Purge { upto: log_id }).await
    }
}

/// What the journal holds, as of the last record encoded.
#[derive(Debug, Default)]
struct Written {
    vote: Option<Vote>,
    committed: Option<LogId>,
    /// The last entry, or the last purged one.
    last: Option<LogId>,
    purged: Option<LogId>,
}

/// The thread that writes. Its steps are functions of their own, so that a simulation can drive them without a thread ([`Writer::run_as_task`]).
struct Writer {
    journal: Box<dyn Journal>,
    durability: Durability,
    shared: Arc<Shared>,
    fault: Fault,
    written: Written,
    /// For each batch with live entries: its first live index and its position. Ascending in both.
    placed: VecDeque<(u64, u64)>,
    batch: Vec<u8>,
    /// Who waits for the batch being made.
    appended: Vec<IOFlushed<Types>>,
    waiters: Vec<Waiter>,
    /// A purge in the batch being made.
    purge: Option<LogId>,
    untidy: bool,
    failed: Option<Arc<str>>,
}

/// The position of the batch being made, until the journal says the real one.
const THIS_BATCH: u64 = u64::MAX;

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let alarm = Alarm {
            shared: self.shared.clone(),
            fault: self.fault.clone(),
        };
        let mut stop = None;
        while stop.is_none() {
            let Some(request) = self.next(&mut queue) else {
                break;
            };
            stop = self.turn(request, &mut queue);
        }
        self.end(queue, stop);
        drop(alarm);
    }

    /// [`Writer::run`] as a task.
    #[cfg(test)]
    async fn run_as_task(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut stop = None;
        while stop.is_none() {
            let request = match queue.try_recv() {
                Ok(request) => Some(request),
                Err(mpsc::error::TryRecvError::Empty) if self.untidy => {
                    self.tidy();
                    tokio::task::yield_now().await;
                    continue;
                }
                Err(_) => queue.recv().await,
            };
            let Some(request) = request else { break };
            let pause = self.journal.pause();
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            stop = self.turn(request, &mut queue);
            tokio::task::yield_now().await;
        }
        self.end(queue, stop);
    }

    /// Makes a batch of this request and of those that wait behind it, writes it, and tidies a step. The one who waits for the end, if that was asked
    /// for.
    fn turn(&mut self, first: Request, queue: &mut mpsc::Receiver<Request>) -> Option<Waiter> {
        let mut stop = self.take(first);
        while stop.is_none() && self.batch.len() < BATCH_BYTES {
            let Ok(request) = queue.try_recv() else { break };
            stop = self.take(request);
        }
        self.write();
        self.tidy();
        stop
    }

    fn end(mut self, queue: mpsc::Receiver<Request>, stop: Option<Waiter>) {
        let result = self.close();
        drop(self);
        // Before the answer: whoever has it finds the store stopped, never a queue that nobody reads.
        drop(queue);
        if let Some(Waiter(done)) = stop {
            // Nobody may wait any more: then nobody needs the answer.
            let _ = done.send(result);
        }
    }

    /// The next request. While there is something to tidy it tidies instead of waiting.
    fn next(&mut self, queue: &mut mpsc::Receiver<Request>) -> Option<Request> {
        while self.untidy {
            match queue.try_recv() {
                Ok(request) => return Some(request),
                Err(mpsc::error::TryRecvError::Disconnected) => return None,
                Err(mpsc::error::TryRecvError::Empty) => self.tidy(),
            }
        }
        queue.blocking_recv()
    }

    /// Encodes a request into the batch. The one who waits, if it is the last request of all.
    fn take(&mut self, request: Request) -> Option<Waiter> {
        match request {
            Request::Append { entries, done } => {
                for entry in &entries {
                    record::encode_entry(entry, &mut self.batch);
                    if self
                        .placed
                        .back()
                        .is_none_or(|(_, position)| *position != THIS_BATCH)
                    {
                        self.placed.push_back((entry.log_id.index, THIS_BATCH));
                    }
                    self.written.last = Some(entry.log_id);
                }
                self.appended.push(done);
            }
            Request::Vote { vote, done } => {
                record::encode(&Record::Vote(vote), &mut self.batch);
                self.written.vote = Some(vote);
                self.waiters.push(done);
            }
            Request::Truncate { after, done } => {
                record::encode(&Record::Truncate(after), &mut self.batch);
                let void = |index: u64| after.is_none_or(|after| index > after.index);
                while self.placed.back().is_some_and(|(first, _)| void(*first)) {
                    self.placed.pop_back();
                }
                self.written.last = after.or(self.written.purged);
                self.waiters.push(done);
            }
            Request::Purge { upto } => {
                if self.written.last.is_none_or(|last| last.index < upto.index) {
                    // Beyond the end, for a snapshot: entries behind it leave a hole to those before it, so it is read before them.
                    record::encode(&Record::Purge(upto), &mut self.batch);
                }
                self.purge = Some(upto);
                self.written.purged = Some(upto);
                self.written.last = self
                    .written
                    .last
                    .filter(|last| last.index > upto.index)
                    .or(Some(upto));
            }
            Request::Stop { done } => return Some(done),
        }
        None
    }

    /// Writes the batch, makes it durable and answers all who wait for it.
    fn write(&mut self) {
        self.encode_marks();
        if Mutant::AcknowledgeUnwritten.is_planted() {
            self.answer(&Ok(()));
        }
        let result = match &self.failed {
            Some(why) => Err(io::Error::other(why.to_string())),
            None if self.batch.is_empty() => Ok(()),
            None => self.store().inspect_err(|error| self.fail(error)),
        };
        self.batch.clear();
        self.batch.shrink_to(BATCH_BYTES);
        self.answer(&result);
    }

    /// The vote, the commit mark and the purge mark that ride with the batch.
    fn encode_marks(&mut self) {
        if let Some(upto) = self.purge {
            // Batches before this one will be forgotten: what still counts of them is said again here. At the end: when the log begins with this
            // batch, its entries may begin anywhere, and need not follow what is purged.
            for record in [
                self.written.vote.map(Record::Vote),
                self.written.committed.map(Record::Committed),
            ] {
                record
                    .iter()
                    .for_each(|record| record::encode(record, &mut self.batch));
            }
            record::encode(&Record::Purge(upto), &mut self.batch);
        }
        if !self.batch.is_empty() {
            self.encode_committed();
        }
    }

    /// A commit mark never goes before its entry: a leader may know an entry committed by others before it has it on disk.
    fn encode_committed(&mut self) {
        let committed = self.shared.live.lock().committed;
        if let Some(mark) = committed
            && committed != self.written.committed
            && self.written.last.is_some_and(|last| mark.index <= last.index)
        {
            record::encode(&Record::Committed(mark), &mut self.batch);
            self.written.committed = committed;
        }
    }

    fn store(&mut self) -> io::Result<()> {
        let position = self.journal.append(&self.batch)?;
        self.untidy = true;
        if self.durability == Durability::Fsync && !Mutant::SkipFlush.is_planted() {
            // Without it an acknowledged batch would be lost with the power.
            self.journal.sync()?;
        }
        if let Some((_, this)) = self.placed.back_mut()
            && *this == THIS_BATCH
        {
            *this = position;
        }
        if let Some(upto) = self.purge.take() {
            self.forget(upto, position)?;
        }
        Ok(())
    }

    /// Forgets the batches before the one that holds the first live entry, or before the batch at `this` position if none is left.
    fn forget(&mut self, upto: LogId, this: u64) -> io::Result<()> {
        while self
            .placed
            .get(1)
            .is_some_and(|(first, _)| *first <= upto.index + 1)
        {
            self.placed.pop_front();
        }
        if self.written.last.is_none_or(|last| last.index <= upto.index) {
            self.placed.clear();
        }
        let first = self.placed.front().map_or(this, |(_, position)| *position);
        self.journal.forget(first)
    }

    fn tidy(&mut self) {
        if !self.untidy || self.failed.is_some() {
            self.untidy = false;
            return;
        }
        let in_memory = self.shared.live.lock().drop_purged();
        match self.journal.tidy() {
            Ok(on_disk) => self.untidy = in_memory || on_disk,
            Err(error) => self.fail(&error),
        }
    }

    /// The last write of a clean stop: the commit mark, and a flush also where none is asked for, so that the clean mark is true.
    fn close(&mut self) -> io::Result<()> {
        self.encode_committed();
        self.write();
        if let Some(why) = &self.failed {
            return Err(io::Error::other(why.to_string()));
        }
        self.journal.sync().inspect_err(|error| self.fail(error))
    }

    fn fail(&mut self, error: &io::Error) {
        let why: Arc<str> = format!(
            "the log in {} cannot be written: {error}. See to the disk, then start the node again",
            self.journal.folder().display()
        )
        .into();
        self.failed = Some(why.clone());
        self.shared.live.lock().failed = Some(why.clone());
        self.fault.raise(&*why);
    }

    fn answer(&mut self, result: &io::Result<()>) {
        let copy = || {
            result
                .as_ref()
                .copied()
                .map_err(|error| io::Error::other(error.to_string()))
        };
        let mut appended = std::mem::take(&mut self.appended);
        if result.is_ok() {
            // openraft keeps only the newest of these marks, so the older ones need not be told one by one.
            let newest = appended
                .iter()
                .rposition(|done| matches!(done, IOFlushed::Notify(_)));
            let mut at = 0;
            appended.retain(|done| {
                at += 1;
                !matches!(done, IOFlushed::Notify(_)) || newest == Some(at - 1)
            });
        }
        for done in appended {
            done.io_completed(copy());
        }
        for Waiter(done) in self.waiters.drain(..) {
            // A caller that went away needs no answer.
            let _ = done.send(copy());
        }
    }
}

/// Tells that the thread has ended, in whatever way: whoever calls the store later must not wait for it.
struct Alarm {
    shared: Arc<Shared>,
    fault: Fault,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let why = "the log's thread has panicked; this is a fault of Plenary";
            self.shared.live.lock().failed = Some(why.into());
            self.fault.raise(why);
        }
    }
}

#[derive(Default)]
struct Recovered {
    live: Live,
    placed: VecDeque<(u64, u64)>,
}

/// Replays the journal.
fn recover(journal: &mut dyn Journal) -> Result<Recovered, Error> {
    let folder = journal.folder().to_owned();
    let mut recovered = Recovered::default();
    let broken = |why: String| Error::Folder {
        folder: folder.clone(),
        why,
    };
    journal.recover(&mut |position, mut batch| {
        loop {
            let record = record::decode(&mut batch).map_err(|damage| {
                broken(match damage {
                    // Nothing is lost: an empty folder is no remedy.
                    Damage::Version(_) => {
                        format!("a record of log batch {position} cannot be read: {damage}")
                    }
                    _ => format!("a record of log batch {position} is damaged: {damage}. {ADVICE}"),
                })
            })?;
            let Some(record) = record else { return Ok(()) };
            recovered.replay(position, record).map_err(|why| {
                broken(format!(
                    "log batch {position} does not fit what is before it: {why}. {ADVICE}"
                ))
            })?;
        }
    })?;
    while recovered.live.drop_purged() {}
    let (committed, last) = (recovered.live.committed, recovered.live.last());
    if committed.map(|id| id.index) > last.map(|id| id.index) {
        return Err(broken(format!(
            "the log ends at {last:?}, but was known to be committed up to {committed:?}: its end is lost. {ADVICE}"
        )));
    }
    Ok(recovered)
}

/// What a start makes of the log in the segments of `<data>/log`, as records that would make the same: for `fuzz/`.
pub(super) fn recovered(data: &Path) -> Result<Vec<u8>, Error> {
    let disk = files::Disk::System;
    let log = data.join(kind::LOG);
    let mut journal =
        segments::SegmentJournal::open(&disk, data, &log, Durability::Fsync, segments::SEGMENT_BYTES)?;
    let live = recover(&mut journal)?.live;
    let entries = live.entries.into_iter().map(|kept| Record::Entry(kept.entry));
    let purged = live.purged.map(Record::Purge);
    let (committed, vote) = (live.committed.map(Record::Committed), live.vote.map(Record::Vote));
    let mut records = Vec::new();
    for record in entries.chain(purged).chain(committed).chain(vote) {
        record::encode(&record, &mut records);
    }
    Ok(records)
}

/// What to do about a damaged log: the others have everything, so a new member costs nothing but a copy.
pub(crate) const ADVICE: &str = "If the other members are well, remove this node from the cluster, empty the folder and let it join as a \
                                 new member; do not copy files of another node into it";

/// A part of a data folder that cannot be read. What the system refuses (a permission, a failing disk) is no damage, and what a later program has written
/// (`Unsupported`) is none either: an empty folder is no remedy there.
pub(crate) fn unreadable(data: &Path, what: &str, error: io::Error) -> Error {
    let is_missing = error.kind() == io::ErrorKind::NotFound;
    if error.raw_os_error().is_some() && !is_missing {
        return Error::Io {
            doing: format!("reading {what} in {}", data.display()),
            source: error,
        };
    }
    let why = format!("{what} cannot be read: {error}");
    Error::Folder {
        folder: data.to_owned(),
        why: match error.kind() {
            io::ErrorKind::Unsupported => why,
            _ => format!("{why}. {ADVICE}"),
        },
    }
}

impl Recovered {
    fn replay(&mut self, position: u64, record: Record) -> Result<(), String> {
        match record {
            Record::Entry(entry) => {
                let index = entry.log_id.index;
                self.live.push(entry)?;
                if self.placed.back().is_none_or(|(_, at)| *at != position) {
                    self.placed.push_back((index, position));
                }
            }
            Record::Vote(vote) => self.live.vote = Some(vote),
            Record::Committed(id) => self.live.committed = Some(id),
            Record::Truncate(after) => {
                self.live.truncate(after);
                while self
                    .placed
                    .back()
                    .is_some_and(|(first, _)| after.is_none_or(|after| *first > after.index))
                {
                    self.placed.pop_back();
                }
            }
            Record::Purge(id) => {
                self.live.purge(id);
                while self.live.drop_purged() {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
