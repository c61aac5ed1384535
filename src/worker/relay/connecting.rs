//! A connection to a server that is not established yet. The relay watches its socket from the start.
//!
//! Runs on a worker. The socket is registered once, in the relay's epoll instance; when the server
//! has answered, [`super::Relay::adopt`] goes on with the same registration.
//!
//! Kernel facts relied on: a connecting socket is neither readable nor writable. A socket that is writable and
//! has no error and no hang-up is connected, so `SO_ERROR` is read only otherwise.

use super::Relay;
use super::conn::Kind;
use rustix::event::epoll::EventFlags;
use rustix::net::sockopt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll};

/// A connection that was started. Dropping it closes the socket.
#[derive(Debug)]
pub(in crate::worker) struct Connecting {
    relay: Rc<Relay>,
    key: u32,
    kind: Kind,
    /// `None` once the relay has taken it.
    socket: Option<OwnedFd>,
}

impl Connecting {
    /// Watches a non-blocking socket that is connecting, or is connected.
    ///
    /// # Errors
    /// Those of `epoll_ctl`: a shortage on this machine, not a failure of the server.
    pub(in crate::worker) fn new(
        relay: &Rc<Relay>,
        socket: OwnedFd,
        kind: Kind,
    ) -> io::Result<Self> {
        let key = relay.engine.borrow_mut().register_connect(socket.as_fd())?;
        Ok(Self {
            relay: Rc::clone(relay),
            key,
            kind,
            socket: Some(socket),
        })
    }

    /// Completes when the server has answered.
    ///
    /// # Errors
    /// The server's refusal.
    pub(in crate::worker) fn poll_answered(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let events = self
            .relay
            .engine
            .borrow_mut()
            .poll_connect(self.key, context);
        events.map(|events| {
            if events.intersects(EventFlags::ERR | EventFlags::HUP) {
                sockopt::socket_error(self.fd())??;
            }
            Ok(())
        })
    }

    pub(in crate::worker) fn kind(&self) -> Kind {
        self.kind
    }

    pub(in crate::worker) fn fd(&self) -> BorrowedFd<'_> {
        let socket = self.socket.as_ref();
        socket
            .expect("only the relay takes it, and the whole")
            .as_fd()
    }

    /// The socket and its table entry. The caller must give the entry back.
    pub(super) fn into_parts(mut self) -> Option<(OwnedFd, Kind, u32)> {
        let socket = self.socket.take()?;
        Some((socket, self.kind, self.key))
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        if self.socket.is_some() {
            self.relay.engine.borrow_mut().deregister_connect(self.key);
        }
    }
}

impl AsFd for Connecting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}
