//! The composition root: starts everything in order, waits for signals, and stops everything in order.
//!
//! Runs on the main thread, which becomes the control thread. Invariants: nothing is announced before it is
//! true (READY=1 comes after signal handlers, sockets, workers and checks), and a stop never waits without a
//! bound.

mod core;
mod running;
mod signals;
mod start;
mod watchdog;

pub use start::{SignalMeaning, Start};

use crate::config::descriptors::{self, TooFewDescriptors};
use crate::config::model::Config;
use crate::config::{Files, InputFiles, Limits};
use crate::control::admin_listeners::{
    self, AdminListener, AdminListeners, RuntimeListeners, RuntimePlaces, RuntimeSocket,
};
use crate::control::handover::{Go, PASSED_MAX, Predecessor, Program};
use crate::control::inherited::Inherited;
use crate::control::listeners::Listeners;
use crate::control::reload::{ReloadState, Source, maxconn};
use crate::live::GlobalLive;
use crate::log::Log;
use crate::state::{ControlHandle, RuntimeState, ToControl};
use crate::stats::Phase;
use crate::sys::abort::AbortOnPanic;
use crate::sys::limits::{self, DescriptorReserve};
use crate::sys::raw;
use crate::sys::service_manager::ServiceManager;
use crate::worker::order::Workers;
use core::Core;
use running::{Running, Stops};
use rustix::process::Signal;
use sd_notify::NotifyState;
use signals::Signals;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc::channel;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle as Task, spawn_blocking};
use watchdog::Watchdog;

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

/// Runs until a signal or an upgrade ends it. Returns the signal that has ended it at once, without waiting for
/// sessions.
///
/// # Errors
/// When it cannot start. After the start it has no errors.
pub fn run(options: RunOptions) -> Result<Option<Signal>, Error> {
    raw::keep_heap_thresholds();
    // First, because the sockets that are taken over may be more than the soft limit allows.
    let nofile = limits::raise_nofile().map_err(system("cannot raise the descriptor limit"))?;
    let capacity = descriptors::capacity(&options.config, u64::from(nofile))?;
    let manager = ServiceManager::of_this_process().map_err(system(
        "cannot start the thread that talks to the service manager",
    ))?;
    let inherited = match &options.predecessor {
        None => (
            Inherited::receive(&options.config, manager.clone(), options.start.old.clone()),
            RuntimeState::default(),
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
        let running = start(options, limits, (manager, inherited)).await?;
        release_memory();
        Ok(running.until_stopped().await)
    });
    // A name that is still being resolved must not delay the end.
    runtime.shutdown_background();
    result
}

/// Gives back memory that only the start has used.
fn release_memory() {
    raw::trim_heap();
    if let Err(error) = raw::release_code() {
        tracing::debug!(%error, "the program's code stays in memory");
    }
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
    (manager, (mut inherited, decided)): (ServiceManager, (Inherited, RuntimeState)),
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
    let read = files.looked_at.clone();
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
    control.begin_with(predecessor.as_ref().map(|_| &decided));

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
    let (mut reloader, reload) = control.reloader(source, config, reload_state);
    let (passed, connections) = channel(PASSED_MAX);
    let runtime = core.runtime(api.places, (connections, &reload), start.recent.clone());
    let admin = core.spawn_admin((changes, runtime), reserve)?;
    let control = spawn_critical(control.run(stops.checks.clone()));
    take_over(predecessor.as_ref(), &core, (decided, inherited.unused())).await?;
    start.write_pid_file(predecessor.is_some())?;
    // Only now: what is accepted before would be lost if the old process stayed in charge.
    reloader.accept(stats, api.sockets, &core.workers).await;
    if let Some(predecessor) = predecessor {
        // It closes sockets that others here replace when it hears of this process.
        predecessor.follow(&core.old_processes);
    }
    admin.enter(Phase::Ready);
    manager.notify(&[NotifyState::Ready]);
    inherited.store();
    start.tell(&read, &core.workers).await?;
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

/// Reports to the predecessor that this process is ready, waits until this process is in charge, takes over what
/// the predecessor has decided since it sent `before`, and adds its counters to its own. Nothing, if there is none.
async fn take_over(
    predecessor: Option<&Predecessor>,
    core: &Core,
    (before, unused): (RuntimeState, Option<&[usize]>),
) -> Result<(), Error> {
    let Some(predecessor) = predecessor else {
        return Ok(());
    };
    let waiting = predecessor.clone();
    let unused = unused.unwrap_or_default().to_vec();
    let Go { counters, state } = spawn_blocking(move || waiting.wait_for_go(&unused))
        .await
        .unwrap_or_else(|error| Err(error.into()))
        .map_err(system("cannot take over"))?;
    let (done, applied) = oneshot::channel();
    let apply = ToControl::ApplyState {
        before,
        state,
        done,
    };
    let (done, counted) = oneshot::channel();
    let text = counters;
    let count = ToControl::AddCounters { text, done };
    // A control task that has ended ends the process.
    if core.control.report(apply).await && core.control.report(count).await {
        let _ = (applied.await, counted.await);
    }
    Ok(())
}

/// Starts a task of the control thread whose panic ends the process.
fn spawn_critical<T: 'static>(task: impl Future<Output = T> + 'static) -> Task<T> {
    tokio::task::spawn_local(async move {
        let _abort = AbortOnPanic;
        task.await
    })
}

/// The table of listening sockets, the listeners of the statistics, and the runtime sockets.
type Opened = (Listeners, Vec<AdminListener>, RuntimeSockets);

/// The runtime sockets.
struct RuntimeSockets {
    listeners: RuntimeListeners,
    places: RuntimePlaces,
    /// To accept from once this process is in charge, in the order of the configuration.
    sockets: Vec<RuntimeSocket>,
}

/// Opens every listening socket of the process; the error has the reason for each that cannot be opened.
fn open(config: &Config, maxconn: u32, inherited: &mut Inherited) -> Result<Opened, Error> {
    let api = config.runtime_api.iter().flat_map(|api| &api.sockets);
    let (mut opened, mut to_accept) = (Vec::new(), Vec::new());
    let mut problems = Vec::new();
    for socket in api {
        match admin_listeners::open_runtime(socket, inherited) {
            Ok(one) => {
                opened.push((one.listener, one.place));
                to_accept.push(one.socket);
            }
            Err(problem) => problems.push(problem),
        }
    }
    match Listeners::open(config, maxconn, inherited) {
        Ok((sockets, stats)) if problems.is_empty() => {
            let (listeners, places) = RuntimeListeners::new(opened);
            let runtime = RuntimeSockets {
                listeners,
                places,
                sockets: to_accept,
            };
            Ok((sockets, stats, runtime))
        }
        sockets => {
            let sockets = sockets.err().into_iter().flatten();
            Err(Error::Listen(sockets.chain(problems).collect()))
        }
    }
}
