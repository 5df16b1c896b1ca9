//! What session stores do over Redis: counters, lists in pipelines, registers, transactions under `WATCH`, locks with compare-and-delete, scripts (`scripts.rs`). Each store asks one
//! endpoint, until its connection breaks or it goes to another; what was refused as not applied it sends again, as clients do.
//!
//! What must be so at once is said here: replies in their order, and a connection that sees its own writes. The rest is for `told.rs`. Reads are local unless the
//! plan has them linearizable: whoever comes to another endpoint may see less.

use super::checker::{Operation, Outcome};
use super::clients::{self, Fate};
use super::redis::{Answer, Client, PATIENCE, words};
use super::scripts::RELEASE;
use super::told::Held;
use super::world::World;
use crate::config::Reads;
use crate::machine::reply::{CommandError, Reply};
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

/// How long a lock lasts, and how long it is held, below: at times for longer than it lasts.
const LOCK_LASTS_MS: &str = "3000";
const HELD_MS: u64 = 4_500;

/// A session store of one process.
pub(super) struct Store {
    pub(super) world: Arc<World>,
    which: usize,
    client: Client,
    /// Another connection of it, that it goes over to at times.
    elsewhere: Client,
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
        client: Client::new(place.clone()),
        elsewhere: Client::new(place),
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

    /// Appends values in one pipeline, at times with words between them that come back (without, they go to the node together), and looks for the last at its end. At
    /// times all of it is sent again where some was refused as not applied, as redis-py does.
    async fn pipeline(&mut self) {
        let list = clients::list(&self.world);
        let words_too = self.chance.below(2) == 0;
        let (mut commands, mut last) = (Vec::new(), String::new());
        for _ in 0..=self.chance.below(PIPELINE) {
            last = self.value();
            commands.push(words(&["RPUSH", &list, &last]));
            commands.extend(words_too.then(|| words(&["ECHO", &last])));
        }
        commands.push(words(&["LPOS", &list, &last]));
        let as_a_whole = self.chance.below(2) == 0;
        if as_a_whole {
            // Long enough that what comes behind an unknown write is refused.
            self.client.patience = 3 * PATIENCE;
        }
        let mut answers = self.ask(&commands).await;
        for _ in 1..TRIES {
            if !as_a_whole || !answers.iter().any(Answer::is_sent_again) {
                break;
            }
            self.rest(AGAIN_MS).await;
            answers = self.ask(&commands).await;
        }
        self.client.patience = PATIENCE;
        if !is_in_order(&commands, &answers) {
            self.wrong(format!("{commands:?} were answered {answers:?}"));
        }
        let (mut before, mut refused) = (None, Vec::new());
        for (command, answer) in commands.iter().zip(&answers) {
            let (value, fate) = (&command[command.len() - 1], answer.fate());
            if command[0] != "RPUSH" {
                continue;
            }
            if fate == Fate::Refused {
                refused.push(value);
                continue;
            }
            self.world.oracle.appended(&list, value, fate);
            if let Some(before) = before.replace(value.clone()) {
                self.world.oracle.in_order(&list, [before, value.clone()]);
            }
        }
        for value in refused {
            let fate = self.insist(&["RPUSH", &list, value]).await.fate();
            self.world.oracle.appended(&list, value, fate);
        }
    }

    /// Counts on, and looks at the count over the same connection, then over another: as of now, where reads are linearizable.
    async fn count(&mut self) {
        let counter = self.name("counter");
        let look = words(&["GET", &counter]);
        if self.chance.below(3) > 0 {
            let answers = self.ask(&[words(&["INCR", &counter]), look.clone()]).await;
            self.note_sum(&counter, &answers[0]);
            self.note_count(&counter, &answers[1]);
        }
        let before = self.seen.get(&counter).copied();
        if self.world.reads == Reads::Linearizable {
            std::mem::swap(&mut self.client, &mut self.elsewhere);
            self.seen.clear();
        }
        let answer = self.ask_one(look).await;
        self.note_count(&counter, &answer);
        if self.world.reads == Reads::Linearizable
            && let Some(count) = answer.number()
            && before > Some(count)
        {
            self.wrong(format!("{counter} was {before:?}, and is {count} elsewhere"));
        }
    }

    fn note_sum(&mut self, counter: &str, answer: &Answer) {
        let sum = answer.integer();
        match answer.fate() {
            Fate::Refused => return,
            Fate::Acknowledged(_) => {
                let before = self.seen.insert(counter.to_owned(), sum.unwrap_or(0));
                if before >= sum {
                    self.wrong(format!("{counter} was {before:?} and became {answer:?}"));
                }
            }
            Fate::Unknown => {}
        }
        self.world.oracle.stores.counted(counter, sum);
    }

    fn note_count(&mut self, counter: &str, answer: &Answer) {
        let Some(count) = answer.number() else { return };
        let before = self.seen.insert(counter.to_owned(), count);
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

    /// What became of a link, and whether somebody else's came first. Whether it could watch, it does not look: StackExchange.Redis does not either.
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
        let (lock, token) = ("lock", self.value());
        let asked = self.world.began.elapsed();
        let take = ["SET", lock, &token, "NX", "PX", LOCK_LASTS_MS];
        let taken = match self.insist(&take).await {
            Answer::Reply(reply) if reply == Reply::OK => true,
            // Whoever does not know looks.
            Answer::Lost => self.insist(&["GET", lock]).await == Answer::Reply(Reply::bulk(token.clone())),
            _ => false,
        };
        if !taken {
            return;
        }
        let from = self.world.began.elapsed();
        self.rest(HELD_MS).await;
        let until = match self.chance.below(2) {
            0 => self.let_go(lock, &token).await,
            _ => self.release(lock, &token).await,
        };
        let held = Held { asked, from, until };
        self.world.oracle.stores.held(lock, held);
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
        if looked[1] != Answer::Reply(Reply::bulk(token)) {
            self.client.leave();
            return None;
        }
        let until = self.world.began.elapsed();
        let commands = [words(&["MULTI"]), words(&["DEL", lock]), words(&["EXEC"])];
        let answers = self.ask(&commands).await;
        (answers[2] == Answer::Reply(Reply::Array(vec![Reply::Integer(1)]))).then_some(until)
    }
}

/// Whether each command of a pipeline has its own answer: a list that grows, a word that comes back, a place for what was appended before.
fn is_in_order(commands: &[Vec<String>], answers: &[Answer]) -> bool {
    let (mut length, mut appended) = (0, None);
    commands.iter().zip(answers).all(|(command, answer)| {
        let value = &command[command.len() - 1];
        match (&*command[0], answer) {
            (_, Answer::Unsent | Answer::Lost | Answer::Reply(Reply::Error(_))) => true,
            ("RPUSH", Answer::Reply(Reply::Integer(after))) => {
                appended = Some(value);
                *after > std::mem::replace(&mut length, *after)
            }
            ("ECHO", Answer::Reply(reply)) => *reply == Reply::bulk(value.clone()),
            ("LPOS", Answer::Reply(Reply::Integer(_))) => true,
            ("LPOS", Answer::Reply(Reply::Nil)) => appended != Some(value),
            _ => false,
        }
    })
}

#[test]
fn what_is_wrong_with_a_pipeline_is_found() {
    let commands = ["RPUSH l a", "RPUSH l b", "ECHO b", "LPOS l b"];
    let commands = commands.map(|command| command.split(' ').map(str::to_owned).collect::<Vec<_>>());
    let judge = |replies: [Reply; 4]| is_in_order(&commands, &replies.map(Answer::Reply));
    let (one, two, b) = (Reply::Integer(1), Reply::Integer(2), Reply::bulk("b"));
    let error = Reply::Error(CommandError::text("LOADING no leader"));
    assert!(judge([one.clone(), two.clone(), b.clone(), one.clone()]));
    assert!(judge([one.clone(), error, b.clone(), Reply::Nil]));
    assert!(!judge([one.clone(), two.clone(), b.clone(), Reply::Nil]));
    assert!(!judge([two.clone(), one.clone(), b.clone(), one.clone()]));
    assert!(!judge([one.clone(), two.clone(), one.clone(), b.clone()]));
    assert!(!judge([one.clone(), two, Reply::bulk("a"), one]));
}
