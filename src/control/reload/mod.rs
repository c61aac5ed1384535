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
mod requests;
mod rollback;
mod upgrade;
mod watch;

use super::Control;
use super::admin_listeners::{
    self, AdminListener, AdminListeners, ListenerChange, RuntimeListener, RuntimeSocket,
};
use super::commit::Commit;
use super::handover::{Program, Reporter};
use super::listeners::{Listeners, Reopen};
use super::loss::Reopened;
use super::resolve;
use crate::config::descriptors::{self, TooFewDescriptors};
use crate::config::diff::{Action, Changes, applicable, plan};
use crate::config::model::{Config, RuntimeSocket as RuntimeSocketKeys, ServerAddress};
use crate::config::source::Source as Text;
use crate::config::{Files, InputFiles, Limits};
use crate::live::{LastReload, ReloadEnd};
use crate::log::{self, Log};
use crate::state::{ControlHandle, Snapshot};
use crate::sys::raw;
use crate::sys::service_manager::ServiceManager;
use crate::worker::order::{Order, Workers};
use arc_swap::ArcSwap;
use load::{Line, Loaded, Loading, Problems};
use lost_sockets::LostSockets;
pub use requests::{Answer, REQUESTS_MAX, ReloadHandle, Shape};
use requests::{Request, Requests, Trigger, Wanted};
use rollback::RollbackWatch;
use sd_notify::NotifyState;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use watch::Watch;

/// When memory is given back after a reload: threads let go of what was in force within that.
const TRIM_AFTER: Duration = Duration::from_secs(2);

/// Most lines of one kind that a reload writes to the log: ten thousand at once would push out what
/// matters. Whoever asks through the runtime socket gets them all.
const LOGGED_MAX: usize = 100;

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
    /// The runtime sockets, in the order of the configuration.
    pub runtime: Vec<RuntimeListener>,
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
    /// Tells the other process of them.
    pub reporter: Reporter,
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

/// A configuration with all that it needs, and its log.
type Prepared = (Commit, log::PreparedLog);

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
        if self.state.listeners.adjust() {
            let api = self.current.runtime_api.iter().flat_map(|api| &api.sockets);
            for (listener, api) in self.state.runtime.iter().zip(api) {
                listener.adjust(api);
            }
        }
        let snapshot = self.snapshot.load_full();
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
        for (listener, socket) in self.state.runtime.iter().zip(runtime) {
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
        for runtime in &state.runtime {
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

    /// Load, plan, prepare, commit; then what is left retires by itself.
    async fn reload(&mut self, trigger: Trigger) -> Answer {
        let Loaded {
            config: written,
            warnings,
            files,
        } = match self.load().await {
            Ok(loaded) => loaded,
            Err(problems) => {
                // What cannot be loaded takes nothing away. The next file that does is waited for anew.
                self.watch.stop_waiting();
                return self.refuse(trigger, problems);
            }
        };
        let changes = plan(&self.current, &written);
        if trigger == Trigger::Watch {
            if changes.is_empty() && self.refused.is_empty() {
                self.watch.stop_waiting();
                self.sources = files.sources;
                let lines = vec![changes.summary()];
                return Answer { done: true, lines };
            }
            if let Some(lines) = self.defer(&changes, &written) {
                return Answer { done: false, lines };
            }
        }
        warnings.lines.iter().take(LOGGED_MAX).for_each(Line::log);
        let config = Arc::new(applicable(&self.current, written));
        let before = Arc::clone(&self.current);
        let snapshot = self.snapshot.load_full();
        let mut notes = match self.put_in_force(Arc::clone(&config), &Reopen::All).await {
            Ok(notes) => notes,
            Err(problems) => return self.refuse(trigger, problems.into()),
        };
        self.follow_files();
        if let Some(change) = self.state.program.as_ref().and_then(Program::change) {
            tracing::warn!("reload: {change}");
            notes.push(change);
        }
        let sources_before = std::mem::replace(&mut self.sources, files.sources);
        if self.rollback.is_none() {
            self.sources_before = sources_before;
        }
        self.rollback = RollbackWatch::after(self.rollback.take(), before, &snapshot, &config);
        if self.rollback.is_none() {
            self.sources_before = Vec::new();
        }
        let mut told = warnings.shown;
        told.extend(notes);
        self.done(&changes, told)
    }

    /// A changed file that takes away listeners or servers, or that ends the watching of the files, may not be
    /// written to its end: it is read again when nothing has happened for [`watch::LOSS_QUIET`]. Returns what is
    /// said about it in this case.
    fn defer(&mut self, changes: &Changes, written: &Config) -> Option<Vec<String>> {
        let removes = |kind| {
            let mut list = changes.list.iter();
            list.any(|change| change.action == Action::Remove && change.kind == kind)
        };
        let what = if removes("bind") {
            "listeners would close"
        } else if removes("server") {
            "servers would be removed"
        } else if !written.global.watch {
            "`watch` would end"
        } else {
            self.watch.stop_waiting();
            return None;
        };
        if !self.watch.wait_for_loss() {
            return None;
        }
        let quiet = watch::LOSS_QUIET;
        let line = format!("{what}: the files are read again once unchanged for {quiet:?}");
        tracing::warn!("reload deferred: {line}");
        Some(vec![line])
    }

    /// Reads the files. Those that it has looked for are watched from now on.
    async fn load(&mut self) -> Result<Loaded, Problems> {
        match self.loading.load().await {
            Ok(loaded) => {
                self.files.clone_from(&loaded.files.looked_at);
                Ok(loaded)
            }
            Err(refused) => {
                // What is missing may come; what a broken file no longer names may come back.
                let known: HashSet<&PathBuf> = self.files.iter().collect();
                let more = refused.files.looked_at.into_iter();
                let more: Vec<PathBuf> = more.filter(|file| !known.contains(file)).collect();
                self.files.extend(more);
                self.follow_files();
                Err(refused.problems)
            }
        }
    }

    /// What a reload would change. Reads the files and changes nothing.
    async fn compare(&mut self, shape: Shape) -> Answer {
        let (done, lines) = match self.loading.load().await {
            Ok(loaded) => {
                let changes = plan(&self.current, &loaded.config);
                let mut lines = loaded.warnings.shown;
                match shape {
                    Shape::Json => lines = vec![format!("{:#}", changes.to_json())],
                    Shape::Lines => {
                        lines.extend(changes.list.iter().map(ToString::to_string));
                        lines.push(changes.summary());
                    }
                }
                (true, lines)
            }
            Err(refused) => (false, refused.problems.shown),
        };
        Answer { done, lines }
    }

    /// The files that are in force, as they were read.
    fn show(&self) -> Answer {
        let restarts = self.restarts.iter();
        let mut lines: Vec<String> = restarts
            .map(|line| format!("# not in force before a restart: {line}"))
            .collect();
        for source in &self.sources {
            lines.push(format!("# configuration file {}:", source.name));
            lines.push(source.text.trim_end_matches('\n').to_owned());
        }
        Answer { done: true, lines }
    }

    /// Prepares `config` and has it committed. Returns a sentence for each socket that was opened again.
    async fn put_in_force(
        &mut self,
        config: Arc<Config>,
        reopen: &Reopen,
    ) -> Result<Vec<String>, Vec<String>> {
        let (done, committed) = oneshot::channel();
        let (commit, log) = self.prepare(Arc::clone(&config), reopen, done).await?;
        self.state.manager().notify(&reloading());
        let stopping = || vec!["rlb is stopping".to_owned()];
        self.commits.send(commit).await.map_err(|_| stopping())?;
        let mut listeners = committed.await.map_err(|_| stopping())?;
        listeners.announce();
        let reopened = listeners.take_reopened().into_iter();
        let mut reopened: Vec<String> = reopened.map(Reopened::report).collect();
        let change = self.state.listeners.take(listeners);
        self.state.log.apply(log);
        self.follow_runtime_mode(&config);
        if matches!(reopen, Reopen::All) {
            reopened.extend(self.reopen_lost_runtime(&config).await);
        }
        self.current = config;
        self.state.admin_listeners.change(change).await;
        self.state.manager().notify(&[NotifyState::Ready]);
        Ok(reopened)
    }

    /// Everything that can fail, or takes time.
    async fn prepare(
        &mut self,
        config: Arc<Config>,
        reopen: &Reopen,
        done: oneshot::Sender<super::listeners::Prepared>,
    ) -> Result<Prepared, Vec<String>> {
        let maxconn = maxconn(&config, self.nofile);
        let maxconn = maxconn.map_err(|error| vec![error.to_string()])?;
        let listeners = self.state.listeners.prepare(&config, maxconn, reopen)?;
        let node = config.global.node.as_deref();
        let log = self.state.log.plan_change(&config.log, node);
        // A file system may take its time, and health checks are not to wait for it.
        let opened = tokio::task::spawn_blocking(move || log.open()).await;
        let log = opened.map_err(|_| vec!["log: cannot be opened".to_owned()])??;
        let mut addresses = self.snapshot.load().known_addresses();
        let unknown = names(&config)
            .filter(|name| !addresses.contains_key(*name))
            .cloned()
            .collect();
        addresses.extend(resolve::look_up_all(unknown).await);
        let commit = Commit {
            config,
            maxconn,
            addresses,
            listeners,
            done,
        };
        Ok((commit, log))
    }

    /// Changes owner and mode of the runtime sockets' files. What the system refuses is said, and leaves
    /// a file as it was.
    fn follow_runtime_mode(&self, config: &Config) {
        let sockets = |config: &Config| {
            let api = config.runtime_api.as_ref();
            api.map_or_else(Vec::new, |api| api.sockets.clone())
        };
        let rights = |one: &RuntimeSocketKeys| (one.mode, one.owner.clone(), one.group.clone());
        for (old, new) in sockets(&self.current).iter().zip(&sockets(config)) {
            if rights(old) != rights(new)
                && let Err(error) = admin_listeners::set_runtime_mode(new)
            {
                let path = new.place();
                tracing::warn!(path, %error, "runtime socket keeps its mode and owner");
            }
        }
    }

    /// Logs what was changed; `notes` are for the answer alone.
    fn done(&mut self, changes: &Changes, notes: Vec<String>) -> Answer {
        self.refused.clear();
        self.restarts = changes.restarts().map(ToString::to_string).collect();
        let mut lines: Vec<String> = changes.list.iter().map(ToString::to_string).collect();
        for line in lines.iter().take(LOGGED_MAX) {
            tracing::info!("reload: {line}");
        }
        if let Some(more) = more_than_logged(&lines) {
            tracing::info!("reload: and {more} more changes");
        }
        for change in changes.restarts() {
            let keys: Vec<&str> = change.keys.iter().map(|one| one.key.as_str()).collect();
            let (kind, keys) = (change.kind, keys.join(", "));
            tracing::warn!("reload: [{kind}] {keys} needs a restart and stays as it is");
        }
        let summary = changes.summary();
        tracing::info!("reloaded: {summary}");
        lines.push(summary);
        self.note(ReloadEnd::Done, lines.clone());
        let lines = notes.into_iter().chain(lines).collect();
        Answer { done: true, lines }
    }

    fn refuse(&mut self, trigger: Trigger, problems: Problems) -> Answer {
        const UNCHANGED: &str = "the configuration is unchanged";
        let Problems { lines, mut shown } = problems;
        // A watched file that stays wrong is reported once, not each time it is written.
        if trigger != Trigger::Watch || self.refused != lines {
            self.refused.clone_from(&lines);
            let (errors, warnings): (Vec<&Line>, Vec<&Line>) =
                lines.iter().partition(|line| line.is_error());
            // The errors are why it was refused: warnings are not to push them out.
            let all = errors.into_iter().chain(warnings);
            all.take(LOGGED_MAX).for_each(Line::log);
            if let Some(more) = more_than_logged(&lines) {
                tracing::error!("reload: and {more} more problems");
            }
            tracing::error!("reload refused: {UNCHANGED}");
            let lines = lines.into_iter().map(|line| line.text);
            let lines = lines.chain([UNCHANGED.to_owned()]).collect();
            self.note(ReloadEnd::Refused, lines);
        }
        shown.push(UNCHANGED.to_owned());
        Answer {
            done: false,
            lines: shown,
        }
    }

    fn note(&self, end: ReloadEnd, lines: Vec<String>) {
        let at = Instant::now();
        let snapshot = self.snapshot.load();
        snapshot.global.reloads.ended(LastReload { end, at, lines });
    }

    fn follow_files(&mut self) {
        if self.current.global.watch {
            self.watch.follow(&self.files);
        } else {
            self.watch = Watch::off();
        }
    }
}

/// How many of `lines` the log does not get.
fn more_than_logged<T>(lines: &[T]) -> Option<usize> {
    lines.len().checked_sub(LOGGED_MAX).filter(|more| *more > 0)
}

fn names(config: &Config) -> impl Iterator<Item = &Arc<str>> {
    let servers = config.backends.iter().flat_map(|backend| &backend.servers);
    servers.filter_map(|server| match &server.address {
        ServerAddress::Name(name, _) => Some(name),
        ServerAddress::Ip(..) | ServerAddress::Unix(_) => None,
    })
}

/// systemd wants to know when a reload began, so that it can tell one READY=1 from another.
fn reloading() -> Vec<NotifyState<'static>> {
    let mut states = vec![NotifyState::Reloading];
    states.extend(NotifyState::monotonic_usec_now().ok());
    states
}
