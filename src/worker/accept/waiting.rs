//! What an acceptor does while no slot is free. Runs on a worker.
//!
//! Clients wait in the kernel's accept queue. There nobody can ask whether a client is still there. One that
//! has gone holds nothing of this process, unless this process is that client: a server that is the
//! frontend's own address makes sessions until `maxconn` is reached, the last of them waits in the
//! queue, and none ends before it. So an acceptor that has waited for [`IN_HAND_AFTER`] accepts one
//! connection without a slot. It is the first to get a slot; when its client goes before that, it is
//! closed, and the next is accepted in its place.

use super::Acceptor;
use crate::config::descriptors::IN_HAND_MAX;
use crate::live::slot::{ConnLimits, ConnSlot};
use crate::live::{Cause, GlobalLive, Phase, Termination};
use crate::state::Frontend;
use crate::sys::accept::{Acceptor as _, Connection, Failure, Listening, PAUSE, Readiness};
use crate::sys::socket::close_in_order;
use crate::worker::client_watch::ClientWatch;
use crate::worker::context::WorkerContext;
use crate::worker::relay::Kind;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::fence;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How long an acceptor waits for a slot before it accepts a connection without one. While sessions
/// come and go, there is a slot sooner.
const IN_HAND_AFTER: Duration = Duration::from_millis(20);

/// A connection that waits for a slot outside of the kernel's queue.
pub(super) struct InHand {
    pub(super) connection: Connection,
    pub(super) place: InHandPlace,
}

/// One of the [`IN_HAND_MAX`] connections that a worker may have in hand.
pub(super) struct InHandPlace(Rc<WorkerContext>);

impl InHandPlace {
    /// `None`: the worker has as many as it may have.
    fn take(worker: &Rc<WorkerContext>) -> Option<Self> {
        let taken = &worker.in_hand;
        if taken.get() >= IN_HAND_MAX {
            return None;
        }
        taken.set(taken.get() + 1);
        Some(Self(Rc::clone(worker)))
    }
}

impl Drop for InHandPlace {
    fn drop(&mut self) {
        let taken = &self.0.in_hand;
        taken.set(taken.get() - 1);
    }
}

/// A connection that was accepted and has no slot when its frontend is disabled. Only of a unix socket, whose clients
/// wait until it is enabled.
pub(super) struct Kept {
    pub(super) connection: Connection,
    /// `None`: there was room for it when it was accepted.
    pub(super) place: Option<InHandPlace>,
}

/// What an acceptor that has no slot has waited for.
enum Waited {
    /// There is a slot.
    Slot,
    /// Accepting ends.
    Stopped,
    /// There is a connection in hand.
    InHand(InHand),
    /// The client of the one in hand has gone, with an error if there was one.
    Gone(Option<io::Error>),
}

impl Acceptor {
    /// Whether no connection may be accepted now.
    pub(super) fn is_full(&self, frontend: &Frontend, limits: ConnLimits) -> bool {
        self.has_no_slot(frontend, limits) || !self.rate_pause(frontend).is_zero()
    }

    /// Whether the process or the frontend has as many sessions as it may have.
    fn has_no_slot(&self, frontend: &Frontend, limits: ConnLimits) -> bool {
        let global = &self.worker.worker_stats.global;
        global.active.get() >= limits.global
            || limits
                .frontend
                .is_some_and(|limit| frontend.live.active.get() >= limit)
    }

    /// The same for the frontend and the limits of now.
    fn has_no_slot_now(&self) -> bool {
        let (frontend, limits) = self.now();
        self.has_no_slot(&frontend, limits)
    }

    /// Reports which `maxconn` makes clients wait.
    fn report_maxconn(&self) {
        let global = &self.worker.worker_stats.global;
        let (frontend, limits) = self.now();
        if global.active.get() >= limits.global {
            global.process_maxconn_reached(limits.global);
        } else if let Some(maxconn) = limits.frontend
            && frontend.live.active.get() >= maxconn
        {
            global.frontend_maxconn_reached(&frontend.live, maxconn);
        }
    }

    /// Waits until there is a slot to be had, because a session ended or a limit was raised: `true`;
    /// `false` when draining has begun instead. With it the connection in hand, if there is one: the
    /// next slot is for it.
    pub(super) async fn wait_for_slot(&self, drain: &CancellationToken) -> (bool, Option<InHand>) {
        if self.has_no_slot_now() {
            self.count_pause();
            self.report_maxconn();
        }
        let waiting = Waiting::new(&self.worker.worker_stats.global);
        let in_hand_from = Instant::now() + IN_HAND_AFTER;
        let mut in_hand: Option<InHand> = None;
        loop {
            let waited = {
                // Without the watch the client's end is noticed when it has a slot.
                let client = in_hand
                    .as_ref()
                    .map(|it| ClientWatch::new(&self.worker.relay, &it.connection.0, false));
                let next = async {
                    match &client {
                        Some(Ok(client)) => {
                            Waited::Gone(poll_fn(|context| client.poll_gone(context)).await)
                        }
                        Some(Err(_)) => pending().await,
                        None => {
                            let timers = &self.worker.timers;
                            timers.sleep_until(in_hand_from).await;
                            // Whoever waits for a rate waits in the queue: it passes by itself.
                            while !self.has_no_slot_now() {
                                timers.sleep(IN_HAND_AFTER).await;
                            }
                            Waited::InHand(self.take_in_hand().await)
                        }
                    }
                };
                self.wait_beside(next, &waiting, drain).await
            };
            match waited {
                Waited::Slot => return (true, in_hand),
                Waited::Stopped => return (false, in_hand),
                Waited::InHand(taken) => in_hand = Some(taken),
                Waited::Gone(error) => {
                    if let Some(InHand { connection, .. }) = in_hand.take() {
                        self.client_gone(connection, error);
                    }
                }
            }
        }
    }

    /// Waits for a slot, for the end of accepting, or for `next`.
    async fn wait_beside(
        &self,
        next: impl Future<Output = Waited>,
        waiting: &Waiting<'_>,
        drain: &CancellationToken,
    ) -> Waited {
        let mut next = pin!(next);
        loop {
            let freed = waiting.0.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let (frontend, limits) = self.now();
            // Asked once: it may have become zero since, and nothing else would end the wait then.
            let pause = self.rate_pause(&frontend);
            if pause.is_zero() && !self.has_no_slot(&frontend, limits) {
                return Waited::Slot;
            }
            if self.never_accepts_again() {
                return Waited::Stopped;
            }
            tokio::select! {
                () = self.worker.timers.sleep(pause), if !pause.is_zero() => {}
                () = freed => {}
                () = drain.cancelled() => return Waited::Stopped,
                () = self.stop.queue_moved.cancelled() => return Waited::Stopped,
                () = self.suspension.changed() => {}
                // Sessions that are killed end, and free their slots.
                () = self.worker.kill.cancelled() => return Waited::Stopped,
                waited = &mut next => return waited,
            }
        }
    }

    /// Accepts the next connection that comes, as soon as the worker may have one more in hand.
    async fn take_in_hand(&self) -> InHand {
        let place = loop {
            match InHandPlace::take(&self.worker) {
                Some(place) => break place,
                None => self.worker.timers.sleep(PAUSE).await,
            }
        };
        loop {
            let Ok(mut ready) = self.socket.readable().await else {
                // Not of a socket that a worker watches.
                return pending().await;
            };
            match self.accept() {
                Ok(connection) => {
                    return InHand { connection, place };
                }
                Err(error) => match Failure::of(&error) {
                    Failure::Empty => ready.clear(),
                    Failure::OneConnection => {}
                    Failure::Shortage(_) | Failure::Unknown => {
                        self.worker.timers.sleep(PAUSE).await;
                    }
                },
            }
        }
    }

    /// The client of the connection in hand has gone, with `error` if there was one.
    fn client_gone(&self, (client, peer): Connection, error: Option<io::Error>) {
        close_in_order(client);
        let (frontend, _) = self.now();
        let stats = &self.worker.worker_stats;
        let slot = ConnSlot::over_limits(&stats.global, frontend, &stats.token);
        let mut end = Termination::new(Cause::Client, Phase::Connect);
        end.error = error;
        self.count_ended(slot, peer, &end);
    }

    pub(super) fn count_pause(&self) {
        let worker_stats = &self.worker.worker_stats;
        let process = worker_stats.global.traffic.mine(&worker_stats.token);
        process.paused.add(1);
    }

    /// Keeps a connection that got no slot until its frontend is enabled, if clients wait for that.
    pub(super) fn keep(&self, connection: Connection, place: Option<InHandPlace>) {
        let waits = self.suspension.is_on() && matches!(self.kind, Kind::Unix);
        if waits && !self.stop.drain.is_cancelled() {
            *self.kept.borrow_mut() = Some(Kept { connection, place });
        }
    }

    /// Serves the connection that was kept, if there is one: its frontend is enabled, or nobody else accepts in its
    /// place.
    pub(super) async fn serve_kept(&self) {
        let kept = self.kept.take();
        if let Some(Kept { connection, place }) = kept {
            self.admit_or_keep((connection, place), self.now()).await;
        }
    }

    /// Waits for a slot and takes it. Once the queue has moved, limits no longer apply to the connection that
    /// waits here: no other is accepted, and existing sessions may last for days. `None`: there will be no slot.
    pub(super) async fn slot(&self) -> Option<ConnSlot<Frontend>> {
        let waiting = Waiting::new(&self.worker.worker_stats.global);
        loop {
            let freed = waiting.0.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let (frontend, mut limits) = self.now();
            if self.stop.queue_moved.is_cancelled() {
                limits = ConnLimits::NONE;
            }
            if let Some(slot) = self.take(frontend, limits) {
                return Some(slot);
            }
            if self.never_accepts_again() {
                return None;
            }
            let drain = &self.stop.drain;
            tokio::select! {
                () = freed => {}
                () = self.stop.queue_moved.cancelled() => {}
                () = drain.cancelled(), if !drain.is_cancelled() => {}
                () = self.suspension.changed() => {}
            }
        }
    }
}

/// While one exists, a session that ends notifies [`GlobalLive::freed`].
pub(super) struct Waiting<'a>(pub(super) &'a GlobalLive);

impl<'a> Waiting<'a> {
    pub(super) fn new(global: &'a GlobalLive) -> Self {
        global.waiting.fetch_add(1, Relaxed);
        // Pairs with the fence in `ConnSlot`'s drop: gauges that are read after this are no older than that
        // drop.
        fence(SeqCst);
        Self(global)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}
