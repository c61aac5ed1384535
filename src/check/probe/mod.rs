//! One health check: connect, and say in HAProxy's words what came of it.
//!
//! Runs on the control thread, called by the check tasks. Invariants: an error of our own is never
//! a verdict on the server; whatever the outcome, the connection is over when the probe returns.
//!
//! A TCP check is a few system calls, and every one counts where thousands are made a second: the
//! answer is looked for at once, because a server of this machine has given it by then, and only
//! one that is still to come is waited for in the runtime's epoll instance.

use crate::config::model::{Server as Spec, ServerPort};
use crate::live::CheckStatus;
use crate::state::Endpoint;
use crate::sys::limits::{self, DescriptorReserve};
use crate::sys::raw::{self, Owned};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixSocket;
use tokio::time::timeout;

/// Pause before a unix socket whose queue is full is asked again.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// What HAProxy says when a check without rules fails.
const STEP: &str = " at initial connection step of tcp-check";

/// Where a check connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An address.
    Tcp(SocketAddr),
    /// A unix socket path, or an abstract name that begins with `@`.
    Unix(PathBuf),
    /// There is no port to check: the server has its clients' ports, and the check names none.
    NoPort,
}

impl Target {
    /// That of a server: the check's own address and port before the server's.
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
            (Endpoint::Ip(_, ServerPort::FromClient(_)), _, None) => Self::NoPort,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
            Self::NoPort => formatter.write_str("no port"),
        }
    }
}

/// Sockets of each family that checks have left to those that follow; more are closed. They are
/// never more than checks that were in flight at once, so that `config::descriptors` has counted
/// them.
pub const IDLE_MAX: usize = 64;

/// Sockets that a check has reset and left to the next one, which is spared opening its own.
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

    /// A socket that was connected, ended with RST and is as new; its options have stayed.
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
        // One that is not kept is closed, with RST by its `SO_LINGER`.
        if idle.len() < IDLE_MAX && rustix::net::connect_unspec(&socket).is_ok() {
            idle.push(socket);
        }
    }
}

/// How a probe opens and closes its socket.
#[derive(Debug, Clone, Copy)]
pub struct ProbeOptions<'a> {
    /// Descriptors that are kept back for it.
    pub reserve: &'a DescriptorReserve,
    /// End with RST instead of FIN, and keep the socket here.
    pub reset: Option<&'a IdleSockets>,
    /// How long it may take.
    pub limit: Duration,
}

/// What came of a probe.
#[derive(Debug)]
pub enum Outcome {
    /// The server's answer, or that there was none.
    Verdict {
        /// HAProxy's code.
        status: CheckStatus,
        /// What the system said; empty for a passed check.
        info: String,
    },
    /// It could not be asked, for want of something of ours.
    Local(io::Error),
}

/// Connects to `target` and closes.
pub async fn probe(target: &Target, options: ProbeOptions<'_>) -> Outcome {
    let connected = async {
        match target {
            Target::Tcp(address) => connect_tcp(*address, options).await,
            Target::Unix(path) => connect_unix(path, options).await,
            Target::NoPort => Ok(Err(None)),
        }
    };
    match timeout(options.limit, connected).await {
        Err(_) => verdict(CheckStatus::L4Timeout, STEP),
        Ok(Ok(Ok(()))) => verdict(CheckStatus::L4Ok, ""),
        Ok(Ok(Err(None))) => verdict(CheckStatus::SocketError, STEP),
        Ok(Ok(Err(Some(error)))) => verdict(CheckStatus::L4Con, &explain(&error)),
        Ok(Err(error)) => Outcome::Local(error),
    }
}

fn verdict(status: CheckStatus, info: &str) -> Outcome {
    Outcome::Verdict {
        status,
        info: info.to_owned(),
    }
}

/// The outer error is our own, the inner one the server's; `None` when it was not even asked.
type Answer = io::Result<Result<(), Option<io::Error>>>;

async fn connect_tcp(address: SocketAddr, options: ProbeOptions<'_>) -> Answer {
    let socket = match options.reset.and_then(|idle| idle.take(address)) {
        Some(socket) => socket,
        None => open(address, options)?,
    };
    // The server's answer is acknowledged by the end of the check, as HAProxy does it: a packet
    // less, and a check that ends with RST never reaches the server's accept queue.
    socket.set_tcp_quickack(false)?;
    let answer = join(&socket, address).await;
    if let (Some(idle), Ok(Ok(()))) = (options.reset, &answer) {
        idle.reset(socket, address);
    }
    answer
}

fn open(address: SocketAddr, options: ProbeOptions<'_>) -> io::Result<Socket> {
    let (domain, kind) = (Domain::for_address(address), Type::STREAM.nonblocking());
    let socket = options
        .reserve
        .with(|| Socket::new(domain, kind, Some(Protocol::TCP)))?;
    if options.reset.is_some() {
        socket.set_linger(Some(Duration::ZERO))?;
    }
    Ok(socket)
}

async fn join(socket: &Socket, address: SocketAddr) -> Answer {
    let address = SockAddr::from(address);
    match connected(socket, &address).await {
        // A connect to a dead port of this machine can meet itself: the kernel may give it that
        // very port as its own, and TCP then joins the two ends. Nobody listens there.
        Ok(()) if socket.local_addr().is_ok_and(|own| own == address) => {
            Ok(Err(Some(io::Error::from_raw_os_error(libc::ECONNREFUSED))))
        }
        Ok(()) => Ok(Ok(())),
        Err(error) => judge(error),
    }
}

/// Completes when the connection stands.
async fn connected(socket: &Socket, address: &SockAddr) -> io::Result<()> {
    // The first call begins, the second asks what has come of it.
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

/// Begins to connect, or asks how far it is: whether the connection stands, in one system call
/// where `SO_ERROR` would be silent about a connection that is still being made.
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
            Ok(_) => return Ok(Ok(())),
            // The server's queue is full. A TCP server would leave the connection unanswered; this
            // one is asked again until the time is up.
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

/// The path as the system wants it: an abstract name begins with a zero byte.
fn system_path(path: &Path) -> PathBuf {
    match path.as_os_str().as_bytes() {
        [b'@', name @ ..] => {
            let name = [&[0], name].concat();
            PathBuf::from(std::ffi::OsStr::from_bytes(&name))
        }
        _ => path.to_path_buf(),
    }
}

/// HAProxy's words for a failed connection.
fn explain(error: &io::Error) -> String {
    let code = match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => "ECONNREFUSED returned by OS",
        Some(libc::ECONNRESET) => "ECONNRESET returned by OS",
        // HAProxy has one code for both.
        Some(libc::EHOSTUNREACH | libc::ENETUNREACH) => "ENETUNREACH returned by OS",
        Some(libc::EINVAL) => "EINVAL returned by OS",
        Some(libc::EPIPE) => "EPIPE returned by OS",
        _ => "General socket error",
    };
    let text = error.to_string();
    let text = text
        .split_once(" (os error")
        .map_or(text.as_str(), |(text, _)| text);
    format!("{code} ({text}){STEP}")
}

#[cfg(test)]
mod tests;
