//! `PLENARY`: the cluster, for operators and for applications that carry a token from node to node.
//!
//! | command | answer |
//! |---|---|
//! | `PLENARY STATUS` | JSON of [`Status`](crate::node::status::Status), every member asked for its own |
//! | `PLENARY DIGEST` | an array: a log index, and the digest of this node's state at it in hexadecimal |
//! | `PLENARY TOKEN` | an integer: how far this connection has seen |
//! | `PLENARY WAITFOR token [milliseconds]` | the token of this node once it has applied so far; `TRYAGAIN` when it takes longer |
//! | `PLENARY FRESH local\|linearizable` | `OK`; how fresh reads of this connection are from now on |
//! | `PLENARY MEMBERS LIST` | an array of maps `id`, `raft`, `resp`, `voter` |
//! | `PLENARY MEMBERS ADD host:port` | an integer: the id of the new learner |
//! | `PLENARY MEMBERS PROMOTE id`, `REMOVE id` | `OK` |

use super::connection::Caller;
use super::local::{Answer, Waiting, help_of, quoted, refusal};
use super::trouble;
use crate::machine::args::{Args, integer};
use crate::machine::reply::{CommandError, Reply};
use crate::node::status::MemberStatus;
use crate::node::{Freshness, Token};
use std::time::Duration;
use tokio::time::timeout;

pub(super) fn status<'a>(caller: &'a mut Caller, _: Args<'a>) -> Waiting<'a> {
    Box::pin(async move {
        let status = caller.shared.node.cluster_status().await;
        let json = serde_json::to_vec(&status).map_err(|error| refusal(format!("ERR status: {error}")))?;
        Ok(Reply::Bulk(json.into()))
    })
}

pub(super) fn digest<'a>(caller: &'a mut Caller, _: Args<'a>) -> Waiting<'a> {
    Box::pin(async move {
        let (index, digest) = caller.shared.node.digest().await;
        Ok(Reply::Array(vec![
            index_reply(index),
            Reply::bulk(format!("{digest:032x}")),
        ]))
    })
}

/// After writes alone it is the token of the last; after a read it is what this node has applied, which is all a read can have seen.
pub(super) fn token<'a>(caller: &'a mut Caller, _: Args<'a>) -> Waiting<'a> {
    Box::pin(async move {
        if caller.read {
            let applied = caller
                .shared
                .node
                .fresh(Freshness::Local)
                .await
                .map_err(trouble)?;
            caller.seen = caller.seen.max(applied);
            caller.read = false;
        }
        Ok(index_reply(caller.seen.0))
    })
}

/// `WAITFOR token [milliseconds]`; without a time it waits as long as the node waits for a write.
pub(super) fn waitfor<'a>(caller: &'a mut Caller, mut args: Args<'a>) -> Waiting<'a> {
    Box::pin(async move {
        let token = Token(natural(args.bytes()?)?);
        let patience = args
            .peek()
            .map(|argument| natural(argument))
            .transpose()?
            .map(Duration::from_millis);
        let fresh = caller.shared.node.fresh(Freshness::AtLeast(token));
        let applied = match patience {
            None => fresh.await,
            Some(patience) => timeout(patience, fresh)
                .await
                .map_err(|_| late(token, patience))?,
        };
        let applied = applied.map_err(trouble)?;
        caller.seen = caller.seen.max(token);
        Ok(index_reply(applied.0))
    })
}

fn late(token: Token, patience: Duration) -> CommandError {
    let waited = patience.as_millis();
    refusal(format!(
        "TRYAGAIN this node has not applied index {} after {waited} ms. Ask again, or ask another node",
        token.0
    ))
}

/// `FRESH local|linearizable`.
pub(super) fn fresh(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    caller.freshness = match args.bytes()?.to_ascii_lowercase().as_slice() {
        b"local" => Freshness::Local,
        b"linearizable" => Freshness::Linearizable,
        _ => return Err(CommandError::text("ERR freshness is 'local' or 'linearizable'")),
    };
    Ok(Reply::OK)
}

/// `MEMBERS LIST|ADD host:port|PROMOTE id|REMOVE id`.
pub(super) fn members<'a>(caller: &'a mut Caller, mut args: Args<'a>) -> Waiting<'a> {
    const WRONG: CommandError =
        CommandError::text("ERR say PLENARY MEMBERS LIST, ADD host:port, PROMOTE id or REMOVE id");
    Box::pin(async move {
        let node = &caller.shared.node;
        let action = args.bytes()?.to_ascii_lowercase();
        let argument = args.rest();
        match (action.as_slice(), argument) {
            (b"list", []) => Ok(Reply::Array(node.status().members.iter().map(member).collect())),
            (b"add", [address]) => node
                .add_member(&quoted(address))
                .await
                .map(index_reply)
                .map_err(trouble),
            (b"promote", [id]) => node
                .promote_member(natural(id)?)
                .await
                .map(|()| Reply::OK)
                .map_err(trouble),
            (b"remove", [id]) => node
                .remove_member(natural(id)?)
                .await
                .map(|()| Reply::OK)
                .map_err(trouble),
            _ => Err(WRONG),
        }
    })
}

/// Ids are drawn over 64 bits, more than an integer of RESP holds: they travel as text.
fn member(member: &MemberStatus) -> Reply {
    let pairs = [
        ("id", Reply::bulk(member.id.to_string())),
        ("raft", Reply::bulk(&member.raft_addr)),
        ("resp", Reply::bulk(&member.resp_addr)),
        ("voter", Reply::Boolean(member.voter)),
    ];
    Reply::Map(
        pairs
            .into_iter()
            .map(|(name, value)| (Reply::bulk(name), value))
            .collect(),
    )
}

fn index_reply(index: u64) -> Reply {
    i64::try_from(index).map_or_else(|_| Reply::bulk(index.to_string()), Reply::Integer)
}

/// A number of 64 bits without a sign: ids and tokens.
fn natural(argument: &[u8]) -> Result<u64, CommandError> {
    let plain = !argument.starts_with(b"+");
    let parsed = std::str::from_utf8(argument)
        .ok()
        .filter(|_| plain)
        .and_then(|text| text.parse().ok());
    parsed
        .or_else(|| integer(argument).and_then(|number| u64::try_from(number).ok()))
        .ok_or(CommandError::NotAnInteger)
}

pub(super) fn help(_: &mut Caller, _: &mut Args<'_>) -> Answer {
    Ok(help_of(
        "PLENARY",
        &[
            "COMPAT",
            "    Return what clients sent and this endpoint does not know.",
            "DIGEST",
            "    Return a log index and the digest of this node's state at it.",
            "FRESH (LOCAL|LINEARIZABLE)",
            "    How fresh reads of the current connection are from now on.",
            "KEYS SHOW",
            "    Return the access keys: fingerprint, since when, last use on this node.",
            "KEYS ROTATE (PRIMARY|SECONDARY) [<key>]",
            "    Set a new key, drawn if none is given, and return it.",
            "KEYS REMOVE SECONDARY",
            "    Take the secondary key away.",
            "MEMBERS LIST",
            "    Return the members this node knows.",
            "MEMBERS ADD <host:port>",
            "    Add the node that listens for peers there, as a learner. Return its id.",
            "MEMBERS PROMOTE <id>",
            "    Make a learner that has caught up a voter.",
            "MEMBERS REMOVE <id>",
            "    Take a member out. Its id never comes back.",
            "STATUS",
            "    Return what this node knows of itself and of every member, as JSON.",
            "TOKEN",
            "    Return how far the current connection has seen.",
            "WAITFOR <token> [<milliseconds>]",
            "    Wait until this node has applied what the token has seen.",
        ],
    ))
}
