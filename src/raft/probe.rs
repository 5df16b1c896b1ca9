//! The log alone, its records, messages, and snapshot files, for `benches/` and `fuzz/`: nothing else of a node runs. No part of the public face.

use super::fault::Fault;
use super::log::record::{self, Damage, decode_entries, encode_entries};
use super::log::{LogStopper, LogStore};
use super::meta::{Meta, boot_id};
use super::snapshot_store::{SnapshotFile, SnapshotMeta, SnapshotStore};
use super::{Entry, Group, LogId, Types, remote, wire};
use crate::config::{Durability, LogKind};
use crate::error::Error;
use crate::machine::{Machine, snapshot};
use bytes::Bytes;
use openraft::EntryPayload;
use openraft::impls::leader_id_adv::LeaderId;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use std::future::Future;
use std::io::{self, Write};
use std::path::Path;

/// A log in a folder of its own.
#[derive(Debug)]
pub struct LogProbe {
    log: LogStore,
    stopper: LogStopper,
    next: u64,
    _meta: Meta,
}

impl LogProbe {
    /// Opens a fresh folder.
    ///
    /// # Errors
    /// As for a node.
    pub fn open(folder: &Path, kind: LogKind, durability: Durability) -> Result<Self, Error> {
        let (meta, _) = Meta::open(folder, durability, boot_id().as_deref())?;
        let (log, stopper) = LogStore::open(meta.journal(kind)?, durability, Fault::default())?;
        Ok(Self {
            log,
            stopper,
            next: 0,
            _meta: meta,
        })
    }

    /// Begins to append a group; the future ends when it is acknowledged.
    ///
    /// # Errors
    /// What the disk answered.
    pub async fn append(&mut self, group: Bytes) -> io::Result<impl Future<Output = io::Result<()>> + use<>> {
        let (done, durable) = Types::oneshot();
        let entry = entry(self.next, group);
        self.next += 1;
        self.log.append([entry], IOFlushed::signal(done)).await?;
        Ok(async move {
            durable
                .await
                .unwrap_or_else(|_| Err(io::Error::other("the log has stopped")))
        })
    }

    /// Purges all entries but the last few.
    ///
    /// # Errors
    /// What the disk answered.
    pub async fn purge(&mut self) -> io::Result<()> {
        self.log.purge(id(self.next.saturating_sub(16))).await
    }

    /// What a start makes of the segments in `<data>/log`, as records that would make the same.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn recovered(data: &Path) -> Result<Bytes, Error> {
        Ok(super::log::recovered(data)?.into())
    }

    /// Ends the log.
    ///
    /// # Errors
    /// What the disk answered.
    pub async fn stop(self) -> io::Result<()> {
        self.stopper.stop().await
    }
}

/// A group as the log writes it to disk and sends it to other members.
#[derive(Debug)]
pub struct RecordProbe([Entry; 1]);

impl RecordProbe {
    /// The record of a group.
    pub fn new(group: Bytes) -> Self {
        Self([entry(1, group)])
    }

    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        encode_entries(&self.0)
    }

    /// Records from bytes, how many.
    ///
    /// # Errors
    /// What is wrong with the first that is none.
    pub fn decode(bytes: Bytes) -> io::Result<usize> {
        let entries = decode_entries(bytes);
        entries.map(|entries| entries.len()).map_err(damaged)
    }

    /// Records of every kind from bytes, and their bytes again.
    ///
    /// # Errors
    /// What is wrong with the first that is none.
    pub fn again(mut bytes: Bytes) -> io::Result<Bytes> {
        let mut again = Vec::new();
        while let Some(record) = record::decode(&mut bytes).map_err(damaged)? {
            record::encode(&record, &mut again);
        }
        Ok(again.into())
    }
}

fn damaged(damage: Damage) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, damage.to_string())
}

/// Messages of the peer port.
#[derive(Debug)]
pub struct MessageProbe;

impl MessageProbe {
    /// The bytes of a message of this name, as they are written again when it has become what stands behind it; none where it is refused, or there
    /// is no such message.
    pub fn again(name: &str, bytes: Bytes) -> Option<Vec<u8>> {
        wire::again(name, bytes.clone()).or_else(|| remote::again(name, bytes))
    }
}

/// The snapshot files of a folder of its own.
#[derive(Debug)]
pub struct SnapshotProbe {
    snapshots: SnapshotStore,
    next: u64,
}

impl SnapshotProbe {
    /// Opens a fresh folder.
    ///
    /// # Errors
    /// As for a node.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let (meta, _) = Meta::open(folder, Durability::Fsync, boot_id().as_deref())?;
        let snapshots = SnapshotStore::open(meta)?;
        // What is measured is the work, not the rests between.
        snapshots.hurry().up();
        Ok(Self { snapshots, next: 0 })
    }

    /// Writes a machine to a file and makes it the newest snapshot, durably. The length of the file in bytes.
    ///
    /// # Errors
    /// What the disk answered.
    pub fn write(&mut self, machine: &Machine) -> io::Result<u64> {
        let meta = SnapshotMeta {
            last_log_id: Some(id(self.next)),
            ..SnapshotMeta::default()
        };
        self.next += 1;
        let content = |mut out: &mut dyn Write| snapshot::write(machine, &mut out);
        Ok(self.snapshots.write(&meta, content)?.len)
    }

    /// Reads the newest snapshot, as a start does.
    ///
    /// # Errors
    /// What is wrong with it; there is none.
    pub fn read(&self) -> io::Result<Machine> {
        self.of(self.snapshots.newest())
    }

    /// The machine of a snapshot file that another member sends, in chunks of this size.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn receive(&self, file: &[u8], chunk: usize) -> io::Result<Machine> {
        let mut receiving = self.snapshots.receive()?;
        file.chunks(chunk).try_for_each(|chunk| receiving.write(chunk))?;
        self.of(Some(receiving.finish()?))
    }

    fn of(&self, newest: Option<SnapshotFile>) -> io::Result<Machine> {
        let newest =
            newest.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no snapshot was written"))?;
        newest.read(|mut from| snapshot::read(&mut from))
    }
}

fn entry(index: u64, group: Bytes) -> Entry {
    Entry {
        log_id: id(index),
        payload: EntryPayload::Normal(Group(group)),
    }
}

fn id(index: u64) -> LogId {
    LogId {
        leader_id: LeaderId { term: 1, node_id: 1 },
        index,
    }
}
