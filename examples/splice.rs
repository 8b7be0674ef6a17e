//! Puts a token endpoint's answer into a config and prints the new text.
//!
//! `splice CONFIG GRANT.json trakt|mal`: GRANT.json holds the answer as it
//! came. The once-key (`pin` or `localhost_url`) is emptied as after a login.
//! Where the edit cannot be made, the reason is on standard error and the exit
//! status is 1. Nothing is written to any file.
#![allow(clippy::disallowed_methods, reason = "reads its own files, none of the user's")]

use std::io::Write as _;
use std::process::ExitCode;

use kometa_authd::provider;
use kometa_authd::splice::{Change, Edit, splice};
use kometa_authd::token::Grant;

fn main() -> ExitCode {
    match run() {
        Ok(text) => match std::io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String, String> {
    let mut arguments = std::env::args().skip(1);
    let (Some(config), Some(grant), Some(name), None) =
        (arguments.next(), arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: splice CONFIG GRANT.json trakt|mal".to_owned());
    };
    let read = |path: &str| std::fs::read(path).map_err(|error| format!("{path}: {error}"));
    let provider = provider::named(&name).ok_or_else(|| format!("{name}: no such provider"))?;
    let grant_json = read(&grant)?;
    let text = String::from_utf8(read(&config)?).map_err(|_| format!("{config}: not UTF-8"))?;
    let grant = Grant::from_json(&grant_json).map_err(|error| format!("{grant}: {error}"))?;
    let edit = Edit { provider, change: Change::Write(&grant), clear_once_key: true };
    let spliced = splice(&text, &edit).map_err(|refused| format!("{config}: {refused}"))?;
    Ok(spliced.text)
}
