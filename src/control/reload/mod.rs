//! Reloading the configuration: load → plan → prepare → commit → retire.
//!
//! One task on the control thread. Everything that can fail comes before the commit and changes
//! nothing; the commit is the control task's ([`super::commit`]), which publishes one snapshot and
//! gives the workers their new sockets; what is left behind then retires by itself: removed sockets
//! accept what is queued, removed servers and frontends finish their sessions.
//!
//! An upgrade ([`upgrade`]) takes its turn among the reloads, so that what is handed over is what is
//! in force; it ends the task.
//!
//! Invariants: one reload at a time; [`Reloader::current`] is what is in force, so a key that needs
//! a restart is reported again by every reload until there is one.

mod load;
mod lost_sockets;
mod report;
mod requests;
mod rollback;
mod steps;
mod upgrade;
mod watch;

use super::Control;
use super::admin_listeners::{
    AdminListener, AdminListeners, ListenerChange, RuntimeListener, RuntimeListeners, RuntimeSocket,
};
use super::commit::Commit;
use super::handover::{Program, Reporter};
use super::listeners::Listeners;
use crate::config::descriptors::{self, TooFewDescriptors};
use crate::config::model::Config;
use crate::config::source::Source as Text;
use crate::config::{Files, InputFiles, Limits};
use crate::log::Log;
use crate::state::{ControlHandle, Snapshot};
use crate::sys::raw;
use crate::sys::service_manager::ServiceManager;
use crate::worker::ListenerId;
use crate::worker::order::{Order, Workers};
use arc_swap::ArcSwap;
use load::{Line, Loading};
use lost_sockets::LostSockets;
pub use requests::{Answer, REQUESTS_MAX, ReloadHandle, Shape};
use requests::{Request, Requests, Trigger, Wanted};
use rollback::RollbackWatch;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use watch::Watch;

/// When memory is given back after a reload: threads let go of what was in force within that.
const TRIM_AFTER: Duration = Duration::from_secs(2);

/// Where the configuration comes from, and what the machine holds.
#[derive(Debug, Clone)]
pub struct Source {
    /// What reloads read again.
    pub input: InputFiles,
    /// What was read when it was loaded.
    pub files: Files,
    /// The limits that files are checked against.
    pub limits: Limits,
    /// The descriptor limit of the process.
    pub nofile: u32,
}

impl Source {
    /// Where it comes from and what was read for it, on a machine with these limits, in a process with
    /// this descriptor limit.
    pub fn new((input, files): (InputFiles, Files), limits: Limits, nofile: u32) -> Self {
        Self {
            input,
            files,
            limits,
            nofile,
        }
    }
}

/// What is changed by a reload besides the snapshot.
#[derive(Debug)]
pub struct ReloadState {
    /// The listening sockets.
    pub listeners: Listeners,
    /// Sends the admin thread its own.
    pub admin_listeners: AdminListeners,
    /// The log.
    pub log: Log,
    /// The runtime sockets.
    pub runtime: RuntimeListeners,
    /// What an upgrade starts; `None`: there is none.
    pub program: Option<Program>,
}

impl ReloadState {
    /// Gets a message at each reload.
    fn manager(&self) -> &ServiceManager {
        self.listeners.manager()
    }
}

/// What the task leaves when it ends.
#[derive(Debug)]
pub struct ReloadExit {
    /// The log, for its end.
    pub log: Log,
    /// It has ended because a new process serves now.
    pub handed_over: Option<HandedOver>,
}

/// The service is another process's.
#[derive(Debug)]
pub struct HandedOver {
    /// How long the sessions that are left here may go on; `None`: for ever.
    pub limit: Option<Duration>,
    /// Whether they move to the other process.
    pub moves: bool,
    /// Tells the other process of them.
    pub reporter: Reporter,
    /// The listeners whose sockets the other process does not have: what waits in them is accepted here.
    pub left: HashSet<ListenerId>,
}

/// The sessions that the process may have: what is written, as far as the descriptors hold it.
///
/// # Errors
/// When they do not even hold one.
pub fn maxconn(config: &Config, nofile: u32) -> Result<u32, TooFewDescriptors> {
    let most = descriptors::capacity(config, u64::from(nofile))?.maxconn;
    Ok(match config.global.maxconn {
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
    })
}

/// Completes at this time; never, if there is none.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// The task that reloads.
#[derive(Debug)]
pub struct Reloader {
    nofile: u32,
    loading: Loading,
    current: Arc<Config>,
    /// The files that [`Self::current`] was read from, and what of them needs a restart.
    sources: Vec<Arc<Text>>,
    restarts: Vec<String>,
    /// The same files before the reload that `rollback` watches.
    sources_before: Vec<Arc<Text>>,
    state: ReloadState,
    snapshot: Arc<ArcSwap<Snapshot>>,
    control: ControlHandle,
    commits: mpsc::Sender<Commit>,
    requests: Requests,
    rollback: Option<RollbackWatch>,
    watch: Watch,
    /// What the last load has looked at, and every one since the last that succeeded.
    files: Vec<PathBuf>,
    /// Why a change of a file was refused; it is logged once.
    refused: Vec<Line>,
    lost_sockets: LostSockets,
}

impl Control {
    /// The task that reloads `config`, which is in force with `state`.
    pub fn reloader(
        &self,
        source: Source,
        config: Arc<Config>,
        state: ReloadState,
    ) -> (Reloader, ReloadHandle) {
        let (handle, requests) = Requests::new();
        let mut reloader = Reloader {
            watch: Watch::off(),
            files: source.files.looked_at,
            nofile: source.nofile,
            loading: Loading::new(source.input, source.limits),
            current: config,
            sources: source.files.sources,
            restarts: Vec::new(),
            sources_before: Vec::new(),
            state,
            snapshot: Arc::clone(&self.parts.snapshot),
            control: self.parts.handle.clone(),
            commits: self.committer.clone(),
            requests,
            rollback: None,
            refused: Vec::new(),
            lost_sockets: LostSockets::default(),
        };
        reloader.follow_files();
        (reloader, handle)
    }
}

impl Reloader {
    /// Accepts from all that is open. Call it when this process is in charge, before [`Self::run`].
    pub async fn accept(
        &mut self,
        stats: Vec<AdminListener>,
        runtime: Vec<RuntimeSocket>,
        workers: &Workers,
    ) {
        let snapshot = self.snapshot.load_full();
        if let Some(adjust) = self.state.listeners.adjust(&snapshot) {
            let api = self.current.runtime_api.iter().flat_map(|api| &api.sockets);
            for (listener, api) in self.state.runtime.open.iter().zip(api) {
                listener.adjust(api, adjust);
            }
        }
        let listeners = self.state.listeners.of_workers(&snapshot);
        for (worker, listeners) in listeners.into_iter().enumerate() {
            for listener in listeners {
                workers.tell(worker, Order::Open(listener)).await;
            }
        }
        let change = ListenerChange {
            open: stats,
            close: Vec::new(),
        };
        self.state.admin_listeners.change(change).await;
        for (listener, socket) in self.state.runtime.open.iter().zip(runtime) {
            listener.accept_from(socket).await;
        }
    }

    /// Reloads when asked, until `stop` or until another process is in charge. Lets go of the
    /// listening sockets then, and gives the log back. `admin` cancelled: nobody answers on the
    /// sockets of the statistics and of the runtime API any more, because another process does.
    pub async fn run(mut self, stop: CancellationToken, admin: CancellationToken) -> ReloadExit {
        let handed_over = self.serve(&stop).await;
        if admin.is_cancelled() {
            self.leave_admin_sockets().await;
        }
        ReloadExit {
            log: self.state.log,
            handed_over,
        }
    }

    /// Has the admin thread close its listening sockets.
    async fn leave_admin_sockets(&self) {
        let state = &self.state;
        let change = state.listeners.close_admin_listeners();
        state.admin_listeners.change(change).await;
        for runtime in &state.runtime.open {
            runtime.closing.cancel();
        }
    }

    /// A stop ends whatever is under way, except for the last step of an upgrade.
    async fn serve(&mut self, stop: &CancellationToken) -> Option<HandedOver> {
        let mut trim = None;
        let mut look = lost_sockets::ticks();
        loop {
            let request = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                request = self.requests.next() => match request {
                    Some(request) => request,
                    None => return None,
                },
                () = self.watch.changed() => Request {
                    wanted: Wanted::Reload(Trigger::Watch),
                    reply: None,
                },
                () = rollback::tick(self.rollback.as_ref()) => {
                    stop.run_until_cancelled(self.check_rollback()).await?;
                    continue;
                }
                _ = look.tick() => {
                    stop.run_until_cancelled(self.check_sockets()).await?;
                    continue;
                }
                () = until(trim) => {
                    trim = None;
                    // A reload has held two configurations at once, which the allocator would keep room
                    // for. Nobody waits for it.
                    drop(tokio::task::spawn_blocking(raw::trim_heap));
                    continue;
                }
            };
            let (answer, handed_over) = match request.wanted {
                Wanted::Reload(trigger) => {
                    trim = Some(Instant::now() + TRIM_AFTER);
                    let answer = stop.run_until_cancelled(self.reload(trigger)).await?;
                    (answer, None)
                }
                Wanted::Compare(shape) => (self.compare(shape).await, None),
                Wanted::Show => (self.show(), None),
                Wanted::Upgrade => {
                    let _upgrading = self.requests.upgrading();
                    self.upgrade(stop).await
                }
            };
            if let Some(reply) = request.reply {
                // Whoever asked may have gone.
                let _ = reply.send(answer);
            }
            if handed_over.is_some() {
                return handed_over;
            }
        }
    }

    fn follow_files(&mut self) {
        if self.current.global.watch {
            self.watch.follow(&self.files);
        } else {
            self.watch = Watch::off();
        }
    }
}
