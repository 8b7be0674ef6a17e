//! People are told: each format at a real receiver, each channel that is of no use, once and not twice.
#![cfg(feature = "sandbox")]
#![allow(clippy::disallowed_methods, reason = "the tests play the person and the system")]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use kometa_authd::provider::TRAKT;
use kometa_authd::sandbox::rules::Rules;
use kometa_authd::sandbox::{Options, Sandbox};
use kometa_authd::token::{Grant, Secret};
use serde_json::{Value, json};
use support::receiver::{Answer, Receiver};
use support::{CLIENT, Home, Running, config_with, refresh_token, said, sandbox};

const DAY_S: i64 = 86_400;

/// A home whose refresh token the provider rejects, while its access token has expired.
fn rejected(sandbox: &Sandbox) -> Home {
    let grant = sandbox.issue(&TRAKT, CLIENT, 8 * DAY_S);
    let home = Home::new(&config_with(&grant));
    assert!(sandbox.revoke(refresh_token(&grant)));
    home
}

/// The daemon with further arguments.
fn daemon(home: &Home, sandbox: &Sandbox, args: &[&str]) -> Running {
    let mut command = home.command("run", sandbox);
    command.args(args).args(["--log-level", "trace"]);
    Running::start(command)
}

/// The address of a format at a receiver.
fn address(format: &str, receiver: &Receiver, rest: &str) -> String {
    format!("{format}+http://{}/{rest}", receiver.host())
}

/// A program that does something with what it gets.
fn program(home: &Home, text: &str) -> PathBuf {
    let path = home.path().join("told.sh");
    std::fs::write(&path, format!("#!/bin/sh\n{text}")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    path
}

/// The fields of a message in docs/messages.md, each with its variable, if it has one.
fn documented() -> Vec<(String, Option<String>)> {
    let cell = |text: &str| Some(text.trim().strip_prefix('`')?.strip_suffix('`')?.to_owned());
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| ")?.split('|');
        Some((cell(cells.next()?)?, cell(cells.next()?)))
    };
    include_str!("../docs/messages.md").lines().filter_map(row).collect()
}

/// Each format as its service documents it: `notify --test` posts to a receiver, and what arrived is
/// compared with the recorded shape, its address and its key.
#[test]
fn formats() {
    let home = Home::new("trakt:\n  client_id: x\n");
    let sandbox = sandbox();
    let title = "kometa-authd: test";
    let text = json!(format!(
        "What happened: this is a test, sent by `kometa-authd notify --test`\n\
         What to do: nothing: messages of kometa-authd arrive here\nWhere: {}",
        home.config.display()
    ));
    for (format, rest, line, key, shape) in [
        (
            "discord",
            "api/webhooks/1/x",
            "POST /api/webhooks/1/x",
            None,
            json!({
                "username": "kometa-authd", "allowed_mentions": { "parse": [] },
                "embeds": [{ "title": title, "description": text, "color": 0x002E_A043 }],
            }),
        ),
        (
            "slack",
            "services/T/B/x",
            "POST /services/T/B/x",
            None,
            json!({
                "text": title,
                "blocks": [
                    { "type": "header", "text": { "type": "plain_text", "text": title } },
                    { "type": "section", "text": { "type": "plain_text", "text": text } },
                ],
            }),
        ),
        (
            "ntfy",
            "topic-1",
            "POST /",
            None,
            json!({
                "topic": "topic-1", "title": title, "message": text, "priority": 3, "tags": ["white_check_mark"],
            }),
        ),
        (
            "gotify",
            "sub/Atoken",
            "POST /sub/message",
            Some(("x-gotify-key", "Atoken")),
            json!({ "title": title, "message": text, "priority": 4 }),
        ),
        (
            "apprise",
            "notify/key",
            "POST /notify/key",
            None,
            json!({ "title": title, "body": text, "type": "success", "format": "text" }),
        ),
        (
            "notifiarr",
            "apikey",
            "GET /api/v1/notification/pmm/",
            Some(("x-api-key", "apikey")),
            json!({
                "event": "error", "critical": false, "library_mapping_name": "",
                "error": format!("{title}\n{}", text.as_str().unwrap()),
            }),
        ),
    ] {
        let receiver = Receiver::start(Answer::Status(200));
        let output = home.output("notify", &sandbox, &["--test", "--notify", &address(format, &receiver, rest)]);
        assert!(output.status.success(), "{format}: {}", said(&output));
        let got = receiver.wait(1).remove(0);
        assert_eq!((got.line.as_str(), got.json()), (line, shape), "{format}");
        assert_eq!(got.header("content-type"), Some("application/json"));
        if let Some((name, value)) = key {
            assert_eq!(got.header(name), Some(value), "{format}");
        }
    }
    let receiver = Receiver::start(Answer::Status(200));
    home.output("notify", &sandbox, &["--test", "--notify", &format!("http://{}/any?x=y", receiver.host())]);
    let got = receiver.wait(1).remove(0);
    let shape = got.json();
    let fields: Vec<_> = shape.as_object().unwrap().keys().cloned().collect();
    let mut expected: Vec<_> = documented().into_iter().map(|(field, _)| field).collect();
    expected.sort();
    assert_eq!(fields, expected);
    assert_eq!((got.line.as_str(), &shape["event"], &shape["text"]), ("POST /any?x=y", &json!("test"), &text));
}

/// A server that wants to be logged in to gets what stands in the address.
#[test]
fn logged_in() {
    let home = Home::new("trakt:\n  client_id: x\n");
    let receiver = Receiver::start(Answer::Status(200));
    for (user, expected) in [("tk_x", "Bearer tk_x"), ("me:pass", "Basic bWU6cGFzcw==")] {
        let address = format!("ntfy://{user}@{}/topic", receiver.host());
        home.output("notify", &sandbox(), &["--test", "--notify", &address]);
        let got = receiver.got();
        assert_eq!(got.last().unwrap().header("authorization"), Some(expected));
    }
}

/// `notify --test` says how each channel is, one line each, and fails where any does; nothing of an
/// address is shown.
#[test]
fn one_line_each() {
    let home = Home::new("trakt:\n  client_id: x\n");
    let (good, bad) = (Receiver::start(Answer::Status(204)), Receiver::start(Answer::Status(404)));
    let elsewhere = Receiver::start(Answer::Redirect(good.port()));
    let mut command = home.command("notify", &sandbox());
    let addresses = [
        address("discord", &good, "api/webhooks/1/planted"),
        address("json", &bad, "planted"),
        address("gotify", &elsewhere, "planted"),
        "ntfy://127.0.0.1:9/planted".to_owned(),
    ];
    let output = command.arg("--test").env("KOMETA_AUTHD_NOTIFY", addresses.join(" ")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        [
            "Discord at 127.0.0.1: delivered",
            "webhook at 127.0.0.1: failed: HTTP 404",
            "Gotify at 127.0.0.1: failed: it redirects (HTTP 307), which is not followed",
            "ntfy at 127.0.0.1: failed: connection refused",
        ]
    );
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(good.got().len(), 1);
    let nobody = home.output("notify", &sandbox(), &["--test"]);
    assert_eq!(nobody.status.code(), Some(1), "{}", said(&nobody));
    let wrong = home.output("notify", &sandbox(), &["--test", "--notify", "http://example.org/planted"]);
    assert_eq!(wrong.status.code(), Some(64));
    assert!(said(&wrong).contains("address 1: plain http") && !said(&wrong).contains("planted"), "{}", said(&wrong));
}

/// With no setting at all, Kometa's own `webhooks: error` is used, in the shape that Kometa itself sends, references
/// resolved; `--no-kometa-webhooks` leaves it alone.
#[test]
fn kometa_webhooks() {
    let sandbox = sandbox();
    let (plain, gotify) = (Receiver::start(Answer::Status(200)), Receiver::start(Answer::Status(200)));
    let home = rejected(&sandbox);
    let text = format!(
        "{}webhooks:\n  error: [<<hook>>, gotify]\ngotify:\n  url: http://{}\n  token: <<gotify-token>>\n",
        home.text(),
        gotify.host()
    );
    home.write(&text);
    home.age();
    let mut command = home.command("run", &sandbox);
    command.env("KOMETA_HOOK", format!("http://{}/hook", plain.host())).env("KOMETA_GOTIFY_TOKEN", "planted-token");
    let daemon = Running::start(command);
    let got = plain.wait(1).remove(0);
    let body = got.json();
    assert_eq!((&body["event"], &body["critical"]), (&json!("error"), &json!(true)));
    let error = body["error"].as_str().unwrap();
    let place = format!("Where: {}, section trakt", home.config.display());
    for part in [
        "config.yml#trakt",
        "rejected the refresh token",
        "Still works: nothing",
        "What to do: authorize again",
        &place,
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let got = gotify.wait(1).remove(0);
    assert_eq!((got.line.as_str(), got.header("x-gotify-key")), ("POST /message", Some("planted-token")));
    daemon.stop();
    let mut command = home.command("notify", &sandbox);
    command.args(["--test", "--no-kometa-webhooks"]);
    assert_eq!(command.output().unwrap().status.code(), Some(1));
    assert_eq!((plain.got().len(), gotify.got().len()), (1, 1));
}

/// A channel that hangs and one that is down delay nothing: the other account is refreshed and the good
/// channel is told meanwhile, and the daemon stops within its short moment.
#[test]
fn useless_channels() {
    let sandbox = sandbox();
    let (hangs, good) = (Receiver::start(Answer::Never), Receiver::start(Answer::Status(200)));
    let home = rejected(&sandbox);
    let addresses =
        [address("json", &hangs, ""), "json+http://127.0.0.1:9/".to_owned(), address("json", &good, "")].join(" ");
    let daemon = daemon(&home, &sandbox, &["--notify", &addresses]);
    good.wait(1);
    hangs.wait(1);
    daemon.wait_log(&["could not be delivered", "connection refused", "again_in_s=30"]);
    // The first message still hangs.
    let fresh = sandbox.issue(&TRAKT, CLIENT, 8 * DAY_S);
    home.replace(&config_with(&fresh));
    daemon.wait_log(&["token refreshed"]);
    let said = good.wait(2);
    assert_eq!(said[1].json()["saying"], "recovered");
    assert!(!daemon.log().contains("no answer within"), "{}", daemon.log());
    assert_eq!(sandbox.ledger().spent_and_reused().1, 0);
    let before = Instant::now();
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    assert!(before.elapsed().as_secs() < 10, "{log}");
}

/// A problem is told once: not again by a further look, nor after a restart; its end is told once, also
/// where another process told of the problem.
#[test]
fn once() {
    let sandbox = sandbox();
    let receiver = Receiver::start(Answer::Status(200));
    let home = rejected(&sandbox);
    let address = address("json", &receiver, "");
    let args = ["--notify", address.as_str()];
    let first = daemon(&home, &sandbox, &args);
    let told = receiver.wait(1);
    assert_eq!((&told[0].json()["event"], &told[0].json()["saying"]), (&json!("rejected"), &json!("problem")));
    let lines = first.log_len();
    first.reload();
    first.wait_log_from(lines, &["rejected the refresh token"]);
    first.stop();
    let mode = std::fs::metadata(home.state().join("config.yml#told")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = daemon(&home, &sandbox, &args);
    second.wait_log(&["rejected the refresh token"]);
    second.stop();
    assert_eq!(receiver.got().len(), 1);
    let fresh = sandbox.issue(&TRAKT, CLIENT, 0);
    home.write(&config_with(&fresh));
    home.age();
    let third = daemon(&home, &sandbox, &args);
    let told = receiver.wait(2);
    let body = told[1].json();
    assert_eq!((&body["saying"], &body["account"]), (&json!("recovered"), &json!("config.yml#trakt")));
    assert!(body["text"].as_str().unwrap().contains("It is over that: the provider rejected"), "{body}");
    third.reload();
    third.stop();
    assert_eq!(receiver.got().len(), 2);
    assert!(!home.state().join("config.yml#told").exists());
}

/// A provider that is down in the last quarter of a token's life: nobody is told of the first failure, which may
/// be over in a moment. Once it has lasted for five minutes it is told, with its cause and for how long the token still
/// works, and so is the end of it. The five minutes pass by setting back what the stopped daemon remembered.
#[test]
fn running_out() {
    let sandbox = sandbox();
    let receiver = Receiver::start(Answer::Status(200));
    let home = Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 7 * DAY_S - 3600)));
    let address = address("json", &receiver, "");
    let args = ["--notify", address.as_str()];
    support::fault(&sandbox, "503@always");
    let first = daemon(&home, &sandbox, &args);
    first.wait_log(&["ERROR", "less than a quarter of its life left", "503", "next="]);
    first.stop();
    assert_eq!(receiver.got().len(), 0);
    let path = home.state().join("config.yml#told");
    let mut told: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let since = &mut told["problems"][0]["since"];
    *since = (since.as_i64().unwrap() - 301).into();
    std::fs::write(&path, told.to_string()).unwrap();
    let second = daemon(&home, &sandbox, &args);
    let told = receiver.wait(1)[0].json();
    assert_eq!((&told["event"], &told["saying"]), (&json!("running_out"), &json!("problem")));
    let text = told["text"].as_str().unwrap();
    for part in ["Because: ", "503", "Still works: ", "until ", "What to do: see the cause", ", section trakt"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    sandbox.clear_faults();
    second.reload();
    let told = receiver.wait(2)[1].json();
    assert_eq!((&told["event"], &told["saying"]), (&json!("refreshed"), &json!("recovered")));
    assert!(told["text"].as_str().unwrap().contains("It is over that: refreshing fails"), "{told}");
    second.stop();
    assert_eq!(receiver.got().len(), 2);
}

/// A file that cannot be edited is told at once, with the place in it, and so is the end of that; no token was spent
/// meanwhile.
#[test]
fn refused_edit() {
    let sandbox = sandbox();
    let receiver = Receiver::start(Answer::Status(200));
    let grant = sandbox.issue(&TRAKT, CLIENT, 8 * DAY_S);
    let text = config_with(&grant);
    let home = Home::new(&text.replace(grant.access_token.expose(), "<<access>>"));
    let daemon = daemon(&home, &sandbox, &["--notify", &address("json", &receiver, "")]);
    let told = receiver.wait(1)[0].json();
    assert_eq!((&told["event"], &told["saying"]), (&json!("edit_refused"), &json!("problem")));
    let body = told["text"].as_str().unwrap();
    for part in ["Because: line 11", "What to do: change the named place", ", section trakt"] {
        assert!(body.contains(part), "{part}: {body}");
    }
    assert_eq!(sandbox.ledger().spent_and_reused(), (0, 0));
    home.replace(&text);
    let told = receiver.wait(2)[1].json();
    assert_eq!((&told["event"], &told["saying"]), (&json!("refreshed"), &json!("recovered")));
    daemon.stop();
}

/// The program gets the message in its environment and as JSON, and none of Kometa's secrets.
#[test]
fn on_event() {
    let sandbox = sandbox();
    let home = rejected(&sandbox);
    let out = home.path().join("out");
    let script = format!("cat > {0}.json; env > {0}.env; mv {0}.env {0}", out.display());
    let script = program(&home, &script);
    let mut command = home.command("run", &sandbox);
    command.arg("--on-event").arg(&script).args(["--log-level", "debug"]).env("KOMETA_PLANTED", "planted");
    let daemon = Running::start(command);
    daemon.wait_log(&["message delivered", "command"]);
    let environment = std::fs::read_to_string(&out).unwrap();
    let body: Value = serde_json::from_str(&std::fs::read_to_string(out.with_extension("json")).unwrap()).unwrap();
    let documented = documented();
    let mut variables = Vec::new();
    for (field, variable) in documented.iter().filter_map(|(field, variable)| Some((field, variable.as_ref()?))) {
        let value = match &body[field] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        assert!(environment.contains(&format!("{variable}={value}\n")), "{variable}: {environment}");
        variables.push(variable.as_str());
    }
    let names = environment.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name);
    let mut set: Vec<_> = names.filter(|name| name.starts_with("KOMETA_") || name.starts_with("PMM_")).collect();
    set.sort_unstable();
    variables.sort_unstable();
    assert_eq!(set, variables);
    assert!(environment.contains("KOMETA_AUTHD_TODO=authorize again") && !environment.contains("planted"));
    daemon.stop();
    // One that fails is said to, with its status.
    let failing = Home::new("trakt:\n  client_id: x\n");
    let fails = program(&failing, "exit 3");
    let output = failing.output("notify", &sandbox, &["--test", "--on-event", fails.to_str().unwrap()]);
    assert!(output.status.code() == Some(1) && said(&output).contains("exit status: 3"), "{}", said(&output));
}

/// A program that hangs is killed at its limit, with its children, and is said to have been.
#[test]
fn hanging_program() {
    let home = Home::new("trakt:\n  client_id: x\n");
    let pids = home.path().join("pids");
    // The child keeps the lock, so that its end can be waited for.
    let lock = home.path().join("lock");
    std::fs::write(&lock, "").unwrap();
    let text = format!("echo $$ > {}; flock {} sleep 600", pids.display(), lock.display());
    let script = program(&home, &text);
    let output = home.output("notify", &sandbox(), &["--test", "--on-event", script.to_str().unwrap()]);
    let text = said(&output);
    assert!(output.status.code() == Some(1) && text.contains("did not end within 30 seconds and was killed"), "{text}");
    let pid = std::fs::read_to_string(&pids).unwrap();
    assert!(!Path::new(&format!("/proc/{}", pid.trim())).exists());
    let file = std::fs::File::open(&lock).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
}

/// A message that waits for its next time when the daemon stops is tried once more then. Where that fails as
/// well, the next start tells it, and not a day later.
#[test]
fn undelivered_at_the_stop() {
    for heals in [true, false] {
        let sandbox = sandbox();
        let receiver = Receiver::start(Answer::Status(503));
        let home = rejected(&sandbox);
        let address = address("json", &receiver, "");
        let first = daemon(&home, &sandbox, &["--notify", &address]);
        first.wait_log(&["could not be delivered", "HTTP 503", "again_in_s=30"]);
        if heals {
            receiver.answer(Answer::Status(200));
        }
        let (status, log) = first.stop();
        assert!(status.success(), "{log}");
        assert_eq!(receiver.got().len(), 2, "{log}");
        assert_eq!(log.contains("a message reached nobody before the stop"), !heals, "{log}");
        receiver.answer(Answer::Status(200));
        let second = daemon(&home, &sandbox, &["--notify", &address]);
        second.wait_log(&["rejected the refresh token"]);
        if !heals {
            let told = receiver.wait(3);
            assert_eq!((&told[2].json()["event"], &told[2].json()["saying"]), (&json!("rejected"), &json!("problem")));
        }
        second.stop();
        assert_eq!(receiver.got().len(), if heals { 2 } else { 3 });
    }
}

/// Each code reaches the person, not only the first: the one in the message of ten minutes ago is of no use any
/// more. After the last one it is said that there are no more.
#[test]
fn each_code() {
    let rules = Rules { device_interval_s: 1, ..Rules::default() };
    let sandbox = Sandbox::start(Options { rules, ..Options::default() }).unwrap();
    let receiver = Receiver::start(Answer::Status(200));
    let home = Home::new(&format!("trakt:\n  client_id: {CLIENT}\n  authorization:\n"));
    let address = address("json", &receiver, "");
    let daemon = daemon(&home, &sandbox, &["--notify", &address, "--device-login", "on"]);
    for round in 1..=3 {
        let told = receiver.wait(round).pop().unwrap().json();
        let code = sandbox.ledger().codes.devices.last().unwrap().user_code.clone();
        assert_eq!(told["event"], "enter_code", "{told}");
        let (link, detail) = (told["link"].as_str().unwrap(), told["detail"].as_str().unwrap());
        assert!(link.ends_with(&code) && detail.contains(&format!("enter {code}")), "{told}");
        assert_eq!(told["saying"], if round == 1 { "problem" } else { "reminder" });
        sandbox.advance(601);
    }
    assert_eq!(receiver.wait(4)[3].json()["event"], "codes_unused");
    daemon.stop();
    assert_eq!(receiver.got().len(), 4);
}

/// Two configs of one name are told apart, in the log, in `status` and in messages; and what was told of one is
/// known of it under its own name as well.
#[test]
fn two_configs_of_one_name() {
    let sandbox = sandbox();
    let receiver = Receiver::start(Answer::Status(200));
    let home = Home::new("");
    let configs = ["alice", "bob"].map(|name| {
        let folder = home.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let grant = sandbox.issue(&TRAKT, CLIENT, 8 * DAY_S);
        assert!(name == "alice" || sandbox.revoke(refresh_token(&grant)));
        let config = folder.join("config.yml");
        std::fs::write(&config, config_with(&grant)).unwrap();
        config
    });
    let url = sandbox.url();
    let command = |name: &str, configs: &[PathBuf]| {
        let mut command = support::program();
        command.args([name, "--trakt-auth-url", &url]);
        for config in configs {
            command.arg("--config").arg(config);
        }
        command
    };
    let mut run = command("run", &configs);
    run.args(["--notify", &address("json", &receiver, "")]);
    let daemon = Running::start(run);
    daemon.wait_log(&[" alice/config.yml#trakt: token refreshed"]);
    daemon.wait_log(&[" bob/config.yml#trakt: the provider rejected the refresh token"]);
    let told = receiver.wait(1)[0].json();
    assert_eq!((&told["account"], &told["config"]), (&json!("bob/config.yml#trakt"), &json!(configs[1])));
    let status = |configs: &[PathBuf]| -> Value {
        serde_json::from_slice(&command("status", configs).arg("--json").output().unwrap().stdout).unwrap()
    };
    let both = status(&configs);
    let names: Vec<_> = both.as_array().unwrap().iter().map(|one| &one["account"]).collect();
    assert_eq!(names, ["alice/config.yml#trakt", "bob/config.yml#trakt"]);
    assert_eq!(both[1]["problems"][0]["event"], "rejected");
    let alone = status(&configs[1..]);
    assert_eq!(alone[0]["account"], "config.yml#trakt");
    assert_eq!(alone[0]["problems"][0]["event"], "rejected");
    daemon.stop();
}

/// A panic with secrets in memory shows none, neither in its message nor in a backtrace, wherever in a refresh it
/// happens; nor does the start after it.
#[test]
fn no_secret_in_a_panic() {
    let panics = |n: usize| {
        let sandbox = sandbox();
        sandbox.name_next("planted-access", "planted-refresh");
        let grant = sandbox.issue(&TRAKT, CLIENT, 8 * DAY_S);
        let home = Home::new(&config_with(&grant).replace("test-client-secret", "planted-client-secret"));
        sandbox.name_next("planted-next-access", "planted-next-refresh");
        let mut command = home.command("refresh", &sandbox);
        command.args(["--log-level", "trace"]).env("RUST_BACKTRACE", "full").env("RUST_LOG", "trace");
        let first = command.env("KOMETA_AUTHD_FAULT", format!("PANIC@{n}")).output().unwrap();
        let second = command.env_remove("KOMETA_AUTHD_FAULT").output().unwrap();
        let text = said(&first);
        assert!(!text.contains("planted") && !said(&second).contains("planted"), "{n}: {text}");
        let panicked = text.contains("a fault was asked for at");
        assert!(!panicked || text.contains("stack backtrace") && !first.status.success(), "{n}: {text}");
        panicked
    };
    // Every third operation: they come in threes and more of one kind.
    let last = (1..300).step_by(3).find(|n| !panics(*n)).unwrap();
    assert!(last > 40, "only {last} operations");
}

/// Secrets planted wherever one can be are nowhere to be seen: not in the log at trace level, in what the channels
/// and the program got, in what each command says, in the process list, or in what was remembered of messages.
#[test]
fn no_secret_anywhere() {
    let sandbox = sandbox();
    let receiver = Receiver::start(Answer::Status(500));
    sandbox.name_next("planted-access", "planted-refresh");
    let grant = sandbox.issue(&TRAKT, CLIENT, 8 * DAY_S);
    let grant = Grant { access_token: Secret::new("planted-file-access"), ..grant };
    let text = config_with(&grant)
        .replace("test-client-secret", "planted-client-secret")
        .replace("  pin:\n", "  pin: planted-pin\n")
        + "webhooks:\n  error: <<hook>>\nmal:\n  client_id: <<planted>>\n  localhost_url: http://localhost/?code=planted-code\n";
    let home = Home::new(&text);
    sandbox.name_next("planted-next-access", "planted-next-refresh");
    let environment = [
        ("KOMETA_HOOK", format!("http://planted-user:planted-password@{}/planted-path?planted=query", receiver.host())),
        // A client_id is no secret: it stands in the link that a person opens.
        ("KOMETA_PLANTED", "mal-client".to_owned()),
    ];
    let mut command = home.command("run", &sandbox);
    command.args(["--log-level", "trace"]).envs(environment.clone());
    let daemon = Running::start(command);
    daemon.wait_log(&["token refreshed"]);
    assert!(home.text().contains("planted-next-access"));
    // The pin that was rejected, and the account without a token.
    let got = receiver.wait(2);
    daemon.wait_log(&["could not be delivered"]);
    let mut seen = vec![
        std::fs::read_to_string(format!("/proc/{}/cmdline", daemon.id())).unwrap(),
        std::fs::read_to_string(format!("/proc/{}/comm", daemon.id())).unwrap(),
    ];
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["check"],
        &["check", "--diff"],
        &["healthcheck"],
        &["notify", "--test"],
    ] {
        let mut command = home.command(args[0], &sandbox);
        command.args(&args[1..]).envs(environment.clone());
        seen.push(said(&command.output().unwrap()));
    }
    for args in [&["--help"][..], &["run", "--help"], &["notify", "--help"], &["run", "--notify"]] {
        let mut command: Command = support::program();
        command.args(args).envs(environment.clone()).env("KOMETA_AUTHD_NOTIFY", "json+ftp://planted-address");
        seen.push(said(&command.output().unwrap()));
    }
    seen.extend(got.into_iter().map(|got| got.body));
    seen.push(std::fs::read_to_string(home.state().join("config.yml#told")).unwrap());
    seen.push(daemon.stop().1);
    for text in seen {
        // The help and the reference have the names of the variables, and only those.
        let text = text.replace("KOMETA_PLANTED", "").replace("<<planted>>", "");
        assert!(!text.contains("planted"), "{text}");
    }
}
