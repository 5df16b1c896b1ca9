//! What a cluster under load feels of a member that has to be fed: one that joins with nothing, and one that stood still.

use super::load::{Ask, CALLERS, Load, fill, ms, set};
use super::targets::children::Plenaries;
use super::targets::{Fault, Place};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the load goes on before and after.
const AROUND: Duration = Duration::from_secs(5);

/// How long a member stands still.
const STANDS_STILL: Duration = Duration::from_secs(10);

/// Entries that a member may be behind while it is written.
const CAUGHT_UP: u64 = 512;

pub(crate) async fn join(folder: &Path, keys: usize) -> Result<(), Fault> {
    let mut nodes = Plenaries::start_with(folder, 3, &[]).await?;
    let leader = nodes.leader().await?;
    fill(nodes.ports[leader], keys, set).await?;
    println!(
        "\n| a node joins {keys} keys while {CALLERS} write | votes and serves all after | writes/s before | during | during/before | p99 ms before | during | longest during |\n|---|---|---|---|---|---|---|---|"
    );
    let load = Load::start(&nodes, Place::Leader, (Ask::Writes, CALLERS), keys, None).await?;
    tokio::time::sleep(AROUND / 4).await;
    let from = Instant::now();
    tokio::time::sleep(AROUND).await;
    let begun = Instant::now();
    let new = nodes.join()?;
    nodes
        .until(new, |status| {
            status["ready"] == true && status["role"] == "follower" && status["keys"] == keys
        })
        .await?;
    let ended = Instant::now();
    let answers = load.stop().await?;
    let (before, during) = (answers.between(from, begun), answers.between(begun, ended));
    println!(
        "| all they can | {:.1} s | {:.0} | {:.0} | {:.2} | {} | {} | {} |",
        (ended - begun).as_secs_f64(),
        before.per_second,
        during.per_second,
        during.per_second / before.per_second,
        ms(before.p99),
        ms(during.p99),
        ms(during.longest),
    );
    same_state(&nodes, &[leader, new]).await
}

pub(crate) async fn lagging(folder: &Path, keys: usize) -> Result<(), Fault> {
    let nodes = Plenaries::start_with(folder, 3, &[]).await?;
    let leader = nodes.leader().await?;
    fill(nodes.ports[leader], keys, set).await?;
    let lagging = (leader + 1) % 3;
    println!(
        "\n| a follower stands still for {STANDS_STILL:?} and is fed again, {CALLERS} write, {keys} keys | s | writes/s | of before | p99 ms | longest |\n|---|---|---|---|---|---|"
    );
    let load = Load::start(&nodes, Place::Leader, (Ask::Writes, CALLERS), keys, None).await?;
    tokio::time::sleep(AROUND / 4).await;
    let from = Instant::now();
    tokio::time::sleep(AROUND).await;
    let stopped = Instant::now();
    nodes.signal(lagging, "STOP")?;
    tokio::time::sleep(STANDS_STILL).await;
    let fed = Instant::now();
    nodes.signal(lagging, "CONT")?;
    loop {
        let applied = |status: &serde_json::Value| status["applied_index"].as_u64().unwrap_or(0);
        let leads = applied(&nodes.status(leader).await?);
        if applied(&nodes.status(lagging).await?) + CAUGHT_UP > leads {
            break;
        }
        if fed.elapsed() > super::targets::PATIENCE {
            return Err("it does not catch up".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let caught_up = Instant::now();
    tokio::time::sleep(AROUND).await;
    let until = Instant::now();
    let answers = load.stop().await?;
    let before = answers.between(from, stopped).per_second;
    for (what, from, until) in [
        ("before", from, stopped),
        ("while it stands still", stopped, fed),
        ("while it catches up", fed, caught_up),
        ("after", caught_up, until),
    ] {
        let window = answers.between(from, until);
        println!(
            "| {what} | {:.1} | {:.0} | {:.2} | {} | {} |",
            (until - from).as_secs_f64(),
            window.per_second,
            window.per_second / before,
            ms(window.p99),
            ms(window.longest),
        );
    }
    same_state(&nodes, &[leader, lagging]).await
}

/// Whether these have the same, once nobody writes.
async fn same_state(nodes: &Plenaries, which: &[usize]) -> Result<(), Fault> {
    let mut states = Vec::new();
    for which in which {
        let status = nodes.status(*which).await?;
        states.push((status["keys"].clone(), status["used_bytes"].clone()));
    }
    if states.windows(2).all(|two| two[0] == two[1]) {
        Ok(())
    } else {
        Err(format!("they hold different things: {states:?}").into())
    }
}
