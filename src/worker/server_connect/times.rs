//! Steps 6 and 7 with `balance = "ewma"`: how long the connects to a server take is learnt from a session's attempts.
//!
//! Invariant: a session of another algorithm does nothing here, and does not look whether it should, unless an attempt was
//! in vain.

use super::{Attempt, ServerConnect};
use std::time::Instant;

/// How a server was chosen: what is to be done when it has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChosenBy {
    /// By an algorithm that learns nothing.
    Algorithm,
    /// By the times of connects.
    Time,
    /// Its slot was waited for, with any algorithm.
    Queue,
}

impl<C> ServerConnect<C> {
    /// The attempt has taken so long until now, whether it was answered or not.
    #[inline(never)]
    pub(super) fn learn_time(&self, attempt: &Attempt<C>, now: Instant) {
        if self.backend.picker.is_by_time() {
            let took = now.saturating_duration_since(attempt.started);
            let tick = self.backend.live.tick(now);
            attempt.server.live.connect_time.learn(took, tick);
        }
    }
}
