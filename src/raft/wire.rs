//! Protobuf to our types and back, both directions side by side. Refuses what is malformed; knows nothing of who may call.

use super::client::{Evaluated, Kind, Running};
use super::leadership::Follows;
use super::log::record;
use super::{COUNTER_MAX, LogId, Member, Types, Vote, pb};
use crate::machine::keyspace::DATABASES;
use crate::machine::recency::Use;
use crate::machine::reply::Reply;
use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest, VoteRequest,
    VoteResponse,
};
use openraft::vote::leader_id_adv::LeaderId;
use prost::Message;
use std::time::Duration;
use tonic::Status;

/// Bytes of an address of a member, at most: a name of the domain name system takes half of it, with its port. Members are in each snapshot, and in each answer that
/// names them.
const ADDRESS_BYTES: usize = 512;

/// A message from a peer lacks a part that it must have.
fn missing(part: &'static str) -> Status {
    Status::invalid_argument(format!("a message without its {part}"))
}

pub(super) fn evaluated_to(ticket: u64, evaluated: Evaluated) -> pb::EvaluateResponse {
    let none = pb::EvaluateResponse {
        ticket,
        ..pb::EvaluateResponse::default()
    };
    match evaluated {
        Evaluated::Direct(reply, index, notes) => pb::EvaluateResponse {
            reply: reply.to_bytes(),
            index,
            notes,
            ..none
        },
        Evaluated::Proposed(notes) => pb::EvaluateResponse { notes, ..none },
        Evaluated::Busy(busy) => pb::EvaluateResponse { busy, ..none },
        Evaluated::Refused(why) => pb::EvaluateResponse { refused: why, ..none },
    }
}

#[cfg_attr(not(feature = "lua"), allow(dead_code, reason = "scripts use it"))]
pub(super) fn evaluated_from(answer: pb::EvaluateResponse) -> Result<Evaluated, Status> {
    if !answer.refused.is_empty() {
        return Ok(Evaluated::Refused(answer.refused));
    }
    if !answer.busy.is_empty() {
        return Ok(Evaluated::Busy(answer.busy));
    }
    if answer.reply.is_empty() {
        return Ok(Evaluated::Proposed(answer.notes));
    }
    let reply = Reply::from_bytes(&answer.reply).ok_or_else(|| missing("reply"))?;
    Ok(Evaluated::Direct(reply, answer.index, answer.notes))
}

#[cfg_attr(not(feature = "lua"), allow(dead_code, reason = "scripts use it"))]
pub(super) fn running_request_to(kill: Option<Kind>) -> pb::RunningRequest {
    use pb::running_request::Kill;
    let kill = match kill {
        None => Kill::Nothing,
        Some(Kind::Script) => Kill::Script,
        Some(Kind::Function) => Kill::Function,
    };
    pb::RunningRequest { kill: kill.into() }
}

pub(super) fn running_request_from(request: pb::RunningRequest) -> Option<Kind> {
    use pb::running_request::Kill;
    match request.kill() {
        Kill::Nothing => None,
        Kill::Script => Some(Kind::Script),
        Kill::Function => Some(Kind::Function),
    }
}

pub(super) fn running_to(running: Option<Running>) -> pb::RunningResponse {
    let Some(running) = running else {
        return pb::RunningResponse::default();
    };
    pb::RunningResponse {
        name: running.name,
        function: running.function,
        command: running.command,
        duration_ms: running.duration_ms,
        busy: running.busy,
        killed: running.killed,
    }
}

#[cfg_attr(not(feature = "lua"), allow(dead_code, reason = "scripts use it"))]
pub(super) fn running_from(answer: pb::RunningResponse) -> Option<Running> {
    (!answer.name.is_empty()).then_some(Running {
        name: answer.name,
        function: answer.function,
        command: answer.command,
        duration_ms: answer.duration_ms,
        busy: answer.busy,
        killed: answer.killed,
    })
}

pub(super) fn log_id_to(id: LogId) -> pb::LogId {
    pb::LogId {
        term: id.leader_id.term,
        node: id.leader_id.node_id,
        index: id.index,
    }
}

pub(super) fn log_id_from(id: pb::LogId) -> Result<LogId, Status> {
    let leader_id = LeaderId {
        term: counter(id.term)?,
        node_id: id.node,
    };
    Ok(LogId::new(leader_id, counter(id.index)?))
}

/// The place in the log that a message names, where it names one.
fn place_from(id: Option<pb::LogId>) -> Result<Option<LogId>, Status> {
    id.map(log_id_from).transpose()
}

/// A term or an index from a peer.
fn counter(counter: u64) -> Result<u64, Status> {
    let counted = (counter < COUNTER_MAX).then_some(counter);
    counted.ok_or_else(|| Status::invalid_argument("a term or index that no log comes to"))
}

pub(super) fn vote_to(vote: Vote) -> pb::VoteValue {
    pb::VoteValue {
        term: vote.leader_id.term,
        node: vote.leader_id.node_id,
        committed: vote.committed,
    }
}

pub(super) fn follows_to(follows: Follows) -> pb::FollowsResponse {
    pb::FollowsResponse {
        follows: follows.follows,
        // Rounded up: a word that is older than it looks would make a lease too long.
        heard_ago_ms: follows
            .heard_ago
            .map(|ago| u64::try_from(ago.as_millis()).map_or(u64::MAX, |ms| ms.saturating_add(1))),
    }
}

pub(super) fn follows_from(message: pb::FollowsResponse) -> Follows {
    Follows {
        follows: message.follows,
        heard_ago: message.heard_ago_ms.map(Duration::from_millis),
    }
}

pub(super) fn vote_from(vote: Option<pb::VoteValue>) -> Result<Vote, Status> {
    let vote = vote.ok_or_else(|| missing("vote"))?;
    let term = counter(vote.term)?;
    Ok(if vote.committed {
        Vote::new_committed(term, vote.node)
    } else {
        Vote::new(term, vote.node)
    })
}

/// The vote by which a leader leads: a majority has given it.
pub(super) fn leader_from(vote: Option<pb::VoteValue>) -> Result<Vote, Status> {
    let vote = vote_from(vote)?;
    let leads = vote.committed.then_some(vote);
    leads.ok_or_else(|| Status::invalid_argument("a leader for whom no majority has voted"))
}

/// Refuses the log of a leader that ends with an entry of one after it: Raft takes for granted that there is none.
pub(super) fn must_have_come_before(last: Option<LogId>, leader: Vote) -> Result<(), Status> {
    if last.is_none_or(|last| last.leader_id <= leader.leader_id) {
        return Ok(());
    }
    Err(Status::invalid_argument(
        "an entry of a leader after the one that sends it",
    ))
}

/// Refuses entries of which one does not stand right behind the one before, or that are of no leader up to the one that sends them: Raft takes that for granted,
/// and a log that refused them would take the disk for broken.
fn must_follow_one_by_one(request: &AppendEntriesRequest<Types>) -> Result<(), Status> {
    let mut before = request.prev_log_id;
    for LogId { leader_id, index } in request.entries.iter().map(|entry| entry.log_id) {
        let next = before.map_or(0, |before| before.index + 1);
        if index != next || before.is_some_and(|before| before.leader_id > leader_id) {
            return Err(Status::invalid_argument(format!(
                "entry {index} of term {} does not follow the one before it",
                leader_id.term
            )));
        }
        before = Some(LogId { leader_id, index });
    }
    must_have_come_before(before, request.vote)
}

pub(super) fn vote_request_to(request: VoteRequest<Types>, pre_vote: bool) -> pb::VoteRequest {
    pb::VoteRequest {
        vote: Some(vote_to(request.vote)),
        last_log: request.last_log_id.map(log_id_to),
        leadership_transfer: request.leadership_transfer,
        pre_vote,
    }
}

pub(super) fn vote_request_from(request: pb::VoteRequest) -> Result<VoteRequest<Types>, Status> {
    let vote = vote_from(request.vote)?;
    if vote.committed {
        // Whoever took it would follow a leader for whom nobody has voted.
        return Err(Status::invalid_argument("a candidate that says it is elected"));
    }
    let mut asked = VoteRequest::new(vote, place_from(request.last_log)?);
    asked.leadership_transfer = request.leadership_transfer;
    Ok(asked)
}

pub(super) fn vote_response_to(response: VoteResponse<Types>) -> pb::VoteResponse {
    pb::VoteResponse {
        vote: Some(vote_to(response.vote)),
        granted: response.vote_granted,
        last_log: response.last_log_id.map(log_id_to),
    }
}

pub(super) fn vote_response_from(response: pb::VoteResponse) -> Result<VoteResponse<Types>, Status> {
    Ok(VoteResponse::new(
        vote_from(response.vote)?,
        place_from(response.last_log)?,
        response.granted,
    ))
}

pub(super) fn append_request_to(request: AppendEntriesRequest<Types>) -> pb::AppendRequest {
    pb::AppendRequest {
        vote: Some(vote_to(request.vote)),
        prev_log: request.prev_log_id.map(log_id_to),
        leader_commit: request.leader_commit.map(log_id_to),
        entries: record::encode_entries(&request.entries),
    }
}

pub(super) fn append_request_from(request: pb::AppendRequest) -> Result<AppendEntriesRequest<Types>, Status> {
    let entries = record::decode_entries(request.entries)
        .map_err(|damage| Status::invalid_argument(format!("an entry: {damage}")))?;
    let request = AppendEntriesRequest {
        vote: leader_from(request.vote)?,
        prev_log_id: place_from(request.prev_log)?,
        leader_commit: place_from(request.leader_commit)?,
        entries,
    };
    must_follow_one_by_one(&request)?;
    Ok(request)
}

pub(super) fn append_result_to(result: StreamAppendResult<Types>) -> pb::AppendResponse {
    use pb::append_response::Result as Answer;
    let result = match result {
        Ok(matched) => Answer::Matched(pb::Matched {
            log: matched.map(log_id_to),
        }),
        Err(StreamAppendError::Conflict(at)) => Answer::Conflict(log_id_to(at)),
        Err(StreamAppendError::HigherVote(vote)) => Answer::HigherVote(vote_to(vote)),
    };
    pb::AppendResponse { result: Some(result) }
}

pub(super) fn append_result_from(response: pb::AppendResponse) -> Result<StreamAppendResult<Types>, Status> {
    use pb::append_response::Result as Answer;
    Ok(match response.result.ok_or_else(|| missing("result"))? {
        Answer::Matched(matched) => Ok(place_from(matched.log)?),
        Answer::Conflict(at) => Err(StreamAppendError::Conflict(log_id_from(at)?)),
        Answer::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote_from(Some(vote))?)),
    })
}

pub(super) fn transfer_to(request: &TransferLeaderRequest<Types>) -> pb::TransferLeaderRequest {
    pb::TransferLeaderRequest {
        from_leader: Some(vote_to(*request.from_leader())),
        to: *request.to_node_id(),
        last_log: request.last_log_id().copied().map(log_id_to),
    }
}

pub(super) fn transfer_from(
    request: pb::TransferLeaderRequest,
) -> Result<TransferLeaderRequest<Types>, Status> {
    Ok(TransferLeaderRequest::new(
        vote_from(request.from_leader)?,
        request.to,
        place_from(request.last_log)?,
    ))
}

pub(super) fn member_to(id: u64, member: &Member) -> pb::FoundingMember {
    pb::FoundingMember {
        node: id,
        raft_addr: member.raft_addr.clone(),
        resp_addr: member.resp_addr.clone(),
    }
}

pub(super) fn member_from(member: pb::FoundingMember) -> Result<(u64, Member), Status> {
    let node = member.node;
    Ok((node, addresses_from(member.raft_addr, member.resp_addr)?))
}

/// Where a member says that it is.
pub(super) fn addresses_from(raft_addr: String, resp_addr: String) -> Result<Member, Status> {
    for address in [&raft_addr, &resp_addr] {
        if address.len() > ADDRESS_BYTES {
            return Err(Status::invalid_argument(format!(
                "an address of {} bytes (limit {ADDRESS_BYTES})",
                address.len()
            )));
        }
    }
    Ok(Member { raft_addr, resp_addr })
}

pub(super) fn used_keys_to(keys: Vec<(u8, Bytes)>) -> pb::LastUseRequest {
    let keys = keys.into_iter().map(|(db, key)| pb::UsedKey {
        database: db.into(),
        key,
    });
    pb::LastUseRequest { keys: keys.collect() }
}

/// The keys asked for; an unknown database is refused.
pub(super) fn used_keys_from(request: pb::LastUseRequest) -> Result<Vec<(u8, Bytes)>, Status> {
    let key = |asked: pb::UsedKey| {
        let db = u8::try_from(asked.database).ok();
        let db = db.filter(|db| usize::from(*db) < DATABASES);
        Ok((
            db.ok_or_else(|| Status::invalid_argument("no such database"))?,
            asked.key,
        ))
    };
    request.keys.into_iter().map(key).collect()
}

pub(super) fn uses_to(uses: &[Option<Use>]) -> pb::LastUseResponse {
    let idle_ms = uses.iter().map(|used| used.map_or(u64::MAX, |used| used.idle_ms));
    let frequency = uses.iter().map(|used| used.map_or(0, |used| used.frequency));
    pb::LastUseResponse {
        idle_ms: idle_ms.collect(),
        frequency: frequency.collect(),
    }
}

/// As many as both lists hold.
pub(super) fn uses_from(response: &pb::LastUseResponse) -> Vec<Option<Use>> {
    let pairs = response.idle_ms.iter().zip(&response.frequency);
    let used = |(idle_ms, frequency): (&u64, &u8)| {
        (*idle_ms != u64::MAX).then_some(Use {
            idle_ms: *idle_ms,
            frequency: *frequency,
        })
    };
    pairs.map(used).collect()
}

/// A message's bytes as they are written again once it has become one of our types; none where it is refused. For `fuzz/`.
pub(super) fn again(name: &str, bytes: Bytes) -> Option<Vec<u8>> {
    fn read<M: Message + Default>(bytes: Bytes) -> Option<M> {
        M::decode(bytes).ok()
    }
    Some(match name {
        "VoteRequest" => {
            let request: pb::VoteRequest = read(bytes)?;
            let pre_vote = request.pre_vote;
            vote_request_to(vote_request_from(request).ok()?, pre_vote).encode_to_vec()
        }
        "VoteResponse" => vote_response_to(vote_response_from(read(bytes)?).ok()?).encode_to_vec(),
        "AppendRequest" => append_request_to(append_request_from(read(bytes)?).ok()?).encode_to_vec(),
        "AppendResponse" => append_result_to(append_result_from(read(bytes)?).ok()?).encode_to_vec(),
        "TransferLeaderRequest" => transfer_to(&transfer_from(read(bytes)?).ok()?).encode_to_vec(),
        "EvaluateResponse" => {
            let response: pb::EvaluateResponse = read(bytes)?;
            evaluated_to(response.ticket, evaluated_from(response).ok()?).encode_to_vec()
        }
        "RunningRequest" => running_request_to(running_request_from(read(bytes)?)).encode_to_vec(),
        "RunningResponse" => running_to(running_from(read(bytes)?)).encode_to_vec(),
        "FollowsRequest" => {
            let vote = vote_from(read::<pb::FollowsRequest>(bytes)?.vote).ok()?;
            pb::FollowsRequest {
                vote: Some(vote_to(vote)),
            }
            .encode_to_vec()
        }
        "LastUseRequest" => used_keys_to(used_keys_from(read(bytes)?).ok()?).encode_to_vec(),
        "LastUseResponse" => uses_to(&uses_from(&read(bytes)?)).encode_to_vec(),
        "FoundingMember" => {
            let (id, member) = member_from(read(bytes)?).ok()?;
            member_to(id, &member).encode_to_vec()
        }
        // What goes on as it is.
        "SnapshotChunk" => read::<pb::SnapshotChunk>(bytes)?.encode_to_vec(),
        "ForwardRequest" => read::<pb::ForwardRequest>(bytes)?.encode_to_vec(),
        "EvaluateRequest" => read::<pb::EvaluateRequest>(bytes)?.encode_to_vec(),
        "HelloRequest" => read::<pb::HelloRequest>(bytes)?.encode_to_vec(),
        "HelloResponse" => read::<pb::HelloResponse>(bytes)?.encode_to_vec(),
        "PromiseRequest" => read::<pb::PromiseRequest>(bytes)?.encode_to_vec(),
        "ChangeMemberRequest" => read::<pb::ChangeMemberRequest>(bytes)?.encode_to_vec(),
        "StatusResponse" => read::<pb::StatusResponse>(bytes)?.encode_to_vec(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::Entry;
    use crate::raft::log::record;
    use bytes::{BufMut, BytesMut};
    use openraft::EntryPayload;

    #[test]
    fn a_word_never_looks_younger_than_it_is() {
        for us in [0, 1, 999, 1_000, 1_001, 250_400] {
            let ago = Duration::from_micros(us);
            let said = Follows {
                follows: true,
                heard_ago: Some(ago),
            };
            let heard = follows_from(follows_to(said)).heard_ago.unwrap();
            assert!(
                heard > ago && heard <= ago + Duration::from_millis(1),
                "{ago:?} as {heard:?}"
            );
        }
        let never = follows_from(follows_to(Follows {
            follows: false,
            heard_ago: None,
        }));
        assert!(!never.follows && never.heard_ago.is_none());
    }

    #[test]
    fn entries_that_raft_would_not_expect_are_refused() {
        let id = |term: u64, index| LogId::new(LeaderId { term, node_id: 7 }, index);
        let request = |committed, prev: Option<LogId>, entries: &[LogId]| {
            let blank = |log_id: &LogId| Entry {
                log_id: *log_id,
                payload: EntryPayload::Blank,
            };
            let entries: Vec<Entry> = entries.iter().map(blank).collect();
            append_request_from(pb::AppendRequest {
                vote: Some(pb::VoteValue {
                    committed,
                    ..vote_to(Vote::new(4, 7))
                }),
                prev_log: prev.map(log_id_to),
                leader_commit: None,
                entries: record::encode_entries(&entries),
            })
        };
        let good: [(_, &[_]); 4] = [
            (None, &[]),
            (None, &[id(0, 0), id(1, 1)]),
            (Some(id(2, 9)), &[]),
            (Some(id(2, 9)), &[id(2, 10), id(4, 11)]),
        ];
        for (prev, entries) in good {
            assert!(request(true, prev, entries).is_ok(), "{prev:?} {entries:?}");
            let refused = request(false, prev, entries).unwrap_err();
            assert!(refused.message().contains("no majority"), "{refused}");
        }
        let bad: [(_, &[_]); 7] = [
            (None, &[id(1, 1)]),
            (Some(id(2, 9)), &[id(2, 11)]),
            (Some(id(2, 9)), &[id(2, 9)]),
            (Some(id(2, 9)), &[id(2, 10), id(2, 12)]),
            (Some(id(2, 9)), &[id(1, 10)]),
            (Some(id(2, 9)), &[id(5, 10)]),
            (Some(id(5, 9)), &[]),
        ];
        for (prev, entries) in bad {
            let refused = request(true, prev, entries).unwrap_err();
            assert_eq!(
                refused.code(),
                tonic::Code::InvalidArgument,
                "{prev:?} {entries:?}"
            );
        }
    }

    #[test]
    fn a_candidate_does_not_say_that_it_is_elected() {
        let request = |vote| vote_request_from(vote_request_to(VoteRequest::new(vote, None), false));
        assert!(request(Vote::new(4, 7)).is_ok());
        let refused = request(Vote::new_committed(4, 7)).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    }

    #[test]
    fn an_address_that_no_name_needs_is_refused() {
        let member = |raft: usize, resp: usize| {
            member_from(member_to(
                7,
                &Member {
                    raft_addr: "a".repeat(raft),
                    resp_addr: "a".repeat(resp),
                },
            ))
        };
        assert!(member(ADDRESS_BYTES, ADDRESS_BYTES).is_ok() && member(9, 0).is_ok());
        for (raft, resp) in [(ADDRESS_BYTES + 1, 0), (9, ADDRESS_BYTES + 1)] {
            let refused = member(raft, resp).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
        }
    }

    #[test]
    fn an_entry_of_a_later_version_is_refused_with_advice() {
        let log_id = log_id_from(pb::LogId::default()).unwrap();
        let blank = Entry {
            log_id,
            payload: EntryPayload::Blank,
        };
        let mut entries = BytesMut::from(&record::encode_entries(&[blank])[..]);
        let request = |entries: &BytesMut| {
            append_request_from(pb::AppendRequest {
                vote: Some(vote_to(Vote::new_committed(0, 0))),
                entries: entries.clone().freeze(),
                ..pb::AppendRequest::default()
            })
        };
        assert!(request(&entries).is_ok());
        // Length and checksum, then the version.
        entries[8] += 1;
        let checksum = crc32fast::hash(&entries[8..]);
        (&mut entries[4..8]).put_u32_le(checksum);
        let refused = request(&entries).unwrap_err();
        assert!(
            refused
                .message()
                .contains("it has format 2, this program reads 1: run a newer one"),
            "{refused}"
        );
    }
}
