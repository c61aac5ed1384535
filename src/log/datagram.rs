//! Syslog by datagrams: a unix socket (`/dev/log`) or UDP. Runs on the log thread.
//!
//! Invariant: the log thread waits at most [`WRITE_TIMEOUT`] for a receiver, and does not wait again for one
//! that was too slow until it takes something. While there is no receiver, up to [`PENDING_MAX`] bytes of lines
//! are kept for it. The socket is opened once and used again to reconnect, so that a reconnect needs no free
//! descriptor.
//!
//! Lines are collected and sent together, up to [`BATCH_MAX`] in one system call.

use super::output::{Losses, is_writable};
use crate::sys::socket::unix_address;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest time that one line waits for a receiver whose queue is full.
const WRITE_TIMEOUT: Duration = Duration::from_millis(100);
/// How often it tries to reach a missing receiver.
const RECONNECT_EVERY: Duration = Duration::from_secs(1);

/// Most bytes of lines that are kept while there is no receiver.
const PENDING_MAX: usize = 1024 * 1024;

/// Lines that are sent at once.
const BATCH_MAX: usize = 64;

/// A receiver of datagrams.
#[derive(Debug)]
pub(super) struct Datagram {
    address: SockAddr,
    socket: Option<Socket>,
    connected: bool,
    /// No new attempt to connect before this.
    retry_at: Option<Instant>,
    /// The last wait has ended without room.
    stalled: bool,
    losses: Losses,
    /// Lines to send, one after the other.
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
        unix_address(path).map(Self::to)
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

    /// Connects before the first line.
    ///
    /// # Errors
    /// When there is no receiver; the first line tries again.
    pub(super) fn open(&mut self) -> io::Result<()> {
        let result = self.connect();
        self.retry_at = None;
        result
    }

    /// Accepts one line; [`Datagram::flush`] sends it at the latest.
    pub(super) fn push(&mut self, line: &[u8]) {
        if self.text.len() + line.len() > PENDING_MAX {
            self.flush();
            if self.text.len() + line.len() > PENDING_MAX {
                return self.losses.add(1, io::ErrorKind::NotConnected.into());
            }
        }
        self.text.extend_from_slice(line);
        self.ends.push(self.text.len());
        if self.ends.len() >= BATCH_MAX {
            self.flush();
        }
    }

    /// Sends the lines. They are kept while there is no receiver, and dropped when it takes none.
    pub(super) fn flush(&mut self) {
        let mut done = 0;
        while done < self.ends.len() {
            let Some(count) = self.send(done) else {
                break;
            };
            done += count;
        }
        self.forget(done);
    }

    /// Sends the lines, with one more attempt to connect, and drops those that are left.
    pub(super) fn finish(&mut self) {
        self.retry_at = None;
        self.flush();
        let left = self.ends.len();
        if left > 0 {
            self.forget(left);
            let error = self.losses.error.take();
            let error = error.unwrap_or_else(|| io::ErrorKind::NotConnected.into());
            self.losses.add(left as u64, error);
        }
    }

    /// Removes the first `count` lines.
    fn forget(&mut self, count: usize) {
        let cut = count.checked_sub(1).map_or(0, |last| self.ends[last]);
        self.text.drain(..cut);
        self.ends.drain(..count);
        for end in &mut self.ends {
            *end -= cut;
        }
    }

    /// Sends the lines from number `first` on as far as the receiver takes them, or drops that one. Returns how
    /// many are done. `None`: there is no receiver.
    fn send(&mut self, first: usize) -> Option<usize> {
        let mut result = self.try_send(first);
        if let Err(error) = &result {
            if is_full(error) {
                let may_wait = !self.stalled;
                self.stalled = true;
                if may_wait && self.wait_writable() {
                    result = self.try_send(first);
                }
            } else if self.connected {
                // The receiver has gone; another may have its address now. (For UDP the error is that of an
                // earlier datagram, and this one may be sent.)
                self.connected = false;
                self.retry_at = None;
                result = self.try_send(first);
            }
        }
        match result {
            Ok(count) => {
                self.stalled = false;
                Some(count)
            }
            Err(error) if self.connected => {
                self.losses.add(1, error);
                Some(1)
            }
            // A missing receiver is reported only after a real attempt to connect.
            Err(error) => {
                if error.raw_os_error().is_some() {
                    self.losses.error = Some(error);
                }
                None
            }
        }
    }

    /// What was dropped since the last call.
    pub(super) fn losses(&mut self) -> Losses {
        self.losses.take()
    }

    /// How many lines from number `first` on were taken; at least one.
    fn try_send(&mut self, first: usize) -> io::Result<usize> {
        self.connect()?;
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let lines: Vec<[IoSlice; 1]> = (first..self.ends.len().min(first + BATCH_MAX))
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
    fn udp_lines_arrive_one_per_datagram() {
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
        assert_eq!(sink.losses().lines, 0, "fault 37: it is kept");
        let first = UnixDatagram::bind(&path).unwrap();
        sink.push(b"one\n");
        sink.flush();
        assert_eq!(sink.ends.len(), 2, "not looked for again yet");
        sink.retry_at = None; // the second has passed
        sink.flush();
        assert_eq!(received(&first), b"nobody\n");
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

    /// Fault 37: lines are kept for a missing receiver, within a bound.
    #[test]
    fn fault_37_lines_for_a_missing_receiver_are_kept_up_to_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut sink = Datagram::unix(&path).unwrap();
        let line = [b'x'; 1024];
        for _ in 0..PENDING_MAX / line.len() + 10 {
            sink.push(&line);
        }
        assert_eq!(sink.losses().lines, 10);
        let receiver = UnixDatagram::bind(&path).unwrap();
        let kept = PENDING_MAX / line.len();
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            (0..kept).all(|_| receiver.recv(&mut buffer).unwrap() == line.len())
        });
        let deadline = Instant::now() + Duration::from_secs(10);
        while !sink.ends.is_empty() && Instant::now() < deadline {
            sink.finish();
        }
        assert_eq!(sink.losses().lines, 0);
        assert!(reader.join().unwrap());
    }

    #[test]
    fn a_stop_counts_the_lines_that_nobody_took() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = Datagram::unix(&dir.path().join("log")).unwrap();
        sink.push(b"one\n");
        sink.push(b"two\n");
        sink.finish();
        assert_eq!(sink.losses().lines, 2);
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
