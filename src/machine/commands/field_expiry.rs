//! Fields of hashes that end by themselves: the `HEXPIRE` family.
//!
//! Follows Redis 7.4; Redis 7.0 does not have it. Where a row differs on purpose, the row says so. A field that is set anew has no deadline any
//! more; one that is counted up keeps it. Fields that have ended are removed by the log as keys are: see [`crate::machine::keyspace`].

use super::expiry::Time;
use crate::machine::args::{self, Args};
use crate::machine::entry::Millis;
use crate::machine::event::Classes;
use crate::machine::keyspace::{Keyspace, View};
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{Spec, read, write};
use bytes::Bytes;
use std::collections::BTreeSet;

const SINCE: &str = "7.4.0";

pub(super) const COMMANDS: &[Spec] = &[
    write(
        "HEXPIRE",
        "key seconds [NX | XX | GT | LT] FIELDS numfields field [field ...]",
        hexpire,
    )
    .since(SINCE)
    .flags("denyoom fast")
    .summary("Lets fields end after so many seconds."),
    write(
        "HEXPIREAT",
        "key unix-time-seconds [NX | XX | GT | LT] FIELDS numfields field [field ...]",
        hexpireat,
    )
    .since(SINCE)
    .flags("denyoom fast")
    .summary("Lets fields end at a time in seconds."),
    read(
        "HEXPIRETIME",
        "key FIELDS numfields field [field ...]",
        hexpiretime,
    )
    .since(SINCE)
    .flags("fast")
    .summary("When fields end, in seconds since 1970."),
    write("HPERSIST", "key FIELDS numfields field [field ...]", hpersist)
        .since(SINCE)
        .flags("fast")
        .summary("Lets fields stay."),
    write(
        "HPEXPIRE",
        "key milliseconds [NX | XX | GT | LT] FIELDS numfields field [field ...]",
        hpexpire,
    )
    .since(SINCE)
    .flags("denyoom fast")
    .summary("Lets fields end after so many milliseconds."),
    write(
        "HPEXPIREAT",
        "key unix-time-milliseconds [NX | XX | GT | LT] FIELDS numfields field [field ...]",
        hpexpireat,
    )
    .since(SINCE)
    .flags("denyoom fast")
    .summary("Lets fields end at a time in milliseconds."),
    read(
        "HPEXPIRETIME",
        "key FIELDS numfields field [field ...]",
        hpexpiretime,
    )
    .since(SINCE)
    .flags("fast")
    .summary("When fields end, in milliseconds since 1970."),
    read("HPTTL", "key FIELDS numfields field [field ...]", hpttl)
        .since(SINCE)
        .flags("fast")
        .summary("For how many milliseconds fields still live."),
    read("HTTL", "key FIELDS numfields field [field ...]", httl)
        .since(SINCE)
        .flags("fast")
        .summary("For how many seconds fields still live."),
];

/// The last time at which a field can end, in milliseconds since 1970: Redis' `HFE_MAX_ABS_TIME_MSEC`.
const LATEST: i64 = 0xffff_ffff_ffff >> 2;

/// What is answered of a field that is not there, and of one without a deadline.
const NO_FIELD: i64 = -2;
const NO_DEADLINE: i64 = -1;

/// What `HEXPIRE` answers of a field.
const CONDITION_NOT_MET: i64 = 0;
const SET: i64 = 1;
const REMOVED: i64 = 2;

/// `FIELDS`, their number, and they, up to the end. `not_a_number`: what is said of a number that is none, or below 1.
fn named_fields<'a>(args: &mut Args<'a>, not_a_number: &'static str) -> Result<&'a [Bytes], CommandError> {
    if !args.keyword("FIELDS") {
        return Err(CommandError::text(
            "ERR Mandatory argument FIELDS is missing or not at the right position",
        ));
    }
    let number = args::integer(args.bytes()?)
        .filter(|number| *number > 0)
        .ok_or(CommandError::text(not_a_number))?;
    let fields = args.rest();
    if usize::try_from(number) == Ok(fields.len()) {
        Ok(fields)
    } else {
        Err(CommandError::text(
            "ERR The `numfields` parameter must match the number of arguments",
        ))
    }
}

fn hexpire(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    expire(keys, args, Time::InSeconds, "hexpire")
}

fn hpexpire(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    expire(keys, args, Time::InMillis, "hpexpire")
}

fn hexpireat(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    expire(keys, args, Time::AtSeconds, "hexpireat")
}

fn hpexpireat(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    expire(keys, args, Time::AtMillis, "hpexpireat")
}

/// On which deadline that a field has a new one is set.
#[derive(Clone, Copy)]
enum Only {
    Always,
    None,
    Some,
    Later,
    Earlier,
}

impl Only {
    fn parse(args: &mut Args<'_>) -> Self {
        let words = [
            ("NX", Self::None),
            ("XX", Self::Some),
            ("GT", Self::Later),
            ("LT", Self::Earlier),
        ];
        let found = words.into_iter().find(|(word, _)| args.keyword(word));
        found.map_or(Self::Always, |(_, only)| only)
    }

    /// Without a deadline a field lives for ever.
    fn admits(self, old: Option<Millis>, new: Millis) -> bool {
        match self {
            Self::Always => true,
            Self::None => old.is_none(),
            Self::Some => old.is_some(),
            Self::Later => old.is_some_and(|old| new > old),
            Self::Earlier => old.is_none_or(|old| new < old),
        }
    }
}

/// Sets the deadline of each field, or removes those for which it has passed.
fn expire(
    keys: &mut Keyspace<'_>,
    args: &mut Args<'_>,
    time: Time,
    command: &'static str,
) -> Result<Reply, CommandError> {
    let key = args.key()?;
    keys.view().hash(key)?;
    let amount = args.integer()?;
    if amount < 0 {
        return Err(CommandError::text("ERR invalid expire time, must be >= 0"));
    }
    let deadline = time
        .deadline(amount, keys.now())
        .filter(|deadline| *deadline <= LATEST)
        .and_then(|deadline| Millis::try_from(deadline).ok())
        .ok_or(CommandError::InvalidExpire(command))?;
    let only = Only::parse(args);
    let fields = named_fields(args, "ERR Parameter `numFields` should be greater than 0")?;
    let Some(hash) = keys.view().hash(key)? else {
        return Ok(all_alike(fields, NO_FIELD));
    };
    let passed = deadline <= keys.now();
    // As they are named, for the order in which fields go can be seen; and each once, to be found.
    let (mut changed, mut known) = (Vec::new(), BTreeSet::new());
    let mut answers = Vec::with_capacity(fields.len());
    for field in fields {
        let again = known.contains(field);
        let old = if again {
            Some(deadline)
        } else {
            hash.deadline(field)
        };
        answers.push(Reply::Integer(match hash.get(field) {
            None => NO_FIELD,
            Some(_) if again && passed => NO_FIELD,
            Some(_) if !only.admits(old, deadline) => CONDITION_NOT_MET,
            Some(_) => {
                if known.insert(field) {
                    changed.push(field);
                }
                if passed { REMOVED } else { SET }
            }
        }));
    }
    if changed.is_empty() {
        return Ok(Reply::Array(answers));
    }
    keys.change_hash(key, |hash| {
        for field in changed {
            if passed {
                hash.remove(field);
            } else {
                hash.set_deadline(field, Some(deadline));
            }
        }
    })?;
    let event = if passed { "hdel" } else { "hexpire" };
    keys.notify(Classes::HASH, event, key);
    Ok(Reply::Array(answers))
}

fn all_alike(fields: &[Bytes], answer: i64) -> Reply {
    Reply::Array(vec![Reply::Integer(answer); fields.len()])
}

const NOT_POSITIVE: &str = "ERR Number of fields must be a positive integer";

fn hpersist(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let key = args.key()?;
    keys.view().hash(key)?;
    let fields = named_fields(args, NOT_POSITIVE)?;
    let Some(hash) = keys.view().hash(key)? else {
        return Ok(all_alike(fields, NO_FIELD));
    };
    let mut stay = BTreeSet::new();
    let mut answers = Vec::with_capacity(fields.len());
    for field in fields {
        answers.push(Reply::Integer(match (hash.get(field), hash.deadline(field)) {
            (None, _) => NO_FIELD,
            (Some(_), Some(_)) if stay.insert(field) => SET,
            (Some(_), _) => NO_DEADLINE,
        }));
    }
    if !stay.is_empty() {
        keys.change_hash(key, |hash| {
            stay.iter().for_each(|field| hash.set_deadline(field, None))
        })?;
        keys.notify(Classes::HASH, "hpersist", key);
    }
    Ok(Reply::Array(answers))
}

fn httl(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    tell(view, args, |at, now| (at - now).div_ceil(1000))
}

fn hpttl(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    tell(view, args, |at, now| at - now)
}

fn hexpiretime(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    tell(view, args, |at, _| at.div_ceil(1000))
}

fn hpexpiretime(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    tell(view, args, |at, _| at)
}

/// What `shown` makes of each field's deadline (which has not passed) and now.
fn tell(
    view: &View<'_>,
    args: &mut Args<'_>,
    shown: fn(Millis, Millis) -> Millis,
) -> Result<Reply, CommandError> {
    let hash = view.hash(args.key()?)?;
    let fields = named_fields(args, NOT_POSITIVE)?;
    let answer = |field: &Bytes| {
        let Some(hash) = hash.filter(|hash| hash.get(field).is_some()) else {
            return NO_FIELD;
        };
        let deadline = hash.deadline(field).map(|at| shown(at, view.now()));
        deadline.map_or(NO_DEADLINE, |shown| i64::try_from(shown).unwrap_or(i64::MAX))
    };
    Ok(Reply::Array(
        fields.iter().map(|field| Reply::Integer(answer(field))).collect(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::entry::{Command, Entry, Origin};
    use crate::machine::{Machine, Outcome};

    #[test]
    fn as_many_fields_as_a_command_names_end_in_one_go() {
        let mut machine = Machine::default();
        let names: Vec<String> = (0..200_000).map(|number| number.to_string()).collect();
        let mut run = |before: &str, words: Vec<String>| {
            let argv = before.split(' ').map(str::to_owned).chain(words);
            let entry = Entry {
                format: Entry::FORMAT,
                at: 1,
                seed: 1,
                origin: Origin::default(),
                commands: vec![Command::new(0, argv)],
            };
            match machine.apply(&entry) {
                Outcome::Applied(mut replies) => replies.remove(0),
                other => panic!("not applied: {other:?}"),
            }
        };
        let pairs = names
            .iter()
            .flat_map(|name| [name.clone(), "v".to_owned()])
            .collect();
        run("HSET h", pairs);
        let of_all = |answer| Reply::Array(vec![Reply::Integer(answer); names.len()]);
        let count = names.len();
        let fields = |command: &str| format!("{command} FIELDS {count}");
        assert_eq!(run(&fields("HPEXPIRE h 1000"), names.clone()), of_all(SET));
        assert_eq!(run(&fields("HPERSIST h"), names.clone()), of_all(SET));
        assert_eq!(run(&fields("HPEXPIREAT h 0"), names.clone()), of_all(REMOVED));
        let twice = vec!["a".to_owned(), "a".to_owned()];
        run("HSET h a 1 b 2", Vec::new());
        let answers = |each: [i64; 2]| Reply::Array(each.map(Reply::Integer).to_vec());
        assert_eq!(
            run("HPEXPIRE h 1000 NX FIELDS 2", twice.clone()),
            answers([SET, CONDITION_NOT_MET])
        );
        assert_eq!(
            run("HPERSIST h FIELDS 2", twice.clone()),
            answers([SET, NO_DEADLINE])
        );
        assert_eq!(
            run("HPEXPIREAT h 0 FIELDS 2", twice),
            answers([REMOVED, NO_FIELD])
        );
    }
}
