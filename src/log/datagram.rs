//! Syslog by datagram: a unix socket (`/dev/log`) or UDP. Runs on the log thread.
//!
//! Invariant: a line never waits longer than [`PATIENCE_MAX`], and a receiver that was once too
//! slow is not waited for again until it takes something. The descriptor is taken once; a receiver
//! that comes back is connected to again with the same one, so that this needs no free descriptor.

use super::output::{Losses, is_writable};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest time one line waits for a receiver whose queue is full.
const PATIENCE_MAX: Duration = Duration::from_millis(100);
/// How often a receiver that is not there is looked for.
const RECONNECT_EVERY: Duration = Duration::from_secs(1);

/// A receiver of datagrams.
#[derive(Debug)]
pub(super) struct Datagram {
    address: SockAddr,
    socket: Option<Socket>,
    connected: bool,
    /// Not looked for again before this.
    retry_at: Option<Instant>,
    /// The last wait was in vain.
    stalled: bool,
    losses: Losses,
}

impl Datagram {
    /// Datagrams to `address`.
    pub(super) fn udp(address: SocketAddr) -> Self {
        Self::to(address.into())
    }

    /// Datagrams to the socket at `path`; a path that begins with `@` is an abstract name.
    ///
    /// # Errors
    /// When the path is too long for an address.
    pub(super) fn unix(path: &Path) -> io::Result<Self> {
        let bytes = path.as_os_str().as_bytes();
        match bytes.strip_prefix(b"@") {
            Some(name) => {
                let mut abstract_name = vec![0];
                abstract_name.extend_from_slice(name);
                let name = PathBuf::from(std::ffi::OsStr::from_bytes(&abstract_name));
                SockAddr::unix(name).map(Self::to)
            }
            None => SockAddr::unix(path).map(Self::to),
        }
    }

    fn to(address: SockAddr) -> Self {
        Self {
            address,
            socket: None,
            connected: false,
            retry_at: None,
            stalled: false,
            losses: Losses::default(),
        }
    }

    /// Sends one line, or loses it.
    pub(super) fn send(&mut self, line: &[u8]) {
        let mut result = self.try_send(line);
        if let Err(error) = &result {
            if is_full(error) {
                let patient = !self.stalled;
                self.stalled = true;
                if patient && self.wait_writable() {
                    result = self.try_send(line);
                }
            } else if self.connected {
                // The receiver has gone, perhaps to come back as another. (For UDP the error is
                // that of an earlier datagram, and this one is as good as any.)
                self.connected = false;
                self.retry_at = None;
                result = self.try_send(line);
            }
        }
        match result {
            Ok(()) => self.stalled = false,
            Err(error) => self.losses.add(1, error),
        }
    }

    /// What was lost since the last call.
    pub(super) fn losses(&mut self) -> Losses {
        self.losses.take()
    }

    fn try_send(&mut self, line: &[u8]) -> io::Result<()> {
        self.connect()?;
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        socket.send(line).map(|_| ())
    }

    fn connect(&mut self) -> io::Result<()> {
        if self.connected {
            return Ok(());
        }
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| now < at) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        self.retry_at = Some(now + RECONNECT_EVERY);
        let socket = if let Some(socket) = self.socket.take() {
            socket
        } else {
            let domain = Domain::from(i32::from(self.address.family()));
            let socket = Socket::new(domain, Type::DGRAM, None)?;
            socket.set_nonblocking(true)?;
            socket
        };
        let connected = socket.connect(&self.address);
        self.socket = Some(socket);
        connected?;
        self.connected = true;
        self.retry_at = None;
        Ok(())
    }

    fn wait_writable(&self) -> bool {
        self.socket
            .as_ref()
            .is_some_and(|socket| is_writable(socket.as_fd(), PATIENCE_MAX))
    }
}

fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};

    fn received(socket: &UnixDatagram) -> Vec<u8> {
        let mut buffer = [0; 128];
        let length = socket.recv(&mut buffer).unwrap();
        buffer[..length].to_vec()
    }

    #[test]
    fn udp_lines_arrive_one_a_datagram() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut sink = Datagram::udp(receiver.local_addr().unwrap());
        sink.send(b"one\n");
        sink.send(b"two\n");
        let mut buffer = [0; 16];
        for expected in [b"one\n", b"two\n"] {
            let length = receiver.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], expected);
        }
        assert_eq!(sink.losses().lines, 0);
    }

    #[test]
    fn a_receiver_that_comes_back_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut sink = Datagram::unix(&path).unwrap();
        sink.send(b"nobody\n");
        assert_eq!(sink.losses().lines, 1);
        let first = UnixDatagram::bind(&path).unwrap();
        sink.retry_at = None; // the second has passed
        sink.send(b"one\n");
        assert_eq!(received(&first), b"one\n");
        drop(first);
        std::fs::remove_file(&path).unwrap();
        let second = UnixDatagram::bind(&path).unwrap();
        sink.send(b"two\n");
        assert_eq!(
            received(&second),
            b"two\n",
            "the line that met the change is not lost"
        );
        assert_eq!(sink.losses().lines, 0);
    }

    #[test]
    fn abstract_names_begin_with_an_at_sign() {
        let name = format!("rlb-test-{}", std::process::id());
        let address = UnixAddr::from_abstract_name(name.as_bytes()).unwrap();
        let receiver = UnixDatagram::bind_addr(&address).unwrap();
        let mut sink = Datagram::unix(Path::new(&format!("@{name}"))).unwrap();
        sink.send(b"one\n");
        assert_eq!(received(&receiver), b"one\n");
    }

    #[test]
    fn an_unread_receiver_costs_one_bounded_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let mut sink = Datagram::unix(&path).unwrap();
        let begun = Instant::now();
        for _ in 0..2000 {
            sink.send(b"line\n");
        }
        assert!(begun.elapsed() < Duration::from_secs(2));
        let lost = sink.losses().lines;
        assert!(lost > 0 && lost < 2000, "{lost}");
        received(&receiver);
        sink.send(b"again\n");
        assert_eq!(sink.losses().lines, 0);
    }
}
