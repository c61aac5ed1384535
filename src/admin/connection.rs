//! One connection to the stats listener: HTTP/1 by hyper, counted and bounded in time. Admin thread.
//!
//! Invariants: whatever its client does, no connection lasts longer than [`HEAD_MAX_TIME`] without a request or
//! [`STALL_MAX_TIME`] without a byte moving. A client that sends FIN after a request gets the whole answer.

use super::http::{Answer, ResponseBody, ResponseSources, acted, respond};
use super::request_line::{AnswerEnd, RequestLines, Service};
use super::{Shared, action, header};
use crate::config::model::Bind;
use crate::live::slot::StatsSlot;
use crate::live::{Cause, Traffic};
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
use std::net::{Shutdown, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Longest time for the head of a request, and for a connection without a request.
const HEAD_MAX_TIME: Duration = Duration::from_secs(10);
/// Most bytes of a request's head.
const HEAD_MAX: usize = 8 * 1024;
/// Most bytes that are buffered for a connection.
const BUFFER_MAX: usize = 16 * 1024;
/// Longest time without a byte moving while an answer is in progress.
const STALL_MAX_TIME: Duration = Duration::from_secs(30);

/// How long a stop waits for the first request of a client that has just connected.
const FIRST_MAX_TIME: Duration = Duration::from_millis(200);

/// How long, and how many bytes, are read from the client after the last answer.
const LINGER_MAX_TIME: Duration = Duration::from_secs(1);
const LINGER_MAX: usize = 256 * 1024;

/// Timeouts of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// For the head of a request.
    pub(super) head: Duration,
    /// For a byte to move.
    pub(super) stall: Duration,
    /// For the first request, after a stop.
    pub(super) first: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: HEAD_MAX_TIME,
            stall: STALL_MAX_TIME,
            first: FIRST_MAX_TIME,
        }
    }
}

/// The state of a connection for other tasks.
#[derive(Debug)]
pub(super) struct ConnectionState {
    /// When a byte last moved.
    pub(super) last_byte: Cell<Instant>,
    /// It has sent nothing so far.
    silent: Cell<bool>,
    /// A request has come, and hyper has not taken its whole answer yet.
    answering: Cell<bool>,
    /// Writing waits for the client.
    blocked: Cell<bool>,
    /// Notified to end it.
    pub(super) evicted: Notify,
    /// `None` when it has gone already. What a PROXY header says, once it has come.
    client: Cell<Option<SocketAddr>>,
    /// Where it was accepted.
    bind: Rc<Bind>,
    /// The lines of its requests.
    pub(super) lines: RequestLines,
}

impl ConnectionState {
    /// Whether an answer is in progress.
    pub(super) fn is_answering(&self) -> bool {
        self.answering.get() || self.blocked.get()
    }

    /// A connection of `client` to `bind` that begins now.
    pub(super) fn new(client: Option<SocketAddr>, bind: Rc<Bind>) -> Self {
        Self {
            last_byte: Cell::new(Instant::now()),
            silent: Cell::new(true),
            answering: Cell::new(false),
            blocked: Cell::new(false),
            evicted: Notify::new(),
            client: Cell::new(client),
            bind,
            lines: RequestLines::default(),
        }
    }
}

/// Serves `stream` until it ends; after `closing`, until the answer in progress is finished.
pub(super) async fn serve(
    shared: &Rc<Shared>,
    (stream, slot): (TcpStream, StatsSlot),
    state: Rc<ConnectionState>,
    closing: CancellationToken,
) {
    // The slot is freed last, when the descriptor is closed.
    let slot = Rc::new(slot);
    let stream = Rc::new(stream);
    let counted = CountedStream {
        stream: Rc::clone(&stream),
        shared: Rc::clone(shared),
        slot: Rc::clone(&slot),
        state: Rc::clone(&state),
    };
    let serving = async {
        if !admitted(shared, &stream, &slot, &state).await {
            return;
        }
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
    state.lines.end(shared, state.client.get());
}

/// Waits for its PROXY header, where the bind demands one, and counts it as a session. Whether it is one.
async fn admitted(
    shared: &Shared,
    stream: &TcpStream,
    slot: &StatsSlot,
    state: &ConnectionState,
) -> bool {
    if let Some(rule) = header::rule(shared, &state.bind, state.client.get()) {
        let receiving = header::receive(stream, &rule, shared.timeouts.head);
        // A stop does not wait for a header.
        match shared.stop.run_until_cancelled(receiving).await {
            None => return false,
            Some(Ok(client)) => state.client.set(client.or(state.client.get())),
            Some(Err(failure)) => {
                header::tell(shared, (&state.bind, state.client.get()), failure);
                return false;
            }
        }
    }
    let traffic = slot.live().traffic.mine(&shared.token);
    traffic.stot.add(1);
    traffic.rate.count(shared.second());
    traffic.last_session.store(shared.millis() + 1, Relaxed);
    true
}

/// How the requests of a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The last answer is written, or there was none to write.
    ByItself,
    /// The process stops, and nothing was asked.
    ByStop,
}

/// Answers requests until the client ends. After `closing` or a stop, only until the answer in progress is
/// finished. A client that has sent nothing by then gets one answer, if its request comes soon after a stop.
async fn answer_requests(counted: CountedStream, closing: CancellationToken) -> Ended {
    let (shared, slot) = (Rc::clone(&counted.shared), Rc::clone(&counted.slot));
    let state = Rc::clone(&counted.state);
    let service = service_fn(async |request| {
        state.answering.set(true);
        let mut response = handle(&shared, &state, request).await;
        if closing.is_cancelled() || shared.stop.is_cancelled() {
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
    let (mut stopping, mut closed, mut waits) = (false, false, false);
    let mut first_over = pin!(tokio::time::sleep(shared.timeouts.first));
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    failed(&shared, (&slot, &state), &error);
                }
                return Ended::ByItself;
            }
            () = shared.stop.cancelled(), if !stopping => {
                stopping = true;
                if state.silent.get() {
                    waits = true;
                    let end = Instant::now() + shared.timeouts.first;
                    first_over.as_mut().reset(end.into());
                } else {
                    connection.as_mut().graceful_shutdown();
                }
            }
            () = &mut first_over, if waits => {
                if state.silent.get() {
                    return Ended::ByStop;
                }
                waits = false;
                connection.as_mut().graceful_shutdown();
            }
            () = closing.cancelled(), if !closed => {
                closed = true;
                // A client that has sent nothing yet gets one answer.
                if !state.silent.get() {
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// Reads what the client still sends: unread bytes make the kernel reset the connection at the close, and a
/// reset discards what has not arrived of the answer.
async fn linger(stream: &TcpStream) {
    // On the heap, because otherwise every connection's task would be that much larger.
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

async fn handle(
    shared: &Rc<Shared>,
    state: &Rc<ConnectionState>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query();
    let path = path.map_or("", |path| path.as_str());
    let whole = head.uri.scheme().map(|_| head.uri.to_string());
    let target = whole.as_deref().unwrap_or(path);
    let sources = ResponseSources {
        snapshot: shared.snapshot.load_full(),
        process: Arc::clone(&shared.process),
        requests: Arc::clone(&shared.requests),
        now: Instant::now(),
        client: state.client.get(),
        bind: Rc::clone(&state.bind),
    };
    let begin = |service: Option<Service>| {
        if let Some(service) = service.filter(|_| shared.logs_requests(&state.bind)) {
            state.lines.begin(service);
        }
    };
    let mut response = match respond(sources, &head.method, target, &head.headers) {
        Answer::Response(response, service) => {
            begin(service);
            response
        }
        Answer::Action(request) => {
            begin(Some(Service::Stats));
            // Reading the body has reset it.
            let whole = || state.answering.set(true);
            let ended = action::perform(shared, &request.asker, &head.headers, body, whole).await;
            state.answering.set(true);
            acted(&request, ended)
        }
    };
    shared
        .requests
        .count(response.status().as_u16(), shared.second());
    response.body_mut().ends(AnswerEnd(Rc::clone(state)));
    response
}

/// An invalid request: hyper has answered it (400, 431) or closed.
fn failed(shared: &Shared, (slot, state): (&StatsSlot, &ConnectionState), error: &hyper::Error) {
    if error.is_parse() || error.is_incomplete_message() {
        let cause = if error.is_parse() {
            Cause::Proxy
        } else {
            Cause::Client
        };
        state
            .lines
            .unreadable(shared, (state.client.get(), &state.bind), cause);
        slot.live().traffic.mine(&shared.token).ereq.add(1);
    }
    if error.is_parse() {
        shared.requests.count(400, shared.second());
    }
}

/// Completes when no byte has moved for `limit`.
async fn stalled(state: &ConnectionState, limit: Duration) {
    loop {
        let end = state.last_byte.get() + limit;
        if Instant::now() >= end {
            return;
        }
        tokio::time::sleep_until(end.into()).await;
    }
}

/// A stream whose bytes are counted for the stats proxy.
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
        // hyper reads the next request after it has taken the whole answer to the last one.
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
                    self.state.lines.wrote(written);
                    return Poll::Ready(Ok(written));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes after a whole answer, or when it has no more of it for now. Everything is written then.
        let state = &self.state;
        state.lines.flushed(&self.shared, state.client.get());
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.stream).shutdown(Shutdown::Write))
    }
}
