//! Unions, intersections and differences of sorted sets, and of sets, whose members all have the score 1.

use super::zset::{members, store};
use crate::machine::args::{self, Args};
use crate::machine::float;
use crate::machine::keyspace::{Keyspace, View};
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{Spec, counted_keys, read, write};
use crate::machine::value::{Set, Value, Zset};
use bytes::Bytes;
use indexmap::IndexMap;

pub(super) const COMMANDS: &[Spec] = &[
    read("ZDIFF", "numkeys key [key ...] [WITHSCORES]", zdiff)
        .since("6.2.0")
        .flags("movablekeys")
        .finder(|argv| counted_keys(argv, 1))
        .summary("The members of the first sorted set that are in none of the others."),
    write("ZDIFFSTORE", "destination numkeys key [key ...]", zdiffstore)
        .since("6.2.0")
        .flags("denyoom movablekeys")
        .finder(destination_and_counted_keys)
        .summary(
            "Stores the members of the first sorted set that are in none of the others; how many they are.",
        ),
    read(
        "ZINTER",
        "numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>] [WITHSCORES]",
        zinter,
    )
    .since("6.2.0")
    .flags("movablekeys")
    .finder(|argv| counted_keys(argv, 1))
    .summary("The members that are in every one of the sorted sets."),
    read("ZINTERCARD", "numkeys key [key ...] [LIMIT limit]", zintercard)
        .since("7.0.0")
        .flags("movablekeys")
        .finder(|argv| counted_keys(argv, 1))
        .summary("How many members are in every one of the sorted sets."),
    write(
        "ZINTERSTORE",
        "destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>]",
        zinterstore,
    )
    .since("2.0.0")
    .flags("denyoom movablekeys")
    .finder(destination_and_counted_keys)
    .summary("Stores the members that are in every one of the sorted sets; how many they are."),
    read(
        "ZUNION",
        "numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>] [WITHSCORES]",
        zunion,
    )
    .since("6.2.0")
    .flags("movablekeys")
    .finder(|argv| counted_keys(argv, 1))
    .summary("The members that are in any of the sorted sets."),
    write(
        "ZUNIONSTORE",
        "destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>]",
        zunionstore,
    )
    .since("2.0.0")
    .flags("denyoom movablekeys")
    .finder(destination_and_counted_keys)
    .summary("Stores the members that are in any of the sorted sets; how many they are."),
];

fn destination_and_counted_keys(argv: &[Bytes]) -> Vec<usize> {
    let mut keys = counted_keys(argv, 2);
    // Where the count makes no sense there are no keys at all.
    if !keys.is_empty() {
        keys.insert(0, 1);
    }
    keys
}

fn zunion(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    answer(view, args, Operation::Union, "zunion")
}

fn zinter(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    answer(view, args, Operation::Inter, "zinter")
}

fn zdiff(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    answer(view, args, Operation::Diff, "zdiff")
}

fn answer(
    view: &View<'_>,
    args: &mut Args<'_>,
    operation: Operation,
    name: &str,
) -> Result<Reply, CommandError> {
    let combination = Combination::parse(view, args, operation, name, Form::Answer)?;
    let zset = Zset::of_large(combination.scores());
    Ok(members(zset.iter(), combination.with_scores))
}

fn zintercard(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let combination = Combination::parse(view, args, Operation::Inter, "zintercard", Form::Count)?;
    let limit = match combination.limit {
        0 => usize::MAX,
        limit => limit,
    };
    Ok(Reply::count(combination.intersection().take(limit).count()))
}

fn zunionstore(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    answer_stored(keys, args, Operation::Union, "zunionstore")
}

fn zinterstore(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    answer_stored(keys, args, Operation::Inter, "zinterstore")
}

fn zdiffstore(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    answer_stored(keys, args, Operation::Diff, "zdiffstore")
}

fn answer_stored(
    keys: &mut Keyspace<'_>,
    args: &mut Args<'_>,
    operation: Operation,
    name: &str,
) -> Result<Reply, CommandError> {
    let destination = args.key()?;
    let view = keys.view();
    let combination = Combination::parse(&view, args, operation, name, Form::Store)?;
    let zset = Zset::of(combination.scores(), keys.settings());
    Ok(store(keys, destination, zset, name))
}

#[derive(Clone, Copy, PartialEq)]
enum Operation {
    Union,
    Inter,
    Diff,
}

/// What is done with the result; each has its own options.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Answer,
    Store,
    Count,
}

/// How the scores of one member become one.
#[derive(Clone, Copy)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn of(self, score: f64, other: f64) -> f64 {
        match self {
            // Infinity less infinity is nothing.
            Self::Sum => number_or_zero(score + other),
            // As Redis compares: what is not a number (zero times infinity) changes nothing.
            Self::Min => {
                if other < score {
                    other
                } else {
                    score
                }
            }
            Self::Max => {
                if other > score {
                    other
                } else {
                    score
                }
            }
        }
    }
}

fn number_or_zero(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// What a key holds that can be combined.
#[derive(Clone, Copy)]
enum Source<'a> {
    Nothing,
    Set(&'a Set),
    Zset(&'a Zset),
}

impl<'a> Source<'a> {
    fn of(view: &View<'a>, key: &[u8]) -> Result<Self, CommandError> {
        match view.get(key) {
            None => Ok(Self::Nothing),
            Some(Value::Set(set)) => Ok(Self::Set(set)),
            Some(Value::Zset(zset)) => Ok(Self::Zset(zset)),
            Some(_) => Err(CommandError::WrongType),
        }
    }

    fn len(self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Set(set) => set.len(),
            Self::Zset(zset) => zset.len(),
        }
    }

    fn score(self, member: &[u8]) -> Option<f64> {
        match self {
            Self::Nothing => None,
            Self::Set(set) => set.contains(member).then_some(1.0),
            Self::Zset(zset) => zset.score(member),
        }
    }

    fn iter(self) -> Box<dyn Iterator<Item = (Bytes, f64)> + 'a> {
        match self {
            Self::Nothing => Box::new(std::iter::empty()),
            Self::Set(set) => Box::new(set.iter().map(|member| (member.clone(), 1.0))),
            Self::Zset(zset) => Box::new(zset.iter().map(|(member, score)| (member.clone(), score))),
        }
    }
}

/// What is combined, and how.
struct Combination<'a> {
    operation: Operation,
    /// With their weights; for unions and intersections the shortest first, so that scores are added in Redis' order.
    sources: Vec<(Source<'a>, f64)>,
    aggregate: Aggregate,
    with_scores: bool,
    /// Of `ZINTERCARD`; 0: none.
    limit: usize,
}

impl<'a> Combination<'a> {
    /// Reads `numkeys key [key ...] [options]`.
    fn parse(
        view: &View<'a>,
        args: &mut Args<'_>,
        operation: Operation,
        name: &str,
        form: Form,
    ) -> Result<Self, CommandError> {
        let numkeys = args.integer()?;
        if numkeys < 1 {
            let text = format!("ERR at least 1 input key is needed for '{name}' command");
            return Err(CommandError::Other(text.into()));
        }
        let keys = args.many(usize::try_from(numkeys).map_err(|_| CommandError::Syntax)?)?;
        let sources: Result<Vec<_>, _> = keys.iter().map(|key| Ok((Source::of(view, key)?, 1.0))).collect();
        let mut combination = Self {
            operation,
            sources: sources?,
            aggregate: Aggregate::Sum,
            with_scores: false,
            limit: 0,
        };
        while !args.is_empty() {
            combination.parse_option(args, form)?;
        }
        if operation != Operation::Diff {
            combination.sources.sort_by_key(|(source, _)| source.len());
        }
        Ok(combination)
    }

    fn parse_option(&mut self, args: &mut Args<'_>, form: Form) -> Result<(), CommandError> {
        let weighted = self.operation != Operation::Diff && form != Form::Count;
        if weighted && args.remaining() > self.sources.len() && args.keyword("WEIGHTS") {
            for (_, weight) in &mut self.sources {
                *weight = float::double(args.bytes()?)
                    .ok_or(CommandError::text("ERR weight value is not a float"))?;
            }
        } else if weighted && args.remaining() >= 2 && args.keyword("AGGREGATE") {
            self.aggregate = if args.keyword("SUM") {
                Aggregate::Sum
            } else if args.keyword("MIN") {
                Aggregate::Min
            } else if args.keyword("MAX") {
                Aggregate::Max
            } else {
                return Err(CommandError::Syntax);
            };
        } else if form == Form::Answer && args.keyword("WITHSCORES") {
            self.with_scores = true;
        } else if form == Form::Count && args.remaining() >= 2 && args.keyword("LIMIT") {
            let limit = args::integer(args.bytes()?).and_then(|limit| usize::try_from(limit).ok());
            self.limit = limit.ok_or(CommandError::text("ERR LIMIT can't be negative"))?;
        } else {
            return Err(CommandError::Syntax);
        }
        Ok(())
    }

    /// The members of the result with their scores.
    fn scores(&self) -> IndexMap<Bytes, f64> {
        match self.operation {
            Operation::Union => self.union(),
            Operation::Inter => self.intersection().collect(),
            Operation::Diff => self.difference().collect(),
        }
    }

    fn union(&self) -> IndexMap<Bytes, f64> {
        let mut scores: IndexMap<Bytes, f64> = IndexMap::new();
        for (source, weight) in &self.sources {
            for (member, score) in source.iter() {
                let weighted = number_or_zero(weight * score);
                scores
                    .entry(member)
                    .and_modify(|score| *score = self.aggregate.of(*score, weighted))
                    .or_insert(weighted);
            }
        }
        scores
    }

    fn intersection(&self) -> impl Iterator<Item = (Bytes, f64)> {
        let ((first, weight), others) = self.sources.split_first().expect("one key at least");
        first.iter().filter_map(move |(member, score)| {
            let mut sum = number_or_zero(weight * score);
            for (source, weight) in others {
                sum = self.aggregate.of(sum, source.score(&member)? * weight);
            }
            Some((member, sum))
        })
    }

    fn difference(&self) -> impl Iterator<Item = (Bytes, f64)> {
        let ((first, _), others) = self.sources.split_first().expect("one key at least");
        let is_elsewhere = |member: &Bytes| others.iter().any(|(source, _)| source.score(member).is_some());
        first.iter().filter(move |(member, _)| !is_elsewhere(member))
    }
}
