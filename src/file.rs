//! The config file as it is at one moment.
//!
//! Reads only. What the text means is for `settings` to say.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, Meta, Open, explain};
use crate::token::Fingerprint;

/// Real configs have 5 to 50 KB, and the largest that was seen 1 MB.
pub const SIZE_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// One reading of the file.
pub struct Snapshot<H> {
    /// The file itself, with symbolic links followed.
    pub path: PathBuf,
    /// All of its text.
    pub text: String,
    /// The fingerprint of the text.
    pub fingerprint: Fingerprint,
    /// Identity, owner, mode.
    pub meta: Meta,
    /// The open file, for its attributes and for a later look at the same inode.
    pub handle: H,
}

/// Why the file cannot be read now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// There is nothing.
    #[error("there is no such file; check the path, and in Docker the volume")]
    Missing,
    /// It is a folder, as Docker makes where the file to mount was missing.
    #[error("it is a folder, not a file; name the config.yml in it")]
    Folder,
    /// A device, a pipe or a socket.
    #[error("it is not an ordinary file")]
    NotAFile,
    /// No config has this size.
    #[error("it has more than {} MiB; no Kometa config has", SIZE_MAX_BYTES / 1024 / 1024)]
    TooLarge,
    /// Not UTF-8: another encoding, or no text at all.
    #[error("line {line}, column {column}: it is not UTF-8 text; save it as UTF-8")]
    NotText {
        /// The line of the first bad byte, from 1.
        line: usize,
        /// Its column in characters, from 1.
        column: usize,
    },
    /// It has no name any more: somebody renamed over it where it is mounted from.
    #[error(
        "the mounted file was replaced outside, and this side still sees the old one; mount its folder in the place of the single file"
    )]
    Stranded,
    /// The system refused.
    #[error("{0}")]
    System(String),
}

/// Reads the file that a path leads to.
pub fn read<D: Disk>(disk: &D, path: &Path) -> Result<Snapshot<D::Handle>, Unreadable> {
    let path = disk.resolve(path).map_err(|error| unreadable(&error))?;
    let handle = disk.open(&path, Open::Read).map_err(|error| unreadable(&error))?;
    let snapshot = read_handle(disk, path, handle)?;
    if snapshot.meta.links == 0 && disk.meta(&snapshot.path).is_ok_and(|meta| meta.identity == snapshot.meta.identity) {
        // Not a file that was replaced between open and read: the path still leads to it.
        return Err(Unreadable::Stranded);
    }
    Ok(snapshot)
}

/// Reads a file that is open.
pub fn read_handle<D: Disk>(disk: &D, path: PathBuf, handle: D::Handle) -> Result<Snapshot<D::Handle>, Unreadable> {
    let (bytes, meta) = disk.read(&handle, SIZE_MAX_BYTES).map_err(|error| unreadable(&error))?;
    if !meta.is_file() {
        return Err(if meta.is_folder() { Unreadable::Folder } else { Unreadable::NotAFile });
    }
    if bytes.len() as u64 > SIZE_MAX_BYTES {
        return Err(Unreadable::TooLarge);
    }
    let fingerprint = Fingerprint::of(&bytes);
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]).into_owned();
        let (line, column) = place(&good);
        Unreadable::NotText { line, column }
    })?;
    Ok(Snapshot { path, text, fingerprint, meta, handle })
}

fn unreadable(error: &io::Error) -> Unreadable {
    match error.kind() {
        io::ErrorKind::NotFound => Unreadable::Missing,
        io::ErrorKind::IsADirectory => Unreadable::Folder,
        io::ErrorKind::NotSeekable => Unreadable::NotAFile,
        _ => Unreadable::System(explain(error)),
    }
}

/// The line and column that follow a text, both from 1.
fn place(text: &str) -> (usize, usize) {
    let line_start = text.rfind('\n').map_or(0, |at| at + 1);
    (text.matches('\n').count() + 1, text[line_start..].chars().count() + 1)
}
