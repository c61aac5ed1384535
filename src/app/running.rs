//! What runs after the start, until a signal or an upgrade ends it, and the steps of the end. Control thread.
//!
//! Invariant: a stop never waits without a bound that the configuration or an operator sets.

use super::core::Core;
use super::signals::{Signals, Stop};
use crate::admin;
use crate::control::handover::{PassedConnection, ReporterParts};
use crate::control::reload::{HandedOver, ReloadExit, ReloadHandle};
use crate::control::server_events;
use crate::state::{Snapshot, ToControl};
use crate::stats::Phase;
use crate::sys::service_manager::ServiceManager;
use crate::worker;
use arc_swap::ArcSwap;
use rustix::process::Signal;
use sd_notify::NotifyState;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::Sender;
use tokio::task::{JoinHandle as Task, spawn_blocking};
use tokio_util::sync::CancellationToken;

/// How long the log thread may take to write what is queued at the end of the process.
const LOG_FLUSH_MAX: Duration = Duration::from_secs(1);
/// How long answers of the stats listener that are in progress may take after all sessions have ended.
const ADMIN_STOP_MAX: Duration = Duration::from_millis(500);
/// How long the service manager may take to read its last messages at the end.
const MANAGER_FLUSH_MAX: Duration = Duration::from_millis(100);

/// Everything that runs.
pub(super) struct Running {
    pub(super) signals: Signals,
    pub(super) core: Core,
    pub(super) stops: Stops,
    pub(super) threads: Vec<JoinHandle<()>>,
    pub(super) admin: admin::Handle,
    /// Connections of a newer process's runtime socket, for the admin thread.
    pub(super) passed: Sender<PassedConnection>,
    pub(super) control: Task<()>,
    pub(super) reload: ReloadHandle,
    /// Returns the log for its end. Ends without a stop only after a handover.
    pub(super) reloads: Task<ReloadExit>,
    pub(super) watchdog: Option<Task<()>>,
    pub(super) manager: ServiceManager,
}

impl Running {
    /// Waits for a signal to stop or for the end of a handover, and stops everything in order. Returns the signal
    /// that has ended it at once.
    pub(super) async fn until_stopped(mut self) -> Option<Signal> {
        // The reload task drops the listening sockets when it ends, so that they close when the workers no
        // longer need them. A panic of that task would have ended the process.
        let (signal, left) = tokio::select! {
            // A signal that came before the end of a handover is still passed on.
            biased;
            how = self.signals.stop(&self.reload, &self.core.snapshot) => {
                self.admin.enter(Phase::Stopping);
                self.manager.notify(&[NotifyState::Stopping]);
                if self.signals.leaves_admin() {
                    self.stops.admin.cancel();
                }
                self.stops.reloads.cancel();
                (Some(how), (&mut self.reloads).await.ok())
            }
            left = &mut self.reloads => (None, left.ok()),
        };
        let (log, handed_over) = match left {
            Some(left) => (Some(left.log), left.handed_over),
            None => (None, None),
        };
        // Before the workers may end: none of them takes a session after its end.
        self.core.old_processes.stop_taking_sessions().await;
        let is_old = handed_over.is_some();
        let mut reports = None;
        let mut end = End {
            // After a handover nobody has told this process to stop.
            signal,
            is_old,
            reload: &self.reload,
            limit: Limit::none(),
            hard_stop_after: self.core.snapshot.load().hard_stop_after,
        };
        if let Some(handed_over) = handed_over {
            end.limit = Limit::new("upgrade-stop-after", handed_over.limit);
            reports = Some(self.leave(handed_over).await);
        } else {
            tracing::info!("stopping");
            self.core.control.report(ToControl::Stopping).await;
            let how = signal.unwrap_or(Stop::Soft);
            end.signal =
                Some(withdraw(how, (&mut self.signals, &self.reload), &self.core.snapshot).await);
            let snapshot = self.core.snapshot.load_full();
            for line in server_events::proxies_stopped(&snapshot) {
                line.log(&self.core.log);
            }
            end.hard_stop_after = snapshot.hard_stop_after;
        }
        let ended_by = end_sessions(end, &mut self.signals, &self.stops, self.threads).await;
        if let Some(watchdog) = self.watchdog {
            watchdog.abort();
        }
        if let Some((reports, ended)) = reports {
            ended.cancel();
            // A panic there would be logged.
            let _ = reports.await;
        }
        self.stops.checks.cancel();
        let _ = self.control.await;
        self.admin.stop(ADMIN_STOP_MAX);
        drop((self.core, self.reload));
        if let Some(log) = log {
            log.stop(LOG_FLUSH_MAX);
        }
        self.manager.flush(MANAGER_FLUSH_MAX);
        if is_old {
            tracing::info!("old process ended");
        } else {
            tracing::info!("stopped");
        }
        match ended_by {
            Some(Stop::Now(signal)) => Some(signal),
            Some(Stop::Soft) | None => None,
        }
    }

    /// After a handover the other process checks, decides and reports; this one has only its sessions left. The
    /// other process accepts what waits in the sockets, except for those of the listeners in `left`. Returns the
    /// task that tells it of the sessions, and what tells that task that they have ended.
    async fn leave(&self, handed_over: HandedOver) -> (Task<()>, CancellationToken) {
        let HandedOver {
            moves,
            mut reporter,
            left,
            ..
        } = handed_over;
        let sessions = self.core.global.active.get();
        tracing::info!(sessions, "no new sessions here; those that run go on");
        if !left.is_empty() {
            // Others may take their place, and listen once it serves.
            reporter.wait_until_followed().await;
        }
        self.core.workers.handed_over(left).await;
        self.core.control.report(ToControl::HandedOver).await;
        if let Some(watchdog) = &self.watchdog {
            watchdog.abort();
        }
        let parts = ReporterParts {
            snapshot: Arc::clone(&self.core.snapshot),
            old_processes: self.core.old_processes.clone(),
            passed: self.passed.clone(),
            serving: self.reload.serving(),
            moving: moves.then(|| self.core.workers.clone()),
        };
        let ended = CancellationToken::new();
        let reports = tokio::task::spawn_local(reporter.run(parts, ended.clone()));
        (reports, ended)
    }
}

/// The steps of a stop, in order.
#[derive(Default)]
pub(super) struct Stops {
    /// Ends reloads.
    pub(super) reloads: CancellationToken,
    /// Cancelled before `reloads`: the statistics and the runtime socket end with them.
    pub(super) admin: CancellationToken,
    /// Ends accepting, and then all sessions.
    pub(super) workers: worker::Stops,
    /// Ends checks and the control task.
    pub(super) checks: CancellationToken,
}

/// Waits while everything still listens, so that those who ask `/readyz` stop sending clients. A further signal
/// ends the wait.
async fn withdraw(
    how: Stop,
    (signals, reload): (&mut Signals, &ReloadHandle),
    snapshot: &ArcSwap<Snapshot>,
) -> Stop {
    let stats = snapshot.load_full().stats.clone();
    let delay = stats.map_or(Duration::ZERO, |stats| stats.readiness.withdraw_delay);
    if how != Stop::Soft || delay.is_zero() {
        return how;
    }
    tracing::info!(?delay, "stopping: not ready any more, still listening");
    tokio::select! {
        () = tokio::time::sleep(delay) => how,
        now = signals.now(reload) => now,
    }
}

/// How long the sessions that are left may go on.
#[derive(Debug, Clone, Copy)]
struct Limit {
    /// The key that says so.
    key: &'static str,
    /// `None`: for ever.
    at: Option<Instant>,
}

impl Limit {
    fn none() -> Self {
        Self { key: "", at: None }
    }

    /// `key` says that they may go on for `time` from now on.
    fn new(key: &'static str, time: Option<Duration>) -> Self {
        // A time that the clock cannot hold is for ever.
        let at = time.and_then(|time| Instant::now().checked_add(time));
        Self { key, at }
    }

    /// The one that is over first.
    fn or_earlier(self, other: Self) -> Self {
        match (self.at, other.at) {
            (Some(mine), Some(theirs)) if mine <= theirs => self,
            (Some(_), None) => self,
            _ => other,
        }
    }

    async fn over(self) {
        match self.at {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    }
}

/// How the sessions are to end.
#[derive(Debug)]
struct End<'a> {
    /// The signal that has stopped this process; `None`: it has handed over.
    signal: Option<Stop>,
    /// It has handed over.
    is_old: bool,
    /// Knows which process serves then.
    reload: &'a ReloadHandle,
    /// The limit without a signal.
    limit: Limit,
    /// How long they may go on after a signal.
    hard_stop_after: Option<Duration>,
}

impl End<'_> {
    /// Waits for a signal that ends the sessions earlier. A stop of an old process is as any other: it begins with
    /// a signal.
    async fn signal(&self, signals: &mut Signals) -> Stop {
        if self.is_old && self.signal.is_none() {
            return signals.stop_old(self.reload).await;
        }
        signals.now(self.reload).await
    }
}

/// Stops accepting and waits until the sessions have ended, their limit is over, or a signal ends them. Returns the
/// last signal that told it to stop.
async fn end_sessions(
    mut end: End<'_>,
    signals: &mut Signals,
    stops: &Stops,
    threads: Vec<JoinHandle<()>>,
) -> Option<Stop> {
    stops.workers.drain.cancel();
    let ended = spawn_blocking(move || {
        for thread in threads {
            // A worker's panic ends the process, so there is no error here.
            let _ = thread.join();
        }
    });
    tokio::pin!(ended);
    if end.signal.is_some() {
        let from_now = Limit::new("hard-stop-after", end.hard_stop_after);
        end.limit = end.limit.or_earlier(from_now);
    }
    if !end.signal.is_some_and(Stop::is_now) {
        tracing::info!("waiting for the sessions that run");
        loop {
            let limit = end.limit;
            tokio::select! {
                _ = &mut ended => return end.signal,
                () = limit.over() => {
                    tracing::warn!("{} is over: ending the sessions left", limit.key);
                    break;
                }
                how = end.signal(signals) => {
                    end.signal = Some(how);
                    if how.is_now() {
                        tracing::warn!("told to stop now: ending the sessions left");
                        break;
                    }
                    let from_now = Limit::new("hard-stop-after", end.hard_stop_after);
                    end.limit = limit.or_earlier(from_now);
                    tracing::info!("old process stopping: a second SIGTERM ends its sessions");
                }
            }
        }
    }
    stops.workers.kill.cancel();
    let _ = ended.await;
    end.signal
}
