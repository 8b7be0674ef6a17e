//! Events in, messages out: asks the policy, remembers in the state folder what
//! was told, and hands each message to every channel.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{debug, info, warn};

use super::channel::Channel;
use super::kometa;
use super::notice::{Notice, Saying};
use super::policy::{self, Told};
use super::send::{Outbox, Way};
use crate::clock;
use crate::daemon::{Setup, facts};
use crate::disk::{Disk, Open, RealDisk};
use crate::event::Event;
use crate::file;
use crate::provider::PROVIDERS;
use crate::refresh::Https;
use crate::store;
use crate::token::UnixSeconds;
use crate::yaml::{Document, Problem};

/// More problems than this are not there.
const TOLD_MAX_BYTES: u64 = 256 * 1024;

/// Tells people.
pub struct Announcer {
    setup: Arc<Setup>,
    outbox: Outbox,
    /// The ways that the options name.
    given: Vec<Way>,
    kometa: bool,
    /// By their place in the setup; of most there is nothing to remember, and there may be thousands.
    configs: BTreeMap<usize, Config>,
}

#[derive(Default)]
struct Config {
    told: Told,
    /// The channels that Kometa had at the last look at a file that could be read.
    kometa: Vec<Channel>,
}

impl Announcer {
    /// Where `given` is empty, Kometa's own webhooks are used, if they may be.
    #[must_use]
    pub fn new(setup: Arc<Setup>, https: Https, given: Vec<Way>, may_use_kometa: bool) -> Self {
        let kometa = given.is_empty() && may_use_kometa;
        let mut configs = BTreeMap::new();
        for (index, path) in setup.configs.iter().enumerate() {
            let Ok(path) = told_path(&setup, path) else { continue };
            // What a process that was killed has left.
            let _ = RealDisk.remove(&new_beside(&path));
            let told = read(&path);
            if !told.problems().is_empty() {
                configs.insert(index, Config { told, kometa: Vec::new() });
            }
        }
        Self { setup, outbox: Outbox::new(https), given, kometa, configs }
    }

    /// Remembers where Kometa tells of errors: the config may be unreadable when somebody is to be told.
    pub fn hear(&mut self, path: &Path, channels: &[Channel]) {
        let Some(index) = self.setup.names.place(path).filter(|_| self.kometa) else { return };
        let known = self.configs.get(&index).map_or(&[][..], |config| &config.kometa);
        if known != channels {
            self.configs.entry(index).or_default().kometa = channels.to_vec();
        }
    }

    /// Takes an event in.
    pub fn take(&mut self, event: &Event) {
        let Some(index) = self.config_of(event) else { return };
        let config = self.configs.entry(index).or_default();
        let before = config.told.clone();
        let notices = config.told.take(clock::now(), event);
        let is_news = config.told != before;
        let is_needed = !config.told.problems().is_empty() || !config.kometa.is_empty();
        self.tell(index, notices, is_news);
        if !is_needed {
            self.configs.remove(&index);
        }
    }

    /// Tells what is to be told by now because of the time alone.
    pub fn tick(&mut self) {
        let now = clock::now();
        let due = |config: &Config| config.told.next_at().is_some_and(|at| at <= now);
        let due: Vec<usize> = self.configs.iter().filter(|(_, config)| due(config)).map(|(index, _)| *index).collect();
        for index in due {
            let notices = self.configs.get_mut(&index).map(|config| config.told.due(now)).unwrap_or_default();
            self.tell(index, notices, true);
        }
    }

    /// When there is something to tell because of the time alone.
    #[must_use]
    pub fn next_at(&self) -> Option<UnixSeconds> {
        self.configs.values().filter_map(|config| config.told.next_at()).min()
    }

    /// Gives messages that are under way a short moment. What reached nobody is told at the next start, where it
    /// is still so.
    pub async fn finish(&mut self) {
        for notice in self.outbox.finish().await {
            warn!(about = notice.account, event = notice.event, "a message reached nobody before the stop");
            let index = self.setup.configs.iter().position(|path| path.display().to_string() == notice.path);
            let Some(index) = index.filter(|_| notice.saying != Saying::Recovered) else { continue };
            let Some(config) = self.configs.get_mut(&index) else { continue };
            config.told.unsay(&notice);
            if let Err(error) = save(&self.setup, index, &config.told) {
                debug!(why = %error, "what was told cannot be kept");
            }
        }
    }

    /// The config that an event is about: the one it names, or the one that its subject means.
    fn config_of(&self, event: &Event) -> Option<usize> {
        if let Some(path) = &event.config {
            return self.setup.names.place(path);
        }
        let is_meant = |path: &PathBuf| Path::new(&event.subject) == path || self.is_account_of(path, &event.subject);
        self.setup.configs.iter().position(is_meant)
    }

    fn is_account_of(&self, path: &Path, subject: &str) -> bool {
        PROVIDERS.into_iter().any(|provider| self.setup.names.account(path, provider) == subject)
    }

    fn tell(&mut self, index: usize, notices: Vec<Notice>, is_news: bool) {
        if is_news {
            // What cannot be kept is told again after the next start, at worst.
            if let Some(config) = self.configs.get(&index)
                && let Err(error) = save(&self.setup, index, &config.told)
            {
                debug!(why = %error, "what was told cannot be kept");
            }
        }
        if notices.is_empty() {
            return;
        }
        let ways = self.ways(index);
        for mut notice in notices {
            notice.path = self.setup.configs[index].display().to_string();
            if ways.is_empty() {
                info!(about = notice.account, "nobody is told: there is no --notify, and Kometa has no webhooks");
            }
            self.outbox.send(&ways, notice);
        }
    }

    fn ways(&self, index: usize) -> Vec<Way> {
        if !self.kometa {
            return self.given.clone();
        }
        let channels = self.configs.get(&index).map_or(&[][..], |config| &config.kometa);
        channels.iter().cloned().map(Way::Channel).collect()
    }
}

/// The channels that Kometa has for errors in a config, and what is wrong with them; none where the file
/// cannot be read.
#[must_use]
pub fn kometa_channels(setup: &Setup, path: &Path) -> Option<(Vec<Channel>, Vec<Problem>)> {
    let snapshot = file::read(&RealDisk, path).ok()?;
    let references = facts::references(&RealDisk, setup, &snapshot);
    let document = Document::parse(&snapshot.text).ok()?;
    Some(kometa::channels(&document, &references))
}

/// What was told about a config.
#[must_use]
pub fn load(setup: &Setup, path: &Path) -> Told {
    told_path(setup, path).map_or_else(|_| Told::default(), |path| read(&path))
}

fn read(path: &Path) -> Told {
    let text = RealDisk.open(path, Open::Read).and_then(|file| RealDisk.read(&file, TOLD_MAX_BYTES));
    text.map_or_else(|_| Told::default(), |(bytes, _)| Told::from_json(&String::from_utf8_lossy(&bytes)))
}

fn told_path(setup: &Setup, path: &Path) -> io::Result<PathBuf> {
    Ok(store::config_file(&RealDisk.resolve(path)?, setup.state.as_deref(), "told"))
}

/// A new file in the place of the old one, for us alone.
fn save(setup: &Setup, index: usize, told: &Told) -> io::Result<()> {
    let path = told_path(setup, &setup.configs[index])?;
    if told.problems().is_empty() {
        return match RealDisk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    if told.problems().iter().all(policy::Problem::is_of_file) && RealDisk.meta(folder).is_err() {
        // A wrong path gets no folder beside it.
        return Ok(());
    }
    store::ensure_state(&RealDisk, folder).map_err(|error| io::Error::other(error.to_string()))?;
    let new = new_beside(&path);
    let _ = RealDisk.remove(&new);
    let file = RealDisk.open(&new, Open::CreateNew)?;
    let written = RealDisk.write_at(&file, told.to_json().as_bytes(), 0).and_then(|()| RealDisk.rename(&new, &path));
    if written.is_err() {
        let _ = RealDisk.remove(&new);
    }
    written
}

fn new_beside(told: &Path) -> PathBuf {
    told.with_extension("new")
}
