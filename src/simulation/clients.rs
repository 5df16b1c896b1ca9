//! Clients of a simulated cluster: each asks any machine that runs, one thing after the other, and tells the oracle what it was told.

use super::checker::{Operation, Outcome};
use super::sessions;
use super::world::{Running, World};
use crate::error::Error;
use crate::machine::entry::Command;
use crate::machine::reply::Reply;
use crate::node::{Freshness, Node, Token, Written};
use crate::raft::files::simulated::Chance;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// Keys of registers, and how long the same are used: a history of one key must be one that can be checked.
const REGISTERS: u64 = 3;
const REGISTERS_LAST: Duration = Duration::from_secs(20);

/// How long values are appended to the same list.
const LIST_LASTS: Duration = Duration::from_secs(60);

pub(super) async fn run(world: Arc<World>, which: usize, mut chance: Chance) {
    let mut fresh = 0;
    while !world.oracle.is_over() {
        tokio::time::sleep(Duration::from_millis(chance.below(world.pause_ms))).await;
        let running = world.running();
        if running.is_empty() {
            continue;
        }
        let pick = |chance: &mut Chance| {
            let at = usize::try_from(chance.below(running.len() as u64)).unwrap_or(0);
            running[at].clone()
        };
        let (here, there) = (pick(&mut chance), pick(&mut chance));
        let mut value = || {
            fresh += 1;
            format!("{which}.{fresh}")
        };
        match chance.below(10) {
            0..5 => register(&world, &here, which, &mut chance).await,
            5 | 6 => append_and_look(&world, &here, &there, value()).await,
            7 => append_two(&world, &here, [value(), value()]).await,
            8 => sessions::hand_on(&world, &here, &mut chance).await,
            _ => sessions::begin(&world, &here, &value(), &mut chance).await,
        }
    }
}

fn argv(parts: &[&str]) -> Vec<Bytes> {
    parts
        .iter()
        .map(|part| Bytes::copy_from_slice(part.as_bytes()))
        .collect()
}

/// The list of now.
pub(super) fn list(world: &World) -> String {
    format!("list{}", world.began.elapsed().as_secs() / LIST_LASTS.as_secs())
}

async fn write(node: &Node, parts: &[&str]) -> Result<Written, Error> {
    node.write(vec![Command {
        db: 0,
        argv: argv(parts),
    }])
    .await
}

/// An operation on a register of now, by chance.
pub(super) fn operation(world: &World, which: usize, chance: &mut Chance) -> (String, Operation) {
    let age = world.began.elapsed().as_secs() / REGISTERS_LAST.as_secs();
    let key = format!("r{}.{age}", chance.below(REGISTERS));
    let value = i64::try_from(chance.below(1 << 30)).unwrap_or(0) * 1_000 + which as i64 * 100;
    let operation = match chance.below(8) {
        0..4 => Operation::Get,
        4 => Operation::Set(value),
        5 => Operation::SetNx(value),
        _ => Operation::Incr,
    };
    (key, operation)
}

/// An operation on a register: linearizable, whoever is asked.
async fn register(world: &World, here: &Running, which: usize, chance: &mut Chance) {
    let (key, operation) = operation(world, which, chance);
    let parts = operation.argv(&key);
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let called = world.began.elapsed();
    let reply = if operation == Operation::Get {
        let argv = argv(&parts);
        here.call(here.node.read(Freshness::Linearizable, 0, &argv)).await
    } else {
        let written = here.call(write(&here.node, &parts)).await;
        written.map(|written| written.map(|written| written.replies.into_iter().next().unwrap_or(Reply::Nil)))
    };
    let outcome = match reply {
        None => Outcome::Unknown,
        Some(Ok(reply)) => operation.outcome(&reply),
        Some(Err(error)) if error.may_be_applied() => Outcome::Unknown,
        // Not applied: as if it had never been.
        Some(Err(_)) => return,
    };
    world
        .oracle
        .operated(key, called, world.began.elapsed(), operation, outcome);
}

/// What became of an append.
pub(super) fn fate(answer: Option<&Result<Written, Error>>) -> Fate {
    match answer {
        Some(Ok(written)) => Fate::Acknowledged(written.token),
        Some(Err(error)) if !error.may_be_applied() => Fate::Refused,
        _ => Fate::Unknown,
    }
}

/// Whether a value must be there, may be, or must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Acknowledged(Token),
    Refused,
    Unknown,
}

/// Appends a value, and looks for it at another machine that is to be as fresh as the write.
async fn append_and_look(world: &World, here: &Running, there: &Running, value: String) {
    let list = list(world);
    let answer = here.call(write(&here.node, &["RPUSH", &list, &value])).await;
    let fate = fate(answer.as_ref());
    world.oracle.appended(&list, &value, fate);
    let Fate::Acknowledged(token) = fate else { return };
    let argv = argv(&["LPOS", &list, &value]);
    let looked = there
        .call(there.node.read(Freshness::AtLeast(token), 0, &argv))
        .await;
    if let Some(Ok(found)) = looked
        && !matches!(found, Reply::Integer(_))
    {
        let (there, token) = (there.host, token.0);
        world.oracle.wrong(format!(
            "machine {there}, asked for what is at least as fresh as {token}, has no {value} in {list}: {found:?}"
        ));
    }
}

/// Appends two values through one machine, the second before the first is answered.
async fn append_two(world: &World, here: &Running, values: [String; 2]) {
    let list = list(world);
    let append = async |value: &String| write(&here.node, &["RPUSH", &list, value]).await;
    let both = here
        .call(async { futures::join!(append(&values[0]), append(&values[1])) })
        .await;
    let (first, second) = both.map_or((None, None), |(first, second)| (Some(first), Some(second)));
    world.oracle.appended(&list, &values[0], fate(first.as_ref()));
    world.oracle.appended(&list, &values[1], fate(second.as_ref()));
    world.oracle.in_order(&list, values);
}
