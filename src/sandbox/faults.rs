//! What can go wrong on request, and how it is asked for.
//!
//! A fault is written `[WHERE:]WHAT[=VALUE][@TIMES[~SKIP]]`:
//!
//! - `WHERE`: an endpoint (`trakt.token`, `mal.token`, `device-code`, `device-token`, `revoke`,
//!   `authorize`, `data`, `elsewhere`), `token` for both token endpoints, which is meant where
//!   nothing is said, or `any`.
//! - `WHAT`: one of the lines of [`Kind`].
//! - `@TIMES`: how often, `always` for without end; once where nothing is said.
//! - `~SKIP`: how many requests pass first.
//!
//! `503@3` refuses the next three; `mal.token:delay=2s@always`; `drop-after@1~2` loses the third answer.
//!
//! This file never does IO.

use super::endpoints::{Endpoint, error};
use super::message::Reply;
use crate::provider::Key;
use serde_json::Value;
use std::fmt;
use std::str::FromStr;

/// What goes wrong, where and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What goes wrong.
    pub kind: Kind,
    /// Where.
    pub target: Target,
    /// How often it happens; none means always.
    pub times: Option<u32>,
    /// How many requests pass first.
    pub skip: u32,
}

impl Fault {
    /// A fault that happens once, to the next request to a token endpoint.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Self { kind, target: Target::Token, times: Some(1), skip: 0 }
    }

    /// The same elsewhere.
    #[must_use]
    pub const fn at(mut self, target: Target) -> Self {
        self.target = target;
        self
    }

    /// The same so many times.
    #[must_use]
    pub const fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// The same without end.
    #[must_use]
    pub const fn always(mut self) -> Self {
        self.times = None;
        self
    }

    /// The same after so many requests have passed.
    #[must_use]
    pub const fn after(mut self, skip: u32) -> Self {
        self.skip = skip;
        self
    }

    /// Whether it is over.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.times, Some(0))
    }

    /// A request to that endpoint arrives: what happens to it?
    pub fn strike(&mut self, endpoint: Endpoint) -> Option<Kind> {
        if self.is_over() || !self.target.covers(endpoint) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.times = self.times.map(|times| times - 1);
        Some(self.kind.clone())
    }
}

/// The requests that a fault may happen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// `any`: all of them.
    Any,
    /// `token`: either token endpoint.
    Token,
    /// One endpoint.
    One(Endpoint),
}

impl Target {
    const fn covers(self, endpoint: Endpoint) -> bool {
        match self {
            Self::Any => true,
            Self::Token => matches!(endpoint, Endpoint::TraktToken | Endpoint::MalToken),
            Self::One(one) => one as u8 == endpoint as u8,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Token => "token",
            Self::One(one) => Endpoint::ALL.iter().find(|(endpoint, _)| *endpoint == one).map_or("", |(_, name)| name),
        }
    }

    fn named(name: &str) -> Option<Self> {
        match name {
            "any" => Some(Self::Any),
            "token" => Some(Self::Token),
            _ => Endpoint::ALL.iter().find(|(_, known)| *known == name).map(|(endpoint, _)| Self::One(*endpoint)),
        }
    }
}

/// How a 429 looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A JSON object.
    Json,
    /// Plain text.
    Text,
    /// A page.
    Html,
}

/// What goes wrong. "Acts" means that the server did what was asked: the token is spent.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `delay=MS`: waits, then acts, even if the client has gone. Combines with a fault of another kind.
    Delay(u64),
    /// `late=MS`: acts, waits, then answers. Combines likewise.
    Late(u64),
    /// `hang`: reads the request and never answers.
    Hang,
    /// `drop-before`: closes the connection without having acted.
    DropBefore,
    /// `drop-after`: acts, then closes the connection: the answer is lost.
    DropAfter,
    /// `truncate`: acts, sends half of the body and closes.
    Truncate,
    /// `reset`: acts, sends half of the body and resets the connection.
    Reset,
    /// `garbage`: answers something that is not HTTP.
    Garbage,
    /// `refuse=MS`: drops this request and refuses connections for so long.
    Refuse(u64),
    /// `500`, `502`, `408` …, `5xx` for 503: that status with a gateway's page; not acted.
    Status(u16),
    /// `lost=500` …: acts, and answers that status all the same.
    Lost(u16),
    /// `403-html`: Cloudflare's refusal.
    Blocked,
    /// `challenge`: 200 with Cloudflare's page instead of JSON.
    Challenge,
    /// `429[=SECONDS][/json|/text|/html]`: slow down, with or without `Retry-After`.
    TooMany(Option<u32>, Shape),
    /// `huge=BYTES`: 200 with a page that goes on and on; not acted.
    Huge(u64),
    /// `padded=BYTES`: acts, and fills the answer with white space up to that size.
    Padded(u64),
    /// `301`, `302`, `303`, `307`, `308`, each with `=URL`: somewhere else.
    Redirect(u16, String),
    /// `invalid-client`: 401, the application is not known.
    InvalidClient,
    /// `invalid-grant`: 400, although the token lives.
    InvalidGrant,
    /// `no-refresh_token`, `no-scope`, `no-created_at` …: acts, and leaves that key out. Without a
    /// new refresh token the old one stays valid (RFC 6749 section 6).
    Without(Key),
    /// `expires_in=0`, `created_at=99999999999`, `token_type=mac` …: acts, and puts that value.
    Put(Key, Value),
}

const KEYS: [Key; 6] =
    [Key::AccessToken, Key::TokenType, Key::ExpiresIn, Key::RefreshToken, Key::Scope, Key::CreatedAt];

impl Kind {
    /// The answer that comes instead of acting, where there is one.
    #[must_use]
    pub fn instead(&self) -> Option<Reply> {
        let page = |status: u16| Reply::html(status, &format!("{status}"), "<center>cloudflare</center>");
        match self {
            Self::Status(status) => Some(page(*status)),
            Self::Blocked => Some(Reply::html(403, "Attention Required! | Cloudflare", "Sorry, you have been blocked")),
            Self::Challenge => Some(Reply::html(200, "Just a moment...", "Checking your browser")),
            Self::TooMany(retry_after_s, shape) => {
                let reply = match shape {
                    Shape::Json => error(429, "too_many_requests", "Rate limit exceeded."),
                    Shape::Text => Reply::text(429, "Rate limit exceeded"),
                    Shape::Html => page(429),
                };
                Some(match retry_after_s {
                    Some(seconds) => reply.with("retry-after", seconds.to_string()),
                    None => reply,
                })
            }
            Self::Redirect(status, to) => Some(Reply::empty(*status).with("location", to.clone())),
            Self::InvalidClient => Some(error(401, "invalid_client", "Client authentication failed.")),
            Self::InvalidGrant => Some(error(400, "invalid_grant", "The grant is invalid.")),
            _ => None,
        }
    }

    /// The answer after acting. Only grants are changed: a refusal stays one.
    #[must_use]
    pub fn alter(&self, mut reply: Reply) -> Reply {
        let mut edit = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
            if let (200, Ok(Value::Object(mut grant))) = (reply.status, serde_json::from_slice(&reply.body)) {
                change(&mut grant);
                reply.body = Value::Object(grant).to_string().into_bytes();
            }
        };
        match self {
            Self::Lost(status) => return Reply::html(*status, &status.to_string(), "<center>cloudflare</center>"),
            Self::Padded(bytes) => {
                let size = usize::try_from(*bytes).unwrap_or(usize::MAX);
                reply.body.resize(size.max(reply.body.len()), b' ');
            }
            Self::Without(key) => edit(&|grant| drop(grant.remove(key.name()))),
            Self::Put(key, value) => edit(&|grant| drop(grant.insert(key.name().to_owned(), value.clone()))),
            _ => {}
        }
        reply
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delay(ms) => write!(f, "delay={ms}"),
            Self::Late(ms) => write!(f, "late={ms}"),
            Self::Hang => f.write_str("hang"),
            Self::DropBefore => f.write_str("drop-before"),
            Self::DropAfter => f.write_str("drop-after"),
            Self::Truncate => f.write_str("truncate"),
            Self::Reset => f.write_str("reset"),
            Self::Garbage => f.write_str("garbage"),
            Self::Refuse(ms) => write!(f, "refuse={ms}"),
            Self::Status(status) => write!(f, "{status}"),
            Self::Lost(status) => write!(f, "lost={status}"),
            Self::Blocked => f.write_str("403-html"),
            Self::Challenge => f.write_str("challenge"),
            Self::TooMany(retry_after_s, shape) => {
                let seconds = retry_after_s.map(|seconds| format!("={seconds}")).unwrap_or_default();
                write!(f, "429{seconds}/{}", format!("{shape:?}").to_lowercase())
            }
            Self::Huge(bytes) => write!(f, "huge={bytes}"),
            Self::Padded(bytes) => write!(f, "padded={bytes}"),
            Self::Redirect(status, to) => write!(f, "{status}={to}"),
            Self::InvalidClient => f.write_str("invalid-client"),
            Self::InvalidGrant => f.write_str("invalid-grant"),
            Self::Without(key) => write!(f, "no-{}", key.name()),
            Self::Put(key, value) => write!(f, "{}={value}", key.name()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = self.times.map_or_else(|| "always".to_owned(), |times| times.to_string());
        write!(f, "{}:{}@{times}", self.target.name(), self.kind)?;
        if self.skip > 0 { write!(f, "~{}", self.skip) } else { Ok(()) }
    }
}

/// A fault that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no such fault: {0}; write [WHERE:]WHAT[=VALUE][@TIMES[~SKIP]], for example 503@3 or mal.token:delay=2s@always"
)]
pub struct BadFault(String);

impl FromStr for Fault {
    type Err = BadFault;

    fn from_str(text: &str) -> Result<Self, BadFault> {
        let bad = || BadFault(text.to_owned());
        let (target, rest) = match text.split_once(':').map(|(name, rest)| (Target::named(name), rest)) {
            Some((Some(target), rest)) => (target, rest),
            // A URL has a colon as well, so what is before one need not be a target.
            _ => (Target::Token, text),
        };
        let (what, (times, skip)) = match rest.rsplit_once('@').map(|(what, count)| (what, read_count(count))) {
            Some((what, Some(count))) => (what, count),
            _ => (rest, (Some(1), 0)),
        };
        let kind = read_kind(what).ok_or_else(bad)?;
        Ok(Self { kind, target, times, skip })
    }
}

fn read_count(text: &str) -> Option<(Option<u32>, u32)> {
    let (times, skip) = text.split_once('~').unwrap_or((text, "0"));
    let times = if times == "always" { None } else { Some(times.parse().ok()?) };
    Some((times, skip.parse().ok()?))
}

fn read_kind(what: &str) -> Option<Kind> {
    let (name, value) = what.split_once('=').map_or((what, None), |(name, value)| (name, Some(value)));
    if let Some(key) = KEYS.into_iter().find(|key| key.name() == name) {
        // Anything that is not a JSON scalar is meant as a string.
        let value = value?;
        let scalar = serde_json::from_str(value).ok().filter(|value: &Value| !value.is_object() && !value.is_array());
        return Some(Kind::Put(key, scalar.unwrap_or_else(|| value.into())));
    }
    if let Some(retry) = what.strip_prefix("429") {
        let (seconds, shape) = retry.split_once('/').unwrap_or((retry, "text"));
        let shape = [Shape::Json, Shape::Text, Shape::Html]
            .into_iter()
            .find(|known| format!("{known:?}").eq_ignore_ascii_case(shape))?;
        let seconds =
            seconds.strip_prefix('=').map_or((seconds.is_empty()).then_some(None), |s| s.parse().ok().map(Some))?;
        return Some(Kind::TooMany(seconds, shape));
    }
    match (name, value) {
        ("delay", Some(time)) => read_ms(time).map(Kind::Delay),
        ("late", Some(time)) => read_ms(time).map(Kind::Late),
        ("refuse", Some(time)) => read_ms(time).map(Kind::Refuse),
        ("huge", bytes) => bytes.unwrap_or("4000000").parse().ok().map(Kind::Huge),
        ("padded", bytes) => bytes.unwrap_or("100000").parse().ok().map(Kind::Padded),
        ("lost", status) => read_status(status.unwrap_or("502")).map(Kind::Lost),
        ("301" | "302" | "303" | "307" | "308", to) => {
            // Reserved for documentation (RFC 6761): a client that follows goes nowhere.
            Some(Kind::Redirect(name.parse().ok()?, to.unwrap_or("https://elsewhere.invalid/").to_owned()))
        }
        (name, None) => match name {
            "hang" => Some(Kind::Hang),
            "drop-before" => Some(Kind::DropBefore),
            "drop-after" => Some(Kind::DropAfter),
            "truncate" => Some(Kind::Truncate),
            "reset" => Some(Kind::Reset),
            "garbage" => Some(Kind::Garbage),
            "5xx" => Some(Kind::Status(503)),
            "403-html" => Some(Kind::Blocked),
            "challenge" => Some(Kind::Challenge),
            "invalid-client" => Some(Kind::InvalidClient),
            "invalid-grant" => Some(Kind::InvalidGrant),
            _ => match name.strip_prefix("no-") {
                Some(name) => KEYS.into_iter().find(|key| key.name() == name).map(Kind::Without),
                None => read_status(name).map(Kind::Status),
            },
        },
        _ => None,
    }
}

fn read_status(text: &str) -> Option<u16> {
    text.parse().ok().filter(|status| (400..=599).contains(status))
}

/// `250`, `250ms`, `2s` or `5m` in milliseconds.
fn read_ms(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit {
        "" | "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What is written is what is meant, and what is shown can be read again.
    #[test]
    fn grammar() {
        let one = |kind| Fault::new(kind);
        let elsewhere = "https://elsewhere.invalid/".to_owned();
        let table = [
            ("5xx@3", one(Kind::Status(503)).times(3)),
            ("mal.token:delay=2s@always", one(Kind::Delay(2000)).at(Target::One(Endpoint::MalToken)).always()),
            ("drop-after@1~2", one(Kind::DropAfter).after(2)),
            ("any:408", one(Kind::Status(408)).at(Target::Any)),
            ("429", one(Kind::TooMany(None, Shape::Text))),
            ("429=7/html", one(Kind::TooMany(Some(7), Shape::Html))),
            ("429/json@2", one(Kind::TooMany(None, Shape::Json)).times(2)),
            ("307=http://user@127.0.0.1:1/x", one(Kind::Redirect(307, "http://user@127.0.0.1:1/x".to_owned()))),
            ("302@2", one(Kind::Redirect(302, elsewhere)).times(2)),
            ("no-scope", one(Kind::Without(Key::Scope))),
            ("expires_in=-1", one(Kind::Put(Key::ExpiresIn, json!(-1)))),
            ("expires_in=\"3600\"", one(Kind::Put(Key::ExpiresIn, json!("3600")))),
            ("token_type=mac", one(Kind::Put(Key::TokenType, json!("mac")))),
            ("refuse=250ms", one(Kind::Refuse(250))),
            ("late=1m", one(Kind::Late(60_000))),
            ("huge", one(Kind::Huge(4_000_000))),
            ("lost=500", one(Kind::Lost(500))),
        ];
        for (text, fault) in table {
            assert_eq!(text.parse(), Ok(fault.clone()), "{text}");
            assert_eq!(fault.to_string().parse(), Ok(fault), "{text}");
        }
        for bad in
            ["", "nothing", "200", "delay", "delay=x", "429=x", "429/xml", "expires_in", "no-thing", "503@x", "hang=1"]
        {
            assert!(bad.parse::<Fault>().is_err(), "{bad}");
        }
    }

    /// A fault strikes where it belongs, after what may pass, as often as asked.
    #[test]
    fn strikes() {
        let mut fault = Fault::new(Kind::Hang).times(2).after(1);
        let mut at = |endpoint| fault.strike(endpoint).is_some();
        assert_eq!([at(Endpoint::TraktToken), at(Endpoint::Data)], [false, false]);
        assert_eq!([at(Endpoint::MalToken), at(Endpoint::TraktToken), at(Endpoint::MalToken)], [true, true, false]);
        assert!(fault.is_over());
        let mut always = Fault::new(Kind::Hang).at(Target::Any).always();
        assert!((0..9).all(|_| always.strike(Endpoint::Revoke).is_some()));
    }

    /// Grants are altered in one field; a refusal passes as it is.
    #[test]
    fn alterations() {
        let grant = Reply::json(200, &json!({"access_token": "a", "scope": "public", "expires_in": 5}));
        let field = |kind: Kind, name: &str| {
            let value: Value = serde_json::from_slice(&kind.alter(grant.clone()).body).expect("JSON");
            value[name].clone()
        };
        assert_eq!(field(Kind::Without(Key::Scope), "scope"), Value::Null);
        assert_eq!(field(Kind::Put(Key::ExpiresIn, json!("x")), "expires_in"), "x");
        assert_eq!(Kind::Padded(70_000).alter(grant.clone()).body.len(), 70_000);
        assert_eq!(Kind::Lost(502).alter(grant).status, 502);
        let refusal = Reply::json(400, &json!({"error": "invalid_grant", "scope": "x"}));
        assert!(Kind::Without(Key::Scope).alter(refusal.clone()) == refusal);
    }
}
