//! What a seed stands for: a place, a provider, a Kometa, and everything that
//! will happen, all of it drawn beforehand.

use fastrand::Rng;
use kometa_authd::sandbox::rules::Rotation;

use super::disk::Sort;
use super::machine::TROUBLES;

/// Milliseconds of a day.
pub const DAY_MS: i64 = 86_400_000;

/// What somebody or something does at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A process starts.
    Start(usize),
    /// A process is killed.
    Kill(usize),
    /// A process is killed so many milliseconds after its next request was sent.
    KillAsking(i64),
    /// A process is killed at an operation from now.
    KillWriting(u64),
    /// A process is told to stop.
    Stop(usize),
    /// A process is told to read everything again.
    Reload(usize),
    /// The power goes, at once.
    PowerLoss,
    /// The power goes at an operation from now.
    PowerLossWriting(u64),
    /// For so many milliseconds there is no way to the providers.
    Outage(i64),
    OutageEnds,
    /// For so many milliseconds some requests of a hundred go wrong, mostly in this way.
    Trouble(i64, u8, usize),
    TroubleEnds,
    /// An operation from now fails, and so many after it, with one of the errors.
    DiskFails(u64, u64, usize),
    DiskFull(i64),
    DiskReadOnly(i64),
    /// Each operation takes so long, for so long.
    DiskSlow(i64, i64),
    DiskIsFast,
    /// The clock is set by so many milliseconds.
    ClockStep(i64),
    /// The machine sleeps.
    Suspend(i64),
    /// The machine boots with a clock of long ago, which is set right later.
    BadBoot(i64),
    ClockIsSet,
    /// A person adds a line, in place or by rename.
    Edit(bool),
    /// The same between two operations of ours.
    EditWhileWeWrite(u64, bool),
    /// An editor writes the file in pieces: cut off there for so long, in thousandths of the file.
    SlowSave(usize, i64),
    SaveStep,
    /// A copy comes back, and whoever wrote it keeps the file open, and writes again so long after; somebody
    /// else may have written the same line by then.
    SaveAcross(i64, bool),
    /// A person leaves the file broken for a while.
    Broken(i64),
    IsMended,
    /// A copy of the file is made, and comes back later.
    Copy,
    Restore,
    /// A person empties the block.
    SignOut(bool),
    /// A person puts a new PIN into the file.
    NewPin,
    /// A person pastes a pair that was made elsewhere.
    NewPair(bool),
    /// A person enters the code of the device flow, or refuses.
    EnterCode(bool),
    /// A person opens the link and pastes the address, so long after.
    PasteAddress(i64),
    /// A person removes the application from their account.
    Revoke(bool),
    /// A person takes the client id out, and puts it back.
    NoClient(i64),
    ClientIsBack,
    /// A person writes what cannot be edited into the block, and corrects it.
    Reference(i64),
    ReferenceIsGone,
    /// A person opens the state folder to everybody, and closes it.
    StateOpen(i64),
    StateIsClosed,
    /// Kometa runs for so long.
    Kometa(i64),
    /// It needs its token in the middle.
    KometaAsks,
    KometaEnds,
}

impl Act {
    /// Whether somebody does it who has hands.
    pub fn is_by_people(self) -> bool {
        use Act::{
            Broken, ClientIsBack, Copy, Edit, EditWhileWeWrite, EnterCode, IsMended, Kometa, KometaAsks, KometaEnds,
            NewPair, NewPin, NoClient, PasteAddress, Reference, ReferenceIsGone, Restore, Revoke, SaveAcross, SaveStep,
            SignOut, SlowSave,
        };
        matches!(
            self,
            Broken(_)
                | ClientIsBack
                | Copy
                | Edit(_)
                | EditWhileWeWrite(..)
                | EnterCode(_)
                | IsMended
                | Kometa(_)
                | KometaAsks
                | KometaEnds
                | NewPair(_)
                | NewPin
                | NoClient(_)
                | PasteAddress(_)
                | Reference(_)
                | ReferenceIsGone
                | Restore
                | Revoke(_)
                | SaveAcross(..)
                | SaveStep
                | SignOut(_)
                | SlowSave(..)
        )
    }

    /// Its name, for the coverage.
    pub fn name(self) -> String {
        let text = format!("{self:?}");
        text.split('(').next().unwrap_or_default().to_owned()
    }
}

/// Which Kometa there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KometaSort {
    /// None.
    Absent,
    /// Up to 2.4: refreshes where its token is refused.
    Old,
    /// Since 2.5, or with `force_refresh`: refreshes at every start.
    Eager,
    /// It refreshes and does not save.
    ReadOnly,
}

/// The unchanging part of a run.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub length_ms: i64,
    pub lifetime_s: i64,
    pub rotation: Rotation,
    pub trakt: bool,
    pub mal: bool,
    pub sort: Sort,
    pub is_watched: bool,
    pub zone: &'static str,
    pub daemons: usize,
    pub device_login: bool,
    pub kometa: KometaSort,
    /// Whether the daemon looks each half minute.
    pub is_polled: bool,
    /// Whether there is a token at first.
    pub is_new: bool,
}

/// A scenario, and what happens in it: milliseconds after its start.
#[derive(Clone, Debug)]
pub struct Plan {
    pub scenario: Scenario,
    pub acts: Vec<(i64, Act)>,
}

const MINUTE_S: i64 = 60;
const HOUR_S: i64 = 3600;
const DAY_S: i64 = 86_400;
/// Lifetimes, how often of a hundred they are drawn, and how many days such a run lasts. The real ones are
/// 24 hours and 7 days; those of minutes are short runs, because they have as many rotations in them.
const LIFETIMES: [(i64, u64, i64); 8] = [
    (MINUTE_S, 2, 1),
    (10 * MINUTE_S, 2, 3),
    (HOUR_S, 3, 10),
    (6 * HOUR_S, 4, 40),
    (DAY_S, 22, 150),
    (7 * DAY_S, 45, 730),
    (30 * DAY_S, 8, 1460),
    (90 * DAY_S, 14, 2920),
];

impl Plan {
    /// What a seed stands for.
    pub fn of(seed: u64) -> Self {
        let mut dice = Rng::with_seed(seed);
        let mut percent = dice.u64(0..100);
        let (lifetime_s, _, days) = *LIFETIMES
            .iter()
            .find(|(_, share, _)| {
                let is_it = percent < *share;
                percent = percent.saturating_sub(*share);
                is_it
            })
            .expect("they add up to a hundred");
        let is_short = lifetime_s < HOUR_S;
        // MyAnimeList's refresh tokens end with the month.
        let mal = lifetime_s < 28 * DAY_S && dice.u8(0..4) == 0;
        let trakt = !mal || dice.bool();
        let sort = if dice.u8(0..3) > 0 { Sort::Folder } else { Sort::ALL[dice.usize(0..Sort::ALL.len())] };
        let is_watched = sort != Sort::Share && dice.u8(0..30) > 0;
        let kometa = if is_short || !trakt {
            KometaSort::Absent
        } else {
            [KometaSort::Absent, KometaSort::Old, KometaSort::Old, KometaSort::Eager, KometaSort::ReadOnly]
                [dice.usize(0..5)]
        };
        // A look every half minute makes as many of them in a month as events do in decades.
        let days = if is_watched && sort != Sort::SingleFile { days } else { days.min(20) };
        let scenario = Scenario {
            seed,
            length_ms: days * DAY_MS,
            lifetime_s,
            rotation: [Rotation::Strict, Rotation::Grace, Rotation::Family][dice.usize(0..3)],
            trakt,
            mal,
            sort,
            is_watched,
            zone: ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"][dice.usize(0..4)],
            daemons: if sort != Sort::Share && dice.u8(0..5) == 0 { 2 } else { 1 },
            device_login: dice.bool(),
            kometa,
            is_polled: !is_watched || sort == Sort::SingleFile,
            is_new: dice.u8(0..10) == 0,
        };
        let mut plan = Self { scenario, acts: Vec::new() };
        plan.draw(&mut dice);
        plan
    }

    /// The last fifth is quiet, so that everything can heal.
    fn draw(&mut self, dice: &mut Rng) {
        let Scenario { length_ms, lifetime_s, daemons, sort, trakt, kometa, .. } = self.scenario;
        let end = length_ms / 5 * 4;
        for process in 0..daemons {
            self.acts.push((dice.i64(0..60_000) * i64::from(process > 0), Act::Start(process)));
        }
        // A fault may outlast a good part of a life, and not many lives.
        let longest = (lifetime_s * 1000 / 4).clamp(20_000, 3 * DAY_MS);
        for _ in 0..dice.usize(40..110) {
            let long = |dice: &mut Rng| dice.i64(1000..longest);
            // A full disk is asked again each minute, which takes as long here as decades of health.
            let a_while = |dice: &mut Rng| dice.i64(1000..longest.min(3 * HOUR_S * 1000));
            let process = dice.usize(0..daemons);
            let act = match dice.u8(0..100) {
                0..=9 => Act::Edit(dice.bool()),
                10..=15 => Act::EditWhileWeWrite(dice.u64(1..80), dice.bool()),
                16..=20 => Act::SlowSave(dice.usize(0..1000), dice.i64(1..1500)),
                21..=24 => Act::Copy,
                25..=27 => Act::Restore,
                28..=29 => Act::SaveAcross(dice.i64(1000..20_000), dice.u8(0..3) == 0),
                30 => Act::Broken(a_while(dice)),
                31..=38 => Act::Outage(long(dice)),
                39..=48 => Act::Trouble(long(dice), dice.u8(10..100), dice.usize(0..TROUBLES.len())),
                49..=53 => Act::DiskFails(dice.u64(1..80), dice.u64(0..40), dice.usize(0..6)),
                54..=55 => Act::DiskFull(a_while(dice)),
                56..=57 => Act::DiskReadOnly(a_while(dice)),
                58 => Act::DiskSlow(dice.i64(1..60), long(dice)),
                59..=61 => Act::Kill(process),
                62..=65 => Act::KillAsking(dice.i64(1..900)),
                66..=71 => Act::KillWriting(dice.u64(1..90)),
                72..=73 => Act::Stop(process),
                74 => Act::Reload(process),
                75..=76 => Act::PowerLoss,
                77..=82 => Act::PowerLossWriting(dice.u64(1..90)),
                83..=84 => Act::ClockStep(dice.i64(-HOUR_S * 1000..HOUR_S * 1000)),
                85 => Act::ClockStep(dice.i64(-3 * DAY_MS..3 * DAY_MS)),
                86..=87 => Act::Suspend(dice.i64(1000..DAY_MS)),
                88 => Act::BadBoot(dice.i64(1000..600_000)),
                89 => Act::SignOut(trakt && dice.bool()),
                90..=91 => Act::NewPin,
                92..=93 => Act::NewPair(trakt && dice.bool()),
                94 => Act::Revoke(trakt && dice.bool()),
                95 => Act::NoClient(long(dice)),
                96 => Act::Reference(a_while(dice)),
                97 if !sort.is_in_place() => Act::StateOpen(a_while(dice)),
                _ => Act::Edit(true),
            };
            self.acts.push((dice.i64(0..end), act));
        }
        if kometa != KometaSort::Absent {
            // Not every day of years: as often as anything else happens.
            for _ in 0..dice.usize(10..60) {
                let day = dice.i64(0..(end / DAY_MS).max(1));
                // About five in the morning of the zone, or at any time by hand.
                let at = if dice.bool() { 4 * HOUR_S * 1000 + dice.i64(0..HOUR_S * 1000) } else { dice.i64(0..DAY_MS) };
                self.acts.push((day * DAY_MS + at, Act::Kometa(dice.i64(300_000..10 * HOUR_S * 1000))));
            }
        }
        self.acts.sort_by_key(|(at, _)| *at);
    }
}
