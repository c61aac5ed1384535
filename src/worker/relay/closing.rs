//! Passing a reset on, but never past bytes that were already read.
//!
//! `SO_LINGER` 0 throws away what the kernel still holds for the peer, so it is set only when
//! everything is acknowledged: what the gone side had sent is read to its end and written, then the
//! kernel's send queue is waited for (`SIOCOUTQ` 0). A peer that takes nothing for
//! [`STALLED_MAX_MS`] is reset without the rest.

use super::conn::{Conn, Kind, Side, SideState};
use super::direction::{Flow, IoContext, flow};
use crate::live::Termination;
use crate::sys::raw;
use crate::worker::session_stats::WorkerStats;
use std::os::fd::AsFd;
use std::time::Duration;

/// How long the remaining side may take nothing before it is reset all the same.
const STALLED_MAX_MS: u64 = 2000;

/// A session one side of which is gone.
#[derive(Debug)]
pub(super) struct Closing {
    /// The side that is gone.
    closed: Side,
    /// How the session ends.
    end: Termination,
    /// Whether the gone side may still have data to read.
    unread: bool,
    /// Bytes that were in flight to the other side when last looked at.
    in_flight: u64,
    /// When the other side last took something.
    progressed: u64,
    /// When it is reset whatever is left: its half-closed timeout.
    until: u64,
}

impl Closing {
    /// Begins, `gone` having left at `now`.
    pub(super) fn new(conn: &Conn, closed: Side, end: Termination, now: u64) -> Self {
        let frontend = &conn.stats.frontend.spec;
        let fin = match closed.other() {
            Side::Client => frontend.timeout_client_fin,
            Side::Server => conn
                .stats
                .backend
                .as_ref()
                .and_then(|on| on.spec.timeout_server_fin),
        };
        let most = fin.map_or(u64::MAX, millis);
        Self {
            closed,
            end,
            unread: true,
            in_flight: u64::MAX,
            progressed: now,
            until: now.saturating_add(most),
        }
    }

    /// The side that is gone.
    pub(super) fn closed(&self) -> Side {
        self.closed
    }

    /// How long the other side has at most.
    pub(super) fn time_left(&self, now: u64) -> Duration {
        let stalled = self.progressed.saturating_add(STALLED_MAX_MS);
        let until = self.until.min(stalled);
        Duration::from_millis(until.saturating_sub(now))
    }

    /// The end that the session comes to.
    pub(super) fn into_end(self) -> Termination {
        self.end
    }
}

/// Delivers what can be delivered; `true` when the other side was reset and the session is over.
pub(super) fn close(
    conn: &mut Conn,
    io: &mut IoContext,
    now: u64,
    worker_stats: &WorkerStats,
) -> bool {
    let Some(closing) = &conn.closing else {
        return false;
    };
    let (closed, unread) = (closing.closed, closing.unread);
    let remaining = closed.other();
    if unread {
        conn.side_mut(closed).readable = true;
        match flow(conn, closed, io, now, worker_stats) {
            Flow::Unfinished => return false,
            Flow::Broken(side, _) if side == remaining => return true,
            Flow::Broken(..) => set_read(conn),
            Flow::Waiting if conn.side(remaining).pending_bytes() == 0 => set_read(conn),
            Flow::Waiting => {}
        }
    } else if super::direction::flush(conn.side_mut(remaining), now).is_err() {
        return true;
    }
    let side = &conn.sides[remaining as usize];
    let in_flight = side.pending_bytes() as u64 + queued(side);
    let Some(closing) = &mut conn.closing else {
        return false;
    };
    if in_flight != closing.in_flight {
        closing.in_flight = in_flight;
        closing.progressed = now;
    }
    let stalled = now >= closing.until || now - closing.progressed >= STALLED_MAX_MS;
    let delivered = in_flight == 0 && !closing.unread;
    if delivered || stalled {
        reset(side);
    }
    delivered || stalled
}

fn set_read(conn: &mut Conn) {
    if let Some(closing) = &mut conn.closing {
        closing.unread = false;
    }
}

fn queued(side: &SideState) -> u64 {
    match side.kind {
        Kind::Tcp => raw::unacknowledged(side.fd.as_fd()).map_or(0, u64::from),
        Kind::Unix => 0,
    }
}

/// Makes the coming close of a TCP socket a reset.
pub(super) fn reset(side: &SideState) {
    if side.kind == Kind::Tcp {
        // Refused only by a socket that is gone already.
        let _ = rustix::net::sockopt::set_socket_linger(&side.fd, Some(Duration::ZERO));
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
