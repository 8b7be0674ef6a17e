//! `sd_notify(3)`: ready, what we do, still alive.
//!
//! Without `NOTIFY_SOCKET` every call does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// Everything has been looked at once.
pub fn ready() {
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}

/// One sentence for `systemctl status`.
pub fn status(sentence: &str) {
    let _ = sd_notify::notify(&[NotifyState::Status(sentence)]);
}

/// A reload begins.
pub fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        let _ = sd_notify::notify(&[NotifyState::Reloading, now]);
    }
}

/// The end begins.
pub fn stopping() {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}

/// Still alive.
pub fn alive() {
    let _ = sd_notify::notify(&[NotifyState::Watchdog]);
}

/// How often the service manager wants to hear that: half of what it allows, as `sd_watchdog_enabled(3)` advises.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|allowed| allowed / 2)
}
