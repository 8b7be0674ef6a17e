//! A run: the processes live, die and live again while everything that was
//! planned happens, and what must hold is checked all the time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};

use kometa_authd::daemon::facts::Names;
use kometa_authd::daemon::{Daemon, Setup};
use kometa_authd::provider::{MAL, PROVIDERS, TRAKT};
use kometa_authd::refresh::request::Endpoint;
use kometa_authd::sandbox::rules::Rules;
use kometa_authd::sandbox::world::World as Providers;
use kometa_authd::settings::References;
use kometa_authd::token::UnixSeconds;
use rustix::io::Errno;

use super::check::Checks;
use super::disk::{Bad, Death, Disks, SimDisk, Sort};
use super::machine::{Machine, Process, SharedDisks, SimWorld};
use super::people::{self, People};
use super::plan::{Act, KometaSort, Plan, Scenario};

/// 2026-11-22 12:00 UTC.
pub const START_MS: i64 = 1_795_348_800_000;
/// The config.
pub const CONFIG: &str = "/config/config.yml";
/// What changes places with it.
pub const SWAP: &str = "/config/.config.yml.kometa-authd.swap";
/// The state folder.
pub const STATE: &str = "/config/.kometa-authd";
const ERRORS: [Errno; 6] = [Errno::NOSPC, Errno::IO, Errno::ROFS, Errno::ACCESS, Errno::BUSY, Errno::XDEV];

type Life = Pin<Box<dyn Future<Output = ()>>>;

/// What a run came to.
pub struct Outcome {
    /// How much time was lived.
    pub lived_ms: i64,
    /// How often each thing happened.
    pub coverage: BTreeMap<String, u64>,
    /// What was broken, and what happened last.
    pub broken: Option<(String, Vec<String>)>,
}

/// A run.
pub struct Run {
    pub scenario: Scenario,
    pub machine: Rc<RefCell<Machine>>,
    pub disks: SharedDisks,
    pub people: People,
    pub(super) checks: Checks,
    schedule: BTreeMap<(i64, u64), Act>,
    planned: u64,
    lives: [Option<Life>; 2],
    trace: Vec<String>,
}

/// Lives a plan through.
pub fn live(plan: &Plan) -> Outcome {
    let mut run = Run::new(plan);
    let end_ms = START_MS + plan.scenario.length_ms;
    let broken = run.live(end_ms).err();
    let lived_ms = run.machine.borrow().now_ms.min(end_ms) - START_MS;
    let mut coverage = std::mem::take(&mut run.machine.borrow_mut().coverage);
    for (what, count) in &run.disks.borrow().struck {
        *coverage.entry(format!("disk: {what}")).or_default() += count;
    }
    let broken = broken.map(|what| {
        run.trace_events();
        (what, run.trace.split_off(run.trace.len().saturating_sub(40)))
    });
    Outcome { lived_ms, coverage, broken }
}

impl Run {
    fn new(plan: &Plan) -> Self {
        let scenario = plan.scenario.clone();
        let rules = Rules {
            rotation: scenario.rotation,
            lifetime_s: Some(scenario.lifetime_s),
            seed: scenario.seed,
            // A poll each five seconds would be most of what happens.
            device_interval_s: 60,
            ..Rules::default()
        };
        let mut providers = Providers::new(rules, Vec::new());
        let text = people::first_text(&scenario, &mut providers.ledger);
        let mut disks = Disks::default();
        (disks.now_ms, disks.watched, disks.sort) = (START_MS, CONFIG.into(), scenario.sort);
        for folder in ["/config", "/config/logs"] {
            disks.make_folder(Path::new(folder));
        }
        disks.write_by_rename(Path::new(CONFIG), text.as_bytes());
        disks.write_by_rename(Path::new("/config/logs/meta.log"), b"a log\n");
        disks.log = Some(("/config/logs/meta.log".into(), START_MS - 86_400_000));
        if scenario.sort == Sort::HardLink {
            disks.link(Path::new(CONFIG), Path::new("/config/other-name.yml"));
        }
        disks.foreign.push(people::around(&text));
        let machine = Machine::new(START_MS, scenario.seed, providers, scenario.is_watched);
        let mut run = Self {
            people: People::default(),
            checks: Checks::new(&scenario),
            scenario,
            machine: Rc::new(RefCell::new(machine)),
            disks: Rc::new(RefCell::new(disks)),
            schedule: BTreeMap::new(),
            planned: 0,
            lives: [None, None],
            trace: Vec::new(),
        };
        for (at, act) in &plan.acts {
            run.plan(START_MS + at, *act);
        }
        run
    }

    /// Plans an act.
    pub fn plan(&mut self, at_ms: i64, act: Act) {
        self.planned += 1;
        self.schedule.insert((at_ms, self.planned), act);
    }

    /// Plans an act for a while from now.
    pub fn plan_in(&mut self, ms: i64, act: Act) {
        let now = self.now();
        self.plan(now + ms, act);
    }

    /// The real time in milliseconds.
    pub fn now(&self) -> i64 {
        self.machine.borrow().now_ms
    }

    /// Whether a process lives.
    pub fn lives(&self, process: usize) -> bool {
        self.lives[process].is_some()
    }

    /// Whether any process lives.
    pub fn is_alive(&self) -> bool {
        self.lives.iter().any(Option::is_some)
    }

    fn live(&mut self, end_ms: i64) -> Result<(), String> {
        let (mut polls, mut polled_at, mut wakeups) = (0, 0, 0_i64);
        // A look each half minute where no changes are reported, and a few hundred for each act and rotation.
        let each_day = if self.scenario.is_polled { 9000 } else { 40 } + 100 * 86_400 / self.scenario.lifetime_s;
        let wakeups_max = 60_000 + self.scenario.length_ms / 86_400_000 * each_day;
        loop {
            self.machine.borrow_mut().next_ms = None;
            self.poll()?;
            self.trace_events();
            self.listen();
            Checks::check(self)?;
            let now = self.now();
            polls = if now == polled_at { polls + 1 } else { 0 };
            (polled_at, wakeups) = (now, wakeups + 1);
            if polls > 300 {
                return Err("the loop spins".to_owned());
            }
            if wakeups > wakeups_max {
                return Err("the loop is woken all the time".to_owned());
            }
            let act = self.schedule.first_key_value().map(|((at, _), _)| *at);
            let (wakes, dies) = {
                let machine = self.machine.borrow();
                (machine.next_ms, machine.dies_at_ms)
            };
            let Some(next) = [act, wakes, dies.map(|(_, at)| at)].into_iter().flatten().min() else {
                if self.is_alive() && self.scenario.is_watched {
                    // Signed out, or waiting for a person: nothing more will ever happen.
                    self.set_clock(end_ms);
                    return Checks::at_the_end(self);
                }
                return Err("nothing will ever happen again".to_owned());
            };
            if next > end_ms {
                self.set_clock(end_ms);
                return Checks::at_the_end(self);
            }
            if next > now {
                // Nobody looks in between, and what ran out meanwhile must not have.
                self.set_clock(next - 1);
                self.check_valid()?;
            }
            self.set_clock(next.max(now));
            if let Some((process, at)) = dies
                && at <= next
            {
                self.machine.borrow_mut().dies_at_ms = None;
                self.end_of_life(process, Death::Kill);
            }
            while let Some(entry) = self.schedule.first_entry()
                && entry.key().0 <= next
            {
                let act = entry.remove();
                self.act(act)?;
            }
        }
    }

    fn poll(&mut self) -> Result<(), String> {
        for process in 0..2 {
            let Some(running) = &mut self.lives[process] else { continue };
            let is_over = running.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
            let lag = std::mem::take(&mut self.disks.borrow_mut().lag_ms);
            if lag > 0 {
                let now = self.now();
                self.set_clock(now + lag);
            }
            let death = self.disks.borrow().dead.iter().find(|dead| dead.0 == process).map(|dead| dead.1);
            if let Some(death) = death {
                self.end_of_life(process, death);
            } else if is_over {
                if !std::mem::take(&mut self.machine.borrow_mut().processes[process].stop)
                    && !self.checks.was_stopped[process]
                {
                    return Err("the loop ended by itself".to_owned());
                }
                self.end_of_life(process, Death::Kill);
            }
        }
        Ok(())
    }

    fn set_clock(&mut self, now_ms: i64) {
        let mut machine = self.machine.borrow_mut();
        machine.now_ms = now_ms;
        self.disks.borrow_mut().now_ms = machine.wall_ms();
    }

    /// A process ends, and with the power all of them; they start again in a while.
    fn end_of_life(&mut self, process: usize, death: Death) {
        self.trace(format!("process {process} ends: {death:?}"));
        for other in 0..2 {
            if (other == process || death == Death::PowerLoss) && self.lives[other].is_some() {
                self.checks.dies(&mut self.machine.borrow_mut(), &self.disks.borrow(), other, death);
                self.lives[other] = None;
                self.checks.was_stopped[other] = false;
                self.disks.borrow_mut().process_ended(other);
                let mut machine = self.machine.borrow_mut();
                machine.processes[other] = Process::default();
                machine.count("life: ended");
                let later = machine.dice().i64(1..600_000);
                drop(machine);
                self.plan_in(later, Act::Start(other));
            }
        }
        if !self.is_alive() {
            self.disks.borrow_mut().forget_unnamed();
        }
        if death == Death::PowerLoss {
            let machine = Rc::clone(&self.machine);
            let mut dice = machine.borrow_mut().dice();
            let mut disks = self.disks.borrow_mut();
            disks.power_loss(|n| dice.usize(0..n));
            disks.made_at = None;
            // A file system in disorder comes back read-only, until somebody has looked after it.
            if dice.u8(0..4) == 0 {
                disks.bad = Some(Bad::ReadOnly(self.machine.borrow().wall_ms() + dice.i64(1000..7_200_000)));
            }
        }
        self.disturb(600_000);
        if self.disks.borrow().replaced_by.is_none() {
            people::process_died(self);
        }
    }

    /// Until so long from now, not everything can be in order.
    pub fn disturb(&mut self, ms: i64) {
        let until = self.now() + ms;
        self.checks.disturbed_ms = self.checks.disturbed_ms.max(until);
    }

    /// What people make of what they are told.
    fn listen(&mut self) {
        let seen = self.people.events_seen;
        let events: Vec<_> = self.machine.borrow().events[seen..].to_vec();
        self.people.events_seen += events.len();
        for (_, _, event) in events {
            people::listen(self, &event);
        }
    }

    fn act(&mut self, act: Act) -> Result<(), String> {
        if act.is_by_people() && people::is_busy(self, act) {
            self.plan_in(150_000, act);
            return Ok(());
        }
        self.machine.borrow_mut().count(&format!("act: {}", act.name()));
        if act != Act::SaveStep {
            self.trace(format!("{act:?}"));
        }
        let operations = self.disks.borrow().operations;
        match act {
            Act::Start(process) => {
                if self.lives[process].is_none() {
                    self.lives[process] = Some(self.start(process));
                }
            }
            Act::Kill(process) => {
                if self.lives[process].is_some() {
                    self.end_of_life(process, Death::Kill);
                }
            }
            Act::KillAsking(after) => self.machine.borrow_mut().dies_asking_ms = Some(after),
            Act::KillWriting(after) => self.disks.borrow_mut().dies_at = Some((operations + after, Death::Kill)),
            Act::PowerLossWriting(after) => {
                self.disks.borrow_mut().dies_at = Some((operations + after, Death::PowerLoss));
            }
            Act::PowerLoss => {
                if let Some(process) = self.lives.iter().position(Option::is_some) {
                    self.end_of_life(process, Death::PowerLoss);
                }
            }
            Act::Stop(process) => {
                if self.lives[process].is_some() {
                    self.machine.borrow_mut().processes[process].stop = true;
                    self.checks.was_stopped[process] = true;
                }
            }
            Act::Reload(process) => self.machine.borrow_mut().processes[process].reload = true,
            Act::Outage(long) => {
                self.machine.borrow_mut().reachable = false;
                self.plan_in(long, Act::OutageEnds);
            }
            Act::OutageEnds => self.machine.borrow_mut().reachable = true,
            Act::Trouble(long, percent, which) => {
                self.machine.borrow_mut().trouble = (percent, which);
                self.plan_in(long, Act::TroubleEnds);
            }
            Act::TroubleEnds => {
                self.machine.borrow_mut().trouble = (0, 0);
                // A `Retry-After` is kept to.
                self.disturb(1_000_000);
            }
            Act::DiskFails(after, more, which) => {
                let (first, errno) = (operations + after, ERRORS[which]);
                self.disks.borrow_mut().bad = Some(Bad::Numbers(errno, first, first + more));
            }
            Act::DiskFull(long) => {
                let until = self.machine.borrow().wall_ms() + long;
                self.disks.borrow_mut().bad = Some(Bad::Full(until));
            }
            Act::DiskReadOnly(long) => {
                let until = self.machine.borrow().wall_ms() + long;
                self.disks.borrow_mut().bad = Some(Bad::ReadOnly(until));
            }
            Act::DiskSlow(each, long) => {
                self.disks.borrow_mut().slow_ms = each;
                self.plan_in(long, Act::DiskIsFast);
            }
            Act::DiskIsFast => self.disks.borrow_mut().slow_ms = 0,
            Act::ClockStep(ms) => {
                self.step(ms);
                let later = self.machine.borrow_mut().dice().i64(1000..86_400_000);
                self.plan_in(later, Act::ClockIsSet);
            }
            Act::ClockIsSet => {
                let skew = self.machine.borrow().skew_ms;
                self.step(-skew);
            }
            Act::BadBoot(later) => {
                for process in 0..2 {
                    if self.lives[process].is_some() {
                        self.end_of_life(process, Death::Kill);
                        self.plan_in(1, Act::Start(process));
                    }
                }
                let now = self.now();
                self.step(946_684_800_000 - now);
                self.plan_in(later, Act::ClockIsSet);
                self.disturb(later);
            }
            Act::Suspend(ms) => {
                let now = self.now() + ms;
                self.set_clock(now);
                self.machine.borrow_mut().asleep_ms += ms;
                self.step(0);
                self.disturb(0);
            }
            Act::StateOpen(long) => {
                self.disks.borrow_mut().set_mode(Path::new(STATE), 0o755);
                self.plan_in(long, Act::StateIsClosed);
                self.disturb(long);
            }
            Act::StateIsClosed => {
                self.disks.borrow_mut().set_mode(Path::new(STATE), 0o700);
                self.disturb(120_000);
            }
            other => people::act(self, other)?,
        }
        if !matches!(act, Act::SaveStep | Act::KometaAsks | Act::KometaEnds | Act::Kometa(_)) {
            self.disturb(0);
        }
        Ok(())
    }

    /// The wall clock is set.
    fn step(&mut self, ms: i64) {
        let mut machine = self.machine.borrow_mut();
        machine.skewed_until_ms = machine.now_ms;
        machine.skew_ms += ms;
        for process in &mut machine.processes {
            process.clock_set = true;
        }
        drop(machine);
        let now = self.now();
        self.set_clock(now);
        if ms < 0 {
            // What was planned by the clock before is late by as much, and no more than a tenth of a life.
            self.disturb((-ms).min(self.scenario.lifetime_s * 1000));
        }
        self.checks.clock_was_set();
    }

    fn start(&self, process: usize) -> Life {
        let disk = SimDisk { disks: Rc::clone(&self.disks), process };
        let world = SimWorld { machine: Rc::clone(&self.machine), disk };
        let endpoint = |provider: &&'static kometa_authd::provider::Provider| Endpoint {
            provider,
            auth_url: provider.auth_url.to_owned(),
            redirect_uri: provider.redirect_uri.map(str::to_owned),
        };
        let mut references = References::default();
        if self.scenario.kometa == KometaSort::ReadOnly {
            references.add_env_file("KOMETA_READ_ONLY_CONFIG=true\n");
        }
        let times = if self.scenario.kometa == KometaSort::Absent { "off" } else { "05:00" };
        let setup = Setup {
            configs: vec![PathBuf::from(CONFIG)],
            names: Names::new(&[PathBuf::from(CONFIG)]),
            state: None,
            endpoints: PROVIDERS.iter().map(endpoint).collect(),
            references,
            times: times.parse().expect("times"),
            zone: jiff::tz::TimeZone::get(self.scenario.zone).expect("a zone"),
            device_login: self.scenario.device_login,
            api_url: Some(TRAKT.auth_url.to_owned()),
        };
        Box::pin(async move { Daemon::new(world, setup).run().await })
    }

    /// Remembers what happened, for whoever has to understand it.
    pub fn trace(&mut self, what: String) {
        if self.trace.len() > 400 {
            self.trace.drain(..200);
        }
        let now = self.now();
        self.trace.push(format!("{} {what}", moment(now)));
    }

    fn trace_events(&mut self) {
        let decisions = std::mem::take(&mut self.machine.borrow_mut().decisions);
        for (process, what) in decisions {
            self.trace(format!("  process {process}: decides: {what}"));
        }
        let seen = self.people.events_seen;
        let events: Vec<_> = self.machine.borrow().events[seen..].to_vec();
        for (_, process, event) in events {
            self.trace(format!("  process {process}: {:?} {} {}", event.kind, event.subject, event.detail));
        }
    }

    /// The providers of this run.
    pub fn providers(&self) -> impl Iterator<Item = &'static str> + use<> {
        let named = |is_used: bool, name: &'static str| is_used.then_some(name);
        [named(self.scenario.trakt, TRAKT.name), named(self.scenario.mal, MAL.name)].into_iter().flatten()
    }
}

/// A moment for a person: days and time of day since the start.
pub fn moment(now_ms: i64) -> String {
    let s = (now_ms - START_MS) / 1000;
    format!("day {} {:02}:{:02}:{:02}.{:03}", s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60, now_ms.rem_euclid(1000))
}

/// The seconds of a moment.
pub fn seconds(now_ms: i64) -> UnixSeconds {
    UnixSeconds(now_ms.div_euclid(1000))
}
