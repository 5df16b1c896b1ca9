//! The same loads from three caches in this process: Plenary; moka, which only has to find the value, so nothing that is looked up can be
//! much faster; and hiqlite's cache, which is replicated by Raft as well. Prints a table.
//!
//! Each is used as its documentation says. moka shares the value, hiqlite gives it serialized and reads it anew for each load. None of the
//! three waits for the network: one node has all sessions.

#[path = "../../loads/mod.rs"]
mod loads;

use hiqlite::macros::CacheVariants;
use hiqlite::{Node, NodeConfig, start_node_with_cache};
use loads::{Result, row};
use plenary::session::SessionId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

/// Tasks that fill hiqlite, each with one `put` at a time.
const FILLERS: usize = 64;

/// How long hiqlite may take to have a leader.
const READY_WITHIN: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<()> {
    let sessions = loads::asked_for()?;
    loads::head();
    loads::of_plenary(sessions).await?;
    let ids: Vec<SessionId> = (0..sessions)
        .map(|_| SessionId::random())
        .collect::<std::result::Result<_, _>>()?;
    of_moka(&ids).await?;
    of_hiqlite(ids).await
}

/// What a request gets of each cache.
#[derive(Serialize, Deserialize)]
struct Session {
    items: BTreeMap<String, String>,
}

impl Session {
    fn new() -> Self {
        let items = loads::items().collect();
        Self { items }
    }
}

async fn of_moka(ids: &[SessionId]) -> Result<()> {
    let cache = moka::sync::Cache::new(u64::try_from(ids.len())?);
    for id in ids {
        cache.insert(id.as_str().to_owned(), Arc::new(Session::new()));
    }
    cache.run_pending_tasks();
    let times = loads::timed(ids, async |id| Ok(cache.get(id.as_str()))).await?;
    row(
        "the same from moka",
        times,
        "a map in this process, and nothing more",
    );
    Ok(())
}

#[derive(Debug, CacheVariants)]
enum Caches {
    Sessions,
}

async fn of_hiqlite(ids: Vec<SessionId>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = NodeConfig {
        node_id: 1,
        nodes: vec![Node {
            id: 1,
            addr_raft: free_address()?,
            addr_api: free_address()?,
        }],
        listen_addr_api: "127.0.0.1".into(),
        listen_addr_raft: "127.0.0.1".into(),
        data_dir: folder.path().display().to_string().into(),
        cache_storage_disk: false,
        secret_raft: "a secret between no others".to_owned(),
        secret_api: "a secret between no others".to_owned(),
        ..NodeConfig::default()
    };
    let client = start_node_with_cache::<Caches>(config).await?;
    tokio::time::timeout(READY_WITHIN, client.wait_until_healthy_cache()).await?;
    let ids = Arc::new(ids);
    let fillers: Vec<_> = (0..FILLERS)
        .map(|filler| {
            let (client, ids) = (client.clone(), ids.clone());
            tokio::spawn(async move {
                for id in ids.iter().skip(filler).step_by(FILLERS) {
                    client
                        .put(Caches::Sessions, id.as_str().to_owned(), &Session::new(), None)
                        .await?;
                }
                Ok::<(), hiqlite::Error>(())
            })
        })
        .collect();
    for filler in fillers {
        filler.await??;
    }
    let load = async |id: &SessionId| Ok(client.get::<_, _, Session>(Caches::Sessions, id.as_str()).await?);
    let times = loads::timed(&ids, load).await?;
    row("the same from hiqlite's cache", times, "one node, in memory");
    client.shutdown().await?;
    Ok(())
}

fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
