//! What a leader and a follower need not tell each other on a stream of entries: a commit that the next one tells as well, an answer that
//! says nothing new.
//!
//! openraft sends each commit at once, with a message of its own where no entry carries it, and has each message answered. While other entries
//! are under way both can be spared: half of the messages of a busy cluster. Nobody waits for one of them: openraft finds out by the index
//! which requests an answer is for, and the leader's heartbeats tell the commit as well.

use super::Types;
use crate::machine::entry;
use futures::{Stream, StreamExt};
use openraft::EntryPayload;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use std::future::ready;

type Request = AppendEntriesRequest<Types>;
type Answer = StreamAppendResult<Types>;

/// The leader's requests to `target`, without the commits that are told soon: with the next entries, or, when none follow, with the commit
/// of those under way. A commit of a group that `target` collected is told at once, for its callers wait there.
pub(super) fn worth_sending(
    target: u64,
    requests: impl Stream<Item = Request> + Send,
) -> impl Stream<Item = Request> + Send {
    let mut told = Told::new(target);
    requests.filter(move |request| ready(told.take(request)))
}

/// A follower's answers, without those that say of what is stored what the one before said: a commit changes nothing about that.
pub(super) fn worth_answering<E: Send>(
    answers: impl Stream<Item = Result<Answer, E>> + Send,
) -> impl Stream<Item = Result<Answer, E>> + Send {
    let mut said = None;
    answers.filter(move |answer| {
        let again = matches!(answer, Ok(Ok(stored)) if said.replace(*stored) == Some(*stored));
        ready(!again)
    })
}

/// What a member was told on a stream.
struct Told {
    member: u64,
    /// The index of the last entry sent.
    last_sent: u64,
    /// Where the entries stand that were sent, that the member collected, and whose commit was not told: the first and the last.
    own: Option<(u64, u64)>,
}

impl Told {
    fn new(member: u64) -> Self {
        Self {
            member,
            last_sent: 0,
            own: None,
        }
    }

    /// Whether a request must be sent. One that must be counts as sent.
    fn take(&mut self, request: &Request) -> bool {
        let committed = request.leader_commit.map_or(0, |id| id.index);
        let waited_for = self.own.is_some_and(|(first, _)| first <= committed);
        if request.entries.is_empty() && committed < self.last_sent && !waited_for {
            return false;
        }
        self.own = self
            .own
            .filter(|(_, last)| *last > committed)
            .map(|(first, last)| (first.max(committed + 1), last));
        for entry in &request.entries {
            let index = entry.log_id.index;
            self.last_sent = index;
            if let EntryPayload::Normal(group) = &entry.payload
                && entry::origin(&group.0).is_ok_and(|origin| origin.node == self.member)
            {
                self.own = Some((self.own.map_or(index, |(first, _)| first), index));
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::entry::{Command, Origin};
    use crate::raft::{Entry, Group, LogId, Vote};
    use openraft::impls::leader_id_adv::LeaderId;

    const LEADER: LeaderId<u64, u64> = LeaderId { term: 1, node_id: 1 };

    fn id(index: u64) -> LogId {
        LogId {
            leader_id: LEADER,
            index,
        }
    }

    /// The entry at this index: a group that `node` collected.
    fn of(node: u64, index: u64) -> Entry {
        let origin = Origin {
            node,
            start: 1,
            number: index,
        };
        let group = entry::encode(origin, &[Command::new(0, ["PING"])]);
        Entry {
            log_id: id(index),
            payload: EntryPayload::Normal(Group(group)),
        }
    }

    fn request(entries: Vec<Entry>, committed: u64) -> Request {
        Request {
            vote: Vote {
                leader_id: LEADER,
                committed: true,
            },
            prev_log_id: None,
            entries,
            leader_commit: Some(id(committed)),
        }
    }

    #[test]
    fn a_commit_waits_only_while_an_entry_after_it_is_under_way() {
        let mut told = Told::new(2);
        assert!(told.take(&request(vec![], 3)), "nothing is under way");
        assert!(told.take(&request(vec![of(1, 4), of(3, 5)], 3)));
        assert!(!told.take(&request(vec![], 4)), "5 is under way");
        assert!(told.take(&request(vec![], 5)), "the last is told");
        assert!(told.take(&request(vec![of(1, 6)], 5)));
        assert!(told.take(&request(vec![], 6)));
    }

    #[test]
    fn a_commit_that_the_members_own_callers_wait_for_is_told_at_once() {
        let mut told = Told::new(2);
        assert!(told.take(&request(
            vec![of(1, 1), of(2, 2), of(1, 3), of(2, 4), of(1, 5)],
            0
        )));
        assert!(!told.take(&request(vec![], 1)));
        assert!(told.take(&request(vec![], 2)), "its callers wait for 2");
        assert!(told.take(&request(vec![], 4)), "and for 4");
        assert!(told.take(&request(vec![], 5)));
        assert!(told.take(&request(vec![of(1, 6), of(2, 7), of(1, 8)], 5)));
        assert!(!told.take(&request(vec![], 6)));
        assert!(told.take(&request(vec![of(1, 9)], 7)), "entries carry the commit");
        assert!(!told.take(&request(vec![], 8)), "7 was told");
    }

    #[tokio::test]
    async fn an_answer_is_told_unless_it_says_nothing_new() {
        let stored = |index| Ok::<_, ()>(Ok(Some(id(index))));
        let answers = vec![
            Ok(Ok(None)),
            stored(1),
            stored(1),
            stored(2),
            stored(2),
            stored(3),
        ];
        let told: Vec<_> = worth_answering(futures::stream::iter(answers)).collect().await;
        let indices: Vec<_> = told
            .into_iter()
            .map(|answer| answer.unwrap().unwrap().map(|id| id.index))
            .collect();
        assert_eq!(indices, [None, Some(1), Some(2), Some(3)]);
    }
}
