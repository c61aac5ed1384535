//! The table of the process's items: for HAProxy's `show info`, the metrics of the process, and the head of the
//! page. Runs on the admin thread; every encoder reads it.
//!
//! Invariant: names, positions, letters and texts are HAProxy's, and their order never changes.

mod items;
mod write;

pub use super::process::VERSION;
pub use items::{ITEMS, RELEASED};
pub use write::{Form, Layout, write};

use super::columns::Value;
use super::process::{Process, connections_per_second};
use super::requests::Requests;
use crate::state::Snapshot;
use std::time::Instant;

/// Whether a metric only ever grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It may also fall.
    Gauge,
}

/// One item of the process.
#[derive(Debug)]
pub struct Item {
    /// HAProxy's position; some numbers are left out.
    pub position: u32,
    /// Its name in `show info`.
    pub name: &'static str,
    /// Letters and type in typed output, as HAProxy's `MGPV:u32`.
    pub typed: &'static str,
    /// Its metric, after `haproxy_process_`.
    pub metric: Option<(&'static str, Kind)>,
    /// Its description.
    pub description: &'static str,
    /// Its value.
    pub value: for<'a> fn(&'a Facts<'_>) -> Value<'a>,
}

/// Where the values come from.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// What was decided, and the counters.
    pub snapshot: &'a Snapshot,
    /// The process.
    pub process: &'a Process,
    /// Requests to the statistics.
    pub requests: &'a Requests,
    /// Now.
    pub now: Instant,
}

impl Facts<'_> {
    /// Seconds since the start.
    pub fn uptime(&self) -> u64 {
        self.snapshot.global.millis(self.now) / 1000
    }

    /// Seconds since the start, with their fractions.
    pub fn uptime_exact(&self) -> f64 {
        self.now
            .saturating_duration_since(self.snapshot.global.start)
            .as_secs_f64()
    }

    /// As `0d 0h00m07s`.
    pub fn uptime_text(&self) -> String {
        let seconds = self.uptime();
        let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
        let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
        format!("{days}d {hours}h{minutes:02}m{seconds:02}s")
    }

    /// Connections now, those to the statistics included.
    pub fn connections(&self) -> u32 {
        let own = self.snapshot.stats_live.active.get();
        self.snapshot.global.active.get().saturating_add(own)
    }

    /// Connections in the last second.
    pub fn rate(&self) -> u32 {
        connections_per_second(self.snapshot, self.now)
    }

    /// Most connections in one second so far.
    pub fn rate_max(&self) -> u32 {
        self.process.connections_max().max(self.rate())
    }

    /// Sessions and servers with a check, as HAProxy's number of tasks.
    pub fn tasks(&self) -> u32 {
        let backends = self.snapshot.backends.iter().flatten();
        let servers = backends.flat_map(|backend| &backend.servers);
        let checked = servers.filter(|server| server.spec.check.is_some()).count();
        let checked = u32::try_from(checked).unwrap_or(u32::MAX);
        self.connections().saturating_add(checked)
    }

    /// Pipes with bytes that a slow reader has not taken.
    pub fn pipes_used(&self) -> u32 {
        let shards = self.snapshot.global.traffic.iter();
        shards.map(|shard| shard.pipes_used.get()).sum()
    }

    /// Free pipes that are kept.
    pub fn pipes_free(&self) -> u32 {
        let shards = self.snapshot.global.traffic.iter();
        shards.map(|shard| shard.pipes_free.get()).sum()
    }

    /// Name of this machine, as configured or from the system.
    pub fn node(&self) -> &str {
        let configured = self.snapshot.node.as_deref();
        configured.unwrap_or(&self.process.host)
    }

    /// Description of the process; empty when there is none.
    pub fn description(&self) -> &str {
        self.snapshot.description.as_deref().unwrap_or_default()
    }

    fn connections_total(&self) -> u64 {
        let own = self
            .snapshot
            .stats_live
            .traffic
            .sum(|traffic| &traffic.conn_tot);
        own + self
            .snapshot
            .global
            .traffic
            .sum(|traffic| &traffic.conn_tot)
    }

    /// Sessions so far: each connection is one, and each request to the statistics.
    fn requests_total(&self) -> u64 {
        let sessions = self
            .snapshot
            .global
            .traffic
            .sum(|traffic| &traffic.conn_tot);
        sessions + self.requests.total.get()
    }

    /// Addresses that are listened on.
    fn listeners(&self) -> u32 {
        let stats = self
            .snapshot
            .stats
            .as_ref()
            .map_or(0, |stats| stats.binds.len());
        let started = self
            .snapshot
            .frontends
            .iter()
            .flatten()
            .filter(|one| !one.spec.disabled);
        let all = stats + started.map(|one| one.spec.binds.len()).sum::<usize>();
        u32::try_from(all).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::test_snapshot::seed;
    use std::time::Duration;

    const TYPED: &str = include_str!("../testdata/haproxy-3.5-info-typed.txt");

    #[test]
    fn names_positions_and_letters_are_haproxys() {
        let theirs: Vec<String> = TYPED
            .lines()
            .map(|line| {
                let fields: Vec<&str> = line.splitn(4, ':').collect();
                fields[..3].join(":")
            })
            .collect();
        let ours: Vec<String> = ITEMS
            .iter()
            .map(|item| format!("{}.{}.1:{}", item.position, item.name, item.typed))
            .collect();
        assert_eq!(ours, theirs);
    }

    #[test]
    fn every_value_is_of_its_type() {
        let snapshot = seed(2);
        let process = Process::new(snapshot.global.start);
        let requests = Requests::default();
        let now = snapshot.global.start + Duration::from_secs(90_061);
        let facts = Facts {
            snapshot: &snapshot,
            process: &process,
            requests: &requests,
            now,
        };
        for item in &ITEMS {
            match ((item.value)(&facts), item.typed.split_once(':')) {
                (Value::Text(_), Some((_, "str"))) => {}
                (Value::Number(value), Some((_, kind))) => {
                    assert!(
                        kind == "u64" || kind == "u32" && u32::try_from(value).is_ok(),
                        "{}",
                        item.name
                    );
                }
                (value, _) => panic!("{}: {value:?}", item.name),
            }
        }
        assert_eq!(facts.uptime_text(), "1d 1h01m01s");
        assert_eq!(facts.tasks(), 2);
    }
}
