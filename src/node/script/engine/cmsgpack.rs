//! `cmsgpack`: Lua values as MessagePack and back, as lua-cmsgpack 0.4 has them.

use super::RESULTS;
use super::meter::Meter;
use super::number::truncate;
use super::raise::{Args, bare, error};
use super::sandbox::Shared;
use mlua::{IntoLua, Lua, LuaString, MultiValue, Table, Value};

/// How deep tables are packed; what is deeper becomes nil.
const NESTING: usize = 16;

/// How deep packed values are unpacked. In Redis the end of Lua's stack is the bound, at about four times this depth.
const UNPACK_NESTING: usize = 1_000;

const TOO_MANY: &str =
    "stack overflow (too many return values at once; use unpack_one or unpack_limit instead.)";

/// The table `cmsgpack`.
pub(super) fn table(lua: &Lua, shared: &Shared) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let with = shared.clone();
    table.raw_set(
        "pack",
        lua.create_function(move |lua, values| pack(lua, &with, values))?,
    )?;
    let meter = shared.meter.clone();
    let unpack = lua.create_function(move |lua, values| {
        unpack(&Args::new(lua, values), &meter, Limit { count: 0, offset: 0 })
    })?;
    table.raw_set("unpack", unpack)?;
    let meter = shared.meter.clone();
    let unpack_one = lua.create_function(move |lua, values| {
        let args = Args::new(lua, values);
        let offset = args.integer_or(2, 0)?;
        self::unpack(&args, &meter, Limit { count: 1, offset })
    })?;
    table.raw_set("unpack_one", unpack_one)?;
    let meter = shared.meter.clone();
    let unpack_limit = lua.create_function(move |lua, values| {
        let args = Args::new(lua, values);
        let (count, offset) = (args.integer(2)?, args.integer_or(3, 0)?);
        self::unpack(&args, &meter, Limit { count, offset })
    })?;
    table.raw_set("unpack_limit", unpack_limit)?;
    table.raw_set("_NAME", "cmsgpack")?;
    table.raw_set("_VERSION", "lua-cmsgpack 0.4.0")?;
    table.raw_set("_COPYRIGHT", "Copyright (C) 2012, Salvatore Sanfilippo")?;
    table.raw_set("_DESCRIPTION", "MessagePack C implementation for Lua")?;
    Ok(table)
}

fn pack(lua: &Lua, shared: &Shared, values: MultiValue) -> mlua::Result<LuaString> {
    let args = Args::new(lua, values);
    if args.count() == 0 {
        return Err(args.bad(0, "MessagePack pack needs input."));
    }
    let mut packer = Packer {
        shared,
        out: Vec::new(),
    };
    for value in args.values() {
        packer.value(value, 0)?;
    }
    lua.create_string(packer.out)
}

struct Packer<'a> {
    shared: &'a Shared,
    out: Vec<u8>,
}

impl Packer<'_> {
    fn value(&mut self, value: &Value, level: usize) -> mlua::Result<()> {
        self.shared.meter.step()?;
        match value {
            Value::String(text) => self.bytes(&text.as_bytes()),
            Value::Boolean(yes) => self.out.push(if *yes { 0xc3 } else { 0xc2 }),
            Value::Integer(number) => self.integer(*number),
            Value::Number(number) => self.number(*number),
            Value::Table(table) if level < NESTING => self.table(table, level)?,
            _ => self.out.push(0xc0),
        }
        self.shared.fits(self.out.len())
    }

    fn bytes(&mut self, bytes: &[u8]) {
        match bytes.len() {
            length @ 0..32 => self.out.push(0xa0 | length as u8),
            length @ 32..=0xff => self.out.extend([0xd9, length as u8]),
            length => self.length([0xda, 0xdb], length),
        }
        self.out.extend_from_slice(bytes);
    }

    /// A length of two bytes, or of four, after its own mark.
    fn length(&mut self, [short, long]: [u8; 2], length: usize) {
        match u16::try_from(length) {
            Ok(length) => {
                self.out.push(short);
                self.out.extend(length.to_be_bytes());
            }
            Err(_) => {
                self.out.push(long);
                self.out.extend((length as u32).to_be_bytes());
            }
        }
    }

    fn number(&mut self, number: f64) {
        let whole = truncate(number);
        if whole as f64 == number {
            return self.integer(whole);
        }
        let short = number as f32;
        if f64::from(short) == number {
            self.out.push(0xca);
            self.out.extend(short.to_be_bytes());
        } else {
            self.out.push(0xcb);
            self.out.extend(number.to_be_bytes());
        }
    }

    fn integer(&mut self, number: i64) {
        let bytes = number.to_be_bytes();
        let (mark, length) = match number {
            -32..=127 => return self.out.push(bytes[7]),
            128..=0xff => (0xcc, 1),
            0x100..=0xffff => (0xcd, 2),
            0x1_0000..=0xffff_ffff => (0xce, 4),
            0x1_0000_0000.. => (0xcf, 8),
            -128..-32 => (0xd0, 1),
            -32_768..-128 => (0xd1, 2),
            -2_147_483_648..-32_768 => (0xd2, 4),
            _ => (0xd3, 8),
        };
        self.out.push(mark);
        self.out.extend_from_slice(&bytes[8 - length..]);
    }

    fn table(&mut self, table: &Table, level: usize) -> mlua::Result<()> {
        let (is_array, count) = self.measure(table)?;
        if is_array {
            let length = table.raw_len();
            match length {
                0..16 => self.out.push(0x90 | length as u8),
                _ => self.length([0xdc, 0xdd], length),
            }
            for index in 1..=length {
                // Redis asks `__index` too, but of a list without holes there is nothing to ask.
                self.value(&table.raw_get(index)?, level + 1)?;
            }
            return Ok(());
        }
        match count {
            0..16 => self.out.push(0x80 | count as u8),
            _ => self.length([0xde, 0xdf], count),
        }
        for pair in table.pairs::<Value, Value>() {
            let (key, value) = pair?;
            self.value(&key, level + 1)?;
            self.value(&value, level + 1)?;
        }
        Ok(())
    }

    /// Whether the keys are 1 to n, and how many there are.
    fn measure(&self, table: &Table) -> mlua::Result<(bool, usize)> {
        let (mut count, mut greatest, mut is_array) = (0_usize, 0_i64, true);
        for pair in table.pairs::<Value, Value>() {
            self.shared.meter.step()?;
            count += 1;
            match pair?.0 {
                Value::Integer(key @ 1..=0x7fff_ffff) => greatest = greatest.max(key),
                _ => is_array = false,
            }
        }
        Ok((is_array && usize::try_from(greatest) == Ok(count), count))
    }
}

/// Which of several packed values are asked for; neither means all of them, and then no offset is given back.
struct Limit {
    count: i64,
    offset: i64,
}

fn unpack(args: &Args<'_>, meter: &Meter, limit: Limit) -> mlua::Result<MultiValue> {
    let lua = args.lua;
    let data = args.string(1)?;
    let data = data.as_bytes();
    let all = limit.count == 0 && limit.offset == 0;
    if limit.offset < 0 || limit.count < 0 {
        let text = format!(
            "Invalid request to unpack with offset of {} and limit of {}.",
            limit.offset as i32,
            data.len()
        );
        return Err(error(lua, text));
    }
    let start = usize::try_from(limit.offset).unwrap_or(usize::MAX);
    let Some(rest) = data.get(start..) else {
        let text = format!(
            "Start offset {} greater than input length {}.",
            limit.offset as i32,
            data.len()
        );
        return Err(error(lua, text));
    };
    let most = if all {
        usize::MAX
    } else {
        usize::try_from(limit.count).unwrap_or(usize::MAX)
    };
    let mut unpacker = Unpacker { lua, meter, rest };
    let mut results = Vec::new();
    while !unpacker.rest.is_empty() && results.len() < most {
        if results.len() >= RESULTS {
            return Err(error(lua, TOO_MANY));
        }
        let value = unpacker.value(0).map_err(|fault| match fault {
            Fault::Missing => error(lua, "Missing bytes in input."),
            Fault::Format => error(lua, "Bad data format in input."),
            Fault::Lua(error) => error,
        })?;
        results.push(value);
    }
    if !all {
        let next = data.len() - unpacker.rest.len();
        let next = if unpacker.rest.is_empty() {
            -1
        } else {
            i64::try_from(next).unwrap_or(-1)
        };
        results.insert(0, Value::Integer(next));
    }
    Ok(MultiValue::from_vec(results))
}

enum Fault {
    Missing,
    Format,
    Lua(mlua::Error),
}

impl From<mlua::Error> for Fault {
    fn from(error: mlua::Error) -> Self {
        Self::Lua(error)
    }
}

struct Unpacker<'a> {
    lua: &'a Lua,
    meter: &'a Meter,
    rest: &'a [u8],
}

impl<'a> Unpacker<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Fault::Missing)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A number of up to eight bytes, the greatest first.
    fn unsigned(&mut self, bytes: usize) -> Result<u64, Fault> {
        Ok(self
            .take(bytes)?
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn length(&mut self, bytes: usize) -> Result<usize, Fault> {
        self.unsigned(bytes)
            .map(|length| usize::try_from(length).expect("at most four bytes"))
    }

    fn value(&mut self, depth: usize) -> Result<Value, Fault> {
        self.meter.step().map_err(mlua::Error::from)?;
        if depth > UNPACK_NESTING {
            return Err(Fault::Lua(error(self.lua, TOO_MANY)));
        }
        let mark = self.take(1)?[0];
        Ok(match mark {
            0x00..=0x7f => Value::Integer(i64::from(mark)),
            0xe0..=0xff => Value::Integer(i64::from(mark.cast_signed())),
            0xcc => Value::Integer(self.unsigned(1)?.cast_signed()),
            0xcd => Value::Integer(self.unsigned(2)?.cast_signed()),
            0xce => Value::Integer(self.unsigned(4)?.cast_signed()),
            0xcf | 0xd3 => Value::Number(self.unsigned(8)?.cast_signed() as f64),
            0xd0 => Value::Integer(i64::from(self.unsigned(1)? as i8)),
            0xd1 => Value::Integer(i64::from(self.unsigned(2)? as i16)),
            0xd2 => Value::Integer(i64::from(self.unsigned(4)? as i32)),
            0xc0 => Value::Nil,
            0xc2 => Value::Boolean(false),
            0xc3 => Value::Boolean(true),
            0xca => Value::Number(f64::from(f32::from_bits(self.unsigned(4)? as u32))),
            0xcb => Value::Number(f64::from_bits(self.unsigned(8)?)),
            0xa0..=0xbf => self.string(usize::from(mark & 0x1f))?,
            0xd9 => {
                let length = self.length(1)?;
                self.string(length)?
            }
            0xda => {
                let length = self.length(2)?;
                self.string(length)?
            }
            0xdb => {
                let length = self.length(4)?;
                self.string(length)?
            }
            0x90..=0x9f => self.array(usize::from(mark & 0xf), depth)?,
            0xdc => {
                let length = self.length(2)?;
                self.array(length, depth)?
            }
            0xdd => {
                let length = self.length(4)?;
                self.array(length, depth)?
            }
            0x80..=0x8f => self.map(usize::from(mark & 0xf), depth)?,
            0xde => {
                let length = self.length(2)?;
                self.map(length, depth)?
            }
            0xdf => {
                let length = self.length(4)?;
                self.map(length, depth)?
            }
            _ => return Err(Fault::Format),
        })
    }

    fn string(&mut self, length: usize) -> Result<Value, Fault> {
        let bytes = self.take(length)?;
        Ok(Value::String(self.lua.create_string(bytes)?))
    }

    fn array(&mut self, length: usize, depth: usize) -> Result<Value, Fault> {
        let table = self.lua.create_table()?;
        for index in 1..=length {
            table.raw_set(index, self.value(depth + 1)?)?;
        }
        Ok(table.into_lua(self.lua)?)
    }

    fn map(&mut self, length: usize, depth: usize) -> Result<Value, Fault> {
        let table = self.lua.create_table()?;
        for _ in 0..length {
            let key = self.value(depth + 1)?;
            let value = self.value(depth + 1)?;
            match key {
                Value::Nil => return Err(Fault::Lua(bare("table index is nil"))),
                Value::Number(key) if key.is_nan() => return Err(Fault::Lua(bare("table index is NaN"))),
                key => table.raw_set(key, value)?,
            }
        }
        Ok(table.into_lua(self.lua)?)
    }
}
