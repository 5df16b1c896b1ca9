//! What `maxmemory` means: how full a store is, what is refused for it, which keys may go, and how they go.
//!
//! How full a store is, and what is refused, is state, the same on every node. Which keys go is for the leader to say: it draws candidates here,
//! asks the other nodes when those were last used, and proposes names and versions. Sessions go last: while any other key may go, none of
//! them does.

use super::{Chance, DATABASES, SHARDS, Slot, Store, View};
use crate::machine::entry::Millis;
use crate::machine::event::Classes;
use crate::machine::recency::Use;
use crate::machine::session_events::Reason;
use crate::machine::settings::Policy;
use bytes::Bytes;
use std::cmp::Reverse;

/// Bytes of a store without keys: a pointer of 64 bits for each shard of its databases, whatever a node's pointers are, for this decides what is
/// refused.
const STORE_BYTES: usize = DATABASES * SHARDS * 8;

/// Eviction goes on to this part of `maxmemory` below it, so that it has some way to go before it must begin again.
const AHEAD: u64 = 128;
/// But no further than this.
const AHEAD_MOST: u64 = 8 << 20;

/// Where there are no more keys than this, all of them are looked at, not a sample.
const FEW_KEYS: usize = 1_024;

/// Draws for each candidate that is wanted, at most: a draw may hit a key that may not go.
const DRAWS_EACH: usize = 16;

/// A key that may be evicted.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its database.
    pub db: u8,
    /// Its name.
    pub key: Bytes,
    /// Its version when it was looked at.
    pub version: u64,
    /// What its end frees, in bytes.
    pub bytes: usize,
    /// When it ends by itself.
    pub deadline: Option<Millis>,
    /// When it was last used and how often, as far as the node knows that looked.
    pub used: Use,
}

impl Candidate {
    /// Where it stands.
    pub fn place(&self) -> (u8, Bytes) {
        (self.db, self.key.clone())
    }

    /// In which order keys go: the least goes first. `drawn` is a number by chance.
    pub fn rank(&self, policy: Policy, drawn: u64) -> (u64, Reverse<u64>) {
        let rank = match policy {
            Policy::AllkeysLru | Policy::VolatileLru => 0,
            Policy::AllkeysLfu | Policy::VolatileLfu => u64::from(self.used.frequency),
            Policy::VolatileTtl => self.deadline.unwrap_or(Millis::MAX),
            Policy::AllkeysRandom | Policy::VolatileRandom | Policy::Noeviction => drawn,
        };
        (rank, Reverse(self.used.idle_ms))
    }
}

/// How far looking for keys in their order has come, where draws find too few.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Database and shard, counted through.
    shard: usize,
}

impl Walk {
    /// Slots that one call looks at in their order, at most: a writer waits no longer than for that.
    pub const SLOTS: usize = 16 << 10;
}

impl Store {
    /// Bytes in use: of the store, and of all its keys.
    pub fn used(&self) -> usize {
        STORE_BYTES + self.bytes()
    }

    /// Bytes of a store without keys.
    pub fn bytes_when_empty() -> usize {
        STORE_BYTES
    }

    /// Whether more is in use than `maxmemory`.
    pub fn is_full(&self) -> bool {
        let most = self.settings.maxmemory;
        most > 0 && self.used() as u64 > most
    }

    /// Whether more is in use than `maxmemory` and no key may go: what needs more is refused.
    pub fn is_out_of_memory(&self) -> bool {
        self.is_full() && self.may_go() == (0, 0)
    }

    /// How many bytes must go until eviction rests, once [`Store::is_full`].
    pub fn to_free(&self) -> u64 {
        let most = self.settings.maxmemory;
        if most == 0 {
            return 0;
        }
        let goal = most - (most / AHEAD).min(AHEAD_MOST);
        (self.used() as u64).saturating_sub(goal)
    }

    /// How many keys may go under the policy: such that hold no session, and sessions. Counts keys past their deadline.
    pub fn may_go(&self) -> (usize, usize) {
        let policy = self.settings.maxmemory_policy;
        if policy == Policy::Noeviction {
            return (0, 0);
        }
        let counts = self.databases.iter().map(|database| {
            if policy.takes_all() {
                (database.keys - database.sessions, database.sessions)
            } else {
                let sessions = database.sessions_with_deadline;
                (database.with_deadline - sessions, sessions)
            }
        });
        counts.fold((0, 0), |(others, sessions), (more_others, more_sessions)| {
            (others + more_others, sessions + more_sessions)
        })
    }

    /// Keys that were evicted since this store is in memory.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Evicts a key, if it is of this version and may go, and memory is still to be freed. Whether it went.
    pub(in crate::machine) fn evict(&mut self, db: u8, key: &[u8], version: u64) -> bool {
        let policy = self.settings.maxmemory_policy;
        let may_go =
            |slot: &Slot| slot.version == version && policy.allows(slot) && policy != Policy::Noeviction;
        if self.to_free() == 0 || !self.view(db, self.clock).find(key).is_some_and(may_go) {
            return false;
        }
        let slot = self.discard_slot(db, key);
        self.evicted += 1;
        self.notify(db, Classes::EVICTED, "evicted", key);
        slot.inspect(|slot| self.tell_session_end(db, key, slot, Reason::Evicted));
        true
    }

    /// About so many keys that may go, by chance; all there are where there are few. Empty only where there are none, or while `walk`, which
    /// one who calls again gives back, has not come around.
    pub fn candidates(
        &self,
        wanted: usize,
        now: Millis,
        chance: &mut Chance,
        walk: &mut Walk,
    ) -> Vec<Candidate> {
        let (others, sessions) = self.may_go();
        let policy = self.settings.maxmemory_policy;
        let wanted = wanted.min(others.max(sessions));
        if wanted == 0 {
            return Vec::new();
        }
        let of_sessions = others == 0;
        let may_go = |slot: &Slot| slot.value.is_session() == of_sessions && policy.allows(slot);
        let keys: usize = self.databases.iter().map(|database| database.keys).sum();
        let mut found = Found {
            store: self,
            now,
            candidates: Vec::with_capacity(wanted),
        };
        if keys <= FEW_KEYS {
            let all = self.slots().filter(|(_, _, slot)| may_go(slot));
            all.for_each(|(db, key, slot)| found.add(db, key, slot));
            return found.candidates;
        }
        if policy == Policy::VolatileTtl {
            for ending in self.deadlines.iter().take(Walk::SLOTS) {
                let (db, key) = (ending.1, self.key_that_ends(ending));
                let slot = self.slot(db, key).filter(|slot| may_go(slot));
                slot.inspect(|slot| found.add(db, key, slot));
                if found.candidates.len() == wanted {
                    return found.candidates;
                }
            }
        }
        for _ in 0..wanted * DRAWS_EACH {
            if found.candidates.len() == wanted {
                break;
            }
            if let Some((db, key, slot)) = self.any_key(keys, chance).filter(|(_, _, slot)| may_go(slot)) {
                found.add(db, key, slot);
            }
        }
        if found.candidates.len() < wanted / 2 + 1 {
            self.walk(wanted, walk, may_go, &mut found);
        }
        found
            .candidates
            .sort_unstable_by(|one, other| (one.db, &one.key).cmp(&(other.db, &other.key)));
        found
            .candidates
            .dedup_by(|one, other| (one.db, &one.key) == (other.db, &other.key));
        found.candidates
    }

    /// A candidate that was found before, as it is now, if it may still go.
    pub fn candidate(&self, db: u8, key: &Bytes, now: Millis) -> Option<Candidate> {
        let of_sessions = self.may_go().0 == 0;
        let policy = self.settings.maxmemory_policy;
        let mut found = Found {
            store: self,
            now,
            candidates: Vec::new(),
        };
        let slot = self.slot(db, key)?;
        if slot.value.is_session() == of_sessions && policy.allows(slot) {
            found.add(db, key, slot);
        }
        found.candidates.pop()
    }

    /// A key by chance, of any database; there are `keys`.
    fn any_key(&self, keys: usize, chance: &mut Chance) -> Option<(u8, &[u8], &Slot)> {
        let mut place = chance.below(keys);
        let (db, database) = (0u8..).zip(&self.databases).find(|(_, database)| {
            let here = place < database.keys;
            place = place.saturating_sub(database.keys);
            here
        })?;
        let first = chance.below(SHARDS);
        // Shards are even where there are many keys; where there are few, the next one that has any will do.
        let shard = (first..first + SHARDS)
            .map(|shard| &database.shards[shard % SHARDS])
            .find(|shard| !shard.is_empty())?;
        let (key, slot) = shard.at(chance.below(shard.len()))?;
        Some((db, key, slot))
    }

    /// Looks at keys in their order, from where it was left.
    fn walk(&self, wanted: usize, walk: &mut Walk, may_go: impl Fn(&Slot) -> bool, found: &mut Found<'_>) {
        let mut seen = 0;
        for _ in 0..DATABASES * SHARDS {
            if seen >= Walk::SLOTS || found.candidates.len() >= wanted {
                return;
            }
            let (db, shard) = (walk.shard / SHARDS, walk.shard % SHARDS);
            walk.shard = (walk.shard + 1) % (DATABASES * SHARDS);
            let db = u8::try_from(db).expect("below DATABASES");
            let shard = &self.databases[usize::from(db)].shards[shard];
            seen += shard.len();
            for (key, slot) in shard.iter().filter(|(_, slot)| may_go(slot)) {
                found.add(db, key, slot);
            }
        }
    }
}

/// Candidates so far.
struct Found<'a> {
    store: &'a Store,
    now: Millis,
    candidates: Vec<Candidate>,
}

impl Found<'_> {
    /// Adds a key that has not ended: what has goes by itself.
    fn add(&mut self, db: u8, key: &[u8], slot: &Slot) {
        let view: View<'_> = self.store.view(db, self.now);
        if !view.lives(slot) {
            return;
        }
        self.candidates.push(Candidate {
            db,
            key: Bytes::copy_from_slice(key),
            version: slot.version,
            bytes: key.len() + slot.value.bytes() + super::OVERHEAD_BYTES,
            deadline: slot.deadline(),
            used: slot.recency.at(self.now, &self.store.settings),
        });
    }
}

impl Policy {
    /// Whether this key may go, as far as its deadline says.
    fn allows(self, slot: &Slot) -> bool {
        self.takes_all() || slot.deadline().is_some()
    }
}
