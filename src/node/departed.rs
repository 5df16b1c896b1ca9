//! On the leader: asks the members whether they are there, and lets the log take back what is held for one that is not: commands that wait for it in a
//! queue, and locks that are bound to it. So nobody waits behind a node that is gone.

use super::propose::Outbound;
use crate::machine::entry::{self, Origin};
use crate::machine::internal;
use crate::raft::replica::Role;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often members are asked.
const ASK: Duration = Duration::from_secs(1);

/// How long one may take to answer.
const ANSWER: Duration = Duration::from_secs(1);

/// How long one must have been silent to count as gone. It may only hang: then its callers are told that their time is over.
const SILENT: Duration = Duration::from_secs(5);

/// Watches as long as the node runs.
pub(super) async fn watch(outbound: Outbound) {
    // When a member that is silent was heard of last, or whether the log knows that it is gone.
    let mut silent: BTreeMap<u64, Option<Instant>> = BTreeMap::new();
    loop {
        tokio::time::sleep(ASK).await;
        let state = outbound.replica.state();
        if state.role != Role::Leader {
            silent.clear();
            continue;
        }
        silent.retain(|id, _| state.members.contains_key(id));
        let others = state.members.iter().filter(|(id, _)| **id != outbound.node);
        let asked = others.map(async |(id, (member, _))| {
            let answer = tokio::time::timeout(ANSWER, outbound.peers.status(*id, &member.raft_addr)).await;
            (*id, matches!(answer, Ok(Ok(_))))
        });
        for (id, answers) in futures::future::join_all(asked).await {
            if answers {
                silent.remove(&id);
                continue;
            }
            let since = silent.entry(id).or_insert_with(|| Some(Instant::now()));
            if since.is_some_and(|since| since.elapsed() >= SILENT) && tell_gone(&outbound, id).await {
                *since = None;
            }
        }
    }
}

/// Tells the log that the last start of a node is gone. Whether it knows now.
async fn tell_gone(outbound: &Outbound, id: u64) -> bool {
    let start = {
        let machine = outbound.state.machine().read();
        let mut records = machine.once().records();
        records.find(|(node, ..)| *node == id).map(|(_, start, _)| start)
    };
    // One that never wrote holds nothing.
    let Some(start) = start else { return true };
    tracing::info!(
        node = id,
        start,
        "a member is silent: what it waits for and has locked is taken back"
    );
    let group = entry::encode(Origin::default(), &[internal::gone(id, start)]);
    let refused = outbound.propose_at_once(group).await;
    refused.is_none_or(|why| {
        tracing::debug!(why, "that a member is gone was refused");
        false
    })
}
