//! The two rules on which correctness hangs, and a few that keep them: which layer may name which, and what the machine must not name.
//!
//! Reads the sources as text, so it can be fooled by a macro or an alias; it is for mistakes, not for malice. Style is left to rustfmt and clippy.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// From the bottom: a layer names those below it and itself. `error`, `config` and `mutant` stand below all.
const LAYERS: &[&[&str]] = &[
    &["error", "config", "mutant"],
    &["machine"],
    &["raft"],
    &["node"],
    &["remote"],
    &["session", "cache"],
    // A cluster of other processes, in one handle.
    &["connect"],
    // The builder that starts a node and its edges, and hands out the handles.
    &["edge", "plenary"],
    // Simulated clusters, in tests of the library alone: they stand on what is inside.
    &["simulation"],
    // The program: its file, and the commands that stand in the library so that tests reach them.
    &["bin", "cli"],
];

/// What the machine must not name, and why.
const FORBIDDEN_IN_MACHINE: &[(&str, &str)] = &[
    ("SystemTime", "no clock: time is in the entry"),
    ("Instant", "no clock: time is in the entry"),
    ("std::time", "no clock: time is in the entry"),
    ("getrandom", "no randomness: chance is in the entry"),
    ("rand::", "no randomness: chance is in the entry"),
    ("RandomState", "no randomness: order must not hang on a hasher"),
    ("std::fs", "no I/O"),
    ("std::net", "no I/O"),
    ("std::env", "no I/O"),
    ("std::process", "no I/O"),
    ("stdin", "no I/O"),
    ("stdout", "no I/O"),
    ("stderr", "no I/O"),
    ("println!", "no I/O"),
    ("tracing", "no I/O"),
    ("tokio", "no task"),
    ("async ", "no task"),
    ("std::thread", "no thread"),
    ("thread::", "no thread"),
    ("thread_local!", "no thread"),
    ("std::sync::mpsc", "no thread"),
];

/// Crates that only these files may name.
const CONFINED: &[(&str, &[&str])] = &[
    ("openraft", &["src/raft/"]),
    ("tonic", &["src/raft/"]),
    ("prost", &["src/raft/"]),
    ("sled", &["src/raft/log/sled.rs", "src/raft/meta.rs"]),
    ("bincode", &["src/raft/meta.rs"]),
    ("mlua", &["src/node/script/engine/"]),
];

/// One source file: its path below the project, with `/`, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Its lines of code with their numbers: no comments and no text in quotes. A `use` over several lines is one.
    fn code(&self) -> Vec<(usize, String)> {
        let mut lines: Vec<(usize, String)> = Vec::new();
        for (number, line) in (1..).zip(self.text.lines()) {
            let code = code_of(line);
            match lines.last_mut() {
                Some((_, last)) if is_open_use(last) => last.push_str(code.trim()),
                _ => lines.push((number, code)),
            }
        }
        lines
    }

    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| {
            if place.ends_with('/') {
                self.path.starts_with(place)
            } else {
                self.path == *place
            }
        })
    }

    /// The module under `src` it belongs to: `node` for `src/node/mod.rs` and `src/node.rs`.
    fn module(&self) -> &str {
        let path = self.path.strip_prefix("src/").unwrap_or(&self.path);
        path.split('/').next().unwrap_or(path).trim_end_matches(".rs")
    }

    fn fault(&self, line: usize, rule: &str) -> String {
        format!("{}:{line}: {rule}", self.path)
    }
}

fn is_open_use(code: &str) -> bool {
    let begins = ["use ", "pub use ", "pub(crate) use "]
        .iter()
        .any(|start| code.trim_start().starts_with(start));
    begins && !code.contains(';')
}

fn code_of(line: &str) -> String {
    let (mut code, mut quoted, mut escaped) = (String::new(), false, false);
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        match first {
            '/' if !quoted && rest.starts_with("//") => break,
            // A quote as a character, `'"'`, opens no text.
            '\'' if !quoted && rest.starts_with("'\"'") => {
                rest = &rest[3..];
                continue;
            }
            '"' if !escaped => quoted = !quoted,
            _ if !quoted => code.push(first),
            _ => {}
        }
        escaped = quoted && first == '\\' && !escaped;
        rest = &rest[first.len_utf8()..];
    }
    code
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut files) = (vec![root.join("src")], Vec::<PathBuf>::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("an entry of it").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a source in UTF-8");
        let below = path
            .strip_prefix(root)
            .expect("below the root: walked from there")
            .iter()
            .map(|part| part.to_str().expect("names of ours are text"));
        Source {
            path: below.collect::<Vec<_>>().join("/"),
            text,
        }
    };
    files.into_iter().map(read).collect()
}

/// The modules of ours that a line names: `machine` in `crate::machine::entry`; in the program, `plenary::machine`.
fn named(code: &str, is_program: bool) -> Vec<&str> {
    let prefix = if is_program { "plenary::" } else { "crate::" };
    let ends = |text: &str| {
        text.find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(text.len())
    };
    let starts = code
        .match_indices(prefix)
        .filter(|(at, _)| !code[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
    let rests = starts.map(|(at, _)| &code[at + prefix.len()..]);
    rests
        .flat_map(|rest| match rest.strip_prefix('{') {
            // `use crate::{error::Error, machine::Machine}`: the first word after the brace and after each comma outside inner braces.
            Some(list) => top_level(list)
                .into_iter()
                .map(|item| &item[..ends(item)])
                .collect(),
            None => vec![&rest[..ends(rest)]],
        })
        .filter(|name| !name.is_empty())
        .collect()
}

fn top_level(list: &str) -> Vec<&str> {
    let (mut items, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(list[start..at].trim());
                return items;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(list[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(list[start..].trim());
    items
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// Why a line must not stand in this file, if so.
fn arrow_fault(source: &Source, code: &str) -> Option<String> {
    let module = source.module();
    if module == "lib" {
        return None;
    }
    // A module without a layer is one fault of its file, not of each line.
    let own = layer(module)?;
    if let Some(other) = code.split_once("crate::edge::").map(|(_, rest)| rest) {
        let below = source
            .path
            .strip_prefix("src/edge/")
            .and_then(|path| path.split(['/', '.']).next());
        if below.is_some_and(|own| own != "mod" && !other.starts_with(own)) {
            return Some("edges do not know each other".to_owned());
        }
    }
    named(code, module == "bin").into_iter().find_map(|other| {
        // Re-exports of lib.rs begin with a capital letter; they come from the layers and are the program's to use.
        if other == module || other.starts_with(char::is_uppercase) && own + 1 == LAYERS.len() {
            return None;
        }
        match (module, other) {
            ("error", "machine") if code.contains("machine::reply::CommandError") => return None,
            // The settings' one validate() answers this crate's error.
            ("config", "error") => return None,
            // The two handles are one layer: a session is kept in the cache. Edges do not know each other, the builder starts them.
            ("session", "cache") | ("plenary", "edge") | ("bin", "cli") => return None,
            _ => {}
        }
        match layer(other) {
            Some(layer) if layer < own => None,
            Some(_) => Some(format!(
                "{module} must not name {other}: arrows point downward only"
            )),
            None => Some(format!(
                "{module} names {other}, which is in no layer: give it one in tests/tidy.rs"
            )),
        }
    })
}

fn names(code: &str, word: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + word.len()..]);
        let open = |text: Option<char>| text.is_none_or(|c| !is_word(c));
        open(before.chars().next_back()) && (!word.ends_with(is_word) || open(after.chars().next()))
    })
}

fn faults(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    // What a generator wrote says so instead.
    let is_generated = source
        .text
        .lines()
        .next()
        .is_some_and(|line| line.contains("@generated"));
    if !source.text.starts_with("//!") && !is_generated {
        faults.push(source.fault(1, "a file begins with `//!`: what it is for and what it is not"));
    }
    let module = source.module();
    if module != "lib" && layer(module).is_none() {
        let rule = format!("module {module} is in no layer: give it one in tests/tidy.rs");
        faults.push(source.fault(1, &rule));
    }
    for (number, code) in source.code() {
        faults.extend(arrow_fault(source, &code).map(|rule| source.fault(number, &rule)));
        if source.is_in(&["src/machine/"]) {
            let forbidden = FORBIDDEN_IN_MACHINE.iter().filter(|(word, _)| names(&code, word));
            faults.extend(forbidden.map(|(word, why)| {
                source.fault(number, &format!("machine must not name {}: {why}", word.trim()))
            }));
        }
        for (name, places) in CONFINED {
            // `self::sled::…` and, beside `mod sled;`, `sled::…` mean a module of ours.
            let is_ours = || {
                let paths = ["self::", "super::", "log::"];
                paths.iter().any(|path| code.contains(&format!("{path}{name}")))
                    || source.text.contains(&format!("mod {name};"))
            };
            let is_named = names(&code, &format!("{name}::")) || names(&code, &format!("use {name}"));
            let as_crate = is_named && !is_ours();
            if as_crate && !source.is_in(places) {
                let rule = format!("{name} may be named in {} only", places.join(" and "));
                faults.push(source.fault(number, &rule));
            }
        }
    }
    faults
}

#[test]
fn layers_point_downward_and_the_machine_is_pure() {
    let sources = sources();
    assert!(
        sources.iter().any(|source| source.path == "src/machine/mod.rs"),
        "the sources are not where they were"
    );
    let faults = sources
        .iter()
        .flat_map(faults)
        .fold(String::new(), |mut all, fault| {
            let _ = write!(all, "\n  {fault}");
            all
        });
    assert!(faults.is_empty(), "{faults}");
}

/// Each rule finds what it is for.
#[test]
fn faults_are_found() {
    let found = |path: &str, text: &str| {
        faults(&Source {
            path: path.to_owned(),
            text: format!("//! What it is for.\n{text}"),
        })
        .join("; ")
    };
    assert_eq!(
        found("src/machine/entry.rs", "use crate::node::Node;"),
        "src/machine/entry.rs:2: machine must not name node: arrows point downward only"
    );
    assert!(
        found(
            "src/raft/mod.rs",
            "use crate::{machine::{Machine, entry}, node::Node};"
        )
        .contains("raft must not name node")
    );
    assert!(found("src/cache.rs", "use crate::session::Sessions;").contains("cache must not name session"));
    assert!(found("src/config.rs", "use crate::machine::Machine;").contains("config must not name machine"));
    assert!(found("src/error.rs", "use crate::machine::Machine;").contains("error must not name machine"));
    assert!(
        found(
            "src/raft/mod.rs",
            "use crate::{\n    error::Error,\n    node::Node,\n};"
        )
        .starts_with("src/raft/mod.rs:2: raft must")
    );
    assert!(
        found("src/edge/http.rs", "use crate::edge::resp::frame;").contains("edges do not know each other")
    );
    assert!(found("src/wild.rs", "fn f() {}").contains("in no layer"));
    assert!(found("src/machine/mod.rs", "let now = std::time::SystemTime::now();").contains("no clock"));
    assert!(found("src/machine/mod.rs", "async fn f() {}").contains("no task"));
    assert!(
        found("src/node/mod.rs", "use openraft::Raft;").contains("openraft may be named in src/raft/ only")
    );
    assert!(
        found("src/raft/wire.rs", "fn f(tree: &sled::Tree) {}")
            .contains("sled may be named in src/raft/log/sled.rs")
    );
    assert!(found("src/raft/log/sled.rs", "bincode::serialize(x)").contains("bincode may be named"));
    assert_eq!(
        faults(&Source {
            path: "src/cache.rs".to_owned(),
            text: "use std::fmt;".to_owned()
        }),
        ["src/cache.rs:1: a file begins with `//!`: what it is for and what it is not"]
    );
    for (path, text) in [
        (
            "src/machine/entry.rs",
            "// A clock would be std::time; \"tokio\" is a word.\nlet text = \"tokio \\\" std::fs\";",
        ),
        (
            "src/error.rs",
            "Refused(#[from] crate::machine::reply::CommandError),",
        ),
        ("src/raft/log/mod.rs", "mod sled;\nuse self::sled::SledLog;"),
        ("src/session.rs", "use crate::cache::Cache;"),
        ("src/edge/resp/listener.rs", "use crate::edge::resp::frame;"),
        ("src/bin/plenary.rs", "use plenary::config::Config;"),
    ] {
        assert_eq!(found(path, text), "", "{path}: {text}");
    }
}
