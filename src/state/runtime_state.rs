//! What checks and operators have decided in the process before this one.
//!
//! Pure. It is sent twice: when this process starts, so that it begins with it, and when this process takes over,
//! because the one before has served until then.

use super::server_state::{self, ServerState};
use super::{Snapshot, overrides};
use std::borrow::Cow;
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
        let servers = self.servers_here(base);
        if self.overrides.is_empty() || self.overrides == before.overrides {
            let before = before.servers_here(base);
            let known = (&*servers, now);
            return server_state::apply_changes(base, &before, known).map(Arc::new);
        }
        let next = overrides::apply(base, &self.overrides, (shards, now)).map(Arc::new);
        let servers = server_state::apply(next.as_ref().unwrap_or(base), &servers, now);
        servers.map(Arc::new).or(next)
    }

    /// The states by the names that the servers have in this process: one to which an operator had given another name may
    /// have the file's again.
    fn servers_here(&self, base: &Snapshot) -> Cow<'_, [ServerState]> {
        let back = overrides::back_to_file(base, &self.overrides);
        if back.is_empty() {
            return Cow::Borrowed(&self.servers);
        }
        let mut servers = self.servers.clone();
        for one in &mut servers {
            let names = (one.backend.clone(), one.server.clone());
            if let Some(name) = back.get(&names) {
                one.server = (&**name).into();
            }
        }
        Cow::Owned(servers)
    }
}
