//! Messages to the subscribers of channels, in the order of the log.
//!
//! Who is subscribed is for each node's edge to know: it runs the rows that subscribe, and replaces the answer of `PUBLISH`, which
//! cannot be the same everywhere, by the number of receivers on its own node.

use crate::machine::args::Args;
use crate::machine::keyspace::Keyspace;
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{Spec, local, write};

const SUBSCRIBER: &str = "pubsub noscript loading stale";
const PUBLISHER: &str = "pubsub loading stale fast";
const ASKER: &str = "pubsub loading stale";

#[rustfmt::skip]
pub(super) const COMMANDS: &[Spec] = &[
    write("PUBLISH", "channel message", publish).since("2.0.0").flags(PUBLISHER)
        .summary("Post a message to a channel"),
    write("SPUBLISH", "key message", spublish).since("7.0.0").flags(PUBLISHER)
        .summary("Post a message to a shard channel"),
    local("SUBSCRIBE", "channel [channel ...]").since("2.0.0").flags(SUBSCRIBER)
        .summary("Listen for messages published to the given channels"),
    local("PSUBSCRIBE", "pattern [pattern ...]").since("2.0.0").flags(SUBSCRIBER)
        .summary("Listen for messages published to channels matching the given patterns"),
    local("SSUBSCRIBE", "key [key ...]").since("7.0.0").flags(SUBSCRIBER)
        .summary("Listen for messages published to the given shard channels"),
    local("UNSUBSCRIBE", "[channel ...]").since("2.0.0").flags(SUBSCRIBER)
        .summary("Stop listening for messages posted to the given channels"),
    local("PUNSUBSCRIBE", "[pattern ...]").since("2.0.0").flags(SUBSCRIBER)
        .summary("Stop listening for messages posted to channels matching the given patterns"),
    local("SUNSUBSCRIBE", "[key ...]").since("7.0.0").flags(SUBSCRIBER)
        .summary("Stop listening for messages posted to the given shard channels"),

    local("PUBSUB", "subcommand [argument ...]").since("2.8.0").summary("A container for Pub/Sub commands"),
    local("PUBSUB|CHANNELS", "[pattern]").since("2.8.0").flags(ASKER).summary("List active channels"),
    local("PUBSUB|HELP", "").since("6.2.0").flags("loading stale").summary("Show helpful text about the different subcommands"),
    local("PUBSUB|NUMPAT", "").since("2.8.0").flags(ASKER)
        .summary("Get the count of unique patterns pattern subscriptions"),
    local("PUBSUB|NUMSUB", "[channel ...]").since("2.8.0").flags(ASKER)
        .summary("Get the count of subscribers for channels"),
    local("PUBSUB|SHARDCHANNELS", "[pattern]").since("7.0.0").flags(ASKER).summary("List active shard channels"),
    local("PUBSUB|SHARDNUMSUB", "[shardchannel ...]").since("7.0.0").flags(ASKER)
        .summary("Get the count of subscribers for shard channels"),
];

fn publish(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    tell(keys, args, false)
}

fn spublish(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    tell(keys, args, true)
}

/// Tells every node. Replies 0: see the head of this file.
fn tell(keys: &mut Keyspace<'_>, args: &mut Args<'_>, sharded: bool) -> Result<Reply, CommandError> {
    let (channel, message) = (args.bytes()?, args.bytes()?);
    args.end()?;
    keys.publish(channel, message, sharded);
    Ok(Reply::Integer(0))
}
