//! The Lua 5.1 engine behind `EVAL` and `FCALL`: what Redis 7.0.15 gives a script, with every bound that Redis leaves open.
//!
//! One engine belongs to one thread, with a stack of [`STACK_BYTES`]. It knows nothing of Raft, clients or the keyspace: a run is given a
//! [`Host`], and each `redis.call` is one call of it. A script cannot crash the process, leave anything behind for the next one, or run on
//! after it was killed: instructions are metered (`meter.rs`), memory is capped, and Lua's own functions that could take long inside one
//! call are replaced by metered ones (`pattern.rs`, `strings.rs`, `tables.rs`).
//!
//! | file | what it is |
//! |---|---|
//! | `meter.rs` | when a run ends before its script does |
//! | `sandbox.rs`, `sandbox.lua` | which globals there are, and that none can be changed |
//! | `raise.rs` | errors between Rust and Lua |
//! | `redis.rs`, `convert.rs` | the table `redis`; replies to values and back |
//! | `shebang.rs`, `library.rs` | first lines with `#!`; `redis.register_function` |
//! | `strings.rs`, `pattern.rs`, `tables.rs`, `random.rs`, `number.rs` | replaced parts of Lua's library |
//! | `cjson.rs`, `cmsgpack.rs`, `struct_.rs`, `bit.rs` | the libraries Redis adds |

mod bit;
mod cjson;
mod cmsgpack;
mod convert;
mod library;
mod meter;
mod number;
mod pattern;
mod raise;
mod random;
mod redis;
mod sandbox;
mod shebang;
mod strings;
mod struct_;
mod tables;
#[cfg(test)]
mod tests;

use crate::machine::reply::{CommandError, Reply};
use bytes::Bytes;
#[allow(unused_imports, reason = "the types of what is given out")]
pub(crate) use library::{Library, LibraryFunction};
pub(crate) use meter::Signals;
use meter::Stop;
use mlua::{Table, Value};
use sandbox::{Purpose, Vm};
use sha1::{Digest, Sha1};
#[allow(unused_imports, reason = "the types of what is given out")]
pub(crate) use shebang::{Header, ScriptFlags, library as library_header, script as script_flags};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// The stack of the thread an engine runs on: Lua's own nesting is bounded (200 C calls, 16 coroutines), this is room for all of it.
pub(crate) const STACK_BYTES: usize = 32 * 1024 * 1024;

/// Results of one call of ours. Lua's stack ends a little above.
const RESULTS: usize = 7_900;

/// What a running script may ask of the world. One `redis.call` is one `call`.
pub(crate) trait Host {
    /// Runs a command; a refusal is `Reply::Error` with Redis' text. Whatever must be checked (unknown command, `noscript`, ACL, writes in
    /// a read-only script) is checked here.
    fn call(&mut self, argv: &[Bytes]) -> Reply;

    /// Whether the user may run this command (`redis.acl_check_cmd`); nothing where there is no such command.
    fn may_run(&mut self, argv: &[Bytes]) -> Option<bool>;

    /// `redis.log`: a level from 0 (debug) to 3 (warning), and the message.
    fn log(&mut self, level: u8, message: &[u8]);
}

/// What an engine may use.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Memory of one Lua state in bytes; an engine has two, one for scripts and one for functions.
    pub(crate) memory_bytes: usize,
    /// Compiled scripts, and loaded libraries, that are kept; the one used longest ago goes.
    pub(crate) kept: usize,
    /// Time a library may take to load. Redis: 500 ms.
    pub(crate) load: Duration,
    /// What `redis.REDIS_VERSION` says.
    pub(crate) redis_version: &'static str,
    /// Where `math.random` begins.
    pub(crate) seed: i32,
}

impl Limits {
    /// The bounds Redis has, and 64 MiB.
    pub(crate) fn new(redis_version: &'static str, seed: i32) -> Self {
        Self {
            memory_bytes: 64 * 1024 * 1024,
            kept: 500,
            load: Duration::from_millis(500),
            redis_version,
            seed,
        }
    }
}

/// One run of a script or function.
#[derive(Clone, Debug)]
pub(crate) struct Run<'a> {
    /// `KEYS`.
    pub(crate) keys: &'a [Bytes],
    /// `ARGV`.
    pub(crate) args: &'a [Bytes],
    /// How the run hears that it was killed, and says that it is busy.
    pub(crate) signals: Arc<Signals>,
    /// After this the run says that it is busy. Redis: `lua-time-limit`.
    pub(crate) busy_after: Duration,
    /// After this the run is ended.
    pub(crate) ends_after: Duration,
}

/// Compiles and runs scripts. Belongs to one thread.
pub(crate) struct Engine {
    limits: Limits,
    scripts: State,
    functions: State,
}

/// A Lua state and what was compiled in it.
struct State {
    purpose: Purpose,
    vm: Vm,
    kept: HashMap<String, Kept>,
    uses: u64,
}

/// A compiled script, or the functions of a loaded library.
struct Kept {
    functions: HashMap<String, mlua::Function>,
    used: u64,
}

/// Hexadecimal digits.
const HEX: &[u8; 16] = b"0123456789abcdef";

/// SHA-1 in lower-case hexadecimal digits: the name of a script.
pub(crate) fn sha1_hex(text: &[u8]) -> String {
    let digit = |half: u8| char::from(HEX[usize::from(half)]);
    let digest = Sha1::digest(text);
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(digit).collect()
}

impl Engine {
    /// # Errors
    /// When the memory limit leaves no room for Lua itself.
    pub(crate) fn new(limits: Limits) -> Result<Self, CommandError> {
        Ok(Self {
            scripts: State::new(Purpose::Scripts, &limits)?,
            functions: State::new(Purpose::Functions, &limits)?,
            limits,
        })
    }

    /// Compiles a script and gives its name: `SCRIPT LOAD`.
    ///
    /// # Errors
    /// Redis' text for a faulty first line, or for text that is not Lua.
    pub(crate) fn compile(&mut self, text: &[u8]) -> Result<String, CommandError> {
        let sha = sha1_hex(text);
        self.script(text, &sha).map(|_| sha)
    }

    /// Runs a script: `EVAL`.
    pub(crate) fn run(&mut self, text: &[u8], run: &Run<'_>, host: &mut dyn Host) -> Reply {
        let sha = sha1_hex(text);
        let function = match self.script(text, &sha) {
            Ok(function) => function,
            Err(error) => return Reply::Error(error),
        };
        let vm = &self.scripts.vm;
        let result = vm.start(run).and_then(|()| {
            vm.with_room_for(run, || {
                vm.set_global("KEYS", Value::Table(vm.strings(run.keys)?))?;
                vm.set_global("ARGV", Value::Table(vm.strings(run.args)?))
            })?;
            vm.desk.lend(&vm.lua, host, || vm.run(&function, None))
        });
        let reply = vm.reply(result, &sha);
        self.scripts.tidy(&self.limits);
        reply
    }

    /// Loads a library for its list of functions: `FUNCTION LOAD`.
    ///
    /// # Errors
    /// Redis' texts for a faulty first line, text that is not Lua, and what `redis.register_function` refuses.
    pub(crate) fn load_library(&mut self, code: &[u8]) -> Result<Library, CommandError> {
        let (library, functions) = library::load(&self.functions.vm, code, &self.limits)?;
        self.functions.keep(sha1_hex(code), functions, &self.limits);
        Ok(library)
    }

    /// Runs a function of the library with this code: `FCALL`. Loads the library if this engine has not.
    pub(crate) fn call_function(
        &mut self,
        code: &[u8],
        name: &str,
        run: &Run<'_>,
        host: &mut dyn Host,
    ) -> Reply {
        let function = match self.function(code, name) {
            Ok(function) => function,
            Err(error) => return Reply::Error(error),
        };
        let vm = &self.functions.vm;
        let result = vm.start(run).and_then(|()| {
            let arguments = vm.with_room_for(run, || Ok((vm.strings(run.keys)?, vm.strings(run.args)?)))?;
            vm.desk.lend(&vm.lua, host, || vm.run(&function, Some(arguments)))
        });
        let reply = vm.reply(result, name);
        self.functions.tidy(&self.limits);
        reply
    }

    /// Collects what was compiled and loaded and is kept no more, where that is much.
    pub(crate) fn tidy(&mut self) {
        self.scripts.tidy(&self.limits);
        self.functions.tidy(&self.limits);
    }

    /// Forgets all scripts.
    #[cfg(test)]
    pub(crate) fn flush_scripts(&mut self) {
        self.scripts.renew(&self.limits);
    }

    /// Forgets all libraries.
    #[cfg(test)]
    pub(crate) fn flush_libraries(&mut self) {
        self.functions.renew(&self.limits);
    }

    /// Memory of Lua in bytes: of scripts, and of functions.
    #[cfg(test)]
    pub(crate) fn memory_bytes(&self) -> (usize, usize) {
        (
            self.scripts.vm.lua.used_memory(),
            self.functions.vm.lua.used_memory(),
        )
    }

    fn script(&mut self, text: &[u8], sha: &str) -> Result<mlua::Function, CommandError> {
        if let Some(function) = self.scripts.kept(sha, "") {
            return Ok(function);
        }
        let (_, begin) = script_flags(text)?;
        let function = self
            .scripts
            .vm
            .compile(&text[begin..], "@user_script")
            .map_err(|message| {
                let text = format!(
                    "ERR Error compiling script (new function): {}",
                    one_line(&message)
                );
                CommandError::Other(Cow::Owned(text))
            })?;
        let functions = HashMap::from([(String::new(), function.clone())]);
        self.scripts.keep(sha.to_owned(), functions, &self.limits);
        Ok(function)
    }

    fn function(&mut self, code: &[u8], name: &str) -> Result<mlua::Function, CommandError> {
        let sha = sha1_hex(code);
        if !self.functions.kept.contains_key(&sha) {
            self.load_library(code)?;
        }
        self.functions
            .kept(&sha, name)
            .ok_or(CommandError::text("ERR Function not found"))
    }
}

impl State {
    fn new(purpose: Purpose, limits: &Limits) -> Result<Self, CommandError> {
        let vm = Vm::new(purpose, limits).map_err(|error| {
            let text = format!("ERR Lua could not be started: {}", one_line(&error.to_string()));
            CommandError::Other(Cow::Owned(text))
        })?;
        Ok(Self {
            purpose,
            vm,
            kept: HashMap::new(),
            uses: 0,
        })
    }

    fn kept(&mut self, key: &str, name: &str) -> Option<mlua::Function> {
        self.uses += 1;
        let kept = self.kept.get_mut(key)?;
        kept.used = self.uses;
        kept.functions.get(name).cloned()
    }

    fn keep(&mut self, key: String, functions: HashMap<String, mlua::Function>, limits: &Limits) {
        while self.kept.len() >= limits.kept {
            let oldest = self
                .kept
                .iter()
                .min_by_key(|(_, kept)| kept.used)
                .map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { break };
            self.kept.remove(&oldest);
        }
        self.uses += 1;
        self.kept.insert(
            key,
            Kept {
                functions,
                used: self.uses,
            },
        );
    }

    /// Collects what a run left, where that is much; where it cannot be collected, begins anew.
    fn tidy(&mut self, limits: &Limits) {
        if self.vm.lua.used_memory() <= limits.memory_bytes / 2 {
            return;
        }
        let _ = self.vm.set_global("KEYS", Value::Nil);
        let _ = self.vm.set_global("ARGV", Value::Nil);
        // The second round frees what the first one has only found.
        let collected = self.vm.lua.gc_collect().and_then(|()| self.vm.lua.gc_collect());
        if collected.is_err() || self.vm.lua.used_memory() > limits.memory_bytes / 2 {
            self.renew(limits);
        }
    }

    fn renew(&mut self, limits: &Limits) {
        // It could be started with these limits before.
        if let Ok(new) = Self::new(self.purpose, limits) {
            *self = new;
        }
    }
}

impl Vm {
    fn start(&self, run: &Run<'_>) -> mlua::Result<()> {
        self.meter.start(
            &self.lua,
            run.busy_after,
            run.ends_after,
            Arc::clone(&run.signals),
        )
    }

    /// Makes what a run is given.
    fn with_room_for<R>(&self, run: &Run<'_>, make: impl FnOnce() -> mlua::Result<R>) -> mlua::Result<R> {
        let bytes = convert::texts_bytes(run.keys) + convert::texts_bytes(run.args);
        convert::with_room(&self.lua, self.desk.bytes_max, bytes, make)
    }

    fn strings(&self, items: &[Bytes]) -> mlua::Result<Table> {
        let table = self.lua.create_table_with_capacity(items.len(), 0)?;
        for (index, item) in items.iter().enumerate() {
            table.raw_set(index + 1, self.lua.create_string(item)?)?;
        }
        Ok(table)
    }

    /// What a run came to, as the client gets it. `name` is the script's SHA-1 or the function's name.
    fn reply(&self, result: mlua::Result<(bool, Value)>, name: &str) -> Reply {
        if let Some((stop, at)) = self.meter.stopped() {
            return stopped(stop, at, name);
        }
        let error = match result {
            Ok((true, value)) => {
                let (resp3, bytes_max) = (self.desk.resp3(), self.desk.bytes_max);
                let read = || Ok(convert::to_reply(&value, resp3, bytes_max));
                return convert::with_room(&self.lua, bytes_max, convert::READING_BYTES, read)
                    .unwrap_or_else(|error| failure(raise::read_error(&self.lua, &error), name));
            }
            Ok((false, Value::Table(error))) => error,
            Ok((false, value)) => return failure(raise::read(&self.lua, value), name),
            Err(error) => return failure(raise::read_error(&self.lua, &error), name),
        };
        let text = convert::text_field(&error, "err").unwrap_or_else(|| "ERR unknown error".to_owned());
        let source = convert::text_field(&error, "source").zip(convert::text_field(&error, "line"));
        match source {
            Some((source, line)) => convert::refused(&format!("{text} script: {name}, on {source}:{line}.")),
            None => convert::refused(&text),
        }
    }
}

fn stopped(stop: Stop, at: Option<(String, usize)>, name: &str) -> Reply {
    let text = match stop {
        Stop::Killed => "ERR Script killed by user with SCRIPT KILL...",
        Stop::OutOfTime => "ERR Script ended: it ran for longer than a script may.",
    };
    let at = at
        .map(|(source, line)| format!(" script: {name}, on {source}:{line}."))
        .unwrap_or_default();
    convert::refused(&format!("{text}{at}"))
}

/// What Redis answers where Lua could not even call the handler of errors: it ran out of memory, or of stack.
fn failure(raised: mlua::Result<Value>, name: &str) -> Reply {
    let text = match raised {
        Ok(Value::String(text)) => text.to_string_lossy(),
        _ => "execution failure".to_owned(),
    };
    let text: String = text.chars().take(100).collect();
    convert::refused(&format!("ERR Error running script {name}, {text}"))
}

fn one_line(text: &str) -> String {
    text.trim_matches(['\r', '\n']).replace(['\r', '\n'], " ")
}
