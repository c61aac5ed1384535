//! The process in the statistics: what never changes, and what is measured once a second. The admin thread
//! measures it, every encoder reads it.

use super::columns::Value;
use crate::live::rate::{Rate, per_second};
use crate::live::{FrontendLive, Traffic};
use crate::state::Snapshot;
use rustix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The version that consumers parse as HAProxy's: a version of HAProxy, then rlb's own.
pub const VERSION: &str = concat!("3.0.0-rlb", env!("CARGO_PKG_VERSION"));

/// The phase of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Not everything listens yet.
    Starting = 0,
    /// It accepts connections.
    Ready = 1,
    /// It accepts no more connections.
    Stopping = 2,
}

/// The process in the statistics.
#[derive(Debug)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Descriptor limit.
    pub nofile: u32,
    /// Name of this machine.
    pub host: String,
    /// Seconds since 1970 at the start.
    pub started: u64,
    phase: AtomicU8,
    idle_percent: AtomicU32,
    bytes_out_rate: AtomicU64,
    connections_max: AtomicU32,
}

impl Process {
    /// This process, which started at `start`.
    pub fn new(start: Instant) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the time of the start is shown as a date"
        )]
        let now = SystemTime::now();
        let started = now.checked_sub(start.elapsed()).unwrap_or(now);
        let started = started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let host = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        Self {
            pid: std::process::id(),
            nofile: crate::sys::limits::nofile(),
            host,
            started: started.as_secs(),
            phase: AtomicU8::new(Phase::Starting as u8),
            idle_percent: AtomicU32::new(100),
            bytes_out_rate: AtomicU64::new(0),
            connections_max: AtomicU32::new(0),
        }
    }

    /// The current phase.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Stopping,
        }
    }

    /// Enters `phase`; never goes back to an earlier one.
    pub fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Relaxed);
    }

    /// Idle time of the threads in the last second, in per cent.
    pub fn idle_percent(&self) -> u32 {
        self.idle_percent.load(Relaxed)
    }

    /// Bytes to clients and servers in the last second.
    pub fn bytes_out_rate(&self) -> u64 {
        self.bytes_out_rate.load(Relaxed)
    }

    /// Forgets the maxima so far. Called by the admin thread.
    pub fn clear_maxima(&self) {
        self.connections_max.store(0, Relaxed);
    }

    /// Most connections in one second so far.
    pub fn connections_max(&self) -> u32 {
        self.connections_max.load(Relaxed)
    }
}

/// Measures what changes, once a second.
#[derive(Debug)]
pub struct Sampler {
    at: Instant,
    busy: Duration,
    bytes_out: u64,
}

impl Sampler {
    /// Starts at `now`.
    pub fn new(snapshot: &Snapshot, now: Instant) -> Self {
        Self {
            at: now,
            busy: processor_time(),
            bytes_out: bytes_out(snapshot),
        }
    }

    /// Measures the time since the last sample.
    pub fn sample(&mut self, process: &Process, snapshot: &Snapshot, now: Instant) {
        let next = Self::new(snapshot, now);
        let passed = now.saturating_duration_since(self.at);
        let busy = next.busy.saturating_sub(self.busy);
        let available = passed.as_secs_f64() * f64::from(threads(snapshot));
        if available > 0.0 {
            process.idle_percent.store(idle(busy, available), Relaxed);
            let bytes = next.bytes_out.saturating_sub(self.bytes_out);
            process
                .bytes_out_rate
                .store(per_second_of(bytes, passed), Relaxed);
        }
        let rate = connections_per_second(snapshot, now);
        process.connections_max.fetch_max(rate, Relaxed);
        *self = next;
    }
}

/// In per cent. Threads other than the workers may use more time than the workers have.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "0 to 100"
)]
fn idle(busy: Duration, available: f64) -> u32 {
    (100.0 - 100.0 * busy.as_secs_f64() / available)
        .clamp(0.0, 100.0)
        .round() as u32
}

fn per_second_of(bytes: u64, passed: Duration) -> u64 {
    let millis = passed.as_millis().max(1);
    u64::try_from(u128::from(bytes) * 1000 / millis).unwrap_or(u64::MAX)
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos)
}

/// Bytes to clients and servers so far, those of the statistics included.
pub(super) fn bytes_out(snapshot: &Snapshot) -> u64 {
    let own = snapshot.stats_live.traffic.sum(|traffic| &traffic.bout);
    own + snapshot.global.traffic.sum(|traffic| &traffic.bytes_out)
}

/// Number of workers: counters have a shard for each, and one for the control thread.
pub(super) fn threads(snapshot: &Snapshot) -> u32 {
    let shards = snapshot.global.traffic.iter().count();
    u32::try_from(shards.saturating_sub(1))
        .unwrap_or(u32::MAX)
        .max(1)
}

/// Connections in the last second, those of the statistics included.
pub(super) fn connections_per_second(snapshot: &Snapshot, now: Instant) -> u32 {
    let now_ms = snapshot.global.millis(now);
    let rate = |live: &FrontendLive| {
        let shards = live.traffic.iter().map(rate_of as fn(&Traffic) -> &Rate);
        per_second(shards, now_ms)
    };
    let frontends = snapshot
        .frontends
        .iter()
        .flatten()
        .map(|frontend| rate(&frontend.live));
    frontends.fold(rate(&snapshot.stats_live), u32::saturating_add)
}

fn rate_of(traffic: &Traffic) -> &Rate {
    &traffic.conn_rate
}

/// Resident memory in bytes and open descriptors, from the kernel; absent where it does not tell.
pub(super) fn resources() -> (Value<'static>, Value<'static>) {
    let statm = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = statm.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let memory = pages.map_or(Value::Absent, |pages| Value::Number(pages * page));
    // Since Linux 6.2 the size of this directory is the number of its entries, so that no descriptor is needed.
    let open = std::fs::metadata("/proc/self/fd").map_or(0, |directory| directory.len());
    let open = if open == 0 {
        Value::Absent
    } else {
        Value::Number(open)
    };
    (memory, open)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::WorkerToken;
    use crate::stats::test_snapshot::seed;

    #[test]
    fn a_second_is_measured() {
        let snapshot = seed(1);
        let start = snapshot.global.start;
        let process = Process::new(start);
        let mut sampler = Sampler::new(&snapshot, start);
        let token = WorkerToken::new(1);
        snapshot.global.traffic.mine(&token).bytes_out.add(5000);
        for _ in 0..7 {
            snapshot.frontends[0]
                .as_ref()
                .unwrap()
                .live
                .traffic
                .mine(&token)
                .conn_rate
                .count(1);
        }
        sampler.sample(&process, &snapshot, start + Duration::from_secs(2));
        assert_eq!(process.bytes_out_rate(), 2500);
        assert_eq!(process.connections_max(), 7);
        assert!(process.idle_percent() <= 100);
        sampler.sample(&process, &snapshot, start + Duration::from_secs(9));
        assert_eq!(
            (process.bytes_out_rate(), process.connections_max()),
            (0, 7)
        );
        assert_eq!(idle(Duration::from_secs(1), 4.0), 75);
        assert_eq!(idle(Duration::from_secs(9), 4.0), 0);
    }

    #[test]
    fn phases_go_forward_only() {
        let process = Process::new(Instant::now());
        assert_eq!(process.phase(), Phase::Starting);
        process.enter(Phase::Stopping);
        process.enter(Phase::Ready);
        assert_eq!(process.phase(), Phase::Stopping);
    }
}
