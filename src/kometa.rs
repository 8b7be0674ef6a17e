//! When Kometa starts: its own setting, `HH:MM` several times a day, in local
//! time with its daylight saving.
//!
//! Pure: the zone and the time are arguments.

use std::str::FromStr;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use crate::token::UnixSeconds;

/// What Kometa does where nobody set anything.
pub const DEFAULT_TIMES: &str = "05:00";

/// How many days of starts are looked ahead: with three, a start that needs a day's life is seen in
/// time for every lifetime whose usual refresh would be too late for it.
const DAYS_AHEAD: i64 = 3;

/// The times of day at which Kometa starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times(Vec<Time>);

impl FromStr for Times {
    type Err = String;

    /// Reads `05:00` or `05:00|17:30`, as `KOMETA_TIMES` has it, or `off`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().eq_ignore_ascii_case("off") {
            return Ok(Self::default());
        }
        let time = |text: &str| {
            let (hour, minute) = text.trim().split_once(':')?;
            Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
        };
        let times = text.split(['|', ',']).filter(|part| !part.trim().is_empty());
        let times: Option<Vec<Time>> = times.map(time).collect();
        times.filter(|times| !times.is_empty()).map(Self).ok_or_else(|| {
            "Kometa's times are written HH:MM, several with | between, such as 05:00|17:30, or off".to_owned()
        })
    }
}

impl Times {
    /// The starts around a moment: those of the day before, and of the next days.
    #[must_use]
    pub fn around(&self, now: UnixSeconds, zone: &TimeZone) -> Vec<UnixSeconds> {
        let Ok(now) = Timestamp::from_second(now.0) else { return Vec::new() };
        let today = now.to_zoned(zone.clone()).date();
        let days = (-1..=DAYS_AHEAD).filter_map(|day| today.checked_add(day.days()).ok());
        let starts = days.flat_map(|day| self.0.iter().map(move |time| day.to_datetime(*time)));
        // A time that daylight saving skips or repeats is taken as schedulers take it: moved on, or its first.
        let mut starts: Vec<UnixSeconds> = starts
            .filter_map(|start| start.to_zoned(zone.clone()).ok())
            .map(|start| UnixSeconds(start.timestamp().as_second()))
            .collect();
        starts.sort_unstable();
        starts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(times: &str, now: &str, zone: &str) -> Vec<String> {
        let zone = TimeZone::get(zone).unwrap();
        let now: Timestamp = now.parse().unwrap();
        let times: Times = times.parse().unwrap();
        let show = |at: UnixSeconds| Timestamp::from_second(at.0).unwrap().to_string();
        times.around(UnixSeconds(now.as_second()), &zone).into_iter().map(show).collect()
    }

    /// Both separators are read, white space does not matter, and nonsense is refused with an example.
    #[test]
    fn formats() {
        for (text, count) in [("05:00", 1), ("5:00", 1), ("05:00|17:30", 2), ("05:00, 17:30 ", 2), ("off", 0)] {
            assert_eq!(text.parse::<Times>().unwrap().0.len(), count, "{text}");
        }
        for text in ["", "5", "25:00", "05:60", "05:00;06:00", "noon"] {
            assert!(text.parse::<Times>().unwrap_err().contains("05:00|17:30"), "{text}");
        }
    }

    /// A start at two in the morning on the days of the change: in spring it is moved on, in autumn it
    /// is the first of the two.
    #[test]
    fn daylight_saving() {
        assert_eq!(
            starts("02:30", "2026-03-28T12:00:00Z", "Europe/Berlin")[..3],
            ["2026-03-27T01:30:00Z", "2026-03-28T01:30:00Z", "2026-03-29T01:30:00Z"]
        );
        assert_eq!(starts("02:30", "2026-10-24T12:00:00Z", "Europe/Berlin")[2], "2026-10-25T00:30:00Z");
        assert_eq!(starts("05:00", "2028-02-28T12:00:00Z", "America/New_York")[2], "2028-02-29T10:00:00Z");
    }

    /// Around midnight, the day is the local one.
    #[test]
    fn midnight() {
        let found = starts("00:10|23:50", "2026-11-22T23:30:00Z", "Europe/Berlin");
        assert!(found.contains(&"2026-11-22T22:50:00Z".to_owned()));
        assert!(found.contains(&"2026-11-22T23:10:00Z".to_owned()));
    }
}
