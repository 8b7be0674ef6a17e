//! What is known of an account from the files alone: for the loop, and for
//! `status` and `check`, which need no daemon.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};

use super::Setup;
use super::spend::pretend_grant;
use crate::decision::{self, Decision, Facts, Kometa, Seen, Urgency, Waiting, sign_in};
use crate::disk::Disk;
use crate::file::{self, Snapshot};
use crate::health::invitation::{Invitation, invitation};
use crate::health::{self, Report};
use crate::journal::{History, Journal, Record};
use crate::provider::{Login, Provider};
use crate::settings::{self, References, Section};
use crate::splice::{self, Change, Edit};
use crate::store::{Place, Refused};
use crate::token::UnixSeconds;

/// How each account of a config is now, from the files alone.
///
/// # Errors
/// The file cannot be read or parsed; the sentence says why.
pub fn look<D: Disk>(disk: &D, setup: &Setup, path: &Path, now: UnixSeconds) -> Result<Vec<Report>, String> {
    let snapshot = file::read(disk, path).map_err(|why| why.to_string())?;
    let settings =
        settings::parse(&snapshot.text, &references(disk, setup, &snapshot)).map_err(|why| why.to_string())?;
    let report = |section: &Section| {
        let place = Place::new(&snapshot.path, setup.state.as_deref(), section.provider.name);
        let mut history = Journal::peek(disk, &place.journal)
            .map_err(|error| Refused::Journal { path: place.journal.clone(), error }.to_string())?;
        let facts = |history: &History, now: UnixSeconds| {
            let seen = seen(section, history);
            let kometa = kometa(disk, setup, &place, now);
            let facts = Facts { now, seen, history, kometa, urgency: Urgency::Usual };
            let decided = decision::decide(&facts);
            match sign_in::ask(&facts, setup.way(section.provider), Urgency::Usual, decided) {
                // The daemon does these; what holds until then is the wait.
                Decision::AskForCode { .. } | Decision::MakeLink => decided,
                Decision::Poll => Decision::Wait { until: Some(now), reason: Waiting::EnterCode },
                other => other,
            }
        };
        let mut decision = facts(&history, now);
        // What would have been done that long ago already, with the same file.
        let then = now.plus(-health::OVERDUE_S);
        let is_overdue = !matches!(decision, Decision::Wait { .. })
            && !matches!(facts(&history, then), Decision::Wait { .. })
            && snapshot.meta.modified_at <= then;
        if let (Decision::Adopt, Some(held)) = (decision, section.adopted(now, 0)) {
            history.apply(&Record::Held(held));
            decision = facts(&history, now);
        }
        let name = setup.names.account(path, section.provider);
        let mut report = health::report(name, now, section, &history, decision);
        if let Decision::Wait { reason, .. } = decision {
            let endpoint = setup.endpoints.iter().find(|endpoint| endpoint.provider == section.provider);
            let invitation = invitation(reason, &history, section.client_id.as_ref(), endpoint);
            if let Some(Invitation { detail, link }) = invitation {
                (report.detail, report.link) = (detail, Some(link));
            }
        }
        report.is_overdue = is_overdue;
        Ok(report)
    };
    settings.sections.iter().map(report).collect()
}

/// What Kometa does around now: its log beside the config, and its times.
pub(super) fn kometa<D: Disk>(disk: &D, setup: &Setup, place: &Place, now: UnixSeconds) -> Kometa {
    let log = disk.meta(&place.folder.join("logs/meta.log"));
    Kometa { active_at: log.ok().map(|meta| meta.modified_at), starts: setup.times.around(now, &setup.zone) }
}

/// The environment's references, and those of `.env` beside the config where any are used.
pub fn references<D: Disk>(disk: &D, setup: &Setup, snapshot: &Snapshot<D::Handle>) -> References {
    let mut references = setup.references.clone();
    if settings::has_reference(&snapshot.text) {
        let path = snapshot.path.with_file_name(".env");
        if let Ok(found) = disk.open(&path, crate::disk::Open::Read)
            && let Ok((bytes, _)) = disk.read(&found, file::SIZE_MAX_BYTES)
        {
            references.add_env_file(&String::from_utf8_lossy(&bytes));
        }
    }
    references
}

/// What an edit with a pretend grant would make of a text.
///
/// # Errors
/// The edit would touch more than the block.
pub fn pretend_edit(text: &str, provider: &'static Provider) -> Result<String, splice::Refused> {
    let grant = pretend_grant(crate::clock::now());
    let edit = Edit { provider, change: Change::Write(&grant), clear_once_key: false };
    splice::splice(text, &edit).map(|spliced| spliced.text)
}

/// What `decide` sees of a section: an address that was pasted before there was a link of ours is the
/// end of somebody else's, and not for us to exchange.
pub(super) fn seen(section: &Section, history: &History) -> Seen {
    let mut seen = section.seen();
    if matches!(section.provider.login, Login::PastedUrl { .. }) && history.sign_in.verifier.is_none() {
        seen.once = None;
    }
    seen
}

/// What the accounts of each config are called: `config.yml#trakt`, with as many folders in front of it as tell
/// its config from the others, `alice/config.yml#trakt`.
///
/// By path, and sorted: a place in this list costs each of thousands half of one in a map.
#[derive(Clone)]
pub struct Names(Vec<(Box<Path>, usize, Box<str>)>);

impl Names {
    /// The shortest names that tell these configs apart, all at once: there may be thousands.
    #[must_use]
    pub fn new(configs: &[PathBuf]) -> Self {
        let mut unnamed: BTreeSet<&Path> = configs.iter().map(PathBuf::as_path).collect();
        let all = unnamed.clone();
        let mut names = HashMap::new();
        for count in 1.. {
            let mut alike: HashMap<String, usize> = HashMap::new();
            for path in &all {
                *alike.entry(tail(path, count)).or_default() += 1;
            }
            unnamed.retain(|path| {
                let name = tail(path, count);
                let has_more = path.components().count() > count;
                let is_ambiguous = alike[&name] > 1 && has_more;
                if !is_ambiguous {
                    names.insert(*path, name.into_boxed_str());
                }
                is_ambiguous
            });
            if unnamed.is_empty() {
                break;
            }
        }
        // Of a path that is there twice, the first counts.
        let names = configs.iter().enumerate().filter_map(|(place, path)| {
            let name = names.remove(path.as_path())?;
            Some((path.as_path().into(), place, name))
        });
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names.shrink_to_fit();
        Self(names)
    }

    fn find(&self, path: &Path) -> Option<&(Box<Path>, usize, Box<str>)> {
        self.0.get(self.0.binary_search_by(|(known, ..)| (**known).cmp(path)).ok()?)
    }

    /// Which of the configs a path is.
    #[must_use]
    pub fn place(&self, path: &Path) -> Option<usize> {
        self.find(path).map(|(_, place, _)| *place)
    }

    /// An account's name.
    #[must_use]
    pub fn account(&self, path: &Path, provider: &Provider) -> String {
        let file = || path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let name = self.find(path).map_or_else(file, |(.., name)| Cow::Borrowed(&**name));
        format!("{name}#{}", provider.name)
    }
}

/// The last parts of a path, with slashes between.
fn tail(path: &Path, count: usize) -> String {
    let parts = path.components().rev().filter(|part| matches!(part, Component::Normal(_)));
    let mut parts: Vec<_> = parts.take(count).map(|part| part.as_os_str().to_string_lossy()).collect();
    parts.reverse();
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::TRAKT;

    /// The shortest name that no other config has; by itself a config is called by its file name alone.
    #[test]
    fn names() {
        for (configs, names) in [
            (&["/config/config.yml"][..], &["config.yml"][..]),
            (&["/a/config.yml", "/b/config.yml"], &["a/config.yml", "b/config.yml"]),
            (&["/a/config.yml", "/b/other.yml"], &["config.yml", "other.yml"]),
            (
                &["/a/x/config.yml", "/b/x/config.yml", "/c/config.yml"],
                &["a/x/config.yml", "b/x/config.yml", "c/config.yml"],
            ),
            (&["/config.yml", "/x/config.yml"], &["config.yml", "x/config.yml"]),
            (&["config.yml", "x/config.yml"], &["config.yml", "x/config.yml"]),
            (&["/a/config.yml", "/a/config.yml"], &["config.yml", "config.yml"]),
        ] {
            let configs: Vec<PathBuf> = configs.iter().map(PathBuf::from).collect();
            let all = Names::new(&configs);
            let found: Vec<String> = configs.iter().map(|path| all.account(path, &TRAKT)).collect();
            let expected: Vec<String> = names.iter().map(|name| format!("{name}#trakt")).collect();
            assert_eq!(found, expected);
        }
    }
}
