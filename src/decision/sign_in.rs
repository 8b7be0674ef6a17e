//! How a person is asked, where only a person can help.
//!
//! Pure. The time of every step is in the journal, so a restart in the middle
//! of a sign-in goes on with the same code and the same link.

use super::{Decision, Facts, Urgency, Waiting, retry_at};
use crate::journal::sign_in::{Code, Ended};
use crate::token::UnixSeconds;

/// How many codes are asked for in a row without anybody entering one: half an hour with Trakt's.
pub const ROUNDS_MAX: u32 = 3;
/// No poll is planned further ahead; what is was noted by a clock that has been set back since.
pub const POLL_MAX_S: i64 = 900;

/// How a person can be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// Not at all: what to do is said, and a PIN is waited for.
    #[default]
    Telling,
    /// With a code to enter on a page.
    DeviceCode,
    /// With a link whose last address is pasted back.
    Link,
}

/// Goes on where [`super::decide`] came to a wait that only a person can end. `asked` is more than
/// usual where somebody wants to be asked anew.
#[must_use]
pub fn ask(facts: &Facts, way: Way, asked: Urgency, decided: Decision) -> Decision {
    match decided {
        Decision::Wait { until, reason: reason @ (Waiting::NeverAuthorized | Waiting::Rejected) } => {
            next(facts, way, asked, until, reason)
        }
        other => other,
    }
}

/// The next step of a sign-in; `until` and `reason` are those of the wait without it.
#[must_use]
pub fn next(facts: &Facts, way: Way, asked: Urgency, until: Option<UnixSeconds>, reason: Waiting) -> Decision {
    let sign_in = &facts.history.sign_in;
    let wait = |at: Option<UnixSeconds>, reason| {
        let until = at.into_iter().chain(until).min();
        Decision::Wait { until, reason }
    };
    match way {
        Way::Telling => wait(None, reason),
        Way::Link if sign_in.verifier.is_some() => wait(None, Waiting::PasteAddress),
        Way::Link => Decision::MakeLink,
        Way::DeviceCode => {
            if let Some(code) = open_code(facts) {
                let waits = code.poll_at > facts.now && code.poll_at.since(facts.now) <= POLL_MAX_S;
                return if waits { wait(Some(code.poll_at), Waiting::EnterCode) } else { Decision::Poll };
            }
            let given_up = sign_in.ended == Some(Ended::Denied) || sign_in.rounds >= ROUNDS_MAX;
            match retry_at(facts) {
                Some(at) if asked == Urgency::Usual && !given_up => wait(Some(at), reason),
                _ if asked > Urgency::Usual => Decision::AskForCode { round: 1 },
                _ if given_up => wait(None, reason),
                _ => Decision::AskForCode { round: sign_in.rounds + 1 },
            }
        }
    }
}

/// The code that a person can enter now.
#[must_use]
pub fn open_code<'a>(facts: &Facts<'a>) -> Option<&'a Code> {
    let code = facts.history.sign_in.code.as_ref()?;
    (Some(code.client) == facts.seen.client && facts.now < code.expires_at).then_some(code)
}
