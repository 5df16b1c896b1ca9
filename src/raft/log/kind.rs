//! Which journal a data folder has, and moving the log from one to the other. The only place that knows both.
//!
//! The folder `<data>/log` decides: if it is there, the log is in its segments, else in sled. It comes and goes by one rename, and what it
//! replaces is whole and durable before:
//!
//! ```text
//! to segments   log.new/ is made whole from sled │ log.new → log    │ noted │ sled's log is emptied
//! to sled       sled's log is made whole from log/ │ log → log.old  │ noted │ log.old/ is removed
//! ```
//!
//! A crash before the rename leaves the log where it was, and what was begun is thrown away; one after it leaves the new log, and the next start
//! ends what is left. The note (in sled's records) is for one case: `log` is gone and it was not we who moved it. Then nothing is read from
//! sled's log, which would be empty.

use super::segments::{SEGMENT_BYTES, SegmentJournal};
use super::sled::{Database, SledJournal};
use super::{ADVICE, Journal};
use crate::config::{Durability, LogKind};
use crate::error::Error;
use crate::raft::files::Disk;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What of a data folder is the log's alone. Beside it only trees in sled are.
pub(in crate::raft) const OWN: [&str; 4] = [LOG, NEW, OLD, super::sled::MARK];

pub(super) const LOG: &str = "log";
const NEW: &str = "log.new";
const OLD: &str = "log.old";

/// The note of which kind the log is, in the records of the node.
pub(in crate::raft) trait Note {
    /// What was noted last, if anything was.
    fn read(&self) -> Result<Option<LogKind>, Error>;

    /// Notes it durably.
    fn write(&self, kind: LogKind) -> Result<(), Error>;
}

/// Opens the log's journal of a data folder, moved to the wanted kind if it is of the other one.
///
/// # Errors
/// [`Error::Folder`] when it is damaged or missing; [`Error::Io`].
pub(in crate::raft) fn open(
    data: &Path,
    database: &Arc<Database>,
    durability: Durability,
    wanted: LogKind,
    note: &impl Note,
) -> Result<Box<dyn Journal>, Error> {
    let place = Place {
        data,
        database,
        durability,
        note,
    };
    let kind = place.settle()?;
    if kind != wanted {
        place.convert(wanted)?;
    }
    Ok(match wanted {
        LogKind::Segments => Box::new(place.segments(LOG)?),
        LogKind::Sled => Box::new(place.sled()?),
    })
}

/// The log of a simulated disk, which has no sled: segments from the beginning.
#[cfg(test)]
pub(in crate::raft) fn open_simulated(
    disk: &Disk,
    data: &Path,
    durability: Durability,
) -> Result<Box<dyn Journal>, Error> {
    let Disk::Simulated(simulated) = disk else {
        panic!("a simulated disk");
    };
    let segment_bytes = simulated.segment_bytes();
    let log = data.join(LOG);
    if !disk.exists(&log) {
        let new = data.join(NEW);
        let made = disk
            .remove(&new)
            .and_then(|()| SegmentJournal::create(disk, &new, segment_bytes))
            .and_then(|()| disk.rename(&new, &log))
            .and_then(|()| disk.sync_folder(data));
        made.map_err(|source| Error::Io {
            doing: "making a log".to_owned(),
            source,
        })?;
    }
    let journal = SegmentJournal::open(disk, data, &log, durability, segment_bytes)?;
    Ok(Box::new(journal))
}

struct Place<'a, N> {
    data: &'a Path,
    database: &'a Arc<Database>,
    durability: Durability,
    note: &'a N,
}

impl<N: Note> Place<'_, N> {
    /// Which kind the log is, after whatever a crash interrupted is ended or thrown away.
    fn settle(&self) -> Result<LogKind, Error> {
        let doing = "looking for the log";
        self.io(doing, Disk::System.remove(&self.data.join(NEW)))?;
        let noted = self.note.read()?;
        if self.data.join(LOG).exists() {
            self.moved(LogKind::Segments, noted)?;
            return Ok(LogKind::Segments);
        }
        if noted == Some(LogKind::Segments) && !self.data.join(OLD).exists() {
            return Err(Error::Folder {
                folder: self.data.to_owned(),
                why: format!("its folder `{LOG}` is missing. {ADVICE}"),
            });
        }
        self.moved(LogKind::Sled, noted)?;
        Ok(LogKind::Sled)
    }

    /// Notes where the log is now, and removes what is left of it where it was.
    fn moved(&self, now: LogKind, noted: Option<LogKind>) -> Result<(), Error> {
        let doing = "removing what is left of the log where it was";
        // Before anything is removed: the note must not name what is gone.
        if now != noted.unwrap_or(LogKind::Sled) {
            self.note.write(now)?;
        }
        if now == LogKind::Segments {
            self.io(doing, SledJournal::clear(self.database))?;
        }
        self.io(doing, Disk::System.remove(&self.data.join(OLD)))
    }

    /// Moves the log to the other kind.
    fn convert(&self, wanted: LogKind) -> Result<(), Error> {
        let doing = "converting the log";
        let batches = match wanted {
            LogKind::Segments => {
                self.io(
                    doing,
                    SegmentJournal::create(&Disk::System, &self.data.join(NEW), SEGMENT_BYTES),
                )?;
                let batches = self.copy(self.sled()?, self.segments(NEW)?)?;
                self.rename(NEW, LOG)?;
                batches
            }
            LogKind::Sled => {
                self.io(doing, SledJournal::clear(self.database))?;
                let batches = self.copy(self.segments(LOG)?, self.sled()?)?;
                self.rename(LOG, OLD)?;
                batches
            }
        };
        if batches > 0 {
            tracing::info!(batches, "the log is converted: it is kept in {wanted} now");
        }
        self.moved(wanted, self.note.read()?)
    }

    /// Copies every batch, durably. How many there were.
    fn copy(&self, mut from: impl Journal, mut to: impl Journal) -> Result<usize, Error> {
        to.recover(&mut |_, _| Ok(()))?;
        let mut batches = 0;
        from.recover(&mut |_, batch| {
            batches += 1;
            self.io("converting the log", to.append(&batch).map(|_| ()))
        })?;
        // Without it power loss after the rename would leave a log that is not whole.
        self.io("converting the log", to.sync())?;
        Ok(batches)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let renamed = Disk::System
            .rename(&self.data.join(from), &self.data.join(to))
            .and_then(|()| Disk::System.sync_folder(self.data));
        self.io("converting the log", renamed)
    }

    fn segments(&self, folder: &str) -> Result<SegmentJournal, Error> {
        SegmentJournal::open(
            &Disk::System,
            self.data,
            &self.data.join(folder),
            self.durability,
            SEGMENT_BYTES,
        )
    }

    fn sled(&self) -> Result<SledJournal, Error> {
        SledJournal::open(self.database.clone(), self.durability)
    }

    fn io<T>(&self, doing: &str, result: io::Result<T>) -> Result<T, Error> {
        result.map_err(|source| Error::Io {
            doing: format!("{doing} in the data folder {}", self.data.display()),
            source,
        })
    }
}

#[cfg(test)]
mod tests;
