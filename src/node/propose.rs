//! The one door for writes: collects commands into groups, numbers them, sends them to the leader, sends them again until they are
//! applied here, and answers each caller from this node's own apply.
//!
//! A node collects into the next group while the ones before are being replicated, so an idle node sends at once and a busy one batches by
//! itself; `linger` says when a group waits for callers that were just answered. Groups are numbered in the order they were sealed, and the
//! machine applies each number once and in order: so whatever is in doubt — an answer lost, a leader changed, a stream broken — is simply
//! sent again.

use super::clock::Clock;
use super::fellows::Fellows;
use super::hearing::Hearing;
use super::linger::{Expected, Linger};
#[cfg(feature = "lua")]
use super::renew::Renewals;
use super::{Token, Written};
use crate::config::{Limits, Timing};
use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::machine::entry::{self, Command, Origin, Part};
use crate::machine::event::Event;
use crate::machine::reply::Reply;
use crate::raft::answers::Answers;
use crate::raft::client::Peers;
use crate::raft::replica::{LeaderWatch, Replica, Role};
use crate::raft::state_store::State;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
#[cfg(feature = "lua")]
use tokio::sync::OwnedRwLockWriteGuard;
use tokio::sync::{Notify, RwLock, mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

/// A group that was not applied for this long is sent again, in case it was lost where nobody noticed: see [`Silence`].
const RESEND_AFTER: Duration = Duration::from_secs(1);

/// The same at most. Its callers have been told by then that nobody knows; but what flies holds up what comes behind it.
const RESEND_MOST: Duration = Duration::from_secs(16);

/// How long to wait after a refusal before the groups are sent again: at first, and at most.
const RETRY_FIRST: Duration = Duration::from_millis(5);
const RETRY_MOST: Duration = Duration::from_millis(100);

/// How long the leader holds a group back while memory is full and keys are being evicted: less than [`RESEND_AFTER`], so that it is not sent
/// again meanwhile.
const HELD_BACK: Duration = Duration::from_millis(500);

/// Turns of the other tasks that a group that could be sealed leaves them to add to it, at most.
const GATHER_TURNS: usize = 3;

/// One call of `write` that waits for a place in a group.
struct Request {
    part: Part,
    deadline: Instant,
    answer: oneshot::Sender<Result<Written>>,
}

/// The caller's side.
#[derive(Debug)]
pub(super) struct Proposer {
    sender: mpsc::Sender<Request>,
    flights: Arc<Flights>,
    limits: Limits,
    write_deadline: Duration,
}

/// What waits for a place in a group, counted to bound it.
#[derive(Debug, Default)]
struct Queued {
    commands: AtomicUsize,
    bytes: AtomicUsize,
}

impl Queued {
    fn add(&self, request: &Request) {
        self.commands
            .fetch_add(request.part.commands(), Ordering::Relaxed);
        self.bytes.fetch_add(request.part.bytes(), Ordering::Relaxed);
    }

    fn remove(&self, request: &Request) {
        self.commands
            .fetch_sub(request.part.commands(), Ordering::Relaxed);
        self.bytes.fetch_sub(request.part.bytes(), Ordering::Relaxed);
    }
}

/// A sealed group that was not applied here yet.
struct Flight {
    group: Bytes,
    /// How many commands each caller gave, and where its answer goes; none once they were told that the outcome is unknown.
    callers: Vec<(usize, oneshot::Sender<Result<Written>>)>,
    deadline: Instant,
    /// When it was first sent to who leads now.
    sent: Instant,
}

/// How long the groups in flight may take before they are sent again for silence alone. What has reached a leader is lost only with it, or where a lane tells of it:
/// so this is for what nobody thought of, and a slow link or a node that is behind must not have to carry everything twice.
/// Held to look or to set it: by the courier, and where a group lands.
struct Silence(Mutex<Duration>);

impl Default for Silence {
    fn default() -> Self {
        Self(Mutex::new(RESEND_AFTER))
    }
}

impl Silence {
    fn allowed(&self) -> Duration {
        *self.0.lock()
    }

    fn allow(&self, length: Duration) {
        *self.0.lock() = length.clamp(RESEND_AFTER, RESEND_MOST);
    }

    /// A group has landed after so long: the next may take twice that.
    fn landed(&self, after: Duration) {
        self.allow(after * 2);
    }

    /// All was sent again for silence alone.
    fn was_broken(&self) {
        self.allow(self.allowed() * 2);
    }

    /// Another leads, or the lane has told of trouble: what was is nothing to go by.
    fn begin_anew(&self) {
        self.allow(RESEND_AFTER);
    }
}

/// The groups in flight. The apply task takes one out when it was applied; the proposer's task puts them in and watches over them.
#[derive(Default)]
pub(super) struct Flights {
    /// Held to put in, look at or take out a group; never across an await.
    groups: Mutex<BTreeMap<u64, Flight>>,
    /// What waits until there is room in the air.
    queued: Queued,
    /// Something happened that the proposer's task must look at.
    wake: Notify,
    /// The groups in flight must be sent again.
    resend: AtomicBool,
    /// Why a leader took no groups last, until one lands. Held to note it or to look.
    refusal: Mutex<Option<String>>,
    silence: Silence,
    /// Callers that may write again at once.
    expected: Expected,
    /// Who else hears what is applied.
    hearing: Arc<Hearing>,
    /// What was sealed since the start, for the status.
    groups_sealed: AtomicU64,
    commands_sealed: AtomicU64,
}

impl std::fmt::Debug for Flights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Flights({} groups)", self.groups.lock().len())
    }
}

impl Flights {
    /// Who else hears what is applied.
    pub(super) fn hearing(&self) -> &Arc<Hearing> {
        &self.hearing
    }

    fn ask_resend(&self) {
        self.resend.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// A lane has ended: its leader takes no groups.
    fn refused(&self, why: impl ToString) {
        *self.refusal.lock() = Some(why.to_string());
        self.ask_resend();
    }

    /// The outcome of these callers' writes can no longer be known.
    fn answer_unknown(callers: Vec<(usize, oneshot::Sender<Result<Written>>)>, waited: Duration, why: &str) {
        for (_, answer) in callers {
            // A caller that has gone needs no answer.
            let _ = answer.send(Err(Error::Unknown {
                waited,
                why: why.to_owned(),
            }));
        }
    }
}

/// What the state store tells of this node's own groups.
impl Answers for Flights {
    /// Whose command waits in the log is noted before the events, which may have its answer; callers are answered after them.
    fn applied(&self, index: u64, own: Option<(u64, Vec<Reply>)>, events: Vec<Event>) {
        let (number, replies) = own.unwrap_or_default();
        let flight = self.groups.lock().remove(&number);
        if let Some(flight) = &flight {
            *self.refusal.lock() = None;
            self.silence.landed(flight.sent.elapsed());
        }
        let landed = flight.is_some();
        let mut replies = replies.into_iter();
        let mut answers = Vec::new();
        for (count, answer) in flight.into_iter().flat_map(|flight| flight.callers) {
            let replies: Vec<Reply> = replies.by_ref().take(count).collect();
            let waits = replies.iter().filter_map(|reply| match reply {
                Reply::Waiting(number) => Some(self.hearing.wait(*number)),
                _ => None,
            });
            let (waits, token) = (waits.collect(), Token(index));
            answers.push((
                answer,
                Written {
                    replies,
                    token,
                    waits,
                },
            ));
        }
        // Callers who were told that the outcome is unknown wait for nothing any more.
        for reply in replies {
            if let Reply::Waiting(number) = reply {
                self.hearing.abandon(number);
            }
        }
        self.hearing.happened(&events);
        self.expected.answered(answers.len());
        for (answer, written) in answers {
            // A caller that has gone needs no answer.
            let _ = answer.send(Ok(written));
        }
        // What comes from now on wakes the proposer's task by itself.
        if landed && self.queued.commands.load(Ordering::Relaxed) > 0 {
            self.wake.notify_one();
        }
    }

    fn replaced(&self, machine: &Machine) {
        self.hearing.replaced(machine);
    }

    fn early(&self) {
        self.ask_resend();
    }

    fn lost(&self, number: u64) {
        let mut groups = self.groups.lock();
        let rest = groups.split_off(&number.saturating_add(1));
        let lost = std::mem::replace(&mut *groups, rest);
        drop(groups);
        for flight in lost.into_values() {
            let why = "it was applied by a snapshot, which carries no replies";
            Self::answer_unknown(flight.callers, Duration::ZERO, why);
        }
        self.wake.notify_one();
    }
}

impl Proposer {
    /// The door, and the flights for the state store.
    pub(super) fn new(limits: Limits, timing: Timing, flights: Arc<Flights>) -> (Self, Intake) {
        let (sender, requests) = mpsc::channel(limits.queue_commands);
        let door = Self {
            sender,
            flights,
            limits,
            write_deadline: timing.write_deadline,
        };
        (door, Intake { requests })
    }

    /// Commands that this node sealed into groups since its start, and how many groups.
    pub(super) fn sealed(&self) -> (u64, u64) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (
            load(&self.flights.commands_sealed),
            load(&self.flights.groups_sealed),
        )
    }

    /// Whether nothing waits or flies.
    pub(super) fn is_idle(&self) -> bool {
        self.flights.queued.commands.load(Ordering::Relaxed) == 0 && self.flights.groups.lock().is_empty()
    }

    /// Applies the commands in order and together. Answers when they are applied here.
    pub(super) async fn write(&self, commands: impl AsRef<[Command]>) -> Result<Written> {
        let answered = self.ask(commands.as_ref())?;
        // A caller's buffer is not held while its commands are on their way.
        drop(commands);
        // Whoever waits is answered before the other end goes. If it went all the same, the write may be under way.
        answered.await.unwrap_or_else(|_| {
            Err(Error::Unknown {
                waited: Duration::ZERO,
                why: "this node stopped before it was confirmed".to_owned(),
            })
        })
    }

    /// Gives commands to the task that makes groups: where the answer comes.
    fn ask(&self, commands: &[Command]) -> Result<oneshot::Receiver<Result<Written>>> {
        let bytes = commands.iter().map(Command::encoded_len).sum();
        if bytes > self.limits.command_bytes {
            return Err(Error::TooLarge {
                size: bytes,
                limit: self.limits.command_bytes,
            });
        }
        let queue = &self.flights.queued;
        let bounds = [
            (
                &queue.commands,
                commands.len(),
                "commands",
                self.limits.queue_commands,
            ),
            (&queue.bytes, bytes, "bytes", self.limits.queue_bytes),
        ];
        for (queued, more, unit, limit) in bounds {
            let queued = queued.load(Ordering::Relaxed);
            if queued + more > limit {
                return Err(Error::Overloaded { queued, unit, limit });
            }
        }
        let (answer, answered) = oneshot::channel();
        let request = Request {
            part: Part::new(commands),
            deadline: Instant::now() + self.write_deadline,
            answer,
        };
        queue.add(&request);
        self.sender.try_send(request).map_err(|error| match error {
            mpsc::error::TrySendError::Full(request) => {
                queue.remove(&request);
                Error::Overloaded {
                    queued: self.limits.queue_commands,
                    unit: "commands",
                    limit: self.limits.queue_commands,
                }
            }
            mpsc::error::TrySendError::Closed(request) => {
                queue.remove(&request);
                stopped()
            }
        })?;
        Ok(answered)
    }
}

fn stopped() -> Error {
    Error::Stopped {
        why: "it was asked to".to_owned(),
    }
}

/// The queue's other end, until the task that empties it starts.
pub(super) struct Intake {
    requests: mpsc::Receiver<Request>,
}

/// The proposer's task.
pub(super) struct Courier {
    requests: mpsc::Receiver<Request>,
    waiting: VecDeque<Request>,
    flights: Arc<Flights>,
    limits: Limits,
    timing: Timing,
    origin: Origin,
    route: Option<Route>,
    /// When the groups in flight may be sent again after a refusal.
    retry_at: Option<Instant>,
    retry_wait: Duration,
    /// When anything was last sent, or applied while something waited.
    moved_at: Instant,
    linger: Linger,
    watch: LeaderWatch,
    outbound: Outbound,
}

/// Where groups go now: the lane ends when this is dropped.
struct Route {
    leader: u64,
    term: u64,
    lane: mpsc::Sender<Bytes>,
}

/// What it takes to open a lane.
#[derive(Clone)]
pub(super) struct Outbound {
    pub(super) node: u64,
    pub(super) replica: Arc<Replica>,
    pub(super) peers: Arc<Peers>,
    pub(super) clock: Arc<Clock>,
    /// Open to all who propose; closed by a script that must run alone. Held until what was proposed is applied.
    pub(super) gate: Arc<RwLock<()>>,
    /// Held by the one who is next to pass [`Outbound::pass`], so that groups stay in their order; at most for [`HELD_BACK`].
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    /// What this node has applied: how full memory is.
    pub(super) state: State,
    /// The other members, as far as this node hears from them.
    pub(super) fellows: Arc<Fellows>,
    /// Lives that scripts renewed without a write.
    #[cfg(feature = "lua")]
    pub(super) renewals: Arc<Renewals>,
}

impl Outbound {
    /// Stamps a group with the members' level and this leader's time and chance and hands it to Raft. `Some`: why it was not applied.
    pub(super) async fn propose(&self, group: Bytes) -> Option<String> {
        let came = Instant::now();
        let turn = self.turn.lock().await;
        self.pass(came).await;
        self.clock.agreed().await;
        let _open = self.gate.read().await;
        drop(turn);
        self.hand_over(group).await
    }

    /// The same for what frees memory: it is never held back.
    pub(super) async fn propose_at_once(&self, group: Bytes) -> Option<String> {
        self.clock.agreed().await;
        let _open = self.gate.read().await;
        self.hand_over(group).await
    }

    /// Waits while more memory is in use than `maxmemory` and it grows faster than keys are evicted; no longer than [`HELD_BACK`] since the
    /// group came.
    async fn pass(&self, came: Instant) {
        let fullness = self.state.fullness();
        if fullness.holds_back() {
            let eased = tokio::time::timeout_at(came + HELD_BACK, fullness.eased());
            if eased.await.is_err() {
                tracing::debug!("keys are evicted more slowly than others are written");
            }
        }
    }

    /// The same for whoever has closed the gate.
    #[cfg(feature = "lua")]
    pub(super) async fn propose_through(
        &self,
        _closed: &OwnedRwLockWriteGuard<()>,
        group: Bytes,
    ) -> Option<String> {
        self.hand_over(group).await
    }

    /// The level that the members agree on. It never falls behind what the log has, whoever is heard from.
    fn level(&self) -> u8 {
        self.fellows.level().max(self.state.level())
    }

    async fn hand_over(&self, group: Bytes) -> Option<String> {
        let group = entry::stamp(group, self.level(), self.clock.now(), self.clock.chance());
        self.replica.propose(group).await.err()
    }
}

impl Courier {
    pub(super) fn new(
        intake: Intake,
        flights: Arc<Flights>,
        limits: Limits,
        timing: Timing,
        start: u64,
        outbound: Outbound,
    ) -> Self {
        Self {
            requests: intake.requests,
            waiting: VecDeque::new(),
            flights,
            limits,
            timing,
            origin: Origin {
                node: outbound.node,
                start,
                number: 0,
            },
            route: None,
            retry_at: None,
            retry_wait: RETRY_FIRST,
            moved_at: Instant::now(),
            linger: Linger::new(),
            watch: outbound.replica.watch_leader(),
            outbound,
        }
    }

    /// Runs until every [`Proposer`] is dropped or Raft stops; answers what is left then.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(self.limits.group_commands);
        loop {
            self.follow_leader();
            let lingers_until = self.linger();
            if lingers_until.is_none() {
                self.gather().await;
                self.seal_groups();
            }
            let wake_at = lingers_until.into_iter().fold(self.next_deadline(), Instant::min);
            // Taking from the queue stops while enough for the next group waits here: the queue's bound counts both.
            let room = self.limits.group_commands.saturating_sub(self.waiting.len());
            tokio::select! {
                // What is rare comes first: a landing, another leader. Of requests there may be one more at any time, until there is no room for them.
                biased;
                () = self.flights.wake.notified() => self.moved_at = Instant::now(),
                running = self.watch.changed() => {
                    if !running {
                        break;
                    }
                }
                taken = self.requests.recv_many(&mut batch, room), if room > 0 => {
                    if taken == 0 {
                        break;
                    }
                    self.flights.expected.came(taken);
                    self.waiting.extend(batch.drain(..));
                }
                () = tokio::time::sleep_until(wake_at) => self.expire(),
            }
        }
        self.close();
    }

    /// Opens a lane to the leader when there is another one, or when groups must be sent again; sends all in flight on it, oldest first.
    fn follow_leader(&mut self) {
        let (role, term, leader) = self.watch.now();
        let leads = self
            .route
            .as_ref()
            .is_some_and(|route| Some(route.leader) == leader && route.term == term);
        let told = self.flights.resend.load(Ordering::Acquire);
        let silent = leads
            && self.moved_at.elapsed() >= self.flights.silence.allowed()
            && !self.flights.groups.lock().is_empty();
        if !leads {
            self.route = None;
            self.retry_at = None;
            self.retry_wait = RETRY_FIRST;
        } else if (told || silent) && self.retry_at.is_none() {
            self.retry_at = Some(Instant::now() + self.retry_wait);
            self.retry_wait = (self.retry_wait * 2).min(RETRY_MOST);
            if !told {
                self.flights.silence.was_broken();
            }
        }
        let due = self.retry_at.is_some_and(|at| at <= Instant::now());
        if leads && !due {
            return;
        }
        let Some(route) = leader.and_then(|leader| self.open_lane(leader, role, term)) else {
            self.retry_at = due.then(|| Instant::now() + RETRY_MOST);
            return;
        };
        let told = self.flights.resend.swap(false, Ordering::AcqRel);
        let anew = told || !leads;
        if anew {
            self.flights.silence.begin_anew();
        }
        let now = Instant::now();
        (self.retry_at, self.moved_at) = (None, now);
        for flight in self.flights.groups.lock().values_mut() {
            if anew {
                flight.sent = now;
            }
            // A lane has room for all that may be in flight.
            let _ = route.lane.try_send(flight.group.clone());
        }
        self.route = Some(route);
    }

    /// A further group flies beside others only where it has as many callers as the last of them, or is full: two small ones would go on
    /// by turns, each at the price of one that has them all.
    fn may_seal(&self) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        let groups = self.flights.groups.lock();
        let last = groups.values().next_back().map(|last| last.callers.len());
        groups.len() < self.limits.groups_in_flight && may_fly(self.waiting.len(), self.is_full(), last)
    }

    /// Whether what waits is enough for a group that can take no more commands.
    fn is_full(&self) -> bool {
        self.flights.queued.commands.load(Ordering::Relaxed) >= self.limits.group_commands
    }

    /// Until when the group that could be sealed waits for callers that were just answered.
    fn linger(&mut self) -> Option<Instant> {
        if !self.may_seal() {
            return None;
        }
        if self.is_full() {
            self.linger.give_up(&self.flights.expected);
            return None;
        }
        self.linger.wait(&self.flights.expected, Instant::now())
    }

    /// Before a group is sealed, lets those who can run now add to it: when a group has landed all its callers are answered at once, and the first
    /// to write again would have the next group for itself. Nobody is waited for: it ends with a turn that brought nothing.
    async fn gather(&mut self) {
        for _ in 0..GATHER_TURNS {
            if !self.may_seal() {
                return;
            }
            yield_now().await;
            let before = self.waiting.len();
            while self.waiting.len() < self.limits.group_commands
                && let Ok(request) = self.requests.try_recv()
            {
                self.flights.expected.came(1);
                self.waiting.push_back(request);
            }
            if self.waiting.len() == before {
                return;
            }
        }
    }

    fn open_lane(&self, leader: u64, role: Role, term: u64) -> Option<Route> {
        let address = self.watch.address(leader)?;
        let (lane, groups) = mpsc::channel(self.limits.groups_in_flight);
        let groups = ReceiverStream::new(groups);
        let (outbound, flights) = (self.outbound.clone(), self.flights.clone());
        if leader == outbound.node {
            if role != Role::Leader {
                return None;
            }
            tokio::spawn(local_lane(
                outbound,
                flights,
                groups,
                self.limits.groups_in_flight,
            ));
        } else {
            tokio::spawn(remote_lane(outbound, flights, groups, leader, address));
        }
        Some(Route { leader, term, lane })
    }

    /// Seals waiting requests into groups while a lane is open and not too many groups fly.
    fn seal_groups(&mut self) {
        while self.may_seal() {
            let Some(route) = &self.route else { return };
            let (mut parts, mut callers) = (Vec::new(), Vec::new());
            let (mut commands, mut bytes) = (0, 0);
            let deadline = self.waiting[0].deadline;
            while let Some(next) = self.waiting.front() {
                let fits = commands + next.part.commands() <= self.limits.group_commands
                    && bytes + next.part.bytes() <= self.limits.group_bytes;
                if !fits && !parts.is_empty() {
                    break;
                }
                let Some(next) = self.waiting.pop_front() else {
                    break;
                };
                self.flights.queued.remove(&next);
                commands += next.part.commands();
                bytes += next.part.bytes();
                callers.push((next.part.commands(), next.answer));
                parts.push(next.part);
            }
            self.origin.number += 1;
            self.flights
                .commands_sealed
                .fetch_add(commands as u64, Ordering::Relaxed);
            self.flights.groups_sealed.fetch_add(1, Ordering::Relaxed);
            let group = entry::join(self.origin, &parts);
            let flight = Flight {
                group: group.clone(),
                callers,
                deadline,
                sent: Instant::now(),
            };
            self.flights.groups.lock().insert(self.origin.number, flight);
            self.moved_at = Instant::now();
            // A lane that has ended will be opened anew, and this group sent on it.
            if route.lane.try_send(group).is_err() {
                self.flights.ask_resend();
            }
        }
    }

    fn next_deadline(&self) -> Instant {
        let flights = self.flights.groups.lock();
        let flying = flights
            .values()
            .filter(|flight| !flight.callers.is_empty())
            .map(|flight| flight.deadline);
        let waiting = self.waiting.front().map(|request| request.deadline);
        // Once a retry is set, it is what is waited for: a resend that is overdue meanwhile would wake this task without end.
        let resend = (self.retry_at.is_none() && self.route.is_some() && !flights.is_empty())
            .then(|| self.moved_at + self.flights.silence.allowed());
        let idle = Instant::now() + RESEND_AFTER;
        flying
            .chain(waiting)
            .chain(self.retry_at)
            .chain(resend)
            .min()
            .unwrap_or(idle)
    }

    /// Answers those whose time is up: what flies may still be applied, what waits was never sent.
    fn expire(&mut self) {
        let now = Instant::now();
        let waited = self.timing.write_deadline;
        for flight in self.flights.groups.lock().values_mut() {
            if flight.deadline <= now {
                let callers = std::mem::take(&mut flight.callers);
                Flights::answer_unknown(callers, waited, "no majority has confirmed it");
            }
        }
        while self
            .waiting
            .front()
            .is_some_and(|request| request.deadline <= now)
        {
            let Some(request) = self.waiting.pop_front() else {
                break;
            };
            self.flights.queued.remove(&request);
            let why = self.why_waiting();
            let _ = request.answer.send(Err(Error::NoLeader { waited, why }));
        }
    }

    fn why_waiting(&self) -> String {
        let state = self.outbound.replica.state();
        let voters = state.members.values().filter(|(_, voter)| *voter).count();
        match state.leader {
            None => format!(
                "this node is a {} of {voters} voters in term {}",
                state.role.name(),
                state.term
            ),
            Some(leader) => {
                let refusal = self.flights.refusal.lock().clone();
                let refusal = refusal.map(|why| format!(" ({why})")).unwrap_or_default();
                format!(
                    "node {leader} leads {voters} voters, but what was sent before is not confirmed{refusal}"
                )
            }
        }
    }

    fn close(mut self) {
        self.requests.close();
        while let Ok(request) = self.requests.try_recv() {
            self.waiting.push_back(request);
        }
        for request in self.waiting.drain(..) {
            let _ = request.answer.send(Err(stopped()));
        }
        let flights = std::mem::take(&mut *self.flights.groups.lock());
        for flight in flights.into_values() {
            Flights::answer_unknown(
                flight.callers,
                Duration::ZERO,
                "this node stopped before it was confirmed",
            );
        }
    }
}

/// This node leads: groups go straight to Raft, in order, several at once.
async fn local_lane(
    outbound: Outbound,
    flights: Arc<Flights>,
    groups: ReceiverStream<Bytes>,
    at_once: usize,
) {
    let mut refusals = groups.map(|group| outbound.propose(group)).buffered(at_once);
    while let Some(refused) = refusals.next().await {
        if let Some(why) = refused {
            tracing::debug!(why, "a group was refused by this node's own Raft");
            return flights.refused(why);
        }
    }
}

/// Another node leads: groups go to it on one stream. Ends at the first refusal.
async fn remote_lane(
    outbound: Outbound,
    flights: Arc<Flights>,
    groups: ReceiverStream<Bytes>,
    leader: u64,
    address: String,
) {
    let mut answers = match outbound.peers.forward(leader, &address, groups).await {
        Ok(answers) => Box::pin(answers),
        Err(status) => {
            tracing::debug!(leader, %status, "the leader does not take groups");
            return flights.refused(status.message());
        }
    };
    loop {
        match answers.next().await {
            Some(Ok((_, None))) => {}
            Some(Ok((number, Some(why)))) => {
                tracing::debug!(leader, number, why, "a group was refused by the leader");
                return flights.refused(why);
            }
            Some(Err(status)) => {
                tracing::debug!(leader, %status, "the stream to the leader broke");
                return flights.refused(status.message());
            }
            None => return,
        }
    }
}

/// Whether so many callers are enough for a further group, beside a last one of so many; none: nothing flies.
fn may_fly(waiting: usize, is_full: bool, last: Option<usize>) -> bool {
    is_full || last.is_none_or(|last| waiting >= last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_may_last_longer_each_time_and_twice_as_long_as_what_has_landed() {
        let silence = Silence::default();
        let broken = [1, 2, 4, 8, 16, 16].map(|expected| {
            let allowed = silence.allowed();
            silence.was_broken();
            (allowed, Duration::from_secs(expected))
        });
        assert!(
            broken.iter().all(|(allowed, expected)| allowed == expected),
            "{broken:?}"
        );
        silence.landed(Duration::from_millis(1_900));
        assert_eq!(silence.allowed(), Duration::from_millis(3_800), "a slow link");
        silence.landed(Duration::from_millis(5));
        assert_eq!(silence.allowed(), RESEND_AFTER);
        silence.was_broken();
        silence.begin_anew();
        assert_eq!(silence.allowed(), RESEND_AFTER);
    }

    #[test]
    fn a_further_group_flies_if_it_is_as_large_as_the_last_or_full() {
        assert!(may_fly(1, false, None), "nobody to wait for");
        assert!(
            !may_fly(63, false, Some(64)),
            "two small ones would go on by turns"
        );
        assert!(may_fly(64, false, Some(64)));
        assert!(may_fly(1, true, Some(64)), "it can take no more");
    }
}
