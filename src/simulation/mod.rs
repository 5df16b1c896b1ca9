//! A whole cluster in one thread, on simulated network, disks and time. Every choice follows from one seed: what libraries draw from the system by themselves
//! does so too in a process that `again.rs` starts.
//!
//! ```text
//! seed ─► plan (what befalls whom when) ─► world (machines: ground, node, endpoint) ◄─ clients, stores ─► oracle (what they were told, and what must be so)
//! ```
//!
//! Real: `machine/`, `node/`, `raft/` with openraft, the log in segments, snapshots, every encoder, tonic, in some seeds HTTP/2, `edge/resp`. Simulated: what is behind the doors of
//! `raft/ground.rs`. Time stands still while anybody has something to do and then jumps to the next alarm, so ten minutes take as long as what happens in them.
//!
//! `tests/README.md` says how a seed is run again.

mod again;
mod bad_moments;
#[path = "../../tests/checker/mod.rs"]
mod checker;
mod clients;
mod oracle;
mod plan;
mod redis;
mod scripts;
mod sessions;
mod stores;
mod told;
mod turns;
mod world;

use crate::machine::reply::Reply;
use crate::raft::files::simulated::Chance;
use crate::raft::net::simulated::Calls;
use crate::raft::simulation::Simulation;
use again::Again;
use oracle::Oracle;
use plan::Plan;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::LocalOptions;
use tokio::time::Instant;
use world::World;

/// How long after the last fault a client may wait for an answer. Those over Redis insist on one.
const LAST_ANSWER: Duration = Duration::from_secs(300);

/// What a run that nothing went wrong in was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Report {
    /// When anything was sent, and on which connection, as one number.
    trace: u64,
    /// What clients were told and when, as one number.
    history: u64,
    operations: usize,
    /// Of them what stores did that is no register and no list: counts, links of chains, locks let go, sessions saved.
    stores: [usize; 4],
    unknown: usize,
}

/// Runs a plan on a thread of its own.
///
/// # Errors
/// What was found wrong.
fn run(plan: &Plan) -> Result<Report, String> {
    simulate(plan, async |world, plan| {
        let oracle = world.oracle.clone();
        let chance = |which: usize| Chance(plan.seed ^ ((which as u64) << 32));
        let clients =
            (0..plan.clients).map(|which| tokio::spawn(clients::run(world.clone(), which, chance(which))));
        let stores = (0..plan.stores).map(|store| {
            let which = plan.clients + store;
            tokio::spawn(stores::run(
                world.clone(),
                which,
                world.store(store),
                chance(which),
            ))
        });
        let clients: Vec<_> = clients.chain(stores).collect();
        let judge = tokio::spawn(oracle::watch(world.clone()));
        world.befall(&plan.faults, plan.length).await;
        oracle.stop();
        let until = Instant::now() + LAST_ANSWER;
        for client in clients {
            let ended = tokio::time::timeout_at(until, client).await;
            let ended = ended.map_err(|_| "a client was never answered")?;
            ended.map_err(|error| error.to_string())?;
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
        // Of the kind whose tasks need not go to another thread: an evaluator of scripts cannot.
        let runtime = runtime.build_local(LocalOptions::default());
        let runtime = runtime.map_err(|error| error.to_string())?;
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
            "seed {} fails: {why}\nPLENARY_SEED={} repeats it (tests/README.md). What it takes of its plan:\n{:#?}",
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
    for calls in [Calls::Http2, Calls::Pieces] {
        let quiet = Plan::quiet(1, Duration::from_secs(30));
        let report = must_hold(&Plan { calls, ..quiet });
        assert!(report.operations > 100 && report.unknown == 0, "{report:?}");
        assert!(report.stores.iter().all(|count| *count > 2), "{report:?}");
    }
}

/// Runs a seed's plan in a process of its own: how it held, or what that process said.
fn run_again(again: &Again, seed: u64, length: Duration) -> Result<String, String> {
    let variables = [
        ("PLENARY_SEED", seed.to_string()),
        ("PLENARY_SECONDS", length.as_secs().to_string()),
    ];
    let output = again.run("simulation::one_seed_holds", &variables);
    let said = String::from_utf8_lossy(&output.stdout);
    let held = said.lines().find(|line| line.contains(HELD));
    match held.filter(|_| output.status.success()) {
        Some(line) => Ok(line.to_owned()),
        None => Err(format!("{said}{}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// What a process says of a seed that held.
const HELD: &str = " holds: ";

#[test]
fn one_seed_holds() {
    let (seed, length) = (setting("PLENARY_SEED", 1), setting("PLENARY_SECONDS", 20));
    let report = must_hold(&Plan::by_chance(seed, Duration::from_secs(length)));
    println!("\nseed {seed}{HELD}{report:?}");
}

#[test]
fn one_seed_is_one_run() {
    let again = Again::new();
    let run = |seed| run_again(&again, seed, Duration::from_secs(30)).unwrap_or_else(|said| panic!("{said}"));
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn nothing_is_lost_doubled_or_stale_whatever_befalls_a_cluster() {
    let (again, seeds, length) = (Again::new(), seeds(4), length(1));
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            println!("{}", run_again(&again, *seed, length)?);
        }
        Ok(())
    };
    let began = std::time::Instant::now();
    let done: Result<(), String> = std::thread::scope(|scope| {
        let workers = [scope.spawn(work), scope.spawn(work)];
        let [one, other] = workers.map(|worker| {
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        one.and(other)
    });
    println!("{} seeds of {length:?} in {:?}", seeds.len(), began.elapsed());
    done.unwrap_or_else(|said| panic!("{said}"));
}
