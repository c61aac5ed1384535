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
use super::splice::{Filled, Manner, Pipes};
use crate::worker::account::Books;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt};
use std::io;
use std::rc::Rc;

/// Bytes read at once, and so the most that is kept of a session whose reader is slow. Larger ones
/// gain nothing but in bulk, which is spliced.
const CHUNK_MAX: usize = 32 * 1024;

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
    pub(super) fn new(books: Rc<Books>) -> Self {
        Self {
            buffer: vec![0; CHUNK_MAX].into_boxed_slice(),
            share: READS_MAX,
            moved: 0,
            pipes: Pipes::new(books),
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
    /// Bytes were moved, or the way of moving them has changed.
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
    books: &Books,
) -> Flow {
    let to = from.other();
    if conn.half(to).is_owed() {
        if let Err(error) = flush(conn.half_mut(to), now) {
            return Flow::Broken(to, error);
        }
        if conn.half(to).is_owed() {
            return Flow::Waiting;
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
        let step = if has_pipe(conn, from, tools) {
            spliced(conn, from, tools, now, books)
        } else {
            copied(conn, from, tools, now, books)
        };
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

/// Whether what comes from `from` goes through a pipe, which then is there and empty. An idle or copied
/// direction keeps none.
fn has_pipe(conn: &mut Conn, from: Side, tools: &mut Tools) -> bool {
    let wanted = conn.half(from).manner.is_spliced();
    let pipe = &mut conn.half_mut(from.other()).pipe;
    if !wanted && let Some(pipe) = pipe.take() {
        tools.pipes.give_back(pipe);
    }
    if wanted && pipe.is_none() {
        *pipe = tools.pipes.take();
    }
    pipe.is_some()
}

/// One read into the buffer, and one write of it.
fn copied(
    conn: &mut Conn,
    from: Side,
    tools: &mut Tools,
    now: u64,
    books: &Books,
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
    count_bytes(conn, from, count as u64, books);
    let target = conn.half_mut(from.other());
    write(target, &tools.buffer[..count], now).map_err(|error| (from.other(), error))?;
    Ok(Step::Moved)
}

/// One filling of the pipe, which is empty, and one emptying.
fn spliced(
    conn: &mut Conn,
    from: Side,
    tools: &mut Tools,
    now: u64,
    books: &Books,
) -> Result<Step, (Side, io::Error)> {
    let [client, server] = &mut conn.halves;
    let (source, target) = match from {
        Side::Client => (client, server),
        Side::Server => (server, client),
    };
    let Some(mut pipe) = target.pipe.take() else {
        return Ok(Step::Moved);
    };
    let filled = if source.urgent {
        Ok(Filled::Unfit)
    } else {
        pipe.fill(source)
    };
    let filled = match filled {
        Ok(filled) => filled,
        Err(error) => {
            tools.pipes.give_back(pipe);
            return Err((from, error));
        }
    };
    let step = match filled {
        Filled::Bytes(count) => {
            source.active = now;
            target.pipe = Some(pipe);
            tools.moved += count;
            count_bytes(conn, from, count, books);
            books.process().spliced_out.add(count);
            let to = from.other();
            flush(conn.half_mut(to), now).map_err(|error| (to, error))?;
            return Ok(Step::Moved);
        }
        Filled::Nothing => {
            source.readable = false;
            Step::Nothing
        }
        Filled::End => Step::End,
        Filled::Unfit => {
            source.manner = Manner::default();
            Step::Moved
        }
    };
    // An idle direction holds no pipe.
    tools.pipes.give_back(pipe);
    Ok(step)
}

fn count_bytes(conn: &mut Conn, from: Side, count: u64, books: &Books) {
    match from {
        Side::Client => conn.account.count_in(count, books),
        Side::Server => conn.account.count_out(count, books),
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
