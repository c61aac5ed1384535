//! The record of an established session and of its two sides.

use super::connecting::Connecting;
use super::lifecycle::State;
use super::splice::{Emptied, Pipe, TransferMode};
use crate::worker::session_stats::SessionStats;
use rustix::event::epoll::EventFlags;
use rustix::net::sockopt;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// The kind of a socket, where options differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Kind {
    /// TCP.
    Tcp,
    /// A unix stream socket.
    Unix,
}

/// An established session, ready for the relay.
#[derive(Debug)]
pub(in crate::worker) struct Established {
    /// The client's socket, non-blocking, nothing read from it yet.
    pub(in crate::worker) client: (OwnedFd, Kind),
    /// The server's socket; the server has answered.
    pub(in crate::worker) server: Connecting,
    /// Its statistics.
    pub(in crate::worker) stats: Box<SessionStats>,
    /// Bytes to send to the client and to the server before anything else: data that was read ahead from the
    /// other side, or a header. The one who has read them has counted them.
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

/// The state of one side. Times are milliseconds of the engine's clock.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, not states of one thing"
)]
pub(super) struct SideState {
    pub(super) fd: OwnedFd,
    pub(super) kind: Kind,
    /// There may be data to read. Cleared when all was read.
    pub(super) readable: bool,
    /// It may take bytes. A short write clears it, and the event that follows sets it: what the kernel would
    /// take before that is no room that the peer has made.
    pub(super) writable: bool,
    /// The peer has sent FIN or reset: read on until the end is seen.
    pub(super) hangup: bool,
    /// Urgent data was seen: a short read does not prove that everything was read.
    pub(super) urgent: bool,
    /// Urgent bytes stay in the stream (`SO_OOBINLINE`) instead of being lost.
    pub(super) urgent_inline: bool,
    /// The kernel had no memory for a write and makes no event when it has some. The write is tried again by
    /// time.
    pub(super) retry: bool,
    /// The end of its data was read.
    pub(super) ended: bool,
    /// FIN was sent to its peer.
    pub(super) shut: bool,
    /// Write readiness is watched: always for a server, after the first short write for a client.
    pub(super) watched: bool,
    /// Writes so far, counted up to 2.
    pub(super) writes: u8,
    /// Keepalive was switched on, or is not wanted.
    pub(super) kept_alive: bool,
    /// Bytes of the other side that this one has not taken yet.
    pub(super) unsent: Unsent,
    /// A pipe with bytes of the other side that this one has not taken yet.
    pub(super) pipe: Option<Box<Pipe>>,
    /// How bytes from this side are moved.
    pub(super) mode: TransferMode,
    /// Last time that a byte came from it or was written to it; while it has pending bytes, last time that it
    /// took some.
    pub(super) active: u64,
    /// Since when bytes that were written to it are unacknowledged. The engine's clock is never 0.
    pub(super) unacked_since: Option<NonZeroU64>,
}

impl SideState {
    pub(super) fn new((fd, kind): (OwnedFd, Kind), now: u64) -> Self {
        Self {
            fd,
            kind,
            readable: false,
            writable: true,
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

    /// A byte came from it at `now`, or it is read from again.
    pub(super) fn heard(&mut self, now: u64) {
        if !self.has_pending() {
            self.active = now;
        }
    }

    /// Bytes were written to it at `now`.
    pub(super) fn written(&mut self, now: u64) {
        self.active = now;
        if self.kind == Kind::Tcp && self.unacked_since.is_none() {
            self.unacked_since = NonZeroU64::new(now);
        }
    }

    /// A pipe was emptied into it, except for the last `left` bytes.
    pub(super) fn emptied(&mut self, emptied: &Emptied, left: usize) {
        self.retry |= emptied.no_memory;
        self.writable = left == 0 || emptied.no_memory;
    }

    /// From now on urgent bytes are part of what is read from it.
    pub(super) fn keep_urgent_inline(&mut self) {
        if !self.urgent_inline && self.kind == Kind::Tcp {
            self.urgent_inline = true;
            // Fails only when the socket is gone, which the next read tells.
            let _ = sockopt::set_socket_oobinline(&self.fd, true);
        }
    }

    /// Notes the flags of an event. Returns the socket's error, if there is one.
    pub(super) fn note(&mut self, flags: EventFlags) -> Option<io::Error> {
        self.readable |= flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP);
        self.writable |= flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR);
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

/// Bytes that were read from one side and not yet taken by the other. Boxed twice, because most sides have none.
#[derive(Debug, Default)]
pub(super) struct Unsent(Option<Box<Kept>>);

/// Bytes that are kept, never none.
#[derive(Debug)]
struct Kept {
    bytes: Box<[u8]>,
    taken: usize,
}

impl Unsent {
    pub(super) fn keep(bytes: &[u8]) -> Self {
        Self::of(bytes.into())
    }

    /// Bytes that were in a pipe.
    pub(super) fn of(bytes: Box<[u8]>) -> Self {
        let kept = (!bytes.is_empty()).then(|| Box::new(Kept { bytes, taken: 0 }));
        Self(kept)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match &self.0 {
            Some(kept) => &kept.bytes[kept.taken..],
            None => &[],
        }
    }

    /// `count` more bytes were taken.
    pub(super) fn take(&mut self, count: usize) {
        if let Some(kept) = &mut self.0 {
            kept.taken += count;
            if kept.taken == kept.bytes.len() {
                self.0 = None;
            }
        }
    }
}

/// A session in the relay.
#[derive(Debug)]
pub(super) struct Conn {
    /// Its key in the table.
    pub(super) key: u32,
    /// Distinguishes this session's events from those of an earlier one with the same key.
    pub(super) generation: u32,
    /// It is in the list of sessions to serve.
    pub(super) queued: bool,
    pub(super) sides: [SideState; 2],
    pub(super) stats: Box<SessionStats>,
    /// It is in the list of sessions that are served by time ([`super::engine`]), not by events alone.
    pub(super) rechecked: bool,
    /// The last byte came from the client, which may wait for an answer.
    pub(super) client_spoke: bool,
    /// See [`super::lifecycle`].
    pub(super) state: State,
    /// The last round of moving in which another process did not take it; 0: none.
    pub(super) refused: u32,
}

// Most of the memory of an idle session, which docs/performance.md states.
const _: () = assert!(size_of::<Conn>() <= 152);

impl Conn {
    pub(super) fn new(
        (key, generation): (u32, u32),
        [client, server]: [(OwnedFd, Kind); 2],
        stats: Box<SessionStats>,
        now: u64,
    ) -> Self {
        let mut server = SideState::new(server, now);
        // It was watched for the server's answer.
        server.watched = true;
        Self {
            key,
            generation,
            queued: false,
            sides: [SideState::new(client, now), server],
            stats,
            rechecked: false,
            client_spoke: false,
            state: State::Open,
            refused: 0,
        }
    }

    /// A session that was detached.
    pub(super) fn attached(
        (key, generation): (u32, u32),
        (sides, client_spoke): ([SideState; 2], bool),
        stats: Box<SessionStats>,
    ) -> Self {
        let ended = sides.iter().filter(|side| side.ended).count();
        Self {
            key,
            generation,
            queued: false,
            sides,
            stats,
            rechecked: false,
            client_spoke,
            state: State::of_ended(ended),
            refused: 0,
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

    /// The idle timeout of a side that is in force. Once FIN was sent to its peer, the one for half-closed
    /// sessions, as in HAProxy.
    pub(super) fn idle_timeout_of(&self, side: Side) -> Option<Duration> {
        let half_closed = self.side(side).shut;
        let frontend = &self.stats.frontend().spec;
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
        // Not `as_millis`: its 128-bit arithmetic would cost every session.
        let millis = timeout.as_secs().checked_mul(1000)?;
        millis.checked_add(u64::from(timeout.subsec_millis()))
    }

    /// Whether the silence of a side counts: rlb reads from it, or it has bytes to take. It does not count
    /// while rlb has stopped reading from it because the other side takes no bytes, nor after the side has
    /// ended.
    pub(super) fn is_timed(&self, side: Side) -> bool {
        let state = self.side(side);
        state.has_pending() || (!state.ended && !self.side(side.other()).has_pending())
    }
}
