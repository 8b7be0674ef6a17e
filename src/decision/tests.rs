//! The tables of what is decided, and why.

use proptest::prelude::*;

use super::*;
use crate::journal::{Dead, Intent, Record, Trouble};
use crate::token::{Grant, Secret};

/// 2026-11-22 12:00 UTC.
const NOON: UnixSeconds = UnixSeconds(1_795_348_800);
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

fn grant(name: &str, created_at: Option<i64>, expires_in: Option<i64>) -> Grant {
    Grant {
        access_token: Secret::new(format!("access-{name}")),
        token_type: Some("bearer".to_owned()),
        expires_in,
        refresh_token: Some(Secret::new(format!("refresh-{name}"))),
        scope: None,
        created_at: created_at.map(UnixSeconds),
    }
}

fn held(name: &str, origin: Origin, at: UnixSeconds, lifetime: i64) -> Held {
    let grant = grant(name, Some(at.0), Some(lifetime));
    Held { grant, origin, at, client: Fingerprint::of(b"client"), draw: 0, published: true }
}

fn token(name: &str) -> Fingerprint {
    Secret::new(format!("refresh-{name}")).fingerprint()
}

/// A file with a pair of that name in it; an empty name is an empty block.
fn seen(name: &str) -> Seen {
    let given = |kind: &str| (!name.is_empty()).then(|| Secret::new(format!("{kind}-{name}")).fingerprint());
    Seen {
        client: Some(Fingerprint::of(b"client")),
        credentials: Some(Fingerprint::of(b"client and secret")),
        access: given("access"),
        refresh: given("refresh"),
        once: None,
    }
}

fn history(records: &[Record]) -> History {
    let mut history = History::default();
    for record in records {
        history.apply(record);
    }
    history
}

fn at(now: UnixSeconds, seen: Seen, history: &History) -> Decision {
    decide(&Facts { now, seen, history, kometa: Kometa::default(), urgency: Urgency::Usual })
}

fn waits(decision: Decision) -> (UnixSeconds, Waiting) {
    match decision {
        Decision::Wait { until: Some(until), reason } => (until, reason),
        other => panic!("not a wait with an end: {other:?}"),
    }
}

/// Two thirds of every lifetime that was seen, less the jitter that was drawn; and at that very second
/// it is due.
#[test]
fn schedule_by_lifetime() {
    for lifetime in [20, HOUR, DAY, 7 * DAY, 90 * DAY] {
        for draw in [0, 1000] {
            let mut pair = held("a", Origin::Refreshed, NOON, lifetime);
            pair.draw = draw;
            let history = history(&[Record::Held(pair)]);
            let due = NOON.plus(lifetime / 3 * 2 - lifetime / 20 * i64::from(draw) / 1000);
            let soon = due.min(NOON.plus(LOOK_AGAIN_S));
            assert_eq!(waits(at(NOON, seen("a"), &history)), (soon, Waiting::Valid), "{lifetime} {draw}");
            assert_eq!(at(due, seen("a"), &history), Decision::Refresh(Refreshing::Due), "{lifetime} {draw}");
            let after = NOON.plus(lifetime);
            assert_eq!(at(after, seen("a"), &history), Decision::Refresh(Refreshing::Expired), "{lifetime} {draw}");
        }
    }
}

/// A clock that is stepped or slept through moves only what is due: the deadline stays where it was.
#[test]
fn clock_steps() {
    let history = history(&[Record::Held(held("a", Origin::Refreshed, NOON, 7 * DAY))]);
    let due = NOON.plus(7 * DAY / 3 * 2);
    for step in [-2 * HOUR, -60, 60, DAY] {
        assert_eq!(waits(at(NOON.plus(step), seen("a"), &history)), (due, Waiting::Valid), "{step}");
    }
    // Set back by months: nobody knows how old the pair is, so it is refreshed once.
    assert_eq!(at(NOON.plus(-20 * DAY), seen("a"), &history), Decision::Refresh(Refreshing::UnknownLife));
    let unset = UnixSeconds(86_400);
    assert_eq!(
        at(unset, seen("a"), &history),
        Decision::Wait { until: None, reason: Waiting::ClockNotSet },
        "a board without a clock"
    );
    let none = Seen::default();
    assert_eq!(at(SANE_CLOCK, none, &history), Decision::Wait { until: None, reason: Waiting::NoClient }, "just set");
    // A little ahead is within what clocks do; a tenth of the lifetime more and nobody knows.
    let tenth = 7 * DAY / 10;
    assert_eq!(waits(at(NOON.plus(-tenth), seen("a"), &history)), (due, Waiting::Valid));
    assert_eq!(at(NOON.plus(-tenth - 1), seen("a"), &history), Decision::Refresh(Refreshing::UnknownLife));
    // Also where the server's clock was right: ours is what the pair came by, and it was half a life ahead.
    let mut ahead = held("a", Origin::Refreshed, NOON.plus(-7 * DAY / 2), 7 * DAY);
    ahead.at = NOON;
    let ahead = self::history(&[Record::Held(ahead)]);
    assert_eq!(at(NOON.plus(-7 * DAY / 4), seen("a"), &ahead), Decision::Refresh(Refreshing::UnknownLife));
}

/// What cannot be true is not believed: the documentation's sample, zero, negative, overflow. A foreign
/// pair is then refreshed at first sight; one of our own counts from when it came.
#[test]
fn absurd_numbers() {
    let absurd = [
        (Some(137_946_258), Some(1_928_374_655)),
        (None, None),
        (Some(0), Some(0)),
        (Some(NOON.0), Some(-5)),
        (Some(NOON.0), Some(i64::MAX)),
        (Some(i64::MAX), Some(7 * DAY)),
        (Some(i64::MIN), Some(i64::MIN)),
        (Some(NOON.0 + 10 * DAY), Some(DAY)),
    ];
    for (created_at, expires_in) in absurd {
        let mut pair = held("a", Origin::Adopted, NOON, DAY);
        pair.grant = grant("a", created_at, expires_in);
        let adopted = history(&[Record::Held(pair.clone())]);
        let what = format!("{created_at:?} {expires_in:?}");
        assert_eq!(at(NOON, seen("a"), &adopted), Decision::Refresh(Refreshing::UnknownLife), "{what}");
        pair.origin = Origin::Refreshed;
        let refreshed = history(&[Record::Held(pair)]);
        let (until, reason) = waits(at(NOON, seen("a"), &refreshed));
        assert_eq!(reason, Waiting::Valid, "{what}");
        assert!(until >= NOON.plus(DAY / 2) && until <= NOON.plus(LOOK_AGAIN_S), "{what}: {until:?}");
    }
}

/// A pair of our own is no younger than its `created_at` says, where our clock was ahead when it came; and at
/// most a quarter of its life older, where the other clock is far behind.
#[test]
fn two_clocks() {
    let lifetime = 8 * 3600;
    for (created_s, begun_s) in
        [(0, 0), (60, 0), (-60, -60), (-3600, -3600), (-7200, -7200), (-7201, -7200), (-DAY, -7200)]
    {
        let mut pair = held("a", Origin::Refreshed, NOON, lifetime);
        pair.grant.created_at = Some(NOON.plus(created_s));
        assert_eq!(life(&pair), Some((NOON.plus(begun_s), lifetime)), "{created_s}");
        pair.origin = Origin::Adopted;
        assert_eq!(life(&pair), Some((NOON.plus(created_s), lifetime)), "{created_s}, somebody's");
    }
}

/// `MyAnimeList` has no `created_at`: the token's own claims stand in for it.
#[test]
fn claims_stand_in() {
    use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
    let claims = format!(r#"{{"iat":{},"exp":{}}}"#, NOON.0 - DAY, NOON.0 + 30 * DAY);
    let mut pair = held("a", Origin::Adopted, NOON, DAY);
    pair.grant = grant("a", None, Some(31 * DAY));
    pair.grant.access_token = Secret::new(format!("h.{}.s", BASE64_URL_SAFE_NO_PAD.encode(claims)));
    assert_eq!(life(&pair), Some((NOON.plus(-DAY), 31 * DAY)));
}

/// Whose token is it? Each case as the file has it and as the journal has it.
#[test]
fn ownership() {
    let ours = || Record::Held(held("b", Origin::Refreshed, NOON, 7 * DAY));
    let unpublished = || {
        let mut pair = held("b", Origin::Refreshed, NOON, 7 * DAY);
        pair.published = false;
        Record::Held(pair)
    };
    let spent = || Record::Spent(vec![token("a")]);
    let dead = |name| Record::Dead(Dead { token: token(name), at: NOON, lost: false });
    let edit = || Record::Edit(Fingerprint::of(b"before"), Fingerprint::of(b"after"));
    let mut half = seen("");
    half.access = seen("b").access;
    let new_access = Seen { access: seen("c").access, ..seen("b") };
    let valid = waits(at(NOON, seen("b"), &history(&[ours()]))).0;
    let wait = |reason| Decision::Wait { until: Some(valid), reason };
    for (what, seen, records, expected) in [
        ("first sight", seen("a"), vec![], Decision::Adopt),
        ("ours", seen("b"), vec![ours(), spent()], wait(Waiting::Valid)),
        ("a stale copy", seen("a"), vec![ours(), spent()], Decision::Publish(Publishing::SpentCameBack)),
        ("perhaps not on the medium", seen("b"), vec![ours(), edit()], Decision::Publish(Publishing::New)),
        ("somebody's access token since", new_access, vec![ours(), edit()], Decision::Adopt),
        ("not yet in the file", seen("a"), vec![unpublished(), spent()], Decision::Publish(Publishing::New)),
        ("not yet noted", seen("b"), vec![unpublished(), spent()], Decision::Publish(Publishing::New)),
        ("not yet in, and the block is empty", seen(""), vec![unpublished()], Decision::Publish(Publishing::New)),
        ("not yet in, same refresh token", new_access, vec![unpublished()], Decision::Publish(Publishing::New)),
        ("somebody's newer one", seen("c"), vec![ours(), spent()], Decision::Adopt),
        ("somebody's, ours not yet in", seen("c"), vec![unpublished(), spent()], Decision::Adopt),
        ("same refresh token, new access", new_access, vec![ours()], Decision::Adopt),
        ("emptied", seen(""), vec![ours()], Decision::SignOut),
        ("half emptied", half, vec![ours()], wait(Waiting::Valid)),
        (
            "stale, and ours is dead",
            seen("a"),
            vec![ours(), spent(), dead("b")],
            Decision::Wait { until: Some(NOON.plus(DAY)), reason: Waiting::Rejected },
        ),
    ] {
        let history = history(&records);
        assert_eq!(at(NOON, seen, &history), expected, "{what}");
        let theirs = matches!(expected, Decision::Adopt | Decision::SignOut);
        assert_eq!(may_replace(&seen, &history), !theirs, "{what}");
    }
}

/// A sign-out is respected until there is a token again, and a stale copy after it finds the pair.
#[test]
fn sign_out() {
    let mut history = history(&[
        Record::Held(held("b", Origin::Refreshed, NOON, 7 * DAY)),
        Record::Spent(vec![token("a")]),
        Record::SignedOut(NOON),
    ]);
    assert_eq!(at(NOON, seen(""), &history), Decision::Wait { until: None, reason: Waiting::SignedOut });
    assert_eq!(at(NOON, seen("a"), &history), Decision::Publish(Publishing::SpentCameBack));
    assert_eq!(at(NOON, seen("b"), &history), Decision::Adopt);
    let mut pin = seen("");
    pin.once = Some(token("pin"));
    assert_eq!(at(NOON, pin, &history), Decision::Exchange);
    history.apply(&Record::Used(token("pin")));
    let signed_out = Decision::Wait { until: None, reason: Waiting::SignedOut };
    assert_eq!(at(NOON, pin, &history), signed_out);
    // The pair was rejected before: what is known of it is more than that the block was emptied once.
    let mut rejected = history.clone();
    rejected.dead.push(Dead { token: token("b"), at: NOON, lost: false });
    assert_eq!(waits(at(NOON, seen("a"), &rejected)), (NOON.plus(DAY), Waiting::Rejected));
    // Signed out for good, a copy of what was revoked, or of what was called invalid, is no way back.
    history.apply(&Record::LoggedOut(NOON));
    history.apply(&Record::Dead(Dead { token: token("c"), at: NOON, lost: false }));
    for worthless in ["a", "b", "c"] {
        assert_eq!(at(NOON, seen(worthless), &history), signed_out, "{worthless}");
    }
    assert_eq!(at(NOON, seen("d"), &history), Decision::Adopt);
}

/// `invalid_grant` is not the end: the pair before is tried, and the same one again after a day; a
/// person who asks gets it tried now.
#[test]
fn rejected() {
    let ours = held("b", Origin::Refreshed, NOON.plus(-HOUR), 7 * DAY);
    let mut foreign = held("c", Origin::Adopted, NOON, DAY);
    foreign.grant.created_at = None;
    let dead = Record::Dead(Dead { token: token("c"), at: NOON, lost: false });
    let history = history(&[Record::Held(ours), Record::Held(foreign), dead]);
    assert_eq!(at(NOON, seen("c"), &history), Decision::Refresh(Refreshing::Fallback));
    assert!(token_to_spend(&history).and_then(Held::refresh) == Some(token("b")));
    let mut alone = history.clone();
    alone.fallback = None;
    assert_eq!(waits(at(NOON, seen("c"), &alone)), (NOON.plus(DAY), Waiting::Rejected));
    assert_eq!(waits(at(NOON.plus(HOUR), seen("c"), &alone)), (NOON.plus(DAY), Waiting::Rejected));
    assert_eq!(at(NOON.plus(DAY), seen("c"), &alone), Decision::Refresh(Refreshing::SecondLook));
    // Called so by a clock that has been set back since: nobody knows when.
    assert_eq!(at(NOON.plus(-60), seen("c"), &alone), Decision::Refresh(Refreshing::SecondLook));
    let facts = |urgency| Facts { now: NOON, seen: seen("c"), history: &alone, kometa: Kometa::default(), urgency };
    assert_eq!(decide(&facts(Urgency::Asked)), Decision::Refresh(Refreshing::SecondLook));
    // What failed since was the request for a code: a person is waited for, and the code is asked for again
    // long before the second look.
    let mut failing = alone.clone();
    let (what, not_before) = ("no code".to_owned(), NOON.plus(15));
    let trouble = Trouble { since: NOON, attempts: 1, not_before, what, asked: false, refused: None };
    failing.apply(&Record::Trouble { trouble, settled: true });
    let decided = at(NOON, seen("c"), &failing);
    assert_eq!(waits(decided), (NOON.plus(DAY), Waiting::Rejected));
    let facts = facts(Urgency::Usual);
    let facts = Facts { history: &failing, ..facts };
    let asked = sign_in::ask(&facts, sign_in::Way::DeviceCode, Urgency::Usual, decided);
    assert_eq!(waits(asked), (not_before, Waiting::Rejected));
}

/// After a failure nothing is sent before its time, unless somebody asks; what the provider asked for
/// stands even then, and other credentials are tried at once.
#[test]
fn retry() {
    let pair = Record::Held(held("a", Origin::Refreshed, NOON.plus(-7 * DAY), 7 * DAY));
    let trouble = |asked, refused| Record::Trouble {
        trouble: Trouble {
            since: NOON,
            attempts: 1,
            not_before: NOON.plus(60),
            what: "no network".to_owned(),
            asked,
            refused,
        },
        settled: true,
    };
    let decided_at = |now, record: Record, urgency| {
        let history = history(&[pair.clone(), record]);
        decide(&Facts { now, seen: seen("a"), history: &history, kometa: Kometa::default(), urgency })
    };
    let decided = |record, urgency| decided_at(NOON, record, urgency);
    let wait = Decision::Wait { until: Some(NOON.plus(60)), reason: Waiting::Retry };
    assert_eq!(decided(trouble(false, None), Urgency::Usual), wait);
    assert_eq!(decided(trouble(false, None), Urgency::Asked), Decision::Refresh(Refreshing::Expired));
    assert_eq!(decided(trouble(true, None), Urgency::Asked), wait);
    assert_eq!(decided(trouble(true, None), Urgency::Forced), Decision::Refresh(Refreshing::Forced));
    assert_eq!(decided(trouble(false, seen("a").credentials), Urgency::Usual), wait);
    let others = Some(Fingerprint::of(b"before the correction"));
    assert_eq!(decided(trouble(false, others), Urgency::Usual), Decision::Refresh(Refreshing::Expired));
    // When its time has come; and at once where no wait can be as long, for the clock was set back.
    let longest = NOON.plus(60 - crate::backoff::LONGEST_S);
    for (now, expected) in [
        (NOON.plus(59), wait),
        (NOON.plus(60), Decision::Refresh(Refreshing::Expired)),
        (longest, wait),
        (longest.plus(-1), Decision::Refresh(Refreshing::Due)),
    ] {
        assert_eq!(decided_at(now, trouble(false, None), Urgency::Usual), expected, "{now:?}");
    }
}

/// No run of Kometa starts with less than a day left, or half the lifetime where that is shorter: the
/// refresh moves to some minutes before it. Times around midnight included.
#[test]
fn before_kometa() {
    for (lifetime, start_in, expected) in [
        // A day's token: fourteen hours on 10 are left, less than 12.
        (DAY, 14 * HOUR, Some(14 * HOUR - RUN_LEAD_S)),
        // Eleven hours on there are 13.
        (DAY, 11 * HOUR, None),
        // Half of it is enough.
        (DAY, 12 * HOUR, None),
        // The usual time is just then, or minutes before.
        (DAY, 16 * HOUR, Some(16 * HOUR - RUN_LEAD_S)),
        (DAY, 16 * HOUR + 300, Some(16 * HOUR + 300 - RUN_LEAD_S)),
        // The usual time comes first.
        (DAY, 16 * HOUR + RUN_LEAD_S, None),
        (HOUR, 35 * 60, Some(35 * 60 - RUN_LEAD_S)),
        (HOUR, 25 * 60, None),
        // Nineteen minutes: a quarter of them before, or what it brings would not be enough either.
        (19 * 60, 575, Some(575 - 19 * 60 / 4)),
        // A week's token is always refreshed early enough.
        (7 * DAY, 4 * DAY, None),
        (90 * DAY, 2 * DAY, None),
        // 36 hours: a start 20 hours ahead leaves 16 of them, less than 18.
        (36 * HOUR, 20 * HOUR, Some(20 * HOUR - RUN_LEAD_S)),
    ] {
        let history = history(&[Record::Held(held("a", Origin::Refreshed, NOON, lifetime))]);
        let kometa = Kometa { active_at: None, starts: vec![NOON.plus(start_in)] };
        let facts =
            |now| Facts { now, seen: seen("a"), history: &history, kometa: kometa.clone(), urgency: Urgency::Usual };
        let due = expected.unwrap_or(lifetime / 3 * 2);
        let soon = NOON.plus(due.min(LOOK_AGAIN_S));
        assert_eq!(waits(decide(&facts(NOON))), (soon, Waiting::Valid), "{lifetime} {start_in}");
        if expected.is_some() {
            let decided = decide(&facts(NOON.plus(due)));
            assert_eq!(decided, Decision::Refresh(Refreshing::BeforeKometa), "{lifetime} {start_in}");
            // Once it has started, it is too late for that.
            let usual = if lifetime / 3 * 2 > start_in {
                (NOON.plus(lifetime / 3 * 2), Waiting::Valid)
            } else {
                (NOON.plus(start_in + RUN_WINDOW_S), Waiting::KometaRuns)
            };
            assert_eq!(waits(decide(&facts(NOON.plus(start_in)))), usual, "{lifetime} {start_in}");
        }
    }
}

/// Every lifetime that was seen, and some that were not, over the weeks around each change of the clocks and
/// the turn of a leap year, with runs at midnight, in the skipped and in the doubled hour and several a day:
/// each run starts with enough left on its token, none is rotated in its first minutes, and no token is
/// refreshed more often than its life asks for.
#[test]
fn every_run_has_enough_left() {
    const MINUTE: i64 = 60;
    for lifetime in [20 * MINUTE, HOUR, 2 * HOUR, DAY, 36 * HOUR, 2 * DAY, 7 * DAY, 90 * DAY] {
        for times in ["05:00", "00:00", "23:59|00:01", "02:30", "01:30|02:30|03:30", "04:00|04:05|12:00|20:15"] {
            for (zone, day) in [
                ("Europe/Berlin", "2027-03-24"),
                ("Europe/Berlin", "2027-10-27"),
                ("America/New_York", "2027-03-10"),
                ("Australia/Lord_Howe", "2027-03-31"),
                ("America/Sao_Paulo", "2028-02-26"),
            ] {
                let case = format!("{lifetime} s, {times}, {zone} from {day}");
                let (zone, times) =
                    (jiff::tz::TimeZone::get(zone).unwrap(), times.parse::<crate::kometa::Times>().unwrap());
                let date: jiff::civil::Date = day.parse().unwrap();
                let begin = UnixSeconds(date.to_zoned(zone.clone()).unwrap().timestamp().as_second());
                let end = begin.plus(7 * DAY);
                let usual = 7 * DAY / (lifetime / 3 * 2) + 1;
                let before_runs = 7 * i64::try_from(times.around(begin, &zone).len()).unwrap();
                let (mut now, mut refreshes, mut pair) = (begin, 0, held("a", Origin::Refreshed, begin, lifetime));
                while now < end {
                    let starts = times.around(now, &zone);
                    let history = history(&[Record::Held(pair.clone())]);
                    let kometa = Kometa { active_at: None, starts: starts.clone() };
                    let decided =
                        decide(&Facts { now, seen: seen("a"), history: &history, kometa, urgency: Urgency::Usual });
                    match decided {
                        Decision::Refresh(why) => {
                            let runs = starts.iter().any(|start| (0..RUN_WINDOW_S).contains(&now.since(*start)));
                            let left = lifetime - now.since(pair.at);
                            let is_last = left <= (lifetime / 20).min(RUN_LEAD_S);
                            assert!(!runs || is_last, "{case}: {why} in the first minutes of a run, {left} s left");
                            refreshes += 1;
                            assert!(refreshes <= usual + before_runs, "{case}: {refreshes} refreshes");
                            pair = held("a", Origin::Refreshed, now, lifetime);
                        }
                        Decision::Wait { until: Some(until), .. } => {
                            assert!(until > now, "{case}: a wait that is over");
                            let ends = pair.at.plus(lifetime);
                            for start in starts.iter().filter(|start| now < **start && **start <= until) {
                                let left = ends.since(*start);
                                assert!(left >= RUN_NEEDS_S.min(lifetime / 2), "{case}: {left} s left for a run");
                            }
                            assert!(until < ends, "{case}: not before the token ends");
                            now = until;
                        }
                        other => panic!("{case}: {other:?}"),
                    }
                }
            }
        }
    }
}

/// A running Kometa keeps its token until its log has been quiet for a while, or until the token would
/// run out under it.
#[test]
fn kometa_runs() {
    let history = history(&[Record::Held(held("a", Origin::Refreshed, NOON, DAY))]);
    let due = NOON.plus(16 * HOUR);
    let decided = |now, active_at, starts: &[UnixSeconds]| {
        let kometa = Kometa { active_at, starts: starts.to_vec() };
        decide(&Facts { now, seen: seen("a"), history: &history, kometa, urgency: Urgency::Usual })
    };
    let running = decided(due, Some(due.plus(-10)), &[]);
    assert_eq!(waits(running), (due.plus(RUN_QUIET_S - 10), Waiting::KometaRuns));
    assert_eq!(decided(due, Some(due.plus(-RUN_QUIET_S)), &[]), Decision::Refresh(Refreshing::Due));
    let just_started = decided(due, None, &[due.plus(-30)]);
    assert_eq!(waits(just_started), (due.plus(RUN_WINDOW_S - 30), Waiting::KometaRuns));
    // Ten minutes before the end it is refreshed all the same.
    let last = NOON.plus(DAY - RUN_LEAD_S);
    assert_eq!(waits(decided(last.plus(-60), Some(last), &[])), (last, Waiting::KometaRuns));
    assert_eq!(decided(last, Some(last), &[]), Decision::Refresh(Refreshing::Due));
    let minutes = Record::Held(held("a", Origin::Refreshed, NOON, HOUR));
    let minutes = self::history(&[minutes]);
    let kometa = Kometa { active_at: Some(NOON.plus(55 * 60)), starts: vec![] };
    let facts = Facts { now: NOON.plus(55 * 60), seen: seen("a"), history: &minutes, kometa, urgency: Urgency::Usual };
    assert_eq!(waits(decide(&facts)), (NOON.plus(HOUR - HOUR / 20), Waiting::KometaRuns), "three minutes of an hour");
    // What is not due yet does not become so by its run.
    assert_eq!(waits(decided(NOON, Some(NOON), &[])), (due, Waiting::Valid));
    // A log from the future is nobody's.
    assert_eq!(decided(due, Some(due.plus(DAY)), &[]), Decision::Refresh(Refreshing::Due));
}

/// A request without an answer leaves its token in doubt, and the same token is what is tried again.
#[test]
fn unknown_outcome() {
    let pair = held("a", Origin::Refreshed, NOON.plus(-7 * DAY), 7 * DAY);
    let intent = |at| Record::Intent(Intent { spends: token("a"), at });
    let history = history(&[Record::Held(pair), intent(NOON), intent(NOON.plus(60))]);
    assert_eq!(history.intent.map(|intent| intent.at), Some(NOON));
    assert_eq!(at(NOON, seen("a"), &history), Decision::Refresh(Refreshing::Unanswered));
    assert!(token_to_spend(&history).and_then(Held::refresh) == Some(token("a")));
}

/// Nobody can be asked for what has no client, and nothing waits where nothing is.
#[test]
fn not_set_up() {
    let wait = |reason| Decision::Wait { until: None, reason };
    assert_eq!(at(NOON, Seen::default(), &History::default()), wait(Waiting::NoClient));
    assert_eq!(at(NOON, seen(""), &History::default()), wait(Waiting::NeverAuthorized));
}

/// A pair ends when its lifetime is over, and where that is unknown nobody says when.
#[test]
fn ends() {
    let mut pair = held("a", Origin::Adopted, NOON, DAY);
    assert_eq!(expires_at(&pair), Some(NOON.plus(DAY)));
    pair.grant.expires_in = None;
    assert_eq!(expires_at(&pair), None);
}

/// A request whose answer is lost makes the pair due, also where what made it due before has passed: it may be
/// spent, and nothing can be lost by asking again. Whose request it was is looked at.
#[test]
fn unanswered() {
    let pair = Record::Held(held("a", Origin::Refreshed, NOON, 7 * DAY));
    let asked = |name| Record::Intent(Intent { spends: token(name), at: NOON });
    let trouble = Trouble {
        since: NOON,
        attempts: 1,
        not_before: NOON.plus(15),
        what: "no answer".to_owned(),
        asked: false,
        refused: None,
    };
    let waited = Record::Trouble { trouble, settled: false };
    let open = history(&[pair.clone(), asked("a")]);
    assert_eq!(at(NOON.plus(60), seen("a"), &open), Decision::Refresh(Refreshing::Unanswered));
    let backing_off = history(&[pair.clone(), asked("a"), waited]);
    assert_eq!(waits(at(NOON, seen("a"), &backing_off)), (NOON.plus(15), Waiting::Retry));
    assert_eq!(at(NOON.plus(15), seen("a"), &backing_off), Decision::Refresh(Refreshing::Unanswered));
    let other = history(&[pair, asked("b")]);
    assert_eq!(waits(at(NOON.plus(60), seen("a"), &other)).1, Waiting::Valid);
}

/// What only a person can end is told apart from what time ends, and every reason has words of its own.
#[test]
fn reasons() {
    let mut words = std::collections::BTreeSet::new();
    for (reason, needs_person) in [
        (Waiting::Valid, false),
        (Waiting::Retry, false),
        (Waiting::KometaRuns, false),
        (Waiting::ClockNotSet, false),
        (Waiting::SignedOut, false),
        (Waiting::NoClient, true),
        (Waiting::NeverAuthorized, true),
        (Waiting::Rejected, true),
        (Waiting::EnterCode, true),
        (Waiting::PasteAddress, true),
    ] {
        assert_eq!(reason.needs_person(), needs_person, "{reason}");
        assert!(words.insert(reason.to_string()), "{reason}");
    }
    for reason in [
        Refreshing::Due,
        Refreshing::BeforeKometa,
        Refreshing::Expired,
        Refreshing::UnknownLife,
        Refreshing::Forced,
        Refreshing::Fallback,
        Refreshing::SecondLook,
        Refreshing::Unanswered,
    ] {
        assert!(words.insert(reason.to_string()), "{reason}");
    }
    assert!(words.iter().all(|words| words.len() > 2));
}

proptest! {
    /// Whatever numbers stand in the file and on the clock: no panic, no wait of more than a month, none
    /// that lies in the past, and no refresh of our own fresh pair at once.
    #[test]
    fn never_absurd(now in SANE_CLOCK.0.., created: Option<i64>, lifetime: Option<i64>, ours: bool, draw: u16, step: i32) {
        let now = UnixSeconds(now);
        let origin = if ours { Origin::Refreshed } else { Origin::Adopted };
        let mut pair = held("a", origin, now, DAY);
        pair.draw = draw;
        pair.grant = grant("a", created, lifetime);
        let history = history(&[Record::Held(pair)]);
        let later = UnixSeconds(now.0.saturating_add(i64::from(step)).max(SANE_CLOCK.0));
        if let Decision::Wait { until: Some(until), .. } = at(later, seen("a"), &history) {
            prop_assert!(until > later && until <= later.plus(LOOK_AGAIN_S));
        }
    }
}
