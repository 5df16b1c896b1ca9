//! What an ASP.NET application asks of its session store for each page: a script that takes the session's lock and reads the session, then one
//! that stores it and lets the lock go. Beside plain `SET`, by as many connections.

use super::{Fault, Options, VALUE};
use crate::targets::Resp;
use std::time::{Duration, Instant};

/// Connections.
const CLIENTS: usize = 64;

const TAKE: &str = "\
    local taken = redis.call('SETNX', KEYS[1], ARGV[1])
    local holder = ARGV[1]
    local locked = taken == 0
    if locked then holder = redis.call('GET', KEYS[1]) else redis.call('EXPIRE', KEYS[1], ARGV[2]) end
    local data = ''
    if holder == ARGV[1] then data = redis.call('GET', KEYS[2]) end
    local timeout = redis.call('GET', KEYS[3])
    if timeout == false then timeout = '-1' end
    redis.call('EXPIRE', KEYS[2], timeout)
    redis.call('EXPIRE', KEYS[3], timeout)
    return {holder, data, timeout, locked}";

const STORE: &str = "\
    if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 1 end
    redis.call('SET', KEYS[2], ARGV[3])
    redis.call('EXPIRE', KEYS[2], ARGV[2])
    redis.call('SET', KEYS[3], ARGV[2])
    redis.call('EXPIRE', KEYS[3], ARGV[2])
    redis.call('DEL', KEYS[1])
    return false";

/// What the clients do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Load {
    Set,
    OwnSessions,
    OneSession,
}

impl Load {
    fn name(self) -> &'static str {
        match self {
            Self::Set => "SET",
            Self::OwnSessions => "lock scripts, a session each",
            Self::OneSession => "lock scripts, all on one session",
        }
    }
}

/// What one round of one load came to.
struct Measured {
    per_second: f64,
    mean: Duration,
    /// The longest that one client waited for an answer on average, and at all.
    slowest_client: Duration,
    longest: Duration,
}

/// Measures all loads, interleaved, and prints the median of each.
pub(crate) async fn measure(name: &str, ports: &[u16], options: &Options) -> Result<(), Fault> {
    const LOADS: [Load; 3] = [Load::Set, Load::OwnSessions, Load::OneSession];
    let mut callers = Vec::new();
    for port in ports.iter().cycle().take(CLIENTS) {
        callers.push(Resp::connect(*port).await?);
    }
    let mut rounds = [const { Vec::new() }; LOADS.len()];
    for _ in 0..options.rounds {
        for (load, rounds) in LOADS.iter().zip(&mut rounds) {
            let (measured, back) = round(callers, *load, options.span).await?;
            rounds.push(measured);
            callers = back;
        }
    }
    println!(
        "\n{:<66} {:>9} {:>7} {:>9} {:>9} {:>9}",
        format!("{name}, {CLIENTS} connections"),
        "per s",
        "of SET",
        "mean µs",
        "client µs",
        "max µs"
    );
    let mut of_set = 0.0;
    for (load, mut rounds) in LOADS.iter().zip(rounds) {
        rounds.sort_by(|a: &Measured, b| a.per_second.total_cmp(&b.per_second));
        let median = &rounds[rounds.len() / 2];
        if *load == Load::Set {
            of_set = median.per_second;
        }
        println!(
            "{:<66} {:>9.0} {:>7.2} {:>9} {:>9} {:>9}",
            load.name(),
            median.per_second,
            median.per_second / of_set,
            median.mean.as_micros(),
            median.slowest_client.as_micros(),
            median.longest.as_micros()
        );
    }
    Ok(())
}

async fn round(callers: Vec<Resp>, load: Load, span: Duration) -> Result<(Measured, Vec<Resp>), Fault> {
    let until = Instant::now() + span;
    let mut tasks = tokio::task::JoinSet::new();
    for (number, caller) in callers.into_iter().enumerate() {
        tasks.spawn(client(caller, number, load, until));
    }
    let (mut waits, mut callers) = (Vec::new(), Vec::new());
    while let Some(done) = tasks.join_next().await {
        let (caller, of_one) = done??;
        callers.push(caller);
        waits.push(of_one);
    }
    let mean = |waits: &[Duration]| {
        waits.iter().sum::<Duration>() / u32::try_from(waits.len().max(1)).unwrap_or(u32::MAX)
    };
    let all = waits.concat();
    let measured = Measured {
        per_second: all.len() as f64 / span.as_secs_f64(),
        mean: mean(&all),
        slowest_client: waits.iter().map(|waits| mean(waits)).max().unwrap_or_default(),
        longest: all.iter().max().copied().unwrap_or_default(),
    };
    Ok((measured, callers))
}

/// Asks until the time is over; how long each answer took.
async fn client(
    mut caller: Resp,
    number: usize,
    load: Load,
    until: Instant,
) -> Result<(Resp, Vec<Duration>), Fault> {
    let session = if load == Load::OneSession { CLIENTS } else { number };
    let keys = ["WriteLock", "SessionStateItemCollection", "SessionTimeout"]
        .map(|part| format!("{{bench_{session:04}}}_{part}"));
    let [lock, data, timeout] = keys.each_ref().map(|key| key.as_bytes());
    let value = [b'v'; VALUE];
    let me = format!("63{number:016}");
    let (take, store) = (
        load_script(&mut caller, TAKE).await?,
        load_script(&mut caller, STORE).await?,
    );
    let mut waits = Vec::new();
    while Instant::now() < until {
        if load == Load::Set {
            ask(&mut caller, &[b"SET", data, &value], &mut waits).await?;
            continue;
        }
        let argv: [&[u8]; 8] = [b"EVALSHA", &take, b"3", lock, data, timeout, me.as_bytes(), b"60"];
        let taken = ask(&mut caller, &argv, &mut waits).await?;
        // The holder comes first.
        if !taken.starts_with(format!("*4\r\n${}\r\n{me}\r\n", me.len()).as_bytes()) {
            continue;
        }
        let argv: [&[u8]; 9] = [
            b"EVALSHA",
            &store,
            b"3",
            lock,
            data,
            timeout,
            me.as_bytes(),
            b"1200",
            &value,
        ];
        let stored = ask(&mut caller, &argv, &mut waits).await?;
        if stored != b"$-1\r\n" {
            return Err(format!("the lock was lost: {}", String::from_utf8_lossy(&stored)).into());
        }
    }
    Ok((caller, waits))
}

async fn load_script(caller: &mut Resp, text: &str) -> Result<Vec<u8>, Fault> {
    let reply = caller.ask(&[b"SCRIPT", b"LOAD", text.as_bytes()]).await?;
    let sha = reply.get(5..45);
    Ok(sha.ok_or("SCRIPT LOAD was refused")?.to_vec())
}

async fn ask(caller: &mut Resp, argv: &[&[u8]], waits: &mut Vec<Duration>) -> Result<Vec<u8>, Fault> {
    let begun = Instant::now();
    let reply = caller.ask(argv).await?.to_vec();
    waits.push(begun.elapsed());
    if reply.starts_with(b"-") {
        return Err(String::from_utf8_lossy(&reply).into());
    }
    Ok(reply)
}
