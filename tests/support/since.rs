//! How long something took, less the time for which the machine had other work: what is promised is promised of
//! the program, and the tests run beside others.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Running;

/// A moment.
pub struct Since {
    at: Instant,
    withheld: Duration,
}

/// A time that passed.
pub struct Took {
    whole: Duration,
    withheld: Duration,
}

impl Since {
    /// This moment; the daemon is the one that `took` asks about, where it runs already.
    pub fn now(daemon: Option<&Running>) -> Self {
        Self { at: Instant::now(), withheld: withheld(daemon) }
    }

    /// How long ago it was, as long as the daemon has not been waited for.
    pub fn took(&self, daemon: &Running) -> Took {
        Took { whole: self.at.elapsed(), withheld: withheld(Some(daemon)).saturating_sub(self.withheld) }
    }
}

impl Took {
    /// Without what the machine had other work for.
    pub fn own(&self) -> Duration {
        self.whole.saturating_sub(self.withheld)
    }
}

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms, of which {} ms waiting for a core", self.whole.as_millis(), self.withheld.as_millis())
    }
}

/// How long this thread and the daemon's were ready to run and had no core so far, and how much time the host took
/// from all cores. [Linux, Documentation/scheduler/sched-stats.rst; man 5 proc]
fn withheld(daemon: Option<&Running>) -> Duration {
    let threads = daemon.and_then(|daemon| std::fs::read_dir(format!("/proc/{}/task", daemon.id())).ok());
    let threads = threads.into_iter().flatten().flatten().map(|thread| waited(&thread.path().join("schedstat")));
    let cores = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    // In hundredths of a second.
    let stolen = cores.lines().next().and_then(|cpu| cpu.split_whitespace().nth(8)?.parse().ok()).unwrap_or(0_u64);
    threads.sum::<Duration>() + waited(Path::new("/proc/thread-self/schedstat")) + Duration::from_millis(stolen * 10)
}

fn waited(schedstat: &Path) -> Duration {
    let text = std::fs::read_to_string(schedstat).unwrap_or_default();
    let nanoseconds = text.split_whitespace().nth(1).and_then(|nanoseconds| nanoseconds.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or_default())
}
