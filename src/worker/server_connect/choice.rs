//! Step 5: the server that a session takes, and with it a slot where servers have limits (`maxconn`).

use super::times::ChosenBy;
use super::{Dialer, ServerConnect};
use crate::balance::PickInput;
use crate::config::model::PreserveAffinity;
use crate::live::WorkerToken;
use crate::live::queue::Wanted;
use crate::live::slot::Slot;
use crate::state::{Backend, Server};
use crate::worker::connect_policy::ConnectPolicy;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// How often a slot is tried to be had that another session is quicker to take, before the session waits in the queue.
const RACES_MAX: usize = 8;

/// A server that is tried next.
pub(super) struct Chosen {
    /// Its position in the backend.
    pub(super) index: u32,
    pub(super) server: Arc<Server>,
    /// The session's slot on it.
    pub(super) slot: Slot,
    pub(super) by: ChosenBy,
}

/// What step 5 finds.
pub(super) enum Selected {
    /// A server without a limit, by its position, and how many places of the rotation were passed over for it.
    Server(u32, Arc<Server>, usize),
    /// A server, and a slot on it.
    Reserved(Chosen),
    /// All that could be chosen are full; and the server if it is for one alone.
    Full(Wanted, Option<Arc<Server>>),
    /// None can be chosen.
    None {
        /// Nor could any other session choose one.
        none_usable: bool,
    },
}

impl Selected {
    fn none(backend: &Backend) -> Self {
        Self::None {
            none_usable: backend.picker.is_empty(),
        }
    }
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
            None => ChosenBy::Algorithm,
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
    /// Step 5: the next server in the rotation that the policy accepts, suspected ones last.
    pub(super) fn select(&self, dialer: &impl Dialer) -> Selected {
        let select = |backend: &Backend| {
            if backend.by_slot {
                return self.select_limited(backend, dialer.token());
            }
            let server = |index: u32| &backend.servers[index as usize];
            let load = |index| server(index).live.load();
            let accepts = |index| self.policy.accepts(server(index).live.uid);
            let mut passed = 0;
            let trusted = |index| {
                let trusted = accepts(index) && !server(index).live.is_suspect();
                passed += usize::from(!trusted);
                trusted
            };
            let chosen = backend.picker.pick(&self.input, load, trusted);
            let chosen = chosen.or_else(|| {
                passed = 0;
                let picker = &backend.picker;
                picker.pick(&self.input, load, accepts)
            });
            match chosen {
                Some(index) => Selected::Server(index, Arc::clone(server(index)), passed),
                None => Selected::none(backend),
            }
        };
        let now = dialer.backend(self.backend.id, select);
        // A backend that was removed still serves its sessions with the servers that it had.
        now.unwrap_or_else(|| select(&self.backend))
    }

    /// Steps 5 and 6 where servers have limits, or the times of connects are learnt: with algorithms by hash the session
    /// waits for its server, with the others it takes the first one in the rotation that is not full. While sessions wait,
    /// it waits behind them.
    #[inline(never)]
    fn select_limited(&self, backend: &Backend, token: &WorkerToken) -> Selected {
        let candidates = Candidates {
            backend,
            policy: &self.policy,
            input: &self.input,
        };
        if let Some(affinity) = backend.picker.affinity(&self.input) {
            return candidates.select_by_hash(affinity, token);
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
        if candidates.pick(&|_| true).is_none() {
            return Selected::none(backend);
        }
        Selected::Full(Wanted::AnyBut(self.policy.refused_servers()), None)
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
    use std::time::Instant;

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
