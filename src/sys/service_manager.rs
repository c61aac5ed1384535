//! Messages to the service manager (`sd_notify(3)`): the state of the process, and sockets for the manager's
//! store, which it keeps while the process is down and passes to the next one (`FDSTORE=1`).
//!
//! Usable from any thread. A thread of its own sends the messages in order, so that a manager that does not
//! read blocks no other thread. Without a service manager every call does nothing and succeeds. A manager
//! without a store (`FileDescriptorStoreMax=0`) closes the sockets.

use super::channel;
use super::socket::{Address, unix_address};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use sd_notify::NotifyState;
use socket2::{Domain, Socket, Type};
use std::fmt::Write;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Longest name that systemd accepts, in bytes.
const NAME_MAX: usize = 255;

/// Messages that may wait while the manager does not read. Further ones are dropped with a warning.
pub const MESSAGES_MAX: usize = 8192;

/// The service manager that started this process; cheap to clone.
#[derive(Debug, Clone)]
pub struct ServiceManager(Option<Arc<Connection>>);

#[derive(Debug)]
struct Connection {
    /// The manager's socket: a path, or an abstract name after `@`.
    path: PathBuf,
    messages: SyncSender<Message>,
}

#[derive(Debug)]
enum Message {
    Send {
        text: String,
        fds: Vec<OwnedFd>,
    },
    /// Answer when all messages before were sent.
    Flush(SyncSender<()>),
}

impl ServiceManager {
    /// The manager that started this process (`NOTIFY_SOCKET`).
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn of_this_process() -> io::Result<Self> {
        match std::env::var_os("NOTIFY_SOCKET") {
            Some(path) => Self::at(PathBuf::from(path)),
            None => Ok(Self::none()),
        }
    }

    /// No manager.
    pub fn none() -> Self {
        Self(None)
    }

    /// A manager with its socket at `path`, or at an abstract name after `@`.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn at(path: PathBuf) -> io::Result<Self> {
        let (messages, receiver) = sync_channel(MESSAGES_MAX);
        let to = path.clone();
        std::thread::Builder::new()
            .name("manager".into())
            .spawn(move || send_all(&to, &receiver))?;
        Ok(Self(Some(Arc::new(Connection { path, messages }))))
    }

    /// Whether there is a manager.
    pub fn exists(&self) -> bool {
        self.0.is_some()
    }

    /// Tells the manager about the state of the process.
    pub fn notify(&self, states: &[NotifyState<'_>]) {
        self.queue(text_of(states), Vec::new());
    }

    /// Tells the manager about the state of the process, unless its socket is full: for states that would be
    /// wrong later (`WATCHDOG=1`).
    ///
    /// # Errors
    /// When the manager cannot be reached; `WouldBlock` when its socket is full.
    pub fn notify_now(&self, states: &[NotifyState<'_>]) -> io::Result<()> {
        let Some(connection) = &self.0 else {
            return Ok(());
        };
        let socket = connect(&connection.path)?;
        socket.set_nonblocking(true)?;
        channel::send(&socket, &text_of(states), &[])
    }

    /// Stores descriptors under a [`name`]. The manager ignores one that it has already. It keeps one that does not
    /// listen for a while (`FDPOLL=0`): its frontend is disabled.
    pub fn keep(&self, name: &str, fds: Vec<OwnedFd>) {
        let text = format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0");
        let mut left = fds.into_iter();
        loop {
            let fds: Vec<OwnedFd> = left.by_ref().take(channel::FDS_MAX).collect();
            if fds.is_empty() {
                return;
            }
            self.queue(text.clone(), fds);
        }
    }

    /// Removes all descriptors with this name from the store.
    pub fn forget(&self, name: &str) {
        self.queue(format!("FDSTOREREMOVE=1\nFDNAME={name}"), Vec::new());
    }

    /// Waits until the manager has handled the messages before (`BARRIER=1`), at most `limit`. Blocks the
    /// thread.
    ///
    /// # Errors
    /// `TimedOut` when the manager takes longer.
    pub fn barrier(&self, limit: Duration) -> io::Result<()> {
        if !self.exists() {
            return Ok(());
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        // The manager has the last copy of the writing end. When it closes that, the pipe ends.
        self.queue("BARRIER=1".to_owned(), vec![write]);
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

    /// Waits until all messages were sent, at most `limit`. Blocks the thread. `false`: some were not.
    pub fn flush(&self, limit: Duration) -> bool {
        let Some(connection) = &self.0 else {
            return true;
        };
        let (sent, answer) = sync_channel(1);
        let queued = connection.messages.try_send(Message::Flush(sent));
        queued.is_ok() && answer.recv_timeout(limit).is_ok()
    }

    fn queue(&self, text: String, fds: Vec<OwnedFd>) {
        let Some(connection) = &self.0 else {
            return;
        };
        let message = Message::Send { text, fds };
        if let Err(TrySendError::Full(_)) = connection.messages.try_send(message) {
            tracing::warn!("message to the service manager dropped: it does not read");
        }
    }
}

fn text_of(states: &[NotifyState<'_>]) -> String {
    states.iter().fold(String::new(), |mut text, state| {
        let _ = writeln!(text, "{state}");
        text
    })
}

/// Sends queued messages in order, however long the manager takes.
fn send_all(path: &Path, messages: &Receiver<Message>) {
    let mut failing = false;
    while let Ok(message) = messages.recv() {
        match message {
            Message::Send { text, fds } => {
                let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                let sent = connect(path).and_then(|socket| channel::send(&socket, &text, &fds));
                if let Err(error) = &sent
                    && !failing
                {
                    tracing::warn!(%error, "cannot notify the service manager");
                }
                failing = sent.is_err();
            }
            // The one who asked may have gone.
            Message::Flush(sent) => drop(sent.try_send(())),
        }
    }
}

fn connect(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    socket.connect(&unix_address(path)?)?;
    Ok(socket)
}

/// The name under which the sockets of an address are stored.
pub fn name(address: &Address) -> String {
    valid(&match address {
        Address::Tcp(address) => format!("tcp-{address}"),
        Address::Unix(path) => format!("unix-{}", path.display()),
        Address::Descriptor(number) => format!("fd-{number}"),
    })
}

/// Whether rlb has opened the socket of this name, and stored it. Units end in `.socket`, and what others have opened
/// and passed under a number is theirs.
pub fn is_stored(name: &str) -> bool {
    let ours = name.starts_with("tcp-") || name.starts_with("unix-");
    ours && !name.ends_with(".socket")
}

/// The descriptor whose socket is stored under this name.
pub fn descriptor_of(name: &str) -> Option<i32> {
    name.strip_prefix("fd-")?.parse().ok()
}

/// Whether the next process would listen on the same address, which is not so for a port that the kernel has
/// chosen.
pub fn lasts(address: &Address) -> bool {
    match address {
        Address::Tcp(address) => address.port() != 0,
        Address::Unix(_) | Address::Descriptor(_) => true,
    }
}

/// `text` as a name that systemd accepts: printable ASCII without a colon, not too long.
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

    const LIMIT: Duration = Duration::from_secs(10);

    fn manager() -> (ServiceManager, UnixDatagram, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        (ServiceManager::at(path).unwrap(), socket, dir)
    }

    fn next(socket: &UnixDatagram) -> String {
        let mut text = [0; 200];
        let length = socket.recv(&mut text).unwrap();
        String::from_utf8(text[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_stored_socket_is_told_from_one_of_a_unit() {
        let address = Address::Tcp(([127, 0, 0, 1], 80).into());
        assert!(is_stored(&name(&address)));
        assert!(is_stored(&name(&Address::Unix("/run/s".into()))));
        for other in ["rlb.socket", "tcp-80.socket", "unknown", "connection", ""] {
            assert!(!is_stored(other), "{other}");
        }
        assert!(!is_stored(&name(&Address::Descriptor(3))));
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        let manager = ServiceManager::none();
        manager.keep("a", Vec::new());
        manager.forget("a");
        manager.notify_now(&[NotifyState::Watchdog]).unwrap();
        manager.barrier(Duration::ZERO).unwrap();
        assert!(manager.flush(Duration::ZERO));
    }

    #[test]
    fn a_manager_that_never_answers_is_not_waited_for() {
        let (manager, socket, _dir) = manager();
        let error = manager.barrier(Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        manager.forget("tcp-127.0.0.1_80");
        assert!(manager.flush(LIMIT));
        assert_eq!(next(&socket), "BARRIER=1");
        assert_eq!(next(&socket), "FDSTOREREMOVE=1\nFDNAME=tcp-127.0.0.1_80");
    }

    /// Fault 13: a manager that did not read blocked the threads that notified it.
    #[test]
    fn a_manager_that_does_not_read_blocks_nobody_and_receives_all_in_order() {
        let (manager, socket, _dir) = manager();
        // More than a datagram socket queues (`net.unix.max_dgram_qlen`, 10 to 512).
        let names: Vec<String> = (0..2000).map(|index| format!("n{index}")).collect();
        let (done, told) = std::sync::mpsc::sync_channel(1);
        let (teller, forgotten) = (manager.clone(), names.clone());
        std::thread::spawn(move || {
            for name in &forgotten {
                teller.forget(name);
            }
            let watchdog = teller.notify_now(&[NotifyState::Watchdog]);
            // There was room at that moment, or the error says that there was none.
            let _ = done.send(
                watchdog
                    .err()
                    .is_none_or(|it| it.kind() == io::ErrorKind::WouldBlock),
            );
        });
        assert_eq!(told.recv_timeout(LIMIT), Ok(true), "nobody waits");
        assert!(!manager.flush(Duration::from_millis(20)), "much is left");
        let mut heard = Vec::new();
        while heard.len() < names.len() {
            let text = next(&socket);
            if let Some(name) = text.strip_prefix("FDSTOREREMOVE=1\nFDNAME=") {
                heard.push(name.to_owned());
            }
        }
        assert_eq!(heard, names);
        assert!(manager.flush(LIMIT));
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
