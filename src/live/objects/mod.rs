//! The counters of the process, of a frontend, of a backend and of a server.
//!
//! All threads share them through `Arc`; a name keeps them over reloads.

pub mod queue;

use super::accept_rate::AcceptRate;
use super::check_report::LastCheck;
use super::connect_time::{ConnectTime, Tick};
use super::counters::Traffic;
use super::failed_connects::FailedConnects;
use super::failures::{FailedSessions, FailureReports, Shortages, Throttle};
use super::gauge::Gauge;
use super::load::Load;
use super::load_order::OrderPlace;
use super::old_processes::OldProcess;
use super::reloads::Reloads;
use super::retry_budget::RetryBudget;
use super::sharded::{Counter, Level, Shards};
use super::source_failures::SourceFailures;
use super::termination::Cause;
use crate::live::timing::{millis, nanos};
use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;
use queue::Queue;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Connects in a row that fail before a server is suspected.
pub const SUSPECT_AFTER: u32 = 3;

/// Pipes of one worker, in use and kept, unless the descriptor limit allows fewer.
pub use crate::config::descriptors::PIPES_MAX;

/// Process-wide counts of one shard.
#[derive(Debug, Default)]
pub struct GlobalTraffic {
    /// Connections accepted (`CumConns`).
    pub conn_tot: Counter,
    /// Bytes to clients and to servers (`TotalBytesOut`).
    pub bytes_out: Counter,
    /// Those of them that went through a pipe (`TotalSplicedBytesOut`).
    pub spliced_out: Counter,
    /// Pipes with bytes that a slow reader has not taken (`PipesUsed`).
    pub pipes_used: Level,
    /// Free pipes that are kept (`PipesFree`).
    pub pipes_free: Level,
    /// Times accepting paused because a limit was reached (`MaxconnReached`).
    pub paused: Counter,
    /// Shortages on this machine.
    pub shortages: Shortages,
}

/// The counters of the whole process.
#[derive(Debug)]
pub struct GlobalLive {
    /// Start of the process's clock: all times here are relative to it.
    pub start: Instant,
    /// Sessions now, without those of the stats proxy (`CurrConns`).
    pub active: Gauge,
    /// Sessions of each worker.
    pub load: Load,
    /// Workers that have paused accepting and wait for a slot.
    pub waiting: AtomicUsize,
    /// Notified when a slot is freed and [`GlobalLive::waiting`] is not 0.
    pub freed: Notify,
    /// Log lines that were dropped because the log thread could not follow (`DroppedLogs`).
    pub dropped_logs: AtomicU64,
    /// Counts and results of reloads.
    pub reloads: Reloads,
    /// Processes before this one that still have sessions, the newest first.
    pub old_processes: ArcSwap<Vec<OldProcess>>,
    /// Per-shard counts.
    pub traffic: Shards<GlobalTraffic>,
    /// Most pipes of one worker, used and free (`Maxpipes` is the sum of all workers).
    pub pipes_max: u32,
    /// Set while descriptors that are kept back for health checks and the statistics are lent. Workers open no
    /// descriptor then.
    pub reserve_lent: Arc<AtomicBool>,
    /// Connections of the last two seconds, while their rate is limited.
    pub accept_rate: AcceptRate,
    /// How often a source address could not be used.
    pub source_failures: SourceFailures,
    /// Limits the log events about failures.
    pub(super) reports: FailureReports,
}

impl GlobalLive {
    /// All counters at 0, for `shards` writing threads.
    pub fn new(start: Instant, shards: usize) -> Self {
        Self {
            start,
            active: Gauge::default(),
            load: Load::new(shards),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
            dropped_logs: AtomicU64::new(0),
            reloads: Reloads::default(),
            old_processes: ArcSwap::default(),
            traffic: Shards::new(shards),
            pipes_max: PIPES_MAX,
            reserve_lent: Arc::default(),
            accept_rate: AcceptRate::default(),
            source_failures: SourceFailures::default(),
            reports: FailureReports::default(),
        }
    }

    /// The same with this many pipes per worker, and the flag that descriptors kept back are lent.
    #[must_use]
    pub fn with_descriptors(self, pipes_max: u32, reserve_lent: Arc<AtomicBool>) -> Self {
        Self {
            pipes_max,
            reserve_lent,
            ..self
        }
    }

    /// Whether workers may open descriptors: none of those that are kept back is lent.
    ///
    /// # Hot path: a load of a value that is hardly ever written.
    pub fn may_take_descriptors(&self) -> bool {
        !self.reserve_lent.load(Relaxed)
    }

    /// Milliseconds from the start of the process to `now`.
    pub fn millis(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.start))
    }

    /// Nanoseconds from the start of the process to `time`; below 0 of a session that began in an earlier process.
    pub fn nanos(&self, time: Instant) -> i64 {
        let signed = |time| i64::try_from(nanos(time)).unwrap_or(i64::MAX);
        match time.checked_duration_since(self.start) {
            Some(after) => signed(after),
            None => -signed(self.start.duration_since(time)),
        }
    }

    /// The time that has these nanoseconds.
    pub fn instant(&self, nanos: i64) -> Instant {
        let distance = Duration::from_nanos(nanos.unsigned_abs());
        let time = if nanos < 0 {
            self.start.checked_sub(distance)
        } else {
            self.start.checked_add(distance)
        };
        time.unwrap_or(self.start)
    }
}

/// The counters of a frontend.
#[derive(Debug)]
pub struct FrontendLive {
    /// Its name.
    pub name: Arc<str>,
    /// Sessions now (`scur`).
    pub active: Gauge,
    /// Per-shard counts.
    pub traffic: Shards<Traffic>,
    /// Connections of the last two seconds, while their rate is limited.
    pub accept_rate: AcceptRate,
    /// Most sessions in one second so far (`rate_max`); control thread only.
    pub rate_max: AtomicU32,
    /// Most connections in one second so far (`conn_rate_max`); control thread only.
    pub conn_rate_max: AtomicU32,
    /// Limits the log events about its `maxconn`.
    pub(super) maxconn_report: Throttle,
}

impl AsRef<Self> for FrontendLive {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl FrontendLive {
    /// All counters at 0.
    pub fn new(name: Arc<str>, shards: usize) -> Self {
        Self {
            name,
            active: Gauge::default(),
            traffic: Shards::new(shards),
            accept_rate: AcceptRate::default(),
            rate_max: AtomicU32::new(0),
            conn_rate_max: AtomicU32::new(0),
            maxconn_report: Throttle::default(),
        }
    }
}

/// The counters of a backend.
#[derive(Debug)]
pub struct BackendLive {
    /// Its name.
    pub name: Arc<str>,
    /// Sessions now (`scur`), those that wait for a slot included.
    pub active: Arc<Gauge>,
    /// Its sessions that wait for a slot.
    pub queue: Arc<Queue>,
    /// Per-shard counts.
    pub traffic: Shards<Traffic>,
    /// Sessions that got no server, by cause.
    pub failed_sessions: Shards<FailedSessions>,
    /// How many retries its sessions may make.
    pub retries: RetryBudget,
    /// Most sessions in one second so far (`rate_max`); control thread only.
    pub rate_max: AtomicU32,
    /// Cursor of the round robin: advances once per session.
    pub cursor: CachePadded<AtomicUsize>,
    /// When it came to be. The times of connects are relative to it.
    begun: Instant,
}

impl BackendLive {
    /// All counters at 0.
    pub fn new(name: Arc<str>, shards: usize) -> Self {
        let active = Arc::<Gauge>::default();
        Self {
            name,
            queue: Arc::new(Queue::new(Arc::clone(&active))),
            active,
            traffic: Shards::new(shards),
            failed_sessions: Shards::new(shards),
            retries: RetryBudget::default(),
            rate_max: AtomicU32::new(0),
            cursor: CachePadded::new(AtomicUsize::new(0)),
            begun: Instant::now(),
        }
    }

    /// `now` as [`ServerLive::connect_time`] of its servers has it.
    pub fn tick(&self, now: Instant) -> Tick {
        Tick::of(now, self.begun)
    }
}

/// The counters of a server.
#[derive(Debug)]
pub struct ServerLive {
    /// Identifies this server for the life of the process.
    pub uid: u64,
    /// Sessions now (`scur`).
    pub active: Gauge,
    /// The queues of its backend.
    pub queue: Arc<Queue>,
    /// Sessions that wait for it alone (`qcur`). Written under the lock of the queue.
    pub queued: AtomicU32,
    /// Per-shard counts.
    pub traffic: Shards<Traffic>,
    /// Most sessions in one second so far (`rate_max`); control thread only.
    pub rate_max: AtomicU32,
    /// The last check; the control thread writes it.
    pub check: LastCheck,
    /// Failed connects since the last that succeeded.
    failed_connects: FailedConnects,
    /// Picked last until a check or a connect succeeds.
    suspect: AtomicBool,
    /// Smoothed time of a connect, µs; 0 before the first.
    usual_connect: AtomicU32,
    /// How long connects take, where its backend chooses by that.
    pub connect_time: ConnectTime,
    /// Where it is in the order of loads of its backend.
    pub order: OrderPlace,
    /// Connections that were begun from a configured source address.
    pub source_turn: AtomicU32,
    /// When all its sessions were ended last, and why.
    sessions_ended: Mutex<Option<(Instant, Cause)>>,
}

impl ServerLive {
    /// All counters at 0, for a server of the backend with these queues.
    pub fn new(queue: &Arc<Queue>, shards: usize) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            uid: NEXT.fetch_add(1, Relaxed),
            active: Gauge::default(),
            queue: Arc::clone(queue),
            queued: AtomicU32::new(0),
            traffic: Shards::new(shards),
            rate_max: AtomicU32::new(0),
            check: LastCheck::default(),
            failed_connects: FailedConnects::default(),
            suspect: AtomicBool::new(false),
            usual_connect: AtomicU32::new(0),
            connect_time: ConnectTime::default(),
            order: OrderPlace::default(),
            source_turn: AtomicU32::new(0),
            sessions_ended: Mutex::new(None),
        }
    }

    /// What algorithms compare that choose by load: its sessions, those that connect or wait for it included.
    pub fn load(&self) -> u32 {
        self.active.get() + self.queued.load(Relaxed)
    }

    /// Its load has changed. To be called after each change.
    ///
    /// # Hot path: a load of a value that is hardly ever written, unless its backend chooses by the order of loads.
    #[inline]
    pub(super) fn load_changed(&self) {
        self.order.changed(|| self.load());
    }

    /// All sessions that it has had until `now` end. To be called before the workers are told so.
    pub fn end_sessions(&self, now: Instant, cause: Cause) {
        *self.sessions_ended() = Some((now, cause));
    }

    /// Why a session that it has had since `established` has to end, if it has. For a session that comes to a worker
    /// which may have ended those that it had before.
    pub fn ended_since(&self, established: Instant) -> Option<Cause> {
        let ended = *self.sessions_ended();
        let (_, cause) = ended.filter(|(at, _)| established <= *at)?;
        Some(cause)
    }

    fn sessions_ended(&self) -> MutexGuard<'_, Option<(Instant, Cause)>> {
        let ended = self.sessions_ended.lock();
        ended.unwrap_or_else(PoisonError::into_inner)
    }

    /// A connect has failed by the server's fault, or got no answer in time. `true` when the server becomes
    /// suspected now; it is to be checked at once.
    pub fn connect_failed(&self) -> bool {
        self.failed_connects.add() >= SUSPECT_AFTER && !self.suspect.swap(true, Relaxed)
    }

    /// The same for a server whose failed connects count for its health (`observe`). `Some`: these are as many in a row
    /// as its `error-limit`, or more; control is to be told, and they begin again.
    pub fn connect_error(&self, limit: u32) -> Option<u32> {
        self.failed_connects.add_error(limit)
    }

    /// Control could not be told of so many errors: the next error tells it.
    pub fn errors_not_told(&self, errors: u32) {
        self.failed_connects.put_back(errors);
    }

    /// A check has passed, wherever it connects to: as in HAProxy errors before it do not count.
    pub fn clear_errors(&self) {
        self.failed_connects.clear_errors();
    }

    /// A connect has succeeded after `took`: the server is trusted, and its usual time is updated.
    pub fn connect_succeeded(&self, took: Duration) {
        // Plain stores: workers that race may lose a sample of the smoothing, never a verdict.
        if !self.failed_connects.is_none() {
            self.trust();
        }
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        let usual = self.usual_connect.load(Relaxed);
        let next = if usual == 0 {
            micros
        } else {
            usual - usual / 8 + micros / 8
        };
        self.usual_connect.store(next.max(1), Relaxed);
    }

    /// A connect has `waited` so long without an answer: the next one waits longer, so that a server that has become slow
    /// is not given up again and again. Four times the usual time become `most` at most.
    pub fn connect_unanswered(&self, waited: Duration, most: Duration) {
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let usual = self.usual_connect.load(Relaxed);
        let longer = (usual - usual / 8).saturating_add(micros(waited) / 4);
        let longer = longer.min(micros(most / 4));
        if usual != 0 && usual < longer {
            self.usual_connect.store(longer, Relaxed);
        }
    }

    /// A check has passed, or the server was put back into service: earlier failures no longer count.
    pub fn trust(&self) {
        // Workers read these. A store of the same value would take the cache line from them.
        if !self.failed_connects.is_none() || self.is_suspect() {
            self.failed_connects.clear();
            self.suspect.store(false, Relaxed);
        }
    }

    /// Whether the server is known to listen: the last connect was answered.
    pub fn is_answering(&self) -> bool {
        self.failed_connects.is_none() && self.usual_connect.load(Relaxed) != 0
    }

    /// Whether it is picked last.
    pub fn is_suspect(&self) -> bool {
        self.suspect.load(Relaxed)
    }

    /// Usual time of a connect; zero before the first.
    pub fn usual_connect(&self) -> Duration {
        Duration::from_micros(u64::from(self.usual_connect.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_failure_in_a_row_makes_a_suspect_and_is_reported_once() {
        let server = ServerLive::new(&Arc::default(), 1);
        assert!(!server.connect_failed());
        assert!(!server.connect_failed());
        server.connect_succeeded(Duration::from_millis(1));
        assert!(!server.connect_failed());
        assert!(!server.connect_failed());
        assert!(!server.is_suspect());
        assert!(server.connect_failed());
        assert!(!server.connect_failed(), "told only once");
        assert!(server.is_suspect());
        server.trust();
        assert!(!server.is_suspect());
    }

    #[test]
    fn the_usual_connect_time_follows_the_link() {
        let server = ServerLive::new(&Arc::default(), 1);
        assert_eq!(server.usual_connect(), Duration::ZERO);
        server.connect_succeeded(Duration::from_millis(8));
        assert_eq!(server.usual_connect(), Duration::from_millis(8));
        for _ in 0..200 {
            server.connect_succeeded(Duration::from_millis(80));
        }
        let usual = server.usual_connect();
        assert!(usual > Duration::from_millis(79) && usual <= Duration::from_millis(80));
    }
}
