//! On the leader: lets the log take back what is held for a member that is silent: commands that wait for it in a queue, and locks that are bound to
//! it. So nobody waits behind a node that is gone.

use super::propose::Outbound;
use crate::machine::entry::{self, Origin};
use crate::machine::internal;
use std::collections::BTreeSet;
use std::time::Duration;

/// How often it is looked who is silent.
const LOOK: Duration = Duration::from_secs(1);

/// How long one must have been silent to count as gone. It may only hang: then its callers are told that their time is over.
const SILENT: Duration = Duration::from_secs(5);

/// Watches as long as the node runs.
pub(super) async fn watch(outbound: Outbound) {
    // Of whom the log knows that they are gone.
    let mut told = BTreeSet::new();
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
        told.retain(silent);
        for id in outbound.replica.state().members.into_keys().filter(silent) {
            if !told.contains(&id) && tell_gone(&outbound, id).await {
                told.insert(id);
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
