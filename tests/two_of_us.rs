//! Two daemons and a one-shot on one file: one request a rotation, and one takes over from the other.
#![cfg(feature = "sandbox")]
#![allow(clippy::disallowed_methods, reason = "the tests play the person and the system")]

mod support;

use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, Instant};

use kometa_authd::provider::TRAKT;
use kometa_authd::sandbox::rules::{Rotation, Rules};
use kometa_authd::sandbox::{Options, Sandbox};
use rustix::process::Signal;
use support::{
    CLIENT, Home, PATIENCE, Running, around, config_with, fault, posts, refresh_token, sandbox, value, wait_posts,
};

/// How soon the other takes over; twice as much as it takes on an idle machine, and the figure is printed.
const SECONDS: Duration = Duration::from_secs(10);

fn start(home: &Home, sandbox: &Sandbox, state: Option<&Path>) -> Running {
    let mut command = home.command("run", sandbox);
    command.args(["--kometa-times", "off"]);
    if let Some(state) = state {
        command.arg("--state-dir").arg(state);
    }
    Running::start(command)
}

fn is_live(home: &Home, sandbox: &Sandbox) -> bool {
    let live = sandbox.live(&TRAKT, CLIENT).unwrap();
    value(&home.text(), "refresh_token") == refresh_token(&live).expose()
}

/// Two daemons follow the same file while one-shots come and go, with one state folder and with two: for
/// each of several rotations there is one request, and none brings a token that was spent.
#[test]
fn one_request_a_rotation() {
    for separate in [false, true] {
        let sandbox = sandbox();
        sandbox.set_lifetime(3);
        let home = Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 60)));
        let before = home.text();
        let other = tempfile::tempdir().unwrap();
        let state = other.path().join("state");
        let daemons = [None, separate.then_some(state.as_path())].map(|state| start(&home, &sandbox, state));
        for rotation in 1..=5 {
            let came = sandbox.wait(PATIENCE, |world| world.ledger.spent_and_reused().0 >= rotation);
            assert!(came, "{}\n{}", daemons[0].log(), daemons[1].log());
            let once = home.output("refresh", &sandbox, &[]);
            assert!(once.status.code() != Some(2), "{}", support::said(&once));
        }
        sandbox.set_lifetime(3600);
        let logs =
            home.wait(|_| sandbox.live(&TRAKT, CLIENT).unwrap().expires_in == Some(3600) && is_live(&home, &sandbox));
        assert_eq!(around(&logs), around(&before));
        for daemon in daemons {
            let (status, log) = daemon.stop();
            assert!(status.success() && !log.contains("ERROR"), "{log}");
        }
        let (spent, reused) = sandbox.ledger().spent_and_reused();
        assert_eq!((posts(&sandbox).len(), reused), (spent, 0), "separate state: {separate}");
    }
}

/// One is killed while the provider has its request and does not answer: the other takes the lock over at
/// once, and the token is refreshed within seconds. With a provider that acted on the first request and
/// keeps the old token for a while, the second request gets the grant as well.
#[test]
fn killed_in_the_middle() {
    for (rotation, what) in [(Rotation::Strict, "hang"), (Rotation::Grace, "late=600000")] {
        let rules = Rules { rotation, ..Rules::default() };
        let sandbox = Sandbox::start(Options { rules, ..Options::default() }).unwrap();
        fault(&sandbox, what);
        let home = Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 8 * 86_400)));
        let first = start(&home, &sandbox, None);
        wait_posts(&sandbox, 1);
        let second = start(&home, &sandbox, None);
        second.wait_log(&["another kometa-authd is at work on this folder"]);
        assert_eq!(posts(&sandbox).len(), 1, "two at a time");
        let since = Instant::now();
        first.kill();
        second.wait_log(&["token refreshed"]);
        eprintln!("{what}: taken over after {} ms", since.elapsed().as_millis());
        assert!(since.elapsed() < SECONDS, "{what}: only after {:?}", since.elapsed());
        assert!(is_live(&home, &sandbox));
        second.stop();
        assert_eq!(posts(&sandbox).len(), 2);
    }
}

/// A daemon that sleeps beside one that is at work follows it: when the first dies at rest, the second has
/// the newest pair and makes the next rotation.
#[test]
fn the_second_follows() {
    let (sandbox, other) = (sandbox(), tempfile::tempdir().unwrap());
    let home = Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 8 * 86_400)));
    let first = start(&home, &sandbox, None);
    first.wait_log(&["token refreshed"]);
    let second = start(&home, &sandbox, Some(&other.path().join("state")));
    second.wait_log(&["found a token in the file"]);
    first.kill();
    let expired = sandbox.issue(&TRAKT, CLIENT, 8 * 86_400);
    home.write(&config_with(&expired));
    second.wait_log(&["token refreshed"]);
    second.stop();
    assert!(is_live(&home, &sandbox));
    assert_eq!(sandbox.ledger().spent_and_reused(), (2, 0));
}

/// A holder of the lock that is frozen in mid-request: the other says whom it waits for, spends nothing,
/// and stops when it is told to; when the first thaws, its request ends as if nothing had been.
#[test]
fn frozen_holder() {
    let sandbox = sandbox();
    fault(&sandbox, "late=3000");
    let home = Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 8 * 86_400)));
    let first = start(&home, &sandbox, None);
    wait_posts(&sandbox, 1);
    first.signal(Signal::STOP);
    let second = start(&home, &sandbox, None);
    second.wait_log(&["config.yml#trakt", "another kometa-authd is at work on this folder, waiting for it"]);
    assert!(second.stop().0.success());
    assert_eq!(posts(&sandbox).len(), 1);
    let third = start(&home, &sandbox, None);
    third.wait_log(&["waiting for it"]);
    first.signal(Signal::CONT);
    first.wait_log(&["token refreshed"]);
    third.wait_log(&["token is valid"]);
    third.stop();
    first.stop();
    assert!(is_live(&home, &sandbox));
    assert_eq!(sandbox.ledger().spent_and_reused(), (1, 0));
    assert_eq!(posts(&sandbox).len(), 1);
}

/// Somebody holds the folder's lock for longer than any request takes: after a minute it is said with its
/// cure and nothing was sent; as soon as the lock is free, the refresh is made, without a restart.
#[test]
fn locked_for_minutes() {
    let sandbox = sandbox();
    let home = Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 8 * 86_400)));
    let folder = std::fs::File::open(home.path()).unwrap();
    rustix::fs::flock(&folder, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let daemon = start(&home, &sandbox, None);
    daemon.wait_log(&["waiting for it"]);
    // It waits for a whole minute before that.
    let line = daemon.wait_log_within(3 * PATIENCE, &["nothing was sent", "keeps the folder locked"]);
    assert!(line.contains("next="), "{line}");
    assert_eq!(posts(&sandbox).len(), 0);
    drop(folder);
    daemon.wait_log(&["token refreshed"]);
    daemon.stop();
    assert!(is_live(&home, &sandbox));
    assert_eq!(sandbox.ledger().spent_and_reused(), (1, 0));
}

/// A pair that one of two can store nowhere is one that the other cannot see: it waits, and does not spend the token
/// again that this pair was given for. As soon as the pair is stored, both have it.
#[test]
fn only_in_memory() {
    let sandbox = sandbox();
    let expired = || config_with(&sandbox.issue(&TRAKT, CLIENT, 8 * 86_400));
    let log = tempfile::NamedTempFile::new().unwrap();
    let command = |home: &Home, name: &str, value: &OsStr| {
        let mut command = home.command("run", &sandbox);
        command.env(name, value);
        Running::start(command)
    };
    let home = Home::new(&expired());
    let daemon = command(&home, "KOMETA_AUTHD_FAULT_LOG", log.path().as_os_str());
    daemon.wait_log(&["token refreshed"]);
    daemon.stop();
    let operations = std::fs::read_to_string(log.path()).unwrap();
    let answer: u32 = operations.lines().find_map(|line| line.strip_suffix(" answer")).unwrap().parse().unwrap();
    let home = Home::new(&expired());
    let first = command(&home, "KOMETA_AUTHD_FAULT", format!("ENOSPC@{}+40", answer + 1).as_ref());
    first.wait_log(&["ERROR", "is only in memory"]);
    let second = start(&home, &sandbox, None);
    second.wait_log(&["config.yml#trakt", "waiting for it"]);
    assert_eq!(posts(&sandbox).len(), 2);
    // Each look uses up a part of the trouble.
    for _ in 0..100 {
        if is_live(&home, &sandbox) {
            break;
        }
        let from = first.log_len();
        first.reload();
        first.wait_log_from(from, &["config.yml"]);
    }
    second.wait_log(&["token is valid"]);
    for daemon in [first, second] {
        assert!(daemon.stop().0.success());
    }
    assert!(is_live(&home, &sandbox));
    assert_eq!((posts(&sandbox).len(), sandbox.ledger().spent_and_reused()), (2, (2, 0)));
}
