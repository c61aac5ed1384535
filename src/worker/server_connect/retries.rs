//! Attempts after the first: whether the backend's `retry-budget` allows them.
//!
//! An attempt that has failed asks for the one that follows it, at once: those that wait for it would otherwise be more
//! than there is a budget for. An attempt beside one without an answer asks when it is due. Not asked for is one in place
//! of an attempt at a server that has gone DOWN, or at a server that has come UP.
//!
//! Invariant: a session none of whose attempts fails or is late does nothing here.

use super::{Dialer, ServerConnect};
use crate::worker::connect_policy::AttemptSlot;
use std::time::Instant;

impl<C> ServerConnect<C> {
    /// An attempt has failed: whether another one may follow it.
    pub(super) fn ask_to_retry(&mut self, dialer: &mut impl Dialer<Connection = C>, now: Instant) {
        if self.policy.retries_again(now) && !self.may_retry(dialer) {
            self.policy.retry_denied();
        }
    }

    /// Tries a further server while an attempt is in flight.
    pub(super) fn start_beside(
        &mut self,
        slot: AttemptSlot,
        dialer: &mut impl Dialer<Connection = C>,
        now: Instant,
    ) {
        if self.policy.is_hopeless() || self.refused.is_some() {
            return self.start(slot, dialer, now);
        }
        if !self.may_retry(dialer) {
            return self.policy.postponed(now);
        }
        let before = self.policy.retries();
        self.start(slot, dialer, now);
        if self.policy.retries() == before && self.backend.spec.retry_budget.is_some() {
            // No server could be tried.
            self.backend.live.retries.give_back();
        }
    }

    /// Whether the session may make one more attempt, which counts as made.
    fn may_retry(&self, dialer: &mut impl Dialer<Connection = C>) -> bool {
        let Some(percent) = self.backend.spec.retry_budget else {
            return true;
        };
        let live = &self.backend.live;
        let may = live.retries.take(percent, &live.traffic);
        if !may {
            dialer.retry_denied(&self.backend, percent);
        }
        may
    }
}
