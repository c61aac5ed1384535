//! The control thread: the one writer of snapshots.
//!
//! [`Control`] drains its inbox, applies all messages of a turn to a [`crate::state::SnapshotBuilder`] and publishes once.
//! Health checks and lookups of names run beside it on the same thread and send to its inbox, as the other
//! threads do. Runs on a tokio current-thread runtime, inside a `LocalSet` or a
//! `LocalRuntime`; started by the composition root.

pub mod admin_listeners;
mod batch;
mod changes;
mod commit;
mod frontends;
pub mod handover;
pub mod inherited;
pub mod listeners;
mod loss;
mod pending;
mod rates;
mod rebalance;
pub mod reload;
pub mod resolve;
pub mod server_events;
mod server_index;
mod slow_starts;
mod state_file;

use crate::check::schedule::{ends_with_reset, first_start};
use crate::check::task::{self, CheckContext, CheckParts, CheckedServer};
use crate::live::{Cause, LogQueue, ServerLive, WorkerToken};
use crate::state::inbox::INBOX_MAX;
use crate::state::{
    BackendId, ControlHandle, FrontendState, RuntimeChange, RuntimeState, Snapshot, ToControl,
    clear, dynamic,
};
use crate::sys::limits::DescriptorReserve;
use crate::worker::order::{Order, ServerSet, Workers};
use arc_swap::ArcSwap;
use batch::{Batch, Outcome};
use changes::OperatorChanges;
use commit::Commit;
use frontends::{Followed, Told};
use pending::Pending;
use rates::RateMaxima;
use rebalance::Rebalances;
use resolve::{FirstRound, Resolver, Until};
use server_events::LogLine;
use server_index::ServerIndex;
use state_file::StateFileWriter;
use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval_at, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a server stays suspected that has no check, or one that connects elsewhere: nothing else would
/// ever clear it, because a suspected server is picked last.
pub const SUSPECT_TTL: Duration = Duration::from_secs(10);

/// What control works with.
#[derive(Debug)]
pub struct Parts {
    /// Where snapshots are published; holds the first one.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// The sending end of the inbox, for checks and lookups.
    pub handle: ControlHandle,
    /// The inbox.
    pub inbox: mpsc::Receiver<ToControl>,
    /// Where log lines in HAProxy's words go.
    pub log: LogQueue,
    /// The workers' inboxes.
    pub workers: Workers,
    /// The token of the control thread's shard, the last one.
    pub token: Rc<WorkerToken>,
    /// Descriptors kept back for checks; filled up again once a second.
    pub reserve: Arc<DescriptorReserve>,
}

/// The one writer of snapshots.
#[derive(Debug)]
pub struct Control {
    parts: Parts,
    servers: ServerIndex,
    maxima: RateMaxima,
    /// Suspected servers whose suspicion no check clears, and since when.
    suspects: HashMap<u64, (Arc<ServerLive>, Instant)>,
    tasks: TaskTracker,
    stop_tasks: CancellationToken,
    check_context: Rc<CheckContext>,
    resolver: Resolver,
    changes: OperatorChanges,
    rebalances: Rebalances,
    state_files: StateFileWriter,
    commits: mpsc::Receiver<Commit>,
    /// For the reloader.
    committer: mpsc::Sender<Commit>,
}

impl Control {
    /// Control over the snapshot that is published now. Starts nothing yet.
    pub fn new(parts: Parts) -> Self {
        let stop_tasks = CancellationToken::new();
        parts.snapshot.load().begin_queues();
        let servers = ServerIndex::of(&parts.snapshot.load(), &stop_tasks);
        let check_context = CheckContext::new(CheckParts {
            control: parts.handle.clone(),
            reserve: Arc::clone(&parts.reserve),
            global: Arc::clone(&parts.snapshot.load().global),
            token: Rc::clone(&parts.token),
            snapshot: Some(Arc::clone(&parts.snapshot)),
        });
        let resolver = Resolver::new(parts.handle.clone());
        let (committer, commits) = mpsc::channel(1);
        Self {
            parts,
            servers,
            maxima: RateMaxima::default(),
            suspects: HashMap::new(),
            tasks: TaskTracker::new(),
            stop_tasks,
            check_context,
            resolver,
            changes: OperatorChanges::default(),
            rebalances: Rebalances::default(),
            state_files: StateFileWriter::new(Instant::now()),
            commits,
            committer,
        }
    }

    /// Brings a snapshot into force. The queues follow it.
    fn publish(&self, next: &Arc<Snapshot>) {
        let base = self.parts.snapshot.load_full();
        self.parts.snapshot.store(Arc::clone(next));
        next.update_queues(&base);
    }

    /// Looks up the names of servers, all at once. Returns when each has been tried, at the latest
    /// after [`resolve::START_MAX`]; what has not resolved by then is in maintenance and goes on
    /// being tried. Call it before the service is announced as ready, and before [`Control::run`].
    pub async fn resolve_names(&mut self) {
        let names: Vec<Arc<str>> = self.servers.names().cloned().collect();
        let round = FirstRound::new(names.len());
        for name in names {
            self.look_up(&name, Until::FirstRound(Rc::clone(&round)));
        }
        let deadline = tokio::time::Instant::now() + resolve::START_MAX;
        loop {
            let next = async {
                tokio::select! {
                    biased;
                    message = self.parts.inbox.recv() => message,
                    () = round.over() => None,
                }
            };
            let Ok(Some(message)) = timeout_at(deadline, next).await else {
                return;
            };
            self.start_turn(message);
        }
    }

    /// Takes over what the process before has decided; `None`: there is none, and server-state files say it. Call it before
    /// [`Control::run`], which starts the checks.
    pub fn begin_with(&mut self, decided: Option<&RuntimeState>) {
        let base = self.parts.snapshot.load_full();
        let state = match decided {
            Some(decided) => Cow::Borrowed(decided),
            None => Cow::Owned(state_file::read(&base, Instant::now())),
        };
        let of = (self.parts.token.shard() + 1, Instant::now());
        if let Some(next) = state.apply(&RuntimeState::default(), &base, of) {
            self.publish(&next);
            if decided.is_none() {
                state_file::said(&base, &next).for_each(|line| self.log(line));
            }
            self.servers.update(&base, &next, &self.stop_tasks);
            let servers = &self.servers;
            self.resolver.retain(|name| !servers.named(name).is_empty());
        }
    }

    /// The same while checks run: they follow.
    fn apply_decided(&mut self, before: &RuntimeState, state: &RuntimeState, now: Instant) {
        let base = self.parts.snapshot.load_full();
        let of = (self.parts.token.shard() + 1, now);
        if let Some(next) = state.apply(before, &base, of) {
            self.publish(&next);
            self.follow_specs(&base);
        }
    }

    /// Checks, decides and publishes until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        self.start_checks(|_| true);
        let mut tick = interval_at(self.next_second(), Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut messages = Vec::with_capacity(INBOX_MAX);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                received = self.parts.inbox.recv_many(&mut messages, INBOX_MAX) => {
                    if received == 0 {
                        break;
                    }
                    self.turn(&mut messages).await;
                }
                Some(commit) = self.commits.recv() => self.commit(commit, &mut messages).await,
                _ = tick.tick() => self.tick().await,
            }
        }
        let snapshot = self.parts.snapshot.load_full();
        self.state_files.finish(&snapshot).await;
        self.stop_tasks.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Starts the checks of the servers whose uid is `wanted`.
    fn start_checks(&self, wanted: impl Fn(u64) -> bool) {
        let snapshot = self.parts.snapshot.load_full();
        let all = || snapshot.backends.iter().flatten();
        let checks = all().flat_map(|backend| backend.servers.iter());
        let checks = checks.filter_map(|server| server.spec.check.as_ref());
        self.check_context.set_reset(ends_with_reset(checks));
        let checked: Vec<_> = all()
            .flat_map(|backend| backend.servers.iter().map(move |server| (backend, server)))
            .filter(|(_, server)| wanted(server.live.uid))
            .filter_map(|(backend, server)| {
                let check = server.spec.check.clone()?;
                let handle = Rc::clone(self.servers.check_handle(server.live.uid)?);
                let stop = self.servers.stop(server.live.uid)?.clone();
                let subject = CheckedServer {
                    backend: backend.id,
                    backend_name: Arc::clone(&backend.spec.name),
                    name: Arc::clone(&server.spec.name),
                    live: Arc::clone(&server.live),
                    check,
                    source: backend.source_of(server).cloned(),
                    socket: server.spec.socket.clone(),
                    handle,
                };
                Some((subject, stop))
            })
            .collect();
        let total = u32::try_from(checked.len()).unwrap_or(u32::MAX);
        let now = Instant::now();
        for (index, (subject, stop)) in (0..).zip(checked) {
            let first = now + first_start(index, total);
            let checks = task::run(subject, Rc::clone(&self.check_context), first, stop);
            self.tasks.spawn_local(checks);
        }
    }

    /// One turn: all messages, one publication, and then what follows from it.
    async fn turn(&mut self, messages: &mut Vec<ToControl>) {
        let now = Instant::now();
        let base = self.parts.snapshot.load_full();
        let mut batch = Batch::new(Arc::clone(&base), &self.servers, &self.parts.token, now);
        let mut pending = Pending::default();
        for message in messages.drain(..) {
            match message {
                ToControl::HoldChanges { done } => {
                    self.changes.hold();
                    pending.answers.push((done, true));
                }
                ToControl::ResumeChanges => {
                    for waiting in self.changes.resume() {
                        pending.take(&mut batch, waiting);
                    }
                }
                ToControl::HandedOver => {
                    self.stop_tasks.cancel();
                    self.changes.refuse();
                    self.rebalances.stop(&self.parts.token);
                    self.state_files.leave();
                }
                ToControl::Stopping => {
                    self.rebalances.stop(&self.parts.token);
                    self.state_files.stop();
                }
                message => {
                    if let Some(message) = self.changes.admit(message) {
                        pending.take(&mut batch, message);
                    }
                }
            }
        }
        let (snapshot, mut outcome) = batch.finish();
        if let Some(snapshot) = snapshot {
            self.publish(&Arc::new(snapshot));
        }
        if outcome.specs_changed {
            self.follow_specs(&base);
        }
        if let Some((before, state)) = pending.decided.take() {
            self.apply_decided(&before, &state, now);
        }
        for text in std::mem::take(&mut pending.counted) {
            let base = self.parts.snapshot.load_full();
            let next = handover::counters::add(&text, &base, &self.parts.token, now);
            if let Some(snapshot) = next {
                self.publish(&Arc::new(snapshot));
            }
        }
        self.make_changes(&base, &mut pending, &mut outcome).await;
        for name in std::mem::take(&mut outcome.look_up) {
            self.look_up(&name, Until::Once);
        }
        for server in pending.suspects {
            self.suspected(server, now);
        }
        self.follow(outcome).await;
        let next = self.parts.snapshot.load_full();
        self.follow_backends(&base, &next).await;
        for (done, found) in pending.answers {
            // Whoever asked may have gone.
            let _ = done.send(found);
        }
    }

    /// Makes changes at run time that the batch cannot make, and has the workers follow those of frontends.
    async fn make_changes(
        &mut self,
        base: &Snapshot,
        pending: &mut Pending,
        outcome: &mut Outcome,
    ) {
        for (change, found, done) in std::mem::take(&mut pending.changes) {
            let answer = found && self.changed_at_run_time(&change).await;
            let followed = match change {
                RuntimeChange::FrontendState(id, state) if found => {
                    let opened = state == FrontendState::Open;
                    let line = opened.then(|| server_events::frontend_set(base, id, state));
                    let line = line.flatten();
                    vec![Followed { id, line }]
                }
                RuntimeChange::DropOverrides => std::mem::take(&mut outcome.frontends_opened),
                _ => {
                    pending.answers.push((done, answer));
                    continue;
                }
            };
            self.follow_frontends(followed, Some(Told { done, answer }))
                .await;
        }
        for (id, done) in std::mem::take(&mut pending.cannot_listen) {
            let told = Told {
                done,
                answer: false,
            };
            let followed = Followed { id, line: None };
            self.follow_frontends(vec![followed], Some(told)).await;
        }
    }

    /// What follows from a change at run time that has been published; servers come and go here. `false`: it cannot
    /// be made (any more).
    async fn changed_at_run_time(&mut self, change: &RuntimeChange) -> bool {
        let snapshot = self.parts.snapshot.load_full();
        let (shards, now) = (self.parts.token.shard() + 1, Instant::now());
        let next = match change {
            RuntimeChange::AddServer(backend, spec) => {
                dynamic::add(&snapshot, *backend, spec, (shards, now))
            }
            RuntimeChange::RemoveServer(uid) => dynamic::remove(&snapshot, *uid, now),
            RuntimeChange::RenameServer(uid, name) => dynamic::rename(&snapshot, *uid, name, now),
            RuntimeChange::DropOverrides => {
                snapshot.global.freed.notify_waiters();
                let next = dynamic::as_written(&snapshot, (shards, now));
                if let Some(next) = next {
                    self.follow_dynamic(&snapshot, next).await;
                }
                return true;
            }
            other => {
                self.follow_change(&snapshot, other);
                return true;
            }
        };
        let Some(next) = next else {
            return false;
        };
        self.follow_dynamic(&snapshot, next).await;
        true
    }

    /// Publishes `next`, in which servers have come or gone since `base`.
    async fn follow_dynamic(&mut self, base: &Snapshot, next: Snapshot) {
        self.publish(&Arc::new(next));
        self.follow_specs(base);
        let next = self.parts.snapshot.load_full();
        self.tell_backends_changed(base, &next).await;
    }

    /// What follows from a change that is in force.
    fn follow_change(&self, snapshot: &Snapshot, change: &RuntimeChange) {
        match change {
            // Limits may have been raised.
            RuntimeChange::FrontendMaxconn(..)
            | RuntimeChange::Maxconn(_)
            | RuntimeChange::ConnectionRate(_)
            | RuntimeChange::SessionRate(_) => {
                snapshot.global.freed.notify_waiters();
            }
            RuntimeChange::ClearCounters(what) => {
                clear::counters(snapshot, *what, &self.parts.token);
                clear::rate_maxima(snapshot, *what);
            }
            _ => {}
        }
    }

    /// A message before the start: only names are looked up then.
    fn start_turn(&mut self, message: ToControl) {
        if let ToControl::Resolved { name, addresses } = message {
            let base = self.parts.snapshot.load_full();
            let mut batch = Batch::new(base, &self.servers, &self.parts.token, Instant::now());
            batch.resolved_at_start(&name, &addresses);
            if let (Some(snapshot), _) = batch.finish() {
                self.publish(&Arc::new(snapshot));
            }
        }
    }

    /// Connections to a server have failed: a check decides. Where none connects to the same place, time
    /// does.
    fn suspected(&mut self, uid: u64, now: Instant) {
        if let Some(handle) = self.servers.check_handle(uid) {
            handle.check_suspect();
            if handle.clears_suspicion() {
                return;
            }
        }
        if let Some(live) = self.live(uid) {
            self.suspects.entry(uid).or_insert((live, now));
        }
    }

    /// The counters of a server that is in force.
    fn live(&self, uid: u64) -> Option<Arc<ServerLive>> {
        let at = self.servers.get(uid)?;
        let snapshot = self.parts.snapshot.load();
        let server = snapshot.backend(at.backend)?.servers.get(at.index)?;
        Some(Arc::clone(&server.live))
    }

    /// Does what follows from a publication: log lines and orders to workers.
    async fn follow(&self, outcome: Outcome) {
        server_events::log_dropped(outcome.dropped);
        let paused = outcome.frontends_paused.into_iter();
        let paused = paused.map(|id| Followed { id, line: None }).collect();
        self.follow_frontends(paused, None).await;
        for line in outcome.lines {
            self.log(line);
        }
        let ended = [
            (outcome.down, Cause::Down),
            (outcome.up, Cause::Up),
            (outcome.killed, Cause::Killed),
        ];
        for (servers, cause) in ended {
            if !servers.is_empty() {
                let now = Instant::now();
                for live in servers.iter().filter_map(|uid| self.live(*uid)) {
                    live.end_sessions(now, cause);
                }
                let servers = ServerSet::new(servers);
                let order = Order::EndSessions { servers, cause };
                self.parts.workers.tell_all(&order).await;
            }
        }
        self.tell_servers_changed(outcome.backends_changed).await;
    }

    /// Makes sessions that connect to these backends choose again.
    async fn tell_servers_changed(&self, mut backends: Vec<BackendId>) {
        if !backends.is_empty() {
            backends.sort_unstable();
            let order = Order::ServersChanged(backends.into());
            self.parts.workers.tell_all(&order).await;
        }
    }

    /// The same for all backends that differ in `base` and `next`.
    async fn tell_backends_changed(&self, base: &Snapshot, next: &Snapshot) {
        let backends = next.backends.iter().flatten();
        let changed = backends.filter(|backend| {
            let before = base.backend(backend.id);
            before.is_some_and(|before| !Arc::ptr_eq(before, backend))
        });
        let changed = changed.map(|backend| backend.id).collect();
        self.tell_servers_changed(changed).await;
    }

    fn log(&self, line: LogLine) {
        line.log(&self.parts.log);
    }

    /// Once a second.
    async fn tick(&mut self) {
        let now = Instant::now();
        let snapshot = self.parts.snapshot.load_full();
        let millis = snapshot.global.millis(now);
        self.maxima.update(&snapshot, millis);
        rates::note_attempts(&snapshot, millis / 1000);
        self.parts.reserve.refill();
        self.suspects.retain(|_, (live, since)| {
            let stays = now.duration_since(*since) < SUSPECT_TTL;
            if !stays {
                live.trust();
            }
            stays
        });
        // After a handover the next process makes the steps, and logs their end.
        self.state_files.tick(&snapshot, now).await;
        if !self.stop_tasks.is_cancelled() {
            self.warm_up(snapshot, now).await;
        }
        self.rebalance().await;
    }

    /// When the running second of the process's clock is over.
    fn next_second(&self) -> tokio::time::Instant {
        let now = Instant::now();
        let past = self.parts.snapshot.load().global.millis(now) % 1000;
        (now + Duration::from_millis(1000 - past)).into()
    }

    fn look_up(&mut self, name: &Arc<str>, until: Until) {
        let tasks = (&self.tasks, &self.stop_tasks);
        self.resolver.look_up(name, until, tasks);
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
