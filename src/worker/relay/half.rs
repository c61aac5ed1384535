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
use crate::worker::account::Books;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt};
use std::io;

/// Bytes read at once, and so the most that is kept of a session whose reader is slow. Larger ones
/// gain nothing but in bulk, and cost memory there.
pub(super) const CHUNK_MAX: usize = 32 * 1024;

/// Reads of one direction in one turn, so that a bulk transfer does not starve its neighbours.
const READS_MAX: usize = 16;

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

/// Moves bytes from `from` to the other side.
pub(super) fn flow(
    conn: &mut Conn,
    from: Side,
    buffer: &mut [u8],
    now: u64,
    books: &Books,
) -> Flow {
    for _ in 0..READS_MAX {
        if let Err(error) = flush(conn.half_mut(from.other()), now) {
            return Flow::Broken(from.other(), error);
        }
        let target = conn.half(from.other());
        if !target.rest.is_empty() {
            return Flow::Waiting;
        }
        if conn.half(from).ended {
            // Where a reset is to follow, an orderly end must not come before it; and where both
            // sides have ended and all is delivered, the close that comes now says the same.
            let over = conn.half(from.other()).ended && conn.half(from).rest.is_empty();
            if conn.closing.is_none() && !over {
                end(conn.half_mut(from.other()));
            }
            return Flow::Waiting;
        }
        if !conn.half(from).readable {
            return Flow::Waiting;
        }
        let count = match read(conn.half_mut(from), buffer, now) {
            Ok(Some(0)) => {
                conn.half_mut(from).ended = true;
                continue;
            }
            Ok(Some(count)) => count,
            Ok(None) => return Flow::Waiting,
            Err(error) => return Flow::Broken(from, error),
        };
        match from {
            Side::Client => conn.account.count_in(count as u64, books),
            Side::Server => conn.account.count_out(count as u64, books),
        }
        if let Err(error) = write(conn.half_mut(from.other()), &buffer[..count], now) {
            return Flow::Broken(from.other(), error);
        }
    }
    Flow::Unfinished
}

/// Reads; `None` when there is nothing, 0 at the end.
fn read(half: &mut Half, buffer: &mut [u8], now: u64) -> io::Result<Option<usize>> {
    let asked = buffer.len();
    match recv(&half.fd, buffer, RecvFlags::empty()) {
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
        Err(Errno::INTR) => Ok(None),
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

/// Writes what is kept for a side, as far as it takes it.
pub(super) fn flush(half: &mut Half, now: u64) -> io::Result<()> {
    if half.rest.is_empty() {
        return Ok(());
    }
    let rest = std::mem::take(&mut half.rest);
    let taken = push(half, rest.bytes(), now);
    half.rest = rest;
    half.rest.take(taken?);
    Ok(())
}

fn push(half: &mut Half, bytes: &[u8], now: u64) -> io::Result<usize> {
    match send(&half.fd, bytes, SendFlags::NOSIGNAL) {
        Ok(count) => {
            half.active = now;
            if half.kind == Kind::Tcp && half.unproven.is_none() {
                half.unproven = Some(now);
            }
            Ok(count)
        }
        Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::NOMEM) => Ok(0),
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
