//! The editors that people and Kometa use, each on the file of a running daemon: what they write is
//! picked up, and what they left half-written is not.
#![cfg(feature = "sandbox")]
#![allow(clippy::disallowed_methods, reason = "the tests play the person and the system")]

mod support;

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use kometa_authd::provider::TRAKT;
use kometa_authd::sandbox::{Options, Sandbox};
use support::{
    CLIENT, Home, PATIENCE, Running, around, config_with, mal_section, posts, python_with_ruamel, refresh_token,
    sandbox, swapped, value, wait_presented,
};

/// A daemon at rest beside a fresh token; then `edit` is given the config, the refresh token that stands
/// in it and an expired one that the daemon does not know. It has written the second in the place of the
/// first, and a marker at the end of the file: the daemon must spend that very token, and keep the marker.
fn picks_up(name: &str, edit: impl FnOnce(&Path, &str, &str)) {
    let sandbox = sandbox();
    let fresh = sandbox.issue(&TRAKT, CLIENT, 60);
    // Trakt keeps a client's older pairs alive; this one is somebody's own, and expired.
    let other = sandbox.issue(&TRAKT, CLIENT, 8 * 86_400);
    let text = config_with(&fresh).replace("expires_in: 604800", "expires_in:");
    let home = Home::new(&text.replace("expires_in:", "expires_in: 604800"));
    let daemon = home.daemon(&sandbox);
    daemon.wait_log(&["config.yml#trakt", "next="]);
    edit(&home.config, refresh_token(&fresh).expose(), refresh_token(&other).expose());
    wait_presented(&sandbox, refresh_token(&other));
    let after = home.wait(|text| {
        let live = sandbox.live(&TRAKT, CLIENT).map(|grant| grant.refresh_token.unwrap());
        live.is_some_and(|live| value(text, "refresh_token") == live.expose())
    });
    assert!(after.contains("# marker"), "{name}: the edit was lost:\n{after}");
    assert_eq!(posts(&sandbox).len(), 1, "{name}");
    daemon.stop();
    assert_eq!(sandbox.ledger().spent_and_reused(), (1, 0), "{name}");
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", support::said(&output));
}

fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok();
    if !found {
        support::skipped(&format!("there is no {tool} here"));
    }
    found
}

/// vim, as it is by default and with each way that it has of writing: a copy, a rename, no backup.
/// The token has no `created_at` that vim would know of, so it is spent at first sight.
#[test]
fn vim() {
    if !has("vim") {
        return;
    }
    for setting in ["", "set backupcopy=yes", "set backupcopy=no", "set nowritebackup", "set backup"] {
        picks_up(&format!("vim, {setting}"), |config, old, new| {
            let substitute = format!("%s/{old}/{new}/");
            let mut command = Command::new("vim");
            command.args(["-u", "NONE", "-i", "NONE", "-es", "-N"]);
            // The time that stands there belongs to the old token.
            for step in [setting, &substitute, "%s/created_at: .*/created_at:/", "$put ='# marker'", "wq"] {
                if !step.is_empty() {
                    command.args(["-c", step]);
                }
            }
            run(command.arg(config));
        });
    }
}

/// `sed -i`, which puts a new file in the old one's place.
#[test]
fn sed() {
    picks_up("sed -i", |config, old, new| {
        let script = format!("s/{old}/{new}/;s/created_at: .*/created_at:/;$a # marker");
        run(Command::new("sed").args(["-i", &script]).arg(config));
    });
}

/// A program that writes over the file in one go, as many small editors and web forms do.
#[test]
fn in_place() {
    picks_up("in place", |config, old, new| {
        let text = std::fs::read_to_string(config).unwrap();
        std::fs::write(config, edited(&text, old, new)).unwrap();
    });
}

/// A file made elsewhere and moved over the config, as configuration management and backups do.
#[test]
fn moved_over() {
    picks_up("moved over", |config, old, new| {
        let text = std::fs::read_to_string(config).unwrap();
        let elsewhere = config.with_file_name("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        std::fs::write(elsewhere.join("new.yml"), edited(&text, old, new)).unwrap();
        std::fs::rename(elsewhere.join("new.yml"), config).unwrap();
    });
}

/// Kometa itself: ruamel.yaml loads all of it, changes the block and dumps all of it over the file.
#[test]
fn ruamel() {
    let Some(python) = python_with_ruamel() else { return };
    picks_up("ruamel", |config, old, new| {
        let program = "
import sys, ruamel.yaml
path, old, new = sys.argv[1:]
yaml = ruamel.yaml.YAML()
yaml.indent(mapping=2, sequence=2)
with open(path, encoding='utf-8') as file:
    data = yaml.load(file)
block = data['trakt']['authorization']
assert block['refresh_token'] == old
block['refresh_token'] = new
block['created_at'] = None
data['trakt']['pin'] = None
data.yaml_set_comment_before_after_key('settings', before='marker')
with open(path, 'w', encoding='utf-8') as file:
    yaml.dump(data, file)
";
        run(Command::new(&python).args(["-c", program]).arg(config).args([old, new]));
    });
}

fn edited(text: &str, old: &str, new: &str) -> String {
    let lines = text.replace(old, new);
    let lines = lines.lines().map(|line| if line.contains("created_at:") { "    created_at:" } else { line });
    lines.collect::<Vec<_>>().join("\n") + "\n# marker\n"
}

/// After every edit of a whole minute's session, our own next edit still changes only the block: two
/// people's markers and a rotation follow each other, and each marker is there at the end.
#[test]
fn edits_and_rotations_in_turn() {
    let sandbox = sandbox();
    let home = Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 60)));
    let daemon = home.daemon(&sandbox);
    daemon.wait_log(&["next="]);
    let mut before = home.text();
    for round in 0..6 {
        let from = daemon.log_len();
        let next = sandbox.issue(&TRAKT, CLIENT, 8 * 86_400 + round);
        let current = sandbox_pair(&home);
        let edited = format!("{}# marker {round}\n", before.replace(&current, refresh_token(&next).expose()));
        let edited =
            edited.lines().map(|line| if line.contains("created_at:") { "    created_at: 1600000000" } else { line });
        let edited = edited.collect::<Vec<_>>().join("\n") + "\n";
        if round % 2 == 0 {
            home.write(&edited);
        } else {
            home.replace(&edited);
        }
        wait_presented(&sandbox, refresh_token(&next));
        daemon.wait_log_from(from, &["token refreshed"]);
        let after = home.text();
        assert_eq!(around(&after), around(&edited));
        before = after;
    }
    daemon.stop();
    assert!((0..6).all(|round| before.contains(&format!("# marker {round}\n"))), "{before}");
    assert_eq!(sandbox.ledger().spent_and_reused(), (6, 0));
}

fn sandbox_pair(home: &Home) -> String {
    value(&home.text(), "refresh_token")
}

/// A file that is written slowly, in place: every half that the daemon is made to look at is no YAML,
/// empty or a list; it says so once, with line and column, keeps what it knows, writes nothing, and picks
/// the whole up at the end.
#[test]
fn half_written() {
    let sandbox = sandbox();
    let fresh = sandbox.issue(&TRAKT, CLIENT, 60);
    let other = sandbox.issue(&TRAKT, CLIENT, 8 * 86_400);
    let text = config_with(&fresh);
    let home = Home::new(&text);
    let daemon = home.daemon(&sandbox);
    daemon.wait_log(&["next="]);
    let whole = swapped(&text, &fresh, &other);
    for half in ["", "plex:\n  url: 'http", "trakt:\n\tclient_id: x\n", "- a list\n", "plex: {a: 1\ntrakt:\n"] {
        let from = daemon.log_len();
        let mut file = std::fs::File::create(&home.config).unwrap();
        file.write_all(half.as_bytes()).unwrap();
        file.sync_all().unwrap();
        // By itself it is said at the second look: the first may fall into the middle of anybody's write.
        daemon.reload();
        let line = daemon.wait_log_from(from, &["WARN", "config.yml", "not complete YAML", "line ", "column "]);
        assert!(line.contains("keeping what was known"), "{line}");
        daemon.reload();
        drop(file);
        assert_eq!(home.text(), half, "somebody's half-written file was touched");
        home.write(&text);
        daemon.wait_log_from(from, &["can be read again"]);
    }
    assert_eq!(posts(&sandbox).len(), 0);
    home.write(&whole);
    wait_presented(&sandbox, refresh_token(&other));
    daemon.wait_log(&["token refreshed"]);
    daemon.stop();
    assert_eq!(around(&home.text()), around(&whole));
}

/// Broken YAML is said once, however often it is looked at: the same text is put in its place again and
/// again.
#[test]
fn broken_is_said_once() {
    let sandbox = sandbox();
    let text = config_with(&sandbox.issue(&TRAKT, CLIENT, 60));
    let home = Home::new(&text);
    let daemon = home.daemon(&sandbox);
    daemon.wait_log(&["next="]);
    let broken = text.replace("settings:", "settings: [");
    home.replace(&broken);
    home.replace(&broken);
    daemon.wait_log(&["not complete YAML", "line ", "column "]);
    for _ in 0..5 {
        home.replace(&broken);
    }
    // Not in place: an empty file in between would be another problem, which is said as well.
    home.replace(&text);
    daemon.wait_log(&["can be read again"]);
    let (_, log) = daemon.stop();
    assert_eq!(log.matches("not complete YAML").count(), 1, "{log}");
}

/// A config that is a link: the file that it leads to is rewritten and the link stays; then that file is
/// replaced, the link is pointed elsewhere, and the new file is edited, each of which is picked up.
#[test]
fn symbolic_link() {
    let sandbox = sandbox();
    let grants: Vec<_> = (0..4).map(|n| sandbox.issue(&TRAKT, CLIENT, 8 * 86_400 + n)).collect();
    let home = Home::new(&config_with(&grants[0]));
    let (first, second) = (home.path().join("first"), home.path().join("second"));
    for folder in [&first, &second] {
        std::fs::create_dir(folder).unwrap();
    }
    std::fs::rename(&home.config, first.join("real.yml")).unwrap();
    std::os::unix::fs::symlink("first/real.yml", &home.config).unwrap();
    let daemon = home.daemon(&sandbox);
    let refreshed = |from: usize, old: usize| {
        wait_presented(&sandbox, refresh_token(&grants[old]));
        daemon.wait_log_from(from, &["config.yml#trakt", "token refreshed"]);
        assert!(home.config.is_symlink(), "the link was replaced");
        let live = sandbox.live(&TRAKT, CLIENT).unwrap();
        assert_eq!(value(&home.text(), "refresh_token"), refresh_token(&live).expose());
    };
    refreshed(0, 0);
    assert!(first.join(".kometa-authd").is_dir(), "the state is beside the file itself");

    let from = daemon.log_len();
    std::fs::write(first.join("new.yml"), config_with(&grants[1])).unwrap();
    std::fs::rename(first.join("new.yml"), first.join("real.yml")).unwrap();
    refreshed(from, 1);

    let from = daemon.log_len();
    std::fs::write(second.join("real.yml"), config_with(&grants[2])).unwrap();
    std::os::unix::fs::symlink("second/real.yml", home.path().join("link")).unwrap();
    std::fs::rename(home.path().join("link"), &home.config).unwrap();
    refreshed(from, 2);

    let from = daemon.log_len();
    std::fs::write(second.join("real.yml"), config_with(&grants[3])).unwrap();
    refreshed(from, 3);
    daemon.stop();
}

/// A config that comes later, as in a fresh container: its absence is said once, with what to do, and it
/// is picked up when it is there. So is one that is removed and comes back.
#[test]
fn absent_then_there() {
    let sandbox = sandbox();
    let home = Home::new("");
    std::fs::remove_file(&home.config).unwrap();
    let daemon = home.daemon(&sandbox);
    daemon.wait_log(&["ERROR", "config.yml", "cannot be read", "there is no such file"]);
    let grant = sandbox.issue(&TRAKT, CLIENT, 8 * 86_400);
    home.write(&config_with(&grant));
    wait_presented(&sandbox, refresh_token(&grant));
    let line = daemon.wait_log(&["token refreshed"]);
    assert!(line.contains("expires_in_s="), "{line}");
    let from = daemon.log_len();
    let text = home.text();
    std::fs::remove_file(&home.config).unwrap();
    daemon.wait_log_from(from, &["there is no such file"]);
    home.write(&text);
    daemon.wait_log_from(from, &["can be read again"]);
    daemon.stop();
    assert_eq!(posts(&sandbox).len(), 1);
}

/// A second section that appears while the daemon runs becomes an account, and one that goes away is no
/// longer looked at.
#[test]
fn section_comes_and_goes() {
    let sandbox = sandbox();
    sandbox.set_rules(|rules| rules.refresh_lifetime_s = Some(400 * 86_400));
    let home = Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 60)));
    let daemon = home.daemon(&sandbox);
    daemon.wait_log(&["config.yml#trakt", "next="]);
    let alone = home.text();
    let mal = sandbox.issue(&kometa_authd::provider::MAL, CLIENT, 40 * 86_400);
    home.replace(&(alone.clone() + &mal_section(&mal)));
    daemon.wait_log(&["config.yml#mal", "token refreshed"]);
    let from = daemon.log_len();
    home.replace(&mal_section(&mal).replace(refresh_token(&mal).expose(), "").replace(mal.access_token.expose(), ""));
    daemon.wait_log_from(from, &["config.yml#mal", "sign-out"]);
    daemon.stop();
    assert_eq!(home.status(&sandbox)["account"], "config.yml#mal");
    assert_eq!(posts(&sandbox).len(), 1);
}

/// The whole folder is moved away and made anew, as a restore of a backup does it: the daemon finds the
/// config in the new folder, and hears of its changes. A changed `client_id` shows that it was read.
#[test]
fn a_folder_made_anew() {
    let sandbox = Sandbox::start(Options::default()).unwrap();
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("config");
    std::fs::create_dir(&folder).unwrap();
    let config = folder.join("config.yml");
    let text = config_with(&sandbox.issue(&TRAKT, CLIENT, 0));
    std::fs::write(&config, &text).unwrap();
    let url = sandbox.url();
    let mut command = support::program();
    command.args(["run", "--trakt-auth-url", &url, "--mal-auth-url", &url, "--config"]).arg(&config);
    let daemon = support::Running::start(command);
    daemon.wait_log(&["found a token in the file"]);
    std::fs::rename(&folder, outer.path().join("old")).unwrap();
    daemon.wait_log(&["the config file cannot be read"]);
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(&config, &text).unwrap();
    daemon.wait_log(&["the config file can be read again"]);
    let from = daemon.log_len();
    std::fs::write(&config, config_with(&sandbox.issue(&TRAKT, CLIENT, 1))).unwrap();
    daemon.wait_log_from(from, &["found a token in the file"]);
}

/// A program that rewrites the whole file several times a second, in place or by rename: the token that has
/// run out is refreshed all the same, and when it has stopped, its last edit and the live pair are both there.
#[test]
fn never_still() {
    for by_rename in [false, true] {
        let sandbox = sandbox();
        let home = Home::new(&(config_with(&sandbox.issue(&TRAKT, CLIENT, 8 * 86_400)) + "count: 0\n"));
        let daemon = home.command("run", &sandbox);
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let last = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut count = 0;
                let stopped = stopped;
                while stopped.recv_timeout(Duration::from_millis(150)) == Err(RecvTimeoutError::Timeout) {
                    let text = home.text();
                    let Some(at) = text.find("count: ") else { continue };
                    count += 1;
                    let text = format!("{}count: {count}\n", &text[..at]);
                    if by_rename { home.replace(&text) } else { home.write(&text) }
                }
                count
            });
            let daemon = Running::start(daemon);
            let came = sandbox.wait(PATIENCE, |world| world.ledger.spent_and_reused().0 > 0);
            drop(stop);
            let last = writer.join().unwrap();
            assert!(came, "never refreshed beside {last} writes\n{}", daemon.log());
            let live = sandbox.live(&TRAKT, CLIENT).unwrap();
            home.wait(|text| {
                value(text, "refresh_token") == refresh_token(&live).expose()
                    && text.contains(&format!("count: {last}\n"))
            });
            daemon.stop();
            last
        });
        assert_eq!(sandbox.ledger().spent_and_reused(), (1, 0), "after {last} writes");
    }
}

/// A program that has the file open while a new one takes its place, and saves into the old one: its edit is
/// brought over. Another had read the file before that and writes it after, without the edit: both edits are
/// there in the end.
#[test]
fn saved_into_the_old_file() {
    let sandbox = sandbox();
    let home = Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 8 * 86_400)));
    let before = home.text();
    let mut old = std::fs::File::options().write(true).open(&home.config).unwrap();
    let daemon = home.daemon(&sandbox);
    daemon.wait_log(&["token refreshed"]);
    let read_by_another = home.text();
    old.set_len(0).unwrap();
    old.write_all(format!("{before}one: 1\n").as_bytes()).unwrap();
    drop(old);
    home.wait(|text| text.contains("one: 1\n"));
    home.write(&format!("{read_by_another}two: 2\n"));
    let after = home.wait(|text| text.contains("one: 1\n") && text.contains("two: 2\n"));
    daemon.stop();
    let rest: String = after.split_inclusive('\n').filter(|line| !matches!(*line, "one: 1\n" | "two: 2\n")).collect();
    assert_eq!(rest, read_by_another);
    assert_eq!(sandbox.ledger().spent_and_reused(), (1, 0));
}
