//! A minute of the daemon's life, for a person to watch.
//!
//! Runs the real program as a child against a sandbox with short-lived tokens,
//! in a temporary folder, and shows what it does to the file.
#![expect(clippy::disallowed_methods, reason = "plays the person, who has no disk trait")]

use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::rules::Rules;
use super::{Options, Sandbox};
use crate::check::changed_lines;

/// How many refreshes are shown.
const REFRESHES: usize = 3;
/// The lifetime of the demo's tokens: three refreshes fit into a minute.
const LIFETIME_S: i64 = 20;
/// Nothing in the demo takes longer.
const PATIENCE: Duration = Duration::from_secs(90);
/// The example that the project ships.
const EXAMPLE: &str = include_str!("../../config.example.yml");

/// Shows it; the exit status is 0 where everything went as it should.
pub fn show() -> io::Result<u8> {
    let mut out = io::stdout();
    let color = out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let rules = Rules { lifetime_s: Some(LIFETIME_S), seed: fastrand::u64(..), ..Rules::default() };
    let sandbox = Sandbox::start(Options { rules, ..Options::default() })?;
    let folder = Folder::new()?;
    let config = folder.0.join("config.yml");
    let pin = sandbox.pin();
    let text = EXAMPLE.replacen("client_id: #", "client_id: demo-client #", 1).replacen(
        "pin: #",
        &format!("pin: {} #", pin.expose()),
        1,
    );
    std::fs::write(&config, &text)?;
    writeln!(
        out,
        "A pretend Trakt runs at {}, with tokens that live {LIFETIME_S} seconds.\n\
         {} is a copy of config.example.yml with a client_id and a fresh PIN in it.\n\
         kometa-authd starts; its log follows, and below each step the lines of the file that changed.\n",
        sandbox.url(),
        config.display()
    )?;
    let mut daemon = Daemon::start(&config, &sandbox.url())?;
    let mut before = text;
    let mut granted = 0;
    while granted <= REFRESHES {
        let wanted = granted + 1;
        let came = sandbox.wait(PATIENCE, |world| world.ledger.entries().len() >= wanted);
        let after = if came { changed(&config, &before) } else { None };
        let Some(after) = after else {
            writeln!(out, "\nThe daemon did not refresh in time; its log above says why.")?;
            return Ok(1);
        };
        let title =
            if granted == 0 { "The PIN was exchanged".to_owned() } else { format!("Refresh {granted} of {REFRESHES}") };
        writeln!(out, "\n{title}:\n{}", painted(&changed_lines(&before, &after), color))?;
        (before, granted) = (after, wanted);
    }
    daemon.stop()?;
    writeln!(
        out,
        "\nThat was all: every token was spent once, and no other byte of the file changed.\n\n\
         To use it for real, on your own config:\n\
         \x20 kometa-authd check --config /path/to/config.yml     what it would do, and whether anything is wrong\n\
         \x20 kometa-authd run --config /path/to/config.yml       keep the tokens valid\n\
         \x20 kometa-authd status --config /path/to/config.yml    how long they are valid, and what is next"
    )?;
    Ok(0)
}

/// Waits for the file to be another than before, by looking; the demo has no deadline to miss.
fn changed(path: &Path, before: &str) -> Option<String> {
    let (tell, told) = std::sync::mpsc::channel();
    let mut watch = notify::recommended_watcher(move |_| {
        let _ = tell.send(());
    })
    .ok()?;
    notify::Watcher::watch(&mut watch, path.parent()?, notify::RecursiveMode::NonRecursive).ok()?;
    loop {
        let text = std::fs::read_to_string(path).ok()?;
        if text != before {
            return Some(text);
        }
        told.recv_timeout(PATIENCE).ok()?;
    }
}

fn painted(diff: &str, color: bool) -> String {
    let paint = |line: &str| match line.as_bytes().first() {
        Some(b'+') if color => format!("  \x1b[32m{line}\x1b[0m\n"),
        Some(b'-') if color => format!("  \x1b[31m{line}\x1b[0m\n"),
        _ => format!("  {line}\n"),
    };
    diff.lines().filter(|line| !line.starts_with("@@")).map(paint).collect()
}

/// The program itself, as a child that does not outlive the demo.
struct Daemon(Child);

impl Daemon {
    fn start(config: &Path, url: &str) -> io::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args(["run", "--trakt-auth-url", url, "--mal-auth-url", url, "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Self(child))
    }

    fn stop(&mut self) -> io::Result<()> {
        let id = i32::try_from(self.0.id()).map_err(io::Error::other)?;
        if let Some(id) = rustix::process::Pid::from_raw(id) {
            rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
        }
        self.0.wait().map(drop)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A temporary folder that is gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("kometa-authd-demo-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
