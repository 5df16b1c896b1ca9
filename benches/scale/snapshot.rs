//! What writers feel of a snapshot: of the leader's, of a follower's, of all three at once.

use super::load::{Ask, CALLERS, Load, fill, ms, set};
use super::targets::children::Plenaries;
use super::targets::{Fault, Place, Resp};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the load goes on before a snapshot, and after it.
const AROUND: Duration = Duration::from_secs(4);

/// More than is written here: a snapshot is taken when it is asked for, and at no other time.
const NEVER: &str = "17179869184";

pub(crate) async fn measure(folder: &Path, keys: usize) -> Result<(), Fault> {
    let nodes = Plenaries::start_with(folder, 3, &["--snapshot-log-bytes", NEVER]).await?;
    let leader = nodes.leader().await?;
    fill(nodes.ports[leader], keys, set).await?;
    let followers = [(leader + 1) % 3, (leader + 2) % 3];
    let all = [leader, followers[0], followers[1]];
    // The log of filling goes.
    snapshots(&nodes, &all).await?;
    println!(
        "\n| {CALLERS} writers on the leader, {keys} keys, a snapshot | took s | writes/s before | during | p99 ms before | during | after | during/before | longest before | during |\n|---|---|---|---|---|---|---|---|---|---|"
    );
    let full = capacity(&nodes, keys).await?;
    for (rate, at) in [("half of what it can", Some(full / 2.0)), ("all it can", None)] {
        for (whose, which) in [
            ("of the leader", &all[..1]),
            ("of a follower", &all[1..2]),
            ("of all", &all[..]),
        ] {
            let load = Load::start(&nodes, Place::Leader, (Ask::Writes, CALLERS), keys, at).await?;
            // The first second is no measure.
            tokio::time::sleep(AROUND / 4).await;
            let from = Instant::now();
            tokio::time::sleep(AROUND).await;
            let begun = Instant::now();
            snapshots(&nodes, which).await?;
            let ended = Instant::now();
            tokio::time::sleep(AROUND).await;
            let until = Instant::now();
            let answers = load.stop().await?;
            let before = answers.between(from, begun);
            let during = answers.between(begun, ended);
            let after = answers.between(ended, until);
            println!(
                "| {whose}, {rate} | {:.1} | {:.0} | {:.0} | {} | {} | {} | {:.2} | {} | {} |",
                (ended - begun).as_secs_f64(),
                before.per_second,
                during.per_second,
                ms(before.p99),
                ms(during.p99),
                ms(after.p99),
                during.p99.as_secs_f64() / before.p99.as_secs_f64(),
                ms(before.longest),
                ms(during.longest),
            );
        }
    }
    Ok(())
}

/// Takes snapshots of these, and waits until each has its own.
async fn snapshots(nodes: &Plenaries, which: &[usize]) -> Result<(), Fault> {
    let mut before = Vec::new();
    for which in which {
        before.push(nodes.status(*which).await?["snapshot_index"].clone());
        Resp::connect(nodes.ports[*which])
            .await?
            .ask(&[b"BGSAVE"])
            .await?;
    }
    for (which, before) in which.iter().zip(before) {
        nodes
            .until(*which, |status| status["snapshot_index"] != before)
            .await?;
    }
    Ok(())
}

/// Writes a second that the nodes can do.
pub(crate) async fn capacity(nodes: &Plenaries, keys: usize) -> Result<f64, Fault> {
    let load = Load::start(nodes, Place::Leader, (Ask::Writes, CALLERS), keys, None).await?;
    tokio::time::sleep(AROUND / 4).await;
    let from = Instant::now();
    tokio::time::sleep(AROUND).await;
    let until = Instant::now();
    Ok(load.stop().await?.between(from, until).per_second)
}
