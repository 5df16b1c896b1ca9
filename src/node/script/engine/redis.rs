//! The table `redis`: what a script asks of the world, through a desk where the host of the run is called.

use super::convert::{self, arguments};
use super::raise::{self, Args, Raised, refusal};
use super::{Host, sha1_hex};
use crate::machine::reply::Reply;
use bytes::Bytes;
use mlua::thread::ThreadStatus;
use mlua::{Function, Lua, MultiValue, Table, Thread, Value};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Levels of `redis.log`, least first.
const LEVELS: [&str; 4] = ["LOG_DEBUG", "LOG_VERBOSE", "LOG_NOTICE", "LOG_WARNING"];

/// Where commands of a script would go in Redis. Here all go everywhere.
const REPLICATION: [(&str, u8); 5] = [
    ("REPL_NONE", 0),
    ("REPL_AOF", 1),
    ("REPL_SLAVE", 2),
    ("REPL_REPLICA", 2),
    ("REPL_ALL", 3),
];

/// With more arguments than these a call leaves too little of the 8,000 values that the stack of a function in Lua may hold.
const CROWDED: usize = 7_000;

/// What the function that reaches the host takes of a Lua state.
const DOOR_BYTES: usize = 1 << 10;

/// Passes what a script asks to the host of its run and the answer back. The functions of `redis` live as long as the Lua state, the
/// host is only lent to one run: `door` is the function that reaches it, there while the run lasts.
pub(super) struct Desk {
    door: RefCell<Option<Function>>,
    asked: RefCell<Option<Asked>>,
    answer: RefCell<Option<Reply>>,
    resp3: Cell<bool>,
    /// The memory of the Lua state: the most bytes that one call says.
    pub(super) bytes_max: usize,
    /// The body of `aside`.
    worker: RefCell<Option<Function>>,
    /// A coroutine with a stack of its own, for a call whose arguments fill the script's.
    aside: RefCell<Option<Thread>>,
    work: RefCell<Option<(Vec<Bytes>, bool)>>,
    done: RefCell<Option<mlua::Result<Value>>>,
}

enum Asked {
    Call(Vec<Bytes>),
    MayRun(Vec<Bytes>),
    Log(u8, Vec<u8>),
}

impl Desk {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            door: RefCell::default(),
            asked: RefCell::default(),
            answer: RefCell::default(),
            resp3: Cell::default(),
            bytes_max,
            worker: RefCell::default(),
            aside: RefCell::default(),
            work: RefCell::default(),
            done: RefCell::default(),
        }
    }

    /// Lends the host to `run`.
    pub(super) fn lend<R>(
        &self,
        lua: &Lua,
        host: &mut dyn Host,
        run: impl FnOnce() -> mlua::Result<R>,
    ) -> mlua::Result<R> {
        self.resp3.set(false);
        self.prepare(lua)?;
        lua.scope(|scope| {
            let serve = |_: &Lua, ()| {
                self.serve(host);
                Ok(())
            };
            let door = convert::with_room(lua, self.bytes_max, DOOR_BYTES, || {
                scope.create_function_mut(serve)
            })?;
            self.door.replace(Some(door));
            let result = run();
            self.door.replace(None);
            result
        })
    }

    /// Has the coroutine of [`Desk::aside`] ready; it ends when it is killed at its work.
    fn prepare(&self, lua: &Lua) -> mlua::Result<()> {
        let mut aside = self.aside.borrow_mut();
        let ready = |thread: &Thread| thread.status() == ThreadStatus::Resumable;
        if !aside.as_ref().is_some_and(ready)
            && let Some(worker) = &*self.worker.borrow()
        {
            *aside = Some(lua.create_thread(worker.clone())?);
        }
        Ok(())
    }

    /// Runs a command where there is room on Lua's stack: `redis.call('DEL', unpack(keys))` may fill it, and mlua wants some of it.
    fn aside(&self, argv: Vec<Bytes>, raises: bool) -> mlua::Result<Value> {
        let thread = self.aside.borrow().clone().ok_or(mlua::Error::StackError)?;
        self.work.replace(Some((argv, raises)));
        // Whether there was room to say that it has paused says nothing of the work.
        let resumed = thread.resume::<()>(());
        self.work.replace(None);
        match self.done.take() {
            Some(done) => done,
            None => Err(resumed.err().unwrap_or(mlua::Error::StackError)),
        }
    }

    /// Whether the script chose RESP3.
    pub(super) fn resp3(&self) -> bool {
        self.resp3.get()
    }

    fn serve(&self, host: &mut dyn Host) {
        let answer = match self.asked.take() {
            Some(Asked::Call(argv)) => host.call(&argv),
            Some(Asked::MayRun(argv)) => host.may_run(&argv).map_or(Reply::Nil, Reply::Boolean),
            Some(Asked::Log(level, message)) => {
                host.log(level, &message);
                Reply::Nil
            }
            None => Reply::Nil,
        };
        self.answer.replace(Some(answer));
    }

    fn ask(&self, function: &str, asked: Asked) -> mlua::Result<Reply> {
        let door = self.door.borrow().clone();
        let Some(door) = door else {
            return Err(refusal(&format!(
                "{function} can only be called inside a script invocation"
            )));
        };
        self.asked.replace(Some(asked));
        door.call::<()>(())?;
        Ok(self.answer.take().unwrap_or(Reply::Nil))
    }

    /// For functions of Lua's library that Redis allows in a run only.
    pub(super) fn in_a_run(&self, lua: &Lua, function: &str) -> mlua::Result<()> {
        if self.door.borrow().is_none() {
            let text = format!("{function} can only be called inside a script invocation");
            return Err(raise::error(lua, text));
        }
        Ok(())
    }

    fn running(&self, function: &str) -> mlua::Result<()> {
        if self.door.borrow().is_none() {
            return Err(refusal(&format!(
                "{function} can only be called inside a script invocation"
            )));
        }
        Ok(())
    }
}

/// The table `redis` of scripts and of functions that run.
pub(super) fn table(lua: &Lua, desk: &Rc<Desk>, worker: &Function, version: &str) -> mlua::Result<Table> {
    let redis = lua.create_table()?;
    add_log(lua, &redis, desk)?;
    add_version(&redis, version)?;
    for (name, flag) in REPLICATION {
        redis.raw_set(name, flag)?;
    }
    for (name, raises) in [("call", true), ("pcall", false)] {
        let at = Rc::clone(desk);
        let function = lua.create_function(move |lua, values| call(lua, &at, values, raises))?;
        redis.raw_set(name, function)?;
    }
    let at = Rc::clone(desk);
    let work = lua.create_function(move |lua, ()| {
        if let Some((argv, raises)) = at.work.take() {
            at.done.replace(Some(run_command(lua, &at, argv, raises)));
        }
        Ok(())
    })?;
    desk.worker.replace(Some(worker.call(work)?));
    let at = Rc::clone(desk);
    redis.raw_set(
        "acl_check_cmd",
        lua.create_function(move |lua, values| may_run(lua, &at, values))?,
    )?;
    let at = Rc::clone(desk);
    redis.raw_set(
        "setresp",
        lua.create_function(move |lua, values| set_resp(lua, &at, values))?,
    )?;
    let at = Rc::clone(desk);
    redis.raw_set(
        "set_repl",
        lua.create_function(move |lua, values| set_repl(lua, &at, values))?,
    )?;
    redis.raw_set("sha1hex", lua.create_function(sha1)?)?;
    redis.raw_set("error_reply", lua.create_function(error_reply)?)?;
    redis.raw_set("status_reply", lua.create_function(status_reply)?)?;
    Ok(redis)
}

/// What only scripts of `EVAL` have. There is no debugger here, so these do what Redis' do without one.
pub(super) fn add_eval_only(lua: &Lua, redis: &Table) -> mlua::Result<()> {
    redis.raw_set("breakpoint", lua.create_function(|_, _: MultiValue| Ok(false))?)?;
    redis.raw_set("debug", lua.create_function(|_, _: MultiValue| Ok(()))?)?;
    redis.raw_set(
        "replicate_commands",
        lua.create_function(|_, _: MultiValue| Ok(true))?,
    )
}

/// `redis.log` and its levels.
pub(super) fn add_log(lua: &Lua, redis: &Table, desk: &Rc<Desk>) -> mlua::Result<()> {
    for (level, name) in LEVELS.into_iter().enumerate() {
        redis.raw_set(name, level)?;
    }
    let at = Rc::clone(desk);
    redis.raw_set(
        "log",
        lua.create_function(move |lua, values| log(lua, &at, values))?,
    )
}

/// The version this endpoint reports, as text and as a number of three bytes.
pub(super) fn add_version(redis: &Table, version: &str) -> mlua::Result<()> {
    let parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let number = parts.fold(0_u32, |number, part: u32| number << 8 | part);
    redis.raw_set("REDIS_VERSION", version)?;
    redis.raw_set("REDIS_VERSION_NUM", number)
}

fn argv(desk: &Desk, values: &MultiValue) -> Result<Vec<Bytes>, &'static str> {
    if values.is_empty() {
        return Err("Please specify at least one argument for this redis lib call");
    }
    arguments(values, desk.bytes_max)
}

fn call(lua: &Lua, desk: &Desk, values: MultiValue, raises: bool) -> mlua::Result<Value> {
    desk.running("redis.call/pcall")?;
    let argv = match argv(desk, &values) {
        Ok(argv) => argv,
        Err(text) if raises => return Err(refusal(text)),
        Err(text) => {
            return raise::refusal_table(lua, format!("ERR {text}").as_bytes(), false).map(Value::Table);
        }
    };
    if argv.len() > CROWDED {
        return desk.aside(argv, raises);
    }
    run_command(lua, desk, argv, raises)
}

fn run_command(lua: &Lua, desk: &Desk, argv: Vec<Bytes>, raises: bool) -> mlua::Result<Value> {
    let reply = desk.ask("redis.call/pcall", Asked::Call(argv))?;
    match &reply {
        Reply::Error(error) if raises => {
            let text = convert::error_text(error).into_bytes();
            Err(Raised::Refusal { text, counted: true }.into())
        }
        reply => convert::with_room(lua, desk.bytes_max, convert::reply_bytes(reply), || {
            convert::to_lua(lua, reply, desk.resp3())
        }),
    }
}

fn may_run(_: &Lua, desk: &Desk, values: MultiValue) -> mlua::Result<Value> {
    desk.running("redis.acl_check_cmd")?;
    let argv = argv(desk, &values).map_err(refusal)?;
    match desk.ask("redis.acl_check_cmd", Asked::MayRun(argv))? {
        Reply::Boolean(yes) => Ok(Value::Boolean(yes)),
        _ => Err(refusal("Invalid command passed to redis.acl_check_cmd()")),
    }
}

fn log(lua: &Lua, desk: &Desk, values: MultiValue) -> mlua::Result<()> {
    let args = Args::new(lua, values);
    if args.count() < 2 {
        return Err(refusal("redis.log() requires two arguments or more."));
    }
    let Some(level) = super::number::of(lua, args.get(1)) else {
        return Err(refusal("First argument must be a number (log level)."));
    };
    let level = u8::try_from(super::number::truncate(level)).ok();
    let Some(level) = level.filter(|level| usize::from(*level) < LEVELS.len()) else {
        return Err(refusal("Invalid debug level."));
    };
    let mut message = Vec::new();
    for (number, value) in args.values().iter().enumerate().skip(1) {
        if matches!(value, Value::String(_) | Value::Integer(_) | Value::Number(_)) {
            if number > 1 {
                message.push(b' ');
            }
            message.extend_from_slice(&args.string(number + 1)?.as_bytes());
        }
    }
    // A library logs while it is loaded too: nobody listens then.
    if desk.door.borrow().is_some() {
        desk.ask("redis.log", Asked::Log(level, message))?;
    }
    Ok(())
}

fn set_resp(lua: &Lua, desk: &Desk, values: MultiValue) -> mlua::Result<()> {
    desk.running("redis.setresp")?;
    let args = Args::new(lua, values);
    if args.count() != 1 {
        return Err(refusal("redis.setresp() requires one argument."));
    }
    match super::number::of(lua, args.get(1)).map(super::number::truncate) {
        Some(2) => desk.resp3.set(false),
        Some(3) => desk.resp3.set(true),
        _ => return Err(refusal("RESP version must be 2 or 3.")),
    }
    Ok(())
}

fn set_repl(lua: &Lua, desk: &Desk, values: MultiValue) -> mlua::Result<()> {
    desk.running("redis.set_repl")?;
    let args = Args::new(lua, values);
    if args.count() != 1 {
        return Err(refusal("redis.set_repl() requires two arguments."));
    }
    let flags = super::number::of(lua, args.get(1)).map_or(0, super::number::truncate);
    if flags & !3 != 0 {
        let text = "Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.";
        return Err(refusal(text));
    }
    Ok(())
}

fn sha1(lua: &Lua, values: MultiValue) -> mlua::Result<String> {
    let args = Args::new(lua, values);
    if args.count() != 1 {
        return Err(refusal("wrong number of arguments"));
    }
    let text = match args.get(1) {
        Value::String(_) | Value::Integer(_) | Value::Number(_) => args.string(1)?.as_bytes().to_vec(),
        _ => Vec::new(),
    };
    Ok(sha1_hex(&text))
}

fn one_string(values: &MultiValue) -> Option<Vec<u8>> {
    match (values.len(), values.front()) {
        (1, Some(Value::String(text))) => Some(text.as_bytes().to_vec()),
        _ => None,
    }
}

const WRONG_ARGUMENTS: &[u8] = b"ERR wrong number or type of arguments";

fn error_reply(lua: &Lua, values: MultiValue) -> mlua::Result<Table> {
    let Some(text) = one_string(&values) else {
        return raise::refusal_table(lua, WRONG_ARGUMENTS, false);
    };
    let text = text.strip_prefix(b"-").unwrap_or(&text);
    let end = text
        .iter()
        .rposition(|byte| !matches!(byte, b'\r' | b'\n'))
        .map_or(0, |at| at + 1);
    let start = text
        .iter()
        .position(|byte| !matches!(byte, b'\r' | b'\n'))
        .unwrap_or(0)
        .min(end);
    let text = &text[start..end];
    let whole = if text.contains(&b' ') {
        text.to_vec()
    } else {
        [b"ERR ", text].concat()
    };
    raise::refusal_table(lua, &whole, false)
}

fn status_reply(lua: &Lua, values: MultiValue) -> mlua::Result<Table> {
    let Some(text) = one_string(&values) else {
        return raise::refusal_table(lua, WRONG_ARGUMENTS, false);
    };
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set("ok", lua.create_string(text)?)?;
    Ok(table)
}
