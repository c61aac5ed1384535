//! Clients: connect, talk, and report how a connection ended.

use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// A test fails when it gets no answer within this time.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// How a stream ended, as the reader saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// FIN.
    Eof,
    /// RST.
    Reset,
    /// Nothing came within [`TIMEOUT`].
    Silence,
}

/// Connects with the usual read timeout.
#[track_caller]
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)
        .unwrap_or_else(|error| panic!("connect to {address}: {error}"));
    stream
        .set_read_timeout(Some(TIMEOUT))
        .expect("a read timeout can be set");
    stream
        .set_write_timeout(Some(TIMEOUT))
        .expect("a write timeout can be set");
    stream.set_nodelay(true).expect("TCP_NODELAY can be set");
    stream
}

/// Connects from this address of the loopback.
#[track_caller]
pub(crate) fn connect_from(client: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any_port = SocketAddr::from((client, 0));
    socket.bind(&any_port.into()).expect("bound");
    socket.connect(&to.into()).expect("connected");
    let stream = TcpStream::from(socket);
    let timeout = stream.set_read_timeout(Some(TIMEOUT));
    timeout.expect("a read timeout can be set");
    stream
}

/// Connects with a receive buffer of about `bytes`, so that the window of a reader that pauses closes soon.
pub(crate) fn connect_with_receive_buffer(address: SocketAddr, bytes: usize) -> TcpStream {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )
    .expect("a socket");
    socket
        .set_recv_buffer_size(bytes)
        .expect("SO_RCVBUF can be set");
    socket.connect(&address.into()).expect("connected");
    let stream = TcpStream::from(socket);
    stream
        .set_read_timeout(Some(TIMEOUT))
        .expect("a read timeout can be set");
    stream
}

/// Reads what is there. A machine that was stopped and goes on interrupts reads that have a timeout.
pub(crate) fn read_some(stream: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Reads until the stream ends, and returns how.
pub(crate) fn read_to_end(stream: &mut impl Read) -> (Vec<u8>, End) {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match read_some(stream, &mut buffer) {
            Ok(0) => return (bytes, End::Eof),
            Ok(length) => bytes.extend_from_slice(&buffer[..length]),
            Err(error) => return (bytes, end_of(&error)),
        }
    }
}

/// The end of a stream by its read error.
pub(crate) fn end_of(error: &std::io::Error) -> End {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => End::Silence,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
            End::Reset
        }
        other => panic!("{other:?}: {error}"),
    }
}

/// How a client ends that sends nothing. A reset may come before its `connect` returns.
pub(crate) fn end_at(address: SocketAddr) -> End {
    match TcpStream::connect(address) {
        Ok(mut stream) => {
            stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
            read_to_end(&mut stream).1
        }
        Err(error) => end_of(&error),
    }
}

/// Connects, sends nothing, and reads until the end.
#[track_caller]
pub(crate) fn hear(address: SocketAddr) -> (String, End) {
    let mut stream = connect(address);
    let (bytes, end) = read_to_end(&mut stream);
    (String::from_utf8(bytes).expect("text"), end)
}

/// Sends `message` and expects the same bytes back.
#[track_caller]
pub(crate) fn echo(stream: &mut TcpStream, message: &[u8]) {
    stream.write_all(message).expect("sent");
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer).expect("answered");
    assert!(answer == message, "the echo differs");
}

/// Ends the connection by a reset: SO_LINGER 0, then close.
pub(crate) fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("SO_LINGER can be set");
    drop(stream);
}

/// Sends FIN.
pub(crate) fn half_close(stream: &TcpStream) {
    stream
        .shutdown(Shutdown::Write)
        .expect("the writing half ends");
}

/// GET `path` over HTTP/1.0; the status code and the body.
pub(crate) fn http_get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: rlb\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or_else(|| std::io::Error::new(ErrorKind::UnexpectedEof, "no end of the header"))?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| std::io::Error::other(format!("no status: {head}")))?;
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    Ok((
        status,
        if chunked {
            unchunk(body)
        } else {
            body.to_owned()
        },
    ))
}

/// Decodes the chunked transfer coding (RFC 9112, 7.1).
fn unchunk(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).expect("a chunk size");
        if size == 0 {
            break;
        }
        text.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    text
}

/// Runs `action` and returns how long it took.
pub(crate) fn timed<T>(action: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = action();
    (value, start.elapsed())
}
