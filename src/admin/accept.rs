//! Accepts connections to the stats listener, within its own limit and with descriptors that are kept back.
//! Admin thread, one task per listener.
//!
//! Invariants: no more than `stats.maxconn` connections are served; one more may be accepted and waiting, the
//! others wait in the kernel's queue. When the limit is reached, the connection that has been idle the longest
//! is closed, so that idle clients cannot lock out a health check. A lack of descriptors makes it pause, not
//! spin.

use super::Shared;
use super::connection::{ConnectionState, serve};
use crate::live::slot::StatsSlot;
use crate::sys::limits::is_out_of_descriptors;
use socket2::SockRef;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Limit of connections when the snapshot has no stats proxy (any more).
const CONNECTIONS_DEFAULT: u32 = 200;
/// Send buffer for a client that does not take its bytes; the kernel doubles the value.
const SEND_BUFFER: usize = 128 * 1024;
/// How long accepting pauses when no descriptor is left.
const PAUSE: Duration = Duration::from_millis(100);
/// How often a full listener looks for an idle connection to close.
const RETRY_EVERY: Duration = Duration::from_millis(20);
/// How long a connection must have been idle before it may be closed: one that waits for a request, and one
/// with an answer in progress.
const IDLE_MIN: Duration = Duration::from_millis(100);
const STALLED_MIN: Duration = Duration::from_secs(1);
/// How often a lack of descriptors is reported.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// The connections that are being served.
pub(super) type Connections = RefCell<slab::Slab<Rc<ConnectionState>>>;

/// Accepts on `listener` until the stop, or until `closing`.
pub(super) async fn run(shared: Rc<Shared>, listener: TcpListener, closing: CancellationToken) {
    let stop = shared.stop.clone();
    let accepting = async {
        accept_all(&shared, &listener, &closing).await;
        drain_queue(&shared, listener, &closing).await;
    };
    stop.run_until_cancelled(accepting).await;
}

/// Accepts until `closing`. A client that was accepted before is served.
async fn accept_all(shared: &Rc<Shared>, listener: &TcpListener, closing: &CancellationToken) {
    let mut reported: Option<Instant> = None;
    while let Some(accepted) = closing.run_until_cancelled(accept(shared, listener)).await {
        match accepted {
            Ok(stream) => {
                let slot = wait_for_slot(shared).await;
                start(shared, (stream, slot), closing.clone());
            }
            Err(error) => {
                let now = Instant::now();
                if reported.is_none_or(|at| now.duration_since(at) >= REPORT_EVERY) {
                    reported = Some(now);
                    tracing::warn!(%error, "stats listener cannot accept");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Accepts what the kernel has queued, and closes.
async fn drain_queue(shared: &Rc<Shared>, listener: TcpListener, closing: &CancellationToken) {
    // With `accept` itself, because the event loop may not have reported the last ones yet.
    let Ok(listener) = listener.into_std() else {
        return;
    };
    loop {
        match shared.reserve.with(|| listener.accept()) {
            Ok((stream, _client)) => {
                let slot = wait_for_slot(shared).await;
                let ready = stream.set_nonblocking(true);
                if let Ok(stream) = ready.and_then(|()| TcpStream::from_std(stream)) {
                    tune(&stream);
                    start(shared, (stream, slot), closing.clone());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if is_local_shortage(&error) => tokio::time::sleep(PAUSE).await,
            // The client has gone before it was accepted.
            Err(_) => {}
        }
    }
}

/// The next connection. Fails only with errors after which a pause helps.
async fn accept(shared: &Shared, listener: &TcpListener) -> io::Result<TcpStream> {
    loop {
        let accepted = poll_fn(|context| {
            let attempt = shared.reserve.with(|| match listener.poll_accept(context) {
                Poll::Ready(result) => result.map(Some),
                Poll::Pending => Ok(None),
            });
            match attempt.transpose() {
                Some(result) => Poll::Ready(result),
                None => Poll::Pending,
            }
        });
        match accepted.await {
            Ok((stream, _client)) => {
                tune(&stream);
                return Ok(stream);
            }
            Err(error) if is_local_shortage(&error) => return Err(error),
            // The client has gone before it was accepted.
            Err(_) => {}
        }
    }
}

/// Sets the options of a connection; errors mean that the client has gone.
fn tune(stream: &TcpStream) {
    // Answers are written whole; their last part must not wait for an ACK.
    let _ = stream.set_nodelay(true);
    // What a client does not take must stay small in the kernel, too.
    let _ = SockRef::from(stream).set_send_buffer_size(SEND_BUFFER);
}

fn is_local_shortage(error: &io::Error) -> bool {
    is_out_of_descriptors(error)
        || matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}

/// Waits until one more connection may be served.
async fn wait_for_slot(shared: &Shared) -> StatsSlot {
    loop {
        let freed = shared.freed.notified();
        let snapshot = shared.snapshot.load_full();
        let stats = snapshot.stats.as_ref();
        let limit = stats.map_or(CONNECTIONS_DEFAULT, |stats| stats.maxconn);
        if let Some(slot) = StatsSlot::take(&snapshot.stats_live, limit, &shared.token) {
            return slot;
        }
        evict_idlest(&shared.connections);
        // By then a connection has ended, or one has been idle for long enough.
        let _ = tokio::time::timeout(RETRY_EVERY, freed).await;
    }
}

/// Closes the connection that has been idle the longest, if that is long enough. Connections that wait for a
/// request go first; those with an answer in progress only when there are no others.
fn evict_idlest(connections: &Connections) {
    let connections = connections.borrow();
    let idlest = |answering: bool, idle_min: Duration| {
        let all = connections.iter().map(|(_, state)| state);
        all.filter(|state| state.is_answering() == answering)
            .min_by_key(|state| state.last_byte.get())
            .filter(|state| state.last_byte.get().elapsed() >= idle_min)
    };
    if let Some(state) = idlest(false, IDLE_MIN).or_else(|| idlest(true, STALLED_MIN)) {
        state.evicted.notify_one();
    }
}

fn start(shared: &Rc<Shared>, (stream, slot): (TcpStream, StatsSlot), closing: CancellationToken) {
    let (now, second) = (shared.millis(), shared.second());
    let traffic = slot.live().traffic.mine(&shared.token);
    traffic.conn_tot.add(1);
    traffic.stot.add(1);
    traffic.rate.count(second);
    traffic.conn_rate.count(second);
    traffic.last_session.store(now + 1, Relaxed);
    let task = Rc::clone(shared);
    shared.tracker.spawn_local(async move {
        let state = Rc::new(ConnectionState::new());
        let key = task.connections.borrow_mut().insert(Rc::clone(&state));
        let _registration = Registration { shared: &task, key };
        serve(&task, (stream, slot), state, closing).await;
    });
}

/// The entry of a connection in [`Shared::connections`]. Dropped after its descriptor and its slot.
struct Registration<'a> {
    shared: &'a Shared,
    key: usize,
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        self.shared.connections.borrow_mut().try_remove(self.key);
        self.shared.freed.notify_one();
        // A descriptor was just closed: keep it back again, if one was lent.
        self.shared.reserve.refill();
    }
}
