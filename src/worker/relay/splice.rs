//! Moving bulk from socket to socket inside the kernel, through a pipe. Runs on a worker.
//!
//! Copying is cheaper for small messages, so a direction is spliced only after
//! [`FULL_READS_MIN`] reads in a row have filled the buffer, and copied again when its pipe has
//! carried little for a while. Pipes cost two descriptors each and come from a bounded pool.
//!
//! Kernel facts relied on:
//! - A pipe is filled only when it is empty: then `EAGAIN` means that the source has nothing, and
//!   not that the pipe is full.
//! - A pipe can carry less than its size, because a slot holds a fragment and not a page: a short
//!   splice proves nothing about the source, so it is asked until `EAGAIN`.
//! - At urgent data `splice` stops for ever; the relay copies such a direction.
//! - Beyond `fs.pipe-user-pages-soft` a pipe stays small; it works all the same.

use super::conn::Half;
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use std::io;
use std::os::fd::OwnedFd;

/// Pipes of one worker, in use and in the pool.
pub(super) const PIPES_MAX: usize = 16;

/// Bytes that a pipe is to hold.
const PIPE_SIZE: usize = 512 * 1024;

/// Reads in a row that must have filled the buffer before a direction is spliced.
pub(super) const FULL_READS_MIN: u8 = 2;

/// A splice that moves less than this is a small one.
const SMALL: usize = 16 * 1024;

/// Small splices in a row after which a direction is copied again.
const SMALL_MAX: u8 = 8;

/// A pipe that feeds one side, and what is in it.
#[derive(Debug)]
pub(super) struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    filled: usize,
    small: u8,
}

/// The pipes of a worker.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    free: Vec<Pipe>,
    in_use: usize,
}

impl Pipes {
    /// An empty pipe, if there is one to be had.
    pub(super) fn take(&mut self) -> Option<Box<Pipe>> {
        let pipe = match self.free.pop() {
            Some(pipe) => pipe,
            None if self.in_use < PIPES_MAX => Pipe::new().ok()?,
            None => return None,
        };
        self.in_use += 1;
        Some(Box::new(pipe))
    }

    /// Pipes that wait to be used again.
    #[cfg(test)]
    pub(super) fn pooled(&self) -> usize {
        self.free.len()
    }

    /// Takes a pipe back. One that is not empty is closed: its bytes are of a session that is over.
    pub(super) fn give_back(&mut self, pipe: Pipe) {
        self.in_use -= 1;
        if pipe.filled == 0 {
            self.free.push(Pipe { small: 0, ..pipe });
        }
    }
}

/// What one filling of a pipe came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// So many bytes are in it.
    Bytes(u64),
    /// The source has nothing now.
    Nothing,
    /// The source has ended.
    End,
    /// This direction cannot be spliced, or no longer pays: copy it.
    Unfit,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (out, into) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // The size is a wish: without it the pipe holds 64 KB.
        let _ = fcntl_setpipe_size(&into, PIPE_SIZE);
        Ok(Self {
            out,
            into,
            filled: 0,
            small: 0,
        })
    }

    /// Bytes that are in it.
    pub(super) fn filled(&self) -> usize {
        self.filled
    }

    /// Fills the empty pipe from `source`.
    pub(super) fn fill(&mut self, source: &Half) -> io::Result<Filled> {
        debug_assert_eq!(self.filled, 0, "only an empty pipe is filled");
        if self.small >= SMALL_MAX {
            return Ok(Filled::Unfit);
        }
        match retry_on_intr(|| splice(&source.fd, None, &self.into, None, PIPE_SIZE, FLAGS)) {
            Ok(0) => Ok(Filled::End),
            Ok(count) => {
                self.filled = count;
                self.small = if count < SMALL { self.small + 1 } else { 0 };
                Ok(Filled::Bytes(count as u64))
            }
            Err(Errno::AGAIN) => Ok(Filled::Nothing),
            // A kind of socket that does not splice.
            Err(Errno::INVAL | Errno::NOSYS) => Ok(Filled::Unfit),
            Err(error) => Err(error.into()),
        }
    }

    /// Empties it into `target` as far as that takes it; the bytes taken.
    pub(super) fn empty(&mut self, target: &OwnedFd) -> io::Result<usize> {
        let mut taken = 0;
        while self.filled > 0 {
            match retry_on_intr(|| splice(&self.out, None, target, None, self.filled, FLAGS)) {
                Ok(count) => {
                    self.filled -= count;
                    taken += count;
                }
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(taken)
    }
}

const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);
