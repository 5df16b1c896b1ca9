//! What the system's files need beyond the standard library's calls: names made durable, a lock that is waited for, a small file
//! replaced as a whole, space that is there before it is written to. The log's Unix calls are here and in `log/`.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a lock is waited for. A process killed or a database dropped a moment ago may hold it still: sled ends its threads in its own
/// time, and a child process holds what it inherited until it runs its own program.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Locks a file, waiting up to [`LOCK_WAIT`]. Blocks: for the start of a node only.
///
/// # Errors
/// `WouldBlock` when it stays locked.
pub(super) fn lock_soon(file: &File) -> Result<(), TryLockError> {
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

/// Makes names in a folder durable: a file created, renamed or removed.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Replaces a small file: after a crash it is the old one or the new one, whole and durable.
pub(super) fn publish(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    sync_folder(path.parent().expect("a file in the data folder has a parent"))
}

/// Removes a file or a whole folder; one that is not there is no error.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes zeros. Not flushed.
pub(super) fn write_zeros(file: &File, mut from: u64, to: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    while from < to {
        let some = ZEROS.len().min(usize::try_from(to - from).unwrap_or(usize::MAX));
        file.write_all_at(&ZEROS[..some], from)?;
        from += some as u64;
    }
    Ok(())
}

/// Whether the disk has a block for each byte of the file, so that no write to it needs space or changes what the system notes of it.
pub(super) fn is_dense(file: &File) -> io::Result<bool> {
    /// What `st_blocks` counts in, whatever the file system's own blocks are.
    const BLOCK_BYTES: u64 = 512;
    let metadata = file.metadata()?;
    Ok(metadata.blocks() * BLOCK_BYTES >= metadata.len())
}
