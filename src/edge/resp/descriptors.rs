//! How many connections the system lets this process have. Each is a file descriptor, and who runs out of them can neither write a log nor hear a peer: clients
//! get what is left beside those.

use rustix::process::{Resource, getrlimit};
#[cfg(feature = "cli")]
use rustix::process::{Rlimit, setrlimit};

/// Descriptors that no Redis client gets: for the log and snapshots, peers and strangers at their port, HTTP, and what the application opens. Where the
/// system gives hardly more than that, half of what it gives. (Redis: 32; its log is one file, and its peers are clients.)
const RESERVED: u64 = 512;

/// Lets this process open as many files as the system allows it at all. For the program alone: where a node is embedded that is the application's.
#[cfg(feature = "cli")]
pub(crate) fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, all)
    {
        tracing::warn!(%error, limit = limit.current, "the limit of open files stays as it is");
    }
}

/// Clients that there are descriptors for.
pub(super) fn room() -> usize {
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, room_in)
}

fn room_in(files: u64) -> usize {
    let room = files.saturating_sub(RESERVED).max(files / 2);
    usize::try_from(room).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_the_node_does_not_need() {
        assert_eq!([65_536, 1_024, 600, 64].map(room_in), [65_024, 512, 300, 32]);
    }
}
