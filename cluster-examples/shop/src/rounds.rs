//! What `--check` does: visitors buy, the copies are rolled one after the other, one is killed, and at the end everything is counted.

use crate::children::{LOOK, PATIENCE, Result};
use crate::proxy::Proxy;
use crate::visitors::{Seen, Visitor};
use crate::{COPIES, Cluster, Options};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Requests that must be done before a copy is stopped or killed and after it: the visitors are at work both times.
const REQUESTS_BETWEEN: u64 = 100;

/// The 99th percentile that rolling should stay under.
const P99_GOAL: Duration = Duration::from_millis(250);

/// How the sessions of the first visitor end: one by the list, two by signing out everywhere.
const ENDED: [&str; 3] = ["abandoned"; 3];

pub(crate) async fn check(
    options: &Options,
    cluster: &mut Cluster,
    proxy: &Proxy,
    address: &str,
) -> Result<bool> {
    let visitors = (1..=options.visitors).map(|number| Visitor::new(format!("visitor {number}"), address));
    let visitors: Vec<_> = visitors.collect();

    let rolling = Arc::new(Seen::default());
    let tasks = at_work(visitors, &rolling);
    println!("\n round  copy  role      ms to stop  ms until ready");
    let began = Instant::now();
    for round in 1..=options.rounds {
        for copy in 0..COPIES {
            let leader = cluster.ready().await?;
            done(&rolling, REQUESTS_BETWEEN).await?;
            let asked = Instant::now();
            let stopped = cluster.roll(copy).await?;
            let role = if copy == leader { "leader" } else { "follower" };
            println!(
                " {round:>5}  {:>4}  {role:<8}  {:>10}  {:>14}",
                copy + 1,
                (stopped - asked).as_millis(),
                stopped.elapsed().as_millis()
            );
        }
    }
    done(&rolling, REQUESTS_BETWEEN).await?;
    let visitors = stop(tasks, &rolling).await?;
    table("while copies were rolled", &rolling, began.elapsed());
    let retried = proxy.retried.load(Ordering::Relaxed);
    row("sent to another copy: refused before sent", retried, "");

    let killing = Arc::new(Seen::while_killing());
    let began = Instant::now();
    let mut visitors = kill(visitors, cluster, &killing).await?;
    table("while the leader was killed", &killing, began.elapsed());
    row("cut off with the killed copy", Seen::count(&killing.cut_off), "");

    let leaving = Seen::default();
    let left = leave(&mut visitors, cluster, &leaving).await?;
    println!(
        "\n {}",
        if left {
            "one session ended by the list, then signed out everywhere: nobody else was, and each copy tells of each end once"
        } else {
            "NOT EVERY SESSION ENDED AS IT MUST"
        }
    );

    let p99 = rolling.percentile(99);
    let fast = p99 < P99_GOAL;
    println!(
        " p99 while rolling: {} ms, the goal is under {} ms{}",
        p99.as_millis(),
        P99_GOAL.as_millis(),
        if fast { "" } else { ": MISSED" }
    );
    let good = rolling.faults() + killing.faults() + leaving.faults() == 0 && left;
    println!(
        "\n{}",
        if good {
            "nobody was logged out, and nothing was lost"
        } else {
            "SOMETHING WAS LOST"
        }
    );
    Ok(good && (fast || !options.strict))
}

type Working = Vec<tokio::task::JoinHandle<Visitor>>;

fn at_work(visitors: Vec<Visitor>, seen: &Arc<Seen>) -> Working {
    let spawn = |mut visitor: Visitor| {
        let seen = seen.clone();
        tokio::spawn(async move {
            visitor.work(&seen).await;
            visitor
        })
    };
    visitors.into_iter().map(spawn).collect()
}

async fn stop(tasks: Working, seen: &Seen) -> Result<Vec<Visitor>> {
    seen.stop.store(true, Ordering::Relaxed);
    let mut visitors = Vec::new();
    for task in tasks {
        visitors.push(task.await?);
    }
    Ok(visitors)
}

/// Waits until so many more requests were done.
async fn done(seen: &Seen, more: u64) -> Result<()> {
    let (started, wanted) = (Instant::now(), Seen::count(&seen.answered) + more);
    while Seen::count(&seen.answered) < wanted {
        if seen.faults() > 0 || started.elapsed() > PATIENCE {
            return Err("the visitors cannot go on".into());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// kill -9 of the leader, which says nothing to anybody, and its return.
async fn kill(mut visitors: Vec<Visitor>, cluster: &mut Cluster, seen: &Arc<Seen>) -> Result<Vec<Visitor>> {
    for visitor in &mut visitors {
        visitor.order_all(seen).await;
    }
    let tasks = at_work(visitors, seen);
    let leader = cluster.ready().await?;
    done(seen, REQUESTS_BETWEEN).await?;
    cluster.children.kill(leader)?;
    done(seen, REQUESTS_BETWEEN).await?;
    cluster.children.restart(leader)?;
    cluster.ready().await?;
    done(seen, REQUESTS_BETWEEN).await?;
    stop(tasks, seen).await
}

/// The first visitor ends a session by the list and then all; the others must not notice, until they do the same. Whether all was so.
async fn leave(visitors: &mut [Visitor], cluster: &Cluster, seen: &Seen) -> Result<bool> {
    let [first, others @ ..] = visitors else {
        return Err("there are two visitors at least".into());
    };
    let mut well = first.end_one(seen).await && first.sign_out_everywhere(seen).await;
    for visitor in &*others {
        well &= visitor.look(seen).await;
    }
    for visitor in others {
        well &= visitor.sign_out_everywhere(seen).await;
    }
    well &= first.come_back(seen).await;
    for copy in &cluster.http {
        let started = Instant::now();
        // A copy hears of it when it has applied it.
        loop {
            let Some(ended) = first.ended(seen, copy).await else {
                return Ok(false);
            };
            if ended.len() >= ENDED.len() || started.elapsed() > PATIENCE {
                if ended != ENDED {
                    eprintln!("  {copy} tells {} of {ended:?}", first.name);
                    well = false;
                }
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(well)
}

fn table(when: &str, seen: &Seen, took: Duration) {
    println!("\n {when}, in {:.1} s:", took.as_secs_f64());
    let rows = [
        ("requests done", &seen.answered),
        ("mugs added, each there exactly once", &seen.adds),
        ("logins in the middle of other requests", &seen.logins),
        ("sent again with the id of a login", &seen.again),
        ("users logged out", &seen.logged_out),
        ("failed requests", &seen.failed),
        ("wrong pages", &seen.wrong),
    ];
    for (what, counter) in rows {
        row(what, Seen::count(counter), "");
    }
    for percent in [50, 99] {
        let latency = seen.percentile(percent).as_millis();
        row(
            &format!("{percent} % of the requests took at most"),
            u64::try_from(latency).unwrap_or(u64::MAX),
            " ms",
        );
    }
}

fn row(what: &str, count: u64, unit: &str) {
    println!(" {what:<42} {count:>8}{unit}");
}
