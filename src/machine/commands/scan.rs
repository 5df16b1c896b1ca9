//! What hashes, sets and sorted sets have in common: walks from cursor to cursor (`HSCAN`, `SSCAN`, `ZSCAN`), and choices by chance
//! (`HRANDFIELD`, `SRANDMEMBER`, `SPOP`, `ZRANDMEMBER`). Knows positions only, not what stands there.

use crate::machine::args::Args;
use crate::machine::glob;
use crate::machine::keyspace::Chance;
use crate::machine::reply::{CommandError, Reply};
use bytes::Bytes;
use std::collections::BTreeSet;

/// Places that one call looks at where no `COUNT` is given.
const WALK_COUNT: usize = 10;

/// Choices with repeats (a negative count) at most: such a count may ask for more than the memory of the node.
const REPEATS_MAX: u64 = 1 << 20;

/// The answer of a walk through nothing. As in Redis, its options are not read.
pub(super) fn nothing() -> Reply {
    page(0, Vec::new())
}

fn page(next: usize, found: Vec<Reply>) -> Reply {
    Reply::Array(vec![Reply::bulk(next.to_string()), Reply::Array(found)])
}

/// One call of a walk through `len` positions; `at` gives the name at one and what is answered beside it. Reads the options that are left.
///
/// What is small is answered whole. What is large is walked from its end, and a removal must move only its last position, which was
/// seen already: so everything that is there from the first call to the last is seen. The cursor is how many are still to see.
pub(super) fn walk(
    args: &mut Args<'_>,
    cursor: u64,
    (len, large): (usize, bool),
    at: impl Fn(usize) -> Option<(Bytes, Option<Reply>)>,
) -> Result<Reply, CommandError> {
    let (mut pattern, mut count) = (None, WALK_COUNT);
    while !args.is_empty() {
        if args.keyword("COUNT") {
            let asked = args.integer()?;
            count = usize::try_from(asked)
                .ok()
                .filter(|count| *count > 0)
                .ok_or(CommandError::Syntax)?;
        } else if args.keyword("MATCH") {
            pattern = Some(args.bytes()?);
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let left = match usize::try_from(cursor).unwrap_or(usize::MAX) {
        _ if !large => len,
        0 => len,
        left => left.min(len),
    };
    let next = if large { left.saturating_sub(count) } else { 0 };
    let positions: &mut dyn Iterator<Item = usize> = if large {
        &mut (next..left).rev()
    } else {
        &mut (next..left)
    };
    let found = positions
        .filter_map(at)
        .filter(|(name, _)| pattern.is_none_or(|pattern| glob::matches(pattern, name)))
        .flat_map(|(name, beside)| [Some(Reply::Bulk(name)), beside]);
    Ok(page(next, found.flatten().collect()))
}

/// The next argument as a count of choices: so many different ones, or with repeats where it is negative.
///
/// # Errors
/// As Redis refuses it.
pub(super) fn count(args: &mut Args<'_>) -> Result<i64, CommandError> {
    let count = args.integer()?;
    if count == i64::MIN {
        return Err(CommandError::text(
            "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
        ));
    }
    Ok(count)
}

/// Refuses a count of more choices with repeats than are answered.
///
/// # Errors
/// `ERR value is out of range`.
pub(super) fn bounded(count: i64) -> Result<(), CommandError> {
    if count < 0 && count.unsigned_abs() > REPEATS_MAX {
        return Err(CommandError::text("ERR value is out of range"));
    }
    Ok(())
}

/// So many different positions below `len` in ascending order; for a negative count so many, repeats allowed, in the order they were drawn.
pub(super) fn positions_by_chance(len: usize, count: i64, mut chance: Chance) -> Vec<usize> {
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    if count < 0 {
        return (0..wanted).map(|_| chance.below(len)).collect();
    }
    if wanted >= len {
        return (0..len).collect();
    }
    // Floyd's way: as many draws as positions wanted, and every choice of them is equally likely.
    let mut chosen = BTreeSet::new();
    for last in len - wanted..len {
        let drawn = chance.below(last + 1);
        if !chosen.insert(drawn) {
            chosen.insert(last);
        }
    }
    chosen.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_has_as_many_different_positions_as_asked() {
        for seed in 0..200 {
            for count in 0..=7 {
                let chosen = positions_by_chance(5, count, Chance::new(seed));
                assert_eq!(chosen.len() as i64, count.min(5));
                assert!(
                    chosen.is_sorted_by(|one, next| one < next)
                        && chosen.iter().all(|position| *position < 5)
                );
            }
            let repeated = positions_by_chance(2, -9, Chance::new(seed));
            assert!(repeated.len() == 9 && repeated.iter().all(|position| *position < 2));
        }
    }

    #[test]
    fn every_position_is_chosen_about_equally_often() {
        let mut times = [0; 6];
        for seed in 0..6_000 {
            for position in positions_by_chance(6, 2, Chance::new(seed)) {
                times[position] += 1;
            }
        }
        assert!(
            times.iter().all(|times| (1_800..2_200).contains(times)),
            "2,000 each: {times:?}"
        );
    }
}
