//! String commands: one run of bytes under one key. Bitmaps and HyperLogLogs, which are strings too, are not here.
//!
//! Follows Redis 7.0, encodings as `OBJECT ENCODING` shows them included.

use super::expiry::{self, Time};
use crate::machine::args::{self, Args};
use crate::machine::event::Classes;
use crate::machine::float::Float;
use crate::machine::keyspace::{End, Keyspace, View};
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{Renewed, Spec, read, write};
use crate::machine::value::{Str, Value};
use bytes::Bytes;

pub(super) const COMMANDS: &[Spec] = &[
    write("APPEND", "key value", append)
        .since("2.0.0")
        .flags("denyoom fast")
        .summary("Adds bytes at the end of a string; an absent key is created."),
    write("DECR", "key", decr).flags("denyoom fast").summary("Takes one from an integer; an absent key counts as 0."),
    write("DECRBY", "key decrement", decrby)
        .flags("denyoom fast")
        .summary("Takes a number from an integer; an absent key counts as 0."),
    read("GET", "key", get).flags("fast").summary("The string under a key."),
    write("GETDEL", "key", getdel).since("6.2.0").flags("fast").summary("The string under a key, which is then removed."),
    write("GETEX", "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST]", getex)
        .since("6.2.0")
        .flags("fast")
        .renews(renew)
        .summary("The string under a key, whose deadline is then set or taken away."),
    read("GETRANGE", "key start end", getrange).since("2.4.0").summary("A part of a string, both ends included; negative positions count from its end."),
    write("GETSET", "key value", getset)
        .flags("denyoom fast")
        .summary("Sets a string and gives the one before. SET with GET does the same."),
    write("INCR", "key", incr).flags("denyoom fast").summary("Adds one to an integer; an absent key counts as 0."),
    write("INCRBY", "key increment", incrby)
        .flags("denyoom fast")
        .summary("Adds a number to an integer; an absent key counts as 0."),
    write("INCRBYFLOAT", "key increment", incrbyfloat)
        .since("2.6.0")
        .flags("denyoom fast")
        .summary("Adds to a floating-point number; an absent key counts as 0."),
    read("LCS", "key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]", lcs)
        .since("7.0.0")
        .summary("The longest sequence of bytes that two strings have in common, its length, or where its pieces stand."),
    read("MGET", "key [key ...]", mget).flags("fast").summary("The strings under several keys, nil where there is none."),
    write("MSET", "key value [key value ...]", mset)
        .since("1.0.1")
        .flags("denyoom")
        .summary("Sets several strings at once."),
    write("MSETNX", "key value [key value ...]", msetnx)
        .since("1.0.1")
        .flags("denyoom")
        .summary("Sets several strings at once, or none if one of the keys is there already."),
    write("PSETEX", "key milliseconds value", psetex)
        .since("2.6.0")
        .flags("denyoom")
        .summary("Sets a string that ends after so many milliseconds."),
    write("SET", "key value [NX | XX] [GET] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]", set)
        .flags("denyoom")
        .summary("Sets a string, with its deadline, on a condition, or for the one before."),
    write("SETEX", "key seconds value", setex)
        .since("2.0.0")
        .flags("denyoom")
        .summary("Sets a string that ends after so many seconds."),
    write("SETNX", "key value", setnx).flags("denyoom fast").summary("Sets a string if the key is absent."),
    write("SETRANGE", "key offset value", setrange)
        .since("2.2.0")
        .flags("denyoom")
        .summary("Overwrites a part of a string, which is filled up with zero bytes as far as needed."),
    read("STRLEN", "key", strlen).since("2.2.0").flags("fast").summary("The length of a string in bytes; 0 if the key is absent."),
    read("SUBSTR", "key start end", getrange).summary("A part of a string: the old name of GETRANGE."),
];

/// The longest string, in bytes: Redis' `proto-max-bulk-len`. A fuzzer would spend its hour on filling such strings with zeros.
pub(super) const STRING_MAX: usize = if cfg!(fuzzing) { 1 << 20 } else { 512 << 20 };

fn get(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    content(view, args.key()?)
}

fn mget(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    // A key of another type is nil here, not an error.
    let one = |key: &Bytes| content(view, key).unwrap_or(Reply::Nil);
    Ok(Reply::Array(args.rest().iter().map(one).collect()))
}

fn strlen(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    Ok(Reply::count(
        view.string(args.key()?)?.map_or(0, |string| string.bytes().len()),
    ))
}

fn getrange(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, start, end) = (args.key()?, args.integer()?, args.integer()?);
    let Some(string) = view.string(key)? else {
        return Ok(Reply::Bulk(Bytes::new()));
    };
    let bytes = string.bytes();
    let length = i64::try_from(bytes.len()).expect("at most STRING_MAX");
    // Backwards is empty, also where both ends would be cut to the first byte.
    if start < 0 && end < 0 && start > end {
        return Ok(Reply::Bulk(Bytes::new()));
    }
    let position = |at: i64| {
        if at < 0 {
            at.saturating_add(length).max(0)
        } else {
            at
        }
    };
    let (start, end) = (position(start), position(end).min(length - 1));
    if start > end {
        return Ok(Reply::Bulk(Bytes::new()));
    }
    let index = |at: i64| usize::try_from(at).expect("between 0 and the length: just cut");
    Ok(Reply::Bulk(bytes.slice(index(start)..=index(end))))
}

/// What is under a key as a bulk, nil if nothing.
fn content(view: &View<'_>, key: &[u8]) -> Result<Reply, CommandError> {
    Ok(Reply::bulk_or_nil(
        view.string(key)?.map(|string| string.bytes().clone()),
    ))
}

/// What `SET` and `GETEX` do with the key's life.
#[derive(Clone, Copy, PartialEq)]
enum Life<'a> {
    /// Nothing was said: `SET` takes a deadline away, `GETEX` leaves it.
    Unsaid,
    Keep,
    Persist,
    Until(Time, &'a Bytes),
}

impl Life<'_> {
    /// When the key is to end, if that was said.
    fn end(
        self,
        keys: &Keyspace<'_>,
        key: &[u8],
        command: &'static str,
    ) -> Result<Option<End>, CommandError> {
        let Life::Until(time, amount) = self else {
            return Ok(None);
        };
        let deadline = time.positive_deadline(amount, keys.now(), command)?;
        Ok(Some(time.end(keys, key, deadline)))
    }
}

/// The condition on which `SET` sets.
#[derive(Clone, Copy, PartialEq)]
enum Only {
    Absent,
    Present,
}

struct SetOptions<'a> {
    only: Option<Only>,
    get: bool,
    life: Life<'a>,
}

impl<'a> SetOptions<'a> {
    /// Words may be said twice and come in any order, but none against another.
    fn parse(args: &mut Args<'a>) -> Result<Self, CommandError> {
        let mut options = Self {
            only: None,
            get: false,
            life: Life::Unsaid,
        };
        while !args.is_empty() {
            if options.only != Some(Only::Present) && args.keyword("NX") {
                options.only = Some(Only::Absent);
            } else if options.only != Some(Only::Absent) && args.keyword("XX") {
                options.only = Some(Only::Present);
            } else if args.keyword("GET") {
                options.get = true;
            } else if matches!(options.life, Life::Unsaid | Life::Keep) && args.keyword("KEEPTTL") {
                options.life = Life::Keep;
            } else {
                options.life = until(args, options.life)?;
            }
        }
        Ok(options)
    }
}

/// `EX`, `PX`, `EXAT` or `PXAT` with its number, unless another way of life was said before.
fn until<'a>(args: &mut Args<'a>, before: Life<'a>) -> Result<Life<'a>, CommandError> {
    let time = Time::keyword(args).ok_or(CommandError::Syntax)?;
    match before {
        Life::Unsaid => {}
        Life::Until(same, _) if same == time => {}
        _ => return Err(CommandError::Syntax),
    }
    Ok(Life::Until(time, args.bytes()?))
}

fn set(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, value) = (args.key()?, args.bytes()?);
    let options = SetOptions::parse(args)?;
    let end = options.life.end(keys, key, "set")?;
    let old = if options.get {
        Some(content(&keys.view(), key)?)
    } else {
        None
    };
    let refused = match options.only {
        Some(Only::Absent) => keys.view().slot(key).is_some(),
        Some(Only::Present) => keys.view().slot(key).is_none(),
        None => false,
    };
    if refused {
        return Ok(old.unwrap_or(Reply::Nil));
    }
    match options.life {
        Life::Keep => keys.put_keeping_deadline(key, Value::string(value)),
        _ => keys.put_until(key, Value::string(value), end.unwrap_or(End::NEVER)),
    }
    tell_set(keys, key, end.is_some());
    Ok(old.unwrap_or(Reply::OK))
}

/// Tells that a string was set, and that it has a deadline.
fn tell_set(keys: &mut Keyspace<'_>, key: &[u8], ends: bool) {
    keys.notify(Classes::STRING, "set", key);
    if ends {
        keys.notify(Classes::GENERIC, "expire", key);
    }
}

fn setex(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    set_for(keys, args, Time::InSeconds, "setex")
}

fn psetex(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    set_for(keys, args, Time::InMillis, "psetex")
}

fn set_for(
    keys: &mut Keyspace<'_>,
    args: &mut Args<'_>,
    time: Time,
    command: &'static str,
) -> Result<Reply, CommandError> {
    let (key, amount, value) = (args.key()?, args.bytes()?, args.bytes()?);
    let deadline = time.positive_deadline(amount, keys.now(), command)?;
    keys.put_until(key, Value::string(value), time.end(keys, key, deadline));
    tell_set(keys, key, true);
    Ok(Reply::OK)
}

fn setnx(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, value) = (args.key()?, args.bytes()?);
    let absent = keys.view().slot(key).is_none();
    if absent {
        keys.put(key, Value::string(value));
        tell_set(keys, key, false);
    }
    Ok(Reply::flag(absent))
}

fn getset(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, value) = (args.key()?, args.bytes()?);
    let old = content(&keys.view(), key)?;
    keys.put(key, Value::string(value));
    tell_set(keys, key, false);
    Ok(old)
}

fn getdel(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let key = args.key()?;
    let old = content(&keys.view(), key)?;
    if keys.remove(key).is_some() {
        keys.notify(Classes::GENERIC, "del", key);
    }
    Ok(old)
}

fn getex(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, life) = (args.key()?, getex_life(args)?);
    let content = content(&keys.view(), key)?;
    // Redis looks at the number only when there is a key whose life it could be.
    if content == Reply::Nil {
        return Ok(content);
    }
    match life.end(keys, key, "getex")? {
        Some(end) => expiry::end_at(keys, key, end),
        None if life == Life::Persist => {
            expiry::persist(keys, key);
        }
        None => {}
    }
    Ok(content)
}

/// What `GETEX` answers where the key has the life that is asked for already.
fn renew(view: &View<'_>, args: &mut Args<'_>) -> Option<Renewed> {
    let key = args.key().ok()?;
    let Life::Until(time, amount) = getex_life(args).ok()? else {
        return None;
    };
    expiry::renewed(view, key, time, amount, || content(view, key).ok())
}

fn getex_life<'a>(args: &mut Args<'a>) -> Result<Life<'a>, CommandError> {
    let mut life = Life::Unsaid;
    while !args.is_empty() {
        life = if matches!(life, Life::Unsaid | Life::Persist) && args.keyword("PERSIST") {
            Life::Persist
        } else {
            until(args, life)?
        };
    }
    Ok(life)
}

fn mset(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    for (key, value) in pairs(args, "mset")? {
        keys.put(key, Value::string(value));
        tell_set(keys, key, false);
    }
    Ok(Reply::OK)
}

fn msetnx(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let pairs = pairs(args, "msetnx")?;
    let view = keys.view();
    let absent = pairs.clone().all(|(key, _)| view.slot(key).is_none());
    if absent {
        for (key, value) in pairs {
            keys.put(key, Value::string(value));
            tell_set(keys, key, false);
        }
    }
    Ok(Reply::flag(absent))
}

fn pairs<'a>(
    args: &mut Args<'a>,
    command: &str,
) -> Result<impl Iterator<Item = (&'a Bytes, &'a Bytes)> + Clone + use<'a>, CommandError> {
    let words = args.rest();
    if words.len() % 2 == 1 {
        return Err(CommandError::Arity(command.to_owned()));
    }
    Ok(words.chunks_exact(2).map(|pair| (&pair[0], &pair[1])))
}

fn append(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, added) = (args.key()?, args.bytes()?);
    let Some(old) = keys.view().string(key)?.map(|string| string.bytes().len()) else {
        keys.put(key, Value::string(added));
        keys.notify(Classes::STRING, "append", key);
        return Ok(Reply::count(added.len()));
    };
    bounded(old, added.len())?;
    change(keys, key, |string| {
        string.change(|bytes| bytes.extend_from_slice(added))
    });
    keys.notify(Classes::STRING, "append", key);
    Ok(Reply::count(old + added.len()))
}

fn setrange(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, offset, part) = (args.key()?, args.integer()?, args.bytes()?);
    let offset = usize::try_from(offset).map_err(|_| CommandError::text("ERR offset is out of range"))?;
    let old = keys.view().string(key)?.map(|string| string.bytes().len());
    if part.is_empty() {
        return Ok(Reply::count(old.unwrap_or(0)));
    }
    let end = bounded(offset, part.len())?;
    if old.is_none() {
        keys.put(key, Value::string(b""));
    }
    let length = end.max(old.unwrap_or(0));
    change(keys, key, |string| {
        string.change(|bytes| {
            bytes.resize(length, 0);
            bytes[offset..end].copy_from_slice(part);
        });
    });
    keys.notify(Classes::STRING, "setrange", key);
    Ok(Reply::count(length))
}

/// The length of a string of these two parts, at most [`STRING_MAX`].
fn bounded(before: usize, added: usize) -> Result<usize, CommandError> {
    before
        .checked_add(added)
        .filter(|length| *length <= STRING_MAX)
        .ok_or(CommandError::text(
            "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
        ))
}

/// Changes a string that was seen to be there.
fn change(keys: &mut Keyspace<'_>, key: &[u8], change: impl FnOnce(&mut Str)) {
    keys.change(key, |value| {
        if let Value::String(string) = value {
            change(string);
        }
    });
}

fn incr(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    add(keys, args.key()?, 1)
}

fn decr(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    add(keys, args.key()?, -1)
}

fn incrby(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, increment) = (args.key()?, args.integer()?);
    add(keys, key, increment)
}

fn decrby(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, decrement) = (args.key()?, args.integer()?);
    let increment = decrement
        .checked_neg()
        .ok_or(CommandError::text("ERR decrement would overflow"))?;
    add(keys, key, increment)
}

/// Adds to the integer under `key` (absent counts as 0) and replies the sum. The deadline stays.
fn add(keys: &mut Keyspace<'_>, key: &[u8], increment: i64) -> Result<Reply, CommandError> {
    let old = match keys.view().string(key)? {
        Some(string) => args::integer(string.bytes()).ok_or(CommandError::NotAnInteger)?,
        None => 0,
    };
    let sum = old.checked_add(increment).ok_or(CommandError::IntegerOverflow)?;
    keys.put_keeping_deadline(key, Value::string(sum.to_string().as_bytes()));
    keys.notify(Classes::STRING, "incrby", key);
    Ok(Reply::Integer(sum))
}

fn incrbyfloat(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, increment) = (args.key()?, args.bytes()?);
    let old = match keys.view().string(key)? {
        Some(string) => Float::parse(string.bytes()).ok_or(CommandError::NotAFloat)?,
        None => Float::ZERO,
    };
    let increment = Float::parse(increment).ok_or(CommandError::NotAFloat)?;
    let sum = old
        .add(increment)
        .ok_or(CommandError::text("ERR increment would produce NaN or Infinity"))?;
    let text = Bytes::from(sum.to_text());
    // Also a whole sum is text to Redis, until the next SET or INCR.
    keys.put_keeping_deadline(key, Value::String(Str::as_text(text.clone())));
    keys.notify(Classes::STRING, "incrbyfloat", key);
    Ok(Reply::Bulk(text))
}

fn lcs(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (left, right) = (args.key()?, args.key()?);
    let string = |key: &[u8]| match view.string(key) {
        Ok(string) => Ok(string.map_or(Bytes::new(), |string| string.bytes().clone())),
        Err(_) => Err(CommandError::text(
            "ERR The specified keys must contain string values",
        )),
    };
    let (left, right) = (string(left)?, string(right)?);
    let (mut length_only, mut ranges, mut with_lengths, mut least) = (false, false, false, 0);
    while !args.is_empty() {
        if args.keyword("IDX") {
            ranges = true;
        } else if args.keyword("LEN") {
            length_only = true;
        } else if args.keyword("WITHMATCHLEN") {
            with_lengths = true;
        } else if args.remaining() > 1 && args.keyword("MINMATCHLEN") {
            least = u64::try_from(args.integer()?.max(0)).expect("not negative");
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if ranges && length_only {
        return Err(CommandError::text(
            "ERR If you want both the length and indexes, please just use IDX.",
        ));
    }
    let common = lcs::Common::of(&left, &right)?;
    if length_only {
        return Ok(Reply::count(common.length()));
    }
    if !ranges {
        return Ok(Reply::Bulk(common.text().into()));
    }
    let pair = |start: usize, length: usize| {
        Reply::Array(vec![Reply::count(start), Reply::count(start + length - 1)])
    };
    let matches = common
        .runs()
        .into_iter()
        .filter(|run| run.length as u64 >= least)
        .map(|run| {
            let mut parts = vec![pair(run.left, run.length), pair(run.right, run.length)];
            parts.extend(with_lengths.then(|| Reply::count(run.length)));
            Reply::Array(parts)
        });
    let matches = Reply::Array(matches.collect());
    Ok(Reply::Map(vec![
        (Reply::bulk("matches"), matches),
        (Reply::bulk("len"), Reply::count(common.length())),
    ]))
}

mod lcs {
    //! The longest common subsequence of two strings, by the table that everybody learns.

    use super::{CommandError, STRING_MAX};

    /// The table of two strings: at each corner the length of what the beginnings up to there have in common.
    pub(super) struct Common<'a> {
        left: &'a [u8],
        right: &'a [u8],
        lengths: Vec<u32>,
    }

    /// A run of bytes that both strings have, where it begins in each, and how long it is.
    #[derive(Clone, Copy)]
    pub(super) struct Run {
        pub(super) left: usize,
        pub(super) right: usize,
        pub(super) length: usize,
    }

    impl<'a> Common<'a> {
        /// # Errors
        /// When the table would take more than [`STRING_MAX`] bytes, as in Redis, or more than there are.
        pub(super) fn of(left: &'a [u8], right: &'a [u8]) -> Result<Self, CommandError> {
            let width = right.len() + 1;
            let cells = width.saturating_mul(left.len() + 1);
            if cells.saturating_mul(size_of::<u32>()) > STRING_MAX {
                return Err(CommandError::text(
                    "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
                ));
            }
            let mut lengths = Vec::new();
            lengths.try_reserve_exact(cells).map_err(|_| {
                CommandError::text("ERR Insufficient memory, failed allocating transient memory for LCS")
            })?;
            lengths.resize(cells, 0);
            for (row, of_left) in left.iter().enumerate() {
                for (column, of_right) in right.iter().enumerate() {
                    let corner = row * width + column;
                    lengths[corner + width + 1] = if of_left == of_right {
                        lengths[corner] + 1
                    } else {
                        lengths[corner + 1].max(lengths[corner + width])
                    };
                }
            }
            Ok(Self { left, right, lengths })
        }

        pub(super) fn length(&self) -> usize {
            self.lengths.last().map_or(0, |length| *length as usize)
        }

        pub(super) fn text(&self) -> Vec<u8> {
            let runs = self.runs();
            runs.iter()
                .rev()
                .flat_map(|run| &self.left[run.left..run.left + run.length])
                .copied()
                .collect()
        }

        /// The runs from the last to the first, as Redis finds them.
        pub(super) fn runs(&self) -> Vec<Run> {
            let width = self.right.len() + 1;
            let (mut left, mut right) = (self.left.len(), self.right.len());
            let mut runs: Vec<Run> = Vec::new();
            let mut open = false;
            while left > 0 && right > 0 {
                if self.left[left - 1] != self.right[right - 1] {
                    let (above, before) = (
                        self.lengths[(left - 1) * width + right],
                        self.lengths[left * width + right - 1],
                    );
                    if above > before {
                        left -= 1
                    } else {
                        right -= 1
                    }
                    open = false;
                    continue;
                }
                (left, right) = (left - 1, right - 1);
                match runs.last_mut().filter(|_| open) {
                    Some(run) => {
                        *run = Run {
                            left,
                            right,
                            length: run.length + 1,
                        }
                    }
                    None => runs.push(Run {
                        left,
                        right,
                        length: 1,
                    }),
                }
                open = true;
            }
            runs
        }
    }
}
