//! When parts of keys end: of each hash or session the first deadline among its fields or parts, its name, in the order of time. They are few beside
//! those of keys, so each has a place of its own in a tree.

use super::DATABASES;
use crate::machine::entry::Millis;
use bytes::Bytes;
use std::collections::BTreeSet;

/// Of one database.
pub(super) type OfDatabase = BTreeSet<(Millis, Bytes)>;

/// Each database apart, so that emptying one, or exchanging two, walks over no key.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FieldDeadlines {
    of: [OfDatabase; DATABASES],
    /// The first of all and its database: each command asks for it.
    first: Option<(Millis, u8)>,
}

impl FieldDeadlines {
    /// The first that passes, and its database: the lowest of several.
    pub(super) fn first(&self) -> Option<(Millis, u8)> {
        self.first
    }

    /// The key of a database that has its first.
    pub(super) fn first_of(&self, db: u8) -> Option<&Bytes> {
        self.of[usize::from(db)].first().map(|(_, key)| key)
    }

    /// All of them, each database by itself.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Millis, u8, &Bytes)> {
        let databases = (0..).zip(&self.of);
        databases.flat_map(|(db, of)| of.iter().map(move |(at, key)| (*at, db, key)))
    }

    /// Moves a key's from one time to another; `None` is for where it has none.
    pub(super) fn shift(&mut self, db: u8, key: Bytes, from: Option<Millis>, to: Option<Millis>) {
        let of = &mut self.of[usize::from(db)];
        if let Some(from) = from {
            of.remove(&(from, key.clone()));
        }
        of.extend(to.map(|to| (to, key)));
        self.find_first();
    }

    /// Takes away those of a database.
    pub(super) fn take(&mut self, db: u8) -> OfDatabase {
        let taken = std::mem::take(&mut self.of[usize::from(db)]);
        self.find_first();
        taken
    }

    /// Exchanges those of two databases.
    pub(super) fn swap(&mut self, left: u8, right: u8) {
        self.of.swap(usize::from(left), usize::from(right));
        self.find_first();
    }

    fn find_first(&mut self) {
        let firsts = (0..).zip(&self.of);
        self.first = firsts.filter_map(|(db, of)| Some((of.first()?.0, db))).min();
    }
}
