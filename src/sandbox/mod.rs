//! A pretend Trakt and `MyAnimeList` on loopback, for the demo and the tests.
//!
//! ```text
//! request → server, connection (E) → world: faults → endpoints → ledger, codes → world → connection → answer
//! ```
//!
//! Everything but [`server`], its connections and [`cli`] is pure: what a provider does is the same for a client
//! of the running server and for a simulation that calls [`world::World::exchange`].
//!
//! A test starts one, points the program at [`Sandbox::url`], and asks the ledger afterwards:
//!
//! ```
//! use kometa_authd::provider::TRAKT;
//! use kometa_authd::sandbox::{Options, Sandbox};
//!
//! let sandbox = Sandbox::start(Options::default())?;
//! let grant = sandbox.issue(&TRAKT, "client", 0);
//! sandbox.fault("drop-after".parse()?);
//! assert!(sandbox.url().starts_with("http://127.0.0.1:"));
//! assert!(sandbox.is_live(&grant.refresh_token.unwrap()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod cli;
pub mod codes;
pub mod demo;
mod connection;
mod control;
pub mod endpoints;
pub mod faults;
pub mod ledger;
pub mod message;
pub mod mint;
pub mod rules;
pub mod server;
pub mod world;

use crate::provider::Provider;
use crate::token::{Grant, Secret, UnixSeconds};
use codes::Decision;
use faults::Fault;
use ledger::Ledger;
use rules::Rules;
use server::Server;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use world::{Visit, World};

/// How a sandbox starts.
pub struct Options {
    /// Where it listens: a loopback address; port 0 for any that is free.
    pub listen: SocketAddr,
    /// What the providers do.
    pub rules: Rules,
    /// What goes wrong from the beginning.
    pub faults: Vec<Fault>,
}

impl Default for Options {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 0).into(), rules: Rules::default(), faults: Vec::new() }
    }
}

/// A running sandbox. It stops when it is dropped.
pub struct Sandbox {
    server: Server,
}

impl Sandbox {
    /// Starts one in a thread of its own. When this returns, it accepts connections.
    ///
    /// # Errors
    /// The address is not a loopback address or cannot be listened on.
    pub fn start(options: Options) -> io::Result<Self> {
        let world = World::new(options.rules, options.faults);
        Ok(Self { server: Server::start(options.listen, world)? })
    }

    /// The origin of both providers, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The sandbox's time: the clock, and what [`Self::advance`] added to it.
    #[must_use]
    pub fn now(&self) -> UnixSeconds {
        UnixSeconds(self.server.now_ms().div_euclid(1000))
    }

    /// Lets time pass for the providers alone: tokens and codes expire without anybody waiting.
    pub fn advance(&self, seconds: i64) {
        self.server.advance(seconds);
    }

    /// A first pair, as if made `age_s` seconds ago.
    #[must_use]
    pub fn issue(&self, provider: &'static Provider, client_id: &str, age_s: i64) -> Grant {
        let issued_at = self.now().plus(age_s.saturating_neg());
        self.change(|world| world.ledger.issue(issued_at, provider, client_id))
    }

    /// The texts of the next pair, for tokens that are awkward to write into a file.
    pub fn name_next(&self, access_token: &str, refresh_token: &str) {
        self.change(|world| world.ledger.name_next(access_token, refresh_token));
    }

    /// A PIN of Trakt.
    #[must_use]
    pub fn pin(&self) -> Secret {
        let now = self.now();
        self.change(|world| world.ledger.issue_pin(now))
    }

    /// A person opens an authorization URL of `MyAnimeList` and agrees: the address that the
    /// browser ends on, or none if the page refused.
    #[must_use]
    pub fn authorize(&self, url: &str) -> Option<String> {
        let path = url.find("/v1/oauth2/authorize")?;
        let request = message::Request::get(&url[path..]).with("user-agent", "browser");
        let now = self.now();
        self.change(|world| world.ledger.handle(now, &request).header("location").map(str::to_owned))
    }

    /// A person says yes to a user code; false if there is no such code.
    #[must_use]
    pub fn approve_device(&self, user_code: &str) -> bool {
        self.change(|world| world.ledger.decide_device(user_code, Decision::Approved))
    }

    /// A person says no to a user code; false if there is no such code.
    #[must_use]
    pub fn deny_device(&self, user_code: &str) -> bool {
        self.change(|world| world.ledger.decide_device(user_code, Decision::Denied))
    }

    /// Kills the pair with that access or refresh token; false if there is none.
    #[must_use]
    pub fn revoke(&self, token: &Secret) -> bool {
        self.change(|world| world.ledger.revoke(token.expose()))
    }

    /// Something goes wrong, behind what waits already.
    pub fn fault(&self, fault: Fault) {
        self.change(|world| world.fault(fault));
    }

    /// Nothing goes wrong any more.
    pub fn clear_faults(&self) {
        self.change(World::clear_faults);
    }

    /// Refuses connections from now on and breaks those that are open; the port stays reserved.
    /// When this returns, it is so.
    pub fn refuse_connections(&self) {
        self.server.close();
    }

    /// Accepts connections again. When this returns, it is so.
    pub fn accept_connections(&self) {
        self.server.open();
    }

    /// Access tokens live for so many seconds from now on.
    pub fn set_lifetime(&self, seconds: i64) {
        self.set_rules(|rules| rules.lifetime_s = Some(seconds));
    }

    /// Changes what the providers do from now on.
    pub fn set_rules(&self, change: impl FnOnce(&mut Rules)) {
        self.change(|world| change(&mut world.ledger.rules));
    }

    /// Every token and code so far.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.server.look(|world| world.ledger.clone())
    }

    /// Every request so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Visit> {
        self.server.look(|world| world.requests.clone())
    }

    /// The newest pair of that client whose refresh token lives.
    #[must_use]
    pub fn live(&self, provider: &Provider, client_id: &str) -> Option<Grant> {
        let now = self.now();
        self.server.look(|world| world.ledger.live(now, provider, client_id).map(ledger::Entry::grant))
    }

    /// Whether that refresh token would be accepted.
    #[must_use]
    pub fn is_live(&self, refresh_token: &Secret) -> bool {
        let now = self.now();
        self.server.look(|world| world.ledger.is_live(now, refresh_token.expose()))
    }

    /// Waits until something holds, looking whenever something changed; false if it did not in
    /// that time. What only the clock changes (a token expires) wakes nobody.
    #[must_use]
    pub fn wait(&self, timeout: Duration, holds: impl FnMut(&World) -> bool) -> bool {
        self.server.wait(timeout, holds)
    }

    fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        self.server.change(change)
    }
}
