//! Streams: adding, reading and trimming entries. Groups are in `stream_group.rs`, reading with `XREAD` in `stream_read.rs`.

use crate::machine::args::Args;
use crate::machine::event::Classes;
use crate::machine::keyspace::{Keyspace, View};
use crate::machine::reply::{CommandError, Reply};
use crate::machine::settings::Settings;
use crate::machine::table::{Spec, read, write};
use crate::machine::value::Stream;
use crate::machine::value::stream::{Entry, Id, NewId, Trim, TrimTo};
use bytes::Bytes;

pub(super) const COMMANDS: &[Spec] = &[
    write(
        "XADD",
        "key [NOMKSTREAM] [<MAXLEN | MINID> [= | ~] threshold [LIMIT count]] <* | id> field value [field value ...]",
        xadd,
    )
    .since("5.0.0")
    .flags("denyoom fast")
    .summary("Adds an entry behind the others, and trims the stream if told to. Replies its id."),
    write("XDEL", "key id [id ...]", xdel)
        .since("5.0.0")
        .flags("fast")
        .summary("Removes entries by their ids. Replies how many were there."),
    read("XLEN", "key", xlen)
        .since("5.0.0")
        .flags("fast")
        .summary("How many entries a stream has."),
    read("XRANGE", "key start end [COUNT count]", xrange)
        .since("5.0.0")
        .summary("The entries from one id to another."),
    read("XREVRANGE", "key end start [COUNT count]", xrevrange)
        .since("5.0.0")
        .summary("The entries from one id back to another."),
    write(
        "XSETID",
        "key last-id [ENTRIESADDED entries-added] [MAXDELETEDID max-deleted-id]",
        xsetid,
    )
    .since("5.0.0")
    .flags("denyoom fast")
    .summary("Sets the id behind which a stream goes on."),
    write(
        "XTRIM",
        "key <MAXLEN | MINID> [= | ~] threshold [LIMIT count]",
        xtrim,
    )
    .since("5.0.0")
    .summary("Removes the oldest entries, down to a length or an id. Replies how many."),
];

/// An id as a reply.
pub(super) fn id_reply(id: Id) -> Reply {
    Reply::Bulk(id.to_string().into())
}

/// An entry as a reply: its id, its fields and values.
pub(super) fn entry_reply(entry: &Entry<'_>) -> Reply {
    let fields = entry.fields().into_iter().map(Reply::Bulk).collect();
    Reply::Array(vec![id_reply(entry.id), Reply::Array(fields)])
}

/// What `XADD` and `XTRIM` are told before the id.
struct Options {
    make: bool,
    trim: Option<Trim>,
}

impl Options {
    /// Reads the options; for `XADD` up to the id, which is left to be read.
    fn parse(args: &mut Args<'_>, adds: bool, settings: &Settings) -> Result<Self, CommandError> {
        let (mut make, mut to, mut approximate, mut limit) = (true, None, false, None);
        while !args.is_empty() {
            let has_more = args.remaining() > 1;
            if adds && args.peek().is_some_and(|id| id == "*") {
                break;
            } else if has_more && args.keyword("MAXLEN") {
                approximate = Self::approximate(args, to)?;
                to = Some(TrimTo::Length(not_negative(
                    args,
                    "ERR The MAXLEN argument must be >= 0.",
                )?));
            } else if has_more && args.keyword("MINID") {
                approximate = Self::approximate(args, to)?;
                to = Some(TrimTo::Id(Id::parse(args.bytes()?, 0)?));
            } else if has_more && args.keyword("LIMIT") {
                limit = Some(not_negative(args, "ERR The LIMIT argument must be >= 0.")?);
            } else if adds && args.keyword("NOMKSTREAM") {
                make = false;
            } else if adds {
                break;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        if adds && let Some(id) = args.peek() {
            NewId::parse(id)?;
        }
        let refusal = match to {
            None if limit.is_some_and(|limit| limit > 0) => {
                Some("ERR syntax error, LIMIT cannot be used without specifying a trimming strategy")
            }
            None if !adds => Some("ERR syntax error, XTRIM must be called with a trimming strategy"),
            _ if limit.is_some() && !approximate => {
                Some("ERR syntax error, LIMIT cannot be used without the special ~ option")
            }
            _ => None,
        };
        if let Some(text) = refusal {
            return Err(CommandError::text(text));
        }
        let limit = match limit {
            Some(limit) => limit,
            None if approximate => usual_limit(settings),
            None => 0,
        };
        let trim = to.map(|to| Trim {
            to,
            approximate,
            limit,
        });
        Ok(Self { make, trim })
    }

    /// Reads `~` or `=` before a threshold. Whether whole nodes only are to go.
    fn approximate(args: &mut Args<'_>, before: Option<TrimTo>) -> Result<bool, CommandError> {
        if before.is_some() {
            return Err(CommandError::text(
                "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
            ));
        }
        let has_more = args.remaining() > 1;
        let approximate = has_more && args.keyword("~");
        if has_more && !approximate {
            args.keyword("=");
        }
        Ok(approximate)
    }
}

/// How many entries `~` removes at most where no `LIMIT` is given: those of 100 nodes.
fn usual_limit(settings: &Settings) -> usize {
    match settings.stream_node_max_entries {
        0 => 10_000,
        most => most.saturating_mul(100).min(1_000_000),
    }
}

fn not_negative(args: &mut Args<'_>, otherwise: &'static str) -> Result<usize, CommandError> {
    usize::try_from(args.integer()?).map_err(|_| CommandError::text(otherwise))
}

fn xadd(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, settings) = (args.key()?, keys.settings().clone());
    let options = Options::parse(args, true, &settings)?;
    let arity = || CommandError::Arity("xadd".to_owned());
    let wanted = NewId::parse(args.bytes().map_err(|_| arity())?)?;
    let fields = args.rest();
    if fields.is_empty() || !fields.len().is_multiple_of(2) {
        return Err(arity());
    }
    if wanted == NewId::Is(Id::MIN) {
        return Err(CommandError::text(
            "ERR The ID specified in XADD must be greater than 0-0",
        ));
    }
    if fields.iter().map(Bytes::len).sum::<usize>() > ENTRY_MAX_BYTES {
        return Err(CommandError::text("ERR Elements are too large to be stored"));
    }
    let now = keys.now();
    let id = match keys.view().stream(key)? {
        Some(stream) => stream.log.new_id(wanted, now)?,
        None if !options.make => return Ok(Reply::Nil),
        None => Stream::default().log.new_id(wanted, now)?,
    };
    let trimmed = keys.change_kind(key, |stream: &mut Stream| {
        stream.log.push(id, fields, &settings);
        options.trim.map_or(0, |trim| stream.log.trim(&trim))
    })?;
    keys.notify(Classes::STREAM, "xadd", key);
    if trimmed > 0 {
        keys.notify(Classes::STREAM, "xtrim", key);
    }
    Ok(id_reply(id))
}

/// Bytes that the fields and values of one entry may have together, as in Redis.
const ENTRY_MAX_BYTES: usize = 1 << 30;

fn xtrim(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let key = args.key()?;
    let options = Options::parse(args, false, keys.settings())?;
    let trim = options.trim.ok_or(CommandError::Syntax)?;
    let would = keys
        .view()
        .stream(key)?
        .is_some_and(|stream| stream.log.would_trim(&trim));
    if !would {
        return Ok(Reply::Integer(0));
    }
    let trimmed = keys.change_kind(key, |stream: &mut Stream| stream.log.trim(&trim))?;
    if trimmed > 0 {
        keys.notify(Classes::STREAM, "xtrim", key);
    }
    Ok(Reply::count(trimmed))
}

/// Reads ids up to the end of the arguments.
pub(super) fn ids(args: &mut Args<'_>) -> Result<Vec<Id>, CommandError> {
    args.rest().iter().map(|id| Id::parse(id, 0)).collect()
}

fn xdel(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let key = args.key()?;
    let view = keys.view();
    let Some(stream) = view.stream(key)? else {
        return Ok(Reply::Integer(0));
    };
    let mut ids = ids(args)?;
    ids.retain(|id| stream.log.get(*id).is_some());
    if ids.is_empty() {
        return Ok(Reply::Integer(0));
    }
    let removed = keys.change_kind(key, |stream: &mut Stream| {
        ids.iter().filter(|id| stream.log.remove(**id)).count()
    })?;
    keys.notify(Classes::STREAM, "xdel", key);
    Ok(Reply::count(removed))
}

fn xlen(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let stream = view.stream(args.key()?)?;
    Ok(Reply::count(stream.map_or(0, |stream| stream.log.len())))
}

fn xrange(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let key = args.key()?;
    let (from, to) = (Id::parse_start(args.bytes()?)?, Id::parse_end(args.bytes()?)?);
    range(view, key, args, |stream, count| {
        stream
            .log
            .range(from, to)
            .take(count)
            .map(|entry| entry_reply(&entry))
            .collect()
    })
}

fn xrevrange(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, end, start) = (args.key()?, args.bytes()?, args.bytes()?);
    let (from, to) = (Id::parse_start(start)?, Id::parse_end(end)?);
    range(view, key, args, |stream, count| {
        let backwards = stream.log.range(from, to).rev();
        backwards.take(count).map(|entry| entry_reply(&entry)).collect()
    })
}

/// Reads `COUNT`, and answers with what `entries` picks.
fn range(
    view: &View<'_>,
    key: &[u8],
    args: &mut Args<'_>,
    entries: impl FnOnce(&Stream, usize) -> Vec<Reply>,
) -> Result<Reply, CommandError> {
    let mut count = usize::MAX;
    while !args.is_empty() {
        if args.remaining() < 2 || !args.keyword("COUNT") {
            return Err(CommandError::Syntax);
        }
        count = usize::try_from(args.integer()?).unwrap_or(0);
    }
    Ok(match view.stream(key)? {
        None => Reply::Array(Vec::new()),
        Some(_) if count == 0 => Reply::NilArray,
        Some(stream) => Reply::Array(entries(stream, count)),
    })
}

fn xsetid(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, last) = (args.key()?, Id::parse(args.bytes()?, 0)?);
    let (mut added, mut max_deleted) = (None, None);
    while !args.is_empty() {
        let has_more = args.remaining() > 1;
        if has_more && args.keyword("ENTRIESADDED") {
            let number = u64::try_from(args.integer()?);
            added = Some(number.map_err(|_| CommandError::text("ERR entries_added must be positive"))?);
        } else if has_more && args.keyword("MAXDELETEDID") {
            let id = Id::parse(args.bytes()?, 0)?;
            if last < id {
                return Err(CommandError::text(
                    "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                ));
            }
            max_deleted = Some(id);
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let view = keys.view();
    view.stream(key)?
        .ok_or(CommandError::NoSuchKey)?
        .log
        .check_last(last, added)?;
    let max_deleted = max_deleted.filter(|id| *id > Id::MIN);
    keys.change_kind(key, |stream: &mut Stream| {
        stream.log.set_last(last, added, max_deleted)
    })?;
    keys.notify(Classes::STREAM, "xsetid", key);
    Ok(Reply::OK)
}
