//! Sessions that wait for a server, in a queue or because none is usable, on their way to another process. They have
//! no socket but the client's, of which nothing was read. Runs on a worker.
//!
//! A session leaves the register of its worker ([`super::pending`]) when another process is to have it, and goes on in
//! one of the two from step 5 on. Its place in the queue is given up meanwhile.

use super::connect_policy::StayTimes;
use super::header_rule::Announced;
use super::relay::Kind;
use super::server_connect::ServerConnect;
use super::session_stats::{SessionStats, WorkerStats};
use crate::live::{Cause, Phase, Termination};
use crate::state::Backend;
use crate::sys::socket::close_in_order;
use std::cell::RefCell;
use std::cmp::Reverse;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// What a session needs that goes on from step 5.
#[derive(Debug)]
pub(super) struct Resumed {
    /// Where it was routed to.
    pub(super) backend: Arc<Backend>,
    /// What its PROXY header has said.
    pub(super) announced: Option<Box<Announced>>,
    pub(super) progress: Progress,
    /// The round and the pass of moving in which another process did not take it.
    pub(super) refused: (u32, u32),
}

/// How far a session has come with connecting.
#[derive(Debug)]
pub(super) enum Progress {
    /// In this process: it goes on with that.
    Here(Box<ServerConnect<NoConnection>>),
    /// In another one, which has told this.
    Elsewhere(Wait),
}

/// A session that waits has no connection, so that it may be looked at on another thread.
#[derive(Debug)]
pub(super) enum NoConnection {}

/// What one process tells the other of a session that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    /// How long it has waited.
    pub(super) waited: StayTimes,
    /// It waits in a queue; otherwise because no server is usable.
    pub(super) in_queue: bool,
    /// It was counted as chosen by the algorithm (`lbtot`).
    pub(super) is_counted: bool,
    /// For how long the stay lasts that is under way. It is in no statistics yet.
    pub(super) stay: Duration,
}

impl Progress {
    /// How the session waits at `now`.
    pub(super) fn wait(&self, now: Instant) -> Wait {
        match self {
            Self::Here(connect) => connect.wait(now),
            Self::Elsewhere(wait) => *wait,
        }
    }
}

impl Unserved {
    /// Ends it here, because all sessions are to end.
    pub(super) fn kill(mut self, worker_stats: &WorkerStats) {
        let wait = self.resumed.progress.wait(Instant::now());
        self.stats.count_hold(wait.stay);
        let phase = if wait.in_queue {
            Phase::Queue
        } else {
            Phase::Connect
        };
        close_in_order(self.client);
        let end = Termination::new(Cause::Killed, phase);
        self.stats.finish(&end, worker_stats);
    }
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
