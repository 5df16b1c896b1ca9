//! `bit`: operations on 32 bits, as Lua BitOp has them.

use super::raise::Args;
use mlua::{Lua, MultiValue, Table};

/// An operation under the name a script calls it by.
type Named<F> = (&'static str, F);

/// The table `bit`.
pub(super) fn table(lua: &Lua) -> mlua::Result<Table> {
    let bit = lua.create_table()?;
    let single: [Named<fn(u32) -> u32>; 3] = [
        ("tobit", |bits| bits),
        ("bnot", |bits| !bits),
        ("bswap", u32::swap_bytes),
    ];
    for (name, operation) in single {
        let function = lua.create_function(move |lua, values: MultiValue| {
            Ok(signed(operation(bits(&Args::new(lua, values), 1)?)))
        })?;
        bit.raw_set(name, function)?;
    }
    let many: [Named<fn(u32, u32) -> u32>; 3] = [
        ("band", |left, right| left & right),
        ("bor", |left, right| left | right),
        ("bxor", |left, right| left ^ right),
    ];
    for (name, operation) in many {
        let function = lua.create_function(move |lua, values: MultiValue| {
            let args = Args::new(lua, values);
            let first = bits(&args, 1)?;
            let mut others = (2..=args.count()).rev().map(|number| bits(&args, number));
            others
                .try_fold(first, |whole, next| Ok(operation(whole, next?)))
                .map(signed)
        })?;
        bit.raw_set(name, function)?;
    }
    let shifts: [Named<fn(u32, u32) -> u32>; 5] = [
        ("lshift", |bits, by| bits << by),
        ("rshift", |bits, by| bits >> by),
        ("arshift", |bits, by| (bits.cast_signed() >> by).cast_unsigned()),
        ("rol", u32::rotate_left),
        ("ror", u32::rotate_right),
    ];
    for (name, operation) in shifts {
        let function = lua.create_function(move |lua, values: MultiValue| {
            let args = Args::new(lua, values);
            Ok(signed(operation(bits(&args, 1)?, bits(&args, 2)? & 31)))
        })?;
        bit.raw_set(name, function)?;
    }
    bit.raw_set("tohex", lua.create_function(to_hex)?)?;
    Ok(bit)
}

fn signed(bits: u32) -> i32 {
    bits.cast_signed()
}

/// The low 32 bits of a number rounded to the nearest integer: adding 2^52 + 2^51 moves them to the end of the double.
fn bits(args: &Args<'_>, number: usize) -> mlua::Result<u32> {
    let value = args.number(number)?;
    Ok((value + 6_755_399_441_055_744.0).to_bits() as u32)
}

fn to_hex(lua: &Lua, values: MultiValue) -> mlua::Result<String> {
    let args = Args::new(lua, values);
    let number = bits(&args, 1)?;
    let digits = if args.count() < 2 {
        8
    } else {
        signed(bits(&args, 2)?)
    };
    let shown = usize::try_from(digits.unsigned_abs()).unwrap_or(8).min(8);
    let all = if digits < 0 {
        format!("{number:08X}")
    } else {
        format!("{number:08x}")
    };
    Ok(all[8 - shown..].to_owned())
}
