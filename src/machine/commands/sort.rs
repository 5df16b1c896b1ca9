//! `SORT`: the elements of a list, set or sorted set in an order that other keys may give.
//!
//! Follows Redis 7.0 under the C locale. A set that is not to be sorted (`BY nosort`) comes in the order in which we hold it.

use crate::machine::args::Args;
use crate::machine::event::Classes;
use crate::machine::keyspace::{Keyspace, View};
use crate::machine::partial_sort::partial_sort;
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{Spec, read, write};
use crate::machine::value::{Kind, List, Value};
use bytes::Bytes;
use std::cmp::Ordering;

pub(super) const COMMANDS: &[Spec] = &[
    write("SORT", "key [BY pattern] [LIMIT offset count] [GET pattern ...] [ASC | DESC] [ALPHA] [STORE destination]", sort)
        .flags("denyoom movablekeys")
        .categories("set sortedset list dangerous")
        .finder(keys_of_sort)
        .summary("The elements of a list, set or sorted set in order, or what other keys hold for them; may store that as a list."),
    read("SORT_RO", "key [BY pattern] [LIMIT offset count] [GET pattern ...] [ASC | DESC] [ALPHA]", sort_ro)
        .since("7.0.0")
        .flags("movablekeys")
        .categories("set sortedset list dangerous")
        .finder(|_| vec![1])
        .summary("The elements of a list, set or sorted set in order, or what other keys hold for them."),
];

/// What is sorted, and where the last `STORE` puts it.
fn keys_of_sort(argv: &[Bytes]) -> Vec<usize> {
    let stores = |at: &usize| argv[*at].eq_ignore_ascii_case(b"STORE") && at + 1 < argv.len();
    let stored = options(argv).filter(stores).last();
    [1].into_iter().chain(stored.map(|at| at + 1)).collect()
}

/// The first option by which keys are read that the arguments do not name; a `BY` that only says not to sort reads none.
pub(in crate::machine) fn reads_unnamed_keys(argv: &[Bytes]) -> Option<&'static str> {
    options(argv).find_map(|at| {
        let pattern = argv.get(at + 1)?;
        let is = |known: &str| argv[at].eq_ignore_ascii_case(known.as_bytes());
        match () {
            () if is("BY") && pattern.contains(&b'*') => Some("BY"),
            () if is("GET") => Some("GET"),
            () => None,
        }
    })
}

/// Where the options stand: what belongs to one is none, whatever it says.
fn options(argv: &[Bytes]) -> impl Iterator<Item = usize> {
    let behind = |at: &usize| {
        let word = argv.get(*at)?;
        let is = |known: &str| word.eq_ignore_ascii_case(known.as_bytes());
        let words = match () {
            () if is("LIMIT") => 3,
            () if is("BY") || is("GET") || is("STORE") => 2,
            () => 1,
        };
        Some(at + words)
    };
    std::iter::successors(Some(2), behind).take_while(|at| *at < argv.len())
}

/// What is asked for.
#[derive(Default)]
struct Options<'a> {
    /// The pattern of the keys that hold weights.
    by: Option<&'a Bytes>,
    /// As they come: a pattern without a star was given.
    unsorted: bool,
    descending: bool,
    alpha: bool,
    /// The first, and how many; negative for all.
    limit: Option<(i64, i64)>,
    /// Patterns of what is answered instead of each element.
    get: Vec<&'a Bytes>,
    store: Option<&'a Bytes>,
}

impl<'a> Options<'a> {
    fn parse(args: &mut Args<'a>, may_store: bool) -> Result<Self, CommandError> {
        let mut options = Self::default();
        while !args.is_empty() {
            let more = args.remaining() - 1;
            if args.keyword("ASC") {
                options.descending = false;
            } else if args.keyword("DESC") {
                options.descending = true;
            } else if args.keyword("ALPHA") {
                options.alpha = true;
            } else if more >= 2 && args.keyword("LIMIT") {
                options.limit = Some((args.integer()?, args.integer()?));
            } else if may_store && more >= 1 && args.keyword("STORE") {
                options.store = Some(args.key()?);
            } else if more >= 1 && args.keyword("BY") {
                let pattern = args.bytes()?;
                options.unsorted |= !pattern.contains(&b'*');
                options.by = Some(pattern);
            } else if more >= 1 && args.keyword("GET") {
                options.get.push(args.bytes()?);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }

    /// Of so many elements, those that are answered.
    fn chosen(&self, len: usize) -> std::ops::Range<usize> {
        let (first, count) = self.limit.unwrap_or((0, -1));
        let start = usize::try_from(first.max(0)).unwrap_or(usize::MAX).min(len);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        start..start.saturating_add(count).min(len)
    }
}

fn sort(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, options) = (args.key()?, Options::parse(args, true)?);
    let found = results(&keys.view(), key, &options)?;
    let Some(destination) = options.store else {
        return Ok(answer(found));
    };
    let count = found.len();
    if count > 0 {
        let mut list = List::default();
        found
            .into_iter()
            .for_each(|element| list.push_back(&element.unwrap_or_default()));
        keys.put(destination, list.into_value());
        keys.notify(Classes::LIST, "sortstore", destination);
    } else if keys.remove(destination).is_some() {
        keys.notify(Classes::GENERIC, "del", destination);
    }
    Ok(Reply::count(count))
}

fn sort_ro(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, options) = (args.key()?, Options::parse(args, false)?);
    Ok(answer(results(view, key, &options)?))
}

fn answer(found: Vec<Option<Bytes>>) -> Reply {
    Reply::Array(found.into_iter().map(Reply::bulk_or_nil).collect())
}

/// Values that several `GET`s may make of the elements: a few words ask for more than a node has memory for.
const VALUES_MAX: usize = 1 << 22;

/// The elements in order, or what the `GET`s make of each.
fn results(view: &View<'_>, key: &[u8], options: &Options<'_>) -> Result<Vec<Option<Bytes>>, CommandError> {
    let elements = ordered(view, key, options)?;
    if options.get.is_empty() {
        return Ok(elements.into_iter().map(Some).collect());
    }
    let values = elements.len().saturating_mul(options.get.len());
    // What is stored was bounded with format 4.
    let is_bounded = options.store.is_none() || view.store().settings().level > 3;
    if options.get.len() > 1 && values > VALUES_MAX && is_bounded {
        return Err(CommandError::Other(
            format!("ERR SORT with so many GETs comes to more than {VALUES_MAX} values").into(),
        ));
    }
    let each = |element: &Bytes| -> Vec<Option<Bytes>> {
        options
            .get
            .iter()
            .map(|pattern| pointed_at(view, pattern, element))
            .collect()
    };
    Ok(elements.iter().flat_map(each).collect())
}

/// The elements that are answered, in order.
fn ordered(view: &View<'_>, key: &[u8], options: &Options<'_>) -> Result<Vec<Bytes>, CommandError> {
    let value = view.get(key);
    let mut elements: Vec<Bytes> = match value {
        None => Vec::new(),
        Some(Value::List(list)) => list.iter().cloned().collect(),
        Some(Value::Set(set)) => set.iter().cloned().collect(),
        Some(Value::Zset(zset)) => zset.iter().map(|(member, _)| member.clone()).collect(),
        Some(_) => return Err(CommandError::WrongType),
    };
    let is_set = matches!(value, Some(Value::Set(_)));
    // What is stored has an order of its own: a set is sorted for it.
    if options.unsorted && !(is_set && options.store.is_some()) {
        if options.descending && !is_set {
            elements.reverse();
        }
    } else if options.unsorted {
        elements.sort_unstable();
        if options.descending {
            elements.reverse();
        }
    } else if options.alpha {
        sort_by_text(view, &mut elements, options);
    } else {
        sort_by_number(view, &mut elements, options)?;
    }
    let chosen = options.chosen(elements.len());
    elements.truncate(chosen.end);
    elements.drain(..chosen.start.min(chosen.end));
    Ok(elements)
}

fn turned(order: Ordering, options: &Options<'_>) -> Ordering {
    if options.descending {
        order.reverse()
    } else {
        order
    }
}

fn sort_by_text(view: &View<'_>, elements: &mut Vec<Bytes>, options: &Options<'_>) {
    let Some(pattern) = options.by else {
        return elements.sort_by(|one, other| turned(one.cmp(other), options));
    };
    let mut weighed: Vec<_> = elements
        .drain(..)
        .map(|element| (pointed_at(view, pattern, &element), element))
        .collect();
    // What has no weight comes first.
    let order =
        |one: &(Option<Bytes>, Bytes), other: &(Option<Bytes>, Bytes)| turned(one.0.cmp(&other.0), options);
    let chosen = options.chosen(weighed.len());
    if chosen == (0..weighed.len()) {
        weighed.sort_by(order);
    } else {
        partial_sort(&mut weighed, &chosen, &order);
    }
    elements.extend(weighed.into_iter().map(|(_, element)| element));
}

fn sort_by_number(
    view: &View<'_>,
    elements: &mut Vec<Bytes>,
    options: &Options<'_>,
) -> Result<(), CommandError> {
    let mut weighed = Vec::with_capacity(elements.len());
    for element in elements.drain(..) {
        let text = match options.by {
            Some(pattern) => pointed_at(view, pattern, &element),
            None => Some(element.clone()),
        };
        let weight = match text {
            Some(text) => weight(&text).ok_or(CommandError::text(
                "ERR One or more scores can't be converted into double",
            ))?,
            None => 0.0,
        };
        weighed.push((weight, element));
    }
    weighed.sort_by(|one, other| {
        // Never NaN; both zeros are one. What weighs the same is put in order all the same.
        let order = one.0.partial_cmp(&other.0).unwrap_or(Ordering::Equal);
        turned(order.then_with(|| one.1.cmp(&other.1)), options)
    });
    elements.extend(weighed.into_iter().map(|(_, element)| element));
    Ok(())
}

/// A number as `strtod` reads it, to its end or the first NUL; nothing is 0. None for anything else, NaN, and what is out of range.
fn weight(text: &[u8]) -> Option<f64> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let number = text.trim_ascii_start();
    if text.is_empty() {
        return Some(0.0);
    }
    let unsigned = number
        .strip_prefix(b"-")
        .or(number.strip_prefix(b"+"))
        .unwrap_or(number);
    let infinite = unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity");
    if !infinite && !matches!(unsigned.first(), Some(b'0'..=b'9' | b'.')) {
        return None;
    }
    let value: f64 = std::str::from_utf8(number).ok()?.parse().ok()?;
    let vanished = value == 0.0
        && unsigned
            .iter()
            .take_while(|byte| !byte.eq_ignore_ascii_case(&b'e'))
            .any(|byte| matches!(byte, b'1'..=b'9'));
    (infinite || (value.is_finite() && !vanished)).then_some(value)
}

/// What a pattern points at for an element: `#` the element, `a*b` the string under that key with the element in the place of the star,
/// `a*b->field` a field of the hash there. None where there is none, or no star.
fn pointed_at(view: &View<'_>, pattern: &[u8], element: &Bytes) -> Option<Bytes> {
    if pattern == b"#" {
        return Some(element.clone());
    }
    let star = pattern.iter().position(|byte| *byte == b'*')?;
    let behind = &pattern[star + 1..];
    let arrow = behind
        .windows(2)
        .position(|pair| pair == b"->")
        .filter(|arrow| arrow + 2 < behind.len());
    let key = [
        &pattern[..star],
        element,
        &behind[..arrow.unwrap_or(behind.len())],
    ]
    .concat();
    match (view.get(&key)?, arrow) {
        (Value::String(string), None) => Some(string.bytes().clone()),
        (Value::Hash(hash), Some(arrow)) => hash.after(view.passed()).value(&behind[arrow + 2..]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_read_as_redis_reads_them() {
        for (text, number) in [
            ("", 0.0),
            ("1", 1.0),
            ("  -1.5e1", -15.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("+inf", f64::INFINITY),
            ("1\0x", 1.0),
        ] {
            assert_eq!(weight(text.as_bytes()), Some(number), "{text:?}");
        }
        for text in ["x", "1x", "1 ", " ", "nan", "1e400", "1e-400", "e5", "--1", "."] {
            assert_eq!(weight(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn the_keys_of_sort_are_found_behind_whatever_else_is_said() {
        let keys = |line: &str| {
            let argv: Vec<Bytes> = line
                .split(' ')
                .map(|word| Bytes::copy_from_slice(word.as_bytes()))
                .collect();
            keys_of_sort(&argv)
        };
        assert_eq!(keys("SORT a"), [1]);
        assert_eq!(keys("SORT a STORE b"), [1, 3]);
        assert_eq!(
            keys("SORT a GET store LIMIT 0 store BY store STORE b store c"),
            [1, 12]
        );
        assert_eq!(keys("SORT a store"), [1]);
    }

    #[test]
    fn gets_come_to_no_more_than_a_node_has_memory_for() {
        use crate::machine::entry::{Command, Entry, Origin};
        use crate::machine::{Machine, Outcome};
        let mut machine = Machine::default();
        let mut run = |text: &str| {
            let entry = Entry {
                format: Entry::FORMAT,
                at: 1,
                seed: 1,
                origin: Origin::default(),
                commands: vec![Command::new(0, text.split(' ').map(str::to_owned))],
            };
            match machine.apply(&entry) {
                Outcome::Applied(mut replies) => replies.remove(0),
                other => panic!("not applied: {other:?}"),
            }
        };
        let numbers: Vec<_> = (0..1_000).map(|number| number.to_string()).collect();
        run(&format!("RPUSH l {}", numbers.join(" ")));
        let gets = " GET #".repeat(5_000);
        for text in [format!("SORT l{gets}"), format!("SORT l{gets} STORE to")] {
            assert!(matches!(run(&text), Reply::Error(_)));
        }
        assert_eq!(run("EXISTS to"), Reply::Integer(0));
        assert!(
            matches!(run(&format!("SORT l LIMIT 0 2{gets}")), Reply::Array(values) if values.len() == 10_000)
        );
    }
}
