//! Replies to Lua values and back, by Redis' rules: RESP2 unless the script chose RESP3 with `redis.setresp`.

use super::number::{general, to_text, truncate};
use super::raise;
use crate::machine::reply::{CommandError, Reply, coordinate_text};
use crate::machine::value::counted::counted;
use bytes::Bytes;
use mlua::{IntoLua, Lua, LuaString, MultiValue, Table, Value};
use std::borrow::Cow;

/// How deep a value may be nested that a script answers. Redis gives up where Lua's stack ends; here the stack that counts is that
/// of whoever encodes the reply and reads it from the log, where the list of a transaction may be around it.
const DEPTH: usize = Reply::DEPTH_MAX - 1;

/// What an answer may take in memory, as a multiple of what its Lua state may. A table that holds itself or one thing many times comes to more
/// than it is, to no end; what a state holds once always fits.
const REPLY_SHARE: usize = 4;

/// The most digits Redis prints of a double.
const DOUBLE_DIGITS: usize = 17;

/// What a value takes in a Lua state beside its text: its place in a table that has just grown, the table that it is or that says what it is.
const VALUE_BYTES: usize = 256;

/// What reading a value takes of its Lua state: the names of the fields that are looked for.
pub(super) const READING_BYTES: usize = 4 << 10;

/// Makes or reads values of a Lua state, which takes so many bytes of it. Where these are far from its limit, the limit is off meanwhile: mlua
/// guards each step that may meet it by a call that costs several times what the step does. Nothing of a script runs meanwhile.
pub(super) fn with_room<R>(
    lua: &Lua,
    bytes_max: usize,
    bytes: usize,
    work: impl FnOnce() -> mlua::Result<R>,
) -> mlua::Result<R> {
    if lua.used_memory().saturating_add(bytes) > bytes_max / 2 {
        return work();
    }
    lua.set_memory_limit(0)?;
    let worked = work();
    lua.set_memory_limit(bytes_max)?;
    worked
}

/// The bytes of texts in a Lua state, at most.
pub(super) fn texts_bytes(texts: &[Bytes]) -> usize {
    texts.iter().map(|text| VALUE_BYTES + text.len()).sum()
}

/// The bytes of a command's reply in a Lua state, at most.
pub(super) fn reply_bytes(reply: &Reply) -> usize {
    let text = match reply {
        Reply::Bulk(text) | Reply::Verbatim(text) | Reply::BigNumber(text) => text.len(),
        Reply::Simple(text) => text.len(),
        Reply::Array(items) | Reply::Set(items) => items.iter().map(reply_bytes).sum(),
        Reply::Map(pairs) | Reply::Pairs(pairs) | Reply::Streams(pairs) => pairs
            .iter()
            .map(|(left, right)| VALUE_BYTES + reply_bytes(left) + reply_bytes(right))
            .sum(),
        Reply::Error(error) => error_text(error).len(),
        _ => 0,
    };
    VALUE_BYTES + text
}

/// A list of lists of two.
fn pairs_in_list(lua: &Lua, pairs: &[(Reply, Reply)], resp3: bool) -> mlua::Result<Value> {
    let list = lua.create_table_with_capacity(pairs.len(), 0)?;
    for (index, (left, right)) in pairs.iter().enumerate() {
        let pair = lua.create_table_with_capacity(2, 0)?;
        pair.raw_set(1, to_lua(lua, left, resp3)?)?;
        pair.raw_set(2, to_lua(lua, right, resp3)?)?;
        list.raw_set(index + 1, pair)?;
    }
    list.into_lua(lua)
}

/// A command's reply as the script gets it.
pub(super) fn to_lua(lua: &Lua, reply: &Reply, resp3: bool) -> mlua::Result<Value> {
    match reply {
        Reply::Simple(text) => tagged(lua, "ok", lua.create_string(text.as_bytes())?),
        Reply::Error(error) => {
            raise::refusal_table(lua, error_text(error).as_bytes(), true).map(Value::Table)
        }
        Reply::Integer(number) => Ok(Value::Number(*number as f64)),
        Reply::Bulk(bytes) => lua.create_string(bytes)?.into_lua(lua),
        Reply::Nil | Reply::NilArray | Reply::Waiting(_) => {
            Ok(if resp3 { Value::Nil } else { Value::Boolean(false) })
        }
        Reply::Array(items) => array(lua, items, resp3).map(Value::Table),
        Reply::Set(items) if resp3 => {
            // Grown step by step as Redis does it: the order in which `pairs` walks a table depends on that.
            let set = lua.create_table()?;
            for item in items {
                set.raw_set(to_lua(lua, item, true)?, true)?;
            }
            tagged(lua, "set", set)
        }
        Reply::Set(items) => array(lua, items, false).map(Value::Table),
        Reply::Map(pairs) | Reply::Streams(pairs) if resp3 => {
            let map = lua.create_table()?;
            for (key, value) in pairs {
                map.raw_set(to_lua(lua, key, true)?, to_lua(lua, value, true)?)?;
            }
            tagged(lua, "map", map)
        }
        Reply::Streams(pairs) => pairs_in_list(lua, pairs, false),
        Reply::Pairs(pairs) if resp3 => pairs_in_list(lua, pairs, true),
        Reply::Map(pairs) | Reply::Pairs(pairs) => {
            let flat = lua.create_table_with_capacity(pairs.len() * 2, 0)?;
            for (index, item) in pairs.iter().flat_map(|(left, right)| [left, right]).enumerate() {
                flat.raw_set(index + 1, to_lua(lua, item, false)?)?;
            }
            flat.into_lua(lua)
        }
        Reply::Coordinate(number) if !resp3 => lua.create_string(coordinate_text(*number))?.into_lua(lua),
        Reply::Double(number) | Reply::Coordinate(number) if resp3 => tagged(lua, "double", *number),
        Reply::Double(number) | Reply::Coordinate(number) => {
            lua.create_string(general(*number, DOUBLE_DIGITS))?.into_lua(lua)
        }
        Reply::Boolean(yes) if resp3 => Ok(Value::Boolean(*yes)),
        Reply::Boolean(yes) => Ok(Value::Integer(i64::from(*yes))),
        Reply::Verbatim(text) if resp3 => {
            let verbatim = lua.create_table_with_capacity(0, 2)?;
            verbatim.raw_set("string", lua.create_string(text)?)?;
            verbatim.raw_set("format", "txt")?;
            tagged(lua, "verbatim_string", verbatim)
        }
        Reply::Verbatim(text) => lua.create_string(text)?.into_lua(lua),
        Reply::BigNumber(digits) if resp3 => tagged(lua, "big_number", lua.create_string(digits)?),
        Reply::BigNumber(digits) => lua.create_string(digits)?.into_lua(lua),
    }
}

fn tagged(lua: &Lua, tag: &str, value: impl IntoLua) -> mlua::Result<Value> {
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set(tag, value)?;
    table.into_lua(lua)
}

fn array(lua: &Lua, items: &[Reply], resp3: bool) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(items.len(), 0)?;
    for (index, item) in items.iter().enumerate() {
        table.raw_set(index + 1, to_lua(lua, item, resp3)?)?;
    }
    Ok(table)
}

/// A refusal's text as a script sees it: one that is a single word gets `ERR` before it, as Redis takes it for a message.
pub(super) fn error_text(error: &CommandError) -> String {
    let text = error.to_string();
    let text = text.trim_matches(['\r', '\n']);
    if text.contains(' ') {
        text.to_owned()
    } else {
        format!("ERR {text}")
    }
}

/// What a script answers, as its client gets it. `bytes_max` is the memory of its Lua state.
pub(super) fn to_reply(value: &Value, resp3: bool, bytes_max: usize) -> Reply {
    let room = bytes_max.saturating_mul(REPLY_SHARE);
    let reply = Answer { resp3, room }.nested(value, DEPTH);
    reply.unwrap_or_else(|| refused("ERR the script's answer is too large"))
}

/// An answer as it is built; none where it is too large.
struct Answer {
    resp3: bool,
    /// Bytes it may still take.
    room: usize,
}

impl Answer {
    fn take(&mut self, bytes: usize) -> Option<()> {
        self.room = self.room.checked_sub(bytes)?;
        Some(())
    }

    fn bulk(&mut self, text: &LuaString) -> Option<Bytes> {
        let text = text.as_bytes();
        self.take(text.len())?;
        Some(Bytes::copy_from_slice(&text))
    }

    fn nested(&mut self, value: &Value, depth: usize) -> Option<Reply> {
        self.take(size_of::<Reply>())?;
        let Some(depth) = depth.checked_sub(1) else {
            return Some(refused("ERR reached lua stack limit"));
        };
        Some(match value {
            Value::String(text) => Reply::Bulk(self.bulk(text)?),
            Value::Integer(number) => Reply::Integer(*number),
            Value::Number(number) => Reply::Integer(truncate(*number)),
            Value::Boolean(yes) if self.resp3 => Reply::Boolean(*yes),
            Value::Boolean(true) => Reply::Integer(1),
            Value::Table(table) => self.of_table(table, depth)?,
            _ => Reply::Nil,
        })
    }

    /// The first of these fields that is there says what the table means; without one it is a list.
    fn of_table(&mut self, table: &Table, depth: usize) -> Option<Reply> {
        let field = |name: &str| table.raw_get::<Value>(name).unwrap_or(Value::Nil);
        if let Value::String(_) = field("err") {
            let text = text_field(table, "err").unwrap_or_default();
            self.take(text.len())?;
            return Some(refused(&text));
        }
        if let Value::String(ok) = field("ok") {
            self.take(ok.as_bytes().len())?;
            return Some(Reply::Simple(Cow::Owned(one_line(&ok))));
        }
        match field("double") {
            Value::Integer(number) => return Some(Reply::Double(number as f64)),
            Value::Number(number) => return Some(Reply::Double(number)),
            _ => {}
        }
        if let Value::String(digits) = field("big_number") {
            self.take(digits.as_bytes().len())?;
            return Some(Reply::BigNumber(one_line(&digits).into()));
        }
        if let Value::Table(verbatim) = field("verbatim_string") {
            let parts = (
                verbatim.raw_get::<Value>("format"),
                verbatim.raw_get::<Value>("string"),
            );
            if let (Ok(Value::String(_)), Ok(Value::String(text))) = parts {
                return Some(Reply::Verbatim(self.bulk(&text)?));
            }
        }
        if let Value::Table(map) = field("map") {
            let pairs = map.pairs::<Value, Value>().flatten();
            let pair = |(key, value)| Some((self.nested(&key, depth)?, self.nested(&value, depth)?));
            return pairs.map(pair).collect::<Option<_>>().map(Reply::Map);
        }
        if let Value::Table(set) = field("set") {
            let pairs = set.pairs::<Value, Value>().flatten();
            let key = |(key, _)| self.nested(&key, depth);
            return pairs.map(key).collect::<Option<_>>().map(Reply::Set);
        }
        let mut items = Vec::new();
        for index in 1.. {
            match table.raw_get::<Value>(index) {
                Ok(Value::Nil) | Err(_) => break,
                Ok(item) => items.push(self.nested(&item, depth)?),
            }
        }
        Some(Reply::Array(items))
    }
}

fn one_line(text: &LuaString) -> String {
    text.to_string_lossy().replace(['\r', '\n'], " ")
}

/// A field that is a string or a number, as text.
pub(super) fn text_field(table: &Table, name: &str) -> Option<String> {
    match table.get::<Value>(name).ok()? {
        Value::String(text) => Some(text.to_string_lossy()),
        number @ (Value::Integer(_) | Value::Number(_)) => Some(to_text(&number)),
        _ => None,
    }
}

/// A refusal with this text, on one line.
pub(super) fn refused(text: &str) -> Reply {
    let text = text.trim_matches(['\r', '\n']).replace(['\r', '\n'], " ");
    Reply::Error(CommandError::Other(Cow::Owned(text)))
}

/// The arguments of `redis.call`: strings, and numbers with all the digits they have; at most so many bytes.
///
/// # Errors
/// Redis' text for what is neither, and ours for more.
pub(super) fn arguments(values: &MultiValue, bytes_max: usize) -> Result<Vec<Bytes>, &'static str> {
    let mut room = bytes_max;
    let argument = |value: &Value| {
        Ok(match value {
            Value::String(text) => {
                let text = text.as_bytes();
                // One string may stand there many times.
                room = room
                    .checked_sub(text.len())
                    .ok_or("Lua redis lib command arguments are too large")?;
                // A key is remembered, a write goes into the log: it will be shared.
                counted(&text)
            }
            Value::Integer(number) if number.unsigned_abs() < 100_000_000_000_000_000 => {
                Bytes::from(number.to_string())
            }
            Value::Integer(number) => Bytes::from(general(*number as f64, DOUBLE_DIGITS)),
            Value::Number(number) => Bytes::from(general(*number, DOUBLE_DIGITS)),
            _ => return Err("Lua redis lib command arguments must be strings or integers"),
        })
    };
    values.iter().map(argument).collect()
}
