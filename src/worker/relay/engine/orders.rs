//! What a worker asks the relay to do: end sessions, and list them.

use super::super::conn::{Conn, Kind, Side, SideState};
use super::super::lifecycle;
use super::super::liveness;
use super::Engine;
use crate::live::{Cause, Phase, Termination};
use crate::worker::order::ServerSet;
use crate::worker::session_id::SessionId;
use crate::worker::sessions::{Cursor, PLACES_MAX, Page, SideView, VIEWS_MAX, View, Wanted};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

impl Engine {
    /// Ends the sessions on these servers.
    pub(in super::super) fn end_sessions(&mut self, servers: &ServerSet, cause: Cause) {
        self.end_where(cause, |conn| {
            let server = conn.stats.server.as_ref();
            server.is_some_and(|on| servers.contains(on.slot.live().uid))
        });
    }

    /// Ends the session, if it is here.
    pub(in super::super) fn end_session(&mut self, id: SessionId, cause: Cause) -> bool {
        self.end_where(cause, |conn| conn.stats.id == id)
    }

    /// Ends sessions: nothing more is read, what was read is delivered for a limited time, then both sides are
    /// reset. Whether there were any.
    fn end_where(&mut self, cause: Cause, chosen: impl Fn(&Conn) -> bool) -> bool {
        self.read_clock();
        let all = self.conns.iter();
        let keys: Vec<u32> = all
            .filter(|(_, conn)| chosen(conn))
            .map(|(key, _)| key)
            .collect();
        for &key in &keys {
            // HAProxy's second letter for it, whatever the session was doing.
            let end = Termination::new(cause, Phase::Connect);
            if self.conns[key].kill(end, self.now) {
                self.begin_draining(key);
                self.serve(key);
            }
        }
        !keys.is_empty()
    }

    /// Ends all sessions at once, by resets.
    pub(in super::super) fn end_all(&mut self, cause: Cause) {
        let keys: Vec<u32> = self.conns.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.conns[key].sides.iter().for_each(lifecycle::reset);
            // The second letter is HAProxy's.
            self.remove(key, Termination::new(cause, Phase::Connect));
        }
    }

    /// A page of the sessions that are `wanted`, from entry `from` on.
    pub(in super::super) fn page(&mut self, from: usize, wanted: &Wanted) -> Page {
        self.read_clock();
        let mut views = Vec::new();
        let mut place = from;
        let most = self.conns.entries();
        let end = most.min(from.saturating_add(PLACES_MAX));
        while place < end && views.len() < VIEWS_MAX {
            let conn = u32::try_from(place)
                .ok()
                .and_then(|key| self.conns.get(key));
            views.extend(conn.and_then(|conn| view(conn, wanted, self.now)));
            place += 1;
        }
        let next = (place < most).then_some(Cursor {
            relayed: true,
            place,
        });
        Page { views, next }
    }
}

/// The view of a session at `now`, if it is wanted.
fn view(conn: &Conn, wanted: &Wanted, now: u64) -> Option<View> {
    if !wanted.has(&conn.stats) {
        return None;
    }
    let lefts = Side::BOTH.map(|side| time_left(conn, side, now));
    let left = match conn.draining() {
        Some(draining) => Some(draining.time_left(now)),
        None => lefts.into_iter().flatten().min(),
    };
    if !wanted.has_time(left) {
        return None;
    }
    let sides = Side::BOTH.map(|side| {
        let state = conn.side(side);
        let details = wanted.details.then(|| Details::of(state));
        let details = details.unwrap_or_default();
        SideView {
            fd: state.fd.as_raw_fd(),
            closed: conn
                .draining()
                .is_some_and(|draining| draining.is_closed(side)),
            ended: state.ended,
            shut: state.shut,
            kept_alive: details.kept_alive,
            left: lefts[side as usize],
            pending_bytes: state.pending_bytes(),
            spliced: state.mode.is_spliced(),
            local: details.local,
            remote: details.remote,
        }
    });
    let client = sides[Side::Client as usize].fd;
    let mut view = View::new(&conn.stats, client, left);
    view.sides = Some(sides);
    Some(view)
}

/// Time until silence of this side ends the session.
fn time_left(conn: &Conn, side: Side, now: u64) -> Option<Duration> {
    let deadline = liveness::idle_deadline(conn, side)?;
    Some(Duration::from_millis(deadline.saturating_sub(now)))
}

/// What the kernel knows of a side.
#[derive(Default)]
struct Details {
    kept_alive: bool,
    local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
}

impl Details {
    /// Reads them. A socket that is gone has none of them.
    fn of(side: &SideState) -> Self {
        let socket = socket2::SockRef::from(&side.fd);
        let address = |address: std::io::Result<socket2::SockAddr>| address.ok()?.as_socket();
        Self {
            kept_alive: side.kind == Kind::Tcp && socket.keepalive().unwrap_or(false),
            local: address(socket.local_addr()),
            remote: address(socket.peer_addr()),
        }
    }
}
