//! The states of an established session, and how it ends. Runs on a worker.
//!
//! `docs/internals/session.md` has the diagram. Only this file changes a session's [`State`]. The engine tells
//! it what has happened and carries out what follows.
//!
//! A session drains before every end that does not close both sides at once. Closing a socket discards what the
//! kernel still holds for the peer when `SO_LINGER` is 0, and also when there is unread data. So draining waits
//! until the peer has acknowledged everything (`SIOCOUTQ` is 0), for a limited time:
//! | what has happened | still read | receives what was read | for at most | then |
//! |---|---|---|---|---|
//! | one side's connection broke | that side, to its end | the other | [`STALLED_MAX_MS`] without progress, its timeout | reset |
//! | one side timed out while the other had bytes to take | nothing | the other | its timeout without progress | FIN |
//! | the session was ended by an order | nothing | both | [`KILL_FLUSH_MAX_MS`] | reset of both |

use super::conn::{Conn, Kind, Side, SideState};
use super::direction::{Flow, IoContext, flow, flush};
use super::splice::TransferMode;
use crate::live::{Cause, Phase, Termination};
use crate::sys::raw;
use crate::sys::socket::reset_when_closed;
use crate::worker::session_stats::WorkerStats;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// How long the remaining side may take nothing before it is reset without the rest, ms.
const STALLED_MAX_MS: u64 = 2000;

/// How long a session that an order has ended may still deliver what was read, ms.
const KILL_FLUSH_MAX_MS: u64 = 100;

/// The state of a session. A session that has ended is no longer in the table.
#[derive(Debug)]
pub(super) enum State {
    /// Both sides may send.
    Open,
    /// One side has ended (FIN); the other may still send.
    HalfClosed,
    /// Both sides have ended. The session ends when both have taken what was read for them.
    Finishing,
    /// The session is to end: what was read is delivered for a limited time.
    Draining(Box<Draining>),
    /// It has ended.
    Done,
}

impl State {
    /// The state of a session that does not drain, by the number of sides that have ended.
    pub(super) fn of_ended(sides: usize) -> Self {
        match sides {
            0 => Self::Open,
            1 => Self::HalfClosed,
            _ => Self::Finishing,
        }
    }
}

/// What a session still delivers before it ends.
#[derive(Debug)]
pub(super) struct Draining {
    reason: Reason,
    /// How the session ends.
    end: Termination,
    /// Bytes that the receiving sides have not taken or acknowledged at the last look; `None` before the first
    /// look.
    in_flight: Option<u64>,
    /// When `in_flight` last changed. Before the first look: when draining began, or when the receiving side
    /// was last active.
    progressed: u64,
    /// How long there may be no progress, ms.
    stall_max: u64,
    /// When it ends even if bytes are left.
    until: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// The connection of this side is gone. `unread`: it may still have data to read.
    Broken { side: Side, unread: bool },
    /// This side was silent for too long.
    TimedOut(Side),
    /// An order has ended the session.
    Killed,
}

/// The result of one attempt to drain.
#[derive(Debug)]
pub(super) enum Drained {
    /// Waits for an event or for time.
    Waiting,
    /// Could go on; its share of the turn is used up.
    Unfinished,
    /// The session has ended.
    Over(Termination),
}

impl Draining {
    fn new(reason: Reason, end: Termination, now: u64) -> Self {
        Self {
            reason,
            end,
            in_flight: None,
            progressed: now,
            stall_max: u64::MAX,
            until: u64::MAX,
        }
    }

    /// Whether nothing is exchanged with this side any more.
    pub(super) fn is_closed(&self, side: Side) -> bool {
        match self.reason {
            Reason::Broken { side: closed, .. } | Reason::TimedOut(closed) => closed == side,
            Reason::Killed => true,
        }
    }

    /// Whether it was ended by an order.
    pub(super) fn is_killed(&self) -> bool {
        self.reason == Reason::Killed
    }

    /// Whether it is served by time. It lasts seconds at most, and the kernel makes no event when a peer
    /// acknowledges.
    pub(super) fn needs_recheck(&self) -> bool {
        !matches!(self.reason, Reason::TimedOut(_))
    }

    /// When it ends at the latest if nothing moves, ms of the engine's clock.
    pub(super) fn deadline(&self) -> u64 {
        let stalled = self.progressed.saturating_add(self.stall_max);
        self.until.min(stalled)
    }

    /// How long it lasts at most if nothing moves.
    pub(super) fn time_left(&self, now: u64) -> Duration {
        Duration::from_millis(self.deadline().saturating_sub(now))
    }

    /// Whether this side is to receive what was read for it.
    fn receives(&self, side: Side) -> bool {
        self.reason == Reason::Killed || !self.is_closed(side)
    }

    /// Whether it ends by a reset.
    fn resets(&self) -> bool {
        !matches!(self.reason, Reason::TimedOut(_))
    }
}

impl Conn {
    /// The draining of the session, if it drains.
    pub(super) fn draining(&self) -> Option<&Draining> {
        match &self.state {
            State::Draining(draining) => Some(draining),
            _ => None,
        }
    }

    /// Whether the session is over: both sides have ended and have taken everything.
    pub(super) fn is_finished(&self) -> bool {
        matches!(self.state, State::Finishing) && !self.sides.iter().any(SideState::has_pending)
    }

    /// The end of the stream from `from` was read.
    pub(super) fn read_end(&mut self, from: Side) {
        debug_assert!(!self.side(from).ended, "a side ends once");
        self.side_mut(from).ended = true;
        match self.state {
            State::Open => self.state = State::HalfClosed,
            State::HalfClosed => self.state = State::Finishing,
            State::Finishing | State::Done => debug_assert!(false, "nothing is read any more"),
            State::Draining(_) => {}
        }
        self.check();
    }

    /// The connection of `side` is gone. Returns whether the session drains because of it.
    ///
    /// A server that has sent FIN has sent everything, and its reset concerns only what comes after: HAProxy
    /// calls that a normal end. When the client has ended too and the server has taken everything, the reset
    /// loses nothing, and the client goes on receiving.
    pub(super) fn break_off(&mut self, side: Side, error: io::Error, now: u64) -> bool {
        match self.state {
            State::Draining(_) | State::Done => return false,
            State::Finishing if !self.side(side).has_pending() => return false,
            State::Open | State::HalfClosed | State::Finishing => {}
        }
        let end = match side {
            Side::Server if self.side(side).ended => Termination::normal(),
            Side::Server => Termination::because(Cause::Server, Phase::Data, error),
            Side::Client => Termination::because(Cause::Client, Phase::Data, error),
        };
        let reason = Reason::Broken { side, unread: true };
        let mut draining = Draining::new(reason, end, now);
        draining.stall_max = STALLED_MAX_MS;
        let most = self.idle_timeout(side.other());
        draining.until = now.saturating_add(most.unwrap_or(u64::MAX));
        self.state = State::Draining(Box::new(draining));
        // By reads: a splice stops at urgent data.
        self.side_mut(side).mode = TransferMode::default();
        true
    }

    /// `side` was silent for longer than its timeout. Returns the end of the session, or `None` when the other
    /// side has bytes to take first.
    pub(super) fn time_out(&mut self, side: Side) -> Option<Termination> {
        debug_assert!(self.draining().is_none(), "it has a deadline of its own");
        let cause = match side {
            Side::Client => Cause::ClientTimeout,
            Side::Server => Cause::ServerTimeout,
        };
        let end = Termination::new(cause, Phase::Data);
        let other = self.side(side.other());
        if !other.has_pending() {
            self.state = State::Done;
            return Some(end);
        }
        let mut draining = Draining::new(Reason::TimedOut(side), end, other.active);
        draining.stall_max = self.idle_timeout(side.other()).unwrap_or(u64::MAX);
        disconnect(self.side(side));
        self.state = State::Draining(Box::new(draining));
        None
    }

    /// An order or its age ends the session, by `end`. If it drains already, its end stays. Returns `false` when an order
    /// has ended it before.
    pub(super) fn kill(&mut self, end: Termination, now: u64) -> bool {
        let end = match std::mem::replace(&mut self.state, State::Done) {
            State::Draining(draining) if draining.reason == Reason::Killed => {
                self.state = State::Draining(draining);
                return false;
            }
            State::Draining(draining) => draining.end,
            _ => end,
        };
        let mut draining = Draining::new(Reason::Killed, end, now);
        draining.until = now.saturating_add(KILL_FLUSH_MAX_MS);
        self.state = State::Draining(Box::new(draining));
        true
    }

    /// The session ends now. Returns the end that it was draining for, otherwise `end`.
    pub(super) fn finish(&mut self, end: Termination) -> Termination {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Draining(draining) => draining.end,
            _ => end,
        }
    }

    /// Asserts what holds for the two sides in each state.
    fn check(&self) {
        let ended = self.sides.iter().filter(|side| side.ended).count();
        match self.state {
            State::Open => debug_assert_eq!(ended, 0),
            State::HalfClosed => debug_assert_eq!(ended, 1),
            State::Finishing => debug_assert_eq!(ended, 2),
            State::Draining(_) | State::Done => {}
        }
        for side in Side::BOTH {
            debug_assert!(
                !self.side(side).shut || self.side(side.other()).ended,
                "an end is passed on, never made up"
            );
        }
    }
}

/// Delivers what can be delivered of a session that drains.
pub(super) fn drain(
    conn: &mut Conn,
    io: &mut IoContext,
    now: u64,
    worker_stats: &WorkerStats,
) -> Drained {
    let State::Draining(draining) = &conn.state else {
        debug_assert!(false, "only a session that drains is drained");
        return Drained::Waiting;
    };
    let mut unfinished = false;
    if let Reason::Broken { side, unread: true } = draining.reason {
        conn.side_mut(side).readable = true;
        match flow(conn, side, io, now, worker_stats) {
            Flow::Unfinished => unfinished = true,
            Flow::Waiting if conn.side(side.other()).has_pending() => {}
            Flow::Broken(broken, _) if broken != side => return over(conn),
            Flow::Waiting | Flow::Broken(..) => {
                if let State::Draining(draining) = &mut conn.state {
                    draining.reason = Reason::Broken {
                        side,
                        unread: false,
                    };
                }
            }
        }
    }
    let State::Draining(draining) = &mut conn.state else {
        return Drained::Waiting;
    };
    let mut in_flight = 0;
    for side in Side::BOTH {
        if !draining.receives(side) {
            continue;
        }
        let state = &mut conn.sides[side as usize];
        // A side that cannot be written to receives nothing more.
        if state.has_pending() && flush(state, now).is_err() {
            continue;
        }
        in_flight += state.pending_bytes() as u64 + unacknowledged(state);
    }
    if draining.in_flight.is_some_and(|before| before != in_flight) {
        draining.progressed = now;
    }
    draining.in_flight = Some(in_flight);
    let unread = matches!(draining.reason, Reason::Broken { unread: true, .. });
    let delivered = in_flight == 0 && !unread;
    if delivered || now >= draining.deadline() {
        over(conn)
    } else if unfinished {
        Drained::Unfinished
    } else {
        Drained::Waiting
    }
}

/// A session that has drained ends.
fn over(conn: &mut Conn) -> Drained {
    let State::Draining(draining) = std::mem::replace(&mut conn.state, State::Done) else {
        return Drained::Waiting;
    };
    for side in Side::BOTH {
        if draining.resets() && draining.receives(side) {
            reset(conn.side(side));
        }
    }
    Drained::Over(draining.end)
}

/// Bytes that a TCP peer has not acknowledged.
fn unacknowledged(side: &SideState) -> u64 {
    match side.kind {
        Kind::Tcp => raw::unacknowledged(side.fd.as_fd()).map_or(0, u64::from),
        // What was written to a unix socket is in the peer's queue, and stays there.
        Kind::Unix => 0,
    }
}

/// Makes the coming close of a TCP socket a reset.
pub(super) fn reset(side: &SideState) {
    if side.kind == Kind::Tcp {
        reset_when_closed(&side.fd);
    }
}

/// Ends the connection of a side at once: TCP by a reset.
fn disconnect(side: &SideState) {
    // Both fail only when the socket is gone already.
    let _ = match side.kind {
        Kind::Tcp => rustix::net::connect_unspec(&side.fd),
        Kind::Unix => rustix::net::shutdown(&side.fd, rustix::net::Shutdown::Both),
    };
}
