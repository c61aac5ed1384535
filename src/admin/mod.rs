//! The admin thread: the stats listener and the runtime socket. It has a runtime of its own, so that a page of
//! ten thousand servers delays neither traffic nor checks, and neither of them delays the page.
//!
//! Started by the composition root. Reads snapshots and counters; writes only the counters of the stats proxy,
//! as their only writer.

mod accept;
mod action;
mod auth;
mod connection;
mod header;
mod http;
mod listeners;
mod ready;
mod request_line;
pub mod runtime;
mod target;

use crate::config::model::Bind;
use crate::control::admin_listeners::{AdminListener, ListenerChange};
use crate::live::{LogQueue, WorkerToken};
use crate::state::Snapshot;
use crate::stats::{Phase, Process, Requests, Sampler};
use crate::sys::limits::DescriptorReserve;
use action::Actions;
use arc_swap::ArcSwap;
use connection::Timeouts;
use runtime::Runtime;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often the process is measured.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// How much longer than its limit a stop waits for the thread to end.
const STOP_SLACK: Duration = Duration::from_millis(500);

/// The running admin thread.
#[derive(Debug)]
pub struct Handle {
    stop: CancellationToken,
    process: Arc<Process>,
    limit: SyncSender<Duration>,
    ended: Receiver<()>,
}

/// What all tasks of the thread share.
struct Shared {
    snapshot: Arc<ArcSwap<Snapshot>>,
    reserve: Arc<DescriptorReserve>,
    /// Shard 0 of the stats proxy's counters, which no worker writes. Never used for another object.
    token: WorkerToken,
    requests: Arc<Requests>,
    log: LogQueue,
    process: Arc<Process>,
    timeouts: Timeouts,
    connections: accept::Connections,
    actions: Actions,
    /// Notified when a connection has ended.
    freed: Notify,
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Shared {
    /// Whether requests that came over `bind` have lines in the log.
    fn logs_requests(&self, bind: &Bind) -> bool {
        let snapshot = self.snapshot.load();
        let page = snapshot.stats.as_ref().and_then(|it| it.page_at(bind));
        page.is_some_and(|page| page.log)
    }

    /// Milliseconds of the process's clock.
    fn millis(&self) -> u64 {
        self.snapshot.load().global.millis(Instant::now())
    }

    /// Seconds of the process's clock.
    fn second(&self) -> u32 {
        u32::try_from(self.millis() / 1000).unwrap_or(u32::MAX - 1)
    }
}

/// The sockets of the thread.
#[derive(Debug)]
pub struct AdminListenerSet {
    /// For the statistics.
    pub open: Vec<AdminListener>,
    /// Changes of them by reloads.
    pub changes: mpsc::Receiver<ListenerChange>,
    /// For commands; `None` in tests.
    pub runtime: Option<Runtime>,
}

/// Starts the admin thread. The limit of connections is that of the newest snapshot.
///
/// # Errors
/// When the system refuses a thread or an event loop.
pub fn spawn(
    listeners: AdminListenerSet,
    (snapshot, log): (Arc<ArcSwap<Snapshot>>, LogQueue),
    reserve: Arc<DescriptorReserve>,
) -> io::Result<Handle> {
    let runtime_api = listeners.runtime.as_ref();
    let control = runtime_api.map(|it| (it.control.clone(), it.reload.clone()));
    let actions = Actions::new(control);
    launch(
        listeners,
        (snapshot, log),
        reserve,
        (actions, Timeouts::default()),
    )
}

fn launch(
    listeners: AdminListenerSet,
    (snapshot, log): (Arc<ArcSwap<Snapshot>>, LogQueue),
    reserve: Arc<DescriptorReserve>,
    (actions, timeouts): (Actions, Timeouts),
) -> io::Result<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let process = Arc::new(Process::new(snapshot.load().global.start));
    let shown = Arc::clone(&process);
    let (limit, limits) = sync_channel(1);
    let (done, ended) = sync_channel(1);
    std::thread::Builder::new()
        .name("admin".into())
        .spawn(move || {
            let shared = Rc::new(Shared {
                snapshot,
                reserve,
                token: WorkerToken::new(0),
                requests: Arc::new(Requests::default()),
                log,
                process: shown,
                timeouts,
                connections: accept::Connections::default(),
                actions,
                freed: Notify::new(),
                stop: stopped,
                tracker: TaskTracker::new(),
            });
            let local = LocalSet::new();
            local.block_on(&runtime, run(shared, listeners, limits));
            // The limit of the stop has passed: the remaining connections end here.
            drop(local);
            drop(done);
        })?;
    Ok(Handle {
        stop,
        process,
        limit,
        ended,
    })
}

impl Handle {
    /// The process has entered `phase`, which `/readyz` and the statistics show from now on.
    pub fn enter(&self, phase: Phase) {
        self.process.enter(phase);
    }

    /// Ends the thread: it stops accepting, finishes answers in progress, and closes the rest after `limit`.
    /// `false` when it has not ended even then.
    pub fn stop(self, limit: Duration) -> bool {
        // An error means that the thread has ended.
        let _ = self.limit.try_send(limit);
        self.stop.cancel();
        !matches!(
            self.ended.recv_timeout(limit + STOP_SLACK),
            Err(RecvTimeoutError::Timeout)
        )
    }
}

async fn run(shared: Rc<Shared>, listeners: AdminListenerSet, limits: Receiver<Duration>) {
    if let Some(runtime) = listeners.runtime {
        runtime::start(&shared, runtime);
    }
    let serving = listeners::run(Rc::clone(&shared), listeners.open, listeners.changes);
    shared.tracker.spawn_local(serving);
    sample(&shared).await;
    shared.tracker.close();
    let limit = limits.try_recv().unwrap_or_default();
    // The caller ends the remaining connections.
    let _ = tokio::time::timeout(limit, shared.tracker.wait()).await;
}

/// Measures the process once a second, until the stop.
async fn sample(shared: &Shared) {
    let mut sampler = Sampler::new(&shared.snapshot.load_full(), Instant::now());
    let mut ticks = tokio::time::interval(SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = ticks.tick() => {
                let snapshot = shared.snapshot.load_full();
                sampler.sample(&shared.process, &snapshot, Instant::now());
            }
        }
    }
}

/// Parses `target`, the path and query of a request, like the stats listener, and checks the result. For
/// fuzzing: it must not panic.
#[doc(hidden)]
pub fn exercise_target(target: &str) {
    for uri in ["/", "/haproxy?stats"] {
        let page = crate::config::model::StatsPage {
            uri: uri.into(),
            ..Default::default()
        };
        let (resource, view) = target::parse(&hyper::Method::GET, target, &page);
        assert!(resource.is_guarded() || !resource.is_of_the_page());
        let scope = view.filter.scope.unwrap_or_default();
        assert!(scope.len() <= 4 * crate::stats::filter::SCOPE_BYTES_MAX);
    }
}

/// Parses `body` like that of a POST to the page, and changes nothing. For fuzzing: it must not panic.
#[doc(hidden)]
pub fn exercise_form(body: &[u8]) {
    action::exercise(body);
}

#[cfg(test)]
mod tests;
