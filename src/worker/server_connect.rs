//! Steps 5 to 7: choosing a server, taking a place on it, connecting; again until one answers.
//!
//! The decisions are [`ConnectPolicy`]'s; this file carries them out on sockets and counts what came of it.
//! Until a server has answered not a byte of the client is read, so another can always be tried.

use super::connect::Attempt;
use super::connect_policy::{AttemptSlot, ConnectFailure, ConnectPolicy, Limits, Step};
use super::pending::PendingGuard;
use super::session::WorkerContext;
use crate::balance::RotationCursor;
use crate::live::slot::Slot;
use crate::live::{Cause, FailureCause, Phase, ServerName, ShortageStep, Termination, Traffic};
use crate::state::{Backend, BackendId, Server, ToControl};
use crate::sys::limits::{Shortage, out_of_descriptors};
use crate::sys::raw::{self, Owned};
use std::future::pending;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A session's way to a server.
pub(super) struct ServerConnect<'a> {
    worker: &'a WorkerContext,
    pending: &'a PendingGuard,
    client: &'a OwnedFd,
    backend: BackendId,
    turn: RotationCursor,
    policy: ConnectPolicy,
    attempts: [Option<Attempt>; 2],
    /// The server that was asked first.
    first: Option<u64>,
    /// The server that has refused last, until it is known whether another is asked instead.
    refused: Option<Arc<Server>>,
    /// Why the last server that has failed did.
    last_failure: Option<FailureCause>,
    /// What was missing here the last time that something was.
    last_shortage: Option<Shortage>,
    /// Watches the client for a reset, from the first wait on that was in vain: most sessions are
    /// connected before that and do not pay for it.
    client_watch: Option<AsyncFd<Owned<BorrowedFd<'a>>>>,
}

/// What ended a wait.
enum Event {
    Answered(AttemptSlot),
    Failed(AttemptSlot, io::Error),
    TimeIsUp,
    ClientGone(io::Error),
    Ended,
}

impl<'a> ServerConnect<'a> {
    /// Sets out for a server of `backend`.
    pub(super) fn new(pending: &'a PendingGuard, client: &'a OwnedFd, backend: &Backend) -> Self {
        let limits = Limits {
            retries: backend.spec.retries,
            budget: backend.spec.timeout_connect,
            attempt: backend.spec.connect_attempt,
        };
        let policy = ConnectPolicy::new(limits, Instant::now());
        pending.expect_until(policy.deadline());
        Self {
            worker: &pending.worker,
            pending,
            client,
            backend: backend.id,
            turn: RotationCursor::take(&backend.live.cursor),
            policy,
            attempts: [None, None],
            first: None,
            refused: None,
            last_failure: None,
            last_shortage: None,
            client_watch: None,
        }
    }

    /// The attempt that a server has answered.
    pub(super) async fn server(mut self) -> Result<Attempt, Termination> {
        loop {
            match self.policy.step(Instant::now()) {
                Step::Start(slot) => self.start(slot),
                Step::GiveUp(failure) => return Err(self.give_up(failure)),
                Step::Wait(until) => match self.wait(until).await {
                    Event::Answered(slot) => {
                        if let Some(winner) = self.win(slot) {
                            return Ok(winner);
                        }
                    }
                    Event::Failed(slot, error) => self.failed(slot, &error),
                    Event::TimeIsUp => self.watch_client(),
                    Event::ClientGone(error) => {
                        return Err(Termination::because(Cause::Client, Phase::Connect, error));
                    }
                    Event::Ended => return Err(Termination::new(Cause::Killed, Phase::Connect)),
                },
            }
        }
    }

    /// Steps 5 and 6, and the beginning of 7.
    fn start(&mut self, slot: AttemptSlot) {
        if let Some(overtaken) = self.attempts[slot as usize].take() {
            self.leave(overtaken);
        }
        let Some(server) = self.select() else {
            return self.policy.exhausted();
        };
        let now = Instant::now();
        let usual = server.live.usual_connect();
        let again = self.policy.started(slot, server.live.uid, usual, now);
        self.first.get_or_insert(server.live.uid);
        self.each(&server, |traffic| {
            traffic.connect.add(1);
            if again {
                traffic.wretr.add(1);
            }
        });
        if let Some(refused) = self.refused.take()
            && refused.live.uid != server.live.uid
        {
            self.each(&refused, |traffic| traffic.wredis.add(1));
        }
        let server_slot = Slot::take(&server.live, &self.worker.worker_stats.token);
        let order = self.policy.retries();
        self.pending.stats(|stats| {
            stats.asked = Some(Arc::clone(&server.spec));
            stats.retries = order;
        });
        let begun = if self.worker.worker_stats.global.may_take_descriptors() {
            Attempt::begin(&server, server_slot, self.client, (now, &self.worker.relay))
        } else {
            Err(out_of_descriptors())
        };
        match begun {
            Ok(attempt) => self.attempts[slot as usize] = Some(attempt.numbered(order)),
            Err(error) => self.refused(slot, &server, &error),
        }
    }

    /// Step 5: the next server in the rotation that the plan accepts, suspected ones last.
    fn select(&self) -> Option<Arc<Server>> {
        self.worker.read(|snapshot| {
            // A backend that was removed meanwhile is one without servers.
            let backend = snapshot.backend(self.backend)?;
            let server = |index: u32| &backend.servers[index as usize];
            let accepts = |index| self.policy.accepts(server(index).live.uid);
            let trusted = |index| accepts(index) && !server(index).live.is_suspect();
            let chosen = backend
                .picker
                .pick(self.turn, trusted)
                .or_else(|| backend.picker.pick(self.turn, accepts))?;
            Some(Arc::clone(server(chosen)))
        })
    }

    async fn wait(&self, until: Instant) -> Event {
        let [a, b] = &self.attempts;
        tokio::select! {
            // First, so that what was to end does not go on because a server answers in that moment.
            biased;
            () = self.pending.ended() => Event::Ended,
            result = answer(a.as_ref()) => event(AttemptSlot::A, result),
            result = answer(b.as_ref()) => event(AttemptSlot::B, result),
            error = reset(self.client_watch.as_ref()) => Event::ClientGone(error),
            () = tokio::time::sleep_until(until.into()) => Event::TimeIsUp,
        }
    }

    /// The attempt in `slot` has been answered: it is kept, the other is closed by a reset. `None`
    /// when its server has gone down meanwhile and ends its sessions then.
    fn win(&mut self, slot: AttemptSlot) -> Option<Attempt> {
        let winner = self.attempts[slot as usize].take()?;
        if winner.server.spec.shutdown_sessions_on_down && !self.is_usable(&winner.server) {
            let gone = io::Error::from_raw_os_error(libc::ECONNREFUSED);
            self.refused(slot, &Arc::clone(&winner.server), &gone);
            winner.abandon();
            return None;
        }
        winner
            .server
            .live
            .connect_succeeded(winner.started.elapsed());
        for loser in std::mem::take(&mut self.attempts).into_iter().flatten() {
            if loser.started < winner.started {
                self.leave(loser);
            } else {
                loser.abandon();
            }
        }
        self.each(&winner.server, |traffic| traffic.lbtot.add(1));
        let redispatched = self.first != Some(winner.server.live.uid);
        self.pending.stats(|stats| {
            stats.retries = winner.order;
            stats.redispatched = redispatched;
        });
        Some(winner)
    }

    fn is_usable(&self, server: &Server) -> bool {
        self.worker.read(|snapshot| {
            snapshot.backend(self.backend).is_some_and(|backend| {
                let mut servers = backend.servers.iter();
                servers.any(|now| now.live.uid == server.live.uid && now.is_usable())
            })
        })
    }

    fn failed(&mut self, slot: AttemptSlot, error: &io::Error) {
        if let Some(attempt) = self.attempts[slot as usize].take() {
            self.refused(slot, &attempt.server, error);
        }
    }

    /// The server has refused, or something of ours ran out: the two are never confused.
    fn refused(&mut self, slot: AttemptSlot, server: &Arc<Server>, error: &io::Error) {
        let now = Instant::now();
        let cause = FailureCause::of(error);
        if let FailureCause::Shortage(shortage) = cause {
            self.last_shortage = Some(shortage);
            self.report_shortage(server, shortage);
            self.policy.local_error(slot, now);
            return;
        }
        self.last_failure = Some(cause);
        self.policy.refused(slot, now);
        self.blame(server);
        self.refused = Some(Arc::clone(server));
    }

    /// Counts that `server` could not be asked for want of something of our own, and tells of it.
    fn report_shortage(&self, server: &Server, shortage: Shortage) {
        let Some(endpoint) = &server.endpoint else {
            return;
        };
        let worker_stats = &self.worker.worker_stats;
        self.pending.stats(|stats| {
            let towards = stats.backend.as_ref().map(|backend| ServerName {
                backend: &backend.spec.name,
                server: &server.spec.name,
                address: endpoint,
            });
            let step = ShortageStep::Connect;
            let token = &worker_stats.token;
            worker_stats.global.shortage(token, step, shortage, towards);
        });
    }

    /// Counts that the session gets no server, and tells of it.
    fn report_failure(&self, failure: ConnectFailure, server: Option<&Server>) {
        let refused = self.last_failure.unwrap_or(FailureCause::Refused);
        let shortage = self.last_shortage.map(FailureCause::Shortage);
        let cause = match failure {
            ConnectFailure::NoServer => FailureCause::NoServer,
            ConnectFailure::Refused => refused,
            ConnectFailure::Timeout => FailureCause::Timeout,
            ConnectFailure::Shortage => shortage.unwrap_or(refused),
        };
        let worker_stats = &self.worker.worker_stats;
        let server = server.map(|server| &*server.spec.name);
        self.pending.stats(|stats| {
            if let Some(backend) = &stats.backend {
                let live = backend.slot.live();
                let token = &worker_stats.token;
                worker_stats
                    .global
                    .session_failed(token, live, server, cause);
            }
        });
    }

    /// Another server is asked instead, this one not having answered.
    fn leave(&mut self, attempt: Attempt) {
        self.each(&attempt.server, |traffic| traffic.wredis.add(1));
        self.blame(&attempt.server);
        attempt.abandon();
    }

    fn blame(&self, server: &Server) {
        if server.live.connect_failed() {
            let check = ToControl::CheckNow {
                backend: self.backend,
                server: server.live.uid,
            };
            self.worker.control.hint(check);
        }
    }

    fn give_up(mut self, failure: ConnectFailure) -> Termination {
        let mut last = self.refused.take();
        for attempt in std::mem::take(&mut self.attempts).into_iter().flatten() {
            self.blame(&attempt.server);
            last = Some(Arc::clone(&attempt.server));
            attempt.abandon();
        }
        match &last {
            Some(server) => self.each(server, |traffic| traffic.econ.add(1)),
            None => self.on_backend(|traffic| traffic.econ.add(1)),
        }
        self.report_failure(failure, last.as_deref());
        let redispatched = last.is_some_and(|server| self.first != Some(server.live.uid));
        self.pending.stats(|stats| {
            stats.retries = self.policy.retries();
            stats.redispatched = redispatched;
        });
        match failure {
            ConnectFailure::NoServer | ConnectFailure::Refused => {
                Termination::new(Cause::Server, Phase::Connect)
            }
            ConnectFailure::Timeout => Termination::new(Cause::ServerTimeout, Phase::Connect),
            ConnectFailure::Shortage => Termination::new(Cause::Resource, Phase::Connect),
        }
    }

    /// Runs `count` on the backend's and the server's shard.
    fn each(&self, server: &Server, count: impl Fn(&Traffic)) {
        self.on_backend(&count);
        count(server.live.traffic.mine(&self.worker.worker_stats.token));
    }

    fn on_backend(&self, count: impl Fn(&Traffic)) {
        self.pending.stats(|stats| {
            if let Some(backend) = &stats.backend {
                count(
                    backend
                        .slot
                        .live()
                        .traffic
                        .mine(&self.worker.worker_stats.token),
                );
            }
        });
    }

    fn watch_client(&mut self) {
        if self.client_watch.is_none() {
            // Without the watch the client's reset is noticed when the relay begins.
            self.client_watch = raw::watch(Owned::new(self.client.as_fd()), Interest::ERROR).ok();
        }
    }
}

async fn answer(attempt: Option<&Attempt>) -> io::Result<()> {
    match attempt {
        Some(attempt) => attempt.answered().await,
        None => pending().await,
    }
}

fn event(slot: AttemptSlot, result: io::Result<()>) -> Event {
    match result {
        Ok(()) => Event::Answered(slot),
        Err(error) => Event::Failed(slot, error),
    }
}

/// Completes when the client's connection has failed.
async fn reset(watch: Option<&AsyncFd<Owned<BorrowedFd<'_>>>>) -> io::Error {
    let Some(watch) = watch else {
        return pending().await;
    };
    loop {
        let Ok(mut ready) = watch.ready(Interest::ERROR).await else {
            return pending().await;
        };
        match rustix::net::sockopt::socket_error(watch.get_ref().as_fd()) {
            Ok(Err(error)) | Err(error) => return error.into(),
            Ok(Ok(())) => ready.clear_ready(),
        }
    }
}
