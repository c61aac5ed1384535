//! Accepts connections to the stats listener, within its own limit and with descriptors that are kept back.
//! Admin thread, one task per listener.
//!
//! Invariants: no more than `stats.maxconn` connections are served; one more may be accepted and waiting, the
//! others wait in the kernel's queue. When the limit is reached, the connection that has been idle the longest
//! is closed, so that idle clients cannot lock out a health check. A lack of descriptors makes it pause, not
//! spin.

use super::Shared;
use super::connection::{ConnectionState, serve};
use crate::config::model::Bind;
use crate::live::slot::StatsSlot;
use crate::sys::accept::{self, Acceptor, Connection, Failure};
use crate::sys::raw::Owned;
use crate::sys::socket;
use socket2::SockRef;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// Limit of connections when the snapshot has no stats proxy (any more).
const CONNECTIONS_DEFAULT: u32 = 200;
/// Send buffer for a client that does not take its bytes; the kernel doubles the value.
const SEND_BUFFER: usize = 128 * 1024;
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

/// Accepts on `listener` until the stop, or until `closing`. A client that is queued by then is served.
pub(super) async fn run(
    (shared, bind): (Rc<Shared>, Rc<Bind>),
    listener: AsyncFd<Owned<TcpListener>>,
    closing: CancellationToken,
) {
    let stop = shared.stop.clone();
    let acceptor = StatsAcceptor {
        shared,
        bind,
        listener,
        closing: closing.clone(),
        reported: Cell::new(None),
    };
    let accepting = accept::run(&acceptor.listener, &acceptor, &closing);
    // An error means that the runtime shuts down.
    let _ = stop.run_until_cancelled(accepting).await;
}

/// The acceptor of one socket.
struct StatsAcceptor {
    shared: Rc<Shared>,
    /// What it listens for.
    bind: Rc<Bind>,
    listener: AsyncFd<Owned<TcpListener>>,
    closing: CancellationToken,
    /// When errors were last told of.
    reported: Cell<Option<Instant>>,
}

impl Acceptor for StatsAcceptor {
    type Room = ();

    /// Always: [`Self::admit`] waits for a slot, so that one connection more is in hand.
    fn room(&self) -> Option<()> {
        Some(())
    }

    async fn wait_for_room(&self, _: &CancellationToken) -> Option<()> {
        Some(())
    }

    fn accept(&self) -> io::Result<Connection> {
        let accept = || socket::accept(self.listener.get_ref());
        self.shared.reserve.with(accept)
    }

    async fn admit(&self, (client, address): Connection, (): ()) {
        let slot = wait_for_slot(&self.shared, &self.closing).await;
        if let (Some(slot), Ok(stream)) = (slot, TcpStream::from_std(client.into())) {
            tune(&stream);
            let state = ConnectionState::new(address, Rc::clone(&self.bind));
            start(&self.shared, (stream, slot, state), self.closing.clone());
        }
    }

    async fn pause(&self, error: &io::Error, _: Failure) {
        let (now, reported) = (Instant::now(), self.reported.get());
        if reported.is_none_or(|at| now.duration_since(at) >= REPORT_EVERY) {
            self.reported.set(Some(now));
            tracing::warn!(%error, "stats listener cannot accept");
        }
        tokio::time::sleep(accept::PAUSE).await;
    }

    fn may_drain(&self) -> bool {
        true
    }
}

/// Sets the options of a connection; errors mean that the client has gone.
fn tune(stream: &TcpStream) {
    // Answers are written whole; their last part must not wait for an ACK.
    let _ = stream.set_nodelay(true);
    // What a client does not take must stay small in the kernel, too.
    let _ = SockRef::from(stream).set_send_buffer_size(SEND_BUFFER);
}

/// Waits until one more connection may be served. `None`: none will be any more, because accepting ends while the
/// limit is 0.
async fn wait_for_slot(shared: &Shared, closing: &CancellationToken) -> Option<StatsSlot> {
    loop {
        let freed = shared.freed.notified();
        let snapshot = shared.snapshot.load_full();
        let limit = snapshot.stats_limit().unwrap_or(CONNECTIONS_DEFAULT);
        if let Some(slot) = StatsSlot::take(&snapshot.stats_live, limit, &shared.token) {
            return Some(slot);
        }
        if limit == 0 && closing.is_cancelled() {
            return None;
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

fn start(
    shared: &Rc<Shared>,
    (stream, slot, state): (TcpStream, StatsSlot, ConnectionState),
    closing: CancellationToken,
) {
    let traffic = slot.live().traffic.mine(&shared.token);
    traffic.conn_tot.add(1);
    traffic.conn_rate.count(shared.second());
    let task = Rc::clone(shared);
    shared.tracker.spawn_local(async move {
        let state = Rc::new(state);
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
