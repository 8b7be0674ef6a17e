//! Bad input gets one clear sentence that says where and what to do, from each command, and loses nothing.
#![cfg(feature = "sandbox")]
#![allow(clippy::disallowed_methods, reason = "the tests play the person and the system")]

mod support;

use kometa_authd::provider::TRAKT;
use support::{CLIENT, Home, config_with, posts, program, said, sandbox};

/// What stands in the config's place, and what is said of it.
enum Input {
    Nothing,
    Folder,
    Fifo,
    Bytes(Vec<u8>),
}

/// Every file that no account can be read from: `check` and `status` end with 2 and `refresh` does, too; each
/// says the sentence once, with the path; the daemon says it once as well and goes on; the file stays as it is.
#[test]
fn unusable_files() {
    let sandbox = sandbox();
    let good = config_with(&sandbox.issue(&TRAKT, CLIENT, 8 * 86_400));
    let huge = format!("{good}notes: |\n{}", "  a line of a very long note\n".repeat(17 * 1024 * 1024 / 28));
    let mut latin = good.clone().into_bytes();
    latin.splice(3..5, *b"\xe4\xf6");
    let text = |text: &str| Input::Bytes(text.as_bytes().to_vec());
    let table = [
        ("nothing", Input::Nothing, "there is no such file; check the path, and in Docker the volume"),
        ("folder", Input::Folder, "it is a folder, not a file; name the config.yml in it"),
        ("fifo", Input::Fifo, "it is not an ordinary file"),
        ("17 MB", Input::Bytes(huge.into_bytes()), "it has more than 16 MiB; no Kometa config has"),
        ("latin 1", Input::Bytes(latin), "line 1, column 4: it is not UTF-8 text; save it as UTF-8"),
        ("empty", text(""), "the file has no content"),
        ("comments", text("# nothing\n"), "the file has no content"),
        ("list", text("- trakt\n- mal\n"), "line 1, column 1: the file is not a mapping of settings"),
        ("scalar", text("hello\n"), "line 1, column 1: the file is not a mapping of settings"),
        ("tab", Input::Bytes(good.replace("  client_id", "\tclient_id").into_bytes()), "line 6, column 1"),
        ("quote", Input::Bytes(good.replace("cache: true", "cache: 'true").into_bytes()), "line "),
        ("bracket", Input::Bytes(good.replace("cache: true", "cache: [true").into_bytes()), "line "),
        ("indent", Input::Bytes(good.replace("  pin:", " pin:").into_bytes()), "line 8, column "),
        ("twice", Input::Bytes(format!("{good}trakt:\n  pin: 1\n").into_bytes()), "a second time (first in line 5)"),
        ("NUL", Input::Bytes(good.replace("cache", "ca\0che").into_bytes()), "line "),
    ];
    for (row, input, sentence) in table {
        let home = Home::new("");
        std::fs::remove_file(&home.config).unwrap();
        match &input {
            Input::Nothing => {}
            Input::Folder => std::fs::create_dir(&home.config).unwrap(),
            Input::Fifo => {
                let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
                rustix::fs::mknodat(rustix::fs::CWD, &home.config, rustix::fs::FileType::Fifo, mode, 0).unwrap();
            }
            Input::Bytes(bytes) => std::fs::write(&home.config, bytes).unwrap(),
        }
        let path = home.config.to_str().unwrap();
        for command in ["check", "status", "refresh"] {
            let output = home.output(command, &sandbox, &[]);
            let text = said(&output);
            let lines: Vec<_> = text.lines().filter(|line| line.contains(sentence)).collect();
            assert_eq!(output.status.code(), Some(2), "{row}: {command}: {text}");
            assert_eq!(lines.len(), 1, "{row}: {command} does not say {sentence:?} once: {text}");
            assert!(lines[0].contains(path), "{row}: {command}: {text}");
        }
        let daemon = home.daemon(&sandbox);
        daemon.wait_log(&["config.yml", sentence]);
        daemon.reload();
        let (status, log) = daemon.stop();
        assert!(status.success(), "{row}: {log}");
        if let Input::Bytes(bytes) = input {
            assert!(std::fs::read(&home.config).unwrap() == bytes, "{row}: the file was changed");
        }
        let names = home.names();
        assert!(names.iter().all(|name| name == "config.yml"), "{row}: {names:?}");
    }
    assert_eq!(posts(&sandbox).len(), 0);
}

/// What is wrong in one place does not cost the rest: the place and the remedy are said, the other account
/// or value goes on.
#[test]
fn wrong_in_one_place() {
    let table = [
        ("trakt: yes\n", "line 1, column 8: `trakt` is not a mapping with `client_id` and `authorization`", 2),
        ("trakt: []\n", "line 1, column 8: `trakt` is not a mapping", 2),
        ("trakt:\n", "there is no trakt: or mal: section, so there is nothing to keep valid", 2),
        ("plex:\n  url: x\n", "there is no trakt: or mal: section, so there is nothing to keep valid", 2),
        (
            "trakt:\n  client_id: a\n  authorization: none\n",
            "line 3, column 18: `trakt: authorization` is not a mapping; leave it empty to have it filled in",
            2,
        ),
        (
            "trakt:\n  client_id: [a]\n  authorization:\n    refresh_token: b\n",
            "line 2, column 14: `client_id` is a list or a mapping where one value is expected",
            2,
        ),
        (
            "trakt:\n  client-id: a\n  client_id: b\n  authorization:\n    refresh_token: c\n",
            "line 2, column 3: this key of `trakt` is not one that Kometa knows",
            2,
        ),
        (
            "mal:\n  client_id: b\n  pin: 1\n  authorization:\n    refresh_token: c\n",
            "line 3, column 3: this key of `mal` is not one that Kometa knows",
            2,
        ),
        (
            "trakt:\n  client_id: b\n  force_refresh: true\n  authorization:\n    refresh_token: c\n",
            "line 1: trakt: force_refresh is true: Kometa spends a refresh token at every start; remove force_refresh",
            0,
        ),
        (
            "trakt:\n  authorization:\n    refresh_token: c\n",
            "line 1: trakt: there is a token but no client_id, so it cannot be refreshed",
            2,
        ),
    ];
    for (text, sentence, status) in table {
        let home = Home::new(text);
        let output = home.output("check", &sandbox(), &[]);
        let lines = said(&output);
        assert_eq!(lines.matches(sentence).count(), 1, "{text}\n{lines}");
        assert!(lines.contains(home.config.to_str().unwrap()), "{lines}");
        assert_eq!(output.status.code(), Some(status), "{text}\n{lines}");
        assert_eq!(home.text(), text);
        assert_eq!(home.names(), ["config.yml"], "check made something");
    }
}

/// A daemon with one good account and one bad: the good one is refreshed, the bad one's sentence is in the
/// log once.
#[test]
fn the_good_account_goes_on() {
    let sandbox = sandbox();
    let home = Home::new(&(config_with(&sandbox.issue(&TRAKT, CLIENT, 8 * 86_400)) + "mal: 7\n"));
    let daemon = home.daemon(&sandbox);
    daemon.wait_log(&["config.yml#trakt", "token refreshed"]);
    let (_, log) = daemon.stop();
    assert_eq!(log.matches("`mal` is not a mapping").count(), 1, "{log}");
    assert_eq!(posts(&sandbox).len(), 1);
}

/// One config of two that cannot be read does not cost the other its refresh, and the exit status tells.
#[test]
fn one_config_of_two() {
    let sandbox = sandbox();
    let home = Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 8 * 86_400)));
    let output = home.output("refresh", &sandbox, &["--config", "/nonexistent/config.yml"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let lines = said(&output);
    assert!(lines.contains("/nonexistent/config.yml") && lines.contains("there is no such file"), "{lines}");
    assert_eq!(posts(&sandbox).len(), 1);
}

/// A wrong command line ends with 64 and says what is wrong, before anything is read or sent.
#[test]
fn wrong_usage() {
    let table: [(&[&str], &str); 13] = [
        (&[], "Usage: kometa-authd"),
        (&["serve"], "unrecognized subcommand 'serve'"),
        (&["run", "--nope"], "unexpected argument '--nope'"),
        (&["run", "--confg", "x"], "a similar argument exists: '--config'"),
        (&["run", "--config"], "a value is required for '--config <FILE>'"),
        (&["run"], "no config file: name Kometa's with --config /path/to/config.yml, or in KOMETA_CONFIG"),
        (&["refresh", "x.yml"], "unexpected argument 'x.yml'"),
        (&["run", "--log-level", "loud"], "'loud'"),
        (&["run", "--log-format", "xml"], "'xml'"),
        (&["status", "--kometa-times", "noon"], "'noon'"),
        (&["run", "--trakt-auth-url", "http://auth.trakt.tv"], "tokens go by https only, or by http to this machine"),
        (&["run", "--mal-auth-url", "http://192.168.1.5:8080"], "tokens go by https only, or by http to this machine"),
        (&["run", "--trakt-auth-url", "auth.trakt.tv"], "tokens go by https only, or by http to this machine"),
    ];
    for (args, sentence) in table {
        let output = program().args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{args:?}: {}", said(&output));
        assert!(said(&output).contains(sentence), "{args:?}: {}", said(&output));
        assert!(output.stdout.is_empty(), "{args:?}: an error belongs on stderr");
    }
}
