//! What checks and operators have decided in the process before this one.
//!
//! Pure. It is sent twice: when this process starts, so that it begins with it, and when this process takes over,
//! because the one before has served until then.

use super::server_state::{self, ServerState};
use super::{Snapshot, overrides};
use std::sync::Arc;
use std::time::Instant;

/// What checks and operators have decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeState {
    /// What operators have set, as [`overrides::write`] has it; empty when the process before does not send it.
    pub overrides: String,
    /// The states of the servers.
    pub servers: Vec<ServerState>,
}

impl RuntimeState {
    /// `base` with this in force, as far as the rules of a reload keep it; `None`: nothing changes. This process has
    /// taken over `before` already.
    pub fn apply(
        &self,
        before: &Self,
        base: &Arc<Snapshot>,
        (shards, now): (usize, Instant),
    ) -> Option<Arc<Snapshot>> {
        if self.overrides.is_empty() || self.overrides == before.overrides {
            let known = (&*self.servers, now);
            return server_state::apply_changes(base, &before.servers, known).map(Arc::new);
        }
        let next = overrides::apply(base, &self.overrides, (shards, now)).map(Arc::new);
        let servers = server_state::apply(next.as_ref().unwrap_or(base), &self.servers, now);
        servers.map(Arc::new).or(next)
    }
}
