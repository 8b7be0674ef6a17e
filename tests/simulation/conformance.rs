//! The pretend disk and the pretend clock, held against the real ones: the same steps on both, and each
//! step must come to the same end. Where they differ, Linux is right.
//!
//! Not compared: what a test cannot do to the machine that it runs on (a full disk, a power cut, a mount,
//! another user) and what the pretend disk does not have (symbolic links, renamed folders).
#![allow(clippy::disallowed_methods, reason = "the tests play the person and the system")]

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs;
use std::future::Future as _;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, UNIX_EPOCH};

use kometa_authd::clock::{self, Rang, Timer};
use kometa_authd::daemon::{Wake, World as _};
use kometa_authd::disk::{Disk, Meta, Open, RealDisk};
use kometa_authd::sandbox::rules::Rules;
use kometa_authd::sandbox::world::World as Providers;
use kometa_authd::token::UnixSeconds;

use crate::play::disk::{Disks, SimDisk};
use crate::play::machine::{Machine, SimWorld};

use self::Open::{CreateNew, Read, Write, WriteOrCreate};

/// When an aged file was last changed: 2001.
const LONG_AGO_S: i64 = 1_000_000_000;

/// The names that are looked at after each step.
const NAMES: [&str; 4] = ["a", "b", "folder", "folder/c"];

/// One operation. Handles have numbers, and one is dropped where its number is used again.
#[derive(Clone, Copy, Debug)]
enum Step {
    Resolve(&'static str),
    Place(&'static str),
    List(&'static str),
    CreateFolder(&'static str),
    Open(usize, &'static str, Open),
    Close(usize),
    ReadAtMost(usize, u64),
    WriteAt(usize, &'static str, u64),
    SetSize(usize, u64),
    CopyAttributes(usize, usize),
    Sync(usize),
    SyncData(usize),
    SyncFolder(&'static str),
    Rename(&'static str, &'static str),
    Exchange(&'static str, &'static str),
    Remove(&'static str),
    Lock(usize, &'static str, bool),
    /// Somebody else gives a file another mode.
    Chmod(&'static str, u32),
    /// Somebody else gives a file a second name.
    Link(&'static str, &'static str),
    /// A file was last changed long ago.
    Age(&'static str),
}

/// A disk with a folder to play in, and what somebody else does there. They are asked only for what can be.
trait Ground {
    type Disk: Disk;
    fn disk(&self) -> &Self::Disk;
    fn folder(&self) -> &Path;
    fn now_s(&self) -> i64;
    fn chmod(&self, path: &Path, mode: u32);
    fn link(&self, path: &Path, other: &Path);
    fn age(&self, path: &Path);
}

struct RealGround {
    folder: PathBuf,
    _gone_afterwards: tempfile::TempDir,
}

impl RealGround {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder: fs::canonicalize(folder.path()).unwrap(), _gone_afterwards: folder }
    }
}

impl Ground for RealGround {
    type Disk = RealDisk;

    fn disk(&self) -> &RealDisk {
        &RealDisk
    }

    fn folder(&self) -> &Path {
        &self.folder
    }

    fn now_s(&self) -> i64 {
        clock::now().0
    }

    fn chmod(&self, path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn link(&self, path: &Path, other: &Path) {
        fs::hard_link(path, other).unwrap();
    }

    fn age(&self, path: &Path) {
        let at = UNIX_EPOCH + Duration::from_secs(LONG_AGO_S.unsigned_abs());
        fs::File::open(path).unwrap().set_modified(at).unwrap();
    }
}

struct SimGround(SimDisk);

impl SimGround {
    fn new() -> Self {
        let mut disks = Disks::default();
        disks.now_ms = 1_800_000_000_000;
        disks.make_folder(Path::new("/ground"));
        Self(SimDisk { disks: Rc::new(RefCell::new(disks)), process: 0 })
    }
}

impl Ground for SimGround {
    type Disk = SimDisk;

    fn disk(&self) -> &SimDisk {
        &self.0
    }

    fn folder(&self) -> &Path {
        Path::new("/ground")
    }

    fn now_s(&self) -> i64 {
        self.0.disks.borrow().now_ms / 1000
    }

    fn chmod(&self, path: &Path, mode: u32) {
        self.0.disks.borrow_mut().set_mode(path, mode);
    }

    fn link(&self, path: &Path, other: &Path) {
        self.0.disks.borrow_mut().link(path, other);
    }

    fn age(&self, path: &Path) {
        let mut disks = self.0.disks.borrow_mut();
        let bytes = disks.read(path).unwrap().to_vec();
        let now_ms = std::mem::replace(&mut disks.now_ms, LONG_AGO_S * 1000);
        disks.write_in_place(path, &bytes);
        disks.now_ms = now_ms;
    }
}

/// An interpreter of steps on one of the disks.
struct Play<'a, G: Ground> {
    ground: &'a G,
    handles: [Option<<G::Disk as Disk>::Handle>; 3],
}

impl<G: Ground> Play<'_, G> {
    /// What each step came to, and how everything looked after it.
    fn transcript(ground: &G, steps: &[Step]) -> Vec<String> {
        let mut play = Play { ground, handles: [None, None, None] };
        steps.iter().map(|step| format!("{step:?}: {}\n{}", play.step(*step), play.look())).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.ground.folder().join(name)
    }

    fn step(&mut self, step: Step) -> String {
        let disk = self.ground.disk();
        match step {
            Step::Resolve(name) => {
                said(disk.resolve(&self.path(name)).map(|path| {
                    path.strip_prefix(self.ground.folder()).map(|path| path.display().to_string()).unwrap()
                }))
            }
            // Which kind of file system it is depends on the machine.
            Step::Place(name) => said(disk.place(&self.path(name)).map(|place| place.mount_point)),
            Step::List(name) => said(disk.list(&self.path(name)).map(|mut names| {
                names.sort();
                names
            })),
            Step::CreateFolder(name) => said(disk.create_folder(&self.path(name))),
            Step::Open(number, name, how) => {
                self.handles[number] = None;
                said(disk.open(&self.path(name), how).map(|handle| self.handles[number] = Some(handle)))
            }
            Step::Close(number) => {
                self.handles[number] = None;
                "closed".to_owned()
            }
            Step::ReadAtMost(number, max_bytes) => {
                self.with(number, |file| disk.read(file, max_bytes).map(|read| read.0))
            }
            Step::WriteAt(number, text, at) => self.with(number, |file| disk.write_at(file, text.as_bytes(), at)),
            Step::SetSize(number, size) => self.with(number, |file| disk.set_size(file, size)),
            Step::CopyAttributes(from, to) => {
                self.with(from, |from| self.handles[to].as_ref().map(|to| disk.copy_attributes(from, to)).transpose())
            }
            Step::Sync(number) => self.with(number, |file| disk.sync(file)),
            Step::SyncData(number) => self.with(number, |file| disk.sync_data(file)),
            Step::SyncFolder(name) => said(disk.sync_folder(&self.path(name))),
            Step::Rename(from, to) => said(disk.rename(&self.path(from), &self.path(to))),
            Step::Exchange(one, other) => said(disk.exchange(&self.path(one), &self.path(other))),
            Step::Remove(name) => said(disk.remove(&self.path(name))),
            Step::Lock(number, name, alone) => {
                self.handles[number] = None;
                said(disk.lock(&self.path(name), alone).map(|handle| {
                    self.handles[number] = handle;
                    self.handles[number].is_some()
                }))
            }
            Step::Chmod(name, mode) => self.outside(name, |path| self.ground.chmod(path, mode)),
            Step::Age(name) => self.outside(name, |path| self.ground.age(path)),
            Step::Link(name, other) if disk.meta(&self.path(other)).is_err() => {
                self.outside(name, |path| self.ground.link(path, &self.path(other)))
            }
            Step::Link(..) => "there is one".to_owned(),
        }
    }

    fn with<T: std::fmt::Debug>(
        &self,
        number: usize,
        act: impl FnOnce(&<G::Disk as Disk>::Handle) -> io::Result<T>,
    ) -> String {
        self.handles[number].as_ref().map_or_else(|| "not open".to_owned(), |file| said(act(file)))
    }

    /// Somebody else does something to a file, where there is one.
    fn outside(&self, name: &str, act: impl FnOnce(&Path)) -> String {
        let path = self.path(name);
        match self.ground.disk().meta(&path) {
            Ok(meta) if meta.is_file() => {
                act(&path);
                "done".to_owned()
            }
            Ok(_) => "no file".to_owned(),
            Err(error) => said::<()>(Err(error)),
        }
    }

    /// Every handle's and every name's file. Which of them are the same file is said without its number.
    fn look(&self) -> String {
        let disk = self.ground.disk();
        let mut seen: Vec<(String, (u64, u64))> = Vec::new();
        let mut text = String::new();
        let handles = self.handles.iter().enumerate().filter_map(|(number, file)| {
            let found = disk.read(file.as_ref()?, 1 << 20).map(|(bytes, meta)| (Some(bytes), meta));
            Some((format!("handle {number}"), found))
        });
        let names = NAMES.iter().map(|name| (name.to_string(), disk.meta(&self.path(name)).map(|meta| (None, meta))));
        for (what, found) in handles.chain(names) {
            let found = found.map(|(bytes, meta)| {
                let first = seen.iter().find(|(_, identity)| *identity == meta.identity);
                let same = first.map_or_else(|| what.clone(), |(first, _)| first.clone());
                seen.push((what.clone(), meta.identity));
                (bytes.map(|bytes| String::from_utf8(bytes).unwrap()), self.appearance(&meta), same)
            });
            writeln!(text, "    {what}: {}", said(found)).unwrap();
        }
        text
    }

    fn appearance(&self, meta: &Meta) -> String {
        let (mode, is_ours) = (meta.mode, meta.owner.0 == self.ground.disk().user());
        if meta.is_folder() {
            // Size and links of a folder are each file system's own, and nothing looks at its time.
            return format!("folder {mode:o}, ours: {is_ours}");
        }
        let modified = match meta.modified_at.0 - self.ground.now_s() {
            -600..=1 => "now".to_owned(),
            _ => meta.modified_at.0.to_string(),
        };
        format!("{mode:o}, ours: {is_ours}, {} links, {} bytes, modified {modified}", meta.links, meta.size)
    }
}

/// A result without what differs from machine to machine.
fn said<T: std::fmt::Debug>(result: io::Result<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => match error.raw_os_error() {
            Some(errno) => format!("{:?}, errno {errno}", error.kind()),
            None => format!("{:?}, not the system's", error.kind()),
        },
    }
}

/// Makes the steps on both disks, and says where they part. The transcript is returned.
fn check(what: &str, steps: &[Step]) -> Vec<String> {
    let real = Play::transcript(&RealGround::new(), steps);
    let pretend = Play::transcript(&SimGround::new(), steps);
    for (number, (real, pretend)) in real.iter().zip(&pretend).enumerate() {
        let before = &steps[number.saturating_sub(8)..number];
        assert!(
            real == pretend,
            "{what}, step {number}, after {before:?}\nLinux says\n{real}\nthe pretend disk\n{pretend}"
        );
    }
    real
}

/// What is there before each list of cases.
const START: [Step; 5] = [
    Step::CreateFolder("folder"),
    Step::Open(0, "a", CreateNew),
    Step::WriteAt(0, "the file a", 0),
    Step::Age("a"),
    Step::Close(0),
];

fn with_start(steps: &[Step]) -> Vec<Step> {
    START.iter().chain(steps).copied().collect()
}

/// Every way to open, on a file, a folder, nothing, and below what is missing or no folder.
#[test]
fn conformance_of_opening() {
    for how in [Read, Write, WriteOrCreate, CreateNew] {
        for name in ["a", "b", "folder", "folder/c", "missing/c", "a/c", "a/c/d"] {
            let steps = [
                Step::Open(0, name, how),
                Step::WriteAt(0, "x", 3),
                Step::WriteAt(0, "", 30),
                Step::SetSize(0, 20),
                Step::SetSize(0, 20),
                Step::ReadAtMost(0, 4),
                Step::Sync(0),
                Step::SyncData(0),
                Step::Chmod("a", 0o640),
                Step::Open(1, "a", Read),
                Step::CopyAttributes(1, 0),
                Step::Age(name),
                Step::SetSize(0, 20),
                Step::Age(name),
                Step::WriteAt(0, "", 0),
            ];
            check(&format!("{how:?} {name}"), &with_start(&steps));
        }
    }
    let said = check("known", &with_start(&[Step::Open(0, "folder", Write), Step::Open(0, "b", Read)]));
    assert!(said[5].starts_with("Open(0, \"folder\", Write): IsADirectory"), "{}", said[5]);
    assert!(said[6].starts_with("Open(0, \"b\", Read): NotFound"), "{}", said[6]);
}

/// Zeros in a gap, cut and extended files, and no more bytes than asked for and one.
#[test]
fn conformance_of_reading_and_writing() {
    let steps = [
        Step::Open(0, "b", WriteOrCreate),
        Step::WriteAt(0, "end", 40_000),
        Step::ReadAtMost(0, 0),
        Step::ReadAtMost(0, 100),
        Step::ReadAtMost(0, 16_384),
        Step::ReadAtMost(0, 40_002),
        Step::ReadAtMost(0, u64::MAX),
        Step::WriteAt(0, "start", 0),
        Step::SetSize(0, 3),
        Step::SetSize(0, 6),
        Step::Open(1, "b", Write),
        Step::WriteAt(1, "both see it", 2),
        Step::ReadAtMost(0, 12),
        Step::ReadAtMost(0, 13),
        Step::Age("b"),
        Step::ReadAtMost(0, 13),
        Step::SetSize(0, 0),
        Step::CopyAttributes(0, 1),
    ];
    let said = check("reading and writing", &with_start(&steps));
    assert!(said[7].contains("ReadAtMost(0, 0): [0]\n"), "{}", said[7]);
}

/// What a name leads to after each of the operations on names, while two handles are open.
#[test]
fn conformance_of_names() {
    const ALL: [&str; 9] = ["a", "b", "folder/c", "other", "folder", "missing/c", "a/c", "missing", "folder/c/d"];
    let begin = [
        Step::Open(0, "a", Write),
        Step::Open(1, "b", CreateNew),
        Step::WriteAt(1, "the file b", 0),
        Step::Chmod("b", 0o640),
        Step::Age("b"),
        Step::Link("b", "other"),
    ];
    let after = [Step::WriteAt(0, "still a", 2), Step::WriteAt(1, "still b", 5), Step::List(""), Step::List("folder")];
    for one in ALL {
        let alone = [
            Step::Remove(one),
            Step::CreateFolder(one),
            Step::Resolve(one),
            Step::Place(one),
            Step::List(one),
            Step::SyncFolder(one),
            Step::Lock(2, one, true),
        ];
        for act in alone {
            let steps: Vec<Step> = begin.into_iter().chain([act]).chain(after).collect();
            check(&format!("{act:?}"), &with_start(&steps));
        }
        for other in ALL {
            // The daemon renames no folder.
            if one != "folder" {
                let steps: Vec<Step> = begin.into_iter().chain([Step::Rename(one, other)]).chain(after).collect();
                check("rename", &with_start(&steps));
                if other != "folder" {
                    let steps: Vec<Step> = begin.into_iter().chain([Step::Exchange(one, other)]).chain(after).collect();
                    check("exchange", &with_start(&steps));
                }
            }
        }
    }
}

/// Who gets a lock, while whom has it, and that it goes with the handle and stays with the file.
#[test]
fn conformance_of_locks() {
    for name in ["a", "folder"] {
        for first in [true, false] {
            for second in [true, false] {
                let steps = [
                    Step::Lock(0, name, first),
                    Step::Lock(1, name, second),
                    Step::Lock(2, name, true),
                    Step::Close(0),
                    Step::Lock(2, name, true),
                    Step::Close(1),
                    Step::Lock(2, name, true),
                    Step::Lock(0, name, false),
                    Step::WriteAt(2, "x", 0),
                    // Another file under the same name has no lock yet, and the lock went with the first.
                    Step::Rename("a", "b"),
                    Step::Open(0, "a", CreateNew),
                    Step::Lock(0, "a", true),
                    Step::Lock(1, "b", false),
                    Step::Close(2),
                    Step::Lock(1, "b", false),
                ];
                check(&format!("lock {name}, {first}, {second}"), &with_start(&steps));
            }
        }
    }
}

/// Hundreds of steps that a seed draws.
#[test]
fn conformance_of_whatever_comes() {
    for seed in 0..40 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let steps: Vec<Step> = START.into_iter().chain((0..400).map(|_| drawn(&mut dice))).collect();
        check(&format!("seed {seed}"), &steps);
    }
}

fn drawn(dice: &mut fastrand::Rng) -> Step {
    const FILES: [&str; 3] = ["a", "b", "folder/c"];
    const ODD: [&str; 5] = ["folder", "missing", "missing/c", "a/c", "folder/c/d"];
    const TEXTS: [&str; 4] = ["", "x", "some text", "a text that is longer than the others"];
    let number = dice.usize(0..3);
    let file = |dice: &mut fastrand::Rng| FILES[dice.usize(0..FILES.len())];
    let any = |dice: &mut fastrand::Rng| if dice.u8(0..8) == 0 { ODD[dice.usize(0..ODD.len())] } else { file(dice) };
    match dice.u8(0..28) {
        0..5 => Step::Open(number, any(dice), [Read, Write, WriteOrCreate, CreateNew][dice.usize(0..4)]),
        5..9 => Step::WriteAt(number, TEXTS[dice.usize(0..4)], dice.u64(0..30)),
        9..11 => Step::SetSize(number, dice.u64(0..40)),
        11..14 => Step::Rename(file(dice), any(dice)),
        14..17 => Step::Exchange(file(dice), file(dice)),
        17 => Step::Remove(any(dice)),
        18 => Step::Close(number),
        19 => Step::ReadAtMost(number, dice.u64(0..40)),
        20 => Step::CopyAttributes(number, dice.usize(0..3)),
        21..23 => Step::Lock(number, any(dice), dice.bool()),
        23 => Step::Chmod(file(dice), [0o600, 0o640, 0o664][dice.usize(0..3)]),
        24 => Step::Link(file(dice), file(dice)),
        25 => Step::Age(file(dice)),
        26 => Step::List(["", "folder", "a", "missing"][dice.usize(0..4)]),
        _ => match dice.u8(0..5) {
            0 => Step::CreateFolder(ODD[dice.usize(0..ODD.len())]),
            1 => Step::Resolve(any(dice)),
            2 => Step::Place(any(dice)),
            3 => Step::SyncFolder(any(dice)),
            _ => Step::SyncData(number),
        },
    }
}

/// A clock with a timer. In each script the seconds are counted from its beginning.
trait Clock {
    fn now_s(&self) -> i64;
    /// Waits until a moment, but gives it up `patience` after now.
    fn wait(&mut self, until: Option<i64>, patience: Duration) -> Option<Rang>;
}

struct RealClock {
    runtime: tokio::runtime::Runtime,
    timer: Timer,
}

impl RealClock {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let timer = runtime.block_on(async { Timer::new() });
        Self { runtime, timer }
    }
}

impl Clock for RealClock {
    fn now_s(&self) -> i64 {
        clock::now().0
    }

    fn wait(&mut self, until: Option<i64>, patience: Duration) -> Option<Rang> {
        let wait = self.timer.wait(until.map(UnixSeconds));
        self.runtime.block_on(async { tokio::time::timeout(patience, wait).await.ok() })
    }
}

struct SimClock(SimWorld);

impl SimClock {
    fn new() -> Self {
        let machine = Machine::new(1_800_000_000_000, 0, Providers::new(Rules::default(), Vec::new()), true);
        Self(SimWorld { machine: Rc::new(RefCell::new(machine)), disk: SimGround::new().0 })
    }
}

impl Clock for SimClock {
    fn now_s(&self) -> i64 {
        self.0.now().0
    }

    fn wait(&mut self, until: Option<i64>, patience: Duration) -> Option<Rang> {
        let machine = Rc::clone(&self.0.machine);
        let ends_ms = machine.borrow().now_ms + i64::try_from(patience.as_millis()).unwrap();
        let mut wake = pin!(self.0.wake(until.map(UnixSeconds), ""));
        loop {
            machine.borrow_mut().next_ms = None;
            match wake.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Wake::Deadline) => return Some(Rang::Deadline),
                Poll::Ready(Wake::ClockSet) => return Some(Rang::ClockSet),
                Poll::Ready(_) => panic!("nothing else happened"),
                Poll::Pending => {}
            }
            // As the run does it: the clock goes to the next moment that anybody waits for.
            let mut machine = machine.borrow_mut();
            match machine.next_ms {
                Some(next) if next <= ends_ms => machine.now_ms = next,
                _ => {
                    machine.now_ms = ends_ms;
                    return None;
                }
            }
        }
    }
}

/// What wakes, and that nothing does before its time.
fn deadlines(clock: &mut impl Clock) {
    const PATIENCE: Duration = Duration::from_secs(30);
    const SOON: Duration = Duration::from_millis(20);
    // Somebody may set the clock meanwhile, as another test does: then one waits again, as the daemon does.
    let until = |clock: &mut dyn Clock, at: i64| loop {
        match clock.wait(Some(at), PATIENCE) {
            Some(Rang::ClockSet) => {}
            rang => return rang,
        }
    };
    for back in [i64::MAX / 4, 3600, 1, 0] {
        let at = clock.now_s() - back;
        assert_eq!(until(clock, at), Some(Rang::Deadline), "{back} seconds ago");
    }
    let at = clock.now_s() + 1;
    assert_eq!(until(clock, at), Some(Rang::Deadline));
    assert!(clock.now_s() >= at, "not before its time");
    // A deadline that was given up for a later one, for an earlier one, and for none.
    let (first, later) = (clock.now_s() + 1, clock.now_s() + 2);
    clock.wait(Some(first), SOON);
    assert_eq!(until(clock, later), Some(Rang::Deadline));
    assert!(clock.now_s() >= later, "the first was given up");
    let (far, near) = (clock.now_s() + 86_400, clock.now_s() + 1);
    assert_ne!(clock.wait(Some(far), SOON), Some(Rang::Deadline));
    assert_eq!(until(clock, near), Some(Rang::Deadline));
    assert!((near..far).contains(&clock.now_s()));
    let at = clock.now_s() + 1;
    clock.wait(Some(at), SOON);
    assert_ne!(clock.wait(None, Duration::from_millis(1500)), Some(Rang::Deadline), "nothing is waited for");
}

/// The same deadlines on both clocks. A clock that is set cannot be compared here without setting that of
/// the machine, so for it the real timer's part is in `tests/clock.rs`, which sets it to what it says
/// already, and the pretend timer's part is here: it wakes at once and says so, before any deadline.
#[test]
fn conformance_of_the_clock() {
    deadlines(&mut RealClock::new());
    deadlines(&mut SimClock::new());

    let mut clock = SimClock::new();
    for (until, step_ms) in [(None, 5), (Some(0), 7_200_000), (Some(3600), 7_200_000), (Some(3600), -7_200_000)] {
        let until = until.map(|after| clock.now_s() + after);
        clock.wait(None, Duration::from_millis(20));
        {
            let mut machine = clock.0.machine.borrow_mut();
            machine.skew_ms += step_ms;
            machine.processes[0].clock_set = true;
        }
        assert_eq!(clock.wait(until, Duration::ZERO), Some(Rang::ClockSet));
        assert_ne!(clock.wait(None, Duration::from_secs(3600)), Some(Rang::ClockSet), "once");
    }
}
