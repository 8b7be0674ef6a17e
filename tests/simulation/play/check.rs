//! What must hold, at every moment.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use kometa_authd::event::Kind;
use kometa_authd::sandbox::rules::Rotation;
use kometa_authd::sandbox::world::Visit;
use kometa_authd::token::{Fingerprint, Secret};

use super::disk::{Death, Disks};
use super::machine::{Machine, OURS, provider_of};
use super::people::{around, value};
use super::plan::{DAY_MS, KometaSort, Scenario};
use super::run::{CONFIG, Run, STATE, SWAP, seconds};

/// Two syncs of a directory entry and a write: the operations after an answer in which it is in memory only.
const WINDOW: u64 = 2;
/// So long after the last disturbance everything is in order again.
const CALM_MS: i64 = 1_800_000;

/// What was seen so far.
pub struct Checks {
    /// Until then not everything can be in order.
    pub disturbed_ms: i64,
    /// Which processes were told to stop.
    pub was_stopped: [bool; 2],
    /// Where the loss of a token is nobody's fault here.
    excused: BTreeSet<&'static str>,
    exchanges_seen: usize,
    events_seen: usize,
    touched_seen: u64,
    foreign_seen: usize,
    /// The newest pair that reached us, and the token that it was given for.
    newest: BTreeMap<&'static str, (Secret, Option<Fingerprint>, u64)>,
    unkept: bool,
    /// Tokens that we spent, whose successors are kept.
    spent: HashSet<Fingerprint>,
    /// Which pair the file shows, by its place in the ledger.
    shown: BTreeMap<&'static str, Option<usize>>,
    /// When the refresh of a pair is due, by its access token.
    due: BTreeMap<Fingerprint, i64>,
    is_precise: bool,
}

impl Checks {
    pub fn new(scenario: &Scenario) -> Self {
        let is_precise = scenario.lifetime_s >= 6 * 3600
            && scenario.kometa == KometaSort::Absent
            && !scenario.is_polled
            && scenario.daemons == 1
            && !(scenario.trakt && scenario.mal);
        Self {
            disturbed_ms: super::run::START_MS,
            was_stopped: [false; 2],
            excused: BTreeSet::new(),
            exchanges_seen: 0,
            events_seen: 0,
            touched_seen: 0,
            foreign_seen: 0,
            newest: BTreeMap::new(),
            unkept: false,
            spent: HashSet::new(),
            shown: BTreeMap::new(),
            due: BTreeMap::new(),
            is_precise,
        }
    }

    pub fn clock_was_set(&mut self) {
        self.due.clear();
    }

    /// A token may be lost now, and nobody here is to blame.
    pub fn excuse(&mut self, provider: &'static str) {
        self.excused.insert(provider);
    }

    /// A process is about to end.
    pub fn dies(&mut self, machine: &mut Machine, disks: &Disks, process: usize, death: Death) {
        let Machine { exchanges, providers, .. } = machine;
        let last = disks.dead.iter().find(|dead| dead.0 == process).map_or(disks.operations, |dead| dead.2);
        for exchange in exchanges.iter_mut().rev().take(4).filter(|exchange| exchange.process == process) {
            let visit = &providers.requests[exchange.visit];
            let Some(provider) = provider_of(visit.endpoint) else {
                // The ones after it are looked at only when it is over.
                exchange.is_over = true;
                continue;
            };
            let is_lost = match exchange.delivered_at {
                None => !exchange.is_over && visit.acted == Some(200),
                // Between the answer and the first durable copy of it.
                Some(at) => last <= at + WINDOW || disks.failed_at > at,
            };
            if is_lost {
                self.excused.insert(provider);
                self.newest.remove(provider);
            }
            (exchange.is_over, exchange.is_lost) = (true, exchange.is_lost || is_lost);
        }
        if death == Death::PowerLoss {
            self.due.clear();
        }
    }

    /// What holds at every moment.
    pub fn check(run: &mut Run) -> Result<(), String> {
        let orphaned = run.disks.borrow_mut().orphaned.take();
        if let Some(before) = orphaned {
            run.people.settling = Some((run.machine.borrow().now_ms + 60_000, before));
            if run.disks.borrow().replaced_by.is_none() {
                // Whoever had it open was stopped in the very moment.
                super::people::process_died(run);
            }
        }
        let touched = run.disks.borrow().touched;
        if run.checks.touched_seen != touched {
            run.checks.touched_seen = touched;
            run.check_file()?;
            run.checks.unkept = true;
        }
        if run.people.settling.is_some_and(|(until, _)| until <= run.now()) {
            run.check_file()?;
            run.people.settling = None;
        }
        run.check_exchanges()?;
        run.check_events()?;
        if run.checks.unkept && run.is_at_rest() {
            run.checks.unkept = false;
            run.check_kept()?;
        }
        run.check_due()?;
        run.check_valid()
    }

    /// What holds in the end.
    pub fn at_the_end(run: &mut Run) -> Result<(), String> {
        if !run.is_alive() {
            return Ok(());
        }
        for name in run.disks.borrow().names_in(Path::new("/config")) {
            let known = [CONFIG, STATE, "/config/logs", "/config/other-name.yml"];
            if !known.contains(&name.to_str().unwrap_or_default()) {
                return Err(format!("left over: {}", name.display()));
            }
        }
        let machine = run.machine.borrow();
        let visits: Vec<&Visit> = machine.providers.requests.iter().filter(is_post).collect();
        let daemons = run.scenario.daemons;
        let most = |ms: i64, limit: usize| {
            let window = visits.windows(limit + 1).find(|window| window[limit].at_ms - window[0].at_ms < ms);
            window.map_or(Ok(()), |window| {
                let at = super::run::moment(window[0].at_ms);
                Err(format!("more than {limit} requests in {} s, at {at}", ms / 1000))
            })
        };
        most(1000, 2 * daemons)?;
        most(10_000, 12 * daemons)?;
        most(DAY_MS, 6000)?;
        if run.scenario.lifetime_s >= 6 * 3600 {
            // 15 s, 30 s, one minute, two, and three from then on; and once for a process that starts anew.
            let mut by_token: BTreeMap<Fingerprint, Vec<i64>> = BTreeMap::new();
            for visit in visits.iter().filter(|visit| visit.grant_type.as_deref() == Some("refresh_token")) {
                by_token.entry(visit.presented.unwrap_or(Fingerprint::of(b""))).or_default().push(visit.at_ms);
            }
            for times in by_token.values() {
                if let Some(window) = times.windows(16).find(|window| window[15] - window[0] < 600_000) {
                    let at = super::run::moment(window[0]);
                    return Err(format!("a token was presented more than 15 times in ten minutes, at {at}"));
                }
            }
        }
        Ok(())
    }
}

fn is_post(visit: &&Visit) -> bool {
    visit.method == "POST" && visit.user_agent.as_deref() == Some(OURS)
}

impl Run {
    /// The loss of a token is nobody's fault here.
    pub fn excuse(&mut self, provider: &'static str) {
        self.checks.excuse(provider);
    }

    /// Whether the refresh token of a text was spent by somebody other than us.
    pub fn was_foreign(&self, provider: &str, text: &str) -> bool {
        let token = value(text, provider, "refresh_token");
        token.is_some_and(|token| !self.checks.spent.contains(&Secret::new(token).fingerprint()))
    }

    /// Whether every process that lives waits for the next event.
    fn is_at_rest(&self) -> bool {
        let machine = self.machine.borrow();
        (0..2).all(|process| !self.lives(process) || machine.processes[process].rests.is_some())
    }

    /// The file is whole, and has what its other writers put there.
    fn check_file(&mut self) -> Result<(), String> {
        let made = std::mem::take(&mut self.disks.borrow_mut().made);
        let disks = self.disks.borrow();
        let foreign = &disks.foreign;
        let is_in_place = disks.sort.is_in_place();
        for (bytes, written) in made.iter().filter(|_| !is_in_place) {
            let Ok(text) = std::str::from_utf8(bytes) else { return Err("we wrote what is no text".to_owned()) };
            let found = around(text);
            // What somebody wrote a moment before is taken out for a moment, and put back.
            let is_known = foreign[written.saturating_sub(2)..].contains(&found);
            if !is_known && self.people.settling.is_none() {
                return Err(format!("we put other bytes into the file:\n{text}"));
            }
            for provider in self.providers() {
                let is_empty = value(text, provider, "refresh_token").is_none();
                let was_full = self.checks.shown.get(provider).is_some_and(Option::is_some);
                if is_empty && was_full && self.people.settling.is_none() && *written == foreign.len() {
                    return Err(format!("we took the token of {provider} out of the file"));
                }
            }
        }
        let bytes = disks.read(Path::new(CONFIG)).ok_or("the config is gone")?.to_vec();
        if let Some((until, before)) = self.people.settling {
            let found = around(&String::from_utf8_lossy(&bytes));
            if until == i64::MAX || (foreign.last() != Some(&found) && until > self.machine.borrow().now_ms) {
                return Ok(());
            }
            if foreign.last() != Some(&found) && self.is_alive() {
                let (is_old, text) = (
                    before.checked_sub(1).and_then(|at| foreign.get(at)) == Some(&found),
                    String::from_utf8_lossy(&bytes),
                );
                return Err(format!("what was saved into the file is not in it (it is as before: {is_old}):\n{text}"));
            }
        }
        // What was cut off is finished at the next start: a write in place, and an edit that came out of a swap. So is,
        // as soon as the disk does again what it is told, what could neither be finished nor taken back.
        let taken_out = disks.read(Path::new(SWAP)).map(|bytes| around(&String::from_utf8_lossy(bytes)));
        let waits = taken_out.is_some() && taken_out.as_ref() == foreign.last();
        let has_copy = disks.names_in(Path::new(STATE)).iter().any(|name| name.extension() == Some("redo".as_ref()));
        let is_stuck = (is_in_place && has_copy || waits) && disks.failed_at > 0 && !self.is_calm(CALM_MS);
        let is_cut_off = (is_in_place || waits) && !self.is_alive() || is_stuck;
        let text = String::from_utf8(bytes).map_err(|_| "the config is no text")?;
        if disks.foreign.last() != Some(&around(&text)) && self.people.settling.is_none() && !is_cut_off {
            return Err(format!("bytes outside the block changed, or an edit was lost:\n{text}"));
        }
        // Whoever was killed before that has a successor.
        let is_kept = disks.made_at.is_none_or(|at| disks.failed_at > at) || disks.is_on_medium(Path::new(CONFIG));
        drop(disks);
        if self.is_alive() && !is_kept && self.is_at_rest() && self.people.settling.is_none() {
            return Err("the file that we wrote would not survive a power cut".to_owned());
        }
        let machine = self.machine.borrow();
        let entries = machine.providers.ledger.entries();
        for provider in self.providers() {
            let token = value(&text, provider, "access_token").filter(|token| !token.starts_with("<<"));
            let at = |token: &str| entries.iter().rposition(|entry| entry.access_token.expose() == token);
            let has_refresh = value(&text, provider, "refresh_token").is_some();
            let shown = token.filter(|_| has_refresh).map(|token| at(token).unwrap_or(usize::MAX));
            let family = shown.and_then(|at| Some(entries.get(at)?.family));
            if self.checks.excused.contains(provider) {
                // It was spent, and the answer was lost: what was before it may take its place.
                self.people.given.remove(provider);
            }
            let given = self.people.given.get(provider).copied();
            if given.zip(family).is_some_and(|(given, family)| family < given) && !self.people.misled.contains(provider)
            {
                return Err(format!("the pair of {provider} that a person put into the file was written over"));
            }
            self.checks.shown.insert(provider, shown);
        }
        Ok(())
    }

    /// No token is spent twice, and none is lost.
    fn check_exchanges(&mut self) -> Result<(), String> {
        let mut disturbed = false;
        let machine = self.machine.borrow();
        while let Some(exchange) = machine.exchanges.get(self.checks.exchanges_seen).filter(|exchange| exchange.is_over)
        {
            self.checks.exchanges_seen += 1;
            self.checks.unkept = true;
            let visit = &machine.providers.requests[exchange.visit];
            let Some(provider) = provider_of(visit.endpoint) else { continue };
            let is_refresh = visit.grant_type.as_deref() == Some("refresh_token");
            let entries = machine.providers.ledger.entries();
            let is_known = |token| entries.iter().rev().any(|entry| entry.refresh_token.fingerprint() == token);
            if is_refresh && !visit.presented.is_some_and(is_known) {
                return Err("what is presented is no refresh token, but half of one".to_owned());
            }
            let spent = entries.iter().rev().find(|entry| Some(entry.refresh_token.fingerprint()) == visit.presented);
            if let Some((since, (_, held))) = self.people.kometa_since.zip(self.people.kometa.as_ref())
                && let Some(entry) = spent.filter(|entry| is_refresh && entry.refresh_token.expose() == held)
            {
                let left = entry.issued_at.plus(entry.expires_in).since(seconds(visit.at_ms));
                let is_last = left <= (entry.expires_in / 20).min(600) + 60;
                let runs = visit.at_ms - since > 60_000 && entry.access_ended.is_none();
                // A clock that was behind when the pair came has it end earlier.
                let is_timed = machine.skew_ms == 0 && machine.skewed_until_ms < entry.issued_at.0 * 1000;
                if runs && !is_last && self.checks.disturbed_ms < since && is_timed {
                    return Err(format!("Kometa runs with the token that is refreshed, {left} s before its end"));
                }
            }
            if let Some(token) = visit.presented.filter(|token| self.checks.spent.contains(token)) {
                return Err(format!("a token that was spent is presented again ({token})"));
            }
            if visit.faults.iter().any(|fault| fault.contains("invalid-grant")) {
                self.checks.excused.insert(provider);
            }
            if visit.faults.iter().any(|fault| fault.contains("invalid-client")) {
                self.people.misled.insert(provider);
            }
            if visit.acted == Some(400) && self.scenario.rotation == Rotation::Family {
                // Whoever presents a spent token ends the whole family; here both did at the same time.
                self.people.misled.insert(provider);
                self.checks.excused.insert(provider);
            }
            match exchange.delivered_at.filter(|_| !exchange.is_lost) {
                Some(at) => {
                    let entries = machine.providers.ledger.entries();
                    let newest = entries.iter().rev().find(|entry| entry.provider == provider);
                    let is_kept_token = visit.faults.iter().any(|fault| fault.contains("no-refresh_token"));
                    self.people.misled.remove(provider);
                    if let Some(entry) = newest.filter(|_| !is_kept_token) {
                        self.checks.excused.remove(provider);
                        let spent = visit.presented.filter(|_| visit.grant_type.as_deref() == Some("refresh_token"));
                        self.checks.newest.insert(provider, (entry.refresh_token.clone(), spent, at));
                    }
                    // A day is assumed where the answer does not say.
                    let says_no_life = visit.faults.iter().any(|fault| fault.contains("expires_in"));
                    if says_no_life && self.scenario.lifetime_s < 86_400 {
                        self.people.misled.insert(provider);
                    }
                }
                None if visit.acted == Some(200) => {
                    self.checks.excused.insert(provider);
                    disturbed = true;
                }
                None => {}
            }
        }
        drop(machine);
        if disturbed {
            self.disturb(600_000);
        }
        Ok(())
    }

    /// What reached us is in the file or in the journal.
    fn check_kept(&mut self) -> Result<(), String> {
        let now = self.machine.borrow().now_ms;
        for (provider, (token, spent, at)) in self.checks.newest.clone() {
            let is_current = {
                let machine = self.machine.borrow();
                let mut entries =
                    machine.providers.ledger.entries().iter().rev().filter(|entry| entry.provider == provider);
                entries.next().is_some_and(|entry| entry.refresh_token == token && entry.refresh_lives(seconds(now)))
            };
            let disks = self.disks.borrow();
            let is_memory_only = disks.failed_at > at && self.is_alive();
            let has = |path: &Path| {
                disks.read(path).is_some_and(|bytes| String::from_utf8_lossy(bytes).contains(token.expose()))
            };
            let journals = disks.names_in(Path::new(STATE));
            let mut journals = journals.iter().filter(|name| name.to_string_lossy().ends_with("journal"));
            let is_in_journal = journals.any(|journal| has(journal) && disks.name_is_on_medium(journal));
            if is_current && !is_in_journal && !has(Path::new(CONFIG)) && !is_memory_only {
                return Err(format!("a pair of {provider} that reached us is nowhere"));
            }
            if let Some(spent) = spent.filter(|_| is_in_journal && !is_memory_only && self.scenario.lifetime_s >= 3600)
            {
                self.checks.spent.insert(spent);
            }
        }
        Ok(())
    }

    /// Nobody is called without need, and nobody hears a secret.
    fn check_events(&mut self) -> Result<(), String> {
        let machine = self.machine.borrow();
        for (_, _, event) in &machine.events[self.checks.events_seen..] {
            let name = format!("{:?}", event.kind);
            if event.kind == Kind::SignedOut && self.people.is_torn {
                return Err("half a save was taken for a sign-out".to_owned());
            }
            let provider = if event.subject.ends_with("#mal") { "mal" } else { "trakt" };
            if name.starts_with("Rejected")
                && !self.checks.excused.contains(provider)
                && !self.people.misled.contains(provider)
            {
                return Err(format!("a token of {provider} was lost, and nobody else is to blame"));
            }
            let newest = machine.providers.ledger.entries().iter().rev().take(3);
            let mut secrets = newest.flat_map(|entry| [&entry.access_token, &entry.refresh_token]);
            let texts = [Some(&event.subject), Some(&event.detail), event.link.as_ref()];
            let says = |secret: &Secret| texts.iter().flatten().any(|text| text.contains(secret.expose()));
            if secrets.any(says) {
                return Err(format!("{name} says a secret"));
            }
        }
        self.checks.events_seen = machine.events.len();
        Ok(())
    }

    /// The schedule of a pair stands: it is not drawn anew at each look.
    fn check_due(&mut self) -> Result<(), String> {
        let is_calm = self.is_calm(0);
        let machine = self.machine.borrow();
        let Some(Some(until)) = machine.processes[0].rests else { return Ok(()) };
        let ahead = until - machine.wall_ms() / 1000;
        // Where nothing is due for so long, it only looks again.
        let is_a_look = until - machine.processes[0].rests_since >= 29 * 86_400;
        let disks = self.disks.borrow();
        if !self.checks.is_precise
            || !is_calm
            || !self.people.called.is_empty()
            || is_a_look
            || ahead < 3700
            || (disks.failed_at > 0 && disks.operations - disks.failed_at < 2000)
            || self.people.settling.is_some()
        {
            return Ok(());
        }
        let Some(Some(at)) = self.checks.shown.values().next().copied() else { return Ok(()) };
        let Some(entry) = machine.providers.ledger.entries().get(at) else { return Ok(()) };
        let known = *self.checks.due.entry(entry.access_token.fingerprint()).or_insert(until);
        if known != until {
            return Err(format!("the refresh was due at {known}, and with the same pair it is at {until} now"));
        }
        Ok(())
    }

    fn is_calm(&self, for_ms: i64) -> bool {
        let machine = self.machine.borrow();
        let is_asking = machine.processes.iter().any(|process| process.asks);
        machine.reachable
            && machine.trouble.0 == 0
            && self.disks.borrow().bad.is_none()
            && !is_asking
            && machine.now_ms - self.checks.disturbed_ms > for_ms
    }

    /// While nothing is in the way, the token in the file is valid.
    pub(super) fn check_valid(&mut self) -> Result<(), String> {
        if self.disks.borrow().bad.is_some() || self.disks.borrow().slow_ms > 0 {
            // It strikes when the disk is used next, which may be days after it was planned.
            self.disturb(0);
        }
        if std::mem::take(&mut self.disks.borrow_mut().is_stirred) {
            self.disturb(0);
        }
        if !self.is_calm(CALM_MS) || !self.is_at_rest() || !self.is_alive() || !self.people.is_undisturbed() {
            return Ok(());
        }
        let machine = self.machine.borrow();
        // By a clock that is behind, nobody can know that the time is over.
        let now = seconds(machine.now_ms.min(machine.wall_ms()));
        for provider in self.providers() {
            if self.people.called.contains(provider) || self.people.misled.contains(provider) {
                continue;
            }
            let Some(Some(at)) = self.checks.shown.get(provider).copied() else { continue };
            let lives = machine.providers.ledger.entries().get(at).is_some_and(|entry| entry.access_lives(now));
            if !lives {
                return Err(format!(
                    "for half an hour everything has been in order, and the token of {provider} is not valid"
                ));
            }
        }
        Ok(())
    }
}
