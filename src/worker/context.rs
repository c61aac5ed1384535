//! What all sessions of one worker share. Runs on that worker.

use super::hand_off::PeerWorkers;
use super::pending::PendingSessions;
use super::reactor::{Reactor, Tasks, Timers};
use super::relay::Relay;
use super::session_stats::WorkerStats;
use super::unserved::UnservedSessions;
use crate::state::{ControlHandle, Snapshot};
use arc_swap::ArcSwap;
use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What every session of a worker needs.
pub(super) struct WorkerContext {
    pub(super) worker_stats: Rc<WorkerStats>,
    pub(super) relay: Rc<Relay>,
    pub(super) tasks: Rc<Tasks>,
    pub(super) timers: Rc<Timers>,
    /// Sessions that are not established yet.
    pub(super) pending: PendingSessions,
    /// Those that have left for another process and were not given away yet.
    pub(super) unserved: UnservedSessions,
    pub(super) control: ControlHandle,
    pub(super) peers: PeerWorkers,
    /// Cancelled when all sessions are to end.
    pub(super) kill: CancellationToken,
    /// Given up for a moment to accept and close a client when no descriptor is left.
    pub(super) spare: RefCell<Option<OwnedFd>>,
    /// Connections that have been accepted and wait for a slot (`accept/waiting`).
    pub(super) in_hand: Cell<u32>,
    snapshot: RefCell<arc_swap::Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
}

impl WorkerContext {
    pub(super) fn new(
        worker_stats: Rc<WorkerStats>,
        reactor: &Reactor,
        (control, peers): (ControlHandle, PeerWorkers),
        kill: CancellationToken,
        snapshot: Arc<ArcSwap<Snapshot>>,
    ) -> Self {
        let snapshot = RefCell::new(arc_swap::Cache::new(snapshot));
        Self {
            worker_stats,
            relay: Rc::clone(&reactor.relay),
            tasks: Rc::clone(&reactor.tasks),
            timers: Rc::clone(&reactor.timers),
            pending: PendingSessions::default(),
            unserved: UnservedSessions::default(),
            control,
            peers,
            kill,
            spare: RefCell::new(spare_descriptor()),
            in_hand: Cell::new(0),
            snapshot,
        }
    }

    /// Reads the newest snapshot. Clone parts of it that must outlive `read`, never the whole: cloning the
    /// whole would write to a cache line that all workers share.
    ///
    /// # Hot path: an atomic load and a compare, unless the snapshot has changed.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Snapshot) -> T) -> T {
        read(self.snapshot.borrow_mut().load())
    }
}

/// A descriptor to give up later; `None` when there is none to be had.
pub(super) fn spare_descriptor() -> Option<OwnedFd> {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).ok()
}
