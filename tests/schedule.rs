//! When a token is refreshed: from the data, whatever the data are.
#![cfg(feature = "sandbox")]

mod support;

use kometa_authd::provider::{MAL, Provider, TRAKT};
use kometa_authd::sandbox::Sandbox;
use kometa_authd::token::Grant;
use support::{CLIENT, Home, Running, config_with, mal_section, posts, sandbox, value};

/// What the next refresh's time is for `status`, and how many requests there were, once the daemon
/// has come to rest and was stopped.
fn settled(home: &Home, sandbox: &Sandbox) -> (Option<i64>, usize) {
    // Otherwise the hour at which the test runs would matter.
    let off = ["--kometa-times", "off"];
    let mut command = home.command("run", sandbox);
    command.args(off);
    let daemon = Running::start(command);
    daemon.wait_log(&["next="]);
    let (status, log) = daemon.stop();
    assert!(status.success() && !log.contains("panicked"), "{log}");
    let output = home.output("status", sandbox, &["--json", off[0], off[1]]);
    let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    (all[0]["next_at"].as_i64(), posts(sandbox).len())
}

/// Each lifetime that was seen is refreshed at two thirds less up to a twentieth, and not before:
/// `status` has the time, and the sandbox saw no request.
#[test]
fn from_the_data() {
    for lifetime in [3600, 86_400, 604_800, 7_776_000] {
        let sandbox = sandbox();
        sandbox.set_lifetime(lifetime);
        let grant = sandbox.issue(&TRAKT, CLIENT, lifetime / 10);
        let created = grant.created_at.unwrap().0;
        let home = Home::new(&config_with(&grant));
        let (next, count) = settled(&home, &sandbox);
        let (latest, earliest) = (created + lifetime / 3 * 2, created + lifetime / 3 * 2 - lifetime / 20);
        let month = created + lifetime / 10 + 31 * 86_400;
        let next = next.unwrap();
        assert!(
            (earliest.min(month - 2 * 86_400)..=latest).contains(&next),
            "{lifetime}: {next} of {earliest} to {latest}"
        );
        assert_eq!(count, 0, "{lifetime}");
    }
}

/// A token at nine tenths of its life is refreshed at start, and after a restart nothing is sent again.
#[test]
fn nearly_expired_then_restarted() {
    let sandbox = sandbox();
    sandbox.set_lifetime(36_000);
    let home = Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 32_400)));
    let (first, count) = settled(&home, &sandbox);
    assert_eq!(count, 1);
    let (second, count) = settled(&home, &sandbox);
    assert_eq!(count, 1);
    assert_eq!(first, second, "the jitter was drawn again");
    let output = home.output("refresh", &sandbox, &[]);
    assert_eq!((output.status.code(), posts(&sandbox).len()), (Some(0), 1));
}

/// Numbers that cannot be true cost one refresh at first sight and no more: no panic, no loop, and
/// the next refresh lies ahead and within a month. So do values that are no numbers.
#[test]
fn absurd_numbers() {
    const SAMPLE: (&str, &str) = ("1928374655", "137946258");
    let table = [
        SAMPLE,
        ("-1", "-1"),
        ("0", "0"),
        ("9223372036854775807", "9223372036854775807"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("18446744073709551615", "1763820000"),
        ("1e400", "-1e400"),
        (".nan", ".inf"),
        ("604800", "99999999999"),
        ("604800", ""),
        ("", "1763820000"),
        ("'a week'", "yesterday"),
        ("[REDACTED]", "[REDACTED]"),
        ("'######'", "'######'"),
        ("~", "null"),
        ("2026-11-22", "2026-11-22T10:00:00Z"),
        ("{a: 1}", "[1, 2]"),
        ("0x10", "0o17"),
        ("true", "false"),
    ];
    std::thread::scope(|scope| {
        for (expires_in, created_at) in table {
            scope.spawn(move || {
                let sandbox = sandbox();
                let grant = sandbox.issue(&TRAKT, CLIENT, 60);
                let text =
                    config_with(&grant).replace("expires_in: 604800", &format!("expires_in: {expires_in}")).replace(
                        &format!("created_at: {}", grant.created_at.unwrap().0),
                        &format!("created_at: {created_at}"),
                    );
                let home = Home::new(&text);
                let (next, count) = settled(&home, &sandbox);
                let next = next.unwrap();
                let now = sandbox.now().0;
                assert_eq!(count, 1, "{expires_in} {created_at}");
                assert!(now < next && next < now + 31 * 86_400, "{expires_in} {created_at}: {next}");
                assert_eq!(value(&home.text(), "expires_in"), "604800", "{expires_in} {created_at}");
            });
        }
    });
}

/// The documentation's sample, pasted as it is, is no token of anybody's: one request, and then a
/// person is asked, once.
#[test]
fn the_documentations_sample() {
    let sandbox = sandbox();
    let home = Home::new(
        "trakt:\n  client_id: 33b9a8e5d2\n  client_secret: bb81d4f2c1\n  pin:\n  authorization:\n    # everything below is autofilled by the script\n    access_token: sampleaccesstoken\n    token_type: Bearer\n    expires_in: 1928374655\n    refresh_token: samplerefreshtoken\n    scope: public\n    created_at: 137946258\n",
    );
    let daemon = home.daemon(&sandbox);
    daemon.wait_log(&["ERROR", "config.yml#trakt", "rejected the refresh token", "put a new pin"]);
    let (_, log) = daemon.stop();
    assert_eq!(log.matches("rejected the refresh token").count(), 1, "{log}");
    assert_eq!(posts(&sandbox).len(), 1);
    assert_eq!(home.status(&sandbox)["state"], "needs_a_person");
}

/// A section without any token, one with nothing but nulls and one with placeholders send nothing.
#[test]
fn nothing_to_go_by() {
    let table = [
        (
            "trakt:\n  client_id:\n  client_secret:\n  pin:\n  authorization:\n    access_token:\n    refresh_token:\n",
            "not_set_up",
        ),
        (
            "trakt:\n  client_id: '################'\n  client_secret: xxxxxxxx\n  pin:\n  authorization:\n",
            "not_set_up",
        ),
        (
            "trakt:\n  client_id: id\n  authorization:\n    access_token: '########'\n    refresh_token: '########'\n",
            "needs_a_person",
        ),
        (
            "trakt:\n  client_id: id\n  authorization:\n    access_token: [REDACTED]\n    refresh_token: [REDACTED]\n",
            "needs_a_person",
        ),
        ("trakt:\n  client_id: id\n", "needs_a_person"),
        ("trakt:\n  client_id: id\n  authorization:\n", "needs_a_person"),
    ];
    for (text, state) in table {
        let sandbox = sandbox();
        let home = Home::new(text);
        let daemon = home.daemon(&sandbox);
        daemon.wait_log(&["config.yml#trakt"]);
        let (_, log) = daemon.stop();
        assert_eq!(home.status(&sandbox)["state"], state, "{text}\n{log}");
        assert_eq!(posts(&sandbox).len(), 0, "{text}");
        assert_eq!(home.text(), text);
    }
}

/// A refresh token alone is enough: it is spent at first sight, and the block is filled in.
#[test]
fn refresh_token_alone() {
    let sandbox = sandbox();
    let grant = sandbox.issue(&TRAKT, CLIENT, 0);
    let text = config_with(&grant).replace(grant.access_token.expose(), "");
    let home = Home::new(&text);
    let (_, count) = settled(&home, &sandbox);
    assert_eq!(count, 1);
    let live = sandbox.live(&TRAKT, CLIENT).unwrap();
    assert_eq!(value(&home.text(), "access_token"), live.access_token.expose());
}

fn mal_home(grant: &Grant) -> Home {
    Home::new(&format!("plex:\n  url: http://127.0.0.1\n{}", mal_section(grant)))
}

/// `MyAnimeList` has no `created_at`: the token's own `iat` and `exp` take its place. A fresh one is
/// left alone, one past two thirds is refreshed.
#[test]
fn mal_by_its_claims() {
    for (age, expected) in [(86_400, 0), (25 * 86_400, 1), (40 * 86_400, 1)] {
        let sandbox = sandbox();
        sandbox.set_rules(|rules| rules.refresh_lifetime_s = Some(400 * 86_400));
        let home = mal_home(&sandbox.issue(&MAL, CLIENT, age));
        let (next, count) = settled(&home, &sandbox);
        assert_eq!(count, expected, "age {age}");
        assert!(next.unwrap() > sandbox.now().0 + 86_400);
        if expected == 1 {
            let live = sandbox.live(&MAL, CLIENT).unwrap();
            assert_eq!(value(&home.text(), "access_token"), live.access_token.expose());
            assert!(!home.text().contains("created_at"), "MyAnimeList's block has no such key:\n{}", home.text());
        }
    }
}

/// A token of `MyAnimeList` that says nothing of its age is refreshed at first sight; from then on our
/// own record knows, also after a restart.
#[test]
fn mal_by_our_record() {
    let sandbox = sandbox();
    sandbox.name_next("opaque-access", "opaque-refresh");
    let grant = sandbox.issue(&MAL, CLIENT, 0);
    // So that the next one is opaque, too.
    sandbox.name_next("opaque-access-2", "opaque-refresh-2");
    let home = mal_home(&grant);
    let (first, count) = settled(&home, &sandbox);
    assert_eq!(count, 1);
    assert_eq!(value(&home.text(), "refresh_token"), "opaque-refresh-2");
    assert!(first.unwrap() > sandbox.now().0 + 86_400);
    assert_eq!(settled(&home, &sandbox), (first, 1));
}

/// Both providers in one file are two accounts: each is refreshed with its own endpoint's encoding.
#[test]
fn both_in_one_file() {
    let sandbox = sandbox();
    sandbox.set_rules(|rules| rules.refresh_lifetime_s = Some(400 * 86_400));
    let trakt = config_with(&sandbox.issue(&TRAKT, CLIENT, 8 * 86_400));
    let mal = mal_section(&sandbox.issue(&MAL, CLIENT, 32 * 86_400));
    let home = Home::new(&format!("{trakt}{mal}"));
    let daemon: Running = home.daemon(&sandbox);
    daemon.wait_log(&["config.yml#trakt", "token refreshed"]);
    daemon.wait_log(&["config.yml#mal", "token refreshed"]);
    daemon.stop();
    let of = |provider: &'static Provider| sandbox.live(provider, CLIENT).unwrap();
    assert!(home.text().contains(of(&TRAKT).access_token.expose()));
    assert!(home.text().contains(of(&MAL).access_token.expose()));
    assert_eq!(sandbox.ledger().spent_and_reused(), (2, 0));
}
