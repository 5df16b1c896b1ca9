//! The program of a former commit, built from this repository into the same target folder as today's, under another name. With the same `Cargo.lock` only this crate
//! is compiled, some 40 s, once for each target folder.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The program of this commit. None where there is no repository to build it from; it has been said then.
pub fn build(commit: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Where today's program is: the folder of its profile, in that of all profiles.
    let profile = Path::new(env!("CARGO_BIN_EXE_plenary")).parent().unwrap();
    let (target, release) = (profile.parent().unwrap(), profile.ends_with("release"));
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(root).args(args);
        command.output().is_ok_and(|output| output.status.success())
    };
    if !git(&["cat-file", "-e", &format!("{commit}^{{commit}}")]) {
        println!(
            "NOT RUN: commit {commit} is in no repository here, so there is no older program to build; a clone without history needs `git fetch --unshallow`"
        );
        return None;
    }
    let sources = target.join("upgrade").join(commit);
    let manifest = sources.join("Cargo.toml");
    if !manifest.exists() {
        std::fs::create_dir_all(&sources).unwrap();
        let archive = sources.join("archive.tar");
        assert!(git(&[
            "archive",
            "--format=tar",
            "-o",
            archive.to_str().unwrap(),
            commit
        ]));
        let unpacked = sources.join("unpacked");
        std::fs::create_dir_all(&unpacked).unwrap();
        let mut tar = Command::new("tar");
        assert!(
            tar.arg("-xf")
                .arg(&archive)
                .arg("-C")
                .arg(&unpacked)
                .status()
                .unwrap()
                .success()
        );
        // Under a name of its own, or it would stand in the place of today's program.
        let text = std::fs::read_to_string(unpacked.join("Cargo.toml")).unwrap();
        let named = text.replace("[[bin]]\nname = \"plenary\"", "[[bin]]\nname = \"plenary-older\"");
        assert_ne!(text, named, "the older manifest names its program");
        std::fs::write(unpacked.join("Cargo.toml"), named).unwrap();
        std::fs::remove_file(&archive).unwrap();
        for entry in std::fs::read_dir(&unpacked).unwrap() {
            let entry = entry.unwrap();
            // The manifest last: it says that all is there.
            if entry.file_name() != "Cargo.toml" {
                std::fs::rename(entry.path(), sources.join(entry.file_name())).unwrap();
            }
        }
        std::fs::rename(unpacked.join("Cargo.toml"), &manifest).unwrap();
        std::fs::remove_dir(&unpacked).unwrap();
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args([
        "build",
        "--quiet",
        "--locked",
        "--bin",
        "plenary-older",
        "--manifest-path",
    ]);
    cargo
        .arg(&manifest)
        .arg("--target-dir")
        .arg(target)
        .current_dir(&sources);
    if release {
        cargo.arg("--release");
    }
    // What `cargo test` says of this package: build scripts of dependencies ask for it, and would run again here, and again in the next `cargo test`.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_"]
            .iter()
            .any(|of_package| name.starts_with(of_package))
        {
            cargo.env_remove(&*name);
        }
    }
    assert!(cargo.status().unwrap().success(), "the older program is built");
    Some(profile.join("plenary-older"))
}
