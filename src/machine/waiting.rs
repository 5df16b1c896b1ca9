//! Commands that wait in the log for a key to get something: `BLPOP` and its kin. First come, first served, on whatever node they wait.
//!
//! A command that finds nothing calls [`super::keyspace::Keyspace::wait_for`] and is kept here. After a command that changed a key
//! that somebody waits for, the machine runs the waiting commands again, in the order in which they came; one that finds something is answered by an
//! event. Each has a deadline, or waits until its node takes it back (`.unwait`) or starts anew.

use super::entry::Millis;
use super::event::Waiter;
use super::reply::Reply;
use super::snapshot::{Source, invalid, write_bytes, write_length};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound::{Excluded, Unbounded};

/// One command that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Wait {
    /// The node and start whose caller waits.
    pub caller: (u64, u64),
    /// The database.
    pub db: u8,
    /// The keys waited for.
    pub keys: Vec<Bytes>,
    /// The command to run again.
    pub argv: Vec<Bytes>,
    /// When it gives up, by the log's clock; none: never.
    pub deadline: Option<Millis>,
    /// What it answers then.
    pub otherwise: Otherwise,
    /// Whether it is run again as well when a key of it is gone.
    pub even_if_gone: bool,
}

/// What a command that waited in vain answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otherwise {
    /// Nothing.
    Nil,
    /// No array.
    NilArray,
}

impl From<Otherwise> for Reply {
    fn from(otherwise: Otherwise) -> Self {
        match otherwise {
            Otherwise::Nil => Self::Nil,
            Otherwise::NilArray => Self::NilArray,
        }
    }
}

/// All commands that wait. How many is bounded by the connections of all nodes.
#[derive(Clone, Debug, Default)]
pub struct Waiting {
    /// The number of the last one; never used again.
    last: u64,
    /// In the order in which they came.
    waits: BTreeMap<u64, Wait>,
    /// Who waits for a key. Derived.
    by_key: BTreeMap<(u8, Bytes), BTreeSet<u64>>,
    /// Every deadline. Derived.
    deadlines: BTreeSet<(Millis, u64)>,
    /// How many are run again also when a key is gone. Derived.
    even_if_gone: usize,
}

impl Waiting {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.waits.len()
    }

    /// Whether nobody does.
    pub fn is_empty(&self) -> bool {
        self.waits.is_empty()
    }

    /// Whether anybody waits for this key.
    pub(super) fn is_for(&self, db: u8, key: &Bytes) -> bool {
        !self.waits.is_empty() && self.by_key.contains_key(&(db, key.clone()))
    }

    /// Whether a command of this (upper-case) name waits for a key.
    pub(super) fn any(&self, db: u8, key: &Bytes, name: &[u8]) -> bool {
        let waiting = self.by_key.get(&(db, key.clone())).into_iter().flatten();
        let mut names = waiting.filter_map(|number| self.waits.get(number)?.argv.first());
        names.any(|other| other.eq_ignore_ascii_case(name))
    }

    /// The keys of a database that are waited for.
    pub(super) fn keys_of(&self, db: u8) -> Vec<Bytes> {
        let from = (db, Bytes::new());
        let of = self.by_key.range(from..).take_while(|((of, _), _)| *of == db);
        of.map(|((_, key), _)| key.clone()).collect()
    }

    /// The first who waits for this key and came after that one (0: of all).
    pub(super) fn next_for(&self, db: u8, key: &Bytes, after: u64) -> Option<u64> {
        let waiting = self.by_key.get(&(db, key.clone()))?;
        waiting.range((Excluded(after), Unbounded)).next().copied()
    }

    /// Whether anybody waits who is run again also when a key is gone.
    pub(super) fn any_even_if_gone(&self) -> bool {
        self.even_if_gone > 0
    }

    /// One that waits.
    pub(super) fn get(&self, number: u64) -> Option<&Wait> {
        self.waits.get(&number)
    }

    /// The numbers of the commands of a node's start.
    pub fn of_caller(&self, caller: (u64, u64)) -> impl Iterator<Item = u64> {
        self.waits
            .iter()
            .filter(move |(_, wait)| wait.caller == caller)
            .map(|(number, _)| *number)
    }

    /// The node and start of each that waits.
    pub fn callers(&self) -> impl Iterator<Item = (u64, u64)> {
        self.waits.values().map(|wait| wait.caller)
    }

    /// Enters a command; its number.
    pub(super) fn add(&mut self, wait: Wait) -> u64 {
        self.last += 1;
        self.enter(self.last, wait);
        self.last
    }

    fn enter(&mut self, number: u64, wait: Wait) {
        for key in &wait.keys {
            self.by_key
                .entry((wait.db, key.clone()))
                .or_default()
                .insert(number);
        }
        self.deadlines
            .extend(wait.deadline.map(|deadline| (deadline, number)));
        self.even_if_gone += usize::from(wait.even_if_gone);
        self.waits.insert(number, wait);
    }

    /// Takes a command out, and who waits for its answer.
    pub(super) fn remove(&mut self, number: u64) -> Option<(Waiter, Wait)> {
        let wait = self.waits.remove(&number)?;
        self.even_if_gone -= usize::from(wait.even_if_gone);
        for key in &wait.keys {
            let place = (wait.db, key.clone());
            if let Some(numbers) = self.by_key.get_mut(&place) {
                numbers.remove(&number);
                if numbers.is_empty() {
                    self.by_key.remove(&place);
                }
            }
        }
        if let Some(deadline) = wait.deadline {
            self.deadlines.remove(&(deadline, number));
        }
        let (node, start) = wait.caller;
        Some((Waiter { node, start, number }, wait))
    }

    /// Takes out the first command whose deadline has `passed`.
    pub(super) fn pop_late(&mut self, passed: Millis) -> Option<(Waiter, Wait)> {
        let (deadline, number) = *self.deadlines.first()?;
        if deadline > passed {
            return None;
        }
        self.remove(number)
    }

    /// The first deadline of all.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Takes out whatever a node's earlier starts left behind, and gives it: nobody may be there any more to be answered.
    pub(super) fn forget(&mut self, node: u64, before_start: u64) -> Vec<(Waiter, Wait)> {
        let of = |wait: &Wait| wait.caller.0 == node && wait.caller.1 < before_start;
        let left: Vec<u64> = self
            .waits
            .iter()
            .filter(|(_, wait)| of(wait))
            .map(|(number, _)| *number)
            .collect();
        left.into_iter()
            .filter_map(|number| self.remove(number))
            .collect()
    }

    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(&self.last.to_le_bytes())?;
        write_length(out, self.waits.len())?;
        for (number, wait) in &self.waits {
            for part in [*number, wait.caller.0, wait.caller.1, wait.deadline.unwrap_or(0)] {
                out.write_all(&part.to_le_bytes())?;
            }
            let otherwise = u8::from(wait.otherwise == Otherwise::NilArray);
            out.write_all(&[
                wait.db,
                u8::from(wait.deadline.is_some()),
                otherwise,
                u8::from(wait.even_if_gone),
            ])?;
            for list in [&wait.keys, &wait.argv] {
                write_length(out, list.len())?;
                list.iter().try_for_each(|bytes| write_bytes(out, bytes))?;
            }
        }
        Ok(())
    }

    pub(super) fn read(from: &mut dyn Source) -> io::Result<Self> {
        let mut waiting = Self {
            last: from.counter("waiting")?,
            ..Self::default()
        };
        for _ in 0..from.u32()? {
            let (number, caller, deadline) = (from.u64()?, (from.u64()?, from.u64()?), from.u64()?);
            let (db, has_deadline) = (from.u8()?, from.flag()?);
            let otherwise = if from.flag()? {
                Otherwise::NilArray
            } else {
                Otherwise::Nil
            };
            let even_if_gone = from.flag()?;
            let mut lists = [Vec::new(), Vec::new()];
            for list in &mut lists {
                for _ in 0..from.u32()? {
                    list.push(from.bytes()?);
                }
            }
            let [keys, argv] = lists;
            if number > waiting.last
                || waiting
                    .waits
                    .last_key_value()
                    .is_some_and(|(last, _)| *last >= number)
            {
                return Err(invalid("commands that wait are not in order".to_owned()));
            }
            let deadline = has_deadline.then_some(deadline);
            waiting.enter(
                number,
                Wait {
                    caller,
                    db,
                    keys,
                    argv,
                    deadline,
                    otherwise,
                    even_if_gone,
                },
            );
        }
        Ok(waiting)
    }
}
