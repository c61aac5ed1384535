//! The limits of the rates at which an acceptor accepts: that of the process and that of its frontend. Runs on a worker.
//!
//! Clients above a limit wait in the kernel's accept queue. A place is taken before `accept` and given back when no
//! connection was there, so that the workers together accept no more than the limit.

use super::Acceptor;
use crate::live::{FrontendLive, GlobalLive};
use crate::state::Frontend;
use std::sync::Arc;
use std::time::Duration;

/// Most connections that are accepted in a second; 0: no limit.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rates {
    pub(super) process: u32,
    pub(super) frontend: u32,
}

/// One connection that both rates allow. Dropped unused, it is given back.
#[derive(Debug)]
pub(super) struct RatePlace {
    global: Arc<GlobalLive>,
    frontend: Arc<FrontendLive>,
    limits: Rates,
    used: bool,
}

impl RatePlace {
    /// A connection was accepted.
    pub(super) fn used(mut self) {
        self.used = true;
    }
}

impl Drop for RatePlace {
    fn drop(&mut self) {
        if self.used {
            return;
        }
        if self.limits.process > 0 {
            self.global.accept_rate.give_back();
        }
        if self.limits.frontend > 0 {
            self.frontend.accept_rate.give_back();
        }
    }
}

impl Acceptor {
    /// Whether a rate is limited.
    ///
    /// # Hot path: all that a connection costs while there is no limit.
    pub(super) fn is_rate_limited(&self) -> bool {
        let limits = self.rates.get();
        (limits.process | limits.frontend) != 0
    }

    /// How long the rates allow no connection.
    pub(super) fn rate_pause(&self, frontend: &Frontend) -> Duration {
        if !self.is_rate_limited() {
            return Duration::ZERO;
        }
        let (limits, global) = (self.rates.get(), &self.worker.worker_stats.global);
        let now = global.start.elapsed();
        let of_process = global.accept_rate.pause(limits.process, now);
        of_process.max(frontend.live.accept_rate.pause(limits.frontend, now))
    }

    /// One connection of both rates; `None`: one of them allows none now.
    pub(super) fn rate_place(&self, frontend: &Frontend) -> Option<RatePlace> {
        let (limits, global) = (self.rates.get(), &self.worker.worker_stats.global);
        let now = global.start.elapsed();
        if limits.process > 0 && !global.accept_rate.take(limits.process, now) {
            return None;
        }
        if limits.frontend > 0 && !frontend.live.accept_rate.take(limits.frontend, now) {
            if limits.process > 0 {
                global.accept_rate.give_back();
            }
            return None;
        }
        Some(RatePlace {
            global: Arc::clone(global),
            frontend: Arc::clone(&frontend.live),
            limits,
            used: false,
        })
    }
}
