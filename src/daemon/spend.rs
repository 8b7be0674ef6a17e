//! The one act that spends a token: reserve, send once, keep the answer.
//!
//! Invariant: nothing is done with a grant before [`store::keep`] has it.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use super::act::edit;
use super::{Daemon, HandleOf, Look, Next, World};
use crate::backoff;
use crate::decision::{self, Refreshing};
use crate::event::{Event, Kind};
use crate::journal::{Dead, Held, Intent, Journal, Origin, Record, Trouble};
use crate::provider::{Login, Provider};
use crate::refresh::reply::{self, Reply};
use crate::refresh::request::{Offer, Request, token_request};
use crate::refresh::{Outcome, exchange, link};
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
        let verifier = history.sign_in.verifier.clone();
        let code = match provider.login {
            Login::PastedUrl { .. } if old.is_none() => link::code_in(&spent),
            _ => Some(spent.clone()),
        };
        let Some(code) = code else {
            let event = Event::new(Kind::CodeRejected, self.name(config, provider));
            self.world.announce(event.detail("the address has no code in it"));
            return self.note_used(config, place, provider, spends);
        };
        // Before the reservation: an intent that is on disk means that the request went out.
        if let Some(later) = self.take_turn().await {
            return later;
        }
        let intent = Record::Intent(Intent { spends, at: self.world.now() });
        let look = Look { snapshot, section, history };
        let mut reservation = match self.reserve(config, place, &look, &intent) {
            Ok(reservation) => reservation,
            Err(next) => return next,
        };
        let offer = match &old {
            Some(token) => Offer::RefreshToken(token),
            None => Offer::Code { code: &code, verifier: verifier.as_ref() },
        };
        let Some(request) = self.endpoint(provider).map(|endpoint| token_request(endpoint, &credentials, &offer))
        else {
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
        let reply = reply::classify(provider, &answer);
        let now = self.world.now();
        let journal = &mut reservation.journal;
        let record = match reply {
            Reply::Grant(grant) if old.is_none() => {
                let seen = (provider, look.snapshot.fingerprint);
                return self.authorized(config, place, (seen, &credentials), reservation, grant, Some(spends)).await;
            }
            Reply::Grant(mut grant) => {
                grant.refresh_token = grant.refresh_token.or_else(|| old.clone());
                let held = Held {
                    grant,
                    origin: Origin::Refreshed,
                    at: now,
                    client: credentials.client_id.fingerprint(),
                    draw: self.draw(),
                    published: false,
                };
                let seen = (provider, look.snapshot.fingerprint);
                return self.commit(config, place, seen, reservation, held, None);
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
                let refused = look.section.seen().credentials;
                return self.bad_client(config, provider, journal, refused, !unknown_before);
            }
        };
        self.note(config, provider, Some(journal), record);
        Next::Again
    }

    /// Takes a turn in the pace of requests; where there is none left, when to come back.
    pub(super) async fn take_turn(&mut self) -> Option<Next> {
        if !self.pace.take(self.world.now()) {
            return Some(Next::At(Some(self.world.now().plus(60))));
        }
        if self.pace.last.is_some_and(|last| self.world.now().since(last) <= 1) {
            self.world.pause(Duration::from_secs(1)).await;
        }
        self.pace.last = Some(self.world.now());
        None
    }

    /// Proves that the answer to what `record` says can be kept.
    pub(super) fn reserve(
        &mut self,
        config: usize,
        place: &Place,
        look: &Look<HandleOf<W>>,
        record: &Record,
    ) -> Result<Reservation<HandleOf<W>>, Next> {
        let provider = look.section.provider;
        let pretend = pretend_grant(self.world.now());
        let make = |text: &str| match edit(text, provider, &pretend, &look.history)? {
            Some(new) => Ok(Some(new)),
            None => Err(Refused::NotNow("the file changed just now".to_owned())),
        };
        self.open_journal(config, provider, place)
            .and_then(|journal| store::reserve(self.world.disk(), place, &look.snapshot, journal, record, &make))
            .map_err(|why| Next::At(self.hold(config, provider, Kind::NothingSent, &why)))
    }

    /// Notes that the provider does not know the client: with other credentials it is tried again at once.
    pub(super) fn bad_client(
        &mut self,
        config: usize,
        provider: &'static Provider,
        journal: &mut Journal<HandleOf<W>>,
        refused: Option<Fingerprint>,
        settled: bool,
    ) -> Next {
        let now = self.world.now();
        let before = journal.history.trouble.as_ref();
        let trouble = Trouble {
            since: before.map_or(now, |trouble| trouble.since),
            attempts: before.map_or(1, |trouble| trouble.attempts.saturating_add(1)),
            not_before: now.plus(backoff::REFUSED_S),
            what: "the provider refused client_id or client_secret".to_owned(),
            asked: false,
            refused,
        };
        self.note(config, provider, Some(journal), Record::Trouble { trouble, settled });
        Next::Again
    }

    /// Notes that a PIN or an address is not to be looked at again.
    fn note_used(&mut self, config: usize, place: &Place, provider: &'static Provider, used: Fingerprint) -> Next {
        let mut journal = self.open_journal(config, provider, place).ok();
        self.note(config, provider, journal.as_mut(), Record::Used(used));
        Next::Again
    }

    /// Sends a request that spends something.
    pub(super) async fn send(&mut self, request: &Request, reservation: &Reservation<HandleOf<W>>) -> Outcome {
        let post = exchange(&self.world, request, reservation);
        let (outcome, stopped) = answered(&self.world, post).await;
        self.stopped |= stopped;
        outcome
    }

    /// Sends a request that spends nothing.
    pub(super) async fn post(&mut self, request: &Request) -> Outcome {
        let (outcome, stopped) = answered(&self.world, self.world.post(request)).await;
        self.stopped |= stopped;
        outcome
    }

    /// Keeps a grant: the journal first, then the file.
    pub(super) fn commit(
        &mut self,
        config: usize,
        place: &Place,
        seen: (&'static Provider, Fingerprint),
        mut reservation: Reservation<HandleOf<W>>,
        held: Held,
        used: Option<Fingerprint>,
    ) -> Next {
        let provider = seen.0;
        let kept = store::keep(self.world.disk(), place, &mut reservation, &held);
        let journal = &mut reservation.journal;
        let expires_at = decision::expires_at(&held);
        let kind = if held.origin == Origin::Refreshed { Kind::Refreshed } else { Kind::Authorized };
        if kept.is_err() {
            journal.history.apply(&Record::Held(held.clone()));
            self.note(config, provider, None, Record::Held(held));
        }
        if let Some(used) = used {
            self.note(config, provider, Some(journal), Record::Used(used));
            journal.history.apply(&Record::Used(used));
        }
        let history = journal.history.clone();
        let written = self.write(config, place, seen, &history, Some(journal));
        match (kept, written) {
            (Ok(()), Ok(written)) => {
                if let Some(account) = self.account(config, provider).filter(|_| written) {
                    account.news = Some(kind);
                }
                Next::Again
            }
            // In the journal it is safe: whoever writes the file may finish first.
            (Ok(()), Err(Refused::Changed)) => Next::Again,
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
        self.note(config, provider, Some(journal), Record::Trouble { trouble, settled });
        Next::Again
    }
}

/// Waits for an answer; a stop waits for it as well, but not for ever. Tells whether there was one.
async fn answered<W: World>(world: &W, post: impl Future<Output = Outcome>) -> (Outcome, bool) {
    let mut post = pin!(post);
    let first = tokio::select! {
        biased;
        outcome = &mut post => Some(outcome),
        () = world.stopping() => None,
    };
    let Some(outcome) = first else {
        let late = tokio::select! {
            biased;
            outcome = &mut post => outcome,
            () = world.pause(STOP_GRACE) => Outcome::Unknown("stopped before the answer came".to_owned()),
        };
        return (late, true);
    };
    (outcome, false)
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
