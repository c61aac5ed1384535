//! A session that has ended: the input of a log line.
//!
//! A worker makes it and sends it over a bounded channel to the log thread, which formats it. Names are shared,
//! so that a record copies no text.

use super::termination::{Cause, HeaderFailure, Phase};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// One ended session, with the figures of HAProxy's `tcplog` line.
#[derive(Debug, Clone)]
pub struct SessionRecord {
    /// The client; `None` for a unix socket, printed as `unix:1`.
    pub client: Option<SocketAddr>,
    /// When it was accepted, wall clock.
    pub accepted: SystemTime,
    /// Frontend.
    pub frontend: Arc<str>,
    /// Backend.
    pub backend: Arc<str>,
    /// Server; `None` prints `<NOSRV>`.
    pub server: Option<Arc<str>>,
    /// `Tw`: time in queues and without a usable server; `None` prints -1.
    pub wait: Option<Duration>,
    /// `Tc`: time from then until the server answered; `None` prints -1.
    pub connect: Option<Duration>,
    /// `Tt`: accept to end.
    pub total: Duration,
    /// How many sessions have got a slot before it, and itself, in the queue of its server and in that of the backend
    /// (`srv_queue`, `backend_queue`); 0: it has not waited there.
    pub queue_positions: (u32, u32),
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// First letter of the termination state.
    pub cause: Cause,
    /// Second letter.
    pub phase: Phase,
    /// Sessions of the process, this one included (`actconn`).
    pub active: u32,
    /// Sessions of the frontend, this one included.
    pub frontend_active: u32,
    /// Sessions of the backend, without this one.
    pub backend_active: u32,
    /// Sessions of the server, without this one.
    pub server_active: u32,
    /// Connection attempts after the first.
    pub retries: u32,
    /// Another server than the first was used: the retries are printed with a `+`.
    pub redispatched: bool,
    /// What the frontend's `log-suffix` has made of it.
    pub suffix: Option<Box<str>>,
}

/// A connection that ended before it was a session: the input of HAProxy's error line.
#[derive(Debug, Clone)]
pub struct EmbryonicRecord {
    /// The client; `None` for a unix socket.
    pub client: Option<SocketAddr>,
    /// When it was accepted, wall clock.
    pub accepted: SystemTime,
    /// Frontend.
    pub frontend: Arc<str>,
    /// Name of the listener.
    pub listener: Arc<str>,
    /// Why.
    pub failure: HeaderFailure,
}
