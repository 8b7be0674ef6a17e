//! Writers of every kind at work on the file of a running daemon, most of them in the very moment between
//! its reading and its replacing: no edit is lost, nobody reads a torn file, and no token is spent twice.
#![cfg(feature = "sandbox")]
#![allow(clippy::disallowed_methods, reason = "the tests play the person and the system")]

mod support;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use kometa_authd::provider::TRAKT;
use kometa_authd::sandbox::Sandbox;
use kometa_authd::settings::{self, References};
use notify::Watcher as _;
use support::{
    CLIENT, Home, PATIENCE, Running, around, config_with, python_with_ruamel, refresh_token, sandbox, value,
};

/// How many edits each group of writers makes at least, among how many rotations, and how often the file is
/// looked at meanwhile.
const EDITS: usize = 80;
const ROTATIONS: usize = 4;
const LOOKS: usize = 100;
/// How long the daemon is made to wait between its last look and its replacement.
const STRETCH_MS: &str = "70";
/// How long at most until the next burst of edits, where the daemon has nothing to write: longer than it
/// leaves a file alone that was written just now, so that it gets its turn.
const TURN: Duration = Duration::from_millis(1100);

/// A way to edit a file: each reads it anew, adds one line, and writes all of it.
enum Writer {
    /// As vim does with `backupcopy=no`: the old file becomes the backup, a new one is written, the backup goes.
    Vim,
    /// A new file, moved over the old one, which has a second name as its backup.
    Rename,
    /// In place, a few bytes at a time.
    Slow,
    /// In place, in one go.
    Whole,
    /// `sed -i`
    Sed,
    /// ruamel.yaml loads all of it and dumps all of it over the file, as Kometa does.
    Ruamel(Python),
}

impl Writer {
    const fn is_atomic(&self) -> bool {
        matches!(self, Self::Rename | Self::Sed)
    }

    fn edit(&mut self, config: &Path, marker: &str, pace: &mut Pace) {
        let backup = config.with_file_name("config.yml~");
        let edited = || {
            let mut text = std::fs::read_to_string(config).unwrap();
            let _ = writeln!(text, "{marker}: true");
            text
        };
        match self {
            Self::Vim => {
                let text = edited();
                std::fs::rename(config, &backup).unwrap();
                std::fs::write(config, text).unwrap();
                std::fs::remove_file(backup).unwrap();
            }
            Self::Rename => {
                let (text, new) = (edited(), config.with_file_name("new.yml"));
                std::fs::write(&new, text).unwrap();
                std::fs::hard_link(config, &backup).unwrap();
                std::fs::rename(new, config).unwrap();
                std::fs::remove_file(backup).unwrap();
            }
            Self::Slow => {
                let text = edited();
                let mut file = std::fs::File::create(config).unwrap();
                for chunk in text.as_bytes().chunks(text.len() / 6 + 1) {
                    file.write_all(chunk).unwrap();
                    pace.wait(Duration::from_millis(12));
                }
            }
            Self::Whole => std::fs::write(config, edited()).unwrap(),
            Self::Sed => {
                let script = format!("$a {marker}: true");
                assert!(Command::new("sed").args(["-i", &script]).arg(config).status().unwrap().success());
            }
            Self::Ruamel(python) => python.edit(config, marker),
        }
    }
}

/// One Python for many edits.
struct Python {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Python {
    fn start(python: &Path) -> Self {
        let program = "
import sys, ruamel.yaml
for line in sys.stdin:
    path, marker = line.split()
    yaml = ruamel.yaml.YAML()
    with open(path, encoding='utf-8') as file:
        data = yaml.load(file)
    data[marker] = True
    with open(path, 'w', encoding='utf-8') as file:
        yaml.dump(data, file)
    print('done', flush=True)
";
        let mut command = Command::new(python);
        let mut child = command.args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, answers }
    }

    fn edit(&mut self, config: &Path, marker: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{} {marker}", config.display()).unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer, "done\n", "ruamel could not read the file");
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// When the next edit is: pseudo-random, and by what happens in the folder.
struct Pace {
    state: u64,
    temp_file: Receiver<()>,
    never: Receiver<()>,
    _keep: (notify::RecommendedWatcher, std::sync::mpsc::Sender<()>),
}

impl Pace {
    fn new(folder: &Path, seed: u64) -> Self {
        let (tell, temp_file) = channel();
        let (keep, never) = channel();
        let mut watch = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let event = event.unwrap();
            let is_temp = |path: &PathBuf| path.to_string_lossy().ends_with(".kometa-authd.tmp");
            if event.kind.is_create() && event.paths.iter().any(is_temp) {
                let _ = tell.send(());
            }
        })
        .unwrap();
        watch.watch(folder, notify::RecursiveMode::NonRecursive).unwrap();
        Self { state: seed, temp_file, never, _keep: (watch, keep) }
    }

    /// A number below `end`.
    fn draw(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % end
    }

    /// A slow writer's pause.
    fn wait(&self, time: Duration) {
        let _ = self.never.recv_timeout(time);
    }

    /// Waits until the daemon has made its new file and is about to put it in place, or for any time.
    fn moment(&mut self) {
        while self.temp_file.try_recv().is_ok() {}
        if self.draw(2) == 0 {
            let _ = self.temp_file.recv_timeout(TURN);
        }
        let (moment, any) = (self.draw(80), self.draw(600));
        let time = if self.draw(2) == 0 { moment } else { any };
        self.wait(Duration::from_millis(time));
    }
}

/// What the writers are doing, for the observer.
#[derive(Default)]
struct Signs {
    /// Odd while somebody writes in place.
    in_place: AtomicU64,
    looks: AtomicUsize,
    done: AtomicBool,
}

/// Ends the observer, also when the test fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Writers, a daemon whose tokens live for a second or two, and an observer; at the end everything is there.
fn at_work(seed: u64, lifetime_s: i64, linked: bool, mut writers: Vec<Writer>) {
    let sandbox = sandbox();
    sandbox.set_lifetime(lifetime_s);
    let home = Home::new(&config_with(&sandbox.issue(&TRAKT, CLIENT, 60)));
    let before = home.text();
    if linked {
        std::fs::hard_link(&home.config, home.path().join("second-name.yml")).unwrap();
    }
    let mut command = home.command("run", &sandbox);
    command.args(["--kometa-times", "off"]).env("KOMETA_AUTHD_STRETCH_MS", STRETCH_MS);
    let daemon = Running::start(command);
    assert!(sandbox.wait(PATIENCE, |world| world.ledger.spent_and_reused().0 > 0), "{}", daemon.log());
    let (signs, mut pace) = (Signs::default(), Pace::new(home.path(), seed));
    let mut markers = Vec::new();
    std::thread::scope(|scope| {
        // A file that has to be written in place has no moment at which it is wholly new.
        let observer = (!linked).then(|| scope.spawn(|| observe(&home.config, &signs)));
        let _end = Done(&signs.done);
        let rotations = || sandbox.ledger().spent_and_reused().0;
        let looked = || linked || signs.looks.load(Ordering::SeqCst) >= LOOKS;
        let end = Instant::now() + 4 * PATIENCE;
        while markers.len() < EDITS || rotations() < ROTATIONS || !looked() {
            assert!(
                Instant::now() < end,
                "{} edits, {} rotations, {} looks: it takes too long\n{}",
                markers.len(),
                rotations(),
                signs.looks.load(Ordering::SeqCst),
                daemon.log()
            );
            pace.moment();
            // A burst, one after the other, as fast as they are.
            for _ in 0..=pace.draw(6) {
                let at = usize::try_from(pace.draw(writers.len() as u64)).unwrap();
                let (writer, marker) = (&mut writers[at], format!("m{}", markers.len()));
                let in_place = u64::from(!writer.is_atomic());
                signs.in_place.fetch_add(in_place, Ordering::SeqCst);
                writer.edit(&home.config, &marker, &mut pace);
                signs.in_place.fetch_add(in_place, Ordering::SeqCst);
                markers.push(marker);
            }
        }
        // Long-lived from now on, so that it comes to rest.
        sandbox.set_lifetime(3600);
        let last = Instant::now();
        let wanted: Vec<String> = markers.iter().map(|marker| format!("{marker}: true")).collect();
        wait_whole(&home, &sandbox, &daemon, &wanted);
        eprintln!("at rest {} ms after the last edit", last.elapsed().as_millis());
        signs.done.store(true, Ordering::SeqCst);
        if let Some(observer) = observer {
            observer.join().unwrap();
        }
        eprintln!("{} edits, {} rotations, {} looks", markers.len(), rotations(), signs.looks.load(Ordering::SeqCst));
    });
    let (_, log) = daemon.stop();
    let after = home.text();
    let lines: Vec<&str> = after.lines().collect();
    for marker in &markers {
        let count = lines.iter().filter(|line| **line == format!("{marker}: true")).count();
        assert_eq!(count, 1, "{marker} is {count} times in the file\n{log}");
    }
    assert_eq!(sandbox.ledger().spent_and_reused().1, 0, "a spent token was sent again\n{log}");
    assert!(!log.contains("was kept aside") && !log.contains("ERROR"), "{log}");
    if writers.iter().all(Writer::is_atomic) {
        let rest: String = after.split_inclusive('\n').filter(|line| !line.starts_with('m')).collect();
        assert_eq!(around(&rest), around(&before));
    }
    let mut left = home.names();
    if linked {
        assert_eq!(std::fs::read_to_string(home.path().join(left.pop().unwrap())).unwrap(), after, "the link was cut");
    }
    assert_eq!(left, [".kometa-authd", "config.yml"], "left over");
}

/// Waits until every line is in the config, and the newest live token.
fn wait_whole(home: &Home, sandbox: &Sandbox, daemon: &Running, lines: &[String]) {
    let (_keep, never) = channel::<()>();
    let end = Instant::now() + PATIENCE;
    loop {
        let text = std::fs::read_to_string(&home.config).unwrap_or_default();
        let have: HashSet<&str> = text.lines().collect();
        let missing: Vec<_> = lines.iter().filter(|line| !have.contains(line.as_str())).collect();
        let live = sandbox.live(&TRAKT, CLIENT).unwrap();
        let is_live = value(&text, "refresh_token") == refresh_token(&live).expose();
        if missing.is_empty() && is_live && live.expires_in == Some(3600) {
            return;
        }
        assert!(
            Instant::now() < end,
            "missing: {missing:?}, live: {is_live}; the log is:\n{}\nthe file is:\n{text}",
            daemon.log()
        );
        // Half a second between two looks: the file's own changes would wake us hundreds of times.
        let _ = never.recv_timeout(Duration::from_millis(500));
    }
}

/// Reads the file over and over. Whatever is read while nobody writes in place is a whole config with one
/// pair in it.
fn observe(config: &Path, signs: &Signs) {
    while !signs.done.load(Ordering::SeqCst) {
        let before = signs.in_place.load(Ordering::SeqCst);
        let text = std::fs::read_to_string(config);
        let after = signs.in_place.load(Ordering::SeqCst);
        if before != after || before % 2 == 1 {
            continue;
        }
        signs.looks.fetch_add(1, Ordering::SeqCst);
        let text = text.expect("there was no file for a moment");
        let parsed = settings::parse(&text, &References::default());
        let whole = text.starts_with("## my config, do not touch\n")
            && text.ends_with('\n')
            && text.contains("\nsettings:\n")
            && parsed.is_ok_and(|parsed| {
                let section = &parsed.sections[0];
                section.access_token.is_some() && section.refresh_token.is_some() && section.created_at.is_some()
            });
        assert!(whole, "a torn file was read:\n{text}");
        std::thread::yield_now();
    }
}

/// Four writers of four kinds, some in place, edit the file while tokens rotate every second and the time
/// between the daemon's last look and its replacement is stretched: every marker is there once, the live
/// token ends in place, no token was sent twice, and nothing torn was read while nobody wrote in place.
#[test]
fn four_writers() {
    let python = python_with_ruamel();
    std::thread::scope(|scope| {
        for (seed, lifetime_s) in [(1, 1), (2, 3)] {
            let python = python.clone();
            scope.spawn(move || {
                let mut writers = vec![Writer::Vim, Writer::Slow, Writer::Sed];
                writers.extend(python.map(|python| Writer::Ruamel(Python::start(&python))));
                at_work(seed, lifetime_s, false, writers);
            });
        }
    });
}

/// Writers that put a new file in the old one's place: then every single look of an observer, from the
/// first to the last, must find a whole file.
#[test]
fn atomic_writers() {
    at_work(3, 2, false, vec![Writer::Rename, Writer::Sed]);
}

/// A config with a second name (a hard link) is written in place, and so do three writers: the daemon
/// compares before and after, every marker is there, and the link is whole.
#[test]
fn in_place() {
    let mut writers = vec![Writer::Slow, Writer::Whole];
    writers.extend(python_with_ruamel().map(|python| Writer::Ruamel(Python::start(&python))));
    at_work(4, 2, true, writers);
}
