//! Scripts: evaluated once, on the leader, on a thread of their own; what they come to goes through the log, they themselves do not.
//!
//! ```text
//! caller ─► Scripts::run ─► leader: evaluator thread: scratch machine ─► effects ─► log ─► every node applies them
//!    ▲                                                                                        │
//!    └──────────────────── answer, from this node's own apply ◄───────────────────────────────┘
//! ```
//!
//! Whoever asks numbers its request, and the machine applies a number once: so a request whose leader was lost is simply sent to the next.
//! A script that writes nothing puts nothing into the log; one that is known to only read runs on the node that was asked.
//!
//! | file | what it is |
//! |---|---|
//! | `request.rs` | what is asked, and its bytes between nodes |
//! | `lane.rs` | the way to a leader that is another node |
//! | `evaluator.rs` | the thread: queue, batches, what is under way |
//! | `compiler.rs` | whether a text is a script, on another thread |
//! | `desk.rs` | what a running script may ask of the world |
//! | `notes.rs` | what it did beside its answer, for who counts and shows it |
//! | `engine/` | Lua |
//! | `probe.rs` | for `fuzz/`: scripts without a node |

mod compiler;
mod desk;
pub(crate) mod engine;
mod evaluator;
mod lane;
mod notes;
pub(crate) mod probe;
mod request;

pub use crate::raft::client::{Kind, Running};
pub use notes::{Called, Denial, Notes, Slow, shortened};
pub use request::{Call, Request};

/// What a script's first line says of it.
pub(crate) use engine::{script_flags, sha1_hex as script_sha};

use super::hearing::Hearing;
use super::propose::Outbound;
use super::{Token, Written};
use crate::config::{REDIS_VERSION, Timing};
use crate::error::{Error, Result};
use crate::machine::event::Waiter;
use crate::machine::reply::{CommandError, Reply};
use crate::raft::client::Evaluated;
use crate::raft::replica::{LeaderWatch, Role};
use crate::raft::state_store::State;
use bytes::Bytes;
use compiler::Compiler;
use engine::Library;
use evaluator::{Evaluator, Job, Place};
use futures::FutureExt;
use lane::Lane;
use parking_lot::Mutex;
use request::Sender;
use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long to wait before a request is sent again that no leader took.
const AGAIN: Duration = Duration::from_millis(20);

/// A request whose effects were proposed but not seen here for this long is sent again, in case they were lost where nobody noticed.
const RESEND_AFTER: Duration = Duration::from_secs(1);

/// Scripts of which this node remembers whether they write.
const REMEMBERED: usize = 10_000;

/// How long another member may take to say what script it runs.
const PEER_PATIENCE: Duration = Duration::from_millis(500);

/// What the leader makes of a request.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It wrote nothing: the answer, and the index that its reader must have applied.
    Direct(Reply, u64, Notes),
    /// What it wrote is in the log, or soon will be: the answer comes with it.
    Proposed(Notes),
    /// It was not begun, for another has run for too long: what its caller is told.
    Busy(CommandError),
    /// It writes, and here it may not: ask the leader.
    Writes,
    /// It was not evaluated, and why.
    Refused(String),
    /// The leader that was asked did not answer: perhaps it has proposed what the script wrote.
    Lost(String),
}

/// The door for scripts.
pub(super) struct Scripts {
    own: (u64, u64),
    hearing: Arc<Hearing>,
    outbound: Outbound,
    evaluator: Arc<Evaluator>,
    compiler: Compiler,
    applied: watch::Receiver<u64>,
    timing: Timing,
    /// The way to the leader, where that is another node. Held to look or to begin a new one.
    lane: Mutex<Option<Lane>>,
    /// SHA-1s of scripts that wrote when they ran: they go to the leader at once. Held to look or put in.
    writers: Mutex<HashSet<Bytes>>,
}

impl Scripts {
    /// The door; starts the evaluator's thread.
    pub(super) fn start(
        own: (u64, u64),
        state: State,
        hearing: Arc<Hearing>,
        outbound: Outbound,
        timing: Timing,
        command_bytes: usize,
    ) -> Self {
        let applied = state.applied();
        let evaluator = Evaluator::start(state, outbound.clone(), command_bytes);
        hearing.evaluate_with(evaluator.clone());
        // It draws no chance that anybody sees.
        let compiler = Compiler::start(engine::Limits::new(REDIS_VERSION, 0));
        Self {
            own,
            hearing,
            outbound,
            evaluator,
            compiler,
            applied,
            timing,
            lane: Mutex::default(),
            writers: Mutex::default(),
        }
    }

    /// Runs a request: here if it only reads, else on the leader; the answer comes when what it wrote is applied here.
    pub(super) async fn run(&self, request: Request) -> Result<(Written, Notes)> {
        let request = Arc::new(request);
        let name = request.name();
        // A transaction goes to the leader at once: what was ended in it here would be begun there anew.
        if request.only_reads() || !request.transaction && !self.writers.lock().contains(&name) {
            match self.evaluate(self.job(&request, 0, Place::Here)).await {
                Verdict::Direct(reply, index, notes) => return Ok((written(reply, index), notes)),
                Verdict::Busy(error) if request.only_reads() => return Ok(busy(error)),
                Verdict::Refused(why) if request.only_reads() => {
                    return Err(Error::Stopped { why });
                }
                // The leader may have time for it.
                Verdict::Busy(_) => {}
                _ => {
                    let mut writers = self.writers.lock();
                    if writers.len() >= REMEMBERED {
                        writers.clear();
                    }
                    writers.insert(name);
                }
            }
        }
        let (number, answered) = self.hearing.ask();
        let asked = Asked {
            number,
            hearing: &self.hearing,
        };
        let outcome = self.ask_leaders(&request, number, answered).await;
        drop(asked);
        outcome
    }

    fn job(&self, request: &Arc<Request>, number: u64, place: Place) -> Job {
        let (node, start) = self.own;
        let caller = Waiter { node, start, number };
        let finished = self.hearing.first_asked().unwrap_or(number);
        Job::new(caller, finished, request.clone(), place)
    }

    /// Hands the request to one leader after the other until its answer is here or its time is over.
    async fn ask_leaders(
        &self,
        request: &Arc<Request>,
        number: u64,
        mut answered: tokio::sync::oneshot::Receiver<Reply>,
    ) -> Result<(Written, Notes)> {
        let began = Instant::now();
        // Beside the wait for a leader, a script may take its time.
        let deadline = began + self.timing.write_deadline + evaluator::ENDS_AFTER;
        let mut leaderless = began + self.timing.write_deadline;
        let (mut perhaps, mut notes) = (false, Notes::default());
        let mut watch = self.outbound.replica.watch_leader();
        loop {
            let (role, _, leader) = watch.now();
            let address = leader.and_then(|leader| watch.address(leader));
            let mut changes = watch.clone();
            let verdict = async {
                match leader {
                    Some(leader) if leader == self.own.0 && role == Role::Leader => {
                        self.evaluate(self.job(request, number, Place::Leader)).await
                    }
                    Some(leader) if leader != self.own.0 => match &address {
                        Some(address) => self.ask_peer(leader, address, request, number).await,
                        None => Verdict::Refused("the leader's address is not known".to_owned()),
                    },
                    _ => Verdict::Refused("there is no leader".to_owned()),
                }
            };
            let mut verdict = pin!(verdict);
            let verdict = tokio::select! {
                biased;
                reply = &mut answered => {
                    if notes.is_empty()
                        && let Some(Verdict::Proposed(of_it)) = verdict.as_mut().now_or_never()
                    {
                        notes = of_it;
                    }
                    return Ok((self.answer(reply, began)?, notes));
                }
                verdict = &mut verdict => verdict,
                // A leader that hangs keeps nobody waiting when another leads.
                () = another_leads(&mut changes, role, leader) => {
                    leaderless = Instant::now() + self.timing.write_deadline;
                    Verdict::Lost("another node leads by now".to_owned())
                }
                () = tokio::time::sleep_until(deadline) => return Err(unknown(began)),
            };
            let pause = match verdict {
                Verdict::Direct(reply, index, notes) => {
                    self.wait_for(index, deadline).await?;
                    return Ok((written(reply, index), notes));
                }
                // What was sent before may be in the log: then that is the answer.
                Verdict::Busy(error) if !perhaps => return Ok(busy(error)),
                Verdict::Busy(_) => RESEND_AFTER,
                Verdict::Proposed(of_it) => {
                    perhaps = true;
                    // Of what was sent before, the leader knows nothing to tell.
                    if notes.is_empty() {
                        notes = of_it;
                    }
                    RESEND_AFTER
                }
                Verdict::Writes => AGAIN,
                Verdict::Refused(ref why) | Verdict::Lost(ref why) => {
                    perhaps |= matches!(verdict, Verdict::Lost(_));
                    if Instant::now() >= leaderless {
                        let waited = began.elapsed();
                        return Err(if perhaps {
                            unknown(began)
                        } else {
                            let why = why.clone();
                            Error::NoLeader { waited, why }
                        });
                    }
                    AGAIN
                }
            };
            tokio::select! {
                biased;
                reply = &mut answered => return Ok((self.answer(reply, began)?, notes)),
                () = tokio::time::sleep(pause) => {}
                () = another_leads(&mut watch, role, leader), if pause == RESEND_AFTER => {}
            }
        }
    }

    fn answer<E>(&self, reply: std::result::Result<Reply, E>, began: Instant) -> Result<Written> {
        let reply = reply.map_err(|_| unknown(began))?;
        Ok(written(reply, *self.applied.borrow()))
    }

    async fn wait_for(&self, index: u64, deadline: Instant) -> Result<()> {
        if *self.applied.borrow() >= index {
            return Ok(());
        }
        let mut applied = self.applied.clone();
        let reached = applied.wait_for(|applied| *applied >= index);
        match tokio::time::timeout_at(deadline, reached).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Error::NotFresh {
                waited: self.timing.write_deadline,
                why: "this node has not applied what the script read".to_owned(),
            }),
        }
    }

    async fn evaluate(&self, job: Job) -> Verdict {
        self.evaluator.evaluate(job).await
    }

    async fn ask_peer(&self, leader: u64, address: &str, request: &Request, number: u64) -> Verdict {
        let (node, start) = self.own;
        let bytes = request.to_bytes(Sender {
            caller: Waiter { node, start, number },
            finished: self.hearing.first_asked().unwrap_or(number),
            seen: *self.applied.borrow(),
        });
        let lane = {
            let mut lane = self.lane.lock();
            match &*lane {
                Some(lane) if lane.leads_to(leader, address) => lane.clone(),
                _ => lane
                    .insert(Lane::begin(self.outbound.peers.clone(), leader, address))
                    .clone(),
            }
        };
        match lane.evaluate(bytes).await {
            Some(Evaluated::Direct(reply, index, notes)) => {
                Verdict::Direct(reply, index, Notes::from_bytes(&notes))
            }
            Some(Evaluated::Proposed(notes)) => Verdict::Proposed(Notes::from_bytes(&notes)),
            Some(Evaluated::Busy(why)) => Verdict::Busy(CommandError::Other(why.into())),
            Some(Evaluated::Refused(why)) => Verdict::Refused(why),
            None => Verdict::Lost("the leader did not answer".to_owned()),
        }
    }

    /// Evaluates what another node asks this leader for.
    pub(super) async fn evaluate_for(&self, from: u64, bytes: &Bytes) -> Verdict {
        match Request::from_bytes(bytes) {
            Some((sender, _)) if sender.caller.node != from => {
                Verdict::Refused("a script that another node asks for".to_owned())
            }
            Some(_) if !self.outbound.replica.leads() => {
                Verdict::Refused("this node does not lead".to_owned())
            }
            Some((sender, request)) => {
                // What is committed may be applied, and answered, there before it is applied here.
                let deadline = Instant::now() + self.timing.write_deadline;
                if let Err(error) = self.wait_for(sender.seen, deadline).await {
                    return Verdict::Refused(error.to_string());
                }
                let Sender { caller, finished, .. } = sender;
                self.evaluate(Job::new(caller, finished, Arc::new(request), Place::Leader))
                    .await
            }
            None => Verdict::Refused("a script in a format that a later version may know".to_owned()),
        }
    }

    /// Compiles a script; its SHA-1.
    pub(super) async fn compile(&self, text: Bytes) -> std::result::Result<String, CommandError> {
        self.compiler.compile(text).await
    }

    /// Loads a library for the list of its functions.
    pub(super) async fn load_library(&self, code: Bytes) -> std::result::Result<Library, CommandError> {
        self.compiler.load_library(code).await
    }

    /// Ends the evaluator's thread and the way to the leader.
    pub(super) fn stop(&self) {
        *self.lane.lock() = None;
        self.evaluator.stop();
    }

    /// Whether scripts may call what is not for scripts.
    pub(super) fn allow_all(&self, allowed: bool) {
        self.evaluator.control.allow_all.store(allowed, Ordering::Relaxed);
    }

    pub(super) fn busy_after_ms(&self) -> u64 {
        self.evaluator.control.busy_after_ms.load(Ordering::Relaxed)
    }

    pub(super) fn set_busy_after_ms(&self, milliseconds: u64) {
        let control = &self.evaluator.control;
        control.busy_after_ms.store(milliseconds, Ordering::Relaxed);
    }

    /// What is answered on this node to who cannot be served while a script runs for too long; none: nothing does.
    pub(super) fn busy(&self) -> Option<CommandError> {
        self.evaluator.control.busy()
    }

    /// Which script runs on this node; it is ended if it is of this kind and has run for too long.
    pub(super) fn running_here(&self, kill: Option<Kind>) -> Option<Running> {
        self.evaluator.control.end(kill)
    }

    /// Ends a script of this kind that has run for too long: on this node, else on the leader, else on another member. Only what
    /// runs is ended, and nothing that it wrote is in the log yet.
    ///
    /// # Errors
    /// Redis' text where none has, or where only one of the other kind has.
    pub(super) async fn kill(&self, kind: Kind) -> std::result::Result<(), CommandError> {
        const NOTHING: CommandError = CommandError::text("NOTBUSY No scripts in execution right now.");
        let mut other = None;
        let mut ended = |running: Option<Running>| {
            let running = running.filter(|running| running.busy)?;
            if running.killed {
                return Some(());
            }
            other = Some(running.function);
            None
        };
        if ended(self.running_here(Some(kind))).is_some() {
            return Ok(());
        }
        for (id, address) in self.others() {
            if ended(self.running_on(id, &address, Some(kind)).await).is_some() {
                return Ok(());
            }
        }
        Err(other.map_or(NOTHING, |function| {
            evaluator::busy_error(if function { Kind::Function } else { Kind::Script })
        }))
    }

    /// The function that runs on this node, else on the leader, else on another member.
    ///
    /// # Errors
    /// Redis' text where no function runs, but a script has run for too long.
    pub(super) async fn running_function(&self) -> std::result::Result<Option<Running>, CommandError> {
        let mut found = self.running_here(None);
        for (id, address) in self.others() {
            if found.as_ref().is_some_and(|running| running.function) {
                break;
            }
            let running = self.running_on(id, &address, None).await;
            found = running
                .filter(|running| running.function || running.busy)
                .or(found);
        }
        match found {
            Some(running) if running.function => Ok(Some(running)),
            Some(running) if running.busy => Err(evaluator::busy_error(Kind::Script)),
            _ => Ok(None),
        }
    }

    async fn running_on(&self, id: u64, address: &str, kill: Option<Kind>) -> Option<Running> {
        let asked = self.outbound.peers.running(id, address, kill);
        // Who does not answer runs nothing that could be ended.
        tokio::time::timeout(PEER_PATIENCE, asked).await.ok()?.ok()?
    }

    /// The other members, the leader first.
    fn others(&self) -> Vec<(u64, String)> {
        let state = self.outbound.replica.state();
        let others = state.members.into_iter().filter(|(id, _)| *id != self.own.0);
        let mut others: Vec<_> = others.map(|(id, (member, _))| (id, member.raft_addr)).collect();
        others.sort_by_key(|(id, _)| state.leader != Some(*id));
        others
    }
}

/// Until another node leads than the one that did, or none does; also when Raft has stopped.
async fn another_leads(watch: &mut LeaderWatch, role: Role, leader: Option<u64>) {
    while watch.changed().await {
        let (new_role, _, new_leader) = watch.now();
        if (new_role == Role::Leader, new_leader) != (role == Role::Leader, leader) {
            return;
        }
    }
}

/// A request somebody waits for; it is no more when this is dropped.
struct Asked<'a> {
    number: u64,
    hearing: &'a Hearing,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.hearing.ask_no_more(self.number);
    }
}

fn written(reply: Reply, index: u64) -> Written {
    Written {
        replies: vec![reply],
        token: Token(index),
        waits: Vec::new(),
    }
}

fn busy(error: CommandError) -> (Written, Notes) {
    (written(Reply::Error(error), 0), Notes::default())
}

fn unknown(began: Instant) -> Error {
    Error::Unknown {
        waited: began.elapsed(),
        why: "no majority has confirmed what the script wrote".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::machine::entry::Command;
    use crate::node::Node;

    /// A follower may have applied, and answered, what its leader has committed and not applied yet.
    #[tokio::test]
    async fn a_leader_runs_a_script_on_nothing_older_than_what_its_caller_has_seen() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let node = Node::start(Config::new(folder.path())).await.expect("it starts");
        node.ready(Duration::from_secs(30)).await.expect("it serves");
        let scripts = &node.inner.scripts;
        let asked = |number, seen| {
            let get = Call::Script {
                text: "return redis.call('GET', KEYS[1])".into(),
                keys: vec!["k".into()],
                args: Vec::new(),
                read_only: false,
            };
            Request::one("default".into(), 0, get).to_bytes(Sender {
                caller: Waiter {
                    node: 7,
                    start: 1,
                    number,
                },
                finished: number,
                seen,
            })
        };
        let applied = *scripts.applied.borrow();
        let (of_later, of_now) = (asked(1, applied + 10), asked(2, applied));
        let mut later = pin!(scripts.evaluate_for(7, &of_later));
        assert!(later.as_mut().now_or_never().is_none());
        // Whatever was handed to the thread before this one has been evaluated when this one is answered.
        let now = scripts.evaluate_for(7, &of_now).await;
        assert!(matches!(now, Verdict::Direct(Reply::Nil, ..)), "{now:?}");
        for _ in 0..20 {
            let set = Command::new(0, ["SET", "k", "v"].map(Bytes::from));
            node.write(vec![set]).await.expect("it writes");
        }
        let later = later.await;
        let Verdict::Direct(reply, index, _) = &later else {
            panic!("{later:?}");
        };
        assert_eq!(*reply, Reply::bulk("v"));
        assert!(*index >= applied + 10);
        node.stop().await.expect("it stops");
    }
}
