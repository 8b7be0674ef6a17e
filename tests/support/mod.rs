//! What the tests of the real program share: a home with a config in it, and
//! the program as a child whose log can be waited for.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::disallowed_methods, reason = "the tests play the person and the system")]

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use kometa_authd::sandbox::world::Visit;
use kometa_authd::sandbox::{Options, Sandbox};
use kometa_authd::token::{Grant, Secret};
use notify::EventKindMask;
use rustix::process::Signal;
use serde_json::Value;

pub mod receiver;
pub mod since;
#[path = "../common/skipped.rs"]
mod skipped;

pub use skipped::skipped;

/// Nothing that is waited for takes longer, even on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The `client_id` of every test's config.
pub const CLIENT: &str = "test-client-id";
/// The `client_secret` of every test's config.
pub const CLIENT_SECRET: &str = "test-client-secret";

/// A sandbox that does what the providers document.
pub fn sandbox() -> Sandbox {
    Sandbox::start(Options::default()).unwrap()
}

/// Something goes wrong.
pub fn fault(sandbox: &Sandbox, text: &str) {
    sandbox.fault(text.parse().unwrap());
}

/// The requests for tokens so far.
pub fn posts(sandbox: &Sandbox) -> Vec<Visit> {
    sandbox.requests().into_iter().filter(|visit| visit.method == "POST").collect()
}

/// Waits for a request that brings that token or code, and has been answered or cut off.
pub fn wait_presented(sandbox: &Sandbox, token: &Secret) {
    let wanted = Some(token.fingerprint());
    let came = sandbox.wait(PATIENCE, |world| world.requests.iter().any(|visit| visit.presented == wanted));
    assert!(came, "the token was never presented");
}

/// Waits for so many requests.
pub fn wait_posts(sandbox: &Sandbox, count: usize) {
    assert!(sandbox.wait(PATIENCE, |world| world.requests.len() >= count), "there were never {count} requests");
}

/// A folder with a config in it.
pub struct Home {
    folder: tempfile::TempDir,
    /// The config.
    pub config: PathBuf,
}

impl Home {
    /// A home whose config has this text.
    pub fn new(text: &str) -> Self {
        Self::within(tempfile::tempdir().unwrap(), text)
    }

    /// The same in memory, where there is such a place: what others do to the disk costs no time there.
    pub fn in_memory(text: &str) -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self::within(folder.unwrap(), text)
    }

    fn within(folder: tempfile::TempDir, text: &str) -> Self {
        let config = folder.path().join("config.yml");
        std::fs::write(&config, text).unwrap();
        let home = Self { folder, config };
        home.age();
        home
    }

    /// Makes the config look as if nobody had written it for an hour: what was written just now is left
    /// alone for a moment.
    pub fn age(&self) {
        let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
        std::fs::File::options().write(true).open(&self.config).unwrap().set_modified(hour_ago).unwrap();
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The config's text now.
    pub fn text(&self) -> String {
        std::fs::read_to_string(&self.config).unwrap()
    }

    /// The names in the folder.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The program with a command and this home's config, against a sandbox.
    pub fn command(&self, command: &str, sandbox: &Sandbox) -> Command {
        let url = sandbox.url();
        let mut program = program();
        program.args([command, "--trakt-auth-url", &url, "--mal-auth-url", &url, "--config"]).arg(&self.config);
        program
    }

    /// The state folder.
    pub fn state(&self) -> PathBuf {
        self.path().join(".kometa-authd")
    }

    /// Writes over the config in place, as Kometa does.
    pub fn write(&self, text: &str) {
        std::fs::write(&self.config, text).unwrap();
    }

    /// Puts another file in the config's place.
    pub fn replace(&self, text: &str) {
        let new = self.path().join("config.yml~new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &self.config).unwrap();
    }

    /// The first account that `status --json` shows.
    pub fn status(&self, sandbox: &Sandbox) -> Value {
        let output = self.output("status", sandbox, &["--json"]);
        let all: Value = serde_json::from_slice(&output.stdout).unwrap();
        all[0].clone()
    }

    /// Runs a command to its end.
    pub fn output(&self, command: &str, sandbox: &Sandbox, args: &[&str]) -> Output {
        self.command(command, sandbox).args(args).output().unwrap()
    }

    /// Starts the daemon and waits until it is at rest for the first time.
    pub fn daemon(&self, sandbox: &Sandbox) -> Running {
        Running::start(self.command("run", sandbox))
    }

    /// Waits until the config's text is as wished.
    pub fn wait(&self, holds: impl Fn(&str) -> bool) -> String {
        let (tell, told) = channel();
        // Not every event: our own reading is one, too.
        let mask = EventKindMask::CREATE | EventKindMask::MODIFY_NAME | EventKindMask::ACCESS_CLOSE;
        let mut watch = <notify::RecommendedWatcher as notify::Watcher>::new(
            move |_| {
                let _ = tell.send(());
            },
            notify::Config::default().with_event_kinds(mask),
        )
        .unwrap();
        notify::Watcher::watch(&mut watch, self.path(), notify::RecursiveMode::NonRecursive).unwrap();
        let end = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(&self.config).unwrap_or_default();
            if holds(&text) {
                return text;
            }
            let left = end.saturating_duration_since(Instant::now());
            let changed = !left.is_zero() && told.recv_timeout(left).is_ok();
            assert!(changed, "the config never became as expected; it is:\n{text}");
        }
    }
}

/// The program, without this machine's settings.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kometa-authd"));
    for (name, _) in std::env::vars() {
        if name.starts_with("KOMETA") || name.starts_with("PMM_") {
            command.env_remove(name);
        }
    }
    // What the hour of the test is must not matter.
    command.env("KOMETA_AUTHD_KOMETA_TIMES", "off");
    // Nobody is asked to authorize but in the tests of that.
    command.env("KOMETA_AUTHD_DEVICE_LOGIN", "off");
    command.env("TZ", "UTC").env_remove("NOTIFY_SOCKET").env_remove("STATE_DIRECTORY").stdin(Stdio::null());
    command
}

/// A running daemon.
pub struct Running {
    child: Child,
    log: Arc<(Mutex<Vec<String>>, Condvar)>,
    ended: Receiver<()>,
}

impl Running {
    /// Starts a command whose log can be waited for.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (end, ended) = channel();
        let writer = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                writer.0.lock().unwrap().push(line);
                writer.1.notify_all();
            }
            let _ = end.send(());
        });
        Self { child, log, ended }
    }

    /// Waits for a log line with all of these texts, also among those that came before.
    pub fn wait_log(&self, texts: &[&str]) -> String {
        self.wait_log_from(0, texts)
    }

    /// The same, from a line on.
    pub fn wait_log_from(&self, from: usize, texts: &[&str]) -> String {
        self.wait_lines(from, PATIENCE, texts)
    }

    /// The same, for what takes its time.
    pub fn wait_log_within(&self, time: Duration, texts: &[&str]) -> String {
        self.wait_lines(0, time, texts)
    }

    fn wait_lines(&self, from: usize, time: Duration, texts: &[&str]) -> String {
        let end = Instant::now() + time;
        let mut log = self.log.0.lock().unwrap();
        loop {
            let found = log.iter().skip(from).find(|line| texts.iter().all(|text| line.contains(text)));
            if let Some(line) = found {
                return line.clone();
            }
            let left = end.saturating_duration_since(Instant::now());
            let (next, timeout) = self.log.1.wait_timeout(log, left).unwrap();
            log = next;
            assert!(!timeout.timed_out(), "never logged {texts:?}; the log is:\n{}", log.join("\n"));
        }
    }

    /// How many lines there are.
    pub fn log_len(&self) -> usize {
        self.log.0.lock().unwrap().len()
    }

    /// The whole log so far.
    pub fn log(&self) -> String {
        self.log.0.lock().unwrap().join("\n")
    }

    /// The process id.
    pub fn id(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_raw(self.id()).unwrap(), signal).unwrap();
    }

    /// Asks it to stop, and waits for the end; how long that took.
    pub fn stop_timed(self) -> (since::Took, ExitStatus, String) {
        let since = since::Since::now(Some(&self));
        self.signal(Signal::TERM);
        assert!(self.ended.recv_timeout(PATIENCE).is_ok(), "it does not end; its log is:\n{}", self.log());
        let took = since.took(&self);
        let (status, log) = self.reap();
        (took, status, log)
    }

    /// Waits for the end.
    pub fn wait(self) -> (ExitStatus, String) {
        assert!(self.ended.recv_timeout(PATIENCE).is_ok(), "it does not end; its log is:\n{}", self.log());
        self.reap()
    }

    fn reap(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, self.log())
    }

    /// Asks it to stop, and waits for the end.
    pub fn stop(self) -> (ExitStatus, String) {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Kills it, and waits for the end.
    pub fn kill(self) {
        self.signal(Signal::KILL);
        self.wait();
    }

    /// Has it look at everything again.
    pub fn reload(&self) {
        self.signal(Signal::HUP);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A `trakt:` section with a grant in it, between lines that are nobody's business.
pub fn config_with(grant: &Grant) -> String {
    let mut text = format!(
        "## my config, do not touch\nplex:\n  url: http://192.168.1.12:32400   # the server\n\ntrakt:\n  client_id: {CLIENT}\n  client_secret: test-client-secret  # keep\n  pin:\n  authorization:\n    # filled in\n"
    );
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(text, "    {key}: {value}");
    };
    line("access_token", grant.access_token.expose());
    line("token_type", grant.token_type.as_deref().unwrap_or_default());
    line("expires_in", &grant.expires_in.unwrap_or_default().to_string());
    line("refresh_token", grant.refresh_token.as_ref().map_or("", Secret::expose));
    line("scope", grant.scope.as_deref().unwrap_or_default());
    line("created_at", &grant.created_at.map_or(0, |at| at.0).to_string());
    text.push_str("settings:\n  cache: true\n");
    text
}

/// A `mal:` section with a grant in it.
pub fn mal_section(grant: &Grant) -> String {
    format!(
        "mal:\n  client_id: {CLIENT}\n  client_secret: {CLIENT_SECRET}\n  cache_expiration: 60\n  localhost_url:\n  authorization:\n    access_token: {}\n    token_type: Bearer\n    expires_in: {}\n    refresh_token: {}\n",
        grant.access_token.expose(),
        grant.expires_in.unwrap_or_default(),
        refresh_token(grant).expose()
    )
}

/// The refresh token of a grant that has one.
pub fn refresh_token(grant: &Grant) -> &Secret {
    grant.refresh_token.as_ref().unwrap()
}

/// The text with another grant in the place of one, comments and all.
pub fn swapped(text: &str, old: &Grant, new: &Grant) -> String {
    let number = |grant: &Grant| grant.created_at.map_or_else(String::new, |at| at.0.to_string());
    text.replace(old.access_token.expose(), new.access_token.expose())
        .replace(refresh_token(old).expose(), refresh_token(new).expose())
        .replace(&number(old), &number(new))
}

/// The link of a log line.
pub fn link(line: &str) -> String {
    let start = line.find("link=").unwrap() + "link=".len();
    line[start..].split(' ').next().unwrap().to_owned()
}

/// What a command said on both of its outputs.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A Python that has ruamel.yaml, as Kometa has it; none, with the reason said, where it cannot be had.
pub fn python_with_ruamel() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
    let (venv, ready) = (target.join("test-venv"), target.join("test-venv/ready"));
    let python = venv.join("bin/python");
    // Several tests may want it at once: the first makes it, the others wait for the lock.
    let lock = std::fs::File::create(target.join("test-venv.lock")).ok()?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).ok()?;
    if !ready.exists() {
        let succeeds = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let made = succeeds(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))
            && succeeds(Command::new(&python).args(["-m", "pip", "install", "--quiet", "ruamel.yaml"]));
        if !made {
            skipped("python3 with venv and the package ruamel.yaml cannot be had here");
            return None;
        }
        std::fs::write(ready, "").ok()?;
    }
    Some(python)
}

/// The text of a value in the `authorization` block.
pub fn value(text: &str, key: &str) -> String {
    let start = text.find("authorization:").unwrap_or_default();
    let key = format!("{key}:");
    let mut lines = text[start..].lines().skip_while(|line| !line.trim_start().starts_with(&key));
    let value = lines.next().and_then(|line| line.split_once(':')).map(|(_, value)| value.trim()).unwrap_or_default();
    // ruamel.yaml breaks a line before a long value.
    let value =
        if value.is_empty() { lines.next().filter(|next| !next.contains(':')).unwrap_or_default() } else { value };
    value.trim().trim_matches(['"', '\'']).to_owned()
}

/// The text with the block's values taken out, to compare everything else.
pub fn around(text: &str) -> String {
    const KEYS: [&str; 6] = ["access_token", "token_type", "expires_in", "refresh_token", "scope", "created_at"];
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        match KEYS.iter().find(|key| line.trim_start().starts_with(&format!("{key}:"))) {
            Some(key) => {
                let _ = writeln!(out, "    {key}: …");
            }
            None => out.push_str(line),
        }
    }
    out
}
