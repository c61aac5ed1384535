//! A session that leaves one relay and goes on in another, of the same or of another process.
//!
//! Between [`Relay::detach`] and [`Relay::attach`] nothing reads from its sockets or writes to them. All that was
//! read and not delivered goes along, so no byte is lost, doubled or moved.

use super::Relay;
use super::conn::{Kind, SideState, Unsent};
use crate::worker::session_stats::SessionStats;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;

/// A session that is in no relay.
#[derive(Debug)]
pub(in crate::worker) struct Detached {
    /// The client's and the server's.
    pub(in crate::worker) sides: [DetachedSide; 2],
    /// Its statistics: it is counted where they are.
    pub(in crate::worker) stats: Box<SessionStats>,
}

/// One side of it.
#[derive(Debug)]
pub(in crate::worker) struct DetachedSide {
    /// The socket.
    pub socket: OwnedFd,
    /// Bytes of the other side that it has not taken yet.
    pub unsent: Box<[u8]>,
    /// Milliseconds since the time from which its silence counts.
    pub silent: u64,
    /// Milliseconds since bytes that were written to it are unacknowledged.
    pub unacked: Option<u64>,
    /// What else holds.
    pub facts: SideFacts,
}

/// What holds for a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, not states of one thing"
)]
pub(in crate::worker) struct SideFacts {
    /// It is a unix socket.
    pub unix: bool,
    /// The end of its data was read.
    pub ended: bool,
    /// FIN was sent to its peer.
    pub shut: bool,
    /// It may take bytes: no write was short since it has last made room.
    pub writable: bool,
    /// Urgent data was seen.
    pub urgent: bool,
    /// Urgent bytes stay in the stream.
    pub urgent_inline: bool,
    /// `TCP_NODELAY` is set.
    pub nodelay: bool,
    /// Keepalive was switched on, or is not wanted.
    pub kept_alive: bool,
    /// It is the client's, and the last byte came from it.
    pub spoke: bool,
}

impl SideFacts {
    /// A letter for each that holds.
    pub(in crate::worker) fn letters(self) -> String {
        let Self {
            unix,
            ended,
            shut,
            writable,
            urgent,
            urgent_inline,
            nodelay,
            kept_alive,
            spoke,
        } = self;
        let facts = [
            ('u', unix),
            ('e', ended),
            ('s', shut),
            ('w', writable),
            ('g', urgent),
            ('i', urgent_inline),
            ('n', nodelay),
            ('k', kept_alive),
            ('l', spoke),
        ];
        let holding = facts.iter().filter(|(_, holds)| *holds);
        holding.map(|(letter, _)| letter).collect()
    }

    /// What these letters say; unknown ones say nothing.
    pub(in crate::worker) fn of_letters(letters: &str) -> Self {
        let has = |letter| letters.contains(letter);
        Self {
            unix: has('u'),
            ended: has('e'),
            shut: has('s'),
            writable: has('w'),
            urgent: has('g'),
            urgent_inline: has('i'),
            nodelay: has('n'),
            kept_alive: has('k'),
            spoke: has('l'),
        }
    }
}

/// Where to begin taking out sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DetachFrom {
    /// The round of moving, not 0. A session that was refused in this round stays.
    pub round: u32,
    /// The pass over all sessions, not 0. A session that waits for a server and was refused in this pass stays: the
    /// reason may be gone in the next one, and in this process it learns of no server that becomes usable.
    pub pass: u32,
    /// Entry of the relay's table.
    pub place: usize,
}

impl DetachFrom {
    /// The place of what waits for a server: behind all entries.
    pub(in crate::worker) const BEHIND_THE_RELAY: usize = usize::MAX;
}

/// Sessions that were detached at once.
#[derive(Debug)]
pub(in crate::worker) struct DetachedPart {
    /// The sessions.
    pub(in crate::worker) sessions: Vec<Detached>,
    /// The entry to go on at; `None`: there is no further one.
    pub(in crate::worker) next: Option<usize>,
}

impl Relay {
    /// Takes out up to `most` sessions, but none that is about to end. The worker lasts until
    /// [`Relay::decided`] has been called for all of them.
    pub(in crate::worker) fn detach(&self, from: DetachFrom, most: usize) -> DetachedPart {
        let part = self.engine.borrow_mut().detach(from, most);
        self.away.set(self.away.get() + part.sessions.len());
        self.notice_end();
        part
    }

    /// A session that is in no relay goes to another process, or comes back: the worker lasts until [`Relay::decided`]
    /// has been called for it.
    pub(in crate::worker) fn lasts_for_one_more(&self) {
        self.away.set(self.away.get() + 1);
    }

    /// What became of `count` sessions that were taken out: those in `back` were refused in this `round` and go on
    /// here, the others were moved. Those whose server has lost its sessions meanwhile end: the order did not find them.
    pub(in crate::worker) fn decided(&self, count: usize, back: Vec<Detached>, round: u32) {
        for session in back {
            let (id, missed) = (session.stats.id, session.stats.missed_end());
            self.engine.borrow_mut().attach(session, round);
            if let Some(cause) = missed {
                self.end_session(id, cause);
            }
        }
        self.away.set(self.away.get().saturating_sub(count));
        if self.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Goes on with a session of another relay.
    pub(in crate::worker) fn attach(&self, session: Detached) {
        self.engine.borrow_mut().attach(session, 0);
    }
}

impl SideState {
    /// The side as it goes on elsewhere, at `now`. Its pipe must be empty. `spoke`: it is the client's, and the last
    /// byte came from it.
    pub(super) fn detached(self, spoke: bool, now: u64) -> DetachedSide {
        debug_assert!(self.pipe.is_none(), "what is in a pipe stays behind");
        DetachedSide {
            silent: now.saturating_sub(self.active),
            unacked: self
                .unacked_since
                .map(|since| now.saturating_sub(since.get())),
            facts: SideFacts {
                unix: self.kind == Kind::Unix,
                ended: self.ended,
                shut: self.shut,
                writable: self.writable,
                urgent: self.urgent,
                urgent_inline: self.urgent_inline,
                nodelay: self.writes >= 2,
                kept_alive: self.kept_alive,
                spoke,
            },
            unsent: self.unsent.bytes().into(),
            socket: self.fd,
        }
    }

    /// A side that comes from elsewhere, at `now`. It is read from at once, because what came meanwhile made no event
    /// here.
    pub(super) fn attached(side: DetachedSide, now: u64) -> Self {
        let facts = side.facts;
        let kind = if facts.unix { Kind::Unix } else { Kind::Tcp };
        let mut state = Self::new((side.socket, kind), now);
        state.readable = true;
        state.writable = facts.writable;
        state.ended = facts.ended;
        state.shut = facts.shut;
        state.urgent = facts.urgent;
        state.urgent_inline = facts.urgent_inline;
        state.writes = if facts.nodelay { 2 } else { 0 };
        state.kept_alive = facts.kept_alive;
        state.unsent = Unsent::of(side.unsent);
        state.active = now.saturating_sub(side.silent);
        state.unacked_since = side
            .unacked
            .and_then(|ago| NonZeroU64::new(now.saturating_sub(ago)));
        state
    }
}
