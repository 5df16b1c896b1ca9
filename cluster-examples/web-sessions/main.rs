//! Three copies of a web application, each with a Plenary node in its process, behind a round-robin proxy. Copies are killed with -9, the
//! leader every other time, while users log in, count and look; nothing they did may be lost.
//!
//! `cargo run --release --example web-sessions --features tower-sessions` (`-- --help` for the rest). Here is the parent, which starts, kills
//! and counts; the copies are this same program (`app.rs`).

mod app;
#[path = "../shared/browser.rs"]
mod browser;
#[path = "../shared/children.rs"]
mod children;
#[path = "../shared/proxy.rs"]
mod proxy;
mod users;

use app::{Copy, CopyStatus};
use children::{Children, LOOK, PATIENCE, Result, get};
use proxy::Proxy;
use std::error::Error;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use users::{Seen, User};

const COPIES: usize = 3;
/// Counts that must be acknowledged before each kill and after it: the cluster is at work both times.
const COUNTS_BETWEEN: u64 = 100;

const HELP: &str = "\
Usage: web-sessions [--check] [--kills N] [--users N] [--base-port P] [--data DIR]

  --check        end after the kills, without waiting for Ctrl-C; the exit status tells
  --kills N      how many copies to kill, by turns a follower and the leader (6)
  --users N      how many users work meanwhile (8)
  --base-port P  proxy on P, copies on P+1.., Redis on P+11.., peers on P+21.. (free ports)
  --data DIR     keep the state there (a temporary folder)
";

#[derive(Debug)]
struct Options {
    check: bool,
    kills: usize,
    users: usize,
    base_port: Option<u16>,
    data: Option<PathBuf>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let done = match words.first().map(String::as_str) {
        Some("--help" | "-h") => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Some("copy") => runtime.block_on(copy(&words[1..])).map(|()| true),
        _ => runtime.block_on(parent(&words)),
    };
    // A copy's reader of standard input may still wait: it must not keep the process.
    runtime.shutdown_background();
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failed(&*error),
    }
}

fn failed(error: &dyn Error) -> ExitCode {
    eprintln!("web-sessions: {error}");
    ExitCode::FAILURE
}

/// `copy DATA HTTP PEER RESP JOIN,JOIN,JOIN`, as the parent starts it.
async fn copy(words: &[String]) -> Result<()> {
    let [data, http, peer, resp, join] = words else {
        return Err("copies are started by the parent".into());
    };
    let join = join.split(',').map(str::to_owned).collect();
    let (http, peer, resp) = (http.clone(), peer.clone(), resp.clone());
    app::serve(Copy {
        data: data.into(),
        http,
        peer,
        resp,
        join,
    })
    .await
}

fn options(words: &[String]) -> Result<Options> {
    let mut options = Options {
        check: false,
        kills: 6,
        users: 8,
        base_port: None,
        data: None,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--check" => options.check = true,
            "--kills" => options.kills = value()?.parse()?,
            "--users" => options.users = value()?.parse()?,
            "--base-port" => options.base_port = Some(value()?.parse()?),
            "--data" => options.data = Some(value()?.into()),
            other => return Err(format!("what is {other}?\n{HELP}").into()),
        }
    }
    if options.base_port.is_some_and(|base| base > u16::MAX - 30) {
        return Err("--base-port must leave room for 30 ports above it".into());
    }
    Ok(options)
}

async fn parent(words: &[String]) -> Result<bool> {
    let options = options(words)?;
    let temporary = tempfile::tempdir()?;
    let data = options
        .data
        .clone()
        .unwrap_or_else(|| temporary.path().to_owned());
    let (listener, copies) = places(&options, &data)?;
    let address = listener.local_addr()?.to_string();
    listener.set_nonblocking(true)?;
    let mut cluster = Cluster::start(copies)?;
    let proxy = Proxy::new(
        cluster.copies.iter().map(|copy| copy.http.clone()).collect(),
        proxy::harmless,
    );
    tokio::spawn(proxy.clone().serve(tokio::net::TcpListener::from_std(listener)?));
    tokio::select! {
        done = show(&options, &mut cluster, &proxy, &address) => {
            cluster.children.stop().await;
            done
        }
        _ = tokio::signal::ctrl_c() => {
            cluster.children.stop().await;
            Ok(false)
        }
    }
}

/// The proxy's listener, and where each copy will stand.
fn places(options: &Options, data: &Path) -> Result<(TcpListener, Vec<Copy>)> {
    let mut held = children::listeners(options.base_port, &[0, 1, 2, 3, 11, 12, 13, 21, 22, 23])?;
    let listener = held.remove(0);
    let addresses = held
        .iter()
        .map(|held| Ok(held.local_addr()?.to_string()))
        .collect::<Result<Vec<_>>>()?;
    let (http, rest) = addresses.split_at(COPIES);
    let (resp, peers) = rest.split_at(COPIES);
    let copies = (0..COPIES).map(|copy| Copy {
        data: data.join(format!("copy-{}", copy + 1)),
        http: http[copy].clone(),
        peer: peers[copy].clone(),
        resp: resp[copy].clone(),
        join: peers.to_vec(),
    });
    Ok((listener, copies.collect()))
}

/// The copies that run.
struct Cluster {
    copies: Vec<Copy>,
    children: Children,
}

impl Cluster {
    fn start(copies: Vec<Copy>) -> Result<Self> {
        let mut arguments = Vec::new();
        for copy in &copies {
            std::fs::create_dir_all(&copy.data)?;
            let data = copy.data.to_str().ok_or("--data must be UTF-8")?;
            let join = copy.join.join(",");
            arguments.push(
                [data, &copy.http, &copy.peer, &copy.resp, &join]
                    .map(str::to_owned)
                    .to_vec(),
            );
        }
        let children = Children::start(arguments)?;
        Ok(Self { copies, children })
    }

    async fn status(&self, index: usize) -> Option<CopyStatus> {
        let (_, body) = get(&self.copies[index].http, "/status").await?;
        serde_json::from_slice(&body).ok()
    }

    /// Waits until every copy serves; which one leads.
    async fn ready(&mut self) -> Result<usize> {
        let started = Instant::now();
        loop {
            self.children.all_run()?;
            let mut leader = None;
            let mut ready = 0;
            for index in 0..COPIES {
                let Some(status) = self.status(index).await else {
                    continue;
                };
                ready += usize::from(status.ready);
                leader = if status.leader { Some(index) } else { leader };
            }
            match leader {
                Some(leader) if ready == COPIES => return Ok(leader),
                _ if started.elapsed() > PATIENCE => {
                    return Err(format!("only {ready} copies are ready").into());
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }
}

/// What the example is for: the users work, copies die, and at the end everything is counted.
async fn show(options: &Options, cluster: &mut Cluster, proxy: &Proxy, address: &str) -> Result<bool> {
    cluster.ready().await?;
    println!("three copies are ready; the proxy listens on http://{address}");
    let (started, seen) = (Instant::now(), Arc::new(Seen::default()));
    let mut tasks = Vec::new();
    for number in 1..=options.users {
        let mut user = User::new(format!("user{number}"), address);
        user.login().await?;
        let seen = seen.clone();
        tasks.push(tokio::spawn(async move {
            user.work(&seen).await;
            user
        }));
    }
    let slowest = kills(options.kills, cluster, &seen).await?;
    seen.stop.store(true, Ordering::Relaxed);
    let mut users = Vec::new();
    for task in tasks {
        users.push(task.await?);
    }
    let by_redis = read_everywhere(cluster, &mut users, &seen).await?;
    let good = table(proxy, &seen, slowest, started.elapsed(), by_redis, &users);
    if let Some(user) = users.first() {
        what_to_type(cluster, address, &user.key().await?);
    }
    if !options.check {
        println!("\nCtrl-C stops all.");
        std::future::pending::<()>().await;
    }
    Ok(good)
}

/// Kills by turns a follower and the leader, and starts them again. The longest time from a kill to the next acknowledged count.
async fn kills(kills: usize, cluster: &mut Cluster, seen: &Seen) -> Result<Duration> {
    let mut slowest = Duration::ZERO;
    println!("\n kill  who       role      ms to the next acknowledged count");
    for kill in 1..=kills {
        let leader = cluster.ready().await?;
        counted(seen, COUNTS_BETWEEN).await?;
        let victim = if kill % 2 == 0 {
            leader
        } else {
            (leader + 1 + kill / 2 % 2) % COPIES
        };
        cluster.children.kill(victim)?;
        let killed = Instant::now();
        // One that was acknowledged just before the kill may still be on its way to its user: the second one is not.
        counted(seen, 2).await?;
        let pause = killed.elapsed();
        counted(seen, COUNTS_BETWEEN).await?;
        cluster.children.restart(victim)?;
        let role = if victim == leader { "leader" } else { "follower" };
        println!(
            " {kill:>4}  copy {}    {role:<8}  {}",
            victim + 1,
            pause.as_millis()
        );
        slowest = slowest.max(pause);
    }
    cluster.ready().await?;
    Ok(slowest)
}

/// Waits until so many more counts were acknowledged.
async fn counted(seen: &Seen, more: u64) -> Result<()> {
    let (started, wanted) = (Instant::now(), seen.counts.load(Ordering::Relaxed) + more);
    while seen.counts.load(Ordering::Relaxed) < wanted {
        if seen.wrong() > 0 || started.elapsed() > PATIENCE {
            return Err(format!("the users cannot go on: {seen:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Every user's page on every copy, past the proxy, and the same sessions by the Redis endpoint of every copy. How many of the latter agree.
async fn read_everywhere(cluster: &Cluster, users: &mut [User], seen: &Seen) -> Result<usize> {
    let mut by_redis = 0;
    for copy in &cluster.copies {
        for user in &mut *users {
            user.at(&copy.http).look(seen).await;
            by_redis += usize::from(redis_agrees(&copy.resp, user).await?);
        }
    }
    Ok(by_redis)
}

/// Asks as a Redis client does. The page was read on this copy just before, so it has applied the count.
async fn redis_agrees(resp: &str, user: &User) -> Result<bool> {
    let mut stream = tokio::net::TcpStream::connect(resp).await?;
    stream
        .write_all(format!("SESSION.GET {} count\r\n", user.key().await?).as_bytes())
        .await?;
    let count = user.counted.to_string();
    let wanted = format!("*1\r\n${}\r\n{count}\r\n", count.len());
    let mut answer = vec![0; wanted.len()];
    let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await?;
    Ok(read.is_ok() && answer == wanted.as_bytes())
}

fn table(
    proxy: &Proxy,
    seen: &Seen,
    slowest: Duration,
    took: Duration,
    by_redis: usize,
    users: &[User],
) -> bool {
    let all = users.len() * COPIES;
    let rows = [
        (
            "requests through the proxy",
            proxy.requests.load(Ordering::Relaxed),
        ),
        (
            "of them retried on another copy",
            proxy.retried.load(Ordering::Relaxed),
        ),
        ("counts acknowledged", seen.counts.load(Ordering::Relaxed)),
        ("lost logins", seen.lost_logins.load(Ordering::Relaxed)),
        ("lost counts", seen.lost_counts.load(Ordering::Relaxed)),
        (
            "requests counted twice",
            seen.double_counts.load(Ordering::Relaxed),
        ),
        ("stale pages", seen.stale_pages.load(Ordering::Relaxed)),
        (
            "requests without an answer",
            seen.unanswered.load(Ordering::Relaxed),
        ),
        (
            "sessions that redis-cli sees differently",
            (all - by_redis) as u64,
        ),
    ];
    println!();
    for (what, count) in rows {
        println!(" {what:<42} {count:>8}");
    }
    println!(
        " {:<42} {:>8} ms",
        "longest pause after a kill",
        slowest.as_millis()
    );
    println!(" {:<42} {:>8.1} s", "duration", took.as_secs_f64());
    let acknowledged: u64 = users.iter().map(|user| user.counted).sum();
    let good = seen.wrong() == 0 && by_redis == all && acknowledged == seen.counts.load(Ordering::Relaxed);
    println!(
        "\n{}",
        if good {
            "nothing was lost"
        } else {
            "SOMETHING WAS LOST"
        }
    );
    good
}

fn what_to_type(cluster: &Cluster, address: &str, key: &str) {
    println!("\nThe same session from any copy:");
    for copy in &cluster.copies {
        let port = copy.resp.rsplit(':').next().unwrap_or_default();
        println!("  redis-cli -p {port} SESSION.LOAD {key}");
    }
    println!("A login of your own:");
    println!("  curl -c jar -b jar -d user=me http://{address}/login");
    println!("  curl -c jar -b jar -X POST -H 'idempotency-key: 1' http://{address}/count");
    println!("  curl -c jar -b jar http://{address}/");
}
