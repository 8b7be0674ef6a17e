//! Files in memory: as much of a disk as a journal needs, and nothing ever fails.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use kometa_authd::disk::{Disk, Meta, Open, Place};
use kometa_authd::token::UnixSeconds;

type File = Rc<RefCell<Vec<u8>>>;

#[derive(Default)]
pub struct Memory {
    files: RefCell<HashMap<PathBuf, File>>,
}

impl Memory {
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        self.files.borrow_mut().insert(path.to_owned(), Rc::new(RefCell::new(bytes.to_vec())));
    }

    pub fn size(&self, path: &Path) -> usize {
        self.files.borrow()[path].borrow().len()
    }
}

fn meta(file: &File) -> Meta {
    let size = file.borrow().len() as u64;
    Meta { identity: (1, 1), links: 1, mode: 0o100_600, owner: (0, 0), size, modified_at: UnixSeconds(0) }
}

impl Disk for Memory {
    type Handle = File;

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }

    fn meta(&self, path: &Path) -> io::Result<Meta> {
        self.open(path, Open::Read).map(|file| meta(&file))
    }

    fn place(&self, _path: &Path) -> io::Result<Place> {
        Ok(Place { silent: None, mount_point: false })
    }

    fn list(&self, _folder: &Path) -> io::Result<Vec<OsString>> {
        Ok(self.files.borrow().keys().filter_map(|path| Some(path.file_name()?.to_owned())).collect())
    }

    fn create_folder(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<File> {
        let mut files = self.files.borrow_mut();
        match (files.get(path), how) {
            (Some(_), Open::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some(file), _) => Ok(Rc::clone(file)),
            (None, Open::Read | Open::Write) => Err(io::ErrorKind::NotFound.into()),
            (None, Open::WriteOrCreate | Open::CreateNew) => Ok(Rc::clone(files.entry(path.to_owned()).or_default())),
        }
    }

    fn read(&self, file: &File, max_bytes: u64) -> io::Result<(Vec<u8>, Meta)> {
        let mut bytes = file.borrow().clone();
        bytes.truncate(usize::try_from(max_bytes).unwrap_or(usize::MAX).saturating_add(1));
        Ok((bytes, meta(file)))
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut content = file.borrow_mut();
        let size = content.len().max(start + bytes.len());
        content.resize(size, 0);
        content[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn set_size(&self, file: &File, size: u64) -> io::Result<()> {
        file.borrow_mut().resize(usize::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?, 0);
        Ok(())
    }

    fn copy_attributes(&self, _from: &File, _to: &File) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self, _file: &File) -> io::Result<()> {
        Ok(())
    }

    fn sync_data(&self, _file: &File) -> io::Result<()> {
        Ok(())
    }

    fn sync_folder(&self, _folder: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.files.borrow_mut();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        let mut files = self.files.borrow_mut();
        let taken = files.remove(one).ok_or(io::ErrorKind::NotFound)?;
        let found = files.insert(other.to_owned(), taken).ok_or(io::ErrorKind::NotFound)?;
        files.insert(one.to_owned(), found);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.files.borrow_mut().remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn lock(&self, path: &Path, _alone: bool) -> io::Result<Option<File>> {
        self.open(path, Open::Read).map(Some)
    }

    fn user(&self) -> u32 {
        0
    }
}
