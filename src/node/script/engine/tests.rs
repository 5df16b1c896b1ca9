//! Scripts and what they answer: `cases.lua`, judged by a real Redis where `PLENARY_REDIS_SERVER` names one, and the bounds that Redis has
//! not, each with a script that would never end or take all memory.
//!
//! `PLENARY_GOLDEN=record cargo test --lib engine` writes the answers of `cases.lua` anew.

use super::*;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Instant;

const VERSION: &str = "7.0.15";

/// A host with a few commands over a map.
#[derive(Default)]
struct Store {
    strings: BTreeMap<Bytes, Bytes>,
    lists: BTreeMap<Bytes, Vec<Bytes>>,
    calls: usize,
    logged: Vec<(u8, Vec<u8>)>,
    /// Set after this many calls.
    kill: Option<(usize, Arc<Signals>)>,
}

fn other(text: &'static str) -> Reply {
    Reply::Error(CommandError::text(text))
}

impl Host for Store {
    fn call(&mut self, argv: &[Bytes]) -> Reply {
        self.calls += 1;
        if let Some((calls, signals)) = &self.kill
            && self.calls >= *calls
        {
            signals.kill.store(true, Ordering::Relaxed);
        }
        let name = String::from_utf8_lossy(&argv[0]).to_ascii_lowercase();
        match (name.as_str(), &argv[1..]) {
            ("ping", []) => Reply::Simple("PONG".into()),
            ("echo", [text]) => Reply::Bulk(text.clone()),
            ("set", [key, value]) => {
                self.strings.insert(key.clone(), value.clone());
                Reply::OK
            }
            ("set", [_, _, ..]) => Reply::Error(CommandError::Syntax),
            ("get", [key]) if self.lists.contains_key(key) => Reply::Error(CommandError::WrongType),
            ("get", [key]) => Reply::bulk_or_nil(self.strings.get(key).cloned()),
            ("incr", [key]) => {
                let old = self.strings.get(key).map_or(Some(0), |text| {
                    std::str::from_utf8(text)
                        .ok()
                        .and_then(|text| text.parse::<i64>().ok())
                });
                let Some(old) = old else {
                    return Reply::Error(CommandError::NotAnInteger);
                };
                self.strings
                    .insert(key.clone(), Bytes::from((old + 1).to_string()));
                Reply::Integer(old + 1)
            }
            ("rpush", [key, items @ ..]) if !items.is_empty() => {
                let list = self.lists.entry(key.clone()).or_default();
                list.extend_from_slice(items);
                Reply::count(list.len())
            }
            ("lrange", [key, _, _]) => Reply::bulks(self.lists.get(key).cloned().unwrap_or_default()),
            ("debug", [_, kind]) => match &kind[..] {
                b"map" => Reply::Map(
                    (0..3)
                        .map(|n| (Reply::Integer(n), Reply::Boolean(n == 1)))
                        .collect(),
                ),
                b"set" => Reply::Set((0..3).map(Reply::Integer).collect()),
                b"double" => Reply::Double("3.141".parse().unwrap()),
                b"null" => Reply::Nil,
                b"true" => Reply::Boolean(true),
                b"false" => Reply::Boolean(false),
                b"verbatim" => Reply::Verbatim(Bytes::from_static(b"This is a verbatim\nstring")),
                _ => Reply::OK,
            },
            ("set" | "get" | "incr" | "ping" | "echo" | "rpush" | "lrange", _) => {
                other("ERR Wrong number of args calling Redis command from script")
            }
            _ => other("ERR Unknown Redis command called from script"),
        }
    }

    fn may_run(&mut self, argv: &[Bytes]) -> Option<bool> {
        matches!(&argv[0][..], b"get" | b"set").then_some(true)
    }

    fn log(&mut self, level: u8, message: &[u8]) {
        self.logged.push((level, message.to_vec()));
    }
}

fn engine() -> Engine {
    Engine::new(Limits::new(VERSION, 0)).unwrap()
}

fn items(texts: &[&'static str]) -> Vec<Bytes> {
    texts
        .iter()
        .map(|text| Bytes::from_static(text.as_bytes()))
        .collect()
}

/// Runs a script with two keys and two arguments.
fn eval_with(engine: &mut Engine, text: &str, run: &Run<'_>, host: &mut Store) -> Reply {
    engine.run(text.as_bytes(), run, host)
}

fn run_for(busy_ms: u64, ends_ms: u64) -> Run<'static> {
    Run {
        keys: &[],
        args: &[],
        signals: Arc::default(),
        busy_after: Duration::from_millis(busy_ms),
        ends_after: Duration::from_millis(ends_ms),
    }
}

/// As a test reads it.
fn eval(engine: &mut Engine, text: &str) -> String {
    shown(&eval_with(
        engine,
        text,
        &run_for(5_000, 60_000),
        &mut Store::default(),
    ))
}

fn shown(reply: &Reply) -> String {
    let list = |mark: &str, items: Vec<String>| format!("{mark}[{}]", items.join(", "));
    let pair = |pair: &(Reply, Reply)| format!("{}: {}", shown(&pair.0), shown(&pair.1));
    match reply {
        Reply::Simple(text) => format!("+{text}"),
        Reply::Error(error) => format!("-{error}"),
        Reply::Integer(number) => number.to_string(),
        Reply::Bulk(bytes) => quoted(bytes),
        Reply::Nil | Reply::NilArray | Reply::Waiting(_) => "nil".to_owned(),
        Reply::Array(items) => list("", items.iter().map(shown).collect()),
        Reply::Set(items) => list("~", items.iter().map(shown).collect()),
        Reply::Map(pairs) | Reply::Streams(pairs) => list("%", pairs.iter().map(pair).collect()),
        Reply::Pairs(pairs) => list("", pairs.iter().map(pair).collect()),
        Reply::Double(number) | Reply::Coordinate(number) => format!(",{}", number::general(*number, 17)),
        Reply::Boolean(yes) => format!("#{yes}"),
        Reply::Verbatim(text) => format!("={}", quoted(text)),
        Reply::BigNumber(digits) => quoted(digits),
    }
}

fn quoted(bytes: &[u8]) -> String {
    let escaped: String = bytes
        .iter()
        .map(|byte| match byte {
            b'"' | b'\\' => format!("\\{}", char::from(*byte)),
            b' '..=b'~' => char::from(*byte).to_string(),
            byte => format!("\\x{byte:02x}"),
        })
        .collect();
    format!("\"{escaped}\"")
}

/// A script, or a library whose function `f` is called, and the answer.
struct Case {
    text: String,
    answer: String,
}

impl Case {
    /// Whether a real Redis must answer the same: a comment that begins with `-- differs` says that it does not.
    fn is_for_redis(&self) -> bool {
        !self.text.starts_with("-- differs")
    }

    fn is_library(&self) -> bool {
        self.text.starts_with("#!") && !self.text.starts_with("#!lua flags")
    }
}

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/node/script/engine/cases.lua");

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(FILE).unwrap();
    text.split("--[====[ next ]====]\n")
        .map(|case| {
            let (text, answer) = case.split_once("--> ").expect("a case has an answer");
            Case {
                text: text.to_owned(),
                answer: answer.trim_end().to_owned(),
            }
        })
        .collect()
}

fn answer(engine: &mut Engine, case: &Case) -> String {
    let (keys, args) = (items(&["k1", "k2"]), items(&["a1", "a2"]));
    let run = Run {
        keys: &keys,
        args: &args,
        ..run_for(5_000, 60_000)
    };
    let mut host = Store::default();
    let reply = if case.is_library() {
        match engine.load_library(case.text.as_bytes()) {
            Ok(_) => engine.call_function(case.text.as_bytes(), "f", &run, &mut host),
            Err(error) => Reply::Error(error),
        }
    } else {
        engine.run(case.text.as_bytes(), &run, &mut host)
    };
    shown(&reply)
}

#[test]
fn scripts_answer_what_the_file_says() {
    let mut engine = engine();
    let mut cases = cases();
    let mut wrong = Vec::new();
    for case in &mut cases {
        let answer = answer(&mut engine, case);
        if answer != case.answer {
            wrong.push(format!("{}\n  is  {answer}\n  not {}", case.text, case.answer));
            case.answer = answer;
        }
    }
    if std::env::var_os("PLENARY_GOLDEN").is_some_and(|value| value == "record") {
        let all: Vec<String> = cases
            .iter()
            .map(|case| format!("{}--> {}\n", case.text, case.answer))
            .collect();
        std::fs::write(FILE, all.join("--[====[ next ]====]\n")).unwrap();
        return;
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_real_redis_answers_the_same() {
    let Some(program) = std::env::var_os("PLENARY_REDIS_SERVER") else {
        eprintln!("skipped: PLENARY_REDIS_SERVER names no redis-server");
        return;
    };
    let mut redis = Redis::start(&program);
    let mut wrong = Vec::new();
    for case in cases().into_iter().filter(Case::is_for_redis) {
        redis.ask(&["FLUSHALL"]);
        redis.ask(&["FUNCTION", "FLUSH"]);
        let answer = if case.is_library() {
            match redis.ask(&["FUNCTION", "LOAD", &case.text]) {
                refused if refused.starts_with('-') => refused,
                _ => redis.ask(&["FCALL", "f", "2", "k1", "k2", "a1", "a2"]),
            }
        } else {
            redis.ask(&["EVAL", &case.text, "2", "k1", "k2", "a1", "a2"])
        };
        if answer != case.answer {
            wrong.push(format!(
                "{}\n  Redis {answer}\n  not   {}",
                case.text, case.answer
            ));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// A real Redis in a folder of its own, asked in RESP3.
struct Redis {
    process: Child,
    stream: BufReader<UnixStream>,
    _folder: tempfile::TempDir,
}

impl Redis {
    fn start(program: &std::ffi::OsStr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let process = Command::new(program)
            .args([
                "--port",
                "0",
                "--save",
                "",
                "--enable-debug-command",
                "yes",
                "--unixsocket",
            ])
            .arg(&socket)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "no Redis: {error}"),
            }
            std::thread::yield_now();
        };
        let mut redis = Self {
            process,
            stream: BufReader::new(stream),
            _folder: folder,
        };
        redis.ask(&["HELLO", "3"]);
        redis.ask(&["DEBUG", "SET-DISABLE-DENY-SCRIPTS", "1"]);
        redis
    }

    fn ask(&mut self, argv: &[&str]) -> String {
        let mut request = format!("*{}\r\n", argv.len());
        for argument in argv {
            request.push_str(&format!("${}\r\n{argument}\r\n", argument.len()));
        }
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        self.answer()
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).unwrap();
        assert!(line.ends_with(b"\r\n"), "Redis hung up");
        String::from_utf8_lossy(&line[..line.len() - 2]).into_owned()
    }

    fn bytes(&mut self, length: &str) -> Vec<u8> {
        let mut bytes = vec![0; length.parse::<usize>().unwrap() + 2];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes.truncate(bytes.len() - 2);
        bytes
    }

    fn list(&mut self, count: &str) -> String {
        let items: Vec<String> = (0..count.parse::<usize>().unwrap())
            .map(|_| self.answer())
            .collect();
        items.join(", ")
    }

    fn answer(&mut self) -> String {
        let line = self.line();
        let (mark, rest) = line.split_at(1);
        match mark {
            "+" | "-" | "," => line,
            ":" => rest.to_owned(),
            "_" => "nil".to_owned(),
            "$" => quoted(&self.bytes(rest)),
            "=" => format!("={}", quoted(&self.bytes(rest)[4..])),
            "#" => format!("#{}", rest == "t"),
            "*" => format!("[{}]", self.list(rest)),
            "~" => format!("~[{}]", self.list(rest)),
            "%" => {
                let pairs: Vec<String> = (0..rest.parse::<usize>().unwrap())
                    .map(|_| format!("{}: {}", self.answer(), self.answer()))
                    .collect();
                format!("%[{}]", pairs.join(", "))
            }
            _ => panic!("{line}"),
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a run that was ended answers.
const KILLED: &str = "-ERR Script killed by user with SCRIPT KILL...";
const TIMED_OUT: &str = "-ERR Script ended: it ran for longer than a script may.";

#[test]
fn an_error_cannot_be_caught_to_run_on() {
    let mut engine = engine();
    for script in [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "while true do xpcall(function() while true do end end, function() while true do end end) end",
        "local function f() pcall(f) while true do pcall(f) end end f()",
        "while true do local c = coroutine.wrap(function() while true do end end) pcall(c) end",
        "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
        "while true do pcall(string.gsub, ('a'):rep(99), 'a', function() while true do end end) end",
        "while true do pcall(table.sort, {3, 2, 1}, function() while true do end end) end",
        "while true do pcall(load, function() while true do end end) end",
        "return load(function() return ' ' end)",
        "while true do xpcall(function() while true do end end, pcall) end",
        "return xpcall(error, function() while true do end end)",
        "while true do redis.pcall('ping') end",
        "local t = setmetatable({}, {__index = function() while true do end end}) while true do pcall(function() return t.x end) end",
    ] {
        let reply = shown(&eval_with(
            &mut engine,
            script,
            &run_for(1, 30),
            &mut Store::default(),
        ));
        assert!(reply.starts_with(TIMED_OUT), "{script}: {reply}");
    }
    assert_eq!(eval(&mut engine, "return 1"), "1");
}

#[test]
fn functions_that_are_not_lua_end_too() {
    let mut engine = engine();
    for script in [
        "return string.find(('a'):rep(3000), '.-.-.-b')",
        "return string.match(('a'):rep(3000), '(.*)(.*)(.*)b')",
        "return string.gsub(('a'):rep(3000), '.-.-.-b', '')",
        "for x in string.gmatch(('a'):rep(3000), '.-.-.-.-b') do end",
        "return ('a'):rep(4000000):find(('a'):rep(2000000) .. 'b', 1, true)",
        "while true do ('x'):rep(10000000) end",
        "while true do collectgarbage() end",
        "table.insert({}, -2147483647, 1)",
        "local s = ('a'):rep(10000000) local a, b, t = s .. 'b', s .. 'c', {} \
         for i = 1, 100000 do t[i] = i % 2 == 0 and a or b end table.sort(t)",
        "local t = {} for i = 1, 100000 do t[i] = ('x'):rep(20) end while true do table.concat(t) end",
        "cjson.encode_sparse_array(false, 0) local t = {} t[2147483647] = 1 return #cjson.encode(t)",
    ] {
        let started = Instant::now();
        let reply = shown(&eval_with(
            &mut engine,
            script,
            &run_for(1, 50),
            &mut Store::default(),
        ));
        let is_bounded = reply.starts_with(TIMED_OUT) || reply.contains("not enough memory");
        assert!(is_bounded, "{script}: {reply}");
        eprintln!("{:?} {script}", started.elapsed());
    }
    assert_eq!(eval(&mut engine, "return 1"), "1");
}

#[test]
fn a_call_may_fill_the_stack_with_its_arguments() {
    let mut engine = engine();
    let mut host = Store::default();
    let mut run = |script: &str| {
        shown(&eval_with(
            &mut engine,
            script,
            &run_for(5_000, 60_000),
            &mut host,
        ))
    };
    let many = "local t = {} for i = 1, 7999 do t[i] = i end ";
    assert_eq!(
        run(&format!("{many} return redis.call('rpush', 'l', unpack(t))")),
        "7999"
    );
    assert_eq!(
        run(&format!(
            "{many} redis.pcall('rpush', 'l', unpack(t)) return redis.call('rpush', 'l', unpack(t))"
        )),
        "23997"
    );
    let refused = run(&format!("{many} return redis.call('incr', 'k', unpack(t))"));
    assert!(
        refused.contains("Wrong number of args") && refused.ends_with("on @user_script:1."),
        "{refused}"
    );
    assert_eq!(host.lists[&Bytes::from_static(b"l")].len(), 23_997);
}

#[test]
fn a_killed_script_says_so_and_where() {
    let mut engine = engine();
    let run = run_for(5_000, 60_000);
    let mut host = Store {
        kill: Some((3, Arc::clone(&run.signals))),
        ..Store::default()
    };
    let script = "while true do\nredis.call('ping') end";
    let reply = shown(&eval_with(&mut engine, script, &run, &mut host));
    let sha = sha1_hex(script.as_bytes());
    assert!(
        reply.starts_with(&format!("{KILLED} script: {sha}, on @user_script:")),
        "{reply}"
    );
    assert!(host.calls >= 3);
    assert!(run.signals.ended.load(Ordering::Relaxed) && !*run.signals.busy.borrow());
}

#[test]
fn a_script_that_takes_long_says_that_it_is_busy() {
    let run = run_for(1, 20);
    let reply = eval_with(&mut engine(), "while true do end", &run, &mut Store::default());
    assert!(shown(&reply).starts_with(TIMED_OUT));
    assert!(run.signals.ended.load(Ordering::Relaxed) && *run.signals.busy.borrow());
}

#[test]
fn memory_is_bounded_and_the_engine_lives_on() {
    let mut engine = Engine::new(Limits {
        memory_bytes: 4 << 20,
        ..Limits::new(VERSION, 0)
    })
    .unwrap();
    for script in [
        "local t = {} for i = 1, 1e9 do t[i] = i end",
        "local s = 'x' while true do s = s .. s end",
        "return ('x'):rep(2147483647)",
        "return ('x'):rep(1000000):gsub('x', ('y'):rep(1000000))",
        "local t = {} for i = 1, 1e9 do t[i] = pcall end",
        "local t = {} for i = 1, 100000 do t[i] = ('x'):rep(30) end return cjson.encode({t, t, t, t, t, t})",
        "return table.concat({('x'):rep(1000000), ('y'):rep(1000000)}, ('z'):rep(1000000))",
        "local s = ('x'):rep(1000000) return struct.pack('sssss', s, s, s, s, s)",
        "local s = ('x'):rep(1000000) return cmsgpack.pack(s, s, s, s, s)",
        "local t = {} while true do t = {t} end",
        "local function f(...) return f(1, ...) end f()",
        // Values that come from outside count as well, and after them the limit is what it was.
        "local t = {} for i = 1, 1e9 do t[i] = redis.call('echo', ('x'):rep(100000) .. i) end",
        "redis.call('echo', 'x') redis.pcall('no such') local s = 'x' while true do s = s .. s end",
    ] {
        let started = Instant::now();
        let reply = shown(&eval_with(
            &mut engine,
            script,
            &run_for(1, 2_000),
            &mut Store::default(),
        ));
        let is_bounded = reply.starts_with(TIMED_OUT)
            || reply.contains("not enough memory")
            || reply.contains("stack overflow");
        assert!(is_bounded, "{script}: {reply}");
        eprintln!("{:?} {script}", started.elapsed());
        assert_eq!(
            eval(&mut engine, "return redis.call('ping')"),
            "+PONG",
            "after {script}"
        );
        let (used, _) = engine.memory_bytes();
        assert!(used <= 4 << 20, "{used} bytes after {script}");
    }
    // Caught again and again it is bounded still.
    let reply = eval_with(
        &mut engine,
        "while true do pcall(string.rep, 'x', 3000000) end",
        &run_for(1, 50),
        &mut Store::default(),
    );
    assert!(shown(&reply).starts_with(TIMED_OUT), "{}", shown(&reply));
}

#[test]
fn one_thing_many_times_is_bounded() {
    let mut engine = Engine::new(Limits {
        memory_bytes: 4 << 20,
        ..Limits::new(VERSION, 0)
    })
    .unwrap();
    const ANSWER: &str = "-ERR the script's answer is too large";
    const ARGUMENTS: &str = "-ERR Lua redis lib command arguments are too large";
    for (script, refusal) in [
        ("local t = {} t[1] = t t[2] = t return t", ANSWER),
        ("local t = {} for i = 1, 60 do t = {t, t} end return t", ANSWER),
        (
            "local t = {} for i = 1, 60 do t = {map = {a = t, b = t}} end return t",
            ANSWER,
        ),
        (
            "local t = {} for i = 1, 60 do t = {set = {[t] = true, [{t}] = true}} end return t",
            ANSWER,
        ),
        (
            "local s, t = ('x'):rep(1000000), {} for i = 1, 50 do t[i] = s end return t",
            ANSWER,
        ),
        (
            "local s, t = ('x'):rep(1000000), {} for i = 1, 50 do t[i] = {ok = s} end return t",
            ANSWER,
        ),
        (
            "local s, t = ('x'):rep(1000000), {} for i = 1, 50 do t[i] = {err = s} end return t",
            ANSWER,
        ),
        (
            "local s, t = ('x'):rep(1000000), {} for i = 1, 50 do t[i] = s end return redis.pcall('rpush', 'k', unpack(t))",
            ARGUMENTS,
        ),
    ] {
        let reply = eval(&mut engine, script);
        assert!(
            reply.starts_with(refusal),
            "{script}: {}",
            &reply[..reply.len().min(200)]
        );
    }
    let whole = eval(
        &mut engine,
        "local t = {} for i = 1, 100000 do t[i] = i end return t",
    );
    assert!(
        whole.ends_with(", 99999, 100000]"),
        "what a state holds once fits"
    );
}

#[test]
fn the_deepest_answer_is_read_from_the_log() {
    let script = "local t = {} for i = 1, 300 do t = {t} end return t";
    let reply = eval_with(
        &mut engine(),
        script,
        &run_for(5_000, 60_000),
        &mut Store::default(),
    );
    let (mut depth, mut at) = (0, &reply);
    while let Reply::Array(items) = at {
        (depth, at) = (depth + 1, &items[0]);
    }
    assert_eq!(depth, Reply::DEPTH_MAX - 1);
    let of_a_transaction = Reply::Array(vec![reply]);
    assert!(Reply::from_bytes(&of_a_transaction.to_bytes()) == Some(of_a_transaction));
}

#[test]
fn nesting_ends_before_the_stack_does() {
    let deep = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(|| {
        let mut engine = engine();
        for script in [
            "local function f() return pcall(f) end return f()",
            "local function f() local ok, e = pcall(f) return e end return f()",
            "local function f() return (('x'):gsub('x', f)) end return f()",
            "local function f() return coroutine.wrap(f)() end return f()",
            "local function f() coroutine.resume(coroutine.create(f)) pcall(f) end f() return 1",
            "local function f() local t = {2, 1} table.sort(t, f) end return f()",
            "local function f() return load(f) end return f()",
            "local function f() return ('x'):gsub('x', function() return coroutine.wrap(f)() end) end return f()",
            "local function g(n) if n == 0 then return coroutine.wrap(function() return g(190) end)() end \
             return (('x'):gsub('x', function() return g(n - 1) end)) end return g(190)",
            "cjson.decode_max_depth(1e9) local function g(n) if n == 0 then return cjson.decode(('['):rep(100000)) end \
             return (('x'):gsub('x', function() return g(n - 1) end)) end return g(60)",
            "local t = setmetatable({}, {}) getmetatable(t).__index = function(t, k) return t[k] end return t.x",
            "return ('a'):rep(100000):find(('a?'):rep(100000))",
            "return ('a'):rep(100000):find(('(a*)'):rep(31) .. ('.-'):rep(5000) .. 'b')",
            "local t = {} for i = 1, 100000 do t = {t} end return t",
            "cjson.encode_max_depth(1e9) local t = {} for i = 1, 100000 do t = {t} end return cjson.encode(t)",
            "cjson.decode_max_depth(1e9) return cjson.decode(('['):rep(100000))",
            "return cmsgpack.unpack(('\\145'):rep(100000))",
            "return loadstring(('('):rep(100000))",
            "return loadstring('return ' .. ('{'):rep(100000))",
            "local s = 'x' for i = 1, 1000 do s = '(' .. s .. ')' end return loadstring('return ' .. s)",
            "return unpack({}, 1, 1e7)",
            "return select('#', string.byte(('x'):rep(1e6), 1, -1))",
            "return error(setmetatable({}, {__tostring = function(t) return tostring(t) end}))",
            "return xpcall(function() error('x') end, function(e) error(e) end)",
        ] {
            let started = Instant::now();
            let reply = shown(&eval_with(&mut engine, script, &run_for(1, 2_000), &mut Store::default()));
            eprintln!("{:?} {script}\n  {}", started.elapsed(), reply.chars().take(150).collect::<String>());
            assert!(started.elapsed() < Duration::from_secs(30), "{script}");
            assert_eq!(eval(&mut engine, "return 1"), "1", "after {script}");
        }
    });
    deep.unwrap().join().unwrap();
}

#[test]
fn one_script_leaves_nothing_to_the_next() {
    let mut engine = engine();
    for script in [
        "x = 1",
        "rawset(_G, 'x', 1)",
        "rawset(getmetatable(_G), '__index', function() return 1 end)",
        "getmetatable(_G).__index = function() return 1 end",
        "getmetatable('').__index = function() return 1 end",
        "rawset(getmetatable('').__index, 'upper', 1)",
        "string.upper = 1",
        "rawset(string, 'upper', 1)",
        "table.insert(string, 1)",
        "table.sort(setmetatable({2, 1}, getmetatable(string)), rawset)",
        "local _, t = pairs(string) t.upper = 1",
        "local _, t = pairs(string) rawset(t, 'upper', 1)",
        "for k, v in pairs(_G) do if type(v) == 'table' then v.upper = 1 end end",
        "for k, v in next, _G do if k == 'string' then rawset(v, 'upper', 1) end end",
        "setmetatable(_G, {__index = function() return 1 end})",
        "setmetatable(string, nil)",
        "redis.call = print",
        "_G.redis = 1",
        "KEYS = 1 x = 1",
        "cjson.encode_max_depth(1)",
        "math.pi = 3",
        "collectgarbage('stop')",
    ] {
        eval(&mut engine, script);
    }
    assert_eq!(
        eval(
            &mut engine,
            "return {rawget(_G, 'x') == nil, ('a'):upper(), string.upper('b'), type(redis.call)}"
        ),
        r#"[1, "A", "B", "function"]"#
    );
    assert_eq!(eval(&mut engine, "return cjson.encode({{1}})"), r#""[[1]]""#);
    assert!(eval(&mut engine, "return x").contains("nonexistent global variable 'x'"));
}

#[test]
fn scripts_are_kept_and_forgotten() {
    let mut engine = Engine::new(Limits {
        kept: 2,
        ..Limits::new(VERSION, 0)
    })
    .unwrap();
    assert_eq!(
        engine.compile(b"return 1").as_deref(),
        Ok("e0e1f9fabfc9d4800c877a703b823ac0578ff8db")
    );
    for number in 0..10 {
        assert_eq!(eval(&mut engine, &format!("return {number}")), number.to_string());
        assert!(engine.scripts.kept.len() <= 2);
    }
    engine.flush_scripts();
    assert!(engine.scripts.kept.is_empty());
    assert_eq!(
        engine.compile(b"return (").map_err(|error| error.to_string()),
        Err(
            "ERR Error compiling script (new function): user_script:1: unexpected symbol near '<eof>'"
                .to_owned()
        )
    );
}

#[test]
fn logs_reach_the_host() {
    let mut host = Store::default();
    let script = "redis.log(redis.LOG_NOTICE, 'a', 1, 'b') redis.log(3, 'c')";
    eval_with(&mut engine(), script, &run_for(5_000, 60_000), &mut host);
    assert_eq!(host.logged, [(2, b"a 1 b".to_vec()), (3, b"c".to_vec())]);
}

#[test]
fn a_library_lists_its_functions() {
    let code = "#!lua name=lib\n\
        redis.register_function('one', function() return 1 end)\n\
        redis.register_function{function_name='two', callback=function(keys, args) return {keys[1], args[1]} end, \
        description='the second', flags={'no-writes', 'ALLOW-OOM'}}";
    let mut engine = engine();
    let library = engine.load_library(code.as_bytes()).unwrap();
    assert_eq!((library.name.as_str(), library.engine.as_str()), ("lib", "LUA"));
    let functions: Vec<_> = library
        .functions
        .iter()
        .map(|function| {
            let flags: Vec<_> = function.flags.names().collect();
            (function.name.as_str(), function.description.as_deref(), flags)
        })
        .collect();
    assert_eq!(
        functions,
        [
            ("one", None, vec![]),
            ("two", Some("the second"), vec!["no-writes", "allow-oom"])
        ]
    );
    let (keys, args) = (items(&["k"]), items(&["a"]));
    let run = Run {
        keys: &keys,
        args: &args,
        ..run_for(5_000, 60_000)
    };
    // A flushed engine loads it again by itself.
    for _ in 0..2 {
        let reply = engine.call_function(code.as_bytes(), "two", &run, &mut Store::default());
        assert_eq!(shown(&reply), r#"["k", "a"]"#);
        engine.flush_libraries();
    }
}

#[test]
fn a_library_may_not_load_for_ever() {
    let limits = Limits {
        load: Duration::from_millis(300),
        ..Limits::new(VERSION, 0)
    };
    let mut engine = Engine::new(limits).unwrap();
    for code in [
        "#!lua name=lib\nwhile true do end",
        "#!lua name=lib\nlocal function f() while true do end end while true do redis.register_function('x', f) end",
    ] {
        let error = engine.load_library(code.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("ERR Error registering functions:"), "{error}");
    }
    assert!(
        engine
            .load_library(b"#!lua name=lib\nredis.register_function('f', function() end)")
            .is_ok()
    );
}
