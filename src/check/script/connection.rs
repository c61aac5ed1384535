//! The connection of a check: of TCP or of a unix socket, in the clear or over TLS.

use crate::check::probe::Target;
use crate::config::script::BUFFER_MAX;
use rustls::ClientConnection;
use socket2::{SockRef, Socket};
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// Most bytes that are read at once.
pub(super) const READ_MAX: usize = 4096;

/// A connection of either kind.
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes).await,
            Self::Unix(stream) => stream.write_all(bytes).await,
        }
    }

    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer).await,
            Self::Unix(stream) => stream.read(buffer).await,
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }
}

/// The connection of a check.
pub(super) struct Connection {
    stream: Stream,
    /// It is large, and few checks have it.
    tls: Option<Box<ClientConnection>>,
}

impl Connection {
    pub(super) fn new(socket: Socket, target: &Target) -> io::Result<Self> {
        let stream = match target {
            Target::Unix(_) => Stream::Unix(UnixStream::from_std(socket.into())?),
            Target::Tcp(_) | Target::NoPort(_) => Stream::Tcp(TcpStream::from_std(socket.into())?),
        };
        Ok(Self { stream, tls: None })
    }

    /// Speaks TLS from now on, up to the end of the handshake. What is wrong with what the server says is an error of
    /// the library's, within that of the system.
    pub(super) async fn secure(&mut self, tls: Box<ClientConnection>) -> io::Result<()> {
        let tls = self.tls.insert(tls);
        loop {
            flush(tls, &mut self.stream).await?;
            if !tls.is_handshaking() {
                return Ok(());
            }
            if !fill(tls, &mut self.stream).await? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            return self.stream.write(bytes).await;
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            // It takes as much as there is room for.
            let taken = tls.writer().write(rest)?;
            rest = &rest[taken..];
            flush(tls, &mut self.stream).await?;
        }
        Ok(())
    }

    /// 0: nothing more comes.
    pub(super) async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.stream.read(buffer).await;
        };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // As in HAProxy, also where the server has not said in TLS that it ends.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                other => return other,
            }
            // At the end the reader says so.
            fill(tls, &mut self.stream).await?;
            flush(tls, &mut self.stream).await?;
        }
    }

    /// Ends it: with RST, or with FIN. What the server has sent meanwhile is taken, because the kernel would answer it
    /// with RST.
    pub(super) fn end(self, by_reset: bool) {
        let mut buffer = [0; READ_MAX];
        if let (Some(mut tls), false) = (self.tls, by_reset) {
            tls.send_close_notify();
            farewell(&mut tls, &self.stream);
        }
        match self.stream {
            Stream::Tcp(stream) if by_reset => {
                // Without it the end is FIN, which is no harm.
                let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            }
            Stream::Tcp(stream) => {
                for _ in 0..BUFFER_MAX / READ_MAX {
                    if !matches!(stream.try_read(&mut buffer), Ok(1..)) {
                        break;
                    }
                }
            }
            Stream::Unix(_) => {}
        }
    }
}

/// Sends what the library has to send.
async fn flush(tls: &mut ClientConnection, stream: &mut Stream) -> io::Result<()> {
    let mut bytes = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut bytes)?;
    }
    stream.write(&bytes).await
}

/// Gives the library what has come; `false`: nothing more comes.
async fn fill(tls: &mut ClientConnection, stream: &mut Stream) -> io::Result<bool> {
    // Not in the state of the check, which those without TLS have too.
    let mut buffer = vec![0; READ_MAX];
    let length = stream.read(&mut buffer).await?;
    let mut rest = &buffer[..length];
    // Once without a byte, which is the end.
    loop {
        tls.read_tls(&mut rest)?;
        if let Err(error) = tls.process_new_packets() {
            farewell(tls, stream);
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        if rest.is_empty() {
            return Ok(length > 0);
        }
    }
}

/// Sends the last words, which say why it ends. Nobody waits until they can be sent.
fn farewell(tls: &mut ClientConnection, stream: &Stream) {
    let mut bytes = Vec::new();
    while tls.wants_write() {
        if tls.write_tls(&mut bytes).is_err() {
            return;
        }
    }
    let _ = stream.try_write(&bytes);
}
