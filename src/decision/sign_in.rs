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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{Kometa, Seen};
    use crate::journal::sign_in::Step;
    use crate::journal::{History, Record, Trouble};
    use crate::token::{Fingerprint, Secret};

    const NOW: UnixSeconds = UnixSeconds(1_795_348_800);

    fn client() -> Fingerprint {
        Fingerprint::of(b"client")
    }

    fn code(poll_in_s: i64, expires_in_s: i64, client: Fingerprint) -> Step {
        Step::Came(Code {
            device_code: Secret::new("d"),
            user_code: "ABCD1234".to_owned(),
            page: "https://trakt.tv/activate".to_owned(),
            interval_s: 5,
            poll_at: NOW.plus(poll_in_s),
            expires_at: NOW.plus(expires_in_s),
            client,
        })
    }

    fn asked(steps: Vec<Step>, way: Way, asked: Urgency, decided: Decision) -> Decision {
        let mut history = History::default();
        for step in steps {
            history.apply(&Record::SignIn(step));
        }
        let seen = Seen { client: Some(client()), ..Seen::default() };
        let facts = Facts { now: NOW, seen, history: &history, kometa: Kometa::default(), urgency: Urgency::Usual };
        ask(&facts, way, asked, decided)
    }

    fn waits(at: Option<i64>, reason: Waiting) -> Decision {
        Decision::Wait { until: at.map(|seconds| NOW.plus(seconds)), reason }
    }

    /// Every state of a sign-in, and what comes next: usually, and where somebody wants to be asked anew.
    #[test]
    fn table() {
        const NEVER: Waiting = Waiting::NeverAuthorized;
        let round = |round| Decision::AskForCode { round };
        let other = || Fingerprint::of(b"another client");
        let ended = |how| vec![Step::Asked(1), code(0, 600, client()), Step::Ended(how)];
        let enter = |seconds| waits(Some(seconds), Waiting::EnterCode);
        for (what, steps, usually, anew) in [
            ("nothing yet", vec![], round(1), round(1)),
            ("asked, and no answer", vec![Step::Asked(1)], round(2), round(1)),
            ("open", vec![Step::Asked(1), code(5, 600, client())], enter(5), enter(5)),
            ("a poll is due", vec![Step::Asked(1), code(0, 600, client())], Decision::Poll, Decision::Poll),
            ("the clock was set back", vec![code(POLL_MAX_S + 1, 9000, client())], Decision::Poll, Decision::Poll),
            (
                "slowed down",
                vec![code(0, 600, client()), Step::Polled { at: NOW.plus(10), interval_s: 10 }],
                enter(10),
                enter(10),
            ),
            ("its time is over", vec![Step::Asked(1), code(0, 0, client())], round(2), round(1)),
            ("of another client", vec![Step::Asked(1), code(5, 600, other())], round(2), round(1)),
            ("expired", ended(Ended::Expired), round(2), round(1)),
            ("lost", ended(Ended::Lost), round(2), round(1)),
            ("denied", ended(Ended::Denied), waits(None, NEVER), round(1)),
            ("denied, and asked anew", [ended(Ended::Denied), vec![Step::Asked(1)]].concat(), round(2), round(1)),
            ("the third expired", vec![Step::Asked(3), Step::Ended(Ended::Expired)], waits(None, NEVER), round(1)),
        ] {
            let decided = waits(None, NEVER);
            assert_eq!(asked(steps.clone(), Way::DeviceCode, Urgency::Usual, decided), usually, "{what}");
            assert_eq!(asked(steps.clone(), Way::DeviceCode, Urgency::Asked, decided), anew, "{what}, anew");
            assert_eq!(asked(steps, Way::Telling, Urgency::Asked, decided), decided, "{what}, turned off");
        }
    }

    /// A link is made once; a second look at a dead token comes in between; and who needs nobody is not
    /// asked, nor who signed out.
    #[test]
    fn others() {
        let never = waits(None, Waiting::NeverAuthorized);
        let link = || vec![Step::Link(Secret::new("v"))];
        assert_eq!(asked(vec![], Way::Link, Urgency::Usual, never), Decision::MakeLink);
        assert_eq!(asked(link(), Way::Link, Urgency::Asked, never), waits(None, Waiting::PasteAddress));
        let rejected = waits(Some(3), Waiting::Rejected);
        let open = vec![code(5, 600, client())];
        assert_eq!(asked(open, Way::DeviceCode, Urgency::Usual, rejected), waits(Some(3), Waiting::EnterCode));
        for reason in [Waiting::SignedOut, Waiting::Valid, Waiting::Retry, Waiting::NoClient, Waiting::ClockNotSet] {
            let decided = waits(Some(9), reason);
            assert_eq!(asked(vec![], Way::DeviceCode, Urgency::Asked, decided), decided, "{reason:?}");
        }
        assert_eq!(asked(vec![], Way::DeviceCode, Urgency::Asked, Decision::Adopt), Decision::Adopt);
    }

    /// After a failed request for a code its time is waited for, unless somebody asks.
    #[test]
    fn failed_request() {
        let trouble = Trouble {
            since: NOW,
            attempts: 1,
            not_before: NOW.plus(60),
            what: "no network".to_owned(),
            asked: false,
            refused: None,
        };
        let mut history = History::default();
        history.apply(&Record::Trouble { trouble, settled: true });
        let seen = Seen { client: Some(client()), ..Seen::default() };
        let facts = Facts { now: NOW, seen, history: &history, kometa: Kometa::default(), urgency: Urgency::Usual };
        let never = waits(None, Waiting::NeverAuthorized);
        let usually = ask(&facts, Way::DeviceCode, Urgency::Usual, never);
        assert_eq!(usually, waits(Some(60), Waiting::NeverAuthorized));
        assert_eq!(ask(&facts, Way::DeviceCode, Urgency::Asked, never), Decision::AskForCode { round: 1 });
    }
}
