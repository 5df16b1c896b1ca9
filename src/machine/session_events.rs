//! What happened to sessions, in order and with a position, so that whoever was away can go on from where it was. `SESSION.EVENTS` reads it.
//!
//! It is state: the same on every node, and in snapshots. The last [`EVENTS_MAX`] events are kept, and with the last content of sessions that ended, if
//! the setting `session-events` asks for it, [`BYTES_MAX`] bytes of them at most; `maxmemory` does not count them.

use super::entry::Millis;
use super::excerpt::Plain;
use super::keyspace::DATABASES;
use super::snapshot::{Source, invalid, write_bytes, write_length};
use super::value::Session;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// Events that are kept.
pub const EVENTS_MAX: usize = 10_000;

/// Bytes that they may take.
pub const BYTES_MAX: usize = 16 << 20;

/// Bytes that an event takes beside its texts and content.
const OVERHEAD_BYTES: usize = 128;

/// What is told: the setting `session-events`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Telling {
    /// Nothing.
    No,
    /// What happened, when, and to which session.
    #[default]
    Yes,
    /// The same, and what a session held when it ended.
    Content,
}

impl Telling {
    const ALL: [(Self, &'static str); 3] = [(Self::No, "no"), (Self::Yes, "yes"), (Self::Content, "content")];

    /// The setting's value.
    pub fn name(self) -> &'static str {
        let named = Self::ALL.iter().find(|(telling, _)| *telling == self);
        named.map_or("", |(_, name)| name)
    }

    /// The one of a setting's value.
    pub fn from_name(name: &str) -> Option<Self> {
        let named = Self::ALL.iter().find(|(_, known)| *known == name);
        named.map(|(telling, _)| *telling)
    }
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// It was not used for its idle timeout.
    Idle,
    /// Its absolute deadline came.
    Absolute,
    /// Its application ended it: `SESSION.END`, `SESSION.ENDOWNED`.
    Abandoned,
    /// Memory was needed.
    Evicted,
    /// Another took its place: a newer session of its owner, who had as many as allowed, or another value under its key.
    Replaced,
    /// Somebody removed its key: `DEL`, `FLUSHALL` …
    Administrator,
}

impl Reason {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Idle, "idle"),
        (Self::Absolute, "absolute"),
        (Self::Abandoned, "abandoned"),
        (Self::Evicted, "evicted"),
        (Self::Replaced, "replaced"),
        (Self::Administrator, "administrator"),
    ];

    /// As `SESSION.EVENTS` says it.
    pub fn name(self) -> &'static str {
        let named = Self::ALL.iter().find(|(reason, _)| *reason == self);
        named.map_or("", |(_, name)| name)
    }

    /// The one of a name.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        let named = Self::ALL.iter().find(|(_, known)| known.as_bytes() == name);
        named.map(|(reason, _)| *reason)
    }
}

/// What happened to a session.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// It began.
    Created,
    /// It has another key since: this is the one it had.
    Renamed(Bytes),
    /// It ended. Once, whatever happens to nodes.
    Ended(Reason, Option<Arc<Session>>),
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionEvent {
    /// Its place among all: 1 and up, without gaps.
    pub position: u64,
    /// When, by the log's clock.
    pub at: Millis,
    /// The database.
    pub db: u8,
    /// The session's key.
    pub key: Bytes,
    /// Whose it is.
    pub owner: Bytes,
    /// The session's version.
    pub version: u64,
    /// What happened.
    pub what: What,
}

impl SessionEvent {
    fn bytes(&self) -> usize {
        let more = match &self.what {
            What::Ended(_, Some(content)) => content.bytes(),
            What::Renamed(from) => from.len(),
            _ => 0,
        };
        self.key.len() + self.owner.len() + more + OVERHEAD_BYTES
    }
}

/// The last events.
#[derive(Clone, Debug, Default)]
pub struct SessionEvents {
    /// The position of the last event that ever was.
    last: u64,
    /// Shared with copies for snapshots: an event is never changed.
    kept: VecDeque<Arc<SessionEvent>>,
    bytes: usize,
}

impl SessionEvents {
    /// The position of the last event; 0 before the first.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The position of the last event that is not kept any more; 0 where all are.
    pub fn lost(&self) -> u64 {
        self.last - self.kept.len() as u64
    }

    /// The events after a position that is not before [`SessionEvents::lost`].
    pub fn after(&self, position: u64) -> impl Iterator<Item = &Arc<SessionEvent>> {
        let passed = usize::try_from(position.saturating_sub(self.lost())).unwrap_or(usize::MAX);
        self.kept.range(passed.min(self.kept.len())..)
    }

    /// Some of the events after a position, as if those were all there are: `last` of it is up to where it tells, `lost` what is not kept any more.
    pub fn part(&self, after: u64, most: usize) -> Self {
        if after < self.lost() {
            return Self {
                last: self.lost(),
                ..Self::default()
            };
        }
        let mut part = Self {
            last: self.last,
            ..Self::default()
        };
        for event in self.after(after).take(most) {
            part.last = event.position;
            part.bytes += event.bytes();
            part.kept.push_back(event.clone());
        }
        part
    }

    /// As bytes, for a process that holds no machine: as in a snapshot.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::new();
        self.write(&mut out)
            .expect("a Vec takes everything, and no event has 4 GiB");
        out.into()
    }

    /// What [`SessionEvents::to_bytes`] wrote.
    ///
    /// # Errors
    /// `InvalidData`.
    pub fn from_bytes(bytes: Bytes) -> io::Result<Self> {
        Self::read(&mut Plain(bytes))
    }

    /// Adds an event, whose position is given here. Old ones go.
    pub(super) fn add(&mut self, event: SessionEvent) {
        self.last += 1;
        self.keep(SessionEvent {
            position: self.last,
            ..event
        });
        while self.kept.len() > EVENTS_MAX || self.bytes > BYTES_MAX {
            let Some(gone) = self.kept.pop_front() else { return };
            self.bytes -= gone.bytes();
        }
    }

    /// Counts events that nobody is told of any more: none, or some that at least [`EVENTS_MAX`] are added after.
    pub(super) fn skip(&mut self, events: usize) {
        if events > 0 {
            self.last += events as u64;
            self.kept.clear();
            self.bytes = 0;
        }
    }

    fn keep(&mut self, event: SessionEvent) {
        self.bytes += event.bytes();
        self.kept.push_back(Arc::new(event));
    }

    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(&self.last.to_le_bytes())?;
        write_length(out, self.kept.len())?;
        for event in &self.kept {
            out.write_all(&event.at.to_le_bytes())?;
            out.write_all(&[event.db])?;
            write_bytes(out, &event.key)?;
            write_bytes(out, &event.owner)?;
            out.write_all(&event.version.to_le_bytes())?;
            match &event.what {
                What::Created => write_bytes(out, b"created")?,
                What::Renamed(from) => {
                    write_bytes(out, b"renamed")?;
                    write_bytes(out, from)?;
                }
                What::Ended(reason, content) => {
                    write_bytes(out, reason.name().as_bytes())?;
                    out.write_all(&[u8::from(content.is_some())])?;
                    content.iter().try_for_each(|content| content.write(out))?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn read(from: &mut dyn Source) -> io::Result<Self> {
        let last = from.counter("position of a session's event")?;
        let count = from.u32()?;
        let first = (last + 1).checked_sub(count.into());
        let first = first.filter(|first| *first > 0);
        let first = first.ok_or_else(|| invalid("more events of sessions than there were".to_owned()))?;
        let mut events = Self {
            last,
            ..Self::default()
        };
        for position in first..=last {
            let (at, db, key, owner, version) =
                (from.u64()?, from.u8()?, from.bytes()?, from.bytes()?, from.u64()?);
            let what = match &from.bytes()?[..] {
                b"created" => What::Created,
                b"renamed" => What::Renamed(from.bytes()?),
                reason => {
                    let reason = Reason::from_name(reason).ok_or_else(|| {
                        invalid("an event of a session that a later version may know".to_owned())
                    })?;
                    let content = from.flag()?.then(|| Session::read(from)).transpose()?;
                    What::Ended(reason, content.map(Arc::new))
                }
            };
            if usize::from(db) >= DATABASES {
                return Err(invalid(format!("an event of database {db}")));
            }
            events.keep(SessionEvent {
                position,
                at,
                db,
                key,
                owner,
                version,
                what,
            });
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_events_are_kept_and_the_position_says_what_is_lost() {
        let mut events = SessionEvents::default();
        assert_eq!((events.last(), events.lost()), (0, 0));
        for _ in 0..EVENTS_MAX + 5 {
            events.add(SessionEvent {
                position: 0,
                at: 1,
                db: 0,
                key: Bytes::from_static(b"k"),
                owner: Bytes::new(),
                version: 1,
                what: What::Created,
            });
        }
        assert_eq!((events.last(), events.lost()), (EVENTS_MAX as u64 + 5, 5));
        let positions = |after| -> Vec<u64> { events.after(after).map(|event| event.position).collect() };
        assert_eq!(positions(5).len(), EVENTS_MAX);
        assert_eq!(
            positions(EVENTS_MAX as u64 + 3),
            [EVENTS_MAX as u64 + 4, EVENTS_MAX as u64 + 5]
        );
        assert!(positions(EVENTS_MAX as u64 + 5).is_empty());
        assert!(positions(u64::MAX).is_empty());
        let told = |after, most| {
            let part = events.part(after, most);
            let part = SessionEvents::from_bytes(part.to_bytes()).unwrap();
            let positions: Vec<u64> = part.after(after).map(|event| event.position).collect();
            (part.lost(), part.last(), positions)
        };
        let last = EVENTS_MAX as u64 + 5;
        assert_eq!(told(2, 3), (5, 5, vec![]), "lost");
        assert_eq!(told(7, 3), (7, 10, vec![8, 9, 10]));
        assert_eq!(told(last, 3), (last, last, vec![]));
        assert_eq!(told(u64::MAX, 3), (last, last, vec![]), "not there yet");
    }
}
