//! A real Redis to be judged by, and the one way in which its answers and ours are written down.
//!
//! Knows no script and no generator: `golden.rs` and `differential/` do.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test that shares this file uses a part of it"
)]

use bytes::Bytes;
use plenary::machine::Machine;
use plenary::machine::effects::{self, Effects};
use plenary::machine::entry::{Command as LogCommand, Entry, Millis, Origin};
use plenary::machine::event::Waiter;
use plenary::machine::reply::{Reply, coordinate_text, double_text};
use plenary::machine::scripts::{Function, Library};
use plenary::machine::table::{self, Run};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

/// An answer as RESP2 tells it: what both sides are brought to before they are compared.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Simple(Vec<u8>),
    Error(Vec<u8>),
    Integer(i64),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Answer>),
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        let all = |replies: Vec<Reply>| Self::Array(replies.into_iter().map(Self::from).collect());
        match reply {
            Reply::Simple(text) => Self::Simple(text.into_owned().into_bytes()),
            Reply::Integer(number) => Self::Integer(number),
            Reply::Bulk(bytes) | Reply::Verbatim(bytes) | Reply::BigNumber(bytes) => {
                Self::Bulk(bytes.to_vec())
            }
            Reply::Nil | Reply::NilArray => Self::Nil,
            Reply::Array(replies) | Reply::Set(replies) => all(replies),
            Reply::Map(pairs) | Reply::Pairs(pairs) => {
                all(pairs.into_iter().flat_map(|(key, value)| [key, value]).collect())
            }
            Reply::Streams(pairs) => {
                let pair = |(key, value)| Reply::Array(vec![key, value]);
                all(pairs.into_iter().map(pair).collect())
            }
            Reply::Double(number) => Self::Bulk(double_text(number).into_bytes()),
            Reply::Coordinate(number) => Self::Bulk(coordinate_text(number).into_bytes()),
            Reply::Boolean(yes) => Self::Integer(i64::from(yes)),
            Reply::Error(error) => Self::Error(error.to_string().into_bytes()),
            Reply::Waiting(number) => Self::Simple(format!("waiting {number}").into_bytes()),
        }
    }
}

impl Answer {
    /// Puts every list of nothing but bulks in order: for answers whose order means nothing.
    pub fn sorted(self) -> Self {
        let Self::Array(answers) = self else { return self };
        let mut answers: Vec<Answer> = answers.into_iter().map(Self::sorted).collect();
        if answers
            .iter()
            .all(|answer| matches!(answer, Self::Bulk(_) | Self::Nil))
        {
            answers.sort_by_key(Self::render);
        }
        Self::Array(answers)
    }

    /// What is left when what it holds is up to chance: how many and of which kind.
    pub fn form(self) -> Self {
        match self {
            Self::Bulk(_) => Self::Bulk(Vec::new()),
            Self::Array(answers) => Self::Array(answers.into_iter().map(Self::form).collect()),
            other => other,
        }
    }

    /// As redis-cli prints it to a terminal.
    pub fn render(&self) -> String {
        match self {
            Self::Simple(text) => String::from_utf8_lossy(text).into_owned(),
            Self::Error(text) => format!("(error) {}", String::from_utf8_lossy(text)),
            Self::Integer(number) => format!("(integer) {number}"),
            Self::Bulk(bytes) => quote(bytes),
            Self::Nil => "(nil)".to_owned(),
            Self::Array(answers) if answers.is_empty() => "(empty array)".to_owned(),
            Self::Array(answers) => {
                let width = answers.len().to_string().len();
                let mut lines = Vec::new();
                for (number, answer) in (1..).zip(answers) {
                    let indent = format!("\n{:width$}", "", width = width + 2);
                    lines.push(format!(
                        "{number:width$}) {}",
                        answer.render().replace('\n', &indent)
                    ));
                }
                lines.join("\n")
            }
        }
    }
}

/// Bytes between double quotes, what cannot be printed escaped.
pub fn quote(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for byte in bytes {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(*byte)]),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text + "\""
}

/// A line's words; `"…"` keeps spaces and knows `\n \r \t \\ \" \xff`.
pub fn words(line: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut words = Vec::new();
    let mut bytes = line.bytes().peekable();
    loop {
        while bytes.next_if_eq(&b' ').is_some() {}
        let Some(first) = bytes.next() else {
            return Ok(words);
        };
        let mut word = Vec::new();
        if first != b'"' {
            word.push(first);
            while let Some(byte) = bytes.next_if(|byte| *byte != b' ') {
                word.push(byte);
            }
            words.push(word);
            continue;
        }
        loop {
            match bytes.next().ok_or_else(|| format!("no closing quote: {line}"))? {
                b'"' => break,
                b'\\' => word.push(match bytes.next() {
                    Some(b'n') => b'\n',
                    Some(b'r') => b'\r',
                    Some(b't') => b'\t',
                    Some(b'x') => {
                        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
                        let (high, low) = (digit(), digit());
                        let value = high.zip(low).map(|(high, low)| high * 16 + low);
                        value
                            .and_then(|value| u8::try_from(value).ok())
                            .ok_or_else(|| format!("two digits after \\x: {line}"))?
                    }
                    Some(other) => other,
                    None => return Err(format!("nothing after a backslash: {line}")),
                }),
                byte => word.push(byte),
            }
        }
        words.push(word);
    }
}

/// Runs one command on a machine: rows that change through the log, rows that read beside it.
pub fn run(machine: &mut Machine, at: Millis, seed: u64, db: u8, argv: &[Vec<u8>]) -> Answer {
    let command = LogCommand::new(db, argv.iter().cloned());
    let reads = matches!(table::lookup(&command.argv), Ok(spec) if matches!(spec.run, Run::Read(_)) && spec.waits.is_none());
    if reads {
        return machine.read(at, db, &command.argv).into();
    }
    let entry = Entry {
        format: Entry::FORMAT,
        at,
        seed,
        origin: Origin::default(),
        commands: vec![command],
    };
    match machine.apply(&entry) {
        plenary::machine::Outcome::Applied(mut replies) => {
            replies.pop().expect("one command, one reply").into()
        }
        other => panic!("a group without callers is never passed over: {other:?}"),
    }
}

/// Runs what only a node writes into the log.
pub fn run_internal(machine: &mut Machine, at: Millis, command: LogCommand) {
    let entry = Entry {
        format: Entry::FORMAT,
        at,
        seed: 0,
        origin: Origin::default(),
        commands: vec![command],
    };
    machine.apply(&entry);
}

/// What is sent at once: one command, or several whose answers belong together (a transaction with its MULTI and EXEC).
pub struct Request<'a> {
    pub db: u8,
    pub commands: &'a [Vec<Vec<u8>>],
}

/// A connection to a server, whichever it is, that speaks RESP2.
pub struct Connection {
    stream: BufReader<Box<dyn Stream>>,
    db: u8,
}

/// What a connection runs over.
pub trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

/// What comes back for something that was sent.
pub enum Expected {
    /// The `OK` of a SELECT of ours.
    Nothing,
    /// The answers of this many commands.
    Answers(usize),
    /// `OK`, `QUEUED` or an error, and what EXEC says: a transaction of ours around one command.
    Transaction,
}

impl Connection {
    pub fn new(stream: impl Stream + 'static) -> Self {
        Self {
            stream: BufReader::new(Box::new(stream)),
            db: 0,
        }
    }

    /// Empties every database and forgets what the connection watched.
    pub fn reset(&mut self) {
        for name in ["UNWATCH", "FLUSHALL"] {
            if table::by_name(name).is_some() {
                let answer = self.run(self.db, &[name.as_bytes().to_vec()]);
                assert_eq!(answer.render(), "OK", "{name}");
            }
        }
    }

    /// Runs a command in this database.
    pub fn run(&mut self, db: u8, argv: &[Vec<u8>]) -> Answer {
        let commands = [argv.to_vec()];
        let request = Request {
            db,
            commands: &commands,
        };
        let expected = self.send([request].iter());
        self.receive(expected).pop().expect("one command, one answer")
    }

    /// Sends all at once, each to its database; the answers are fetched by [`Self::receive`]. A server keeps answers that nobody reads yet.
    pub fn send<'a>(&mut self, requests: impl Iterator<Item = &'a Request<'a>>) -> Vec<Expected> {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for Request { db, commands } in requests {
            if *db != self.db {
                encode(&mut bytes, &[b"SELECT".to_vec(), db.to_string().into_bytes()]);
                self.db = *db;
                expected.push(Expected::Nothing);
            }
            match commands {
                // On a machine a group without a caller waits for nothing; here a transaction does not.
                [argv] if waits(argv) => {
                    encode(&mut bytes, &[b"MULTI".to_vec()]);
                    encode(&mut bytes, argv);
                    encode(&mut bytes, &[b"EXEC".to_vec()]);
                    expected.push(Expected::Transaction);
                }
                several => {
                    several.iter().for_each(|argv| encode(&mut bytes, argv));
                    expected.push(Expected::Answers(several.len()));
                }
            }
        }
        let stream = self.stream.get_mut();
        stream.write_all(&bytes).expect("the server takes commands");
        expected
    }

    /// The answers to what was sent, one for each request.
    pub fn receive(&mut self, expected: Vec<Expected>) -> Vec<Answer> {
        let mut answers = Vec::new();
        for expected in expected {
            match expected {
                Expected::Nothing => drop(self.answer()),
                Expected::Answers(1) => answers.push(self.answer()),
                Expected::Answers(several) => {
                    answers.push(Answer::Array((0..several).map(|_| self.answer()).collect()));
                }
                Expected::Transaction => {
                    let (_, queued, executed) = (self.answer(), self.answer(), self.answer());
                    answers.push(match executed {
                        Answer::Array(mut answers) => answers.pop().expect("one command, one answer"),
                        _ => queued,
                    });
                }
            }
        }
        answers
    }

    fn answer(&mut self) -> Answer {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).expect("an answer");
        let line = line.strip_suffix(b"\r\n").expect("a whole line");
        let (kind, rest) = line.split_first().expect("a kind");
        let number = || -> i64 {
            std::str::from_utf8(rest)
                .expect("digits")
                .parse()
                .expect("a number")
        };
        match kind {
            b'+' => Answer::Simple(rest.to_vec()),
            b'-' => Answer::Error(rest.to_vec()),
            b':' => Answer::Integer(number()),
            b'$' | b'*' if number() < 0 => Answer::Nil,
            b'$' => {
                let mut bytes = vec![0; usize::try_from(number()).expect("a length") + 2];
                self.stream.read_exact(&mut bytes).expect("the whole bulk");
                bytes.truncate(bytes.len() - 2);
                Answer::Bulk(bytes)
            }
            b'*' => Answer::Array((0..number()).map(|_| self.answer()).collect()),
            other => panic!("no RESP2: {}", char::from(*other)),
        }
    }
}

fn waits(argv: &[Vec<u8>]) -> bool {
    let row = argv
        .first()
        .map(|name| String::from_utf8_lossy(name).to_ascii_uppercase());
    row.and_then(|name| table::by_name(&name))
        .is_some_and(|spec| spec.flags.split(' ').any(|flag| flag == "blocking"))
}

fn encode(request: &mut Vec<u8>, argv: &[Vec<u8>]) {
    request.extend(format!("*{}\r\n", argv.len()).into_bytes());
    for argument in argv {
        request.extend(format!("${}\r\n", argument.len()).into_bytes());
        request.extend(argument);
        request.extend(b"\r\n");
    }
}

/// Where a Redis of our own listens, in its folder.
const SOCKET: &str = "redis.sock";

/// The channel on which the end of a case is told.
const END: &str = "the end";

/// A connection that hears what a Redis tells of its keys.
pub struct Listener(Connection);

/// A Redis of our own: it keeps nothing, listens on a socket in a fresh folder, and ends with this value.
pub struct Server {
    child: Child,
    pub connection: Connection,
    folder: tempfile::TempDir,
}

impl Server {
    /// The variable that names the program. CI sets it.
    pub const VARIABLE: &str = "PLENARY_REDIS_SERVER";

    /// Starts the program that the variable names; none if it names none: then there is nobody to be judged by.
    pub fn from_environment() -> Option<Self> {
        let Some(program) = std::env::var_os(Self::VARIABLE) else {
            println!("{} is not set: compared with nobody", Self::VARIABLE);
            return None;
        };
        let folder = tempfile::tempdir().expect("a folder for the socket");
        let socket = folder.path().join(SOCKET);
        let mut child = Command::new(&program)
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(&socket)
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}={}: {error}", Self::VARIABLE, program.display()));
        let mut log = BufReader::new(child.stdout.take().expect("piped above"));
        let mut line = String::new();
        while !line.contains("ready to accept connections") {
            line.clear();
            let read = log.read_line(&mut line).expect("its log");
            assert!(read > 0, "the server ended before it was ready");
        }
        // It writes little after this; whoever reads on keeps its pipe from filling up.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Some(Self {
            child,
            connection: connect(&socket),
            folder,
        })
    }

    /// Empties every database.
    pub fn reset(&mut self) {
        self.connection.reset();
    }

    /// Runs a command in this database.
    pub fn run(&mut self, db: u8, argv: &[Vec<u8>]) -> Answer {
        self.connection.run(db, argv)
    }

    /// Has it tell of keys by event, and a connection that hears it.
    pub fn listen(&mut self, classes: &str) -> Listener {
        let set = ["CONFIG", "SET", "notify-keyspace-events", classes];
        let answer = self.run(0, &set.map(|word| word.as_bytes().to_vec()));
        assert_eq!(answer, Answer::Simple(b"OK".to_vec()));
        let mut connection = connect(&self.folder.path().join(SOCKET));
        connection.run(
            0,
            &["PSUBSCRIBE", "__keyevent@*", END].map(|word| word.as_bytes().to_vec()),
        );
        connection.answer();
        Listener(connection)
    }

    /// What was told since the last call: channel and message.
    pub fn told(&mut self, listener: &mut Listener) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.run(0, &["PUBLISH", END, ""].map(|word| word.as_bytes().to_vec()));
        let mut told = Vec::new();
        loop {
            let Answer::Array(message) = listener.0.answer() else {
                panic!("a message")
            };
            match &message[..] {
                [_, _, Answer::Bulk(channel), _] if channel == END.as_bytes() => return told,
                [_, _, Answer::Bulk(channel), Answer::Bulk(message)] => {
                    told.push((channel.clone(), message.clone()));
                }
                other => panic!("a message: {other:?}"),
            }
        }
    }
}

fn connect(socket: &std::path::Path) -> Connection {
    Connection::new(UnixStream::connect(socket).expect("it said it was ready"))
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; there is nobody to tell, and nothing is left behind either way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A library of functions, as fixtures of formats have it.
pub fn library() -> Library {
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    Library {
        name: text("library"),
        code: text("#!lua name=library\nredis.register_function('f', function() return 1 end)"),
        functions: vec![Function {
            name: text("f"),
            description: Some(text("one")),
            flags: vec![text("no-writes")],
        }],
    }
}

/// What came of a script that ran one command, as fixtures of formats have it.
pub fn effects(at: Millis, command: LogCommand, reply: Reply) -> Effects {
    Effects {
        caller: Waiter {
            node: 7,
            start: 2,
            number: 3,
        },
        finished: 1,
        at,
        seed: 5,
        relied_on: vec![(0, Bytes::from_static(b"script"), effects::Expected::Version(0))],
        revision: None,
        commands: vec![command],
        reply,
    }
}
