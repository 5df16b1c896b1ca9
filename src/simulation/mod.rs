//! A whole cluster in one thread, on simulated network, disks and time. Every choice follows from one seed, but for tokio's own: those do so too where it is
//! built with `--cfg tokio_unstable`.
//!
//! ```text
//! seed ─► plan (what befalls whom when) ─► world (machines: ground, node) ◄─ clients ─► oracle (what they were told, and what must be so)
//! ```
//!
//! Real: `machine/`, `node/`, `raft/` with openraft, the log in segments, snapshots, every encoder, tonic and HTTP/2. Simulated: what is behind the doors of
//! `raft/ground.rs`. Time stands still while anybody has something to do and then jumps to the next alarm, so ten minutes take as long as what happens in them.
//!
//! `tests/README.md` says how a seed is run again.

mod bad_moments;
#[path = "../../tests/checker/mod.rs"]
mod checker;
mod clients;
mod oracle;
mod plan;
mod world;

use crate::machine::reply::Reply;
use crate::raft::files::simulated::Chance;
use crate::raft::simulation::Simulation;
use oracle::Oracle;
use plan::Plan;
use std::sync::Arc;
use std::time::Duration;
use world::World;

/// What a run that nothing went wrong in was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Report {
    /// When anything was sent, and on which connection, as one number.
    trace: u64,
    /// What clients were told and when, as one number.
    history: u64,
    operations: usize,
    unknown: usize,
}

/// Runs a plan on a thread of its own.
///
/// # Errors
/// What was found wrong.
fn run(plan: &Plan) -> Result<Report, String> {
    simulate(plan, async |world, plan| {
        let oracle = world.oracle.clone();
        let clients: Vec<_> = (0..plan.clients)
            .map(|which| {
                let chance = Chance(plan.seed ^ ((which as u64) << 32));
                tokio::spawn(clients::run(world.clone(), which, chance))
            })
            .collect();
        let judge = tokio::spawn(oracle::watch(world.clone()));
        world.befall(&plan.faults, plan.length).await;
        oracle.stop();
        for client in clients {
            client.await.map_err(|error| error.to_string())?;
        }
        world.heal().await?;
        judge.await.map_err(|error| error.to_string())?;
        oracle::judge(&world).await?;
        Ok(oracle.report(world.network.trace()))
    })
}

/// Makes the world of a plan on a thread of its own, and lets this happen in it once it serves.
///
/// # Errors
/// What was found wrong.
fn simulate<T: Send + 'static>(
    plan: &Plan,
    happens: impl AsyncFnOnce(Arc<World>, &Plan) -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let plan = plan.clone();
    let thread = std::thread::Builder::new().name(format!("seed {}", plan.seed));
    let work = move || {
        let _simulation = Simulation::begin(plan.seed);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true);
        // Without it tokio draws by itself whom it wakes first of those who watch the same.
        #[cfg(tokio_unstable)]
        runtime.rng_seed(tokio::runtime::RngSeed::from_bytes(&plan.seed.to_le_bytes()));
        let runtime = runtime.build().map_err(|error| error.to_string())?;
        runtime.block_on(async {
            let world = Arc::new(World::new(&plan, Arc::new(Oracle::new())));
            world.begin().await?;
            happens(world, &plan).await
        })
    };
    let running = thread.spawn(work).map_err(|error| error.to_string())?;
    running.join().unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Err(text.unwrap_or_else(|| "a panic without words".to_owned()))
    })
}

/// Runs a plan; one that fails is told with what is left of it when everything is taken away that it fails without.
#[track_caller]
fn must_hold(plan: &Plan) -> Report {
    run(plan).unwrap_or_else(|why| {
        println!("seed {} fails: {why}\n{plan:#?}", plan.seed);
        let least = plan.least(|plan| run(plan).is_err());
        panic!(
            "seed {} fails: {why}\nPLENARY_SEED={} repeats it. What it takes of its plan:\n{:#?}",
            plan.seed, plan.seed, least.faults
        );
    })
}

fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(name);
    text.map_or(default, |text| text.parse().expect("a number"))
}

/// The seeds to run: the one that `PLENARY_SEED` names, or as many as `PLENARY_SEEDS` says.
fn seeds(default: u64) -> Vec<u64> {
    match std::env::var("PLENARY_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => (1..=setting("PLENARY_SEEDS", default)).collect(),
    }
}

fn length(default_minutes: u64) -> Duration {
    Duration::from_secs(60 * setting("PLENARY_MINUTES", default_minutes))
}

#[test]
fn a_cluster_forms_writes_and_reads_where_nothing_goes_wrong() {
    let plan = Plan::quiet(1, Duration::from_secs(30));
    let report = must_hold(&plan);
    assert!(report.operations > 100 && report.unknown == 0, "{report:?}");
}

#[cfg(tokio_unstable)]
#[test]
fn one_seed_is_one_run() {
    let plan = Plan::by_chance(7, Duration::from_secs(60));
    assert_eq!(must_hold(&plan), must_hold(&plan));
}

#[test]
fn nothing_is_lost_doubled_or_stale_whatever_befalls_a_cluster() {
    let seeds = seeds(8);
    let (length, began) = (length(2), std::time::Instant::now());
    let next = std::sync::atomic::AtomicUsize::new(0);
    let (operations, unknown) = std::thread::scope(|scope| {
        let work = || {
            let (mut operations, mut unknown) = (0, 0);
            while let Some(seed) = seeds.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                let report = must_hold(&Plan::by_chance(*seed, length));
                operations += report.operations;
                unknown += report.unknown;
            }
            (operations, unknown)
        };
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        let done = workers.into_iter().map(|worker| {
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        done.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    });
    println!(
        "{} seeds of {length:?} in {:?}: {operations} operations, {unknown} of them unknown",
        seeds.len(),
        began.elapsed()
    );
}
