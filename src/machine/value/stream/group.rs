//! A group of consumers: up to where it has read, and what its consumers were given and have not acknowledged.

use super::id::Id;
use super::log::Log;
use crate::machine::entry::Millis;
use crate::machine::snapshot::{Source, invalid, write_bytes, write_length};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Bytes that a consumer costs beside its name, and an entry that is pending.
const CONSUMER_BYTES: usize = 80;
const PENDING_BYTES: usize = 120;

/// A group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    last: Id,
    /// How many entries were added up to `last`, where it is known.
    read: Option<i64>,
    pending: BTreeMap<Id, Pending>,
    consumers: BTreeMap<Bytes, Consumer>,
    /// Bytes of the consumers' names.
    names: usize,
}

/// An entry that was given to a consumer and not acknowledged.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    /// Whose it is.
    pub consumer: Bytes,
    /// When it was last given.
    pub delivered: Millis,
    /// How often.
    pub count: i64,
}

/// One that reads for the group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Consumer {
    /// When it last asked for something.
    pub seen: Millis,
    pending: BTreeSet<Id>,
}

impl Consumer {
    /// The ids of what it has not acknowledged.
    pub fn pending(&self) -> &BTreeSet<Id> {
        &self.pending
    }
}

impl Group {
    /// A group that has read up to an id.
    pub fn new(last: Id, read: Option<i64>) -> Self {
        Self {
            last,
            read,
            ..Self::default()
        }
    }

    /// Bytes of it all.
    pub(super) fn bytes(&self) -> usize {
        self.names + self.consumers.len() * CONSUMER_BYTES + self.pending.len() * PENDING_BYTES
    }

    /// Up to where it has read.
    pub fn last(&self) -> Id {
        self.last
    }

    /// How many entries it has read, where that is known.
    pub fn read_count(&self) -> Option<i64> {
        self.read
    }

    /// How many entries it has still to read, where that can be told.
    pub fn lag(&self, log: &Log) -> Option<i64> {
        let known = self.read.filter(|_| !log.has_gaps_from(self.last));
        if log.added() == 0 {
            return Some(0);
        }
        known
            .or_else(|| log.added_up_to(self.last))
            .map(|read| log.added().cast_signed().wrapping_sub(read))
    }

    /// Sets up to where it has read.
    pub fn set_last(&mut self, last: Id, read: Option<i64>) {
        (self.last, self.read) = (last, read);
    }

    /// `XCLAIM … LASTID`: it has read up to this at least.
    pub fn raise_last(&mut self, last: Id) {
        self.last = self.last.max(last);
    }

    /// It has read this entry.
    pub fn note_read(&mut self, log: &Log, id: Id) {
        if id <= self.last {
            return;
        }
        match self.read {
            Some(read) if !log.has_gaps_from(id) => self.read = Some(read.wrapping_add(1)),
            _ if log.added() > 0 => self.read = log.added_up_to(id),
            _ => {}
        }
        self.last = id;
    }

    /// Its consumers, by name.
    pub fn consumers(&self) -> &BTreeMap<Bytes, Consumer> {
        &self.consumers
    }

    /// What is pending, by id.
    pub fn pending(&self) -> &BTreeMap<Id, Pending> {
        &self.pending
    }

    /// What is pending of one consumer, or of all, from one id to another.
    pub fn pending_range<'a>(
        &'a self,
        consumer: Option<&'a Consumer>,
        from: Id,
        to: Id,
    ) -> impl Iterator<Item = (Id, &'a Pending)> {
        let to = to.max(from);
        let (all, own) = match consumer {
            Some(consumer) => (None, Some(consumer.pending.range(from..=to))),
            None => (Some(self.pending.range(from..=to)), None),
        };
        let all = all.into_iter().flatten().map(|(id, pending)| (*id, pending));
        let own = own.into_iter().flatten();
        all.chain(own.filter_map(|id| Some((*id, self.pending.get(id)?))))
    }

    /// Enters a consumer. Whether it is new.
    pub fn add_consumer(&mut self, name: &[u8], now: Millis) -> bool {
        if self.consumers.contains_key(name) {
            return false;
        }
        self.names += name.len();
        let consumer = Consumer {
            seen: now,
            ..Consumer::default()
        };
        self.consumers.insert(Bytes::copy_from_slice(name), consumer);
        true
    }

    /// Notes that a consumer asks for something; enters it first if it is new, and says whether it was.
    pub fn see_consumer(&mut self, name: &[u8], now: Millis) -> bool {
        match self.consumers.get_mut(name) {
            Some(consumer) => {
                consumer.seen = now;
                false
            }
            None => self.add_consumer(name, now),
        }
    }

    /// Removes a consumer with all that is pending of it. How much that was; none if there is no such consumer.
    pub fn remove_consumer(&mut self, name: &[u8]) -> Option<usize> {
        let consumer = self.consumers.remove(name)?;
        self.names -= name.len();
        for id in &consumer.pending {
            self.pending.remove(id);
        }
        Some(consumer.pending.len())
    }

    /// Takes an entry from whoever has it. Whether it was pending.
    pub fn release(&mut self, id: Id) -> bool {
        let Some(pending) = self.pending.remove(&id) else {
            return false;
        };
        if let Some(consumer) = self.consumers.get_mut(&pending.consumer) {
            consumer.pending.remove(&id);
        }
        true
    }

    /// Gives an entry once more to the consumer that has it.
    pub fn deliver_again(&mut self, id: Id, now: Millis) {
        if let Some(pending) = self.pending.get_mut(&id) {
            (pending.delivered, pending.count) = (now, pending.count.wrapping_add(1));
        }
    }

    /// Gives an entry to a consumer, away from whoever has it. False, and nothing has changed, where there is no such consumer.
    pub fn assign(&mut self, id: Id, consumer: &[u8], delivered: Millis, count: i64) -> bool {
        let Some((name, _)) = self.consumers.get_key_value(consumer) else {
            return false;
        };
        let pending = Pending {
            consumer: name.clone(),
            delivered,
            count,
        };
        self.release(id);
        if let Some(consumer) = self.consumers.get_mut(consumer) {
            consumer.pending.insert(id);
        }
        self.pending.insert(id, pending);
        true
    }

    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        self.last.write(out)?;
        out.write_all(&[u8::from(self.read.is_some())])?;
        out.write_all(&self.read.unwrap_or(0).to_le_bytes())?;
        write_length(out, self.consumers.len())?;
        for (name, consumer) in &self.consumers {
            write_bytes(out, name)?;
            out.write_all(&consumer.seen.to_le_bytes())?;
        }
        write_length(out, self.pending.len())?;
        for (id, pending) in &self.pending {
            id.write(out)?;
            write_bytes(out, &pending.consumer)?;
            out.write_all(&pending.delivered.to_le_bytes())?;
            out.write_all(&pending.count.to_le_bytes())?;
        }
        Ok(())
    }

    pub(super) fn read(from: &mut dyn Source) -> io::Result<Self> {
        let (last, is_known, read) = (Id::read(from)?, from.flag()?, from.u64()?.cast_signed());
        let mut group = Self::new(last, is_known.then_some(read));
        for _ in 0..from.u32()? {
            let (name, seen) = (from.bytes()?, from.u64()?);
            if !group.add_consumer(&name, seen) {
                return Err(invalid("a consumer that was there before".to_owned()));
            }
        }
        for _ in 0..from.u32()? {
            let (id, consumer) = (Id::read(from)?, from.bytes()?);
            let (delivered, count) = (from.u64()?, from.u64()?.cast_signed());
            if group.pending.contains_key(&id) || !group.assign(id, &consumer, delivered, count) {
                return Err(invalid("an entry pending twice, or of no consumer".to_owned()));
            }
        }
        Ok(group)
    }
}
