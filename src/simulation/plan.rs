//! What befalls a cluster: drawn whole from the seed before anything runs, so that parts of it can be left out to see what a failure takes.

use crate::config::{Durability, Reads, Timing};
use crate::raft::files::simulated::Chance;
use crate::raft::net::simulated::Calls;
use std::time::Duration;

/// Runs of a plan in search of what it fails without, at most.
const RUNS: usize = 60;

/// By how many milliseconds a clock that is right may be wrong.
pub(super) const RIGHT_MS: i64 = 100;

/// A run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    /// Founders: machines 1 to this one. The next one is a spare.
    pub(super) nodes: usize,
    /// Clients in the processes of nodes.
    pub(super) clients: usize,
    /// Clients of Redis, each on a machine of its own.
    pub(super) stores: usize,
    /// Milliseconds between two things that a client does, below.
    pub(super) pause_ms: u64,
    pub(super) timing: Timing,
    pub(super) length: Duration,
    /// What calls between nodes go over the network as.
    pub(super) calls: Calls,
    /// Under [`Durability::Os`] processes end where power would be lost otherwise.
    pub(super) durability: Durability,
    pub(super) lease_reads: bool,
    /// How fresh the reads of clients of Redis are.
    pub(super) reads: Reads,
    /// By how many milliseconds each machine's clock is wrong at first.
    pub(super) clocks: Vec<i64>,
    /// Whether all clocks but one are right all the time.
    pub(super) clocks_right: bool,
    pub(super) faults: Vec<(Duration, Fault)>,
}

/// One thing that goes wrong, or is done at a bad moment. Machines are numbers; 0 stands for the one that leads then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The process ends, with its machine's power or alone, and is started again.
    Crash { who: usize, power: bool, down: Duration },
    /// Power is lost everywhere at once.
    Blackout { down: Duration },
    /// Nobody hears it, and it hears nobody.
    CutOff { who: usize, length: Duration },
    /// Nobody hears it.
    Mute { who: usize, length: Duration },
    /// It hears nobody.
    Deaf { who: usize, length: Duration },
    /// One way between two is cut.
    OneWay {
        from: usize,
        to: usize,
        length: Duration,
    },
    /// What it sends and is sent is slow, and part of it lost at first.
    Slow {
        who: usize,
        delay_ms: u64,
        loss: u64,
        length: Duration,
    },
    /// Its connections are reset.
    Reset { who: usize },
    /// Its clock jumps.
    Jump { who: usize, by_ms: i64 },
    /// So many flushes from now one fails; its process ends, and is started again on what the disk has.
    FailSync { who: usize, after: u64 },
    /// Its disk takes so long for each batch of the log.
    SlowDisk {
        who: usize,
        pause: Duration,
        length: Duration,
    },
    /// It is asked to stop, and started again.
    Stop { who: usize, down: Duration },
    /// It takes a snapshot, after which the log is cut.
    Snapshot { who: usize },
    /// Leadership goes to it.
    Lead { who: usize },
    /// The spare machine joins, unless it has.
    Grow,
    /// The spare machine is taken out, if it had joined.
    Shrink,
    /// Its disk is lost, and it comes back as a new member.
    NewDisk { who: usize },
}

fn seconds(chance: &mut Chance, from: u64, below: u64) -> Duration {
    Duration::from_millis(chance.below((below - from) * 1_000) + from * 1_000)
}

impl Fault {
    fn by_chance(chance: &mut Chance, nodes: usize) -> Self {
        let machine =
            |chance: &mut Chance| usize::try_from(chance.below(nodes as u64)).map_or(1, |one| one + 1);
        // The leader is where most goes wrong.
        let who = match chance.below(3) {
            0 => 0,
            _ => machine(chance),
        };
        match chance.below(24) {
            0..=2 => Self::Crash {
                who,
                power: false,
                down: seconds(chance, 0, 6),
            },
            3..=6 => Self::Crash {
                who,
                power: true,
                down: seconds(chance, 0, 6),
            },
            7 => Self::Blackout {
                down: seconds(chance, 0, 3),
            },
            8 | 9 => Self::CutOff {
                who,
                length: seconds(chance, 0, 8),
            },
            10 => Self::Mute {
                who,
                length: seconds(chance, 0, 6),
            },
            11 => Self::Deaf {
                who,
                length: seconds(chance, 0, 6),
            },
            12 => {
                let (from, to) = (machine(chance), machine(chance));
                Self::OneWay {
                    from,
                    to,
                    length: seconds(chance, 0, 8),
                }
            }
            13 => Self::Slow {
                who,
                delay_ms: 1 + chance.below(150),
                loss: chance.below(30),
                length: seconds(chance, 1, 10),
            },
            14 => Self::Reset { who },
            15 => {
                let by_ms = i64::try_from(chance.below(7_200_000)).unwrap_or(0) - 3_600_000;
                Self::Jump { who, by_ms }
            }
            16 => Self::FailSync {
                who,
                after: chance.below(30),
            },
            17 => Self::SlowDisk {
                who,
                pause: Duration::from_millis(1 + chance.below(200)),
                length: seconds(chance, 1, 8),
            },
            18 => Self::Stop {
                who,
                down: seconds(chance, 0, 3),
            },
            19 => Self::Snapshot { who },
            20 => Self::Lead { who: machine(chance) },
            21 => Self::Grow,
            22 => Self::Shrink,
            _ => Self::NewDisk { who },
        }
    }
}

impl Plan {
    /// Three nodes that nothing befalls.
    pub(super) fn quiet(seed: u64, length: Duration) -> Self {
        Self {
            seed,
            nodes: 3,
            clients: 4,
            stores: 3,
            pause_ms: 500,
            timing: Timing::default(),
            length,
            calls: Calls::Http2,
            durability: Durability::Fsync,
            lease_reads: false,
            reads: Reads::Local,
            clocks: vec![0; 4],
            clocks_right: true,
            faults: Vec::new(),
        }
    }

    /// One that follows from the seed.
    pub(super) fn by_chance(seed: u64, length: Duration) -> Self {
        let mut chance = Chance(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        // What a cluster takes grows with the square of its members.
        let nodes = match chance.below(12) {
            0 => 7,
            1..=3 => 5,
            _ => 3,
        };
        let far = |chance: &mut Chance| i64::try_from(chance.below(7_200_000)).unwrap_or(0) - 3_600_000;
        let near = |chance: &mut Chance| {
            let below = 2 * RIGHT_MS.unsigned_abs();
            i64::try_from(chance.below(below)).unwrap_or(0) - RIGHT_MS
        };
        // The machine whose clock is wrong and jumps, where only one's does.
        let wrong =
            (chance.below(2) == 0).then(|| 1 + usize::try_from(chance.below(nodes as u64)).unwrap_or(0));
        let is_wrong = |chance: &mut Chance, host| wrong.map_or(chance.below(3) == 0, |wrong| wrong == host);
        let clocks = (1..=nodes + 1).map(|host| {
            if is_wrong(&mut chance, host) {
                far(&mut chance)
            } else {
                near(&mut chance)
            }
        });
        let mut plan = Self {
            clocks: clocks.collect(),
            clocks_right: wrong.is_some(),
            nodes,
            durability: match chance.below(4) {
                0 => Durability::Os,
                _ => Durability::Fsync,
            },
            lease_reads: chance.below(3) == 0,
            reads: match chance.below(3) {
                0 => Reads::Linearizable,
                _ => Reads::Local,
            },
            ..Self::quiet(seed, length)
        };
        // Some clusters are busy and some are not, and some have slow links, for which Raft's rhythm is slower.
        plan.pause_ms <<= chance.below(4);
        let slower = 1 + u32::try_from(chance.below(4)).unwrap_or(0);
        let timing = &mut plan.timing;
        for time in [
            &mut timing.heartbeat,
            &mut timing.election_min,
            &mut timing.election_max,
        ] {
            *time *= slower;
        }
        plan.calls = match chance.below(8) {
            0 => Calls::Http2,
            _ => Calls::Pieces,
        };
        // From one in twenty seconds to one in two: some runs are hardly ever well, others have time to go wrong slowly.
        let pause = 2 + chance.below(18);
        let mut at = Duration::ZERO;
        loop {
            at += Duration::from_millis(500 + chance.below(pause * 1_000));
            if at >= length {
                return plan;
            }
            let fault = match (Fault::by_chance(&mut chance, nodes), wrong) {
                (Fault::Jump { by_ms, .. }, Some(who)) => Fault::Jump { who, by_ms },
                (fault, _) => fault,
            };
            plan.faults.push((at, fault));
        }
    }

    /// What is left of it when everything is taken away that it fails without.
    pub(super) fn least(&self, fails: impl Fn(&Self) -> bool) -> Self {
        let mut least = self.clone();
        let mut some = least.faults.len().div_ceil(2);
        let mut runs = 0;
        while some > 0 {
            let mut from = 0;
            while from < least.faults.len() && runs < RUNS {
                let mut less = least.clone();
                less.faults.drain(from..(from + some).min(less.faults.len()));
                runs += 1;
                if fails(&less) {
                    least = less;
                } else {
                    from += some;
                }
            }
            some /= 2;
        }
        least
    }
}

#[test]
fn the_least_of_a_plan_is_what_it_fails_without() {
    let mut plan = Plan::quiet(1, Duration::from_secs(1));
    plan.faults = (0..40)
        .map(|who| (Duration::from_secs(1), Fault::Reset { who }))
        .collect();
    let has = |plan: &Plan, who| {
        plan.faults
            .iter()
            .any(|(_, fault)| *fault == Fault::Reset { who })
    };
    let least = plan.least(|plan| has(plan, 7) && has(plan, 31));
    assert_eq!(least.faults.len(), 2, "{:?}", least.faults);
}
