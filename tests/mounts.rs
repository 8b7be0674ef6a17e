//! Real full disks, real read-only mounts, real single-file mounts, each in a
//! mount namespace of its own. A machine that does not allow one says so.
#![cfg(feature = "sandbox")]
#![expect(clippy::disallowed_methods, reason = "the test plays the person and the system")]

mod support;

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use kometa_authd::disk::RealDisk;
use kometa_authd::journal::Record;
use kometa_authd::provider::TRAKT;
use kometa_authd::sandbox::{Options, Sandbox};
use kometa_authd::store::{Place, open_journal};
use kometa_authd::token::Fingerprint;
use support::{CLIENT, Home, PATIENCE, Running, around, config_with, value};

/// A home, a sandbox, and a shell in a mount namespace of its own.
struct Stage {
    sandbox: Sandbox,
    home: Home,
    before: String,
}

impl Stage {
    /// Nothing where the machine has no mount namespaces for us.
    fn new() -> Option<Self> {
        let probe = Command::new("unshare").args(["-m", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]).output();
        if !probe.as_ref().is_ok_and(|output| output.status.success()) {
            support::skipped("no mounts in a namespace of our own here (unshare -m, as root)");
            return None;
        }
        let sandbox = Sandbox::start(Options::default()).unwrap();
        let before = config_with(&sandbox.issue(&TRAKT, CLIENT, 8 * 86_400));
        let home = Home::new(&before);
        Some(Self { sandbox, home, before })
    }

    /// Runs a script in the home. `refresh CONFIG …` runs the program; what the script prints comes back.
    fn run(&self, script: &str) -> String {
        let url = self.sandbox.url();
        let program = env!("CARGO_BIN_EXE_kometa-authd");
        let prelude = format!(
            "exec 2>&1; set -e; cd '{}'; refresh() {{ config=$1; shift; set +e; '{program}' refresh --trakt-auth-url {url} \
             --config \"$config\" \"$@\"; echo \"status $?\"; set -e; }}\n",
            self.home.path().display()
        );
        let mut shell = Command::new("unshare");
        shell.args(["-m", "sh", "-c", &(prelude + script)]).env("TZ", "UTC");
        for name in ["KOMETA_CONFIG", "KOMETA_TIMES", "STATE_DIRECTORY"] {
            shell.env_remove(name);
        }
        let output = shell.output().unwrap();
        let log = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "the script failed: {log}");
        log
    }

    /// The live token is in that text, and nothing around it changed.
    fn assert_live(&self, text: &str, log: &str) {
        let newest = self.sandbox.live(&TRAKT, CLIENT).unwrap().refresh_token.unwrap();
        assert!(value(text, "refresh_token") == newest.expose(), "{log}\n{text}");
        assert_eq!(around(text), around(&self.before), "{log}");
    }
}

/// On a full disk nothing is sent and the sentence says why; with room again the refresh goes through.
/// The disk is a tmpfs that a file fills to the last block.
#[test]
fn full_disk() {
    let Some(stage) = Stage::new() else { return };
    let log = stage.run(
        "mkdir small; mount -t tmpfs -o size=96k tmpfs small; cp -p config.yml small/
         dd if=/dev/zero of=small/filler bs=4k 2>/dev/null || true
         refresh small/config.yml; echo posts; rm small/filler; refresh small/config.yml; cat small/config.yml > after; ls -A small",
    );
    let (full, healed) = log.split_once("posts").unwrap();
    assert!(full.contains("status 1"), "{log}");
    assert!(log.contains("nothing was sent") || log.contains("the state folder cannot be used"), "{log}");
    assert!(log.contains("the disk is full"), "{log}");
    assert!(healed.contains("status 0"), "{log}");
    assert!(healed.ends_with(".kometa-authd\nconfig.yml\n"), "nothing is left over: {log}");
    stage.assert_live(&std::fs::read_to_string(stage.home.path().join("after")).unwrap(), &log);
    assert_eq!(stage.sandbox.ledger().spent_and_reused(), (1, 0), "{log}");
}

/// The same with no inode left, and with only the state folder's disk full.
#[test]
fn no_inode_and_full_state() {
    let Some(stage) = Stage::new() else { return };
    let log = stage.run(
        "mkdir few; mount -t tmpfs -o nr_inodes=2 tmpfs few; cp -p config.yml few/; refresh few/config.yml
         mkdir state; mount -t tmpfs -o size=4k,mode=700 tmpfs state; dd if=/dev/zero of=state/filler bs=4k 2>/dev/null || true
         refresh config.yml --state-dir state",
    );
    assert_eq!(log.matches("status 1").count(), 2, "{log}");
    assert!(log.matches("the disk is full").count() >= 2, "{log}");
    assert_eq!(stage.sandbox.requests().len(), 0, "nothing was sent: {log}");
}

/// On a read-only mount nothing is sent; writable again, it is refreshed.
#[test]
fn read_only_mount() {
    let Some(stage) = Stage::new() else { return };
    let log = stage.run(
        "mkdir ro; mount -t tmpfs tmpfs ro; cp -p config.yml ro/; mount -o remount,ro ro
         refresh ro/config.yml; mount -o remount,rw ro; refresh ro/config.yml; cat ro/config.yml > after",
    );
    assert!(log.contains("status 1") && log.contains("status 0"), "{log}");
    assert!(log.contains("it is mounted read-only"), "{log}");
    stage.assert_live(&std::fs::read_to_string(stage.home.path().join("after")).unwrap(), &log);
    assert_eq!(stage.sandbox.ledger().spent_and_reused(), (1, 0), "{log}");
}

/// An edit that came out of an exchange and that a kill left there cannot be put back while the disk is read-only, and is
/// when it is not any more, though nothing else is due then.
#[test]
fn put_back_when_the_disk_allows() {
    let Some(stage) = Stage::new() else { return };
    let valid = config_with(&stage.sandbox.issue(&TRAKT, CLIENT, 0));
    stage.home.write(&valid);
    assert!(stage.home.output("refresh", &stage.sandbox, &[]).status.success());
    let place = Place::new(&stage.home.config, None, "trakt");
    let edit = Record::Edit(Fingerprint::of(b"before"), Fingerprint::of(valid.as_bytes()));
    open_journal(&RealDisk, &place).unwrap().add(&RealDisk, &edit).unwrap();
    std::fs::write(&place.swap, format!("{valid}# theirs\n")).unwrap();
    let url = stage.sandbox.url();
    let program = env!("CARGO_BIN_EXE_kometa-authd");
    let log = stage.run(&format!(
        "has() {{ n=0; until grep -qs \"$1\" \"$2\"; do n=$((n + 1)); [ $n -lt 600 ] || return 1; sleep 0.1; done; }}
         mkdir ro; mount -t tmpfs tmpfs ro; cp -a config.yml .config.yml.* .kometa-authd ro; mount -o remount,ro ro
         '{program}' run --trakt-auth-url {url} --config ro/config.yml 2> said & authd=$!
         has 'could not be finished yet.*mounted read-only' said || echo not said
         mount -o remount,rw ro; has '# theirs' ro/config.yml || echo not put back
         kill $authd; wait $authd || true; cat said; ls -A ro; cat ro/config.yml > after"
    ));
    assert!(!log.contains("not said") && !log.contains("not put back") && !log.contains(".swap\n"), "{log}");
    assert_eq!(
        std::fs::read_to_string(stage.home.path().join("after")).unwrap(),
        format!("{valid}# theirs\n"),
        "{log}"
    );
    assert_eq!(stage.sandbox.requests().len(), 0, "{log}");
}

/// A single-file bind mount is known before the POST and written in place: the file outside has the new
/// pair under the same inode; a shorter text leaves no old bytes behind; a read-only folder around it
/// does not matter, as long as the state has a place.
#[test]
fn single_file_mount() {
    let Some(stage) = Stage::new() else { return };
    let inode = std::fs::metadata(&stage.home.config).unwrap().ino();
    stage.sandbox.name_next("a", "b");
    let log = stage.run(
        "mkdir box state; chmod 700 state; mount -t tmpfs tmpfs box; : > box/config.yml
         mount --bind config.yml box/config.yml; refresh box/config.yml; ls -A box; ls -A box/.kometa-authd",
    );
    assert!(log.contains("status 0"), "{log}");
    assert!(!log.contains(".tmp") && !log.contains("redo"), "{log}");
    let short = stage.home.text();
    assert!(short.len() < stage.before.len());
    stage.assert_live(&short, &log);
    let log = stage.run(
        "mkdir box2; mount -t tmpfs tmpfs box2; : > box2/config.yml
         mount --bind config.yml box2/config.yml; mount -o remount,ro box2
         refresh box2/config.yml --force --state-dir state",
    );
    assert!(log.contains("status 0"), "{log}");
    stage.assert_live(&stage.home.text(), &log);
    assert_eq!(std::fs::metadata(&stage.home.config).unwrap().ino(), inode);
    assert_eq!(stage.sandbox.ledger().spent_and_reused(), (2, 0));
}

/// The same file, mounted by itself into the place of a running daemon whose tokens live for seconds, while
/// somebody outside reads and saves it in place a hundred times: no edit is lost, the live pair is in it at
/// the end, and it is the same file.
#[test]
fn single_file_mount_beside_a_writer() {
    let Some(stage) = Stage::new() else { return };
    let (sandbox, home) = (&stage.sandbox, &stage.home);
    sandbox.set_lifetime(2);
    let inode = std::fs::metadata(&home.config).unwrap().ino();
    let url = sandbox.url();
    let mut shell = Command::new("unshare");
    shell.args(["-m", "sh", "-c"]).arg(format!(
        "set -e; cd '{}'; mkdir box; mount -t tmpfs tmpfs box; : > box/config.yml; mount --bind config.yml box/config.yml
         exec '{}' run --trakt-auth-url {url} --config box/config.yml --kometa-times off --device-login off",
        home.path().display(),
        env!("CARGO_BIN_EXE_kometa-authd"),
    ));
    for name in ["KOMETA_CONFIG", "KOMETA_TIMES", "STATE_DIRECTORY"] {
        shell.env_remove(name);
    }
    let daemon = Running::start(shell);
    daemon.wait_log(&["mounted as a single file"]);
    let (_keep, never) = std::sync::mpsc::channel::<()>();
    let rotations = || sandbox.ledger().spent_and_reused().0;
    let (mut edits, end) = (0, Instant::now() + 4 * PATIENCE);
    while edits < 100 || rotations() < 4 {
        assert!(Instant::now() < end, "{edits} edits, {} rotations\n{}", rotations(), daemon.log());
        // Now and then it leaves the file alone for longer than the daemon wants it to stand still.
        let pause = if edits % 10 == 9 { 1500 } else { 40 };
        let _ = never.recv_timeout(Duration::from_millis(pause));
        home.write(&format!("{}m{edits}: 1\n", home.text()));
        edits += 1;
    }
    sandbox.set_lifetime(3600);
    let text = home.wait(|text| {
        let live = sandbox.live(&TRAKT, CLIENT).unwrap();
        live.expires_in == Some(3600) && value(text, "refresh_token") == live.refresh_token.unwrap().expose()
    });
    let (_, log) = daemon.stop();
    for edit in 0..edits {
        assert_eq!(text.matches(&format!("m{edit}: 1\n")).count(), 1, "m{edit}\n{log}");
    }
    assert_eq!(std::fs::metadata(&home.config).unwrap().ino(), inode);
    assert_eq!(sandbox.ledger().spent_and_reused().1, 0, "{log}");
}

/// Somebody renames over the file outside: inside, the old one is left without a name. That is said
/// plainly with its cure, and no token is spent into a file that nobody sees.
#[test]
fn stranded() {
    let Some(stage) = Stage::new() else { return };
    let log = stage.run(
        "mkdir box; mount -t tmpfs tmpfs box; : > box/config.yml; mount --bind config.yml box/config.yml
         cp config.yml new.yml; mv new.yml config.yml; refresh box/config.yml",
    );
    assert!(log.contains("status 2"), "{log}");
    assert!(log.contains("the mounted file was replaced outside"), "{log}");
    assert!(log.contains("mount the folder"), "{log}");
    assert_eq!(stage.sandbox.requests().len(), 0, "{log}");
}
