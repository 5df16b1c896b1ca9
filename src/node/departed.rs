//! On the leader: lets the log take back what is held for a member that is silent, or for a node that is a member no more: commands that wait for it in a
//! queue, and locks that are bound to it. So nobody waits behind a node that is gone.

use super::propose::Outbound;
use crate::machine::entry::{self, Origin};
use crate::machine::internal;
use crate::raft::ground::beside;
use crate::raft::state_store::State;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The last group of a node: its id, start and number.
pub(super) type Record = (u64, u64, u64);

/// How often it is looked who is silent.
const LOOK: Duration = Duration::from_secs(1);

/// How long one must have been silent to count as gone. It may only hang: then its callers are told that their time is over.
const SILENT: Duration = Duration::from_secs(5);

/// Watches as long as the node runs.
pub(super) async fn watch(outbound: Outbound) {
    // Whose last group was answered for: the log knows that they are gone, or they hold nothing.
    let mut told: BTreeSet<Record> = BTreeSet::new();
    // Who is out, with its last group, and holds nothing any more.
    let mut let_go = BTreeSet::new();
    loop {
        tokio::time::sleep(LOOK).await;
        if !outbound.replica.leads() {
            told.clear();
            continue;
        }
        let silent = |id: &u64| {
            outbound
                .fellows
                .silent_for(*id)
                .is_some_and(|silent| silent >= SILENT)
        };
        told.retain(|(id, ..)| silent(id));
        for id in outbound.replica.state().members.into_keys().filter(silent) {
            // One that never wrote holds nothing.
            if let Some(record) = record_of(&outbound.state, id)
                && !told.contains(&record)
                && tell_silent(&outbound, record).await
            {
                told.insert(record);
            }
        }
        let (out, left) = left_behind(&outbound, &let_go).await;
        let mut all_told = true;
        for (id, start) in left {
            tracing::info!(
                node = id,
                start,
                "a node is no member any more: what it waits for and has locked is taken back"
            );
            all_told &= tell_gone(&outbound, id, start).await;
        }
        if all_told {
            let_go = out;
        }
    }
}

/// The nodes that are out with their last groups, and the last start of each of them that holds something. Of those that were let go and have written nothing
/// since, locks are not looked for again, which is to walk over all keys.
async fn left_behind(
    outbound: &Outbound,
    let_go: &BTreeSet<Record>,
) -> (BTreeSet<Record>, BTreeMap<u64, u64>) {
    // Looked at before the members are: whoever has written is one, or was.
    let (writers, mut holders) = {
        let machine = outbound.state.machine().read();
        let writers: Vec<Record> = machine.once().records().collect();
        let waiting: BTreeSet<(u64, u64)> = machine.store().waiting().callers().collect();
        (writers, waiting)
    };
    let members = outbound.replica.state().members;
    let out: BTreeSet<Record> = writers
        .into_iter()
        .filter(|(id, ..)| !members.contains_key(id))
        .collect();
    if !out.is_subset(let_go) {
        holders.extend(bound_to(&outbound.state).await);
    }
    // In order: the last start of a node stays.
    let is_out = |id: u64| out.iter().any(|(node, ..)| *node == id);
    let left = holders.into_iter().filter(|(id, _)| is_out(*id)).collect();
    (out, left)
}

/// Whether such a node and start has a command that waits, or a lock that is bound to it.
pub(super) async fn holds_something(state: &State, such: impl Fn((u64, u64)) -> bool) -> bool {
    let waits = state.machine().read().store().waiting().callers().any(&such);
    waits || bound_to(state).await.into_iter().any(such)
}

/// The nodes and starts that have a lock bound to them, looked for beside the tasks.
async fn bound_to(state: &State) -> BTreeSet<(u64, u64)> {
    let frozen = state.machine().read().freeze();
    let found = beside(move || frozen.store().bound_to()).await;
    found.unwrap_or_else(|error| {
        tracing::error!(%error, "nobody could look for bound locks");
        BTreeSet::new()
    })
}

/// The last group of a node; none if it never wrote.
pub(super) fn record_of(state: &State, id: u64) -> Option<Record> {
    let machine = state.machine().read();
    machine.once().records().find(|(node, ..)| *node == id)
}

/// Tells the log that the last start of a node is gone, if it holds anything. Whether that is settled.
async fn tell_silent(outbound: &Outbound, (id, start, _): Record) -> bool {
    if !holds_something(&outbound.state, |(node, _)| node == id).await {
        return true;
    }
    tracing::info!(
        node = id,
        start,
        "a member is silent: what it waits for and has locked is taken back"
    );
    tell_gone(outbound, id, start).await
}

/// Tells the log that a start of a node is gone. Whether it knows now.
async fn tell_gone(outbound: &Outbound, id: u64, start: u64) -> bool {
    let group = entry::encode(Origin::default(), &[internal::gone(id, start)]);
    let refused = outbound.propose_at_once(group).await;
    refused.is_none_or(|why| {
        tracing::debug!(why, "that a member is gone was refused");
        false
    })
}
