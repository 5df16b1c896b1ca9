//! Scripts and libraries of functions that all nodes know: texts only, for the machine runs none.

use super::args::Args;
use super::entry::Command;
use super::internal::{count, decimal};
use super::rdb;
use super::reply::{CommandError, Reply};
use super::snapshot::{Source, invalid, write_bytes, write_length};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::io;

/// Scripts known because somebody ran them by `EVAL`; the oldest goes. Those loaded by `SCRIPT LOAD` stay. Redis 7.4: 500.
const EVALUATED_MAX: usize = 500;

/// What is known.
#[derive(Clone, Debug, Default)]
pub struct Scripts {
    /// By SHA-1, 40 lower-case hexadecimal digits.
    texts: BTreeMap<Bytes, Bytes>,
    /// Those that were not loaded on purpose, oldest first.
    evaluated: VecDeque<Bytes>,
    /// By name.
    libraries: BTreeMap<Bytes, Library>,
}

/// A library of functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// Its name.
    pub name: Bytes,
    /// Its text, first line included.
    pub code: Bytes,
    /// Its functions, in the order in which they were registered.
    pub functions: Vec<Function>,
}

/// A function of a library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name, unique among all libraries.
    pub name: Bytes,
    /// What it is said to do.
    pub description: Option<Bytes>,
    /// `no-writes` and its like.
    pub flags: Vec<Bytes>,
}

/// A script to be known by its SHA-1, as one command of the log. `keep` it, or only among the last that were run.
pub fn script(sha: Bytes, text: Bytes, keep: bool) -> Command {
    let keep = Bytes::from_static(if keep { b"keep" } else { b"evaluated" });
    Command::new(0, [Bytes::from_static(b".script"), sha, text, keep])
}

/// Forgets every script.
pub fn flush_scripts() -> Command {
    Command::new(0, [".flush-scripts"])
}

/// What becomes of the libraries that are known when others come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// They stay; none of the same name may come. `FUNCTION LOAD`.
    New,
    /// The same, refused in the words of `FUNCTION RESTORE`.
    Append,
    /// They stay, but for those of the same name.
    Replace,
    /// They go.
    Flush,
}

/// Libraries to be known: all of them, or none where one is refused.
pub fn libraries(libraries: Vec<Library>, policy: Policy) -> Command {
    let policy: &[u8] = match policy {
        Policy::New => b"new",
        Policy::Append => b"append",
        Policy::Replace => b"replace",
        Policy::Flush => b"flush",
    };
    let mut argv = vec![Bytes::from_static(b".libraries"), Bytes::from_static(policy)];
    argv.push(decimal(libraries.len() as u64));
    for library in libraries {
        argv.extend([
            library.name,
            library.code,
            decimal(library.functions.len() as u64),
        ]);
        for function in library.functions {
            argv.extend([function.name, decimal(function.description.is_some().into())]);
            argv.extend([
                function.description.unwrap_or_default(),
                decimal(function.flags.len() as u64),
            ]);
            argv.extend(function.flags);
        }
    }
    Command { db: 0, argv }
}

/// Forgets a library.
pub fn delete_library(name: Bytes) -> Command {
    Command::new(0, [Bytes::from_static(b".delete-library"), name])
}

/// Forgets every library.
pub fn flush_libraries() -> Command {
    Command::new(0, [".flush-libraries"])
}

/// The texts of the libraries that `FUNCTION DUMP` gave, here or at a Redis.
///
/// # Errors
/// Where it is no such payload.
pub fn libraries_of(payload: &[u8]) -> Result<Vec<Bytes>, CommandError> {
    rdb::restore_libraries(payload).map_err(CommandError::text)
}

fn read_library(args: &mut Args<'_>) -> Result<Library, CommandError> {
    let (name, code) = (
        Bytes::copy_from_slice(args.bytes()?),
        Bytes::copy_from_slice(args.bytes()?),
    );
    let mut functions = Vec::new();
    for _ in 0..count(args)? {
        let name = Bytes::copy_from_slice(args.bytes()?);
        let described = args.bytes()? == "1";
        let description = Bytes::copy_from_slice(args.bytes()?);
        let flags = count(args)?;
        let flags = args
            .many(flags)?
            .iter()
            .map(|flag| Bytes::copy_from_slice(flag))
            .collect();
        let description = described.then_some(description);
        functions.push(Function {
            name,
            description,
            flags,
        });
    }
    Ok(Library {
        name,
        code,
        functions,
    })
}

impl Scripts {
    /// A script's text by its SHA-1 in lower-case digits.
    pub fn text(&self, sha: &[u8]) -> Option<&Bytes> {
        self.texts.get(sha)
    }

    /// How many scripts are known, and the bytes of their texts.
    pub fn size(&self) -> (usize, usize) {
        (self.texts.len(), self.texts.values().map(Bytes::len).sum())
    }

    /// The libraries, by name.
    pub fn libraries(&self) -> impl ExactSizeIterator<Item = &Library> {
        self.libraries.values()
    }

    /// All libraries as bytes that [`libraries_of`] and a Redis read.
    pub fn dump(&self) -> Vec<u8> {
        rdb::dump_libraries(self.libraries.values().map(|library| &library.code))
    }

    /// A function by its name in any case, and its library.
    pub fn function(&self, name: &[u8]) -> Option<(&Library, &Function)> {
        let of = |library: &Library| {
            library
                .functions
                .iter()
                .position(|function| function.name.eq_ignore_ascii_case(name))
        };
        let (library, at) = self
            .libraries
            .values()
            .find_map(|library| Some((library, of(library)?)))?;
        Some((library, &library.functions[at]))
    }

    pub(super) fn add(&mut self, args: &mut Args<'_>) -> Result<Reply, CommandError> {
        let (sha, text) = (
            Bytes::copy_from_slice(args.bytes()?),
            Bytes::copy_from_slice(args.bytes()?),
        );
        let keep = args.keyword("keep");
        let known = self.texts.insert(sha.clone(), text).is_some();
        if keep {
            self.evaluated.retain(|evaluated| *evaluated != sha);
        } else if !known {
            self.evaluated.push_back(sha);
            if self.evaluated.len() > EVALUATED_MAX {
                let oldest = self.evaluated.pop_front();
                oldest.and_then(|oldest| self.texts.remove(&oldest));
            }
        }
        Ok(Reply::OK)
    }

    pub(super) fn flush(&mut self) -> Result<Reply, CommandError> {
        self.texts.clear();
        self.evaluated.clear();
        Ok(Reply::OK)
    }

    /// Takes libraries in: all, or none where a name is taken. Replies the last one's name.
    pub(super) fn add_libraries(&mut self, args: &mut Args<'_>) -> Result<Reply, CommandError> {
        let policy = args.bytes()?;
        let (replace, flush) = (policy == "replace", policy == "flush");
        let mut known = if flush {
            BTreeMap::new()
        } else {
            self.libraries.clone()
        };
        let mut last = Reply::OK;
        for _ in 0..count(args)? {
            let library = read_library(args)?;
            if !replace && known.contains_key(&library.name) {
                let name = library.name.escape_ascii();
                let text = match policy == "append" {
                    true => format!("ERR Library {name} already exists"),
                    false => format!("ERR Library '{name}' already exists"),
                };
                return Err(CommandError::Other(text.into()));
            }
            known.remove(&library.name);
            let taken = |name: &Bytes| {
                known
                    .values()
                    .flat_map(|library| &library.functions)
                    .any(|other| other.name.eq_ignore_ascii_case(name))
            };
            if let Some(function) = library.functions.iter().find(|function| taken(&function.name)) {
                let text = format!("ERR Function {} already exists", function.name.escape_ascii());
                return Err(CommandError::Other(text.into()));
            }
            last = Reply::Bulk(library.name.clone());
            known.insert(library.name.clone(), library);
        }
        args.end()?;
        self.libraries = known;
        Ok(last)
    }

    pub(super) fn delete_library(&mut self, args: &mut Args<'_>) -> Result<Reply, CommandError> {
        match self.libraries.remove(args.bytes()?) {
            Some(_) => Ok(Reply::OK),
            None => Err(CommandError::text("ERR Library not found")),
        }
    }

    pub(super) fn flush_libraries(&mut self) -> Result<Reply, CommandError> {
        self.libraries.clear();
        Ok(Reply::OK)
    }

    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        write_length(out, self.texts.len())?;
        for (sha, text) in &self.texts {
            write_bytes(out, sha)?;
            write_bytes(out, text)?;
        }
        write_length(out, self.evaluated.len())?;
        self.evaluated.iter().try_for_each(|sha| write_bytes(out, sha))?;
        write_length(out, self.libraries.len())?;
        for library in self.libraries.values() {
            write_bytes(out, &library.name)?;
            write_bytes(out, &library.code)?;
            write_length(out, library.functions.len())?;
            for function in &library.functions {
                write_bytes(out, &function.name)?;
                out.write_all(&[u8::from(function.description.is_some())])?;
                write_bytes(out, function.description.as_deref().unwrap_or_default())?;
                write_length(out, function.flags.len())?;
                function
                    .flags
                    .iter()
                    .try_for_each(|flag| write_bytes(out, flag))?;
            }
        }
        Ok(())
    }

    pub(super) fn read(from: &mut dyn Source) -> io::Result<Self> {
        let mut scripts = Self::default();
        for _ in 0..from.u32()? {
            let (sha, text) = (from.bytes()?, from.bytes()?);
            scripts.texts.insert(sha, text);
        }
        for _ in 0..from.u32()? {
            scripts.evaluated.push_back(from.bytes()?);
        }
        for _ in 0..from.u32()? {
            let (name, code) = (from.bytes()?, from.bytes()?);
            let mut functions = Vec::new();
            for _ in 0..from.u32()? {
                let (name, described, description) = (from.bytes()?, from.flag()?, from.bytes()?);
                let mut flags = Vec::new();
                for _ in 0..from.u32()? {
                    flags.push(from.bytes()?);
                }
                functions.push(Function {
                    name,
                    description: described.then_some(description),
                    flags,
                });
            }
            let library = Library {
                name: name.clone(),
                code,
                functions,
            };
            if scripts.libraries.insert(name, library).is_some() {
                return Err(invalid("a library that was there before".to_owned()));
            }
        }
        Ok(scripts)
    }
}
