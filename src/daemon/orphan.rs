//! The files that stood in the config's place before ours: a writer that had
//! one open writes into it, and what it writes is not to be lost.

use super::{Daemon, HandleOf, World, facts};
use crate::disk::Disk;
use crate::event::{Event, Kind};
use crate::file::{self, Snapshot};
use crate::journal::Record;
use crate::merge::merge;
use crate::provider::PROVIDERS;
use crate::settings::{self, References, Section};
use crate::splice::{self, Change, Edit};
use crate::store::{self, Place, Refused};
use crate::token::{Fingerprint, Secret, UnixSeconds};

/// How often such a file is looked at: a second apart at first, then twice as long each time.
const LOOKS: u32 = 5;
/// How many are remembered. Each rotation leaves one, and half a minute later it is let go.
const ORPHANS_MAX: usize = 64;

/// A file that stood in the config's place, and that somebody may still have open for writing.
pub(super) struct Orphan<H> {
    was: store::Orphan<H>,
    /// The config as we made it, as long as nobody but us has written it since.
    ours: Fingerprint,
    /// What was found here and in the config at the last look: what still stands a look later is whole.
    found: Option<(Fingerprint, Fingerprint)>,
    pub(super) look_at: UnixSeconds,
    looks: u32,
}

/// What a look at one led to.
enum Found {
    /// What it held before.
    Nothing,
    /// No whole text; where nobody writes the rest of it, it is let go in the end.
    HalfWritten,
    /// Somebody's edit; it or the config is still being written.
    Waits,
    /// It is in the config now.
    Merged,
}

impl<W: World> Daemon<W> {
    /// Remembers what our own replacement of `before` by `after` took out of the config's place.
    pub(super) fn remember(
        &mut self,
        config: usize,
        before: Fingerprint,
        after: Fingerprint,
        orphans: Vec<store::Orphan<HandleOf<W>>>,
    ) {
        let look_at = self.world.now().plus(1);
        let known = &mut self.configs[config].orphans;
        for orphan in known.iter_mut().filter(|orphan| orphan.ours == before) {
            orphan.ours = after;
        }
        known.extend(orphans.into_iter().map(|was| Orphan { was, ours: after, found: None, look_at, looks: 0 }));
        let mut excess = known.len().saturating_sub(ORPHANS_MAX);
        known.retain(|orphan| {
            // One with an edit that waits is never let go for this.
            let goes = excess > 0 && orphan.found.is_none();
            excess -= usize::from(goes);
            !goes
        });
    }

    /// Looks at the files that ours took the place of: what somebody wrote into one since is their edit.
    /// `last` means that there will be no other look.
    pub(super) async fn reclaim(&mut self, config: usize, last: bool) {
        let now = self.world.now();
        let orphans = std::mem::take(&mut self.configs[config].orphans);
        let (due, later): (Vec<_>, Vec<_>) = orphans.into_iter().partition(|orphan| last || orphan.look_at <= now);
        self.configs[config].orphans = later;
        for mut orphan in due {
            orphan.looks += 1;
            orphan.look_at = now.plus(1 << orphan.looks.min(LOOKS));
            match self.look_at_orphan(config, &mut orphan, last).await {
                Ok(Found::Nothing | Found::HalfWritten) => {}
                Ok(Found::Merged) => (orphan.looks, orphan.look_at) = (0, now.plus(1)),
                // An edit waits here: it is not let go before it is in.
                Ok(Found::Waits) | Err(_) => (orphan.looks, orphan.look_at) = (orphan.looks - 1, now.plus(1)),
            }
            if orphan.looks < LOOKS {
                self.configs[config].orphans.push(orphan);
            }
        }
    }

    async fn look_at_orphan(
        &mut self,
        config: usize,
        orphan: &mut Orphan<HandleOf<W>>,
        last: bool,
    ) -> Result<Found, Refused> {
        let Ok((bytes, _)) = self.world.disk().read(&orphan.was.handle, file::SIZE_MAX_BYTES) else {
            return Ok(Found::Nothing);
        };
        if bytes == orphan.was.text.as_bytes() {
            return Ok(Found::Nothing);
        }
        let current = file::read(self.world.disk(), &self.configs[config].path)?;
        let found = (Fingerprint::of(&bytes), current.fingerprint);
        let settled = orphan.found.replace(found) == Some(found) || last;
        let Ok(theirs) = String::from_utf8(bytes) else { return Ok(Found::HalfWritten) };
        let references = facts::references(self.world.disk(), &self.setup, &current);
        let is_whole = |text: &str| settings::parse(text, &references).is_ok();
        if !is_whole(&theirs) {
            return Ok(Found::HalfWritten);
        }
        if !settled || !is_whole(&current.text) {
            return Ok(Found::Waits);
        }
        // Which account's does not matter: the lock is the folder's, and so is the file.
        let provider = PROVIDERS[0];
        let place = Place::new(&current.path, self.setup.state.as_deref(), provider.name);
        let _lock = self.lock(config, provider, &place).await?;
        let (base, edited) = self.with_pairs_of(config, &current, &orphan.was.text, &theirs);
        let merged = if current.fingerprint == orphan.ours {
            Some(edited)
        } else {
            merge(&base, &current.text, &edited).filter(|merged| is_whole(merged))
        };
        if let Some(merged) = merged {
            let (mut orphans, make) = (Vec::new(), |_: &str| Ok(Some(merged.clone())));
            let mut note = |_: &Record| {};
            let done = store::replace(self.world.disk(), &place, current.fingerprint, &mut orphans, &mut note, &make);
            let after = done.as_ref().ok().copied().flatten().unwrap_or(current.fingerprint);
            self.remember(config, current.fingerprint, after, orphans);
            done?;
            if orphan.ours == current.fingerprint {
                orphan.ours = after;
            }
        } else {
            let aside = store::keep_aside(self.world.disk(), &place, &theirs)?;
            let event = Event::new(Kind::EditAside, self.configs[config].path.display().to_string());
            self.world.announce(event.detail(aside.display().to_string()));
        }
        (orphan.was.text, orphan.found) = (theirs, None);
        Ok(Found::Merged)
    }

    /// A text and what somebody made of it, both with the pairs that the config has by now: so that our
    /// own change of the block does not stand in the way of theirs elsewhere. A pair of their own stays.
    fn with_pairs_of(
        &self,
        config: usize,
        current: &Snapshot<HandleOf<W>>,
        base: &str,
        edited: &str,
    ) -> (String, String) {
        let sections = |text: &str| {
            settings::parse(text, &References::default()).map(|settings| settings.sections).unwrap_or_default()
        };
        let (olds, news) = (sections(base), sections(edited));
        let mut texts = (base.to_owned(), edited.to_owned());
        for section in sections(&current.text) {
            let place = Place::new(&current.path, self.setup.state.as_deref(), section.provider.name);
            let token = |sections: &[Section]| {
                let own = sections.iter().find(|own| own.provider == section.provider)?;
                own.refresh_token.as_ref().map(Secret::fingerprint)
            };
            let Some(theirs) = token(&news) else { continue };
            let is_spent = || self.history(config, section.provider, &place).is_ok_and(|known| known.is_spent(theirs));
            let is_own = token(&olds) != Some(theirs) && !is_spent();
            if let Some(base) = with_pair_of(&section, &texts.0) {
                texts.0 = base;
                if !is_own {
                    texts.1 = with_pair_of(&section, &texts.1).unwrap_or(texts.1);
                }
            }
        }
        texts
    }
}

/// A text with the pair of another one in it, where that can be done.
fn with_pair_of(section: &Section, text: &str) -> Option<String> {
    let held = section.adopted(UnixSeconds(0), 0);
    let change = match &held {
        Some(held) => Change::Write(&held.grant),
        // It was signed out of.
        None if section.refresh_token.is_none() && section.access_token.is_none() => Change::Empty,
        None => return None,
    };
    let edit = Edit { provider: section.provider, change, clear_once_key: false };
    splice::splice(text, &edit).ok().map(|spliced| spliced.text)
}
