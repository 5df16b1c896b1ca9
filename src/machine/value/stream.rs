//! Streams: entries in the order of their ids, and the groups that read them.

mod group;
mod id;
mod log;
mod node;

pub use group::{Consumer, Group, Pending};
pub use id::{Id, NewId};
pub use log::{Log, Trim, TrimTo};
pub use node::{Entry, Node};

use crate::machine::snapshot::{Source, invalid, write_bytes, write_length};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Bytes that a group costs beside its name and content.
const GROUP_BYTES: usize = 120;

/// A stream; there may be one with nothing in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stream {
    /// Its entries.
    pub log: Log,
    groups: BTreeMap<Bytes, Arc<Group>>,
    /// Bytes of all groups.
    group_bytes: usize,
}

impl Stream {
    /// Bytes of all entries and groups.
    pub fn bytes(&self) -> usize {
        self.log.bytes() + self.group_bytes
    }

    /// The groups, by name.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = (&Bytes, &Group)> {
        self.groups.iter().map(|(name, group)| (name, &**group))
    }

    /// One group.
    pub fn group(&self, name: &[u8]) -> Option<&Group> {
        self.groups.get(name).map(|group| &**group)
    }

    /// Enters a group. False, and nothing has changed, if one has this name.
    pub fn add_group(&mut self, name: &[u8], group: Group) -> bool {
        if self.groups.contains_key(name) {
            return false;
        }
        self.group_bytes += name.len() + GROUP_BYTES + group.bytes();
        self.groups.insert(Bytes::copy_from_slice(name), Arc::new(group));
        true
    }

    /// Removes a group. Whether it was there.
    pub fn remove_group(&mut self, name: &[u8]) -> bool {
        let Some(group) = self.groups.remove(name) else {
            return false;
        };
        self.group_bytes -= name.len() + GROUP_BYTES + group.bytes();
        true
    }

    /// Changes a group, with the entries in view. None if it is not there.
    pub fn change_group<R>(&mut self, name: &[u8], change: impl FnOnce(&Log, &mut Group) -> R) -> Option<R> {
        let group = Arc::make_mut(self.groups.get_mut(name)?);
        let before = group.bytes();
        let result = change(&self.log, group);
        self.group_bytes = self.group_bytes + group.bytes() - before;
        Some(result)
    }

    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        self.log.write(out)?;
        write_length(out, self.groups.len())?;
        self.groups.iter().try_for_each(|(name, group)| {
            write_bytes(out, name)?;
            group.write(out)
        })
    }

    pub(super) fn read(from: &mut dyn Source) -> io::Result<Self> {
        let mut stream = Self {
            log: Log::read(from)?,
            ..Self::default()
        };
        for _ in 0..from.u32()? {
            let (name, group) = (from.bytes()?, Group::read(from)?);
            if !stream.add_group(&name, group) {
                return Err(invalid("a group that was there before".to_owned()));
            }
        }
        Ok(stream)
    }
}
