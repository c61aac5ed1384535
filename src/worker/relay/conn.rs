//! The record of an established session, and the state of each of its two sides.

use super::connecting::Connecting;
use super::lifecycle::State;
use super::splice::{Pipe, TransferMode};
use crate::worker::session_stats::SessionStats;
use rustix::event::epoll::EventFlags;
use rustix::net::sockopt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Kind of a socket, as far as options differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Kind {
    /// TCP.
    Tcp,
    /// A unix stream socket.
    Unix,
}

/// An established session, ready to be handed over.
#[derive(Debug)]
pub(in crate::worker) struct Established {
    /// The client's socket, non-blocking, nothing read from it yet.
    pub(in crate::worker) client: (OwnedFd, Kind),
    /// The server's, which has answered.
    pub(in crate::worker) server: Connecting,
    /// What it is counted on.
    pub(in crate::worker) stats: SessionStats,
    /// Bytes to be sent to the client and to the server before anything else: what was read ahead from
    /// the other side, or a header. Whoever has read them has counted them.
    pub(in crate::worker) prefix: [Option<Box<[u8]>>; 2],
}

/// One of the two sides of a session, and the index of its [`SideState`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client = 0,
    Server = 1,
}

impl Side {
    pub(super) const BOTH: [Self; 2] = [Self::Client, Self::Server];

    pub(super) fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// What is known of one side. Times are milliseconds of the engine's clock.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, not states of one thing"
)]
pub(super) struct SideState {
    pub(super) fd: OwnedFd,
    pub(super) kind: Kind,
    /// There may be something to read. Cleared by reading it all.
    pub(super) readable: bool,
    /// The peer has said that nothing follows: read on until the end is seen.
    pub(super) hangup: bool,
    /// Urgent data was seen: a short read no longer proves that all was read.
    pub(super) urgent: bool,
    /// Urgent bytes stay in their place (`SO_OOBINLINE`) instead of being lost.
    pub(super) urgent_inline: bool,
    /// The kernel had no memory for a write. No event tells when it has: the write is tried again by time.
    pub(super) retry: bool,
    /// The end of its data was read.
    pub(super) ended: bool,
    /// Its peer was told that nothing follows.
    pub(super) shut: bool,
    /// Write readiness is watched: a server's always, a client's once a write has been short.
    pub(super) watched: bool,
    /// Writes so far, as far as it matters (to the second).
    pub(super) writes: u8,
    /// Keepalive was switched on, or is not wanted.
    pub(super) kept_alive: bool,
    /// Bytes of the other side that this one has not taken yet.
    pub(super) unsent: Unsent,
    /// A pipe with bytes of the other side that this one has not taken yet.
    pub(super) pipe: Option<Box<Pipe>>,
    /// How what comes from it is moved.
    pub(super) mode: TransferMode,
    /// Last time that a byte came from it or was taken by it.
    pub(super) active: u64,
    /// Since when bytes written to it lack a proof of arrival.
    pub(super) unacked_since: Option<u64>,
}

impl SideState {
    pub(super) fn new((fd, kind): (OwnedFd, Kind), now: u64) -> Self {
        Self {
            fd,
            kind,
            readable: false,
            hangup: false,
            urgent: false,
            urgent_inline: false,
            retry: false,
            ended: false,
            shut: false,
            watched: false,
            writes: 0,
            kept_alive: kind == Kind::Unix,
            unsent: Unsent::default(),
            pipe: None,
            mode: TransferMode::default(),
            active: now,
            unacked_since: None,
        }
    }

    /// Bytes of the other side that were read and that it has not taken yet.
    pub(super) fn pending_bytes(&self) -> usize {
        self.unsent.bytes().len() + self.pipe.as_ref().map_or(0, |pipe| pipe.filled())
    }

    /// Whether there are such bytes.
    pub(super) fn has_pending(&self) -> bool {
        !self.unsent.is_empty() || self.pipe.as_ref().is_some_and(|pipe| pipe.filled() > 0)
    }

    /// It has taken bytes at `now`.
    pub(super) fn written(&mut self, now: u64) {
        self.active = now;
        if self.kind == Kind::Tcp && self.unacked_since.is_none() {
            self.unacked_since = Some(now);
        }
    }

    /// From here on urgent bytes are part of what is read from it.
    pub(super) fn keep_urgent_inline(&mut self) {
        if !self.urgent_inline && self.kind == Kind::Tcp {
            self.urgent_inline = true;
            // Refused only by a socket that is gone, which the next read tells.
            let _ = sockopt::set_socket_oobinline(&self.fd, true);
        }
    }

    /// Notes what an event says: the error that it tells of, if any.
    pub(super) fn note(&mut self, flags: EventFlags) -> Option<io::Error> {
        self.readable |= flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP);
        self.hangup |= flags.intersects(EventFlags::RDHUP | EventFlags::HUP);
        if flags.contains(EventFlags::PRI) && !self.urgent {
            self.urgent = true;
            self.readable = true;
            self.keep_urgent_inline();
        }
        if flags.contains(EventFlags::ERR) {
            self.pending_error()
        } else {
            None
        }
    }

    /// The error that the socket has pending, if any.
    fn pending_error(&self) -> Option<io::Error> {
        match sockopt::socket_error(self.fd.as_fd()) {
            Ok(Ok(())) => None,
            Ok(Err(error)) | Err(error) => Some(error.into()),
        }
    }
}

/// Bytes that were read from one side and not yet taken by the other. Empty costs nothing.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    bytes: Box<[u8]>,
    taken: usize,
}

impl Unsent {
    pub(super) fn keep(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.into(),
            taken: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// Bytes that were in a pipe.
    pub(super) fn of(bytes: Box<[u8]>) -> Self {
        Self { bytes, taken: 0 }
    }

    /// `count` more bytes were taken.
    pub(super) fn take(&mut self, count: usize) {
        self.taken += count;
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

/// A session in the relay.
#[derive(Debug)]
pub(super) struct Conn {
    /// Its place in the table.
    pub(super) key: u32,
    /// Tells this session's events from those of an earlier one in the same place.
    pub(super) generation: u32,
    /// It is in the list of sessions to be served.
    pub(super) queued: bool,
    pub(super) sides: [SideState; 2],
    pub(super) stats: SessionStats,
    /// Served by time too ([`super::engine`]), not by events alone.
    pub(super) rechecked: bool,
    /// How far it is.
    pub(super) state: State,
}

impl Conn {
    pub(super) fn new(
        (key, generation): (u32, u32),
        [client, server]: [(OwnedFd, Kind); 2],
        stats: SessionStats,
        now: u64,
    ) -> Self {
        let mut server = SideState::new(server, now);
        // It was, to learn of its answer.
        server.watched = true;
        Self {
            key,
            generation,
            queued: false,
            sides: [SideState::new(client, now), server],
            stats,
            rechecked: false,
            state: State::Open,
        }
    }

    pub(super) fn side(&self, side: Side) -> &SideState {
        &self.sides[side as usize]
    }

    pub(super) fn side_mut(&mut self, side: Side) -> &mut SideState {
        &mut self.sides[side as usize]
    }

    /// Whether the direction that comes from this side has anything to do.
    pub(super) fn is_moving(&self, from: Side) -> bool {
        let source = self.side(from);
        source.readable || source.ended || self.side(from.other()).has_pending()
    }

    /// The idle timeout of a side in force now: the one for half-closed sessions once its peer was told
    /// that nothing follows. As in HAProxy.
    pub(super) fn idle_timeout_of(&self, side: Side) -> Option<Duration> {
        let half_closed = self.side(side).shut;
        let frontend = &self.stats.frontend.spec;
        let backend = self.stats.backend.as_ref().map(|on| &on.spec);
        match (side, half_closed) {
            (Side::Client, false) => frontend.timeout_client,
            (Side::Client, true) => frontend.timeout_client_fin,
            (Side::Server, false) => backend.and_then(|spec| spec.timeout_server),
            (Side::Server, true) => backend.and_then(|spec| spec.timeout_server_fin),
        }
    }

    /// The same in ms.
    pub(super) fn idle_timeout(&self, side: Side) -> Option<u64> {
        let timeout = self.idle_timeout_of(side)?;
        // Not as_millis, whose 128 bits every session would pay for.
        let millis = timeout.as_secs().checked_mul(1000)?;
        millis.checked_add(u64::from(timeout.subsec_millis()))
    }

    /// Whether the silence of a side counts: it is being read from, or has bytes to take. It does not
    /// while rlb itself has stopped reading from it because the other side does not take its bytes, nor
    /// once it has ended.
    pub(super) fn is_timed(&self, side: Side) -> bool {
        let state = self.side(side);
        state.has_pending() || (!state.ended && !self.side(side.other()).has_pending())
    }
}
