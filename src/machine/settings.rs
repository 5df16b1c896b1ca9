//! Settings that all nodes share, because what they decide is state or is seen by everybody: changed by `CONFIG SET` through the log.
//!
//! What concerns one node's endpoint (`timeout`, `maxclients` …) is that endpoint's.

use super::entry::{Entry, Millis};
use super::event::Classes;
use super::glob;
use super::session_events::Telling;
use super::snapshot::{Source, invalid, write_bytes, write_length};
use std::io;
use std::sync::Arc;

/// The least slack that a life is given, in milliseconds: what lives so shortly that its slack would be less is a lock or a limit, not a session, and ends
/// to the millisecond.
pub const EXPIRE_SLACK_MS_MIN: Millis = 1_000;

/// The greatest part of a life, in percent, by which it may end late.
pub const EXPIRE_SLACK_PERCENT_MAX: u64 = 50;

/// By what name a level above the first stands among the settings of a snapshot. No parameter has it.
const LEVEL_NAME: &[u8] = b"level";

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
    /// `maxmemory`: bytes that all keys may take together, as [`super::keyspace::Store::used`] counts them; 0: any number.
    pub maxmemory: u64,
    /// `maxmemory-policy`: which keys go when they take more.
    pub maxmemory_policy: Policy,
    /// `maxmemory-samples`: of how many keys the worst is evicted.
    pub maxmemory_samples: usize,
    /// `maxmemory-eviction-tenacity`: how long the answer to a write waits for evictions, in steps of 2 milliseconds; 100: 5 seconds.
    pub maxmemory_eviction_tenacity: u32,
    /// `lfu-log-factor`: how slowly the count of uses grows.
    pub lfu_log_factor: u64,
    /// `lfu-decay-time`: after how many minutes the count of uses falls by one; 0: never.
    pub lfu_decay_time: u64,
    /// `session-events`: what is kept of what happens to sessions.
    pub session_events: Telling,
    /// `expire-slack-percent`: by how much of the life that was asked for a key may end late; 0: not at all, as at a Redis. One that asks for the same
    /// life again then costs a write only once its slack is used up.
    pub expire_slack_percent: u64,
    /// `expire-slack-keys`: the keys that this is for, as patterns between which spaces stand.
    pub expire_slack_keys: Arc<str>,
    /// `DEBUG SET-ACTIVE-EXPIRE`: whether keys end by themselves, or only when somebody finds that they have ended.
    pub active_expire: bool,
    /// The level: the highest format of the entries applied, see [`super::entry`]. No parameter; entries raise it.
    pub level: u8,
}

/// Which keys go when all take more than `maxmemory`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// None: what would need more is refused.
    #[default]
    Noeviction,
    /// Of all keys, those that were not used for longest.
    AllkeysLru,
    /// Of all keys, those that are used least.
    AllkeysLfu,
    /// Of all keys, any.
    AllkeysRandom,
    /// Of those with a deadline, those that were not used for longest.
    VolatileLru,
    /// Of those with a deadline, those that are used least.
    VolatileLfu,
    /// Of those with a deadline, any.
    VolatileRandom,
    /// Those whose deadline is next.
    VolatileTtl,
}

impl Policy {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Noeviction, "noeviction"),
        (Self::AllkeysLru, "allkeys-lru"),
        (Self::AllkeysLfu, "allkeys-lfu"),
        (Self::AllkeysRandom, "allkeys-random"),
        (Self::VolatileLru, "volatile-lru"),
        (Self::VolatileLfu, "volatile-lfu"),
        (Self::VolatileRandom, "volatile-random"),
        (Self::VolatileTtl, "volatile-ttl"),
    ];

    /// Its name, as Redis has it.
    pub fn name(self) -> &'static str {
        let named = Self::ALL.iter().find(|(policy, _)| *policy == self);
        named.map_or("", |(_, name)| name)
    }

    /// The policy of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        let named = Self::ALL.iter().find(|(_, known)| *known == name);
        named.map(|(policy, _)| *policy)
    }

    /// Whether keys without a deadline go as well.
    pub fn takes_all(self) -> bool {
        matches!(self, Self::AllkeysLru | Self::AllkeysLfu | Self::AllkeysRandom)
    }

    /// Whether it goes by how often keys are used.
    pub fn counts_uses(self) -> bool {
        matches!(self, Self::AllkeysLfu | Self::VolatileLfu)
    }

    /// Whether it goes by the use of keys at all.
    pub fn needs_uses(self) -> bool {
        self.counts_uses() || matches!(self, Self::AllkeysLru | Self::VolatileLru)
    }
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
            maxmemory: 0,
            maxmemory_policy: Policy::default(),
            maxmemory_samples: 5,
            maxmemory_eviction_tenacity: 10,
            lfu_log_factor: 10,
            lfu_decay_time: 1,
            session_events: Telling::default(),
            expire_slack_percent: 0,
            expire_slack_keys: "*".into(),
            level: Entry::FIRST_FORMAT,
            active_expire: true,
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
    Parameter {
        names: &["maxmemory-policy"],
        get: |settings| settings.maxmemory_policy.name().to_owned(),
        set: |settings, text| {
            Policy::from_name(text)
                .map(|policy| settings.maxmemory_policy = policy)
                .is_some()
        },
    },
    Parameter {
        names: &["session-events"],
        get: |settings| settings.session_events.name().to_owned(),
        set: |settings, text| {
            Telling::from_name(text)
                .map(|telling| settings.session_events = telling)
                .is_some()
        },
    },
    Parameter {
        names: &["expire-slack-percent"],
        get: |settings| settings.expire_slack_percent.to_string(),
        set: |settings, text| {
            let percent = text
                .parse()
                .ok()
                .filter(|percent| *percent <= EXPIRE_SLACK_PERCENT_MAX);
            percent
                .map(|percent| settings.expire_slack_percent = percent)
                .is_some()
        },
    },
    Parameter {
        names: &["expire-slack-keys"],
        get: |settings| settings.expire_slack_keys.to_string(),
        set: |settings, text| {
            settings.expire_slack_keys = text.into();
            true
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
    maxmemory: "maxmemory";
    maxmemory_samples: "maxmemory-samples";
    maxmemory_eviction_tenacity: "maxmemory-eviction-tenacity";
    lfu_log_factor: "lfu-log-factor";
    lfu_decay_time: "lfu-decay-time";
};

/// What `CONFIG` does not know.
const HIDDEN: &[Parameter] = &[Parameter {
    names: &["active-expire"],
    get: |settings| settings.active_expire.to_string(),
    set: |settings, text| text.parse().map(|active| settings.active_expire = active).is_ok(),
}];

fn parameters() -> impl Iterator<Item = &'static Parameter> {
    PARAMETERS.iter().chain(NUMBERS).chain(HIDDEN)
}

fn named(name: &str) -> Option<&'static Parameter> {
    parameters().find(|parameter| parameter.names.contains(&name))
}

impl Settings {
    /// Whether a parameter of this (lower-case) name is one of these.
    pub fn knows(name: &str) -> bool {
        named(name).is_some()
    }

    /// Every name that `CONFIG` knows, other names of the same parameter included.
    pub fn names() -> impl Iterator<Item = &'static str> {
        PARAMETERS
            .iter()
            .chain(NUMBERS)
            .flat_map(|parameter| parameter.names.iter().copied())
    }

    /// A parameter's value as `CONFIG GET` shows it.
    pub fn get(&self, name: &str) -> Option<String> {
        named(name).map(|parameter| (parameter.get)(self))
    }

    /// How late a key may end that is given this life, both in milliseconds; 0: not at all.
    pub fn expire_slack_ms(&self, key: &[u8], life: Millis) -> Millis {
        let slack = life.saturating_mul(self.expire_slack_percent) / 100;
        let is_meant = || {
            let mut patterns = self.expire_slack_keys.split(' ');
            patterns.any(|pattern| !pattern.is_empty() && glob::matches(pattern.as_bytes(), key))
        };
        if slack >= EXPIRE_SLACK_MS_MIN && is_meant() {
            slack
        } else {
            0
        }
    }

    /// Sets a parameter. Whether there is such a parameter and such a value; if not, nothing has changed.
    pub fn set(&mut self, name: &str, value: &str) -> bool {
        named(name).is_some_and(|parameter| (parameter.set)(self, value))
    }

    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let level = (self.level > Entry::FIRST_FORMAT).then(|| self.level.to_string());
        write_length(out, parameters().count() + usize::from(level.is_some()))?;
        // In front, so that a program which does not understand it says so before all else.
        if let Some(level) = level {
            write_bytes(out, LEVEL_NAME)?;
            write_bytes(out, level.as_bytes())?;
        }
        parameters().try_for_each(|parameter| {
            write_bytes(out, parameter.names[0].as_bytes())?;
            write_bytes(out, (parameter.get)(self).as_bytes())
        })
    }

    pub(super) fn read(from: &mut dyn Source) -> io::Result<Self> {
        let mut settings = Self::default();
        for _ in 0..from.u32()? {
            let (name, value) = (from.bytes()?, from.bytes()?);
            if name == LEVEL_NAME {
                settings.level = read_level(&value)?;
                continue;
            }
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

/// The level of a state that was read.
fn read_level(text: &[u8]) -> io::Result<u8> {
    let level: Option<u8> = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    match level {
        Some(level @ Entry::FIRST_FORMAT..=Entry::FORMAT) => Ok(level),
        _ => Err(invalid(format!(
            "a state of level {}: this program understands level {}; run a newer one",
            text.escape_ascii(),
            Entry::FORMAT
        ))),
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
        assert!(!settings.set("expire-slack-percent", "51") && !settings.set("expire-slack-percent", "-1"));
    }

    #[test]
    fn slack_is_for_the_keys_that_are_named_and_for_lives_that_are_long_enough() {
        let mut settings = Settings::default();
        assert_eq!(settings.expire_slack_ms(b"sess:1", 1_200_000), 0);
        assert!(
            settings.set("expire-slack-percent", "5") && settings.set("expire-slack-keys", "sess:*  {app_*")
        );
        assert_eq!(settings.expire_slack_ms(b"sess:1", 1_200_000), 60_000);
        assert_eq!(settings.expire_slack_ms(b"{app_1}_Session", 1_200_000), 60_000);
        for other in [&b"lock:1"[..], b""] {
            assert_eq!(settings.expire_slack_ms(other, 1_200_000), 0);
        }
        assert_eq!(settings.expire_slack_ms(b"sess:1", 20_000), 1_000);
        assert_eq!(settings.expire_slack_ms(b"sess:1", 19_999), 0);
    }
}
