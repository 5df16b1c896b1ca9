//! When a key was last used, and how often: what eviction goes by.
//!
//! Not state: it is in no snapshot, no digest and no comparison, for reads happen on every node and are in no log. What is in the log
//! (writes, transactions, scripts) is noted on every node alike, what is only read where it was read; the leader asks the others before
//! it evicts. As in Redis the count grows the more slowly the higher it is, and falls with time; unlike there, time and count have a place each.

use super::entry::Millis;
use super::settings::Settings;
use std::sync::atomic::{AtomicU64, Ordering};

/// The count of a new key, so that it is not the first to go. Redis: `LFU_INIT_VAL`.
const FIRST_COUNT: u8 = 5;

/// Bits of the time of the last use, in milliseconds: it comes around after 34 years.
const TIME_BITS: u32 = 40;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// The longest idle time that can be told from a use in the future, in milliseconds.
const IDLE_MAX: u64 = TIME_MASK / 2;

const MINUTE_MS: u64 = 60_000;

/// Of one key: the time of its last use (40 bits), the minute when the count last fell (16 bits), the count (8 bits).
///
/// Readers share it, so it is changed without a lock; of two uses in the same instant one may not be counted.
#[derive(Debug)]
pub struct Recency(AtomicU64);

/// What a node knows of the use of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Milliseconds since it was last used.
    pub idle_ms: u64,
    /// How often it is used: the logarithm of a number, from 0 to 255.
    pub frequency: u8,
}

impl Use {
    /// What two nodes know together: the last use of all, and the greater count.
    pub fn merge(self, other: Self) -> Self {
        Self {
            idle_ms: self.idle_ms.min(other.idle_ms),
            frequency: self.frequency.max(other.frequency),
        }
    }
}

fn pack(time: Millis, minute: u16, count: u8) -> u64 {
    ((time & TIME_MASK) << 24) | (u64::from(minute) << 8) | u64::from(count)
}

fn minute(now: Millis) -> u16 {
    u16::try_from((now / MINUTE_MS) & 0xffff).expect("16 bits")
}

impl Recency {
    /// Used now for the first time.
    pub fn new(now: Millis) -> Self {
        Self(AtomicU64::new(pack(now, minute(now), FIRST_COUNT)))
    }

    fn parts(&self) -> (Millis, u16, u8) {
        let packed = self.0.load(Ordering::Relaxed);
        let [count, low, high, ..] = packed.to_le_bytes();
        (packed >> 24, u16::from_le_bytes([low, high]), count)
    }

    /// Notes a use. The count grows only where a policy goes by it, by a number that `draw` gives.
    pub(super) fn touch(&self, now: Millis, settings: &Settings, draw: impl FnOnce() -> u64) {
        let (time, fell, count) = self.parts();
        if settings.maxmemory_policy.counts_uses() {
            let count = grown(decayed(fell, count, now, settings), settings, draw);
            self.0.store(pack(now, minute(now), count), Ordering::Relaxed);
        } else if time != now & TIME_MASK {
            self.0.store(pack(now, fell, count), Ordering::Relaxed);
        }
    }

    /// What is known of its use.
    pub fn at(&self, now: Millis, settings: &Settings) -> Use {
        let (time, fell, count) = self.parts();
        let idle = now.wrapping_sub(time) & TIME_MASK;
        Use {
            // A use that lies in the future by another node's clock was just now.
            idle_ms: if idle > IDLE_MAX { 0 } else { idle },
            frequency: decayed(fell, count, now, settings),
        }
    }

    /// Sets how long it has not been used, in milliseconds.
    pub(super) fn set_idle(&self, now: Millis, idle_ms: u64) {
        let (_, fell, count) = self.parts();
        let time = now.wrapping_sub(idle_ms.min(IDLE_MAX));
        self.0.store(pack(time, fell, count), Ordering::Relaxed);
    }

    /// Sets how often it is used.
    pub(super) fn set_frequency(&self, now: Millis, count: u8) {
        self.0.store(pack(now, minute(now), count), Ordering::Relaxed);
    }

    /// Takes over what is known of another key.
    pub(super) fn inherit(&self, other: &Self) {
        self.0.store(other.0.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// The count as it is after the time since it last fell: one less for every `lfu-decay-time` minutes.
fn decayed(fell: u16, count: u8, now: Millis, settings: &Settings) -> u8 {
    let since = minute(now).wrapping_sub(fell);
    // The clocks of two nodes may differ: what fell in the future fell just now.
    let since = if since > u16::MAX / 2 { 0 } else { u64::from(since) };
    let periods = since.checked_div(settings.lfu_decay_time).unwrap_or(0);
    count.saturating_sub(u8::try_from(periods).unwrap_or(u8::MAX))
}

/// One more, by a chance that is the smaller the greater the count is.
fn grown(count: u8, settings: &Settings, draw: impl FnOnce() -> u64) -> u8 {
    let above = f64::from(count.saturating_sub(FIRST_COUNT));
    let chance = 1.0 / (above * settings.lfu_log_factor as f64 + 1.0);
    let drawn = draw() as f64 / u64::MAX as f64;
    if drawn < chance {
        count.saturating_add(1)
    } else {
        count
    }
}

impl Clone for Recency {
    fn clone(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }
}

/// Always equal: two nodes with the same state have seen different reads.
impl PartialEq for Recency {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::settings::Policy;

    const NOW: Millis = 1_764_217_000_000;

    fn settings(policy: Policy) -> Settings {
        Settings {
            maxmemory_policy: policy,
            ..Settings::default()
        }
    }

    #[test]
    fn idle_is_the_time_since_the_last_use() {
        let lru = settings(Policy::AllkeysLru);
        let recency = Recency::new(NOW);
        assert_eq!(recency.at(NOW + 1_500, &lru).idle_ms, 1_500);
        recency.touch(NOW + 2_000, &lru, || 0);
        assert_eq!(recency.at(NOW + 2_001, &lru).idle_ms, 1);
        assert_eq!(recency.at(NOW, &lru).idle_ms, 0, "used in the future: just now");
        recency.set_idle(NOW, 1_000_000);
        assert_eq!(recency.at(NOW, &lru).idle_ms, 1_000_000);
        recency.set_idle(NOW, u64::MAX);
        assert_eq!(recency.at(NOW, &lru).idle_ms, IDLE_MAX);
    }

    #[test]
    fn the_count_grows_ever_more_slowly_and_falls_with_time() {
        let lfu = settings(Policy::AllkeysLfu);
        let recency = Recency::new(NOW);
        let mut chance = crate::machine::keyspace::Chance::new(7);
        let mut after = |uses: usize| {
            (0..uses).for_each(|_| recency.touch(NOW, &lfu, || chance.draw()));
            recency.at(NOW, &lfu).frequency
        };
        let (few, many) = (after(100), after(100_000));
        assert!((7..30).contains(&few), "{few}");
        assert!((100..255).contains(&many), "{many}");
        assert_eq!(recency.at(NOW + 3 * MINUTE_MS, &lfu).frequency, many - 3);
        assert_eq!(recency.at(NOW + 400 * MINUTE_MS, &lfu).frequency, 0);
        recency.set_frequency(NOW, 100);
        assert_eq!(recency.at(NOW, &lfu).frequency, 100);
        let never = Settings {
            lfu_decay_time: 0,
            ..lfu
        };
        assert_eq!(recency.at(NOW + 400 * MINUTE_MS, &never).frequency, 100);
    }

    #[test]
    fn two_nodes_know_the_last_use_together() {
        let one = Use {
            idle_ms: 5,
            frequency: 1,
        };
        let other = Use {
            idle_ms: 7,
            frequency: 9,
        };
        let both = Use {
            idle_ms: 5,
            frequency: 9,
        };
        assert_eq!((one.merge(other), other.merge(one)), (both, both));
    }
}
