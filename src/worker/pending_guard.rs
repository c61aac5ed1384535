//! A session's ownership of its record among the [pending](super::pending) sessions. Runs on a worker.

use super::context::WorkerContext;
use super::pending::{Event, PendingSession};
use super::session_stats::SessionStats;
use std::rc::Rc;
use std::task::{Context, Poll};

/// A session's record. Dropping it, also by a panic, gives the record back and removes the session from the
/// gauges.
pub(super) struct PendingGuard {
    pub(super) worker: Rc<WorkerContext>,
    /// `None` once the record is given back.
    key: Option<usize>,
}

impl PendingGuard {
    /// Takes a record for a session that begins; `client` is the client's descriptor.
    pub(super) fn take(worker: Rc<WorkerContext>, stats: Box<SessionStats>, client: i32) -> Self {
        let key = Some(worker.pending.insert(stats, client));
        Self { worker, key }
    }

    /// Accesses the record.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut PendingSession) -> T) -> T {
        let key = self.key.expect("given back by its owner, which ends it");
        self.worker.pending.with(key, look)
    }

    /// What has happened to the session, or to its connections.
    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<Event> {
        self.with(|session| session.poll(context))
    }

    /// Gives the record back and keeps the session's statistics.
    pub(super) fn leave(mut self) -> Box<SessionStats> {
        self.give_back().expect("a record is given back once").stats
    }

    /// Gives the record back and keeps it.
    pub(super) fn leave_with_record(mut self) -> PendingSession {
        self.give_back().expect("a record is given back once")
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
