//! How a log line looks: for a person at a terminal or in `docker logs`, with
//! priorities for journald, or as JSON.

use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;
use std::os::linux::fs::MetadataExt as _;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::qr;

/// A longer link makes a picture that is wider than many terminals.
const PICTURE_MAX_BYTES: usize = 100;

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For journald where it listens, for a person otherwise.
    #[default]
    Auto,
    /// One line an event, with local time.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to stderr. A second call changes nothing.
pub fn start(format: LogFormat, level: LevelFilter) {
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
    let _ = match format {
        LogFormat::Json => builder.json().flatten_event(true).with_target(false).with_timer(Utc).try_init(),
        LogFormat::Auto | LogFormat::Text => {
            let journal = format == LogFormat::Auto && stderr_is_journal();
            let color = !journal
                && std::io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            builder.event_format(Lines { journal, color }).try_init()
        }
    };
}

/// systemd names the journal's socket in `JOURNAL_STREAM` (systemd.exec(5)).
#[expect(clippy::disallowed_methods, reason = "stderr is looked at, no file of the user's")]
fn stderr_is_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let stderr = std::fs::metadata("/proc/self/fd/2");
    stderr.is_ok_and(|meta| named == format!("{}:{}", meta.st_dev(), meta.st_ino()))
}

struct Utc;

impl tracing_subscriber::fmt::time::FormatTime for Utc {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(crate::clock::now().0) {
            Ok(at) => write!(w, "{at}"),
            Err(_) => Ok(()),
        }
    }
}

struct Lines {
    journal: bool,
    color: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut w: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut text = Text::default();
        event.record(&mut text);
        let (priority, name, color) = match *event.metadata().level() {
            Level::ERROR => (3, "ERROR", "31"),
            Level::WARN => (4, "WARN ", "33"),
            Level::INFO => (6, "INFO ", "32"),
            _ => (7, "DEBUG", "2"),
        };
        let Text { about, sentence, fields, link } = text;
        let about = if about.is_empty() { about } else { format!("{about}: ") };
        if self.journal {
            return writeln!(w, "<{priority}>{about}{sentence}{fields}");
        }
        let time = crate::clock::local(crate::clock::now());
        // One event is one line, but for a picture that says the link once more.
        let picture = link.filter(|link| link.len() <= PICTURE_MAX_BYTES).and_then(|link| qr::half_blocks(&link));
        let picture = picture.map_or_else(String::new, |picture| format!("\n{picture}"));
        if self.color {
            writeln!(
                w,
                "\x1b[2m{time}\x1b[0m \x1b[{color}m{name}\x1b[0m \x1b[1m{about}\x1b[0m{sentence}\x1b[2m{fields}\x1b[0m{picture}"
            )
        } else {
            writeln!(w, "{time} {name} {about}{sentence}{fields}{picture}")
        }
    }
}

#[derive(Default)]
struct Text {
    about: String,
    sentence: String,
    fields: String,
    link: Option<String>,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        // One event is one line, whatever an error text has in it.
        let value = value.replace(['\n', '\r'], " ");
        if field.name() == "link" {
            self.link = Some(value.clone());
        }
        if field.name() == "about" {
            self.about = value;
        } else if value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"') {
            let _ = write!(self.fields, " {}={value}", field.name());
        } else {
            let _ = write!(self.fields, " {}={value:?}", field.name());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.sentence, "{value:?}");
        } else {
            self.record_str(field, &format!("{value:?}"));
        }
    }
}
