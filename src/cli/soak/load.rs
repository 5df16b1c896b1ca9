//! The load of a soak: workers that write strings, hashes, lists and counters, run scripts, change sessions under their locks and publish, and remember
//! what they were told; and what must be found of it when they rest.
//!
//! A write is acknowledged (its reply came), refused (nothing was applied), or its outcome is unknown. What is remembered is bounded however long a soak
//! takes: each worker writes to few keys, again and again.

use super::super::client::{Client, Error, text};
use super::members::Member;
use crate::machine::reply::Reply;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a worker waits for a reply: longer than a node's own deadline, which answers first.
const REPLY: Duration = Duration::from_secs(15);

/// How long a subscriber waits for a message before it looks whether to rest.
const SILENCE: Duration = Duration::from_secs(2);

/// How long a worker that reached nobody waits before it tries the next member.
const RETRY: Duration = Duration::from_millis(20);

/// Strings and fields of a hash that a worker writes to.
const STRINGS: u64 = 64;
const FIELDS: u64 = 32;

/// How long a worker's list grows before it is taken from.
const LIST: usize = 32;

/// Counters, counters of scripts, and sessions, each shared by all workers.
const COUNTERS: usize = 4;
const SESSIONS: usize = 4;

/// The lease of a lock, and how long it is waited for; milliseconds.
const LEASE_MS: &str = "10000";
const WAIT_MS: &str = "2000";

/// The idle time of sessions, in milliseconds: none ends while a soak goes on.
const IDLE_MS: &str = "86400000";

/// The channel on which workers publish.
const CHANNEL: &str = "soak";

const SCRIPT: &str = "redis.call('SET', KEYS[2], ARGV[1]) return redis.call('INCR', KEYS[1])";

/// What all workers share.
#[derive(Default)]
pub(super) struct Shared {
    /// Set when the workers are to rest.
    pub(super) rest: AtomicBool,
    /// How long each acknowledged command took since this was last looked at, in microseconds.
    pub(super) took_us: Mutex<Vec<u32>>,
    pub(super) acknowledged: AtomicU64,
    pub(super) unknown: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) messages: AtomicU64,
    /// Of each counter.
    counts: [Count; 2 * COUNTERS + SESSIONS],
    /// The greatest token that a lock of each session gave.
    tokens: [AtomicU64; SESSIONS],
    violations: Mutex<Vec<String>>,
}

/// How often a counter was counted up, for certain and perhaps.
#[derive(Default)]
struct Count {
    acknowledged: AtomicU64,
    unknown: AtomicU64,
}

impl Shared {
    /// Notes that something must never have happened.
    pub(super) fn violated(&self, what: String) {
        let mut violations = lock(&self.violations);
        eprintln!("VIOLATION: {what}");
        violations.push(what);
    }

    /// What must never have happened.
    pub(super) fn violations(&self) -> Vec<String> {
        lock(&self.violations).clone()
    }
}

/// What a thread that panicked left behind is as it was.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What became of a command.
enum Fate {
    Acknowledged(Reply),
    Refused,
    Unknown,
}

/// What a place (a string, a field) may hold: what was acknowledged last, or a write whose outcome is unknown. Such a write may be applied after later ones
/// too, until its node's deadline: so they are kept over one rest.
#[derive(Default)]
struct Place {
    acknowledged: Option<u64>,
    perhaps: BTreeSet<u64>,
    perhaps_before: BTreeSet<u64>,
}

impl Place {
    fn holds(&self, found: Option<u64>) -> bool {
        found == self.acknowledged
            || found
                .is_some_and(|found| self.perhaps.contains(&found) || self.perhaps_before.contains(&found))
    }

    /// What is there when everybody rests.
    fn settle(&mut self, found: Option<u64>) {
        self.acknowledged = found;
        self.perhaps_before = std::mem::take(&mut self.perhaps);
    }
}

/// A worker's list, as a queue: what was put in comes out once and in its order.
#[derive(Clone, Default)]
struct Queue {
    held: VecDeque<u64>,
    /// Pushed perhaps; may come at any place.
    perhaps: BTreeSet<u64>,
    /// So many may have been taken from the front.
    taken_perhaps: usize,
}

impl Queue {
    /// Whether this may come out now.
    fn take(&mut self, value: u64) -> bool {
        if self.perhaps.remove(&value) {
            return true;
        }
        while let Some(front) = self.held.pop_front() {
            if front == value {
                return true;
            }
            if self.taken_perhaps == 0 {
                return false;
            }
            self.taken_perhaps -= 1;
        }
        false
    }

    /// Whether so many may be missing at the end.
    fn may_be_over(&self) -> bool {
        self.held.len() <= self.taken_perhaps
    }
}

/// One worker: a client that goes to the next member when its own does not answer.
pub(super) struct Worker<'s> {
    name: usize,
    redis: Vec<String>,
    shared: &'s Shared,
    at: usize,
    client: Option<Client>,
    /// What it does next.
    step: u64,
    places: BTreeMap<(String, String), Place>,
    queue: Queue,
    /// The message it publishes next; after one whose outcome is unknown it begins a new row.
    message: (u64, u64),
}

impl<'s> Worker<'s> {
    pub(super) fn new(name: usize, members: &[Member], shared: &'s Shared) -> Self {
        Self {
            name,
            redis: members.iter().map(|member| member.redis.clone()).collect(),
            shared,
            at: name,
            client: None,
            step: 0,
            places: BTreeMap::new(),
            queue: Queue::default(),
            message: (0, 0),
        }
    }

    /// Works until it is to rest.
    pub(super) fn work(&mut self) {
        while !self.shared.rest.load(Ordering::Relaxed) {
            self.step += 1;
            match self.step % 8 {
                0 | 1 => self.string(),
                2 => self.hash(),
                3 => self.list(),
                4 => self.count(),
                5 => self.script(),
                6 => self.session(),
                _ => self.publish(),
            }
        }
    }

    fn send(&mut self, argv: &[&str]) -> Fate {
        let fate = self.exchange(argv);
        let count = match &fate {
            Fate::Acknowledged(_) => &self.shared.acknowledged,
            Fate::Refused => &self.shared.refused,
            Fate::Unknown => &self.shared.unknown,
        };
        count.fetch_add(1, Ordering::Relaxed);
        fate
    }

    /// Not sent again here: whether it is applied twice then is for the nodes to prevent.
    fn exchange(&mut self, argv: &[&str]) -> Fate {
        if self.client.is_none() {
            let redis = &self.redis[self.at % self.redis.len()];
            let connected = Client::connect(redis, None).and_then(|client| {
                client.set_reply_time_max(REPLY)?;
                Ok(client)
            });
            match connected {
                Ok(client) => self.client = Some(client),
                Err(_) => {
                    self.at += 1;
                    std::thread::sleep(RETRY);
                    return Fate::Refused;
                }
            }
        }
        let client = self.client.as_mut().expect("connected above");
        let began = Instant::now();
        match client.call(argv) {
            Ok(reply) => {
                let took = u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX);
                lock(&self.shared.took_us).push(took);
                Fate::Acknowledged(reply)
            }
            Err(error) => {
                self.client = None;
                self.at += 1;
                match error {
                    Error::Refused { refusal, .. } if !refusal.starts_with("UNKNOWN ") => Fate::Refused,
                    _ => Fate::Unknown,
                }
            }
        }
    }

    fn string(&mut self) {
        let (key, value) = (
            format!("string:{}:{}", self.name, self.step % STRINGS),
            self.step.to_string(),
        );
        let fate = self.send(&["SET", &key, &value]);
        self.put(key, String::new(), &fate);
    }

    fn hash(&mut self) {
        let (key, field) = (format!("hash:{}", self.name), (self.step % FIELDS).to_string());
        let value = self.step.to_string();
        let fate = self.send(&["HSET", &key, &field, &value]);
        self.put(key, field, &fate);
    }

    /// Notes that this step's number was written to a place.
    fn put(&mut self, key: String, field: String, fate: &Fate) {
        let place = self.places.entry((key, field)).or_default();
        match fate {
            Fate::Acknowledged(_) => place.acknowledged = Some(self.step),
            Fate::Unknown => drop(place.perhaps.insert(self.step)),
            Fate::Refused => {}
        }
    }

    fn list(&mut self) {
        let (key, value) = (self.list_key(), self.step.to_string());
        match self.send(&["RPUSH", &key, &value]) {
            Fate::Acknowledged(_) => self.queue.held.push_back(self.step),
            Fate::Unknown => drop(self.queue.perhaps.insert(self.step)),
            Fate::Refused => {}
        }
        if self.queue.held.len() < LIST {
            return;
        }
        match self.send(&["LPOP", &key]) {
            Fate::Acknowledged(reply) => {
                if !text(&reply).parse().is_ok_and(|value| self.queue.take(value)) {
                    self.shared
                        .violated(format!("LPOP {key} gave {}, out of its turn", text(&reply)));
                }
            }
            Fate::Unknown => self.queue.taken_perhaps += 1,
            Fate::Refused => {}
        }
    }

    fn list_key(&self) -> String {
        format!("list:{}", self.name)
    }

    fn count(&mut self) {
        let which = self.step as usize / 8 % COUNTERS;
        let fate = self.send(&["INCR", &format!("counter:{which}")]);
        self.counted(which, &fate);
    }

    fn script(&mut self) {
        let which = COUNTERS + self.step as usize / 8 % COUNTERS;
        let (counter, beside) = (format!("counter:{which}"), format!("script:{}", self.name));
        let value = self.step.to_string();
        let fate = self.send(&["EVAL", SCRIPT, "2", &counter, &beside, &value]);
        self.counted(which, &fate);
        self.put(beside, String::new(), &fate);
    }

    fn counted(&self, which: usize, fate: &Fate) {
        let count = &self.shared.counts[which];
        match fate {
            Fate::Acknowledged(_) => drop(count.acknowledged.fetch_add(1, Ordering::Relaxed)),
            Fate::Unknown => drop(count.unknown.fetch_add(1, Ordering::Relaxed)),
            Fate::Refused => {}
        }
    }

    /// Counts up what a session holds, by reading and saving under its lock: were it held by two, a count would be lost.
    fn session(&mut self) {
        let which = self.step as usize / 8 % SESSIONS;
        let session = session_key(which);
        let holder = format!("worker-{}", self.name);
        let Fate::Acknowledged(Reply::Integer(token)) = self.send(&[
            "SESSION.LOCK",
            &session,
            "EXCLUSIVE",
            &holder,
            LEASE_MS,
            "WAIT",
            WAIT_MS,
        ]) else {
            return;
        };
        let number = u64::try_from(token).unwrap_or_default();
        let before = self.shared.tokens[which].fetch_max(number, Ordering::SeqCst);
        if before >= number {
            self.shared.violated(format!(
                "a lock of {session} has the token {token} after one had {before}"
            ));
        }
        let Fate::Acknowledged(Reply::Array(items)) = self.send(&["SESSION.GET", &session, "n"]) else {
            return;
        };
        let n: u64 = items
            .first()
            .and_then(|item| text(item).parse().ok())
            .unwrap_or_default();
        let (token, next) = (token.to_string(), (n + 1).to_string());
        let save = [
            "SESSION.SAVE",
            &session,
            "*",
            "LOCK",
            &token,
            "UNLOCK",
            "SET",
            "1",
            "n",
            &next,
        ];
        let fate = self.send(&save);
        self.counted(2 * COUNTERS + which, &fate);
    }

    fn publish(&mut self) {
        let (row, number) = self.message;
        let message = format!("{}.{row} {number}", self.name);
        match self.send(&["PUBLISH", CHANNEL, &message]) {
            Fate::Acknowledged(_) => self.message.1 += 1,
            // It may yet be told, behind later ones.
            Fate::Unknown => self.message = (row + 1, 0),
            Fate::Refused => {}
        }
    }

    /// Looks up all that it wrote, while everybody rests.
    ///
    /// # Errors
    /// What the member answers.
    pub(super) fn check(&mut self, member: &Member, client: &mut Client, settle: bool) -> Result<(), Error> {
        let (shared, who) = (self.shared, &member.name);
        for ((key, field), place) in &mut self.places {
            let reply = if field.is_empty() {
                client.call(&["GET", key])?
            } else {
                client.call(&["HGET", key, field])?
            };
            let found = text(&reply).parse().ok();
            if !place.holds(found) {
                let last = place.acknowledged;
                shared.violated(format!(
                    "{who}: {key} {field} is {found:?}, and {last:?} was acknowledged last"
                ));
            }
            if settle {
                place.settle(found);
            }
        }
        let key = self.list_key();
        let mut queue = self.queue.clone();
        if let Reply::Array(items) = client.call(&["LRANGE", &key, "0", "-1"])? {
            for item in &items {
                if !text(item).parse().is_ok_and(|value| queue.take(value)) {
                    shared.violated(format!("{who}: {key} holds {} where it cannot be", text(item)));
                }
            }
        }
        if !queue.may_be_over() {
            shared.violated(format!(
                "{who}: {} that were put into {key} are lost",
                queue.held.len()
            ));
        }
        Ok(())
    }
}

/// Makes the sessions.
///
/// # Errors
/// What the member answers.
pub(super) fn prepare(client: &mut Client) -> Result<(), Error> {
    (0..SESSIONS).try_for_each(|which| {
        client
            .call(&[
                "SESSION.CREATE",
                &session_key(which),
                IDLE_MS,
                "ITEMS",
                "1",
                "n",
                "0",
            ])
            .map(drop)
    })
}

fn session_key(which: usize) -> String {
    format!("shared-session:{which}")
}

/// Whether each counter is what was counted.
///
/// # Errors
/// What the member answers.
pub(super) fn check_counts(shared: &Shared, member: &Member, client: &mut Client) -> Result<(), Error> {
    for (which, count) in shared.counts.iter().enumerate() {
        let name = match which.checked_sub(2 * COUNTERS) {
            None => format!("counter:{which}"),
            Some(session) => session_key(session),
        };
        let reply = match which.checked_sub(2 * COUNTERS) {
            None => client.call(&["GET", &name])?,
            Some(_) => match client.call(&["SESSION.GET", &name, "n"])? {
                Reply::Array(items) => items.first().cloned().unwrap_or(Reply::Nil),
                other => other,
            },
        };
        let found: u64 = text(&reply).parse().unwrap_or_default();
        let least = count.acknowledged.load(Ordering::Relaxed);
        let most = least + count.unknown.load(Ordering::Relaxed);
        if found < least || found > most {
            let who = &member.name;
            shared.violated(format!(
                "{who}: {name} is {found}, and was counted {least} to {most} times"
            ));
        }
    }
    Ok(())
}

/// Hears what is published, on one member, until the workers rest. Of each row all must come, once and in order, as long as the connection lasts.
pub(super) fn listen(redis: &str, name: &str, shared: &Shared) {
    while !shared.rest.load(Ordering::Relaxed) {
        let Ok(mut client) = Client::connect(redis, None) else {
            std::thread::sleep(RETRY);
            continue;
        };
        // A silence is no fault: it only tells to look whether to rest.
        if client.set_reply_time_max(SILENCE).is_err() || client.call(&["SUBSCRIBE", CHANNEL]).is_err() {
            continue;
        }
        let mut next = BTreeMap::<String, u64>::new();
        while !shared.rest.load(Ordering::Relaxed) {
            let Ok(Reply::Array(parts)) = client.receive() else {
                break;
            };
            let message = parts.last().map(text).unwrap_or_default();
            let Some((row, number)) = message.split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            shared.messages.fetch_add(1, Ordering::Relaxed);
            if let Some(expected) = next.insert(row.to_owned(), number + 1)
                && expected != number
            {
                shared.violated(format!(
                    "{name}: message {number} of {row} was told where {expected} must come"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_gives_what_it_holds_once_and_in_order() {
        let mut queue = Queue::default();
        queue.held.extend([1, 2, 4, 5]);
        queue.perhaps.insert(3);
        assert!(queue.take(1) && queue.take(2) && queue.take(3));
        assert!(!queue.clone().take(3), "once");
        assert!(!queue.clone().take(5), "4 is lost");
        assert!(!queue.may_be_over());
        queue.taken_perhaps = 1;
        assert!(queue.clone().take(5), "4 may have been taken");
        assert!(queue.take(4) && queue.may_be_over());
    }

    #[test]
    fn a_place_holds_what_was_acknowledged_or_what_is_unknown() {
        let mut place = Place {
            acknowledged: Some(3),
            ..Place::default()
        };
        place.perhaps.insert(2);
        assert!(place.holds(Some(3)) && place.holds(Some(2)));
        assert!(!place.holds(Some(1)) && !place.holds(None));
        place.settle(Some(3));
        assert!(place.holds(Some(2)), "it may come late");
        place.settle(Some(3));
        assert!(!place.holds(Some(2)), "not as late as that");
    }
}
