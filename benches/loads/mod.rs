//! Loads of sessions, timed one by one: Plenary's, for `sessions` and for `peers`, which does the same with other caches.

use bytes::Bytes;
use plenary::config::Config;
use plenary::machine::entry::Command;
use plenary::node::Node;
use plenary::session::SessionId;
use plenary::{Cache, Sessions};
use std::hint::black_box;
use std::time::{Duration, Instant};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What a session holds: 8 items, 1 KB.
pub(crate) const ITEMS: usize = 8;
pub(crate) const ITEM_BYTES: usize = 120;

/// Loads that are timed, one by one.
const LOADS: usize = 200_000;

/// Sessions created by one group of commands.
const CREATED_AT_A_TIME: usize = 500;

/// How many sessions are asked for: `--sessions N`, else a million.
pub(crate) fn asked_for() -> Result<usize> {
    let arguments: Vec<String> = std::env::args().collect();
    let asked = arguments.iter().position(|argument| argument == "--sessions");
    match asked.and_then(|at| arguments.get(at + 1)) {
        Some(number) => Ok(number.parse()?),
        None => Ok(1_000_000),
    }
}

pub(crate) fn head() {
    println!("| what | median | 99 % | |\n|---|---|---|---|");
}

pub(crate) fn row(what: &str, mut times: Vec<Duration>, note: &str) -> Duration {
    times.sort_unstable();
    let (median, late) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("| {what} | {median:.2?} | {late:.2?} | {note} |");
    median
}

/// Names and values of a session's items.
pub(crate) fn items() -> impl Iterator<Item = (String, String)> {
    (0..ITEMS).map(|item| (format!("item {item}"), "v".repeat(ITEM_BYTES)))
}

/// How long each load took.
pub(crate) async fn timed<T>(
    ids: &[SessionId],
    load: impl AsyncFn(&SessionId) -> Result<Option<T>>,
) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(LOADS);
    let mut place = 1usize;
    for _ in 0..LOADS {
        // Far apart, in no order that memory would know.
        place = (place
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407))
            >> 1;
        // A request has its id at hand: it has just read it from a cookie.
        let id = ids[place % ids.len()].clone();
        let began = Instant::now();
        let session = load(&id).await?;
        times.push(began.elapsed());
        black_box(session.ok_or("a session that was just created")?);
    }
    Ok(times)
}

/// Loads of sessions that one node holds.
pub(crate) async fn of_plenary(count: usize) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut config = Config::new(folder.path());
    config.durability = plenary::Durability::Os;
    let node = Node::start(config).await?;
    node.ready(Duration::from_secs(30)).await?;
    let sessions = Sessions::new(Cache::new(node.clone()));
    let mut ids = Vec::with_capacity(count);
    while ids.len() < count {
        let new = CREATED_AT_A_TIME.min(count - ids.len());
        let mut commands = Vec::with_capacity(new);
        for _ in 0..new {
            let id = SessionId::random()?;
            let mut argv = vec![
                Bytes::from("SESSION.CREATE"),
                sessions.key_of(&id),
                "1200000".into(),
            ];
            argv.extend(["ITEMS".into(), ITEMS.to_string().into()]);
            argv.extend(items().flat_map(|(name, value)| [name.into(), value.into()]));
            commands.push(Command { db: 0, argv });
            ids.push(id);
        }
        node.write(commands).await?;
    }
    let times = timed(&ids, async |id| Ok(sessions.load(id).await?)).await?;
    row(
        &format!("load of one of {count} sessions, 8 items, 1 KB"),
        times,
        "in process; goal: under 2 µs",
    );
    node.stop().await?;
    Ok(())
}
