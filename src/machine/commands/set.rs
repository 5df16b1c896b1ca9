//! Sets: different members.
//!
//! Follows Redis 7.0. Where a row differs on purpose, the row says so. The order of members is that of [`Set`]: integers ascending while
//! the set is small, any afterwards, and the same on every node.

use super::scan;
use crate::machine::args::{Args, at_most_usize};
use crate::machine::event::Classes;
use crate::machine::keyspace::{Chance, Keyspace, View};
use crate::machine::reply::{CommandError, Reply};
use crate::machine::settings::Settings;
use crate::machine::table::{Spec, counted_keys, read, write};
use crate::machine::value::{Kind, Set};
use bytes::Bytes;
use std::cmp::Reverse;
use std::ptr;

/// So many times as many as stay must go for `SPOP` to make a new set of what stays. Seen in its encoding, so it is Redis' number.
const FEW_STAY: usize = 5;

pub(super) const COMMANDS: &[Spec] = &[
    write("SADD", "key member [member ...]", sadd)
        .flags("denyoom fast")
        .summary("Adds members; how many are new."),
    read("SCARD", "key", scard)
        .flags("fast")
        .summary("How many members there are."),
    read("SDIFF", "key [key ...]", sdiff)
        .summary("The members of the first set that are in none of the others."),
    write("SDIFFSTORE", "destination key [key ...]", sdiffstore)
        .flags("denyoom")
        .summary("Stores the members of the first set that are in none of the others."),
    read("SINTER", "key [key ...]", sinter).summary("The members that all of the sets have."),
    read("SINTERCARD", "numkeys key [key ...] [LIMIT limit]", sintercard)
        .since("7.0.0")
        .flags("movablekeys")
        .finder(|argv| counted_keys(argv, 1))
        .summary("How many members all of the sets have, counted up to a limit."),
    write("SINTERSTORE", "destination key [key ...]", sinterstore)
        .flags("denyoom")
        .summary("Stores the members that all of the sets have."),
    read("SISMEMBER", "key member", sismember)
        .flags("fast")
        .summary("Whether this is a member."),
    read("SMEMBERS", "key", smembers).summary("All members."),
    read("SMISMEMBER", "key member [member ...]", smismember)
        .since("6.2.0")
        .flags("fast")
        .summary("Whether each of these is a member."),
    write("SMOVE", "source destination member", smove)
        .flags("fast")
        .summary("Moves a member from one set to another."),
    write("SPOP", "key [count]", spop)
        .flags("fast")
        .summary("Takes members by chance."),
    // Differs: a negative count beyond what `scan` allows is refused.
    read("SRANDMEMBER", "key [count]", srandmember)
        .summary("Members by chance: different ones, or with repeats for a negative count."),
    write("SREM", "key member [member ...]", srem)
        .flags("fast")
        .summary("Removes members; how many were there."),
    read("SSCAN", "key cursor [MATCH pattern] [COUNT count]", sscan)
        .since("2.8.0")
        .summary("Walks the members of a set, some at each call."),
    read("SUNION", "key [key ...]", sunion).summary("The members that any of the sets has."),
    write("SUNIONSTORE", "destination key [key ...]", sunionstore)
        .flags("denyoom")
        .summary("Stores the members that any of the sets has."),
];

fn sadd(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, members) = (args.key()?, args.rest());
    // Looked up first: a command that adds nothing changes neither the key nor its version.
    let all_there = keys
        .view()
        .set(key)?
        .is_some_and(|set| members.iter().all(|member| set.contains(member)));
    if all_there {
        return Ok(Reply::Integer(0));
    }
    let added = keys.change_kind(key, |set: &mut Set| {
        members.iter().filter(|member| set.insert(member)).count()
    })?;
    keys.notify(Classes::SET, "sadd", key);
    Ok(Reply::count(added))
}

fn srem(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, members) = (args.key()?, args.rest());
    let any_there = keys
        .view()
        .set(key)?
        .is_some_and(|set| members.iter().any(|member| set.contains(member)));
    if !any_there {
        return Ok(Reply::Integer(0));
    }
    let removed = keys.change_kind(key, |set: &mut Set| {
        members.iter().filter(|member| set.remove(member)).count()
    })?;
    keys.notify(Classes::SET, "srem", key);
    Ok(Reply::count(removed))
}

fn smove(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (source, destination, member) = (args.key()?, args.key()?, args.bytes()?);
    let view = keys.view();
    // As in Redis, where nothing is moved from does not matter where to.
    let Some(from) = view.set(source)? else {
        return Ok(Reply::Integer(0));
    };
    let to = view.set(destination)?;
    if !from.contains(member) {
        return Ok(Reply::Integer(0));
    }
    if source == destination {
        return Ok(Reply::Integer(1));
    }
    let there = to.is_some_and(|to| to.contains(member));
    keys.change_kind(source, |set: &mut Set| set.remove(member))?;
    keys.notify(Classes::SET, "srem", source);
    if !there {
        keys.change_kind(destination, |set: &mut Set| set.insert(member))?;
        keys.notify(Classes::SET, "sadd", destination);
    }
    Ok(Reply::Integer(1))
}

fn scard(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    Ok(Reply::count(view.set(args.key()?)?.map_or(0, Set::len)))
}

fn sismember(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (set, member) = (view.set(args.key()?)?, args.bytes()?);
    Ok(Reply::flag(set.is_some_and(|set| set.contains(member))))
}

fn smismember(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let set = view.set(args.key()?)?;
    let is_member = |member: &Bytes| Reply::flag(set.is_some_and(|set| set.contains(member)));
    Ok(Reply::Array(args.rest().iter().map(is_member).collect()))
}

fn smembers(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    Ok(members(view.set(args.key()?)?.into_iter().flat_map(Set::iter)))
}

fn members<'a>(members: impl Iterator<Item = &'a Bytes>) -> Reply {
    Reply::Set(members.cloned().map(Reply::Bulk).collect())
}

fn sscan(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, cursor) = (args.key()?, args.cursor()?);
    let Some(set) = view.set(key)? else {
        return Ok(scan::nothing());
    };
    scan::walk(args, cursor, (set.len(), set.is_large()), |position| {
        Some((set.at(position)?.clone(), None))
    })
}

fn srandmember(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let key = args.key()?;
    if args.remaining() > 1 {
        return Err(CommandError::Syntax);
    }
    if args.is_empty() {
        let chosen = view.set(key)?.and_then(|set| {
            let position = Chance::new(view.chance()).below(set.len());
            set.at(position)
        });
        return Ok(Reply::bulk_or_nil(chosen.cloned()));
    }
    let count = scan::count(args)?;
    scan::bounded(count)?;
    let Some(set) = view.set(key)? else {
        return Ok(Reply::Array(Vec::new()));
    };
    let positions = scan::positions_by_chance(set.len(), count, Chance::new(view.chance()));
    let chosen = positions.into_iter().filter_map(|position| set.at(position));
    Ok(Reply::Array(chosen.cloned().map(Reply::Bulk).collect()))
}

fn spop(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let key = args.key()?;
    let count = match args.remaining() {
        0 => None,
        1 => Some(args.integer_from(0, "ERR value is out of range, must be positive")?),
        _ => return Err(CommandError::Syntax),
    };
    let chance = Chance::new(keys.random());
    let view = keys.view();
    let set = view.set(key)?.filter(|_| count != Some(0));
    let Some(set) = set else {
        return Ok(count.map_or(Reply::Nil, |_| Reply::Set(Vec::new())));
    };
    let len = set.len();
    let positions = scan::positions_by_chance(len, count.unwrap_or(1), chance);
    let chosen: Vec<Bytes> = positions
        .into_iter()
        .filter_map(|position| set.at(position).cloned())
        .collect();
    let stay = len - chosen.len();
    let settings = keys.settings().clone();
    keys.change_kind(key, |set: &mut Set| {
        for member in &chosen {
            set.remove(member);
        }
        if count.is_some() && stay > 0 && stay * FEW_STAY <= chosen.len() {
            *set = settled(set.iter(), &settings);
        }
    })?;
    keys.notify(Classes::SET, "spop", key);
    let mut chosen = chosen.into_iter().map(Reply::Bulk);
    Ok(match count {
        Some(_) => Reply::Set(chosen.collect()),
        None => chosen.next().unwrap_or(Reply::Nil),
    })
}

/// A set of these members as if they were added one by one.
fn settled<'a>(members: impl Iterator<Item = &'a Bytes>, settings: &Settings) -> Set {
    let mut set = Set::default();
    for member in members {
        set.insert_shared(member.clone());
    }
    set.settle(settings);
    set
}

/// Sets under keys; none where a key is absent.
type Sets<'a> = Vec<Option<&'a Set>>;

/// The sets under these keys.
///
/// # Errors
/// `WrongType`, whichever of the keys it is.
fn sets<'a>(view: &View<'a>, keys: &[Bytes]) -> Result<Sets<'a>, CommandError> {
    keys.iter().map(|key| view.set(key)).collect()
}

/// The members that all have, in the order of the smallest.
fn intersection<'a>(sets: &Sets<'a>) -> impl Iterator<Item = &'a Bytes> {
    let mut there: Vec<&Set> = sets.iter().copied().flatten().collect();
    if there.len() < sets.len() {
        there.clear();
    }
    there.sort_by_key(|set| set.len());
    let smallest = there.first().copied();
    // A set that is named twice is asked once.
    there.retain(|set| smallest.is_some_and(|smallest| !ptr::eq(*set, smallest)));
    let all = smallest.into_iter().flat_map(Set::iter);
    all.filter(move |member| there.iter().all(|set| set.contains(member)))
}

fn union(sets: &Sets<'_>, settings: &Settings) -> Set {
    settled(sets.iter().flatten().flat_map(|set| set.iter()), settings)
}

/// The members of the first that none of the others has.
fn difference(sets: &Sets<'_>, settings: &Settings) -> Set {
    let Some((Some(first), others)) = sets.split_first() else {
        return Set::default();
    };
    let mut others: Vec<&Set> = others.iter().copied().flatten().collect();
    if others.iter().any(|other| ptr::eq(*other, *first)) {
        return Set::default();
    }
    // Redis' two ways with its choice between them: cheaper, and what goes through the second may stay a hash table.
    let all: usize = first.len() + others.iter().map(|other| other.len()).sum::<usize>();
    if first.len() * (others.len() + 1) / 2 <= all {
        others.sort_by_key(|other| Reverse(other.len()));
        let alone = |member: &&Bytes| !others.iter().any(|other| other.contains(member));
        return settled(first.iter().filter(alone), settings);
    }
    let mut left = settled(first.iter(), settings);
    for member in others.into_iter().flat_map(Set::iter) {
        left.remove(member);
    }
    left
}

fn sinter(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    Ok(members(intersection(&sets(view, args.rest())?)))
}

fn sunion(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let union = union(&sets(view, args.rest())?, view.settings());
    Ok(members(union.iter()))
}

fn sdiff(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let difference = difference(&sets(view, args.rest())?, view.settings());
    Ok(members(difference.iter()))
}

fn sintercard(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let numkeys = args.integer_from(1, "ERR numkeys should be greater than 0")?;
    let keys = args
        .many(at_most_usize(numkeys))
        .map_err(|_| CommandError::text("ERR Number of keys can't be greater than number of args"))?;
    let mut limit = 0;
    while !args.is_empty() {
        if !args.keyword("LIMIT") {
            return Err(CommandError::Syntax);
        }
        limit = args.integer_from(0, "ERR LIMIT can't be negative")?;
    }
    let most = if limit == 0 {
        usize::MAX
    } else {
        at_most_usize(limit)
    };
    Ok(Reply::count(intersection(&sets(view, keys)?).take(most).count()))
}

fn sinterstore(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (destination, view) = (args.key()?, keys.view());
    let result = settled(intersection(&sets(&view, args.rest())?), view.settings());
    store(keys, destination, result, "sinterstore")
}

fn sunionstore(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (destination, view) = (args.key()?, keys.view());
    let result = union(&sets(&view, args.rest())?, view.settings());
    store(keys, destination, result, "sunionstore")
}

fn sdiffstore(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (destination, view) = (args.key()?, keys.view());
    let result = difference(&sets(&view, args.rest())?, view.settings());
    store(keys, destination, result, "sdiffstore")
}

/// Puts a result in place of whatever was there; nothing removes it.
fn store(keys: &mut Keyspace<'_>, key: &[u8], set: Set, event: &str) -> Result<Reply, CommandError> {
    let len = set.len();
    if len > 0 {
        keys.put(key, set.into_value());
        keys.notify(Classes::SET, event, key);
    } else if keys.remove(key).is_some() {
        keys.notify(Classes::GENERIC, "del", key);
    }
    Ok(Reply::count(len))
}
