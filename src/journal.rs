//! What must survive a crash: one journal an account, intent before, grant after.
//!
//! A journal is a file of lines, each `CHECKSUM JSON`. A line that is torn
//! fails its checksum and counts as never written; the lines before it stand.
//! [`History`] is what the lines add up to.
//!
//! Invariant: once [`Journal::reserve`] has returned, the next record of up to
//! [`RESERVED_BYTES`] is one overwrite of bytes that the file already has, so
//! it needs no new space and no new metadata. This file never decides
//! anything, and never gives a secret to anything but the journal itself.

use std::io;
use std::path::Path;

use crate::disk::{Disk, Open};
use crate::token::{Fingerprint, Grant, Secret, UnixSeconds};

mod line;
pub mod pending;
pub mod sign_in;
pub mod spent;

use line::{line, parse_line};
use sign_in::{SignIn, Step};
use spent::Spent;

/// Space that is made sure of before a token is spent. The longest real record
/// has two tokens of about 1 000 characters each.
pub const RESERVED_BYTES: usize = 8 * 1024;
/// A journal longer than this is written anew where less than half of it still matters: every look reads it
/// whole. What matters is 2 KB in an ordinary life, and up to 50 KB after years of one refresh a day.
const COMPACT_ABOVE_BYTES: usize = 16 * 1024;
/// A journal longer than this is not ours.
const READ_MAX_BYTES: u64 = 1024 * 1024;
/// How many used PINs and pasted addresses are remembered.
const USED_MAX: usize = 50;

/// Where a pair came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// We refreshed it.
    Refreshed,
    /// We exchanged a PIN, a device code or a pasted address for it.
    Authorized,
    /// Somebody else wrote it into the file.
    Adopted,
}

/// A pair that we know.
#[derive(Clone, PartialEq, Eq)]
pub struct Held {
    /// The grant, with its refresh token.
    pub grant: Grant,
    /// Where it came from.
    pub origin: Origin,
    /// When we got it.
    pub at: UnixSeconds,
    /// The client that it was granted to.
    pub client: Fingerprint,
    /// The jitter of its schedule in thousandths of the largest, drawn once.
    pub draw: u16,
    /// Whether the config file has it.
    pub published: bool,
}

impl Held {
    /// The fingerprint of its refresh token.
    #[must_use]
    pub fn refresh(&self) -> Option<Fingerprint> {
        self.grant.refresh_token.as_ref().map(Secret::fingerprint)
    }
}

/// A request that spends something, and whose answer we do not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intent {
    /// What it spends: a refresh token, a PIN.
    pub spends: Fingerprint,
    /// When it was about to be sent.
    pub at: UnixSeconds,
}

/// A refresh token that the provider called invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dead {
    /// Which.
    pub token: Fingerprint,
    /// When it last did.
    pub at: UnixSeconds,
    /// Whether an earlier request had spent it, and its answer was lost on the way.
    pub lost: bool,
}

/// How the last attempts went, while none has succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The first failure in a row.
    pub since: UnixSeconds,
    /// How many in a row.
    pub attempts: u32,
    /// The next attempt is not before this.
    pub not_before: UnixSeconds,
    /// What happened, for a person.
    pub what: String,
    /// Whether the provider named the time itself (`Retry-After`): then nobody's impatience shortens it.
    pub asked: bool,
    /// The credentials that the provider refused: with others it is tried again at once.
    pub refused: Option<Fingerprint>,
}

/// What a journal adds up to.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The newest pair.
    pub current: Option<Held>,
    /// The pair that a foreign one took the place of, while it may still live.
    pub fallback: Option<Held>,
    /// A request that may have spent its token: set before it, cleared by its answer.
    pub intent: Option<Intent>,
    /// The refresh tokens known to be spent, oldest first.
    pub spent: Spent,
    /// Refresh tokens that the provider called invalid, oldest first.
    pub dead: Vec<Dead>,
    /// PINs and pasted addresses that were sent, oldest first.
    pub used: Vec<Fingerprint>,
    /// A sign-out that we respect: the block was emptied at this time.
    pub signed_out: Option<UnixSeconds>,
    /// Failures since the last success.
    pub trouble: Option<Trouble>,
    /// The last grant of our own.
    pub last_success: Option<UnixSeconds>,
    /// The edit that was being made: fingerprints of the text before and after.
    pub edit: Option<(Fingerprint, Fingerprint)>,
    /// A sign-in that is under way.
    pub sign_in: SignIn,
}

impl History {
    /// Whether a refresh token is known to be spent.
    #[must_use]
    pub fn is_spent(&self, token: Fingerprint) -> bool {
        self.spent.contains(token)
    }

    /// What is known of a refresh token that the provider called invalid.
    #[must_use]
    pub fn dead(&self, token: Fingerprint) -> Option<Dead> {
        self.dead.iter().copied().find(|dead| dead.token == token)
    }

    /// The newest pair, where the file does not have it yet.
    #[must_use]
    pub fn unpublished(&self) -> Option<&Held> {
        self.current.as_ref().filter(|held| !held.published)
    }

    /// Takes one record in. Replaying records in order gives the state; nothing else changes it.
    pub fn apply(&mut self, record: &Record) {
        match record {
            // A second attempt at the same token does not make the first one known.
            Record::Intent(intent) if self.intent.is_some_and(|open| open.spends == intent.spends) => {}
            Record::Intent(intent) => self.intent = Some(*intent),
            Record::Held(held) => self.hold(held),
            Record::Published => {
                (self.edit, self.signed_out) = (None, None);
                if let Some(current) = &mut self.current {
                    current.published = true;
                }
            }
            Record::Fallback(held) => self.fall_back_on(held.clone()),
            Record::Spent(tokens) => {
                for token in tokens {
                    self.spend(*token);
                }
            }
            Record::Dead(dead) => {
                self.dead.retain(|known| known.token != dead.token);
                keep_newest(&mut self.dead, *dead, USED_MAX);
                (self.intent, self.trouble) = (None, None);
                // What was fallen back on is no help either, or it would be tried for ever.
                if self.fallback.as_ref().and_then(Held::refresh) == Some(dead.token) {
                    self.fallback = None;
                }
            }
            Record::Used(token) => {
                self.used.retain(|used| used != token);
                keep_newest(&mut self.used, *token, USED_MAX);
            }
            Record::Trouble { trouble, settled } => {
                if *settled {
                    self.intent = None;
                }
                self.trouble = Some(trouble.clone());
            }
            Record::SignedOut(at) => {
                // The pair stays: an emptied block may also be half of somebody's save, and what follows a copy
                // with a spent token in it.
                self.signed_out = Some(*at);
                (self.trouble, self.intent) = (None, None);
            }
            Record::LoggedOut(at) => {
                for held in [self.current.take(), self.fallback.take()].into_iter().flatten() {
                    if let Some(token) = held.refresh() {
                        self.spend(token);
                    }
                }
                (self.signed_out, self.sign_in) = (Some(*at), SignIn::default());
                (self.trouble, self.intent) = (None, None);
            }
            Record::SignIn(step) => {
                self.sign_in.apply(step);
                if matches!(step, Step::Came(_)) {
                    self.trouble = None;
                }
            }
            Record::Succeeded(at) => self.last_success = Some(*at),
            Record::Edit(before, after) => self.edit = Some((*before, *after)),
        }
    }

    fn hold(&mut self, held: &Held) {
        let token = held.refresh();
        // What stood in its place was half a save, or somebody's mistake: what we knew of the pair still holds.
        let is_back = |known: &mut Held| held.origin == Origin::Adopted && known.grant == held.grant;
        let known = self.fallback.take_if(is_back).map(|known| Held { published: true, ..known });
        if held.origin == Origin::Adopted {
            if let Some(current) = self.current.take().filter(|current| current.refresh() != token) {
                // Kometa's refresh spends the old token; a person's new authorization leaves it alive.
                // A newer complete pair is taken for the first, and everything else for the second.
                // Of a pair that never reached the file, nobody else can have made a newer one.
                match current.refresh() {
                    Some(old) if current.published && held.supersedes(&current) => self.spend(old),
                    _ => self.fall_back_on(current),
                }
            }
        } else {
            if let (Origin::Refreshed, Some(intent)) = (held.origin, self.intent)
                && Some(intent.spends) != token
            {
                self.spend(intent.spends);
            }
            if held.origin == Origin::Authorized
                && let Some(old) = self.current.as_ref().and_then(Held::refresh)
            {
                self.spend(old);
            }
            self.last_success = Some(held.at);
            self.fallback = None;
        }
        (self.intent, self.trouble, self.signed_out) = (None, None, None);
        self.sign_in = SignIn::default();
        if let Some(token) = token {
            // A provider that hands a token out again knows best.
            self.spent.remove(token);
            self.dead.retain(|dead| dead.token != token);
        }
        self.current = known.or_else(|| Some(held.clone()));
    }

    /// Keeps a pair that may live beside the current one; one that was called invalid is none.
    fn fall_back_on(&mut self, held: Held) {
        if held.refresh().is_none_or(|token| self.dead(token).is_none()) {
            self.fallback = Some(held);
        }
    }

    fn spend(&mut self, token: Fingerprint) {
        self.spent.insert(token);
        if self.fallback.as_ref().and_then(Held::refresh) == Some(token) {
            self.fallback = None;
        }
    }

    /// The fewest records that add up to this state.
    fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        if let Some(current) = &self.current {
            // First, because it clears what follows.
            records.push(Record::Held(current.clone()));
        }
        records.extend(self.signed_out.map(Record::SignedOut));
        let spent: Vec<_> = self.spent.iter().collect();
        if !spent.is_empty() {
            records.push(Record::Spent(spent));
        }
        records.extend(self.fallback.clone().map(Record::Fallback));
        records.extend(self.dead.iter().copied().map(Record::Dead));
        records.extend(self.used.iter().copied().map(Record::Used));
        records.extend(self.sign_in.steps().into_iter().map(Record::SignIn));
        // After the sign-in, whose code would clear it.
        records.extend(self.trouble.clone().map(|trouble| Record::Trouble { trouble, settled: false }));
        records.extend(self.intent.map(Record::Intent));
        records.extend(self.last_success.map(Record::Succeeded));
        records.extend(self.edit.map(|(before, after)| Record::Edit(before, after)));
        records
    }

    /// These records as a journal has them.
    fn lines(&self) -> Vec<u8> {
        self.records().iter().flat_map(line).collect()
    }
}

impl Held {
    /// Whether this pair looks like the refreshed form of an older one: complete, and made later.
    fn supersedes(&self, older: &Self) -> bool {
        let made = |held: &Self| held.grant.created_at.or_else(|| held.grant.access_token.claimed_life().map(|c| c.0));
        self.client == older.client
            && self.grant.expires_in.is_some_and(|lifetime| lifetime > 0)
            && made(self).zip(made(older)).is_some_and(|(new, old)| new > old && new <= self.at.plus(86_400))
    }
}

/// One line of a journal.
#[derive(Clone, PartialEq, Eq)]
pub enum Record {
    /// A request that spends a token is about to be sent.
    Intent(Intent),
    /// A pair is ours to keep, published or not.
    Held(Held),
    /// The config file has the newest pair.
    Published,
    /// A pair that may still live.
    Fallback(Held),
    /// Refresh tokens that are spent.
    Spent(Vec<Fingerprint>),
    /// The provider called a refresh token invalid.
    Dead(Dead),
    /// A PIN or a pasted address was sent.
    Used(Fingerprint),
    /// An attempt failed; `settled` says that no request is left whose outcome is unknown.
    Trouble {
        /// The state of the attempts.
        trouble: Trouble,
        /// Whether nothing can have been spent.
        settled: bool,
    },
    /// The block was emptied, and we respect it.
    SignedOut(UnixSeconds),
    /// A person signed out: every pair is revoked and forgotten.
    LoggedOut(UnixSeconds),
    /// A step of a sign-in.
    SignIn(Step),
    /// When the last grant of our own came.
    Succeeded(UnixSeconds),
    /// An edit of the config file is about to be put in place.
    Edit(Fingerprint, Fingerprint),
}

impl Record {
    /// Whether a power cut may take it from behind `history`: the file or the provider would only say it again.
    /// The file says no more whose pair took the place of ours once a stale copy has been written over it.
    fn may_be_lost(&self, history: &History) -> bool {
        match self {
            Self::Published | Self::Edit(..) | Self::Used(_) => true,
            Self::Held(held) => held.origin == Origin::Adopted && history.current.is_none(),
            _ => false,
        }
    }
}

/// An open journal: its history, and where the next record goes.
pub struct Journal<H> {
    file: H,
    end: usize,
    /// Whether there is room from an earlier reservation, which made sure of the file's name as well.
    has_room: bool,
    /// What the records add up to.
    pub history: History,
}

impl<H> Journal<H> {
    /// Reads the history without changing anything; an absent journal is an empty one.
    pub fn peek<D: Disk<Handle = H>>(disk: &D, path: &Path) -> io::Result<History> {
        match disk.open(path, Open::Read) {
            Ok(file) => Ok(replay(&disk.read(&file, READ_MAX_BYTES)?.0).0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(History::default()),
            Err(error) => Err(error),
        }
    }

    /// Opens a journal for writing; makes it where it is missing.
    pub fn open<D: Disk<Handle = H>>(disk: &D, path: &Path) -> io::Result<Self> {
        let file = disk.open(path, Open::WriteOrCreate)?;
        let (bytes, _) = disk.read(&file, READ_MAX_BYTES)?;
        let (history, end) = replay(&bytes);
        if is_overgrown(end, &history) {
            return Self::rewrite(disk, path, history);
        }
        let has_room = bytes[end..].len() > 1 && bytes[end..].iter().all(|byte| *byte == b'\n');
        Ok(Self { file, end, has_room, history })
    }

    /// Writes a journal anew with only what still matters; what it forgot is on the medium no more.
    pub fn compact<D: Disk<Handle = H>>(self, disk: &D, path: &Path) -> io::Result<Self> {
        Self::rewrite(disk, path, self.history)
    }

    fn rewrite<D: Disk<Handle = H>>(disk: &D, path: &Path, history: History) -> io::Result<Self> {
        let lines = history.lines();
        let new_path = path.with_extension("new");
        // Left behind by a crash in the next lines; never the only copy of anything.
        let _ = disk.remove(&new_path);
        let file = disk.open(&new_path, Open::CreateNew)?;
        disk.write_at(&file, &lines, 0)?;
        disk.sync(&file)?;
        disk.rename(&new_path, path)?;
        disk.sync_folder(path.parent().unwrap_or(path))?;
        Ok(Self { file, end: lines.len(), has_room: true, history })
    }

    /// Writes a record and makes sure of the space for the next one; both are on the medium afterwards.
    pub fn reserve<D: Disk<Handle = H>>(&mut self, disk: &D, record: &Record, folder: &Path) -> io::Result<()> {
        let mut bytes = line(record);
        let next = self.end + bytes.len();
        bytes.resize(bytes.len() + RESERVED_BYTES, b'\n');
        if !self.has_room {
            // Before the room is made, so that room is the proof that the name is on the medium.
            disk.sync_folder(folder)?;
        }
        disk.write_at(&self.file, &bytes, self.end as u64)?;
        disk.sync(&self.file)?;
        self.has_room = true;
        self.history.apply(record);
        self.end = next;
        Ok(())
    }

    /// Adds a record: one write, and one sync unless it may be lost.
    pub fn add<D: Disk<Handle = H>>(&mut self, disk: &D, record: &Record) -> io::Result<()> {
        let bytes = line(record);
        disk.write_at(&self.file, &bytes, self.end as u64)?;
        self.end += bytes.len();
        let may_be_lost = record.may_be_lost(&self.history);
        self.history.apply(record);
        if may_be_lost { Ok(()) } else { disk.sync_data(&self.file) }
    }
}

/// Reads lines into a history, and tells where the next record goes: behind the last whole one.
#[must_use]
pub fn replay(bytes: &[u8]) -> (History, usize) {
    let (mut history, mut end, mut at) = (History::default(), 0, 0);
    // The room that was made for the next record is blank lines, which would each be looked at.
    let written = bytes.iter().rposition(|byte| *byte != b'\n').map_or(0, |last| last + 1);
    for piece in bytes[..written].split(|byte| *byte == b'\n') {
        let line_end = at + piece.len();
        at = line_end + 1;
        if bytes.get(line_end) == Some(&b'\n')
            && let Some(record) = parse_line(piece)
        {
            history.apply(&record);
            end = at;
        }
    }
    (history, end)
}

/// Whether less than half of a journal still matters; a small one may stay as it is.
fn is_overgrown(size: usize, history: &History) -> bool {
    size > COMPACT_ABOVE_BYTES && size > 2 * history.lines().len()
}

fn keep_newest<T>(list: &mut Vec<T>, item: T, max: usize) {
    if list.len() >= max {
        list.remove(0);
    }
    list.push(item);
}

#[cfg(test)]
mod tests;
