//! What a command answers, in no wire format: RESP2, RESP3 and Rust each read it their own way.

use bytes::Bytes;
use std::borrow::Cow;
use std::fmt;

/// The answer to one command.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A short text that is not data, as `OK`.
    Simple(Cow<'static, str>),
    /// A whole number.
    Integer(i64),
    /// Bytes.
    Bulk(Bytes),
    /// Nothing there.
    Nil,
    /// Nothing there, where an array was asked for (RESP2 tells the two apart).
    NilArray,
    /// A list of answers.
    Array(Vec<Reply>),
    /// Pairs; a flat array in RESP2.
    Map(Vec<(Reply, Reply)>),
    /// A list of pairs in order, doubles allowed: an array of arrays of two in RESP3, a flat array in RESP2.
    Pairs(Vec<(Reply, Reply)>),
    /// A list without order or doubles; an array in RESP2.
    Set(Vec<Reply>),
    /// A floating-point number; a bulk in RESP2.
    Double(f64),
    /// Yes or no; 1 or 0 in RESP2.
    Boolean(bool),
    /// Text for a person (`INFO`): a verbatim string `txt` in RESP3, a bulk in RESP2.
    Verbatim(Bytes),
    /// A refusal, the same on every node.
    Error(CommandError),
    /// None yet: the command waits in the log under this number, and [`super::event::Event::Answered`] brings its answer.
    Waiting(u64),
}

impl Reply {
    /// `OK`.
    pub const OK: Reply = Reply::Simple(Cow::Borrowed("OK"));

    /// A bulk that copies `bytes`.
    pub fn bulk(bytes: impl AsRef<[u8]>) -> Self {
        Self::Bulk(Bytes::copy_from_slice(bytes.as_ref()))
    }

    /// A bulk, or nil where there is none.
    pub fn bulk_or_nil(bytes: Option<Bytes>) -> Self {
        bytes.map_or(Self::Nil, Self::Bulk)
    }

    /// A count of things.
    pub fn count(count: usize) -> Self {
        Self::Integer(i64::try_from(count).expect("nothing here holds 2^63 things"))
    }

    /// 1 for yes, 0 for no: what most commands of Redis answer.
    pub fn flag(yes: bool) -> Self {
        Self::Integer(i64::from(yes))
    }

    /// An array of bulks.
    pub fn bulks<B: AsRef<[u8]>>(items: impl IntoIterator<Item = B>) -> Self {
        Self::Array(items.into_iter().map(Self::bulk).collect())
    }
}

impl From<Result<Reply, CommandError>> for Reply {
    fn from(result: Result<Reply, CommandError>) -> Self {
        result.unwrap_or_else(Reply::Error)
    }
}

/// Why a command was refused. Part of the reply, the same on every node; it has changed nothing.
///
/// `Display` is the text Redis 7.0 answers, prefix first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The key holds another type.
    WrongType,
    /// An argument is not a 64-bit integer.
    NotAnInteger,
    /// An argument is not a floating-point number.
    NotAFloat,
    /// The sum leaves the 64-bit range.
    IntegerOverflow,
    /// The arguments do not follow the command's syntax.
    Syntax,
    /// There is no such key.
    NoSuchKey,
    /// Too few or too many arguments for this command (lower-case name; `name|sub` for a subcommand).
    Arity(String),
    /// No such command: its name as the client said it, and the arguments that begin its call.
    Unknown {
        /// The name, at most 128 bytes.
        name: String,
        /// The first arguments quoted as Redis quotes them, at most 128 bytes.
        arguments: String,
    },
    /// No such subcommand of this (upper-case) command.
    UnknownSubcommand {
        /// What the client said.
        subcommand: String,
        /// The command, upper case, whose HELP lists them.
        command: String,
    },
    /// The time to live is not valid in this (lower-case) command.
    InvalidExpire(&'static str),
    /// Any other refusal, whole, prefix first: `ERR index out of range`.
    Other(Cow<'static, str>),
}

impl CommandError {
    /// A refusal with its text, prefix first.
    pub const fn text(text: &'static str) -> Self {
        Self::Other(Cow::Borrowed(text))
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongType => {
                f.write_str("WRONGTYPE Operation against a key holding the wrong kind of value")
            }
            Self::NotAnInteger => f.write_str("ERR value is not an integer or out of range"),
            Self::NotAFloat => f.write_str("ERR value is not a valid float"),
            Self::IntegerOverflow => f.write_str("ERR increment or decrement would overflow"),
            Self::Syntax => f.write_str("ERR syntax error"),
            Self::NoSuchKey => f.write_str("ERR no such key"),
            Self::Arity(name) => write!(f, "ERR wrong number of arguments for '{name}' command"),
            Self::Unknown { name, arguments } => {
                write!(
                    f,
                    "ERR unknown command '{name}', with args beginning with: {arguments}"
                )
            }
            Self::UnknownSubcommand { subcommand, command } => {
                write!(f, "ERR unknown subcommand '{subcommand}'. Try {command} HELP.")
            }
            Self::InvalidExpire(command) => write!(f, "ERR invalid expire time in '{command}' command"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for CommandError {}
