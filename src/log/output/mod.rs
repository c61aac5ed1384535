//! A byte stream for lines (stdout, stderr, a file) that never blocks its writer. The log thread uses it for
//! its targets, and every thread that emits an event (`events`) uses it under a mutex.
//!
//! Invariant: no call waits longer than [`WRITE_TIMEOUT`], and none waits again for a stream that was too slow
//! until it takes something. What does not fit is dropped and counted.
//!
//! Other processes share stdout and stderr, so `O_NONBLOCK` is never set on them: it would be set for the
//! others too. Instead, a socket (journald) is written with `MSG_DONTWAIT`. A pipe or terminal is opened again
//! through `/proc/self/fd`, which gives an own file description that may be non-blocking. Where that is not
//! allowed (a pipe of another user), the stream is polled before each write of at most `PIPE_BUF`. Such a write
//! blocks only if another process fills the pipe in between; it blocks only the writing thread, which nothing
//! waits for without a bound.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SendFlags;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Most bytes that wait in memory for a stream that is not writable now.
pub(super) const PENDING_MAX: usize = 64 * 1024;
/// Longest line, its end included. Also `PIPE_BUF`, so that a pipe takes a line as a whole or not at all,
/// whoever else writes to it.
pub(super) const LINE_MAX: usize = 4096;
/// Longest time that one line waits for a stream that has no room.
const WRITE_TIMEOUT: Duration = Duration::from_millis(100);
/// How often a file's name is checked (rotation), and a missing file is opened again.
const REOPEN_EVERY: Duration = Duration::from_secs(1);
/// Mode of a new log file: it holds addresses of clients.
const FILE_MODE: u32 = 0o640;

/// The destination of an [`Output`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file or named pipe, appended to.
    File(PathBuf),
}

/// Lines dropped, and the last reason.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// How many.
    pub(super) lines: u64,
    /// The last error of the system.
    pub(super) error: Option<io::Error>,
}

impl Losses {
    /// Counts `lines` lines dropped by `error`.
    pub(super) fn add(&mut self, lines: u64, error: io::Error) {
        self.lines += lines;
        self.error = Some(error);
    }

    /// What was dropped since the last call.
    pub(super) fn take(&mut self) -> Self {
        std::mem::take(self)
    }
}

/// What keeps a write from blocking.
#[derive(Debug)]
enum Channel {
    /// A flag of each call.
    Socket(OwnedFd),
    /// `O_NONBLOCK` on an own file description.
    NonBlocking(File),
    /// Polling before each write.
    Polled(OwnedFd),
}

/// A stream of lines.
#[derive(Debug)]
pub(super) struct Output {
    destination: Destination,
    channel: Option<Channel>,
    /// Lines not yet written; the first may have been written in part.
    pending: Vec<u8>,
    /// The last write ended within a line. If the rest of that line was dropped, the next line begins with a
    /// line end.
    torn: bool,
    /// The last wait has ended without room: nothing waits until the stream takes something again.
    stalled: bool,
    /// When the destination was last checked.
    looked: Option<Instant>,
    losses: Losses,
}

impl Output {
    /// A stream to `destination`, opened for the first line.
    pub(super) fn new(destination: Destination) -> Self {
        Self {
            destination,
            channel: None,
            pending: Vec::new(),
            torn: false,
            stalled: false,
            looked: None,
            losses: Losses::default(),
        }
    }

    /// Opens it before the first line.
    ///
    /// # Errors
    /// Those of `open`.
    pub(super) fn open(&mut self) -> io::Result<()> {
        self.channel = Some(open(&self.destination)?);
        self.looked = Some(Instant::now());
        Ok(())
    }

    /// Accepts a line (its end included). When it does not fit, first writes what waits; waits for room only if
    /// `may_wait`.
    pub(super) fn push(&mut self, line: &[u8], may_wait: bool) {
        if self.pending.len() + line.len() > PENDING_MAX {
            self.flush();
            if self.pending.len() + line.len() > PENDING_MAX && may_wait && !self.stalled {
                self.flush_until(Instant::now() + WRITE_TIMEOUT);
            }
            if self.pending.len() + line.len() > PENDING_MAX {
                self.stalled = true;
                self.losses.add(1, io::ErrorKind::WouldBlock.into());
                return;
            }
        }
        if self.torn && self.pending.is_empty() {
            self.pending.push(b'\n');
        }
        self.pending.extend_from_slice(line);
    }

    /// Writes what can be written without waiting. `true`: nothing is left.
    pub(super) fn flush(&mut self) -> bool {
        self.look();
        while !self.pending.is_empty() {
            match self.write_some() {
                Ok(written) => {
                    self.torn = self.pending.get(written - 1) != Some(&b'\n');
                    self.pending.drain(..written);
                    self.stalled = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) => self.give_up(error),
            }
        }
        true
    }

    /// Writes until nothing is left or `deadline` has passed. `true`: nothing is left.
    pub(super) fn flush_until(&mut self, deadline: Instant) -> bool {
        while !self.flush() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.wait_writable(left) {
                return false;
            }
        }
        true
    }

    /// Whether something is still to be written.
    pub(super) fn waits(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Drops and counts what still waits: the stop's deadline has passed.
    pub(super) fn abandon(&mut self) {
        if !self.pending.is_empty() {
            self.give_up(io::ErrorKind::TimedOut.into());
        }
    }

    /// What was dropped since the last call.
    pub(super) fn losses(&mut self) -> Losses {
        self.losses.take()
    }

    /// Reopens a rotated file and opens what is not open, at most once in [`REOPEN_EVERY`].
    pub(super) fn look(&mut self) {
        let now = Instant::now();
        if let Some(looked) = self.looked
            && now.duration_since(looked) < REOPEN_EVERY
        {
            return;
        }
        self.looked = Some(now);
        // A line that was begun in the old file is finished there.
        let in_a_line = self.torn && !self.pending.is_empty();
        if self.channel.is_some() && (in_a_line || !self.is_rotated()) {
            return;
        }
        match open(&self.destination) {
            Ok(channel) => {
                self.torn = false;
                self.channel = Some(channel);
            }
            // A file that is open stays open: the old name is better than dropped lines.
            Err(error) => self.losses.error = Some(error),
        }
    }

    fn is_rotated(&self) -> bool {
        let (Destination::File(path), Some(Channel::NonBlocking(file))) =
            (&self.destination, &self.channel)
        else {
            return false;
        };
        let Ok(open) = file.metadata() else {
            return true;
        };
        std::fs::metadata(path).map_or(true, |named| {
            (named.dev(), named.ino()) != (open.dev(), open.ino())
        })
    }

    /// One write, of whole lines up to [`LINE_MAX`] bytes.
    fn write_some(&mut self) -> io::Result<usize> {
        let Some(channel) = &self.channel else {
            return Err(self
                .losses
                .error
                .take()
                .unwrap_or_else(|| io::ErrorKind::NotConnected.into()));
        };
        let window = &self.pending[..self.pending.len().min(LINE_MAX)];
        let chunk = match window.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => &window[..=end],
            None => window,
        };
        match channel.write(chunk)? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            written => Ok(written),
        }
    }

    /// Drops everything that waits.
    fn give_up(&mut self, error: io::Error) {
        // A leading line end belongs to a line that was dropped before (`torn`).
        let begun = usize::from(self.pending.first() == Some(&b'\n'));
        let ends = self.pending.split(|byte| *byte == b'\n').count() - 1;
        self.pending.clear();
        self.losses.add((ends - begun) as u64, error);
    }

    fn wait_writable(&self, left: Duration) -> bool {
        self.channel
            .as_ref()
            .is_some_and(|channel| is_writable(channel.fd(), left))
    }
}

impl Channel {
    fn write(&self, chunk: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match self {
            Self::Socket(fd) => Ok(rustix::net::send(fd, chunk, flags)?),
            Self::NonBlocking(file) => Ok(rustix::io::write(file, chunk)?),
            Self::Polled(fd) if is_writable(fd.as_fd(), Duration::ZERO) => {
                Ok(rustix::io::write(fd, chunk)?)
            }
            Self::Polled(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Socket(fd) | Self::Polled(fd) => fd.as_fd(),
            Self::NonBlocking(file) => file.as_fd(),
        }
    }
}

/// Whether `fd` accepts data within `left`, or has failed, which a write then tells.
pub(super) fn is_writable(fd: BorrowedFd<'_>, left: Duration) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    let timeout = Timespec::try_from(left).ok();
    matches!(poll(&mut fds, timeout.as_ref()), Ok(ready) if ready > 0)
}

fn open(destination: &Destination) -> io::Result<Channel> {
    match destination {
        Destination::Stdout => inherit(std::io::stdout().as_fd()),
        Destination::Stderr => inherit(std::io::stderr().as_fd()),
        Destination::File(path) => OpenOptions::new()
            .append(true)
            .create(true)
            .mode(FILE_MODE)
            // For a named pipe: neither opening nor writing waits for its reader.
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map(Channel::NonBlocking),
    }
}

/// A channel to an inherited descriptor that does not block (see the file's head).
fn inherit(fd: BorrowedFd<'_>) -> io::Result<Channel> {
    let ours = File::from(fd.try_clone_to_owned()?);
    let kind = ours.metadata()?.file_type();
    if kind.is_socket() {
        return Ok(Channel::Socket(ours.into()));
    }
    if kind.is_fifo() || kind.is_char_device() {
        let again = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(format!("/proc/self/fd/{}", ours.as_raw_fd()));
        if let Ok(file) = again {
            return Ok(Channel::NonBlocking(file));
        }
    }
    Ok(Channel::Polled(ours.into()))
}

#[cfg(test)]
mod tests;
