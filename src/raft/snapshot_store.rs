//! Snapshot files: written aside, flushed, renamed, the folder flushed. Two are kept. Knows nothing of what is in a machine.
//!
//! ```text
//! file = magic "PLNSNAP" u8[7] | version u8 (1) | length of meta u32 | meta (a cold record) | content | foot
//! foot = length of content u64 | crc32 of content u32 | crc32 of the foot so far u32
//! ```
//!
//! The foot comes last because a snapshot is written in one pass, without knowing how long it gets. Files travel to peers as they are.
//! Which files count stands in the catalogue (meta.rs), written after the file is durable: what is not in it is removed at start.

use super::files::{Disk, File, Open};
use super::log::ADVICE;
use super::meta::{CatalogueEntry, Meta, cold};
use super::rests::{Hurry, Rests};
use super::{COUNTER_MAX, Types};
use crate::error::Error;
use bytes::Buf;
use openraft::type_config::alias::SnapshotMetaOf;
use parking_lot::Mutex;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a snapshot covers: its last entry and the membership then.
pub(crate) type SnapshotMeta = SnapshotMetaOf<Types>;

/// Snapshots kept: the newest, and one to fall back to if its file turns out damaged.
const KEPT: usize = 2;

/// Bytes written between two flushes: what a flush of the log may have to wait for.
const FLUSHED_AT_ONCE: u64 = 1 << 20;

/// Bytes read or written at once.
const BUFFER: usize = 256 << 10;

/// Bytes of the record that says what a snapshot covers, at most: hundreds of members need less.
const META_BYTES: usize = 1 << 20;

const MAGIC: &[u8; 8] = b"PLNSNAP\x01";
const FOOT: usize = 8 + 4 + 4;

/// A snapshot as openraft passes it around: a file, not its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotFile {
    /// What it covers.
    pub(crate) meta: SnapshotMeta,
    /// Where it is. Newer snapshots replace it: whoever reads it for long opens it at once.
    pub(crate) path: PathBuf,
    /// Its length in bytes, head and foot included.
    pub(crate) len: u64,
    /// The disk it is on.
    pub(super) disk: Disk,
    /// Of one that was received: whoever has it last removes the file, which is gone from there if it was adopted.
    pub(super) aside: Option<Arc<Aside>>,
}

/// The snapshots of this node. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotStore {
    meta: Meta,
    folder: PathBuf,
    /// Guards the catalogue and the files it names while one is published or given up: a few renames and flushes.
    publishing: Arc<Mutex<()>>,
    /// Tells files aside apart.
    aside: Arc<AtomicU64>,
    /// Whether whoever writes a snapshot is to end soon.
    hurry: Hurry,
    /// Held while one is written.
    writing: Arc<Mutex<()>>,
}

/// A snapshot that arrives from a peer in chunks. Dropped unfinished, it leaves nothing.
#[derive(Debug)]
pub(crate) struct Receiving {
    file: File,
    aside: Aside,
    len: u64,
    unflushed: u64,
}

/// A file aside; removed unless it is published.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Aside {
    disk: Disk,
    path: PathBuf,
}

impl Drop for Aside {
    fn drop(&mut self) {
        // It is gone when it was published; what cannot be removed now is removed at the next start.
        let _ = self.disk.remove(&self.path);
    }
}

impl SnapshotStore {
    /// Opens `<data>/snapshots` (made if absent) and removes what no catalogue knows.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn open(meta: Meta) -> Result<Self, Error> {
        let folder = meta.folder().join("snapshots");
        let io = |source| Error::Io {
            doing: format!("opening the snapshots in {}", folder.display()),
            source,
        };
        meta.disk().create_folders(&folder).map_err(io)?;
        let store = Self {
            meta,
            folder: folder.clone(),
            publishing: Arc::default(),
            aside: Arc::default(),
            hurry: Hurry::default(),
            writing: Arc::default(),
        };
        store.remove_strangers().map_err(io)?;
        Ok(store)
    }

    /// The newest snapshot.
    pub(crate) fn newest(&self) -> Option<SnapshotFile> {
        self.meta.snapshots().last().map(|entry| self.file(entry))
    }

    /// Loads the newest snapshot that is whole. One that is damaged or missing is passed over if the log still begins where an older
    /// one (or nothing) ends; it leaves the catalogue, and its file stays as `*.damaged` for whoever wants to look.
    ///
    /// # Errors
    /// [`Error::Folder`] when no whole snapshot reaches the log, which was purged up to `purged`.
    pub(crate) fn load_newest<T>(
        &self,
        purged: Option<u64>,
        read: impl Fn(&mut dyn Read) -> io::Result<T>,
    ) -> Result<Option<(SnapshotMeta, T)>, Error> {
        let mut damage = None;
        while let Some(snapshot) = self.newest() {
            match snapshot.read(&read) {
                Ok(content) => {
                    let last = snapshot.meta.last_log_id.map(|id| id.index);
                    self.check_reach(last, purged, damage)?;
                    return Ok(Some((snapshot.meta, content)));
                }
                Err(error) => {
                    tracing::error!(snapshot = %snapshot.path.display(), %error, "a snapshot is damaged");
                    let older = self
                        .meta
                        .snapshots()
                        .iter()
                        .rev()
                        .nth(1)
                        .and_then(|entry| entry.meta.last_log_id);
                    damage = Some(format!(
                        "snapshot {} is damaged: {error}",
                        snapshot.path.display()
                    ));
                    // Judge before giving it up: a node that cannot start must say the same at its next start.
                    self.check_reach(older.map(|id| id.index), purged, damage.clone())?;
                    self.give_up(&snapshot)?;
                }
            }
        }
        self.check_reach(None, purged, damage)?;
        Ok(None)
    }

    /// Whether a state up to `last` and a log purged up to `purged` leave no gap.
    fn check_reach(
        &self,
        last: Option<u64>,
        purged: Option<u64>,
        damage: Option<String>,
    ) -> Result<(), Error> {
        if purged <= last {
            return Ok(());
        }
        let damage = damage.unwrap_or_else(|| "snapshots are missing".to_owned());
        let why =
            format!("{damage}, and the log begins after {purged:?}, beyond any other snapshot. {ADVICE}");
        Err(Error::Folder {
            folder: self.meta.folder().to_owned(),
            why,
        })
    }

    fn give_up(&self, snapshot: &SnapshotFile) -> Result<(), Error> {
        let _publishing = self.publishing.lock();
        let mut entries = self.meta.snapshots();
        entries.retain(|entry| self.folder.join(&entry.file) != snapshot.path);
        self.meta.set_snapshots(entries)?;
        // A missing file cannot be kept; that it is damaged is logged.
        let damaged = snapshot.path.with_extension("damaged");
        let _ = snapshot.disk.rename(&snapshot.path, &damaged);
        Ok(())
    }

    /// Where to say that the node stops: then a snapshot that is being written is written without rests.
    pub(super) fn hurry(&self) -> &Hurry {
        &self.hurry
    }

    /// Whether a snapshot is being written.
    pub(crate) fn writes(&self) -> bool {
        self.writing.is_locked()
    }

    /// Writes a snapshot and publishes it. Blocks on the disk: not for a task.
    ///
    /// # Errors
    /// What the disk or `content` answered; nothing is left then.
    pub(crate) fn write(
        &self,
        meta: &SnapshotMeta,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<SnapshotFile> {
        let _writing = self.writing.lock();
        let (file, aside) = self.aside()?;
        let mut out = ContentWriter::begin(
            BufWriter::with_capacity(BUFFER, GentleFile::new(file, &self.hurry)),
            meta,
        )?;
        content(&mut out)?;
        let len = out.finish()?;
        self.publish(aside, meta, len)
    }

    /// Begins to receive a snapshot from a peer.
    ///
    /// # Errors
    /// What the disk answered.
    pub(crate) fn receive(&self) -> io::Result<Receiving> {
        let (file, aside) = self.aside()?;
        Ok(Receiving {
            file,
            aside,
            len: 0,
            unflushed: 0,
        })
    }

    /// Makes a snapshot file one of this store, wherever it is: received, of another store, or one of ours already.
    ///
    /// # Errors
    /// What the disk answered.
    pub(super) fn adopt(&self, snapshot: &SnapshotFile) -> io::Result<SnapshotFile> {
        if self
            .meta
            .snapshots()
            .iter()
            .any(|entry| self.folder.join(&entry.file) == snapshot.path)
        {
            return Ok(snapshot.clone());
        }
        let aside = if snapshot.path.parent() == Some(&self.folder) {
            Aside {
                disk: snapshot.disk.clone(),
                path: snapshot.path.clone(),
            }
        } else {
            let (mut file, aside) = self.aside()?;
            io::copy(&mut snapshot.open()?, &mut file)?;
            file.sync_all()?;
            aside
        };
        self.publish(aside, &snapshot.meta, snapshot.len)
    }

    fn file(&self, entry: &CatalogueEntry) -> SnapshotFile {
        SnapshotFile {
            meta: entry.meta.clone(),
            path: self.folder.join(&entry.file),
            len: entry.len,
            disk: self.meta.disk().clone(),
            aside: None,
        }
    }

    fn aside(&self) -> io::Result<(File, Aside)> {
        let number = self.aside.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{number}.aside"));
        let disk = self.meta.disk().clone();
        Ok((disk.open(&path, Open::CreateNew)?, Aside { disk, path }))
    }

    /// Gives a durable file its name, makes that durable, notes it in the catalogue and removes what is too old.
    fn publish(&self, aside: Aside, meta: &SnapshotMeta, len: u64) -> io::Result<SnapshotFile> {
        let _publishing = self.publishing.lock();
        let entry = CatalogueEntry {
            file: name(meta),
            meta: meta.clone(),
            len,
        };
        let disk = self.meta.disk();
        disk.rename(&aside.path, &self.folder.join(&entry.file))?;
        disk.sync_folder(&self.folder)?;
        let published = self.file(&entry);
        let mut entries = self.meta.snapshots();
        entries.retain(|known| known.file != entry.file);
        entries.push(entry);
        entries.sort_by_key(|entry| entry.meta.last_log_id);
        let dropped: Vec<_> = entries.drain(..entries.len().saturating_sub(KEPT)).collect();
        self.meta.set_snapshots(entries).map_err(io::Error::other)?;
        for entry in dropped {
            // What cannot be removed now is removed at the next start.
            let _ = disk.remove(&self.folder.join(entry.file));
        }
        Ok(published)
    }

    fn remove_strangers(&self) -> io::Result<()> {
        let known = self.meta.snapshots();
        for name in self.meta.disk().list(&self.folder)? {
            let damaged = Path::new(&name)
                .extension()
                .is_some_and(|extension| extension == "damaged");
            if !damaged && !known.iter().any(|entry| entry.file == name) {
                self.meta.disk().remove(&self.folder.join(name))?;
            }
        }
        Ok(())
    }
}

fn name(meta: &SnapshotMeta) -> String {
    meta.last_log_id.map_or("empty.snap".to_owned(), |id| {
        format!("{}-{}-{}.snap", id.index, id.leader_id.term, id.leader_id.node_id)
    })
}

impl Receiving {
    /// Appends a chunk.
    ///
    /// # Errors
    /// What the disk answered.
    pub(crate) fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write_all(chunk)?;
        self.len += chunk.len() as u64;
        self.unflushed += chunk.len() as u64;
        if self.unflushed >= FLUSHED_AT_ONCE {
            self.file.sync_data()?;
            self.unflushed = 0;
        }
        Ok(())
    }

    /// Verifies what was received and makes it durable. It counts when it is installed; until then only this file holds it, which goes with the last who has it:
    /// Raft does not install one that is older than what is here, and whoever has sent it may be gone.
    ///
    /// # Errors
    /// `InvalidData` when it is damaged, cut short or of a later version.
    pub(crate) fn finish(self) -> io::Result<SnapshotFile> {
        self.file.sync_all()?;
        let Aside { disk, path: aside } = &self.aside;
        let mut content = Content::open(disk.open(aside, Open::Read)?)?;
        let meta = content.meta.clone();
        io::copy(&mut content, &mut io::sink())?;
        content.finish()?;
        let path = aside.with_extension("received");
        disk.rename(aside, &path)?;
        let received = Aside {
            disk: disk.clone(),
            path: path.clone(),
        };
        Ok(SnapshotFile {
            meta,
            path,
            len: self.len,
            disk: disk.clone(),
            aside: Some(Arc::new(received)),
        })
    }
}

impl SnapshotFile {
    /// Opens it to be read as it is, head and foot included.
    pub(super) fn open(&self) -> io::Result<File> {
        self.disk.open(&self.path, Open::Read)
    }

    /// Reads the content and checks it to its end. Blocks on the disk: not for a task.
    ///
    /// # Errors
    /// `InvalidData` when it is damaged or of a later version; what `read` answers.
    pub(crate) fn read<T>(&self, read: impl Fn(&mut dyn Read) -> io::Result<T>) -> io::Result<T> {
        self.read_whole(None, read)
    }

    /// The same with rests, for a node that does something else meanwhile.
    pub(super) fn read_resting<T>(
        &self,
        rests: Rests,
        read: impl Fn(&mut dyn Read) -> io::Result<T>,
    ) -> io::Result<T> {
        self.read_whole(Some(rests), read)
    }

    fn read_whole<T>(
        &self,
        rests: Option<Rests>,
        read: impl Fn(&mut dyn Read) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut content = Content::open(self.open()?)?;
        content.rests = rests;
        let value = read(&mut content)?;
        content.finish()?;
        if content.meta == self.meta {
            Ok(value)
        } else {
            Err(invalid("it covers something else than its name says"))
        }
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

/// A file that is flushed as it grows, so that no flush has much to do, and whose writer rests meanwhile.
struct GentleFile {
    file: File,
    unflushed: u64,
    rests: Rests,
}

impl GentleFile {
    fn new(file: File, hurry: &Hurry) -> Self {
        Self {
            file,
            unflushed: 0,
            rests: Rests::new(hurry),
        }
    }
}

impl Write for GentleFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unflushed += written as u64;
        if self.unflushed >= FLUSHED_AT_ONCE {
            self.flush()?;
        }
        self.rests.walked(written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unflushed = 0;
        self.file.sync_data()
    }
}

/// Writes head, content and foot.
struct ContentWriter {
    out: BufWriter<GentleFile>,
    head: u64,
    content: u64,
    hasher: crc32fast::Hasher,
}

impl ContentWriter {
    fn begin(mut out: BufWriter<GentleFile>, meta: &SnapshotMeta) -> io::Result<Self> {
        let meta = cold::encode(meta);
        let length = u32::try_from(meta.len()).ok();
        let length = length.filter(|_| meta.len() <= META_BYTES);
        // No such file could be read again, and the log goes once it is there.
        let length = length
            .ok_or_else(|| invalid("what it covers takes more bytes to say than a snapshot may have"))?;
        out.write_all(MAGIC)?;
        out.write_all(&length.to_le_bytes())?;
        out.write_all(&meta)?;
        let head = (MAGIC.len() + 4 + meta.len()) as u64;
        Ok(Self {
            out,
            head,
            content: 0,
            hasher: crc32fast::Hasher::new(),
        })
    }

    /// Writes the foot and makes all of it durable. The length of the file.
    fn finish(mut self) -> io::Result<u64> {
        let mut foot = [0; FOOT];
        foot[..8].copy_from_slice(&self.content.to_le_bytes());
        foot[8..12].copy_from_slice(&self.hasher.finalize().to_le_bytes());
        let checksum = crc32fast::hash(&foot[..12]);
        foot[12..].copy_from_slice(&checksum.to_le_bytes());
        self.out.write_all(&foot)?;
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.file.sync_all()?;
        Ok(self.head + self.content + FOOT as u64)
    }
}

impl Write for ContentWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.content += written as u64;
        Ok(written)
    }

    /// The end of a snapshot is flushed once, by `finish`.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads the content of a snapshot file and checks it on the way.
struct Content {
    from: BufReader<File>,
    /// Of whoever reads, if they rest.
    rests: Option<Rests>,
    meta: SnapshotMeta,
    left: u64,
    hasher: crc32fast::Hasher,
    checksum: u32,
}

impl Content {
    fn open(file: File) -> io::Result<Self> {
        let len = file.len()?;
        let mut from = BufReader::with_capacity(BUFFER, file);
        let mut head = [0; 12];
        from.read_exact(&mut head)?;
        if head[..7] != MAGIC[..7] {
            return Err(invalid("it is no snapshot"));
        }
        if head[7] != MAGIC[7] {
            return Err(invalid("it was written by another version: run a newer one"));
        }
        let meta_len = (&head[8..]).get_u32_le() as usize;
        let around = (12 + meta_len + FOOT) as u64;
        if meta_len > META_BYTES || len < around {
            return Err(invalid("it ends too early"));
        }
        let mut meta = vec![0; meta_len];
        from.read_exact(&mut meta)?;
        let meta: SnapshotMeta = cold::decode(&meta)?;
        if meta.last_log_id.is_some_and(|last| last.index >= COUNTER_MAX) {
            return Err(invalid("it covers more than any log comes to"));
        }
        let mut foot = [0; FOOT];
        from.get_ref().read_exact_at(&mut foot, len - FOOT as u64)?;
        let (left, checksum) = ((&foot[..8]).get_u64_le(), (&foot[8..12]).get_u32_le());
        if crc32fast::hash(&foot[..12]) != (&foot[12..]).get_u32_le() || left != len - around {
            return Err(invalid("its end is missing or damaged"));
        }
        Ok(Self {
            from,
            rests: None,
            meta,
            left,
            hasher: crc32fast::Hasher::new(),
            checksum,
        })
    }

    /// Whether all was read and is what was written.
    fn finish(&mut self) -> io::Result<()> {
        if self.left > 0 {
            return Err(invalid("it goes on after its end"));
        }
        if std::mem::take(&mut self.hasher).finalize() != self.checksum {
            return Err(invalid("its checksum does not fit"));
        }
        Ok(())
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.from.read(&mut buffer[..most])?;
        if read == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.hasher.update(&buffer[..read]);
        self.left -= read as u64;
        self.rests.iter_mut().for_each(|rests| rests.walked(read));
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
