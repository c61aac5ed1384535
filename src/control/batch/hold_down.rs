//! How many servers of a backend may be out because of what their sessions or their changes say, and not because a check
//! fails: `max-ejected`, and servers that are held down (`hold-down`). Control thread.

use super::Batch;
use crate::control::server_events;
use crate::control::server_index::ServerRef;
use crate::state::{BackendId, Flaps, Server, ServerStatus};

impl Batch<'_> {
    /// Whether `server` of the backend may be taken down because its sessions fail, beside those that are out. Otherwise
    /// it is told.
    pub(super) fn may_eject(&mut self, id: BackendId, server: &str) -> bool {
        let may = self.may_be_out(id);
        if let (false, Some(backend)) = (may, self.builder.backend(id)) {
            let global = &self.builder.base().global;
            let most = backend.spec.max_ejected;
            global.not_ejected(&backend.spec.name, server, most);
        }
        may
    }

    /// Whether one more server may be out that no check has found down last.
    fn may_be_out(&self, id: BackendId) -> bool {
        let Some(backend) = self.builder.backend(id) else {
            return true;
        };
        let servers = self.builder.servers(id).iter();
        let servers = servers.filter(|one| !one.status.admin.is_maint());
        let (all, out) = servers.fold((0u64, 0u64), |(all, out), one| {
            let held = || one.status.held_for(one.rules(), self.now).is_some();
            (all + 1, out + u64::from(one.status.ejected || held()))
        });
        (out + 1) * 100 <= all * u64::from(backend.spec.max_ejected)
    }

    /// The server was `before`. It is not held down if too many are out.
    pub(super) fn bound_hold_down(
        &self,
        (id, before): (BackendId, &ServerStatus),
        server: &mut Server,
    ) {
        let begins = server.status.flaps.held && !before.flaps.held;
        if begins && !self.may_be_out(id) {
            server.status.release();
        }
    }

    /// A check of a server has passed. It is held down no longer when the others are not enough.
    pub(super) fn release_if_needed(&self, id: BackendId, server: &mut Server) {
        if server.status.flaps.held && (self.builder.fails_open(id) || !self.builder.is_up(id)) {
            server.status.release();
        }
    }

    /// The log says that a server is held down, and that it is so no longer before the time is over.
    pub(super) fn tell_of_hold_down(&mut self, at: ServerRef, (before, after): (Flaps, Flaps)) {
        if before.held == after.held {
            return;
        }
        let event = self.event_of(at);
        let line = event.and_then(|event| server_events::held_down(event, self.now));
        self.outcome.lines.extend(line);
    }
}
