//! Any text goes through the edit: no panic, no wrong edit, the same again changes nothing.
//!
//! `cargo +nightly fuzz run splice fuzz/corpus/splice tests/corpus -- -dict=fuzz/yaml.dict -max_len=4096 -timeout=10`

#![no_main]

use kometa_authd::provider::{MAL, PROVIDERS, Provider};
use kometa_authd::splice::{Change, Edit, Reason, splice};
use kometa_authd::token::{Grant, Secret, UnixSeconds};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for provider in PROVIDERS {
        if text.contains(provider.name) {
            edit(text, provider);
        }
    }
});

fn edit(text: &str, provider: &'static Provider) {
    let digits = provider.name == MAL.name;
    let grant = Grant {
        access_token: Secret::new(if digits { "1234567890" } else { "4f3c-access_9e" }),
        token_type: Some("bearer".to_owned()),
        expires_in: Some(604_800),
        refresh_token: Some(Secret::new("refresh: '\"\\ #")),
        scope: Some("public".to_owned()),
        created_at: Some(UnixSeconds(1_763_820_000)),
    };
    for change in [Change::Write(&grant), Change::Empty] {
        let edit = Edit { provider, change, clear_once_key: true };
        match splice(text, &edit) {
            Ok(spliced) => match splice(&spliced.text, &edit) {
                Ok(again) => assert!(again.text == spliced.text, "not the same the second time"),
                Err(refused) => panic!("the second time: {refused}"),
            },
            // Whether libyaml takes a tab at the start of a line depends on the line before it.
            Err(refused) => {
                assert!(!matches!(refused.reason, Reason::CheckFailed(_)) || text.contains('\t'), "{refused}")
            }
        }
    }
}
