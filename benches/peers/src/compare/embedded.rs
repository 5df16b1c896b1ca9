//! Others that are linked into a program, as Plenary is: three nodes of each in this process, which speak over loopback.

use super::targets::{Caller, Fault, PATIENCE, Place, Target, free_port};
use futures::future::{BoxFuture, try_join_all};
use hiqlite::macros::CacheVariants;
use hiqlite::{Client, Node, NodeConfig, start_node_with_cache};
use std::path::Path;
use std::time::Duration;

/// Where hiqlite's cache has its log.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Storage {
    /// Flushed before it is acknowledged.
    Fsync,
    /// Flushed every 200 ms: what it does by itself.
    Disk,
    Memory,
}

#[derive(Debug, CacheVariants)]
enum Caches {
    Values,
}

/// Three nodes of hiqlite's cache.
pub(crate) struct Hiqlite(Vec<Client>);

impl Hiqlite {
    pub(crate) async fn start(folder: &Path, storage: Storage) -> Result<Self, Fault> {
        let address = || format!("127.0.0.1:{}", free_port());
        let members: Vec<Node> = (1..=3)
            .map(|id| Node {
                id,
                addr_raft: address(),
                addr_api: address(),
            })
            .collect();
        let nodes = members.iter().map(|member| {
            let data = folder.join(format!("n{}", member.id));
            let config = NodeConfig {
                node_id: member.id,
                nodes: members.clone(),
                listen_addr_api: "127.0.0.1".into(),
                listen_addr_raft: "127.0.0.1".into(),
                data_dir: data.display().to_string().into(),
                cache_storage_disk: !matches!(storage, Storage::Memory),
                secret_raft: "a secret between no others".to_owned(),
                secret_api: "a secret between no others".to_owned(),
                health_check_delay: Duration::from_secs(1),
                ..NodeConfig::default()
            };
            async move {
                std::fs::create_dir_all(&data)?;
                let config = match storage {
                    Storage::Fsync => NodeConfig {
                        wal_sync: "immediate".try_into()?,
                        ..config
                    },
                    Storage::Disk | Storage::Memory => config,
                };
                Ok::<Client, Fault>(start_node_with_cache::<Caches>(config).await?)
            }
        });
        let nodes = tokio::time::timeout(PATIENCE, try_join_all(nodes)).await??;
        for node in &nodes {
            node.wait_until_healthy_cache_timeout(PATIENCE).await?;
        }
        Ok(Self(nodes))
    }
}

struct HiqliteCaller(Client);

impl Caller for HiqliteCaller {
    fn write<'a>(&'a mut self, key: &'a [u8], value: &'a [u8]) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            let key = std::str::from_utf8(key)?.to_owned();
            Ok(self
                .0
                .put_bytes(Caches::Values, key, value.to_vec(), None)
                .await?)
        })
    }

    fn read<'a>(&'a mut self, _: &'a [u8]) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async { Err("hiqlite's cache reads what its node has".into()) })
    }
}

impl Target for Hiqlite {
    fn callers(&self, place: Place, count: usize) -> BoxFuture<'_, Result<Vec<Box<dyn Caller>>, Fault>> {
        Box::pin(async move {
            let mut leader = None;
            for (which, node) in self.0.iter().enumerate() {
                if node.is_leader_cache().await {
                    leader = Some(which);
                }
            }
            let leader = leader.ok_or("no leader")?;
            let node = |caller| self.0[place.node(caller, leader, self.0.len())].clone();
            Ok((0..count)
                .map(|caller| Box::new(HiqliteCaller(node(caller))) as Box<dyn Caller>)
                .collect())
        })
    }

    fn processes(&self) -> Vec<u32> {
        Vec::new()
    }

    /// It would take ten seconds to leave politely; this process ends next, and its folder goes.
    fn stop(self: Box<Self>) -> BoxFuture<'static, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}

#[cfg(feature = "d-engine")]
pub(crate) mod d_engine {
    //! d-engine with its storage in files, and the settings of its documentation for three nodes;
    //! save that its client waits 10 s for an answer, as in its own tests, instead of 50 ms.

    use super::{BoxFuture, Caller, Fault, PATIENCE, Path, Place, Target, free_port, try_join_all};
    use d_engine::{EmbeddedClient, EmbeddedEngine, FileStateMachine, FileStorageEngine};
    use std::sync::Arc;

    pub(crate) struct DEngine(Vec<EmbeddedEngine>);

    impl DEngine {
        pub(crate) async fn start(folder: &Path) -> Result<Self, Fault> {
            let ports = [(); 3].map(|()| free_port());
            let members = ports.iter().zip(1..).map(|(port, id)| {
                format!("{{ id = {id}, name = 'n{id}', address = '127.0.0.1:{port}', role = 1, status = 3 }}")
            });
            let members = members.collect::<Vec<_>>().join(", ");
            let nodes = ports.iter().zip(1..).map(|(port, id)| {
                let data = folder.join(format!("n{id}"));
                let settings = format!(
                    "[cluster]\nnode_id = {id}\nlisten_address = '127.0.0.1:{port}'\ninitial_cluster = [{members}]\n\
                     db_root_dir = '{data}'\nlog_dir = '{data}'\n\
                     [raft]\ngeneral_raft_timeout_duration_in_ms = 10000\n\
                     [raft.persistence]\nstrategy = 'MemFirst'\nflush_policy = {{ Batch = {{ idle_flush_interval_ms = 1000 }} }}\n",
                    data = data.display()
                );
                async move {
                    std::fs::create_dir_all(&data)?;
                    let file = data.join("settings.toml");
                    std::fs::write(&file, settings)?;
                    let log = Arc::new(FileStorageEngine::new(data.join("log"))?);
                    let state = Arc::new(FileStateMachine::new(data.join("state")).await?);
                    Ok::<_, Fault>(EmbeddedEngine::start_custom(log, state, file.to_str()).await?)
                }
            });
            let nodes = try_join_all(nodes).await?;
            for node in &nodes {
                node.wait_ready(PATIENCE).await?;
            }
            Ok(Self(nodes))
        }
    }

    struct EngineCaller(Arc<EmbeddedClient>);

    impl Caller for EngineCaller {
        fn write<'a>(&'a mut self, key: &'a [u8], value: &'a [u8]) -> BoxFuture<'a, Result<(), Fault>> {
            Box::pin(async move { Ok(self.0.put(key, value).await?) })
        }

        fn read<'a>(&'a mut self, key: &'a [u8]) -> BoxFuture<'a, Result<(), Fault>> {
            Box::pin(async move {
                self.0.get_linearizable(key).await?.ok_or("a key is missing")?;
                Ok(())
            })
        }
    }

    impl Target for DEngine {
        fn callers(&self, place: Place, count: usize) -> BoxFuture<'_, Result<Vec<Box<dyn Caller>>, Fault>> {
            Box::pin(async move {
                let leader = self
                    .0
                    .iter()
                    .position(EmbeddedEngine::is_leader)
                    .ok_or("no leader")?;
                let node = |caller| self.0[place.node(caller, leader, self.0.len())].client();
                Ok((0..count)
                    .map(|caller| Box::new(EngineCaller(node(caller))) as Box<dyn Caller>)
                    .collect())
            })
        }

        fn processes(&self) -> Vec<u32> {
            Vec::new()
        }

        fn stop(self: Box<Self>) -> BoxFuture<'static, Result<(), Fault>> {
            Box::pin(async move {
                for node in &self.0 {
                    node.stop().await?;
                }
                Ok(())
            })
        }
    }
}
