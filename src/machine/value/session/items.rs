//! The items of a session: in the order of their names, each with the version of the session that set it, and the names that were removed of late,
//! so that two requests which read the same version can both be right.
//!
//! Small ones stand in one run of memory, as the fields of small hashes do, and are found by walking along it:
//!
//! ```text
//! item = name, value, version, deadline (0: none)        texts and numbers as in `value/packed.rs`
//! ```

use crate::machine::entry::Millis;
use crate::machine::snapshot::{Source, invalid, write_bytes, write_length};
use crate::machine::value::packed::{self, Walk};
use crate::machine::value::text::Text;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;

/// Removals that are remembered. A save that merges and is based on a version before the oldest of them is told of a conflict where it names an
/// item that is not there: it may have been removed since.
const REMOVALS_MAX: usize = 64;

/// Up to so many items, and so many bytes of all names and values, stand in one run: there walking along it, and copying it for a change, cost no more
/// than a table and an allocation for each text do.
const RUN_ITEMS_MAX: usize = 128;
const RUN_BYTES_MAX: usize = 8 << 10;

/// Room for the items of a session that is read; more is taken where it is needed.
const READ_BYTES: usize = 1 << 10;

/// Bytes that version and deadline of an item count.
const NUMBERS_BYTES: usize = 2 * 8;

/// One item, as it stands in its session.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Item<'a> {
    /// Its name.
    pub name: Text<'a>,
    /// Its value.
    pub value: Text<'a>,
    /// The version of the session that set it.
    pub version: u64,
    /// When it ends; none: with the session.
    pub deadline: Option<Millis>,
}

impl Item<'_> {
    fn lives(&self, passed: Millis) -> bool {
        self.deadline.is_none_or(|deadline| deadline > passed)
    }
}

/// All items of a session.
#[derive(Clone, Debug, Default)]
pub struct Items {
    kept: Kept,
    /// How many there are, and how many of them end by themselves.
    count: u32,
    ending: u32,
    /// What the items count together.
    bytes: usize,
    removals: Option<Box<Removals>>,
}

/// How items stand in memory. Not state: it shows in nothing but room and time.
#[derive(Clone, Debug)]
enum Kept {
    /// One behind the other.
    Run(Bytes),
    /// Many, large ones, or those that are being changed: [`Items::pack`].
    Apart(Vec<Apart>),
}

/// An item that stands for itself.
#[derive(Clone, Debug)]
struct Apart {
    name: Bytes,
    value: Bytes,
    version: u64,
    deadline: Option<Millis>,
}

/// What is known of items that are gone.
#[derive(Clone, Debug, Default, PartialEq)]
struct Removals {
    /// The last ones: the version, and the name.
    last: VecDeque<(u64, Bytes)>,
    /// The version of the last one that is not remembered any more.
    forgotten: u64,
}

/// Those of a session that has lost no item.
static NONE: Removals = Removals {
    last: VecDeque::new(),
    forgotten: 0,
};

impl Default for Kept {
    fn default() -> Self {
        Self::Run(Bytes::new())
    }
}

impl Apart {
    fn bytes(&self) -> usize {
        self.name.len() + self.value.len() + NUMBERS_BYTES
    }

    fn bytes_in_run(&self) -> usize {
        let numbers = [self.version, self.deadline.unwrap_or(0)];
        let texts = packed::text_bytes(&self.name) + packed::text_bytes(&self.value);
        texts + numbers.into_iter().map(packed::number_bytes).sum::<usize>()
    }

    fn item(&self) -> Item<'_> {
        Item {
            name: (&self.name).into(),
            value: (&self.value).into(),
            version: self.version,
            deadline: self.deadline,
        }
    }
}

impl From<Item<'_>> for Apart {
    /// Shares what holds the item.
    fn from(item: Item<'_>) -> Self {
        Self {
            name: item.name.to_bytes(),
            value: item.value.to_bytes(),
            version: item.version,
            deadline: item.deadline,
        }
    }
}

/// A walk along the items of a run.
struct Run<'a> {
    walk: Walk<'a>,
    run: &'a Bytes,
}

impl<'a> Run<'a> {
    fn new(run: &'a Bytes) -> Self {
        Self {
            walk: Walk::new(run),
            run,
        }
    }
}

impl<'a> Iterator for Run<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let (name, value) = (self.walk.text()?, self.walk.text()?);
        let (version, deadline) = (self.walk.number()?, self.walk.number()?);
        Some(Item {
            name: Text::new(name, self.run),
            value: Text::new(value, self.run),
            version,
            deadline: (deadline > 0).then_some(deadline),
        })
    }
}

impl PartialEq for Items {
    /// Equal with the same items and the same past: what a snapshot must preserve.
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter()) && self.removals() == other.removals()
    }
}

impl Items {
    /// How many there are, those among them that have ended.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What they count together.
    pub fn bytes(&self) -> usize {
        let removals = self.removals().last.iter();
        let removals = removals.map(|(_, name)| name.len() + NUMBERS_BYTES);
        self.bytes + removals.sum::<usize>()
    }

    /// All of them, in the order of their names.
    fn iter(&self) -> impl Iterator<Item = Item<'_>> {
        let (run, apart) = match &self.kept {
            Kept::Run(run) => (Some(Run::new(run)), None),
            Kept::Apart(items) => (None, Some(items.iter().map(Apart::item))),
        };
        run.into_iter().flatten().chain(apart.into_iter().flatten())
    }

    /// Those whose deadlines have not passed, in the order of their names.
    pub fn living(&self, passed: Millis) -> impl Iterator<Item = Item<'_>> {
        self.iter().filter(move |item| item.lives(passed))
    }

    /// One whose deadline has not passed.
    pub fn get(&self, name: &[u8], passed: Millis) -> Option<Item<'_>> {
        self.find(name).filter(|item| item.lives(passed))
    }

    /// Whether an item was set or removed after this version of the session.
    pub fn changed_since(&self, name: &[u8], version: u64) -> bool {
        let removals = self.removals();
        match self.find(name) {
            Some(item) => item.version > version,
            None if version < removals.forgotten => true,
            None => removals
                .last
                .iter()
                .any(|(removed, other)| *removed > version && other == name),
        }
    }

    /// Sets an item, copying both, in this version of the session. It ends with the session.
    pub fn set(&mut self, name: &[u8], value: &[u8], version: u64) {
        self.remove_apart(name);
        if let Some(removals) = &mut self.removals {
            removals.last.retain(|(_, removed)| removed != name);
        }
        self.insert(Apart {
            name: Bytes::copy_from_slice(name),
            value: Bytes::copy_from_slice(value),
            version,
            deadline: None,
        });
    }

    /// Lets an item end then; none: with the session. Whether it is there.
    pub fn set_deadline(&mut self, name: &[u8], deadline: Option<Millis>, version: u64) -> bool {
        let Some(item) = self.remove_apart(name) else {
            return false;
        };
        self.insert(Apart {
            version,
            deadline,
            ..item
        });
        true
    }

    /// Removes an item in this version of the session.
    pub fn remove(&mut self, name: &[u8], version: u64) {
        let Some(item) = self.remove_apart(name) else {
            return;
        };
        let removals = self.removals.get_or_insert_default();
        // A name of its own: what held the item is not kept for it.
        let name = Bytes::copy_from_slice(&item.name);
        removals.last.push_back((version, name));
        if removals.last.len() > REMOVALS_MAX
            && let Some((version, _)) = removals.last.pop_front()
        {
            removals.forgotten = version;
        }
    }

    /// When the first of them ends.
    pub fn first_deadline(&self) -> Option<Millis> {
        if self.ending == 0 {
            return None;
        }
        self.iter().filter_map(|item| item.deadline).min()
    }

    /// Removes those whose deadlines have passed. Everybody knew when they would: it is no change that a save could be in conflict with.
    pub fn remove_ended(&mut self, passed: Millis) {
        if self.first_deadline().is_none_or(|first| first > passed) {
            return;
        }
        let items = std::mem::take(self.apart());
        (self.count, self.ending, self.bytes) = (0, 0, 0);
        let living = items.into_iter().filter(|item| item.item().lives(passed));
        living.for_each(|item| self.insert(item));
        self.pack();
    }

    /// After changes: brings small ones together in one run.
    pub(in crate::machine) fn pack(&mut self) {
        let fit = self.fit_in_run();
        let Kept::Apart(items) = &mut self.kept else {
            return;
        };
        if !fit {
            items.shrink_to_fit();
            return;
        }
        let mut run = Vec::with_capacity(items.iter().map(Apart::bytes_in_run).sum());
        for item in items.iter() {
            packed::put_text(&item.name, &mut run);
            packed::put_text(&item.value, &mut run);
            packed::put_number(item.version, &mut run);
            packed::put_number(item.deadline.unwrap_or(0), &mut run);
        }
        self.kept = Kept::Run(run.into());
    }

    /// Them as a table. What stands in a run goes on sharing it.
    fn apart(&mut self) -> &mut Vec<Apart> {
        if let Kept::Run(run) = &self.kept {
            self.kept = Kept::Apart(Run::new(run).map(Apart::from).collect());
        }
        match &mut self.kept {
            Kept::Apart(items) => items,
            Kept::Run(_) => unreachable!("it is a table by now"),
        }
    }

    /// Puts an item that is not there to its place.
    fn insert(&mut self, item: Apart) {
        self.count(&item);
        let items = self.apart();
        let at = items.partition_point(|other| other.name < item.name);
        items.insert(at, item);
    }

    fn count(&mut self, item: &Apart) {
        self.bytes += item.bytes();
        self.count += 1;
        self.ending += u32::from(item.deadline.is_some());
    }

    /// Takes an item out, if it is there.
    fn remove_apart(&mut self, name: &[u8]) -> Option<Apart> {
        let items = self.apart();
        let at = items.binary_search_by(|item| item.name[..].cmp(name)).ok()?;
        let item = items.remove(at);
        self.bytes -= item.bytes();
        self.count -= 1;
        self.ending -= u32::from(item.deadline.is_some());
        Some(item)
    }

    fn find(&self, name: &[u8]) -> Option<Item<'_>> {
        match &self.kept {
            Kept::Run(run) => Run::new(run).find(|item| item.name == *name),
            Kept::Apart(items) => {
                let at = items.binary_search_by(|item| item.name[..].cmp(name)).ok()?;
                Some(items[at].item())
            }
        }
    }

    fn removals(&self) -> &Removals {
        self.removals.as_deref().unwrap_or(&NONE)
    }

    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        write_length(out, self.len())?;
        for item in self.iter() {
            write_bytes(out, &item.name)?;
            write_bytes(out, &item.value)?;
            out.write_all(&item.version.to_le_bytes())?;
            out.write_all(&item.deadline.unwrap_or(0).to_le_bytes())?;
        }
        let removals = self.removals();
        out.write_all(&removals.forgotten.to_le_bytes())?;
        write_length(out, removals.last.len())?;
        for (version, name) in &removals.last {
            out.write_all(&version.to_le_bytes())?;
            write_bytes(out, name)?;
        }
        Ok(())
    }

    pub(super) fn read(from: &mut dyn Source, version: u64) -> io::Result<Self> {
        let mut items = Self::read_items(from, version)?;
        let mut removals = Removals {
            forgotten: from.u64()?,
            ..Removals::default()
        };
        for _ in 0..from.u32()? {
            let (removed_in, name) = (from.u64()?, from.bytes()?);
            let is_full = removals.last.len() == REMOVALS_MAX;
            if removed_in > version || items.find(&name).is_some() || is_full {
                return Err(invalid("removals from a session that cannot be".to_owned()));
            }
            removals.last.push_back((removed_in, name));
        }
        if removals != NONE {
            items.removals = Some(Box::new(removals));
        }
        Ok(items)
    }

    /// Reads items straight into a run, which is what most stay in.
    fn read_items(from: &mut dyn Source, version: u64) -> io::Result<Self> {
        let mut items = Self {
            count: from.u32()?,
            ..Self::default()
        };
        let (mut run, mut last) = (Vec::with_capacity(READ_BYTES), 0..0);
        for number in 0..items.count {
            let name = from.text_into(&mut run)?;
            let value = from.text_into(&mut run)?;
            let (set_in, deadline) = (from.u64()?, from.u64()?);
            packed::put_number(set_in, &mut run);
            packed::put_number(deadline, &mut run);
            if set_in > version || number > 0 && run[last] >= run[name.clone()] {
                return Err(invalid("items of a session that cannot be".to_owned()));
            }
            items.bytes += name.len() + value.len() + NUMBERS_BYTES;
            items.ending += u32::from(deadline > 0);
            last = name;
        }
        items.kept = Kept::Run(Bytes::copy_from_slice(&run));
        if !items.fit_in_run() {
            let copied = |item: Item<'_>| Apart {
                name: Bytes::copy_from_slice(&item.name),
                value: Bytes::copy_from_slice(&item.value),
                version: item.version,
                deadline: item.deadline,
            };
            items.kept = Kept::Apart(items.iter().map(copied).collect());
        }
        Ok(items)
    }

    /// Whether they are few and small enough to stand in one run.
    fn fit_in_run(&self) -> bool {
        let bytes = self.bytes - self.len() * NUMBERS_BYTES;
        self.len() <= RUN_ITEMS_MAX && bytes <= RUN_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_removed_is_known_until_it_is_forgotten_and_then_feared() {
        let mut items = Items::default();
        for version in 1..=100u64 {
            let name = format!("item {version}");
            items.set(name.as_bytes(), b"v", version);
            items.remove(name.as_bytes(), version + 1);
        }
        assert!(items.changed_since(b"item 100", 100));
        assert!(!items.changed_since(b"item 100", 101));
        assert!(!items.changed_since(b"never there", 101));
        assert!(!items.changed_since(b"never there", 40));
        assert!(
            items.changed_since(b"never there", 30),
            "it might have been removed since"
        );
        items.set(b"item 100", b"again", 102);
        assert!(!items.changed_since(b"item 100", 102));
        assert!(items.changed_since(b"item 100", 101));
    }

    #[derive(Clone, Debug)]
    enum Change {
        Set(u8, usize),
        Remove(u8),
        Ends(u8, Option<Millis>),
        End(Millis),
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            (any::<u8>(), prop_oneof![0..40usize, Just(2_000)])
                .prop_map(|(name, length)| Change::Set(name, length)),
            any::<u8>().prop_map(Change::Remove),
            (any::<u8>(), prop::option::of(1..9u64)).prop_map(|(name, at)| Change::Ends(name, at)),
            (1..9u64).prop_map(Change::End),
        ]
    }

    fn written(items: &Items) -> Vec<u8> {
        let mut bytes = Vec::new();
        items.write(&mut bytes).unwrap();
        bytes
    }

    proptest! {
        /// A node that was restored from a snapshot may have another form in memory than those that were not: it must not show.
        #[test]
        fn their_form_shows_in_nothing(changes in prop::collection::vec(change(), 0..200), names in 1..=u8::MAX) {
            let (mut packed, mut apart) = (Items::default(), Items::default());
            for (version, change) in (1..).zip(changes) {
                // Somebody reads meanwhile.
                let (before, content) = (packed.clone(), written(&packed));
                for items in [&mut packed, &mut apart] {
                    match change {
                        Change::Set(name, length) => items.set(&[name % names], &vec![name; length], version),
                        Change::Remove(name) => items.remove(&[name % names], version),
                        Change::Ends(name, at) => _ = items.set_deadline(&[name % names], at, version),
                        Change::End(now) => items.remove_ended(now),
                    }
                }
                packed.pack();
                apart.apart();
                prop_assert_eq!(matches!(packed.kept, Kept::Run(_)), packed.fit_in_run());
                prop_assert_eq!(written(&before), content);
                prop_assert_eq!(&packed, &apart);
                prop_assert_eq!(written(&packed), written(&apart));
                prop_assert_eq!((packed.len(), packed.bytes()), (apart.len(), apart.bytes()));
                prop_assert_eq!((packed.len(), packed.first_deadline()), (packed.iter().count(), apart.first_deadline()));
            }
            for name in 0..=u8::MAX {
                prop_assert_eq!(packed.get(&[name], 4), apart.get(&[name], 4));
                prop_assert_eq!(packed.changed_since(&[name], 50), apart.changed_since(&[name], 50));
            }
        }
    }

    #[test]
    fn an_item_that_has_ended_is_not_there_and_then_gone() {
        let mut items = Items::default();
        items.set(b"code", b"1234", 1);
        items.set(b"name", b"ann", 1);
        assert!(items.set_deadline(b"code", Some(50), 2));
        assert_eq!(items.first_deadline(), Some(50));
        assert!(items.get(b"code", 49).is_some());
        assert!(items.get(b"code", 50).is_none());
        items.remove_ended(50);
        assert_eq!((items.len(), items.first_deadline()), (1, None));
        let mut other = Items::default();
        other.set(b"name", b"ann", 1);
        assert_eq!(items.bytes(), other.bytes());
    }
}
