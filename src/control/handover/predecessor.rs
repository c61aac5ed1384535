//! The new process's side up to `go`: takes over what it is given, and reports when it is ready to serve.

use super::{BEGIN, OldProcesses, READS_UNUSED, SERVE, VARIABLE, path_of};
use crate::live::timing::monotonic;
use crate::state::RuntimeState;
use crate::stats::servers_state;
use crate::sys::channel::{Channel, Message, TEXT_MAX};
use crate::sys::listen_fds::PassedSocket;
use rustix::process::PidfdFlags;
use socket2::Socket;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long each message of the old process may take. Before `go` it waits for the service manager.
const MESSAGE_MAX: Duration = Duration::from_secs(10);
/// Most sockets that are taken over: a thousand addresses of 64 workers each.
const SOCKETS_MAX: usize = 1 << 16;
/// Most positions of unused sockets in one message.
const UNUSED_MAX: usize = TEXT_MAX / 16;
/// Longest reason that is sent, in characters, each of which may take four bytes.
const REASON_MAX: usize = TEXT_MAX / 8;

/// The process that this one takes over from.
#[derive(Debug, Clone)]
pub struct Predecessor(Arc<Channel>);

/// What was handed over.
#[derive(Debug)]
pub(in crate::control) struct Received {
    /// The process id of the one before.
    pub(in crate::control) from: u32,
    /// Its listening sockets.
    pub(in crate::control) sockets: Vec<PassedSocket>,
    /// Whether it wants to know which of them are not used.
    pub(in crate::control) reads_unused: bool,
    /// What was in force there.
    pub(in crate::control) state: RuntimeState,
}

/// What comes with `go`. Empty is what the old process does not send.
#[derive(Debug, Default)]
pub struct Go {
    /// What it has counted.
    pub counters: String,
    /// What is in force there by now.
    pub state: RuntimeState,
}

/// In a process that was started to start the one that will serve: starts it, and returns the result. `None` in
/// every other process.
pub fn start_next() -> Option<io::Result<()>> {
    if std::env::var_os(VARIABLE)? != BEGIN {
        return None;
    }
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_default();
    // Its standard input is this one's: the channel.
    let start = |program| {
        let mut next = Command::new(program);
        next.arg0(&name).args(words).env(VARIABLE, SERVE);
        next.spawn().map(drop)
    };
    Some(path_of(&name).and_then(start))
}

impl Predecessor {
    /// Introduces this process to the one that it is to take over from; `None` when it was not started by an
    /// upgrade.
    ///
    /// # Errors
    /// When the version of the messages is not known, or standard input is no channel.
    pub fn connect() -> io::Result<Option<Self>> {
        let Some(word) = std::env::var_os(VARIABLE) else {
            return Ok(None);
        };
        if word != SERVE {
            let word = word.display();
            let text = format!("{VARIABLE}={word} is not known to this version");
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        let channel = Channel::from_stdin()?;
        let nothing = File::open("/dev/null").map_err(|error| {
            io::Error::new(error.kind(), format!("cannot open /dev/null: {error}"))
        })?;
        rustix::stdio::dup2_stdin(&nothing)?;
        channel.set_timeout(MESSAGE_MAX)?;
        let own = rustix::process::getpid();
        // Without one (before Linux 5.3) the number has to do.
        let pidfd = rustix::process::pidfd_open(own, PidfdFlags::empty()).ok();
        let fds: Vec<_> = pidfd.iter().map(AsFd::as_fd).collect();
        channel.send(&format!("pid {}", std::process::id()), &fds)?;
        Ok(Some(Self(Arc::new(channel))))
    }

    /// Takes what is handed over.
    pub(in crate::control) fn receive(&self) -> io::Result<Received> {
        let first = self.next_message()?.text;
        let number = |word: &str| {
            let found = first.lines().find_map(|line| line.strip_prefix(word));
            found.and_then(|number| number.parse::<u32>().ok())
        };
        let (Some(from), Some(count)) = (number("from "), number("sockets ")) else {
            return Err(unexpected(&first));
        };
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > SOCKETS_MAX {
            return Err(unexpected(&first));
        }
        let mut sockets = Vec::with_capacity(count);
        while sockets.len() < count {
            let Message { text, fds } = self.next_message()?;
            if text.lines().count() != fds.len() {
                return Err(unexpected(&text));
            }
            let named = text.lines().zip(fds).map(|(name, fd)| PassedSocket {
                name: name.to_owned(),
                socket: Socket::from(fd),
            });
            sockets.extend(named);
        }
        let Message { text, mut fds } = self.next_message()?;
        if text != "servers" || fds.is_empty() {
            return Err(unexpected(&text));
        }
        let servers = servers_state::read(&next_file(&mut fds)?, clock());
        let overrides = next_file(&mut fds)?;
        let state = RuntimeState { overrides, servers };
        Ok(Received {
            from,
            sockets,
            reads_unused: first.lines().any(|line| line == READS_UNUSED),
            state,
        })
    }

    /// Reports that this process is ready, and waits until it is in charge. `unused`: positions of the sockets that
    /// nothing here listens on, if the old process reads them.
    ///
    /// # Errors
    /// When the old process gives the upgrade up, or is gone.
    pub fn wait_for_go(&self, unused: &[usize]) -> io::Result<Go> {
        for some in unused.chunks(UNUSED_MAX) {
            let some: Vec<String> = some.iter().map(ToString::to_string).collect();
            self.0.send(&format!("unused {}", some.join(" ")), &[])?;
        }
        self.0.send("ready", &[])?;
        let Message { text, mut fds } = self.next_message()?;
        if text != "go" {
            return Err(unexpected(&text));
        }
        let mut next = |what| {
            // This process is in charge now, with or without it.
            next_file(&mut fds).unwrap_or_else(|error| {
                tracing::warn!(what, %error, "file of the old process not read");
                String::new()
            })
        };
        let counters = next("counters");
        let servers = servers_state::read(&next("servers"), clock());
        let overrides = next("overrides");
        Ok(Go {
            counters,
            state: RuntimeState { overrides, servers },
        })
    }

    /// Follows the old process from now on, until its last session has ended. Call it after
    /// [`Self::wait_for_go`].
    pub fn follow(&self, old_processes: &OldProcesses) {
        old_processes.follow(Arc::clone(&self.0), 1);
    }

    /// Sends the reason why this process cannot serve. It ends then.
    pub fn refuse(&self, why: &str) {
        let why: String = why.chars().take(REASON_MAX).collect();
        // If the message is lost, the old process sees the closed channel.
        let _ = self.0.send(&format!("failed {why}"), &[]);
    }

    fn next_message(&self) -> io::Result<Message> {
        let gone = || io::Error::other("the process that was to hand over is gone");
        self.0.receive()?.ok_or_else(gone)
    }
}

/// Now, by the clock of this process and by the one that all share.
fn clock() -> (Instant, Duration) {
    (Instant::now(), monotonic())
}

/// The text of the last file, which is taken out; empty when there is none.
fn next_file(fds: &mut Vec<OwnedFd>) -> io::Result<String> {
    let mut text = String::new();
    if let Some(file) = fds.pop() {
        File::from(file).read_to_string(&mut text)?;
    }
    Ok(text)
}

fn unexpected(text: &str) -> io::Error {
    io::Error::other(format!("the process that was to hand over sent {text:?}"))
}
