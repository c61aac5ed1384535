//! Step 1: accepts connections while `maxconn` and the descriptor limit allow it. Runs on a worker.
//!
//! Connections above a limit wait in the kernel's accept queue, which costs nothing and loses none;
//! `waiting` has what happens while no slot is free, `rate` the limits of rates. A pause ends when a slot is freed or the
//! rate allows one more; nothing polls.

mod rate;
mod suspension;
mod waiting;

pub use suspension::ListenState;
pub(super) use suspension::Suspension;

use super::Stops;
use super::context::{WorkerContext, spare_descriptor};
use super::hand_off::Accepted;
use super::relay::{Kind, Watched};
use super::session::Session;
use super::session_stats::SessionStats;
use crate::live::slot::{ConnLimits, ConnSlot};
use crate::live::{Cause, Phase, ShortageStep, Termination};
use crate::state::{Frontend, FrontendId};
use crate::sys::accept::{self, Connection, Failure};
use crate::sys::limits::{is_out_of_descriptors, out_of_descriptors};
use crate::sys::listen_fds;
use crate::sys::socket;
use rate::{RatePlace, Rates};
use socket2::Socket;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use suspension::Listens;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waiting::{InHand, InHandPlace, Kept, Waiting};

/// How long a shortage of descriptors may last before the waiting clients are refused.
const SHORTAGE_MAX: Duration = Duration::from_secs(1);

/// How long a handshake that has begun may take when its socket closes.
const HANDSHAKE_MAX: Duration = Duration::from_secs(1);

/// Identifies a listening socket for the life of the process. All shards of one address have the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u64);

/// One worker's share of a listening address.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Never given twice.
    pub id: ListenerId,
    /// Its frontend.
    pub frontend: FrontendId,
    /// Listening, non-blocking. Control keeps it too, for reloads.
    pub socket: Arc<Socket>,
    /// Whether it is a unix socket.
    pub unix: bool,
    /// What control and the workers tell each other of it.
    pub state: Arc<ListenState>,
}

/// What becomes of the connections that wait in a socket that closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// Another listener has the same socket and accepts them.
    Moved,
    /// What is queued is accepted first.
    Drained,
    /// The same, and handshakes that have begun are finished: other sockets listen on the same port, and clients are
    /// not to notice that one of them closes.
    Overlapped,
}

/// What ends accepting. All sockets that a worker has of one listener share it.
#[derive(Debug, Clone)]
pub(super) struct StopAccepting {
    /// When cancelled: accept only what is queued already.
    drain: CancellationToken,
    /// Cancelled before `drain` when another process or another listener has the same socket and accepts what
    /// is queued.
    queue_moved: CancellationToken,
    /// The frontend as it was last, after a reload has removed it.
    last: Rc<RefCell<Option<Arc<Frontend>>>>,
    /// Whether handshakes that have begun are finished.
    overlapped: Rc<Cell<bool>>,
}

impl StopAccepting {
    /// Ends when the worker's `stops` say so, or by [`StopAccepting::now`].
    pub(super) fn new(stops: &Stops) -> Self {
        Self {
            drain: stops.drain.child_token(),
            queue_moved: CancellationToken::new(),
            last: Rc::default(),
            overlapped: Rc::default(),
        }
    }

    /// Another process serves. Without `left` it has this socket too, and accepts what is queued.
    pub(super) fn handed_over(&self, left: bool) {
        if left {
            self.overlapped.set(true);
        } else {
            self.queue_moved.cancel();
        }
    }

    /// Ends accepting. `last`: the frontend as it was last, when a reload has removed it.
    pub(super) fn now(&self, last: Option<Arc<Frontend>>, how: Closing) {
        *self.last.borrow_mut() = last;
        match how {
            Closing::Moved => self.queue_moved.cancel(),
            Closing::Drained => {}
            Closing::Overlapped => self.overlapped.set(true),
        }
        self.drain.cancel();
    }
}

/// Accepts until `stop`, then accepts what was queued at that time: closing a listening socket would discard
/// it. When the queue has moved, it accepts nothing more.
pub(super) async fn run(
    listener: Listener,
    worker: Rc<WorkerContext>,
    sessions: TaskTracker,
    (stop, suspension): (StopAccepting, Rc<Suspension>),
) -> io::Result<()> {
    let Listener {
        id: _,
        frontend,
        socket,
        unix,
        state,
    } = listener;
    let Some(frontend) = worker.read(|snapshot| snapshot.frontend(frontend).cloned()) else {
        // A later reload has removed it before this worker heard of it.
        return Ok(());
    };
    let kind = if unix { Kind::Unix } else { Kind::Tcp };
    suspension.follow(frontend.listens(), None);
    let listens = Listens::new(state, &socket);
    let socket = Watched::new(&worker.relay, socket)?;
    let mut acceptor = Acceptor {
        frontend: RefCell::new(frontend),
        kind,
        socket,
        worker,
        sessions,
        stop,
        suspension,
        listens,
        rates: Cell::default(),
        kept: RefCell::default(),
        shortage: Cell::new(None),
    };
    acceptor.run().await?;
    if acceptor.stop.overlapped.get() && !acceptor.suspension.is_on() {
        acceptor.finish_handshakes().await?;
    }
    Ok(())
}

/// Begins the session of a connection.
pub(super) fn begin(accepted: Accepted, worker: &Rc<WorkerContext>, sessions: &TaskTracker) {
    let Accepted {
        client,
        kind,
        peer,
        slot,
        header,
    } = accepted;
    let id = worker.pending.number(worker.peers.position());
    let stats = SessionStats::accepted(id, slot, peer, &worker.worker_stats);
    if header.as_ref().is_none_or(|rule| !rule.concerns(peer)) {
        stats.enter_frontend(&worker.worker_stats);
    }
    Session::spawn((worker, sessions), (client, kind, header), stats, None);
}

struct Acceptor {
    /// The frontend of the newest snapshot that was read.
    frontend: RefCell<Arc<Frontend>>,
    kind: Kind,
    socket: Watched<Arc<Socket>>,
    worker: Rc<WorkerContext>,
    sessions: TaskTracker,
    stop: StopAccepting,
    /// Whether the frontend is disabled.
    suspension: Rc<Suspension>,
    /// Whether the socket listens.
    listens: Listens,
    /// The limits of rates, as they were read last.
    rates: Cell<Rates>,
    /// A connection that waits until the frontend is enabled.
    kept: RefCell<Option<Kept>>,
    /// Since when a shortage on this machine has prevented accepting.
    shortage: Cell<Option<Instant>>,
}

impl accept::Acceptor for Acceptor {
    /// The frontend and the limits that the connection is admitted by, and its place where rates are limited.
    type Room = (Arc<Frontend>, ConnLimits, Option<RatePlace>);

    fn room(&self) -> Option<Self::Room> {
        let (frontend, limits) = self.now();
        if self.is_full(&frontend, limits) {
            return None;
        }
        let place = if self.is_rate_limited() {
            Some(self.rate_place(&frontend)?)
        } else {
            None
        };
        Some((frontend, limits, place))
    }

    async fn wait_for_room(&self, stop: &CancellationToken) -> Option<Self::Room> {
        loop {
            let (slot, in_hand) = self.wait_for_slot(stop).await;
            // The configuration may have changed during the wait, so it is read again.
            if let Some(InHand { connection, place }) = in_hand {
                let of = (connection, Some(place));
                let now = self.now();
                if let Some(place) = self.rate_place(&now.0) {
                    place.used();
                }
                self.admit_or_keep(of, now).await;
            }
            if !slot {
                return None;
            }
            if let Some(room) = self.room() {
                return Some(room);
            }
        }
    }

    /// The next connection, unless the descriptor for it is another's.
    fn accept(&self) -> io::Result<Connection> {
        if self.worker.worker_stats.global.may_take_descriptors() {
            let accepted = socket::accept(self.socket.get_ref());
            accepted.map_err(|error| self.suspension.explain(error, self.listens.state()))
        } else {
            Err(out_of_descriptors())
        }
    }

    /// Gives a connection its slot and its session.
    async fn admit(&self, connection: Connection, (frontend, limits, place): Self::Room) {
        if let Some(place) = place {
            place.used();
        }
        self.admit_or_keep((connection, None), (frontend, limits))
            .await;
    }

    /// `accept` has failed, mostly by a shortage on this machine: reports it at most once a second and pauses.
    /// Refuses the waiting clients when the shortage has lasted for [`SHORTAGE_MAX`].
    async fn pause(&self, error: &io::Error, failure: Failure) {
        let worker_stats = &self.worker.worker_stats;
        self.count_pause();
        if let Failure::Shortage(shortage) = failure {
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
        tokio::select! {
            () = self.worker.timers.sleep(accept::PAUSE) => {}
            () = waiting.0.freed.notified() => {}
        }
    }

    /// Not when another listener has the queue, sessions may not go on, or the frontend accepts nothing. The clients of
    /// a unix socket whose frontend is disabled stay in the queue.
    fn may_drain(&self) -> bool {
        let ended = self.stop.queue_moved.is_cancelled() || self.worker.kill.is_cancelled();
        let stays = self.suspension.is_on() && matches!(self.kind, Kind::Unix);
        let none_accepted = if self.suspension.is_on() {
            self.room().is_none()
        } else {
            self.never_accepts_again()
        };
        !ended && !stays && !none_accepted
    }
}

impl Acceptor {
    /// The same for one that is counted already, and may have been in hand.
    async fn admit_or_keep(
        &self,
        ((client, peer), place): (Connection, Option<InHandPlace>),
        (frontend, limits): (Arc<Frontend>, ConnLimits),
    ) {
        self.shortage.set(None);
        // Another worker may have taken the last slot meanwhile. Then this connection waits here, and the
        // others wait in the kernel.
        let slot = match self.take(frontend, limits) {
            Some(slot) => slot,
            None => match self.slot().await {
                Some(taken) => taken,
                // It waits or ends like those in the kernel's queue.
                None => return self.keep((client, peer), place),
            },
        };
        let accepted = Accepted {
            client,
            kind: self.kind,
            peer,
            slot,
            header: self.listens.state().header(),
        };
        let load = &self.worker.worker_stats.global.load;
        if let Some(accepted) = self.worker.peers.hand_over(accepted, load) {
            begin(accepted, &self.worker, &self.sessions);
        }
    }

    /// Accepts the connections whose handshakes have begun. New ones go to other sockets.
    async fn finish_handshakes(&self) -> io::Result<()> {
        let is_shared = listen_fds::others_have_them();
        if is_shared || socket::leave_address(self.socket.get_ref()).is_err() {
            // The kernel resets them then, as at any close.
            return Ok(());
        }
        let over = CancellationToken::new();
        let accepting = accept::run(&self.socket, self, &over);
        let limit = async {
            let handshakes = self.worker.timers.sleep(HANDSHAKE_MAX);
            self.worker.kill.run_until_cancelled(handshakes).await;
            over.cancel();
        };
        let (accepted, ()) = tokio::join!(accepting, limit);
        accepted
    }

    /// The frontend and the limits as they are now. A frontend that a reload has removed still accepts what is
    /// queued for it.
    fn now(&self) -> (Arc<Frontend>, ConnLimits) {
        let mut frontend = self.frontend.borrow_mut();
        let removed = self.stop.last.borrow();
        let (global, process) = self.worker.read(|snapshot| {
            let now = snapshot.frontend(frontend.id).or(removed.as_ref());
            if let Some(now) = now
                && !Arc::ptr_eq(now, &frontend)
            {
                *frontend = Arc::clone(now);
            }
            (snapshot.maxconn, snapshot.rate_limits.lowest())
        });
        self.rates.set(Rates {
            process,
            frontend: frontend.spec.rate_limit_sessions.unwrap_or(0),
        });
        let limits = ConnLimits {
            global,
            frontend: frontend.maxconn,
        };
        (Arc::clone(&frontend), limits)
    }

    /// Whether accepting ends although there is no slot. The frontend is disabled and does not wait for one, or its
    /// `maxconn` is 0: then no slot will ever be free, because no session that ends frees one. What waits in the queue
    /// ends when the socket is closed or stops listening, as in HAProxy.
    fn never_accepts_again(&self) -> bool {
        if self.stop.queue_moved.is_cancelled() {
            return false;
        }
        let none = || self.now().1.frontend == Some(0);
        self.suspension.is_on() || (self.stop.drain.is_cancelled() && none())
    }

    fn take(&self, frontend: Arc<Frontend>, limits: ConnLimits) -> Option<ConnSlot<Frontend>> {
        let worker_stats = &self.worker.worker_stats;
        ConnSlot::take(&worker_stats.global, frontend, limits, &worker_stats.token)
    }

    /// Accepts and closes the queued connections one by one, with the worker's spare descriptor: there is none
    /// for a session.
    fn refuse_waiting(&self) {
        for _ in 0..accept::BATCH_MAX {
            let (frontend, limits) = self.now();
            self.worker.spare.borrow_mut().take();
            let accepted = socket::accept(self.socket.get_ref());
            let peer = accepted.map(|(client, peer)| {
                socket::close_in_order(client);
                peer
            });
            *self.worker.spare.borrow_mut() = spare_descriptor();
            let Ok(peer) = peer else {
                return;
            };
            if let Some(slot) = self.take(frontend, limits) {
                let end = Termination::new(Cause::Resource, Phase::Connect);
                self.count_ended(slot, peer, &end);
            }
        }
    }

    /// Counts and logs a client that has come to its end without a session.
    fn count_ended(&self, slot: ConnSlot<Frontend>, peer: Option<SocketAddr>, end: &Termination) {
        let id = self.worker.pending.number(self.worker.peers.position());
        let stats = &self.worker.worker_stats;
        SessionStats::open(id, slot, peer, stats).finish(end, stats);
    }
}
