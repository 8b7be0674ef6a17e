//! What the store does with a file and its folder when the system or somebody else has other plans: a real
//! disk, where one operation fails or somebody is faster by a moment.
#![expect(clippy::disallowed_methods, reason = "the test plays the person and the system")]

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use kometa_authd::disk::{self, Disk, Meta, Open, RealDisk};
use kometa_authd::file;
use kometa_authd::journal::pending::Pending;
use kometa_authd::journal::{Dead, Held, History, Intent, Journal, Origin, RESERVED_BYTES, Record};
use kometa_authd::store::{
    Place, Refused, config_file, ensure_state, keep, keep_aside, open_journal, recover, replace, reserve,
};
use kometa_authd::token::{Fingerprint, Grant, Secret, UnixSeconds};
use rustix::io::Errno;

const OLD: &str = "trakt:\n  authorization:\n    access_token: old\n";
const NEW: &str = "trakt:\n  authorization:\n    access_token: newer\n";
const THEIRS: &str = "trakt:\n  authorization:\n    access_token: old\nplex:\n  url: theirs\n";

/// What happens in the place of an operation, or just before it.
type Meddling<'a> = Box<dyn FnOnce() -> io::Result<()> + 'a>;

/// The real disk, with something in the way of one operation.
#[derive(Default)]
struct Meddled<'a> {
    at: Cell<(&'static str, usize)>,
    act: RefCell<Option<Meddling<'a>>>,
    is_mount_point: bool,
    has_no_exchange: bool,
    /// Nothing works any more once something has failed.
    is_fragile: bool,
    is_broken: Cell<bool>,
    /// What somebody does in the last moment before an exchange.
    in_exchange: RefCell<Option<Meddling<'a>>>,
    largest_write: Cell<usize>,
    log: RefCell<Vec<&'static str>>,
}

impl<'a> Meddled<'a> {
    /// The `number`th of an operation fails, or comes after what somebody does.
    fn at(operation: &'static str, number: usize, act: impl FnOnce() -> io::Result<()> + 'a) -> Self {
        let meddled = Self { at: Cell::new((operation, number)), ..Self::default() };
        *meddled.act.borrow_mut() = Some(Box::new(act));
        meddled
    }

    fn failing(operation: &'static str, number: usize, errno: Errno) -> Self {
        Self::at(operation, number, move || Err(errno.into()))
    }

    fn before(&self, operation: &'static str) -> io::Result<()> {
        self.log.borrow_mut().push(operation);
        if self.is_broken.get() {
            return Err(Errno::IO.into());
        }
        let (wanted, number) = self.at.get();
        if operation != wanted {
            return Ok(());
        }
        self.at.set((wanted, number.wrapping_sub(1)));
        match self.act.borrow_mut().take_if(|_| number == 1) {
            Some(act) => act().inspect_err(|_| self.is_broken.set(self.is_fragile)),
            None => Ok(()),
        }
    }

    fn made(&self, operation: &str) -> bool {
        self.log.borrow().contains(&operation)
    }
}

impl Disk for Meddled<'_> {
    type Handle = File;

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        RealDisk.resolve(path)
    }
    fn meta(&self, path: &Path) -> io::Result<Meta> {
        self.before("meta")?;
        RealDisk.meta(path)
    }
    fn place(&self, path: &Path) -> io::Result<disk::Place> {
        Ok(disk::Place { mount_point: self.is_mount_point, ..RealDisk.place(path)? })
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        RealDisk.list(folder)
    }
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.before("create_folder")?;
        RealDisk.create_folder(path)
    }
    fn open(&self, path: &Path, how: Open) -> io::Result<File> {
        self.before(if how == Open::CreateNew { "create" } else { "open" })?;
        RealDisk.open(path, how)
    }
    fn read(&self, file: &File, max_bytes: u64) -> io::Result<(Vec<u8>, Meta)> {
        self.before("read")?;
        RealDisk.read(file, max_bytes)
    }
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.before("write_at")?;
        self.largest_write.set(self.largest_write.get().max(bytes.len()));
        RealDisk.write_at(file, bytes, offset)
    }
    fn set_size(&self, file: &File, size: u64) -> io::Result<()> {
        self.before("set_size")?;
        RealDisk.set_size(file, size)
    }
    fn copy_attributes(&self, from: &File, to: &File) -> io::Result<()> {
        self.before("copy_attributes")?;
        RealDisk.copy_attributes(from, to)
    }
    fn sync(&self, file: &File) -> io::Result<()> {
        self.before("sync")?;
        RealDisk.sync(file)
    }
    fn sync_data(&self, file: &File) -> io::Result<()> {
        self.before("sync_data")?;
        RealDisk.sync_data(file)
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.before("sync_folder")?;
        RealDisk.sync_folder(folder)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        // What is to change places with the config gets its name first.
        self.before(if to.extension() == Some("swap".as_ref()) { "name" } else { "rename" })?;
        RealDisk.rename(from, to)
    }
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        self.before("exchange")?;
        if self.has_no_exchange {
            return Err(Errno::INVAL.into());
        }
        if let Some(act) = self.in_exchange.borrow_mut().take() {
            act()?;
        }
        RealDisk.exchange(one, other)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.before("remove")?;
        RealDisk.remove(path)
    }
    fn lock(&self, path: &Path, alone: bool) -> io::Result<Option<File>> {
        RealDisk.lock(path, alone)
    }
    fn user(&self) -> u32 {
        RealDisk.user()
    }
}

/// A folder with a config in it, and its state folder.
struct Home {
    folder: tempfile::TempDir,
    place: Place,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().canonicalize().unwrap().join("config.yml");
        fs::write(&config, OLD).unwrap();
        let place = Place::new(&config, None, "trakt");
        ensure_state(&RealDisk, &place.state).unwrap();
        Self { folder, place }
    }

    /// With a second name for the config, so that it is written in place.
    fn in_place() -> Self {
        let home = Self::new();
        fs::hard_link(&home.place.config, home.folder.path().join("second-name.yml")).unwrap();
        home
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.place.config).unwrap()
    }

    fn inode(&self) -> u64 {
        fs::metadata(&self.place.config).unwrap().ino()
    }

    /// Puts `new` in the place of `OLD`; whether that was done, and what files were taken out.
    fn replace(&self, disk: &Meddled, new: &str) -> (Result<bool, Refused>, Vec<String>) {
        let (mut orphans, mut edits) = (Vec::new(), 0);
        let seen = Fingerprint::of(OLD.as_bytes());
        let mut note =
            |record: &Record| edits += usize::from(matches!(record, Record::Edit(before, _) if *before == seen));
        let done = replace(disk, &self.place, seen, &mut orphans, &mut note, &|_| Ok(Some(new.to_owned())));
        assert!(done.is_err() || edits > 0, "no note was made of the edit");
        let expected = Fingerprint::of(new.as_bytes());
        let done = done.map(|after| after.is_some_and(|after| after == expected));
        (done, orphans.into_iter().map(|orphan| orphan.text).collect())
    }

    /// Nothing is left over beside the config and in the state folder.
    fn assert_clean(&self, what: &str) {
        assert!(!self.place.has_leftovers(&RealDisk), "{what}: something is left over");
    }
}

/// By whichever way the file system has, the new text takes the place, and what stood there is told of.
#[test]
fn ways() {
    for (what, disk, by) in [
        ("as usual", Meddled::default(), "exchange"),
        ("without an exchange", Meddled::failing("exchange", 1, Errno::INVAL), "rename"),
        ("on an old kernel", Meddled::failing("exchange", 1, Errno::NOSYS), "rename"),
        ("where nothing can be renamed", Meddled::failing("exchange", 1, Errno::XDEV), "in place"),
        ("where it is mounted", Meddled::failing("exchange", 1, Errno::BUSY), "in place"),
        ("in a folder of somebody else's", Meddled::failing("create", 1, Errno::ACCESS), "in place"),
        ("where owners cannot be given", Meddled::failing("copy_attributes", 1, Errno::PERM), "in place"),
        ("on a mount point", Meddled { is_mount_point: true, ..Meddled::default() }, "in place"),
    ] {
        let home = Home::new();
        let before = home.inode();
        let (done, orphans) = home.replace(&disk, NEW);
        assert!(done.is_ok_and(|done| done), "{what}");
        assert_eq!(home.text(), NEW, "{what}");
        assert_eq!(home.inode() == before, by == "in place", "{what}");
        assert_eq!(disk.made("rename"), by == "rename", "{what}");
        assert_eq!(orphans, if by == "in place" { vec![] } else { vec![OLD] }, "{what}");
        home.assert_clean(what);
    }
    let home = Home::in_place();
    let disk = Meddled::default();
    assert!(home.replace(&disk, &OLD.replace("old", "new")).0.is_ok_and(|done| done));
    assert!(!disk.made("exchange") && !disk.made("set_size"), "not needed");
    home.assert_clean("a second name");
    let home = Home::in_place();
    let shorter = OLD.replace("old", "o");
    assert!(home.replace(&Meddled::default(), &shorter).0.is_ok_and(|done| done));
    assert_eq!(home.text(), shorter);
}

/// Where an operation fails that no other way replaces, the file is the old one, and nothing is left over.
#[test]
fn failures() {
    for (operation, number, errno) in
        [("create", 1, Errno::NOSPC), ("write_at", 1, Errno::NOSPC), ("sync", 1, Errno::IO), ("exchange", 1, Errno::IO)]
    {
        let home = Home::new();
        let (done, orphans) = home.replace(&Meddled::failing(operation, number, errno), NEW);
        assert!(matches!(done, Err(Refused::Folder { .. })), "{operation}");
        assert_eq!((home.text().as_str(), orphans.len()), (OLD, 0), "{operation}");
        home.assert_clean(operation);
    }
    // The new text is in its place, and the old one cannot be taken away: that is said.
    let home = Home::new();
    let (done, _) = home.replace(&Meddled::failing("remove", 1, Errno::IO), NEW);
    assert!(matches!(done, Err(Refused::Folder { .. })) && home.text() == NEW);
    let home = Home::new();
    assert!(home.replace(&Meddled::failing("sync_folder", 1, Errno::IO), NEW).0.is_err());
}

/// Whoever writes a moment before us is not overwritten, whether into the file or over it, even with the
/// same text, for they may write on. Where that is seen before the swap, none is made: for its moment a
/// reader would find our text instead of theirs.
#[test]
fn somebody_is_faster() {
    for (way, operation, number) in
        [("exchange", "sync", 1), ("exchange", "exchange", 1), ("rename", "sync", 2), ("in place", "sync", 1)]
    {
        for (what, text) in [("into it", THEIRS), ("over it", THEIRS), ("over it, the same", OLD)] {
            let home = if way == "in place" { Home::in_place() } else { Home::new() };
            let (config, other) = (home.place.config.clone(), home.folder.path().join("other.yml"));
            let meddled = Meddled::at(operation, number, || {
                if what == "into it" {
                    return fs::write(&config, text);
                }
                fs::write(&other, text)?;
                fs::rename(&other, &config)
            });
            let disk = Meddled { has_no_exchange: way == "rename", ..meddled };
            let (done, _) = home.replace(&disk, NEW);
            assert!(matches!(done, Err(Refused::Changed)), "{way}, {operation}, {what}");
            assert_eq!(home.text(), text, "{way}, {operation}, {what}");
            // A file system that knows no exchange was asked for one before they wrote.
            let swaps = disk.log.borrow().iter().filter(|made| ["exchange", "rename"].contains(made)).count();
            let expected = match (way, operation) {
                ("exchange", "exchange") => 2, // There and back.
                ("rename", _) => 1,
                _ => 0,
            };
            assert_eq!(swaps, expected, "{way}, {operation}, {what}");
            home.assert_clean(what);
        }
    }
    // What we wrote in place is not what is there.
    let home = Home::in_place();
    let config = home.place.config.clone();
    let disk = Meddled::at("sync", 2, || fs::write(&config, THEIRS));
    assert!(matches!(home.replace(&disk, NEW).0, Err(Refused::Changed)));
    assert_eq!(home.text(), THEIRS);
}

/// What somebody writes between our last look and our write in place stays, before and behind the bytes
/// that we change.
#[test]
fn in_place_only_what_differs_is_written() {
    let home = Home::in_place();
    let config = home.place.config.clone();
    let theirs = OLD.replace("trakt", "Trakt").replace("old\n", "old # theirs\nplex:\n");
    let disk = Meddled::at("write_at", 2, || fs::write(&config, &theirs));
    let (done, _) = home.replace(&disk, &OLD.replace("old", "new"));
    assert!(matches!(done, Err(Refused::Changed)));
    assert_eq!(home.text(), theirs.replace("old", "new"));
    home.assert_clean("after a mixture");
}

/// A write in place that failed in the middle is taken back, and one that was cut off is finished; what is whole, or
/// what somebody wrote since, stays.
#[test]
fn a_torn_write_is_mended() {
    let torn = format!("{}{}", &NEW[..NEW.len() - 4], &OLD[NEW.len() - 4..]);
    for (what, found, taken_back, finished) in [
        ("torn", torn.as_str(), OLD, NEW),
        ("not begun", OLD, OLD, OLD),
        ("whole, and not yet noted", NEW, NEW, NEW),
        ("edited since", THEIRS, THEIRS, THEIRS),
    ] {
        for is_cut_off in [false, true] {
            let home = Home::in_place();
            let config = home.place.config.clone();
            let meddled = Meddled::at("write_at", 2, || {
                fs::write(&config, found)?;
                Err(Errno::IO.into())
            });
            let disk = Meddled { is_fragile: is_cut_off, ..meddled };
            assert!(home.replace(&disk, NEW).0.is_err(), "{what}");
            if is_cut_off {
                assert!(home.place.has_leftovers(&RealDisk), "{what}: nothing to finish it from");
                recover(&RealDisk, &home.place).unwrap();
            }
            assert_eq!(home.text(), if is_cut_off { finished } else { taken_back }, "{what}");
            home.assert_clean(what);
        }
    }
    // It is there, but it is not known to be on the medium: it is synced again before the copy goes.
    let home = Home::in_place();
    let disk = Meddled::failing("sync", 2, Errno::IO);
    assert!(home.replace(&disk, NEW).0.is_err());
    assert_eq!(home.text(), NEW);
    assert!(disk.log.borrow().ends_with(&["sync", "read", "sync", "remove"]), "{:?}", disk.log.borrow());
    home.assert_clean("not synced");
    // The end of the old text, which is longer, cannot be cut off.
    let home = Home::in_place();
    let disk = Meddled::failing("set_size", 1, Errno::IO);
    assert!(home.replace(&disk, &OLD.replace("old", "o")).0.is_err());
    assert_eq!(home.text(), OLD);
    home.assert_clean("longer");
}

/// What a stop between two steps of an exchange left behind is told from somebody's edit, whichever account's it was.
#[test]
fn a_leftover_is_cleared_away() {
    let half = &NEW[..20];
    for provider in ["trakt", "mal"] {
        for (what, config, is_whole, leftover, expected) in [
            ("before it was written", OLD, false, half, OLD),
            ("a trial, when the edit was long done", NEW, false, "\n\n\n", NEW),
            ("before the exchange", OLD, true, NEW, OLD),
            ("after the exchange", NEW, true, OLD, NEW),
            ("somebody's edit came out", NEW, true, THEIRS, THEIRS),
            ("somebody's edit came out, and somebody wrote", THEIRS, true, OLD, THEIRS),
        ] {
            let home = Home::new();
            let place = Place::new(&home.place.config, None, provider);
            let edit = Record::Edit(Fingerprint::of(OLD.as_bytes()), Fingerprint::of(NEW.as_bytes()));
            open_journal(&RealDisk, &place).unwrap().add(&RealDisk, &edit).unwrap();
            fs::write(&home.place.config, config).unwrap();
            fs::write(if is_whole { &home.place.swap } else { &home.place.temp }, leftover).unwrap();
            assert!(home.place.has_leftovers(&RealDisk), "{what}: seen");
            recover(&RealDisk, &home.place).unwrap();
            assert_eq!(home.text(), expected, "{what}");
            home.assert_clean(what);
        }
    }
}

/// Where what came out of the exchange cannot be looked at, it is not thrown away: it may be somebody's edit. And
/// the file that stood there is told of, because somebody may have it open.
#[test]
fn what_came_out_unseen() {
    for (what, theirs, is_fragile, expected) in [
        ("nobody was faster", None, false, OLD),
        ("somebody was", Some(THEIRS), false, THEIRS),
        ("nobody was faster, and it cannot go back", None, true, NEW),
        ("somebody was, and it cannot go back", Some(THEIRS), true, THEIRS),
    ] {
        let home = Home::new();
        let (config, other) = (home.place.config.clone(), home.folder.path().join("other.yml"));
        let mut journal = open_journal(&RealDisk, &home.place).unwrap();
        let edit = Record::Edit(Fingerprint::of(OLD.as_bytes()), Fingerprint::of(NEW.as_bytes()));
        journal.add(&RealDisk, &edit).unwrap();
        let disk = Meddled { is_fragile, ..Meddled::failing("read", 3, Errno::ACCESS) };
        *disk.in_exchange.borrow_mut() = theirs.map(|theirs| -> Meddling {
            Box::new(move || fs::write(&other, theirs).and_then(|()| fs::rename(&other, &config)))
        });
        let (done, orphans) = home.replace(&disk, NEW);
        assert!(matches!(done, Err(Refused::Folder { .. })), "{what}: {done:?}");
        assert_eq!(orphans.first().map(String::as_str), Some(OLD), "{what}");
        recover(&RealDisk, &home.place).unwrap();
        assert_eq!(home.text(), expected, "{what}");
        home.assert_clean(what);
    }
}

/// Before a token is spent, the folder or the file has shown that it takes the new text.
#[test]
fn reservations() {
    for (what, home, disk, possible) in [
        ("as usual", Home::new(), Meddled::default(), true),
        ("no room", Home::new(), Meddled::failing("write_at", 1, Errno::NOSPC), false),
        ("no room for a new file", Home::new(), Meddled::failing("create", 1, Errno::NOSPC), false),
        ("no new files, but the one", Home::new(), Meddled::failing("create", 1, Errno::ACCESS), true),
        ("a second name, and no room for a copy", Home::in_place(), Meddled::failing("create", 1, Errno::NOSPC), false),
        ("a mount point", Home::new(), Meddled { is_mount_point: true, ..Meddled::default() }, true),
    ] {
        let snapshot = file::read(&RealDisk, &home.place.config).unwrap();
        let journal = open_journal(&RealDisk, &home.place).unwrap();
        let record = Record::Intent(Intent { spends: Fingerprint::of(b"token"), at: UnixSeconds(1_800_000_000) });
        let reserved = reserve(&disk, &home.place, &snapshot, journal, &record, &|_| Ok(Some(NEW.to_owned())));
        assert_eq!(reserved.is_ok(), possible, "{what}");
        // What is to be written in place has to be open for that.
        let writable = ["no new files, but the one", "a second name, and no room for a copy", "a mount point"];
        assert_eq!(disk.made("open"), writable.contains(&what), "{what}: whether the file was opened for writing");
        // Room for the new text with tokens as long as any, and not for much more.
        let (size, longest) = (disk.largest_write.get(), NEW.len() + RESERVED_BYTES);
        assert!(!possible || (longest..2 * longest).contains(&size), "{what}: {size} bytes");
        let intent = open_journal(&RealDisk, &home.place).unwrap().history.intent;
        assert_eq!(intent.is_some(), possible, "{what}: whether the journal knows");
        home.assert_clean(what);
        assert_eq!(home.text(), OLD, "{what}");
    }
}

/// A grant is kept by one write and one sync; what the file says as well goes without the sync.
#[test]
fn grants_come_first() {
    let grant = Grant {
        access_token: Secret::new("a".repeat(1000)),
        token_type: None,
        expires_in: None,
        refresh_token: Some(Secret::new("r".repeat(1000))),
        scope: None,
        created_at: None,
    };
    let (at, client) = (UnixSeconds(1_800_000_000), Fingerprint::of(b"client"));
    let held = |origin| Held { grant: grant.clone(), origin, at, client, draw: 0, published: false };
    let home = Home::new();
    let snapshot = file::read(&RealDisk, &home.place.config).unwrap();
    let journal = open_journal(&RealDisk, &home.place).unwrap();
    let intent = Record::Intent(Intent { spends: Fingerprint::of(b"token"), at });
    let reserved = reserve(&RealDisk, &home.place, &snapshot, journal, &intent, &|_| Ok(None));
    let mut reservation = reserved.unwrap_or_else(|refused| panic!("{refused}"));
    let size = fs::metadata(&home.place.journal).unwrap().len();
    let disk = Meddled::default();
    keep(&disk, &home.place, &mut reservation, &held(Origin::Refreshed)).unwrap();
    assert_eq!(*disk.log.borrow(), ["write_at", "sync_data"]);
    assert_eq!(fs::metadata(&home.place.journal).unwrap().len(), size, "the reserved room was not used");
    let mut journal = open_journal(&RealDisk, &home.place).unwrap();
    assert!(journal.history.current == Some(held(Origin::Refreshed)));
    for (record, syncs) in [
        (Record::Published, false),
        (Record::Edit(client, client), false),
        (Record::Used(client), false),
        // The file says it again, unless a stale copy is written over it: then nothing but this does.
        (Record::Held(held(Origin::Adopted)), true),
        (Record::Held(held(Origin::Authorized)), true),
        (Record::Dead(Dead { token: client, at, lost: false }), true),
        (Record::SignedOut(at), true),
        (Record::LoggedOut(at), true),
    ] {
        let disk = Meddled::default();
        journal.add(&disk, &record).unwrap();
        assert_eq!(disk.made("sync_data"), syncs);
    }
    let first = Record::Held(held(Origin::Adopted));
    let disk = Meddled::default();
    open_journal(&disk, &Home::new().place).unwrap().add(&disk, &first).unwrap();
    assert!(!disk.made("sync_data"));
}

/// Before a token is spent the name of a new journal is on the medium; of one with room it is already.
#[test]
fn the_name_of_a_journal() {
    let home = Home::new();
    let intent = Record::Intent(Intent { spends: Fingerprint::of(b"token"), at: UnixSeconds(1_800_000_000) });
    for (what, syncs) in [("new", true), ("with room", false)] {
        let disk = Meddled::default();
        let mut journal = open_journal(&RealDisk, &home.place).unwrap();
        journal.reserve(&disk, &intent, &home.place.state).unwrap();
        assert_eq!(disk.made("sync_folder"), syncs, "{what}");
    }
}

/// A journal that is missing is an empty one, one that cannot be read is none, and a short one stays as it is.
#[test]
fn journals() {
    let home = Home::new();
    assert!(Journal::peek(&RealDisk, &home.place.journal).unwrap() == History::default());
    let record = Record::Succeeded(UnixSeconds(1_800_000_000));
    let mut journal = open_journal(&RealDisk, &home.place).unwrap();
    for _ in 0..100 {
        journal.add(&RealDisk, &record).unwrap();
    }
    let disk = Meddled::default();
    assert!(open_journal(&disk, &home.place).unwrap().history.last_success.is_some());
    assert!(!disk.made("rename"), "written anew");
    let denied = Meddled::failing("open", 1, Errno::ACCESS);
    assert!(Journal::peek(&denied, &home.place.journal).is_err());
}

/// What a journal could not take goes into it in order, as soon as it takes something again.
#[test]
fn what_waits_is_written() {
    let home = Home::new();
    let mut pending = Pending::default();
    for at in [1, 2] {
        pending.push(Record::SignedOut(UnixSeconds(at)));
    }
    let mut journal = open_journal(&RealDisk, &home.place).unwrap();
    let full = Meddled::failing("write_at", 2, Errno::NOSPC);
    assert!(pending.flush(&full, &mut journal).is_err() && !pending.is_empty());
    let signed_out = || open_journal(&RealDisk, &home.place).unwrap().history.signed_out;
    assert_eq!(signed_out(), Some(UnixSeconds(1)), "the first");
    pending.flush(&RealDisk, &mut journal).unwrap();
    assert!(pending.is_empty());
    assert_eq!(signed_out(), Some(UnixSeconds(2)), "and the second");
}

/// What could not go into the config is kept in the state folder, once for each text.
#[test]
fn kept_aside() {
    let home = Home::new();
    let first = keep_aside(&RealDisk, &home.place, THEIRS).unwrap();
    assert_eq!(fs::read_to_string(&first).unwrap(), THEIRS);
    assert_eq!(first.parent(), Some(home.place.state.as_path()));
    assert_eq!(keep_aside(&RealDisk, &home.place, THEIRS).unwrap(), first);
    assert_ne!(keep_aside(&RealDisk, &home.place, NEW).unwrap(), first);
    let refused = keep_aside(&Meddled::failing("create", 1, Errno::ACCESS), &home.place, OLD).unwrap_err();
    assert!(refused.to_string().ends_with("permission denied"), "{refused}");
}

/// What is wrong with a state folder is said as it is, and not taken for one that is missing.
#[test]
fn state_folders() {
    let home = Home::new();
    let refused = ensure_state(&Meddled::failing("meta", 1, Errno::ACCESS), &home.place.state).unwrap_err();
    assert!(refused.to_string().ends_with(": permission denied"), "{refused}");
    let nowhere = home.folder.path().join("missing").join("state");
    let refused = ensure_state(&RealDisk, &nowhere).unwrap_err();
    assert!(refused.to_string().ends_with("the folder that it is to be in does not exist"), "{refused}");
    let denied = Meddled::failing("create_folder", 1, Errno::ACCESS);
    let refused = ensure_state(&denied, &home.folder.path().join("state")).unwrap_err();
    assert!(refused.to_string().ends_with("cannot be made: permission denied"), "{refused}");
    // Of the disk, and over when that is: nothing of the folder has to be cured.
    for (errno, why) in [
        (Errno::NOSPC, "the disk is full"),
        (Errno::DQUOT, "the disk quota is used up"),
        (Errno::ROFS, "it is mounted read-only"),
    ] {
        let path = home.folder.path().join("state");
        let refused = ensure_state(&Meddled::failing("create_folder", 1, errno), &path).unwrap_err();
        assert!(matches!(refused, Refused::Folder { .. }), "{refused}");
        assert_eq!(refused.to_string(), format!("{}: {why}", path.display()));
    }
    let config = Path::new("/config/config.yml");
    assert_eq!(config_file(config, None, "told"), Path::new("/config/.kometa-authd/config.yml#told"));
    let elsewhere = config_file(config, Some(Path::new("/state")), "told");
    assert!(elsewhere.starts_with("/state") && elsewhere.to_string_lossy().ends_with("-config.yml#told"));
}
