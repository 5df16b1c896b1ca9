//! The log's journal in files of its own: segments of a fixed size, written one after the other and used again. Knows nothing of records.
//!
//! ```text
//! <data>/log/00000000000000000007.log   segment 7: a head and batches (segments/format.rs)
//! <data>/log/spare.3                    a segment that waits for use, whatever is in it
//! <data>/log/floor                      where the log begins; replaced as a whole and flushed, so it holds after power loss
//! <data>/log/mark                       how far the log was acknowledged (mark.rs)
//! ```
//!
//! **Writing.** A batch is one write behind the last one and, where it must be durable, one flush. A flush is cheap if the file system has nothing to
//! note: a segment has its full size from the start, and its next few megabytes are filled with zeros before they are needed
//! ([`Journal::tidy`]; space that is only reserved would be noted as written with each flush). A recycled segment needs neither.
//!
//! **The next segment** is the spare under a new number: its head is flushed, then the file gets its name, then the folder is flushed, and only
//! then the first batch is written. So a file with a segment's name and without its head is damage. (Under [`Durability::Os`] these flushes wait, as all do:
//! what power loss leaves then is never opened, see `meta.rs`.)
//!
//! **Beginning.** Whole segments before the floor become spares or are deleted; that a name is given up is durable before the file is
//! written again. What is left of them after a crash is before the segment that holds the floor, and goes with the next steps.
//!
//! **The end.** A segment that is followed by another one ends where that one begins. In the last one the first frame that does not count
//! ends the log. It is taken for a batch that was being written when the process or the machine ended, and refused as damage if the mark says
//! that it was acknowledged, or if any later batch is found whole in the bytes after it, at whatever offset: batches are written one after the
//! other, so then it had been whole once. That search also shows that nothing after the end can ever count, however short the batches are that are
//! written over it: what would count is what the search finds. Undetected remains the loss of the very last batch together with the mark's last
//! value: power loss with a disk that forgets what it had acknowledged.

mod format;

use super::mark::{self, Mark};
use super::{ADVICE, Journal, unreadable};
use crate::config::Durability;
use crate::error::Error;
use crate::raft::files::{Disk, File, Open};
use bytes::Bytes;
use format::{FRAME_BYTES, Fault, Frame, HEAD_BYTES, Head, Seal, sequence_at};
use std::collections::VecDeque;
use std::io::{self, BufReader, IoSlice, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// Bytes of a segment. A batch that is larger gets a segment of its own size.
pub(super) const SEGMENT_BYTES: u64 = 64 << 20;

/// Spares that are kept; a log that has shrunk gives the rest back.
const SPARES_MAX: usize = 2;

/// Bytes of zeros written at one step; a step is taken between two batches, so it must not hold up the next one for long.
const FILL_STEP_BYTES: u64 = 256 << 10;

/// Bytes that are filled before they are needed: some fifty milliseconds of a busy log.
const FILL_AHEAD_BYTES: u64 = 2 << 20;

/// What is read at once at a start.
const READ_BYTES: usize = 256 << 10;

/// What the floor's file begins with.
const FLOOR_MAGIC: &[u8; 8] = b"PLNFLOR\x01";

/// The journal: the folder `log` of a data folder.
#[derive(Debug)]
pub(crate) struct SegmentJournal {
    disk: Disk,
    data: PathBuf,
    /// Where its files are.
    log: PathBuf,
    durability: Durability,
    segment_bytes: u64,
    mark: Mark,
    marked: u64,
    /// Batches before this one are forgotten.
    floor: u64,
    /// Every segment that is there, oldest first. The last is the one that is written to.
    segments: VecDeque<Head>,
    current: Current,
    /// Segments with batches that no flush has covered, beside the one that is written to. Under [`Durability::Os`] only.
    unflushed: Vec<(u64, File)>,
    /// Whether names were changed since the last flush.
    unflushed_names: bool,
    spares: VecDeque<u64>,
    removals: Removals,
    /// The name of the next spare: a number above all there are.
    next_spare: u64,
    /// The sequence number of the next batch.
    next: u64,
}

/// The segment that is written to.
#[derive(Debug)]
struct Current {
    /// Its cursor is at `end`.
    file: File,
    seal: Seal,
    /// Where the next frame begins.
    end: u64,
    bytes: u64,
    /// Up to here the file system has nothing to note when it is written to.
    filled: u64,
}

impl SegmentJournal {
    /// Makes an empty journal in a new folder, durably.
    ///
    /// # Errors
    /// What the disk answered.
    pub(super) fn create(disk: &Disk, folder: &Path, segment_bytes: u64) -> io::Result<()> {
        disk.create_folder(folder)?;
        let head = Head {
            number: 1,
            salt: disk.draw()?,
            first: 1,
        };
        let file = disk.open(&folder.join(segment_name(head.number)), Open::Create)?;
        file.set_len(segment_bytes)?;
        file.write_all_at(&head.encode(), 0)?;
        file.sync_all()?;
        Mark::open(disk, &folder.join("mark"))?;
        disk.publish(&folder.join("floor"), &mark::encode(FLOOR_MAGIC, 1))
    }

    /// The journal in this folder of a data folder. No batch is read yet.
    ///
    /// # Errors
    /// [`Error::Folder`] where a segment is missing, or a head, the floor or the mark is damaged; [`Error::Io`].
    pub(super) fn open(
        disk: &Disk,
        data: &Path,
        folder: &Path,
        durability: Durability,
        segment_bytes: u64,
    ) -> Result<Self, Error> {
        let broken = |why: String| broken(data, why);
        let failed = |error| failed(folder, error);
        let found = Found::list(disk, folder).map_err(failed)?;
        let floor = disk
            .read(&folder.join("floor"))
            .and_then(|bytes| mark::decode(FLOOR_MAGIC, &bytes))
            .map_err(|error| unreadable(data, "the log's file `floor`", error))?;
        if !disk.exists(&folder.join("mark")) {
            return Err(broken("the log's file `mark` is missing".to_owned()));
        }
        let (mark, marked) = Mark::open(disk, &folder.join("mark"))
            .map_err(|error| unreadable(data, "the log's file `mark`", error))?;
        let mut segments = VecDeque::with_capacity(found.segments.len());
        for number in found.segments {
            let head = read_head(disk, &folder.join(segment_name(number))).map_err(failed)?;
            let head = head.and_then(|head| match head.number == number {
                true => Ok(head),
                false => Err(Fault::Damaged(format!("it is segment {}", head.number))),
            });
            segments.push_back(head.map_err(|fault| refused(data, number, &fault))?);
        }
        let Some(last) = segments.back().copied() else {
            return Err(broken("the log has no segment".to_owned()));
        };
        let file = open_segment(disk, folder, last.number).map_err(failed)?;
        let bytes = file.len().map_err(failed)?;
        let current = Current {
            filled: if file.is_dense().map_err(failed)? {
                bytes
            } else {
                0
            },
            file,
            seal: last.seal(),
            end: HEAD_BYTES,
            bytes,
        };
        let next_spare = found.spares.iter().max().map_or(1, |spare| spare + 1);
        Ok(Self {
            disk: disk.clone(),
            data: data.to_owned(),
            log: folder.to_owned(),
            durability,
            segment_bytes,
            mark,
            marked,
            floor,
            segments,
            current,
            unflushed: Vec::new(),
            unflushed_names: false,
            spares: found.spares.into(),
            removals: Removals::default(),
            next_spare,
            next: 0,
        })
    }

    fn broken(&self, why: String) -> Error {
        broken(&self.data, why)
    }

    fn failed(&self, error: io::Error) -> Error {
        failed(&self.log, error)
    }

    /// The segments from the one that holds the floor on.
    fn live(&self) -> Result<Vec<Head>, Error> {
        let before = self
            .segments
            .iter()
            .rposition(|head| head.first <= self.floor)
            .ok_or_else(|| {
                self.broken(format!(
                    "the log begins at {}, but the segment that holds it is missing",
                    self.floor
                ))
            })?;
        let live: Vec<Head> = self.segments.range(before..).copied().collect();
        if let Some(pair) = live.windows(2).find(|pair| pair[0].number + 1 != pair[1].number) {
            return Err(self.broken(format!("segment {} of the log is missing", pair[0].number + 1)));
        }
        Ok(live)
    }

    /// Reads the batches of one segment, and says where they end: at the first batch of the next one, or where no frame follows.
    fn read(
        &mut self,
        head: Head,
        next_first: Option<u64>,
        each: &mut dyn FnMut(u64, Bytes) -> Result<(), Error>,
    ) -> Result<u64, Error> {
        let file = open_segment(&self.disk, &self.log, head.number).map_err(|error| self.failed(error))?;
        // What an earlier process left in the page cache counts as durable from here on.
        file.sync_data().map_err(|error| self.failed(error))?;
        let mut frames = Frames::new(file, head.seal()).map_err(|error| self.failed(error))?;
        let mut unmarked_at = frames.at;
        while next_first.is_none_or(|first| self.next < first) {
            if self.next <= self.marked.saturating_add(1) {
                unmarked_at = frames.at;
            }
            let batch = frames.next(self.next).map_err(|error| self.failed(error))?;
            let Some(batch) = batch else { break };
            if self.next >= self.floor {
                each(self.next, batch)?;
            }
            self.next += 1;
        }
        match next_first {
            Some(first) if self.next != first => Err(self.broken(format!(
                "batch {} of the log is damaged: segment {} has no whole one at {}, and segment {} goes on at {first}",
                self.next,
                head.number,
                frames.at,
                head.number + 1
            ))),
            Some(_) => Ok(frames.at),
            None => {
                self.check_end(head, &frames)?;
                frames.rewrite_from(unmarked_at).map_err(|error| self.failed(error))?;
                Ok(frames.at)
            }
        }
    }

    /// What is wrong with the end of the last segment, if it is not the end of the log.
    fn check_end(&self, head: Head, frames: &Frames) -> Result<(), Error> {
        if self.next <= self.marked {
            return Err(self.broken(format!(
                "the log ends at {}, but {} was durable: its end is lost",
                self.next - 1,
                self.marked
            )));
        }
        let later = frames
            .search_after(self.next)
            .map_err(|error| self.failed(error))?;
        if let Some((sequence, at)) = later {
            return Err(self.broken(format!(
                "batch {} of the log is damaged: segment {} has no whole one at {}, but batch {sequence} at {at}",
                self.next, head.number, frames.at
            )));
        }
        Ok(())
    }

    /// Goes on in a new segment, in which a frame of this many bytes has room.
    fn rotate(&mut self, frame_bytes: u64) -> io::Result<()> {
        if self.durability == Durability::Fsync {
            // A segment that is followed by another one must be whole: power loss must not take its last batch and keep the next head.
            self.current.file.sync_data()?;
        }
        let head = Head {
            number: self.current_number() + 1,
            // Random, so that nobody can foresee which bytes would count as a frame.
            salt: self.disk.draw()?,
            first: self.next,
        };
        let needed = HEAD_BYTES + frame_bytes;
        if self.spares.is_empty() {
            self.make_spare(needed.max(self.segment_bytes))?;
        }
        let spare = self.spares.pop_front().expect("one was made above");
        let path = self.log.join(spare_name(spare));
        let mut file = self.disk.open(&path, Open::Write)?;
        let mut bytes = file.len()?;
        if bytes < needed {
            file.set_len(needed)?;
            bytes = needed;
        }
        file.write_all_at(&head.encode(), 0)?;
        if self.durability == Durability::Fsync {
            file.sync_all()?;
        }
        self.disk
            .rename(&path, &self.log.join(segment_name(head.number)))?;
        // Without it power loss could take the name of a segment whose batches were acknowledged.
        self.flush_names()?;
        file.seek(SeekFrom::Start(HEAD_BYTES))?;
        let current = Current {
            filled: if file.is_dense()? { bytes } else { 0 },
            file,
            seal: head.seal(),
            end: HEAD_BYTES,
            bytes,
        };
        let before = std::mem::replace(&mut self.current, current);
        if self.durability == Durability::Os {
            self.unflushed.push((head.number - 1, before.file));
        }
        self.segments.push_back(head);
        Ok(())
    }

    /// Makes names durable, or notes that the next [`Journal::sync`] must: under [`Durability::Os`] nothing is waited for, and what
    /// power loss leaves is not used.
    fn flush_names(&mut self) -> io::Result<()> {
        self.unflushed_names = self.durability == Durability::Os;
        match self.durability {
            Durability::Fsync => self.disk.sync_folder(&self.log),
            Durability::Os => Ok(()),
        }
    }

    fn current_number(&self) -> u64 {
        self.segments.back().expect("there is always one").number
    }

    /// A new spare. It takes no space yet.
    fn make_spare(&mut self, bytes: u64) -> io::Result<()> {
        let file = self.disk.open(&self.log.join(NEW_SPARE), Open::Create)?;
        file.set_len(bytes)?;
        file.sync_all()?;
        let name = spare_name(self.next_spare);
        self.disk
            .rename(&self.log.join(NEW_SPARE), &self.log.join(name))?;
        self.disk.sync_folder(&self.log)?;
        self.spares.push_back(self.next_spare);
        self.next_spare += 1;
        Ok(())
    }

    /// Whether nothing of the oldest segment is needed.
    fn oldest_is_forgotten(&self) -> bool {
        self.segments
            .get(1)
            .is_some_and(|second| second.first <= self.floor)
    }

    /// Makes the oldest segment a spare, or deletes it if there are enough or it has another size.
    fn recycle(&mut self) -> io::Result<()> {
        let Some(head) = self.segments.pop_front() else {
            return Ok(());
        };
        self.unflushed.retain(|(number, _)| *number != head.number);
        let path = self.log.join(segment_name(head.number));
        if self.spares.len() >= SPARES_MAX || self.bytes_of(&path)? != self.segment_bytes {
            return self.removals.remove(&self.disk, path);
        }
        self.disk
            .rename(&path, &self.log.join(spare_name(self.next_spare)))?;
        // Without it power loss could bring the old name back with the content that it gets as a spare.
        self.flush_names()?;
        self.spares.push_back(self.next_spare);
        self.next_spare += 1;
        Ok(())
    }

    /// Whether flushes will soon have to note where the file's bytes are. Where nothing is flushed it does not matter.
    fn is_short_of_space(&self) -> bool {
        let current = &self.current;
        self.durability == Durability::Fsync
            && current.filled < current.bytes.min(current.end.saturating_add(FILL_AHEAD_BYTES))
    }

    /// Fills a step with zeros behind the last batch.
    fn fill(&mut self) -> io::Result<()> {
        let from = self.current.filled.max(self.current.end);
        let to = (from - from % FILL_STEP_BYTES + FILL_STEP_BYTES).min(self.current.bytes);
        self.current.file.write_zeros(from, to)?;
        // Else the next batch would wait for it.
        self.current.file.sync_data()?;
        self.current.filled = to;
        Ok(())
    }

    /// Whether it is time to have the next segment ready.
    fn is_short_of_spares(&self) -> bool {
        self.spares.is_empty() && self.current.end > self.current.bytes / 2
    }

    /// Deletes spares of another size, and beyond those that are kept.
    fn drop_spares(&mut self) -> io::Result<()> {
        let mut kept = VecDeque::new();
        for spare in std::mem::take(&mut self.spares) {
            let path = self.log.join(spare_name(spare));
            if kept.len() < SPARES_MAX && self.bytes_of(&path)? == self.segment_bytes {
                kept.push_back(spare);
            } else {
                self.disk.remove(&path)?;
            }
        }
        self.spares = kept;
        self.disk.remove(&self.log.join(NEW_SPARE))
    }

    fn bytes_of(&self, path: &Path) -> io::Result<u64> {
        self.disk.open(path, Open::Read)?.len()
    }
}

impl Journal for SegmentJournal {
    fn recover(&mut self, each: &mut dyn FnMut(u64, Bytes) -> Result<(), Error>) -> Result<(), Error> {
        let live = self.live()?;
        self.next = live[0].first;
        for (at, head) in live.iter().enumerate() {
            let next_first = live.get(at + 1).map(|next| next.first);
            self.current.end = self.read(*head, next_first, each)?;
        }
        if self.floor > self.next {
            return Err(self.broken(format!(
                "the log ends at {}, but begins at {}: its end is lost",
                self.next - 1,
                self.floor
            )));
        }
        let end = SeekFrom::Start(self.current.end);
        self.current.file.seek(end).map_err(|error| self.failed(error))?;
        self.drop_spares().map_err(|error| self.failed(error))?;
        self.disk
            .sync_folder(&self.log)
            .map_err(|error| self.failed(error))
    }

    fn append(&mut self, batch: &[u8]) -> io::Result<u64> {
        let length = u32::try_from(batch.len()).ok().filter(|length| *length > 0);
        let length = length
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "an empty batch, or one of 4 GiB"))?;
        let frame_bytes = FRAME_BYTES + u64::from(length);
        if self.current.bytes - self.current.end < frame_bytes {
            self.rotate(frame_bytes)?;
        }
        let sequence = self.next;
        let frame = self.current.seal.frame(sequence, length, batch);
        write_both(&mut self.current.file, &frame, batch)?;
        self.current.end += frame_bytes;
        self.next += 1;
        if self.durability == Durability::Os {
            self.mark.write(sequence)?;
        }
        Ok(sequence)
    }

    fn sync(&mut self) -> io::Result<()> {
        for (_, file) in self.unflushed.drain(..) {
            file.sync_data()?;
        }
        self.current.file.sync_data()?;
        if std::mem::take(&mut self.unflushed_names) {
            self.disk.sync_folder(&self.log)?;
        }
        // After the flush, never before: the mark must not promise what power loss can take.
        self.mark.write(self.next - 1)
    }

    fn forget(&mut self, before: u64) -> io::Result<()> {
        if before <= self.floor {
            return Ok(());
        }
        // Durable before any segment goes: without it power loss could bring the old floor back while what is above it is gone.
        let floor = mark::encode(FLOOR_MAGIC, before);
        self.disk.publish(&self.log.join("floor"), &floor)?;
        self.floor = before;
        Ok(())
    }

    fn tidy(&mut self) -> io::Result<bool> {
        if self.oldest_is_forgotten() {
            self.recycle()?;
        } else if self.is_short_of_space() {
            self.fill()?;
        } else if self.is_short_of_spares() {
            self.make_spare(self.segment_bytes)?;
        }
        Ok(self.oldest_is_forgotten() || self.is_short_of_space() || self.is_short_of_spares())
    }

    fn folder(&self) -> &Path {
        &self.data
    }

    #[cfg(test)]
    fn pause(&self) -> std::time::Duration {
        match &self.disk {
            Disk::System => std::time::Duration::ZERO,
            Disk::Simulated(disk) => disk.pause(),
        }
    }
}

fn broken(data: &Path, why: String) -> Error {
    Error::Folder {
        folder: data.to_owned(),
        why: format!("{why}. {ADVICE}"),
    }
}

/// A segment that cannot be read. Where a later program has written it nothing is lost, and an empty folder no remedy.
fn refused(data: &Path, number: u64, fault: &Fault) -> Error {
    let why = format!("segment {number} of the log {fault}");
    match fault {
        Fault::Damaged(_) => broken(data, why),
        Fault::Later(_) => Error::Folder {
            folder: data.to_owned(),
            why,
        },
    }
}

/// What the system refuses (a permission, a failing disk) is no damage, and an empty folder no remedy.
fn failed(folder: &Path, source: io::Error) -> Error {
    Error::Io {
        doing: format!("reading the log in {}", folder.display()),
        source,
    }
}

/// A spare that is being made.
const NEW_SPARE: &str = "spare.new";

fn segment_name(number: u64) -> String {
    format!("{number:020}.log")
}

fn spare_name(spare: u64) -> String {
    format!("spare.{spare}")
}

/// What a folder holds, by the names in it.
struct Found {
    /// Ascending.
    segments: Vec<u64>,
    spares: Vec<u64>,
}

impl Found {
    fn list(disk: &Disk, folder: &Path) -> io::Result<Self> {
        let (mut segments, mut spares) = (Vec::new(), Vec::new());
        for name in disk.list(folder)? {
            let number = |text: &str| text.parse::<u64>().ok();
            if let Some(number) = name.strip_suffix(".log").and_then(number) {
                segments.push(number);
            } else if let Some(spare) = name.strip_prefix("spare.").and_then(number) {
                spares.push(spare);
            }
        }
        segments.sort_unstable();
        Ok(Self { segments, spares })
    }
}

fn open_segment(disk: &Disk, folder: &Path, number: u64) -> io::Result<File> {
    disk.open(&folder.join(segment_name(number)), Open::Write)
}

/// The head of a segment, or what is wrong with it.
fn read_head(disk: &Disk, path: &Path) -> io::Result<Result<Head, Fault>> {
    let mut bytes = [0; HEAD_BYTES as usize];
    match disk.open(path, Open::Read)?.read_exact(&mut bytes) {
        Ok(()) => Ok(Head::decode(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Ok(Err(Fault::Damaged("it ends too early".to_owned())))
        }
        Err(error) => Err(error),
    }
}

/// Writes a frame's head and its batch with one call, as far as the system takes both.
fn write_both(file: &mut File, head: &[u8], batch: &[u8]) -> io::Result<()> {
    let written = loop {
        match file.write_vectored(&[IoSlice::new(head), IoSlice::new(batch)]) {
            // Not a failure: nothing was written yet.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            end => break end?,
        }
    };
    if let Some(rest) = head.get(written..).filter(|rest| !rest.is_empty()) {
        file.write_all(rest)?;
    }
    file.write_all(&batch[written.saturating_sub(head.len())..])
}

/// Reads the frames of one segment in order.
struct Frames {
    file: BufReader<File>,
    seal: Seal,
    /// Where the next frame begins.
    at: u64,
    bytes: u64,
}

impl Frames {
    fn new(mut file: File, seal: Seal) -> io::Result<Self> {
        let bytes = file.len()?;
        file.seek(SeekFrom::Start(HEAD_BYTES))?;
        Ok(Self {
            file: BufReader::with_capacity(READ_BYTES, file),
            seal,
            at: HEAD_BYTES,
            bytes,
        })
    }

    /// The batch that follows, if it is whole and has this sequence number. After the first that does not, there is none any more.
    fn next(&mut self, sequence: u64) -> io::Result<Option<Bytes>> {
        if self.bytes - self.at < FRAME_BYTES {
            return Ok(None);
        }
        let mut head = [0; FRAME_BYTES as usize];
        self.file.read_exact(&mut head)?;
        let frame = self.seal.read(&head).filter(|frame| frame.sequence == sequence);
        let Some(frame) = frame.filter(|frame| self.has_room(*frame, self.at)) else {
            return Ok(None);
        };
        let mut batch = vec![0; frame.length as usize];
        self.file.read_exact(&mut batch)?;
        if !self.seal.fits(frame, &batch) {
            return Ok(None);
        }
        self.at += FRAME_BYTES + u64::from(frame.length);
        Ok(Some(batch.into()))
    }

    /// Writes what was read from this offset on once more, and flushes it. A flush of it may have failed, and then the system shows what
    /// the disk does not have, and would not write it again.
    fn rewrite_from(&self, mut from: u64) -> io::Result<()> {
        let file = self.file.get_ref();
        let mut buffer = vec![0; READ_BYTES];
        while from < self.at {
            let some = (READ_BYTES as u64).min(self.at - from);
            let some = &mut buffer[..usize::try_from(some).expect("a buffer is small")];
            file.read_exact_at(some, from)?;
            file.write_all_at(some, from)?;
            from += some.len() as u64;
        }
        file.sync_data()
    }

    /// Whether the segment is long enough for a frame at this offset.
    fn has_room(&self, frame: Frame, at: u64) -> bool {
        FRAME_BYTES + u64::from(frame.length) <= self.bytes - at
    }

    /// Looks after the last whole batch, at every offset, for one with a sequence number above this: which one, and where.
    fn search_after(&self, sequence: u64) -> io::Result<Option<(u64, u64)>> {
        let file = self.file.get_ref();
        // As many as could follow at most: an empty one takes a frame's head.
        let most = (self.bytes - self.at) / FRAME_BYTES;
        let overlap = FRAME_BYTES - 1;
        let mut window = vec![0; READ_BYTES];
        let mut from = self.at;
        while self.bytes - from >= FRAME_BYTES {
            let some = (READ_BYTES as u64).min(self.bytes - from);
            let window = &mut window[..usize::try_from(some).expect("a window is small")];
            file.read_exact_at(window, from)?;
            for (at, head) in candidates(window) {
                let is_later = (1..=most).contains(&sequence_at(head).wrapping_sub(sequence));
                if is_later
                    && let at = from + at as u64
                    && let Some(frame) = self.seal.read(head)
                    && self.has_room(frame, at)
                    && self.is_whole(frame, at)?
                {
                    return Ok(Some((frame.sequence, at)));
                }
            }
            if some == self.bytes - from {
                break;
            }
            from += some - overlap;
        }
        Ok(None)
    }

    fn is_whole(&self, frame: Frame, at: u64) -> io::Result<bool> {
        let mut batch = vec![0; frame.length as usize];
        self.file.get_ref().read_exact_at(&mut batch, at + FRAME_BYTES)?;
        Ok(self.seal.fits(frame, &batch))
    }
}

/// Every place in these bytes where a frame's head could be, without those that are in zeros.
fn candidates(window: &[u8]) -> impl Iterator<Item = (usize, &[u8; FRAME_BYTES as usize])> {
    const PAGE: usize = 4 << 10;
    const ZEROS: [u8; PAGE + FRAME_BYTES as usize] = [0; PAGE + FRAME_BYTES as usize];
    let pages = (0..window.len()).step_by(PAGE).map(move |from| {
        let to = window.len().min(from + PAGE + FRAME_BYTES as usize - 1);
        (from, &window[from..to])
    });
    // Segments are zeros for the most part: comparing pages is much faster than looking at each byte.
    let written = pages.filter(|(_, page)| *page != &ZEROS[..page.len()]);
    written.flat_map(|(from, page)| {
        let heads = page.windows(FRAME_BYTES as usize).enumerate();
        heads.map(move |(at, head)| (from + at, head.try_into().expect("a window has this length")))
    })
}

/// Segments that are being deleted, each by a thread of its own: some file systems take tens of milliseconds to take back the space of one, and batches would
/// wait. Ended before the log is opened again.
#[derive(Debug, Default)]
struct Removals(Vec<JoinHandle<()>>);

impl Removals {
    /// Beyond so many at a time the log deletes them itself.
    const AT_ONCE: usize = 16;

    fn remove(&mut self, disk: &Disk, path: PathBuf) -> io::Result<()> {
        self.0.retain(|removal| !removal.is_finished());
        if !disk.is_system() || self.0.len() >= Self::AT_ONCE {
            return disk.remove(&path);
        }
        let disk = disk.clone();
        let removal = move || {
            if let Err(error) = disk.remove(&path) {
                tracing::warn!(path = %path.display(), %error, "a segment of the log stays until the next start");
            }
        };
        let thread = std::thread::Builder::new().name("plenary-remove".to_owned());
        self.0.push(thread.spawn(removal)?);
        Ok(())
    }
}

impl Drop for Removals {
    fn drop(&mut self) {
        for removal in self.0.drain(..) {
            // One that panicked has nothing more to do.
            let _ = removal.join();
        }
    }
}

#[cfg(test)]
mod tests;
