//! The `plenary` program. All of it is in [`plenary::cli`], so that other programs can be it too.

fn main() -> std::process::ExitCode {
    plenary::cli::main()
}
