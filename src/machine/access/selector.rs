//! A set of permissions: which commands, on which keys and channels. A user has one, and may have more in parentheses.

use super::category;
use super::user::{RuleError, is_space};
use crate::machine::glob;
use crate::machine::interface::{KeyUse, key_uses};
use crate::machine::snapshot::{Source, write_bytes, write_length};
use crate::machine::table::{self, Spec};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::sync::LazyLock;

/// Words of 64 commands each: room for more commands than there are.
const WORDS: usize = 16;

/// A set of permissions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selector {
    all_keys: bool,
    all_channels: bool,
    /// `+@all`, and nothing was taken away since.
    all_commands: bool,
    /// `+@all` was the last to speak of all commands: those that come later are allowed.
    future: bool,
    allowed: Commands,
    /// First arguments with which a command is allowed that is not allowed else.
    first_arguments: BTreeMap<usize, Vec<Bytes>>,
    keys: Vec<KeyPattern>,
    channels: Vec<Bytes>,
}

/// Keys that may be used.
#[derive(Clone, Debug, PartialEq)]
struct KeyPattern {
    pattern: Bytes,
    read: bool,
    write: bool,
}

/// Commands, by their place in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Commands([u64; WORDS]);

impl Commands {
    const ALL: Self = Self([u64::MAX; WORDS]);

    fn has(&self, id: usize) -> bool {
        self.0[id / 64] & (1 << (id % 64)) != 0
    }

    fn set(&mut self, id: usize, allowed: bool) {
        let (word, bit) = (&mut self.0[id / 64], 1 << (id % 64));
        if allowed { *word |= bit } else { *word &= !bit }
    }
}

/// What selectors ask of a row of the table, read once.
struct Facts {
    spec: Spec,
    categories: u32,
    /// The places of its subcommands.
    children: Vec<usize>,
    is_child: bool,
}

static FACTS: LazyLock<Vec<Facts>> = LazyLock::new(|| {
    let rows: Vec<Spec> = table::all().collect();
    assert!(rows.len() < WORDS * 64, "more commands than bits: raise WORDS");
    let facts = |spec: &Spec| Facts {
        spec: *spec,
        categories: category::bits(spec),
        children: rows
            .iter()
            .filter(|other| {
                other
                    .name
                    .split_once('|')
                    .is_some_and(|(container, _)| container == spec.name)
            })
            .map(|other| other.id)
            .collect(),
        is_child: spec.name.contains('|'),
    };
    rows.iter().map(facts).collect()
});

/// What a user may not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denied {
    /// Run this command.
    Command,
    /// Use the key at this position.
    Key(usize),
    /// Use the channel at this position.
    Channel(usize),
}

impl Selector {
    pub(super) fn new(all_channels: bool) -> Self {
        Self {
            all_channels,
            ..Self::default()
        }
    }

    pub(super) fn all_powerful() -> Self {
        Self {
            all_keys: true,
            all_channels: true,
            all_commands: true,
            future: true,
            allowed: Commands::ALL,
            ..Self::default()
        }
    }

    /// Whether it allows everything.
    pub fn is_unlimited(&self) -> bool {
        self.all_keys && self.all_channels && self.all_commands
    }

    /// One rule.
    pub(super) fn apply(&mut self, rule: &[u8]) -> Result<(), RuleError> {
        match rule.to_ascii_lowercase().as_slice() {
            b"allkeys" | b"~*" => (self.all_keys, self.keys) = (true, Vec::new()),
            b"resetkeys" => (self.all_keys, self.keys) = (false, Vec::new()),
            b"allchannels" | b"&*" => (self.all_channels, self.channels) = (true, Vec::new()),
            b"resetchannels" => (self.all_channels, self.channels) = (false, Vec::new()),
            b"allcommands" | b"+@all" => self.set_all(true),
            b"nocommands" | b"-@all" => self.set_all(false),
            _ => match rule {
                [b'~', pattern @ ..] => self.add_keys(pattern, true, true)?,
                [b'%', rest @ ..] => self.add_keys_of(rest)?,
                [b'&', pattern @ ..] => self.add_channel(pattern)?,
                [sign @ (b'+' | b'-'), b'@', name @ ..] => self.set_category(name, *sign == b'+')?,
                [b'+', name @ ..] => self.allow(name)?,
                [b'-', name @ ..] => {
                    let id = id_of(name).ok_or(RuleError::Unknown)?;
                    self.set_family(id, false);
                }
                _ => return Err(RuleError::Syntax),
            },
        }
        Ok(())
    }

    fn set_all(&mut self, allowed: bool) {
        self.allowed = if allowed {
            Commands::ALL
        } else {
            Commands::default()
        };
        (self.all_commands, self.future) = (allowed, allowed);
        self.first_arguments.clear();
    }

    /// `%RW~pattern`: letters, then the pattern.
    fn add_keys_of(&mut self, rest: &[u8]) -> Result<(), RuleError> {
        let letters = rest
            .iter()
            .position(|byte| *byte == b'~')
            .ok_or(RuleError::Syntax);
        if self.all_keys {
            return Err(RuleError::KeysAfterAll);
        }
        let (letters, pattern) = rest.split_at(letters?);
        let (mut read, mut write) = (false, false);
        for letter in letters {
            match letter.to_ascii_uppercase() {
                b'R' if !read => read = true,
                b'W' if !write => write = true,
                _ => return Err(RuleError::Syntax),
            }
        }
        if !read && !write {
            return Err(RuleError::Syntax);
        }
        self.add_keys(&pattern[1..], read, write)
    }

    fn add_keys(&mut self, pattern: &[u8], read: bool, write: bool) -> Result<(), RuleError> {
        if self.all_keys {
            return Err(RuleError::KeysAfterAll);
        }
        if pattern.iter().any(|byte| is_space(*byte)) {
            return Err(RuleError::Syntax);
        }
        match self.keys.iter_mut().find(|known| known.pattern == pattern) {
            Some(known) => (known.read, known.write) = (known.read | read, known.write | write),
            None => self.keys.push(KeyPattern {
                pattern: Bytes::copy_from_slice(pattern),
                read,
                write,
            }),
        }
        Ok(())
    }

    fn add_channel(&mut self, pattern: &[u8]) -> Result<(), RuleError> {
        if self.all_channels {
            return Err(RuleError::ChannelsAfterAll);
        }
        if pattern.iter().any(|byte| is_space(*byte)) {
            return Err(RuleError::Syntax);
        }
        if !self.channels.iter().any(|known| known == pattern) {
            self.channels.push(Bytes::copy_from_slice(pattern));
        }
        Ok(())
    }

    fn set_category(&mut self, name: &[u8], allowed: bool) -> Result<(), RuleError> {
        let bit = std::str::from_utf8(name)
            .ok()
            .and_then(category::bit)
            .ok_or(RuleError::Unknown)?;
        let members = FACTS.iter().filter(|facts| facts.categories & bit != 0);
        members.for_each(|facts| self.set_family(facts.spec.id, allowed));
        Ok(())
    }

    /// `+name`, `+container|sub`, or `+name|argument`.
    fn allow(&mut self, name: &[u8]) -> Result<(), RuleError> {
        let Some(bar) = name.iter().rposition(|byte| *byte == b'|') else {
            let id = id_of(name).ok_or(RuleError::Unknown)?;
            self.set_family(id, true);
            return Ok(());
        };
        let (container, argument) = (&name[..bar], &name[bar + 1..]);
        let id = id_of(container).ok_or(RuleError::Unknown)?;
        if FACTS[id].is_child {
            return Err(RuleError::FirstArgumentOfSubcommand);
        }
        if argument.is_empty() {
            return Err(RuleError::Syntax);
        }
        if FACTS[id].children.is_empty() {
            let arguments = self.first_arguments.entry(id).or_default();
            if !arguments.iter().any(|known| known.eq_ignore_ascii_case(argument)) {
                arguments.push(Bytes::copy_from_slice(argument));
            }
        } else {
            let id = id_of(name).ok_or(RuleError::Unknown)?;
            self.set_family(id, true);
        }
        Ok(())
    }

    /// Whether every first argument is a word of [`Selector::commands_text`].
    pub(super) fn is_writable(&self) -> bool {
        self.first_arguments.values().flatten().all(is_word)
    }

    /// Makes it what a snapshot makes of it.
    pub(super) fn read_again(&mut self) {
        let (text, all_commands) = (self.commands_text(), self.all_commands);
        *self = Self {
            all_keys: self.all_keys,
            keys: std::mem::take(&mut self.keys),
            all_channels: self.all_channels,
            channels: std::mem::take(&mut self.channels),
            ..Self::default()
        };
        self.read_commands(text.as_bytes(), all_commands);
    }

    /// A command with its subcommands.
    fn set_family(&mut self, id: usize, allowed: bool) {
        self.all_commands &= allowed;
        self.first_arguments.remove(&id);
        self.allowed.set(id, allowed);
        FACTS[id]
            .children
            .iter()
            .for_each(|child| self.allowed.set(*child, allowed));
    }

    /// Whether a command may run, and if not, why. `uses`: its keys, looked for at the first need.
    pub(super) fn permits(
        &self,
        spec: &Spec,
        argv: &[Bytes],
        uses: &std::cell::OnceCell<Vec<KeyUse>>,
    ) -> Result<(), Denied> {
        if !self.all_commands && !spec.flags.contains("no_auth") && !self.permits_command(spec, argv) {
            return Err(Denied::Command);
        }
        if !self.all_keys {
            for key in uses.get_or_init(|| key_uses(spec, argv)) {
                if !self.permits_key(&argv[key.at], key.reads(), key.writes()) {
                    return Err(Denied::Key(key.at));
                }
            }
        }
        let (from, to, literal) = channels_of(spec, argv);
        let denied = (from..to).find(|at| !self.permits_channel(&argv[*at], literal));
        denied.map_or(Ok(()), |at| Err(Denied::Channel(at)))
    }

    fn permits_command(&self, spec: &Spec, argv: &[Bytes]) -> bool {
        if self.allowed.has(spec.id) {
            return true;
        }
        let first = argv.get(if FACTS[spec.id].is_child { 2 } else { 1 });
        let arguments = self.first_arguments.get(&spec.id);
        first
            .zip(arguments)
            .is_some_and(|(first, arguments)| arguments.iter().any(|known| known.eq_ignore_ascii_case(first)))
    }

    fn permits_key(&self, key: &[u8], read: bool, write: bool) -> bool {
        let fits = |pattern: &KeyPattern| {
            (pattern.read || !read) && (pattern.write || !write) && glob::matches(&pattern.pattern, key)
        };
        self.all_keys || self.keys.iter().any(fits)
    }

    /// Whether every key may be read.
    pub(super) fn reads_all_keys(&self) -> bool {
        self.all_keys
            || self
                .keys
                .iter()
                .any(|pattern| pattern.read && pattern.pattern.as_ref() == b"*")
    }

    /// Whether a channel may be used; where it is a pattern (`literal`), only if it is one of ours itself.
    pub(super) fn permits_channel(&self, channel: &[u8], literal: bool) -> bool {
        let fits = |pattern: &Bytes| {
            if literal {
                pattern == channel
            } else {
                glob::matches(pattern, channel)
            }
        };
        self.all_channels || self.channels.iter().any(fits)
    }

    /// The keys as rules.
    pub fn keys_text(&self) -> Vec<u8> {
        if self.all_keys {
            return b"~*".to_vec();
        }
        let shown = self.keys.iter().map(|key| {
            let sign: &[u8] = match (key.read, key.write) {
                (true, true) => b"~",
                (true, false) => b"%R~",
                (false, true) => b"%W~",
                (false, false) => b"%~",
            };
            [sign, &key.pattern].concat()
        });
        shown.collect::<Vec<_>>().join(&b' ')
    }

    /// The channels as rules.
    pub fn channels_text(&self) -> Vec<u8> {
        if self.all_channels {
            return b"&*".to_vec();
        }
        let shown = self.channels.iter().map(|channel| [b"&", &channel[..]].concat());
        shown.collect::<Vec<_>>().join(&b' ')
    }

    /// The commands as rules: all or none, then the categories that come nearest, then single ones.
    pub fn commands_text(&self) -> String {
        let mut rules = vec![if self.future { "+@all" } else { "-@all" }.to_owned()];
        let mut reached = Self::default();
        reached.set_all(self.future);
        // Categories are taken out of this as they are written.
        let mut left = self.allowed;
        let mut written = 0;
        while let Some((bit, name)) = self.nearest_category(&left, written) {
            let sign = if self.future { '-' } else { '+' };
            rules.push(format!("{sign}@{name}"));
            written |= bit;
            for facts in FACTS.iter().filter(|facts| facts.categories & bit != 0) {
                reached.set_family(facts.spec.id, !self.future);
                left.set(facts.spec.id, self.future);
                facts
                    .children
                    .iter()
                    .for_each(|child| left.set(*child, self.future));
            }
        }
        for facts in FACTS.iter().filter(|facts| !facts.is_child) {
            self.write_single(facts, &mut reached, &mut rules);
            for child in &facts.children {
                self.write_single(&FACTS[*child], &mut reached, &mut rules);
            }
            for argument in self.first_arguments.get(&facts.spec.id).into_iter().flatten() {
                rules.push(format!(
                    "+{}|{}",
                    facts.spec.name.to_ascii_lowercase(),
                    String::from_utf8_lossy(argument)
                ));
            }
        }
        rules.join(" ")
    }

    /// The category of which most is wanted and least is not, if more is wanted than not.
    fn nearest_category(&self, left: &Commands, written: u32) -> Option<(u32, &'static str)> {
        let mut best: Option<(usize, usize, u32, &'static str)> = None;
        for (place, name) in category::CATEGORIES.into_iter().enumerate() {
            let bit = 1u32 << place;
            let members = FACTS.iter().filter(|facts| facts.categories & bit != 0);
            let (on, off): (Vec<_>, Vec<_>) = members.partition(|facts| left.has(facts.spec.id));
            let (same, different) = if self.future {
                (off.len(), on.len())
            } else {
                (on.len(), off.len())
            };
            let better =
                best.is_none_or(|(least, most, ..)| different < least || (different == least && same > most));
            if written & bit == 0 && same > different && better {
                best = Some((different, same, bit, name));
            }
        }
        best.map(|(_, _, bit, name)| (bit, name))
    }

    fn write_single(&self, facts: &Facts, reached: &mut Self, rules: &mut Vec<String>) {
        let (id, allowed) = (facts.spec.id, self.allowed.has(facts.spec.id));
        if allowed != reached.allowed.has(id) {
            let sign = if allowed { '+' } else { '-' };
            rules.push(format!("{sign}{}", facts.spec.name.to_ascii_lowercase()));
            reached.set_family(id, allowed);
        }
    }

    /// Everything as rules.
    pub(super) fn text(&self) -> Vec<u8> {
        let mut parts = vec![self.keys_text()];
        if self.all_channels {
            parts.push(b"&*".to_vec());
        } else {
            parts.push(b"resetchannels".to_vec());
            parts.push(self.channels_text());
        }
        parts.push(self.commands_text().into_bytes());
        parts.retain(|part| !part.is_empty());
        parts.join(&b' ')
    }

    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(&[
            u8::from(self.all_keys),
            u8::from(self.all_channels),
            u8::from(self.all_commands),
        ])?;
        write_length(out, self.keys.len())?;
        for key in &self.keys {
            out.write_all(&[u8::from(key.read), u8::from(key.write)])?;
            write_bytes(out, &key.pattern)?;
        }
        write_length(out, self.channels.len())?;
        self.channels
            .iter()
            .try_for_each(|channel| write_bytes(out, channel))?;
        // By their names: the places of commands differ between versions.
        write_bytes(out, self.commands_text().as_bytes())
    }

    pub(super) fn read(from: &mut dyn Source) -> io::Result<Self> {
        let (all_keys, all_channels, all_commands) = (from.flag()?, from.flag()?, from.flag()?);
        let mut selector = Self {
            all_keys,
            all_channels,
            ..Self::default()
        };
        for _ in 0..from.u32()? {
            let (read, write, pattern) = (from.flag()?, from.flag()?, from.bytes()?);
            selector.keys.push(KeyPattern { pattern, read, write });
        }
        for _ in 0..from.u32()? {
            selector.channels.push(from.bytes()?);
        }
        selector.read_commands(&from.bytes()?, all_commands);
        Ok(selector)
    }

    /// Allows what [`Selector::commands_text`] says.
    fn read_commands(&mut self, text: &[u8], all_commands: bool) {
        for rule in text.split(|byte| *byte == b' ') {
            // A command that this version does not know cannot be called here either.
            let _ = self.apply(rule);
        }
        self.all_commands = all_commands;
    }
}

/// Whether it is still the same where rules are text, split at spaces.
fn is_word(argument: &Bytes) -> bool {
    std::str::from_utf8(argument).is_ok() && !argument.iter().any(|byte| is_space(*byte))
}

/// The place of a command by its name in any case, `container|sub` included.
fn id_of(name: &[u8]) -> Option<usize> {
    let name = std::str::from_utf8(name).ok()?.to_ascii_uppercase();
    table::by_name(&name).map(|spec| spec.id)
}

/// The channels among the arguments: from, to, and whether they are patterns.
fn channels_of(spec: &Spec, argv: &[Bytes]) -> (usize, usize, bool) {
    match spec.name {
        "PUBLISH" | "SPUBLISH" => (1, argv.len().min(2), false),
        "SUBSCRIBE" | "SSUBSCRIBE" => (1, argv.len(), false),
        "PSUBSCRIBE" => (1, argv.len(), true),
        _ => (0, 0, false),
    }
}
