//! Guards, the only way to change a gauge. Taken and dropped on a worker, except for [`ConnSlot::reserve`].
//!
//! A [`ConnSlot`] is a client connection's slot in the process and its frontend, a [`BackendSlot`] a session's slot on
//! a backend, a [`Slot`] one on a server ([`super::queue`]). Dropping one frees the slot, however the session ended.

use super::objects::{BackendLive, FrontendLive, GlobalLive, ServerLive};
pub use super::queue::Slot;
use super::queue::SlotLimit;
use super::sharded::WorkerToken;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// A client connection's slot in the process and in its frontend. It holds whatever has the frontend's counters, so
/// that a session has one reference to its frontend.
#[derive(Debug)]
pub struct ConnSlot<F: AsRef<FrontendLive>> {
    global: Arc<GlobalLive>,
    frontend: Arc<F>,
    /// Number of the worker that it counts for.
    worker: usize,
}

/// The limits that a [`ConnSlot`] is taken under.
#[derive(Debug, Clone, Copy)]
pub struct ConnLimits {
    /// Most sessions of the process.
    pub global: u32,
    /// Most sessions of the frontend; `None`: only the limit of the process applies.
    pub frontend: Option<u32>,
}

impl ConnLimits {
    /// No limits.
    pub const NONE: Self = Self {
        global: u32::MAX,
        frontend: None,
    };
}

impl<F: AsRef<FrontendLive>> ConnSlot<F> {
    /// A slot, or `None` when the process or the frontend is full.
    ///
    /// # Hot path
    pub fn take(
        global: &Arc<GlobalLive>,
        frontend: Arc<F>,
        limits: ConnLimits,
        token: &WorkerToken,
    ) -> Option<Self> {
        global.active.raise_below(limits.global)?;
        let live = (*frontend).as_ref();
        let count = match limits.frontend {
            Some(limit) => live.active.raise_below(limit),
            None => Some(live.active.raise()),
        };
        let Some(now) = count else {
            global.active.lower();
            return None;
        };
        live.traffic.mine(token).smax.see(now);
        let worker = token.shard();
        global.load.of(worker).raise();
        Some(Self {
            global: Arc::clone(global),
            frontend,
            worker,
        })
    }

    /// A slot for a session that its frontend has admitted in another process, or `None` when this process has
    /// `limit` sessions. On any thread; the `worker` that goes on with the session calls
    /// [`ConnSlot::count_maximum`].
    pub fn reserve(
        global: &Arc<GlobalLive>,
        frontend: Arc<F>,
        limit: u32,
        worker: usize,
    ) -> Option<Self> {
        global.active.raise_below(limit)?;
        (*frontend).as_ref().active.raise();
        global.load.of(worker).raise();
        Some(Self {
            global: Arc::clone(global),
            frontend,
            worker,
        })
    }

    /// Has the sessions of the frontend count for their maximum.
    pub fn count_maximum(&self, token: &WorkerToken) {
        let frontend = self.live();
        let now = frontend.active.get();
        frontend.traffic.mine(token).smax.see(now);
    }

    /// A place beside all limits, for a connection that has ended before there was one for it: it is
    /// counted, but is no part of the maximum of sessions.
    pub fn over_limits(global: &Arc<GlobalLive>, frontend: Arc<F>, token: &WorkerToken) -> Self {
        global.active.raise();
        (*frontend).as_ref().active.raise();
        let worker = token.shard();
        global.load.of(worker).raise();
        Self {
            global: Arc::clone(global),
            frontend,
            worker,
        }
    }

    /// Counts the session for another worker from now on.
    pub fn move_to(&mut self, worker: usize) {
        self.global.load.of(worker).raise();
        self.global.load.of(self.worker).lower();
        self.worker = worker;
    }

    /// Whatever has the frontend's counters.
    pub fn frontend(&self) -> &Arc<F> {
        &self.frontend
    }

    fn live(&self) -> &FrontendLive {
        (*self.frontend).as_ref()
    }

    /// The counters of the process.
    pub fn global(&self) -> &GlobalLive {
        &self.global
    }

    /// Sessions of the process now, this one included.
    pub fn global_active(&self) -> u32 {
        self.global.active.get()
    }
}

impl<F: AsRef<FrontendLive>> Drop for ConnSlot<F> {
    fn drop(&mut self) {
        self.global.load.of(self.worker).lower();
        self.live().active.lower();
        self.global.active.lower();
        // Pairs with the increment of `waiting`, after which its owner reads the gauges again: either it reads
        // the lowered gauge, or this reads the increment.
        std::sync::atomic::fence(SeqCst);
        if self.global.waiting.load(Relaxed) != 0 {
            self.global.freed.notify_waiters();
        }
    }
}

/// A session's slot on a backend.
#[derive(Debug)]
pub struct BackendSlot(Arc<BackendLive>);

impl BackendSlot {
    /// Counts a session on `backend`.
    pub fn take(backend: &Arc<BackendLive>, token: &WorkerToken) -> Self {
        let now = backend.active.raise();
        backend.traffic.mine(token).smax.see(now);
        Self(Arc::clone(backend))
    }

    /// The backend.
    pub fn live(&self) -> &Arc<BackendLive> {
        &self.0
    }
}

impl Drop for BackendSlot {
    fn drop(&mut self) {
        self.0.active.lower();
    }
}

impl Slot {
    /// Counts a session on `server`, whatever its limit is.
    pub fn take(server: &Arc<ServerLive>, token: &WorkerToken) -> Self {
        let slot = Self::over_limit(server);
        slot.count_maximum(token);
        slot
    }

    /// A slot on `server`, or `None`: it has as many sessions as it may have.
    pub fn take_below(
        server: &Arc<ServerLive>,
        limit: SlotLimit,
        token: &WorkerToken,
    ) -> Option<Self> {
        let slot = Self::below(server, limit)?;
        slot.count_maximum(token);
        Some(slot)
    }

    /// Has the sessions of the server count for their maximum.
    pub fn count_maximum(&self, token: &WorkerToken) {
        let server = self.live();
        server.traffic.mine(token).smax.see(server.active.get());
    }
}

/// A connection's slot on the stats proxy. It does not count against the process's limit.
#[derive(Debug)]
pub struct StatsSlot(Arc<FrontendLive>);

impl StatsSlot {
    /// A slot, or `None` when `limit` are taken.
    pub fn take(stats: &Arc<FrontendLive>, limit: u32, token: &WorkerToken) -> Option<Self> {
        let now = stats.active.raise_below(limit)?;
        stats.traffic.mine(token).smax.see(now);
        Some(Self(Arc::clone(stats)))
    }

    /// The stats proxy.
    pub fn live(&self) -> &Arc<FrontendLive> {
        &self.0
    }
}

impl Drop for StatsSlot {
    fn drop(&mut self) {
        self.0.active.lower();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_session_that_moves_counts_for_its_new_worker() {
        let global = Arc::new(GlobalLive::new(Instant::now(), 2));
        let frontend = Arc::new(FrontendLive::new("f".into(), 2));
        let limits = ConnLimits {
            global: 3,
            frontend: None,
        };
        let mut slot = ConnSlot::take(&global, frontend, limits, &WorkerToken::new(0)).unwrap();
        let loads = || [0, 1].map(|worker| global.load.of(worker).get());
        assert_eq!(loads(), [1, 0]);
        slot.move_to(1);
        assert_eq!(loads(), [0, 1]);
        drop(slot);
        assert_eq!(loads(), [0, 0]);
    }

    #[test]
    fn limits_hold_and_every_slot_is_freed() {
        let token = WorkerToken::new(0);
        let global = Arc::new(GlobalLive::new(Instant::now(), 1));
        let frontend = Arc::new(FrontendLive::new("f".into(), 1));
        let limits = ConnLimits {
            global: 3,
            frontend: Some(2),
        };
        let take = || ConnSlot::take(&global, Arc::clone(&frontend), limits, &token);
        let (one, two) = (take(), take());
        assert!(one.is_some() && two.is_some());
        assert!(take().is_none(), "the frontend is full");
        assert_eq!(
            global.active.get(),
            2,
            "a refusal leaves no trace in the process's gauge"
        );
        drop(one);
        assert!(take().is_some());
        drop(two);
        assert_eq!((global.active.get(), frontend.active.get()), (0, 0));
        assert_eq!(global.load.of(0).get(), 0);
        assert_eq!(frontend.traffic.max(|traffic| &traffic.smax), 2);
    }
}
