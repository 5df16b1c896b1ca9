//! `cjson`: Lua values as JSON and back, as lua-cjson 2.1.0 has them, with its settings and its error texts.

use super::number::{general, low, read_float};
use super::raise::{Args, error, type_name};
use super::sandbox::Shared;
use mlua::{IntoLua, LightUserData, Lua, LuaString, MultiValue, Table, Value};
use std::cell::Cell;
use std::ffi::c_void;
use std::rc::Rc;

/// How deep values may nest whatever the settings say. In Redis the end of Lua's stack is the bound, at about this depth.
const DEPTH: i32 = 3_900;

/// What a script can set. Each run begins with the defaults, so that no script depends on those before it.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    sparse_convert: Cell<bool>,
    sparse_ratio: Cell<i32>,
    sparse_safe: Cell<i32>,
    encode_depth: Cell<i32>,
    decode_depth: Cell<i32>,
    encode_invalid: Cell<usize>,
    decode_invalid: Cell<bool>,
    precision: Cell<i32>,
    keep_buffer: Cell<bool>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sparse_convert: Cell::new(false),
            sparse_ratio: Cell::new(2),
            sparse_safe: Cell::new(10),
            encode_depth: Cell::new(1_000),
            decode_depth: Cell::new(1_000),
            encode_invalid: Cell::new(INVALID_OFF),
            decode_invalid: Cell::new(true),
            precision: Cell::new(14),
            keep_buffer: Cell::new(true),
        }
    }
}

impl Settings {
    /// Back to the defaults.
    pub(super) fn reset(&self) {
        let new = Self::default();
        self.sparse_convert.set(new.sparse_convert.get());
        self.sparse_ratio.set(new.sparse_ratio.get());
        self.sparse_safe.set(new.sparse_safe.get());
        self.encode_depth.set(new.encode_depth.get());
        self.decode_depth.set(new.decode_depth.get());
        self.encode_invalid.set(new.encode_invalid.get());
        self.decode_invalid.set(new.decode_invalid.get());
        self.precision.set(new.precision.get());
        self.keep_buffer.set(new.keep_buffer.get());
    }
}

/// How `encode_invalid_numbers` names what becomes of infinity and what is no number.
const INVALID: [&str; 3] = ["off", "on", "null"];
const INVALID_OFF: usize = 0;
const INVALID_NULL: usize = 2;
const SWITCH: [&str; 2] = ["off", "on"];

fn null() -> Value {
    Value::LightUserData(LightUserData(std::ptr::null_mut::<c_void>()))
}

/// The table `cjson`.
pub(super) fn table(lua: &Lua, settings: &Rc<Settings>, shared: &Shared) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let (at, with) = (Rc::clone(settings), shared.clone());
    let encode = move |lua: &Lua, values| encode(lua, &at, &with, values);
    table.raw_set("encode", lua.create_function(encode)?)?;
    let (at, with) = (Rc::clone(settings), shared.clone());
    let decode = move |lua: &Lua, values| decode(lua, &at, &with, values);
    table.raw_set("decode", lua.create_function(decode)?)?;
    add_settings(lua, &table, settings)?;
    let with = shared.clone();
    let new = move |lua: &Lua, _: MultiValue| self::table(lua, &Rc::default(), &with);
    table.raw_set("new", lua.create_function(new)?)?;
    table.raw_set("null", null())?;
    table.raw_set("_NAME", "cjson")?;
    table.raw_set("_VERSION", "2.1.0")?;
    Ok(table)
}

fn add_settings(lua: &Lua, table: &Table, settings: &Rc<Settings>) -> mlua::Result<()> {
    let at = Rc::clone(settings);
    let sparse = lua.create_function(move |lua, values| {
        let args = at_most(lua, values, 3)?;
        let convert = switch(&args, &at.sparse_convert)?;
        let ratio = integer(&args, 2, &at.sparse_ratio, 0, i32::MAX)?;
        let safe = integer(&args, 3, &at.sparse_safe, 0, i32::MAX)?;
        Ok((convert, ratio, safe))
    })?;
    table.raw_set("encode_sparse_array", sparse)?;
    type Integer = (&'static str, fn(&Settings) -> &Cell<i32>, i32);
    let integers: [Integer; 3] = [
        ("encode_max_depth", |settings| &settings.encode_depth, i32::MAX),
        ("decode_max_depth", |settings| &settings.decode_depth, i32::MAX),
        ("encode_number_precision", |settings| &settings.precision, 14),
    ];
    for (name, setting, greatest) in integers {
        let at = Rc::clone(settings);
        let function = lua.create_function(move |lua, values| {
            integer(&at_most(lua, values, 1)?, 1, setting(&at), 1, greatest)
        })?;
        table.raw_set(name, function)?;
    }
    type Switch = (&'static str, fn(&Settings) -> &Cell<bool>);
    let switches: [Switch; 2] = [
        ("encode_keep_buffer", |settings| &settings.keep_buffer),
        ("decode_invalid_numbers", |settings| &settings.decode_invalid),
    ];
    for (name, setting) in switches {
        let at = Rc::clone(settings);
        let function =
            lua.create_function(move |lua, values| switch(&at_most(lua, values, 1)?, setting(&at)))?;
        table.raw_set(name, function)?;
    }
    let at = Rc::clone(settings);
    let invalid = lua.create_function(move |lua, values| {
        let args = at_most(lua, values, 1)?;
        at.encode_invalid
            .set(option(&args, at.encode_invalid.get(), &INVALID)?);
        match at.encode_invalid.get() {
            INVALID_NULL => INVALID[INVALID_NULL].into_lua(lua),
            other => (other != INVALID_OFF).into_lua(lua),
        }
    })?;
    table.raw_set("encode_invalid_numbers", invalid)
}

fn at_most(lua: &Lua, values: MultiValue, count: usize) -> mlua::Result<Args<'_>> {
    let args = Args::new(lua, values);
    if args.count() > count {
        return Err(args.bad(count + 1, "found too many arguments"));
    }
    Ok(args)
}

fn integer(
    args: &Args<'_>,
    number: usize,
    setting: &Cell<i32>,
    least: i32,
    greatest: i32,
) -> mlua::Result<i32> {
    if !args.is_none_or_nil(number) {
        let value = low(args.integer(number)?);
        if !(least..=greatest).contains(&value) {
            return Err(args.bad(1, &format!("expected integer between {least} and {greatest}")));
        }
        setting.set(value);
    }
    Ok(setting.get())
}

fn switch(args: &Args<'_>, setting: &Cell<bool>) -> mlua::Result<bool> {
    setting.set(option(args, usize::from(setting.get()), &SWITCH)? == 1);
    Ok(setting.get())
}

/// One of these names, or a boolean for the first two.
fn option(args: &Args<'_>, setting: usize, names: &[&str]) -> mlua::Result<usize> {
    match args.get(1) {
        Value::Nil => Ok(setting),
        Value::Boolean(yes) => Ok(usize::from(*yes)),
        _ => {
            let name = args.string(1)?.to_string_lossy();
            let found = names.iter().position(|known| *known == name);
            found.ok_or_else(|| args.bad(1, &format!("invalid option '{name}'")))
        }
    }
}

fn one<'a>(args: &'a Args<'_>) -> mlua::Result<&'a Value> {
    match args.values() {
        [value] => Ok(value),
        _ => Err(args.bad(1, "expected 1 argument")),
    }
}

fn encode(lua: &Lua, settings: &Settings, shared: &Shared, values: MultiValue) -> mlua::Result<LuaString> {
    let args = Args::new(lua, values);
    let value = one(&args)?;
    let mut encoder = Encoder {
        lua,
        settings,
        shared,
        out: Vec::new(),
    };
    encoder.value(value, 0)?;
    lua.create_string(encoder.out)
}

struct Encoder<'a> {
    lua: &'a Lua,
    settings: &'a Settings,
    shared: &'a Shared,
    out: Vec<u8>,
}

impl Encoder<'_> {
    fn refused(&self, value: &Value, why: &str) -> mlua::Error {
        error(self.lua, format!("Cannot serialise {}: {why}", type_name(value)))
    }

    fn value(&mut self, value: &Value, depth: i32) -> mlua::Result<()> {
        self.shared.meter.step()?;
        match value {
            Value::String(text) => self.string(&text.as_bytes())?,
            Value::Integer(number) => self.number(value, *number as f64)?,
            Value::Number(number) => self.number(value, *number)?,
            Value::Boolean(yes) => self.out.extend_from_slice(if *yes { b"true" } else { b"false" }),
            Value::Table(table) => self.table(value, table, depth + 1)?,
            Value::Nil => self.out.extend_from_slice(b"null"),
            Value::LightUserData(pointer) if pointer.0.is_null() => self.out.extend_from_slice(b"null"),
            _ => return Err(self.refused(value, "type not supported")),
        }
        self.shared.fits(self.out.len())
    }

    fn string(&mut self, text: &[u8]) -> mlua::Result<()> {
        self.shared.meter.steps(text.len() / 16)?;
        self.out.push(b'"');
        for byte in text {
            match byte {
                b'"' => self.out.extend_from_slice(b"\\\""),
                b'\\' => self.out.extend_from_slice(b"\\\\"),
                b'/' => self.out.extend_from_slice(b"\\/"),
                8 => self.out.extend_from_slice(b"\\b"),
                b'\t' => self.out.extend_from_slice(b"\\t"),
                b'\n' => self.out.extend_from_slice(b"\\n"),
                12 => self.out.extend_from_slice(b"\\f"),
                b'\r' => self.out.extend_from_slice(b"\\r"),
                0..32 | 127 => self.out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
                byte => self.out.push(*byte),
            }
        }
        self.out.push(b'"');
        Ok(())
    }

    fn number(&mut self, value: &Value, number: f64) -> mlua::Result<()> {
        if !number.is_finite() {
            match self.settings.encode_invalid.get() {
                INVALID_OFF => return Err(self.refused(value, "must not be NaN or Inf")),
                INVALID_NULL => {
                    self.out.extend_from_slice(b"null");
                    return Ok(());
                }
                _ if number.is_nan() => {
                    self.out.extend_from_slice(b"nan");
                    return Ok(());
                }
                _ => {}
            }
        }
        let precision = usize::try_from(self.settings.precision.get()).expect("set to 1 to 14");
        self.out.extend_from_slice(general(number, precision).as_bytes());
        Ok(())
    }

    fn table(&mut self, value: &Value, table: &Table, depth: i32) -> mlua::Result<()> {
        if depth > self.settings.encode_depth.get().min(DEPTH) {
            return Err(error(
                self.lua,
                format!("Cannot serialise, excessive nesting ({depth})"),
            ));
        }
        match self.array_length(value, table)? {
            Some(length) if length > 0 => self.array(table, length, depth),
            _ => self.object(table, depth),
        }
    }

    /// The greatest key, where all keys are whole numbers from 1 on and enough of them are there.
    fn array_length(&self, value: &Value, table: &Table) -> mlua::Result<Option<i64>> {
        let (mut greatest, mut items) = (0, 0_i64);
        for pair in table.pairs::<Value, Value>() {
            self.shared.meter.step()?;
            match pair?.0 {
                Value::Integer(key) if key >= 1 => {
                    greatest = greatest.max(key);
                    items += 1;
                }
                _ => return Ok(None),
            }
        }
        let (ratio, safe) = (self.settings.sparse_ratio.get(), self.settings.sparse_safe.get());
        if ratio > 0 && greatest > items.saturating_mul(i64::from(ratio)) && greatest > i64::from(safe) {
            if !self.settings.sparse_convert.get() {
                return Err(self.refused(value, "excessively sparse array"));
            }
            return Ok(None);
        }
        Ok(Some(greatest))
    }

    fn array(&mut self, table: &Table, length: i64, depth: i32) -> mlua::Result<()> {
        self.out.push(b'[');
        for index in 1..=length {
            if index > 1 {
                self.out.push(b',');
            }
            self.value(&table.raw_get(index)?, depth)?;
        }
        self.out.push(b']');
        Ok(())
    }

    fn object(&mut self, table: &Table, depth: i32) -> mlua::Result<()> {
        self.out.push(b'{');
        let mut first = true;
        for pair in table.pairs::<Value, Value>() {
            let (key, value) = pair?;
            if !first {
                self.out.push(b',');
            }
            first = false;
            match &key {
                Value::String(text) => self.string(&text.as_bytes())?,
                Value::Integer(_) | Value::Number(_) => {
                    self.out.push(b'"');
                    self.number(&key, super::number::of(self.lua, &key).unwrap_or(0.0))?;
                    self.out.push(b'"');
                }
                _ => return Err(self.refused(&key, "table key must be a number or string")),
            }
            self.out.push(b':');
            self.value(&value, depth)?;
        }
        self.out.push(b'}');
        Ok(())
    }
}

fn decode(lua: &Lua, settings: &Settings, shared: &Shared, values: MultiValue) -> mlua::Result<Value> {
    let args = Args::new(lua, values);
    one(&args)?;
    let text = args.string(1)?;
    let text = text.as_bytes();
    if text.len() >= 2 && text[..2].contains(&0) {
        return Err(error(lua, "JSON parser does not support UTF-16 or UTF-32"));
    }
    let mut decoder = Decoder {
        lua,
        settings,
        shared,
        text: &text,
        at: 0,
        depth: 0,
    };
    let token = decoder.next()?;
    let value = decoder.value(token)?;
    let end = decoder.next()?;
    match end.kind {
        Kind::End => Ok(value),
        _ => Err(decoder.unexpected("the end", &end)),
    }
}

struct Token {
    kind: Kind,
    /// Where it begins, or where it is wrong.
    at: usize,
}

enum Kind {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    Text(Vec<u8>),
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    Wrong(&'static str),
}

impl Kind {
    /// As an error text names it.
    fn name(&self) -> &'static str {
        match self {
            Self::ObjectBegin => "T_OBJ_BEGIN",
            Self::ObjectEnd => "T_OBJ_END",
            Self::ArrayBegin => "T_ARR_BEGIN",
            Self::ArrayEnd => "T_ARR_END",
            Self::Text(_) => "T_STRING",
            Self::Number(_) => "T_NUMBER",
            Self::Boolean(_) => "T_BOOLEAN",
            Self::Null => "T_NULL",
            Self::Colon => "T_COLON",
            Self::Comma => "T_COMMA",
            Self::End => "T_END",
            Self::Wrong(why) => why,
        }
    }
}

struct Decoder<'a> {
    lua: &'a Lua,
    settings: &'a Settings,
    shared: &'a Shared,
    text: &'a [u8],
    at: usize,
    depth: i32,
}

impl Decoder<'_> {
    /// The byte at a distance from here; NUL past the end.
    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn rest(&self) -> &[u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn unexpected(&self, wanted: &str, found: &Token) -> mlua::Error {
        let text = format!(
            "Expected {wanted} but found {} at character {}",
            found.kind.name(),
            found.at + 1
        );
        error(self.lua, text)
    }

    fn next(&mut self) -> mlua::Result<Token> {
        self.shared.meter.step()?;
        while matches!(self.peek(0), b' ' | b'\t' | b'\n' | b'\r') {
            self.shared.meter.step()?;
            self.at += 1;
        }
        let at = self.at;
        let kind = match self.peek(0) {
            b'{' => self.mark(Kind::ObjectBegin),
            b'}' => self.mark(Kind::ObjectEnd),
            b'[' => self.mark(Kind::ArrayBegin),
            b']' => self.mark(Kind::ArrayEnd),
            b',' => self.mark(Kind::Comma),
            b':' => self.mark(Kind::Colon),
            0 => Kind::End,
            b'"' => self.string()?,
            b'-' | b'0'..=b'9' => {
                if !self.settings.decode_invalid.get() && self.is_invalid_number() {
                    Kind::Wrong("invalid number")
                } else {
                    self.number()
                }
            }
            b't' if self.rest().starts_with(b"true") => self.word(4, Kind::Boolean(true)),
            b'f' if self.rest().starts_with(b"false") => self.word(5, Kind::Boolean(false)),
            b'n' if self.rest().starts_with(b"null") => self.word(4, Kind::Null),
            b'f' | b'i' | b'I' | b'n' | b'N' | b't' | b'+'
                if self.settings.decode_invalid.get() && self.is_invalid_number() =>
            {
                self.number()
            }
            _ => Kind::Wrong("invalid token"),
        };
        let at = if matches!(kind, Kind::Wrong(_)) {
            self.at
        } else {
            at
        };
        Ok(Token { kind, at })
    }

    fn mark(&mut self, kind: Kind) -> Kind {
        self.word(1, kind)
    }

    fn word(&mut self, length: usize, kind: Kind) -> Kind {
        self.at += length;
        kind
    }

    fn string(&mut self) -> mlua::Result<Kind> {
        self.at += 1;
        let mut text = Vec::new();
        loop {
            self.shared.meter.step()?;
            match self.peek(0) {
                b'"' => break,
                0 => return Ok(Kind::Wrong("unexpected end of string")),
                b'\\' => {
                    let byte = match self.peek(1) {
                        byte @ (b'"' | b'\\' | b'/') => byte,
                        b'b' => 8,
                        b't' => b'\t',
                        b'n' => b'\n',
                        b'f' => 12,
                        b'r' => b'\r',
                        b'u' => {
                            let Some((length, character)) = self.unicode() else {
                                return Ok(Kind::Wrong("invalid unicode escape code"));
                            };
                            text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                            self.at += length;
                            continue;
                        }
                        _ => return Ok(Kind::Wrong("invalid escape code")),
                    };
                    text.push(byte);
                    self.at += 2;
                }
                byte => {
                    text.push(byte);
                    self.at += 1;
                }
            }
        }
        self.at += 1;
        Ok(Kind::Text(text))
    }

    /// A character by its number in UTF-16, of one or two units, and how long that is.
    fn unicode(&self) -> Option<(usize, char)> {
        let unit = |ahead: usize| {
            (0..4).try_fold(0, |unit, digit| {
                Some(unit << 4 | char::from(self.peek(ahead + digit)).to_digit(16)?)
            })
        };
        let high = unit(2)?;
        if high & 0xf800 != 0xd800 {
            return Some((6, char::from_u32(high)?));
        }
        if high & 0x400 != 0 || self.peek(6) != b'\\' || self.peek(7) != b'u' {
            return None;
        }
        let low = unit(8)?;
        if low & 0xfc00 != 0xdc00 {
            return None;
        }
        Some((
            12,
            char::from_u32(((high & 0x3ff) << 10 | low & 0x3ff) + 0x10000)?,
        ))
    }

    /// What C reads as a number and JSON does not.
    fn is_invalid_number(&self) -> bool {
        if self.peek(0) == b'+' {
            return true;
        }
        let skip = usize::from(self.peek(0) == b'-');
        match self.peek(skip) {
            b'0' => matches!(self.peek(skip + 1), b'x' | b'X' | b'0'..=b'9'),
            0..=b'9' => false,
            _ => {
                let word = self.rest().get(skip..skip + 3).unwrap_or_default();
                word.eq_ignore_ascii_case(b"inf") || word.eq_ignore_ascii_case(b"nan")
            }
        }
    }

    fn number(&mut self) -> Kind {
        match read_float(self.rest()) {
            Some((number, length)) => self.word(length, Kind::Number(number)),
            None => Kind::Wrong("invalid number"),
        }
    }

    fn value(&mut self, token: Token) -> mlua::Result<Value> {
        match token.kind {
            Kind::Text(text) => self.lua.create_string(text)?.into_lua(self.lua),
            Kind::Number(number) => Ok(Value::Number(number)),
            Kind::Boolean(yes) => Ok(Value::Boolean(yes)),
            Kind::ObjectBegin => self.object(),
            Kind::ArrayBegin => self.array(),
            Kind::Null => Ok(null()),
            _ => Err(self.unexpected("value", &token)),
        }
    }

    fn descend(&mut self) -> mlua::Result<()> {
        self.depth += 1;
        if self.depth > self.settings.decode_depth.get().min(DEPTH) {
            let text = format!(
                "Found too many nested data structures ({}) at character {}",
                self.depth, self.at
            );
            return Err(error(self.lua, text));
        }
        Ok(())
    }

    fn object(&mut self) -> mlua::Result<Value> {
        self.descend()?;
        let table = self.lua.create_table()?;
        let mut token = self.next()?;
        if !matches!(token.kind, Kind::ObjectEnd) {
            loop {
                let Kind::Text(key) = token.kind else {
                    return Err(self.unexpected("object key string", &token));
                };
                let key = self.lua.create_string(key)?;
                let colon = self.next()?;
                if !matches!(colon.kind, Kind::Colon) {
                    return Err(self.unexpected("colon", &colon));
                }
                let value = self.next()?;
                table.raw_set(key, self.value(value)?)?;
                let after = self.next()?;
                match after.kind {
                    Kind::ObjectEnd => break,
                    Kind::Comma => token = self.next()?,
                    _ => return Err(self.unexpected("comma or object end", &after)),
                }
            }
        }
        self.depth -= 1;
        table.into_lua(self.lua)
    }

    fn array(&mut self) -> mlua::Result<Value> {
        self.descend()?;
        let table = self.lua.create_table()?;
        let mut token = self.next()?;
        if !matches!(token.kind, Kind::ArrayEnd) {
            for index in 1.. {
                table.raw_set(index, self.value(token)?)?;
                let after = self.next()?;
                match after.kind {
                    Kind::ArrayEnd => break,
                    Kind::Comma => token = self.next()?,
                    _ => return Err(self.unexpected("comma or array end", &after)),
                }
            }
        }
        self.depth -= 1;
        table.into_lua(self.lua)
    }
}
