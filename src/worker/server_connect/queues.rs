//! Steps 5 and 6 where servers have limits (`maxconn`): the session takes a slot, or waits in a queue for one. And
//! the time for which it was held because no server is usable.

use super::times::ChosenBy;
use super::{Chosen, Dialer, Selected, ServerConnect};
use crate::balance::PickInput;
use crate::config::model::PreserveAffinity;
use crate::live::WorkerToken;
use crate::live::queue::{Granted, Wanted};
use crate::live::slot::Slot;
use crate::state::{Backend, Server};
use crate::worker::connect_policy::{AttemptSlot, ConnectPolicy};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// How often a slot is tried to be had that another session is quicker to take, before the session waits in the queue.
const RACES_MAX: usize = 8;

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

/// The servers of a backend where they have limits, as a session sees them.
struct Candidates<'a> {
    backend: &'a Backend,
    policy: &'a ConnectPolicy,
    input: &'a PickInput,
}

impl Candidates<'_> {
    fn server(&self, index: u32) -> &Arc<Server> {
        &self.backend.servers[index as usize]
    }

    fn accepts(&self, index: u32) -> bool {
        self.policy.accepts(self.server(index).live.uid)
    }

    fn trusts(&self, index: u32) -> bool {
        self.accepts(index) && !self.server(index).live.is_suspect()
    }

    /// The first server in the order of the algorithm that `suits` too, suspected ones last.
    fn pick(&self, suits: &dyn Fn(u32) -> bool) -> Option<u32> {
        let picker = &self.backend.picker;
        let load = |index| self.server(index).live.load();
        let trusted = picker.pick(self.input, load, |it| self.trusts(it) && suits(it));
        trusted.or_else(|| picker.pick(self.input, load, |it| self.accepts(it) && suits(it)))
    }

    /// The server for which a session waits whose hash passes over all.
    fn pick_before(&self) -> Option<u32> {
        let picker = &self.backend.picker;
        let trusted = picker.pick_before(self.input, |it| self.trusts(it));
        trusted.or_else(|| picker.pick_before(self.input, |it| self.accepts(it)))
    }

    /// How many sessions a server may have now.
    fn limit(&self, index: u32) -> u32 {
        let limit = self.server(index).slot_limit(self.backend.spec.fullconn);
        limit.at(self.backend.live.active.get())
    }

    fn has_room(&self, index: u32) -> bool {
        self.server(index).live.active.get() < self.limit(index)
    }

    /// Whether one more session may wait for the server.
    fn has_room_in_queue(&self, index: u32) -> bool {
        let server = self.server(index);
        let (most, load) = (server.spec.maxqueue, server.live.load());
        most == 0 || load < self.limit(index).saturating_add(most)
    }

    fn reserve(&self, index: u32, token: &WorkerToken) -> Option<Selected> {
        let server = self.server(index);
        let limit = server.slot_limit(self.backend.spec.fullconn);
        let slot = Slot::take_below(&server.live, limit, token)?;
        let by = match self.backend.picker.began(self.input) {
            None => ChosenBy::Turn,
            Some(tick) => {
                server.live.connect_time.ask(tick);
                ChosenBy::Time
            }
        };
        Some(Selected::Reserved(Chosen {
            index,
            slot,
            server: Arc::clone(server),
            by,
        }))
    }

    /// A slot on the session's server, or that it waits there.
    fn select_by_hash(&self, affinity: PreserveAffinity, token: &WorkerToken) -> Selected {
        let mut races = 0;
        loop {
            let found = self.pick(&|index| match affinity {
                PreserveAffinity::Always => true,
                PreserveAffinity::MaxConn => self.has_room(index),
                PreserveAffinity::MaxQueue => self.has_room_in_queue(index),
            });
            let Some(index) = found.or_else(|| self.pick_before()) else {
                return Selected::none(self.backend);
            };
            let server = self.server(index);
            let waited_for = server.live.queued.load(Relaxed) > 0;
            let reserved = if waited_for {
                None
            } else {
                self.reserve(index, token)
            };
            if let Some(reserved) = reserved {
                return reserved;
            }
            // Another session was quicker: the hash passes the server over now.
            let passes = affinity == PreserveAffinity::MaxConn && !self.has_room(index);
            if !(passes && found.is_some() && races < RACES_MAX) {
                let (uid, most) = (server.live.uid, server.spec.maxqueue);
                let wanted = Wanted::Server { uid, most };
                return Selected::Full(wanted, Some(Arc::clone(server)));
            }
            races += 1;
        }
    }
}

impl<C> ServerConnect<C> {
    /// Whether it waits in a queue.
    pub(crate) fn is_queued(&self) -> bool {
        self.ticket.is_some()
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

    /// Steps 5 and 6 where servers have limits, or the times of connects are learnt: with algorithms by hash the session
    /// waits for its server, with the others it takes the first one in the rotation that is not full. While sessions wait,
    /// it waits behind them.
    #[inline(never)]
    pub(super) fn select_limited(&self, backend: &Backend, token: &WorkerToken) -> Selected {
        let candidates = Candidates {
            backend,
            policy: &self.policy,
            input: &self.input,
        };
        if let Some(affinity) = backend.picker.affinity(&self.input) {
            return candidates.select_by_hash(affinity, token);
        }
        if candidates.pick(&|_| true).is_none() {
            return Selected::none(backend);
        }
        for _ in 0..RACES_MAX {
            if backend.live.queue.is_waiting() {
                break;
            }
            let Some(index) = candidates.pick(&|index| candidates.has_room(index)) else {
                break;
            };
            if let Some(reserved) = candidates.reserve(index, token) {
                return reserved;
            }
        }
        Selected::Full(Wanted::AnyBut(self.policy.refused_servers()), None)
    }

    /// All servers that can be chosen are full. An attempt that may still be answered is not given up for a place in a
    /// queue.
    pub(super) fn wait_in_queue(
        &mut self,
        wanted: Wanted,
        server: Option<Arc<Server>>,
        dialer: &mut impl Dialer<Connection = C>,
        now: Instant,
    ) {
        if self.policy.is_connecting() && !self.policy.is_hopeless() {
            return self.policy.postponed(now);
        }
        self.cancel(dialer, now);
        if let Some(server) = &server {
            let order = self.policy.retries();
            let first = *self.first.get_or_insert(server.live.uid);
            dialer.asks(server, order, first != server.live.uid);
            // It was counted where it began to wait.
            if !mem::take(&mut self.queued_elsewhere) {
                self.count(server, dialer, |traffic| traffic.lbtot.add(1));
            }
        }
        self.queued_for = server;
        let Ok((ticket, waiting)) = self.backend.live.queue.join(wanted, self.rank) else {
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
        if let Some(ticket) = self.ticket.take() {
            let time = self.policy.left_queue(now);
            let one = ticket.is_for_one_server();
            dialer.waited(self.stay(one, Some(time), ticket.leave()));
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
            return self.leave_queue(dialer, now);
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
            self.begin(AttemptSlot::A, chosen, dialer, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::hash::Value;
    use crate::config::model::Balance;
    use crate::live::queue::{Candidate, SlotLimit};
    use crate::state::test_config::{backend, config, origin, server};
    use crate::state::{BackendId, Snapshot};
    use std::net::{IpAddr, Ipv4Addr};

    /// A backend whose only server may have two sessions. Its queues do not know that yet, as it is for a moment after
    /// the limit was raised from one.
    fn raised(balance: Balance) -> Arc<Backend> {
        let mut one = server("s1");
        one.maxconn = 2;
        let mut spec = backend("b", vec![one]);
        spec.balance = balance;
        let snapshot = Snapshot::initial(&config(vec![spec]), &origin(Instant::now()));
        let backend = snapshot.backend(BackendId::first(0)).expect("just made");
        let before = Candidate {
            server: Arc::clone(&backend.servers[0].live),
            index: 0,
            limit: SlotLimit::new(1, 0, 0),
        };
        backend.live.queue.set_servers(vec![before], true);
        Arc::clone(backend)
    }

    fn select(backend: &Arc<Backend>) -> Selected {
        let client = Value::Address(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let connect = ServerConnect::<()>::new(backend, |_| Some(client), Instant::now());
        connect.select_limited(backend, &WorkerToken::new(0))
    }

    /// While a session waits there, one that has just come finds the free slot taken. Otherwise it would pass those that
    /// wait.
    #[track_caller]
    fn waits_behind(balance: Balance, wanted: impl FnOnce(u64) -> Wanted) {
        let backend = raised(balance);
        let live = &backend.servers[0].live;
        let held = Slot::take(live, &WorkerToken::new(0));
        assert!(matches!(select(&backend), Selected::Reserved(_)));
        let waits = backend.live.queue.join(wanted(live.uid), None);
        assert!(matches!(select(&backend), Selected::Full(..)));
        drop(waits);
        assert!(matches!(select(&backend), Selected::Reserved(_)));
        drop(held);
    }

    #[test]
    fn nobody_takes_a_slot_while_another_session_waits_for_one() {
        waits_behind(Balance::RoundRobin, |_| Wanted::AnyBut(Box::default()));
    }

    #[test]
    fn nobody_takes_a_slot_of_a_server_that_another_session_waits_for() {
        waits_behind(Balance::Source, |uid| Wanted::Server { uid, most: 0 });
    }
}
