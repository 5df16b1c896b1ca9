//! Ten times the keys: what they cost writers, and whether they take ten times the memory.

use super::load::{fill, set};
use super::memory::SETTLES;
use super::snapshot::capacity;
use super::targets::Fault;
use super::targets::children::Plenaries;
use super::targets::closed_loop::memory;
use std::path::Path;

/// Rounds by turns; the median counts.
const ROUNDS: usize = 5;

const NODES: usize = 3;

pub(crate) async fn measure(folder: &Path, keys: usize) -> Result<(), Fault> {
    let mut clusters = Vec::new();
    for keys in [keys / 10, keys] {
        let nodes = Plenaries::start_with(&folder.join(keys.to_string()), NODES, &[]).await?;
        let empty = memory(&nodes)?;
        fill(nodes.ports[nodes.leader().await?], keys, set).await?;
        tokio::time::sleep(SETTLES).await;
        let bytes = (memory(&nodes)? - empty) / NODES as u64;
        clusters.push((keys, bytes, nodes, Vec::new()));
    }
    for _ in 0..ROUNDS {
        for (keys, _, nodes, rates) in &mut clusters {
            rates.push(capacity(nodes, *keys).await?);
        }
    }
    println!(
        "\n| keys, strings of 128 bytes | writes/s, the median of {ROUNDS} | of a tenth's | MB a node | of ten times |\n|---|---|---|---|---|"
    );
    let mut tenth = None;
    for (keys, bytes, _, rates) in &mut clusters {
        rates.sort_by(f64::total_cmp);
        let (rate, bytes) = (rates[ROUNDS / 2], *bytes as f64);
        let (of_rate, of_bytes) = tenth.map_or(Default::default(), |(rate_then, bytes_then): (f64, f64)| {
            (
                format!("{:.2}", rate / rate_then),
                format!("{:.2}", bytes / bytes_then / 10.0),
            )
        });
        println!(
            "| {keys} | {rate:.0} | {of_rate} | {:.0} | {of_bytes} |",
            bytes / 1e6
        );
        tenth = Some((rate, bytes));
    }
    Ok(())
}
