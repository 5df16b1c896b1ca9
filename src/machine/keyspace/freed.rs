//! What changes of the store take away and takes long to free: given to whoever frees it beside the log, so that nobody waits for that.

use super::deadlines::OfDatabase;
use super::field_deadlines;
use super::{Database, Owned, Shard, Store};
use crate::machine::value::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A value of more parts than this, or a database of more keys, is not freed in its place. Redis: 64.
const FEW_PARTS: usize = 64;

/// How many parts of a value, or places of an index, are freed at once. Of keys a shard is: about a thousand of a million.
const AT_ONCE: usize = 500;

/// Something that was taken away: a value, or the keys of a database and all by which they are found. Freed when it is dropped, or bit by bit before.
#[derive(Debug, Default)]
pub struct Freed {
    value: Option<Value>,
    shards: Vec<Arc<Shard>>,
    /// In a few large pieces.
    _deadlines: OfDatabase,
    field_deadlines: field_deadlines::OfDatabase,
    owned: BTreeSet<Owned>,
    objects: u64,
}

impl Freed {
    /// Frees a bit of it. Whether anything is left that can be freed so; the rest is freed with it.
    pub fn free_some(&mut self) -> bool {
        fn some_of<T: Ord>(set: &mut BTreeSet<T>) -> bool {
            for _ in 0..AT_ONCE {
                set.pop_last();
            }
            !set.is_empty()
        }
        let more = self.value.as_mut().is_some_and(|value| value.dismantle(AT_ONCE));
        more || self.shards.pop().is_some() || some_of(&mut self.field_deadlines) || some_of(&mut self.owned)
    }

    /// How many values it is, as Redis counts them.
    pub fn objects(&self) -> u64 {
        self.objects
    }
}

/// What was taken away since it was last asked for; not state.
#[derive(Debug, Default)]
pub(super) struct Freeing {
    wanted: bool,
    freed: Vec<Freed>,
}

impl Freeing {
    /// A value is taken away: its last owner shall not be who takes it.
    pub(super) fn value(&mut self, value: &Value) {
        if self.wanted && value.parts() > FEW_PARTS {
            self.freed.push(Freed {
                value: Some(value.clone()),
                objects: 1,
                ..Freed::default()
            });
        }
    }
}

impl Store {
    /// Whether what takes long to free is kept for [`Store::take_freed`] from now on. Who wants that asks after each entry.
    pub fn keep_freed(&mut self, wanted: bool) {
        self.freeing.wanted = wanted;
    }

    /// Whether it is kept.
    pub fn keeps_freed(&self) -> bool {
        self.freeing.wanted
    }

    /// Takes away all keys of a database, and all by which they are found.
    pub(super) fn free_database(&mut self, db: u8, keys: Database) {
        let freed = Freed {
            shards: keys.shards,
            _deadlines: self.deadlines.take(db),
            field_deadlines: self.field_deadlines.take(db),
            owned: std::mem::take(&mut self.owned[usize::from(db)]),
            objects: keys.keys as u64,
            ..Freed::default()
        };
        if self.freeing.wanted && keys.keys > FEW_PARTS {
            self.freeing.freed.push(freed);
        }
    }

    /// What was taken away since this was last asked and takes long to free.
    pub fn take_freed(&mut self) -> Vec<Freed> {
        std::mem::take(&mut self.freeing.freed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::settings::Settings;
    use crate::machine::value::stream::Id;
    use crate::machine::value::{End, Hash, Kind, List, Session, Set, Stream, Zset};

    fn list(len: usize) -> Value {
        let mut list = List::default();
        for _ in 0..len {
            list.push(End::Right, bytes::Bytes::from_static(b"e"));
        }
        list.into_value()
    }

    fn freed(store: &mut Store) -> u64 {
        store.take_freed().iter().map(Freed::objects).sum()
    }

    #[test]
    fn a_database_is_freed_bit_by_bit_until_nothing_is_left() {
        let mut store = Store::new(0);
        store.keep_freed(true);
        for key in 0..2 * AT_ONCE as u64 {
            let session = Session {
                owner: b"owner"[..].into(),
                created_at: key,
                ..Session::default()
            };
            let key = key.to_string();
            store.keyspace(0, 0).put(key.as_bytes(), session.into_value());
        }
        store.keyspace(0, 0).flush();
        let mut freed = store.take_freed().remove(0);
        assert_eq!(freed.owned.len(), 2 * AT_ONCE);
        while freed.free_some() {}
        assert!(freed.shards.is_empty() && freed.owned.is_empty() && freed.field_deadlines.is_empty());
    }

    #[test]
    fn a_value_is_freed_bit_by_bit_unless_somebody_else_has_it() {
        let mut value = list(2 * AT_ONCE + 1);
        let shared = value.clone();
        assert!(!value.dismantle(AT_ONCE));
        assert_eq!(value.parts(), 2 * AT_ONCE + 1);
        drop(shared);
        let left = [0; 3].map(|_| (value.dismantle(AT_ONCE), value.parts()));
        assert_eq!(left, [(true, AT_ONCE + 1), (true, 1), (false, 0)]);
    }

    #[test]
    fn values_of_other_types_are_freed_bit_by_bit_too() {
        let (mut hash, mut set, mut zset) = (Hash::default(), Set::default(), Zset::default());
        for part in 0..2 * AT_ONCE {
            let part = part.to_string();
            hash.set(part.as_bytes(), b"");
            set.insert(part.as_bytes());
            zset.insert(part.as_bytes(), 1.0, &Settings::default());
        }
        for mut value in [hash.into_value(), set.into_value(), zset.into_value()] {
            let type_name = value.type_name();
            assert!(value.dismantle(AT_ONCE), "{type_name}");
            assert_eq!(value.parts(), AT_ONCE, "{type_name}");
            // Of a sorted set the order may take a few bits more.
            let left = (0..10).take_while(|_| value.dismantle(AT_ONCE)).count();
            assert!(left < 10 && value.parts() == 0, "{type_name}");
        }
    }

    #[test]
    fn a_stream_is_freed_node_by_node() {
        let (mut stream, settings) = (Stream::default(), Settings::default());
        for ms in 1..=250 {
            let entry = [b"field", b"value"].map(|text| bytes::Bytes::from_static(text));
            stream.log.push(Id { ms, seq: 0 }, &entry, &settings);
        }
        let nodes = stream.log.nodes();
        assert!(nodes > 1);
        let mut value = stream.into_value();
        assert_eq!((0..).take_while(|_| value.dismantle(AT_ONCE)).count(), nodes - 1);
        assert!(matches!(value, Value::Stream(stream) if stream.log.nodes() == 0));
    }

    #[test]
    fn what_takes_long_to_free_is_kept_and_nothing_else() {
        let mut store = Store::new(0);
        store.keep_freed(true);
        let mut keys = store.keyspace(0, 0);
        for (key, len) in [(b"few", 64), (b"rem", 65), (b"put", 65), (b"ren", 65)] {
            keys.put(key, list(len));
        }
        keys.remove(b"few");
        keys.remove(b"rem");
        assert_eq!(freed(&mut store), 1);
        store.keyspace(0, 0).put(b"put", Value::string(b"1"));
        assert_eq!(freed(&mut store), 1);
        // What only has another name is not kept by anybody else, who would make the next change copy it.
        store.keyspace(0, 0).rename(b"ren", b"new");
        assert_eq!(freed(&mut store), 0);
        store.keyspace(0, 0).put_until(b"end", list(65), Some(5));
        store.advance(5, 1);
        assert_eq!(freed(&mut store), 1);
        store.keyspace(0, 0).flush();
        assert_eq!(freed(&mut store), 0, "two keys are few");
        for key in 0..65_u8 {
            store.keyspace(0, 0).put(&[key], Value::string(b"1"));
        }
        store.keyspace(0, 0).flush();
        assert_eq!(freed(&mut store), 65);
        store.keep_freed(false);
        store.keyspace(0, 0).put(b"rem", list(65));
        store.keyspace(0, 0).remove(b"rem");
        assert_eq!(freed(&mut store), 0, "nobody asks for it");
    }
}
