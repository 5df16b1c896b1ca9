//! The thread that evaluates: a queue, batches of scripts on top of each other, and what of them is under way in the log.
//!
//! Scripts whose keys are under way wait for their outcome; others go on. So scripts on one key follow each other without a retry, in the
//! order they came, and scripts on different keys share an entry of the log. A script whose keys were changed meanwhile by plain writes is evaluated
//! again; after [`TRIES`] in vain, and at once if it looks at all keys, it runs while nothing else is proposed.

use super::desk::{Desk, GivenUp};
use super::engine::{self, Engine, Run, ScriptFlags, Signals};
use super::notes::Notes;
use super::request::{Call, Request};
use super::{Outbound, Verdict};
use crate::config::REDIS_VERSION;
use crate::machine::effects::{self, Effects, Expected};
use crate::machine::entry::{self, Millis, Origin};
use crate::machine::event::{Event, Waiter};
use crate::machine::overlay::{Outcome, Overlay};
use crate::machine::reply::{CommandError, OUT_OF_MEMORY, Reply};
use crate::machine::table;
use crate::node::fellows::NO_REPLICAS;
use crate::node::hearing::Listener;
use crate::raft::client::{Kind, Running};
use crate::raft::ground;
use crate::raft::state_store::State;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedRwLockWriteGuard, mpsc, oneshot, watch};
use tokio::time::Instant;

/// Requests that wait or are under way on one node, at most.
const QUEUE: usize = 16 << 10;

/// Scripts of one batch, at most.
const BATCH: usize = 256;

/// Batches under way, at most.
const UNDER_WAY: usize = 4;

/// Evaluations of one script before it runs alone.
const TRIES: u32 = 3;

/// After this a run counts as busy and can be killed, unless it is set otherwise. Redis: `lua-time-limit`.
const BUSY_AFTER_MS: u64 = 5_000;

/// After this a run is ended.
pub(super) const ENDS_AFTER: Duration = Duration::from_secs(30);

/// The same for a run during which nobody else can write.
const ALONE_ENDS_AFTER: Duration = Duration::from_secs(1);

/// How long a script that must run alone waits for what is proposed before it, while no other script runs.
const ALONE_WAITS: Duration = Duration::from_secs(1);

/// What is answered where a script writes or answers more than there is room for.
const TOO_MUCH: CommandError = CommandError::text(
    "ERR Script ended: what it writes, with its answer, is more than an entry of the log holds (command_bytes)",
);

/// Where a request is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On the node that was asked: it may only read.
    Here,
    /// On the leader.
    Leader,
}

/// One request.
#[derive(Debug)]
pub(super) struct Job {
    caller: Waiter,
    finished: u64,
    request: Arc<Request>,
    place: Place,
    /// The keys it is known to touch.
    keys: BTreeSet<(u8, Bytes)>,
    tries: u32,
    needs_all: bool,
    answer: Option<oneshot::Sender<Verdict>>,
    /// Set by whoever is first: the thread that begins to evaluate it, or the one who gives it up because another takes too long.
    claimed: Arc<AtomicBool>,
    /// Whether the thread was.
    begun: bool,
    /// What its evaluation did beside the answer.
    notes: Notes,
    /// Its place among those that wait, until it is out of the way: also where nobody waits for its answer any more.
    counted: Option<Counted>,
}

impl Job {
    pub(super) fn new(caller: Waiter, finished: u64, request: Arc<Request>, place: Place) -> Self {
        Self {
            caller,
            finished,
            keys: request.keys().into_iter().collect(),
            request,
            place,
            tries: 0,
            needs_all: false,
            answer: None,
            claimed: Arc::default(),
            begun: false,
            notes: Notes::default(),
            counted: None,
        }
    }

    /// Whether it is to be evaluated: nobody has given it up, and somebody waits for it or for what it wrote before.
    fn begin(&mut self) -> bool {
        let gone = self.answer.as_ref().is_some_and(oneshot::Sender::is_closed);
        self.begun = self.begun || !gone && !self.claimed.swap(true, Ordering::AcqRel);
        self.begun
    }

    /// It was begun for nothing, and waits again: as long as nobody was told of it, it can be given up.
    fn wait_again(&mut self) {
        if self.answer.is_some() {
            self.begun = false;
            self.claimed.store(false, Ordering::Release);
        }
    }

    /// What it wrote, if anything, is not for the log: here is the answer.
    fn answer_directly(&mut self, reply: Reply, index: u64) {
        let notes = std::mem::take(&mut self.notes);
        self.answer(Verdict::Direct(reply, index, notes));
    }

    /// The answer comes with the log.
    fn answer_proposed(&mut self) {
        let notes = std::mem::take(&mut self.notes);
        self.answer(Verdict::Proposed(notes));
    }

    fn answer(&mut self, verdict: Verdict) {
        // Whoever asked may have given up; the answer of what is proposed comes with the log.
        if let Some(answer) = self.answer.take() {
            drop(answer.send(verdict));
        }
    }
}

/// What the thread is told.
enum Message {
    Evaluate(Box<Job>),
    /// A script's effects did not hold. Of those that do nobody is told: there are many, and each message would wake the thread.
    Failed(Waiter),
    /// A batch was applied, or not taken.
    Proposed(u64, Result<(), String>),
    Stop,
}

/// The way to the thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Evaluator {
    sender: mpsc::UnboundedSender<Message>,
    /// Requests that were sent and are not out of the way.
    waiting: Arc<AtomicUsize>,
    pub(super) control: Arc<Control>,
}

/// What is told to scripts while they run.
#[derive(Debug)]
pub(super) struct Control {
    /// The one that runs. Held to look, or to put in another.
    running: Mutex<Option<Current>>,
    /// Whether that one has run for too long.
    busy: Arc<watch::Sender<bool>>,
    /// Whether they may call what is not for scripts: `DEBUG SET-DISABLE-DENY-SCRIPTS`.
    pub(super) allow_all: AtomicBool,
    /// After this a run counts as busy, and can be killed; 0: never.
    pub(super) busy_after_ms: AtomicU64,
}

/// One call of a request, while it runs.
#[derive(Debug)]
struct Current {
    request: Arc<Request>,
    call: usize,
    began: Instant,
    signals: Arc<Signals>,
}

impl Control {
    /// A call of a request begins.
    fn begin(&self, request: &Arc<Request>, call: usize) -> Arc<Signals> {
        let signals = Arc::new(Signals {
            busy: self.busy.clone(),
            ..Signals::default()
        });
        *self.running.lock() = Some(Current {
            request: request.clone(),
            call,
            began: Instant::now(),
            signals: signals.clone(),
        });
        signals
    }

    /// It has ended.
    fn done(&self) {
        *self.running.lock() = None;
        if *self.busy.borrow() {
            self.busy.send_replace(false);
        }
    }

    fn running(&self) -> Option<Running> {
        let running = self.running.lock();
        let current = running.as_ref()?;
        let (name, command) = current.request.calls.get(current.call)?.1.shown()?;
        Some(Running {
            name,
            function: !command.is_empty(),
            command,
            duration_ms: u64::try_from(current.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            busy: *self.busy.borrow(),
            killed: current.signals.kill.load(Ordering::Relaxed),
        })
    }

    /// What is answered to who cannot be served meanwhile.
    pub(super) fn busy(&self) -> Option<CommandError> {
        if !*self.busy.borrow() {
            return None;
        }
        let function = self.running().is_some_and(|running| running.function);
        Some(busy_error(if function { Kind::Function } else { Kind::Script }))
    }

    /// Ends what has run for too long, if it is of this kind. What runs.
    pub(super) fn end(&self, kind: Option<Kind>) -> Option<Running> {
        let mut running = self.running()?;
        let same = kind.is_some_and(|kind| (kind == Kind::Function) == running.function);
        if running.busy
            && same
            && let Some(current) = &*self.running.lock()
        {
            current.signals.kill.store(true, Ordering::Relaxed);
            running.killed = true;
        }
        Some(running)
    }
}

/// What is answered while a script or a function runs for too long.
pub(super) fn busy_error(kind: Kind) -> CommandError {
    CommandError::text(match kind {
        Kind::Script => {
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
        }
        Kind::Function => {
            "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE."
        }
    })
}

impl Listener for Evaluator {
    fn event(&self, event: &Event) {
        if let Event::Evaluated { caller, reply: None } = event {
            // A thread that has ended needs no news.
            let _ = self.sender.send(Message::Failed(*caller));
        }
    }
}

impl Evaluator {
    pub(super) fn start(state: State, outbound: Outbound, command_bytes: usize) -> Arc<Self> {
        // Unbounded as such: there are at most QUEUE jobs, each of which is counted until it is dropped, and of the rest a few for each of them.
        let (sender, messages) = mpsc::unbounded_channel();
        let back = sender.clone();
        let control = Arc::new(Control {
            running: Mutex::default(),
            busy: Arc::default(),
            allow_all: AtomicBool::new(false),
            busy_after_ms: AtomicU64::new(BUSY_AFTER_MS),
        });
        let followed = control.clone();
        let work = async move || {
            let seed = i32::from_le_bytes(
                outbound.clock.chance().to_le_bytes()[..4]
                    .try_into()
                    .expect("4 bytes"),
            );
            let engine = match Engine::new(engine::Limits::new(REDIS_VERSION, seed)) {
                Ok(engine) => engine,
                Err(error) => return tracing::error!(%error, "scripts cannot run on this node"),
            };
            let thread = Thread {
                engine,
                state,
                outbound,
                control: followed,
                sender: back,
                command_bytes,
                overlay: Overlay::new(command_bytes),
                queue: VecDeque::new(),
                under_way: BTreeMap::new(),
                held: HashSet::new(),
                batches: 0,
            };
            thread.run(messages).await;
        };
        if let Err(error) = ground::thread("plenary-scripts", engine::STACK_BYTES, work) {
            tracing::error!(%error, "scripts cannot run on this node");
        }
        Arc::new(Self {
            sender,
            waiting: Arc::default(),
            control,
        })
    }

    /// What becomes of a request. It does not wait behind a script that has run for too long.
    pub(super) async fn evaluate(&self, mut job: Job) -> Verdict {
        if self.waiting.load(Ordering::Relaxed) >= QUEUE {
            return Verdict::Refused(format!("{QUEUE} scripts wait already"));
        }
        let (answer, mut answered) = oneshot::channel();
        job.answer = Some(answer);
        let (claimed, mut busy) = (job.claimed.clone(), self.control.busy.subscribe());
        job.counted = Some(Counted::one(&self.waiting));
        if self.sender.send(Message::Evaluate(Box::new(job))).is_err() {
            return Verdict::Refused("scripts cannot run on this node".to_owned());
        }
        let or_not = |answered: Result<Verdict, _>| {
            answered.unwrap_or_else(|_| Verdict::Refused("the script was not evaluated".to_owned()))
        };
        tokio::select! {
            biased;
            verdict = &mut answered => return or_not(verdict),
            _ = busy.wait_for(|busy| *busy) => {}
        }
        match self.control.busy() {
            Some(error) if !claimed.swap(true, Ordering::AcqRel) => Verdict::Busy(error),
            _ => or_not(answered.await),
        }
    }
}

impl Evaluator {
    /// Ends the thread after what it does now; who waits is refused.
    pub(super) fn stop(&self) {
        // A thread that has ended needs not be told.
        let _ = self.sender.send(Message::Stop);
    }
}

impl Drop for Evaluator {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One more, as long as it lives.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn one(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Scripts whose effects are proposed as one command.
struct Batch {
    jobs: Vec<Job>,
    keys: HashSet<(u8, Bytes)>,
    /// Those that are to be evaluated again.
    failed: BTreeSet<Waiter>,
}

/// What one evaluation came to.
enum Evaluation {
    /// The answer, and what is to go into the log with it.
    Done(Reply, Outcome),
    /// A script was ended before its end: the answer. What was written counts for nothing, and the scratch machine is not to be used on.
    Ended(Reply),
    GivenUp(GivenUp),
    /// A watched key was changed by a script before it that is not in the log yet.
    TooEarly,
}

/// The thread itself.
struct Thread {
    engine: Engine,
    state: State,
    outbound: Outbound,
    control: Arc<Control>,
    sender: mpsc::UnboundedSender<Message>,
    command_bytes: usize,
    overlay: Overlay,
    queue: VecDeque<Job>,
    under_way: BTreeMap<u64, Batch>,
    /// The keys of all that is under way: each is of one batch.
    held: HashSet<(u8, Bytes)>,
    batches: u64,
}

impl Thread {
    /// Until it is told to stop.
    async fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>) {
        while let Some(first) = messages.recv().await {
            if matches!(first, Message::Stop) {
                return;
            }
            self.take(first);
            loop {
                while let Ok(next) = messages.try_recv() {
                    if matches!(next, Message::Stop) {
                        return;
                    }
                    self.take(next);
                }
                if !self.step().await {
                    break;
                }
            }
            // Nothing is to be done now: no more is kept than the next script may need.
            if self.overlay.is_full() {
                self.overlay = Overlay::new(self.command_bytes);
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Evaluate(job) if job.place == Place::Leader => self.enqueue(*job),
            Message::Evaluate(job) => self.read_here(*job),
            Message::Failed(caller) => {
                let of = |batch: &&mut Batch| batch.jobs.iter().any(|job| job.caller == caller);
                let batch = self.under_way.values_mut().find(of);
                batch.map(|batch| batch.failed.insert(caller));
            }
            Message::Proposed(number, outcome) => self.settle(number, outcome),
            Message::Stop => {}
        }
    }

    /// Takes a request in, unless it is known: then its answer comes with the log. Before this leader has applied what leaders before it had stored, it does not know:
    /// one of them may have proposed what the script wrote, and evaluated again on what was before that it may answer as if it had not.
    fn enqueue(&mut self, mut job: Job) {
        if !self.outbound.replica.leads_on_all_before() {
            return job.answer(Verdict::Refused(
                "it has not applied what was stored before".to_owned(),
            ));
        }
        let known = self.state.machine().read().scripts().contains(job.caller)
            || self.queue.iter().any(|waiting| waiting.caller == job.caller)
            || self
                .under_way
                .values()
                .any(|batch| batch.jobs.iter().any(|other| other.caller == job.caller));
        if known {
            job.answer_proposed();
        } else {
            self.queue.push_back(job);
        }
    }

    /// A batch is out of the way: what did not hold is evaluated again, before all others.
    fn settle(&mut self, number: u64, outcome: Result<(), String>) {
        let Some(mut batch) = self.under_way.remove(&number) else {
            return;
        };
        for key in &batch.keys {
            self.held.remove(key);
        }
        match outcome {
            Ok(()) => {
                batch.jobs.retain(|job| batch.failed.contains(&job.caller));
                for mut job in batch.jobs.into_iter().rev() {
                    job.tries += 1;
                    self.queue.push_front(job);
                }
            }
            // Another leads: it will be asked.
            Err(why) => {
                for mut job in batch.jobs.into_iter().chain(self.queue.drain(..)) {
                    job.answer(Verdict::Refused(why.clone()));
                }
            }
        }
    }

    /// Evaluates a batch, if there is one to evaluate now. Whether there was.
    async fn step(&mut self) -> bool {
        if self.under_way.len() >= UNDER_WAY {
            return false;
        }
        if self
            .queue
            .front()
            .is_some_and(|job| job.needs_all || job.tries >= TRIES)
        {
            return self.under_way.is_empty() && self.alone().await;
        }
        let mut jobs = self.ready();
        if jobs.is_empty() {
            return false;
        }
        let settings = self.state.machine().read().store().settings().clone();
        self.overlay.reset(&settings);
        let at = self.now().await;
        let (mut batch, mut effects, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut keys = HashSet::new();
        while let Some(mut job) = jobs.pop_front() {
            if !job.begin() {
                continue;
            }
            let seed = self.outbound.clock.chance();
            match self.evaluate(&mut job, at, seed, ENDS_AFTER, true) {
                Evaluation::Done(reply, outcome) => {
                    let touched = outcome.relied_on.iter().map(|(db, key, _)| (*db, key.clone()));
                    let touched: Vec<_> = touched.collect();
                    if self.are_held(&touched) {
                        job.keys.extend(touched);
                        job.wait_again();
                        jobs.push_front(job);
                        break;
                    }
                    outcome
                        .due
                        .iter()
                        .cloned()
                        .for_each(|due| self.outbound.renewals.soon(due));
                    if let Some(index) = self.read_only_at(&outcome, at) {
                        job.answer_directly(reply, index);
                        if self.overlay.is_full() {
                            break;
                        }
                        continue;
                    }
                    let of_it = effects_of(&job, at, seed, None, outcome, reply);
                    let size = of_it.bytes();
                    if size > self.command_bytes {
                        let too_much = too_much(&job.request);
                        job.answer_directly(too_much, 0);
                        break;
                    }
                    bytes += size;
                    keys.extend(touched);
                    effects.push(of_it);
                    batch.push(job);
                    if bytes > self.command_bytes / 2 || self.overlay.is_full() {
                        break;
                    }
                }
                Evaluation::GivenUp(why) => {
                    debug_assert_eq!(why, GivenUp::NeedsAll, "here it may write");
                    job.needs_all = true;
                    job.wait_again();
                    jobs.push_front(job);
                    break;
                }
                Evaluation::TooEarly => {
                    job.wait_again();
                    jobs.push_front(job);
                    break;
                }
                Evaluation::Ended(reply) => {
                    job.answer_directly(reply, 0);
                    break;
                }
            }
        }
        for job in jobs.into_iter().rev() {
            self.queue.push_front(job);
        }
        if !batch.is_empty() {
            self.propose(batch, keys, effects);
        }
        true
    }

    /// The requests to evaluate next: in order, none whose keys are under way or are wanted by one that waits before it.
    fn ready(&mut self) -> VecDeque<Job> {
        let (mut ready, mut waiting) = (VecDeque::new(), VecDeque::new());
        let mut wanted = HashSet::new();
        while let Some(job) = self.queue.pop_front() {
            let blocked = job.needs_all
                || job.tries >= TRIES
                || ready.len() >= BATCH
                || self.are_held(&job.keys)
                || job.keys.iter().any(|key| wanted.contains(key));
            if blocked {
                wanted.extend(job.keys.iter().cloned());
                waiting.push_back(job);
            } else {
                ready.push_back(job);
            }
        }
        self.queue = waiting;
        ready
    }

    /// Whether one of these keys is under way.
    fn are_held<'a>(&self, keys: impl IntoIterator<Item = &'a (u8, Bytes)>) -> bool {
        !self.held.is_empty() && keys.into_iter().any(|key| self.held.contains(key))
    }

    /// If the script only read what is in the log, and all of that is as it was: the index it is true at.
    fn read_only_at(&self, outcome: &Outcome, at: u64) -> Option<u64> {
        if !outcome.commands.is_empty() {
            return None;
        }
        let machine = self.state.machine().read();
        let same = |(db, key, expected): &(u8, Bytes, Expected)| {
            let view = machine.view(at, *db);
            view.note_use(key);
            *expected == Expected::Version(view.version(key))
        };
        let index = self.state.applied_index();
        outcome.relied_on.iter().all(same).then_some(index)
    }

    fn propose(&mut self, jobs: Vec<Job>, keys: HashSet<(u8, Bytes)>, effects: Vec<Effects>) {
        self.batches += 1;
        self.held.extend(keys.iter().cloned());
        let number = self.batches;
        let mut jobs = jobs;
        jobs.iter_mut().for_each(Job::answer_proposed);
        let group = entry::encode(Origin::default(), &[effects::encode(effects)]);
        let failed = BTreeSet::new();
        self.under_way.insert(number, Batch { jobs, keys, failed });
        let (outbound, sender) = (self.outbound.clone(), self.sender.clone());
        tokio::spawn(async move {
            let outcome = outbound.propose(group).await.map_or(Ok(()), Err);
            // A thread that has ended needs no news.
            let _ = sender.send(Message::Proposed(number, outcome));
        });
    }

    /// Runs the first request while nothing else is proposed, so that nothing can change under it.
    async fn alone(&mut self) -> bool {
        let Some(mut job) = self.queue.pop_front() else {
            return false;
        };
        if !job.begin() {
            return true;
        }
        let gate = self.outbound.gate.clone().write_owned();
        let Ok(closed) = tokio::time::timeout(ALONE_WAITS, gate).await else {
            job.answer(Verdict::Refused(
                "what was proposed before is not confirmed".to_owned(),
            ));
            return true;
        };
        // What ends before the effects are in the log makes them void. There may always be something that ends, so it is begun anew at once.
        let until = Instant::now() + ALONE_ENDS_AFTER;
        loop {
            if self.tried_alone(&mut job, &closed).await || Instant::now() >= until {
                return true;
            }
        }
    }

    /// Evaluates a request on a copy of everything, while the gate is closed, and has applied what it came to. Whether it is out of the way: not, where
    /// something has ended meanwhile.
    async fn tried_alone(&mut self, job: &mut Job, closed: &OwnedRwLockWriteGuard<()>) -> bool {
        let now = self.now().await;
        if self.state.machine().read().late(now).is_some() {
            let tick = entry::encode(Origin::default(), &[]);
            if let Some(why) = self.outbound.propose_through(closed, tick).await {
                tracing::debug!(why, "a tick was refused");
            }
        }
        let (frozen, revision) = {
            let machine = self.state.machine().read();
            (machine.freeze(), machine.store().revision())
        };
        let scratch = std::mem::replace(&mut self.overlay, Overlay::over(frozen, self.command_bytes));
        let (at, seed) = (self.now().await, self.outbound.clock.chance());
        let evaluation = self.evaluate(job, at, seed, ALONE_ENDS_AFTER, true);
        self.overlay = scratch;
        let (reply, outcome) = match evaluation {
            Evaluation::Done(reply, outcome) => (reply, outcome),
            Evaluation::Ended(reply) => {
                job.answer_directly(reply, 0);
                return true;
            }
            Evaluation::GivenUp(_) | Evaluation::TooEarly => {
                job.answer(Verdict::Refused("the script could not be evaluated".to_owned()));
                return true;
            }
        };
        outcome
            .due
            .iter()
            .cloned()
            .for_each(|due| self.outbound.renewals.soon(due));
        if outcome.commands.is_empty() {
            let index = self.state.applied_index();
            job.answer_directly(reply, index);
            return true;
        }
        let effects = effects_of(job, at, seed, Some(revision), outcome, reply);
        if effects.bytes() > self.command_bytes {
            job.answer_directly(too_much(&job.request), 0);
            return true;
        }
        job.answer_proposed();
        let group = entry::encode(Origin::default(), &[effects::encode(vec![effects])]);
        if let Some(why) = self.outbound.propose_through(closed, group).await {
            tracing::debug!(why, "the effects of a script were refused");
            return true;
        }
        self.state.machine().read().scripts().contains(job.caller)
    }

    /// The time that scripts see and that their effects are reckoned from: one that may be a stamp.
    async fn now(&self) -> Millis {
        self.outbound.clock.agreed().await;
        self.outbound.clock.now()
    }

    /// Runs what may only read, on what this node has applied: at one index, if need be on a copy of everything.
    fn read_here(&mut self, mut job: Job) {
        if !job.begin() {
            return;
        }
        let settings = self.state.machine().read().store().settings().clone();
        self.overlay.reset(&settings);
        let (at, seed) = (self.state.now(), self.outbound.clock.chance());
        match self.evaluate(&mut job, at, seed, ENDS_AFTER, false) {
            Evaluation::GivenUp(GivenUp::Writes) => return job.answer(Verdict::Writes),
            Evaluation::Done(reply, outcome) => {
                if let Some(index) = self.read_only_at(&outcome, at) {
                    return job.answer_directly(reply, index);
                }
            }
            // Neither another index nor the leader would let it run for longer.
            Evaluation::Ended(reply) => return job.answer_directly(reply, 0),
            Evaluation::GivenUp(_) | Evaluation::TooEarly => {}
        }
        let (frozen, index) = {
            let machine = self.state.machine().read();
            let index = self.state.applied_index();
            (machine.freeze(), index)
        };
        let scratch = std::mem::replace(&mut self.overlay, Overlay::over(frozen, self.command_bytes));
        let evaluation = self.evaluate(&mut job, at, seed, ENDS_AFTER, false);
        self.overlay = scratch;
        match evaluation {
            Evaluation::Done(reply, _) => job.answer_directly(reply, index),
            Evaluation::Ended(reply) => job.answer_directly(reply, 0),
            Evaluation::GivenUp(_) | Evaluation::TooEarly => job.answer(Verdict::Writes),
        }
    }

    /// Runs a request on the scratch machine as it is. All its calls together have this time.
    fn evaluate(
        &mut self,
        job: &mut Job,
        at: Millis,
        seed: u64,
        ends_after: Duration,
        may_write: bool,
    ) -> Evaluation {
        let request = &job.request;
        if self.state.fullness().is_out_of_memory() && request.transaction {
            let needs = |(_, call): &(u8, Call)| needs_memory(&self.state, call);
            if request.calls.iter().any(needs) {
                return Evaluation::Done(aborted(&OUT_OF_MEMORY), Outcome::default());
            }
        }
        self.overlay.begin(at, request.seed_of_writes(seed));
        let until = Instant::now() + ends_after;
        let (state, control) = (&self.state, &self.control);
        let mut desk = Desk::new(&mut self.overlay, state, control, request, at, until, may_write);
        desk.alone = self.outbound.fellows.lack();
        let unchanged = desk.watches_hold(&request.watches);
        let (replies, ended) = match unchanged {
            Some(true) => run_all(&mut self.engine, &mut desk, control, request),
            Some(false) | None => (Vec::new(), false),
        };
        job.notes = desk.notes;
        match (desk.given_up, unchanged) {
            (Some(GivenUp::TooMuch), _) => Evaluation::Ended(too_much(request)),
            (Some(why), _) => Evaluation::GivenUp(why),
            (None, None) => Evaluation::TooEarly,
            (None, Some(false)) => Evaluation::Done(Reply::NilArray, self.overlay.finish()),
            (None, Some(true)) => {
                let reply = answer_of(request, replies, ended);
                if ended {
                    Evaluation::Ended(reply)
                } else {
                    Evaluation::Done(reply, self.overlay.finish())
                }
            }
        }
    }
}

/// Runs the calls of a request in their order: what each answers, and whether the last of them was ended, and the request with it.
fn run_all(
    engine: &mut Engine,
    desk: &mut Desk<'_>,
    control: &Control,
    request: &Arc<Request>,
) -> (Vec<Reply>, bool) {
    let out_of_memory = desk.state.fullness().is_out_of_memory();
    let (mut replies, mut bytes) = (Vec::new(), 0);
    for (number, (db, call)) in request.calls.iter().enumerate() {
        desk.db = *db;
        desk.call = number;
        let allowed = declared(desk.state, call).is_some_and(|flags| flags.allow_oom);
        desk.out_of_memory = out_of_memory && !allowed;
        if out_of_memory && !request.transaction && needs_memory(desk.state, call) {
            replies.push(Reply::Error(OUT_OF_MEMORY));
            break;
        }
        // As in Redis, one that says what it does is asked at its beginning.
        if desk.alone && declared(desk.state, call).is_some_and(|flags| !flags.no_writes) {
            replies.push(Reply::Error(NO_REPLICAS));
            continue;
        }
        desk.signals = control.begin(request, number);
        let written = desk.overlay.writes();
        let reply = run(engine, desk, call);
        control.done();
        if request.transaction {
            bytes += reply.to_bytes().len();
            if bytes > desk.overlay.memory_bytes() {
                desk.give_up(GivenUp::TooMuch);
            }
        }
        replies.push(reply);
        if desk.given_up.is_some() {
            break;
        }
        // A transaction goes on behind a script that was ended before it wrote: as in Redis, which ends no other.
        let ended = desk.signals.ended.load(Ordering::Relaxed)
            && (!request.transaction || desk.overlay.writes() > written || Instant::now() >= desk.until);
        if ended {
            return (replies, true);
        }
    }
    (replies, false)
}

/// What a request answers whose calls answered this, and whose last one was perhaps ended.
fn answer_of(request: &Request, mut replies: Vec<Reply>, ended: bool) -> Reply {
    match replies.pop() {
        Some(Reply::Error(why)) if ended && request.transaction => aborted(&why),
        last if request.transaction => {
            replies.extend(last);
            Reply::Array(replies)
        }
        last => last.unwrap_or(Reply::Nil),
    }
}

/// What a request answers that writes or answers too much.
fn too_much(request: &Request) -> Reply {
    answer_of(request, vec![Reply::Error(TOO_MUCH)], true)
}

/// What a transaction answers that came to nothing for this.
fn aborted(why: &CommandError) -> Reply {
    let why = why.to_string();
    let why = why.strip_prefix("ERR ").unwrap_or(&why);
    let text = format!("EXECABORT Transaction discarded because of: {why}");
    Reply::Error(CommandError::Other(text.into()))
}

/// Whether a call is refused as a whole where memory is full: a command that may need more, or a script that does not declare otherwise.
fn needs_memory(state: &State, call: &Call) -> bool {
    match call {
        Call::Command(argv) => table::lookup(argv).is_ok_and(|spec| spec.needs_memory()),
        _ => declared(state, call).is_some_and(|flags| !flags.allow_oom && !flags.no_writes),
    }
}

/// What a script or function declares; nothing for a script without a first line that does.
fn declared(state: &State, call: &Call) -> Option<ScriptFlags> {
    match call {
        Call::Command(_) => None,
        Call::Script { text, .. } => {
            let (flags, _) = engine::script_flags(text).ok()?;
            (!flags.undeclared).then_some(flags)
        }
        Call::Function { name, .. } => {
            let machine = state.machine().read();
            let (_, function) = machine.store().scripts().function(name)?;
            let says = |name: &str| function.flags.iter().any(|flag| flag == name);
            Some(ScriptFlags {
                no_writes: says("no-writes"),
                allow_oom: says("allow-oom"),
                ..ScriptFlags::default()
            })
        }
    }
}

/// Runs one call of a request.
fn run(engine: &mut Engine, desk: &mut Desk<'_>, call: &Call) -> Reply {
    let (signals, busy_after) = (desk.signals.clone(), desk.busy_after);
    let ends_after = desk.until.saturating_duration_since(Instant::now());
    let bounds = |keys, args| Run {
        keys,
        args,
        signals,
        busy_after,
        ends_after,
    };
    match call {
        Call::Script {
            text,
            keys,
            args,
            read_only,
        } => {
            desk.read_only = *read_only;
            engine.run(text, &bounds(keys, args), desk)
        }
        Call::Function {
            code,
            name,
            keys,
            args,
            read_only,
        } => {
            desk.read_only = *read_only;
            engine.call_function(code, &String::from_utf8_lossy(name), &bounds(keys, args), desk)
        }
        Call::Command(argv) => match table::lookup(argv) {
            Ok(spec) => desk.command(spec, argv),
            Err(error) => Reply::Error(error),
        },
    }
}

fn effects_of(
    job: &Job,
    at: Millis,
    seed: u64,
    revision: Option<u64>,
    outcome: Outcome,
    reply: Reply,
) -> Effects {
    Effects {
        caller: job.caller,
        finished: job.finished,
        at,
        seed,
        relied_on: outcome.relied_on,
        revision,
        commands: job.request.surround(outcome.commands),
        reply,
    }
}
