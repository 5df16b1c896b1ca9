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
    let name = format!("plenary-{}", &commit[..8]);
    let sources = target.join("upgrade").join(&commit[..8]);
    if !sources.exists() {
        let unpacked = target
            .join("upgrade")
            .join(format!("{name}.{}", std::process::id()));
        std::fs::create_dir_all(&unpacked).unwrap();
        let archive = unpacked.join("archive.tar");
        let file = archive.to_str().unwrap();
        assert!(git(&["archive", "--format=tar", "-o", file, commit]));
        let mut tar = Command::new("tar");
        tar.arg("-xf").arg(&archive).arg("-C").arg(&unpacked);
        assert!(tar.status().unwrap().success());
        std::fs::remove_file(&archive).unwrap();
        // Under a name of its own, or it would stand in the place of today's program, and of a version of its own, or its library in that of another commit's.
        const PACKAGE: &str = "name = \"plenary\"\nversion = \"0.1.0";
        const PROGRAM: &str = "[[bin]]\nname = \"plenary\"";
        let versioned = format!("{PACKAGE}+{}", &commit[..8]);
        rewrite(&unpacked.join("Cargo.lock"), PACKAGE, &versioned);
        rewrite(&unpacked.join("Cargo.toml"), PACKAGE, &versioned);
        rewrite(
            &unpacked.join("Cargo.toml"),
            PROGRAM,
            &format!("[[bin]]\nname = \"{name}\""),
        );
        // Whole or not at all, also where a test is ended meanwhile. Another may have been quicker.
        if std::fs::rename(&unpacked, &sources).is_err() {
            std::fs::remove_dir_all(&unpacked).unwrap();
        }
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--locked", "--bin", &name, "--manifest-path"]);
    cargo
        .arg(sources.join("Cargo.toml"))
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
    Some(profile.join(name))
}

/// Replaces a text of a file, which is there.
fn rewrite(file: &Path, before: &str, after: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(before), "{} has {before:?}", file.display());
    std::fs::write(file, text.replace(before, after)).unwrap();
}
