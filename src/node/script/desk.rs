//! What a running script may ask of the world: commands on the scratch machine, the time, its database.

use super::engine::{Host, Signals};
use super::evaluator::Control;
use super::notes::Notes;
use super::request::Request;
use crate::machine::access::{Denied, User};
use crate::machine::args::{Args, integer};
use crate::machine::entry::Millis;
use crate::machine::interface::refuses_pattern;
use crate::machine::internal::Watch;
use crate::machine::keyspace::DATABASES;
use crate::machine::overlay::{NOT_FROM_SCRIPT, Overlay, Refused};
use crate::machine::reply::{CommandError, OUT_OF_MEMORY, Reply};
use crate::machine::table::{self, Run, Spec};
use crate::node::fellows::NO_REPLICAS;
use crate::raft::state_store::State;
use bytes::Bytes;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// How long `DEBUG SLEEP` sleeps before it looks whether the script is to end.
const NAP: Duration = Duration::from_millis(10);

/// Why a run is given up. What it did so far counts for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GivenUp {
    /// It looks at more than the keys it names: to be begun again on a copy of everything.
    NeedsAll,
    /// It writes, and here it may not: to be begun again elsewhere.
    Writes,
    /// It writes or answers more than there is room for, here or elsewhere.
    TooMuch,
}

/// The world of one run.
pub(super) struct Desk<'a> {
    pub(super) overlay: &'a mut Overlay,
    pub(super) state: &'a State,
    /// The time that the script sees.
    pub(super) now: Millis,
    pub(super) db: u8,
    /// The script has said that it writes nothing: a write is an error of its own.
    pub(super) read_only: bool,
    /// Whether it may call what is not for scripts.
    pub(super) allow_all: bool,
    /// After this it counts as busy.
    pub(super) busy_after: Duration,
    /// Then it is ended.
    pub(super) until: Instant,
    /// Whether what it writes can go into the log.
    pub(super) may_write: bool,
    pub(super) given_up: Option<GivenUp>,
    /// Memory was full when the run began, so that what needs more is refused; but not once the script has written something.
    pub(super) out_of_memory: bool,
    /// Whether writes are refused because too few other members are heard from.
    pub(super) alone: bool,
    pub(super) signals: Arc<Signals>,
    /// In whose name it runs; none, who is gone meanwhile, may do nothing.
    pub(super) user: Option<Arc<User>>,
    /// Which call of the request this is.
    pub(super) call: usize,
    /// What it does beside answering.
    pub(super) notes: Notes,
    /// Whether its commands are to be shown.
    pub(super) shows: bool,
    /// Those that take so long are to be told.
    pub(super) slow_after: Option<Duration>,
}

impl<'a> Desk<'a> {
    /// The world of a request, before its first call.
    pub(super) fn new(
        overlay: &'a mut Overlay,
        state: &'a State,
        control: &Control,
        request: &Request,
        now: Millis,
        until: Instant,
        may_write: bool,
    ) -> Self {
        let busy_after = match control.busy_after_ms.load(Ordering::Relaxed) {
            0 => Duration::MAX,
            milliseconds => Duration::from_millis(milliseconds),
        };
        let user = {
            let machine = state.machine().read();
            machine.store().access().user(&request.user).cloned()
        };
        Self {
            overlay,
            state,
            now,
            db: 0,
            read_only: false,
            allow_all: control.allow_all.load(Ordering::Relaxed),
            busy_after,
            until,
            may_write,
            given_up: None,
            out_of_memory: false,
            alone: false,
            signals: Arc::default(),
            user,
            call: 0,
            notes: Notes::default(),
            shows: request.shows,
            slow_after: request.slow_after,
        }
    }

    /// Runs a command as part of a transaction, or a script's call after its checks.
    pub(super) fn command(&mut self, spec: &Spec, argv: &[Bytes]) -> Reply {
        if matches!(spec.run, Run::Local) {
            return self.local(spec, argv).unwrap_or_else(Reply::Error);
        }
        if matches!(spec.run, Run::Write(_)) && !self.may_write {
            return self.give_up(GivenUp::Writes);
        }
        let (state, now) = (self.state, self.now);
        let fetch = |db: u8, key: &[u8]| state.machine().read().view(now, db).find(key).cloned();
        match self.overlay.run(spec, self.db, argv, &fetch) {
            Ok(reply) => reply,
            Err(Refused::NeedsAll) => self.give_up(GivenUp::NeedsAll),
            Err(Refused::TooMuch) => self.give_up(GivenUp::TooMuch),
        }
    }

    fn permits(&self, spec: &Spec, argv: &[Bytes]) -> Result<(), Denied> {
        self.user
            .as_ref()
            .map_or(Err(Denied::Command), |user| user.permits(spec, argv))
    }

    /// Whether the keys a transaction watches are what they were; nothing, where that hangs on a script that is not in the log yet.
    pub(super) fn watches_hold(&mut self, watches: &[Watch]) -> Option<bool> {
        let (state, now) = (self.state, self.now);
        let fetch = |db: u8, key: &[u8]| state.machine().read().view(now, db).find(key).cloned();
        let mut hold = true;
        for watch in watches {
            hold &= self.overlay.version(watch.db, &watch.key, &fetch)? == watch.version;
        }
        Some(hold)
    }

    /// Stops the run so that the script cannot go on: its outcome is thrown away.
    pub(super) fn give_up(&mut self, why: GivenUp) -> Reply {
        self.given_up.get_or_insert(why);
        self.signals.kill.store(true, Ordering::Relaxed);
        Reply::Error(CommandError::text("ERR this run is given up"))
    }

    /// The few commands of a connection that make sense in a script.
    fn local(&mut self, spec: &Spec, argv: &[Bytes]) -> Result<Reply, CommandError> {
        let mut args = Args::new(argv, 1);
        match spec.name {
            "PING" => Ok(args.peek().map_or(Reply::Simple(Cow::Borrowed("PONG")), |word| {
                Reply::Bulk(word.clone())
            })),
            "ECHO" => Ok(Reply::Bulk(args.bytes()?.clone())),
            "TIME" => Ok(Reply::bulks([
                (self.now / 1000).to_string(),
                (self.now % 1000 * 1000).to_string(),
            ])),
            "SELECT" => {
                let index = integer(args.bytes()?).ok_or(CommandError::NotAnInteger)?;
                let known = u8::try_from(index)
                    .ok()
                    .filter(|index| usize::from(*index) < DATABASES);
                self.db = known.ok_or(CommandError::text("ERR DB index is out of range"))?;
                Ok(Reply::OK)
            }
            "DEBUG" if argv.len() == 3 && argv[1].eq_ignore_ascii_case(b"protocol") => {
                Reply::sample(&argv[2])
            }
            "DEBUG" if argv.len() == 3 && argv[1].eq_ignore_ascii_case(b"sleep") => {
                let seconds = String::from_utf8_lossy(&argv[2]).parse().unwrap_or(0.0);
                self.sleep(Duration::try_from_secs_f64(seconds).unwrap_or_default());
                Ok(Reply::OK)
            }
            _ => Err(NOT_FROM_SCRIPT),
        }
    }

    /// Sleeps, at most until the run is to end.
    fn sleep(&self, time: Duration) {
        let until = self
            .until
            .min(Instant::now() + time.min(Duration::from_secs(3_600)));
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.signals.kill.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(left.min(NAP));
        }
    }

    /// Why a script may not run this command; else nothing.
    fn refuses(&mut self, spec: &'static Spec, argv: &[Bytes]) -> Option<CommandError> {
        const READ_ONLY: CommandError =
            CommandError::text("ERR Write commands are not allowed from read-only scripts.");
        if !self.allow_all && spec.flags.split(' ').any(|flag| flag == "noscript") {
            return Some(NOT_FROM_SCRIPT);
        }
        if waits_for_streams(spec, argv) {
            let name = String::from_utf8_lossy(&argv[0]);
            let text = format!("ERR {name} command is not allowed with BLOCK option from scripts");
            return Some(CommandError::Other(text.into()));
        }
        if self.read_only && matches!(spec.run, Run::Write(_)) {
            return Some(READ_ONLY);
        }
        if let Some(error) = refuses_pattern(spec, argv) {
            return Some(error);
        }
        if let Err(denied) = self.permits(spec, argv) {
            self.notes.denied(denied, spec, argv);
            return Some(refusal(denied));
        }
        let user = self.user.as_ref();
        if let Some(Err(refused)) = user.map(|user| user.permits_unnamed_keys(spec, argv)) {
            return Some(refused);
        }
        if self.alone && spec.changes() {
            return Some(NO_REPLICAS);
        }
        // Where it may not write, the leader says whether there is room.
        let refused = self.may_write && self.out_of_memory && spec.needs_memory();
        refused.then_some(OUT_OF_MEMORY)
    }

    /// As in Redis, a set that is not to be sorted is sorted for a script, by its elements.
    fn in_order(&mut self, spec: &Spec, argv: &[Bytes]) -> Option<Vec<Bytes>> {
        if !matches!(spec.name, "SORT" | "SORT_RO") {
            return None;
        }
        let sorted = without_constant_by(argv)?;
        let ask = [Bytes::from_static(b"TYPE"), argv[1].clone()];
        let kind = self.command(table::by_name("TYPE")?, &ask);
        (kind == Reply::Simple(Cow::Borrowed("set"))).then_some(sorted)
    }
}

/// Whether this reads streams and says how long to wait: the option stands before the streams.
fn waits_for_streams(spec: &Spec, argv: &[Bytes]) -> bool {
    let mut options = argv
        .iter()
        .take_while(|word| !word.eq_ignore_ascii_case(b"STREAMS"));
    matches!(spec.name, "XREAD" | "XREADGROUP") && options.any(|word| word.eq_ignore_ascii_case(b"BLOCK"))
}

/// The arguments of a `SORT` whose `BY` names no other keys, with `ALPHA` in its place; nothing for any other.
fn without_constant_by(argv: &[Bytes]) -> Option<Vec<Bytes>> {
    let (mut kept, mut constant, mut at) = (argv.get(..2)?.to_vec(), false, 2);
    while let Some(word) = argv.get(at) {
        let is = |known: &str| word.eq_ignore_ascii_case(known.as_bytes());
        let words = match () {
            () if is("LIMIT") => 3,
            () if is("BY") || is("GET") || is("STORE") => 2,
            () => 1,
        };
        let option = argv.get(at..at + words)?;
        if is("BY") {
            constant |= !option[1].contains(&b'*');
        } else {
            kept.extend_from_slice(option);
        }
        at += words;
    }
    kept.push(Bytes::from_static(b"ALPHA"));
    constant.then_some(kept)
}

/// What a script hears whose user may not do this.
fn refusal(denied: Denied) -> CommandError {
    CommandError::text(match denied {
        Denied::Command => "ERR The user executing the script can't run this command or subcommand",
        Denied::Key(_) => {
            "ERR The user executing the script can't access at least one of the keys mentioned in the command arguments"
        }
        Denied::Channel(_) => {
            "ERR The user executing the script can't publish to the channel mentioned in the command"
        }
    })
}

impl Host for Desk<'_> {
    fn call(&mut self, argv: &[Bytes]) -> Reply {
        const ARITY: CommandError =
            CommandError::text("ERR Wrong number of args calling Redis command from script");
        const UNKNOWN: CommandError = CommandError::text("ERR Unknown Redis command called from script");
        if self.given_up.is_some() {
            return Reply::Error(CommandError::text("ERR this run is given up"));
        }
        let spec = match table::lookup(argv) {
            Ok(spec) => spec,
            Err(error) => {
                let (error, known) = match error {
                    CommandError::Arity(name) => (ARITY, table::by_name(&name.to_ascii_uppercase())),
                    _ => (UNKNOWN, None),
                };
                self.notes.rejected(known, &error);
                return Reply::Error(error);
            }
        };
        if let Some(error) = self.refuses(spec, argv) {
            self.notes.rejected(Some(spec), &error);
            return Reply::Error(error);
        }
        self.out_of_memory &= !spec.is_write();
        let (began, db) = (Instant::now(), self.db);
        let reply = match self.in_order(spec, argv) {
            Some(argv) => self.command(spec, &argv),
            None => self.command(spec, argv),
        };
        if self.given_up.is_none() {
            let took = began.elapsed();
            self.notes.ran(spec, took, &reply);
            if self.slow_after.is_some_and(|slow| took >= slow) {
                self.notes.slow(self.call, argv, took);
            }
            if self.shows {
                self.notes.show(self.call, db, argv);
            }
        }
        reply
    }

    fn may_run(&mut self, argv: &[Bytes]) -> Option<bool> {
        let spec = table::lookup(argv).ok()?;
        Some(self.permits(spec, argv).is_ok())
    }

    fn log(&mut self, level: u8, message: &[u8]) {
        let message = String::from_utf8_lossy(message);
        match level {
            0 => tracing::debug!(%message, "a script says"),
            1 | 2 => tracing::info!(%message, "a script says"),
            _ => tracing::warn!(%message, "a script says"),
        }
    }
}
