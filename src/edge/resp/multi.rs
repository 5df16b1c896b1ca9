//! Transactions: `MULTI` queues commands, `EXEC` sends them through the log as one, if nothing that was watched has changed.
//!
//! What concerns the connection (`PING`, `SELECT`, `CLIENT` …) is run by the edge in its place among the replies, after the log has
//! taken the rest. A transaction that only reads, under no `WATCH`, is answered from one view of this node's state.

use super::connection::{Answers, Caller, Connection, End};
use super::encode::{self, Full, encode_within};
use super::local::{self, Answer, Local, Waiting};
use super::{again, permit, pubsub, script, trouble};
use crate::error::Error;
use crate::machine::args::Args;
use crate::machine::entry::Command;
use crate::machine::internal::Watch;
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{Run, Spec};
use crate::node::{Call, Freshness, Notes, Request, Written};
use bytes::{Bytes, BytesMut};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// Keys that one connection watches.
pub(super) const MAX_WATCHED_KEYS: usize = 65_536;

/// Bytes of those keys.
pub(super) const MAX_WATCHED_BYTES: usize = 16 << 20;

/// Commands of one transaction.
pub(super) const MAX_QUEUED_COMMANDS: usize = 1 << 20;

/// Bytes of one transaction: its arguments, and where they stand. What the log takes at once is less by default, and says so.
pub(super) const MAX_QUEUED_BYTES: usize = 256 << 20;

/// What was said since `MULTI`.
#[derive(Default)]
pub(super) struct Transaction {
    queued: Vec<Queued>,
    bytes: usize,
    /// Whether a command was refused: `EXEC` will refuse them all.
    refused: bool,
}

struct Queued {
    spec: &'static Spec,
    argv: Vec<Bytes>,
}

impl Transaction {
    /// Notes that a command was refused: nothing is kept of what will not run.
    fn refuse(&mut self) {
        *self = Self {
            refused: true,
            ..Self::default()
        };
    }

    /// Whether a queued command changes something or tells somebody.
    pub(super) fn writes(&self, caller: &Caller) -> bool {
        self.queued
            .iter()
            .any(|queued| writes(caller, queued.spec, &queued.argv))
    }

    /// Whether Redis takes a queued command for a write.
    pub(super) fn changes(&self) -> bool {
        self.queued.iter().any(|queued| queued.spec.changes())
    }

    fn push(&mut self, spec: &'static Spec, argv: &[Bytes]) -> Result<(), CommandError> {
        const TOO_LARGE: CommandError = CommandError::text("ERR the transaction is too large");
        if self.refused {
            return Ok(());
        }
        self.bytes += argv
            .iter()
            .map(|argument| size_of::<Bytes>() + argument.len())
            .sum::<usize>();
        if self.queued.len() >= MAX_QUEUED_COMMANDS || self.bytes > MAX_QUEUED_BYTES {
            self.refuse();
            return Err(TOO_LARGE);
        }
        let argv = apart(argv);
        self.queued.push(Queued { spec, argv });
        Ok(())
    }
}

/// What a connection watches: at most [`MAX_WATCHED_KEYS`] of [`MAX_WATCHED_BYTES`].
#[derive(Default)]
pub(super) struct Watches {
    list: Vec<Watch>,
    /// Database and name of each, to find it: there may be many, and one may be named over and over.
    known: HashSet<(u8, Bytes)>,
    /// Bytes of the names.
    bytes: usize,
}

impl Watches {
    /// One that never holds.
    fn of_what_changed() -> Self {
        Self {
            list: vec![Watch::of_what_changed()],
            ..Self::default()
        }
    }

    /// Adds those keys that are not watched yet, in versions that are still to be read: those that it returns.
    fn add(&mut self, db: u8, keys: &[Bytes]) -> Result<&mut [Watch], CommandError> {
        let before = self.list.len();
        for key in keys {
            if self.known.contains(&(db, key.clone())) {
                continue;
            }
            self.bytes += key.len();
            if self.list.len() >= MAX_WATCHED_KEYS || self.bytes > MAX_WATCHED_BYTES {
                return Err(CommandError::text("ERR too many watched keys"));
            }
            // Not a part of the buffer it came in, which would stay as long.
            let key = Bytes::copy_from_slice(key);
            self.known.insert((db, key.clone()));
            let version = 0;
            self.list.push(Watch { db, key, version });
        }
        Ok(&mut self.list[before..])
    }
}

/// A command in memory of its own: the buffer that it came in would stay as long.
fn apart(argv: &[Bytes]) -> Vec<Bytes> {
    let mut own = BytesMut::with_capacity(argv.iter().map(Bytes::len).sum());
    let copied = argv.iter().map(|argument| {
        own.extend_from_slice(argument);
        own.split().freeze()
    });
    copied.collect()
}

/// Whether a command changes something or tells somebody: what `CLIENT PAUSE … WRITE` holds back.
pub(super) fn writes(caller: &Caller, spec: &Spec, argv: &[Bytes]) -> bool {
    // Redis' PFCOUNT may note what it counted; MIGRATE removes keys by itself.
    matches!(spec.run, Run::Write(_))
        || matches!(spec.name, "PFCOUNT" | "MIGRATE")
        || script::may_write(caller, spec, argv)
}

/// Whether a command is run at once, also inside a transaction.
pub(super) fn is_never_queued(spec: &Spec) -> bool {
    matches!(
        spec.name,
        "EXEC" | "DISCARD" | "MULTI" | "WATCH" | "QUIT" | "RESET"
    )
}

/// Whether memory is full so that nothing more is queued: a transaction takes memory, whatever it does. It can be ended all the same.
pub(super) fn lacks_memory(caller: &Caller, spec: &Spec) -> bool {
    let ends = matches!(spec.name, "EXEC" | "DISCARD" | "QUIT" | "RESET");
    !ends && caller.shared.node.is_out_of_memory()
}

/// What `EXEC` answers where it could not be run: the transaction is over. Redis leaves out the plain prefix of the reason.
pub(super) fn aborted(caller: &mut Caller, reason: &CommandError) -> CommandError {
    caller.forget_transaction();
    let reason = reason.to_string();
    let reason = reason.strip_prefix("ERR ").unwrap_or(&reason);
    CommandError::Other(format!("EXECABORT Transaction discarded because of: {reason}").into())
}

pub(super) fn multi(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    if caller.transaction.is_some() {
        return Err(CommandError::text("ERR MULTI calls can not be nested"));
    }
    caller.transaction = Some(Box::default());
    caller.client.shown.lock().queued = Some(0);
    Ok(Reply::OK)
}

pub(super) fn discard(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    if caller.transaction.is_none() {
        return Err(CommandError::text("ERR DISCARD without MULTI"));
    }
    caller.forget_transaction();
    Ok(Reply::OK)
}

pub(super) fn unwatch(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    caller.watches = Watches::default();
    Ok(Reply::OK)
}

/// `WATCH key ...`. What cannot be watched counts as changed: clients that look at no reply but that of `EXEC` (StackExchange.Redis) rely on it.
pub(super) fn watch<'a>(caller: &'a mut Caller, args: Args<'a>) -> Waiting<'a> {
    Box::pin(async move {
        if caller.transaction.is_some() {
            return Err(CommandError::text("ERR WATCH inside MULTI is not allowed"));
        }
        let watched = caller.watch(args).await;
        if watched.is_err() {
            caller.watches = Watches::of_what_changed();
        }
        watched.map(|()| Reply::OK)
    })
}

impl Caller {
    /// Notes the versions of keys, all of one applied index.
    async fn watch(&mut self, mut args: Args<'_>) -> Result<(), CommandError> {
        self.refresh().await?;
        // Everything that takes time is done before: who holds the view holds up what is to be applied.
        let new = self.watches.add(self.db, args.rest())?;
        self.shared.node.view(self.db, |view| {
            for watch in new {
                watch.version = view.version(&watch.key);
            }
        });
        Ok(())
    }

    /// Notes that a command was refused that could have been queued.
    pub(super) fn refuse_transaction(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.refuse();
            self.show_queued();
        }
    }

    fn show_queued(&self) {
        if let Some(transaction) = &self.transaction {
            let mut shown = self.client.shown.lock();
            (shown.queued, shown.queued_bytes) = (Some(transaction.queued.len()), transaction.bytes);
        }
    }

    /// Leaves the transaction, and watches nothing any more.
    pub(super) fn forget_transaction(&mut self) {
        self.transaction = None;
        self.watches = Watches::default();
        let mut shown = self.client.shown.lock();
        (shown.queued, shown.queued_bytes) = (None, 0);
    }
}

/// One command for the node: its row, its database, and what it runs.
struct Step {
    spec: &'static Spec,
    db: u8,
    call: Call,
    /// What this node tells itself at this place.
    notes: Vec<Command>,
}

/// Who answers a command of a transaction.
enum Part {
    /// The node, with the others.
    Node,
    /// The edge, when it is its turn.
    Edge,
    /// Nobody runs it: it is not permitted any more, or there is no such script.
    Refused(CommandError),
}

/// What the scripts of a transaction are to run, in their order. A script may only read, and then no majority is asked when it runs: this node is made as
/// fresh as reads are to be.
///
/// # Errors
/// Where that cannot be, or a script not be made known: nothing was run.
async fn scripts(
    caller: &mut Caller,
    queued: &[Queued],
) -> Result<VecDeque<Result<Call, CommandError>>, CommandError> {
    let mut calls = VecDeque::new();
    for Queued { spec, argv } in queued.iter().filter(|queued| script::runs_one(queued.spec)) {
        caller.so_far.goes_on()?;
        let call = match caller.still_permits(spec, argv) {
            Ok(()) => script::queued(caller, spec, argv).await,
            Err(refusal) => Some(Err(refusal)),
        };
        // Not for this command alone: clients would send the others again, which were run.
        if let Some(Err(trouble)) = call.as_ref()
            && again::is_sent_again(trouble)
        {
            return Err(trouble.clone());
        }
        calls.extend(call);
    }
    if !calls.is_empty() {
        caller.refresh().await?;
    }
    Ok(calls)
}

/// Where each answer comes from, and the commands that are for the node, each in the database that the `SELECT`s before it chose. Notes what is
/// read, for who tracks that; of that, what is new and named by scripts comes last. Asks for permission after all that `scripts` waited for.
fn plan(
    caller: &mut Caller,
    queued: &[Queued],
    mut calls: VecDeque<Result<Call, CommandError>>,
) -> (Vec<Part>, Vec<Step>, BTreeSet<Bytes>) {
    let (mut db, mut parts, mut steps) = (caller.db, Vec::new(), Vec::new());
    let scripts = !calls.is_empty();
    let (mut written, mut noted) = (BTreeSet::new(), BTreeSet::new());
    for Queued { spec, argv } in queued {
        let notes = if scripts {
            let new = caller.note_reads(spec, argv);
            if script::runs_one(spec) {
                noted.extend(new);
            } else if !noted.is_empty() {
                // A command reads it for certain.
                for key in spec.keys_of(argv) {
                    noted.remove(key);
                }
            }
            Vec::new()
        } else {
            caller.note_reads_in_place(spec, argv, &mut written)
        };
        let call = match spec.run {
            Run::Read(_) => Some(Ok(Call::Command(argv.clone()))),
            // No password goes into the log as it was said.
            Run::Write(_) => Some(Ok(Call::Command(permit::sealed(spec, argv.clone())))),
            Run::Local if script::runs_one(spec) => calls.pop_front(),
            Run::Local => None,
        };
        let permitted = |call| caller.still_permits(spec, argv).map(|()| call);
        parts.push(match call.transpose().and_then(permitted) {
            Ok(Some(call)) => {
                steps.push(Step {
                    spec,
                    db,
                    call,
                    notes,
                });
                Part::Node
            }
            Ok(None) => {
                if spec.name == "SELECT" {
                    db = local::database(&argv[1]).unwrap_or(db);
                }
                Part::Edge
            }
            Err(refusal) => Part::Refused(refusal),
        });
    }
    (parts, steps, noted)
}

impl Connection {
    /// Adds a command to the transaction.
    pub(super) async fn queue(&mut self, spec: &'static Spec, argv: Vec<Bytes>) -> Result<(), End> {
        let Some(transaction) = &mut self.caller.transaction else {
            return Ok(());
        };
        let pushed = transaction.push(spec, &argv);
        self.parser.reuse(argv);
        self.caller.show_queued();
        let reply = pushed.map(|()| Reply::Simple(Cow::Borrowed("QUEUED")));
        self.answer(reply.into()).await
    }

    /// `EXEC`.
    pub(super) async fn exec(&mut self, spec: &Spec, argv: &[Bytes]) -> Result<(), End> {
        let reply = self.execute().await?;
        let took = self.lap();
        self.caller
            .ran(spec, argv, took, reply.as_ref().unwrap_or(&Reply::Nil));
        match reply {
            Some(reply) => self.answer(reply).await,
            None => Ok(()),
        }
    }

    /// Runs the transaction. What `EXEC` itself is answered; nothing where the replies of its commands were written.
    async fn execute(&mut self) -> Result<Option<Reply>, End> {
        let refusal = |text| Ok(Some(Reply::Error(CommandError::text(text))));
        let Some(transaction) = self.caller.transaction.take() else {
            return refusal("ERR EXEC without MULTI");
        };
        let watches = std::mem::take(&mut self.caller.watches).list;
        self.caller.forget_transaction();
        if transaction.refused {
            return refusal("EXECABORT Transaction discarded because of previous errors.");
        }
        let calls = scripts(&mut self.caller, &transaction.queued).await;
        let calls = match self.caller.so_far.after(false, calls) {
            Ok(calls) => calls,
            Err(error) => return Ok(Some(Reply::Error(error))),
        };
        let (parts, steps, noted) = plan(&mut self.caller, &transaction.queued, calls);
        let (began, mut notes) = (Instant::now(), Notes::default());
        let ran = self.together(watches, steps, &mut notes).await;
        self.caller.forget_unread(&noted, &notes);
        match ran {
            Ok(Some(replies)) => {
                let took = began.elapsed();
                self.answer_all(transaction.queued, parts, (replies, notes), took)
                    .await?;
                Ok(None)
            }
            Ok(None) => Ok(Some(Reply::NilArray)),
            // It was not begun, for a script has run for too long.
            Err(error) if error.to_string().starts_with("BUSY ") => {
                Ok(Some(Reply::Error(aborted(&mut self.caller, &error))))
            }
            Err(error) => Ok(Some(Reply::Error(error))),
        }
    }

    /// Runs the commands as one; none where something watched has changed. `notes`: what scripts among them did.
    async fn together(
        &mut self,
        watches: Vec<Watch>,
        steps: Vec<Step>,
        notes: &mut Notes,
    ) -> Result<Option<Vec<Reply>>, CommandError> {
        let writes = steps.iter().any(|step| !matches!(step.spec.run, Run::Read(_)));
        if !writes && watches.is_empty() {
            let replies = self.read_together(&steps).await.map(Some);
            return self.caller.so_far.after(false, replies);
        }
        if writes {
            self.caller.so_far.goes_on()?;
        }
        let scripts = steps.iter().any(|step| !matches!(step.call, Call::Command(_)));
        let written = if scripts {
            let request = Request {
                user: self.caller.user(),
                watches,
                calls: steps.into_iter().map(|step| (step.db, step.call)).collect(),
                transaction: true,
                shows: self.caller.shared.monitors.any(),
                slow_after: self.caller.slow_after(),
                around: self.caller.brackets(),
            };
            let ran = self.caller.shared.node.script(request).await;
            ran.map(|(written, of_it)| {
                *notes = of_it;
                self.caller.note_script(notes);
                written
            })
        } else {
            self.transact(&watches, steps).await
        };
        let written = self.caller.so_far.after(writes, written.map_err(trouble))?;
        self.caller.seen = self.caller.seen.max(written.token);
        match written.replies.into_iter().next() {
            Some(Reply::Array(replies)) => Ok(Some(replies)),
            Some(Reply::Error(refusal)) => Err(refusal),
            _ => Ok(None),
        }
    }

    async fn transact(&mut self, watches: &[Watch], steps: Vec<Step>) -> Result<Written, Error> {
        let (mut commands, mut answered) = (Vec::new(), VecDeque::new());
        for Step { db, call, notes, .. } in steps {
            if let Call::Command(argv) = call {
                answered.extend(notes.iter().map(|_| false).chain([true]));
                commands.extend(notes);
                commands.push(Command { db, argv });
            }
        }
        if self.caller.bracket(&mut commands) {
            answered.push_front(false);
        }
        let mut written = self.caller.shared.node.transact(watches, commands).await?;
        if let Some(Reply::Array(replies)) = written.replies.first_mut() {
            replies.retain(|_| answered.pop_front().unwrap_or(false));
        }
        Ok(written)
    }

    /// Reads at one applied index.
    async fn read_together(&mut self, steps: &[Step]) -> Result<Vec<Reply>, CommandError> {
        let caller = &mut self.caller;
        if steps.is_empty() {
            return Ok(Vec::new());
        }
        caller.read = true;
        caller.refresh().await?;
        // Where it waited for that, somebody may have taken permissions away meanwhile.
        let waited = caller.freshness != Freshness::Local;
        let refusal = |step: &Step| match &step.call {
            Call::Command(argv) if waited => caller.still_permits(step.spec, argv).err(),
            _ => None,
        };
        let refusals: Vec<_> = steps.iter().map(refusal).collect();
        let quiet = caller.quiet;
        // What is behind the reply with which they pass what may wait is not read: who sees them end early cuts the client off.
        let mut room = caller.shared.config.max_output_bytes;
        let fits = |reply: &Reply| {
            let fitted = room > 0;
            room = room.saturating_sub(encode::least_len(reply));
            fitted
        };
        Ok(caller.shared.node.view(0, |view| {
            let read = |step: &Step| match (step.spec.run, &step.call) {
                (Run::Read(run), Call::Command(argv)) => {
                    let mut args = Args::new(argv, step.spec.words);
                    let mut view = view.of(step.db);
                    if quiet && step.spec.name != "TOUCH" {
                        view = view.quietly();
                    }
                    match run(&view, &mut args) {
                        // Nobody waits in a transaction.
                        Ok(Reply::Waiting(_)) => Reply::NilArray,
                        reply => reply.into(),
                    }
                }
                _ => Reply::Nil,
            };
            let answer = |(step, refusal): (&Step, Option<CommandError>)| {
                refusal.map_or_else(|| read(step), Reply::Error)
            };
            steps.iter().zip(refusals).map(answer).take_while(fits).collect()
        }))
    }

    /// Answers a transaction that was run: the replies of the node, and between them those of what the edge runs now.
    async fn answer_all(
        &mut self,
        queued: Vec<Queued>,
        parts: Vec<Part>,
        (replies, notes): (Vec<Reply>, Notes),
        took: Duration,
    ) -> Result<(), End> {
        // Whether it is answered was said before it; what it says of answers is for what comes after it.
        let answered = self.caller.answers.next();
        let (mut out, mut replies) = (BytesMut::new(), (0..).zip(replies));
        encode::array(queued.len(), &mut out);
        // All of it runs; only as much is written as may wait.
        let mut full = false;
        self.caller.executing = true;
        for (Queued { spec, argv }, part) in queued.into_iter().zip(parts) {
            let mut script = None;
            let reply = match part {
                // The log answers all that was sent to it, or nothing; reads end early where they are too much.
                Part::Node => {
                    let Some((call, reply)) = replies.next() else {
                        full = true;
                        continue;
                    };
                    self.caller.note_slow(&notes, call);
                    self.caller.ran(spec, &argv, took, &reply);
                    if script::runs_one(spec) {
                        script = Some(call);
                        self.caller.counted = script::is_counted(&notes, &reply);
                    }
                    reply
                }
                Part::Refused(refusal) => Reply::Error(refusal),
                // The node took its time, and so may a command before it.
                Part::Edge => match self.caller.still_permits(spec, &argv) {
                    Ok(()) => {
                        let reply = self.local_into(spec, &argv, &mut out).await;
                        full |= self
                            .write_within(reply.as_ref(), answered && !full, &mut out)
                            .is_err();
                        self.caller.show(spec, &argv);
                        continue;
                    }
                    Err(refusal) => Reply::Error(refusal),
                },
            };
            self.caller.show(spec, &argv);
            if let Some(call) = script {
                self.caller.show_script(&notes, call);
            }
            let reply = pubsub::received(&self.caller.shared.hub, spec, &argv, reply);
            self.caller.count_error(&reply);
            full |= self
                .write_within(Some(&reply), answered && !full, &mut out)
                .is_err();
        }
        self.caller.executing = false;
        if self.caller.answers == Answers::SkipThisAndNext {
            self.caller.answers = Answers::SkipNext;
        }
        self.give_told();
        if answered && full {
            return Err(Full.into());
        }
        if answered {
            self.output.unsplit(out);
        }
        self.ease_if_full().await
    }

    /// Writes a reply of a transaction behind those before it, unless it wrote itself. Forgets all of them where nobody is answered, or where
    /// they are more than may wait.
    fn write_within(&self, reply: Option<&Reply>, answered: bool, out: &mut BytesMut) -> Result<(), Full> {
        let most = self.most_output().saturating_sub(self.output.len());
        let mut written = Ok(());
        if let Some(reply) = reply.filter(|_| answered) {
            written = encode_within(reply, self.caller.protocol, most, out);
        }
        if out.len() > most {
            written = Err(Full);
        }
        if !answered || written.is_err() {
            *out = BytesMut::new();
        }
        written
    }

    /// Runs a command of the edge. Its reply, if it did not write it itself.
    async fn local_into(&mut self, spec: &'static Spec, argv: &[Bytes], out: &mut BytesMut) -> Option<Reply> {
        let mut args = Args::new(argv, spec.words);
        self.caller.tell_tally();
        let began = Instant::now();
        let reply: Reply = match local::by_name(spec.name) {
            Some(Local::Now(run)) => run(&mut self.caller, &mut args).into(),
            // The log has taken the rest: clients must not send it again.
            Some(Local::Later(run)) => self.caller.run(run, spec, args).await.map_err(again::once).into(),
            Some(Local::Long(run)) => match run(&self.caller, &mut args) {
                Ok(answer) => answer.await.map_err(again::once).into(),
                Err(error) => Reply::Error(error),
            },
            Some(Local::Pushing(run)) => match run(&mut self.caller, &mut args, out) {
                Ok(()) => return None,
                Err(error) => Reply::Error(error),
            },
            Some(Local::Exec) | None => Reply::Error(local::unknown(spec)),
        };
        self.caller.ran(spec, argv, began.elapsed(), &reply);
        self.caller.count_error(&reply);
        out.extend_from_slice(&self.caller.preface.take().unwrap_or_default());
        Some(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::table;

    fn queued(argv: &[&'static str]) -> Queued {
        let argv: Vec<Bytes> = argv
            .iter()
            .map(|word| Bytes::from_static(word.as_bytes()))
            .collect();
        let spec = table::lookup(&argv).expect("a command");
        Queued { spec, argv }
    }

    #[test]
    fn a_key_is_watched_once_and_there_is_room_for_so_many() {
        let mut watches = Watches::default();
        let key = |number: usize| Bytes::from(number.to_string());
        // A million times the same, and as many as there may be: done at once, not a comparison for each two of them.
        let same = vec![key(0); 1 << 20];
        assert_eq!(watches.add(0, &same).map(|new| new.len()), Ok(1));
        assert_eq!(watches.add(0, &same).map(|new| new.len()), Ok(0));
        assert_eq!(watches.add(1, &same).map(|new| new.len()), Ok(1));
        let many: Vec<Bytes> = (0..MAX_WATCHED_KEYS - 1).map(key).collect();
        assert_eq!(
            watches.add(0, &many).map(|new| new.len()),
            Ok(MAX_WATCHED_KEYS - 2)
        );
        assert!(watches.add(0, &many).is_ok() && watches.list.len() == MAX_WATCHED_KEYS);
        assert!(watches.add(0, &[key(MAX_WATCHED_KEYS)]).is_err());
        let large = Bytes::from(vec![0; MAX_WATCHED_BYTES]);
        let mut watches = Watches::default();
        assert!(watches.add(0, &[large]).is_ok() && watches.add(0, &[key(0)]).is_err());
    }

    #[test]
    fn what_is_queued_keeps_no_more_than_is_counted() {
        let mut transaction = Transaction::default();
        let mut input = BytesMut::zeroed(16 << 10);
        input[..8].copy_from_slice(b"PINGword");
        let input = input.freeze();
        let argv = vec![input.slice(..4), input.slice(4..8)];
        let spec = table::lookup(&argv).expect("a command");
        assert!(transaction.push(spec, &argv).is_ok());
        drop(argv);
        assert!(input.is_unique(), "the buffer it came in is kept");
        let kept = &transaction.queued[0].argv;
        assert_eq!(kept[..], [&b"PING"[..], b"word"]);
        assert!(transaction.bytes >= size_of_val(&kept[..]) + 8);
    }

    #[test]
    fn nothing_is_kept_of_what_exec_will_refuse() {
        let mut transaction = Transaction::default();
        let Queued { spec, argv } = queued(&["SET", "a", "1"]);
        assert!(transaction.push(spec, &argv).is_ok());
        transaction.refuse();
        assert!(transaction.push(spec, &argv).is_ok());
        assert!(transaction.queued.is_empty() && transaction.bytes == 0);
    }

    #[test]
    fn a_transaction_that_is_too_large_is_refused_as_a_whole() {
        let mut transaction = Transaction::default();
        let Queued { spec, argv } = queued(&["SET", "a", "1"]);
        assert!(transaction.push(spec, &argv).is_ok() && transaction.queued.len() == 1);
        transaction.bytes = MAX_QUEUED_BYTES;
        assert!(transaction.push(spec, &argv).is_err());
        assert!(transaction.refused && transaction.queued.is_empty());
    }
}
