//! On the leader: chooses the keys that go when more memory is in use than `maxmemory`, and proposes them by name and version.
//!
//! Reads happen on every node and are in no log, so before it chooses by use, the leader asks the other members when its candidates were last
//! used there. Whoever does not answer in time is passed over for a while. As in Redis, of every `maxmemory-samples` keys drawn by
//! chance the worst one goes.

use super::propose::Outbound;
use crate::machine::entry::{self, Origin};
use crate::machine::internal;
use crate::machine::keyspace::{Candidate, Chance, DATABASES, Walk};
use crate::machine::recency::Use;
use crate::machine::settings::Policy;
use crate::raft::server::LAST_USE_KEYS;
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::time::Instant;

/// Keys that one entry evicts, at most.
const KEYS: usize = 512;

/// Bytes of their names, at most, unless one alone has more: they are asked for, and evicted, in one message to each member.
const NAME_BYTES: usize = 8 << 20;

/// Candidates kept for the next round because they were nearly chosen. Redis: `EVPOOL_SIZE`.
const POOL: usize = 64;

/// How long members may take to say when keys were last used.
const ANSWER: Duration = Duration::from_millis(50);

/// How long a member that did not answer is not asked again.
const PASSED_OVER: Duration = Duration::from_secs(1);

/// How often it is looked whether this node leads now while memory is full, and how long to wait after a round that freed nothing.
const LOOK: Duration = Duration::from_millis(20);

/// Evicts while this node leads and memory is full.
pub(super) async fn evict(outbound: Outbound) {
    let mut evictor = Evictor {
        outbound,
        pool: Vec::new(),
        walk: Walk::default(),
        silent: HashMap::new(),
        looked_at: 0,
    };
    loop {
        // A node that comes to lead while memory is full hears of it from nobody.
        let _ = tokio::time::timeout(LOOK, evictor.outbound.state.fullness().filled()).await;
        while evictor.outbound.state.fullness().must_evict() && evictor.outbound.replica.leads() {
            if !evictor.round().await {
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

/// What there is to choose from.
struct Drawn {
    policy: Policy,
    /// Bytes to be freed.
    to_free: u64,
    /// Of so many candidates one goes.
    samples: usize,
    candidates: Vec<Candidate>,
    /// How many keys there are.
    keys: usize,
}

struct Evictor {
    outbound: Outbound,
    /// The next ones of the last round.
    pool: Vec<Candidate>,
    walk: Walk,
    /// Members that did not answer, and when they are asked again.
    silent: HashMap<u64, Instant>,
    /// Keys looked at in vain since the last one that may go.
    looked_at: usize,
}

impl Evictor {
    /// Chooses keys, proposes them, and waits until they are gone. Whether any went, or are still to be found.
    async fn round(&mut self) -> bool {
        let Some(Drawn {
            policy,
            to_free,
            samples,
            mut candidates,
            keys,
        }) = self.draw()
        else {
            return false;
        };
        if candidates.is_empty() {
            self.looked_at += Walk::SLOTS;
            if self.looked_at < keys {
                tokio::task::yield_now().await;
                return true;
            }
            // All of those that may go have ended: the entry to come removes them.
        }
        self.looked_at = 0;
        if policy.needs_uses() {
            self.ask(&mut candidates).await;
        }
        let mut chance = Chance::new(self.outbound.clock.chance());
        candidates.sort_by_cached_key(|candidate| candidate.rank(policy, chance.draw()));
        let mut freed = 0;
        let most = candidates.len().div_ceil(samples).min(KEYS);
        let enough = candidates.iter().take(most).take_while(|candidate| {
            let more = freed < to_free;
            freed += candidate.bytes as u64;
            more
        });
        let chosen = enough.count();
        self.pool = candidates.split_off(chosen);
        self.pool.truncate(POOL);
        let before = self.evicted();
        let group = entry::encode(Origin::default(), &[internal::evict(&candidates)]);
        if let Some(why) = self.outbound.propose_at_once(group).await {
            tracing::debug!(why, "evictions were refused");
        }
        self.evicted() != before
    }

    fn evicted(&self) -> u64 {
        self.outbound.state.machine().read().store().evicted()
    }

    /// Draws candidates, enough for what is to be freed; none where no key may go, or none need go.
    fn draw(&mut self) -> Option<Drawn> {
        let now = self.outbound.clock.now();
        let mut chance = Chance::new(self.outbound.clock.chance());
        let machine = self.outbound.state.machine().read();
        let store = machine.store();
        let (policy, to_free) = (store.settings().maxmemory_policy, store.to_free());
        let (others, sessions) = store.may_go();
        let all: usize = (0u8..).take(DATABASES).map(|db| store.counts(db).0).sum();
        if others + sessions == 0 || to_free == 0 {
            return None;
        }
        // Where all are as good, there is nothing to choose from.
        let mut samples = match policy {
            Policy::AllkeysRandom | Policy::VolatileRandom => 1,
            _ => store.settings().maxmemory_samples.clamp(1, LAST_USE_KEYS - POOL),
        };
        let mean = (store.bytes() / all.max(1)).max(1) as u64;
        let keys = usize::try_from(to_free.div_ceil(mean)).unwrap_or(usize::MAX);
        let keys = keys.clamp(1, KEYS.min((LAST_USE_KEYS - POOL) / samples).max(1));
        let mut candidates = store.candidates(keys * samples, now, &mut chance, &mut self.walk);
        // What was nearly chosen before, as it is now.
        let known: HashSet<(u8, Bytes)> = candidates.iter().map(Candidate::place).collect();
        for old in self.pool.drain(..) {
            if !known.contains(&old.place()) {
                candidates.extend(store.candidate(old.db, &old.key, now));
            }
        }
        let names = candidates.iter().map(|candidate| candidate.key.len());
        candidates.truncate(within(names, NAME_BYTES).min(LAST_USE_KEYS));
        let whole = if others > 0 { others } else { sessions };
        if candidates.len() >= whole {
            // No sample: the worst of all are known.
            samples = 1;
        }
        Some(Drawn {
            policy,
            to_free,
            samples,
            candidates,
            keys: all,
        })
    }

    /// Learns from the other members when the candidates were last used there.
    async fn ask(&mut self, candidates: &mut [Candidate]) {
        let now = Instant::now();
        self.silent.retain(|_, until| *until > now);
        let keys: Vec<(u8, Bytes)> = candidates.iter().map(Candidate::place).collect();
        let peers = &self.outbound.peers;
        let members = self.outbound.replica.state().members;
        let others = members
            .into_iter()
            .filter(|(id, _)| *id != self.outbound.node && !self.silent.contains_key(id));
        let asked = others.map(|(id, (member, _))| {
            let keys = keys.clone();
            async move {
                let answer = peers.last_use(id, &member.raft_addr, keys);
                (id, tokio::time::timeout(ANSWER, answer).await)
            }
        });
        for (id, answer) in futures::future::join_all(asked).await {
            match answer {
                Ok(Ok(uses)) => merge(candidates, uses),
                _ => drop(self.silent.insert(id, Instant::now() + PASSED_OVER)),
            }
        }
    }
}

/// How many of these names, the first at least, come to no more than so many bytes.
fn within(names: impl Iterator<Item = usize>, most: usize) -> usize {
    let mut bytes = 0;
    let fit = names.take_while(|name| {
        bytes += name;
        bytes <= most
    });
    fit.count().max(1)
}

/// Notes what another member knows of the candidates.
fn merge(candidates: &mut [Candidate], uses: Vec<Option<Use>>) {
    for (candidate, used) in candidates.iter_mut().zip(uses) {
        if let Some(used) = used {
            candidate.used = candidate.used.merge(used);
        }
    }
}
