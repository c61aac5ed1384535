//! What follows for a backend from a change of one of its servers: it goes down or comes up, or its checks are not believed.

use super::Batch;
use crate::control::server_events::BackendEvent;
use crate::state::{BackendChange, BackendId};

impl Batch<'_> {
    /// The backend fails open, or has ceased to.
    pub(super) fn fail_open_changed(&mut self, id: BackendId, failed_open: bool) {
        let line = self.backend_event(id, |event| event.fail_open(!failed_open));
        self.outcome.lines.extend(line);
    }

    /// The backend has gone down, or come up.
    pub(super) fn backend_turned(&mut self, id: BackendId, turned: BackendChange) {
        let up = turned == BackendChange::Up;
        if let Some(backend) = self.builder.backend(id).filter(|_| !up) {
            backend.live.traffic.mine(self.token).chkdown.add(1);
        }
        let line = self.backend_event(id, |event| event.turned(up));
        self.outcome.lines.extend(line.flatten());
    }

    fn backend_event<T>(
        &self,
        id: BackendId,
        line: impl FnOnce(BackendEvent<'_>) -> T,
    ) -> Option<T> {
        let backend = self.builder.backend(id)?;
        let mut frontends = self.builder.base().frontends.iter().flatten();
        Some(line(BackendEvent {
            spec: &backend.spec,
            listen: frontends.any(|frontend| frontend.spec.id == backend.spec.id),
            servers: self.builder.servers(id),
            usable: self.builder.usable(id),
        }))
    }
}
