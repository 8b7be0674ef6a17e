//! The sign of life: a lock in the state folder that ends with the process.
//!
//! Shared, because two daemons may look after one config for a while; whoever
//! asks tries to have it alone. It protects nothing.

use std::io;
use std::path::Path;

use super::{Daemon, HandleOf, LOCK_RETRY, World};
use crate::disk::{Disk, Open};
use crate::store;
use crate::token::UnixSeconds;

/// Somebody who asks has the lock for a moment.
const TRIES: usize = 5;

/// What a daemon holds to be seen: the lock, and which file it is of; none where somebody has it alone.
pub(super) type Sign<H> = Option<(H, (u64, u64))>;

/// Whether a daemon looks after a config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Running {
    /// One does, since then.
    Since(Option<UnixSeconds>),
    /// None does.
    No,
    /// The folder cannot be looked into, or has no locks.
    Unknown,
}

impl Running {
    /// For a program.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Since(_) => "running",
            Self::No => "not running",
            Self::Unknown => "unknown",
        }
    }
}

impl<W: World> Daemon<W> {
    /// Shows that a daemon looks after a config; where that cannot be shown, everything else goes on.
    async fn show_alive(&mut self, config: usize, path: &Path) {
        for attempt in 0..TRIES {
            let lock = self.take_sign(path);
            let is_taken = matches!(lock, Ok(None));
            self.configs[config].alive = lock.ok().flatten();
            if !is_taken || attempt + 1 == TRIES {
                return;
            }
            self.world.pause(LOCK_RETRY).await;
        }
    }

    fn take_sign(&self, path: &Path) -> io::Result<Sign<HandleOf<W>>> {
        let disk = self.world.disk();
        let folder = path.parent().unwrap_or(Path::new("/"));
        store::ensure_state(disk, folder).map_err(|error| io::Error::other(error.to_string()))?;
        let file = disk.open(path, Open::WriteOrCreate)?;
        let text = format!("{:<20}", self.world.now().0);
        disk.write_at(&file, text.as_bytes(), 0)?;
        let lock = disk.lock(path, false)?;
        let identity = disk.meta(path)?.identity;
        Ok(lock.map(|lock| (lock, identity)))
    }

    /// Shows it where it does not show, also where somebody cleared the state folder away. Not before a config
    /// could be read: a wrong path gets no folder beside it. `real` is where the config's path leads.
    pub(super) async fn stay_visible(&mut self, config: usize, real: &Path) {
        if !self.is_service {
            return;
        }
        let path = store::config_file(real, self.setup.state.as_deref(), "alive");
        let held = self.configs[config].alive.as_ref().map(|(_, identity)| *identity);
        if held.is_none() || held != self.world.disk().meta(&path).map(|meta| meta.identity).ok() {
            self.show_alive(config, &path).await;
        }
    }
}

/// Whether a daemon looks after a config; needs no daemon to answer.
pub fn running<D: Disk>(disk: &D, config: &Path, state: Option<&Path>) -> Running {
    let Ok(real) = disk.resolve(config) else { return Running::Unknown };
    let path = store::config_file(&real, state, "alive");
    // Somebody else who asks has it alone for a moment; a daemon has it for good.
    for _ in 0..100 {
        match disk.lock(&path, true) {
            Ok(Some(_)) => return Running::No,
            Ok(None) => std::thread::yield_now(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Running::No,
            Err(_) => return Running::Unknown,
        }
    }
    let since = disk.open(&path, Open::Read).and_then(|file| disk.read(&file, 64));
    let since = since.ok().and_then(|(bytes, _)| String::from_utf8(bytes).ok()?.trim().parse().ok());
    Running::Since(since.map(UnixSeconds))
}
