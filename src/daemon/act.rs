//! The acts that send nothing: adopt, sign out, publish.

use std::cell::Cell;

use super::{Daemon, HandleOf, Look, Next, World};
use crate::decision::{self, Publishing};
use crate::event::{Event, Kind};
use crate::journal::{History, Journal, Record};
use crate::provider::Provider;
use crate::settings::{self, References};
use crate::splice::{self, Change, Edit};
use crate::store::{self, Place, Refused};
use crate::token::{Fingerprint, Grant};
use crate::yaml::{Document, Problem};

impl<W: World> Daemon<W> {
    /// Takes the file's pair for the current one.
    pub(super) fn adopt(&mut self, config: usize, place: &Place, look: &Look<HandleOf<W>>) -> Next {
        let provider = look.section.provider;
        let draw = self.draw();
        let Some(held) = look.section.adopted(self.world.now(), draw) else {
            return Next::At(None);
        };
        // Without a journal memory has to do: it is in the file, and only a refresh needs the journal.
        let mut journal = self.open_journal(config, provider, place).ok();
        self.note(config, provider, journal.as_mut(), Record::Held(held));
        if let Some(account) = self.account(config, provider) {
            account.news = Some(Kind::Adopted);
        }
        Next::Again
    }

    pub(super) fn draw(&self) -> u16 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
        let draw = (self.world.draw().clamp(0.0, 1.0) * 1000.0) as u16;
        draw
    }

    /// Takes an emptied block for a sign-out.
    pub(super) fn sign_out(&mut self, config: usize, place: &Place, look: &Look<HandleOf<W>>) -> Next {
        let provider = look.section.provider;
        match self.open_journal(config, provider, place) {
            Ok(mut journal) => {
                let record = Record::SignedOut(self.world.now());
                self.note(config, provider, Some(&mut journal), record);
                let event = Event::new(Kind::SignedOut, self.name(config, provider));
                self.announce(config, provider, event);
                Next::Again
            }
            Err(why) => Next::At(self.hold(config, provider, Kind::StateUnusable, &why)),
        }
    }

    /// Puts the newest pair into the file.
    pub(super) fn publish(&mut self, config: usize, place: &Place, look: &Look<HandleOf<W>>, why: Publishing) -> Next {
        let provider = look.section.provider;
        let kind = match why {
            Publishing::New => Kind::Published,
            Publishing::SpentCameBack => Kind::PutBack,
        };
        // Without a journal the file is all the more needed.
        let mut journal = self.open_journal(config, provider, place).ok();
        match self.write(config, place, (provider, look.snapshot.fingerprint), &look.history, journal.as_mut()) {
            Ok(written) => {
                if let Some(account) = self.account(config, provider).filter(|_| written) {
                    account.news = Some(kind);
                }
                Next::Again
            }
            Err(Refused::Changed) => Next::Again,
            Err(why) => Next::At(self.hold(config, provider, Kind::GrantWaits, &why)),
        }
    }

    /// Writes the newest pair into the file as it was looked at; false where it has somebody's own.
    pub(super) fn write(
        &mut self,
        config: usize,
        place: &Place,
        seen: (&'static Provider, Fingerprint),
        history: &History,
        mut journal: Option<&mut Journal<HandleOf<W>>>,
    ) -> Result<bool, Refused> {
        let (provider, seen) = seen;
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
                let _ = journal.add(disk, record);
            }
        };
        let mut orphans = Vec::new();
        let replaced = store::replace(disk, place, seen, &mut orphans, &mut note, &make);
        if replaced.is_ok() && !foreign.get() {
            self.note(config, provider, journal, Record::Published);
        }
        let after = replaced.as_ref().ok().copied().flatten().unwrap_or(seen);
        self.remember(config, orphans);
        replaced?;
        if foreign.get() {
            return Ok(false);
        }
        let watched = &mut self.configs[config];
        if let Some(account) = watched.accounts.iter_mut().find(|account| account.provider == provider) {
            account.misses = 0;
        }
        watched.fingerprint = Some(after);
        Ok(true)
    }
}

/// The edit that puts a grant into a text, if the pair there may give way to it.
pub(super) fn edit(
    text: &str,
    provider: &'static Provider,
    grant: &Grant,
    history: &History,
) -> Result<Option<String>, Refused> {
    // References do not matter here: a token is never written through one.
    let not_yaml = |problem: Problem| Refused::NotNow(format!("the file is not complete YAML: {problem}"));
    let document = Document::parse(text).map_err(not_yaml)?;
    let settings = settings::of(&document, &References::default()).map_err(not_yaml)?;
    let Some(section) = settings.sections.iter().find(|section| section.provider == provider) else {
        return Ok(None);
    };
    if !decision::may_replace(&section.seen(), history) {
        return Ok(None);
    }
    let used = section.once.as_ref().is_some_and(|once| history.used.contains(&once.fingerprint()));
    let edit = Edit { provider, change: Change::Write(grant), clear_once_key: used };
    let spliced = splice::splice_parsed(text, &document, &edit)?;
    Ok(Some(spliced.text))
}
