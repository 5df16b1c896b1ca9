//! The first line of a script or library that begins with `#!`: its engine, name and flags.

use crate::machine::reply::CommandError;
use std::borrow::Cow;

/// What a script says of itself, in `flags=` of its first line or in `redis.register_function`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ScriptFlags {
    /// The script writes nothing; a write is refused.
    pub(crate) no_writes: bool,
    /// It may run when memory is short.
    pub(crate) allow_oom: bool,
    /// It may run where the data may be old.
    pub(crate) allow_stale: bool,
    /// It does not run in a cluster.
    pub(crate) no_cluster: bool,
    /// Its keys may lie in several slots.
    pub(crate) allow_cross_slot_keys: bool,
    /// There is no first line with `#!`: the script is from before Redis 7 and everything is allowed.
    pub(crate) undeclared: bool,
}

impl ScriptFlags {
    /// The names, in Redis' order.
    pub(crate) const NAMES: [&'static str; 5] = [
        "no-writes",
        "allow-oom",
        "allow-stale",
        "no-cluster",
        "allow-cross-slot-keys",
    ];

    /// The names of those that are set, in Redis' order.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        let set = [
            self.no_writes,
            self.allow_oom,
            self.allow_stale,
            self.no_cluster,
            self.allow_cross_slot_keys,
        ];
        Self::NAMES
            .into_iter()
            .zip(set)
            .filter_map(|(name, set)| set.then_some(name))
    }

    /// Sets the flag with this name, if there is one.
    pub(super) fn set(&mut self, name: &[u8]) -> bool {
        let flag = match name {
            b"no-writes" => &mut self.no_writes,
            b"allow-oom" => &mut self.allow_oom,
            b"allow-stale" => &mut self.allow_stale,
            b"no-cluster" => &mut self.no_cluster,
            b"allow-cross-slot-keys" => &mut self.allow_cross_slot_keys,
            _ => return false,
        };
        *flag = true;
        true
    }
}

/// A library's first line, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The library's name.
    pub(crate) name: String,
    /// The engine's name: `lua`, in any case of letters.
    pub(crate) engine: String,
}

fn refused(text: impl Into<Cow<'static, str>>) -> CommandError {
    CommandError::Other(text.into())
}

fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// The flags of a script, and where its code begins: at the end of the first line, so that lines keep their numbers.
pub(crate) fn script(text: &[u8]) -> Result<(ScriptFlags, usize), CommandError> {
    if !text.starts_with(b"#!") {
        return Ok((
            ScriptFlags {
                undeclared: true,
                ..ScriptFlags::default()
            },
            0,
        ));
    }
    let Some(end) = first_line(text) else {
        return Err(refused("ERR Invalid script shebang"));
    };
    let parts = words(&text[..end]).filter(|parts| !parts.is_empty());
    let Some(parts) = parts else {
        return Err(refused("ERR Invalid engine in script shebang"));
    };
    if parts[0] != b"#!lua" {
        return Err(refused(format!(
            "ERR Unexpected engine in script shebang: {}",
            lossy(&parts[0])
        )));
    }
    let mut flags = ScriptFlags::default();
    for part in &parts[1..] {
        let Some(list) = part.strip_prefix(b"flags=") else {
            return Err(refused(format!(
                "ERR Unknown lua shebang option: {}",
                lossy(part)
            )));
        };
        // Redis splits nothing into nothing.
        for flag in list.split(|byte| *byte == b',').filter(|_| !list.is_empty()) {
            if !flags.set(flag) {
                return Err(refused(format!(
                    "ERR Unexpected flag in script shebang: {}",
                    lossy(flag)
                )));
            }
        }
    }
    Ok((flags, end))
}

/// A library's header, and where its code begins.
pub(crate) fn library(text: &[u8]) -> Result<(Header, usize), CommandError> {
    if !text.starts_with(b"#!") {
        return Err(refused("ERR Missing library metadata"));
    }
    let invalid = || refused("ERR Invalid library metadata");
    let end = first_line(text).ok_or_else(invalid)?;
    let parts = words(&text[..end])
        .filter(|parts| !parts.is_empty())
        .ok_or_else(invalid)?;
    let mut name = None;
    for part in &parts[1..] {
        match part.split_at_checked(5) {
            Some((key, value)) if key.eq_ignore_ascii_case(b"name=") => {
                if name.replace(value).is_some() {
                    let text = "ERR Invalid metadata value, name argument was given multiple times";
                    return Err(refused(text));
                }
            }
            _ => {
                return Err(refused(format!(
                    "ERR Invalid metadata value given: {}",
                    lossy(part)
                )));
            }
        }
    }
    let name = name.ok_or_else(|| refused("ERR Library name was not given"))?;
    if !is_name(name) {
        return Err(refused(format!("ERR Library {NAME_RULE}")));
    }
    let engine = lossy(parts[0].get(2..).unwrap_or_default()).into_owned();
    if !engine.eq_ignore_ascii_case("lua") {
        return Err(refused(format!("ERR Engine '{engine}' not found")));
    }
    Ok((
        Header {
            name: lossy(name).into_owned(),
            engine: "LUA".to_owned(),
        },
        end,
    ))
}

/// What a name must be, in Redis' words.
pub(super) const NAME_RULE: &str =
    "names can only contain letters, numbers, or underscores(_) and must be at least one character long";

/// Whether this may name a library or a function.
pub(super) fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// The length of the first line, if it ends; a NUL ends the text for Redis.
fn first_line(text: &[u8]) -> Option<usize> {
    let at = text.iter().position(|byte| matches!(byte, b'\n' | 0))?;
    (text[at] == b'\n').then_some(at)
}

/// Words between blanks, quoted as in `redis-cli`; nothing where a quote is not closed or not followed by a blank.
fn words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let is_blank = |byte: u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = &rest[rest.iter().take_while(|byte| is_blank(**byte)).count()..];
        if rest.is_empty() {
            return Some(words);
        }
        let mut word = Vec::new();
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            match first {
                byte if is_blank(byte) => break,
                b'"' | b'\'' => {
                    rest = quoted(first, rest, &mut word)?;
                    if rest.first().is_some_and(|byte| !is_blank(*byte)) {
                        return None;
                    }
                    break;
                }
                byte => word.push(byte),
            }
        }
        words.push(word);
    }
}

/// Reads up to the closing quote and gives what follows it.
fn quoted<'text>(quote: u8, text: &'text [u8], word: &mut Vec<u8>) -> Option<&'text [u8]> {
    let mut at = 0;
    loop {
        let byte = *text.get(at)?;
        at += 1;
        match (byte, text.get(at)) {
            (byte, _) if byte == quote => return Some(&text[at..]),
            (b'\\', Some(&next)) if quote == b'"' => {
                let hex = text.get(at + 1..at + 3).and_then(|digits| {
                    let digits = std::str::from_utf8(digits).ok()?;
                    u8::from_str_radix(digits, 16)
                        .ok()
                        .filter(|_| !digits.starts_with('+'))
                });
                match (next, hex) {
                    (b'x', Some(value)) => {
                        word.push(value);
                        at += 3;
                    }
                    _ => {
                        word.push(match next {
                            b'n' => b'\n',
                            b'r' => b'\r',
                            b't' => b'\t',
                            b'b' => 8,
                            b'a' => 7,
                            other => other,
                        });
                        at += 1;
                    }
                }
            }
            (b'\\', Some(b'\'')) => {
                word.push(b'\'');
                at += 1;
            }
            (byte, _) => word.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(text: &str) -> Result<Vec<&'static str>, String> {
        script(text.as_bytes())
            .map(|(flags, _)| flags.names().collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_first_line_says_what_a_script_does() {
        assert_eq!(flags("return 1"), Ok(vec![]));
        assert_eq!(flags("#!lua\nreturn 1"), Ok(vec![]));
        assert_eq!(flags("#!lua flags=\nreturn 1"), Ok(vec![]));
        assert_eq!(
            flags("#!lua flags=allow-oom,no-writes\n"),
            Ok(vec!["no-writes", "allow-oom"])
        );
        assert_eq!(flags("#!lua"), Err("ERR Invalid script shebang".to_owned()));
        assert_eq!(
            flags("#!lua \"\n"),
            Err("ERR Invalid engine in script shebang".to_owned())
        );
        assert_eq!(
            flags("#!not-lua\n"),
            Err("ERR Unexpected engine in script shebang: #!not-lua".to_owned())
        );
        assert_eq!(
            flags("#!lua badger=data\n"),
            Err("ERR Unknown lua shebang option: badger=data".to_owned())
        );
        assert_eq!(
            flags("#!lua flags=allow-what\n"),
            Err("ERR Unexpected flag in script shebang: allow-what".to_owned())
        );
    }

    #[test]
    fn a_library_says_its_name() {
        let header = |text: &str| library(text.as_bytes()).map(|(header, at)| (header.name, at));
        assert_eq!(header("#!LUA Name=my_lib\ncode"), Ok(("my_lib".to_owned(), 17)));
        for (text, refusal) in [
            ("x", "ERR Missing library metadata"),
            ("#!lua name=x", "ERR Invalid library metadata"),
            ("#!lua \"\n", "ERR Invalid library metadata"),
            ("#!lua\n", "ERR Library name was not given"),
            (
                "#!lua name=a name=b\n",
                "ERR Invalid metadata value, name argument was given multiple times",
            ),
            ("#!lua name=a foo=b\n", "ERR Invalid metadata value given: foo=b"),
            ("#!js name=a\n", "ERR Engine 'js' not found"),
            (
                "#!lua name=a-b\n",
                "ERR Library names can only contain letters, numbers, or underscores(_) and must be at least one \
                 character long",
            ),
        ] {
            assert_eq!(
                header(text).map_err(|error| error.to_string()),
                Err(refusal.to_owned()),
                "{text}"
            );
        }
    }
}
