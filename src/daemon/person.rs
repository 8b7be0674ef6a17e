//! `login`: the daemon's own acts, one after the other, for a person who waits
//! for them.
//!
//! Invariant: nothing here is only in memory. Every step takes the folder's
//! lock, reads file and journal, acts and lets go, so that a daemon beside it
//! sees the same code and carries on with the same grant, and a Ctrl-C between
//! two steps leaves nothing half done.

use std::time::Duration;

use tokio::sync::oneshot::Receiver;

use super::{Daemon, HandleOf, Look, Next, World as _};
use crate::clock::local;
use crate::decision::{self, Decision, Urgency, Waiting, sign_in};
use crate::event::Kind;
use crate::health::invitation::{Invitation, invitation, minutes};
use crate::journal::sign_in::Ended;
use crate::journal::{Held, History, Origin};
use crate::provider::{Login, Provider};
use crate::store::{self, Place};
use crate::token::{Fingerprint, Secret, UnixSeconds};
use crate::world::Real;

pub(super) type Handle = HandleOf<Real>;

/// The exit statuses of the house: fine, failed but may work later, a person must act.
pub(super) const DONE: u8 = 0;
pub(super) const LATER: u8 = 1;
pub(super) const PERSON: u8 = 2;
/// How often a person is told how much time is left.
pub(super) const TICK: Duration = Duration::from_secs(1);
/// How often it is looked whether somebody else has brought the grant.
const LOOK_S: i64 = 5;
/// How often what goes before a step may act.
pub(super) const STEPS_MAX: usize = 8;

/// Where a `login` stands.
struct Session {
    config: usize,
    provider: &'static Provider,
    /// The token of the beginning: another one that was authorized since is the end.
    before: Option<Fingerprint>,
    asked: Urgency,
    shown: Option<Invitation>,
    /// When what is shown ends.
    ends: Option<UnixSeconds>,
    typed: Option<Receiver<Secret>>,
}

/// What a wait brought.
enum Typed {
    Nothing,
    Line(Secret),
    /// There is nobody to type.
    Nobody,
}

/// A config under its lock.
pub(super) type Locked = (Place, Look<Handle>, Option<Handle>);

impl Daemon<Real> {
    /// Authorizes at this terminal; the exit status.
    pub async fn login(&mut self, provider: &'static Provider, given: Option<Secret>) -> u8 {
        self.log_in(provider, given).await.unwrap_or_else(|status| status)
    }

    async fn log_in(&mut self, provider: &'static Provider, given: Option<Secret>) -> Result<u8, u8> {
        let config = self.find(provider).await?;
        let look = self.locked(config, provider).await?.1;
        if look.section.client_id.is_none() {
            let path = self.configs[config].path.display().to_string();
            let (line, page) = (look.section.line, provider.applications_page);
            self.world.person().say(&format!(
                "{path}: line {line}: the section has no client_id yet; put the one from {page} there first"
            ));
            return Err(PERSON);
        }
        let mut session = Session {
            config,
            provider,
            before: look.history.current.as_ref().and_then(Held::refresh),
            asked: Urgency::Asked,
            shown: None,
            ends: None,
            typed: None,
        };
        drop(look);
        if let Some(given) = given {
            return self.exchange_given(&session, given).await;
        }
        loop {
            let until = self.sign_in_step(&mut session).await?;
            match self.wait_for(&mut session, until).await {
                _ if self.stopped => return self.interrupted(&session).await,
                Typed::Nothing => {}
                Typed::Line(line) if line.expose().is_empty() => session.typed = Some(self.prompt()),
                Typed::Line(line) => return self.exchange_given(&session, line).await,
                Typed::Nobody => {
                    self.world
                        .person()
                        .say("\nnobody is there to paste it; run `kometa-authd login mal --url ADDRESS` with it");
                    return Err(PERSON);
                }
            }
        }
    }

    /// One step under the lock; tells until when there is nothing to do, or how it ended.
    async fn sign_in_step(&mut self, session: &mut Session) -> Result<UnixSeconds, u8> {
        let (config, provider) = (session.config, session.provider);
        let (place, look, _lock) = self.locked(config, provider).await?;
        if is_authorized(session, &look.history) {
            return Err(self.done(session, &look.history));
        }
        let now = self.world.now();
        let facts = self.facts(&place, &look.section, &look.history, Urgency::Usual);
        let next = sign_in::next(&facts, self.setup.way(provider), session.asked, None, Waiting::NeverAuthorized);
        if !matches!(next, Decision::MakeLink) {
            session.asked = Urgency::Usual;
        }
        match next {
            Decision::AskForCode { round } => {
                self.ask_for_code(config, &place, look, round).await;
                let history = self.known(session, &place)?;
                if history.sign_in.code.is_none() {
                    return Err(self.failed_with(&history));
                }
                Ok(now)
            }
            Decision::Poll => {
                self.poll(config, &place, look).await;
                Ok(now)
            }
            Decision::MakeLink => match self.make_link(config, &place, &look) {
                Next::Again => Ok(now),
                Next::At(_) => Err(LATER),
            },
            Decision::Wait { until, reason: reason @ (Waiting::EnterCode | Waiting::PasteAddress) } => {
                let endpoint = self.endpoint(provider);
                let invitation = invitation(reason, &look.history, look.section.client_id.as_ref(), endpoint);
                if invitation != session.shown {
                    if let Some(invitation) = &invitation {
                        self.world.person().invite(invitation);
                    }
                    if reason == Waiting::PasteAddress {
                        session.typed = Some(self.prompt());
                    }
                    session.shown = invitation;
                }
                session.ends = look.history.sign_in.code.map(|code| code.expires_at);
                Ok(until.unwrap_or_else(|| now.plus(LOOK_S)))
            }
            _ => {
                let denied = look.history.sign_in.ended == Some(Ended::Denied);
                let kind = if denied { Kind::CodeDenied } else { Kind::CodesUnused };
                self.world.person().say(&format!("{}; run this again for a new code", kind.row().1));
                Err(PERSON)
            }
        }
    }

    /// Waits until then, or for a line, or for the end.
    async fn wait_for(&mut self, session: &mut Session, until: UnixSeconds) -> Typed {
        while !self.stopped && self.world.now() < until {
            if let Some(ends) = session.ends {
                let left = minutes(ends, self.world.now());
                self.world.person().progress(&format!("waiting for you, {left} left"));
            }
            let typed = async {
                match &mut session.typed {
                    Some(typed) => typed.await,
                    None => std::future::pending().await,
                }
            };
            let line = tokio::select! {
                biased;
                () = self.world.stopping() => {
                    self.stopped = true;
                    return Typed::Nothing;
                }
                line = typed => line,
                () = self.world.pause(TICK) => continue,
            };
            session.typed = None;
            return line.map_or(Typed::Nobody, Typed::Line);
        }
        Typed::Nothing
    }

    fn prompt(&mut self) -> Receiver<Secret> {
        let text = "Open the link, agree, and paste the address of the page that then does not load:\n> ";
        self.world.person().prompt(text)
    }

    /// Exchanges what a person typed or pasted.
    async fn exchange_given(&mut self, session: &Session, given: Secret) -> Result<u8, u8> {
        let (config, provider) = (session.config, session.provider);
        let (place, mut look, flock) = self.locked(config, provider).await?;
        if matches!(provider.login, Login::PastedUrl { .. }) && look.history.sign_in.verifier.is_none() {
            self.world
                .person()
                .say("there is no link yet that this could come from; run `kometa-authd login mal` for one");
            return Err(PERSON);
        }
        let used = given.fingerprint();
        if look.history.used.contains(&used) {
            self.world.person().say("this was sent before, and works only once; get a new one");
            return Err(PERSON);
        }
        look.section.once = Some(given);
        self.spend(config, &place, look, None).await;
        drop(flock);
        // Where the file changed meanwhile, this puts the pair into it as it is now.
        let history = self.locked(config, provider).await?.1.history;
        if is_authorized(session, &history) {
            return Ok(self.done(session, &history));
        }
        // What was refused has been said.
        Err(if history.used.contains(&used) { PERSON } else { self.failed_with(&history) })
    }

    fn failed_with(&mut self, history: &History) -> u8 {
        if let Some(trouble) = &history.trouble {
            self.world.person().say(&format!("it failed: {}; nothing is lost, run this again", trouble.what));
        }
        if history.trouble.as_ref().is_some_and(|trouble| trouble.refused.is_some()) { PERSON } else { LATER }
    }

    fn done(&mut self, session: &Session, history: &History) -> u8 {
        let whose = self.account(session.config, session.provider).and_then(|account| account.whose.take());
        let whose = whose.map_or_else(String::new, |whose| format!("; {whose}"));
        let held = history.current.as_ref();
        let until = held.and_then(decision::expires_at).map_or_else(|| "an unknown time".to_owned(), local);
        let path = self.configs[session.config].path.display().to_string();
        if held.is_some_and(|held| held.published) {
            self.world.person().say(&format!("authorized, the new pair is in {path} and valid until {until}{whose}"));
            DONE
        } else {
            self.world.person().say(&format!("authorized, the new pair is kept safe, but not yet in {path}{whose}"));
            LATER
        }
    }

    /// Ctrl-C: what was used is in the journal, and what was granted is kept.
    async fn interrupted(&mut self, session: &Session) -> Result<u8, u8> {
        self.stopped = false;
        let (_, look, _lock) = self.locked(session.config, session.provider).await?;
        if is_authorized(session, &look.history) {
            return Ok(self.done(session, &look.history));
        }
        let rest = session.ends.map_or_else(String::new, |ends| {
            format!("; the code stays good until {}, and `kometa-authd login` goes on with it", local(ends))
        });
        self.world.person().say(&format!("stopped, and nothing is half done{rest}"));
        Err(LATER)
    }

    /// The first config that has the provider's section.
    pub(super) async fn find(&mut self, provider: &'static Provider) -> Result<usize, u8> {
        for config in 0..self.configs.len() {
            let path = self.configs[config].path.display().to_string();
            self.recover(config).await;
            self.let_go(config);
            match self.read(config) {
                Ok((_, settings)) if settings.sections.iter().any(|section| section.provider == provider) => {
                    return Ok(config);
                }
                Ok(_) => {
                    let name = provider.name;
                    self.world.person().say(&format!("{path}: there is no {name}: section with a client_id in it"));
                }
                Err((kind, why)) => self.world.person().say(&format!("{path}: {}: {why}", kind.row().1)),
            }
        }
        Err(PERSON)
    }

    /// Takes the lock, and puts right what comes before any step: a pair that is only in memory, somebody's
    /// pair, an emptied block, a grant that is not in the file yet.
    pub(super) async fn locked(&mut self, config: usize, provider: &'static Provider) -> Result<Locked, u8> {
        while self.store_the_only_copy(config).await {
            tokio::select! {
                biased;
                () = self.world.stopping() => break,
                () = self.world.pause(TICK) => {}
            }
        }
        self.account_for(config, provider);
        let path = self.configs[config].path.clone();
        let unusable = |daemon: &mut Self, why: String| {
            daemon.world.person().say(&format!("{}: {why}; nothing was sent", path.display()));
            LATER
        };
        let snapshot = self.read(config).map_err(|(_, why)| unusable(self, why))?.0;
        let place = Place::new(&snapshot.path, self.setup.state.as_deref(), provider.name);
        let held = self.lock(config, provider, &place).await.map_err(|why| unusable(self, why.to_string()))?;
        store::recover(self.world.disk(), &place).map_err(|why| unusable(self, why.to_string()))?;
        for _ in 0..STEPS_MAX {
            let (snapshot, settings) = self.read(config).map_err(|(_, why)| unusable(self, why))?;
            let section = settings.sections.into_iter().find(|section| section.provider == provider);
            let section = section.ok_or_else(|| unusable(self, "the section is gone".to_owned()))?;
            let history = self.history(config, provider, &place).map_err(|why| unusable(self, why.to_string()))?;
            let decided = decision::decide(&self.facts(&place, &section, &history, Urgency::Usual));
            let look = Look { snapshot, section, history };
            let next = match decided {
                Decision::Adopt => self.adopt(config, &place, &look),
                Decision::SignOut => self.sign_out(config, &place, &look),
                Decision::Publish(why) => self.publish(config, &place, &look, why),
                _ => return Ok((place, look, held)),
            };
            if let Next::At(_) = next {
                // Why has been said.
                return Err(LATER);
            }
        }
        Err(unusable(self, "the file kept changing".to_owned()))
    }

    /// The history after a step.
    fn known(&mut self, session: &Session, place: &Place) -> Result<History, u8> {
        self.history(session.config, session.provider, place).map_err(|why| {
            self.world.person().say(&why.to_string());
            LATER
        })
    }
}

fn is_authorized(session: &Session, history: &History) -> bool {
    let current = history.current.as_ref().filter(|held| held.origin == Origin::Authorized);
    current.is_some_and(|held| held.refresh() != session.before)
}
