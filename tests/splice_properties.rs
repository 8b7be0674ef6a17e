//! What holds for every edit, on configs made up, on the corpus with letters changed, and on any text at all.
#![allow(clippy::disallowed_methods, reason = "reads its own files, none of the user's")]

mod common;

use std::collections::BTreeMap;

use common::generate::{case, reordered};
use common::{Case, cases};
use kometa_authd::provider::{Key, MAL, TRAKT};
use kometa_authd::splice::{Change, Edit, Reason, Spliced, splice};
use kometa_authd::token::{Grant, Secret, UnixSeconds};
use kometa_authd::yaml::Document;
use proptest::prelude::*;
use proptest::sample::Index;

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Bytes outside of the replaced ranges are the old ones, our reader finds the grant in the new text,
    /// the same edit again changes nothing, and what is refused is refused for a reason in the text.
    #[test]
    fn an_edit_is_exact(case in case()) {
        match case.splice(&case.before) {
            Ok(spliced) => {
                prop_assert!(same_outside(&case.before, &spliced));
                prop_assert!(says_the_grant(&case, &spliced.text), "{}", spliced.text);
                let again = case.splice(&spliced.text);
                prop_assert!(again.is_ok_and(|again| again.text == spliced.text && again.replaced.is_empty()));
            }
            Err(refused) => prop_assert!(!matches!(refused.reason, Reason::CheckFailed(_)), "{refused}"),
        }
    }

    /// A comment that stood before stands after: an edit takes values away, and nothing that a person wrote beside them.
    #[test]
    fn comments_stay(case in case()) {
        if let Ok(spliced) = case.splice(&case.before) {
            for comment in ["# between", "# shallow", "# end", "# section", "# é", "# 'c: d'"] {
                let count = |text: &str| text.matches(comment).count();
                prop_assert_eq!(count(&case.before), count(&spliced.text), "{}\n{}", comment, spliced.text);
            }
        }
    }

    /// The order of the block's entries decides nothing but where they stand.
    #[test]
    fn order_does_not_matter((one, other) in reordered()) {
        if let (Ok(new), Ok(new_other)) = (one.splice(&one.before), other.splice(&other.before)) {
            prop_assert_eq!(values(&one, &new.text), values(&other, &new_other.text));
        }
    }

    /// A corpus text with some bytes changed, cut or doubled: never a panic, never a wrong edit, never a secret in a reason.
    #[test]
    fn mutated_corpus(index in any::<Index>(), changes in prop::collection::vec((any::<Index>(), any::<Index>(), 0..4_u8), 1..6)) {
        let cases = cases();
        let case = &cases[index.index(cases.len())];
        let mut chars: Vec<char> = case.before.replace("old", PLANTED).chars().collect();
        for (at, mark, how) in changes {
            let marks: Vec<char> = "\n\r\t :#-?|>&*!%@{}[],'\"\\~<é\u{feff}\u{2028}a1".chars().collect();
            let at = at.index(chars.len() + 1);
            match how {
                0 => chars.insert(at, marks[mark.index(marks.len())]),
                1 if at < chars.len() => chars[at] = marks[mark.index(marks.len())],
                2 if at < chars.len() => drop(chars.remove(at)),
                _ => chars.truncate(at.max(1)),
            }
        }
        check_any(&chars.into_iter().collect::<String>())?;
    }

    /// Any text.
    #[test]
    fn any_text(text in "(trakt|mal|authorization|pin|access_token|hush-|[:{}\\[\\],#&*!|>'\"%@`~<? \\n\\r\\t-]|\\PC){0,80}") {
        check_any(&text)?;
    }
}

/// A value that no message may hold.
const PLANTED: &str = "hush-hush-old";

fn check_any(text: &str) -> Result<(), TestCaseError> {
    let grant = Grant {
        access_token: Secret::new("hush-hush-new"),
        token_type: Some("bearer".to_owned()),
        expires_in: Some(604_800),
        refresh_token: Some(Secret::new("hush-hush: '\"\\ #")),
        scope: Some("public".to_owned()),
        created_at: Some(UnixSeconds(1_763_820_000)),
    };
    for provider in [&TRAKT, &MAL] {
        for change in [Change::Write(&grant), Change::Empty] {
            let edit = Edit { provider, change, clear_once_key: true };
            match splice(text, &edit) {
                Ok(spliced) => {
                    prop_assert!(same_outside(text, &spliced));
                    let again = splice(&spliced.text, &edit);
                    prop_assert!(again.is_ok_and(|again| again.text == spliced.text), "{}", spliced.text);
                }
                Err(refused) => {
                    // Whether libyaml takes a tab at the start of a line depends on the line before it.
                    let failed = matches!(refused.reason, Reason::CheckFailed(_));
                    prop_assert!(!failed || text.contains('\t'), "{} {:?}", refused, text);
                    for shown in [refused.to_string(), format!("{refused:?}")] {
                        prop_assert!(!shown.contains("hush"), "{}", shown);
                    }
                }
            }
        }
    }
    Ok(())
}

/// The ranges are in order, and what lies between them is the same in both texts.
fn same_outside(old: &str, spliced: &Spliced) -> bool {
    let (mut old_rest, mut new_rest) = (old.to_owned(), spliced.text.clone());
    for (old_range, new_range) in spliced.replaced.iter().rev() {
        let (old_after, new_after) = (old_rest.split_off(old_range.end), new_rest.split_off(new_range.end));
        if old_after != new_after {
            return false;
        }
        old_rest.truncate(old_range.start);
        new_rest.truncate(new_range.start);
    }
    old_rest == new_rest
}

fn says_the_grant(case: &Case, text: &str) -> bool {
    let Ok(document) = Document::parse(text) else {
        return false;
    };
    let Some(section) = document.get(&document.root, case.provider.name) else {
        return false;
    };
    let block = document.get(section, "authorization");
    let found = |key| block.and_then(|block| document.get(block, key)).and_then(|node| document.text(node));
    let right = |key, wanted: Option<&str>| match wanted {
        _ if case.empty => found(key).is_none(),
        Some(wanted) => found(key) == Some(wanted),
        None => true,
    };
    let grant = &case.grant;
    let expires_in = grant.expires_in.map(|seconds| seconds.to_string());
    let once = document.get(section, case.provider.once_key);
    right("access_token", Some(grant.access_token.expose()))
        && right("token_type", grant.token_type.as_deref())
        && right("expires_in", expires_in.as_deref())
        && right("refresh_token", grant.refresh_token.as_ref().map(Secret::expose))
        && once.is_none_or(|once| document.is_null(once))
}

/// What the new text says of the grant, as the second reader has it.
fn values(case: &Case, text: &str) -> BTreeMap<&'static str, serde_yaml::Value> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let value: serde_yaml::Value = serde_yaml::from_str(text).expect("it was checked");
    let block = &value[case.provider.name]["authorization"];
    let says = |key: Key| match key {
        Key::AccessToken => true,
        Key::TokenType => case.grant.token_type.is_some(),
        Key::ExpiresIn => case.grant.expires_in.is_some(),
        Key::RefreshToken => case.grant.refresh_token.is_some(),
        Key::Scope => case.grant.scope.is_some(),
        Key::CreatedAt => case.grant.created_at.is_some(),
    };
    let keys = case.provider.keys.iter().filter(|key| says(**key));
    keys.map(|key| (key.name(), block[key.name()].clone())).collect()
}
