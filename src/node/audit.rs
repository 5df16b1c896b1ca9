//! Same log, same state: compares this node's audits with the other members' and says so, loudly, where they differ.
//!
//! The state store takes the digest of the whole state at entries that the log itself determines. Here the results meet.

use crate::raft::client::Peers;
use crate::raft::replica::Replica;
use crate::raft::state_store::Audit;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How often the audits are compared; far more often than they are taken.
const COMPARE: Duration = Duration::from_secs(10);

/// How long a member may take to answer.
const ANSWER: Duration = Duration::from_secs(1);

/// Members found to differ from this node.
#[derive(Debug, Default)]
pub(super) struct Differences(Mutex<BTreeSet<u64>>);

impl Differences {
    /// Their ids; they stay until this node is started anew.
    pub(super) fn members(&self) -> Vec<u64> {
        self.0.lock().iter().copied().collect()
    }

    /// Notes what another member found at an index, if this node has audited the same.
    fn compare(&self, mine: Audit, id: u64, theirs: Audit) {
        if theirs.index != mine.index || theirs.digest == mine.digest {
            return;
        }
        if self.0.lock().insert(id) {
            tracing::error!(
                member = id,
                index = mine.index,
                mine = format!("{:032x}", mine.digest),
                theirs = format!("{:032x}", theirs.digest),
                "the same log has come to another state there: one of the two is damaged. Find out which with `PLENARY DIGEST` on a third member, \
                 stop the odd one, empty its data folder and let it join anew"
            );
        }
    }
}

/// Compares as long as the node runs.
pub(super) async fn compare(replica: Arc<Replica>, peers: Arc<Peers>, differences: Arc<Differences>) {
    loop {
        tokio::time::sleep(COMPARE).await;
        let Some(mine) = replica.audit() else { continue };
        for (id, (member, _)) in replica.state().members {
            let answer = tokio::time::timeout(ANSWER, peers.status(id, &member.raft_addr)).await;
            let Ok(Ok(answer)) = answer else { continue };
            let Ok(digest) = <[u8; 16]>::try_from(&answer.audit_digest[..]) else {
                continue;
            };
            differences.compare(
                mine,
                id,
                Audit {
                    index: answer.audit_index,
                    digest: u128::from_le_bytes(digest),
                },
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_digest_at_the_same_index_is_a_difference() {
        let differences = Differences::default();
        let mine = Audit { index: 7, digest: 1 };
        differences.compare(mine, 2, Audit { index: 7, digest: 1 });
        differences.compare(mine, 3, Audit { index: 6, digest: 2 });
        assert_eq!(differences.members(), [0u64; 0]);
        differences.compare(mine, 4, Audit { index: 7, digest: 2 });
        assert_eq!(differences.members(), [4]);
    }
}
