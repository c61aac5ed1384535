//! Syslog by datagram: a unix socket (`/dev/log`) or UDP. Runs on the log thread.
//!
//! Invariant: a line never waits longer than [`WRITE_TIMEOUT`], and a receiver that was once too
//! slow is not waited for again until it takes something. The descriptor is taken once; a receiver
//! that comes back is connected to again with the same one, so that this needs no free descriptor.
//!
//! Lines are gathered and handed over together: one system call for up to [`BATCH_MAX`] of them.

use super::output::{Losses, is_writable};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest time one line waits for a receiver whose queue is full.
const WRITE_TIMEOUT: Duration = Duration::from_millis(100);
/// How often a receiver that is not there is looked for.
const RECONNECT_EVERY: Duration = Duration::from_secs(1);

/// Lines that are handed over at once.
const BATCH_MAX: usize = 64;

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
    /// Lines to be sent, one behind the other.
    text: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
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
            text: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Connects ahead of the first line.
    ///
    /// # Errors
    /// When nobody is there; it is tried again with the first line.
    pub(super) fn open(&mut self) -> io::Result<()> {
        let result = self.connect();
        self.retry_at = None;
        result
    }

    /// Takes one line, which [`Datagram::flush`] sends at the latest.
    pub(super) fn push(&mut self, line: &[u8]) {
        self.text.extend_from_slice(line);
        self.ends.push(self.text.len());
        if self.ends.len() >= BATCH_MAX {
            self.flush();
        }
    }

    /// Sends the lines, or loses them.
    pub(super) fn flush(&mut self) {
        let mut sent = 0;
        while sent < self.ends.len() {
            sent += self.send(sent);
        }
        self.text.clear();
        self.ends.clear();
    }

    /// Sends the lines from number `first` on as far as they are taken, or loses that one: how many
    /// need no further care.
    fn send(&mut self, first: usize) -> usize {
        let mut result = self.try_send(first);
        if let Err(error) = &result {
            if is_full(error) {
                let may_wait = !self.stalled;
                self.stalled = true;
                if may_wait && self.wait_writable() {
                    result = self.try_send(first);
                }
            } else if self.connected {
                // The receiver has gone, perhaps to come back as another. (For UDP the error is
                // that of an earlier datagram, and this one is as good as any.)
                self.connected = false;
                self.retry_at = None;
                result = self.try_send(first);
            }
        }
        match result {
            Ok(count) => {
                self.stalled = false;
                count
            }
            Err(error) => {
                self.losses.add(1, error);
                1
            }
        }
    }

    /// What was lost since the last call.
    pub(super) fn losses(&mut self) -> Losses {
        self.losses.take()
    }

    /// How many lines from number `first` on were taken: one at least.
    fn try_send(&mut self, first: usize) -> io::Result<usize> {
        self.connect()?;
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let lines: Vec<[IoSlice; 1]> = (first..self.ends.len())
            .map(|number| [IoSlice::new(self.line(number))])
            .collect();
        let mut nothing: Vec<SendAncillaryBuffer> = Vec::new();
        nothing.resize_with(lines.len(), SendAncillaryBuffer::default);
        let mut messages: Vec<MMsgHdr> = lines
            .iter()
            .zip(&mut nothing)
            .map(|(line, nothing)| MMsgHdr::new(line, nothing))
            .collect();
        Ok(sendmmsg(socket, &mut messages, SendFlags::NOSIGNAL)?.max(1))
    }

    fn line(&self, number: usize) -> &[u8] {
        let begin = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[begin..self.ends[number]]
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
            .is_some_and(|socket| is_writable(socket.as_fd(), WRITE_TIMEOUT))
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
        sink.push(b"one\n");
        sink.push(b"two\n");
        sink.flush();
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
        sink.push(b"nobody\n");
        sink.flush();
        assert_eq!(sink.losses().lines, 1);
        let first = UnixDatagram::bind(&path).unwrap();
        sink.retry_at = None; // the second has passed
        sink.push(b"one\n");
        sink.flush();
        assert_eq!(received(&first), b"one\n");
        drop(first);
        std::fs::remove_file(&path).unwrap();
        let second = UnixDatagram::bind(&path).unwrap();
        sink.push(b"two\n");
        sink.flush();
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
        sink.push(b"one\n");
        sink.flush();
        assert_eq!(received(&receiver), b"one\n");
    }

    #[test]
    fn more_lines_than_fit_into_one_call_all_arrive_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let receiver = UnixDatagram::bind(&path).unwrap();
        receiver
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut sink = Datagram::unix(&path).unwrap();
        let reader = std::thread::spawn(move || {
            (0..=2 * BATCH_MAX)
                .map(|_| received(&receiver))
                .collect::<Vec<_>>()
        });
        let lines: Vec<Vec<u8>> = (0..=2 * BATCH_MAX)
            .map(|number| format!("line {number}\n").into_bytes())
            .collect();
        for line in &lines {
            sink.push(line);
        }
        sink.flush();
        assert_eq!(sink.losses().lines, 0);
        assert_eq!(reader.join().unwrap(), lines);
    }

    #[test]
    fn an_unread_receiver_costs_one_bounded_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let mut sink = Datagram::unix(&path).unwrap();
        let begun = Instant::now();
        for _ in 0..2000 {
            sink.push(b"line\n");
            sink.flush();
        }
        assert!(begun.elapsed() < Duration::from_secs(2));
        let lost = sink.losses().lines;
        assert!(lost > 0 && lost < 2000, "{lost}");
        received(&receiver);
        sink.push(b"again\n");
        sink.flush();
        assert_eq!(sink.losses().lines, 0);
    }
}
