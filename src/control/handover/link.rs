//! The channel between the old and the new process after `go`. Nothing here waits for the other process: a
//! message is sent at once or not at all.
//!
//! Control thread; only [`Link::send`] of a [`Channel`] may be called by others. The form of the messages: a word
//! in the first line, then `NAME=VALUE` lines in any order, or the text of `counters`. A reader ignores words and names that it does not
//! know.

use crate::sys::channel::{Channel, Message};
use crate::sys::raw::{self, Owned};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One end, which is watched for messages.
#[derive(Debug)]
pub(super) struct Link {
    channel: Arc<Channel>,
    watched: AsyncFd<Owned<Arc<Channel>>>,
}

impl Link {
    /// Watches `channel`.
    ///
    /// # Errors
    /// Those of epoll.
    pub(super) fn new(channel: Arc<Channel>) -> io::Result<Self> {
        let watched = raw::watch(Owned::new(Arc::clone(&channel)), Interest::READABLE)?;
        Ok(Self { channel, watched })
    }

    /// Sends one message.
    ///
    /// # Errors
    /// `WouldBlock` when the other process has not read what was sent before; `EPIPE` when it is gone.
    pub(super) fn send(&self, text: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.channel.try_send(text, fds)
    }

    /// The next message; `None` when the other end is closed. A message that did not arrive whole is logged and
    /// left out. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// Those of `recvmsg`.
    pub(super) async fn receive(&self) -> io::Result<Option<Message>> {
        loop {
            match self.receive_any().await {
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::warn!(%error, "message of another process of rlb not read");
                }
                received => return received,
            }
        }
    }

    /// The next message; `None` when the other end is closed. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// Those of `recvmsg`; `InvalidData` for a message that did not arrive whole.
    pub(super) async fn receive_any(&self) -> io::Result<Option<Message>> {
        loop {
            let mut ready = self.watched.readable().await?;
            // An error: nothing was there.
            if let Ok(received) = ready.try_io(|_| self.channel.try_receive()) {
                return received;
            }
        }
    }

    /// Lets the other process send nothing more. What it had sent before; `None`: nothing.
    pub(super) fn last_received(&self) -> Option<Message> {
        self.channel.stop_receiving();
        self.channel.try_receive().ok().flatten()
    }
}

/// The first line of a message.
pub(super) fn word(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// The value of `name`, if the message has it in a form that can be read.
pub(super) fn value<T: std::str::FromStr>(text: &str, name: &str) -> Option<T> {
    let mut lines = text.lines().skip(1);
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    value.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_word_and_values_in_any_order() {
        let text = "process\nlater=x\npid=7\nversion=1.2\npidx=8";
        assert_eq!(word(text), "process");
        assert_eq!(value::<u32>(text, "pid"), Some(7));
        assert_eq!(value::<String>(text, "version").as_deref(), Some("1.2"));
        assert_eq!(value::<u32>(text, "later"), None, "not a number");
        assert_eq!(value::<u32>("pid=1", "pid"), None, "that is the word");
        assert_eq!(word(""), "");
    }

    #[tokio::test]
    async fn messages_come_through_and_a_full_channel_does_not_block() {
        let (ours, theirs) = Channel::pair().unwrap();
        let ours = Link::new(Arc::new(ours)).unwrap();
        let theirs = Link::new(Arc::new(Channel::from_fd(theirs).unwrap())).unwrap();
        let mut sent = 0;
        let error = loop {
            match ours.send(&format!("message\nnumber={sent}"), &[]) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(ours);
        for number in 0..sent {
            let message = theirs.receive().await.unwrap().unwrap();
            assert_eq!(value(&message.text, "number"), Some(number));
        }
        assert!(theirs.receive().await.unwrap().is_none());
    }
}
