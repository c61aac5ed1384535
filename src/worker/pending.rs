//! The sessions of one worker that no server has answered yet: everything that they have but their
//! sockets, kept where they can be listed and ended. Runs on a worker.
//!
//! An established session is a record in the relay; before that it is a task, and this is the
//! register of those tasks. A session takes a record when it begins ([`super::pending_guard`]), and
//! gives it back when a server has answered, or when the session is over.
//!
//! Invariant: the register is borrowed for the length of a look, never across an await.

use super::connect_policy::AttemptSlot;
use super::order::ServerSet;
use super::relay::Connecting;
use super::server_connect::ServerConnect;
use super::session_id::SessionId;
use super::session_stats::SessionStats;
use super::sessions::{Cursor, PLACES_MAX, Page, VIEWS_MAX, View, Wanted};
use crate::live::Cause;
use crate::state::BackendId;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::io;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// Free records that are kept: beyond that an empty register is given back.
const SPARE_RECORDS_MAX: usize = 1024;

/// The register of a worker.
#[derive(Debug, Default)]
pub(super) struct PendingSessions {
    records: RefCell<Slab<PendingSession>>,
    /// Sessions that this worker has had.
    count: Cell<u64>,
    /// All are to end, those too that are still to come. Not asked of the worker's `kill` token, which is a lock
    /// that all workers share.
    closed: Cell<bool>,
}

/// A session that no server has answered yet.
#[derive(Debug)]
pub(super) struct PendingSession {
    /// What it is counted on.
    pub(super) stats: SessionStats,
    /// Its way to a server, once it is routed.
    pub(super) connect: Option<ServerConnect<Connecting>>,
    /// The client's descriptor.
    client: i32,
    /// What it was ordered and has not done yet.
    orders: Orders,
    /// Its task, once it waits.
    waker: Option<Waker>,
}

/// Orders to a session.
#[derive(Debug, Default)]
struct Orders {
    end: Option<Cause>,
    leave: Option<(ServerSet, Cause)>,
    servers_changed: bool,
}

/// What a session that connects has waited for.
#[derive(Debug)]
pub(super) enum Event {
    /// It is to end.
    End(Cause),
    /// It is to try others than these servers.
    Leave(ServerSet, Cause),
    /// Servers of its backend have come up or gone down, or the list of them has changed.
    ServersChanged,
    /// A server has answered.
    Answered(AttemptSlot),
    /// A connection has failed.
    Failed(AttemptSlot, io::Error),
}

impl PendingSessions {
    /// The number of the next session, `worker` being this one and its number among all.
    pub(super) fn number(&self, worker: (usize, usize)) -> SessionId {
        self.count.set(self.count.get() + 1);
        SessionId::new(self.count.get(), worker)
    }

    /// Ends the session, if it is here.
    pub(super) fn end(&self, id: SessionId) -> bool {
        let mut records = self.records.borrow_mut();
        let mut all = records.iter_mut().map(|(_, session)| session);
        let found = all.find(|session| session.stats.id == id);
        found
            .map(|session| session.order(|orders| orders.end = Some(Cause::Killed)))
            .is_some()
    }

    /// Ends all sessions, and those that are still to come.
    pub(super) fn end_all(&self) {
        self.closed.set(true);
        for (_, session) in &mut *self.records.borrow_mut() {
            session.order(|orders| orders.end = Some(Cause::Killed));
        }
    }

    /// Ends the sessions that connect to one of these servers. Those that an operator ends, end; those
    /// that a change of the servers' health ends, go on to another server.
    pub(super) fn end_on(&self, servers: &ServerSet, cause: Cause) {
        for (_, session) in &mut *self.records.borrow_mut() {
            let connect = session.connect.as_ref();
            if connect.is_some_and(|connect| connect.is_asking(servers)) {
                session.order(|orders| match cause {
                    Cause::Down | Cause::Up => orders.leave = Some((servers.clone(), cause)),
                    _ => orders.end = Some(cause),
                });
            }
        }
    }

    /// Tells the sessions of these backends that their servers have changed.
    pub(super) fn servers_changed(&self, backends: &[BackendId]) {
        for (_, session) in &mut *self.records.borrow_mut() {
            let connect = session.connect.as_ref();
            if connect.is_some_and(|connect| backends.contains(&connect.backend())) {
                session.order(|orders| orders.servers_changed = true);
            }
        }
    }

    /// Takes a record for a session that begins; its key.
    pub(super) fn insert(&self, stats: SessionStats, client: i32) -> usize {
        let orders = Orders {
            end: self.closed.get().then_some(Cause::Killed),
            ..Orders::default()
        };
        self.records.borrow_mut().insert(PendingSession {
            stats,
            connect: None,
            client,
            orders,
            waker: None,
        })
    }

    /// Looks at a record, or writes in it.
    pub(super) fn with<T>(&self, key: usize, look: impl FnOnce(&mut PendingSession) -> T) -> T {
        look(&mut self.records.borrow_mut()[key])
    }

    /// Gives a record back. Its end may wake whoever waits for a slot, so it is the caller's to drop.
    pub(super) fn remove(&self, key: usize) -> PendingSession {
        let mut records = self.records.borrow_mut();
        let session = records.remove(key);
        if records.is_empty() && records.capacity() > SPARE_RECORDS_MAX {
            records.shrink_to_fit();
        }
        session
    }

    /// A page of those that are `wanted`, from record `from` on; after the last of them come the
    /// relay's.
    pub(super) fn page(&self, from: usize, wanted: &Wanted) -> Page {
        let records = self.records.borrow();
        let now = Instant::now();
        let mut views = Vec::new();
        let mut place = from;
        let end = records.capacity().min(from.saturating_add(PLACES_MAX));
        while place < end && views.len() < VIEWS_MAX {
            if let Some(session) = records.get(place) {
                views.extend(session.view(wanted, now));
            }
            place += 1;
        }
        let relayed = place >= records.capacity();
        let place = if relayed { 0 } else { place };
        let next = Some(Cursor { relayed, place });
        Page { views, next }
    }
}

impl PendingSession {
    fn order(&mut self, order: impl FnOnce(&mut Orders)) {
        order(&mut self.orders);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// What has happened: orders first, so that what is to end does not go on because a server
    /// answers in that moment.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        if let Some(cause) = self.orders.end {
            return Poll::Ready(Event::End(cause));
        }
        if let Some((servers, cause)) = self.orders.leave.take() {
            return Poll::Ready(Event::Leave(servers, cause));
        }
        if std::mem::take(&mut self.orders.servers_changed) {
            return Poll::Ready(Event::ServersChanged);
        }
        if let Some(connect) = &self.connect {
            for slot in AttemptSlot::BOTH {
                let connection = connect.connection(slot);
                match connection.map(|connection| connection.poll_answered(context)) {
                    Some(Poll::Ready(Ok(()))) => return Poll::Ready(Event::Answered(slot)),
                    Some(Poll::Ready(Err(error))) => {
                        return Poll::Ready(Event::Failed(slot, error));
                    }
                    Some(Poll::Pending) | None => {}
                }
            }
        }
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    fn view(&self, wanted: &Wanted, now: Instant) -> Option<View> {
        let until = self.connect.as_ref().map(ServerConnect::deadline);
        let left = until.map(|until| until.saturating_duration_since(now));
        let asked_for = wanted.has(&self.stats) && wanted.has_time(left);
        asked_for.then(|| View::new(&self.stats, self.client, left))
    }
}
