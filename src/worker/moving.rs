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

use super::connect_policy::StayTimes;
use super::header_rule::Announced;
use super::relay::Kind;
use super::relay::moved::{Detached, DetachedSide, SideFacts};
use super::session_id::SessionId;
use super::session_stats::{Delays, Moved, Notes, OnBackend, OnServer, SessionStats, WorkerStats};
use super::unserved::{Progress, Resumed, Unserved, Wait};
use crate::live::Cause;
use crate::live::slot::{BackendSlot, ConnSlot, Slot};
use crate::live::timing::{millis, monotonic};
use crate::proto::proxy::Addresses;
use crate::state::{Backend, Frontend, OperState, Server, Snapshot};
use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

pub use super::relay::moved::DetachFrom;

/// The sides, as the names in a line begin.
const SIDES: [&str; 2] = ["client", "server"];

/// What a session needs that waits for a server: steps 5 to 9.
const UNSERVED: &str = "server";

/// How long an order of the process before may have been on its way when a session left it.
const ORDER_MAX: Duration = Duration::from_secs(1);

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

/// A session that was taken out of its worker.
#[derive(Debug)]
pub struct LeavingSession {
    pub(super) what: Leaving,
    /// When it was taken out, by the monotonic clock.
    left: Duration,
}

/// A session that is in no worker.
#[derive(Debug)]
pub(super) enum Leaving {
    /// It was in the relay.
    Relayed(Detached),
    /// It waits for a server.
    Unserved(Unserved),
}

impl LeavingSession {
    /// A session that was taken out of the relay just now.
    pub(super) fn relayed(session: Detached) -> Self {
        Self {
            what: Leaving::Relayed(session),
            left: monotonic(),
        }
    }

    /// A session that waits for a server, and was taken out just now.
    pub(super) fn unserved(session: Unserved) -> Self {
        Self {
            what: Leaving::Unserved(session),
            left: monotonic(),
        }
    }

    pub(super) fn stats(&self) -> &SessionStats {
        match &self.what {
            Leaving::Relayed(session) => &session.stats,
            Leaving::Unserved(session) => &session.stats,
        }
    }

    /// Appends its line to `lines` and its bytes to `bytes`.
    pub fn write(&self, names: &ServerNames, (lines, bytes): (&mut String, &mut Vec<u8>)) {
        let stats = self.stats();
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
        if let Some(Notes {
            unique_id,
            log_suffix,
        }) = stats.notes()
        {
            for (name, text) in [("unique_id", unique_id), ("log_suffix", log_suffix)] {
                if let Some(text) = text {
                    line.put(name, Hex(text.as_bytes()));
                }
            }
        }
        line.put("left_ns", self.left.as_nanos());
        match &self.what {
            Leaving::Relayed(session) => {
                let connect = stats.connect().unwrap_or_default();
                line.put("connect_ns", connect.as_nanos());
                line.put_sides(&session.sides, bytes);
            }
            Leaving::Unserved(session) => line.put_unserved(session),
        }
        lines.push('\n');
    }

    /// Its sockets, the client's and the server's. Without a server twice the client's, because a reader takes two.
    pub fn sockets(&self) -> [BorrowedFd<'_>; 2] {
        match &self.what {
            Leaving::Relayed(session) => session.sides.each_ref().map(|side| side.socket.as_fd()),
            Leaving::Unserved(session) => [session.client.as_fd(); 2],
        }
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

    fn put_sides(&mut self, sides: &[DetachedSide; 2], bytes: &mut Vec<u8>) {
        for (name, side) in SIDES.into_iter().zip(sides) {
            self.put(&format!("{name}_facts"), side.facts.letters());
            self.put(&format!("{name}_silent_ms"), side.silent);
            if let Some(ago) = side.unacked {
                self.put(&format!("{name}_unacked_ms"), ago);
            }
            self.put(&format!("{name}_unsent"), side.unsent.len());
            bytes.extend_from_slice(&side.unsent);
        }
    }

    fn put_unserved(&mut self, session: &Unserved) {
        self.put(NEEDS, UNSERVED);
        if session.kind == Kind::Unix {
            self.put("unix", 1);
        }
        let Resumed {
            progress,
            announced,
            ..
        } = &session.resumed;
        let Wait {
            waited,
            in_queue,
            is_counted,
            stay,
        } = progress.wait(Instant::now());
        self.put("queued_ns", waited.queue.as_nanos());
        self.put("held_ns", waited.hold.as_nanos());
        self.put("in_queue", u8::from(in_queue));
        self.put("counted", u8::from(is_counted));
        self.put("stay_ns", stay.as_nanos());
        if let Some(announced) = announced {
            if let Some(Addresses {
                source,
                destination,
            }) = announced.addresses
            {
                self.put("announced_source", source);
                self.put("announced_destination", destination);
            }
            self.put("announced_tlvs", Hex(&announced.tlvs));
            if let Some(namespace) = &announced.namespace {
                self.put("announced_netns", Hex(namespace.as_bytes()));
            }
        }
        for name in SIDES {
            self.put(&format!("{name}_unsent"), 0);
        }
    }
}

/// Bytes as hexadecimal digits.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Hex<'_> {
    fn read(digits: &str) -> Option<Box<[u8]>> {
        let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
        let value = |digit: u8| char::from(digit).to_digit(16);
        let byte = |[high, low]: &[u8; 2]| u8::try_from(value(*high)? * 16 + value(*low)?).ok();
        let bytes = pairs.iter().map(byte).collect::<Option<_>>();
        bytes.filter(|_| rest.is_empty())
    }
}

/// A session that comes from another process. It has its slot of this process and of its frontend from the
/// beginning, so that clients that are accepted meanwhile do not get it.
#[derive(Debug)]
pub struct ArrivingSession {
    conn: ConnSlot<Frontend>,
    backend: Arc<Backend>,
    moved: Moved,
    what: Arriving,
    /// When it was taken out in the other process, by the monotonic clock.
    left: Duration,
}

#[derive(Debug)]
enum Arriving {
    Relayed(Arc<Server>, [DetachedSide; 2]),
    Unserved {
        client: (OwnedFd, Kind),
        wait: Wait,
        announced: Option<Box<Announced>>,
    },
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
        let (frontend, backend) = fields.proxies(snapshot)?;
        let what = match fields.0.get(NEEDS) {
            None => {
                let server = fields.server(&backend)?;
                let sides = SIDES.into_iter().zip(sockets).zip(unsent);
                let sides = sides.map(|((name, socket), unsent)| fields.side(name, socket, unsent));
                let sides = sides.collect::<Option<Vec<_>>>()?.try_into().ok()?;
                Arriving::Relayed(server, sides)
            }
            Some(&UNSERVED) => fields.unserved(sockets)?,
            Some(_) => return None,
        };
        let moved = fields.moved()?;
        if matches!(what, Arriving::Relayed(..)) && moved.connect.is_none() {
            return None;
        }
        let (global, maxconn) = (&snapshot.global, snapshot.maxconn);
        Some(Self {
            conn: ConnSlot::reserve(global, frontend, maxconn, worker)?,
            backend,
            moved,
            what,
            left: fields.nanos("left_ns").unwrap_or_else(monotonic),
        })
    }

    /// The name that its server has here.
    #[cfg(test)]
    pub(super) fn server_name(&self) -> &str {
        match &self.what {
            Arriving::Relayed(server, _) => &server.spec.name,
            Arriving::Unserved { .. } => "",
        }
    }

    /// For how long it has been in neither process.
    pub(super) fn pause(&self) -> Duration {
        monotonic().saturating_sub(self.left)
    }

    /// Why it has to end, if it has: its server has gone DOWN, or what ended all sessions of its server came when this
    /// one was on its way.
    pub(super) fn end(&self) -> Option<Cause> {
        let Arriving::Relayed(server, _) = &self.what else {
            return None;
        };
        let established = self.moved.accepted + self.moved.connect?;
        let missed = server.live.ended_since(established);
        let status = &server.status;
        // Maintenance ends no sessions.
        let down = status.oper == OperState::Stopped && !status.admin.is_maint();
        // A session of a server that had gone down before has been left alone by the process before.
        let out = monotonic().saturating_sub(status.since.elapsed());
        let down = down && !server.fail_open && out + ORDER_MAX >= self.left;
        missed.or((down && server.spec.shutdown_sessions_on_down).then_some(Cause::Down))
    }

    /// As the worker takes it.
    pub(super) fn leaving(self, id: SessionId, worker_stats: &WorkerStats) -> Leaving {
        let token = &worker_stats.token;
        // What a side was silent for counts on while the session is in neither process.
        let away = self.pause();
        let Self {
            conn,
            backend,
            moved,
            what,
            ..
        } = self;
        conn.count_maximum(token);
        let on_backend = OnBackend {
            spec: Arc::clone(&backend.spec),
            slot: BackendSlot::take(&backend.live, token),
        };
        match what {
            Arriving::Relayed(server, sides) => {
                let on_server = OnServer {
                    spec: Arc::clone(&server.spec),
                    slot: Slot::take(&server.live, token),
                };
                let stats = SessionStats::moved(id, conn, on_backend, Some(on_server), moved);
                let sides = sides.map(|side| DetachedSide {
                    silent: side.silent.saturating_add(millis(away)),
                    unacked: side.unacked.map(|ago| ago.saturating_add(millis(away))),
                    ..side
                });
                Leaving::Relayed(Detached { sides, stats })
            }
            Arriving::Unserved {
                client: (client, kind),
                mut wait,
                announced,
            } => {
                // The time on its way is time that it waits.
                let stay = if wait.in_queue {
                    &mut wait.waited.queue
                } else {
                    &mut wait.waited.hold
                };
                *stay += away;
                let mut stats = SessionStats::moved(id, conn, on_backend, None, moved);
                stats.count_hold(wait.stay + away);
                Leaving::Unserved(Unserved {
                    client,
                    kind,
                    stats,
                    resumed: Resumed {
                        backend,
                        announced,
                        progress: Progress::Elsewhere(wait),
                        refused: (0, 0),
                    },
                })
            }
        }
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

    /// A text that is written as hexadecimal digits.
    fn text(&self, name: &str) -> Option<Box<str>> {
        let bytes = Hex::read(self.0.get(name)?)?;
        String::from_utf8(bytes.into()).ok().map(Box::from)
    }

    fn nanos(&self, name: &str) -> Option<Duration> {
        self.get(name).map(Duration::from_nanos)
    }

    /// Its frontend and backend, if they are here.
    fn proxies(&self, snapshot: &Snapshot) -> Option<(Arc<Frontend>, Arc<Backend>)> {
        let name = |name| self.0.get(name).copied();
        let (frontend, backend) = (name("frontend")?, name("backend")?);
        let mut frontends = snapshot.frontends.iter().flatten();
        let frontend = frontends.find(|it| &*it.spec.name == frontend)?;
        let mut backends = snapshot.backends.iter().flatten();
        let backend = backends.find(|it| &*it.spec.name == backend)?;
        Some((Arc::clone(frontend), Arc::clone(backend)))
    }

    /// Its server, if that is here.
    fn server(&self, backend: &Backend) -> Option<Arc<Server>> {
        let name = |name| self.0.get(name).copied();
        let server = name("server")?;
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
        Some(Arc::clone(server))
    }

    /// A session that waits for a server. `sockets`: twice the client's.
    fn unserved(&self, [client, _]: [OwnedFd; 2]) -> Option<Arriving> {
        let is_unix = self.get("unix") == Some(1_u8);
        let announced = match self.0.get("announced_tlvs") {
            None => None,
            Some(tlvs) => {
                let source = self.get("announced_source");
                let addresses = source.zip(self.get("announced_destination"));
                let addresses = addresses.map(|(source, destination)| Addresses {
                    source,
                    destination,
                });
                let tlvs = Hex::read(tlvs)?;
                Some(Box::new(Announced {
                    addresses,
                    tlvs,
                    namespace: self.text("announced_netns").map(Arc::from),
                }))
            }
        };
        Some(Arriving::Unserved {
            client: (client, if is_unix { Kind::Unix } else { Kind::Tcp }),
            wait: Wait {
                waited: StayTimes {
                    queue: self.nanos("queued_ns")?,
                    hold: self.nanos("held_ns")?,
                },
                in_queue: self.get("in_queue") == Some(1_u8),
                is_counted: self.get("counted") == Some(1_u8),
                stay: self.nanos("stay_ns")?,
            },
            announced,
        })
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
            connect: self.nanos("connect_ns"),
            delays: Delays {
                retries: self.get("retries").unwrap_or(0),
                redispatched: self.get("redispatched") == Some(1_u8),
                queue: self.nanos("queue_ns"),
                server_position: self.get("srv_queue").unwrap_or(0),
                backend_position: self.get("backend_queue").unwrap_or(0),
                handshake: self.get("handshake_ms").unwrap_or(0),
                ..Delays::default()
            },
            notes: Notes {
                unique_id: self.text("unique_id"),
                log_suffix: self.text("log_suffix"),
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
