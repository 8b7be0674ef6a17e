//! How long to wait after a failure.
//!
//! Pure: the same arguments give the same delay. Invariant: never under
//! [`MIN_S`], and never longer than the token can afford to wait.

/// The shortest delay in seconds.
pub const MIN_S: i64 = 2;
/// The first delay after a failure, before it doubles.
const FIRST_S: i64 = 15;
/// The longest delay of our own making. A provider that can be reached for a few minutes a day must
/// be found in them; at this rate a dead line costs 480 connection attempts a day.
const MAX_S: i64 = 180;
/// The longest `Retry-After` that is believed.
const RETRY_AFTER_MAX_S: i64 = 86_400;
/// No delay is longer.
pub const LONGEST_S: i64 = RETRY_AFTER_MAX_S + 60;
/// How long to leave a token alone that the provider called invalid, and credentials that it refused.
/// Both spend nothing, and both have been seen to heal.
pub const REFUSED_S: i64 = 86_400;

/// Seconds until the next attempt.
///
/// - `attempts`: failures in a row, this one included.
/// - `retry_after_s`: what the provider asked for (RFC 9110 section 10.2.3).
/// - `lifetime_s`: the access token's lifetime: one of a minute cannot wait for three.
/// - `draw`: a random number of 0 to 1, which shortens the delay by up to a fifth.
#[must_use]
pub fn delay_s(attempts: u32, retry_after_s: Option<i64>, lifetime_s: i64, draw: f64) -> i64 {
    // Asked for by name: never sooner, a little later, so that not everybody comes back at once.
    let asked = retry_after_s.map_or(0, |asked| asked.clamp(1, RETRY_AFTER_MAX_S) + MIN_S + round(draw * 10.0));
    let scale = |part: i64, max: i64| (lifetime_s / part).clamp(MIN_S, max);
    let doubled = scale(60, FIRST_S).saturating_mul(1 << attempts.saturating_sub(1).min(10));
    let delay = doubled.min(scale(10, MAX_S));
    let ours = delay - round(draw * f64::from(i32::try_from(delay).unwrap_or(i32::MAX)) / 5.0);
    // Nor much sooner than without a word: some say "in three seconds" for days.
    ours.max(asked).max(MIN_S)
}

#[expect(clippy::cast_possible_truncation, reason = "both ends are small")]
fn round(seconds: f64) -> i64 {
    seconds.round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The delays of a week's token: doubling, then level.
    #[test]
    fn doubles_then_levels() {
        let week = 7 * 86_400;
        let delays: Vec<i64> = (1..=7).map(|attempt| delay_s(attempt, None, week, 0.0)).collect();
        assert_eq!(delays, [15, 30, 60, 120, 180, 180, 180]);
    }

    /// A server's word is the least; one that says "in three seconds" again and again is not asked that often.
    #[test]
    fn a_word_of_the_server() {
        let week = 7 * 86_400;
        let delays = |asked| (1..=5).map(move |attempt| delay_s(attempt, Some(asked), week, 0.0));
        assert!(delays(3).eq([15, 30, 60, 120, 180]));
        assert!(delays(900).eq([902; 5]));
    }

    /// What is drawn shortens a delay by up to a fifth, and adds up to ten seconds to what the server asked for.
    #[test]
    fn drawn() {
        let week = 7 * 86_400;
        for (draw, ours, asked) in [(0.0, 180, 902), (0.5, 162, 907), (1.0, 144, 912)] {
            assert_eq!(delay_s(9, None, week, draw), ours, "{draw}");
            assert_eq!(delay_s(9, Some(900), week, draw), asked, "{draw}");
        }
    }

    /// A token of a minute is tried again within seconds.
    #[test]
    fn short_lifetimes_hurry() {
        assert_eq!(delay_s(1, None, 60, 0.0), 2);
        assert_eq!(delay_s(9, None, 60, 0.0), 6);
    }

    proptest! {
        /// Whatever comes in: within the bounds, and never before the provider's own word.
        #[test]
        fn bounded(attempts: u32, asked: Option<i64>, lifetime: i64, draw in 0.0..1.0) {
            let delay = delay_s(attempts, asked, lifetime, draw);
            prop_assert!((MIN_S..=LONGEST_S).contains(&delay));
            match asked {
                Some(asked) => prop_assert!(delay >= asked.min(RETRY_AFTER_MAX_S) && delay <= RETRY_AFTER_MAX_S + 12),
                None => prop_assert!(delay <= MAX_S),
            }
        }
    }
}
