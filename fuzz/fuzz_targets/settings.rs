//! Any text goes through the reader: no panic, no value in a problem, and no plan that is absurd.
//!
//! `cargo +nightly fuzz run settings fuzz/corpus/settings tests/corpus -- -dict=fuzz/yaml.dict -max_len=4096 -timeout=10`

#![no_main]

use kometa_authd::decision::{Decision, Facts, Kometa, Urgency, decide};
use kometa_authd::journal::{History, Record};
use kometa_authd::settings::{References, parse};
use kometa_authd::token::UnixSeconds;
use libfuzzer_sys::fuzz_target;

/// 2026-11-22 12:00 UTC.
const NOW: UnixSeconds = UnixSeconds(1_795_348_800);

fuzz_target!(|text: &str| {
    let mut references = References::default();
    references.add([("KOMETA_NAME".to_owned(), "value-of-a-secret".to_owned())]);
    references.add_env_file(text);
    let Ok(settings) = parse(text, &references) else { return };
    for problem in &settings.problems {
        assert!(problem.line >= 1 && problem.column >= 1);
        assert!(!problem.what.contains("value-of-a-secret"));
    }
    for section in &settings.sections {
        let mut history = History::default();
        let facts = |history: &History| {
            let kometa = Kometa::default();
            decide(&Facts { now: NOW, seen: section.seen(), history, kometa, urgency: Urgency::Usual })
        };
        if facts(&history) == Decision::Adopt {
            let held = section.adopted(NOW, 500).expect("what is adopted has a refresh token");
            history.apply(&Record::Held(held));
            assert!(facts(&history) != Decision::Adopt, "adopted twice");
        }
        if let Decision::Wait { until: Some(until), .. } = facts(&history) {
            assert!(until > NOW && until <= NOW.plus(31 * 86_400));
        }
    }
});
