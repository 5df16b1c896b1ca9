//! `struct`: Lua values as C structures and back, as Roberto Ierusalimschy's library has them.

use super::RESULTS;
use super::meter::Meter;
use super::number::{of, truncate};
use super::raise::{Args, error};
use super::sandbox::Shared;
use mlua::{Lua, LuaString, MultiValue, Table, Value};

/// The most bytes of an integer.
const INTEGER_MAX: usize = 32;

/// What `!` alone aligns to.
const ALIGN_MAX: usize = 8;

/// The table `struct`.
pub(super) fn table(lua: &Lua, shared: &Shared) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let with = shared.clone();
    table.raw_set(
        "pack",
        lua.create_function(move |lua, values| pack(lua, &with, values))?,
    )?;
    let meter = shared.meter.clone();
    table.raw_set(
        "unpack",
        lua.create_function(move |lua, values| unpack(lua, &meter, values))?,
    )?;
    let meter = shared.meter.clone();
    table.raw_set(
        "size",
        lua.create_function(move |lua, values| size(lua, &meter, values))?,
    )?;
    Ok(table)
}

/// A format, read option by option, with the byte order and alignment that hold so far.
struct Format<'a> {
    lua: &'a Lua,
    meter: &'a Meter,
    text: &'a [u8],
    at: usize,
    big: bool,
    align: usize,
}

struct Item {
    option: u8,
    size: usize,
}

impl<'a> Format<'a> {
    fn new(lua: &'a Lua, meter: &'a Meter, text: &'a [u8]) -> Self {
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        Self {
            lua,
            meter,
            text: &text[..end],
            at: 0,
            big: false,
            align: 1,
        }
    }

    fn next(&mut self) -> mlua::Result<Option<Item>> {
        self.meter.step()?;
        let Some(&option) = self.text.get(self.at) else {
            return Ok(None);
        };
        self.at += 1;
        let size = match option {
            b'B' | b'b' | b'x' => 1,
            b'H' | b'h' => 2,
            b'f' => 4,
            b'L' | b'l' | b'T' | b'd' => 8,
            b'c' => self.number(1)?,
            b'i' | b'I' => {
                let size = self.number(4)?;
                if size > INTEGER_MAX {
                    let text = format!("integral size {size} is larger than limit of {INTEGER_MAX}");
                    return Err(error(self.lua, text));
                }
                size
            }
            _ => 0,
        };
        Ok(Some(Item { option, size }))
    }

    /// The number that follows, or the default.
    fn number(&mut self, default: usize) -> mlua::Result<usize> {
        let start = self.at;
        let mut number = 0_i32;
        while let Some(digit) = self.text.get(self.at).filter(|byte| byte.is_ascii_digit()) {
            let digit = i32::from(digit - b'0');
            number = number
                .checked_mul(10)
                .and_then(|number| number.checked_add(digit))
                .ok_or_else(|| error(self.lua, "integral size overflow"))?;
            self.at += 1;
        }
        let number = usize::try_from(number).expect("made of digits");
        Ok(if self.at == start { default } else { number })
    }

    /// The bytes that align an item at this position.
    fn padding(&self, position: usize, item: &Item) -> usize {
        if item.size == 0 || item.option == b'c' {
            return 0;
        }
        let size = item.size.min(self.align);
        size.wrapping_sub(position & (size - 1)) & (size - 1)
    }

    /// An option that packs nothing.
    fn control(&mut self, args: &Args<'_>, option: u8) -> mlua::Result<()> {
        match option {
            b' ' => {}
            b'>' => self.big = true,
            b'<' => self.big = false,
            b'!' => {
                let align = self.number(ALIGN_MAX)?;
                if !align.is_power_of_two() {
                    return Err(error(self.lua, format!("alignment {align} is not a power of 2")));
                }
                self.align = align;
            }
            _ => return Err(args.bad(1, &format!("invalid format option '{}'", char::from(option)))),
        }
        Ok(())
    }

    fn ordered<const N: usize>(&self, mut bytes: [u8; N]) -> [u8; N] {
        if self.big {
            bytes.reverse();
        }
        bytes
    }
}

fn pack(lua: &Lua, shared: &Shared, values: MultiValue) -> mlua::Result<LuaString> {
    let mut values = values;
    // The library marks the end of the arguments with a nil, and says so of one that is missing.
    if !values.is_empty() {
        values.push_back(Value::Nil);
    }
    let args = Args::new(lua, values);
    let text = args.string(1)?;
    let text = text.as_bytes();
    let mut format = Format::new(lua, &shared.meter, &text);
    let mut out = Vec::new();
    let mut next = 2;
    while let Some(item) = format.next()? {
        out.resize(out.len() + format.padding(out.len(), &item), 0);
        match item.option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                put_integer(args.number(next)?, item.size, format.big, &mut out);
                next += 1;
            }
            b'x' => out.push(0),
            b'f' => {
                out.extend(format.ordered((args.number(next)? as f32).to_le_bytes()));
                next += 1;
            }
            b'd' => {
                out.extend(format.ordered(args.number(next)?.to_le_bytes()));
                next += 1;
            }
            b'c' | b's' => {
                let value = args.string(next)?;
                next += 1;
                let value = value.as_bytes();
                let size = if item.size == 0 { value.len() } else { item.size };
                let part = value
                    .get(..size)
                    .ok_or_else(|| args.bad(next, "string too short"))?;
                out.extend_from_slice(part);
                if item.option == b's' {
                    out.push(0);
                }
            }
            other => format.control(&args, other)?,
        }
        shared.fits(out.len())?;
    }
    lua.create_string(out)
}

fn put_integer(number: f64, size: usize, big: bool, out: &mut Vec<u8>) {
    let value = if number < 0.0 {
        truncate(number).cast_unsigned()
    } else {
        number as u64
    };
    let start = out.len();
    out.extend(
        value
            .to_le_bytes()
            .into_iter()
            .chain(std::iter::repeat(0))
            .take(size),
    );
    if big {
        out[start..].reverse();
    }
}

fn get_integer(bytes: &[u8], signed: bool, big: bool) -> f64 {
    let add = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    let value = if big {
        bytes.iter().fold(0, add)
    } else {
        bytes.iter().rev().fold(0, add)
    };
    if !signed {
        return value as f64;
    }
    // Wider than eight bytes, the last eight count.
    let unused = 64_usize.saturating_sub(bytes.len() * 8);
    if unused >= 64 {
        return 0.0;
    }
    ((value << unused).cast_signed() >> unused) as f64
}

fn unpack(lua: &Lua, meter: &Meter, values: MultiValue) -> mlua::Result<MultiValue> {
    let args = Args::new(lua, values);
    let (text, data) = (args.string(1)?, args.string(2)?);
    let (text, data) = (text.as_bytes(), data.as_bytes());
    let position = args.integer_or(3, 1)?;
    if position == 0 {
        return Err(args.bad(3, "offset must be 1 or greater"));
    }
    let mut at = usize::try_from(position.wrapping_sub(1)).unwrap_or(usize::MAX / 2);
    let mut format = Format::new(lua, meter, &text);
    let mut results = Vec::new();
    let short = || args.bad(2, "data string too short");
    while let Some(item) = format.next()? {
        at += format.padding(at, &item);
        let end = at
            .checked_add(item.size)
            .filter(|end| *end <= data.len())
            .ok_or_else(short)?;
        if results.len() >= RESULTS {
            return Err(error(lua, "stack overflow (too many results)"));
        }
        let bytes = &data[at..end];
        let mut next = end;
        match item.option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let signed = item.option.is_ascii_lowercase();
                results.push(Value::Number(get_integer(bytes, signed, format.big)));
            }
            b'x' => {}
            b'f' => {
                let bytes = format.ordered(<[u8; 4]>::try_from(bytes).expect("sliced to size"));
                results.push(Value::Number(f64::from(f32::from_le_bytes(bytes))));
            }
            b'd' => {
                let bytes = format.ordered(<[u8; 8]>::try_from(bytes).expect("sliced to size"));
                results.push(Value::Number(f64::from_le_bytes(bytes)));
            }
            b'c' if item.size == 0 => {
                let size = results.last().and_then(|size| of(lua, size));
                let size = size.ok_or_else(|| error(lua, "format 'c0' needs a previous size"))?;
                results.pop();
                let size = usize::try_from(truncate(size)).map_err(|_| short())?;
                next = at
                    .checked_add(size)
                    .filter(|end| *end <= data.len())
                    .ok_or_else(short)?;
                results.push(Value::String(lua.create_string(&data[at..next])?));
            }
            b'c' => results.push(Value::String(lua.create_string(bytes)?)),
            b's' => {
                let length = data[at..].iter().position(|byte| *byte == 0);
                let length = length.ok_or_else(|| error(lua, "unfinished string in data"))?;
                results.push(Value::String(lua.create_string(&data[at..at + length])?));
                next = at + length + 1;
            }
            other => format.control(&args, other)?,
        }
        at = next;
    }
    results.push(Value::Number((at + 1) as f64));
    Ok(MultiValue::from_vec(results))
}

fn size(lua: &Lua, meter: &Meter, values: MultiValue) -> mlua::Result<usize> {
    let args = Args::new(lua, values);
    let text = args.string(1)?;
    let text = text.as_bytes();
    let mut format = Format::new(lua, meter, &text);
    let mut at = 0_usize;
    while let Some(item) = format.next()? {
        at = at.wrapping_add(format.padding(at, &item));
        match item.option {
            b's' => return Err(args.bad(1, "option 's' has no fixed size")),
            b'c' if item.size == 0 => return Err(args.bad(1, "option 'c0' has no fixed size")),
            other if !other.is_ascii_alphanumeric() => format.control(&args, other)?,
            _ => {}
        }
        at = at.wrapping_add(item.size);
    }
    Ok(at)
}
