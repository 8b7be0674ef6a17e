//! Secrets by reference, as Kometa has them: from the environment, from `.env`, and never written out.
#![cfg(feature = "sandbox")]
#![allow(clippy::disallowed_methods, reason = "the tests play the person and the system")]

mod support;

use kometa_authd::provider::TRAKT;
use kometa_authd::sandbox::Sandbox;
use kometa_authd::sandbox::rules::Client;
use kometa_authd::token::Secret;
use support::{CLIENT, CLIENT_SECRET, Home, around, config_with, posts, said, sandbox};

/// A sandbox that knows one application, and refuses a wrong secret.
fn strict_sandbox() -> Sandbox {
    let sandbox = sandbox();
    let known = Client { id: CLIENT.to_owned(), secret: Some(Secret::new(CLIENT_SECRET)), redirect_uri: None };
    sandbox.set_rules(|rules| rules.clients = vec![known]);
    sandbox
}

/// A config with an expired token whose credentials are the two references.
fn referring(sandbox: &Sandbox, id: &str, secret: &str) -> String {
    config_with(&sandbox.issue(&TRAKT, CLIENT, 8 * 86_400))
        .replace(&format!("client_id: {CLIENT}"), &format!("client_id: {id}"))
        .replace(&format!("client_secret: {CLIENT_SECRET}"), &format!("client_secret: {secret}"))
}

/// Every spelling of a reference that Kometa resolves is resolved: for each, the provider sees the
/// right credentials, and the file keeps the reference.
#[test]
fn every_spelling() {
    type Row = (&'static str, &'static str, &'static [(&'static str, &'static str)], String);
    const BOTH: &[(&str, &str)] = &[("KOMETA_TRAKT_ID", CLIENT), ("KOMETA_TRAKT_SECRET", CLIENT_SECRET)];
    const OLD: &[(&str, &str)] = &[("PMM_TRAKT_ID", CLIENT), ("PMM_TRAKT_SECRET", CLIENT_SECRET)];
    const MIXED: &[(&str, &str)] =
        &[("KOMETA_TRAKT_ID", CLIENT), ("PMM_TRAKT_ID", "older"), ("PMM_TRAKT_SECRET", CLIENT_SECRET)];
    let env_file = |prefix: &str| {
        format!("{prefix}_TRAKT_ID={CLIENT}\nno line of any kind\n{prefix}_TRAKT_SECRET=\"{CLIENT_SECRET}\"\n")
    };
    let table: [Row; 8] = [
        ("<<trakt_id>>", "<<trakt_secret>>", BOTH, String::new()),
        ("<<trakt-id>>", "<<trakt-secret>>", BOTH, String::new()),
        ("<<TRAKT_ID>>", "\"<<Trakt-Secret>>\"", BOTH, String::new()),
        ("<<trakt_id>>", "<<trakt_secret>>", OLD, String::new()),
        ("<<trakt_id>>", "<<trakt_secret>>", MIXED, String::new()),
        ("<<trakt_id>>", "<<trakt_secret>>", &[], env_file("KOMETA")),
        ("<<trakt-id>>", "<<trakt_secret>>", &[], env_file("PMM")),
        // The environment comes before the file.
        ("<<trakt_id>>", "<<trakt_secret>>", BOTH, "KOMETA_TRAKT_ID=other\n".to_owned()),
    ];
    for (row, (id, secret, variables, env)) in table.into_iter().enumerate() {
        let sandbox = strict_sandbox();
        let before = referring(&sandbox, id, secret);
        let home = Home::new(&before);
        if !env.is_empty() {
            std::fs::write(home.path().join(".env"), env).unwrap();
        }
        let output = home.command("refresh", &sandbox).envs(variables.iter().copied()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "row {row}: {}", said(&output));
        let posts = posts(&sandbox);
        assert_eq!(
            (posts.len(), posts[0].client_id.as_deref(), posts[0].status),
            (1, Some(CLIENT), Some(200)),
            "row {row}"
        );
        assert_eq!(around(&home.text()), around(&before), "row {row}: a reference was touched");
    }
}

/// An unresolved reference gets one sentence with its place and the variable's name from each
/// command, and nothing is sent.
#[test]
fn unresolved() {
    let sandbox = strict_sandbox();
    let before = referring(&sandbox, "<<trakt-id>>", "<<trakt_secret>>");
    let home = Home::new(&before);
    let place = "line 6, column 14: `client_id` refers to a secret that is not set; set KOMETA_TRAKT_ID";
    let checked = home.output("check", &sandbox, &[]);
    assert_eq!(checked.status.code(), Some(2));
    assert_eq!(said(&checked).matches(place).count(), 1, "{}", said(&checked));
    let daemon = home.daemon(&sandbox);
    daemon.wait_log(&["config.yml#trakt", "no client_id"]);
    let (status, log) = daemon.stop();
    assert!(status.success());
    assert_eq!(log.matches(place).count(), 1, "{log}");
    assert_eq!(home.text(), before);
    assert_eq!(posts(&sandbox).len(), 0);
}

/// A `.env` that appears and one that is corrected are picked up by a running daemon: the ledger sees
/// a refresh after the first, and the other client's after the second.
#[test]
fn changed_env_file() {
    let sandbox = strict_sandbox();
    let home = Home::new(&referring(&sandbox, "<<trakt_id>>", "<<trakt_secret>>"));
    let daemon = home.daemon(&sandbox);
    daemon.wait_log(&["no client_id"]);
    let env = home.path().join(".env");
    std::fs::write(&env, format!("KOMETA_TRAKT_ID={CLIENT}\nKOMETA_TRAKT_SECRET=wrong\n")).unwrap();
    daemon.wait_log(&["config.yml#trakt", "does not know this client_id or client_secret"]);
    std::fs::write(&env, format!("KOMETA_TRAKT_ID={CLIENT}\nKOMETA_TRAKT_SECRET={CLIENT_SECRET}\n")).unwrap();
    daemon.wait_log(&["config.yml#trakt", "token refreshed"]);
    daemon.stop();
    let statuses: Vec<_> = posts(&sandbox).iter().map(|post| post.status).collect();
    assert_eq!(statuses, [Some(401), Some(200)]);
    assert!(home.text().contains("client_id: <<trakt_id>>\n"));
}
