//! The file that ours took the place of: a writer that had it open writes into
//! it, and what it writes is not to be lost.

use super::{Daemon, World, facts};
use crate::disk::Disk;
use crate::file::{self, Snapshot};
use crate::journal::Record;
use crate::settings;
use crate::store::{self, Place};
use crate::token::{Fingerprint, UnixSeconds};

/// How often the file that a config took the place of is looked at, a second apart at first.
const ORPHAN_LOOKS: u32 = 5;

/// A file that ours took the place of, and that somebody may still have open for writing.
pub(super) struct Orphan<H> {
    pub(super) snapshot: Snapshot<H>,
    pub(super) ours: Fingerprint,
    pub(super) look_at: UnixSeconds,
    pub(super) looks: u32,
}

impl<W: World> Daemon<W> {
    /// Looks at the file that ours took the place of: what somebody wrote into it since is their edit.
    pub(super) async fn reclaim(&mut self, config: usize) {
        let now = self.world.now();
        let Some(mut orphan) = self.configs[config].orphan.take_if(|orphan| orphan.look_at <= now) else { return };
        orphan.looks += 1;
        orphan.look_at = now.plus(1 << orphan.looks.min(5));
        let Ok((bytes, _)) = self.world.disk().read(&orphan.snapshot.handle, file::SIZE_MAX_BYTES) else { return };
        let fingerprint = Fingerprint::of(&bytes);
        if fingerprint == orphan.snapshot.fingerprint {
            if orphan.looks < ORPHAN_LOOKS {
                self.configs[config].orphan = Some(orphan);
            }
            return;
        }
        let text = String::from_utf8(bytes).unwrap_or_default();
        let references = facts::references(self.world.disk(), &self.setup, &orphan.snapshot);
        let sections = settings::parse(&text, &references).map(|settings| settings.sections);
        let Some(provider) = sections.ok().and_then(|sections| Some(sections.first()?.provider)) else {
            // Still being written.
            orphan.look_at = now.plus(1);
            self.configs[config].orphan = Some(orphan);
            return;
        };
        let place = Place::new(&orphan.snapshot.path, self.setup.state.as_deref(), provider.name);
        let Ok(_lock) = self.lock(config, provider, &place).await else { return };
        let Ok(mut journal) = store::open_journal(self.world.disk(), &place) else { return };
        // Only while the file is what we made of it; the blocks are put right by the look that follows.
        let make = |now: &str| Ok((Fingerprint::of(now.as_bytes()) == orphan.ours).then(|| text.clone()));
        let mut note = |record: &Record| drop(journal.note(self.world.disk(), record));
        if let Ok(Some(replaced)) = store::replace(self.world.disk(), &place, &mut note, &make) {
            orphan.snapshot.fingerprint = fingerprint;
            (orphan.ours, orphan.looks, orphan.look_at) = (replaced.fingerprint, 0, now.plus(1));
            self.configs[config].orphan = Some(orphan);
        }
    }
}
