//! Golden scripts: commands and what they answer, in files that a person can read, judged by a real Redis where there is one.
//!
//! `tests/README.md` explains the files. `PLENARY_GOLDEN=record cargo test --test golden` writes the answers anew;
//! `PLENARY_REDIS_SERVER=redis-server cargo test --test golden` compares them with Redis.

mod oracle;

use oracle::{Answer, Server};
use plenary::machine::Machine;
use plenary::machine::entry::Millis;
use plenary::machine::event::Event;
use plenary::machine::internal;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The log's clock where a script does not say: some day in 2023, so that past and future mean the same to a real Redis.
const DEFAULT_AT: Millis = 1_700_000_000_000;

/// Scripts whose commands must tell of keys what Redis tells.
const TELLING: &[&str] = &[
    "bitmap",
    "blocking",
    "expire",
    "geo",
    "hash",
    "hyperloglog",
    "key",
    "list",
    "set",
    "sort",
    "stream",
    "stream_group",
    "string",
    "zset",
];

/// Of which classes.
const CLASSES: &str = "Eg$lshzt";

/// One command of a case.
struct Line {
    text: String,
    /// When, by the log's clock; such a case means nothing to a Redis that has a clock of its own.
    at: Option<Millis>,
    db: u8,
    sort: bool,
    argv: Vec<Vec<u8>>,
}

/// Comments, commands, and what they are to answer.
struct Case {
    /// Where it begins, counted from 1.
    line: usize,
    comments: Vec<String>,
    lines: Vec<Line>,
    expected: String,
}

impl Case {
    fn says(&self, word: &str) -> bool {
        self.comments.iter().any(|comment| {
            comment
                .strip_prefix("# ")
                .is_some_and(|text| text.starts_with(word))
        })
    }

    /// Whether a real Redis must answer the same.
    fn is_for_redis(&self) -> bool {
        !self.says("only plenary:")
            && !self.says("differs:")
            && self.lines.iter().all(|line| line.at.is_none())
    }

    /// Runs the commands and writes their answers below each other.
    fn replay(&self, mut run: impl FnMut(Millis, &Line) -> Answer) -> String {
        let mut at = DEFAULT_AT;
        let mut answers = String::new();
        for line in &self.lines {
            at = line.at.unwrap_or(at);
            let answer = run(at, line);
            let answer = if line.sort { answer.sorted() } else { answer };
            writeln!(answers, "{}", answer.render()).expect("a String takes everything");
        }
        answers
    }

    /// What a machine tells of keys meanwhile, as [`oracle::Server::told`] says it.
    fn told(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut machine = Machine::default();
        let classes = ("notify-keyspace-events".to_owned(), CLASSES.to_owned());
        oracle::run_internal(&mut machine, DEFAULT_AT, internal::set(&[classes]));
        self.replay(|at, line| oracle::run(&mut machine, at, 1, line.db, &line.argv));
        let events = machine.store_mut().take_events().into_iter();
        let messages = events.filter_map(|event| match event {
            Event::Message { channel, message, .. } => Some((channel.to_vec(), message.to_vec())),
            _ => None,
        });
        messages.collect()
    }

    fn ours(&self) -> String {
        let mut machine = Machine::default();
        let mut seed = 0;
        self.replay(|at, line| {
            seed += 1_000;
            oracle::run(&mut machine, at, seed, line.db, &line.argv)
        })
    }
}

fn parse_line(text: &str) -> Line {
    let mut line = Line {
        text: text.to_owned(),
        at: None,
        db: 0,
        sort: false,
        argv: Vec::new(),
    };
    let mut rest = text;
    loop {
        let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
        if let Some(at) = word.strip_prefix("at=") {
            line.at = Some(
                at.parse()
                    .unwrap_or_else(|_| panic!("at= takes milliseconds: {text}")),
            );
        } else if let Some(db) = word.strip_prefix("db=") {
            line.db = db
                .parse()
                .unwrap_or_else(|_| panic!("db= takes a number: {text}"));
        } else if word == "sort" {
            line.sort = true;
        } else {
            break;
        }
        rest = after;
    }
    line.argv = oracle::words(rest).unwrap_or_else(|error| panic!("{error}"));
    line
}

fn parse(script: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut lines = (1..).zip(script.lines()).peekable();
    loop {
        while lines.next_if(|(_, line)| line.is_empty()).is_some() {}
        let Some((line, _)) = lines.peek() else {
            return cases;
        };
        let mut case = Case {
            line: *line,
            comments: Vec::new(),
            lines: Vec::new(),
            expected: String::new(),
        };
        for (_, line) in lines.by_ref().take_while(|(_, line)| *line != "---") {
            assert!(!line.is_empty(), "line {}: a case has no `---`", case.line);
            if line.starts_with('#') {
                case.comments.push(line.to_owned())
            } else {
                case.lines.push(parse_line(line))
            }
        }
        assert!(
            !case.comments.is_empty() && !case.lines.is_empty(),
            "line {}: a case says what it shows, and shows it",
            case.line
        );
        for (_, line) in lines.by_ref().take_while(|(_, line)| !line.is_empty()) {
            case.expected += line;
            case.expected.push('\n');
        }
        cases.push(case);
    }
}

fn print(cases: &[Case]) -> String {
    let one = |case: &Case| {
        let commands = case.lines.iter().map(|line| line.text.as_str());
        let head: Vec<&str> = case.comments.iter().map(String::as_str).chain(commands).collect();
        format!("{}\n---\n{}", head.join("\n"), case.ours())
    };
    cases.iter().map(one).collect::<Vec<_>>().join("\n")
}

fn scripts() -> Vec<(PathBuf, Vec<Case>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the scripts")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "script"));
    paths.sort();
    assert!(!paths.is_empty(), "there are scripts");
    paths
        .into_iter()
        .map(|path| {
            (
                path.clone(),
                parse(&std::fs::read_to_string(path).expect("a script")),
            )
        })
        .collect()
}

/// The faults of one case: what was answered where something else was expected.
fn fault(path: &Path, case: &Case, who: &str, answered: &str) -> Option<String> {
    if case.expected == answered {
        return None;
    }
    let commands: Vec<&str> = case.lines.iter().map(|line| line.text.as_str()).collect();
    Some(format!(
        "{}:{}: {}\n{}\n--- expected\n{}--- {who}\n{answered}",
        path.display(),
        case.line,
        case.comments[0],
        commands.join("\n"),
        case.expected
    ))
}

#[test]
fn every_script_is_answered_as_written() {
    let record = std::env::var_os("PLENARY_GOLDEN").is_some_and(|value| value == "record");
    let mut faults = Vec::new();
    for (path, cases) in scripts() {
        if record {
            std::fs::write(&path, print(&cases)).expect("the script is written");
            continue;
        }
        faults.extend(
            cases
                .iter()
                .filter_map(|case| fault(&path, case, "answered", &case.ours())),
        );
    }
    assert!(
        faults.is_empty(),
        "{} cases:\n\n{}",
        faults.len(),
        faults.join("\n")
    );
}

#[test]
fn redis_answers_the_same() {
    let Some(mut redis) = Server::from_environment() else {
        return;
    };
    let mut faults = Vec::new();
    let mut compared = 0;
    for (path, cases) in scripts() {
        for case in cases.iter().filter(|case| case.is_for_redis()) {
            redis.reset();
            let answered = case.replay(|_, line| redis.run(line.db, &line.argv));
            faults.extend(fault(&path, case, "redis", &answered));
            compared += 1;
        }
    }
    println!("{compared} cases compared with Redis");
    assert!(
        faults.is_empty(),
        "{} of {compared} cases:\n\n{}",
        faults.len(),
        faults.join("\n")
    );
}

#[test]
fn redis_tells_the_same_of_keys() {
    let Some(mut redis) = Server::from_environment() else {
        return;
    };
    let mut listener = redis.listen(CLASSES);
    let show = |told: Vec<(Vec<u8>, Vec<u8>)>| {
        let lines = told
            .iter()
            .map(|(channel, key)| format!("{} {}\n", oracle::quote(channel), oracle::quote(key)));
        lines.collect::<String>()
    };
    let mut faults = Vec::new();
    let mut compared = 0;
    for (path, cases) in scripts() {
        let name = path.file_stem().and_then(|name| name.to_str());
        if !name.is_some_and(|name| TELLING.contains(&name)) {
            continue;
        }
        for case in cases.iter().filter(|case| case.is_for_redis()) {
            redis.reset();
            redis.told(&mut listener);
            case.replay(|_, line| redis.run(line.db, &line.argv));
            let (theirs, ours) = (show(redis.told(&mut listener)), show(case.told()));
            compared += ours.lines().count();
            if ours != theirs {
                faults.push(format!(
                    "{}:{}: {}\n--- told\n{ours}--- redis\n{theirs}",
                    path.display(),
                    case.line,
                    case.comments[0]
                ));
            }
        }
    }
    println!("{compared} events compared with Redis");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(compared > 100, "only {compared} events");
}
