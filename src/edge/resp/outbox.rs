//! What is pushed to a client while it does something else: messages of channels, invalidated keys, lines for a monitor.
//!
//! Whoever pushes never waits. The client's connection takes the messages out, in order, between its replies. A client that does not
//! take them is cut off at the limits of Redis' `client-output-buffer-limit pubsub`, whether it is subscribed or tracks or looks on.

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Bytes that a message costs beside its content.
const OVERHEAD_BYTES: usize = 64;

/// Messages are taken over into the replies while fewer bytes than this wait there; the rest stays and counts.
const TAKEN_BYTES: usize = 64 << 10;

/// How much may wait for one client, before it is cut off: a class of `client-output-buffer-limit`.
#[derive(Debug)]
pub(super) struct OutputLimits {
    /// Bytes at which it is cut off at once; 0: never.
    hard_bytes: AtomicUsize,
    /// Bytes at which it is cut off when they wait for [`OutputLimits::soft_seconds`]; 0: never.
    soft_bytes: AtomicUsize,
    /// See there.
    soft_seconds: AtomicU64,
}

impl Default for OutputLimits {
    /// Redis' limits for subscribers: `32mb 8mb 60`.
    fn default() -> Self {
        Self::new(32 << 20, 8 << 20, 60)
    }
}

impl OutputLimits {
    /// Redis' limits for who is not subscribed.
    pub(super) const fn none() -> Self {
        Self::new(0, 0, 0)
    }

    const fn new(hard: usize, soft: usize, seconds: u64) -> Self {
        Self {
            hard_bytes: AtomicUsize::new(hard),
            soft_bytes: AtomicUsize::new(soft),
            soft_seconds: AtomicU64::new(seconds),
        }
    }

    /// Whether so many bytes are too many to wait for a moment.
    pub(super) fn exceeds_hard(&self, bytes: usize) -> bool {
        exceeds(&self.hard_bytes, bytes)
    }

    /// Bytes that may wait for a moment.
    pub(super) fn hard_bytes(&self) -> usize {
        let hard = self.hard_bytes.load(Ordering::Relaxed);
        if hard > 0 { hard } else { usize::MAX }
    }

    /// Whether so many bytes are too many by now. Notes in `full_since` when they became too many to wait for long.
    pub(super) fn exceeds_any(&self, bytes: usize, full_since: &mut Option<Instant>) -> bool {
        if self.exceeds_hard(bytes) {
            return true;
        }
        if !exceeds(&self.soft_bytes, bytes) {
            *full_since = None;
            return false;
        }
        let since = *full_since.get_or_insert_with(Instant::now);
        since.elapsed() >= Duration::from_secs(self.soft_seconds.load(Ordering::Relaxed))
    }

    /// Hard limit, soft limit and its seconds.
    pub(super) fn set(&self, limits: &[u64]) {
        let bytes = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        if let [hard, soft, seconds] = *limits {
            self.hard_bytes.store(bytes(hard), Ordering::Relaxed);
            self.soft_bytes.store(bytes(soft), Ordering::Relaxed);
            self.soft_seconds.store(seconds, Ordering::Relaxed);
        }
    }
}

fn exceeds(limit: &AtomicUsize, bytes: usize) -> bool {
    let limit = limit.load(Ordering::Relaxed);
    limit > 0 && bytes > limit
}

/// The messages that wait for one client.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Whether something waits: what is asked often, without the lock.
    filled: AtomicBool,
    /// Held to put in or take out, never across an await.
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Bytes>,
    bytes: usize,
    /// Since when more than the soft limit waits.
    full_since: Option<Instant>,
    /// It was too much: nothing is taken in any more.
    overflowed: bool,
}

impl Outbox {
    /// Adds a message. False when the client must be cut off now.
    pub(super) fn push(&self, message: Bytes, limits: &OutputLimits) -> bool {
        let mut queue = self.queue.lock();
        if queue.overflowed {
            return true;
        }
        queue.bytes += message.len() + OVERHEAD_BYTES;
        queue.messages.push_back(message);
        if queue.is_too_full(limits) {
            queue.overflow();
            return false;
        }
        drop(queue);
        if !self.filled.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
        true
    }

    /// Whether what waits has waited too long: the client must be cut off now.
    pub(super) fn is_overdue(&self, limits: &OutputLimits) -> bool {
        let mut queue = self.queue.lock();
        let overdue = !queue.overflowed && queue.is_too_full(limits);
        if overdue {
            queue.overflow();
        }
        overdue
    }

    /// Takes nothing in any more, and forgets what waits: the client is cut off.
    pub(super) fn close(&self) {
        self.queue.lock().overflow();
    }

    /// Whether something waits.
    pub(super) fn is_filled(&self) -> bool {
        self.filled.load(Ordering::Acquire)
    }

    /// Resolves when something was put in; perhaps also without. Cancel-safe.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Moves messages behind the replies that wait, until there are many of those.
    pub(super) fn take(&self, output: &mut BytesMut) {
        if self.is_filled() {
            self.take_until(output, TAKEN_BYTES);
        }
    }

    /// Moves all messages behind the replies that wait: what comes next must come after them.
    pub(super) fn take_all(&self, output: &mut BytesMut) {
        if self.is_filled() {
            self.take_until(output, usize::MAX);
        }
    }

    fn take_until(&self, output: &mut BytesMut, limit: usize) {
        let mut queue = self.queue.lock();
        while output.len() < limit {
            let Some(message) = queue.messages.pop_front() else {
                break;
            };
            queue.bytes -= message.len() + OVERHEAD_BYTES;
            output.extend_from_slice(&message);
        }
        // Under the lock, so that no message is put in between.
        self.filled.store(!queue.messages.is_empty(), Ordering::Release);
    }

    /// Whether it was closed because the client did not take its messages.
    pub(super) fn has_overflowed(&self) -> bool {
        self.queue.lock().overflowed
    }

    /// How many messages wait, and their bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        let queue = self.queue.lock();
        (queue.messages.len(), queue.bytes)
    }
}

impl Queue {
    fn is_too_full(&mut self, limits: &OutputLimits) -> bool {
        limits.exceeds_any(self.bytes, &mut self.full_since)
    }

    fn overflow(&mut self) {
        *self = Self {
            overflowed: true,
            ..Self::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_in_order_and_behind_what_waits() {
        let (outbox, limits) = (Outbox::default(), OutputLimits::default());
        for message in ["a", "b"] {
            assert!(outbox.push(Bytes::from_static(message.as_bytes()), &limits));
        }
        assert_eq!(outbox.size(), (2, 2 * (OVERHEAD_BYTES + 1)));
        let mut output = BytesMut::from(&b"0"[..]);
        outbox.take(&mut output);
        assert_eq!((&output[..], outbox.size()), (&b"0ab"[..], (0, 0)));
        assert!(!outbox.is_filled());
    }

    #[test]
    fn what_waits_behind_many_replies_stays_and_counts() {
        let (outbox, limits) = (Outbox::default(), OutputLimits::default());
        outbox.push(Bytes::from_static(b"a"), &limits);
        let mut output = BytesMut::zeroed(TAKEN_BYTES);
        outbox.take(&mut output);
        assert!(output.len() == TAKEN_BYTES && outbox.is_filled());
        outbox.take_all(&mut output);
        assert!(output.len() == TAKEN_BYTES + 1 && !outbox.is_filled());
    }

    #[test]
    fn a_client_is_cut_off_once_at_the_hard_limit() {
        let (outbox, limits) = (
            Outbox::default(),
            OutputLimits::new(3 * (OVERHEAD_BYTES + 1), 0, 0),
        );
        let push = || outbox.push(Bytes::from_static(b"a"), &limits);
        assert_eq!(
            [push(), push(), push(), push(), push()],
            [true, true, true, false, true]
        );
        assert!(outbox.has_overflowed());
        assert_eq!(outbox.size(), (0, 0));
    }

    #[test]
    fn the_soft_limit_cuts_off_whoever_stays_above_it() {
        let outbox = Outbox::default();
        let (patient, impatient) = (OutputLimits::new(0, 10, 3600), OutputLimits::new(0, 10, 0));
        assert!(outbox.push(Bytes::from_static(b"a"), &patient));
        assert!(outbox.push(Bytes::from_static(b"a"), &patient));
        assert!(!outbox.push(Bytes::from_static(b"a"), &impatient));
    }

    #[test]
    fn the_soft_limit_is_kept_when_nothing_is_pushed_any_more() {
        let outbox = Outbox::default();
        let (patient, impatient) = (OutputLimits::new(0, 10, 3600), OutputLimits::new(0, 10, 0));
        assert!(outbox.push(Bytes::from_static(b"a"), &patient));
        assert!(!outbox.is_overdue(&patient) && outbox.is_overdue(&impatient));
        // Once.
        assert!(outbox.has_overflowed() && !outbox.is_overdue(&impatient));
    }
}
