//! How a node comes to belong to a cluster: by founding one with its peers, exactly once, or by joining one that is there.
//!
//! The founders are the first `expect` addresses of `join` in alphabetical order (with this node's own, if `join` leaves it out). One of them,
//! the first, founds: when all of them answer and none belongs to a cluster, it asks each to promise itself, durably, to a cluster of
//! exactly these nodes. When all have promised it begins the log; the others are then reached by Raft. Why that happens once:
//!
//! - Only the founder at the first address begins a log, and only with everybody's promise.
//! - A promise binds to the cluster's id, which follows from the founders' node ids. A node that has promised refuses every other cluster's Raft.
//! - A promise may be replaced only while the node has neither vote nor log. So a founder whose disk was lost before anybody took part can begin
//!   again, and the cluster it may have begun alone can never reach a majority: its members have turned away.
//! - A node that has a vote or a log says so (`cluster` in its hello). Whoever sees that never founds: it joins.

use super::members::Members;
use crate::raft::Member;
use crate::raft::client::{Hello, MemberChange, Peers};
use crate::raft::fault::Fault;
use crate::raft::ground::beside;
use crate::raft::meta::Meta;
use crate::raft::replica::Replica;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How often a node that belongs nowhere looks around.
const LOOK: Duration = Duration::from_millis(100);

/// How long a peer may take to say who it is.
const HELLO: Duration = Duration::from_secs(1);

/// How long the leader may take to note a member: it asks for it where it was and where it is, and may be carrying out another's change.
const NOTED: Duration = Duration::from_secs(3);

/// How often a member looks whether the others know where it is, and after how many failures it is told why.
const RECORD: Duration = Duration::from_secs(1);
const RECORDS_PER_WORD: u32 = 5;

/// After so many looks without a cluster, it is told why (and again after as many).
const LOOKS_PER_WORD: u32 = 50;

/// Everything that finding a cluster takes.
pub(super) struct Discovery {
    pub(super) node: u64,
    pub(super) me: Member,
    /// Every address worth asking, this node's own left out.
    pub(super) others: Vec<String>,
    /// The founders' addresses, sorted.
    pub(super) founders: Vec<String>,
    pub(super) meta: Meta,
    pub(super) peers: Arc<Peers>,
    pub(super) replica: Arc<Replica>,
    pub(super) members: Arc<Members>,
    /// Whether this node asks for a vote while it has none: it was told whom to join.
    pub(super) wants_vote: bool,
    /// Raised when this data folder is not this node's to use.
    pub(super) fault: Fault,
}

/// The founders of a cluster with these settings.
pub(super) fn founders(join: &[String], me: &str, expect: Option<usize>) -> Vec<String> {
    let mut addresses: Vec<String> = join.to_vec();
    addresses.sort();
    addresses.dedup();
    let mine = || me.to_owned();
    if expect.is_none_or(|expect| addresses.len() < expect) && !addresses.iter().any(|address| address == me)
    {
        addresses.push(mine());
        addresses.sort();
    }
    addresses.truncate(expect.unwrap_or(usize::MAX));
    addresses
}

/// A cluster's id: it follows from its founders' ids, which are drawn by chance.
pub(super) fn cluster_id(founders: &BTreeMap<u64, Member>) -> u64 {
    let mut hash = Sha256::new();
    hash.update(b"plenary cluster v1");
    for id in founders.keys() {
        hash.update(id.to_le_bytes());
    }
    let bytes: [u8; 8] = hash.finalize()[..8].try_into().expect("eight of 32 bytes");
    // Zero means "none".
    u64::from_le_bytes(bytes).max(1)
}

impl Discovery {
    /// Looks around until this node belongs to a cluster, then keeps the members' record of it true. Says by `may_vote` that nobody else
    /// is this node: before that it must not stand for election.
    pub(super) async fn run(self, may_vote: oneshot::Sender<()>) -> Result<(), String> {
        if self.replica.is_initialized().await?
            && let Some(why) = self.is_a_copy().await
        {
            self.fault.raise(why);
            return Ok(());
        }
        // Whoever waits for it has ended if it is not heard.
        let _ = may_vote.send(());
        let mut looks = 0u32;
        while !self.replica.is_initialized().await? {
            if let Err(why) = self.look().await {
                looks += 1;
                if looks.is_multiple_of(LOOKS_PER_WORD) {
                    tracing::warn!("no cluster yet: {why}");
                }
            }
            tokio::time::sleep(LOOK).await;
        }
        self.keep_record().await
    }

    /// Why this folder is a copy, if the node it was copied from runs. Two processes of one id could vote twice.
    ///
    /// A folder may be moved, so it is asked where the members know this node: whoever answers there in its name, and says that it is to be
    /// reached elsewhere than here, is another process.
    async fn is_a_copy(&self) -> Option<String> {
        let state = self.replica.state();
        let (known, _) = state.members.get(&self.node)?;
        self.answers_elsewhere(&known.raft_addr).await
    }

    async fn answers_elsewhere(&self, address: &str) -> Option<String> {
        if address == self.me.raft_addr {
            return None;
        }
        let hello = tokio::time::timeout(HELLO, self.peers.hello(address, &self.me)).await;
        let hello = hello.ok()?.ok()?;
        (hello.node == self.node && hello.member.raft_addr != self.me.raft_addr)
            .then(|| runs_already(self.node, address))
    }

    /// Why this folder belongs to another cluster, if all who answer say so: nobody in `join` is of this node's cluster, and somebody is of
    /// another.
    async fn is_of_another_cluster(&self) -> Option<String> {
        let mine = self.peers.cluster();
        let (found, _) = self.ask_around().await;
        if found.values().any(|hello| hello.cluster == mine) {
            return None;
        }
        let (address, other) = found.iter().find(|(_, hello)| hello.cluster != 0)?;
        Some(format!(
            "this data folder belongs to cluster {mine:016x}, but {address} belongs to cluster {:016x}. Check `data` and `join`: to join that \
             cluster, give this node an empty folder",
            other.cluster
        ))
    }

    /// One look: joins, founds, or says why neither.
    async fn look(&self) -> Result<(), String> {
        let (found, silent) = self.ask_around().await;
        let mut members: Vec<_> = found.iter().filter(|(_, hello)| hello.cluster != 0).collect();
        if !members.is_empty() {
            members.sort_by_key(|(_, hello)| hello.leader == 0);
            return self.join(members.into_iter().map(|(address, _)| address)).await;
        }
        if !self.founders.contains(&self.me.raft_addr) {
            return Err(format!(
                "this node is no founder, and nobody it asks belongs to a cluster (silent: {})",
                silent.join(", ")
            ));
        }
        if self.founders.first() != Some(&self.me.raft_addr) {
            return Err(format!(
                "waiting for the first founder, {}, to begin (silent: {})",
                self.founders[0],
                silent.join(", ")
            ));
        }
        let mut members = BTreeMap::from([(self.node, self.me.clone())]);
        for founder in self
            .founders
            .iter()
            .filter(|address| **address != self.me.raft_addr)
        {
            let hello = found.get(founder).ok_or_else(|| {
                format!(
                    "waiting for {founder} ({} of {} founders answer; silent: {})",
                    found.len() + 1,
                    self.founders.len(),
                    silent.join(", ")
                )
            })?;
            let member = Member {
                raft_addr: founder.clone(),
                ..hello.member.clone()
            };
            if members.insert(hello.node, member).is_some() {
                return Err(format!(
                    "{founder} answers with the id of another founder: is a data folder there twice?"
                ));
            }
        }
        self.found(members).await
    }

    async fn ask_around(&self) -> (BTreeMap<String, Hello>, Vec<String>) {
        let asked = self.others.iter().map(|address| async {
            let hello = tokio::time::timeout(HELLO, self.peers.hello(address, &self.me)).await;
            (
                address.clone(),
                hello
                    .map_err(|_| "no answer".to_owned())
                    .and_then(|hello| hello.map_err(|status| status.message().to_owned())),
            )
        });
        let (mut found, mut silent) = (BTreeMap::new(), Vec::new());
        for (address, answer) in futures::future::join_all(asked).await {
            match answer {
                // An address of this very node under another name.
                Ok(hello) if hello.node == self.node => {}
                Ok(hello) => drop(found.insert(address, hello)),
                Err(why) => silent.push(format!("{address}: {why}")),
            }
        }
        (found, silent)
    }

    /// Gathers every founder's promise, then begins the log.
    async fn found(&self, members: BTreeMap<u64, Member>) -> Result<(), String> {
        let cluster = cluster_id(&members);
        promise(&self.meta, &self.peers, cluster).await?;
        let list: Vec<(u64, Member)> = members.iter().map(|(id, member)| (*id, member.clone())).collect();
        for (id, member) in list.iter().filter(|(id, _)| *id != self.node) {
            let promised = tokio::time::timeout(HELLO, self.peers.promise(&member.raft_addr, &list)).await;
            match promised {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(why))) => {
                    return Err(format!(
                        "{} (node {id}) does not promise: {why}",
                        member.raft_addr
                    ));
                }
                Ok(Err(status)) => return Err(format!("{}: {}", member.raft_addr, status.message())),
                Err(_) => return Err(format!("{}: no answer", member.raft_addr)),
            }
        }
        tracing::info!(
            cluster = format!("{cluster:016x}"),
            members = members.len(),
            "founding a cluster"
        );
        self.replica.initialize(members).await
    }

    /// Asks members to let this node in, one after the other: one that is cut off from the others answers as well.
    async fn join(&self, addresses: impl Iterator<Item = &String>) -> Result<(), String> {
        let change = MemberChange::Join(self.node, self.me.clone());
        let asked = self.ask_for(change, addresses).await;
        let (address, cluster) = asked.map_err(|whys| whys.join(", "))?;
        promise(&self.meta, &self.peers, cluster).await?;
        tracing::info!(
            cluster = format!("{cluster:016x}"),
            through = address,
            "joined a cluster"
        );
        Ok(())
    }

    /// A member that moved tells the cluster where it is now; a learner that was told whom to join asks for its vote, also after the leader
    /// it asked first has gone.
    async fn keep_record(&self) -> Result<(), String> {
        if let Some(why) = self.is_of_another_cluster().await {
            self.fault.raise(why);
            return Ok(());
        }
        let mut failures = 0u32;
        loop {
            let state = self.replica.state();
            let (known, voter) = state
                .members
                .get(&self.node)
                .map_or((None, false), |(member, voter)| (Some(member), *voter));
            let unnoted = known.is_some_and(|known| *known != self.me) || (self.wants_vote && !voter);
            if known.is_some()
                && unnoted
                && let Err(why) = self.note().await
            {
                failures += 1;
                if failures.is_multiple_of(RECORDS_PER_WORD) {
                    tracing::warn!("this node's address or wish to vote is not noted yet: {why}");
                }
            }
            tokio::time::sleep(RECORD).await;
        }
    }

    /// Tells the leader where this node is. One that moved is not called by the leader and does not know it, so it asks around.
    async fn note(&self) -> Result<(), String> {
        let change = MemberChange::Join(self.node, self.me.clone());
        if self.replica.state().leader.is_some() {
            match self.members.change(change.clone()).await {
                Ok(_) => return Ok(()),
                Err(why) => tracing::debug!(why, "the leader this node knows does not note it"),
            }
        }
        let (found, silent) = self.ask_around().await;
        let mine = self.peers.cluster();
        let members = found.iter().filter(|(_, hello)| hello.cluster == mine);
        let asked = self.ask_for(change, members.map(|(address, _)| address)).await;
        asked.map(drop).map_err(|whys| [silent, whys].concat().join(", "))
    }

    /// Asks for a change, each of these in turn until one has seen to it: which, and its cluster. Or why none has, each its own.
    async fn ask_for<'a>(
        &self,
        change: MemberChange,
        addresses: impl Iterator<Item = &'a String>,
    ) -> Result<(&'a String, u64), Vec<String>> {
        let mut whys = Vec::new();
        for address in addresses {
            match tokio::time::timeout(NOTED, self.peers.change_member(address, change.clone())).await {
                Ok(Ok(cluster)) => return Ok((address, cluster)),
                Ok(Err(status)) => whys.push(format!("{address}: {}", status.message())),
                Err(_) => whys.push(format!("{address}: no answer")),
            }
        }
        Err(whys)
    }
}

/// What is said to a node whose id is taken.
pub(super) fn runs_already(node: u64, address: &str) -> String {
    format!(
        "node {node} runs at {address} already: this data folder is a copy of its folder. Give this node an empty folder, and it joins as a \
         new member"
    )
}

/// Binds this node to a cluster, durably, before anything is said in its name.
pub(super) async fn promise(meta: &Meta, peers: &Peers, cluster: u64) -> Result<(), String> {
    if peers.cluster() == cluster {
        return Ok(());
    }
    let meta = meta.clone();
    let stored = beside(move || meta.set_cluster(cluster)).await;
    stored
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())?;
    peers.set_cluster(cluster);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(addresses: &[&str]) -> Vec<String> {
        addresses.iter().map(|address| (*address).to_owned()).collect()
    }

    #[test]
    fn every_node_names_the_same_founders() {
        let all = list(&["a:1", "b:1", "c:1"]);
        assert_eq!(founders(&list(&["c:1", "b:1", "a:1"]), "b:1", Some(3)), all);
        assert_eq!(
            founders(&list(&["a:1", "c:1"]), "b:1", Some(3)),
            all,
            "its own address left out"
        );
        assert_eq!(founders(&list(&["a:1", "c:1"]), "b:1", None), all);
        assert_eq!(
            founders(&all, "d:1", Some(3)),
            all,
            "a further node is no founder"
        );
        assert_eq!(
            founders(&list(&["a:1", "b:1", "c:1", "d:1", "e:1"]), "e:1", Some(3)),
            all
        );
        assert_eq!(founders(&[], "a:1", None), list(&["a:1"]), "a cluster of one");
    }

    #[test]
    fn other_founders_are_another_cluster() {
        let members = |ids: &[u64]| ids.iter().map(|id| (*id, Member::default())).collect();
        assert_ne!(cluster_id(&members(&[1, 2, 3])), cluster_id(&members(&[1, 2, 4])));
    }
}
