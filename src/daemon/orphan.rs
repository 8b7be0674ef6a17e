//! What our replacement of the file could cost others: what a program writes
//! into the file that stood in the config's place before, and what somebody
//! saved in the very moment of the swap.

use super::account::is_fresh;
use super::{Daemon, HandleOf, Watched, World};
use crate::disk::Disk;
use crate::event::{Event, Kind};
use crate::file::{self, Snapshot};
use crate::journal::Record;
use crate::merge::{distance, is_cut_off, merge};
use crate::provider::PROVIDERS;
use crate::settings::{self, References, Section};
use crate::splice::{self, Change};
use crate::store::{self, Place, Refused};
use crate::token::{Fingerprint, Secret, UnixSeconds};

/// How often such a file is looked at: a second apart at first, then twice as long each time. The last
/// look is half a minute after the swap.
const LOOKS: u32 = 5;
/// How often it may be unreadable before that counts as a look.
const FAILURES_MAX: u32 = 60;
/// How many are remembered: more than half a minute of swaps can leave, as fast as they follow each other.
const ORPHANS_MAX: usize = 256;
/// How long a text has to stand before it is taken for whole where it may be the start of one.
const CUT_OFF_S: i64 = 10;
/// How long an edit is looked for in the config: as long as a program takes to read a file, to change it
/// and to write it. What it read may be from before the edit was there.
const EDIT_S: i64 = 5;
/// How long an edit waits for a config that never stands still.
const RESTLESS_MAX_S: i64 = 10;

/// A file that stood in the config's place, and that somebody may still have open for writing.
pub(super) struct Orphan<H> {
    /// What is known of it.
    was: store::Orphan<H>,
    /// What it holds in the place of that, and since when.
    found: Option<(Fingerprint, UnixSeconds)>,
    pub(super) look_at: UnixSeconds,
    looks: u32,
    failures: u32,
}

/// Somebody's edit that a swap of ours got in the way of.
pub(super) struct Edit {
    base: String,
    edited: String,
    /// Whether the config had it at some look.
    was_in: bool,
    found_at: UnixSeconds,
    failures: u32,
    pub(super) look_at: UnixSeconds,
    /// Until when it is looked for, once it was in.
    until: UnixSeconds,
}

impl Edit {
    fn new(base: String, edited: String, now: UnixSeconds) -> Self {
        Self { base, edited, was_in: false, found_at: now, failures: 0, look_at: now, until: now.plus(EDIT_S) }
    }

    /// It is in the config: nothing to do unless somebody writes over it now.
    fn is_in(&mut self) -> Keep {
        (self.was_in, self.failures, self.look_at) = (true, 0, self.until);
        Keep::Yes
    }
}

impl<W: World> Watched<W> {
    /// The text that somebody's was made from: of all that stood in the config lately the one that it differs
    /// least from, and `known` where that is as good as any.
    fn base_of<'a>(&'a self, theirs: &str, known: &'a str) -> &'a str {
        let orphans = self.orphans.iter().map(|orphan| &orphan.was.text);
        let edits = self.edits.iter().flat_map(|edit| [&edit.base, &edit.edited]);
        let others = orphans.chain(edits).map(String::as_str);
        std::iter::once(known).chain(others).min_by_key(|base| distance(base, theirs)).unwrap_or(known)
    }
}

/// Whether an edit is to be looked for again.
enum Keep {
    Yes,
    No,
}

impl<W: World> Daemon<W> {
    /// Remembers what our own replacement took out of the config's place.
    pub(super) fn remember(&mut self, config: usize, orphans: Vec<store::Orphan<HandleOf<W>>>) {
        let now = self.world.now();
        let watched = &mut self.configs[config];
        for mut was in orphans {
            // What came out in the place of what we knew may be written over before the next look. Only
            // what is no start of a text is believed without one.
            for found in std::mem::take(&mut was.found).into_iter().filter(|found| is_whole(found)) {
                let base = watched.base_of(&found, &was.text);
                if !is_cut_off(base, &found) {
                    watched.edits.push(Edit::new(base.to_owned(), found.clone(), now));
                    was.text = found;
                }
            }
            watched.orphans.push(Orphan { was, found: None, look_at: now.plus(1), looks: 0, failures: 0 });
        }
        let excess = watched.orphans.len().saturating_sub(ORPHANS_MAX);
        watched.orphans.drain(..excess);
    }

    /// Looks at the files that ours took the place of: what somebody wrote into one since is their edit. Each
    /// edit is brought into the config where it is missing. `last` means that there will be no other look.
    pub(super) async fn reclaim(&mut self, config: usize, last: bool) {
        let now = self.world.now();
        let is_due = |look_at: UnixSeconds| last || look_at <= now;
        for mut orphan in std::mem::take(&mut self.configs[config].orphans) {
            if !is_due(orphan.look_at) || self.look_at_orphan(config, &mut orphan, last) {
                self.configs[config].orphans.push(orphan);
            }
        }
        for mut edit in std::mem::take(&mut self.configs[config].edits) {
            match self.bring(config, &mut edit, last).await {
                Ok(Keep::No) => continue,
                Ok(Keep::Yes) => {}
                Err(_) if last && !edit.was_in => {
                    let _ = self.set_aside(config, &edit);
                }
                // Whatever stands in the way, it is not let go before it is in.
                Err(_) => {
                    edit.failures += 1;
                    edit.look_at = now.plus(1 << edit.failures.min(6));
                }
            }
            if edit.look_at > now {
                self.configs[config].edits.push(edit);
            }
        }
    }

    /// Whether somebody is writing into a file that stood in the config's place.
    pub(super) fn is_written_to(&self, config: usize) -> bool {
        self.configs[config].orphans.iter().any(|orphan| {
            let found = self.world.disk().read(&orphan.was.handle, file::SIZE_MAX_BYTES);
            found.is_ok_and(|(bytes, _)| bytes != orphan.was.text.as_bytes())
        })
    }

    /// Whether to look at it again.
    fn look_at_orphan(&mut self, config: usize, orphan: &mut Orphan<HandleOf<W>>, last: bool) -> bool {
        let now = self.world.now();
        let disk = self.world.disk();
        orphan.looks += 1;
        orphan.look_at = now.plus(1 << orphan.looks.min(LOOKS));
        let Ok((bytes, meta)) = disk.read(&orphan.was.handle, file::SIZE_MAX_BYTES) else {
            if orphan.failures < FAILURES_MAX {
                (orphan.failures, orphan.looks, orphan.look_at) = (orphan.failures + 1, orphan.looks - 1, now.plus(1));
            }
            return orphan.looks < LOOKS;
        };
        let path = &self.configs[config].path;
        let in_place = disk.resolve(path).and_then(|path| disk.meta(&path));
        if in_place.is_ok_and(|current| current.identity == meta.identity) {
            // It went back, and is the config.
            return false;
        }
        if bytes == orphan.was.text.as_bytes() {
            orphan.found = None;
            return orphan.looks < LOOKS;
        }
        let text = Fingerprint::of(&bytes);
        let Some(theirs) = String::from_utf8(bytes).ok().filter(|theirs| is_whole(theirs)) else {
            return orphan.looks < LOOKS;
        };
        let since = orphan.found.filter(|found| found.0 == text).map_or(now, |found| found.1);
        orphan.found = Some((text, since));
        let base = self.configs[config].base_of(&theirs, &orphan.was.text);
        let needed_s = if is_cut_off(base, &theirs) { CUT_OFF_S } else { 1 };
        if last || now.since(since) >= needed_s {
            let edit = Edit::new(base.to_owned(), theirs.clone(), now);
            self.configs[config].edits.push(edit);
            orphan.was.text = theirs;
            (orphan.looks, orphan.found) = (0, None);
        } else {
            orphan.looks -= 1;
        }
        orphan.look_at = now.plus(1);
        true
    }

    /// Makes sure that an edit is in the config.
    async fn bring(&mut self, config: usize, edit: &mut Edit, last: bool) -> Result<Keep, Refused> {
        let now = self.world.now();
        let current = file::read(self.world.disk(), &self.configs[config].path)?;
        if !is_whole(&current.text) {
            return Err(Refused::Changed);
        }
        let (base, edited) = self.with_pairs_of(config, &current, edit);
        let merged = merge(&base, &current.text, &edited).filter(|merged| is_whole(merged));
        if merged.as_ref() == Some(&current.text) {
            return Ok(edit.is_in());
        }
        if merged.is_none() && edit.was_in {
            // Somebody changed the same lines since, and has the last word.
            return Ok(Keep::No);
        }
        let is_fresh = is_fresh(&current.meta, now);
        // What is no start of a text can be built upon in the end, also where it never stands still.
        if is_fresh && !last && (now.since(edit.found_at) < RESTLESS_MAX_S || merged.is_none()) {
            edit.look_at = now.plus(1);
            return Ok(Keep::Yes);
        }
        // Which account's does not matter: the lock is the folder's, and so is the file.
        let provider = PROVIDERS[0];
        let place = Place::new(&current.path, self.setup.state.as_deref(), provider.name);
        let _lock = self.lock(config, provider, &place).await?;
        let Some(merged) = merged else {
            return self.set_aside(config, edit);
        };
        let (mut orphans, make) = (Vec::new(), |_: &str| Ok(Some(merged.clone())));
        let mut note = |_: &Record| {};
        let done = store::replace(self.world.disk(), &place, current.fingerprint, &mut orphans, &mut note, &make);
        self.remember(config, orphans);
        done?;
        edit.until = self.world.now().plus(EDIT_S);
        Ok(edit.is_in())
    }

    /// Keeps an edit that cannot go into the config where a person finds it.
    fn set_aside(&mut self, config: usize, edit: &Edit) -> Result<Keep, Refused> {
        let disk = self.world.disk();
        let path = &self.configs[config].path;
        let real = disk.resolve(path).unwrap_or_else(|_| path.clone());
        let place = Place::new(&real, self.setup.state.as_deref(), PROVIDERS[0].name);
        let aside = store::keep_aside(disk, &place, &edit.edited)?;
        let event = Event::new(Kind::EditAside, path.display().to_string());
        self.world.announce(event.detail(aside.display().to_string()));
        Ok(Keep::No)
    }

    /// The two texts of an edit, both with the pairs that the config has by now: so that our own change of
    /// the block does not stand in the way of theirs elsewhere. A pair of their own stays until it was in.
    fn with_pairs_of(&self, config: usize, current: &Snapshot<HandleOf<W>>, edit: &Edit) -> (String, String) {
        let sections = |text: &str| {
            settings::parse(text, &References::default()).map(|settings| settings.sections).unwrap_or_default()
        };
        let (olds, news) = (sections(&edit.base), sections(&edit.edited));
        let mut texts = (edit.base.clone(), edit.edited.clone());
        for section in sections(&current.text) {
            let place = Place::new(&current.path, self.setup.state.as_deref(), section.provider.name);
            let of = |sections: &[Section]| sections.iter().position(|own| own.provider == section.provider);
            let (Some(old), Some(new)) = (of(&olds), of(&news)) else { continue };
            let (old, new) = (&olds[old], &news[new]);
            let token = |section: &Section| section.refresh_token.as_ref().map(Secret::fingerprint);
            let Some(theirs) = token(new) else { continue };
            let is_spent = || self.history(config, section.provider, &place).is_ok_and(|known| known.is_spent(theirs));
            let is_own = !edit.was_in && token(old) != Some(theirs) && !is_spent();
            // A PIN that was exchanged meanwhile is cleared in both.
            let is_used = section.once.is_none() && old.once == new.once;
            if let Some(base) = with_pair_of(&section, &texts.0, is_used) {
                texts.0 = base;
                if !is_own {
                    texts.1 = with_pair_of(&section, &texts.1, is_used).unwrap_or(texts.1);
                }
            }
        }
        texts
    }
}

/// A config that can be read. References do not matter for that.
fn is_whole(text: &str) -> bool {
    settings::parse(text, &References::default()).is_ok()
}

/// A text with the pair of another one in it, where that can be done.
fn with_pair_of(section: &Section, text: &str, clear_once_key: bool) -> Option<String> {
    let held = section.adopted(UnixSeconds(0), 0);
    let change = match &held {
        Some(held) => Change::Write(&held.grant),
        // It was signed out of.
        None if section.refresh_token.is_none() && section.access_token.is_none() => Change::Empty,
        None => return None,
    };
    let edit = splice::Edit { provider: section.provider, change, clear_once_key };
    splice::splice(text, &edit).ok().map(|spliced| spliced.text)
}
