//! The register of one worker's sessions that no server has answered yet, so that they can be listed and ended.
//! Runs on a worker.
//!
//! An established session is a record in the relay; before that it is a task with a record here. A session
//! takes its record when it begins ([`super::pending_guard`]), and gives it back when a server has answered or
//! when the session is over. The record holds everything but the client's socket.
//!
//! Invariant: the register is borrowed for one access, never across an await.

use super::connect_policy::AttemptSlot;
use super::header_rule::Announced;
use super::order::ServerSet;
use super::relay::Connecting;
use super::server_connect::ServerConnect;
use super::session_id::SessionId;
use super::session_stats::SessionStats;
use super::sessions::{Cursor, PLACES_MAX, Page, VIEWS_MAX, View, Wanted};
use crate::live::Cause;
use crate::live::queue::Granted;
use crate::state::BackendId;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::io;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// Free records that are kept. Above that, the memory of an empty register is freed.
const SPARE_RECORDS_MAX: usize = 1024;

/// The register of a worker.
#[derive(Debug, Default)]
pub(super) struct PendingSessions {
    records: RefCell<Slab<PendingSession>>,
    /// Sessions that this worker has begun so far.
    count: Cell<u64>,
    /// All sessions are to end, new ones included. A field of its own, because the worker's `kill` token is a
    /// lock that all workers share.
    closed: Cell<bool>,
}

/// A session that no server has answered yet.
#[derive(Debug)]
pub(super) struct PendingSession {
    /// What it is counted on.
    pub(super) stats: Box<SessionStats>,
    /// Its state of connecting, once it is routed. Boxed because records are moved.
    pub(super) connect: Option<Box<ServerConnect<Connecting>>>,
    /// What its PROXY header has said. Boxed because few sessions have one.
    pub(super) announced: Option<Box<Announced>>,
    /// The client's descriptor.
    client: i32,
    /// The round and the pass of moving in which another process did not take it.
    pub(super) refused: (u32, u32),
    /// Orders that it has not carried out yet.
    orders: Orders,
    /// Wakes its task, once that waits.
    waker: Option<Waker>,
}

/// Orders to a session.
#[derive(Debug, Default)]
struct Orders {
    end: Option<Cause>,
    leave: Option<(ServerSet, Cause)>,
    servers_changed: bool,
    /// Another process is to have it, if it still waits for a server.
    depart: bool,
}

/// What a session that is connecting waits for.
#[derive(Debug)]
pub(super) enum Event {
    /// The session is to end.
    End(Cause),
    /// The session is to leave these servers and try others.
    Leave(ServerSet, Cause),
    /// Another process is to have the session, if it waits for a server.
    Depart,
    /// Servers of its backend have come UP or gone DOWN or got other addresses, or the list of them has changed.
    ServersChanged,
    /// A server has answered.
    Answered(AttemptSlot),
    /// A connect has failed.
    Failed(AttemptSlot, io::Error),
    /// A slot has come that it has waited for in a queue; `None`: it has to choose again.
    Granted(Option<Granted>),
}

impl PendingSessions {
    /// The number of the next session. `worker`: this worker's number, and how many there are.
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

    /// Ends all sessions, and all that begin from now on.
    pub(super) fn end_all(&self) {
        self.closed.set(true);
        for (_, session) in &mut *self.records.borrow_mut() {
            session.order(|orders| orders.end = Some(Cause::Killed));
        }
    }

    /// Orders sessions that connect to one of these servers to end. When the cause is a change of the servers'
    /// health, they leave the servers and try others instead.
    pub(super) fn end_on(&self, servers: &ServerSet, cause: Cause) {
        for (_, session) in &mut *self.records.borrow_mut() {
            let connect = session.connect.as_ref();
            if connect.is_some_and(|connect| connect.is_at(servers)) {
                session.order(|orders| match cause {
                    Cause::Down | Cause::Up => orders.leave = Some((servers.clone(), cause)),
                    _ => orders.end = Some(cause),
                });
            }
        }
    }

    /// Tells the sessions of these backends, which are in ascending order, that their servers have changed; and those
    /// that are held elsewhere and may go there.
    pub(super) fn servers_changed(&self, backends: &[BackendId]) {
        for (_, session) in &mut *self.records.borrow_mut() {
            let connect = session.connect.as_ref();
            let route = &session.stats.frontend().route;
            let concerns = |connect: &ServerConnect<_>| {
                let own = backends.binary_search(&connect.backend()).is_ok();
                own || connect.is_held() && route.leads_to(backends)
            };
            if connect.is_some_and(|connect| concerns(connect)) {
                session.order(|orders| orders.servers_changed = true);
            }
        }
    }

    /// Has those depart that wait for a server, and that another process has not refused in this round and pass. How
    /// many have not departed yet.
    pub(super) fn depart(&self, pass: (u32, u32)) -> usize {
        let mut departing = 0;
        for (_, session) in &mut *self.records.borrow_mut() {
            if session.waits_for_a_server() && session.refused != pass {
                session.order(|orders| orders.depart = true);
                departing += 1;
            }
        }
        departing
    }

    /// Takes a record for a session that begins, and returns its key.
    pub(super) fn insert(&self, stats: Box<SessionStats>, client: i32) -> usize {
        let orders = Orders {
            end: self.closed.get().then_some(Cause::Killed),
            ..Orders::default()
        };
        self.records.borrow_mut().insert(PendingSession {
            stats,
            connect: None,
            announced: None,
            client,
            refused: (0, 0),
            orders,
            waker: None,
        })
    }

    /// Accesses a record.
    pub(super) fn with<T>(&self, key: usize, look: impl FnOnce(&mut PendingSession) -> T) -> T {
        look(&mut self.records.borrow_mut()[key])
    }

    /// Gives a record back. The caller drops it: the drop may wake tasks that wait for a slot.
    pub(super) fn remove(&self, key: usize) -> PendingSession {
        let mut records = self.records.borrow_mut();
        let session = records.remove(key);
        if records.is_empty() && records.capacity() > SPARE_RECORDS_MAX {
            records.shrink_to_fit();
        }
        session
    }

    /// A page of the sessions that are `wanted`, from record `from` on. After the last page the relay's follow.
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

    /// Whether it waits for a server, and no attempt is in flight.
    pub(super) fn waits_for_a_server(&mut self) -> bool {
        let connect = self.connect.as_ref();
        connect.is_some_and(|connect| connect.waits_for_a_server())
    }

    /// What has happened. Orders come first, so that a session that is to end does not go on when a server
    /// answers in that moment.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        if let Some(cause) = self.orders.end {
            return Poll::Ready(Event::End(cause));
        }
        if let Some((servers, cause)) = self.orders.leave.take() {
            return Poll::Ready(Event::Leave(servers, cause));
        }
        if std::mem::take(&mut self.orders.depart) {
            return Poll::Ready(Event::Depart);
        }
        if std::mem::take(&mut self.orders.servers_changed) {
            return Poll::Ready(Event::ServersChanged);
        }
        if let Some(connect) = &mut self.connect {
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
            // After the answers: a slot that is not needed any more goes to the next one that waits.
            if let Poll::Ready(granted) = connect.poll_granted(context) {
                return Poll::Ready(Event::Granted(granted));
            }
        }
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    fn view(&self, wanted: &Wanted, now: Instant) -> Option<View> {
        let until = self.connect.as_ref().map(|connect| connect.deadline());
        let left = until.map(|until| until.saturating_duration_since(now));
        let asked_for = wanted.has(&self.stats) && wanted.has_time(left);
        asked_for.then(|| View::new(&self.stats, self.client, left))
    }
}
