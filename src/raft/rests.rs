//! Rests of whoever works beside the log for long, at what nobody waits for: a snapshot that is written or installed, an audit, memory that is freed. Callers need the
//! processors now.

use super::ground;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// For so many times as long as the work since the last rest took; in an audit, which all members do at the same time, for more. Each rest is bounded, so that a
/// machine that is full anyway does not make it longer still, and so are all together, for the log grows meanwhile, and memory that is to be freed is taken.
const FOR_WORK: u32 = 3;
const FOR_AUDIT: u32 = 9;
const MOST: Duration = Duration::from_millis(10);
const ALL_MOST: Duration = Duration::from_secs(20);

/// Whoever walks over a state rests after so many bytes of it.
pub(super) const AFTER_BYTES: usize = 256 << 10;

/// Whether those who rest are to end soon. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Hurry(Arc<AtomicBool>);

/// What one of them rests.
#[derive(Debug)]
pub(super) struct Rests {
    hurry: Hurry,
    times: u32,
    /// When the last one ended, and the bytes walked over since.
    since: Instant,
    bytes: usize,
    /// What is left of [`ALL_MOST`].
    left: Duration,
}

impl Hurry {
    /// From now on nobody rests.
    pub(super) fn up(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Rests {
    pub(super) fn new(hurry: &Hurry) -> Self {
        Self::times(FOR_WORK, hurry)
    }

    /// Of an audit.
    pub(super) fn of_audit(hurry: &Hurry) -> Self {
        Self::times(FOR_AUDIT, hurry)
    }

    fn times(times: u32, hurry: &Hurry) -> Self {
        Self {
            hurry: hurry.clone(),
            times,
            since: Instant::now(),
            bytes: 0,
            left: ALL_MOST,
        }
    }

    /// Notes so many bytes more of a state, and [rests](Rests::rest) after each [`AFTER_BYTES`].
    pub(super) fn walked(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes >= AFTER_BYTES {
            self.bytes = 0;
            self.rest();
        }
    }

    /// Rests after some work. Blocks: not for a task.
    pub(super) fn rest(&mut self) {
        if self.hurry.0.load(Ordering::Relaxed) {
            return;
        }
        let rest = self.after(self.since.elapsed());
        self.left -= rest;
        ground::pause(rest);
        self.since = Instant::now();
    }

    /// The rest after work that took so long.
    fn after(&self, work: Duration) -> Duration {
        (work * self.times).min(MOST).min(self.left)
    }

    /// Whether these are those of an audit.
    #[cfg(test)]
    pub(super) fn are_of_audit(&self) -> bool {
        self.times == FOR_AUDIT
    }

    #[cfg(test)]
    pub(super) fn rested(&self) -> Duration {
        ALL_MOST - self.left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_rests_who_is_hurried_or_has_rested_enough() {
        let hurry = Hurry::default();
        let mut rests = Rests::new(&hurry);
        rests.rest();
        let rested = rests.rested();
        assert!(rested > Duration::ZERO && rested <= MOST);
        hurry.clone().up();
        rests.rest();
        assert_eq!(rests.rested(), rested);
        let mut rests = Rests::new(&Hurry::default());
        rests.left = Duration::from_nanos(1);
        rests.rest();
        rests.rest();
        assert_eq!(rests.rested(), ALL_MOST);
    }

    #[test]
    fn whoever_audits_rests_longer_after_the_same_work() {
        let (writer, auditor) = (Rests::new(&Hurry::default()), Rests::of_audit(&Hurry::default()));
        let work = MOST / 20;
        assert_eq!(writer.after(work), work * 3);
        assert_eq!(auditor.after(work), work * 9);
        for rests in [writer, auditor] {
            assert_eq!(rests.after(MOST), MOST);
        }
    }

    #[test]
    fn whoever_walks_rests_after_each_stretch() {
        let mut rests = Rests::new(&Hurry::default());
        rests.walked(AFTER_BYTES - 1);
        assert_eq!(rests.rested(), Duration::ZERO);
        rests.walked(1);
        let once = rests.rested();
        assert!(once > Duration::ZERO);
        rests.walked(AFTER_BYTES - 1);
        assert_eq!(rests.rested(), once);
        rests.walked(1);
        assert!(rests.rested() > once);
    }
}
