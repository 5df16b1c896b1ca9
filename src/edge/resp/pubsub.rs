//! `SUBSCRIBE` and its kin, and `PUBSUB`: what concerns the subscriptions of this node's clients.
//!
//! `PUBLISH` and `SPUBLISH` are writes: they go through the log, so all nodes tell the same messages in the same order. What they
//! answer is the number of receivers on the node that was asked.

use super::acl_log::Context;
use super::clients::Client;
use super::connection::Caller;
use super::encode::{self, Protocol, encode};
use super::hub::{Hub, Kind};
use super::local::{Answer, help_of, subcommand_syntax};
use crate::machine::args::Args;
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{self, Spec};
use bytes::{Bytes, BytesMut};

/// What a command comes to that answers by messages.
type Told = Result<(), CommandError>;

pub(super) fn subscribe(caller: &mut Caller, args: &mut Args<'_>, out: &mut BytesMut) -> Told {
    enter(caller, args, out, Kind::Channel, "subscribe")
}

pub(super) fn psubscribe(caller: &mut Caller, args: &mut Args<'_>, out: &mut BytesMut) -> Told {
    enter(caller, args, out, Kind::Pattern, "psubscribe")
}

pub(super) fn ssubscribe(caller: &mut Caller, args: &mut Args<'_>, out: &mut BytesMut) -> Told {
    const REFUSED: CommandError =
        CommandError::text("ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client");
    if caller.executing {
        return Err(REFUSED);
    }
    enter(caller, args, out, Kind::Shard, "ssubscribe")
}

pub(super) fn unsubscribe(caller: &mut Caller, args: &mut Args<'_>, out: &mut BytesMut) -> Told {
    leave(caller, args, out, Kind::Channel, "unsubscribe")
}

pub(super) fn punsubscribe(caller: &mut Caller, args: &mut Args<'_>, out: &mut BytesMut) -> Told {
    leave(caller, args, out, Kind::Pattern, "punsubscribe")
}

pub(super) fn sunsubscribe(caller: &mut Caller, args: &mut Args<'_>, out: &mut BytesMut) -> Told {
    leave(caller, args, out, Kind::Shard, "sunsubscribe")
}

/// Subscribes. A message may come from then on, but is taken out of the outbox only after what is written here.
fn enter(caller: &mut Caller, args: &mut Args<'_>, out: &mut BytesMut, kind: Kind, word: &str) -> Told {
    const TOO_MANY: CommandError = CommandError::text("ERR too many subscriptions");
    let client = &caller.client;
    let names = args.rest();
    let bytes = names.iter().map(Bytes::len).sum();
    if !client.subscriptions.lock().have_room(kind, names.len(), bytes) {
        return Err(TOO_MANY);
    }
    for name in names {
        // Not a part of the buffer it came in, which would stay as long.
        let name = Bytes::copy_from_slice(name);
        let (new, count) = {
            let mut subscriptions = client.subscriptions.lock();
            (subscriptions.add(kind, name.clone()), subscriptions.count(kind))
        };
        if new {
            caller.shared.hub.subscribe(client, kind, &name);
        }
        confirm(caller.protocol, word, Some(&name), count, out);
    }
    caller.note_subscriptions();
    // Who looks for subscribers that may not hear their channels any more may have looked before this one was there.
    let argv = args.argv();
    if let Ok(spec) = table::lookup(argv)
        && caller.permits(Context::TopLevel, spec, argv).is_err()
    {
        caller.client.end();
    }
    Ok(())
}

/// Ends subscriptions, all of this kind where none is named. What they brought stands before the answer.
fn leave(caller: &mut Caller, args: &mut Args<'_>, out: &mut BytesMut, kind: Kind, word: &str) -> Told {
    let client = &caller.client;
    let names = match args.rest() {
        [] => client.subscriptions.lock().of(kind).iter().cloned().collect(),
        names => names.to_vec(),
    };
    let mut left = Vec::with_capacity(names.len());
    for name in names {
        let (was, count) = {
            let mut subscriptions = client.subscriptions.lock();
            (subscriptions.remove(kind, &name), subscriptions.count(kind))
        };
        if was {
            caller.shared.hub.unsubscribe(client, kind, &name);
        }
        left.push((name, count));
    }
    if !caller.executing {
        client.outbox.take_all(out);
    }
    if left.is_empty() {
        let count = client.subscriptions.lock().count(kind);
        confirm(caller.protocol, word, None, count, out);
    }
    for (name, count) in left {
        confirm(caller.protocol, word, Some(&name), count, out);
    }
    caller.note_subscriptions();
    Ok(())
}

fn confirm(protocol: Protocol, word: &str, name: Option<&Bytes>, count: usize, out: &mut BytesMut) {
    encode::push(3, protocol, out);
    encode::bulk(word.as_bytes(), out);
    encode(&Reply::bulk_or_nil(name.cloned()), protocol, out);
    encode(&Reply::count(count), protocol, out);
}

/// Whether a subscriber that speaks RESP2, whose replies and messages look alike, may say this.
pub(super) fn is_for_subscribers(spec: &Spec) -> bool {
    matches!(
        spec.name,
        "SUBSCRIBE"
            | "PSUBSCRIBE"
            | "SSUBSCRIBE"
            | "UNSUBSCRIBE"
            | "PUNSUBSCRIBE"
            | "SUNSUBSCRIBE"
            | "PING"
            | "QUIT"
            | "RESET"
    )
}

/// What a subscriber that speaks RESP2 is told of all other commands.
pub(super) fn not_for_subscribers(spec: &Spec) -> CommandError {
    let name = spec.name.to_ascii_lowercase();
    CommandError::Other(
        format!(
            "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
        )
        .into(),
    )
}

/// The answer of a command of the log, with the receivers on this node where it published something.
pub(super) fn received(hub: &Hub, spec: &Spec, argv: &[Bytes], reply: Reply) -> Reply {
    match (is_publish(spec), &reply, argv) {
        (Some(sharded), Reply::Integer(_), [_, channel, _]) => Reply::count(hub.receivers(channel, sharded)),
        _ => reply,
    }
}

/// Whether a command publishes, and then whether on a shard channel.
pub(super) fn is_publish(spec: &Spec) -> Option<bool> {
    match spec.name {
        "PUBLISH" => Some(false),
        "SPUBLISH" => Some(true),
        _ => None,
    }
}

/// `PUBSUB CHANNELS [pattern]`.
pub(super) fn channels(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    active(caller, args, Kind::Channel)
}

/// `PUBSUB SHARDCHANNELS [pattern]`.
pub(super) fn shardchannels(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    active(caller, args, Kind::Shard)
}

fn active(caller: &mut Caller, args: &mut Args<'_>, kind: Kind) -> Answer {
    let pattern = args.bytes().ok();
    args.end().map_err(|_| subcommand_syntax(args))?;
    let channels = caller.shared.hub.channels(kind, pattern);
    Ok(Reply::Array(channels.into_iter().map(Reply::Bulk).collect()))
}

/// `PUBSUB NUMSUB [channel ...]`.
pub(super) fn numsub(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    Ok(counts(caller, args, Kind::Channel))
}

/// `PUBSUB SHARDNUMSUB [channel ...]`.
pub(super) fn shardnumsub(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    Ok(counts(caller, args, Kind::Shard))
}

fn counts(caller: &mut Caller, args: &mut Args<'_>, kind: Kind) -> Reply {
    let hub = &caller.shared.hub;
    let pair = |name: &Bytes| {
        [
            Reply::Bulk(name.clone()),
            Reply::count(hub.subscribers(kind, name)),
        ]
    };
    Reply::Array(args.rest().iter().flat_map(pair).collect())
}

/// `PUBSUB NUMPAT`: different patterns.
pub(super) fn numpat(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    Ok(Reply::count(caller.shared.hub.count(Kind::Pattern)))
}

pub(super) fn help(_: &mut Caller, _: &mut Args<'_>) -> Answer {
    Ok(help_of(
        "PUBSUB",
        &[
            "CHANNELS [<pattern>]",
            "    Return the currently active channels matching a <pattern> (default: '*').",
            "NUMPAT",
            "    Return number of subscriptions to patterns.",
            "NUMSUB [<channel> ...]",
            "    Return the number of subscribers for the specified channels, excluding",
            "    pattern subscriptions(default: no channels).",
            "SHARDCHANNELS [<pattern>]",
            "    Return the currently active shard level channels matching a <pattern> (default: '*').",
            "SHARDNUMSUB [<shardchannel> ...]",
            "    Return the number of subscribers for the specified shard level channel(s)",
        ],
    ))
}

impl Caller {
    /// Counts its subscriptions anew.
    fn note_subscriptions(&mut self) {
        self.subscribed = self.client.subscriptions.lock().total();
    }

    /// Ends all subscriptions without a word.
    pub(super) fn unsubscribe_all(&mut self) {
        let client: &Client = &self.client;
        self.shared.hub.leave(client);
        self.subscribed = 0;
    }
}
