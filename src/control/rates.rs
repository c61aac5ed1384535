//! The highest session and connection rates so far (`rate_max`, `conn_rate_max`).
//!
//! Control thread, once a second. Each second is read when it is over, while the counters still
//! remember it, so a peak is found exactly once and whole.

use crate::live::rate::Rate;
use crate::live::{FrontendLive, Shards, Traffic};
use crate::state::Snapshot;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Seconds that [`Rate`] still remembers after they are over.
const REMEMBERED: u32 = 3;

/// The peaks of all objects.
#[derive(Debug, Default)]
pub(super) struct Peaks {
    /// The first second that has not been looked at.
    next: u32,
}

impl Peaks {
    /// Takes every second that is over at `now_ms` of the process's clock into account.
    pub(super) fn update(&mut self, snapshot: &Snapshot, now_ms: u64) {
        let running = u32::try_from(now_ms / 1000).unwrap_or(u32::MAX);
        for second in self.next.max(running.saturating_sub(REMEMBERED))..running {
            update_second(snapshot, second);
        }
        self.next = running;
    }
}

fn update_second(snapshot: &Snapshot, second: u32) {
    let sessions =
        |traffic: &Shards<Traffic>, max: &AtomicU32| see(traffic, max, |t| &t.rate, second);
    let frontend = |live: &FrontendLive| {
        sessions(&live.traffic, &live.rate_max);
        see(&live.traffic, &live.conn_rate_max, |t| &t.conn_rate, second);
    };
    frontend(&snapshot.stats_live);
    for one in snapshot.frontends.iter().flatten() {
        frontend(&one.live);
    }
    for backend in snapshot.backends.iter().flatten() {
        sessions(&backend.live.traffic, &backend.live.rate_max);
        for server in &backend.servers {
            sessions(&server.live.traffic, &server.live.rate_max);
        }
    }
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
