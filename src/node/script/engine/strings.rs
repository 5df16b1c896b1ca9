//! Those functions of the table `string` that can take long inside one call, metered: `find`, `match`, `gmatch`, `gsub`, `rep`.

use super::meter::Meter;
use super::number::low;
use super::pattern::{self, Capture, Fault, Matcher};
use super::raise::{Args, Raised, error, type_name};
use super::sandbox::Shared;
use mlua::{IntoLua, IntoLuaMulti, Lua, MultiValue, Table, Value};
use std::cell::Cell;

/// Replaces the functions in the table `string`.
pub(super) fn replace(lua: &Lua, string: &Table, shared: &Shared) -> mlua::Result<()> {
    let with = shared.clone();
    string.raw_set(
        "find",
        lua.create_function(move |lua, values| find(lua, &with, values, true))?,
    )?;
    let with = shared.clone();
    string.raw_set(
        "match",
        lua.create_function(move |lua, values| find(lua, &with, values, false))?,
    )?;
    let with = shared.clone();
    let gmatch = lua.create_function(move |lua, values| gmatch(lua, &with, values))?;
    string.raw_set("gfind", &gmatch)?;
    string.raw_set("gmatch", gmatch)?;
    let with = shared.clone();
    string.raw_set(
        "gsub",
        lua.create_function(move |lua, values| gsub(lua, &with, values))?,
    )?;
    let with = shared.clone();
    string.raw_set(
        "rep",
        lua.create_function(move |lua, values| rep(lua, &with, values))?,
    )
}

fn fault(lua: &Lua, fault: Fault) -> mlua::Error {
    match fault {
        Fault::Pattern(text) => error(lua, text),
        Fault::Stopped => Raised::Stop.into(),
    }
}

fn captured(lua: &Lua, capture: Capture<'_>) -> mlua::Result<Value> {
    match capture {
        Capture::Position(position) => position.into_lua(lua),
        Capture::Text(text) => lua.create_string(text)?.into_lua(lua),
    }
}

/// All captures of a match; the whole match where there are none, if `whole`.
fn captures(
    lua: &Lua,
    matcher: &Matcher<'_>,
    start: usize,
    end: usize,
    whole: bool,
) -> mlua::Result<Vec<Value>> {
    let count = if whole {
        matcher.captures().max(1)
    } else {
        matcher.captures()
    };
    (0..count)
        .map(|index| {
            let capture = matcher
                .capture(index, start, end)
                .map_err(|wrong| fault(lua, wrong))?;
            captured(lua, capture)
        })
        .collect()
}

fn find(lua: &Lua, shared: &Shared, values: MultiValue, find: bool) -> mlua::Result<MultiValue> {
    let args = Args::new(lua, values);
    let (subject, pattern) = (args.string(1)?, args.string(2)?);
    let init = args.integer_or(3, 1)?;
    let (subject, pattern) = (&*subject.as_bytes(), &*pattern.as_bytes());
    let start = from(init, subject.len());
    let is_plain = !matches!(args.get(4), Value::Nil | Value::Boolean(false));
    if find && (is_plain || !pattern::is_special(pattern)) {
        let found = pattern::plain(&subject[start..], pattern, &shared.meter)?;
        return match found {
            Some(at) => (start + at + 1, start + at + pattern.len()).into_lua_multi(lua),
            None => Value::Nil.into_lua_multi(lua),
        };
    }
    let (anchored, mut matcher) = Matcher::anchored(subject, pattern, &shared.meter);
    for start in start..=subject.len() {
        if let Some(end) = matcher.at(start).map_err(|wrong| fault(lua, wrong))? {
            let mut found = captures(lua, &matcher, start, end, !find)?;
            if find {
                found.splice(0..0, [(start + 1).into_lua(lua)?, end.into_lua(lua)?]);
            }
            return Ok(MultiValue::from_vec(found));
        }
        if anchored {
            break;
        }
    }
    Value::Nil.into_lua_multi(lua)
}

/// Where a search begins: positions count from 1, negative ones from the end.
fn from(init: i64, length: usize) -> usize {
    let length = i64::try_from(length).expect("nothing in memory has 2^63 bytes");
    let position = if init < 0 {
        init.saturating_add(length).saturating_add(1)
    } else {
        init
    };
    usize::try_from(position.saturating_sub(1).clamp(0, length)).expect("clamped to what is there")
}

fn gmatch(lua: &Lua, shared: &Shared, values: MultiValue) -> mlua::Result<mlua::Function> {
    let args = Args::new(lua, values);
    let (subject, pattern) = (args.string(1)?, args.string(2)?);
    let (meter, next) = (shared.meter.clone(), Cell::new(0));
    lua.create_function(move |lua, _: MultiValue| {
        let (subject, pattern) = (&*subject.as_bytes(), &*pattern.as_bytes());
        // An anchor means nothing here: Lua 5.1 takes it for a character.
        let mut matcher = Matcher::new(subject, pattern, &meter);
        for start in next.get()..=subject.len() {
            if let Some(end) = matcher.at(start).map_err(|wrong| fault(lua, wrong))? {
                next.set(if end == start { end + 1 } else { end });
                return Ok(MultiValue::from_vec(captures(lua, &matcher, start, end, true)?));
            }
        }
        Ok(MultiValue::new())
    })
}

fn gsub(lua: &Lua, shared: &Shared, values: MultiValue) -> mlua::Result<(mlua::LuaString, i64)> {
    let args = Args::new(lua, values);
    let (subject, pattern) = (args.string(1)?, args.string(2)?);
    let replacement = match args.get(3) {
        Value::String(_) | Value::Integer(_) | Value::Number(_) => Replacement::Text(args.string(3)?),
        value @ (Value::Function(_) | Value::Table(_)) => Replacement::Value(value.clone()),
        _ => return Err(args.bad(3, "string/function/table expected")),
    };
    let (subject, pattern) = (&*subject.as_bytes(), &*pattern.as_bytes());
    let all = i64::try_from(subject.len()).expect("nothing in memory has 2^63 bytes") + 1;
    let most = if args.is_none_or_nil(4) {
        all
    } else {
        i64::from(low(args.integer(4)?))
    };
    let (anchored, mut matcher) = Matcher::anchored(subject, pattern, &shared.meter);
    let (mut out, mut at, mut count) = (Vec::new(), 0, 0);
    while count < most {
        let end = matcher.at(at).map_err(|wrong| fault(lua, wrong))?;
        if let Some(end) = end {
            count += 1;
            replacement.add(lua, shared, &matcher, (at, end), &mut out)?;
            shared.fits(out.len())?;
        }
        match end {
            Some(end) if end > at => at = end,
            _ if at < subject.len() => {
                out.push(subject[at]);
                at += 1;
            }
            _ => break,
        }
        if anchored {
            break;
        }
    }
    out.extend_from_slice(&subject[at..]);
    shared.fits(out.len())?;
    Ok((lua.create_string(out)?, count))
}

/// What `gsub` puts in the place of a match.
enum Replacement {
    Text(mlua::LuaString),
    /// A function or a table.
    Value(Value),
}

impl Replacement {
    fn add(
        &self,
        lua: &Lua,
        shared: &Shared,
        matcher: &Matcher<'_>,
        (start, end): (usize, usize),
        out: &mut Vec<u8>,
    ) -> mlua::Result<()> {
        let capture = |index| {
            matcher
                .capture(index, start, end)
                .map_err(|wrong| fault(lua, wrong))
        };
        let whole = || &matcher.subject()[start..end];
        let value = match self {
            Self::Text(text) => return template(&text.as_bytes(), whole(), capture, out, &shared.meter),
            Self::Value(Value::Function(function)) => {
                let arguments = MultiValue::from_vec(captures(lua, matcher, start, end, true)?);
                shared
                    .call(lua, function, arguments)?
                    .pop_front()
                    .unwrap_or(Value::Nil)
            }
            Self::Value(Value::Table(table)) => {
                let key = captured(lua, capture(0)?)?;
                // Through `__index`, whose error must come back as it was.
                shared.index(lua, table, key)?
            }
            Self::Value(_) => Value::Nil,
        };
        match value {
            Value::Nil | Value::Boolean(false) => out.extend_from_slice(whole()),
            Value::String(text) => out.extend_from_slice(&text.as_bytes()),
            number @ (Value::Integer(_) | Value::Number(_)) => {
                out.extend_from_slice(super::number::to_text(&number).as_bytes());
            }
            other => {
                let text = format!("invalid replacement value (a {})", type_name(&other));
                return Err(error(lua, text));
            }
        }
        Ok(())
    }
}

/// A replacement text: `%0` is the match, `%1` to `%9` its captures, `%` and another character that character.
fn template<'a>(
    text: &[u8],
    whole: &[u8],
    capture: impl Fn(usize) -> mlua::Result<Capture<'a>>,
    out: &mut Vec<u8>,
    meter: &Meter,
) -> mlua::Result<()> {
    meter.steps(text.len() / 16)?;
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        match bytes.next().copied().unwrap_or(0) {
            b'0' => out.extend_from_slice(whole),
            digit @ b'1'..=b'9' => match capture(usize::from(digit - b'1'))? {
                Capture::Text(text) => out.extend_from_slice(text),
                Capture::Position(position) => out.extend_from_slice(position.to_string().as_bytes()),
            },
            other => out.push(other),
        }
    }
    Ok(())
}

fn rep(lua: &Lua, shared: &Shared, values: MultiValue) -> mlua::Result<mlua::LuaString> {
    let args = Args::new(lua, values);
    let text = args.string(1)?;
    let count = usize::try_from(low(args.integer(2)?)).unwrap_or(0);
    shared.fits(text.as_bytes().len().saturating_mul(count))?;
    shared.meter.look()?;
    lua.create_string(text.as_bytes().repeat(count))
}
