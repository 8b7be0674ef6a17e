//! Which events are told to a person, and when: once when a problem is there,
//! again where the code or link to use is another one by now, once a day while
//! it lasts, once when it is over.
//!
//! Pure: time is an argument, and what was told is data that the state folder
//! keeps, so that a restart repeats nothing. Invariant: an event of level
//! `error` is told, because that is what the level means.

use serde_json::{Value, json};

use super::notice::{Notice, Saying};
use crate::event::{Event, Kind, Level};
use crate::provider::PROVIDERS;
use crate::token::UnixSeconds;

/// A problem that lasts is told again after this long.
pub const REMIND_S: i64 = 86_400;
/// How often it is told again: whoever has not acted within a week will not act on the eighth.
pub const REMINDERS_MAX: u32 = 7;
/// A code that took the place of an expired one is told as well, so often a day: those of one sign-in, and once
/// more where a person asked for it. Whatever asks for codes without end is not to flood anybody.
const LINKS_A_DAY: u32 = 6;
/// What a restart of a server or a slow editor cures is no news for a person.
const LASTS_S: i64 = 300;
/// A code to enter is asked for within this time, and belongs into the same message.
const CODE_COMES_S: i64 = 5;

/// What an event means for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Telling {
    /// A problem, told when it has lasted for this long.
    Problem { after_s: i64 },
    /// The answer to something that a person just did.
    Answer,
    /// The account is well again.
    Over,
    /// Nothing.
    Nothing,
}

fn telling(event: &Event) -> Telling {
    match event.kind {
        Kind::CodeRejected | Kind::EditAside => Telling::Answer,
        Kind::NeedsAuthorization if event.detail.is_empty() => Telling::Problem { after_s: CODE_COMES_S },
        // A machine that starts before its network is no news either.
        Kind::RunningOut
        | Kind::Unreadable
        | Kind::SomeoneWrites
        | Kind::StateUnusable
        | Kind::NothingSent
        | Kind::GrantWaits
        | Kind::Unfinished => Telling::Problem { after_s: LASTS_S },
        Kind::Scheduled
        | Kind::KometaRuns
        | Kind::SignedOut
        | Kind::StaysSignedOut
        | Kind::LoggedOut
        | Kind::NotSetUp
        | Kind::Readable => Telling::Over,
        // These come to rest with a next time where all is well, and without one where more is to come.
        Kind::Refreshed | Kind::Authorized | Kind::Adopted | Kind::Published | Kind::PutBack
            if event.next_at.is_some() =>
        {
            Telling::Over
        }
        kind if kind.row().0 == Level::Error => Telling::Problem { after_s: 0 },
        _ => Telling::Nothing,
    }
}

/// One problem that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its stable name, as in [`Kind::name`].
    pub event: String,
    /// Whose it is: an account, or a path.
    pub subject: String,
    /// What happened.
    pub sentence: String,
    /// Why.
    pub detail: String,
    /// What to do.
    pub todo: String,
    /// An address for a person to open.
    pub link: Option<String>,
    /// When the access token ends.
    pub expires_at: Option<UnixSeconds>,
    /// Since when.
    pub since: UnixSeconds,
    told_at: Option<UnixSeconds>,
    times: u32,
    /// The link that a person was told last, and how many different ones since when.
    told_link: Option<String>,
    links_since: UnixSeconds,
    links: u32,
    after_s: i64,
    /// Whether it was met since the start: what was only read from the folder may be long gone.
    is_met: bool,
}

/// The problems of one config, and what was told of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    problems: Vec<Problem>,
}

impl Told {
    /// Takes an event in; what is to be told because of it.
    pub fn take(&mut self, now: UnixSeconds, event: &Event) -> Vec<Notice> {
        let mut notices = Vec::new();
        if is_account(&event.subject) {
            // Whatever is said of an account, the file could be read.
            notices.extend(self.over(now, event, |problem| !is_account(&problem.subject)));
        }
        match telling(event) {
            Telling::Problem { after_s } => self.meet(now, event, after_s),
            Telling::Answer => notices.push(Notice::new(now, event, Saying::Problem)),
            Telling::Over => notices.extend(self.over(now, event, |problem| is_same(&problem.subject, &event.subject))),
            Telling::Nothing => {}
        }
        notices.extend(self.due(now));
        notices
    }

    /// What is to be told by now because of the time alone.
    pub fn due(&mut self, now: UnixSeconds) -> Vec<Notice> {
        let mut notices = Vec::new();
        for problem in &mut self.problems {
            if problem.due_at().is_some_and(|at| at <= now) {
                let saying = if problem.told_at.is_some() { Saying::Reminder } else { Saying::Problem };
                problem.tell(now);
                notices.push(Notice::of(now, problem, saying));
            }
        }
        notices
    }

    /// A notice reached nobody: its problem is told again where it is met again.
    pub fn unsay(&mut self, notice: &Notice) {
        let is_meant = |problem: &&mut Problem| problem.event == notice.event && problem.is_of(&notice.account);
        if let Some(problem) = self.problems.iter_mut().find(is_meant) {
            (problem.told_at, problem.told_link, problem.times) = (None, None, problem.times.saturating_sub(1));
        }
    }

    /// When there is something to tell because of the time alone.
    #[must_use]
    pub fn next_at(&self) -> Option<UnixSeconds> {
        self.problems.iter().filter_map(Problem::due_at).min()
    }

    /// What is wrong now.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    fn meet(&mut self, now: UnixSeconds, event: &Event, after_s: i64) {
        let (_, sentence, todo) = event.kind.row();
        let name = event.kind.name();
        let name_met = name.clone();
        let known = self.problems.iter().position(|old| old.event == name && is_same(&old.subject, &event.subject));
        let index = known.unwrap_or_else(|| {
            self.problems.push(Problem {
                event: name,
                subject: event.subject.clone(),
                sentence: String::new(),
                detail: String::new(),
                todo: String::new(),
                link: None,
                expires_at: None,
                since: now,
                told_at: None,
                times: 0,
                told_link: None,
                links_since: now,
                links: 0,
                after_s,
                is_met: true,
            });
            self.problems.len() - 1
        });
        if is_sign_in(&name_met) {
            // Each follows from the one before: only the newest is reminded of, and none is told anew.
            let others = self.problems.iter_mut().enumerate().filter(|(other, _)| *other != index);
            let others = others.map(|(_, other)| other).filter(|other| is_same(&other.subject, &event.subject));
            others.filter(|other| is_sign_in(&other.event)).for_each(|other| other.is_met = false);
        }
        let problem = &mut self.problems[index];
        (problem.is_met, problem.after_s) = (true, after_s);
        problem.subject.clone_from(&event.subject);
        // A clock that was wrong must not silence anything.
        problem.since = problem.since.min(now);
        problem.told_at = problem.told_at.map(|at| at.min(now));
        problem.links_since = problem.links_since.min(now);
        (problem.sentence, problem.todo) = (sentence.to_owned(), todo.to_owned());
        problem.detail.clone_from(&event.detail);
        problem.link.clone_from(&event.link);
        problem.expires_at = event.expires_at.or(problem.expires_at);
    }

    /// Ends problems; a person hears of it where they heard of any of them.
    fn over(&mut self, now: UnixSeconds, event: &Event, ends: impl Fn(&Problem) -> bool) -> Option<Notice> {
        let ended: Vec<Problem> = self.problems.extract_if(.., |problem| ends(problem)).collect();
        let told = ended.into_iter().find(|problem| problem.told_at.is_some())?;
        let mut notice = Notice::new(now, event, Saying::Recovered);
        notice.account.clone_from(&told.subject);
        notice.before = Some(told.sentence);
        if !is_account(&told.subject) {
            Kind::Readable.row().1.clone_into(&mut notice.sentence);
        }
        Some(notice)
    }

    /// For the state folder.
    #[must_use]
    pub fn to_json(&self) -> String {
        let problem = |problem: &Problem| {
            json!({
                "event": problem.event, "subject": problem.subject, "sentence": problem.sentence,
                "detail": problem.detail, "todo": problem.todo, "link": problem.link, "expires_at": problem.expires_at.map(|at| at.0),
                "since": problem.since.0, "told_at": problem.told_at.map(|at| at.0), "times": problem.times,
                "told_link": problem.told_link, "links_since": problem.links_since.0, "links": problem.links,
            })
        };
        let all: Vec<Value> = self.problems.iter().map(problem).collect();
        json!({ "version": 1, "problems": all }).to_string()
    }

    /// From the state folder; what cannot be read was never told, which costs one message too many.
    #[must_use]
    pub fn from_json(text: &str) -> Self {
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        let problem = |value: &Value| {
            let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
            let time = |key: &str| value[key].as_i64().map(UnixSeconds);
            let count = |key: &str| value[key].as_u64().and_then(|count| u32::try_from(count).ok()).unwrap_or_default();
            Some(Problem {
                event: value["event"].as_str()?.to_owned(),
                subject: value["subject"].as_str()?.to_owned(),
                sentence: text("sentence"),
                detail: text("detail"),
                todo: text("todo"),
                link: value["link"].as_str().map(str::to_owned),
                expires_at: time("expires_at"),
                since: time("since")?,
                told_at: time("told_at"),
                times: count("times"),
                told_link: value["told_link"].as_str().map(str::to_owned),
                links_since: time("links_since").unwrap_or(UnixSeconds(0)),
                links: count("links"),
                after_s: 0,
                is_met: false,
            })
        };
        let problems = value["problems"].as_array().map(|all| all.iter().filter_map(problem).collect());
        Self { problems: problems.unwrap_or_default() }
    }
}

impl Problem {
    /// Whether a person was told of it.
    #[must_use]
    pub const fn is_told(&self) -> bool {
        self.told_at.is_some()
    }

    /// Whether it is of that account or path.
    #[must_use]
    pub fn is_of(&self, subject: &str) -> bool {
        is_same(&self.subject, subject)
    }

    /// Whether it is of the whole file, and not of one account.
    #[must_use]
    pub fn is_of_file(&self) -> bool {
        !is_account(&self.subject)
    }

    fn tell(&mut self, now: UnixSeconds) {
        if !self.has_new_link() {
            self.times = self.times.saturating_add(1);
        } else if now.since(self.links_since) >= REMIND_S || self.links == 0 {
            (self.links_since, self.links) = (now, 1);
        } else {
            self.links += 1;
        }
        self.told_link.clone_from(&self.link);
        self.told_at = Some(now);
    }

    /// Whether what a person was told to open is of no use any more.
    fn has_new_link(&self) -> bool {
        self.told_at.is_some() && self.link.is_some() && self.told_link != self.link
    }

    fn due_at(&self) -> Option<UnixSeconds> {
        match self.told_at {
            _ if !self.is_met => None,
            None => Some(self.since.plus(self.after_s)),
            Some(at) if self.has_new_link() && self.links < LINKS_A_DAY => Some(at),
            Some(_) if self.has_new_link() => Some(self.links_since.plus(REMIND_S)),
            Some(_) if self.times > REMINDERS_MAX => None,
            Some(at) => Some(at.plus(REMIND_S)),
        }
    }
}

/// Whether a problem is one of those that a sign-in ends.
fn is_sign_in(event: &str) -> bool {
    [
        Kind::NeedsAuthorization,
        Kind::Rejected,
        Kind::RejectedAfterLostAnswer,
        Kind::EnterCode,
        Kind::PasteAddress,
        Kind::CodeDenied,
        Kind::CodesUnused,
    ]
    .iter()
    .any(|kind| kind.name() == event)
}

/// Whether a subject is `config.yml#trakt`, and not a path.
fn is_account(subject: &str) -> bool {
    section(subject).is_some()
}

/// The section of `config.yml#trakt`; nothing of a path.
fn section(subject: &str) -> Option<&str> {
    let (file, name) = subject.rsplit_once('#')?;
    (!file.starts_with('/') && PROVIDERS.iter().any(|provider| provider.name == name)).then_some(name)
}

/// Whether two subjects of one config are the same: how many folders stand in front of the file's name depends
/// on what other configs there are.
fn is_same(one: &str, other: &str) -> bool {
    one == other || section(one).is_some_and(|name| section(other) == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "config.yml#trakt";
    const FILE: &str = "/config/config.yml";

    fn at(seconds: i64) -> UnixSeconds {
        UnixSeconds(1_763_820_000 + seconds)
    }

    fn event(kind: Kind, subject: &str) -> Event {
        let mut event = Event::new(kind, subject);
        // As at rest.
        event.next_at = Some(at(9_999_999));
        event
    }

    fn sayings(notices: &[Notice]) -> Vec<Saying> {
        notices.iter().map(|notice| notice.saying).collect()
    }

    /// Each kind by its first event: told at once, after a while, or never. Every one of level error is told.
    #[test]
    fn what_is_told() {
        for (kind, subject, after_s) in [
            (Kind::Rejected, ACCOUNT, Some(0)),
            (Kind::RejectedAfterLostAnswer, ACCOUNT, Some(0)),
            (Kind::BadClient, ACCOUNT, Some(0)),
            (Kind::RunningOut, ACCOUNT, Some(LASTS_S)),
            (Kind::EditRefused, ACCOUNT, Some(0)),
            (Kind::GrantOnlyInMemory, ACCOUNT, Some(0)),
            (Kind::NoClientId, ACCOUNT, Some(0)),
            (Kind::Stranded, FILE, Some(0)),
            (Kind::EditAside, FILE, Some(0)),
            (Kind::NeedsAuthorization, ACCOUNT, Some(CODE_COMES_S)),
            (Kind::StateUnusable, ACCOUNT, Some(LASTS_S)),
            (Kind::NothingSent, ACCOUNT, Some(LASTS_S)),
            (Kind::GrantWaits, ACCOUNT, Some(LASTS_S)),
            (Kind::Unfinished, ACCOUNT, Some(LASTS_S)),
            (Kind::Unreadable, FILE, Some(LASTS_S)),
            (Kind::SomeoneWrites, FILE, Some(LASTS_S)),
            (Kind::RefreshFailed, ACCOUNT, None),
            (Kind::OutcomeUnknown, ACCOUNT, None),
            (Kind::Scheduled, ACCOUNT, None),
            (Kind::Refreshed, ACCOUNT, None),
            (Kind::WaitsForOther, ACCOUNT, None),
            (Kind::Polling, FILE, None),
        ] {
            let mut told = Told::default();
            let first = told.take(at(0), &event(kind, subject));
            assert_eq!(first.len(), usize::from(after_s == Some(0)), "{kind:?}");
            let later = after_s.filter(|after_s| *after_s > 0);
            assert_eq!(told.next_at().filter(|_| later.is_some()), later.map(at), "{kind:?}");
            if let Some(after_s) = later {
                assert!(told.due(at(after_s - 1)).is_empty(), "{kind:?}");
                assert_eq!(sayings(&told.due(at(after_s))), [Saying::Problem], "{kind:?}");
            }
        }
    }

    /// A problem is told once, then once a day for a week, however often the event comes; its end is told once.
    #[test]
    fn told_once_and_recovered() {
        let mut told = Told::default();
        let problem = event(Kind::Rejected, ACCOUNT);
        assert_eq!(told.take(at(0), &problem).len(), 1);
        for minute in 1..60 {
            assert!(told.take(at(minute * 60), &problem).is_empty());
        }
        let mut reminders = 0;
        for hour in 2..24 * 30 {
            let said = told.take(at(hour * 3600), &problem);
            assert!(said.iter().all(|notice| notice.saying == Saying::Reminder));
            reminders += said.len();
        }
        assert_eq!(reminders, 7);
        assert_eq!(told.next_at(), None);
        let end = told.take(at(24 * 3600 * 31), &event(Kind::Refreshed, ACCOUNT));
        assert_eq!(sayings(&end), [Saying::Recovered]);
        assert_eq!(end[0].before.as_deref(), Some(Kind::Rejected.row().1));
        assert!(told.take(at(24 * 3600 * 31), &event(Kind::Scheduled, ACCOUNT)).is_empty());
        assert!(told.problems().is_empty());
    }

    /// What was cured before it was told is never mentioned.
    #[test]
    fn short_problems() {
        let mut told = Told::default();
        assert!(told.take(at(0), &event(Kind::Unreadable, FILE)).is_empty());
        assert!(told.take(at(60), &event(Kind::Readable, FILE)).is_empty());
        assert_eq!(told.next_at(), None);
    }

    /// A restart repeats nothing, reminds of what it meets again, and forgets nothing that ends later.
    #[test]
    fn restart() {
        let mut told = Told::default();
        let problem = event(Kind::BadClient, ACCOUNT);
        told.take(at(0), &problem);
        let mut told = Told::from_json(&told.to_json());
        // Not met yet: it may be gone.
        assert_eq!((told.due(at(REMIND_S * 2)).len(), told.next_at()), (0, None));
        assert!(told.take(at(60), &problem).is_empty());
        assert_eq!(told.next_at(), Some(at(REMIND_S)));
        let mut told = Told::from_json(&told.to_json());
        assert_eq!(sayings(&told.take(at(120), &event(Kind::Scheduled, ACCOUNT))), [Saying::Recovered]);
        for torn in ["", "{", "[]", r#"{"problems":[{}]}"#, r#"{"problems":7}"#] {
            assert_eq!(Told::from_json(torn), Told::default(), "{torn}");
        }
    }

    /// A code that comes a moment after the account was found empty is in the one message.
    #[test]
    fn code_in_the_message() {
        let mut told = Told::default();
        assert!(told.take(at(0), &event(Kind::NeedsAuthorization, ACCOUNT)).is_empty());
        let with_code =
            event(Kind::NeedsAuthorization, ACCOUNT).detail("open https://trakt.tv/activate, enter ABCD1234");
        let said = told.take(at(2), &with_code);
        assert!(said.len() == 1 && said[0].body().contains("ABCD1234"), "{said:?}");
        assert!(told.take(at(3), &event(Kind::NeedsAuthorization, ACCOUNT)).is_empty());
    }

    /// Any word about an account means that its file could be read, also where that was in another life.
    #[test]
    fn file_problem_ends_with_an_account() {
        let mut told = Told::default();
        assert_eq!(told.take(at(0), &event(Kind::Stranded, FILE)).len(), 1);
        let mut told = Told::from_json(&told.to_json());
        let said = told.take(at(60), &event(Kind::RefreshFailed, ACCOUNT));
        assert_eq!((sayings(&said), said[0].account.as_str()), (vec![Saying::Recovered], FILE));
    }

    /// Each pin that is rejected is answered, and a grant that is followed by more work ends nothing.
    #[test]
    fn answers() {
        let mut told = Told::default();
        for _ in 0..2 {
            assert_eq!(told.take(at(0), &event(Kind::CodeRejected, ACCOUNT)).len(), 1);
        }
        told.take(at(0), &event(Kind::Rejected, ACCOUNT));
        assert!(told.take(at(1), &Event::new(Kind::Adopted, ACCOUNT)).is_empty());
        assert_eq!(told.problems().len(), 1);
    }

    /// What leads to a sign-in is told as it comes, with the link; only the newest is reminded of, and a restart
    /// that begins anew with a code repeats nothing.
    #[test]
    fn sign_in() {
        let mut told = Told::default();
        let mut code = event(Kind::EnterCode, ACCOUNT).detail("enter ABCD1234");
        code.link = Some("https://trakt.tv/activate/ABCD1234".to_owned());
        let said = told.take(at(0), &code);
        assert!(said[0].body().contains("https://trakt.tv/activate/ABCD1234"), "{}", said[0].body());
        assert!(told.take(at(60), &code.clone().detail("enter ABCD1234 now")).is_empty());
        assert_eq!(told.take(at(1200), &event(Kind::CodesUnused, ACCOUNT)).len(), 1);
        assert_eq!(told.next_at(), Some(at(1200 + REMIND_S)));
        let mut told = Told::from_json(&told.to_json());
        assert!(told.take(at(1300), &code).is_empty());
        assert!(told.take(at(1400), &event(Kind::CodesUnused, ACCOUNT)).is_empty());
        assert_eq!(sayings(&told.take(at(1500), &event(Kind::Scheduled, ACCOUNT))), [Saying::Recovered]);
    }

    /// A code that took the place of an expired one reaches the person, also after a restart; but codes without
    /// end do not, and none of them takes a reminder away.
    #[test]
    fn next_codes() {
        let code = |number: i64| {
            let mut code = event(Kind::EnterCode, ACCOUNT).detail(format!("enter {number}"));
            code.link = Some(format!("https://trakt.tv/activate/{number}"));
            code
        };
        let mut told = Told::default();
        for number in 0..3 {
            let said = told.take(at(number * 600), &code(number));
            assert!(said.len() == 1 && said[0].body().contains(&format!("activate/{number}\n")), "{number}: {said:?}");
            assert!(told.take(at(number * 600 + 5), &code(number)).is_empty(), "{number}");
        }
        assert_eq!(told.take(at(1800), &event(Kind::CodesUnused, ACCOUNT)).len(), 1);
        let mut told = Told::from_json(&told.to_json());
        assert_eq!(sayings(&told.take(at(3600), &code(3))), [Saying::Reminder]);
        let mut flood = 0;
        for number in 4..139 {
            flood += told.take(at(3600 + number * 600), &code(number)).len();
        }
        assert_eq!(flood, 3);
        // The next day has its own: the newest code, and later ones.
        assert_eq!(told.next_at(), Some(at(600 + REMIND_S)));
        assert_eq!(sayings(&told.due(at(600 + REMIND_S))), [Saying::Reminder]);
        assert_eq!(told.problems().iter().map(|problem| problem.times).collect::<Vec<_>>(), [1, 1]);
    }

    /// What reached nobody is told again as soon as it is met, and nothing is recovered from.
    #[test]
    fn undelivered() {
        let mut told = Told::default();
        let problem = event(Kind::Rejected, ACCOUNT);
        let said = told.take(at(0), &problem);
        told.unsay(&said[0]);
        let mut told = Told::from_json(&told.to_json());
        assert!(told.clone().take(at(60), &event(Kind::Scheduled, ACCOUNT)).is_empty());
        assert_eq!(sayings(&told.take(at(60), &problem)), [Saying::Problem]);
        assert!(told.take(at(120), &problem).is_empty());
    }

    /// An account is the same one, whatever stands in front of its name by now.
    #[test]
    fn renamed() {
        let mut told = Told::default();
        told.take(at(0), &event(Kind::Rejected, ACCOUNT));
        let mut told = Told::from_json(&told.to_json());
        assert!(told.take(at(60), &event(Kind::Rejected, "alice/config.yml#trakt")).is_empty());
        assert_eq!(told.problems()[0].subject, "alice/config.yml#trakt");
        assert!(told.take(at(90), &event(Kind::Scheduled, "alice/config.yml#mal")).is_empty());
        assert_eq!(sayings(&told.take(at(120), &event(Kind::Scheduled, ACCOUNT))), [Saying::Recovered]);
    }

    /// A clock that was ahead silences nothing for longer than a day.
    #[test]
    fn clock_set_back() {
        let mut told = Told::default();
        told.take(at(REMIND_S * 400), &event(Kind::Rejected, ACCOUNT));
        told.take(at(0), &event(Kind::Rejected, ACCOUNT));
        assert_eq!(told.next_at(), Some(at(REMIND_S)));
    }
}
