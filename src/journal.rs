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

use serde_json::{Map, Value, json};

use crate::disk::{Disk, Open};
use crate::token::{Fingerprint, Grant, Secret, UnixSeconds};

pub mod sign_in;

use sign_in::{SignIn, Step};

/// Space that is made sure of before a token is spent. The longest real record
/// has two tokens of about 1 000 characters each.
pub const RESERVED_BYTES: usize = 8 * 1024;
/// A journal longer than this is written anew with only what still matters.
const COMPACT_ABOVE_BYTES: usize = 32 * 1024;
/// A journal longer than this is not ours.
const READ_MAX_BYTES: u64 = 1024 * 1024;
/// How many spent tokens are remembered: with one refresh a day, almost three years of old backups.
const SPENT_MAX: usize = 1000;
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
    pub spent: Vec<Fingerprint>,
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
        self.spent.contains(&token)
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
            Record::Fallback(held) => self.fallback = Some(held.clone()),
            Record::Spent(tokens) => {
                for token in tokens {
                    self.spend(*token);
                }
            }
            Record::Dead(dead) => {
                self.dead.retain(|known| known.token != dead.token);
                keep_newest(&mut self.dead, *dead, USED_MAX);
                (self.intent, self.trouble) = (None, None);
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
        if held.origin == Origin::Adopted {
            if let Some(current) = self.current.take().filter(|current| current.refresh() != token) {
                // Kometa's refresh spends the old token; a person's new authorization leaves it alive.
                // A newer complete pair is taken for the first, and everything else for the second.
                // Of a pair that never reached the file, nobody else can have made a newer one.
                match current.refresh() {
                    Some(old) if current.published && held.supersedes(&current) => self.spend(old),
                    _ => self.fallback = Some(current),
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
            self.spent.retain(|spent| *spent != token);
            self.dead.retain(|dead| dead.token != token);
        }
        self.current = Some(held.clone());
    }

    fn spend(&mut self, token: Fingerprint) {
        if !self.spent.contains(&token) {
            keep_newest(&mut self.spent, token, SPENT_MAX);
        }
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
        if !self.spent.is_empty() {
            records.push(Record::Spent(self.spent.clone()));
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

/// An open journal: its history, and where the next record goes.
pub struct Journal<H> {
    file: H,
    end: usize,
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
        if end <= COMPACT_ABOVE_BYTES {
            return Ok(Self { file, end, history });
        }
        Self::rewrite(disk, path, history)
    }

    /// Writes a journal anew with only what still matters; what it forgot is on the medium no more.
    pub fn compact<D: Disk<Handle = H>>(self, disk: &D, path: &Path) -> io::Result<Self> {
        Self::rewrite(disk, path, self.history)
    }

    fn rewrite<D: Disk<Handle = H>>(disk: &D, path: &Path, history: History) -> io::Result<Self> {
        let lines: Vec<u8> = history.records().iter().flat_map(line).collect();
        let new_path = path.with_extension("new");
        // Left behind by a crash in the next lines; never the only copy of anything.
        let _ = disk.remove(&new_path);
        let file = disk.open(&new_path, Open::CreateNew)?;
        disk.write_at(&file, &lines, 0)?;
        disk.sync(&file)?;
        disk.rename(&new_path, path)?;
        disk.sync_folder(path.parent().unwrap_or(path))?;
        Ok(Self { file, end: lines.len(), history })
    }

    /// Writes a record and makes sure of the space for the next one; both are on the medium afterwards.
    pub fn reserve<D: Disk<Handle = H>>(&mut self, disk: &D, record: &Record, folder: &Path) -> io::Result<()> {
        let mut bytes = line(record);
        let next = self.end + bytes.len();
        bytes.resize(bytes.len() + RESERVED_BYTES, b'\n');
        disk.write_at(&self.file, &bytes, self.end as u64)?;
        disk.sync(&self.file)?;
        disk.sync_folder(folder)?;
        self.history.apply(record);
        self.end = next;
        Ok(())
    }

    /// Adds a record: one write and one sync.
    pub fn add<D: Disk<Handle = H>>(&mut self, disk: &D, record: &Record) -> io::Result<()> {
        self.note(disk, record)?;
        disk.sync_data(&self.file)
    }

    /// Adds a record that may be lost in a power cut, because it can be found out again.
    pub fn note<D: Disk<Handle = H>>(&mut self, disk: &D, record: &Record) -> io::Result<()> {
        let bytes = line(record);
        disk.write_at(&self.file, &bytes, self.end as u64)?;
        self.end += bytes.len();
        self.history.apply(record);
        Ok(())
    }
}

/// Reads lines into a history, and tells where the next record goes: behind the last whole one.
#[must_use]
pub fn replay(bytes: &[u8]) -> (History, usize) {
    let (mut history, mut end, mut at) = (History::default(), 0, 0);
    for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
        at += piece.len();
        if let Some(record) = parse_line(piece) {
            history.apply(&record);
            end = at;
        }
    }
    (history, end)
}

/// How many hexadecimal digits of a SHA-256 stand before each record.
const CHECKSUM_DIGITS: usize = 32;

fn line(record: &Record) -> Vec<u8> {
    let json = record.to_json().to_string();
    format!("{} {json}\n", Fingerprint::of(json.as_bytes())).into_bytes()
}

fn parse_line(piece: &[u8]) -> Option<Record> {
    let text = std::str::from_utf8(piece).ok()?.strip_suffix('\n')?;
    let (checksum, json) = text.split_at_checked(CHECKSUM_DIGITS)?;
    let json = json.strip_prefix(' ')?;
    if Fingerprint::parse(checksum)? != Fingerprint::of(json.as_bytes()) {
        return None;
    }
    Record::from_json(&serde_json::from_str(json).ok()?)
}

fn keep_newest<T>(list: &mut Vec<T>, item: T, max: usize) {
    if list.len() >= max {
        list.drain(..=list.len() - max);
    }
    list.push(item);
}

// Written by hand and not derived, because a derive would need secrets that can be serialized anywhere.
impl Record {
    fn to_json(&self) -> Value {
        match self {
            Self::Intent(intent) => json!({"intent": intent.spends.to_string(), "at": intent.at.0}),
            Self::Held(held) => json!({"held": held_to_json(held)}),
            Self::Published => json!({"published": true}),
            Self::Fallback(held) => json!({"fallback": held_to_json(held)}),
            Self::Spent(tokens) => json!({"spent": tokens.iter().map(ToString::to_string).collect::<Vec<_>>()}),
            Self::Dead(dead) => json!({"dead": dead.token.to_string(), "at": dead.at.0, "lost": dead.lost}),
            Self::Used(token) => json!({"used": token.to_string()}),
            Self::Trouble { trouble, settled } => json!({
                "trouble": trouble.what, "since": trouble.since.0, "attempts": trouble.attempts,
                "not_before": trouble.not_before.0, "asked": trouble.asked, "refused": trouble.refused.map(|c| c.to_string()), "settled": settled,
            }),
            Self::SignedOut(at) => json!({"signed_out": at.0}),
            Self::LoggedOut(at) => json!({"logged_out": at.0}),
            Self::SignIn(step) => step.to_json(),
            Self::Succeeded(at) => json!({"succeeded": at.0}),
            Self::Edit(before, after) => json!({"edit": before.to_string(), "after": after.to_string()}),
        }
    }

    fn from_json(value: &Value) -> Option<Self> {
        let object = value.as_object()?;
        let fingerprint = |key: &str| Fingerprint::parse(object.get(key)?.as_str()?);
        let seconds = |key: &str| object.get(key)?.as_i64().map(UnixSeconds);
        // A line has one key that names it; an unknown name is from a newer version, and is passed over.
        Some(if object.contains_key("intent") {
            Self::Intent(Intent { spends: fingerprint("intent")?, at: seconds("at")? })
        } else if let Some(held) = object.get("held") {
            Self::Held(held_from_json(held.as_object()?)?)
        } else if object.contains_key("published") {
            Self::Published
        } else if let Some(held) = object.get("fallback") {
            Self::Fallback(held_from_json(held.as_object()?)?)
        } else if let Some(tokens) = object.get("spent") {
            let tokens = tokens.as_array()?.iter();
            Self::Spent(tokens.map(|token| Fingerprint::parse(token.as_str()?)).collect::<Option<_>>()?)
        } else if object.contains_key("dead") {
            let lost = object.get("lost").and_then(Value::as_bool).unwrap_or_default();
            Self::Dead(Dead { token: fingerprint("dead")?, at: seconds("at")?, lost })
        } else if object.contains_key("used") {
            Self::Used(fingerprint("used")?)
        } else if let Some(what) = object.get("trouble") {
            let trouble = Trouble {
                since: seconds("since")?,
                attempts: u32::try_from(object.get("attempts")?.as_u64()?).ok()?,
                not_before: seconds("not_before")?,
                what: what.as_str()?.to_owned(),
                asked: object.get("asked").and_then(Value::as_bool).unwrap_or_default(),
                refused: fingerprint("refused"),
            };
            Self::Trouble { trouble, settled: object.get("settled")?.as_bool()? }
        } else if object.contains_key("signed_out") {
            Self::SignedOut(seconds("signed_out")?)
        } else if object.contains_key("logged_out") {
            Self::LoggedOut(seconds("logged_out")?)
        } else if object.contains_key("sign_in") {
            Self::SignIn(Step::from_json(object)?)
        } else if object.contains_key("succeeded") {
            Self::Succeeded(seconds("succeeded")?)
        } else if object.contains_key("edit") {
            Self::Edit(fingerprint("edit")?, fingerprint("after")?)
        } else {
            return None;
        })
    }
}

fn held_to_json(held: &Held) -> Value {
    let grant = &held.grant;
    json!({
        "access_token": grant.access_token.expose(), "token_type": grant.token_type,
        "expires_in": grant.expires_in, "refresh_token": grant.refresh_token.as_ref().map(Secret::expose),
        "scope": grant.scope, "created_at": grant.created_at.map(|at| at.0),
        "origin": match held.origin {
            Origin::Refreshed => "refreshed",
            Origin::Authorized => "authorized",
            Origin::Adopted => "adopted",
        },
        "at": held.at.0, "client": held.client.to_string(), "draw": held.draw, "is_published": held.published,
    })
}

fn held_from_json(object: &Map<String, Value>) -> Option<Held> {
    let text = |key: &str| object.get(key).and_then(Value::as_str);
    let number = |key: &str| object.get(key).and_then(Value::as_i64);
    Some(Held {
        grant: Grant {
            access_token: Secret::new(text("access_token")?),
            token_type: text("token_type").map(str::to_owned),
            expires_in: number("expires_in"),
            refresh_token: text("refresh_token").map(Secret::new),
            scope: text("scope").map(str::to_owned),
            created_at: number("created_at").map(UnixSeconds),
        },
        origin: match text("origin")? {
            "refreshed" => Origin::Refreshed,
            "authorized" => Origin::Authorized,
            "adopted" => Origin::Adopted,
            _ => return None,
        },
        at: UnixSeconds(number("at")?),
        client: Fingerprint::parse(text("client")?)?,
        draw: u16::try_from(number("draw")?).ok()?,
        published: object.get("is_published")?.as_bool()?,
    })
}

#[cfg(test)]
mod tests;
