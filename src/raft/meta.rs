//! Who this node is: identity, cluster, snapshot catalogue and the state of its data folder. Cold records, each made durable when written.
//!
//! ```text
//! <data>/LOCK          held while a process has the folder
//! <data>/run           the last start: its number, durability, the machine's boot, whether it ended cleanly; read before all else
//! <data>/sled/         the database: trees `meta` (here), `log` and `log-floor` (log/sled.rs)
//! <data>/log/          the log in segments (log/segments.rs); without it the log is in the database
//! <data>/log.mark      how far the log in the database was acknowledged (log/sled.rs)
//! <data>/snapshots/    snapshot files (snapshot_store.rs)
//! <data>/discarded-N/  what was set aside because the power went while nothing was flushed
//! ```
//!
//! The only file that names bincode.

use super::files::{Disk, File};
use super::log::kind::{self, Note};
use super::log::sled::{Database, guarded};
use super::log::{ADVICE, Journal, unreadable};
use crate::config::{Durability, LogKind};
use crate::error::Error;
use openraft::type_config::alias::SnapshotMetaOf;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The layout of the data folder written today. In 2 the log may be in segments; what reads only 1 would take it for empty.
const FORMAT: u32 = 2;

/// Cold records to bytes and back: `version u8 | crc32 of content u32 | content`, the content in bincode with fixed-width integers.
pub(crate) mod cold {
    use super::*;
    use bincode::Options;

    /// The layout written today.
    const VERSION: u8 = 1;

    /// Bytes of one record at most: a length in damaged or foreign bytes reserves no more than that.
    const LIMIT: u64 = 16 << 20;

    fn options() -> impl Options {
        bincode::DefaultOptions::new()
            .with_fixint_encoding()
            .with_limit(LIMIT)
    }

    /// Encodes a record.
    ///
    /// # Panics
    /// For a record beyond 16 MiB, or one that serde cannot write: our types are neither.
    pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
        let content = options()
            .serialize(value)
            .expect("cold records are small and plain");
        let mut bytes = Vec::with_capacity(5 + content.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&crc32fast::hash(&content).to_le_bytes());
        bytes.extend_from_slice(&content);
        bytes
    }

    /// Decodes a record.
    ///
    /// # Errors
    /// `InvalidData` when it is damaged, `Unsupported` when it is of a later version.
    pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
        let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        let (Some(version), Some(checksum), Some(content)) = (bytes.first(), bytes.get(1..5), bytes.get(5..))
        else {
            return Err(invalid("a record that ends too early".to_owned()));
        };
        if *version != VERSION {
            let why = format!("a record of format {version}: this program reads {VERSION}; run a newer one");
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        if crc32fast::hash(content).to_le_bytes() != checksum {
            return Err(invalid("a record whose checksum does not fit".to_owned()));
        }
        options()
            .deserialize(content)
            .map_err(|error| invalid(error.to_string()))
    }
}

/// What the folder held when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fresh {
    /// Nothing: this is a new node.
    New,
    /// A node that goes on.
    Known,
    /// A node that may have lost what it had acknowledged: power loss under [`Durability::Os`]. It was set aside in this folder,
    /// and this is a new node.
    Discarded(PathBuf),
}

/// One snapshot file that counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CatalogueEntry {
    /// Its name in `<data>/snapshots`.
    pub(crate) file: String,
    /// What it covers.
    pub(crate) meta: SnapshotMetaOf<super::Types>,
    /// Its length in bytes.
    pub(crate) len: u64,
}

/// The cold records of this node. Clones are the same records.
#[derive(Clone, Debug)]
pub(crate) struct Meta(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    disk: Disk,
    folder: PathBuf,
    durability: Durability,
    kept: Kept,
    node: u64,
    start: u64,
    /// This start, as it is published once all that earlier ones left is flushed.
    run: Run,
    /// Whether it is.
    flushed: AtomicBool,
    /// What is on disk, for readers. Held over a write, which is rare and short; never over an await.
    records: Mutex<Records>,
    /// Locked as long as it is open.
    _lock: File,
}

/// Where the records are.
#[derive(Debug)]
enum Kept {
    Sled {
        database: Arc<Database>,
        tree: sled::Tree,
    },
    /// On a simulated disk, which sled cannot be put on: a file for each in this folder, replaced as a whole, for that is what is asked of sled.
    #[cfg(test)]
    Files(PathBuf),
}

#[derive(Debug)]
struct Records {
    cluster: Option<u64>,
    snapshots: Vec<CatalogueEntry>,
}

/// The file `run`. It is read before sled is opened, as it says whether what sled holds can be relied on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    format: u32,
    /// How often the node was started; 0 until its first start is complete.
    start: u64,
    /// Whether that start flushed what it acknowledged, and what the starts before it left was flushed too.
    fsync: bool,
    /// The machine's boot at that start, where it is known.
    boot: Option<String>,
    /// Whether it ended with everything flushed.
    clean: bool,
}

/// Names this boot of the machine; `None` where the system does not tell.
pub(crate) fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

impl Meta {
    /// Takes the data folder (made if absent) for this process, and counts a start.
    ///
    /// `boot` is [`boot_id`]; a changed one after a start under [`Durability::Os`] that did not end cleanly means that the page cache is
    /// lost, and with it perhaps what the node had acknowledged: all of it is set aside.
    ///
    /// # Errors
    /// [`Error::FolderInUse`]; [`Error::Folder`] when it is damaged or of a later version; [`Error::Io`].
    pub(crate) fn open(
        folder: &Path,
        durability: Durability,
        boot: Option<&str>,
    ) -> Result<(Self, Fresh), Error> {
        Self::open_on(Disk::System, folder, durability, boot)
    }

    /// [`Meta::open`] on any disk.
    pub(crate) fn open_on(
        disk: Disk,
        folder: &Path,
        durability: Durability,
        boot: Option<&str>,
    ) -> Result<(Self, Fresh), Error> {
        let io = |source| Error::Io {
            doing: format!("preparing the data folder {}", folder.display()),
            source,
        };
        disk.create_folders(folder).map_err(io)?;
        let lock = lock(&disk, folder)?;
        let (mut run, mut fresh) = read_run(&disk, folder)?;
        if run.lost_by_power_loss(boot) {
            let aside = discard(&disk, folder).map_err(io)?;
            tracing::warn!(
                aside = %aside.display(),
                "the machine was restarted while acknowledged data was not flushed (durability `os`): this node starts as a new one"
            );
            (run, fresh) = (Run::none(), Fresh::Discarded(aside));
        }
        if run.start == 0 {
            // A first start that was not completed has told nobody of itself.
            clear(&disk, folder).map_err(io)?;
            disk.publish(&folder.join("run"), &cold::encode(&run))
                .map_err(io)?;
        }
        let inner = Inner::read(disk, folder, durability, run.start, lock)?;
        // What a start without flushes left is in the page cache until the log is read: see `Meta::flushed`.
        let flushed = run.start == 0 || run.fsync || run.clean;
        let run = Run {
            format: FORMAT,
            start: inner.start,
            fsync: durability == Durability::Fsync,
            boot: boot.map(str::to_owned),
            clean: false,
        };
        let begun = Run {
            fsync: run.fsync && flushed,
            ..run.clone()
        };
        inner
            .disk
            .publish(&folder.join("run"), &cold::encode(&begun))
            .map_err(io)?;
        let flushed = AtomicBool::new(begun == run);
        Ok((
            Self(Arc::new(Inner {
                run,
                flushed,
                ..inner
            })),
            fresh,
        ))
    }

    /// Notes that what earlier starts left in the page cache is flushed: the log was read, which flushes it; snapshots and these records always are. Until then power
    /// loss may take what a start under [`Durability::Os`] had acknowledged, also when this one flushes.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn flushed(&self) -> Result<(), Error> {
        let inner = &*self.0;
        if inner.flushed.load(Ordering::Acquire) {
            return Ok(());
        }
        let noted = inner
            .disk
            .publish(&inner.folder.join("run"), &cold::encode(&inner.run));
        noted.map_err(|source| Error::Io {
            doing: "noting that everything is flushed".to_owned(),
            source,
        })?;
        inner.flushed.store(true, Ordering::Release);
        Ok(())
    }

    /// The log's journal, converted if it is of another kind. Once per [`Meta::open`].
    ///
    /// # Errors
    /// [`Error::Folder`] when it is damaged or missing; [`Error::Io`].
    pub(crate) fn journal(&self, kind: LogKind) -> Result<Box<dyn Journal>, Error> {
        let inner = &*self.0;
        match &inner.kept {
            Kept::Sled { database, .. } => kind::open(&inner.folder, database, inner.durability, kind, inner),
            #[cfg(test)]
            Kept::Files(_) => kind::open_simulated(&inner.disk, &inner.folder, inner.durability),
        }
    }

    /// The database, for tests that damage it.
    #[cfg(test)]
    pub(super) fn database(&self) -> Arc<Database> {
        match &self.0.kept {
            Kept::Sled { database, .. } => database.clone(),
            Kept::Files(_) => panic!("a simulated disk has no sled"),
        }
    }

    /// Notes which kind the log is, for tests that stand in for a crash.
    #[cfg(test)]
    pub(super) fn note(&self, kind: LogKind) {
        Note::write(&*self.0, kind).expect("the test's disk works");
    }

    /// The disk that the data folder is on.
    pub(super) fn disk(&self) -> &Disk {
        &self.0.disk
    }

    /// The data folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// This node's id: 63 random bits drawn at its first start, never 0.
    pub(crate) fn node_id(&self) -> u64 {
        self.0.node
    }

    /// Which start of this node this is: 1, 2, 3 … The `start` of the origin of its groups.
    pub(crate) fn start(&self) -> u64 {
        self.0.start
    }

    /// The cluster this node belongs to or has promised to help form: it never joins another.
    pub(crate) fn cluster(&self) -> Option<u64> {
        self.0.records.lock().cluster
    }

    /// Notes the cluster. Durable on return, as all of these.
    pub(crate) fn set_cluster(&self, cluster: u64) -> Result<(), Error> {
        let mut records = self.0.records.lock();
        self.0.put(key::CLUSTER, &Some(cluster))?;
        records.cluster = Some(cluster);
        Ok(())
    }

    /// The snapshots that count, oldest first.
    pub(super) fn snapshots(&self) -> Vec<CatalogueEntry> {
        self.0.records.lock().snapshots.clone()
    }

    /// Notes the snapshots that count.
    pub(super) fn set_snapshots(&self, snapshots: Vec<CatalogueEntry>) -> Result<(), Error> {
        let mut records = self.0.records.lock();
        self.0.put(key::SNAPSHOTS, &snapshots)?;
        records.snapshots = snapshots;
        Ok(())
    }

    /// Notes that everything is flushed and nothing will be written any more: after [`LogStopper::stop`](super::log::LogStopper::stop).
    pub(crate) fn close_cleanly(&self) -> Result<(), Error> {
        let run = Run {
            clean: true,
            ..self.0.run.clone()
        };
        let closed = self.0.kept.durable().and_then(|()| {
            self.0
                .disk
                .publish(&self.0.folder.join("run"), &cold::encode(&run))
        });
        closed.map_err(|source| Error::Io {
            doing: "noting a clean stop".to_owned(),
            source,
        })
    }
}

/// What they are called where they cannot be read.
const RECORDS: &str = "one of its records";

mod key {
    pub(super) const NODE: &str = "node";
    pub(super) const START: &str = "start";
    pub(super) const CLUSTER: &str = "cluster";
    pub(super) const SNAPSHOTS: &str = "snapshots";
    pub(super) const LOG: &str = "log";
}

impl Inner {
    /// Reads every record; draws the id at the first start; counts this one, not before the last start known from `run`.
    fn read(
        disk: Disk,
        folder: &Path,
        durability: Durability,
        last_start: u64,
        lock: File,
    ) -> Result<Self, Error> {
        let wrong = |error| unreadable(folder, RECORDS, error);
        let kept = match &disk {
            Disk::System => {
                let database = Database::open(folder)?;
                let tree = database.tree("meta").map_err(wrong)?;
                Kept::Sled { database, tree }
            }
            #[cfg(test)]
            Disk::Simulated(_) => {
                let records = folder.join("records");
                disk.create_folders(&records).map_err(wrong)?;
                Kept::Files(records)
            }
        };
        let mut inner = Self {
            disk,
            folder: folder.to_owned(),
            durability,
            kept,
            node: 0,
            start: 0,
            run: Run::none(),
            flushed: AtomicBool::new(false),
            records: Mutex::new(Records {
                cluster: None,
                snapshots: Vec::new(),
            }),
            _lock: lock,
        };
        inner.node = inner.get::<u64>(key::NODE).map_err(wrong)?.unwrap_or(0);
        inner.start = inner.get::<u64>(key::START).map_err(wrong)?.unwrap_or(0);
        if inner.start < last_start || (last_start > 0 && inner.node == 0) {
            return Err(Error::Folder {
                folder: folder.to_owned(),
                why: format!(
                    "start {last_start} was begun, but its records know of {} only: their end is lost. {ADVICE}",
                    inner.start
                ),
            });
        }
        *inner.records.get_mut() = Records {
            cluster: inner.get(key::CLUSTER).map_err(wrong)?.flatten(),
            snapshots: inner.get(key::SNAPSHOTS).map_err(wrong)?.unwrap_or_default(),
        };
        if inner.node == 0 {
            inner.node = draw_node_id(&inner.disk)?;
            inner.put(key::NODE, &inner.node)?;
        }
        inner.start += 1;
        inner.put(key::START, &inner.start)?;
        Ok(inner)
    }

    fn get<T: DeserializeOwned>(&self, key: &str) -> io::Result<Option<T>> {
        match &self.kept {
            Kept::Sled { tree, .. } => guarded(|| tree.get(key))?
                .map(|bytes| cold::decode(&bytes))
                .transpose(),
            #[cfg(test)]
            Kept::Files(folder) => match self.disk.read(&folder.join(key)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                read => cold::decode(&read?).map(Some),
            },
        }
    }

    /// Without the flush a promise or a start could be taken back by power loss.
    fn put<T: Serialize>(&self, key: &str, value: &T) -> Result<(), Error> {
        let bytes = cold::encode(value);
        let written = match &self.kept {
            Kept::Sled { database, tree } => {
                guarded(|| tree.insert(key, bytes)).and_then(|_| database.durable())
            }
            #[cfg(test)]
            Kept::Files(folder) => self.disk.publish(&folder.join(key), &bytes),
        };
        written.map_err(|source| Error::Io {
            doing: format!("writing the record `{key}`"),
            source,
        })
    }
}

impl Kept {
    fn durable(&self) -> io::Result<()> {
        match self {
            Self::Sled { database, .. } => database.durable(),
            // Each was when it was written.
            #[cfg(test)]
            Self::Files(_) => Ok(()),
        }
    }
}

impl Note for Inner {
    fn read(&self) -> Result<Option<LogKind>, Error> {
        let noted = self
            .get(key::LOG)
            .map_err(|error| unreadable(&self.folder, RECORDS, error))?;
        Ok(noted.map(|in_segments: bool| match in_segments {
            true => LogKind::Segments,
            false => LogKind::Sled,
        }))
    }

    fn write(&self, kind: LogKind) -> Result<(), Error> {
        self.put(key::LOG, &(kind == LogKind::Segments))
    }
}

fn draw_node_id(disk: &Disk) -> Result<u64, Error> {
    let drawn = disk.draw().map_err(|source| Error::Io {
        doing: "drawing a node id".to_owned(),
        source,
    })?;
    Ok((drawn >> 1).max(1))
}

impl Run {
    fn none() -> Self {
        Self {
            format: FORMAT,
            start: 0,
            fsync: true,
            boot: None,
            clean: false,
        }
    }

    /// Whether the page cache that this start relied on is gone. Where the boot is not known it may be.
    fn lost_by_power_loss(&self, boot: Option<&str>) -> bool {
        let same_boot = boot.is_some() && self.boot.as_deref() == boot;
        self.start > 0 && !self.fsync && !self.clean && !same_boot
    }
}

fn lock(disk: &Disk, folder: &Path) -> Result<File, Error> {
    let io = |source| Error::Io {
        doing: format!("locking the data folder {}", folder.display()),
        source,
    };
    match disk.lock(&folder.join("LOCK")) {
        Ok(file) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::FolderInUse(folder.to_owned())),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}

fn read_run(disk: &Disk, folder: &Path) -> Result<(Run, Fresh), Error> {
    let bytes = match disk.read(&folder.join("run")) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if disk.exists(&folder.join("sled")) || disk.exists(&folder.join("log")) {
                return Err(Error::Folder {
                    folder: folder.to_owned(),
                    why: format!("its file `run` is missing. {ADVICE}"),
                });
            }
            return Ok((Run::none(), Fresh::New));
        }
        Err(error) => return Err(unreadable(folder, "its file `run`", error)),
    };
    let run: Run = cold::decode(&bytes).map_err(|error| unreadable(folder, "its file `run`", error))?;
    if run.format > FORMAT {
        return Err(Error::Folder {
            folder: folder.to_owned(),
            why: format!(
                "it has format {}, this program reads {FORMAT}: run a newer one",
                run.format
            ),
        });
    }
    let fresh = if run.start == 0 { Fresh::New } else { Fresh::Known };
    Ok((run, fresh))
}

/// What belongs to one node in a data folder. `run` comes last: while it is there, setting aside is not complete.
fn own() -> impl Iterator<Item = &'static str> {
    ["sled"].into_iter().chain(kind::OWN).chain(["snapshots", "run"])
}

/// Sets everything aside in a new folder `discarded-N`, and removes those before it.
fn discard(disk: &Disk, folder: &Path) -> io::Result<PathBuf> {
    let names = disk.list(folder)?;
    let mut earlier: Vec<u64> = names
        .iter()
        .filter_map(|name| name.strip_prefix("discarded-")?.parse().ok())
        .collect();
    earlier.sort_unstable();
    let begun = earlier.pop_if(|last| !disk.exists(&folder.join(format!("discarded-{last}")).join("run")));
    let number = begun.unwrap_or_else(|| earlier.last().map_or(1, |last| last + 1));
    let aside = folder.join(format!("discarded-{number}"));
    disk.create_folders(&aside)?;
    for name in own() {
        match disk.rename(&folder.join(name), &aside.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        disk.sync_folder(&aside)?;
        disk.sync_folder(folder)?;
    }
    for number in earlier {
        disk.remove(&folder.join(format!("discarded-{number}")))?;
    }
    Ok(aside)
}

/// Removes what a first start left that was not completed. `run`, which says that it was not, stays: power loss could take it alone.
fn clear(disk: &Disk, folder: &Path) -> io::Result<()> {
    let mut others = own().filter(|name| *name != "run");
    others.try_for_each(|name| disk.remove(&folder.join(name)))
}

#[cfg(test)]
mod tests;
