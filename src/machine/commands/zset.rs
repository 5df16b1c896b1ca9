//! Sorted sets: members in the order of their scores; the commands that wait for one are here too.
//!
//! Follows Redis 7.0. Where a row differs on purpose, the row says so. Unions, intersections and differences are in `zset_combine`.

use super::scan;
use crate::machine::args::{self, Args};
use crate::machine::event::Classes;
use crate::machine::float;
use crate::machine::keyspace::{Chance, Keyspace, View};
use crate::machine::reply::{CommandError, Reply, double_text};
use crate::machine::table::{Spec, counted_keys, read, write};
use crate::machine::value::{Kind, Zset};
use crate::machine::waiting::Otherwise;
use bytes::Bytes;
use std::ops::Range;

pub(super) const COMMANDS: &[Spec] = &[
    write("BZMPOP", "timeout numkeys key [key ...] <MIN | MAX> [COUNT count]", bzmpop)
        .since("7.0.0")
        .flags("blocking movablekeys")
        .finder(|argv| counted_keys(argv, 2))
        .summary("Removes members with the lowest or highest scores from the first sorted set that has any; waits for one."),
    write("BZPOPMAX", "key [key ...] timeout", bzpopmax)
        .since("5.0.0")
        .flags("noscript blocking fast")
        .summary("Removes the member with the highest score from the first sorted set that has any; waits for one."),
    write("BZPOPMIN", "key [key ...] timeout", bzpopmin)
        .since("5.0.0")
        .flags("noscript blocking fast")
        .summary("Removes the member with the lowest score from the first sorted set that has any; waits for one."),
    write(
        "ZADD",
        "key [NX | XX] [GT | LT] [CH] [INCR] score member [score member ...]",
        zadd,
    )
    .since("1.2.0")
    .flags("denyoom fast")
    .summary("Gives members scores; how many are new."),
    read("ZCARD", "key", zcard)
        .since("1.2.0")
        .flags("fast")
        .summary("How many members there are."),
    read("ZCOUNT", "key min max", zcount)
        .since("2.0.0")
        .flags("fast")
        .summary("How many members have a score in a range."),
    write("ZINCRBY", "key increment member", zincrby)
        .since("1.2.0")
        .flags("denyoom fast")
        .summary("Adds to the score of a member; an absent one has 0."),
    read("ZLEXCOUNT", "key min max", zlexcount)
        .since("2.8.9")
        .flags("fast")
        .summary("How many members are in a range of members, where all have one score."),
    write("ZMPOP", "numkeys key [key ...] <MIN | MAX> [COUNT count]", zmpop)
        .since("7.0.0")
        .flags("movablekeys")
        .finder(|argv| counted_keys(argv, 1))
        .summary("Removes members with the lowest or highest scores from the first sorted set that has any."),
    read("ZMSCORE", "key member [member ...]", zmscore)
        .since("6.2.0")
        .flags("fast")
        .summary("The scores of several members, nil where there is none."),
    write("ZPOPMAX", "key [count]", zpopmax)
        .since("5.0.0")
        .flags("fast")
        .summary("Removes members with the highest scores."),
    write("ZPOPMIN", "key [count]", zpopmin)
        .since("5.0.0")
        .flags("fast")
        .summary("Removes members with the lowest scores."),
    // Differs: a negative count beyond what `scan` allows is refused.
    read("ZRANDMEMBER", "key [count [WITHSCORES]]", zrandmember)
        .since("6.2.0")
        .summary("Members by chance: different ones, or with repeats for a negative count."),
    read(
        "ZRANGE",
        "key start stop [BYSCORE | BYLEX] [REV] [LIMIT offset count] [WITHSCORES]",
        zrange,
    )
    .since("1.2.0")
    .summary("The members in a range of ranks, scores or members."),
    read("ZRANGEBYLEX", "key min max [LIMIT offset count]", zrangebylex)
        .since("2.8.9")
        .summary("The members in a range of members, where all have one score."),
    read(
        "ZRANGEBYSCORE",
        "key min max [WITHSCORES] [LIMIT offset count]",
        zrangebyscore,
    )
    .since("1.0.5")
    .summary("The members with a score in a range."),
    write(
        "ZRANGESTORE",
        "destination source min max [BYSCORE | BYLEX] [REV] [LIMIT offset count]",
        zrangestore,
    )
    .since("6.2.0")
    .flags("denyoom")
    .summary("Stores the members in a range of ranks, scores or members; how many they are."),
    read("ZRANK", "key member", zrank)
        .since("2.0.0")
        .flags("fast")
        .summary("How many members have a lower score than this one."),
    write("ZREM", "key member [member ...]", zrem)
        .since("1.2.0")
        .flags("fast")
        .summary("Removes members; how many were there."),
    write("ZREMRANGEBYLEX", "key min max", zremrangebylex)
        .since("2.8.9")
        .summary("Removes the members in a range of members, where all have one score."),
    write("ZREMRANGEBYRANK", "key start stop", zremrangebyrank)
        .since("2.0.0")
        .summary("Removes the members in a range of ranks."),
    write("ZREMRANGEBYSCORE", "key min max", zremrangebyscore)
        .since("1.2.0")
        .summary("Removes the members with a score in a range."),
    read("ZREVRANGE", "key start stop [WITHSCORES]", zrevrange)
        .since("1.2.0")
        .summary("The members in a range of ranks, counted from the highest score."),
    read(
        "ZREVRANGEBYLEX",
        "key max min [LIMIT offset count]",
        zrevrangebylex,
    )
    .since("2.8.9")
    .summary("The members in a range of members, last first, where all have one score."),
    read(
        "ZREVRANGEBYSCORE",
        "key max min [WITHSCORES] [LIMIT offset count]",
        zrevrangebyscore,
    )
    .since("2.2.0")
    .summary("The members with a score in a range, highest first."),
    read("ZREVRANK", "key member", zrevrank)
        .since("2.0.0")
        .flags("fast")
        .summary("How many members have a higher score than this one."),
    read("ZSCAN", "key cursor [MATCH pattern] [COUNT count]", zscan)
        .since("2.8.0")
        .summary("Walks the members and scores of a sorted set, some at each call."),
    read("ZSCORE", "key member", zscore)
        .since("1.2.0")
        .flags("fast")
        .summary("The score of a member."),
];

/// What `ZADD` is told to change, and what to answer.
#[derive(Clone, Copy, Default)]
pub(super) struct Conditions {
    /// New members only.
    pub(super) nx: bool,
    /// Members that are there only.
    pub(super) xx: bool,
    /// Scores that grow only.
    pub(super) gt: bool,
    /// Scores that shrink only.
    pub(super) lt: bool,
    /// Adds to the one score and answers it.
    pub(super) increments: bool,
    /// Answers how many changed, not how many are new.
    pub(super) changed: bool,
}

/// What comes of a member and the score given with it.
#[derive(Clone, Copy)]
enum Effect {
    /// The conditions leave it alone.
    None,
    /// It has this score already.
    Same(f64),
    /// It has this score from now on.
    Score(f64),
}

impl Conditions {
    fn effect(self, current: Option<f64>, given: f64) -> Result<Effect, CommandError> {
        let Some(current) = current else {
            return Ok(if self.xx {
                Effect::None
            } else {
                Effect::Score(given)
            });
        };
        if self.nx {
            return Ok(Effect::None);
        }
        let score = if self.increments { current + given } else { given };
        if score.is_nan() {
            return Err(CommandError::text("ERR resulting score is not a number (NaN)"));
        }
        Ok(
            if (self.lt && score >= current) || (self.gt && score <= current) {
                Effect::None
            } else if score == current {
                Effect::Same(score)
            } else {
                Effect::Score(score)
            },
        )
    }
}

fn zadd(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    parse_and_add(keys, args, Conditions::default())
}

fn zincrby(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let increments = Conditions {
        increments: true,
        ..Conditions::default()
    };
    parse_and_add(keys, args, increments)
}

fn parse_and_add(
    keys: &mut Keyspace<'_>,
    args: &mut Args<'_>,
    mut conditions: Conditions,
) -> Result<Reply, CommandError> {
    let key = args.key()?;
    loop {
        if args.keyword("NX") {
            conditions.nx = true;
        } else if args.keyword("XX") {
            conditions.xx = true;
        } else if args.keyword("CH") {
            conditions.changed = true;
        } else if args.keyword("INCR") {
            conditions.increments = true;
        } else if args.keyword("GT") {
            conditions.gt = true;
        } else if args.keyword("LT") {
            conditions.lt = true;
        } else {
            break;
        }
    }
    let (pairs, odd) = args.rest().as_chunks::<2>();
    if !odd.is_empty() || pairs.is_empty() {
        return Err(CommandError::Syntax);
    }
    let Conditions { nx, xx, gt, lt, .. } = conditions;
    if nx && xx {
        return Err(CommandError::text(
            "ERR XX and NX options at the same time are not compatible",
        ));
    }
    if ((gt || lt) && nx) || (gt && lt) {
        return Err(CommandError::text(
            "ERR GT, LT, and/or NX options at the same time are not compatible",
        ));
    }
    if conditions.increments && pairs.len() > 1 {
        return Err(CommandError::text(
            "ERR INCR option supports a single increment-element pair",
        ));
    }
    let scored = pairs
        .iter()
        .map(|[score, member]| Some((float::double(score)?, member)));
    let scored: Option<Vec<(f64, &Bytes)>> = scored.collect();
    add(keys, key, conditions, &scored.ok_or(CommandError::NotAFloat)?)
}

/// Gives members scores as the conditions say, and answers as `ZADD` does. A command that changes no score changes nothing.
pub(super) fn add(
    keys: &mut Keyspace<'_>,
    key: &Bytes,
    conditions: Conditions,
    scored: &[(f64, &Bytes)],
) -> Result<Reply, CommandError> {
    let (mut changes, mut score) = (false, None);
    let view = keys.view();
    let zset = view.zset(key)?;
    for (given, member) in scored {
        let current = zset.and_then(|zset| zset.score(member));
        match conditions.effect(current, *given)? {
            Effect::None => {}
            Effect::Same(same) => score = Some(same),
            Effect::Score(other) => {
                (changes, score) = (true, Some(other));
                break;
            }
        }
    }
    let (mut added, mut updated) = (0, 0);
    if changes {
        let settings = keys.settings().clone();
        keys.change_kind(key, |zset: &mut Zset| {
            for (given, member) in scored {
                // Only an increment can come to no number: that is one member, tried above.
                if let Ok(Effect::Score(score)) = conditions.effect(zset.score(member), *given) {
                    match zset.insert(member, score, &settings) {
                        None => added += 1,
                        Some(_) => updated += 1,
                    }
                }
            }
        })?;
        let event = if conditions.increments { "zincr" } else { "zadd" };
        keys.notify(Classes::ZSET, event, key);
    }
    Ok(if conditions.increments {
        score.map_or(Reply::Nil, Reply::Double)
    } else {
        Reply::count(if conditions.changed {
            added + updated
        } else {
            added
        })
    })
}

/// Removes the members; how many were there. A sorted set without members is no more.
fn zrem(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, members) = (args.key()?, args.rest());
    // Looked up first: a command that removes nothing changes neither the key nor its version.
    let there = keys
        .view()
        .zset(key)?
        .is_some_and(|zset| members.iter().any(|member| zset.score(member).is_some()));
    if !there {
        return Ok(Reply::Integer(0));
    }
    let removed = keys.change_kind(key, |zset: &mut Zset| {
        members
            .iter()
            .filter(|member| zset.remove(member).is_some())
            .count()
    })?;
    keys.notify(Classes::ZSET, "zrem", key);
    Ok(Reply::count(removed))
}

fn zcard(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    Ok(Reply::count(view.zset(args.key()?)?.map_or(0, Zset::len)))
}

fn zscore(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (zset, member) = (view.zset(args.key()?)?, args.bytes()?);
    Ok(score_of(zset, member))
}

fn zmscore(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let zset = view.zset(args.key()?)?;
    Ok(Reply::Array(
        args.rest().iter().map(|member| score_of(zset, member)).collect(),
    ))
}

fn score_of(zset: Option<&Zset>, member: &[u8]) -> Reply {
    zset.and_then(|zset| zset.score(member))
        .map_or(Reply::Nil, Reply::Double)
}

fn zrank(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (zset, member) = (view.zset(args.key()?)?, args.bytes()?);
    let rank = zset.and_then(|zset| zset.rank(member));
    Ok(rank.map_or(Reply::Nil, Reply::count))
}

fn zrevrank(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (zset, member) = (view.zset(args.key()?)?, args.bytes()?);
    let rank = zset.and_then(|zset| Some(zset.len() - 1 - zset.rank(member)?));
    Ok(rank.map_or(Reply::Nil, Reply::count))
}

fn zcount(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    count_between(view, args, By::Score)
}

fn zlexcount(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    count_between(view, args, By::Lex)
}

fn count_between(view: &View<'_>, args: &mut Args<'_>, by: By) -> Result<Reply, CommandError> {
    let (key, min, max) = (args.key()?, args.bytes()?, args.bytes()?);
    let between = Between::parse(by, min, max)?;
    let count = view.zset(key)?.map_or(0, |zset| between.ranks(zset, false).len());
    Ok(Reply::count(count))
}

fn zremrangebyrank(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    remove_between(keys, args, By::Rank, "zremrangebyrank")
}

fn zremrangebyscore(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    remove_between(keys, args, By::Score, "zremrangebyscore")
}

fn zremrangebylex(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    remove_between(keys, args, By::Lex, "zremrangebylex")
}

fn remove_between(
    keys: &mut Keyspace<'_>,
    args: &mut Args<'_>,
    by: By,
    event: &str,
) -> Result<Reply, CommandError> {
    let (key, min, max) = (args.key()?, args.bytes()?, args.bytes()?);
    let between = Between::parse(by, min, max)?;
    let ranks = keys
        .view()
        .zset(key)?
        .map_or(0..0, |zset| between.ranks(zset, false));
    let count = ranks.len();
    if count > 0 {
        keys.change_kind(key, |zset: &mut Zset| zset.remove_range(ranks))?;
        keys.notify(Classes::ZSET, event, key);
    }
    Ok(Reply::count(count))
}

/// What the ends of a range are.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Rank,
    Score,
    Lex,
}

/// A range of ranks, scores or members.
enum Between<'a> {
    /// From this rank to that one, inclusive; negative ones are counted from the end.
    Ranks(i64, i64),
    Scores(ScoreEnd, ScoreEnd),
    Members(MemberEnd<'a>, MemberEnd<'a>),
}

/// Where a range of scores ends.
struct ScoreEnd {
    score: f64,
    inclusive: bool,
}

/// Where a range of members ends.
enum MemberEnd<'a> {
    BeforeAll,
    AfterAll,
    Including(&'a [u8]),
    Excluding(&'a [u8]),
}

impl<'a> Between<'a> {
    /// A range from its ends, the lower one first.
    fn parse(by: By, min: &'a [u8], max: &'a [u8]) -> Result<Self, CommandError> {
        match by {
            By::Rank => {
                let rank = |text| args::integer(text).ok_or(CommandError::NotAnInteger);
                Ok(Self::Ranks(rank(min)?, rank(max)?))
            }
            By::Score => match (ScoreEnd::parse(min), ScoreEnd::parse(max)) {
                (Some(min), Some(max)) => Ok(Self::Scores(min, max)),
                _ => Err(CommandError::text("ERR min or max is not a float")),
            },
            By::Lex => match (MemberEnd::parse(min), MemberEnd::parse(max)) {
                (Some(min), Some(max)) => Ok(Self::Members(min, max)),
                _ => Err(CommandError::text("ERR min or max not valid string range item")),
            },
        }
    }

    /// The ranks of what is in the range. Where it is one of ranks and `reverse`, those are counted from the highest score.
    fn ranks(&self, zset: &Zset, reverse: bool) -> Range<usize> {
        match self {
            Self::Ranks(start, stop) => {
                let len = i64::try_from(zset.len()).expect("nothing here holds 2^63 things");
                let counted = |rank: i64| if rank < 0 { len.saturating_add(rank) } else { rank };
                let start = counted(*start).max(0);
                let end = counted(*stop).min(len - 1) + 1;
                if start >= end {
                    return 0..0;
                }
                let (from, to) = if reverse {
                    (len - end, len - start)
                } else {
                    (start, end)
                };
                let rank = |rank: i64| usize::try_from(rank).expect("0 to len: checked above");
                rank(from)..rank(to)
            }
            Self::Scores(min, max) => not_reversed(
                zset.rank_where(|score, _| min.excludes_below(score)),
                zset.rank_where(|score, _| max.includes_up_to(score)),
            ),
            Self::Members(min, max) => not_reversed(
                zset.rank_where(|_, member| min.excludes_below(member)),
                zset.rank_where(|_, member| max.includes_up_to(member)),
            ),
        }
    }
}

/// From one rank to another; nothing, where that is before it.
fn not_reversed(from: usize, to: usize) -> Range<usize> {
    from..to.max(from)
}

impl ScoreEnd {
    fn parse(text: &[u8]) -> Option<Self> {
        let (inclusive, text) = match text {
            [b'(', rest @ ..] => (false, rest),
            _ => (true, text),
        };
        let score = float::range_end(text)?;
        Some(Self { score, inclusive })
    }

    /// Whether a score is too low, this being the lower end.
    fn excludes_below(&self, score: f64) -> bool {
        score < self.score || (!self.inclusive && score == self.score)
    }

    /// Whether a score is not too high, this being the upper end.
    fn includes_up_to(&self, score: f64) -> bool {
        score < self.score || (self.inclusive && score == self.score)
    }
}

impl<'a> MemberEnd<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        match text {
            // Redis looks at what is there up to a NUL.
            [b'-'] | [b'-', 0, ..] => Some(Self::BeforeAll),
            [b'+'] | [b'+', 0, ..] => Some(Self::AfterAll),
            [b'[', member @ ..] => Some(Self::Including(member)),
            [b'(', member @ ..] => Some(Self::Excluding(member)),
            _ => None,
        }
    }

    /// Whether a member is too low, this being the lower end.
    fn excludes_below(&self, member: &[u8]) -> bool {
        match self {
            Self::BeforeAll => false,
            Self::AfterAll => true,
            Self::Including(end) => member < *end,
            Self::Excluding(end) => member <= *end,
        }
    }

    /// Whether a member is not too high, this being the upper end.
    fn includes_up_to(&self, member: &[u8]) -> bool {
        match self {
            Self::BeforeAll => false,
            Self::AfterAll => true,
            Self::Including(end) => member <= *end,
            Self::Excluding(end) => member < *end,
        }
    }
}

/// What `ZRANGE` and its kin ask for.
struct Query<'a> {
    between: Between<'a>,
    reverse: bool,
    with_scores: bool,
    offset: i64,
    /// Negative: all.
    limit: i64,
}

impl<'a> Query<'a> {
    /// Reads `min max [options]`. What the command's name says already is no option of it; `store`: neither is WITHSCORES.
    fn parse(
        args: &mut Args<'a>,
        by: Option<By>,
        reverse: Option<bool>,
        store: bool,
    ) -> Result<Self, CommandError> {
        let (first, second) = (args.bytes()?, args.bytes()?);
        let (mut chosen_by, mut chosen_reverse) = (by, reverse);
        let (mut with_scores, mut offset, mut limit) = (false, 0, -1);
        while !args.is_empty() {
            if !store && args.keyword("WITHSCORES") {
                with_scores = true;
            } else if args.remaining() >= 3 && args.keyword("LIMIT") {
                (offset, limit) = (args.integer()?, args.integer()?);
            } else if chosen_reverse.is_none() && args.keyword("REV") {
                chosen_reverse = Some(true);
            } else if chosen_by.is_none() && args.keyword("BYLEX") {
                chosen_by = Some(By::Lex);
            } else if chosen_by.is_none() && args.keyword("BYSCORE") {
                chosen_by = Some(By::Score);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        let (by, reverse) = (chosen_by.unwrap_or(By::Rank), chosen_reverse.unwrap_or(false));
        if limit != -1 && by == By::Rank {
            return Err(CommandError::text(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if with_scores && by == By::Lex {
            return Err(CommandError::text(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        let (min, max) = if reverse && by != By::Rank {
            (second, first)
        } else {
            (first, second)
        };
        Ok(Self {
            between: Between::parse(by, min, max)?,
            reverse,
            with_scores,
            offset,
            limit,
        })
    }

    /// The ranks asked for, lowest first.
    fn ranks(&self, zset: &Zset) -> Range<usize> {
        let all = self.between.ranks(zset, self.reverse);
        if matches!(self.between, Between::Ranks(..)) {
            return all;
        }
        // A negative offset skips everything.
        let skipped = usize::try_from(self.offset).map_or(all.len(), |offset| offset.min(all.len()));
        let left = all.len() - skipped;
        let taken = usize::try_from(self.limit).map_or(left, |limit| limit.min(left));
        if self.reverse {
            let end = all.end - skipped;
            end - taken..end
        } else {
            let start = all.start + skipped;
            start..start + taken
        }
    }

    /// What is asked for, in the order asked for.
    fn answer<'z>(&self, zset: &'z Zset) -> Box<dyn Iterator<Item = (&'z Bytes, f64)> + 'z> {
        let found = zset.range(self.ranks(zset));
        if self.reverse {
            Box::new(found.rev())
        } else {
            Box::new(found)
        }
    }
}

fn zrange(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    range(view, args, None, None)
}

fn zrevrange(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    range(view, args, Some(By::Rank), Some(true))
}

fn zrangebyscore(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    range(view, args, Some(By::Score), Some(false))
}

fn zrevrangebyscore(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    range(view, args, Some(By::Score), Some(true))
}

fn zrangebylex(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    range(view, args, Some(By::Lex), Some(false))
}

fn zrevrangebylex(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    range(view, args, Some(By::Lex), Some(true))
}

fn range(
    view: &View<'_>,
    args: &mut Args<'_>,
    by: Option<By>,
    reverse: Option<bool>,
) -> Result<Reply, CommandError> {
    let key = args.key()?;
    let query = Query::parse(args, by, reverse, false)?;
    let Some(zset) = view.zset(key)? else {
        return Ok(Reply::Array(Vec::new()));
    };
    Ok(members(query.answer(zset), query.with_scores))
}

fn zrangestore(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (destination, source) = (args.key()?, args.key()?);
    let query = Query::parse(args, None, None, true)?;
    let view = keys.view();
    let settings = keys.settings();
    let mut stored = Zset::default();
    if let Some(zset) = view.zset(source)? {
        // Only a range of ranks knows before how much it will be.
        if matches!(query.between, Between::Ranks(..)) {
            stored = Zset::for_members(query.ranks(zset).len(), settings);
        }
        for (member, score) in query.answer(zset) {
            stored.insert(member, score, settings);
        }
    }
    Ok(store(keys, destination, stored, "zrangestore"))
}

/// Puts a sorted set in the place of whatever was there; an empty one takes it away. How many members it has.
pub(super) fn store(keys: &mut Keyspace<'_>, destination: &Bytes, zset: Zset, event: &str) -> Reply {
    let count = zset.len();
    if count > 0 {
        keys.put(destination, zset.into_value());
        keys.notify(Classes::ZSET, event, destination);
    } else if keys.remove(destination).is_some() {
        keys.notify(Classes::GENERIC, "del", destination);
    }
    Reply::count(count)
}

/// Members as they are answered, alone or each with its score.
pub(super) fn members<'a>(found: impl Iterator<Item = (&'a Bytes, f64)>, with_scores: bool) -> Reply {
    if with_scores {
        Reply::Pairs(found.map(pair).collect())
    } else {
        Reply::Array(found.map(|(member, _)| Reply::Bulk(member.clone())).collect())
    }
}

fn pair((member, score): (&Bytes, f64)) -> (Reply, Reply) {
    (Reply::Bulk(member.clone()), Reply::Double(score))
}

/// The end of a sorted set that is taken from.
#[derive(Clone, Copy)]
enum End {
    Lowest,
    Highest,
}

fn zpopmin(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    zpop(keys, args, End::Lowest)
}

fn zpopmax(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    zpop(keys, args, End::Highest)
}

fn zpop(keys: &mut Keyspace<'_>, args: &mut Args<'_>, end: End) -> Result<Reply, CommandError> {
    let key = args.key()?;
    if args.remaining() > 1 {
        return Err(CommandError::Syntax);
    }
    let count = args.peek().map(|count| {
        let count = args::integer(count).and_then(|count| usize::try_from(count).ok());
        count.ok_or(CommandError::text("ERR value is out of range, must be positive"))
    });
    let count = count.transpose()?;
    let popped = pop(keys, key, end, count.unwrap_or(1))?.unwrap_or_default();
    let popped = popped
        .into_iter()
        .map(|(member, score)| (Reply::Bulk(member), Reply::Double(score)));
    Ok(match count {
        Some(_) => Reply::Pairs(popped.collect()),
        None => Reply::Array(popped.flat_map(|(member, score)| [member, score]).collect()),
    })
}

/// Removes so many members from an end, that end first. None where there is no sorted set.
fn pop(
    keys: &mut Keyspace<'_>,
    key: &Bytes,
    end: End,
    count: usize,
) -> Result<Option<Vec<(Bytes, f64)>>, CommandError> {
    let Some(len) = keys.view().zset(key)?.map(Zset::len) else {
        return Ok(None);
    };
    let count = count.min(len);
    if count == 0 {
        return Ok(Some(Vec::new()));
    }
    let (ranks, event) = match end {
        End::Lowest => (0..count, "zpopmin"),
        End::Highest => (len - count..len, "zpopmax"),
    };
    let mut popped = keys.change_kind(key, |zset: &mut Zset| zset.remove_range(ranks))?;
    keys.notify(Classes::ZSET, event, key);
    if matches!(end, End::Highest) {
        popped.reverse();
    }
    Ok(Some(popped))
}

/// What `ZMPOP` and `BZMPOP` ask for.
struct ManyPop<'a> {
    keys: &'a [Bytes],
    end: End,
    count: usize,
}

impl<'a> ManyPop<'a> {
    /// Reads `numkeys key [key ...] <MIN | MAX> [COUNT count]`.
    fn parse(args: &mut Args<'a>) -> Result<Self, CommandError> {
        let numkeys = positive(
            args.bytes()?,
            CommandError::text("ERR numkeys should be greater than 0"),
        )?;
        let keys = args.many(numkeys)?;
        let end = if args.keyword("MIN") {
            End::Lowest
        } else if args.keyword("MAX") {
            End::Highest
        } else {
            return Err(CommandError::Syntax);
        };
        let mut count = None;
        while !args.is_empty() {
            if count.is_some() || args.remaining() < 2 || !args.keyword("COUNT") {
                return Err(CommandError::Syntax);
            }
            let refusal = CommandError::text("ERR count should be greater than 0");
            count = Some(positive(args.bytes()?, refusal)?);
        }
        let count = count.unwrap_or(1);
        Ok(Self { keys, end, count })
    }

    /// Serves it from the first of these keys that holds anything.
    fn serve(&self, keys: &mut Keyspace<'_>, candidates: &[Bytes]) -> Result<Option<Reply>, CommandError> {
        for key in candidates {
            if let Some(popped) = pop(keys, key, self.end, self.count)? {
                let pair = |(member, score)| Reply::Array(vec![Reply::Bulk(member), Reply::Double(score)]);
                let popped = Reply::Array(popped.into_iter().map(pair).collect());
                return Ok(Some(Reply::Array(vec![Reply::Bulk(key.clone()), popped])));
            }
        }
        Ok(None)
    }
}

fn positive(text: &[u8], refusal: CommandError) -> Result<usize, CommandError> {
    let number = args::integer(text).and_then(|number| usize::try_from(number).ok());
    number.filter(|number| *number > 0).ok_or(refusal)
}

fn zmpop(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let asked = ManyPop::parse(args)?;
    Ok(asked.serve(keys, asked.keys)?.unwrap_or(Reply::NilArray))
}

fn bzmpop(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    // As in Redis, how long to wait is read last.
    let mut timeout = args.clone();
    args.bytes()?;
    let asked = ManyPop::parse(args)?;
    let deadline = timeout.deadline(keys.now())?;
    let candidates = keys.candidates(asked.keys).to_vec();
    match asked.serve(keys, &candidates)? {
        Some(reply) => Ok(reply),
        None => Ok(keys.wait_for(asked.keys, args.argv(), deadline, Otherwise::NilArray)),
    }
}

fn bzpopmin(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    blocking_pop(keys, args, End::Lowest)
}

fn bzpopmax(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    blocking_pop(keys, args, End::Highest)
}

fn blocking_pop(keys: &mut Keyspace<'_>, args: &mut Args<'_>, end: End) -> Result<Reply, CommandError> {
    let names = args.many(args.remaining().saturating_sub(1))?;
    let deadline = args.deadline(keys.now())?;
    for key in &keys.candidates(names).to_vec() {
        let popped = pop(keys, key, end, 1)?.and_then(|mut popped| popped.pop());
        if let Some((member, score)) = popped {
            let key = Reply::Bulk(key.clone());
            return Ok(Reply::Array(vec![key, Reply::Bulk(member), Reply::Double(score)]));
        }
    }
    Ok(keys.wait_for(names, args.argv(), deadline, Otherwise::NilArray))
}

fn zrandmember(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let key = args.key()?;
    if args.is_empty() {
        let Some(zset) = view.zset(key)? else {
            return Ok(Reply::Nil);
        };
        let rank = Chance::new(view.chance()).below(zset.len());
        return Ok(Reply::bulk_or_nil(
            zset.at(rank).map(|(member, _)| member.clone()),
        ));
    }
    let count = scan::count(args)?;
    let with_scores = args.keyword("WITHSCORES");
    args.end()?;
    if with_scores && count.unsigned_abs() > (i64::MAX / 2).unsigned_abs() {
        return Err(CommandError::text("ERR value is out of range"));
    }
    scan::bounded(count)?;
    let Some(zset) = view.zset(key)? else {
        return Ok(Reply::Array(Vec::new()));
    };
    let ranks = scan::positions_by_chance(zset.len(), count, Chance::new(view.chance()));
    Ok(members(
        ranks.into_iter().filter_map(|rank| zset.at(rank)),
        with_scores,
    ))
}

fn zscan(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, cursor) = (args.key()?, args.cursor()?);
    let Some(zset) = view.zset(key)? else {
        return Ok(scan::nothing());
    };
    let large = zset.is_large();
    scan::walk(args, cursor, (zset.len(), large), |position| {
        let (member, score) = zset.place(position)?;
        let text = if large {
            double_text(score)
        } else {
            listpack_text(score)
        };
        Some((member.clone(), Some(Reply::bulk(text))))
    })
}

/// A score as it stands in a listpack: a whole number, if not too great, without an exponent.
fn listpack_text(score: f64) -> String {
    const WHOLE_MAX: f64 = (i64::MAX / 2) as f64;
    if score.abs() <= WHOLE_MAX && score.fract() == 0.0 {
        format!("{score:.0}")
    } else {
        double_text(score)
    }
}
