//! Step 7: connects to servers with sockets. Runs on a worker.

use super::context::WorkerContext;
use super::header_rule::Announced;
use super::notes;
use super::relay::{Connecting, Kind};
use super::server_connect::{Dialer, QueueStay};
use super::session_stats::{SessionStats, WorkerStats};
use crate::config::model::{self, ProxyV2Options, SendProxy, ServerPort, ServerSocket, Source};
use crate::live::server_socket;
use crate::live::source::Connect;
use crate::live::{FailureCause, ServerName, ShortageStep, WorkerToken};
use crate::proto::proxy::{self, Addresses, Tlv, Tlvs, tlv};
use crate::state::server::Endpoint;
use crate::state::{Backend, BackendId, Server, ToControl};
use crate::sys::limits::{Shortage, out_of_descriptors};
use crate::sys::socket::{is_connected, reset_when_closed, unix_address};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Room for a header without TLVs, of either version.
const HEADER_USUAL: usize = 128;

/// Connects a worker's sessions.
pub(super) struct SocketDialer<'a> {
    pub(super) worker: &'a Rc<WorkerContext>,
    /// The client's socket. Its destination port is used when the server has none of its own.
    pub(super) client: &'a OwnedFd,
    /// What the client's PROXY header has said; its destination port goes before the socket's.
    pub(super) announced: Option<&'a Announced>,
    /// Where the server that is tried is noted.
    pub(super) stats: &'a mut SessionStats,
}

impl Dialer for SocketDialer<'_> {
    type Connection = Connecting;

    fn dial(&mut self, server: &Arc<Server>) -> io::Result<Connecting> {
        if !self.worker.worker_stats.global.may_take_descriptors() {
            return Err(out_of_descriptors());
        }
        let (address, kind) = address_of(server, || self.client_port())?;
        let (domain, protocol) = match kind {
            Kind::Tcp => (address.domain(), Some(Protocol::TCP)),
            Kind::Unix => (Domain::UNIX, None),
        };
        let open = || match &server.spec.socket {
            None => Socket::new(domain, Type::STREAM.nonblocking(), protocol),
            Some(options) => self.open_with(options, server, domain),
        };
        if let Some(source) = self.source_of(server)
            && let Some(to) = address.as_socket()
        {
            let socket = self.connect_from(source, server, to, open)?;
            return Connecting::new(&self.worker.relay, socket.into(), kind);
        }
        let socket = open()?;
        // TCP_QUICKACK stays as it is. Without it the handshake's ACK would travel with the first bytes and
        // save a segment; but a server that answers in two pieces would wait 40 ms, and one that speaks first
        // 200 ms.
        match socket.connect(&address) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            // The accept queue of a unix server is full, which counts as the server's failure. For TCP, EAGAIN
            // is a shortage of this machine.
            Err(error) if kind == Kind::Unix && error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            result => result?,
        }
        Connecting::new(&self.worker.relay, socket.into(), kind)
    }

    fn abort(&mut self, connection: Connecting) {
        if connection.kind() == Kind::Tcp {
            reset_when_closed(&connection.fd());
        }
    }

    fn is_answered(&self, connection: &Connecting) -> bool {
        is_connected(connection.as_fd())
    }

    fn backend<T>(&self, id: BackendId, look: impl FnOnce(&Backend) -> T) -> Option<T> {
        self.worker
            .read(|snapshot| snapshot.backend(id).map(|backend| look(backend)))
    }

    fn suspect(&mut self, backend: BackendId, server: &Server) {
        let server = server.live.uid;
        let check = ToControl::CheckNow { backend, server };
        self.worker.control.hint(check);
    }

    fn observed(&mut self, server: &Server, errors: u32) -> bool {
        let server = server.live.uid;
        self.worker
            .control
            .offer(ToControl::Observed { server, errors })
    }

    fn short_of(&mut self, shortage: Shortage, server: &Server) {
        let WorkerStats { token, global, .. } = &*self.worker.worker_stats;
        let backend = self.stats.backend.as_ref();
        let towards = backend.zip(server.endpoint.as_ref());
        let towards = towards.map(|(backend, address)| ServerName {
            backend: &backend.spec.name,
            server: &server.spec.name,
            address,
        });
        global.shortage(token, ShortageStep::Connect, shortage, towards);
    }

    fn gave_up(&mut self, cause: FailureCause, server: Option<&Server>) {
        let WorkerStats { token, global, .. } = &*self.worker.worker_stats;
        let server = server.map(|server| &*server.spec.name);
        if let Some(backend) = &self.stats.backend {
            global.session_failed(token, backend.slot.live(), server, cause);
        }
    }

    fn retry_denied(&mut self, backend: &Backend, retry_budget: u32) {
        let global = &self.worker.worker_stats.global;
        global.retry_denied(&backend.live, retry_budget);
    }

    fn asks(&mut self, server: &Server, retries: u32, redispatched: bool) {
        self.stats.asked = Some(Arc::clone(&server.spec));
        self.stats.count_attempt(retries, redispatched);
    }

    fn waited(&mut self, stay: QueueStay) {
        self.stats.count_wait(stay);
    }

    fn held(&mut self, time: Duration) {
        self.stats.count_hold(time);
    }

    fn token(&self) -> &WorkerToken {
        &self.worker.worker_stats.token
    }
}

impl SocketDialer<'_> {
    /// From where connections to a server come, if the file says it.
    fn source_of<'s>(&'s self, server: &'s Server) -> Option<&'s Source> {
        let backend = self.stats.backend.as_ref();
        let of_backend = || backend.and_then(|backend| backend.spec.source.as_ref());
        server.spec.source.as_ref().or_else(of_backend)
    }

    /// The names of the backend and of a server.
    fn names<'s>(&'s self, server: &'s Server) -> (&'s str, &'s str) {
        let backend = self.stats.backend.as_ref();
        let backend = backend.map_or("", |backend| &*backend.spec.name);
        (backend, &*server.spec.name)
    }

    /// A socket with options of the server.
    #[cold]
    fn open_with(
        &self,
        options: &ServerSocket,
        server: &Server,
        domain: Domain,
    ) -> io::Result<Socket> {
        let global = &self.worker.worker_stats.global;
        server_socket::open(options, domain, (global, self.names(server)))
    }

    fn connect_from(
        &self,
        source: &Source,
        server: &Server,
        to: SocketAddr,
        open: impl FnMut() -> io::Result<Socket>,
    ) -> io::Result<Socket> {
        let connect = Connect {
            global: &self.worker.worker_stats.global,
            live: &server.live,
            names: self.names(server),
            client: self.stats.peer,
            to,
        };
        connect.start(source, open)
    }
}

/// Whether a connection is connected to itself: nobody listened on a port of this machine, and the kernel chose
/// that port as the source port. Possible only in the ephemeral port range.
pub(super) fn is_self_connected(connection: &impl AsFd) -> bool {
    let socket = socket2::SockRef::from(connection);
    let addresses = socket.local_addr().ok().zip(socket.peer_addr().ok());
    addresses.is_some_and(|(local, peer)| {
        local.as_socket().is_some() && local.as_socket() == peer.as_socket()
    })
}

impl SocketDialer<'_> {
    /// Step 8: sends the PROXY header with which `server` has connections begin, and returns what its socket has not
    /// taken.
    ///
    /// # Errors
    /// Those of the server's connection.
    pub(super) fn announce(
        &self,
        server: &model::Server,
        connection: &Connecting,
    ) -> io::Result<Option<Box<[u8]>>> {
        let announced = self.announced;
        let known = announced.and_then(|announced| announced.addresses);
        let addresses = match (known, self.stats.peer) {
            (Some(addresses), _) => Some(addresses),
            (None, Some(source)) => {
                let local = SocketAddr::try_from(rustix::net::getsockname(self.client)?);
                local.ok().map(|destination| Addresses {
                    source,
                    destination,
                })
            }
            (None, None) => None,
        };
        let mut header = Vec::with_capacity(HEADER_USUAL);
        if server.send_proxy == SendProxy::V1 {
            proxy::write_v1(&mut header, addresses);
        } else {
            let options = server.proxy_v2_options;
            let own = server.proxy_v2_tlvs.as_deref().unwrap_or_default();
            let own = notes::own_tlvs(self.stats, self.client, self.announced, own);
            let tlvs = self.tlvs(options, &own);
            proxy::write_v2(&mut header, addresses, tlvs, options.crc32c());
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let sent = match send(connection, &header, flags) {
            Ok(sent) => sent,
            Err(Errno::WOULDBLOCK | Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        Ok((sent < header.len()).then(|| header[sent..].into()))
    }

    /// The TLVs of a header to a server with these options: those of rlb, and those of the client's own header. `set` has
    /// the place of those of their types.
    fn tlvs<'s>(
        &'s self,
        options: ProxyV2Options,
        set: &'s [(u8, Vec<u8>)],
    ) -> impl Iterator<Item = Tlv<'s>> {
        let is_free = move |kind| set.iter().all(|(own, _)| *own != kind);
        let received = self.announced.map_or(&[][..], |announced| &announced.tlvs);
        let received = Tlvs::new(received);
        let notes = self.stats.notes().filter(|_| options.unique_id());
        let unique_id = notes.and_then(|notes| notes.unique_id.as_deref());
        // The header says from which namespace the client comes, if it says anything of it.
        let namespace = self.announced.and_then(|it| it.namespace.as_deref());
        let namespace = namespace.filter(|_| received.clone().all(|tlv| tlv.kind != tlv::NETNS));
        let own = [(tlv::UNIQUE_ID, unique_id), (tlv::NETNS, namespace)];
        let own = own.into_iter().filter_map(|(kind, value)| {
            let value = value?.as_bytes();
            Some(Tlv { kind, value })
        });
        let passed_on = received.filter(move |it| match it.kind {
            // These two are about the header that they were in.
            tlv::CRC32C | tlv::NOOP => false,
            tlv::UNIQUE_ID if unique_id.is_some() => false,
            kind => is_free(kind),
        });
        let set = set.iter().map(|(kind, value)| Tlv { kind: *kind, value });
        set.chain(own).chain(passed_on)
    }

    /// The port that the client connected to. A client on a unix socket has none; `rlb check` warns about this.
    fn client_port(&self) -> io::Result<u16> {
        let announced = self.announced.and_then(|announced| announced.addresses);
        if let Some(addresses) = announced {
            return Ok(addresses.destination.port());
        }
        let local = SocketAddr::try_from(rustix::net::getsockname(self.client)?);
        Ok(local.map_or(0, |address| address.port()))
    }
}

fn address_of(
    server: &Server,
    client_port: impl FnOnce() -> io::Result<u16>,
) -> io::Result<(SockAddr, Kind)> {
    match &server.endpoint {
        Some(Endpoint::Ip(ip, port)) => {
            let port = match *port {
                ServerPort::Fixed(port) => port,
                ServerPort::FromClient(offset) => u16::try_from(i32::from(client_port()?) + offset)
                    .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "no such port"))?,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault 23: a connection to an ephemeral port where nobody listened could connect to itself. It became a
    /// session with an echo as its server.
    #[test]
    fn fault_23_a_connection_to_itself_is_none() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        let own = socket.local_addr().unwrap();
        socket.connect(&own).unwrap();
        assert!(is_self_connected(&socket));
        let listener = std::net::TcpListener::bind(any).unwrap();
        let address: SockAddr = listener.local_addr().unwrap().into();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.connect(&address).unwrap();
        assert!(!is_self_connected(&socket));
    }
}
