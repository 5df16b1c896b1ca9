//! Entries of the cache: how a key is read as one. Written by `commands/cache.rs` alone.
//!
//! An entry is a hash whose fields begin with a dot: the value, until when it is fresh, who may put the next one (a lease), and of each tag the number it
//! had when the value was made. A tag is a key as well; it holds a number that no other tag ever had, and ends no earlier than the entries that name it.
//! So ending all entries of a tag is the removal of one key, and whatever else takes a tag away (`DEL`, `FLUSHDB`, eviction) ends them too: an entry whose
//! tag is not there, or has another number, is none. A string is an entry that is always fresh, so that `SET` and the cache go together.

use super::keyspace::{Slot, View};
use super::reply::CommandError;
use super::value::{Hash, Living, Value};
use bytes::Bytes;

/// The field that holds the value. Where a lease makes the key outlive it, it ends by a deadline of its own.
pub(super) const VALUE: &[u8] = b".value";

/// The field that says until when the value is fresh, in milliseconds of the log's clock; none: as long as it lives.
pub(super) const FRESH: &[u8] = b".fresh";

/// The field that holds the token of the lease. It ends by itself at the lease's deadline.
pub(super) const LEASE: &[u8] = b".lease";

/// What the field of a tag begins with.
const TAG: &[u8] = b".tag:";

/// What stands under a key, read as an entry of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its value; none where it is only being loaded, or one of its tags was invalidated.
    pub value: Option<Bytes>,
    /// Whether the value is fresh.
    pub fresh: bool,
    /// The token of whoever may put the next value, as long as the lease lasts.
    pub lease: Option<u64>,
}

/// The entry under a key.
///
/// # Errors
/// `WrongType` where there is something else.
pub fn find(view: &View<'_>, key: &[u8]) -> Result<Option<Entry>, CommandError> {
    let hash = match view.get(key) {
        None => return Ok(None),
        Some(Value::String(string)) => {
            return Ok(Some(Entry {
                value: Some(string.bytes().clone()),
                fresh: true,
                lease: None,
            }));
        }
        // Also by fields that have ended and were not removed yet: it is an entry without them.
        Some(Value::Hash(hash)) if is_entry(hash) => hash.after(view.passed()),
        Some(_) => return Err(CommandError::WrongType),
    };
    let lease = hash.get(LEASE).and_then(number);
    let (value, fresh_until) = (hash.value(VALUE), hash.get(FRESH));
    Ok(Some(Entry {
        value: value.filter(|_| tags_stand(view, hash)),
        fresh: fresh_until.is_none_or(|until| number(until).is_some_and(|until| until > view.passed())),
        lease,
    }))
}

/// Whether a hash is an entry.
pub(super) fn is_entry(hash: &Hash) -> bool {
    let fields = [VALUE, LEASE, FRESH];
    fields.iter().any(|field| hash.get(field).is_some())
}

/// The keys of the tags of what a slot holds, where that is an entry.
pub(super) fn tags(slot: &Slot) -> impl Iterator<Item = &[u8]> {
    let hash = match &slot.value {
        Value::Hash(hash) if is_entry(hash) => Some(hash),
        _ => None,
    };
    let fields = hash.into_iter().flat_map(|hash| hash.iter());
    fields.filter_map(|(field, _)| field.strip_prefix(TAG))
}

/// Whether every tag has the number that it had for this entry.
fn tags_stand(view: &View<'_>, hash: Living<'_>) -> bool {
    let mut tags = hash
        .iter()
        .filter_map(|(field, seen)| Some((field.strip_prefix(TAG)?, seen)));
    tags.all(|(tag, seen)| matches!(view.string(tag), Ok(Some(now)) if now.bytes() == seen))
}

/// The field of a tag.
pub(super) fn tag_field(tag: &[u8]) -> Vec<u8> {
    [TAG, tag].concat()
}

/// The number of a tag, none where there is no such tag.
///
/// # Errors
/// Where something else stands under its key.
pub(super) fn tag_number(view: &View<'_>, tag: &[u8]) -> Result<Option<u64>, CommandError> {
    const NO_TAG: CommandError = CommandError::text("ERR what stands under the key of a tag is no tag");
    let string = view.string(tag)?;
    string
        .map(|string| number(string.bytes()).ok_or(NO_TAG))
        .transpose()
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
