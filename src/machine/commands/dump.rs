//! `DUMP` and `RESTORE`: values in the encoding of Redis' RDB files; and the row of `MIGRATE`, which the edge runs.
//!
//! Follows Redis 7.0. Where a row differs on purpose, the row says so.

use crate::machine::args::{self, Args};
use crate::machine::event::Classes;
use crate::machine::keyspace::{Keyspace, View};
use crate::machine::rdb::{self, Fault};
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{Spec, local, read, write};
use bytes::Bytes;

pub(super) const COMMANDS: &[Spec] = &[
    // Differs: of the encodings that Redis reads we write the plain ones.
    read("DUMP", "key", dump)
        .since("2.6.0")
        .summary("A value as bytes that RESTORE takes, here or at a Redis."),
    local(
        "MIGRATE",
        "host port key destination-db timeout [COPY] [REPLACE] [AUTH password] [AUTH2 username password] [KEYS key [key ...]]",
    )
    .since("2.6.0")
    .flags("write movablekeys")
    .categories("keyspace dangerous")
    .finder(migrated)
    .summary("Takes keys to another Redis or cluster, and removes here what arrived there."),
    write(
        "RESTORE",
        "key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]",
        restore,
    )
    .since("2.6.0")
    .flags("denyoom")
    .categories("dangerous")
    .summary("Puts a value from the bytes that DUMP gave, here or at a Redis."),
];

pub(super) const SERVER: &[Spec] = &[
    // What a node of Redis Cluster says in the place of RESTORE.
    write(
        "RESTORE-ASKING",
        "key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]",
        restore,
    )
    .since("3.0.0")
    .flags("denyoom asking")
    .categories("keyspace dangerous")
    .summary("The same as RESTORE."),
];

/// The key in its place, or those behind `KEYS`; none where both are named.
fn migrated(argv: &[Bytes]) -> Vec<usize> {
    let mut at = 6;
    while let Some(word) = argv.get(at) {
        at += match word.to_ascii_lowercase().as_slice() {
            b"keys" if argv[3].is_empty() => return (at + 1..argv.len()).collect(),
            b"keys" => return Vec::new(),
            b"auth" => 2,
            b"auth2" => 3,
            _ => 1,
        };
    }
    vec![3]
}

fn dump(view: &View<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let Some(value) = view.get(args.key()?) else {
        return Ok(Reply::Nil);
    };
    let payload = rdb::dump(value, view.passed()).ok_or_else(|| rdb::no_payload(value))?;
    Ok(Reply::Bulk(payload.into()))
}

/// What is said beside key, life and value.
#[derive(Default)]
struct Options {
    replace: bool,
    absolute: bool,
    /// Seconds since it was last used.
    idle: Option<u64>,
    /// How often it is used.
    frequency: Option<u8>,
}

impl Options {
    fn parse(args: &mut Args<'_>) -> Result<Self, CommandError> {
        let mut options = Self::default();
        while !args.is_empty() {
            let more = args.remaining() - 1;
            if args.keyword("REPLACE") {
                options.replace = true;
            } else if args.keyword("ABSTTL") {
                options.absolute = true;
            } else if more >= 1 && options.frequency.is_none() && args.keyword("IDLETIME") {
                const INVALID: CommandError = CommandError::text("ERR Invalid IDLETIME value, must be >= 0");
                options.idle = Some(u64::try_from(args.integer()?).map_err(|_| INVALID)?);
            } else if more >= 1 && options.idle.is_none() && args.keyword("FREQ") {
                const INVALID: CommandError =
                    CommandError::text("ERR Invalid FREQ value, must be >= 0 and <= 255");
                options.frequency = Some(u8::try_from(args.integer()?).map_err(|_| INVALID)?);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }
}

fn restore(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (key, life, payload) = (args.key()?, args.bytes()?, args.bytes()?);
    let options = Options::parse(args)?;
    if !options.replace && keys.view().slot(key).is_some() {
        return Err(CommandError::text("BUSYKEY Target key name already exists."));
    }
    let life = args::integer(life).ok_or(CommandError::NotAnInteger)?;
    let life = u64::try_from(life).map_err(|_| CommandError::text("ERR Invalid TTL value, must be >= 0"))?;
    let value = rdb::restore(payload, keys.settings()).map_err(|fault| match fault {
        Fault::Footer => CommandError::text("ERR DUMP payload version or checksum are wrong"),
        Fault::Content => CommandError::text("ERR Bad data format"),
    })?;
    let deadline = match life {
        0 => None,
        life if options.absolute => Some(life),
        life => Some(keys.now().saturating_add(life)),
    };
    if deadline.is_some_and(|deadline| deadline <= keys.now()) {
        if keys.remove(key).is_some() {
            keys.notify(Classes::GENERIC, "del", key);
        }
        return Ok(Reply::OK);
    }
    keys.put_until(key, value, deadline);
    let idle_ms = options.idle.map(|seconds| seconds.saturating_mul(1000));
    keys.set_use(key, idle_ms, options.frequency);
    keys.notify(Classes::GENERIC, "restore", key);
    Ok(Reply::OK)
}
