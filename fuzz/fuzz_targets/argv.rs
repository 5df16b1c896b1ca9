//! Commands of a client, as the machine gets them: none panics it, and two machines that applied the same are equal. Commands are lines,
//! arguments are separated by spaces; a `\xff` byte stands for a space or an end of line inside an argument.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plenary::machine::Machine;
use plenary::machine::entry::{Command, Entry, Origin};
use std::sync::LazyLock;

/// To begin with: a copy costs less than a new one.
static EMPTY: LazyLock<Machine> = LazyLock::new(|| {
    let mut machine = Machine::default();
    machine.apply(&entry(Vec::new()));
    machine
});

fn entry(commands: Vec<Command>) -> Entry {
    Entry {
        format: Entry::FORMAT,
        at: 1_700_000_000_000,
        seed: 1,
        origin: Origin::default(),
        commands,
    }
}

fuzz_target!(|data: &[u8]| {
    let (mut one, mut other) = (EMPTY.freeze(), EMPTY.freeze());
    for line in data.split(|byte| *byte == b'\n').take(64) {
        let words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        let argv = words.map(|word| {
            word.iter()
                .map(|byte| if *byte == 0xff { b' ' } else { *byte })
                .collect::<Vec<u8>>()
        });
        let command = Command::new(0, argv);
        if command.argv.is_empty() {
            continue;
        }
        let _ = one.read(1_700_000_000_000, 0, &command.argv);
        let entry = entry(vec![command]);
        assert_eq!(one.apply(&entry), other.apply(&entry));
    }
    assert_eq!(one.digest(), other.digest());
});
