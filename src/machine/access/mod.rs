//! Who may do what, the same on every node: the users, and the cluster's two access keys.
//!
//! Passwords are kept as SHA-256 only. Whoever proves one is asked elsewhere: here is what is true after an entry of the log.

mod category;
mod selector;
mod user;

pub use category::{CATEGORIES, of as categories};
pub use selector::{Denied, Selector};
pub use user::{Hash, RuleError, User, hash, hexadecimal};

use super::entry::Millis;
use super::snapshot::{Source, invalid, write_bytes, write_length};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// The user of who gives no name.
pub const DEFAULT_USER: &[u8] = b"default";

/// Users that can be; one costs a few hundred bytes and its rules.
pub const MAX_USERS: usize = 10_000;

/// Whether states of this level have no user whose rules a snapshot cannot hold.
pub(super) fn holds_rules_to_words(level: u8) -> bool {
    level >= 4
}

/// The users and the access keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// Counts changes; whoever keeps something that follows from this asks whether it is still the same.
    revision: u64,
    users: BTreeMap<Bytes, Arc<User>>,
    keys: [Option<Key>; 2],
}

/// Which of the two access keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The first; at the beginning the one that the nodes were configured with.
    Primary,
    /// The second, for the time in which clients change from one to the other.
    Secondary,
}

impl Which {
    /// Both, in order.
    pub const BOTH: [Self; 2] = [Self::Primary, Self::Secondary];

    /// `primary` or `secondary`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        }
    }

    /// The one of this name, in any case.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::BOTH
            .into_iter()
            .find(|which| name.eq_ignore_ascii_case(which.name().as_bytes()))
    }
}

/// An access key that was set through the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// SHA-256 of it; none where it was taken away.
    pub hash: Option<Hash>,
    /// When it was set, by the log's clock.
    pub since: Millis,
}

impl Default for Access {
    fn default() -> Self {
        let users = BTreeMap::from([(Bytes::from_static(DEFAULT_USER), Arc::new(User::all_powerful()))]);
        Self {
            revision: 0,
            users,
            keys: [None; 2],
        }
    }
}

impl Access {
    /// How many changes there were.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The user of this name.
    pub fn user(&self, name: &[u8]) -> Option<&Arc<User>> {
        self.users.get(name)
    }

    /// All users, by name.
    pub fn users(&self) -> impl Iterator<Item = (&Bytes, &Arc<User>)> {
        self.users.iter()
    }

    /// An access key, if it was ever set through the log.
    pub fn key(&self, which: Which) -> Option<Key> {
        self.keys[which as usize]
    }

    /// Changes a user, or makes a new one: every rule, or none. `open_channels`: `acl-pubsub-default`; `level`: of the state.
    ///
    /// # Errors
    /// What is wrong, as Redis says it.
    pub(super) fn set_user(
        &mut self,
        name: &Bytes,
        rules: &[Bytes],
        open_channels: bool,
        level: u8,
    ) -> Result<(), String> {
        if name.iter().any(|byte| user::is_space(*byte)) {
            return Err("Usernames can't contain spaces or null characters".to_owned());
        }
        let known = self.users.get(name);
        if known.is_none() && self.users.len() >= MAX_USERS {
            return Err(format!("there are {MAX_USERS} users already, and no more can be"));
        }
        let mut user = known.map_or_else(
            || User::new(open_channels, self.revision + 1),
            |user| User::clone(user),
        );
        for rule in user::merged(rules)? {
            let mut applied = user.apply(&rule, open_channels);
            // Redis takes it, and reads other rules from the file to which it has written it.
            if holds_rules_to_words(level) && rule.contains(&b'|') && !user.is_writable() {
                applied = applied.and(Err(RuleError::Syntax));
            }
            applied.map_err(|error| {
                format!(
                    "Error in ACL SETUSER modifier '{}': {error}",
                    String::from_utf8_lossy(&rule)
                )
            })?;
        }
        self.revision += 1;
        self.users.insert(name.clone(), Arc::new(user));
        Ok(())
    }

    /// Removes users; how many there were. `default` stays.
    pub(super) fn remove_users(&mut self, names: &[Bytes]) -> usize {
        let before = self.users.len();
        for name in names.iter().filter(|name| name.as_ref() != DEFAULT_USER) {
            self.users.remove(name);
        }
        let removed = before - self.users.len();
        self.revision += u64::from(removed > 0);
        removed
    }

    /// Makes users whose rules a snapshot cannot hold, which states of former levels may have, what a snapshot makes of them. Nodes that have started from one have
    /// them so, and cannot tell what was meant; for them nothing changes, so the revision stays.
    pub(super) fn hold_rules_to_words(&mut self) {
        for user in self.users.values_mut().filter(|user| !user.is_writable()) {
            Arc::make_mut(user).read_again();
        }
    }

    /// Sets an access key, or takes it away.
    pub(super) fn set_key(&mut self, which: Which, hash: Option<Hash>, since: Millis) {
        self.keys[which as usize] = Some(Key { hash, since });
        self.revision += 1;
    }

    pub(super) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(&self.revision.to_le_bytes())?;
        for key in self.keys {
            let (set, since) = (key.is_some(), key.map_or(0, |key| key.since));
            let hash = key.and_then(|key| key.hash);
            out.write_all(&[u8::from(set), u8::from(hash.is_some())])?;
            out.write_all(&hash.unwrap_or_default())?;
            out.write_all(&since.to_le_bytes())?;
        }
        write_length(out, self.users.len())?;
        self.users.iter().try_for_each(|(name, user)| {
            write_bytes(out, name)?;
            user.write(out)
        })
    }

    pub(super) fn read(from: &mut dyn Source) -> io::Result<Self> {
        let revision = from.counter("revision of users")?;
        let mut keys = [None; 2];
        for key in &mut keys {
            let (set, there) = (from.flag()?, from.flag()?);
            let mut hash = Hash::default();
            for byte in &mut hash {
                *byte = from.u8()?;
            }
            let since = from.u64()?;
            *key = set.then_some(Key {
                hash: there.then_some(hash),
                since,
            });
        }
        let mut users = BTreeMap::new();
        for _ in 0..from.u32()? {
            let name = from.bytes()?;
            users.insert(name, Arc::new(User::read(from)?));
        }
        if !users.contains_key(DEFAULT_USER) {
            return Err(invalid("there is no user `default`".to_owned()));
        }
        Ok(Self {
            revision,
            users,
            keys,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::machine::entry::{Command, Entry, Origin};
    use crate::machine::keyspace::Chance;
    use crate::machine::reply::Reply;
    use crate::machine::snapshot;
    use crate::machine::table;

    fn set(access: &mut Access, name: &str, rules: &str) -> Result<(), String> {
        let rules: Vec<Bytes> = rules
            .split(' ')
            .map(|rule| Bytes::from(rule.to_owned()))
            .collect();
        access.set_user(&Bytes::from(name.to_owned()), &rules, false, Entry::FORMAT)
    }

    fn shown(access: &Access, name: &str) -> String {
        String::from_utf8(access.user(name.as_bytes()).expect(name).text(&[])).expect("text")
    }

    #[test]
    fn what_is_printed_makes_the_same_user() {
        let words: Vec<String> = CATEGORIES
            .iter()
            .map(|category| format!("@{category}"))
            .chain(table::all().map(|spec| spec.name.to_ascii_lowercase()))
            .chain(["@all".to_owned()])
            .collect();
        let mut chance = Chance::new(7);
        for _ in 0..100 {
            let mut rules = vec!["~a".to_owned(), "%R~b*".to_owned(), "&c".to_owned()];
            for _ in 0..chance.below(8) {
                let sign = if chance.below(2) == 0 { '+' } else { '-' };
                rules.push(format!("{sign}{}", words[chance.below(words.len())]));
            }
            rules.push("(~x +get)".to_owned());
            let mut access = Access::default();
            set(&mut access, "one", &rules.join(" ")).expect("rules of the table");
            let text = shown(&access, "one");
            set(&mut access, "two", &text).expect("what is printed is read");
            let (one, two) = (
                access.user(b"one").expect("one"),
                access.user(b"two").expect("two"),
            );
            assert_eq!(shown(&access, "two"), text);
            for spec in table::all() {
                let argv = [Bytes::from_static(b"x")];
                let may = |user: &User| !matches!(user.permits(&spec, &argv), Err(Denied::Command));
                assert_eq!(may(one), may(two), "{} by {text}", spec.name);
            }
        }
    }

    #[test]
    fn a_rule_that_is_refused_changes_nothing() {
        let mut access = Access::default();
        set(&mut access, "ann", "on ~a +get").expect("good");
        let before = access.clone();
        for rules in ["+set +nosuch", "allkeys ~x", "<nothing", "#12", "(~x"] {
            assert!(set(&mut access, "ann", rules).is_err(), "{rules}");
        }
        assert!(set(&mut access, "a b", "on").is_err());
        assert_eq!(access, before);
    }

    #[test]
    fn a_snapshot_keeps_users_and_keys() {
        let mut machine = Machine::default();
        let commands = [
            &[
                "ACL",
                "SETUSER",
                "ann",
                "on",
                ">secret",
                "~a*",
                "%W~b",
                "&c",
                "+@read",
                "+select|1",
                "(~x +@hash -hget)",
            ][..],
            &["ACL", "SETUSER", "bob", "reset", "skip-sanitize-payload"],
            &["ACL", "SETUSER", "default", "-@dangerous"],
        ];
        let mut commands: Vec<Command> = commands
            .iter()
            .map(|argv| Command::new(0, argv.iter().copied()))
            .collect();
        commands.push(crate::machine::internal::key(Which::Primary, Some(&hash(b"key"))));
        let entry = Entry {
            format: Entry::FORMAT,
            at: 5,
            seed: 1,
            origin: Origin::default(),
            commands,
        };
        assert!(matches!(
            machine.apply(&entry),
            crate::machine::Outcome::Applied(replies) if replies.iter().all(|reply| *reply == Reply::OK)
        ));
        let mut bytes = Vec::new();
        snapshot::write(&machine, &mut bytes).expect("written");
        let read = snapshot::read(&mut &bytes[..]).expect("read");
        assert_eq!(read.store().access(), machine.store().access());
        assert_eq!(read.digest(), machine.digest());
        let key = read.store().access().key(Which::Primary).expect("it was set");
        assert_eq!((key.hash, key.since), (Some(hash(b"key")), 5));
        assert_eq!(read.store().access().key(Which::Secondary), None);
    }
    /// A snapshot holds rules as words of UTF-8: more than one word would be other rules there, and other bytes another argument.
    #[test]
    fn rules_that_a_snapshot_cannot_hold_are_refused_from_format_4_on_and_all_nodes_have_the_same_of_before()
    {
        let unwritable: [&[u8]; 3] = [b"+get|x +@all", b"+get|\xff", b"(+get|\xff)"];
        let mut machine = Machine::default();
        let set = |machine: &mut Machine, format, rules: &[&[u8]]| {
            let words = [&b"ACL"[..], b"SETUSER", b"ann"]
                .into_iter()
                .chain(rules.iter().copied());
            let entry = Entry {
                format,
                at: 5,
                seed: 1,
                origin: Origin::default(),
                commands: vec![Command::new(0, words.map(Bytes::copy_from_slice))],
            };
            let crate::machine::Outcome::Applied(mut replies) = machine.apply(&entry) else {
                panic!("a group of no node is applied");
            };
            let access = machine.store().access().clone();
            let mut bytes = Vec::new();
            snapshot::write(machine, &mut bytes).expect("written");
            let read = snapshot::read(&mut &bytes[..]).expect("read");
            (
                replies.remove(0),
                access.clone(),
                *read.store().access() == access,
            )
        };
        for rule in unwritable {
            let (reply, _, same) = set(
                &mut machine,
                3,
                &[b"reset", b"on", b"nopass", b"~*", b"+get|y", rule],
            );
            assert_eq!((reply, same), (Reply::OK, false), "as it was: {rule:?}");
        }
        let (_, before, _) = set(&mut machine, 3, &[unwritable[0]]);
        // As a node has it that started from a snapshot.
        let mut bytes = Vec::new();
        snapshot::write(&machine, &mut bytes).expect("written");
        let mut started = snapshot::read(&mut &bytes[..]).expect("read");
        let (reply, after, same) = set(&mut machine, 4, &[b"+set"]);
        assert_eq!((reply, same), (Reply::OK, true), "it is what a snapshot has");
        set(&mut started, 4, &[b"+set"]);
        assert_eq!(started.digest(), machine.digest());
        assert_eq!(*started.store().access(), after);
        assert_eq!(after.revision(), before.revision() + 1, "of `+set` alone");
        let user = after.user(b"ann").expect("ann");
        let may = |words: &[&'static str]| {
            let argv: Vec<Bytes> = words.iter().copied().map(Bytes::from).collect();
            user.permits(table::lookup(&argv).expect("a row"), &argv).is_ok()
        };
        assert!(may(&["GET", "y"]) && may(&["SET", "k", "v"]));
        assert!(may(&["GET", "x"]) && may(&["FLUSHALL"]), "as it was read");
        for rule in unwritable.into_iter().chain([&b"+get|\t"[..]]) {
            let (reply, access, _) = set(&mut machine, 4, &[b"+del", rule]);
            let Reply::Error(refused) = reply else {
                panic!("{rule:?} was taken");
            };
            let text = refused.to_string();
            assert!(text.starts_with("ERR Error in ACL SETUSER modifier"), "{text}");
            assert!(text.ends_with(": Syntax error"), "{text}");
            assert_eq!(access, after, "{rule:?}");
        }
        let (reply, _, same) = set(&mut machine, 4, &["+get|ä".as_bytes(), b"resetkeys", b"~\xff"]);
        assert_eq!((reply, same), (Reply::OK, true));
    }
}
