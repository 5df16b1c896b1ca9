//! Texts of scripts and libraries: none panics the engine, takes more memory or time than it is given, leaves anything behind for those after
//! it, or comes to something else in another engine; and what it comes to holds where it is applied.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plenary::machine::Machine;
use plenary::machine::entry::{Command, Entry, Origin};
use plenary::machine::event::Event;
use plenary::testing::ScriptProbe;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

const AT: u64 = 1_700_000_000_000;
const MEMORY_BYTES: usize = 8 << 20;
const ENDS_AFTER: Duration = Duration::from_millis(20);

/// What a script may see that differs from run to run, beside addresses in its answer: those it reckons with, the processor's time, memory in use.
const NOT_THE_SAME: [&[u8]; 4] = [b"tostring", b"clock", b"collectgarbage", b"gcinfo"];

/// Where `math.random` begins is the one thing that scripts leave to each other.
const BEGIN: &[u8] = b"math.randomseed(1)";

/// Engines need more stack than a fuzzer's thread has.
static THREAD: LazyLock<Mutex<(Sender<Vec<u8>>, Receiver<()>)>> = LazyLock::new(|| {
    let (sender, texts) = channel::<Vec<u8>>();
    let (done, receiver) = channel();
    std::thread::Builder::new()
        .stack_size(ScriptProbe::STACK_BYTES)
        .spawn(move || {
            let (machine, mut old) = (machine(), probe());
            for text in texts {
                try_out(&machine, &mut old, &text);
                done.send(()).expect("somebody waits for it");
            }
        })
        .expect("a thread starts");
    Mutex::new((sender, receiver))
});

fn probe() -> ScriptProbe {
    ScriptProbe::new(MEMORY_BYTES, ENDS_AFTER).expect("Lua starts")
}

fn entry(command: Command) -> Entry {
    Entry {
        format: Entry::FORMAT,
        at: AT,
        seed: 1,
        origin: Origin::default(),
        commands: vec![command],
    }
}

fn machine() -> Machine {
    let mut machine = Machine::default();
    for line in [
        "SET k1 10",
        "RPUSH k2 a b c",
        "HSET h f v",
        "ZADD z 1 a 2 b",
        "SADD s 1 2 x",
        "XADD x 1-1 f v",
    ] {
        machine.apply(&entry(Command::new(0, line.split(' ').map(str::to_owned))));
    }
    machine.store_mut().take_events();
    machine
}

fn try_out(machine: &Machine, old: &mut ScriptProbe, text: &[u8]) {
    old.evaluate(machine, AT, BEGIN);
    let Some(command) = old.evaluate(machine, AT, text) else {
        return;
    };
    let mut applied = machine.freeze();
    applied.apply(&entry(command.clone()));
    let events = applied.store_mut().take_events();
    let holds = |event: &Event| matches!(event, Event::Evaluated { reply: Some(_), .. });
    assert!(
        events.iter().any(holds),
        "what a script came to does not hold where it was evaluated"
    );
    if NOT_THE_SAME
        .iter()
        .any(|word| text.windows(word.len()).any(|part| part == *word))
    {
        return;
    }
    let mut new = probe();
    new.evaluate(machine, AT, BEGIN);
    if let Some(again) = new.evaluate(machine, AT, text) {
        assert_eq!(without_addresses(&command), without_addresses(&again));
    }
}

/// The words of a command. A function that is raised as an error is told as Redis tells it: by its address.
fn without_addresses(command: &Command) -> Vec<String> {
    let words = command.argv.iter().map(|word| word.escape_ascii().to_string());
    let without = |word: String| {
        let mut parts = word.split("0x");
        let mut left = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            left.push_str("0x");
            left.push_str(part.trim_start_matches(|digit: char| digit.is_ascii_hexdigit()));
        }
        left
    };
    words.map(without).collect()
}

fuzz_target!(|data: &[u8]| {
    let thread = THREAD.lock().expect("a panic ends the process");
    thread.0.send(data.to_vec()).expect("the thread runs");
    thread.1.recv().expect("the thread runs");
});
