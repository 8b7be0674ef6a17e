//! The timer on the wall clock: absolute deadlines, and a clock that is set.

#[path = "common/skipped.rs"]
mod skipped;

use std::process::Command;
use std::time::Duration;

use kometa_authd::clock::{Rang, Timer, now};
use kometa_authd::token::UnixSeconds;
use skipped::skipped;

/// Nothing here takes longer, even on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// A deadline in the past rings at once, one ahead at its second and not before, and a wait that is given
/// up for another one does not ring for the first. Then the clock is set, to what it says already, which
/// moves it by a millisecond at most: that wakes a wait of years at once, so nothing has to tick to notice.
/// One test, because a clock that is set wakes everybody.
#[test]
fn deadlines_and_a_clock_that_is_set() {
    block_on(async {
        let timer = Timer::new();
        for at in [i64::MIN, 0, now().0 - 5, now().0] {
            let rang = tokio::time::timeout(PATIENCE, timer.wait(Some(UnixSeconds(at)))).await;
            assert_eq!(rang, Ok(Rang::Deadline), "{at}");
        }
        let (soon, later) = (now().plus(1), now().plus(2));
        let given_up = tokio::time::timeout(Duration::from_millis(1), timer.wait(Some(soon))).await;
        assert!(given_up.is_err() || now() >= soon);
        assert_eq!(tokio::time::timeout(PATIENCE, timer.wait(Some(later))).await, Ok(Rang::Deadline));
        assert!(now() >= later);

        // The first poll of the wait arms the timer, and only then the clock is set.
        let was_set = async {
            if set_clock() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            rang = tokio::time::timeout(PATIENCE, timer.wait(None)) => {
                assert_eq!(rang, Ok(Rang::ClockSet));
                // Between two waits it is not missed, and it is said once.
                let given_up = tokio::time::timeout(Duration::from_millis(1), timer.wait(None)).await;
                assert!(given_up.is_err());
                set_clock();
                assert_eq!(tokio::time::timeout(PATIENCE, timer.wait(None)).await, Ok(Rang::ClockSet));
                let soon = now().plus(1);
                assert_eq!(tokio::time::timeout(PATIENCE, timer.wait(Some(soon))).await, Ok(Rang::Deadline));
            }
            () = was_set => skipped("the clock cannot be set here (date -s, as root)"),
        }
    });
}

/// Sets the clock to what it says; whether that is allowed here.
fn set_clock() -> bool {
    let date = Command::new("date").args(["-s", &format!("@{}", exact_now())]).output();
    date.is_ok_and(|output| output.status.success())
}

fn exact_now() -> String {
    #[expect(clippy::disallowed_methods, reason = "the test sets the clock to what it says")]
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("{}.{:09}", since.as_secs(), since.subsec_nanos())
}
