//! One connection to the stats listener: HTTP/1 by hyper, counted and bounded in time. Admin
//! thread.
//!
//! Invariants: no connection outlives [`HEAD_MAX_TIME`] without a request or [`STALL_MAX_TIME`] without
//! a byte moving, whatever its client does. A client that ends its sending half behind a request
//! gets the whole answer.

use super::Shared;
use super::http::{ResponseBody, ResponseSources, respond};
use crate::live::Traffic;
use crate::live::slot::StatsSlot;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::net::Shutdown;
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

/// How long what a client still sends is read after the last answer, and how much of it.
const LINGER_MAX_TIME: Duration = Duration::from_secs(1);
const LINGER_MAX: usize = 256 * 1024;

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

/// What other tasks may know of and do to a connection.
#[derive(Debug)]
pub(super) struct ConnectionState {
    /// When a byte last moved.
    pub(super) last_byte: Cell<Instant>,
    /// It has not sent anything yet.
    silent: Cell<bool>,
    /// A request has come, and its answer has not been handed over as a whole.
    answering: Cell<bool>,
    /// What is to be written waits for the client.
    blocked: Cell<bool>,
    /// Ends it.
    pub(super) evicted: Notify,
}

impl ConnectionState {
    /// Whether an answer is on its way.
    pub(super) fn is_answering(&self) -> bool {
        self.answering.get() || self.blocked.get()
    }

    /// A connection that begins now.
    pub(super) fn new() -> Self {
        Self {
            last_byte: Cell::new(Instant::now()),
            silent: Cell::new(true),
            answering: Cell::new(false),
            blocked: Cell::new(false),
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
    // The slot is given back last, when the descriptor is closed.
    let slot = Rc::new(slot);
    let stream = Rc::new(stream);
    let counted = CountedStream {
        stream: Rc::clone(&stream),
        shared: Rc::clone(shared),
        slot: Rc::clone(&slot),
        state: Rc::clone(&state),
    };
    let serving = async {
        if answer_requests(counted, closing).await == Ended::ByItself {
            let lingering = tokio::time::timeout(LINGER_MAX_TIME, linger(&stream));
            let _ = shared.stop.run_until_cancelled(lingering).await;
        }
    };
    tokio::select! {
        () = state.evicted.notified() => {}
        () = stalled(&state, shared.timeouts.stall) => {}
        () = serving => {}
    }
}

/// How the requests of a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The last answer has been written, or there was none to write.
    ByItself,
    /// The process stops, and nothing has been asked.
    ByStop,
}

/// Answers requests until the client has had enough; once the listener is `closing` or the process
/// stops, until the end of the answer that is on its way.
async fn answer_requests(counted: CountedStream, closing: CancellationToken) -> Ended {
    let (shared, slot) = (Rc::clone(&counted.shared), Rc::clone(&counted.slot));
    let state = Rc::clone(&counted.state);
    let service = service_fn(async |request| {
        state.answering.set(true);
        let mut response = handle(&shared, &request);
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
            .half_close(true)
            .max_header_size(HEAD_MAX)
            .max_buf_size(BUFFER_MAX)
            .serve_connection(TokioIo::new(counted), service)
    );
    let (mut stopping, mut closed) = (false, false);
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    failed(&shared, &slot, &error);
                }
                return Ended::ByItself;
            }
            () = shared.stop.cancelled(), if !stopping => {
                if state.silent.get() {
                    return Ended::ByStop;
                }
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = closing.cancelled(), if !closed => {
                closed = true;
                // One that has sent nothing yet gets the one answer that it has come for.
                if !state.silent.get() {
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// Reads what the client still sends, to its end: bytes that nobody has read when a socket closes make
/// the kernel reset the connection, and a reset destroys what of the answer has not arrived yet.
async fn linger(stream: &TcpStream) {
    // Not in the connection's task, which would be that much larger for all its life.
    let mut buffer = vec![0; 4096];
    let mut left = LINGER_MAX;
    while left > 0 {
        if stream.readable().await.is_err() {
            return;
        }
        match stream.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => left = left.saturating_sub(length),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
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
    stream: Rc<TcpStream>,
    shared: Rc<Shared>,
    slot: Rc<StatsSlot>,
    state: Rc<ConnectionState>,
}

impl CountedStream {
    fn traffic(&self) -> &Traffic {
        self.slot.live().traffic.mine(&self.shared.token)
    }
}

impl AsyncRead for CountedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // hyper asks for the next request when it has handed over the answer to the last.
        self.state.answering.set(false);
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            match self.stream.try_read(buffer.initialize_unfilled()) {
                Ok(read) => {
                    buffer.advance(read);
                    if read > 0 {
                        self.state.last_byte.set(Instant::now());
                        self.state.silent.set(false);
                        self.traffic().bin.add(read as u64);
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let ready = self.stream.poll_write_ready(context);
            self.state.blocked.set(ready.is_pending());
            ready!(ready)?;
            match self.stream.try_write(buffer) {
                Ok(written) => {
                    self.state.last_byte.set(Instant::now());
                    self.traffic().bout.add(written as u64);
                    return Poll::Ready(Ok(written));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when it has written a whole answer, or has nothing more of it for now.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.stream).shutdown(Shutdown::Write))
    }
}
