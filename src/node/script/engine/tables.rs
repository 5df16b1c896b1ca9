//! Those functions of the table `table` that can take long inside one call, metered, or that look past what is read-only: `insert`, `sort`.

use super::number::low;
use super::raise::{Args, error, wrong_type};
use super::sandbox::Shared;
use mlua::{Function, Lua, MultiValue, Table, Value};

/// Replaces the functions in the table `table`.
pub(super) fn replace(lua: &Lua, table: &Table, shared: &Shared) -> mlua::Result<()> {
    let with = shared.clone();
    table.raw_set(
        "insert",
        lua.create_function(move |lua, values| insert(lua, &with, values))?,
    )?;
    let with = shared.clone();
    table.raw_set(
        "sort",
        lua.create_function(move |lua, values| sort(lua, &with, values))?,
    )
}

fn insert(lua: &Lua, shared: &Shared, values: MultiValue) -> mlua::Result<()> {
    let args = Args::new(lua, values);
    let table = args.table(1)?;
    let end = i64::try_from(table.raw_len()).expect("nothing in memory has 2^63 items") + 1;
    match args.count() {
        2 => {
            shared.writable(&table)?;
            table.raw_set(end, args.get(2))
        }
        3 => {
            let position = i64::from(low(args.integer(2)?));
            shared.writable(&table)?;
            for index in (position + 1..=end.max(position)).rev() {
                shared.meter.step()?;
                table.raw_set(index, table.raw_get::<Value>(index - 1)?)?;
            }
            table.raw_set(position, args.get(3))
        }
        _ => Err(error(lua, "wrong number of arguments to 'insert'")),
    }
}

fn sort(lua: &Lua, shared: &Shared, values: MultiValue) -> mlua::Result<()> {
    let args = Args::new(lua, values);
    let table = args.table(1)?;
    let comparator = match args.get(2) {
        Value::Nil => None,
        Value::Function(function) => Some(function.clone()),
        other => return Err(wrong_type(lua, 2, "function", Some(other))),
    };
    let length = i64::try_from(table.raw_len()).expect("nothing in memory has 2^63 items");
    if length > 0 {
        shared.writable(&table)?;
    }
    Sort {
        lua,
        shared,
        table,
        comparator,
    }
    .range(1, length)
}

/// Lua's quicksort, step by step: an order that contradicts itself must come to the same result or the same error.
struct Sort<'a> {
    lua: &'a Lua,
    shared: &'a Shared,
    table: Table,
    comparator: Option<Function>,
}

impl Sort<'_> {
    fn get(&self, index: i64) -> mlua::Result<Value> {
        self.table.raw_get(index)
    }

    fn set(&self, index: i64, value: &Value) -> mlua::Result<()> {
        self.table.raw_set(index, value)
    }

    fn less(&self, left: &Value, right: &Value) -> mlua::Result<bool> {
        self.shared.meter.step()?;
        if let Some(comparator) = &self.comparator {
            let results = self.shared.call(self.lua, comparator, (left, right))?;
            return Ok(!matches!(
                results.front(),
                None | Some(Value::Nil | Value::Boolean(false))
            ));
        }
        match (left, right) {
            (Value::Integer(left), Value::Integer(right)) => Ok(left < right),
            (Value::Integer(left), Value::Number(right)) => Ok((*left as f64) < *right),
            (Value::Number(left), Value::Integer(right)) => Ok(*left < *right as f64),
            (Value::Number(left), Value::Number(right)) => Ok(left < right),
            (Value::String(left), Value::String(right)) => {
                let (left, right) = (left.as_bytes(), right.as_bytes());
                self.shared.meter.steps(left.len().min(right.len()) / 16)?;
                Ok(left[..] < right[..])
            }
            _ => self.shared.less(self.lua, left, right),
        }
    }

    /// Puts the two in order.
    fn order(&self, low: i64, high: i64) -> mlua::Result<()> {
        let (left, right) = (self.get(low)?, self.get(high)?);
        if self.less(&right, &left)? {
            self.set(low, &right)?;
            self.set(high, &left)?;
        }
        Ok(())
    }

    fn range(&self, mut low: i64, mut high: i64) -> mlua::Result<()> {
        while low < high {
            self.order(low, high)?;
            if high - low == 1 {
                break;
            }
            let middle = (low + high) / 2;
            let (at_middle, at_low) = (self.get(middle)?, self.get(low)?);
            if self.less(&at_middle, &at_low)? {
                self.set(middle, &at_low)?;
                self.set(low, &at_middle)?;
            } else {
                self.order(middle, high)?;
            }
            if high - low == 2 {
                break;
            }
            let pivot = self.get(middle)?;
            let last = self.get(high - 1)?;
            self.set(middle, &last)?;
            self.set(high - 1, &pivot)?;
            let split = self.partition(low, high, &pivot)?;
            let (at_split, at_last) = (self.get(split)?, self.get(high - 1)?);
            self.set(high - 1, &at_split)?;
            self.set(split, &at_last)?;
            // The smaller half is sorted by a call of its own, so the calls never nest deeper than the length has bits.
            if split - low < high - split {
                self.range(low, split - 1)?;
                low = split + 1;
            } else {
                self.range(split + 1, high)?;
                high = split - 1;
            }
        }
        Ok(())
    }

    /// Moves what is less than the pivot to the left of what is greater; where they meet.
    fn partition(&self, low: i64, high: i64, pivot: &Value) -> mlua::Result<i64> {
        let invalid = || error(self.lua, "invalid order function for sorting");
        let (mut left, mut right) = (low, high - 1);
        loop {
            left += 1;
            let mut at_left = self.get(left)?;
            while self.less(&at_left, pivot)? {
                if left > high {
                    return Err(invalid());
                }
                left += 1;
                at_left = self.get(left)?;
            }
            right -= 1;
            let mut at_right = self.get(right)?;
            while self.less(pivot, &at_right)? {
                if right < low {
                    return Err(invalid());
                }
                right -= 1;
                at_right = self.get(right)?;
            }
            if right < left {
                return Ok(left);
            }
            self.set(left, &at_right)?;
            self.set(right, &at_left)?;
        }
    }
}
