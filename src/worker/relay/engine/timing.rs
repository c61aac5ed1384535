//! What the engine does by time: timeouts, vanished peers, and sessions that no event tells of.

use super::super::lifecycle::Draining;
use super::super::liveness::{self, Verdict};
use super::Engine;
use crate::live::timing::millis;
use crate::live::{Cause, Phase, Termination};
use std::time::{Duration, Instant};

impl Engine {
    /// When [`Engine::tick`] is to be called next.
    pub(in super::super) fn next_tick(&self) -> Instant {
        let elapsed = self.start.elapsed();
        let ticks = elapsed.as_millis() / u128::from(TICK_MS) + 1;
        self.start + Duration::from_millis(TICK_MS) * u32::try_from(ticks).unwrap_or(u32::MAX)
    }

    /// Whether sessions are to be served soon without an event.
    pub(in super::super) fn needs_recheck(&self) -> bool {
        !self.recheck.is_empty()
    }

    /// Has the session served soon, without an event.
    pub(super) fn recheck(&mut self, key: u32) {
        let conn = &mut self.conns[key];
        if !std::mem::replace(&mut conn.rechecked, true) {
            self.recheck.push((key, conn.generation));
        }
    }

    /// Serves the sessions that no event tells of, and handles the timeouts and checks that are due.
    pub(in super::super) fn tick(&mut self) {
        self.read_clock();
        for (key, generation) in std::mem::take(&mut self.recheck) {
            let Some(conn) = self.conns.get_mut(key) else {
                continue;
            };
            if conn.generation != generation {
                continue;
            }
            conn.rechecked = false;
            for side in &mut conn.sides {
                side.retry = false;
            }
            self.serve(key);
            let conn = self.conns.get(key);
            if conn.is_some_and(|conn| conn.draining().is_some_and(Draining::needs_recheck)) {
                self.recheck(key);
            }
        }
        self.shrink();
        let mut fired = Vec::new();
        self.wheel.advance(self.now / TICK_MS, &mut fired);
        for key in fired {
            self.look(key);
        }
    }

    /// Every [`SHRINK_EVERY_MS`] frees memory that many sessions have used.
    fn shrink(&mut self) {
        if self.now < self.shrunk + SHRINK_EVERY_MS {
            return;
        }
        self.shrunk = self.now;
        if let Some(entries) = self.conns.shrink() {
            self.wheel.truncate(entries);
            self.ready.shrink_to(entries);
            self.recheck.shrink_to(entries);
        }
    }

    /// A session's entry in the wheel has fired.
    fn look(&mut self, key: u32) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        if conn.draining().is_some() {
            // At every tick, until it has ended.
            self.wheel.schedule(key, tick_of(self.now));
            self.serve(key);
            return;
        }
        let age = millis(conn.stats.age());
        match liveness::look(conn, age, self.now) {
            Verdict::Next(at) => self.wheel.schedule(key, tick_of(at)),
            Verdict::Idle(side) => match conn.time_out(side) {
                Some(end) => self.remove(key, end),
                None => self.begin_draining(key),
            },
            Verdict::Old { is_quiet: true } => self.remove(key, TOO_OLD),
            Verdict::Old { is_quiet: false } => {
                if conn.kill(TOO_OLD, self.now) {
                    self.begin_draining(key);
                    self.serve(key);
                }
            }
            Verdict::Vanished(side, error) => {
                self.break_off(key, side, error);
                self.serve(key);
            }
        }
    }

    /// Schedules a session's first entry in the wheel.
    pub(super) fn schedule(&mut self, key: u32) {
        let conn = &self.conns[key];
        if conn.draining().is_none() {
            let at = liveness::next_look(conn, 0, self.now);
            self.wheel.schedule(key, tick_of(at));
        }
    }
}

/// The end of a session that is too old: HAProxy's letters for what the proxy ends because of a limit.
const TOO_OLD: Termination = Termination::new(Cause::Proxy, Phase::Data);

/// Pause between two checks for memory to free, ms.
const SHRINK_EVERY_MS: u64 = 10_000;

/// Resolution of timeouts, ms. A timeout is never early, and late by this at most.
pub(super) const TICK_MS: u64 = 100;

/// The first tick that is not before `at` ms.
pub(super) fn tick_of(at: u64) -> u64 {
    at.div_ceil(TICK_MS)
}
