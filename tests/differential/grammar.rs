//! Commands by chance from shapes: a shape is a line that says what a command may look like.
//!
//! * `GET` upper case, digits and signs: itself;
//! * `'x` what follows the quote;
//! * `value` lower case: one from the pool of that name, now and then one of its odd ones;
//! * `x?` x or nothing, `x*` x up to three times, `x+` one to three times, `x{150}` that often;
//! * `#x+` how many follow, then those (and sometimes the number is wrong);
//! * `[ … ]` all of it or nothing, `( … | … )` one of them, both with `*`, `+` and the like behind;
//! * `3` in front: three times as often as others; `sort` in front: the order of the answer means nothing; `form` in front: chance
//!   decides what is in the answer, and its form alone is compared.

use plenary::machine::keyspace::Chance;

/// What a word stands for: the usual, and what a client should not say.
pub struct Pool {
    pub usual: &'static [&'static str],
    pub odd: &'static [&'static str],
}

/// How an answer is compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Judged {
    Whole,
    Sorted,
    Form,
}

/// One type of value: its keys, its commands, its words.
pub struct Kind {
    pub name: &'static str,
    pub keys: &'static [&'static str],
    pub shapes: &'static [&'static str],
    pub words: fn(&str) -> Option<Pool>,
}

/// A shape, read once.
pub struct Shape {
    pub weight: usize,
    pub judged: Judged,
    parts: Vec<Part>,
    /// The name of its command, with a subcommand's behind a bar, as far as the shape says it.
    pub names: Vec<String>,
}

enum Part {
    Literal(&'static str),
    Word(&'static str),
    Either(Vec<Vec<Part>>),
    Times {
        part: Box<Part>,
        least: usize,
        most: usize,
        counted: bool,
    },
}

impl Shape {
    pub fn parse(line: &'static str) -> Self {
        let mut words = line.split_whitespace().peekable();
        let weight = words
            .peek()
            .and_then(|word| word.parse().ok())
            .inspect(|_: &usize| _ = words.next())
            .unwrap_or(1);
        let judged = match words.peek() {
            Some(&"sort") => Judged::Sorted,
            Some(&"form") => Judged::Form,
            _ => Judged::Whole,
        };
        if judged != Judged::Whole {
            words.next();
        }
        let mut words = words.collect::<Vec<_>>().into_iter();
        let parts = sequence(&mut words, &mut Vec::new());
        let literals: Vec<&str> = parts
            .iter()
            .map_while(|part| match part {
                Part::Literal(text) => Some(*text),
                _ => None,
            })
            .take(2)
            .collect();
        let names = vec![literals.join("|"), literals.first().unwrap_or(&"").to_string()];
        Self {
            weight,
            judged,
            parts,
            names,
        }
    }

    pub fn fill(&self, kind: &Kind, chance: &mut Chance) -> Vec<Vec<u8>> {
        let mut argv = Vec::new();
        for part in &self.parts {
            part.fill(kind, chance, &mut argv);
        }
        argv
    }
}

/// Parts up to the end or a closing word, which goes to `closed` with its suffix.
fn sequence(words: &mut std::vec::IntoIter<&'static str>, closed: &mut Vec<&'static str>) -> Vec<Part> {
    let mut parts = Vec::new();
    while let Some(word) = words.next() {
        if word.starts_with([']', ')', '|']) {
            closed.push(word);
            return parts;
        }
        parts.push(part(word, words));
    }
    parts
}

fn part(word: &'static str, words: &mut std::vec::IntoIter<&'static str>) -> Part {
    let (part, suffix) = if word == "[" || word == "(" {
        let (mut choices, mut closed) = (Vec::new(), Vec::new());
        loop {
            choices.push(sequence(words, &mut closed));
            match closed.pop() {
                Some("|") => {}
                Some(end) => break (Part::Either(choices), if end == "]" { "?" } else { &end[1..] }),
                None => panic!("an open group"),
            }
        }
    } else {
        let bare = word.trim_start_matches('#');
        let end = bare
            .find(['?', '*', '+', '{'])
            .filter(|at| *at > 0)
            .unwrap_or(bare.len());
        let (name, suffix) = bare.split_at(end);
        let part = if name.starts_with(|first: char| first.is_ascii_lowercase()) {
            Part::Word(name)
        } else {
            Part::Literal(name.trim_start_matches('\''))
        };
        (part, suffix)
    };
    let (least, most) = match suffix {
        "" => return part,
        "?" => (0, 1),
        "*" => (0, 3),
        "+" => (1, 3),
        times => {
            let times = times
                .trim_matches(['{', '}'])
                .parse()
                .expect("a number in braces");
            (times, times)
        }
    };
    Part::Times {
        part: Box::new(part),
        least,
        most,
        counted: word.starts_with('#'),
    }
}

impl Part {
    fn fill(&self, kind: &Kind, chance: &mut Chance, argv: &mut Vec<Vec<u8>>) {
        match self {
            Self::Literal(text) => argv.push(text.as_bytes().to_vec()),
            Self::Word(word) => argv.push(choose(word, kind, chance)),
            Self::Either(choices) => {
                let chosen = &choices[chance.below(choices.len())];
                chosen.iter().for_each(|part| part.fill(kind, chance, argv));
            }
            Self::Times {
                part,
                least,
                most,
                counted,
            } => {
                let times = least + chance.below(most - least + 1);
                if *counted {
                    let wrong = ["0", "-1", "1", "2", "4", "x", "9223372036854775807"];
                    let told = if chance.below(20) == 0 {
                        pick(chance, &wrong).to_owned()
                    } else {
                        times.to_string()
                    };
                    argv.push(told.into_bytes());
                }
                (0..times).for_each(|_| part.fill(kind, chance, argv));
            }
        }
    }
}

fn choose(word: &str, kind: &Kind, chance: &mut Chance) -> Vec<u8> {
    let text = match word {
        // HyperLogLogs stay among themselves: the bytes of one keep an estimate in Redis only.
        "key" if chance.below(24) > 0 || kind.name == "hll" => pick(chance, kind.keys),
        "key" | "anykey" => super::any_key(chance),
        "serial" => return format!("m{}", chance.below(400)).into_bytes(),
        "integer" => {
            return (chance.draw() as i64 >> chance.below(64))
                .to_string()
                .into_bytes();
        }
        "double" => return double(chance).into_bytes(),
        "blob" => return (0..chance.below(100)).map(|_| chance.draw() as u8).collect(),
        _ => {
            let pool = (kind.words)(word)
                .or_else(|| super::common::words(word))
                .unwrap_or_else(|| panic!("no pool {word} in {}", kind.name));
            if !pool.odd.is_empty() && chance.below(14) == 0 {
                pick(chance, pool.odd)
            } else {
                pick(chance, pool.usual)
            }
        }
    };
    text.as_bytes().to_vec()
}

/// Any finite double, in one of the ways to write it.
fn double(chance: &mut Chance) -> String {
    let few = chance.below(100_000) as f64 / 10_f64.powi(chance.below(8) as i32);
    let number = match chance.below(4) {
        0 => f64::from_bits(chance.draw()),
        1 => -few,
        _ => few,
    };
    if !number.is_finite() {
        return "0".to_owned();
    }
    match chance.below(3) {
        0 => format!("{number:e}"),
        _ => format!("{number}"),
    }
}

pub fn pick<'a>(chance: &mut Chance, of: &[&'a str]) -> &'a str {
    of[chance.below(of.len())]
}
