//! The whole machine to versioned, checksummed bytes and back, streamed. Knows nothing of files: it writes to a `Write` and reads from a `Read`.
//!
//! ```text
//! snapshot = header, content frame …, end frame
//! header   = "PLENARY\x1a", version u32
//! frame    = kind u8, length u32, crc32 u32, content        kind 1: content, kind 2: the end
//! ```
//!
//! The crc covers the frame's place in the snapshot, its kind, its length and its content, so a frame that is damaged, missing, doubled or
//! out of place is found; the end frame holds the count of slots, so a snapshot cut between two frames is found too. The contents of all content
//! frames, one after the other, are one run of bytes; a value may span frames, so neither side ever holds more than a frame and a value:
//!
//! ```text
//! content = seeded u8, hash seed u64, clock u64, revision u64, expired u64,
//!           count u32, count × (node u64, start u64, number u64), settings, waiting, access, scripts known, scripts applied,
//!           events of sessions, slot …
//! settings = count u32, count × (name, value)
//! slot    = database u8, key, end u8 (0 never, 1 deadline, 2 deadline and life), deadline u64, life u64 if any, version u64, value
//! value   = kind u8 (1 string, 2 hash, 3 session of format 2, 4 list, 5 set, 6 sorted set, 7 stream, 8 session), then what the type's file in `value/` writes
//! key, name, owner, bytes = length u32, that many bytes
//! ```
//!
//! All integers are little-endian. The digest is taken over the same content, so what a snapshot forgot would be missing from both:
//! `tests/laws.rs` therefore compares behaviour as well. `tests/golden/snapshot-v1.hex`, `-v2.hex`, `-v3.hex` and `-v4.hex` pin the bytes:
//! `tests/snapshot_format.rs` turns red where other bytes are written, new settings aside.

use super::Machine;
use super::access::Access;
use super::effects::Applied;
use super::entry::Millis;
use super::keyspace::{DATABASES, End, Endings, Shard, Slot, Store};
use super::once::Once;
use super::recency::Recency;
use super::scripts::Scripts;
use super::session_events::SessionEvents;
use super::settings::Settings;
use super::value::{Value, counted, packed};
use super::waiting::Waiting;
use bytes::Bytes;
use siphasher::sip128::{Hasher128, SipHasher24};
use std::hash::Hasher;
use std::io::{self, Read, Write};
use std::ops::Range;

/// What every snapshot begins with. The last byte stops a terminal that is shown one by mistake.
const MAGIC: [u8; 8] = *b"PLENARY\x1a";

/// The layout written today. Formats 1, which had no settings and fewer types, 2, without events of sessions, and 3, without lives, are read as well.
pub(super) const VERSION: u32 = 4;

/// The most content bytes of a frame: what a reader allocates before it has verified anything.
const FRAME_BYTES: usize = 64 << 10;

/// Kind, length and crc of a frame.
const FRAME_HEADER: usize = 1 + 4 + 4;

/// Counters read from a snapshot stay below this, so that no later step of one can overflow.
const COUNTER_MAX: u64 = 1 << 62;

const CONTENT: u8 = 1;
const END: u8 = 2;

/// Writes the machine.
///
/// # Errors
/// What the writer answers.
pub fn write(machine: &Machine, out: &mut impl Write) -> io::Result<()> {
    write_frames(machine, machine.store.shards(), out)
}

/// The same of a [`Machine::freeze`], while applying goes on. What was written is let go of: who changes it need not copy it any more, and what only the copy has left is
/// freed on the way, not all at once in the end.
///
/// # Errors
/// What the writer answers.
pub fn write_frozen(mut frozen: Machine, out: &mut impl Write) -> io::Result<()> {
    let shards = frozen.store.take_shards();
    write_frames(&frozen, shards, out)
}

fn write_frames(
    machine: &Machine,
    shards: impl Iterator<Item = (u8, impl AsRef<Shard>)>,
    out: &mut impl Write,
) -> io::Result<()> {
    out.write_all(&MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    let mut frames = FrameWriter {
        out,
        content: Vec::with_capacity(FRAME_BYTES),
        frames: 0,
    };
    let slots = write_content(machine, shards, &mut frames)?;
    frames.end(slots)
}

/// Reads a machine that equals the one written, down to the order in which its keys are walked. Reads not a byte beyond the end frame.
///
/// # Errors
/// `InvalidData` where the bytes are damaged, cut or of a later version, with what is wrong; otherwise what the reader answers.
pub fn read(from: &mut impl Read) -> io::Result<Machine> {
    let mut header = [0; MAGIC.len() + 4];
    fill(from, &mut header, "the header")?;
    let (magic, version) = header.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(invalid(
            "these bytes do not begin as a snapshot of Plenary does".to_owned(),
        ));
    }
    let version = u32::from_le_bytes(version.try_into().expect("4 bytes: split just above"));
    if version > VERSION {
        return Err(invalid(format!(
            "a snapshot in format {version}: this program reads format {VERSION}; run a newer one"
        )));
    }
    if version == 0 {
        return Err(invalid(format!(
            "a snapshot in format {version}, which there never was"
        )));
    }
    let mut frames = FrameReader {
        from,
        content: Vec::new(),
        at: 0,
        frames: 0,
        ended: None,
    };
    read_content(&mut frames, version)
}

/// 128 bits over the whole state: SipHash-2-4 with fixed keys over the content of a snapshot.
pub(super) fn digest(machine: &Machine) -> u128 {
    digest_content(machine, machine.store.shards(), |_| {})
}

/// The same, letting go as [`write_frozen`] does. Tells of all bytes, piece by piece, as it walks over them.
pub(super) fn digest_frozen(mut frozen: Machine, walked: impl FnMut(usize)) -> u128 {
    let shards = frozen.store.take_shards();
    digest_content(&frozen, shards, walked)
}

fn digest_content(
    machine: &Machine,
    shards: impl Iterator<Item = (u8, impl AsRef<Shard>)>,
    walked: impl FnMut(usize),
) -> u128 {
    // Small pieces are gathered first: the hasher is faster on long runs.
    let mut out = io::BufWriter::with_capacity(FRAME_BYTES, DigestWriter::new(walked));
    write_content(machine, shards, &mut out)
        .and_then(|_| out.flush())
        .expect("hashing fails only for a value of 4 GiB, which the machine refuses");
    out.get_ref().hasher.finish128().as_u128()
}

/// 128 bits over one value, as [`digest`] takes them.
pub(super) fn digest_of(value: &Value) -> u128 {
    let mut out = DigestWriter::new(|_| {});
    value
        .write(&mut out)
        .expect("hashing fails only for a value of 4 GiB, which the machine refuses");
    out.hasher.finish128().as_u128()
}

/// Why bytes are not what a snapshot can hold.
pub(super) fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("snapshot: {why}"))
}

/// Fills the buffer; an early end is damage here, not an end.
fn fill(from: &mut impl Read, buffer: &mut [u8], what: &str) -> io::Result<()> {
    from.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => invalid(format!("cut short in {what}")),
        _ => error,
    })
}

struct DigestWriter<F> {
    hasher: SipHasher24,
    walked: F,
}

impl<F: FnMut(usize)> DigestWriter<F> {
    fn new(walked: F) -> Self {
        Self {
            hasher: SipHasher24::new_with_keys(0x706c_656e_6172_7921, 0x6469_6765_7374_2031),
            walked,
        }
    }
}

impl<F: FnMut(usize)> Write for DigestWriter<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.write(bytes);
        (self.walked)(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The checksum of a frame that is the `index`th of its snapshot.
fn checksum(index: u64, kind: u8, content: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&index.to_le_bytes());
    crc.update(&[kind]);
    crc.update(&(content.len() as u64).to_le_bytes());
    crc.update(content);
    crc.finalize()
}

/// Cuts what is written to it into frames.
struct FrameWriter<'a, W> {
    out: &'a mut W,
    content: Vec<u8>,
    frames: u64,
}

impl<W: Write> FrameWriter<'_, W> {
    fn frame(&mut self, kind: u8) -> io::Result<()> {
        let length = u32::try_from(self.content.len()).expect("at most FRAME_BYTES");
        self.out.write_all(&[kind])?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out
            .write_all(&checksum(self.frames, kind, &self.content).to_le_bytes())?;
        self.out.write_all(&self.content)?;
        self.content.clear();
        self.frames += 1;
        Ok(())
    }

    fn end(mut self, slots: u64) -> io::Result<()> {
        self.flush()?;
        self.content.extend_from_slice(&slots.to_le_bytes());
        self.frame(END)
    }
}

impl<W: Write> Write for FrameWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(FRAME_BYTES - self.content.len());
        self.content.extend_from_slice(&bytes[..taken]);
        if self.content.len() == FRAME_BYTES {
            self.frame(CONTENT)?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.content.is_empty() {
            Ok(())
        } else {
            self.frame(CONTENT)
        }
    }
}

/// Writes the content, whose keys stand in these shards; how many slots it has.
fn write_content(
    machine: &Machine,
    shards: impl Iterator<Item = (u8, impl AsRef<Shard>)>,
    out: &mut impl Write,
) -> io::Result<u64> {
    let store = &machine.store;
    out.write_all(&[u8::from(machine.seeded)])?;
    for number in [
        store.hash_seed(),
        store.clock(),
        store.revision(),
        store.expired(),
    ] {
        out.write_all(&number.to_le_bytes())?;
    }
    write_length(out, machine.once.records().count())?;
    for (node, start, number) in machine.once.records() {
        for number in [node, start, number] {
            out.write_all(&number.to_le_bytes())?;
        }
    }
    store.settings().write(out)?;
    store.waiting().write(out)?;
    store.access().write(out)?;
    store.scripts().write(out)?;
    machine.scripts.write(out)?;
    store.session_events().write(out)?;
    let mut slots = 0;
    for (db, shard) in shards {
        for (key, slot) in shard.as_ref().iter() {
            write_slot(out, db, key, slot)?;
            slots += 1;
        }
    }
    Ok(slots)
}

/// One key and what it holds.
pub(super) fn write_slot(out: &mut impl Write, db: u8, key: &[u8], slot: &Slot) -> io::Result<()> {
    out.write_all(&[db])?;
    write_bytes(out, key)?;
    let (deadline, life) = (slot.deadline(), slot.end.life());
    out.write_all(&[u8::from(deadline.is_some()) + u8::from(life > 0)])?;
    out.write_all(&deadline.unwrap_or(0).to_le_bytes())?;
    if life > 0 {
        out.write_all(&life.to_le_bytes())?;
    }
    out.write_all(&slot.version.to_le_bytes())?;
    slot.value.write(out)
}

/// A length and that many bytes.
pub(super) fn write_bytes(out: &mut (impl Write + ?Sized), bytes: &[u8]) -> io::Result<()> {
    write_length(out, bytes.len())?;
    out.write_all(bytes)
}

/// A length, or a count of things.
pub(super) fn write_length(out: &mut (impl Write + ?Sized), length: usize) -> io::Result<()> {
    let length =
        u32::try_from(length).map_err(|_| invalid(format!("{length} bytes or fields in one value")))?;
    out.write_all(&length.to_le_bytes())
}

/// Reads frames, verifies each, and hands out their contents as one run of bytes.
struct FrameReader<'a, R> {
    from: &'a mut R,
    content: Vec<u8>,
    /// How much of `content` was handed out.
    at: usize,
    /// How many frames were read.
    frames: u64,
    /// The count of slots, once the end frame was read.
    ended: Option<u64>,
}

impl<R: Read> FrameReader<'_, R> {
    /// Whether content is left; reads the next frame to know.
    fn more(&mut self) -> io::Result<bool> {
        if self.at < self.content.len() {
            return Ok(true);
        }
        if self.ended.is_some() {
            return Ok(false);
        }
        let kind = self.next_frame()?;
        if kind == END {
            let count = self.content[..]
                .try_into()
                .map_err(|_| invalid("an end frame of a wrong length".to_owned()))?;
            self.ended = Some(u64::from_le_bytes(count));
            self.content.clear();
        }
        Ok(kind == CONTENT)
    }

    fn next_frame(&mut self) -> io::Result<u8> {
        let index = self.frames;
        let mut header = [0; FRAME_HEADER];
        fill(self.from, &mut header, &format!("the header of frame {index}"))?;
        let (kind, [a, b, c, d], [e, f, g, h]) = match header {
            [kind, a, b, c, d, e, f, g, h] => (kind, [a, b, c, d], [e, f, g, h]),
        };
        let (length, crc) = (
            u32::from_le_bytes([a, b, c, d]) as usize,
            u32::from_le_bytes([e, f, g, h]),
        );
        if length == 0 || length > FRAME_BYTES {
            return Err(invalid(format!(
                "frame {index} says it has {length} bytes (1 to {FRAME_BYTES} can be)"
            )));
        }
        self.content.resize(length, 0);
        self.at = 0;
        fill(self.from, &mut self.content, &format!("frame {index}"))?;
        if checksum(index, kind, &self.content) != crc {
            return Err(invalid(format!(
                "frame {index} is damaged: its checksum does not fit"
            )));
        }
        if kind != CONTENT && kind != END {
            return Err(invalid(format!(
                "frame {index} is of kind {kind}, which a later version may know"
            )));
        }
        self.frames += 1;
        Ok(kind)
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        let mut filled = 0;
        while filled < N {
            let part = self.part(N - filled)?;
            bytes[filled..filled + part.len()].copy_from_slice(part);
            filled += part.len();
        }
        Ok(bytes)
    }

    /// Some of the next `most` bytes: as many as the frame at hand has, at least one.
    fn part(&mut self, most: usize) -> io::Result<&[u8]> {
        if !self.more()? {
            return Err(invalid("the content ends inside a record".to_owned()));
        }
        let from = self.at;
        self.at = self.content.len().min(from + most);
        Ok(&self.content[from..self.at])
    }
}

/// What the content of a snapshot is read from, piece by piece.
pub(super) trait Source {
    /// One byte.
    fn u8(&mut self) -> io::Result<u8>;

    /// Four bytes as a number.
    fn u32(&mut self) -> io::Result<u32>;

    /// Eight bytes as a number.
    fn u64(&mut self) -> io::Result<u64>;

    /// A length and that many bytes.
    fn bytes(&mut self) -> io::Result<Bytes>;

    /// The same, of what readers will share: sharing it allocates nothing.
    fn value(&mut self) -> io::Result<Bytes> {
        self.bytes()
    }

    /// That many bytes, put behind others.
    fn append(&mut self, count: usize, to: &mut Vec<u8>) -> io::Result<()>;

    /// A length and that many bytes, put behind others as a text of a run. Where the bytes stand there.
    fn text_into(&mut self, run: &mut Vec<u8>) -> io::Result<Range<usize>> {
        let length = self.u32()?;
        packed::put_number(length.into(), run);
        let begin = run.len();
        self.append(length as usize, run)?;
        Ok(begin..run.len())
    }

    /// Yes or no.
    fn flag(&mut self) -> io::Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(invalid(format!("{other} where only 0 and 1 can be"))),
        }
    }

    /// A number that only grows by steps, and so stays far from the end of its range.
    fn counter(&mut self, what: &str) -> io::Result<u64> {
        let counter = self.u64()?;
        if counter < COUNTER_MAX {
            Ok(counter)
        } else {
            Err(invalid(format!("{what} {counter} cannot be")))
        }
    }
}

impl<R: Read> Source for FrameReader<'_, R> {
    fn u8(&mut self) -> io::Result<u8> {
        self.take().map(|[byte]| byte)
    }

    fn u32(&mut self) -> io::Result<u32> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn u64(&mut self) -> io::Result<u64> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    fn bytes(&mut self) -> io::Result<Bytes> {
        self.copied(Bytes::copy_from_slice)
    }

    fn value(&mut self) -> io::Result<Bytes> {
        self.copied(counted)
    }

    fn append(&mut self, count: usize, to: &mut Vec<u8>) -> io::Result<()> {
        let end = to.len() + count;
        while to.len() < end {
            let part = self.part(end - to.len())?;
            to.extend_from_slice(part);
        }
        Ok(())
    }
}

impl<R: Read> FrameReader<'_, R> {
    /// A length and that many bytes. Memory is taken as the bytes arrive, never on the word of a length.
    fn copied(&mut self, copy: impl FnOnce(&[u8]) -> Bytes) -> io::Result<Bytes> {
        let length = self.u32()? as usize;
        if length <= self.content.len() - self.at {
            self.at += length;
            return Ok(copy(&self.content[self.at - length..self.at]));
        }
        let mut bytes = Vec::new();
        self.append(length, &mut bytes)?;
        Ok(copy(&bytes))
    }
}

fn read_content<R: Read>(from: &mut FrameReader<'_, R>, version: u32) -> io::Result<Machine> {
    let seeded = from.flag()?;
    let mut store = Store::new(from.u64()?);
    let (clock, revision, expired) = (from.u64()?, from.counter("revision")?, from.counter("expired")?);
    store.restore_counters(clock, revision, expired);
    let once = read_once(from)?;
    let mut scripts = Applied::default();
    if version >= 2 {
        *store.settings_mut() = Settings::read(from)?;
        *store.waiting_mut() = Waiting::read(from)?;
        *store.access_mut() = Access::read(from)?;
        *store.scripts_mut() = Scripts::read(from)?;
        scripts = Applied::read(from)?;
    }
    if version >= 3 {
        *store.session_events_mut() = SessionEvents::read(from)?;
    }
    let (mut slots, mut endings) = (0, Endings::default());
    while from.more()? {
        let (db, key, slot) = read_slot(from, revision, clock)?;
        if !store.insert_restored_of_many(db, &key, slot, &mut endings) {
            return Err(invalid(format!("slot {slots} has a key that was there before")));
        }
        slots += 1;
    }
    store.restore_endings(endings);
    match from.ended {
        Some(count) if count != slots => Err(invalid(format!(
            "{slots} slots, but the end frame says {count}: some are missing"
        ))),
        _ if !seeded && slots > 0 => Err(invalid(
            "it holds keys of a machine that has applied nothing".to_owned(),
        )),
        _ => Ok(Machine {
            store,
            once,
            scripts,
            seeded,
        }),
    }
}

fn read_once<R: Read>(from: &mut FrameReader<'_, R>) -> io::Result<Once> {
    let mut records: Vec<(u64, u64, u64)> = Vec::new();
    for _ in 0..from.u32()? {
        let record = (from.u64()?, from.u64()?, from.counter("group number")?);
        if records.last().is_some_and(|last| last.0 >= record.0) {
            return Err(invalid(
                "the records of groups applied are not in order".to_owned(),
            ));
        }
        records.push(record);
    }
    Ok(Once::from_records(records))
}

/// Nothing is kept of when a key was last used: as of the snapshot, all were just now.
pub(super) fn read_slot(
    from: &mut dyn Source,
    revision: u64,
    clock: Millis,
) -> io::Result<(u8, Bytes, Slot)> {
    let db = from.u8()?;
    if usize::from(db) >= DATABASES {
        return Err(invalid(format!("database {db}, of {DATABASES}")));
    }
    let key = from.bytes()?;
    let (kind, deadline) = (from.u8()?, from.u64()?);
    let life = match kind {
        0 | 1 => 0,
        2 => from.u64()?,
        other => {
            return Err(invalid(format!(
                "an end of kind {other}, which a later version may know"
            )));
        }
    };
    let version = from.u64()?;
    if version > revision {
        return Err(invalid(format!(
            "a key of version {version}, after revision {revision}"
        )));
    }
    if kind == 0 && deadline != 0 {
        return Err(invalid("a deadline where none is".to_owned()));
    }
    if kind == 2 && life == 0 {
        return Err(invalid("a life of nothing".to_owned()));
    }
    let value = Value::read(from)?;
    Ok((
        db,
        key,
        Slot {
            value,
            end: End::restored((kind > 0).then_some(deadline), life),
            version,
            recency: Recency::new(clock),
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::entry::{Command, Entry, Origin};
    use crate::machine::value::{Hash, Kind, Session, Str};
    use std::sync::Arc;

    /// A machine with one of everything a snapshot carries; ends are as of time 1,000.
    fn sample() -> Machine {
        let mut machine = Machine::default();
        let origin = Origin {
            node: 7,
            start: 2,
            number: 1,
        };
        machine.apply(&Entry {
            format: Entry::FORMAT,
            at: 1_000,
            seed: 42,
            origin,
            commands: Vec::new(),
        });
        let mut keys = machine.store.keyspace(0, 1);
        keys.put(b"int", Value::string(b"12"));
        keys.put_until(b"embstr", Value::string(b"short"), Some(9_000));
        let mut raw = Str::new(b"1");
        raw.change(|bytes| bytes.extend_from_slice(b"2"));
        keys.put(b"raw", Value::String(raw));
        let mut hash = Hash::default();
        hash.set(b"name", b"value");
        hash.set(b"", b"");
        let mut session = Session {
            version: 3,
            idle_timeout_ms: 1_800_000,
            slack_ms: 90_000,
            absolute_deadline: 99_000,
            created_at: 1_000,
            owner: Bytes::from_static(b"ann"),
            ..Session::default()
        };
        hash.iter()
            .for_each(|(name, value)| session.items.set(name, value, 3));
        let mut keys = machine.store.keyspace(15, 1);
        keys.put(b"hash", hash.into_value());
        keys.put_until(b"session", session.into_value(), Some(2_000));
        machine
    }

    fn bytes_of(machine: &Machine) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(machine, &mut bytes).unwrap();
        bytes
    }

    fn error_of(bytes: &[u8]) -> String {
        let error = read(&mut &bytes[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        error.to_string()
    }

    /// A snapshot of this content, with every checksum right.
    fn forged(content: &[u8], slots: u64) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &VERSION.to_le_bytes()].concat();
        let mut frames = FrameWriter {
            out: &mut bytes,
            content: Vec::new(),
            frames: 0,
        };
        frames.write_all(content).unwrap();
        frames.end(slots).unwrap();
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let machine = sample();
        let bytes = bytes_of(&machine);
        let mut rest = &[&bytes[..], b"what follows"].concat()[..];
        let read = read(&mut rest).unwrap();
        assert_eq!(rest, b"what follows", "not a byte beyond the end is read");
        assert_eq!(bytes_of(&read), bytes);
        assert_eq!(read.digest(), machine.digest());
        assert_eq!(read.next_deadline(), Some(2_000));
        assert_eq!(read.store.bytes(), machine.store.bytes());
        assert_eq!(read.store.counts(0), (3, 1));
        assert_eq!(read.once.last(7, 2), 1);
    }

    /// Takes what is written, and looks whether a copy of the machine still shares keys with it then.
    struct Watching<'a> {
        machine: &'a Machine,
        bytes: Vec<u8>,
        shared: bool,
    }

    impl Write for Watching<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.shared = shares(self.machine);
            self.bytes.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shares(machine: &Machine) -> bool {
        machine
            .store
            .shards()
            .any(|(_, shard)| Arc::strong_count(shard) > 1)
    }

    #[test]
    fn a_frozen_copy_is_the_same_and_lets_go_of_what_was_walked_over() {
        let machine = sample();
        let frozen = machine.freeze();
        assert!(shares(&machine));
        let mut out = Watching {
            machine: &machine,
            bytes: Vec::new(),
            shared: true,
        };
        // So few keys are gathered whole before anything is written.
        write_frozen(frozen, &mut out).unwrap();
        assert!(!out.shared);
        assert_eq!(out.bytes, bytes_of(&machine));
        let (mut walked, mut shared) = (0, true);
        let digest = machine.freeze().into_digest(|bytes| {
            walked += bytes;
            shared = shares(&machine);
        });
        assert_eq!(digest, machine.digest());
        assert!(!shared);
        assert!(walked > machine.store.slots().count());
    }

    #[test]
    fn a_machine_that_has_applied_nothing_is_read_back() {
        let mut read = read(&mut &bytes_of(&Machine::default())[..]).unwrap();
        assert_eq!(read.digest(), Machine::default().digest());
        // It takes its hash seed from its first entry, as a new one does.
        let entry = Entry {
            format: Entry::FORMAT,
            at: 1,
            seed: 9,
            origin: Origin::default(),
            commands: Vec::<Command>::new(),
        };
        read.apply(&entry);
        assert_eq!(read.store.hash_seed(), 9);
    }

    #[test]
    fn format_1_is_still_read() {
        let golden: String = include_str!("../../tests/golden/snapshot-v1.hex")
            .split_whitespace()
            .collect();
        let bytes: Vec<u8> = (0..golden.len() / 2)
            .map(|at| u8::from_str_radix(&golden[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let mut then = sample();
        // Nothing was kept of what happened to sessions.
        *then.store.session_events_mut() = SessionEvents::default();
        let mut read = read(&mut &bytes[..]).unwrap();
        assert_eq!(read.store.settings().level, Entry::FIRST_FORMAT, "and no level");
        read.raise_level(Entry::FORMAT);
        // What had ended by then stays so, where a life is a millisecond longer now.
        then.store.move_clock(then.store.clock() + 1);
        assert_eq!(read.digest(), then.digest());
    }

    #[test]
    fn every_cut_is_found() {
        let bytes = bytes_of(&sample());
        for end in 0..bytes.len() {
            assert!(error_of(&bytes[..end]).contains("cut short"), "cut at {end}");
        }
    }

    #[test]
    fn every_flip_of_a_bit_is_found() {
        let bytes = bytes_of(&sample());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            error_of(&damaged);
        }
    }

    #[test]
    fn frames_out_of_place_are_found() {
        let mut machine = sample();
        let value = vec![b'x'; FRAME_BYTES * 3];
        machine.store.keyspace(0, 1).put(b"large", Value::string(&value));
        let bytes = bytes_of(&machine);
        assert_eq!(
            bytes_of(&read(&mut &bytes[..]).unwrap()),
            bytes,
            "a value over several frames"
        );
        let (header, frame) = (MAGIC.len() + 4, FRAME_HEADER + FRAME_BYTES);
        let missing = [&bytes[..header + frame], &bytes[header + 2 * frame..]].concat();
        assert!(error_of(&missing).contains("frame 1 is damaged"));
        let doubled = [&bytes[..header + frame], &bytes[header..]].concat();
        assert!(error_of(&doubled).contains("frame 1 is damaged"));
    }

    #[test]
    fn a_later_format_is_refused_by_name() {
        let mut bytes = bytes_of(&sample());
        bytes[MAGIC.len()] = 9;
        assert!(error_of(&bytes).contains("in format 9: this program reads format 4; run a newer one"));
        assert!(error_of(b"PLENARY?    ").contains("do not begin as a snapshot"));
    }

    #[test]
    fn lies_under_right_checksums_are_refused() {
        let mut head = Vec::new();
        let empty = Machine::default();
        write_content(&empty, empty.store.shards(), &mut head).unwrap();
        head[0] = 1; // seeded
        let with = |rest: &[&[u8]], slots| error_of(&forged(&[&head[..], &rest.concat()].concat(), slots));
        assert!(with(&[], 1).contains("0 slots, but the end frame says 1"));
        assert!(with(&[&[16]], 1).contains("database 16"));
        assert!(
            with(&[&[0], &u32::MAX.to_le_bytes(), b"key"], 1).contains("the content ends inside a record")
        );
        let key = [&[0][..], &1u32.to_le_bytes(), b"k", &[0; 17]].concat();
        assert!(with(&[&key, &[9]], 1).contains("kind 9"));
        assert!(with(&[&key, &[1, 1], &1u32.to_le_bytes(), b"x"], 1).contains("cannot be of encoding Int"));
        assert!(with(&[&key, &[2, 0], &0u32.to_le_bytes()], 1).contains("a hash with nothing in it"));
        assert!(
            with(&[&key, &[2, 0], &u32::MAX.to_le_bytes()], 1).contains("the content ends inside a record")
        );
        let string = [&key[..], &[1, 3, 0, 0, 0, 0]].concat();
        assert!(with(&[&string, &string], 2).contains("a key that was there before"));
    }
}
