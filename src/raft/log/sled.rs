//! The log's journal in sled, and the one sled database of a data folder. Knows nothing of records.
//!
//! Two things about sled 0.34 shape this file. Its `flush` is a write and a `sync_file_range`: the bytes leave the process, but neither the
//! disk's cache nor the file's size is flushed, so power loss can take them. A `File::sync_data` of its file on a handle of our own after
//! each flush mends that. And it writes what does not fit in a quarter of a segment to a file of its own that is never synced; that
//! holds not for values alone but for whole leaves of up to [`LEAF_VALUES`] of them. Hence [`SEGMENT_BYTES`] and [`PART_BYTES`].
//!
//! A batch is one value under its sequence number, or several if it is large:
//!
//! ```text
//! value = version u8 (1) | part u16 | parts u16 | crc32 of sequence number, part, parts and content u32 | content
//! ```
//!
//! What power loss would do to it, and what is done against that (`log/tests/power.rs` found it):
//!
//! * sled never flushes the file `conf`, without which it opens nothing: [`Database::open`] does;
//! * at a start it overwrites segments before the note that no longer needs them is durable: [`note_ahead`];
//! * of a tail that reaches over more than one segment it may take the end for all of it: [`UNFLUSHED`].
//!
//! What sled itself may lose: it takes a damaged message for the torn end of its log and silently drops everything after it. So the greatest
//! sequence number that was acknowledged stands in a file beside it (`log.mark`, written after each batch, not synced: it costs a microsecond).
//! A log that ends before its mark is refused. Undetected remains a loss of both together: power loss with a disk that forgets what it
//! had acknowledged, or a folder restored from an old copy.

use super::mark::Mark;
use super::{ADVICE, Journal, unreadable};
use crate::config::Durability;
use crate::error::Error;
use crate::raft::files::{Disk, lock_soon};
use bytes::{Buf, BufMut, Bytes};
use sled::Tree;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// sled's segment: a quarter of it is the most that sled writes to its log file, the rest goes to files it never syncs.
pub(super) const SEGMENT_BYTES: usize = 2 << 20;

/// Content of one value. A leaf is split beyond 16 values and may hold a few more for a moment.
const PART_BYTES: usize = 24 << 10;

/// The most values a leaf holds, with a margin (16, one insert before the split, merging with a small neighbour).
const LEAF_VALUES: usize = 20;

const _: () = assert!(LEAF_VALUES * (PART_BYTES + 64) < SEGMENT_BYTES / 4);

/// sled's own cache. Our trees are written once and read at start only.
const CACHE_BYTES: u64 = 32 << 20;

/// What may be changed between two flushes, counted as below, so that sled writes less than a segment in between. From what a segment's head says
/// was written sled concludes that the segments before it are whole. If power loss makes that wrong, what was flushed long ago is gone too.
const UNFLUSHED: usize = 16;

/// What a part counts. With it sled may write its leaf anew, or split it, and clean another: close to a megabyte.
const INSERTED: usize = 8;

/// What a removal counts. Of ten one writes the leaf anew.
const REMOVED: usize = 1;

/// Keys deleted at one step; a step is taken between two batches, so it must not hold up the next one for long.
const DELETED_AT_ONCE: usize = 64;

/// What the name of sled's note of where its log stands begins with.
const NOTE: &str = "snap.";

/// The folder in sled's where it is opened once on a copy.
const REHEARSAL: &str = "rehearsal";

/// The mark's name in the data folder.
pub(super) const MARK: &str = "log.mark";

/// The layout of values written today.
const VERSION: u8 = 1;

/// Bytes before the content of a value.
const HEAD: usize = 1 + 2 + 2 + 4;

/// The one sled database of a data folder, shared by the log and the cold records.
#[derive(Debug)]
pub(crate) struct Database {
    db: sled::Db,
    /// sled's file on a handle of our own: what is flushed to the disk.
    file: File,
    data: PathBuf,
}

impl Database {
    /// Opens or creates `<data>/sled`. The caller holds the folder's lock.
    ///
    /// # Errors
    /// [`Error::Folder`] where sled finds it damaged, whatever way sled says so.
    pub(crate) fn open(data: &Path) -> Result<Arc<Self>, Error> {
        let path = data.join("sled");
        // What the system refuses (a full disk, a permission) is no damage, and an empty folder no remedy.
        let damaged = |error: io::Error| match error.raw_os_error() {
            Some(_) => Error::Io {
                doing: format!("opening the database in the data folder {}", data.display()),
                source: error,
            },
            None => Error::Folder {
                folder: data.to_owned(),
                why: format!("its database `sled` cannot be opened: {error}. {ADVICE}"),
            },
        };
        // Never refused for another process: the folder's lock is ours. If it stays locked, sled says so itself.
        if let Ok(file) = File::open(path.join("db"))
            && lock_soon(&file).is_ok()
        {
            file.unlock().map_err(damaged)?;
        }
        clear_unfinished(&path).map_err(damaged)?;
        note_ahead(&path).map_err(damaged)?;
        let db = guarded(|| config(&path).open()).map_err(damaged)?;
        let file = File::options()
            .read(true)
            .write(true)
            .open(path.join("db"))
            .map_err(damaged)?;
        let database = Self {
            db,
            file,
            data: data.to_owned(),
        };
        // What an earlier process left in the page cache counts as durable from here on, and so do the names of new files.
        database.durable().map_err(damaged)?;
        // sled never flushes what it was made with. Of zeros, as power loss may leave it, it opens nothing ever again.
        File::open(path.join("conf"))
            .and_then(|file| file.sync_all())
            .map_err(damaged)?;
        Disk::System
            .sync_folder(&path)
            .and_then(|()| Disk::System.sync_folder(data))
            .map_err(damaged)?;
        Ok(Arc::new(database))
    }

    /// A tree by its name.
    pub(crate) fn tree(&self, name: &str) -> io::Result<Tree> {
        guarded(|| self.db.open_tree(name))
    }

    /// Hands everything written so far to the system: it survives the death of this process.
    pub(crate) fn flush(&self) -> io::Result<()> {
        guarded(|| self.db.flush()).map(|_| ())
    }

    /// Makes everything flushed so far survive power loss.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// [`Database::flush`] and [`Database::sync`].
    pub(crate) fn durable(&self) -> io::Result<()> {
        self.flush()?;
        self.sync()
    }
}

/// How sled is opened, in this folder.
fn config(path: &Path) -> sled::Config {
    sled::Config::default()
        .path(path)
        .segment_size(SEGMENT_BYTES)
        .cache_capacity(CACHE_BYTES)
        // Its thread would clean segment after segment before it flushes. They are cleaned with every leaf that is written anew, too.
        .flush_every_ms(None)
}

/// Removes what a process left that was killed while sled wrote down where its log stands. sled, which writes that at its start, takes the unfinished
/// file for the newest one and refuses to open for good (spacejam/sled#1527); the one before it is only removed once the new one has its name.
fn clear_unfinished(path: &Path) -> io::Result<()> {
    let disk = Disk::System;
    if !disk.exists(path) {
        return Ok(());
    }
    let unfinished = |name: &String| name.starts_with(NOTE) && name.ends_with(".generating");
    let names = disk.list(path)?;
    names
        .iter()
        .filter(|name| unfinished(name))
        .try_for_each(|name| disk.remove(&path.join(name)))
}

/// Makes the note of where the log stands that sled would make at its start, on a copy, and puts it here durably.
///
/// sled itself removes the note before it and overwrites what only that one needed, while the new one's name is not flushed: power loss could
/// leave an old note or none, of which it opens with nothing, or not at all. Where the note is there already, it makes none. A log within its
/// first segment needs no note: it is read from its beginning.
fn note_ahead(path: &Path) -> io::Result<()> {
    let (disk, rehearsal) = (Disk::System, path.join(REHEARSAL));
    disk.remove(&rehearsal)?;
    let db = path.join("db");
    if !disk.exists(&db) || fs::metadata(&db)?.len() <= SEGMENT_BYTES as u64 {
        return Ok(());
    }
    // What an earlier process left in the page cache must not be gone when there is a note of it.
    File::open(&db)?.sync_all()?;
    let is_note = |name: &String| name.starts_with(NOTE);
    let is_copied = |name: &String| name == "db" || name == "conf" || is_note(name);
    disk.create_folder(&rehearsal)?;
    for name in disk.list(path)?.iter().filter(|name| is_copied(name)) {
        fs::copy(path.join(name), rehearsal.join(name))?;
    }
    drop(guarded(|| config(&rehearsal).open())?);
    for name in disk.list(&rehearsal)?.iter().filter(|name| is_note(name)) {
        File::open(rehearsal.join(name))?.sync_all()?;
        disk.rename(&rehearsal.join(name), &path.join(name))?;
    }
    disk.sync_folder(path)?;
    disk.remove(&rehearsal)?;
    let mut notes: Vec<_> = disk.list(path)?.into_iter().filter(is_note).collect();
    notes.sort();
    notes.pop();
    notes.iter().try_for_each(|older| disk.remove(&path.join(older)))
}

/// Calls sled, which answers damage with an error or with a panic: both become an error.
pub(crate) fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> io::Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) if error.raw_os_error().is_some() => Err(error),
        Ok(Err(error)) => Err(io::Error::other(error)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no reason given");
            Err(io::Error::other(format!("sled panicked: {text}")))
        }
    }
}

/// The journal: tree `log` holds the parts, tree `log-floor` where the log begins.
#[derive(Debug)]
pub(crate) struct SledJournal {
    database: Arc<Database>,
    log: Tree,
    floor_tree: Tree,
    mark: Mark,
    marked: u64,
    durability: Durability,
    /// The sequence number of the next part.
    next: u64,
    /// What was changed since the last flush: [`UNFLUSHED`].
    unflushed: usize,
    /// Parts before this one are forgotten; those before `deleted` are gone.
    floor: u64,
    deleted: u64,
}

impl SledJournal {
    /// The journal of this database. Nothing is read yet.
    ///
    /// # Errors
    /// [`Error::Folder`] where the floor or the mark is damaged.
    pub(crate) fn open(database: Arc<Database>, durability: Durability) -> Result<Self, Error> {
        let (log, floor_tree, floor) =
            Self::trees(&database).map_err(|error| unreadable(&database.data, "the log", error))?;
        let (mark, marked) = Mark::open(&Disk::System, &database.data.join(MARK))
            .map_err(|error| unreadable(&database.data, "the file `log.mark`", error))?;
        Ok(Self {
            database,
            log,
            floor_tree,
            mark,
            marked,
            durability,
            next: floor,
            unflushed: 0,
            floor,
            deleted: floor,
        })
    }

    /// The batches, and the floor below which there are none any more.
    fn trees(database: &Database) -> io::Result<(Tree, Tree, u64)> {
        let (log, floors) = (database.tree("log")?, database.tree("log-floor")?);
        let floor = match guarded(|| floors.get(b"floor"))? {
            None => 1,
            Some(bytes) => decode_floor(&bytes).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the checksum of its floor does not fit",
                )
            })?,
        };
        Ok((log, floors, floor))
    }

    /// Empties the log of this database, durably, if it is not empty. Its mark goes first: without a log it would say that one is lost.
    ///
    /// # Errors
    /// What the disk answered.
    pub(super) fn clear(database: &Database) -> io::Result<()> {
        let trees = [database.tree("log")?, database.tree("log-floor")?];
        let mark = database.data.join(MARK);
        if trees.iter().all(Tree::is_empty) && !mark.exists() {
            return Ok(());
        }
        Disk::System.remove(&mark)?;
        for tree in &trees {
            for (number, key) in (1..).zip(tree.iter().keys()) {
                guarded(|| tree.remove(key?))?;
                if number % UNFLUSHED == 0 {
                    database.durable()?;
                }
            }
        }
        database.durable()
    }

    fn broken(&self, why: String) -> Error {
        Error::Folder {
            folder: self.database.data.clone(),
            why: format!("{why}. {ADVICE}"),
        }
    }

    /// Takes away the parts of a last batch that was never completed, nor acknowledged.
    fn cut(&mut self, first: u64) -> io::Result<()> {
        tracing::warn!(
            first,
            next = self.next,
            "the log's last batch is torn and was never acknowledged: it is cut"
        );
        // From its end: what is left of it after the next power loss is still the beginning of one.
        for sequence in (first..self.next).rev() {
            self.remove(sequence)?;
        }
        self.database.durable()?;
        self.next = first;
        Ok(())
    }

    fn remove(&mut self, sequence: u64) -> io::Result<()> {
        guarded(|| self.log.remove(sequence.to_be_bytes()))?;
        self.changed(REMOVED)
    }

    /// Counts a change, and flushes if it is time to. Where nothing is flushed, power loss takes the whole folder anyway.
    fn changed(&mut self, by: usize) -> io::Result<()> {
        self.unflushed += by;
        if self.unflushed < UNFLUSHED || self.durability == Durability::Os {
            return Ok(());
        }
        self.unflushed = 0;
        self.database.durable()
    }

    /// What is wrong with a log that ends before something it had acknowledged.
    fn check_end(&self) -> Result<(), Error> {
        if self.next > self.marked {
            return Ok(());
        }
        Err(self.broken(format!(
            "the log ends at {}, but {} was durable: its end is lost",
            self.next - 1,
            self.marked
        )))
    }
}

/// One value's content and which part of how many it is.
struct Part {
    part: u16,
    parts: u16,
    content: Bytes,
}

fn checksum(sequence: u64, part: u16, parts: u16, content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&sequence.to_le_bytes());
    hasher.update(&part.to_le_bytes());
    hasher.update(&parts.to_le_bytes());
    hasher.update(content);
    hasher.finalize()
}

fn encode_part(sequence: u64, part: u16, parts: u16, content: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEAD + content.len());
    value.put_u8(VERSION);
    value.put_u16_le(part);
    value.put_u16_le(parts);
    value.put_u32_le(checksum(sequence, part, parts, content));
    value.put_slice(content);
    value
}

fn decode_part(sequence: u64, value: &[u8]) -> Result<Part, String> {
    let mut head = value;
    if value.len() < HEAD {
        return Err("it is too short".to_owned());
    }
    match head.get_u8() {
        VERSION => {}
        other => {
            return Err(format!(
                "it has format {other}, this program reads {VERSION}: run a newer one"
            ));
        }
    }
    let (part, parts, expected) = (head.get_u16_le(), head.get_u16_le(), head.get_u32_le());
    if checksum(sequence, part, parts, head) != expected || part >= parts {
        return Err("its checksum does not fit".to_owned());
    }
    Ok(Part {
        part,
        parts,
        content: Bytes::copy_from_slice(head),
    })
}

fn encode_floor(floor: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&floor.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..8]);
    bytes[8..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn decode_floor(bytes: &[u8]) -> Option<u64> {
    let floor = bytes.get(..8)?.get_u64_le();
    (bytes == encode_floor(floor)).then_some(floor)
}

impl Journal for SledJournal {
    fn recover(&mut self, each: &mut dyn FnMut(u64, Bytes) -> Result<(), Error>) -> Result<(), Error> {
        let mut keys = self.log.iter();
        // Where the batch that is being put together began, its parts so far and how many it needs.
        let (mut first, mut open, mut needed) = (self.floor, Vec::new(), 0);
        while let Some(item) = guarded(|| keys.next().transpose()).map_err(|error| {
            self.broken(format!("the log cannot be read after {}: {error}", self.next - 1))
        })? {
            let Ok(key) = <[u8; 8]>::try_from(item.0.as_ref()) else {
                return Err(self.broken("the log has a key that is no sequence number".to_owned()));
            };
            let sequence = u64::from_be_bytes(key);
            if sequence < self.floor {
                self.deleted = self.deleted.min(sequence);
                continue;
            }
            if sequence != self.next {
                return Err(self.broken(format!(
                    "part {} of the log is missing; the next is {sequence}",
                    self.next
                )));
            }
            let part = decode_part(sequence, &item.1)
                .map_err(|why| self.broken(format!("part {sequence} of the log is damaged: {why}")))?;
            if open.is_empty() {
                (first, needed) = (sequence, part.parts);
            }
            if usize::from(part.part) != open.len() || part.parts != needed {
                return Err(self.broken(format!(
                    "part {sequence} of the log stands where it does not belong"
                )));
            }
            self.next += 1;
            open.push(part.content);
            if open.len() == usize::from(needed) {
                let batch = if open.len() == 1 {
                    open.remove(0)
                } else {
                    Bytes::from(open.concat())
                };
                open.clear();
                each(first, batch)?;
            }
        }
        if !open.is_empty() {
            if self.marked >= first {
                return Err(self.broken(format!(
                    "the log ends within batch {first}, but {} was durable: its end is lost",
                    self.marked
                )));
            }
            self.cut(first)
                .map_err(|error| self.broken(format!("the log's torn end cannot be cut: {error}")))?;
        }
        self.check_end()
    }

    fn append(&mut self, batch: &[u8]) -> io::Result<u64> {
        let first = self.next;
        let parts = u16::try_from(batch.len().div_ceil(PART_BYTES))
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a batch of more than 1.5 GiB"))?;
        for (part, content) in (0..parts).zip(batch.chunks(PART_BYTES)) {
            let value = encode_part(self.next, part, parts, content);
            guarded(|| self.log.insert(self.next.to_be_bytes(), value))?;
            self.next += 1;
            self.changed(INSERTED)?;
        }
        self.database.flush()?;
        if self.durability == Durability::Os {
            self.mark.write(self.next - 1)?;
        }
        Ok(first)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.database.sync()?;
        self.unflushed = 0;
        // After the flush, never before: the mark must not promise what power loss can take.
        self.mark.write(self.next - 1)
    }

    fn forget(&mut self, before: u64) -> io::Result<()> {
        if before <= self.floor {
            return Ok(());
        }
        guarded(|| self.floor_tree.insert(b"floor", &encode_floor(before)))?;
        // Without it power loss could bring the old floor back while the first parts above it are gone: a hole.
        self.database.durable()?;
        self.floor = before;
        Ok(())
    }

    fn tidy(&mut self) -> io::Result<bool> {
        let end = self
            .floor
            .min(self.deleted.saturating_add(DELETED_AT_ONCE as u64));
        for sequence in self.deleted..end {
            self.remove(sequence)?;
        }
        self.deleted = end;
        Ok(self.deleted < self.floor)
    }

    fn folder(&self) -> &Path {
        &self.database.data
    }
}

#[cfg(test)]
mod tests;
