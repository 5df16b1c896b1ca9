//! `PLENARY KEYS`: the cluster's two access keys. Clients change from one to the other while both are right.
//!
//! | command | answer |
//! |---|---|
//! | `PLENARY KEYS SHOW` | an array of maps: `key`, `fingerprint` (of SHA-256), `since` and `used` in milliseconds of the log's clock |
//! | `PLENARY KEYS ROTATE primary\|secondary [key]` | the new key; without one given, one is drawn. The old one is wrong from then on, on every node |
//! | `PLENARY KEYS REMOVE secondary` | `OK` |

use super::connection::Caller;
use super::local::{Answer, Waiting, refusal};
use super::trouble;
use crate::machine::access::{Which, hash, hexadecimal};
use crate::machine::args::Args;
use crate::machine::reply::{CommandError, Reply};
use bytes::Bytes;

/// Random bytes of a key that is drawn here.
const DRAWN_BYTES: usize = 32;

/// Hexadecimal digits of a fingerprint: enough to tell keys apart, too few to look one up.
const FINGERPRINT_DIGITS: usize = 12;

/// The fewest bytes of a key that is given.
const KEY_BYTES_MIN: usize = 16;

pub(super) fn keys<'a>(caller: &'a mut Caller, mut args: Args<'a>) -> Waiting<'a> {
    const WRONG: CommandError =
        CommandError::text("ERR say PLENARY KEYS SHOW, ROTATE primary|secondary [key] or REMOVE secondary");
    Box::pin(async move {
        let action = args.bytes()?.to_ascii_lowercase();
        match (action.as_slice(), args.rest()) {
            (b"show", []) => show(caller),
            (b"rotate", [which]) => {
                let key = drawn()?;
                set(
                    caller,
                    Which::from_name(which).ok_or(WRONG)?,
                    Some(key.as_bytes()),
                )
                .await?;
                Ok(Reply::bulk(key))
            }
            (b"rotate", [which, key]) => {
                let which = Which::from_name(which).ok_or(WRONG)?;
                if key.len() < KEY_BYTES_MIN {
                    return Err(refusal(format!("ERR a key has {KEY_BYTES_MIN} bytes or more")));
                }
                set(caller, which, Some(key)).await?;
                Ok(Reply::Bulk(Bytes::clone(key)))
            }
            (b"remove", [which]) if Which::from_name(which) == Some(Which::Secondary) => {
                set(caller, Which::Secondary, None).await?;
                Ok(Reply::OK)
            }
            _ => Err(WRONG),
        }
    })
}

fn drawn() -> Result<String, CommandError> {
    let mut random = [0; DRAWN_BYTES];
    getrandom::fill(&mut random).map_err(|error| refusal(format!("ERR no random numbers: {error}")))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

async fn set(caller: &mut Caller, which: Which, key: Option<&[u8]>) -> Result<(), CommandError> {
    let token = caller
        .shared
        .node
        .set_access_key(which, key.map(hash))
        .await
        .map_err(trouble)?;
    caller.seen = caller.seen.max(token);
    Ok(())
}

fn show(caller: &Caller) -> Answer {
    let shared = &caller.shared;
    let access = shared.node.access();
    let millis = |at: Option<u64>| {
        at.map_or(Reply::Nil, |at| {
            Reply::Integer(i64::try_from(at).unwrap_or(i64::MAX))
        })
    };
    let shown = Which::BOTH
        .into_iter()
        .zip(shared.access.keys(&access))
        .map(|(which, key)| {
            let fingerprint = key.map(|key| hexadecimal(&key)[..FINGERPRINT_DIGITS].to_owned());
            let pairs = [
                ("key", Reply::bulk(which.name())),
                ("fingerprint", fingerprint.map_or(Reply::Nil, Reply::bulk)),
                ("since", millis(access.key(which).map(|key| key.since))),
                ("used", millis(shared.access.used(which))),
            ];
            Reply::Map(
                pairs
                    .into_iter()
                    .map(|(name, value)| (Reply::bulk(name), value))
                    .collect(),
            )
        });
    Ok(Reply::Array(shown.collect()))
}
