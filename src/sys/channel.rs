//! A channel between two processes of rlb on one machine: each message has a text and descriptors, over a pair
//! of unix sockets that preserve message boundaries (`SOCK_SEQPACKET`).
//!
//! Blocking, with a timeout, or without waiting. Usable from any thread. Invariant: received descriptors are closed on exec.

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use socket2::{Domain, Socket, Type};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Most descriptors in one message; the kernel allows 253 (`SCM_MAX_FD`).
pub const FDS_MAX: usize = 64;
/// Longest text of a message that is received, in bytes.
pub const TEXT_MAX: usize = 64 * 1024;

/// One end.
#[derive(Debug)]
pub struct Channel(Socket);

/// A received message.
#[derive(Debug)]
pub struct Message {
    /// Never empty.
    pub text: String,
    /// In the order in which they were sent.
    pub fds: Vec<OwnedFd>,
}

impl Channel {
    /// The two ends; the second is for another process.
    ///
    /// # Errors
    /// Those of `socketpair`.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None)?;
        Ok((Self(ours), theirs.into()))
    }

    /// The end that is this process's standard input.
    ///
    /// # Errors
    /// `InvalidInput` when that is something else.
    pub fn from_stdin() -> io::Result<Self> {
        Self::from_fd(io::stdin().as_fd().try_clone_to_owned()?)
    }

    /// The end that was made by [`Channel::pair`] for another process.
    ///
    /// # Errors
    /// `InvalidInput` when it is something else.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(fd);
        match socket.r#type() {
            Ok(kind) if kind == Type::SEQPACKET => Ok(Self(socket)),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Sets how long sending or receiving each further message may take.
    ///
    /// # Errors
    /// Those of `setsockopt`; none is expected.
    pub fn set_timeout(&self, limit: Duration) -> io::Result<()> {
        self.0.set_read_timeout(Some(limit))?;
        self.0.set_write_timeout(Some(limit))
    }

    /// Ends the conversation for both processes, and for a thread that waits for a message.
    pub fn close(&self) {
        // Fails only when the other end has closed it.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }

    /// Receives nothing more: from now on the other end cannot send. What it has sent before can still be received.
    pub fn stop_receiving(&self) {
        // Fails only when the other end has closed it.
        let _ = self.0.shutdown(std::net::Shutdown::Read);
    }

    /// Sends one message.
    ///
    /// # Errors
    /// `EPIPE` when the other end is closed; `WouldBlock` when it does not read in time.
    pub fn send(&self, text: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        send(&self.0, text, fds)
    }

    /// Sends one message without waiting.
    ///
    /// # Errors
    /// `EPIPE` when the other end is closed; `WouldBlock` when there is no room for it now.
    pub fn try_send(&self, text: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        send_with(&self.0, text, fds, SendFlags::DONTWAIT)
    }

    /// The next message; `None` when the other end is closed.
    ///
    /// # Errors
    /// `TimedOut` when no message comes in time. `InvalidData` for a message that is not UTF-8 or did not
    /// arrive whole: its text is longer than [`TEXT_MAX`], or this process may not open all its descriptors.
    pub fn receive(&self) -> io::Result<Option<Message>> {
        self.receive_with(RecvFlags::empty())
            .map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
                _ => error,
            })
    }

    /// The next message without waiting; `None` when the other end is closed.
    ///
    /// # Errors
    /// `WouldBlock` when there is none now; otherwise as [`Channel::receive`].
    pub fn try_receive(&self) -> io::Result<Option<Message>> {
        self.receive_with(RecvFlags::DONTWAIT)
    }

    fn receive_with(&self, flags: RecvFlags) -> io::Result<Option<Message>> {
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        let mut text = vec![0; TEXT_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buffers = [IoSliceMut::new(&mut text)];
        // A debugger, or a stop and its continuation, interrupts a receive that has a time limit.
        let mut receive =
            || rustix::io::retry_on_intr(|| recvmsg(&self.0, &mut buffers, &mut control, flags));
        let received = match receive() {
            // The other end was closed with unread data. The kernel reports that once, before the messages that
            // it had sent.
            Err(Errno::CONNRESET) => receive(),
            result => result,
        };
        let received = received?;
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                fds.extend(more);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            let text = "descriptors of a message were lost: the descriptor limit is too low";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a message is too long",
            ));
        }
        text.truncate(received.bytes);
        if text.is_empty() {
            return Ok(None);
        }
        let text = String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(Some(Message { text, fds }))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends one message of a text and at most [`FDS_MAX`] descriptors through a unix socket.
///
/// # Errors
/// Those of `sendmsg`.
pub(super) fn send(socket: &Socket, text: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    send_with(socket, text, fds, SendFlags::empty())
}

fn send_with(
    socket: &Socket,
    text: &str,
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if fds.len() > FDS_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    let text = [IoSlice::new(text.as_bytes())];
    sendmsg(socket, &text, &mut control, flags | SendFlags::NOSIGNAL)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn messages_keep_their_boundaries_and_descriptors_refer_to_the_same_socket() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel(theirs.into());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        ours.send("one", &[]).unwrap();
        ours.send("two", &[listener.as_fd(), listener.as_fd()])
            .unwrap();
        drop(ours);
        let one = theirs.receive().unwrap().unwrap();
        assert_eq!((&*one.text, one.fds.len()), ("one", 0));
        let two = theirs.receive().unwrap().unwrap();
        assert_eq!((&*two.text, two.fds.len()), ("two", 2));
        for fd in two.fds {
            let flags = rustix::io::fcntl_getfd(&fd).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            let address = Socket::from(fd).local_addr().unwrap().as_socket();
            assert_eq!(address, listener.local_addr().ok());
        }
        assert!(theirs.receive().unwrap().is_none(), "closed");
    }

    #[test]
    fn the_last_message_of_an_end_that_did_not_read_is_received() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel(theirs.into());
        ours.send("unread", &[]).unwrap();
        theirs.send("last", &[]).unwrap();
        drop(theirs);
        assert!(ours.send("too late", &[]).is_err());
        assert_eq!(ours.receive().unwrap().unwrap().text, "last");
        assert!(ours.receive().unwrap().is_none());
    }

    #[test]
    fn receiving_has_a_timeout() {
        let (ours, _theirs) = Channel::pair().unwrap();
        ours.set_timeout(Duration::from_millis(20)).unwrap();
        let error = ours.receive().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    /// Fault 23: a message that had lost descriptors or the end of its text was accepted as whole.
    #[test]
    fn a_message_that_did_not_arrive_whole_is_an_error() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel(theirs.into());
        ours.send(&"x".repeat(TEXT_MAX + 1), &[]).unwrap();
        let error = theirs.receive().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        // More descriptors than a receiver has room for, which has the same effect as its limit.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX * 2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = vec![theirs.0.as_fd(); FDS_MAX * 2];
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let text = [IoSlice::new(b"two")];
        sendmsg(&ours.0, &text, &mut control, SendFlags::NOSIGNAL).unwrap();
        let error = theirs.receive().unwrap_err();
        assert!(error.to_string().contains("descriptors"), "{error}");
    }

    #[test]
    fn more_descriptors_than_a_message_holds_are_refused() {
        let (ours, theirs) = Channel::pair().unwrap();
        let many = vec![theirs.as_fd(); FDS_MAX + 1];
        let error = ours.send("x", &many).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        ours.send("x", &many[1..]).unwrap();
    }
}
