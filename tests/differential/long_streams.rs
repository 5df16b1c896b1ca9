//! Streams that grow long, and their groups: every answer must be that of Redis, down to which nodes trimming with `~` takes away, also after a
//! stream was dumped on one side and restored on both.
//!
//! `PLENARY_SEED` repeats a sequence that failed. Ids are never given by the clock, and times in answers are left out: the two have different clocks.

use super::setting;
use crate::oracle::{self, Answer, Server, quote};
use plenary::machine::Machine;
use plenary::machine::keyspace::Chance;

/// Sequences per run, and commands of each.
const SEQUENCES: [usize; 4] = [30, 300, 3_000, 10_000];

/// The machine's clock.
const AT: u64 = 1_700_000_000_000;

/// Integers above this are times.
const TIMES: i64 = 10_000_000_000;

/// The node count of the radix tree that Redis has and we have not stands at this place in `XINFO STREAM`.
const TREE_NODES: usize = 5;

/// Commands by shape: words in lower case are for [`Maker::word`], `x?` is x or nothing.
const SHAPES: &[&str] = &[
    "XADD key new field value",
    "XADD key new field value",
    "XADD key new field value",
    "XADD key new field value",
    "XADD key new field value",
    "XADD key new field value field value",
    "XADD key new field value field value",
    "XADD key new field long",
    "XADD key new field long",
    "XADD key id field value",
    "XADD key NOMKSTREAM new field value",
    "XADD key MAXLEN many new field value",
    "XADD key MAXLEN ~ many new field value",
    "XADD key MINID ~ id LIMIT count new field value",
    "XDEL key id",
    "XDEL key id id id",
    "XTRIM key MAXLEN many",
    "XTRIM key MAXLEN ~ many",
    "XTRIM key MAXLEN ~ many LIMIT many",
    "XTRIM key MINID id",
    "XTRIM key MINID ~ id",
    "XLEN key",
    "XRANGE key edge edge",
    "XRANGE key edge edge COUNT count",
    "XREVRANGE key edge edge COUNT count",
    "XREAD COUNT count STREAMS key key id id",
    "XREAD STREAMS key key key id $ id",
    "XREAD STREAMS key id id",
    "XSETID key id",
    "XSETID key ahead ENTRIESADDED many MAXDELETEDID id",
    "XGROUP CREATE key group id",
    "XGROUP CREATE key group id MKSTREAM ENTRIESREAD count",
    "XGROUP SETID key group id",
    "XGROUP SETID key group $ ENTRIESREAD count",
    "XGROUP CREATECONSUMER key group consumer",
    "XGROUP DELCONSUMER key group consumer",
    "XREADGROUP GROUP group consumer COUNT count STREAMS key >",
    "XREADGROUP GROUP group consumer COUNT count STREAMS key >",
    "XREADGROUP GROUP group consumer COUNT count NOACK STREAMS key >",
    "XREADGROUP GROUP group consumer COUNT count STREAMS key id",
    "XREADGROUP GROUP group consumer COUNT count STREAMS key key > >",
    "XACK key group id",
    "XACK key group id id id id",
    "XPENDING key group",
    "XPENDING key group edge edge 0",
    "XCLAIM key group consumer idle id id id",
    "XCLAIM key group consumer idle id id id JUSTID RETRYCOUNT count",
    "XCLAIM key group consumer idle id id FORCE TIME 1",
    "XCLAIM key group consumer idle id id IDLE 900000000000 LASTID id",
    "XAUTOCLAIM key group consumer idle edge COUNT count",
    "XAUTOCLAIM key group consumer idle edge COUNT count JUSTID",
    "XINFO STREAM key",
    "XINFO STREAM key FULL COUNT count",
    "XINFO GROUPS key",
];

/// What rarely happens, so that something is there mostly.
const RARE: &[&str] = &[
    "DEL key",
    "RENAME key key",
    "COPY key key REPLACE",
    "XGROUP DESTROY key group",
    "XTRIM key MAXLEN 0",
    "XSETID key 0",
];

/// One step in so many carries a stream from one side to both.
const CARRIES: usize = 60;

struct Maker {
    chance: Chance,
    /// How many commands were made: ids grow with it.
    made: u64,
}

impl Maker {
    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.chance.below(of.len())]
    }

    fn id(&mut self) -> String {
        let back = [4, 40, 400][self.chance.below(3)];
        let ms = (self.made / 8).saturating_sub(self.chance.draw() % back) + 1;
        match self.chance.below(6) {
            0 => format!("{ms}-{}", self.chance.below(6)),
            1 => "0".to_owned(),
            _ => format!("{ms}"),
        }
    }

    fn word(&mut self, word: &str) -> String {
        match word {
            "key" => self.pick(&["s", "s", "s", "t"]).to_owned(),
            "group" => self.pick(&["g", "g", "h"]).to_owned(),
            "consumer" => self.pick(&["alice", "bob", "carol"]).to_owned(),
            "field" => self.pick(&["f", "f", "f", "f", "field", "17"]).to_owned(),
            "value" => self
                .pick(&[
                    "",
                    "v",
                    "value",
                    "-5",
                    "127",
                    "128",
                    "-4097",
                    "40000",
                    "9999999",
                    "3000000000",
                    "1e3",
                    "007",
                ])
                .to_owned(),
            "long" => "x".repeat([62, 63, 64, 126, 127, 600, 4_000, 5_000][self.chance.below(8)]),
            "new" => format!("{}-*", self.made / 8 + 1),
            "ahead" => format!("{}-3", self.made / 8 + 1),
            "count" => self.pick(&["1", "2", "3", "5", "10", "0"]).to_owned(),
            "many" => (30 + self.chance.below(400)).to_string(),
            "idle" => self.pick(&["0", "0", "100000000000"]).to_owned(),
            "edge" => match self.chance.below(6) {
                0 => "-".to_owned(),
                1 => "+".to_owned(),
                2 => format!("({}", self.id()),
                _ => self.id(),
            },
            "id" => self.id(),
            other => other.to_owned(),
        }
    }

    fn command(&mut self) -> Vec<Vec<u8>> {
        self.made += 1;
        let shape = match self.chance.below(300) {
            0 => self.pick(RARE),
            _ => self.pick(SHAPES),
        };
        shape
            .split(' ')
            .map(|word| self.word(word).into_bytes())
            .collect()
    }
}

/// The answer without times.
fn timeless(answer: Answer) -> Answer {
    match answer {
        Answer::Integer(number) if number > TIMES => Answer::Simple(b"a time".to_vec()),
        Answer::Array(answers) => Answer::Array(answers.into_iter().map(timeless).collect()),
        other => other,
    }
}

fn comparable(argv: &[Vec<u8>], answer: Answer) -> Answer {
    let is_info = argv.starts_with(&[b"XINFO".to_vec(), b"STREAM".to_vec()]);
    match timeless(answer) {
        Answer::Array(mut answers) if is_info && answers.len() > TREE_NODES => {
            answers[TREE_NODES] = Answer::Nil;
            Answer::Array(answers)
        }
        other => other,
    }
}

/// Dumps a stream on one side and restores it on both: what each answered.
fn carry(machine: &mut Machine, redis: &mut Server, seed: u64, key: &str, to_redis: bool) -> [Answer; 2] {
    let words = |words: &[&[u8]]| words.iter().map(|word| word.to_vec()).collect::<Vec<_>>();
    let dump = words(&[b"DUMP", key.as_bytes()]);
    let payload = match to_redis {
        true => oracle::run(machine, AT, seed, 0, &dump),
        false => redis.run(0, &dump),
    };
    let Answer::Bulk(payload) = payload else {
        return [payload, Answer::Nil];
    };
    let restore = words(&[b"RESTORE", key.as_bytes(), b"0", &payload, b"REPLACE"]);
    [
        oracle::run(machine, AT, seed, 0, &restore),
        redis.run(0, &restore),
    ]
}

/// Runs one sequence on both; what differs first, with the commands before it.
fn compare(redis: &mut Server, seed: u64, commands: usize) -> Result<(), String> {
    redis.reset();
    let mut machine = Machine::default();
    let mut maker = Maker {
        chance: Chance::new(seed),
        made: 0,
    };
    let mut history = Vec::new();
    let last = ["s", "t"]
        .map(|key| ["XINFO", "STREAM", key, "FULL", "COUNT", "0"].map(|word| word.as_bytes().to_vec()));
    for number in 0..commands + last.len() {
        if maker.chance.below(CARRIES) == 0 {
            let (key, to_redis) = (maker.word("key"), maker.chance.below(2) == 0);
            let [ours, theirs] = carry(&mut machine, redis, seed, &key, to_redis);
            history.push(format!(
                "carried {key}, to Redis: {to_redis}\n    {}",
                ours.render()
            ));
            if ours != theirs {
                return Err(format!(
                    "PLENARY_SEED={seed}: {}\nbut redis answered {}",
                    history.join("\n"),
                    theirs.render()
                ));
            }
        }
        let argv = match number.checked_sub(commands) {
            Some(number) => last[number].to_vec(),
            None => maker.command(),
        };
        let [ours, theirs] = [oracle::run(&mut machine, AT, seed, 0, &argv), redis.run(0, &argv)]
            .map(|answer| comparable(&argv, answer));
        let words: Vec<String> = argv.iter().map(|word| quote(word)).collect();
        history.push(format!("{}\n    {}", words.join(" "), ours.render()));
        if ours != theirs {
            let from = history.len().saturating_sub(12);
            return Err(format!(
                "PLENARY_SEED={seed}, command {number} of {commands}:\n{}\nbut redis answered\n    {}",
                history[from..].join("\n"),
                theirs.render()
            ));
        }
    }
    Ok(())
}

#[test]
fn random_commands_on_streams_are_answered_as_redis_answers_them() {
    let Some(mut redis) = Server::from_environment() else {
        return;
    };
    let seeds = setting("PLENARY_SEED").map_or(1..=2, |seed| seed..=seed);
    for seed in seeds {
        for commands in SEQUENCES {
            if let Err(difference) = compare(&mut redis, seed, commands) {
                panic!("{difference}");
            }
        }
    }
}
