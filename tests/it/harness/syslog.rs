//! Receivers of log lines: a UDP or unix datagram socket whose datagrams are kept in order.

use super::eventually::eventually;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

/// Longest datagram that is read.
const DATAGRAM_MAX: usize = 65536;

/// A socket that log lines are sent to.
#[derive(Debug)]
pub(crate) enum Syslog {
    /// `udp:127.0.0.1:…`
    Udp(UdpSocket),
    /// `unix:…`
    Unix(UnixDatagram),
}

impl Syslog {
    /// Listens on a UDP port of the kernel's choice.
    pub(crate) fn udp() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a UDP port");
        socket.set_nonblocking(true).expect("non-blocking");
        Self::Udp(socket)
    }

    /// Listens on a unix datagram socket, as `/dev/log` is.
    pub(crate) fn unix(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("a unix socket");
        socket.set_nonblocking(true).expect("non-blocking");
        Self::Unix(socket)
    }

    /// The UDP address.
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Udp(socket) => socket.local_addr().expect("bound"),
            Self::Unix(_) => panic!("a unix socket has no address"),
        }
    }

    /// The next datagram, if there is one.
    pub(crate) fn try_next(&self) -> Option<String> {
        let mut buffer = vec![0; DATAGRAM_MAX];
        let length = match self {
            Self::Udp(socket) => socket.recv(&mut buffer),
            Self::Unix(socket) => socket.recv(&mut buffer),
        }
        .ok()?;
        buffer.truncate(length);
        Some(String::from_utf8(buffer).expect("a log line is text"))
    }

    /// Waits for the next datagram that contains `part`; those before it are dropped.
    #[track_caller]
    pub(crate) fn next_with(&self, part: &str) -> String {
        let mut passed = Vec::new();
        let found = eventually_line(&mut passed, part, || self.try_next());
        found.unwrap_or_else(|| panic!("no log line with {part:?}; seen: {passed:#?}"))
    }
}

fn eventually_line(
    passed: &mut Vec<String>,
    part: &str,
    mut next: impl FnMut() -> Option<String>,
) -> Option<String> {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    eventually(Duration::from_secs(11), "a log line", || {
        while let Some(line) = next() {
            if line.contains(part) {
                return Some(Some(line));
            }
            passed.push(line);
        }
        (std::time::Instant::now() > deadline).then_some(None)
    })
}
