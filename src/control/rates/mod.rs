//! The highest session and connection rates so far (`rate_max`, `conn_rate_max`).
//!
//! Control thread, once a second. Each second is read after its end, while the counters still have it, so each
//! second is read whole and once.
//!
//! Invariant: an object is passed over only if no session can have counted on it in that second. All
//! that a session counts lies between the moments when it takes and gives back its place in the
//! process and on its backend, and it is counted there first. So a process (or a backend) on which
//! nothing was begun and nothing went on has nothing to be read, nor have its servers: an idle
//! process with 10,000 servers looks at none of them.

use crate::live::rate::Rate;
use crate::live::{FrontendLive, Shards, Traffic};
use crate::state::{BackendId, Snapshot};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Seconds that [`Rate`] still has after their end.
const REMEMBERED: u32 = 3;

/// Seconds that are read when sessions have shown: the one that is over, and the next, which they
/// may have been counted in before they ended; and one more, because the look at a second comes a
/// moment after its end, and a session that ends in that moment is not there any more.
const LINGER: u32 = 3;

/// The highest rates of all objects.
#[derive(Debug, Default)]
pub(super) struct RateMaxima {
    /// The first second that has not been looked at.
    next: u32,
    process: Activity,
    /// By position in the snapshot's table, with the backend that has it.
    backends: Vec<(Option<BackendId>, Activity)>,
}

impl RateMaxima {
    /// Takes every second that is over at `now_ms` of the process's clock into account.
    pub(super) fn update(&mut self, snapshot: &Snapshot, now_ms: u64) {
        let running = u32::try_from(now_ms / 1000).unwrap_or(u32::MAX);
        let first = self.next.max(running.saturating_sub(REMEMBERED));
        // Sessions may have begun and ended since the last look, if this one is late: then all is read.
        let late = running.saturating_sub(first) > 1;
        for second in first..running {
            see_frontend(&snapshot.stats_live, second);
            let global = &snapshot.global;
            let begun = global.traffic.sum(|traffic| &traffic.conn_tot);
            let shows = late || global.active.get() > 0;
            if self.process.is_active(second, begun, shows) {
                self.update_second(snapshot, second, late);
            }
        }
        self.next = running;
    }

    fn update_second(&mut self, snapshot: &Snapshot, second: u32, late: bool) {
        for one in snapshot.frontends.iter().flatten() {
            see_frontend(&one.live, second);
        }
        let backends = &snapshot.backends;
        self.backends.resize_with(backends.len(), Default::default);
        self.backends.shrink_to(2 * backends.len());
        for (backend, (id, activity)) in backends.iter().zip(&mut self.backends) {
            let Some(backend) = backend else { continue };
            if id.replace(backend.id) != Some(backend.id) {
                *activity = Activity::default();
            }
            let live = &backend.live;
            let begun = live.traffic.sum(|traffic| &traffic.stot);
            let shows = late || live.active.get() > 0;
            if !activity.is_active(second, begun, shows) {
                continue;
            }
            see_sessions(&live.traffic, &live.rate_max, second);
            for server in &backend.servers {
                see_sessions(&server.live.traffic, &server.live.rate_max, second);
            }
        }
    }
}

/// A second is over, and `second` has begun: the attempts in it count for the retries of the next ones (`retry-budget`).
pub(super) fn note_attempts(snapshot: &Snapshot, second: u64) {
    let backends = snapshot.backends.iter().flatten();
    for backend in backends.filter(|it| it.spec.retry_budget.is_some()) {
        let live = &backend.live;
        live.retries.second(second, &live.traffic);
    }
}

/// Whether there are sessions: of the process, or of one backend.
#[derive(Debug, Default)]
struct Activity {
    /// Sessions begun so far when this was last asked.
    begun: u64,
    /// The first second that need not be read when nothing new shows.
    until: u32,
}

impl Activity {
    /// Whether sessions may have counted anything in `second`, the last that is over, when `begun`
    /// have begun so far. `shows`: some go on, or nobody has looked for longer than a second.
    fn is_active(&mut self, second: u32, begun: u64, shows: bool) -> bool {
        if begun != self.begun || shows {
            self.begun = begun;
            self.until = second.saturating_add(LINGER);
        }
        second < self.until
    }
}

fn see_frontend(live: &FrontendLive, second: u32) {
    see_sessions(&live.traffic, &live.rate_max, second);
    see(&live.traffic, &live.conn_rate_max, |t| &t.conn_rate, second);
}

fn see_sessions(traffic: &Shards<Traffic>, max: &AtomicU32, second: u32) {
    see(traffic, max, |t| &t.rate, second);
}

fn see(traffic: &Shards<Traffic>, max: &AtomicU32, rate: fn(&Traffic) -> &Rate, second: u32) {
    let events = traffic
        .iter()
        .map(|shard| rate(shard).in_second(second))
        .fold(0, u32::saturating_add);
    // A plain store: this thread is the only writer.
    if events > max.load(Relaxed) {
        max.store(events, Relaxed);
    }
}

#[cfg(test)]
mod tests;
