//! Notices that the client has gone while its session connects to a server. Runs on a worker.
//!
//! Kernel facts relied on: a reset is an error of the socket, whether or not data is left to read; a FIN can be
//! seen only behind the data that was sent before it. A client that has sent a request and then FIN may be
//! waiting for the answer, so it is served. A client that has sent FIN and no byte has gone, as in HAProxy.

use super::relay::{Relay, Watched};
use rustix::net::{RecvFlags, recv, sockopt};
use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// A client that is watched.
#[derive(Debug)]
pub(super) struct ClientWatch<'a> {
    socket: Watched<BorrowedFd<'a>>,
    /// A client that has sent FIN has gone, whatever it has sent before (`option abortonclose`).
    any_end: bool,
    /// It has sent bytes and then FIN.
    half_closed: Cell<bool>,
}

impl<'a> ClientWatch<'a> {
    /// Watches the client's socket. `any_end`: a client that has sent FIN has gone, whatever it has sent before.
    ///
    /// # Errors
    /// Those of `epoll_ctl`.
    pub(super) fn new(relay: &Rc<Relay>, client: &'a OwnedFd, any_end: bool) -> io::Result<Self> {
        let socket = Watched::new(relay, client.as_fd())?;
        Ok(Self {
            socket,
            any_end,
            half_closed: Cell::new(false),
        })
    }

    /// Completes when the client has gone, with the error if there was one.
    pub(super) fn poll_gone(&self, context: &mut Context<'_>) -> Poll<Option<io::Error>> {
        let client = self.socket.as_fd();
        while !self.half_closed.get() {
            // The kernel says so of a socket that was shut down for reading, by either side.
            let has_ended = ready!(self.socket.poll_readable(context));
            if let Some(error) = error_of(client) {
                return Poll::Ready(Some(error));
            }
            if self.any_end && has_ended {
                return Poll::Ready(None);
            }
            match recv(client, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Poll::Ready(None),
                // It is told from now on, so it tells nothing new.
                Ok(_) if has_ended => self.half_closed.set(true),
                Ok(_) | Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {
                    self.socket.clear_readable();
                }
                Err(error) => return Poll::Ready(Some(error.into())),
            }
        }
        // Only a reset can follow. It ends this direction, too. So does a unix client that has closed its socket: without an
        // error that is no reset, and nothing follows.
        ready!(self.socket.poll_broken(context));
        error_of(client).map_or(Poll::Pending, |it| Poll::Ready(Some(it)))
    }
}

/// The error that the socket has pending, if any.
fn error_of(client: BorrowedFd<'_>) -> Option<io::Error> {
    match sockopt::socket_error(client) {
        Ok(Ok(())) => None,
        Ok(Err(error)) | Err(error) => Some(error.into()),
    }
}
