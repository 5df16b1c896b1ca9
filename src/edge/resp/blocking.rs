//! What a connection does while one of its commands waits: it gives and takes bytes, notices a hang-up, and runs nothing else.
//!
//! Commands wait in the log for a key (`BLPOP`), or here: while this node's clients are paused (`CLIENT PAUSE`), or for other members (`WAIT`).

use super::Shared;
use super::clients::Client;
use super::connection::{Caller, Connection, End};
use super::local::{Answer, Attended};
use super::multi;
use crate::machine::args::{Args, integer};
use crate::machine::internal::Unwait;
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::Spec;
use crate::node::Wait;
use bytes::Bytes;
use futures::FutureExt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::sync::{Notify, watch};

/// Bytes of further commands that are taken in while one waits. Beyond it nothing is read, and a hang-up is noticed later.
const WAITING_INPUT_BYTES: usize = 1 << 20;

/// Bytes that one read makes room for.
const READ_BYTES: usize = 4 << 10;

/// The longest pause: as good as for ever.
const PAUSE_MOST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Whether a client waits, and how somebody ends its wait.
#[derive(Debug, Default)]
pub(super) struct Blocked {
    /// Whether one of its commands waits, here or in the log.
    waits: AtomicBool,
    /// Whether that can be ended by `CLIENT UNBLOCK`.
    can_be_ended: AtomicBool,
    /// Whether it is to end with an error.
    with_error: AtomicBool,
    asked: Notify,
}

impl Blocked {
    /// Whether the client waits.
    pub(super) fn is_waiting(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    /// Ends its wait in the log. Whether it waited.
    fn end(&self, how: Unwait) -> bool {
        let waited = self.can_be_ended.swap(false, Ordering::AcqRel);
        if waited {
            self.with_error.store(how == Unwait::Error, Ordering::Release);
            self.asked.notify_one();
        }
        waited
    }

    /// How somebody wants the wait to end, once somebody does. Cancel-safe.
    async fn asked(&self) -> Unwait {
        self.asked.notified().await;
        if self.with_error.load(Ordering::Acquire) {
            Unwait::Error
        } else {
            Unwait::Timeout
        }
    }
}

/// Counts a client as waiting as long as it lives.
struct Waits {
    shared: Arc<Shared>,
    client: Arc<Client>,
}

impl Waits {
    fn begin(caller: &Caller, can_be_ended: bool) -> Self {
        let (shared, client) = (caller.shared.clone(), caller.client.clone());
        shared.blocked.fetch_add(1, Ordering::Relaxed);
        client.blocked.waits.store(true, Ordering::Relaxed);
        // What was asked of the wait before this one, at the moment it ended.
        let _ = client.blocked.asked.notified().now_or_never();
        client.blocked.can_be_ended.store(can_be_ended, Ordering::Release);
        Self { shared, client }
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.client.blocked.waits.store(false, Ordering::Relaxed);
        self.client.blocked.can_be_ended.store(false, Ordering::Release);
        self.shared.blocked.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    /// The answer of a command that waits in the log. The client that goes takes it back.
    pub(super) async fn wait(&mut self, mut wait: Wait) -> Result<Reply, End> {
        let _waits = Waits::begin(&self.caller, true);
        let (client, node) = (self.caller.client.clone(), self.caller.shared.node.clone());
        let answer = async move {
            loop {
                let how = tokio::select! {
                    biased;
                    reply = wait.answer() => return reply,
                    how = client.blocked.asked() => how,
                };
                // Where the log cannot be reached the command goes on to wait; its answer may have come meanwhile, and counts.
                if let Err(error) = node.unwait(wait.number(), how).await {
                    tracing::debug!(client = client.id, %error, "a command could not be unblocked");
                    client.blocked.can_be_ended.store(true, Ordering::Release);
                }
            }
        };
        self.attend(answer).await
    }

    /// The answer of a command that waits for other members.
    pub(super) async fn wait_for_others(&mut self, answer: Attended) -> Result<Answer, End> {
        let _waits = Waits::begin(&self.caller, false);
        let answer = self.attend(answer).await?;
        self.begin();
        Ok(answer)
    }

    /// Waits until this node's clients are not paused, or not as far as this command is concerned. Whether it waited.
    pub(super) async fn sit_out_pause(&mut self, spec: &Spec, argv: &[Bytes]) -> Result<bool, End> {
        if !self.caller.is_paused(spec, argv) {
            return Ok(false);
        }
        // What was said before is answered first.
        self.submit().await?;
        let _waits = Waits::begin(&self.caller, false);
        while self.caller.is_paused(spec, argv) {
            let shared = self.caller.shared.clone();
            self.attend(async move { shared.pause.changed().await }).await?;
        }
        self.begin();
        Ok(true)
    }

    /// Does what else there is to do until `task` is done.
    async fn attend<T>(&mut self, task: impl Future<Output = T>) -> Result<T, End> {
        let mut task = pin!(task);
        let client = self.caller.client.clone();
        loop {
            client.outbox.take(&mut self.output);
            let waiting = !self.output.is_empty() || self.unflushed;
            let reading = self.input.len() < WAITING_INPUT_BYTES;
            if reading {
                self.input.reserve(READ_BYTES);
            }
            tokio::select! {
                biased;
                result = &mut task => return Ok(result),
                written = self.writer.give(&mut self.output), if waiting => self.wrote(written)?,
                () = client.ended() => return Err(End::Ended),
                () = client.outbox.woken() => {}
                read = self.reader.read_buf(&mut self.input), if reading => self.received(read)?,
            }
        }
    }
}

/// `CLIENT PAUSE` of this node's clients.
#[derive(Debug)]
pub(super) struct Pause {
    /// Whether there may be one: what is asked often, without the lock.
    active: AtomicBool,
    current: watch::Sender<Option<Paused>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Paused {
    until: Instant,
    /// Whether commands that only read may run.
    reads_run: bool,
}

impl Default for Pause {
    fn default() -> Self {
        Self {
            active: AtomicBool::new(false),
            current: watch::Sender::new(None),
        }
    }
}

impl Pause {
    /// Whether there may be a pause.
    pub(super) fn may_be(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// The pause there is; one that is over is taken away.
    fn current(&self) -> Option<Paused> {
        let current = *self.current.borrow();
        let current = current.filter(|paused| paused.until > Instant::now());
        if current.is_none() && self.may_be() {
            self.current.send_if_modified(|paused| {
                let over = paused.is_none_or(|paused| paused.until <= Instant::now());
                if over {
                    *paused = None;
                    self.active.store(false, Ordering::Relaxed);
                }
                over
            });
        }
        current
    }

    /// Begins a pause, or makes the one there is longer and stricter.
    fn begin(&self, time: Duration, reads_run: bool) {
        let old = self.current();
        let until = Instant::now() + time.min(PAUSE_MOST);
        self.current.send_modify(|paused| {
            *paused = Some(Paused {
                until: old.map_or(until, |old| old.until.max(until)),
                reads_run: reads_run && old.is_none_or(|old| old.reads_run),
            });
            self.active.store(true, Ordering::Relaxed);
        });
    }

    fn end(&self) {
        self.current.send_modify(|paused| {
            *paused = None;
            self.active.store(false, Ordering::Relaxed);
        });
    }

    /// Resolves when the pause is over or another. Cancel-safe.
    async fn changed(&self) {
        let mut changes = self.current.subscribe();
        let Some(paused) = self.current() else { return };
        let over = tokio::time::sleep_until(paused.until.into());
        tokio::select! {
            _ = changes.changed() => {}
            () = over => {}
        }
    }
}

impl Caller {
    fn is_paused(&self, spec: &Spec, argv: &[Bytes]) -> bool {
        let Some(paused) = self.shared.pause.current() else {
            return false;
        };
        let queued = || {
            self.transaction
                .as_ref()
                .is_some_and(|transaction| transaction.writes(self))
        };
        !paused.reads_run || multi::writes(self, spec, argv) || (spec.name == "EXEC" && queued())
    }
}

/// `CLIENT PAUSE timeout [WRITE|ALL]`.
pub(super) fn pause(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    const MODE: CommandError = CommandError::text("ERR CLIENT PAUSE mode must be WRITE or ALL");
    const NO_NUMBER: CommandError = CommandError::text("ERR timeout is not an integer or out of range");
    const NEGATIVE: CommandError = CommandError::text("ERR timeout is negative");
    let time = args.bytes()?;
    let reads_run = if args.is_empty() || args.keyword("ALL") {
        false
    } else if args.keyword("WRITE") {
        true
    } else {
        return Err(MODE);
    };
    args.end()?;
    let time = integer(time).ok_or(NO_NUMBER)?;
    let time = u64::try_from(time).map_err(|_| NEGATIVE)?;
    caller.shared.pause.begin(Duration::from_millis(time), reads_run);
    Ok(Reply::OK)
}

pub(super) fn unpause(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    caller.shared.pause.end();
    Ok(Reply::OK)
}

/// `CLIENT UNBLOCK id [TIMEOUT|ERROR]`: 1 if that client waited for a key.
pub(super) fn unblock(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    const REASON: CommandError = CommandError::text("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR");
    let id = args.bytes()?;
    let how = if args.is_empty() || args.keyword("TIMEOUT") {
        Unwait::Timeout
    } else if args.keyword("ERROR") {
        Unwait::Error
    } else {
        return Err(REASON);
    };
    args.end()?;
    let id = integer(id).ok_or(CommandError::NotAnInteger)?;
    let client = u64::try_from(id)
        .ok()
        .and_then(|id| caller.shared.clients.get(id));
    Ok(Reply::flag(client.is_some_and(|client| client.blocked.end(how))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_pause_makes_the_first_longer_and_stricter_never_shorter() {
        let pause = Pause::default();
        assert!(pause.current().is_none() && !pause.may_be());
        pause.begin(Duration::from_secs(100), false);
        let first = pause.current().unwrap();
        pause.begin(Duration::from_secs(1), true);
        assert_eq!(pause.current(), Some(first));
        pause.end();
        assert!(pause.current().is_none() && !pause.may_be());
        pause.begin(Duration::from_secs(100), true);
        pause.begin(Duration::from_secs(1), false);
        assert!(!pause.current().unwrap().reads_run);
    }

    #[test]
    fn a_pause_that_is_over_is_forgotten() {
        let pause = Pause::default();
        pause.begin(Duration::ZERO, false);
        assert!(pause.current().is_none() && !pause.may_be());
    }

    #[tokio::test]
    async fn a_wait_is_ended_once_and_only_while_it_waits() {
        let blocked = Blocked::default();
        assert!(!blocked.end(Unwait::Timeout));
        blocked.can_be_ended.store(true, Ordering::Release);
        assert!(blocked.end(Unwait::Error) && !blocked.end(Unwait::Timeout));
        assert_eq!(blocked.asked().await, Unwait::Error);
    }
}
