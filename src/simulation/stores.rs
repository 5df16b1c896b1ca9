//! What session stores do over Redis: counters, lists in pipelines, registers, transactions under `WATCH`, locks with compare-and-delete, scripts (`scripts.rs`). Each store asks one
//! endpoint, until its connection breaks or it goes to another; what was refused as not applied it sends again, as clients do.
//!
//! What must be so at once is said here: replies in their order, and a connection that sees its own writes. The rest is for `told.rs`. Reads are local unless the
//! plan has them linearizable: whoever comes to another endpoint may see less.

use super::checker::{Operation, Outcome};
use super::clients::{self, Fate};
use super::redis::{Answer, Client, words};
use super::scripts::RELEASE;
use super::world::World;
use crate::config::Reads;
use crate::machine::reply::Reply;
use crate::raft::files::simulated::Chance;
use crate::raft::net::simulated::Place;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Of so many things a store does it hangs up before one.
const STAYS: u64 = 16;

/// How often what was refused, or came to nothing, is tried.
pub(super) const TRIES: usize = 3;

/// Milliseconds until it is tried again, below.
pub(super) const AGAIN_MS: u64 = 300;

/// Values of one pipeline, at most.
const PIPELINE: u64 = 4;

/// How long the same counters and chains are used.
const LASTS: Duration = Duration::from_secs(60);

/// Locks, how long one lasts, and how long it is held, below: at times for longer than it lasts.
const LOCKS: u64 = 2;
const LOCK_LASTS_MS: &str = "3000";
const HELD_MS: u64 = 4_500;

/// A session store of one process.
pub(super) struct Store {
    pub(super) world: Arc<World>,
    which: usize,
    client: Client,
    pub(super) chance: Chance,
    /// Values it has made up.
    fresh: u64,
    /// How far counters were when it last looked, over this connection.
    seen: BTreeMap<String, i64>,
}

pub(super) async fn run(world: Arc<World>, which: usize, place: Place, chance: Chance) {
    let mut store = Store {
        world,
        which,
        client: Client::new(place),
        chance,
        fresh: 0,
        seen: BTreeMap::new(),
    };
    while !store.world.oracle.is_over() {
        store.rest(store.world.pause_ms).await;
        if store.chance.below(STAYS) == 0 {
            store.client.leave();
        }
        match store.chance.below(12) {
            0 | 1 => store.register().await,
            2 | 3 => store.pipeline().await,
            4 => store.count().await,
            5 | 6 => store.transact().await,
            7 => store.hold().await,
            8 | 9 => store.add().await,
            10 => store.add_if().await,
            _ => store.session().await,
        }
    }
}

impl Store {
    pub(super) async fn rest(&mut self, below_ms: u64) {
        sleep(Duration::from_millis(self.chance.below(below_ms))).await;
    }

    /// A value that nobody else writes.
    pub(super) fn value(&mut self) -> String {
        self.fresh += 1;
        format!("{}.{}", self.which, self.fresh)
    }

    /// A name for now.
    pub(super) fn name(&self, of: &str) -> String {
        format!("{of}{}", self.world.began.elapsed().as_secs() / LASTS.as_secs())
    }

    pub(super) fn wrong(&self, what: String) {
        self.world.oracle.wrong(format!("store {}: {what}", self.which));
    }

    /// Sends commands together, over a new connection if there is none.
    pub(super) async fn ask(&mut self, commands: &[Vec<String>]) -> Vec<Answer> {
        if !self.client.is_connected() {
            self.seen.clear();
            let nodes = self.world.nodes as u64;
            let host = usize::try_from(self.chance.below(nodes)).map_or(1, |host| host + 1);
            self.client.connect(host).await;
        }
        let answers = self.client.ask(commands).await;
        for (command, fault) in commands.iter().zip(answers.iter().map(Answer::fault)) {
            if let Some(fault) = fault {
                self.wrong(format!("{command:?} was answered {fault}"));
            }
        }
        answers
    }

    async fn ask_one(&mut self, command: Vec<String>) -> Answer {
        let mut answers = self.ask(&[command]).await;
        answers.pop().expect("an answer for each command")
    }

    /// Sends one command, and again while it is refused.
    pub(super) async fn insist(&mut self, command: &[&str]) -> Answer {
        let mut answer = Answer::Unsent;
        for _ in 0..TRIES {
            answer = self.ask_one(words(command)).await;
            if answer.fate() != Fate::Refused {
                break;
            }
            self.rest(AGAIN_MS).await;
        }
        answer
    }

    /// An operation on a register that all clients share.
    async fn register(&mut self) {
        let (key, operation) = clients::operation(&self.world, self.which, &mut self.chance);
        if operation == Operation::Get && self.world.reads == Reads::Local {
            return;
        }
        let called = self.world.began.elapsed();
        let answer = self.ask_one(operation.argv(&key)).await;
        let outcome = match (answer.fate(), answer) {
            (Fate::Refused, _) => return,
            (Fate::Acknowledged(_), Answer::Reply(reply)) => operation.outcome(&reply),
            _ => Outcome::Unknown,
        };
        let returned = self.world.began.elapsed();
        let oracle = &self.world.oracle;
        oracle.operated(key, called, returned, operation, outcome);
    }

    /// Appends values in one pipeline, with words between them that come back, and looks for the last at its end.
    async fn pipeline(&mut self) {
        let list = clients::list(&self.world);
        let values: Vec<String> = (0..=self.chance.below(PIPELINE)).map(|_| self.value()).collect();
        let last = &values[values.len() - 1];
        let mut commands = Vec::new();
        for value in &values {
            commands.extend([words(&["RPUSH", &list, value]), words(&["ECHO", value])]);
        }
        commands.push(words(&["LPOS", &list, last]));
        let answers = self.ask(&commands).await;
        let (mut longest, mut before, mut refused) = (0, None, Vec::new());
        for (value, answers) in values.iter().zip(answers.chunks(2)) {
            if let Answer::Reply(reply) = &answers[1]
                && *reply != Reply::bulk(value.clone())
            {
                self.wrong(format!("{commands:?} were answered {answers:?}"));
            }
            if let Some(length) = answers[0].integer()
                && length <= std::mem::replace(&mut longest, length)
            {
                self.wrong(format!("{value} was appended before one before it: {answers:?}"));
            }
            let fate = answers[0].fate();
            if fate == Fate::Refused {
                refused.push(value.clone());
                continue;
            }
            self.world.oracle.appended(&list, value, fate);
            if let Some(before) = before.replace(value.clone()) {
                self.world.oracle.in_order(&list, [before, value.clone()]);
            }
        }
        let acknowledged = matches!(answers[answers.len() - 3].fate(), Fate::Acknowledged(_));
        if let Answer::Reply(reply @ (Reply::Nil | Reply::Simple(_) | Reply::Bulk(_))) =
            &answers[answers.len() - 1]
            && acknowledged
        {
            self.wrong(format!("its connection does not see {last} in {list}: {reply:?}"));
        }
        for value in refused {
            let fate = self.insist(&["RPUSH", &list, &value]).await.fate();
            self.world.oracle.appended(&list, &value, fate);
        }
    }

    /// Counts on, and looks at the count over the same connection.
    async fn count(&mut self) {
        let counter = self.name("counter");
        let mut commands = vec![words(&["INCR", &counter]), words(&["GET", &counter])];
        if self.chance.below(3) == 0 {
            commands.remove(0);
        }
        let answers = self.ask(&commands).await;
        let counted = (answers.len() == 2).then(|| &answers[0]);
        match counted.map(|answer| (answer.fate(), answer.integer())) {
            Some((Fate::Acknowledged(_), Some(sum))) => {
                self.world.oracle.stores.counted(&counter, Some(sum));
                let before = self.seen.insert(counter.clone(), sum);
                if before >= Some(sum) {
                    self.wrong(format!("{counter} was {before:?} and became {sum}"));
                }
            }
            Some((Fate::Refused, _)) | None => {}
            Some(_) => self.world.oracle.stores.counted(&counter, None),
        }
        let Some(count) = answers[answers.len() - 1].number() else {
            return;
        };
        let before = self.seen.insert(counter.clone(), count);
        if before > Some(count) {
            self.wrong(format!(
                "{counter} was {before:?} over this connection, and is {count}"
            ));
        }
    }

    /// Adds to a chain: a counter and a list that are changed together or not at all.
    async fn transact(&mut self) {
        let (chain, value) = (self.name("chain"), self.value());
        for _ in 0..TRIES {
            let (fate, is_conflict) = self.link(&chain, &value).await;
            self.world.oracle.stores.chained(&chain, &value, fate);
            if !is_conflict {
                return;
            }
            self.rest(AGAIN_MS).await;
        }
    }

    /// What became of a link, and whether somebody else's came first.
    async fn link(&mut self, chain: &str, value: &str) -> (Fate, bool) {
        let list = format!("{chain}.all");
        let watched = self
            .ask(&[words(&["WATCH", chain]), words(&["GET", chain])])
            .await;
        let [Answer::Reply(_), count] = &watched[..] else {
            return (Fate::Refused, false);
        };
        let Some(count) = count.number() else {
            self.client.leave();
            return (Fate::Refused, false);
        };
        let commands = [
            words(&["MULTI"]),
            words(&["SET", chain, &(count + 1).to_string()]),
            words(&["RPUSH", &list, &format!("{value}@{count}")]),
            words(&["EXEC"]),
        ];
        let answers = self.ask(&commands).await;
        match &answers[3] {
            Answer::Reply(Reply::NilArray) => (Fate::Refused, true),
            Answer::Reply(Reply::Array(replies)) => {
                if *replies != [Reply::OK, Reply::Integer(count + 1)] {
                    self.wrong(format!("{commands:?} were answered {answers:?}"));
                }
                (answers[3].fate(), false)
            }
            answer => (answer.fate(), false),
        }
    }

    /// Takes a lock, holds it for a while, and lets it go if it still has it.
    async fn hold(&mut self) {
        let (lock, token) = (format!("lock{}", self.chance.below(LOCKS)), self.value());
        let take = ["SET", &lock, &token, "NX", "PX", LOCK_LASTS_MS];
        let taken = match self.insist(&take).await {
            Answer::Reply(reply) if reply == Reply::OK => true,
            // Whoever does not know looks.
            Answer::Lost => self.insist(&["GET", &lock]).await == Answer::Reply(Reply::bulk(token.clone())),
            _ => false,
        };
        if !taken {
            return;
        }
        let from = self.world.began.elapsed();
        self.rest(HELD_MS).await;
        let until = match self.chance.below(2) {
            0 => self.let_go(&lock, &token).await,
            _ => self.release(&lock, &token).await,
        };
        if let Some(until) = until {
            self.world.oracle.stores.held(&lock, from, until);
        }
    }

    /// As [`Self::let_go`], by a script.
    async fn release(&mut self, lock: &str, token: &str) -> Option<Duration> {
        let until = self.world.began.elapsed();
        let released = self.insist_on(RELEASE, &[lock], &[token]).await;
        (released.integer() == Some(1)).then_some(until)
    }

    /// Until when it had the lock at least; none where it may have lost it.
    async fn let_go(&mut self, lock: &str, token: &str) -> Option<Duration> {
        let looked = self.ask(&[words(&["WATCH", lock]), words(&["GET", lock])]).await;
        if looked[1] != Answer::Reply(Reply::bulk(token.to_owned())) {
            self.client.leave();
            return None;
        }
        let until = self.world.began.elapsed();
        let commands = [words(&["MULTI"]), words(&["DEL", lock]), words(&["EXEC"])];
        let answers = self.ask(&commands).await;
        (answers[2] == Answer::Reply(Reply::Array(vec![Reply::Integer(1)]))).then_some(until)
    }
}
