//! The life of one client connection, from accept to hand-over. Runs on a worker.

use super::connect::Attempt;
use super::hand_off::PeerWorkers;
use super::pending::{PendingGuard, PendingSessions};
use super::relay::{Connecting, Established, Kind, Relay};
use super::server_connect::ServerConnect;
use super::session_stats::{SessionStats, WorkerStats};
use crate::live::{Cause, Phase, Termination};
use crate::state::{Backend, ControlHandle, FrontendId, Snapshot};
use arc_swap::ArcSwap;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use tokio_util::sync::CancellationToken;

/// What every session of a worker works with.
pub(super) struct WorkerContext {
    pub(super) worker_stats: Rc<WorkerStats>,
    pub(super) relay: Rc<Relay>,
    /// Sessions that are not the relay's yet.
    pub(super) pending: PendingSessions,
    pub(super) control: ControlHandle,
    pub(super) peers: PeerWorkers,
    /// Cancelled when sessions may not go on.
    pub(super) kill: CancellationToken,
    snapshot: RefCell<arc_swap::Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
}

impl WorkerContext {
    pub(super) fn new(
        worker_stats: Rc<WorkerStats>,
        relay: Rc<Relay>,
        (control, peers): (ControlHandle, PeerWorkers),
        kill: CancellationToken,
        snapshot: Arc<ArcSwap<Snapshot>>,
    ) -> Self {
        let snapshot = RefCell::new(arc_swap::Cache::new(snapshot));
        Self {
            worker_stats,
            relay,
            pending: PendingSessions::default(),
            control,
            peers,
            kill,
            snapshot,
        }
    }

    /// Reads the newest snapshot. What is to outlive `read` is cloned out of it, node by node: a
    /// clone of the whole would be a write to one cache line that all workers share.
    ///
    /// # Hot path: an atomic load and a compare, unless it has changed.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Snapshot) -> T) -> T {
        read(self.snapshot.borrow_mut().load())
    }
}

/// One client connection.
pub(super) struct Session {
    client: OwnedFd,
    kind: Kind,
    /// Where its account is until the relay has it.
    pending: PendingGuard,
}

impl Session {
    /// A connection that step 1 has accepted.
    pub(super) fn new(
        worker: Rc<WorkerContext>,
        (client, kind): (OwnedFd, Kind),
        stats: SessionStats,
    ) -> Self {
        let pending = PendingGuard::take(worker, stats, client.as_raw_fd());
        Self {
            client,
            kind,
            pending,
        }
    }

    /// Lives the connection's life; a panic on the way ends this session and no other.
    ///
    /// In a box: what the runtime copies about several times is the box and not the life.
    pub(super) fn live_guarded(self) -> impl Future<Output = ()> {
        let worker = Rc::clone(&self.pending.worker);
        let frontend = self.pending.stats(|stats| stats.frontend.id);
        guarded(worker, frontend, Box::pin(self.live()))
    }

    /// Lives the connection's life up to the relay, which takes it over.
    async fn live(self) {
        match self.run().await {
            Ok(server) => {
                let worker = Rc::clone(&self.pending.worker);
                worker.relay.adopt(Established {
                    client: (self.client, self.kind),
                    server,
                    stats: self.pending.leave(),
                    prefix: [None, None],
                });
            }
            Err(end) => self.end(&end),
        }
    }

    /// The life of one client connection up to the relay. Start reading rlb here.
    ///
    /// Step 1, accept, was the caller's. Who the client is (2) came with its address; nothing asks
    /// what it says (3 inspect) or wants the server told (8 announce) yet.
    async fn run(&self) -> Result<Connecting, Termination> {
        let backend = self.route()?; //                          4 where to: a backend
        let attempt = self.reach(&backend).await?; //            5 select, 6 reserve, 7 connect
        Ok(self.establish(attempt)) //                           9 the relay moves the bytes
    } //                                                        10 finish, whenever it ends

    /// Step 4.
    fn route(&self) -> Result<Arc<Backend>, Termination> {
        let PendingGuard { worker, .. } = &self.pending;
        let id = self.pending.stats(|stats| stats.frontend.default_backend);
        let Some(backend) = worker.read(|snapshot| snapshot.backend(id).cloned()) else {
            return Err(Termination::new(Cause::Server, Phase::Connect));
        };
        self.pending
            .stats(|stats| stats.enter_backend(&backend, &worker.worker_stats));
        Ok(backend)
    }

    /// Steps 5 to 7.
    async fn reach(&self, backend: &Backend) -> Result<Attempt, Termination> {
        ServerConnect::new(&self.pending, &self.client, backend)
            .server()
            .await
    }

    /// A server has answered: the session is counted on it.
    fn establish(&self, attempt: Attempt) -> Connecting {
        let server = Arc::clone(&attempt.server);
        let (socket, slot) = attempt.into_parts();
        let worker_stats = &self.pending.worker.worker_stats;
        self.pending
            .stats(|stats| stats.enter_server(&server, slot, worker_stats));
        socket
    }

    /// No server was reached. An orderly end tells the client so at once; what it may have sent
    /// unread makes the kernel send a reset, which says the same.
    fn end(self, end: &Termination) {
        drop(self.client);
        let worker = Rc::clone(&self.pending.worker);
        self.pending.leave().finish(end, &worker.worker_stats);
    }
}

/// A session's life, which a panic ends alone.
async fn guarded(
    worker: Rc<WorkerContext>,
    frontend: FrontendId,
    mut life: Pin<Box<impl Future<Output = ()>>>,
) {
    let survived =
        poll_fn(
            |context| match catch_unwind(AssertUnwindSafe(|| life.as_mut().poll(context))) {
                Ok(poll) => poll.map(|()| true),
                Err(_) => Poll::Ready(false),
            },
        );
    if !survived.await {
        tracing::error!("a session has ended by an internal error");
        worker.read(|snapshot| {
            if let Some(frontend) = snapshot.frontend(frontend) {
                frontend
                    .live
                    .traffic
                    .mine(&worker.worker_stats.token)
                    .eint
                    .add(1);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_runtime_copies_of_a_session_is_small() {
        fn size<S, F>(_: impl Fn(S) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size(Session::live_guarded) <= 128);
    }
}
