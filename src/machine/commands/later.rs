//! A command of the level after this one, so that tests see how such a command is held back until all members know it.

use super::session::SINCE;
use crate::machine::entry::Entry;
use crate::machine::reply::Reply;
use crate::machine::table::{Spec, write};
use crate::machine::value::{Str, Value};

pub(super) const COMMANDS: &[Spec] = &[write("TEST.LATER", "key value", |keys, args| {
    let key = args.key()?;
    keys.put(key, Value::String(Str::as_text(args.bytes()?.clone())));
    Ok(Reply::OK)
})
.since(SINCE)
.level(Entry::FORMAT + 1)
.summary("Sets a key, at a level that nobody has yet.")];
