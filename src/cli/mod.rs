//! The `plenary` program: `serve` runs a node, `status` and `members` ask a running one over its Redis port, `bench` tries a cluster of its own.
//!
//! It is a library function so that other programs can be it: an example that runs three nodes starts itself three times.
//! In reading order: `settings` (what `serve` is told), `serve` (a node from start to stop), [`client`] (a Redis client
//! that waits for each answer), `report` (answers as tables), `soak` (three nodes under load, killed and rolled), `plot` (lines and bars).

pub mod client;
mod plot;
mod probe;
mod report;
mod serve;
mod settings;
mod soak;

use clap::{Args, Parser, Subcommand};
use client::Client;
#[doc(hidden)]
pub use probe::SettingsProbe;
use settings::{Resolved, Settings};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Exit status of a command that was tried and failed.
const FAILED: u8 = 1;

/// Exit status of settings or arguments that cannot work; nothing was tried.
const MISUSED: u8 = 2;

/// An embedded, Raft-replicated session cache with a Redis endpoint.
#[derive(Debug, Parser)]
#[command(
    name = "plenary",
    version,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node: alone, or as a member of a cluster
    ///
    /// With neither --join nor --expect it is a cluster of one that serves at once and can grow later. SIGTERM and SIGINT stop
    /// it gracefully: it hands over leadership first. A second signal ends it at once.
    ///
    /// Every setting is a flag, a variable and a key of the TOML file; a flag wins over a variable, a variable over the file,
    /// the file over the default.
    Serve(Box<Serve>),
    /// Show the members, their roles and how far each one is
    Status {
        #[command(flatten)]
        endpoint: Endpoint,
        /// Print the whole status as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show or change who is a member
    #[command(subcommand)]
    Members(Members),
    /// Show or change the cluster's two access keys
    #[command(subcommand)]
    Keys(Keys),
    /// Try a cluster of three that it starts itself on this machine
    Bench(Bench),
    /// Show what clients sent and this node's endpoint does not know: commands, subcommands, options
    Compat {
        #[command(flatten)]
        endpoint: Endpoint,
    },
}

#[derive(Debug, Subcommand)]
enum Keys {
    /// Show of each key the beginning of its SHA-256, since when it is right, and when it was last given to this node
    Show {
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Draw a new key and print it. The old one is wrong from then on, on every node; whoever is connected stays so
    Rotate {
        /// Which: `primary` or `secondary`
        #[arg(value_parser = ["primary", "secondary"])]
        which: String,
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Take the secondary key away
    Remove {
        /// Which: `secondary`
        #[arg(value_parser = ["secondary"])]
        which: String,
        #[command(flatten)]
        endpoint: Endpoint,
    },
}

#[derive(Args, Debug)]
struct Bench {
    /// Mixed load while members are killed and rolled; exits with 1 if anything acknowledged is lost or applied twice, states differ, or memory grows
    #[arg(long, required = true)]
    soak: bool,

    /// How long: 90s, 15m, 2h
    #[arg(long = "for", value_name = "TIME", default_value = "15m", value_parser = soak::span)]
    span: Duration,

    /// What happens when follows from it: that of an earlier run repeats its plan. Drawn if it is left out
    #[arg(long)]
    seed: Option<u64>,

    /// Clients at once
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,

    /// Folder for the report, its plots and, while it runs, the members' data
    #[arg(long, value_name = "FOLDER", default_value = "plenary-soak")]
    report: PathBuf,
}

#[derive(Args, Debug)]
struct Serve {
    #[command(flatten)]
    settings: Settings,

    /// TOML file with settings; plenary.example.toml shows them all
    #[arg(long, env = "PLENARY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Stop gracefully when standard input ends: for a parent that must not leave nodes behind
    #[arg(long)]
    until_stdin_ends: bool,
}

#[derive(Debug, Subcommand)]
enum Members {
    /// Show the members
    List {
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Add the node that listens for peers at this address, as a learner: it stores, but has no vote yet
    Add {
        /// Where the new member's peers reach it
        #[arg(value_name = "HOST:PORT")]
        address: String,
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Take a member out. Its id never comes back
    Remove {
        /// The member's id, as `members list` shows it
        id: u64,
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Give a learner that has caught up a vote
    Promote {
        /// The member's id, as `members list` shows it
        id: u64,
        #[command(flatten)]
        endpoint: Endpoint,
    },
}

/// Which node to ask.
#[derive(Args, Debug)]
struct Endpoint {
    /// Redis port of any member
    #[arg(
        long,
        env = "PLENARY_RESP",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:6379"
    )]
    resp: String,

    /// Its access key. Others on this machine can see a flag: prefer the variable or the file
    #[arg(
        long,
        env = "PLENARY_ACCESS_KEY",
        hide_env_values = true,
        value_name = "KEY",
        value_parser = clap::value_parser!(crate::config::Secret)
    )]
    access_key: Option<crate::config::Secret>,

    /// File with the access key
    #[arg(long, env = "PLENARY_ACCESS_KEY_FILE", value_name = "FILE")]
    access_key_file: Option<PathBuf>,
}

impl Endpoint {
    fn connect(&self) -> Result<Client, Failure> {
        let from_file = |file: &PathBuf| settings::read_secret("access_key_file", file, &mut Vec::new());
        let key = match (&self.access_key, &self.access_key_file) {
            (Some(key), _) => Some(key.clone()),
            (None, Some(file)) => Some(from_file(file).map_err(Failure::misused)?),
            (None, None) => None,
        };
        Ok(Client::connect(&self.resp, key.as_ref())?)
    }
}

/// Why the program ends, and with which status.
struct Failure {
    status: u8,
    why: String,
}

impl Failure {
    fn misused(why: impl Into<String>) -> Self {
        Self {
            status: MISUSED,
            why: why.into(),
        }
    }
}

impl From<crate::error::Error> for Failure {
    fn from(error: crate::error::Error) -> Self {
        let status = if matches!(error, crate::error::Error::Config(_)) {
            MISUSED
        } else {
            FAILED
        };
        Self {
            status,
            why: error.to_string(),
        }
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        Self {
            status: FAILED,
            why: error.to_string(),
        }
    }
}

/// Runs the program with this process's arguments.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs the program with these arguments, the program's name first.
///
/// Ends with status 0 when all went well, 1 when what was asked for failed, 2 when the arguments or settings cannot work.
pub fn run<A: Into<OsString> + Clone>(args: impl IntoIterator<Item = A>) -> ExitCode {
    let outcome = match Cli::try_parse_from(args) {
        Ok(cli) => execute(cli.command),
        Err(said) => {
            // Help and version go to standard output with status 0, faults to standard error with 2. Nobody may be reading.
            let _ = said.print();
            return if said.use_stderr() {
                ExitCode::from(MISUSED)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { status, why }) => {
            eprintln!("plenary: {why}");
            ExitCode::from(status)
        }
    }
}

fn execute(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(serve) => {
            let Serve {
                settings,
                config,
                until_stdin_ends,
            } = *serve;
            let settings = match config.filter(|file| !file.as_os_str().is_empty()) {
                Some(file) => settings.over(Settings::from_file(&file)?),
                None => settings,
            };
            let filter = serve::log_filter(settings.log.as_deref()).map_err(Failure::misused)?;
            let Resolved { config, warnings } = settings.resolve()?;
            serve::log_to_stderr(filter);
            for warning in warnings {
                tracing::warn!(target: "plenary", "{warning}");
            }
            Ok(serve::serve(config, until_stdin_ends)?)
        }
        Command::Status { endpoint, json } => {
            let status = report::ask_status(&mut endpoint.connect()?)?;
            print(&if json {
                report::json(&status)?
            } else {
                report::status(&status)?
            })
        }
        Command::Members(change) => members(change),
        Command::Keys(change) => keys(change),
        Command::Bench(bench) => run_bench(bench),
        Command::Compat { endpoint } => print(&report::compat(
            &endpoint.connect()?.call(&["PLENARY", "COMPAT"])?,
        )),
    }
}

fn run_bench(bench: Bench) -> Result<(), Failure> {
    let seed = match bench.seed {
        Some(seed) => seed,
        None => getrandom::u64().map_err(|error| Failure {
            status: FAILED,
            why: format!("no seed can be drawn: {error}"),
        })?,
    };
    let options = soak::Options {
        span: bench.span,
        seed,
        workers: bench.workers.into(),
        report: bench.report,
    };
    print(&format!("seed {seed}\n"))?;
    let failed = |why: String| Failure { status: FAILED, why };
    match soak::run(&options) {
        Ok(true) => Ok(()),
        Ok(false) => Err(failed(format!(
            "something happened that must not: {}",
            options.report.join("report.md").display()
        ))),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn members(change: Members) -> Result<(), Failure> {
    let told = match change {
        Members::List { endpoint } => report::members(&report::ask_status(&mut endpoint.connect()?)?)?,
        Members::Add { address, endpoint } => {
            let reply = endpoint
                .connect()?
                .call(&["PLENARY", "MEMBERS", "ADD", &address])?;
            format!(
                "{address} is a learner now, with the id {}. Promote it when it has caught up.\n",
                client::text(&reply)
            )
        }
        Members::Remove { id, endpoint } => {
            endpoint
                .connect()?
                .call(&["PLENARY", "MEMBERS", "REMOVE", &id.to_string()])?;
            format!("{id} is no member any more. Stop it, and empty its folder before it joins again.\n")
        }
        Members::Promote { id, endpoint } => {
            endpoint
                .connect()?
                .call(&["PLENARY", "MEMBERS", "PROMOTE", &id.to_string()])?;
            format!("{id} votes now.\n")
        }
    };
    print(&told)
}

fn keys(change: Keys) -> Result<(), Failure> {
    let told = match change {
        Keys::Show { endpoint } => report::keys(&endpoint.connect()?.call(&["PLENARY", "KEYS", "SHOW"])?),
        Keys::Rotate { which, endpoint } => {
            let reply = endpoint.connect()?.call(&["PLENARY", "KEYS", "ROTATE", &which])?;
            format!("{}\n", client::text(&reply))
        }
        Keys::Remove { which, endpoint } => {
            endpoint.connect()?.call(&["PLENARY", "KEYS", "REMOVE", &which])?;
            format!("there is no {which} key any more\n")
        }
    };
    print(&told)
}

fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    written.map_err(|error| Failure {
        status: FAILED,
        why: format!("standard output: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_argument_of_every_command_is_explained() {
        fn walk(command: &clap::Command) {
            assert!(
                command.get_about().is_some(),
                "{} has no help",
                command.get_name()
            );
            for arg in command.get_arguments() {
                let id = arg.get_id().as_str();
                assert!(
                    arg.get_help().is_some() || id == "help" || id == "version",
                    "{}: {id}",
                    command.get_name()
                );
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }
}
