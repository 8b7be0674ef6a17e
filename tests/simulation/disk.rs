//! A pretend disk: names, inodes, a page cache in front of both, and a power
//! cord that can be pulled.
//!
//! What is not synced may be kept, dropped or torn when the power goes; what
//! is synced stays. Every operation may be the moment at which somebody else
//! acts, an error comes, or the process is killed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use kometa_authd::disk::{Disk, Meta, Open, Place};
use kometa_authd::token::UnixSeconds;
use rustix::io::Errno;

/// The user that the simulated process is.
const USER: u32 = 1000;

#[derive(Clone, Default)]
struct Inode {
    data: Vec<u8>,
    on_medium: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    modified_at: i64,
    is_folder: bool,
}

/// What somebody else does between two operations.
pub type Interloper = Box<dyn FnOnce(&mut Disks)>;

/// What is on the disk, and what happens to it.
#[derive(Default)]
pub struct Disks {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    names_on_medium: BTreeMap<PathBuf, u64>,
    next_inode: u64,
    locks: BTreeSet<(u64, u64)>,
    /// The clock in seconds.
    pub now: i64,
    /// How many operations there were.
    pub operations: u64,
    /// These operations fail with this error.
    pub failing: Option<(Errno, std::ops::RangeInclusive<u64>)>,
    /// At this operation the process is killed.
    pub kill_at: Option<u64>,
    /// The process is dead: nothing that it still does has any effect.
    pub is_dead: bool,
    /// At this operation somebody else acts first.
    pub interloper: Option<(u64, Interloper)>,
    /// How often each kind of fault struck.
    pub struck: BTreeMap<&'static str, u64>,
    /// Changes of the watched file since the last look.
    pub changes: u64,
    /// The file that is watched.
    pub watched: PathBuf,
}

impl Disks {
    /// A file's content.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        Some(self.inodes[self.names.get(path)?].data.clone())
    }

    /// Somebody else writes a file in place: truncates it and writes it again.
    pub fn write_in_place(&mut self, path: &Path, bytes: &[u8]) {
        let now = self.now;
        if let Some(inode) = self.names.get(path).copied().and_then(|id| self.inodes.get_mut(&id)) {
            (inode.data, inode.on_medium, inode.modified_at) = (bytes.to_vec(), bytes.to_vec(), now);
        }
        self.changed(path);
    }

    /// Somebody else writes a new file and renames it over the old one; both are synced.
    pub fn write_by_rename(&mut self, path: &Path, bytes: &[u8]) {
        let mode = self.names.get(path).map_or(0o100_644, |id| self.inodes[id].mode);
        let id = self.make(mode);
        let inode = self.inodes.get_mut(&id).expect("just made");
        (inode.data, inode.on_medium) = (bytes.to_vec(), bytes.to_vec());
        self.names.insert(path.to_owned(), id);
        self.names_on_medium.insert(path.to_owned(), id);
        self.changed(path);
    }

    /// Makes a folder that is on the medium at once.
    pub fn make_folder(&mut self, path: &Path) {
        let id = self.make(0o040_755);
        self.inodes.get_mut(&id).expect("just made").is_folder = true;
        self.names.insert(path.to_owned(), id);
        self.names_on_medium.insert(path.to_owned(), id);
    }

    /// The names below a folder.
    pub fn names_in(&self, folder: &Path) -> Vec<PathBuf> {
        self.names.keys().filter(|name| name.parent() == Some(folder)).cloned().collect()
    }

    /// The power goes: what was not synced is kept, dropped or torn, as `draw` says.
    pub fn power_loss(&mut self, mut draw: impl FnMut(usize) -> usize) {
        let mut names = self.names_on_medium.clone();
        let all: BTreeSet<PathBuf> = self.names.keys().chain(self.names_on_medium.keys()).cloned().collect();
        for name in all {
            let (new, old) = (self.names.get(&name).copied(), self.names_on_medium.get(&name).copied());
            if new != old && draw(2) == 0 {
                match new {
                    Some(id) => names.insert(name, id),
                    None => names.remove(&name),
                };
            }
        }
        (self.names_on_medium, self.names) = (names.clone(), names);
        for inode in self.inodes.values_mut() {
            if inode.data != inode.on_medium {
                inode.on_medium = match draw(3) {
                    0 => inode.data.clone(),
                    1 => inode.on_medium.clone(),
                    _ => torn(&inode.on_medium, &inode.data, &mut draw),
                };
            }
            inode.data.clone_from(&inode.on_medium);
        }
        self.locks.clear();
    }

    /// The process ends: its locks with it.
    pub fn process_ended(&mut self) {
        self.locks.clear();
        self.is_dead = false;
        self.kill_at = None;
    }

    fn make(&mut self, mode: u32) -> u64 {
        self.next_inode += 1;
        let inode = Inode { mode, owner: (USER, USER), modified_at: self.now, ..Inode::default() };
        self.inodes.insert(self.next_inode, inode);
        self.next_inode
    }

    fn changed(&mut self, path: &Path) {
        if path == self.watched {
            self.changes += 1;
        }
    }

    /// One operation begins.
    fn point(&mut self) -> io::Result<()> {
        self.operations += 1;
        if self.interloper.as_ref().is_some_and(|(at, _)| *at <= self.operations)
            && let Some((_, act)) = self.interloper.take()
        {
            *self.struck.entry("interloper").or_default() += 1;
            act(self);
        }
        if self.kill_at.is_some_and(|at| at <= self.operations) && !self.is_dead {
            self.is_dead = true;
            *self.struck.entry("kill").or_default() += 1;
        }
        if self.is_dead {
            return Err(io::Error::other("the process is dead"));
        }
        if let Some((errno, range)) = &self.failing {
            if range.contains(&self.operations) {
                let error = io::Error::from(*errno);
                *self.struck.entry("error").or_default() += 1;
                return Err(error);
            }
            if *range.end() < self.operations {
                self.failing = None;
            }
        }
        Ok(())
    }

    fn meta(&self, id: u64) -> Meta {
        let inode = &self.inodes[&id];
        let links = self.names.values().filter(|named| **named == id).count() as u64;
        Meta {
            identity: (1, id),
            links,
            mode: inode.mode,
            owner: inode.owner,
            size: inode.data.len() as u64,
            modified_at: UnixSeconds(inode.modified_at),
        }
    }

    fn id(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
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
pub struct SimDisk(pub Rc<RefCell<Disks>>);

/// An open file, or a lock.
pub struct Handle {
    id: u64,
    lock: Option<(u64, Rc<RefCell<Disks>>)>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some((number, disks)) = &self.lock
            && let Ok(mut disks) = disks.try_borrow_mut()
        {
            disks.locks.remove(&(self.id, *number));
        }
    }
}

impl Disk for SimDisk {
    type Handle = Handle;

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let mut disks = self.0.borrow_mut();
        disks.point()?;
        disks.id(path).map(|_| path.to_owned())
    }

    fn meta(&self, path: &Path) -> io::Result<Meta> {
        let mut disks = self.0.borrow_mut();
        disks.point()?;
        disks.id(path).map(|id| disks.meta(id))
    }

    fn place(&self, path: &Path) -> io::Result<Place> {
        let mut disks = self.0.borrow_mut();
        disks.point()?;
        disks.id(path).map(|_| Place { silent: None, mount_point: false })
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        let mut disks = self.0.borrow_mut();
        disks.point()?;
        Ok(disks.names_in(folder).iter().filter_map(|name| Some(name.file_name()?.to_owned())).collect())
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let mut disks = self.0.borrow_mut();
        disks.point()?;
        if disks.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = disks.make(0o040_700);
        disks.inodes.get_mut(&id).expect("just made").is_folder = true;
        disks.names.insert(path.to_owned(), id);
        Ok(())
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Handle> {
        let mut disks = self.0.borrow_mut();
        disks.point()?;
        let found = disks.id(path);
        let id = match (how, found) {
            (Open::CreateNew, Ok(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Open::CreateNew | Open::WriteOrCreate, Err(_)) => {
                let id = disks.make(0o100_600);
                disks.names.insert(path.to_owned(), id);
                id
            }
            (_, found) => found?,
        };
        Ok(Handle { id, lock: None })
    }

    fn read(&self, file: &Handle, max_bytes: u64) -> io::Result<(Vec<u8>, Meta)> {
        let mut disks = self.0.borrow_mut();
        disks.point()?;
        let mut data = disks.inodes[&file.id].data.clone();
        data.truncate(usize::try_from(max_bytes + 1).unwrap_or(usize::MAX));
        Ok((data, disks.meta(file.id)))
    }

    fn write_at(&self, file: &Handle, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disks = self.0.borrow_mut();
        disks.point()?;
        let now = disks.now;
        let at = usize::try_from(offset).expect("a small file");
        let inode = disks.inodes.get_mut(&file.id).expect("open");
        if inode.data.len() < at + bytes.len() {
            inode.data.resize(at + bytes.len(), 0);
        }
        inode.data[at..at + bytes.len()].copy_from_slice(bytes);
        inode.modified_at = now;
        Ok(())
    }

    fn set_size(&self, file: &Handle, size: u64) -> io::Result<()> {
        let mut disks = self.0.borrow_mut();
        disks.point()?;
        let size = usize::try_from(size).expect("a small file");
        disks.inodes.get_mut(&file.id).expect("open").data.resize(size, 0);
        Ok(())
    }

    fn copy_attributes(&self, from: &Handle, to: &Handle) -> io::Result<()> {
        let mut disks = self.0.borrow_mut();
        disks.point()?;
        let (mode, owner) = (disks.inodes[&from.id].mode, disks.inodes[&from.id].owner);
        let inode = disks.inodes.get_mut(&to.id).expect("open");
        (inode.mode, inode.owner) = (mode, owner);
        Ok(())
    }

    fn sync(&self, file: &Handle) -> io::Result<()> {
        self.sync_data(file)
    }

    fn sync_data(&self, file: &Handle) -> io::Result<()> {
        let mut disks = self.0.borrow_mut();
        disks.point()?;
        let inode = disks.inodes.get_mut(&file.id).expect("open");
        inode.on_medium.clone_from(&inode.data);
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut disks = self.0.borrow_mut();
        disks.point()?;
        let is_in = |name: &PathBuf| name.parent() == Some(folder) || name == folder;
        let new: Vec<_> = disks.names.iter().filter(|(name, _)| is_in(name)).map(|(n, id)| (n.clone(), *id)).collect();
        disks.names_on_medium.retain(|name, _| !is_in(name));
        disks.names_on_medium.extend(new);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disks = self.0.borrow_mut();
        disks.point()?;
        let id = disks.id(from)?;
        disks.names.remove(from);
        disks.names.insert(to.to_owned(), id);
        disks.changed(to);
        Ok(())
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        let mut disks = self.0.borrow_mut();
        disks.point()?;
        let (first, second) = (disks.id(one)?, disks.id(other)?);
        disks.names.insert(one.to_owned(), second);
        disks.names.insert(other.to_owned(), first);
        disks.changed(other);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disks = self.0.borrow_mut();
        disks.point()?;
        disks.names.remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn lock(&self, path: &Path, _alone: bool) -> io::Result<Option<Handle>> {
        let mut disks = self.0.borrow_mut();
        disks.point()?;
        let id = disks.id(path)?;
        if disks.locks.iter().any(|(locked, _)| *locked == id) {
            return Ok(None);
        }
        let number = disks.operations;
        disks.locks.insert((id, number));
        Ok(Some(Handle { id, lock: Some((number, Rc::clone(&self.0))) }))
    }

    fn user(&self) -> u32 {
        USER
    }
}
