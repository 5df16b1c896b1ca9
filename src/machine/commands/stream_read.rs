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
            let (key, group) = (args::quoted(key), args::quoted(group));
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

#[cfg(test)]
mod tests {
    use crate::machine::entry::{Command, Entry, Millis, Origin};
    use crate::machine::event::{Classes, Event};
    use crate::machine::reply::Reply;
    use crate::machine::{Machine, Outcome, internal, snapshot};

    /// A machine and a node that sends it one command at a time.
    #[derive(Default)]
    struct Log {
        machine: Machine,
        sent: u64,
        at: Millis,
    }

    impl Log {
        /// What a command answers.
        fn send(&mut self, line: &str) -> Reply {
            self.sent += 1;
            let origin = Origin {
                node: 1,
                start: 1,
                number: self.sent,
            };
            let mut replies = self.apply(origin, vec![command(line)]);
            replies.pop().expect("one command, one reply")
        }

        fn apply(&mut self, origin: Origin, commands: Vec<Command>) -> Vec<Reply> {
            let entry = Entry {
                format: Entry::FORMAT,
                at: self.at,
                seed: self.sent,
                origin,
                commands,
            };
            match self.machine.apply(&entry) {
                Outcome::Applied(replies) => replies,
                other => panic!("in order, and not applied: {other:?}"),
            }
        }

        /// Sends a command that is to wait; its number.
        fn wait(&mut self, line: &str) -> u64 {
            match self.send(line) {
                Reply::Waiting(number) if number > 0 => number,
                other => panic!("{line} did not wait: {other:?}"),
            }
        }

        /// Lets time pass, as the leader's ticks do.
        fn tick(&mut self, at: Millis) {
            self.at = at;
            self.apply(Origin::default(), Vec::new());
        }

        /// Who was answered since this was last asked, and what.
        fn answers(&mut self) -> Vec<(u64, String)> {
            let events = self.machine.store_mut().take_events();
            let answer = |event| match event {
                Event::Answered { waiter, reply } => Some((waiter.number, shown(&reply))),
                _ => None,
            };
            events.into_iter().filter_map(answer).collect()
        }

        /// The same as a node that starts from a snapshot has it.
        fn restored(&self) -> Self {
            let mut bytes = Vec::new();
            snapshot::write(&self.machine, &mut bytes).expect("a Vec takes everything");
            let machine = snapshot::read(&mut &bytes[..]).expect("written just above");
            assert_eq!(machine.digest(), self.machine.digest());
            assert_eq!(machine.store().bytes(), self.machine.store().bytes());
            Self { machine, ..*self }
        }
    }

    fn command(line: &str) -> Command {
        Command::new(0, line.split(' ').map(|word| word.as_bytes().to_vec()))
    }

    /// A reply in one line.
    fn shown(reply: &Reply) -> String {
        match reply {
            Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Reply::Integer(number) => number.to_string(),
            Reply::Array(items) => {
                let items: Vec<String> = items.iter().map(shown).collect();
                format!("[{}]", items.join(" "))
            }
            Reply::Streams(pairs) => {
                let pairs: Vec<String> = pairs
                    .iter()
                    .map(|(key, entries)| format!("{}: {}", shown(key), shown(entries)))
                    .collect();
                pairs.join(", ")
            }
            Reply::Error(error) => error.to_string(),
            other => format!("{other:?}"),
        }
    }

    fn answer(number: u64, text: &str) -> (u64, String) {
        (number, text.to_owned())
    }

    #[test]
    fn readers_get_what_came_since_they_began_to_wait_all_of_them_first_come_first() {
        let mut log = Log::default();
        log.send("XADD s 1 a 1");
        let new = log.wait("XREAD BLOCK 0 STREAMS s t $ $");
        let later = log.wait("XREAD BLOCK 0 STREAMS s 2-5");
        let other = log.wait("XREAD BLOCK 0 STREAMS t t 5 0");
        log.send("XADD s 2 a 2");
        assert_eq!(log.answers(), [answer(new, "s: [[2-0 [a 2]]]")]);
        log.send("XADD s 3 a 3");
        assert_eq!(log.answers(), [answer(later, "s: [[3-0 [a 3]]]")]);
        // Of a stream named twice the first id counts.
        log.send("XADD t 5 a 1");
        assert_eq!(log.answers(), []);
        log.send("XADD t 6 a 2");
        assert_eq!(log.answers(), [answer(other, "t: [[6-0 [a 2]]]")]);
        assert!(log.machine.store().waiting().is_empty());
    }

    #[test]
    fn a_reader_waits_on_when_what_came_is_nothing_for_it() {
        let mut log = Log::default();
        log.send("XADD s 666 a 1");
        let number = log.wait("XREAD BLOCK 0 STREAMS s $");
        for line in [
            "DEL s",
            "XADD s 5 a 1",
            "SET s x",
            "DEL s",
            "XGROUP CREATE s g 0 MKSTREAM",
            "XSETID s 700",
        ] {
            log.send(line);
            assert_eq!(log.answers(), [], "{line}");
        }
        log.send("XADD s 701 a 1");
        assert_eq!(log.answers(), [answer(number, "s: [[701-0 [a 1]]]")]);
    }

    #[test]
    fn a_reader_that_gave_no_count_is_given_a_thousand() {
        let mut log = Log::default();
        for number in 1..=1_200 {
            log.send(&format!("XADD other {number} a 1"));
        }
        let all = log.wait("XREAD BLOCK 0 STREAMS s 0");
        let two = log.wait("XREAD COUNT 2 BLOCK 0 STREAMS s 0");
        log.send("RENAME other s");
        let answers = log.answers();
        let entries: Vec<(u64, usize)> = answers
            .iter()
            .map(|(number, text)| (*number, text.matches("[a 1]").count()))
            .collect();
        assert_eq!(entries, [(all, 1_000), (two, 2)]);
    }

    #[test]
    fn readers_give_up_when_their_time_is_over() {
        let mut log = Log::default();
        log.tick(1_000);
        let reader = log.wait("XREAD BLOCK 50 STREAMS s $");
        log.send("XGROUP CREATE s g $ MKSTREAM");
        let consumer = log.wait("XREADGROUP GROUP g c BLOCK 60 STREAMS s >");
        log.tick(1_050);
        assert_eq!(log.answers(), []);
        log.tick(1_051);
        assert_eq!(log.answers(), [answer(reader, "NilArray")]);
        log.tick(2_000);
        assert_eq!(log.answers(), [answer(consumer, "NilArray")]);
    }

    #[test]
    fn each_entry_goes_to_one_consumer_of_each_group() {
        let mut log = Log::default();
        log.send("XGROUP CREATE s g $ MKSTREAM");
        log.send("XGROUP CREATE s h $");
        let waits = ["g alice", "g bob", "h carol", "h dave"];
        let numbers = waits.map(|who| log.wait(&format!("XREADGROUP GROUP {who} BLOCK 0 STREAMS s >")));
        log.send("XADD s 1 a 1");
        let first = "s: [[1-0 [a 1]]]";
        assert_eq!(
            log.answers(),
            [answer(numbers[0], first), answer(numbers[2], first)]
        );
        assert_eq!(shown(&log.send("XPENDING s g")), "[1 1-0 1-0 [[alice 1]]]");
        let consumers = shown(&log.send("XPENDING s g - + 10 bob"));
        assert_eq!(consumers, "[]", "who is given nothing is not entered");
        log.send("XADD s 2 a 2");
        let second = "s: [[2-0 [a 2]]]";
        assert_eq!(
            log.answers(),
            [answer(numbers[1], second), answer(numbers[3], second)]
        );
        log.send("XACK s g 1 2");
        assert_eq!(shown(&log.send("XPENDING s g")), "[0 Nil Nil NilArray]");
    }

    #[test]
    fn a_consumer_hears_that_its_stream_or_group_is_gone() {
        const GONE: &str = "UNBLOCKED the stream key no longer exists";
        const NO_GROUP: &str = "NOGROUP the consumer group this client was blocked on no longer exists";
        for (line, text) in [
            ("DEL s", GONE),
            ("SET s x", GONE),
            ("FLUSHALL", GONE),
            ("SWAPDB 0 1", GONE),
            ("RENAME s u", GONE),
            ("PEXPIREAT s 1", GONE),
            ("XGROUP DESTROY s g", NO_GROUP),
            ("RENAME without s", NO_GROUP),
            ("RENAME with s", "s: [[9-0 [a 1]]]"),
        ] {
            let mut log = Log::default();
            log.tick(1_000);
            log.send("XGROUP CREATE s g $ MKSTREAM");
            log.send("XGROUP CREATE t g $ MKSTREAM");
            log.send("XGROUP CREATE with g $ MKSTREAM");
            log.send("XADD with 9 a 1");
            log.send("XADD without 9 a 1");
            let number = log.wait("XREADGROUP GROUP g c BLOCK 0 STREAMS t s > >");
            log.send(line);
            assert_eq!(log.answers(), [answer(number, text)], "{line}");
        }
    }

    #[test]
    fn a_consumer_hears_that_its_stream_has_ended_without_a_command() {
        let mut log = Log::default();
        log.tick(1_000);
        log.send("XGROUP CREATE s g $ MKSTREAM");
        log.send("PEXPIREAT s 1500");
        let number = log.wait("XREADGROUP GROUP g c BLOCK 0 STREAMS s >");
        log.tick(1_501);
        assert_eq!(
            log.answers(),
            [answer(number, "UNBLOCKED the stream key no longer exists")]
        );
    }

    #[test]
    fn what_is_gone_before_it_is_read_wakes_nobody() {
        let mut log = Log::default();
        log.send("XGROUP CREATE s g $ MKSTREAM");
        log.send("XADD s 666 a 1");
        log.send("XDEL s 666");
        let reader = log.wait("XREAD BLOCK 0 STREAMS s 665");
        let consumer = log.wait("XREADGROUP GROUP g c BLOCK 0 STREAMS s >");
        log.send("XSETID s 700");
        assert_eq!(log.answers(), []);
        log.send("XADD s 701 a 1");
        let text = "s: [[701-0 [a 1]]]";
        assert_eq!(log.answers(), [answer(reader, text), answer(consumer, text)]);
    }

    #[test]
    fn of_a_transaction_everything_is_read_at_once_or_nothing() {
        let mut log = Log::default();
        log.send("XGROUP CREATE s g $ MKSTREAM");
        let reader = log.wait("XREAD BLOCK 0 STREAMS s s $ $");
        let consumer = log.wait("XREADGROUP GROUP g c BLOCK 0 STREAMS s >");
        let mut transaction = |lines: &[&str]| {
            log.sent += 1;
            let origin = Origin {
                node: 1,
                start: 1,
                number: log.sent,
            };
            let commands = lines.iter().map(|line| command(line)).collect();
            log.apply(origin, vec![internal::exec(&[], commands)]);
            log.answers()
        };
        assert_eq!(transaction(&["XADD s 1 a 1", "XDEL s 1"]), []);
        let both = "s: [[2-0 [a 2]] [3-0 [a 3]]]";
        assert_eq!(
            transaction(&["XADD s 2 a 2", "XADD s 3 a 3", "XREAD BLOCK 0 STREAMS s $"]),
            [answer(reader, both), answer(consumer, both)]
        );
    }

    #[test]
    fn what_happens_to_a_stream_is_told_under_the_names_of_redis() {
        let mut log = Log::default();
        log.tick(1_000);
        log.machine.store.settings_mut().notify_keyspace_events = Classes::parse("KA").expect("letters");
        let told = [
            ("XGROUP CREATE s g 0 MKSTREAM", "xgroup-create"),
            ("XADD s 1 a 1", "xadd"),
            ("XADD s MAXLEN 1 2 a 2", "xadd xtrim"),
            ("XADD s MAXLEN 9 3 a 3", "xadd"),
            ("XREADGROUP GROUP g alice STREAMS s >", "xgroup-createconsumer"),
            ("XREADGROUP GROUP g alice STREAMS s >", ""),
            ("XCLAIM s g bob 0 2", "xgroup-createconsumer"),
            ("XAUTOCLAIM s g carol 0 0", "xgroup-createconsumer"),
            ("XACK s g 2", ""),
            ("XGROUP CREATECONSUMER s g dave", "xgroup-createconsumer"),
            ("XGROUP CREATECONSUMER s g dave", ""),
            ("XGROUP DELCONSUMER s g dave", "xgroup-delconsumer"),
            ("XGROUP DELCONSUMER s g dave", ""),
            ("XGROUP SETID s g 0", "xgroup-setid"),
            ("XTRIM s MAXLEN 1", "xtrim"),
            ("XTRIM s MAXLEN 1", ""),
            ("XSETID s 9", "xsetid"),
            ("XDEL s 3 4", "xdel"),
            ("XDEL s 3 4", ""),
            ("XGROUP DESTROY s g", "xgroup-destroy"),
        ];
        for (line, names) in told {
            let before = log.machine.store().revision();
            log.send(line);
            let events = log.machine.store_mut().take_events();
            let messages = events.iter().filter_map(|event| match event {
                Event::Message { message, .. } => Some(String::from_utf8_lossy(message).into_owned()),
                _ => None,
            });
            assert_eq!(messages.collect::<Vec<_>>().join(" "), names, "{line}");
            let changed = log.machine.store().revision() > before;
            assert!(
                changed || names.is_empty(),
                "{line} changed nothing and tells of it"
            );
        }
    }

    #[test]
    fn a_command_that_finds_nothing_to_do_changes_nothing() {
        let mut log = Log::default();
        for line in [
            "XADD s 1 a 1",
            "XGROUP CREATE s g 0",
            "XREADGROUP GROUP g c STREAMS s >",
        ] {
            log.send(line);
        }
        for line in [
            "XADD s 1 a 1",
            "XADD t NOMKSTREAM 1 a 1",
            "XDEL s 5",
            "XTRIM s MAXLEN 1",
            "XTRIM s MAXLEN ~ 0 LIMIT 0 x",
            "XREADGROUP GROUP g new STREAMS s >",
            "XREADGROUP GROUP g new BLOCK 0 STREAMS s >",
            "XACK s g 5",
            "XCLAIM s g new 100 1",
            "XCLAIM s g new 0 7 8",
            "XAUTOCLAIM s g new 100 0",
            "XGROUP DESTROY s h",
            "XGROUP CREATE s g 0 MKSTREAM",
            "XREAD BLOCK 0 STREAMS s $",
        ] {
            let before = log.machine.store().revision();
            log.send(line);
            assert_eq!(log.machine.store().revision(), before, "{line}");
        }
    }

    #[test]
    fn nobody_waits_outside_the_log_or_without_a_caller() {
        let mut log = Log::default();
        let block = command("XREAD BLOCK 0 STREAMS s $");
        assert_eq!(log.machine.read(0, 0, &block.argv), Reply::Waiting(0));
        assert_eq!(
            log.apply(Origin::default(), vec![block.clone()]),
            [Reply::NilArray]
        );
        log.send("XADD s 1 a 1");
        assert_eq!(log.machine.read(0, 0, &block.argv), Reply::Waiting(0));
        let found = command("XREAD BLOCK 0 STREAMS s 0");
        assert_eq!(shown(&log.machine.read(0, 0, &found.argv)), "s: [[1-0 [a 1]]]");
        assert!(log.machine.store().waiting().is_empty());
    }

    #[test]
    fn a_node_started_from_a_snapshot_goes_on_with_groups_and_who_waits() {
        let mut log = Log::default();
        for number in 1..=250 {
            log.send(&format!("XADD s {number} a {number} b x"));
        }
        log.send("XADD s 300 c 1");
        log.send("XDEL s 7 120 250");
        log.send("XTRIM s MAXLEN 220");
        log.send("XGROUP CREATE s g 40");
        log.send("XGROUP CREATE s h $ ENTRIESREAD 251");
        log.send("XREADGROUP GROUP g alice COUNT 3 STREAMS s >");
        log.send("XREADGROUP GROUP g bob COUNT 300 STREAMS s >");
        log.send("XCLAIM s g carol 0 41 42 RETRYCOUNT 7");
        log.send("XGROUP CREATECONSUMER s h dave");
        log.wait("XREADGROUP GROUP h dave BLOCK 0 STREAMS s >");
        log.wait("XREADGROUP GROUP h erin BLOCK 0 STREAMS s >");
        log.wait("XREAD BLOCK 0 STREAMS s $");
        log.answers();
        let mut other = log.restored();
        for line in [
            "XINFO STREAM s FULL COUNT 0",
            "XADD s MAXLEN ~ 100 400 a 1 b 1",
            "XINFO STREAM s FULL COUNT 0",
            "XACK s g 41",
            "XAUTOCLAIM s g dave 0 - COUNT 20",
            "XGROUP DESTROY s h",
            "XPENDING s g",
            "XDEL s 300 400",
            "DEL s",
        ] {
            assert_eq!(log.send(line), other.send(line), "{line}");
            assert_eq!(log.answers(), other.answers(), "{line}");
            assert_eq!(log.machine.digest(), other.machine.digest(), "{line}");
            assert_eq!(
                log.machine.store().bytes(),
                other.machine.store().bytes(),
                "{line}"
            );
        }
        assert!(log.machine.store().waiting().is_empty());
        assert_eq!(log.machine.store().bytes(), 0, "what is gone counts no more");
    }
}
