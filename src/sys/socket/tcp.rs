//! Options of listening TCP sockets that the connections that they accept inherit.
//!
//! As in HAProxy, an option that the kernel refuses is no reason not to listen: it is told of. Usable from any thread.

use super::{Options, backlog};
use crate::sys::raw::{self, TcpOption};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

/// How long a client may wait to send something, in seconds, as in HAProxy.
const DEFER_ACCEPT: i32 = 1;

/// Options that a bind may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TcpOptions {
    /// `IP_TRANSPARENT`.
    pub transparent: bool,
    /// `TCP_DEFER_ACCEPT`.
    pub defer_accept: bool,
    /// `TCP_FASTOPEN`, for as many clients as the accept queue is long.
    pub tfo: bool,
    /// `TCP_MAXSEG`.
    pub mss: Option<u32>,
    /// `TCP_CONGESTION`.
    pub cc: Option<Arc<str>>,
    /// `TCP_USER_TIMEOUT`.
    pub tcp_ut: Option<Duration>,
}

/// An option that the kernel has refused.
#[derive(Debug)]
pub struct RefusedOption {
    /// HAProxy's word for it.
    pub option: &'static str,
    /// The system's error.
    pub error: io::Error,
}

impl TcpOptions {
    /// What `socket` has that a new one does not have.
    ///
    /// # Errors
    /// Those of `socket` and `getsockopt`.
    pub fn of(socket: &Socket) -> io::Result<Self> {
        let domain = socket.domain()?;
        let new = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        // A kernel that does not have the option has not set it.
        let is_on = |option| raw::tcp_option(socket.as_fd(), option).is_ok_and(|value| value != 0);
        let (mss, cc) = (
            of_kind(socket.tcp_mss())?,
            of_kind(socket.tcp_congestion())?,
        );
        let (usual_mss, usual_cc) = (new.tcp_mss()?, new.tcp_congestion()?);
        let transparent = match domain {
            Domain::IPV6 => socket.ip_transparent_v6(),
            _ => socket.ip_transparent_v4(),
        };
        Ok(Self {
            transparent: of_kind(transparent)?.unwrap_or_default(),
            defer_accept: is_on(TcpOption::DeferAccept),
            tfo: is_on(TcpOption::FastOpen),
            mss: mss.filter(|mss| *mss != usual_mss),
            cc: cc.filter(|cc| *cc != usual_cc).map(|cc| text(&cc).into()),
            tcp_ut: of_kind(socket.tcp_user_timeout())?.flatten(),
        })
    }

    /// Sets these, and takes back those that only `had` has. The options that the kernel refuses.
    pub(super) fn set(&self, socket: &Socket, had: &Self, queue: u32) -> Vec<RefusedOption> {
        let number = |option, value| raw::set_tcp_option(socket.as_fd(), option, value);
        let mut refused = Vec::new();
        let mut set = |option, is: bool, was: bool, call: &dyn Fn() -> io::Result<()>| {
            if (is || was)
                && let Err(error) = call()
            {
                refused.push(RefusedOption { option, error });
            }
        };
        set(
            "transparent",
            self.transparent,
            had.transparent,
            &|| match socket.domain()? {
                Domain::IPV6 => socket.set_ip_transparent_v6(self.transparent),
                _ => socket.set_ip_transparent_v4(self.transparent),
            },
        );
        set("defer-accept", self.defer_accept, had.defer_accept, &|| {
            let seconds = if self.defer_accept { DEFER_ACCEPT } else { 0 };
            number(TcpOption::DeferAccept, seconds)
        });
        set("tfo", self.tfo, had.tfo, &|| {
            let queue = if self.tfo { backlog(queue) } else { 0 };
            number(TcpOption::FastOpen, queue)
        });
        set("mss", self.mss.is_some(), had.mss.is_some(), &|| {
            // The kernel takes 0 for its own choice.
            socket.set_tcp_mss(self.mss.unwrap_or(0))
        });
        set("cc", self.cc.is_some(), had.cc.is_some(), &|| {
            if let Some(name) = &self.cc {
                return socket.set_tcp_congestion(name.as_bytes());
            }
            let new = Socket::new(socket.domain()?, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_tcp_congestion(text(&new.tcp_congestion()?).as_bytes())
        });
        set(
            "tcp-ut",
            self.tcp_ut.is_some(),
            had.tcp_ut.is_some(),
            &|| socket.set_tcp_user_timeout(self.tcp_ut),
        );
        refused
    }
}

/// The value of an option; `None`: sockets of this kind have it not, as those of MPTCP have no `TCP_USER_TIMEOUT`.
fn of_kind<T>(value: io::Result<T>) -> io::Result<Option<T>> {
    match value.as_ref().map_err(io::Error::raw_os_error) {
        Err(Some(libc::EOPNOTSUPP | libc::ENOPROTOOPT)) => Ok(None),
        _ => value.map(Some),
    }
}

/// The name of an algorithm, without the zeros behind it.
fn text(name: &[u8]) -> &str {
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    std::str::from_utf8(name).unwrap_or_default()
}

/// Tells of the options of a socket that the kernel has refused.
pub(super) fn tell(socket: &Socket, refused: &[RefusedOption]) {
    let address = socket.local_addr().ok().and_then(|it| it.as_socket());
    let address = address.map(tracing::field::display);
    for RefusedOption { option, error } in refused {
        let cure = match *option {
            "cc" => "net.ipv4.tcp_available_congestion_control lists the algorithms",
            "transparent" => "rlb needs CAP_NET_ADMIN; the address is bound as by `freebind`",
            _ => "the socket listens without it",
        };
        tracing::warn!(address, option, %error, cure, "socket option refused");
    }
}

/// Sets the options of a socket that was opened before, and takes back those that only `had` has.
pub(super) fn change(socket: &Socket, options: &Options, had: &TcpOptions) {
    tell(socket, &options.tcp.set(socket, had, options.backlog));
}
