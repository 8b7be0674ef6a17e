//! `logout`: revokes at the provider, forgets, and leaves the block empty, for a
//! person who waits for it.
//!
//! Invariant: what cannot be finished is not begun, and no token is left on the
//! disk once it is done.

use super::person::{DONE, Handle, LATER, PERSON, STEPS_MAX, TICK};
use super::{Daemon, Look, World as _};
use crate::file;
use crate::journal::Record;
use crate::provider::Provider;
use crate::refresh::Outcome;
use crate::refresh::reply::{self, Reply};
use crate::refresh::request::revoke_request;
use crate::splice::{self, Change, Edit};
use crate::store::{self, Refused};
use crate::token::Secret;
use crate::world::Real;

/// How often it is looked, a second apart, whether somebody still writes into the file that was there before.
const LATE_WRITER_LOOKS: usize = 2;

impl Daemon<Real> {
    /// Revokes the tokens at the provider, empties the block and forgets them; the exit status.
    pub async fn logout(&mut self, provider: &'static Provider, yes: bool) -> u8 {
        self.log_out(provider, yes).await.unwrap_or_else(|status| status)
    }

    async fn log_out(&mut self, provider: &'static Provider, yes: bool) -> Result<u8, u8> {
        let config = self.find(provider).await?;
        let path = self.configs[config].path.display().to_string();
        let title = provider.title;
        if !yes {
            let what = if provider.revoke_path.is_some() { "revoke its tokens, and" } else { "forget its tokens, and" };
            let question = format!("Sign out of {title}: {what} empty the authorization block in {path}? [y/N] ");
            let typed = self.world.person().prompt(&question);
            let answer = tokio::select! {
                biased;
                () = self.world.stopping() => None,
                line = typed => line.ok(),
            };
            let is_yes = |line: &Secret| ["y", "yes"].contains(&line.expose().to_ascii_lowercase().as_str());
            if !answer.as_ref().is_some_and(is_yes) {
                self.world.person().say(if answer.is_some() {
                    "nothing was done"
                } else {
                    "\nnothing was done; --yes does it"
                });
                return Err(LATER);
            }
        }
        let (place, look, flock) = self.locked(config, provider).await?;
        let empty = |text: &str| {
            let spliced = splice::splice(text, &Edit { provider, change: Change::Empty, clear_once_key: true })?;
            Ok::<_, Refused>(Some(spliced.text))
        };
        let refused = |daemon: &mut Self, why: &Refused| {
            daemon.world.person().say(&format!("{path}: {why}; correct that and run this again"));
            PERSON
        };
        // Before anything is revoked: what cannot be finished is not begun.
        empty(&look.snapshot.text).map_err(|why| refused(self, &why))?;
        self.revoke(&look).await?;
        let disk = self.world.disk();
        let (mut replaced, mut orphans) = (false, Vec::new());
        let noted = store::open_journal(disk, &place).and_then(|mut journal| {
            let added = journal.add(disk, &Record::LoggedOut(self.world.now()));
            added.map_err(|error| Refused::Journal { path: place.journal.clone(), error })?;
            let mut emptied = Err(Refused::Changed);
            for _ in 0..STEPS_MAX {
                // Somebody may write just now; what counts is the file as it is then.
                if matches!(emptied, Err(Refused::Changed)) {
                    let seen = file::read(disk, &place.config)?.fingerprint;
                    emptied = store::replace(disk, &place, seen, &mut orphans, &mut |_| {}, &empty);
                    replaced = matches!(emptied, Ok(Some(_)));
                }
            }
            // The tokens are to be gone from the disk, even where the file cannot be written.
            let gone = journal.compact(disk, &place.journal);
            gone.map_err(|error| Refused::Journal { path: place.journal.clone(), error })?;
            emptied.map(drop)
        });
        drop(flock);
        self.remember(config, orphans);
        noted.map_err(|why| refused(self, &why))?;
        self.world.person().say(&format!(
            "signed out of {title}: the block in {path} is empty and stays so until `kometa-authd login {}`",
            provider.name
        ));
        if provider.revoke_path.is_none() {
            let page = provider.applications_page;
            self.world
                .person()
                .say(&format!("{title} revokes nothing by itself: the tokens end with their time, see {page}"));
        }
        if replaced {
            self.linger(config).await;
        }
        Ok(DONE)
    }

    /// Looks a moment longer at what stood in the config's place: whoever had it open may be writing into it.
    async fn linger(&mut self, config: usize) {
        for _ in 0..LATE_WRITER_LOOKS {
            tokio::select! {
                biased;
                () = self.world.stopping() => break,
                () = self.world.pause(TICK) => {}
            }
            self.reclaim(config, false).await;
        }
        self.last_chance().await;
    }

    /// Has the provider end every refresh token that we know, which ends the access tokens with them.
    async fn revoke(&mut self, look: &Look<Handle>) -> Result<(), u8> {
        let provider = look.section.provider;
        let held = [&look.history.current, &look.history.fallback].into_iter().flatten();
        let held = held.filter_map(|held| held.grant.refresh_token.as_ref());
        let mut tokens: Vec<&Secret> = Vec::new();
        for token in look.section.refresh_token.iter().chain(held) {
            if !tokens.contains(&token) {
                tokens.push(token);
            }
        }
        let Some(credentials) = look.section.credentials() else { return Ok(()) };
        for token in tokens {
            let request = self.endpoint(provider).and_then(|endpoint| revoke_request(endpoint, &credentials, token));
            let Some(request) = request else { return Ok(()) };
            if self.take_turn().await.is_some() {
                return Err(LATER);
            }
            let failed = match self.post(&request).await {
                Outcome::NotSent(what) | Outcome::Unknown(what) => what,
                Outcome::Answered(answer) if (200..300).contains(&answer.status) => continue,
                Outcome::Answered(answer) => match reply::classify(provider, &answer) {
                    // It lives no more, which is what was wanted.
                    Reply::Invalid | Reply::Grant(_) => continue,
                    Reply::BadClient => "the provider refused client_id or client_secret".to_owned(),
                    Reply::Later { what, .. } => what.into_owned(),
                },
            };
            self.world.person().say(&format!(
                "{} did not revoke the token: {failed}; nothing was changed here. Run this again later, or empty the \
                 authorization block yourself, which signs out here alone",
                provider.title
            ));
            return Err(LATER);
        }
        Ok(())
    }
}
