//! The loop: sole owner of the state.
//!
//! It is woken by a pulse, a deadline or a signal, looks at one config file,
//! asks `decision` for each account in it, does what it says, and sleeps
//! again. Everything with an effect goes through [`World`], so that the same
//! loop runs against the real edges and against simulated ones.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::announce::channel::Channel;
use crate::decision::sign_in::Way;
use crate::decision::{Decision, Urgency};
use crate::disk::{Disk, Meta};
use crate::event::{Event, Kind};
use crate::file::{self, Snapshot, Unreadable};
use crate::health::State;
use crate::journal::History;
use crate::journal::pending::Pending;
use crate::kometa::Times;
use crate::provider::{Login, PROVIDERS, Provider};
use crate::refresh::Network;
use crate::refresh::request::Endpoint;
use crate::settings::{self, References, Section, Settings};
use crate::store::{self, Place};
use crate::token::{Fingerprint, Secret, UnixSeconds};

use alive::Sign;
use facts::Names;
use lock::LOCK_RETRY;
use orphan::{Edit, Orphan};
use spend::Pace;

mod account;
mod act;
pub mod alive;
pub mod facts;
mod lock;
mod login;
mod logout;
mod orphan;
mod person;
mod spend;

/// Everything outside the loop.
pub trait World: Network {
    /// The disk.
    type Disk: Disk;
    /// The disk.
    fn disk(&self) -> &Self::Disk;
    /// The wall clock.
    fn now(&self) -> UnixSeconds;
    /// A random number of 0 to 1.
    fn draw(&self) -> f64;
    /// A short wait, for a lock or for the pace of requests.
    fn pause(&self, time: Duration) -> impl Future<Output = ()>;
    /// Watches a config file for changes; false where no change would ever be reported.
    fn watch(&mut self, config: usize, path: &Path) -> bool;
    /// Sleeps until something happens; `status` is one sentence for whoever asks meanwhile.
    fn wake(&mut self, until: Option<UnixSeconds>, status: &str) -> impl Future<Output = Wake>;
    /// Ends when the process is told to stop.
    fn stopping(&self) -> impl Future<Output = ()>;
    /// A PKCE verifier that nobody can guess; none where the system has no randomness to give.
    fn verifier(&self) -> Option<Secret> {
        Secret::random()
    }
    /// A config could be read, and names these channels for errors.
    fn hear(&mut self, _path: &Path, _channels: &[Channel]) {}
    /// What was decided about an account, and why; for whoever watches the loop from within.
    fn decided(&mut self, _decision: Decision) {}
    /// Tells a person.
    fn announce(&mut self, event: Event);
    /// Ends what is still on its way to a person, within a short moment.
    fn farewell(&mut self) -> impl Future<Output = ()> {
        async {}
    }
}

/// What woke the loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wake {
    /// These configs changed.
    Changed(Vec<usize>),
    /// Any of them may have changed.
    AllChanged,
    /// The deadline is here.
    Deadline,
    /// The clock was set.
    ClockSet,
    /// Read everything again now (SIGHUP).
    Reload,
    /// Stop (SIGTERM, SIGINT).
    Stop,
}

/// What the daemon is to do.
#[derive(Clone)]
pub struct Setup {
    /// The config files.
    pub configs: Vec<PathBuf>,
    /// What their accounts are called.
    pub names: Names,
    /// One state folder for all of them, in the place of one beside each.
    pub state: Option<PathBuf>,
    /// Where each provider is, one each.
    pub endpoints: Vec<Endpoint>,
    /// The variables that `<<name>>` references stand for.
    pub references: References,
    /// When Kometa starts.
    pub times: Times,
    /// The zone that these times are of.
    pub zone: TimeZone,
    /// Whether a device code is asked for where a person must authorize.
    pub device_login: bool,
    /// The origin of Trakt's data API, to find out whose account it is.
    pub api_url: Option<String>,
}

impl Setup {
    /// How a person can be asked for a provider.
    #[must_use]
    pub fn way(&self, provider: &Provider) -> Way {
        match provider.login {
            Login::Device { .. } if self.device_login => Way::DeviceCode,
            Login::Device { .. } => Way::Telling,
            Login::PastedUrl { .. } => Way::Link,
        }
    }
}

/// How often a place without events is looked at.
const POLL_S: i64 = 30;
/// How often a config is looked at that cannot be read.
const LOOK_AGAIN_MAX_S: i64 = 60;

/// The daemon.
pub struct Daemon<W: World> {
    world: W,
    setup: Arc<Setup>,
    configs: Vec<Watched<W>>,
    deadlines: BTreeSet<(UnixSeconds, usize)>,
    /// The configs that something is wrong with, and of how many accounts there is something to say: a status
    /// is wanted after every look, and must not go through thousands of accounts each time.
    wrong: BTreeSet<usize>,
    known: usize,
    pace: Pace,
    stopped: bool,
    /// Whether it stays, and shows that.
    is_service: bool,
}

/// One config file.
struct Watched<W: World> {
    path: PathBuf,
    fingerprint: Option<Fingerprint>,
    /// The file at the last look, and where the path led to, in few bytes for each of thousands.
    seen: Option<(Fingerprint, Meta)>,
    /// When there is something to do without a change of the file.
    due: Option<UnixSeconds>,
    wakes_at: Option<UnixSeconds>,
    polled: bool,
    /// Something that a crash left behind may still be there.
    leftovers: bool,
    lockless: bool,
    /// The lock of its folder, while we have it.
    lock: Option<(PathBuf, HandleOf<W>)>,
    misses: u32,
    said: Option<(Kind, String)>,
    /// What was wrong when it could last not be read.
    problem: Option<String>,
    accounts: Vec<Account>,
    /// How many of them had a status at the last count.
    counted: usize,
    orphans: Vec<Orphan<HandleOf<W>>>,
    edits: Vec<Edit>,
    alive: Sign<HandleOf<W>>,
}

impl<W: World> Watched<W> {
    /// What is known of its accounts, a sentence each.
    fn known(&self) -> impl Iterator<Item = &String> {
        self.accounts.iter().map(|account| &account.status).filter(|status| !status.is_empty())
    }
}

type HandleOf<W> = <<W as World>::Disk as Disk>::Handle;

/// What is remembered of an account between visits; everything else is in the journal.
struct Account {
    provider: &'static Provider,
    said: Option<(Kind, Fingerprint)>,
    /// What was done since the account last came to rest; said together with what comes next.
    news: Option<Kind>,
    status: String,
    /// Whose account was authorized just now.
    whose: Option<String>,
    /// What the journal could not take.
    pending: Pending,
    hold_until: Option<UnixSeconds>,
    misses: u32,
    /// Since when something is to be done to a file that never stands still.
    restless_since: Option<UnixSeconds>,
    /// When its access token ends, as known at the last look.
    expires_at: Option<UnixSeconds>,
}

/// A config as it is now.
type Read<H> = (Snapshot<H>, Settings);

/// One look at an account under its lock.
struct Look<H> {
    snapshot: Snapshot<H>,
    section: Section,
    history: History,
}

/// What an action led to.
enum Next {
    /// Look again: the decision may be another now.
    Again,
    /// Nothing more before this.
    At(Option<UnixSeconds>),
}

impl<W: World> Daemon<W> {
    /// A daemon that has not looked at anything yet.
    pub fn new(world: W, setup: impl Into<Arc<Setup>>) -> Self {
        let setup = setup.into();
        let watched = |path: &PathBuf| Watched {
            path: path.clone(),
            fingerprint: None,
            seen: None,
            due: None,
            wakes_at: None,
            polled: false,
            leftovers: true,
            lockless: false,
            lock: None,
            misses: 0,
            said: None,
            problem: None,
            accounts: Vec::new(),
            counted: 0,
            orphans: Vec::new(),
            edits: Vec::new(),
            alive: None,
        };
        let configs = setup.configs.iter().map(watched).collect();
        Self {
            world,
            setup,
            configs,
            deadlines: BTreeSet::new(),
            wrong: BTreeSet::new(),
            known: 0,
            pace: Pace::new(),
            stopped: false,
            is_service: false,
        }
    }

    /// Watches, decides, refreshes, rewrites; until it is told to stop.
    pub async fn run(&mut self) {
        self.is_service = true;
        if self.setup.references.is_on("read-only-config") {
            self.world.announce(Event::new(Kind::ReadOnlyKometa, "KOMETA_READ_ONLY_CONFIG"));
        }
        for config in 0..self.configs.len() {
            self.watch(config);
            self.visit(config, Urgency::Usual).await;
        }
        while !self.stopped {
            let until = self.deadlines.first().map(|(at, _)| *at);
            let status = self.status();
            match self.world.wake(until, &status).await {
                Wake::Changed(configs) => {
                    for config in configs {
                        self.visit(config, Urgency::Usual).await;
                    }
                }
                Wake::Deadline => {
                    let now = self.world.now();
                    let due: Vec<usize> =
                        self.deadlines.iter().take_while(|(at, _)| *at <= now).map(|(_, config)| *config).collect();
                    for config in due {
                        self.tick(config).await;
                    }
                }
                Wake::AllChanged => self.visit_all(Urgency::Usual).await,
                Wake::ClockSet => {
                    self.world.announce(Event::new(Kind::ClockSet, "clock"));
                    // How long a file has stood still cannot be told by its date now.
                    tokio::select! {
                        biased;
                        () = self.world.stopping() => {}
                        () = self.world.pause(account::HALF_QUIET) => {}
                    }
                    self.visit_all(Urgency::Usual).await;
                }
                Wake::Reload => self.visit_all(Urgency::Asked).await,
                Wake::Stop => self.stopped = true,
            }
        }
        self.last_chance().await;
        self.world.announce(Event::new(Kind::Stopping, "kometa-authd"));
        self.world.farewell().await;
    }

    /// A pair that only memory has gets one more chance before memory ends; whether there was any. So does
    /// an edit that somebody made in a file that is no longer the config.
    async fn last_chance(&mut self) -> bool {
        let mut any = false;
        for config in 0..self.configs.len() {
            self.reclaim(config, true).await;
            any |= self.store_the_only_copy(config).await;
        }
        any
    }

    /// A pair that only memory has is tried again to be stored; whether there was any.
    async fn store_the_only_copy(&mut self, config: usize) -> bool {
        let mut unkept = false;
        for account in &mut self.configs[config].accounts {
            if account.pending.has_the_only_copy() {
                (account.hold_until, unkept) = (None, true);
            }
        }
        if unkept {
            self.visit(config, Urgency::Usual).await;
        }
        unkept
    }

    /// One look at everything, for the one-shot: how far it got, as far as the files do not say.
    pub async fn once(&mut self, urgency: Urgency) -> State {
        for config in 0..self.configs.len() {
            self.visit(config, urgency).await;
        }
        if (0..self.configs.len()).any(|config| self.is_written_to(config)) {
            // Whoever had the old file open has a moment to finish.
            self.world.pause(account::QUIET).await;
        }
        // Memory ends with the process, so it does not end while only memory has a pair.
        while self.last_chance().await {
            tokio::select! {
                biased;
                () = self.world.stopping() => break,
                () = self.world.pause(LOCK_RETRY) => {}
            }
        }
        self.world.farewell().await;
        let held =
            self.configs.iter().flat_map(|watched| &watched.accounts).filter(|account| account.hold_until.is_some());
        let states = held.map(|account| match account.said {
            Some((Kind::StateUnusable | Kind::EditRefused, _)) => State::NeedsPerson,
            _ => State::Degraded,
        });
        states.max().unwrap_or(State::Healthy)
    }

    async fn visit_all(&mut self, urgency: Urgency) {
        for config in 0..self.configs.len() {
            if urgency > Urgency::Usual {
                // A person asked: what was given up on, or said before, is looked at as if new.
                for account in &mut self.configs[config].accounts {
                    (account.said, account.hold_until) = (None, None);
                }
            }
            self.visit(config, urgency).await;
        }
    }

    fn watch(&mut self, config: usize) {
        let path = self.configs[config].path.clone();
        let place = self.world.disk().resolve(&path).and_then(|real| self.world.disk().place(&real));
        let reports = self.world.watch(config, &path);
        let watched = &mut self.configs[config];
        let subject = path.display().to_string();
        match place {
            Ok(found) if found.silent.is_some() || found.mount_point => {
                watched.polled = true;
                if let Some(detail) = found.silent {
                    self.world.announce(Event::new(Kind::Polling, &subject).detail(detail));
                }
                if found.mount_point {
                    self.world.announce(Event::new(Kind::SingleFileMount, subject));
                }
            }
            _ if !reports => {
                watched.polled = true;
                self.world.announce(Event::new(Kind::WatchFailed, subject));
            }
            _ => {}
        }
    }

    /// One sentence about the whole: what is next, or what is wrong.
    fn status(&self) -> String {
        let wrong = self.wrong.iter().filter_map(|config| {
            let watched = &self.configs[*config];
            let (kind, why) = watched.said.as_ref()?;
            Some(format!("{}: {}: {why}", watched.path.display(), kind.row().1))
        });
        let known = self.configs.iter().flat_map(Watched::known).cloned();
        let shown: Vec<String> = wrong.chain(known).take(3).collect();
        let all = self.wrong.len() + self.known;
        match (shown.is_empty(), all.saturating_sub(shown.len())) {
            (true, _) => "no account yet".to_owned(),
            (false, 0) => shown.join("; "),
            (false, more) => format!("{}; and {more} more", shown.join("; ")),
        }
    }

    async fn visit(&mut self, config: usize, urgency: Urgency) {
        self.reclaim(config, false).await;
        self.configs[config].due = self.look(config, urgency).await;
        self.let_go(config);
        self.plan(config);
    }

    /// A deadline: what is due is done, and what only wanted a glance gets no more than that.
    async fn tick(&mut self, config: usize) {
        let now = self.world.now();
        // Where this writes the file, the watch tells of it.
        self.reclaim(config, false).await;
        if self.is_quiet(config, now) {
            self.plan(config);
        } else {
            self.visit(config, Urgency::Usual).await;
        }
    }

    /// When to look at a config again without being woken by a change.
    fn plan(&mut self, config: usize) {
        let now = self.world.now();
        if let Some(at) = self.configs[config].wakes_at.take() {
            self.deadlines.remove(&(at, config));
        }
        let watched = &self.configs[config];
        let poll = watched.polled.then(|| now.plus(POLL_S));
        let orphan = watched.orphans.iter().map(|orphan| orphan.look_at).min();
        let edit = watched.edits.iter().map(|edit| edit.look_at).min();
        let at = [watched.due, poll, orphan, edit].into_iter().flatten().min();
        // Never in the past: what was due has been looked at.
        let at = at.map(|at| at.max(now.plus(1)));
        self.configs[config].wakes_at = at;
        self.deadlines.extend(at.map(|at| (at, config)));
        self.count(config);
    }

    /// Keeps count of what there is to say in a status.
    fn count(&mut self, config: usize) {
        let watched = &mut self.configs[config];
        let known = watched.known().count();
        self.known = self.known - std::mem::replace(&mut watched.counted, known) + known;
        if watched.said.is_some() {
            self.wrong.insert(config);
        } else {
            self.wrong.remove(&config);
        }
    }

    /// Whether there is nothing to look at: nothing is due, and where no change is reported, the file is the
    /// one that was read last.
    fn is_quiet(&self, config: usize, now: UnixSeconds) -> bool {
        let watched = &self.configs[config];
        if watched.due.is_some_and(|due| due <= now) {
            return false;
        }
        !watched.polled
            || watched.seen.as_ref().is_some_and(|(path, meta)| {
                let disk = self.world.disk();
                let is_settled = now.since(meta.modified_at) > POLL_S;
                is_settled
                    && disk.resolve(&watched.path).is_ok_and(|real| {
                        Fingerprint::of_path(&real) == *path && disk.meta(&real).is_ok_and(|now| now == *meta)
                    })
            })
    }

    /// Reads a config and settles each of its accounts; tells when to look again.
    async fn look(&mut self, config: usize, urgency: Urgency) -> Option<UnixSeconds> {
        if self.configs[config].misses > 0 {
            // What was not there may be there now, in a folder that is not the one that was watched.
            let path = self.configs[config].path.clone();
            self.world.watch(config, &path);
        }
        let (watched, now) = (&self.configs[config], self.world.now());
        // What could not be cleared away waits like any other thing that failed: its lock may be somebody else's.
        let is_held = watched.accounts.iter().any(|account| account.hold_until.is_some_and(|until| until > now));
        if watched.misses > 0 || watched.leftovers && !(is_held && urgency == Urgency::Usual) {
            self.recover(config).await;
        }
        let (snapshot, settings) = match self.read(config) {
            Ok(read) => read,
            Err((kind, why)) => {
                let watched = &mut self.configs[config];
                // Another problem than at the last look is somebody's next write, and begins anew.
                let is_same = watched.problem.as_ref() == Some(&why);
                watched.misses = if is_same { watched.misses + 1 } else { 1 };
                watched.problem = Some(why.clone());
                // At first somebody is probably writing, and is done in a moment.
                let wait = (1_i64 << watched.misses.min(6)).min(LOOK_AGAIN_MAX_S) / 2;
                let subject = watched.path.display().to_string();
                if urgency > Urgency::Usual {
                    watched.said = None;
                }
                // One look at half a file, or at the moment without one that some editors leave, says nothing; the
                // second one does, and one that a person asked for.
                let passes = kind == Kind::SomeoneWrites || why == Unreadable::Missing.to_string();
                if !passes || watched.misses > 1 || urgency > Urgency::Usual {
                    self.say(config, Event::new(kind, subject).detail(why));
                }
                return Some(self.world.now().plus(wait.max(1)));
            }
        };
        self.world.hear(&self.configs[config].path, &settings.channels);
        self.stay_visible(config, &snapshot.path).await;
        let watched = &mut self.configs[config];
        watched.misses = 0;
        if watched.said.take().is_some() {
            let mut event = Event::new(Kind::Readable, watched.path.display().to_string());
            event.config = Some(watched.path.clone());
            self.world.announce(event);
        }
        let leads_to = Fingerprint::of_path(&snapshot.path);
        let before = self.configs[config].seen.replace((leads_to, snapshot.meta));
        if before.is_some_and(|(path, _)| path != leads_to) {
            // A link that leads elsewhere now: changes come from another folder.
            let path = self.configs[config].path.clone();
            self.configs[config].polled |= !self.world.watch(config, &path);
        }
        let mut next: Option<UnixSeconds> = None;
        let is_fresh = account::is_fresh(&snapshot.meta, self.world.now());
        let has = |account: &Account| settings.sections.iter().any(|section| section.provider == account.provider);
        if is_fresh && !(settings.problems.is_empty() && self.configs[config].accounts.iter().all(has)) {
            // Half a file may look odd, or lack a section: that counts when it is still so a moment later.
            next = Some(self.world.now().plus(2));
        } else {
            self.configs[config].accounts.retain(has);
        }
        let is_news = self.configs[config].fingerprint != Some(snapshot.fingerprint);
        self.configs[config].fingerprint = next.is_none().then_some(snapshot.fingerprint);
        if is_news {
            for account in &mut self.configs[config].accounts {
                // What held it up may be gone.
                account.hold_until = None;
            }
        }
        if is_news && next.is_none() {
            for problem in &settings.problems {
                let event = Event::new(Kind::SettingsProblem, self.configs[config].path.display().to_string());
                self.world.announce(event.detail(problem.to_string()));
            }
        }
        for section in settings.sections {
            let provider = section.provider;
            let is_new = self.account_for(config, provider);
            if is_new && section.force_refresh {
                let name = self.name(config, provider);
                self.world.announce(Event::new(Kind::ForceRefresh, name));
            }
            let place = Place::new(&snapshot.path, self.setup.state.as_deref(), provider.name);
            // A start is a person's wish to be asked anew, and so is a reload.
            let asked = if is_new { urgency.max(Urgency::Asked) } else { urgency };
            let at = self.settle(config, provider, &place, section, urgency, asked).await;
            next = next.into_iter().chain(at).min();
        }
        next
    }

    /// Finishes what was cut off before the file is read: half of a write may be no YAML. What stands in the way of
    /// that is met again, and said, when an account is settled.
    async fn recover(&mut self, config: usize) {
        let Ok(real) = self.world.disk().resolve(&self.configs[config].path) else { return };
        let mut leftovers = false;
        for provider in PROVIDERS {
            let place = Place::new(&real, self.setup.state.as_deref(), provider.name);
            if place.has_leftovers(self.world.disk()) {
                let lock = self.lock(config, provider, &place).await;
                let recovered = lock.and_then(|lock| {
                    self.hold_lock(config, &place, lock);
                    store::recover(self.world.disk(), &place)
                });
                leftovers |= recovered.is_err();
            }
        }
        self.configs[config].leftovers = leftovers;
    }

    /// Makes sure of an account to remember things of; true where it is new.
    fn account_for(&mut self, config: usize, provider: &'static Provider) -> bool {
        let is_new = !self.configs[config].accounts.iter().any(|account| account.provider == provider);
        if is_new {
            let accounts = &mut self.configs[config].accounts;
            // One is usual, and room for four is a kilobyte for each of thousands.
            accounts.reserve_exact(1);
            accounts.push(Account {
                provider,
                said: None,
                news: None,
                status: String::new(),
                whose: None,
                pending: Pending::default(),
                hold_until: None,
                misses: 0,
                restless_since: None,
                expires_at: None,
            });
        }
        is_new
    }

    /// Reads and parses a config as it is now.
    fn read(&self, config: usize) -> Result<Read<HandleOf<W>>, (Kind, String)> {
        let disk = self.world.disk();
        let snapshot = file::read(disk, &self.configs[config].path).map_err(|why| match why {
            Unreadable::Stranded => (Kind::Stranded, String::new()),
            why => (Kind::Unreadable, why.to_string()),
        })?;
        let references = facts::references(disk, &self.setup, &snapshot);
        match settings::parse(&snapshot.text, &references) {
            Ok(settings) => Ok((snapshot, settings)),
            Err(problem) => Err((Kind::SomeoneWrites, problem.to_string())),
        }
    }

    /// Says something about a config, once.
    fn say(&mut self, config: usize, mut event: Event) {
        event.config = Some(self.configs[config].path.clone());
        let news = Some((event.kind, event.detail.clone()));
        if self.configs[config].said != news {
            self.configs[config].said = news;
            self.world.announce(event);
        }
    }
}
