//! Durable writes per second of three nodes on this machine, and local reads: a closed loop of callers, each of which waits for its
//! answer before it writes again. `cargo bench --bench writes`; `benches/README.md` says how to read it.
//!
//! Not a test: nothing here fails for being slow.

mod children;
mod etcd;
mod locks;
mod redis_benchmark;
mod target;

use children::{Plenaries, Redis};
use plenary::config::{Durability, Limits};
use std::error::Error;
use std::time::{Duration, Instant};
use target::{Caller, Local, Place, Target};

pub(crate) type Fault = Box<dyn Error + Send + Sync>;

/// Bytes of a value.
const VALUE: usize = 256;

/// Keys of one caller. They are written again and again, so that memory and snapshots stay small.
const KEYS: usize = 1_000;

const HELP: &str = "\
cargo bench --bench writes -- [OPTIONS]
  --quick            one short round of each row, and nothing but Plenary
  --seconds S        how long a row is measured in one round (2)
  --rounds N         rounds; the table has the median of each row (3)
  --only TEXT        only rows whose name contains this
  --keys N           redis-benchmark on so many keys and members instead of one
  --groups 1,2,4     groups in flight to compare, nodes in one process (the default alone)
  --etcd A,B,C       measure these etcd members beside (host:port)";

struct Options {
    span: Duration,
    rounds: usize,
    only: String,
    others: bool,
    keys: Option<u32>,
    groups: Vec<usize>,
    etcd: Vec<String>,
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
            etcd: Vec::new(),
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
                "--etcd" => options.etcd = value()?.split(',').map(str::to_owned).collect(),
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

/// What one round of one row came to.
#[derive(Clone, Copy)]
struct Measured {
    per_second: f64,
    p50: Duration,
    p99: Duration,
    /// Processor time of all nodes and all callers, per write.
    cpu: Duration,
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
            targets.push(Box::new(Redis::start(&folder.path().join("redis")).await?));
        }
    }
    if !options.etcd.is_empty() {
        let plan = [(Place::Spread, 1), (Place::Spread, 64), (Place::Spread, 256)];
        if plan_rows(&mut rows, &options, targets.len(), "etcd", &plan) {
            targets.push(Box::new(etcd::Etcd::connect(&options.etcd).await?));
        }
    }
    for _ in 0..options.rounds {
        for row in &mut rows {
            row.results
                .push(measure(&*targets[row.target], row.place, row.callers, options.span).await?);
        }
    }
    print_writes(&mut rows);
    if options.wants("lock scripts") {
        let name = "fsync, three processes, spread";
        let nodes = Plenaries::start(&folder.path().join("locks"), Durability::Fsync).await?;
        locks::measure(name, &nodes, &options).await?;
        if options.others && children::has("redis-server") {
            let redis = Redis::start(&folder.path().join("redis-locks")).await?;
            locks::measure("one redis-server, appendfsync always", &redis, &options).await?;
        }
    }
    if options.wants("reads") {
        target::reads(&folder.path().join("reads"), options.span).await?;
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

/// Lets callers write for this long. What they do before all have begun does not count.
async fn measure(
    target: &dyn Target,
    place: Place,
    callers: usize,
    span: Duration,
) -> Result<Measured, Fault> {
    let callers = target.callers(place, callers).await?;
    let (warm, mut tasks) = (span / 8, tokio::task::JoinSet::new());
    let count = callers.len();
    let (from, until) = (Instant::now() + warm, Instant::now() + warm + span);
    for (number, caller) in callers.into_iter().enumerate() {
        tasks.spawn(write_until(caller, number, from, until));
    }
    tokio::time::sleep_until(from.into()).await;
    let before = target.cpu()?;
    tokio::time::sleep_until(until.into()).await;
    let cpu = target.cpu()? - before;
    let mut times = Vec::with_capacity(count * 1_024);
    while let Some(one) = tasks.join_next().await {
        times.extend(one??);
    }
    times.sort_unstable();
    let writes = times.len().max(1);
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
    Ok(Measured {
        per_second: times.len() as f64 / span.as_secs_f64(),
        p50: at(50),
        p99: at(99),
        cpu: cpu / u32::try_from(writes)?,
    })
}

async fn write_until(
    mut caller: Caller,
    number: usize,
    from: Instant,
    until: Instant,
) -> Result<Vec<Duration>, Fault> {
    let value = [b'v'; VALUE];
    let (mut times, mut count) = (Vec::new(), 0);
    loop {
        count += 1;
        let key = format!("bench:{number:04}:{:026}", count % KEYS);
        let begun = Instant::now();
        if begun >= until {
            return Ok(times);
        }
        caller.write(key.as_bytes(), &value).await?;
        if begun >= from {
            times.push(begun.elapsed());
        }
    }
}

/// The median of a few hundred appends of 4 KiB with fdatasync: what one flush costs on this disk.
fn flush_time(folder: &std::path::Path) -> Result<Duration, Fault> {
    use std::io::Write as _;
    let mut file = std::fs::File::create(folder.join("flush"))?;
    let mut times = Vec::new();
    for _ in 0..300 {
        let begun = Instant::now();
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}
