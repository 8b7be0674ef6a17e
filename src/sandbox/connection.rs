//! One connection to the sandbox: HTTP as hyper speaks it, and broken HTTP where a fault wants it.
//!
//! Invariant: it carries out what the world decided and decides nothing itself. This file never
//! prints.

use super::control;
use super::message::{Reply, Request};
use super::server::Shared;
use super::world::Delivery;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// No request of an OAuth client comes near it.
const REQUEST_MAX_BYTES: usize = 64 * 1024;

/// Serves one connection, and breaks it in the way that a fault wants.
pub(super) async fn serve(shared: &Arc<Shared>, stream: TcpStream) {
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

/// How a connection ends when hyper shall not answer.
enum Ending {
    Close,
    Write { bytes: Vec<u8>, by_reset: bool },
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
    if let Some(reply) = shared.change(|world| control::answer(world, shared.now(), &request)) {
        return Ok(response(reply));
    }
    let arrival = shared.change(|world| world.arrive(shared.now_ms(), &request));
    let late_ms = arrival.late_ms;
    let acting = {
        let shared = Arc::clone(shared);
        async move {
            wait_ms(arrival.delay_ms).await;
            shared.change(|world| world.act(shared.now(), &arrival, &request))
        }
    };
    // A task of its own: a real server acts on what it has received, whether or not the client is
    // still there, and hyper drops what it serves to a client that is gone.
    let Ok(delivery) = tokio::spawn(acting).await else {
        return Err(Ending::Close);
    };
    wait_ms(late_ms).await;
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
            shared.close_for(Duration::from_millis(ms));
            // The closing breaks this connection as well, after the listener is gone.
            std::future::pending().await
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a fault that waits is asked for by its time")]
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
