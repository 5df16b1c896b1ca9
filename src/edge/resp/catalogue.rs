//! `COMMAND`: the rows of the machine's table in the shape of Redis 7.0.
//!
//! Tips and key specifications are those of [`crate::machine::interface`].

use super::connection::Caller;
use super::local::{Answer, help_of};
use crate::machine::access::categories;
use crate::machine::args::Args;
use crate::machine::glob;
use crate::machine::interface::{Begin, Find, KeySpec, KeyUse, key_specs, key_uses, tips};
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{self, Run, Spec};
use bytes::Bytes;
use std::borrow::Cow;

/// Names of commands that one command may ask about: each may come more than once, as in Redis, and what is said of it is a thousand times as
/// long. There are some 400.
const MAX_NAMES: usize = 1_024;

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
    Ok(Reply::Array(named(args)?.iter().map(details).collect()))
}

pub(super) fn count(_: &mut Caller, _: &mut Args<'_>) -> Answer {
    Ok(Reply::count(top().count()))
}

/// `COMMAND DOCS [name ...]`. What is not known is left out.
pub(super) fn docs(_: &mut Caller, args: &mut Args<'_>) -> Answer {
    let specs: Vec<Spec> = if args.is_empty() {
        top().collect()
    } else {
        named(args)?.iter().filter_map(row).collect()
    };
    Ok(Reply::Map(
        specs
            .iter()
            .map(|spec| (name(spec), documentation(spec)))
            .collect(),
    ))
}

/// `COMMAND LIST [FILTERBY MODULE name|ACLCAT category|PATTERN pattern]`. Subcommands are listed too.
pub(super) fn list(_: &mut Caller, args: &mut Args<'_>) -> Answer {
    if args.is_empty() {
        return Ok(Reply::Array(table::all().map(|spec| name(&spec)).collect()));
    }
    if args.remaining() != 3 || !args.keyword("FILTERBY") {
        return Err(CommandError::Syntax);
    }
    let (filter, value) = (args.bytes()?.to_ascii_lowercase(), args.bytes()?);
    let fits = |spec: &Spec| match filter.as_slice() {
        b"module" => Ok(false),
        b"aclcat" => Ok(categories(spec).any(|category| value.eq_ignore_ascii_case(category.as_bytes()))),
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
    let keys = uses(argv)?
        .into_iter()
        .map(|key| Reply::Bulk(argv[key.at].clone()));
    Ok(Reply::Array(keys.collect()))
}

/// `COMMAND GETKEYSANDFLAGS command argument ...`.
pub(super) fn getkeysandflags(_: &mut Caller, args: &mut Args<'_>) -> Answer {
    let argv = args.rest();
    let shown = uses(argv)?
        .into_iter()
        .map(|key| Reply::Array(vec![Reply::Bulk(argv[key.at].clone()), key_flags(key.flags)]));
    Ok(Reply::Array(shown.collect()))
}

fn uses(argv: &[Bytes]) -> Result<Vec<KeyUse>, CommandError> {
    const NONE: CommandError = CommandError::text("ERR The command has no key arguments");
    let spec = table::lookup(argv).map_err(|error| match error {
        CommandError::Arity(_) => CommandError::text("ERR Invalid number of arguments specified for command"),
        _ => CommandError::text("ERR Invalid command specified"),
    })?;
    if key_specs(spec).is_empty() && spec.keys().0 == 0 && spec.finder.is_none() {
        return Err(NONE);
    }
    let keys = key_uses(spec, argv);
    let optional = spec.flags.contains("no_mandatory_keys");
    if keys.is_empty() && !optional {
        return Err(CommandError::text("ERR Invalid arguments specified for command"));
    }
    Ok(keys)
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
            "GETKEYSANDFLAGS <full-command>",
            "    Return the keys and the access flags from a full Redis command.",
        ],
    ))
}

/// The names that a command asks about, of which there may be [`MAX_NAMES`].
pub(super) fn named<'a>(args: &mut Args<'a>) -> Result<&'a [Bytes], CommandError> {
    const TOO_MANY: CommandError = CommandError::text("ERR too many names of commands");
    let names = args.rest();
    if names.len() > MAX_NAMES {
        return Err(TOO_MANY);
    }
    Ok(names)
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
    let categories = categories(spec).map(|category| simple(format!("@{category}")));
    Reply::Array(vec![
        name(spec),
        Reply::Integer(spec.arity()),
        Reply::Set(flags(spec).map(|flag| simple(flag.to_owned())).collect()),
        Reply::Integer(first),
        Reply::Integer(last),
        Reply::Integer(step),
        Reply::Set(categories.collect()),
        Reply::Set(tips(spec).split_whitespace().map(Reply::bulk).collect()),
        Reply::Set(key_specs(spec).iter().map(key_spec).collect()),
        if subcommands.is_empty() {
            Reply::Set(Vec::new())
        } else {
            Reply::Array(subcommands.iter().map(details).collect())
        },
    ])
}

/// A key specification as Redis shows it.
fn key_spec(spec: &KeySpec) -> Reply {
    let number = |number: usize| Reply::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    let typed =
        |name: &str, spec: Vec<(&str, Reply)>| map(vec![("type", Reply::bulk(name)), ("spec", map(spec))]);
    let begin = match spec.begin {
        Begin::At(at) => typed("index", vec![("index", number(at))]),
        Begin::Behind(word, from) => typed(
            "keyword",
            vec![
                ("keyword", Reply::bulk(word)),
                ("startfrom", Reply::Integer(from)),
            ],
        ),
        Begin::Unknown => typed("unknown", Vec::new()),
    };
    let find = match spec.find {
        Find::Range(last, step, limit) => typed(
            "range",
            vec![
                ("lastkey", Reply::Integer(last)),
                ("keystep", number(step)),
                ("limit", number(limit)),
            ],
        ),
        Find::Counted(count, first, step) => typed(
            "keynum",
            vec![
                ("keynumidx", number(count)),
                ("firstkey", number(first)),
                ("keystep", number(step)),
            ],
        ),
        Find::Unknown => typed("unknown", Vec::new()),
    };
    let note = Some(("notes", Reply::bulk(spec.note))).filter(|_| !spec.note.is_empty());
    let pairs = [
        ("flags", key_flags(spec.flags)),
        ("begin_search", begin),
        ("find_keys", find),
    ];
    map(note.into_iter().chain(pairs).collect())
}

fn key_flags(flags: &'static str) -> Reply {
    // One for each key that is named: borrowed, they take no memory of their own.
    let flags = flags.split(' ').map(|flag| Reply::Simple(Cow::Borrowed(flag)));
    Reply::Set(flags.collect())
}

fn map(pairs: Vec<(&str, Reply)>) -> Reply {
    Reply::Map(
        pairs
            .into_iter()
            .map(|(name, value)| (Reply::bulk(name), value))
            .collect(),
    )
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
