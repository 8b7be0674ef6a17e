//! A pretend disk: names, inodes, a page cache in front of both, and a power
//! cord that can be pulled.
//!
//! What is not synced may be kept, dropped or torn when the power goes; what
//! is synced stays. Every operation may be the moment at which somebody else
//! acts, an error comes, or the process is killed. That the operations do what
//! Linux does is checked in `tests/simulation/conformance.rs`. Folders cannot be
//! renamed here, there are no symbolic links, and no mode keeps anybody out.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use kometa_authd::disk::{Disk, Meta, Open, Place};
use kometa_authd::token::UnixSeconds;
use rustix::io::Errno;

use super::people::around;

/// The user that the simulated process is.
const USER: u32 = 1000;

#[derive(Clone, Default)]
struct Inode {
    data: Vec<u8>,
    on_medium: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    modified_at: i64,
}

/// What somebody else does between two operations.
pub type Interloper = Box<dyn FnOnce(&mut Disks)>;

/// How a file system differs from the usual one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// An ordinary folder.
    #[default]
    Folder,
    /// The config is mounted by itself: nothing can be renamed over it.
    SingleFile,
    /// The config has a second name.
    HardLink,
    /// Two files cannot be exchanged, only renamed.
    NoExchange,
    /// No changes are reported, and there are no locks.
    Share,
}

impl Sort {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Folder, Self::SingleFile, Self::HardLink, Self::NoExchange, Self::Share];

    /// Whether the config can only be written in place.
    pub fn is_in_place(self) -> bool {
        matches!(self, Self::SingleFile | Self::HardLink)
    }
}

/// What fails on a disk for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// These operations by number.
    Numbers(Errno, u64, u64),
    /// What needs space, until then.
    Full(i64),
    /// What changes anything, until then.
    ReadOnly(i64),
}

/// How a process ends in the middle of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// It alone.
    Kill,
    /// The machine with it.
    PowerLoss,
}

/// What is on the disk, and what happens to it.
#[derive(Default)]
pub struct Disks {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    names_on_medium: BTreeMap<PathBuf, u64>,
    next_inode: u64,
    /// Inode, process, number, alone.
    locks: Vec<(u64, usize, u64, bool)>,
    /// What is special about it.
    pub sort: Sort,
    /// The clock in milliseconds.
    pub now_ms: i64,
    /// What each operation costs.
    pub slow_ms: i64,
    /// How much time the operations took since this was last asked.
    pub lag_ms: i64,
    /// How many operations there were.
    pub operations: u64,
    /// What fails.
    pub bad: Option<Bad>,
    /// The operation at which something last failed.
    pub failed_at: u64,
    /// At this operation the process that makes it ends.
    pub dies_at: Option<(u64, Death)>,
    /// These processes are dead: nothing that they still do has any effect.
    pub dead: Vec<(usize, Death, u64)>,
    /// At this operation somebody else acts first.
    pub interloper: Option<(u64, Interloper)>,
    /// The file that somebody has open, and writes into later.
    pub held_open: Option<u64>,
    /// The process that last put another file in the config's place, while it lives: it has the one before open.
    pub replaced_by: Option<usize>,
    /// Somebody has just written into a file that was replaced in this moment: how many had written before.
    pub orphaned: Option<usize>,
    /// Somebody acted between two operations since this was last asked.
    pub is_stirred: bool,
    /// Before which operation somebody last did.
    stirred_at: u64,
    /// How often each kind of thing happened.
    pub struck: BTreeMap<&'static str, u64>,
    /// Changes of the watched file.
    pub changes: u64,
    /// Changes of anything.
    pub touched: u64,
    /// What the watched file has that is not ours, as each of its other writers left it.
    pub foreign: Vec<String>,
    /// The texts that the daemons gave the watched file since the last look, and how many others had written
    /// it by then.
    pub made: Vec<(Vec<u8>, usize)>,
    /// The operation of the last of them, where nobody else has written since.
    pub made_at: Option<u64>,
    /// The file that is watched.
    pub watched: PathBuf,
    /// Kometa's log, and until when it grows by the wall clock.
    pub log: Option<(PathBuf, i64)>,
}

impl Disks {
    /// A file's content.
    pub fn read(&self, path: &Path) -> Option<&[u8]> {
        Some(&self.inodes[self.names.get(path)?].data)
    }

    /// The file behind a path, for somebody who holds it open.
    pub fn inode(&self, path: &Path) -> Option<u64> {
        self.names.get(path).copied()
    }

    /// Somebody writes into a file that they have open, wherever it is by now; it is synced.
    pub fn write_into(&mut self, id: u64, bytes: &[u8]) {
        let now = self.now_ms.div_euclid(1000);
        if let Some(inode) = self.inodes.get_mut(&id) {
            (inode.data, inode.on_medium, inode.modified_at) = (bytes.to_vec(), bytes.to_vec(), now);
        }
        self.touched += 1;
        if self.inode(&self.watched) == Some(id) {
            self.changes += 1;
            self.made_at = None;
        }
    }

    /// Somebody writes a file in place.
    pub fn write_in_place(&mut self, path: &Path, bytes: &[u8]) {
        if let Some(id) = self.inode(path) {
            self.write_into(id, bytes);
        }
    }

    /// Somebody writes a new file and renames it over the old one; both are synced.
    pub fn write_by_rename(&mut self, path: &Path, bytes: &[u8]) {
        let mode = self.names.get(path).map_or(0o100_644, |id| self.inodes[id].mode);
        let id = self.make(mode);
        self.names.insert(path.to_owned(), id);
        self.names_on_medium.insert(path.to_owned(), id);
        self.write_into(id, bytes);
    }

    /// Makes a folder that is on the medium at once.
    pub fn make_folder(&mut self, path: &Path) {
        let id = self.make(0o040_755);
        self.names.insert(path.to_owned(), id);
        self.names_on_medium.insert(path.to_owned(), id);
    }

    /// Gives a file a second name.
    pub fn link(&mut self, path: &Path, other: &Path) {
        if let Some(id) = self.inode(path) {
            self.names.insert(other.to_owned(), id);
            self.names_on_medium.insert(other.to_owned(), id);
        }
    }

    /// Gives a file or folder another mode.
    pub fn set_mode(&mut self, path: &Path, mode: u32) {
        if let Some(inode) = self.inode(path).and_then(|id| self.inodes.get_mut(&id)) {
            inode.mode = inode.mode & !0o7777 | mode;
        }
    }

    /// The names below a folder.
    pub fn names_in(&self, folder: &Path) -> Vec<PathBuf> {
        self.names.keys().filter(|name| name.parent() == Some(folder)).cloned().collect()
    }

    /// Whether a file would be after a power cut what it is now.
    pub fn is_on_medium(&self, path: &Path) -> bool {
        let id = self.inode(path);
        id == self.names_on_medium.get(path).copied()
            && id.is_none_or(|id| self.inodes[&id].data == self.inodes[&id].on_medium)
    }

    /// Whether a file's name would be there after a power cut.
    pub fn name_is_on_medium(&self, path: &Path) -> bool {
        self.inode(path) == self.names_on_medium.get(path).copied()
    }

    /// The power goes: what was not synced is kept, dropped or torn, as `draw` says.
    pub fn power_loss(&mut self, mut draw: impl FnMut(usize) -> usize) {
        let mut names = self.names_on_medium.clone();
        let all: BTreeSet<PathBuf> = self.names.keys().chain(self.names_on_medium.keys()).cloned().collect();
        for name in all {
            let (new, old) = (self.names.get(&name).copied(), self.names_on_medium.get(&name).copied());
            if new != old {
                let is_kept = draw(2) == 0;
                *self
                    .struck
                    .entry(if is_kept { "power loss: name kept" } else { "power loss: name dropped" })
                    .or_default() += 1;
                match new {
                    Some(id) if is_kept => names.insert(name, id),
                    None if is_kept => names.remove(&name),
                    _ => None,
                };
            }
        }
        // What is in a folder that is gone, is gone.
        let folders: BTreeSet<PathBuf> = names.keys().cloned().collect();
        names
            .retain(|name, _| name.parent().is_none_or(|folder| folder.parent().is_none() || folders.contains(folder)));
        (self.names_on_medium, self.names) = (names.clone(), names);
        for inode in self.inodes.values_mut() {
            if inode.data != inode.on_medium {
                let (what, data) = match draw(3) {
                    0 => ("power loss: data kept", inode.data.clone()),
                    1 => ("power loss: data dropped", inode.on_medium.clone()),
                    _ => ("power loss: data torn", torn(&inode.on_medium, &inode.data, &mut draw)),
                };
                *self.struck.entry(what).or_default() += 1;
                inode.on_medium = data;
            }
            inode.data.clone_from(&inode.on_medium);
        }
        self.locks.clear();
        (self.changes, self.touched) = (self.changes + 1, self.touched + 1);
        // Whoever saved a moment before, between our last look and the exchange, had nothing synced either.
        let found = self.read(&self.watched).map(|bytes| around(&String::from_utf8_lossy(bytes)));
        let before = self.foreign.len().checked_sub(2).and_then(|at| self.foreign.get(at));
        if self.operations - self.stirred_at < 10 && found.as_ref() == before && found.as_ref() != self.foreign.last() {
            *self.struck.entry("an edit lost to a power cut in the same moment").or_default() += 1;
            self.foreign.pop();
        }
    }

    /// A process ends: its locks with it.
    pub fn process_ended(&mut self, process: usize) {
        self.locks.retain(|lock| lock.1 != process);
        self.replaced_by = self.replaced_by.filter(|by| *by != process);
        self.dead.retain(|dead| dead.0 != process);
    }

    /// Nobody has a file open: what no name leads to is gone.
    pub fn forget_unnamed(&mut self) {
        let named: BTreeSet<u64> = self.names.values().chain(self.names_on_medium.values()).copied().collect();
        self.inodes.retain(|id, _| named.contains(id));
    }

    fn make(&mut self, mode: u32) -> u64 {
        self.next_inode += 1;
        let modified_at = self.now_ms.div_euclid(1000);
        let inode = Inode { mode, owner: (USER, USER), modified_at, ..Inode::default() };
        self.inodes.insert(self.next_inode, inode);
        self.next_inode
    }

    /// A daemon changed something; where that was the config, what it is now is kept for the check.
    fn did(&mut self, process: usize, id: u64) {
        self.touched += 1;
        if self.inode(&self.watched) == Some(id) {
            self.changes += 1;
            self.replaced_by = Some(process);
            self.made_at = Some(self.operations);
            self.made.push((self.inodes[&id].data.clone(), self.foreign.len()));
        }
    }

    /// One operation of a process begins.
    fn point(&mut self, process: usize, what: Need) -> io::Result<()> {
        self.operations += 1;
        self.lag_ms += self.slow_ms;
        if self.interloper.as_ref().is_some_and(|(at, _)| *at <= self.operations)
            && let Some((_, act)) = self.interloper.take()
        {
            act(self);
            self.is_stirred = true;
            self.stirred_at = self.operations;
        }
        if let Some((at, death)) = self.dies_at.filter(|(at, _)| *at <= self.operations) {
            self.dies_at = None;
            if at > 0 {
                let number = self.operations;
                self.dead.push((process, death, number));
                let what = if death == Death::Kill { "killed at an operation" } else { "power lost at an operation" };
                *self.struck.entry(what).or_default() += 1;
            }
        }
        if self.dead.iter().any(|dead| dead.0 == process) {
            return Err(io::Error::other("the process is dead"));
        }
        let now = self.now_ms;
        let error = match self.bad {
            Some(Bad::Numbers(_, _, last)) if last < self.operations => {
                self.bad = None;
                None
            }
            Some(Bad::Full(until) | Bad::ReadOnly(until)) if until <= now => {
                self.bad = None;
                None
            }
            Some(Bad::Numbers(errno, first, _)) if first <= self.operations => Some((errno, "operations fail")),
            Some(Bad::Full(_)) if what == Need::Space => Some((Errno::NOSPC, "full disk")),
            Some(Bad::ReadOnly(_)) if what >= Need::Change => Some((Errno::ROFS, "read-only disk")),
            _ => None,
        };
        let Some((errno, name)) = error else { return Ok(()) };
        self.failed_at = self.operations;
        *self.struck.entry(name).or_default() += 1;
        Err(errno.into())
    }

    fn meta(&self, id: u64) -> Meta {
        let inode = &self.inodes[&id];
        let links = self.names.values().filter(|named| **named == id).count() as u64;
        let is_log = |path: &PathBuf| self.names.get(path) == Some(&id);
        let grows =
            self.log.as_ref().filter(|(path, _)| is_log(path)).map(|(_, until)| (*until).min(self.now_ms) / 1000);
        Meta {
            identity: (1, id),
            links,
            mode: inode.mode,
            owner: inode.owner,
            size: inode.data.len() as u64,
            modified_at: UnixSeconds(grows.unwrap_or(inode.modified_at)),
        }
    }

    fn id(&self, path: &Path) -> io::Result<u64> {
        if let Some(id) = self.names.get(path) {
            return Ok(*id);
        }
        let nearest = path.ancestors().find_map(|folder| self.names.get(folder));
        Err(if nearest.is_some_and(|id| !self.is_folder(*id)) { Errno::NOTDIR } else { Errno::NOENT }.into())
    }

    fn is_folder(&self, id: u64) -> bool {
        self.inodes[&id].mode & 0o170_000 == 0o040_000
    }

    /// The folder that a path is in, which must exist.
    fn folder_of(&self, path: &Path) -> io::Result<u64> {
        let id = self.id(path.parent().unwrap_or(path))?;
        if self.is_folder(id) { Ok(id) } else { Err(Errno::NOTDIR.into()) }
    }

    /// What a path that shall be renamed leads to.
    fn id_to_rename(&self, path: &Path) -> io::Result<u64> {
        let id = self.id(path)?;
        assert!(!self.is_folder(id), "the daemon renames no folder, so the pretend disk cannot");
        Ok(id)
    }

    /// What a mount point refuses.
    fn can_be_renamed(&self, path: &Path) -> io::Result<()> {
        if self.sort == Sort::SingleFile && path == self.watched { Err(Errno::BUSY.into()) } else { Ok(()) }
    }
}

/// What an operation needs from the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    Nothing,
    Change,
    Space,
}

/// Sectors of the one and of the other.
fn torn(old: &[u8], new: &[u8], draw: &mut impl FnMut(usize) -> usize) -> Vec<u8> {
    let size = if draw(2) == 0 { old.len() } else { new.len() };
    let mut torn = Vec::with_capacity(size);
    while torn.len() < size {
        let from = torn.len();
        let to = (from + 512).min(size);
        let source = if draw(2) == 0 { old } else { new };
        torn.extend((from..to).map(|at| source.get(at).copied().unwrap_or_default()));
    }
    torn
}

/// The disk as one process sees it.
#[derive(Clone)]
pub struct SimDisk {
    /// What all of them share.
    pub disks: Rc<RefCell<Disks>>,
    /// Which process this is.
    pub process: usize,
}

/// An open file, or a lock.
pub struct Handle {
    id: u64,
    is_writable: bool,
    lock: Option<(u64, Rc<RefCell<Disks>>)>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some((number, disks)) = &self.lock
            && let Ok(mut disks) = disks.try_borrow_mut()
        {
            disks.locks.retain(|lock| lock.2 != *number);
        }
    }
}

impl SimDisk {
    fn point(&self, need: Need) -> io::Result<RefMut<'_, Disks>> {
        let mut disks = self.disks.borrow_mut();
        disks.point(self.process, need)?;
        Ok(disks)
    }
}

impl Disk for SimDisk {
    type Handle = Handle;

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        self.point(Need::Nothing)?.id(path).map(|_| path.to_owned())
    }

    fn meta(&self, path: &Path) -> io::Result<Meta> {
        let disks = self.point(Need::Nothing)?;
        disks.id(path).map(|id| disks.meta(id))
    }

    fn place(&self, path: &Path) -> io::Result<Place> {
        let disks = self.point(Need::Nothing)?;
        let silent = (disks.sort == Sort::Share).then_some("nfs");
        let mount_point = disks.sort == Sort::SingleFile && path == disks.watched;
        disks.id(path).map(|_| Place { silent, mount_point })
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        let disks = self.point(Need::Nothing)?;
        if !disks.is_folder(disks.id(folder)?) {
            return Err(Errno::NOTDIR.into());
        }
        Ok(disks.names_in(folder).iter().filter_map(|name| Some(name.file_name()?.to_owned())).collect())
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let mut disks = self.point(Need::Space)?;
        if disks.names.contains_key(path) {
            return Err(Errno::EXIST.into());
        }
        disks.folder_of(path)?;
        let id = disks.make(0o040_700);
        disks.names.insert(path.to_owned(), id);
        Ok(())
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Handle> {
        let need = match how {
            Open::Read => Need::Nothing,
            Open::Write => Need::Change,
            Open::WriteOrCreate | Open::CreateNew => Need::Change,
        };
        let mut disks = self.point(need)?;
        let found = disks.id(path);
        let id = match (how, found) {
            (Open::CreateNew, Ok(_)) => return Err(Errno::EXIST.into()),
            (Open::CreateNew | Open::WriteOrCreate, Err(_)) => {
                disks.folder_of(path)?;
                let id = disks.make(0o100_600);
                disks.names.insert(path.to_owned(), id);
                id
            }
            (_, found) => found?,
        };
        if how != Open::Read && disks.is_folder(id) {
            return Err(Errno::ISDIR.into());
        }
        Ok(Handle { id, is_writable: how != Open::Read, lock: None })
    }

    fn read(&self, file: &Handle, max_bytes: u64) -> io::Result<(Vec<u8>, Meta)> {
        let disks = self.point(Need::Nothing)?;
        if disks.is_folder(file.id) {
            return Err(Errno::ISDIR.into());
        }
        let mut data = disks.inodes[&file.id].data.clone();
        data.truncate(usize::try_from(max_bytes.saturating_add(1)).unwrap_or(usize::MAX));
        Ok((data, disks.meta(file.id)))
    }

    fn write_at(&self, file: &Handle, bytes: &[u8], offset: u64) -> io::Result<()> {
        let at = usize::try_from(offset).expect("a small file");
        let grows = self.disks.borrow().inodes[&file.id].data.len() < at + bytes.len();
        let mut disks = self.point(if grows { Need::Space } else { Need::Change })?;
        // Nothing is written by a call that never reaches the system.
        if bytes.is_empty() {
            return Ok(());
        }
        if !file.is_writable {
            return Err(Errno::BADF.into());
        }
        let now = disks.now_ms.div_euclid(1000);
        let inode = disks.inodes.get_mut(&file.id).expect("open");
        if grows {
            inode.data.resize(at + bytes.len(), 0);
        }
        inode.data[at..at + bytes.len()].copy_from_slice(bytes);
        inode.modified_at = now;
        disks.did(self.process, file.id);
        Ok(())
    }

    fn set_size(&self, file: &Handle, size: u64) -> io::Result<()> {
        let mut disks = self.point(Need::Change)?;
        if !file.is_writable {
            return Err(Errno::INVAL.into());
        }
        let size = usize::try_from(size).expect("a small file");
        let now = disks.now_ms.div_euclid(1000);
        let inode = disks.inodes.get_mut(&file.id).expect("open");
        inode.data.resize(size, 0);
        inode.modified_at = now;
        disks.did(self.process, file.id);
        Ok(())
    }

    fn copy_attributes(&self, from: &Handle, to: &Handle) -> io::Result<()> {
        let mut disks = self.point(Need::Change)?;
        let (mode, owner) = (disks.inodes[&from.id].mode, disks.inodes[&from.id].owner);
        let inode = disks.inodes.get_mut(&to.id).expect("open");
        (inode.mode, inode.owner) = (inode.mode & !0o7777 | mode & 0o7777, owner);
        Ok(())
    }

    fn sync(&self, file: &Handle) -> io::Result<()> {
        self.sync_data(file)
    }

    fn sync_data(&self, file: &Handle) -> io::Result<()> {
        let mut disks = self.point(Need::Nothing)?;
        let inode = disks.inodes.get_mut(&file.id).expect("open");
        inode.on_medium.clone_from(&inode.data);
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut disks = self.point(Need::Nothing)?;
        disks.id(folder)?;
        let is_in = |name: &PathBuf| name.parent() == Some(folder);
        let new: Vec<_> = disks.names.iter().filter(|(name, _)| is_in(name)).map(|(n, id)| (n.clone(), *id)).collect();
        disks.names_on_medium.retain(|name, _| !is_in(name));
        disks.names_on_medium.extend(new);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let compared = self.disks.borrow().inode(to);
        let mut disks = self.point(Need::Change)?;
        if to == disks.watched {
            let text = |path| disks.read(path).map(|bytes| around(&String::from_utf8_lossy(bytes)));
            // Nothing can compare and rename in one step: whoever renames in this very moment has lost, and what
            // somebody wrote in place since the comparison is in a file that is looked at later.
            if disks.inode(to) != compared {
                *disks.struck.entry("an edit lost to a rename in the same moment").or_default() += 1;
                disks.foreign.pop();
            } else if text(from) != text(to) {
                disks.orphaned = Some(disks.foreign.len() - 1);
            }
        }
        disks.folder_of(from)?;
        disks.folder_of(to)?;
        let id = disks.id_to_rename(from)?;
        disks.can_be_renamed(from)?;
        disks.can_be_renamed(to)?;
        match disks.inode(to) {
            // Two names of one file: nothing happens, and both stay.
            Some(there) if there == id => return Ok(()),
            Some(_) if from.starts_with(to) && from != to => return Err(Errno::NOTEMPTY.into()),
            Some(there) if disks.is_folder(there) => return Err(Errno::ISDIR.into()),
            _ => {}
        }
        disks.names.remove(from);
        disks.names.insert(to.to_owned(), id);
        disks.did(self.process, id);
        Ok(())
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        let mut disks = self.point(Need::Change)?;
        if disks.sort == Sort::NoExchange || disks.sort == Sort::Share {
            return Err(Errno::INVAL.into());
        }
        disks.folder_of(one)?;
        disks.folder_of(other)?;
        let (first, second) = (disks.id_to_rename(one)?, disks.id_to_rename(other)?);
        disks.can_be_renamed(one)?;
        disks.can_be_renamed(other)?;
        disks.names.insert(one.to_owned(), second);
        disks.names.insert(other.to_owned(), first);
        disks.did(self.process, first);
        disks.did(self.process, second);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disks = self.point(Need::Change)?;
        if disks.is_folder(disks.id(path)?) {
            return Err(Errno::ISDIR.into());
        }
        disks.can_be_renamed(path)?;
        disks.names.remove(path);
        Ok(())
    }

    fn lock(&self, path: &Path, alone: bool) -> io::Result<Option<Handle>> {
        let mut disks = self.point(Need::Nothing)?;
        if disks.sort == Sort::Share {
            return Err(Errno::NOLCK.into());
        }
        let id = disks.id(path)?;
        if disks.locks.iter().any(|(locked, _, _, theirs)| *locked == id && (alone || *theirs)) {
            return Ok(None);
        }
        let number = disks.operations;
        disks.locks.push((id, self.process, number, alone));
        Ok(Some(Handle { id, is_writable: false, lock: Some((number, Rc::clone(&self.disks))) }))
    }

    fn user(&self) -> u32 {
        USER
    }
}
