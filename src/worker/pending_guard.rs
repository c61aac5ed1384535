//! A session's hold of its record among the [pending](super::pending) sessions. Runs on a worker.

use super::context::WorkerContext;
use super::pending::{Event, PendingSession};
use super::session_stats::SessionStats;
use std::rc::Rc;
use std::task::{Context, Poll};

/// A session's record. Dropping it, as a panic does, gives the record back and counts the session out.
pub(super) struct PendingGuard {
    pub(super) worker: Rc<WorkerContext>,
    /// `None` once the record was given back.
    key: Option<usize>,
}

impl PendingGuard {
    /// A record for a session that begins; `client` is its client's descriptor.
    pub(super) fn take(worker: Rc<WorkerContext>, stats: SessionStats, client: i32) -> Self {
        let key = Some(worker.pending.insert(stats, client));
        Self { worker, key }
    }

    /// Looks at the record, or writes in it.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut PendingSession) -> T) -> T {
        let key = self.key.expect("given back by its owner, which ends it");
        self.worker.pending.with(key, look)
    }

    /// What has happened to the session, or to its connections.
    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<Event> {
        self.with(|session| session.poll(context))
    }

    /// Gives the record back, but for what the session is counted on.
    pub(super) fn leave(mut self) -> SessionStats {
        self.give_back().expect("a record is given back once").stats
    }

    fn give_back(&mut self) -> Option<PendingSession> {
        Some(self.worker.pending.remove(self.key.take()?))
    }
}

impl Drop for PendingGuard {
    fn drop(&mut self) {
        drop(self.give_back());
    }
}
