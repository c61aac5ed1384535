//! Sessions on their way to another process: what that process needs to go on with them, and the text in which it
//! gets that.
//!
//! A session is one line of `NAME=VALUE` pairs, separated by tabs. The bytes that were read and not delivered follow
//! after the last line, the client's before the server's. A reader ignores names that it does not know.
//! A [`LeavingSession`] is the old process's, an [`ArrivingSession`] the new one's. Dropping a session that leaves
//! takes it off the gauges of this process, but does not count or log an end, because it goes on.
//!
//! Times: the age of a session goes along as the time of its accept on the monotonic clock, which all processes of a
//! machine share until it is restarted. What a side's timeouts need goes along as times that have passed.

use super::relay::moved::{Detached, DetachedSide, SideFacts};
use super::session_id::SessionId;
use super::session_stats::{Delays, Moved, SessionStats, WorkerStats};
use crate::live::Cause;
use crate::live::slot::{BackendSlot, ConnSlot, Slot};
use crate::live::timing::millis;
use crate::state::{Backend, Frontend, OperState, Server, Snapshot};
use rustix::time::{ClockId, clock_gettime};
use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

pub use super::relay::moved::DetachFrom;

/// The sides, as the names in a line begin.
const SIDES: [&str; 2] = ["client", "server"];

/// A later version may write this name for a session that a reader must know more about than what stands here.
const NEEDS: &str = "needs";

/// The names that servers have now which operators have added or renamed, by their uids. A session has the one that
/// its server had when it began.
#[derive(Debug, Default)]
pub struct ServerNames(HashMap<u64, ServerName>);

#[derive(Debug)]
struct ServerName {
    now: Arc<str>,
    /// Its name in the file, if it is another.
    in_file: Option<Arc<str>>,
}

impl ServerNames {
    /// Those of the servers of `snapshot`.
    pub fn of(snapshot: &Snapshot) -> Self {
        let servers = snapshot.backends.iter().flatten();
        let servers = servers.flat_map(|backend| &backend.servers);
        let added = servers.filter(|server| server.added.is_some());
        let names = added.map(|server| {
            let name = ServerName {
                now: Arc::clone(&server.spec.name),
                in_file: server.name_in_file.clone(),
            };
            (server.live.uid, name)
        });
        Self(names.collect())
    }
}

/// A session that was taken out of the relay of its worker.
#[derive(Debug)]
pub struct LeavingSession {
    pub(super) session: Detached,
    /// When it was taken out, by the monotonic clock.
    left: Duration,
}

impl LeavingSession {
    /// A session that was taken out just now.
    pub(super) fn new(session: Detached) -> Self {
        let left = monotonic();
        Self { session, left }
    }

    /// Appends its line to `lines` and its bytes to `bytes`.
    pub fn write(&self, names: &ServerNames, (lines, bytes): (&mut String, &mut Vec<u8>)) {
        let Detached { sides, stats } = &self.session;
        let mut line = Line(lines);
        line.put("frontend", &stats.frontend().spec.name);
        if let Some(backend) = &stats.backend {
            line.put("backend", &backend.spec.name);
        }
        if let Some(server) = &stats.server {
            let name = names.0.get(&server.slot.live().uid);
            line.put("server", name.map_or(&server.spec.name, |name| &name.now));
            if let Some(in_file) = name.and_then(|name| name.in_file.as_ref()) {
                line.put("server_in_file", in_file);
            }
        }
        if let Some(peer) = stats.peer {
            line.put("peer", peer);
        }
        let began = monotonic().saturating_sub(stats.age());
        let date = stats.accepted_at().duration_since(UNIX_EPOCH);
        line.put("began_ns", began.as_nanos());
        line.put("date_ns", date.unwrap_or_default().as_nanos());
        line.put("connect_ns", stats.connect().unwrap_or_default().as_nanos());
        let delays = stats.delays();
        if let Some(time) = delays.queue {
            line.put("queue_ns", time.as_nanos());
            line.put("srv_queue", delays.server_position);
            line.put("backend_queue", delays.backend_position);
        }
        line.put("in", stats.bytes_in);
        line.put("out", stats.bytes_out);
        line.put("retries", delays.retries);
        line.put("redispatched", u8::from(delays.redispatched));
        if delays.handshake > 0 {
            line.put("handshake_ms", delays.handshake);
        }
        line.put("left_ns", self.left.as_nanos());
        for (name, side) in SIDES.into_iter().zip(sides) {
            line.put(&format!("{name}_facts"), side.facts.letters());
            line.put(&format!("{name}_silent_ms"), side.silent);
            if let Some(ago) = side.unacked {
                line.put(&format!("{name}_unacked_ms"), ago);
            }
            line.put(&format!("{name}_unsent"), side.unsent.len());
            bytes.extend_from_slice(&side.unsent);
        }
        lines.push('\n');
    }

    /// Its sockets, the client's and the server's.
    pub fn sockets(&self) -> [BorrowedFd<'_>; 2] {
        self.session
            .sides
            .each_ref()
            .map(|side| side.socket.as_fd())
    }
}

struct Line<'a>(&'a mut String);

impl Line<'_> {
    fn put(&mut self, name: &str, value: impl fmt::Display) {
        let tab = if self.0.is_empty() || self.0.ends_with('\n') {
            ""
        } else {
            "\t"
        };
        // A string takes everything.
        let _ = write!(self.0, "{tab}{name}={value}");
    }
}

/// The monotonic clock's time.
fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// A session that comes from another process. It has its slot of this process and of its frontend from the
/// beginning, so that clients that are accepted meanwhile do not get it.
#[derive(Debug)]
pub struct ArrivingSession {
    conn: ConnSlot<Frontend>,
    backend: Arc<Backend>,
    server: Arc<Server>,
    moved: Moved,
    sides: [DetachedSide; 2],
    /// When it was taken out in the other process, by the monotonic clock.
    left: Duration,
}

impl ArrivingSession {
    /// Reads a line, for this `worker` to go on with the session. Takes the session's bytes from the beginning of
    /// `bytes`, also when the result is `None`: this process does not have its frontend, backend or server, it is
    /// full, or something is missing in the line.
    pub fn parse(
        line: &str,
        bytes: &mut &[u8],
        sockets: [OwnedFd; 2],
        (snapshot, worker): (&Snapshot, usize),
    ) -> Option<Self> {
        let fields = Fields::of(line);
        let Some(unsent) = fields.unsent(bytes) else {
            // Whose bytes the others are is not known.
            *bytes = &[];
            return None;
        };
        if fields.0.contains_key(NEEDS) {
            return None;
        }
        let (frontend, backend, server) = fields.objects(snapshot)?;
        let [client, server_side] = SIDES
            .into_iter()
            .zip(sockets)
            .zip(unsent)
            .map(|((name, socket), unsent)| fields.side(name, socket, unsent))
            .collect::<Option<Vec<_>>>()?
            .try_into()
            .ok()?;
        let moved = fields.moved()?;
        let (global, maxconn) = (&snapshot.global, snapshot.maxconn);
        Some(Self {
            conn: ConnSlot::reserve(global, frontend, maxconn, worker)?,
            backend,
            server,
            moved,
            sides: [client, server_side],
            left: fields.nanos("left_ns").unwrap_or_else(monotonic),
        })
    }

    /// The name that its server has here.
    #[cfg(test)]
    pub(super) fn server_name(&self) -> &str {
        &self.server.spec.name
    }

    /// For how long it has been in neither process.
    pub(super) fn pause(&self) -> Duration {
        monotonic().saturating_sub(self.left)
    }

    /// Why it has to end, if it has: its server has gone DOWN, or what ended all sessions of its server came when this
    /// one was on its way.
    pub(super) fn end(&self) -> Option<Cause> {
        let established = self.moved.accepted + self.moved.connect;
        let missed = self.server.live.ended_since(established);
        let status = &self.server.status;
        // Maintenance ends no sessions.
        let down = status.oper == OperState::Stopped && !status.admin.is_maint();
        missed.or((down && self.server.spec.shutdown_sessions_on_down).then_some(Cause::Down))
    }

    /// As the relay of a worker takes it.
    pub(super) fn detached(self, id: SessionId, worker_stats: &WorkerStats) -> Detached {
        let token = &worker_stats.token;
        // What a side was silent for counts on while the session is in neither process.
        let away = millis(self.pause());
        self.conn.count_maximum(token);
        let backend = BackendSlot::take(&self.backend.live, token);
        let server = Slot::take(&self.server.live, token);
        let stats = SessionStats::moved(
            id,
            self.conn,
            (Arc::clone(&self.backend.spec), backend),
            (Arc::clone(&self.server.spec), server),
            self.moved,
        );
        let sides = self.sides.map(|side| DetachedSide {
            silent: side.silent.saturating_add(away),
            unacked: side.unacked.map(|ago| ago.saturating_add(away)),
            ..side
        });
        Detached { sides, stats }
    }
}

/// The values of a line by their names.
struct Fields<'a>(HashMap<&'a str, &'a str>);

impl<'a> Fields<'a> {
    fn of(line: &'a str) -> Self {
        let fields = line.split('\t').filter_map(|field| field.split_once('='));
        Self(fields.collect())
    }

    fn get<T: FromStr>(&self, name: &str) -> Option<T> {
        self.0.get(name)?.parse().ok()
    }

    fn nanos(&self, name: &str) -> Option<Duration> {
        self.get(name).map(Duration::from_nanos)
    }

    /// Its frontend, backend and server, if they are here.
    fn objects(&self, snapshot: &Snapshot) -> Option<(Arc<Frontend>, Arc<Backend>, Arc<Server>)> {
        let name = |name| self.0.get(name).copied();
        let (frontend, backend, server) = (name("frontend")?, name("backend")?, name("server")?);
        let mut frontends = snapshot.frontends.iter().flatten();
        let frontend = frontends.find(|it| &*it.spec.name == frontend)?;
        let mut backends = snapshot.backends.iter().flatten();
        let backend = backends.find(|it| &*it.spec.name == backend)?;
        let named = |name: &str| {
            let mut servers = backend.servers.iter();
            servers.find(|it| &*it.spec.name == name)
        };
        // A server that was renamed there may have the file's name here, and another one its name.
        let server = match name("server_in_file") {
            Some(in_file) => named(server)
                .filter(|it| it.name_in_file.as_deref() == Some(in_file))
                .or_else(|| named(in_file)),
            None => named(server),
        }?;
        Some((
            Arc::clone(frontend),
            Arc::clone(backend),
            Arc::clone(server),
        ))
    }

    /// The bytes of both sides, taken from the beginning of `bytes`.
    fn unsent<'b>(&self, bytes: &mut &'b [u8]) -> Option<[&'b [u8]; 2]> {
        let mut unsent = [&[][..]; 2];
        for (name, unsent) in SIDES.into_iter().zip(&mut unsent) {
            let length = self.get(&format!("{name}_unsent"))?;
            (*unsent, *bytes) = bytes.split_at_checked(length)?;
        }
        Some(unsent)
    }

    fn moved(&self) -> Option<Moved> {
        let now = Instant::now();
        let age = monotonic().saturating_sub(self.nanos("began_ns")?);
        Some(Moved {
            peer: self.get("peer"),
            accepted: now.checked_sub(age).unwrap_or(now),
            accepted_at: UNIX_EPOCH + self.nanos("date_ns")?,
            connect: self.nanos("connect_ns")?,
            delays: Delays {
                retries: self.get("retries").unwrap_or(0),
                redispatched: self.get("redispatched") == Some(1_u8),
                queue: self.nanos("queue_ns"),
                server_position: self.get("srv_queue").unwrap_or(0),
                backend_position: self.get("backend_queue").unwrap_or(0),
                handshake: self.get("handshake_ms").unwrap_or(0),
                ..Delays::default()
            },
            bytes_in: self.get("in")?,
            bytes_out: self.get("out")?,
        })
    }

    fn side(&self, name: &str, socket: OwnedFd, unsent: &[u8]) -> Option<DetachedSide> {
        let letters = self.0.get(&*format!("{name}_facts"))?;
        Some(DetachedSide {
            socket,
            unsent: unsent.into(),
            silent: self.get(&format!("{name}_silent_ms"))?,
            unacked: self.get(&format!("{name}_unacked_ms")),
            facts: SideFacts::of_letters(letters),
        })
    }
}
