//! What an edit keeps: owner, group, mode, attributes and ACL of the file, and the secrecy of our own.
#![cfg(feature = "sandbox")]
#![allow(clippy::disallowed_methods, reason = "the tests play the person and the system")]

mod support;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use kometa_authd::provider::TRAKT;
use rustix::fs::{XattrFlags, getxattr, setxattr};
use support::{CLIENT, Home, config_with, posts, said, sandbox, value};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        support::skipped("in part: only root can give files away");
    }
    root
}

/// Owners, modes and attributes that NAS boxes have are as before after a refresh: each is set, and
/// compared; the temporary file is gone.
#[test]
fn owner_mode_and_attributes() {
    let table = [(0o640, (99, 100)), (0o600, (1000, 1000)), (0o777, (1026, 100)), (0o644, (0, 0)), (0o4664, (99, 100))];
    for (bits, owner) in table {
        let sandbox = sandbox();
        let home = Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 8 * 86_400)));
        if is_root() {
            std::os::unix::fs::chown(&home.config, Some(owner.0), Some(owner.1)).unwrap();
        }
        set_mode(&home.config, bits);
        let can_mark = setxattr(&home.config, "user.note", b"kept", XattrFlags::empty()).is_ok();
        let before = std::fs::metadata(&home.config).unwrap();
        let output = home.output("refresh", &sandbox, &[]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let after = std::fs::metadata(&home.config).unwrap();
        assert_eq!((after.uid(), after.gid(), after.mode()), (before.uid(), before.gid(), before.mode()));
        if can_mark {
            let mut note = [0; 8];
            assert_eq!(getxattr(&home.config, "user.note", &mut note[..]), Ok(4));
        } else {
            support::skipped("in part: this file system has no user attributes");
        }
        assert_eq!(home.names(), [".kometa-authd", "config.yml"]);
    }
}

/// An ACL is kept: `system.posix_acl_access` is written as the kernel stores it, and is the same after a
/// refresh.
#[test]
fn access_list() {
    // Version 2; then tag, permissions and id of each entry (Linux, include/uapi/linux/posix_acl_xattr.h):
    // the owner rw, user 1234 rw, the group r, the mask rw, others nothing.
    let entries: [(u16, u16, u32); 5] =
        [(0x01, 6, u32::MAX), (0x02, 6, 1234), (0x04, 4, u32::MAX), (0x10, 6, u32::MAX), (0x20, 0, u32::MAX)];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend(tag.to_le_bytes().iter().chain(&permissions.to_le_bytes()).chain(&id.to_le_bytes()));
    }
    let sandbox = sandbox();
    let home = Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 8 * 86_400)));
    if setxattr(&home.config, "system.posix_acl_access", &list, XattrFlags::empty()).is_err() {
        support::skipped("this file system has no ACL");
        return;
    }
    let before = mode(&home.config);
    assert_eq!(home.output("refresh", &sandbox, &[]).status.code(), Some(0));
    let mut kept = [0; 256];
    let size = getxattr(&home.config, "system.posix_acl_access", &mut kept[..]).unwrap();
    assert_eq!(kept[..size], list);
    assert_eq!(mode(&home.config), before);
}

/// A hard link stays one: the file is then written in place, and both names show the new pair.
#[test]
fn hard_link() {
    let sandbox = sandbox();
    let home = Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 8 * 86_400)));
    let other = home.path().join("other-name.yml");
    std::fs::hard_link(&home.config, &other).unwrap();
    assert_eq!(home.output("refresh", &sandbox, &[]).status.code(), Some(0));
    assert_eq!(std::fs::metadata(&other).unwrap().nlink(), 2);
    assert_eq!(std::fs::read_to_string(&other).unwrap(), home.text());
    assert_eq!(value(&home.text(), "access_token"), sandbox.live(&TRAKT, CLIENT).unwrap().access_token.expose());
}

/// The state folder is for us alone, and everything in it, whatever the umask says.
#[test]
fn state_is_private() {
    for umask in ["0000", "0022", "0077"] {
        let sandbox = sandbox();
        let home = Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 8 * 86_400)));
        let command = home.command("refresh", &sandbox);
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"]).arg(command.get_program());
        shell.args(command.get_args()).envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = shell.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert_eq!(mode(&home.state()), 0o700, "umask {umask}");
        for entry in std::fs::read_dir(home.state()).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path), 0o600, "umask {umask}: {}", path.display());
        }
    }
}

/// A state folder that others may look into, that belongs to another, or that is none: one sentence with
/// the remedy, an exit status that tells, and no token is spent for an answer that could not be kept
/// safely. Once it is cured, the daemon goes on by itself.
#[test]
fn unusable_state() {
    type Spoil = fn(&Path);
    let table: [(Spoil, &str); 4] = [
        (
            |path| {
                std::fs::create_dir(path).unwrap();
                set_mode(path, 0o755);
            },
            "others may look into it, and it holds tokens; `chmod 700` it",
        ),
        (
            |path| {
                std::fs::create_dir(path).unwrap();
                set_mode(path, 0o700);
                std::os::unix::fs::chown(path, Some(99), Some(100)).unwrap();
            },
            "it belongs to user 99, and this is user 0",
        ),
        (|path| std::fs::write(path, "").unwrap(), "a folder of its path is none"),
        (|path| std::os::unix::fs::symlink("/nonexistent/folder", path).unwrap(), "cannot be made"),
    ];
    for (spoil, why) in table {
        if why.contains("belongs") && !is_root() {
            continue;
        }
        let sandbox = sandbox();
        let home = Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 8 * 86_400)));
        let before = home.text();
        spoil(&home.state());
        for args in [&[][..], &["--force"]] {
            let output = home.output("refresh", &sandbox, args);
            let lines = said(&output);
            assert_eq!(output.status.code(), Some(2), "{why}: {lines}");
            assert!(lines.contains(why) && lines.contains(".kometa-authd"), "{lines}");
            assert_eq!(lines.matches("ERROR").count(), 1, "{lines}");
        }
        let daemon = home.daemon(&sandbox);
        let line = daemon.wait_log(&["ERROR", "config.yml#trakt", "the state folder cannot be used", why]);
        assert!(line.contains("--state-dir"), "{line}");
        assert_eq!((posts(&sandbox).len(), home.text()), (0, before), "{why}");
        let path = home.state();
        if path.is_dir() {
            std::fs::remove_dir(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
        daemon.reload();
        daemon.wait_log(&["token refreshed"]);
        daemon.stop();
        assert_eq!(sandbox.ledger().spent_and_reused(), (1, 0), "{why}");
    }
}

/// With `--state-dir` nothing is made beside the config; a folder whose parent is missing is named.
#[test]
fn state_elsewhere() {
    let sandbox = sandbox();
    let home = Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 8 * 86_400)));
    let elsewhere = tempfile::tempdir().unwrap();
    let missing = elsewhere.path().join("a/b");
    let output = home.output("refresh", &sandbox, &["--state-dir", missing.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("the folder that it is to be in does not exist"), "{}", said(&output));
    let state = elsewhere.path().join("state");
    let output = home.output("refresh", &sandbox, &["--state-dir", state.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(home.names(), ["config.yml"]);
    assert_eq!(mode(&state), 0o700);
}
