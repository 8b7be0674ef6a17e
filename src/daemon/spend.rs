//! The one act that spends a token: reserve, send once, keep the answer.
//!
//! Invariant: nothing is done with a grant before [`store::keep`] has it.

use std::pin::pin;
use std::time::Duration;

use super::act::edit;
use super::{Daemon, HandleOf, Look, Next, World};
use crate::backoff;
use crate::decision::{self, Refreshing};
use crate::event::{Event, Kind};
use crate::journal::{Dead, Held, Journal, Origin, Record, Trouble};
use crate::provider::Provider;
use crate::refresh::reply::{self, Reply};
use crate::refresh::request::{Offer, Request, token_request};
use crate::refresh::{Outcome, exchange};
use crate::store::{self, Place, Refused, Reservation};
use crate::token::{Fingerprint, Grant, Secret, UnixSeconds};

/// How long a stop waits for an answer that is on its way.
const STOP_GRACE: Duration = Duration::from_secs(8);

/// Never more than one request a second, and never more than a fixed number a day.
pub(super) struct Pace {
    last: Option<UnixSeconds>,
    left: i64,
    counted_at: Option<UnixSeconds>,
}

impl Pace {
    /// Requests in a burst; a real day has a handful.
    const BURST: i64 = 1000;
    /// Seconds for one more.
    const REFILL_S: i64 = 20;

    pub(super) fn new() -> Self {
        Self { last: None, left: Self::BURST, counted_at: None }
    }

    fn take(&mut self, now: UnixSeconds) -> bool {
        let counted_at = *self.counted_at.get_or_insert(now);
        let more = now.since(counted_at).max(0) / Self::REFILL_S;
        self.left = (self.left + more).min(Self::BURST);
        self.counted_at = Some(if now < counted_at { now } else { counted_at.plus(more * Self::REFILL_S) });
        self.left -= 1;
        self.left >= 0
    }
}

impl<W: World> Daemon<W> {
    /// Trades a refresh token, or what a person gave, for a grant; once.
    pub(super) async fn spend(
        &mut self,
        config: usize,
        place: &Place,
        look: Look<HandleOf<W>>,
        why: Option<Refreshing>,
    ) -> Next {
        let Look { snapshot, section, history } = look;
        let provider = section.provider;
        let old = why.and_then(|_| decision::token_to_spend(&history)?.grant.refresh_token.clone());
        let (Some(spent), Some(credentials)) = (old.clone().or_else(|| section.once.clone()), section.credentials())
        else {
            return Next::At(None);
        };
        let spends = spent.fingerprint();
        let unknown_before = history.intent.is_some_and(|intent| intent.spends == spends);
        // Before the reservation: an intent that is on disk means that the request went out.
        if !self.pace.take(self.world.now()) {
            return Next::At(Some(self.world.now().plus(60)));
        }
        if self.pace.last.is_some_and(|last| self.world.now().since(last) <= 1) {
            self.world.pause(Duration::from_secs(1)).await;
        }
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
        let offer = match &old {
            Some(token) => Offer::RefreshToken(token),
            None => Offer::Code { code: &spent, verifier: None },
        };
        let endpoint = self.setup.endpoints.iter().find(|endpoint| endpoint.provider == provider);
        let Some(request) = endpoint.map(|endpoint| token_request(endpoint, &credentials, &offer)) else {
            return Next::At(None);
        };
        self.pace.last = Some(self.world.now());
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
                self.announce(config, provider, event);
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
    pub(super) async fn send(&mut self, request: &Request, reservation: &Reservation<HandleOf<W>>) -> Outcome {
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
    pub(super) fn commit(
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
        }
        if let Some(account) = self.account(config, provider) {
            // What the journal has is newer than anything that it could not take before.
            account.overlay = kept.is_err().then(|| Box::new(held));
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
                self.announce(config, provider, event);
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
    pub(super) fn failed(
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
}

/// A grant as large as any, to try an edit with before a token is spent for the real one.
pub(super) fn pretend_grant(now: UnixSeconds) -> Grant {
    Grant {
        access_token: Secret::new("a".repeat(64)),
        token_type: Some("bearer".to_owned()),
        expires_in: Some(604_800),
        refresh_token: Some(Secret::new("r".repeat(64))),
        scope: Some("public".to_owned()),
        created_at: Some(now),
    }
}
