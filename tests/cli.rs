//! The `plenary` program from outside: real processes, told by flags, variables and files, reached by Redis and HTTP.
//!
//! Not here: clusters of several nodes, and what each command answers. No port is fixed: nodes take free ones and say which.

#![cfg(all(feature = "cli", unix))]
#![allow(clippy::unwrap_used)]

mod common;
mod process;

use plenary::cli::client::{self, Client};
use plenary::config::Secret;
use plenary::machine::reply::Reply;
use process::{plenary, run, signal};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long a process may take for anything before a test fails.
const DEADLINE: Duration = Duration::from_secs(60);

/// A running `plenary serve`; killed if a test lets go of it.
struct Serving {
    process: Child,
    log: Receiver<String>,
    seen: Vec<String>,
    redis: String,
    http: String,
}

impl Serving {
    fn start(data: &Path, command: &mut Command) -> Self {
        let listen = [
            "--listen",
            "127.0.0.1:0",
            "--resp",
            "127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
        ];
        command
            .arg("--data")
            .arg(data)
            .args(listen)
            .stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let stderr = BufReader::new(process.stderr.take().unwrap());
        let (tell, log) = channel();
        std::thread::spawn(move || {
            stderr
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| tell.send(line))
        });
        let mut serving = Self {
            process,
            log,
            seen: Vec::new(),
            redis: String::new(),
            http: String::new(),
        };
        let ready = serving.line_with("ready: ");
        let after = |name: &str| {
            let (_, rest) = ready
                .split_once(&format!(" {name} "))
                .unwrap_or_else(|| panic!("no {name} in {ready}"));
            rest.split(',').next().unwrap().to_owned()
        };
        (serving.redis, serving.http) = (after("redis"), after("http"));
        serving
    }

    fn one(data: &Path) -> Self {
        Self::start(data, &mut plenary(["serve"]))
    }

    /// Waits for a line of the log.
    #[track_caller]
    fn line_with(&mut self, text: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        while let Ok(line) = self
            .log
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
        panic!("no line with {text:?}, but:\n{}", self.seen.join("\n"));
    }

    fn signal(&self, name: &str) {
        signal(self.process.id(), name);
    }

    /// Waits until it has ended: then nobody holds its standard error any more.
    #[track_caller]
    fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        while let Ok(line) = self
            .log
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.seen.push(line);
        }
        assert!(
            Instant::now() < deadline,
            "it does not end; it said:\n{}",
            self.seen.join("\n")
        );
        self.process.wait().unwrap()
    }

    fn client(&self) -> Client {
        Client::connect(&self.redis, None).unwrap()
    }

    fn http(&self, method: &str, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.http).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: plenary\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It has ended already if it cannot be killed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn each_command_has_help() {
    for (args, mentions) in [
        (vec![], "serve"),
        (vec!["serve"], "PLENARY_SNAPSHOT_LOG_BYTES"),
        (vec!["status"], "--json"),
        (vec!["members"], "promote"),
        (vec!["members", "list"], "--resp"),
        (vec!["members", "add"], "HOST:PORT"),
        (vec!["members", "remove"], "--access-key-file"),
        (vec!["members", "promote"], "learner"),
    ] {
        let said = run(plenary([]).args(&args).arg("--help"));
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{args:?}");
        assert!(said.out.contains(mentions), "{args:?}: {}", said.out);
    }
}

#[test]
fn no_or_unknown_arguments_are_misuse() {
    run(&mut plenary([])).failed_with(2, &["Usage"]);
    run(&mut plenary(["serve", "--nothing"])).failed_with(2, &["--nothing"]);
    run(&mut plenary(["serve", "--durability", "maybe"])).failed_with(2, &["maybe", "fsync", "os"]);
    run(&mut plenary(["serve", "--log-store", "paper"])).failed_with(2, &["paper", "segments", "sled"]);
}

#[test]
fn all_faults_of_the_settings_are_told_at_once() {
    let args = [
        "serve",
        "--listen",
        "nowhere",
        "--expect",
        "7",
        "--resp",
        "0.0.0.0:6379",
        "--group-bytes",
        "0",
    ];
    let faults = [
        "data is not set",
        "listen = \"nowhere\"",
        "expect = 7",
        "without an access key",
        "group_bytes = 0",
    ];
    run(&mut plenary(args)).failed_with(2, &faults);
}

#[test]
fn beyond_loopback_a_secret_is_needed() {
    run(&mut plenary([
        "serve",
        "--data",
        "unused",
        "--listen",
        "192.0.2.1:7001",
    ]))
    .failed_with(
        2,
        &[
            "listen = 192.0.2.1:7001",
            "Without a secret it serves peers on loopback only",
        ],
    );
}

/// Values that cannot be are told with their settings: so it shows which source won.
#[test]
fn a_flag_wins_over_a_variable_over_the_file_over_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plenary.toml");
    let text =
        "listen = 'file'\nhttp = 'file'\nresp = 'file'\nexpect = 9\njoin = ['127.0.0.1:1', '127.0.0.1:2']\n";
    std::fs::write(&file, text).unwrap();
    let mut command = plenary([
        "serve",
        "--data",
        "unused",
        "--resp",
        "flag",
        "--config",
        file.to_str().unwrap(),
    ]);
    let said = run(command
        .env("PLENARY_HTTP", "variable")
        .env("PLENARY_RESP", "variable"));
    said.failed_with(
        2,
        &[
            "listen = \"file\"",
            "http = \"variable\"",
            "resp = \"flag\"",
            "expect = 9",
        ],
    );
    assert!(
        !said.err.contains("heartbeat_ms"),
        "the default is good: {}",
        said.err
    );
}

#[test]
fn a_file_with_an_unknown_key_is_refused_with_the_known_ones() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plenary.toml");
    std::fs::write(&file, "data = 'unused'\nacces_key = 'x'\n").unwrap();
    run(&mut plenary(["serve", "--config", file.to_str().unwrap()])).failed_with(
        2,
        &[
            "acces_key",
            "line 2, column 1",
            "`access_key`",
            "`snapshot_log_bytes`",
        ],
    );
    run(&mut plenary(["serve", "--config", "no/such/file"]))
        .failed_with(2, &["no/such/file", "cannot be read"]);
}

#[test]
fn a_cluster_of_one_serves_redis_and_http_until_it_is_told_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let mut one = Serving::one(folder.path());
    let mut client = one.client();
    assert_eq!(client.call(&["SET", "greeting", "hello"]).unwrap(), Reply::OK);
    assert_eq!(client.call(&["GET", "greeting"]).unwrap(), Reply::bulk("hello"));
    assert_eq!(one.http("GET", "/health"), (200, "ok\n".to_owned()));
    assert_eq!(one.http("GET", "/ready"), (200, "ready\n".to_owned()));
    let (code, metrics) = one.http("GET", "/metrics");
    assert!(
        code == 200 && metrics.contains("\nplenary_ready 1\n"),
        "{code} {metrics}"
    );
    assert_eq!(one.http("GET", "/else").0, 404);
    assert_eq!(one.http("POST", "/health").0, 405);
    one.signal("TERM");
    assert_eq!(one.ended().code(), Some(0), "{}", one.seen.join("\n"));
    assert!(TcpStream::connect(&one.redis).is_err() && TcpStream::connect(&one.http).is_err());
}

#[test]
fn it_also_stops_by_interrupt_and_by_the_end_of_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let mut one = Serving::one(&folder.path().join("one"));
    one.signal("INT");
    assert_eq!(one.ended().code(), Some(0), "{}", one.seen.join("\n"));
    let mut command = plenary(["serve", "--until-stdin-ends"]);
    let mut two = Serving::start(&folder.path().join("two"), command.stdin(Stdio::piped()));
    drop(two.process.stdin.take());
    assert_eq!(two.ended().code(), Some(0), "{}", two.seen.join("\n"));
}

#[test]
fn loopback_without_secret_and_key_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let one = Serving::one(folder.path());
    for warning in [
        "no secret_file: peers are served on loopback only",
        "no access key: Redis clients are served on",
    ] {
        assert!(
            one.seen
                .iter()
                .any(|line| line.contains("WARN") && line.contains(warning)),
            "{:#?}",
            one.seen
        );
    }
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    for signal in ["TERM", "KILL"] {
        let mut one = Serving::one(folder.path());
        assert_eq!(one.client().call(&["SET", signal, "kept"]).unwrap(), Reply::OK);
        one.signal(signal);
        one.ended();
    }
    let one = Serving::one(folder.path());
    let kept = one.client().call(&["MGET", "TERM", "KILL"]).unwrap();
    assert_eq!(kept, Reply::bulks(["kept", "kept"]));
}

#[test]
fn one_folder_is_for_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let one = Serving::one(folder.path());
    let mut second = plenary(["serve", "--listen", "127.0.0.1:0", "--data"]);
    let said = run(second.arg(folder.path()));
    said.failed_with(1, &["in use by another process"]);
    assert_eq!(
        one.client().call(&["PING"]).unwrap(),
        Reply::Simple("PONG".into())
    );
}

#[test]
fn a_port_in_use_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for setting in ["--resp", "--http"] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = plenary(["serve", "--listen", "127.0.0.1:0", setting, &address]);
        let said = run(command.arg("--data").arg(folder.path()));
        said.failed_with(1, &[&format!("cannot listen on {address}")]);
    }
}

#[test]
fn status_and_members_are_tables_and_json() {
    let folder = tempfile::tempdir().unwrap();
    let one = Serving::one(folder.path());
    let status = run(&mut plenary(["status", "--resp", &one.redis]));
    assert_eq!((status.code, status.err.as_str()), (Some(0), ""));
    for text in ["serves      yes\n", "leader ", "MEMBER ", " APPLIED "] {
        assert!(status.out.contains(text), "{text:?} is not in:\n{}", status.out);
    }
    let json = run(plenary(["status", "--json"]).env("PLENARY_RESP", &one.redis));
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["ready"], true);
    let id = json["node_id"].as_u64().unwrap().to_string();
    assert_eq!(json["members"][0]["id"].to_string(), id, "{json:#}");
    let list = run(&mut plenary(["members", "list", "--resp", &one.redis]));
    let row = list
        .out
        .lines()
        .nth(1)
        .unwrap_or_else(|| panic!("no member in {:?}", list.out));
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(
        (cells[0], cells[1], cells[2], cells[4]),
        (id.as_str(), "leader", "yes", one.redis.as_str()),
        "{row}"
    );
}

#[test]
fn changes_of_members_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let one = Serving::one(folder.path());
    run(&mut plenary(["members", "promote", "1234", "--resp", &one.redis])).failed_with(1, &["refused"]);
    run(&mut plenary(["members", "remove", "1234", "--resp", &one.redis])).failed_with(1, &["refused"]);
    run(&mut plenary(["members", "add", "nowhere", "--resp", &one.redis])).failed_with(1, &["refused"]);
    run(&mut plenary(["members", "remove", "one", "--resp", &one.redis])).failed_with(2, &["one"]);
}

#[test]
fn the_access_key_is_needed_where_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "open sesame\n").unwrap();
    let file = file.to_str().unwrap();
    let one = Serving::start(
        &folder.path().join("data"),
        &mut plenary(["serve", "--access-key-file", file]),
    );
    assert!(
        one.seen.iter().all(|line| !line.contains("sesame")),
        "{:#?}",
        one.seen
    );
    assert!(Client::connect(&one.redis, Some(&Secret::new("open sesame"))).is_ok());
    run(&mut plenary(["status", "--resp", &one.redis])).failed_with(1, &["NOAUTH", "--access-key-file"]);
    let wrong = run(plenary(["status", "--resp", &one.redis]).env("PLENARY_ACCESS_KEY", "open barley"));
    wrong.failed_with(1, &["WRONGPASS", "Check the access key"]);
    assert_eq!(
        run(&mut plenary([
            "status",
            "--resp",
            &one.redis,
            "--access-key-file",
            file
        ]))
        .code,
        Some(0)
    );
}

#[test]
fn nobody_there_is_told() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    run(&mut plenary(["status", "--resp", &free]))
        .failed_with(1, &["cannot connect to", &free, "plenary serve --resp"]);
}

/// Whatever listens there, the answer is an error and not a hang: here an HTTP server.
#[test]
fn somebody_else_there_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let one = Serving::one(folder.path());
    run(&mut plenary(["status", "--resp", &one.http])).failed_with(1, &["Plenary node's Redis port"]);
}

#[test]
fn replies_are_shown_as_text() {
    assert_eq!(client::text(&Reply::Integer(7)), "7");
    assert_eq!(client::text(&Reply::Nil), "(nil)");
}
