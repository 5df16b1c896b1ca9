//! Small segments, byte by byte: what is cut, flipped, torn, left over or used again. What every journal must do is in `log/tests/disk.rs`.

use super::*;
use crate::raft::log::tests::Chance;
use crate::raft::log::tests::disk::copy;
use std::collections::BTreeSet;
use std::fs;
use tempfile::TempDir;

/// Bytes of a segment here: room for a few batches.
const SMALL: u64 = 512;

type Batches = Vec<(u64, Bytes)>;

fn fresh() -> TempDir {
    let data = TempDir::new().unwrap();
    SegmentJournal::create(&Disk::System, &data.path().join("log"), SMALL).unwrap();
    data
}

fn open_for(data: &Path, durability: Durability) -> Result<(SegmentJournal, Batches), Error> {
    let mut journal = SegmentJournal::open(&Disk::System, data, &data.join("log"), durability, SMALL)?;
    let mut batches = Vec::new();
    journal.recover(&mut |position, batch| {
        batches.push((position, batch));
        Ok(())
    })?;
    Ok((journal, batches))
}

fn open(data: &Path) -> Result<(SegmentJournal, Batches), Error> {
    open_for(data, Durability::Fsync)
}

/// What a batch of this number and length holds: never zeros, so that what is left of it is seen.
fn batch(number: u64, bytes: u64) -> Bytes {
    vec![number as u8 | 1; bytes as usize].into()
}

/// Appends so many batches, durably. All that the journal holds then.
fn filled(data: &Path, lengths: &[u64]) -> Batches {
    let (mut journal, mut batches) = open(data).unwrap();
    for length in lengths {
        let content = batch(journal.next, *length);
        let position = journal.append(&content).unwrap();
        journal.sync().unwrap();
        batches.push((position, content));
    }
    batches
}

fn segment(data: &Path, number: u64) -> PathBuf {
    data.join("log").join(segment_name(number))
}

fn set_mark(data: &Path, sequence: u64) {
    Mark::open(&Disk::System, &data.join("log/mark"))
        .unwrap()
        .0
        .write(sequence)
        .unwrap();
}

fn names(data: &Path) -> BTreeSet<String> {
    let items = fs::read_dir(data.join("log")).unwrap();
    items
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// That the folder is refused with advice; the whole text.
#[track_caller]
fn refusal(data: &Path) -> String {
    let text = open(data)
        .map(|_| ())
        .expect_err("a damaged log is refused")
        .to_string();
    assert!(
        text.contains("join as a new member") && text.contains(data.to_str().unwrap()),
        "{text}"
    );
    text
}

#[test]
fn batches_come_back_in_order_over_many_segments() {
    let data = fresh();
    let expected = filled(
        data.path(),
        &[1, 100, 200, 300, 40, 2_000, 1, 476 - 20, 477 - 20, 30],
    );
    assert_eq!(
        expected.iter().map(|(position, _)| *position).collect::<Vec<_>>(),
        (1..=10).collect::<Vec<_>>()
    );
    let (mut journal, batches) = open(data.path()).unwrap();
    assert_eq!(batches, expected);
    assert!(journal.append(b"").is_err(), "an empty batch would be no frame");
    let bytes = |number| fs::metadata(segment(data.path(), number)).unwrap().len();
    let sizes: Vec<u64> = (1..=journal.current_number()).map(bytes).collect();
    // A batch that just fits, one that is a byte too long, and one that is much longer.
    assert_eq!(sizes, [SMALL, SMALL, 2_000 + 56, SMALL, SMALL, SMALL + 1, SMALL]);
}

/// Whatever the end of a last segment looks like after its first bytes, exactly the whole batches are there; and if one of the
/// others was acknowledged, the journal is refused.
#[test]
fn a_last_segment_that_ends_at_any_byte_holds_its_whole_batches() {
    let intact = fresh();
    let expected = filled(intact.path(), &[9, 1, 30, 17]);
    let content = fs::read(segment(intact.path(), 1)).unwrap();
    let ends: Vec<usize> = expected
        .iter()
        .scan(HEAD_BYTES as usize, |end, (_, batch)| {
            *end += FRAME_BYTES as usize + batch.len();
            Some(*end)
        })
        .collect();
    for length in HEAD_BYTES as usize..*ends.last().unwrap() {
        let whole = ends.iter().filter(|end| **end <= length).count();
        let zeros = vec![0; content.len() - length];
        let stale: Vec<u8> = content[length..].iter().map(|byte| !byte).collect();
        for rest in [&[][..], &zeros[..], &stale[..]] {
            for marked in [0, whole, whole + 1] {
                let data = TempDir::new().unwrap();
                copy(intact.path(), data.path());
                fs::write(segment(data.path(), 1), [&content[..length], rest].concat()).unwrap();
                set_mark(data.path(), marked as u64);
                if marked > whole {
                    assert!(refusal(data.path()).contains("its end is lost"), "{length} bytes");
                    continue;
                }
                let (mut journal, batches) = open(data.path()).unwrap();
                assert_eq!(batches, expected[..whole], "{length} bytes");
                // What is written over the torn end is followed by nothing.
                let short = Bytes::from_static(b"s");
                let position = journal.append(&short).unwrap();
                journal.sync().unwrap();
                let mut now = batches;
                now.push((position, short));
                assert_eq!(
                    open(data.path()).unwrap().1,
                    now,
                    "{length} bytes, after a short batch"
                );
            }
        }
    }
}

/// Whatever bit of whatever file is flipped: all batches are there or the journal is refused. If the mark is old, the very last batch may be
/// taken for one that was never acknowledged, and no other.
#[test]
fn a_flip_anywhere_loses_nothing_silently() {
    let intact = fresh();
    let mut expected = filled(intact.path(), &[30, 200, 150, 60, 90, 300, 20, 20, 50]);
    {
        let (mut journal, _) = open(intact.path()).unwrap();
        journal.forget(3).unwrap();
        expected.drain(..2);
    }
    let files: Vec<String> = names(intact.path()).into_iter().collect();
    assert_eq!(files.len(), 3 + 2, "segments, floor and mark: {files:?}");
    let (mut refused, mut whole, mut shorter) = (0, 0, 0);
    for old_mark in [false, true] {
        for name in &files {
            let content = fs::read(intact.path().join("log").join(name)).unwrap();
            for at in 0..content.len() {
                let data = TempDir::new().unwrap();
                copy(intact.path(), data.path());
                if old_mark {
                    set_mark(data.path(), 1);
                }
                let path = data.path().join("log").join(name);
                let mut content = fs::read(&path).unwrap();
                content[at] ^= 1 << (at % 8);
                fs::write(&path, content).unwrap();
                match open(data.path()) {
                    Err(error) => {
                        assert!(
                            matches!(&error, Error::Folder { .. }),
                            "{name}, byte {at}: {error}"
                        );
                        refused += 1;
                    }
                    Ok((_, batches)) if batches == expected => whole += 1,
                    Ok((_, batches)) => {
                        let last = expected.len() - 1;
                        assert!(
                            old_mark && batches == expected[..last],
                            "{name}, byte {at}: {} batches",
                            batches.len()
                        );
                        shorter += 1;
                    }
                }
            }
        }
    }
    assert!(
        refused > 1_000 && whole > 100 && shorter > 50,
        "{refused} {whole} {shorter}"
    );
}

/// A file that is cut at any byte, wherever it stands, loses nothing silently.
#[test]
fn a_cut_anywhere_loses_nothing_silently() {
    let intact = fresh();
    let expected = filled(intact.path(), &[30, 200, 150, 60, 90, 300, 20]);
    for name in names(intact.path()) {
        let length = fs::metadata(intact.path().join("log").join(&name)).unwrap().len();
        for length in 0..length {
            let data = TempDir::new().unwrap();
            copy(intact.path(), data.path());
            let file = fs::File::options()
                .write(true)
                .open(data.path().join("log").join(&name))
                .unwrap();
            file.set_len(length).unwrap();
            match open(data.path()) {
                Err(error) => assert!(
                    matches!(&error, Error::Folder { .. }),
                    "{name} cut at {length}: {error}"
                ),
                Ok((_, batches)) => assert_eq!(batches, expected, "{name} cut at {length}"),
            }
        }
    }
}

#[test]
fn a_whole_batch_behind_a_damaged_one_is_damage_even_if_no_mark_tells() {
    for distance in [0, 1, 50] {
        let data = fresh();
        filled(data.path(), &[10, 10]);
        set_mark(data.path(), 0);
        let (journal, _) = open(data.path()).unwrap();
        // Batch 3 is damaged, so nobody knows where it ended; batch 4 stands somewhere behind it.
        let later = [&journal.current.seal.frame(4, 5, b"later")[..], b"later"].concat();
        let file = open_segment(&Disk::System, &data.path().join("log"), 1).unwrap();
        file.write_all_at(&later, journal.current.end + distance).unwrap();
        let text = refusal(data.path());
        assert!(
            text.contains("batch 3 of the log is damaged") && text.contains("batch 4"),
            "{text}"
        );
    }
}

#[test]
fn what_an_earlier_life_of_a_segment_left_never_counts() {
    let data = fresh();
    let expected = filled(data.path(), &[10, 10]);
    let (journal, _) = open(data.path()).unwrap();
    let head = *journal.segments.back().unwrap();
    for foreign in [
        Head {
            salt: !head.salt,
            ..head
        },
        Head { number: 2, ..head },
    ] {
        // As if it were exactly what must come next, but for the segment it was written in.
        let stale = [&foreign.seal().frame(3, 5, b"stale")[..], b"stale"].concat();
        let file = open_segment(&Disk::System, &data.path().join("log"), 1).unwrap();
        file.write_all_at(&stale, journal.current.end).unwrap();
        assert_eq!(open(data.path()).unwrap().1, expected);
    }
}

#[test]
fn every_place_is_searched_also_between_two_reads() {
    let window = |at: usize| {
        let mut bytes = vec![0; 3 * 4096 + 100];
        bytes[at..at + 8].copy_from_slice(&7u64.to_le_bytes());
        bytes
    };
    for at in 4..3 * 4096 + 80 {
        let window = window(at);
        let found = candidates(&window).any(|(place, head)| place == at - 4 && sequence_at(head) == 7);
        assert!(found, "a sequence number at {at}");
    }
    // Over the border of what is read at once.
    let data = TempDir::new().unwrap();
    let path = data.path().join("segment");
    let seal = Head {
        number: 1,
        salt: 1,
        first: 1,
    }
    .seal();
    let later = [&seal.frame(2, 5, b"later")[..], b"later"].concat();
    for at in READ_BYTES as u64 + HEAD_BYTES - 30..READ_BYTES as u64 + HEAD_BYTES + 10 {
        let file = Disk::System.open(&path, Open::Create).unwrap();
        file.set_len(3 * READ_BYTES as u64).unwrap();
        file.write_all_at(&later, at).unwrap();
        let frames = Frames::new(file, seal.clone()).unwrap();
        assert_eq!(frames.search_after(1).unwrap(), Some((2, at)));
    }
}

/// Histories by chance over tiny segments that are used again and again: after each reopening exactly what was not forgotten is there.
#[test]
fn any_history_over_recycled_segments_comes_back() {
    for durability in [Durability::Fsync, Durability::Os] {
        let mut recycled = 0;
        for seed in 0..20 {
            let (data, mut chance) = (fresh(), Chance(seed));
            let (mut journal, mut model) = (open_for(data.path(), durability).unwrap().0, Batches::new());
            for step in 0..150 {
                match chance.below(12) {
                    0 if !model.is_empty() => {
                        let before = model[chance.below(model.len() as u64) as usize].0;
                        journal.forget(before).unwrap();
                        model.retain(|(position, _)| *position >= before);
                    }
                    1 | 2 => {
                        let spares = journal.spares.len();
                        journal.tidy().unwrap();
                        recycled += usize::from(journal.spares.len() > spares);
                    }
                    3 => {
                        if chance.below(2) == 0 {
                            journal.sync().unwrap();
                        }
                        drop(journal);
                        let (again, batches) = open_for(data.path(), durability).unwrap();
                        assert_eq!(batches, model, "seed {seed}, step {step}");
                        journal = again;
                    }
                    4 if chance.below(3) == 0 => {
                        let content = batch(journal.next, SMALL + chance.below(SMALL));
                        model.push((journal.append(&content).unwrap(), content));
                    }
                    _ => {
                        let content = batch(journal.next, 1 + chance.below(150));
                        model.push((journal.append(&content).unwrap(), content));
                    }
                }
            }
            journal.sync().unwrap();
            if let Some((last, _)) = model.last().cloned() {
                journal.forget(last).unwrap();
                model.retain(|(position, _)| *position == last);
            }
            while journal.tidy().unwrap() {}
            // What is being deleted is gone then.
            drop(journal);
            let files = names(data.path()).len();
            assert!(files <= 1 + 1 + SPARES_MAX + 2, "{files} files for one batch");
            assert_eq!(open(data.path()).unwrap().1, model, "seed {seed}, at last");
        }
        assert!(recycled > 100, "only {recycled} segments were used again");
    }
}

#[test]
fn what_is_left_of_forgotten_segments_is_no_hole() {
    let data = fresh();
    let expected = filled(data.path(), &[300; 8]);
    {
        let (mut journal, _) = open(data.path()).unwrap();
        journal.forget(6).unwrap();
    }
    // As after a crash while segments before the floor were being deleted, not in order.
    fs::remove_file(segment(data.path(), 2)).unwrap();
    fs::remove_file(segment(data.path(), 4)).unwrap();
    let (mut journal, batches) = open(data.path()).unwrap();
    assert_eq!(batches, expected[5..]);
    while journal.tidy().unwrap() {}
    drop(journal);
    let left: Vec<u64> = Found::list(&Disk::System, &data.path().join("log"))
        .unwrap()
        .segments;
    assert_eq!(left, [6, 7, 8]);
    assert_eq!(open(data.path()).unwrap().1, expected[5..]);
}

#[test]
fn whatever_file_is_missing_is_noticed() {
    let intact = fresh();
    filled(intact.path(), &[300; 5]);
    {
        let (mut journal, _) = open(intact.path()).unwrap();
        journal.forget(2).unwrap();
    }
    let cases = [
        (segment_name(2), "begins at 2, but"),
        (segment_name(3), "segment 3 of the log is missing"),
        (segment_name(5), "the log ends at 4, but 5 was durable"),
        ("floor".to_owned(), "`floor` cannot be read"),
        ("mark".to_owned(), "`mark` is missing"),
    ];
    for (name, expected) in cases {
        let data = TempDir::new().unwrap();
        copy(intact.path(), data.path());
        fs::remove_file(data.path().join("log").join(&name)).unwrap();
        if name == segment_name(2) {
            // What is before it does not stand in for it.
            let text = refusal(data.path());
            assert!(text.contains("segment 2 of the log is missing"), "{text}");
            fs::remove_file(segment(data.path(), 1)).unwrap();
        }
        let text = refusal(data.path());
        assert!(text.contains(expected), "{name}: {text}");
    }
    let data = TempDir::new().unwrap();
    copy(intact.path(), data.path());
    (1..=5).for_each(|number| fs::remove_file(segment(data.path(), number)).unwrap());
    assert!(refusal(data.path()).contains("has no segment"));
    // One in the place of another.
    let data = TempDir::new().unwrap();
    copy(intact.path(), data.path());
    fs::copy(segment(data.path(), 4), segment(data.path(), 3)).unwrap();
    assert!(refusal(data.path()).contains("it is segment 4"));
}

#[test]
fn a_rotation_that_a_crash_interrupted_is_no_damage() {
    let data = fresh();
    let mut expected = filled(data.path(), &[300]);
    // The next segment is there and holds nothing yet.
    let (mut journal, _) = open(data.path()).unwrap();
    journal.rotate(10).unwrap();
    drop(journal);
    // A spare was being made, and another one had got its head but not its name.
    fs::write(data.path().join("log").join(NEW_SPARE), b"half").unwrap();
    let head = Head {
        number: 3,
        salt: 5,
        first: 2,
    };
    let mut begun = head.encode().to_vec();
    begun.resize(SMALL as usize, 1);
    fs::write(data.path().join("log").join(spare_name(7)), begun).unwrap();
    assert_eq!(open(data.path()).unwrap().1, expected);
    expected.extend(filled(data.path(), &[100, 400]).into_iter().skip(1));
    assert_eq!(open(data.path()).unwrap().1, expected);
    assert!(!names(data.path()).contains(NEW_SPARE));
    assert!(segment(data.path(), 3).exists(), "the spare was used");
}

#[test]
fn space_is_there_before_it_is_written_to() {
    let data = TempDir::new().unwrap();
    let folder = data.path().join("log");
    let bytes = 3 * FILL_AHEAD_BYTES;
    SegmentJournal::create(&Disk::System, &folder, bytes).unwrap();
    let mut journal =
        SegmentJournal::open(&Disk::System, data.path(), &folder, Durability::Fsync, bytes).unwrap();
    journal.recover(&mut |_, _| Ok(())).unwrap();
    let blocks = |number| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(segment(data.path(), number)).unwrap().blocks() * 512
    };
    let mut expected = Batches::new();
    // It stays ahead of the end, and never writes over a batch.
    for number in 1..=40 {
        while journal.tidy().unwrap() {}
        if journal.current_number() == 1 {
            let filled = blocks(1);
            assert!(
                filled >= bytes.min(journal.current.end + FILL_AHEAD_BYTES),
                "{filled}"
            );
        }
        let content = batch(number, 200_000);
        expected.push((journal.append(&content).unwrap(), content));
        journal.sync().unwrap();
    }
    assert_eq!(journal.current_number(), 2);
    assert!(blocks(1) >= bytes && blocks(2) < bytes);
    drop(journal);
    let mut again =
        SegmentJournal::open(&Disk::System, data.path(), &folder, Durability::Fsync, bytes).unwrap();
    let mut batches = Batches::new();
    again
        .recover(&mut |position, batch| {
            batches.push((position, batch));
            Ok(())
        })
        .unwrap();
    assert!(batches == expected);
}

const ROTATION_CHILD: &str = "PLENARY_TEST_ROTATION_CHILD";

/// Batches that the child writes, one to a segment.
const ROTATIONS: usize = 12;

/// Runs under strace: writes batches that need a segment each, and says each that is durable.
#[test]
fn rotation_child() {
    let Some(data) = std::env::var_os(ROTATION_CHILD) else {
        return;
    };
    let (mut journal, _) = open(Path::new(&data)).unwrap();
    for number in 1..=ROTATIONS {
        journal.append(&batch(journal.next, 300)).unwrap();
        journal.sync().unwrap();
        let mut out = io::stdout().lock();
        writeln!(out, "\n@ {number}").and_then(|()| out.flush()).unwrap();
    }
}

/// Shows that a new segment's head is flushed before it gets its name, its name before a batch is written to it, and the batch before it
/// is acknowledged.
#[test]
fn a_new_segment_is_durable_before_a_batch_in_it_is_acknowledged() {
    let (data, trace) = (fresh(), tempfile::NamedTempFile::new().unwrap());
    let status = std::process::Command::new("strace")
        .args([
            "-f",
            "-y",
            "-e",
            "trace=fdatasync,fsync,rename,renameat,renameat2,pwrite64,write,writev",
            "-o",
        ])
        .arg(trace.path())
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "raft::log::segments::tests::rotation_child",
            "--nocapture",
        ])
        .env(ROTATION_CHILD, data.path())
        .stdout(std::process::Stdio::null())
        .status();
    if !status.is_ok_and(|status| status.success()) {
        assert!(
            std::env::var_os("CI").is_none(),
            "strace is missing or may not trace: install it"
        );
        println!("not shown: strace is missing or may not trace");
        return;
    }
    let (folder, spare) = (
        format!("<{}>", data.path().join("log").display()),
        format!("<{}", data.path().join("log/spare.").display()),
    );
    let (mut rotated, mut acknowledged) = (0, 0);
    let (mut head, mut name, mut batch) = ("flushed", "flushed", "flushed");
    for line in fs::read_to_string(trace.path()).unwrap().lines() {
        let call = line.split_once(' ').unwrap().1.trim_start();
        let calls = |names: &[&str]| names.iter().any(|name| call.starts_with(&format!("{name}(")));
        if calls(&["pwrite64"]) && call.contains(&spare) {
            head = "written";
        } else if calls(&["fsync"]) && call.contains(&spare) {
            head = "flushed";
        } else if calls(&["rename", "renameat", "renameat2"]) && call.contains(".log\"") {
            assert_eq!(head, "flushed", "a name without a head: {line}");
            (rotated, name) = (rotated + 1, "written");
        } else if calls(&["fsync"]) && call.contains(&folder) {
            name = "flushed";
        } else if calls(&["writev"]) && call.contains(".log>") {
            assert_eq!(name, "flushed", "a batch before the name: {line}");
            batch = "written";
        } else if calls(&["fdatasync"]) && call.contains(".log>") {
            batch = "flushed";
        } else if calls(&["write"]) && call.contains("\"@ ") {
            assert_eq!((name, batch), ("flushed", "flushed"), "{line}");
            acknowledged += 1;
        }
    }
    assert_eq!((rotated, acknowledged), (ROTATIONS - 1, ROTATIONS));
}
