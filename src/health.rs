//! How an account is, from what is known of it: what `status` prints, and what
//! the exit status says.
//!
//! Pure. The daemon and `status` use the same words, because both come from here.

use serde_json::{Value, json};

use crate::clock::local;
use crate::decision::{self, Decision, Waiting};
use crate::event::Kind;
use crate::journal::{Held, History};
use crate::settings::Section;
use crate::token::UnixSeconds;

/// How an account is. The order is from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// The section has nothing filled in, and nobody waits for it.
    NotSetUp,
    /// The token is valid, or will be in a moment.
    Healthy,
    /// Something failed, and heals by itself or may.
    Degraded,
    /// Only a person can help.
    NeedsPerson,
}

impl State {
    /// The exit status: 0 fine, 1 failed but may work later, 2 a person must act.
    #[must_use]
    pub const fn exit_status(self) -> u8 {
        match self {
            Self::NotSetUp | Self::Healthy => 0,
            Self::Degraded => 1,
            Self::NeedsPerson => 2,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::NotSetUp => "not set up",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::NeedsPerson => "needs a person",
        }
    }
}

/// What is known of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// `config.yml#trakt`
    pub account: String,
    /// How it is.
    pub state: State,
    /// What holds now: the same sentence as in the log.
    pub sentence: &'static str,
    /// Why, or what exactly.
    pub detail: String,
    /// What to do, or nothing.
    pub todo: &'static str,
    /// When the access token ends.
    pub expires_at: Option<UnixSeconds>,
    /// When something happens next.
    pub next_at: Option<UnixSeconds>,
    /// The last grant of our own.
    pub last_success_at: Option<UnixSeconds>,
    /// Failures in a row.
    pub attempts: u32,
}

/// What a wait is, in the words of the log.
#[must_use]
pub fn kind(reason: Waiting, history: &History, now: UnixSeconds) -> Kind {
    let trouble = history.trouble.as_ref();
    let current = history.current.as_ref();
    let lost = current.and_then(Held::refresh).and_then(|token| history.dead(token)).is_some_and(|dead| dead.lost);
    let runs_out = current.and_then(decision::life).is_some_and(|(from, life)| now.since(from) > life / 4 * 3);
    match reason {
        Waiting::Valid => Kind::Scheduled,
        Waiting::NeverAuthorized => Kind::NeedsAuthorization,
        Waiting::NoClient => Kind::NoClientId,
        Waiting::ClockNotSet => Kind::ClockNotSet,
        Waiting::Rejected if lost => Kind::RejectedAfterLostAnswer,
        Waiting::Rejected => Kind::Rejected,
        Waiting::Retry if trouble.is_some_and(|trouble| trouble.refused.is_some()) => Kind::BadClient,
        Waiting::Retry if runs_out => Kind::RunningOut,
        Waiting::Retry if history.intent.is_some() => Kind::OutcomeUnknown,
        Waiting::Retry => Kind::RefreshFailed,
        Waiting::KometaRuns => Kind::KometaRuns,
        Waiting::SignedOut => Kind::StaysSignedOut,
    }
}

/// Reports on an account: `history` with the file's pair taken in, and what would be done now.
#[must_use]
pub fn report(account: String, now: UnixSeconds, section: &Section, history: &History, decision: Decision) -> Report {
    let expires_at = history.current.as_ref().and_then(decision::expires_at);
    let expired = expires_at.is_some_and(|at| at <= now);
    let trouble = history.trouble.as_ref();
    let (state, kind, next_at) = match decision {
        _ if !section.is_used() => (State::NotSetUp, Kind::NotSetUp, None),
        Decision::Wait { until, reason } => {
            let kind = kind(reason, history, now);
            let state = match kind {
                Kind::BadClient => State::NeedsPerson,
                _ if reason.needs_person() => State::NeedsPerson,
                Kind::Scheduled | Kind::KometaRuns | Kind::StaysSignedOut => State::Healthy,
                _ => State::Degraded,
            };
            (state, kind, until)
        }
        Decision::Publish(_) => (State::Degraded, Kind::GrantWaits, Some(now)),
        Decision::Refresh(_) if expired => (State::Degraded, Kind::Expired, Some(now)),
        Decision::Adopt | Decision::SignOut | Decision::Exchange | Decision::Refresh(_) => {
            (State::Healthy, Kind::Due, Some(now))
        }
    };
    let (_, sentence, todo) = kind.row();
    Report {
        account,
        state,
        sentence,
        detail: trouble.map(|trouble| trouble.what.clone()).unwrap_or_default(),
        todo,
        expires_at,
        next_at,
        last_success_at: history.last_success,
        attempts: trouble.map_or(0, |trouble| trouble.attempts),
    }
}

impl Report {
    /// For a person.
    #[must_use]
    pub fn text(&self, now: UnixSeconds) -> String {
        let mut lines = vec![format!("{}: {}: {}", self.account, self.state.name(), self.sentence)];
        let mut row = |name: &str, value: String| lines.push(format!("  {name:<13} {value}"));
        if !self.detail.is_empty() {
            row("because", self.detail.clone());
        }
        if let Some(at) = self.expires_at {
            let left = at.since(now);
            let valid = if left > 0 {
                format!("for {}, until {}", span(left), local(at))
            } else {
                format!("no more, it expired {}", local(at))
            };
            row("valid", valid);
        }
        if let Some(at) = self.next_at {
            let when = if at <= now { "now".to_owned() } else { format!("in {}, {}", span(at.since(now)), local(at)) };
            row("next", when);
        }
        if let Some(at) = self.last_success_at {
            row("last refresh", local(at));
        }
        if self.attempts > 0 {
            row("failed", format!("{} times in a row", self.attempts));
        }
        if !self.todo.is_empty() {
            row("what to do", self.todo.to_owned());
        }
        lines.join("\n")
    }

    /// For a program: `status --json` prints an array of these.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "account": self.account, "state": self.state.name().replace(' ', "_"), "message": self.sentence,
            "detail": self.detail, "todo": self.todo, "expires_at": self.expires_at.map(|at| at.0),
            "next_at": self.next_at.map(|at| at.0), "last_success_at": self.last_success_at.map(|at| at.0),
            "attempts": self.attempts,
        })
    }
}

/// A length of time in its two largest units.
pub(crate) fn span(seconds: i64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let first = units.iter().position(|(size, _)| seconds >= *size).unwrap_or(3);
    let (size, name) = units[first];
    let whole = format!("{} {name}", seconds / size);
    match units.get(first + 1) {
        Some((next, unit)) if seconds % size / next > 0 => format!("{whole} {} {unit}", seconds % size / next),
        _ => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two units are enough for a person.
    #[test]
    fn spans() {
        for (seconds, expected) in
            [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3661, "1 h 1 min"), (90_000, "1 d 1 h"), (86_400 * 7, "7 d")]
        {
            assert_eq!(span(seconds), expected);
        }
    }
}
