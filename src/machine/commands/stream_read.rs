//! `XREAD` and `XREADGROUP`: what came behind an id, of several streams, waiting for it if told to.

use super::stream::{entry_reply, id_reply};
use crate::machine::args::{self, Args};
use crate::machine::entry::Millis;
use crate::machine::event::Classes;
use crate::machine::keyspace::{Keyspace, View};
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{Spec, read, write};
use crate::machine::value::Stream;
use crate::machine::value::stream::{Group, Id, Log};
use crate::machine::waiting::Otherwise;
use bytes::Bytes;

pub(super) const COMMANDS: &[Spec] = &[
    read(
        "XREAD",
        "[COUNT count] [BLOCK milliseconds] STREAMS key [key ...] id [id ...]",
        xread,
    )
    .waits(xread_in_the_log)
    .since("5.0.0")
    .flags("blocking movablekeys")
    .finder(keys_of)
    .summary("The entries behind an id, of several streams; waits for them with BLOCK."),
    write(
        "XREADGROUP",
        "GROUP group consumer [COUNT count] [BLOCK milliseconds] [NOACK] STREAMS key [key ...] id [id ...]",
        xreadgroup,
    )
    .since("5.0.0")
    .flags("blocking movablekeys")
    .finder(keys_of)
    .summary("Gives entries that no consumer of a group was given to one of them, or those it has not acknowledged."),
];

/// Entries of one stream that one who waited is given at most, where it said no `COUNT`.
const WAITED_COUNT: usize = 1_000;

/// The keys stand behind `STREAMS`, in the first half of what follows.
fn keys_of(argv: &[Bytes]) -> Vec<usize> {
    let mut at = 1;
    while let Some(word) = argv.get(at) {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        at += match word {
            _ if is("STREAMS") => {
                let rest = argv.len() - at - 1;
                let even = rest.is_multiple_of(2);
                return if even {
                    (at + 1..at + 1 + rest / 2).collect()
                } else {
                    Vec::new()
                };
            }
            _ if is("BLOCK") || is("COUNT") => 2,
            _ if is("GROUP") => 3,
            _ if is("NOACK") => 1,
            _ => return Vec::new(),
        };
    }
    Vec::new()
}

/// What is to be read.
struct Reading<'a> {
    group: Option<(&'a Bytes, &'a Bytes)>,
    acknowledges: bool,
    count: usize,
    /// For how many milliseconds to wait; 0: for ever; none: not at all.
    block: Option<u64>,
    keys: &'a [Bytes],
    ids: &'a [Bytes],
}

impl<'a> Reading<'a> {
    fn parse(args: &mut Args<'a>, for_group: bool) -> Result<Self, CommandError> {
        let (mut group, mut acknowledges, mut count, mut block) = (None, false, 0, None);
        let refuse = |option: &str| {
            let text =
                format!("ERR The {option} option is only supported by XREADGROUP. You called XREAD instead.");
            Err(CommandError::Other(text.into()))
        };
        let streams = loop {
            let more = args.remaining().saturating_sub(1);
            if more > 0 && args.keyword("BLOCK") {
                block = Some(timeout(args.bytes()?)?);
            } else if more > 0 && args.keyword("COUNT") {
                count = usize::try_from(args.integer()?).unwrap_or(0);
            } else if more > 0 && args.keyword("STREAMS") {
                break args.rest();
            } else if more > 1 && args.keyword("GROUP") {
                if !for_group {
                    return refuse("GROUP");
                }
                group = Some((args.bytes()?, args.bytes()?));
            } else if args.keyword("NOACK") {
                if !for_group {
                    return refuse("NOACK");
                }
                acknowledges = true;
            } else {
                return Err(CommandError::Syntax);
            }
        };
        if !streams.len().is_multiple_of(2) {
            return Err(CommandError::text(
                "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified.",
            ));
        }
        if for_group && group.is_none() {
            return Err(CommandError::text("ERR Missing GROUP option for XREADGROUP"));
        }
        let (keys, ids) = streams.split_at(streams.len() / 2);
        Ok(Self {
            group,
            acknowledges,
            count: if count == 0 { usize::MAX } else { count },
            block,
            keys,
            ids,
        })
    }

    /// When waiting ends.
    fn deadline(&self, now: Millis) -> Option<Millis> {
        let block = self.block.filter(|block| *block > 0);
        block.map(|block| now.saturating_add(block))
    }

    /// Of the keys with their ids, the one that was changed while the command waited.
    fn ready(&self, keys: &Keyspace<'_>) -> Option<(&'a Bytes, &'a Bytes)> {
        let changed = keys.candidates(self.keys).first()?;
        self.keys.iter().zip(self.ids).find(|(key, _)| *key == changed)
    }

    /// How many entries one that waited is given of a stream.
    fn waited_count(&self) -> usize {
        if self.count == usize::MAX {
            WAITED_COUNT
        } else {
            self.count
        }
    }
}

/// Reads for how many milliseconds to wait.
fn timeout(text: &[u8]) -> Result<u64, CommandError> {
    let timeout = args::integer(text).ok_or(CommandError::text(
        "ERR timeout is not an integer or out of range",
    ))?;
    u64::try_from(timeout).map_err(|_| CommandError::text("ERR timeout is negative"))
}

/// The ids behind which `XREAD` reads, with `$` made out.
fn after(view: &View<'_>, reading: &Reading<'_>) -> Result<Vec<Id>, CommandError> {
    let after = |(key, id): (&Bytes, &Bytes)| match (view.stream(key)?, &id[..]) {
        (stream, b"$") => Ok(stream.map_or(Id::MIN, |stream| stream.log.last())),
        (_, b">") => Err(CommandError::text(
            "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
        )),
        (_, id) => Id::parse(id, 0),
    };
    reading.keys.iter().zip(reading.ids).map(after).collect()
}

/// What a stream has behind an id, with its key; none if nothing.
fn behind(key: &Bytes, stream: Option<&Stream>, after: Id, count: usize) -> Option<(Reply, Reply)> {
    let entries = stream?.log.range(after.next()?, Id::MAX).take(count);
    let entries: Vec<Reply> = entries.map(|entry| entry_reply(&entry)).collect();
    (!entries.is_empty()).then(|| (Reply::bulk(key), Reply::Array(entries)))
}

/// What `XREAD` finds at once.
fn found(view: &View<'_>, reading: &Reading<'_>, after: &[Id]) -> Result<Vec<(Reply, Reply)>, CommandError> {
    let streams = reading.keys.iter().zip(after);
    let behind = streams
        .map(|(key, after)| Ok(behind(key, view.stream(key)?, *after, reading.count)))
        .filter_map(Result::transpose);
    behind.collect()
}

fn xread(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let reading = Reading::parse(args, false)?;
    let found = found(view, &reading, &after(view, &reading)?)?;
    Ok(match reading.block {
        _ if !found.is_empty() => Reply::Streams(found),
        Some(_) => Reply::Waiting(0),
        None => Reply::NilArray,
    })
}

/// `XREAD` where it can wait.
fn xread_in_the_log(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let reading = Reading::parse(args, false)?;
    if keys.waited() {
        let found = match reading.ready(keys) {
            Some((key, id)) => {
                let stream = keys.view().stream(key)?;
                behind(key, stream, Id::parse(id, 0)?, reading.waited_count())
            }
            None => None,
        };
        return Ok(found.map_or(Reply::Waiting(0), |found| Reply::Streams(vec![found])));
    }
    let view = keys.view();
    let after = after(&view, &reading)?;
    let found = found(&view, &reading, &after)?;
    if !found.is_empty() {
        return Ok(Reply::Streams(found));
    }
    if reading.block.is_none() {
        return Ok(Reply::NilArray);
    }
    let deadline = reading.deadline(keys.now());
    let argv = waiting_argv(&reading, &after);
    Ok(keys.wait_for(reading.keys, &argv, deadline, Otherwise::NilArray))
}

/// The command that is run again: `$` is what it was when the waiting began.
fn waiting_argv(reading: &Reading<'_>, after: &[Id]) -> Vec<Bytes> {
    let count = reading.waited_count().to_string();
    let words = ["XREAD", "COUNT", &count, "BLOCK", "0", "STREAMS"];
    let words = words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes()));
    let ids = after.iter().map(|id| Bytes::from(id.to_string()));
    words.chain(reading.keys.iter().cloned()).chain(ids).collect()
}

/// What a consumer asks of one stream.
#[derive(Clone, Copy)]
enum Asks {
    /// `>`: what nobody was given.
    New,
    /// What it has not acknowledged, behind this id.
    Own(Id),
}

impl Asks {
    fn parse(id: &[u8]) -> Result<Self, CommandError> {
        match id {
            b">" => Ok(Self::New),
            b"$" => Err(CommandError::text(
                "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by \
                 specifying a proper ID, or use the > ID to get new messages. The $ ID would just return an empty result set.",
            )),
            id => Ok(match Id::parse(id, 0)? {
                Id::MAX => Self::New,
                after => Self::Own(after),
            }),
        }
    }

    /// Whether there is an answer: for one's own there is always one, if an empty one.
    fn has_answer(self, stream: &Stream, group: &Group) -> bool {
        match self {
            Self::New => stream.log.last_entry().is_some_and(|last| last > group.last()),
            Self::Own(_) => true,
        }
    }
}

fn xreadgroup(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let reading = Reading::parse(args, true)?;
    let (group, _) = reading.group.ok_or(CommandError::Syntax)?;
    if keys.waited() {
        return again(keys, &reading, group);
    }
    let mut asked = Vec::new();
    for (key, id) in reading.keys.iter().zip(reading.ids) {
        let is_there = keys
            .view()
            .stream(key)?
            .is_some_and(|stream| stream.group(group).is_some());
        if !is_there {
            let (key, group) = (String::from_utf8_lossy(key), String::from_utf8_lossy(group));
            let text = format!(
                "NOGROUP No such key '{key}' or consumer group '{group}' in XREADGROUP with GROUP option"
            );
            return Err(CommandError::Other(text.into()));
        }
        asked.push((key, Asks::parse(id)?));
    }
    let mut found = Vec::new();
    for (key, asks) in asked {
        found.extend(serve(keys, &reading, key, asks, reading.count)?);
    }
    if !found.is_empty() {
        return Ok(Reply::Streams(found));
    }
    if reading.block.is_none() {
        return Ok(Reply::NilArray);
    }
    let deadline = reading.deadline(keys.now());
    Ok(keys.wait_even_if_gone(reading.keys, args.argv(), deadline, Otherwise::NilArray))
}

/// `XREADGROUP` that waited, for the key that was changed.
fn again(keys: &mut Keyspace<'_>, reading: &Reading<'_>, group: &[u8]) -> Result<Reply, CommandError> {
    let Some((key, _)) = reading.ready(keys) else {
        return Ok(Reply::Waiting(0));
    };
    let view = keys.view();
    let Ok(Some(stream)) = view.stream(key) else {
        return Err(CommandError::text("UNBLOCKED the stream key no longer exists"));
    };
    if stream.group(group).is_none() {
        return Err(CommandError::text(
            "NOGROUP the consumer group this client was blocked on no longer exists",
        ));
    }
    let found = serve(keys, reading, key, Asks::New, reading.waited_count())?;
    Ok(found.map_or(Reply::Waiting(0), |found| Reply::Streams(vec![found])))
}

/// Gives a consumer what it asks of one stream; none if there is nothing. The group is there.
fn serve(
    keys: &mut Keyspace<'_>,
    reading: &Reading<'_>,
    key: &Bytes,
    asks: Asks,
    count: usize,
) -> Result<Option<(Reply, Reply)>, CommandError> {
    let Some((name, consumer)) = reading.group else {
        return Ok(None);
    };
    let view = keys.view();
    let stream = view.stream(key)?;
    let has_answer = stream
        .and_then(|stream| Some(asks.has_answer(stream, stream.group(name)?)))
        .unwrap_or(false);
    if !has_answer {
        return Ok(None);
    }
    let now = keys.now();
    let given = keys.change_kind(key, |stream: &mut Stream| {
        stream.change_group(name, |log, group| {
            let is_new = group.see_consumer(consumer, now);
            let entries = match asks {
                Asks::New => give_new(log, group, consumer, now, count, reading.acknowledges),
                Asks::Own(after) => give_own(log, group, consumer, now, count, after),
            };
            (is_new, entries)
        })
    })?;
    let (is_new, entries) = given.unwrap_or_default();
    if is_new {
        keys.notify(Classes::STREAM, "xgroup-createconsumer", key);
    }
    Ok(Some((Reply::bulk(key), Reply::Array(entries))))
}

/// Gives a consumer what the group has not read.
fn give_new(
    log: &Log,
    group: &mut Group,
    consumer: &[u8],
    now: Millis,
    count: usize,
    acknowledges: bool,
) -> Vec<Reply> {
    let Some(from) = group.last().next() else {
        return Vec::new();
    };
    let entries = log.range(from, Id::MAX).take(count);
    let give = |entry| {
        let entry: crate::machine::value::stream::Entry<'_> = entry;
        group.note_read(log, entry.id);
        if !acknowledges {
            group.assign(entry.id, consumer, now, 1);
        }
        entry_reply(&entry)
    };
    entries.map(give).collect()
}

/// Gives a consumer again what it has not acknowledged; of entries that are gone the id alone.
fn give_own(
    log: &Log,
    group: &mut Group,
    consumer: &[u8],
    now: Millis,
    count: usize,
    after: Id,
) -> Vec<Reply> {
    let own = group.consumers().get(consumer).zip(after.next());
    let ids: Vec<Id> = own
        .map(|(consumer, from)| consumer.pending().range(from..).take(count).copied().collect())
        .unwrap_or_default();
    let give = |id: Id| match log.get(id) {
        Some(entry) => {
            group.deliver_again(id, now);
            entry_reply(&entry)
        }
        None => Reply::Array(vec![id_reply(id), Reply::NilArray]),
    };
    ids.into_iter().map(give).collect()
}
