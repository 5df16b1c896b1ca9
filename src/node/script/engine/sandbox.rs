//! What a script sees: Redis' globals and no more, none of which it can change.
//!
//! Redis marks tables read-only in a Lua of its own. Ours is the plain one, so such a table is an empty one in front of the real one:
//! reads go through `__index`, writes meet `__newindex`, and the few functions that look past both (`rawset`, `next`, …) are replaced by
//! ones that know what stands behind.

use super::meter::Meter;
use super::raise::{self, Args, Raised, bare, error};
use super::redis::{self, Desk};
use super::{Limits, bit, cjson, cmsgpack, random, strings, struct_, tables};
use mlua::chunk::ChunkMode;
use mlua::{Function, Lua, LuaOptions, LuaString, MultiValue, StdLib, Table, Value};
use std::cell::Cell;
use std::rc::Rc;

/// What Lua's base library has and a script of Redis has not. `newproxy` could give a value a finalizer, which no hook interrupts.
const TAKEN_AWAY: [&str; 9] = [
    "dofile", "loadfile", "print", "newproxy", "getfenv", "setfenv", "module", "require", "package",
];

/// The text of Redis' Lua.
const READ_ONLY: &str = "Attempt to modify a readonly table";

/// How deep functions of ours (`gsub`, `sort`) call a script's function that calls one of ours. Lua's own bound of such nesting.
const NESTED_MAX: usize = 200;

/// Lua's mark of compiled code, which is refused: a forged one could read and write any memory.
const COMPILED: u8 = 27;

/// Who uses a Lua state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// `EVAL`: `KEYS` and `ARGV` are globals.
    Scripts,
    /// `FCALL`: libraries are loaded with less around them than their functions run with.
    Functions,
}

/// One Lua state with its sandbox.
pub(super) struct Vm {
    pub(super) lua: Lua,
    pub(super) meter: Rc<Meter>,
    pub(super) desk: Rc<Desk>,
    /// What scripts see as `_G`: empty, in front of `real`.
    globals: Table,
    globals_meta: Table,
    real: Table,
    /// Lua's own `pcall`, for calls of ours whose error must come back as it was.
    run: Function,
    run_script: Function,
    handler: Function,
    cjson: Rc<cjson::Settings>,
}

/// What the functions of the sandbox share.
#[derive(Clone)]
pub(super) struct Shared {
    /// The real table behind each read-only one.
    pub(super) behind: Table,
    /// Lua's own `pcall`.
    pcall: Function,
    /// `function(t, k) return t[k] end`
    get: Function,
    /// `function(a, b) return a < b end`
    less: Function,
    pub(super) meter: Rc<Meter>,
    /// Calls of the script's functions from ours that are under way, one inside another.
    nested: Rc<Cell<usize>>,
    /// The most bytes a function of ours builds.
    pub(super) bytes_max: usize,
}

impl Shared {
    /// Refuses to change a read-only table.
    pub(super) fn writable(&self, table: &Table) -> mlua::Result<()> {
        if table.has_metatable() && self.behind.raw_get::<Option<Table>>(table)?.is_some() {
            return Err(bare(READ_ONLY));
        }
        Ok(())
    }

    /// Calls a function of the script's. What it raises is raised again as it was.
    pub(super) fn call(
        &self,
        lua: &Lua,
        function: &Function,
        args: impl mlua::IntoLuaMulti,
    ) -> mlua::Result<MultiValue> {
        // Lua bounds this in each coroutine by itself; the stack is one for all of them.
        if self.nested.get() >= NESTED_MAX {
            return Err(error(lua, "C stack overflow"));
        }
        let mut values = args.into_lua_multi(lua)?;
        values.push_front(Value::Function(function.clone()));
        self.nested.set(self.nested.get() + 1);
        let results = self.pcall.call::<MultiValue>(values);
        self.nested.set(self.nested.get() - 1);
        let mut results = results?;
        match results.pop_front() {
            Some(Value::Boolean(true)) => Ok(results),
            _ => Err(raise::pass_on(lua, results.pop_front().unwrap_or(Value::Nil))),
        }
    }

    /// `table[key]`, through `__index`.
    pub(super) fn index(&self, lua: &Lua, table: &Table, key: Value) -> mlua::Result<Value> {
        if !table.has_metatable() {
            return table.raw_get(key);
        }
        let mut values = self.call(lua, &self.get, (table, key))?;
        Ok(values.pop_front().unwrap_or(Value::Nil))
    }

    /// `left < right`, through `__lt`.
    pub(super) fn less(&self, lua: &Lua, left: &Value, right: &Value) -> mlua::Result<bool> {
        let values = self.call(lua, &self.less, (left, right)).map_err(|raised| {
            // The operator stands in a line of the sandbox, but no line of the script compares.
            match raise::read_error(lua, &raised) {
                Ok(Value::String(text)) => bare(without_sandbox(&text.to_string_lossy())),
                _ => raised,
            }
        })?;
        Ok(matches!(values.front(), Some(Value::Boolean(true))))
    }

    /// Whether so many bytes may be built.
    pub(super) fn fits(&self, bytes: usize) -> mlua::Result<()> {
        if bytes > self.bytes_max {
            Err(Raised::Memory.into())
        } else {
            Ok(())
        }
    }
}

impl Vm {
    pub(super) fn new(purpose: Purpose, limits: &Limits) -> mlua::Result<Self> {
        let lua = Lua::new_with(StdLib::TABLE | StdLib::STRING | StdLib::MATH, LuaOptions::new())?;
        let (meter, desk) = (Meter::new(), Rc::new(Desk::new(limits.memory_bytes)));
        let real = lua.globals();
        for name in TAKEN_AWAY {
            real.raw_set(name, Value::Nil)?;
        }
        let behind = lua.create_table()?;
        let parts = sandbox_parts(&lua, &behind, &meter)?;
        let shared = Shared {
            behind: behind.clone(),
            pcall: parts.raw_get("raw_pcall")?,
            get: parts.raw_get("get")?,
            less: parts.raw_get("less")?,
            meter: Rc::clone(&meter),
            nested: Rc::default(),
            bytes_max: limits.memory_bytes,
        };
        let (run, run_script) = (parts.raw_get("run")?, parts.raw_get("run_script")?);

        replace_base(&lua, &real, &parts, &shared)?;
        strings::replace(&lua, &real.raw_get("string")?, &shared)?;
        tables::replace(&lua, &real.raw_get("table")?, &shared)?;
        random::replace(&lua, &real.raw_get("math")?, &desk, limits.seed)?;
        let cjson_settings = Rc::new(cjson::Settings::default());
        real.raw_set("cjson", cjson::table(&lua, &cjson_settings, &shared)?)?;
        real.raw_set("cmsgpack", cmsgpack::table(&lua, &shared)?)?;
        real.raw_set("struct", struct_::table(&lua, &shared)?)?;
        real.raw_set("bit", bit::table(&lua)?)?;
        real.raw_set("os", clock(&lua, &meter)?)?;
        let redis = redis::table(&lua, &desk, &parts.raw_get("worker")?, limits.redis_version)?;
        let handler = lua.create_function(handle)?;
        if purpose == Purpose::Scripts {
            redis::add_eval_only(&lua, &redis)?;
            real.raw_set("__redis__err__handler", &handler)?;
        }
        real.raw_set("redis", redis)?;

        let (globals, globals_meta) = protect(&lua, &behind, &real)?;
        lua.set_memory_limit(limits.memory_bytes)?;
        Ok(Self {
            lua,
            meter,
            desk,
            globals,
            globals_meta,
            real,
            run,
            run_script,
            handler,
            cjson: cjson_settings,
        })
    }

    /// Compiles a script's text; the error is Lua's.
    pub(super) fn compile(&self, text: &[u8], name: &str) -> Result<Function, String> {
        compile(&self.lua, text, name).map_err(|text| String::from_utf8_lossy(&text).into_owned())
    }

    /// Runs a function of the script's: whether it came to its end, and what it gave or raised.
    pub(super) fn run(
        &self,
        function: &Function,
        arguments: Option<(Table, Table)>,
    ) -> mlua::Result<(bool, Value)> {
        self.lua.set_globals(self.globals.clone())?;
        self.cjson.reset();
        match arguments {
            Some((keys, args)) => self.run.call((&self.handler, function, keys, args)),
            None => self.run_script.call((&self.handler, function)),
        }
    }

    /// Sets what is a global for one run.
    pub(super) fn set_global(&self, name: &str, value: Value) -> mlua::Result<()> {
        self.real.raw_set(name, value)
    }

    /// Shows only this table's fields as globals, while a library is loaded.
    pub(super) fn show_only(&self, table: Option<&Table>) -> mlua::Result<()> {
        self.globals_meta.raw_set("__index", table.unwrap_or(&self.real))
    }

    /// A table whose fields cannot be changed and whose missing fields are an error.
    pub(super) fn strict(&self, real: &Table) -> mlua::Result<()> {
        real.set_metatable(Some(strict(&self.lua)?))
    }

    /// Puts a read-only table in front of this one.
    pub(super) fn front(&self, real: &Table) -> mlua::Result<Table> {
        front(&self.lua, None, real).map(|(front, _)| front)
    }
}

/// A text without the position in `sandbox.lua` that Lua put before it.
fn without_sandbox(text: &str) -> &str {
    let rest = text
        .strip_prefix(&raise::SANDBOX[1..])
        .and_then(|rest| rest.strip_prefix(':'));
    rest.and_then(|rest| rest.split_once(": "))
        .map_or(text, |(_, text)| text)
}

/// Loads `sandbox.lua`: the functions it replaces, and those that the rest of the sandbox is made with.
fn sandbox_parts(lua: &Lua, behind: &Table, meter: &Rc<Meter>) -> mlua::Result<Table> {
    let fail = lua.create_function(|lua, (number, expected, got): (usize, LuaString, MultiValue)| {
        let expected = expected.to_string_lossy();
        Err::<(), _>(match got.front() {
            None if expected.contains(' ') => raise::argument(lua, number, &expected),
            got => raise::wrong_type(lua, number, &expected, got),
        })
    })?;
    let refuse = lua.create_function(|_, ()| Err::<(), _>(bare(READ_ONLY)))?;
    let rethrow = lua.create_function(|lua, caught: Value| {
        Err::<(), _>(match raise::read(lua, caught)? {
            Value::String(text) => error(lua, text.as_bytes()),
            value => raise::pass_on(lua, value),
        })
    })?;
    let plain = lua.create_function(|lua, caught: Value| {
        let value = raise::read(lua, caught)?;
        // Before Redis 7 errors were strings, so `pcall` gives out the string in the table.
        match &value {
            Value::Table(table) => match table.get("err") {
                Ok(text @ (Value::String(_) | Value::Integer(_) | Value::Number(_))) => Ok(text),
                _ => Ok(value),
            },
            _ => Ok(value),
        }
    })?;
    let kept = lua.create_function(|lua, caught: Value| raise::read(lua, caught))?;
    let counted = Rc::clone(meter);
    let halt = lua.create_function(move |_, ()| Ok(counted.resume()?))?;
    let meter = Rc::clone(meter);
    let stopped = lua.create_function(move |_, _: MultiValue| Ok(meter.stopped().is_some()))?;
    let load_string = lua.create_function(load_string)?;
    lua.load(include_str!("sandbox.lua"))
        .set_name(raise::SANDBOX)
        .call((
            behind,
            fail,
            refuse,
            rethrow,
            plain,
            kept,
            stopped,
            halt,
            load_string,
        ))
}

/// Replaces what the base library does too freely.
fn replace_base(lua: &Lua, real: &Table, parts: &Table, shared: &Shared) -> mlua::Result<()> {
    for name in ["pcall", "xpcall", "next", "pairs", "rawget", "rawset", "load"] {
        real.raw_set(name, parts.raw_get::<Function>(name)?)?;
    }
    let coroutine: Table = real.raw_get("coroutine")?;
    for pair in parts.raw_get::<Table>("coroutine")?.pairs::<Value, Value>() {
        let (name, function) = pair?;
        coroutine.raw_set(name, function)?;
    }
    real.raw_set("setmetatable", set_metatable(lua, shared)?)?;
    real.raw_set("loadstring", lua.create_function(load_string)?)?;
    let with = shared.clone();
    real.raw_set(
        "collectgarbage",
        lua.create_function(move |lua, values| collect(lua, &with, values))?,
    )?;
    real.raw_set(
        "gcinfo",
        lua.create_function(|lua, _: MultiValue| Ok(lua.used_memory() / 1024))?,
    )
}

fn set_metatable(lua: &Lua, shared: &Shared) -> mlua::Result<Function> {
    let with = shared.clone();
    lua.create_function(move |lua, values| {
        let args = Args::new(lua, values);
        let table = args.table(1)?;
        let meta = match (args.count(), args.get(2)) {
            (2.., Value::Nil) => None,
            (2.., Value::Table(meta)) => Some(meta.clone()),
            _ => return Err(args.bad(2, "nil or table expected")),
        };
        with.writable(&table)?;
        if let Some(old) = table.metatable()
            && !matches!(old.raw_get("__metatable")?, Value::Nil)
        {
            return Err(error(lua, "cannot change a protected metatable"));
        }
        table.set_metatable(meta)?;
        Ok(table)
    })
}

/// The text as a function, or Lua's message.
fn compile(lua: &Lua, text: &[u8], name: &str) -> Result<Function, Vec<u8>> {
    // Lua takes the name for a C string.
    let name = name.split('\0').next().unwrap_or_default();
    if text.first() == Some(&COMPILED) {
        // What Redis' Lua says, which reads it as text. A comment makes the plain one name the chunk in the same way.
        let message = compile_text(lua, b"=", name).err().unwrap_or_default();
        let text = String::from_utf8_lossy(&message).replace("near '='", "near 'char(27)'");
        return Err(text.into_bytes());
    }
    compile_text(lua, text, name)
}

fn compile_text(lua: &Lua, text: &[u8], name: &str) -> Result<Function, Vec<u8>> {
    lua.load(text)
        .set_name(name)
        .set_mode(ChunkMode::Text)
        .into_function()
        .map_err(|error| match raise::read_error(lua, &error) {
            Ok(Value::String(message)) => message.as_bytes().to_vec(),
            _ => raise::NO_MEMORY.into(),
        })
}

fn compiled(lua: &Lua, text: &[u8], name: &str) -> mlua::Result<(Value, Value)> {
    match compile(lua, text, name) {
        Ok(function) => Ok((Value::Function(function), Value::Nil)),
        Err(message) => Ok((Value::Nil, Value::String(lua.create_string(message)?))),
    }
}

fn load_string(lua: &Lua, values: MultiValue) -> mlua::Result<MultiValue> {
    let args = Args::new(lua, values);
    let text = args.string(1)?;
    let name = if args.is_none_or_nil(2) {
        text.clone()
    } else {
        args.string(2)?
    };
    one_or_two(compiled(lua, &text.as_bytes(), &name.to_string_lossy())?)
}

/// `f` alone, or `nil` and the message.
fn one_or_two((function, message): (Value, Value)) -> mlua::Result<MultiValue> {
    Ok(match function {
        Value::Nil => MultiValue::from_vec(vec![Value::Nil, message]),
        function => MultiValue::from_vec(vec![function]),
    })
}

/// `collectgarbage`: counts and collects. A script cannot turn the collector off or slow it down for those that come after it.
fn collect(lua: &Lua, shared: &Shared, values: MultiValue) -> mlua::Result<Value> {
    let args = Args::new(lua, values);
    let option = if args.is_none_or_nil(1) {
        lua.create_string("collect")?
    } else {
        args.string(1)?
    };
    shared.meter.look()?;
    match &*option.as_bytes() {
        b"collect" => {
            lua.gc_collect()?;
            Ok(Value::Integer(0))
        }
        b"count" => Ok(Value::Number(lua.used_memory() as f64 / 1024.0)),
        b"step" => Ok(Value::Boolean(lua.gc_step()?)),
        b"stop" | b"restart" => Ok(Value::Integer(0)),
        b"setpause" | b"setstepmul" => Ok(Value::Integer(200)),
        other => {
            let problem = format!("invalid option '{}'", String::from_utf8_lossy(other));
            Err(args.bad(1, &problem))
        }
    }
}

/// `os.clock`: seconds since the run began, as far as a script can tell the difference.
fn clock(lua: &Lua, meter: &Rc<Meter>) -> mlua::Result<Table> {
    let os = lua.create_table()?;
    let meter = Rc::clone(meter);
    let clock = lua.create_function(move |_, _: MultiValue| Ok(meter.started().elapsed().as_secs_f64()))?;
    os.raw_set("clock", clock)?;
    Ok(os)
}

/// Makes the globals and every library read-only. Gives the table that scripts see as `_G`, and its metatable.
fn protect(lua: &Lua, behind: &Table, real: &Table) -> mlua::Result<(Table, Table)> {
    let names: Vec<LuaString> = real
        .pairs::<LuaString, Value>()
        .filter_map(|pair| pair.ok().map(|(name, _)| name))
        .collect();
    let mut string_front = None;
    for name in names {
        if let Value::Table(library) = real.raw_get(&name)?
            && &library != real
        {
            let (front, _) = front(lua, Some(behind), &library)?;
            if *name.as_bytes() == b"string"[..] {
                string_front = Some(front.clone());
            }
            real.raw_set(name, front)?;
        }
    }
    let (globals, meta) = front(lua, Some(behind), real)?;
    real.raw_set("_G", &globals)?;
    let strict = strict(lua)?;
    // What `getmetatable(_G)` shows: something with an `__index`, that cannot be changed.
    let (shown, _) = front(lua, Some(behind), &strict)?;
    meta.raw_set("__metatable", shown)?;
    real.set_metatable(Some(strict))?;
    lua.set_globals(globals.clone())?;
    if let (Some(front), Some(meta)) = (string_front, lua.type_metatable::<LuaString>()) {
        let shown = lua.create_table()?;
        shown.raw_set("__index", front)?;
        let (shown, _) = self::front(lua, Some(behind), &shown)?;
        meta.raw_set("__metatable", shown)?;
    }
    Ok((globals, meta))
}

/// An empty table in front of `real`, and its metatable.
fn front(lua: &Lua, behind: Option<&Table>, real: &Table) -> mlua::Result<(Table, Table)> {
    let (front, meta) = (lua.create_table()?, lua.create_table()?);
    meta.raw_set("__index", real)?;
    meta.raw_set(
        "__newindex",
        lua.create_function(|lua, _: MultiValue| Err::<(), _>(error(lua, READ_ONLY)))?,
    )?;
    meta.raw_set("__metatable", false)?;
    front.set_metatable(Some(meta.clone()))?;
    if let Some(behind) = behind {
        behind.raw_set(&front, real)?;
    }
    Ok((front, meta))
}

/// A metatable under which a missing field is an error.
fn strict(lua: &Lua) -> mlua::Result<Table> {
    let missing = lua.create_function(|lua, (_, name): (Value, Value)| {
        let name = match &name {
            Value::String(name) => name.to_string_lossy(),
            number @ (Value::Integer(_) | Value::Number(_)) => super::number::to_text(number),
            _ => {
                let text = "Second argument to luaProtectedTableError must be a string or number";
                return Err::<(), _>(error(lua, text));
            }
        };
        let text = format!("Script attempted to access nonexistent global variable '{name}'");
        Err(error(lua, text))
    })?;
    let meta = lua.create_table()?;
    meta.raw_set("__index", missing)?;
    Ok(meta)
}

/// What becomes of an error that the script does not catch: a table that says what and where.
fn handle(lua: &Lua, caught: Value) -> mlua::Result<Value> {
    let table = match raise::read(lua, caught)? {
        Value::Table(table) => table,
        value => {
            let text = match &value {
                Value::String(text) => text.as_bytes().to_vec(),
                value => value.to_string()?.into_bytes(),
            };
            raise::refusal_table(lua, &[b"ERR ", &text[..]].concat(), false)?
        }
    };
    if let Some((source, line)) = where_raised(lua) {
        table.set("source", source)?;
        table.set("line", line)?;
    }
    Ok(Value::Table(table))
}

/// The frame that raised the error; where that is a C function, the one that called it.
fn where_raised(lua: &Lua) -> Option<(String, i64)> {
    let (mut may_skip, mut sandbox_below) = (true, false);
    for level in 1.. {
        let (what, source, line) = lua.inspect_stack(level, |frame| {
            let source = frame.source();
            let line = frame
                .current_line()
                .and_then(|line| i64::try_from(line).ok())
                .unwrap_or(-1);
            (
                source.what,
                source
                    .source
                    .map(|source| source.into_owned())
                    .unwrap_or_default(),
                line,
            )
        })?;
        if source == raise::SANDBOX {
            sandbox_below = true;
            continue;
        }
        if what == "tail" && sandbox_below {
            continue;
        }
        if what == "C" && may_skip {
            may_skip = false;
            continue;
        }
        return Some((source, line));
    }
    None
}
