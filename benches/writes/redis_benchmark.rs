//! redis-benchmark's default set, without and with a pipeline: three nodes, spoken to on the leader and on a follower, beside a Redis with two
//! replicas. All flush each write before they answer; what an answer means differs, which `benches/README.md` says.

use super::{Fault, Options};
use crate::targets::children::{Plenaries, Redis};
use plenary::config::Durability;
use std::path::Path;
use std::process::Command;

const CONNECTIONS: &str = "50";

/// Commands sent at once on one connection.
const PIPELINES: [u32; 2] = [1, 16];

/// Tests as `-t` names them, and their requests without a pipeline: about a second for the slowest target. What `LRANGE` reads is pushed
/// once for the four of them.
const TESTS: [(&str, u32); 16] = [
    ("ping_inline", 20_000),
    ("ping_mbulk", 20_000),
    ("set", 10_000),
    ("get", 20_000),
    ("incr", 10_000),
    ("lpush", 10_000),
    ("rpush", 10_000),
    ("lpop", 10_000),
    ("rpop", 10_000),
    ("sadd", 10_000),
    ("hset", 10_000),
    ("spop", 10_000),
    ("zadd", 10_000),
    ("zpopmin", 10_000),
    ("lrange_100,lrange_300,lrange_500,lrange_600", 5_000),
    ("mset", 5_000),
];

/// With a pipeline so many times as many requests.
const MORE_IN_PIPELINES: u32 = 4;

/// The servers, in the order of the columns.
const REDIS: usize = 0;
const SERVERS: usize = 3;

/// One line of the table: requests per second at each server, of each round.
struct Row {
    pipeline: u32,
    test: String,
    rates: [Vec<f64>; SERVERS],
}

/// Measures the rounds, server after server for each test, and prints the medians.
pub(crate) async fn measure(folder: &Path, options: &Options) -> Result<(), Fault> {
    let plenaries = Plenaries::start(&folder.join("plenary"), Durability::Fsync).await?;
    let group = Redis::start_group(&folder.join("redis"), 2).await?;
    let mut rows = Vec::<Row>::new();
    for _ in 0..options.rounds {
        for pipeline in PIPELINES {
            for (tests, requests) in TESTS {
                // Asked anew: another may lead by now.
                let leader = plenaries.leader().await?;
                let follower = (leader + 1) % plenaries.ports.len();
                let ports = [
                    group[REDIS].port,
                    plenaries.ports[leader],
                    plenaries.ports[follower],
                ];
                for (server, port) in ports.into_iter().enumerate() {
                    for (test, rate) in run(port, tests, requests, pipeline, options.keys).await? {
                        let known = |row: &&mut Row| row.pipeline == pipeline && row.test == test;
                        match rows.iter_mut().find(known) {
                            Some(row) => row.rates[server].push(rate),
                            None => {
                                let mut rates = [const { Vec::new() }; SERVERS];
                                rates[server].push(rate);
                                rows.push(Row {
                                    pipeline,
                                    test,
                                    rates,
                                });
                            }
                        }
                    }
                }
            }
        }
    }
    print(&mut rows);
    Ok(())
}

/// The names of the tests and their rates.
async fn run(
    port: u16,
    tests: &str,
    requests: u32,
    pipeline: u32,
    keys: Option<u32>,
) -> Result<Vec<(String, f64)>, Fault> {
    let requests = if pipeline == 1 {
        requests
    } else {
        requests * MORE_IN_PIPELINES
    };
    let mut command = Command::new("redis-benchmark");
    command
        .args(["-p", &port.to_string(), "-c", CONNECTIONS, "--csv", "-t", tests])
        .args(["-n", &requests.to_string(), "-P", &pipeline.to_string()]);
    if let Some(keys) = keys {
        command.args(["-r", &keys.to_string()]);
    }
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("redis-benchmark {tests} at port {port}: {why}").into());
    }
    // A line is `"name","rate",…`; the first names the columns.
    let text = String::from_utf8(output.stdout)?;
    let lines = text.lines().skip(1).map(|line| {
        let mut fields = line.split('"').skip(1).step_by(2);
        let (name, rate) = (fields.next().ok_or("no name")?, fields.next().ok_or("no rate")?);
        // What stands in brackets explains.
        let name = name.split_once(" (").map_or(name, |(name, _)| name);
        Ok((name.to_owned(), rate.parse()?))
    });
    let rates: Result<Vec<_>, Fault> = lines.collect();
    // The push that `LRANGE` needs is no test of its own.
    let is_asked_for = |name: &str| tests.split(',').any(|test| test.eq_ignore_ascii_case(name));
    Ok(rates?
        .into_iter()
        .filter(|(name, _)| is_asked_for(name))
        .collect())
}

fn print(rows: &mut [Row]) {
    println!(
        "\n| redis-benchmark -c {CONNECTIONS} | -P | Redis, two replicas | leader | of Redis | follower | of Redis |\n|---|---|---|---|---|---|---|"
    );
    rows.sort_by_key(|row| row.pipeline);
    for row in rows {
        let [redis, leader, follower] = row.rates.each_mut().map(|rates| {
            rates.sort_by(f64::total_cmp);
            rates.get(rates.len() / 2).copied().unwrap_or(f64::NAN)
        });
        println!(
            "| {} | {} | {redis:.0} | {leader:.0} | {:.2} | {follower:.0} | {:.2} |",
            row.test,
            row.pipeline,
            leader / redis,
            follower / redis
        );
    }
}
