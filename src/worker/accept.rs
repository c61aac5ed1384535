//! Step 1: accepting, while there are places and descriptors. Runs on a worker.
//!
//! Excess connections wait in the kernel's queue, which costs nothing and loses none. A pause ends
//! when a place is freed, not by polling.

use super::hand_off::Accepted;
use super::relay::Kind;
use super::session::{Session, WorkerContext};
use super::session_stats::SessionStats;
use crate::live::slot::{ConnLimits, ConnSlot};
use crate::live::{GlobalLive, ShortageStep};
use crate::state::{Frontend, FrontendId};
use crate::sys::limits::{Shortage, is_local, out_of_descriptors};
use crate::sys::raw::{self, Owned};
use crate::sys::socket::accept;
use socket2::Socket;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Pause after a shortage of descriptors or memory, unless a session ends earlier.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

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

/// Accepts until `drain` is cancelled, and then what had been queued by that time: closing a
/// listening socket would throw it away. Not when it was `handed_over`: another process has the same
/// socket then, and what is queued in it.
pub(super) async fn run(
    listener: Listener,
    worker: Rc<WorkerContext>,
    sessions: TaskTracker,
    (drain, handed_over): (CancellationToken, CancellationToken),
) -> io::Result<()> {
    let Listener {
        id: _,
        frontend,
        socket,
        unix,
    } = listener;
    let Some(last) = worker.read(|snapshot| snapshot.frontend(frontend).cloned()) else {
        // A later reload has removed it before this worker heard of it.
        return Ok(());
    };
    let kind = if unix { Kind::Unix } else { Kind::Tcp };
    let socket = raw::watch(Owned::new(socket), Interest::READABLE)?;
    let acceptor = Acceptor {
        last: RefCell::new(last),
        kind,
        socket,
        worker,
        sessions,
        handed_over: handed_over.clone(),
    };
    loop {
        let ready = tokio::select! {
            biased;
            () = drain.cancelled() => break,
            ready = acceptor.socket.readable() => ready,
        };
        let mut ready = ready?;
        match acceptor.batch(&drain).await {
            Batch::Drained => ready.clear_ready(),
            Batch::More => tokio::task::yield_now().await,
        }
    }
    if handed_over.is_cancelled() {
        return Ok(());
    }
    let never = CancellationToken::new();
    while !acceptor.worker.kill.is_cancelled() {
        if let Batch::Drained = acceptor.batch(&never).await {
            break;
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
    sessions.spawn_local(session.live_guarded());
}

struct Acceptor {
    /// The frontend as it was last seen: one that a reload has removed still takes in what is
    /// queued for it.
    last: RefCell<Arc<Frontend>>,
    kind: Kind,
    socket: AsyncFd<Owned<Arc<Socket>>>,
    worker: Rc<WorkerContext>,
    sessions: TaskTracker,
    handed_over: CancellationToken,
}

enum Batch {
    /// Nothing more is waiting.
    Drained,
    /// More may be waiting.
    More,
}

impl Acceptor {
    /// The frontend and the limits as they are now.
    fn now(&self) -> (Arc<Frontend>, ConnLimits) {
        let mut last = self.last.borrow_mut();
        let global = self.worker.read(|snapshot| {
            if let Some(frontend) = snapshot.frontend(last.id)
                && !Arc::ptr_eq(frontend, &last)
            {
                *last = Arc::clone(frontend);
            }
            snapshot.maxconn
        });
        let limits = ConnLimits {
            global,
            frontend: last.spec.maxconn,
        };
        (Arc::clone(&last), limits)
    }

    /// Accepts some connections.
    async fn batch(&self, drain: &CancellationToken) -> Batch {
        for _ in 0..BATCH_MAX {
            let (frontend, limits) = self.now();
            if self.is_full(&frontend, limits) && !self.wait_for_place(drain).await {
                return Batch::More;
            }
            let next = if self.worker.worker_stats.global.may_take_descriptors() {
                accept(self.socket.get_ref())
            } else {
                Err(out_of_descriptors())
            };
            match next {
                Ok(connection) => self.admit(connection, (frontend, limits)).await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Batch::Drained,
                Err(error) if is_local(&error) => {
                    self.shortage(&error).await;
                    return Batch::More;
                }
                // That one connection was gone before it could be accepted.
                Err(_) => {}
            }
        }
        Batch::More
    }

    /// Gives a connection its place and its session.
    async fn admit(
        &self,
        (client, peer): (OwnedFd, Option<SocketAddr>),
        (frontend, limits): (Arc<Frontend>, ConnLimits),
    ) {
        // Another worker may have taken the last place meanwhile: then this one connection waits
        // here, the others in the kernel.
        let (frontend, slot) = match self.take(&frontend, limits) {
            Some(slot) => (frontend, slot),
            None => self.place().await,
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

    /// Waits until there is a place to be had, because a session ended or a limit was raised;
    /// `false` when draining has begun instead.
    async fn wait_for_place(&self, drain: &CancellationToken) -> bool {
        let worker_stats = &self.worker.worker_stats;
        worker_stats
            .global
            .traffic
            .mine(&worker_stats.token)
            .paused
            .add(1);
        self.report_maxconn();
        let waiting = Waiting::new(&worker_stats.global);
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
                // Sessions that are killed end, and free their places.
                () = self.worker.kill.cancelled() => return false,
            }
        }
    }

    /// Waits for a place and takes it. Once the service is handed over there is one for whoever waits
    /// here: this process takes nobody else, and may keep those that it has for days.
    async fn place(&self) -> (Arc<Frontend>, ConnSlot) {
        let waiting = Waiting::new(&self.worker.worker_stats.global);
        loop {
            let freed = waiting.0.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let (frontend, mut limits) = self.now();
            if self.handed_over.is_cancelled() {
                limits = ConnLimits::NONE;
            }
            if let Some(slot) = self.take(&frontend, limits) {
                return (frontend, slot);
            }
            tokio::select! {
                () = freed => {}
                () = self.handed_over.cancelled() => {}
            }
        }
    }

    /// Something of ours ran out: says so, at most once a second, and pauses.
    async fn shortage(&self, error: &io::Error) {
        let worker_stats = &self.worker.worker_stats;
        worker_stats
            .global
            .traffic
            .mine(&worker_stats.token)
            .paused
            .add(1);
        // What is no shortage is not told to this function.
        if let Some(shortage) = Shortage::of(error) {
            let (token, step) = (&worker_stats.token, ShortageStep::Accept);
            worker_stats.global.shortage(token, step, shortage, None);
        }
        let waiting = Waiting::new(&worker_stats.global);
        // Whichever comes first; neither needs to be told from the other.
        let _ = tokio::time::timeout(SHORTAGE_PAUSE, waiting.0.freed.notified()).await;
    }
}

/// Makes sessions that end ring [`GlobalLive::freed`].
struct Waiting<'a>(&'a GlobalLive);

impl<'a> Waiting<'a> {
    fn new(global: &'a GlobalLive) -> Self {
        global.waiting.fetch_add(1, SeqCst);
        Self(global)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}
