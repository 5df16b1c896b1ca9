//! A load that goes on while something else happens, and what it felt like from one moment to another.

use super::targets::children::Plenaries;
use super::targets::closed_loop::filled;
use super::targets::{Fault, Place, Resp};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Callers of a load: each waits for its answer before it asks again.
pub(crate) const CALLERS: usize = 64;

/// Bytes of a value.
pub(crate) const VALUE: usize = 128;

/// Commands that are sent before their answers are read, and connections that do so at once, to fill a node.
pub(crate) const PIPELINE: usize = 500;
const FILLERS: usize = 4;

/// What callers ask for, of keys that [`fill`] wrote.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    Writes,
    Gets,
}

/// Callers under way.
pub(crate) struct Load {
    tasks: JoinSet<Result<Vec<Answer>, Fault>>,
    over: Arc<AtomicBool>,
}

/// When it was asked for, or was to be, and how long the answer took from then.
type Answer = (Instant, Duration);

impl Load {
    /// So many callers, of these many keys. With a rate, so many answers a second all together are asked for, whatever the answers take; without,
    /// as many as there can be.
    pub(crate) async fn start(
        nodes: &Plenaries,
        place: Place,
        (ask, callers): (Ask, usize),
        keys: usize,
        per_second: Option<f64>,
    ) -> Result<Self, Fault> {
        let (leader, over) = (nodes.leader().await?, Arc::new(AtomicBool::new(false)));
        let mut tasks = JoinSet::new();
        for number in 0..callers {
            let port = nodes.ports[place.node(number, leader, nodes.ports.len())];
            let (caller, over) = (Resp::connect(port).await?, over.clone());
            let pause = per_second.map(|rate| Duration::from_secs_f64(callers as f64 / rate));
            tasks.spawn(ask_until(caller, ask, number, keys, pause, over));
        }
        Ok(Self { tasks, over })
    }

    /// Ends it.
    pub(crate) async fn stop(mut self) -> Result<Answers, Fault> {
        self.over.store(true, Ordering::Relaxed);
        let mut answers = Vec::new();
        while let Some(one) = self.tasks.join_next().await {
            answers.extend(one??);
        }
        Ok(Answers(answers))
    }
}

async fn ask_until(
    mut caller: Resp,
    ask: Ask,
    number: usize,
    keys: usize,
    pause: Option<Duration>,
    over: Arc<AtomicBool>,
) -> Result<Vec<Answer>, Fault> {
    let (mut answers, mut count, value) = (Vec::new(), 0_usize, vec![b'v'; VALUE]);
    // Callers that are paced begin one after the other.
    let mut due = Instant::now() + pause.unwrap_or_default().mul_f64(number as f64 / CALLERS as f64);
    while !over.load(Ordering::Relaxed) {
        match pause {
            Some(pause) => {
                tokio::time::sleep_until(due.into()).await;
                due += pause;
            }
            None => due = Instant::now(),
        }
        let asked = due - pause.unwrap_or_default();
        count += 1;
        // A stride that has no divisor in common with the number of keys visits all, in no order.
        let key = filled((count * 7_919 + number * 104_729) % keys);
        let reply = match ask {
            Ask::Writes => caller.ask(&[b"SET", key.as_bytes(), &value]).await?,
            Ask::Gets => caller.ask(&[b"GET", key.as_bytes()]).await?,
        };
        if reply.starts_with(b"-") {
            return Err(String::from_utf8_lossy(reply).into());
        }
        answers.push((asked, asked.elapsed()));
    }
    Ok(answers)
}

/// All answers of a load.
pub(crate) struct Answers(Vec<Answer>);

/// Those that were asked for from one moment to another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) per_second: f64,
    pub(crate) p99: Duration,
    pub(crate) longest: Duration,
}

impl Answers {
    pub(crate) fn between(&self, from: Instant, until: Instant) -> Window {
        let within = self.0.iter().filter(|(asked, _)| (from..until).contains(asked));
        let mut times: Vec<Duration> = within.map(|(_, took)| *took).collect();
        times.sort_unstable();
        let late = times.get(times.len() * 99 / 100);
        Window {
            per_second: times.len() as f64 / (until - from).as_secs_f64(),
            p99: late.copied().unwrap_or_default(),
            longest: times.last().copied().unwrap_or_default(),
        }
    }
}

/// Milliseconds, as they stand in tables.
pub(crate) fn ms(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1e3)
}

/// Stores the value of each of so many keys through one node, as this command does.
pub(crate) async fn fill(
    port: u16,
    keys: usize,
    command: impl Fn(usize) -> Vec<Vec<u8>> + Clone + Send + 'static,
) -> Result<(), Fault> {
    fill_with(port, keys, move |number| vec![command(number)]).await
}

/// The same by some commands for each.
pub(crate) async fn fill_with(
    port: u16,
    keys: usize,
    commands: impl Fn(usize) -> Vec<Vec<Vec<u8>>> + Clone + Send + 'static,
) -> Result<(), Fault> {
    let mut tasks = JoinSet::new();
    for filler in 0..FILLERS {
        let (mut caller, commands) = (Resp::connect(port).await?, commands.clone());
        tasks.spawn(async move {
            let mut first = filler * PIPELINE;
            while first < keys {
                let these = first..keys.min(first + PIPELINE);
                let commands: Vec<_> = these.flat_map(&commands).collect();
                caller.ask_all(&commands).await?;
                first += FILLERS * PIPELINE;
            }
            Ok::<(), Fault>(())
        });
    }
    while let Some(one) = tasks.join_next().await {
        one??;
    }
    Ok(())
}

/// `SET` of one of the keys that callers ask for.
pub(crate) fn set(number: usize) -> Vec<Vec<u8>> {
    vec![b"SET".to_vec(), filled(number).into_bytes(), vec![b'v'; VALUE]]
}
