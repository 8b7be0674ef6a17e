//! The only reader of the wall clock, and the timer that wakes by it.
//!
//! The timer is absolute: it counts a suspend, and fires at once when the
//! clock is set (`TFD_TIMER_CANCEL_ON_SET`, `timerfd_create(2)`), so that nothing
//! has to tick to notice. Where the system has no such timer, a minute's tick
//! takes its place.
#![expect(clippy::disallowed_methods, reason = "the one place where the clock is read")]

use std::fs;
use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::net::unix::pipe::Receiver;

use crate::token::UnixSeconds;

/// The wall clock now.
#[must_use]
pub fn now() -> UnixSeconds {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixSeconds(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// The clock in local time, for a person: `2026-11-22 15:04:05`.
#[must_use]
pub fn local(at: UnixSeconds) -> String {
    let Ok(moment) = jiff::Timestamp::from_second(at.0) else {
        return format!("{} seconds after 1970", at.0);
    };
    let at = moment.to_zoned(zone()).datetime();
    let (date, time) = (at.date(), at.time());
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        date.year(),
        date.month(),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// The zone of this process: `TZ`, or else the machine's.
#[must_use]
pub fn zone() -> TimeZone {
    static ZONE: OnceLock<TimeZone> = OnceLock::new();
    ZONE.get_or_init(|| {
        let name = std::env::var("TZ").ok().filter(|name| !name.is_empty());
        zone_file(name.as_deref()).unwrap_or_else(TimeZone::system)
    })
    .clone()
}

/// The one file that has the zone, where it is in its usual place. Whoever looks a name up the general way
/// reads the whole tree of zones first, which takes longer than everything else at the start.
fn zone_file(name: Option<&str>) -> Option<TimeZone> {
    let Some(name) = name else {
        return TimeZone::tzif("local", &fs::read("/etc/localtime").ok()?).ok();
    };
    let is_plain = |part: &str| part.starts_with(|first: char| first.is_ascii_alphanumeric());
    if std::env::var_os("TZDIR").is_some() || !name.split('/').all(is_plain) {
        return None;
    }
    TimeZone::tzif(name, &fs::read(Path::new("/usr/share/zoneinfo").join(name)).ok()?).ok()
}

/// Why the timer woke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rang {
    /// The time has come, or is near enough to look.
    Deadline,
    /// The clock was set.
    ClockSet,
}

/// A timer on the wall clock.
pub struct Timer(Option<Receiver>);

/// How often the fallback looks.
const TICK: Duration = Duration::from_secs(60);

/// The year 2100: far enough to mean never.
const FAR_S: i64 = 4_102_444_800;

impl Timer {
    /// Makes a timer; needs the runtime's context.
    #[must_use]
    pub fn new() -> Self {
        Self(Self::make().ok())
    }

    fn make() -> io::Result<Receiver> {
        let fd = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // tokio's pipe is a file descriptor that is read when it is ready; that is all that a timerfd is.
        Receiver::from_owned_fd_unchecked(fd)
    }

    /// Waits for a moment, or without one only for the clock to be set.
    pub async fn wait(&self, until: Option<UnixSeconds>) -> Rang {
        match &self.0 {
            Some(fd) => match Self::wait_on(fd, until).await {
                Ok(rang) => rang,
                Err(_) => Self::tick(until).await,
            },
            None => Self::tick(until).await,
        }
    }

    async fn wait_on(fd: &Receiver, until: Option<UnixSeconds>) -> io::Result<Rang> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A timer of zero is disarmed, and one in the far future still hears of a clock that is set.
        let at = until.map_or(FAR_S, |until| until.0.max(1));
        let spec = Itimerspec { it_interval: zero, it_value: Timespec { tv_sec: at, tv_nsec: 0 } };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        loop {
            match timerfd_settime(fd, flags, &spec) {
                // It was set between two waits (timerfd_create(2), NOTES).
                Err(rustix::io::Errno::CANCELED) => return Ok(Rang::ClockSet),
                armed => armed.map(drop)?,
            }
            fd.readable().await?;
            let mut expirations = [0; 8];
            match fd.try_read(&mut expirations) {
                Ok(_) => return Ok(Rang::Deadline),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::CANCELED.raw_os_error()) => {
                    return Ok(Rang::ClockSet);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Looks at the clock every minute; a step of it shows as a time that passed too fast or too slowly.
    async fn tick(until: Option<UnixSeconds>) -> Rang {
        loop {
            let before = now();
            let left = until.map_or(TICK, |until| Duration::from_secs(until.since(before).max(0).unsigned_abs()));
            tokio::time::sleep(left.min(TICK)).await;
            let passed = now().since(before);
            if until.is_some_and(|until| now() >= until) {
                return Rang::Deadline;
            }
            if !(-2..=62).contains(&passed) {
                return Rang::ClockSet;
            }
        }
    }
}

impl Default for Timer {
    fn default() -> Self {
        Self::new()
    }
}
