//! The door to the disk: every file that a node's log, marks, snapshots and records are in is opened, written, flushed, renamed and removed
//! through here (sled's own files aside). Behind it is the system's disk, and in tests one in memory that crashes (`simulated`).
//!
//! What the standard library's calls do not say by themselves is said here once: names made durable, a lock that is waited for, a small
//! file replaced as a whole, space that is there before it is written to. The Unix calls of this layer are here.
//!
//! A program has one kind of disk only, so the choice costs it nothing: outside of tests both types have one variant.

#[cfg(test)]
pub(crate) mod simulated;

use crate::mutant::Mutant;
use std::fs::{self, TryLockError};
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a lock is waited for. A process killed or a database dropped a moment ago may hold it still: sled ends its threads in its own
/// time, and a child process holds what it inherited until it runs its own program.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// The disk that a data folder is on. Clones are the same disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Disk {
    /// The system's.
    #[default]
    System,
    /// One in memory.
    #[cfg(test)]
    Simulated(simulated::Disk),
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Open {
    /// To be read.
    Read,
    /// To be read and written; it is there.
    Write,
    /// To be read and written; made if it is not there.
    OrCreate,
    /// To be read and written, empty.
    Create,
    /// To be read and written; it is not there yet.
    CreateNew,
}

/// An open file, with a cursor as the system's have.
#[derive(Debug)]
pub(super) enum File {
    System(fs::File),
    #[cfg(test)]
    Simulated(simulated::File),
}

impl Disk {
    /// Opens a file.
    pub(super) fn open(&self, path: &Path, how: Open) -> io::Result<File> {
        match self {
            Self::System => {
                let mut options = fs::File::options();
                options.read(true).write(how != Open::Read);
                match how {
                    Open::Read | Open::Write => {}
                    Open::OrCreate => drop(options.create(true)),
                    Open::Create => drop(options.create(true).truncate(true)),
                    Open::CreateNew => drop(options.create_new(true)),
                }
                options.open(path).map(File::System)
            }
            #[cfg(test)]
            Self::Simulated(disk) => disk.open(path, how).map(File::Simulated),
        }
    }

    /// All of a file.
    pub(super) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(path, Open::Read)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Whether there is a file or folder of this name.
    pub(super) fn exists(&self, path: &Path) -> bool {
        match self {
            Self::System => path.exists(),
            #[cfg(test)]
            Self::Simulated(disk) => disk.exists(path),
        }
    }

    /// Makes a folder whose parent is there.
    pub(super) fn create_folder(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::System => fs::create_dir(path),
            #[cfg(test)]
            Self::Simulated(disk) => disk.create_folder(path),
        }
    }

    /// Makes a folder, and those it is in, unless it is there. Their names are durable on return: a data folder that power loss takes away
    /// takes everything with it that was acknowledged.
    pub(super) fn create_folders(&self, path: &Path) -> io::Result<()> {
        let missing = path.ancestors().take_while(|folder| !self.exists(folder)).count();
        match self {
            Self::System => fs::create_dir_all(path)?,
            #[cfg(test)]
            Self::Simulated(disk) => disk.create_folders(path)?,
        }
        // One that is there may have been made by a process that was killed before it was flushed.
        for parent in path.ancestors().skip(1).take(missing.max(1)) {
            let here = parent.as_os_str().is_empty();
            match self.sync_folder(if here { Path::new(".") } else { parent }) {
                Ok(()) => {}
                // Whoever may not read a folder cannot flush it; and it may be of another file system, that is not written to or flushes no names.
                Err(error) if cannot_be_flushed(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The names in a folder. What is no text is none of ours.
    pub(super) fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        match self {
            Self::System => {
                let names = fs::read_dir(folder)?.map(|item| Ok(item?.file_name().into_string().ok()));
                names.filter_map(Result::transpose).collect()
            }
            #[cfg(test)]
            Self::Simulated(disk) => disk.list(folder),
        }
    }

    /// Gives a file or folder another name, in the place of a file that has it. Not flushed.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self {
            Self::System => fs::rename(from, to),
            #[cfg(test)]
            Self::Simulated(disk) => disk.rename(from, to),
        }
    }

    /// Whether it is the system's.
    pub(super) fn is_system(&self) -> bool {
        matches!(self, Self::System)
    }

    /// Removes a file or a whole folder; one that is not there is no error. Not flushed.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = match self {
            Self::System if path.is_dir() => fs::remove_dir_all(path),
            Self::System => fs::remove_file(path),
            #[cfg(test)]
            Self::Simulated(disk) => disk.remove(path),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes names in a folder durable: a file created, renamed or removed.
    pub(super) fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        if Mutant::SkipNameFlush.is_planted() {
            return Ok(());
        }
        match self {
            Self::System => fs::File::open(folder)?.sync_all(),
            #[cfg(test)]
            Self::Simulated(disk) => disk.sync_folder(folder),
        }
    }

    /// Replaces a small file: after a crash it is the old one or the new one, whole and durable.
    pub(super) fn publish(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let aside = path.with_extension("new");
        let mut file = self.open(&aside, Open::Create)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        self.rename(&aside, path)?;
        self.sync_folder(path.parent().expect("a file in the data folder has a parent"))
    }

    /// Opens a file, made if it is not there, and locks it, waiting up to [`LOCK_WAIT`]. Blocks: for the start of a node only.
    ///
    /// # Errors
    /// `WouldBlock` when it stays locked.
    pub(super) fn lock(&self, path: &Path) -> Result<File, TryLockError> {
        let file = self.open(path, Open::OrCreate).map_err(TryLockError::Error)?;
        match &file {
            File::System(file) => lock_soon(file)?,
            #[cfg(test)]
            File::Simulated(_) => {}
        }
        Ok(file)
    }

    /// A random number.
    pub(crate) fn draw(&self) -> io::Result<u64> {
        match self {
            Self::System => {
                let mut bytes = [0; 8];
                getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
                Ok(u64::from_le_bytes(bytes))
            }
            #[cfg(test)]
            Self::Simulated(disk) => Ok(disk.draw()),
        }
    }
}

impl File {
    /// Its length in bytes.
    pub(super) fn len(&self) -> io::Result<u64> {
        match self {
            Self::System(file) => Ok(file.metadata()?.len()),
            #[cfg(test)]
            Self::Simulated(file) => Ok(file.len()),
        }
    }

    /// Cuts it, or lengthens it with zeros. Not flushed.
    pub(super) fn set_len(&self, bytes: u64) -> io::Result<()> {
        match self {
            Self::System(file) => file.set_len(bytes),
            #[cfg(test)]
            Self::Simulated(file) => file.set_len(bytes),
        }
    }

    /// Reads at an offset, whatever the cursor.
    pub(super) fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        match self {
            Self::System(file) => file.read_exact_at(buffer, at),
            #[cfg(test)]
            Self::Simulated(file) => file.read_exact_at(buffer, at),
        }
    }

    /// Writes at an offset, whatever the cursor. Not flushed.
    pub(super) fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        match self {
            Self::System(file) => file.write_all_at(bytes, at),
            #[cfg(test)]
            Self::Simulated(file) => file.write_all_at(bytes, at),
        }
    }

    /// Writes zeros. Not flushed.
    pub(super) fn write_zeros(&self, mut from: u64, to: u64) -> io::Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        while from < to {
            let some = ZEROS.len().min(usize::try_from(to - from).unwrap_or(usize::MAX));
            self.write_all_at(&ZEROS[..some], from)?;
            from += some as u64;
        }
        Ok(())
    }

    /// Makes its bytes durable, and its length as far as reading them needs it.
    pub(super) fn sync_data(&self) -> io::Result<()> {
        match self {
            Self::System(file) => file.sync_data(),
            #[cfg(test)]
            Self::Simulated(file) => file.sync(),
        }
    }

    /// Makes its bytes durable and all that the system notes of it, its name aside: [`Disk::sync_folder`].
    pub(super) fn sync_all(&self) -> io::Result<()> {
        match self {
            Self::System(file) => file.sync_all(),
            #[cfg(test)]
            Self::Simulated(file) => file.sync(),
        }
    }

    /// Whether the disk has a block for each byte of the file, so that no write to it needs space or changes what the system notes of it.
    pub(super) fn is_dense(&self) -> io::Result<bool> {
        /// What `st_blocks` counts in, whatever the file system's own blocks are.
        const BLOCK_BYTES: u64 = 512;
        match self {
            Self::System(file) => {
                let metadata = file.metadata()?;
                Ok(metadata.blocks() * BLOCK_BYTES >= metadata.len())
            }
            #[cfg(test)]
            Self::Simulated(file) => Ok(file.is_dense()),
        }
    }
}

impl Read for File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::System(file) => file.read(buffer),
            #[cfg(test)]
            Self::Simulated(file) => file.read(buffer),
        }
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::System(file) => file.write(bytes),
            #[cfg(test)]
            Self::Simulated(file) => file.write(bytes),
        }
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::System(file) => file.write_vectored(parts),
            // What they are together is one write to it too.
            #[cfg(test)]
            Self::Simulated(file) => {
                let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
                file.write(&bytes)
            }
        }
    }

    /// Nothing is kept in the process; durable is [`File::sync_data`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Self::System(file) => file.seek(to),
            #[cfg(test)]
            Self::Simulated(file) => file.seek(to),
        }
    }
}

fn cannot_be_flushed(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    matches!(
        error.kind(),
        PermissionDenied | ReadOnlyFilesystem | InvalidInput | Unsupported
    )
}

/// Locks a file, waiting up to [`LOCK_WAIT`].
pub(super) fn lock_soon(file: &fs::File) -> Result<(), TryLockError> {
    let until = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5))
            }
            end => return end,
        }
    }
}
