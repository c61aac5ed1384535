//! Moving bytes in one direction: read from one side, write to the other, keep only what the other
//! did not take. Runs on a worker.
//!
//! # Hot path
//! No allocation unless a write is short; no shared cache line; the buffer is the worker's.
//!
//! Kernel facts relied on (edge-triggered epoll):
//! - A read from a TCP socket that is shorter than asked means that the receive queue was emptied, and
//!   the next arrival makes a new event. Two exceptions: behind the last data stands the end of the
//!   stream (`EPOLLRDHUP` was seen: read on), and a read stops at urgent data (`EPOLLPRI` was seen:
//!   read on).
//! - A read from a unix socket also ends at a message that carries a descriptor: it is read on until
//!   `EAGAIN`.
//! - A read that begins at an urgent byte passes over it unless `SO_OOBINLINE` is set. A read that was
//!   shorter than asked because of it is followed by an event; one that was not is not, so the option
//!   is set once a read has filled the buffer.
//! - A splice of 0 bytes means the end of the stream, or that the next byte is urgent and the end has
//!   come behind it: a read tells which.
//! - Data that arrived before a reset can still be read after it; the error comes last.

use super::conn::{Conn, Kind, Side, SideState, Unsent};
use super::splice::{Filled, Pipe, Pipes, TransferMode};
use crate::worker::session_stats::WorkerStats;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt};
use std::io;
use std::rc::Rc;

/// Bytes read at once, and so the most that is kept in memory of a session whose reader is slow.
/// Larger ones gain nothing but in bulk, which is spliced.
pub(super) const CHUNK_MAX: usize = 32 * 1024;

/// Reads of one direction in one turn, so that a bulk transfer does not starve its neighbours.
const READS_MAX: usize = 16;

/// What a worker moves bytes with.
#[derive(Debug)]
pub(super) struct IoContext {
    buffer: Box<[u8]>,
    /// Reads of one direction in one turn.
    pub(super) share: usize,
    /// Bytes moved; whoever wants to know sets it to 0 before.
    pub(super) moved: u64,
    /// Some side did not take everything at once, or had not before; whoever wants to know sets it to
    /// `false` before.
    pub(super) was_short: bool,
    pub(super) pipes: Pipes,
}

impl IoContext {
    pub(super) fn new(worker_stats: Rc<WorkerStats>) -> Self {
        Self {
            buffer: vec![0; CHUNK_MAX].into_boxed_slice(),
            share: READS_MAX,
            moved: 0,
            was_short: false,
            pipes: Pipes::new(worker_stats),
        }
    }
}

/// What became of a direction in this turn.
#[derive(Debug)]
pub(super) enum Flow {
    /// Waits for an event: nothing to read, or the reader is slow.
    Waiting,
    /// Could go on; its share of the turn is used up.
    Unfinished,
    /// This side's connection is gone.
    Broken(Side, io::Error),
}

/// What one step of a direction came to.
enum Step {
    /// Bytes were moved.
    Moved,
    /// There is nothing to read now.
    Nothing,
    /// The source has ended.
    End,
}

/// Moves bytes from `from` to the other side.
pub(super) fn flow(
    conn: &mut Conn,
    from: Side,
    io: &mut IoContext,
    now: u64,
    worker_stats: &WorkerStats,
) -> Flow {
    let to = from.other();
    if conn.side(to).has_pending() {
        io.was_short = true;
        if let Err(error) = flush(conn.side_mut(to), now) {
            return Flow::Broken(to, error);
        }
        if conn.side(to).has_pending() {
            return Flow::Waiting;
        }
        if let Some(pipe) = conn.side_mut(to).pipe.take() {
            io.pipes.release(conn.key, to, pipe);
        }
        // It was not read from meanwhile: its silence counts from here on.
        conn.side_mut(from).active = now;
    }
    for _ in 0..io.share {
        if conn.side(from).ended {
            pass_end_on(conn, from);
            return Flow::Waiting;
        }
        if !conn.side(from).readable {
            return Flow::Waiting;
        }
        let step = if conn.side(from).mode.is_spliced() {
            spliced(conn, from, io, now, worker_stats)
        } else {
            None
        };
        // In one place, so that it is part of this function: all small messages come this way.
        let step = step.unwrap_or_else(|| copied(conn, from, io, now, worker_stats));
        match step {
            // A short write makes the kernel tell when more is taken.
            Ok(Step::Moved) if conn.side(to).has_pending() => {
                io.was_short = true;
                return Flow::Waiting;
            }
            Ok(Step::Moved) => {}
            Ok(Step::Nothing) => return Flow::Waiting,
            Ok(Step::End) => conn.read_end(from),
            Err((side, error)) => return Flow::Broken(side, error),
        }
    }
    Flow::Unfinished
}

/// `from` has ended and the other side has taken everything.
fn pass_end_on(conn: &mut Conn, from: Side) {
    let to = from.other();
    // Where a reset is to follow, an orderly end must not come before it; and where both sides have
    // ended and all is delivered, the close that comes now says the same.
    let over = conn.side(to).ended && !conn.side(from).has_pending();
    if conn.draining().is_none() && !over {
        end(conn.side_mut(to));
    }
}

/// One read into the buffer, and one write of it.
fn copied(
    conn: &mut Conn,
    from: Side,
    io: &mut IoContext,
    now: u64,
    worker_stats: &WorkerStats,
) -> Result<Step, (Side, io::Error)> {
    let source = conn.side_mut(from);
    let count = match read(source, &mut io.buffer, now).map_err(|error| (from, error))? {
        Some(0) => return Ok(Step::End),
        Some(count) => count,
        None => return Ok(Step::Nothing),
    };
    if count < io.buffer.len() || source.urgent {
        source.mode = TransferMode::default();
    } else if conn.sides.iter().all(|side| side.kind == Kind::Tcp) {
        let source = conn.side_mut(from);
        source.mode.full_read();
        source.keep_urgent_inline();
    }
    io.moved += count as u64;
    count_bytes(conn, from, count as u64, worker_stats);
    let target = conn.side_mut(from.other());
    write(target, &io.buffer[..count], now).map_err(|error| (from.other(), error))?;
    Ok(Step::Moved)
}

/// One filling of a pipe and one emptying; `None` when there is no pipe, or when this is nothing for
/// one.
fn spliced(
    conn: &mut Conn,
    from: Side,
    io: &mut IoContext,
    now: u64,
    worker_stats: &WorkerStats,
) -> Option<Result<Step, (Side, io::Error)>> {
    if conn.side(from).urgent {
        return None;
    }
    let mut pipe = io.pipes.take()?;
    let source = conn.side_mut(from);
    let step = match pipe.fill(source, io.pipes.fill_size()) {
        Ok(Filled::Bytes(count)) => {
            source.active = now;
            io.moved += count;
            count_bytes(conn, from, count, worker_stats);
            worker_stats.process().spliced_out.add(count);
            return Some(deliver(conn, from.other(), pipe, io, now));
        }
        Ok(Filled::Nothing) => {
            source.readable = false;
            Some(Ok(Step::Nothing))
        }
        // Or urgent data: a read tells.
        Ok(Filled::Empty) => None,
        Ok(Filled::Unfit) => {
            source.mode = TransferMode::default();
            None
        }
        Err(error) => Some(Err((from, error))),
    };
    io.pipes.give_back(pipe);
    step
}

/// Empties a pipe into `to`, which keeps it with what it does not take.
fn deliver(
    conn: &mut Conn,
    to: Side,
    mut pipe: Box<Pipe>,
    io: &mut IoContext,
    now: u64,
) -> Result<Step, (Side, io::Error)> {
    let target = conn.side_mut(to);
    let emptied = pipe.empty(&target.fd);
    if let Ok(emptied) = &emptied {
        target.retry |= emptied.no_memory;
        if emptied.taken > 0 {
            target.written(now);
        } else if target.ended {
            // Its silence did not count so far.
            target.active = now;
        }
    }
    if emptied.is_ok() && pipe.filled() > 0 {
        let filled = pipe.filled();
        target.pipe = Some(pipe);
        io.pipes.lend(conn.key, to, filled);
    } else {
        io.pipes.give_back(pipe);
    }
    emptied.map(|_| Step::Moved).map_err(|error| (to, error))
}

fn count_bytes(conn: &mut Conn, from: Side, count: u64, worker_stats: &WorkerStats) {
    match from {
        Side::Client => conn.stats.count_in(count, worker_stats),
        Side::Server => conn.stats.count_out(count, worker_stats),
    }
}

/// Reads; `None` when there is nothing, 0 at the end.
fn read(side: &mut SideState, buffer: &mut [u8], now: u64) -> io::Result<Option<usize>> {
    let asked = buffer.len();
    match retry_on_intr(|| recv(&side.fd, &mut *buffer, RecvFlags::empty())) {
        Ok((count, _)) => {
            if count < asked && side.kind == Kind::Tcp && !side.hangup && !side.urgent {
                side.readable = false;
            }
            side.active = now;
            Ok(Some(count))
        }
        Err(Errno::AGAIN) => {
            side.readable = false;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Writes, and keeps what was not taken.
fn write(side: &mut SideState, bytes: &[u8], now: u64) -> io::Result<()> {
    if side.writes < 2 {
        side.writes += 1;
        // A single small exchange needs none; from the second write on Nagle would wait for an ACK.
        if side.writes == 2 && side.kind == Kind::Tcp {
            // Refused only by a socket that is gone, which the write below will tell.
            let _ = sockopt::set_tcp_nodelay(&side.fd, true);
        }
    }
    let taken = push(side, bytes, now)?;
    if taken < bytes.len() {
        side.unsent = Unsent::keep(&bytes[taken..]);
        if side.ended {
            // Its silence did not count so far.
            side.active = now;
        }
    }
    Ok(())
}

/// Writes what is owed to a side, as far as it takes it.
pub(super) fn flush(side: &mut SideState, now: u64) -> io::Result<()> {
    if !side.unsent.is_empty() {
        let unsent = std::mem::take(&mut side.unsent);
        let taken = push(side, unsent.bytes(), now);
        side.unsent = unsent;
        side.unsent.take(taken?);
        if !side.unsent.is_empty() {
            return Ok(());
        }
    }
    // What is kept was read before the pipe was taken, so it goes first.
    if let Some(pipe) = side.pipe.as_mut().filter(|pipe| pipe.filled() > 0) {
        let emptied = pipe.empty(&side.fd)?;
        side.retry |= emptied.no_memory;
        if emptied.taken > 0 {
            side.written(now);
        }
    }
    Ok(())
}

fn push(side: &mut SideState, bytes: &[u8], now: u64) -> io::Result<usize> {
    match retry_on_intr(|| send(&side.fd, bytes, SendFlags::NOSIGNAL)) {
        Ok(count) => {
            side.written(now);
            Ok(count)
        }
        Err(Errno::AGAIN) => Ok(0),
        Err(error) if is_no_memory(error) => {
            side.retry = true;
            Ok(0)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether the kernel had no memory for a write. It makes no event when it has again.
pub(super) fn is_no_memory(error: Errno) -> bool {
    matches!(error, Errno::NOBUFS | Errno::NOMEM)
}

/// Everything was delivered and nothing follows: tells `target`'s peer, once.
fn end(target: &mut SideState) {
    if !target.shut {
        target.shut = true;
        // ENOTCONN: its connection is gone already; an event tells about that.
        let _ = shutdown(&target.fd, Shutdown::Write);
    }
}
