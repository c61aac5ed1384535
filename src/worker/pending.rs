//! The sessions of one worker that no server has answered yet: their accounts, kept where they can
//! be listed and ended. Runs on a worker.
//!
//! An established session is a record in the relay; before that it is a task, and this is the
//! register of those tasks. A session takes a [`PendingGuard`] when it begins and leaves it, with its
//! account, when it is handed over or over.
//!
//! Invariant: the register is borrowed for the length of a look, never across an await.

use super::session::WorkerContext;
use super::session_id::SessionId;
use super::session_stats::SessionStats;
use super::sessions::{Cursor, PLACES_MAX, Page, VIEWS_MAX, View, Wanted};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Instant;

/// Places that are kept although nobody has one: beyond that an empty register is given back.
const SPARE_PLACES_MAX: usize = 1024;

/// The register of a worker.
#[derive(Debug, Default)]
pub(super) struct PendingSessions {
    places: RefCell<Slab<PendingSession>>,
    /// Sessions that this worker has had.
    count: Cell<u64>,
    /// All are to end, those too that are still to come. Not asked of [`WorkerContext::kill`], which is a lock
    /// that all workers share.
    closed: Cell<bool>,
}

#[derive(Debug)]
struct PendingSession {
    stats: SessionStats,
    /// The client's descriptor.
    client: i32,
    /// When the attempt to reach a server is given up.
    until: Option<Instant>,
    /// It is to end.
    ended: bool,
    /// Its task, once it waits.
    waker: Option<Waker>,
}

impl PendingSessions {
    /// The number of the next session, `worker` being this one and its number among all.
    pub(super) fn number(&self, worker: (usize, usize)) -> SessionId {
        self.count.set(self.count.get() + 1);
        SessionId::new(self.count.get(), worker)
    }

    /// Ends the session, if it is here.
    pub(super) fn end(&self, id: SessionId) -> bool {
        let mut places = self.places.borrow_mut();
        let mut all = places.iter_mut().map(|(_, session)| session);
        let found = all.find(|session| session.stats.id == id);
        found.map(PendingSession::end).is_some()
    }

    /// Ends all sessions, and those that are still to come.
    pub(super) fn end_all(&self) {
        self.closed.set(true);
        let mut places = self.places.borrow_mut();
        places.iter_mut().for_each(|(_, session)| session.end());
    }

    /// A page of those that are `wanted`, from place `from` on; after the last of them come the
    /// relay's.
    pub(super) fn page(&self, from: usize, wanted: &Wanted) -> Page {
        let places = self.places.borrow();
        let now = Instant::now();
        let mut views = Vec::new();
        let mut place = from;
        let end = places.capacity().min(from.saturating_add(PLACES_MAX));
        while place < end && views.len() < VIEWS_MAX {
            if let Some(session) = places.get(place) {
                views.extend(session.view(wanted, now));
            }
            place += 1;
        }
        let relayed = place >= places.capacity();
        let place = if relayed { 0 } else { place };
        let next = Some(Cursor { relayed, place });
        Page { views, next }
    }
}

impl PendingSession {
    fn end(&mut self) {
        self.ended = true;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn view(&self, wanted: &Wanted, now: Instant) -> Option<View> {
        let left = self.until.map(|until| until.saturating_duration_since(now));
        let asked_for = wanted.has(&self.stats) && wanted.has_time(left);
        asked_for.then(|| View::new(&self.stats, self.client, left))
    }
}

/// A session's place in the register. Dropping it, as a panic does, gives it and the account back.
pub(super) struct PendingGuard {
    pub(super) worker: Rc<WorkerContext>,
    /// `None` once it was left.
    key: Option<usize>,
}

impl PendingGuard {
    /// A place for a session that begins.
    pub(super) fn take(worker: Rc<WorkerContext>, stats: SessionStats, client: i32) -> Self {
        let session = PendingSession {
            stats,
            client,
            until: None,
            ended: worker.pending.closed.get(),
            waker: None,
        };
        let key = worker.pending.places.borrow_mut().insert(session);
        Self {
            worker,
            key: Some(key),
        }
    }

    /// Looks at the account, or writes in it.
    pub(super) fn stats<T>(&self, look: impl FnOnce(&mut SessionStats) -> T) -> T {
        self.look(|session| look(&mut session.stats))
    }

    /// Says when the attempt to reach a server is given up.
    pub(super) fn expect_until(&self, until: Instant) {
        self.look(|session| session.until = Some(until));
    }

    /// Completes when the session is to end.
    pub(super) async fn ended(&self) {
        poll_fn(|context| {
            self.look(|session| {
                if session.ended {
                    return Poll::Ready(());
                }
                match &mut session.waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    none => *none = Some(context.waker().clone()),
                }
                Poll::Pending
            })
        })
        .await;
    }

    /// Leaves the place: the account, which goes on elsewhere.
    pub(super) fn leave(mut self) -> SessionStats {
        self.give_back().expect("a place is left once").stats
    }

    fn look<T>(&self, look: impl FnOnce(&mut PendingSession) -> T) -> T {
        let mut places = self.worker.pending.places.borrow_mut();
        let key = self.key.expect("left by its owner, which ends it");
        look(&mut places[key])
    }

    fn give_back(&mut self) -> Option<PendingSession> {
        let mut places = self.worker.pending.places.borrow_mut();
        let session = places.remove(self.key.take()?);
        if places.is_empty() && places.capacity() > SPARE_PLACES_MAX {
            places.shrink_to_fit();
        }
        Some(session)
    }
}

impl Drop for PendingGuard {
    fn drop(&mut self) {
        // Outside the borrow: ending an account may wake whoever waits for its place.
        drop(self.give_back());
    }
}
