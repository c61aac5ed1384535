//! Moves bulk from socket to socket inside the kernel, through a pipe. Runs on a worker.
//!
//! Copying is cheaper for small messages. So a direction is spliced only after [`FULL_READS_MIN`] reads in a
//! row have filled the buffer, and copied again after several small splices ([`TransferMode`]). A pipe costs
//! two descriptors and comes from a bounded pool; a direction has one only while bytes are in it.
//!
//! Kernel facts relied on:
//! - A pipe is filled only when it is empty: then `EAGAIN` means that the source has nothing, not that the pipe
//!   is full.
//! - A pipe can hold less than its size, because a slot holds a fragment and not a page. A short splice proves
//!   nothing about the source, so it is repeated until `EAGAIN`.
//! - `splice` stops at urgent data and never continues: it returns `EAGAIN`, or 0 when FIN has come after the
//!   urgent data. The relay copies such a direction.
//! - The kernel may refuse the size, and then a pipe keeps its first 64 KB. Beyond `fs.pipe-user-pages-soft` a
//!   new one has 8 KB, and copying is cheaper.

use super::conn::{Side, SideState};
use super::direction::{CHUNK_MAX, is_no_memory};
use crate::worker::session_stats::WorkerStats;
use rustix::io::{Errno, read, retry_on_intr};
use rustix::pipe::{
    PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice,
};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Bytes that a pipe is to hold.
const PIPE_SIZE: usize = 512 * 1024;

/// Bytes below which a pipe is not worth it.
const PIPE_SIZE_MIN: usize = 64 * 1024;

/// Requests for a pipe that are refused without asking the kernel, after it has refused one.
const REFUSED_SKIPS: u32 = 1000;

/// Reads in a row that must have filled the buffer before a direction is spliced.
const FULL_READS_MIN: u8 = 2;

/// A splice that moves less than this is a small one.
const SMALL: usize = 16 * 1024;

/// Small splices in a row after which a direction is copied again.
const SMALL_MAX: u8 = 8;

/// How the bytes of a direction are moved. It stays while the direction has nothing to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TransferMode {
    /// Through the buffer; `full` reads in a row have filled it.
    Copied { full: u8 },
    /// Through a pipe, if there is one; `small` splices in a row were small.
    Spliced { small: u8 },
}

impl Default for TransferMode {
    fn default() -> Self {
        Self::Copied { full: 0 }
    }
}

impl TransferMode {
    /// Whether a pipe is wanted.
    pub(super) fn is_spliced(self) -> bool {
        matches!(self, Self::Spliced { .. })
    }

    /// A read has filled the buffer.
    pub(super) fn full_read(&mut self) {
        if let Self::Copied { full } = self {
            *full += 1;
            if *full >= FULL_READS_MIN {
                *self = Self::Spliced { small: 0 };
            }
        }
    }

    /// A splice has moved `count` bytes.
    fn spliced(&mut self, count: usize) {
        match self {
            Self::Spliced { small } if count < SMALL && *small + 1 < SMALL_MAX => *small += 1,
            _ if count < SMALL => *self = Self::default(),
            _ => *self = Self::Spliced { small: 0 },
        }
    }
}

/// A pipe whose content goes to one side.
#[derive(Debug)]
pub(super) struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    filled: usize,
}

/// The pipes of a worker.
///
/// A slow reader keeps the pipe with the bytes that it has not taken, while few do so: of more than
/// [`Pipes::lent_max`] one is reclaimed ([`Pipes::over_limit`]), so that there is always a pipe for bulk that
/// flows. The content of a reclaimed pipe waits in memory, so only a pipe is reclaimed that holds no more than
/// may be kept there. Of the others there are [`Pipes::lent_many`] at most.
#[derive(Debug)]
pub(super) struct Pipes {
    #[expect(
        clippy::vec_box,
        reason = "it goes back and forth between here and a session"
    )]
    free: Vec<Box<Pipe>>,
    /// Sides that keep a pipe, longest first, and how much was in it. Any other pipe is out of the pool only
    /// while bytes are moved.
    lent: Vec<(u32, Side, usize)>,
    /// Requests still to be refused without asking the kernel.
    skips: u32,
    worker_stats: Rc<WorkerStats>,
}

impl Pipes {
    pub(super) fn new(worker_stats: Rc<WorkerStats>) -> Self {
        Self {
            free: Vec::new(),
            lent: Vec::new(),
            skips: 0,
            worker_stats,
        }
    }

    /// An empty pipe, if one is to be had.
    pub(super) fn take(&mut self) -> Option<Box<Pipe>> {
        if self.free.is_empty() && self.lent.len() < self.most() {
            self.make();
        }
        self.free.pop()
    }

    /// Most pipes.
    fn most(&self) -> usize {
        self.worker_stats.global.pipes_max as usize
    }

    /// Most readers that may keep a pipe: one pipe is left for those that are not slow.
    fn lent_max(&self) -> usize {
        self.most().saturating_sub(1)
    }

    /// When this many readers keep a pipe, no pipe is filled with more than may be kept in memory.
    fn lent_many(&self) -> usize {
        self.most() / 2
    }

    /// Creates a pipe. When the kernel refuses one, or one of sufficient size, it is not asked again for a
    /// while.
    fn make(&mut self) {
        if self.skips > 0 {
            self.skips -= 1;
        } else if self.worker_stats.global.may_take_descriptors()
            && let Ok(Some(pipe)) = Pipe::new()
        {
            self.free.push(Box::new(pipe));
            self.publish();
        } else {
            self.skips = REFUSED_SKIPS;
        }
    }

    /// Bytes to fill a pipe with. When many readers are slow, as much as may be kept in memory for one.
    pub(super) fn fill_size(&self) -> usize {
        if self.lent.len() >= self.lent_many() {
            CHUNK_MAX
        } else {
            PIPE_SIZE
        }
    }

    /// Side `side` of session `key` keeps its pipe until it has taken the `filled` bytes in it.
    pub(super) fn lend(&mut self, key: u32, side: Side, filled: usize) {
        self.lent.push((key, side, filled));
        self.publish();
    }

    /// The side whose pipe is to be reclaimed now, if any; the caller releases the pipe. Of those whose bytes
    /// may be kept in memory, the one that has kept it longest.
    pub(super) fn over_limit(&self) -> Option<(u32, Side)> {
        if self.lent.len() <= self.lent_max() {
            return None;
        }
        let mut small = self
            .lent
            .iter()
            .filter(|(_, _, filled)| *filled <= CHUNK_MAX);
        small.next().map(|&(key, side, _)| (key, side))
    }

    /// Takes back a pipe that was lent.
    pub(super) fn release(&mut self, key: u32, side: Side, pipe: Box<Pipe>) {
        self.lent
            .retain(|&(holder, of, _)| (holder, of) != (key, side));
        self.give_back(pipe);
        self.publish();
    }

    /// Takes a pipe back. One that is not empty is closed: its session is over.
    pub(super) fn give_back(&mut self, pipe: Box<Pipe>) {
        if pipe.filled == 0 {
            self.free.push(pipe);
        } else {
            drop(pipe);
            self.publish();
        }
    }

    /// Updates the statistics. Not called when a pipe is out only while bytes are moved, because bulk would pay
    /// for it each time.
    fn publish(&self) {
        let process = self.worker_stats.process();
        let [lent, free] =
            [self.lent.len(), self.free.len()].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        process.pipes_used.set(lent);
        process.pipes_free.set(free);
    }

    /// Pipes that wait to be used again.
    #[cfg(test)]
    pub(super) fn pooled(&self) -> usize {
        self.free.len()
    }
}

/// The result of filling a pipe.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// This many bytes are in it.
    Bytes(u64),
    /// The source has nothing now.
    Nothing,
    /// The source has ended, or its next byte is urgent.
    Empty,
    /// This direction cannot be spliced: copy it.
    Unfit,
}

/// The result of emptying a pipe.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Emptied {
    /// Bytes that the target took.
    pub(super) taken: usize,
    /// The target took no more because the kernel had no memory.
    pub(super) no_memory: bool,
}

impl Pipe {
    /// `None` where the kernel grants only small pipes.
    fn new() -> io::Result<Option<Self>> {
        let (out, into) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // The kernel may refuse the size.
        let _ = fcntl_setpipe_size(&into, PIPE_SIZE);
        let pipe = Self {
            out,
            into,
            filled: 0,
        };
        let size = fcntl_getpipe_size(&pipe.into)?;
        Ok((size >= PIPE_SIZE_MIN).then_some(pipe))
    }

    /// Bytes that are in it.
    pub(super) fn filled(&self) -> usize {
        self.filled
    }

    /// Fills the empty pipe from `source` with up to `size` bytes.
    pub(super) fn fill(&mut self, source: &mut SideState, size: usize) -> io::Result<Filled> {
        debug_assert_eq!(self.filled, 0, "only an empty pipe is filled");
        match retry_on_intr(|| splice(&source.fd, None, &self.into, None, size, FLAGS)) {
            Ok(0) => Ok(Filled::Empty),
            Ok(count) => {
                self.filled = count;
                source.mode.spliced(count);
                Ok(Filled::Bytes(count as u64))
            }
            Err(Errno::AGAIN) => Ok(Filled::Nothing),
            // A kind of socket that does not splice.
            Err(Errno::INVAL | Errno::NOSYS) => Ok(Filled::Unfit),
            Err(error) => Err(error.into()),
        }
    }

    /// Empties it into `target`, as far as that takes it.
    pub(super) fn empty(&mut self, target: &OwnedFd) -> io::Result<Emptied> {
        let mut emptied = Emptied::default();
        while self.filled > 0 {
            match retry_on_intr(|| splice(&self.out, None, target, None, self.filled, FLAGS)) {
                // Not expected: the pipe holds less than was put in.
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.filled -= count;
                    emptied.taken += count;
                }
                Err(Errno::AGAIN) => break,
                Err(error) if is_no_memory(error) => {
                    emptied.no_memory = true;
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(emptied)
    }

    /// Empties it into memory.
    pub(super) fn read(&mut self) -> io::Result<Box<[u8]>> {
        let mut bytes = vec![0; self.filled];
        while self.filled > 0 {
            let from = bytes.len() - self.filled;
            match retry_on_intr(|| read(&self.out, &mut bytes[from..]))? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.filled -= count,
            }
        }
        Ok(bytes.into_boxed_slice())
    }
}

const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);
