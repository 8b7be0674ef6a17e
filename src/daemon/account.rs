//! One account, brought to rest: looked at, decided about, acted for under the
//! lock, until there is nothing to do now.

use std::time::Duration;

use super::{Account, Daemon, HandleOf, LOOK_AGAIN_MAX_S, Look, Next, World, facts};
use crate::decision::{self, Decision, Facts, Urgency, Waiting, sign_in};
use crate::disk::Meta;
use crate::event::{Event, Kind};
use crate::file::Snapshot;
use crate::health;
use crate::health::invitation::{Invitation, invitation};
use crate::journal::{History, Journal, Record};
use crate::provider::Provider;
use crate::settings::Section;
use crate::store::{self, Place, Refused};
use crate::token::{Fingerprint, UnixSeconds};

/// How often one visit may act before it lets the others have their turn.
const STEPS_MAX: usize = 8;
/// How long what looks like half of a save has to stay so: an emptied block, and a text that ends in the middle
/// of a line, which may be the middle of a token.
pub(super) const HALF_QUIET: Duration = Duration::from_secs(2);
/// How long a file that was written just now is left alone before it is written again.
pub(super) const QUIET: Duration = Duration::from_millis(400);
/// How long a file that never stands still is waited for: a program that writes it all the time must not
/// keep a token from being refreshed.
const RESTLESS_MAX_S: i64 = 10;

impl<W: World> Daemon<W> {
    pub(super) fn account(&mut self, config: usize, provider: &'static Provider) -> Option<&mut Account> {
        self.configs[config].accounts.iter_mut().find(|account| account.provider == provider)
    }

    pub(super) fn name(&self, config: usize, provider: &Provider) -> String {
        self.setup.names.account(&self.configs[config].path, provider)
    }

    /// Says something about an account, once.
    pub(super) fn tell(&mut self, config: usize, provider: &'static Provider, event: Event) {
        let news = Some(key(&event));
        if let Some(account) = self.account(config, provider) {
            if account.said == news {
                return;
            }
            account.said = news;
        }
        self.announce(config, provider, event);
    }

    /// Announces what concerns an account, with the place and what is known of its token.
    pub(super) fn announce(&mut self, config: usize, provider: &'static Provider, mut event: Event) {
        let expires_at = self.account(config, provider).and_then(|account| account.expires_at);
        event.expires_at = event.expires_at.or(expires_at);
        event.config = Some(self.configs[config].path.clone());
        self.world.announce(event);
    }

    /// The journal's history, with what only memory has on top.
    pub(super) fn history(&self, config: usize, provider: &Provider, place: &Place) -> Result<History, Refused> {
        let mut history = Journal::peek(self.world.disk(), &place.journal)
            .map_err(|error| Refused::Journal { path: place.journal.clone(), error })?;
        let accounts = &self.configs[config].accounts;
        if let Some(account) = accounts.iter().find(|account| account.provider == provider) {
            account.pending.apply(&mut history);
        }
        Ok(history)
    }

    /// Opens an account's journal; what only memory has goes into it first.
    pub(super) fn open_journal(
        &mut self,
        config: usize,
        provider: &Provider,
        place: &Place,
    ) -> Result<Journal<HandleOf<W>>, Refused> {
        let disk = self.world.disk();
        let mut journal = store::open_journal(disk, place)?;
        let accounts = &mut self.configs[config].accounts;
        if let Some(account) = accounts.iter_mut().find(|account| account.provider == provider) {
            let flushed = account.pending.flush(disk, &mut journal);
            flushed.map_err(|error| Refused::Journal { path: place.journal.clone(), error })?;
        }
        Ok(journal)
    }

    /// Adds what happened to an account's journal. Where the journal does not take it, memory keeps it until
    /// it does, and the account does not come to rest before.
    pub(super) fn note(
        &mut self,
        config: usize,
        provider: &Provider,
        journal: Option<&mut Journal<HandleOf<W>>>,
        record: Record,
    ) {
        let accounts = &mut self.configs[config].accounts;
        // Whoever acts for an account has made sure of it.
        let Some(account) = accounts.iter_mut().find(|account| account.provider == provider) else { return };
        account.pending.push(record);
        if let Some(journal) = journal {
            // What stays is written at the next opening.
            let _ = account.pending.flush(self.world.disk(), journal);
        }
    }

    /// What `decide` is told of an account.
    pub(super) fn facts<'a>(
        &self,
        place: &Place,
        section: &Section,
        history: &'a History,
        urgency: Urgency,
    ) -> Facts<'a> {
        let (now, seen) = (self.world.now(), facts::seen(section, history));
        Facts { now, seen, history, kometa: facts::kometa(self.world.disk(), &self.setup, place, now), urgency }
    }

    fn decide(
        &self,
        place: &Place,
        section: &Section,
        history: &History,
        urgency: Urgency,
        asked: Urgency,
    ) -> Decision {
        let facts = self.facts(place, section, history, urgency);
        sign_in::ask(&facts, self.setup.way(section.provider), asked, decision::decide(&facts))
    }

    /// Brings one account to rest: acts until there is nothing to do now, and tells when there is.
    pub(super) async fn settle(
        &mut self,
        config: usize,
        provider: &'static Provider,
        place: &Place,
        section: Section,
        mut urgency: Urgency,
        mut asked: Urgency,
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
        self.account(config, provider)?.expires_at = history.current.as_ref().and_then(decision::expires_at);
        let waiting = !self.configs[config].accounts.iter().any(|a| a.provider == provider && a.pending.is_empty());
        let is_fresh = self.configs[config].seen.as_ref().is_some_and(|(_, meta)| is_fresh(meta, now));
        if !self.configs[config].leftovers
            && !waiting
            && let Decision::Wait { until, reason } = self.decide(place, &section, &history, urgency, asked)
            // What lacks in half a file is nothing to alarm a person with.
            && !(is_fresh && reason.needs_person())
        {
            self.world.decided(Decision::Wait { until, reason });
            return self.rest(config, &section, &history, until, reason);
        }
        let grant_waits = history.current.as_ref().is_some_and(|held| !held.published);
        let kind = |otherwise| if grant_waits { Kind::GrantWaits } else { otherwise };
        drop((section, history));
        match self.lock(config, provider, place).await {
            Ok(lock) => self.hold_lock(config, place, lock),
            Err(_) if self.stopped => return None,
            Err(why) => return self.hold(config, provider, kind(Kind::NothingSent), &why),
        }
        if let Err(why) = store::recover(self.world.disk(), place) {
            return self.hold(config, provider, kind(Kind::Unfinished), &why);
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
            let decision = self.decide(place, &section, &history, urgency, asked);
            self.world.decided(decision);
            if let Some(pause) = self.wants_quiet((config, provider), decision, &snapshot, &mut settled) {
                self.world.pause(pause).await;
                continue;
            }
            let look = Look { snapshot, section, history };
            let next = match decision {
                Decision::Wait { until, reason } => {
                    if self.account(config, provider).is_some_and(|account| !account.pending.is_empty())
                        && let Err(why) = self.open_journal(config, provider, place)
                    {
                        return self.hold(config, provider, Kind::StateUnusable, &why);
                    }
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
                Decision::AskForCode { round } => {
                    asked = Urgency::Usual;
                    self.ask_for_code(config, place, look, round).await
                }
                Decision::Poll => {
                    asked = Urgency::Usual;
                    self.poll(config, place, look).await
                }
                Decision::MakeLink => self.make_link(config, place, &look),
            };
            match next {
                Next::Again if !self.stopped => {}
                Next::Again => {
                    // There is no coming to rest any more, but what was done is said.
                    let name = self.name(config, provider);
                    if let Some(news) = self.account(config, provider).and_then(|account| account.news.take()) {
                        self.world.announce(Event::new(news, name));
                    }
                    return None;
                }
                Next::At(at) => return at,
            }
        }
        Some(self.world.now().plus(1))
    }

    /// How long to let a file be that was written just now: whoever writes may not be done, and what counts is
    /// what still stands a moment later.
    fn wants_quiet(
        &mut self,
        (config, provider): (usize, &'static Provider),
        decision: Decision,
        snapshot: &Snapshot<HandleOf<W>>,
        settled: &mut Option<Fingerprint>,
    ) -> Option<Duration> {
        let now = self.world.now();
        let account = self.account(config, provider)?;
        let Some(pause) = quiet_time(decision, snapshot, now, settled) else {
            account.restless_since = None;
            return None;
        };
        let since = *account.restless_since.get_or_insert(now);
        (decision == Decision::SignOut || now.since(since) < RESTLESS_MAX_S).then_some(pause)
    }

    /// Nothing to do now: says so where it is news.
    pub(super) fn rest(
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
        if let (Waiting::Retry | Waiting::NeverAuthorized | Waiting::Rejected, Some(trouble)) =
            (reason, &history.trouble)
        {
            event.detail.clone_from(&trouble.what);
            event.attempt = Some(trouble.attempts);
        }
        let invitation = invitation(reason, history, section.client_id.as_ref(), self.endpoint(provider));
        if let Some(Invitation { detail, link }) = invitation {
            // The next poll is nothing that a person waits for.
            (event.detail, event.link, event.next_at) = (detail, Some(link), None);
        }
        let clock = |at: Option<UnixSeconds>| at.map_or_else(|| "unknown".to_owned(), crate::clock::local);
        let status = match reason {
            Waiting::Valid | Waiting::KometaRuns => {
                format!("{name} valid until {}, next refresh {}", clock(expires_at), clock(until))
            }
            Waiting::EnterCode => format!("{name}: {}", event.detail),
            Waiting::Retry => format!("{name} failing, next attempt {}", clock(until)),
            _ => format!("{name}: {reason}"),
        };
        let account = self.account(config, provider)?;
        account.expires_at = expires_at;
        account.status = status;
        // There may be thousands of them.
        account.status.shrink_to_fit();
        (account.misses, account.hold_until) = (0, None);
        if let Some(whose) = account.whose.take() {
            event.detail = whose;
        }
        match account.news.take() {
            // What was done and what comes next are one line.
            Some(news) if reason == Waiting::Valid => {
                account.said = Some(key(&event));
                event.kind = news;
                self.announce(config, provider, event);
            }
            Some(news) => {
                self.announce(config, provider, Event::new(news, name));
                self.tell(config, provider, event);
            }
            None => self.tell(config, provider, event),
        }
        until
    }

    /// Cannot act now for a reason of our own side: says why, and comes back.
    pub(super) fn hold(
        &mut self,
        config: usize,
        provider: &'static Provider,
        kind: Kind,
        why: &Refused,
    ) -> Option<UnixSeconds> {
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
}

/// How long to wait before acting on a file that was written just now; `settled` is the text that was
/// waited for.
pub(super) fn quiet_time<H>(
    decision: Decision,
    snapshot: &Snapshot<H>,
    now: UnixSeconds,
    settled: &mut Option<Fingerprint>,
) -> Option<Duration> {
    let pause = match decision {
        Decision::Wait { reason, .. } if !reason.needs_person() => return None,
        Decision::Poll | Decision::MakeLink => return None,
        Decision::SignOut => HALF_QUIET,
        _ if !snapshot.text.ends_with('\n') => HALF_QUIET,
        Decision::Wait { .. }
        | Decision::Adopt
        | Decision::Publish(_)
        | Decision::Exchange
        | Decision::Refresh(_)
        | Decision::AskForCode { .. } => QUIET,
    };
    let waited = settled.replace(snapshot.fingerprint) == Some(snapshot.fingerprint);
    (is_fresh(&snapshot.meta, now) && !waited).then_some(pause)
}

/// Whether a file was written just now: whoever does may not be done.
pub(super) fn is_fresh(meta: &Meta, now: UnixSeconds) -> bool {
    (-1..=1).contains(&now.since(meta.modified_at))
}

/// What makes an event the same as the one before.
pub(super) fn key(event: &Event) -> (Kind, Fingerprint) {
    (event.kind, Fingerprint::of(format!("{} {:?}", event.detail, event.expires_at).as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Publishing;

    /// What was written just now is looked at again before anything is made of it, also before a person is
    /// alarmed; what stood still since, or was written a while ago, is not.
    #[test]
    fn half_a_file_alarms_nobody() {
        let now = UnixSeconds(1_795_348_800);
        let wait = |reason| Decision::Wait { until: None, reason };
        let snapshot = |text: &str, modified_at| Snapshot {
            path: "config.yml".into(),
            text: text.to_owned(),
            fingerprint: Fingerprint::of(text.as_bytes()),
            meta: Meta { identity: (1, 1), links: 1, mode: 0o100_644, owner: (0, 0), size: 1, modified_at },
            handle: (),
        };
        for (decision, pauses) in [
            (wait(Waiting::NoClient), true),
            (wait(Waiting::NeverAuthorized), true),
            (wait(Waiting::Valid), false),
            (wait(Waiting::KometaRuns), false),
            (Decision::Publish(Publishing::New), true),
            (Decision::Adopt, true),
            (Decision::SignOut, true),
        ] {
            let mut settled = None;
            let mut asks = |text, at| quiet_time(decision, &snapshot(text, at), now, &mut settled).is_some();
            assert!(!asks("trakt:\n", now.plus(-60)), "{decision:?}: written a while ago");
            assert_eq!(asks("trakt:\n  pin:\n", now), pauses, "{decision:?}: written just now");
            assert!(!asks("trakt:\n  pin:\n", now), "{decision:?}: stood still since");
            assert_eq!(asks("trakt:\n  pin: 1\n", now), pauses, "{decision:?}: written again");
            let half = snapshot("trakt:\n  pin: 1", now);
            let pause = quiet_time(decision, &half, now, &mut settled);
            assert_eq!(pause, pauses.then_some(HALF_QUIET), "{decision:?}: in the middle of a line");
        }
    }
}
