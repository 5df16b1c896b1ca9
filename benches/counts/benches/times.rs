//! The same operations by the clock, and what has a disk: the log store, with its thread, and snapshot files. `cargo bench --manifest-path
//! benches/counts/Cargo.toml`, then `-- NAME` for some of them. The data lies in a temporary folder: `TMPDIR` chooses the disk.

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use plenary::config::{Durability, LogKind};
use plenary::testing::{LogProbe, SnapshotProbe};
use plenary_counts::{STEPS, operations, sessions, strings};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Bytes of one command with its value of 128 bytes, its key and the lengths around them.
const COMMAND_BYTES: usize = 180;

/// Groups after which the log is purged, as a snapshot would.
const PURGED_AFTER: u64 = 8_192;

/// Keys of a snapshot: enough that opening, flushing and naming its file is a small part.
const SNAPSHOT_KEYS: usize = 100_000;

fn of_operations(criterion: &mut Criterion) {
    for operation in operations() {
        let mut group = criterion.benchmark_group(operation.name);
        group.throughput(Throughput::Elements(operation.in_a_step as u64));
        group.bench_function("step", |bencher| {
            bencher.iter_custom(|times| {
                let (mut taken, mut left) = (Duration::ZERO, usize::try_from(times).unwrap_or(usize::MAX));
                while left > 0 {
                    // As many as were prepared, then anew.
                    let (steps, mut step) = (left.min(STEPS), operation.prepare());
                    let begun = Instant::now();
                    (0..steps).for_each(&mut step);
                    taken += begun.elapsed();
                    left -= steps;
                }
                taken
            });
        });
        group.finish();
    }
}

fn of_the_log(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime starts");
    let durabilities = [Durability::Os, Durability::Fsync];
    let kinds = [LogKind::Segments, LogKind::Sled].into_iter();
    for (kind, durability) in kinds.flat_map(|kind| durabilities.map(|durability| (kind, durability))) {
        let mut benchmarks = criterion.benchmark_group(format!("the log in {kind}, {durability}"));
        for commands in [1, 16, 256] {
            let folder = tempfile::tempdir().expect("a folder for the log");
            let mut log = LogProbe::open(folder.path(), kind, durability).expect("a log in a fresh folder");
            let group = Bytes::from(vec![b'x'; commands * COMMAND_BYTES]);
            benchmarks.throughput(Throughput::Elements(commands as u64));
            let id = BenchmarkId::new("a group appended and acknowledged", commands);
            benchmarks.bench_function(id, |bencher| {
                bencher.iter_custom(|times| {
                    let begun = Instant::now();
                    runtime.block_on(async {
                        for time in 1..=times {
                            let durable = log.append(group.clone()).await.expect("the log runs");
                            durable.await.expect("the disk takes it");
                            if time % PURGED_AFTER == 0 {
                                log.purge().await.expect("the disk takes it");
                            }
                        }
                    });
                    begun.elapsed()
                });
            });
            runtime.block_on(log.stop()).expect("the disk takes it");
        }
        benchmarks.finish();
    }
}

/// Whole snapshots: written until they are durable and in the catalogue; read as at a start.
fn of_snapshot_files(criterion: &mut Criterion) {
    let mut benchmarks = criterion.benchmark_group("a snapshot file");
    benchmarks.sample_size(10);
    benchmarks.throughput(Throughput::Elements(SNAPSHOT_KEYS as u64));
    let machines = [
        ("strings", strings(SNAPSHOT_KEYS)),
        ("sessions", sessions(SNAPSHOT_KEYS)),
    ];
    for (of, machine) in &machines {
        let folder = tempfile::tempdir().expect("a folder for snapshots");
        let mut snapshots = SnapshotProbe::open(folder.path()).expect("snapshots in a fresh folder");
        // That one is there to be read, whichever of the two is asked for.
        snapshots.write(machine).expect("the disk takes it");
        benchmarks.bench_function(BenchmarkId::new("written", of), |bencher| {
            bencher.iter(|| snapshots.write(machine).expect("the disk takes it"));
        });
        benchmarks.bench_function(BenchmarkId::new("read", of), |bencher| {
            bencher.iter(|| black_box(snapshots.read().expect("what was written is read")));
        });
    }
    benchmarks.finish();
}

criterion_group! {
    name = times;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30);
    targets = of_operations, of_the_log, of_snapshot_files
}
criterion_main!(times);
