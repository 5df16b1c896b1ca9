//! What scripts came to. A script runs once, on the leader; what goes into the log are the keys it relied on, the writes it made and its answer.
//!
//! Scripts that were evaluated on top of each other travel as one command. Each is applied whole, or not at all and evaluated again: when a
//! key it relied on has changed since. Each carries who asked and that node's number for it, and is applied once.

use super::args::Args;
use super::entry::{Command, Millis};
use super::event::{Event, Waiter};
use super::internal::{count, database, decimal, number, push_commands, read_commands};
use super::keyspace::Call;
use super::reply::{CommandError, Reply};
use super::snapshot::{Source, invalid, write_length};
use super::{Machine, known_database};
use crate::mutant::Mutant;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// What one script came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Effects {
    /// Who asked for it.
    pub caller: Waiter,
    /// The caller's node waits for none of its scripts below this number any more.
    pub finished: u64,
    /// The time it saw.
    pub at: Millis,
    /// Where the chance of its commands came from.
    pub seed: u64,
    /// The keys it relied on, and what they must be now.
    pub relied_on: Vec<(u8, Bytes, Expected)>,
    /// Where it relied on all keys: the store's revision that must be now.
    pub revision: Option<u64>,
    /// Its writes, in order.
    pub commands: Vec<Command>,
    /// Its answer.
    pub reply: Reply,
}

/// What a key must be for effects to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Of this version; 0: absent.
    Version(u64),
    /// As the scripts before it in the same command left it.
    Own,
}

/// Bytes of the log that effects take beside their keys, commands and answer, at most: eight numbers, two counts, and the head of an entry.
const HEAD_BYTES: usize = 320;

/// Bytes of the log that one of the commands takes, at most.
pub(super) fn command_bytes(command: &Command) -> usize {
    const DATABASE_AND_COUNT: usize = 12;
    DATABASE_AND_COUNT + command.encoded_len()
}

/// Bytes of the log that a key it relied on takes, at most.
pub(super) fn key_bytes(key: &[u8]) -> usize {
    const DATABASE_AND_VERSION: usize = 34;
    DATABASE_AND_VERSION + key.len()
}

impl Effects {
    /// Bytes of the log that they take, at most.
    pub fn bytes(&self) -> usize {
        let keys: usize = self.relied_on.iter().map(|(_, key, _)| key_bytes(key)).sum();
        let commands: usize = self.commands.iter().map(command_bytes).sum();
        HEAD_BYTES + keys + commands + self.reply.to_bytes().len()
    }
}

/// Several scripts, evaluated on top of each other in this order, as one command of the log.
pub fn encode(batch: Vec<Effects>) -> Command {
    let mut argv = vec![Bytes::from_static(b".scripts"), decimal(batch.len() as u64)];
    for effects in batch {
        let Waiter { node, start, number } = effects.caller;
        argv.extend([node, start, number, effects.finished, effects.at, effects.seed].map(decimal));
        argv.push(effects.revision.map_or(Bytes::new(), decimal));
        argv.push(decimal(effects.relied_on.len() as u64));
        for (db, key, expected) in effects.relied_on {
            let expected = match expected {
                Expected::Version(version) => decimal(version),
                Expected::Own => Bytes::from_static(b"own"),
            };
            argv.extend([decimal(db.into()), key, expected]);
        }
        push_commands(&mut argv, effects.commands);
        argv.push(effects.reply.to_bytes());
    }
    Command { db: 0, argv }
}

/// What [`encode`] wrote, without its name.
pub(super) fn decode(args: &mut Args<'_>) -> Result<Vec<Effects>, CommandError> {
    let mut batch = Vec::new();
    for _ in 0..count(args)? {
        let caller = Waiter {
            node: number(args)?,
            start: number(args)?,
            number: number(args)?,
        };
        let (finished, at, seed) = (number(args)?, number(args)?, number(args)?);
        let revision = match args.peek() {
            Some(none) if none.is_empty() => args.bytes().map(|_| None)?,
            _ => Some(number(args)?),
        };
        let mut relied_on = Vec::new();
        for _ in 0..count(args)? {
            let (db, key) = (known_database(database(args)?)?, args.key()?.clone());
            let expected = if args.keyword("own") {
                Expected::Own
            } else {
                Expected::Version(number(args)?)
            };
            relied_on.push((db, key, expected));
        }
        let commands = read_commands(args)?;
        let reply = Reply::from_bytes(args.bytes()?).ok_or(CommandError::Syntax)?;
        batch.push(Effects {
            caller,
            finished,
            at,
            seed,
            relied_on,
            revision,
            commands,
            reply,
        });
    }
    args.end()?;
    Ok(batch)
}

/// Which scripts of each node were applied: the numbers its last start has not finished with.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    nodes: BTreeMap<u64, Node>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    start: u64,
    /// Nothing below is sent any more.
    finished: u64,
    numbers: BTreeSet<u64>,
}

impl Applied {
    /// Whether a script was applied, or its node waits for it no more.
    pub fn contains(&self, caller: Waiter) -> bool {
        self.nodes.get(&caller.node).is_some_and(|node| {
            caller.start < node.start
                || (caller.start == node.start
                    && (caller.number < node.finished || node.numbers.contains(&caller.number)))
        })
    }

    fn note(&mut self, caller: Waiter, finished: u64) {
        let node = self.nodes.entry(caller.node).or_default();
        if caller.start > node.start {
            *node = Node {
                start: caller.start,
                ..Node::default()
            };
        }
        node.finished = node.finished.max(finished);
        node.numbers.insert(caller.number);
        while node.numbers.first().is_some_and(|first| *first < node.finished) {
            node.numbers.pop_first();
        }
    }

    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        write_length(out, self.nodes.len())?;
        for (id, node) in &self.nodes {
            for number in [*id, node.start, node.finished] {
                out.write_all(&number.to_le_bytes())?;
            }
            write_length(out, node.numbers.len())?;
            for number in &node.numbers {
                out.write_all(&number.to_le_bytes())?;
            }
        }
        Ok(())
    }

    pub(super) fn read(from: &mut dyn Source) -> io::Result<Self> {
        let mut applied = Self::default();
        for _ in 0..from.u32()? {
            let (id, start, finished) = (from.u64()?, from.u64()?, from.u64()?);
            let mut numbers = BTreeSet::new();
            for _ in 0..from.u32()? {
                numbers.insert(from.u64()?);
            }
            let node = Node {
                start,
                finished,
                numbers,
            };
            if applied.nodes.insert(id, node).is_some() {
                return Err(invalid("scripts of a node that was there before".to_owned()));
            }
        }
        Ok(applied)
    }
}

impl Machine {
    /// Applies what scripts came to, each if what it relied on is as it was, and tells each caller.
    pub(super) fn apply_scripts(&mut self, batch: &[Effects]) -> Result<Reply, CommandError> {
        let began = self.store.revision();
        // Whether all before were applied just now: what was evaluated on top of one that was not relied on nothing.
        let mut whole = true;
        for effects in batch {
            if self.scripts.contains(effects.caller) {
                whole = false;
                continue;
            }
            let holds = self.holds(effects, began, whole);
            whole &= holds;
            let reply = holds.then(|| {
                let mut call = Call {
                    seed: effects.seed,
                    now: Some(effects.at),
                    // Its answer is known.
                    answered: usize::MAX,
                    ..Call::default()
                };
                self.run_all(&effects.commands, &mut call);
                self.scripts.note(effects.caller, effects.finished);
                effects.reply.clone()
            });
            let caller = effects.caller;
            self.store.tell(Event::Evaluated { caller, reply });
        }
        Ok(Reply::OK)
    }

    /// Whether everything a script relied on is as it was; `began` is the revision before the first script of its command, and `whole` whether
    /// all scripts before it were applied.
    fn holds(&self, effects: &Effects, began: u64, whole: bool) -> bool {
        if Mutant::ApplyStaleScript.is_planted() {
            return true;
        }
        let unchanged = |(db, key, expected): &(u8, Bytes, Expected)| {
            let view = self.view(0, *db);
            // What a script looked at, it used: here every node hears of it.
            view.note_use(key);
            let version = view.version(key);
            match expected {
                Expected::Version(expected) => version == *expected,
                Expected::Own => whole && (version > began || version == 0),
            }
        };
        effects
            .revision
            .is_none_or(|revision| revision == self.store.revision())
            && effects.relied_on.iter().all(unchanged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_waits_for_no_more_is_remembered_by_one_number() {
        let caller = |number| Waiter {
            node: 1,
            start: 1,
            number,
        };
        let mut applied = Applied::default();
        for number in 1..=10 {
            applied.note(caller(number), 1);
        }
        applied.note(caller(12), 9);
        let kept: Vec<u64> = applied.nodes[&1].numbers.iter().copied().collect();
        assert_eq!(kept, [9, 10, 12]);
        let known: Vec<u64> = (1..=13)
            .filter(|number| applied.contains(caller(*number)))
            .collect();
        assert_eq!(known, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12]);
    }

    #[test]
    fn what_effects_take_in_the_log_is_never_said_to_be_less() {
        let command = |words: usize| Command::new(15, vec!["x".repeat(100); words]);
        for (keys, commands) in [(0, 0), (1, 1), (100, 0), (0, 100), (300, 300)] {
            let key = |number: u64| {
                (
                    15,
                    Bytes::from(format!("key {number}")),
                    Expected::Version(u64::MAX),
                )
            };
            let effects = Effects {
                caller: Waiter {
                    node: u64::MAX,
                    start: u64::MAX,
                    number: u64::MAX,
                },
                finished: u64::MAX,
                at: u64::MAX,
                seed: u64::MAX,
                relied_on: (0..keys).map(key).collect(),
                revision: Some(u64::MAX),
                commands: (0..commands).map(|nth| command(nth % 4)).collect(),
                reply: Reply::bulk("x".repeat(1_000)),
            };
            let (said, takes) = (effects.bytes(), encode(vec![effects]).encoded_len());
            assert!(
                (takes..takes + 120 + 10 * commands).contains(&said),
                "{said} for {takes}"
            );
        }
    }
}
