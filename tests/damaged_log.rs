//! Logs as a crash, a bad disk or a later program leaves them, and real processes that start from them. Each byte of a log is cut and flipped at the store's level
//! (`src/raft/log/`); here is what a node, and a cluster, makes of it.

#![cfg(all(feature = "cli", unix))]
#![allow(clippy::unwrap_used)]

mod common;
mod process;

use common::free_port;
use plenary::cli::client::text;
use plenary::machine::entry::Entry;
use plenary::machine::reply::Reply;
use process::{Cluster, Process};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Writes, one after the other: each is a batch of the log.
const WRITES: usize = 6;

const SEGMENT: &str = "log/00000000000000000001.log";
const MARK: &str = "log/mark";
const FLOOR: &str = "log/floor";

/// Bytes of a segment before its first frame, and of a frame before its batch; see `src/raft/log/segments/format.rs`.
const HEAD_BYTES: usize = 36;
const FRAME_BYTES: usize = 20;

/// A node by itself is started many times, and has nobody to be silent for.
const QUICK: [&str; 6] = [
    "--heartbeat-ms",
    "20",
    "--election-min-ms",
    "60",
    "--election-max-ms",
    "120",
];

/// What is told of a damaged log.
const ADVICE: &str = "empty the folder and let it join";

/// The files of a data folder, without the zeros that they end with.
#[derive(Clone)]
struct Folder(Vec<(PathBuf, Vec<u8>, u64)>);

impl Folder {
    fn of(data: &Path) -> Self {
        let (mut files, mut folders) = (Vec::new(), vec![PathBuf::new()]);
        while let Some(folder) = folders.pop() {
            for item in std::fs::read_dir(data.join(&folder)).unwrap() {
                let name = folder.join(item.unwrap().file_name());
                if data.join(&name).is_dir() {
                    folders.push(name);
                    continue;
                }
                let mut content = std::fs::read(data.join(&name)).unwrap();
                let length = content.len() as u64;
                content.truncate(used(&content));
                files.push((name, content, length));
            }
        }
        Self(files)
    }

    /// What a file of it holds, and how long it is.
    fn file(&mut self, name: &str) -> (&mut Vec<u8>, &mut u64) {
        let file = self.0.iter_mut().find(|file| file.0 == Path::new(name)).unwrap();
        (&mut file.1, &mut file.2)
    }

    /// In the place of whatever is there.
    fn put(&self, data: &Path) {
        let _ = std::fs::remove_dir_all(data);
        for (name, content, length) in &self.0 {
            let path = data.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut file = File::create(path).unwrap();
            file.write_all(content).unwrap();
            file.set_len(*length).unwrap();
        }
    }
}

/// Bytes before the zeros at the end.
fn used(content: &[u8]) -> usize {
    content
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1)
}

/// What a node has written of how far its log was acknowledged.
fn mark(node: &Process) -> Vec<u8> {
    std::fs::read(node.data.join(MARK)).unwrap()
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

/// Where the frames of a segment begin and end that this mark covers.
fn frames(segment: &[u8], mark: &[u8]) -> Vec<(usize, usize)> {
    let (mut frames, mut at) = (Vec::new(), HEAD_BYTES);
    while (frames.len() as u64) < number(&mark[8..16]) {
        assert_eq!(number(&segment[at + 4..at + 12]), frames.len() as u64 + 1);
        let length = u32::from_le_bytes(segment[at..at + 4].try_into().unwrap()) as usize;
        let end = at + FRAME_BYTES + length;
        frames.push((at, end));
        at = end;
    }
    frames
}

/// Where what a mark covers ends.
fn end(segment: &[u8], mark: &[u8]) -> usize {
    frames(segment, mark).last().expect("something was written").1
}

/// A node by itself with its writes, killed: its folder, and its mark after each of them.
fn written() -> (tempfile::TempDir, Process, Folder, Vec<Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let mut node = Process::new(folder.path(), "data", &address, &QUICK);
    node.start();
    node.ready();
    let marks = (0..WRITES).map(|number| {
        set(&node, number);
        mark(&node)
    });
    let marks = marks.collect();
    node.kill();
    let files = Folder::of(&node.data);
    (folder, node, files, marks)
}

fn set(node: &Process, number: usize) {
    let (key, value) = (format!("key{number}"), format!("the value of {number}"));
    assert_eq!(node.call(&["SET", &key, &value]).unwrap(), Reply::OK);
}

/// How many of the writes a node has: all before one, none after it.
fn has(node: &Process) -> usize {
    let value = |number: usize| text(&node.call(&["GET", &format!("key{number}")]).unwrap());
    let is_there = |number: usize| value(number) == format!("the value of {number}");
    let has = (0..WRITES).take_while(|number| is_there(*number)).count();
    assert!(
        (has..WRITES).all(|number| !is_there(number)),
        "a hole behind {has}"
    );
    has
}

/// Starts it, expects it to end, and gives back what it said.
fn refused(node: &mut Process, what: &str) -> String {
    let before = node.said().len();
    node.start();
    let ended = node.ended();
    assert_eq!(ended.code(), Some(1), "{what}: {}", node.last_words());
    node.said()[before..].to_owned()
}

#[test]
fn a_log_that_a_crash_cut_anywhere_holds_what_was_acknowledged_before() {
    let (_folder, mut node, mut files, marks) = written();
    let segment = files.file(SEGMENT).0.clone();
    for (number, pair) in marks.windows(2).enumerate() {
        let [begin, end] = [0, 1].map(|which| end(&segment, &pair[which]));
        // In the head of a frame, at its end, and in the middle of what it holds.
        let cuts = [begin, begin + 1, begin + FRAME_BYTES, (begin + end) / 2, end - 1];
        for (which, cut) in cuts.into_iter().enumerate() {
            let mut files = files.clone();
            *files.file(MARK).0 = pair[0].clone();
            let (content, length) = files.file(SEGMENT);
            content.truncate(cut);
            // Behind it are the zeros that were there, or nothing.
            if which % 2 == 1 {
                *length = cut as u64;
            }
            files.put(&node.data);
            node.start();
            node.ready();
            let has = has(&node);
            assert!(
                (number + 1..=number + 2).contains(&has),
                "cut at {cut}: {has} of {number} and one"
            );
            (has..WRITES).for_each(|number| set(&node, number));
            node.kill();
        }
    }
    node.start();
    node.ready();
    assert_eq!(has(&node), WRITES, "it went on behind the cut");
}

#[test]
fn a_log_that_lost_what_was_acknowledged_is_refused_with_advice() {
    let (_folder, mut node, mut files, _) = written();
    let (mark, segment) = (files.file(MARK).0.clone(), files.file(SEGMENT).0.clone());
    let frames = frames(&segment, &mark);
    assert!(frames.len() > WRITES);
    for (begin, end) in frames {
        let mut flipped = files.clone();
        flipped.file(SEGMENT).0[(begin + end) / 2] ^= 1;
        flipped.put(&node.data);
        let said = refused(&mut node, &format!("flipped between {begin} and {end}"));
        assert!(said.contains(ADVICE), "no advice: {said}");
    }
    let mut cut = files.clone();
    let (content, length) = cut.file(SEGMENT);
    *length = end(&segment, &mark) as u64 - 1;
    content.truncate(*length as usize);
    cut.put(&node.data);
    let said = refused(&mut node, "cut before its mark");
    assert!(said.contains(ADVICE), "no advice: {said}");
    // Nothing of the sort with what it was.
    files.put(&node.data);
    node.start();
    node.ready();
    assert_eq!(has(&node), WRITES);
}

#[test]
fn a_member_whose_log_was_cut_when_all_lost_power_catches_up() {
    let mut cluster = Cluster::three(&[]);
    let mut written = 0;
    let mut write = |cluster: &Cluster| {
        set(&cluster.nodes[written % 2], written);
        written += 1;
    };
    write(&cluster);
    let id = cluster.nodes[2].status().unwrap().node_id;
    for into in [0, 1, FRAME_BYTES, FRAME_BYTES + 9, 90] {
        cluster.level();
        let mark = mark(&cluster.nodes[2]);
        write(&cluster);
        cluster.level();
        cluster.nodes.iter_mut().for_each(Process::kill);
        let data = cluster.nodes[2].data.clone();
        let cut = end(&std::fs::read(data.join(SEGMENT)).unwrap(), &mark) + into;
        let segment = File::options().write(true).open(data.join(SEGMENT)).unwrap();
        let length = segment.metadata().unwrap().len();
        segment.set_len(cut as u64).unwrap();
        segment.set_len(length).unwrap();
        std::fs::write(data.join(MARK), mark).unwrap();
        cluster.start_all();
        cluster.level();
        assert_eq!(cluster.nodes[2].status().unwrap().node_id, id, "the same member");
        cluster.assert_same_state();
    }
    assert_eq!(has(&cluster.nodes[2]), written);
}

/// Changes a record of the log's last group as `change` does its body, with all checks right.
fn with_other_record(segment: &mut [u8], mark: &[u8], change: impl Fn(&mut [u8])) {
    const GROUP: u8 = 2;
    let crc = |parts: &[&[u8]]| crc32fast::hash(&parts.concat()).to_le_bytes();
    let is_group = |frame: &&(usize, usize)| segment[frame.0 + FRAME_BYTES + 9] == GROUP;
    let frames = frames(segment, mark);
    let (begin, end) = *frames.iter().rfind(is_group).expect("a group was written");
    let (head, batch) = segment.split_at_mut(begin + FRAME_BYTES);
    let (seal, batch) = (head[8..24].to_vec(), &mut batch[..end - begin - FRAME_BYTES]);
    let length = u32::from_le_bytes(batch[..4].try_into().unwrap()) as usize;
    change(&mut batch[8..8 + length]);
    let check = crc(&[&batch[8..8 + length]]);
    batch[4..8].copy_from_slice(&check);
    let check = crc(&[&seal, &head[begin..begin + 12], batch]);
    head[begin + 16..].copy_from_slice(&check);
}

/// What is done to a file.
type Change<'a> = &'a dyn Fn(&mut [u8]);

#[test]
fn a_log_of_a_later_program_is_refused_with_advice_and_left_as_it_is() {
    let (_folder, mut node, mut files, _) = written();
    let mark = files.file(MARK).0.clone();
    let later_segment = |segment: &mut [u8]| {
        segment[7] += 1;
        let check = crc32fast::hash(&segment[..HEAD_BYTES - 4]).to_le_bytes();
        segment[HEAD_BYTES - 4..HEAD_BYTES].copy_from_slice(&check);
    };
    let later_record = |segment: &mut [u8]| with_other_record(segment, &mark, |body| body[0] += 1);
    // Behind version, kind and the entry's id.
    let later_group =
        |segment: &mut [u8]| with_other_record(segment, &mark, |body| body[26] = Entry::FORMAT + 1);
    // Of a mark and a floor the last byte of their magic is their version.
    let later_number = |file: &mut [u8]| {
        file[7] += 1;
        let check = crc32fast::hash(&file[..16]).to_le_bytes();
        file[16..20].copy_from_slice(&check);
    };
    let later: [(&str, &str, Change); 5] = [
        ("segment", SEGMENT, &later_segment),
        ("record", SEGMENT, &later_record),
        ("group", SEGMENT, &later_group),
        ("mark", MARK, &later_number),
        ("floor", FLOOR, &later_number),
    ];
    for (what, name, make_later) in later {
        let mut later = files.clone();
        let (file, length) = later.file(name);
        // What is behind its content is zeros.
        file.resize(usize::try_from(*length).unwrap(), 0);
        make_later(file);
        later.put(&node.data);
        let said = refused(&mut node, what);
        assert!(said.contains("run a newer one"), "{what}: no advice: {said}");
        assert!(!said.contains(ADVICE), "{what}: it is whole: {said}");
        let mut left = Folder::of(&node.data);
        let (left, later) = (left.file(name).0, later.file(name).0);
        assert!(left.starts_with(&later[..used(later)]), "{what}: it was changed");
    }
    files.put(&node.data);
    node.start();
    node.ready();
    assert_eq!(has(&node), WRITES);
}
