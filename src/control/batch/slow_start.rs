//! The steps of slow starts. Control thread.

use super::Batch;
use crate::state::Server;

impl Batch<'_> {
    /// A second of the server's slow start may be over.
    pub(in crate::control) fn warm_up(&mut self, uid: u64) {
        let Some((at, before)) = self.find(uid) else {
            return;
        };
        let Some(backend) = self.builder.backend(at.backend) else {
            return;
        };
        let mut server = Server::clone(&before);
        server.status.step(before.rules(), self.now);
        let spec = &backend.spec;
        let in_force = |it: &Server| (it.eweight(spec), it.slot_limit(spec.fullconn));
        if server.status.oper != before.status.oper {
            self.change(at, &before.status, server, None);
        } else if in_force(&server) != in_force(&before) {
            self.builder.replace(at.backend, at.index, server, self.now);
        }
    }
}
