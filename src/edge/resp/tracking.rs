//! Clients that cache: which keys they have read, and who is told when one of those changes (`CLIENT TRACKING`).
//!
//! Keys are remembered by name, whatever their database, as in Redis, and before they are read: what changes afterwards is told. So a
//! connection that tracks must take its messages over only after the reply of a read. Keys of `NOLOOP` clients: a connection puts its
//! writes, and those of its scripts, into brackets in the log, two messages on a channel that nobody else can know, so that the changes
//! between them are its own. A key that a transaction reads after it has written it is remembered by such a message at its place, for the
//! write before it is no news.

use super::clients::Client;
use super::connection::Caller;
use super::encode::{self, Protocol};
use super::hub::Hub;
use super::local::{Answer, quoted, refusal};
use super::script;
use crate::machine::args::Args;
use crate::machine::entry::Command;
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{self, Run, Spec};
use crate::node::{Called, Node, Notes};
use bytes::{Bytes, BytesMut};
use indexmap::IndexMap;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// Keys that are remembered for all clients of this node, unless `tracking-table-max-keys` says otherwise. As in Redis.
pub(super) const DEFAULT_MAX_KEYS: usize = 1_000_000;

/// Bytes of those keys: beyond it some are told of as if they had changed, as beyond their number.
const MAX_KEY_BYTES: usize = 256 << 20;

/// Prefixes of one client.
const MAX_PREFIXES: usize = 1_024;

/// Bytes of those prefixes.
const MAX_PREFIX_BYTES: usize = 1 << 20;

/// How channels begin on which nodes tell themselves what they put into the log: no subscriber hears of them.
const BRACKETS: &[u8] = b"__plenary__:writer:";

const PUBLISH: Bytes = Bytes::from_static(b"PUBLISH");

/// How a message there begins that tells of a key which a client reads at this place.
const READS: &[u8] = b"reads ";

/// Where a client that speaks RESP2 is told of keys.
const CHANNEL: &[u8] = b"__redis__:invalidate";

/// How one client tracks.
#[derive(Clone, Debug, Default)]
pub(super) struct Mode {
    /// Who is told instead, and its number; 0: nobody.
    redirect: Option<Weak<Client>>,
    redirect_id: u64,
    broken: bool,
    broadcast: bool,
    opt_in: bool,
    opt_out: bool,
    no_loop: bool,
    /// `CLIENT CACHING` was said of the next command.
    caching: bool,
    prefixes: BTreeSet<Bytes>,
}

/// The flags of `CLIENT LIST` for tracking, and whom it is redirected to.
pub(super) fn shown(client: &Client) -> (String, i64) {
    let mode = client.tracking.lock();
    let Some(mode) = &*mode else {
        return (String::new(), -1);
    };
    let flags = [('t', true), ('R', mode.broken), ('B', mode.broadcast)];
    let flags = flags
        .into_iter()
        .filter(|(_, is_set)| *is_set)
        .map(|(flag, _)| flag);
    (flags.collect(), number(mode.redirect_id))
}

fn number(id: u64) -> i64 {
    i64::try_from(id).expect("nobody connects 2^63 times")
}

/// What all tracking clients of an endpoint have read, and the prefixes that some ask for.
#[derive(Debug)]
pub(super) struct Tracking {
    /// How many clients track: none spares the lock.
    clients: AtomicUsize,
    pub(super) max_keys: AtomicUsize,
    /// Brackets the writes of a client: begins with [`BRACKETS`], the rest is drawn at the start, so that no client can guess it.
    bracket: Bytes,
    /// Held to look up or change, never across an await. A client's own locks may be taken while it is held, not the other way.
    table: Mutex<Table>,
    /// Whether the node was asked to tell of changes. Held while it is asked.
    watched: Mutex<bool>,
}

#[derive(Debug, Default)]
struct Table {
    clients: BTreeMap<u64, Arc<Client>>,
    /// Who read a key.
    keys: IndexMap<Bytes, BTreeSet<u64>>,
    /// Bytes of those keys.
    bytes: usize,
    /// How many clients are remembered for all keys.
    items: usize,
    /// Who asks for a prefix, and which keys of it were changed by the entry at hand, by whom last.
    prefixes: BTreeMap<Bytes, Prefix>,
    /// The client whose writes are being applied, where it asked not to hear of them.
    writer: Option<u64>,
    /// A database was emptied by the entry at hand.
    flushed: bool,
}

#[derive(Debug, Default)]
struct Prefix {
    clients: BTreeSet<u64>,
    changed: BTreeMap<Bytes, Option<u64>>,
}

impl Default for Tracking {
    fn default() -> Self {
        let mut secret = [0; 16];
        // Without chance the name can be guessed, and somebody could keep others from hearing of changes: no reason not to start.
        let _ = getrandom::fill(&mut secret);
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let bracket = [BRACKETS, hex.as_bytes()].concat();
        Self {
            clients: AtomicUsize::new(0),
            max_keys: AtomicUsize::new(DEFAULT_MAX_KEYS),
            bracket: bracket.into(),
            table: Mutex::default(),
            watched: Mutex::default(),
        }
    }
}

/// What of the tracking `INFO` tells.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) clients: usize,
    pub(super) keys: usize,
    pub(super) items: usize,
    pub(super) prefixes: usize,
}

impl Tracking {
    fn is_idle(&self) -> bool {
        self.clients.load(Ordering::Acquire) == 0
    }

    pub(super) fn counts(&self) -> Counts {
        let table = self.table.lock();
        Counts {
            clients: table.clients.len(),
            keys: table.keys.len(),
            items: table.items,
            prefixes: table.prefixes.len(),
        }
    }

    /// Does something while nobody is told that keys changed.
    pub(super) fn meanwhile(&self, run: impl FnOnce()) {
        let _table = self.table.lock();
        run();
    }

    /// Lets a client track.
    fn enter(&self, client: &Arc<Client>, mode: Mode) {
        let mut table = self.table.lock();
        for prefix in &mode.prefixes {
            let place = table.prefixes.entry(prefix.clone()).or_default();
            place.clients.insert(client.id);
        }
        table.clients.insert(client.id, client.clone());
        self.clients.store(table.clients.len(), Ordering::Release);
        *client.tracking.lock() = Some(mode);
    }

    /// Ends a client's tracking. What it read is forgotten when it changes, as in Redis.
    pub(super) fn leave(&self, client: &Client) {
        if self.is_idle() {
            return;
        }
        let mut table = self.table.lock();
        table.clients.remove(&client.id);
        let mode = client.tracking.lock().take();
        for name in mode.into_iter().flat_map(|mode| mode.prefixes) {
            if let Some(prefix) = table.prefixes.get_mut(&name) {
                prefix.clients.remove(&client.id);
                if prefix.clients.is_empty() {
                    table.prefixes.remove(&name);
                }
            }
        }
        if table.clients.is_empty() {
            // Nobody is told of changes from now on: what was read is not known to be unchanged any more.
            table.forget_keys();
        }
        self.clients.store(table.clients.len(), Ordering::Release);
    }

    /// Has the node tell of changes exactly while somebody tracks.
    pub(super) fn watch_changes(&self, node: &Node) {
        let mut watched = self.watched.lock();
        let wanted = !self.is_idle();
        if *watched != wanted {
            node.watch_changes(wanted);
            *watched = wanted;
        }
    }

    /// Notes that a client is about to read keys. Those it was not known to have read.
    fn remember<'k>(&self, hub: &Hub, client: u64, keys: impl Iterator<Item = &'k [u8]>) -> Vec<&'k [u8]> {
        let mut table = self.table.lock();
        if !table.clients.contains_key(&client) {
            return Vec::new();
        }
        let mut noted = Vec::new();
        for key in keys {
            let new = match table.keys.get_mut(key) {
                Some(readers) => readers.insert(client),
                None => {
                    table.bytes += key.len();
                    // Not a part of the buffer it came in, which would stay as long.
                    let key = Bytes::copy_from_slice(key);
                    table.keys.insert(key, BTreeSet::from([client])).is_none()
                }
            };
            if new {
                table.items += 1;
                noted.push(key);
            }
        }
        self.shrink(hub, &mut table);
        noted
    }

    /// A client did not read these keys after all.
    fn forget<'k>(&self, client: u64, keys: impl Iterator<Item = &'k Bytes>) {
        let mut table = self.table.lock();
        for key in keys {
            if let Some(readers) = table.keys.get_mut(key)
                && readers.remove(&client)
            {
                if readers.is_empty() {
                    table.keys.swap_remove(key);
                    table.bytes -= key.len();
                }
                table.items -= 1;
            }
        }
    }

    /// Keeps the limit of keys, by telling of some as if they had changed.
    pub(super) fn keep_limit(&self, hub: &Hub) {
        self.shrink(hub, &mut self.table.lock());
    }

    fn shrink(&self, hub: &Hub, table: &mut Table) {
        let limit = self.max_keys.load(Ordering::Relaxed);
        while limit > 0 && table.keys.len() > limit || table.bytes > MAX_KEY_BYTES {
            let Some(key) = table.keys.get_index(0).map(|(key, _)| key.clone()) else {
                return;
            };
            table.invalidate(hub, &key);
        }
    }

    /// A key was changed.
    pub(super) fn changed(&self, hub: &Hub, key: &Bytes) {
        if self.is_idle() {
            return;
        }
        let mut table = self.table.lock();
        let writer = table.writer;
        for (prefix, place) in &mut table.prefixes {
            if key.starts_with(prefix) {
                place.changed.insert(key.clone(), writer);
            }
        }
        table.invalidate(hub, key);
    }

    /// A database was emptied.
    pub(super) fn flushed(&self) {
        if !self.is_idle() {
            self.table.lock().flushed = true;
        }
    }

    /// All that an entry changed was told: who asked for prefixes is told of their keys together, and who caches of emptied databases once.
    pub(super) fn applied(&self, hub: &Hub) {
        if self.is_idle() {
            return;
        }
        let table = &mut *self.table.lock();
        table.writer = None;
        for prefix in table.prefixes.values_mut() {
            let changed = std::mem::take(&mut prefix.changed);
            if changed.is_empty() {
                continue;
            }
            for client in prefix.clients.iter().filter_map(|id| table.clients.get(id)) {
                let own = client.tracking.lock().as_ref().is_some_and(|mode| mode.no_loop);
                let foreign = |writer: &Option<u64>| !own || *writer != Some(client.id);
                let keys = changed.iter().filter(|(_, writer)| foreign(writer));
                let keys: Vec<&Bytes> = keys.map(|(key, _)| key).collect();
                if !keys.is_empty() {
                    tell(hub, client, Some(&keys));
                }
            }
        }
        if std::mem::take(&mut table.flushed) {
            table.forget_all(hub);
        }
    }

    /// The state was replaced by a snapshot: whatever is cached may be old.
    pub(super) fn replaced(&self, hub: &Hub) {
        if !self.is_idle() {
            self.table.lock().forget_all(hub);
        }
    }

    /// Whether a message is none for subscribers, but from a node to itself: the writes after it are this client's, or nobody's; or a client
    /// reads a key here.
    pub(super) fn is_bracket(&self, hub: &Hub, channel: &Bytes, message: &Bytes) -> bool {
        if *channel == self.bracket {
            let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<u64>().ok();
            if let Some(read) = message.strip_prefix(READS) {
                let end = read.iter().position(|byte| *byte == b' ');
                let parts = end.and_then(|end| Some((number(&read[..end])?, &read[end + 1..])));
                if let Some((client, key)) = parts {
                    self.remember(hub, client, std::iter::once(key));
                }
            } else {
                self.table.lock().writer = number(message).filter(|id| *id > 0);
            }
        }
        channel.starts_with(BRACKETS)
    }
}

impl Table {
    /// Tells who read a key that it changed, and forgets that they did.
    fn invalidate(&mut self, hub: &Hub, key: &Bytes) {
        let Some(readers) = self.keys.swap_remove(key) else {
            return;
        };
        self.bytes -= key.len();
        self.items -= readers.len();
        for client in readers.iter().filter_map(|id| self.clients.get(id)) {
            let told = {
                let mode = client.tracking.lock();
                let own = self.writer == Some(client.id);
                mode.as_ref()
                    .is_some_and(|mode| !(mode.broadcast || mode.no_loop && own))
            };
            if told {
                tell(hub, client, Some(&[key]));
            }
        }
    }

    fn forget_keys(&mut self) {
        self.keys.clear();
        (self.bytes, self.items) = (0, 0);
    }

    fn forget_all(&mut self, hub: &Hub) {
        self.forget_keys();
        for client in self.clients.values() {
            tell(hub, client, None);
        }
    }
}

/// Tells a client, or whom it named instead, that keys changed; without keys: all of them.
fn tell(hub: &Hub, client: &Client, keys: Option<&[&Bytes]>) {
    let redirected = match &mut *client.tracking.lock() {
        Some(mode) if mode.redirect_id > 0 => {
            let target = mode.redirect.as_ref().and_then(Weak::upgrade);
            let target = target.filter(|target| !target.is_gone());
            mode.broken |= target.is_none();
            Some((mode.redirect_id, target))
        }
        _ => None,
    };
    match redirected {
        None if client.protocol() == Protocol::Resp3 => {
            hub.push(client, invalidation(Protocol::Resp3, keys));
        }
        None => {}
        Some((_, Some(target))) => {
            let protocol = target.protocol();
            if protocol == Protocol::Resp3 || target.subscribes() {
                hub.push(&target, invalidation(protocol, keys));
            }
        }
        Some((id, None)) if client.protocol() == Protocol::Resp3 => {
            let mut out = BytesMut::new();
            encode::push(2, Protocol::Resp3, &mut out);
            encode::bulk(b"tracking-redir-broken", &mut out);
            encode::encode(&Reply::Integer(number(id)), Protocol::Resp3, &mut out);
            hub.push(client, out.freeze());
        }
        Some((_, None)) => {}
    }
}

fn invalidation(protocol: Protocol, keys: Option<&[&Bytes]>) -> Bytes {
    let mut out = BytesMut::new();
    if protocol == Protocol::Resp3 {
        encode::push(2, protocol, &mut out);
        encode::bulk(b"invalidate", &mut out);
    } else {
        encode::push(3, protocol, &mut out);
        encode::bulk(b"message", &mut out);
        encode::bulk(CHANNEL, &mut out);
    }
    match keys {
        Some(keys) => {
            encode::array(keys.len(), &mut out);
            keys.iter().for_each(|key| encode::bulk(key, &mut out));
        }
        None => encode::encode(&Reply::Nil, protocol, &mut out),
    }
    out.freeze()
}

impl Caller {
    /// Notes the keys that a command is about to read, if the connection tracks those: of a script those it names, whatever it will read. The
    /// keys that are new.
    pub(super) fn note_reads(&self, spec: &Spec, argv: &[Bytes]) -> BTreeSet<Bytes> {
        if !self.tracks_reads_of(spec) {
            return BTreeSet::new();
        }
        let (hub, keys) = (&self.shared.hub, spec.keys_of(argv).into_iter());
        let new = hub
            .tracking
            .remember(hub, self.client.id, keys.map(|key| &key[..]));
        new.into_iter().map(Bytes::copy_from_slice).collect()
    }

    /// Forgets what was noted of scripts, if they called nothing that reads. Where nobody knows what they called they may have.
    pub(super) fn forget_unread(&self, noted: &BTreeSet<Bytes>, notes: &Notes) {
        let reads = |called: &Called| {
            let spec = table::by_name(called.command);
            spec.is_none_or(|spec| matches!(spec.run, Run::Read(_)))
        };
        if !noted.is_empty() && !notes.calls.is_empty() && !notes.calls.iter().any(reads) {
            self.shared.hub.tracking.forget(self.client.id, noted.iter());
        }
    }

    fn tracks_reads_of(&self, spec: &Spec) -> bool {
        let reads = || matches!(spec.run, Run::Read(_)) || script::runs_one(spec);
        let remembered = |mode: &Mode| {
            !(mode.broadcast || (mode.opt_in && !mode.caching) || (mode.opt_out && mode.caching))
        };
        self.tracks && reads() && self.client.tracking.lock().as_ref().is_some_and(remembered)
    }

    /// Those keys a command of a transaction reads that the transaction has written before, as messages to this node at the place of the command.
    /// The other keys are noted at once.
    pub(super) fn note_reads_in_place(
        &self,
        spec: &Spec,
        argv: &[Bytes],
        written: &mut BTreeSet<Bytes>,
    ) -> Vec<Command> {
        if !self.tracks {
            return Vec::new();
        }
        let keys = spec.keys_of(argv);
        if !self.tracks_reads_of(spec) {
            written.extend(keys.into_iter().cloned());
            return Vec::new();
        }
        let (later, now): (Vec<&Bytes>, Vec<&Bytes>) =
            keys.into_iter().partition(|key| written.contains(*key));
        let hub = &self.shared.hub;
        hub.tracking
            .remember(hub, self.client.id, now.into_iter().map(|key| &key[..]));
        let in_place = |key: &Bytes| {
            let message = [READS, format!("{} ", self.client.id).as_bytes(), key].concat();
            Command::new(0, [PUBLISH, hub.tracking.bracket.clone(), message.into()])
        };
        later.into_iter().map(in_place).collect()
    }

    /// What `CLIENT CACHING` said is said of one command.
    pub(super) fn note_command(&self, spec: &Spec) {
        if self.tracks
            && self.transaction.is_none()
            && !spec.name.starts_with("CLIENT|")
            && let Some(mode) = &mut *self.client.tracking.lock()
        {
            mode.caching = false;
        }
    }

    /// The brackets around what the connection writes, if it does not want to hear of it.
    pub(super) fn brackets(&self) -> Option<(Command, Command)> {
        let asked = || {
            self.client
                .tracking
                .lock()
                .as_ref()
                .is_some_and(|mode| mode.no_loop)
        };
        if !self.tracks || !asked() {
            return None;
        }
        let channel = &self.shared.hub.tracking.bracket;
        let message = |id: u64| Command::new(0, [PUBLISH, channel.clone(), id.to_string().into()]);
        Some((message(self.client.id), message(0)))
    }

    /// Puts writes into their brackets, if there are any. Whether it did.
    pub(super) fn bracket(&self, commands: &mut Vec<Command>) -> bool {
        let Some((before, after)) = self.brackets() else {
            return false;
        };
        commands.insert(0, before);
        commands.push(after);
        true
    }

    /// Ends the tracking.
    pub(super) fn track_no_more(&mut self) {
        if self.tracks {
            self.shared.hub.tracking.leave(&self.client);
            self.shared.hub.tracking.watch_changes(&self.shared.node);
            self.tracks = false;
        }
    }
}

/// `CLIENT TRACKING ON|OFF [REDIRECT id] [PREFIX prefix ...] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]`.
pub(super) fn tracking(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    let switch = args.bytes()?.to_ascii_lowercase();
    let (mode, prefixes) = options(caller, args)?;
    match switch.as_slice() {
        b"on" => {
            let mode = checked(caller, mode, &prefixes)?;
            caller.shared.hub.tracking.enter(&caller.client, mode);
            caller.shared.hub.tracking.watch_changes(&caller.shared.node);
            caller.tracks = true;
        }
        b"off" => caller.track_no_more(),
        _ => return Err(CommandError::Syntax),
    }
    Ok(Reply::OK)
}

fn options(caller: &Caller, args: &mut Args<'_>) -> Result<(Mode, Vec<Bytes>), CommandError> {
    const ONE: CommandError = CommandError::text("ERR A client can only redirect to a single other client");
    const NOBODY: CommandError = CommandError::text("ERR The client ID you want redirect to does not exist");
    let (mut mode, mut prefixes) = (Mode::default(), Vec::new());
    while !args.is_empty() {
        if args.remaining() >= 2 && args.keyword("REDIRECT") {
            if mode.redirect_id > 0 {
                return Err(ONE);
            }
            let id = u64::try_from(args.integer()?).unwrap_or(0);
            let target = caller.shared.clients.get(id).ok_or(NOBODY)?;
            (mode.redirect, mode.redirect_id) = (Some(Arc::downgrade(&target)), id);
        } else if args.keyword("BCAST") {
            mode.broadcast = true;
        } else if args.keyword("OPTIN") {
            mode.opt_in = true;
        } else if args.keyword("OPTOUT") {
            mode.opt_out = true;
        } else if args.keyword("NOLOOP") {
            mode.no_loop = true;
        } else if args.remaining() >= 2 && args.keyword("PREFIX") {
            prefixes.push(Bytes::copy_from_slice(args.bytes()?));
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok((mode, prefixes))
}

/// The mode, with the prefixes it had; or why it is none, alone or after the one that the client is in.
fn checked(caller: &Caller, mut mode: Mode, prefixes: &[Bytes]) -> Result<Mode, CommandError> {
    let refuse = |text| Err(CommandError::text(text));
    if !mode.broadcast && !prefixes.is_empty() {
        return refuse("ERR PREFIX option requires BCAST mode to be enabled");
    }
    let old = caller.client.tracking.lock().clone();
    if old.as_ref().is_some_and(|old| old.broadcast != mode.broadcast) {
        return refuse(
            "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a \
             different mode.",
        );
    }
    if mode.broadcast && (mode.opt_in || mode.opt_out) {
        return refuse("ERR OPTIN and OPTOUT are not compatible with BCAST");
    }
    if mode.opt_in && mode.opt_out {
        return refuse("ERR You can't specify both OPTIN mode and OPTOUT mode");
    }
    if old
        .as_ref()
        .is_some_and(|old| (mode.opt_in && old.opt_out) || (mode.opt_out && old.opt_in))
    {
        return refuse(
            "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with a \
             different mode.",
        );
    }
    if let Some(old) = old {
        (mode.prefixes, mode.caching) = (old.prefixes, old.caching);
    }
    if mode.broadcast {
        add_prefixes(&mut mode.prefixes, prefixes)?;
    }
    Ok(mode)
}

/// Adds prefixes, of which none may be the beginning of another.
fn add_prefixes(known: &mut BTreeSet<Bytes>, more: &[Bytes]) -> Result<(), CommandError> {
    // Before they are compared, each with each.
    let bytes: usize = known.iter().chain(more).map(Bytes::len).sum();
    if known.len() + more.len() > MAX_PREFIXES || bytes > MAX_PREFIX_BYTES {
        return Err(CommandError::text("ERR too many prefixes"));
    }
    let overlap = |left: &Bytes, right: &Bytes| left.starts_with(right) || right.starts_with(left);
    for (at, prefix) in more.iter().enumerate() {
        let existing = known.iter().find(|other| overlap(prefix, other));
        let provided = more[at + 1..].iter().find(|other| overlap(prefix, other));
        let (kind, other) = match (existing, provided) {
            (Some(other), _) => ("an existing prefix", other),
            (None, Some(other)) => ("another provided prefix", other),
            (None, None) => continue,
        };
        let (prefix, other) = (quoted(prefix), quoted(other));
        return Err(refusal(format!(
            "ERR Prefix '{prefix}' overlaps with {kind} '{other}'. Prefixes for a single client must not overlap."
        )));
    }
    known.extend(more.iter().cloned());
    if known.is_empty() {
        known.insert(Bytes::new());
    }
    Ok(())
}

/// `CLIENT CACHING YES|NO`.
pub(super) fn caching(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    let refuse = |text| Err(CommandError::text(text));
    let mut mode = caller.client.tracking.lock();
    let Some(mode) = &mut *mode else {
        return refuse(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
        );
    };
    match args.bytes()?.to_ascii_lowercase().as_slice() {
        b"yes" if mode.opt_in => mode.caching = true,
        b"yes" => {
            return refuse("ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.");
        }
        b"no" if mode.opt_out => mode.caching = true,
        b"no" => {
            return refuse("ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.");
        }
        _ => return Err(CommandError::Syntax),
    }
    Ok(Reply::OK)
}

/// `CLIENT GETREDIR`: 0 where nobody is told instead, -1 where nothing is tracked.
pub(super) fn getredir(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    Ok(Reply::Integer(shown(&caller.client).1))
}

/// `CLIENT TRACKINGINFO`.
pub(super) fn trackinginfo(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    let mode = caller.client.tracking.lock().clone();
    let on = mode.is_some();
    let mode = mode.unwrap_or_default();
    let flags = [
        (if on { "on" } else { "off" }, true),
        ("bcast", mode.broadcast),
        ("optin", mode.opt_in),
        ("caching-yes", mode.opt_in && mode.caching),
        ("optout", mode.opt_out),
        ("caching-no", mode.opt_out && mode.caching),
        ("noloop", mode.no_loop),
        ("broken_redirect", mode.broken),
    ];
    let flags = flags.into_iter().filter(|(_, is_set)| *is_set);
    let redirect = if on { number(mode.redirect_id) } else { -1 };
    Ok(Reply::Map(vec![
        (
            Reply::bulk("flags"),
            Reply::Set(flags.map(|(flag, _)| Reply::bulk(flag)).collect()),
        ),
        (Reply::bulk("redirect"), Reply::Integer(redirect)),
        (
            Reply::bulk("prefixes"),
            Reply::Array(mode.prefixes.into_iter().map(Reply::Bulk).collect()),
        ),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_tracked_keys_are_bounded_and_counted_where_keys_go() {
        use crate::edge::resp::clients::Clients;
        let (hub, clients) = (Hub::default(), Clients::default());
        let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let (one, two) = (clients.enter(nowhere, nowhere), clients.enter(nowhere, nowhere));
        for client in [&one, &two] {
            hub.tracking.enter(client, Mode::default());
        }
        let counted = || (hub.tracking.counts().keys, hub.tracking.table.lock().bytes);
        let remember = |client: &Client, key: &'static str| {
            let keys = std::iter::once(key.as_bytes());
            hub.tracking.remember(&hub, client.id, keys).len()
        };
        let most = MAX_KEY_BYTES;
        hub.tracking.table.lock().bytes = most - 4;
        let noted = ["a", "b", "c", "d"].map(|key| remember(&one, key));
        assert_eq!((noted, counted()), ([1; 4], (4, most)));
        assert_eq!((remember(&two, "a"), counted()), (1, (4, most)));
        // One more, and one goes.
        assert_eq!((remember(&one, "e"), counted()), (1, (4, most)));
        hub.tracking.forget(one.id, [Bytes::from_static(b"e")].iter());
        hub.tracking.changed(&hub, &Bytes::from_static(b"d"));
        assert_eq!(counted(), (2, most - 2));
        hub.tracking.leave(&one);
        hub.tracking.leave(&two);
        assert_eq!(counted(), (0, 0));
    }

    #[test]
    fn prefixes_of_a_client_must_not_overlap() {
        let names = |names: &[&'static str]| -> Vec<Bytes> {
            names
                .iter()
                .map(|name| Bytes::from_static(name.as_bytes()))
                .collect()
        };
        let mut known = BTreeSet::new();
        let refused = add_prefixes(&mut known, &names(&["FOOBAR", "FOO"]))
            .unwrap_err()
            .to_string();
        assert_eq!(
            refused,
            "ERR Prefix 'FOOBAR' overlaps with another provided prefix 'FOO'. Prefixes for a single client must not overlap."
        );
        assert!(add_prefixes(&mut known, &names(&["FOO", "BAR"])).is_ok());
        let refused = add_prefixes(&mut known, &names(&["BARB"]))
            .unwrap_err()
            .to_string();
        assert!(refused.starts_with("ERR Prefix 'BARB' overlaps with an existing prefix 'BAR'."));
        assert_eq!(known.len(), 2);
        // They are counted before each is compared with each.
        let many: Vec<Bytes> = (0..500_000)
            .map(|number| Bytes::from(number.to_string()))
            .collect();
        for some in [&many[..], &many[..MAX_PREFIXES - 1]] {
            let refused = add_prefixes(&mut known, some).unwrap_err().to_string();
            assert_eq!(refused, "ERR too many prefixes");
        }
    }
}
