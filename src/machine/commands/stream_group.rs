//! Groups that read streams: their making and end, and what is pending of their consumers. Reading is in `stream_read.rs`.

use super::stream::{entry_reply, id_reply, ids};
use crate::machine::args::{self, Args};
use crate::machine::entry::Millis;
use crate::machine::event::Classes;
use crate::machine::keyspace::{Keyspace, View};
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{Spec, local, read, write};
use crate::machine::value::Stream;
use crate::machine::value::stream::{Group, Id, Log, Pending};
use bytes::Bytes;

pub(super) const COMMANDS: &[Spec] = &[
    write("XACK", "key group id [id ...]", xack)
        .since("5.0.0")
        .flags("fast")
        .summary("Acknowledges entries that consumers of a group were given. Replies how many were pending."),
    write(
        "XAUTOCLAIM",
        "key group consumer min-idle-time start [COUNT count] [JUSTID]",
        xautoclaim,
    )
    .since("6.2.0")
    .flags("fast")
    .summary("Gives a consumer what is pending of others for too long, piece by piece."),
    write(
        "XCLAIM",
        "key group consumer min-idle-time id [id ...] [IDLE ms] [TIME unix-time-milliseconds] [RETRYCOUNT count] \
         [FORCE] [JUSTID] [LASTID last-id]",
        xclaim,
    )
    .since("5.0.0")
    .flags("fast")
    .summary("Gives a consumer entries that are pending of others for too long."),
    local("XGROUP", "subcommand [argument ...]")
        .since("5.0.0")
        .summary("Groups of consumers."),
    write(
        "XGROUP|CREATE",
        "key group <id | $> [MKSTREAM] [ENTRIESREAD entries-read]",
        xgroup_create,
    )
    .since("5.0.0")
    .flags("denyoom")
    .summary("Makes a group that has read up to an id."),
    write(
        "XGROUP|CREATECONSUMER",
        "key group consumer",
        xgroup_createconsumer,
    )
    .since("6.2.0")
    .flags("denyoom")
    .summary("Enters a consumer in a group. Replies whether it is new."),
    write("XGROUP|DELCONSUMER", "key group consumer", xgroup_delconsumer)
        .since("5.0.0")
        .summary("Removes a consumer from a group. Replies how much was pending of it."),
    write("XGROUP|DESTROY", "key group", xgroup_destroy)
        .since("5.0.0")
        .summary("Removes a group with all that is pending in it."),
    read("XGROUP|HELP", "", xgroup_help)
        .since("5.0.0")
        .flags("loading stale")
        .summary("The subcommands of XGROUP."),
    write(
        "XGROUP|SETID",
        "key group <id | $> [ENTRIESREAD entries-read]",
        xgroup_setid,
    )
    .since("5.0.0")
    .summary("Sets up to where a group has read."),
    read(
        "XPENDING",
        "key group [[IDLE min-idle-time] start end count [consumer]]",
        xpending,
    )
    .since("5.0.0")
    .summary("What consumers of a group were given and have not acknowledged."),
];

/// How many entries `XAUTOCLAIM` looks at for each one that it may claim.
const ATTEMPTS_PER_ENTRY: usize = 10;

/// The most that `XAUTOCLAIM` can be told to claim.
const CLAIM_MAX: i64 = i64::MAX / 16;

fn no_group(text: String) -> CommandError {
    CommandError::Other(text.into())
}

/// The stream under a key and a group of it.
fn stream_and_group<'a>(
    view: &View<'a>,
    key: &[u8],
    name: &[u8],
) -> Result<(&'a Stream, &'a Group), CommandError> {
    let stream = view.stream(key)?;
    let found = stream.and_then(|stream| Some((stream, stream.group(name)?)));
    found.ok_or_else(|| {
        let (key, name) = (args::quoted(key), args::quoted(name));
        no_group(format!("NOGROUP No such key '{key}' or consumer group '{name}'"))
    })
}

/// The refusal of a group that a stream does not have.
pub(super) fn no_such_group(key: &[u8], name: &[u8]) -> CommandError {
    let (key, name) = (args::quoted(key), args::quoted(name));
    no_group(format!(
        "NOGROUP No such consumer group '{name}' for key name '{key}'"
    ))
}

/// Changes a group that is there; what comes of nothing otherwise.
fn change<R: Default>(
    keys: &mut Keyspace<'_>,
    key: &[u8],
    name: &[u8],
    change: impl FnOnce(&Log, &mut Group) -> R,
) -> Result<R, CommandError> {
    let changed = keys.change_kind(key, |stream: &mut Stream| stream.change_group(name, change))?;
    Ok(changed.unwrap_or_default())
}

/// What `XGROUP CREATE` and `SETID` are told behind the id.
#[derive(Default)]
struct Options {
    make_stream: bool,
    read: Option<i64>,
}

impl Options {
    fn parse(args: &mut Args<'_>, creates: bool) -> Result<Self, CommandError> {
        let mut options = Self::default();
        while !args.is_empty() {
            if creates && args.keyword("MKSTREAM") {
                options.make_stream = true;
            } else if args.remaining() > 1 && args.keyword("ENTRIESREAD") {
                let read = args.integer()?;
                if read < -1 {
                    return Err(CommandError::text(
                        "ERR value for ENTRIESREAD must be positive or -1",
                    ));
                }
                options.read = (read >= 0).then_some(read);
            } else {
                return Err(subcommand_syntax(args.argv()));
            }
        }
        Ok(options)
    }
}

/// The refusal of what follows a container's subcommand.
pub(super) fn subcommand_syntax(argv: &[Bytes]) -> CommandError {
    let word = |at: usize| {
        argv.get(at)
            .map_or_else(String::new, |word| String::from_utf8_lossy(word).into_owned())
    };
    let (container, subcommand) = (word(0).to_ascii_uppercase(), word(1));
    CommandError::Other(
        format!(
            "ERR unknown subcommand or wrong number of arguments for '{subcommand}'. Try {container} HELP."
        )
        .into(),
    )
}

/// The stream that a subcommand of `XGROUP` asks for.
fn existing<'a>(view: &View<'a>, key: &[u8]) -> Result<&'a Stream, CommandError> {
    view.stream(key)?.ok_or(CommandError::text(
        "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option to \
         create an empty stream automatically.",
    ))
}

/// The group that a subcommand of `XGROUP` asks for.
fn existing_group<'a>(
    view: &View<'a>,
    key: &[u8],
    name: &[u8],
) -> Result<(&'a Stream, &'a Group), CommandError> {
    let stream = existing(view, key)?;
    let group = stream.group(name).ok_or_else(|| no_such_group(key, name))?;
    Ok((stream, group))
}

fn xgroup_create(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, name, id) = (args.key()?, args.bytes()?, args.bytes()?);
    let options = Options::parse(args, true)?;
    let view = keys.view();
    let stream = if options.make_stream {
        view.stream(key)?
    } else {
        Some(existing(&view, key)?)
    };
    // More arguments than all options together.
    if args.argv().len() > 8 {
        return Err(subcommand_syntax(args.argv()));
    }
    let last = match &id[..] {
        b"$" => stream.map_or(Id::MIN, |stream| stream.log.last()),
        id => Id::parse(id, 0)?,
    };
    if stream.is_some_and(|stream| stream.group(name).is_some()) {
        return Err(CommandError::text("BUSYGROUP Consumer Group name already exists"));
    }
    keys.change_kind(key, |stream: &mut Stream| {
        stream.add_group(name, Group::new(last, options.read))
    })?;
    keys.notify(Classes::STREAM, "xgroup-create", key);
    Ok(Reply::OK)
}

fn xgroup_setid(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, name, id) = (args.key()?, args.bytes()?, args.bytes()?);
    let options = Options::parse(args, false)?;
    let view = keys.view();
    let (stream, _) = existing_group(&view, key, name)?;
    if !matches!(args.argv().len(), 5 | 7) {
        return Err(subcommand_syntax(args.argv()));
    }
    let last = match &id[..] {
        b"$" => stream.log.last(),
        id => Id::parse_edge(id, 0)?,
    };
    change(keys, key, name, |_, group| group.set_last(last, options.read))?;
    keys.notify(Classes::STREAM, "xgroup-setid", key);
    Ok(Reply::OK)
}

fn xgroup_destroy(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, name) = (args.key()?, args.bytes()?);
    if existing(&keys.view(), key)?.group(name).is_none() {
        return Ok(Reply::Integer(0));
    }
    keys.change_kind(key, |stream: &mut Stream| stream.remove_group(name))?;
    keys.notify(Classes::STREAM, "xgroup-destroy", key);
    Ok(Reply::Integer(1))
}

fn xgroup_createconsumer(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, name, consumer) = (args.key()?, args.bytes()?, args.bytes()?);
    let (_, group) = existing_group(&keys.view(), key, name)?;
    if group.consumers().contains_key(consumer) {
        return Ok(Reply::Integer(0));
    }
    let now = keys.now();
    change(keys, key, name, |_, group| group.add_consumer(consumer, now))?;
    keys.notify(Classes::STREAM, "xgroup-createconsumer", key);
    Ok(Reply::Integer(1))
}

fn xgroup_delconsumer(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, name, consumer) = (args.key()?, args.bytes()?, args.bytes()?);
    let (_, group) = existing_group(&keys.view(), key, name)?;
    if !group.consumers().contains_key(consumer) {
        return Ok(Reply::Integer(0));
    }
    let pending = change(keys, key, name, |_, group| group.remove_consumer(consumer))?;
    keys.notify(Classes::STREAM, "xgroup-delconsumer", key);
    Ok(Reply::count(pending.unwrap_or(0)))
}

/// A help text as `HELP` answers it.
pub(super) fn help(container: &'static str, lines: &[&'static str]) -> Reply {
    let head = format!("{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    let lines = lines.iter().chain(&["HELP", "    Prints this help."]);
    let lines = lines.map(|line| Reply::Simple((*line).into()));
    Reply::Array(std::iter::once(Reply::Simple(head.into())).chain(lines).collect())
}

fn xgroup_help(_: &View<'_>, _: &mut Args<'_>) -> Result<Reply, CommandError> {
    Ok(help(
        "XGROUP",
        &[
            "CREATE <key> <groupname> <id|$> [option]",
            "    Create a new consumer group. Options are:",
            "    * MKSTREAM",
            "      Create the empty stream if it does not exist.",
            "    * ENTRIESREAD entries_read",
            "      Set the group's entries_read counter (internal use).",
            "CREATECONSUMER <key> <groupname> <consumer>",
            "    Create a new consumer in the specified group.",
            "DELCONSUMER <key> <groupname> <consumer>",
            "    Remove the specified consumer.",
            "DESTROY <key> <groupname>",
            "    Remove the specified group.",
            "SETID <key> <groupname> <id|$> [ENTRIESREAD entries_read]",
            "    Set the current group ID and entries_read counter.",
        ],
    ))
}

fn xack(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, name) = (args.key()?, args.bytes()?);
    let view = keys.view();
    let Some(group) = view.stream(key)?.and_then(|stream| stream.group(name)) else {
        return Ok(Reply::Integer(0));
    };
    let mut ids = ids(args)?;
    ids.retain(|id| group.pending().contains_key(id));
    if ids.is_empty() {
        return Ok(Reply::Integer(0));
    }
    let acknowledged = change(keys, key, name, |_, group| {
        ids.iter().filter(|id| group.release(**id)).count()
    })?;
    Ok(Reply::count(acknowledged))
}

fn xpending(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, name) = (args.key()?, args.bytes()?);
    if args.is_empty() {
        let (_, group) = stream_and_group(view, key, name)?;
        return Ok(pending_summary(group));
    }
    if !(3..=6).contains(&args.remaining()) {
        return Err(CommandError::Syntax);
    }
    let mut min_idle = 0;
    if args.keyword("IDLE") {
        min_idle = args.integer()?;
        if args.remaining() < 3 {
            return Err(CommandError::Syntax);
        }
    }
    let (start, end) = (args.bytes()?, args.bytes()?);
    let count = usize::try_from(args.integer()?).unwrap_or(0);
    let (from, to) = (Id::parse_start(start)?, Id::parse_end(end)?);
    let consumer = args.rest().first();
    let (_, group) = stream_and_group(view, key, name)?;
    let consumer = match consumer.map(|name| group.consumers().get(name)) {
        Some(None) => return Ok(Reply::Array(Vec::new())),
        consumer => consumer.flatten(),
    };
    if from > to {
        return Ok(Reply::Array(Vec::new()));
    }
    let now = view.now();
    let pending = group.pending_range(consumer, from, to);
    let pending = pending.filter(|(_, pending)| min_idle == 0 || idle(pending, now) >= min_idle);
    let row = |(id, pending): (Id, &Pending)| {
        Reply::Array(vec![
            id_reply(id),
            Reply::Bulk(pending.consumer.clone()),
            Reply::Integer(idle(pending, now).max(0)),
            Reply::Integer(pending.count),
        ])
    };
    Ok(Reply::Array(pending.take(count).map(row).collect()))
}

/// For how long an entry has been with its consumer, in milliseconds.
fn idle(pending: &Pending, now: Millis) -> i64 {
    now.wrapping_sub(pending.delivered).cast_signed()
}

/// How much is pending in a group, from where to where, and of whom.
fn pending_summary(group: &Group) -> Reply {
    let pending = group.pending();
    let (first, last) = (pending.first_key_value(), pending.last_key_value());
    let Some(((first, _), (last, _))) = first.zip(last) else {
        return Reply::Array(vec![Reply::Integer(0), Reply::Nil, Reply::Nil, Reply::NilArray]);
    };
    let consumers = group.consumers().iter();
    let row = |(name, count): (&Bytes, usize)| {
        Reply::Array(vec![Reply::Bulk(name.clone()), Reply::bulk(count.to_string())])
    };
    let consumers = consumers
        .map(|(name, consumer)| (name, consumer.pending().len()))
        .filter(|(_, count)| *count > 0)
        .map(row);
    Reply::Array(vec![
        Reply::count(pending.len()),
        id_reply(*first),
        id_reply(*last),
        Reply::Array(consumers.collect()),
    ])
}

/// How entries are claimed.
struct Claim<'a> {
    consumer: &'a [u8],
    /// For how many milliseconds an entry must have been with its consumer; 0: however short.
    min_idle: i64,
    now: Millis,
    /// When they count as given.
    delivered: Millis,
    /// How often they count as given, where that is said.
    count: Option<i64>,
    /// Also entries that are pending of nobody.
    force: bool,
    /// Replies ids alone, and counts no delivery.
    ids_only: bool,
}

/// What is to be done with an entry that is asked for.
#[derive(PartialEq)]
enum Verdict {
    /// It is the consumer's now.
    Claim,
    /// It is gone from the stream, and is to go from what is pending.
    Drop,
    /// Nothing.
    Leave,
}

impl Claim<'_> {
    fn verdict(&self, log: &Log, group: &Group, id: Id) -> Verdict {
        let pending = group.pending().get(&id);
        match (log.get(id), pending) {
            (None, Some(_)) => Verdict::Drop,
            (None, None) => Verdict::Leave,
            (Some(_), None) if self.force => Verdict::Claim,
            (Some(_), Some(pending)) if self.min_idle == 0 || idle(pending, self.now) >= self.min_idle => {
                Verdict::Claim
            }
            (Some(_), _) => Verdict::Leave,
        }
    }

    /// Gives the consumer the entry; the consumer is there.
    fn claim(&self, log: &Log, group: &mut Group, id: Id) -> Reply {
        // One that was pending of nobody counts as given once, by this.
        let before = group.pending().get(&id).map_or(1, |pending| pending.count);
        let count = self
            .count
            .unwrap_or(before.wrapping_add(i64::from(!self.ids_only)));
        group.assign(id, self.consumer, self.delivered, count);
        let entry = log.get(id).filter(|_| !self.ids_only);
        entry.map_or_else(|| id_reply(id), |entry| entry_reply(&entry))
    }
}

fn min_idle(args: &mut Args<'_>, refusal: &'static str) -> Result<i64, CommandError> {
    let min_idle = args::integer(args.bytes()?).ok_or(CommandError::text(refusal))?;
    Ok(min_idle.max(0))
}

fn xclaim(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, name, consumer) = (args.key()?, args.bytes()?, args.bytes()?);
    let view = keys.view();
    let (stream, group) = stream_and_group(&view, key, name)?;
    let now = keys.now();
    let min_idle = min_idle(args, "ERR Invalid min-idle-time argument for XCLAIM")?;
    let mut ids = Vec::new();
    while let Some(id) = args.peek().and_then(|id| Id::parse(id, 0).ok()) {
        args.bytes()?;
        ids.push(id);
    }
    let mut claim = Claim {
        consumer,
        min_idle,
        now,
        delivered: now,
        count: None,
        force: false,
        ids_only: false,
    };
    let last = claim_options(args, &mut claim)?;
    let changes = last > group.last()
        || ids
            .iter()
            .any(|id| claim.verdict(&stream.log, group, *id) != Verdict::Leave);
    if !changes {
        return Ok(Reply::Array(Vec::new()));
    }
    let (is_new, claimed) = change(keys, key, name, |log, group| {
        group.raise_last(last);
        let (mut is_new, mut claimed) = (false, Vec::new());
        for id in ids {
            match claim.verdict(log, group, id) {
                Verdict::Leave => {}
                Verdict::Drop => drop(group.release(id)),
                Verdict::Claim => {
                    is_new |= group.see_consumer(consumer, now);
                    claimed.push(claim.claim(log, group, id));
                }
            }
        }
        (is_new, claimed)
    })?;
    if is_new {
        keys.notify(Classes::STREAM, "xgroup-createconsumer", key);
    }
    Ok(Reply::Array(claimed))
}

/// Reads what follows the ids of `XCLAIM`; up to where the group is to have read.
fn claim_options(args: &mut Args<'_>, claim: &mut Claim<'_>) -> Result<Id, CommandError> {
    let number = |args: &mut Args<'_>, option: &str| {
        let refusal =
            || CommandError::Other(format!("ERR Invalid {option} option argument for XCLAIM").into());
        args::integer(args.bytes()?).ok_or_else(refusal)
    };
    // A time that is none, or to come, is taken for now.
    let past = |time: i64| Millis::try_from(time).ok().filter(|time| *time <= claim.now);
    let (now, mut last) = (claim.now, Id::MIN);
    let (mut delivered, mut count, mut force, mut ids_only) = (now, None, false, false);
    while let Some(option) = args.peek() {
        let has_more = args.remaining() > 1;
        if args.keyword("FORCE") {
            force = true;
        } else if args.keyword("JUSTID") {
            ids_only = true;
        } else if has_more && args.keyword("IDLE") {
            let idle = number(args, "IDLE")?;
            delivered = past(now.cast_signed().wrapping_sub(idle)).unwrap_or(now);
        } else if has_more && args.keyword("TIME") {
            delivered = past(number(args, "TIME")?).unwrap_or(now);
        } else if has_more && args.keyword("RETRYCOUNT") {
            count = Some(number(args, "RETRYCOUNT")?).filter(|count| *count >= 0);
        } else if has_more && args.keyword("LASTID") {
            last = Id::parse(args.bytes()?, 0)?;
        } else {
            // As far as a NUL, where texts end for Redis.
            let option = option.split(|byte| *byte == 0).next().unwrap_or_default();
            let option = String::from_utf8_lossy(option);
            return Err(CommandError::Other(
                format!("ERR Unrecognized XCLAIM option '{option}'").into(),
            ));
        }
    }
    (claim.delivered, claim.count) = (delivered, count);
    (claim.force, claim.ids_only) = (force, ids_only);
    Ok(last)
}

fn xautoclaim(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, name, consumer) = (args.key()?, args.bytes()?, args.bytes()?);
    let min_idle = min_idle(args, "ERR Invalid min-idle-time argument for XAUTOCLAIM")?;
    let from = Id::parse_start(args.bytes()?)?;
    let (mut most, mut ids_only) = (100, false);
    while !args.is_empty() {
        if args.remaining() > 1 && args.keyword("COUNT") {
            let count = args::integer(args.bytes()?).filter(|count| (1..=CLAIM_MAX).contains(count));
            let count = count.and_then(|count| usize::try_from(count).ok());
            most = count.ok_or(CommandError::text("ERR COUNT must be > 0"))?;
        } else if args.keyword("JUSTID") {
            ids_only = true;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let view = keys.view();
    let (stream, group) = stream_and_group(&view, key, name)?;
    let now = keys.now();
    let claim = Claim {
        consumer,
        min_idle,
        now,
        delivered: now,
        count: None,
        force: false,
        ids_only,
    };
    let found = look_through(&stream.log, group, &claim, from, most);
    if found.claim.is_empty() && found.gone.is_empty() {
        return Ok(claimed_reply(Vec::new(), &found));
    }
    let (is_new, claimed) = change(keys, key, name, |log, group| {
        for id in &found.gone {
            group.release(*id);
        }
        let is_new = !found.claim.is_empty() && group.see_consumer(consumer, now);
        let claimed = found.claim.iter().map(|id| claim.claim(log, group, *id));
        (is_new, claimed.collect())
    })?;
    if is_new {
        keys.notify(Classes::STREAM, "xgroup-createconsumer", key);
    }
    Ok(claimed_reply(claimed, &found))
}

fn claimed_reply(claimed: Vec<Reply>, found: &Found) -> Reply {
    Reply::Array(vec![
        id_reply(found.next),
        Reply::Array(claimed),
        Reply::Array(found.gone.iter().copied().map(id_reply).collect()),
    ])
}

/// What `XAUTOCLAIM` finds among what is pending.
#[derive(Default)]
struct Found {
    claim: Vec<Id>,
    gone: Vec<Id>,
    /// Where to go on; `0-0` at the end.
    next: Id,
}

fn look_through(log: &Log, group: &Group, claim: &Claim<'_>, from: Id, most: usize) -> Found {
    let mut found = Found::default();
    let attempts = most.saturating_mul(ATTEMPTS_PER_ENTRY);
    for (looked, id) in group.pending().range(from..).map(|(id, _)| *id).enumerate() {
        if looked == attempts || found.claim.len() + found.gone.len() == most {
            found.next = id;
            break;
        }
        match claim.verdict(log, group, id) {
            Verdict::Claim => found.claim.push(id),
            Verdict::Drop => found.gone.push(id),
            Verdict::Leave => {}
        }
    }
    found
}
