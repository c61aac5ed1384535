//! Orders from the control thread to a worker. They are rare.
//!
//! Bounded: when a worker's inbox is full the sender waits, so that no order is lost.

use super::accept::{Closing, Listener, ListenerId};
use super::session_id::SessionId;
use super::sessions::{Cursor, Page, Wanted};
use crate::live::Cause;
use crate::live::counters::Clear;
use crate::state::{BackendId, Frontend};
use std::collections::HashSet;
use std::sync::Arc;
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
    /// Servers of these backends, in ascending order, have come UP or gone DOWN or got other addresses, or the lists
    /// have changed: sessions that are connecting choose again.
    ServersChanged(Arc<[BackendId]>),
    /// Clear counters, those of the worker.
    ClearCounters {
        /// Which.
        what: Clear,
        /// Receives a message when they are cleared.
        reply: mpsc::Sender<()>,
    },
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

    /// Has every worker clear its counters.
    pub async fn clear_counters(&self, what: Clear) {
        let (reply, mut done) = mpsc::channel(self.count().max(1));
        self.tell_all(&Order::ClearCounters { what, reply }).await;
        // Ends when every worker has answered or has ended.
        while done.recv().await.is_some() {}
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
