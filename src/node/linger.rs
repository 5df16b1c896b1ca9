//! Whether the next group waits a moment for callers that were just answered.
//!
//! When a group lands, all its callers are answered at once, and those that write in a loop write again at once. Whoever comes first must not go
//! alone: most of what a write costs is the group's and not the command's, so one group of fifty is cheaper than two, and on machines that are
//! busy each caller's answer comes sooner. Callers that do not come back are waited for once, and then not again for a while.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Callers that must have been answered for the next group to wait for them: few make no difference.
const ENOUGH: usize = 8;

/// How long a group waits for them, at most; what the timer of the tasks can do is a millisecond more.
const PATIENCE: Duration = Duration::from_millis(1);

/// Groups that do not wait after one that waited in vain: at first, and at most. Each further disappointment doubles them.
const PASSES_FIRST: u32 = 8;
const PASSES_MOST: u32 = 1_024;

/// Callers that were answered and have not come back. Told from apply, and from the queue.
#[derive(Debug, Default)]
pub(super) struct Expected(AtomicUsize);

impl Expected {
    /// Callers were answered together.
    pub(super) fn answered(&self, callers: usize) {
        if callers >= ENOUGH {
            self.0.fetch_add(callers, Ordering::Relaxed);
        }
    }

    /// Callers came, these or others.
    pub(super) fn came(&self, callers: usize) {
        let less = |expected: usize| Some(expected.saturating_sub(callers));
        // The closure always gives a number.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// What was learned of whether callers come back.
#[derive(Debug)]
pub(super) struct Linger {
    /// Until when the group at hand waits.
    until: Option<Instant>,
    /// Groups that do not wait, now and after the next disappointment.
    passes: u32,
    next_passes: u32,
}

impl Linger {
    pub(super) fn new() -> Self {
        Self {
            until: None,
            passes: 0,
            next_passes: PASSES_FIRST,
        }
    }

    /// Until when to wait before the group at hand is sealed; none: it can go.
    pub(super) fn wait(&mut self, expected: &Expected, now: Instant) -> Option<Instant> {
        if expected.0.load(Ordering::Relaxed) == 0 {
            if self.until.take().is_some() {
                self.next_passes = (self.next_passes / 2).max(PASSES_FIRST);
            }
            return None;
        }
        if self.passes > 0 {
            self.passes -= 1;
        } else {
            let until = *self.until.get_or_insert(now + PATIENCE);
            if now < until {
                return Some(until);
            }
            self.passes = self.next_passes;
            self.next_passes = (self.next_passes * 2).min(PASSES_MOST);
        }
        self.give_up(expected);
        None
    }

    /// The group at hand goes without them.
    pub(super) fn give_up(&mut self, expected: &Expected) {
        self.until = None;
        expected.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_waits_until_all_who_were_answered_are_back() {
        let (expected, mut linger, now) = (Expected::default(), Linger::new(), Instant::now());
        assert_eq!(linger.wait(&expected, now), None, "nobody was answered");
        expected.answered(50);
        expected.came(1);
        assert_eq!(linger.wait(&expected, now), Some(now + PATIENCE));
        expected.came(48);
        assert_eq!(linger.wait(&expected, now + PATIENCE / 2), Some(now + PATIENCE));
        expected.came(3);
        assert_eq!(linger.wait(&expected, now + PATIENCE / 2), None);
    }

    #[test]
    fn few_are_not_waited_for() {
        let (expected, mut linger) = (Expected::default(), Linger::new());
        expected.answered(ENOUGH - 1);
        assert_eq!(linger.wait(&expected, Instant::now()), None);
    }

    #[test]
    fn callers_that_do_not_come_back_are_waited_for_ever_less_often() {
        let (expected, mut linger, mut now) = (Expected::default(), Linger::new(), Instant::now());
        let mut groups_between = Vec::new();
        for _ in 0..12 {
            let mut groups = 0;
            loop {
                expected.answered(50);
                let Some(until) = linger.wait(&expected, now) else {
                    groups += 1;
                    continue;
                };
                now = until;
                assert_eq!(linger.wait(&expected, now), None, "not longer than that");
                break;
            }
            groups_between.push(groups);
        }
        assert_eq!(
            groups_between,
            [0, 8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024, 1024]
        );
    }

    #[test]
    fn callers_that_come_back_are_waited_for_again() {
        let (expected, mut linger, now) = (Expected::default(), Linger::new(), Instant::now());
        for _ in 0..100 {
            expected.answered(50);
            expected.came(10);
            assert_eq!(linger.wait(&expected, now), Some(now + PATIENCE));
            expected.came(40);
            assert_eq!(linger.wait(&expected, now), None);
        }
    }
}
