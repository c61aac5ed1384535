//! What is told of sessions when somebody asks (`show sess`).
//!
//! A worker lists its sessions page by page: a page looks at [`PLACES_MAX`] places and tells of
//! [`VIEWS_MAX`] sessions at most, so that a hundred thousand of them are many short turns of the
//! worker. Whoever asks gets copies and puts them into words elsewhere.

use super::session_id::SessionId;
use super::session_stats::SessionStats;
use crate::config::model;
use crate::state::Frontend;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Sessions that one page tells of.
pub const VIEWS_MAX: usize = 128;

/// Places that are looked at for one page, sessions or not.
pub const PLACES_MAX: usize = 1024;

/// Which sessions are asked for; what is `None` or zero asks for all.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// This one.
    pub id: Option<SessionId>,
    /// Those of a frontend.
    pub frontend: Option<Arc<str>>,
    /// Those of a backend.
    pub backend: Option<Arc<str>>,
    /// Those that are on a server, or were asked of it last.
    pub server: Option<Arc<str>>,
    /// Those of this age at least.
    pub older: Duration,
    /// Those that no timeout will ever end, or should have ended.
    pub suspicious: bool,
    /// What has to be asked of the kernel is wanted too: addresses, keepalive.
    pub details: bool,
}

impl Wanted {
    /// Whether the session with this account is asked for.
    pub(super) fn has(&self, stats: &SessionStats) -> bool {
        let named = |wanted: &Option<Arc<str>>, name: Option<&Arc<str>>| {
            wanted.as_ref().is_none_or(|wanted| Some(wanted) == name)
        };
        let backend = stats.backend.as_ref().map(|on| &on.spec.name);
        let server = stats.server_spec().map(|spec| &spec.name);
        self.id.is_none_or(|id| id == stats.id)
            && named(&self.frontend, Some(&stats.frontend.spec.name))
            && named(&self.backend, backend)
            && named(&self.server, server)
            && (self.older.is_zero() || stats.accepted.elapsed() >= self.older)
    }

    /// Whether a session that has so much time left is asked for.
    pub(super) fn has_time(&self, left: Option<Duration>) -> bool {
        !self.suspicious || left.is_none_or(|left| left.is_zero())
    }
}

/// Where the next page of a worker begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// Among those that are relayed; those that are still connecting come first.
    pub(super) relayed: bool,
    /// The next place.
    pub(super) place: usize,
}

/// Some of a worker's sessions.
#[derive(Debug)]
pub struct Page {
    /// In no order.
    pub views: Vec<View>,
    /// Where to go on; `None` when those were the last.
    pub next: Option<Cursor>,
}

/// What is told of a session.
#[derive(Debug)]
pub struct View {
    /// Its number.
    pub id: SessionId,
    /// The client's address; `None` for a unix socket.
    pub peer: Option<SocketAddr>,
    /// When it was accepted.
    pub accepted: Instant,
    /// Where it came in.
    pub frontend: Arc<Frontend>,
    /// Where it was routed.
    pub backend: Option<Arc<model::Backend>>,
    /// The server that it is on, or that was asked last.
    pub server: Option<Arc<model::Server>>,
    /// Connection attempts after the first.
    pub retries: u32,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// Time until a timeout ends it; `None`: none will.
    pub left: Option<Duration>,
    /// The client's descriptor.
    pub client: i32,
    /// Its two sides, the client's first; `None` while no server has answered.
    pub sides: Option<[SideView; 2]>,
}

impl View {
    /// Of a session whose client has this descriptor.
    pub(super) fn new(stats: &SessionStats, client: i32, left: Option<Duration>) -> Self {
        Self {
            id: stats.id,
            peer: stats.peer,
            accepted: stats.accepted,
            frontend: Arc::clone(&stats.frontend),
            backend: stats.backend.as_ref().map(|on| Arc::clone(&on.spec)),
            server: stats.server_spec().cloned(),
            retries: stats.retries,
            bytes_in: stats.bytes_in,
            bytes_out: stats.bytes_out,
            left,
            client,
            sides: None,
        }
    }
}

/// What is told of one side of a session.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, not states of one thing"
)]
pub struct SideView {
    /// Its descriptor.
    pub fd: i32,
    /// The connection is gone: the session passes on what was read, then ends.
    pub closed: bool,
    /// The peer has said that nothing follows.
    pub ended: bool,
    /// The peer was told that nothing follows.
    pub shut: bool,
    /// Keepalive is switched on; `false` where it was not asked for.
    pub kept_alive: bool,
    /// Time until its silence ends the session; `None`: it never will.
    pub left: Option<Duration>,
    /// Bytes that were read from the other side and that it has not taken yet.
    pub pending_bytes: usize,
    /// What comes from it goes through a pipe (`splice`) and not through the buffer.
    pub spliced: bool,
    /// Our address, where it was asked for and has one.
    pub local: Option<SocketAddr>,
    /// The peer's address, where it was asked for and has one.
    pub remote: Option<SocketAddr>,
}
