//! Both sides, and playing a sequence to them: who answered differently first, and with how little it happens again.

use super::grammar::Judged;
use super::oracle::{self, Answer, Connection, Request, Server};
use super::sequence::{Argv, Step};
use super::{hll, sort, stream};
use plenary::machine::Machine;

/// Commands that are on their way at once.
const BATCH: usize = 250;

/// Replays that cutting one sequence down may take.
const REPLAYS: usize = 400;

/// Characters of an answer that are told.
const TOLD: usize = 2_000;

/// Any `at` will do as long as past and future are those of a real clock.
pub const AT: u64 = 1_700_000_000_000;

/// What is compared with Redis.
pub enum Subject {
    /// The machine alone.
    Machine(Box<Machine>),
    /// A node, through its Redis endpoint.
    Endpoint(Connection),
}

impl Subject {
    /// Whether it has what belongs to a connection: transactions, scripts.
    pub fn has_connections(&self) -> bool {
        matches!(self, Self::Endpoint(_))
    }

    fn reset(&mut self) {
        match self {
            Self::Machine(machine) => **machine = Machine::default(),
            Self::Endpoint(connection) => connection.reset(),
        }
    }

    fn run(&mut self, seed: u64, db: u8, argv: &[Vec<u8>]) -> Answer {
        match self {
            Self::Machine(machine) => oracle::run(machine, AT, seed, db, argv),
            Self::Endpoint(connection) => connection.run(db, argv),
        }
    }
}

pub struct Sides {
    pub subject: Subject,
    pub redis: Server,
}

/// Our answer and Redis'.
type Answers = (Answer, Answer);

impl Sides {
    /// Plays steps from nothing on; the first that differs, with both answers.
    pub fn play(&mut self, seed: u64, steps: &[Step]) -> Option<(usize, Answers)> {
        self.redis.reset();
        self.subject.reset();
        let leaves = Leaves::of(steps);
        let mut at = 0;
        while at < steps.len() {
            if let Step::Carry { db, key, to_redis } = &steps[at] {
                let answers = self.carry(seed, *db, key, *to_redis);
                if answers.0 != answers.1 {
                    return Some((at, answers));
                }
                at += 1;
                continue;
            }
            let runs = steps[at..].iter().map_while(|step| match step {
                Step::Run { db, judged, commands } => Some((*judged, Request { db: *db, commands })),
                Step::Carry { .. } => None,
            });
            let (how, requests): (Vec<Judged>, Vec<Request<'_>>) = runs.take(BATCH).unzip();
            let (ours, theirs) = self.batch(seed, &requests);
            let answers = ours.into_iter().zip(theirs);
            for (number, (((ours, theirs), judged), request)) in answers.zip(how).zip(&requests).enumerate() {
                let [ours, theirs] =
                    [ours, theirs].map(|answer| comparable(judged, request.commands, answer, leaves));
                if sort::is_haunted(&theirs) && ours != theirs {
                    return None;
                }
                if ours != theirs {
                    return Some((at + number, (ours, theirs)));
                }
            }
            at += requests.len();
        }
        None
    }

    /// All answers of both, which work at the same time.
    fn batch(&mut self, seed: u64, requests: &[Request<'_>]) -> (Vec<Answer>, Vec<Answer>) {
        let expected = self.redis.connection.send(requests.iter());
        let ours = match &mut self.subject {
            Subject::Machine(machine) => {
                let run =
                    |request: &Request<'_>| oracle::run(machine, AT, seed, request.db, &request.commands[0]);
                requests.iter().map(run).collect()
            }
            Subject::Endpoint(connection) => {
                let expected = connection.send(requests.iter());
                connection.receive(expected)
            }
        };
        (ours, self.redis.connection.receive(expected))
    }

    /// Dumps a key on one side and restores it on both; what the restoring came to.
    fn carry(&mut self, seed: u64, db: u8, key: &[u8], to_redis: bool) -> Answers {
        let dump = [b"DUMP".to_vec(), key.to_vec()];
        let payload = match to_redis {
            true => self.subject.run(seed, db, &dump),
            false => self.redis.run(db, &dump),
        };
        let Answer::Bulk(payload) = payload else {
            return (payload, Answer::Nil);
        };
        let restore = [
            b"RESTORE".to_vec(),
            key.to_vec(),
            b"0".to_vec(),
            payload,
            b"REPLACE".to_vec(),
        ];
        // On both sides: what is restored may be held another way than what was dumped.
        (self.subject.run(seed, db, &restore), self.redis.run(db, &restore))
    }

    /// The steps without those that a difference does not need.
    pub fn shrink(&mut self, seed: u64, mut steps: Vec<Step>) -> Vec<Step> {
        let mut replays = 0;
        let mut size = steps.len() / 2;
        while size > 0 {
            let mut at = 0;
            while at + 1 < steps.len() && replays < REPLAYS {
                let mut fewer = steps.clone();
                fewer.drain(at..(at + size).min(steps.len() - 1));
                replays += 1;
                // Any difference will do, as long as it is one.
                if let Some((last, _)) = self.play(seed, &fewer) {
                    fewer.truncate(last + 1);
                    steps = fewer;
                } else {
                    at += size;
                }
            }
            size /= 2;
        }
        steps
    }

    /// What a difference needs, with the answers to its last command; nothing if it did not come again.
    pub fn tell(&mut self, seed: u64, steps: &[Step]) -> Option<String> {
        let (last, (ours, theirs)) = self.play(seed, steps)?;
        let lines: Vec<String> = steps[..=last].iter().map(Step::show).collect();
        let [ours, theirs] =
            [ours, theirs].map(|answer| answer.render().chars().take(TOLD).collect::<String>());
        Some(format!("{}\nours:  {ours}\nredis: {theirs}", lines.join("\n")))
    }
}

/// What the commands of a sequence leave behind in Redis that later answers show, and that is not so here.
#[derive(Clone, Copy)]
pub struct Leaves {
    /// A sorted set that was sorted is held another way, and so is a HyperLogLog that was counted.
    other_encodings: bool,
    /// Texts with a NUL are equal to what stands before it, for `SORT`.
    equal_texts: bool,
}

impl Leaves {
    fn of(steps: &[Step]) -> Self {
        let names = |wanted: &[&str]| {
            steps
                .iter()
                .any(|step| wanted.iter().any(|name| step.names(name)))
        };
        Self {
            other_encodings: names(&["SORT", "SORT_RO", "PFCOUNT"]),
            equal_texts: steps.iter().any(Step::has_nul),
        }
    }
}

fn comparable(judged: Judged, commands: &[Argv], answer: Answer, leaves: Leaves) -> Answer {
    let answer = hll::without_estimate(stream::without_times(commands, answer));
    let is = |name: &str| {
        commands
            .iter()
            .any(|argv| argv[0].eq_ignore_ascii_case(name.as_bytes()))
    };
    if leaves.equal_texts && (is("SORT") || is("SORT_RO")) {
        return answer.form().sorted();
    }
    let answer = match leaves.other_encodings && is("OBJECT") {
        true => sort::without_encodings(answer),
        false => answer,
    };
    match judged {
        Judged::Whole => answer,
        Judged::Sorted => answer.sorted(),
        Judged::Form => answer.form(),
    }
}
