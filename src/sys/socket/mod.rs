//! Listening sockets: one per worker on the same address, and none on an address that another process uses.
//!
//! The first socket of an address is bound and listening before it gets `SO_REUSEPORT`, so that the kernel
//! refuses an address that anybody uses, a second rlb included. The shards of the other workers join
//! afterwards. Usable from any thread; no call here waits for another process.

mod source;
mod suspend;
mod tcp;
mod unix;

pub use source::{Own, bind_own, of_client};
pub use suspend::{resume, suspend};
pub use tcp::{RefusedOption, TcpOptions};
pub use unix::{
    FileId, UnusedFile, file_id, is_abstract, is_listened_on, set_mode, system_path, unix_address,
};

use super::limits::{RefusedSocket, is_out_of_descriptors};
use super::{listen_fds, namespace, raw};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// IPv4 or IPv6.
    Tcp(SocketAddr),
    /// A path, or an abstract name that begins with `@`.
    Unix(PathBuf),
    /// A bound socket that was passed under this number.
    Descriptor(i32),
}

/// How to listen.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub struct Options {
    /// The address.
    pub address: Address,
    /// Length of the accept queue; the kernel limits it to `net.core.somaxconn`.
    pub backlog: u32,
    /// Refuse IPv4 on an IPv6 wildcard; `None`: the system's default.
    pub v6only: Option<bool>,
    /// `SO_BINDTODEVICE`.
    pub interface: Option<String>,
    /// `IP_FREEBIND`.
    pub freebind: bool,
    /// What accepted connections inherit.
    pub tcp: TcpOptions,
    /// The network namespace to listen in; `None`: that of the process.
    pub namespace: Option<Arc<str>>,
    /// Listen for MPTCP, and for TCP from clients without it.
    pub mptcp: bool,
    /// File mode of a unix socket.
    pub mode: Option<u32>,
    /// User and group of the file of a unix socket: names or numbers.
    pub owner: (Option<Arc<str>>, Option<Arc<str>>),
    /// Keepalive that accepted sockets inherit: idle, interval, probes.
    pub keepalive: Option<(Duration, Duration, u32)>,
    /// Whether it is to listen: not while its frontend is disabled. A new unix socket, and a passed descriptor that
    /// listens, do in any case.
    pub listens: bool,
    /// Another socket of this process has the port, on this or an overlapping address: join it instead of being
    /// refused.
    pub join: bool,
}

/// Opens `shards` listening sockets on one address, non-blocking. Port 0 gives all of them the
/// same port, chosen by the kernel. A unix socket has one, shared by its duplicates.
///
/// # Errors
/// `EADDRINUSE` when anybody else listens there; errors of `socket`, `bind` and `listen`.
pub fn listen(options: &Options, shards: usize) -> io::Result<Vec<Socket>> {
    match &options.address {
        Address::Tcp(address) => listen_tcp(*address, options, shards),
        Address::Unix(path) => {
            let first = unix::listen(path, options)?;
            let more = (1..shards)
                .map(|_| first.try_clone())
                .collect::<io::Result<Vec<_>>>()?;
            Ok(std::iter::once(first).chain(more).collect())
        }
        Address::Descriptor(number) => {
            let first = Socket::from(raw::adopt(*number)?);
            if first.r#type()? != Type::STREAM {
                let text = "the descriptor is no stream socket";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
            adjust(&first, options)?;
            let more = (1..shards).map(|_| first.try_clone());
            let more = more.collect::<io::Result<Vec<_>>>()?;
            Ok(std::iter::once(first).chain(more).collect())
        }
    }
}

/// Whether it is a unix socket.
pub fn is_unix(socket: &Socket) -> bool {
    socket.domain().is_ok_and(|domain| domain == Domain::UNIX)
}

fn listen_tcp(address: SocketAddr, options: &Options, shards: usize) -> io::Result<Vec<Socket>> {
    let (first, refused) = tcp_socket(address, options)?;
    first.set_reuse_port(options.join)?;
    first.bind(&address.into())?;
    if options.listens {
        first.listen(backlog(options.backlog))?;
    }
    // From now on sockets of the same user may join; only those of this process do.
    first.set_reuse_port(true)?;
    tcp::tell(&first, &refused);
    let mut sockets = vec![first];
    for _ in 1..shards {
        sockets.push(join(&sockets[0], options)?);
    }
    Ok(sockets)
}

/// Binds `shards` TCP sockets beside a socket of the same user that listens on the port. They do not listen yet, so that
/// no connection waits in them: [`adjust`] has them listen.
///
/// # Errors
/// Those of `socket` and `bind`.
pub fn bind_beside(
    address: SocketAddr,
    options: &Options,
    shards: usize,
) -> io::Result<Vec<Socket>> {
    let bound = (0..shards).map(|index| {
        let (socket, refused) = tcp_socket(address, options)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        if index == 0 {
            tcp::tell(&socket, &refused);
        }
        Ok(socket)
    });
    bound.collect()
}

/// One more socket on the address of a listening one. For TCP a new shard, which requires the same user; for a
/// unix socket a duplicate.
///
/// # Errors
/// Those of `socket`, `bind` and `listen`.
pub fn join(first: &Socket, options: &Options) -> io::Result<Socket> {
    let Address::Tcp(address) = &options.address else {
        return first.try_clone();
    };
    // What is refused was refused for the first one.
    let (shard, _) = tcp_socket(*address, options)?;
    shard.set_reuse_port(true)?;
    shard.bind(&first.local_addr()?)?;
    if options.listens {
        shard.listen(backlog(options.backlog))?;
    }
    Ok(shard)
}

/// Sets the options of a listening socket that another process has opened.
pub type Adjust = fn(&Socket, &Options) -> io::Result<()>;

/// Sets the `options` that can still be changed of a listening socket that another process has opened.
///
/// # Errors
/// Those of `setsockopt` and `listen`.
pub fn adjust(socket: &Socket, options: &Options) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    if is_unix(socket) {
        return retune(socket, options, &TcpOptions::default());
    }
    inherited(socket)?;
    // Whoever has opened a socket of a socket unit has decided what nothing is said of here.
    let had = if listen_fds::others_have_them() {
        TcpOptions::default()
    } else {
        TcpOptions::of(socket)?
    };
    retune(socket, options, &had)
}

/// Sets what accepted sockets inherit and what is never changed. Each saves a call per connection.
fn inherited(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    // An urgent byte may be the first of a stream, and so be there before anybody looks at the connection.
    match socket.set_out_of_band_inline(true) {
        // MPTCP has no urgent bytes, and so no such option.
        Err(_) if socket.protocol()? == Some(Protocol::MPTCP) => Ok(()),
        result => result,
    }
}

/// Opens a socket of TCP or MPTCP in a network namespace; `None`: in that of the process.
///
/// # Errors
/// Those of `socket`, and [`RefusedSocket`] where the namespace cannot be entered or the kernel has no MPTCP.
pub fn open(domain: Domain, (namespace, mptcp): (Option<&str>, bool)) -> io::Result<Socket> {
    let protocol = if mptcp {
        Protocol::MPTCP
    } else {
        Protocol::TCP
    };
    let opened = namespace::within(namespace, || {
        Ok(Socket::new(domain, Type::STREAM, Some(protocol)))
    });
    let of = |what, error| io::Error::other(RefusedSocket { what, error });
    match (opened, namespace) {
        (Err(error), _) if is_out_of_descriptors(&error) => Err(error),
        (Err(error), Some(name)) => Err(of(format!("enter the namespace {name}"), error)),
        (Err(error), None) => Err(error),
        (Ok(Err(error)), _) if mptcp && has_no_protocol(&error) => {
            Err(of("open a socket for MPTCP".to_owned(), error))
        }
        (Ok(socket), _) => socket,
    }
}

/// The kernel does not have it, or `net.mptcp.enabled` is 0.
fn has_no_protocol(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [libc::EPROTONOSUPPORT, libc::ENOPROTOOPT, libc::EINVAL]
        .map(Some)
        .contains(&code)
}

/// A socket that is not bound yet, and the options that the kernel has refused.
fn tcp_socket(address: SocketAddr, options: &Options) -> io::Result<(Socket, Vec<RefusedOption>)> {
    let domain = Domain::for_address(address);
    let socket = open(domain, (options.namespace.as_deref(), options.mptcp))?;
    socket.set_nonblocking(true)?;
    // Addresses of sessions in TIME_WAIT may be bound again, an address that is listened on may not.
    socket.set_reuse_address(true)?;
    if let (SocketAddr::V6(_), Some(v6only)) = (address, options.v6only) {
        socket.set_only_v6(v6only)?;
    }
    let refused = options
        .tcp
        .set(&socket, &TcpOptions::default(), options.backlog);
    // As in HAProxy, what may not be transparent can be bound all the same.
    let no_transparency = refused.iter().any(|it| it.option == "transparent");
    if options.freebind || no_transparency {
        match address {
            SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
            SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
        }
    }
    if let Some(interface) = &options.interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    inherited(&socket)?;
    if let Some((idle, interval, probes)) = options.keepalive {
        // Accepted sockets inherit it.
        socket.set_tcp_keepalive(&keepalive(idle, interval, probes))?;
    }
    Ok((socket, refused))
}

/// Changes what can be changed of a listening socket: accept queue, keepalive, what connections inherit, file mode. A
/// file mode that is no longer configured stays. `had`: what connections have inherited so far.
///
/// # Errors
/// Those of `listen`, `setsockopt` and `chmod`.
pub fn retune(socket: &Socket, options: &Options, had: &TcpOptions) -> io::Result<()> {
    if options.listens {
        socket.listen(backlog(options.backlog))?;
    }
    match (&options.address, options.keepalive) {
        (Address::Unix(path), _) => return set_mode(path, options),
        (Address::Descriptor(_), _) if is_unix(socket) => return Ok(()),
        _ => tcp::change(socket, options, had),
    }
    match options.keepalive {
        Some((idle, interval, probes)) => {
            socket.set_tcp_keepalive(&keepalive(idle, interval, probes))
        }
        None => socket.set_keepalive(false),
    }
}

/// Whether the other end has closed the connection (unix) or reset it (TCP). The end of what it sends is not enough:
/// over TCP a FIN does not tell whether it still reads.
pub fn is_hung_up(socket: BorrowedFd<'_>) -> bool {
    state_now(socket, PollFlags::empty()).intersects(PollFlags::HUP | PollFlags::ERR)
}

/// Whether a connect that was begun is over, with or without success.
pub fn is_connected(socket: BorrowedFd<'_>) -> bool {
    !state_now(socket, PollFlags::OUT).is_empty()
}

/// Which of `flags` hold for a socket now, and whether it is hung up or has an error.
fn state_now(socket: BorrowedFd<'_>, flags: PollFlags) -> PollFlags {
    let mut fds = [PollFd::from_borrowed_fd(socket, flags)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // A call that fails says nothing about the connection.
    let _ = poll(&mut fds, Some(&now));
    let [fd] = fds;
    fd.revents()
}

/// socket2's keepalive parameters.
pub fn keepalive(idle: Duration, interval: Duration, probes: u32) -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(idle)
        .with_interval(interval)
        .with_retries(probes)
}

/// Whether there is a network interface with this name now, in a namespace or in that of the process.
pub fn interface_exists(name: &str, namespace: Option<&str>) -> bool {
    let socket = namespace::within(namespace, || Socket::new(Domain::UNIX, Type::DGRAM, None));
    socket.is_ok_and(|socket| rustix::net::netdevice::name_to_index(&socket, name).is_ok())
}

/// Whether a new IPv6 socket refuses IPv4 where nothing else is said (`net.ipv6.bindv6only`).
pub fn only_v6_by_default() -> bool {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP));
    socket
        .and_then(|socket| socket.only_v6())
        .unwrap_or_default()
}

fn backlog(wanted: u32) -> i32 {
    i32::try_from(wanted).unwrap_or(i32::MAX)
}

/// No interface has this index.
const NO_INTERFACE: i32 = i32::MAX;

/// Has a listening TCP socket get no new connections: another socket that listens on its port, on an address that has
/// this one's, gets them. Handshakes that have begun end here, and what is queued stays.
///
/// # Errors
/// Those of [`raw::bind_to_index`].
pub fn leave_address(socket: impl AsFd) -> io::Result<()> {
    // The kernel looks for a listener that is bound to the interface of the packet, or to none.
    raw::bind_to_index(socket.as_fd(), NO_INTERFACE)
}

/// Accepts one connection, non-blocking and closed on exec.
///
/// # Errors
/// `EAGAIN` when none waits. `ECONNABORTED` and the like concern only that connection; see
/// [`super::limits::is_local`] for the others.
pub fn accept(listener: impl AsFd) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    use rustix::net::{SocketFlags, acceptfrom_with};
    let (fd, peer) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    Ok((fd, peer.and_then(|peer| SocketAddr::try_from(peer).ok())))
}

/// Most reads of what a rejected client has sent, 16 KiB each.
const DISCARD_READS_MAX: usize = 64;

/// Closes a client's socket so that the client receives FIN and no reset, as from HAProxy. The kernel sends a
/// reset for unread bytes, so they are read first.
#[expect(clippy::needless_pass_by_value, reason = "it is closed at the end")]
pub fn close_in_order(client: OwnedFd) {
    // Fails only when the peer is gone.
    let _ = rustix::net::shutdown(&client, rustix::net::Shutdown::Write);
    let mut discarded = [0; 16 * 1024];
    for _ in 0..DISCARD_READS_MAX {
        match rustix::net::recv(&client, &mut discarded, rustix::net::RecvFlags::DONTWAIT) {
            Ok((_, 0)) | Err(_) => break,
            Ok(_) => {}
        }
    }
}

/// Makes the coming close of a TCP socket a reset. A unix socket stays as it is.
pub fn reset_when_closed(socket: &impl AsFd) {
    // Refused only by a socket that is gone already.
    let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn options(address: Address) -> Options {
        Options {
            address,
            backlog: 16,
            v6only: None,
            interface: None,
            freebind: false,
            tcp: TcpOptions::default(),
            namespace: None,
            mptcp: false,
            mode: None,
            owner: (None, None),
            keepalive: None,
            listens: true,
            join: false,
        }
    }

    pub(super) fn loopback(port: u16) -> Address {
        Address::Tcp(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    #[test]
    fn shards_share_a_port_that_nobody_else_gets() {
        let shards = listen(&options(loopback(0)), 3).unwrap();
        let port = |socket: &Socket| socket.local_addr().unwrap().as_socket().unwrap().port();
        assert!(shards.iter().all(|shard| port(shard) == port(&shards[0])));
        let error = listen(&options(loopback(port(&shards[0]))), 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn no_connection_is_lost_between_the_shards() {
        let shards = listen(&options(loopback(0)), 2).unwrap();
        let address = shards[0].local_addr().unwrap().as_socket().unwrap();
        let clients: Vec<_> = (0..16)
            .map(|_| std::net::TcpStream::connect(address).unwrap())
            .collect();
        let waiting: Vec<usize> = shards
            .iter()
            .map(|shard| std::iter::from_fn(|| accept(shard).ok()).count())
            .collect();
        assert_eq!(waiting.iter().sum::<usize>(), clients.len(), "{waiting:?}");
    }

    /// Closing a socket resets the handshakes that have begun there.
    #[test]
    fn a_socket_that_leaves_its_address_keeps_what_it_has() {
        let first = listen(&options(loopback(0)), 1).unwrap();
        let port = first[0].local_addr().unwrap().as_socket().unwrap().port();
        let wide = Options {
            join: true,
            ..options(Address::Tcp(SocketAddr::from(([0, 0, 0, 0], port))))
        };
        let wide = listen(&wide, 1).unwrap();
        let connect = || std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let _before = connect();
        leave_address(&first[0]).unwrap();
        let _after = connect();
        for socket in [&first[0], &wide[0]] {
            assert!(accept(socket).is_ok(), "one each");
            assert!(accept(socket).is_err());
        }
    }
}
