//! The composition root: starts everything in order, waits for signals, and stops everything in order.
//!
//! Runs on the main thread, which becomes the control thread. Invariants: nothing is announced before it is
//! true (READY=1 comes after signal handlers, sockets, workers and checks), and a stop never waits without a
//! bound.

mod signals;
mod start;
mod watchdog;

pub use start::{SignalMeaning, Start};

use crate::admin::{self, AdminListenerSet, runtime::Runtime};
use crate::config::descriptors::{self, TooFewDescriptors};
use crate::config::model::Config;
use crate::config::{Files, InputFiles, Limits};
use crate::control::admin_listeners::{
    self, AdminListener, AdminListeners, ListenerChange, RuntimeListener, RuntimePlace,
    RuntimeSocket,
};
use crate::control::handover::{
    OldProcesses, PASSED_MAX, PassedConnection, Predecessor, Program, Reporter, ReporterParts,
};
use crate::control::inherited::Inherited;
use crate::control::listeners::Listeners;
use crate::control::reload::{HandedOver, ReloadExit, ReloadHandle, ReloadState, Source, maxconn};
use crate::control::{Control, Parts as ControlParts, server_events};
use crate::live::pulse::Pulse;
use crate::live::{GlobalLive, LogQueue, WorkerToken};
use crate::log::Log;
use crate::state::snapshot::Origin;
use crate::state::{ControlHandle, ServerState, Snapshot, ToControl};
use crate::stats::Phase;
use crate::sys::abort::AbortOnPanic;
use crate::sys::limits::{self, DescriptorReserve};
use crate::sys::service_manager::ServiceManager;
use crate::worker;
use crate::worker::order::{Order, Workers};
use arc_swap::ArcSwap;
use sd_notify::NotifyState;
use signals::{Signals, Stop};
use std::fmt::Write as _;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle as Task, spawn_blocking};
use tokio_util::sync::CancellationToken;
use watchdog::Watchdog;

/// How long the log thread may take to write what is queued at the end of the process.
const LOG_FLUSH_MAX: Duration = Duration::from_secs(1);
/// How long answers of the stats listener that are in progress may take after all sessions have ended.
const ADMIN_STOP_MAX: Duration = Duration::from_millis(500);

/// How long the service manager may take to read its last messages at the end.
const MANAGER_FLUSH_MAX: Duration = Duration::from_millis(100);

/// Why rlb cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused something that rlb needs.
    #[error("{what}: {error}")]
    System {
        /// What was refused.
        what: &'static str,
        /// The system's error.
        error: io::Error,
    },
    /// The descriptor limit is too low.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// Addresses that cannot be listened on.
    #[error("{}", told(.0))]
    Listen(Vec<String>),
}

/// Addresses that a failed start names; of more it tells the number.
const TOLD_MAX: usize = 8;

/// All problems in one line.
fn told(problems: &[String]) -> String {
    let shown = &problems[..problems.len().min(TOLD_MAX)];
    let mut text = shown.join("; ");
    if problems.len() > TOLD_MAX {
        let _ = write!(text, "; and {} more", problems.len() - TOLD_MAX);
    }
    text
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::System { what, error }
}

/// The configuration to start with, and its origin.
#[derive(Debug)]
pub struct RunOptions {
    /// The configuration.
    pub config: Config,
    /// Its files, which reloads read again.
    pub input: InputFiles,
    /// The files that were read.
    pub files: Files,
    /// The limits that the configuration was checked against.
    pub limits: Limits,
    /// The program that an upgrade starts; `None`: an upgrade is not possible.
    pub program: Option<Program>,
    /// The process to take over from, if it has started this one.
    pub predecessor: Option<Predecessor>,
    /// How the process was started.
    pub start: Start,
}

/// Runs until a signal or an upgrade ends it.
///
/// # Errors
/// When it cannot start. After the start it has no errors.
pub fn run(options: RunOptions) -> Result<(), Error> {
    // First, because the sockets that are taken over may be more than the soft limit allows.
    let nofile = limits::raise_nofile().map_err(system("cannot raise the descriptor limit"))?;
    let capacity = descriptors::capacity(&options.config, u64::from(nofile))?;
    let manager = ServiceManager::of_this_process().map_err(system(
        "cannot start the thread that talks to the service manager",
    ))?;
    let inherited = match &options.predecessor {
        None => (
            Inherited::receive(&options.config, manager.clone(), options.start.old.clone()),
            Vec::new(),
        ),
        Some(predecessor) => Inherited::take_over(predecessor, &options.config, manager.clone())
            .map_err(system("cannot take over"))?,
    };
    let reserve = DescriptorReserve::new().map_err(system("cannot keep descriptors back"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .map_err(system("cannot make the control thread's runtime"))?;
    let result = runtime.block_on(async {
        let limits = DescriptorLimits {
            nofile,
            pipes: capacity.pipes,
            reserve: Arc::new(reserve),
        };
        start(options, limits, (manager, inherited))
            .await?
            .until_stopped()
            .await;
        Ok(())
    });
    // A name that is still being resolved must not delay the end.
    runtime.shutdown_background();
    result
}

/// Descriptors and their limit.
struct DescriptorLimits {
    /// The limit.
    nofile: u32,
    /// Pipes of each worker.
    pipes: u32,
    /// Kept back for health checks and the statistics.
    reserve: Arc<DescriptorReserve>,
}

/// Starts everything in order, and announces it at the end.
async fn start(
    options: RunOptions,
    DescriptorLimits {
        nofile,
        pipes,
        reserve,
    }: DescriptorLimits,
    (manager, (mut inherited, server_states)): (ServiceManager, (Inherited, Vec<ServerState>)),
) -> Result<Running, Error> {
    let RunOptions {
        config,
        input,
        files,
        limits,
        program,
        predecessor,
        start,
    } = options;
    let source = Source::new((input, files), limits, nofile);
    let config = Arc::new(config);
    let signals = Signals::new(start.signals).map_err(system("cannot handle signals"))?;
    let maxconn = maxconn(&config, nofile)?;
    let global = GlobalLive::new(Instant::now(), config.global.threads + 1);
    let global = Arc::new(global.with_descriptors(pipes, reserve.lent()));
    let log = Log::start(&config.log, config.global.node.as_deref(), &global);
    let log = log.map_err(system("cannot start the log"))?;
    let (control, inbox) = ControlHandle::new();
    let (workers, orders) = Workers::new(config.global.threads);
    let core = Core::new(&config, maxconn, global, log.queue(), (control, workers));
    let (listeners, stats, api) = open(&config, maxconn, &mut inherited)?;

    let mut control = core.control(inbox, Arc::clone(&reserve));
    control.resolve_names().await;
    control.apply_server_states(&server_states);

    let stops = Stops::default();
    let (watchdog, pulses) = Watchdog::new(config.global.threads);
    let threads = core.spawn_workers((orders, pulses), &stops);
    let threads = threads.map_err(system("cannot start a worker"))?;
    let (admin_listeners, changes) = AdminListeners::new();
    let reload_state = ReloadState {
        listeners,
        admin_listeners,
        log,
        runtime: api.listeners,
        program,
    };
    let (reloader, reload) = control.reloader(source, config, reload_state);
    let (passed, connections) = channel(PASSED_MAX);
    let runtime = core.runtime(api.places, connections, &reload);
    let admin = core.spawn_admin((changes, runtime), reserve)?;
    let control = spawn_critical(control.run(stops.checks.clone()));
    take_over(predecessor, &core).await?;
    start.write_pid_file()?;
    // Only now: what is accepted before would be lost if the old process stayed in charge.
    reloader.accept(stats, api.sockets, &core.workers).await;
    admin.enter(Phase::Ready);
    manager.notify(&[NotifyState::Ready]);
    inherited.store();
    start.tell();
    let reloads = spawn_critical(reloader.run(stops.reloads.clone(), stops.admin.clone()));
    let watchdog = watchdog.map(|it| it.start(core.control.clone(), manager.clone()));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), maxconn, "ready");
    Ok(Running {
        signals,
        core,
        stops,
        threads,
        admin,
        passed,
        control,
        reload,
        reloads,
        watchdog,
        manager,
    })
}

/// Reports to the predecessor that this process is ready, waits until this process is in charge, adds the
/// predecessor's counters to its own, and follows it from then on. Nothing, if there is none.
async fn take_over(predecessor: Option<Predecessor>, core: &Core) -> Result<(), Error> {
    let Some(predecessor) = predecessor else {
        return Ok(());
    };
    let waiting = predecessor.clone();
    let text = spawn_blocking(move || waiting.wait_for_go())
        .await
        .unwrap_or_else(|error| Err(error.into()))
        .map_err(system("cannot take over"))?;
    let (done, counted) = oneshot::channel();
    if core
        .control
        .report(ToControl::AddCounters { text, done })
        .await
    {
        // A control task that has ended ends the process.
        let _ = counted.await;
    }
    predecessor.follow(&core.old_processes);
    Ok(())
}

/// Starts a task of the control thread whose panic ends the process.
fn spawn_critical<T: 'static>(task: impl Future<Output = T> + 'static) -> Task<T> {
    tokio::task::spawn_local(async move {
        let _abort = AbortOnPanic;
        task.await
    })
}

/// Everything that runs.
struct Running {
    signals: Signals,
    core: Core,
    stops: Stops,
    threads: Vec<JoinHandle<()>>,
    admin: admin::Handle,
    /// Connections of a newer process's runtime socket, for the admin thread.
    passed: Sender<PassedConnection>,
    control: Task<()>,
    reload: ReloadHandle,
    /// Returns the log for its end. Ends without a stop only after a handover.
    reloads: Task<ReloadExit>,
    watchdog: Option<Task<()>>,
    manager: ServiceManager,
}

impl Running {
    /// Waits for a signal to stop or for the end of a handover, and stops everything in order.
    async fn until_stopped(mut self) {
        // The reload task drops the listening sockets when it ends, so that they close when the workers no
        // longer need them. A panic of that task would have ended the process.
        let (how, left) = tokio::select! {
            // A signal that came before the end of a handover is still passed on.
            biased;
            how = self.signals.stop(&self.reload, &self.core.snapshot) => {
                self.admin.enter(Phase::Stopping);
                self.manager.notify(&[NotifyState::Stopping]);
                if self.signals.leaves_admin() {
                    self.stops.admin.cancel();
                }
                self.stops.reloads.cancel();
                (how, (&mut self.reloads).await.ok())
            }
            left = &mut self.reloads => (Stop::Soft, left.ok()),
        };
        let (log, handed_over) = match left {
            Some(left) => (Some(left.log), left.handed_over),
            None => (None, None),
        };
        let is_old = handed_over.is_some();
        let mut reports = None;
        let (how, limit) = if let Some(HandedOver { limit, reporter }) = handed_over {
            reports = Some(self.leave(reporter).await);
            (how, ("upgrade-stop-after", limit))
        } else {
            tracing::info!("stopping");
            let how = withdraw(how, &mut self.signals, &self.core.snapshot).await;
            let snapshot = self.core.snapshot.load_full();
            for line in server_events::proxies_stopped(&snapshot) {
                line.log(&self.core.log);
            }
            let limit = snapshot.hard_stop_after;
            (how, ("hard-stop-after", limit))
        };
        end_sessions(how, &mut self.signals, limit, &self.stops, self.threads).await;
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
    }

    /// After a handover the other process checks, decides and reports; this one has only its sessions left. The
    /// other process accepts what waits in the sockets. Returns the task that tells it of the sessions, and what
    /// tells that task that they have ended.
    async fn leave(&self, reporter: Reporter) -> (Task<()>, CancellationToken) {
        let sessions = self.core.global.active.get();
        tracing::info!(sessions, "no new sessions here; those that run go on");
        self.stops.workers.handed_over.cancel();
        self.core.control.report(ToControl::HandedOver).await;
        if let Some(watchdog) = &self.watchdog {
            watchdog.abort();
        }
        let parts = ReporterParts {
            snapshot: Arc::clone(&self.core.snapshot),
            old_processes: self.core.old_processes.clone(),
            passed: self.passed.clone(),
        };
        let ended = CancellationToken::new();
        let reports = tokio::task::spawn_local(reporter.run(parts, ended.clone()));
        (reports, ended)
    }
}

/// The table of listening sockets, the listeners of the statistics, and the runtime sockets.
type Opened = (Listeners, Vec<AdminListener>, RuntimeSockets);

/// The runtime sockets, each list in the order of the configuration.
#[derive(Default)]
struct RuntimeSockets {
    listeners: Vec<RuntimeListener>,
    /// To accept from once this process is in charge.
    sockets: Vec<RuntimeSocket>,
    places: Vec<RuntimePlace>,
}

/// Opens every listening socket of the process; the error has the reason for each that cannot be opened.
fn open(config: &Config, maxconn: u32, inherited: &mut Inherited) -> Result<Opened, Error> {
    let api = config.runtime_api.iter().flat_map(|api| &api.sockets);
    let mut opened = RuntimeSockets::default();
    let mut problems = Vec::new();
    for socket in api {
        match admin_listeners::open_runtime(socket, inherited) {
            Ok(one) => {
                opened.listeners.push(one.listener);
                opened.sockets.push(one.socket);
                opened.places.push(one.place);
            }
            Err(problem) => problems.push(problem),
        }
    }
    match Listeners::open(config, maxconn, inherited) {
        Ok((sockets, stats)) if problems.is_empty() => Ok((sockets, stats, opened)),
        sockets => {
            let sockets = sockets.err().into_iter().flatten();
            Err(Error::Listen(sockets.chain(problems).collect()))
        }
    }
}

/// What all threads share.
struct Core {
    threads: usize,
    snapshot: Arc<ArcSwap<Snapshot>>,
    global: Arc<GlobalLive>,
    log: LogQueue,
    control: ControlHandle,
    workers: Workers,
    old_processes: OldProcesses,
}

impl Core {
    fn new(
        config: &Config,
        maxconn: u32,
        global: Arc<GlobalLive>,
        log: LogQueue,
        (control, workers): (ControlHandle, Workers),
    ) -> Self {
        let threads = config.global.threads;
        let origin = Origin {
            global: Arc::clone(&global),
            maxconn,
            shards: threads + 1,
            now: global.start,
        };
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::initial(config, &origin)));
        Self {
            threads,
            snapshot,
            old_processes: OldProcesses::new(Arc::clone(&global), control.clone()),
            global,
            log,
            control,
            workers,
        }
    }

    fn control(&self, inbox: Receiver<ToControl>, reserve: Arc<DescriptorReserve>) -> Control {
        Control::new(ControlParts {
            snapshot: Arc::clone(&self.snapshot),
            handle: self.control.clone(),
            inbox,
            log: self.log.clone(),
            workers: self.workers.clone(),
            // The last shard; the workers have the others.
            token: Rc::new(WorkerToken::new(self.threads)),
            reserve,
        })
    }

    fn runtime(
        &self,
        sockets: Vec<RuntimePlace>,
        connections: Receiver<PassedConnection>,
        reload: &ReloadHandle,
    ) -> Runtime {
        Runtime {
            sockets,
            connections,
            old_processes: self.old_processes.clone(),
            control: self.control.clone(),
            reload: reload.clone(),
            workers: self.workers.clone(),
        }
    }

    /// Starts the admin thread. Its listening sockets follow later.
    fn spawn_admin(
        &self,
        (changes, runtime): (Receiver<ListenerChange>, Runtime),
        reserve: Arc<DescriptorReserve>,
    ) -> Result<admin::Handle, Error> {
        let listeners = AdminListenerSet {
            open: Vec::new(),
            changes,
            runtime: Some(runtime),
        };
        admin::spawn(listeners, Arc::clone(&self.snapshot), reserve)
            .map_err(system("cannot start the stats listener"))
    }

    fn spawn_workers(
        &self,
        (orders, pulses): (Vec<Receiver<Order>>, Vec<Option<Pulse>>),
        stops: &Stops,
    ) -> io::Result<Vec<JoinHandle<()>>> {
        let parts = orders.into_iter().zip(pulses);
        let parts = parts
            .zip(worker::hand_off::hand_offs(self.threads))
            .enumerate();
        parts
            .map(|(index, ((orders, pulse), hand_off))| {
                worker::spawn(worker::Parts {
                    index,
                    snapshot: Arc::clone(&self.snapshot),
                    global: Arc::clone(&self.global),
                    log: self.log.clone(),
                    control: self.control.clone(),
                    orders,
                    hand_off,
                    pulse,
                    stops: stops.workers.clone(),
                })
            })
            .collect()
    }
}

/// The steps of a stop, in order.
#[derive(Default)]
struct Stops {
    /// Ends reloads.
    reloads: CancellationToken,
    /// Cancelled before `reloads`: the statistics and the runtime socket end with them.
    admin: CancellationToken,
    /// Ends accepting, and then all sessions.
    workers: worker::Stops,
    /// Ends checks and the control task.
    checks: CancellationToken,
}

/// Waits while everything still listens, so that those who ask `/readyz` stop sending clients. A further signal
/// ends the wait.
async fn withdraw(how: Stop, signals: &mut Signals, snapshot: &ArcSwap<Snapshot>) -> Stop {
    let stats = snapshot.load_full().stats.clone();
    let delay = stats.map_or(Duration::ZERO, |stats| stats.readiness.withdraw_delay);
    if how != Stop::Soft || delay.is_zero() {
        return how;
    }
    tracing::info!(?delay, "stopping: not ready any more, still listening");
    tokio::select! {
        () = tokio::time::sleep(delay) => how,
        () = signals.now() => Stop::Now,
    }
}

/// Stops accepting and waits until the sessions have ended, the limit of `key` has passed, or a further signal
/// comes.
async fn end_sessions(
    how: Stop,
    signals: &mut Signals,
    (key, limit): (&str, Option<Duration>),
    stops: &Stops,
    threads: Vec<JoinHandle<()>>,
) {
    stops.workers.drain.cancel();
    let ended = spawn_blocking(move || {
        for thread in threads {
            // A worker's panic ends the process, so there is no error here.
            let _ = thread.join();
        }
    });
    tokio::pin!(ended);
    if how == Stop::Soft {
        tracing::info!("waiting for the sessions that run");
        let limit = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = &mut ended => return,
            () = limit => tracing::warn!("{key} is over: ending the sessions left"),
            () = signals.now() => tracing::warn!("told to stop now: ending the sessions left"),
        }
    }
    stops.workers.kill.cancel();
    let _ = ended.await;
}
