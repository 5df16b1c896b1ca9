//! LAYER 3: a member of a cluster. Starts and stops everything in the order written here; knows nothing of Redis or HTTP.
//!
//! | task | fed by | ends |
//! |---|---|---|
//! | Raft's own (openraft) | peers, proposals | `Replica::shutdown` |
//! | log writer (thread) | Raft | with the log store |
//! | peer service | the peer port | `stop` |
//! | courier (`propose`) | `write`, applied groups, leader changes | `stop`, after what waits was answered |
//! | rounds (`query`) | linearizable reads | `stop` |
//! | discovery | the peers' hellos | `stop` |
//! | promoter (`members`) | learners that asked for a vote, changes that were left half done | `stop` |
//! | asking the others (`fellows`) | the members' answers | `stop` |
//! | comparer (`audit`) | the members' audits | `stop` |
//! | taking back what waits for nobody | `hearing` | `stop` |
//! | evictor (`evict`) | memory that is full | `stop` |
//! | watch over members (`departed`) | members that do not answer | `stop` |
//! | writing down renewals (`renew`) | keys whose life was asked for again | `stop` |
//! | ticker, snapshots (`ticker`) | deadlines, the size of the log | `stop` |
//! | watch over faults | Raft, the log | `stop` |

mod audit;
mod clock;
mod departed;
mod discovery;
mod evict;
pub(crate) mod fellows;
mod hearing;
mod host;
mod linger;
mod members;
mod propose;
mod query;
mod renew;
#[cfg(feature = "lua")]
pub(crate) mod script;
pub mod status;
mod ticker;
pub(crate) mod topics;

use crate::config::{Config, Durability, LogKind};
use crate::error::{Error, Result};
use crate::machine::access::{Access, Hash, Which};
use crate::machine::args::Args;
use crate::machine::entry::{Command, Millis};
use crate::machine::internal::{self, Unwait, Watch};
use crate::machine::keyspace::View;
use crate::machine::recency::Use;
#[cfg(feature = "lua")]
use crate::machine::reply::CommandError;
use crate::machine::reply::Reply;
#[cfg(feature = "lua")]
use crate::machine::scripts;
use crate::machine::settings::Settings;
use crate::machine::table;
use crate::raft::client::{Evaluated, Hello, MemberChange, Peers};
#[cfg(not(feature = "lua"))]
use crate::raft::client::{Kind, Running};
use crate::raft::fault::Fault;
use crate::raft::ground::{Ground, beside};
use crate::raft::meta::{self, Meta};
use crate::raft::net;
pub use crate::raft::remote::Heard;
use crate::raft::replica::{self, Replica};
use crate::raft::server::{Inbound, Service};
use crate::raft::snapshot_store::SnapshotStore;
use crate::raft::state_store::{State, StateStore};
use crate::raft::{Member, ground, log};
use bytes::Bytes;
use clock::Clock;
use discovery::Discovery;
use fellows::Fellows;
use hearing::Hearing;
pub use hearing::{Listener, Wait};
use members::Members;
use parking_lot::Mutex;
use propose::{Courier, Flights, Outbound, Proposer};
use query::Query;
use renew::Renewals;
#[cfg(feature = "lua")]
pub use script::{Call, Called, Denial, Kind, Notes, Request, Running, Slow, shortened};
#[cfg(feature = "lua")]
pub(crate) use script::{script_flags, script_sha};
use status::{MemberStatus, Status};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long a leader that stops waits for another to lead.
const HANDOVER: Duration = Duration::from_secs(2);

/// How long a member that may be its heir has to say that it is there.
const HEIR: Duration = Duration::from_millis(500);

/// How long a node that stops waits for its own writes to be applied.
const DRAIN: Duration = Duration::from_secs(2);

/// How long its tasks may then take to end: connections take a second, where they are not quiet.
const END: Duration = Duration::from_secs(2);

/// Commands that are taken back at once, at most: a few hundred clients may go in one moment, and a write of all would be more than the queue holds.
const TAKEN_BACK_AT_ONCE: usize = 64;

/// Which share of the queue they may take, so that they find room beside what waits.
const TAKEN_BACK_SHARE: usize = 4;

/// How long to wait before commands that could not be taken back are tried again.
const TAKE_BACK_AGAIN: Duration = Duration::from_millis(100);

/// How long after a start it is looked again what those before it have left: a leader has let go of their groups by then.
const FORMER_GROUPS: Duration = Duration::from_secs(5);

/// How long to wait before a start that could not be noted in the log is noted again.
const NOTE_AGAIN: Duration = Duration::from_millis(100);

/// How long a write waits for evictions, for each step of `maxmemory-eviction-tenacity`: 20 ms by default, which is a few rounds of the log.
const TENACITY: Duration = Duration::from_millis(2);

/// The same for a tenacity of 100, which knows no bound at a Redis.
const TENACITY_MOST: Duration = Duration::from_secs(5);

/// How often a node that waits to serve looks whether others are heard from.
const READY_LOOK: Duration = Duration::from_millis(50);

/// How long a member may take to say how it is.
const STATUS: Duration = Duration::from_secs(1);

/// A running node. Clones are handles to the same node.
#[derive(Clone, Debug)]
pub struct Node {
    inner: Arc<Inner>,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Freshness {
    /// What this node has applied.
    #[default]
    Local,
    /// At least what this token has seen: read-your-writes and monotonic reads across nodes.
    AtLeast(Token),
    /// As of now, cluster-wide. Costs a round to a majority, shared by all who ask at the same time.
    Linearizable,
}

/// How far a write or read has seen: a log index. Travels as a decimal number, in a cookie or a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What came of a write.
#[derive(Debug)]
pub struct Written {
    /// The replies, in the order of the commands.
    pub replies: Vec<Reply>,
    /// Where it stands in the log.
    pub token: Token,
    /// One for each reply that is [`Reply::Waiting`], in their order: the answers are to come.
    pub waits: Vec<Wait>,
}

struct Inner {
    id: u64,
    start: u64,
    me: Member,
    raft_addr: String,
    durability: Durability,
    started: Instant,
    state: State,
    clock: Arc<Clock>,
    hearing: Arc<Hearing>,
    #[cfg(feature = "lua")]
    scripts: Arc<script::Scripts>,
    replica: Arc<Replica>,
    peers: Arc<Peers>,
    meta: Meta,
    log: log::LogStopper,
    founders: Vec<String>,
    members: Arc<Members>,
    proposer: Proposer,
    query: Query,
    fault: Fault,
    differences: Arc<audit::Differences>,
    fellows: Arc<Fellows>,
    renewals: Arc<Renewals>,
    /// Who listens to topics here.
    topics: Arc<topics::Hub>,
    /// How long after this start no vote is granted and none is asked for.
    silent: Duration,
    /// What this node had committed when it started was applied.
    recovered: watch::Sender<bool>,
    stopping: AtomicBool,
    /// True once everything has ended.
    stopped: watch::Sender<bool>,
    /// Ends the peer service.
    stop_service: watch::Sender<bool>,
    /// The tasks that this layer started and that end by themselves when the node stops. Taken out once, by `stop`; never held across an await.
    tasks: Mutex<JoinSet<()>>,
    /// The same for those that go on for ever, and leave nothing half done.
    endless: Mutex<JoinSet<()>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({})", self.id)
    }
}

impl Node {
    /// Starts a node on its data folder: opens the disk, listens for peers, and lets everything else happen by itself. [`Node::ready`] waits
    /// until it serves.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::FolderInUse`], [`Error::Folder`], [`Error::Listen`] or [`Error::Io`].
    pub async fn start(config: Config) -> Result<Self> {
        Self::start_on(Ground::default(), config).await
    }

    /// [`Node::start`] on any ground.
    pub(crate) async fn start_on(ground: Ground, config: Config) -> Result<Self> {
        config.validate()?;
        let cannot = |source| Error::Listen {
            address: config.listen.clone(),
            source,
        };
        let listener = ground.net.listen(&config.listen).await.map_err(cannot)?;
        let port = listener.port().map_err(cannot)?;
        let raft_addr = with_port(&config.listen, port);
        let advertise = config
            .advertise
            .as_ref()
            .map_or_else(|| raft_addr.clone(), |address| with_port(address, port));
        let resp_addr = config
            .resp
            .as_ref()
            .map(|resp| resp.advertised(&advertise))
            .unwrap_or_default();
        let me = Member {
            raft_addr: advertise,
            resp_addr,
        };
        let opened = Opened::open(ground, &config, me, raft_addr).await?;
        Ok(opened.run(config, listener))
    }

    /// The one door for writes: the commands are applied in order and together, after a majority has stored them, and answered from this
    /// node's own state.
    ///
    /// # Errors
    /// [`Error::NoLeader`], [`Error::Overloaded`], [`Error::TooLarge`], [`Error::Stopped`]: not applied. [`Error::Unknown`]: perhaps.
    pub async fn write(&self, commands: impl AsRef<[Command]>) -> Result<Written> {
        if let Some(why) = self.inner.fault.get() {
            return Err(Error::Stopped { why });
        }
        self.inner.proposer.write(commands).await
    }

    /// The answer of a command that would only renew a key's life, where what this node has applied (as fresh as asked) covers that already: without a
    /// write. None where it is to be written.
    pub async fn renew(&self, freshness: Freshness, db: u8, argv: &[Bytes]) -> Option<Reply> {
        let renews = table::lookup(argv).ok()?.renews?;
        let covered = || {
            let machine = self.inner.state.machine().read();
            renews(&machine.view(self.used_at(), db), &mut Args::new(argv, 1))
        };
        let mut renewed = covered()?;
        if self.inner.fault.get().is_some() {
            return None;
        }
        if freshness != Freshness::Local {
            self.fresh(freshness).await.ok()?;
            renewed = covered()?;
        }
        if let Some(due) = renewed.due {
            self.inner.renewals.soon(due);
        }
        Some(renewed.reply)
    }

    /// Applies the commands together if every key watched still has its version. One reply: an array of theirs, or no array.
    ///
    /// # Errors
    /// As [`Node::write`].
    pub async fn transact(&self, watches: &[Watch], commands: Vec<Command>) -> Result<Written> {
        self.write(vec![internal::exec(watches, commands)]).await
    }

    /// Ends the wait of a command that waits in the log, as if its time were over or with an error. Whether it still waited.
    ///
    /// # Errors
    /// As [`Node::write`].
    pub async fn unwait(&self, number: u64, how: Unwait) -> Result<bool> {
        let written = self.write(vec![internal::unwait(number, how)]).await?;
        Ok(written.replies == [Reply::Integer(1)])
    }

    /// Runs a script, a function, or a transaction that has some in it. One reply, and what the scripts did beside that.
    ///
    /// # Errors
    /// As [`Node::write`].
    #[cfg(feature = "lua")]
    pub async fn script(&self, request: Request) -> Result<(Written, Notes)> {
        if let Some(why) = self.inner.fault.get() {
            return Err(Error::Stopped { why });
        }
        self.inner.scripts.run(request).await
    }

    /// Compiles a script and lets all nodes know it; its SHA-1. `keep` it, or only among the last that were run.
    ///
    /// # Errors
    /// As [`Node::write`], and why it is no script.
    #[cfg(feature = "lua")]
    pub async fn load_script(&self, text: Bytes, keep: bool) -> Result<Bytes> {
        let sha = Bytes::from(self.inner.scripts.compile(text.clone()).await?);
        self.write(vec![scripts::script(sha.clone(), text, keep)]).await?;
        Ok(sha)
    }

    /// Loads libraries of functions and lets all nodes know them, all or none; replies the last one's name.
    ///
    /// # Errors
    /// As [`Node::write`], and why one is no library or may not come.
    #[cfg(feature = "lua")]
    pub async fn load_libraries(&self, codes: Vec<Bytes>, policy: scripts::Policy) -> Result<Reply> {
        let mut libraries = Vec::new();
        for code in codes {
            let loaded = self.inner.scripts.load_library(code.clone()).await?;
            let functions = loaded.functions.into_iter().map(|function| scripts::Function {
                name: function.name.into(),
                description: function.description.map(Bytes::from),
                flags: function
                    .flags
                    .names()
                    .map(|flag| Bytes::from_static(flag.as_bytes()))
                    .collect(),
            });
            libraries.push(scripts::Library {
                name: loaded.name.into(),
                code,
                functions: functions.collect(),
            });
        }
        let written = self.write(vec![scripts::libraries(libraries, policy)]).await?;
        match written.replies.into_iter().next() {
            Some(Reply::Error(refusal)) => Err(refusal.into()),
            reply => Ok(reply.unwrap_or(Reply::Nil)),
        }
    }

    /// Ends a script or function that has run for longer than the busy limit, on whatever member it runs; this one first.
    ///
    /// # Errors
    /// What Redis answers where none has.
    #[cfg(feature = "lua")]
    pub async fn kill_script(&self, kind: Kind) -> std::result::Result<(), CommandError> {
        self.inner.scripts.kill(kind).await
    }

    /// What function runs, on whatever member; this one first.
    ///
    /// # Errors
    /// What Redis answers where no function runs, but a script does for longer than the busy limit.
    #[cfg(feature = "lua")]
    pub async fn running_function(&self) -> std::result::Result<Option<Running>, CommandError> {
        self.inner.scripts.running_function().await
    }

    /// What Redis answers while a script runs for longer than the busy limit; none, while none does on this node.
    #[cfg(feature = "lua")]
    pub fn script_busy(&self) -> Option<CommandError> {
        self.inner.scripts.busy()
    }

    /// After how many milliseconds a script that this node evaluates can be killed; 0: never. Redis: `busy-reply-threshold`.
    #[cfg(feature = "lua")]
    pub fn script_busy_after_ms(&self) -> u64 {
        self.inner.scripts.busy_after_ms()
    }

    /// Sets that time, for this node and the scripts that begin from now on.
    #[cfg(feature = "lua")]
    pub fn set_script_busy_after_ms(&self, milliseconds: u64) {
        self.inner.scripts.set_busy_after_ms(milliseconds);
    }

    /// Whether scripts that this node evaluates may call what scripts may not: for tests.
    #[cfg(feature = "lua")]
    pub fn allow_all_in_scripts(&self, allowed: bool) {
        self.inner.scripts.allow_all(allowed);
    }

    /// Settings that all nodes share.
    pub fn settings(&self) -> Settings {
        self.inner.state.machine().read().store().settings().clone()
    }

    /// Sets shared settings on all nodes: all of them, or none where a value is refused.
    ///
    /// # Errors
    /// As [`Node::write`], and the refusal.
    pub async fn set_settings(&self, values: &[(String, String)]) -> Result<Token> {
        let written = self.write(vec![internal::set(values)]).await?;
        match written.replies.into_iter().next() {
            Some(Reply::Error(refusal)) => Err(refusal.into()),
            _ => Ok(written.token),
        }
    }

    /// Whether keys end by themselves on all nodes, or only when somebody finds that they have ended: for tests.
    ///
    /// # Errors
    /// As [`Node::write`].
    pub async fn set_active_expire(&self, active: bool) -> Result<Token> {
        self.set_settings(&[("active-expire".to_owned(), active.to_string())])
            .await
    }

    /// Has those of these keys removed that have ended.
    ///
    /// # Errors
    /// As [`Node::write`].
    pub async fn end_keys(&self, db: u8, keys: Vec<Bytes>) -> Result<Token> {
        Ok(self.write(vec![internal::end(db, keys)]).await?.token)
    }

    /// Takes a snapshot of what is applied.
    ///
    /// # Errors
    /// [`Error::Stopped`] when Raft does not run any more.
    pub async fn snapshot(&self) -> Result<()> {
        self.inner
            .replica
            .snapshot()
            .await
            .map_err(|why| Error::Stopped { why: why.to_string() })
    }

    /// Who may do what, as of what this node has applied.
    pub fn access(&self) -> Arc<Access> {
        self.inner.state.machine().read().store().access().clone()
    }

    /// [`Access::revision`] without a lock: it has moved before the writer of a change is answered.
    pub fn access_revision(&self) -> u64 {
        self.inner.state.access_revision()
    }

    /// The revision of [`Node::access`], to wait for changes.
    pub fn access_changes(&self) -> watch::Receiver<u64> {
        self.inner.state.access_changes()
    }

    /// Sets one of the cluster's access keys, by its SHA-256, or takes it away.
    ///
    /// # Errors
    /// As [`Node::write`].
    pub async fn set_access_key(&self, which: Which, hash: Option<Hash>) -> Result<Token> {
        let written = self.write(vec![internal::key(which, hash.as_ref())]).await?;
        Ok(written.token)
    }

    /// Tells `listener` from now on what happens, in the order of the log.
    pub fn listen(&self, listener: Arc<dyn Listener>) {
        self.inner.hearing.listen(listener);
    }

    /// Moves when something has happened to sessions, of whatever database: [`View::store`] has what.
    pub fn session_events(&self) -> watch::Receiver<u64> {
        self.inner.hearing.sessions()
    }

    /// Whether listeners are told of changed keys. Costs every write something: for clients that cache.
    pub fn watch_changes(&self, watched: bool) {
        self.inner
            .state
            .machine()
            .write()
            .store_mut()
            .watch_changes(watched);
    }

    /// A read-only command, as fresh as asked.
    ///
    /// # Errors
    /// [`Error::NotFresh`], [`Error::Overloaded`] or [`Error::Stopped`]; never with [`Freshness::Local`].
    pub async fn read(&self, freshness: Freshness, db: u8, argv: &[Bytes]) -> Result<Reply> {
        self.fresh(freshness).await?;
        Ok(self.read_local(db, argv))
    }

    /// Waits until this node is as fresh as asked. The token says how fresh it is then.
    ///
    /// # Errors
    /// As [`Node::read`].
    pub async fn fresh(&self, freshness: Freshness) -> Result<Token> {
        self.inner.query.fresh(freshness).await
    }

    /// A read-only command on what this node has applied. Never waits.
    pub fn read_local(&self, db: u8, argv: &[Bytes]) -> Reply {
        self.inner.state.machine().read().read(self.now(), db, argv)
    }

    /// The same for one whose reads are no use of the keys: `CLIENT NO-TOUCH`.
    pub fn read_local_quietly(&self, db: u8, argv: &[Bytes]) -> Reply {
        let now = self.now();
        self.inner.state.machine().read().read_quietly(now, db, argv)
    }

    /// Whether what needs more memory is refused: more is in use than `maxmemory`, and no key may go. As of the last entry applied here; costs
    /// no lock.
    pub fn is_out_of_memory(&self) -> bool {
        self.inner.state.fullness().is_out_of_memory()
    }

    /// Whether this node hears from fewer other members than `min-replicas-to-write` wants: writes are refused then.
    pub fn lacks_fellows(&self) -> bool {
        self.inner.fellows.lack()
    }

    /// `min-replicas-to-write` of this node, `min-replicas-max-lag`, and how many others are heard from within that.
    pub fn fellows(&self) -> (usize, u64, usize) {
        let fellows = &self.inner.fellows;
        (fellows.wanted(), fellows.max_lag_s(), fellows.near())
    }

    /// Sets how many others this node must hear from for a write that it is asked for, or a script that it evaluates.
    pub fn want_fellows(&self, wanted: usize) {
        self.inner.fellows.want(wanted);
    }

    /// Sets after how many seconds one that is not heard from does not count.
    pub fn set_fellows_max_lag_s(&self, seconds: u64) {
        self.inner.fellows.set_max_lag_s(seconds);
    }

    /// Asks the others now.
    pub async fn ask_fellows(&self) {
        let inner = &self.inner;
        let (fellows, patience) = (&inner.fellows, fellows::ANSWER_WHILE_HURRIED);
        fellows
            .ask(inner.id, &inner.replica, &inner.peers, patience)
            .await;
    }

    /// Objects that wait to be freed beside the log, and that were freed there since the start. Redis: `lazyfreed_objects`.
    pub fn freed_objects(&self) -> (u64, u64) {
        self.inner.state.freeing().counts()
    }

    /// Waits while keys are being evicted here, but no longer than `maxmemory-eviction-tenacity` allows: whoever is answered a write after it finds
    /// memory below its limit again, as at a Redis, and writers do not run ahead of evictions.
    pub async fn let_evict(&self) {
        let fullness = self.inner.state.fullness();
        if fullness.must_evict() {
            let bound = match self.settings().maxmemory_eviction_tenacity {
                100.. => TENACITY_MOST,
                steps => TENACITY * steps,
            };
            // Who waited long enough goes on: evictions do too.
            let _ = tokio::time::timeout(bound, fullness.rested()).await;
        }
    }

    /// Reads one database (0 to 15) directly, at one applied index. Applying waits meanwhile: be quick.
    pub fn view<R>(&self, db: u8, read: impl FnOnce(View<'_>) -> R) -> R {
        read(self.inner.state.machine().read().view(self.now(), db))
    }

    /// Now, by the log's clock as this node estimates it.
    pub fn now(&self) -> Millis {
        self.inner.state.now()
    }

    /// When a life is used that is used now. Whichever is later: what this node knows of the log's time and of the members' is behind where it has only just
    /// caught up, or rested with its machine, and what is used would end early. A machine's clock that is ahead costs writes and does no harm.
    pub(crate) fn used_at(&self) -> Millis {
        self.inner.clock.now().max(self.inner.clock.wall())
    }

    /// How far this node has applied the log.
    pub fn token(&self) -> Token {
        Token(self.inner.query.applied())
    }

    /// This node's id, drawn at the first start of its data folder.
    pub fn id(&self) -> u64 {
        self.inner.id
    }

    /// Where peers are listened for, after port 0 was resolved.
    pub fn raft_addr(&self) -> &str {
        &self.inner.raft_addr
    }

    /// Waits until this node serves: it belongs to a cluster, knows a leader, hears from a majority of the voters, and has applied what was committed when it
    /// started.
    ///
    /// # Errors
    /// [`Error::NoLeader`] after `within`; [`Error::Stopped`].
    pub async fn ready(&self, within: Duration) -> Result<()> {
        let began = Instant::now();
        let (mut state, mut recovered) = (self.inner.replica.watch(), self.inner.recovered.subscribe());
        let wait = async {
            while !self.is_ready() {
                let running = tokio::select! {
                    biased;
                    running = state.changed() => running,
                    _ = recovered.changed() => true,
                    // Nobody tells when others are heard from.
                    () = tokio::time::sleep(READY_LOOK) => true,
                };
                if !running || self.inner.stopping.load(Ordering::Acquire) {
                    return Err(self.why_stopped());
                }
            }
            Ok(())
        };
        tokio::time::timeout(within, wait).await.unwrap_or_else(|_| {
            Err(Error::NoLeader {
                waited: began.elapsed(),
                why: "this node does not serve yet".to_owned(),
            })
        })
    }

    fn is_ready(&self) -> bool {
        let state = self.inner.replica.state();
        let votes = |(id, (_, votes)): (&u64, &(_, bool))| votes.then_some(*id);
        let voters: Vec<u64> = state.members.iter().filter_map(votes).collect();
        state.leader.is_some()
            && self.inner.fellows.are_majority(self.inner.id, &voters)
            && state.members.contains_key(&self.inner.id)
            && *self.inner.recovered.borrow()
            && self.inner.fault.get().is_none()
            && !self.inner.stopping.load(Ordering::Acquire)
    }

    fn why_stopped(&self) -> Error {
        Error::Stopped {
            why: self
                .inner
                .fault
                .get()
                .unwrap_or_else(|| "it was asked to".to_owned()),
        }
    }

    /// What this node knows without asking anybody.
    pub fn status(&self) -> Status {
        let inner = &self.inner;
        let state = inner.replica.state();
        let (keys, used_bytes, expired_keys, evicted_keys) = {
            let machine = inner.state.machine().read();
            let store = machine.store();
            let keys: usize = (0..16).map(|db| store.counts(db).0).sum();
            let used = store.used() as u64;
            (keys as u64, used, store.expired(), store.evicted())
        };
        let (proposed_commands, proposed_groups) = inner.proposer.sealed();
        let members = state.members.iter().map(|(id, (member, voter))| MemberStatus {
            id: *id,
            raft_addr: member.raft_addr.clone(),
            resp_addr: member.resp_addr.clone(),
            voter: *voter,
            role: None,
            applied_index: None,
            lag: None,
        });
        Status {
            node_id: inner.id,
            cluster_id: Some(inner.peers.cluster()).filter(|id| *id != 0),
            role: if state.members.is_empty() {
                status::Role::Forming
            } else {
                state.role.into()
            },
            leader_id: state.leader,
            term: state.term,
            last_log_index: state.last_log_index,
            committed_index: state.committed_index,
            applied_index: inner.query.applied(),
            snapshot_index: state.snapshot_index,
            members: members.collect(),
            ready: self.is_ready(),
            fault: inner.fault.get(),
            differing_members: inner.differences.members(),
            level: inner.state.level(),
            durability: match inner.durability {
                Durability::Fsync => "fsync".to_owned(),
                Durability::Os => "os".to_owned(),
            },
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: u64::try_from(inner.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            keys,
            used_bytes,
            expired_keys,
            evicted_keys,
            proposed_commands,
            proposed_groups,
        }
    }

    /// [`Node::status`] with every member asked for its own, each at most a second.
    pub async fn cluster_status(&self) -> Status {
        let mut status = self.status();
        let asked = status.members.iter().map(|member| async {
            if member.id == self.inner.id {
                return Some((status.role, self.inner.query.applied()));
            }
            let answer =
                tokio::time::timeout(STATUS, self.inner.peers.status(member.id, &member.raft_addr)).await;
            let answer = answer.ok()?.ok()?;
            Some((status::Role::from_name(&answer.role)?, answer.applied_index))
        });
        let answers = futures::future::join_all(asked).await;
        let most = answers
            .iter()
            .flatten()
            .map(|(_, applied)| *applied)
            .max()
            .unwrap_or(0);
        for (member, answer) in status.members.iter_mut().zip(answers) {
            member.role = answer.map(|(role, _)| role);
            member.applied_index = answer.map(|(_, applied)| applied);
            member.lag = answer.map(|(_, applied)| most.saturating_sub(applied));
        }
        status
    }

    /// The digest of this node's state, and the log index it holds for. Walks the whole state, off the apply path.
    pub async fn digest(&self) -> (u64, u128) {
        let (index, frozen) = {
            // Applying moves the index and the machine under the write lock, so under the read lock they belong together.
            let machine = self.inner.state.machine().read();
            (self.inner.query.applied(), machine.freeze())
        };
        let digest = beside(move || frozen.into_digest(|_| {})).await;
        (index, digest.expect("the digest does not panic"))
    }

    /// Adds the node that listens for peers at this address, as a learner. Its id.
    ///
    /// # Errors
    /// [`Error::Members`] when it does not answer, belongs to a cluster already, or the change is refused.
    pub async fn add_member(&self, raft_addr: &str) -> Result<u64> {
        let hello = tokio::time::timeout(STATUS, self.inner.peers.hello(raft_addr, &self.inner.me)).await;
        let hello = hello
            .map_err(|_| Error::Members(format!("{raft_addr} does not answer")))?
            .map_err(|status| Error::Members(format!("{raft_addr}: {}", status.message())))?;
        if hello.cluster != 0 && hello.cluster != self.inner.peers.cluster() {
            return Err(Error::Members(format!(
                "{raft_addr} belongs to cluster {:016x}",
                hello.cluster
            )));
        }
        let member = Member {
            raft_addr: raft_addr.to_owned(),
            ..hello.member
        };
        self.change(MemberChange::Add(hello.node, member)).await?;
        Ok(hello.node)
    }

    /// Gives a learner that has caught up a vote.
    ///
    /// # Errors
    /// [`Error::Members`].
    pub async fn promote_member(&self, id: u64) -> Result<()> {
        self.change(MemberChange::Promote(id)).await
    }

    /// Takes a member out. Its id never comes back.
    ///
    /// # Errors
    /// [`Error::Members`].
    pub async fn remove_member(&self, id: u64) -> Result<()> {
        self.change(MemberChange::Remove(id)).await
    }

    async fn change(&self, change: MemberChange) -> Result<()> {
        self.inner
            .members
            .change(change)
            .await
            .map(drop)
            .map_err(Error::Members)
    }

    /// Hands over leadership, finishes what is under way and stops. Calling it again waits for the same end.
    ///
    /// # Errors
    /// [`Error::Io`] when the clean end could not be noted; the node has stopped all the same.
    pub async fn stop(&self) -> Result<()> {
        if self.inner.stopping.swap(true, Ordering::AcqRel) {
            let _ = self.inner.stopped.subscribe().wait_for(|stopped| *stopped).await;
            return Ok(());
        }
        // On a task of its own, so that it ends also where whoever asked for it waits no longer.
        let node = self.clone();
        let ended = tokio::spawn(async move {
            node.hand_over().await;
            node.drain().await;
            let closed = node.shut_down().await;
            let stopped = node.inner.stopped.clone();
            // Whoever hears of the end may want the folder at once.
            drop(node);
            stopped.send_replace(true);
            closed
        });
        ended.await.map_err(|error| Error::Io {
            doing: "stopping".to_owned(),
            source: error.into(),
        })?
    }

    /// Resolves when the node has stopped, with the fault if it stopped by itself.
    pub async fn stopped(&self) -> Option<String> {
        let _ = self.inner.stopped.subscribe().wait_for(|stopped| *stopped).await;
        self.inner.fault.get()
    }

    /// Lets another voter lead, if one is there, and waits until it does.
    async fn hand_over(&self) {
        let mut watch = self.inner.replica.watch();
        let state = watch.now();
        if state.leader != Some(self.inner.id) {
            return;
        }
        let Some(heir) = self.heir(&state).await else {
            return;
        };
        if let Err(why) = self.inner.replica.transfer_leadership(heir).await {
            tracing::warn!(why, "leadership was not handed over");
            return;
        }
        let led = async {
            while watch.now().leader.is_none_or(|leader| leader == self.inner.id) {
                if !watch.changed().await {
                    return;
                }
            }
        };
        if tokio::time::timeout(HANDOVER, led).await.is_err() {
            tracing::warn!(heir, "nobody has taken over leadership in time");
        }
    }

    /// The most advanced other voter of those that answer.
    async fn heir(&self, state: &replica::State) -> Option<u64> {
        let voters = state
            .members
            .iter()
            .filter(|(id, (_, voter))| *voter && **id != self.inner.id);
        let mut heirs: Vec<_> = voters.map(|(id, (member, _))| (*id, member)).collect();
        heirs.sort_by_key(|(id, _)| std::cmp::Reverse(state.matched.get(id).copied()));
        for (id, member) in heirs {
            let hello = self.inner.peers.hello(&member.raft_addr, &self.inner.me);
            if matches!(tokio::time::timeout(HEIR, hello).await, Ok(Ok(hello)) if hello.node == id) {
                return Some(id);
            }
        }
        None
    }

    /// Hands over leadership to this member, for simulations.
    ///
    /// # Errors
    /// Why not.
    #[cfg(test)]
    pub(crate) async fn hand_over_to(&self, heir: u64) -> Result<(), String> {
        self.inner.replica.transfer_leadership(heir).await
    }

    /// Waits until this node's own writes are applied, as far as a majority is there.
    async fn drain(&self) {
        let idle = async {
            while !self.inner.proposer.is_idle() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(DRAIN, idle).await.is_err() {
            tracing::warn!(
                "stopping with writes under way: their callers are told that the outcome is unknown"
            );
        }
    }

    async fn shut_down(&self) -> Result<()> {
        let inner = &self.inner;
        #[cfg(feature = "lua")]
        inner.scripts.stop();
        inner.replica.shutdown().await;
        inner.stop_service.send_replace(true);
        let (mut tasks, mut endless) = {
            let (mut tasks, mut endless) = (inner.tasks.lock(), inner.endless.lock());
            (std::mem::take(&mut *tasks), std::mem::take(&mut *endless))
        };
        endless.shutdown().await;
        // The courier ends by itself, as Raft has, and answers who still waits.
        let ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(END, ended).await.is_err() {
            tasks.shutdown().await;
        }
        let flushed = inner.log.stop().await;
        // What was not flushed for certain is not called clean: the next start looks twice.
        if flushed.is_ok() && inner.fault.get().is_none() {
            inner.meta.close_cleanly()?;
        }
        Ok(())
    }
}

/// `host:port` with a port of 0 replaced.
fn with_port(address: &str, port: u16) -> String {
    address
        .strip_suffix(":0")
        .map_or_else(|| address.to_owned(), |host| format!("{host}:{port}"))
}

/// Everything that needs the disk, opened; nothing runs yet but Raft.
struct Opened {
    inner: Inner,
    service: Service<Doorway>,
    doorway: Arc<Doorway>,
    intake: propose::Intake,
    flights: Arc<Flights>,
    rounds: tokio::sync::mpsc::Receiver<query::Answer>,
    reader: log::LogReader,
}

impl Opened {
    async fn open(ground: Ground, config: &Config, me: Member, raft_addr: String) -> Result<Self> {
        let (folder, durability, kind) = (config.data.clone(), config.durability, config.log_store);
        let fault = Fault::default();
        let flights = Arc::<Flights>::default();
        // Recovery reads the disk for a while: not on a task.
        let (on_disk, seen) = (fault.clone(), flights.clone());
        let chance = ground.disk.draw().map_err(|source| Error::Io {
            doing: "drawing a random seed".to_owned(),
            source,
        })?;
        let disk = beside(move || Disk::open(ground.disk, &folder, durability, kind, seen, on_disk)).await;
        let disk = disk.map_err(|error| Error::Io {
            doing: "opening the data folder".to_owned(),
            source: error.into(),
        })??;
        let (id, start) = (disk.meta.node_id(), disk.meta.start());
        flights.hearing().belong_to(id, start);
        let peers = Peers::new(
            ground.net,
            id,
            disk.meta.cluster().unwrap_or(0),
            config.secret.as_ref(),
        );
        let state = disk.states.state();
        let reader = disk.log.reader();
        let was_member = disk.was_member();
        let replica = Replica::open(
            id,
            config.timing,
            config.lease_reads,
            peers.clone(),
            disk.log,
            disk.states,
            disk.snapshots,
        )
        .await;
        let replica = Arc::new(replica.map_err(|why| Error::Folder {
            folder: config.data.clone(),
            why,
        })?);
        let founders = discovery::founders(&config.join, &me.raft_addr, config.expect);
        let clock = Arc::new(Clock::new(state.clone(), ground.wall, chance));
        let (proposer, intake) = Proposer::new(config.limits, config.timing, flights.clone());
        let (query, rounds) = Query::new(state.clone(), config.timing.write_deadline);
        let fellows = Arc::<Fellows>::default();
        let renewals = Arc::<Renewals>::default();
        let outbound = Outbound {
            node: id,
            replica: replica.clone(),
            peers: peers.clone(),
            clock: clock.clone(),
            gate: Arc::default(),
            turn: Arc::default(),
            state: state.clone(),
            fellows: fellows.clone(),
            #[cfg(feature = "lua")]
            renewals: renewals.clone(),
        };
        #[cfg(feature = "lua")]
        let scripts = Arc::new(script::Scripts::start(
            (id, start),
            state.clone(),
            flights.hearing().clone(),
            outbound.clone(),
            config.timing,
            config.limits.command_bytes,
        ));
        let members = Members::new(id, replica.clone(), peers.clone(), state.clone());
        let doorway = Arc::new(Doorway {
            me: me.clone(),
            founders: founders.clone(),
            meta: disk.meta.clone(),
            members: members.clone(),
            #[cfg(feature = "lua")]
            scripts: scripts.clone(),
            outbound,
        });
        // A node that never belonged to a cluster has given no lease, and nothing to forget.
        let silent = if was_member {
            config.timing.election_max
        } else {
            Duration::ZERO
        };
        let service = Service::new(replica.clone(), peers.clone(), doorway.clone(), id, silent);
        let inner = Inner {
            id,
            start,
            me,
            raft_addr,
            durability,
            started: Instant::now(),
            state,
            clock,
            hearing: flights.hearing().clone(),
            #[cfg(feature = "lua")]
            scripts,
            replica,
            peers,
            meta: disk.meta,
            log: disk.stopper,
            founders,
            members,
            proposer,
            query,
            fault,
            differences: Arc::default(),
            fellows,
            renewals,
            topics: Arc::default(),
            silent,
            recovered: watch::Sender::new(false),
            stopping: AtomicBool::new(false),
            stopped: watch::Sender::new(false),
            stop_service: watch::Sender::new(false),
            tasks: Mutex::default(),
            endless: Mutex::default(),
        };
        Ok(Self {
            inner,
            service,
            doorway,
            intake,
            flights,
            rounds,
            reader,
        })
    }

    /// Starts every task, in the order of the table at the top.
    fn run(self, config: Config, listener: net::Listener) -> Node {
        let Self {
            inner,
            service,
            doorway,
            intake,
            flights,
            rounds,
            reader,
        } = self;
        let inner = Arc::new(inner);
        let node = Node { inner: inner.clone() };
        let (mut tasks, mut endless) = (JoinSet::new(), JoinSet::new());
        let stop = inner.stop_service.subscribe();
        let fault = inner.fault.clone();
        let remote = (node.clone(), config.secret.clone());
        tasks.spawn(async move {
            if let Err(error) = service.serve(remote, listener, stop).await {
                fault.raise(format!("peers can no longer be served: {error}"));
            }
        });
        let outbound = doorway.outbound.clone();
        let courier = Courier::new(
            intake,
            flights,
            config.limits,
            config.timing,
            inner.start,
            outbound.clone(),
        );
        tasks.spawn(courier.run());
        endless.spawn(query::serve_rounds(
            rounds,
            inner.replica.clone(),
            inner.peers.clone(),
        ));
        let discovery = Discovery {
            node: inner.id,
            others: config
                .join
                .iter()
                .filter(|address| **address != inner.me.raft_addr)
                .cloned()
                .collect(),
            me: inner.me.clone(),
            founders: inner.founders.clone(),
            meta: inner.meta.clone(),
            peers: inner.peers.clone(),
            replica: inner.replica.clone(),
            members: inner.members.clone(),
            wants_vote: !config.join.is_empty(),
            fault: inner.fault.clone(),
        };
        let (may_vote, checked) = oneshot::channel();
        endless.spawn(async move {
            if let Err(why) = discovery.run(may_vote).await {
                tracing::debug!(why, "looking for a cluster has ended");
            }
        });
        endless.spawn(inner.members.clone().promote_joining());
        endless.spawn(audit::compare(
            inner.replica.clone(),
            inner.peers.clone(),
            inner.differences.clone(),
        ));
        endless.spawn(fellows::ask(
            inner.id,
            inner.replica.clone(),
            inner.peers.clone(),
            inner.fellows.clone(),
            outbound.clock.clone(),
        ));
        endless.spawn(evict::evict(outbound.clone()));
        endless.spawn(departed::watch(outbound.clone()));
        endless.spawn(ticker::tick(inner.state.clone(), outbound));
        endless.spawn(ticker::snapshot(
            inner.id,
            inner.replica.clone(),
            inner.fellows.clone(),
            reader,
            config.limits.snapshot_log_bytes,
        ));
        endless.spawn(begin(inner.clone(), checked));
        let taken_back = config.limits.queue_commands / TAKEN_BACK_SHARE;
        tasks.spawn(take_back(node.clone(), taken_back.clamp(1, TAKEN_BACK_AT_ONCE)));
        tasks.spawn(renew::write_down(node.clone()));
        *inner.tasks.lock() = tasks;
        *inner.endless.lock() = endless;
        // Outside the set: it ends the node, and with it the set.
        tokio::spawn(stop_on_fault(node.clone()));
        node
    }
}

/// Takes commands back that wait in the log though nobody waits for their answer any more: so many in one write.
async fn take_back(node: Node, at_once: usize) {
    let mut stopped = node.inner.stop_service.subscribe();
    loop {
        let mut numbers = tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => return,
            numbers = node.inner.hearing.abandoned() => numbers,
        };
        while !numbers.is_empty() {
            let rest = numbers.split_off(at_once.min(numbers.len()));
            let commands = numbers
                .iter()
                .map(|number| internal::unwait(*number, Unwait::Timeout));
            if node.write(commands.collect::<Vec<_>>()).await.is_err() {
                // What could not be, and what would have come behind it.
                let left = numbers.into_iter().chain(rest);
                left.for_each(|number| node.inner.hearing.abandon(number));
                tokio::time::sleep(TAKE_BACK_AGAIN).await;
                break;
            }
            numbers = rest;
        }
    }
}

/// After the silence that follows a start, and once it is certain that no other process is this node, lets this node stand for election; notes when it has applied what was committed before, here and in the log.
async fn begin(inner: Arc<Inner>, checked: oneshot::Receiver<()>) {
    let (checked, ()) = tokio::join!(checked, tokio::time::sleep(inner.silent));
    if checked.is_err() {
        // Another process is this node: see the fault.
        return;
    }
    inner.replica.allow_elections();
    let mut watch = inner.replica.watch();
    // A leader's word is needed to know what is committed: its first entry of this term, or a heartbeat.
    let state = loop {
        let state = watch.now();
        if state.leader.is_some() && state.committed_index > 0 {
            break state;
        }
        if !watch.changed().await {
            return;
        }
    };
    if inner.query.wait_for(state.committed_index).await.is_ok() {
        inner.recovered.send_replace(true);
        note_start(&inner).await;
    }
}

/// Lets the log know that this start has begun, where it must and nobody has written yet, with a group of nothing. It must know whoever was a member once; and what
/// an earlier start of this node waited for or had locked ends by it. Looked at twice, as the leader may still have had a group of that start.
async fn note_start(inner: &Inner) {
    for pause in [Duration::ZERO, FORMER_GROUPS] {
        tokio::time::sleep(pause).await;
        let must = !has_written(inner) && must_note_start(inner).await;
        while must && !has_written(inner) {
            if let Err(error) = inner.proposer.write([]).await {
                tracing::debug!(%error, "this start is not noted yet");
                tokio::time::sleep(NOTE_AGAIN).await;
            }
        }
    }
}

fn has_written(inner: &Inner) -> bool {
    inner.proposer.sealed().1 > 0
}

async fn must_note_start(inner: &Inner) -> bool {
    let is_left = |(node, start)| node == inner.id && start < inner.start;
    departed::record_of(&inner.state, inner.id).is_none()
        || departed::holds_something(&inner.state, is_left).await
}

/// Stops the node when the disk or Raft fails: it never acknowledges what it could not store.
async fn stop_on_fault(node: Node) {
    let mut faults = node.inner.fault.subscribe();
    let mut watch = node.inner.replica.watch_leader();
    let mut stopped = node.inner.stopped.subscribe();
    loop {
        tokio::select! {
            biased;
            _ = faults.wait_for(Option::is_some) => break,
            _ = stopped.wait_for(|stopped| *stopped) => return,
            running = watch.changed() => {
                let fault = node.inner.replica.state().fault;
                if node.inner.stopping.load(Ordering::Acquire) {
                    return;
                }
                if let Some(why) = fault.or_else(|| (!running).then(|| "Raft has ended".to_owned())) {
                    node.inner.fault.raise(why);
                }
            }
        }
    }
    if let Err(error) = node.stop().await {
        tracing::error!(%error, "after the fault");
    }
}

/// The disk of a node, opened.
struct Disk {
    meta: Meta,
    log: log::LogStore,
    stopper: log::LogStopper,
    snapshots: SnapshotStore,
    states: StateStore,
}

impl Disk {
    fn open(
        disk: ground::Disk,
        folder: &Path,
        durability: Durability,
        kind: LogKind,
        seen: Arc<Flights>,
        fault: Fault,
    ) -> Result<Self> {
        let (meta, fresh) = Meta::open_on(disk, folder, durability, meta::boot_id().as_deref())?;
        tracing::info!(
            node = meta.node_id(),
            start = meta.start(),
            ?fresh,
            "data folder {}",
            folder.display()
        );
        let (log, stopper) = log::LogStore::open(meta.journal(kind)?, durability, fault.clone())?;
        meta.flushed()?;
        let snapshots = SnapshotStore::open(meta.clone())?;
        let states = StateStore::open(
            snapshots.clone(),
            &log.reader(),
            (meta.node_id(), meta.start()),
            seen,
            fault,
        )?;
        Ok(Self {
            meta,
            log,
            stopper,
            snapshots,
            states,
        })
    }

    /// Whether this node has ever taken part in a cluster.
    fn was_member(&self) -> bool {
        self.meta.cluster().is_some()
    }
}

/// What other nodes ask of this one.
struct Doorway {
    me: Member,
    founders: Vec<String>,
    meta: Meta,
    members: Arc<Members>,
    #[cfg(feature = "lua")]
    scripts: Arc<script::Scripts>,
    outbound: Outbound,
}

impl Inbound for Doorway {
    async fn hello(&self) -> Hello {
        let Outbound {
            node, replica, peers, ..
        } = &self.outbound;
        // Raft that has stopped took part once.
        let takes_part = replica.is_initialized().await.unwrap_or(true);
        let state = replica.state();
        Hello {
            node: *node,
            member: self.me.clone(),
            cluster: if takes_part { peers.cluster() } else { 0 },
            leader: state.leader.unwrap_or(0),
        }
    }

    async fn promise(&self, members: Vec<(u64, Member)>) -> Option<String> {
        let Outbound {
            node, replica, peers, ..
        } = &self.outbound;
        if replica.is_initialized().await.unwrap_or(true) {
            return Some(format!("it belongs to cluster {:016x}", peers.cluster()));
        }
        if !members.iter().any(|(id, _)| id == node) {
            return Some("it is not among the founders".to_owned());
        }
        let mut addresses: Vec<String> = members
            .iter()
            .map(|(_, member)| member.raft_addr.clone())
            .collect();
        addresses.sort();
        if addresses != self.founders {
            return Some(format!(
                "it knows other founders: {} (check `join` and `expect`)",
                self.founders.join(", ")
            ));
        }
        let cluster = discovery::cluster_id(&members.into_iter().collect());
        discovery::promise(&self.meta, peers, cluster).await.err()
    }

    async fn change_member(&self, change: MemberChange) -> Result<u64, String> {
        self.members.change(change).await
    }

    async fn propose(&self, group: Bytes) -> Option<String> {
        self.outbound.propose(group).await
    }

    fn last_use(&self, keys: &[(u8, Bytes)]) -> Vec<Option<Use>> {
        let state = &self.outbound.state;
        let (now, machine) = (state.now(), state.machine().read());
        keys.iter()
            .map(|(db, key)| machine.view(now, *db).last_use(key))
            .collect()
    }

    fn wall_ms(&self) -> Millis {
        self.outbound.clock.wall()
    }

    #[cfg(feature = "lua")]
    async fn evaluate(&self, from: u64, script: &Bytes) -> Evaluated {
        use script::Verdict;
        match self.scripts.evaluate_for(from, script).await {
            Verdict::Direct(reply, index, notes) => Evaluated::Direct(reply, index, notes.to_bytes()),
            Verdict::Proposed(notes) => Evaluated::Proposed(notes.to_bytes()),
            Verdict::Busy(error) => Evaluated::Busy(error.to_string()),
            Verdict::Writes => Evaluated::Refused("it may not write here".to_owned()),
            Verdict::Refused(why) | Verdict::Lost(why) => Evaluated::Refused(why),
        }
    }

    #[cfg(not(feature = "lua"))]
    async fn evaluate(&self, _: u64, _: &Bytes) -> Evaluated {
        Evaluated::Refused("this node was built without scripts".to_owned())
    }

    #[cfg(feature = "lua")]
    fn running(&self, kill: Option<Kind>) -> Option<Running> {
        self.scripts.running_here(kill)
    }

    #[cfg(not(feature = "lua"))]
    fn running(&self, _: Option<Kind>) -> Option<Running> {
        None
    }
}

impl From<replica::Role> for status::Role {
    fn from(role: replica::Role) -> Self {
        match role {
            replica::Role::Leader => Self::Leader,
            replica::Role::Follower => Self::Follower,
            replica::Role::Candidate => Self::Candidate,
            replica::Role::Learner => Self::Learner,
            replica::Role::Stopped => Self::Stopped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::entry::{self, Origin};
    use futures::StreamExt;
    use std::pin::pin;

    /// How long a condition may take, on a machine that does other things as well.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// A node by itself that serves.
    async fn alone(config: Config) -> Node {
        let node = Node::start(config).await.expect("it starts");
        node.ready(PATIENCE).await.expect("it serves");
        node
    }

    /// Why a node does not take a group that is forwarded to it in its own name.
    async fn refusal(node: &Node, group: Bytes) -> String {
        let net = Ground::default().net;
        let peers = Peers::new(net, node.id(), node.inner.peers.cluster(), None);
        let groups = futures::stream::iter([group]).chain(futures::stream::pending());
        let answers = peers.forward(node.id(), node.raft_addr(), groups).await;
        let mut answers = pin!(answers.expect("a stream"));
        let heard = tokio::time::timeout(PATIENCE, answers.next()).await;
        let heard = heard.expect("it was taken").expect("a word");
        heard.expect_err("it was taken").message().to_owned()
    }

    #[tokio::test]
    async fn a_forwarded_group_that_cannot_be_decoded_is_refused_and_the_node_serves_on() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let node = alone(Config::new(folder.path())).await;
        let origin = Origin {
            node: node.id(),
            start: 99,
            number: 1,
        };
        let set = || vec![Command::new(0, ["SET", "k", "v"])];
        let whole = entry::encode(origin, &set());
        for end in [0, 40, 44, whole.len() - 1] {
            let why = refusal(&node, whole.slice(..end)).await;
            assert!(why.contains("length does not fit"), "cut at {end}: {why}");
            node.write(set()).await.expect("it serves on");
        }
    }

    #[tokio::test]
    async fn more_commands_are_taken_back_at_once_than_the_queue_holds() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut config = Config::new(folder.path());
        config.limits.queue_commands = 8;
        let node = alone(config).await;
        let mut waits = Vec::new();
        for _ in 0..20 {
            let waiting = node.write([Command::new(0, ["BLPOP", "jobs", "0"])]).await;
            waits.push(waiting.expect("it waits"));
        }
        let count = || {
            node.view(0, |view| {
                view.store()
                    .waiting()
                    .of_caller((node.id(), node.inner.start))
                    .count()
            })
        };
        assert_eq!(count(), 20);
        drop(waits);
        let began = Instant::now();
        while count() > 0 {
            assert!(began.elapsed() < PATIENCE, "{} wait still", count());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_stop_that_nobody_waits_for_any_more_ends_all_the_same() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let node = alone(Config::new(folder.path())).await;
        let stop = tokio::time::timeout(Duration::ZERO, node.stop()).await;
        assert!(stop.is_err(), "it takes longer");
        let again = tokio::time::timeout(PATIENCE, node.stop()).await;
        again.expect("it ends").expect("well");
        assert_eq!(tokio::time::timeout(PATIENCE, node.stopped()).await, Ok(None));
    }
}
