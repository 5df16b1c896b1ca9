//! What others feel when very much goes at once: a million keys whose life ends within a second, a database, a value with a million fields.

use super::load::{Ask, CALLERS, Load, fill, ms, set};
use super::snapshot::capacity;
use super::targets::children::Plenaries;
use super::targets::{Fault, Place, Resp};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Keys that others ask for meanwhile.
const OTHERS: usize = 10_000;

/// How long they do so before, and after.
const AROUND: Duration = Duration::from_secs(4);

/// Of the callers, those that write; the others get.
const WRITERS: usize = CALLERS / 2;

/// Of the writes that the nodes can do, the part that is asked for, and as many gets.
const RATE: f64 = 0.25;

/// Others at work: writers and those who get. They ask so often that the machine has room left, so that what is felt is not their own crowd.
struct Others {
    loads: [Load; 2],
    from: Instant,
}

impl Others {
    async fn start(nodes: &Plenaries) -> Result<Self, Fault> {
        let mut loads = Vec::new();
        let per_second = RATE * capacity(nodes, OTHERS).await?;
        for (ask, callers) in [(Ask::Writes, WRITERS), (Ask::Gets, CALLERS - WRITERS)] {
            let load = Load::start(nodes, Place::Leader, (ask, callers), OTHERS, Some(per_second));
            loads.push(load.await?);
        }
        let [writes, gets] = <[Load; 2]>::try_from(loads).map_err(|_| "two loads")?;
        tokio::time::sleep(AROUND / 4).await;
        let from = Instant::now();
        tokio::time::sleep(AROUND).await;
        Ok(Self {
            loads: [writes, gets],
            from,
        })
    }

    /// Prints what they felt between two moments, and before.
    async fn stop(self, what: &str, begun: Instant, ended: Instant) -> Result<(), Fault> {
        let mut cells = Vec::new();
        for load in self.loads {
            let answers = load.stop().await?;
            let (before, during) = (answers.between(self.from, begun), answers.between(begun, ended));
            cells.push(format!(
                "{} | {} | {:.2} | {}",
                ms(before.p99),
                ms(during.p99),
                during.p99.as_secs_f64() / before.p99.as_secs_f64(),
                ms(during.longest)
            ));
        }
        println!(
            "| {what} | {:.2} | {} |",
            (ended - begun).as_secs_f64(),
            cells.join(" | ")
        );
        Ok(())
    }
}

pub(crate) async fn measure(folder: &Path, keys: usize) -> Result<(), Fault> {
    let nodes = Plenaries::start_with(folder, 3, &[]).await?;
    let port = nodes.ports[nodes.leader().await?];
    println!(
        "\n| what goes, while {CALLERS} ask for others | s | writes, p99 ms before | during | of before | longest | gets, p99 ms before | during | of before | longest |\n|---|---|---|---|---|---|---|---|---|---|"
    );
    expiry(&nodes, port, keys).await?;
    flush(&nodes, port, keys).await?;
    for removes in ["DEL", "UNLINK"] {
        large_value(&nodes, port, keys, removes).await?;
    }
    Ok(())
}

/// Keys of these names, all with lives that end within one second.
async fn expiry(nodes: &Plenaries, port: u16, keys: usize) -> Result<(), Fault> {
    fill(port, OTHERS, set).await?;
    let doomed = |number: usize| format!("doomed:{number:09}").into_bytes();
    let begun = Instant::now();
    fill(port, keys, move |number| {
        vec![b"SET".to_vec(), doomed(number), vec![b'v'; 128]]
    })
    .await?;
    // As long again and half of it, before the first of them ends.
    let until_first = begun.elapsed().mul_f64(1.5) + 4 * AROUND;
    let (filled, first) = (
        Instant::now(),
        SystemTime::now().duration_since(UNIX_EPOCH)? + until_first,
    );
    fill(port, keys, move |number| {
        let end = first.as_millis() + (number.wrapping_mul(7_919) % 1_000) as u128;
        vec![
            b"PEXPIREAT".to_vec(),
            doomed(number),
            end.to_string().into_bytes(),
        ]
    })
    .await?;
    let rest = (filled + until_first).saturating_duration_since(Instant::now() + 3 * AROUND);
    tokio::time::sleep(rest).await;
    let others = Others::start(nodes).await?;
    let begun = filled + until_first;
    tokio::time::sleep_until(begun.into()).await;
    for which in 0..nodes.ports.len() {
        nodes.until(which, |status| status["keys"] == OTHERS).await?;
    }
    let what = format!("{keys} keys whose life ends within a second, until none is in memory");
    others.stop(&what, begun, Instant::now()).await
}

async fn flush(nodes: &Plenaries, port: u16, keys: usize) -> Result<(), Fault> {
    // As sessions and what is cached are: each with a life.
    let lives = |number| {
        set(number)
            .into_iter()
            .chain([b"EX".to_vec(), b"86400".to_vec()])
            .collect()
    };
    fill(port, keys, lives).await?;
    let others = Others::start(nodes).await?;
    let mut caller = Resp::connect(port).await?;
    let begun = Instant::now();
    caller.ask(&[b"FLUSHALL"]).await?;
    let answered = begun.elapsed();
    // What it leaves to be freed shows in the second after it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let what = format!("{keys} keys by FLUSHALL, answered after {} ms", ms(answered));
    others.stop(&what, begun, Instant::now()).await
}

/// A hash with so many fields.
async fn large_value(nodes: &Plenaries, port: u16, fields: usize, removes: &str) -> Result<(), Fault> {
    fill(port, OTHERS, set).await?;
    fill(port, fields, |number| {
        let words = [&b"HSET"[..], b"large"].map(<[u8]>::to_vec);
        let field = format!("field {number}").into_bytes();
        words.into_iter().chain([field, vec![b'v'; 16]]).collect()
    })
    .await?;
    let others = Others::start(nodes).await?;
    let mut caller = Resp::connect(port).await?;
    let begun = Instant::now();
    caller.ask(&[removes.as_bytes(), b"large"]).await?;
    let answered = begun.elapsed();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let what = format!(
        "a hash of {fields} fields by {removes}, answered after {} ms",
        ms(answered)
    );
    others.stop(&what, begun, Instant::now()).await
}
