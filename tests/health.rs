//! `status` and `healthcheck`: from the state folder and the file alone.
#![cfg(feature = "sandbox")]
#![allow(clippy::disallowed_methods, reason = "the tests play the person and the system")]

mod support;

use std::os::unix::fs::FileExt as _;

use kometa_authd::provider::TRAKT;
use rustix::process::Signal;
use serde_json::Value;
use support::{CLIENT, Home, config_with, refresh_token, said, sandbox};

const DAY_S: i64 = 86_400;

fn documented() -> Vec<String> {
    let text = include_str!("../docs/status.md");
    let fields = text.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()));
    fields.collect()
}

/// `status --json` has the documented fields and no others, at an account that is well and at one that is not.
#[test]
fn documented_fields() {
    let sandbox = sandbox();
    let grant = sandbox.issue(&TRAKT, CLIENT, 0);
    let home = Home::new(&config_with(&grant));
    let mut expected = documented();
    expected.sort();
    let check = |status: &Value| {
        let mut fields: Vec<String> = status.as_object().unwrap().keys().cloned().collect();
        fields.extend(status["problems"].as_array().unwrap().iter().flat_map(|problem| {
            problem.as_object().unwrap().keys().map(|field| format!("problems[].{field}")).collect::<Vec<_>>()
        }));
        fields.sort();
        let inner = |field: &String| !field.starts_with("problems[]") || !status["problems"][0].is_null();
        let expected: Vec<_> = expected.iter().filter(|field| inner(field)).cloned().collect();
        assert_eq!(fields, expected);
    };
    let status = home.status(&sandbox);
    check(&status);
    assert_eq!((status["daemon"].as_str(), status["event"].as_str()), (Some("not running"), Some("scheduled")));
    let old = sandbox.issue(&TRAKT, CLIENT, 8 * DAY_S);
    assert!(sandbox.revoke(refresh_token(&old)));
    home.write(&config_with(&old));
    home.age();
    let daemon = home.daemon(&sandbox);
    daemon.wait_log(&["rejected the refresh token"]);
    let status = home.status(&sandbox);
    check(&status);
    assert_eq!((status["daemon"].as_str(), status["state"].as_str()), (Some("running"), Some("needs_a_person")));
    assert_eq!(status["problems"][0]["event"], "rejected");
    assert!(status["daemon_since"].as_i64().is_some_and(|at| (sandbox.now().0 - at) < 120));
}

/// A healthy daemon is healthy in silence; one that is gone is not, however it went; nor is a config that cannot be
/// read, or an account that waits for a person.
#[test]
fn healthcheck() {
    let sandbox = sandbox();
    let text = config_with(&sandbox.issue(&TRAKT, CLIENT, 0));
    let home = Home::new(&text);
    let health = || {
        let output = home.output("healthcheck", &sandbox, &[]);
        (output.status.code(), said(&output))
    };
    let (code, why) = health();
    assert!(code == Some(1) && why.contains("no daemon is running"), "{why}");
    assert_eq!(home.names(), ["config.yml"]);
    let daemon = home.daemon(&sandbox);
    daemon.wait_log(&["found a token"]);
    assert_eq!(health(), (Some(0), String::new()));
    let second = home.daemon(&sandbox);
    second.wait_log(&["token is valid"]);
    daemon.kill();
    // The other one is still there.
    assert_eq!(health(), (Some(0), String::new()));
    home.write("trakt:\n  client_id: \"\n");
    let (code, why) = health();
    assert!(code == Some(1) && why.starts_with(&home.config.display().to_string()), "{why}");
    assert_eq!(why.lines().count(), 1);
    home.write(&text);
    second.stop();
    let (code, why) = health();
    assert!(code == Some(1) && why.contains("no daemon is running"), "{why}");
}

/// An account that waits for a person is not well, and the one sentence says which, why and what to do.
#[test]
fn needs_a_person() {
    let sandbox = sandbox();
    let dead = sandbox.issue(&TRAKT, CLIENT, 8 * DAY_S);
    assert!(sandbox.revoke(refresh_token(&dead)));
    let home = Home::new(&config_with(&dead));
    let daemon = home.daemon(&sandbox);
    daemon.wait_log(&["rejected the refresh token"]);
    let output = home.output("healthcheck", &sandbox, &[]);
    let why = String::from_utf8(output.stdout).unwrap();
    assert_eq!((output.status.code(), why.lines().count()), (Some(1), 1), "{why}");
    for part in ["config.yml#trakt", "rejected the refresh token", "authorize again"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    let text = String::from_utf8(home.output("status", &sandbox, &[]).stdout).unwrap();
    assert!(text.contains("the daemon is running, since") && text.contains("what to do"), "{text}");
}

/// A daemon that does not act: it is frozen while a refresh is long overdue. The check says so, `status`
/// shows it, and both are content as soon as it goes on. That it has been running for an hour is written where
/// it says so itself, for the test not to last so long.
#[test]
fn overdue() {
    let sandbox = sandbox();
    let home = Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 0)));
    let daemon = home.daemon(&sandbox);
    daemon.wait_log(&["found a token"]);
    daemon.signal(Signal::STOP);
    home.write(&config_with(&sandbox.issue(&TRAKT, CLIENT, 6 * DAY_S)));
    home.age();
    let health = || {
        let output = home.output("healthcheck", &sandbox, &[]);
        (output.status.code(), said(&output))
    };
    // One that has just started gets its time.
    assert_eq!(health(), (Some(0), String::new()));
    let alive = home.state().join("config.yml#alive");
    let file = std::fs::File::options().write(true).open(alive).unwrap();
    file.write_all_at(format!("{:<20}", sandbox.now().0 - 3600).as_bytes(), 0).unwrap();
    let (code, why) = health();
    assert!(code == Some(1) && why.contains("due for more than 5 minutes and is not done"), "{why}");
    assert_eq!((&home.status(&sandbox)["overdue"], why.lines().count()), (&Value::Bool(true), 1));
    daemon.signal(Signal::CONT);
    daemon.wait_log(&["token refreshed"]);
    assert_eq!(health(), (Some(0), String::new()));
    assert_eq!(home.status(&sandbox)["overdue"], false);
    daemon.stop();
}

/// A state folder that somebody cleared away does not make the daemon invisible for good.
#[test]
fn cleared_state_folder() {
    let sandbox = sandbox();
    let text = config_with(&sandbox.issue(&TRAKT, CLIENT, 0));
    let home = Home::new(&text);
    let daemon = home.daemon(&sandbox);
    daemon.wait_log(&["found a token"]);
    std::fs::remove_dir_all(home.state()).unwrap();
    let lines = daemon.log_len();
    home.replace(&text.replace("# the server", "# my server"));
    daemon.reload();
    daemon.wait_log_from(lines, &["config.yml#trakt"]);
    assert_eq!(home.status(&sandbox)["daemon"], "running");
}
