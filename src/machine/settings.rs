//! Settings that all nodes share, because what they decide is state or is seen by everybody: changed by `CONFIG SET` through the log.
//!
//! What concerns one node's endpoint (`timeout`, `maxclients` …) is that endpoint's.

use super::event::Classes;
use super::snapshot::{Source, invalid, write_bytes, write_length};
use std::io;

/// The settings, by the names of Redis' parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `notify-keyspace-events`: which events are told.
    pub notify_keyspace_events: Classes,
    /// `acl-pubsub-default`: whether new users may use all channels.
    pub acl_pubsub_default: bool,
    /// `hash-max-listpack-entries`: fields a hash may have to be shown as a listpack.
    pub hash_max_listpack_entries: usize,
    /// `hash-max-listpack-value`: bytes a field or value may have there.
    pub hash_max_listpack_value: usize,
    /// `set-max-intset-entries`: members a set of integers may have to be shown as an intset.
    pub set_max_intset_entries: usize,
    /// `zset-max-listpack-entries`: members a sorted set may have to be shown as a listpack.
    pub zset_max_listpack_entries: usize,
    /// `zset-max-listpack-value`: bytes a member may have there.
    pub zset_max_listpack_value: usize,
    /// `list-max-listpack-size`: accepted and shown; lists are quicklists whatever it says, as in Redis 7.0.
    pub list_max_listpack_size: i64,
    /// `list-compress-depth`: accepted and shown.
    pub list_compress_depth: usize,
    /// `stream-node-max-bytes`: accepted and shown; trimming with `~` counts entries.
    pub stream_node_max_bytes: usize,
    /// `stream-node-max-entries`: entries of a node, the unit that `XADD … ~` trims by.
    pub stream_node_max_entries: usize,
    /// `hll-sparse-max-bytes`: bytes up to which a HyperLogLog stays sparse.
    pub hll_sparse_max_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            notify_keyspace_events: Classes::default(),
            acl_pubsub_default: false,
            hash_max_listpack_entries: 512,
            hash_max_listpack_value: 64,
            set_max_intset_entries: 512,
            zset_max_listpack_entries: 128,
            zset_max_listpack_value: 64,
            list_max_listpack_size: -2,
            list_compress_depth: 0,
            stream_node_max_bytes: 4096,
            stream_node_max_entries: 100,
            hll_sparse_max_bytes: 3000,
        }
    }
}

/// One parameter: its names (the first is the one shown), how it is read and how it is set. `set` says whether the value is one.
struct Parameter {
    names: &'static [&'static str],
    get: fn(&Settings) -> String,
    set: fn(&mut Settings, &str) -> bool,
}

fn number<N: std::str::FromStr>(place: &mut N, text: &str) -> bool {
    text.parse().map(|number| *place = number).is_ok()
}

macro_rules! numbers {
    ($($field:ident: $($name:literal),+;)*) => {
        &[$(Parameter {
            names: &[$($name),+],
            get: |settings| settings.$field.to_string(),
            set: |settings, text| number(&mut settings.$field, text),
        }),*]
    };
}

const PARAMETERS: &[Parameter] = &[
    Parameter {
        names: &["notify-keyspace-events"],
        get: |settings| settings.notify_keyspace_events.to_string(),
        set: |settings, text| {
            Classes::parse(text)
                .map(|classes| settings.notify_keyspace_events = classes)
                .is_some()
        },
    },
    Parameter {
        names: &["acl-pubsub-default"],
        get: |settings| {
            if settings.acl_pubsub_default {
                "allchannels"
            } else {
                "resetchannels"
            }
            .to_owned()
        },
        set: |settings, text| {
            settings.acl_pubsub_default = text == "allchannels";
            settings.acl_pubsub_default || text == "resetchannels"
        },
    },
];

const NUMBERS: &[Parameter] = numbers! {
    hash_max_listpack_entries: "hash-max-listpack-entries", "hash-max-ziplist-entries";
    hash_max_listpack_value: "hash-max-listpack-value", "hash-max-ziplist-value";
    set_max_intset_entries: "set-max-intset-entries";
    zset_max_listpack_entries: "zset-max-listpack-entries", "zset-max-ziplist-entries";
    zset_max_listpack_value: "zset-max-listpack-value", "zset-max-ziplist-value";
    list_max_listpack_size: "list-max-listpack-size", "list-max-ziplist-size";
    list_compress_depth: "list-compress-depth";
    stream_node_max_bytes: "stream-node-max-bytes";
    stream_node_max_entries: "stream-node-max-entries";
    hll_sparse_max_bytes: "hll-sparse-max-bytes";
};

fn parameters() -> impl Iterator<Item = &'static Parameter> {
    PARAMETERS.iter().chain(NUMBERS)
}

fn named(name: &str) -> Option<&'static Parameter> {
    parameters().find(|parameter| parameter.names.contains(&name))
}

impl Settings {
    /// Whether a parameter of this (lower-case) name is one of these.
    pub fn knows(name: &str) -> bool {
        named(name).is_some()
    }

    /// Every name, other names of the same parameter included.
    pub fn names() -> impl Iterator<Item = &'static str> {
        parameters().flat_map(|parameter| parameter.names.iter().copied())
    }

    /// A parameter's value as `CONFIG GET` shows it.
    pub fn get(&self, name: &str) -> Option<String> {
        named(name).map(|parameter| (parameter.get)(self))
    }

    /// Sets a parameter. Whether there is such a parameter and such a value; if not, nothing has changed.
    pub fn set(&mut self, name: &str, value: &str) -> bool {
        named(name).is_some_and(|parameter| (parameter.set)(self, value))
    }

    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        write_length(out, parameters().count())?;
        parameters().try_for_each(|parameter| {
            write_bytes(out, parameter.names[0].as_bytes())?;
            write_bytes(out, (parameter.get)(self).as_bytes())
        })
    }

    pub(super) fn read(from: &mut dyn Source) -> io::Result<Self> {
        let mut settings = Self::default();
        for _ in 0..from.u32()? {
            let (name, value) = (from.bytes()?, from.bytes()?);
            let known = std::str::from_utf8(&name)
                .ok()
                .zip(std::str::from_utf8(&value).ok())
                .is_some_and(|(name, value)| settings.set(name, value));
            if !known {
                return Err(invalid(format!(
                    "a setting {}, which a later version may know",
                    name.escape_ascii()
                )));
            }
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_set() {
        let mut settings = Settings::default();
        for name in Settings::names() {
            let shown = settings.get(name).expect("a name is known");
            assert!(settings.set(name, &shown), "{name} {shown}");
        }
        assert_eq!(settings, Settings::default());
        assert!(settings.set("zset-max-ziplist-entries", "7") && settings.zset_max_listpack_entries == 7);
        assert!(!settings.set("zset-max-ziplist-entries", "x") && !settings.set("nonsense", "1"));
    }
}
