//! One connection: commands in their order, replies in the same order, and nothing without a bound.
//!
//! Every whole command in the input is run before the replies are flushed, once for all of them. Writes that follow each other go
//! to the node in one submission, where each is a unit of its own; anything else first waits for the writes before it, so a
//! connection sees what it wrote. Local reads never wait, and those that follow each other share one look at what is applied.
//!
//! While replies wait for the client, more is read only when it took none of them for [`PATIENCE`]: a client that reads slowly
//! slows itself down, a client that sends its whole pipeline before it reads still gets through, and one that never reads is cut
//! off at `max_output_bytes`. So is one that asks for more than that with one command or transaction.

use super::acl_log::Context;
use super::again::SoFar;
use super::calls::Tally;
use super::clients::{Client, Entered};
use super::encode::{Full, Protocol, encode_within};
use super::frame::{Parser, ProtocolError};
use super::hub;
use super::local::{self, Answer, Local, RunLater};
use super::multi::{self, Transaction, Watches};
use super::outbox::OutputLimits;
use super::permit::{self, Permit};
use super::pubsub;
use super::script;
use super::stream::{Reader, Stream, Writer};
use super::{Shared, trouble};
use crate::config::Reads;
use crate::machine::args::Args;
use crate::machine::entry::Command;
use crate::machine::event::Classes;
use crate::machine::interface::refuses_pattern;
use crate::machine::keyspace::View;
use crate::machine::reply::{CommandError, OUT_OF_MEMORY, Reply};
use crate::machine::table::{self, Run, Spec};
use crate::node::fellows::NO_REPLICAS;
use crate::node::{Freshness, Token, Written};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

/// Writes of one connection that go to the node in one submission, and so in one group.
pub const MAX_SUBMISSION_COMMANDS: usize = 512;

/// Bytes of one submission, unless a single command is larger. Half of a group, so that it fits beside others.
pub const MAX_SUBMISSION_BYTES: usize = 256 << 10;

/// Places for writes that a connection keeps from one submission to the next.
const KEPT_WRITES: usize = 32;

/// Commands that one connection runs before others on its thread have their turn.
const YIELD_COMMANDS: u32 = 256;

/// How long reads that follow each other in a pipeline may share one look at what is applied: applying waits as long.
const READS_FOR: Duration = Duration::from_micros(20);

/// How long a client may take none of the replies that wait, before more of its commands are run.
pub const PATIENCE: Duration = Duration::from_millis(100);

/// Replies that may wait before the first [`PATIENCE`]; doubled after each, up to `max_output_bytes`.
const OUTPUT_EASE_BYTES: usize = 1 << 20;

/// Replies that may wait for who has not said who it is: it is told little, and may not have us keep more than that. (Redis from 7.4.3 on: 1,024.)
const STRANGER_OUTPUT_BYTES: usize = 64 << 10;

/// Bytes that one read makes room for.
const READ_BYTES: usize = 16 << 10;

/// A buffer that grew beyond this for one large command or reply is given back when it is empty.
const KEPT_BYTES: usize = 256 << 10;

/// How long a connection that we close may take to read its last replies.
const FAREWELL: Duration = Duration::from_secs(1);

/// Bytes that are thrown away after we closed, so that the system does not reset the connection over the last reply.
const LINGER_BYTES: usize = 1 << 20;

/// What a connection has agreed on: what its commands see of it.
pub(super) struct Caller {
    pub(super) shared: Arc<Shared>,
    pub(super) client: Arc<Client>,
    /// Whether it has proved who it is, or need not.
    pub(super) known: bool,
    pub(super) permit: Permit,
    pub(super) db: u8,
    pub(super) protocol: Protocol,
    pub(super) freshness: Freshness,
    /// The newest of its own writes, and of what it waited for.
    pub(super) seen: Token,
    /// Whether it read since: then it has seen what this node has applied.
    pub(super) read: bool,
    /// Whether its reads are no use of the keys: `CLIENT NO-TOUCH`.
    pub(super) quiet: bool,
    pub(super) answers: Answers,
    /// What was said since `MULTI`.
    pub(super) transaction: Option<Box<Transaction>>,
    /// What `EXEC` looks at.
    pub(super) watches: Watches,
    /// Whether the commands of a transaction are being run.
    pub(super) executing: bool,
    /// What became of what came together with the command at hand.
    pub(super) so_far: SoFar,
    /// Whether the next reply is an error that was counted when a command answered it to a script.
    pub(super) counted: bool,
    /// How many subscriptions it has.
    pub(super) subscribed: usize,
    /// Whether it tracks what it reads.
    pub(super) tracks: bool,
    /// Whether it looks on what others do.
    pub(super) monitors: bool,
    /// What it was told before the command at hand changed how it is told: stands before the reply.
    pub(super) told: BytesMut,
    /// What stands in front of the reply of the command at hand.
    pub(super) preface: Option<Bytes>,
    /// What it counted and did not tell.
    pub(super) tally: Tally,
    /// Whether the connection ends after the replies so far.
    pub(super) closing: bool,
}

/// `CLIENT REPLY`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Answers {
    /// Every command is answered.
    #[default]
    On,
    /// None is.
    Off,
    /// This one is not, nor is the next: the state that `CLIENT REPLY SKIP` leaves for its own answer.
    SkipThisAndNext,
    /// The next one is not.
    SkipNext,
}

impl Answers {
    /// Whether the reply at hand is given; what is said of the next one is counted down.
    pub(super) fn next(&mut self) -> bool {
        match self {
            Self::On => return true,
            Self::Off => {}
            Self::SkipThisAndNext => *self = Self::SkipNext,
            Self::SkipNext => *self = Self::On,
        }
        false
    }
}

impl Caller {
    fn new(shared: Arc<Shared>, client: Arc<Client>) -> Self {
        let (permit, known) = Permit::at_first(&shared);
        let freshness = match shared.config.reads {
            Reads::Local => Freshness::Local,
            Reads::Linearizable => Freshness::Linearizable,
        };
        Self {
            shared,
            client,
            known,
            permit,
            db: 0,
            protocol: Protocol::default(),
            freshness,
            seen: Token::default(),
            read: false,
            quiet: false,
            answers: Answers::default(),
            transaction: None,
            watches: Watches::default(),
            executing: false,
            so_far: SoFar::default(),
            counted: false,
            subscribed: 0,
            tracks: false,
            monitors: false,
            told: BytesMut::new(),
            preface: None,
            tally: Tally::default(),
            closing: false,
        }
    }

    /// The user in whose name it speaks.
    pub(super) fn user(&self) -> Bytes {
        self.permit.user.clone()
    }

    /// Whether its commands take the short way: nothing but to run them.
    fn is_plain(&self) -> bool {
        self.transaction.is_none()
            && self.subscribed == 0
            && !self.tracks
            && !self.monitors
            && !self.shared.monitors.any()
            && !self.shared.pause.may_be()
    }

    /// The row of a read that needs nothing but to be run: no check that could refuse it, nobody who is told, nothing to be waited for.
    fn reads_at_once(&self, argv: &[Bytes]) -> Option<&'static Spec> {
        let spec = table::lookup(argv).ok()?;
        let at_once = matches!(spec.run, Run::Read(_))
            && self.freshness == Freshness::Local
            && self.known
            && self.may_all()
            && self.is_plain()
            && self.must_wait(spec).is_none()
            && self.is_alone(spec).is_none()
            && refuses_pattern(spec, argv).is_none();
        at_once.then_some(spec)
    }

    /// Waits until this node is as fresh as the connection's reads are to be.
    pub(super) async fn refresh(&mut self) -> Result<(), CommandError> {
        if self.freshness != Freshness::Local {
            self.so_far.goes_on()?;
            let token = self.shared.node.fresh(self.freshness).await.map_err(trouble)?;
            self.seen = self.seen.max(token);
        }
        Ok(())
    }

    /// Runs a command of the edge that waits. What comes to the same when it is done twice (`CONFIG SET`, `SCRIPT LOAD`) does not count as a write.
    pub(super) async fn run(&mut self, run: RunLater, spec: &Spec, args: Args<'_>) -> Answer {
        let writes = spec.changes() || multi::writes(self, spec, args.argv());
        if writes {
            self.so_far.goes_on()?;
        }
        let answer = run(self, args).await;
        self.so_far.after(writes, answer)
    }

    /// Chooses the version of the protocol, for replies from now on.
    pub(super) fn speak(&mut self, protocol: Protocol) {
        if protocol != self.protocol {
            self.protocol = protocol;
            self.shared.hub.speak(&self.client, protocol, &mut self.told);
        }
    }

    /// Counts a reply that is an error.
    pub(super) fn count_error(&mut self, reply: &Reply) {
        let counted = std::mem::take(&mut self.counted);
        if let Reply::Error(error) = reply
            && !counted
        {
            self.shared.stats.error(&error.to_string(), 1);
        }
    }

    /// Why a command has to wait until a script has ended that runs for too long, where everybody has to: `busy-reply-scope`.
    fn must_wait(&self, spec: &Spec) -> Option<CommandError> {
        if !self.shared.busy_for_all.load(Relaxed) || spec.flags.contains("allow_busy") {
            return None;
        }
        self.shared.node.script_busy()
    }

    /// Why a write is refused while this node hears from too few others: `min-replicas-to-write`.
    fn is_alone(&self, spec: &Spec) -> Option<CommandError> {
        let changes = || {
            let transaction = self.transaction.as_ref().filter(|_| spec.name == "EXEC");
            spec.changes() || transaction.is_some_and(|transaction| transaction.changes())
        };
        (self.shared.node.lacks_fellows() && changes()).then_some(NO_REPLICAS)
    }

    /// Why this command cannot be run in the state the connection is in.
    fn refuses(&self, spec: &Spec) -> Option<CommandError> {
        if self.transaction.is_some() && spec.flags.contains("no_multi") {
            return Some(CommandError::text("ERR Command not allowed inside a transaction"));
        }
        if self.monitors && !matches!(spec.run, Run::Local) {
            return Some(CommandError::text("ERR Replica can't interact with the keyspace"));
        }
        let two = self.protocol == Protocol::Resp2;
        let refused = two && self.subscribed > 0 && !pubsub::is_for_subscribers(spec);
        refused.then(|| pubsub::not_for_subscribers(spec))
    }

    /// `RESET`: as if it had just connected.
    pub(super) fn reset(&mut self) {
        self.unsubscribe_all();
        self.track_no_more();
        self.shared.monitors.leave(&self.client);
        self.shared
            .hub
            .speak(&self.client, Protocol::default(), &mut self.told);
        let (seen, tally) = (self.seen, std::mem::take(&mut self.tally));
        let (told, so_far) = (std::mem::take(&mut self.told), std::mem::take(&mut self.so_far));
        *self = Self {
            seen,
            so_far,
            tally,
            told,
            read: self.read,
            ..Self::new(self.shared.clone(), self.client.clone())
        };
        *self.client.shown.lock() = super::clients::Shown::default();
    }
}

/// Why a connection ends.
pub(super) enum End {
    /// By its own wish, or because of what it sent. It gets its last replies.
    Farewell,
    /// The other side is gone, or the network failed.
    Gone,
    /// Somebody ended it: `CLIENT KILL`, or the endpoint stops.
    Ended,
    /// It sent nothing for too long.
    Idle,
    /// It did not read its replies, or asked for more at once than may wait.
    OutputLimit,
}

impl From<Full> for End {
    fn from(_: Full) -> Self {
        Self::OutputLimit
    }
}

/// Serves one client until it or we have enough.
pub(super) async fn serve(stream: Stream, shared: Arc<Shared>, entered: Entered) {
    let caller = Caller::new(shared.clone(), entered.client.clone());
    let (reader, writer) = stream.into_split();
    let mut connection = Connection {
        caller,
        reader,
        writer,
        input: BytesMut::with_capacity(READ_BYTES),
        output: BytesMut::with_capacity(READ_BYTES),
        unflushed: false,
        knew: false,
        ease_at: 0,
        parser: Parser::new(shared.limits()),
        ahead: None,
        turn: 0,
        since: Instant::now(),
        writes: Vec::new(),
        specs: Vec::new(),
        writes_bytes: 0,
        published: Vec::new(),
    };
    connection.ease_at = connection.first_ease();
    let end = connection.run().await;
    entered.leave();
    let client = &entered.client;
    let end = match end {
        End::Ended if client.outbox.has_overflowed() => End::OutputLimit,
        end => end,
    };
    match end {
        End::Farewell => connection.farewell().await,
        End::Gone | End::Ended => {}
        End::Idle => shared.stats.idle.add(1),
        End::OutputLimit => {
            shared.stats.output_limit.add(1);
            tracing::warn!(client = client.id, peer = %client.peer, limit = shared.config.max_output_bytes,
                "a client does not read its replies and is cut off");
        }
    }
}

pub(super) struct Connection {
    pub(super) caller: Caller,
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    /// What came and was not run yet: at most one unfinished command between two batches.
    pub(super) input: BytesMut,
    /// Replies that wait; at most `max_output_bytes`, checked while one is written and after each.
    pub(super) output: BytesMut,
    /// Whether the writer may keep some of what it took.
    pub(super) unflushed: bool,
    /// Whether some of what waits may be for somebody known: after `RESET` it waits as before.
    knew: bool,
    /// The client is given [`PATIENCE`] when so many bytes wait.
    ease_at: usize,
    pub(super) parser: Parser,
    /// What was parsed beyond the command at hand.
    ahead: Option<Parsed>,
    /// Commands since others on its thread had their turn.
    turn: u32,
    /// When the command at hand began: when the one before it was done, or what was waited for was over.
    since: Instant,
    /// Writes whose submission is being collected.
    writes: Vec<Command>,
    /// Their rows.
    specs: Vec<&'static Spec>,
    writes_bytes: usize,
    /// Which of them publish, and where.
    published: Vec<Published>,
}

/// The next command of the input, if there is a whole one.
type Parsed = Result<Option<Vec<Bytes>>, ProtocolError>;

/// What a read comes to.
struct Look {
    reply: Reply,
    /// Its keys that were not there, and the events that are told: none where nobody is to be told.
    missed: (Classes, Vec<Bytes>),
    /// Its keys that have ended, where nobody else removes them.
    ended: Vec<Bytes>,
}

/// A read that is not answered by what it comes to alone: its row, its arguments, and that.
type Left = (&'static Spec, Vec<Bytes>, Look);

impl Look {
    /// Runs a command that only reads on what this node has applied.
    fn at(caller: &Caller, view: View<'_>, spec: &Spec, argv: &[Bytes]) -> Self {
        let shared = &caller.shared;
        let mut args = Args::new(argv, spec.words);
        let quiet = caller.quiet && spec.name != "TOUCH";
        let looked = if quiet { view.quietly() } else { view };
        let reply = match spec.run {
            Run::Read(run) => run(&looked, &mut args).into(),
            Run::Write(_) | Run::Local => Reply::Error(local::unknown(spec)),
        };
        let settings = view.settings();
        let keys = |wanted: bool, fits: &dyn Fn(&Bytes) -> bool| -> Vec<Bytes> {
            if !wanted {
                return Vec::new();
            }
            let keys = spec.keys_of(argv).into_iter();
            keys.filter(|key| fits(key)).cloned().collect()
        };
        let events = settings.notify_keyspace_events;
        let told = events.tell(Classes::KEY_MISS) && shared.hub.has_subscribers() && hub::tells_misses(spec);
        Self {
            missed: (events, keys(told, &|key| view.find(key).is_none())),
            ended: keys(!settings.active_expire, &|key| view.is_overdue(key)),
            reply,
        }
    }

    /// Whether its reply is all there is to it.
    fn is_all(&self) -> bool {
        self.missed.1.is_empty() && self.ended.is_empty() && !matches!(self.reply, Reply::Waiting(_))
    }
}

/// A command among the collected writes whose answer is the number of receivers on this node.
struct Published {
    position: usize,
    channel: Bytes,
    sharded: bool,
}

impl Connection {
    async fn run(&mut self) -> End {
        loop {
            let ran = self.batch().await;
            self.caller.tell_tally();
            if let Err(end) = ran {
                return end;
            }
            if let Err(end) = self.exchange().await {
                return end;
            }
        }
    }

    /// Runs every whole command in the input.
    async fn batch(&mut self) -> Result<(), End> {
        self.turn = 0;
        self.parser.limit(self.caller.shared.limits());
        self.begin();
        loop {
            if self.turn >= YIELD_COMMANDS {
                self.turn = 0;
                self.caller.tell_tally();
                yield_now().await;
                self.begin();
            }
            match self.ahead.take().unwrap_or_else(|| self.parse()) {
                Ok(Some(argv)) => self.command(argv).await?,
                Ok(None) => {
                    self.submit().await?;
                    // A command of which only a part is there came with those before it.
                    if self.input.is_empty() {
                        self.caller.so_far = SoFar::default();
                    }
                    return Ok(());
                }
                Err(error) => {
                    self.submit().await?;
                    self.answer(Reply::Error(CommandError::Other(error.to_string().into())))
                        .await?;
                    return Err(End::Farewell);
                }
            }
        }
    }

    fn parse(&mut self) -> Parsed {
        self.turn += 1;
        self.parser.next(&mut self.input, self.caller.known)
    }

    /// Writes the replies, and reads until something came.
    async fn exchange(&mut self) -> Result<(), End> {
        let idle = Duration::from_millis(self.caller.shared.idle_timeout_ms.load(Relaxed));
        // As in Redis, who waits for messages is not idle.
        let may_be_idle = !idle.is_zero() && self.caller.subscribed == 0;
        self.caller.client.note_buffers(&self.input, &self.output);
        self.make_room();
        loop {
            self.caller.client.outbox.take(&mut self.output);
            let waiting = !self.output.is_empty() || self.unflushed;
            tokio::select! {
                biased;
                written = self.writer.give(&mut self.output), if waiting => self.wrote(written)?,
                // Before reading: a client that never stops sending can be ended too.
                () = self.caller.client.ended() => return Err(End::Ended),
                () = self.caller.client.outbox.woken() => {}
                read = self.reader.read_buf(&mut self.input) => return self.received(read),
                () = sleep(idle), if may_be_idle => return Err(End::Idle),
            }
        }
    }

    /// Room for what comes next; large buffers that are empty are given back.
    fn make_room(&mut self) {
        for buffer in [&mut self.input, &mut self.output] {
            if buffer.is_empty() && buffer.capacity() > KEPT_BYTES {
                *buffer = BytesMut::new();
            }
        }
        self.input.reserve(READ_BYTES);
    }

    pub(super) fn received(&mut self, read: std::io::Result<usize>) -> Result<(), End> {
        let bytes = read.ok().filter(|bytes| *bytes > 0).ok_or(End::Gone)?;
        self.caller.client.spoke();
        self.caller.client.note_buffers(&self.input, &self.output);
        self.caller.shared.stats.reads.add(1);
        self.caller.shared.stats.input_bytes.add(bytes);
        Ok(())
    }

    pub(super) fn wrote(&mut self, written: std::io::Result<usize>) -> Result<(), End> {
        let bytes = written.map_err(|_| End::Gone)?;
        if bytes == 0 {
            self.unflushed = false;
            return Ok(());
        }
        self.unflushed = self.writer.keeps();
        self.caller.shared.stats.writes.add(1);
        self.caller.shared.stats.output_bytes.add(bytes);
        self.caller.client.note_buffers(&self.input, &self.output);
        if self.output.is_empty() {
            self.knew = false;
            self.ease_at = self.first_ease();
        }
        Ok(())
    }

    async fn command(&mut self, argv: Vec<Bytes>) -> Result<(), End> {
        self.caller.tally.commands += 1;
        let spec = match table::lookup(&argv) {
            Ok(spec) if self.caller.known || spec.flags.contains("no_auth") => spec,
            Ok(spec) => {
                const STRANGER: CommandError = CommandError::text("NOAUTH Authentication required.");
                self.caller.refused(Some(spec), &argv, &STRANGER);
                return self.reject(spec.name == "EXEC", STRANGER).await;
            }
            // What a browser sends to a port that is not HTTP, perhaps with commands of Redis in its body: not one of them is run.
            Err(_) if is_http(&argv[0]) => return Err(End::Gone),
            Err(error) => {
                let exec = matches!(&error, CommandError::Arity(name) if name == "exec");
                self.caller.refused(None, &argv, &error);
                return self.reject(exec, error).await;
            }
        };
        self.caller.client.runs(spec);
        if let Err(error) = self.permits(spec, &argv) {
            return self.forbid(spec, &argv, error).await;
        }
        let refusal = self.caller.must_wait(spec).or_else(|| self.caller.is_alone(spec));
        if let Some(error) = refusal.or_else(|| refuses_pattern(spec, &argv)) {
            self.caller.refused(Some(spec), &argv, &error);
            return self.reject(spec.name == "EXEC", error).await;
        }
        if self.caller.is_plain() {
            self.run_command(spec, argv).await
        } else {
            self.consider(spec, argv).await
        }
    }

    /// Whether the user may run a command. Asked again after each wait: meanwhile somebody may have taken it away.
    fn permits(&mut self, spec: &Spec, argv: &[Bytes]) -> Result<(), CommandError> {
        let context = if self.caller.transaction.is_some() {
            Context::Multi
        } else {
            Context::TopLevel
        };
        self.caller.permits(context, spec, argv)
    }

    /// Refuses what the user may not run, and ends the connection of one who is gone.
    async fn forbid(&mut self, spec: &Spec, argv: &[Bytes], error: CommandError) -> Result<(), End> {
        self.caller.refused(Some(spec), argv, &error);
        self.reject(spec.name == "EXEC", error).await?;
        if self.caller.closing {
            Err(End::Ended)
        } else {
            Ok(())
        }
    }

    /// Runs a command of a connection that is in some state: a transaction, subscriptions.
    async fn consider(&mut self, spec: &'static Spec, argv: Vec<Bytes>) -> Result<(), End> {
        if let Some(refusal) = self.caller.refuses(spec) {
            return self.reject(spec.name == "EXEC", refusal).await;
        }
        if self.sit_out_pause(spec, &argv).await?
            && let Err(error) = self.permits(spec, &argv)
        {
            return self.forbid(spec, &argv, error).await;
        }
        if self.caller.transaction.is_some() && multi::lacks_memory(&self.caller, spec) {
            self.caller.refused(Some(spec), &argv, &OUT_OF_MEMORY);
            return self.reject(false, OUT_OF_MEMORY).await;
        }
        if self.caller.transaction.is_some() && !multi::is_never_queued(spec) {
            return self.queue(spec, argv).await;
        }
        if !script::runs_one(spec) {
            self.caller.note_reads(spec, &argv);
        }
        // As in Redis, what may wait is shown before, the rest after, when it has changed the database or what is shown.
        let shown = if matches!(spec.run, Run::Local) && !script::runs_one(spec) {
            self.caller.shared.monitors.any().then(|| argv.clone())
        } else {
            self.caller.show(spec, &argv);
            None
        };
        self.run_command(spec, argv).await?;
        // Messages stand among the replies where the commands did that caused them.
        self.submit().await?;
        if let Some(argv) = shown {
            self.caller.show(spec, &argv);
        }
        self.caller.note_command(spec);
        Ok(())
    }

    async fn run_command(&mut self, spec: &'static Spec, argv: Vec<Bytes>) -> Result<(), End> {
        match spec.run {
            Run::Write(_) => {
                // Behind another write it goes with that.
                if spec.renews.is_some()
                    && self.writes.is_empty()
                    && let Some(reply) = self.renew(&argv).await
                {
                    let took = self.lap();
                    self.caller.ran(spec, &argv, took, &reply);
                    return self.answer(reply).await;
                }
                let blocks = spec.flags.contains("blocking");
                self.collect(spec, argv).await?;
                // What comes after a command that waits must not be applied before it is answered.
                if blocks || self.caller.answers != Answers::On {
                    self.submit().await?;
                }
                Ok(())
            }
            Run::Read(_) => {
                let waits = !self.writes.is_empty() || self.caller.freshness != Freshness::Local;
                self.submit().await?;
                self.caller.read = true;
                let refreshed = self.caller.refresh().await;
                if let Err(error) = self.caller.so_far.after(false, refreshed) {
                    self.append_read(spec, argv, Reply::Error(error))?;
                } else if waits && let Err(error) = self.permits(spec, &argv) {
                    return self.forbid(spec, &argv, error).await;
                } else if let Some((spec, argv, look)) = self.read_on(spec, argv)? {
                    let reply = self.tell(look).await;
                    if matches!(reply, Reply::Waiting(_)) {
                        // It found nothing and is to wait: only the log can make it do so.
                        self.collect(spec, argv).await?;
                        return self.submit().await;
                    }
                    self.append_read(spec, argv, reply)?;
                }
                self.ease_if_full().await
            }
            Run::Local => {
                let waits = !self.writes.is_empty();
                self.submit().await?;
                if waits && let Err(error) = self.permits(spec, &argv) {
                    return self.forbid(spec, &argv, error).await;
                }
                self.local(spec, &argv).await?;
                if self.caller.closing {
                    Err(End::Farewell)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// What was waited for is over: the command at hand, or the next one, begins now.
    pub(super) fn begin(&mut self) {
        self.since = Instant::now();
    }

    /// How long the command at hand took, since the one before it. One look at the clock for each.
    pub(super) fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now - std::mem::replace(&mut self.since, now)
    }

    /// A command that was refused before it could be run or queued: so is the transaction it is in.
    async fn reject(&mut self, exec: bool, refusal: CommandError) -> Result<(), End> {
        let refusal = if exec {
            multi::aborted(&mut self.caller, &refusal)
        } else {
            refusal
        };
        self.caller.refuse_transaction();
        self.refuse(refusal).await
    }

    /// A refusal that no command made: in its place among the replies.
    pub(super) async fn refuse(&mut self, error: CommandError) -> Result<(), End> {
        self.submit().await?;
        self.answer(Reply::Error(error)).await
    }

    /// Adds a write to the submission, which goes when it is full.
    async fn collect(&mut self, spec: &'static Spec, argv: Vec<Bytes>) -> Result<(), End> {
        let publishes = pubsub::is_publish(spec).map(|sharded| (argv[1].clone(), sharded));
        let command = Command {
            db: self.caller.db,
            argv: permit::sealed(spec, argv),
        };
        let bytes = command.encoded_len();
        if self.writes.len() >= MAX_SUBMISSION_COMMANDS || self.writes_bytes + bytes > MAX_SUBMISSION_BYTES {
            self.submit().await?;
        }
        if let Some((channel, sharded)) = publishes {
            let position = self.writes.len();
            self.published.push(Published {
                position,
                channel,
                sharded,
            });
        }
        self.writes_bytes += bytes;
        self.writes.push(command);
        self.specs.push(spec);
        Ok(())
    }

    /// Sends the collected writes through the log and answers them.
    pub(super) async fn submit(&mut self) -> Result<(), End> {
        if self.writes.is_empty() {
            return Ok(());
        }
        self.caller.tell_tally();
        let (mut writes, mut specs) = (std::mem::take(&mut self.writes), std::mem::take(&mut self.specs));
        self.writes_bytes = 0;
        let bracketed = self.caller.bracket(&mut writes);
        self.begin();
        let written = match self.caller.so_far.goes_on() {
            Ok(()) => self.caller.shared.node.write(&writes).await.map_err(trouble),
            Err(refusal) => Err(refusal),
        };
        let written = self.caller.so_far.after(true, written);
        if bracketed {
            writes.pop();
            writes.remove(0);
        }
        let said = specs.drain(..).zip(writes.drain(..));
        match written {
            Ok(mut written) => {
                if bracketed {
                    written.replies.remove(0);
                }
                self.caller.shared.node.let_evict().await;
                self.answer_written(written, said).await?;
            }
            Err(refusal) => {
                self.published.clear();
                let took = self.lap();
                for (spec, Command { argv, .. }) in said {
                    let reply = Reply::Error(refusal.clone());
                    self.caller.ran(spec, &argv, took, &reply);
                    self.answer(reply).await?;
                }
            }
        }
        writes.shrink_to(KEPT_WRITES);
        specs.shrink_to(KEPT_WRITES);
        (self.writes, self.specs) = (writes, specs);
        self.begin();
        Ok(())
    }

    async fn answer_written(
        &mut self,
        written: Written,
        said: impl Iterator<Item = (&'static Spec, Command)>,
    ) -> Result<(), End> {
        let took = self.lap();
        self.caller.seen = self.caller.seen.max(written.token);
        if self.caller.subscribed > 0 && !self.caller.tracks {
            // A client that publishes to itself has the message before the answer.
            self.caller.client.outbox.take_all(&mut self.output);
        }
        let mut published = std::mem::take(&mut self.published).into_iter().peekable();
        let mut waits = written.waits.into_iter();
        for (position, (reply, (spec, said))) in written.replies.into_iter().zip(said).enumerate() {
            let argv = said.argv;
            let published = published.next_if(|published| published.position == position);
            let reply = match (reply, published) {
                (Reply::Waiting(_), _) => match waits.next() {
                    Some(wait) => {
                        let reply = self.wait(wait).await?;
                        self.begin();
                        reply
                    }
                    None => Reply::Nil,
                },
                (Reply::Integer(_), Some(at)) => {
                    Reply::count(self.caller.shared.hub.receivers(&at.channel, at.sharded))
                }
                (reply, _) => reply,
            };
            if reply == Reply::Error(OUT_OF_MEMORY) {
                // As in Redis it was refused before it ran, though here the log had to say so.
                self.caller.refused(Some(spec), &argv, &OUT_OF_MEMORY);
            } else {
                self.caller.ran(spec, &argv, took, &reply);
            }
            self.parser.reuse(argv);
            self.answer(reply).await?;
        }
        Ok(())
    }

    /// Reads, and goes on with the reads that came behind it: one look at what is applied is for all of them, and is let go after [`READS_FOR`]. A
    /// read that has to tell something or to wait is given back; what was parsed and is no read is kept for its turn.
    fn read_on(&mut self, spec: &'static Spec, argv: Vec<Bytes>) -> Result<Option<Left>, End> {
        let (shared, until) = (self.caller.shared.clone(), self.since + READS_FOR);
        shared.node.view(self.caller.db, |view| {
            let (mut spec, mut argv) = (spec, argv);
            loop {
                let look = Look::at(&self.caller, view, spec, &argv);
                if !look.is_all() {
                    return Ok(Some((spec, argv, look)));
                }
                self.append_read(spec, argv, look.reply)?;
                if self.is_full() || self.since > until {
                    return Ok(None);
                }
                let parsed = self.parse();
                let row = match &parsed {
                    Ok(Some(next)) => self.caller.reads_at_once(next),
                    _ => None,
                };
                (spec, argv) = match (row, parsed) {
                    (Some(row), Ok(Some(next))) => (row, next),
                    (_, parsed) => {
                        self.ahead = Some(parsed);
                        return Ok(None);
                    }
                };
                self.caller.tally.commands += 1;
                self.caller.client.runs(spec);
            }
        })
    }

    /// Notes how a read went, and appends what it came to.
    fn append_read(&mut self, spec: &'static Spec, argv: Vec<Bytes>, reply: Reply) -> Result<(), End> {
        let took = self.lap();
        self.caller.ran(spec, &argv, took, &reply);
        self.parser.reuse(argv);
        self.append(&reply)
    }

    /// Does what a read leaves to be done.
    async fn tell(&mut self, look: Look) -> Reply {
        let Look { reply, missed, ended } = look;
        if !ended.is_empty() {
            let (node, db) = (self.caller.shared.node.clone(), self.caller.db);
            // Where they cannot be removed now they are found again.
            if let Ok(token) = node.end_keys(db, ended).await {
                self.caller.seen = self.caller.seen.max(token);
            }
        }
        let (events, missed) = missed;
        if !missed.is_empty() {
            let db = self.caller.db;
            self.caller.shared.hub.tell_missed(db, events, &missed);
            if self.caller.subscribed > 0 && !self.caller.tracks {
                self.caller.client.outbox.take_all(&mut self.output);
            }
        }
        reply
    }

    /// Answers what only renews a key's life, where that needs no write: as fresh as the connection's reads are.
    async fn renew(&mut self, argv: &[Bytes]) -> Option<Reply> {
        let (node, freshness) = (&self.caller.shared.node, self.caller.freshness);
        let reply = node.renew(freshness, self.caller.db, argv).await?;
        self.caller.read = true;
        Some(reply)
    }

    /// Runs a command of the edge and answers it.
    async fn local(&mut self, spec: &'static Spec, argv: &[Bytes]) -> Result<(), End> {
        self.caller.tell_tally();
        self.knew |= self.caller.known;
        let mut args = Args::new(argv, spec.words);
        let reply = match local::by_name(spec.name) {
            Some(Local::Now(run)) => run(&mut self.caller, &mut args).into(),
            Some(Local::Later(run)) => self.caller.run(run, spec, args).await.into(),
            Some(Local::Long(run)) => match run(&self.caller, &mut args) {
                Ok(answer) => {
                    let answer = self.wait_for_others(answer).await?;
                    self.caller.so_far.after(false, answer).into()
                }
                Err(error) => Reply::Error(error),
            },
            Some(Local::Pushing(run)) => match run(&mut self.caller, &mut args, &mut self.output) {
                Ok(()) => {
                    let took = self.lap();
                    self.caller.ran(spec, argv, took, &Reply::Nil);
                    return self.ease_if_full().await;
                }
                Err(error) => Reply::Error(error),
            },
            Some(Local::Exec) => return self.exec(spec, argv).await,
            None => Reply::Error(local::unknown(spec)),
        };
        self.give_told();
        let took = self.lap();
        self.caller.ran(spec, argv, took, &reply);
        self.answer(reply).await
    }

    /// Appends what was told before the command at hand changed how.
    pub(super) fn give_told(&mut self) {
        let told = std::mem::take(&mut self.caller.told);
        self.output.extend_from_slice(&told);
    }

    /// Appends a reply, and waits a while for the client when many wait.
    pub(super) async fn answer(&mut self, reply: Reply) -> Result<(), End> {
        self.append(&reply)?;
        self.ease_if_full().await
    }

    /// Appends a reply, as far as it fits: nothing of it is sent where it does not.
    fn append(&mut self, reply: &Reply) -> Result<(), End> {
        self.caller.count_error(reply);
        let preface = self.caller.preface.take();
        if self.caller.answers.next() {
            if let Some(preface) = preface {
                self.output.extend_from_slice(&preface);
            }
            let (protocol, most) = (self.caller.protocol, self.most_output());
            encode_within(reply, protocol, most, &mut self.output)?;
        }
        Ok(())
    }

    pub(super) async fn ease_if_full(&mut self) -> Result<(), End> {
        if self.exceeds_hard() {
            Err(End::OutputLimit)
        } else if self.is_full() {
            self.ease().await
        } else {
            Ok(())
        }
    }

    /// Whether so many replies wait that the client is cut off.
    fn exceeds_hard(&self) -> bool {
        self.limits().exceeds_hard(self.output.len())
    }

    /// How much may wait by Redis' setting.
    fn limits(&self) -> &OutputLimits {
        if self.caller.subscribed > 0 {
            &self.caller.shared.hub.limits
        } else {
            &self.caller.shared.reply_limits
        }
    }

    /// Bytes of replies beyond which the client is cut off, whatever it takes: also of one reply, and of all of one transaction.
    pub(super) fn most_output(&self) -> usize {
        self.output_max().min(self.limits().hard_bytes())
    }

    /// Whether so many replies wait that the client is to take some before more of its commands are run.
    fn is_full(&self) -> bool {
        self.output.len() >= self.ease_at || self.exceeds_hard()
    }

    /// Bytes of replies that may wait, before the client is cut off.
    fn output_max(&self) -> usize {
        let most = self.caller.shared.config.max_output_bytes;
        if self.caller.known || self.knew {
            most
        } else {
            most.min(STRANGER_OUTPUT_BYTES)
        }
    }

    /// When the client is given [`PATIENCE`] first.
    fn first_ease(&self) -> usize {
        OUTPUT_EASE_BYTES.min(self.output_max() / 2).max(1)
    }

    /// Lets the client take replies, until enough are gone or it took none for [`PATIENCE`].
    async fn ease(&mut self) -> Result<(), End> {
        let limit = self.output_max();
        if self.output.len() > limit {
            return Err(End::OutputLimit);
        }
        while self.output.len() >= self.ease_at {
            match timeout(PATIENCE, self.writer.give(&mut self.output)).await {
                Ok(written) => self.wrote(written)?,
                Err(_) => {
                    self.ease_at = self.ease_at.saturating_mul(2).min(limit);
                    break;
                }
            }
        }
        self.begin();
        Ok(())
    }

    /// Gives the client its last replies and closes.
    async fn farewell(self) {
        let Self {
            mut reader,
            mut writer,
            mut output,
            ..
        } = self;
        let close = async {
            writer.write_all_buf(&mut output).await?;
            linger(&mut reader, &mut writer).await
        };
        // Whoever does not take them is gone either way.
        let _ = timeout(FAREWELL, close).await;
    }
}

/// Closes our side and reads on until the other side has closed too: a close with unread input would reset the connection, and
/// the other side might never read the last reply.
pub(super) async fn linger(reader: &mut Reader, writer: &mut Writer) -> std::io::Result<()> {
    writer.shutdown().await?;
    let (mut sink, mut left) = ([0; 4096], LINGER_BYTES);
    while left > 0 {
        match reader.read(&mut sink).await? {
            0 => return Ok(()),
            bytes => left = left.saturating_sub(bytes),
        }
    }
    Ok(())
}

fn is_http(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}
