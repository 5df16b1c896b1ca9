//! `COMMAND`: the rows of the machine's table in the shape of Redis 7.0.
//!
//! Left out, and empty in the replies: tips, and key specifications (first key, last key and step say the same).

use super::connection::Caller;
use super::local::{Answer, help_of};
use crate::machine::args::Args;
use crate::machine::glob;
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{self, Run, Spec};
use bytes::Bytes;
use std::borrow::Cow;

/// Redis' ACL categories that our rows can have, in the order in which Redis names them.
const CATEGORIES: [&str; 22] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "session",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// `COMMAND`: every command.
pub(super) fn all(_: &mut Caller, _: &mut Args<'_>) -> Answer {
    Ok(Reply::Array(top().map(|spec| details(&spec)).collect()))
}

/// `COMMAND INFO [name ...]`.
pub(super) fn info(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    if args.is_empty() {
        return all(caller, args);
    }
    let details = |name| row(name).map_or(Reply::Nil, |spec| details(&spec));
    Ok(Reply::Array(args.rest().iter().map(details).collect()))
}

pub(super) fn count(_: &mut Caller, _: &mut Args<'_>) -> Answer {
    Ok(Reply::count(top().count()))
}

/// `COMMAND DOCS [name ...]`. What is not known is left out.
pub(super) fn docs(_: &mut Caller, args: &mut Args<'_>) -> Answer {
    let specs: Vec<Spec> = if args.is_empty() {
        top().collect()
    } else {
        args.rest().iter().filter_map(row).collect()
    };
    Ok(Reply::Map(
        specs
            .iter()
            .map(|spec| (name(spec), documentation(spec)))
            .collect(),
    ))
}

/// `COMMAND LIST [FILTERBY MODULE name|ACLCAT category|PATTERN pattern]`. With a filter, subcommands are listed too.
pub(super) fn list(_: &mut Caller, args: &mut Args<'_>) -> Answer {
    if args.is_empty() {
        return Ok(Reply::Array(top().map(|spec| name(&spec)).collect()));
    }
    if args.remaining() != 3 || !args.keyword("FILTERBY") {
        return Err(CommandError::Syntax);
    }
    let (filter, value) = (args.bytes()?.to_ascii_lowercase(), args.bytes()?);
    let fits = |spec: &Spec| match filter.as_slice() {
        b"module" => Ok(false),
        b"aclcat" => Ok(categories(spec)
            .iter()
            .any(|category| value.eq_ignore_ascii_case(category.as_bytes()))),
        b"pattern" => Ok(glob::matches(&value.to_ascii_uppercase(), spec.name.as_bytes())),
        _ => Err(CommandError::Syntax),
    };
    let mut names = Vec::new();
    for spec in table::all() {
        if fits(&spec)? {
            names.push(name(&spec));
        }
    }
    Ok(Reply::Array(names))
}

/// `COMMAND GETKEYS command argument ...`.
pub(super) fn getkeys(_: &mut Caller, args: &mut Args<'_>) -> Answer {
    let argv = args.rest();
    let spec = table::lookup(argv).map_err(|error| match error {
        CommandError::Arity(_) => CommandError::text("ERR Invalid number of arguments specified for command"),
        _ => CommandError::text("ERR Invalid command specified"),
    })?;
    let keys: Vec<Reply> = spec.keys_of(argv).into_iter().cloned().map(Reply::Bulk).collect();
    if keys.is_empty() {
        return Err(CommandError::text("ERR The command has no key arguments"));
    }
    Ok(Reply::Array(keys))
}

pub(super) fn help(_: &mut Caller, _: &mut Args<'_>) -> Answer {
    Ok(help_of(
        "COMMAND",
        &[
            "(no subcommand)",
            "    Return details about all Redis commands.",
            "COUNT",
            "    Return the total number of commands in this Redis server.",
            "LIST",
            "    Return a list of all commands in this Redis server.",
            "INFO [<command-name> ...]",
            "    Return details about multiple Redis commands.",
            "    If no command names are given, documentation details for all",
            "    commands are returned.",
            "DOCS [<command-name> ...]",
            "    Return documentation details about multiple Redis commands.",
            "    If no command names are given, documentation details for all",
            "    commands are returned.",
            "GETKEYS <full-command>",
            "    Return the keys from a full Redis command.",
        ],
    ))
}

/// The commands that are no subcommands.
fn top() -> impl Iterator<Item = Spec> {
    table::all().filter(|spec| !spec.name.contains('|'))
}

/// The row of a name in any case, `container|sub` included.
fn row(name: &Bytes) -> Option<Spec> {
    let name = std::str::from_utf8(name).ok()?.to_ascii_uppercase();
    let plain = table::by_name(&name)?;
    // The table's static rows do not know their group; those of `all` do.
    table::all().find(|spec| spec.name == plain.name)
}

fn name(spec: &Spec) -> Reply {
    Reply::Bulk(Bytes::from(spec.name.to_ascii_lowercase()))
}

/// The rows of a container's subcommands.
fn subcommands(spec: &Spec) -> Vec<Spec> {
    let inside = |other: &Spec| {
        other
            .name
            .split_once('|')
            .is_some_and(|(container, _)| container == spec.name)
    };
    table::all().filter(inside).collect()
}

/// One command as `COMMAND INFO` shows it.
fn details(spec: &Spec) -> Reply {
    let (first, last, step) = spec.keys();
    let subcommands = subcommands(spec);
    let categories = categories(spec)
        .into_iter()
        .map(|category| simple(format!("@{category}")));
    Reply::Array(vec![
        name(spec),
        Reply::Integer(spec.arity()),
        Reply::Set(flags(spec).map(|flag| simple(flag.to_owned())).collect()),
        Reply::Integer(first),
        Reply::Integer(last),
        Reply::Integer(step),
        Reply::Set(categories.collect()),
        Reply::Set(Vec::new()),
        Reply::Set(Vec::new()),
        if subcommands.is_empty() {
            Reply::Set(Vec::new())
        } else {
            Reply::Array(subcommands.iter().map(details).collect())
        },
    ])
}

fn simple(text: String) -> Reply {
    Reply::Simple(Cow::Owned(text))
}

fn documentation(spec: &Spec) -> Reply {
    let mut pairs = vec![
        (Reply::bulk("summary"), Reply::bulk(spec.summary)),
        (Reply::bulk("since"), Reply::bulk(spec.since)),
        (Reply::bulk("group"), Reply::bulk(spec.group)),
    ];
    let arguments = arguments(spec);
    if !arguments.is_empty() {
        pairs.push((Reply::bulk("arguments"), Reply::Array(arguments)));
    }
    let subcommands = subcommands(spec);
    if !subcommands.is_empty() {
        let documented = subcommands.iter().map(|spec| (name(spec), documentation(spec)));
        pairs.push((Reply::bulk("subcommands"), Reply::Map(documented.collect())));
    }
    Reply::Map(pairs)
}

/// The syntax as one argument per group of words: enough for the hints of `redis-cli`.
fn arguments(spec: &Spec) -> Vec<Reply> {
    let (mut groups, mut depth) = (Vec::<String>::new(), 0);
    for word in spec.syntax.split_whitespace() {
        match groups.last_mut().filter(|_| depth > 0) {
            Some(group) => *group = format!("{group} {word}"),
            None => groups.push(word.to_owned()),
        }
        depth += word.matches('[').count();
        depth -= word.matches(']').count().min(depth);
    }
    let argument = |group: &String| {
        let inner = group.strip_prefix('[').and_then(|group| group.strip_suffix(']'));
        let mut pairs = vec![
            (Reply::bulk("name"), Reply::bulk(inner.unwrap_or(group))),
            (Reply::bulk("type"), Reply::bulk("string")),
        ];
        if inner.is_some() {
            pairs.push((
                Reply::bulk("flags"),
                Reply::Set(vec![Reply::Simple(Cow::Borrowed("optional"))]),
            ));
        }
        Reply::Map(pairs)
    };
    groups.iter().map(argument).collect()
}

/// Redis' flags of a row, in Redis' order.
fn flags(spec: &Spec) -> impl Iterator<Item = &'static str> {
    let first = match spec.run {
        Run::Read(_) => Some("readonly"),
        Run::Write(_) if spec.is_write() => Some("write"),
        Run::Write(_) | Run::Local => None,
    };
    first.into_iter().chain(spec.flags.split_whitespace())
}

/// The ACL categories of a row: those that follow from its group and flags, and those it names.
fn categories(spec: &Spec) -> Vec<&'static str> {
    // A container does nothing itself.
    let container = spec.flags.is_empty() && !subcommands(spec).is_empty();
    let has = |flag: &str| spec.flags.split_whitespace().any(|other| other == flag);
    let belongs = |category: &str| match category {
        // What sorts is of its types.
        "keyspace" => spec.group == "generic" && !spec.name.starts_with("SORT"),
        "read" => matches!(spec.run, Run::Read(_)),
        "write" => spec.is_write(),
        "sortedset" => spec.group == "sorted-set",
        "set" | "list" | "hash" | "string" | "bitmap" | "hyperloglog" | "geo" | "stream" | "session"
        | "pubsub" | "connection" => spec.group == category,
        "admin" | "dangerous" => has("admin"),
        "fast" | "blocking" => has(category),
        "slow" => !has("fast"),
        _ => false,
    };
    let named = |category: &str| spec.categories.split_whitespace().any(|other| other == category);
    let of = |category: &&str| {
        if container {
            *category == "slow"
        } else {
            belongs(category) || named(category)
        }
    };
    CATEGORIES.into_iter().filter(of).collect()
}
