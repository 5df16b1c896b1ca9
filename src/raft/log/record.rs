//! The records of the log as bytes. Knows nothing of where they are kept.
//!
//! ```text
//! record = length of body u32 | crc32 of body u32 | body
//! body   = version u8 (1) | kind u8 | fields of the kind
//! log id = term u64 | node u64 | index u64
//! ```
//!
//! Fixed-width little-endian, by hand: these bytes are written once per group of commands. A test pins them.

use crate::raft::meta::cold;
use crate::raft::{COUNTER_MAX, Entry, Group, LogId, Vote};
use bytes::{Buf, BufMut, Bytes};
use openraft::EntryPayload;
use openraft::impls::leader_id_adv::LeaderId;
use std::fmt;

/// The layout written today. A reader refuses what it does not know.
const VERSION: u8 = 1;

/// Bytes before a body: its length and its checksum.
const HEAD: usize = 4 + 4;

/// Bytes an entry takes in the log beside its content.
pub(super) const ENTRY_OVERHEAD: u64 = (HEAD + 2 + 24) as u64;

/// One thing that happened to the log. A later record overrules an earlier one.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::raft) enum Record {
    /// The next entry.
    Entry(Entry),
    /// What this node has promised.
    Vote(Vote),
    /// How far the log is known to be committed.
    Committed(LogId),
    /// Entries after this one (all, if none is named) are void.
    Truncate(Option<LogId>),
    /// Entries up to this one are in a snapshot and no longer needed.
    Purge(LogId),
}

mod kind {
    pub(super) const BLANK: u8 = 1;
    pub(super) const NORMAL: u8 = 2;
    pub(super) const MEMBERSHIP: u8 = 3;
    pub(super) const VOTE: u8 = 4;
    pub(super) const COMMITTED: u8 = 5;
    pub(super) const TRUNCATE: u8 = 6;
    pub(super) const TRUNCATE_ALL: u8 = 7;
    pub(super) const PURGE: u8 = 8;
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::raft) enum Damage {
    /// They end too early.
    Length,
    /// Their checksum does not fit.
    Checksum,
    /// They were written by a later version.
    Version(u8),
    /// They are whole, but no record of version 1.
    Content,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => f.write_str("it ends too early"),
            Self::Checksum => f.write_str("its checksum does not fit"),
            Self::Version(version) => {
                write!(
                    f,
                    "it has format {version}, this program reads {VERSION}: run a newer one"
                )
            }
            Self::Content => f.write_str("its content makes no sense"),
        }
    }
}

/// Appends one record to `out`.
pub(in crate::raft) fn encode(record: &Record, out: &mut Vec<u8>) {
    match record {
        Record::Entry(entry) => encode_entry(entry, out),
        Record::Vote(vote) => body(out, kind::VOTE, |out| {
            out.put_u64_le(vote.leader_id.term);
            out.put_u64_le(vote.leader_id.node_id);
            out.put_u8(u8::from(vote.committed));
        }),
        Record::Committed(id) => body(out, kind::COMMITTED, |out| put_log_id(out, id)),
        Record::Truncate(Some(id)) => body(out, kind::TRUNCATE, |out| put_log_id(out, id)),
        Record::Truncate(None) => body(out, kind::TRUNCATE_ALL, |_| {}),
        Record::Purge(id) => body(out, kind::PURGE, |out| put_log_id(out, id)),
    }
}

/// Entries one after the other, as they travel between nodes.
pub(in crate::raft) fn encode_entries(entries: &[Entry]) -> Bytes {
    let mut out = Vec::with_capacity(entries.iter().map(entry_len).sum());
    for entry in entries {
        encode_entry(entry, &mut out);
    }
    out.into()
}

/// Entries as [`encode_entries`] wrote them; groups share the memory of `bytes`.
///
/// # Errors
/// What is wrong with the first that is none.
pub(in crate::raft) fn decode_entries(mut bytes: Bytes) -> Result<Vec<Entry>, Damage> {
    let mut entries = Vec::new();
    while let Some(record) = decode(&mut bytes)? {
        let Record::Entry(entry) = record else {
            return Err(Damage::Content);
        };
        entries.push(entry);
    }
    Ok(entries)
}

/// Bytes an entry takes, about: a membership is small.
fn entry_len(entry: &Entry) -> usize {
    let group = if let EntryPayload::Normal(group) = &entry.payload {
        group.0.len()
    } else {
        256
    };
    HEAD + 2 + 24 + group
}

/// Appends one entry to `out`; a group's bytes go in as they are.
pub(super) fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    match &entry.payload {
        EntryPayload::Blank => body(out, kind::BLANK, |out| put_log_id(out, &entry.log_id)),
        EntryPayload::Normal(group) => body(out, kind::NORMAL, |out| {
            put_log_id(out, &entry.log_id);
            out.put_slice(&group.0);
        }),
        EntryPayload::Membership(membership) => body(out, kind::MEMBERSHIP, |out| {
            put_log_id(out, &entry.log_id);
            out.put_slice(&cold::encode(membership));
        }),
    }
}

fn body(out: &mut Vec<u8>, kind: u8, fields: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.put_slice(&[0; HEAD]);
    out.put_u8(VERSION);
    out.put_u8(kind);
    fields(out);
    let length = u32::try_from(out.len() - start - HEAD).expect("a group is bounded far below 4 GiB");
    let checksum = crc32fast::hash(&out[start + HEAD..]);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + HEAD].copy_from_slice(&checksum.to_le_bytes());
}

fn put_log_id(out: &mut Vec<u8>, id: &LogId) {
    out.put_u64_le(id.leader_id.term);
    out.put_u64_le(id.leader_id.node_id);
    out.put_u64_le(id.index);
}

/// Takes the next record off `bytes`; `None` at their end. Groups share the memory of `bytes`.
///
/// # Errors
/// What is wrong with the record. There is no way past it.
pub(in crate::raft) fn decode(bytes: &mut Bytes) -> Result<Option<Record>, Damage> {
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.len() < HEAD {
        return Err(Damage::Length);
    }
    let (length, checksum) = (bytes.get_u32_le() as usize, bytes.get_u32_le());
    if bytes.len() < length {
        return Err(Damage::Length);
    }
    let body = bytes.split_to(length);
    if crc32fast::hash(&body) != checksum {
        return Err(Damage::Checksum);
    }
    decode_body(body).map(Some)
}

fn decode_body(mut body: Bytes) -> Result<Record, Damage> {
    if body.len() < 2 {
        return Err(Damage::Content);
    }
    match body.get_u8() {
        VERSION => {}
        other => return Err(Damage::Version(other)),
    }
    let record = match body.get_u8() {
        kind::BLANK => Record::Entry(Entry {
            log_id: log_id(&mut body)?,
            payload: EntryPayload::Blank,
        }),
        kind::NORMAL => {
            let (log_id, group) = (log_id(&mut body)?, Group(body.split_off(0)));
            Record::Entry(Entry {
                log_id,
                payload: EntryPayload::Normal(group),
            })
        }
        kind::MEMBERSHIP => {
            let (log_id, content) = (log_id(&mut body)?, body.split_off(0));
            let membership = cold::decode(&content).map_err(|_| Damage::Content)?;
            // Members twice, or in another order: nobody writes that, and what is read is sent on as it was.
            if cold::encode(&membership) != content {
                return Err(Damage::Content);
            }
            Record::Entry(Entry {
                log_id,
                payload: EntryPayload::Membership(membership),
            })
        }
        kind::VOTE => {
            if body.len() < 17 {
                return Err(Damage::Content);
            }
            let leader_id = LeaderId {
                term: counter(&mut body)?,
                node_id: body.get_u64_le(),
            };
            let committed = match body.get_u8() {
                0 => false,
                1 => true,
                _ => return Err(Damage::Content),
            };
            Record::Vote(Vote { leader_id, committed })
        }
        kind::COMMITTED => Record::Committed(log_id(&mut body)?),
        kind::TRUNCATE => Record::Truncate(Some(log_id(&mut body)?)),
        kind::TRUNCATE_ALL => Record::Truncate(None),
        kind::PURGE => Record::Purge(log_id(&mut body)?),
        _ => return Err(Damage::Content),
    };
    if body.is_empty() {
        Ok(record)
    } else {
        Err(Damage::Content)
    }
}

fn log_id(body: &mut Bytes) -> Result<LogId, Damage> {
    if body.len() < 24 {
        return Err(Damage::Content);
    }
    let leader_id = LeaderId {
        term: counter(body)?,
        node_id: body.get_u64_le(),
    };
    Ok(LogId {
        leader_id,
        index: counter(body)?,
    })
}

fn counter(body: &mut Bytes) -> Result<u64, Damage> {
    let counter = body.get_u64_le();
    (counter < COUNTER_MAX).then_some(counter).ok_or(Damage::Content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::Member;
    use openraft::Membership;
    use std::collections::{BTreeMap, BTreeSet};

    fn id(term: u64, node_id: u64, index: u64) -> LogId {
        LogId {
            leader_id: LeaderId { term, node_id },
            index,
        }
    }

    fn samples() -> Vec<Record> {
        let member = Member {
            raft_addr: "a:1".into(),
            resp_addr: String::new(),
        };
        let nodes = BTreeMap::from([(7, member)]);
        let membership = Membership::new(vec![BTreeSet::from([7])], nodes).unwrap();
        vec![
            Record::Entry(Entry {
                log_id: id(1, 7, 3),
                payload: EntryPayload::Blank,
            }),
            Record::Entry(Entry {
                log_id: id(1, 7, 4),
                payload: EntryPayload::Normal(Group(Bytes::from_static(b"group"))),
            }),
            Record::Entry(Entry {
                log_id: id(1, 7, 5),
                payload: EntryPayload::Membership(membership),
            }),
            Record::Vote(Vote {
                leader_id: LeaderId { term: 2, node_id: 9 },
                committed: true,
            }),
            Record::Committed(id(1, 7, 4)),
            Record::Truncate(Some(id(1, 7, 4))),
            Record::Truncate(None),
            Record::Purge(id(1, 7, 2)),
        ]
    }

    fn encoded() -> Vec<u8> {
        let mut out = Vec::new();
        samples().iter().for_each(|record| encode(record, &mut out));
        out
    }

    fn decoded(bytes: &[u8]) -> Result<Vec<Record>, Damage> {
        let mut bytes = Bytes::copy_from_slice(bytes);
        std::iter::from_fn(|| decode(&mut bytes).transpose()).collect()
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        assert_eq!(decoded(&encoded()), Ok(samples()));
    }

    #[test]
    fn every_cut_and_every_flip_is_noticed() {
        let bytes = encoded();
        for end in 0..bytes.len() {
            // A cut between two records leaves whole records: that the batch ends there is for the journal to notice.
            assert!(
                decoded(&bytes[..end]).is_ok_and(|some| samples().starts_with(&some))
                    || decoded(&bytes[..end]).is_err()
            );
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                assert!(decoded(&bytes).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    /// Found by `fuzz/`: the entry after the last index there is would have had none.
    #[test]
    fn a_term_or_index_that_no_log_comes_to_is_refused() {
        let vote = |term| {
            let leader_id = LeaderId { term, node_id: 1 };
            Record::Vote(Vote {
                leader_id,
                committed: true,
            })
        };
        let refused = [
            vote(u64::MAX),
            vote(COUNTER_MAX),
            Record::Purge(id(1, 7, u64::MAX)),
            Record::Committed(id(COUNTER_MAX, 7, 1)),
        ];
        for record in refused.into_iter().chain([vote(COUNTER_MAX - 1)]) {
            let mut out = Vec::new();
            encode(&record, &mut out);
            let expected = if record == vote(COUNTER_MAX - 1) {
                Ok(vec![record])
            } else {
                Err(Damage::Content)
            };
            assert_eq!(decoded(&out), expected);
        }
    }

    #[test]
    fn a_later_version_is_refused_by_name() {
        let mut out = Vec::new();
        encode(&Record::Truncate(None), &mut out);
        out[HEAD] = 9;
        let checksum = crc32fast::hash(&out[HEAD..]);
        out[4..8].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(decoded(&out), Err(Damage::Version(9)));
    }

    #[test]
    fn the_bytes_of_version_1_stay() {
        let hex: Vec<String> = samples()
            .iter()
            .map(|record| {
                let mut out = Vec::new();
                encode(record, &mut out);
                out.iter().map(|byte| format!("{byte:02x}")).collect()
            })
            .collect();
        assert_eq!(hex, include_str!("record.hex").lines().collect::<Vec<_>>());
    }
}
