//! What a person is told who is to sign in: the same in the log, in
//! notifications and in `status`.
//!
//! Pure. With PKCE's method `plain` the link holds the verifier; it is of no use without the code, which
//! only the browser of the person who agreed ever sees.

use crate::clock::local;
use crate::decision::Waiting;
use crate::journal::sign_in::Ended;
use crate::journal::{Held, History};
use crate::refresh::link::authorize_url;
use crate::refresh::request::Endpoint;
use crate::token::{Secret, UnixSeconds};

/// What to do, and the address to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// What to do, until when, and why.
    pub detail: String,
    /// The address that does most of it.
    pub link: String,
}

/// The invitation that a wait stands for.
#[must_use]
pub fn invitation(
    reason: Waiting,
    history: &History,
    client_id: Option<&Secret>,
    endpoint: Option<&Endpoint>,
) -> Option<Invitation> {
    let why = why(history);
    match reason {
        Waiting::EnterCode => {
            let code = history.sign_in.code.as_ref()?;
            let until = local(code.expires_at);
            let detail = format!("open {} and enter {}, until {until}; {why}", code.page, code.user_code);
            Some(Invitation { detail, link: code.link() })
        }
        Waiting::PasteAddress => {
            let link = authorize_url(endpoint?, client_id?, history.sign_in.verifier.as_ref()?)?;
            Some(Invitation { detail: why.to_owned(), link })
        }
        _ => None,
    }
}

/// Why a sign-in is needed.
fn why(history: &History) -> &'static str {
    let dead = history.current.as_ref().and_then(Held::refresh).and_then(|token| history.dead(token));
    match (history.sign_in.ended, &history.sign_in.code) {
        (Some(Ended::Lost), Some(_)) => return "the answer to the code before was lost on the way",
        (Some(Ended::Expired), Some(_)) => return "the code before was not entered in its time",
        _ => {}
    }
    match dead {
        None if history.current.is_none() => "there is no token yet",
        None => "a new sign-in was asked for",
        Some(dead) if dead.lost => "the answer to an earlier refresh was lost, and the old token is taken no more",
        Some(_) => "the provider rejected the refresh token",
    }
}

/// How much time is left, for a progress line: `9:05`.
#[must_use]
pub fn minutes(until: UnixSeconds, now: UnixSeconds) -> String {
    let left = until.since(now).max(0);
    format!("{}:{:02}", left / 60, left % 60)
}
