//! Keeping keys alive without a write for each use: who asks for the life that a key has already is answered from what is stored here, if that covers
//! it (`expire-slack-percent`). Once half of the slack is used up the use is written down, together with those of other keys.
//!
//! What is gathered here may be lost with the node: the answers hold without it, and the next use of a key makes good for it.

use super::Node;
use crate::machine::entry::Command;
use crate::machine::internal;
use crate::machine::keyspace::{Due, View};
use crate::machine::value::session::Renewal;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::Notify;

/// The part of a key's slack for which uses are gathered: an eighth, for a quarter is left from the time when one is to be written down until it would be
/// by itself.
const GATHER_PART: u64 = 8;

/// The longest time for which uses are gathered: so seldom is one entry written for all of them.
const GATHER_MAX: Duration = Duration::from_secs(5);

/// Uses that one command writes down.
const RENEWED_MAX: usize = 500;

/// The longest name of a key whose uses are gathered, in bytes. With a longer one a use is written by itself when the slack is used up.
const KEY_BYTES_MAX: usize = 256;

/// The most keys that wait to be renewed. A use beyond that is not noted; the next one of that key will be.
const GATHERED_MAX: usize = 100_000;

/// Uses of keys to be written down, gathered on this node.
#[derive(Debug, Default)]
pub(super) struct Renewals {
    /// By database and key. Held to add one or to take all; never across an await.
    gathered: Mutex<BTreeMap<(u8, Bytes), Due>>,
    /// The first was added.
    begun: Notify,
}

impl Renewals {
    /// A use is to be written down in time. Of several of one key the last counts.
    pub(super) fn soon(&self, due: Due) {
        let mut gathered = self.gathered.lock();
        let key = (due.db, due.key.clone());
        if due.key.len() > KEY_BYTES_MAX || gathered.len() >= GATHERED_MAX && !gathered.contains_key(&key) {
            return;
        }
        gathered.insert(key, due);
        if gathered.len() == 1 {
            self.begun.notify_one();
        }
    }

    /// How long to gather, from when the first was added.
    fn gathers_for(&self) -> Duration {
        let gathered = self.gathered.lock();
        let slack = gathered.values().map(|due| due.slack).min().unwrap_or(0);
        Duration::from_millis(slack / GATHER_PART).min(GATHER_MAX)
    }

    /// What was gathered.
    fn take(&self) -> impl Iterator<Item = Due> {
        std::mem::take(&mut *self.gathered.lock()).into_values()
    }
}

/// Whether a use is still to be written down: another node may have written one of that key meanwhile.
fn is_due(view: &View<'_>, due: &Due) -> bool {
    view.find(&due.key)
        .is_some_and(|slot| slot.end.renewal(due.life, due.slack, due.used_at) != Renewal::No)
}

/// Uses as commands.
fn commands(uses: &[Due]) -> impl Iterator<Item = Command> {
    uses.chunks(RENEWED_MAX).map(internal::renew)
}

/// Writes down what is gathered.
pub(super) async fn write_down(node: Node) {
    let renewals = &node.inner.renewals;
    let mut stopped = node.inner.stop_service.subscribe();
    let gathered = async || {
        renewals.begun.notified().await;
        tokio::time::sleep(renewals.gathers_for()).await;
    };
    loop {
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => return,
            () = gathered() => {}
        }
        let is_due = |due: &Due| node.view(due.db, |view| is_due(&view, due));
        let uses: Vec<Due> = renewals.take().filter(is_due).collect();
        for command in commands(&uses) {
            if let Err(error) = node.write(vec![command]).await {
                tracing::debug!(%error, "uses of keys were not written down");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::args::Args;
    use crate::machine::entry::{Entry, Millis, Origin};
    use crate::machine::reply::Reply;
    use crate::machine::{Machine, table};
    use proptest::prelude::*;

    const LIFE_MS: u64 = 20 * 60 * 1_000;
    const SLACK_MS: u64 = LIFE_MS / 20;

    /// A node of simulated time: what it applied, how many entries that took, and what it gathers.
    #[derive(Default)]
    struct Simulated {
        machine: Machine,
        entries: usize,
        renewals: Renewals,
        /// When what is gathered is written down.
        flush_at: Option<Millis>,
    }

    impl Simulated {
        fn new() -> Self {
            let mut node = Self::default();
            let slack = [("expire-slack-percent".to_owned(), "5".to_owned())];
            node.apply(1, vec![internal::set(&slack)]);
            node
        }

        fn apply(&mut self, at: Millis, commands: Vec<Command>) {
            self.machine.apply(&Entry {
                format: Entry::FORMAT,
                at,
                seed: 1,
                origin: Origin::default(),
                commands,
            });
            self.entries += 1;
        }

        /// Runs a command that came at `now`, when this node's clock says `here`.
        fn run(&mut self, command: Command, now: Millis, here: Millis) {
            let spec = table::lookup(&command.argv).expect("a command");
            let renewed = spec.renews.and_then(|renews| {
                let view = self.machine.view(here, command.db);
                renews(&view, &mut Args::new(&command.argv, 1))
            });
            let Some(renewed) = renewed else {
                return self.apply(now, vec![command]);
            };
            assert_ne!(renewed.reply, Reply::Nil);
            if let Some(due) = renewed.due {
                self.renewals.soon(due);
                let gathers_for = u64::try_from(self.renewals.gathers_for().as_millis()).expect("short");
                self.flush_at.get_or_insert(now + gathers_for);
            }
        }

        /// Writes down what is gathered, if it is time.
        fn flush(&mut self, now: Millis) {
            if let Some(at) = self.flush_at.take_if(|at| *at <= now) {
                let is_due = |due: &Due| is_due(&self.machine.view(at, due.db), due);
                let uses: Vec<Due> = self.renewals.take().filter(is_due).collect();
                commands(&uses).for_each(|command| self.apply(at, vec![command]));
            }
        }

        fn deadline(&self, key: &str) -> Option<Millis> {
            let view = self.machine.view(0, 0);
            view.find(key.as_bytes()).and_then(|slot| slot.deadline())
        }
    }

    fn command(text: &str) -> Command {
        Command::new(0, text.split(' ').map(str::to_owned))
    }

    /// How many entries so many views of 500 sessions take, each of which is viewed every 2 s, the views of all spread over that time.
    fn entries_for(views: u64, view: impl Fn(u64) -> String) -> usize {
        const SESSIONS: u64 = 500;
        let mut node = Simulated::new();
        for session in 0..SESSIONS {
            node.run(command(&format!("SET sess:{session} v EX 1200")), 1, 1);
        }
        node.entries = 0;
        let at = |view: u64| 1 + view * 2_000 / SESSIONS;
        for number in 0..views {
            node.run(command(&view(number % SESSIONS)), at(number), at(number));
            node.flush(at(number));
        }
        for session in 0..SESSIONS {
            let used_at = at(views - SESSIONS + session);
            let deadline = node
                .deadline(&format!("sess:{session}"))
                .expect("it lives, and ends");
            assert!(
                (used_at + LIFE_MS..=used_at + LIFE_MS + SLACK_MS).contains(&deadline),
                "{deadline} for {used_at}"
            );
        }
        node.entries
    }

    #[test]
    fn ten_thousand_views_take_less_than_a_hundred_entries() {
        let expire = entries_for(10_000, |session| format!("EXPIRE sess:{session} 1200"));
        let getex = entries_for(10_000, |session| format!("GETEX sess:{session} EX 1200"));
        assert!((1..=100).contains(&expire), "{expire} entries");
        assert_eq!(getex, expire, "half of the slack, 30 s, was used up");
        // Also where it goes on: all of these renew every session a dozen times.
        let longer = entries_for(100_000, |session| format!("EXPIRE sess:{session} 1200"));
        assert!(longer <= 100, "{longer} entries");
    }

    #[test]
    fn what_another_node_has_written_down_is_not_written_again() {
        let mut node = Simulated::new();
        node.run(command("SET k v EX 1200"), 1, 1);
        node.run(command("EXPIRE k 1200"), 40_000, 40_000);
        let uses: Vec<Due> = node.renewals.take().collect();
        assert_eq!(uses.len(), 1);
        assert!(is_due(&node.machine.view(41_000, 0), &uses[0]));
        node.apply(41_000, commands(&uses).collect());
        assert!(!is_due(&node.machine.view(42_000, 0), &uses[0]));
        // Nor is what has another life by then, or none.
        let deadline = node.deadline("k");
        for text in ["PERSIST k", "EXPIRE k 600", "DEL k"] {
            node.apply(43_000, vec![command(text)]);
            let before = node.deadline("k");
            node.apply(44_000, commands(&uses).collect());
            assert_eq!(node.deadline("k"), before, "{text}");
            assert_ne!(before, deadline);
        }
    }

    #[test]
    fn what_is_gathered_is_bounded_and_the_last_use_counts() {
        let renewals = Renewals::default();
        let due = |key: String, used_at| Due {
            db: 0,
            key: key.into(),
            life: LIFE_MS,
            slack: SLACK_MS,
            used_at,
        };
        renewals.soon(due("x".repeat(KEY_BYTES_MAX + 1), 1));
        assert_eq!(renewals.take().count(), 0);
        for number in 0..GATHERED_MAX + 10 {
            renewals.soon(due(format!("k{number}"), 1));
        }
        renewals.soon(due("k0".to_owned(), 7));
        let uses: Vec<Due> = renewals.take().collect();
        let commands: Vec<Command> = commands(&uses).collect();
        assert_eq!(commands.len(), GATHERED_MAX / RENEWED_MAX);
        assert_eq!(
            commands[0].argv[..5],
            [".renew", "0", "k0", "1200000", "7"].map(Bytes::from)
        );
        assert_eq!(renewals.take().count(), 0);
    }

    /// What happens to one of two keys.
    #[derive(Clone, Debug)]
    enum Step {
        Set(u8, u64),
        Use(u8, u64),
        UseAndGet(u8, u64),
        Persist(u8),
        Remove(u8),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let (key, life) = (
            || 0u8..2,
            || prop_oneof![1 => Just(5u64), 2 => Just(20), 4 => Just(60)],
        );
        prop_oneof![
            2 => (key(), life()).prop_map(|(key, life)| Step::Set(key, life)),
            6 => (key(), life()).prop_map(|(key, life)| Step::Use(key, life)),
            4 => (key(), life()).prop_map(|(key, life)| Step::UseAndGet(key, life)),
            1 => key().prop_map(Step::Persist),
            1 => key().prop_map(Step::Remove),
            9 => (0u64..4_000).prop_map(Step::Wait),
            5 => (0u64..70_000).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        /// Neither bound is left while the clock of the node that answers is at most 250 ms (a quarter of the least slack) behind that of the log, also
        /// where all that is gathered is lost.
        #[test]
        fn no_key_ends_early_and_none_later_than_its_slack(
            steps in prop::collection::vec(step(), 1..120),
            behind in 0u64..=250,
            loses: bool,
        ) {
            let mut node = Simulated::new();
            let mut now = 10_000;
            // When each key may end at the earliest, and when it must have at the latest.
            let mut bounds: BTreeMap<u8, Option<(Millis, Millis)>> = BTreeMap::new();
            for step in steps {
                let asked = |life: u64| {
                    let slack = if life < 20 { 0 } else { life * 50 };
                    Some((now + life * 1_000, now + life * 1_000 + slack))
                };
                let text = match step {
                    Step::Set(key, life) => {
                        bounds.insert(key, asked(life));
                        format!("SET {key} v EX {life}")
                    }
                    Step::Use(key, life) | Step::UseAndGet(key, life) => {
                        bounds.entry(key).and_modify(|bounds| *bounds = asked(life));
                        match step {
                            Step::Use(..) => format!("EXPIRE {key} {life}"),
                            _ => format!("GETEX {key} EX {life}"),
                        }
                    }
                    Step::Persist(key) => {
                        bounds.entry(key).and_modify(|bounds| *bounds = None);
                        format!("PERSIST {key}")
                    }
                    Step::Remove(key) => {
                        bounds.remove(&key);
                        format!("DEL {key}")
                    }
                    Step::Wait(_) => String::new(),
                };
                if let Step::Wait(millis) = step {
                    now += millis;
                    if !loses {
                        node.flush(now);
                    }
                    // A tick, as the leader proposes it.
                    node.apply(now, Vec::new());
                } else {
                    node.run(command(&text), now, now - behind);
                }
                for key in 0..2 {
                    let is_there = node.machine.view(now, 0).find(key.to_string().as_bytes()).is_some();
                    match bounds.get(&key) {
                        None => prop_assert!(!is_there),
                        Some(Some((earliest, _))) if now <= *earliest => prop_assert!(is_there, "{key} ended early"),
                        Some(Some((_, latest))) if now > *latest => prop_assert!(!is_there, "{key} did not end"),
                        Some(None) => prop_assert!(is_there, "{key} is to live"),
                        Some(Some(_)) => {}
                    }
                    // What has ended is nobody's to renew.
                    if !is_there {
                        bounds.remove(&key);
                    }
                }
            }
        }
    }
}
