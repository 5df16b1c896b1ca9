//! Runs a test of this program in a process of its own, in which nothing but the seed decides: the system's chance and date are the same there each time
//! (`chance.c`). So the same seed is the same run: whatever is sent, on which connection and when.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// What stands before the system's libraries in each process, built once.
pub(super) struct Again {
    folder: tempfile::TempDir,
}

impl Again {
    /// Builds what it takes, with the system's compiler: `cc`, or what `CC` says.
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/simulation/chance.c");
        let compiler = std::env::var_os("CC").unwrap_or("cc".into());
        let mut build = Command::new(compiler);
        build.args(["-shared", "-fPIC", "-O1", "-o"]);
        build.arg(folder.path().join("chance.so")).arg(source);
        let built = build.status().expect("a compiler for C");
        assert!(built.success(), "chance.c does not compile: {built}");
        Self { folder }
    }

    /// Runs a test, by its whole name, with these variables.
    pub(super) fn run(&self, test: &str, variables: &[(&str, String)]) -> Output {
        let program = std::env::current_exe().expect("this program's own file");
        let mut run = Command::new(program);
        run.args([test, "--exact", "--nocapture", "--test-threads", "1"]);
        run.env("LD_PRELOAD", self.folder.path().join("chance.so"));
        run.envs(variables.iter().map(|(name, value)| (name, value)));
        let output = run.stdin(Stdio::null()).output();
        output.expect("this program runs once more")
    }
}
