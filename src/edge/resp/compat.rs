//! What clients asked for and this endpoint does not know: commands, subcommands, options. `PLENARY COMPAT`, `plenary compat` and the section
//! `Compat` of `INFO` show it, so that somebody can say what is missing.

use super::connection::Caller;
use super::local::Answer;
use crate::machine::args::Args;
use crate::machine::reply::Reply;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// Different things that are kept; a further one is only counted.
const MAX_ENTRIES: usize = 256;

/// Bytes that are kept of each.
const MAX_BYTES: usize = 128;

/// What was refused, and to which library.
#[derive(Debug, Default)]
pub(super) struct Compat(Mutex<Refusals>);

#[derive(Debug, Default)]
struct Refusals {
    counts: BTreeMap<(String, String), u64>,
    others: u64,
}

impl Compat {
    pub(super) fn note(&self, what: &str, library: &str, version: &str) {
        let kept = |text: &str| -> String {
            text.chars()
                .map(|letter| if letter.is_control() { '.' } else { letter })
                .take(MAX_BYTES)
                .collect()
        };
        let client = match (library, version) {
            ("", _) => "unknown".to_owned(),
            (library, "") => kept(library),
            (library, version) => format!("{} {}", kept(library), kept(version)),
        };
        let mut refusals = self.0.lock();
        let full = refusals.counts.len() >= MAX_ENTRIES;
        match refusals.counts.get_mut(&(kept(what), client.clone())) {
            Some(count) => *count += 1,
            None if full => refusals.others += 1,
            None => {
                refusals.counts.insert((kept(what), client), 1);
            }
        }
    }

    /// What was refused, to whom, how often; and how often something that found no place.
    pub(super) fn all(&self) -> (Vec<(String, String, u64)>, u64) {
        let refusals = self.0.lock();
        let counts = refusals.counts.iter();
        let all = counts.map(|((what, client), count)| (what.clone(), client.clone(), *count));
        (all.collect(), refusals.others)
    }
}

/// `PLENARY COMPAT`: an array of maps `what`, `client`, `count`.
pub(super) fn compat(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    let (all, others) = caller.shared.compat.all();
    let last = (others > 0).then(|| ("(others)".to_owned(), String::new(), others));
    let shown = all.into_iter().chain(last).map(|(what, client, count)| {
        let count = Reply::Integer(i64::try_from(count).unwrap_or(i64::MAX));
        let pairs = [
            ("what", Reply::bulk(what)),
            ("client", Reply::bulk(client)),
            ("count", count),
        ];
        Reply::Map(
            pairs
                .into_iter()
                .map(|(name, value)| (Reply::bulk(name), value))
                .collect(),
        )
    });
    Ok(Reply::Array(shown.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_client_and_bounded() {
        let compat = Compat::default();
        compat.note("foo\n", "lib", "1");
        compat.note("foo\n", "lib", "1");
        compat.note("foo\n", "", "");
        for nth in 0..MAX_ENTRIES {
            compat.note(&format!("x{nth}"), "", "");
        }
        let (all, others) = compat.all();
        assert_eq!((all.len(), others), (MAX_ENTRIES, 2));
        assert_eq!(all[0], ("foo.".to_owned(), "lib 1".to_owned(), 2));
        assert_eq!(all[1], ("foo.".to_owned(), "unknown".to_owned(), 1));
    }
}
