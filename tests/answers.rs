//! What the provider answers, and what the daemon makes of it: each fault of the sandbox, over the wire.
#![cfg(feature = "sandbox")]
#![allow(clippy::disallowed_methods, reason = "the tests play the person and the system")]

mod support;

use kometa_authd::provider::{MAL, TRAKT};
use kometa_authd::sandbox::rules::{Client, DeadAnswer, Rotation};
use kometa_authd::sandbox::{Options, Sandbox};
use kometa_authd::token::Secret;
use support::{
    CLIENT, CLIENT_SECRET, Home, config_with, fault, link, mal_section, posts, program, refresh_token, said, sandbox,
    value, wait_posts,
};

/// A token of an hour that is due, but not so old that its end is near.
fn due(sandbox: &Sandbox) -> Home {
    sandbox.set_lifetime(3600);
    Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 2500)))
}

/// The file has the pair that the provider takes.
fn assert_in_file(home: &Home, sandbox: &Sandbox, row: &str) {
    let live = sandbox.live(&TRAKT, CLIENT).expect(row);
    let text = home.text();
    assert_eq!(value(&text, "access_token"), live.access_token.expose(), "{row}");
    assert_eq!(value(&text, "refresh_token"), refresh_token(&live).expose(), "{row}");
}

/// Every answer that proves nothing about the token: it is said in a sentence, nothing is written, and
/// the next attempt (asked for with SIGHUP) gets the token as if nothing had been.
#[test]
fn try_again() {
    const FAILED: &str = "refresh failed, trying again";
    const UNKNOWN: &str = "no grant came back";
    let table = [
        ("500", UNKNOWN, "the provider has trouble (HTTP 500)"),
        ("502", UNKNOWN, "the provider has trouble (HTTP 502)"),
        ("5xx", UNKNOWN, "the provider has trouble (HTTP 503)"),
        ("408", UNKNOWN, "HTTP 408"),
        ("403-html", FAILED, "refused before it reached the provider (HTTP 403)"),
        ("404", FAILED, "HTTP 404"),
        ("challenge", UNKNOWN, "a web page in the place of a grant"),
        ("429", FAILED, "too many requests (HTTP 429)"),
        ("429/json", FAILED, "too many requests (HTTP 429)"),
        ("429/html", FAILED, "too many requests (HTTP 429)"),
        ("301", FAILED, "a redirect to elsewhere (HTTP 301), not followed"),
        ("302", FAILED, "a redirect to elsewhere (HTTP 302), not followed"),
        ("303", FAILED, "a redirect to elsewhere (HTTP 303), not followed"),
        ("307", FAILED, "a redirect to elsewhere (HTTP 307), not followed"),
        ("308", FAILED, "a redirect to elsewhere (HTTP 308), not followed"),
        ("huge", UNKNOWN, "an answer of more than 64 KiB"),
        ("garbage", UNKNOWN, "invalid HTTP version parsed"),
        ("drop-before", UNKNOWN, "connection closed before message completed"),
    ];
    std::thread::scope(|scope| {
        for (row, sentence, why) in table {
            scope.spawn(move || {
                let sandbox = sandbox();
                fault(&sandbox, row);
                let home = due(&sandbox);
                let before = home.text();
                let daemon = home.daemon(&sandbox);
                let line = daemon.wait_log(&["WARN", "config.yml#trakt"]);
                assert!(line.contains(sentence) && line.contains(why), "{row}: {line}");
                assert!(line.contains("attempt=1") && line.contains("next="), "{row}: {line}");
                assert_eq!(home.text(), before, "{row}");
                let status = home.status(&sandbox);
                assert_eq!((&status["state"], &status["attempts"]), (&"degraded".into(), &1.into()), "{row}");
                daemon.reload();
                daemon.wait_log(&["token refreshed"]);
                let (_, log) = daemon.stop();
                assert_in_file(&home, &sandbox, row);
                assert_eq!(sandbox.ledger().spent_and_reused(), (1, 0), "{row}: {log}");
                assert_eq!(home.status(&sandbox)["state"], "healthy", "{row}");
            });
        }
    });
}

/// The provider acted, and its answer was lost: the same token is tried again, and when it is refused the
/// log says what happened, and what a person must do. A new PIN heals it. The PIN is gone from the file.
#[test]
fn answer_lost() {
    std::thread::scope(|scope| {
        for row in ["drop-after", "truncate", "reset", "lost=502", "padded=100000"] {
            scope.spawn(move || {
                let sandbox = sandbox();
                fault(&sandbox, row);
                let home = due(&sandbox);
                let daemon = home.daemon(&sandbox);
                daemon.wait_log(&["WARN", "no grant came back, trying the same token again"]);
                daemon.reload();
                let line = daemon.wait_log(&["ERROR", "the answer to an earlier refresh was lost on the way"]);
                assert!(line.contains("put a new pin"), "{row}: {line}");
                let output = home.output("status", &sandbox, &[]);
                assert_eq!(output.status.code(), Some(2), "{row}: {}", said(&output));
                home.write(&home.text().replace("pin:", &format!("pin: {}", sandbox.pin().expose())));
                daemon.wait_log(&["config.yml#trakt", "authorized, new pair is in the file"]);
                let (_, log) = daemon.stop();
                assert_in_file(&home, &sandbox, row);
                assert!(home.text().contains("\n  pin:\n"), "{row}: the PIN is still there:\n{}", home.text());
                assert_eq!(posts(&sandbox).len(), 3, "{row}: {log}");
            });
        }
    });
}

/// A provider that keeps the old token until the new one is used forgives a lost answer: the second
/// attempt gets a pair, and nobody is asked for anything.
#[test]
fn answer_lost_with_grace() {
    let sandbox = sandbox();
    sandbox.set_rules(|rules| rules.rotation = Rotation::Grace);
    fault(&sandbox, "drop-after");
    let home = due(&sandbox);
    let daemon = home.daemon(&sandbox);
    daemon.wait_log(&["no grant came back"]);
    daemon.reload();
    daemon.wait_log(&["token refreshed"]);
    let (_, log) = daemon.stop();
    assert!(!log.contains("ERROR"), "{log}");
    assert_in_file(&home, &sandbox, "grace");
}

/// A connection that is refused was never used: said as such, and made up for as soon as it works.
#[test]
fn refused_connection() {
    let sandbox = sandbox();
    let home = due(&sandbox);
    sandbox.refuse_connections();
    let daemon = home.daemon(&sandbox);
    daemon.wait_log(&["WARN", "refresh failed, trying again", "connection refused"]);
    sandbox.accept_connections();
    daemon.reload();
    daemon.wait_log(&["token refreshed"]);
    daemon.stop();
    assert_in_file(&home, &sandbox, "refused");
    assert_eq!(posts(&sandbox).len(), 1);
}

/// Without anybody's help the next attempt comes by itself, later each time, and never two within a
/// second, however often somebody asks: the sandbox's own times are compared.
#[test]
fn paced() {
    let sandbox = sandbox();
    sandbox.set_lifetime(120);
    let home = Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 200)));
    fault(&sandbox, "503@3");
    let daemon = home.daemon(&sandbox);
    daemon.wait_log(&["HTTP 503"]);
    while posts(&sandbox).len() < 3 {
        daemon.reload();
        let seen = posts(&sandbox).len();
        wait_posts(&sandbox, seen + 1);
    }
    daemon.wait_log(&["token refreshed"]);
    daemon.stop();
    let times: Vec<i64> = posts(&sandbox).iter().map(|post| post.at_ms).collect();
    assert_eq!(times.len(), 4);
    // A second when sent; what the network and a busy machine add to either end is not ours.
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] > 700), "{times:?}");
    assert!(times[3] - times[2] > 1500, "the last came by itself, after the backoff: {times:?}");
}

/// `Retry-After` is kept to, also when somebody asks with SIGHUP in between.
#[test]
fn retry_after() {
    let sandbox = sandbox();
    let home = due(&sandbox);
    fault(&sandbox, "429=3");
    let daemon = home.daemon(&sandbox);
    daemon.wait_log(&["too many requests"]);
    daemon.reload();
    daemon.wait_log(&["token refreshed"]);
    daemon.stop();
    let times: Vec<i64> = posts(&sandbox).iter().map(|post| post.at_ms).collect();
    assert!(times.len() == 2 && times[1] - times[0] >= 3000, "{times:?}");
}

/// A redirect with the tokens in its body is not followed: the other server hears nothing.
#[test]
fn redirect_goes_nowhere() {
    let (sandbox, other) = (sandbox(), Sandbox::start(Options::default()).unwrap());
    let home = due(&sandbox);
    fault(&sandbox, &format!("307={}/oauth/token", other.url()));
    let output = home.output("refresh", &sandbox, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("not followed"), "{}", said(&output));
    assert_eq!((posts(&sandbox).len(), other.requests().len()), (1, 0));
}

/// Refused credentials are a person's matter, said once; corrected ones are tried at once, without a
/// restart.
#[test]
fn wrong_credentials() {
    let sandbox = sandbox();
    let known = Client { id: CLIENT.to_owned(), secret: Some(Secret::new(CLIENT_SECRET)), redirect_uri: None };
    sandbox.set_rules(|rules| rules.clients = vec![known]);
    let home = due(&sandbox);
    let right = home.text();
    home.write(&right.replace(CLIENT_SECRET, "mistyped"));
    let daemon = home.daemon(&sandbox);
    let line = daemon.wait_log(&["ERROR", "does not know this client_id or client_secret"]);
    assert!(line.contains("compare both with the application's page"), "{line}");
    let output = home.output("status", &sandbox, &[]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    // Any other edit does not make it try again.
    home.replace(&right.replace(CLIENT_SECRET, "mistyped").replace("cache: true", "cache: false"));
    home.replace(&right);
    daemon.wait_log(&["token refreshed"]);
    daemon.stop();
    assert_in_file(&home, &sandbox, "credentials");
    let statuses: Vec<_> = posts(&sandbox).iter().map(|post| post.status).collect();
    assert_eq!(statuses, [Some(401), Some(200)]);
}

/// A dead token is a person's matter, whichever way the provider says it; said once, asked about once,
/// and healed by a new PIN.
#[test]
fn dead_token() {
    for dead in [DeadAnswer::InvalidGrant, DeadAnswer::Unauthorized] {
        let sandbox = sandbox();
        sandbox.set_rules(|rules| rules.dead = dead);
        sandbox.set_lifetime(3600);
        let grant = sandbox.issue(&TRAKT, CLIENT, 2500);
        assert!(sandbox.revoke(refresh_token(&grant)));
        let home = Home::new(&config_with(&grant));
        let before = home.text();
        let daemon = home.daemon(&sandbox);
        let line = daemon.wait_log(&["ERROR", "rejected the refresh token"]);
        assert!(line.contains("put a new pin") && !line.contains("lost"), "{line}");
        assert_eq!(home.text(), before, "nothing may be written for it");
        home.write(&before.replace("pin:", &format!("pin: '{}'", sandbox.pin().expose())));
        daemon.wait_log(&["authorized"]);
        let (_, log) = daemon.stop();
        assert_eq!(log.matches("rejected the refresh token").count(), 1, "{log}");
        assert_eq!(posts(&sandbox).len(), 2, "{log}");
        assert_in_file(&home, &sandbox, "dead");
    }
}

/// `MyAnimeList` says `invalid_request` of a dead token and of a dead code: a person is asked at once and
/// told once, the pair stays in the file, and the address that the link ends on heals it.
#[test]
fn dead_token_of_mal() {
    let sandbox = sandbox();
    sandbox.set_rules(|rules| rules.dead = DeadAnswer::InvalidRequest);
    let grant = sandbox.issue(&MAL, CLIENT, 40 * 86_400);
    assert!(sandbox.revoke(refresh_token(&grant)));
    let home = Home::new(&mal_section(&grant));
    let before = home.text();
    let daemon = home.daemon(&sandbox);
    let line = daemon.wait_log(&["ERROR", "config.yml#mal", "open the link"]);
    assert!(line.contains("the provider rejected the refresh token"), "{line}");
    assert_eq!(home.output("status", &sandbox, &[]).status.code(), Some(2));
    assert_eq!((home.text(), posts(&sandbox).len()), (before.clone(), 1));
    let paste = |address: &str| home.replace(&before.replace("localhost_url:", &format!("localhost_url: {address}")));
    paste("http://localhost/?code=of-yesterday");
    daemon.wait_log(&["ERROR", "rejected the pin or address"]);
    paste(&sandbox.authorize(&link(&line)).unwrap());
    daemon.wait_log(&["authorized, new pair is in the file"]);
    let (_, log) = daemon.stop();
    assert_eq!(posts(&sandbox).len(), 3, "{log}");
    assert_eq!(value(&home.text(), "refresh_token"), refresh_token(&sandbox.live(&MAL, CLIENT).unwrap()).expose());
}

/// A good token that the provider calls dead on a bad day is not thrown away: a person is asked, and the
/// next attempt (asked for with SIGHUP) gets a new pair with it.
#[test]
fn wrongly_called_dead() {
    let sandbox = sandbox();
    fault(&sandbox, "invalid-grant");
    let home = due(&sandbox);
    let before = home.text();
    let daemon = home.daemon(&sandbox);
    daemon.wait_log(&["ERROR", "rejected the refresh token"]);
    assert_eq!(home.text(), before);
    daemon.reload();
    daemon.wait_log(&["token refreshed"]);
    daemon.stop();
    assert_in_file(&home, &sandbox, "wrongly called dead");
    assert_eq!(sandbox.ledger().spent_and_reused(), (1, 0));
}

/// A PIN that was used before, is too old or was never one is refused once, said, and not sent again, also
/// after a restart; the token that is there goes on.
#[test]
fn bad_pin() {
    for kind in ["used", "expired", "unknown"] {
        let sandbox = sandbox();
        let pin = if kind == "unknown" { Secret::new("00000000") } else { sandbox.pin() };
        let with_pin = |text: &str| text.replace("pin:", &format!("pin: '{}'", pin.expose()));
        match kind {
            "used" => {
                let other = Home::new(&with_pin(&config_with(&sandbox.issue(&TRAKT, CLIENT, 60))));
                assert_eq!(other.output("refresh", &sandbox, &[]).status.code(), Some(0));
                assert!(!other.text().contains(pin.expose()), "the PIN is still there");
            }
            "expired" => sandbox.advance(601),
            _ => {}
        }
        let (grant, before) = (sandbox.issue(&TRAKT, CLIENT, 60), posts(&sandbox).len());
        let home = Home::new(&with_pin(&config_with(&grant)));
        let mut log = String::new();
        for _ in 0..2 {
            let daemon = home.daemon(&sandbox);
            daemon.wait_log(&["config.yml#trakt", "next="]);
            let (status, said) = daemon.stop();
            assert!(status.success());
            log += &said;
        }
        assert_eq!(log.matches("rejected the pin or address").count(), 1, "{kind}: {log}");
        let refused = posts(&sandbox).split_off(before);
        assert_eq!((refused.len(), refused[0].grant_type.as_deref()), (1, Some("authorization_code")), "{kind}");
        assert_eq!(home.status(&sandbox)["state"], "healthy", "{kind}");
        assert!(sandbox.is_live(refresh_token(&grant)), "{kind}");
    }
}

/// Answers that lack something or say it oddly are taken for what they are worth: one request, the pair is
/// in the file, and the next refresh lies ahead, neither at once nor years away.
#[test]
fn odd_grants() {
    let table = [
        "no-scope",
        "no-created_at",
        "no-token_type",
        "no-expires_in",
        "token_type=mac",
        "expires_in=0",
        "expires_in=-1",
        "expires_in=99999999999",
        "expires_in=\"3600\"",
        "expires_in=soon",
        "expires_in=3600.5",
        "created_at=0",
        "created_at=-5",
        "created_at=1700000000",
        "created_at=99999999999",
        "created_at=now",
        "scope=",
        "scope=null",
        "refresh_token=null",
        "no-refresh_token",
    ];
    std::thread::scope(|scope| {
        for row in table {
            scope.spawn(move || {
                let sandbox = sandbox();
                fault(&sandbox, &format!("{row}@always"));
                let home = due(&sandbox);
                let old = value(&home.text(), "refresh_token");
                let daemon = home.daemon(&sandbox);
                daemon.wait_log(&["token refreshed"]);
                let (_, log) = daemon.stop();
                let count = posts(&sandbox).len();
                assert_eq!(count, 1, "{row}: {count} requests:\n{log}");
                let (next, now) = (home.status(&sandbox)["next_at"].as_i64().unwrap(), sandbox.now().0);
                assert!(now + 60 < next && next < now + 31 * 86_400, "{row}: {next} at {now}");
                if row.contains("refresh_token") {
                    // RFC 6749 section 6: where no new one comes, the old one stays.
                    assert_eq!(value(&home.text(), "refresh_token"), old, "{row}");
                } else {
                    assert_in_file(&home, &sandbox, row);
                }
            });
        }
    });
}

/// Every request carries our name and version, and what facts say of Trakt's body; a proxy of the
/// environment is not asked for an address on this machine.
#[test]
fn what_is_sent() {
    let sandbox = sandbox();
    let home = due(&sandbox);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://{}", nobody.local_addr().unwrap());
    nobody.set_nonblocking(true).unwrap();
    let mut command = home.command("refresh", &sandbox);
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env(name, &proxy);
    }
    let output = command.env_remove("NO_PROXY").env_remove("no_proxy").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(nobody.accept().is_err(), "the proxy was asked");
    let post = &posts(&sandbox)[0];
    let name = format!("kometa-authd/{}", env!("CARGO_PKG_VERSION"));
    assert_eq!((post.user_agent.as_deref(), post.path.as_str()), (Some(name.as_str()), "/oauth/token"));
    assert_eq!((post.grant_type.as_deref(), post.client_id.as_deref()), (Some("refresh_token"), Some(CLIENT)));
    assert!(post.has_client_secret);
}

/// An application without a secret ("Not issued") is refreshed without one.
#[test]
fn without_client_secret() {
    let sandbox = sandbox();
    let home = due(&sandbox);
    home.write(&home.text().replace(CLIENT_SECRET, ""));
    let output = home.output("refresh", &sandbox, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(!posts(&sandbox)[0].has_client_secret);
    assert_in_file(&home, &sandbox, "no secret");
}

/// A certificate file that is none, or is not there, is named at start in one sentence, and not only when
/// the first refresh is due.
#[test]
fn unusable_certificates() {
    let sandbox = sandbox();
    let home = due(&sandbox);
    let garbage = home.path().join("garbage.pem");
    std::fs::write(&garbage, "no certificate\n").unwrap();
    for (path, why) in [
        (garbage, "it holds no certificate"),
        (home.path().join("absent.pem"), "it does not exist"),
        (home.path().to_owned(), "it is a folder"),
    ] {
        for name in ["run", "refresh"] {
            let output = home.output(name, &sandbox, &["--ca-file", path.to_str().unwrap()]);
            assert_eq!(output.status.code(), Some(64));
            let sentence = format!("kometa-authd: --ca-file {} cannot be used: {why}\n", path.display());
            assert_eq!(said(&output), sentence);
        }
    }
    assert_eq!(posts(&sandbox).len(), 0);
}

/// A server that nobody vouches for gets no request: the handshake fails, which is said, and nothing was
/// sent that could be lost.
#[test]
fn no_handshake() {
    let sandbox = sandbox();
    let home = due(&sandbox);
    let url = sandbox.url().replace("http:", "https:");
    let mut command = program();
    let output = command.args(["refresh", "--trakt-auth-url", &url, "--config"]).arg(&home.config).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("refresh failed, trying again"), "{}", said(&output));
    assert_eq!(posts(&sandbox).len(), 0);
}
