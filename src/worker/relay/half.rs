//! Moving bytes in one direction: read from one side, write to the other, keep only what the other
//! did not take. Runs on a worker.
//!
//! # Hot path
//! No allocation unless a write is short; no shared cache line; the buffer is the worker's.
//!
//! Kernel facts relied on (edge-triggered epoll):
//! - A read shorter than asked means that the receive queue was emptied, and the next arrival makes
//!   a new event. Two exceptions: behind the last data stands the end of the stream (`EPOLLRDHUP`
//!   was seen: read on), and a read stops at urgent data (`EPOLLPRI` was seen: read on).
//! - Data that arrived before a reset can still be read after it; the error comes last.

use super::conn::{Conn, Half, Kind, Rest, Side};
use super::splice::{Filled, Manner, Pipe, Pipes};
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
pub(super) struct Tools {
    buffer: Box<[u8]>,
    /// Reads of one direction in one turn.
    pub(super) share: usize,
    /// Bytes moved; whoever wants to know sets it to 0 before.
    pub(super) moved: u64,
    pub(super) pipes: Pipes,
}

impl Tools {
    pub(super) fn new(worker_stats: Rc<WorkerStats>) -> Self {
        Self {
            buffer: vec![0; CHUNK_MAX].into_boxed_slice(),
            share: READS_MAX,
            moved: 0,
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
    tools: &mut Tools,
    now: u64,
    worker_stats: &WorkerStats,
) -> Flow {
    let to = from.other();
    if conn.half(to).is_owed() {
        if let Err(error) = flush(conn.half_mut(to), now) {
            return Flow::Broken(to, error);
        }
        if conn.half(to).is_owed() {
            return Flow::Waiting;
        }
        if let Some(pipe) = conn.half_mut(to).pipe.take() {
            tools.pipes.release(conn.key, to, pipe);
        }
    }
    for _ in 0..tools.share {
        if conn.half(from).ended {
            pass_end_on(conn, from);
            return Flow::Waiting;
        }
        if !conn.half(from).readable {
            return Flow::Waiting;
        }
        let step = if conn.half(from).manner.is_spliced() {
            spliced(conn, from, tools, now, worker_stats)
        } else {
            None
        };
        // In one place, so that it is part of this function: all small messages come this way.
        let step = step.unwrap_or_else(|| copied(conn, from, tools, now, worker_stats));
        match step {
            // A short write makes the kernel tell when more is taken.
            Ok(Step::Moved) if conn.half(to).is_owed() => return Flow::Waiting,
            Ok(Step::Moved) => {}
            Ok(Step::Nothing) => return Flow::Waiting,
            Ok(Step::End) => conn.half_mut(from).ended = true,
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
    let over = conn.half(to).ended && !conn.half(from).is_owed();
    if conn.closing.is_none() && !over {
        end(conn.half_mut(to));
    }
}

/// One read into the buffer, and one write of it.
fn copied(
    conn: &mut Conn,
    from: Side,
    tools: &mut Tools,
    now: u64,
    worker_stats: &WorkerStats,
) -> Result<Step, (Side, io::Error)> {
    let source = conn.half_mut(from);
    let count = match read(source, &mut tools.buffer, now).map_err(|error| (from, error))? {
        Some(0) => return Ok(Step::End),
        Some(count) => count,
        None => return Ok(Step::Nothing),
    };
    if count < tools.buffer.len() || source.urgent {
        source.manner = Manner::default();
    } else if conn.halves.iter().all(|half| half.kind == Kind::Tcp) {
        conn.half_mut(from).manner.full_read();
    }
    tools.moved += count as u64;
    count_bytes(conn, from, count as u64, worker_stats);
    let target = conn.half_mut(from.other());
    write(target, &tools.buffer[..count], now).map_err(|error| (from.other(), error))?;
    Ok(Step::Moved)
}

/// One filling of a pipe and one emptying; `None` when there is no pipe, or when this is nothing for
/// one.
fn spliced(
    conn: &mut Conn,
    from: Side,
    tools: &mut Tools,
    now: u64,
    worker_stats: &WorkerStats,
) -> Option<Result<Step, (Side, io::Error)>> {
    if conn.half(from).urgent {
        return None;
    }
    let mut pipe = tools.pipes.take()?;
    let source = conn.half_mut(from);
    let step = match pipe.fill(source, tools.pipes.fill_size()) {
        Ok(Filled::Bytes(count)) => {
            source.active = now;
            tools.moved += count;
            count_bytes(conn, from, count, worker_stats);
            worker_stats.process().spliced_out.add(count);
            return Some(deliver(conn, from.other(), pipe, tools, now));
        }
        Ok(Filled::Nothing) => {
            source.readable = false;
            Some(Ok(Step::Nothing))
        }
        Ok(Filled::End) => Some(Ok(Step::End)),
        Ok(Filled::Unfit) => {
            source.manner = Manner::default();
            None
        }
        Err(error) => Some(Err((from, error))),
    };
    tools.pipes.give_back(pipe);
    step
}

/// Empties a pipe into `to`, which keeps it with what it does not take.
fn deliver(
    conn: &mut Conn,
    to: Side,
    mut pipe: Box<Pipe>,
    tools: &mut Tools,
    now: u64,
) -> Result<Step, (Side, io::Error)> {
    let target = conn.half_mut(to);
    let taken = pipe.empty(&target.fd);
    if matches!(taken, Ok(1..)) {
        target.took(now);
    }
    if taken.is_ok() && pipe.filled() > 0 {
        let filled = pipe.filled();
        target.pipe = Some(pipe);
        tools.pipes.hold(conn.key, to, filled);
    } else {
        tools.pipes.give_back(pipe);
    }
    taken.map(|_| Step::Moved).map_err(|error| (to, error))
}

fn count_bytes(conn: &mut Conn, from: Side, count: u64, worker_stats: &WorkerStats) {
    match from {
        Side::Client => conn.stats.count_in(count, worker_stats),
        Side::Server => conn.stats.count_out(count, worker_stats),
    }
}

/// Reads; `None` when there is nothing, 0 at the end.
fn read(half: &mut Half, buffer: &mut [u8], now: u64) -> io::Result<Option<usize>> {
    let asked = buffer.len();
    match retry_on_intr(|| recv(&half.fd, &mut *buffer, RecvFlags::empty())) {
        Ok((count, _)) => {
            if count < asked && !half.hangup && !half.urgent {
                half.readable = false;
            }
            half.active = now;
            Ok(Some(count))
        }
        Err(Errno::AGAIN) => {
            half.readable = false;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Writes, and keeps what was not taken.
fn write(half: &mut Half, bytes: &[u8], now: u64) -> io::Result<()> {
    if half.writes < 2 {
        half.writes += 1;
        // A single small exchange needs none; from the second write on Nagle would wait for an ACK.
        if half.writes == 2 && half.kind == Kind::Tcp {
            // Refused only by a socket that is gone, which the write below will tell.
            let _ = sockopt::set_tcp_nodelay(&half.fd, true);
        }
    }
    let taken = push(half, bytes, now)?;
    if taken < bytes.len() {
        half.rest = Rest::keep(&bytes[taken..]);
    }
    Ok(())
}

/// Writes what is owed to a side, as far as it takes it.
pub(super) fn flush(half: &mut Half, now: u64) -> io::Result<()> {
    if !half.rest.is_empty() {
        let rest = std::mem::take(&mut half.rest);
        let taken = push(half, rest.bytes(), now);
        half.rest = rest;
        half.rest.take(taken?);
        if !half.rest.is_empty() {
            return Ok(());
        }
    }
    // What is kept was read before the pipe was taken, so it goes first.
    if let Some(pipe) = half.pipe.as_mut().filter(|pipe| pipe.filled() > 0)
        && pipe.empty(&half.fd)? > 0
    {
        half.took(now);
    }
    Ok(())
}

fn push(half: &mut Half, bytes: &[u8], now: u64) -> io::Result<usize> {
    match retry_on_intr(|| send(&half.fd, bytes, SendFlags::NOSIGNAL)) {
        Ok(count) => {
            half.took(now);
            Ok(count)
        }
        Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Everything was delivered and nothing follows: tells `target`'s peer, once.
fn end(target: &mut Half) {
    if !target.shut {
        target.shut = true;
        // ENOTCONN: its connection is gone already; an event tells about that.
        let _ = shutdown(&target.fd, Shutdown::Write);
    }
}
