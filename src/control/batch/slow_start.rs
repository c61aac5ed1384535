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
        let server = self.as_of_now(&before);
        let spec = &backend.spec;
        let in_force = |it: &Server| (it.eweight(spec), it.slot_limit(spec.fullconn));
        if server.status.oper != before.status.oper {
            self.change(at, &before.status, server, None);
        } else if in_force(&server) != in_force(&before) {
            self.builder.replace(at.backend, at.index, server, self.now);
        }
    }

    /// The server, with its slow start at the step of this time. The last step may not be there: it is left out while it
    /// changes nothing in force, as with weight 0.
    pub(super) fn as_of_now(&self, before: &Server) -> Server {
        let mut server = before.clone();
        server.status.step(before.rules(), self.now);
        server
    }
}
