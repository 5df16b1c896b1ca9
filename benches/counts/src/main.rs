//! Takes so many steps of one operation, for whoever counts the instructions: `counts` alone lists the operations with their sizes, `counts NAME STEPS`
//! takes steps. What preparing costs is the same for any number of steps: the difference of two runs is free of it.

use plenary_counts::{STEPS, operations};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, steps] = arguments.as_slice() else {
        for operation in operations() {
            println!("{}\t{}\t{STEPS}", operation.name, operation.in_a_step);
        }
        return Ok(());
    };
    let known = operations().into_iter().find(|operation| operation.name == name);
    let mut step = known.ok_or("no such operation")?.prepare();
    let steps: usize = steps.parse()?;
    if steps > STEPS {
        return Err(format!("at most {STEPS} steps").into());
    }
    for at in 0..steps {
        step(at);
    }
    // What was prepared is not freed: more steps may have made more to free.
    std::process::exit(0);
}
