//! What an edit does to real shapes of YAML.
//!
//! Each folder of `tests/corpus` is one shape: `before.yml`, and what becomes
//! of it in `after.yml`, or why nothing does in `refused.txt`. A name that
//! starts with `mal-` is `MyAnimeList`'s, one with `empty-` is a logout. The
//! grant is the folder's own `grant.json`, or the provider's beside the folders.
#![allow(clippy::disallowed_methods, reason = "reads its own files, none of the user's")]

mod common;

use std::fs;

use common::{Case, cases};

/// Every before gives its after, byte for byte, or its reason; and the same edit again changes nothing.
#[test]
fn corpus() {
    let cases = cases();
    assert!(cases.len() > 100, "the corpus is there");
    let mut wrong = Vec::new();
    for case in &cases {
        let (name, found) = match case.splice(&case.before) {
            Ok(spliced) => ("after.yml", spliced.text),
            Err(refused) => ("refused.txt", format!("{refused}\n")),
        };
        let path = case.folder.join(name);
        if std::env::var_os("CORPUS_WRITE").is_some() {
            fs::write(&path, &found).expect("the corpus is writable");
        }
        let expected = fs::read_to_string(&path).unwrap_or_else(|error| format!("{error}"));
        if expected != found {
            wrong.push(format!("{}: expected {expected:?}\n    found {found:?}", case.name));
        }
        let same = |text: &str| case.splice(text).is_ok_and(|again| again.text == text && again.replaced.is_empty());
        if name == "after.yml" && !same(&found) {
            wrong.push(format!("{}: not the same the second time", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// Each folder holds one expectation, and each reason of a refusal has a case.
#[test]
fn corpus_is_whole() {
    let reasons = cases().iter().filter_map(Case::refusal).collect::<Vec<_>>().join("\n");
    for part in [
        "no `trakt` section",
        "not a mapping",
        "stands in line",
        "is an alias",
        "merge key",
        "repeats this",
        "`<<reference>>`",
        "block of its own",
        "a tag",
        "a second YAML reader does not accept",
        "larger than a second YAML reader takes",
        "second document",
        "tab",
    ] {
        assert!(reasons.contains(part), "no case is refused because of: {part}");
    }
    for case in cases() {
        let after = case.folder.join("after.yml").exists();
        assert_ne!(after, case.refusal().is_some(), "{}: exactly one of after.yml and refused.txt", case.name);
    }
}
