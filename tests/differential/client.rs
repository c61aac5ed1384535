//! The clients of a script: what each does on its connection, and what it has seen.

use crate::harness::client::{End, TIMEOUT, connect, end_of, reset};
use crate::harness::eventually::pace_until;
use crate::script::{Connection, Kind};
use rustix::net::{RecvFlags, recv};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Bytes that a slow reader reads at once.
const SIP: usize = 16 * 1024;

/// Longest line.
const LINE_MAX: usize = 64;

/// How long a slow reader waits before it reads: the balancer's buffers are full then.
const SLOW: Duration = Duration::from_millis(15);

/// `size` bytes, always the same.
pub(crate) fn filler(size: usize) -> Vec<u8> {
    let mut bytes = b"abcdefghijklmnopqrstuvwxyz".repeat(size / 26 + 1);
    bytes.truncate(size);
    bytes
}

/// A connection, of a client or of a server.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Ends a direction.
    pub(crate) fn shutdown(&self, how: Shutdown) {
        match self {
            Self::Tcp(stream) => drop(stream.shutdown(how)),
            Self::Unix(stream) => drop(stream.shutdown(how)),
        }
    }

    /// Ends the connection by a reset. A unix socket has none: it is closed.
    pub(crate) fn reset(self) {
        match self {
            Self::Tcp(stream) => reset(stream),
            Self::Unix(stream) => drop(stream),
        }
    }

    /// Reads a line, without its line feed; `None` when the connection ends before. What follows is not read.
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        let mut buffer = [0; LINE_MAX];
        while line.len() < LINE_MAX {
            let (_, seen) = match self {
                Self::Tcp(stream) => recv(stream, &mut buffer, RecvFlags::PEEK),
                Self::Unix(stream) => recv(stream, &mut buffer, RecvFlags::PEEK),
            }
            .ok()?;
            let end = buffer[..seen].iter().position(|byte| *byte == b'\n');
            let take = end.map_or(seen, |end| end + 1);
            if take == 0 {
                return None;
            }
            self.read_exact(&mut buffer[..take]).ok()?;
            line.extend_from_slice(&buffer[..end.unwrap_or(take)]);
            if end.is_some() {
                return Some(String::from_utf8_lossy(&line).into_owned());
            }
        }
        None
    }

    /// Reads until the end, and returns how many bytes came.
    pub(crate) fn drain(&mut self) -> usize {
        let mut buffer = vec![0; 16 * 1024];
        let mut count = 0;
        while let Ok(length @ 1..) = self.read(&mut buffer) {
            count += length;
        }
        count
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Where clients connect.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Tcp(Vec<SocketAddr>),
    Unix(PathBuf),
}

/// What a client has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The name of the server that answered; empty when none did.
    pub(crate) server: String,
    /// Bytes that came after the name.
    pub(crate) received: usize,
    /// They are those that the server has sent.
    pub(crate) intact: bool,
    /// How the connection ended, where the client has read to its end.
    pub(crate) end: Option<End>,
}

/// A client whose connection is open.
#[derive(Debug)]
pub(crate) struct Client {
    stream: Stream,
    /// Its port; 0 on a unix socket.
    pub(crate) port: u16,
    seen: Seen,
}

impl Client {
    /// Connects. Clients of several addresses use them in turn.
    pub(crate) fn connect(target: &Target, number: usize) -> Self {
        let stream = match target {
            Target::Tcp(addresses) => Stream::Tcp(connect(addresses[number % addresses.len()])),
            Target::Unix(path) => {
                let stream = UnixStream::connect(path).expect("connected");
                stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
                stream.set_write_timeout(Some(TIMEOUT)).expect("a timeout");
                Stream::Unix(stream)
            }
        };
        let port = match &stream {
            Stream::Tcp(stream) => stream.local_addr().expect("connected").port(),
            Stream::Unix(_) => 0,
        };
        let seen = Seen {
            server: String::new(),
            received: 0,
            intact: true,
            end: None,
        };
        Self { stream, port, seen }
    }

    /// Does what the kind says, to the end. The caller closes the socket that is left open.
    pub(crate) fn run(mut self, connection: Connection) -> (Seen, Option<Stream>) {
        let Connection { kind, size } = connection;
        let bytes = filler(size);
        match kind {
            Kind::Echo | Kind::Ping => {
                if self.order("echo", &bytes) && self.read(&bytes) {
                    self.stream.shutdown(Shutdown::Write);
                    self.read_to_end(&[]);
                }
            }
            Kind::Answer => {
                if self.order(&format!("answer {size}"), &[]) {
                    self.read_to_end(&bytes);
                }
            }
            Kind::ClientHalfCloses => {
                self.send(b"count\n");
                self.send(&bytes);
                self.stream.shutdown(Shutdown::Write);
                if self.read_name() {
                    self.read_to_end(size.to_string().as_bytes());
                }
            }
            Kind::ServerHalfCloses => {
                if self.order("fin", &[]) && self.read_to_end(&[]) {
                    self.send(&bytes);
                }
            }
            Kind::ClientResets => {
                self.order("hold", &[]);
                self.stream.reset();
                return (self.seen, None);
            }
            Kind::ServerResets => {
                if self.order("reset", &[]) {
                    self.send(b"x");
                    self.read_to_end(&[]);
                }
            }
            Kind::Null => return (self.seen, None),
            Kind::SlowReader => {
                if self.order(&format!("answer {size}"), &[]) {
                    pace_until(Instant::now() + SLOW);
                    self.sip(&bytes);
                    self.read_to_end(&[]);
                }
            }
            Kind::SlowWriter => {
                if self.order("echo", &[]) {
                    self.exchange_slowly(&bytes);
                }
            }
            Kind::Bulk => {
                if self.order("echo", &[]) {
                    self.exchange(&bytes);
                }
            }
            Kind::Idle | Kind::IdleServer | Kind::IdleClient => self.fall_silent(kind),
        }
        // Only a client that is silent for too long leaves its end to the balancer.
        let open = (kind == Kind::IdleClient).then_some(self.stream);
        (self.seen, open)
    }

    /// Sends byte after byte, each after the answer to the last, and ends.
    fn exchange_slowly(&mut self, bytes: &[u8]) {
        let open = bytes.chunks(1).all(|byte| {
            self.send(byte);
            self.read(byte)
        });
        if open {
            self.stream.shutdown(Shutdown::Write);
            self.read_to_end(&[]);
        }
    }

    /// Sends nothing after the server's first answer; the client or the server may have ended what it sends.
    fn fall_silent(&mut self, kind: Kind) {
        let order = match kind {
            Kind::IdleServer => "stay",
            Kind::IdleClient => "fin",
            _ => "hold",
        };
        if self.order(order, &[]) {
            if kind == Kind::IdleServer {
                self.stream.shutdown(Shutdown::Write);
            }
            self.read_to_end(&[]);
        }
    }

    /// Begins a connection that stays open.
    pub(crate) fn hold(&mut self) {
        self.order("hold", &[]);
    }

    /// Sends the order of [`Client::hold`] and does not wait for the answer.
    pub(crate) fn ask(&mut self) {
        self.send(b"hold\n");
    }

    /// Reads the answer to [`Client::ask`].
    pub(crate) fn answered(&mut self) {
        self.read_name();
    }

    /// Reads to the end of a connection that was held and that others end.
    pub(crate) fn ended(mut self) -> Seen {
        self.read_to_end(&[]);
        self.seen
    }

    /// Ends a connection that was held.
    pub(crate) fn finish(mut self) -> Seen {
        self.stream.shutdown(Shutdown::Write);
        self.read_to_end(&[]);
        self.seen
    }

    /// Ends a connection that was held by a reset.
    pub(crate) fn reset(self) -> Seen {
        self.stream.reset();
        self.seen
    }

    /// Sends an order and these bytes, and reads the server's name.
    fn order(&mut self, order: &str, bytes: &[u8]) -> bool {
        let first = [order.as_bytes(), b"\n", bytes].concat();
        self.send(&first);
        self.read_name()
    }

    fn send(&mut self, bytes: &[u8]) {
        // How the connection ended is seen by the next read.
        drop(self.stream.write_all(bytes));
    }

    /// Reads the server's name; false when the connection has ended before.
    fn read_name(&mut self) -> bool {
        if let Some(name) = self.stream.line() {
            self.seen.server = name;
            return true;
        }
        // How it ended.
        self.read_some(&mut [0]);
        false
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Option<usize> {
        match self.stream.read(buffer) {
            Ok(0) => self.seen.end = Some(End::Eof),
            Ok(length) => return Some(length),
            Err(error) => self.seen.end = Some(end_of(&error)),
        }
        None
    }

    /// Reads these bytes; false when the connection has ended before.
    fn read(&mut self, expected: &[u8]) -> bool {
        let mut got = vec![0; expected.len()];
        let mut have = 0;
        while have < got.len() {
            let Some(length) = self.read_some(&mut got[have..]) else {
                break;
            };
            have += length;
        }
        self.seen.received += have;
        self.seen.intact &= got[..have] == expected[..have];
        have == expected.len()
    }

    /// Reads to the end, where these bytes are expected; true when it is a FIN.
    fn read_to_end(&mut self, expected: &[u8]) -> bool {
        if self.read(expected) {
            let mut more = [0; 1024];
            while let Some(length) = self.read_some(&mut more) {
                self.seen.received += length;
                self.seen.intact = false;
            }
        }
        self.seen.end == Some(End::Eof)
    }

    /// Reads these bytes a few at a time.
    fn sip(&mut self, expected: &[u8]) {
        for part in expected.chunks(SIP) {
            if !self.read(part) {
                return;
            }
            std::thread::yield_now();
        }
    }

    /// Sends these bytes and reads them back at the same time, and ends.
    fn exchange(&mut self, bytes: &[u8]) {
        let mut sending = match &self.stream {
            Stream::Tcp(stream) => Stream::Tcp(stream.try_clone().expect("a descriptor")),
            Stream::Unix(stream) => Stream::Unix(stream.try_clone().expect("a descriptor")),
        };
        std::thread::scope(|scope| {
            scope.spawn(move || {
                drop(sending.write_all(bytes));
                sending.shutdown(Shutdown::Write);
            });
            self.read_to_end(bytes);
        });
    }
}
