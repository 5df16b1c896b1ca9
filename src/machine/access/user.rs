//! A user: how it proves itself, and what it may do. The rules of `ACL SETUSER`, read and written as Redis does.

use super::selector::{Denied, Selector};
use crate::machine::commands::sort;
use crate::machine::reply::CommandError;
use crate::machine::snapshot::{Source, write_length};
use crate::machine::table::Spec;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::cell::OnceCell;
use std::fmt;
use std::io;

/// SHA-256 of a password.
pub type Hash = [u8; 32];

/// SHA-256 of a password.
pub fn hash(password: &[u8]) -> Hash {
    Sha256::digest(password).into()
}

/// A hash as it is shown.
pub fn hexadecimal(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash that 64 lower-case hexadecimal digits show.
fn shown_hash(text: &[u8]) -> Result<Hash, RuleError> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(RuleError::BadHash),
    };
    let (pairs, []) = text.as_chunks::<2>() else {
        return Err(RuleError::BadHash);
    };
    if pairs.len() != 32 {
        return Err(RuleError::BadHash);
    }
    let mut hash = Hash::default();
    for (place, [high, low]) in hash.iter_mut().zip(pairs) {
        *place = digit(*high)? << 4 | digit(*low)?;
    }
    Ok(hash)
}

/// What names and patterns cannot hold: what C calls a space, and the null character.
pub(super) fn is_space(byte: u8) -> bool {
    byte == 0 || byte == 0x0b || byte.is_ascii_whitespace()
}

/// A user.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    /// The revision at which it was made: another user of the same name has another.
    born: u64,
    on: bool,
    /// Every password is right.
    nopass: bool,
    /// Whether payloads of `RESTORE` are checked in full; Redis says nothing of it until it is asked.
    sanitize: Option<bool>,
    passwords: Vec<Hash>,
    /// What it may do: the first one is its own, the others are in parentheses.
    selectors: Vec<Selector>,
}

/// Why a rule is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleError {
    /// It names a command or category that is not there.
    Unknown,
    /// It is no rule.
    Syntax,
    /// A key pattern where all keys are allowed.
    KeysAfterAll,
    /// A channel pattern where all channels are allowed.
    ChannelsAfterAll,
    /// A password to remove that is not there.
    NoSuchPassword,
    /// What should be a hash is none.
    BadHash,
    /// `+container|sub|argument`.
    FirstArgumentOfSubcommand,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "Unknown command or category name in ACL",
            Self::Syntax => "Syntax error",
            Self::KeysAfterAll => {
                "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. \
                 Try 'resetkeys' to start with an empty list of patterns"
            }
            Self::ChannelsAfterAll => {
                "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any effect. \
                 Try 'resetchannels' to start with an empty list of channels"
            }
            Self::NoSuchPassword => "The password you are trying to remove from the user does not exist",
            Self::BadHash => {
                "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
            }
            Self::FirstArgumentOfSubcommand => "Allowing first-arg of a subcommand is not supported",
        })
    }
}

impl User {
    /// One that may do nothing and cannot come in.
    pub(super) fn new(open_channels: bool, born: u64) -> Self {
        Self {
            born,
            on: false,
            nopass: false,
            sanitize: None,
            passwords: Vec::new(),
            selectors: vec![Selector::new(open_channels)],
        }
    }

    /// The user `default` at the beginning.
    pub(super) fn all_powerful() -> Self {
        Self {
            on: true,
            nopass: true,
            selectors: vec![Selector::all_powerful()],
            ..Self::new(true, 0)
        }
    }

    /// The revision at which it was made.
    pub fn born(&self) -> u64 {
        self.born
    }

    /// Whether it can come in at all.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Whether every password is right.
    pub fn needs_no_password(&self) -> bool {
        self.nopass
    }

    /// The hashes of its passwords.
    pub fn passwords(&self) -> &[Hash] {
        &self.passwords
    }

    /// Its flags, in the order of Redis.
    pub fn flags(&self) -> impl Iterator<Item = &'static str> {
        let sanitize = self.sanitize.map(|sanitize| {
            if sanitize {
                "sanitize-payload"
            } else {
                "skip-sanitize-payload"
            }
        });
        let nopass = self.nopass.then_some("nopass");
        [Some(if self.on { "on" } else { "off" }), nopass, sanitize]
            .into_iter()
            .flatten()
    }

    /// Its own permissions.
    pub fn root(&self) -> &Selector {
        self.selectors.first().expect("a user always has one")
    }

    /// The permissions in parentheses.
    pub fn selectors(&self) -> &[Selector] {
        &self.selectors[1..]
    }

    /// Whether it may do everything, whatever else is asked.
    pub fn is_unlimited(&self) -> bool {
        self.selectors.iter().any(Selector::is_unlimited)
    }

    /// Whether a command may run. If nothing allows it, what the most willing of its permissions lacks.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn permits(&self, spec: &Spec, argv: &[Bytes]) -> Result<(), Denied> {
        let uses = OnceCell::new();
        let mut worst = Denied::Command;
        for selector in &self.selectors {
            match selector.permits(spec, argv, &uses) {
                Ok(()) => return Ok(()),
                Err(denied) => worst = worst.max(denied),
            }
        }
        Err(worst)
    }

    /// Whether a command may read keys that its arguments do not name, as `BY` and `GET` of `SORT` do: whoever may read every key. To be asked of a
    /// command that is to run, beside [`User::permits`]; as in Redis, `ACL DRYRUN` and `redis.acl_check_cmd` do not tell.
    ///
    /// # Errors
    /// In the words of Redis.
    pub fn permits_unnamed_keys(&self, spec: &Spec, argv: &[Bytes]) -> Result<(), CommandError> {
        let option = match spec.name {
            "SORT" | "SORT_RO" => sort::reads_unnamed_keys(argv),
            _ => None,
        };
        let Some(option) = option else { return Ok(()) };
        let uses = OnceCell::new();
        let mut selectors = self.selectors.iter();
        if selectors.any(|selector| selector.permits(spec, argv, &uses).is_ok() && selector.reads_all_keys())
        {
            return Ok(());
        }
        let text = format!("ERR {option} option of SORT denied due to insufficient ACL permissions.");
        Err(CommandError::Other(text.into()))
    }

    /// Whether it may be subscribed to a channel, or to a pattern of channels.
    pub fn permits_channel(&self, channel: &[u8], pattern: bool) -> bool {
        self.selectors
            .iter()
            .any(|selector| selector.permits_channel(channel, pattern))
    }

    /// One rule. `open_channels`: `acl-pubsub-default`.
    pub(super) fn apply(&mut self, rule: &[u8], open_channels: bool) -> Result<(), RuleError> {
        match rule.to_ascii_lowercase().as_slice() {
            b"" => {}
            b"on" => self.on = true,
            b"off" => self.on = false,
            b"sanitize-payload" => self.sanitize = Some(true),
            b"skip-sanitize-payload" => self.sanitize = Some(false),
            b"nopass" => (self.nopass, self.passwords) = (true, Vec::new()),
            b"resetpass" => (self.nopass, self.passwords) = (false, Vec::new()),
            b"clearselectors" => self.selectors.truncate(1),
            b"reset" => {
                *self = Self {
                    sanitize: Some(true),
                    ..Self::new(open_channels, self.born)
                };
            }
            _ => match rule {
                [b'>', password @ ..] => self.add_password(hash(password)),
                [b'#', shown @ ..] => self.add_password(shown_hash(shown)?),
                [b'<', password @ ..] => self.remove_password(hash(password))?,
                [b'!', shown @ ..] => self.remove_password(shown_hash(shown)?)?,
                [b'(', rules @ .., b')'] => {
                    let mut selector = Selector::new(open_channels);
                    let rules = rules
                        .split(|byte| is_space(*byte))
                        .filter(|rule| !rule.is_empty());
                    rules.into_iter().try_for_each(|rule| selector.apply(rule))?;
                    self.selectors.push(selector);
                }
                _ => self.selectors[0].apply(rule)?,
            },
        }
        Ok(())
    }

    /// Whether a snapshot can hold its rules.
    pub(super) fn is_writable(&self) -> bool {
        self.selectors.iter().all(Selector::is_writable)
    }

    /// Makes it what a snapshot makes of it.
    pub(super) fn read_again(&mut self) {
        self.selectors.iter_mut().for_each(Selector::read_again);
    }

    fn add_password(&mut self, hash: Hash) {
        if !self.passwords.contains(&hash) {
            self.passwords.push(hash);
        }
        self.nopass = false;
    }

    fn remove_password(&mut self, hash: Hash) -> Result<(), RuleError> {
        let before = self.passwords.len();
        self.passwords.retain(|known| *known != hash);
        if self.passwords.len() < before {
            Ok(())
        } else {
            Err(RuleError::NoSuchPassword)
        }
    }

    /// Everything as rules, as `ACL LIST` shows them. `more`: hashes of passwords that are right beside its own.
    pub fn text(&self, more: &[Hash]) -> Vec<u8> {
        let mut parts: Vec<Vec<u8>> = self.flags().map(|flag| flag.as_bytes().to_vec()).collect();
        if !more.is_empty() {
            parts.retain(|flag| flag != b"nopass");
        }
        let hashes = more.iter().chain(&self.passwords);
        parts.extend(hashes.map(|hash| format!("#{}", hexadecimal(hash)).into_bytes()));
        parts.push(self.root().text());
        parts.extend(
            self.selectors()
                .iter()
                .map(|selector| [&b"("[..], &selector.text(), b")"].concat()),
        );
        parts.join(&b' ')
    }

    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(&self.born.to_le_bytes())?;
        let sanitize = match self.sanitize {
            None => 0,
            Some(false) => 1,
            Some(true) => 2,
        };
        out.write_all(&[u8::from(self.on), u8::from(self.nopass), sanitize])?;
        write_length(out, self.passwords.len())?;
        self.passwords.iter().try_for_each(|hash| out.write_all(hash))?;
        write_length(out, self.selectors.len())?;
        self.selectors.iter().try_for_each(|selector| selector.write(out))
    }

    pub(super) fn read(from: &mut dyn Source) -> io::Result<Self> {
        let (born, on, nopass) = (from.counter("birth of a user")?, from.flag()?, from.flag()?);
        let sanitize = match from.u8()? {
            0 => None,
            sanitize => Some(sanitize == 2),
        };
        let mut passwords = Vec::new();
        for _ in 0..from.u32()? {
            let mut hash = Hash::default();
            for byte in &mut hash {
                *byte = from.u8()?;
            }
            passwords.push(hash);
        }
        let mut selectors = Vec::new();
        for _ in 0..from.u32()? {
            selectors.push(Selector::read(from)?);
        }
        if selectors.is_empty() {
            selectors.push(Selector::default());
        }
        Ok(Self {
            born,
            on,
            nopass,
            sanitize,
            passwords,
            selectors,
        })
    }
}

/// The rules with each selector in one piece, where it came in several arguments.
pub(super) fn merged(rules: &[Bytes]) -> Result<Vec<Vec<u8>>, String> {
    let mut whole: Vec<Vec<u8>> = Vec::new();
    let mut open: Option<(usize, Vec<u8>)> = None;
    for (nth, rule) in rules.iter().enumerate() {
        if rule.starts_with(b"(") && !rule.ends_with(b")") {
            open = Some((nth, rule.to_vec()));
        } else if let Some((_, selector)) = &mut open {
            selector.push(b' ');
            selector.extend_from_slice(rule);
            if rule.ends_with(b")") {
                whole.extend(open.take().map(|(_, selector)| selector));
            }
        } else {
            whole.push(rule.to_vec());
        }
    }
    match open {
        None => Ok(whole),
        Some((nth, _)) => Err(format!(
            "Unmatched parenthesis in acl selector starting at '{}'.",
            String::from_utf8_lossy(&rules[nth])
        )),
    }
}
