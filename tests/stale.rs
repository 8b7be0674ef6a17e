//! Copies that somebody took earlier and writes back later: the newest pair returns, a foreign live one
//! stays, and an emptied block stays empty.
#![cfg(feature = "sandbox")]
#![allow(clippy::disallowed_methods, reason = "the tests play the person and the system")]

mod support;

use std::time::Duration;

use kometa_authd::provider::TRAKT;
use kometa_authd::sandbox::Sandbox;
use kometa_authd::token::Grant;
use support::since::Since;
use support::{CLIENT, Home, Running, around, config_with, posts, refresh_token, sandbox, value};

/// What is promised.
const PROMISED: Duration = Duration::from_secs(2);

fn put(home: &Home, by_rename: bool, text: &str) {
    if by_rename { home.replace(text) } else { home.write(text) }
}

/// A daemon at rest, after a rotation; and the config as it was before.
fn rotated(sandbox: &Sandbox) -> (Home, Running, String) {
    let home = Home::in_memory(&config_with(&sandbox.issue(&TRAKT, CLIENT, 8 * 86_400)));
    let stale = home.text();
    let daemon = home.daemon(sandbox);
    daemon.wait_log(&["token refreshed", "next="]);
    (home, daemon, stale)
}

/// Waits until the newest live pair is in the file, within the promised time. The figures are printed.
fn back(home: &Home, sandbox: &Sandbox, since: &Since, daemon: &Running, what: &str) {
    home.wait(|text| value(text, "refresh_token") == live(sandbox));
    let took = since.took(daemon);
    eprintln!("{what}: back after {took}");
    assert!(took.own() < PROMISED, "{what}: only after {took}");
}

fn live(sandbox: &Sandbox) -> String {
    refresh_token(&sandbox.live(&TRAKT, CLIENT).unwrap()).expose().to_owned()
}

/// A writer that loaded before a rotation and writes back after it, with an edit of its own, in place and
/// by rename, with the daemon up: the newest pair is back within two seconds, the edit stays, and who lost
/// is said.
#[test]
fn daemon_up() {
    for by_rename in [false, true] {
        let sandbox = sandbox();
        let (home, daemon, stale) = rotated(&sandbox);
        let edited = format!("{stale}# mine\n");
        let from = daemon.log_len();
        put(&home, by_rename, &edited);
        let since = Since::now(Some(&daemon));
        back(&home, &sandbox, &since, &daemon, if by_rename { "up, by rename" } else { "up, in place" });
        let line = daemon.wait_log_from(from, &["WARN", "a spent token was written back"]);
        assert!(line.contains("Kometa or an editor saved an old copy"), "{line}");
        assert_eq!(around(&home.text()), around(&edited));
        daemon.stop();
        assert_eq!(sandbox.ledger().spent_and_reused(), (1, 0));
    }
}

/// The same with the daemon down, and then started; also the one-shot puts it right.
#[test]
fn daemon_down() {
    for by_rename in [false, true] {
        for once in [false, true] {
            let sandbox = sandbox();
            let (home, daemon, stale) = rotated(&sandbox);
            daemon.stop();
            put(&home, by_rename, &stale);
            let since = Since::now(None);
            if once {
                let refresh = Running::start(home.command("refresh", &sandbox));
                back(&home, &sandbox, &since, &refresh, "down, one-shot");
                let (status, log) = refresh.wait();
                assert!(status.success(), "{log}");
            } else {
                let daemon = home.daemon(&sandbox);
                back(&home, &sandbox, &since, &daemon, "down, started");
                daemon.wait_log(&["a spent token was written back"]);
                daemon.stop();
            }
            assert_eq!(around(&home.text()), around(&stale));
            assert_eq!(sandbox.ledger().spent_and_reused(), (1, 0));
        }
    }
}

/// A backup whose token is several rotations old: each rotation is forced, then the oldest text and the
/// ones between are restored one after the other, and each time the newest pair is back.
#[test]
fn old_backups() {
    let sandbox = sandbox();
    let (home, daemon, first) = rotated(&sandbox);
    let mut backups = vec![first, home.text()];
    for _ in 0..4 {
        assert!(home.output("refresh", &sandbox, &["--force"]).status.success());
        backups.push(home.text());
    }
    backups.pop();
    for (age, backup) in backups.iter().enumerate() {
        put(&home, age % 2 == 0, backup);
        let since = Since::now(Some(&daemon));
        back(&home, &sandbox, &since, &daemon, "a backup");
    }
    daemon.stop();
    assert_eq!(sandbox.ledger().spent_and_reused(), (5, 0));
}

/// The text with a grant in the place of whatever stands in it.
fn with(text: &str, grant: &Grant) -> String {
    let keys = [
        ("access_token", grant.access_token.expose().to_owned()),
        ("refresh_token", refresh_token(grant).expose().to_owned()),
        ("created_at", grant.created_at.unwrap().0.to_string()),
    ];
    keys.iter().fold(text.to_owned(), |text, (key, new)| text.replace(&value(&text, key), new))
}

/// A person authorized anew elsewhere and pasted the pair, newer than ours and of the same client: it is
/// adopted and kept, also over a restart; and when the pair that it took the place of is restored, the
/// person's is put back, because it is the newest.
#[test]
fn foreign_pair() {
    for by_rename in [false, true] {
        let sandbox = sandbox();
        let (home, daemon, _) = rotated(&sandbox);
        let ours = home.text();
        // Made later than ours by the second: the sandbox's clock alone moves on.
        sandbox.advance(5);
        let foreign = sandbox.issue(&TRAKT, CLIENT, 0);
        let pasted = with(&ours, &foreign);
        let from = daemon.log_len();
        put(&home, by_rename, &pasted);
        daemon.wait_log_from(from, &["found a token in the file", "next="]);
        daemon.reload();
        daemon.stop();
        assert_eq!(home.text(), pasted, "a foreign pair was touched");
        let daemon = home.daemon(&sandbox);
        daemon.wait_log(&["token is valid"]);
        assert_eq!(home.text(), pasted, "a foreign pair was touched after a restart");
        home.write(&ours);
        home.wait(|text| value(text, "refresh_token") == refresh_token(&foreign).expose());
        daemon.stop();
        assert_eq!(posts(&sandbox).len(), 1);
    }
}

/// An emptied block is a sign-out: said once, left empty, over a restart and whatever else changes in the
/// file; the pair that comes back is taken again.
#[test]
fn sign_out() {
    let sandbox = sandbox();
    let (home, daemon, _) = rotated(&sandbox);
    let signed_in = home.text();
    let kept: Vec<&str> = signed_in.lines().filter(|line| !line.starts_with("    ")).collect();
    let emptied = kept.join("\n") + "\n";
    home.write(&emptied);
    daemon.wait_log(&["WARN", "the authorization block was emptied"]);
    daemon.wait_log(&["signed out, nothing to do"]);
    let from = daemon.log_len();
    home.replace(&format!("{emptied}# more\n"));
    daemon.reload();
    daemon.stop();
    let daemon = home.daemon(&sandbox);
    daemon.wait_log(&["signed out, nothing to do"]);
    assert_eq!(home.text(), format!("{emptied}# more\n"), "the sign-out was not respected ({from} lines)");
    home.write(&signed_in);
    daemon.wait_log(&["found a token in the file"]);
    daemon.stop();
    assert_eq!(home.text(), signed_in);
    assert_eq!(posts(&sandbox).len(), 1);
}
