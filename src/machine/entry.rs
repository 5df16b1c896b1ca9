//! What the log carries: one group of commands, as bytes with a version in front.
//!
//! A group is encoded once, by hand, on the node that collected it (each caller its part, before it waits); the leader fills in the stamp (format, time and
//! chance) and from there on the same bytes are stored, sent, cached and applied. Fixed-width little-endian, no `usize`; a test pins them.
//!
//! A format is the rules by which a group is applied, so that whoever applies an old log comes to what all others came to; the layout is that of the first for
//! ever, for those who forward and those who stamp need not be of one version. A program refuses a format beyond its own, so that no two make different
//! states of one log. What a member understands it tells the others; the leader stamps a format once all members understand it, and the highest that was applied
//! is the *level* of the state ([`super::settings::Settings::level`]), from which the log never goes back.
//!
//! Raise it with whatever makes `apply` come to something else than before: a command with a row of its own ([`super::table::Spec::level`] says from which level
//! on it is there), an option, a command that only nodes write, a repair of what one does.
//!
//! | format | rules |
//! |---|---|
//! | 1 | each group ends up to a thousand keys by their deadlines before its commands |
//! | 2 | a group with commands ends few, one without many: [`Entry::ends_at_most`]; the state remembers its level, in snapshots too |
//! | 3 | what has a deadline ends after that millisecond, as in Redis, where it ended as it began: a life was up to a millisecond short |
//! | 4 | `RESTORE` refuses a stream with two entries of one id; a copy of a session is locked by nobody; who asks for a lock or lease stands behind those who wait for it, also where its holder's time is over and it was not taken back yet; no user has a rule `+command|argument` whose argument is more than a word, for a snapshot holds rules as words: such a rule is refused, and what there was becomes what snapshots have made of it |

use super::args::Lists;
use bytes::{BufMut, Bytes, BytesMut};
use std::fmt;

/// Milliseconds since the Unix epoch, by the log's clock.
pub type Millis = u64;

/// Bytes before the first command: format, at, seed, origin (node, start, number), count of commands.
const HEADER: usize = 1 + 8 + 8 + 8 + 8 + 8 + 4;

/// Where the leader's stamp (format, `at`, `seed`) stands in the encoded group.
const STAMP: std::ops::Range<usize> = 0..17;

/// Who collected a group, so that a group sent twice is applied once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Origin {
    /// The node that collected the group.
    pub node: u64,
    /// Which start of that node, counted on its disk: 1, 2, 3 …
    pub start: u64,
    /// Which group of that start: 1, 2, 3 … without a hole. 0 marks a group without callers (a tick of the leader): it is never a duplicate.
    pub number: u64,
}

/// One command the way a client said it: `argv[0]` is its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The database it is meant for, 0 to 15.
    pub db: u8,
    /// Name and arguments.
    pub argv: Vec<Bytes>,
}

impl Command {
    /// A command from anything that turns into bytes.
    pub fn new<A: Into<Bytes>>(db: u8, argv: impl IntoIterator<Item = A>) -> Self {
        Self {
            db,
            argv: argv.into_iter().map(Into::into).collect(),
        }
    }

    /// Bytes this command takes in an encoded group.
    pub fn encoded_len(&self) -> usize {
        1 + 4 + self.argv.iter().map(|argument| 4 + argument.len()).sum::<usize>()
    }
}

/// One group as it is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// By which format it is applied: 1 to [`Entry::FORMAT`].
    pub format: u8,
    /// The leader's time. Never runs backwards along the log.
    pub at: Millis,
    /// The leader's chance, from which every random choice in `apply` is drawn.
    pub seed: u64,
    /// Who collected it.
    pub origin: Origin,
    /// The commands, in order.
    pub commands: Vec<Command>,
}

impl Entry {
    /// The format that this program understands. A reader refuses what is beyond it.
    pub const FORMAT: u8 = 4;

    /// The format of groups that no leader has stamped, which every program understands.
    pub const FIRST_FORMAT: u8 = 1;

    /// How many keys, and how many fields, a group without commands ends at most: a step of the leader's ticks, which rest between two of them.
    const ENDED_PER_TICK: usize = 500;

    /// How many one with commands ends at least, if there are any to end.
    const ENDED_PER_GROUP: usize = 16;

    /// How many keys, and how many fields, whose deadlines have passed it ends at most, before its commands. Whoever waits for a command waits for these as well,
    /// so they are few; but twice as many as the commands, so that keys do not end faster than they go.
    pub fn ends_at_most(&self) -> usize {
        match (self.format, self.commands.len()) {
            (1, _) => 1_000,
            (_, 0) => Self::ENDED_PER_TICK,
            (_, commands) => (2 * commands).clamp(Self::ENDED_PER_GROUP, Self::ENDED_PER_TICK),
        }
    }
}

/// Why bytes are not a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// They were written by a later version.
    Version(u8),
    /// They end too early, or go on after the end.
    Length,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => {
                write!(
                    f,
                    "a group in format {version}: this program reads formats up to {}; run a newer one",
                    Entry::FORMAT
                )
            }
            Self::Length => write!(f, "a group whose length does not fit its content"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Commands the way a group holds them: those of one caller, to be joined with those of others.
#[derive(Clone, Debug)]
pub struct Part {
    commands: usize,
    bytes: Bytes,
}

impl Part {
    /// Encodes commands.
    pub fn new(commands: &[Command]) -> Self {
        let mut bytes = BytesMut::with_capacity(commands.iter().map(Command::encoded_len).sum());
        for command in commands {
            bytes.put_u8(command.db);
            bytes.put_u32_le(u32::try_from(command.argv.len()).expect("the edge bounds arguments to 2^20"));
            for argument in &command.argv {
                let length = u32::try_from(argument.len());
                bytes.put_u32_le(length.expect("the edge bounds a bulk far below 2^32"));
                bytes.put_slice(argument);
            }
        }
        Self {
            commands: commands.len(),
            bytes: bytes.freeze(),
        }
    }

    /// How many commands they are.
    pub fn commands(&self) -> usize {
        self.commands
    }

    /// How many bytes they take.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// Encodes a group. The stamp is zero until [`stamp`] fills it in.
pub fn encode(origin: Origin, commands: &[Command]) -> Bytes {
    join(origin, &[Part::new(commands)])
}

/// Joins what several callers gave into one group, in their order. The stamp is zero until [`stamp`] fills it in.
pub fn join(origin: Origin, parts: &[Part]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER + parts.iter().map(Part::bytes).sum::<usize>());
    out.put_u8(Entry::FIRST_FORMAT);
    out.put_u64_le(0);
    out.put_u64_le(0);
    out.put_u64_le(origin.node);
    out.put_u64_le(origin.start);
    out.put_u64_le(origin.number);
    let commands: usize = parts.iter().map(Part::commands).sum();
    out.put_u32_le(u32::try_from(commands).expect("groups are bounded far below 2^32 commands"));
    for part in parts {
        out.put_slice(&part.bytes);
    }
    out.freeze()
}

/// Puts the format that all members understand, and the leader's time and chance, into an encoded group. Copies only if the bytes are shared.
pub fn stamp(group: Bytes, format: u8, at: Millis, seed: u64) -> Bytes {
    let mut bytes = group
        .try_into_mut()
        .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    if bytes.len() >= HEADER {
        bytes[STAMP.start] = format;
        bytes[STAMP.start + 1..STAMP.start + 9].copy_from_slice(&at.to_le_bytes());
        bytes[STAMP.start + 9..STAMP.end].copy_from_slice(&seed.to_le_bytes());
    }
    bytes.freeze()
}

/// Whose group these bytes are, without decoding the commands.
pub fn origin(group: &Bytes) -> Result<Origin, DecodeError> {
    let mut cursor = Cursor { bytes: group, at: 0 };
    cursor.format()?;
    cursor.u64()?;
    cursor.u64()?;
    cursor.origin()
}

/// The same where all of it can be decoded: whatever a later [`decode`] refuses is refused. Walks over the lengths, and keeps nothing.
///
/// # Errors
/// As [`decode`].
pub fn checked_origin(group: &Bytes) -> Result<Origin, DecodeError> {
    let origin = origin(group)?;
    let mut cursor = Cursor {
        bytes: group,
        at: HEADER - 4,
    };
    for _ in 0..cursor.u32()? {
        cursor.u8()?;
        for _ in 0..cursor.u32()? {
            let length = cursor.u32()? as usize;
            cursor.skip(length)?;
        }
    }
    cursor.must_be_at_end().map(|()| origin)
}

/// Decodes a group; the arguments share `group`'s memory.
///
/// # Errors
/// [`DecodeError`] when a later version wrote it or its lengths do not add up.
pub fn decode(group: &Bytes) -> Result<Entry, DecodeError> {
    decode_with(group, &mut Lists::new(0))
}

/// [`decode`], with lists for the arguments from here.
///
/// # Errors
/// As [`decode`].
pub fn decode_with(group: &Bytes, lists: &mut Lists) -> Result<Entry, DecodeError> {
    let mut cursor = Cursor { bytes: group, at: 0 };
    let format = cursor.format()?;
    let (at, seed, origin) = (cursor.u64()?, cursor.u64()?, cursor.origin()?);
    let count = cursor.u32()? as usize;
    // A command takes at least 5 bytes, an argument at least 4: a count beyond that is a lie and reserves nothing.
    let mut commands = Vec::with_capacity(count.min(group.len() / 5));
    for _ in 0..count {
        let db = cursor.u8()?;
        let arguments = cursor.u32()? as usize;
        let mut argv = lists.take();
        argv.reserve_exact(arguments.min(group.len() / 4));
        for _ in 0..arguments {
            let length = cursor.u32()? as usize;
            argv.push(cursor.slice(length)?);
        }
        commands.push(Command { db, argv });
    }
    cursor.must_be_at_end()?;
    Ok(Entry {
        format,
        at,
        seed,
        origin,
        commands,
    })
}

struct Cursor<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let end = self.at.checked_add(N).ok_or(DecodeError::Length)?;
        let bytes = self.bytes.get(self.at..end).ok_or(DecodeError::Length)?;
        self.at = end;
        Ok(bytes.try_into().expect("N bytes: taken just above"))
    }

    fn slice(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        let from = self.at;
        self.skip(length)?;
        Ok(self.bytes.slice(from..self.at))
    }

    fn skip(&mut self, length: usize) -> Result<(), DecodeError> {
        let end = self.at.checked_add(length);
        self.at = end
            .filter(|end| *end <= self.bytes.len())
            .ok_or(DecodeError::Length)?;
        Ok(())
    }

    fn must_be_at_end(&self) -> Result<(), DecodeError> {
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(DecodeError::Length)
        }
    }

    fn format(&mut self) -> Result<u8, DecodeError> {
        match self.u8()? {
            format @ Entry::FIRST_FORMAT..=Entry::FORMAT => Ok(format),
            other => Err(DecodeError::Version(other)),
        }
    }

    fn origin(&mut self) -> Result<Origin, DecodeError> {
        Ok(Origin {
            node: self.u64()?,
            start: self.u64()?,
            number: self.u64()?,
        })
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.take()?))
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.take()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Origin, Vec<Command>) {
        let origin = Origin {
            node: 7,
            start: 2,
            number: 3,
        };
        (
            origin,
            vec![Command::new(0, ["SET", "k", "v"]), Command::new(15, ["PING"])],
        )
    }

    #[test]
    fn what_is_encoded_and_stamped_is_decoded() {
        let (origin_, commands) = sample();
        let group = stamp(encode(origin_, &commands), Entry::FORMAT, 1_000, 42);
        assert_eq!(origin(&group), Ok(origin_));
        assert_eq!(checked_origin(&group), Ok(origin_));
        assert_eq!(
            decode(&group),
            Ok(Entry {
                format: Entry::FORMAT,
                at: 1_000,
                seed: 42,
                origin: origin_,
                commands
            })
        );
    }

    #[test]
    fn the_parts_of_callers_make_the_group_that_their_commands_make() {
        let (origin, commands) = sample();
        let parts: Vec<Part> = commands.chunks(1).map(Part::new).collect();
        assert_eq!(join(origin, &parts), encode(origin, &commands));
    }

    #[test]
    fn every_cut_and_every_surplus_byte_is_refused() {
        let (origin, commands) = sample();
        let group = encode(origin, &commands);
        let refused = |group: Bytes| {
            let decoded = decode(&group).map(|entry| entry.origin);
            assert_eq!(checked_origin(&group), decoded, "checked as decoded");
            decoded == Err(DecodeError::Length)
        };
        for end in 0..group.len() {
            assert!(refused(group.slice(..end)), "cut at {end}");
        }
        let mut longer = BytesMut::from(&group[..]);
        longer.put_u8(0);
        assert!(refused(longer.freeze()));
    }

    #[test]
    fn a_later_format_is_refused_by_name_and_with_advice() {
        let (origin, commands) = sample();
        let mut bytes = BytesMut::from(&encode(origin, &commands)[..]);
        bytes[0] = Entry::FORMAT + 1;
        let (group, later) = (bytes.freeze(), DecodeError::Version(Entry::FORMAT + 1));
        assert_eq!((decode(&group), self::origin(&group)), (Err(later), Err(later)));
        let said = later.to_string();
        assert!(
            said.contains("this program reads formats up to 4; run a newer one"),
            "{said}"
        );
    }

    #[test]
    fn the_bytes_of_format_4_stay_and_former_formats_are_read() {
        let (origin, commands) = sample();
        let group = stamp(encode(origin, &commands), Entry::FORMAT, 1_000, 42);
        let hex: String = group.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "04e8030000000000002a0000000000000007000000000000000200000000000000030000000000000002000000\
             0003000000030000005345540100000 06b010000007 60f010000000400000050494e47"
                .replace(' ', "")
        );
        let now = decode(&group).unwrap();
        for format in Entry::FIRST_FORMAT..Entry::FORMAT {
            let mut before = BytesMut::from(&group[..]);
            before[0] = format;
            let then = Entry {
                format,
                ..now.clone()
            };
            assert_eq!(decode(&before.freeze()), Ok(then));
        }
    }

    #[test]
    fn a_group_ends_few_keys_and_a_tick_many() {
        let entry = |format, commands: usize| Entry {
            format,
            at: 0,
            seed: 0,
            origin: Origin::default(),
            commands: vec![Command::new(0, ["PING"]); commands],
        };
        for (format, commands, most) in [
            (1, 0, 1_000),
            (1, 5, 1_000),
            (2, 0, 500),
            (2, 1, 16),
            (2, 20, 40),
            (2, 900, 500),
        ] {
            assert_eq!(
                entry(format, commands).ends_at_most(),
                most,
                "{format}, {commands}"
            );
        }
    }
}
