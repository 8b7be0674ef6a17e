//! Signals, and what the service manager is told.
#![cfg(feature = "sandbox")]
#![allow(clippy::disallowed_methods, reason = "the tests play the person and the system")]

mod support;

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use kometa_authd::provider::TRAKT;
use kometa_authd::sandbox::Sandbox;
use rustix::process::Signal;
use support::receiver::{Answer, Receiver};
use support::{CLIENT, Home, PATIENCE, Running, config_with, fault, posts, refresh_token, sandbox, value, wait_posts};

/// An expired token, and the daemon started on it without waiting for anything.
fn expired(sandbox: &Sandbox) -> Home {
    Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 8 * 86_400)))
}

fn assert_live(home: &Home, sandbox: &Sandbox) {
    let live = sandbox.live(&TRAKT, CLIENT).unwrap();
    assert_eq!(value(&home.text(), "refresh_token"), refresh_token(&live).expose());
}

/// A stop while the answer is on its way finishes the exchange: the new pair is in the file, and the exit
/// status is 0. So it is for both signals, and whether the answer or the acting is late.
#[test]
fn stop_finishes_the_exchange() {
    for signal in [Signal::TERM, Signal::INT] {
        for delay in ["delay=1500", "late=1500"] {
            let sandbox = sandbox();
            fault(&sandbox, delay);
            let home = expired(&sandbox);
            let daemon = home.daemon(&sandbox);
            wait_posts(&sandbox, 1);
            daemon.signal(signal);
            let (status, log) = daemon.wait();
            assert_eq!(status.code(), Some(0), "{log}");
            assert!(log.contains("token refreshed") && log.contains("stopping"), "{log}");
            assert_live(&home, &sandbox);
            assert_eq!(sandbox.ledger().spent_and_reused(), (1, 0));
        }
    }
}

/// A stop at the worst moment: a request is on its way, and a message to a person as well, which nobody takes. It
/// is over before Docker kills, ten seconds after it asked.
fn stop_at_the_worst(delay: &str) -> (Sandbox, Home, String) {
    let sandbox = sandbox();
    let nobody = Receiver::start(Answer::Never);
    let grant = sandbox.issue(&TRAKT, CLIENT, 8 * 86_400);
    let home = Home::in_memory(&config_with(&grant));
    assert!(sandbox.revoke(refresh_token(&grant)));
    let mut command = home.command("run", &sandbox);
    command.args(["--notify", &format!("json+http://{}/", nobody.host())]);
    let daemon = Running::start(command);
    nobody.wait(1);
    fault(&sandbox, delay);
    let before = sandbox.requests().len();
    home.replace(&config_with(&sandbox.issue(&TRAKT, CLIENT, 8 * 86_400)));
    wait_posts(&sandbox, before + 1);
    let (took, status, log) = daemon.stop_timed();
    eprintln!("{delay}: stopped after {took}");
    assert!(took.own() < Duration::from_secs(10), "{took}:\n{log}");
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("a message reached nobody before the stop"), "{log}");
    (sandbox, home, log)
}

/// An answer that comes late, but comes, is kept.
#[test]
fn stop_at_the_worst_with_an_answer() {
    let (sandbox, home, log) = stop_at_the_worst("late=6s");
    assert!(log.contains("token refreshed"), "{log}");
    assert_live(&home, &sandbox);
    assert_eq!(sandbox.ledger().spent_and_reused(), (1, 0));
}

/// Of an answer that never comes it is remembered that the request was sent, so that the next start tells a lost
/// answer from a dead token.
#[test]
fn stop_does_not_wait_for_ever() {
    let (sandbox, home, _) = stop_at_the_worst("hang");
    let status = home.status(&sandbox);
    assert!(status["detail"].as_str().unwrap().contains("stopped before the answer came"), "{status}");
    let daemon = home.daemon(&sandbox);
    // Before this line it has not taken the signals over.
    daemon.wait_log(&["config.yml#trakt", "next="]);
    daemon.reload();
    daemon.wait_log(&["token refreshed"]);
    daemon.stop();
    assert_live(&home, &sandbox);
}

/// A second signal ends it at once, with the signal's own status: the stop that waits for a hanging
/// answer is cut short.
#[test]
fn second_signal() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let sandbox = sandbox();
        fault(&sandbox, "hang");
        let home = expired(&sandbox);
        let daemon = home.daemon(&sandbox);
        wait_posts(&sandbox, 1);
        daemon.signal(signal);
        // The first one has to be taken in before the second counts as one.
        let pending = format!("/proc/{}/status", daemon.id());
        while std::fs::read_to_string(&pending).unwrap().lines().any(|line| {
            let Some((name, mask)) = line.split_once(":\t") else { return false };
            (name == "SigPnd" || name == "ShdPnd") && mask.bytes().any(|digit| digit != b'0')
        }) {
            std::thread::yield_now();
        }
        let asked = Instant::now();
        daemon.signal(signal);
        let (status, log) = daemon.wait();
        assert_eq!(status.code(), Some(code), "{log}");
        assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
    }
}

/// SIGKILL at the moments that matter, and a start afterwards: nothing is spent twice, and the newest live
/// pair is in the file, except where the answer itself died with the process; then it is said.
#[test]
fn killed_and_started_again() {
    // Before the provider acts, and after it did: the request is on its way in both.
    for delay in ["delay=2s", "late=2s"] {
        let sandbox = sandbox();
        fault(&sandbox, delay);
        let home = expired(&sandbox);
        let before = home.text();
        let daemon = home.daemon(&sandbox);
        wait_posts(&sandbox, 1);
        daemon.kill();
        assert_eq!(home.text(), before);
        // The provider acts in its own time, also for a client that is gone.
        let acted = sandbox.wait(PATIENCE, |world| world.requests[0].acted.is_some());
        assert!(acted);
        let daemon = home.daemon(&sandbox);
        daemon.wait_log(&["ERROR", "the answer to an earlier refresh was lost on the way"]);
        let text = home.text().replace("pin:", &format!("pin: {}", sandbox.pin().expose()));
        home.write(&text);
        daemon.wait_log(&["authorized"]);
        daemon.stop();
        assert_live(&home, &sandbox);
    }
    // At rest.
    let sandbox = sandbox();
    let home = expired(&sandbox);
    let daemon = home.daemon(&sandbox);
    daemon.wait_log(&["token refreshed"]);
    daemon.kill();
    assert_live(&home, &sandbox);
    let daemon = home.daemon(&sandbox);
    daemon.wait_log(&["config.yml#trakt", "next="]);
    daemon.stop();
    assert_eq!(posts(&sandbox).len(), 1);
    assert_eq!(home.names(), [".kometa-authd", "config.yml"]);
}

/// SIGHUP reads everything again now: what is known is said anew, and the process stays the same.
#[test]
fn reload() {
    let sandbox = sandbox();
    let home = Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 60)));
    let daemon = home.daemon(&sandbox);
    daemon.wait_log(&["next="]);
    for _ in 0..3 {
        let from = daemon.log_len();
        daemon.reload();
        daemon.wait_log_from(from, &["config.yml#trakt", "token is valid"]);
    }
    let (status, log) = daemon.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(posts(&sandbox).len(), 0);
}

/// What the service manager hears, over a socket of ours.
struct Manager {
    socket: UnixDatagram,
    path: std::path::PathBuf,
    heard: Vec<String>,
}

impl Manager {
    fn new(home: &Home) -> Self {
        let path = home.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, path, heard: Vec::new() }
    }

    /// Waits for a message of which a line begins so, among those to come.
    fn hear(&mut self, start: &str) -> String {
        loop {
            let mut bytes = [0; 4096];
            let Ok(size) = self.socket.recv(&mut bytes) else {
                panic!("never heard {start}; heard {:#?}", self.heard);
            };
            let message = String::from_utf8(bytes[..size].to_vec()).unwrap();
            self.heard.push(message.clone());
            if message.lines().any(|line| line.starts_with(start)) {
                return message;
            }
        }
    }

    fn start(&self, home: &Home, sandbox: &Sandbox, watchdog_us: Option<u64>) -> Running {
        let mut command = home.command("run", sandbox);
        command.env("NOTIFY_SOCKET", &self.path);
        if let Some(us) = watchdog_us {
            command.env("WATCHDOG_USEC", us.to_string());
        }
        Running::start(command)
    }
}

/// A whole life as systemd sees it: ready only once everything was looked at, a sentence with the next
/// refresh, reloading and ready again, stopping.
#[test]
fn service_manager() {
    let sandbox = sandbox();
    let home = expired(&sandbox);
    let mut manager = Manager::new(&home);
    let daemon = manager.start(&home, &sandbox, None);
    let status = manager.hear("STATUS=");
    assert_eq!(posts(&sandbox).len(), 1, "the first look was over by then");
    assert!(status.contains("config.yml#trakt valid until ") && status.contains(", next refresh "), "{status}");
    manager.hear("READY=1");
    daemon.reload();
    let reloading = manager.hear("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.hear("READY=1");
    daemon.signal(Signal::TERM);
    manager.hear("STOPPING=1");
    let (status, _) = daemon.wait();
    assert!(status.success());
}

/// The sentence is about what is wrong, where something is: no token, and a file that cannot be read.
#[test]
fn service_manager_hears_of_trouble() {
    let sandbox = sandbox();
    let home = Home::new("trakt:\n  client_id: x\n");
    let mut manager = Manager::new(&home);
    let daemon = manager.start(&home, &sandbox, None);
    let status = manager.hear("STATUS=");
    assert!(status.contains("config.yml#trakt: not authorized yet"), "{status}");
    manager.hear("READY=1");
    std::fs::remove_file(&home.config).unwrap();
    loop {
        let status = manager.hear("STATUS=");
        if status.contains("config.yml: the config file cannot be read: there is no such file") {
            break;
        }
    }
    daemon.stop();
}

/// The watchdog hears of us at rest, and while an answer is long in coming: a restart in the middle of an
/// exchange could cost the token.
#[test]
fn watchdog() {
    let sandbox = sandbox();
    fault(&sandbox, "delay=2s");
    let home = expired(&sandbox);
    let mut manager = Manager::new(&home);
    let daemon = manager.start(&home, &sandbox, Some(400_000));
    wait_posts(&sandbox, 1);
    for _ in 0..3 {
        manager.hear("WATCHDOG=1");
    }
    assert!(sandbox.requests()[0].acted.is_none(), "it is heard only after the answer");
    manager.hear("READY=1");
    for _ in 0..3 {
        manager.hear("WATCHDOG=1");
    }
    daemon.stop();
}
