//! Any answer of a provider: no panic, nothing of it is told, and no token is thrown away.
//!
//! The first line is the status and a `Retry-After`, the rest is the body:
//! `cargo +nightly fuzz run reply fuzz/corpus/reply -- -dict=fuzz/reply.dict -max_len=4096 -timeout=10`

#![no_main]

use kometa_authd::backoff::{LONGEST_S, MIN_S, delay_s};
use kometa_authd::journal::sign_in::Code;
use kometa_authd::provider::{PROVIDERS, Provider, TRAKT};
use kometa_authd::refresh::device::{INTERVAL_MAX_S, Polled, classify_poll, parse_code};
use kometa_authd::refresh::link::code_in;
use kometa_authd::refresh::reply::{Answer, Reply, classify, retry_after_s};
use kometa_authd::refresh::request::{Credentials, Endpoint};
use kometa_authd::settings::{References, parse};
use kometa_authd::splice::{Change, Edit, splice};
use kometa_authd::token::{Grant, Secret, UnixSeconds};
use libfuzzer_sys::fuzz_target;

/// 2026-11-22 12:00 UTC.
const NOW: UnixSeconds = UnixSeconds(1_795_348_800);

fuzz_target!(|data: &[u8]| {
    let (head, body) = data.split_at(data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len()));
    let (head, body) = (String::from_utf8_lossy(head), body.get(1..).unwrap_or_default());
    let (status, after) = head.split_once(' ').unwrap_or((&head, ""));
    let answer = answer(status.parse().unwrap_or(200), retry_after_s(after, NOW), body);

    for provider in PROVIDERS {
        let reply = classify(provider, &answer);
        check(provider, &answer, &reply);
        match (&reply, classify_poll(provider, &answer)) {
            (Reply::Grant(grant), Polled::Grant(polled)) => {
                assert!(*grant == polled);
                arrives(grant, provider);
            }
            (Reply::Grant(_), _) | (_, Polled::Grant(_)) => panic!("a grant in one flow and none in the other"),
            _ => {}
        }
    }
    survives(body);
    let credentials = Credentials { client_id: Secret::new("id"), client_secret: None };
    let endpoint = Endpoint { provider: &TRAKT, auth_url: String::new(), redirect_uri: None };
    if let Some(code) = parse_code(&endpoint, &credentials, &answer, NOW) {
        can_be_shown(&code);
    }
    let pasted = Secret::new(String::from_utf8_lossy(body));
    assert!(code_in(&pasted).is_none_or(|code| !code.expose().is_empty()));
});

fn answer(status: u16, retry_after_s: Option<i64>, body: &[u8]) -> Answer {
    Answer { status, retry_after_s, body: body.to_vec() }
}

/// What each reply may be said of, and what may be told of it.
fn check(provider: &Provider, answer: &Answer, reply: &Reply) {
    let (status, accepted) = (answer.status, (200..300).contains(&answer.status));
    let member = |key: &str| serde_json::from_slice::<serde_json::Value>(&answer.body).ok()?.get(key).cloned();
    let error = member("error").and_then(|error| Some(error.as_str()?.to_owned()));
    match reply {
        Reply::Grant(grant) => assert!(accepted && !grant.access_token.expose().is_empty()),
        Reply::Invalid => {
            assert!((400..500).contains(&status) && error.is_some_and(|error| provider.dead_errors.contains(&&*error)))
        }
        Reply::BadClient => assert!((400..500).contains(&status) && error.is_some()),
        Reply::Later { what, retry_after_s, settled } => {
            let token = member("access_token").and_then(|token| Some(token.as_str()?.trim().to_owned()));
            assert!(!accepted || token.is_none_or(|token| token.is_empty()), "a token was thrown away");
            assert!(!settled || ((300..500).contains(&status) && status != 408));
            let wait_s = delay_s(1, *retry_after_s, 604_800, 0.5);
            assert!((MIN_S..=LONGEST_S).contains(&wait_s));
            assert!(retry_after_s.is_none_or(|asked| asked >= answer.retry_after_s.unwrap_or(0) && asked >= 0));
            // The same is said without the body, but for an error's name as RFC 6749 allows it.
            let name = error.filter(|name| name.len() <= 40 && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'_')));
            let named = name.map_or_else(String::new, |name| format!(r#"{{"error":"{name}"}}"#));
            let bodies = [named.as_str(), "<", "{}"];
            assert!(bodies.iter().any(|body| {
                let plain = classify(provider, &self::answer(status, None, body.as_bytes()));
                matches!(plain, Reply::Later { what: plain, .. } if plain == *what)
            }));
        }
    }
}

/// Whatever token comes: the edit takes it, and who reads the file has it again.
fn arrives(grant: &Grant, provider: &'static Provider) {
    let name = provider.name;
    for text in [
        format!("{name}:\n  client_id: id\n  authorization:\n    access_token: old\n    refresh_token: 'old'\n"),
        format!("{name}: {{client_id: id, authorization: {{access_token: \"old\"}}}}\nplex:\n  url: x\n"),
        format!("{name}:\n  client_id: id\n  authorization:\n"),
    ] {
        let edit = Edit { provider, change: Change::Write(grant), clear_once_key: false };
        let spliced = splice(&text, &edit).unwrap_or_else(|refused| panic!("{refused}")).text;
        let settings = parse(&spliced, &References::default()).unwrap_or_else(|problem| panic!("{problem}"));
        let section = &settings.sections[0];
        let read = |written: &Secret, read: &Option<Secret>| {
            // `########` and `<<name>>` are no tokens to Kometa, whoever wrote them.
            let is_one = |c| written.expose().chars().all(|other| other == c);
            let odd = written.expose().contains("<<") || written.expose().chars().next().is_some_and(is_one);
            let odd = odd || written.expose().to_ascii_uppercase().contains("REDACTED");
            assert!(odd || read.as_ref() == Some(written), "not the same when it is read again");
        };
        read(&grant.access_token, &section.access_token);
        if let Some(token) = &grant.refresh_token {
            read(token, &section.refresh_token);
        }
        assert!(grant.expires_in.is_none() || section.expires_in == grant.expires_in);
    }
}

/// Whatever value stands beside the tokens of an answer, and whatever follows it, they are found.
fn survives(value: &[u8]) {
    let Ok(text) = std::str::from_utf8(value) else { return };
    let tokens = r#""access_token":"planted-1","refresh_token":"planted-2""#;
    let mut bodies = vec![format!("{{{tokens}}}{text}")];
    // A value of JSON's grammar, however large, deep or odd.
    if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        for key in ["expires_in", "scope", "token_type", "created_at", "x"] {
            bodies.extend([format!(r#"{{"{key}":{text},{tokens}}}"#), format!(r#"{{{tokens},"{key}":{text}}}"#)]);
        }
    }
    for body in bodies {
        let Reply::Grant(grant) = classify(&TRAKT, &answer(200, None, body.as_bytes())) else { panic!("no grant") };
        assert!(grant.access_token.expose() == "planted-1");
        assert!(grant.refresh_token.is_some_and(|token| token.expose() == "planted-2"));
    }
}

/// What a person and a terminal are shown is short and plain, and what is waited for comes.
fn can_be_shown(code: &Code) {
    let plain = |text: &str| text.len() <= 200 && text.bytes().all(|byte| byte.is_ascii_graphic());
    assert!(plain(&code.user_code) && !code.user_code.is_empty() && plain(&code.page));
    assert!(code.link().starts_with("https://") || code.link().starts_with("http://"));
    assert!((1..=INTERVAL_MAX_S).contains(&code.interval_s) && code.poll_at == NOW.plus(code.interval_s));
    assert!(code.expires_at > NOW && code.expires_at <= NOW.plus(3600));
}
