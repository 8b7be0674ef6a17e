//! A pretend machine around the real loop: clocks, network, providers, signals.
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

use fastrand::Rng;
use kometa_authd::daemon::{Wake, World};
use kometa_authd::decision::Decision;
use kometa_authd::event::Event;
use kometa_authd::refresh::reply::Answer;
use kometa_authd::refresh::request::Request;
use kometa_authd::refresh::{Network, Outcome, Question};
use kometa_authd::sandbox::endpoints::Endpoint;
use kometa_authd::sandbox::faults::{Fault, Target};
use kometa_authd::sandbox::message;
use kometa_authd::sandbox::world::{Delivery, World as Providers};
use kometa_authd::token::{Secret, UnixSeconds};

use super::disk::{Disks, SimDisk};

/// What our requests call themselves, and Kometa's.
pub const OURS: &str = "kometa-authd/simulated";
pub const KOMETAS: &str = "kometa";
/// An answer that does not come is waited for so long.
const TIMEOUT_MS: i64 = 30_000;

/// What can go wrong with a request, as the pretend providers name it.
pub const TROUBLES: [&str; 30] = [
    "hang",
    "drop-before",
    "drop-after",
    "truncate",
    "reset",
    "garbage",
    "refuse=1000",
    "500",
    "502",
    "503",
    "408",
    "lost=500",
    "403-html",
    "challenge",
    "429/json",
    "429=3/text",
    "429=900/html",
    "huge=70000",
    "padded=70000",
    "307=https://elsewhere.example/",
    "late=40000",
    "delay=2000",
    "no-scope",
    "no-created_at",
    "no-expires_in",
    "no-refresh_token",
    "expires_in=0",
    "created_at=99999999999",
    "invalid-client",
    "invalid-grant",
];

/// The one of them that acts and says nothing.
pub const DROP_AFTER: usize = 2;

/// One process.
#[derive(Default)]
pub struct Process {
    /// It is to stop.
    pub stop: bool,
    /// It is to read everything again.
    pub reload: bool,
    /// The clock was set since its last look.
    pub clock_set: bool,
    /// The changes of the file that it has seen.
    changes_seen: u64,
    /// It waits for nothing but the next event, with this deadline in wall seconds.
    pub rests: Option<Option<i64>>,
    /// Since when it does, in wall seconds.
    pub rests_since: i64,
    /// It has a request under way since then.
    pub asks: bool,
}

/// The machine's state, shared by the loops, the edges and the run.
pub struct Machine {
    /// Milliseconds since 1970 that really went by.
    pub now_ms: i64,
    /// Of these the machine was suspended so many: no pause counts them.
    pub asleep_ms: i64,
    /// How far the wall clock is off.
    pub skew_ms: i64,
    /// Until when it was, in real milliseconds.
    pub skewed_until_ms: i64,
    /// The earliest moment that anybody waits for, in real time.
    pub next_ms: Option<i64>,
    /// The seed of everything.
    pub seed: u64,
    draws: u64,
    /// The providers.
    pub providers: Providers,
    /// Whether they can be reached.
    pub reachable: bool,
    /// How often of a hundred a reachable provider fails all the same, and with which of the troubles.
    pub trouble: (u8, usize),
    /// Whether changes of files are reported.
    pub is_watched: bool,
    /// The processes.
    pub processes: [Process; 2],
    /// What was told to a person: when, and by which process.
    pub events: Vec<(i64, usize, Event)>,
    /// What was decided to be done since this was last asked, and by which process.
    pub decisions: Vec<(usize, String)>,
    /// How often each thing really happened.
    pub coverage: BTreeMap<String, u64>,
    /// Requests of ours: when, what they presented, and what came of them.
    pub exchanges: Vec<Exchange>,
    /// At the next request the process dies so long after it was sent.
    pub dies_asking_ms: Option<i64>,
    /// When that is.
    pub dies_at_ms: Option<(usize, i64)>,
}

/// A request of ours, by its place among the providers' visits.
pub struct Exchange {
    /// Who asked.
    pub process: usize,
    /// Which visit.
    pub visit: usize,
    /// A grant came with it, and the process got it at this operation.
    pub delivered_at: Option<u64>,
    /// It is over, for the process that sent it.
    pub is_over: bool,
    /// The process ended before it could keep the answer.
    pub is_lost: bool,
}

impl Machine {
    /// A machine with these providers.
    pub fn new(now_ms: i64, seed: u64, providers: Providers, is_watched: bool) -> Self {
        Self {
            now_ms,
            asleep_ms: 0,
            skew_ms: 0,
            skewed_until_ms: 0,
            next_ms: None,
            seed,
            draws: 0,
            providers,
            reachable: true,
            trouble: (0, 0),
            is_watched,
            processes: Default::default(),
            events: Vec::new(),
            decisions: Vec::new(),
            coverage: BTreeMap::new(),
            exchanges: Vec::new(),
            dies_asking_ms: None,
            dies_at_ms: None,
        }
    }

    /// Counts something that happened.
    pub fn count(&mut self, what: &str) {
        match self.coverage.get_mut(what) {
            Some(count) => *count += 1,
            None => drop(self.coverage.insert(what.to_owned(), 1)),
        }
    }

    /// The wall clock in milliseconds.
    pub fn wall_ms(&self) -> i64 {
        self.now_ms + self.skew_ms
    }

    /// The milliseconds that the machine was awake.
    fn awake_ms(&self) -> i64 {
        self.now_ms - self.asleep_ms
    }

    /// Dice of this moment: what else is drawn before does not change them much, so that a shortened run
    /// stays like the long one.
    pub fn dice(&mut self) -> Rng {
        self.draws += 1;
        Rng::with_seed(self.seed ^ (self.now_ms as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (self.draws % 7))
    }

    fn wait_until(&mut self, at_ms: i64) {
        self.next_ms = Some(self.next_ms.map_or(at_ms, |next| next.min(at_ms)));
    }
}

/// The edges of one life of a process.
pub struct SimWorld {
    /// The machine.
    pub machine: Rc<RefCell<Machine>>,
    /// The disk.
    pub disk: SimDisk,
}

impl SimWorld {
    async fn sleep(&self, ms: i64) {
        let at_ms = self.machine.borrow().awake_ms() + ms;
        poll_fn(|_| {
            let mut machine = self.machine.borrow_mut();
            if machine.awake_ms() >= at_ms {
                return Poll::Ready(());
            }
            let asleep_ms = machine.asleep_ms;
            machine.wait_until(at_ms + asleep_ms);
            Poll::Pending
        })
        .await;
    }

    /// One request, there and back.
    async fn exchange(&self, sent: message::Request) -> Outcome {
        let me = self.disk.process;
        let (fault, there, back) = {
            let mut machine = self.machine.borrow_mut();
            if let Some(after) = machine.dies_asking_ms.take() {
                machine.dies_at_ms = Some((me, machine.now_ms + after));
            }
            let mut dice = machine.dice();
            let is_hit = dice.u8(0..100) < machine.trouble.0;
            // Mostly one trouble at a time, as in real life.
            let which = if dice.u8(0..4) == 0 { dice.usize(0..TROUBLES.len()) } else { machine.trouble.1 };
            let fault = (machine.reachable && is_hit).then_some(TROUBLES[which]);
            if !machine.reachable {
                machine.count("network: no route");
                return Outcome::NotSent("no route".to_owned());
            }
            machine.processes[me].asks = true;
            (fault, dice.i64(5..400), dice.i64(5..400))
        };
        self.sleep(there).await;
        let (delivery, late_ms, visit) = {
            let mut machine = self.machine.borrow_mut();
            let (at_ms, visit) = (machine.now_ms, machine.providers.requests.len());
            if let Some(fault) = fault {
                machine.count(&format!("network: {fault}"));
                let fault: Fault = fault.parse().expect("a fault");
                machine.providers.clear_faults();
                machine.providers.fault(fault.at(Target::Any));
            }
            machine.exchanges.push(Exchange { process: me, visit, delivered_at: None, is_over: false, is_lost: false });
            let arrival = machine.providers.arrive(at_ms, &sent);
            let delivery = machine.providers.act(UnixSeconds(at_ms.div_euclid(1000)), &arrival, &sent);
            (delivery, i64::try_from(arrival.late_ms + arrival.delay_ms).unwrap_or(TIMEOUT_MS), visit)
        };
        let outcome = match delivery {
            _ if late_ms >= TIMEOUT_MS => {
                self.sleep(TIMEOUT_MS).await;
                Outcome::Unknown("no answer within 30 seconds".to_owned())
            }
            Delivery::Answer(reply) => {
                self.sleep(late_ms + back).await;
                if reply.body.len() > 64 * 1024 {
                    Outcome::Unknown("the answer is too long".to_owned())
                } else {
                    let retry_after_s = reply.header("retry-after").and_then(|seconds| seconds.parse().ok());
                    Outcome::Answered(Answer { status: reply.status, retry_after_s, body: reply.body })
                }
            }
            Delivery::Refuse(_) => Outcome::NotSent("connection refused".to_owned()),
            Delivery::Hang => {
                self.sleep(TIMEOUT_MS).await;
                Outcome::Unknown("no answer within 30 seconds".to_owned())
            }
            Delivery::Cut { .. } | Delivery::Garbage | Delivery::Close | Delivery::Huge(_) => {
                self.sleep(back).await;
                Outcome::Unknown("the connection broke".to_owned())
            }
        };
        let mut machine = self.machine.borrow_mut();
        let operations = self.disk.disks.borrow().operations;
        let is_grant = matches!(&outcome, Outcome::Answered(answer) if answer.status == 200
            && serde_json::from_slice::<serde_json::Value>(&answer.body).is_ok_and(|body| body.get("access_token").is_some()));
        if let Some(exchange) = machine.exchanges.iter_mut().rev().find(|exchange| exchange.visit == visit) {
            (exchange.is_over, exchange.delivered_at) = (true, is_grant.then_some(operations));
        }
        machine.processes[me].asks = false;
        let what = match &outcome {
            Outcome::Answered(answer) => format!("network: answered {}", answer.status),
            Outcome::NotSent(_) => "network: not sent".to_owned(),
            Outcome::Unknown(_) => "network: unknown".to_owned(),
        };
        machine.count(&what);
        outcome
    }
}

impl Network for SimWorld {
    async fn post(&self, request: &Request) -> Outcome {
        let path = request.url.splitn(4, '/').nth(3).unwrap_or_default();
        let sent = message::Request::post(&format!("/{path}"), request.content_type, request.body.expose());
        self.exchange(sent.with("user-agent", OURS)).await
    }

    async fn ask(&self, question: &Question) -> Outcome {
        let sent = message::Request::get("/users/settings")
            .with("user-agent", OURS)
            .with("authorization", &format!("Bearer {}", question.token.expose()));
        self.exchange(sent).await
    }
}

impl World for SimWorld {
    type Disk = SimDisk;

    fn disk(&self) -> &SimDisk {
        &self.disk
    }

    fn now(&self) -> UnixSeconds {
        UnixSeconds((self.machine.borrow().wall_ms() + self.disk.disks.borrow().lag_ms).div_euclid(1000))
    }

    fn draw(&self) -> f64 {
        self.machine.borrow_mut().dice().f64()
    }

    async fn pause(&self, time: Duration) {
        self.sleep(i64::try_from(time.as_millis()).expect("a short pause")).await;
    }

    fn watch(&mut self, _config: usize, _path: &Path) -> bool {
        self.machine.borrow().is_watched
    }

    async fn wake(&mut self, until: Option<UnixSeconds>, _status: &str) -> Wake {
        let me = self.disk.process;
        let until_ms = until.map(|until| until.0.saturating_mul(1000));
        poll_fn(|_| {
            let mut machine = self.machine.borrow_mut();
            let (wall_ms, is_watched) = (machine.wall_ms(), machine.is_watched);
            let changes = self.disk.disks.borrow().changes;
            let process = &mut machine.processes[me];
            let wake = if std::mem::take(&mut process.stop) {
                Wake::Stop
            } else if std::mem::take(&mut process.reload) {
                Wake::Reload
            } else if std::mem::take(&mut process.clock_set) {
                Wake::ClockSet
            } else if is_watched && std::mem::replace(&mut process.changes_seen, changes) != changes {
                Wake::Changed(vec![0])
            } else if until_ms.is_some_and(|until| until <= wall_ms) {
                Wake::Deadline
            } else {
                if process.rests.is_none() {
                    process.rests_since = wall_ms / 1000;
                }
                process.rests = Some(until.map(|until| until.0));
                if let Some(until) = until_ms {
                    let at = until - machine.skew_ms;
                    machine.wait_until(at);
                }
                return Poll::Pending;
            };
            process.rests = None;
            Poll::Ready(wake)
        })
        .await
    }

    async fn stopping(&self) {
        poll_fn(
            |_| if self.machine.borrow().processes[self.disk.process].stop { Poll::Ready(()) } else { Poll::Pending },
        )
        .await;
    }

    fn verifier(&self) -> Option<Secret> {
        let mut dice = self.machine.borrow_mut().dice();
        Some(Secret::new((0..64).map(|_| dice.alphanumeric()).collect::<String>()))
    }

    fn decided(&mut self, decision: Decision) {
        let what = match decision {
            Decision::Wait { reason, .. } => format!("wait, {reason}"),
            Decision::Adopt => "adopt".to_owned(),
            Decision::Publish(why) => format!("publish, {why:?}"),
            Decision::SignOut => "sign out".to_owned(),
            Decision::Exchange => "exchange".to_owned(),
            Decision::Refresh(why) => format!("refresh, {why}"),
            Decision::AskForCode { .. } => "ask for a code".to_owned(),
            Decision::Poll => "poll".to_owned(),
            Decision::MakeLink => "make a link".to_owned(),
        };
        let mut machine = self.machine.borrow_mut();
        machine.count(&format!("decision: {what}"));
        if !matches!(decision, Decision::Wait { .. }) {
            machine.decisions.push((self.disk.process, what));
        }
    }

    fn announce(&mut self, event: Event) {
        let mut machine = self.machine.borrow_mut();
        machine.count(&format!("event: {:?}", event.kind));
        let now = machine.now_ms;
        machine.events.push((now, self.disk.process, event));
    }
}

/// Which provider's token endpoint a request went to.
pub fn provider_of(endpoint: Endpoint) -> Option<&'static str> {
    match endpoint {
        Endpoint::TraktToken | Endpoint::DeviceToken => Some("trakt"),
        Endpoint::MalToken => Some("mal"),
        _ => None,
    }
}

/// The disks of a machine.
pub type SharedDisks = Rc<RefCell<Disks>>;
