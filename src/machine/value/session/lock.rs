//! The lock of a session: one writer, or several readers, each with a token and a deadline. Who waits for it stands in `machine/waiting.rs`.

use crate::machine::entry::Millis;
use crate::machine::snapshot::{Source, invalid, write_bytes};
use bytes::Bytes;
use std::io;

/// The most who hold a shared lock at a time; others wait.
const HOLDERS_MAX: usize = 64;

/// Bytes that the numbers of a holder count.
const NUMBERS_BYTES: usize = 5 * 8;

/// With whom a lock can be shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// With nobody: for one who writes.
    Exclusive,
    /// With others who share it: for those who only read.
    Shared,
}

impl Mode {
    /// As `SESSION.LOCK` says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exclusive => "exclusive",
            Self::Shared => "shared",
        }
    }
}

/// Somebody who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Greater than that of every lock given before, of any session: what a lock protects can refuse a lower one than it has seen.
    pub token: u64,
    /// With whom it is shared.
    pub mode: Mode,
    /// What the holder said of itself.
    pub text: Bytes,
    /// When it got the lock, by the log's clock.
    pub since: Millis,
    /// When it loses it.
    pub deadline: Millis,
    /// The node and start that it loses it with.
    pub bound: Option<(u64, u64)>,
}

/// A session's lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    /// All of them share it, or there is one.
    holders: Vec<Holder>,
}

impl Lock {
    /// Bytes it counts.
    pub fn bytes(&self) -> usize {
        let bytes = self
            .holders
            .iter()
            .map(|holder| holder.text.len() + NUMBERS_BYTES);
        bytes.sum()
    }

    /// Who holds it once these deadlines have passed.
    pub fn holders(&self, passed: Millis) -> impl Iterator<Item = &Holder> {
        self.holders.iter().filter(move |holder| holder.deadline > passed)
    }

    /// Whether one more can have it.
    pub fn admits(&self, mode: Mode, passed: Millis) -> bool {
        let mut held = 0;
        let shared = self.holders(passed).all(|holder| {
            held += 1;
            holder.mode == Mode::Shared
        });
        held == 0 || (mode == Mode::Shared && shared && held < HOLDERS_MAX)
    }

    /// Gives it to one whom it admits.
    pub fn give(&mut self, holder: Holder) {
        self.holders.push(holder);
    }

    /// Takes it from the holder of a token. Whether there was one.
    pub fn release(&mut self, token: u64, passed: Millis) -> bool {
        let held = self.holders(passed).any(|holder| holder.token == token);
        self.holders.retain(|holder| holder.token != token);
        held
    }

    /// Lets a holder have it until then. Whether there is one with this token.
    pub fn extend(&mut self, token: u64, deadline: Millis, passed: Millis) -> bool {
        let mut holders = self.holders.iter_mut().filter(|holder| holder.deadline > passed);
        let holder = holders.find(|holder| holder.token == token);
        holder.map(|holder| holder.deadline = deadline).is_some()
    }

    /// When the first of its holders loses it.
    pub fn first_deadline(&self) -> Option<Millis> {
        self.holders.iter().map(|holder| holder.deadline).min()
    }

    /// Takes it from those whose time is over.
    pub fn remove_ended(&mut self, passed: Millis) {
        self.holders.retain(|holder| holder.deadline > passed);
    }

    /// Takes it from those who are bound to a start of a node before this one. Whether there were any.
    pub fn release_bound(&mut self, node: u64, before_start: u64) -> bool {
        let held = self.holders.len();
        self.holders.retain(|holder| {
            !holder
                .bound
                .is_some_and(|(of, start)| of == node && start < before_start)
        });
        self.holders.len() < held
    }

    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let holders = u8::try_from(self.holders.len()).expect("at most HOLDERS_MAX");
        out.write_all(&[holders])?;
        for holder in &self.holders {
            out.write_all(&[u8::from(holder.mode == Mode::Shared)])?;
            for number in [holder.token, holder.since, holder.deadline] {
                out.write_all(&number.to_le_bytes())?;
            }
            write_bytes(out, &holder.text)?;
            let (node, start) = holder.bound.unwrap_or_default();
            out.write_all(&[u8::from(holder.bound.is_some())])?;
            out.write_all(&node.to_le_bytes())?;
            out.write_all(&start.to_le_bytes())?;
        }
        Ok(())
    }

    pub(super) fn read(from: &mut dyn Source) -> io::Result<Self> {
        let holders = from.u8()?;
        let mut lock = Self::default();
        for _ in 0..holders {
            let mode = if from.flag()? {
                Mode::Shared
            } else {
                Mode::Exclusive
            };
            let (token, since, deadline, text) = (from.u64()?, from.u64()?, from.u64()?, from.bytes()?);
            let (is_bound, node, start) = (from.flag()?, from.u64()?, from.u64()?);
            if !lock.admits(mode, 0) {
                return Err(invalid("a lock that cannot be shared so".to_owned()));
            }
            lock.give(Holder {
                token,
                mode,
                text,
                since,
                deadline,
                bound: is_bound.then_some((node, start)),
            });
        }
        Ok(lock)
    }
}
