//! The command table: one row is one command, and the row prints everything else — lookup, arity error, key positions, `COMMAND`.

use super::args::{self, Args};
use super::commands;
use super::entry::Entry;
use super::keyspace::{Due, Keyspace, View};
use super::reply::{CommandError, Reply};
use bytes::Bytes;
use fnv::FnvHashMap;
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
    /// Arguments in the notation of Redis' documentation. `key` stands for a key, and so does `tag`.
    pub syntax: &'static str,
    /// What it runs.
    pub run: Run,
    /// One sentence for `COMMAND DOCS` and the README.
    pub summary: &'static str,
    /// The version of Redis (or `plenary 0.1.0`) that brought it.
    pub since: &'static str,
    /// The level from which on it is there: on a state below it is unknown, as it is to the programs that came before. See [`super::entry`].
    pub level: u8,
    /// `string`, `hash`, `generic`, `connection`, `server`, `session`, `cache`.
    pub group: &'static str,
    /// Redis' flags beside `readonly` and `write`, space separated: `denyoom fast`, `noscript loading stale` …
    pub flags: &'static str,
    /// ACL categories beside those that follow from group and flags: `dangerous keyspace`.
    pub categories: &'static str,
    /// Where the keys stand, for a command whose other arguments say so: positions in argv. Redis' flag `movablekeys`.
    pub finder: Option<Finder>,
    /// Its place among all rows, counted when the table is built: what is kept for each command is kept by it.
    pub id: usize,
    /// Words of its name: two for a subcommand. Its arguments begin behind them.
    pub words: usize,
    /// It goes through the log but changes no key: neither the flag nor the category `write`.
    pub keyless: bool,
    /// What a row that reads runs inside the log instead, where it can wait: `XREAD` with `BLOCK`. Outside the log such a row answers
    /// [`Reply::Waiting`] when there is nothing yet: the same command is for the log then.
    pub waits: Option<Waits>,
    /// Whether those who wait for a key by it stand in a line: while the first of them finds nothing, none behind it can, and none is run again.
    pub in_line: bool,
    /// What a row that changes answers where it would only renew a key's life, and what is stored covers that: it need not be in the log then.
    pub renews: Option<Renews>,
}

/// Answers a command that would only renew a key's life without a write, if what is stored covers that.
pub type Renews = fn(&View<'_>, &mut Args<'_>) -> Option<Renewed>;

/// What a command is answered that renewed a key's life without a write.
#[derive(Clone, Debug, PartialEq)]
pub struct Renewed {
    /// Its answer.
    pub reply: Reply,
    /// What is to be written in time all the same.
    pub due: Option<Due>,
}

/// What a row that reads runs inside the log when it can wait.
pub type Waits = fn(&mut Keyspace<'_>, &mut Args<'_>) -> Result<Reply, CommandError>;

/// Finds the positions of the keys in an argv; none where it makes no sense.
pub type Finder = fn(&[Bytes]) -> Vec<usize>;

/// The positions of keys that follow a count which stands at `at`.
pub fn counted_keys(argv: &[Bytes], at: usize) -> Vec<usize> {
    let count = argv.get(at).and_then(|count| super::args::integer(count));
    let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
    let first = at + 1;
    match first.checked_add(count) {
        Some(end) if end <= argv.len() => (first..end).collect(),
        _ => Vec::new(),
    }
}

/// The words of a name: one more than it has bars.
const fn words(name: &str) -> usize {
    let (name, mut at, mut words) = (name.as_bytes(), 0, 1);
    while at < name.len() {
        words += (name[at] == b'|') as usize;
        at += 1;
    }
    words
}

const fn row(name: &'static str, syntax: &'static str, run: Run) -> Spec {
    Spec {
        name,
        syntax,
        run,
        summary: "",
        since: "1.0.0",
        level: Entry::FIRST_FORMAT,
        group: "",
        flags: "",
        categories: "",
        finder: None,
        id: 0,
        words: words(name),
        keyless: false,
        waits: None,
        in_line: false,
        renews: None,
    }
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

    /// The level from which on it is there.
    pub const fn level(self, level: u8) -> Self {
        Self { level, ..self }
    }

    /// Redis' flags beside `readonly` and `write`.
    pub const fn flags(self, flags: &'static str) -> Self {
        Self { flags, ..self }
    }

    /// ACL categories beside those that follow from group and flags.
    pub const fn categories(self, categories: &'static str) -> Self {
        Self { categories, ..self }
    }

    /// Its keys stand where this finds them.
    pub const fn finder(self, finder: Finder) -> Self {
        Self {
            finder: Some(finder),
            ..self
        }
    }

    /// It goes through the log but changes no key.
    pub const fn keyless(self) -> Self {
        Self {
            keyless: true,
            ..self
        }
    }

    /// It reads, and inside the log it can wait by this.
    pub const fn waits(self, waits: Waits) -> Self {
        Self {
            waits: Some(waits),
            ..self
        }
    }

    /// Who waits by it stands in a line.
    pub const fn in_line(self) -> Self {
        Self {
            in_line: true,
            ..self
        }
    }

    /// Where it would only renew a key's life it is answered by this without a write.
    pub const fn renews(self, renews: Renews) -> Self {
        Self {
            renews: Some(renews),
            ..self
        }
    }

    /// One sentence about it.
    pub const fn summary(self, summary: &'static str) -> Self {
        Self { summary, ..self }
    }

    const fn of(self, group: &'static str) -> Self {
        Self { group, ..self }
    }

    /// Whether it changes keys. What only tells something (`PUBLISH`) is in the log for its order, but no write to Redis.
    pub fn is_write(&self) -> bool {
        matches!(self.run, Run::Write(_)) && !self.keyless && self.group != "pubsub"
    }

    /// Whether Redis takes it for a write, whatever it comes to here: its flag `write`.
    pub fn changes(&self) -> bool {
        self.is_write() || self.flags.split(' ').any(|flag| flag == "write")
    }

    /// Whether it may need more memory, and is refused where there is none: Redis' flag `denyoom`.
    pub fn needs_memory(&self) -> bool {
        self.flags.split(' ').any(|flag| flag == "denyoom")
    }

    /// Arguments with the name: exactly this many, or at least so many where negative. As `COMMAND INFO` says it.
    pub fn arity(&self) -> i64 {
        let mut count = self.words as i64;
        let (mut open, mut optional) = (false, 0);
        // Inside `<a b | c>`: the words of each alternative, of which the shortest counts.
        let mut ways: Option<Vec<i64>> = None;
        for token in self.syntax.split_whitespace() {
            let closed = |mark: &str| token.matches(mark).count() as i64;
            if optional == 0 && token.starts_with('<') {
                ways = Some(vec![0]);
            }
            let is_optional = optional > 0 || token.starts_with('[');
            open |= is_optional;
            match &mut ways {
                _ if is_optional => {}
                Some(ways) if token == "|" => ways.push(0),
                Some(ways) => *ways.last_mut().expect("one way at least") += 1,
                None => count += 1,
            }
            optional += closed("[") - closed("]");
            if optional == 0 && token.ends_with('>') {
                let ways = ways.take().unwrap_or_default();
                // Ways of different lengths leave the number of arguments open.
                open |= ways.iter().any(|way| *way != ways[0]);
                count += ways.into_iter().min().unwrap_or(0);
            }
        }
        if open { -count } else { count }
    }

    /// First key, last key (-1: the last argument) and step, as `COMMAND INFO` says them; zeros without keys.
    pub fn keys(&self) -> (i64, i64, i64) {
        let words: Vec<&str> = self.syntax.split_whitespace().collect();
        let is_key = |word: &&str| {
            matches!(
                word.trim_matches(['[', ']', '.']),
                "key" | "key1" | "key2" | "source" | "destination" | "newkey" | "tag"
            )
        };
        let base = self.words as i64;
        let Some(first) = words.iter().position(is_key) else {
            return (0, 0, 0);
        };
        let position = base + first as i64;
        if self.finder.is_some() {
            // What stands in a place of its own is told; the rest is for the finder.
            let plain = |word: &&str| word.starts_with(|first: char| first.is_ascii_lowercase());
            let mut here = words[first..].iter().take(2);
            let counted = here.any(|word| word.starts_with("[key"));
            return if first == 0 || words[..first].iter().all(plain) && !counted {
                (position, position, 1)
            } else {
                (0, 0, 0)
            };
        }
        let repeats = |word: &&str| word.starts_with("[key") || word.starts_with("[tag");
        if let Some(again) = words.iter().position(repeats) {
            let step = if words[again].trim_end_matches(']') == "[key"
                && words.get(again + 1).is_some_and(|word| word.starts_with("value"))
            {
                2
            } else {
                1
            };
            // What must follow the keys is counted from the end.
            let after = words[again..]
                .iter()
                .skip_while(|word| !word.ends_with(']'))
                .skip(1);
            let after = after.take_while(|word| !word.starts_with('[')).count();
            return (position, -1 - after as i64, step);
        }
        let last = words.iter().rposition(is_key).expect("one was found above");
        (position, base + last as i64, 1)
    }

    /// The keys among a command's arguments.
    pub fn keys_of<'a>(&self, argv: &'a [Bytes]) -> Vec<&'a Bytes> {
        self.keys_at(argv)
            .into_iter()
            .filter_map(|at| argv.get(at))
            .collect()
    }

    /// The positions of the keys among a command's arguments.
    pub fn keys_at(&self, argv: &[Bytes]) -> Vec<usize> {
        if let Some(finder) = self.finder {
            return finder(argv).into_iter().filter(|at| *at < argv.len()).collect();
        }
        let (first, last, step) = TABLE.get(self.name).map_or_else(|| self.keys(), |row| row.keys);
        if first == 0 {
            return Vec::new();
        }
        let end = match usize::try_from(last) {
            Ok(last) => argv.len().min(last + 1),
            Err(_) => usize::try_from(last + 1 + i64::try_from(argv.len()).unwrap_or(i64::MAX)).unwrap_or(0),
        };
        (usize::try_from(first).unwrap_or(0)..end.min(argv.len()))
            .step_by(usize::try_from(step).unwrap_or(1).max(1))
            .collect()
    }
}

/// A row and what follows from its syntax, read once: it is asked for every command.
struct Row {
    spec: Spec,
    subcommands: Vec<&'static str>,
    arity: i64,
    keys: (i64, i64, i64),
}

impl Row {
    /// Whether this many arguments (the name among them) are right.
    fn admits(&self, arguments: usize) -> bool {
        let arguments = i64::try_from(arguments).unwrap_or(i64::MAX);
        if self.arity < 0 {
            arguments >= -self.arity
        } else {
            arguments == self.arity
        }
    }
}

/// By a plain hash: the names are ours, so nobody can put many in one place.
static TABLE: LazyLock<FnvHashMap<&'static str, Row>> = LazyLock::new(|| {
    let mut table = FnvHashMap::default();
    for spec in all() {
        let row = Row {
            spec,
            subcommands: Vec::new(),
            arity: spec.arity(),
            keys: spec.keys(),
        };
        table.insert(spec.name, row);
    }
    for spec in all() {
        if let Some((container, subcommand)) = spec.name.split_once('|') {
            table
                .get_mut(container)
                .expect("a subcommand's container has a row")
                .subcommands
                .push(subcommand);
        }
    }
    table
});

/// Every row, group by group.
pub fn all() -> impl Iterator<Item = Spec> {
    commands::GROUPS
        .iter()
        .flat_map(|(group, rows)| rows.iter().map(move |spec| spec.of(group)))
        .enumerate()
        .map(|(id, spec)| Spec { id, ..spec })
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
    lookup_at(argv, u8::MAX)
}

/// The row of a command as a state of this level has it.
///
/// # Errors
/// As [`lookup`]; one of a higher level is unknown.
pub fn lookup_at(argv: &[Bytes], level: u8) -> Result<&'static Spec, CommandError> {
    let mut name = Name::default();
    let container = name.push(argv.first().ok_or(CommandError::Syntax)?);
    let container = container.ok_or_else(|| unknown(argv))?;
    let row = match argv.get(1) {
        Some(subcommand) if !container.subcommands.is_empty() => name
            .push_behind_bar(subcommand)
            .ok_or_else(|| unknown_subcommand(container.spec.name, subcommand))?,
        _ => container,
    };
    let spec = &row.spec;
    if spec.level > level {
        Err(unknown(argv))
    } else if row.admits(argv.len()) {
        Ok(spec)
    } else {
        Err(CommandError::Arity(spec.name.to_ascii_lowercase()))
    }
}

/// A name in upper case, with that of a subcommand behind a bar, on the stack.
struct Name {
    bytes: [u8; 2 * NAME_MAX + 1],
    length: usize,
}

impl Default for Name {
    fn default() -> Self {
        Self {
            bytes: [0; 2 * NAME_MAX + 1],
            length: 0,
        }
    }
}

impl Name {
    /// Adds a word. The row of the name it makes, if there is one.
    fn push(&mut self, word: &[u8]) -> Option<&'static Row> {
        // A bar stands only in our own names of subcommands: nobody may call one by it.
        if word.len() > NAME_MAX || word.contains(&b'|') {
            return None;
        }
        let place = &mut self.bytes[self.length..self.length + word.len()];
        place.copy_from_slice(word);
        place.make_ascii_uppercase();
        self.length += word.len();
        TABLE.get(std::str::from_utf8(&self.bytes[..self.length]).ok()?)
    }

    fn push_behind_bar(&mut self, word: &[u8]) -> Option<&'static Row> {
        self.bytes[self.length] = b'|';
        self.length += 1;
        self.push(word)
    }
}

/// As much of a word as Redis quotes: this many bytes, and nothing from a NUL on.
fn quoted(word: &[u8], room: usize) -> String {
    args::quoted(&word[..word.len().min(room)]).into_owned()
}

/// Redis quotes at most 128 bytes of the name and 128 of the arguments.
fn unknown(argv: &[Bytes]) -> CommandError {
    let mut arguments = String::new();
    for argument in &argv[1..] {
        if arguments.len() >= 128 {
            break;
        }
        let room = 128 - arguments.len();
        arguments.push_str(&format!("'{}' ", quoted(argument, room)));
    }
    let name = quoted(&argv[0], 128);
    CommandError::Unknown { name, arguments }
}

fn unknown_subcommand(container: &str, subcommand: &[u8]) -> CommandError {
    let subcommand = quoted(subcommand, 128);
    CommandError::UnknownSubcommand {
        subcommand,
        command: container.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// What Redis 7.0.15 answers to `COMMAND` and `COMMAND DOCS`: name, arity, flags, first key, last key, step, categories, since, group.
    const REDIS: &str = include_str!("../../tests/golden/command-info.txt");

    fn words<'a>(list: &'a str, separator: &str) -> BTreeSet<&'a str> {
        list.split(separator)
            .filter(|word| !matches!(*word, "" | "-"))
            .collect()
    }

    fn flags(spec: &Spec) -> BTreeSet<&'static str> {
        let mut flags = words(spec.flags, " ");
        match spec.run {
            // HELP of a container reads nothing, nor does a test of itself, whoever answers it.
            Run::Read(_) if !spec.name.ends_with("|HELP") && spec.name != "PFSELFTEST" => {
                flags.insert("readonly");
            }
            Run::Write(_) if spec.is_write() => {
                flags.insert("write");
            }
            Run::Read(_) | Run::Write(_) | Run::Local => {}
        }
        flags
    }

    #[test]
    fn rows_say_of_themselves_what_redis_says() {
        let mut compared = 0;
        for line in REDIS.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let [
                name,
                arity,
                redis_flags,
                first,
                last,
                step,
                categories,
                since,
                group,
            ] = fields[..]
            else {
                panic!("nine fields: {line}")
            };
            let Some(spec) = by_name(name) else { continue };
            let number = |text: &str| text.parse::<i64>().unwrap();
            assert_eq!(spec.arity(), number(arity), "arity of {name}");
            assert_eq!(
                spec.keys(),
                (number(first), number(last), number(step)),
                "keys of {name}"
            );
            assert_eq!(flags(spec), words(redis_flags, ","), "flags of {name}");
            let ours: BTreeSet<String> = super::super::access::categories(spec)
                .map(|category| format!("@{category}"))
                .collect();
            let ours: BTreeSet<&str> = ours.iter().map(String::as_str).collect();
            assert_eq!(ours, words(categories, ","), "categories of {name}");
            assert_eq!((spec.since, spec.group), (since, group), "origin of {name}");
            assert!(
                !spec.summary.is_empty() || spec.name == "PING",
                "summary of {name}"
            );
            compared += 1;
        }
        assert!(compared > 60, "only {compared} rows compared");
    }

    #[test]
    fn rows_that_redis_lacks_say_so() {
        for spec in all().filter(|spec| {
            !REDIS
                .lines()
                .any(|line| line.split(' ').next() == Some(spec.name))
        }) {
            assert!(
                ["plenary ", "7.2", "7.4"]
                    .iter()
                    .any(|since| spec.since.starts_with(since)),
                "{} since {}",
                spec.name,
                spec.since
            );
        }
    }

    #[test]
    fn names_are_unique_short_and_in_upper_case() {
        let mut seen = BTreeSet::new();
        for spec in all() {
            assert!(seen.insert(spec.name), "{} has two rows", spec.name);
            assert!(
                spec.name.split('|').all(|word| word.len() <= NAME_MAX),
                "{}",
                spec.name
            );
            assert_eq!(spec.name, spec.name.to_ascii_uppercase());
        }
    }

    #[test]
    fn keys_are_found_among_the_arguments() {
        let keys = |line: &str| {
            let argv: Vec<Bytes> = line
                .split(' ')
                .map(|word| Bytes::copy_from_slice(word.as_bytes()))
                .collect();
            let Ok(spec) = lookup(&argv) else {
                panic!("no command: {line}")
            };
            spec.keys_of(&argv)
                .into_iter()
                .map(|key| String::from_utf8_lossy(key).into_owned())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(keys("get a"), "a");
        assert_eq!(keys("MGET a b c"), "a b c");
        assert_eq!(keys("mset a 1 b 2"), "a b");
        assert_eq!(keys("RENAME a b"), "a b");
        assert_eq!(keys("COPY a b DB 1"), "a b");
        assert_eq!(keys("LCS a b LEN"), "a b");
        assert_eq!(keys("OBJECT encoding a"), "a");
        assert_eq!(keys("SCAN 0 MATCH x"), "");
        assert_eq!(keys("SET a b GET"), "a");
        assert_eq!(keys("BLPOP a b 0"), "a b");
        assert_eq!(keys("LMPOP 2 a b LEFT COUNT 3"), "a b");
        assert_eq!(keys("BLMPOP 0 2 a b LEFT"), "a b");
        assert_eq!(keys("SINTERCARD 1 a LIMIT 1"), "a");
        assert_eq!(keys("SINTERCARD 9 a LIMIT 1"), "");
        assert_eq!(keys("CACHE.SET a TAGS PX 5 TAGS 2 b c FRESH 1"), "a b c");
        assert_eq!(keys("CACHE.SET a v PX 5 TAGS 1 b LEASE 1 TAGS 1 c"), "a b c");
        assert_eq!(keys("CACHE.SET a v TAGS 2 b TAGS TAGS 1 c"), "a b TAGS c");
        assert_eq!(keys("CACHE.SET a v PX 5 TAGS 9 b"), "a");
        assert_eq!(keys("CACHE.LEASE a 5 TAGS 1 b"), "a b");
        assert_eq!(keys("CACHE.LEASE a 5 TAGS 1 b WAIT 5 TAGS 1 c"), "a b c");
        assert_eq!(keys("CACHE.INVALIDATE a b"), "a b");
    }

    #[test]
    fn names_of_subcommands_are_no_commands() {
        let refused = |line: &str| {
            let argv: Vec<Bytes> = line
                .split(' ')
                .map(|word| Bytes::copy_from_slice(word.as_bytes()))
                .collect();
            lookup(&argv)
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        assert_eq!(
            refused("OBJECT|ENCODING a"),
            "ERR unknown command 'OBJECT|ENCODING', with args beginning with: 'a' "
        );
        assert_eq!(
            refused("object what"),
            "ERR unknown subcommand 'what'. Try OBJECT HELP."
        );
        assert_eq!(
            refused("object"),
            "ERR wrong number of arguments for 'object' command"
        );
    }
}
