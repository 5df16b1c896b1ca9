//! A few keys as they stand, as bytes for a process that holds no machine, and read there by the code that reads a machine.
//!
//! So a handle has one way to read a session, an entry or a version, wherever the machine is. An excerpt holds what was asked for, of an entry its tags as
//! well, and of a session that was renamed what it goes on as: without them nobody can tell whether they are there:
//!
//! ```text
//! excerpt = layout u32, now u64, count u32, count × slot        slots, integers and `now` as in a snapshot (`snapshot.rs`)
//! ```
//!
//! The layout is that of snapshots: a process of an older version refuses what it does not know. What is neither string, session nor entry stands as a
//! list of one empty element: no handle reads more of it than that it is something else, its version and its deadline.

use super::cached;
use super::entry::{Entry, Millis};
use super::keyspace::{Slot, Store, View};
use super::snapshot::{Source, VERSION, invalid, read_slot, write_length, write_slot};
use super::value::{Kind, List, Value};
use bytes::{Buf, Bytes};
use std::io;

/// Bytes of names and values in an excerpt, at most: what a message between processes can hold, with room for what stands around them.
pub const BYTES_MAX: usize = 48 << 20;

/// What an excerpt is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// These keys.
    Keys(Vec<Bytes>),
    /// The sessions of an owner.
    Owned(Bytes),
}

/// The keys as one database has them. To be asked for is to be used, as a read is.
///
/// # Errors
/// How many bytes it would be, where that is more than [`BYTES_MAX`].
pub fn write(view: &View<'_>, wanted: &Wanted) -> Result<Bytes, usize> {
    let keys: Vec<&Bytes> = match wanted {
        Wanted::Keys(keys) => keys.iter().collect(),
        Wanted::Owned(owner) => view.sessions_of(owner).collect(),
    };
    let mut slots: Vec<(&[u8], &Slot)> = Vec::new();
    for key in keys {
        let Some(slot) = view.slot(key) else { continue };
        slots.push((key, slot));
        slots.extend(later_ids(view, slot));
        let tags = cached::tags(slot).filter_map(|tag| Some((tag, view.find(tag)?)));
        slots.extend(tags);
    }
    // Two entries may have one tag.
    slots.sort_unstable_by_key(|(key, _)| *key);
    slots.dedup_by_key(|(key, _)| *key);
    let size: usize = slots
        .iter()
        .map(|(key, slot)| key.len() + content_bytes(&slot.value))
        .sum();
    if size > BYTES_MAX {
        return Err(size);
    }
    let mut out = Vec::with_capacity(size + 64);
    write_all(view, &slots, &mut out).expect("a Vec takes everything, and no value has 4 GiB: checked above");
    Ok(out.into())
}

fn write_all(view: &View<'_>, slots: &[(&[u8], &Slot)], out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&view.now().to_le_bytes());
    write_length(out, slots.len())?;
    for (key, slot) in slots {
        if is_told(&slot.value) {
            write_slot(out, view.db(), key, slot)?;
            continue;
        }
        let mut list = List::default();
        list.push_back(b"");
        let value = list.into_value();
        let slot = Slot {
            value,
            ..(*slot).clone()
        };
        write_slot(out, view.db(), key, &slot)?;
    }
    Ok(())
}

/// What is under the keys that a session had after this one, up to that it has now: without them nobody can tell whether it goes on.
fn later_ids<'a>(view: &View<'a>, slot: &'a Slot) -> Vec<(&'a [u8], &'a Slot)> {
    let Ok(session) = slot.value.as_session() else {
        return Vec::new();
    };
    let later = view.renamed(session).filter(|session| session.is_retired());
    let found = later.filter_map(|session| Some((&session.successor[..], view.find(&session.successor)?)));
    found.collect()
}

/// Whether a value stands in an excerpt as it is.
fn is_told(value: &Value) -> bool {
    match value {
        Value::String(_) | Value::Session(_) => true,
        Value::Hash(hash) => cached::is_entry(hash),
        _ => false,
    }
}

fn content_bytes(value: &Value) -> usize {
    if is_told(value) { value.bytes() } else { 0 }
}

/// A place in which excerpts are read, one at a time.
#[derive(Debug)]
pub struct Scratch {
    store: Store,
    /// The keys that are in it now.
    held: Vec<(u8, Bytes)>,
}

impl Default for Scratch {
    fn default() -> Self {
        let mut store = Store::new(0);
        // What has ended by the rules of the state that it is from is not in an excerpt.
        store.settings_mut().level = Entry::FORMAT;
        Self {
            store,
            held: Vec::new(),
        }
    }
}

impl Scratch {
    /// What `read` makes of an excerpt of this database.
    ///
    /// # Errors
    /// `InvalidData` where the bytes are no excerpt, or one of a later version.
    pub fn view<R>(&mut self, excerpt: Bytes, db: u8, read: impl FnOnce(View<'_>) -> R) -> io::Result<R> {
        // Also what a reader left that panicked.
        self.clear();
        let now = self.fill(excerpt)?;
        let result = read(self.store.view(db, now));
        self.clear();
        Ok(result)
    }

    fn fill(&mut self, excerpt: Bytes) -> io::Result<Millis> {
        let mut from = Plain(excerpt);
        let layout = from.u32()?;
        if layout > VERSION {
            return Err(invalid(format!(
                "an excerpt in layout {layout}, of a later version"
            )));
        }
        let now = from.u64()?;
        for _ in 0..from.u32()? {
            let (db, key, slot) = read_slot(&mut from, u64::MAX, now)?;
            self.store.insert_restored(db, &key, slot);
            self.held.push((db, key));
        }
        if from.0.has_remaining() {
            return Err(invalid("bytes behind the last key of an excerpt".to_owned()));
        }
        Ok(now)
    }

    fn clear(&mut self) {
        for (db, key) in self.held.drain(..) {
            self.store.forget_slot(db, &key);
        }
    }
}

/// The time as of which an excerpt was made, by the log's clock.
///
/// # Errors
/// `InvalidData`.
pub fn time_of(excerpt: &Bytes) -> io::Result<Millis> {
    let mut from = Plain(excerpt.clone());
    from.u32()?;
    from.u64()
}

/// Bytes that are all there.
pub(super) struct Plain(pub(super) Bytes);

impl Plain {
    fn take(&mut self, count: usize) -> io::Result<Bytes> {
        if count > self.0.len() {
            return Err(invalid("cut short".to_owned()));
        }
        Ok(self.0.split_to(count))
    }
}

impl Source for Plain {
    fn u8(&mut self) -> io::Result<u8> {
        Ok(self.take(1)?.get_u8())
    }

    fn u32(&mut self) -> io::Result<u32> {
        Ok(self.take(4)?.get_u32_le())
    }

    fn u64(&mut self) -> io::Result<u64> {
        Ok(self.take(8)?.get_u64_le())
    }

    fn bytes(&mut self) -> io::Result<Bytes> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    fn append(&mut self, count: usize, to: &mut Vec<u8>) -> io::Result<()> {
        to.extend_from_slice(&self.take(count)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::machine::entry::{Command, Entry, Origin};

    fn machine(commands: &[&str]) -> Machine {
        let mut machine = Machine::default();
        let command = |text: &&str| Command::new(0, text.split(' ').map(str::to_owned));
        machine.apply(&Entry {
            format: Entry::FORMAT,
            at: 1_000,
            seed: 1,
            origin: Origin::default(),
            commands: commands.iter().map(command).collect(),
        });
        machine
    }

    fn keys(names: &[&str]) -> Wanted {
        Wanted::Keys(names.iter().map(|name| Bytes::from((*name).to_owned())).collect())
    }

    #[test]
    fn what_is_read_of_an_excerpt_is_what_is_read_of_the_machine() {
        let machine = machine(&[
            "SET text hello PX 500",
            "SESSION.CREATE session:1 1000 OWNER ann ITEMS 1 cart book",
            "SESSION.CREATE session:2 1000 OWNER ann",
            "SESSION.CREATE session:3 1000 OWNER bob",
            "CACHE.SET entry value PX 900 TAGS 1 tag:t",
            "RPUSH list a b c",
            "SESSION.CREATE old 1000",
            "SESSION.RENAME old between GRACE 900",
            "SESSION.RENAME between new GRACE 900",
        ]);
        let view = machine.view(1_200, 0);
        let mut scratch = Scratch::default();
        let names = ["text", "session:1", "entry", "list", "absent", "old"];
        assert!(view.session(b"old").unwrap().is_some(), "it goes on");
        let excerpt = write(&view, &keys(&names)).unwrap();
        assert_eq!(time_of(&excerpt).unwrap(), 1_200);
        let same = scratch.view(excerpt.clone(), 0, |there| {
            assert_eq!(there.now(), view.now());
            for name in names.map(str::as_bytes) {
                assert_eq!(there.version(name), view.version(name));
                let deadline = |view: &View<'_>| view.slot(name).and_then(|slot| slot.deadline());
                assert_eq!(deadline(&there), deadline(&view));
                assert_eq!(cached::find(&there, name), cached::find(&view, name));
                assert_eq!(there.session(name), view.session(name));
            }
            cached::find(&there, b"entry").unwrap().unwrap().value
        });
        assert_eq!(
            same.unwrap(),
            Some(Bytes::from_static(b"value")),
            "its tag is there"
        );
        let owned = write(&view, &Wanted::Owned("ann".into())).unwrap();
        let of_ann = scratch.view(owned, 0, |there| {
            assert!(
                there.find(b"text").is_none(),
                "nothing is left of an excerpt before"
            );
            let ann = Bytes::from_static(b"ann");
            there.sessions_of(&ann).cloned().collect::<Vec<_>>()
        });
        assert_eq!(of_ann.unwrap(), ["session:1", "session:2"]);
        for end in 0..excerpt.len() {
            assert!(
                scratch.view(excerpt.slice(..end), 0, |_| ()).is_err(),
                "cut at {end}"
            );
        }
    }

    #[test]
    fn an_excerpt_is_pinned() {
        let machine = machine(&["SET k v PX 500"]);
        let excerpt = write(&machine.view(1_000, 0), &keys(&["k"])).unwrap();
        let hex: String = excerpt.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "04000000e8030000000000000100000000010000006b01dc05000000000000010000000000000001020100000076"
        );
    }
}
