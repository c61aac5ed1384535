//! Steps 5 to 7: chooses a server, takes a slot on it and connects, again and again until one answers.
//!
//! [`ConnectPolicy`] decides when to try a server. This file chooses the servers, keeps the attempts and counts
//! their outcomes. It does no input or output and waits for nothing: a [`Dialer`] connects, and the caller
//! reports what has happened. A worker's session drives it with sockets ([`super::connect`]), the simulation of
//! control with simulated events.
//!
//! No byte of the client is read before a server has answered, so another server can always be tried.
//!
//! Invariant: the policy has an attempt in a slot exactly when this has a connection in it.

mod choice;
mod queues;
mod resume;
mod retries;
mod times;

pub(crate) use queues::QueueStay;

use super::connect_policy::{AttemptSlot, ConnectFailure, ConnectPolicy, Limits, Step};
use super::order::ServerSet;
use crate::balance::PickInput;
use crate::balance::hash::Value;
use crate::config::model::Sample;
use crate::live::queue::{Rank, Ticket};
use crate::live::slot::Slot;
use crate::live::{FailureCause, Traffic, WorkerToken};
use crate::state::{Backend, BackendId, Server};
use crate::sys::limits::Shortage;
use choice::{Chosen, Selected};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use times::ChosenBy;

/// How long the event of an answer may be on its way before it is looked for again.
const EVENT_WITHIN: Duration = Duration::from_millis(5);

/// Connects to servers, and gives access to what connecting needs to know.
pub(crate) trait Dialer {
    /// A connection that is being made or is established. Dropping it closes it.
    type Connection;

    /// Begins a connection to `server`.
    ///
    /// # Errors
    /// Those that are known at once; [`FailureCause::of`] tells a server's failure from a shortage on this
    /// machine.
    fn dial(&mut self, server: &Arc<Server>) -> io::Result<Self::Connection>;

    /// Closes a connection that is given up, by a reset if it is established.
    fn abort(&mut self, connection: Self::Connection);

    /// Whether the server has answered or refused already, so that the event is on its way.
    fn is_answered(&self, connection: &Self::Connection) -> bool;

    /// Looks at the backend as it is now; `None` when it was removed.
    fn backend<T>(&self, id: BackendId, look: impl FnOnce(&Backend) -> T) -> Option<T>;

    /// Several connects to the server have failed in a row: asks for a check of it.
    fn suspect(&mut self, backend: BackendId, server: &Server);

    /// So many connects to the server have failed in a row that they count for its health. Whether control is told.
    fn observed(&mut self, server: &Server, errors: u32) -> bool;

    /// A shortage on this machine has prevented a connect to `server`.
    fn short_of(&mut self, shortage: Shortage, server: &Server);

    /// No server was reached; `server` was tried last.
    fn gave_up(&mut self, cause: FailureCause, server: Option<&Server>);

    /// An attempt that was due was not made, because the `retry-budget` of the backend is used up.
    fn retry_denied(&mut self, backend: &Backend, retry_budget: u32);

    /// `server` is tried, or has answered, after `retries` attempts before it. `redispatched`: another server
    /// was tried first.
    fn asks(&mut self, server: &Server, retries: u32, redispatched: bool);

    /// The session has waited in a queue.
    fn waited(&mut self, stay: QueueStay);

    /// The session was held for so long, because no server was usable.
    fn held(&mut self, time: Duration);

    /// Permits counting in this worker's shards.
    fn token(&self) -> &WorkerToken;
}

/// A connection attempt, or the connection that it became.
#[derive(Debug)]
pub(crate) struct Attempt<C> {
    /// The server that is tried.
    pub(crate) server: Arc<Server>,
    /// The session's slot on it.
    pub(crate) slot: Slot,
    /// When the attempt began.
    pub(crate) started: Instant,
    /// The socket.
    pub(crate) connection: C,
    /// How many attempts were made before it.
    order: u32,
    /// Where the server was in the backend when it was chosen.
    index: u32,
    by: ChosenBy,
}

/// What the session does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Wait for an answer, a failure or a change of the servers, at most until then.
    Wait(Instant),
    /// No server was reached.
    GiveUp(ConnectFailure),
}

/// The connecting of one session.
#[derive(Debug)]
pub(crate) struct ServerConnect<C> {
    /// As it was when the session was routed. The session uses it when a reload has removed it meanwhile.
    backend: Arc<Backend>,
    input: PickInput,
    /// By how much the rotation was moved on for the servers that were passed over.
    passed: usize,
    policy: ConnectPolicy,
    /// The generation of the backend that was looked at last.
    generation: u64,
    attempts: [Option<Attempt<C>>; 2],
    /// Its place in a queue, while it waits there.
    ticket: Option<Ticket>,
    /// Its place in the order of the queues, once it has waited.
    rank: Option<Rank>,
    /// It was counted as chosen (`lbtot`) when it began to wait for the server.
    is_counted: bool,
    /// The server that it waits for in a queue, or would wait for if fewer did.
    queued_for: Option<Arc<Server>>,
    /// As many sessions wait for that server as may.
    queue_full: bool,
    /// The server that was tried first.
    first: Option<u64>,
    /// The server that has refused last, until it is known whether another is tried instead.
    refused: Option<Arc<Server>>,
    /// Why the last attempt failed that a server failed.
    last_failure: Option<FailureCause>,
    /// The last shortage on this machine.
    last_shortage: Option<Shortage>,
}

impl<C> ServerConnect<C> {
    /// Begins to connect a session to a server of `backend` at `now`. `sample` tells what an algorithm hashes of it.
    pub(crate) fn new(
        backend: &Arc<Backend>,
        sample: impl FnOnce(Sample) -> Option<Value>,
        now: Instant,
    ) -> Self {
        let input = PickInput::new(&backend.live, &backend.picker, sample, now);
        let limits = Limits {
            retries: backend.spec.retries,
            budget: backend.spec.timeout_connect,
            attempt: backend.spec.connect_attempt,
            by_usual: backend.picker.affinity(&input).is_none(),
            queue: backend.spec.timeout_queue,
            hold: backend.spec.timeout_no_server,
        };
        Self {
            backend: Arc::clone(backend),
            input,
            passed: 0,
            policy: ConnectPolicy::new(limits, now),
            generation: backend.generation,
            attempts: [None, None],
            ticket: None,
            rank: None,
            is_counted: false,
            queued_for: None,
            queue_full: false,
            first: None,
            refused: None,
            last_failure: None,
            last_shortage: None,
        }
    }

    /// The backend.
    pub(crate) fn backend(&self) -> BackendId {
        self.backend.id
    }

    /// When the connect timeout has passed, or the time in queues.
    pub(crate) fn deadline(&self) -> Instant {
        self.policy.deadline()
    }

    /// The connection in `slot`, if one is in flight.
    pub(crate) fn connection(&self, slot: AttemptSlot) -> Option<&C> {
        self.attempts[slot as usize]
            .as_ref()
            .map(|attempt| &attempt.connection)
    }

    /// The server that is tried in `slot`.
    pub(crate) fn server(&self, slot: AttemptSlot) -> Option<&Arc<Server>> {
        let attempt = self.attempts[slot as usize].as_ref();
        attempt.map(|attempt| &attempt.server)
    }

    /// Whether the connection in `slot` could be connected to itself: impossible when the server is known to
    /// answer.
    pub(crate) fn may_be_self_connected(&self, slot: AttemptSlot) -> bool {
        let attempt = self.attempts[slot as usize].as_ref();
        attempt.is_some_and(|attempt| !attempt.server.live.is_answering())
    }

    /// Whether the session is at one of these servers: an attempt at it is in flight, or none is and it has
    /// refused the last one. As in HAProxy a session that waits in a queue is at none.
    pub(crate) fn is_at(&self, servers: &ServerSet) -> bool {
        let mut asked = self.attempts.iter().flatten().peekable();
        let waits = self.is_queued() || asked.peek().is_some();
        let refused = self.refused.iter().filter(|_| !waits);
        let refused = refused.map(|server| server.live.uid).next();
        let mut all = asked.map(|attempt| attempt.server.live.uid).chain(refused);
        all.any(|uid| servers.contains(uid))
    }

    /// Begins the attempts that are due at `now`.
    pub(crate) fn advance(
        &mut self,
        dialer: &mut impl Dialer<Connection = C>,
        now: Instant,
    ) -> Next {
        loop {
            self.assert_slots();
            if self.queue_full {
                self.give_up(ConnectFailure::QueueFull, dialer, now);
                return Next::GiveUp(ConnectFailure::QueueFull);
            }
            match self.policy.step(now) {
                Step::Start(slot) if self.is_asking() => {
                    if self.is_answered(dialer) {
                        // This thread is late, not the server.
                        return Next::Wait(now + EVENT_WITHIN);
                    }
                    self.start_beside(slot, dialer, now);
                }
                Step::Start(slot) => self.start(slot, dialer, now),
                Step::Wait(until) => return Next::Wait(until),
                Step::LeaveServers => self.leave_silent(dialer, now),
                Step::LeaveQueue => self.leave_queue(dialer, now),
                Step::GiveUp(failure) => {
                    self.give_up(failure, dialer, now);
                    return Next::GiveUp(failure);
                }
            }
        }
    }

    /// Whether an attempt is in flight.
    fn is_asking(&self) -> bool {
        self.attempts.iter().any(Option::is_some)
    }

    /// Whether an attempt that is in flight was answered, of which no event has told yet.
    fn is_answered(&self, dialer: &impl Dialer<Connection = C>) -> bool {
        let mut in_flight = self.attempts.iter().flatten();
        in_flight.any(|attempt| dialer.is_answered(&attempt.connection))
    }

    /// Steps 5 and 6, and the start of step 7.
    fn start(&mut self, slot: AttemptSlot, dialer: &mut impl Dialer<Connection = C>, now: Instant) {
        self.leave_queue_to_try(dialer, now);
        self.leave_hold(dialer, now);
        match self.select(dialer) {
            Selected::Server(index, server, passed) => {
                self.pass_over(passed);
                let chosen = Chosen {
                    index,
                    slot: Slot::take(&server.live, dialer.token()),
                    server,
                    by: ChosenBy::Algorithm,
                };
                self.begin(slot, chosen, dialer, now);
            }
            Selected::Reserved(chosen) => self.begin(slot, chosen, dialer, now),
            Selected::Full(wanted, server) => self.wait_in_queue(wanted, server, dialer, now),
            Selected::None { none_usable } => self.policy.exhausted(none_usable),
        }
    }

    /// The start of step 7, with a slot on the server.
    fn begin(
        &mut self,
        slot: AttemptSlot,
        chosen: Chosen,
        dialer: &mut impl Dialer<Connection = C>,
        now: Instant,
    ) {
        let Chosen {
            index,
            server,
            slot: server_slot,
            by,
        } = chosen;
        // Only now that there is a server: an attempt that may still be answered is closed only for another
        // one.
        if let Some(silent) = self.attempts[slot as usize].take() {
            self.leave(silent, dialer, now);
        }
        let uid = server.live.uid;
        let usual = server.live.usual_connect();
        self.policy.started(slot, (uid, server.renewed), usual, now);
        self.first.get_or_insert(uid);
        let refused = self.refused.take();
        let again = refused
            .as_ref()
            .is_some_and(|refused| refused.live.uid == uid);
        self.count(&server, dialer, |traffic| {
            traffic.connect.add(1);
            if again {
                traffic.wretr.add(1);
            }
        });
        if let Some(refused) = refused.filter(|_| !again) {
            self.count(&refused, dialer, |traffic| traffic.wredis.add(1));
        }
        let order = self.policy.retries();
        dialer.asks(&server, order, self.first != Some(uid));
        match dialer.dial(&server) {
            Ok(connection) => {
                self.attempts[slot as usize] = Some(Attempt {
                    slot: server_slot,
                    started: now,
                    connection,
                    order,
                    index,
                    by,
                    server,
                });
            }
            Err(error) => self.count_failure((slot, &server), &error, dialer, now),
        }
    }

    /// Moves the rotation on for the next sessions by the places that this one has passed over. As in HAProxy a
    /// server that is tried in place of another one has had its turn; otherwise it would serve the share of a
    /// server before it that refuses too.
    fn pass_over(&mut self, passed: usize) {
        if let Some(more @ 1..) = passed.checked_sub(self.passed) {
            self.backend.live.cursor.fetch_add(more, Relaxed);
            self.passed = passed;
        }
    }

    /// The server in `slot` has answered: its connection is kept, and the other attempt is closed. `None` when
    /// the server has gone DOWN meanwhile and its sessions are to end.
    pub(crate) fn answered(
        &mut self,
        slot: AttemptSlot,
        dialer: &mut impl Dialer<Connection = C>,
        now: Instant,
    ) -> Option<Attempt<C>> {
        let winner = self.attempts[slot as usize].take()?;
        if winner.server.spec.shutdown_sessions_on_down && !self.is_usable(&winner, dialer) {
            let gone = io::Error::from_raw_os_error(libc::ECONNREFUSED);
            self.count_failure((slot, &winner.server), &gone, dialer, now);
            dialer.abort(winner.connection);
            return None;
        }
        self.policy.withdrawn(slot);
        if self.is_queued() {
            self.leave_queue(dialer, now);
        }
        self.leave_hold(dialer, now);
        let took = now.saturating_duration_since(winner.started);
        winner.server.live.connect_succeeded(took);
        for other in AttemptSlot::BOTH {
            let Some(loser) = self.attempts[other as usize].take() else {
                continue;
            };
            self.policy.withdrawn(other);
            if loser.started < winner.started {
                self.leave(loser, dialer, now);
            } else {
                dialer.abort(loser.connection);
            }
        }
        match winner.by {
            ChosenBy::Algorithm => self.count_choice(&winner, dialer),
            ChosenBy::Time => {
                self.learn_time(&winner, now);
                self.count_choice(&winner, dialer);
            }
            // As in HAProxy a server that a session has waited for was chosen when it began to wait; a slot of any
            // server was not chosen at all.
            ChosenBy::Queue => self.learn_time(&winner, now),
        }
        let redispatched = self.first != Some(winner.server.live.uid);
        dialer.asks(&winner.server, winner.order, redispatched);
        Some(winner)
    }

    /// The attempt in `slot` has failed.
    pub(crate) fn failed(
        &mut self,
        slot: AttemptSlot,
        error: &io::Error,
        dialer: &mut impl Dialer<Connection = C>,
        now: Instant,
    ) {
        if let Some(attempt) = self.attempts[slot as usize].take() {
            self.count_failure((slot, &attempt.server), error, dialer, now);
        }
    }

    /// The servers of the backend have changed. An attempt at a server that is DOWN or in maintenance is
    /// hopeless now. A server that has come UP or got another address since the attempt, whatever became of that, is
    /// tried again. Looks only at the servers that are tried and at those that were renewed since the last time.
    pub(crate) fn servers_changed(
        &mut self,
        dialer: &mut impl Dialer<Connection = C>,
        now: Instant,
    ) {
        let refused = !self.policy.refused_servers().is_empty();
        let (policy, attempts, seen) = (&mut self.policy, &self.attempts, self.generation);
        let mut stale = [None; 2];
        let looked = dialer.backend(self.backend.id, |backend| {
            if backend.generation == seen {
                return seen;
            }
            policy.servers_changed();
            if backend.picker.is_empty() {
                // Nor will a server be chosen that has refused and is to be tried again.
                policy.exhausted(true);
            }
            for slot in AttemptSlot::BOTH {
                let Some(attempt) = &attempts[slot as usize] else {
                    continue;
                };
                let uid = attempt.server.live.uid;
                let Some(server) = backend.server(attempt.index, uid) else {
                    continue;
                };
                policy.set_hopeless(slot, server.is_hopeless());
                if server.is_usable() && server.renewed > attempt.server.renewed {
                    stale[slot as usize] = Some(uid);
                }
            }
            let asked = |uid| {
                let mut servers = attempts.iter().flatten().map(|attempt| &attempt.server);
                servers.any(|server| server.live.uid == uid)
            };
            for server in backend.renewed_since(seen) {
                let uid = server.live.uid;
                if server.is_usable() && policy.is_news(uid, server.renewed) && !asked(uid) {
                    policy.renewed(uid);
                }
            }
            backend.generation
        });
        match looked {
            Some(generation) => self.generation = generation,
            // It was removed.
            None => self.policy.servers_changed(),
        }
        for slot in AttemptSlot::BOTH {
            if let Some(uid) = stale[slot as usize] {
                self.policy.renewed(uid);
                if let Some(attempt) = self.attempts[slot as usize].take() {
                    dialer.abort(attempt.connection);
                }
            }
        }
        // What it does not take may have changed. Who takes every server is told by the queue.
        if refused {
            self.leave_queue(dialer, now);
        }
    }

    /// Closes the attempts at these servers, whose sessions are to end. This does not count as their failure.
    pub(crate) fn leave_servers(
        &mut self,
        servers: &ServerSet,
        dialer: &mut impl Dialer<Connection = C>,
    ) {
        for slot in AttemptSlot::BOTH {
            let asked = self.attempts[slot as usize].as_ref();
            if asked.is_some_and(|asked| servers.contains(asked.server.live.uid))
                && let Some(attempt) = self.attempts[slot as usize].take()
            {
                self.policy.ordered_away(slot);
                dialer.abort(attempt.connection);
            }
        }
    }

    /// Closes the attempts in flight and leaves the queue and the hold, for a reason that no server caused.
    pub(crate) fn cancel(&mut self, dialer: &mut impl Dialer<Connection = C>, now: Instant) {
        self.leave_queue(dialer, now);
        self.leave_hold(dialer, now);
        for slot in AttemptSlot::BOTH {
            if let Some(attempt) = self.attempts[slot as usize].take() {
                self.policy.withdrawn(slot);
                dialer.abort(attempt.connection);
            }
        }
    }

    /// Whether the server of an attempt is usable now.
    fn is_usable(&self, attempt: &Attempt<C>, dialer: &impl Dialer) -> bool {
        let usable = dialer.backend(self.backend.id, |backend| {
            let now = backend.server(attempt.index, attempt.server.live.uid);
            now.is_some_and(|now| now.is_usable())
        });
        usable.unwrap_or(true)
    }

    /// Counts a failed attempt: a shortage on this machine never counts as the server's failure.
    fn count_failure(
        &mut self,
        (slot, server): (AttemptSlot, &Arc<Server>),
        error: &io::Error,
        dialer: &mut impl Dialer<Connection = C>,
        now: Instant,
    ) {
        let cause = FailureCause::of(error);
        if let FailureCause::Shortage(shortage) = cause {
            self.last_shortage = Some(shortage);
            self.policy.local_error(slot, now);
            dialer.short_of(shortage, server);
            return;
        }
        self.last_failure = Some(cause);
        self.policy.refused(slot, now);
        self.ask_to_retry(dialer, now);
        self.record_failure(server, dialer);
        self.refused = Some(Arc::clone(server));
    }

    /// Closes an attempt that got no answer, because another server is tried or has answered.
    fn leave(&self, attempt: Attempt<C>, dialer: &mut impl Dialer<Connection = C>, now: Instant) {
        self.count(&attempt.server, dialer, |traffic| traffic.wredis.add(1));
        self.unanswered(&attempt, dialer, now);
        dialer.abort(attempt.connection);
    }

    /// An attempt got no answer in the time that it had.
    fn unanswered(
        &self,
        attempt: &Attempt<C>,
        dialer: &mut impl Dialer<Connection = C>,
        now: Instant,
    ) {
        self.learn_time(attempt, now);
        let waited = now.saturating_duration_since(attempt.started);
        let most = self.backend.spec.connect_attempt;
        attempt.server.live.connect_unanswered(waited, most);
        // A connect that takes longer than usual is no error for HAProxy.
        if waited >= most || attempt.server.spec.error_limit().is_none() {
            self.record_failure(&attempt.server, dialer);
        }
    }

    fn count_choice(&self, attempt: &Attempt<C>, dialer: &impl Dialer) {
        if !self.is_counted {
            self.count(&attempt.server, dialer, |traffic| traffic.lbtot.add(1));
        }
    }

    /// Where failed connects count for the health of a server, they make no suspicion: a server that is asked last
    /// would have too few errors, and a check that passes elsewhere would clear them.
    fn record_failure(&self, server: &Server, dialer: &mut impl Dialer<Connection = C>) {
        let live = &server.live;
        let Some(limit) = server.spec.error_limit() else {
            if live.connect_failed() {
                dialer.suspect(self.backend.id, server);
            }
            return;
        };
        if let Some(errors) = live.connect_error(limit)
            && !dialer.observed(server, errors)
        {
            live.errors_not_told(errors);
        }
    }

    /// No server was reached: closes the attempts that are left, and counts the failure on the server that was
    /// tried last.
    fn give_up(
        &mut self,
        failure: ConnectFailure,
        dialer: &mut impl Dialer<Connection = C>,
        now: Instant,
    ) {
        let mut last = self.refused.take().or(self.queued_for.clone());
        self.leave_queue(dialer, now);
        self.leave_hold(dialer, now);
        for slot in AttemptSlot::BOTH {
            let Some(attempt) = self.attempts[slot as usize].take() else {
                continue;
            };
            self.policy.withdrawn(slot);
            self.unanswered(&attempt, dialer, now);
            last = Some(Arc::clone(&attempt.server));
            dialer.abort(attempt.connection);
        }
        match &last {
            Some(server) => self.count(server, dialer, |traffic| traffic.econ.add(1)),
            None => self.count_on_backend(dialer, |traffic| traffic.econ.add(1)),
        }
        let refused = self.last_failure.unwrap_or(FailureCause::Refused);
        let shortage = self.last_shortage.map(FailureCause::Shortage);
        let cause = match failure {
            ConnectFailure::NoServer => FailureCause::NoServer,
            ConnectFailure::Refused => refused,
            ConnectFailure::Timeout => FailureCause::Timeout,
            ConnectFailure::Shortage => shortage.unwrap_or(refused),
            ConnectFailure::QueueTimeout | ConnectFailure::QueueFull => FailureCause::Queue,
        };
        dialer.gave_up(cause, last.as_deref());
    }

    /// Runs `count` on the shards of the backend and the server.
    fn count(&self, server: &Server, dialer: &impl Dialer, count: impl Fn(&Traffic)) {
        self.count_on_backend(dialer, &count);
        count(server.live.traffic.mine(dialer.token()));
    }

    fn count_on_backend(&self, dialer: &impl Dialer, count: impl Fn(&Traffic)) {
        count(self.backend.live.traffic.mine(dialer.token()));
    }

    fn assert_slots(&self) {
        for slot in AttemptSlot::BOTH {
            debug_assert_eq!(
                self.policy.is_in_flight(slot),
                self.attempts[slot as usize].is_some(),
                "the policy and the connections differ about {slot:?}"
            );
        }
    }
}

#[cfg(test)]
mod tests;
