//! What a node stands on: the disk, the network, the clock on the wall, and threads for what blocks. The system's, and in tests simulated ones, so that
//! many nodes live in one thread whose every choice follows from one seed (`src/simulation/`).
//!
//! | door | the system's | simulated |
//! |---|---|---|
//! | [`Disk`] | files | in memory, forgets at a crash what was not flushed |
//! | [`Net`] | TCP | streams in memory, delayed, cut and reset |
//! | [`Wall`] | the machine's clock | a clock that is wrong and jumps |
//! | [`beside`], [`thread`] | a thread that may block | a task of the same thread |
//! | [`Runtime`] | tokio's, with chance from the system | the same, with chance from the seed |
//!
//! Time that is measured (rather than told) is tokio's [`tokio::time::Instant`] in this layer and in node/: the system's monotonic clock, unless a test
//! stops it. Outside of tests each door has one variant only, so that the choice costs nothing.

pub(crate) use super::files::Disk;
pub(crate) use super::net::Net;
use crate::machine::entry::Millis;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::task::JoinHandle;

#[cfg(not(test))]
#[allow(
    deprecated,
    reason = "the same type as the crate openraft_rt_tokio has, which need not be named for it"
)]
pub(super) use openraft::impls::TokioRuntime as Runtime;

#[cfg(test)]
pub(super) use super::simulation::Runtime;

/// The ground of one node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ground {
    pub(crate) disk: Disk,
    pub(crate) net: Net,
    pub(crate) wall: Wall,
}

/// The clock of the machine that a node is on.
#[derive(Clone, Debug, Default)]
pub(crate) enum Wall {
    /// The system's.
    #[default]
    System,
    /// One that a test sets.
    #[cfg(test)]
    Simulated(super::simulation::Wall),
}

impl Wall {
    /// Milliseconds since the Unix epoch.
    pub(crate) fn now(&self) -> Millis {
        match self {
            Self::System => {
                let wall = SystemTime::now().duration_since(UNIX_EPOCH);
                Millis::try_from(wall.map_or(0, |since| since.as_millis())).unwrap_or(Millis::MAX)
            }
            #[cfg(test)]
            Self::Simulated(wall) => wall.now(),
        }
    }
}

/// Rests in work that [`beside`] runs. Work of a simulation is done at once.
pub(super) fn pause(time: std::time::Duration) {
    #[cfg(test)]
    if super::simulation::is_on() {
        return;
    }
    std::thread::sleep(time);
}

/// Runs what blocks, on the disk or by computing for long, beside the tasks.
pub(crate) fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    #[cfg(test)]
    if super::simulation::is_on() {
        return tokio::spawn(async { work() });
    }
    tokio::task::spawn_blocking(work)
}

/// Runs what computes for long, for as long as the node runs, on a thread of its own: what it holds need not be able to go to another.
///
/// # Errors
/// Where the system gives no thread.
#[cfg(feature = "lua")]
pub(crate) fn thread<Work: Future<Output = ()> + 'static>(
    name: &str,
    stack_bytes: usize,
    work: impl FnOnce() -> Work + Send + 'static,
) -> std::io::Result<()> {
    #[cfg(test)]
    if super::simulation::is_on() {
        tokio::task::spawn_local(work());
        return Ok(());
    }
    let (thread, runtime) = (std::thread::Builder::new(), tokio::runtime::Handle::current());
    let thread = thread.name(name.to_owned()).stack_size(stack_bytes);
    thread.spawn(move || runtime.block_on(work())).map(drop)
}
