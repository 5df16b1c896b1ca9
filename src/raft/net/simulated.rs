//! A network in memory. Between each two machines, and each way by itself, bytes take their time, wait out a cut, or never come.
//!
//! It does what TCP lets a network do to its users: what is sent on one connection arrives in order, once and undamaged, or not at all. A lost packet is one that
//! comes late, with all that was sent behind it. A cut link holds what is on it: if it is whole again before somebody gives up, all of it arrives then,
//! however old it is. Connections are refused where nobody listens, and reset by a machine that was started again.
//!
//! A process that dies does so for the network first: from then on nothing it does reaches anybody. Its tasks end in their own time.

use super::calls::Pieces;
use crate::raft::files::simulated::Chance;
use bytes::{Buf, Bytes};
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};
use tonic::codegen::Service;
use tonic::codegen::http::Uri;

/// Bytes on their way on one connection, one way, at most: then who sends waits.
const ON_THE_WAY: usize = 256 << 10;

/// Connections that wait to be taken by one process, at most: on a further one it hangs up.
const BACKLOG: usize = 1_024;

/// How late a lost packet is, and at most so late what a cut link has held.
const AGAIN: Duration = Duration::from_millis(200);

/// How often one tries to connect over a link that is cut.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// How long bytes are on their way where nothing else is said, in milliseconds: from, and below.
const DELAY_MS: (u64, u64) = (0, 3);

/// A machine.
pub(crate) type Host = usize;

/// A network. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Network(Arc<Mutex<State>>, Calls);

/// What calls between nodes go over a network as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Calls {
    /// Bytes, as in earnest.
    Http2,
    /// The pieces they are of (`calls.rs`): a run takes half of the time.
    Pieces,
}

/// One process on a machine of it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    network: Network,
    process: Process,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Process {
    host: Host,
    /// Which process of its machine: only the last lives.
    life: u64,
}

#[derive(Debug)]
struct State {
    chance: Chance,
    began: Instant,
    machines: BTreeMap<Host, Machine>,
    links: BTreeMap<(Host, Host), Link>,
    pipes: BTreeMap<u64, Pipe>,
    next_pipe: u64,
    /// Pipes whose sending end was dropped, and whose other end was not.
    dropped: BTreeSet<u64>,
    /// What was sent when and on which connection, as one number.
    trace: u64,
}

#[derive(Debug, Default)]
struct Machine {
    life: u64,
    /// Where its process takes connections, while there is one.
    doors: BTreeMap<String, mpsc::Sender<Wire>>,
    /// Without power it refuses nothing: it says nothing.
    without_power: bool,
}

/// One way from a machine to another.
#[derive(Debug)]
struct Link {
    cut: bool,
    delay_ms: (u64, u64),
    /// Of a hundred packets, how many are lost.
    loss: u64,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            cut: false,
            delay_ms: DELAY_MS,
            loss: 0,
        }
    }
}

/// One way of a connection.
#[derive(Debug)]
struct Pipe {
    from: Process,
    to: Process,
    /// What is on its way, and when it arrives.
    packets: VecDeque<(Instant, Packet)>,
    bytes: usize,
    /// Nothing arrives before then.
    held_until: Instant,
    end: Option<(Instant, End)>,
    /// Whoever receives has hung up.
    unheard: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What is sent at once. A connection carries bytes, or pieces of calls.
#[derive(Debug)]
enum Packet {
    Bytes(Bytes),
    Pieces(Pieces),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Wire {
    network: Network,
    me: Process,
    incoming: u64,
    outgoing: u64,
    alarm: Pin<Box<Sleep>>,
}

/// Where a process takes connections.
#[derive(Debug)]
pub(crate) struct Listener {
    port: u16,
    pub(super) calls: Calls,
    taken: mpsc::Receiver<Wire>,
}

/// Connects from one process.
#[derive(Clone, Debug)]
pub(crate) struct Connector(Place);

impl Network {
    /// One whose choices follow from the seed.
    pub(crate) fn new(seed: u64, calls: Calls) -> Self {
        let state = State {
            chance: Chance(seed),
            began: Instant::now(),
            machines: BTreeMap::new(),
            links: BTreeMap::new(),
            pipes: BTreeMap::new(),
            next_pipe: 0,
            dropped: BTreeSet::new(),
            trace: 0,
        };
        Self(Arc::new(Mutex::new(state)), calls)
    }

    /// A new process on a machine, in the place of the one before.
    pub(crate) fn start(&self, host: Host) -> Place {
        let mut state = self.0.lock();
        let machine = state.machines.entry(host).or_default();
        machine.life += 1;
        machine.without_power = false;
        let life = machine.life;
        Place {
            network: self.clone(),
            process: Process { host, life },
        }
    }

    /// Ends a machine's process: with its power, or by itself, so that the system resets its connections.
    pub(crate) fn crash(&self, host: Host, power: bool) {
        let mut state = self.0.lock();
        let machine = state.machines.entry(host).or_default();
        let dead = Process {
            host,
            life: machine.life,
        };
        machine.life += 1;
        machine.doors.clear();
        machine.without_power = power;
        if !power {
            state.hang_up(|process| process == dead, End::Reset);
        }
        state.wake_all();
    }

    /// Resets all connections of a machine.
    pub(crate) fn reset(&self, host: Host) {
        let mut state = self.0.lock();
        state.hang_up(|process| process.host == host, End::Reset);
        state.wake_all();
    }

    /// Cuts the way from one machine to another.
    pub(crate) fn cut(&self, from: Host, to: Host) {
        self.0.lock().links.entry((from, to)).or_default().cut = true;
    }

    /// Lets what goes this way take so long, with so many of a hundred packets lost.
    pub(crate) fn hinder(&self, from: Host, to: Host, delay_ms: (u64, u64), loss: u64) {
        let mut state = self.0.lock();
        let link = state.links.entry((from, to)).or_default();
        (link.delay_ms, link.loss) = (delay_ms, loss);
    }

    /// Mends the way from one machine to another.
    pub(crate) fn mend(&self, from: Host, to: Host) {
        let mut state = self.0.lock();
        if state.links.remove(&(from, to)).is_some_and(|link| link.cut) {
            let State { pipes, chance, .. } = &mut *state;
            let held = |pipe: &&mut Pipe| pipe.from.host == from && pipe.to.host == to;
            for pipe in pipes.values_mut().filter(held) {
                pipe.held_until = Instant::now() + AGAIN.mul_f64(chance.below(100) as f64 / 100.0);
            }
        }
        state.wake_all();
    }

    /// What was sent when and on which connection, as one number: two runs that show the same were the same. How many bytes it was does not count: hyper writes the
    /// real date into its answers, and how long that is on the wire depends on the date before.
    pub(crate) fn trace(&self) -> u64 {
        self.0.lock().trace
    }

    fn connect(&self, from: Process, address: &str) -> Option<io::Result<Wire>> {
        let mut state = self.0.lock();
        if state.is_dead(from) {
            return Some(Err(io::ErrorKind::NetworkDown.into()));
        }
        let to = host_of(address);
        let machine = state.machines.get(&to)?;
        let life = machine.life;
        let dark = machine.without_power;
        let door = machine.doors.get(address).cloned();
        if dark || state.is_cut(from.host, to) || state.is_cut(to, from.host) {
            return None;
        }
        let Some(door) = door else {
            return Some(Err(io::ErrorKind::ConnectionRefused.into()));
        };
        let there = Process { host: to, life };
        let (out, back) = (state.pipe(from, there), state.pipe(there, from));
        let wire = |me, incoming, outgoing| Wire {
            network: self.clone(),
            me,
            incoming,
            outgoing,
            alarm: Box::pin(tokio::time::sleep(Duration::ZERO)),
        };
        let (here, other) = (wire(from, back, out), wire(there, out, back));
        drop(state);
        // Where the listener has gone, or too many wait, it is dropped, which hangs up.
        let _ = door.try_send(other);
        Some(Ok(here))
    }
}

impl State {
    fn is_dead(&self, process: Process) -> bool {
        self.machines
            .get(&process.host)
            .is_none_or(|machine| machine.life != process.life)
    }

    /// Whether another process, or a system that knows nothing of it, is where this one was.
    fn is_forgotten(&self, process: Process) -> bool {
        self.is_dead(process)
            && self
                .machines
                .get(&process.host)
                .is_some_and(|machine| !machine.without_power)
    }

    fn is_cut(&self, from: Host, to: Host) -> bool {
        self.links.get(&(from, to)).is_some_and(|link| link.cut)
    }

    fn pipe(&mut self, from: Process, to: Process) -> u64 {
        let id = self.next_pipe;
        self.next_pipe += 1;
        let pipe = Pipe {
            from,
            to,
            packets: VecDeque::new(),
            bytes: 0,
            held_until: Instant::now(),
            end: None,
            unheard: false,
            reader: None,
            writer: None,
        };
        self.pipes.insert(id, pipe);
        id
    }

    /// How long what is sent now is on its way.
    fn delay(&mut self, from: Host, to: Host) -> Duration {
        let default = Link::default();
        let link = self.links.get(&(from, to)).unwrap_or(&default);
        let ((least, below), loss) = (link.delay_ms, link.loss);
        let mut delay = Duration::from_millis(least + self.chance.below(below - least));
        if loss > 0 && self.chance.below(100) < loss {
            delay += AGAIN;
        }
        delay
    }

    /// Ends what these processes send and hear.
    fn hang_up(&mut self, who: impl Fn(Process) -> bool, how: End) {
        let ids: Vec<u64> = self.pipes.keys().copied().collect();
        for id in ids {
            let (from, to) = (self.pipes[&id].from, self.pipes[&id].to);
            if !who(from) && !who(to) {
                continue;
            }
            let at = Instant::now() + self.delay(from.host, to.host);
            if let Some(pipe) = self.pipes.get_mut(&id) {
                pipe.unheard |= who(to);
                if who(from) && pipe.end.is_none() {
                    pipe.end = Some((at, how));
                }
            }
        }
    }

    fn wake_all(&mut self) {
        for pipe in self.pipes.values_mut() {
            pipe.wake();
        }
    }

    fn note(&mut self, pipe: u64) {
        let at = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        for part in [at, pipe] {
            self.trace = Chance(self.trace ^ part).draw();
        }
    }
}

impl Pipe {
    fn wake(&mut self) {
        self.reader.take().into_iter().for_each(Waker::wake);
        self.writer.take().into_iter().for_each(Waker::wake);
    }
}

/// The machine of an address of a simulation: the last number of its IP address.
fn host_of(address: &str) -> Host {
    let host = address.split(':').next().and_then(|ip| ip.rsplit('.').next());
    host.and_then(|number| number.parse().ok())
        .expect("an address of a simulated machine")
}

/// An address on a machine.
pub(crate) fn address(host: Host) -> String {
    format!("127.0.0.{host}:7000")
}

impl Place {
    pub(crate) fn listen(&self, address: &str) -> Listener {
        let (door, taken) = mpsc::channel(BACKLOG);
        let mut state = self.network.0.lock();
        if !state.is_dead(self.process)
            && let Some(machine) = state.machines.get_mut(&self.process.host)
        {
            machine.doors.insert(address.to_owned(), door);
        }
        let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
        Listener {
            port: port.expect("an address with a port"),
            calls: self.calls(),
            taken,
        }
    }

    pub(super) fn calls(&self) -> Calls {
        self.network.1
    }

    pub(super) fn connector(&self) -> Connector {
        Connector(self.clone())
    }

    /// Connects; without end, over a link that is cut.
    ///
    /// # Errors
    /// Where nobody listens, or from a process that has ended.
    pub(crate) async fn connect(&self, address: &str) -> io::Result<Wire> {
        let (process, to) = (self.process, host_of(address));
        let there_and_back = {
            let mut state = self.network.0.lock();
            state.delay(process.host, to) + state.delay(to, process.host)
        };
        tokio::time::sleep(there_and_back).await;
        loop {
            // Whoever connects has a limit of its own.
            match self.network.connect(process, address) {
                Some(end) => return end,
                None => tokio::time::sleep(TRY_AGAIN).await,
            }
        }
    }
}

impl Listener {
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The next connection; of a process that has ended none comes any more.
    pub(crate) async fn accept(&mut self) -> Wire {
        match self.taken.recv().await {
            Some(wire) => wire,
            None => std::future::pending().await,
        }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Wire>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<Wire>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let place = self.0.clone();
        Box::pin(async move {
            let address = uri.authority().map(ToString::to_string).unwrap_or_default();
            place.connect(&address).await.map(TokioIo::new)
        })
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (incoming, now) = (self.incoming, Instant::now());
        let mut state = ready!(self.poll_due(cx))?;
        let pipe = state.pipes.get_mut(&incoming).expect("as in poll_due");
        while buffer.remaining() > 0
            && let Some((at, Packet::Bytes(packet))) = pipe.packets.front_mut()
            && *at <= now
        {
            let some = packet.len().min(buffer.remaining());
            buffer.put_slice(&packet[..some]);
            packet.advance(some);
            pipe.bytes -= some;
            if packet.is_empty() {
                pipe.packets.pop_front();
            }
        }
        pipe.writer.take().into_iter().for_each(Waker::wake);
        match pipe.end {
            Some((_, End::Reset)) if buffer.filled().is_empty() => {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl Wire {
    /// The machine at the other end.
    pub(crate) fn peer(&self) -> Host {
        self.network.0.lock().pipes[&self.outgoing].to.host
    }

    /// Ready once something has arrived, or the end has.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<MutexGuard<'_, State>>> {
        let mut state = self.network.0.lock();
        if state.is_dead(self.me) {
            return Poll::Ready(Err(io::ErrorKind::NetworkDown.into()));
        }
        let (from, to) = (
            state.pipes[&self.incoming].from.host,
            state.pipes[&self.incoming].to.host,
        );
        let cut = state.is_cut(from, to);
        let pipe = state.pipes.get_mut(&self.incoming);
        let pipe = pipe.expect("a pipe lives as long as an end of it");
        let next = pipe
            .packets
            .front()
            .map(|(at, _)| *at)
            .or(pipe.end.map(|(at, _)| at));
        let due = next.map(|at| at.max(pipe.held_until)).filter(|_| !cut);
        if due.is_some_and(|at| at <= Instant::now()) {
            return Poll::Ready(Ok(state));
        }
        pipe.reader = Some(cx.waker().clone());
        drop(state);
        if let Some(at) = due {
            self.alarm.as_mut().reset(at);
            // It may be due already, as the alarm goes in whole milliseconds.
            if self.alarm.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    /// The next pieces of calls; none once whoever sends has hung up.
    pub(super) fn poll_pieces(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Pieces>>> {
        let incoming = self.incoming;
        let mut state = ready!(self.poll_due(cx))?;
        let pipe = state.pipes.get_mut(&incoming).expect("as in poll_due");
        Poll::Ready(match (pipe.packets.pop_front(), pipe.end) {
            (Some((_, Packet::Pieces(pieces))), _) => Ok(Some(pieces)),
            (_, Some((_, End::Reset))) => Err(io::ErrorKind::ConnectionReset.into()),
            _ => Ok(None),
        })
    }

    /// Sends pieces of calls at once. Of those any number may be on their way.
    pub(super) fn send_pieces(&mut self, pieces: Pieces) -> io::Result<()> {
        let mut cx = Context::from_waker(Waker::noop());
        match self.send(&mut cx, |_| Packet::Pieces(pieces)) {
            Poll::Ready(sent) => sent.map(drop),
            Poll::Pending => unreachable!("a pipe is full of bytes only"),
        }
    }

    fn send(
        &mut self,
        cx: &mut Context<'_>,
        packet: impl FnOnce(usize) -> Packet,
    ) -> Poll<io::Result<usize>> {
        let mut state = self.network.0.lock();
        let (from, to) = (self.me, state.pipes[&self.outgoing].to);
        if state.is_dead(from) {
            return Poll::Ready(Err(io::ErrorKind::NetworkDown.into()));
        }
        let pipe = state.pipes.get_mut(&self.outgoing).expect("as in poll_due");
        if pipe.unheard || pipe.end.is_some() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let room = ON_THE_WAY.saturating_sub(pipe.bytes);
        if room == 0 {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if state.is_forgotten(to) && !state.is_cut(from.host, to.host) && !state.is_cut(to.host, from.host) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let packet = packet(room);
        let length = match &packet {
            Packet::Bytes(bytes) => bytes.len(),
            Packet::Pieces(_) => 0,
        };
        let at = Instant::now() + state.delay(from.host, to.host);
        state.note(self.outgoing);
        let pipe = state.pipes.get_mut(&self.outgoing).expect("as in poll_due");
        // Behind what was sent before.
        let at = pipe.packets.back().map_or(at, |(last, _)| at.max(*last));
        pipe.packets.push_back((at, packet));
        pipe.bytes += length;
        pipe.reader.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(length))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.send(cx, |room| {
            Packet::Bytes(Bytes::copy_from_slice(&bytes[..bytes.len().min(room)]))
        })
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.send(cx, |room| {
            let all = parts.iter().flat_map(|part| part.iter().copied());
            Packet::Bytes(all.take(room).collect())
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.network.0.lock();
        state.close(self.me, self.outgoing);
        Poll::Ready(Ok(()))
    }
}

impl State {
    /// Says on a pipe that nothing more comes, unless whoever says so is dead.
    fn close(&mut self, me: Process, outgoing: u64) {
        if self.is_dead(me) || self.pipes[&outgoing].end.is_some() {
            return;
        }
        let (from, to) = (self.pipes[&outgoing].from.host, self.pipes[&outgoing].to.host);
        let at = Instant::now() + self.delay(from, to);
        if let Some(pipe) = self.pipes.get_mut(&outgoing) {
            pipe.end = Some((at, End::Closed));
            pipe.wake();
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let mut state = self.network.0.lock();
        state.close(self.me, self.outgoing);
        let dead = state.is_dead(self.me);
        if let Some(pipe) = state.pipes.get_mut(&self.incoming).filter(|_| !dead) {
            pipe.unheard = true;
            pipe.wake();
        }
        // The last end takes both ways with it.
        let Self {
            incoming, outgoing, ..
        } = *self;
        if state.dropped.remove(&incoming) {
            state.pipes.remove(&incoming);
            state.pipes.remove(&outgoing);
        } else {
            state.dropped.insert(outgoing);
        }
    }
}
