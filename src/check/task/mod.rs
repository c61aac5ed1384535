//! The check task of one server, and the handle with which control steers it. Control thread only.
//!
//! Invariants: at most one check of a server is in flight. A check that a local failure has prevented changes
//! nothing and is reported as a warning. While the handle is paused no check starts. A verdict that can change
//! something reaches control, in the order of the checks. One that cannot, a pass of a server that is up with a
//! full counter, is only noted; nearly every check is such.

use super::permits::CheckPermits;
use super::probe::{CheckOptions, IdleSockets, Outcome, ProbeOptions, Target, probe};
use super::schedule::{Grid, IntervalKind};
use super::script::thread::{Job, ScriptThread};
use super::script::{Facts, state};
use crate::config::descriptors::checks_at_once;
use crate::config::model::{Check, Script, ServerSocket, Source};
use crate::live::{
    CheckReport, CheckStatus, GlobalLive, ServerLive, ServerName, ShortageStep, WorkerToken,
};
use crate::state::{BackendId, ControlHandle, OperState, Snapshot, ToControl};
use crate::sys::limits::{DescriptorReserve, Shortage, nofile};
use arc_swap::ArcSwap;
use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

/// Time between two warnings about checks that could not be made.
const WARN_EVERY: Duration = Duration::from_secs(1);

/// Why a check is wanted beside the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extra {
    /// The server was put into service, or has another address.
    Now,
    /// Connections of sessions have failed.
    Suspicion,
    /// As many of them as `error-limit` says had failed by then: the fast interval is for the next check.
    Errors(Instant),
}

/// How control steers a check task.
#[derive(Debug)]
pub struct CheckHandle {
    interval_kind: Cell<IntervalKind>,
    target: RefCell<Option<Target>>,
    wanted: Cell<Option<Extra>>,
    /// When the last check started that a suspicion had asked for.
    suspicion_checked: Cell<Option<Instant>>,
    /// It connects to where the traffic goes.
    asks_traffic_target: Cell<bool>,
    /// Verdicts on their way to control, which [`CheckHandle::interval_kind`] does not reflect yet.
    undelivered: Cell<u32>,
    changed: Notify,
}

impl CheckHandle {
    /// A handle for checks of `target`; `None` while the address is not known.
    pub fn new(interval_kind: IntervalKind, target: Option<Target>) -> Rc<Self> {
        Rc::new(Self {
            interval_kind: Cell::new(interval_kind),
            target: RefCell::new(target),
            wanted: Cell::new(None),
            suspicion_checked: Cell::new(None),
            asks_traffic_target: Cell::new(true),
            undelivered: Cell::new(0),
            changed: Notify::new(),
        })
    }

    /// Check at once; the grid does not move. If a check is in flight and fails, that is enough; if it passes,
    /// another check follows.
    pub fn check_now(&self) {
        self.wanted.set(Some(Extra::Now));
        self.changed.notify_one();
    }

    /// Connections of sessions have failed: check at once, but at most once in the check's fast interval,
    /// however often they fail. A check that starts before that answers it too.
    pub fn check_suspect(&self) {
        if self.wanted.get().is_none() {
            self.wanted.set(Some(Extra::Suspicion));
            self.changed.notify_one();
        }
    }

    /// As many connections of sessions have failed by `now` as `error-limit` says: the next check comes within the fast
    /// interval, unless the server is down.
    pub fn check_soon(&self, now: Instant) {
        if self.wanted.get().is_none() {
            self.wanted.set(Some(Extra::Errors(now)));
            self.changed.notify_one();
        }
    }

    /// Whether the check connects to where the traffic goes ([`Target::is_of_traffic`]). Only then does a
    /// passed one clear a suspicion.
    pub fn set_asks_traffic_target(&self, asks: bool) {
        self.asks_traffic_target.set(asks);
    }

    /// Whether a passed check clears a suspicion.
    pub fn clears_suspicion(&self) -> bool {
        self.asks_traffic_target.get()
    }

    /// When the check that is wanted beside the grid may start; `None`: none is wanted.
    fn extra_due(&self, check: &Check, now: Instant) -> Option<Instant> {
        match self.wanted.get()? {
            Extra::Now => Some(now),
            Extra::Suspicion => {
                let last = self.suspicion_checked.get();
                Some(last.map_or(now, |last| last + check.fast_interval))
            }
            Extra::Errors(_) if self.interval_kind.get() == IntervalKind::Down => None,
            Extra::Errors(since) => Some(since + check.fast_interval),
        }
    }

    /// Sets the interval that the server's state requires from now on.
    pub fn set_interval_kind(&self, interval_kind: IntervalKind) {
        if self.interval_kind.replace(interval_kind) != interval_kind {
            self.changed.notify_one();
        }
    }

    /// Control has taken a verdict of this server out of its inbox.
    pub fn verdict_received(&self) {
        self.undelivered
            .set(self.undelivered.get().saturating_sub(1));
    }

    /// A verdict of this server is being sent to control.
    pub fn verdict_sent(&self) {
        self.undelivered
            .set(self.undelivered.get().saturating_add(1));
    }

    /// A check of `live` has passed after `took`. Returns whether it changes nothing for control. Then it is
    /// noted here, and control is not told.
    pub fn passed_again(&self, live: &ServerLive, took: Duration) -> bool {
        let settled =
            self.interval_kind.get() == IntervalKind::Normal && self.undelivered.get() == 0;
        let again = settled && live.check.passed_again(took);
        if again && self.clears_suspicion() {
            live.trust();
        }
        if again {
            live.clear_errors();
        }
        again
    }

    /// Sets the server's address.
    pub fn set_target(&self, target: Target) {
        *self.target.borrow_mut() = Some(target);
        self.changed.notify_one();
    }

    /// Waits until a check is to start, and returns its target.
    async fn due(&self, grid: &mut Grid, check: &Check) -> Target {
        loop {
            let target = self.target.borrow().clone();
            let interval = self.interval_kind.get().interval(check);
            let (Some(target), Some(interval)) = (target, interval) else {
                self.changed.notified().await;
                continue;
            };
            let now = Instant::now();
            let extra = self.extra_due(check, now);
            if extra.is_some_and(|at| at <= now) {
                if self.wanted.take() == Some(Extra::Suspicion) {
                    self.suspicion_checked.set(Some(now));
                }
                return target;
            }
            let due = grid.due(interval, now);
            let next = extra.map_or(due.at, |extra| extra.min(due.at));
            tokio::select! {
                // A random order would cost instructions and change nothing.
                biased;
                () = sleep_until(next.into()) => {
                    if next < due.at {
                        continue;
                    }
                    grid.start(due);
                    self.wanted.set(None);
                    return target;
                }
                () = self.changed.notified() => {}
            }
        }
    }
}

/// What check tasks need from control.
#[derive(Debug)]
pub struct CheckParts {
    /// Receives verdicts.
    pub control: ControlHandle,
    /// Descriptors that are kept back for checks.
    pub reserve: Arc<DescriptorReserve>,
    /// The counters of the process.
    pub global: Arc<GlobalLive>,
    /// Permits writing the control thread's shard.
    pub token: Rc<WorkerToken>,
    /// What is in force, which checks with `send-state` and `disable-on-404` ask.
    pub snapshot: Option<Arc<ArcSwap<Snapshot>>>,
}

/// What all check tasks share.
#[derive(Debug)]
pub struct CheckContext {
    parts: CheckParts,
    /// Bounds the checks in flight, so that many servers without an answer do not use up the sessions'
    /// descriptors.
    permits: CheckPermits,
    reset: Cell<bool>,
    idle: IdleSockets,
    /// Begins with the first check that asks more than a connection.
    scripts: OnceCell<ScriptThread>,
    origin: Instant,
    warned: Cell<Option<Instant>>,
    unreported: Cell<u64>,
}

impl CheckContext {
    /// Checks end with FIN until [`CheckContext::set_reset`].
    pub fn new(parts: CheckParts) -> Rc<Self> {
        Rc::new(Self {
            parts,
            permits: CheckPermits::new(checks_at_once(u64::from(nofile()))),
            reset: Cell::new(false),
            idle: IdleSockets::default(),
            scripts: OnceCell::new(),
            origin: Instant::now(),
            warned: Cell::new(None),
            unreported: Cell::new(0),
        })
    }

    /// Sets whether checks end with RST from now on.
    pub fn set_reset(&self, reset: bool) {
        self.reset.set(reset);
        // There may be fewer checks now than sockets that were kept for them.
        self.idle.clear();
    }

    /// The outcome of a check that asks more than a connection.
    async fn ask(&self, server: &CheckedServer, target: &Target, script: &Arc<Script>) -> Outcome {
        let thread = match self.scripts.get() {
            Some(thread) => thread,
            None => match ScriptThread::start() {
                Ok(thread) => self.scripts.get_or_init(|| thread),
                Err(error) => return Outcome::Local(error),
            },
        };
        let job = Job {
            script: Arc::clone(script),
            facts: self.facts(server, script),
            target: target.clone(),
            limit: server.check.timeout,
            header: server.check.header,
            reset: self.reset.get(),
            source: server.source.clone(),
            socket: server.socket.clone(),
            global: Arc::clone(&self.parts.global),
            live: Arc::clone(&server.live),
            reserve: Arc::clone(&self.parts.reserve),
        };
        thread.check(job).await
    }

    /// What a check may say of its server.
    fn facts(&self, server: &CheckedServer, script: &Script) -> Facts {
        let mut facts = Facts {
            backend: server.backend_name.to_string(),
            server: server.name.to_string(),
            is_up: true,
            state: None,
            token: None,
        };
        if !script.disable_on_404 && !script.send_state && script.kube.is_none() {
            return facts;
        }
        let snapshot = self.parts.snapshot.as_ref().map(|it| it.load());
        let backend = snapshot.as_ref().and_then(|it| it.backend(server.backend));
        let found = backend.and_then(|backend| {
            let mut all = backend.servers.iter();
            Some((backend, all.find(|one| one.live.uid == server.live.uid)?))
        });
        if let Some((backend, found)) = found {
            facts.is_up = found.status.oper != OperState::Stopped;
            facts.state = script.send_state.then(|| state::line(backend, found));
        }
        facts
    }

    /// Warns that a check of `server` at `target` could not be made, at most once in [`WARN_EVERY`] for each
    /// cause.
    fn not_made(&self, server: &CheckedServer, target: &Target, error: &io::Error) {
        if let Some(shortage) = Shortage::of(error) {
            let towards = ServerName {
                backend: &server.backend_name,
                server: &server.name,
                address: target,
            };
            let CheckParts { global, token, .. } = &self.parts;
            return global.shortage(token, ShortageStep::Check, shortage, Some(towards));
        }
        let now = Instant::now();
        let warned = self.warned.get();
        if warned.is_some_and(|at| now.duration_since(at) < WARN_EVERY) {
            self.unreported.set(self.unreported.get() + 1);
            return;
        }
        self.warned.set(Some(now));
        tracing::warn!(
            backend = &*server.backend_name,
            server = &*server.name,
            %error,
            and_others = self.unreported.replace(0),
            "health check not made"
        );
    }
}

/// One checked server.
#[derive(Debug)]
pub struct CheckedServer {
    /// Its backend.
    pub backend: BackendId,
    /// The backend's name.
    pub backend_name: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its counters.
    pub live: Arc<ServerLive>,
    /// Its check.
    pub check: Check,
    /// From where checks connect, if the file says it.
    pub source: Option<Source>,
    /// The options of the server's sockets.
    pub socket: Option<Arc<ServerSocket>>,
    /// How control steers its checks.
    pub handle: Rc<CheckHandle>,
}

impl CheckedServer {
    fn has_own_options(&self) -> bool {
        self.source.is_some() || self.socket.is_some()
    }
}

/// Checks one server from `first` on, until `stop` or until control has ended.
pub async fn run(
    server: CheckedServer,
    context: Rc<CheckContext>,
    first: Instant,
    stop: CancellationToken,
) {
    let mut grid = Grid::new(context.origin, first, server.live.uid);
    if server.check.script.is_none() && server.live.check.status() != CheckStatus::L4Ok {
        // What a check has said that asked more is news when it is a connection alone.
        server.live.check.forget_pass();
    }
    let checks = async {
        loop {
            let target = server.handle.due(&mut grid, &server.check).await;
            if !check_once(&server, &context, &target).await {
                return;
            }
        }
    };
    tokio::select! {
        // A check that is stopped reports nothing: its target may have changed.
        biased;
        () = stop.cancelled() => {}
        () = checks => {}
    }
}

/// Makes one check. `false` when control has ended.
async fn check_once(server: &CheckedServer, context: &CheckContext, target: &Target) -> bool {
    let (live, handle) = (&server.live, &server.handle);
    // Usually a permit is free, and no future is made to wait for one. A check that waits here begins late, and
    // so does its timeout.
    let _permit = match context.permits.try_take() {
        Some(permit) => permit,
        None => context.permits.take().await,
    };
    live.check.begin();
    let started = Instant::now();
    let own = server.has_own_options().then(|| CheckOptions {
        source: server.source.as_ref(),
        socket: server.socket.as_deref(),
        global: &context.parts.global,
        live,
        names: (&*server.backend_name, &*server.name),
    });
    let options = ProbeOptions {
        reserve: &context.parts.reserve,
        reset: context.reset.get().then_some(&context.idle),
        limit: server.check.timeout,
        kind: server.check.kind,
        header: server.check.header,
        own: own.as_ref(),
    };
    let outcome = match &server.check.script {
        None => probe(target, options).await,
        // In a box, so that the checks of connections do not carry its state.
        Some(script) => Box::pin(context.ask(server, target, script)).await,
    };
    match outcome {
        Outcome::Local(error) => {
            live.check.give_up();
            context.not_made(server, target, &error);
            true
        }
        Outcome::Verdict { status, code, info } => {
            let (passed, took) = (status.has_passed(), started.elapsed());
            let same = match &server.check.script {
                None => passed,
                // A server that wants no new sessions may be up for another reason meanwhile.
                Some(_) if status == CheckStatus::L7OkConditional => false,
                Some(_) => passed && live.check.was(status, code, &info),
            };
            if same && handle.passed_again(live, took) {
                return true;
            }
            if !passed {
                handle.wanted.set(None);
            }
            handle.verdict_sent();
            let message = ToControl::Checked {
                backend: server.backend,
                server: live.uid,
                report: CheckReport {
                    status,
                    duration: Some(took),
                    code,
                    info,
                    in_progress: false,
                },
            };
            context.parts.control.report(message).await
        }
    }
}

#[cfg(test)]
mod tests;
