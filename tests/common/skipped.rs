//! What a machine cannot show.

use std::io::Write as _;

/// Says what was not tested, and why, past the test harness: of a test that passes it shows nothing else.
pub fn skipped(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
}
