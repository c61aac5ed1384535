//! Step 6 where servers have limits (`maxconn`): the session waits in a queue for a slot. And the time for which it was
//! held because no server is usable.

use super::times::ChosenBy;
use super::{Chosen, Dialer, ServerConnect};
use crate::live::queue::{Granted, Wanted};
use crate::state::{Backend, Server};
use crate::worker::connect_policy::AttemptSlot;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// How a session has waited in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueStay {
    /// For how long; `None`: it was not let in, because as many sessions waited as may.
    pub(crate) time: Option<Duration>,
    /// For one server, not for any of the backend.
    pub(crate) for_one_server: bool,
    /// How many sessions have got a slot there meanwhile, itself counted.
    pub(crate) position: u32,
    /// Sessions that the server has at the end; 0 if it waited for any.
    pub(crate) sessions: u32,
}

impl<C> ServerConnect<C> {
    /// Whether it waits in a queue.
    pub(crate) fn is_queued(&self) -> bool {
        self.ticket.is_some()
    }

    /// Whether it waits because no server of its backend is usable.
    pub(crate) fn is_held(&self) -> bool {
        self.policy.is_held()
    }

    /// Whether an attempt is in flight.
    pub(crate) fn asks_a_server(&self) -> bool {
        self.attempts.iter().any(Option::is_some)
    }

    /// Whether it does not take this server, because it has refused.
    #[cfg(test)]
    pub(crate) fn has_tried(&self, uid: u64) -> bool {
        !self.policy.accepts(uid)
    }

    /// The slot that it waits for in a queue, once it comes. `None`: it has to choose again.
    pub(crate) fn poll_granted(&mut self, context: &mut Context<'_>) -> Poll<Option<Granted>> {
        match &mut self.ticket {
            Some(ticket) => ticket.poll(context),
            None => Poll::Pending,
        }
    }

    /// All servers that can be chosen are full. An attempt that may still be answered is not given up for a place in a
    /// queue, but goes on beside it: its server may have died, and a slot elsewhere is free before that is sure.
    pub(super) fn wait_in_queue(
        &mut self,
        wanted: Wanted,
        server: Option<Arc<Server>>,
        dialer: &mut impl Dialer<Connection = C>,
        now: Instant,
    ) {
        let may_be_answered = self.policy.is_connecting() && !self.policy.is_hopeless();
        if !may_be_answered {
            self.cancel(dialer, now);
        } else if !self.policy.may_queue() {
            return self.policy.postponed(now);
        }
        let joined = self.backend.live.queue.join(wanted, self.rank);
        if joined.is_err() && may_be_answered {
            return self.policy.postponed(now);
        }
        if let Some(server) = &server {
            let order = self.policy.retries();
            let first = *self.first.get_or_insert(server.live.uid);
            dialer.asks(server, order, first != server.live.uid);
            if !mem::replace(&mut self.is_counted, true) {
                self.count(server, dialer, |traffic| traffic.lbtot.add(1));
            }
        }
        self.queued_for = server;
        let Ok((ticket, waiting)) = joined else {
            self.queue_full = true;
            return dialer.waited(self.stay(true, None, 0));
        };
        let backend = &self.backend.live.traffic;
        let of = self.queued_for.as_ref();
        let of = of.map_or(backend, |server| &server.live.traffic);
        of.mine(dialer.token()).qmax.see(waiting);
        self.rank = Some(ticket.rank());
        self.ticket = Some(ticket);
        self.policy.queued(now);
    }

    /// Leaves the queue, if it waits in one.
    pub(super) fn leave_queue(&mut self, dialer: &mut impl Dialer<Connection = C>, now: Instant) {
        self.leave_queue_at(dialer, now, |position| position);
    }

    /// The same to try again servers that have refused. It may wait there again, and counts itself when it is over.
    pub(super) fn leave_queue_to_try(
        &mut self,
        dialer: &mut impl Dialer<Connection = C>,
        now: Instant,
    ) {
        self.leave_queue_at(dialer, now, |position| position.saturating_sub(1));
    }

    fn leave_queue_at(
        &mut self,
        dialer: &mut impl Dialer<Connection = C>,
        now: Instant,
        counted: impl FnOnce(u32) -> u32,
    ) {
        if let Some(ticket) = self.ticket.take() {
            let time = self.policy.left_queue(now);
            let one = ticket.is_for_one_server();
            let position = counted(ticket.leave());
            dialer.waited(self.stay(one, Some(time), position));
            self.is_counted = false;
        }
        self.queued_for = None;
    }

    /// The session is not held any more, if it was.
    #[inline]
    pub(super) fn leave_hold(&mut self, dialer: &mut impl Dialer<Connection = C>, now: Instant) {
        if self.policy.was_held() {
            dialer.held(self.policy.left_hold(now));
        }
    }

    pub(super) fn stay(
        &self,
        for_one_server: bool,
        time: Option<Duration>,
        position: u32,
    ) -> QueueStay {
        let server = self.queued_for.as_ref();
        QueueStay {
            time,
            for_one_server,
            position,
            sessions: server.map_or(0, |server| server.live.active.get()),
        }
    }

    /// A slot has come that the session has waited for; `None`: it has to choose again.
    pub(crate) fn granted(
        &mut self,
        granted: Option<Granted>,
        dialer: &mut impl Dialer<Connection = C>,
        now: Instant,
    ) {
        let Some(granted) = granted else {
            // It counts as tried: another one is chosen in its place.
            self.refused = self.queued_for.take().or(self.refused.take());
            self.leave_queue(dialer, now);
            // The queue tells of it sooner than the order that says that servers have changed.
            return self.servers_changed(dialer, now);
        };
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        let time = self.policy.left_queue(now);
        let one = ticket.is_for_one_server();
        dialer.waited(self.stay(one, Some(time), granted.position));
        self.queued_for = None;
        let uid = granted.slot.live().uid;
        let find = |backend: &Backend| {
            let server = backend.server(granted.index, uid)?;
            server.is_usable().then(|| Arc::clone(server))
        };
        let now_there = dialer.backend(self.backend.id, find);
        // Otherwise it has just become unusable: the slot is passed on, and another server chosen.
        if let Some(server) = now_there.unwrap_or_else(|| find(&self.backend)) {
            granted.slot.count_maximum(dialer.token());
            let chosen = Chosen {
                index: granted.index,
                slot: granted.slot,
                server,
                by: ChosenBy::Queue,
            };
            self.begin(self.policy.slot_for_next(), chosen, dialer, now);
        }
    }

    /// The connect timeout has passed for the attempts that go on beside the queue.
    pub(super) fn leave_silent(&mut self, dialer: &mut impl Dialer<Connection = C>, now: Instant) {
        for slot in AttemptSlot::BOTH {
            if let Some(silent) = self.attempts[slot as usize].take() {
                self.policy.withdrawn(slot);
                self.leave(silent, dialer, now);
            }
        }
    }
}
