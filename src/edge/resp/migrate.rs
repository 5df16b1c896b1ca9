//! `MIGRATE`: takes keys to another Redis, or another cluster, and removes here what arrived there.
//!
//! A key goes as `DUMP` would give it, by `RESTORE`. It is removed through the log, and only as the version that was sent: one that was
//! changed meanwhile is sent anew, in the place of the copy that is there already, [`ROUNDS`] times at most. So nothing that was acknowledged here
//! is lost, and while a key is on its way clients here see it and may change it; Redis stands still meanwhile instead.
//!
//! It connects to whatever host a client names, as Redis does: whoever may not is to be denied the command (`ACL SETUSER … -migrate`, or
//! `-@dangerous`). A stranger is refused before. The connection is made anew for each command and is not encrypted.

use super::connection::Caller;
use super::decode::request;
use super::local::{Answer, Waiting, refusal};
use super::trouble;
use crate::machine::args::{Args, integer};
use crate::machine::entry::{Command, Millis};
use crate::machine::internal::{self, Watch};
use crate::machine::rdb;
use crate::machine::reply::{CommandError, Reply};
use crate::machine::value::Value;
use crate::node::{Freshness, Node, Token};
use bytes::{Bytes, BytesMut};
use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Commands that take keys elsewhere at the same time; others wait. Each holds one value as it is sent.
const AT_ONCE: usize = 8;

/// How often a key is sent that clients go on changing.
const ROUNDS: u32 = 8;

/// Keys that are sent before their answers are read, and bytes, unless a single key has more.
const BATCH_KEYS: usize = 128;
const BATCH_BYTES: usize = 64 << 10;

/// Bytes that the other side is given the time-out to take.
const WRITE_BYTES: usize = 64 << 10;

/// The longest answer of the other side: each is one line.
const LINE_BYTES: usize = 16 << 10;

/// How long the other side may be silent if the command does not say, and at most.
const PATIENCE_MS: i64 = 1_000;
const PATIENCE_MAX_MS: i64 = 10 * 60 * 1_000;

/// The places of [`AT_ONCE`].
#[derive(Debug)]
pub(super) struct Places(Semaphore);

impl Default for Places {
    fn default() -> Self {
        Self(Semaphore::new(AT_ONCE))
    }
}

/// What is said in the command.
struct Asked<'a> {
    host: &'a Bytes,
    port: &'a Bytes,
    /// At the other side.
    db: i64,
    patience: Duration,
    copy: bool,
    replace: bool,
    /// Password, or user and password.
    login: &'a [Bytes],
    keys: Vec<&'a Bytes>,
}

impl<'a> Asked<'a> {
    fn parse(args: &mut Args<'a>) -> Result<Self, CommandError> {
        const KEY_AND_KEYS: CommandError = CommandError::text(
            "ERR When using MIGRATE KEYS option, the key argument must be set to the empty string",
        );
        let (host, port, key) = (args.bytes()?, args.bytes()?, args.bytes()?);
        let (db, patience) = (args.bytes()?, args.bytes()?);
        let (mut copy, mut replace, mut login, mut keys) = (false, false, &[][..], vec![key]);
        while !args.is_empty() {
            let more = args.remaining() - 1;
            if args.keyword("COPY") {
                copy = true;
            } else if args.keyword("REPLACE") {
                replace = true;
            } else if more >= 1 && args.keyword("AUTH") {
                login = args.many(1)?;
            } else if more >= 2 && args.keyword("AUTH2") {
                login = args.many(2)?;
            } else if args.keyword("KEYS") {
                if !key.is_empty() {
                    return Err(KEY_AND_KEYS);
                }
                let mut named = HashSet::new();
                keys = args.rest().iter().filter(|key| named.insert(*key)).collect();
            } else {
                return Err(CommandError::Syntax);
            }
        }
        let patience = integer(patience).ok_or(CommandError::NotAnInteger)?;
        let patience = if patience > 0 { patience } else { PATIENCE_MS };
        Ok(Self {
            host,
            port,
            db: integer(db).ok_or(CommandError::NotAnInteger)?,
            patience: Duration::from_millis(patience.min(PATIENCE_MAX_MS).unsigned_abs()),
            copy,
            replace,
            login,
            keys,
        })
    }
}

/// `MIGRATE host port key|"" db timeout [COPY] [REPLACE] [AUTH password] [AUTH2 username password] [KEYS key ...]`.
pub(super) fn migrate<'a>(caller: &'a mut Caller, mut args: Args<'a>) -> Waiting<'a> {
    Box::pin(async move {
        let asked = Asked::parse(&mut args)?;
        let (shared, client) = (caller.shared.clone(), caller.client.clone());
        let (node, db) = (&shared.node, caller.db);
        let seen = &mut caller.seen;
        tokio::select! {
            moved = async {
                let place = shared.migrations.0.acquire().await;
                let answer = take(node, db, &asked, seen).await;
                drop(place);
                answer
            } => moved,
            () = client.ended() => {
                // It is to end, which its connection must hear as well.
                client.end();
                Err(CommandError::text("IOERR the connection ended meanwhile"))
            }
        }
    })
}

/// A key as it is to be sent.
struct Parcel<'a> {
    key: &'a Bytes,
    value: Value,
    deadline: Option<Millis>,
    version: u64,
    /// Whether what is there under its name is to go: the command says so, or it was sent before.
    replace: bool,
    /// How often it was sent before.
    sent: u32,
}

/// Keys that are sent together, and the requests for them.
type Batch<'a> = (Vec<Parcel<'a>>, Vec<u8>);

/// What is there to be sent, as of one applied index.
fn parcel<'a>(node: &Node, db: u8, key: &'a Bytes, replace: bool, sent: u32) -> Option<Parcel<'a>> {
    node.view(db, |view| {
        view.slot(key).map(|slot| Parcel {
            key,
            value: slot.value.clone(),
            deadline: slot.end.shown(view.now()),
            version: slot.version,
            replace,
            sent,
        })
    })
}

async fn take(node: &Node, db: u8, asked: &Asked<'_>, seen: &mut Token) -> Answer {
    *seen = (*seen).max(node.fresh(Freshness::Linearizable).await.map_err(trouble)?);
    // A key and how often it was sent.
    let mut keys = node.view(db, |view| {
        let mut there = VecDeque::new();
        for key in &asked.keys {
            match view.get(key) {
                None => {}
                Some(value @ Value::Session(_)) => return Err(rdb::no_payload(value)),
                Some(_) => there.push_back((*key, 0)),
            }
        }
        Ok(there)
    })?;
    if keys.is_empty() {
        return Ok(Reply::Simple(Cow::Borrowed("NOKEY")));
    }
    let mut target = Target::connect(asked).await?;
    target.enter(asked).await?;
    let mut refused = None;
    while let Some(batch) = pack(node, db, asked, &mut keys)? {
        let (arrived, lost) = target.deliver(batch, &mut refused).await;
        if !asked.copy {
            for parcel in remove(node, db, arrived, seen).await? {
                if parcel.sent + 1 == ROUNDS {
                    return Err(refusal(format!(
                        "TRYAGAIN '{}' was changed whenever it had been sent: it is here as it is, and there as it was",
                        String::from_utf8_lossy(parcel.key)
                    )));
                }
                keys.push_back((parcel.key, parcel.sent + 1));
            }
        }
        if let Some(error) = lost {
            return Err(refused.unwrap_or(error));
        }
    }
    refused.map_or(Ok(Reply::OK), Err)
}

/// What is sent next, with the requests for it; none where nothing is left.
fn pack<'a>(
    node: &Node,
    db: u8,
    asked: &Asked<'_>,
    keys: &mut VecDeque<(&'a Bytes, u32)>,
) -> Result<Option<Batch<'a>>, CommandError> {
    let (mut parcels, mut requests) = (Vec::new(), Vec::new());
    while let Some((key, sent)) = keys.pop_front() {
        // What ended or was removed meanwhile is not sent any more.
        let Some(parcel) = parcel(node, db, key, asked.replace || sent > 0, sent) else {
            continue;
        };
        let request = parcel.request(node.now())?;
        if !parcels.is_empty() && requests.len() + request.len() > BATCH_BYTES {
            keys.push_front((key, sent));
            break;
        }
        requests.extend(request);
        parcels.push(parcel);
        if parcels.len() == BATCH_KEYS {
            break;
        }
    }
    Ok((!parcels.is_empty()).then_some((parcels, requests)))
}

impl Parcel<'_> {
    /// `RESTORE key ttl payload [REPLACE]`.
    fn request(&self, now: Millis) -> Result<Vec<u8>, CommandError> {
        let life = self.deadline.map_or(0, |at| at.saturating_sub(now).max(1));
        let payload = rdb::dump(&self.value, now).ok_or_else(|| rdb::no_payload(&self.value))?;
        let life = life.to_string();
        let words = [&b"RESTORE"[..], self.key, life.as_bytes(), &payload];
        Ok(request(
            words.into_iter().chain(self.replace.then_some(&b"REPLACE"[..])),
        ))
    }
}

/// Removes what arrived, each as the version that was sent; those that are another one by now.
async fn remove<'a>(
    node: &Node,
    db: u8,
    arrived: Vec<Parcel<'a>>,
    seen: &mut Token,
) -> Result<Vec<Parcel<'a>>, CommandError> {
    if arrived.is_empty() {
        return Ok(arrived);
    }
    let removal = |parcel: &Parcel<'_>| {
        // Not a part of the buffer it came in, which the log would keep as long.
        let key = Bytes::copy_from_slice(parcel.key);
        let watch = Watch {
            db,
            key: key.clone(),
            version: parcel.version,
        };
        internal::exec(
            &[watch],
            vec![Command::new(db, [Bytes::from_static(b"DEL"), key])],
        )
    };
    let written = node.write(arrived.iter().map(removal).collect::<Vec<_>>()).await;
    let written = written.map_err(trouble)?;
    *seen = (*seen).max(written.token);
    let outcomes = arrived.into_iter().zip(written.replies);
    let changed = outcomes.filter(|(_, reply)| *reply == Reply::NilArray);
    Ok(changed.map(|(parcel, _)| parcel).collect())
}

/// The other side.
struct Target {
    stream: TcpStream,
    input: BytesMut,
    patience: Duration,
}

/// As Redis says it, whatever the reason.
const NOT_CONNECTED: CommandError = CommandError::text("IOERR error or timeout connecting to the client");
const NOT_WRITTEN: CommandError = CommandError::text("IOERR error or timeout writing to target instance");
const NOT_READ: CommandError = CommandError::text("IOERR error or timeout reading to target instance");

impl Target {
    /// As Redis says it: a host that refuses is one that nothing can be written to.
    async fn connect(asked: &Asked<'_>) -> Result<Self, CommandError> {
        let host = std::str::from_utf8(asked.host).map_err(|_| NOT_CONNECTED)?;
        let port = std::str::from_utf8(asked.port)
            .ok()
            .and_then(|port| port.parse::<u16>().ok());
        let address = (host, port.ok_or(NOT_WRITTEN)?);
        let connecting = async {
            let addresses = lookup_host(address).await.map_err(|_| NOT_CONNECTED)?;
            let addresses: Vec<SocketAddr> = addresses.collect();
            TcpStream::connect(&addresses[..]).await.map_err(|_| NOT_WRITTEN)
        };
        let stream = timeout(asked.patience, connecting)
            .await
            .map_err(|_| NOT_CONNECTED)??;
        // What is sent is sent whole; a system that does not take the wish is slower, not wrong.
        let _ = stream.set_nodelay(true);
        Ok(Self {
            stream,
            input: BytesMut::new(),
            patience: asked.patience,
        })
    }

    /// Says who we are and chooses the database. Nothing is sent before the other side agreed: it would be restored where it does not belong.
    async fn enter(&mut self, asked: &Asked<'_>) -> Result<(), CommandError> {
        let mut requests = Vec::new();
        let login = Some(asked.login).filter(|login| !login.is_empty());
        if let Some(login) = login {
            let words = std::iter::once(&b"AUTH"[..]);
            requests.extend(request(words.chain(login.iter().map(|word| &word[..]))));
        }
        requests.extend(request([&b"SELECT"[..], asked.db.to_string().as_bytes()]));
        self.write(&requests).await.map_err(|_| NOT_WRITTEN)?;
        for _ in 0..1 + usize::from(login.is_some()) {
            let answer = self.line().await.map_err(|_| NOT_READ)?;
            refusal_of(&answer).map_or(Ok(()), Err)?;
        }
        Ok(())
    }

    /// Sends a batch; what arrived of it, and whether the connection was lost. The first refusal is noted.
    async fn deliver<'a>(
        &mut self,
        (parcels, requests): Batch<'a>,
        refused: &mut Option<CommandError>,
    ) -> (Vec<Parcel<'a>>, Option<CommandError>) {
        if self.write(&requests).await.is_err() {
            return (Vec::new(), Some(NOT_WRITTEN));
        }
        let mut arrived = Vec::new();
        for parcel in parcels {
            let Ok(answer) = self.line().await else {
                return (arrived, Some(NOT_READ));
            };
            match refusal_of(&answer) {
                Some(refusal) => *refused = refused.take().or(Some(refusal)),
                None => arrived.push(parcel),
            }
        }
        (arrived, None)
    }

    async fn write(&mut self, requests: &[u8]) -> io::Result<()> {
        for part in requests.chunks(WRITE_BYTES) {
            timeout(self.patience, self.stream.write_all(part)).await??;
        }
        Ok(())
    }

    /// The next answer, which is a line.
    async fn line(&mut self) -> io::Result<Bytes> {
        let whole = async {
            loop {
                if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                    let mut line = self.input.split_to(end + 1).freeze();
                    line.truncate(end);
                    if line.ends_with(b"\r") {
                        line.truncate(end - 1);
                    }
                    return Ok(line);
                }
                if self.input.len() > LINE_BYTES {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                if self.stream.read_buf(&mut self.input).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        };
        timeout(self.patience, whole).await?
    }
}

/// What an answer has against what was asked.
fn refusal_of(answer: &Bytes) -> Option<CommandError> {
    let text = answer.strip_prefix(b"-")?;
    Some(refusal(format!(
        "ERR Target instance replied with error: {}",
        String::from_utf8_lossy(text)
    )))
}
