//! Who of this node's clients is told what: the subscribers of channels, patterns and shard channels.
//!
//! The hub listens to the node, so messages come in the order of the log and are the same on every node. Each is encoded once for
//! each version of the protocol and handed to the outboxes of its subscribers.

use super::clients::Client;
use super::encode::{self, Protocol};
use super::outbox::OutputLimits;
use super::tracking::Tracking;
use crate::machine::event::{Classes, Event};
use crate::machine::glob;
use crate::machine::table::Spec;
use crate::node::Listener;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Subscriptions of one client, of each kind.
pub(super) const MAX_SUBSCRIPTIONS: usize = 1 << 20;

/// Bytes of their names, of all kinds.
pub(super) const MAX_SUBSCRIBED_BYTES: usize = 64 << 20;

/// Patterns of one client. Each is held against each message on its way from the log.
pub(super) const MAX_PATTERNS: usize = 16_384;

/// Bytes of those patterns.
pub(super) const MAX_PATTERNS_BYTES: usize = 256 << 10;

/// Bytes of a channel that patterns are held against. Nobody hears of a longer one by a pattern.
const MAX_MATCHED_BYTES: usize = 16 << 10;

/// What can be subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `SUBSCRIBE`.
    Channel,
    /// `PSUBSCRIBE`.
    Pattern,
    /// `SSUBSCRIBE`.
    Shard,
}

/// What one client is subscribed to.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    pub(super) channels: BTreeSet<Bytes>,
    pub(super) patterns: BTreeSet<Bytes>,
    pub(super) shards: BTreeSet<Bytes>,
    /// Bytes of all names.
    bytes: usize,
    /// Bytes of the patterns.
    patterns_bytes: usize,
}

impl Subscriptions {
    /// Whether so many further names fit, which have so many bytes.
    pub(super) fn have_room(&mut self, kind: Kind, names: usize, bytes: usize) -> bool {
        let (most, fits) = if kind == Kind::Pattern {
            (MAX_PATTERNS, self.patterns_bytes + bytes <= MAX_PATTERNS_BYTES)
        } else {
            (MAX_SUBSCRIPTIONS, true)
        };
        fits && self.of(kind).len() + names <= most && self.bytes + bytes <= MAX_SUBSCRIBED_BYTES
    }

    /// Adds a name; whether it was not there.
    pub(super) fn add(&mut self, kind: Kind, name: Bytes) -> bool {
        let bytes = name.len();
        let new = self.of(kind).insert(name);
        if new {
            self.bytes += bytes;
            self.patterns_bytes += if kind == Kind::Pattern { bytes } else { 0 };
        }
        new
    }

    /// Takes a name away; whether it was there.
    pub(super) fn remove(&mut self, kind: Kind, name: &Bytes) -> bool {
        let was = self.of(kind).remove(name);
        if was {
            self.bytes -= name.len();
            self.patterns_bytes -= if kind == Kind::Pattern { name.len() } else { 0 };
        }
        was
    }

    pub(super) fn of(&mut self, kind: Kind) -> &mut BTreeSet<Bytes> {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
            Kind::Shard => &mut self.shards,
        }
    }

    /// How many, as the answer to a subscription of this kind counts them.
    pub(super) fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Channel | Kind::Pattern => self.channels.len() + self.patterns.len(),
            Kind::Shard => self.shards.len(),
        }
    }

    /// All of them.
    pub(super) fn total(&self) -> usize {
        self.count(Kind::Channel) + self.count(Kind::Shard)
    }
}

/// By the number of the client.
type Subscribers = BTreeMap<u64, Arc<Client>>;

#[derive(Debug, Default)]
struct Topics {
    channels: HashMap<Bytes, Subscribers>,
    patterns: HashMap<Bytes, Subscribers>,
    shards: HashMap<Bytes, Subscribers>,
}

impl Topics {
    fn of(&mut self, kind: Kind) -> &mut HashMap<Bytes, Subscribers> {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
            Kind::Shard => &mut self.shards,
        }
    }

    /// The patterns that fit a channel.
    fn fitting<'a>(&'a self, channel: &'a Bytes) -> impl Iterator<Item = (&'a Bytes, &'a Subscribers)> {
        self.patterns
            .iter()
            .filter(|(pattern, _)| channel.len() <= MAX_MATCHED_BYTES && glob::matches(pattern, channel))
    }
}

/// All subscriptions of an endpoint.
#[derive(Debug, Default)]
pub(super) struct Hub {
    /// Subscriptions of any kind: none spares the lock.
    subscriptions: AtomicUsize,
    /// Held to find the subscribers of a message and put it into their outboxes, never across an await.
    topics: Mutex<Topics>,
    /// How much may wait for a subscriber.
    pub(super) limits: OutputLimits,
    /// Who is told of keys that changed.
    pub(super) tracking: Tracking,
}

impl Hub {
    /// Subscribes a client; whether it was not yet. The name must not share memory with more than itself.
    pub(super) fn subscribe(&self, client: &Arc<Client>, kind: Kind, name: &Bytes) {
        let mut topics = self.topics.lock();
        let subscribers = topics.of(kind).entry(name.clone()).or_default();
        if subscribers.insert(client.id, client.clone()).is_none() {
            self.subscriptions.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Ends a client's subscription.
    pub(super) fn unsubscribe(&self, client: &Client, kind: Kind, name: &Bytes) {
        let mut topics = self.topics.lock();
        let topics = topics.of(kind);
        let Some(subscribers) = topics.get_mut(name) else {
            return;
        };
        if subscribers.remove(&client.id).is_some() {
            self.subscriptions.fetch_sub(1, Ordering::AcqRel);
        }
        if subscribers.is_empty() {
            topics.remove(name);
        }
    }

    /// Ends all of a client's subscriptions without a word to it.
    pub(super) fn leave(&self, client: &Client) {
        let subscriptions = std::mem::take(&mut *client.subscriptions.lock());
        for (kind, names) in [
            (Kind::Channel, subscriptions.channels),
            (Kind::Pattern, subscriptions.patterns),
            (Kind::Shard, subscriptions.shards),
        ] {
            names.iter().for_each(|name| self.unsubscribe(client, kind, name));
        }
    }

    /// How many of this node's clients get a message of this channel; one gets it once for each subscription that fits.
    pub(super) fn receivers(&self, channel: &Bytes, sharded: bool) -> usize {
        if !self.has_subscribers() {
            return 0;
        }
        let topics = self.topics.lock();
        let direct = if sharded { &topics.shards } else { &topics.channels };
        let direct = direct.get(channel).map_or(0, Subscribers::len);
        if sharded {
            return direct;
        }
        let fitting = topics.fitting(channel).map(|(_, subscribers)| subscribers.len());
        direct + fitting.sum::<usize>()
    }

    /// The channels with subscribers that fit a pattern.
    pub(super) fn channels(&self, kind: Kind, pattern: Option<&Bytes>) -> Vec<Bytes> {
        let mut topics = self.topics.lock();
        let fits = |name: &&Bytes| pattern.is_none_or(|pattern| glob::matches(pattern, name));
        topics.of(kind).keys().filter(fits).cloned().collect()
    }

    /// How many subscribers a channel has, or a pattern.
    pub(super) fn subscribers(&self, kind: Kind, name: &Bytes) -> usize {
        self.topics.lock().of(kind).get(name).map_or(0, Subscribers::len)
    }

    /// How many names of a kind have subscribers.
    pub(super) fn count(&self, kind: Kind) -> usize {
        self.topics.lock().of(kind).len()
    }

    /// Gives a client something it did not ask for, or ends its connection if it takes too little.
    pub(super) fn push(&self, client: &Client, message: Bytes) {
        if !client.outbox.push(message, &self.limits) {
            client.end();
        }
    }

    /// Has a client told in this version of the protocol from now on, and takes over what it was told before.
    pub(super) fn speak(&self, client: &Client, protocol: Protocol, told: &mut BytesMut) {
        let change = || {
            client.outbox.take_all(told);
            client.speak(protocol);
        };
        // Whoever encodes a message holds one of the two locks until it is in the outbox: none of the old version comes behind.
        let _topics = self.topics.lock();
        self.tracking.meanwhile(change);
    }

    /// Whether anybody is subscribed to anything.
    pub(super) fn has_subscribers(&self) -> bool {
        self.subscriptions.load(Ordering::Acquire) > 0
    }

    /// Tells this node's subscribers that somebody looked for keys here which were not there: the keyspace event `keymiss`. A read is not in
    /// the log, so other nodes do not hear of it.
    pub(super) fn tell_missed(&self, db: u8, asked: Classes, keys: &[Bytes]) {
        let event = Bytes::from_static(b"keymiss");
        for key in keys {
            if asked.contain(Classes::KEYSPACE) {
                let channel = [format!("__keyspace@{db}__:").as_bytes(), key].concat();
                self.publish(&channel.into(), &event, false);
            }
            if asked.contain(Classes::KEYEVENT) {
                self.publish(&format!("__keyevent@{db}__:keymiss").into(), key, false);
            }
        }
    }

    fn publish(&self, channel: &Bytes, message: &Bytes, sharded: bool) {
        if !self.has_subscribers() {
            return;
        }
        let topics = self.topics.lock();
        let (direct, kind): (_, &[u8]) = if sharded {
            (&topics.shards, b"smessage")
        } else {
            (&topics.channels, b"message")
        };
        if let Some(subscribers) = direct.get(channel) {
            self.tell(subscribers, &[kind, channel, message]);
        }
        if !sharded {
            for (pattern, subscribers) in topics.fitting(channel) {
                self.tell(subscribers, &[b"pmessage", pattern, channel, message]);
            }
        }
    }

    fn tell(&self, subscribers: &Subscribers, parts: &[&[u8]]) {
        let encoded = [OnceCell::new(), OnceCell::new()];
        for client in subscribers.values() {
            let protocol = client.protocol();
            let place = &encoded[usize::from(protocol == Protocol::Resp3)];
            let message: &Bytes = place.get_or_init(|| told(parts, protocol));
            self.push(client, message.clone());
        }
    }
}

/// Whether a read of a key that is not there counts as a miss: not where it asks about the key.
pub(super) fn tells_misses(spec: &Spec) -> bool {
    !matches!(spec.name.split('|').next(), Some("OBJECT" | "MEMORY"))
}

/// A message as its subscribers are told of it.
fn told(parts: &[&[u8]], protocol: Protocol) -> Bytes {
    let mut out = BytesMut::new();
    encode::push(parts.len(), protocol, &mut out);
    for part in parts {
        encode::bulk(part, &mut out);
    }
    out.freeze()
}

impl Listener for Hub {
    fn event(&self, event: &Event) {
        match event {
            Event::Message {
                channel,
                message,
                sharded,
            } if !self.tracking.is_bracket(self, channel, message) => {
                self.publish(channel, message, *sharded);
            }
            Event::Changed { key, .. } => self.tracking.changed(self, key),
            Event::Flushed { .. } => self.tracking.flushed(),
            _ => {}
        }
    }

    fn applied(&self) {
        self.tracking.applied(self);
    }

    fn replaced(&self) {
        self.tracking.replaced(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_are_bounded_by_their_bytes_too() {
        let mut subscriptions = Subscriptions::default();
        let name = Bytes::from(vec![b'x'; 40 << 20]);
        assert!(subscriptions.have_room(Kind::Channel, 1, name.len()));
        assert!(subscriptions.add(Kind::Channel, name.clone()));
        assert!(!subscriptions.add(Kind::Channel, name.clone()));
        assert!(!subscriptions.have_room(Kind::Shard, 1, name.len()));
        assert!(subscriptions.remove(Kind::Channel, &name) && !subscriptions.remove(Kind::Channel, &name));
        assert!(subscriptions.have_room(Kind::Shard, 1, name.len()));
        assert!(!subscriptions.have_room(Kind::Shard, MAX_SUBSCRIPTIONS + 1, 0));
        assert!(!subscriptions.have_room(Kind::Pattern, MAX_PATTERNS + 1, 0));
        let pattern = Bytes::from(vec![b'x'; MAX_PATTERNS_BYTES]);
        assert!(subscriptions.have_room(Kind::Pattern, 1, pattern.len()));
        subscriptions.add(Kind::Pattern, pattern.clone());
        assert!(!subscriptions.have_room(Kind::Pattern, 1, 1));
        assert!(subscriptions.have_room(Kind::Channel, 1, 1));
        subscriptions.remove(Kind::Pattern, &pattern);
        assert!(subscriptions.have_room(Kind::Pattern, 1, 1));
    }
}
