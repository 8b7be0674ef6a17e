//! A sign-in that is under way: what a restart has to know to go on with it.
//!
//! Pure. The code that a person was told, and the link that was announced,
//! stay good whatever happens to the process in between.

use serde_json::{Map, Value, json};

use crate::token::{Fingerprint, Secret, UnixSeconds};

/// A device code and what belongs to it (RFC 8628 section 3.2).
#[derive(Clone, PartialEq, Eq)]
pub struct Code {
    /// What is polled with.
    pub device_code: Secret,
    /// What the person enters.
    pub user_code: String,
    /// The page to enter it on.
    pub page: String,
    /// Seconds between two polls.
    pub interval_s: i64,
    /// The next poll is not before this.
    pub poll_at: UnixSeconds,
    /// When its time is over.
    pub expires_at: UnixSeconds,
    /// The client that it was made for.
    pub client: Fingerprint,
}

impl Code {
    /// The page with the code filled in, for a QR code.
    #[must_use]
    pub fn link(&self) -> String {
        format!("{}/{}", self.page.trim_end_matches('/'), self.user_code)
    }
}

/// How a device code ended that brought no grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The person said no.
    Denied,
    /// Its time was over, or the provider did not know it any more.
    Expired,
    /// It brought a grant, and the answer with it was lost on the way.
    Lost,
}

/// What is known of a sign-in.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SignIn {
    /// The newest device code, open or expired.
    pub code: Option<Code>,
    /// How many codes in a row were asked for.
    pub rounds: u32,
    /// How the last one ended, where the provider said so.
    pub ended: Option<Ended>,
    /// The PKCE verifier of the link that was announced (RFC 7636).
    pub verifier: Option<Secret>,
}

/// One step of a sign-in.
#[derive(Clone, PartialEq, Eq)]
pub enum Step {
    /// A code is about to be asked for: which one in a row.
    Asked(u32),
    /// It came.
    Came(Code),
    /// A poll is about to be sent, or was refused: the next one is not before this, and so far apart.
    Polled {
        /// The next poll is not before this.
        at: UnixSeconds,
        /// Seconds between two polls from now on.
        interval_s: i64,
    },
    /// It ended without a grant.
    Ended(Ended),
    /// A link with this verifier is about to be announced.
    Link(Secret),
}

impl SignIn {
    pub(super) fn apply(&mut self, step: &Step) {
        match step {
            Step::Asked(round) => {
                // Why there is a new code stays known; a no is taken back by asking again.
                self.ended = self.ended.filter(|ended| *ended != Ended::Denied);
                (self.rounds, self.code) = (*round, None);
            }
            Step::Came(code) => self.code = Some(code.clone()),
            Step::Polled { at, interval_s } => {
                if let Some(code) = &mut self.code {
                    (code.poll_at, code.interval_s) = (*at, *interval_s);
                }
            }
            Step::Ended(ended) => (self.code, self.ended) = (None, Some(*ended)),
            Step::Link(verifier) => self.verifier = Some(verifier.clone()),
        }
    }

    /// The fewest steps that lead here.
    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.rounds > 0 {
            // First, because it clears what follows.
            steps.push(Step::Asked(self.rounds));
        }
        steps.extend(self.ended.map(Step::Ended));
        steps.extend(self.code.clone().map(Step::Came));
        steps.extend(self.verifier.clone().map(Step::Link));
        steps
    }
}

impl Step {
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Asked(round) => json!({"sign_in": "asked", "round": round}),
            Self::Came(code) => json!({
                "sign_in": "code", "device_code": code.device_code.expose(), "user_code": code.user_code,
                "page": code.page, "interval_s": code.interval_s, "poll_at": code.poll_at.0,
                "expires_at": code.expires_at.0, "client": code.client.to_string(),
            }),
            Self::Polled { at, interval_s } => {
                json!({"sign_in": "polled", "poll_at": at.0, "interval_s": interval_s})
            }
            Self::Ended(ended) => json!({"sign_in": match ended {
                Ended::Denied => "denied",
                Ended::Expired => "expired",
                Ended::Lost => "lost",
            }}),
            Self::Link(verifier) => json!({"sign_in": "link", "verifier": verifier.expose()}),
        }
    }

    pub(super) fn from_json(object: &Map<String, Value>) -> Option<Self> {
        let text = |key: &str| object.get(key)?.as_str();
        let number = |key: &str| object.get(key)?.as_i64();
        Some(match text("sign_in")? {
            "asked" => Self::Asked(u32::try_from(number("round")?).ok()?),
            "code" => Self::Came(Code {
                device_code: Secret::new(text("device_code")?),
                user_code: text("user_code")?.to_owned(),
                page: text("page")?.to_owned(),
                interval_s: number("interval_s")?,
                poll_at: UnixSeconds(number("poll_at")?),
                expires_at: UnixSeconds(number("expires_at")?),
                client: Fingerprint::parse(text("client")?)?,
            }),
            "polled" => Self::Polled { at: UnixSeconds(number("poll_at")?), interval_s: number("interval_s")? },
            "denied" => Self::Ended(Ended::Denied),
            "expired" => Self::Ended(Ended::Expired),
            "lost" => Self::Ended(Ended::Lost),
            "link" => Self::Link(Secret::new(text("verifier")?)),
            _ => return None,
        })
    }
}
