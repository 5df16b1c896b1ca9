//! When a key ends, and whether asking again for the life it has is to be written down.
//!
//! With `expire-slack-percent` a life that is asked for ends up to that part of it late: by its slack. So one that asks for the same life again is
//! answered without a write as long as the key lives for that life from now on anyway. What clients are shown is the life they asked for.

use crate::machine::entry::Millis;
use crate::machine::value::session::Renewal;
use bytes::Bytes;

/// What stands for no deadline: so an end takes the room of two numbers.
const NEVER: Millis = Millis::MAX;

/// When a key ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    at: Millis,
    /// The life that was asked for, in milliseconds, where the key ends its slack later than that; else 0.
    life: Millis,
}

/// A use of a key that is to be written down in time, together with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The key's database.
    pub db: u8,
    /// Its name.
    pub key: Bytes,
    /// The life that was asked for again, in milliseconds.
    pub life: Millis,
    /// Its slack, in milliseconds.
    pub slack: Millis,
    /// When that was.
    pub used_at: Millis,
}

impl End {
    /// No deadline.
    pub const NEVER: Self = Self { at: NEVER, life: 0 };

    /// At this time.
    pub fn at(deadline: Millis) -> Self {
        Self {
            at: deadline,
            life: 0,
        }
    }

    /// After a life that begins now, with this slack.
    pub fn after(life: Millis, now: Millis, slack: Millis) -> Self {
        Self {
            at: now.saturating_add(life).saturating_add(slack),
            life: if slack > 0 { life } else { 0 },
        }
    }

    /// What a snapshot has; the life is 0 where there is no deadline.
    pub(in crate::machine) fn restored(deadline: Option<Millis>, life: Millis) -> Self {
        Self {
            at: deadline.unwrap_or(NEVER),
            life,
        }
    }

    /// When the key is gone, by the log's clock.
    pub fn deadline(self) -> Option<Millis> {
        (self.at != NEVER).then_some(self.at)
    }

    /// The life that was asked for, in milliseconds, where the key ends its slack later than that; else 0.
    pub fn life(self) -> Millis {
        self.life
    }

    /// The deadline as clients are shown it: whoever asked for a life just now is shown no more than that.
    pub fn shown(self, now: Millis) -> Option<Millis> {
        let asked = if self.life > 0 {
            now.saturating_add(self.life)
        } else {
            NEVER
        };
        self.deadline().map(|deadline| deadline.min(asked))
    }

    /// Whether asking now for this life again, which has this slack, is to be written down. The last quarter of the slack is left for clocks: by so
    /// much may the one who asks be behind the log's, and the key still does not end early.
    pub fn renewal(self, life: Millis, slack: Millis, now: Millis) -> Renewal {
        let ends_before = |slack| Self::after(life, now, slack).at > self.at;
        let is_covered = slack > 0 && self.life == life && self.at <= Self::after(life, now, slack).at;
        if !is_covered || ends_before(slack / 4) {
            Renewal::Now
        } else if ends_before(slack / 2) {
            Renewal::Soon
        } else {
            Renewal::No
        }
    }
}

impl From<Option<Millis>> for End {
    fn from(deadline: Option<Millis>) -> Self {
        deadline.map_or(Self::NEVER, Self::at)
    }
}
