//! One connection to the stats listener: HTTP/1 by hyper, metered and bounded in time. Admin
//! thread.
//!
//! Invariant: no connection outlives [`HEAD_MAX_TIME`] without a request or [`STALL_MAX_TIME`] without
//! a byte moving, whatever its client does.

use super::Shared;
use super::http::{ResponseBody, ResponseSources, respond};
use crate::live::slot::StatsSlot;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Time for the head of a request, and for a connection to stay without one.
const HEAD_MAX_TIME: Duration = Duration::from_secs(10);
/// Most bytes of a request's head.
const HEAD_MAX: usize = 8 * 1024;
/// Bytes that are buffered for a connection.
const BUFFER_MAX: usize = 16 * 1024;
/// Longest time in which no byte moves while an answer is on its way.
const STALL_MAX_TIME: Duration = Duration::from_secs(30);

/// How long a connection is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// For the head of a request.
    pub(super) head: Duration,
    /// For a byte to move.
    pub(super) stall: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: HEAD_MAX_TIME,
            stall: STALL_MAX_TIME,
        }
    }
}

/// What others may know of and do to a connection.
#[derive(Debug)]
pub(super) struct ConnectionState {
    /// When a byte last moved.
    pub(super) last_byte: Cell<Instant>,
    /// It has not sent anything yet.
    silent: Cell<bool>,
    /// Ends it.
    pub(super) evicted: Notify,
}

impl ConnectionState {
    /// A connection that begins now.
    pub(super) fn new() -> Self {
        Self {
            last_byte: Cell::new(Instant::now()),
            silent: Cell::new(true),
            evicted: Notify::new(),
        }
    }
}

/// Serves `stream` to its end; once `closing`, to the end of the answer that is on its way.
pub(super) async fn serve(
    shared: &Rc<Shared>,
    (stream, slot): (TcpStream, StatsSlot),
    state: Rc<ConnectionState>,
    closing: CancellationToken,
) {
    let slot = Rc::new(slot);
    let io = TokioIo::new(CountedStream {
        stream,
        shared: Rc::clone(shared),
        slot: Rc::clone(&slot),
        state: Rc::clone(&state),
    });
    let service = service_fn(async |request| {
        let mut response = handle(shared, &request);
        if closing.is_cancelled() {
            let last = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, last);
        }
        Ok::<_, Infallible>(response)
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(shared.timeouts.head)
            .max_header_size(HEAD_MAX)
            .max_buf_size(BUFFER_MAX)
            .serve_connection(io, service)
    );
    let (mut stopping, mut closed) = (false, false);
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    failed(shared, &slot, &error);
                }
                return;
            }
            () = state.evicted.notified() => return,
            () = stalled(&state, shared.timeouts.stall) => return,
            () = shared.stop.cancelled(), if !stopping => {
                if state.silent.get() {
                    return;
                }
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = closing.cancelled(), if !closed => {
                closed = true;
                // One that has not spoken yet gets the one answer that it has come for.
                if !state.silent.get() {
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

fn handle(shared: &Shared, request: &Request<Incoming>) -> Response<ResponseBody> {
    let target = request
        .uri()
        .path_and_query()
        .map_or("", |target| target.as_str());
    let sources = ResponseSources {
        snapshot: shared.snapshot.load_full(),
        process: Arc::clone(&shared.process),
        requests: Arc::clone(&shared.requests),
        now: Instant::now(),
    };
    let response = respond(sources, request.method(), target, request.headers());
    shared
        .requests
        .count(response.status().as_u16(), shared.second());
    response
}

/// A request that was none: hyper has answered it (400, 431) or closed.
fn failed(shared: &Shared, slot: &StatsSlot, error: &hyper::Error) {
    if error.is_parse() || error.is_incomplete_message() {
        slot.live().traffic.mine(&shared.token).ereq.add(1);
    }
    if error.is_parse() {
        shared.requests.count(400, shared.second());
    }
}

/// Resolves when nothing has moved for `limit`.
async fn stalled(state: &ConnectionState, limit: Duration) {
    loop {
        let end = state.last_byte.get() + limit;
        if Instant::now() >= end {
            return;
        }
        tokio::time::sleep_until(end.into()).await;
    }
}

/// A stream whose bytes are counted on the stats proxy.
struct CountedStream {
    stream: TcpStream,
    shared: Rc<Shared>,
    slot: Rc<StatsSlot>,
    state: Rc<ConnectionState>,
}

impl AsyncRead for CountedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = (buffer.filled().len() - before) as u64;
        if read > 0 {
            self.state.last_byte.set(Instant::now());
            self.state.silent.set(false);
            self.slot
                .live()
                .traffic
                .mine(&self.shared.token)
                .bin
                .add(read);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, buffer))?;
        self.state.last_byte.set(Instant::now());
        let traffic = self.slot.live().traffic.mine(&self.shared.token);
        traffic.bout.add(written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
