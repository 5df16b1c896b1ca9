//! What very many keys cost, and what those who write feel when very much happens at once. `cargo bench --bench scale -- --help`; `benches/README.md` says how to
//! read it.
//!
//! Not a test: nothing here fails for being slow or large.

mod load;
mod members;
mod memory;
mod removal;
mod snapshot;
#[path = "../targets/mod.rs"]
mod targets;
mod tenfold;

use targets::Fault;

const HELP: &str = "\
cargo bench --bench scale -- [OPTIONS]
  --keys N           keys (1,000,000, which three nodes hold in some 3 GB)
  --only A,B         only these: memory, snapshot, join, lagging, tenfold, removal";

const ALL: [&str; 6] = ["memory", "snapshot", "join", "lagging", "tenfold", "removal"];

struct Options {
    keys: usize,
    only: Vec<String>,
}

impl Options {
    fn read() -> Result<Self, Fault> {
        let mut options = Self {
            keys: 1_000_000,
            only: ALL.map(str::to_owned).to_vec(),
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value\n{HELP}"));
            match word.as_str() {
                // Cargo says it to every benchmark.
                "--bench" => {}
                "--keys" => options.keys = value()?.parse()?,
                "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
                _ => return Err(format!("{word}?\n{HELP}").into()),
            }
        }
        match options.only.iter().find(|one| !ALL.contains(&one.as_str())) {
            Some(unknown) => Err(format!("{unknown}?\n{HELP}").into()),
            None => Ok(options),
        }
    }
}

fn main() -> Result<(), Fault> {
    let Options { keys, only } = Options::read()?;
    let runtime = tokio::runtime::Runtime::new()?;
    for one in only {
        let folder = tempfile::tempdir()?;
        let folder = folder.path();
        let measured = match one.as_str() {
            "memory" => runtime.block_on(memory::measure(keys)),
            "snapshot" => runtime.block_on(snapshot::measure(folder, keys)),
            "join" => runtime.block_on(members::join(folder, keys)),
            "lagging" => runtime.block_on(members::lagging(folder, keys)),
            "tenfold" => runtime.block_on(tenfold::measure(folder, keys)),
            _ => runtime.block_on(removal::measure(folder, keys)),
        };
        // The others are worth measuring all the same.
        measured.unwrap_or_else(|fault| eprintln!("{one} is left out: {fault}"));
    }
    Ok(())
}
