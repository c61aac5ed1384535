//! A session that waits for a server and goes on elsewhere: what it takes along, and how it begins there.

use super::{Dialer, ServerConnect};
use crate::live::queue::Rank;
use crate::state::Backend;
use crate::worker::connect_policy::StayTimes;
use std::sync::Arc;
use std::time::Instant;

impl<C> ServerConnect<C> {
    /// The session goes on here: it has `waited` already, last in a queue or not, and has this place in the order of the
    /// queues.
    pub(crate) fn resume(&mut self, waited: StayTimes, in_queue: bool, rank: Option<Rank>) {
        self.policy.has_waited(waited);
        self.rank = rank;
        self.queued_elsewhere = in_queue;
    }

    /// Whether the session waits for a server, in a queue or because none is usable, and no attempt is in flight.
    pub(crate) fn waits_for_a_server(&self) -> bool {
        let waits = self.is_queued() || self.policy.is_held();
        waits && self.attempts.iter().all(Option::is_none)
    }

    /// It leaves its queue, to go on elsewhere. How long it has waited, and whether in a queue.
    pub(crate) fn depart(
        &mut self,
        dialer: &mut impl Dialer<Connection = C>,
        now: Instant,
    ) -> (StayTimes, bool) {
        let (waited, in_queue) = (self.policy.waited(now), self.is_queued());
        if let Some(ticket) = self.ticket.take() {
            let time = self.policy.left_queue(now);
            let one = ticket.is_for_one_server();
            // It counts itself where it gets its slot.
            let position = ticket.leave().saturating_sub(1);
            dialer.waited(self.stay(one, Some(time), position));
        }
        self.cancel(dialer, now);
        (waited, in_queue)
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
