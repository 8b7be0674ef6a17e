//! Changes of the config files, as one coalesced pulse each.
//!
//! The folder is watched, not only the file: a file that is renamed over
//! would leave a watch on the old one blind. The mask is narrow: reads, and
//! writes that are not finished, wake nobody.

#![expect(clippy::disallowed_methods, reason = "a watch is on a path, not on a file that is read")]

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use notify::{Config, EventKindMask, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use crate::daemon::Wake;

/// Watches config files.
pub struct Watch {
    watcher: Option<RecommendedWatcher>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    names: Mutex<HashMap<PathBuf, Vec<usize>>>,
    /// The folders that are watched, with device and inode: a path may lead to another one later.
    folders: Mutex<HashMap<PathBuf, (u64, u64)>>,
    changed: Mutex<(BTreeSet<usize>, bool)>,
    pulse: Notify,
}

impl Watch {
    /// Watches nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let shared = Arc::new(Shared::default());
        let handler = Arc::clone(&shared);
        // MODIFY_NAME as well: a rename over the file is reported under that name alone.
        let mask =
            EventKindMask::CREATE | EventKindMask::REMOVE | EventKindMask::MODIFY_NAME | EventKindMask::ACCESS_CLOSE;
        let watcher = RecommendedWatcher::new(
            move |event: notify::Result<notify::Event>| handler.take(event),
            Config::default().with_event_kinds(mask).with_follow_symlinks(false),
        );
        Self { watcher: watcher.ok(), shared }
    }

    /// Watches a config file: its folder, that of the file that it links to, and `.env` beside it. Done
    /// again, it finds a folder that has taken the place of the one before.
    pub fn add(&mut self, config: usize, path: &Path) -> io::Result<()> {
        let path = std::path::absolute(path)?;
        let mut places = vec![path.clone()];
        places.extend(std::fs::canonicalize(&path).ok().filter(|real| *real != path));
        for place in places {
            let Some(folder) = place.parent().map(Path::to_owned) else { continue };
            let mut names = lock(&self.shared.names);
            for name in [folder.join(".env"), place.clone()] {
                // One is usual, and room for four costs each of thousands.
                let configs = names.entry(name).or_insert_with(|| Vec::with_capacity(1));
                // In order: thousands of configs in one folder share its `.env`.
                if let Err(at) = configs.binary_search(&config) {
                    configs.insert(at, config);
                }
            }
            drop(names);
            let identity = std::fs::metadata(&folder).map(|meta| (meta.dev(), meta.ino()))?;
            let before = lock(&self.shared.folders).insert(folder.clone(), identity);
            if before.is_some_and(|before| before != identity)
                && let Some(watcher) = &mut self.watcher
            {
                // The watch is still on the folder that was moved away, under the old path.
                let _ = watcher.unwatch(&folder);
            }
            if before != Some(identity) {
                self.start(&folder)?;
            }
            if crate::disk::Disk::place(&crate::disk::RealDisk, &place).is_ok_and(|found| found.mount_point) {
                // The folder never hears of a file that is mounted by itself.
                self.start(&place)?;
            }
        }
        Ok(())
    }

    fn start(&mut self, path: &Path) -> io::Result<()> {
        let watcher = self.watcher.as_mut().ok_or_else(|| io::Error::other("no watcher"))?;
        watcher.watch(path, RecursiveMode::NonRecursive).map_err(io::Error::other)
    }

    /// Waits for a change.
    pub async fn changed(&self) -> Wake {
        loop {
            {
                let mut changed = lock(&self.shared.changed);
                let (configs, all) = std::mem::take(&mut *changed);
                if all {
                    return Wake::AllChanged;
                }
                if !configs.is_empty() {
                    return Wake::Changed(configs.into_iter().collect());
                }
            }
            self.shared.pulse.notified().await;
        }
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self::new()
    }
}

impl Shared {
    fn take(&self, event: notify::Result<notify::Event>) {
        match event {
            Ok(event) if !event.need_rescan() => {
                let names = lock(&self.names);
                let configs: Vec<usize> =
                    event.paths.iter().filter_map(|path| names.get(path)).flatten().copied().collect();
                drop(names);
                // A folder that is itself moved or removed takes its configs along.
                let folders = lock(&self.folders);
                let a_folder = event.paths.iter().any(|path| folders.contains_key(path));
                drop(folders);
                if configs.is_empty() && !a_folder {
                    return;
                }
                let mut changed = lock(&self.changed);
                changed.0.extend(configs);
                changed.1 |= a_folder;
            }
            // Events were lost: anything may have changed.
            _ => lock(&self.changed).1 = true,
        }
        self.pulse.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
