//! Hands accepted connections to workers that have fewer sessions.
//!
//! The kernel distributes connections over the workers' sockets by a hash, so by chance: of 64 long sessions
//! one of two workers often has 40. A worker that accepts a connection while another has clearly fewer sessions
//! hands the connection to that one before a byte of it was read. Mostly the loads are alike; then it reads one
//! other worker's gauge and keeps the connection. (HAProxy's threads do the same with their accept queues,
//! `tune.listener.multi-queue`.)
//!
//! Invariant: a connection that is handed off has its slot and counts for its new worker at once, so that not
//! all workers hand a burst to the same one. When the other worker cannot take it, the worker that has accepted
//! it keeps it. A stop loses no connection: an inbox is closed first and emptied afterwards.

use super::header_rule::HeaderRule;
use super::relay::Kind;
use crate::live::Load;
use crate::live::slot::ConnSlot;
use crate::state::Frontend;
use std::cell::Cell;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Connections that may wait in the inbox of one worker.
const HANDED_MAX: usize = 256;

/// How many more sessions than another a worker may have, in addition to a share of the other's. Below that,
/// handing over costs more than it gains.
const SLACK: u32 = 2;

/// The share of the other's sessions, as a divisor.
const SLACK_PART: u32 = 16;

/// A connection that was accepted and has no session yet.
#[derive(Debug)]
pub(super) struct Accepted {
    /// Non-blocking, nothing read from it.
    pub(super) client: OwnedFd,
    pub(super) kind: Kind,
    /// `None` for a unix socket.
    pub(super) peer: Option<SocketAddr>,
    /// Its slot in the process and the frontend.
    pub(super) slot: ConnSlot<Frontend>,
    /// What its listener says of it, as that it begins with a PROXY header.
    pub(super) header: Option<Arc<HeaderRule>>,
}

/// What one worker needs to hand off and to receive connections.
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

/// The other workers, seen from one of them.
#[derive(Debug)]
pub(super) struct PeerWorkers {
    me: usize,
    /// Of all workers, this one included.
    inboxes: Vec<mpsc::Sender<Accepted>>,
    /// Which one's gauge is read next.
    next: Cell<usize>,
}

impl PeerWorkers {
    /// This worker's number, and how many workers there are.
    pub(super) fn position(&self) -> (usize, usize) {
        (self.me, self.inboxes.len())
    }

    /// Hands a connection to a worker with clearly fewer sessions. Gives it back when there is none, or when
    /// that worker's inbox is full or closed.
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

    /// A worker with clearly fewer sessions than this one. One other worker is looked at each time, in turn:
    /// looking at all would cost more with each worker.
    fn less_loaded(&self, load: &Load) -> Option<usize> {
        let others = self.inboxes.len().checked_sub(1).filter(|&n| n > 0)?;
        let step = self.next.get() % others;
        self.next.set(step + 1);
        let other = (self.me + 1 + step) % self.inboxes.len();
        let theirs = load.of(other).get();
        // This worker's gauge includes the new connection.
        let mine = load.of(self.me).get().saturating_sub(1);
        (mine > theirs + SLACK + theirs / SLACK_PART).then_some(other)
    }
}

#[cfg(test)]
mod tests;
