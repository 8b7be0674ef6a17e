//! What a person is told: what happened, what still works and until when, what
//! to do, and where.
//!
//! Pure. Made from an [`Event`], which has never seen a secret.

use serde_json::{Value, json};

use super::policy::Problem;
use crate::clock::local;
use crate::event::{Event, Kind, Level};
use crate::health::span;
use crate::token::UnixSeconds;

/// Why something is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saying {
    /// A problem is there.
    Problem,
    /// It still is.
    Reminder,
    /// It is over.
    Recovered,
    /// Somebody asked whether this arrives.
    Test,
}

/// One message to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Why it is told.
    pub saying: Saying,
    /// The event's stable name, such as `needs_authorization`.
    pub event: String,
    /// `config.yml#trakt`, or a path where it concerns a whole file.
    pub account: String,
    /// The config file.
    pub path: String,
    /// What happened.
    pub sentence: String,
    /// Why, or what exactly.
    pub detail: String,
    /// What to do, or nothing.
    pub todo: String,
    /// An address for a person to open.
    pub link: Option<String>,
    /// When the access token ends.
    pub expires_at: Option<UnixSeconds>,
    /// For a recovery: what was wrong.
    pub before: Option<String>,
    /// When it was made.
    pub at: UnixSeconds,
}

impl Notice {
    /// The notice of an event.
    #[must_use]
    pub fn new(at: UnixSeconds, event: &Event, saying: Saying) -> Self {
        let (_, sentence, todo) = event.kind.row();
        Self {
            saying,
            event: event.kind.name(),
            account: event.subject.clone(),
            path: String::new(),
            sentence: sentence.to_owned(),
            detail: event.detail.clone(),
            todo: todo.to_owned(),
            link: event.link.clone(),
            expires_at: event.expires_at,
            before: None,
            at,
        }
    }

    /// The notice of a problem.
    #[must_use]
    pub fn of(at: UnixSeconds, problem: &Problem, saying: Saying) -> Self {
        Self {
            saying,
            event: problem.event.clone(),
            account: problem.subject.clone(),
            path: String::new(),
            sentence: problem.sentence.clone(),
            detail: problem.detail.clone(),
            todo: problem.todo.clone(),
            link: problem.link.clone(),
            expires_at: problem.expires_at,
            before: None,
            at,
        }
    }

    /// The notice of `notify --test`.
    #[must_use]
    pub fn test(at: UnixSeconds, path: &str) -> Self {
        Self {
            saying: Saying::Test,
            event: "test".to_owned(),
            account: path.to_owned(),
            path: path.to_owned(),
            sentence: "this is a test, sent by `kometa-authd notify --test`".to_owned(),
            detail: String::new(),
            todo: "nothing: messages of kometa-authd arrive here".to_owned(),
            link: None,
            expires_at: None,
            before: None,
            at,
        }
    }

    /// How much it concerns a person.
    #[must_use]
    pub const fn level(&self) -> Level {
        match self.saying {
            Saying::Problem | Saying::Reminder => Level::Error,
            Saying::Recovered | Saying::Test => Level::Info,
        }
    }

    /// The level's name.
    #[must_use]
    pub const fn level_name(&self) -> &'static str {
        match self.level() {
            Level::Error => "error",
            _ => "info",
        }
    }

    /// One line.
    #[must_use]
    pub fn title(&self) -> String {
        match self.saying {
            Saying::Problem => format!("kometa-authd: {}: a person must act", self.account),
            Saying::Reminder => format!("kometa-authd: {}: still waiting for a person", self.account),
            Saying::Recovered => format!("kometa-authd: {}: recovered", self.account),
            Saying::Test => "kometa-authd: test".to_owned(),
        }
    }

    /// The whole message.
    #[must_use]
    pub fn body(&self) -> String {
        let mut lines = Vec::new();
        let mut row = |name: &str, value: &str| {
            if !value.is_empty() {
                lines.push(format!("{name}: {value}"));
            }
        };
        row("What happened", &self.sentence);
        row("It is over that", self.before.as_deref().unwrap_or_default());
        row("Because", &self.detail);
        row("Link", self.link.as_deref().unwrap_or_default());
        row("Still works", &self.still_works());
        row("What to do", if self.saying == Saying::Recovered { "nothing" } else { &self.todo });
        row("Where", &self.place());
        lines.join("\n")
    }

    /// What still works, and until when.
    fn still_works(&self) -> String {
        match self.expires_at {
            _ if self.saying == Saying::Test => String::new(),
            Some(at) if at > self.at => {
                format!("the token, until {} (for {})", local(at), span(at.since(self.at)))
            }
            Some(at) => format!("nothing: the token expired {}, and Kometa goes without this account", local(at)),
            None if self.saying == Saying::Recovered => String::new(),
            None if self.event == Kind::NeedsAuthorization.name() => {
                "nothing yet: Kometa goes without this account until this is done".to_owned()
            }
            None => "tokens that are in the file work until they expire".to_owned(),
        }
    }

    /// The exact place.
    fn place(&self) -> String {
        match self.account.rsplit_once('#') {
            Some((_, section)) if self.account != self.path => format!("{}, section {section}", self.path),
            _ => self.path.clone(),
        }
    }

    /// For a program.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "event": self.event,
            "saying": match self.saying {
                Saying::Problem => "problem",
                Saying::Reminder => "reminder",
                Saying::Recovered => "recovered",
                Saying::Test => "test",
            },
            "level": self.level_name(),
            "account": self.account,
            "config": self.path,
            "title": self.title(),
            "message": self.sentence,
            "detail": self.detail,
            "todo": self.todo,
            "link": self.link,
            "text": self.body(),
            "expires_at": self.expires_at.map(|at| at.0),
            "at": self.at.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message says what happened, until when what works, what to do, and where.
    #[test]
    fn message() {
        let mut event = Event::new(Kind::Rejected, "config.yml#trakt");
        event.expires_at = Some(UnixSeconds(90_000));
        let mut notice = Notice::new(UnixSeconds(0), &event, Saying::Problem);
        notice.path = "/config/config.yml".to_owned();
        let body = notice.body();
        for part in
            ["rejected the refresh token", "for 1 d 1 h)", "authorize again", "/config/config.yml, section trakt"]
        {
            assert!(body.contains(part), "{part}: {body}");
        }
        notice.at = UnixSeconds(90_001);
        assert!(notice.body().contains("nothing: the token expired"));
    }
}
