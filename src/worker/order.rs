//! Rare orders from the control thread to a worker.
//!
//! Bounded: when a worker's inbox is full the sender waits, so that no order is lost.

use super::accept::{Listener, ListenerId};
use crate::live::Cause;
use tokio::sync::mpsc;

/// Orders that may wait for one worker.
pub const ORDERS_MAX: usize = 256;

/// An order to a worker.
#[derive(Debug, Clone)]
pub enum Order {
    /// End the sessions that these servers carry: they went down, or a primary came up.
    EndSessions {
        /// [`crate::live::ServerLive::uid`]s.
        servers: Vec<u64>,
        /// First letter of the sessions' termination state: `D`, `U` or `K`.
        cause: Cause,
    },
    /// Accept from this socket too.
    Open(Listener),
    /// Accept what is queued on this one, then close it.
    Close(ListenerId),
}

/// The sending ends of all workers' inboxes; cheap to clone.
#[derive(Debug, Clone)]
pub struct Workers(Vec<mpsc::Sender<Order>>);

impl Workers {
    /// An inbox for each of `count` workers.
    pub fn new(count: usize) -> (Self, Vec<mpsc::Receiver<Order>>) {
        let (senders, receivers) = (0..count).map(|_| mpsc::channel(ORDERS_MAX)).unzip();
        (Self(senders), receivers)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Tells one worker, waiting when it is behind.
    pub async fn tell(&self, worker: usize, order: Order) {
        if let Some(worker) = self.0.get(worker) {
            // A worker that has ended accepts nothing any more.
            let _ = worker.send(order).await;
        }
    }

    /// Tells every worker, waiting where one is behind.
    pub async fn tell_all(&self, order: &Order) {
        for worker in &self.0 {
            // A worker that has ended has no sessions left to end.
            let _ = worker.send(order.clone()).await;
        }
    }
}
