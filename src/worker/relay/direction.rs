//! Moves bytes in one direction: reads from one side, writes to the other, and keeps only what the other did
//! not take. Runs on a worker.
//!
//! # Hot path
//! No allocation unless a write is short; no shared cache line; the buffer belongs to the worker.
//!
//! Kernel facts relied on (edge-triggered epoll):
//! - A read from a TCP socket that returns less than asked has emptied the receive queue, and the next arrival
//!   makes a new event. Two exceptions need another read: `EPOLLRDHUP` was seen, because FIN comes after the
//!   last data; `EPOLLPRI` was seen, because a read stops at urgent data.
//! - A read from a unix socket also ends at a message that carries a descriptor, so it is read until `EAGAIN`.
//! - A read that begins at an urgent byte skips it unless `SO_OOBINLINE` is set. An event follows a read that
//!   was short because of the urgent byte, but none follows a read that was not short. So the option is set
//!   once a read has filled the buffer.
//! - A splice of 0 bytes means the end of the stream, or that the next byte is urgent and FIN has come after
//!   it. A read tells which.
//! - After a short write an event says that the peer has made room. A write before that event would be taken
//!   in small pieces, for what the peer has acknowledged meanwhile.
//! - Data that arrived before a reset can still be read after it; the error comes last.

use super::conn::{Conn, Kind, Side, SideState, Unsent};
use super::splice::{Filled, Pipe, Pipes, TransferMode};
use crate::worker::session_stats::WorkerStats;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt};
use std::io;
use std::rc::Rc;

/// Bytes per read, and so the most that is kept in memory for a slow reader. Larger reads gain only for bulk,
/// which is spliced.
pub(super) const CHUNK_MAX: usize = 32 * 1024;

/// Reads of one direction in one turn, so that bulk does not starve other sessions.
const READS_MAX: usize = 16;

/// The buffer, the pipes and the limits with which a worker moves bytes.
#[derive(Debug)]
pub(super) struct IoContext {
    buffer: Box<[u8]>,
    /// Reads of one direction in one turn.
    pub(super) share: usize,
    /// Bytes moved since a caller has set it to 0.
    pub(super) moved: u64,
    /// Some side did not take everything at once, or had bytes pending, since a caller has set it to `false`.
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

/// The result of serving a direction in one turn.
#[derive(Debug)]
pub(super) enum Flow {
    /// Waits for an event: there is nothing to read, or the reader is slow.
    Waiting,
    /// Could go on; its share of the turn is used up.
    Unfinished,
    /// This side's connection is gone.
    Broken(Side, io::Error),
}

/// The result of one step of a direction.
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
        if conn.side(to).writable
            && let Err(error) = flush(conn.side_mut(to), now)
        {
            return Flow::Broken(to, error);
        }
        if conn.side(to).has_pending() {
            return Flow::Waiting;
        }
        if let Some(pipe) = conn.side_mut(to).pipe.take() {
            io.pipes.release(conn.key, to, pipe);
        }
        // It was not read from meanwhile, so its silence counts from now on.
        conn.side_mut(from).heard(now);
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
        // One call site, so that the compiler inlines it: all small messages come this way.
        let step = step.unwrap_or_else(|| copied(conn, from, io, now, worker_stats));
        match step {
            // After a short write the kernel makes an event when more can be written.
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

/// `from` has ended and the other side has taken everything: sends FIN to the other side.
fn pass_end_on(conn: &mut Conn, from: Side) {
    let to = from.other();
    // No FIN where a reset is to follow. None either when both sides have ended and all is delivered: the close
    // that follows sends it.
    let over = conn.side(to).ended && !conn.side(from).has_pending();
    if conn.draining().is_none() && !over {
        end(conn.side_mut(to));
    }
}

/// One read into the buffer, and a write of what was read.
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

/// Fills a pipe and empties it. `None` when there is no pipe, or when this cannot be spliced.
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
            source.heard(now);
            io.moved += count;
            count_bytes(conn, from, count, worker_stats);
            worker_stats.process().spliced_out.add(count);
            return Some(deliver(conn, from.other(), pipe, io, now));
        }
        Ok(Filled::Nothing) => {
            source.readable = false;
            Some(Ok(Step::Nothing))
        }
        // Or urgent data: a read tells which.
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

/// Empties a pipe into `to`. The side keeps the pipe if it does not take everything.
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
        target.emptied(emptied, pipe.filled());
        if emptied.taken > 0 {
            target.written(now);
        } else if target.ended {
            // Its silence has not counted so far.
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
    conn.client_spoke = from == Side::Client;
    match from {
        Side::Client => conn.stats.count_in(count, worker_stats),
        Side::Server => conn.stats.count_out(count, worker_stats),
    }
}

/// Reads; `None` when there is nothing, 0 at the end of the stream.
fn read(side: &mut SideState, buffer: &mut [u8], now: u64) -> io::Result<Option<usize>> {
    let asked = buffer.len();
    match retry_on_intr(|| recv(&side.fd, &mut *buffer, RecvFlags::empty())) {
        Ok((count, _)) => {
            if count < asked && side.kind == Kind::Tcp && !side.hangup && !side.urgent {
                side.readable = false;
            }
            side.heard(now);
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
        // A single small exchange needs no TCP_NODELAY. From the second write on, Nagle's algorithm would wait
        // for an ACK.
        if side.writes == 2 && side.kind == Kind::Tcp {
            // Fails only when the socket is gone, which the write below tells.
            let _ = sockopt::set_tcp_nodelay(&side.fd, true);
        }
    }
    let taken = push(side, bytes, now)?;
    if taken < bytes.len() {
        side.unsent = Unsent::keep(&bytes[taken..]);
        if side.ended {
            // Its silence has not counted so far.
            side.active = now;
        }
    }
    Ok(())
}

/// Writes a side's pending bytes, as far as it takes them.
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
    // Bytes in memory were read before those in the pipe, so they go first.
    if let Some(pipe) = side.pipe.as_mut().filter(|pipe| pipe.filled() > 0) {
        let emptied = pipe.empty(&side.fd)?;
        let left = pipe.filled();
        side.emptied(&emptied, left);
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
            side.writable = count == bytes.len();
            Ok(count)
        }
        Err(Errno::AGAIN) => {
            side.writable = false;
            Ok(0)
        }
        Err(error) if is_no_memory(error) => {
            side.retry = true;
            Ok(0)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether the kernel had no memory for a write. It makes no event when it has some again.
pub(super) fn is_no_memory(error: Errno) -> bool {
    matches!(error, Errno::NOBUFS | Errno::NOMEM)
}

/// Everything was delivered and nothing follows: sends FIN, once.
fn end(target: &mut SideState) {
    if !target.shut {
        target.shut = true;
        // ENOTCONN: the connection is gone already, and an event tells that.
        let _ = shutdown(&target.fd, Shutdown::Write);
    }
}
