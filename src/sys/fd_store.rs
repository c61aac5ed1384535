//! The descriptor store of the service manager: sockets that it holds while the process is down,
//! and passes to the next one (`FDSTORE=1` of `sd_notify(3)`).
//!
//! Usable from any thread. Without a service manager every call does nothing and succeeds; one
//! that keeps no store (`FileDescriptorStoreMax=0`) closes what it gets.

use super::channel;
use super::socket::{Address, unix_address};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use socket2::{Domain, Socket, Type};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

/// Longest name that systemd takes, in bytes.
const NAME_MAX: usize = 255;

/// Where the service manager listens; `None`: there is none, or it wants no messages.
#[derive(Debug, Clone)]
pub struct FdStore(Option<PathBuf>);

impl FdStore {
    /// The store of the manager that started this process.
    pub fn of_this_process() -> Self {
        Self(std::env::var_os("NOTIFY_SOCKET").map(PathBuf::from))
    }

    /// The store of a manager that listens at `path`, a file or an abstract name after `@`.
    pub fn at(path: PathBuf) -> Self {
        Self(Some(path))
    }

    /// Whether there is anybody to store anything.
    pub fn exists(&self) -> bool {
        self.0.is_some()
    }

    /// Stores descriptors under a [`name`]. One that is stored already is not stored twice.
    ///
    /// # Errors
    /// When the manager cannot be reached.
    pub fn keep(&self, name: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = format!("FDSTORE=1\nFDNAME={name}");
        fds.chunks(channel::FDS_MAX)
            .try_for_each(|fds| self.send(&text, fds))
    }

    /// Takes everything of a name out of the store.
    ///
    /// # Errors
    /// When the manager cannot be reached.
    pub fn forget(&self, name: &str) -> io::Result<()> {
        self.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[])
    }

    /// Waits until the manager has done what it was told (`BARRIER=1`), at most `limit`.
    ///
    /// # Errors
    /// When it cannot be reached, or does not get to it in time.
    pub fn barrier(&self, limit: Duration) -> io::Result<()> {
        if !self.exists() {
            return Ok(());
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        self.send("BARRIER=1", &[write.as_fd()])?;
        // The manager's copy is the last one: its end is the answer.
        drop(write);
        let limit = Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(limit.subsec_nanos()),
        };
        let mut fds = [PollFd::new(&read, PollFlags::IN)];
        match poll(&mut fds, Some(&limit))? {
            0 => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }

    fn send(&self, text: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let Some(path) = &self.0 else {
            return Ok(());
        };
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
        socket.connect(&unix_address(path)?)?;
        channel::send(&socket, text, fds)
    }
}

/// The name under which the sockets of an address are stored.
pub fn name(address: &Address) -> String {
    valid(&match address {
        Address::Tcp(address) => format!("tcp-{address}"),
        Address::Unix(path) => format!("unix-{}", path.display()),
    })
}

/// Whether the next process would listen on the same address: not with a port of the kernel's choice.
pub fn lasts(address: &Address) -> bool {
    match address {
        Address::Tcp(address) => address.port() != 0,
        Address::Unix(_) => true,
    }
}

/// `text` as a name that systemd takes: printable ASCII without a colon, not too long.
fn valid(text: &str) -> String {
    let allowed = |it: char| it.is_ascii_graphic() && it != ':';
    text.chars()
        .map(|it| if allowed(it) { it } else { '_' })
        .take(NAME_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn without_a_manager_nothing_happens() {
        let store = FdStore(None);
        store.keep("a", &[]).unwrap();
        store.forget("a").unwrap();
        store.barrier(Duration::ZERO).unwrap();
    }

    #[test]
    fn a_manager_that_never_answers_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let store = FdStore::at(path);
        let error = store.barrier(Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        store.forget("tcp-127.0.0.1_80").unwrap();
        let mut text = [0; 100];
        let length = manager.recv(&mut text).unwrap();
        assert_eq!(&text[..length], b"BARRIER=1");
        let length = manager.recv(&mut text).unwrap();
        assert_eq!(&text[..length], b"FDSTOREREMOVE=1\nFDNAME=tcp-127.0.0.1_80");
    }

    #[test]
    fn names_are_those_that_systemd_takes() {
        let tcp = |text: &str| name(&Address::Tcp(text.parse().unwrap()));
        let unix = |text: &str| name(&Address::Unix(text.into()));
        assert_eq!(tcp("10.0.0.1:5432"), "tcp-10.0.0.1_5432");
        assert_eq!(tcp("[::1]:80"), "tcp-[__1]_80");
        assert_eq!(unix("/run/ä b"), "unix-/run/__b");
        assert_eq!(unix(&"x".repeat(300)).len(), NAME_MAX);
    }
}
