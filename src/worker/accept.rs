//! Step 1: accepting, while there are places and descriptors. Runs on a worker.
//!
//! Excess connections wait in the kernel's queue, which costs nothing and loses none. A pause ends
//! when a place is freed, not by polling.

use super::Stops;
use super::context::{WorkerContext, spare_descriptor};
use super::hand_off::Accepted;
use super::relay::Kind;
use super::session::Session;
use super::session_stats::SessionStats;
use crate::live::slot::{ConnLimits, ConnSlot};
use crate::live::{Cause, GlobalLive, Phase, ShortageStep, Termination};
use crate::state::{Frontend, FrontendId};
use crate::sys::limits::{Shortage, is_out_of_descriptors, out_of_descriptors};
use crate::sys::raw::{self, Owned};
use crate::sys::socket::{accept, close_in_order};
use socket2::Socket;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::fence;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Pause after a shortage of descriptors or memory, unless a session ends earlier.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

/// How long clients wait for the end of a shortage of descriptors before they are told.
const SHORTAGE_MAX: Duration = Duration::from_secs(1);

/// Connections that are still accepted from a unix socket when it is closed; of a TCP socket those
/// that are queued then.
const UNIX_DRAIN_MAX: usize = 4096;

/// Connections taken in one go, so that accepting does not starve the sessions.
const BATCH_MAX: usize = 64;

/// Tells a listening socket from every other that the process has ever had; its shards share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u64);

/// One worker's share of a listening address.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Its lasting name.
    pub id: ListenerId,
    /// Its frontend.
    pub frontend: FrontendId,
    /// Listening, non-blocking. Control keeps it too, for reloads.
    pub socket: Arc<Socket>,
    /// Whether it is a unix socket.
    pub unix: bool,
}

/// What ends accepting from a listener. All its sockets of a worker share it.
#[derive(Debug, Clone)]
pub(super) struct StopAccepting {
    /// Cancelled: accept no more than what is queued.
    drain: CancellationToken,
    /// Cancelled before `drain`: another process, or another listener, has the same socket and goes on
    /// with its queue.
    queue_moved: CancellationToken,
    /// The frontend as it was last, once a reload has removed it.
    last: Rc<RefCell<Option<Arc<Frontend>>>>,
}

impl StopAccepting {
    /// Ends when the worker's `stops` say so, or by [`StopAccepting::now`].
    pub(super) fn new(stops: &Stops) -> Self {
        Self {
            drain: stops.drain.child_token(),
            queue_moved: stops.handed_over.child_token(),
            last: Rc::default(),
        }
    }

    /// Ends accepting: `moved`: another listener goes on with the queue.
    pub(super) fn now(&self, last: Option<Arc<Frontend>>, moved: bool) {
        *self.last.borrow_mut() = last;
        if moved {
            self.queue_moved.cancel();
        }
        self.drain.cancel();
    }
}

/// Accepts until `stop`, and then what had been queued by that time: closing a listening socket would
/// throw it away. Not when its queue has moved.
pub(super) async fn run(
    listener: Listener,
    worker: Rc<WorkerContext>,
    sessions: TaskTracker,
    stop: StopAccepting,
) -> io::Result<()> {
    let Listener {
        id: _,
        frontend,
        socket,
        unix,
    } = listener;
    let Some(frontend) = worker.read(|snapshot| snapshot.frontend(frontend).cloned()) else {
        // A later reload has removed it before this worker heard of it.
        return Ok(());
    };
    let kind = if unix { Kind::Unix } else { Kind::Tcp };
    let socket = raw::watch(Owned::new(socket), Interest::READABLE)?;
    let acceptor = Acceptor {
        frontend: RefCell::new(frontend),
        kind,
        socket,
        worker,
        sessions,
        stop: stop.clone(),
        shortage: Cell::new(None),
    };
    loop {
        let ready = tokio::select! {
            biased;
            () = stop.drain.cancelled() => break,
            ready = acceptor.socket.readable() => ready,
        };
        let mut ready = ready?;
        match acceptor.batch(&stop.drain, &mut 0).await {
            Batch::Drained => ready.clear_ready(),
            Batch::More => tokio::task::yield_now().await,
        }
    }
    // Those that come after the stop are not waited for: there may be no end of them.
    let (never, mut accepted) = (CancellationToken::new(), 0);
    let queued = acceptor.queued();
    while accepted < queued
        && !stop.queue_moved.is_cancelled()
        && !acceptor.worker.kill.is_cancelled()
    {
        match acceptor.batch(&never, &mut accepted).await {
            Batch::Drained => break,
            Batch::More => tokio::task::yield_now().await,
        }
    }
    Ok(())
}

/// Begins the session of a connection.
pub(super) fn begin(accepted: Accepted, worker: &Rc<WorkerContext>, sessions: &TaskTracker) {
    let Accepted {
        client,
        kind,
        peer,
        frontend,
        slot,
    } = accepted;
    let id = worker.pending.number(worker.peers.position());
    let stats = SessionStats::open(id, slot, frontend, peer, &worker.worker_stats);
    let session = Session::new(Rc::clone(worker), (client, kind), stats);
    sessions.spawn_local(session.run_guarded());
}

struct Acceptor {
    /// The frontend as it was last seen.
    frontend: RefCell<Arc<Frontend>>,
    kind: Kind,
    socket: AsyncFd<Owned<Arc<Socket>>>,
    worker: Rc<WorkerContext>,
    sessions: TaskTracker,
    stop: StopAccepting,
    /// Since when nothing could be accepted for want of something of ours.
    shortage: Cell<Option<Instant>>,
}

enum Batch {
    /// Nothing more is waiting.
    Drained,
    /// More may be waiting.
    More,
}

impl Acceptor {
    /// The frontend and the limits as they are now. A frontend that a reload has removed still takes in
    /// what is queued for it.
    fn now(&self) -> (Arc<Frontend>, ConnLimits) {
        let mut frontend = self.frontend.borrow_mut();
        let removed = self.stop.last.borrow();
        let global = self.worker.read(|snapshot| {
            let now = snapshot.frontend(frontend.id).or(removed.as_ref());
            if let Some(now) = now
                && !Arc::ptr_eq(now, &frontend)
            {
                *frontend = Arc::clone(now);
            }
            snapshot.maxconn
        });
        let limits = ConnLimits {
            global,
            frontend: frontend.spec.maxconn,
        };
        (Arc::clone(&frontend), limits)
    }

    /// Accepts some connections, and adds their number to `accepted`.
    async fn batch(&self, drain: &CancellationToken, accepted: &mut usize) -> Batch {
        for _ in 0..BATCH_MAX {
            let (frontend, limits) = self.now();
            if self.is_full(&frontend, limits) {
                // Whoever has waited is admitted by what is in force then.
                if self.wait_for_slot(drain).await {
                    continue;
                }
                return Batch::More;
            }
            let next = if self.worker.worker_stats.global.may_take_descriptors() {
                accept(self.socket.get_ref())
            } else {
                Err(out_of_descriptors())
            };
            match next {
                Ok(connection) => {
                    self.shortage.set(None);
                    *accepted += 1;
                    self.admit(connection, (frontend, limits)).await;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Batch::Drained,
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    self.pause(&error).await;
                    return Batch::More;
                }
            }
        }
        Batch::More
    }

    /// Gives a connection its slot and its session.
    async fn admit(
        &self,
        (client, peer): (OwnedFd, Option<SocketAddr>),
        (frontend, limits): (Arc<Frontend>, ConnLimits),
    ) {
        // Another worker may have taken the last slot meanwhile: then this one connection waits
        // here, the others in the kernel.
        let (frontend, slot) = match self.take(&frontend, limits) {
            Some(slot) => (frontend, slot),
            None => self.slot().await,
        };
        let accepted = Accepted {
            client,
            kind: self.kind,
            peer,
            frontend,
            slot,
        };
        let load = &self.worker.worker_stats.global.load;
        if let Some(accepted) = self.worker.peers.hand_over(accepted, load) {
            begin(accepted, &self.worker, &self.sessions);
        }
    }

    fn take(&self, frontend: &Arc<Frontend>, limits: ConnLimits) -> Option<ConnSlot> {
        let worker_stats = &self.worker.worker_stats;
        ConnSlot::take(
            &worker_stats.global,
            &frontend.live,
            limits,
            &worker_stats.token,
        )
    }

    fn is_full(&self, frontend: &Frontend, limits: ConnLimits) -> bool {
        self.worker.worker_stats.global.active.get() >= limits.global
            || limits
                .frontend
                .is_some_and(|limit| frontend.live.active.get() >= limit)
    }

    /// Tells which `maxconn` makes clients wait.
    fn report_maxconn(&self) {
        let global = &self.worker.worker_stats.global;
        let (frontend, limits) = self.now();
        if global.active.get() >= limits.global {
            global.process_maxconn_reached(limits.global);
        } else if let Some(maxconn) = limits.frontend {
            global.frontend_maxconn_reached(&frontend.live, maxconn);
        }
    }

    /// Waits until there is a slot to be had, because a session ended or a limit was raised;
    /// `false` when draining has begun instead.
    async fn wait_for_slot(&self, drain: &CancellationToken) -> bool {
        self.count_pause();
        self.report_maxconn();
        let waiting = Waiting::new(&self.worker.worker_stats.global);
        loop {
            let freed = waiting.0.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let (frontend, limits) = self.now();
            if !self.is_full(&frontend, limits) {
                return true;
            }
            tokio::select! {
                () = freed => {}
                () = drain.cancelled() => return false,
                () = self.stop.queue_moved.cancelled() => return false,
                // Sessions that are killed end, and free their slots.
                () = self.worker.kill.cancelled() => return false,
            }
        }
    }

    /// Waits for a slot and takes it. Once the queue has moved there is one for whoever waits here:
    /// nobody else is accepted here, and the sessions that there are may go on for days.
    async fn slot(&self) -> (Arc<Frontend>, ConnSlot) {
        let waiting = Waiting::new(&self.worker.worker_stats.global);
        loop {
            let freed = waiting.0.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let (frontend, mut limits) = self.now();
            if self.stop.queue_moved.is_cancelled() {
                limits = ConnLimits::NONE;
            }
            if let Some(slot) = self.take(&frontend, limits) {
                return (frontend, slot);
            }
            tokio::select! {
                () = freed => {}
                () = self.stop.queue_moved.cancelled() => {}
            }
        }
    }

    /// Nothing can be accepted, mostly because something of ours ran out: says so, at most once a
    /// second, and pauses. Those who have waited for long are told.
    async fn pause(&self, error: &io::Error) {
        let worker_stats = &self.worker.worker_stats;
        self.count_pause();
        if let Some(shortage) = Shortage::of(error) {
            let (token, step) = (&worker_stats.token, ShortageStep::Accept);
            worker_stats.global.shortage(token, step, shortage, None);
        } else if self.shortage.get().is_none() {
            tracing::error!(%error, "accept failed, trying again");
        }
        let since = self.shortage.get().unwrap_or_else(Instant::now);
        self.shortage.set(Some(since));
        if since.elapsed() >= SHORTAGE_MAX && is_out_of_descriptors(error) {
            self.refuse_waiting();
        }
        let waiting = Waiting::new(&worker_stats.global);
        // Whichever comes first; neither needs to be told from the other.
        let _ = tokio::time::timeout(SHORTAGE_PAUSE, waiting.0.freed.notified()).await;
    }

    /// Ends the connections that are queued, one after another, in the place of the worker's spare
    /// descriptor: there is none for their sessions.
    fn refuse_waiting(&self) {
        for _ in 0..BATCH_MAX {
            let (frontend, limits) = self.now();
            self.worker.spare.borrow_mut().take();
            let accepted = accept(self.socket.get_ref());
            let peer = accepted.map(|(client, peer)| {
                close_in_order(client);
                peer
            });
            *self.worker.spare.borrow_mut() = spare_descriptor();
            let Ok(peer) = peer else {
                return;
            };
            if let Some(slot) = self.take(&frontend, limits) {
                let id = self.worker.pending.number(self.worker.peers.position());
                let stats = &self.worker.worker_stats;
                SessionStats::open(id, slot, frontend, peer, stats)
                    .finish(&Termination::new(Cause::Resource, Phase::Connect), stats);
            }
        }
    }

    fn count_pause(&self) {
        let worker_stats = &self.worker.worker_stats;
        let process = worker_stats.global.traffic.mine(&worker_stats.token);
        process.paused.add(1);
    }

    /// Connections that wait to be accepted.
    fn queued(&self) -> usize {
        let socket = self.socket.get_ref().as_fd();
        // A unix socket does not tell.
        raw::tcp_info(socket).map_or(UNIX_DRAIN_MAX, |info| info.unacked as usize)
    }
}

/// Whether `accept` has failed because that one connection was gone, or its network was (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::ECONNRESET
                | libc::EINTR
                | libc::ENETDOWN
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EPERM
        )
    )
}

/// Makes sessions that end ring [`GlobalLive::freed`].
struct Waiting<'a>(&'a GlobalLive);

impl<'a> Waiting<'a> {
    fn new(global: &'a GlobalLive) -> Self {
        global.waiting.fetch_add(1, Relaxed);
        // Pairs with the fence of `ConnSlot`'s drop: what is looked at from here on is no older.
        fence(SeqCst);
        Self(global)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}
