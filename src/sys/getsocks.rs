//! HAProxy's protocol by which a process gives its listening sockets to another one (`_getsocks`, `haproxy -x`): the
//! end that takes them.
//!
//! | message | from | has |
//! |---|---|---|
//! | `_getsocks\n` | the one that takes | |
//! | a number of 32 bits, in the order of this machine's bytes | the one that gives | how many sockets follow |
//! | at most [`FDS_MAX`] descriptors | the one that gives | for each the length and the name of its network namespace, the length and the name of its interface, and 32 bits of zeros |
//! | 32 bits | the one that takes | it has received them; not always read |
//!
//! The stream is a unix socket, or (`sockpair@N`) the end of a new pair whose other end was sent through the descriptor
//! N: a HAProxy master has that one to its worker. Blocking, for at most [`STEP_MAX`] a step; works on sockets of either
//! mode. Main thread, or a thread of its own.

use super::channel;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read, write};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

/// Most descriptors in one message, HAProxy's.
const FDS_MAX: usize = 252;
/// Most sockets that are taken. An answer that is text (an error) would be a greater number.
const SOCKETS_MAX: i32 = 1 << 20;
/// How long each step may take, HAProxy's.
const STEP_MAX: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};
/// The command.
const COMMAND: &[u8] = b"_getsocks\n";
/// What is sent with the end of a pair; HAProxy reads two bytes.
const NEW_CONNECTION: &str = "\0\0";
/// Longest description of a socket: the longest names that a byte tells the length of.
const DESCRIPTION_MAX: usize = 1 + 255 + 1 + 255 + 4;

/// The listening sockets for streams of the process that listens at a unix socket.
///
/// # Errors
/// When nobody listens there, or what listens does not give its sockets (`expose-fd listeners`).
pub fn take(address: &SockAddr) -> io::Result<Vec<Socket>> {
    let stream = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    stream.connect(address)?;
    take_from(&stream)
}

/// The same of the HAProxy whose master has `pair`.
///
/// # Errors
/// The same.
pub fn take_by_pair(pair: BorrowedFd<'_>) -> io::Result<Vec<Socket>> {
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::STREAM, None)?;
    let master = Socket::from(pair.try_clone_to_owned()?);
    channel::send(&master, NEW_CONNECTION, &[theirs.as_fd()])?;
    drop(theirs);
    take_from(&ours)
}

fn take_from(stream: &Socket) -> io::Result<Vec<Socket>> {
    let stream = stream.as_fd();
    write(stream, COMMAND)?;
    let count = number(stream)?;
    let count = usize::try_from(count)
        .ok()
        .filter(|_| count <= SOCKETS_MAX)
        .ok_or(io::ErrorKind::InvalidData)?;
    let mut sockets = Vec::new();
    // A message may come in parts, of which only the first has descriptors.
    for _ in 0..count {
        if sockets.len() >= count {
            break;
        }
        let more = receive(stream)?;
        // HAProxy looks only whether something has come. 2.6 has closed the stream when all have been sent.
        let _ = write(stream, &0_i32.to_ne_bytes());
        sockets.extend(more);
    }
    sockets.retain(|socket| {
        socket.is_listener().unwrap_or(false)
            && socket.r#type().is_ok_and(|kind| kind == Type::STREAM)
    });
    Ok(sockets)
}

/// The number of 32 bits that comes next.
fn number(stream: BorrowedFd<'_>) -> io::Result<i32> {
    let (mut bytes, mut length) = ([0; 4], 0);
    while length < bytes.len() {
        wait(stream, PollFlags::IN)?;
        match read(stream, &mut bytes[length..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => length += more,
        }
    }
    Ok(i32::from_ne_bytes(bytes))
}

/// The sockets of the next message. What it says of them the sockets tell themselves.
fn receive(stream: BorrowedFd<'_>) -> io::Result<Vec<Socket>> {
    wait(stream, PollFlags::IN)?;
    let mut text = vec![0; FDS_MAX * DESCRIPTION_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(&mut text)];
    let received = recvmsg(stream, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut sockets = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            sockets.extend(more.map(Socket::from));
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        let text = "sockets were lost: the descriptor limit is too low";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(sockets)
}

/// Waits until the stream can be read or written, or has ended.
fn wait(stream: BorrowedFd<'_>, what: PollFlags) -> io::Result<()> {
    loop {
        match poll(
            &mut [PollFd::from_borrowed_fd(stream, what)],
            Some(&STEP_MAX),
        ) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::io::IoSlice;
    use std::net::{SocketAddr, TcpListener};
    use std::os::unix::net::UnixListener;

    /// The other end: gives these sockets to the client of `stream`, which has sent the command.
    fn give(stream: impl AsFd, sockets: &[Socket]) -> io::Result<()> {
        let stream = stream.as_fd();
        let count = i32::try_from(sockets.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        send(stream, &count.to_ne_bytes(), &[])?;
        for part in sockets.chunks(FDS_MAX) {
            let mut text = Vec::new();
            for socket in part {
                let interface = socket.device().ok().flatten().unwrap_or_default();
                let length =
                    u8::try_from(interface.len()).map_err(|_| io::ErrorKind::InvalidData)?;
                // No name of a network namespace: it is that of both processes.
                text.extend_from_slice(&[0, length]);
                text.extend_from_slice(&interface);
                text.extend_from_slice(&[0; 4]);
            }
            let fds: Vec<_> = part.iter().map(AsFd::as_fd).collect();
            send(stream, &text, &fds)?;
            number(stream)?;
        }
        Ok(())
    }

    /// Sends all bytes, with these descriptors.
    fn send(stream: BorrowedFd<'_>, mut text: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        while !text.is_empty() {
            wait(stream, PollFlags::OUT)?;
            match sendmsg(
                stream,
                &[IoSlice::new(text)],
                &mut control,
                SendFlags::NOSIGNAL,
            ) {
                Ok(sent) => {
                    text = &text[sent..];
                    control.clear();
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn address(socket: &Socket) -> Option<SocketAddr> {
        socket.local_addr().ok()?.as_socket()
    }

    /// More than one message has room for.
    #[test]
    fn all_sockets_arrive_and_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let expected = tcp.local_addr().ok();
        let giving = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut command = [0; COMMAND.len()];
            std::io::Read::read_exact(&mut &stream, &mut command).unwrap();
            assert_eq!(command, *COMMAND);
            stream.set_nonblocking(true).unwrap();
            let tcp = Socket::from(tcp);
            let sockets: Vec<_> = (0..300).map(|_| tcp.try_clone().unwrap()).collect();
            give(&stream, &sockets)
        });
        let taken = take(&SockAddr::unix(&path).unwrap()).unwrap();
        assert_eq!(taken.len(), 300);
        assert!(taken.iter().all(|socket| address(socket) == expected));
        giving.join().unwrap().unwrap();
    }

    #[test]
    fn an_answer_that_is_text_and_none_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let answering = std::thread::spawn(move || {
            for answer in ["Unknown command: '_getsocks'\n\n", "\n", ""] {
                let (stream, _) = listener.accept().unwrap();
                std::io::Write::write_all(&mut &stream, answer.as_bytes()).unwrap();
            }
        });
        let at = SockAddr::unix(&path).unwrap();
        let kinds: Vec<_> = (0..3).map(|_| take(&at).unwrap_err().kind()).collect();
        let end = io::ErrorKind::UnexpectedEof;
        assert!(kinds[0] == io::ErrorKind::InvalidData, "{kinds:?}");
        assert!(kinds[1..].iter().all(|kind| {
            // A client that writes to one that has closed.
            [
                end,
                io::ErrorKind::BrokenPipe,
                io::ErrorKind::ConnectionReset,
            ]
            .contains(kind)
        }));
        answering.join().unwrap();
    }
}
