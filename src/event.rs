//! What happened, for a person: one row an event, with its level, its sentence
//! and what to do.
//!
//! Pure. The sentence is constant, so that it can be searched for; what
//! differs travels beside it.

use std::path::PathBuf;

use crate::token::UnixSeconds;

/// How much it concerns a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A person must act.
    Error,
    /// We carried on, and say how.
    Warn,
    /// A token's life.
    Info,
    /// Decisions.
    Debug,
}

/// Makes the enum and the list of its variants from one text, so that neither forgets what the other has.
macro_rules! kinds {
    ($($kind:ident,)+) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "each variant has its sentence below")]
        pub enum Kind {
            $($kind,)+
        }

        impl Kind {
            /// Every one of them.
            pub const ALL: &[Self] = &[$(Self::$kind),+];
        }
    };
}

kinds! {
    Watching,
    Stopping,
    NotSetUp,
    Adopted,
    Refreshed,
    Authorized,
    PutBack,
    Published,
    SignedOut,
    StaysSignedOut,
    Scheduled,
    Due,
    Expired,
    KometaRuns,
    NoClientId,
    NeedsAuthorization,
    RunningOut,
    RejectedAfterLostAnswer,
    Rejected,
    EnterCode,
    PasteAddress,
    CodeDenied,
    CodesUnused,
    ForeignAddress,
    LoggedOut,
    CodeRejected,
    BadClient,
    RefreshFailed,
    OutcomeUnknown,
    NothingSent,
    GrantWaits,
    Unfinished,
    GrantOnlyInMemory,
    EditRefused,
    EditAside,
    SomeoneWrites,
    Unreadable,
    Readable,
    Stranded,
    NoLock,
    WaitsForOther,
    StateUnusable,
    Polling,
    WatchFailed,
    ClockNotSet,
    ClockSet,
    ForceRefresh,
    ReadOnlyKometa,
    SingleFileMount,
    SettingsProblem,
}

impl Kind {
    /// Its level, its sentence, and what to do about it (empty where there is nothing to do).
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "a table")]
    pub const fn row(self) -> (Level, &'static str, &'static str) {
        use Level::{Debug, Error, Info, Warn};
        match self {
            Self::Watching => (Info, "watching", ""),
            Self::Stopping => (Info, "stopping", ""),
            Self::NotSetUp => (Info, "section has no client_id yet, nothing to do for it", ""),
            Self::Adopted => (Info, "found a token in the file, keeping it valid from now on", ""),
            Self::Refreshed => (Info, "token refreshed, new pair is in the file", ""),
            Self::Authorized => (Info, "authorized, new pair is in the file", ""),
            Self::PutBack => (
                Warn,
                "a spent token was written back into the file, put the current one in its place",
                "Kometa or an editor saved an old copy of the file; nothing to do",
            ),
            Self::Published => (Info, "wrote the token that was kept safe into the file", ""),
            Self::SignedOut => (
                Warn,
                "the authorization block was emptied, taking it as a sign-out",
                "to sign in again, run `kometa-authd login` or put a pin into the config",
            ),
            Self::Scheduled => (Info, "token is valid", ""),
            Self::StaysSignedOut => (Info, "signed out, nothing to do until there is a login or a new pin", ""),
            Self::Due => (Debug, "a refresh is due", ""),
            Self::Expired => {
                (Warn, "the access token has expired", "start the daemon, or see its log for what holds it up")
            }
            Self::KometaRuns => {
                (Info, "a refresh is due, but Kometa is running with this token; waiting for its end", "")
            }
            Self::NoClientId => (
                Error,
                "there is a token but no client_id, so it cannot be refreshed",
                "put the application's client_id into the section",
            ),
            Self::RunningOut => (
                Error,
                "refreshing fails, and the token has expired or has less than a quarter of its life left",
                "see the cause; it is tried again by itself",
            ),
            Self::NeedsAuthorization => (
                Error,
                "there is no token yet, a person must authorize once",
                "run `kometa-authd login`, or put a new pin into the trakt section; it is exchanged within seconds",
            ),
            Self::RejectedAfterLostAnswer => (
                Error,
                "the answer to an earlier refresh was lost on the way, and the provider takes the old token no more",
                "authorize again: run `kometa-authd login`, or put a new pin into the trakt section",
            ),
            Self::Rejected => (
                Error,
                "the provider rejected the refresh token: revoked, or spent by somebody who did not save the new one",
                "authorize again: run `kometa-authd login`, or put a new pin into the trakt section; a Kometa with --read-only-config loses tokens like this",
            ),
            Self::EnterCode => (
                Error,
                "a person must authorize: open the page and enter the code",
                "do so with any browser or phone; the rest happens by itself",
            ),
            Self::PasteAddress => (
                Error,
                "a person must authorize: open the link, agree, and copy the address of the page that does not load",
                "paste that address into mal: localhost_url of the config, or run `kometa-authd login mal`",
            ),
            Self::CodeDenied => (
                Error,
                "the authorization was denied on the page, no new code is asked for",
                "to be asked again run `kometa-authd login`, send SIGHUP, or restart the daemon",
            ),
            Self::CodesUnused => (
                Error,
                "nobody entered any of the last codes, no new one is asked for",
                "when you have a moment run `kometa-authd login`, send SIGHUP, or restart the daemon",
            ),
            Self::ForeignAddress => (
                Warn,
                "the address in localhost_url was not made with a link of ours, so only Kometa can use it",
                "let Kometa start with it, or open the link that follows and paste what it ends on",
            ),
            Self::LoggedOut => (Info, "signed out: the tokens are forgotten and the block is empty", ""),
            Self::CodeRejected => (
                Error,
                "the provider rejected the pin or address: used before, too old, or made with another link",
                "get a new one and put it into the config within ten minutes",
            ),
            Self::BadClient => (
                Error,
                "the provider does not know this client_id or client_secret",
                "compare both with the application's page at the provider",
            ),
            Self::RefreshFailed => (Warn, "refresh failed, trying again", ""),
            Self::OutcomeUnknown => {
                (Warn, "the refresh was sent and no grant came back, trying the same token again", "")
            }
            Self::NothingSent => (
                Error,
                "a refresh is due but its answer could not be kept, so nothing was sent",
                "cure the cause; it is tried again by itself",
            ),
            Self::GrantWaits => {
                (Warn, "the new token is safe in the journal but not in the file yet, trying again", "")
            }
            Self::Unfinished => (
                Warn,
                "a write that was cut off could not be finished yet, trying again",
                "cure the cause; it is tried again by itself",
            ),
            Self::GrantOnlyInMemory => (
                Error,
                "the new token could not be stored anywhere and is only in memory, trying again",
                "make room or make the folder writable, and do not stop the daemon before",
            ),
            Self::EditRefused => (
                Error,
                "the file cannot be edited without touching more than the block",
                "change the named place; the token is kept safe and goes in by itself",
            ),
            Self::EditAside => (
                Warn,
                "two edits of the same lines met, one is in the file and the other was kept aside",
                "compare the two, then delete the copy: it holds tokens",
            ),
            Self::SomeoneWrites => (
                Warn,
                "the file is not complete YAML just now, keeping what was known",
                "if nobody is writing it, correct the named place",
            ),
            Self::Unreadable => {
                (Error, "the config file cannot be read", "correct the cause; it is looked at again by itself")
            }
            Self::Readable => (Info, "the config file can be read again", ""),
            Self::Stranded => (
                Error,
                "the mounted file was replaced outside, and this side still sees the old one",
                "mount the folder of config.yml in the place of the single file, and restart the container",
            ),
            Self::NoLock => (
                Warn,
                "this file system has no locks, a second daemon on the same file would not be noticed",
                "run only one",
            ),
            Self::WaitsForOther => (Info, "another kometa-authd is at work on this folder, waiting for it", ""),
            Self::StateUnusable => (
                Error,
                "the state folder cannot be used, so no token is refreshed",
                "correct it, or name another with --state-dir",
            ),
            Self::Polling => (Info, "this file system reports no changes, looking every 30 seconds", ""),
            Self::WatchFailed => (Warn, "the folder cannot be watched, looking every 30 seconds", ""),
            Self::ClockNotSet => (Warn, "the clock is not set yet, waiting for it", "set the clock, or let NTP do it"),
            Self::ClockSet => (Info, "the clock was set, schedule made anew", ""),
            Self::ForceRefresh => (
                Warn,
                "force_refresh is true: Kometa spends a refresh token at every start",
                "remove force_refresh, the token is kept valid without it",
            ),
            Self::ReadOnlyKometa => (
                Warn,
                "KOMETA_READ_ONLY_CONFIG is set: a Kometa that refreshes then loses the new token",
                "unset it, or let Kometa start only while the token is valid",
            ),
            Self::SingleFileMount => (
                Warn,
                "config.yml is mounted as a single file, so it is written in place and outside changes may stay unseen",
                "mount its folder",
            ),
            Self::SettingsProblem => (Warn, "something in the config looks wrong", ""),
        }
    }
}

impl Kind {
    /// Its stable name for programs, such as `needs_authorization`.
    #[must_use]
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: Kind,
    /// `config.yml#trakt` (`alice/config.yml#trakt` where another has that name), or a path where it concerns a whole file.
    pub subject: String,
    /// Why, or what exactly: never a secret.
    pub detail: String,
    /// An address for a person to open.
    pub link: Option<String>,
    /// When the access token ends.
    pub expires_at: Option<UnixSeconds>,
    /// When something happens next.
    pub next_at: Option<UnixSeconds>,
    /// How many failures in a row.
    pub attempt: Option<u32>,
    /// The config file that it concerns, where the subject alone does not tell.
    pub config: Option<PathBuf>,
}

impl Event {
    /// An event with nothing but its subject.
    #[must_use]
    pub fn new(kind: Kind, subject: impl Into<String>) -> Self {
        Self {
            kind,
            subject: subject.into(),
            detail: String::new(),
            link: None,
            expires_at: None,
            next_at: None,
            attempt: None,
            config: None,
        }
    }

    /// The same, with a detail.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }
}
