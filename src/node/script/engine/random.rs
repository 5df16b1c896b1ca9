//! `math.random` and `math.randomseed`: the generator of Redis, which gives the same numbers everywhere for one seed.

use super::number::low;
use super::raise::{Args, error};
use super::redis::Desk;
use mlua::{Lua, MultiValue, Table};
use std::cell::Cell;
use std::rc::Rc;

/// One more than the greatest number the generator gives.
const RANGE: u64 = 1 << 31;

/// The 48-bit linear congruential generator of `lrand48`.
struct Generator(Cell<u64>);

impl Generator {
    const MASK: u64 = (1 << 48) - 1;

    fn new(seed: i32) -> Self {
        let generator = Self(Cell::new(0));
        generator.seed(seed);
        generator
    }

    fn seed(&self, seed: i32) {
        self.0.set((u64::from(seed.cast_unsigned()) << 16) | 0x330e);
    }

    /// 31 bits.
    fn next(&self) -> u64 {
        let next = self.0.get().wrapping_mul(0x5_deec_e66d).wrapping_add(0xb) & Self::MASK;
        self.0.set(next);
        next >> 17
    }
}

/// Replaces both functions in the table `math`.
pub(super) fn replace(lua: &Lua, math: &Table, desk: &Rc<Desk>, seed: i32) -> mlua::Result<()> {
    let generator = Rc::new(Generator::new(seed));
    let (at, with) = (Rc::clone(desk), Rc::clone(&generator));
    let random = lua.create_function(move |lua, values| {
        let args = Args::new(lua, values);
        at.in_a_run(lua, "math.random")?;
        random(&args, &with)
    })?;
    let at = Rc::clone(desk);
    let seed = lua.create_function(move |lua, values: MultiValue| {
        let args = Args::new(lua, values);
        at.in_a_run(lua, "math.randomseed")?;
        generator.seed(low(args.integer(1)?));
        Ok(())
    })?;
    math.raw_set("random", random)?;
    math.raw_set("randomseed", seed)
}

fn random(args: &Args<'_>, generator: &Generator) -> mlua::Result<f64> {
    // Redis takes the remainder by the range less one, which leaves the greatest number out and makes 0 a little likelier.
    let greatest = RANGE - 1;
    let chance = (generator.next() % greatest) as f64 / greatest as f64;
    match args.count() {
        0 => Ok(chance),
        1 => {
            let upper = low(args.integer(1)?);
            if upper < 1 {
                return Err(args.bad(1, "interval is empty"));
            }
            Ok((chance * f64::from(upper)).floor() + 1.0)
        }
        2 => {
            let (lower, upper) = (low(args.integer(1)?), low(args.integer(2)?));
            if lower > upper {
                return Err(args.bad(2, "interval is empty"));
            }
            let width = upper.wrapping_sub(lower).wrapping_add(1);
            Ok((chance * f64::from(width)).floor() + f64::from(lower))
        }
        _ => Err(error(args.lua, "wrong number of arguments")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_lrand48() {
        // glibc: srand48(0), then lrand48() three times.
        let generator = Generator::new(0);
        assert_eq!(
            [generator.next(), generator.next(), generator.next()],
            [366850414, 1610402240, 206956554]
        );
    }
}
