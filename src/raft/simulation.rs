//! What a simulation needs of this layer beside a disk and a network: chance from its seed, clocks that are wrong, and whether it is on.
//!
//! A simulation has its thread for itself, so what it knows is the thread's.

use super::files::simulated::Chance;
use crate::machine::entry::Millis;
use openraft::OptionalSend;
use openraft::async_runtime::AsyncRuntime;
use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

thread_local! {
    static CHANCE: RefCell<Option<Chance>> = const { RefCell::new(None) };
}

/// This thread's simulation, as long as it is kept.
pub(crate) struct Simulation(());

impl Simulation {
    /// Begins one.
    ///
    /// # Panics
    /// If this thread has one.
    pub(crate) fn begin(seed: u64) -> Self {
        let before = CHANCE.replace(Some(Chance(seed)));
        assert!(before.is_none(), "one simulation a thread");
        Self(())
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        CHANCE.take();
    }
}

/// Whether this thread is a simulation's.
pub(super) fn is_on() -> bool {
    CHANCE.with_borrow(Option::is_some)
}

/// A number by the simulation's chance, or by the system's where none is on.
fn draw() -> u64 {
    CHANCE.with_borrow_mut(|chance| match chance {
        Some(chance) => chance.draw(),
        None => getrandom::u64().expect("the system has chance"),
    })
}

/// A clock on the wall: it goes on with simulated time, and is as wrong as a test wants it. Clones are the same clock.
#[derive(Clone, Debug)]
pub(crate) struct Wall {
    began: Instant,
    wrong: Arc<AtomicI64>,
}

impl Wall {
    /// What the clocks show that are right when they begin: in November 2026.
    const BEGINS_AT: i64 = 1_795_000_000_000;

    /// One that is wrong by so many milliseconds.
    pub(crate) fn new(wrong: i64) -> Self {
        Self {
            began: Instant::now(),
            wrong: Arc::new(AtomicI64::new(wrong)),
        }
    }

    /// Makes it wrong by so many more.
    pub(crate) fn jump(&self, by: i64) {
        self.wrong.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> Millis {
        let since = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX);
        let shown = Self::BEGINS_AT + since + self.wrong.load(Ordering::Relaxed);
        Millis::try_from(shown).unwrap_or(0)
    }
}

#[allow(deprecated, reason = "as in ground.rs")]
type Tokio = openraft::impls::TokioRuntime;

/// tokio's runtime, as production has it, with [`draw`] for its chance: openraft draws the length of elections and of its first ticks.
#[derive(Debug)]
pub(crate) struct Runtime(Tokio);

/// openraft's chance.
#[derive(Debug)]
pub(crate) struct Rng(());

impl rand::TryRng for Rng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let [_, _, _, _, bytes @ ..] = draw().to_be_bytes();
        Ok(u32::from_be_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(draw())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for some in bytes.chunks_mut(size_of::<u64>()) {
            some.copy_from_slice(&draw().to_le_bytes()[..some.len()]);
        }
        Ok(())
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = <Tokio as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <Tokio as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <Tokio as AsyncRuntime>::Sleep;
    type Instant = <Tokio as AsyncRuntime>::Instant;
    type TimeoutError = <Tokio as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <Tokio as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = Rng;
    type Mpsc = <Tokio as AsyncRuntime>::Mpsc;
    type Watch = <Tokio as AsyncRuntime>::Watch;
    type Oneshot = <Tokio as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Tokio as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        Tokio::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Tokio::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Tokio::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        Tokio::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        Tokio::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        Tokio::is_panic(error)
    }

    fn thread_rng() -> Rng {
        Rng(())
    }

    fn new(threads: usize) -> Self {
        Self(Tokio::new(threads))
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        self.0.block_on(future)
    }
}
