//! `XINFO`: what is known of a stream, its groups and their consumers.

use super::stream::{entry_reply, id_reply};
use super::stream_group::{help, no_such_group, subcommand_syntax};
use crate::machine::args::Args;
use crate::machine::keyspace::View;
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{Spec, local, read};
use crate::machine::value::Stream;
use crate::machine::value::stream::{Consumer, Group, Id, Log};
use bytes::Bytes;

pub(super) const COMMANDS: &[Spec] = &[
    local("XINFO", "subcommand [argument ...]")
        .since("5.0.0")
        .summary("What is known of streams."),
    read("XINFO|CONSUMERS", "key group", xinfo_consumers)
        .since("5.0.0")
        .summary("The consumers of a group."),
    read("XINFO|GROUPS", "key", xinfo_groups)
        .since("5.0.0")
        .summary("The groups that read a stream."),
    read("XINFO|HELP", "", xinfo_help)
        .since("5.0.0")
        .flags("loading stale")
        .summary("The subcommands of XINFO."),
    read("XINFO|STREAM", "key [FULL [COUNT count]]", xinfo_stream)
        .since("5.0.0")
        .summary("What is known of a stream; with FULL its entries, groups and what is pending, too."),
];

/// Entries and pending ones that `FULL` shows where it is not told how many.
const FULL_COUNT: usize = 10;

fn map<const N: usize>(pairs: [(&'static str, Reply); N]) -> Reply {
    Reply::Map(
        pairs
            .into_iter()
            .map(|(name, value)| (Reply::bulk(name), value))
            .collect(),
    )
}

fn number_or_nil(number: Option<i64>) -> Reply {
    number.map_or(Reply::Nil, Reply::Integer)
}

fn time(millis: u64) -> Reply {
    Reply::Integer(millis.cast_signed())
}

fn stream<'a>(view: &View<'a>, key: &[u8]) -> Result<&'a Stream, CommandError> {
    view.stream(key)?.ok_or(CommandError::NoSuchKey)
}

fn xinfo_help(_: &View<'_>, _: &mut Args<'_>) -> Result<Reply, CommandError> {
    Ok(help(
        "XINFO",
        &[
            "CONSUMERS <key> <groupname>",
            "    Show consumers of <groupname>.",
            "GROUPS <key>",
            "    Show the stream consumer groups.",
            "STREAM <key> [FULL [COUNT <count>]",
            "    Show information about the stream.",
        ],
    ))
}

fn xinfo_consumers(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, name) = (args.key()?, args.bytes()?);
    let group = stream(view, key)?.group(name);
    let group = group.ok_or_else(|| no_such_group(key, name))?;
    let now = view.now();
    let row = |(name, consumer): (&Bytes, &Consumer)| {
        map([
            ("name", Reply::Bulk(name.clone())),
            ("pending", Reply::count(consumer.pending().len())),
            ("idle", time(now.saturating_sub(consumer.seen))),
        ])
    };
    Ok(Reply::Array(group.consumers().iter().map(row).collect()))
}

fn xinfo_groups(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let stream = stream(view, args.key()?)?;
    let row = |(name, group): (&Bytes, &Group)| {
        map([
            ("name", Reply::Bulk(name.clone())),
            ("consumers", Reply::count(group.consumers().len())),
            ("pending", Reply::count(group.pending().len())),
            ("last-delivered-id", id_reply(group.last())),
            ("entries-read", number_or_nil(group.read_count())),
            ("lag", number_or_nil(group.lag(&stream.log))),
        ])
    };
    Ok(Reply::Array(stream.groups().map(row).collect()))
}

fn xinfo_stream(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let stream = stream(view, args.key()?)?;
    let mut pairs = about(&stream.log);
    if args.is_empty() {
        let mut entries = stream.log.range(Id::MIN, Id::MAX);
        let first = entries.next();
        // The only entry is the last one as well.
        let last = entries.next_back().or(first);
        let entry = |entry: Option<_>| entry.map_or(Reply::Nil, |entry| entry_reply(&entry));
        pairs.extend([
            ("groups", Reply::count(stream.groups().len())),
            ("first-entry", entry(first)),
            ("last-entry", entry(last)),
        ]);
    } else {
        let count = full_count(args)?;
        let entries = stream.log.range(Id::MIN, Id::MAX).take(count);
        let groups = stream
            .groups()
            .map(|(name, group)| full_group(&stream.log, name, group, count));
        pairs.extend([
            (
                "entries",
                Reply::Array(entries.map(|entry| entry_reply(&entry)).collect()),
            ),
            ("groups", Reply::Array(groups.collect())),
        ]);
    }
    Ok(Reply::Map(
        pairs
            .into_iter()
            .map(|(name, value)| (Reply::bulk(name), value))
            .collect(),
    ))
}

/// Reads `FULL [COUNT count]`.
fn full_count(args: &mut Args<'_>) -> Result<usize, CommandError> {
    let refusal = subcommand_syntax(args.argv());
    if !matches!(args.remaining(), 1 | 3) || !args.keyword("FULL") {
        return Err(refusal);
    }
    if args.is_empty() {
        return Ok(FULL_COUNT);
    }
    if !args.keyword("COUNT") {
        return Err(refusal);
    }
    Ok(match usize::try_from(args.integer()?) {
        Ok(0) => usize::MAX,
        Ok(count) => count,
        Err(_) => FULL_COUNT,
    })
}

/// What both forms of `XINFO STREAM` begin with.
fn about(log: &Log) -> Vec<(&'static str, Reply)> {
    // We keep no radix tree: so many nodes one of Redis has at least for these keys.
    let tree_nodes = match log.nodes() {
        0 => 1,
        1 => 2,
        keys => 2 * keys + 1,
    };
    vec![
        ("length", Reply::count(log.len())),
        ("radix-tree-keys", Reply::count(log.nodes())),
        ("radix-tree-nodes", Reply::count(tree_nodes)),
        ("last-generated-id", id_reply(log.last())),
        ("max-deleted-entry-id", id_reply(log.max_deleted())),
        ("entries-added", Reply::Integer(log.added().cast_signed())),
        (
            "recorded-first-entry-id",
            id_reply(log.first_entry().unwrap_or(Id::MIN)),
        ),
    ]
}

fn full_group(log: &Log, name: &Bytes, group: &Group, count: usize) -> Reply {
    let pending = group.pending().iter().take(count).map(|(id, pending)| {
        Reply::Array(vec![
            id_reply(*id),
            Reply::Bulk(pending.consumer.clone()),
            time(pending.delivered),
            Reply::Integer(pending.count),
        ])
    });
    let consumers = group.consumers().iter();
    let consumers = consumers.map(|(name, consumer)| full_consumer(group, name, consumer, count));
    map([
        ("name", Reply::Bulk(name.clone())),
        ("last-delivered-id", id_reply(group.last())),
        ("entries-read", number_or_nil(group.read_count())),
        ("lag", number_or_nil(group.lag(log))),
        ("pel-count", Reply::count(group.pending().len())),
        ("pending", Reply::Array(pending.collect())),
        ("consumers", Reply::Array(consumers.collect())),
    ])
}

fn full_consumer(group: &Group, name: &Bytes, consumer: &Consumer, count: usize) -> Reply {
    let pending = group.pending_range(Some(consumer), Id::MIN, Id::MAX).take(count);
    let pending = pending.map(|(id, pending)| {
        Reply::Array(vec![
            id_reply(id),
            time(pending.delivered),
            Reply::Integer(pending.count),
        ])
    });
    map([
        ("name", Reply::Bulk(name.clone())),
        ("seen-time", time(consumer.seen)),
        ("pel-count", Reply::count(consumer.pending().len())),
        ("pending", Reply::Array(pending.collect())),
    ])
}
