//! Scripts of session stores: asked for by their SHA-1, and sent whole where no node knows them. A script is applied once and whole, or not at all, whichever
//! node was asked and whichever leads.

use super::clients::Fate;
use super::redis::{Answer, words};
use super::stores::{AGAIN_MS, Store, TRIES};
use crate::machine::reply::Reply;
use crate::node::script_sha;

/// Adds a value to a chain: its place. What is added says it.
const ADD: &str = "local place = tonumber(redis.call('GET', KEYS[1]) or 0)
redis.call('SET', KEYS[1], place + 1)
redis.call('RPUSH', KEYS[2], ARGV[1] .. '@' .. place)
return place";

/// Adds a value to a chain where it is as long as it was seen to be: 1, else 0.
const ADD_IF: &str = "if tonumber(redis.call('GET', KEYS[1]) or 0) ~= tonumber(ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[2] + 1)
redis.call('RPUSH', KEYS[2], ARGV[1] .. '@' .. ARGV[2])
return 1";

/// Lets a lock go, as redis-py and Laravel do: 1, or 0 where another has it.
pub(super) const RELEASE: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])";

/// Takes a session's lock, and its data where it is free: who has the lock, the data, the timeout, whether another has it. As Microsoft's
/// RedisSessionStateProvider does it.
const TAKE: &str = "local locked = redis.call('SETNX', KEYS[1], ARGV[1]) == 0
local holder, data = ARGV[1], ''
if locked then holder = redis.call('GET', KEYS[1]) else redis.call('EXPIRE', KEYS[1], ARGV[2]) end
if holder == ARGV[1] then data = redis.call('GET', KEYS[2]) end
local timeout = redis.call('GET', KEYS[3])
if timeout ~= false then
  redis.call('EXPIRE', KEYS[2], timeout)
  redis.call('EXPIRE', KEYS[3], timeout)
else
  timeout = '-1'
end
return {holder, data, timeout, locked}";

/// Saves a session and lets its lock go: nil, or 1 where another has the lock, and nothing is saved.
const SAVE: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 1 end
redis.call('SET', KEYS[2], ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[2])
redis.call('SET', KEYS[3], ARGV[2])
redis.call('EXPIRE', KEYS[3], ARGV[2])
redis.call('DEL', KEYS[1])";

/// How long a session lives, in seconds: longer than clocks jump.
const TIMEOUT: &str = "2592000";

/// How long its lock lasts, in seconds, and how long it is held, below.
const LOCK_LASTS: &str = "3";
const HELD_MS: u64 = 4_500;

/// What is asked for a script by this name of it.
fn asked(by: &str, name: &str, keys: &[&str], args: &[&str]) -> Vec<String> {
    let count = keys.len().to_string();
    words(&[&[by, name, &count], keys, args].concat())
}

impl Store {
    /// Evaluates a script, and what follows it in the pipeline.
    async fn evaluate(
        &mut self,
        script: &str,
        keys: &[&str],
        args: &[&str],
        then: &[Vec<String>],
    ) -> Vec<Answer> {
        let by_sha = asked("EVALSHA", &script_sha(script.as_bytes()), keys, args);
        let answers = self.ask(&[&[by_sha], then].concat()).await;
        if !answers[0].is_unknown_script() {
            return answers;
        }
        self.ask(&[&[asked("EVAL", script, keys, args)], then].concat())
            .await
    }

    /// Evaluates a script, and again while it is refused.
    pub(super) async fn insist_on(&mut self, script: &str, keys: &[&str], args: &[&str]) -> Answer {
        let mut answer = Answer::Unsent;
        for _ in 0..TRIES {
            let mut answers = self.evaluate(script, keys, args, &[]).await;
            answer = answers.pop().expect("an answer for each command");
            if answer.fate() != Fate::Refused {
                break;
            }
            self.rest(AGAIN_MS).await;
        }
        answer
    }

    /// Adds to a chain by a script, and looks at it over the same connection.
    pub(super) async fn add(&mut self) {
        let (chain, value) = (self.name("chain"), self.value());
        let list = format!("{chain}.all");
        let (keys, look) = ([&*chain, &*list], [words(&["GET", &chain])]);
        let mut answers = Vec::new();
        for _ in 0..TRIES {
            answers = self.evaluate(ADD, &keys, &[&value], &look).await;
            if answers[0].fate() != Fate::Refused {
                break;
            }
            self.rest(AGAIN_MS).await;
        }
        let place = answers[0].integer();
        if answers[1].number().is_some_and(|count| place >= Some(count)) {
            self.wrong(format!(
                "its connection does not see {value} in {chain}: {answers:?}"
            ));
        }
        let oracle = &self.world.oracle;
        oracle.stores.chained(&chain, &value, answers[0].fate());
    }

    /// Adds to a chain by a script that compares first.
    pub(super) async fn add_if(&mut self) {
        let (chain, value) = (self.name("chain"), self.value());
        let list = format!("{chain}.all");
        for _ in 0..TRIES {
            let Some(count) = self.insist(&["GET", &chain]).await.number() else {
                return;
            };
            let args = [&*value, &count.to_string()];
            let answer = self.insist_on(ADD_IF, &[&chain, &list], &args).await;
            let is_conflict = answer.integer() == Some(0);
            let fate = if is_conflict { Fate::Refused } else { answer.fate() };
            self.world.oracle.stores.chained(&chain, &value, fate);
            if !is_conflict {
                return;
            }
            self.rest(AGAIN_MS).await;
        }
    }

    /// Counts on in a session under its lock, at times so late that the lock has ended.
    pub(super) async fn session(&mut self) {
        let (name, token) = (self.name("session"), self.value());
        let parts = ["WriteLock", "SessionStateItemCollection", "SessionTimeout"];
        let keys = parts.map(|part| format!("{{{name}}}_{part}"));
        let keys = keys.each_ref().map(String::as_str);
        let taken = self.insist_on(TAKE, &keys, &[&token, LOCK_LASTS]).await;
        let Answer::Reply(Reply::Array(taken)) = taken else {
            return;
        };
        let [holder, data, ..] = &taken[..] else {
            return self.wrong(format!("a session's lock was answered {taken:?}"));
        };
        if *holder != Reply::bulk(token.clone()) {
            return;
        }
        let Some(before) = Answer::Reply(data.clone()).number() else {
            return self.wrong(format!("a session's lock was answered {taken:?}"));
        };
        self.rest(HELD_MS).await;
        let args = [&*token, TIMEOUT, &(before + 1).to_string()];
        let saved = self.insist_on(SAVE, &keys, &args).await;
        if saved.integer() != Some(1) {
            let before = u64::try_from(before).expect("it counts from 0");
            self.world.oracle.stores.saved(keys[1], before, saved.fate());
        }
    }
}
