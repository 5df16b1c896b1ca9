//! The entries of a stream in the order of their ids, in nodes, and what is remembered of those that are gone.

use super::id::{Id, NewId};
use super::node::{Entry, Node};
use crate::machine::entry::Millis;
use crate::machine::reply::CommandError;
use crate::machine::settings::Settings;
use crate::machine::snapshot::{Source, invalid, write_length};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// The entries. A clone counts references to nodes; a change copies the node it falls on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// By the id of the first entry each had.
    nodes: BTreeMap<Id, Arc<Node>>,
    len: usize,
    /// The last id that was given.
    last: Id,
    /// The greatest id that was removed by `XDEL`.
    max_deleted: Id,
    /// How many were ever added.
    added: u64,
    bytes: usize,
}

/// What is to be trimmed away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trim {
    /// Down to what.
    pub to: TrimTo,
    /// Whole nodes only.
    pub approximate: bool,
    /// How many entries at most; 0: all.
    pub limit: usize,
}

/// What trimming leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrimTo {
    /// `MAXLEN`: so many entries.
    Length(usize),
    /// `MINID`: those from this id on.
    Id(Id),
}

/// A step of trimming.
enum Cut {
    /// The whole first node.
    Node,
    /// The first entries of the first node.
    Entries(usize),
}

impl Log {
    /// Takes the last node away from what is only to be freed still. Whether there are more.
    pub(in crate::machine::value) fn dismantle(&mut self) -> bool {
        self.nodes.pop_last();
        !self.nodes.is_empty()
    }

    /// How many entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of all entries.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many nodes.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Its nodes in order.
    pub(in crate::machine) fn each_node(&self) -> impl ExactSizeIterator<Item = &Node> {
        self.nodes.values().map(|node| &**node)
    }

    /// Adds a node that comes from elsewhere, behind the others. False, and nothing has changed, where it is not behind them.
    pub(in crate::machine) fn push_node(&mut self, node: Node) -> bool {
        // What is before the last node is before its first id: that was asked when it came.
        let is_behind = self.nodes.last_key_value().is_none_or(|(first, last)| {
            let mut entries = last.entries();
            *first < node.first() && entries.next_back().is_none_or(|entry| entry.id < node.first())
        });
        if !is_behind {
            return false;
        }
        (self.len, self.bytes) = (self.len + node.len(), self.bytes + node.bytes());
        self.nodes.insert(node.first(), Arc::new(node));
        true
    }

    /// The last id that was given, or set; its entry may be gone.
    pub fn last(&self) -> Id {
        self.last
    }

    /// The greatest id that was removed; `0-0` if none was.
    pub fn max_deleted(&self) -> Id {
        self.max_deleted
    }

    /// How many entries were ever added.
    pub fn added(&self) -> u64 {
        self.added
    }

    /// The id of the first entry.
    pub fn first_entry(&self) -> Option<Id> {
        self.range(Id::MIN, Id::MAX).next().map(|entry| entry.id)
    }

    /// The id of the last entry.
    pub fn last_entry(&self) -> Option<Id> {
        self.range(Id::MIN, Id::MAX).next_back().map(|entry| entry.id)
    }

    /// The entries from one id to another, both included.
    pub fn range(&self, from: Id, to: Id) -> impl DoubleEndedIterator<Item = Entry<'_>> {
        // The node that may hold `from` begins at or before it.
        let start = self.nodes.range(..=from).next_back().map_or(from, |(id, _)| *id);
        let nodes = (from <= to).then(|| self.nodes.range(start..=to));
        nodes
            .into_iter()
            .flatten()
            .flat_map(move |(_, node)| node.range(from, to))
    }

    /// The entry of this id.
    pub fn get(&self, id: Id) -> Option<Entry<'_>> {
        self.range(id, id).next()
    }

    /// The id that a new entry would have.
    ///
    /// # Errors
    /// It would not be behind the last one.
    pub fn new_id(&self, wanted: NewId, now: Millis) -> Result<Id, CommandError> {
        if self.last == Id::MAX {
            return Err(CommandError::text(
                "ERR The stream has exhausted the last possible ID, unable to add more items",
            ));
        }
        let id = match wanted {
            NewId::Now if now > self.last.ms => Some(Id { ms: now, seq: 0 }),
            NewId::Now => self.last.next(),
            NewId::At(ms) if ms == self.last.ms => self.last.seq.checked_add(1).map(|seq| Id { ms, seq }),
            NewId::At(ms) => Some(Id { ms, seq: 0 }),
            NewId::Is(id) => Some(id),
        };
        id.filter(|id| *id > self.last).ok_or(CommandError::text(
            "ERR The ID specified in XADD is equal or smaller than the target stream top item",
        ))
    }

    /// Adds an entry of these fields and values, behind the last one.
    pub fn push(&mut self, id: Id, fields: &[bytes::Bytes], settings: &Settings) {
        // An id may be taken back by XSETID; a node without entries could be in the way of it.
        while self
            .nodes
            .last_key_value()
            .is_some_and(|(first, node)| node.len() == 0 && *first >= id)
        {
            self.pop_node(true);
        }
        match self.nodes.last_entry() {
            Some(mut last) if last.get().has_room(fields, settings) => {
                let node = Arc::make_mut(last.get_mut());
                let before = node.bytes();
                node.push(id, fields);
                self.bytes += node.bytes() - before;
            }
            _ => {
                let node = Node::new(id, fields);
                self.bytes += node.bytes();
                self.nodes.insert(id, Arc::new(node));
            }
        }
        self.len += 1;
        self.last = id;
        self.added = self.added.wrapping_add(1);
    }

    /// Removes an entry. Whether it was there.
    pub fn remove(&mut self, id: Id) -> bool {
        let Some((first, node)) = self.nodes.range_mut(..=id).next_back() else {
            return false;
        };
        let (first, before) = (*first, node.bytes());
        let node = Arc::make_mut(node);
        if !node.remove(id) {
            return false;
        }
        self.bytes = self.bytes + node.bytes() - before;
        if node.len() == 0 {
            self.bytes -= node.bytes();
            self.nodes.remove(&first);
        }
        self.len -= 1;
        self.max_deleted = self.max_deleted.max(id);
        true
    }

    /// Whether trimming would do anything.
    pub fn would_trim(&self, trim: &Trim) -> bool {
        self.cut(trim, 0).is_some()
    }

    /// Trims entries away. How many.
    pub fn trim(&mut self, trim: &Trim) -> usize {
        let before = self.len;
        while let Some(cut) = self.cut(trim, before - self.len) {
            match cut {
                Cut::Node => self.pop_node(false),
                Cut::Entries(count) => {
                    self.trim_first_node(count);
                    break;
                }
            }
        }
        before - self.len
    }

    /// The next step of trimming, after so many entries went.
    fn cut(&self, trim: &Trim, gone: usize) -> Option<Cut> {
        let (_, node) = self.nodes.first_key_value()?;
        let (whole, entries) = match trim.to {
            TrimTo::Length(most) if self.len <= most => return None,
            TrimTo::Length(most) => (self.len - node.len() >= most, self.len - most),
            TrimTo::Id(least) => (node.last_given() < least, node.before(least)),
        };
        if trim.limit > 0 && gone + node.len() > trim.limit {
            None
        } else if whole {
            Some(Cut::Node)
        } else {
            (!trim.approximate && entries > 0).then_some(Cut::Entries(entries))
        }
    }

    fn pop_node(&mut self, last: bool) {
        let popped = if last {
            self.nodes.pop_last()
        } else {
            self.nodes.pop_first()
        };
        if let Some((_, node)) = popped {
            self.len -= node.len();
            self.bytes -= node.bytes();
        }
    }

    fn trim_first_node(&mut self, count: usize) {
        if let Some(mut first) = self.nodes.first_entry() {
            let node = Arc::make_mut(first.get_mut());
            let before = node.bytes();
            node.remove_first(count);
            self.bytes -= before - node.bytes();
            self.len -= count;
        }
    }

    /// `XSETID`: the last id, and what is to be remembered beside it.
    ///
    /// # Errors
    /// The entries that are there say otherwise.
    pub fn check_last(&self, last: Id, added: Option<u64>) -> Result<(), CommandError> {
        let Some(last_entry) = self.last_entry() else {
            return Ok(());
        };
        if last < last_entry {
            return Err(CommandError::text(
                "ERR The ID specified in XSETID is smaller than the target stream top item",
            ));
        }
        if added.is_some_and(|added| added < self.len as u64) {
            return Err(CommandError::text(
                "ERR The entries_added specified in XSETID is smaller than the target stream length",
            ));
        }
        Ok(())
    }

    /// Does what [`Log::check_last`] has admitted.
    pub fn set_last(&mut self, last: Id, added: Option<u64>, max_deleted: Option<Id>) {
        self.last = last;
        self.added = added.unwrap_or(self.added);
        self.max_deleted = max_deleted.unwrap_or(self.max_deleted);
    }

    /// Whether an entry that was removed by `XDEL` may be missing from `from` on.
    pub fn has_gaps_from(&self, from: Id) -> bool {
        let first = self.first_entry();
        first.is_some_and(|first| self.max_deleted > Id::MIN && first <= self.max_deleted)
            && from <= self.max_deleted
    }

    /// How many entries were ever added up to this id, where that can be told.
    pub fn added_up_to(&self, id: Id) -> Option<i64> {
        let added = self.added.cast_signed();
        if added == 0 {
            return Some(0);
        }
        let Some(first) = self.first_entry() else {
            return (id <= self.last).then_some(added);
        };
        if id == self.last {
            return Some(added);
        }
        let gone = added.wrapping_sub(i64::try_from(self.len).expect("nothing here holds 2^63 things"));
        let gaps = self.max_deleted > Id::MIN && self.max_deleted >= first;
        match id.cmp(&first) {
            _ if id > self.last || gaps => None,
            std::cmp::Ordering::Less => Some(gone),
            std::cmp::Ordering::Equal => Some(gone.wrapping_add(1)),
            std::cmp::Ordering::Greater => None,
        }
    }

    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        self.last.write(out)?;
        self.max_deleted.write(out)?;
        out.write_all(&self.added.to_le_bytes())?;
        write_length(out, self.nodes.len())?;
        self.nodes.values().try_for_each(|node| node.write(out))
    }

    pub(super) fn read(from: &mut dyn Source) -> io::Result<Self> {
        let mut log = Self {
            last: Id::read(from)?,
            max_deleted: Id::read(from)?,
            added: from.u64()?,
            ..Self::default()
        };
        for _ in 0..from.u32()? {
            if !log.push_node(Node::read(from)?) {
                return Err(invalid("a stream's nodes are not in order".to_owned()));
            }
        }
        if log.last_entry().is_some_and(|last| last > log.last) {
            return Err(invalid("a stream's last id is before its last entry".to_owned()));
        }
        Ok(log)
    }
}
