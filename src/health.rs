//! How an account is, from what is known of it: what `status` prints, and what
//! the exit status says.
//!
//! Pure. The daemon and `status` use the same words, because both come from here.

use serde_json::{Value, json};

use crate::announce::policy::Problem;
use crate::clock::local;
use crate::daemon::alive::Running;
use crate::decision::sign_in::ROUNDS_MAX;
use crate::decision::{self, Decision, Waiting};
use crate::event::{Kind, Level};
use crate::journal::sign_in::Ended;
use crate::journal::{Held, History};
use crate::settings::Section;
use crate::token::UnixSeconds;

pub mod invitation;

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
    /// An address for a person to open.
    pub link: Option<String>,
    /// When the access token ends.
    pub expires_at: Option<UnixSeconds>,
    /// When something happens next.
    pub next_at: Option<UnixSeconds>,
    /// The last grant of our own.
    pub last_success_at: Option<UnixSeconds>,
    /// Failures in a row.
    pub attempts: u32,
    /// What holds now, by its stable name.
    pub kind: Kind,
    /// Whether something has been due for longer than [`OVERDUE_S`].
    pub is_overdue: bool,
}

/// A daemon that is well acts within seconds; after this long something holds it up.
pub const OVERDUE_S: i64 = 300;

/// A config as a whole: who looks after it, and what the daemon found that the files alone do not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    /// The config file.
    pub config: String,
    /// Whether a daemon looks after it.
    pub running: Running,
    /// Its open problems.
    pub problems: Vec<Problem>,
}

impl Whole {
    /// The problems of an account.
    fn problems_of<'a>(&'a self, account: &'a str) -> impl Iterator<Item = &'a Problem> {
        self.problems.iter().filter(move |problem| problem.is_of(account))
    }

    /// For a person: one line about the daemon, and one for each problem of the whole file.
    #[must_use]
    pub fn text(&self) -> String {
        let config = &self.config;
        let daemon = match self.running {
            Running::Since(Some(at)) => format!("{config}: the daemon is running, since {}", local(at)),
            Running::Since(None) => format!("{config}: the daemon is running"),
            Running::No => format!("{config}: no daemon is running; start `kometa-authd run`"),
            Running::Unknown => format!("{config}: whether a daemon is running cannot be seen from here"),
        };
        let problems = self.problems_of(config).map(|problem| {
            format!("\n  problem       {}, since {}; {}", problem.sentence, local(problem.since), problem.todo)
        });
        daemon + &problems.collect::<String>()
    }
}

/// Why a config is not well: nobody looks after it, something is overdue, a token has expired, or a person must
/// act. Nothing where all is well.
#[must_use]
pub fn unhealthy(whole: &Whole, reports: &[Report], now: UnixSeconds) -> Option<String> {
    let needs_person = |report: &&Report| {
        report.state == State::NeedsPerson || (report.state == State::Degraded && report.kind.row().0 == Level::Error)
    };
    let is_new = matches!(whole.running, Running::Since(Some(at)) if now.since(at) <= OVERDUE_S);
    if whole.running == Running::No {
        return Some(format!("{}: no daemon is running", whole.config));
    }
    if let Some(report) = reports.iter().find(needs_person) {
        return Some(format!("{}: {}; {}", report.account, report.sentence, report.todo));
    }
    if let Some(report) = reports.iter().find(|report| report.is_overdue && !is_new) {
        return Some(format!(
            "{}: something has been due for more than {} minutes and is not done; see the daemon's log",
            report.account,
            OVERDUE_S / 60
        ));
    }
    // Kometa may wait for this to be well, and then starts with a token that works.
    let is_expired = |report: &&Report| {
        report.expires_at.is_some_and(|at| at <= now) && !matches!(report.kind, Kind::StaysSignedOut | Kind::NotSetUp)
    };
    if let Some(report) = reports.iter().find(is_expired) {
        return Some(format!("{}: {}", report.account, Kind::Expired.row().1));
    }
    let problem = whole.problems.iter().find(|problem| problem.is_told())?;
    Some(format!("{}: {}; {}", problem.subject, problem.sentence, problem.todo))
}

/// What a wait is, in the words of the log.
#[must_use]
pub fn kind(reason: Waiting, history: &History, now: UnixSeconds) -> Kind {
    let trouble = history.trouble.as_ref();
    let current = history.current.as_ref();
    let lost = current.and_then(Held::refresh).and_then(|token| history.dead(token)).is_some_and(|dead| dead.lost);
    let refused = trouble.is_some_and(|trouble| trouble.refused.is_some());
    let runs_out = current.and_then(decision::life).is_some_and(|(from, life)| now.since(from) > life / 4 * 3);
    match reason {
        Waiting::Valid => Kind::Scheduled,
        Waiting::EnterCode => Kind::EnterCode,
        Waiting::PasteAddress => Kind::PasteAddress,
        Waiting::NeverAuthorized | Waiting::Rejected | Waiting::Retry if refused => Kind::BadClient,
        Waiting::NeverAuthorized | Waiting::Rejected if history.sign_in.ended == Some(Ended::Denied) => {
            Kind::CodeDenied
        }
        Waiting::NeverAuthorized | Waiting::Rejected if history.sign_in.rounds >= ROUNDS_MAX => Kind::CodesUnused,
        Waiting::NeverAuthorized => Kind::NeedsAuthorization,
        Waiting::NoClient => Kind::NoClientId,
        Waiting::ClockNotSet => Kind::ClockNotSet,
        Waiting::Rejected if lost => Kind::RejectedAfterLostAnswer,
        Waiting::Rejected => Kind::Rejected,
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
        Decision::AskForCode { .. } | Decision::MakeLink | Decision::Poll => {
            (State::NeedsPerson, Kind::NeedsAuthorization, Some(now))
        }
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
        link: None,
        expires_at,
        next_at,
        last_success_at: history.last_success,
        attempts: trouble.map_or(0, |trouble| trouble.attempts),
        kind,
        is_overdue: false,
    }
}

impl Report {
    /// The provider's key in the config.
    #[must_use]
    pub fn provider(&self) -> &str {
        self.account.rsplit('#').next().unwrap_or_default()
    }

    /// For a person.
    #[must_use]
    pub fn text(&self, whole: &Whole, now: UnixSeconds) -> String {
        let mut lines = vec![format!("{}: {}: {}", self.account, self.state.name(), self.sentence)];
        let mut row = |name: &str, value: String| lines.push(format!("  {name:<13} {value}"));
        if !self.detail.is_empty() {
            row("because", self.detail.clone());
        }
        if let Some(link) = &self.link {
            row("link", link.clone());
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
        for problem in whole.problems_of(&self.account).filter(|problem| problem.sentence != self.sentence) {
            let detail = if problem.detail.is_empty() { String::new() } else { format!(" ({})", problem.detail) };
            row("problem", format!("{}{detail}, since {}; {}", problem.sentence, local(problem.since), problem.todo));
        }
        lines.join("\n")
    }

    /// For a program: `status --json` prints an array of these. docs/status.md describes the fields.
    #[must_use]
    pub fn json(&self, whole: &Whole) -> Value {
        let since = match whole.running {
            Running::Since(since) => since,
            Running::No | Running::Unknown => None,
        };
        let problem = |problem: &Problem| {
            json!({
                "event": problem.event, "message": problem.sentence, "detail": problem.detail, "todo": problem.todo,
                "since": problem.since.0,
            })
        };
        // What is wrong with the file is wrong with each of its accounts.
        let problems = chain(whole, &self.account).map(problem);
        json!({
            "config": whole.config, "daemon": whole.running.name(), "daemon_since": since.map(|at| at.0),
            "event": self.kind.name(), "last_error": Some(&self.detail).filter(|detail| !detail.is_empty()),
            "overdue": self.is_overdue, "problems": problems.collect::<Vec<_>>(),
            "account": self.account, "state": self.state.name().replace(' ', "_"), "message": self.sentence,
            "detail": self.detail, "todo": self.todo, "link": self.link,
            "expires_at": self.expires_at.map(|at| at.0),
            "next_at": self.next_at.map(|at| at.0), "last_success_at": self.last_success_at.map(|at| at.0),
            "attempts": self.attempts,
        })
    }
}

fn chain<'a>(whole: &'a Whole, account: &'a str) -> impl Iterator<Item = &'a Problem> {
    whole.problems_of(account).chain(whole.problems_of(&whole.config))
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

    fn at_rest(state: State, kind: Kind) -> Report {
        let (_, sentence, todo) = kind.row();
        Report {
            account: "config.yml#trakt".to_owned(),
            state,
            sentence,
            link: None,
            detail: String::new(),
            todo,
            expires_at: None,
            next_at: None,
            last_success_at: None,
            attempts: 0,
            kind,
            is_overdue: false,
        }
    }

    /// Who is unhealthy, and why: each cause by itself, and what looks like one and is none.
    #[test]
    fn causes() {
        let now = UnixSeconds(1_000_000);
        let (long, just) = (Running::Since(Some(now.plus(-OVERDUE_S - 1))), Running::Since(Some(now.plus(-1))));
        for (running, state, kind, is_overdue, expected) in [
            (long, State::Healthy, Kind::Scheduled, false, None),
            (Running::No, State::Healthy, Kind::Scheduled, false, Some("no daemon is running")),
            (Running::Unknown, State::Healthy, Kind::Scheduled, false, None),
            (long, State::Degraded, Kind::Expired, true, Some("has been due")),
            (Running::Unknown, State::Degraded, Kind::Expired, true, Some("has been due")),
            (just, State::Degraded, Kind::Expired, true, None),
            (just, State::Healthy, Kind::StaysSignedOut, false, None),
            (long, State::Degraded, Kind::RefreshFailed, false, None),
            (long, State::Degraded, Kind::RunningOut, false, Some("less than a quarter")),
            (long, State::NeedsPerson, Kind::NeedsAuthorization, false, Some("a person must authorize")),
            (long, State::NotSetUp, Kind::NotSetUp, false, None),
        ] {
            let whole = Whole { config: "/config.yml".to_owned(), running, problems: Vec::new() };
            let report = Report { is_overdue, ..at_rest(state, kind) };
            let why = unhealthy(&whole, &[report], now);
            assert_eq!(why.is_some(), expected.is_some(), "{kind:?}: {why:?}");
            assert!(why.is_none_or(|why| why.contains(expected.unwrap_or_default())), "{kind:?}");
        }
    }

    /// A token that has ended is not well, also in the moment before it is refreshed; one that was signed out of is.
    #[test]
    fn expired() {
        let now = UnixSeconds(1_000_000);
        let whole =
            Whole { config: "/config.yml".to_owned(), running: Running::Since(Some(now)), problems: Vec::new() };
        for (kind, left_s, expected) in [
            (Kind::Expired, 0, Some("config.yml#trakt: the access token has expired")),
            (Kind::RefreshFailed, -1, Some("config.yml#trakt: the access token has expired")),
            (Kind::RefreshFailed, 1, None),
            (Kind::StaysSignedOut, -1, None),
        ] {
            let report = Report { expires_at: Some(now.plus(left_s)), ..at_rest(State::Degraded, kind) };
            assert_eq!(unhealthy(&whole, &[report], now).as_deref(), expected, "{kind:?}");
        }
    }

    /// A problem that a person was told of is one, although the files look well; one that may pass is none yet.
    #[test]
    fn problems_of_the_daemon() {
        use crate::announce::policy::Told;
        use crate::event::Event;
        let now = UnixSeconds(1_000_000);
        let mut told = Told::default();
        told.take(now, &Event::new(Kind::StateUnusable, "config.yml#trakt"));
        let why = |told: &Told| {
            let running = Running::Since(Some(now));
            let whole = Whole { config: "/config.yml".to_owned(), running, problems: told.problems().to_vec() };
            unhealthy(&whole, &[at_rest(State::Healthy, Kind::Scheduled)], now)
        };
        assert_eq!(why(&told), None);
        told.due(now.plus(3600));
        assert!(why(&told).is_some_and(|why| why.contains("state folder")));
    }

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
