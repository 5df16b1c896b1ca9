//! A short soak by the program itself: `plenary bench --soak`. Long ones are run by hand; `tests/README.md` has what they found.

#![cfg(all(feature = "cli", unix))]
#![allow(clippy::unwrap_used)]

mod common;
mod process;

use process::{plenary, setting};

#[test]
fn a_short_soak_finds_nothing_that_must_not_be_and_writes_its_report() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("soak");
    let span = format!("{}s", setting("PLENARY_SOAK_SECONDS", 20));
    let mut command = plenary(["bench", "--soak", "--for", &span, "--seed", "1", "--report"]);
    let output = command.arg(&report).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{}\n{}", said[0], said[1]);
    let page = std::fs::read_to_string(report.join("report.md")).unwrap();
    assert!(page.contains("Nothing happened that must not."), "{page}");
    let figure = |what: &str| -> u64 {
        let row = page.lines().find(|line| line.starts_with(&format!("| {what} |")));
        let figure = row.unwrap_or_else(|| panic!("{what} is not in\n{page}"));
        figure.rsplit('|').nth(1).unwrap().trim().parse().unwrap()
    };
    assert!(figure("commands acknowledged") > 100, "{page}");
    assert!(figure("messages heard") > 0, "{page}");
    assert!(
        figure("members killed") + figure("members stopped and started") > 0,
        "{page}"
    );
    assert!(figure("rests: all looked up, states compared") > 0, "{page}");
    for plot in ["rate", "p99", "memory", "disk"] {
        let picture = std::fs::read_to_string(report.join(format!("{plot}.svg"))).unwrap();
        let parsed = roxmltree::Document::parse(&picture).unwrap();
        let lines = parsed.descendants().filter(|node| node.has_tag_name("polyline"));
        assert!(lines.count() > 0, "{plot} has a line");
        assert!(page.contains(&format!("({plot}.svg)")), "{page}");
    }
    assert!(!report.join("members").exists(), "what the members wrote is gone");
}

#[test]
fn what_cannot_be_run_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("soak");
    std::fs::create_dir_all(report.join("members")).unwrap();
    let mut command = plenary(["bench", "--soak", "--for", "5s", "--report"]);
    let said = process::run(command.arg(&report));
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(
        said.err.contains("Remove what an earlier soak left there"),
        "{}",
        said.err
    );
    process::run(&mut plenary(["bench", "--soak", "--for", "7x"])).failed_with(2, &["write 90s, 15m or 2h"]);
    process::run(&mut plenary(["bench"])).failed_with(2, &["--soak"]);
}
