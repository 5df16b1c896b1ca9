//! What the targets share: a bound of memory, and the frames and checksums that let changed bytes in where a checksum would refuse nearly all of them.

/// Bytes of memory that reading may take at once for each byte that is read: a command of empty arguments, and a reply of empty parts, are the worst.
pub const MEMORY_PER_BYTE: u64 = 64;

/// Bytes that it may take beside: buffers for files, and what an empty machine has.
pub const MEMORY_BESIDE: u64 = 2 << 20;

/// Runs it, and holds what it takes at once to the bound for so many bytes.
pub fn bounded<T>(bytes: usize, run: impl FnOnce() -> T) -> T {
    let mut result = None;
    let taken = allocation_counter::measure(|| result = Some(run()));
    let most = MEMORY_PER_BYTE * bytes as u64 + MEMORY_BESIDE;
    assert!(
        taken.bytes_max <= most,
        "{} bytes of memory at once for {bytes} bytes, {most} may be",
        taken.bytes_max
    );
    result.expect("it was run")
}

/// A snapshot's stream around this content, in frames of 64 KiB, with checksums that fit.
pub fn snapshot(version: u32, slots: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = b"PLENARY\x1a".to_vec();
    bytes.extend(version.to_le_bytes());
    let end = slots.to_le_bytes();
    let frames = content.chunks(64 << 10).map(|content| (1, content));
    for (index, (kind, content)) in frames.chain([(2, &end[..])]).enumerate() {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&(index as u64).to_le_bytes());
        crc.update(&[kind]);
        crc.update(&(content.len() as u64).to_le_bytes());
        crc.update(content);
        bytes.push(kind);
        bytes.extend((content.len() as u32).to_le_bytes());
        bytes.extend(crc.finalize().to_le_bytes());
        bytes.extend(content);
    }
    bytes
}

/// A cold record around this content.
pub fn cold(content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1];
    bytes.extend(crc32fast::hash(content).to_le_bytes());
    bytes.extend(content);
    bytes
}

/// A number as its file has it.
pub fn number(magic: &[u8; 8], number: u64) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.extend(number.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend(crc.to_le_bytes());
    bytes
}

/// A folder in memory, where the system has one, for targets that need files.
pub fn folder(name: &str) -> std::path::PathBuf {
    let memory = std::path::Path::new("/dev/shm");
    let parent = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    let folder = parent.join(format!("plenary-fuzz-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder is made");
    folder
}
