//! LAYER 4: the cluster as a process reaches it that embeds no node, and [`Door`], by which handles are the same for both.
//!
//! A client is no member: it has the secret and no id, and asks one member at a time, the one that answered last. It turns to the next one where that
//! one is not there, is about to stop, or does not serve, and rests between two rounds through all of them, longer each time.
//!
//! What may be asked again hangs on what is known: a read always, a write only where no member has taken it, for certain: no connection, or
//! its own word. A write whose answer was lost is [`Error::Unknown`], as on a node. Since every answer says how far the log is in it, and the handles ask
//! for at least that, they read their own writes on whatever member.

mod door;

use crate::config::Secret;
use crate::error::{Error, Result};
use crate::machine::entry::{Command, Millis};
use crate::machine::excerpt::{self, Scratch, Wanted};
use crate::machine::internal::Watch;
use crate::machine::keyspace::View;
use crate::machine::reply::Reply;
use crate::machine::session_events::SessionEvents;
use crate::machine::table;
use crate::node::{Freshness, Heard, Token};
use crate::raft::remote::{Answer, EVENTS_WAIT_MAX, Fresh, Line, Lost, Taken, Write};
use bytes::Bytes;
pub(crate) use door::{Door, Hearing, Moved, Sight};
use futures::stream::BoxStream;
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

/// Calls of a process to one member at once; further ones wait for their turn. A connection has room for 256.
const CALLS_MAX: usize = 200;

/// Of these that take long, on a connection of their own: commands that wait in the log, subscriptions, waits for events.
const LONG_MAX: usize = 200;

/// Calls that wait for their turn.
const QUEUE_MAX: usize = 64 << 10;

/// How long a read may take on one member before the next is asked.
const READ_WITHIN: Duration = Duration::from_secs(2);

/// How long to rest after all members were asked in vain: at first, twice as long each time, at most.
const REST_FIRST: Duration = Duration::from_millis(20);
const REST_MOST: Duration = Duration::from_secs(1);

/// How much longer than it was told to a member may wait for events.
const EVENTS_LATE: Duration = Duration::from_secs(5);

/// The members of a cluster, from outside. Clones share connections.
#[derive(Clone)]
pub(crate) struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    lines: Vec<Line>,
    /// Which is asked.
    at: AtomicUsize,
    deadline: Duration,
    calls: Semaphore,
    long: Semaphore,
    queued: AtomicUsize,
    /// Held while an excerpt is read; never across an await.
    scratch: Mutex<Scratch>,
    /// The log's clock at the last excerpt, and when that came. Held for a look or a note.
    clock: Mutex<(Millis, Instant)>,
    /// The greatest index of an answer.
    reached: AtomicU64,
    closed: watch::Sender<bool>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.inner.line().1.address())
    }
}

impl Inner {
    fn line(&self) -> (usize, &Line) {
        let at = self.at.load(Ordering::Relaxed) % self.lines.len();
        (at, &self.lines[at])
    }

    /// Asks another member from now on, unless that was done already.
    fn move_on(&self, from: usize) {
        let next = (from + 1) % self.lines.len();
        // Somebody else was faster: then the one it chose is tried.
        let _ = self
            .at
            .compare_exchange(from, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// What a call does to the log, and with that what may be done about its loss.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    Write,
    Read,
}

/// Counts one that waits for its turn.
struct Queued<'a>(&'a AtomicUsize);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Client {
    /// A client of these members.
    pub(crate) fn new(members: &[String], secret: Option<&Secret>, deadline: Duration) -> Result<Self> {
        if members.is_empty() {
            return Err(Error::Config(vec![
                "connect: name the peer address of one member at least".to_owned(),
            ]));
        }
        let lines = members.iter().map(|address| Line::new(address, secret));
        Ok(Self {
            inner: Arc::new(Inner {
                lines: lines.collect::<Result<_>>()?,
                at: AtomicUsize::new(0),
                deadline,
                calls: Semaphore::new(CALLS_MAX),
                long: Semaphore::new(LONG_MAX),
                queued: AtomicUsize::new(0),
                scratch: Mutex::default(),
                clock: Mutex::new((0, Instant::now())),
                reached: AtomicU64::new(0),
                closed: watch::Sender::new(false),
            }),
        })
    }

    /// Makes sure that a member answers.
    pub(crate) async fn open(&self) -> Result<Token> {
        let looked = self.look(Freshness::Local, 0, Wanted::Keys(Vec::new()), |_| Ok(()));
        match looked.await {
            Ok(((), token)) => Ok(token),
            // To one who asks for nothing yet it says more that nobody is there.
            Err(Error::NotFresh { waited, why }) => Err(Error::NoLeader { waited, why }),
            Err(error) => Err(error),
        }
    }

    /// Lets no more calls through, and ends subscriptions.
    pub(crate) fn close(&self) {
        self.inner.calls.close();
        self.inner.long.close();
        self.inner.closed.send_replace(true);
    }

    /// Resolves when it was closed.
    pub(crate) async fn closed(&self) {
        let _ = self.inner.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// The member that is asked.
    pub(crate) fn member(&self) -> &str {
        self.inner.line().1.address()
    }

    /// Writes one command: its reply, waited for where it waits in the log.
    pub(crate) async fn write(&self, command: Command) -> Result<(Reply, Token)> {
        let long = table::lookup(&command.argv)?.flags.contains("blocking");
        // Kept until the command is answered.
        let turn = self.turn(long).await?;
        let (began, write) = (Instant::now(), Write::One(command));
        let taken = self
            .ask(Does::Write, |line| line.write(write.clone(), long))
            .await?;
        let answered = match taken.wait {
            None => {
                let reply = taken.replies.into_iter().next();
                Ok((reply.unwrap_or(Reply::Nil), taken.index))
            }
            // It is taken: its own time is what it waits for, and a member that is gone breaks the connection.
            Some(wait) => tokio::select! {
                answered = answered(wait, began) => answered,
                () = self.closed() => Err(closed()),
            },
        };
        drop(turn);
        let (reply, index) = answered?;
        Ok((reply, self.saw(index)))
    }

    /// Applies commands together if what is watched still has its version.
    pub(crate) async fn transact(
        &self,
        watches: Vec<Watch>,
        commands: Vec<Command>,
    ) -> Result<(Vec<Reply>, Token)> {
        let _turn = self.turn(false).await?;
        let write = Write::Transaction(watches, commands);
        let Taken { replies, index, .. } = self
            .ask(Does::Write, |line| line.write(write.clone(), false))
            .await?;
        Ok((replies, self.saw(index)))
    }

    /// A read-only command.
    pub(crate) async fn read(&self, freshness: Freshness, db: u8, argv: &[Bytes]) -> Result<(Reply, Token)> {
        let _turn = self.turn(false).await?;
        let fresh = Fresh::from(freshness);
        let (reply, index) = self
            .ask(Does::Read, |line| line.read(fresh, db, argv.to_vec()))
            .await?;
        Ok((reply, self.saw(index)))
    }

    /// What `read` makes of the keys that are wanted.
    pub(crate) async fn look<R>(
        &self,
        freshness: Freshness,
        db: u8,
        wanted: Wanted,
        read: impl FnOnce(View<'_>) -> Result<R>,
    ) -> Result<(R, Token)> {
        let _turn = self.turn(false).await?;
        let fresh = Fresh::from(freshness);
        let (excerpt, index) = self
            .ask(Does::Read, |line| line.look(fresh, db, wanted.clone()))
            .await?;
        let now = excerpt::time_of(&excerpt).map_err(unreadable)?;
        *self.inner.clock.lock() = (now, Instant::now());
        let read = self.inner.scratch.lock().view(excerpt, db, read);
        Ok((read.map_err(unreadable)??, self.saw(index)))
    }

    fn saw(&self, index: u64) -> Token {
        self.inner.reached.fetch_max(index, Ordering::AcqRel);
        Token(index)
    }

    /// The furthest that any member was in an answer.
    pub(crate) fn reached(&self) -> Token {
        Token(self.inner.reached.load(Ordering::Acquire))
    }

    /// Now, by the log's clock: as the last answer had it, carried on by this process's own.
    pub(crate) fn now(&self) -> Millis {
        let (now, seen) = *self.inner.clock.lock();
        now.saturating_add(u64::try_from(seen.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Events of sessions after a position; waits for some, unless it is asked for none.
    pub(crate) async fn session_events(&self, after: u64, most: usize) -> Result<SessionEvents> {
        let _turn = self.turn(true).await?;
        let wait = if most == 0 {
            Duration::ZERO
        } else {
            EVENTS_WAIT_MAX
        };
        let within = wait + EVENTS_LATE;
        let ask = self.ask_within(within, Does::Read, |line| line.session_events(after, most, wait));
        let events = tokio::select! {
            events = ask => events?,
            () = self.closed() => return Err(closed()),
        };
        SessionEvents::from_bytes(events).map_err(unreadable)
    }

    /// What is heard of a topic, from a member that listens for this process already.
    pub(crate) async fn listen(&self, topic: &Bytes) -> Result<(BoxStream<'static, Heard>, Turn<'_>)> {
        let turn = self.turn(true).await?;
        let heard = self.ask(Does::Read, |line| line.listen(topic.clone())).await?;
        Ok((heard, turn))
    }

    /// Waits for a turn, for the deadline at most. Nothing was done where none comes.
    async fn turn(&self, long: bool) -> Result<Turn<'_>> {
        let inner = &self.inner;
        let (turns, limit) = if long {
            (&inner.long, LONG_MAX)
        } else {
            (&inner.calls, CALLS_MAX)
        };
        if inner.queued.fetch_add(1, Ordering::Relaxed) >= QUEUE_MAX {
            inner.queued.fetch_sub(1, Ordering::Relaxed);
            return Err(overloaded(QUEUE_MAX, QUEUE_MAX));
        }
        let queued = Queued(&inner.queued);
        let turn = tokio::time::timeout(inner.deadline, turns.acquire()).await;
        drop(queued);
        let turn = turn.map_err(|_| overloaded(inner.queued.load(Ordering::Relaxed), limit))?;
        Ok(Turn(turn.map_err(|_| closed())?))
    }

    async fn ask<T, F: Future<Output = Result<T, Lost>>>(
        &self,
        does: Does,
        call: impl Fn(Line) -> F,
    ) -> Result<T> {
        let within = match does {
            Does::Write => self.inner.deadline,
            Does::Read => READ_WITHIN,
        };
        self.ask_within(within, does, call).await
    }

    /// Asks member after member until one answers, this long each: bounded by the deadline, after which no further one is asked.
    async fn ask_within<T, F: Future<Output = Result<T, Lost>>>(
        &self,
        within: Duration,
        does: Does,
        call: impl Fn(Line) -> F,
    ) -> Result<T> {
        let inner = &self.inner;
        let (began, mut asked, mut rest) = (Instant::now(), 0, REST_FIRST);
        loop {
            let (at, line) = inner.line();
            let why = match tokio::time::timeout(within, call(line.clone())).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(Lost::Failed(error))) => match error {
                    Error::NoLeader { why, .. } | Error::Stopped { why } => why,
                    Error::NotFresh { why, .. } if does == Does::Read => why,
                    error => return Err(error),
                },
                Ok(Err(Lost::Stranger(why))) => return Err(Error::Stranger(why)),
                Ok(Err(Lost::Unsent(why))) => why,
                Ok(Err(Lost::Broken(why))) if does == Does::Write => {
                    inner.move_on(at);
                    return Err(unknown(began, line, why));
                }
                Err(_) if does == Does::Write => {
                    inner.move_on(at);
                    return Err(unknown(began, line, "it did not answer in time".to_owned()));
                }
                Ok(Err(Lost::Broken(why))) => why,
                Err(_) => "it did not answer in time".to_owned(),
            };
            tracing::debug!(member = line.address(), why, "asking the next member");
            inner.move_on(at);
            asked += 1;
            let all_asked = asked % inner.lines.len() == 0;
            let pause = if all_asked { rest } else { Duration::ZERO };
            if began.elapsed() + pause >= inner.deadline {
                return Err(in_vain(does, began, asked, line, why));
            }
            if all_asked {
                tokio::time::sleep(pause).await;
                rest = (rest * 2).min(REST_MOST);
            }
        }
    }
}

/// A place among the calls that are under way.
pub(crate) struct Turn<'a>(#[allow(dead_code, reason = "held, not looked at")] SemaphorePermit<'a>);

async fn answered(wait: Answer, began: Instant) -> Result<(Reply, u64)> {
    match wait.reply().await {
        Ok(answer) => Ok(answer),
        Err(
            Lost::Failed(Error::Stopped { why })
            | Lost::Unsent(why)
            | Lost::Broken(why)
            | Lost::Stranger(why),
        ) => {
            let why = format!("while it waited in the log: {why}");
            let waited = began.elapsed();
            Err(Error::Unknown { waited, why })
        }
        Err(Lost::Failed(error)) => Err(error),
    }
}

fn unknown(began: Instant, line: &Line, why: String) -> Error {
    Error::Unknown {
        waited: began.elapsed(),
        why: format!("member {}: {why}", line.address()),
    }
}

/// Nobody has taken it.
fn in_vain(does: Does, began: Instant, asked: usize, line: &Line, why: String) -> Error {
    let waited = began.elapsed();
    let why = format!(
        "asked members {asked} times, the last one {}: {why}",
        line.address()
    );
    match does {
        Does::Write => Error::NoLeader { waited, why },
        Does::Read => Error::NotFresh { waited, why },
    }
}

fn overloaded(queued: usize, limit: usize) -> Error {
    Error::Overloaded {
        queued,
        unit: "calls",
        limit,
    }
}

fn closed() -> Error {
    Error::Stopped {
        why: "the connection to the cluster was closed".to_owned(),
    }
}

fn unreadable(error: std::io::Error) -> Error {
    Error::Io {
        doing: "reading what a member answered".to_owned(),
        source: error,
    }
}
