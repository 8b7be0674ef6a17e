//! Event to each channel.
//!
//! The log is the channel that everybody has. Nothing here can hold up the
//! loop, and nothing here has ever seen a secret: an [`Event`] has none.

use tracing::{debug, error, info, warn};

use crate::clock;
use crate::event::{Event, Level};

pub mod announcer;
pub mod channel;
pub mod command;
pub mod kometa;
pub mod log;
pub mod notice;
pub mod policy;
pub mod qr;
pub mod send;
pub mod systemd;

/// Writes an event into the log: the constant sentence, and what differs as fields.
pub fn to_log(event: &Event) {
    let (level, sentence, todo) = event.kind.row();
    let about = event.subject.as_str();
    let why = Some(event.detail.as_str()).filter(|why| !why.is_empty());
    let expires = event.expires_at.map(clock::local);
    let expires_in_s = event.expires_at.map(|at| at.since(clock::now()));
    let next = event.next_at.map(clock::local);
    let attempt = event.attempt;
    let link = event.link.as_deref();
    let todo = Some(todo).filter(|todo| !todo.is_empty());
    macro_rules! line {
        ($level:ident) => {
            $level!(about, why, attempt, expires, expires_in_s, next, link, todo, "{sentence}")
        };
    }
    match level {
        Level::Error => line!(error),
        Level::Warn => line!(warn),
        Level::Info => line!(info),
        Level::Debug => line!(debug),
    }
}
