//! The file operations, each by one name, behind one trait.
//!
//! Everything that the daemon does to a file goes through [`Disk`], so that
//! the tests can fail or stop the Nth operation and the simulation can put a
//! whole pretend disk in its place. This file never decides what to write.

#![expect(clippy::disallowed_methods, reason = "this is where files are touched")]

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs as sys;

use crate::token::UnixSeconds;

/// Which file a path led to, and what it looked like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Device and inode: the file's identity while it exists.
    pub identity: (u64, u64),
    /// Number of names; 0 where somebody renamed over a file that is mounted here by itself.
    pub links: u64,
    /// Permission bits and file type, as `st_mode` has them.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Size in bytes.
    pub size: u64,
    /// When its content last changed.
    pub modified_at: UnixSeconds,
}

impl Meta {
    /// Whether it is a folder.
    #[must_use]
    pub const fn is_folder(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }

    /// Whether it is an ordinary file.
    #[must_use]
    pub const fn is_file(&self) -> bool {
        self.mode & 0o170_000 == 0o100_000
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// For reading; it must exist.
    Read,
    /// For reading and writing in place, nothing truncated; it must exist.
    Write,
    /// For reading and writing, made with mode 0600 where it is missing.
    WriteOrCreate,
    /// Made anew with mode 0600; it must not exist, and is no link.
    CreateNew,
}

/// What is special about where a path lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The kind of file system, where it is one that sends no events for changes made elsewhere.
    pub silent: Option<&'static str>,
    /// The path is a mount point of its own (a single-file bind mount): it cannot be renamed over.
    pub mount_point: bool,
}

/// The file operations. Every method is one step that either happened or not,
/// as far as the system tells; none retries anything but an interrupted call.
pub trait Disk {
    /// An open file or folder.
    type Handle;

    /// The path with every symbolic link followed.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf>;
    /// What the path leads to, links followed.
    fn meta(&self, path: &Path) -> io::Result<Meta>;
    /// What is special about the place.
    fn place(&self, path: &Path) -> io::Result<Place>;
    /// The names in a folder.
    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>>;
    /// Makes a folder with mode 0700.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Self::Handle>;
    /// The whole file and its meta, read from its start; at most `max_bytes` and one more.
    fn read(&self, file: &Self::Handle, max_bytes: u64) -> io::Result<(Vec<u8>, Meta)>;
    /// Writes all bytes at an offset.
    fn write_at(&self, file: &Self::Handle, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts or extends a file.
    fn set_size(&self, file: &Self::Handle, size: u64) -> io::Result<()>;
    /// Owner, group, mode, extended attributes and ACL of `from`, given to `to`.
    fn copy_attributes(&self, from: &Self::Handle, to: &Self::Handle) -> io::Result<()>;
    /// Data, size, owner and mode are on the medium (fsync).
    fn sync(&self, file: &Self::Handle) -> io::Result<()>;
    /// Data is on the medium (fdatasync): one write less where the size did not change.
    fn sync_data(&self, file: &Self::Handle) -> io::Result<()>;
    /// The names in a folder are on the medium.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Puts `from` in the place of `to`, atomically.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Swaps two files, atomically.
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()>;
    /// Removes a file's name.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Takes the advisory lock of a file or folder (flock): alone, or shared with others of the
    /// same wish. `None` where somebody else has it; it ends with the handle, or the process.
    fn lock(&self, path: &Path, alone: bool) -> io::Result<Option<Self::Handle>>;
    /// The user that we are.
    fn user(&self) -> u32;
}

/// The disk of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

/// How often an interrupted call is made again before it counts as failed.
const INTERRUPTED_MAX: usize = 16;

impl RealDisk {
    fn call<T, E: Into<io::Error>>(name: &'static str, mut act: impl FnMut() -> Result<T, E>) -> io::Result<T> {
        for _ in 0..INTERRUPTED_MAX {
            match faults::point(name).and_then(|()| act().map_err(Into::into)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }
}

impl Disk for RealDisk {
    type Handle = File;

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        Self::call("resolve", || std::fs::canonicalize(path))
    }

    fn meta(&self, path: &Path) -> io::Result<Meta> {
        Self::call("meta", || std::fs::metadata(path).map(|meta| meta_of(&meta)))
    }

    fn place(&self, path: &Path) -> io::Result<Place> {
        Self::call("place", || {
            let silent = silent_file_system(sys::statfs(path)?.f_type);
            let mount_point = match sys::statx(sys::CWD, path, sys::AtFlags::empty(), sys::StatxFlags::BASIC_STATS) {
                Ok(found) => found.stx_attributes.contains(sys::StatxAttributes::MOUNT_ROOT),
                // An old kernel or a strict seccomp filter: the rename will tell (EBUSY).
                Err(_) => false,
            };
            io::Result::Ok(Place { silent, mount_point })
        })
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        Self::call("list", || std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>())
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        Self::call("create_folder", || {
            use std::os::unix::fs::DirBuilderExt;
            std::fs::DirBuilder::new().mode(0o700).create(path)
        })
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<File> {
        Self::call("open", || {
            let mut options = File::options();
            options.read(true).mode(0o600);
            // A FIFO in the file's place must not hang the daemon.
            options.custom_flags(sys::OFlags::NONBLOCK.bits().cast_signed());
            match how {
                Open::Read => &mut options,
                Open::Write => options.write(true),
                Open::WriteOrCreate => options.write(true).create(true),
                Open::CreateNew => options.write(true).create_new(true),
            };
            options.open(path)
        })
    }

    fn read(&self, file: &File, max_bytes: u64) -> io::Result<(Vec<u8>, Meta)> {
        Self::call("read", || {
            let meta = file.metadata()?;
            let expected = usize::try_from(meta.len().min(max_bytes)).unwrap_or_default();
            let mut bytes = Vec::with_capacity(expected + 1);
            let mut chunk = [0; 16 * 1024];
            while bytes.len() as u64 <= max_bytes {
                match file.read_at(&mut chunk, bytes.len() as u64)? {
                    0 => break,
                    n => bytes.extend_from_slice(&chunk[..n]),
                }
            }
            bytes.truncate(usize::try_from(max_bytes.saturating_add(1)).unwrap_or(usize::MAX));
            io::Result::Ok((bytes, meta_of(&meta)))
        })
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        Self::call("write_at", || file.write_all_at(bytes, offset))
    }

    fn set_size(&self, file: &File, size: u64) -> io::Result<()> {
        Self::call("set_size", || file.set_len(size))
    }

    fn copy_attributes(&self, from: &File, to: &File) -> io::Result<()> {
        Self::call("copy_attributes", || {
            let (want, have) = (meta_of(&from.metadata()?), meta_of(&to.metadata()?));
            if want.owner != have.owner {
                let (user, group) = want.owner;
                sys::fchown(to, Some(sys::Uid::from_raw(user)), Some(sys::Gid::from_raw(group)))?;
            }
            // After fchown, which may clear bits.
            sys::fchmod(to, sys::Mode::from_raw_mode(want.mode & 0o7777))?;
            copy_xattrs(from, to)
        })
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        Self::call("sync", || sys::fsync(file))
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        Self::call("sync_data", || sys::fdatasync(file))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        Self::call("sync_folder", || File::open(folder)?.sync_all())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Self::call("rename", || sys::rename(from, to))
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        Self::call("exchange", || sys::renameat_with(sys::CWD, one, sys::CWD, other, sys::RenameFlags::EXCHANGE))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Self::call("remove", || std::fs::remove_file(path))
    }

    fn lock(&self, path: &Path, alone: bool) -> io::Result<Option<File>> {
        Self::call("lock", || {
            let file = File::open(path)?;
            let wish = if alone {
                sys::FlockOperation::NonBlockingLockExclusive
            } else {
                sys::FlockOperation::NonBlockingLockShared
            };
            match sys::flock(&file, wish) {
                Ok(()) => Ok(Some(file)),
                Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
                Err(error) => Err(io::Error::from(error)),
            }
        })
    }

    fn user(&self) -> u32 {
        rustix::process::geteuid().as_raw()
    }
}

/// Whether a refused lock means that there are no locks there at all; any other error passes, or can be cured.
/// [flock(2), fcntl(2): ENOLCK without a lock manager; EBADF where a lock wants a file that is open for writing,
/// as over NFS, and a folder never is; the others are what a file system without locks answers]
#[must_use]
pub fn has_no_locks(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    errno.is_some_and(|errno| {
        [Errno::NOTSUP, Errno::OPNOTSUPP, Errno::NOSYS, Errno::NOLCK, Errno::BADF, Errno::INVAL].contains(&errno)
    })
}

/// A sentence for the errors that a person meets most, in place of the system's two words.
#[must_use]
pub fn explain(error: &io::Error) -> String {
    use rustix::io::Errno;
    let known = error.raw_os_error().map(Errno::from_raw_os_error).and_then(|errno| match errno {
        Errno::NOSPC => Some("the disk is full"),
        Errno::DQUOT => Some("the disk quota is used up"),
        Errno::ROFS => Some("it is mounted read-only"),
        Errno::ACCESS | Errno::PERM => Some("permission denied"),
        Errno::NOENT => Some("it does not exist"),
        Errno::ISDIR => Some("it is a folder"),
        Errno::NOTDIR => Some("a folder of its path is none"),
        Errno::IO => Some("the disk reports an input/output error"),
        Errno::STALE => Some("the network share was remounted or is gone"),
        _ => None,
    });
    known.map_or_else(|| error.to_string(), str::to_owned)
}

fn meta_of(meta: &std::fs::Metadata) -> Meta {
    Meta {
        identity: (meta.dev(), meta.ino()),
        links: meta.nlink(),
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        size: meta.len(),
        modified_at: UnixSeconds(meta.mtime()),
    }
}

/// File systems whose other side writes without inotify hearing of it (tried with mergerfs, bindfs,
/// sshfs, NFS 4.2 and CIFS 3.1.1). Numbers: `statfs(2)` and Linux's `include/uapi/linux/magic.h`.
fn silent_file_system(magic: sys::FsWord) -> Option<&'static str> {
    Some(match u32::try_from(magic & 0xFFFF_FFFF).ok()? {
        0x6969 => "NFS",
        0xFF53_4D42 | 0xFE53_4D42 | 0x517B => "SMB",
        0x6573_5546 => "FUSE",
        0x0102_1997 => "9p",
        0x786F_4256 => "vboxsf",
        0x00C3_6400 => "Ceph",
        _ => return None,
    })
}

/// Copies every extended attribute that the new file does not have already; POSIX ACLs are among them.
fn copy_xattrs(from: &File, to: &File) -> io::Result<()> {
    let Some(names) = xattr_bytes(|buffer| sys::flistxattr(from.as_fd(), buffer))? else {
        return Ok(());
    };
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let value = |file: &File| xattr_bytes(|buffer| sys::fgetxattr(file.as_fd(), name, buffer));
        let Some(want) = value(from)? else { continue };
        // A security label may be given by the system and not ours to set; equal is enough.
        if value(to)?.as_ref() != Some(&want) {
            sys::fsetxattr(to.as_fd(), name, &want, sys::XattrFlags::empty())?;
        }
    }
    Ok(())
}

/// Reads an attribute, or the list of them; `None` where there is none or the file system has no such thing.
fn xattr_bytes(mut read: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Option<Vec<u8>>> {
    use rustix::io::Errno;
    // The kernel's limit for both is 64 KiB (XATTR_SIZE_MAX, XATTR_LIST_MAX).
    let mut buffer = vec![0; 64 * 1024];
    match read(&mut buffer) {
        Ok(size) => {
            buffer.truncate(size);
            Ok(Some(buffer))
        }
        Err(Errno::NODATA | Errno::NOTSUP | Errno::NOSYS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Fault points, for the sweep in `tests/`: nothing at all in a released binary.
#[cfg(not(feature = "sandbox"))]
pub mod faults {
    /// An operation is about to happen.
    #[expect(clippy::unnecessary_wraps, reason = "the sandbox's version can fail")]
    #[inline]
    pub(crate) const fn point(_name: &'static str) -> std::io::Result<()> {
        Ok(())
    }
}

/// Fault points: the Nth operation of a process fails, or is the moment at which it is killed.
///
/// `KOMETA_AUTHD_FAULT=ENOSPC@7` fails the seventh file or network operation, `ENOSPC@7+9` it and the
/// nine after it, `KILL@7` ends the process with SIGKILL in its place, and `PANIC@7` panics there. With `KOMETA_AUTHD_FAULT_LOG`
/// each operation's number and name are appended to that file, and `KOMETA_AUTHD_STRETCH_MS` waits
/// before each replacement of a file.
#[cfg(feature = "sandbox")]
pub mod faults {
    use std::io;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Mutex, OnceLock};

    enum What {
        Fail(i32),
        Kill,
        Panic,
    }

    struct Plan {
        what: What,
        first: u64,
        last: u64,
    }

    static COUNT: AtomicU64 = AtomicU64::new(0);

    pub(crate) fn point(name: &'static str) -> io::Result<()> {
        static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
        static LOG: OnceLock<Option<Mutex<std::fs::File>>> = OnceLock::new();
        let number = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
        let log = LOG.get_or_init(|| {
            let path = std::env::var_os("KOMETA_AUTHD_FAULT_LOG")?;
            std::fs::File::options().create(true).append(true).open(path).ok().map(Mutex::new)
        });
        if let Some(mut log) = log.as_ref().and_then(|log| log.lock().ok()) {
            use io::Write;
            let _ = writeln!(log, "{number} {name}");
        }
        if matches!(name, "exchange" | "rename") {
            // Time for somebody else to write in between.
            let stretch = std::env::var("KOMETA_AUTHD_STRETCH_MS").ok().and_then(|text| text.parse().ok());
            std::thread::sleep(std::time::Duration::from_millis(stretch.unwrap_or_default()));
        }
        match PLAN.get_or_init(|| std::env::var("KOMETA_AUTHD_FAULT").ok().and_then(|text| parse(&text))) {
            Some(plan) if (plan.first..=plan.last).contains(&number) => match plan.what {
                What::Fail(errno) => Err(io::Error::from_raw_os_error(errno)),
                What::Panic => panic!("a fault was asked for at {name}"),
                What::Kill => loop {
                    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
                },
            },
            _ => Ok(()),
        }
    }

    fn parse(text: &str) -> Option<Plan> {
        use rustix::io::Errno;
        let (what, at) = text.split_once('@')?;
        let fails = |errno: Errno| What::Fail(errno.raw_os_error());
        let what = match what {
            "KILL" => What::Kill,
            "PANIC" => What::Panic,
            "ENOSPC" => fails(Errno::NOSPC),
            "EIO" => fails(Errno::IO),
            "EROFS" => fails(Errno::ROFS),
            "EACCES" => fails(Errno::ACCESS),
            "EBUSY" => fails(Errno::BUSY),
            "EXDEV" => fails(Errno::XDEV),
            "EINTR" => fails(Errno::INTR),
            "ENOLCK" => fails(Errno::NOLCK),
            _ => return None,
        };
        let (first, more) = at.split_once('+').unwrap_or((at, "0"));
        let first: u64 = first.parse().ok()?;
        Some(Plan { what, first, last: first + more.parse::<u64>().ok()? })
    }
}
