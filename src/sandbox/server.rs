//! The sandbox's edge: the listener, its thread and the clock.
//!
//! Invariant: it listens on loopback only, decides nothing about tokens, and keeps its port while
//! it refuses connections, so that nobody else gets it meanwhile. This file never prints.

use super::connection::serve;
use super::world::World;
use crate::token::UnixSeconds;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

/// A running server. It stops when it is dropped.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the handle, the accepting task and the connections have in common.
pub(super) struct Shared {
    world: Mutex<World>,
    changed: Condvar,
    /// What the accepting task shall do.
    door: watch::Sender<Door>,
    /// What the accepting task has done; only it sends.
    listening: watch::Sender<Listening>,
    ahead_ms: AtomicI64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    Closed,
    Gone,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Listening {
    is_open: bool,
    /// Counts the closings: a connection from before the last one is broken, however short it was.
    closings: u32,
}

impl Server {
    /// Starts one in a thread of its own. When this returns, it accepts connections.
    ///
    /// # Errors
    /// The address is not a loopback address or cannot be listened on.
    pub fn start(address: SocketAddr, world: World) -> io::Result<Self> {
        if !address.ip().is_loopback() {
            let why = format!("the sandbox listens on loopback addresses only, not on {}", address.ip());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let first = reserve(address)?;
        let address = first.local_addr()?;
        let spare = reserve(address)?;
        let listener = {
            let _inside = runtime.enter();
            first.listen(BACKLOG)?
        };
        let shared = Arc::new(Shared {
            world: Mutex::new(world),
            changed: Condvar::new(),
            door: watch::Sender::new(Door::Open),
            listening: watch::Sender::new(Listening { is_open: true, closings: 0 }),
            ahead_ms: AtomicI64::new(0),
        });
        let own = Arc::clone(&shared);
        let run = move || run(&runtime, &own, listener, spare);
        let thread = std::thread::Builder::new().name("sandbox".to_owned()).spawn(run)?;
        Ok(Self { address, shared, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The time in milliseconds since 1970, by the clock and [`Self::advance`].
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.shared.now_ms()
    }

    /// Lets time pass for this server alone.
    pub fn advance(&self, seconds: i64) {
        self.shared.ahead_ms.fetch_add(seconds.saturating_mul(1000), Relaxed);
        self.shared.changed.notify_all();
    }

    /// Looks at the world.
    pub fn look<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        look(&self.shared.lock())
    }

    /// Changes the world.
    pub fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        self.shared.change(change)
    }

    /// Waits until something holds; false if it did not in that time.
    pub fn wait(&self, timeout: Duration, mut holds: impl FnMut(&World) -> bool) -> bool {
        let world = self.shared.lock();
        let waited = self.shared.changed.wait_timeout_while(world, timeout, |world| !holds(world));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Refuses connections, breaks those that are open, and returns when it is so.
    pub fn close(&self) {
        self.shared.turn(Door::Closed);
        self.until_open_is(false);
    }

    /// Accepts connections, and returns when it is so.
    pub fn open(&self) {
        self.shared.turn(Door::Open);
        self.until_open_is(true);
    }

    fn until_open_is(&self, is_open: bool) {
        let is_other = |_: &mut World| self.shared.listening.borrow().is_open != is_open;
        drop(self.shared.changed.wait_while(self.shared.lock(), is_other));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.turn(Door::Gone);
        if let Some(thread) = self.thread.take() {
            // A panic there has failed the test or printed itself already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, World> {
        // A test that panics while it looks must not take the server with it.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the world and wakes those who wait for that.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Nothing turns it once it is gone.
    fn turn(&self, to: Door) {
        self.door.send_if_modified(|door| {
            let turns = *door != Door::Gone && *door != to;
            if turns {
                *door = to;
            }
            turns
        });
    }

    /// Tells everybody whether connections are accepted; how often they were not, so far.
    fn say_listening(&self, is_open: bool) -> u32 {
        // Under the lock, so that whoever waits for it cannot miss it.
        let world = self.lock();
        self.listening.send_if_modified(|listening| {
            let changes = listening.is_open != is_open;
            if changes {
                *listening = Listening { is_open, closings: listening.closings + u32::from(!is_open) };
            }
            changes
        });
        drop(world);
        self.changed.notify_all();
        self.listening.borrow().closings
    }

    /// Refuses connections for so long, and breaks those that are open.
    #[allow(clippy::disallowed_methods, reason = "a fault that waits is asked for by its time")]
    pub(super) fn close_for(self: &Arc<Self>, time: Duration) {
        self.turn(Door::Closed);
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            let is_closed = |listening: &Listening| !listening.is_open;
            if shared.listening.subscribe().wait_for(is_closed).await.is_ok() {
                tokio::time::sleep(time).await;
                shared.turn(Door::Open);
            }
        });
    }

    /// The sandbox's time in whole seconds.
    pub(super) fn now(&self) -> UnixSeconds {
        UnixSeconds(self.now_ms().div_euclid(1000))
    }

    /// The sandbox's time in milliseconds since 1970.
    #[allow(clippy::disallowed_methods, reason = "this is the sandbox's only look at the clock")]
    pub(super) fn now_ms(&self) -> i64 {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX).saturating_add(self.ahead_ms.load(Relaxed))
    }
}

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 128;

/// Binds without listening: connections are refused, and the port is nobody else's.
fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Two sockets may share an address as long as neither listens; so the next listener has its
    // place before the last one is gone.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn run(runtime: &Runtime, shared: &Arc<Shared>, listener: TcpListener, spare: TcpSocket) {
    if let Err(error) = runtime.block_on(accept(shared, listener, spare)) {
        // Nobody can be told but by failing what waits for this server.
        panic!("the sandbox cannot listen any more: {error}");
    }
}

/// Accepts connections while the door is open.
async fn accept(shared: &Arc<Shared>, listener: TcpListener, mut spare: TcpSocket) -> io::Result<()> {
    let address = listener.local_addr()?;
    let mut listener = Some(listener);
    let mut doors = shared.door.subscribe();
    loop {
        let door = *doors.borrow_and_update();
        match door {
            Door::Gone => return Ok(()),
            Door::Closed => listener = None,
            Door::Open if listener.is_none() => {
                let next = std::mem::replace(&mut spare, reserve(address)?);
                listener = Some(next.listen(BACKLOG)?);
            }
            Door::Open => {}
        }
        let closings = shared.say_listening(listener.is_some());
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The door first: whoever closed it must not be served once more.
            biased;
            _ = doors.changed() => {}
            accepted = accepted => if let Ok((stream, _)) = accepted {
                let shared = Arc::clone(shared);
                tokio::spawn(async move {
                    let mut listening = shared.listening.subscribe();
                    tokio::select! {
                        () = serve(&shared, stream) => {}
                        _ = listening.wait_for(|now| now.closings != closings) => {}
                    }
                });
            }
        }
    }
}
