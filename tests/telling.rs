//! What is told: logs in their forms, the commands' words and exit statuses, and never a secret.
#![cfg(feature = "sandbox")]
#![allow(clippy::disallowed_methods, reason = "the tests play the person and the system")]

mod support;

use std::process::Command;

use kometa_authd::provider::{MAL, TRAKT};
use serde_json::Value;
use support::{
    CLIENT, CLIENT_SECRET, Home, Running, config_with, fault, mal_section, posts, program, refresh_token, said,
    sandbox, value,
};

/// Every line of `--log-format json` is one object with level, time and the sentence, trouble included.
#[test]
fn json_log() {
    let sandbox = sandbox();
    fault(&sandbox, "503");
    let home = Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 8 * 86_400)));
    let mut command = home.command("run", &sandbox);
    command.args(["--log-format", "json", "--log-level", "trace"]);
    let daemon = Running::start(command);
    daemon.wait_log(&["HTTP 503"]);
    daemon.reload();
    daemon.wait_log(&["token refreshed"]);
    let (_, log) = daemon.stop();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(lines.len() >= 3, "{log}");
    for line in &lines {
        assert!(["level", "timestamp", "message"].iter().all(|key| line[key].is_string()), "{line}");
        // Below that the libraries have their say.
        assert!(line["about"].is_string() || line["level"] == "DEBUG" || line["level"] == "TRACE", "{line}");
    }
    let refreshed = lines.iter().find(|line| line["message"] == "token refreshed, new pair is in the file").unwrap();
    assert_eq!((&refreshed["about"], &refreshed["level"]), (&"config.yml#trakt".into(), &"INFO".into()));
    assert!(refreshed["expires_in_s"].as_i64().is_some_and(|left| left > 600_000), "{refreshed}");
}

/// Where `JOURNAL_STREAM` names stderr, lines have journald's priorities and no time; where it names
/// something else, they are for a person.
#[test]
fn journal_priorities() {
    let sandbox = sandbox();
    let home = Home::new("trakt:\n  client_id: x\n");
    let run = |stream: &str| {
        let command = home.command("refresh", &sandbox);
        // The shell knows which pipe its stderr is.
        let script = format!("JOURNAL_STREAM={stream} exec \"$@\"");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, "sh"]).arg(command.get_program()).args(command.get_args());
        said(&shell.output().unwrap())
    };
    let lines = run("$(stat -L -c %d:%i /proc/self/fd/2)");
    assert!(lines.starts_with("<3>config.yml#trakt: there is no token yet"), "{lines}");
    let lines = run("1:1");
    assert!(lines.starts_with("20") && lines.contains(" ERROR config.yml#trakt: there is no token yet"), "{lines}");
}

/// Recognisable secrets in every place where one can stand; run, refresh, status, check and the diff at
/// trace level through faults, bad YAML and a rotation: no output of any of them has one.
#[test]
fn no_secret_is_told() {
    const FAULTS: [&str; 7] =
        ["503", "drop-after", "403-html", "invalid-client", "invalid-grant", "token_type=mac", "challenge"];
    std::thread::scope(|scope| {
        for (index, row) in FAULTS.into_iter().enumerate() {
            scope.spawn(move || tells_no_secret(row, if index % 2 == 0 { "json" } else { "text" }));
        }
    });
}

fn tells_no_secret(row: &str, format: &str) {
    let sandbox = sandbox();
    sandbox.set_rules(|rules| rules.refresh_lifetime_s = Some(400 * 86_400));
    sandbox.name_next("SECRET-access-0", "SECRET-refresh-0");
    let trakt = sandbox.issue(&TRAKT, CLIENT, 8 * 86_400);
    sandbox.name_next("SECRET-access-1", "SECRET-refresh-1");
    let mal = sandbox.issue(&MAL, CLIENT, 0);
    sandbox.name_next("SECRET-access-2", "SECRET-refresh-2");
    fault(&sandbox, &format!("{row}@2"));
    let text = (config_with(&trakt) + &mal_section(&mal))
        .replace(&format!("client_id: {CLIENT}"), "client_id: <<app>>")
        .replace(CLIENT_SECRET, "SECRET-client")
        .replace("  pin:", "  pin: SECRET-pin")
        .replace("localhost_url:", "localhost_url: http://localhost/?code=SECRET-code");
    let home = Home::new(&text);
    let env = format!("KOMETA_APP={CLIENT}\nKOMETA_OTHER=SECRET-env\n");
    std::fs::write(home.path().join(".env"), env).unwrap();
    let mut told = String::new();
    let trace = ["--log-level", "trace", "--log-format", format];
    for (command, more) in
        [("check", &[][..]), ("check", &["--diff"]), ("status", &[]), ("refresh", &[]), ("refresh", &["--force"])]
    {
        let output = home.command(command, &sandbox).args(trace).args(more).env("RUST_LOG", "trace").output().unwrap();
        told += &said(&output);
    }
    let mut command = home.command("run", &sandbox);
    command.args(trace).env("RUST_LOG", "trace").env("RUST_BACKTRACE", "full");
    let daemon = Running::start(command);
    daemon.wait_log(&["config.yml#trakt"]);
    home.write(&home.text().replace("cache: true", "cache: [SECRET-in-bad-yaml"));
    daemon.wait_log(&["not complete YAML"]);
    told += &said(&home.output("check", &sandbox, &[]));
    home.write(&home.text().replace("cache: [SECRET-in-bad-yaml", "cache: true"));
    daemon.wait_log(&["can be read again"]);
    daemon.reload();
    let (_, log) = daemon.stop();
    told += &log;
    for (command, more) in [("status", &[][..]), ("status", &["--json"]), ("check", &["--diff"])] {
        told += &said(&home.output(command, &sandbox, more));
    }
    let leaks: Vec<_> = told.lines().filter(|line| line.contains("SECRET")).collect();
    assert!(leaks.is_empty(), "{row}: {leaks:#?}");
    for issued in sandbox.ledger().entries() {
        let pair = [issued.access_token.expose(), issued.refresh_token.expose()];
        assert!(pair.iter().all(|token| !told.contains(*token)), "{row}: a token was told");
    }
    assert!(told.contains("config.yml#trakt") && !posts(&sandbox).is_empty());
}

/// `refresh` and its exit statuses: 0 where nothing is due, with nothing sent; `--force` refreshes all the
/// same; 1 where it may work later; 2 where a person must act.
#[test]
fn one_shot() {
    let sandbox = sandbox();
    let grant = sandbox.issue(&TRAKT, CLIENT, 60);
    let home = Home::new(&config_with(&grant));
    let expect = |args: &[&str], code: i32, count: usize| {
        let output = home.output("refresh", &sandbox, args);
        assert_eq!((output.status.code(), posts(&sandbox).len()), (Some(code), count), "{}", said(&output));
        assert!(output.stdout.is_empty());
    };
    expect(&[], 0, 0);
    expect(&["--force"], 0, 1);
    fault(&sandbox, "503");
    expect(&["--force"], 1, 2);
    fault(&sandbox, "invalid-grant");
    expect(&["--force"], 2, 3);
    assert_eq!(value(&home.text(), "refresh_token"), refresh_token(&sandbox.live(&TRAKT, CLIENT).unwrap()).expose());
}

/// `status` and `check` change nothing, and make no state folder; the diff shows the block's keys and
/// nothing else.
#[test]
fn looking_changes_nothing() {
    let sandbox = sandbox();
    let before = config_with(&sandbox.issue(&TRAKT, CLIENT, 60));
    let home = Home::new(&before);
    let status = home.output("status", &sandbox, &[]);
    let text = said(&status);
    assert_eq!(status.status.code(), Some(0), "{text}");
    assert!(text.contains("config.yml#trakt: healthy") && text.contains("for 6 d 23 h"), "{text}");
    let json = home.status(&sandbox);
    assert_eq!((&json["account"], &json["state"]), (&"config.yml#trakt".into(), &"healthy".into()));
    assert!(json["expires_at"].as_i64() > Some(sandbox.now().0));
    let check = home.output("check", &sandbox, &["--diff"]);
    let text = said(&check);
    assert_eq!(check.status.code(), Some(0), "{text}");
    let changed: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with(['+', '-']) && !line.starts_with("+++") && !line.starts_with("---"))
        .collect();
    assert!(!changed.is_empty() && changed.iter().all(|line| line[1..].starts_with("    ")), "{text}");
    assert_eq!((home.text(), home.names()), (before, vec!["config.yml".to_owned()]));
    assert_eq!(posts(&sandbox).len(), 0);
}

/// The help names every command, every option with its variable, and the exit statuses; it and the
/// version go to stdout and end with 0.
#[test]
fn help() {
    let help = |args: &[&str]| {
        let output = program().args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = help(&["--help"]);
    for word in ["run", "refresh", "status", "check", "0 fine, 1 failed", "64 wrong usage"] {
        assert!(text.contains(word), "{word} is not in:\n{text}");
    }
    let text = help(&["run", "--help"]);
    for word in [
        "config",
        "state-dir",
        "trakt-auth-url",
        "mal-auth-url",
        "trakt-redirect-uri",
        "ca-file",
        "log-format",
        "log-level",
    ] {
        let variable = format!("KOMETA_AUTHD_{}", word.to_uppercase().replace('-', "_"));
        assert!(text.contains(&format!("--{word}")) && text.contains(&variable), "{word} is not in:\n{text}");
    }
    assert!(text.contains("KOMETA_CONFIG"), "{text}");
    assert!(help(&["--version"]).contains(env!("CARGO_PKG_VERSION")));
}

/// The config and every flag may come from the environment; Kometa's own name for the config works, too.
#[test]
fn by_the_environment() {
    let sandbox = sandbox();
    for name in ["KOMETA_CONFIG", "KOMETA_AUTHD_CONFIG"] {
        let home = Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 8 * 86_400)));
        let count = posts(&sandbox).len();
        let state = home.path().join("state");
        let mut command = program();
        command.arg("refresh").env(name, &home.config).env("KOMETA_AUTHD_TRAKT_AUTH_URL", sandbox.url());
        let output =
            command.env("KOMETA_AUTHD_STATE_DIR", &state).env("KOMETA_AUTHD_LOG_FORMAT", "json").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(state.is_dir() && said(&output).starts_with('{'), "{}", said(&output));
        assert_eq!(posts(&sandbox).len(), count + 1);
    }
}
