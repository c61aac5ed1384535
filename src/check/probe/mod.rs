//! One health check: connects, and gives the result in HAProxy's wording.
//!
//! Runs on the control thread, called by the check tasks. Invariants: a local failure is never a verdict on the
//! server; whatever the outcome, the connection is closed or reset when the probe returns.
//!
//! A TCP check needs only a few system calls, because each one counts where thousands of checks are made a
//! second. The probe looks for the answer at once, because a server on this machine has given it by then. Only
//! an answer that is not there yet is waited for in the runtime's epoll instance.

use super::words;
use crate::config::model::{
    CheckKind, SendProxy, Server as Spec, ServerAddress, ServerPort, ServerSocket, Source,
};
use crate::live::server_socket;
use crate::live::source::Connect;
use crate::live::{CheckStatus, GlobalLive, ServerLive};
use crate::proto::proxy::{self, Addresses};
use crate::state::Endpoint;
use crate::sys::limits::{self, DescriptorReserve};
use crate::sys::raw::{self, Owned};
use crate::sys::socket::system_path;
use rustix::net::{SendFlags, send};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixSocket;
use tokio::time::timeout;

/// Pause before the next connect to a unix socket whose queue is full.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// What HAProxy adds when `option tcp-check` without rules fails.
const STEP: &str = " at initial connection step of tcp-check";

/// Where a check connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An address.
    Tcp(SocketAddr),
    /// A unix socket path, or an abstract name that begins with `@`.
    Unix(PathBuf),
    /// This address, and no port: the server uses the port of the client's connection, and the check has none. A step of
    /// the check may have one.
    NoPort(IpAddr),
}

impl Target {
    /// Whether the check of `spec` connects to where its sessions do: neither it nor a step of it names another
    /// address or another port.
    pub fn is_of_traffic(spec: &Spec) -> bool {
        let Some(check) = &spec.check else {
            return false;
        };
        let steps = check.script.iter().flat_map(|script| script.connects());
        let elsewhere = steps
            .clone()
            .any(|step| step.address.is_some() || step.port.is_some());
        let same_address = match (check.address, &spec.address) {
            (None, _) => true,
            (Some(own), ServerAddress::Ip(address, _)) => own == *address,
            (Some(_), _) => false,
        };
        let same_port = match (check.port, &spec.address) {
            (None, _) => true,
            (
                Some(own),
                ServerAddress::Ip(_, ServerPort::Fixed(port))
                | ServerAddress::Name(_, ServerPort::Fixed(port)),
            ) => own == *port,
            (Some(_), _) => false,
        };
        same_address && same_port && !elsewhere
    }

    /// The target of a server's check: the check's own address and port, otherwise the server's.
    pub fn of(spec: &Spec, endpoint: &Endpoint) -> Self {
        let own = spec.check.as_ref();
        let (address, port) = own.map_or((None, None), |check| (check.address, check.port));
        match (endpoint, address, port) {
            (Endpoint::Unix(_), Some(ip), Some(port)) => Self::Tcp((ip, port).into()),
            (Endpoint::Unix(path), ..) => Self::Unix(path.clone()),
            (Endpoint::Ip(ip, _), address, Some(port)) => {
                Self::Tcp((address.unwrap_or(*ip), port).into())
            }
            (Endpoint::Ip(ip, ServerPort::Fixed(port)), address, None) => {
                Self::Tcp((address.unwrap_or(*ip), *port).into())
            }
            (Endpoint::Ip(ip, ServerPort::FromClient(_)), address, None) => {
                Self::NoPort(address.unwrap_or(*ip))
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
            Self::NoPort(_) => formatter.write_str("no port"),
        }
    }
}

/// Most sockets of each family that are kept for later checks; more are closed. There are never more than there
/// were checks at once, so `config::descriptors` has counted them.
pub const IDLE_MAX: usize = 64;

/// Sockets that checks have reset and kept, which saves later checks opening one.
#[derive(Debug, Default)]
pub struct IdleSockets {
    v4: RefCell<Vec<Socket>>,
    v6: RefCell<Vec<Socket>>,
}

impl IdleSockets {
    fn of(&self, address: SocketAddr) -> &RefCell<Vec<Socket>> {
        match address {
            SocketAddr::V4(_) => &self.v4,
            SocketAddr::V6(_) => &self.v6,
        }
    }

    /// A socket that was connected and reset. It is as new, but its options are set.
    fn take(&self, address: SocketAddr) -> Option<Socket> {
        self.of(address).borrow_mut().pop()
    }

    /// Closes them.
    pub fn clear(&self) {
        self.v4.borrow_mut().clear();
        self.v6.borrow_mut().clear();
    }

    /// Ends the connection with RST and keeps the socket.
    fn reset(&self, socket: Socket, address: SocketAddr) {
        let mut idle = self.of(address).borrow_mut();
        // A socket that is not kept is closed; its `SO_LINGER` makes that a reset.
        if idle.len() < IDLE_MAX && rustix::net::connect_unspec(&socket).is_ok() {
            idle.push(socket);
        }
    }
}

/// How a probe opens and closes its socket.
#[derive(Debug, Clone, Copy)]
pub struct ProbeOptions<'a> {
    /// The descriptors that are kept back for checks.
    pub reserve: &'a DescriptorReserve,
    /// `Some`: end with RST instead of FIN, and keep the socket there.
    pub reset: Option<&'a IdleSockets>,
    /// The check's timeout.
    pub limit: Duration,
    /// What it has of its own: by reference, because these options are copied.
    pub own: Option<&'a CheckOptions<'a>>,
    /// What the configuration calls the check: it decides the words of a failure.
    pub kind: Option<CheckKind>,
    /// The PROXY header that it begins with.
    pub header: SendProxy,
}

/// What the connection of a check has of its own, and for which server.
#[derive(Debug, Clone, Copy)]
pub struct CheckOptions<'a> {
    /// From where it connects, if the file says it.
    pub source: Option<&'a Source>,
    /// The options of its socket, if the server has some.
    pub socket: Option<&'a ServerSocket>,
    /// The counters of the process.
    pub global: &'a GlobalLive,
    /// The server.
    pub live: &'a ServerLive,
    /// Its names.
    pub names: (&'a str, &'a str),
}

impl<'a> CheckOptions<'a> {
    fn connect(&self, to: SocketAddr) -> Connect<'a> {
        Connect {
            global: self.global,
            live: self.live,
            names: self.names,
            client: None,
            to,
        }
    }
}

/// The result of a probe.
#[derive(Debug)]
pub enum Outcome {
    /// The server's answer, or that it gave none.
    Verdict {
        /// HAProxy's code.
        status: CheckStatus,
        /// The number that an answer had, as a status of HTTP.
        code: u16,
        /// What the system or the server has said; empty for a passed check of a connection.
        info: String,
    },
    /// A local failure has prevented the check.
    Local(io::Error),
}

/// Connects to `target` and closes.
pub async fn probe(target: &Target, options: ProbeOptions<'_>) -> Outcome {
    let connected = async {
        match target {
            Target::Tcp(address) => connect_tcp(*address, options).await,
            Target::Unix(path) => connect_unix(path, options).await,
            Target::NoPort(_) => Ok(Err(None)),
        }
    };
    let step = match options.kind {
        Some(CheckKind::Tcp) => STEP,
        _ => "",
    };
    match timeout(options.limit, connected).await {
        Err(_) => verdict(CheckStatus::L4Timeout, step),
        Ok(Ok(Ok(()))) => verdict(CheckStatus::L4Ok, ""),
        Ok(Ok(Err(None))) => verdict(CheckStatus::SocketError, step),
        Ok(Ok(Err(Some(error)))) => {
            let (status, said) = blame(target, &error);
            verdict(status, &format!("{said}{step}"))
        }
        Ok(Err(error)) => Outcome::Local(error),
    }
}

fn verdict(status: CheckStatus, info: &str) -> Outcome {
    Outcome::Verdict {
        status,
        code: 0,
        info: info.to_owned(),
    }
}

/// The outer error is local, the inner one the server's; `None` when there is no port to check.
type Answer = io::Result<Result<(), Option<io::Error>>>;

async fn connect_tcp(address: SocketAddr, options: ProbeOptions<'_>) -> Answer {
    if let Some(own) = options.own
        && let Some(source) = own.source
    {
        return connect_from((own, source), address, options).await;
    }
    // The sockets that are kept have no options.
    let kept = options.reset.filter(|_| options.own.is_none());
    let socket = match kept.and_then(|idle| idle.take(address)) {
        Some(socket) => socket,
        None => open(address, options)?,
    };
    // As in HAProxy, the end of the check acknowledges the server's SYN-ACK. That saves a packet, and a check
    // that ends with RST never reaches the server's accept queue.
    acknowledge_later(&socket, options)?;
    let answer = join(&socket, address).await;
    if options.header != SendProxy::Off && matches!(answer, Ok(Ok(()))) {
        return announce(socket, options.header);
    }
    if let (Some(idle), Ok(Ok(()))) = (kept, &answer) {
        idle.reset(socket, address);
    }
    answer
}

/// Sends the header, and ends in order: a reset could discard it.
#[expect(clippy::needless_pass_by_value, reason = "it is closed at the end")]
fn announce(socket: Socket, kind: SendProxy) -> Answer {
    socket.set_linger(None)?;
    // It fits into the buffer of a new socket.
    let bytes = header(&socket, kind);
    match send(&socket, &bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
        Ok(_) => Ok(Ok(())),
        Err(error) => judge(error.into()),
    }
}

/// The header that a check begins with. As in HAProxy it has the ends of the check's own connection.
pub(super) fn header(socket: &Socket, kind: SendProxy) -> Vec<u8> {
    let mut bytes = Vec::new();
    match kind {
        SendProxy::Off => {}
        SendProxy::V1 => {
            let end = |address: io::Result<SockAddr>| address.ok().and_then(|it| it.as_socket());
            let ends = end(socket.local_addr()).zip(end(socket.peer_addr()));
            let addresses = ends.map(|(source, destination)| Addresses {
                source,
                destination,
            });
            proxy::write_v1(&mut bytes, addresses);
        }
        SendProxy::V2 => proxy::write_v2(&mut bytes, None, std::iter::empty(), false),
    }
    bytes
}

/// Why a connection could not be made.
#[derive(Debug)]
pub(super) struct Refusal {
    /// HAProxy's code.
    pub(super) status: CheckStatus,
    /// Its words.
    pub(super) said: String,
}

/// A connection on which a check goes on. The outer error is local.
pub(super) async fn connection(
    target: &Target,
    options: ProbeOptions<'_>,
) -> io::Result<Result<Socket, Refusal>> {
    let connected = match target {
        Target::Tcp(address) => stay_tcp(*address, options).await,
        Target::Unix(path) => stay_unix(path, options).await,
        Target::NoPort(_) => {
            return Ok(Err(Refusal {
                status: CheckStatus::SocketError,
                said: String::new(),
            }));
        }
    };
    match connected {
        Ok(socket) => Ok(Ok(socket)),
        Err(error) if limits::is_local(&error) => Err(error),
        Err(error) => {
            let (status, said) = blame(target, &error);
            Ok(Err(Refusal { status, said }))
        }
    }
}

async fn stay_tcp(address: SocketAddr, options: ProbeOptions<'_>) -> io::Result<Socket> {
    let socket = match options.own.and_then(|own| Some((own, own.source?))) {
        None => open(address, options)?,
        Some((own, source)) => {
            let connect = own.connect(address);
            connect.start(source, || open(address, options))?
        }
    };
    match join(&socket, address).await? {
        Ok(()) => Ok(socket),
        Err(Some(error)) => Err(error),
        Err(None) => Err(io::ErrorKind::NotConnected.into()),
    }
}

async fn stay_unix(path: &Path, options: ProbeOptions<'_>) -> io::Result<Socket> {
    let path = system_path(path);
    loop {
        let socket = options.reserve.with(UnixSocket::new_stream)?;
        match socket.connect(&path).await {
            Ok(stream) => return Ok(stream.into_std()?.into()),
            // As for a check of the connection alone.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                tokio::time::sleep(FULL_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The same from a source address. The socket is not kept: it stays bound.
async fn connect_from(
    (own, source): (&CheckOptions<'_>, &Source),
    to: SocketAddr,
    options: ProbeOptions<'_>,
) -> Answer {
    let connect = own.connect(to);
    let opened = connect.start(source, || {
        let socket = open(to, options)?;
        acknowledge_later(&socket, options)?;
        Ok(socket)
    });
    let socket = match opened {
        Ok(socket) => socket,
        Err(error) => return judge(error),
    };
    let answer = join(&socket, to).await;
    if options.header != SendProxy::Off && matches!(answer, Ok(Ok(()))) {
        return announce(socket, options.header);
    }
    answer
}

fn open(address: SocketAddr, options: ProbeOptions<'_>) -> io::Result<Socket> {
    let (domain, kind) = (Domain::for_address(address), Type::STREAM.nonblocking());
    let socket = options.reserve.with(|| match socket_of(options) {
        None => Socket::new(domain, kind, Some(Protocol::TCP)),
        Some((own, socket)) => server_socket::open(socket, domain, (own.global, own.names)),
    })?;
    if options.reset.is_some() {
        socket.set_linger(Some(Duration::ZERO))?;
    }
    Ok(socket)
}

/// The options of its socket, if the server has some.
fn socket_of(options: ProbeOptions<'_>) -> Option<(&CheckOptions<'_>, &ServerSocket)> {
    let own = options.own?;
    Some((own, own.socket?))
}

/// Leaves the acknowledgement of the server's SYN-ACK to what follows it.
fn acknowledge_later(socket: &Socket, options: ProbeOptions<'_>) -> io::Result<()> {
    match socket_of(options) {
        // MPTCP does not have the option.
        Some((_, socket)) if socket.mptcp => Ok(()),
        _ => socket.set_tcp_quickack(false),
    }
}

async fn join(socket: &Socket, address: SocketAddr) -> Answer {
    let address = SockAddr::from(address);
    match connected(socket, &address).await {
        // A connect to an unused port of this machine can connect to itself: the kernel may choose that port as
        // the source port, and TCP then joins the two ends. Nobody listens there.
        Ok(()) if socket.local_addr().is_ok_and(|own| own == address) => {
            Ok(Err(Some(io::Error::from_raw_os_error(libc::ECONNREFUSED))))
        }
        Ok(()) => Ok(Ok(())),
        Err(error) => judge(error),
    }
}

/// Completes when the connection is established.
async fn connected(socket: &Socket, address: &SockAddr) -> io::Result<()> {
    // The first call starts connecting, the second asks for the result.
    if stands(socket, address)? || stands(socket, address)? {
        return Ok(());
    }
    let watched = raw::watch(Owned::new(socket), Interest::WRITABLE)?;
    loop {
        let mut ready = watched.writable().await?;
        if stands(socket, address)? {
            return Ok(());
        }
        ready.clear_ready();
    }
}

/// Starts to connect, or asks for the result: whether the connection is established. That takes one system
/// call; `SO_ERROR` does not tell whether a connection is still being made.
fn stands(socket: &Socket, address: &SockAddr) -> io::Result<bool> {
    match socket.connect(address) {
        Ok(()) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::EINPROGRESS | libc::EALREADY) => Ok(false),
            Some(libc::EISCONN) => Ok(true),
            _ => Err(error),
        },
    }
}

async fn connect_unix(path: &Path, options: ProbeOptions<'_>) -> Answer {
    let path = system_path(path);
    loop {
        let socket = options.reserve.with(UnixSocket::new_stream)?;
        match socket.connect(&path).await {
            Ok(stream) if options.header != SendProxy::Off => {
                return announce(stream.into_std()?.into(), options.header);
            }
            Ok(_) => return Ok(Ok(())),
            // The server's queue is full. A TCP server would leave the connection unanswered; this one is tried
            // again until the timeout.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                tokio::time::sleep(FULL_PAUSE).await;
            }
            Err(error) => return judge(error),
        }
    }
}

fn judge(error: io::Error) -> Answer {
    if limits::is_local(&error) {
        Err(error)
    } else {
        Ok(Err(Some(error)))
    }
}

/// HAProxy's status and words for a failed connection. Of a unix socket it has one for all.
fn blame(target: &Target, error: &io::Error) -> (CheckStatus, String) {
    if let Target::Unix(_) = target {
        let said = format!("{} ({})", words::OTHER, words::of_system(error));
        return (CheckStatus::SocketError, said);
    }
    (CheckStatus::L4Con, words::of_error(error))
}

#[cfg(test)]
mod tests;
