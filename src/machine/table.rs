//! The command table: one row is one command, and the row prints everything else — lookup, arity error, key positions, `COMMAND`.

use super::args::Args;
use super::commands;
use super::keyspace::{Keyspace, View};
use super::reply::{CommandError, Reply};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::LazyLock;

/// What a row runs.
#[derive(Clone, Copy)]
pub enum Run {
    /// Reads; may run on any node at any time, and inside the log.
    Read(fn(&View<'_>, &mut Args<'_>) -> Result<Reply, CommandError>),
    /// Changes; runs in `apply` only.
    Write(fn(&mut Keyspace<'_>, &mut Args<'_>) -> Result<Reply, CommandError>),
    /// Concerns a connection or this node; the edge runs it, the log never carries it.
    Local,
}

/// One command.
#[derive(Clone, Copy)]
pub struct Spec {
    /// Upper-case name; `CONTAINER|SUB` for a subcommand with a row of its own.
    pub name: &'static str,
    /// Arguments in the notation of Redis' documentation. `key` stands for a key.
    pub syntax: &'static str,
    /// What it runs.
    pub run: Run,
    /// One sentence for `COMMAND DOCS` and the README.
    pub summary: &'static str,
    /// The version of Redis (or `plenary 0.1.0`) that brought it.
    pub since: &'static str,
    /// `string`, `hash`, `generic`, `connection`, `server`, `session`.
    pub group: &'static str,
    /// Redis' flags beside `readonly` and `write`, space separated: `denyoom fast`, `noscript loading stale` …
    pub flags: &'static str,
    /// ACL categories beside those that follow from group and flags: `dangerous keyspace`.
    pub categories: &'static str,
}

const fn row(name: &'static str, syntax: &'static str, run: Run) -> Spec {
    Spec { name, syntax, run, summary: "", since: "1.0.0", group: "", flags: "", categories: "" }
}

/// A row that reads.
pub const fn read(
    name: &'static str,
    syntax: &'static str,
    run: fn(&View<'_>, &mut Args<'_>) -> Result<Reply, CommandError>,
) -> Spec {
    row(name, syntax, Run::Read(run))
}

/// A row that changes.
pub const fn write(
    name: &'static str,
    syntax: &'static str,
    run: fn(&mut Keyspace<'_>, &mut Args<'_>) -> Result<Reply, CommandError>,
) -> Spec {
    row(name, syntax, Run::Write(run))
}

/// A row that the edge runs.
pub const fn local(name: &'static str, syntax: &'static str) -> Spec {
    row(name, syntax, Run::Local)
}

impl Spec {
    /// The version that brought it, where it is not 1.0.0.
    pub const fn since(self, since: &'static str) -> Self {
        Self { since, ..self }
    }

    /// Redis' flags beside `readonly` and `write`.
    pub const fn flags(self, flags: &'static str) -> Self {
        Self { flags, ..self }
    }

    /// ACL categories beside those that follow from group and flags.
    pub const fn categories(self, categories: &'static str) -> Self {
        Self { categories, ..self }
    }

    /// One sentence about it.
    pub const fn summary(self, summary: &'static str) -> Self {
        Self { summary, ..self }
    }

    const fn of(self, group: &'static str) -> Self {
        Self { group, ..self }
    }

    /// Arguments with the name: exactly this many, or at least so many where negative. As `COMMAND INFO` says it.
    pub fn arity(&self) -> i64 {
        let (mut count, mut open, mut depth) = (self.name.split('|').count() as i64, false, 0);
        for token in self.syntax.split_whitespace() {
            let (opening, closing) = (token.matches(['[', '<']).count(), token.matches([']', '>']).count());
            let optional = token.starts_with('[') || depth > 0;
            open |= optional && !token.starts_with('<');
            count += i64::from(!optional);
            depth += opening as i64 - closing as i64;
        }
        if open { -count } else { count }
    }

    /// First key, last key (-1: the last argument) and step, as `COMMAND INFO` says them; zeros without keys.
    pub fn keys(&self) -> (i64, i64, i64) {
        let words: Vec<&str> = self.syntax.split_whitespace().collect();
        let is_key = |word: &&str| matches!(word.trim_matches(['[', ']', '.']), "key" | "key1" | "key2" | "source" | "destination" | "newkey");
        let base = self.name.split('|').count() as i64;
        let Some(first) = words.iter().position(|word| is_key(word)) else { return (0, 0, 0) };
        let position = base + first as i64;
        if let Some(again) = words.iter().position(|word| word.starts_with("[key")) {
            let step = if words[again].trim_end_matches(']') == "[key" && words.get(again + 1).is_some_and(|word| word.starts_with("value")) { 2 } else { 1 };
            return (position, -1, step);
        }
        let last = words.iter().rposition(|word| is_key(word)).expect("one was found above");
        (position, base + last as i64, 1)
    }

    /// The keys among a command's arguments.
    pub fn keys_of<'a>(&self, argv: &'a [Bytes]) -> impl Iterator<Item = &'a Bytes> {
        let (first, last, step) = self.keys();
        let end = if last < 0 { argv.len() } else { usize::try_from(last).unwrap_or(0) + 1 };
        let take = if first == 0 { 0 } else { usize::MAX };
        argv.iter()
            .take(end)
            .skip(usize::try_from(first).unwrap_or(0))
            .step_by(usize::try_from(step).unwrap_or(1).max(1))
            .take(take)
    }

    /// Whether this many arguments (the name among them) are right.
    fn admits(&self, arguments: usize) -> bool {
        let arity = self.arity();
        let arguments = i64::try_from(arguments).unwrap_or(i64::MAX);
        if arity < 0 { arguments >= -arity } else { arguments == arity }
    }
}

struct Row {
    spec: Spec,
    subcommands: Vec<&'static str>,
}

static TABLE: LazyLock<HashMap<&'static str, Row>> = LazyLock::new(|| {
    let mut table = HashMap::new();
    for spec in all() {
        table.insert(spec.name, Row { spec, subcommands: Vec::new() });
    }
    for spec in all() {
        if let Some((container, subcommand)) = spec.name.split_once('|') {
            table.get_mut(container).expect("a subcommand's container has a row").subcommands.push(subcommand);
        }
    }
    table
});

/// Every row, group by group.
pub fn all() -> impl Iterator<Item = Spec> {
    commands::GROUPS.iter().flat_map(|(group, rows)| rows.iter().map(move |spec| spec.of(group)))
}

/// The row of a name in upper case, `CONTAINER|SUB` included.
pub fn by_name(name: &str) -> Option<&'static Spec> {
    TABLE.get(name).map(|row| &row.spec)
}

/// The subcommands that have rows under a container's upper-case name.
pub fn subcommands(container: &str) -> &'static [&'static str] {
    TABLE.get(container).map_or(&[], |row| &row.subcommands)
}

/// The longest name in the table, in bytes; a longer one is unknown without a look.
const NAME_MAX: usize = 32;

/// The row for what a client sent: name and subcommand found, arity checked.
///
/// # Errors
/// `Unknown`, `UnknownSubcommand` or `Arity`, with the texts of Redis.
pub fn lookup(argv: &[Bytes]) -> Result<&'static Spec, CommandError> {
    let name = argv.first().ok_or(CommandError::Syntax)?;
    let row = upper(name).and_then(|name| TABLE.get(name.as_str())).ok_or_else(|| unknown(argv))?;
    let spec = match argv.get(1) {
        Some(subcommand) if !row.subcommands.is_empty() => {
            let found = upper(subcommand).and_then(|sub| TABLE.get(format!("{}|{sub}", row.spec.name).as_str()));
            &found.ok_or_else(|| unknown_subcommand(row.spec.name, subcommand))?.spec
        }
        _ => &row.spec,
    };
    if spec.admits(argv.len()) { Ok(spec) } else { Err(CommandError::Arity(spec.name.to_ascii_lowercase())) }
}

fn upper(name: &[u8]) -> Option<String> {
    // A bar stands only in our own names of subcommands: nobody may call one by it.
    (name.len() <= NAME_MAX && !name.contains(&b'|')).then(|| std::str::from_utf8(name).ok().map(str::to_ascii_uppercase))?
}

/// Redis quotes at most 128 bytes of the name and 128 of the arguments.
fn unknown(argv: &[Bytes]) -> CommandError {
    let mut arguments = String::new();
    for argument in &argv[1..] {
        if arguments.len() >= 128 {
            break;
        }
        let room = 128 - arguments.len();
        arguments.push_str(&format!("'{}' ", String::from_utf8_lossy(&argument[..argument.len().min(room)])));
    }
    let name = String::from_utf8_lossy(&argv[0][..argv[0].len().min(128)]).into_owned();
    CommandError::Unknown { name, arguments }
}

fn unknown_subcommand(container: &str, subcommand: &[u8]) -> CommandError {
    let subcommand = String::from_utf8_lossy(&subcommand[..subcommand.len().min(128)]).into_owned();
    CommandError::UnknownSubcommand { subcommand, command: container.to_owned() }
}
