//! The real edges, wired into what the loop asks for.

use std::path::Path;
use std::time::Duration;

use crate::announce::announcer::Announcer;
use crate::announce::channel::Channel;
use crate::announce::{self, systemd};
use crate::clock::{self, Rang, Timer};
use crate::daemon::{Wake, World};
use crate::disk::RealDisk;
use crate::event::{Event, Kind};
use crate::refresh::request::Request;
use crate::refresh::{Https, Network, Outcome, Question};
use crate::signals::Signals;
use crate::terminal::Terminal;
use crate::token::UnixSeconds;
use crate::watch::Watch;

/// This machine.
pub struct Real {
    https: Https,
    watch: Watch,
    timer: Timer,
    signals: Signals,
    watchdog: Option<tokio::time::Interval>,
    is_ready: bool,
    announcer: Option<Announcer>,
    terminal: Option<Terminal>,
}

impl Real {
    /// Takes the signals over and starts watching; needs the runtime's context.
    pub fn new(https: Https) -> std::io::Result<Self> {
        let watchdog = systemd::watchdog_interval().map(|interval| {
            let mut ticks = tokio::time::interval(interval);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            ticks
        });
        Ok(Self {
            https,
            watch: Watch::new(),
            timer: Timer::new(),
            signals: Signals::new()?,
            watchdog,
            is_ready: false,
            announcer: None,
            terminal: None,
        })
    }

    /// The same, and people are told.
    #[must_use]
    pub fn announcing(mut self, announcer: Announcer) -> Self {
        self.announcer = Some(announcer);
        self
    }

    /// The same, and a person waits who hears of it in the place of the log.
    #[must_use]
    pub fn at_terminal(mut self) -> Self {
        self.terminal = Some(Terminal::default());
        self
    }

    /// The person who waits.
    pub fn person(&mut self) -> &mut Terminal {
        self.terminal.get_or_insert_default()
    }
}

impl Network for Real {
    async fn post(&self, request: &Request) -> Outcome {
        alive_during(self.https.post(request)).await
    }

    async fn ask(&self, question: &Question) -> Outcome {
        alive_during(self.https.ask(question)).await
    }
}

/// Says that we are alive while something takes its time: a watchdog that ends the process in the middle
/// of an exchange would cost the token.
async fn alive_during<T>(work: impl Future<Output = T>) -> T {
    let Some(interval) = systemd::watchdog_interval() else { return work.await };
    let mut ticks = tokio::time::interval(interval);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = ticks.tick() => systemd::alive(),
        }
    }
}

impl World for Real {
    type Disk = RealDisk;

    fn disk(&self) -> &RealDisk {
        &RealDisk
    }

    fn now(&self) -> UnixSeconds {
        clock::now()
    }

    fn draw(&self) -> f64 {
        fastrand::f64()
    }

    #[expect(clippy::disallowed_methods, reason = "this is where a pause is made")]
    async fn pause(&self, time: Duration) {
        alive_during(tokio::time::sleep(time)).await;
    }

    fn watch(&mut self, config: usize, path: &Path) -> bool {
        self.watch.add(config, path).is_ok()
    }

    async fn wake(&mut self, until: Option<UnixSeconds>, status: &str) -> Wake {
        systemd::status(status);
        if !std::mem::replace(&mut self.is_ready, true) {
            systemd::ready();
        }
        loop {
            let tell_at = self.announcer.as_ref().and_then(Announcer::next_at);
            let look_at = [until, tell_at].into_iter().flatten().min();
            let watchdog = async {
                match &mut self.watchdog {
                    Some(ticks) => ticks.tick().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.signals.stopping() => return Wake::Stop,
                () = self.signals.reload() => {
                    systemd::reloading();
                    // The next call says that we are ready again.
                    self.is_ready = false;
                    return Wake::Reload;
                }
                changed = self.watch.changed() => return changed,
                rang = self.timer.wait(look_at) => {
                    if let Some(announcer) = &mut self.announcer {
                        announcer.tick();
                    }
                    if rang == Rang::ClockSet {
                        return Wake::ClockSet;
                    }
                    if until.is_some_and(|until| until <= clock::now()) {
                        return Wake::Deadline;
                    }
                }
                _ = watchdog => systemd::alive(),
            }
        }
    }

    async fn stopping(&self) {
        self.signals.stopping().await;
    }

    fn hear(&mut self, path: &Path, channels: &[Channel]) {
        if let Some(announcer) = &mut self.announcer {
            announcer.hear(path, channels);
        }
    }

    fn announce(&mut self, event: Event) {
        if let Some(terminal) = &mut self.terminal {
            return terminal.hear(&event);
        }
        if event.kind == Kind::Stopping {
            systemd::stopping();
        }
        announce::to_log(&event);
        if let Some(announcer) = &mut self.announcer {
            announcer.take(&event);
        }
    }

    async fn farewell(&mut self) {
        if let Some(announcer) = &mut self.announcer {
            announcer.finish().await;
        }
    }
}
