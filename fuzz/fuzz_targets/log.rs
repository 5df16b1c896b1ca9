//! Records of the log in a segment, as a start reads them: with checksums that fit, and some that do not. No panic, no memory on the word of a length;
//! a record that is read is written the same, and a log that is opened is, written anew, opened as the same.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use plenary::testing::{LogProbe, RecordProbe};
use plenary_fuzz::{bounded, cold, folder, number};
use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

const MEMBERSHIP: u8 = 3;

/// Version, kind and log id.
const BEFORE_MEMBERSHIP: usize = 1 + 1 + 24;

static DATA: LazyLock<PathBuf> = LazyLock::new(|| {
    let data = folder("log");
    fs::create_dir_all(data.join("log")).expect("a folder is made");
    data
});

/// One record of the input: its bytes with checksums that fit, whether a batch ends with it, and a byte of its frame that is changed.
struct Piece {
    record: Vec<u8>,
    ends: bool,
    damage: Option<u8>,
}

/// The input is a run of records. Their checksums are made to fit, so what stands there can say something else.
fn pieces(mut data: &[u8]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    while let [a, b, c, d, ends, damaged, at, _, rest @ ..] = data {
        let length = (u32::from_le_bytes([*a, *b, *c, *d]) as usize).min(rest.len());
        let (body, rest) = rest.split_at(length);
        let mut body = body.to_vec();
        if body.get(1) == Some(&MEMBERSHIP) && body.len() > BEFORE_MEMBERSHIP + 5 {
            let content = cold(&body[BEFORE_MEMBERSHIP + 5..]);
            body.truncate(BEFORE_MEMBERSHIP);
            body.extend(content);
        }
        let mut record = (body.len() as u32).to_le_bytes().to_vec();
        record.extend(crc32fast::hash(&body).to_le_bytes());
        record.extend(body);
        pieces.push(Piece {
            record,
            ends: ends & 1 == 1,
            damage: (*damaged == 0xff).then_some(*at),
        });
        data = rest;
    }
    pieces
}

/// A segment of these batches, each with the byte of its frame that is changed; and what a start makes of it.
fn opened(batches: &[(Vec<u8>, Option<u8>)]) -> Option<Bytes> {
    let mut segment = b"PLNSEGM\x01".to_vec();
    for field in [1u64, 0x1122_3344_5566_7788, 1] {
        segment.extend(field.to_le_bytes());
    }
    let crc = crc32fast::hash(&segment);
    let mut seal = crc32fast::Hasher::new();
    seal.update(&segment[8..24]);
    segment.extend(crc.to_le_bytes());
    for (sequence, (batch, damage)) in (1u64..).zip(batches) {
        let start = segment.len();
        segment.extend((batch.len() as u32).to_le_bytes());
        segment.extend(sequence.to_le_bytes());
        let mut check = seal.clone();
        check.update(&segment[start..]);
        segment.extend(check.clone().finalize().to_le_bytes());
        check.update(batch);
        segment.extend(check.finalize().to_le_bytes());
        segment.extend(batch);
        if let Some(at) = damage {
            let at = start + usize::from(*at) % (segment.len() - start);
            segment[at] ^= 0x55;
        }
    }
    segment.extend([0; 64]);
    let log = DATA.join("log");
    fs::write(log.join(format!("{:020}.log", 1)), &segment).expect("a file is written");
    fs::write(log.join("floor"), number(b"PLNFLOR\x01", 1)).expect("a file is written");
    fs::write(log.join("mark"), number(b"PLNMARK\x01", 0)).expect("a file is written");
    bounded(segment.len(), || LogProbe::recovered(&DATA).ok())
}

fuzz_target!(|data: &[u8]| {
    let (mut batches, mut batch) = (Vec::new(), Vec::new());
    for piece in pieces(data) {
        let record = Bytes::from(piece.record);
        if let Ok(again) = bounded(record.len(), || RecordProbe::again(record.clone())) {
            assert_eq!(again, record);
        }
        batch.extend_from_slice(&record);
        if piece.ends || piece.damage.is_some() {
            batches.push((std::mem::take(&mut batch), piece.damage));
        }
    }
    if !batch.is_empty() {
        batches.push((batch, None));
    }
    if let Some(records) = opened(&batches).filter(|records| !records.is_empty()) {
        assert_eq!(opened(&[(records.to_vec(), None)]), Some(records));
    }
});
