//! The sandbox's edge: sockets, threads and the clock.
//!
//! Invariant: it listens on loopback only, decides nothing about tokens, and keeps its port while
//! it refuses connections, so that nobody else gets it meanwhile. This file never prints.

use super::control;
use super::message::{Reply, Request};
use super::world::{Delivery, World};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

/// No request of an OAuth client comes near it.
const REQUEST_MAX_BYTES: usize = 64 * 1024;

/// A running server. It stops when it is dropped.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    door: watch::Sender<Door>,
    ahead_ms: AtomicI64,
}

struct State {
    world: World,
    /// What the accepting task has made of the door, for those who wait for it.
    is_open: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Door {
    want: Want,
    /// Counts the closings: a connection from before the last one is broken, however short it was.
    closings: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    Open,
    Closed,
    Gone,
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
        if address.port() != 0 {
            // `reserve` shares ports with its like; a second sandbox on this one is a mistake.
            drop(StdListener::bind(address)?);
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
            state: Mutex::new(State { world, is_open: true }),
            changed: Condvar::new(),
            door: watch::Sender::new(Door { want: Want::Open, closings: 0 }),
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
        look(&self.shared.lock().world)
    }

    /// Changes the world.
    pub fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        self.shared.change(change)
    }

    /// Waits until something holds; false if it did not in that time.
    pub fn wait(&self, timeout: Duration, mut holds: impl FnMut(&World) -> bool) -> bool {
        let state = self.shared.lock();
        let waited = self.shared.changed.wait_timeout_while(state, timeout, |state| !holds(&state.world));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Refuses connections, breaks those that are open, and returns when it is so.
    pub fn close(&self) {
        self.shared.close();
        self.until_open_is(false);
    }

    /// Accepts connections, and returns when it is so.
    pub fn open(&self) {
        self.shared.open();
        self.until_open_is(true);
    }

    fn until_open_is(&self, is_open: bool) {
        let state = self.shared.lock();
        drop(self.shared.changed.wait_while(state, |state| state.is_open != is_open));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.door.send_modify(|door| door.want = Want::Gone);
        if let Some(thread) = self.thread.take() {
            // A panic there has failed the test or printed itself already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panics while it looks must not take the server with it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let result = change(&mut self.lock().world);
        self.changed.notify_all();
        result
    }

    fn close(&self) {
        self.door.send_if_modified(|door| {
            let is_open = door.want == Want::Open;
            if is_open {
                *door = Door { want: Want::Closed, closings: door.closings + 1 };
            }
            is_open
        });
    }

    fn open(&self) {
        self.door.send_if_modified(|door| {
            let is_closed = door.want == Want::Closed;
            if is_closed {
                door.want = Want::Open;
            }
            is_closed
        });
    }

    #[allow(clippy::disallowed_methods, reason = "this is the sandbox's only look at the clock")]
    fn now_ms(&self) -> i64 {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX).saturating_add(self.ahead_ms.load(Relaxed))
    }
}

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 128;

/// Binds without listening: connections are refused, and the port is nobody else's.
fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Lets the next listener be bound while the last one still listens.
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
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
        match door.want {
            Want::Gone => return Ok(()),
            Want::Closed => listener = None,
            Want::Open if listener.is_none() => {
                let next = std::mem::replace(&mut spare, reserve(address)?);
                listener = Some(next.listen(BACKLOG)?);
            }
            Want::Open => {}
        }
        shared.lock().is_open = listener.is_some();
        shared.changed.notify_all();
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
                    let mut doors = shared.door.subscribe();
                    tokio::select! {
                        () = connection(&shared, stream) => {}
                        _ = doors.wait_for(|now| now.closings != door.closings) => {}
                    }
                });
            }
        }
    }
}

/// How a connection ends when hyper shall not answer.
enum Ending {
    Close,
    Write { bytes: Vec<u8>, by_reset: bool },
}

/// Serves one connection, and breaks it in the way that a fault wants.
async fn connection(shared: &Arc<Shared>, stream: TcpStream) {
    let ending = Arc::new(Mutex::new(Ending::Close));
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (shared, ending) = (Arc::clone(shared), Arc::clone(&ending));
        Box::pin(async move {
            let answer = respond(&shared, request).await;
            answer.map_err(|how| {
                *ending.lock().unwrap_or_else(PoisonError::into_inner) = how;
                // Makes hyper leave the connection without a word.
                io::Error::from(io::ErrorKind::ConnectionAborted)
            })
        })
    });
    let mut serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    if poll_fn(|cx| serving.poll_without_shutdown(cx)).await.is_ok() {
        return;
    }
    let mut stream = serving.into_parts().io.into_inner();
    let ending = std::mem::replace(&mut *ending.lock().unwrap_or_else(PoisonError::into_inner), Ending::Close);
    if let Ending::Write { bytes, by_reset } = ending {
        // The client may be gone; then there is nothing left to break.
        let _ = stream.write_all(&bytes).await;
        if by_reset {
            let _ = stream.set_zero_linger();
        } else {
            let _ = stream.shutdown().await;
        }
    }
}

async fn respond(shared: &Arc<Shared>, request: hyper::Request<Incoming>) -> Result<hyper::Response<Wire>, Ending> {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, REQUEST_MAX_BYTES).collect().await else {
        return Ok(response(Reply::text(413, "the request is too large\n")));
    };
    let header = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let request = Request {
        method: parts.method.as_str().to_owned(),
        target: parts.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned(),
        headers: parts.headers.iter().map(header).collect(),
        body: body.to_bytes().to_vec(),
    };
    let now = |shared: &Shared| crate::token::UnixSeconds(shared.now_ms().div_euclid(1000));
    if let Some(reply) = shared.change(|world| control::answer(world, now(shared), &request)) {
        return Ok(response(reply));
    }
    let arrival = shared.change(|world| world.arrive(shared.now_ms(), &request));
    wait_ms(arrival.delay_ms).await;
    let delivery = shared.change(|world| world.act(now(shared), &arrival, &request));
    wait_ms(arrival.late_ms).await;
    match delivery {
        Delivery::Answer(reply) => Ok(response(reply)),
        Delivery::Huge(bytes) => {
            let mut answer = response(Reply::html(200, "Please wait", ""));
            *answer.body_mut() = Wire::Filler(bytes);
            Ok(answer)
        }
        Delivery::Cut { reply, by_reset } => Err(Ending::Write { bytes: half_of(&reply), by_reset }),
        Delivery::Garbage => {
            Err(Ending::Write { bytes: b"\x16\x03\x01 this is not HTTP\r\n\r\n".to_vec(), by_reset: false })
        }
        Delivery::Close => Err(Ending::Close),
        Delivery::Hang => std::future::pending().await,
        Delivery::Refuse(ms) => {
            shared.close();
            let shared = Arc::clone(shared);
            tokio::spawn(async move {
                wait_ms(ms).await;
                shared.open();
            });
            Err(Ending::Close)
        }
    }
}

async fn wait_ms(ms: u64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// The answer up to half of its body, with the length of all of it.
fn half_of(reply: &Reply) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {} Answer\r\ncontent-length: {}\r\n", reply.status, reply.body.len());
    for (name, value) in &reply.headers {
        text.extend([name, ": ", value, "\r\n"]);
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(&reply.body[..reply.body.len() / 2]);
    bytes
}

fn response(reply: Reply) -> hyper::Response<Wire> {
    let mut builder = hyper::Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        builder = builder.header(*name, value);
    }
    builder.body(Wire::Whole(Some(Bytes::from(reply.body)))).unwrap_or_else(|_| {
        // A fault's own text (a redirect to nonsense) may be no header value.
        hyper::Response::new(Wire::Whole(Some(Bytes::from_static(b"the answer has a broken header\n"))))
    })
}

/// A body as it goes out.
enum Wire {
    Whole(Option<Bytes>),
    /// So many bytes of nothing in particular, made while they are sent.
    Filler(u64),
}

impl Body for Wire {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        const CHUNK: [u8; 16 * 1024] = [b' '; 16 * 1024];
        Poll::Ready(match &mut *self {
            Self::Whole(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Self::Filler(0) => None,
            Self::Filler(left) => {
                let size = usize::try_from(*left).unwrap_or(usize::MAX).min(CHUNK.len());
                *left -= size as u64;
                Some(Ok(Frame::data(Bytes::from_static(&CHUNK).slice(..size))))
            }
        })
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            // Its end is not announced: a client has to count for itself.
            Self::Filler(_) => SizeHint::default(),
        }
    }
}
