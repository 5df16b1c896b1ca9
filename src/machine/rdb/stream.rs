//! Streams as Redis writes them: nodes as listpacks, what is remembered of the entries, and the groups with what is pending.
//!
//! A listpack of a node has counts of its entries and of removed ones, the names that its entries share, and the entries, counted from the
//! node's id; one that was removed is marked. Nothing is kept here of what was removed but that it counts where a node is full: what stands
//! for it in a listpack we write has its number and its bytes, not its content.

use super::{Reader, kind, write_length, write_string};
use crate::machine::listpack::{self, integer_size, string_size};
use crate::machine::value::Stream;
use crate::machine::value::stream::{Group, Id, Log, Node};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::iter;

/// Flags of an entry.
const REMOVED: i64 = 1;
const SHARES_NAMES: i64 = 2;

/// The least that a removed entry takes beside its id: flags, how many fields, how many parts.
const REMOVED_LEAST: usize = 2 + 2 + 2;

/// The most bytes that stand for removed entries and say nothing: a node of as many is full by every setting but unusual ones.
const FILLING_MAX: usize = 64 << 10;

/// How often an entry was read is written so where it is not known.
const UNKNOWN: i64 = -1;

/// Appends the stream as Redis 7.0 writes it; none where a node is too great for a listpack.
pub(super) fn write(out: &mut Vec<u8>, stream: &Stream) -> Option<()> {
    let log = &stream.log;
    write_length(out, log.nodes() as u64);
    for node in log.each_node() {
        write_string(out, &raw(node.first()));
        write_string(out, &packed(node)?);
    }
    write_length(out, log.len() as u64);
    write_id(out, log.last());
    write_id(out, log.first_entry().unwrap_or_default());
    write_id(out, log.max_deleted());
    write_length(out, log.added());
    write_length(out, stream.groups().len() as u64);
    for (name, group) in stream.groups() {
        write_string(out, name);
        write_group(out, group);
    }
    Some(())
}

fn write_group(out: &mut Vec<u8>, group: &Group) {
    write_id(out, group.last());
    write_length(out, group.read_count().unwrap_or(UNKNOWN).cast_unsigned());
    write_length(out, group.pending().len() as u64);
    for (id, pending) in group.pending() {
        out.extend(raw(*id));
        out.extend(pending.delivered.to_le_bytes());
        write_length(out, pending.count.cast_unsigned());
    }
    write_length(out, group.consumers().len() as u64);
    for (name, consumer) in group.consumers() {
        write_string(out, name);
        out.extend(consumer.seen.to_le_bytes());
        write_length(out, consumer.pending().len() as u64);
        consumer.pending().iter().for_each(|id| out.extend(raw(*id)));
    }
}

fn write_id(out: &mut Vec<u8>, id: Id) {
    write_length(out, id.ms);
    write_length(out, id.seq);
}

/// An id as a key of Redis' tree: its order is that of its bytes.
fn raw(id: Id) -> [u8; 16] {
    (u128::from(id.ms) << 64 | u128::from(id.seq)).to_be_bytes()
}

fn from_raw(bytes: [u8; 16]) -> Id {
    let ([ms @ .., _, _, _, _, _, _, _, _], [_, _, _, _, _, _, _, _, seq @ ..]) = (bytes, bytes);
    Id {
        ms: u64::from_be_bytes(ms),
        seq: u64::from_be_bytes(seq),
    }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).expect("nothing here holds 2^63 things")
}

/// The listpack of a node.
fn packed(node: &Node) -> Option<Vec<u8>> {
    let mut whole = listpack::Writer::default();
    whole.integer(signed(node.len()));
    whole.integer(signed(node.removed()));
    let counts = whole.len();
    whole.integer(signed(node.names().len()));
    node.names().iter().for_each(|name| whole.text(name));
    whole.integer(0);

    let mut entries = listpack::Writer::default();
    for entry in node.entries() {
        let flags = if entry.shares_names() { SHARES_NAMES } else { 0 };
        entries.integer(flags);
        write_offset(&mut entries, node, entry.id);
        let items: Vec<Bytes> = entry.items().collect();
        if !entry.shares_names() {
            entries.integer(signed(items.len() / 2));
        }
        items.iter().for_each(|item| entries.text(item));
        entries.integer(signed(items.len()) + if entry.shares_names() { 3 } else { 4 });
    }

    // Removed entries stand in front, but for the last that there was: trimming asks for its id.
    let last_is_gone = node.entries().next_back().map(|entry| entry.id) != Some(node.last_given());
    let ids = iter::repeat_n(node.first(), node.removed()).enumerate();
    let ids: Vec<Id> = ids
        .map(|(at, first)| match last_is_gone && at + 1 == node.removed() {
            true => node.last_given(),
            false => first,
        })
        .collect();
    let least: usize = ids.iter().map(|id| REMOVED_LEAST + offset_size(node, *id)).sum();
    let taken = listpack::FRAME + whole.len() - counts + entries.len() + least;
    let mut filling = node.listpack_bytes().saturating_sub(taken).min(FILLING_MAX);
    let (mut front, mut back) = (listpack::Writer::default(), listpack::Writer::default());
    for id in ids {
        let place = if id == node.last_given() {
            &mut back
        } else {
            &mut front
        };
        write_removed(place, node, id, std::mem::take(&mut filling));
    }
    for part in [front, entries, back] {
        whole.append(&part);
    }
    whole.framed()
}

/// What an id is beyond the node's.
fn offset(node: &Node, id: Id) -> [i64; 2] {
    let first = node.first();
    [id.ms.wrapping_sub(first.ms), id.seq.wrapping_sub(first.seq)].map(u64::cast_signed)
}

fn offset_size(node: &Node, id: Id) -> usize {
    offset(node, id).map(integer_size).iter().sum()
}

fn write_offset(out: &mut listpack::Writer, node: &Node, id: Id) {
    offset(node, id).into_iter().for_each(|part| out.integer(part));
}

/// An entry that was removed, with so many bytes more than the least: in a field of its own, and in an integer that is wider than it need be.
fn write_removed(out: &mut listpack::Writer, node: &Node, id: Id, filling: usize) {
    const NAME: usize = 2;
    let text_of = |size: usize| {
        let mut lengths = size.saturating_sub(10)..size;
        lengths.find(|length| string_size(*length) == size)
    };
    let fits = |wider: usize| {
        let rest = filling.checked_sub(wider)?;
        let text = rest.checked_sub(NAME).and_then(text_of);
        (rest == 0 || text.is_some()).then_some((wider, text))
    };
    let (wider, text) = (0..4).find_map(fits).unwrap_or((0, None));
    out.integer(REMOVED);
    write_offset(out, node, id);
    let fields = i64::from(text.is_some());
    out.wide_integer(fields, 1 + wider);
    if let Some(length) = text {
        out.text(b"");
        // No digits, or it would be held as the number that it is.
        out.text(&vec![b'-'; length]);
    }
    out.integer(4 + 2 * fields);
}

/// A stream of any of the types that Redis has written. `strictly`: no two of its entries have one id, which up to format 3 was taken where a removed one stood
/// between them.
pub(super) fn read(kind: u8, reader: &mut Reader<'_>, strictly: bool) -> Option<Stream> {
    let mut log = Log::default();
    for _ in 0..reader.length()? {
        if !log.push_node(read_node(reader, strictly)?) {
            return None;
        }
    }
    let length = usize::try_from(reader.length()?).ok()?;
    let last = read_id(reader)?;
    let (max_deleted, added) = if kind == kind::STREAM_LISTPACKS {
        (Id::MIN, length as u64)
    } else {
        // The first id follows from the entries.
        read_id(reader)?;
        (read_id(reader)?, reader.length()?)
    };
    if length != log.len() || log.last_entry().is_some_and(|entry| entry > last) {
        return None;
    }
    log.set_last(last, Some(added), Some(max_deleted));
    let mut stream = Stream::default();
    stream.log = log;
    for _ in 0..reader.length()? {
        let name = reader.string()?;
        let group = read_group(kind, reader, &stream.log)?;
        if !stream.add_group(&name, group) {
            return None;
        }
    }
    Some(stream)
}

fn read_id(reader: &mut Reader<'_>) -> Option<Id> {
    Some(Id {
        ms: reader.length()?,
        seq: reader.length()?,
    })
}

/// A time that is not before 1970.
fn read_time(reader: &mut Reader<'_>) -> Option<u64> {
    u64::try_from(i64::from_le_bytes(reader.array()?)).ok()
}

fn read_node(reader: &mut Reader<'_>, strictly: bool) -> Option<Node> {
    let first = from_raw(reader.string()?.as_ref().try_into().ok()?);
    let listpack = reader.string()?;
    let mut items = listpack::Reader::new(&listpack)?;
    let (count, removed) = (read_count(&mut items)?, read_count(&mut items)?);
    let mut names = Vec::new();
    for _ in 0..read_count(&mut items)? {
        names.push(items.text()?);
    }
    if items.integer()? != 0 {
        return None;
    }
    let mut node = Node::restored(first, names);
    let (mut last, mut fields) = (None, Vec::new());
    // Each takes several items, so that a count that lies ends soon.
    for _ in 0..count.checked_add(removed)? {
        let flags = items.integer()?;
        let (ms, seq) = (items.integer()?, items.integer()?);
        let id = Id {
            ms: first.ms.wrapping_add_signed(ms),
            seq: first.seq.wrapping_add_signed(seq),
        };
        fields.clear();
        let parts = if flags & SHARES_NAMES > 0 {
            for name in node.names() {
                fields.extend([name.clone(), items.text()?]);
            }
            3 + node.names().len()
        } else {
            let parts = read_count(&mut items)?.checked_mul(2)?;
            for _ in 0..parts {
                fields.push(items.text()?);
            }
            4 + parts
        };
        if items.integer()? != signed(parts) {
            return None;
        }
        let in_order = match last {
            None => first <= id,
            // Of removed ones we write several under one id.
            Some((last, was_removed)) => last < id || last == id && (was_removed || flags & REMOVED > 0),
        };
        if !in_order {
            return None;
        }
        last = Some((id, flags & REMOVED > 0));
        if flags & REMOVED == 0 {
            if fields.is_empty()
                || strictly && node.entries().next_back().is_some_and(|before| before.id >= id)
            {
                return None;
            }
            node.push(id, &fields);
        }
    }
    let (last, _) = last?;
    let right = items.is_over() && node.len() == count;
    right.then(|| node.completed(last, removed, listpack.len()))
}

/// A count of things, at most as many as there can be.
fn read_count(items: &mut listpack::Reader<'_>) -> Option<usize> {
    usize::try_from(items.integer()?)
        .ok()
        .filter(|count| *count <= u32::MAX as usize)
}

fn read_group(kind: u8, reader: &mut Reader<'_>, log: &Log) -> Option<Group> {
    let last = read_id(reader)?;
    let read = if kind == kind::STREAM_LISTPACKS {
        log.added_up_to(last)
    } else {
        Some(reader.length()?.cast_signed()).filter(|read| *read != UNKNOWN)
    };
    let mut group = Group::new(last, read);
    let mut pending = BTreeMap::new();
    for _ in 0..reader.length()? {
        let id = from_raw(reader.array()?);
        let (delivered, count) = (read_time(reader)?, reader.length()?.cast_signed());
        if pending.insert(id, (delivered, count)).is_some() {
            return None;
        }
    }
    for _ in 0..reader.length()? {
        let (name, seen) = (reader.string()?, read_time(reader)?);
        if kind == kind::STREAM_LISTPACKS_3 {
            // When it was last given something: Redis 7.2 keeps it, 7.0 does not.
            reader.array::<8>()?;
        }
        if !group.add_consumer(&name, seen) {
            return None;
        }
        for _ in 0..reader.length()? {
            let id = from_raw(reader.array()?);
            let (delivered, count) = pending.remove(&id)?;
            group.assign(id, &name, delivered, count);
        }
    }
    // What is pending is pending of somebody.
    pending.is_empty().then_some(group)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::machine::entry::{Command, Entry, Origin};
    use crate::machine::keyspace::Chance;
    use crate::machine::reply::{CommandError, Reply};
    use crate::machine::settings::Settings;
    use crate::machine::value::stream::{Trim, TrimTo};
    use crate::machine::{Machine, Outcome, snapshot};

    /// What so many random steps leave: entries of one and of several names, short and long, some removed; groups, and what they have not
    /// acknowledged.
    pub(in crate::machine::rdb) fn any_stream(chance: &mut Chance, steps: usize) -> Stream {
        let settings = Settings::default();
        let mut stream = Stream::default();
        let mut id = Id { ms: 5, seq: 7 };
        for step in 0..steps {
            match chance.below(10) {
                0..5 => {
                    id.ms += [0, 1, 1, 200, 70_000][chance.below(5)];
                    id.seq = if id.ms > stream.log.last().ms {
                        chance.below(3) as u64
                    } else {
                        id.seq + 1
                    };
                    let names: &[&str] =
                        [&["f"][..], &["f"], &["f", "17"], &["a", "b", "c"]][chance.below(4)];
                    let value = |chance: &mut Chance| match chance.below(4) {
                        0 => "12".to_owned(),
                        1 => "x".repeat([0, 1, 2, 63, 64, 126, 127, 600, 5_000][chance.below(9)]),
                        _ => format!("value {step}"),
                    };
                    let fields: Vec<Bytes> = names
                        .iter()
                        .flat_map(|name| [(*name).to_owned(), value(chance)])
                        .map(Bytes::from)
                        .collect();
                    stream.log.push(id, &fields, &settings);
                }
                5 | 6 => {
                    let ids: Vec<Id> = stream.log.range(Id::MIN, Id::MAX).map(|entry| entry.id).collect();
                    let last = ids.len().saturating_sub(1);
                    let gone = if chance.below(3) == 0 {
                        last
                    } else {
                        chance.below(ids.len().max(1))
                    };
                    ids.get(gone).map(|id| stream.log.remove(*id));
                }
                7 if chance.below(8) == 0 => {
                    let to = TrimTo::Length(stream.log.len().saturating_sub(3));
                    stream.log.trim(&Trim {
                        to,
                        approximate: false,
                        limit: 0,
                    });
                }
                7 | 8 => {
                    let name = ["g", "7"][chance.below(2)].as_bytes();
                    let read = [None, Some(3)][chance.below(2)];
                    stream.add_group(name, Group::new(stream.log.last(), read));
                    stream.change_group(name, |_, group| group.add_consumer(b"alice", 1_000 + step as u64));
                }
                _ => {
                    let pending = stream.log.last_entry().unwrap_or(id);
                    let consumer = ["bob", "alice"][chance.below(2)].as_bytes();
                    stream.change_group(b"g", |_, group| {
                        group.see_consumer(consumer, 2_000);
                        group.assign(pending, consumer, 3_000, 1 << chance.below(40))
                    });
                }
            }
        }
        stream
    }

    /// Down to where each node is full, whatever was removed.
    #[test]
    fn a_stream_is_restored_as_it_was() {
        let mut chance = Chance::new(7);
        for round in 0..300 {
            let stream = any_stream(&mut chance, round);
            let mut payload = Vec::new();
            write(&mut payload, &stream).unwrap();
            let mut reader = Reader::new(&payload);
            let restored = read(kind::STREAM_LISTPACKS_2, &mut reader, true).unwrap();
            assert_eq!(restored, stream, "round {round}");
            assert_eq!(restored.bytes(), stream.bytes());
            assert!(reader.rest.is_empty());
        }
    }

    /// Every byte with one bit of it the other way, and some that mean much: what is not refused is a stream whose counts are right.
    #[test]
    fn a_damaged_node_is_refused_or_whole() {
        let stream = any_stream(&mut Chance::new(3), 40);
        let mut payload = Vec::new();
        write(&mut payload, &stream).unwrap();
        for at in 0..payload.len().min(700) {
            let flipped = (0..8).map(|bit| payload[at] ^ 1 << bit);
            for byte in flipped.chain([0, 1, 0x7f, 0x80, 0xf4, 0xff]) {
                let mut damaged = payload.clone();
                damaged[at] = byte;
                let Some(read) = read(kind::STREAM_LISTPACKS_2, &mut Reader::new(&damaged), true) else {
                    continue;
                };
                let ids: Vec<Id> = read.log.range(Id::MIN, Id::MAX).map(|entry| entry.id).collect();
                assert_eq!(ids.len(), read.log.len());
                assert!(ids.is_sorted_by(|one, next| one < next));
                assert!(ids.last().is_none_or(|last| *last <= read.log.last()));
                for (_, group) in read.groups() {
                    let of_consumers = group
                        .consumers()
                        .values()
                        .map(|consumer| consumer.pending().len());
                    assert_eq!(of_consumers.sum::<usize>(), group.pending().len());
                }
            }
        }
    }

    /// A removed entry between two living ones of its id: whoever holds that can be written as a snapshot, and read.
    #[test]
    fn two_entries_of_one_id_are_refused_and_where_they_were_taken_they_stay_readable() {
        let mut listpack = listpack::Writer::default();
        for integer in [2, 1, 1] {
            listpack.integer(integer);
        }
        listpack.text(b"f");
        listpack.integer(0);
        for flags in [SHARES_NAMES, SHARES_NAMES | REMOVED, SHARES_NAMES] {
            for integer in [flags, 0, 0] {
                listpack.integer(integer);
            }
            listpack.text(b"v");
            listpack.integer(4);
        }
        let mut payload = vec![kind::STREAM_LISTPACKS];
        write_length(&mut payload, 1);
        write_string(&mut payload, &raw(Id { ms: 1, seq: 0 }));
        write_string(&mut payload, &listpack.framed().unwrap());
        // Two entries, the last 1-0, no groups.
        for number in [2, 1, 0, 0] {
            write_length(&mut payload, number);
        }
        let payload = super::super::sealed(payload, 10);
        let restored = |format| {
            let mut machine = Machine::default();
            let argv = [
                Bytes::from("RESTORE"),
                "k".into(),
                "0".into(),
                payload.clone().into(),
            ];
            let outcome = machine.apply(&Entry {
                format,
                at: 1,
                seed: 1,
                origin: Origin::default(),
                commands: vec![Command::new(0, argv)],
            });
            (machine, outcome)
        };
        let refused = Reply::Error(CommandError::text("ERR Bad data format"));
        assert_eq!(restored(4).1, Outcome::Applied(vec![refused]));
        let (machine, outcome) = restored(3);
        assert_eq!(outcome, Outcome::Applied(vec![Reply::OK]));
        let mut bytes = Vec::new();
        snapshot::write(&machine, &mut bytes).unwrap();
        let read = snapshot::read(&mut bytes.as_slice()).unwrap();
        assert_eq!(read.digest(), machine.digest());
    }
}
