//! Durable writes per second of three nodes on this machine: a closed loop of callers, each of which waits for its
//! answer before it writes again. `cargo bench --bench writes`; `benches/README.md` says how to read it.
//!
//! Not a test: nothing here fails for being slow.

mod locks;
mod redis_benchmark;
#[path = "../targets/mod.rs"]
mod targets;

use plenary::config::{Durability, Limits};
use std::time::Duration;
use targets::children::{self, Etcd, Plenaries, Redis};
use targets::closed_loop::{Load, Measured, flush_time, measure};
use targets::{Fault, Local, Place, Target};

/// Bytes of a value.
const VALUE: usize = 256;

const HELP: &str = "\
cargo bench --bench writes -- [OPTIONS]
  --quick            one short round of each row, and nothing but Plenary
  --seconds S        how long a row is measured in one round (2)
  --rounds N         rounds; the table has the median of each row (3)
  --only TEXT        only rows whose name contains this
  --keys N           redis-benchmark on so many keys and members instead of one
  --groups 1,2,4     groups in flight to compare, nodes in one process (the default alone)";

struct Options {
    span: Duration,
    rounds: usize,
    only: String,
    others: bool,
    keys: Option<u32>,
    groups: Vec<usize>,
}

impl Options {
    fn read() -> Result<Self, Fault> {
        let mut options = Self {
            span: Duration::from_secs(2),
            rounds: 3,
            only: String::new(),
            others: true,
            keys: None,
            groups: vec![Limits::default().groups_in_flight],
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value\n{HELP}"));
            match word.as_str() {
                // Cargo says it to every benchmark.
                "--bench" => {}
                "--quick" => {
                    (options.span, options.rounds) = (Duration::from_millis(200), 1);
                    options.others = false;
                }
                "--seconds" => options.span = Duration::from_secs_f64(value()?.parse()?),
                "--rounds" => options.rounds = value()?.parse()?,
                "--keys" => options.keys = Some(value()?.parse()?),
                "--only" => options.only = value()?,
                "--groups" => {
                    let groups = value()?.split(',').map(str::parse).collect::<Result<_, _>>();
                    options.groups = groups?;
                }
                _ => return Err(format!("{word}?\n{HELP}").into()),
            }
        }
        Ok(options)
    }

    fn wants(&self, name: &str) -> bool {
        name.contains(&self.only)
    }
}

/// One line of the table.
struct Row {
    name: String,
    /// Which target it measures.
    target: usize,
    place: Place,
    callers: usize,
    results: Vec<Measured>,
}

fn main() -> Result<(), Fault> {
    let options = Options::read()?;
    tokio::runtime::Runtime::new()?.block_on(run(options))
}

async fn run(options: Options) -> Result<(), Fault> {
    let folder = tempfile::tempdir()?;
    println!(
        "{} processors; an append of 4 KiB and fdatasync here take {:?}",
        std::thread::available_parallelism()?,
        flush_time(folder.path())?
    );
    let (mut targets, mut rows) = (Vec::<Box<dyn Target>>::new(), Vec::new());
    for durability in [Durability::Fsync, Durability::Os] {
        let plan = [Place::Leader, Place::Follower, Place::Spread].map(|place| (place, 64));
        let more = [(Place::Leader, 1), (Place::Follower, 1), (Place::Spread, 256)];
        let plan = [plan, more].concat();
        for groups in &options.groups {
            let name = match options.groups.len() {
                1 => format!("{durability}, one process"),
                _ => format!("{durability}, one process, {groups} groups"),
            };
            if plan_rows(&mut rows, &options, targets.len(), &name, &plan) {
                targets.push(Box::new(
                    Local::start(folder.path().join(&name), durability, *groups).await?,
                ));
            }
        }
        let name = format!("{durability}, three processes");
        if plan_rows(&mut rows, &options, targets.len(), &name, &plan) {
            targets.push(Box::new(
                Plenaries::start(&folder.path().join(&name), durability).await?,
            ));
        }
    }
    if options.others && children::has("redis-server") {
        let name = "one redis-server, appendfsync always";
        if plan_rows(&mut rows, &options, targets.len(), name, &[(Place::Leader, 64)]) {
            targets.push(Box::new(
                Redis::start_group(&folder.path().join("redis"), 0).await?,
            ));
        }
    }
    if options.others && children::has("etcd") {
        let plan = [(Place::Spread, 1), (Place::Spread, 64), (Place::Spread, 256)];
        if plan_rows(&mut rows, &options, targets.len(), "etcd, three processes", &plan) {
            targets.push(Box::new(Etcd::start(&folder.path().join("etcd")).await?));
        }
    }
    for _ in 0..options.rounds {
        for row in &mut rows {
            let target = &*targets[row.target];
            let load = Load::Writes(VALUE);
            row.results
                .push(measure(target, load, row.place, row.callers, options.span).await?);
        }
    }
    print_writes(&mut rows);
    if options.wants("lock scripts") {
        let name = "fsync, three processes, spread";
        let nodes = Plenaries::start(&folder.path().join("locks"), Durability::Fsync).await?;
        locks::measure(name, &nodes.ports, &options).await?;
        if options.others && children::has("redis-server") {
            let redis = Redis::start_group(&folder.path().join("redis-locks"), 0).await?;
            locks::measure("one redis-server, appendfsync always", &[redis[0].port], &options).await?;
        }
    }
    if options.others && options.wants("redis-benchmark") && children::has("redis-benchmark") {
        redis_benchmark::measure(&folder.path().join("redis-benchmark"), &options).await?;
    }
    for target in targets {
        target.stop().await?;
    }
    Ok(())
}

/// Adds the rows of a target that are asked for. Whether there is any.
fn plan_rows(
    rows: &mut Vec<Row>,
    options: &Options,
    target: usize,
    name: &str,
    plan: &[(Place, usize)],
) -> bool {
    let before = rows.len();
    for (place, callers) in plan {
        let name = format!("{name}, {callers} {place}");
        if options.wants(&name) {
            rows.push(Row {
                name,
                target,
                place: *place,
                callers: *callers,
                results: Vec::new(),
            });
        }
    }
    rows.len() > before
}

fn print_writes(rows: &mut [Row]) {
    if rows.is_empty() {
        return;
    }
    println!(
        "\n{:<50} {:>9} {:>9} {:>9} {:>9}",
        "writes of 256 bytes", "per s", "p50 µs", "p99 µs", "CPU µs"
    );
    for row in rows {
        row.results.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
        let Measured {
            per_second,
            p50,
            p99,
            cpu,
            ..
        } = row.results[row.results.len() / 2];
        println!(
            "{:<50} {per_second:>9.0} {:>9} {:>9} {:>9.1}",
            row.name,
            p50.as_micros(),
            p99.as_micros(),
            cpu.as_secs_f64() * 1e6
        );
    }
}
