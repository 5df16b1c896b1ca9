//! Libraries of functions: `FUNCTION LOAD` runs a library's text once, so that it registers its functions.

use super::raise::{self, Args, refusal};
use super::sandbox::Vm;
use super::shebang::{self, NAME_RULE, ScriptFlags, is_name};
use super::{Limits, convert, redis};
use crate::machine::reply::CommandError;
use mlua::{Function, Table, Value};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

/// A library as its text says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Library {
    /// Its name.
    pub(crate) name: String,
    /// The engine, as `FUNCTION LIST` names it: `LUA`.
    pub(crate) engine: String,
    /// Its functions in the order they were registered.
    pub(crate) functions: Vec<LibraryFunction>,
}

/// A function of a library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LibraryFunction {
    /// Its name, unique among all libraries.
    pub(crate) name: String,
    /// What it says of itself.
    pub(crate) description: Option<String>,
    /// What it may do.
    pub(crate) flags: ScriptFlags,
}

struct Registered {
    name: Vec<u8>,
    description: Option<Vec<u8>>,
    callback: Function,
    flags: ScriptFlags,
}

/// Loads a library: what it is, and its functions by name.
pub(super) fn load(
    vm: &Vm,
    code: &[u8],
    limits: &Limits,
) -> Result<(Library, HashMap<String, Function>), CommandError> {
    let (header, begin) = shebang::library(code)?;
    let refused = |text: String| {
        let text = text.trim_matches(['\r', '\n']).replace(['\r', '\n'], " ");
        CommandError::Other(Cow::Owned(text))
    };
    let chunk = vm
        .compile(&code[begin..], "@user_function")
        .map_err(|message| refused(format!("ERR Error compiling function: {message}")))?;
    let registered = Rc::new(RefCell::new(Vec::new()));
    match run(vm, &chunk, &registered, limits) {
        Ok(None) => {}
        Ok(Some(message)) => return Err(refused(format!("ERR Error registering functions: {message}"))),
        Err(error) => return Err(refused(format!("ERR Error registering functions: ERR {error}"))),
    }
    let registered = registered.take();
    if registered.is_empty() {
        return Err(CommandError::text("ERR No functions registered"));
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let functions = registered
        .iter()
        .map(|function| LibraryFunction {
            name: text(&function.name),
            description: function.description.as_deref().map(text),
            flags: function.flags,
        })
        .collect();
    let callbacks = registered
        .into_iter()
        .map(|function| (text(&function.name), function.callback));
    let library = Library {
        name: header.name,
        engine: header.engine,
        functions,
    };
    Ok((library, callbacks.collect()))
}

/// Runs the library's text with `redis.register_function` and hardly anything else; gives the message of an error it raised.
fn run(
    vm: &Vm,
    chunk: &Function,
    registered: &Rc<RefCell<Vec<Registered>>>,
    limits: &Limits,
) -> mlua::Result<Option<String>> {
    let lua = &vm.lua;
    let redis = lua.create_table()?;
    redis::add_log(lua, &redis, &vm.desk)?;
    redis::add_version(&redis, limits.redis_version)?;
    // A library may keep the function and call it later: it finds the list closed then.
    let open = Rc::new(RefCell::new(Some(Rc::clone(registered))));
    let list = Rc::clone(&open);
    let register = lua.create_function(move |lua, values| match &*list.borrow() {
        Some(registered) => register(&Args::new(lua, values), &mut registered.borrow_mut()),
        None => Err(refusal(
            "redis.register_function can only be called on FUNCTION LOAD command",
        )),
    })?;
    redis.raw_set("register_function", register)?;
    vm.strict(&redis)?;
    let globals = lua.create_table()?;
    globals.raw_set("redis", vm.front(&redis)?)?;
    vm.strict(&globals)?;

    vm.meter
        .start(lua, Duration::MAX, limits.load, Default::default())?;
    vm.show_only(Some(&globals))?;
    let result = vm.run(chunk, None);
    vm.show_only(None)?;
    open.replace(None);
    if vm.meter.stopped().is_some() {
        return Ok(Some("ERR FUNCTION LOAD timeout".to_owned()));
    }
    Ok(match result? {
        (true, _) => None,
        (false, Value::Table(error)) => Some(convert::text_field(&error, "err").unwrap_or_default()),
        (false, value) => match raise::read(lua, value)? {
            Value::String(text) => Some(format!("ERR {}", text.to_string_lossy())),
            _ => Some("ERR unknown error".to_owned()),
        },
    })
}

fn register(args: &Args<'_>, registered: &mut Vec<Registered>) -> mlua::Result<()> {
    let function = match args.count() {
        1 => named(args)?,
        2 => positional(args)?,
        _ => return Err(refusal("wrong number of arguments to redis.register_function")),
    };
    if !is_name(&function.name) {
        return Err(refusal(&format!("Library {NAME_RULE}")));
    }
    if registered.iter().any(|other| other.name == function.name) {
        return Err(refusal("Function already exists in the library"));
    }
    registered.push(function);
    Ok(())
}

/// A string or a number, as text.
fn text(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        number @ (Value::Integer(_) | Value::Number(_)) => Some(super::number::to_text(number).into_bytes()),
        _ => None,
    }
}

fn positional(args: &Args<'_>) -> mlua::Result<Registered> {
    let Some(name) = text(args.get(1)) else {
        return Err(refusal(
            "first argument to redis.register_function must be a string",
        ));
    };
    let Value::Function(callback) = args.get(2) else {
        return Err(refusal(
            "second argument to redis.register_function must be a function",
        ));
    };
    Ok(Registered {
        name,
        description: None,
        callback: callback.clone(),
        flags: ScriptFlags::default(),
    })
}

fn named(args: &Args<'_>) -> mlua::Result<Registered> {
    let Value::Table(table) = args.get(1) else {
        return Err(refusal(
            "calling redis.register_function with a single argument is only applicable to Lua table (representing \
             named arguments).",
        ));
    };
    let (mut name, mut description, mut callback, mut flags) = (None, None, None, ScriptFlags::default());
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        let Some(key) = text(&key) else {
            return Err(refusal(
                "named argument key given to redis.register_function is not a string",
            ));
        };
        let must_be_text = |what: &str| {
            text(&value).ok_or_else(|| {
                refusal(&format!(
                    "{what} argument given to redis.register_function must be a string"
                ))
            })
        };
        match key.to_ascii_lowercase().as_slice() {
            b"function_name" => name = Some(must_be_text("function_name")?),
            b"description" => description = Some(must_be_text("description")?),
            b"callback" => match value {
                Value::Function(function) => callback = Some(function),
                _ => {
                    let text = "callback argument given to redis.register_function must be a function";
                    return Err(refusal(text));
                }
            },
            b"flags" => match value {
                Value::Table(list) => flags = read_flags(&list)?,
                _ => {
                    let text = "flags argument to redis.register_function must be a table representing function flags";
                    return Err(refusal(text));
                }
            },
            _ => return Err(refusal("unknown argument given to redis.register_function")),
        }
    }
    let Some(name) = name else {
        return Err(refusal(
            "redis.register_function must get a function name argument",
        ));
    };
    let Some(callback) = callback else {
        return Err(refusal("redis.register_function must get a callback argument"));
    };
    Ok(Registered {
        name,
        description,
        callback,
        flags,
    })
}

fn read_flags(list: &Table) -> mlua::Result<ScriptFlags> {
    let mut flags = ScriptFlags::default();
    for index in 1.. {
        match list.raw_get::<Value>(index)? {
            Value::Nil => break,
            value => {
                let known = text(&value).is_some_and(|name| flags.set(&name.to_ascii_lowercase()));
                if !known {
                    return Err(refusal("unknown flag given"));
                }
            }
        }
    }
    Ok(flags)
}
