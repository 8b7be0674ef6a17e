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

/// A power cut left a trial behind and took the note that the last edit was done: the trial was taken for an edit
/// that had come out of the swap, and put in the config's place.
#[test]
fn a_trial_that_is_left() {
    let cuts: Vec<_> =
        (0_u8..160).map(|n| (2 * i64::from(n), 30_000.0, Act::PowerLossWriting(10 + u64::from(n % 20)))).collect();
    holds(Scenario { lifetime_s: DAY_S, ..usual(1, 330) }, &cuts);
}

/// A pair that was put back into the file by a process that was killed before it had synced the name.
#[test]
fn a_pair_that_is_put_back() {
    let acts = (20_u8..80).flat_map(|n| {
        let day = 3 * i64::from(n - 20);
        [(day, 30_000.0, Act::Copy), (day + 2, 30_000.0, Act::KillWriting(n.into())), (day + 2, 30_000.1, Act::Restore)]
    });
    holds(Scenario { lifetime_s: DAY_S, sort: Sort::NoExchange, ..usual(1, 190) }, &acts.collect::<Vec<_>>());
}

/// What somebody wrote into the file that stood in the config's place, while the disk could not be read: each failure
/// counted as a look at it, and after five it was forgotten.
#[test]
fn a_look_that_fails() {
    let acts = (0_u8..30).flat_map(|n| {
        let (day, seconds) = (3 * i64::from(n), 36_000.0);
        let fails = Act::DiskFails(40 + 2 * u64::from(n), 24, 3);
        [(day, seconds, Act::Copy), (day + 2, seconds, fails), (day + 2, seconds + 0.1, Act::SaveAcross(3299, false))]
    });
    holds(Scenario { lifetime_s: DAY_S, ..usual(1, 100) }, &acts.collect::<Vec<_>>());
}

/// The note that somebody's new pair had taken the place of ours was not on the medium when a stale copy was
/// written over it: after a power cut our own, which was spent, went into the file.
#[test]
fn a_pair_that_was_replaced() {
    let acts = (0_u8..40).flat_map(|n| {
        let day = 12 * i64::from(n);
        let run = (day + 6, 3600.0, Act::Kometa(10_800_000));
        let cut = (day + 6, 36_000.0, Act::PowerLossWriting(5 + u64::from(n)));
        [(day, 36_000.0, Act::Copy), run, cut, (day + 6, 36_000.1, Act::Restore)]
    });
    holds(Scenario { kometa: KometaSort::Eager, ..usual(1, 490) }, &acts.collect::<Vec<_>>());
}

/// Of a shorter text that was written in place, the end could not be cut off: half an edit stood in the file until
/// the next attempt.
#[test]
fn an_end_that_stays() {
    let acts = (0_u8..40).flat_map(|n| {
        let (day, seconds) = (3 * i64::from(n), 36_000.0);
        let fails = Act::DiskFails(20 + u64::from(n), u64::from(n % 2), 5);
        [(day, seconds, fails), (day, seconds + 0.1, Act::NewPin)]
    });
    holds(Scenario { sort: Sort::HardLink, ..usual(1, 130) }, &acts.collect::<Vec<_>>());
}

/// Half a save that the machine was suspended in seemed to have stood still for hours.
#[test]
fn a_save_asleep() {
    let acts = (0_u8..30).flat_map(|n| {
        let (day, seconds) = (2 * i64::from(n), 36_000.0);
        let save = Act::SlowSave(400 + 20 * usize::from(n), 900);
        [(day, seconds, save), (day, seconds, Act::Suspend(3_600_000))]
    });
    holds(Scenario { lifetime_s: DAY_S, ..usual(1, 70) }, &acts.collect::<Vec<_>>());
}

/// Half of a write in place is no YAML, and nothing was finished before the file could be read.
#[test]
fn half_a_write_in_place() {
    let acts = (0_u8..80).flat_map(|n| {
        let (day, seconds) = (3 * i64::from(n), 36_000.0);
        [(day, seconds, Act::KillWriting(n.into())), (day, seconds + 0.1, Act::NewPin)]
    });
    holds(Scenario { sort: Sort::HardLink, ..usual(1, 250) }, &acts.collect::<Vec<_>>());
}
