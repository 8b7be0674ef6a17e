//! Years of operation in seconds: the real loop, decisions, edit, journal and
//! store, against a pretend disk, network, provider, clock, Kometa and person.
//!
//! A seed decides everything, so the same seed is the same run anywhere. What
//! must hold is checked all the time; a run that breaks it prints its seed and
//! what happened last. `SIMULATION_SEEDS=N` runs more of them, and
//! `SIMULATION_SEED=S` one alone.

#![cfg(feature = "sandbox")]

mod disk;
mod world;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};

use disk::{Disks, SimDisk};
use fastrand::Rng;
use kometa_authd::daemon::facts::Names;
use kometa_authd::daemon::{Daemon, Setup};
use kometa_authd::event::Kind;
use kometa_authd::provider::TRAKT;
use kometa_authd::refresh::request::Endpoint;
use kometa_authd::sandbox::rules::{Rotation, Rules};
use kometa_authd::sandbox::world::World as Providers;
use kometa_authd::settings::{References, parse};
use kometa_authd::token::{Secret, UnixSeconds};
use rustix::io::Errno;
use world::{Machine, SharedDisks, SimWorld};

/// 2026-11-22 12:00 UTC.
const START_S: i64 = 1_795_348_800;
const DAY_MS: i64 = 86_400_000;
const CLIENT: &str = "simulated-client";
const CONFIG: &str = "/config/config.yml";

/// What somebody or something does at a moment.
#[derive(Clone, Copy, Debug)]
enum Act {
    Edit,
    EditWhileWeWrite,
    StaleSave,
    Outage,
    OutageEnds,
    Trouble,
    TroubleEnds,
    DiskFails,
    Kill,
    KillWhileWeWrite,
    PowerLoss,
    Start,
    ClockStep,
    KometaLogs,
    NewPin,
    Backup,
}

struct Run {
    seed: u64,
    machine: Rc<RefCell<Machine>>,
    disks: SharedDisks,
    schedule: BTreeMap<(i64, u64), Act>,
    planned: u64,
    lifetime_s: i64,
    /// The file as it must be but for the values of the block.
    expected: Rc<RefCell<String>>,
    /// An answer was lost on the way, or the process ended in the one window that there is: a person is
    /// needed, and nobody is to blame.
    excused: bool,
    person_called: bool,
    /// The last moment at which something was out of order.
    disturbed_ms: i64,
    old_copy: Option<String>,
    markers: u64,
    events_seen: usize,
    /// The file that was checked last, and the access token in it.
    checked: Option<(Vec<u8>, Option<Secret>)>,
}

type Life = Pin<Box<dyn Future<Output = ()>>>;

/// Runs a seed for a year, or as long as a hundred rotations take. The error says what was broken.
fn simulate(seed: u64) -> Result<(i64, BTreeMap<String, u64>), String> {
    let mut dice = Rng::with_seed(seed);
    let rotation = [Rotation::Strict, Rotation::Grace, Rotation::Family][dice.usize(0..3)];
    let lifetime_s = [6 * 3600, 86_400, 86_400, 7 * 86_400, 7 * 86_400, 90 * 86_400][dice.usize(0..6)];
    let days = (lifetime_s * 100 / 86_400).clamp(20, 365);
    let rules = Rules { rotation, lifetime_s: Some(lifetime_s), seed, ..Rules::default() };
    let mut providers = Providers::new(rules, Vec::new());
    let grant = providers.ledger.issue(UnixSeconds(START_S - lifetime_s / 2), &TRAKT, CLIENT);
    let text = format!(
        "# my config\nplex:\n  url: http://192.168.1.12:32400 # the server\ntrakt:\n  client_id: {CLIENT}\n  pin:\n  authorization:\n    access_token: {}\n    token_type: bearer\n    expires_in: {lifetime_s}\n    refresh_token: {}\n    scope: public\n    created_at: {}\nsettings:\n  cache: true\n",
        grant.access_token.expose(),
        grant.refresh_token.as_ref().map_or("", Secret::expose),
        START_S - lifetime_s / 2,
    );
    let mut disks = Disks::default();
    (disks.now, disks.watched) = (START_S, CONFIG.into());
    disks.make_folder(Path::new("/config"));
    disks.make_folder(Path::new("/config/logs"));
    disks.write_by_rename(Path::new(CONFIG), text.as_bytes());
    let machine = Machine {
        now_ms: START_S * 1000,
        next_ms: None,
        dice,
        providers,
        reachable: true,
        trouble_percent: 0,
        clock_set: false,
        changes_seen: 0,
        events: Vec::new(),
        coverage: BTreeMap::new(),
        delivered: 0,
    };
    let mut run = Run {
        seed,
        machine: Rc::new(RefCell::new(machine)),
        disks: Rc::new(RefCell::new(disks)),
        schedule: BTreeMap::new(),
        planned: 0,
        lifetime_s,
        expected: Rc::new(RefCell::new(around(&text))),
        excused: false,
        person_called: false,
        disturbed_ms: START_S * 1000,
        old_copy: None,
        markers: 0,
        events_seen: 0,
        checked: None,
    };
    run.plan_everything(days);
    run.live(START_S * 1000 + days * DAY_MS)?;
    let mut coverage = run.machine.borrow().coverage.clone();
    for (what, count) in &run.disks.borrow().struck {
        *coverage.entry(format!("disk {what}")).or_default() += count;
    }
    Ok((days, coverage))
}

impl Run {
    /// What will happen, all of it drawn beforehand; the last tenth of the time is quiet, so that everything
    /// can heal.
    fn plan_everything(&mut self, days: i64) {
        let end = START_S * 1000 + days * DAY_MS * 9 / 10;
        // How often in a year, on average.
        let habits = [
            (Act::Edit, 60),
            (Act::EditWhileWeWrite, 60),
            (Act::StaleSave, 40),
            (Act::Outage, 25),
            (Act::Trouble, 25),
            (Act::DiskFails, 25),
            (Act::Kill, 30),
            (Act::KillWhileWeWrite, 30),
            (Act::PowerLoss, 20),
            (Act::ClockStep, 12),
            (Act::KometaLogs, 200),
            (Act::Backup, 6),
        ];
        for (act, a_year) in habits {
            let every_ms = 365 * DAY_MS / a_year;
            let mut at = START_S * 1000;
            loop {
                at += self.machine.borrow_mut().dice.i64(1..every_ms * 2);
                if at >= end {
                    break;
                }
                self.plan(at, act);
            }
        }
        self.plan(START_S * 1000, Act::Start);
    }

    fn plan(&mut self, at_ms: i64, act: Act) {
        self.planned += 1;
        self.schedule.insert((at_ms, self.planned), act);
    }

    /// Lets the process live, die and live again until the end.
    fn live(&mut self, end_ms: i64) -> Result<(), String> {
        let mut life: Option<Life> = None;
        let (mut polls, mut polled_at) = (0, 0);
        // A rotation, an edit or a failure takes some; a loop that looks every second takes millions.
        let (mut wakeups, limit) = (0_u64, 300_000);
        loop {
            self.machine.borrow_mut().next_ms = None;
            if let Some(running) = &mut life
                && running.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
            {
                return Err(self.broken("the loop ended by itself"));
            }
            if self.disks.borrow().is_dead {
                self.end_of_life(&mut life, "killed");
            }
            self.check(life.is_some())?;
            let now = self.machine.borrow().now_ms;
            polls = if now == polled_at { polls + 1 } else { 0 };
            polled_at = now;
            wakeups += 1;
            if wakeups > limit {
                return Err(self.broken("the loop is woken all the time"));
            }
            if polls > 200 {
                return Err(self.broken("the loop spins"));
            }
            let act = self.schedule.first_key_value().map(|((at, _), _)| *at);
            let wakes = self.machine.borrow().next_ms;
            let Some(next) = [act, wakes].into_iter().flatten().min() else {
                return Err(self.broken("nothing will ever happen again"));
            };
            if next > end_ms {
                return self.check_the_end();
            }
            self.set_clock(next.max(now));
            while let Some(entry) = self.schedule.first_entry()
                && entry.key().0 <= next
            {
                let act = entry.remove();
                self.act(act, &mut life)?;
            }
        }
    }

    fn set_clock(&self, now_ms: i64) {
        self.machine.borrow_mut().now_ms = now_ms;
        self.disks.borrow_mut().now = now_ms.div_euclid(1000);
    }

    fn end_of_life(&mut self, life: &mut Option<Life>, how: &str) {
        if life.is_none() {
            return;
        }
        self.excuse_window();
        *life = None;
        self.disks.borrow_mut().process_ended();
        self.machine.borrow_mut().count(format!("life {how}"));
        let (now, later) = {
            let mut machine = self.machine.borrow_mut();
            (machine.now_ms, machine.dice.i64(1..600_000))
        };
        self.disturbed_ms = now + later;
        self.plan(now + later, Act::Start);
    }

    /// The process ends while a request is on its way, or before the one write that keeps the answer.
    fn excuse_window(&mut self) {
        let machine = self.machine.borrow();
        let acted = machine.providers.requests.last().filter(|visit| visit.acted == Some(200)).map(|visit| visit.at_ms);
        let kept = machine.events.iter().rev().find(|(_, event)| is_grant(event.kind)).map(|(at, _)| *at);
        if acted > kept {
            drop(machine);
            self.excused = true;
        }
    }

    fn act(&mut self, act: Act, life: &mut Option<Life>) -> Result<(), String> {
        let now = self.machine.borrow().now_ms;
        self.machine.borrow_mut().count(format!("act {act:?}"));
        match act {
            Act::Start if life.is_none() => *life = Some(self.start()),
            Act::Start => {}
            Act::Edit => {
                self.markers += 1;
                let in_place = self.machine.borrow_mut().dice.bool();
                edit(&mut self.disks.borrow_mut(), &self.expected, self.markers, in_place);
            }
            Act::EditWhileWeWrite => {
                self.markers += 1;
                let (marker, expected) = (self.markers, Rc::clone(&self.expected));
                let mut machine = self.machine.borrow_mut();
                let at = self.disks.borrow().operations + machine.dice.u64(1..60);
                // By rename: what is written in place into a file that is just being replaced is looked at
                // later, and the check would have to wait for it.
                self.disks.borrow_mut().interloper =
                    Some((at, Box::new(move |disks| edit(disks, &expected, marker, false))));
            }
            Act::StaleSave => {
                let path = Path::new(CONFIG);
                let text = self.disks.borrow().read(path);
                match self.old_copy.take() {
                    Some(old) => {
                        let mut disks = self.disks.borrow_mut();
                        *self.expected.borrow_mut() = around(&old);
                        disks.write_in_place(path, old.as_bytes());
                        drop(disks);
                        self.disturbed_ms = now;
                    }
                    None => self.old_copy = text.and_then(|text| String::from_utf8(text).ok()),
                }
            }
            Act::Backup => {
                // A copy of now comes back much later.
                self.old_copy =
                    self.disks.borrow().read(Path::new(CONFIG)).and_then(|text| String::from_utf8(text).ok());
            }
            Act::Outage | Act::Trouble => {
                let mut machine = self.machine.borrow_mut();
                let longest = if self.lifetime_s < 86_400 { 3_600_000 } else { 2 * DAY_MS };
                let length = machine.dice.i64(1000..longest);
                let ends = if matches!(act, Act::Outage) {
                    machine.reachable = false;
                    Act::OutageEnds
                } else {
                    machine.trouble_percent = machine.dice.u8(10..100);
                    Act::TroubleEnds
                };
                drop(machine);
                self.plan(now + length, ends);
            }
            Act::OutageEnds => self.machine.borrow_mut().reachable = true,
            Act::TroubleEnds => self.machine.borrow_mut().trouble_percent = 0,
            Act::DiskFails => {
                let errors = [Errno::NOSPC, Errno::IO, Errno::ROFS, Errno::ACCESS, Errno::BUSY, Errno::XDEV];
                let mut machine = self.machine.borrow_mut();
                let error = errors[machine.dice.usize(0..errors.len())];
                let mut disks = self.disks.borrow_mut();
                let first = disks.operations + machine.dice.u64(1..80);
                let last = first + machine.dice.u64(0..40);
                disks.failing = Some((error, first..=last));
            }
            Act::Kill => self.end_of_life(life, "stopped at once"),
            Act::KillWhileWeWrite => {
                let at = self.disks.borrow().operations + self.machine.borrow_mut().dice.u64(1..80);
                self.disks.borrow_mut().kill_at = Some(at);
            }
            Act::PowerLoss => {
                self.end_of_life(life, "without power");
                let machine = Rc::clone(&self.machine);
                self.disks.borrow_mut().power_loss(|n| machine.borrow_mut().dice.usize(0..n));
            }
            Act::ClockStep => {
                let mut machine = self.machine.borrow_mut();
                let step = machine.dice.i64(-3_600_000..3_600_000);
                machine.clock_set = true;
                drop(machine);
                // Everything that is planned moves along: a step changes what the clock says, not what happens.
                let schedule = std::mem::take(&mut self.schedule);
                self.schedule = schedule.into_iter().map(|((at, n), act)| ((at + step.max(0), n), act)).collect();
                self.set_clock((now + step).max(START_S * 1000));
                self.disturbed_ms = now + step.abs();
            }
            Act::KometaLogs => {
                self.disks.borrow_mut().write_by_rename(Path::new("/config/logs/meta.log"), b"running\n");
            }
            Act::NewPin => {
                let pin = self.machine.borrow_mut().providers.ledger.issue_pin(UnixSeconds(now / 1000));
                let path = Path::new(CONFIG);
                let text =
                    self.disks.borrow().read(path).and_then(|text| String::from_utf8(text).ok()).unwrap_or_default();
                let start = text.find("  pin:").ok_or_else(|| self.broken("the pin is gone"))?;
                let end = start + text[start..].find('\n').unwrap_or_default();
                let text = format!("{}  pin: {}{}", &text[..start], pin.expose(), &text[end..]);
                self.disks.borrow_mut().write_in_place(path, text.as_bytes());
                (self.excused, self.person_called) = (false, false);
            }
        }
        if !matches!(act, Act::KometaLogs) {
            self.disturbed_ms = self.disturbed_ms.max(now);
        }
        Ok(())
    }

    fn start(&self) -> Life {
        let world = SimWorld { machine: Rc::clone(&self.machine), disk: SimDisk(Rc::clone(&self.disks)) };
        let endpoint = Endpoint {
            provider: &TRAKT,
            auth_url: TRAKT.auth_url.to_owned(),
            redirect_uri: TRAKT.redirect_uri.map(str::to_owned),
        };
        let setup = Setup {
            configs: vec![PathBuf::from(CONFIG)],
            names: Names::new(&[PathBuf::from(CONFIG)]),
            state: None,
            endpoints: vec![endpoint],
            references: References::default(),
            times: "05:00".parse().expect("a time"),
            zone: jiff::tz::TimeZone::UTC,
            device_login: false,
            api_url: None,
        };
        Box::pin(async move { Daemon::new(world, setup).run().await })
    }

    /// What holds at every moment.
    fn check(&mut self, is_alive: bool) -> Result<(), String> {
        if self.disks.borrow().failing.is_some() {
            // It strikes when the disk is used next, which may be days after it was planned.
            self.disturbed_ms = self.machine.borrow().now_ms;
        }
        let bytes = self.disks.borrow().read(Path::new(CONFIG)).ok_or_else(|| self.broken("the config is gone"))?;
        if self.checked.as_ref().is_none_or(|(checked, _)| *checked != bytes) {
            let text = String::from_utf8(bytes.clone()).map_err(|_| self.broken("the config is no text"))?;
            if around(&text) != *self.expected.borrow() {
                return Err(
                    self.broken(&format!("bytes outside the block changed, or an edit was lost; the file is\n{text}"))
                );
            }
            let settings = parse(&text, &References::default()).map_err(|why| self.broken(&why.to_string()))?;
            let section = settings.sections.into_iter().next().ok_or_else(|| self.broken("the section is gone"))?;
            self.checked = Some((bytes, section.access_token));
        }
        let access_token = self.checked.as_ref().and_then(|(_, token)| token.as_ref());
        let machine = self.machine.borrow();
        let now = UnixSeconds(machine.now_ms / 1000);
        let lost_answer = machine.coverage.get("network LostAfter").copied().unwrap_or_default() > 0;
        let news: Vec<Kind> = machine.events[self.events_seen..].iter().map(|(_, event)| event.kind).collect();
        let valid = access_token.is_some_and(|token| {
            machine
                .providers
                .ledger
                .entries()
                .iter()
                .rev()
                .take(30)
                .any(|entry| entry.access_token.expose() == token.expose() && entry.access_lives(now))
        });
        // While an answer is on its way, the old pair is dead already and the new one not here yet.
        let asked_ms = machine.providers.requests.last().map_or(0, |visit| visit.at_ms);
        let quiet_for = (machine.now_ms - self.disturbed_ms).min((machine.now_ms - asked_ms) * 600);
        let is_calm = machine.reachable && machine.trouble_percent == 0 && self.disks.borrow().failing.is_none();
        drop(machine);
        self.events_seen += news.len();
        for kind in news {
            if matches!(kind, Kind::Rejected | Kind::RejectedAfterLostAnswer) && !self.person_called {
                if !self.excused && !lost_answer {
                    return Err(self.broken("a token was lost, and nobody else is to blame"));
                }
                self.person_called = true;
                let (now, later) = {
                    let mut machine = self.machine.borrow_mut();
                    (machine.now_ms, machine.dice.i64(60_000..DAY_MS))
                };
                self.plan(now + later, Act::NewPin);
            }
        }
        // Trouble of a day may leave a delay of three minutes behind, or Kometa's.
        if is_alive && is_calm && quiet_for > 1_800_000 && !self.person_called && !valid {
            return Err(self.broken("for half an hour everything has been in order, and the token is not valid"));
        }
        Ok(())
    }

    fn check_the_end(&mut self) -> Result<(), String> {
        let names: BTreeSet<PathBuf> = self.disks.borrow().names_in(Path::new("/config")).into_iter().collect();
        let known = ["/config/config.yml", "/config/.kometa-authd", "/config/logs"];
        let strangers: Vec<_> =
            names.iter().filter(|name| !known.contains(&name.to_str().unwrap_or_default())).collect();
        if !strangers.is_empty() {
            return Err(self.broken(&format!("left over: {strangers:?}")));
        }
        let machine = self.machine.borrow();
        let requests = &machine.providers.requests;
        for (at, visit) in requests.iter().enumerate() {
            let in_a_day = requests[at..].iter().take_while(|later| later.at_ms < visit.at_ms + DAY_MS).count();
            if in_a_day > 6000 {
                drop(machine);
                return Err(self.broken(&format!("{in_a_day} requests in a day")));
            }
        }
        Ok(())
    }

    fn broken(&self, what: &str) -> String {
        let machine = self.machine.borrow();
        let recent = machine.events.iter().rev().take(12).rev();
        let recent: Vec<String> = recent
            .map(|(at, event)| format!("  {} {:?} {}", UnixSeconds(at / 1000).0, event.kind, event.detail))
            .collect();
        let requests = machine.providers.requests.iter().rev().take(5).rev();
        let requests: Vec<String> = requests
            .map(|visit| format!("  {} {:?} answered {:?}", visit.at_ms, visit.grant_type, visit.acted))
            .collect();
        let recent = [recent, vec!["the last requests:".to_owned()], requests].concat();
        format!(
            "seed {}, lifetime {} s, at {}: {what}\nthe last events:\n{}\n(again: SIMULATION_SEED={} cargo test --features sandbox --test simulation)",
            self.seed,
            self.lifetime_s,
            machine.now_ms / 1000,
            recent.join("\n"),
            self.seed
        )
    }
}

fn is_grant(kind: Kind) -> bool {
    matches!(kind, Kind::Refreshed | Kind::Authorized)
}

/// A person adds a line at the end of the file.
fn edit(disks: &mut Disks, expected: &RefCell<String>, marker: u64, in_place: bool) {
    let path = Path::new(CONFIG);
    let Some(text) = disks.read(path).and_then(|text| String::from_utf8(text).ok()) else { return };
    let text = format!("{text}# marker {marker}\n");
    *expected.borrow_mut() = around(&text);
    if in_place {
        disks.write_in_place(path, text.as_bytes());
    } else {
        disks.write_by_rename(path, text.as_bytes());
    }
}

/// The text without the values that are ours to change.
fn around(text: &str) -> String {
    const KEYS: [&str; 7] = ["access_token", "token_type", "expires_in", "refresh_token", "scope", "created_at", "pin"];
    let keep = |line: &str| {
        let key = line.trim_start().split(':').next().unwrap_or_default();
        if KEYS.contains(&key) { format!("{key}\n") } else { format!("{line}\n") }
    };
    text.lines().map(keep).collect()
}

/// Seeds one after the other, each a year with some lifetime, some rotation, and everything that goes wrong.
#[test]
fn years() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIMULATION_SEEDS").unwrap_or(6),
    };
    let mut coverage: BTreeMap<String, u64> = BTreeMap::new();
    let mut days = 0;
    for seed in seeds {
        match simulate(seed) {
            Ok((ran, counts)) => {
                days += ran;
                for (what, count) in counts {
                    *coverage.entry(what).or_default() += count;
                }
            }
            Err(what) => panic!("{what}"),
        }
    }
    println!("{days} simulated days:");
    for (what, count) in coverage {
        println!("  {count:>8} {what}");
    }
}
