//! Hash commands: fields and their values under one key.
//!
//! Follows Redis 7.0. Where a row differs on purpose, the row says so. The order of fields is that of [`Hash`]: as in Redis while the
//! hash is small, any afterwards, and the same on every node.

use super::scan;
use crate::machine::args::{self, Args};
use crate::machine::event::Classes;
use crate::machine::float::Float;
use crate::machine::keyspace::{Chance, Keyspace, View};
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{Spec, read, write};
use crate::machine::value::Living;
use bytes::Bytes;

pub(super) const COMMANDS: &[Spec] = &[
    write("HDEL", "key field [field ...]", hdel)
        .since("2.0.0")
        .flags("fast")
        .summary("Removes fields; how many were there."),
    read("HEXISTS", "key field", hexists)
        .since("2.0.0")
        .flags("fast")
        .summary("Whether a field is there."),
    read("HGET", "key field", hget)
        .since("2.0.0")
        .flags("fast")
        .summary("The value of a field."),
    read("HGETALL", "key", hgetall)
        .since("2.0.0")
        .summary("All fields and their values."),
    write("HINCRBY", "key field increment", hincrby)
        .since("2.0.0")
        .flags("denyoom fast")
        .summary("Adds to the integer in a field; an absent one counts as 0."),
    write("HINCRBYFLOAT", "key field increment", hincrbyfloat)
        .since("2.6.0")
        .flags("denyoom fast")
        .summary("Adds to the floating-point number in a field; an absent one counts as 0."),
    read("HKEYS", "key", hkeys)
        .since("2.0.0")
        .summary("The names of all fields."),
    read("HLEN", "key", hlen)
        .since("2.0.0")
        .flags("fast")
        .summary("How many fields there are."),
    read("HMGET", "key field [field ...]", hmget)
        .since("2.0.0")
        .flags("fast")
        .summary("The values of several fields, nil where there is none."),
    write("HMSET", "key field value [field value ...]", hmset)
        .since("2.0.0")
        .flags("denyoom fast")
        .summary("Sets fields: the old name of HSET, answering OK."),
    // Differs: a negative count beyond what `scan` allows is refused.
    read("HRANDFIELD", "key [count [WITHVALUES]]", hrandfield)
        .since("6.2.0")
        .summary("Fields by chance: different ones, or with repeats for a negative count."),
    read("HSCAN", "key cursor [MATCH pattern] [COUNT count]", hscan)
        .since("2.8.0")
        .summary("Walks the fields and values of a hash, some at each call."),
    write("HSET", "key field value [field value ...]", hset)
        .since("2.0.0")
        .flags("denyoom fast")
        .summary("Sets fields to values; how many are new."),
    write("HSETNX", "key field value", hsetnx)
        .since("2.0.0")
        .flags("denyoom fast")
        .summary("Sets a field if it is absent."),
    read("HSTRLEN", "key field", hstrlen)
        .since("3.2.0")
        .flags("fast")
        .summary("The length of a field's value in bytes; 0 if it is absent."),
    read("HVALS", "key", hvals)
        .since("2.0.0")
        .summary("The values of all fields."),
];

fn hset(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    set_pairs(keys, args, "hset").map(Reply::count)
}

fn hmset(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    set_pairs(keys, args, "hmset").map(|_| Reply::OK)
}

/// Sets every field to its value; how many are new. A field named twice has its last value.
fn set_pairs(keys: &mut Keyspace<'_>, args: &mut Args<'_>, name: &str) -> Result<usize, CommandError> {
    let (key, (pairs, odd)) = (args.key()?, args.rest().as_chunks::<2>());
    if !odd.is_empty() {
        return Err(CommandError::Arity(name.to_owned()));
    }
    let new = keys.change_hash(key, |hash| {
        pairs
            .iter()
            .filter(|[field, value]| hash.set(field, value))
            .count()
    })?;
    keys.notify(Classes::HASH, "hset", key);
    Ok(new)
}

fn hsetnx(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, field, value) = (args.key()?, args.bytes()?, args.bytes()?);
    if keys
        .view()
        .hash(key)?
        .is_some_and(|hash| hash.get(field).is_some())
    {
        return Ok(Reply::Integer(0));
    }
    keys.change_hash(key, |hash| hash.set(field, value))?;
    keys.notify(Classes::HASH, "hset", key);
    Ok(Reply::Integer(1))
}

fn hget(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (hash, field) = (view.hash(args.key()?)?, args.bytes()?);
    Ok(Reply::bulk_or_nil(hash.and_then(|hash| hash.value(field))))
}

fn hmget(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let hash = view.hash(args.key()?)?;
    let values = args
        .rest()
        .iter()
        .map(|field| hash.and_then(|hash| hash.value(field)));
    Ok(Reply::Array(values.map(Reply::bulk_or_nil).collect()))
}

fn hgetall(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    Ok(Reply::Map(fields(view.hash(args.key()?)?).map(pair).collect()))
}

fn hkeys(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let names = fields(view.hash(args.key()?)?).map(|(name, _)| Reply::Bulk(name));
    Ok(Reply::Array(names.collect()))
}

fn hvals(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let values = fields(view.hash(args.key()?)?).map(|(_, value)| Reply::Bulk(value));
    Ok(Reply::Array(values.collect()))
}

fn hlen(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    Ok(Reply::count(view.hash(args.key()?)?.map_or(0, |hash| hash.len())))
}

fn hexists(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (hash, field) = (view.hash(args.key()?)?, args.bytes()?);
    Ok(Reply::flag(hash.is_some_and(|hash| hash.get(field).is_some())))
}

fn hstrlen(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (hash, field) = (view.hash(args.key()?)?, args.bytes()?);
    Ok(Reply::count(
        hash.and_then(|hash| hash.get(field)).map_or(0, <[u8]>::len),
    ))
}

/// Removes the fields; how many were there. A hash without fields is no more.
fn hdel(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, fields) = (args.key()?, args.rest());
    // Looked up first: a command that removes nothing changes neither the key nor its version.
    let there = keys
        .view()
        .hash(key)?
        .is_some_and(|hash| fields.iter().any(|field| hash.get(field).is_some()));
    if !there {
        return Ok(Reply::Integer(0));
    }
    let removed = keys.change_hash(key, |hash| {
        fields.iter().filter(|field| hash.remove(field)).count()
    })?;
    keys.notify(Classes::HASH, "hdel", key);
    Ok(Reply::count(removed))
}

fn hincrby(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, field, increment) = (args.key()?, args.bytes()?, args.integer()?);
    let old = match keys.view().hash(key)?.and_then(|hash| hash.get(field)) {
        Some(value) => args::integer(value).ok_or(CommandError::text("ERR hash value is not an integer"))?,
        None => 0,
    };
    let sum = old.checked_add(increment).ok_or(CommandError::IntegerOverflow)?;
    keys.change_hash(key, |hash| hash.set_value(field, sum.to_string().as_bytes()))?;
    keys.notify(Classes::HASH, "hincrby", key);
    Ok(Reply::Integer(sum))
}

fn hincrbyfloat(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, field) = (args.key()?, args.bytes()?);
    let increment = Float::parse(args.bytes()?).ok_or(CommandError::NotAFloat)?;
    let increment = increment
        .add(Float::ZERO)
        .ok_or(CommandError::text("ERR value is NaN or Infinity"))?;
    let old = match keys.view().hash(key)?.and_then(|hash| hash.get(field)) {
        Some(value) => Float::parse(value).ok_or(CommandError::text("ERR hash value is not a float"))?,
        None => Float::ZERO,
    };
    let sum = old
        .add(increment)
        .ok_or(CommandError::text("ERR increment would produce NaN or Infinity"))?;
    let text = sum.to_text();
    keys.change_hash(key, |hash| hash.set_value(field, text.as_bytes()))?;
    keys.notify(Classes::HASH, "hincrbyfloat", key);
    Ok(Reply::bulk(text))
}

fn hrandfield(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let key = args.key()?;
    if args.is_empty() {
        let Some(hash) = view.hash(key)? else {
            return Ok(Reply::Nil);
        };
        let position = Chance::new(view.chance()).below(hash.len());
        return Ok(Reply::bulk_or_nil(hash.at(position).map(|(name, _)| name)));
    }
    let count = scan::count(args)?;
    let with_values = args.keyword("WITHVALUES");
    args.end()?;
    if with_values && count.unsigned_abs() > (i64::MAX / 2).unsigned_abs() {
        return Err(CommandError::text("ERR value is out of range"));
    }
    scan::bounded(count)?;
    let Some(hash) = view.hash(key)? else {
        return Ok(Reply::Array(Vec::new()));
    };
    let positions = scan::positions_by_chance(hash.len(), count, Chance::new(view.chance()));
    let chosen = positions.into_iter().filter_map(|position| hash.at(position));
    Ok(if with_values {
        Reply::Pairs(chosen.map(pair).collect())
    } else {
        Reply::Array(chosen.map(|(name, _)| Reply::Bulk(name)).collect())
    })
}

fn hscan(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, cursor) = (args.key()?, args.cursor()?);
    let Some(hash) = view.hash(key)? else {
        return Ok(scan::nothing());
    };
    scan::walk(args, cursor, (hash.len(), hash.is_large()), |position| {
        let (name, value) = hash.at(position)?;
        Some((name, Some(Reply::Bulk(value))))
    })
}

/// The fields of a hash that may be absent, in order.
fn fields(hash: Option<Living<'_>>) -> impl Iterator<Item = (Bytes, Bytes)> {
    hash.into_iter().flat_map(|hash| hash.shared())
}

fn pair((name, value): (Bytes, Bytes)) -> (Reply, Reply) {
    (Reply::Bulk(name), Reply::Bulk(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_scan_sees_every_field_that_stays_whatever_is_removed_and_added_meanwhile() {
        for seed in 0..100 {
            let mut chance = Chance::new(seed);
            let mut store = crate::machine::keyspace::Store::new(seed);
            let mut keys = store.keyspace(0, seed);
            keys.change_hash(b"h", |hash| {
                hash.set(b"large", &[b'x'; 65]);
                for n in 0..100 {
                    hash.set(format!("stays{n}").as_bytes(), b"");
                }
                for n in 0..100 {
                    hash.set(format!("goes{n}").as_bytes(), b"");
                }
            })
            .unwrap();
            let (mut seen, mut cursor) = (BTreeSet::new(), Bytes::from_static(b"0"));
            loop {
                let argv = [Bytes::from_static(b"HSCAN"), Bytes::from_static(b"h"), cursor];
                let page = hscan(&keys.view(), &mut Args::new(&argv, 1)).unwrap();
                let Reply::Array(page) = page else {
                    panic!("a page")
                };
                let [Reply::Bulk(next), Reply::Array(found)] = &page[..] else {
                    panic!("a cursor and fields")
                };
                seen.extend(found.iter().step_by(2).map(|name| match name {
                    Reply::Bulk(name) => name.clone(),
                    other => panic!("a name: {other:?}"),
                }));
                if next == "0" {
                    break;
                }
                cursor = next.clone();
                let (gone, new) = (
                    format!("goes{}", chance.below(100)),
                    format!("new{}", chance.below(100)),
                );
                keys.change_hash(b"h", |hash| {
                    (hash.remove(gone.as_bytes()), hash.set(new.as_bytes(), b""))
                })
                .unwrap();
            }
            assert!(
                (0..100).all(|n| seen.contains(format!("stays{n}").as_bytes())),
                "seed {seed}"
            );
        }
    }
}
