//! Step 7: one connection attempt to one server. Runs on a worker.

use super::relay::{Connecting, Kind, Relay};
use crate::config::model::ServerPort;
use crate::live::slot::Slot;
use crate::state::Server;
use crate::state::server::Endpoint;
use crate::sys::socket::unix_address;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// The kernel's default range of source ports begins here.
const EPHEMERAL_MIN: u16 = 32768;

/// A connection attempt in flight. Dropping it closes the attempt and gives the server's place
/// back.
#[derive(Debug)]
pub(super) struct Attempt {
    /// The server that is asked.
    pub(super) server: Arc<Server>,
    /// A session's place on it.
    pub(super) slot: Slot,
    /// When it was asked.
    pub(super) started: Instant,
    /// How many attempts were made before it.
    pub(super) order: u32,
    socket: Connecting,
}

impl Attempt {
    /// Asks `server`. `client` is the client's socket, whose destination port counts where the
    /// server has none of its own.
    ///
    /// # Errors
    /// Those of `socket` and `connect` that come at once; [`crate::sys::limits::is_local`] tells
    /// whose fault they are.
    pub(super) fn begin(
        server: &Arc<Server>,
        slot: Slot,
        client: &OwnedFd,
        (started, relay): (Instant, &Rc<Relay>),
    ) -> io::Result<Self> {
        let (address, kind) = address_of(server, client)?;
        let (domain, protocol) = match kind {
            Kind::Tcp => (address.domain(), Some(Protocol::TCP)),
            Kind::Unix => (Domain::UNIX, None),
        };
        let socket = Socket::new(domain, Type::STREAM.nonblocking(), protocol)?;
        // TCP_QUICKACK stays as it is. A handshake acknowledged along with the first bytes is a segment
        // less, but makes a server wait 40 ms that answers in two pieces, 200 ms if it speaks first.
        match socket.connect(&address) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            // A unix server's accept queue is full: its fault, where TCP's EAGAIN is ours.
            Err(error) if kind == Kind::Unix && error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            result => result?,
        }
        if kind == Kind::Tcp && is_own_address(&socket, &address) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let socket = Connecting::new(relay, socket.into(), kind)?;
        Ok(Self {
            server: Arc::clone(server),
            slot,
            started,
            order: 0,
            socket,
        })
    }

    /// The same, with the number of attempts that were made before it.
    pub(super) fn numbered(self, order: u32) -> Self {
        Self { order, ..self }
    }

    /// Completes when the server has answered.
    ///
    /// # Errors
    /// The server's refusal.
    pub(super) async fn answered(&self) -> io::Result<()> {
        self.socket.answered().await
    }

    /// The connected socket and the server's place.
    pub(super) fn into_parts(self) -> (Connecting, Slot) {
        (self.socket, self.slot)
    }

    /// Closes the attempt by a reset, should the server answer while it is being given up.
    pub(super) fn abandon(self) {
        if self.socket.kind() == Kind::Tcp {
            let linger = Some(std::time::Duration::ZERO);
            // Refused only by a socket that is gone already.
            let _ = rustix::net::sockopt::set_socket_linger(self.socket.fd(), linger);
        }
    }
}

/// Whether a connection leads to its own socket: nobody listens on the port, and the kernel has chosen it
/// as the source port. Only a port of this machine can be both, so only near ones are looked at.
fn is_own_address(socket: &Socket, address: &SockAddr) -> bool {
    let Some(to) = address.as_socket() else {
        return false;
    };
    let may_be = to.ip().is_loopback() || to.port() >= EPHEMERAL_MIN;
    may_be && socket.local_addr().is_ok_and(|own| own == *address)
}

fn address_of(server: &Server, client: &OwnedFd) -> io::Result<(SockAddr, Kind)> {
    match &server.endpoint {
        Some(Endpoint::Ip(ip, port)) => {
            let port = match *port {
                ServerPort::Fixed(port) => port,
                ServerPort::FromClient(offset) => port_from_client(client, offset)?,
            };
            Ok((SocketAddr::new(*ip, port).into(), Kind::Tcp))
        }
        Some(Endpoint::Unix(path)) => Ok((unix_address(path)?, Kind::Unix)),
        // Such a server is not usable, so it is not chosen.
        None => Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the server's name is not resolved",
        )),
    }
}

fn port_from_client(client: &OwnedFd, offset: i32) -> io::Result<u16> {
    let local = SocketAddr::try_from(rustix::net::getsockname(client)?);
    // A client on a unix socket has no port to go by; `rlb check` says so.
    let port = local.map_or(0, |address| address.port());
    u16::try_from(i32::from(port) + offset)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "no such port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault 23: a connection to a port of the ephemeral range where nobody listens can meet itself, and
    /// was a session with an echo for a server.
    #[test]
    fn fault_23_a_connection_to_itself_is_none() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        let own = socket.local_addr().unwrap();
        socket.connect(&own).unwrap();
        assert!(is_own_address(&socket, &own));
        let listener = std::net::TcpListener::bind(any).unwrap();
        let address = listener.local_addr().unwrap().into();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.connect(&address).unwrap();
        assert!(!is_own_address(&socket, &address));
    }
}
