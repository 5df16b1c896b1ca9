//! How commands say when a key is to end: `EX`, `PX`, `EXAT`, `PXAT` and the four `EXPIRE`s. Words and arithmetic only; no rows.

use crate::machine::args::Args;
use crate::machine::entry::Millis;
use crate::machine::event::Classes;
use crate::machine::keyspace::{Due, End, Keyspace, View};
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::Renewed;
use crate::machine::value::session::Renewal;
use bytes::Bytes;

/// The unit and the beginning of a time that a command names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time {
    /// Seconds from now.
    InSeconds,
    /// Milliseconds from now.
    InMillis,
    /// Seconds since 1970.
    AtSeconds,
    /// Milliseconds since 1970.
    AtMillis,
}

impl Time {
    const WORDS: [(&'static str, Time); 4] = [
        ("EX", Time::InSeconds),
        ("PX", Time::InMillis),
        ("EXAT", Time::AtSeconds),
        ("PXAT", Time::AtMillis),
    ];

    /// Reads `EX`, `PX`, `EXAT` or `PXAT` if that is the next argument.
    pub(super) fn keyword(args: &mut Args<'_>) -> Option<Time> {
        Self::WORDS
            .iter()
            .find(|(word, _)| args.keyword(word))
            .map(|(_, time)| *time)
    }

    /// The deadline in milliseconds since 1970, negative before that; none where it leaves the 64-bit range.
    pub(super) fn deadline(self, amount: i64, now: Millis) -> Option<i64> {
        let base = match self {
            Self::InSeconds | Self::InMillis => i64::try_from(now).ok()?,
            Self::AtSeconds | Self::AtMillis => 0,
        };
        let millis = match self {
            Self::InSeconds | Self::AtSeconds => amount.checked_mul(1000)?,
            Self::InMillis | Self::AtMillis => amount,
        };
        millis.checked_add(base)
    }

    /// The deadline for commands that take a life of at least 1 and want it as it is kept.
    ///
    /// # Errors
    /// `NotAnInteger`; `InvalidExpire` naming `command` for zero, less, or an overflow.
    pub(super) fn positive_deadline(
        self,
        amount: &[u8],
        now: Millis,
        command: &'static str,
    ) -> Result<Millis, CommandError> {
        let amount = crate::machine::args::integer(amount).ok_or(CommandError::NotAnInteger)?;
        let deadline = if amount > 0 {
            self.deadline(amount, now)
        } else {
            None
        };
        deadline
            .and_then(|deadline| Millis::try_from(deadline).ok())
            .ok_or(CommandError::InvalidExpire(command))
    }

    /// The end of a key that is to be at this deadline, which was counted so: with the slack that the settings leave a life from now on.
    pub(super) fn end(self, keys: &Keyspace<'_>, key: &[u8], deadline: Millis) -> End {
        match (self, deadline.checked_sub(keys.now())) {
            (Self::InSeconds | Self::InMillis, Some(life)) => keys.end_after(key, life),
            _ => End::at(deadline),
        }
    }
}

/// What a command answers that asks for a key's life (from now on, in this unit) again, if that needs no write.
pub(super) fn renewed(
    view: &View<'_>,
    key: &Bytes,
    time: Time,
    amount: &[u8],
    reply: impl FnOnce() -> Option<Reply>,
) -> Option<Renewed> {
    let now = view.now();
    let life = match time {
        Time::InSeconds | Time::InMillis => time.positive_deadline(amount, now, "").ok()? - now,
        Time::AtSeconds | Time::AtMillis => return None,
    };
    let slack = view.settings().expire_slack_ms(key, life);
    if slack == 0 {
        return None;
    }
    let due = match view.find(key)?.end.renewal(life, slack, now) {
        Renewal::Now => return None,
        Renewal::No => None,
        Renewal::Soon => Some(Due {
            db: view.db(),
            key: key.clone(),
            life,
            slack,
            used_at: now,
        }),
    };
    let reply = reply()?;
    Some(Renewed { reply, due })
}

/// Lets a key that is there end so, and tells of it: a deadline that has passed removes the key.
pub(super) fn end_at(keys: &mut Keyspace<'_>, key: &[u8], end: End) {
    let has_passed = end.deadline().is_some_and(|deadline| deadline <= keys.now());
    let event = if has_passed { "del" } else { "expire" };
    if keys.set_deadline(key, end) {
        keys.notify(Classes::GENERIC, event, key);
    }
}

/// Takes away a key's deadline, and tells of it. Whether it had one.
pub(super) fn persist(keys: &mut Keyspace<'_>, key: &[u8]) -> bool {
    let ends = keys
        .view()
        .slot(key)
        .is_some_and(|slot| slot.deadline().is_some());
    if ends {
        keys.set_deadline(key, End::NEVER);
        keys.notify(Classes::GENERIC, "persist", key);
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::Time;

    #[test]
    fn times_are_milliseconds_since_1970_or_none() {
        assert_eq!(Time::InSeconds.deadline(2, 500), Some(2_500));
        assert_eq!(Time::InMillis.deadline(-700, 500), Some(-200));
        assert_eq!(Time::AtSeconds.deadline(2, 500), Some(2_000));
        assert_eq!(Time::AtMillis.deadline(i64::MAX, 500), Some(i64::MAX));
        assert_eq!(Time::InMillis.deadline(i64::MAX, 1), None);
        assert_eq!(Time::AtSeconds.deadline(i64::MAX / 1000 + 1, 0), None);
        assert_eq!(Time::InSeconds.deadline(i64::MIN, 0), None);
    }
}
