//! What the README says of commands and settings is what there is. `PLENARY_WRITE_README=1` writes the list of commands.

#![allow(clippy::unwrap_used)]

use plenary::machine::table::{self, Spec};
use std::collections::BTreeSet;
use std::path::Path;

const BEGIN: &str = "<!-- commands: written by `PLENARY_WRITE_README=1 cargo test --test readme` from the command table -->\n";
const END: &str = "<!-- end of commands -->";

/// One row per group, in the table's order; a container stands for its subcommands.
fn commands() -> String {
    let mut groups: Vec<(&str, Vec<Spec>)> = Vec::new();
    for spec in table::all() {
        match groups.last_mut() {
            Some((group, specs)) if *group == spec.group => specs.push(spec),
            _ => groups.push((spec.group, vec![spec])),
        }
    }
    let mut text = "| group | commands |\n|---|---|\n".to_owned();
    for (group, specs) in groups {
        let top = specs.iter().filter(|spec| !spec.name.contains('|'));
        let cells = top.map(|spec| match table::subcommands(spec.name) {
            [] => format!("`{}`", spec.name),
            subcommands => format!("`{}` ({})", spec.name, subcommands.join(" ").to_lowercase()),
        });
        text.push_str(&format!(
            "| {group} | {} |\n",
            cells.collect::<Vec<_>>().join(", ")
        ));
    }
    text
}

#[test]
fn the_readme_lists_every_command() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = readme
        .split_once(BEGIN)
        .expect("README.md has the line where the commands begin");
    let (listed, after) = rest
        .split_once(END)
        .expect("README.md has the line where the commands end");
    if std::env::var_os("PLENARY_WRITE_README").is_some() {
        std::fs::write(&file, format!("{before}{BEGIN}{}{END}{after}", commands())).unwrap();
    } else {
        assert_eq!(
            listed,
            commands(),
            "the command table has changed: run the command that README.md names there"
        );
    }
}

/// The sample file is held to the true list of settings by its own test; README must have the same.
#[test]
fn the_readme_lists_every_setting() {
    let readme = include_str!("../README.md");
    let table: BTreeSet<&str> = readme
        .lines()
        .skip_while(|line| !line.starts_with("| setting |"))
        .take_while(|line| line.starts_with('|'))
        .flat_map(|line| {
            line.split('|')
                .nth(1)
                .unwrap_or_default()
                .split('`')
                .skip(1)
                .step_by(2)
        })
        .collect();
    let sample: BTreeSet<&str> = include_str!("../plenary.example.toml")
        .lines()
        .filter_map(|line| line.trim_start_matches("# ").split_once(" = "))
        .map(|(name, _)| name)
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
        .collect();
    assert!(sample.len() > 20, "{sample:?}");
    assert_eq!(table, sample);
}
