//! What a worker tells about its sessions (`show sess`).
//!
//! A worker lists its sessions in pages. A page looks at [`PLACES_MAX`] entries and lists [`VIEWS_MAX`]
//! sessions at most, so that a hundred thousand sessions take many short turns of the worker. The one who asks
//! gets copies and formats them on another thread.

use super::session_id::SessionId;
use super::session_stats::SessionStats;
use crate::config::model;
use crate::state::Frontend;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most sessions in one page.
pub const VIEWS_MAX: usize = 128;

/// Most entries that are looked at for one page, free ones included.
pub const PLACES_MAX: usize = 1024;

/// Which sessions are listed. A field that is `None` or zero does not restrict.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The one with this number.
    pub id: Option<SessionId>,
    /// Those of this frontend.
    pub frontend: Option<Arc<str>>,
    /// Those of this backend.
    pub backend: Option<Arc<str>>,
    /// Those that are on this server, or have tried it last.
    pub server: Option<Arc<str>>,
    /// Those that are at least this old.
    pub older: Duration,
    /// Those that no timeout will end, or that a timeout should have ended.
    pub suspicious: bool,
    /// Ask the kernel too: addresses, keepalive.
    pub details: bool,
}

impl Wanted {
    /// Whether a session with these statistics is wanted.
    pub(super) fn has(&self, stats: &SessionStats) -> bool {
        let named = |wanted: &Option<Arc<str>>, name: Option<&Arc<str>>| {
            wanted.as_ref().is_none_or(|wanted| Some(wanted) == name)
        };
        let backend = stats.backend.as_ref().map(|on| &on.spec.name);
        let server = stats.server_spec().map(|spec| &spec.name);
        self.id.is_none_or(|id| id == stats.id)
            && named(&self.frontend, Some(&stats.frontend().spec.name))
            && named(&self.backend, backend)
            && named(&self.server, server)
            && (self.older.is_zero() || stats.age() >= self.older)
    }

    /// Whether a session with this much time left is wanted.
    pub(super) fn has_time(&self, left: Option<Duration>) -> bool {
        !self.suspicious || left.is_none_or(|left| left.is_zero())
    }
}

/// Where the next page of a worker begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// In the relay's table. The sessions that are still connecting come first.
    pub(super) relayed: bool,
    /// The next entry.
    pub(super) place: usize,
}

/// Some of a worker's sessions.
#[derive(Debug)]
pub struct Page {
    /// In no order.
    pub views: Vec<View>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<Cursor>,
}

/// What is listed of a session.
#[derive(Debug)]
pub struct View {
    /// Its number.
    pub id: SessionId,
    /// The client's address; `None` for a unix socket.
    pub peer: Option<SocketAddr>,
    /// When it was accepted.
    pub accepted: Instant,
    /// The frontend that accepted it.
    pub frontend: Arc<Frontend>,
    /// The backend that it was routed to.
    pub backend: Option<Arc<model::Backend>>,
    /// The server that it is on, or that was tried last.
    pub server: Option<Arc<model::Server>>,
    /// Connection attempts after the first.
    pub retries: u32,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// Time until a timeout ends it; `None`: no timeout will.
    pub left: Option<Duration>,
    /// The client's descriptor.
    pub client: i32,
    /// Its two sides, the client's first; `None` while no server has answered.
    pub sides: Option<[SideView; 2]>,
}

impl View {
    /// The view of a session whose client has this descriptor.
    pub(super) fn new(stats: &SessionStats, client: i32, left: Option<Duration>) -> Self {
        Self {
            id: stats.id,
            peer: stats.peer,
            accepted: stats.began(),
            frontend: Arc::clone(stats.frontend()),
            backend: stats.backend.as_ref().map(|on| Arc::clone(&on.spec)),
            server: stats.server_spec().cloned(),
            retries: stats.delays().retries,
            bytes_in: stats.bytes_in,
            bytes_out: stats.bytes_out,
            left,
            client,
            sides: None,
        }
    }
}

/// What is listed of one side of a session.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, not states of one thing"
)]
pub struct SideView {
    /// Its descriptor.
    pub fd: i32,
    /// The connection is closed or broken: the session passes on what was read, then ends.
    pub closed: bool,
    /// The peer has sent FIN.
    pub ended: bool,
    /// FIN was sent to the peer.
    pub shut: bool,
    /// Keepalive is on; `false` when it was not asked for.
    pub kept_alive: bool,
    /// Time until silence of this side ends the session; `None`: it never does.
    pub left: Option<Duration>,
    /// Bytes that were read from the other side and not yet taken by this one.
    pub pending_bytes: usize,
    /// Bytes from this side go through a pipe (`splice`) instead of the buffer.
    pub spliced: bool,
    /// The local address, if it was asked for and there is one.
    pub local: Option<SocketAddr>,
    /// The peer's address, if it was asked for and there is one.
    pub remote: Option<SocketAddr>,
}
