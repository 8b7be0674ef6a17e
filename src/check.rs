//! What `check` says: every problem of a config with its place, and what an
//! edit would do. Changes nothing.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use crate::daemon::Setup;
use crate::daemon::facts::{look, pretend_edit, references};
use crate::disk::{Disk, Place};
use crate::event::Kind;
use crate::file;
use crate::merge::{Change, changes};
use crate::settings::{self, Section};
use crate::store;
use crate::token::Secret;

/// Checks one config; the exit status is 0 where it is fine, and 2 where a person must change it.
pub fn check<D: Disk>(disk: &D, setup: &Setup, path: &Path, diff: bool, out: &mut impl Write) -> io::Result<u8> {
    let shown = path.display();
    let snapshot = match file::read(disk, path) {
        Ok(snapshot) => snapshot,
        Err(why) => {
            writeln!(out, "{shown}: {why}")?;
            return Ok(2);
        }
    };
    let settings = match settings::parse(&snapshot.text, &references(disk, setup, &snapshot)) {
        Ok(settings) => settings,
        Err(problem) => {
            writeln!(out, "{shown}: {problem}")?;
            return Ok(2);
        }
    };
    let mut worst = 0;
    for problem in &settings.problems {
        writeln!(out, "{shown}: {problem}")?;
        worst = 2;
    }
    for problem in &settings.channel_problems {
        // Only messages need it; the tokens do not.
        writeln!(out, "{shown}: {problem}")?;
    }
    if settings.sections.is_empty() {
        writeln!(out, "{shown}: there is no trakt: or mal: section, so there is nothing to keep valid")?;
        worst = 2;
    }
    for place in [disk.place(&snapshot.path)].into_iter().flatten() {
        for kind in traps(place) {
            let (_, sentence, todo) = kind.row();
            writeln!(out, "{shown}: {sentence}; {todo}")?;
        }
    }
    if setup.references.is_on("read-only-config") {
        let (_, sentence, todo) = Kind::ReadOnlyKometa.row();
        writeln!(out, "{shown}: {sentence}; {todo}")?;
    }
    for section in &settings.sections {
        let name = section.provider.name;
        if !section.is_used() {
            writeln!(out, "{shown}: line {}: {name}: nothing is filled in, so nothing is done for it", section.line)?;
            continue;
        }
        if section.force_refresh {
            let (_, sentence, todo) = Kind::ForceRefresh.row();
            writeln!(out, "{shown}: line {}: {name}: {sentence}; {todo}", section.line)?;
        }
        if section.client_id.is_none() {
            let (_, sentence, todo) = Kind::NoClientId.row();
            writeln!(out, "{shown}: line {}: {name}: {sentence}; {todo}", section.line)?;
            worst = 2;
        } else if section.refresh_token.is_none() && section.once.is_none() {
            let (_, sentence, todo) = Kind::NeedsAuthorization.row();
            // A daemon may have asked somebody already.
            let reports = look(disk, setup, path, crate::clock::now()).unwrap_or_default();
            let asked = reports.into_iter().find(|report| report.link.is_some() && report.provider() == name);
            match asked {
                Some(report) => {
                    let (sentence, link) = (report.sentence, report.link.unwrap_or_default());
                    writeln!(out, "{shown}: line {}: {name}: {sentence}; {}; {link}", section.line, report.detail)?;
                }
                None => writeln!(out, "{shown}: line {}: {name}: {sentence}; {todo}", section.line)?,
            }
            worst = 2;
        }
        match pretend_edit(&snapshot.text, section.provider) {
            Ok(new) => {
                let account = store::Place::new(&snapshot.path, setup.state.as_deref(), name);
                writeln!(
                    out,
                    "{shown}: line {}: {name}: the block can be edited; state in {}",
                    section.line,
                    account.state.display()
                )?;
                if diff {
                    write!(out, "{}", masked(&changed_lines(&snapshot.text, &new), section))?;
                }
            }
            Err(why) => {
                writeln!(out, "{shown}: {name}: {why}")?;
                worst = 2;
            }
        }
    }
    Ok(worst)
}

/// What is known to go wrong in a place.
fn traps(place: Place) -> Vec<Kind> {
    let mut traps = Vec::new();
    if place.silent.is_some() {
        traps.push(Kind::Polling);
    }
    if place.mount_point {
        traps.push(Kind::SingleFileMount);
    }
    traps
}

/// The lines that differ, as a unified diff without context.
#[must_use]
pub fn changed_lines(old: &str, new: &str) -> String {
    let [old, new] = [old, new].map(|text| text.split_inclusive('\n').collect::<Vec<_>>());
    let place = |lines: &Range<usize>| match lines.len() {
        0 => format!("{},0", lines.start),
        1 => (lines.start + 1).to_string(),
        count => format!("{},{count}", lines.start + 1),
    };
    let mut diff = String::new();
    for Change { from, to } in changes(&old, &new) {
        let _ = writeln!(diff, "@@ -{} +{} @@", place(&from), place(&to));
        let removed = old[from].iter().map(|line| ('-', line));
        for (sign, line) in removed.chain(new[to].iter().map(|line| ('+', line))) {
            let end = if line.ends_with('\n') { "" } else { "\n\\ No newline at end of file\n" };
            let _ = write!(diff, "{sign}{line}{end}");
        }
    }
    diff
}

/// Without the secrets of the section, however they are quoted.
fn masked(text: &str, section: &Section) -> String {
    let secrets =
        [&section.access_token, &section.refresh_token, &section.once, &section.client_id, &section.client_secret];
    secrets
        .into_iter()
        .flatten()
        .fold(text.to_owned(), |text, secret: &Secret| text.replace(secret.expose(), "********"))
}
