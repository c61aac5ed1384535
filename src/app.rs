//! The composition root: starts everything in order, waits for signals, stops everything in order.
//!
//! Runs on the main thread, which becomes the control thread. Invariants: nothing is announced
//! before it is true (READY=1 comes after signal handlers, sockets, workers and checks), and a stop
//! never waits without a bound.

mod listeners;
mod signals;

use crate::admin;
use crate::config::{self, model::Config};
use crate::control::{Control, Parts as ControlParts};
use crate::live::{GlobalLive, LogQueue, WorkerToken};
use crate::log;
use crate::state::snapshot::Origin;
use crate::state::{ControlHandle, Snapshot};
use crate::sys::limits::{self, Spare};
use crate::worker::{self, order::Workers};
use arc_swap::ArcSwap;
use listeners::Listeners;
use sd_notify::NotifyState;
use signals::{Signals, Stop};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

/// How long the log thread may take to write what is queued when the process ends.
const LOG_FLUSH_MAX: Duration = Duration::from_secs(1);

/// Why rlb cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused something that nothing works without.
    #[error("{what}: {error}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// The refusal.
        error: io::Error,
    },
    /// Addresses that cannot be listened on.
    #[error("{}", .0.join("\n"))]
    Listen(Vec<String>),
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::System { what, error }
}

/// Runs until a signal ends it.
///
/// # Errors
/// When it cannot start. Once started it ends by a signal only.
pub fn run(config: &Config) -> Result<(), Error> {
    let nofile = limits::raise_nofile().map_err(system("cannot raise the descriptor limit"))?;
    let spare = Spare::new().map_err(system("cannot keep descriptors back"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .map_err(system("cannot make the control thread's runtime"))?;
    let result = runtime.block_on(serve(config, nofile, Arc::new(spare)));
    // A name that is still being resolved must not hold up the end.
    runtime.shutdown_background();
    result
}

async fn serve(config: &Config, nofile: u32, spare: Arc<Spare>) -> Result<(), Error> {
    let mut signals = Signals::new().map_err(system("cannot handle signals"))?;
    let shards = config.global.threads + 1;
    let now = Instant::now();
    let global = Arc::new(GlobalLive::new(now, shards));
    let maxconn = maxconn(config, nofile);
    let origin = Origin {
        global: Arc::clone(&global),
        maxconn,
        shards,
        now,
    };
    let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::initial(config, &origin)));
    let (queue, log) = start_log(config, &global).map_err(system("cannot start the log"))?;
    let Listeners {
        workers: listeners,
        stats,
    } = listeners::open(config, maxconn).map_err(Error::Listen)?;

    let (handle, inbox) = ControlHandle::new();
    let (workers, orders) = Workers::new(config.global.threads);
    let mut control = Control::new(ControlParts {
        snapshot: Arc::clone(&snapshot),
        handle: handle.clone(),
        inbox,
        log: queue.clone(),
        workers,
        token: WorkerToken::new(config.global.threads),
        spare: Arc::clone(&spare),
    });
    control.resolve_names().await;

    let (drain, kill, stop) = (
        CancellationToken::new(),
        CancellationToken::new(),
        CancellationToken::new(),
    );
    let parts = listeners.into_iter().zip(orders).enumerate();
    let mut threads = Vec::new();
    for (index, (listeners, orders)) in parts {
        let parts = worker::Parts {
            index,
            listeners,
            snapshot: Arc::clone(&snapshot),
            global: Arc::clone(&global),
            log: queue.clone(),
            control: handle.clone(),
            orders,
            drain: drain.clone(),
            kill: kill.clone(),
        };
        threads.push(worker::spawn(parts).map_err(system("cannot start a worker"))?);
    }
    let admin = admin::spawn(stats, Arc::clone(&snapshot), spare)
        .map_err(system("cannot start the stats listener"))?;
    let control = tokio::task::spawn_local(control.run(stop.clone()));
    notify(&[NotifyState::Ready]);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), maxconn, "ready");

    let how = signals.stop().await;
    notify(&[NotifyState::Stopping]);
    end_sessions(
        how,
        &mut signals,
        config,
        Ending {
            drain,
            kill,
            threads,
        },
    )
    .await;
    stop.cancel();
    // A panic of the control task has ended the process already.
    let _ = control.await;
    admin.stop();
    if let Some(log) = log {
        drop(queue);
        log.stop(LOG_FLUSH_MAX);
    }
    tracing::info!("stopped");
    Ok(())
}

/// The limit of sessions: what is written, as far as the descriptors hold it.
fn maxconn(config: &Config, nofile: u32) -> u32 {
    let most = config::derived_maxconn(u64::from(nofile));
    match config.global.maxconn {
        Some(wanted) if wanted > most => {
            tracing::warn!(
                wanted,
                nofile,
                "maxconn is more than the descriptor limit holds; using {most}"
            );
            most
        }
        Some(wanted) => wanted,
        None => most,
    }
}

fn start_log(
    config: &Config,
    global: &Arc<GlobalLive>,
) -> io::Result<(LogQueue, Option<log::Handle>)> {
    if config.log.targets.is_empty() {
        return Ok((LogQueue::off(Arc::clone(global)), None));
    }
    let (queue, receiver) = LogQueue::new(Arc::clone(global));
    let node = config.global.node.as_deref();
    let handle = log::spawn(&config.log, node, receiver, Arc::clone(global))?;
    Ok((queue, Some(handle)))
}

struct Ending {
    drain: CancellationToken,
    kill: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

/// Stops accepting and waits for the sessions: until they have ended, `hard-stop-after` is over, or
/// a further signal says now.
async fn end_sessions(how: Stop, signals: &mut Signals, config: &Config, ending: Ending) {
    let Ending {
        drain,
        kill,
        threads,
    } = ending;
    drain.cancel();
    let ended = spawn_blocking(move || {
        for thread in threads {
            // A worker's panic aborts the process, so there is no error to be seen here.
            let _ = thread.join();
        }
    });
    tokio::pin!(ended);
    if how == Stop::Soft {
        tracing::info!("stopping: no new sessions, waiting for those that run");
        let limit = async {
            match config.global.hard_stop_after {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = &mut ended => return,
            () = limit => tracing::warn!("hard-stop-after is over: ending the sessions left"),
            () = signals.now() => tracing::warn!("told to stop now: ending the sessions left"),
        }
    }
    kill.cancel();
    let _ = ended.await;
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}
