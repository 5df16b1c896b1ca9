//! What changes of the store take away and takes long to free: given to whoever frees it beside the log, so that nobody waits for that.

use super::deadlines::OfDatabase;
use super::{Shard, Store};
use crate::machine::value::Value;
use std::sync::Arc;

/// A value of more parts than this, or a database of more keys, is not freed in its place. Redis: 64.
const FEW_PARTS: usize = 64;

/// Something that was taken away. Freed when it is dropped.
#[derive(Debug)]
pub struct Freed {
    /// Held to be dropped with this: a value, or the shards of a database and the deadlines of its keys.
    _value: Option<Value>,
    _shards: Vec<Arc<Shard>>,
    _deadlines: OfDatabase,
    objects: u64,
}

impl Freed {
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
                _value: Some(value.clone()),
                _shards: Vec::new(),
                _deadlines: OfDatabase::default(),
                objects: 1,
            });
        }
    }

    /// All keys of a database are taken away.
    pub(super) fn database(&mut self, shards: Vec<Arc<Shard>>, deadlines: OfDatabase, keys: usize) {
        if self.wanted && keys > FEW_PARTS {
            self.freed.push(Freed {
                _value: None,
                _shards: shards,
                _deadlines: deadlines,
                objects: keys as u64,
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

    /// What was taken away since this was last asked and takes long to free.
    pub fn take_freed(&mut self) -> Vec<Freed> {
        std::mem::take(&mut self.freeing.freed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::value::{End, Kind, List};

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
