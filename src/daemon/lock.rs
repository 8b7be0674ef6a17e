//! The lock of a config's folder: one of us reads, spends and writes at a time.
//!
//! Invariant: it is let go after each visit, unless a pair is only in
//! memory. Others cannot see that pair, and would spend the token again that it
//! was given for, so they wait until it is stored.

use std::time::Duration;

use super::{Daemon, HandleOf, World};
use crate::disk::{Disk, explain, has_no_locks};
use crate::event::{Event, Kind};
use crate::provider::Provider;
use crate::store::{Place, Refused};

/// How often somebody else's lock is tried.
pub(super) const LOCK_RETRY: Duration = Duration::from_millis(200);
/// How often before it is let be: longer than any request takes.
const LOCK_ATTEMPTS: u32 = 300;

impl<W: World> Daemon<W> {
    /// Takes the lock. `None` where there is none to take: it is ours already, or the file system has no locks.
    pub(super) async fn lock(
        &mut self,
        config: usize,
        provider: &'static Provider,
        place: &Place,
    ) -> Result<Option<HandleOf<W>>, Refused> {
        if self.configs.iter().any(|watched| watched.lock.as_ref().is_some_and(|held| held.0 == place.folder)) {
            return Ok(None);
        }
        for attempt in 0..LOCK_ATTEMPTS {
            match self.world.disk().lock(&place.folder, true) {
                Ok(Some(lock)) => return Ok(Some(lock)),
                Ok(None) => {
                    if attempt == 5 {
                        let event = Event::new(Kind::WaitsForOther, self.name(config, provider));
                        self.world.announce(event);
                    }
                    self.stopped = tokio::select! {
                        biased;
                        () = self.world.stopping() => true,
                        () = self.world.pause(LOCK_RETRY) => false,
                    };
                    if self.stopped {
                        break;
                    }
                }
                Err(error) if has_no_locks(&error) => {
                    let event = Event::new(Kind::NoLock, place.folder.display().to_string());
                    let event = event.detail(explain(&error));
                    if !std::mem::replace(&mut self.configs[config].lockless, true) {
                        self.world.announce(event);
                    }
                    return Ok(None);
                }
                // There are locks, and whoever goes on without one may spend what somebody else is spending.
                Err(error) => {
                    let (folder, why) = (place.folder.display(), explain(&error));
                    return Err(Refused::NotNow(format!("the lock of {folder} could not be taken: {why}")));
                }
            }
        }
        Err(Refused::NotNow("another kometa-authd keeps the folder locked".to_owned()))
    }

    /// Keeps a lock until the visit is over.
    pub(super) fn hold_lock(&mut self, config: usize, place: &Place, lock: Option<HandleOf<W>>) {
        if let Some(lock) = lock {
            self.configs[config].lock = Some((place.folder.clone(), lock));
        }
    }

    /// The visit is over.
    pub(super) fn let_go(&mut self, config: usize) {
        let watched = &mut self.configs[config];
        if !watched.accounts.iter().any(|account| account.pending.has_the_only_copy()) {
            watched.lock = None;
        }
    }
}
