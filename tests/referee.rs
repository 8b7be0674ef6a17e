//! `ruamel.yaml`, with which Kometa reads the file, as the judge of every edit.
//!
//! `referee.py` gets each corpus pair and many generated ones in one go: the
//! new text must load to exactly the grant, and to the old data elsewhere.
//! Where Python is missing or the library cannot be installed, the test says
//! on standard error that it skipped.
#![allow(clippy::disallowed_methods, reason = "reads its own files, none of the user's")]

mod common;
#[path = "common/skipped.rs"]
mod skipped;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Case, cases, generated};
use kometa_authd::provider::Key;
use serde_json::{Value, json};
use skipped::skipped;

/// The release that Kometa's requirements named in November 2026.
const RUAMEL: &str = "ruamel.yaml==0.19.1";

/// ruamel.yaml reads what we wrote as what was meant, and nothing else differently than before.
#[test]
fn ruamel_agrees() {
    let Some(python) = python() else {
        skipped("no python3 with ruamel.yaml, and none could be installed");
        return;
    };
    let mut asked: Vec<Value> = cases().iter().filter_map(question).collect();
    assert!(asked.len() > 80, "the corpus is there");
    asked.extend(tampered(&asked[0]));
    asked.extend(generated(400).iter().filter_map(question));
    assert!(asked.len() > 300, "most generated texts can be edited");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/referee.py");
    let mut referee =
        Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python runs");
    let mut input = referee.stdin.take().expect("a pipe");
    input.write_all(Value::from(asked).to_string().as_bytes()).expect("the referee reads");
    drop(input);
    let output = referee.wait_with_output().expect("the referee ends");
    let verdict = String::from_utf8_lossy(&output.stdout);
    eprintln!("{verdict}");
    assert!(output.status.success(), "{verdict}");
    // What Kometa itself cannot read goes unjudged (a tab between two tokens, for one), and is little.
    let unread = verdict.lines().filter(|line| line.starts_with("note: ")).count();
    assert!(unread < 50, "{unread} texts could not be judged");
}

/// The same question with wrong answers: a referee who lets these pass is none.
fn tampered(question: &Value) -> Vec<Value> {
    let plain = json!({
        "name": "tampered", "tampered": true, "provider": "trakt", "once": "pin", "clears": true,
        "block": {"access_token": "12345"}, "old": "trakt:\n  pin: 1\nplex: [a]\n", "new": "",
    });
    assert_eq!(plain.as_object().map(|o| o.len() - 1), question.as_object().map(serde_json::Map::len), "the same keys");
    let wrong = [
        "trakt:\n  pin:\n  authorization:\n    access_token: 12345\nplex: [a]\n",
        "trakt:\n  pin: 1\n  authorization:\n    access_token: '12345'\nplex: [a]\n",
        "trakt:\n  pin:\n  authorization:\n    access_token: '12345'\nplex: [b]\n",
        "trakt:\n  pin:\n  authorization:\n    access_token: '12345'\n    x: y\nplex: [a]\n",
        "trakt:\n  pin:\n",
        "trakt: '",
    ];
    let with = |new: &str| {
        let mut case = plain.clone();
        case["new"] = new.into();
        case
    };
    wrong.into_iter().map(with).collect()
}

/// What the referee is asked about one edit; nothing where it is refused.
fn question(case: &Case) -> Option<Value> {
    let new = case.splice(&case.before).ok()?.text;
    let grant = &case.grant;
    let block = case.provider.keys.iter().filter_map(|key| {
        let value = match key {
            _ if case.empty => Some(Value::Null),
            Key::AccessToken => Some(grant.access_token.expose().into()),
            Key::TokenType => grant.token_type.clone().map(Value::from),
            Key::ExpiresIn => grant.expires_in.map(Value::from),
            Key::RefreshToken => grant.refresh_token.as_ref().map(|token| token.expose().into()),
            Key::Scope => grant.scope.clone().map(Value::from),
            Key::CreatedAt => grant.created_at.map(|at| at.0.into()),
        };
        Some((key.name().to_owned(), value?))
    });
    let block: serde_json::Map<String, Value> = block.collect();
    Some(json!({
        "name": case.name,
        "old": case.before,
        "new": new,
        "provider": case.provider.name,
        "once": case.provider.once_key,
        // A reference stays, as the corpus says.
        "clears": !case.before.contains("<<trakt-pin>>"),
        "block": block,
    }))
}

/// A Python that has ruamel.yaml: the system's, or one of ours below the target folder.
fn python() -> Option<PathBuf> {
    let works = |python: &Path, code: &str| {
        let status = Command::new(python).args(["-c", code]).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let system = PathBuf::from("python3");
    if works(&system, "import ruamel.yaml") {
        return Some(system);
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("referee");
    let own = folder.join("bin/python");
    if !works(&own, "import ruamel.yaml") {
        Command::new(&system).args(["-m", "venv"]).arg(&folder).stdout(Stdio::null()).status().ok()?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", RUAMEL];
        Command::new(&own).args(pip).stdout(Stdio::null()).status().ok()?;
    }
    works(&own, "import ruamel.yaml").then_some(own)
}
