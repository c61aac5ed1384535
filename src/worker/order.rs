//! Orders from the control thread to a worker. They are rare.
//!
//! Bounded: when a worker's inbox is full the sender waits, so that no order is lost.

use super::accept::{Closing, Listener, ListenerId};
use super::moving::{ArrivingSession, DetachFrom, LeavingSession};
use super::session_id::SessionId;
use super::sessions::{Cursor, Page, Wanted};
use super::surplus::Surplus;
use crate::live::Cause;
use crate::live::counters::Clear;
use crate::state::{BackendId, Frontend, FrontendId};
use crate::sys::identity::Step;
use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// Orders that may wait for one worker.
pub const ORDERS_MAX: usize = 256;

/// An order to a worker.
#[derive(Debug, Clone)]
pub enum Order {
    /// End the sessions on these servers: the servers went DOWN, a primary came UP, or an operator ends them.
    EndSessions {
        /// The servers.
        servers: ServerSet,
        /// First letter of the sessions' termination state: `D`, `U` or `K`.
        cause: Cause,
    },
    /// End these of the sessions that are quiet.
    EndSurplus(Arc<Surplus>),
    /// List sessions.
    List {
        /// Where to begin.
        from: Cursor,
        /// Which sessions.
        wanted: Arc<Wanted>,
        /// Receives the page. Dropped when the worker has ended.
        reply: mpsc::Sender<Page>,
    },
    /// End one session: what was read is delivered for a limited time, then both sides are reset.
    EndSession {
        /// Which.
        id: SessionId,
        /// Receives whether the session was there.
        reply: mpsc::Sender<bool>,
    },
    /// Accept from this socket too.
    Open(Listener),
    /// Close a listener.
    Close {
        /// Which.
        id: ListenerId,
        /// Its frontend as it was last, when a reload has removed it.
        frontend: Option<Arc<Frontend>>,
        /// What becomes of the connections that wait there.
        how: Closing,
    },
    /// Another process serves. It accepts what waits in the sockets, except for those of the listeners in `left`.
    HandedOver {
        /// Those that the other process does not have.
        left: Arc<HashSet<ListenerId>>,
        /// Receives a message when it is known.
        reply: mpsc::Sender<()>,
    },
    /// A frontend may have begun or ceased to accept connections: follow the snapshot.
    FollowFrontend {
        /// Which.
        id: FrontendId,
        /// Receives whether it could be followed, from each listening socket that has changed. Dropped once all
        /// have followed.
        reply: mpsc::Sender<bool>,
    },
    /// Servers of these backends, in ascending order, have come UP or gone DOWN or got other addresses, or the lists
    /// have changed: sessions that are connecting choose again.
    ServersChanged(Arc<[BackendId]>),
    /// Take sessions out, those of the relay before those that wait for a server, for another process to go on with
    /// them. [`Order::Decided`] must follow for all of them; the worker lasts until then.
    Detach {
        /// Where to begin.
        from: DetachFrom,
        /// Most sessions.
        most: usize,
        /// Receives them.
        reply: mpsc::Sender<LeavingPart>,
    },
    /// What became of sessions that were taken out.
    Decided {
        /// How many they were.
        count: usize,
        /// Those that go on here.
        back: Carried<Vec<LeavingSession>>,
        /// The round and the pass in which the other process did not take them.
        refused: (u32, u32),
    },
    /// Go on with the sessions that were to be taken out and were not.
    Resume,
    /// Go on with sessions of another process.
    Arrive {
        /// The sessions.
        sessions: Carried<Vec<ArrivingSession>>,
        /// Receives for how long each was in neither process.
        pauses: mpsc::Sender<Vec<Duration>>,
    },
    /// Take a step of the change of the process's user on its own thread.
    Identity {
        /// Which.
        step: Step,
        /// Receives how that went.
        reply: mpsc::Sender<io::Result<()>>,
    },
    /// Clear counters, those of the worker.
    ClearCounters {
        /// Which.
        what: Clear,
        /// Receives a message when they are cleared.
        reply: mpsc::Sender<()>,
    },
}

/// What cannot be copied, in an order to one worker.
#[derive(Debug)]
pub struct Carried<T>(Arc<Mutex<Option<T>>>);

impl<T> Carried<T> {
    /// Carries `load`.
    pub fn new(load: T) -> Self {
        Self(Arc::new(Mutex::new(Some(load))))
    }

    /// The load; `None` when a copy of the order has taken it.
    pub(super) fn take(&self) -> Option<T> {
        let mut load = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        load.take()
    }
}

impl<T> Clone for Carried<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Sessions that were taken out of a worker.
#[derive(Debug)]
pub struct LeavingPart {
    /// The sessions.
    pub sessions: Vec<LeavingSession>,
    /// The entry to go on at; `None`: there is no further one.
    pub next: Option<usize>,
}

/// Some servers, by [`crate::live::ServerLive::uid`].
#[derive(Debug, Clone)]
pub struct ServerSet(Arc<[u64]>);

impl ServerSet {
    /// The set of these servers.
    pub fn new(mut servers: Vec<u64>) -> Self {
        servers.sort_unstable();
        Self(servers.into())
    }

    /// Whether the server is one of them.
    pub fn contains(&self, server: u64) -> bool {
        self.0.binary_search(&server).is_ok()
    }
}

/// The senders of all workers' inboxes; cheap to clone.
#[derive(Debug, Clone)]
pub struct Workers(Vec<mpsc::Sender<Order>>);

impl Workers {
    /// An inbox for each of `count` workers.
    pub fn new(count: usize) -> (Self, Vec<mpsc::Receiver<Order>>) {
        let (senders, receivers) = (0..count).map(|_| mpsc::channel(ORDERS_MAX)).unzip();
        (Self(senders), receivers)
    }

    /// How many workers there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Sends an order to one worker; waits when its inbox is full.
    pub async fn tell(&self, worker: usize, order: Order) {
        if let Some(worker) = self.0.get(worker) {
            // A worker that has ended receives nothing any more.
            let _ = worker.send(order).await;
        }
    }

    /// A page of the sessions of one worker; `None` when it has ended.
    pub async fn list(&self, worker: usize, from: Cursor, wanted: &Arc<Wanted>) -> Option<Page> {
        let (reply, mut page) = mpsc::channel(1);
        let wanted = Arc::clone(wanted);
        let order = Order::List {
            from,
            wanted,
            reply,
        };
        self.tell(worker, order).await;
        page.recv().await
    }

    /// Ends a session; `false` when none has that number.
    pub async fn end_session(&self, id: SessionId) -> bool {
        let (reply, mut found) = mpsc::channel(1);
        let order = Order::EndSession { id, reply };
        self.tell(id.worker(self.count()), order).await;
        found.recv().await.unwrap_or(false)
    }

    /// Takes sessions out of a worker; `None` when it has ended. [`Workers::decided`] must follow.
    pub async fn detach(
        &self,
        worker: usize,
        from: DetachFrom,
        most: usize,
    ) -> Option<LeavingPart> {
        let (reply, mut part) = mpsc::channel(1);
        self.tell(worker, Order::Detach { from, most, reply }).await;
        part.recv().await
    }

    /// Tells a worker what became of `count` sessions that were taken out: those in `back` were refused in this round
    /// and pass and go on there.
    pub async fn decided(
        &self,
        worker: usize,
        count: usize,
        back: Vec<LeavingSession>,
        refused: (u32, u32),
    ) {
        let back = Carried::new(back);
        let order = Order::Decided {
            count,
            back,
            refused,
        };
        self.tell(worker, order).await;
    }

    /// Has a worker go on with the sessions that were to be taken out and were not.
    pub async fn resume(&self, worker: usize) {
        self.tell(worker, Order::Resume).await;
    }

    /// Has a worker go on with sessions of another process. `pauses` receives for how long each was in neither.
    pub async fn arrive(
        &self,
        worker: usize,
        sessions: Vec<ArrivingSession>,
        pauses: mpsc::Sender<Vec<Duration>>,
    ) {
        let sessions = Carried::new(sessions);
        self.tell(worker, Order::Arrive { sessions, pauses }).await;
    }

    /// Has every worker clear its counters.
    pub async fn clear_counters(&self, what: Clear) {
        let (reply, mut done) = mpsc::channel(self.count().max(1));
        self.tell_all(&Order::ClearCounters { what, reply }).await;
        // Ends when every worker has answered or has ended.
        while done.recv().await.is_some() {}
    }

    /// Has every worker take a step of the change of the process's user.
    ///
    /// # Errors
    /// The first of theirs.
    pub async fn take(&self, step: Step) -> io::Result<()> {
        let (reply, mut results) = mpsc::channel(self.count().max(1));
        self.tell_all(&Order::Identity { step, reply }).await;
        // Ends when every worker has answered or has ended.
        while let Some(result) = results.recv().await {
            result?;
        }
        Ok(())
    }

    /// Has every worker know what another process accepts.
    pub async fn handed_over(&self, left: HashSet<ListenerId>) {
        let (reply, mut done) = mpsc::channel(self.count().max(1));
        let left = Arc::new(left);
        self.tell_all(&Order::HandedOver { left, reply }).await;
        // Ends when every worker has answered or has ended.
        while done.recv().await.is_some() {}
    }

    /// Sends an order to every worker; waits where an inbox is full.
    pub async fn tell_all(&self, order: &Order) {
        for worker in &self.0 {
            // A worker that has ended has no sessions left to end.
            let _ = worker.send(order.clone()).await;
        }
    }
}
