//! Lists: elements in the order they were pushed; the commands that wait for one are here too.
//!
//! Follows Redis 7.0. Where a row differs on purpose, the row says so. How a command waits: [`crate::machine::waiting`].

use crate::machine::args::{Args, at_most_usize};
use crate::machine::entry::Millis;
use crate::machine::event::Classes;
use crate::machine::keyspace::{Keyspace, View};
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{Spec, counted_keys, read, write};
use crate::machine::value::{End, List};
use crate::machine::waiting::Otherwise;
use bytes::Bytes;
use std::slice;

pub(super) const COMMANDS: &[Spec] = &[
    write(
        "BLMOVE",
        "source destination <LEFT|RIGHT> <LEFT|RIGHT> timeout",
        blmove,
    )
    .since("6.2.0")
    .flags("denyoom noscript blocking")
    .summary("Moves an element between two lists; waits for one if there is none."),
    write(
        "BLMPOP",
        "timeout numkeys key [key ...] <LEFT|RIGHT> [COUNT count]",
        blmpop,
    )
    .since("7.0.0")
    .flags("blocking movablekeys")
    .finder(|argv| counted_keys(argv, 2))
    .summary("Takes elements from the first of the lists that has any; waits for some if none has."),
    write("BLPOP", "key [key ...] timeout", blpop)
        .since("2.0.0")
        .flags("noscript blocking")
        .summary("Takes the first element of the first list that has one; waits for one if none has."),
    write("BRPOP", "key [key ...] timeout", brpop)
        .since("2.0.0")
        .flags("noscript blocking")
        .summary("Takes the last element of the first list that has one; waits for one if none has."),
    write("BRPOPLPUSH", "source destination timeout", brpoplpush)
        .since("2.2.0")
        .flags("denyoom noscript blocking")
        .summary(
            "Moves the last element of a list to the beginning of another; waits for one if there is none.",
        ),
    read("LINDEX", "key index", lindex)
        .summary("The element at an index; a negative one counts from the end."),
    write("LINSERT", "key <BEFORE|AFTER> pivot element", linsert)
        .since("2.2.0")
        .flags("denyoom")
        .summary("Inserts an element before or after the first that equals another."),
    read("LLEN", "key", llen)
        .flags("fast")
        .summary("How many elements there are."),
    write("LMOVE", "source destination <LEFT|RIGHT> <LEFT|RIGHT>", lmove)
        .since("6.2.0")
        .flags("denyoom")
        .summary("Moves an element from an end of a list to an end of another."),
    write("LMPOP", "numkeys key [key ...] <LEFT|RIGHT> [COUNT count]", lmpop)
        .since("7.0.0")
        .flags("movablekeys")
        .finder(|argv| counted_keys(argv, 1))
        .summary("Takes elements from the first of the lists that has any."),
    write("LPOP", "key [count]", lpop)
        .flags("fast")
        .summary("Takes the first elements."),
    // Differs: RANK -9223372036854775808, of which Redis makes its own negation, is refused, as in Redis 7.2.
    read(
        "LPOS",
        "key element [RANK rank] [COUNT num-matches] [MAXLEN len]",
        lpos,
    )
    .since("6.0.6")
    .summary("Where elements that equal this one are."),
    write("LPUSH", "key element [element ...]", lpush)
        .flags("denyoom fast")
        .summary("Adds elements at the beginning, one after the other."),
    write("LPUSHX", "key element [element ...]", lpushx)
        .since("2.2.0")
        .flags("denyoom fast")
        .summary("Adds elements at the beginning if there is a list."),
    read("LRANGE", "key start stop", lrange).summary("The elements from one index to another."),
    write("LREM", "key count element", lrem).summary(
        "Removes elements that equal this one, from the beginning or, for a negative count, from the end.",
    ),
    write("LSET", "key index element", lset)
        .flags("denyoom")
        .summary("Puts another element at an index."),
    write("LTRIM", "key start stop", ltrim)
        .summary("Keeps the elements from one index to another and removes all others."),
    write("RPOP", "key [count]", rpop)
        .flags("fast")
        .summary("Takes the last elements."),
    write("RPOPLPUSH", "source destination", rpoplpush)
        .since("1.2.0")
        .flags("denyoom")
        .summary("Moves the last element of a list to the beginning of another."),
    write("RPUSH", "key element [element ...]", rpush)
        .flags("denyoom fast")
        .summary("Adds elements at the end."),
    write("RPUSHX", "key element [element ...]", rpushx)
        .since("2.2.0")
        .flags("denyoom fast")
        .summary("Adds elements at the end if there is a list."),
];

fn lpush(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    push(keys, args.key()?, args.rest(), End::Left)
}

fn rpush(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    push(keys, args.key()?, args.rest(), End::Right)
}

fn lpushx(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    push_if_there(keys, args, End::Left)
}

fn rpushx(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    push_if_there(keys, args, End::Right)
}

fn push_if_there(keys: &mut Keyspace<'_>, args: &mut Args<'_>, end: End) -> Result<Reply, CommandError> {
    let key = args.key()?;
    if keys.view().list(key)?.is_none() {
        return Ok(Reply::Integer(0));
    }
    push(keys, key, args.rest(), end)
}

/// Adds elements at an end, one after the other; how many there are then.
fn push(keys: &mut Keyspace<'_>, key: &Bytes, elements: &[Bytes], end: End) -> Result<Reply, CommandError> {
    let len = keys.change_kind(key, |list: &mut List| {
        for element in elements {
            list.push(end, Bytes::copy_from_slice(element));
        }
        list.len()
    })?;
    keys.notify(Classes::LIST, pushed(end), key);
    Ok(Reply::count(len))
}

/// The keyspace event of adding at an end.
fn pushed(end: End) -> &'static str {
    match end {
        End::Left => "lpush",
        End::Right => "rpush",
    }
}

/// The keyspace event of taking from an end.
fn popped(end: End) -> &'static str {
    match end {
        End::Left => "lpop",
        End::Right => "rpop",
    }
}

fn lpop(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    pop(keys, args, End::Left, "lpop")
}

fn rpop(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    pop(keys, args, End::Right, "rpop")
}

/// Without a count one element, with one an array of up to so many.
fn pop(keys: &mut Keyspace<'_>, args: &mut Args<'_>, end: End, name: &str) -> Result<Reply, CommandError> {
    let key = args.key()?;
    let count = match args.remaining() {
        0 => None,
        1 => Some(args.integer_from(0, "ERR value is out of range, must be positive")?),
        _ => return Err(CommandError::Arity(name.to_owned())),
    };
    let there = keys.view().list(key)?.is_some();
    match count {
        None if !there => Ok(Reply::Nil),
        Some(_) if !there => Ok(Reply::NilArray),
        None => Ok(take_one(keys, key, end)?),
        Some(0) => Ok(Reply::Array(Vec::new())),
        Some(count) => take(keys, key, end, at_most_usize(count)),
    }
}

/// Takes up to `count` (at least 1) elements from a list that is there; an array of them.
fn take(keys: &mut Keyspace<'_>, key: &[u8], end: End, count: usize) -> Result<Reply, CommandError> {
    let taken = keys.change_kind(key, |list: &mut List| list.pop(end, count))?;
    keys.notify(Classes::LIST, popped(end), key);
    Ok(Reply::Array(taken.into_iter().map(Reply::Bulk).collect()))
}

/// Takes one element from a list that is there.
fn take_one(keys: &mut Keyspace<'_>, key: &[u8], end: End) -> Result<Reply, CommandError> {
    let taken = keys.change_kind(key, |list: &mut List| list.pop(end, 1).pop())?;
    keys.notify(Classes::LIST, popped(end), key);
    Ok(Reply::bulk_or_nil(taken))
}

/// What `LMPOP` and `BLMPOP` take, and from where.
struct Several<'a> {
    keys: &'a [Bytes],
    end: End,
    count: usize,
}

impl<'a> Several<'a> {
    fn parse(args: &mut Args<'a>) -> Result<Self, CommandError> {
        let numkeys = args.integer_from(1, "ERR numkeys should be greater than 0")?;
        let keys = args.many(at_most_usize(numkeys))?;
        let end = end(args)?;
        let mut count = 1;
        if args.keyword("COUNT") {
            count = args.integer_from(1, "ERR count should be greater than 0")?;
        }
        args.end()?;
        Ok(Self {
            keys,
            end,
            count: at_most_usize(count),
        })
    }

    /// Takes them from this list, which is there; the key and an array of them.
    fn take(&self, keys: &mut Keyspace<'_>, key: Bytes) -> Result<Reply, CommandError> {
        let taken = take(keys, &key, self.end, self.count)?;
        Ok(Reply::Array(vec![Reply::Bulk(key), taken]))
    }
}

/// The next argument as an end.
fn end(args: &mut Args<'_>) -> Result<End, CommandError> {
    if args.keyword("LEFT") {
        Ok(End::Left)
    } else if args.keyword("RIGHT") {
        Ok(End::Right)
    } else {
        Err(CommandError::Syntax)
    }
}

/// The first of the keys that holds a list.
fn first_list(keys: &Keyspace<'_>, of: &[Bytes]) -> Result<Option<Bytes>, CommandError> {
    for key in of {
        if keys.view().list(key)?.is_some() {
            return Ok(Some(key.clone()));
        }
    }
    Ok(None)
}

fn lmpop(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let several = Several::parse(args)?;
    match first_list(keys, several.keys)? {
        Some(key) => several.take(keys, key),
        None => Ok(Reply::NilArray),
    }
}

fn blmpop(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    // The time is looked at after all else, as in Redis.
    let mut time = args.clone();
    args.bytes()?;
    let several = Several::parse(args)?;
    let deadline = time.deadline(keys.now())?;
    match first_list(keys, keys.candidates(several.keys))? {
        Some(key) => several.take(keys, key),
        None => Ok(keys.wait_for(several.keys, args.argv(), deadline, Otherwise::NilArray)),
    }
}

fn blpop(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    pop_or_wait(keys, args, End::Left)
}

fn brpop(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    pop_or_wait(keys, args, End::Right)
}

/// The key and one element of the first list there is.
fn pop_or_wait(keys: &mut Keyspace<'_>, args: &mut Args<'_>, end: End) -> Result<Reply, CommandError> {
    let (names, deadline) = (args.many(args.remaining() - 1)?, args.deadline(keys.now())?);
    let Some(key) = first_list(keys, keys.candidates(names))? else {
        return Ok(keys.wait_for(names, args.argv(), deadline, Otherwise::NilArray));
    };
    let taken = take_one(keys, &key, end)?;
    Ok(Reply::Array(vec![Reply::Bulk(key), taken]))
}

/// What is moved from where to where.
struct Move<'a> {
    source: &'a Bytes,
    destination: &'a Bytes,
    from: End,
    to: End,
}

impl<'a> Move<'a> {
    fn parse(args: &mut Args<'a>) -> Result<Self, CommandError> {
        Ok(Self {
            source: args.key()?,
            destination: args.key()?,
            from: end(args)?,
            to: end(args)?,
        })
    }

    /// As `RPOPLPUSH` means it.
    fn right_to_left(args: &mut Args<'a>) -> Result<Self, CommandError> {
        Ok(Self {
            source: args.key()?,
            destination: args.key()?,
            from: End::Right,
            to: End::Left,
        })
    }

    /// Moves an element; it, or nil where there is none.
    fn run(&self, keys: &mut Keyspace<'_>) -> Result<Reply, CommandError> {
        let Self {
            source,
            destination,
            from,
            to,
        } = *self;
        let Some(element) = keys.view().list(source)?.and_then(|list| list.end(from)).cloned() else {
            return Ok(Reply::Nil);
        };
        keys.view().list(destination)?;
        // The element is put before it is taken, in this order of events; a list that is moved around in is never empty in between.
        keys.change_kind(destination, |list: &mut List| {
            if source == destination {
                list.pop(from, 1);
            }
            list.push(to, element.clone());
        })?;
        keys.notify(Classes::LIST, pushed(to), destination);
        if source != destination {
            keys.change_kind(source, |list: &mut List| drop(list.pop(from, 1)))?;
        }
        keys.notify(Classes::LIST, popped(from), source);
        Ok(Reply::Bulk(element))
    }

    fn run_or_wait(
        &self,
        keys: &mut Keyspace<'_>,
        argv: &[Bytes],
        deadline: Option<Millis>,
    ) -> Result<Reply, CommandError> {
        if keys.view().list(self.source)?.is_none() {
            let reply = keys.wait_for(slice::from_ref(self.source), argv, deadline, Otherwise::NilArray);
            // Where nobody can wait it answers as a move that does not wait.
            return Ok(if matches!(reply, Reply::NilArray) {
                Reply::Nil
            } else {
                reply
            });
        }
        self.run(keys).map_err(|error| match error {
            // What waited for its source is refused for its destination, where WrongType would let it wait on.
            CommandError::WrongType if keys.waited() => CommandError::Other(error.to_string().into()),
            error => error,
        })
    }
}

fn lmove(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    Move::parse(args)?.run(keys)
}

fn rpoplpush(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    Move::right_to_left(args)?.run(keys)
}

fn blmove(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (what, deadline) = (Move::parse(args)?, args.deadline(keys.now())?);
    what.run_or_wait(keys, args.argv(), deadline)
}

fn brpoplpush(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (what, deadline) = (Move::right_to_left(args)?, args.deadline(keys.now())?);
    what.run_or_wait(keys, args.argv(), deadline)
}

fn llen(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    Ok(Reply::count(view.list(args.key()?)?.map_or(0, List::len)))
}

fn lindex(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    // As in Redis, the index into nothing is not read.
    let Some(list) = view.list(args.key()?)? else {
        return Ok(Reply::Nil);
    };
    let element = list
        .position(args.integer()?)
        .and_then(|position| list.at(position));
    Ok(Reply::bulk_or_nil(element.cloned()))
}

fn lrange(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, start, stop) = (args.key()?, args.integer()?, args.integer()?);
    let Some(list) = view.list(key)? else {
        return Ok(Reply::Array(Vec::new()));
    };
    let elements = list.slice(list.positions(start, stop)).cloned();
    Ok(Reply::Array(elements.map(Reply::Bulk).collect()))
}

fn lpos(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, element) = (args.key()?, args.bytes()?);
    let (mut rank, mut count, mut len) = (1, None, 0);
    while !args.is_empty() {
        if args.keyword("RANK") {
            rank = args.integer()?;
            if rank == 0 {
                return Err(CommandError::text(
                    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... \
                     or use negative to start from the end of the list",
                ));
            }
            if rank == i64::MIN {
                return Err(CommandError::text(
                    "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
                ));
            }
        } else if args.keyword("COUNT") {
            count = Some(args.integer_from(0, "ERR COUNT can't be negative")?);
        } else if args.keyword("MAXLEN") {
            len = args.integer_from(0, "ERR MAXLEN can't be negative")?;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let unlimited = |number: i64| {
        if number == 0 {
            usize::MAX
        } else {
            at_most_usize(number)
        }
    };
    let list = view.list(key)?;
    let mut found = list.map_or_else(Vec::new, |list| {
        positions_of(list, element, rank, unlimited(len), count.map_or(1, unlimited))
    });
    Ok(match count {
        Some(_) => Reply::Array(found.into_iter().map(Reply::count).collect()),
        None => found.pop().map_or(Reply::Nil, Reply::count),
    })
}

/// Up to `count` positions of an element from the `rank`th one on, among the first `len` elements; all counted from the end for a
/// negative rank.
fn positions_of(list: &List, element: &Bytes, rank: i64, len: usize, count: usize) -> Vec<usize> {
    let elements = list.iter().enumerate();
    let elements: &mut dyn Iterator<Item = (usize, &Bytes)> = if rank < 0 {
        &mut elements.rev()
    } else {
        &mut { elements }
    };
    let passed_over = usize::try_from(rank.unsigned_abs() - 1).unwrap_or(usize::MAX);
    let equal = elements.take(len).filter(|(_, other)| *other == element);
    equal
        .map(|(position, _)| position)
        .skip(passed_over)
        .take(count)
        .collect()
}

fn lset(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let key = args.key()?;
    let position = {
        let view = keys.view();
        let list = view.list(key)?.ok_or(CommandError::NoSuchKey)?;
        let position = list.position(args.integer()?);
        position.ok_or(CommandError::text("ERR index out of range"))?
    };
    let element = args.bytes()?;
    keys.change_kind(key, |list: &mut List| list.set(position, element))?;
    keys.notify(Classes::LIST, "lset", key);
    Ok(Reply::OK)
}

/// The new length; -1 where no element equals the pivot.
fn linsert(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let key = args.key()?;
    let after = if args.keyword("AFTER") {
        1
    } else if args.keyword("BEFORE") {
        0
    } else {
        return Err(CommandError::Syntax);
    };
    let (pivot, element) = (args.bytes()?, args.bytes()?);
    let found = match keys.view().list(key)? {
        None => return Ok(Reply::Integer(0)),
        Some(list) => list.iter().position(|other| other == pivot),
    };
    let Some(found) = found else {
        return Ok(Reply::Integer(-1));
    };
    let len = keys.change_kind(key, |list: &mut List| {
        list.insert(found + after, element);
        list.len()
    })?;
    keys.notify(Classes::LIST, "linsert", key);
    Ok(Reply::count(len))
}

fn lrem(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, count, element) = (args.key()?, args.integer()?, args.bytes()?);
    // Looked for first: a command that removes nothing changes neither the key nor its version.
    let there = keys
        .view()
        .list(key)?
        .is_some_and(|list| list.iter().any(|other| other == element));
    if !there {
        return Ok(Reply::Integer(0));
    }
    let most = match count.unsigned_abs() {
        0 => usize::MAX,
        most => usize::try_from(most).unwrap_or(usize::MAX),
    };
    let from = if count < 0 { End::Right } else { End::Left };
    let removed = keys.change_kind(key, |list: &mut List| list.remove(element, most, from))?;
    keys.notify(Classes::LIST, "lrem", key);
    Ok(Reply::count(removed))
}

fn ltrim(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, start, stop) = (args.key()?, args.integer()?, args.integer()?);
    if keys.view().list(key)?.is_some() {
        keys.change_kind(key, |list: &mut List| list.keep(list.positions(start, stop)))?;
        keys.notify(Classes::LIST, "ltrim", key);
    }
    Ok(Reply::OK)
}
