//! A session that waits for a server and goes on elsewhere: what it takes along, and how it begins there.

use super::ServerConnect;
use crate::live::queue::Rank;
use crate::state::Backend;
use crate::worker::connect_policy::Waited;
use std::sync::Arc;
use std::time::Instant;

impl<C> ServerConnect<C> {
    /// The session goes on here: it has `waited` already, and has this place in the order of the queues.
    pub(crate) fn resume(&mut self, waited: Waited, rank: Option<Rank>) {
        self.policy.has_waited(waited);
        self.rank = rank;
    }

    /// Whether the session waits for a server, in a queue or because none is usable, and no attempt is in flight.
    pub(crate) fn waits_for_a_server(&self) -> bool {
        let waits = self.is_queued() || self.policy.is_held();
        waits && self.attempts.iter().all(Option::is_none)
    }

    /// How long it has waited until `now`.
    pub(crate) fn waited(&self, now: Instant) -> Waited {
        self.policy.waited(now)
    }

    /// Its place in the order of the queues, if it has waited there.
    pub(crate) fn rank(&self) -> Option<Rank> {
        self.rank
    }

    /// The backend as it was when the session was routed.
    pub(crate) fn routed_to(&self) -> &Arc<Backend> {
        &self.backend
    }
}
