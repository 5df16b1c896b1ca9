//! The checker of histories: what every client was told must fit one order of all operations, each somewhere between its call and its return.
//!
//! It is that of Wing, Gong and Lowe: it looks for an order by trying, and remembers the states it has been in. Each key is checked
//! by itself. An operation whose outcome is unknown may take effect at any time after its call, or never.
//!
//! It knows nothing of how operations are made, so that `linearizable.rs` and the simulation in `src/simulation/` both have it.

use super::Reply;
use std::collections::HashSet;
use std::time::Duration;

/// What a key may hold here: a number, or nothing.
pub(crate) type Value = Option<i64>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Get,
    Set(i64),
    SetNx(i64),
    Incr,
}

/// What came of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Read(Value),
    Done,
    /// `SETNX`: whether it was set.
    Was(bool),
    Sum(i64),
    Unknown,
}

/// One operation, from its call to its return on one clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) called: Duration,
    pub(crate) returned: Duration,
    pub(crate) operation: Operation,
    pub(crate) outcome: Outcome,
}

impl Operation {
    pub(crate) fn argv(self, key: &str) -> Vec<String> {
        match self {
            Self::Get => vec!["GET".into(), key.into()],
            Self::Set(value) => vec!["SET".into(), key.into(), value.to_string()],
            Self::SetNx(value) => vec!["SETNX".into(), key.into(), value.to_string()],
            Self::Incr => vec!["INCR".into(), key.into()],
        }
    }

    /// What a reply says came of it.
    pub(crate) fn outcome(self, reply: &Reply) -> Outcome {
        match (self, reply) {
            (Self::Get, Reply::Nil) => Outcome::Read(None),
            (Self::Get, Reply::Bulk(bytes)) => {
                Outcome::Read(Some(std::str::from_utf8(bytes).unwrap().parse().unwrap()))
            }
            (Self::Get, Reply::Integer(number)) => Outcome::Read(Some(*number)),
            (Self::Set(_), reply) if *reply == Reply::OK => Outcome::Done,
            (Self::SetNx(_), Reply::Integer(set)) => Outcome::Was(*set == 1),
            (Self::Incr, Reply::Integer(sum)) => Outcome::Sum(*sum),
            (operation, reply) => panic!("{operation:?} replied {reply:?}"),
        }
    }

    /// What it does to a value and what it says.
    fn apply(self, value: Value) -> (Value, Outcome) {
        match self {
            Self::Get => (value, Outcome::Read(value)),
            Self::Set(new) => (Some(new), Outcome::Done),
            Self::SetNx(new) => (value.or(Some(new)), Outcome::Was(value.is_none())),
            Self::Incr => {
                let sum = value.unwrap_or(0) + 1;
                (Some(sum), Outcome::Sum(sum))
            }
        }
    }
}

/// Whether one order explains a key's history.
pub(crate) fn is_linearizable(history: &[Event]) -> bool {
    // A read that told nothing constrains nothing.
    let mut events: Vec<Event> = history
        .iter()
        .filter(|event| event.operation != Operation::Get || event.outcome != Outcome::Unknown)
        .copied()
        .collect();
    for event in &mut events {
        if event.outcome == Outcome::Unknown {
            event.returned = Duration::MAX;
        }
    }
    events.sort_by_key(|event| event.called);
    Search {
        events: &events,
        seen: HashSet::new(),
    }
    .run()
}

struct Search<'a> {
    events: &'a [Event],
    /// Sets of operations that took effect, with the value they left: tried before, in vain.
    seen: HashSet<(Vec<u64>, Value)>,
}

impl Search<'_> {
    fn run(&mut self) -> bool {
        let mut done = vec![0u64; self.events.len().div_ceil(64)];
        let mut value: Value = None;
        // Per step: which operation took effect, the value before it, and where to go on if it was the wrong one.
        let mut steps: Vec<(usize, Value)> = Vec::new();
        let mut from = 0;
        loop {
            if self.known_are_done(&done) {
                return true;
            }
            match self.next(&done, value, from) {
                Some((which, after)) => {
                    steps.push((which, value));
                    done[which / 64] |= 1 << (which % 64);
                    (value, from) = (after, 0);
                }
                None => {
                    let Some((which, before)) = steps.pop() else {
                        return false;
                    };
                    done[which / 64] &= !(1 << (which % 64));
                    (value, from) = (before, which + 1);
                }
            }
        }
    }

    fn is_done(done: &[u64], which: usize) -> bool {
        done[which / 64] & (1 << (which % 64)) != 0
    }

    fn known_are_done(&self, done: &[u64]) -> bool {
        let mut events = self.events.iter().enumerate();
        events.all(|(which, event)| event.outcome == Outcome::Unknown || Self::is_done(done, which))
    }

    /// The next operation, from `from` on, that may take effect now: called before any other that is not done has returned, and true to
    /// what it said.
    fn next(&mut self, done: &[u64], value: Value, from: usize) -> Option<(usize, Value)> {
        let open = |which: &usize| !Self::is_done(done, *which);
        let first_return = (0..self.events.len())
            .filter(open)
            .map(|which| self.events[which].returned)
            .min()?;
        for which in (from..self.events.len()).filter(open) {
            let event = self.events[which];
            if event.called > first_return {
                return None;
            }
            let (after, says) = event.operation.apply(value);
            if event.outcome != Outcome::Unknown && event.outcome != says {
                continue;
            }
            let mut then = done.to_vec();
            then[which / 64] |= 1 << (which % 64);
            if self.seen.insert((then, after)) {
                return Some((which, after));
            }
        }
        None
    }
}

fn event(called: u64, returned: u64, operation: Operation, outcome: Outcome) -> Event {
    Event {
        called: Duration::from_millis(called),
        returned: Duration::from_millis(returned),
        operation,
        outcome,
    }
}

#[test]
fn the_checker_knows_right_from_wrong() {
    use Operation::{Get, Incr, Set, SetNx};
    use Outcome::{Done, Read, Sum, Unknown, Was};
    let after = |more: &[Event]| {
        let mut events = vec![event(0, 1, Set(1), Done), event(2, 5, Set(2), Done)];
        events.extend_from_slice(more);
        is_linearizable(&events)
    };
    assert!(after(&[event(3, 4, Get, Read(Some(1)))]));
    assert!(after(&[event(3, 4, Get, Read(Some(2)))]));
    assert!(!after(&[event(6, 7, Get, Read(Some(1)))]), "a stale read");
    assert!(!after(&[event(6, 7, Get, Read(None))]), "a lost write");
    let back = [event(3, 4, Get, Read(Some(2))), event(4, 5, Get, Read(Some(1)))];
    assert!(
        !after(&[back[0], event(5, 6, Get, Read(Some(1)))]),
        "a read that goes back"
    );
    assert!(
        after(&[event(3, 4, Get, Read(Some(1))), back[0]]),
        "at the same time is no order"
    );
    assert!(after(&[
        event(6, 7, Incr, Sum(3)),
        event(8, 9, Get, Read(Some(3)))
    ]));
    assert!(
        !after(&[event(6, 7, Incr, Sum(3)), event(8, 9, Get, Read(Some(4)))]),
        "applied twice"
    );
    let unknown = event(6, 7, Incr, Unknown);
    for read in [2, 3] {
        assert!(after(&[unknown, event(8, 9, Get, Read(Some(read)))]));
    }
    assert!(!after(&[unknown, event(8, 9, Get, Read(Some(4)))]));
    assert!(
        !after(&[event(3, 4, Get, Unknown), event(6, 7, SetNx(9), Was(true))]),
        "set although there"
    );
}
