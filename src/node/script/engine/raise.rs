//! Errors between Rust and Lua: how a function of ours raises one in a script, and how one that was caught is read again.
//!
//! mlua can raise only its own error value. So whatever of the script can catch an error (`pcall`, `xpcall`, `resume`, `wrap`, the run
//! itself) goes through [`read`] first, and no script ever sees that value.

use super::meter::Stopped;
use mlua::{Error, IntoLua, Lua, MultiValue, RegistryKey, Table, Value};
use std::fmt;

/// The name of the chunk that holds those parts of the sandbox that are written in Lua. Its frames are no part of a script's stack.
pub(super) const SANDBOX: &str = "=(sandbox)";

/// What a function of ours raises.
pub(super) enum Raised {
    /// A string, as `error("…", 0)` would raise it.
    Text(Vec<u8>),
    /// A refusal with its text, prefix first: `{err = text}`, which `pcall` gives out as the text alone.
    Refusal {
        text: Vec<u8>,
        /// Whether it comes from a command, which has counted it already.
        counted: bool,
    },
    /// A value that a function of the script raised while ours had called it.
    Value(RegistryKey),
    /// The run is to end; see `meter.rs`.
    Stop,
    /// What Lua raises when the memory limit is reached.
    Memory,
}

impl fmt::Debug for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Refusal { text, .. } => f.write_str(&String::from_utf8_lossy(text)),
            Self::Value(_) => f.write_str("a value that a script raised"),
            Self::Stop => f.write_str("the script was stopped"),
            Self::Memory => f.write_str(NO_MEMORY),
        }
    }
}

impl std::error::Error for Raised {}

impl From<Raised> for Error {
    fn from(raised: Raised) -> Self {
        Error::external(raised)
    }
}

impl From<Stopped> for Error {
    fn from(_: Stopped) -> Self {
        Raised::Stop.into()
    }
}

/// Lua's own text.
pub(super) const NO_MEMORY: &str = "not enough memory";

/// A string without a position: what Lua raises inside its C functions.
pub(super) fn bare(text: impl AsRef<[u8]>) -> Error {
    Raised::Text(text.as_ref().to_vec()).into()
}

/// A string with the position of the script's line that called the running function: C's `luaL_error`.
pub(super) fn error(lua: &Lua, text: impl AsRef<[u8]>) -> Error {
    let mut whole = position(lua).into_bytes();
    whole.extend_from_slice(text.as_ref());
    Raised::Text(whole).into()
}

/// A refusal in Redis' words, `ERR` before it.
pub(super) fn refusal(text: &str) -> Error {
    let text = format!("ERR {text}").into_bytes();
    Raised::Refusal { text, counted: false }.into()
}

/// Where the script is: `user_script:3: `, or nothing where that is not known.
pub(super) fn position(lua: &Lua) -> String {
    let mut sandbox_below = false;
    for level in 1.. {
        let frame = lua.inspect_stack(level, |frame| {
            let source = frame.source();
            if source.source.as_deref() == Some(SANDBOX) {
                return Frame::Sandbox;
            }
            if source.what == "tail" {
                return Frame::Tail;
            }
            match (source.short_src, frame.current_line()) {
                (Some(name), Some(line)) if line > 0 => Frame::Script(format!("{name}:{line}: ")),
                _ => Frame::Other,
            }
        });
        match frame {
            Some(Frame::Sandbox) => sandbox_below = true,
            Some(Frame::Tail) if sandbox_below => sandbox_below = false,
            Some(Frame::Script(position)) => return position,
            Some(Frame::Tail | Frame::Other) | None => break,
        }
    }
    String::new()
}

enum Frame {
    Sandbox,
    Tail,
    Script(String),
    Other,
}

/// C's `luaL_argerror` for the function that runs: `bad argument #1 to 'find' (…)`.
pub(super) fn argument(lua: &Lua, number: usize, problem: &str) -> Error {
    let named = |level| {
        lua.inspect_stack(level, |frame| {
            let sandbox = frame.source().source.as_deref() == Some(SANDBOX);
            let names = frame.names();
            let method = names.name_what == Some("method");
            (sandbox, names.name.map(|name| name.into_owned()), method)
        })
    };
    // A function of the sandbox's own that found fault asks for its own name, one level up.
    let names = match named(1) {
        Some((true, name, method)) => Some((name, method)),
        _ => named(0).map(|(_, name, method)| (name, method)),
    };
    let (name, method) = names.unwrap_or((None, false));
    let name = name.unwrap_or_else(|| "?".to_owned());
    let text = match (method, number) {
        (true, 1) => format!("calling '{name}' on bad self ({problem})"),
        (true, _) => format!("bad argument #{} to '{name}' ({problem})", number - 1),
        (false, _) => format!("bad argument #{number} to '{name}' ({problem})"),
    };
    error(lua, text)
}

/// C's `luaL_typerror`: `string expected, got nil`.
pub(super) fn wrong_type(lua: &Lua, number: usize, expected: &str, got: Option<&Value>) -> Error {
    let got = got.map_or("no value", type_name);
    argument(lua, number, &format!("{expected} expected, got {got}"))
}

/// The type as Lua names it.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Boolean(_) => "boolean",
        Value::LightUserData(_) | Value::UserData(_) | Value::Error(_) | Value::Other(_) => "userdata",
        Value::Integer(_) | Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Table(_) => "table",
        Value::Function(_) => "function",
        Value::Thread(_) => "thread",
    }
}

/// A caught error as the script would have raised it.
pub(super) fn read(lua: &Lua, caught: Value) -> mlua::Result<Value> {
    match caught {
        Value::Error(error) => read_error(lua, &error),
        value => Ok(value),
    }
}

/// The same for an error that came to Rust.
pub(super) fn read_error(lua: &Lua, error: &Error) -> mlua::Result<Value> {
    match error {
        Error::CallbackError { cause, .. } => read_error(lua, cause),
        Error::ExternalError(inner) => match inner.downcast_ref::<Raised>() {
            Some(Raised::Text(text)) => lua.create_string(text)?.into_lua(lua),
            Some(Raised::Refusal { text, counted }) => refusal_table(lua, text, *counted).map(Value::Table),
            Some(Raised::Value(key)) => lua.registry_value(key),
            Some(Raised::Stop) => lua.create_string("the script was stopped")?.into_lua(lua),
            Some(Raised::Memory) => lua.create_string(NO_MEMORY)?.into_lua(lua),
            None => lua.create_string(inner.to_string())?.into_lua(lua),
        },
        Error::MemoryError(_) => lua.create_string(NO_MEMORY)?.into_lua(lua),
        Error::StackError => lua.create_string("stack overflow")?.into_lua(lua),
        Error::RuntimeError(text) | Error::SyntaxError { message: text, .. } => {
            let text = text.split("\nstack traceback:").next().unwrap_or_default();
            lua.create_string(text)?.into_lua(lua)
        }
        other => lua.create_string(other.to_string())?.into_lua(lua),
    }
}

/// `{err = text}`, as `redis.pcall` answers it and `redis.call` raises it.
pub(super) fn refusal_table(lua: &Lua, text: &[u8], counted: bool) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(0, 2)?;
    table.raw_set("err", lua.create_string(text)?)?;
    if counted {
        table.raw_set("ignore_error_stats_update", true)?;
    }
    Ok(table)
}

/// A value that a script's function raised, to be passed on.
pub(super) fn pass_on(lua: &Lua, value: Value) -> Error {
    match value {
        Value::Error(error) => *error,
        value => match lua.create_registry_value(value) {
            Ok(key) => Raised::Value(key).into(),
            Err(error) => error,
        },
    }
}

/// The arguments of a call, read as C's `luaL_check…` read them.
pub(super) struct Args<'lua> {
    pub(super) lua: &'lua Lua,
    values: Vec<Value>,
}

impl<'lua> Args<'lua> {
    pub(super) fn new(lua: &'lua Lua, values: MultiValue) -> Self {
        Self {
            lua,
            values: values.into_vec(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.values.len()
    }

    pub(super) fn values(&self) -> &[Value] {
        &self.values
    }

    /// The argument with this number, from 1 on; nil where there is none.
    pub(super) fn get(&self, number: usize) -> &Value {
        self.values.get(number - 1).unwrap_or(&Value::Nil)
    }

    pub(super) fn is_none_or_nil(&self, number: usize) -> bool {
        matches!(self.get(number), Value::Nil)
    }

    fn wrong(&self, number: usize, expected: &str) -> Error {
        wrong_type(self.lua, number, expected, self.values.get(number - 1))
    }

    /// A string; a number stands for its text.
    pub(super) fn string(&self, number: usize) -> mlua::Result<mlua::LuaString> {
        match self.get(number) {
            Value::String(text) => Ok(text.clone()),
            value @ (Value::Integer(_) | Value::Number(_)) => {
                self.lua.create_string(super::number::to_text(value))
            }
            _ => Err(self.wrong(number, "string")),
        }
    }

    /// A number; a string that reads as one stands for it.
    pub(super) fn number(&self, number: usize) -> mlua::Result<f64> {
        super::number::of(self.lua, self.get(number)).ok_or_else(|| self.wrong(number, "number"))
    }

    /// A number without its fraction.
    pub(super) fn integer(&self, number: usize) -> mlua::Result<i64> {
        self.number(number).map(super::number::truncate)
    }

    pub(super) fn integer_or(&self, number: usize, default: i64) -> mlua::Result<i64> {
        if self.is_none_or_nil(number) {
            Ok(default)
        } else {
            self.integer(number)
        }
    }

    pub(super) fn table(&self, number: usize) -> mlua::Result<Table> {
        match self.get(number) {
            Value::Table(table) => Ok(table.clone()),
            _ => Err(self.wrong(number, "table")),
        }
    }

    /// What is wrong with an argument, in the caller's words.
    pub(super) fn bad(&self, number: usize, problem: &str) -> Error {
        argument(self.lua, number, problem)
    }
}
