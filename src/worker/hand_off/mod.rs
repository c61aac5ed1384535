//! Sharing connections out between the workers.
//!
//! The kernel spreads connections over the workers' sockets by a hash, which is chance: of 64 long
//! sessions one worker of two often has 40. A worker that accepts while another has clearly fewer
//! sessions hands the connection over, before a byte of it was read; where loads are alike, which is
//! nearly always, it looks at one other worker's gauge and keeps it. (HAProxy's threads do the same
//! with their accept queues, `tune.listener.multi-queue`.)
//!
//! Invariant: a connection that is handed over has its place and counts for its new worker at once,
//! so that a burst is not handed to one worker by all others; one that cannot be taken over any
//! more stays with the worker that has accepted it. No connection is lost by a stop: an inbox is
//! closed first and emptied then.

use super::relay::Kind;
use crate::live::Load;
use crate::live::slot::ConnSlot;
use crate::state::Frontend;
use std::cell::Cell;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Connections that may wait for one worker to take them over.
const HANDED_MAX: usize = 256;

/// Sessions that a worker may have more than another, beside a share of the other's: below that,
/// handing over costs more than it evens out.
const SLACK: u32 = 2;

/// The share of the other's sessions, as a divisor.
const SLACK_PART: u32 = 16;

/// An accepted connection on its way to its session.
#[derive(Debug)]
pub(super) struct Accepted {
    /// Non-blocking, nothing read from it.
    pub(super) client: OwnedFd,
    pub(super) kind: Kind,
    /// `None` for a unix socket.
    pub(super) peer: Option<SocketAddr>,
    pub(super) frontend: Arc<Frontend>,
    /// Its place.
    pub(super) slot: ConnSlot,
}

/// What one worker has of the sharing.
#[derive(Debug)]
pub struct HandOff {
    pub(super) peers: PeerWorkers,
    pub(super) inbox: mpsc::Receiver<Accepted>,
}

/// A hand-off for each of `count` workers.
pub fn hand_offs(count: usize) -> Vec<HandOff> {
    let (senders, inboxes): (Vec<_>, Vec<_>) =
        (0..count).map(|_| mpsc::channel(HANDED_MAX)).unzip();
    let share = |(me, inbox)| HandOff {
        peers: PeerWorkers {
            me,
            inboxes: senders.clone(),
            next: Cell::new(0),
        },
        inbox,
    };
    inboxes.into_iter().enumerate().map(share).collect()
}

/// The other workers, as one of them sees them.
#[derive(Debug)]
pub(super) struct PeerWorkers {
    me: usize,
    /// Of all workers, this one too.
    inboxes: Vec<mpsc::Sender<Accepted>>,
    /// Who is looked at next.
    next: Cell<usize>,
}

impl PeerWorkers {
    /// The number of this worker, and of how many.
    pub(super) fn position(&self) -> (usize, usize) {
        (self.me, self.inboxes.len())
    }

    /// Hands a connection over to a worker with clearly fewer sessions; gives it back when there is
    /// none, or none that takes it.
    ///
    /// # Hot path: one load of another worker's cache line.
    pub(super) fn hand_over(&self, mut accepted: Accepted, load: &Load) -> Option<Accepted> {
        let Some(other) = self.less_loaded(load) else {
            return Some(accepted);
        };
        accepted.slot.move_to(other);
        match self.inboxes[other].try_send(accepted) {
            Ok(()) => None,
            Err(
                mpsc::error::TrySendError::Full(mut accepted)
                | mpsc::error::TrySendError::Closed(mut accepted),
            ) => {
                accepted.slot.move_to(self.me);
                Some(accepted)
            }
        }
    }

    /// A worker with clearly fewer sessions than this one. One other is looked at each time, in
    /// turn: looking at all of them would cost more the more there are.
    fn less_loaded(&self, load: &Load) -> Option<usize> {
        let others = self.inboxes.len().checked_sub(1).filter(|&n| n > 0)?;
        let step = self.next.get() % others;
        self.next.set(step + 1);
        let other = (self.me + 1 + step) % self.inboxes.len();
        let theirs = load.of(other).get();
        // This one's has the new connection in it.
        let mine = load.of(self.me).get().saturating_sub(1);
        (mine > theirs + SLACK + theirs / SLACK_PART).then_some(other)
    }
}

#[cfg(test)]
mod tests;
