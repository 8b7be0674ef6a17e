//! What to do for one account now, and why.
//!
//! Pure: facts in, a decision with its reason out. The reason is what the log
//! and `status` show. This file never reads a clock, draws a random number or
//! touches a file.

use std::fmt;

use crate::journal::{Held, History, Origin};
use crate::token::{Fingerprint, UnixSeconds};

pub mod sign_in;

/// A clock before this has not been set since the board got power: 2026-11-01, when this was written.
pub const SANE_CLOCK: UnixSeconds = UnixSeconds(1_793_491_200);
/// No provider was there before this, so no `created_at` can be earlier: 2010-01-01.
const CREATED_MIN: UnixSeconds = UnixSeconds(1_262_304_000);
/// How far a server's clock may be ahead of ours.
const SKEW_MAX_S: i64 = 86_400;
/// No lifetime seen was longer than 90 days; documentation samples have 61 years.
const LIFETIME_MAX_S: i64 = 400 * 86_400;
/// What a grant of our own is taken to live where its `expires_in` is absent or absurd: the shortest
/// that Trakt has used.
const LIFETIME_DEFAULT_S: i64 = 86_400;
/// Nothing is planned further ahead than this; by then one look more costs nothing.
const LOOK_AGAIN_S: i64 = 30 * 86_400;
/// A run of Kometa starts with at least this left on the token (or half the lifetime, if shorter).
const RUN_NEEDS_S: i64 = 86_400;
/// How long before a run the refresh for it is made: time for a few attempts.
const RUN_LEAD_S: i64 = 600;
/// Kometa is taken to run until its log has been quiet for so long.
pub const RUN_QUIET_S: i64 = 300;
/// Kometa is taken to run for so long after a scheduled start, log or no log.
const RUN_WINDOW_S: i64 = 180;

/// What the file says of an account, by fingerprints only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The application's id, where one is given.
    pub client: Option<Fingerprint>,
    /// The application's id and secret together.
    pub credentials: Option<Fingerprint>,
    /// The access token.
    pub access: Option<Fingerprint>,
    /// The refresh token.
    pub refresh: Option<Fingerprint>,
    /// A PIN or a pasted address waiting to be exchanged.
    pub once: Option<Fingerprint>,
}

/// What is known of Kometa.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kometa {
    /// When its log last grew.
    pub active_at: Option<UnixSeconds>,
    /// Its scheduled starts around now: the last one before, and those of the next three days.
    pub starts: Vec<UnixSeconds>,
}

/// Everything that a decision is made from.
#[derive(Clone)]
pub struct Facts<'a> {
    /// The wall clock.
    pub now: UnixSeconds,
    /// The file.
    pub seen: Seen,
    /// The journal.
    pub history: &'a History,
    /// Kometa.
    pub kometa: Kometa,
    /// Who is asking.
    pub urgency: Urgency,
}

/// How urgent a look is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// An event or a deadline.
    #[default]
    Usual,
    /// A person or a timer asked for a look now: what is due is tried at once, and what was rejected once more.
    Asked,
    /// A person wants a refresh, due or not.
    Forced,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing before `until`, or before the file changes.
    Wait {
        /// When to look again without being woken by anything else.
        until: Option<UnixSeconds>,
        /// Why nothing is done now.
        reason: Waiting,
    },
    /// The file's pair is news: keep it.
    Adopt,
    /// The newest pair is not in the file: put it there.
    Publish(Publishing),
    /// The block was emptied: respect it.
    SignOut,
    /// A PIN or a pasted address waits: exchange it.
    Exchange,
    /// Spend a refresh token.
    Refresh(Refreshing),
    /// Ask for a device code: which one in a row.
    AskForCode {
        /// Counted from 1.
        round: u32,
    },
    /// Ask whether a person has entered the device code.
    Poll,
    /// Make a link for a person to open.
    MakeLink,
}

/// Why nothing is done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The token is good.
    Valid,
    /// The last attempt failed; the next one has its time.
    Retry,
    /// Kometa is running and still has life in its token.
    KometaRuns,
    /// The clock has not been set yet.
    ClockNotSet,
    /// There is no `client_id`.
    NoClient,
    /// The block was emptied by somebody, and stays so.
    SignedOut,
    /// There has never been a token.
    NeverAuthorized,
    /// The provider called the refresh token invalid.
    Rejected,
    /// A person is to enter a code on a page.
    EnterCode,
    /// A person is to open a link and paste the address that it ends on.
    PasteAddress,
}

impl Waiting {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Valid,
        Self::Retry,
        Self::KometaRuns,
        Self::ClockNotSet,
        Self::NoClient,
        Self::SignedOut,
        Self::NeverAuthorized,
        Self::Rejected,
        Self::EnterCode,
        Self::PasteAddress,
    ];

    /// Whether only a person can change this.
    #[must_use]
    pub const fn needs_person(self) -> bool {
        matches!(self, Self::NeverAuthorized | Self::Rejected | Self::NoClient | Self::EnterCode | Self::PasteAddress)
    }
}

/// Why a pair is written into the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publishing {
    /// It is new.
    New,
    /// A spent one stands in the file: a stale copy was written back.
    SpentCameBack,
}

/// Why a token is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refreshing {
    /// Its time has come.
    Due,
    /// Kometa starts soon, and would start with too little left.
    BeforeKometa,
    /// The access token has expired.
    Expired,
    /// Nobody knows how long it lives.
    UnknownLife,
    /// Somebody asked.
    Forced,
    /// The file's pair was called invalid; the one before it may live.
    Fallback,
    /// It was called invalid a day ago; perhaps the provider thinks better of it.
    SecondLook,
    /// It may be spent: nobody knows what came of the last request.
    Unanswered,
}

impl Publishing {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::New, Self::SpentCameBack];
}

impl Refreshing {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Due,
        Self::BeforeKometa,
        Self::Expired,
        Self::UnknownLife,
        Self::Forced,
        Self::Fallback,
        Self::SecondLook,
        Self::Unanswered,
    ];
}

// A new one belongs into the list above it; the last one of each tells.
const _: () = assert!(Waiting::PasteAddress as usize + 1 == Waiting::ALL.len());
const _: () = assert!(Publishing::SpentCameBack as usize + 1 == Publishing::ALL.len());
const _: () = assert!(Refreshing::Unanswered as usize + 1 == Refreshing::ALL.len());

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Valid => "valid",
            Self::Retry => "the last attempt failed",
            Self::KometaRuns => "Kometa is running",
            Self::ClockNotSet => "the clock is not set",
            Self::NoClient => "no client_id",
            Self::SignedOut => "signed out",
            Self::NeverAuthorized => "not authorized yet",
            Self::Rejected => "the provider rejected the refresh token",
            Self::EnterCode => "waits for a person to enter a code",
            Self::PasteAddress => "waits for a person to open a link",
        })
    }
}

impl fmt::Display for Refreshing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Due => "due",
            Self::BeforeKometa => "before Kometa's run",
            Self::Expired => "expired",
            Self::UnknownLife => "unknown lifetime",
            Self::Forced => "asked for",
            Self::Fallback => "the pair before it may live",
            Self::SecondLook => "second look",
            Self::Unanswered => "no answer to the last request",
        })
    }
}

/// Decides. The order is the order of urgency: keep what we have, believe the
/// file, exchange what a person gave, and only then look at the time.
#[must_use]
pub fn decide(facts: &Facts) -> Decision {
    let (now, history, seen) = (facts.now, facts.history, facts.seen);
    let wait = |until, reason| Decision::Wait { until, reason };
    if now < SANE_CLOCK {
        return wait(None, Waiting::ClockNotSet);
    }
    if seen.client.is_none() {
        return wait(None, Waiting::NoClient);
    }
    if let Some(ownership) = whose(&seen, history) {
        return ownership;
    }
    if seen.once.is_some_and(|once| !history.used.contains(&once)) {
        return match retry_at(facts) {
            Some(at) => wait(Some(at), Waiting::Retry),
            None => Decision::Exchange,
        };
    }
    let is_gone = |token| history.current.is_none() && (history.is_spent(token) || history.dead(token).is_some());
    if history.signed_out.is_some() && seen.refresh.is_none_or(is_gone) {
        return wait(None, Waiting::SignedOut);
    }
    let Some(current) = history.current.as_ref().filter(|held| held.grant.refresh_token.is_some()) else {
        return wait(None, Waiting::NeverAuthorized);
    };
    let (at, reason) = when(facts, current);
    match retry_at(facts) {
        // The second look is a day away, and meanwhile what failed may be a step of a sign-in.
        Some(retry) if reason == Refreshing::SecondLook => wait(Some(retry.max(at)), Waiting::Rejected),
        Some(retry) => wait(Some(retry.max(at)), Waiting::Retry),
        None if at <= now => Decision::Refresh(reason),
        None => {
            let waiting = match reason {
                Refreshing::SecondLook => Waiting::Rejected,
                _ if kometa_until(facts, current).is_some_and(|until| until == at) => Waiting::KometaRuns,
                _ => Waiting::Valid,
            };
            wait(Some(at.min(now.plus(LOOK_AGAIN_S))), waiting)
        }
    }
}

/// The token to spend when the decision is to refresh.
#[must_use]
pub fn token_to_spend(history: &History) -> Option<&Held> {
    let current = history.current.as_ref()?;
    let dead = current.refresh().is_some_and(|token| history.dead(token).is_some());
    Some(history.fallback.as_ref().filter(|_| dead).unwrap_or(current))
}

/// From when and for how many seconds an access token lives; `None` where nobody knows.
///
/// The numbers come from hand-written files and from servers: what cannot be true is not believed.
#[must_use]
pub fn life(held: &Held) -> Option<(UnixSeconds, i64)> {
    let plausible = |from: UnixSeconds, lifetime: i64| {
        (CREATED_MIN <= from && from <= held.at.plus(SKEW_MAX_S) && (1..=LIFETIME_MAX_S).contains(&lifetime))
            .then_some((from, lifetime))
    };
    // A pair that we got ourselves is at most a quarter of its life older than our own clock says: where one
    // of the clocks is wrong by more than a lifetime, the server's would have each new pair expired on arrival,
    // and spent at once. And it is never younger: our clock may have been ahead when it came, and set back since.
    let begun = |from: UnixSeconds, lifetime: i64| match held.origin {
        Origin::Adopted => from,
        Origin::Refreshed | Origin::Authorized => from.max(held.at.plus(-(lifetime / 4))).min(held.at),
    };
    let believed = |(from, lifetime)| plausible(from, lifetime).map(|(from, life)| (begun(from, life), life));
    let stated = held.grant.created_at.zip(held.grant.expires_in).and_then(believed);
    let claimed = || held.grant.access_token.claimed_life().and_then(believed);
    let ours = || {
        (held.origin != Origin::Adopted).then(|| {
            let lifetime = held.grant.expires_in.and_then(|life| plausible(held.at, life));
            lifetime.unwrap_or((held.at, LIFETIME_DEFAULT_S))
        })
    };
    stated.or_else(claimed).or_else(ours)
}

/// When an access token ends.
#[must_use]
pub fn expires_at(held: &Held) -> Option<UnixSeconds> {
    life(held).map(|(from, lifetime)| from.plus(lifetime))
}

/// Whether the pair in the file may give way to the newest that we hold: it is that pair, or known to
/// be worthless, or there is none. Somebody's own is not ours to replace.
#[must_use]
pub fn may_replace(seen: &Seen, history: &History) -> bool {
    !matches!(whose(seen, history), Some(Decision::Adopt | Decision::SignOut))
}

/// Whose pair is in the file? `None` where it is the one that we know.
fn whose(seen: &Seen, history: &History) -> Option<Decision> {
    let current = history.current.as_ref();
    let ours = current.and_then(Held::refresh);
    let alive = ours.is_some_and(|token| history.dead(token).is_none());
    let Some(token) = seen.refresh else {
        return match current {
            _ if history.signed_out.is_some() => None,
            Some(held) if !held.published => Some(Decision::Publish(Publishing::New)),
            // A half-emptied block is somebody at work: only a wholly empty one is a sign-out.
            Some(_) if seen.access.is_none() && seen.once.is_none() => Some(Decision::SignOut),
            _ => None,
        };
    };
    if Some(token) == ours {
        let same_access = current.map(|held| held.grant.access_token.fingerprint()) == seen.access;
        return match history.unpublished() {
            // It is back.
            _ if history.signed_out.is_some() => Some(Decision::Adopt),
            // Not noted yet, an answer without a new refresh token, or somebody's refresh that kept it.
            Some(_) => Some(Decision::Publish(Publishing::New)),
            // We were stopped while we put it there: nobody knows whether it survives a power cut.
            None if same_access && history.edit.is_some() => Some(Decision::Publish(Publishing::New)),
            None if same_access || seen.access.is_none() => None,
            None => Some(Decision::Adopt),
        };
    }
    if history.is_spent(token) || history.dead(token).is_some() {
        return match history.unpublished() {
            Some(_) => Some(Decision::Publish(Publishing::New)),
            None if alive => Some(Decision::Publish(Publishing::SpentCameBack)),
            None => None,
        };
    }
    Some(Decision::Adopt)
}

/// When the token is to be refreshed, and why then.
fn when(facts: &Facts, current: &Held) -> (UnixSeconds, Refreshing) {
    let now = facts.now;
    if facts.urgency == Urgency::Forced {
        return (now, Refreshing::Forced);
    }
    if let Some(dead) = current.refresh().and_then(|token| facts.history.dead(token)) {
        return match &facts.history.fallback {
            Some(_) => (now, Refreshing::Fallback),
            None if facts.urgency == Urgency::Asked || dead.at > now => (now, Refreshing::SecondLook),
            None => (dead.at.plus(crate::backoff::REFUSED_S), Refreshing::SecondLook),
        };
    }
    if facts.history.intent.is_some_and(|intent| Some(intent.spends) == current.refresh()) {
        // Nothing can be lost any more, and the access token may have ended with it.
        return (now, Refreshing::Unanswered);
    }
    let Some((from, lifetime)) = life(current) else {
        return (kometa_until(facts, current).unwrap_or(now), Refreshing::UnknownLife);
    };
    let noted = if current.origin == Origin::Adopted { from } else { current.at };
    if noted.since(now) > lifetime / 10 {
        // The clock was ahead when this was noted, and has been set back: nobody knows its age.
        return (now, Refreshing::UnknownLife);
    }
    let expires = from.plus(lifetime);
    if expires <= now {
        return (now, Refreshing::Expired);
    }
    let jitter = lifetime / 20 * i64::from(current.draw.min(1000)) / 1000;
    let mut due = (from.plus(lifetime / 3 * 2 - jitter), Refreshing::Due);
    let needs = RUN_NEEDS_S.min(lifetime / 2);
    // Less than half a life, or a token that was just refreshed for a run would seem too old for it again.
    let lead = RUN_LEAD_S.min(lifetime / 4);
    for start in &facts.kometa.starts {
        // Nor is it refreshed while Kometa is about to read it.
        let is_too_old = *start <= due.0 && expires.since(*start) < needs;
        let is_too_close = (0..lead).contains(&start.since(due.0));
        if *start > now && (is_too_old || is_too_close) {
            due = (start.plus(-lead), Refreshing::BeforeKometa);
        }
    }
    (kometa_until(facts, current).map_or(due.0, |until| due.0.max(until)), due.1)
}

/// Until when a running Kometa keeps its token; past where it runs no more.
fn kometa_until(facts: &Facts, current: &Held) -> Option<UnixSeconds> {
    let now = facts.now;
    let quiet = facts.kometa.active_at.filter(|at| *at <= now.plus(RUN_QUIET_S)).map(|at| at.plus(RUN_QUIET_S));
    let window = facts.kometa.starts.iter().filter(|start| **start <= now).map(|start| start.plus(RUN_WINDOW_S)).max();
    // With so little left it would be pulled from under it anyway. Where nobody knows, Kometa has perhaps
    // just refreshed it itself.
    let last = life(current).map_or(current.at.plus(LIFETIME_DEFAULT_S), |(from, lifetime)| {
        from.plus(lifetime - (lifetime / 20).min(RUN_LEAD_S))
    });
    quiet.max(window).map(|until| until.min(last))
}

/// The time before which nothing is sent again, while it lies ahead.
fn retry_at(facts: &Facts) -> Option<UnixSeconds> {
    let trouble = facts.history.trouble.as_ref()?;
    let hurried = facts.urgency == Urgency::Forced || (facts.urgency == Urgency::Asked && !trouble.asked);
    if hurried || trouble.refused.is_some_and(|refused| Some(refused) != facts.seen.credentials) {
        return None;
    }
    // A wait that is longer than any was noted by a clock that has been set back since.
    let left = trouble.not_before.since(facts.now);
    (left > 0 && left <= crate::backoff::LONGEST_S).then_some(trouble.not_before)
}

#[cfg(test)]
mod tests;
