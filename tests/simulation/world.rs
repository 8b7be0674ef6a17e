//! A pretend machine around the real loop: clock, network, providers, signals.
//!
//! Single-threaded, no real time: a future that waits says until when, and
//! the run moves the clock there. Everything is drawn from one seed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::path::Path;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use kometa_authd::daemon::{Wake, World};
use kometa_authd::event::Event;
use kometa_authd::refresh::reply::Answer;
use kometa_authd::refresh::request::Request;
use kometa_authd::refresh::{Network, Outcome};
use kometa_authd::sandbox::message;
use kometa_authd::sandbox::world::{Delivery, World as Providers};
use kometa_authd::token::UnixSeconds;

use crate::disk::{Disks, SimDisk};

/// What the network does to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is answered.
    Answered,
    /// It never leaves.
    NotSent,
    /// It is lost before the provider acts.
    LostBefore,
    /// The provider acts, and the answer is lost.
    LostAfter,
    /// A server error or a page in the place of an answer.
    Page(u16),
}

/// The machine's state, shared by the loop, the edges and the run.
pub struct Machine {
    /// The wall clock in milliseconds.
    pub now_ms: i64,
    /// The earliest moment that anybody waits for.
    pub next_ms: Option<i64>,
    /// The dice.
    pub dice: fastrand::Rng,
    /// The providers.
    pub providers: Providers,
    /// Whether they can be reached.
    pub reachable: bool,
    /// How often of a hundred a reachable provider fails all the same.
    pub trouble_percent: u8,
    /// The clock was set since the last look.
    pub clock_set: bool,
    /// The changes of the file that the loop has seen.
    pub changes_seen: u64,
    /// What was told to a person.
    pub events: Vec<(i64, Event)>,
    /// How often each thing really happened.
    pub coverage: BTreeMap<String, u64>,
    /// Answers with a grant that reached the process.
    pub delivered: u64,
}

impl Machine {
    /// Counts something that happened.
    pub fn count(&mut self, what: impl Into<String>) {
        *self.coverage.entry(what.into()).or_default() += 1;
    }

    fn wait_until(&mut self, at_ms: i64) {
        self.next_ms = Some(self.next_ms.map_or(at_ms, |next| next.min(at_ms)));
    }
}

/// The edges of one life of the process.
pub struct SimWorld {
    /// The machine.
    pub machine: Rc<RefCell<Machine>>,
    /// The disk.
    pub disk: SimDisk,
}

impl SimWorld {
    async fn sleep_until(&self, at_ms: i64) {
        poll_fn(|_| {
            let mut machine = self.machine.borrow_mut();
            if machine.now_ms >= at_ms {
                return Poll::Ready(());
            }
            machine.wait_until(at_ms);
            Poll::Pending
        })
        .await;
    }
}

impl Network for SimWorld {
    async fn post(&self, request: &Request) -> Outcome {
        let (fate, there, back) = {
            let mut machine = self.machine.borrow_mut();
            let trouble = machine.dice.u8(0..100) < machine.trouble_percent;
            let fate = match (machine.reachable, trouble) {
                (false, _) => Fate::NotSent,
                (true, false) => Fate::Answered,
                (true, true) => match machine.dice.u8(0..6) {
                    0 => Fate::NotSent,
                    1 => Fate::LostBefore,
                    2 => Fate::LostAfter,
                    3 => Fate::Page(403),
                    4 => Fate::Page(200),
                    _ => Fate::Page(503),
                },
            };
            machine.count(format!("network {fate:?}"));
            (fate, machine.dice.i64(5..400), machine.dice.i64(5..400))
        };
        let now = self.machine.borrow().now_ms;
        self.sleep_until(now + there).await;
        let path = request.url.splitn(4, '/').nth(3).unwrap_or_default();
        let sent = message::Request::post(&format!("/{path}"), request.content_type, request.body.expose())
            .with("user-agent", "kometa-authd/simulated");
        let delivery = match fate {
            Fate::NotSent => return Outcome::NotSent("no route".to_owned()),
            Fate::LostBefore => return Outcome::Unknown("the connection was reset".to_owned()),
            Fate::Page(status) => {
                let body = b"<html>a moment please</html>".to_vec();
                return Outcome::Answered(Answer { status, retry_after_s: None, body });
            }
            Fate::Answered | Fate::LostAfter => {
                let mut machine = self.machine.borrow_mut();
                let at_ms = machine.now_ms;
                machine.providers.exchange(at_ms, &sent)
            }
        };
        if fate == Fate::LostAfter {
            return Outcome::Unknown("no answer".to_owned());
        }
        let now = self.machine.borrow().now_ms;
        self.sleep_until(now + back).await;
        let Delivery::Answer(reply) = delivery else {
            return Outcome::Unknown("no answer".to_owned());
        };
        if reply.status == 200 && !self.disk.0.borrow().is_dead {
            self.machine.borrow_mut().delivered += 1;
        }
        Outcome::Answered(Answer { status: reply.status, retry_after_s: None, body: reply.body })
    }
}

impl World for SimWorld {
    type Disk = SimDisk;

    fn disk(&self) -> &SimDisk {
        &self.disk
    }

    fn now(&self) -> UnixSeconds {
        UnixSeconds(self.machine.borrow().now_ms.div_euclid(1000))
    }

    fn draw(&self) -> f64 {
        self.machine.borrow_mut().dice.f64()
    }

    async fn pause(&self, time: Duration) {
        let at = self.machine.borrow().now_ms + i64::try_from(time.as_millis()).expect("a short pause");
        self.sleep_until(at).await;
    }

    fn watch(&mut self, _config: usize, _path: &Path) -> bool {
        true
    }

    async fn wake(&mut self, until: Option<UnixSeconds>, _status: &str) -> Wake {
        poll_fn(|_| {
            let mut machine = self.machine.borrow_mut();
            if std::mem::take(&mut machine.clock_set) {
                return Poll::Ready(Wake::ClockSet);
            }
            let changes = self.disk.0.borrow().changes;
            if changes != machine.changes_seen {
                machine.changes_seen = changes;
                return Poll::Ready(Wake::Changed(vec![0]));
            }
            if let Some(until) = until {
                if machine.now_ms >= until.0 * 1000 {
                    return Poll::Ready(Wake::Deadline);
                }
                machine.wait_until(until.0 * 1000);
            }
            Poll::Pending
        })
        .await
    }

    async fn stopping(&self) {
        std::future::pending::<()>().await;
    }

    fn announce(&mut self, event: Event) {
        let mut machine = self.machine.borrow_mut();
        machine.count(format!("event {:?}", event.kind));
        let now = machine.now_ms;
        machine.events.push((now, event));
    }
}

/// The disks of a machine.
pub type SharedDisks = Rc<RefCell<Disks>>;
