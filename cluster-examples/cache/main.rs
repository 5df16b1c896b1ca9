//! What a cache is asked for beyond get and set, on three nodes: one load for all, stale values, tags, compare and set, a lock, a topic.
//!
//! `cargo run --release --example cache [-- --check]`
//!
//! The three nodes run in this one process, so that there is nothing to start; each would be in an instance of the application. With `--check` it says
//! nothing and ends with an error where something is not as it says.

use plenary::cache::{Expected, Heard};
use plenary::{Cache, Config, EntryOptions, Node, Reply};
use std::convert::Infallible;
use std::error::Error;
use std::fmt::Debug;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long the three may take until all serve.
const READY_TIME_MAX: Duration = Duration::from_secs(60);

const MINUTE: Duration = Duration::from_secs(60);

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let quiet = std::env::args().any(|argument| argument == "--check");
    let say = |what: &str| {
        if !quiet {
            println!("{what}");
        }
    };
    let folder = tempfile::tempdir()?;
    let nodes = three_nodes(folder.path()).await?;
    // One handle for each node; clones of it are for whoever needs one.
    let caches: Vec<Cache> = nodes.iter().cloned().map(Cache::new).collect();
    say("three nodes serve");
    one_load(&caches, &say).await?;
    stale(&caches, &say).await?;
    tags(&caches, &say).await?;
    swap(&caches, &say).await?;
    lock(&caches, &say).await?;
    topic(&caches, &say).await?;
    for node in &nodes {
        node.stop().await?;
    }
    Ok(())
}

/// A database that takes its time, and counts how often it is asked.
#[derive(Clone, Default)]
struct Database {
    queries: Arc<AtomicUsize>,
}

impl Database {
    async fn product(self, id: u32) -> Result<String, Infallible> {
        let query = self.queries.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(format!("product {id}, by query {query}"))
    }

    fn queries(&self) -> usize {
        self.queries.load(Ordering::SeqCst)
    }
}

async fn one_load(caches: &[Cache], say: &impl Fn(&str)) -> Outcome<()> {
    let database = Database::default();
    let options = EntryOptions::new(10 * MINUTE);
    let callers = (0..300).map(|caller| {
        let (cache, database, options) = (caches[caller % 3].clone(), database.clone(), options.clone());
        tokio::spawn(async move {
            let load = move || database.product(7);
            cache.get_or_load("product:7", &options, load).await
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        expect("what is loaded", &caller.await??, &"product 7, by query 1")?;
    }
    expect("queries", &database.queries(), &1)?;
    say("300 callers on three nodes wanted what was not there: one query");
    Ok(())
}

async fn stale(caches: &[Cache], say: &impl Fn(&str)) -> Outcome<()> {
    let database = Database::default();
    let options = EntryOptions::new(10 * MINUTE).fresh_for(Duration::from_millis(200));
    let get = async |cache: &Cache| {
        let database = database.clone();
        cache
            .get_or_load("product:8", &options, || database.product(8))
            .await
    };
    get(&caches[0]).await?;
    tokio::time::sleep(Duration::from_millis(250)).await;
    let began = Instant::now();
    expect(
        "the stale value",
        &get(&caches[0]).await?,
        &"product 8, by query 1",
    )?;
    let took = began.elapsed();
    if took > Duration::from_millis(90) {
        return Err(format!("a stale value was waited for: {took:?}").into());
    }
    eventually("the new value", async || {
        Ok(caches[2]
            .get("product:8")
            .await?
            .is_some_and(|value| value == "product 8, by query 2"))
    })
    .await?;
    say("a stale value was given at once, and refreshed in the background for all nodes");
    Ok(())
}

async fn tags(caches: &[Cache], say: &impl Fn(&str)) -> Outcome<()> {
    let options = EntryOptions::new(10 * MINUTE).tag("catalogue");
    for page in 0..100 {
        caches[0]
            .set_with(format!("page:{page}"), "<h1>Tea</h1>", &options)
            .await?;
    }
    caches[0].invalidate_tag("catalogue").await?;
    // Whoever was told of it, by a header say, carries the token along.
    let there = caches[1].at_least(caches[0].token());
    expect("a page after that", &there.get("page:42").await?, &None)?;
    say("one command ended a hundred pages on every node");
    Ok(())
}

async fn swap(caches: &[Cache], say: &impl Fn(&str)) -> Outcome<()> {
    caches[0].set("stock", "10").await?;
    let buyers = (0..5).map(|buyer| {
        let cache = caches[buyer % 3].clone();
        tokio::spawn(async move {
            let take_one = |stock: Option<&[u8]>| {
                let stock = stock.and_then(|stock| std::str::from_utf8(stock).ok()?.parse().ok());
                (stock.unwrap_or(0) - 1).to_string().into_bytes()
            };
            cache.update("stock", None, take_one).await
        })
    });
    for buyer in buyers.collect::<Vec<_>>() {
        buyer.await??;
    }
    let closed = caches[1]
        .compare_and_set("stock", Expected::Value(b"5"), "sold out", None)
        .await?;
    expect("all five were counted", &closed, &true)?;
    say("five buyers on three nodes took one each, and none was lost");
    Ok(())
}

async fn lock(caches: &[Cache], say: &impl Fn(&str)) -> Outcome<()> {
    let slow = caches[0]
        .lock("invoices", Duration::from_millis(200), MINUTE)
        .await?;
    // It does not give the lock back: whoever waits has it when the time is over.
    let next = caches[1].lock("invoices", MINUTE, MINUTE).await?;
    let number = next.execute(["INCR", "invoice"]).await?;
    expect("the next writes", &number, &Some(Reply::Integer(1)))?;
    expect(
        "the slow one does not",
        &slow.execute(["INCR", "invoice"]).await?,
        &None,
    )?;
    expect("tokens grow", &(next.token() > slow.token()), &true)?;
    next.release().await?;
    say("a holder that was too slow could write nothing once the next had the lock");
    Ok(())
}

async fn topic(caches: &[Cache], say: &impl Fn(&str)) -> Outcome<()> {
    let mut heard: Vec<_> = caches
        .iter()
        .map(|cache| cache.topic("prices").subscribe())
        .collect();
    caches[0].topic("prices").publish("tea 12.50").await?;
    for subscription in &mut heard {
        let message = tokio::time::timeout(READY_TIME_MAX, subscription.next()).await?;
        expect("the message", &message, &Some(Heard::Message("tea 12.50".into())))?;
    }
    say("a message was heard on all three");
    Ok(())
}

async fn three_nodes(data: &Path) -> Outcome<Vec<Node>> {
    let ports = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0"));
    let mut addresses = Vec::new();
    for port in ports {
        addresses.push(port?.local_addr()?.to_string());
    }
    let mut nodes = Vec::new();
    for (number, address) in addresses.iter().enumerate() {
        let mut config = Config::new(data.join(number.to_string()));
        config.listen.clone_from(address);
        config.join.clone_from(&addresses);
        nodes.push(Node::start(config).await?);
    }
    for node in &nodes {
        node.ready(READY_TIME_MAX).await?;
    }
    Ok(nodes)
}

fn expect<T: Debug + PartialEq<U>, U: Debug>(what: &str, is: &T, should: &U) -> Outcome<()> {
    if is == should {
        Ok(())
    } else {
        Err(format!("{what}: {is:?} instead of {should:?}").into())
    }
}

async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> plenary::Result<bool>) -> Outcome<()> {
    let began = Instant::now();
    while !condition().await? {
        if began.elapsed() > READY_TIME_MAX {
            return Err(format!("{what}: not within {READY_TIME_MAX:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
