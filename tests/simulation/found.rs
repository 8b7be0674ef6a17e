//! What the simulation found, by name: the shortest plans that broke something, which now hold.
//!
//! A plan and not a seed, because what a seed stands for changes with every act that is added.

use super::play::disk::Sort;
use super::play::machine::TROUBLES;
use super::play::plan::{Act, KometaSort, Plan, Scenario};
use super::play::run;
use kometa_authd::sandbox::rules::Rotation;

const DAY_S: i64 = 86_400;

/// One daemon, one Trakt account with a token of a week, an ordinary folder, and no Kometa.
fn usual(seed: u64, days: i64) -> Scenario {
    Scenario {
        seed,
        length_ms: days * DAY_S * 1000,
        lifetime_s: 7 * DAY_S,
        rotation: Rotation::Strict,
        trakt: true,
        mal: false,
        sort: Sort::Folder,
        is_watched: true,
        zone: "UTC",
        daemons: 1,
        device_login: true,
        kometa: KometaSort::Absent,
        is_polled: false,
        is_new: false,
    }
}

/// Lives through acts, each so many days and seconds after the start.
fn holds(scenario: Scenario, acts: &[(i64, f64, Act)]) {
    #[expect(clippy::cast_possible_truncation, reason = "milliseconds of a day")]
    let ms = |days: i64, seconds: f64| days * DAY_S * 1000 + (seconds * 1000.0) as i64;
    let mut acts: Vec<_> = acts.iter().map(|(days, seconds, act)| (ms(*days, *seconds), *act)).collect();
    acts.insert(0, (0, Act::Start(0)));
    let outcome = run::live(&Plan { scenario, acts });
    assert!(outcome.lived_ms > DAY_S * 1000);
    if let Some((what, trace)) = outcome.broken {
        panic!("{what}\n{}", trace.join("\n"));
    }
}

/// Half a refresh token, at the end of half a save, was adopted and sent.
#[test]
fn half_a_token() {
    let saves: Vec<_> =
        (0_u8..30).map(|n| (n.into(), 36_000.0, Act::SlowSave(400 + 20 * usize::from(n), 1400))).collect();
    holds(usual(1, 40), &saves);
}

/// Where a token had been rejected and the request for a code failed as well, the next one came a day later.
#[test]
fn a_code_soon() {
    let invalid_grant = TROUBLES.len() - 1;
    let trouble = Act::Trouble(13 * 3_600_000, 100, invalid_grant);
    holds(Scenario { lifetime_s: DAY_S, ..usual(1, 4) }, &[(0, 60.0, trouble)]);
}

/// A pair that came by a clock that was ahead seemed younger than it was, once the clock was set right.
#[test]
fn a_clock_that_was_ahead() {
    let scenario = Scenario { lifetime_s: DAY_S, kometa: KometaSort::Old, ..usual(1, 3) };
    let ahead = (0, 14_000.0, Act::ClockStep(50_000_000));
    holds(scenario, &[ahead, (0, 43_200.0, Act::ClockIsSet), (1, 7200.0, Act::Kometa(30_000_000))]);
}

/// A pair that a killed process had put into the file was noted as saved, and nothing had synced its name.
#[test]
fn a_pair_that_is_found() {
    let kills: Vec<_> = (0_u8..60).map(|n| (n.into(), 30_000.0, Act::KillWriting(20 + u64::from(n)))).collect();
    holds(Scenario { lifetime_s: DAY_S, ..usual(1, 70) }, &kills);
}

/// Without an exchange, what takes the config's place is seen up to the operation before the rename.
#[test]
fn compared_last() {
    let edit = |n: u8| Act::EditWhileWeWrite(20 + u64::from(n), false);
    let edits: Vec<_> = (0..60).map(|n| (n.into(), 30_000.0, edit(n))).collect();
    holds(Scenario { lifetime_s: DAY_S, sort: Sort::NoExchange, ..usual(1, 70) }, &edits);
}
