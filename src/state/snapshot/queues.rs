//! What the queues of a backend must know of its servers: which may be used, and how many sessions each may have.
//!
//! Control thread only. Invariant: the queues follow a snapshot after it is published. A session that begins to wait in
//! between finds the servers of the one before, and gets its slot when the queues follow.

use super::{Backend, Snapshot};
use crate::config::model::{self, Balance};
use crate::live::queue::{Candidate, SlotLimit};
use crate::state::server::Server;
use crate::state::status::OperState;
use std::sync::Arc;

impl Server {
    /// How many sessions it may have, in a backend with this `fullconn`.
    pub fn slot_limit(&self, fullconn: u32) -> SlotLimit {
        let limit = SlotLimit::new(self.spec.maxconn, self.spec.minconn, fullconn);
        if self.status.oper == OperState::Starting {
            return limit.reduced(self.status.maxconn_percent(self.rules()));
        }
        limit
    }
}

/// Whether any of these servers has a limit.
pub(in crate::state) fn is_limited(servers: &[Arc<Server>]) -> bool {
    let mut servers = servers.iter();
    servers.any(|server| server.slot_limit(0).exists())
}

/// [`Backend::by_slot`] of a backend `spec` with these servers.
pub(in crate::state) fn is_by_slot(servers: &[Arc<Server>], spec: &model::Backend) -> bool {
    spec.balance == Balance::Ewma || is_limited(servers)
}

impl Snapshot {
    /// Has the queues of those backends follow that differ from `base`. Call it after the publication.
    pub fn update_queues(&self, base: &Self) {
        for backend in self.backends.iter().flatten() {
            let before = base.backend(backend.id);
            if before.is_none_or(|before| !Arc::ptr_eq(before, backend)) {
                backend.update_queue();
            }
        }
    }

    /// The same for all backends.
    pub fn begin_queues(&self) {
        for backend in self.backends.iter().flatten() {
            backend.update_queue();
        }
    }
}

impl Backend {
    fn update_queue(&self) {
        let queue = &self.live.queue;
        // Without a limit nobody waits.
        if !self.limited && !queue.has_servers() {
            return;
        }
        let in_use = self.in_use();
        let servers = in_use.iter().map(|one| {
            let server = &self.servers[one.index as usize];
            Candidate {
                server: Arc::clone(&server.live),
                index: one.index,
                limit: server.slot_limit(self.spec.fullconn),
            }
        });
        queue.set_servers(servers.collect(), self.limited);
    }
}
