//! Sessions that wait for a server, in a queue or because none is usable, on their way to another process. They have
//! no socket but the client's, of which nothing was read. Runs on a worker.
//!
//! A session leaves the register of its worker ([`super::pending`]) when another process is to have it, and goes on in
//! one of the two from step 5 on. Its place in the queue is given up meanwhile.

use super::connect_policy::StayTimes;
use super::header_rule::Announced;
use super::relay::Kind;
use super::session_stats::{SessionStats, WorkerStats};
use crate::live::queue::Rank;
use crate::live::{Cause, Phase, Termination};
use crate::state::Backend;
use crate::sys::socket::close_in_order;
use std::cell::RefCell;
use std::cmp::Reverse;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

/// A session that no server has.
#[derive(Debug)]
pub(super) struct Unserved {
    /// The client's socket.
    pub(super) client: OwnedFd,
    pub(super) kind: Kind,
    /// Its statistics: it is counted on its frontend and its backend.
    pub(super) stats: Box<SessionStats>,
    /// How it goes on.
    pub(super) resumed: Resumed,
}

impl Unserved {
    /// The time until `now`, on its way, counts as waiting.
    pub(super) fn count_way(&mut self, now: Instant) {
        let Resumed {
            waited,
            since,
            in_queue,
            ..
        } = &mut self.resumed;
        let lasted = now.saturating_duration_since(*since);
        *since = now;
        if *in_queue {
            waited.queue += lasted;
        } else {
            waited.hold += lasted;
        }
        self.stats.count_hold(lasted);
    }

    /// Ends it here, because all sessions are to end.
    pub(super) fn kill(mut self, worker_stats: &WorkerStats) {
        self.count_way(Instant::now());
        let phase = if self.resumed.in_queue {
            Phase::Queue
        } else {
            Phase::Connect
        };
        close_in_order(self.client);
        let end = Termination::new(Cause::Killed, phase);
        self.stats.finish(&end, worker_stats);
    }
}

/// What a session needs that goes on from step 5.
#[derive(Debug)]
pub(super) struct Resumed {
    /// Where it was routed to.
    pub(super) backend: Arc<Backend>,
    /// What its PROXY header has said.
    pub(super) announced: Option<Box<Announced>>,
    /// How long it has waited, until `since`.
    pub(super) waited: StayTimes,
    /// The time from then on counts, too.
    pub(super) since: Instant,
    /// It waits in a queue; otherwise because no server is usable.
    pub(super) in_queue: bool,
    /// Its place in the order of the queues, if it has waited there in this process.
    pub(super) rank: Option<Rank>,
    /// The pass of moving in which another process did not take it; 0: none.
    pub(super) refused: u32,
}

/// Those of a worker that have left its register and were not given away yet.
#[derive(Debug, Default)]
pub(super) struct UnservedSessions(RefCell<Vec<Unserved>>);

impl UnservedSessions {
    pub(super) fn put(&self, session: Unserved) {
        self.0.borrow_mut().push(session);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Up to `most` of them, those first that were accepted first.
    pub(super) fn take(&self, most: usize) -> Vec<Unserved> {
        let mut sessions = self.0.borrow_mut();
        // The register has them in no order. When they are sorted already, this looks at each of them once.
        sessions.sort_by_key(|session| Reverse(session.stats.began()));
        let rest = sessions.len().saturating_sub(most);
        let mut taken = sessions.split_off(rest);
        taken.reverse();
        if sessions.is_empty() {
            *sessions = Vec::new();
        }
        taken
    }
}
