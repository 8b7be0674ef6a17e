//! The providers together with what goes wrong on the way to them.
//!
//! Invariant: whether a token was spent is decided here and nowhere else; the edge only carries
//! out a [`Delivery`]. So a simulation without sockets sees the same provider as a client of the
//! running server does. Time is an argument. This file never does IO and never reads a clock.

use super::endpoints::Endpoint;
use super::faults::{Fault, Kind};
use super::ledger::Ledger;
use super::message::{Reply, Request};
use super::rules::Rules;
use crate::provider::Key;
use crate::token::{Fingerprint, Secret, UnixSeconds};

/// The providers, the faults that wait for their request, and every request so far.
#[derive(Clone)]
pub struct World {
    /// Every token.
    pub ledger: Ledger,
    /// Every request, in the order of arrival.
    pub requests: Vec<Visit>,
    faults: Vec<Fault>,
}

/// A request that arrived, without its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// When it arrived, in milliseconds since 1970.
    pub at_ms: i64,
    /// `GET`, `POST` …
    pub method: String,
    /// The path without its query.
    pub path: String,
    /// Whose path it is.
    pub endpoint: Endpoint,
    /// The `grant_type` that it asked for.
    pub grant_type: Option<String>,
    /// The `client_id` that it named.
    pub client_id: Option<String>,
    /// Whether it brought a `client_secret`.
    pub has_client_secret: bool,
    /// The refresh token or code that it brought.
    pub presented: Option<Fingerprint>,
    /// What it calls itself.
    pub user_agent: Option<String>,
    /// The status that the provider meant to answer; none if it never got to act.
    pub acted: Option<u16>,
    /// The status that was sent; none if nothing was, or nothing yet.
    pub status: Option<u16>,
    /// The faults that happened to it, as they are written.
    pub faults: Vec<String>,
}

/// A request on its way in: what is to happen to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// How long to wait before it is acted on.
    pub delay_ms: u64,
    /// How long to wait before it is answered.
    pub late_ms: u64,
    index: usize,
    kind: Option<Kind>,
}

/// How the answer goes out.
#[derive(Clone, PartialEq, Eq)]
pub enum Delivery {
    /// As it should.
    Answer(Reply),
    /// The first half of the body, then the connection is closed, or reset.
    Cut {
        /// The whole answer.
        reply: Reply,
        /// Whether the end is a reset.
        by_reset: bool,
    },
    /// A body of so many bytes.
    Huge(u64),
    /// Something that is not HTTP.
    Garbage,
    /// Nothing; the connection is closed.
    Close,
    /// Nothing; the connection stays open.
    Hang,
    /// Nothing, and no connection is accepted for so many milliseconds.
    Refuse(u64),
}

impl World {
    /// A world in which nothing has happened.
    #[must_use]
    pub fn new(rules: Rules, faults: Vec<Fault>) -> Self {
        Self { ledger: Ledger::new(rules), requests: Vec::new(), faults }
    }

    /// Adds a fault behind those that wait already.
    pub fn fault(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// The faults that have not happened yet.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Nothing goes wrong any more.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// A request arrives and goes out again, without waiting for delays.
    pub fn exchange(&mut self, at_ms: i64, request: &Request) -> Delivery {
        let arrival = self.arrive(at_ms, request);
        self.act(UnixSeconds(at_ms.div_euclid(1000)), &arrival, request)
    }

    /// A request arrives: it is recorded, and its faults are drawn: at most one delay of each
    /// sort and one other.
    pub fn arrive(&mut self, at_ms: i64, request: &Request) -> Arrival {
        let mut visit = visit(at_ms, request);
        let mut arrival = Arrival { delay_ms: 0, late_ms: 0, index: self.requests.len(), kind: None };
        for fault in &mut self.faults {
            let is_drawn = match fault.kind {
                Kind::Delay(_) => arrival.delay_ms > 0,
                Kind::Late(_) => arrival.late_ms > 0,
                _ => arrival.kind.is_some(),
            };
            let Some(kind) = (!is_drawn).then(|| fault.strike(visit.endpoint)).flatten() else {
                continue;
            };
            visit.faults.push(kind.to_string());
            match kind {
                Kind::Delay(ms) => arrival.delay_ms = ms,
                Kind::Late(ms) => arrival.late_ms = ms,
                other => arrival.kind = Some(other),
            }
        }
        self.faults.retain(|fault| !fault.is_over());
        self.requests.push(visit);
        arrival
    }

    /// The provider acts, or a fault keeps it from acting.
    pub fn act(&mut self, now: UnixSeconds, arrival: &Arrival, request: &Request) -> Delivery {
        let delivery = match &arrival.kind {
            None => Delivery::Answer(self.handle(now, arrival, request)),
            Some(kind) => self.fail(now, arrival, kind, request),
        };
        self.requests[arrival.index].status = match &delivery {
            Delivery::Answer(reply) | Delivery::Cut { reply, .. } => Some(reply.status),
            Delivery::Huge(_) => Some(200),
            Delivery::Garbage | Delivery::Close | Delivery::Hang | Delivery::Refuse(_) => None,
        };
        delivery
    }

    fn fail(&mut self, now: UnixSeconds, arrival: &Arrival, kind: &Kind, request: &Request) -> Delivery {
        if let Some(reply) = kind.instead() {
            return Delivery::Answer(reply);
        }
        match kind {
            Kind::Hang => Delivery::Hang,
            Kind::DropBefore => Delivery::Close,
            Kind::Refuse(ms) => Delivery::Refuse(*ms),
            Kind::Garbage => Delivery::Garbage,
            Kind::Huge(bytes) => Delivery::Huge(*bytes),
            Kind::DropAfter => {
                self.handle(now, arrival, request);
                Delivery::Close
            }
            Kind::Truncate | Kind::Reset => {
                let reply = self.handle(now, arrival, request);
                Delivery::Cut { reply, by_reset: *kind == Kind::Reset }
            }
            other => {
                // Not handing out a new refresh token means that the old one stays valid.
                self.ledger.keeps_refresh_token = *other == Kind::Without(Key::RefreshToken);
                let reply = self.handle(now, arrival, request);
                self.ledger.keeps_refresh_token = false;
                Delivery::Answer(other.alter(reply))
            }
        }
    }

    fn handle(&mut self, now: UnixSeconds, arrival: &Arrival, request: &Request) -> Reply {
        let reply = self.ledger.handle(now, request);
        self.requests[arrival.index].acted = Some(reply.status);
        reply
    }
}

fn visit(at_ms: i64, request: &Request) -> Visit {
    let params = request.params().unwrap_or_default();
    let named = |name| params.named(name);
    let presented = named("refresh_token").or_else(|| named("code")).or_else(|| named("token"));
    Visit {
        at_ms,
        method: request.method.clone(),
        path: request.path().to_owned(),
        endpoint: Endpoint::at(request.path()),
        grant_type: named("grant_type").map(str::to_owned),
        client_id: named("client_id").map(str::to_owned),
        has_client_secret: named("client_secret").is_some(),
        presented: presented.map(|text| Secret::new(text).fingerprint()),
        user_agent: request.header("user-agent").map(str::to_owned),
        acted: None,
        status: None,
        faults: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::TRAKT;
    use serde_json::json;

    /// For each fault: is the old token still good, what does the provider think it answered, and
    /// which status goes out?
    #[test]
    fn which_faults_spend_the_token() {
        let table = [
            ("delay=5", false, Some(200), Some(200)),
            ("late=5", false, Some(200), Some(200)),
            ("hang", true, None, None),
            ("drop-before", true, None, None),
            ("drop-after", false, Some(200), None),
            ("truncate", false, Some(200), Some(200)),
            ("reset", false, Some(200), Some(200)),
            ("garbage", true, None, None),
            ("refuse=5", true, None, None),
            ("503", true, None, Some(503)),
            ("408", true, None, Some(408)),
            ("lost=500", false, Some(200), Some(500)),
            ("403-html", true, None, Some(403)),
            ("challenge", true, None, Some(200)),
            ("429=3/json", true, None, Some(429)),
            ("huge=70000", true, None, Some(200)),
            ("padded=70000", false, Some(200), Some(200)),
            ("307", true, None, Some(307)),
            ("invalid-client", true, None, Some(401)),
            ("invalid-grant", true, None, Some(400)),
            ("no-refresh_token", true, Some(200), Some(200)),
            ("no-scope", false, Some(200), Some(200)),
            ("expires_in=0", false, Some(200), Some(200)),
        ];
        for (fault, lives, acted, status) in table {
            let mut world = World::new(Rules::default(), vec![fault.parse().expect("a fault")]);
            let (now, request, token) = refresh(&mut world);
            world.exchange(now.0 * 1000, &request);
            assert_eq!(world.ledger.is_live(now, token.expose()), lives, "{fault}");
            let visit = &world.requests[0];
            assert_eq!((visit.acted, visit.status), (acted, status), "{fault}");
            assert_eq!(visit.presented, Some(token.fingerprint()));
            assert!(world.faults().is_empty(), "{fault}");
        }
    }

    /// A server that kept the refresh token once rotates the next time.
    #[test]
    fn a_kept_token_is_kept_once() {
        let faults = vec!["no-refresh_token".parse().expect("a fault")];
        let mut world = World::new(Rules::default(), faults);
        let (_, request, token) = refresh(&mut world);
        let lives: Vec<bool> = (0..2)
            .map(|at_s| {
                world.exchange(at_s * 1000, &request);
                world.ledger.is_live(UnixSeconds(at_s), token.expose())
            })
            .collect();
        assert_eq!(lives, [true, false]);
    }

    /// A delay combines with one other fault; two of a kind wait for two requests.
    #[test]
    fn faults_combine() {
        let faults = ["delay=7", "late=9", "503", "502"].map(|text| text.parse().expect("a fault"));
        let mut world = World::new(Rules::default(), faults.to_vec());
        let (_, request, _) = refresh(&mut world);
        let first = world.arrive(0, &request);
        assert_eq!((first.delay_ms, first.late_ms, first.kind), (7, 9, Some(Kind::Status(503))));
        let second = world.arrive(0, &request);
        assert_eq!((second.delay_ms, second.late_ms, second.kind), (0, 0, Some(Kind::Status(502))));
        assert_eq!(world.requests[0].faults, ["delay=7", "late=9", "503"]);
    }

    fn refresh(world: &mut World) -> (UnixSeconds, Request, Secret) {
        let now = UnixSeconds(1_800_000_000);
        let token = world.ledger.issue(now, &TRAKT, "c").refresh_token.expect("a refresh token");
        let body = json!({"client_id": "c", "grant_type": "refresh_token", "refresh_token": token.expose(),
            "redirect_uri": "urn:ietf:wg:oauth:2.0:oob"});
        let request = Request::post("/oauth/token", "application/json", body.to_string());
        (now, request.with("user-agent", "test"), token)
    }
}
