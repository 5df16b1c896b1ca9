//! What applying the log makes known on this node: to listeners, to those whose command waits in the log, to those who asked for a script.
//!
//! Told from the apply task, in the order of the log, so whoever listens is quick and never waits.

use crate::machine::Machine;
use crate::machine::event::Event;
use crate::machine::reply::{CommandError, Reply};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use tokio::sync::{Notify, oneshot, watch};

/// Somebody who is told what happens, in the order of the log, before the writer of the entry is answered.
pub trait Listener: Send + Sync {
    /// Something happened. Called by the apply task: be quick, never wait.
    fn event(&self, event: &Event);

    /// All that applying an entry made happen was told.
    fn applied(&self) {}

    /// A snapshot has replaced the state: nothing was told of what it changed.
    fn replaced(&self) {}
}

/// Who hears what on this node.
#[derive(Default)]
pub(super) struct Hearing {
    /// This node and start, once they are known: before the first entry is applied.
    own: OnceLock<(u64, u64)>,
    /// Read for each entry that has events; written when an edge starts.
    listeners: RwLock<Vec<Arc<dyn Listener>>>,
    /// Who waits for the answer of a command that waits in the log, by the log's number. Held to put in or take out.
    waits: Mutex<BTreeMap<u64, oneshot::Sender<Reply>>>,
    /// Commands that wait in the log though nobody waits for their answer. Bounded by the commands under way.
    abandoned: Mutex<Vec<u64>>,
    wake: Notify,
    /// Who asked for a script. Held to put in or take out.
    scripts: Mutex<Asking>,
    /// Counts what happened to sessions; who waits for that looks into the machine then.
    sessions: watch::Sender<u64>,
    /// What other nodes and this one asked this leader for is told to whoever evaluates.
    evaluator: OnceLock<Arc<dyn Listener>>,
}

/// Who asked for a script and has no answer yet, by the numbers that this start gave.
#[derive(Default)]
struct Asking {
    /// The last number given. Given under the same lock as its place is taken: a lower number without a place would count as finished.
    last: u64,
    answers: BTreeMap<u64, oneshot::Sender<Reply>>,
}

impl std::fmt::Debug for Hearing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hearing({} waits)", self.waits.lock().len())
    }
}

/// What is told of a command that waits no more in a snapshot which replaced the state: it was served, or its time was over.
pub(super) const SWALLOWED: CommandError =
    CommandError::text("UNKNOWN it may have been served by a snapshot, which carries no answers");

/// A command of this node that waits in the log. Dropping it takes the command back.
#[derive(Debug)]
pub struct Wait {
    number: u64,
    answer: Option<oneshot::Receiver<Reply>>,
    hearing: Arc<Hearing>,
}

impl Wait {
    /// The log's number of it: what `Node::unwait` takes.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Its answer, when it was served or its time is over. Cancel-safe; asked again after it was given, it is nil.
    pub async fn answer(&mut self) -> Reply {
        let Some(answer) = &mut self.answer else {
            return Reply::Nil;
        };
        let reply = answer.await.unwrap_or(Reply::Error(SWALLOWED));
        self.answer = None;
        reply
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if self.answer.take().is_some() && self.hearing.waits.lock().remove(&self.number).is_some() {
            self.hearing.abandon(self.number);
        }
    }
}

impl Hearing {
    pub(super) fn belong_to(&self, node: u64, start: u64) {
        // Set once, by the start of the node.
        let _ = self.own.set((node, start));
    }

    pub(super) fn listen(&self, listener: Arc<dyn Listener>) {
        self.listeners.write().push(listener);
    }

    /// Tells the one that evaluates scripts what came of them.
    #[cfg_attr(not(feature = "lua"), allow(dead_code, reason = "scripts use it"))]
    pub(super) fn evaluate_with(&self, evaluator: Arc<dyn Listener>) {
        let _ = self.evaluator.set(evaluator);
    }

    /// Moves when something has happened to sessions.
    pub(super) fn sessions(&self) -> watch::Receiver<u64> {
        self.sessions.subscribe()
    }

    /// Somebody waits for a command that waits in the log under this number.
    pub(super) fn wait(self: &Arc<Self>, number: u64) -> Wait {
        let (answer, answered) = oneshot::channel();
        self.waits.lock().insert(number, answer);
        Wait {
            number,
            answer: Some(answered),
            hearing: self.clone(),
        }
    }

    /// Nobody waits for this command any more.
    pub(super) fn abandon(&self, number: u64) {
        self.abandoned.lock().push(number);
        self.wake.notify_one();
    }

    /// The commands to be taken back, once there are some.
    pub(super) async fn abandoned(&self) -> Vec<u64> {
        loop {
            let taken = std::mem::take(&mut *self.abandoned.lock());
            if !taken.is_empty() {
                return taken;
            }
            self.wake.notified().await;
        }
    }

    /// Somebody asks for a script: its number, and where the answer comes.
    #[cfg_attr(not(feature = "lua"), allow(dead_code, reason = "scripts use it"))]
    pub(super) fn ask(&self) -> (u64, oneshot::Receiver<Reply>) {
        let (answer, answered) = oneshot::channel();
        let mut scripts = self.scripts.lock();
        scripts.last += 1;
        let number = scripts.last;
        scripts.answers.insert(number, answer);
        (number, answered)
    }

    /// Nobody asks for this script any more.
    #[cfg_attr(not(feature = "lua"), allow(dead_code, reason = "scripts use it"))]
    pub(super) fn ask_no_more(&self, number: u64) {
        self.scripts.lock().answers.remove(&number);
    }

    /// The lowest number of a script that somebody still asks for.
    #[cfg_attr(not(feature = "lua"), allow(dead_code, reason = "scripts use it"))]
    pub(super) fn first_asked(&self) -> Option<u64> {
        self.scripts
            .lock()
            .answers
            .first_key_value()
            .map(|(number, _)| *number)
    }

    /// Tells what happened, in order.
    pub(super) fn happened(&self, events: &[Event]) {
        let listeners = self.listeners.read();
        for event in events {
            match event {
                Event::Answered { waiter, reply } => {
                    let waiting = self.waits.lock().remove(&waiter.number);
                    // Of another node, or of a client that has gone.
                    let _ = waiting.map(|waiting| waiting.send(reply.clone()));
                }
                Event::Evaluated { caller, reply } => {
                    if let Some(evaluator) = self.evaluator.get() {
                        evaluator.event(event);
                    }
                    let own = self.own.get() == Some(&(caller.node, caller.start));
                    if let (true, Some(reply)) = (own, reply) {
                        let asking = self.scripts.lock().answers.remove(&caller.number);
                        let _ = asking.map(|asking| asking.send(reply.clone()));
                    }
                }
                Event::Session => self.sessions.send_modify(|count| *count += 1),
                _ => listeners.iter().for_each(|listener| listener.event(event)),
            }
        }
        listeners.iter().for_each(|listener| listener.applied());
    }

    /// A snapshot has replaced the machine: whoever waits for what is not in it any more is told, and what waits in it for nobody is taken back.
    pub(super) fn replaced(&self, machine: &Machine) {
        self.listeners
            .read()
            .iter()
            .for_each(|listener| listener.replaced());
        self.sessions.send_modify(|count| *count += 1);
        let own = self.own.get().copied().unwrap_or_default();
        let kept: BTreeSet<u64> = machine.store().waiting().of_caller(own).collect();
        let mut waits = self.waits.lock();
        waits.retain(|number, _| kept.contains(number));
        let unclaimed: Vec<u64> = kept
            .into_iter()
            .filter(|number| !waits.contains_key(number))
            .collect();
        drop(waits);
        unclaimed.into_iter().for_each(|number| self.abandon(number));
        // Whether a script was applied is in the snapshot; what it answered is not.
        const LOST: CommandError =
            CommandError::text("UNKNOWN the script was applied by a snapshot, which carries no answers");
        let answers = &mut self.scripts.lock().answers;
        let done = |number: u64| {
            let (node, start) = own;
            machine
                .scripts()
                .contains(crate::machine::event::Waiter { node, start, number })
        };
        let lost: Vec<u64> = answers.keys().copied().filter(|number| done(*number)).collect();
        for number in lost {
            let asking = answers.remove(&number);
            let _ = asking.map(|asking| asking.send(Reply::Error(LOST)));
        }
    }
}
