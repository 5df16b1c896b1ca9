//! Scripts without a node, for `fuzz/`: run on a machine that is given, each `redis.call` on a scratch machine, as on a leader. Knows neither
//! users nor what a connection has. No part of the public face.

use super::engine::{self, Engine, Host, Limits, Run, Signals};
use super::notes::Notes;
use super::request::Request;
use crate::config::REDIS_VERSION;
use crate::machine::Machine;
use crate::machine::effects::{self, Effects};
use crate::machine::entry::{Command, Millis};
use crate::machine::event::Waiter;
use crate::machine::overlay::{NOT_FROM_SCRIPT, Overlay, Refused};
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Functions of a library that are called, at most.
const FUNCTIONS: usize = 8;

/// What a script may take of an entry of the log.
const LOG_BYTES: usize = 1 << 20;

/// Where the chance of what scripts call comes from.
const SEED: u64 = 1;

/// An engine whose scripts run on what they are given.
pub struct ScriptProbe {
    engine: Engine,
    overlay: Overlay,
    ends_after: Duration,
}

impl ScriptProbe {
    /// The stack of the thread it lives on.
    pub const STACK_BYTES: usize = engine::STACK_BYTES;

    /// An engine of which each Lua state has this much memory and each run this much time.
    ///
    /// # Errors
    /// When Lua does not start with that.
    pub fn new(memory_bytes: usize, ends_after: Duration) -> Result<Self, CommandError> {
        let limits = Limits {
            memory_bytes,
            load: ends_after,
            ..Limits::new(REDIS_VERSION, 0)
        };
        Ok(Self {
            engine: Engine::new(limits)?,
            overlay: Overlay::new(LOG_BYTES),
            ends_after,
        })
    }

    /// What a script comes to, or each function of a library, as the command for the log; none where its time was over first, or it wrote too much.
    pub fn evaluate(&mut self, machine: &Machine, at: Millis, text: &[u8]) -> Option<Command> {
        self.overlay.reset(machine.store().settings());
        let mut revision = None;
        let mut replies = self.run(machine, at, text);
        if replies == Err(Refused::NeedsAll) {
            revision = Some(machine.store().revision());
            self.overlay = Overlay::over(machine.freeze(), LOG_BYTES);
            replies = self.run(machine, at, text);
        }
        let outcome = self.overlay.finish();
        if revision.is_some() {
            self.overlay = Overlay::new(LOG_BYTES);
        }
        let replies = replies.ok()?;
        if replies.iter().any(is_out_of_time) {
            return None;
        }
        Some(effects::encode(vec![Effects {
            caller: Waiter {
                node: 1,
                start: 1,
                number: 1,
            },
            finished: 0,
            at,
            seed: SEED,
            relied_on: outcome.relied_on,
            revision,
            commands: outcome.commands,
            reply: Reply::Array(replies),
        }]))
    }

    /// The answers, or why one could not go on.
    fn run(&mut self, machine: &Machine, at: Millis, text: &[u8]) -> Result<Vec<Reply>, Refused> {
        let words = |words: [&'static [u8]; 2]| words.map(Bytes::from_static);
        let (keys, args) = (words([b"k1", b"k2"]), words([b"a1", b"2"]));
        let signals = Arc::<Signals>::default();
        let run = Run {
            keys: &keys,
            args: &args,
            signals: signals.clone(),
            busy_after: Duration::MAX,
            ends_after: self.ends_after,
        };
        self.overlay.begin(at, SEED);
        let mut desk = Desk {
            overlay: &mut self.overlay,
            machine,
            at,
            signals,
            refused: None,
        };
        let engine = &mut self.engine;
        let replies = match engine.load_library(text) {
            Ok(library) => library
                .functions
                .iter()
                .take(FUNCTIONS)
                .map(|function| engine.call_function(text, &function.name, &run, &mut desk))
                .collect(),
            Err(_) => vec![engine.run(text, &run, &mut desk)],
        };
        desk.refused.map_or(Ok(replies), Err)
    }
}

/// A script's way from node to node: its request, and the notes that come back.
#[derive(Debug)]
pub struct CallProbe;

impl CallProbe {
    /// A request's bytes as they are written again once it was read; none where it is refused.
    pub fn request_again(bytes: &Bytes) -> Option<Bytes> {
        let (sender, request) = Request::from_bytes(bytes)?;
        Some(request.to_bytes(sender))
    }

    /// The bytes of notes as they are written again once they were read.
    pub fn notes_again(bytes: &Bytes) -> Bytes {
        Notes::from_bytes(bytes).to_bytes()
    }
}

fn is_out_of_time(reply: &Reply) -> bool {
    matches!(reply, Reply::Error(error) if error.to_string().starts_with("ERR Script ended"))
}

/// What scripts ask of the world.
struct Desk<'a> {
    overlay: &'a mut Overlay,
    machine: &'a Machine,
    at: Millis,
    signals: Arc<Signals>,
    /// Then nothing more is run.
    refused: Option<Refused>,
}

impl Host for Desk<'_> {
    fn call(&mut self, argv: &[Bytes]) -> Reply {
        if self.refused.is_some() {
            return Reply::Error(NOT_FROM_SCRIPT);
        }
        let spec = match table::lookup(argv) {
            Ok(spec) if spec.flags.split(' ').any(|flag| flag == "noscript") => {
                return Reply::Error(NOT_FROM_SCRIPT);
            }
            Ok(spec) => spec,
            Err(error) => return Reply::Error(error),
        };
        let (machine, at) = (self.machine, self.at);
        let fetch = |db: u8, key: &[u8]| machine.view(at, db).find(key).cloned();
        self.overlay.run(spec, 0, argv, &fetch).unwrap_or_else(|refused| {
            self.refused = Some(refused);
            self.signals.kill.store(true, Ordering::Relaxed);
            Reply::Error(NOT_FROM_SCRIPT)
        })
    }

    fn may_run(&mut self, argv: &[Bytes]) -> Option<bool> {
        table::lookup(argv).ok().map(|_| true)
    }

    fn log(&mut self, _: u8, _: &[u8]) {}
}
