//! The way out for messages: each in a task of its own, with a time limit, so
//! that a channel that hangs holds up nobody.
//!
//! Invariant: sending returns at once. At most `WAITING_MAX` messages are on
//! their way; the next one is dropped, and the log says so.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::channel::{Channel, Parcel, is_private};
use super::command::{self, COMMAND_LIMIT};
use super::notice::Notice;
use crate::refresh::{Https, cause};

/// How many messages may be on their way.
const WAITING_MAX: usize = 64;
/// How long one delivery may take.
const TIME_LIMIT: Duration = Duration::from_secs(15);
/// When a delivery that failed is tried again, counted from the failure before.
const AGAIN: [Duration; 3] = [Duration::from_secs(30), Duration::from_secs(600), Duration::from_secs(3600)];
/// How long a stop waits for deliveries that are under way: Docker kills ten seconds after it asked, and an
/// exchange may take eight of them.
const STOP_GRACE: Duration = Duration::from_millis(1500);

/// One way to reach a person.
#[derive(Clone)]
pub enum Way {
    /// A service.
    Channel(Channel),
    /// A program.
    Program(PathBuf),
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Channel(channel) => channel.fmt(f),
            Self::Program(path) => write!(f, "command {}", path.display()),
        }
    }
}

/// Why a delivery failed.
pub struct Failed {
    /// One sentence.
    pub why: String,
    /// Whether it may work later.
    pub may_heal: bool,
}

impl Way {
    /// Brings a notice, once.
    ///
    /// # Errors
    /// It did not arrive, as far as can be told.
    pub async fn deliver(&self, https: &Https, notice: &Notice) -> Result<(), Failed> {
        match self {
            Self::Channel(channel) => post(https, &channel.parcel(notice)).await,
            // What it has done by then it might do twice.
            Self::Program(path) => {
                command::run(path, notice, COMMAND_LIMIT).await.map_err(|why| Failed { why, may_heal: false })
            }
        }
    }
}

/// A notice, and whether it has reached anybody yet.
struct Letter {
    notice: Arc<Notice>,
    arrived: AtomicBool,
}

/// What is on its way.
pub struct Outbox {
    https: Https,
    tasks: JoinSet<()>,
    /// Those that a task may still carry.
    letters: Vec<Arc<Letter>>,
    stop: watch::Sender<bool>,
}

impl Outbox {
    /// An empty one.
    #[must_use]
    pub fn new(https: Https) -> Self {
        Self { https, tasks: JoinSet::new(), letters: Vec::new(), stop: watch::Sender::new(false) }
    }

    /// Sends a notice by each way; needs the runtime's context.
    pub fn send(&mut self, ways: &[Way], notice: Notice) {
        while self.tasks.try_join_next().is_some() {}
        self.letters.retain(|letter| Arc::strong_count(letter) > 1);
        let letter = Arc::new(Letter { notice: Arc::new(notice), arrived: AtomicBool::new(false) });
        for way in ways {
            if self.tasks.len() >= WAITING_MAX {
                warn!(channel = %way, "too many messages are on their way, this one is dropped");
                continue;
            }
            self.tasks.spawn(deliver(self.https.clone(), way.clone(), Arc::clone(&letter), self.stop.subscribe()));
        }
        self.letters.push(letter);
    }

    /// Gives deliveries that are under way, and those that wait for their next time, a short moment; what then
    /// has reached nobody.
    pub async fn finish(&mut self) -> Vec<Arc<Notice>> {
        self.letters.retain(|letter| Arc::strong_count(letter) > 1);
        self.stop.send_replace(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(STOP_GRACE, all).await;
        self.tasks.abort_all();
        let lost = self.letters.drain(..).filter(|letter| !letter.arrived.load(Ordering::Relaxed));
        lost.map(|letter| Arc::clone(&letter.notice)).collect()
    }
}

#[expect(clippy::disallowed_methods, reason = "this is where a delivery waits for its next time")]
async fn deliver(https: Https, way: Way, letter: Arc<Letter>, mut stop: watch::Receiver<bool>) {
    let notice = &letter.notice;
    for wait in AGAIN.into_iter().map(Some).chain([None]) {
        let is_last = *stop.borrow();
        let Err(Failed { why, may_heal }) = way.deliver(&https, notice).await else {
            letter.arrived.store(true, Ordering::Relaxed);
            debug!(channel = %way, event = notice.event, "message delivered");
            return;
        };
        let wait = wait.filter(|_| may_heal && !is_last);
        let again_in_s = wait.map(|wait| wait.as_secs());
        warn!(channel = %way, event = notice.event, why, again_in_s, "a message could not be delivered");
        let Some(wait) = wait else { return };
        tokio::select! {
            biased;
            // A stop is the last time.
            _ = stop.wait_for(|stop| *stop) => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Posts a parcel. A redirect is not followed: it would lead the message, and what lets us in, elsewhere.
async fn post(https: &Https, parcel: &Parcel) -> Result<(), Failed> {
    let failed = |why: String, may_heal| Err(Failed { why, may_heal });
    let url = parcel.url.expose();
    let host = reqwest::Url::parse(url).ok().and_then(|url| Some(url.host_str()?.to_owned())).unwrap_or_default();
    let client = match https.client_for(url, is_private(&host) && url.starts_with("http://")) {
        Ok(client) => client,
        Err(why) => return failed(why, false),
    };
    let mut request = if parcel.is_get { client.get(url) } else { client.post(url) };
    request = request.timeout(TIME_LIMIT).header("content-type", "application/json");
    if let Some((name, key)) = &parcel.key {
        request = request.header(*name, key.expose());
    }
    match request.body(parcel.body.expose().to_owned()).send().await.map(|response| response.status()) {
        Ok(status) if status.is_success() => Ok(()),
        Ok(status) if status.is_redirection() => {
            failed(format!("it redirects (HTTP {}), which is not followed", status.as_u16()), false)
        }
        Ok(status) => {
            let may_heal = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
            failed(format!("HTTP {}", status.as_u16()), may_heal)
        }
        Err(error) if error.is_timeout() => failed(format!("no answer within {} seconds", TIME_LIMIT.as_secs()), true),
        Err(error) => failed(cause(&error), true),
    }
}
