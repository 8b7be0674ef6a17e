//! The acts of a sign-in: ask for a device code, poll for its grant, make a
//! link, and say whose account it became.
//!
//! Invariants: no poll goes out whose grant could not be kept, and the journal
//! knows the time of the next one before this one is sent.

use super::{Daemon, HandleOf, Look, Next, World};
use crate::decision::sign_in::POLL_MAX_S;
use crate::event::{Event, Kind};
use crate::journal::sign_in::{Code, Ended, Step};
use crate::journal::{Held, Origin, Record};
use crate::provider::{Login, Provider};
use crate::refresh::device::{self, Polled};
use crate::refresh::request::{Credentials, Endpoint};
use crate::refresh::{Outcome, Question, reply};
use crate::store::{Place, Refused, Reservation};
use crate::token::{Fingerprint, Grant};

/// The clock counts whole seconds: with one more, two polls are never closer than the interval.
const WHOLE_SECOND_S: i64 = 1;
/// A name that is shown is no longer.
const NAME_MAX_CHARS: usize = 100;

impl<W: World> Daemon<W> {
    pub(super) fn endpoint(&self, provider: &'static Provider) -> Option<&Endpoint> {
        self.setup.endpoints.iter().find(|endpoint| endpoint.provider == provider)
    }

    /// Asks for a device code.
    pub(super) async fn ask_for_code(
        &mut self,
        config: usize,
        place: &Place,
        look: Look<HandleOf<W>>,
        round: u32,
    ) -> Next {
        let (provider, refused) = (look.section.provider, look.section.seen().credentials);
        let (Some(endpoint), Some(credentials)) = (self.endpoint(provider).cloned(), look.section.credentials()) else {
            return Next::At(None);
        };
        let Some(request) = device::code_request(&endpoint, &credentials) else {
            return Next::At(None);
        };
        if let Some(later) = self.take_turn().await {
            return later;
        }
        // A person is not asked for what could not be kept afterwards.
        let record = Record::SignIn(Step::Asked(round));
        let mut reservation = match self.reserve(config, place, &look, &record) {
            Ok(reservation) => reservation,
            Err(next) => return next,
        };
        let journal = &mut reservation.journal;
        let outcome = self.post(&request).await;
        if !matches!(&outcome, Outcome::Answered(answer) if (200..300).contains(&answer.status)) {
            // Nobody has seen a code: this round does not count.
            self.note(config, provider, Some(journal), Record::SignIn(Step::Asked(round.saturating_sub(1))));
        }
        let (what, retry_after_s) = match outcome {
            Outcome::NotSent(what) | Outcome::Unknown(what) => (what, None),
            Outcome::Answered(answer) if (200..300).contains(&answer.status) => {
                let now = self.world.now();
                match device::parse_code(&endpoint, &credentials, &answer, now) {
                    Some(code) => {
                        self.note(config, provider, Some(journal), Record::SignIn(Step::Came(code)));
                        return Next::Again;
                    }
                    None => ("the answer has no code".to_owned(), None),
                }
            }
            Outcome::Answered(answer) => match reply::classify(provider, &answer) {
                reply::Reply::BadClient => {
                    return self.bad_client(config, provider, journal, refused, true);
                }
                reply::Reply::Later { what, retry_after_s, .. } => (what.into_owned(), retry_after_s),
                _ => ("the answer has no code".to_owned(), None),
            },
        };
        let what = format!("{} was asked for a code to enter: {what}", provider.title);
        self.failed(config, provider, journal, what, retry_after_s, true)
    }

    /// Asks once whether a person has entered the device code.
    pub(super) async fn poll(&mut self, config: usize, place: &Place, look: Look<HandleOf<W>>) -> Next {
        let (provider, refused) = (look.section.provider, look.section.seen().credentials);
        let (Some(endpoint), Some(credentials), Some(code)) =
            (self.endpoint(provider), look.section.credentials(), look.history.sign_in.code.clone())
        else {
            return Next::At(None);
        };
        let Some(request) = device::poll_request(endpoint, &credentials, &code.device_code) else {
            return Next::At(None);
        };
        if let Some(later) = self.take_turn().await {
            return later;
        }
        let record = Record::SignIn(self.polled(code.interval_s, 0));
        let mut reservation = match self.reserve(config, place, &look, &record) {
            Ok(reservation) => reservation,
            Err(next) => return next,
        };
        let answer = match self.send(&request, &reservation).await {
            Outcome::Answered(answer) => device::classify_poll(provider, &answer),
            Outcome::NotSent(_) | Outcome::Unknown(_) => Polled::Trouble,
        };
        let journal = &mut reservation.journal;
        let step = match answer {
            Polled::Grant(grant) => {
                let seen = (provider, look.snapshot.fingerprint);
                return self.authorized(config, place, (seen, &credentials), reservation, grant, None).await;
            }
            // The record from before the poll says when the next one is.
            Polled::Pending => return Next::Again,
            Polled::SlowDown(after_s) => self.polled(slower(&code, device::SLOW_DOWN_S), after_s.unwrap_or_default()),
            // RFC 8628 section 3.5: a client that gets no answer doubles its interval.
            Polled::Trouble => self.polled(slower(&code, code.interval_s), 0),
            Polled::Denied => Step::Ended(Ended::Denied),
            Polled::Expired => Step::Ended(Ended::Expired),
            Polled::Used => Step::Ended(Ended::Lost),
            Polled::BadClient => {
                self.note(config, provider, Some(journal), Record::SignIn(Step::Ended(Ended::Expired)));
                return self.bad_client(config, provider, journal, refused, true);
            }
        };
        self.note(config, provider, Some(journal), Record::SignIn(step));
        Next::Again
    }

    fn polled(&self, interval_s: i64, after_s: i64) -> Step {
        let wait_s = interval_s.max(after_s).min(POLL_MAX_S) + WHOLE_SECOND_S;
        Step::Polled { at: self.world.now().plus(wait_s), interval_s }
    }

    /// Draws the verifier of a link, and keeps it before anybody sees the link.
    pub(super) fn make_link(&mut self, config: usize, place: &Place, look: &Look<HandleOf<W>>) -> Next {
        let provider = look.section.provider;
        let Some(verifier) = self.world.verifier() else {
            let why = Refused::NotNow("this system gives no random numbers".to_owned());
            return Next::At(self.hold(config, provider, Kind::StateUnusable, &why));
        };
        // An address that is there already belongs to somebody else's link, and cannot be exchanged with ours.
        let foreign = look.section.once.as_ref().map(crate::token::Secret::fingerprint);
        let foreign = foreign.filter(|address| !look.history.used.contains(address));
        // A link that nobody may see before its verifier is kept: memory alone would not do.
        let noted = self.open_journal(config, provider, place).and_then(|mut journal| {
            let disk = self.world.disk();
            let foreign = foreign.map_or(Ok(()), |address| journal.add(disk, &Record::Used(address)));
            let added = foreign.and_then(|()| journal.add(disk, &Record::SignIn(Step::Link(verifier))));
            added.map_err(|error| Refused::Journal { path: place.journal.clone(), error })
        });
        match noted {
            Ok(()) => {
                if foreign.is_some() {
                    let event = Event::new(Kind::ForeignAddress, self.name(config, provider));
                    self.world.announce(event);
                }
                Next::Again
            }
            Err(why) => Next::At(self.hold(config, provider, Kind::StateUnusable, &why)),
        }
    }

    /// Keeps the grant of a sign-in, and then finds out whose account it is.
    pub(super) async fn authorized(
        &mut self,
        config: usize,
        place: &Place,
        (seen, credentials): ((&'static Provider, Fingerprint), &Credentials),
        reservation: Reservation<HandleOf<W>>,
        grant: Grant,
        used: Option<Fingerprint>,
    ) -> Next {
        let provider = seen.0;
        let url = self.setup.api_url.clone().filter(|_| matches!(provider.login, Login::Device { .. }));
        let question = url.map(|url| Question {
            url: format!("{url}/users/settings"),
            token: grant.access_token.clone(),
            client_id: credentials.client_id.clone(),
        });
        let held = Held {
            grant,
            origin: Origin::Authorized,
            at: self.world.now(),
            client: credentials.client_id.fingerprint(),
            draw: self.draw(),
            published: false,
        };
        let next = self.commit(config, place, seen, reservation, held, used);
        if let (Next::Again, Some(question)) = (&next, question) {
            let outcome = tokio::select! {
                biased;
                () = self.world.stopping() => return next,
                outcome = self.world.ask(&question) => outcome,
            };
            let name = match outcome {
                Outcome::Answered(answer) => name_in(&answer.body),
                Outcome::NotSent(_) | Outcome::Unknown(_) => None,
            };
            if let Some(account) = self.account(config, provider) {
                account.whose = name.map(|name| format!("this is the account of {name}"));
            }
        }
        next
    }
}

/// The interval, longer by some seconds.
fn slower(code: &Code, by_s: i64) -> i64 {
    code.interval_s.saturating_add(by_s).min(device::INTERVAL_MAX_S.max(code.interval_s))
}

/// The user's name in Trakt's answer to `/users/settings`.
fn name_in(body: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    let name = value.get("user")?.get("username")?.as_str()?;
    let is_plain = !name.is_empty() && name.chars().count() <= NAME_MAX_CHARS && !name.chars().any(char::is_control);
    is_plain.then(|| name.to_owned())
}
