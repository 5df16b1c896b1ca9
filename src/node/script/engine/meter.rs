//! The meter of a run: it notices that a script takes long, was killed or has had its time, and then ends it.
//!
//! Lua calls the meter's hook every so many instructions. An error that the hook raises could be caught by `pcall`, and the script go on;
//! so once a run is to end the hook is called at every instruction, and each call raises again until the script is unwound. What Lua's
//! own functions do is not interrupted by hooks: those that can take long are written in Rust here, and ask the meter as they go.

use super::raise::{self, Raised};
use mlua::{HookTriggers, Lua};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Instructions between two looks at the clock.
const STRIDE: u32 = 1_000;

/// Instructions between two looks at the clock when the last stride took longer than [`SLOW_STRIDE`]: the script handles large strings.
const SHORT_STRIDE: u32 = 10;

/// A stride of plain instructions takes some ten microseconds.
const SLOW_STRIDE: Duration = Duration::from_millis(20);

/// Steps of a function of ours, as a character that a pattern is held against, between two looks at the clock.
const STEPS: u32 = 10_000;

/// What a run and the one who started it tell each other.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    /// Set by the starter: the run is to end (`SCRIPT KILL`).
    pub(crate) kill: AtomicBool,
    /// Set by the run: it was ended before its script was.
    pub(crate) ended: AtomicBool,
    /// Set by the run, and told to who waits: it has taken longer than `busy_after`. Whoever lets runs follow each other takes it back.
    pub(crate) busy: Arc<watch::Sender<bool>>,
}

/// Why a run ends before its script does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Killed,
    OutOfTime,
}

/// The run is to end; the reason is in the meter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopped;

/// One for each Lua state.
#[derive(Debug)]
pub(super) struct Meter {
    started: Cell<Instant>,
    last: Cell<Instant>,
    busy_after: Cell<Duration>,
    ends_after: Cell<Duration>,
    signals: RefCell<Arc<Signals>>,
    stride: Cell<u32>,
    steps: Cell<u32>,
    stop: Cell<Option<Stop>>,
    /// Whether this run has said that it is busy.
    busy: Cell<bool>,
    /// Source and line where the run was stopped.
    stopped_at: RefCell<Option<(String, usize)>>,
}

impl Meter {
    pub(super) fn new() -> Rc<Self> {
        let now = Instant::now();
        Rc::new(Self {
            started: Cell::new(now),
            last: Cell::new(now),
            busy_after: Cell::new(Duration::MAX),
            ends_after: Cell::new(Duration::MAX),
            signals: RefCell::default(),
            stride: Cell::new(0),
            steps: Cell::new(0),
            stop: Cell::new(None),
            busy: Cell::new(false),
            stopped_at: RefCell::new(None),
        })
    }

    /// Begins to meter a run.
    pub(super) fn start(
        self: &Rc<Self>,
        lua: &Lua,
        busy_after: Duration,
        ends_after: Duration,
        signals: Arc<Signals>,
    ) -> mlua::Result<()> {
        let now = Instant::now();
        self.started.set(now);
        self.last.set(now);
        self.busy_after.set(busy_after);
        self.ends_after.set(ends_after);
        self.signals.replace(signals);
        self.steps.set(0);
        self.stop.set(None);
        self.busy.set(false);
        self.stopped_at.replace(None);
        if self.stride.get() != STRIDE {
            self.arm(lua, STRIDE)?;
        }
        Ok(())
    }

    /// Why and where the run was stopped, if it was.
    pub(super) fn stopped(&self) -> Option<(Stop, Option<(String, usize)>)> {
        let stop = self.stop.get()?;
        Some((stop, self.stopped_at.borrow().clone()))
    }

    pub(super) fn started(&self) -> Instant {
        self.started.get()
    }

    /// Looks at the clock: for functions of ours that may be called often and take long each time.
    pub(super) fn look(&self) -> Result<(), Stopped> {
        let now = Instant::now();
        self.last.set(now);
        let elapsed = now - self.started.get();
        let signals = self.signals.borrow();
        if elapsed >= self.busy_after.get() && !self.busy.replace(true) {
            signals.busy.send_replace(true);
        }
        if self.stop.get().is_none() {
            if signals.kill.load(Ordering::Relaxed) {
                self.stop.set(Some(Stop::Killed));
            } else if elapsed >= self.ends_after.get() {
                self.stop.set(Some(Stop::OutOfTime));
            }
            signals
                .ended
                .fetch_or(self.stop.get().is_some(), Ordering::Relaxed);
        }
        self.stop.get().map_or(Ok(()), |_| Err(Stopped))
    }

    /// Counts one step of a loop of ours, and looks at the clock every [`STEPS`].
    pub(super) fn step(&self) -> Result<(), Stopped> {
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() < STEPS {
            return Ok(());
        }
        self.steps.set(0);
        self.look()
    }

    /// Counts several steps at once.
    pub(super) fn steps(&self, count: usize) -> Result<(), Stopped> {
        let count = u32::try_from(count).unwrap_or(STEPS);
        self.steps.set(self.steps.get().saturating_add(count));
        self.step()
    }

    /// Counts a coroutine that is resumed as so many steps, and resumes none once the run is to end.
    pub(super) fn resume(&self) -> Result<(), Stopped> {
        const RESUME_STEPS: usize = 100;
        match self.stop.get() {
            Some(_) => Err(Stopped),
            None => self.steps(RESUME_STEPS),
        }
    }

    fn arm(self: &Rc<Self>, lua: &Lua, stride: u32) -> mlua::Result<()> {
        self.stride.set(stride);
        let meter = Rc::clone(self);
        let triggers = HookTriggers::new().every_nth_instruction(stride);
        lua.set_global_hook(triggers, move |lua, frame| {
            let last = meter.last.get();
            let Err(Stopped) = meter.look() else {
                if meter.last.get() - last > SLOW_STRIDE && meter.stride.get() == STRIDE {
                    meter.arm(lua, SHORT_STRIDE)?;
                }
                return Ok(mlua::VmState::Continue);
            };
            if meter.stopped_at.borrow().is_none() {
                let source = frame.source();
                // The sandbox's own lines mean nothing to who reads the reply.
                if let (Some(source), Some(line)) = (source.source, frame.current_line())
                    && source != raise::SANDBOX
                {
                    meter.stopped_at.replace(Some((source.into_owned(), line)));
                }
            }
            meter.arm(lua, 1)?;
            Err(Raised::Stop.into())
        })
    }
}
