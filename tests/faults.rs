//! No refresh token is ever lost: every operation of a refresh fails, or is
//! the moment of a SIGKILL, and afterwards the ledger is asked.
#![cfg(feature = "sandbox")]
#![expect(clippy::disallowed_methods, reason = "the test plays the person and the system")]

mod support;

use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use kometa_authd::provider::TRAKT;
use kometa_authd::sandbox::rules::{Rotation, Rules};
use kometa_authd::sandbox::{Options, Sandbox};
use support::{Home, Running, around, config_with, value};

/// How the file is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By a new file.
    Rename,
    /// Where it is: a second name for the file asks for that, as a single-file mount does.
    InPlace,
}

struct Case<'a> {
    sandbox: &'a Sandbox,
    client: String,
    home: Home,
    before: String,
}

impl<'a> Case<'a> {
    /// A home with an expired token of its own client.
    fn new(sandbox: &'a Sandbox, way: Way) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let client = format!("client-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let grant = sandbox.issue(&TRAKT, &client, 8 * 86_400);
        let before = config_with(&grant).replace(support::CLIENT, &client);
        let home = Home::new(&before);
        std::fs::set_permissions(&home.config, std::fs::Permissions::from_mode(0o640)).unwrap();
        if is_root() {
            std::os::unix::fs::chown(&home.config, Some(99), Some(100)).unwrap();
        }
        if way == Way::InPlace {
            std::fs::hard_link(&home.config, home.path().join("second-name.yml")).unwrap();
        }
        Self { sandbox, client, home, before }
    }

    /// One `refresh` with a fault; how it ended, and the operations that it made.
    fn refresh(&self, fault: Option<&str>) -> (std::process::Output, Vec<String>) {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = self.home.command("refresh", self.sandbox);
        command.env("KOMETA_AUTHD_FAULT_LOG", log.path());
        if let Some(fault) = fault {
            command.env("KOMETA_AUTHD_FAULT", fault);
        }
        let output = command.output().unwrap();
        let operations = std::fs::read_to_string(log.path()).unwrap();
        (output, operations.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect())
    }

    /// The tokens of this client: how many were issued, and how often a spent one was presented.
    fn ledger(&self) -> (usize, u32) {
        let ledger = self.sandbox.ledger();
        let mine = ledger.entries().iter().filter(|entry| entry.client_id == self.client);
        mine.fold((0, 0), |(issued, reused), entry| (issued + 1, reused + entry.reuses))
    }

    /// After everything has healed: the file is whole and untouched elsewhere, and nothing is left over.
    fn assert_untouched(&self, what: &str) {
        let after = self.home.text();
        assert_eq!(around(&after), around(&self.before), "{what}: bytes outside the block");
        let meta = std::fs::metadata(&self.home.config).unwrap();
        assert_eq!(meta.mode() & 0o7777, 0o640, "{what}: mode");
        if is_root() {
            assert_eq!((meta.uid(), meta.gid()), (99, 100), "{what}: owner");
        }
        let names = self.home.names();
        let strangers: Vec<_> = names
            .iter()
            .filter(|name| !["config.yml", "second-name.yml", ".kometa-authd"].contains(&name.as_str()))
            .collect();
        assert!(strangers.is_empty(), "{what}: left over: {strangers:?}");
        let state = std::fs::read_dir(self.home.path().join(".kometa-authd")).unwrap();
        let mut state: Vec<_> = state.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        // What a person was told of stays for as long as the problem does.
        state.retain(|name| name != "config.yml#told");
        assert_eq!(state, ["config.yml#trakt.journal"], "{what}: left over in the state folder");
    }

    /// The newest live token is in the file.
    fn assert_live(&self, what: &str) {
        let live = self.sandbox.live(&TRAKT, &self.client).expect("a live pair");
        let token = value(&self.home.text(), "refresh_token");
        assert!(token == live.refresh_token.unwrap().expose(), "{what}: the newest live token is not in the file");
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn sandbox(rotation: Rotation) -> Sandbox {
    let rules = Rules { rotation, ..Rules::default() };
    Sandbox::start(Options { rules, ..Options::default() }).unwrap()
}

/// The operations of an undisturbed refresh.
fn operations(sandbox: &Sandbox, way: Way) -> Vec<String> {
    let case = Case::new(sandbox, way);
    let (output, operations) = case.refresh(None);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    case.assert_live("undisturbed");
    case.assert_untouched("undisturbed");
    assert_eq!(case.ledger(), (2, 0));
    operations
}

/// For every operation and every error, once and for a while: whatever happens, after at most one more
/// run the newest live token is in the file, and no second one was spent. The answer's own loss is the
/// exception that no program can help: it is reported as what it is.
fn sweep_errors(rotation: Rotation, way: Way, errors: &[&str], more: &[&str]) {
    let sandbox = sandbox(rotation);
    let all = operations(&sandbox, way);
    let answer = all.iter().position(|name| name == "answer").unwrap() + 1;
    for error in errors {
        for number in 1..=all.len() {
            for more in more {
                let what = format!("{way:?}, {rotation:?}, {error}@{number}{more} ({})", all[number - 1]);
                let case = Case::new(&sandbox, way);
                let (output, made) = case.refresh(Some(&format!("{error}@{number}{more}")));
                let log = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(output.status.code().is_some_and(|code| code <= 2), "{what}: {:?}\n{log}", output.status);
                // Each fault struck, or the run was shorter because of it.
                assert!(made.len() >= number, "{what}: only {} operations", made.len());
                let (issued, _) = case.ledger();
                let (again, _) = case.refresh(None);
                let log = log + &String::from_utf8_lossy(&again.stderr);
                let lost = issued == 2 && made.get(answer - 1).is_some_and(|name| name == "answer") && {
                    let window = number..=number + more.trim_start_matches('+').parse::<usize>().unwrap_or(0);
                    window.contains(&answer)
                };
                if lost && rotation != Rotation::Grace {
                    // Sent, and the answer lost on the way: the next try finds out, and says so.
                    assert!(log.contains("was lost on the way"), "{what}:\n{log}");
                } else {
                    case.assert_live(&format!("{what}\n{log}"));
                    if !lost {
                        assert_eq!(case.ledger(), (2, 0), "{what}: spent and reused\n{log}");
                    }
                }
                case.assert_untouched(&format!("{what}\n{log}"));
            }
        }
    }
}

/// For every operation: SIGKILL in its place. Only between the answer's arrival and the first write is
/// there a window, of exactly one call.
fn sweep_kills(rotation: Rotation, way: Way) {
    let sandbox = sandbox(rotation);
    let all = operations(&sandbox, way);
    let answer = all.iter().position(|name| name == "answer").unwrap() + 1;
    for number in 1..=all.len() {
        let what = format!("{way:?}, {rotation:?}, KILL@{number} ({})", all[number - 1]);
        let case = Case::new(&sandbox, way);
        let (output, made) = case.refresh(Some(&format!("KILL@{number}")));
        assert_eq!(output.status.signal(), Some(9), "{what}");
        assert_eq!(made.len(), number, "{what}");
        let (again, _) = case.refresh(None);
        let log = String::from_utf8_lossy(&again.stderr).into_owned();
        let in_window = number == answer || number == answer + 1;
        if in_window && rotation != Rotation::Grace {
            assert!(log.contains("was lost on the way"), "{what}:\n{log}");
        } else {
            case.assert_live(&format!("{what}\n{log}"));
        }
        if !in_window {
            assert_eq!(case.ledger(), (2, 0), "{what}: spent and reused\n{log}");
        }
        case.assert_untouched(&format!("{what}\n{log}"));
    }
}

/// The window between the answer and the first durable copy of it is one write.
#[test]
fn the_journal_comes_first() {
    let sandbox = sandbox(Rotation::Strict);
    for way in [Way::Rename, Way::InPlace] {
        let all = operations(&sandbox, way);
        let answer = all.iter().position(|name| name == "answer").unwrap();
        assert_eq!(all[answer + 1..answer + 3], ["write_at", "sync_data"], "{all:?}");
    }
}

#[test]
fn killed_strict() {
    sweep_kills(Rotation::Strict, Way::Rename);
    sweep_kills(Rotation::Strict, Way::InPlace);
}

#[test]
fn killed_grace() {
    sweep_kills(Rotation::Grace, Way::Rename);
}

#[test]
fn killed_family() {
    sweep_kills(Rotation::Family, Way::Rename);
}

#[test]
fn errors_once() {
    let errors = ["ENOSPC", "EIO", "EROFS", "EACCES", "EBUSY", "EXDEV", "EINTR"];
    sweep_errors(Rotation::Strict, Way::Rename, &errors, &[""]);
}

#[test]
fn errors_for_a_while() {
    let errors = ["ENOSPC", "EIO", "EROFS", "EACCES", "EBUSY", "EXDEV", "EINTR"];
    sweep_errors(Rotation::Strict, Way::Rename, &errors, &["+12"]);
}

#[test]
fn errors_in_place() {
    sweep_errors(Rotation::Strict, Way::InPlace, &["ENOSPC", "EIO", "EACCES"], &["", "+12"]);
}

#[test]
fn errors_with_other_rotations() {
    sweep_errors(Rotation::Grace, Way::Rename, &["EIO"], &["", "+12"]);
    sweep_errors(Rotation::Family, Way::Rename, &["EIO"], &["", "+12"]);
}

/// A file system without locks: it is said once with what follows from it, and everything else is done.
#[test]
fn no_locks() {
    let sandbox = sandbox(Rotation::Strict);
    let (_, operations) = Case::new(&sandbox, Way::Rename).refresh(None);
    let lock = operations.iter().position(|name| name == "lock").unwrap() + 1;
    let case = Case::new(&sandbox, Way::Rename);
    let (output, _) = case.refresh(Some(&format!("ENOLCK@{lock}")));
    let said = support::said(&output);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("this file system has no locks").count(), 1, "{said}");
    case.assert_live("no locks");
    case.assert_untouched("no locks");
}

/// A lock that fails for another reason is no sign that there are none: nothing is sent without it, that is said,
/// and the next look does what was to be done.
#[test]
fn lock_fails() {
    let sandbox = sandbox(Rotation::Strict);
    let (_, operations) = Case::new(&sandbox, Way::Rename).refresh(None);
    let lock = operations.iter().position(|name| name == "lock").unwrap() + 1;
    let case = Case::new(&sandbox, Way::Rename);
    let (output, _) = case.refresh(Some(&format!("EIO@{lock}")));
    let said = support::said(&output);
    assert_eq!((output.status.code(), case.ledger()), (Some(1), (1, 0)), "{said}");
    assert!(said.contains("nothing was sent") && !said.contains("no locks"), "{said}");
    assert!(said.contains("could not be taken: the disk reports an input/output error"), "{said}");
    let start = |case: &Case, name: &str, value: &OsStr| {
        let mut command = case.home.command("run", &sandbox);
        command.env(name, value);
        Running::start(command)
    };
    let log = tempfile::NamedTempFile::new().unwrap();
    let daemon = start(&case, "KOMETA_AUTHD_FAULT_LOG", log.path().as_os_str());
    daemon.wait_log(&["token refreshed"]);
    daemon.stop();
    let operations = std::fs::read_to_string(log.path()).unwrap();
    let locks: Vec<&str> = operations.lines().filter_map(|line| line.strip_suffix(" lock")).collect();
    // The first is the sign that it lives, and the second the folder's.
    for lock in &locks[..2] {
        let case = Case::new(&sandbox, Way::Rename);
        let daemon = start(&case, "KOMETA_AUTHD_FAULT", format!("EIO@{lock}").as_ref());
        daemon.wait_log(&["token refreshed"]);
        daemon.stop();
        assert_eq!(case.ledger(), (2, 0));
        case.assert_live("a lock failed");
    }
}
