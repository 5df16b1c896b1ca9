//! `CLIENT`: what a connection is called, and who else is there.
//! Those of tracking stand in `tracking.rs`, those of waiting in `blocking.rs`.

use super::clients::Client;
use super::connection::{Answers, Caller};
use super::local::{Answer, help_of, quoted, refusal};
use crate::machine::access::Access;
use crate::machine::args::{Args, integer};
use crate::machine::reply::{CommandError, Reply};
use bytes::Bytes;
use std::sync::Arc;

pub(super) fn id(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    Ok(Reply::Integer(
        i64::try_from(caller.client.id).expect("nobody connects 2^63 times"),
    ))
}

pub(super) fn getname(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    let shown = caller.client.shown.lock();
    Ok(if shown.name.is_empty() {
        Reply::Nil
    } else {
        Reply::bulk(&shown.name)
    })
}

pub(super) fn setname(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    name(caller, args.bytes()?).map(|()| Reply::OK)
}

/// Bytes of a client's name, and of what its library is called.
const MAX_NAME_BYTES: usize = 64 << 10;

const TOO_LONG: CommandError = CommandError::text("ERR Client names cannot be longer than 65536 bytes.");

/// Names a connection; an empty name takes the name away.
///
/// # Errors
/// When the name would break the lines of `CLIENT LIST`, or is too long.
pub(super) fn name(caller: &mut Caller, name: &[u8]) -> Result<(), CommandError> {
    const REFUSED: CommandError =
        CommandError::text("ERR Client names cannot contain spaces, newlines or special characters.");
    if name.len() > MAX_NAME_BYTES {
        return Err(TOO_LONG);
    }
    caller.client.shown.lock().name = printable(name).ok_or(REFUSED)?;
    Ok(())
}

/// `CLIENT SETINFO LIB-NAME|LIB-VER value`.
pub(super) fn setinfo(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    let (attribute, value) = (args.bytes()?, args.bytes()?);
    if value.len() > MAX_NAME_BYTES {
        return Err(TOO_LONG);
    }
    let mut shown = caller.client.shown.lock();
    let (name, place) = match attribute.to_ascii_lowercase().as_slice() {
        b"lib-name" => ("lib-name", &mut shown.library),
        b"lib-ver" => ("lib-ver", &mut shown.library_version),
        _ => {
            return Err(refusal(format!(
                "ERR Unrecognized option '{}'",
                quoted(attribute)
            )));
        }
    };
    let refused = || {
        refusal(format!(
            "ERR {name} cannot contain spaces, newlines or special characters."
        ))
    };
    *place = printable(value).ok_or_else(refused)?;
    Ok(Reply::OK)
}

fn printable(text: &[u8]) -> Option<String> {
    text.iter()
        .all(u8::is_ascii_graphic)
        .then(|| quoted(text).into_owned())
}

pub(super) fn info(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    Ok(Reply::Verbatim(Bytes::from(caller.client.line() + "\n")))
}

/// `CLIENT LIST [TYPE type | ID id ...]`.
pub(super) fn list(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    let mut clients = caller.shared.clients.all();
    if args.remaining() == 2 && args.keyword("TYPE") {
        let kind = kind(args.bytes()?)?;
        clients.retain(|client| kind.fits(client));
    } else if args.remaining() >= 2 && args.keyword("ID") {
        let ids: Option<Vec<i64>> = args.rest().iter().map(|id| integer(id)).collect();
        let ids = ids.ok_or(CommandError::text("ERR Invalid client ID"))?;
        let named = |id: i64| caller.shared.clients.get(u64::try_from(id).ok()?);
        clients = ids.into_iter().filter_map(named).collect();
    }
    args.end()?;
    // One may be named over and over: what is more than may wait cuts off who asked, and need not be whole for that.
    let (mut lines, most) = (String::new(), caller.shared.config.max_output_bytes);
    for client in clients {
        if lines.len() > most {
            break;
        }
        lines += &client.line();
        lines.push('\n');
    }
    Ok(Reply::Verbatim(Bytes::from(lines)))
}

/// Redis' kinds of clients.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    /// Who is subscribed to something.
    Subscriber,
    /// Nodes do not come to each other as clients.
    Node,
}

impl Kind {
    fn fits(self, client: &Client) -> bool {
        match self {
            Self::Normal => !client.subscribes(),
            Self::Subscriber => client.subscribes(),
            Self::Node => false,
        }
    }
}

fn kind(name: &[u8]) -> Result<Kind, CommandError> {
    match name.to_ascii_lowercase().as_slice() {
        b"normal" => Ok(Kind::Normal),
        b"pubsub" => Ok(Kind::Subscriber),
        b"slave" | b"replica" | b"master" => Ok(Kind::Node),
        _ => Err(refusal(format!("ERR Unknown client type '{}'", quoted(name)))),
    }
}

/// `CLIENT KILL ip:port`, or `CLIENT KILL` with filters that must all fit.
pub(super) fn kill(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    if args.remaining() == 1 {
        let address = quoted(args.bytes()?);
        let clients = caller.shared.clients.all();
        let found = clients.iter().find(|client| client.peer.to_string() == address);
        end(caller, found.ok_or(CommandError::text("ERR No such client"))?);
        return Ok(Reply::OK);
    }
    let filter = Filter::read(args, &caller.shared.node.access())?;
    let own = caller.client.id;
    let mut clients = caller.shared.clients.all();
    clients.retain(|client| filter.fits(client) && !(filter.skip_me && client.id == own));
    for client in &clients {
        end(caller, client);
    }
    Ok(Reply::count(clients.len()))
}

/// Ends a connection; one's own after this reply.
fn end(caller: &mut Caller, client: &Arc<Client>) {
    if client.id == caller.client.id {
        caller.closing = true;
    } else {
        client.end();
    }
}

/// Which connections to end.
struct Filter {
    id: Option<u64>,
    peer: Option<String>,
    local: Option<String>,
    kind: Option<Kind>,
    user: Option<Bytes>,
    /// Seconds it must have been connected.
    least_age: u64,
    skip_me: bool,
}

impl Filter {
    fn read(args: &mut Args<'_>, access: &Access) -> Result<Self, CommandError> {
        const BAD_ID: CommandError = CommandError::text("ERR client-id should be greater than 0");
        let mut filter = Self {
            id: None,
            peer: None,
            local: None,
            kind: None,
            user: None,
            least_age: 0,
            skip_me: true,
        };
        while !args.is_empty() {
            if args.remaining() < 2 {
                return Err(CommandError::Syntax);
            }
            let option = args.bytes()?.to_ascii_lowercase();
            let value = args.bytes()?;
            match option.as_slice() {
                b"id" => {
                    filter.id = Some(
                        integer(value)
                            .and_then(|id| u64::try_from(id).ok())
                            .filter(|id| *id > 0)
                            .ok_or(BAD_ID)?,
                    )
                }
                b"addr" => filter.peer = Some(quoted(value).into_owned()),
                b"laddr" => filter.local = Some(quoted(value).into_owned()),
                b"type" => filter.kind = Some(kind(value)?),
                b"user" if access.user(value).is_some() => filter.user = Some(value.clone()),
                b"user" => return Err(refusal(format!("ERR No such user '{}'", quoted(value)))),
                b"maxage" => {
                    const BAD_AGE: CommandError =
                        CommandError::text("ERR maxage is not an integer or out of range");
                    const NO_AGE: CommandError = CommandError::text("ERR maxage should be greater than 0");
                    let age = integer(value).ok_or(BAD_AGE)?;
                    filter.least_age = u64::try_from(age).ok().filter(|age| *age > 0).ok_or(NO_AGE)?;
                }
                b"skipme" => filter.skip_me = yes_or_no(value)?,
                _ => return Err(CommandError::Syntax),
            }
        }
        Ok(filter)
    }

    fn fits(&self, client: &Client) -> bool {
        self.kind.is_none_or(|kind| kind.fits(client))
            && self.id.is_none_or(|id| id == client.id)
            && self
                .peer
                .as_ref()
                .is_none_or(|peer| *peer == client.peer.to_string())
            && self
                .local
                .as_ref()
                .is_none_or(|local| *local == client.local.to_string())
            && self.least_age <= client.age_seconds()
            && self
                .user
                .as_ref()
                .is_none_or(|user| *user == client.shown.lock().user)
    }
}

fn yes_or_no(value: &[u8]) -> Result<bool, CommandError> {
    match value.to_ascii_lowercase().as_slice() {
        b"yes" => Ok(true),
        b"no" => Ok(false),
        _ => Err(CommandError::Syntax),
    }
}

fn on_or_off(value: &[u8]) -> Result<bool, CommandError> {
    match value.to_ascii_lowercase().as_slice() {
        b"on" => Ok(true),
        b"off" => Ok(false),
        _ => Err(CommandError::Syntax),
    }
}

/// Accepted and shown: clients are never evicted for memory here.
pub(super) fn no_evict(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    caller.client.shown.lock().no_evict = on_or_off(args.bytes()?)?;
    Ok(Reply::OK)
}

/// Whether its reads are no use of the keys.
pub(super) fn no_touch(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    caller.quiet = on_or_off(args.bytes()?)?;
    caller.client.shown.lock().no_touch = caller.quiet;
    Ok(Reply::OK)
}

/// `CLIENT REPLY ON|OFF|SKIP`: `ON` is answered, the others are not. `SKIP` under `OFF` changes nothing.
pub(super) fn reply(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    let mode = args.bytes()?.to_ascii_lowercase();
    caller.answers = match (mode.as_slice(), caller.answers) {
        (b"on", _) => Answers::On,
        (b"off", _) | (b"skip", Answers::Off) => Answers::Off,
        (b"skip", _) => Answers::SkipThisAndNext,
        _ => return Err(CommandError::Syntax),
    };
    Ok(Reply::OK)
}

pub(super) fn help(_: &mut Caller, _: &mut Args<'_>) -> Answer {
    Ok(help_of(
        "CLIENT",
        &[
            "CACHING (YES|NO)",
            "    Enable/disable tracking of the keys for next command in OPTIN/OPTOUT modes.",
            "GETREDIR",
            "    Return the client ID we are redirecting to when tracking is enabled.",
            "GETNAME",
            "    Return the name of the current connection.",
            "ID",
            "    Return the ID of the current connection.",
            "INFO",
            "    Return information about the current client connection.",
            "KILL <ip:port>",
            "    Kill connection made from <ip:port>.",
            "KILL <option> <value> [<option> <value> [...]]",
            "    Kill connections. Options are:",
            "    * ADDR (<ip:port>|<unixsocket>:0)",
            "      Kill connections made from the specified address",
            "    * LADDR (<ip:port>|<unixsocket>:0)",
            "      Kill connections made to specified local address",
            "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
            "      Kill connections by type.",
            "    * USER <username>",
            "      Kill connections authenticated by <username>.",
            "    * MAXAGE <maxage>",
            "      Kill connections older than the specified age.",
            "    * SKIPME (YES|NO)",
            "      Skip killing current connection (default: yes).",
            "LIST [options ...]",
            "    Return information about client connections. Options:",
            "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
            "      Return clients of specified type.",
            "    * ID <id> [<id> ...]",
            "      Return clients of the specified IDs.",
            "UNPAUSE",
            "    Stop the current client pause, resuming traffic.",
            "PAUSE <timeout> [WRITE|ALL]",
            "    Suspend all, or just write, clients for <timeout> milliseconds.",
            "REPLY (ON|OFF|SKIP)",
            "    Control the replies sent to the current connection.",
            "SETINFO (LIB-NAME|LIB-VER) <value>",
            "    Name the client library and its version.",
            "SETNAME <name>",
            "    Assign the name <name> to the current connection.",
            "UNBLOCK <clientid> [TIMEOUT|ERROR]",
            "    Unblock the specified blocked client.",
            "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]]",
            "         [OPTIN] [OPTOUT] [NOLOOP]",
            "    Control server assisted client side caching.",
            "TRACKINGINFO",
            "    Report tracking status for the current connection.",
            "NO-EVICT (ON|OFF)",
            "    Protect current client connection from eviction.",
            "NO-TOUCH (ON|OFF)",
            "    Will not touch LRU/LFU stats when this mode is on.",
        ],
    ))
}
