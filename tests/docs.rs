//! The documents say what is true: tables, messages, links, commands and units
//! are compared with the code and with each other.
#![allow(clippy::disallowed_methods, reason = "reads the project's own files")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use kometa_authd::event::{Kind, Level};
use kometa_authd::options::Cli;

#[path = "../examples/generate.rs"]
mod generate;
#[path = "common/skipped.rs"]
mod skipped;

use skipped::skipped;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The Markdown files of the project.
fn documents() -> Vec<PathBuf> {
    let folders = [root().to_owned(), root().join("docs")];
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let files = files.map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// The code blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(named), None) => open = Some((named == language, String::new())),
            (Some(_), Some(_)) => found.extend(open.take().filter(|(wanted, _)| *wanted).map(|(_, block)| block)),
            (None, Some((_, block))) => block.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a code block does not end");
    found
}

/// The README's tables are those that the code makes.
#[test]
fn tables() {
    let readme = read("README.md");
    assert!(
        generate::with_tables(&readme).as_ref() == Ok(&readme),
        "the README's tables are old: cargo run --example generate"
    );
}

/// Every message that asks for a person's attention has a row in the troubleshooting table, word for
/// word, and every row there is such a message.
#[test]
fn messages() {
    let readme = read("README.md");
    let table = readme.split("\n## Troubleshooting\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let rows: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |").map(|(message, _)| message))
        .collect();
    let loud = |kind: &&Kind| matches!(kind.row().0, Level::Error | Level::Warn);
    let messages: BTreeSet<&str> = Kind::ALL.iter().filter(loud).map(|kind| kind.row().1).collect();
    let missing: Vec<_> = messages.difference(&rows).collect();
    let gone: Vec<_> = rows.difference(&messages).collect();
    assert!(missing.is_empty() && gone.is_empty(), "without a row: {missing:#?}, without a message: {gone:#?}");
}

/// Every relative link leads to a file, and every `#anchor` to a heading in it.
#[test]
fn links() {
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("https://") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() { document.clone() } else { document.parent().unwrap().join(path) };
            assert!(file.exists(), "{}: {target} leads nowhere", document.display());
            if !anchor.is_empty() {
                let headings = fs::read_to_string(&file).unwrap();
                let mut anchors = headings.lines().filter(|line| line.starts_with('#')).map(anchor_of);
                assert!(anchors.any(|found| found == anchor), "{}: {target} names no heading", document.display());
            }
        }
    }
}

/// The anchor that a heading gets.
fn anchor_of(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c)).collect::<String>().replace(' ', "-")
}

/// Every command line that is shown is one that the program takes.
#[test]
fn commands() {
    let mut shown = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for line in blocks(&text, "sh").iter().flat_map(|block| block.lines()) {
            let line = line.split(" #").next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().filter(|word| !word.contains("cargo")).collect();
            let start = words.iter().position(|word| *word == "kometa-authd" || *word == "--").filter(|at| {
                // `docker exec NAME /kometa-authd …`, `sudo kometa-authd …`, `cargo run … -- …`: not `systemctl … kometa-authd`.
                words[*at] == "--" || *at == 0 || words[at - 1] == "sudo"
            });
            let Some(start) = start else { continue };
            let args = &words[start + 1..];
            if cfg!(not(feature = "sandbox")) && args.first().is_some_and(|first| ["demo", "sandbox"].contains(first)) {
                skipped(&format!("without the feature sandbox: {line}"));
                continue;
            }
            let parsed = Cli::try_parse_from(["kometa-authd"].iter().chain(args));
            if let Err(error) = parsed {
                assert!(!error.use_stderr(), "{}: {line}\n{error}", document.display());
            }
            shown += 1;
        }
    }
    assert!(shown >= 4, "only {shown} commands found");
}

/// What is shown as YAML can be read as YAML, and so can the files for Docker and Kubernetes.
#[test]
fn yaml() {
    let shown = documents().into_iter().flat_map(|path| blocks(&fs::read_to_string(path).unwrap(), "yaml"));
    let files = fs::read_dir(root().join("docker")).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "yml"));
    for text in shown.chain(files.map(|path| fs::read_to_string(path).unwrap())) {
        for document in text.split("\n---\n") {
            let value = serde_yaml::from_str::<serde_yaml::Value>(document);
            assert!(value.is_ok(), "{value:?} in\n{document}");
        }
    }
}

/// A test that a document names is there: `name` in path.rs.
#[test]
fn named_tests() {
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for (before, after) in text.match_indices("` in ").map(|(at, _)| (&text[..at], &text[at + 5..])) {
            let name = before.rsplit('`').next().unwrap_or_default();
            let path: String = after.chars().take_while(|c| c.is_ascii_alphanumeric() || "/_.-".contains(*c)).collect();
            if Path::new(&path).extension().is_some_and(|extension| extension == "rs") {
                assert!(read(&path).contains(&format!("fn {name}(")), "{}: {name} in {path}", document.display());
            }
        }
    }
}

/// The units differ in what they start, and not in what they allow.
#[test]
fn units_are_equally_locked_down() {
    let fence = |name: &str| {
        let unit = read(&format!("systemd/{name}"));
        let start = unit.find("UMask=").unwrap_or_else(|| panic!("{name} has no UMask="));
        let end = unit[start..].find("\n\n[").map_or(unit.len(), |at| start + at);
        unit[start..end].trim_end().to_owned()
    };
    let first = fence("kometa-authd.service");
    assert!(first.contains("SystemCallFilter="));
    for other in ["kometa-authd@.service", "kometa-authd-refresh.service"] {
        assert_eq!(fence(other), first, "{other}");
    }
}

/// What `docker build` gets has every target that Cargo.toml names: without one of them cargo builds nothing.
#[test]
fn build_context() {
    let ignored = read(".dockerignore");
    let kept: Vec<_> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let mut cargo = std::process::Command::new(env!("CARGO"));
    cargo.args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"]);
    let output = cargo.arg(root().join("Cargo.toml")).output().unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut count = 0;
    for target in metadata["packages"][0]["targets"].as_array().unwrap() {
        // Those in tests/ are found, not named.
        if target["kind"][0] != "test" {
            let path = Path::new(target["src_path"].as_str().unwrap()).strip_prefix(root()).unwrap();
            assert!(kept.iter().any(|kept| path.starts_with(kept)), "{} is left out", path.display());
            count += 1;
        }
    }
    assert!(count > 2, "only {count} targets");
}

/// The newest release in the changelog, where there is one, is this version.
#[test]
fn version() {
    let changelog = read("CHANGELOG.md");
    let mut versions = changelog.lines().filter_map(|line| line.strip_prefix("## [")?.split(']').next());
    assert_eq!(versions.next(), Some("Unreleased"));
    assert!(versions.next().is_none_or(|newest| newest == env!("CARGO_PKG_VERSION")));
}
