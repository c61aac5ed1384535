//! A session that waits for a server and goes on elsewhere, or comes back: what it takes along, and how it goes on.

use super::{Dialer, ServerConnect};
use crate::state::Backend;
use crate::worker::connect_policy::AttemptSlot;
use crate::worker::unserved::Wait;
use std::sync::Arc;
use std::time::Instant;

impl<C> ServerConnect<C> {
    /// Whether the session waits for a server, in a queue or because none is usable, and no attempt is in flight.
    pub(crate) fn waits_for_a_server(&self) -> bool {
        let waits = self.is_queued() || self.policy.is_held();
        waits && !self.asks_a_server()
    }

    /// Gives its place in the queue up, if it has one. Its stay goes on: it comes back, or waits elsewhere.
    pub(crate) fn give_up_place(&mut self, dialer: &mut impl Dialer<Connection = C>) {
        if let Some(ticket) = self.ticket.take() {
            let one = ticket.is_for_one_server();
            // It counts itself where it gets its slot.
            let position = ticket.leave().saturating_sub(1);
            dialer.waited(self.stay(one, None, position));
        }
    }

    /// How it waits at `now`.
    pub(in crate::worker) fn wait(&self, now: Instant) -> Wait {
        Wait {
            waited: self.policy.waited(now),
            in_queue: self.policy.is_queued(),
            is_counted: self.is_counted,
            stay: self.policy.stay(now),
        }
    }

    /// It has waited like this in another process.
    pub(in crate::worker) fn has_waited(&mut self, wait: &Wait) {
        self.policy.has_waited(wait.waited);
        self.is_counted = wait.is_counted;
    }

    /// It goes on waiting here after it has given its place up, or is served if there is a slot for it now.
    pub(crate) fn come_back(&mut self, dialer: &mut impl Dialer<Connection = C>, now: Instant) {
        self.servers_changed(dialer, now);
        if self.policy.is_queued() {
            let time = self.policy.left_queue(now);
            dialer.waited(self.stay(false, Some(time), 0));
            self.start(AttemptSlot::A, dialer, now);
        }
    }

    /// The same with connections of another kind: it has none.
    pub(crate) fn without_connections<D>(self) -> ServerConnect<D> {
        debug_assert!(!self.asks_a_server(), "it waits");
        let Self {
            backend,
            input,
            passed,
            policy,
            generation,
            attempts: _,
            ticket,
            rank,
            is_counted,
            queued_for,
            queue_full,
            first,
            refused,
            last_failure,
            last_shortage,
        } = self;
        ServerConnect {
            backend,
            input,
            passed,
            policy,
            generation,
            attempts: [None, None],
            ticket,
            rank,
            is_counted,
            queued_for,
            queue_full,
            first,
            refused,
            last_failure,
            last_shortage,
        }
    }

    /// The backend as it was when the session was routed.
    pub(crate) fn routed_to(&self) -> &Arc<Backend> {
        &self.backend
    }
}
