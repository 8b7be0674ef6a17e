//! The loop: sole owner of the state.
//!
//! It is woken by a pulse, a deadline or a signal, looks at one config file,
//! asks `decision` for each account in it, does what it says, and sleeps
//! again. Everything with an effect goes through [`World`], so that the same
//! loop runs against the real edges and against simulated ones.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::backoff;
use crate::decision::{self, Decision, Facts, Kometa, Publishing, Refreshing, Seen, Urgency, Waiting};
use crate::disk::{Disk, explain};
use crate::event::{Event, Kind};
use crate::file::{self, Snapshot};
use crate::health::{self, Report};
use crate::journal::{Dead, Held, History, Journal, Origin, Record, Trouble};
use crate::kometa::Times;
use crate::provider::{Login, Provider};
use crate::refresh::reply::{self, Reply};
use crate::refresh::request::{Endpoint, Offer, Request, token_request};
use crate::refresh::{Network, Outcome, exchange};
use crate::settings::{self, References, Section, Settings};
use crate::splice::{self, Change, Edit};
use crate::store::{self, Place, Refused, Reservation};
use crate::token::{Fingerprint, Grant, Secret, UnixSeconds};

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
    /// Tells a person.
    fn announce(&mut self, event: Event);
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
pub struct Setup {
    /// The config files.
    pub configs: Vec<PathBuf>,
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
}

/// How often a place without events is looked at.
const POLL_S: i64 = 30;
/// How often a config is looked at that cannot be read.
const LOOK_AGAIN_MAX_S: i64 = 60;
/// How long a stop waits for an answer that is on its way.
const STOP_GRACE: Duration = Duration::from_secs(8);
/// How often somebody else's lock is tried.
const LOCK_RETRY: Duration = Duration::from_millis(200);
/// How often before it is let be: longer than any request takes.
const LOCK_ATTEMPTS: u32 = 300;
/// How long a file that was written just now is left alone before it is written again.
const QUIET: Duration = Duration::from_millis(400);
/// How long an emptied block has to stay so: half of a save looks like it.
const SIGN_OUT_QUIET: Duration = Duration::from_secs(2);
/// How often one visit may act before it lets the others have their turn.
const STEPS_MAX: usize = 8;
/// How often the file that a config took the place of is looked at, a second apart at first.
const ORPHAN_LOOKS: u32 = 5;

/// The daemon.
pub struct Daemon<W: World> {
    world: W,
    setup: Setup,
    configs: Vec<Watched<W>>,
    deadlines: BTreeSet<(UnixSeconds, usize)>,
    pace: Pace,
    stopped: bool,
}

/// One config file.
struct Watched<W: World> {
    path: PathBuf,
    fingerprint: Option<Fingerprint>,
    wakes_at: Option<UnixSeconds>,
    polled: bool,
    recovered: bool,
    lockless: bool,
    misses: u32,
    said: Option<(Kind, String)>,
    accounts: Vec<Account>,
    orphan: Option<Orphan<HandleOf<W>>>,
}

type HandleOf<W> = <<W as World>::Disk as Disk>::Handle;

/// What is remembered of an account between visits; everything else is in the journal.
struct Account {
    provider: &'static Provider,
    said: Option<(Kind, String)>,
    /// What was done since the account last came to rest; said together with what comes next.
    news: Option<Kind>,
    status: String,
    /// What the journal could not take.
    overlay: Option<Box<Held>>,
    hold_until: Option<UnixSeconds>,
    misses: u32,
}

/// A file that ours took the place of, and that somebody may still have open for writing.
struct Orphan<H> {
    snapshot: Snapshot<H>,
    ours: Fingerprint,
    look_at: UnixSeconds,
    looks: u32,
}

/// Never more than one request a second, and never more than a fixed number a day.
struct Pace {
    last: Option<UnixSeconds>,
    left: i64,
    counted_at: Option<UnixSeconds>,
}

impl Pace {
    /// Requests in a burst; a real day has a handful.
    const BURST: i64 = 1000;
    /// Seconds for one more.
    const REFILL_S: i64 = 20;

    fn take(&mut self, now: UnixSeconds) -> bool {
        let counted_at = *self.counted_at.get_or_insert(now);
        let more = now.since(counted_at).max(0) / Self::REFILL_S;
        self.left = (self.left + more).min(Self::BURST);
        self.counted_at = Some(if now < counted_at { now } else { counted_at.plus(more * Self::REFILL_S) });
        self.left -= 1;
        self.left >= 0
    }
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
    pub fn new(world: W, setup: Setup) -> Self {
        let watched = |path: &PathBuf| Watched {
            path: path.clone(),
            fingerprint: None,
            wakes_at: None,
            polled: false,
            recovered: false,
            lockless: false,
            misses: 0,
            said: None,
            accounts: Vec::new(),
            orphan: None,
        };
        let configs = setup.configs.iter().map(watched).collect();
        let pace = Pace { last: None, left: Pace::BURST, counted_at: None };
        Self { world, setup, configs, deadlines: BTreeSet::new(), pace, stopped: false }
    }

    /// Watches, decides, refreshes, rewrites; until it is told to stop.
    pub async fn run(&mut self) {
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
                        self.visit(config, Urgency::Usual).await;
                    }
                }
                Wake::AllChanged => self.visit_all(Urgency::Usual).await,
                Wake::ClockSet => {
                    self.world.announce(Event::new(Kind::ClockSet, "clock"));
                    self.visit_all(Urgency::Usual).await;
                }
                Wake::Reload => self.visit_all(Urgency::Asked).await,
                Wake::Stop => self.stopped = true,
            }
        }
        self.last_chance().await;
        self.world.announce(Event::new(Kind::Stopping, "kometa-authd"));
    }

    /// A pair that only memory has gets one more chance before memory ends; whether there was any.
    async fn last_chance(&mut self) -> bool {
        let mut any = false;
        for config in 0..self.configs.len() {
            let mut unkept = false;
            for account in &mut self.configs[config].accounts {
                if account.overlay.as_ref().is_some_and(|held| !held.published) {
                    (account.hold_until, unkept) = (None, true);
                }
            }
            if unkept {
                self.visit(config, Urgency::Usual).await;
            }
            any |= unkept;
        }
        any
    }

    /// One look at everything, for the one-shot.
    pub async fn once(&mut self, urgency: Urgency) {
        for config in 0..self.configs.len() {
            self.visit(config, urgency).await;
        }
        // Memory ends with the process, so it does not end while only memory has a pair.
        while self.last_chance().await {
            tokio::select! {
                biased;
                () = self.world.stopping() => return,
                () = self.world.pause(LOCK_RETRY) => {}
            }
        }
    }

    async fn visit_all(&mut self, urgency: Urgency) {
        for config in 0..self.configs.len() {
            if urgency > Urgency::Usual {
                // A person asked: what was given up on, or said before, is looked at as if new.
                let watched = &mut self.configs[config];
                watched.said = None;
                for account in &mut watched.accounts {
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
            Ok(found) if found.silent.is_some() => {
                watched.polled = true;
                let detail = found.silent.unwrap_or_default();
                self.world.announce(Event::new(Kind::Polling, subject).detail(detail));
            }
            Ok(found) if found.mount_point => {
                watched.polled = true;
                self.world.announce(Event::new(Kind::SingleFileMount, subject));
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
        let accounts = self.configs.iter().flat_map(|watched| &watched.accounts);
        let mut sentences = accounts.map(|account| account.status.as_str()).filter(|status| !status.is_empty());
        let shown: Vec<&str> = sentences.by_ref().take(3).collect();
        match (shown.is_empty(), sentences.count()) {
            (true, _) => "no account yet".to_owned(),
            (false, 0) => shown.join("; "),
            (false, more) => format!("{}; and {more} more", shown.join("; ")),
        }
    }

    async fn visit(&mut self, config: usize, urgency: Urgency) {
        if let Some(at) = self.configs[config].wakes_at.take() {
            self.deadlines.remove(&(at, config));
        }
        let now = self.world.now();
        self.reclaim(config).await;
        let next = self.look(config, urgency).await;
        let watched = &self.configs[config];
        let poll = watched.polled.then(|| now.plus(POLL_S));
        let orphan = watched.orphan.as_ref().map(|orphan| orphan.look_at);
        let at = [next, poll, orphan].into_iter().flatten().min();
        // Never in the past: what was due has been looked at.
        let at = at.map(|at| at.max(now.plus(1)));
        self.configs[config].wakes_at = at;
        self.deadlines.extend(at.map(|at| (at, config)));
    }

    /// Reads a config and settles each of its accounts; tells when to look again.
    async fn look(&mut self, config: usize, urgency: Urgency) -> Option<UnixSeconds> {
        let (snapshot, settings) = match self.read(config) {
            Ok(read) => read,
            Err((kind, why)) => {
                let watched = &mut self.configs[config];
                watched.misses += 1;
                // At first somebody is probably writing, and is done in a moment.
                let wait = (1_i64 << watched.misses.min(6)).min(LOOK_AGAIN_MAX_S) / 2;
                let subject = watched.path.display().to_string();
                // One half-written look says nothing; the second one does.
                if kind != Kind::SomeoneWrites || watched.misses > 1 {
                    self.say(config, Event::new(kind, subject).detail(why));
                }
                return Some(self.world.now().plus(wait.max(1)));
            }
        };
        let watched = &mut self.configs[config];
        watched.misses = 0;
        if watched.said.take().is_some() {
            let subject = watched.path.display().to_string();
            self.world.announce(Event::new(Kind::Readable, subject));
        }
        let is_news = self.configs[config].fingerprint != Some(snapshot.fingerprint);
        self.configs[config].fingerprint = Some(snapshot.fingerprint);
        if is_news {
            for account in &mut self.configs[config].accounts {
                // What held it up may be gone.
                account.hold_until = None;
            }
            for problem in &settings.problems {
                let event = Event::new(Kind::SettingsProblem, self.configs[config].path.display().to_string());
                self.world.announce(event.detail(problem.to_string()));
            }
        }
        self.configs[config]
            .accounts
            .retain(|account| settings.sections.iter().any(|section| section.provider == account.provider));
        let mut next: Option<UnixSeconds> = None;
        for section in settings.sections {
            let provider = section.provider;
            if !self.configs[config].accounts.iter().any(|account| account.provider == provider) {
                self.configs[config].accounts.push(Account {
                    provider,
                    said: None,
                    news: None,
                    status: String::new(),
                    overlay: None,
                    hold_until: None,
                    misses: 0,
                });
            }
            let place = Place::new(&snapshot.path, self.setup.state.as_deref(), provider.name);
            let at = self.settle(config, provider, &place, section, urgency).await;
            next = next.into_iter().chain(at).min();
        }
        self.configs[config].recovered = true;
        next
    }

    /// Reads and parses a config as it is now.
    fn read(&self, config: usize) -> Result<Read<HandleOf<W>>, (Kind, String)> {
        let disk = self.world.disk();
        let snapshot =
            file::read(disk, &self.configs[config].path).map_err(|why| (Kind::Unreadable, why.to_string()))?;
        if snapshot.meta.links == 0 {
            return Err((Kind::Stranded, String::new()));
        }
        let references = references(disk, &self.setup, &snapshot);
        match settings::parse(&snapshot.text, &references) {
            Ok(settings) => Ok((snapshot, settings)),
            Err(problem) => Err((Kind::SomeoneWrites, problem.to_string())),
        }
    }

    /// Says something about a config, once.
    fn say(&mut self, config: usize, event: Event) {
        let news = Some((event.kind, event.detail.clone()));
        if self.configs[config].said != news {
            self.configs[config].said = news;
            self.world.announce(event);
        }
    }

    fn account(&mut self, config: usize, provider: &'static Provider) -> Option<&mut Account> {
        self.configs[config].accounts.iter_mut().find(|account| account.provider == provider)
    }

    fn name(&self, config: usize, provider: &Provider) -> String {
        account_name(&self.configs[config].path, provider)
    }

    /// Says something about an account, once.
    fn tell(&mut self, config: usize, provider: &'static Provider, event: Event) {
        let news = Some(key(&event));
        if let Some(account) = self.account(config, provider) {
            if account.said == news {
                return;
            }
            account.said = news;
        }
        self.world.announce(event);
    }

    /// The journal's history, with what only memory has on top.
    fn history(&self, config: usize, provider: &Provider, place: &Place) -> Result<History, Refused> {
        let mut history = Journal::peek(self.world.disk(), &place.journal)
            .map_err(|error| Refused::Journal { path: place.journal.clone(), error })?;
        let accounts = &self.configs[config].accounts;
        let overlay = accounts.iter().find(|account| account.provider == provider).and_then(|a| a.overlay.as_ref());
        if let Some(held) = overlay {
            history.apply(&Record::Held(held.as_ref().clone()));
        }
        Ok(history)
    }

    fn decide(&self, place: &Place, section: &Section, history: &History, urgency: Urgency) -> Decision {
        let (now, seen) = (self.world.now(), seen(section));
        decision::decide(&Facts {
            now,
            seen,
            history,
            kometa: kometa(self.world.disk(), &self.setup, place, now),
            urgency,
        })
    }

    /// Brings one account to rest: acts until there is nothing to do now, and tells when there is.
    async fn settle(
        &mut self,
        config: usize,
        provider: &'static Provider,
        place: &Place,
        section: Section,
        mut urgency: Urgency,
    ) -> Option<UnixSeconds> {
        let now = self.world.now();
        if !section.is_used() {
            let name = self.name(config, provider);
            self.tell(config, provider, Event::new(Kind::NotSetUp, name));
            return None;
        }
        if let Some(until) = self.account(config, provider)?.hold_until.filter(|until| *until > now)
            && urgency == Urgency::Usual
        {
            return Some(until);
        }
        let history = match self.history(config, provider, place) {
            Ok(history) => history,
            Err(why) => return self.hold(config, provider, Kind::StateUnusable, &why),
        };
        let disk = self.world.disk();
        let leftovers =
            !self.configs[config].recovered && (disk.meta(&place.temp).is_ok() || disk.meta(&place.redo).is_ok());
        if !leftovers && let Decision::Wait { until, reason } = self.decide(place, &section, &history, urgency) {
            return self.rest(config, &section, &history, until, reason);
        }
        drop((section, history));
        let _lock = match self.lock(config, provider, place).await {
            Ok(lock) => lock,
            Err(_) if self.stopped => return None,
            Err(why) => return self.hold(config, provider, Kind::NothingSent, &why),
        };
        if let Err(why) = store::recover(self.world.disk(), place) {
            return self.hold(config, provider, Kind::GrantWaits, &why);
        }
        let mut settled = None;
        for _ in 0..STEPS_MAX {
            let Ok((snapshot, settings)) = self.read(config) else {
                return Some(self.world.now().plus(1));
            };
            let section = settings.sections.into_iter().find(|section| section.provider == provider)?;
            let history = match self.history(config, provider, place) {
                Ok(history) => history,
                Err(why) => return self.hold(config, provider, Kind::StateUnusable, &why),
            };
            let decision = self.decide(place, &section, &history, urgency);
            if let Some(pause) = quiet_time(decision, &snapshot, self.world.now(), &mut settled) {
                // Whoever writes may not be done: what counts is what still stands a moment later.
                self.world.pause(pause).await;
                continue;
            }
            let look = Look { snapshot, section, history };
            let next = match decision {
                Decision::Wait { until, reason } => {
                    return self.rest(config, &look.section, &look.history, until, reason);
                }
                Decision::Adopt => self.adopt(config, place, &look),
                Decision::SignOut => self.sign_out(config, place, &look),
                Decision::Publish(why) => self.publish(config, place, &look, why),
                Decision::Exchange => self.spend(config, place, look, None).await,
                Decision::Refresh(why) => {
                    // Once is what was asked for.
                    urgency = Urgency::Usual;
                    self.spend(config, place, look, Some(why)).await
                }
            };
            match next {
                Next::Again if !self.stopped => {}
                Next::Again => return None,
                Next::At(at) => return at,
            }
        }
        Some(self.world.now().plus(1))
    }

    /// Takes the lock of the config's folder: one of us reads, spends and writes at a time. `None`
    /// where the file system has no locks.
    async fn lock(
        &mut self,
        config: usize,
        provider: &'static Provider,
        place: &Place,
    ) -> Result<Option<HandleOf<W>>, Refused> {
        for attempt in 0..LOCK_ATTEMPTS {
            match self.world.disk().lock(&place.folder, true) {
                Ok(Some(lock)) => return Ok(Some(lock)),
                Ok(None) => {
                    if attempt == 5 {
                        let event = Event::new(Kind::WaitsForOther, self.name(config, provider));
                        self.world.announce(event);
                    }
                    self.stopped = tokio::select! {
                        biased;
                        () = self.world.stopping() => true,
                        () = self.world.pause(LOCK_RETRY) => false,
                    };
                    if self.stopped {
                        break;
                    }
                }
                Err(error) => {
                    let event = Event::new(Kind::NoLock, place.folder.display().to_string());
                    let event = event.detail(explain(&error));
                    if !std::mem::replace(&mut self.configs[config].lockless, true) {
                        self.world.announce(event);
                    }
                    return Ok(None);
                }
            }
        }
        Err(Refused::NotNow("another kometa-authd keeps the folder locked".to_owned()))
    }

    /// Nothing to do now: says so where it is news.
    fn rest(
        &mut self,
        config: usize,
        section: &Section,
        history: &History,
        until: Option<UnixSeconds>,
        reason: Waiting,
    ) -> Option<UnixSeconds> {
        let provider = section.provider;
        let name = self.name(config, provider);
        let expires_at = history.current.as_ref().and_then(decision::expires_at);
        let kind = health::kind(reason, history, self.world.now());
        let mut event = Event::new(kind, &name);
        (event.expires_at, event.next_at) = (expires_at, until);
        if let (Waiting::Retry, Some(trouble)) = (reason, &history.trouble) {
            event.detail.clone_from(&trouble.what);
            event.attempt = Some(trouble.attempts);
        }
        let clock = |at: Option<UnixSeconds>| at.map_or_else(|| "unknown".to_owned(), crate::clock::local);
        let status = match reason {
            Waiting::Valid | Waiting::KometaRuns => {
                format!("{name} valid until {}, next refresh {}", clock(expires_at), clock(until))
            }
            Waiting::Retry => format!("{name} failing, next attempt {}", clock(until)),
            _ => format!("{name}: {reason}"),
        };
        let account = self.account(config, provider)?;
        account.status = status;
        (account.misses, account.hold_until) = (0, None);
        match account.news.take() {
            // What was done and what comes next are one line.
            Some(news) if reason == Waiting::Valid => {
                account.said = Some(key(&event));
                event.kind = news;
                self.world.announce(event);
            }
            Some(news) => {
                self.world.announce(Event::new(news, name));
                self.tell(config, provider, event);
            }
            None => self.tell(config, provider, event),
        }
        until
    }

    /// Cannot act now for a reason of our own side: says why, and comes back.
    fn hold(&mut self, config: usize, provider: &'static Provider, kind: Kind, why: &Refused) -> Option<UnixSeconds> {
        let kind = match why {
            Refused::State { .. } => Kind::StateUnusable,
            Refused::Edit(_) => Kind::EditRefused,
            _ => kind,
        };
        let name = self.name(config, provider);
        let now = self.world.now();
        let account = self.account(config, provider)?;
        account.misses = account.misses.saturating_add(1);
        account.status = format!("{name}: {why}");
        let until = now.plus((1_i64 << account.misses.min(6)).min(LOOK_AGAIN_MAX_S));
        account.hold_until = Some(until);
        let mut event = Event::new(kind, name).detail(why.to_string());
        event.next_at = Some(until);
        self.tell(config, provider, event);
        Some(until)
    }

    /// Takes the file's pair for the current one.
    fn adopt(&mut self, config: usize, place: &Place, look: &Look<HandleOf<W>>) -> Next {
        let provider = look.section.provider;
        let draw = self.draw();
        let Some(held) = look.section.adopted(self.world.now(), draw) else {
            return Next::At(None);
        };
        let disk = self.world.disk();
        let kept = store::open_journal(disk, place).and_then(|mut journal| {
            let noted = journal.note(disk, &Record::Held(held.clone()));
            noted.map_err(|error| Refused::Journal { path: place.journal.clone(), error })
        });
        let overlay = kept.is_err().then(|| Box::new(held));
        if let Some(account) = self.account(config, provider) {
            account.overlay = overlay;
            account.news = Some(Kind::Adopted);
        }
        if let Err(why) = kept {
            // It is in the file; only a refresh needs the journal, and will say so again.
            let event = Event::new(Kind::StateUnusable, self.name(config, provider)).detail(why.to_string());
            self.tell(config, provider, event);
        }
        Next::Again
    }

    fn draw(&self) -> u16 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
        let draw = (self.world.draw().clamp(0.0, 1.0) * 1000.0) as u16;
        draw
    }

    /// Takes an emptied block for a sign-out.
    fn sign_out(&mut self, config: usize, place: &Place, look: &Look<HandleOf<W>>) -> Next {
        let provider = look.section.provider;
        let disk = self.world.disk();
        let record = Record::SignedOut(self.world.now());
        let noted = store::open_journal(disk, place).and_then(|mut journal| {
            let added = journal.add(disk, &record);
            added.map_err(|error| Refused::Journal { path: place.journal.clone(), error })
        });
        match noted {
            Ok(()) => {
                if let Some(account) = self.account(config, provider) {
                    account.overlay = None;
                }
                let event = Event::new(Kind::SignedOut, self.name(config, provider));
                self.world.announce(event);
                Next::Again
            }
            Err(why) => Next::At(self.hold(config, provider, Kind::StateUnusable, &why)),
        }
    }

    /// Puts the newest pair into the file.
    fn publish(&mut self, config: usize, place: &Place, look: &Look<HandleOf<W>>, why: Publishing) -> Next {
        let provider = look.section.provider;
        let kind = match why {
            Publishing::New => Kind::Published,
            Publishing::SpentCameBack => Kind::PutBack,
        };
        // Without a journal the file is all the more needed.
        let mut journal = store::open_journal(self.world.disk(), place).ok();
        let overlay = self.account(config, provider).and_then(|account| account.overlay.clone());
        if let (Some(held), Some(open)) = (overlay, &mut journal)
            && open.add(self.world.disk(), &Record::Held(*held)).is_ok()
            && let Some(account) = self.account(config, provider)
        {
            account.overlay = None;
        }
        match self.write(config, place, provider, &look.history, journal.as_mut()) {
            Ok(written) => {
                if let Some(account) = self.account(config, provider).filter(|_| written) {
                    account.news = Some(kind);
                }
                Next::Again
            }
            Err(why) => Next::At(self.hold(config, provider, Kind::GrantWaits, &why)),
        }
    }

    /// Writes the newest pair into the file; false where the file has somebody's own by now.
    fn write(
        &mut self,
        config: usize,
        place: &Place,
        provider: &'static Provider,
        history: &History,
        mut journal: Option<&mut Journal<HandleOf<W>>>,
    ) -> Result<bool, Refused> {
        let Some(held) = &history.current else { return Ok(false) };
        let disk = self.world.disk();
        let foreign = Cell::new(false);
        let make = |text: &str| {
            let edited = edit(text, provider, &held.grant, history)?;
            foreign.set(edited.is_none());
            Ok(edited)
        };
        let mut note = |record: &Record| {
            if let Some(journal) = &mut journal {
                // Only a help for the next start.
                let _ = journal.note(disk, record);
            }
        };
        let replaced = store::replace(disk, place, &mut note, &make)?;
        if foreign.get() {
            return Ok(false);
        }
        note(&Record::Published);
        let look_at = self.world.now().plus(1);
        let watched = &mut self.configs[config];
        if let Some(account) = watched.accounts.iter_mut().find(|account| account.provider == provider) {
            if let Some(held) = &mut account.overlay {
                held.published = true;
            }
            account.misses = 0;
        }
        if let Some(replaced) = replaced {
            watched.fingerprint = Some(replaced.fingerprint);
            watched.orphan =
                replaced.before.map(|snapshot| Orphan { snapshot, ours: replaced.fingerprint, look_at, looks: 0 });
        }
        Ok(true)
    }

    /// Trades a refresh token, or what a person gave, for a grant; once.
    async fn spend(&mut self, config: usize, place: &Place, look: Look<HandleOf<W>>, why: Option<Refreshing>) -> Next {
        let Look { snapshot, section, history } = look;
        let provider = section.provider;
        let old = why.and_then(|_| decision::token_to_spend(&history)?.grant.refresh_token.clone());
        let (Some(spent), Some(credentials)) = (old.clone().or_else(|| section.once.clone()), section.credentials())
        else {
            return Next::At(None);
        };
        let spends = spent.fingerprint();
        let unknown_before = history.intent.is_some_and(|intent| intent.spends == spends);
        let disk = self.world.disk();
        let pretend = pretend_grant(self.world.now());
        let make = |text: &str| match edit(text, provider, &pretend, &history)? {
            Some(new) => Ok(Some(new)),
            None => Err(Refused::NotNow("the file changed just now".to_owned())),
        };
        let mut reservation = match store::reserve(disk, place, &snapshot, spends, self.world.now(), &make) {
            Ok(reservation) => reservation,
            Err(why) => return Next::At(self.hold(config, provider, Kind::NothingSent, &why)),
        };
        if !self.pace.take(self.world.now()) {
            return Next::At(Some(self.world.now().plus(60)));
        }
        if self.pace.last.is_some_and(|last| self.world.now().since(last) <= 1) {
            self.world.pause(Duration::from_secs(1)).await;
        }
        self.pace.last = Some(self.world.now());
        let offer = match &old {
            Some(token) => Offer::RefreshToken(token),
            None => Offer::Code { code: &spent, verifier: None },
        };
        let endpoint = self.setup.endpoints.iter().find(|endpoint| endpoint.provider == provider);
        let Some(request) = endpoint.map(|endpoint| token_request(endpoint, &credentials, &offer)) else {
            return Next::At(None);
        };
        let outcome = self.send(&request, &reservation).await;
        let answer = match outcome {
            Outcome::Answered(answer) => answer,
            Outcome::NotSent(what) => {
                return self.failed(config, provider, &mut reservation.journal, what, None, !unknown_before);
            }
            Outcome::Unknown(what) => {
                return self.failed(config, provider, &mut reservation.journal, what, None, false);
            }
        };
        let reply = reply::classify(&answer);
        let now = self.world.now();
        let journal = &mut reservation.journal;
        let record = match reply {
            Reply::Grant(mut grant) => {
                grant.refresh_token = grant.refresh_token.or_else(|| old.clone());
                let held = Held {
                    grant,
                    origin: if old.is_some() { Origin::Refreshed } else { Origin::Authorized },
                    at: now,
                    client: credentials.client_id.fingerprint(),
                    draw: self.draw(),
                    published: false,
                };
                let used = old.is_none().then_some(spends);
                return self.commit(config, place, provider, reservation, held, used);
            }
            Reply::Later { what, retry_after_s, settled } => {
                let settled = settled && !unknown_before;
                return self.failed(config, provider, journal, what.into_owned(), retry_after_s, settled);
            }
            Reply::Invalid if old.is_none() => {
                let event = Event::new(Kind::CodeRejected, self.name(config, provider));
                self.world.announce(event);
                Record::Used(spends)
            }
            Reply::Invalid => Record::Dead(Dead { token: spends, at: now, lost: unknown_before }),
            Reply::BadClient => {
                let trouble = Trouble {
                    since: journal.history.trouble.as_ref().map_or(now, |trouble| trouble.since),
                    attempts: journal.history.trouble.as_ref().map_or(1, |trouble| trouble.attempts.saturating_add(1)),
                    not_before: now.plus(backoff::REFUSED_S),
                    what: "the provider refused client_id or client_secret".to_owned(),
                    asked: false,
                    refused: section.seen().credentials,
                };
                Record::Trouble { trouble, settled: !unknown_before }
            }
        };
        match journal.add(self.world.disk(), &record) {
            Ok(()) => Next::Again,
            Err(error) => {
                let why = Refused::Journal { path: place.journal.clone(), error };
                Next::At(self.hold(config, provider, Kind::StateUnusable, &why))
            }
        }
    }

    /// Sends a request; a stop waits for the answer, but not for ever.
    async fn send(&mut self, request: &Request, reservation: &Reservation<HandleOf<W>>) -> Outcome {
        let mut post = pin!(exchange(&self.world, request, reservation));
        let first = tokio::select! {
            biased;
            outcome = &mut post => Some(outcome),
            () = self.world.stopping() => None,
        };
        let Some(outcome) = first else {
            self.stopped = true;
            return tokio::select! {
                biased;
                outcome = &mut post => outcome,
                () = self.world.pause(STOP_GRACE) => Outcome::Unknown("stopped before the answer came".to_owned()),
            };
        };
        outcome
    }

    /// Keeps a grant: the journal first, then the file.
    fn commit(
        &mut self,
        config: usize,
        place: &Place,
        provider: &'static Provider,
        mut reservation: Reservation<HandleOf<W>>,
        held: Held,
        used: Option<Fingerprint>,
    ) -> Next {
        let kept = store::keep(self.world.disk(), place, &mut reservation, &held);
        let journal = &mut reservation.journal;
        let expires_at = decision::expires_at(&held);
        let kind = if held.origin == Origin::Refreshed { Kind::Refreshed } else { Kind::Authorized };
        if kept.is_err() {
            journal.history.apply(&Record::Held(held.clone()));
            if let Some(account) = self.account(config, provider) {
                account.overlay = Some(Box::new(held));
            }
        }
        if let Some(used) = used {
            // May be lost: the provider would only say again that it is used.
            let _ = journal.note(self.world.disk(), &Record::Used(used));
            journal.history.apply(&Record::Used(used));
        }
        let history = journal.history.clone();
        let written = self.write(config, place, provider, &history, Some(journal));
        match (kept, written) {
            (Ok(()), Ok(written)) => {
                if let Some(account) = self.account(config, provider).filter(|_| written) {
                    account.news = Some(kind);
                }
                Next::Again
            }
            (Ok(()), Err(why)) => Next::At(self.hold(config, provider, Kind::GrantWaits, &why)),
            (Err(why), Ok(_)) => {
                let mut event = Event::new(kind, self.name(config, provider));
                event.expires_at = expires_at;
                self.world.announce(event);
                Next::At(self.hold(config, provider, Kind::StateUnusable, &why))
            }
            (Err(_), Err(why)) => {
                let event = Event::new(Kind::GrantOnlyInMemory, self.name(config, provider));
                self.tell(config, provider, event.detail(why.to_string()));
                let until = self.world.now().plus(2);
                if let Some(account) = self.account(config, provider) {
                    account.hold_until = Some(until);
                }
                Next::At(Some(until))
            }
        }
    }

    /// Notes a failed attempt, and when the next one is.
    fn failed(
        &mut self,
        config: usize,
        provider: &'static Provider,
        journal: &mut Journal<HandleOf<W>>,
        what: String,
        retry_after_s: Option<i64>,
        settled: bool,
    ) -> Next {
        let now = self.world.now();
        let what = if settled { what } else { format!("{what}; the request may have been acted on") };
        let before = journal.history.trouble.as_ref();
        let attempts = before.map_or(1, |trouble| trouble.attempts.saturating_add(1));
        let lifetime_s = journal.history.current.as_ref().and_then(decision::life).map_or(86_400, |life| life.1);
        let delay_s = backoff::delay_s(attempts, retry_after_s, lifetime_s, self.world.draw());
        let trouble = Trouble {
            since: before.map_or(now, |trouble| trouble.since),
            attempts,
            not_before: now.plus(delay_s),
            what,
            asked: retry_after_s.is_some(),
            refused: None,
        };
        if journal.add(self.world.disk(), &Record::Trouble { trouble, settled }).is_err()
            && let Some(account) = self.account(config, provider)
        {
            account.hold_until = Some(now.plus(delay_s));
            return Next::At(account.hold_until);
        }
        Next::Again
    }

    /// Looks at the file that ours took the place of: what somebody wrote into it since is their edit.
    async fn reclaim(&mut self, config: usize) {
        let now = self.world.now();
        let Some(mut orphan) = self.configs[config].orphan.take_if(|orphan| orphan.look_at <= now) else { return };
        orphan.looks += 1;
        orphan.look_at = now.plus(1 << orphan.looks.min(5));
        let Ok((bytes, _)) = self.world.disk().read(&orphan.snapshot.handle, file::SIZE_MAX_BYTES) else { return };
        let fingerprint = Fingerprint::of(&bytes);
        if fingerprint == orphan.snapshot.fingerprint {
            if orphan.looks < ORPHAN_LOOKS {
                self.configs[config].orphan = Some(orphan);
            }
            return;
        }
        let text = String::from_utf8(bytes).unwrap_or_default();
        let references = references(self.world.disk(), &self.setup, &orphan.snapshot);
        let sections = settings::parse(&text, &references).map(|settings| settings.sections);
        let Some(provider) = sections.ok().and_then(|sections| Some(sections.first()?.provider)) else {
            // Still being written.
            orphan.look_at = now.plus(1);
            self.configs[config].orphan = Some(orphan);
            return;
        };
        let place = Place::new(&orphan.snapshot.path, self.setup.state.as_deref(), provider.name);
        let Ok(_lock) = self.lock(config, provider, &place).await else { return };
        let Ok(mut journal) = store::open_journal(self.world.disk(), &place) else { return };
        // Only while the file is what we made of it; the blocks are put right by the look that follows.
        let make = |now: &str| Ok((Fingerprint::of(now.as_bytes()) == orphan.ours).then(|| text.clone()));
        let mut note = |record: &Record| drop(journal.note(self.world.disk(), record));
        if let Ok(Some(replaced)) = store::replace(self.world.disk(), &place, &mut note, &make) {
            orphan.snapshot.fingerprint = fingerprint;
            (orphan.ours, orphan.looks, orphan.look_at) = (replaced.fingerprint, 0, now.plus(1));
            self.configs[config].orphan = Some(orphan);
        }
    }
}

/// How each account of a config is now, from the files alone.
///
/// # Errors
/// The file cannot be read or parsed; the sentence says why.
pub fn look<D: Disk>(disk: &D, setup: &Setup, path: &Path, now: UnixSeconds) -> Result<Vec<Report>, String> {
    let snapshot = file::read(disk, path).map_err(|why| why.to_string())?;
    let settings =
        settings::parse(&snapshot.text, &references(disk, setup, &snapshot)).map_err(|why| why.to_string())?;
    let report = |section: &Section| {
        let place = Place::new(&snapshot.path, setup.state.as_deref(), section.provider.name);
        let mut history = Journal::peek(disk, &place.journal)
            .map_err(|error| Refused::Journal { path: place.journal.clone(), error }.to_string())?;
        let facts = |history: &History| {
            let seen = seen(section);
            let kometa = kometa(disk, setup, &place, now);
            decision::decide(&Facts { now, seen, history, kometa, urgency: Urgency::Usual })
        };
        let mut decision = facts(&history);
        if let (Decision::Adopt, Some(held)) = (decision, section.adopted(now, 0)) {
            history.apply(&Record::Held(held));
            decision = facts(&history);
        }
        Ok(health::report(account_name(path, section.provider), now, section, &history, decision))
    };
    settings.sections.iter().map(report).collect()
}

/// What Kometa does around now: its log beside the config, and its times.
fn kometa<D: Disk>(disk: &D, setup: &Setup, place: &Place, now: UnixSeconds) -> Kometa {
    let log = disk.meta(&place.folder.join("logs/meta.log"));
    Kometa { active_at: log.ok().map(|meta| meta.modified_at), starts: setup.times.around(now, &setup.zone) }
}

/// The environment's references, and those of `.env` beside the config where any are used.
pub fn references<D: Disk>(disk: &D, setup: &Setup, snapshot: &Snapshot<D::Handle>) -> References {
    let mut references = setup.references.clone();
    if settings::has_reference(&snapshot.text) {
        let path = snapshot.path.with_file_name(".env");
        if let Ok(found) = disk.open(&path, crate::disk::Open::Read)
            && let Ok((bytes, _)) = disk.read(&found, file::SIZE_MAX_BYTES)
        {
            references.add_env_file(&String::from_utf8_lossy(&bytes));
        }
    }
    references
}

/// What an edit with a pretend grant would make of a text.
///
/// # Errors
/// The edit would touch more than the block.
pub fn pretend_edit(text: &str, provider: &'static Provider) -> Result<String, splice::Refused> {
    let grant = pretend_grant(crate::clock::now());
    let edit = Edit { provider, change: Change::Write(&grant), clear_once_key: false };
    splice::splice(text, &edit).map(|spliced| spliced.text)
}

/// How long to wait before acting on a file that was written just now; `settled` is the text that was
/// waited for.
fn quiet_time<H>(
    decision: Decision,
    snapshot: &Snapshot<H>,
    now: UnixSeconds,
    settled: &mut Option<Fingerprint>,
) -> Option<Duration> {
    let pause = match decision {
        Decision::Wait { .. } | Decision::Adopt => return None,
        Decision::SignOut => SIGN_OUT_QUIET,
        Decision::Publish(_) | Decision::Exchange | Decision::Refresh(_) => QUIET,
    };
    let is_fresh = (-1..=1).contains(&now.since(snapshot.meta.modified_at));
    let waited = settled.replace(snapshot.fingerprint) == Some(snapshot.fingerprint);
    (is_fresh && !waited).then_some(pause)
}

/// What `decide` sees of a section: an address pasted for a provider is not for us to exchange yet.
fn seen(section: &Section) -> Seen {
    let mut seen = section.seen();
    if !matches!(section.provider.login, Login::Device { .. }) {
        seen.once = None;
    }
    seen
}

/// What makes an event the same as the one before.
fn key(event: &Event) -> (Kind, String) {
    (event.kind, format!("{} {:?}", event.detail, event.expires_at))
}

fn account_name(path: &Path, provider: &Provider) -> String {
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    format!("{file}#{}", provider.name)
}

/// A grant as large as any, to try an edit with before a token is spent for the real one.
fn pretend_grant(now: UnixSeconds) -> Grant {
    Grant {
        access_token: Secret::new("a".repeat(64)),
        token_type: Some("bearer".to_owned()),
        expires_in: Some(604_800),
        refresh_token: Some(Secret::new("r".repeat(64))),
        scope: Some("public".to_owned()),
        created_at: Some(now),
    }
}

/// The edit that puts a grant into a text, if the pair there may give way to it.
fn edit(text: &str, provider: &'static Provider, grant: &Grant, history: &History) -> Result<Option<String>, Refused> {
    // References do not matter here: a token is never written through one.
    let settings = settings::parse(text, &References::default())
        .map_err(|problem| Refused::NotNow(format!("the file is not complete YAML: {problem}")))?;
    let Some(section) = settings.sections.iter().find(|section| section.provider == provider) else {
        return Ok(None);
    };
    if !decision::may_replace(&section.seen(), history) {
        return Ok(None);
    }
    let used = section.once.as_ref().is_some_and(|once| history.used.contains(&once.fingerprint()));
    let spliced = splice::splice(text, &Edit { provider, change: Change::Write(grant), clear_once_key: used })?;
    Ok(Some(spliced.text))
}
