//! A person at a terminal: what `login` and `logout` show, and what is typed.
//!
//! This file never decides anything.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use tokio::sync::oneshot::{Receiver, channel};

use crate::announce::qr;
use crate::event::{Event, Level};
use crate::health::invitation::Invitation;
use crate::token::Secret;

/// A person who waits for what comes of it.
pub struct Terminal {
    /// A line that changes in place is for a terminal only.
    changes_in_place: bool,
    has_progress: bool,
}

impl Default for Terminal {
    /// A person at standard input and output.
    fn default() -> Self {
        Self { changes_in_place: io::stdout().is_terminal(), has_progress: false }
    }
}

impl Terminal {
    /// Says something, on a line of its own. Whoever closed the other end does not want to know.
    pub fn say(&mut self, text: &str) {
        self.end_progress();
        let _ = writeln!(io::stdout(), "{text}");
    }

    /// What is to be done, with the address as a QR code as well.
    pub fn invite(&mut self, invitation: &Invitation) {
        let Invitation { detail, link } = invitation;
        let picture = qr::half_blocks(link).map_or_else(String::new, |picture| format!("{picture}\n"));
        self.say(&format!("{detail}\n{picture}{link}"));
    }

    /// Shows how it stands, in the place of what was shown before.
    pub fn progress(&mut self, text: &str) {
        if self.changes_in_place {
            let mut out = io::stdout();
            let _ = write!(out, "\r\x1b[K{text}").and_then(|()| out.flush());
            self.has_progress = true;
        }
    }

    /// Says what went wrong. What goes well is said at the end, by whoever waits for it.
    pub fn hear(&mut self, event: &Event) {
        let (level, sentence, todo) = event.kind.row();
        if matches!(level, Level::Error | Level::Warn) {
            let why = if event.detail.is_empty() { String::new() } else { format!(" ({})", event.detail) };
            let todo = if todo.is_empty() { String::new() } else { format!("\n{todo}") };
            self.say(&format!("{}: {sentence}{why}{todo}", event.subject));
        }
    }

    fn end_progress(&mut self) {
        if std::mem::take(&mut self.has_progress) {
            let _ = write!(io::stdout(), "\r\x1b[K");
        }
    }

    /// Asks for a line; the answer comes when it was typed, and nothing where there is nobody to type.
    pub fn prompt(&mut self, text: &str) -> Receiver<Secret> {
        self.end_progress();
        let mut out = io::stdout();
        let _ = write!(out, "{text}").and_then(|()| out.flush());
        let (tell, told) = channel();
        // A thread, because a terminal cannot be read without waiting; it ends with the process.
        std::thread::spawn(move || {
            let mut line = String::new();
            if io::stdin().lock().read_line(&mut line).is_ok_and(|length| length > 0) {
                let _ = tell.send(Secret::new(line.trim()));
            }
        });
        told
    }
}
