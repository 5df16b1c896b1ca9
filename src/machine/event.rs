//! What applying an entry makes known beside its replies, in order: messages, keyspace notifications, changed keys, answers to those who wait.
//!
//! Events are not state: a node that has nobody to tell drops them.

use super::reply::Reply;
use bytes::Bytes;
use std::fmt;

/// Something that happened while an entry was applied. The same on every node, save [`Event::Changed`], which is told where it is asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A message for the subscribers of a channel: `PUBLISH`, or a keyspace notification.
    Message {
        /// The channel.
        channel: Bytes,
        /// What is told.
        message: Bytes,
        /// Whether it is for shard channels (`SPUBLISH`).
        sharded: bool,
    },
    /// A key was written, removed or has ended; told where [`super::keyspace::Store::watch_changes`] asks for it.
    Changed {
        /// Its database.
        db: u8,
        /// Its name.
        key: Bytes,
    },
    /// A database was emptied or exchanged; told as [`Event::Changed`] is.
    Flushed {
        /// Which.
        db: u8,
    },
    /// Something happened to a session: [`super::keyspace::Store::session_events`] says what.
    Session,
    /// A command that waited in the log was served, or its time is over.
    Answered {
        /// Who waits; the number is the log's.
        waiter: Waiter,
        /// The answer.
        reply: Reply,
    },
    /// The effects of a script were applied, or could not be.
    Evaluated {
        /// Who asked for it; the number is the node's.
        caller: Waiter,
        /// The answer; none where it must be evaluated again.
        reply: Option<Reply>,
    },
}

/// Who waits for something in the log: a node's start, and a number for what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Waiter {
    /// The node.
    pub node: u64,
    /// Which start of it.
    pub start: u64,
    /// Which of those it waits for: never the same twice in a start.
    pub number: u64,
}

/// Classes of keyspace events, and whether they are told by key or by event: `notify-keyspace-events`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Classes(u16);

impl Classes {
    /// `K`: on `__keyspace@db__:key`.
    pub const KEYSPACE: Self = Self(1);
    /// `E`: on `__keyevent@db__:event`.
    pub const KEYEVENT: Self = Self(1 << 1);
    /// `g`: commands for any type.
    pub const GENERIC: Self = Self(1 << 2);
    /// `$`
    pub const STRING: Self = Self(1 << 3);
    /// `l`
    pub const LIST: Self = Self(1 << 4);
    /// `s`
    pub const SET: Self = Self(1 << 5);
    /// `h`
    pub const HASH: Self = Self(1 << 6);
    /// `z`
    pub const ZSET: Self = Self(1 << 7);
    /// `x`: a key has ended by its deadline.
    pub const EXPIRED: Self = Self(1 << 8);
    /// `e`: a key was evicted for memory.
    pub const EVICTED: Self = Self(1 << 9);
    /// `t`
    pub const STREAM: Self = Self(1 << 10);
    /// `m`: a key was looked for and not there.
    pub const KEY_MISS: Self = Self(1 << 11);
    /// `d`: of modules; accepted and shown.
    pub const MODULE: Self = Self(1 << 12);
    /// `n`: a key is new.
    pub const NEW: Self = Self(1 << 13);

    /// The letters, in the order in which Redis shows them; `A` stands for those before `K`.
    const LETTERS: [(char, Self); 14] = [
        ('g', Self::GENERIC),
        ('$', Self::STRING),
        ('l', Self::LIST),
        ('s', Self::SET),
        ('h', Self::HASH),
        ('z', Self::ZSET),
        ('x', Self::EXPIRED),
        ('e', Self::EVICTED),
        ('t', Self::STREAM),
        ('d', Self::MODULE),
        ('n', Self::NEW),
        ('K', Self::KEYSPACE),
        ('E', Self::KEYEVENT),
        ('m', Self::KEY_MISS),
    ];

    /// `A`: all but `m` and `n`.
    const ALL: Self = Self(
        Self::GENERIC.0
            | Self::STRING.0
            | Self::LIST.0
            | Self::SET.0
            | Self::HASH.0
            | Self::ZSET.0
            | Self::EXPIRED.0
            | Self::EVICTED.0
            | Self::STREAM.0
            | Self::MODULE.0,
    );

    /// The classes of a text of letters; none where a letter is unknown.
    pub fn parse(text: &str) -> Option<Self> {
        text.chars().try_fold(Self::default(), |classes, letter| {
            let more = match letter {
                'A' => Some(Self::ALL),
                letter => Self::LETTERS
                    .iter()
                    .find(|(known, _)| *known == letter)
                    .map(|(_, class)| *class),
            };
            more.map(|more| Self(classes.0 | more.0))
        })
    }

    /// Whether all of `others` are among these.
    pub fn contain(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Whether events of this class are told at all.
    pub fn tell(self, class: Self) -> bool {
        self.contain(class) && self.0 & (Self::KEYSPACE.0 | Self::KEYEVENT.0) != 0
    }
}

impl fmt::Display for Classes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.contain(Self::ALL);
        if all {
            f.write_str("A")?;
        }
        Self::LETTERS
            .iter()
            .filter(|(_, class)| self.contain(*class) && !(all && Self::ALL.contain(*class)))
            .try_for_each(|(letter, _)| write!(f, "{letter}"))
    }
}

#[cfg(test)]
mod tests {
    use super::Classes;

    #[test]
    fn classes_are_shown_as_redis_shows_them() {
        for (set, shown) in [
            ("", ""),
            ("KEA", "AKE"),
            ("Egx", "gxE"),
            ("K$lshzxeg", "g$lshzxeK"),
            ("KEm", "KEm"),
            ("nKEA", "AnKE"),
        ] {
            assert_eq!(
                Classes::parse(set).expect("known letters").to_string(),
                shown,
                "{set}"
            );
        }
        assert_eq!(Classes::parse("Kq"), None);
    }
}
