//! A pretend Kometa beside the daemon: its runs are not disturbed, its own refreshes are followed, and
//! what is known to go wrong between the two is said at start.
#![cfg(feature = "sandbox")]
#![allow(clippy::disallowed_methods, reason = "the tests play the person and the system")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, SystemTime};

use kometa_authd::provider::TRAKT;
use kometa_authd::sandbox::rules::{Rotation, Rules};
use kometa_authd::sandbox::{Options, Sandbox};
use kometa_authd::token::{Grant, Secret};
use support::{
    CLIENT, CLIENT_SECRET, Home, Running, config_with, mal_section, refresh_token, said, sandbox, swapped, value,
};

/// Lifetime of the access tokens: two thirds of it are over in 8 seconds.
const LIFETIME_S: i64 = 12;
/// A run ends at this age of its token: long after the refresh was due, and before the token ends.
const RUN_ENDS_AT_S: i64 = 9;

/// Kometa's run: the pair that it read at its start, and nothing of what is written later.
struct Kometa<'a> {
    home: &'a Home,
    sandbox: &'a Sandbox,
    access: String,
    refresh: String,
    created_at: i64,
    refreshes: u32,
}

impl<'a> Kometa<'a> {
    fn start(home: &'a Home, sandbox: &'a Sandbox) -> Self {
        std::fs::create_dir_all(home.path().join("logs")).unwrap();
        let text = home.text();
        let of = |key| value(&text, key);
        let mut kometa = Self {
            home,
            sandbox,
            access: of("access_token"),
            refresh: of("refresh_token"),
            created_at: of("created_at").parse().unwrap(),
            refreshes: 0,
        };
        kometa.log();
        kometa
    }

    fn log(&mut self) {
        let path = self.home.path().join("logs/meta.log");
        let mut log = std::fs::File::options().create(true).append(true).open(path).unwrap();
        writeln!(log, "| Processing |").unwrap();
    }

    /// A request of Kometa's own; the status and the body.
    fn request(&self, head: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.sandbox.address()).unwrap();
        write!(stream, "{head} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Kometa\r\nConnection: close\r\n").unwrap();
        if body.is_empty() {
            write!(stream, "Authorization: Bearer {}\r\ntrakt-api-key: {CLIENT}\r\n\r\n", self.access).unwrap();
        } else {
            write!(stream, "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// A data call: on a 401 it refreshes with what it read at the start, and saves the file in place. False
    /// where the run has lost Trakt.
    fn call(&mut self) -> bool {
        self.log();
        if self.request("GET /users/settings", "").0 == 200 {
            return true;
        }
        let body = serde_json::json!({
            "refresh_token": self.refresh, "client_id": CLIENT, "client_secret": CLIENT_SECRET,
            "redirect_uri": "urn:ietf:wg:oauth:2.0:oob", "grant_type": "refresh_token",
        });
        let (status, answer) = self.request("POST /oauth/token", &body.to_string());
        if status != 200 {
            return false;
        }
        let new = Grant::from_json(answer.as_bytes()).unwrap();
        let text = self.home.text();
        let old = Grant {
            access_token: Secret::new(value(&text, "access_token")),
            refresh_token: Some(Secret::new(value(&text, "refresh_token"))),
            created_at: value(&text, "created_at").parse().ok().map(kometa_authd::token::UnixSeconds),
            ..new.clone()
        };
        self.home.write(&swapped(&text, &old, &new));
        new.access_token.expose().clone_into(&mut self.access);
        refresh_token(&new).expose().clone_into(&mut self.refresh);
        self.created_at = new.created_at.unwrap().0;
        self.refreshes += 1;
        true
    }

    /// Works until its token has that age, a few calls a second.
    fn work_until_age(&mut self, age_s: i64) {
        let (_keep, never) = channel::<()>();
        while self.sandbox.now().0 < self.created_at + age_s {
            assert!(self.call(), "the run has lost Trakt at the age of {} s", self.sandbox.now().0 - self.created_at);
            // Between two calls Kometa does other things.
            assert_eq!(never.recv_timeout(Duration::from_millis(150)), Err(RecvTimeoutError::Timeout));
        }
    }

    /// The run is over, and so are the minutes for which its log has to be quiet.
    fn end(self) {
        let log = std::fs::File::options().write(true).open(self.home.path().join("logs/meta.log")).unwrap();
        log.set_modified(SystemTime::now() - Duration::from_secs(600)).unwrap();
    }
}

fn start(home: &Home, sandbox: &Sandbox) -> Running {
    let mut command = home.command("run", sandbox);
    command.args(["--kometa-times", "off"]);
    Running::start(command)
}

/// Run after run, each of which makes its calls beyond the moment at which the refresh is due, with the
/// pair of its start, under each policy of rotation: no call is refused, nothing is rotated while it runs,
/// and after its end the refresh is made.
#[test]
fn no_run_dies_of_us() {
    std::thread::scope(|scope| {
        for rotation in [Rotation::Strict, Rotation::Grace, Rotation::Family] {
            scope.spawn(move || {
                let rules = Rules { rotation, lifetime_s: Some(LIFETIME_S), ..Rules::default() };
                let sandbox = Sandbox::start(Options { rules, ..Options::default() }).unwrap();
                let home = Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 60)));
                let daemon = start(&home, &sandbox);
                daemon.wait_log(&["token refreshed"]);
                for run in 1..=3 {
                    let from = daemon.log_len();
                    let spent = sandbox.ledger().spent_and_reused();
                    let mut kometa = Kometa::start(&home, &sandbox);
                    kometa.work_until_age(RUN_ENDS_AT_S);
                    assert_eq!(sandbox.ledger().spent_and_reused(), spent, "run {run}: rotated under Kometa");
                    assert_eq!(kometa.refreshes, 0, "run {run}");
                    daemon.wait_log_from(from, &["a refresh is due, but Kometa is running"]);
                    kometa.end();
                    daemon.reload();
                    daemon.wait_log_from(from, &["token refreshed"]);
                }
                let (_, log) = daemon.stop();
                assert_eq!(sandbox.ledger().spent_and_reused(), (4, 0), "{rotation:?}\n{log}");
            });
        }
    });
}

/// Kometa is refused in mid-run, refreshes by itself and saves a pair whose time makes no sense to our
/// clock: the daemon takes it over and sends nothing while Kometa runs, and the next run finds a good token.
#[test]
fn kometa_refreshes_itself() {
    let sandbox = sandbox();
    let home = Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 60)));
    let daemon = start(&home, &sandbox);
    daemon.wait_log(&["found a token in the file"]);
    let mut kometa = Kometa::start(&home, &sandbox);
    sandbox.advance(8 * 86_400);
    let from = daemon.log_len();
    assert!(kometa.call());
    assert_eq!(kometa.refreshes, 1);
    daemon.wait_log_from(from, &["found a token in the file"]);
    daemon.wait_log_from(from, &["Kometa is running"]);
    let saved = home.text();
    assert!(kometa.call());
    kometa.end();
    assert!(Kometa::start(&home, &sandbox).call());
    daemon.stop();
    assert_eq!(home.text(), saved);
    assert_eq!(sandbox.ledger().spent_and_reused(), (1, 0));
}

/// A Kometa that spends the token and saves nothing (`--read-only-config`): what may have happened is said
/// with the rejection, once, and a person is asked.
#[test]
fn read_only_kometa_spends_it() {
    let sandbox = sandbox();
    let home = Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 8 * 86_400)));
    let text = home.text();
    assert!(Kometa::start(&home, &sandbox).call());
    home.write(&text);
    home.age();
    std::fs::remove_dir_all(home.path().join("logs")).unwrap();
    let daemon = start(&home, &sandbox);
    let line = daemon.wait_log(&["ERROR", "rejected the refresh token", "did not save the new one"]);
    assert!(line.contains("--read-only-config") && line.contains("put a new pin"), "{line}");
    let (_, log) = daemon.stop();
    assert_eq!(log.matches("ERROR").count(), 1, "{log}");
}

/// What is known to go wrong is said at start, once, however often the file changes and is looked at; and
/// `check` says the same.
#[test]
fn traps() {
    let sandbox = sandbox();
    let text = config_with(&sandbox.issue(&TRAKT, CLIENT, 60)).replace("  pin:\n", "  pin:\n  force_refresh: true\n");
    let home = Home::new(&(text + &mal_section(&sandbox.issue(&kometa_authd::provider::MAL, CLIENT, 60))));
    let mut command = home.command("run", &sandbox);
    command.env("KOMETA_READ_ONLY_CONFIG", "True");
    let daemon = Running::start(command);
    daemon.wait_log(&["config.yml#mal", "next="]);
    for n in 0..3 {
        let from = daemon.log_len();
        // Another problem each time shows that the file was looked at.
        home.replace(&home.text().replace("  pin:\n", &format!("  pin:\n  unknown_{n}: 1\n")));
        daemon.wait_log_from(from, &["this key of `trakt` is not one that Kometa knows"]);
    }
    daemon.reload();
    let (_, log) = daemon.stop();
    let check = said(&home.command("check", &sandbox).env("KOMETA_READ_ONLY_CONFIG", "1").output().unwrap());
    for trap in ["force_refresh is true", "KOMETA_READ_ONLY_CONFIG is set"] {
        assert_eq!(log.matches(trap).count(), 1, "{trap}\n{log}");
        assert_eq!(check.matches(trap).count(), 1, "{trap}\n{check}");
    }
    let off = said(&home.command("check", &sandbox).env("KOMETA_READ_ONLY_CONFIG", "False").output().unwrap());
    assert!(!off.contains("KOMETA_READ_ONLY_CONFIG"), "{off}");
}
