//! From a grant to the file: reserve, commit, recover.
//!
//! Invariants:
//! - [`reserve`] proves that an answer can be kept before anything is spent.
//! - The first file operation after an answer is one write and one sync of the
//!   journal; the config file comes second.
//! - The config file is at every moment wholly old or wholly new, and an edit
//!   that somebody else made meanwhile is never overwritten, nor built upon
//!   before it has been seen at rest.
//!
//! This file never talks to a network, and never decides whose pair is right:
//! the caller's `make` looks at the text of the moment and says what to write.

use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, Meta, Open, explain};
use crate::file::{self, Snapshot, Unreadable};
use crate::journal::{Held, Journal, Record};
use crate::provider::PROVIDERS;
use crate::splice;
use crate::token::Fingerprint;

/// Where an account's things are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The config file, links followed.
    pub config: PathBuf,
    /// Its folder.
    pub folder: PathBuf,
    /// The state folder.
    pub state: PathBuf,
    /// The account's journal in it.
    pub journal: PathBuf,
    /// The copy that an edit in place can be finished from.
    pub redo: PathBuf,
    /// A new text while it is written: whatever has this name after a crash is worth nothing.
    pub temp: PathBuf,
    /// A whole text that is to change places with the config's, or what came out when it did.
    pub swap: PathBuf,
}

/// The state folder's name beside the config.
pub const STATE_FOLDER: &str = ".kometa-authd";

impl Place {
    /// The places of an account. `config` has its links followed; `state` is beside it unless given,
    /// and then its file names say which config they belong to.
    #[must_use]
    pub fn new(config: &Path, state: Option<&Path>, provider: &str) -> Self {
        let folder = config.parent().unwrap_or(Path::new("/")).to_owned();
        let name = config.file_name().unwrap_or(OsStr::new("config.yml")).to_string_lossy();
        let stem = if state.is_none() {
            format!("{name}#{provider}")
        } else {
            let which = Fingerprint::of_path(config).to_string();
            format!("{}-{name}#{provider}", &which[..8])
        };
        let state = state.map_or_else(|| folder.join(STATE_FOLDER), Path::to_owned);
        Self {
            config: config.to_owned(),
            journal: state.join(format!("{stem}.journal")),
            redo: state.join(format!("{stem}.redo")),
            temp: folder.join(format!(".{name}.kometa-authd.tmp")),
            swap: folder.join(format!(".{name}.kometa-authd.swap")),
            folder,
            state,
        }
    }

    /// The journals of all the config's accounts.
    fn journals(&self) -> impl Iterator<Item = PathBuf> {
        let name = self.journal.file_name().unwrap_or_default().to_string_lossy();
        let config = name.rsplit_once('#').map_or("", |(config, _)| config).to_owned();
        PROVIDERS.into_iter().map(move |provider| self.state.join(format!("{config}#{}.journal", provider.name)))
    }

    /// Whether something was left behind by a crash.
    #[must_use]
    pub fn has_leftovers<D: Disk>(&self, disk: &D) -> bool {
        [&self.temp, &self.swap, &self.redo].into_iter().any(|path| disk.meta(path).is_ok())
    }
}

/// Where a config's own things are in the state folder: `which` is `told` or `alive`.
#[must_use]
pub fn config_file(config: &Path, state: Option<&Path>, which: &str) -> PathBuf {
    Place::new(config, state, which).journal.with_extension("")
}

/// Why something was not done. Nothing is lost by it: what was not sent is not spent, and what was
/// not written is in the journal.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The state folder.
    #[error("state folder {}: {why}", path.display())]
    State {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The journal.
    #[error("journal {}: {}", path.display(), explain(error))]
    Journal {
        /// The file.
        path: PathBuf,
        /// What failed.
        error: io::Error,
    },
    /// The config's folder, or the file for writing.
    #[error("{}: {}", path.display(), explain(error))]
    Folder {
        /// The file or folder.
        path: PathBuf,
        /// What failed.
        error: io::Error,
    },
    /// The file cannot be read.
    #[error("{0}")]
    Unreadable(#[from] Unreadable),
    /// The edit would touch more than the block.
    #[error("{0}")]
    Edit(#[from] splice::Refused),
    /// Somebody wrote meanwhile: what they wrote is looked at first.
    #[error("somebody else is writing the file")]
    Changed,
    /// The file is not what it should be for this, and will be looked at again.
    #[error("{0}")]
    NotNow(String),
}

/// The proof that an answer can be kept: an open journal with room, and a folder that takes the file.
pub struct Reservation<H> {
    /// The journal.
    pub journal: Journal<H>,
}

/// Makes sure of the state folder: ours alone, and made only where it is missing.
pub fn ensure_state<D: Disk>(disk: &D, path: &Path) -> Result<(), Refused> {
    let refused = |why: String| Refused::State { path: path.to_owned(), why };
    let meta = match disk.meta(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let cannot = |error: io::Error| match error.kind() {
                // Of the disk, and over when that is: nothing of the folder itself.
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem => {
                    Refused::Folder { path: path.to_owned(), error }
                }
                io::ErrorKind::NotFound => {
                    refused("cannot be made: the folder that it is to be in does not exist".to_owned())
                }
                _ => refused(format!("cannot be made: {}", explain(&error))),
            };
            disk.create_folder(path).map_err(cannot)?;
            // Or a power cut takes the folder, with the journal that is synced in it.
            let _ = disk.sync_folder(path.parent().unwrap_or(path));
            disk.meta(path)
        }
        found => found,
    };
    let meta = meta.map_err(|error| refused(explain(&error)))?;
    if !meta.is_folder() {
        return Err(refused("it is not a folder".to_owned()));
    }
    // Shares and FUSE make the owner and the mode up; what is there is as safe as the config beside it.
    if disk.place(path).is_ok_and(|place| place.silent.is_some()) {
        return Ok(());
    }
    if meta.owner.0 != disk.user() {
        return Err(refused(format!(
            "it belongs to user {}, and this is user {}; give it away with `chown -R {}`, or name another with --state-dir",
            meta.owner.0,
            disk.user(),
            disk.user()
        )));
    }
    if meta.mode & 0o077 != 0 {
        return Err(refused("others may look into it, and it holds tokens; `chmod 700` it".to_owned()));
    }
    Ok(())
}

/// Opens an account's journal for writing.
pub fn open_journal<D: Disk>(disk: &D, place: &Place) -> Result<Journal<D::Handle>, Refused> {
    ensure_state(disk, &place.state)?;
    Journal::open(disk, &place.journal).map_err(|error| Refused::Journal { path: place.journal.clone(), error })
}

/// Proves that the answer to a request can be kept, before it is sent: the journal has the intent and
/// room for the grant, the file can be edited, and its folder takes a file of the new size.
///
/// `record` says what is about to be sent; `make` is the edit with a grant like the one that is expected.
pub fn reserve<D: Disk>(
    disk: &D,
    place: &Place,
    snapshot: &Snapshot<D::Handle>,
    mut journal: Journal<D::Handle>,
    record: &Record,
    make: &Make,
) -> Result<Reservation<D::Handle>, Refused> {
    let new = make(&snapshot.text)?.unwrap_or_default();
    // Real tokens may be longer than the pretend ones.
    let size = snapshot.text.len().max(new.len()) + crate::journal::RESERVED_BYTES;
    try_folder(disk, place, snapshot, size)?;
    journal
        .reserve(disk, record, &place.state)
        .map_err(|error| Refused::Journal { path: place.journal.clone(), error })?;
    Ok(Reservation { journal })
}

/// The first thing that happens to a grant: one write and one sync.
pub fn keep<D: Disk>(
    disk: &D,
    place: &Place,
    reservation: &mut Reservation<D::Handle>,
    held: &Held,
) -> Result<(), Refused> {
    reservation
        .journal
        .add(disk, &Record::Held(held.clone()))
        .map_err(|error| Refused::Journal { path: place.journal.clone(), error })
}

/// What is to be written, given the text of the moment; `None` where the text is not to be changed.
pub type Make<'a> = dyn Fn(&str) -> Result<Option<String>, Refused> + 'a;

/// A file that stood in the config's place: whoever has it open still writes into it.
pub struct Orphan<H> {
    /// What was known of it.
    pub text: String,
    /// What else it was seen to hold since; nothing where that was no text.
    pub found: Vec<String>,
    /// The file.
    pub handle: H,
}

/// Puts an edit of the text with the fingerprint `seen` in the file's place, verified by `make`, and
/// takes it back where somebody else was faster. The new fingerprint, or `None` where there was
/// nothing to change.
///
/// Every file that is taken out of the config's place, for good or for a moment, is added to `orphans`:
/// somebody may have it open, or may have just made it.
///
/// `note` gets a record for the journal before the file is touched. It may be lost: it only helps to
/// tell our own leftovers from somebody's edit.
pub fn replace<D: Disk>(
    disk: &D,
    place: &Place,
    seen: Fingerprint,
    orphans: &mut Vec<Orphan<D::Handle>>,
    note: &mut dyn FnMut(&Record),
    make: &Make,
) -> Result<Option<Fingerprint>, Refused> {
    let mut way = Way::Exchange;
    loop {
        let base = file::read(disk, &place.config)?;
        if base.fingerprint != seen {
            return Err(Refused::Changed);
        }
        let Some(new) = make(&base.text)? else {
            return Ok(None);
        };
        if new == base.text {
            // Whoever put it there may have been stopped before it was on the medium.
            let failed = |error| Refused::Folder { path: place.folder.clone(), error };
            disk.sync(&base.handle).and_then(|()| disk.sync_folder(&place.folder)).map_err(failed)?;
            return Ok(None);
        }
        if base.meta.links != 1 || disk.place(&place.config).is_ok_and(|found| found.mount_point) {
            // A mount point cannot be renamed over, and a hard link would be cut in two.
            way = Way::InPlace;
        }
        let after = Fingerprint::of(new.as_bytes());
        note(&Record::Edit(base.fingerprint, after));
        let step = match way {
            Way::InPlace => in_place(disk, place, &base, &new)?,
            Way::Exchange | Way::Rename => by_rename(disk, place, base, &new, way, orphans)?,
        };
        match step {
            Step::Done => return Ok(Some(after)),
            Step::Changed => return Err(Refused::Changed),
            // Each leads on to the next, and none back.
            Step::Use(other) => way = other,
        }
    }
}

/// Keeps a text that could not go into the config in the state folder; the path of it.
pub fn keep_aside<D: Disk>(disk: &D, place: &Place, text: &str) -> Result<PathBuf, Refused> {
    ensure_state(disk, &place.state)?;
    let path = place.redo.with_extension(format!("{}.edit", Fingerprint::of(text.as_bytes())));
    let write = || {
        let file = create(disk, &path)?;
        disk.write_at(&file, text.as_bytes(), 0)?;
        disk.sync(&file)
    };
    write().map_err(|error| Refused::Folder { path: path.clone(), error })?;
    Ok(path)
}

/// Two texts of the largest size, and the line before them.
const REDO_MAX_BYTES: u64 = 1 << 26;

/// Finishes or clears away what a crash left behind. To be called under the lock, before anything else.
pub fn recover<D: Disk>(disk: &D, place: &Place) -> Result<(), Refused> {
    let failed = |path: &Path, error| Refused::Folder { path: path.to_owned(), error };
    if let Ok(redo) = disk.open(&place.redo, Open::Read) {
        let (bytes, _) = disk.read(&redo, REDO_MAX_BYTES).map_err(|error| failed(&place.redo, error))?;
        if let Some((old, new)) = parse_redo(&bytes) {
            let config = disk.open(&place.config, Open::Write).map_err(|error| failed(&place.config, error))?;
            mend(disk, &config, (old, new), new).map_err(|error| failed(&place.config, error))?;
        }
        disk.remove(&place.redo).map_err(|error| failed(&place.redo, error))?;
    }
    // It may be half a text, or a trial.
    if disk.meta(&place.temp).is_ok() {
        disk.remove(&place.temp).map_err(|error| failed(&place.temp, error))?;
    }
    let Ok(leftover) = disk.open(&place.swap, Open::Read) else {
        return Ok(());
    };
    // It may have been any account's edit.
    let edits: Vec<_> = place.journals().filter_map(|path| Journal::peek(disk, &path).ok()?.edit).collect();
    let leftover = file::read_handle(disk, place.swap.clone(), leftover);
    if let (Ok(leftover), Ok(config)) = (leftover, file::read(disk, &place.config))
        && edits.iter().any(|(_, after)| config.fingerprint == *after)
        && edits.iter().all(|(before, after)| ![before, after].contains(&&leftover.fingerprint))
    {
        // We were stopped between the exchange and the look at what came out: an edit that
        // somebody else had just made. It goes back; ours is made again on top of it.
        disk.exchange(&place.swap, &place.config).map_err(|error| failed(&place.config, error))?;
    }
    disk.remove(&place.swap).map_err(|error| failed(&place.swap, error))?;
    disk.sync_folder(&place.folder).map_err(|error| failed(&place.folder, error))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Exchange,
    Rename,
    InPlace,
}

enum Step {
    Done,
    /// The file changed meanwhile: read it again.
    Changed,
    /// The file system does not do it this way.
    Use(Way),
}

/// A folder that takes a new file of that size, or a file that can be written in place.
fn try_folder<D: Disk>(disk: &D, place: &Place, snapshot: &Snapshot<D::Handle>, size: usize) -> Result<(), Refused> {
    let failed = |path: &Path, error| Refused::Folder { path: path.to_owned(), error };
    let in_place = || {
        disk.open(&place.config, Open::Write).map_err(|error| failed(&place.config, error))?;
        ensure_state(disk, &place.state)?;
        let attempt = trial(disk, &place.redo, &vec![b'\n'; size + snapshot.text.len()]);
        attempt.map_err(|error| failed(&place.state, error))
    };
    if snapshot.meta.links != 1 || disk.place(&place.config).is_ok_and(|found| found.mount_point) {
        return in_place();
    }
    match trial(disk, &place.temp, &vec![b'\n'; size]) {
        Ok(()) => Ok(()),
        Err(error) if asks_for_in_place(&error) => in_place(),
        Err(error) => Err(failed(&place.folder, error)),
    }
}

/// Writes a file of some size and removes it again.
fn trial<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = create(disk, path)?;
    let written = disk.write_at(&file, bytes, 0).and_then(|()| disk.sync_data(&file));
    let removed = disk.remove(path);
    written.and(removed)
}

/// Makes a file of ours anew; whatever has its name is a leftover.
fn create<D: Disk>(disk: &D, path: &Path) -> io::Result<D::Handle> {
    match disk.open(path, Open::CreateNew) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(path)?;
            disk.open(path, Open::CreateNew)
        }
        done => done,
    }
}

/// Errors that say "not by a new file in this folder", while the file itself may be writable.
fn asks_for_in_place(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::ACCESS | Errno::PERM | Errno::BUSY | Errno::XDEV | Errno::ROFS))
}

fn by_rename<D: Disk>(
    disk: &D,
    place: &Place,
    base: Snapshot<D::Handle>,
    new: &str,
    way: Way,
    orphans: &mut Vec<Orphan<D::Handle>>,
) -> Result<Step, Refused> {
    let mut name = Some(&place.temp);
    let step = rename_steps(disk, place, &base, new, way, &mut name, orphans);
    // It is gone after a rename, holds the old text after an exchange, and the new one after a failure.
    let removed = name.map_or(Ok(()), |name| disk.remove(name));
    if matches!(step, Ok(Step::Done)) || name.is_none() {
        orphans.push(Orphan { text: base.text, found: Vec::new(), handle: base.handle });
    }
    match step {
        Ok(Step::Done) => {
            if way == Way::Exchange {
                removed.map_err(|error| Refused::Folder { path: place.swap.clone(), error })?;
            }
            disk.sync_folder(&place.folder).map_err(|error| Refused::Folder { path: place.folder.clone(), error })?;
            Ok(Step::Done)
        }
        Ok(step) => Ok(step),
        Err(error) if name.is_some() && asks_for_in_place(&error) => Ok(Step::Use(Way::InPlace)),
        Err(error) => Err(Refused::Folder { path: name.unwrap_or(&place.swap).clone(), error }),
    }
}

/// `name` is the one that the new text has at the end of it, or what came out in exchange; `None` where that could
/// not be looked at. It may be somebody's edit then, and `recover` finds it.
fn rename_steps<'p, D: Disk>(
    disk: &D,
    place: &'p Place,
    base: &Snapshot<D::Handle>,
    new: &str,
    way: Way,
    name: &mut Option<&'p PathBuf>,
    orphans: &mut Vec<Orphan<D::Handle>>,
) -> io::Result<Step> {
    use rustix::io::Errno;
    let temp = create(disk, &place.temp)?;
    disk.write_at(&temp, new.as_bytes(), 0)?;
    if disk.copy_attributes(&base.handle, &temp).is_err() {
        // Owner, mode and ACL are the user's: a file that cannot have them does not take the place.
        return Ok(Step::Use(Way::InPlace));
    }
    disk.sync(&temp)?;
    if way == Way::Exchange {
        // Only a whole text has this name, so that after a crash no half of one can be taken for what came out.
        disk.rename(&place.temp, &place.swap)?;
        *name = Some(&place.swap);
    }
    if !is_still(disk, &place.config, base) {
        return Ok(Step::Changed);
    }
    if way == Way::Rename {
        disk.rename(&place.temp, &place.config)?;
        return Ok(Step::Done);
    }
    match disk.exchange(&place.swap, &place.config) {
        Ok(()) => {}
        Err(error) => {
            let errno = error.raw_os_error().map(Errno::from_raw_os_error);
            return match errno {
                Some(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Ok(Step::Use(Way::Rename)),
                _ => Err(error),
            };
        }
    }
    *name = None;
    let came_out = take_out(disk, &place.swap, &base.text);
    let is_same = |(orphan, meta): &(Orphan<_>, Meta)| orphan.found.is_empty() && meta.identity == base.meta.identity;
    if came_out.as_ref().is_ok_and(is_same) {
        *name = Some(&place.swap);
        return Ok(Step::Done);
    }
    // Somebody was faster by a moment: what came out is their edit, and it goes back at once, unless there
    // is a still newer one. Then what comes out is ours, or what a third made of it.
    let ours = disk.read(&temp, 0)?.1.identity;
    let goes_back = disk.meta(&place.config).is_ok_and(|meta| meta.identity == ours);
    let went_back = goes_back && disk.exchange(&place.swap, &place.config).is_ok();
    let (mut theirs, _) = came_out?;
    // Whoever read ours in between will write over what is finished here only now.
    look_again(disk, &mut theirs)?;
    orphans.push(theirs);
    if went_back {
        orphans.push(take_out(disk, &place.swap, new)?.0);
    }
    *name = Some(&place.swap);
    Ok(Step::Changed)
}

/// What a swap brought out, and which file that is.
fn take_out<D: Disk>(disk: &D, path: &Path, known: &str) -> io::Result<(Orphan<D::Handle>, Meta)> {
    let handle = disk.open(path, Open::Read)?;
    let mut orphan = Orphan { text: known.to_owned(), found: Vec::new(), handle };
    let meta = look_again(disk, &mut orphan)?;
    Ok((orphan, meta))
}

/// Notes what such a file holds by now.
fn look_again<D: Disk>(disk: &D, orphan: &mut Orphan<D::Handle>) -> io::Result<Meta> {
    let (bytes, meta) = disk.read(&orphan.handle, file::SIZE_MAX_BYTES)?;
    if bytes != orphan.found.last().unwrap_or(&orphan.text).as_bytes() {
        orphan.found.push(String::from_utf8(bytes).unwrap_or_default());
    }
    Ok(meta)
}

/// Whether a path leads to the very file and text that an edit was made from. The path last: what is written
/// into the file from now on is found in it later, and a file that takes its place after a rename is not.
fn is_still<D: Disk>(disk: &D, path: &Path, base: &Snapshot<D::Handle>) -> bool {
    disk.read(&base.handle, file::SIZE_MAX_BYTES).is_ok_and(|(bytes, _)| Fingerprint::of(&bytes) == base.fingerprint)
        && disk.meta(path).is_ok_and(|meta| meta.identity == base.meta.identity)
}

/// Writes the file where it is: both texts are in the state folder first, so that a torn write can be
/// finished, and the file is compared before and after.
///
/// No file can be compared and written in one step. What somebody writes in the moment between
/// the two is written over where it differs from what we read, and the comparison afterwards finds it.
fn in_place<D: Disk>(disk: &D, place: &Place, base: &Snapshot<D::Handle>, new: &str) -> Result<Step, Refused> {
    let failed = |path: &Path, error| Refused::Folder { path: path.to_owned(), error };
    let (old, new) = (base.text.as_bytes(), new.as_bytes());
    let config = disk.open(&place.config, Open::Write).map_err(|error| failed(&place.config, error))?;
    let prepare = || {
        let redo = create(disk, &place.redo)?;
        disk.write_at(&redo, &redo_bytes(old, new), 0)?;
        disk.sync(&redo)?;
        disk.sync_folder(&place.state)
    };
    prepare().map_err(|error| failed(&place.redo, error))?;
    let differs = difference(old, new);
    let here = disk.meta(&place.config).map(|meta| meta.identity);
    // Last of all, and nothing but the write after it.
    let same = here.is_ok_and(|here| {
        let found = disk.read(&config, file::SIZE_MAX_BYTES);
        found.is_ok_and(|(found, meta)| meta.identity == here && here == base.meta.identity && found == old)
    });
    if !same {
        disk.remove(&place.redo).map_err(|error| failed(&place.redo, error))?;
        return Ok(Step::Changed);
    }
    if let Err(error) = overwrite(disk, &config, old.len(), new, differs) {
        // Half of it may be there. Where that cannot be taken back now, `recover` goes through with it.
        if mend(disk, &config, (old, new), old).is_ok() {
            let _ = disk.remove(&place.redo);
        }
        return Err(failed(&place.config, error));
    }
    let (found, _) = disk.read(&config, file::SIZE_MAX_BYTES).map_err(|error| failed(&place.config, error))?;
    disk.remove(&place.redo).map_err(|error| failed(&place.redo, error))?;
    Ok(if found == new { Step::Done } else { Step::Changed })
}

/// Makes one of two texts, on the medium, of a file that a write of the one over the other tore; what is neither, nor
/// a mixture of them, is somebody's edit and stays.
fn mend<D: Disk>(disk: &D, file: &D::Handle, (old, new): (&[u8], &[u8]), wanted: &[u8]) -> io::Result<()> {
    let (found, _) = disk.read(file, file::SIZE_MAX_BYTES)?;
    if found == old || found == new {
        return disk.sync(file);
    }
    if !is_torn(&found, old, new) {
        return Ok(());
    }
    overwrite(disk, file, found.len(), wanted, difference(&found, wanted))
}

/// Makes `new` of a file of some size that differs from it in that range alone.
fn overwrite<D: Disk>(
    disk: &D,
    file: &D::Handle,
    old_size: usize,
    new: &[u8],
    differs: Range<usize>,
) -> io::Result<()> {
    let from = differs.start as u64;
    disk.write_at(file, &new[differs], from)?;
    if new.len() < old_size {
        disk.set_size(file, new.len() as u64)?;
    }
    disk.sync(file)
}

/// The bytes of `new` that do not stand in the same place of `old`.
fn difference(old: &[u8], new: &[u8]) -> Range<usize> {
    let from = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let same_end = old[from..].iter().rev().zip(new[from..].iter().rev()).take_while(|(old, new)| old == new).count();
    from..new.len() - if old.len() == new.len() { same_end } else { 0 }
}

fn redo_bytes(old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{} {} {}\n", Fingerprint::of(&[old, new].concat()), old.len(), new.len()).into_bytes();
    bytes.extend_from_slice(old);
    bytes.extend_from_slice(new);
    bytes
}

/// The two texts of a redo copy, where it is whole; one that is torn was never relied on.
fn parse_redo(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let header_end = bytes.iter().position(|byte| *byte == b'\n')?;
    let mut header = std::str::from_utf8(&bytes[..header_end]).ok()?.split(' ');
    let (checksum, old, new) = (header.next()?, header.next()?.parse().ok()?, header.next()?.parse::<usize>().ok()?);
    let (old, rest) = bytes[header_end + 1..].split_at_checked(old)?;
    let texts_match = rest.len() == new && Fingerprint::parse(checksum)? == Fingerprint::of(&bytes[header_end + 1..]);
    texts_match.then_some((old, rest))
}

/// Whether a file is what a write of `new` over `old` leaves when it is cut off: a start of the one and
/// the end of the other, or some blocks of each.
fn is_torn(found: &[u8], old: &[u8], new: &[u8]) -> bool {
    /// No medium tears less than a sector.
    const SECTOR_BYTES: usize = 512;
    let same_at = |other: &[u8], from: usize, to: usize| {
        other.get(from..to.min(other.len())).is_some_and(|piece| piece == &found[from..to]) || from == to
    };
    if found.len() > old.len().max(new.len()) {
        return false;
    }
    let common = found.iter().zip(new).take_while(|(a, b)| a == b).count();
    if found.get(common..) == old.get(common..) {
        return true;
    }
    (0..found.len()).step_by(SECTOR_BYTES).all(|from| {
        let to = (from + SECTOR_BYTES).min(found.len());
        same_at(old, from, to) || same_at(new, from, to)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cut-off write is known by its two halves; a person's edit is not taken for one.
    #[test]
    fn torn_or_edited() {
        let old: Vec<u8> = (0..2000_u32).map(|n| b'a' + (n % 23) as u8).collect();
        let new: Vec<u8> = (0..1900_u32).map(|n| b'A' + (n % 19) as u8).collect();
        for cut in [0, 1, 700, 1899, 1900] {
            let torn = [&new[..cut], &old[cut..]].concat();
            assert!(is_torn(&torn, &old, &new), "cut at {cut}");
        }
        let blocks = [&old[..512], &new[512..1024], &old[1024..]].concat();
        assert!(is_torn(&blocks, &old, &new));
        let mut edited = old.clone();
        edited[5] = b'!';
        assert!(!is_torn(&edited, &old, &new));
        assert!(!is_torn(b"plex:\n", &old, &new));
    }

    /// A redo copy says whether it is whole.
    #[test]
    fn redo_round_trip() {
        let bytes = redo_bytes(b"old\n", b"newer\n");
        assert_eq!(parse_redo(&bytes), Some((&b"old\n"[..], &b"newer\n"[..])));
        for cut in 0..bytes.len() {
            assert_eq!(parse_redo(&bytes[..cut]), None, "cut at {cut}");
        }
        let torn = [&bytes[..bytes.len() - 1], b"!"].concat();
        assert_eq!(parse_redo(&torn), None, "of the right length");
    }
}
