//! The statistics of one session, from accept to its log line: its gauges, bytes and times.
//!
//! Runs on a worker. [`SessionStats::finish`] is step 10, the only place where an ended session is counted and
//! logged.

use super::server_connect::QueueStay;
use super::session_id::SessionId;
use crate::config::model;
use crate::live::slot::{BackendSlot, ConnSlot, Slot};
use crate::live::timing::{millis, nanos};
use crate::live::{
    Cause, EmbryonicRecord, EndCounters, FailureCause, GlobalLive, GlobalTraffic, HeaderFailure,
    LogEntry, LogQueue, Phase, SessionRecord, ShortageStep, Termination, Traffic, WorkerToken,
};
use crate::state::{Frontend, Server};
use crate::sys::limits::Shortage;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The counters and the log queue of a worker, shared by its sessions.
#[derive(Debug)]
pub(super) struct WorkerStats {
    /// Permits writing this worker's shards.
    pub(super) token: WorkerToken,
    /// The counters of the process.
    pub(super) global: Arc<GlobalLive>,
    /// Where session lines go.
    pub(super) log: LogQueue,
}

impl WorkerStats {
    /// This worker's shard of the process's counters.
    pub(super) fn process(&self) -> &GlobalTraffic {
        self.global.traffic.mine(&self.token)
    }
}

/// The second of the process's clock in which this nanosecond is.
fn second_of(nanos: i64) -> u32 {
    let nanos = u64::try_from(nanos).unwrap_or(0);
    u32::try_from(nanos / 1_000_000_000).unwrap_or(u32::MAX - 1)
}

/// The nanoseconds of a time, 1 instead of 0.
fn not_zero(time: Duration) -> NonZeroU64 {
    NonZeroU64::new(nanos(time)).unwrap_or(NonZeroU64::MIN)
}

/// The nanoseconds from 1970 to a date.
fn since_1970(date: SystemTime) -> u64 {
    nanos(date.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The backend's part of a [`SessionStats`].
#[derive(Debug)]
pub(super) struct OnBackend {
    /// The configuration when the session came.
    pub(super) spec: Arc<model::Backend>,
    /// The session's slot in the backend.
    pub(super) slot: BackendSlot,
}

/// The server's part of a [`SessionStats`].
#[derive(Debug)]
pub(super) struct OnServer {
    /// The configuration when the session came.
    pub(super) spec: Arc<model::Server>,
    /// The session's slot on the server.
    pub(super) slot: Slot,
}

/// What is counted and timed for one session.
#[derive(Debug)]
pub(super) struct SessionStats {
    /// Its number.
    pub(super) id: SessionId,
    /// The client's address; `None` for a unix socket.
    pub(super) peer: Option<SocketAddr>,
    /// When it was accepted: nanoseconds of the process's clock ([`GlobalLive::nanos`]). Times are numbers here,
    /// because an [`Instant`] takes twice the room.
    pub(super) accepted: i64,
    /// The same by the wall clock, for the log line: nanoseconds since 1970. Later changes of that clock do not move
    /// it.
    accepted_at: u64,
    /// The backend that it was routed to.
    pub(super) backend: Option<OnBackend>,
    /// The server that was tried last, for the log line of a session that reached none.
    pub(super) asked: Option<Arc<model::Server>>,
    /// The server that answered.
    pub(super) server: Option<OnServer>,
    /// Its slot in the process and the frontend. It is dropped after those of the backend and the server, so that
    /// the session that gets it is not counted beside this one there.
    pub(super) conn: ConnSlot<Frontend>,
    /// Nanoseconds from accept to the server's answer.
    pub(super) connect: Option<NonZeroU64>,
    /// What few sessions have.
    pub(super) beside: Option<Box<Beside>>,
    /// Bytes from the client.
    pub(super) bytes_in: u64,
    /// Bytes to the client.
    pub(super) bytes_out: u64,
}

// With the record of the relay this is most of the memory of an idle session, which docs/performance.md states.
const _: () = assert!(size_of::<SessionStats>() <= 160);

/// What few sessions have, in a box of its own.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// What has delayed it.
    pub(super) delays: Delays,
    /// What its frontend has it note.
    pub(super) notes: Notes,
}

/// What a session has noted when it began ([`super::notes`]).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// What `unique-id-format` has made.
    pub(super) unique_id: Option<Box<str>>,
    /// What `log-suffix` has made.
    pub(super) log_suffix: Option<Box<str>>,
}

/// What has delayed a session before a server has answered: few have any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Delays {
    /// Connection attempts after the first.
    pub(super) retries: u32,
    /// Another server than the first was used.
    pub(super) redispatched: bool,
    /// Milliseconds from accept until its PROXY header had come. It is no part of the connect time; of more than a
    /// minute the rest is.
    pub(super) handshake: u16,
    /// How long it has waited in queues, and without a usable server (`Tw`); `None`: it has not.
    pub(super) queue: Option<Duration>,
    /// How many sessions have got a slot in the queue of its server meanwhile, itself counted (`srv_queue`).
    pub(super) server_position: u32,
    /// The same in the queue of the backend (`backend_queue`).
    pub(super) backend_position: u32,
    /// Sessions of the server that it has waited for last.
    pub(super) server_sessions: u32,
}

/// What a session brings along from another process; the fields are those of [`SessionStats`].
#[derive(Debug, Clone)]
pub(super) struct Moved {
    pub(super) peer: Option<SocketAddr>,
    pub(super) accepted: Instant,
    pub(super) accepted_at: SystemTime,
    /// `None`: no server has it.
    pub(super) connect: Option<Duration>,
    pub(super) delays: Delays,
    pub(super) notes: Notes,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

impl SessionStats {
    /// Begins the statistics of a session that begins with its connection, which was accepted just now.
    pub(super) fn open(
        id: SessionId,
        conn: ConnSlot<Frontend>,
        peer: Option<SocketAddr>,
        worker_stats: &WorkerStats,
    ) -> Box<Self> {
        let stats = Self::accepted(id, conn, peer, worker_stats);
        stats.enter_frontend(worker_stats);
        stats
    }

    /// Begins the statistics of a connection that was accepted just now, and is no session yet.
    ///
    /// Boxed because they go from owner to owner.
    pub(super) fn accepted(
        id: SessionId,
        conn: ConnSlot<Frontend>,
        peer: Option<SocketAddr>,
        worker_stats: &WorkerStats,
    ) -> Box<Self> {
        let accepted = worker_stats.global.nanos(Instant::now());
        worker_stats.process().conn_tot.add(1);
        let traffic = conn.frontend().live.traffic.mine(&worker_stats.token);
        traffic.conn_tot.add(1);
        traffic.conn_rate.count(second_of(accepted));
        Box::new(Self {
            id,
            peer,
            accepted,
            accepted_at: since_1970(wall_clock()),
            conn,
            backend: None,
            asked: None,
            server: None,
            connect: None,
            beside: None,
            bytes_in: 0,
            bytes_out: 0,
        })
    }

    /// Counts the session on its frontend. As in HAProxy a connection is a session once it has its header.
    pub(super) fn enter_frontend(&self, worker_stats: &WorkerStats) {
        let traffic = self.frontend().live.traffic.mine(&worker_stats.token);
        traffic.stot.add(1);
        traffic.rate.count(second_of(self.accepted));
    }

    /// The client's header has come: `source` is the client.
    pub(super) fn announced(&mut self, source: Option<SocketAddr>, worker_stats: &WorkerStats) {
        self.peer = source.or(self.peer);
        let waited = millis(self.age());
        if waited > 0 {
            let delays = self.delays_mut();
            delays.handshake = u16::try_from(waited).unwrap_or(u16::MAX);
        }
        self.enter_frontend(worker_stats);
    }

    /// The statistics of a session that another process has accepted and counted, with its slots here.
    pub(super) fn moved(
        id: SessionId,
        conn: ConnSlot<Frontend>,
        backend: OnBackend,
        server: Option<OnServer>,
        moved: Moved,
    ) -> Box<Self> {
        let Moved { delays, notes, .. } = moved;
        let is_plain = delays == Delays::default() && notes == Notes::default();
        let beside = (!is_plain).then_some(Beside { delays, notes });
        Box::new(Self {
            id,
            peer: moved.peer,
            accepted: conn.global().nanos(moved.accepted),
            accepted_at: since_1970(moved.accepted_at),
            conn,
            backend: Some(backend),
            asked: None,
            server,
            connect: moved.connect.map(not_zero),
            beside: beside.map(Box::new),
            bytes_in: moved.bytes_in,
            bytes_out: moved.bytes_out,
        })
    }

    /// Why it has to end, if all sessions of its server were ended since it has been there.
    pub(super) fn missed_end(&self) -> Option<Cause> {
        let established = self.began() + self.connect()?;
        self.server.as_ref()?.slot.live().ended_since(established)
    }

    /// The frontend that accepted it.
    pub(super) fn frontend(&self) -> &Arc<Frontend> {
        self.conn.frontend()
    }

    /// When it was accepted.
    pub(super) fn began(&self) -> Instant {
        self.conn.global().instant(self.accepted)
    }

    /// How long ago that is.
    pub(super) fn age(&self) -> Duration {
        let age = self.conn.global().nanos(Instant::now()) - self.accepted;
        Duration::from_nanos(age.try_into().unwrap_or(0))
    }

    /// When it was accepted, by the wall clock of that time.
    pub(super) fn accepted_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.accepted_at)
    }

    /// Time from accept to the server's answer; `None`: none has answered.
    pub(super) fn connect(&self) -> Option<Duration> {
        self.connect.map(|time| Duration::from_nanos(time.get()))
    }

    /// Counts the session on its backend.
    pub(super) fn enter_backend(
        &mut self,
        backend: &crate::state::Backend,
        worker_stats: &WorkerStats,
    ) {
        let traffic = backend.live.traffic.mine(&worker_stats.token);
        traffic.stot.add(1);
        traffic.rate.count(second_of(self.accepted));
        self.backend = Some(OnBackend {
            spec: Arc::clone(&backend.spec),
            slot: BackendSlot::take(&backend.live, &worker_stats.token),
        });
    }

    /// What has delayed it so far.
    pub(super) fn delays(&self) -> Delays {
        let beside = self.beside.as_deref();
        beside.map_or_else(Delays::default, |beside| beside.delays)
    }

    pub(super) fn delays_mut(&mut self) -> &mut Delays {
        &mut self.beside.get_or_insert_default().delays
    }

    /// What its frontend has it note, if anything.
    pub(super) fn notes(&self) -> Option<&Notes> {
        self.beside.as_deref().map(|beside| &beside.notes)
    }

    /// A server is tried, or has answered, after `retries` attempts before it. `redispatched`: another one was tried
    /// first.
    pub(super) fn count_attempt(&mut self, retries: u32, redispatched: bool) {
        if retries == 0 && !redispatched && self.beside.is_none() {
            return;
        }
        let delays = self.delays_mut();
        delays.retries = retries;
        delays.redispatched = redispatched;
    }

    /// It has waited in a queue.
    pub(super) fn count_wait(&mut self, stay: QueueStay) {
        let delays = self.delays_mut();
        if let Some(time) = stay.time {
            *delays.queue.get_or_insert_default() += time;
        }
        let position = if stay.for_one_server {
            &mut delays.server_position
        } else {
            &mut delays.backend_position
        };
        *position = position.saturating_add(stay.position);
        delays.server_sessions = stay.sessions;
    }

    /// It has waited for a usable server, or on its way to one.
    pub(super) fn count_hold(&mut self, time: Duration) {
        let delays = self.delays_mut();
        *delays.queue.get_or_insert_default() += time;
    }

    /// Time in queues and holds.
    fn queue_time(&self) -> Duration {
        let beside = self.beside.as_deref();
        beside.and_then(|it| it.delays.queue).unwrap_or_default()
    }

    /// Counts the session on the server that has answered.
    pub(super) fn enter_server(&mut self, server: &Server, slot: Slot, worker_stats: &WorkerStats) {
        let now = Instant::now();
        let traffic = server.live.traffic.mine(&worker_stats.token);
        traffic.stot.add(1);
        let nanos = worker_stats.global.nanos(now);
        traffic.rate.count(second_of(nanos));
        let stamp = u64::try_from(nanos / 1_000_000).unwrap_or(0) + 1;
        self.behind(worker_stats, |traffic| {
            traffic.last_session.store(stamp, Relaxed);
        });
        traffic.last_session.store(stamp, Relaxed);
        let connect = u64::try_from(nanos - self.accepted).unwrap_or(0);
        self.connect = NonZeroU64::new(connect).or(Some(NonZeroU64::MIN));
        self.server = Some(OnServer {
            spec: Arc::clone(&server.spec),
            slot,
        });
    }

    /// Counts bytes that came from the client. # Hot path
    pub(super) fn count_in(&mut self, bytes: u64, worker_stats: &WorkerStats) {
        self.bytes_in += bytes;
        worker_stats.process().bytes_out.add(bytes);
        self.each(worker_stats, |traffic| traffic.bin.add(bytes));
    }

    /// Counts bytes that came from the server. # Hot path
    pub(super) fn count_out(&mut self, bytes: u64, worker_stats: &WorkerStats) {
        self.bytes_out += bytes;
        worker_stats.process().bytes_out.add(bytes);
        self.each(worker_stats, |traffic| traffic.bout.add(bytes));
    }

    /// The server that has answered, or that was asked last.
    pub(super) fn server_spec(&self) -> Option<&Arc<model::Server>> {
        let answered = self.server.as_ref().map(|on| &on.spec);
        answered.or(self.asked.as_ref())
    }

    /// Counts and reports that the session, whose server has answered, fails by a shortage on this machine.
    pub(super) fn report_shortage(&self, error: &io::Error, worker_stats: &WorkerStats) {
        let Some(shortage) = Shortage::of(error) else {
            return;
        };
        let WorkerStats { global, token, .. } = worker_stats;
        global.shortage(token, ShortageStep::Connect, shortage, None);
        if let Some(backend) = &self.backend {
            let server = self.server_spec().map(|spec| &*spec.name);
            let cause = FailureCause::Shortage(shortage);
            global.session_failed(token, backend.slot.live(), server, cause);
        }
    }

    /// Step 10: counts how the session ended, logs it, and frees its slots.
    #[expect(clippy::boxed_local, reason = "taking it out of its box would copy it")]
    pub(super) fn finish(self: Box<Self>, end: &Termination, worker_stats: &WorkerStats) {
        let total = self.age();
        self.count_end(end, total, worker_stats);
        if !self.is_unwanted(end) {
            let line = || LogEntry::Session(Box::new(self.record(end, total)));
            worker_stats.log.send_with(line);
        }
    }

    /// The connection ends before it is a session: logs it, and frees its slots. It counts nowhere else, as in HAProxy.
    #[expect(clippy::boxed_local, reason = "taking it out of its box would copy it")]
    pub(super) fn finish_embryonic(
        self: Box<Self>,
        listener: &Arc<str>,
        failure: HeaderFailure,
        worker_stats: &WorkerStats,
    ) {
        if self.frontend().spec.dontlognull && failure.is_null() {
            return;
        }
        worker_stats.log.send_with(|| {
            LogEntry::Embryonic(Box::new(EmbryonicRecord {
                client: self.peer,
                accepted: self.accepted_at(),
                frontend: Arc::clone(&self.frontend().spec.name),
                listener: Arc::clone(listener),
                failure,
            }))
        });
    }

    /// Time from the begin of the session, or from the end of the queues, to the server's answer.
    fn connect_time(&self) -> Option<Duration> {
        if self.beside.is_none() {
            return self.connect();
        }
        let before = Duration::from_millis(self.delays().handshake.into()) + self.queue_time();
        self.connect().map(|connect| connect.saturating_sub(before))
    }

    fn count_end(&self, end: &Termination, total: Duration, worker_stats: &WorkerStats) {
        let reached = self.server.is_some();
        match end.counters() {
            EndCounters::Nothing => {}
            EndCounters::RequestError => {
                self.frontend()
                    .live
                    .traffic
                    .mine(&worker_stats.token)
                    .ereq
                    .add(1);
            }
            EndCounters::ClientAbort => {
                self.each(worker_stats, |traffic| traffic.cli_abrt.add(1));
            }
            EndCounters::ServerAbort => {
                self.each(worker_stats, |traffic| traffic.srv_abrt.add(1));
            }
            EndCounters::ServerError => {
                self.each(worker_stats, |traffic| traffic.srv_abrt.add(1));
                self.behind(worker_stats, |traffic| traffic.eresp.add(1));
            }
            EndCounters::InternalError => self.each(worker_stats, |traffic| traffic.eint.add(1)),
        }
        if reached {
            let connect = millis(self.connect_time().unwrap_or_default());
            let queue = millis(self.queue_time());
            let total = millis(total);
            self.behind(worker_stats, |traffic| {
                traffic.qtime.add(queue);
                traffic.qtime_max.see(saturated(queue));
                traffic.ctime.add(connect);
                traffic.ctime_max.see(saturated(connect));
                traffic.ttime.add(total);
                traffic.ttime_max.see(saturated(total));
            });
        }
    }

    /// Runs `count` on the shards of the backend and the server.
    fn behind(&self, worker_stats: &WorkerStats, count: impl Fn(&Traffic)) {
        if let Some(backend) = &self.backend {
            count(backend.slot.live().traffic.mine(&worker_stats.token));
        }
        if let Some(server) = &self.server {
            count(server.slot.live().traffic.mine(&worker_stats.token));
        }
    }

    /// Runs `count` on the shards of the frontend, the backend and the server.
    fn each(&self, worker_stats: &WorkerStats, count: impl Fn(&Traffic)) {
        count(self.frontend().live.traffic.mine(&worker_stats.token));
        self.behind(worker_stats, count);
    }

    fn is_unwanted(&self, end: &Termination) -> bool {
        let spec = &self.frontend().spec;
        let normal = end.cause == Cause::Normal;
        let null = self.bytes_in == 0 && self.bytes_out == 0;
        normal && (spec.dontlog_normal || (spec.dontlognull && null))
    }

    fn record(&self, end: &Termination, total: Duration) -> SessionRecord {
        let backend = self.backend.as_ref();
        let server = self.server.as_ref();
        let asked = self.server_spec();
        let delays = self.delays();
        // Not of one that a full queue has turned away.
        let at_once = asked.is_some() && end.phase != Phase::Queue;
        SessionRecord {
            client: self.peer,
            accepted: self.accepted_at(),
            frontend: Arc::clone(&self.frontend().spec.name),
            backend: Arc::clone(backend.map_or(&self.frontend().spec.name, |on| &on.spec.name)),
            server: asked.map(|spec| Arc::clone(&spec.name)),
            wait: delays.queue.or(at_once.then_some(Duration::ZERO)),
            connect: self.connect_time(),
            queue_positions: (delays.server_position, delays.backend_position),
            total,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            cause: end.cause,
            phase: end.phase,
            active: self.conn.global_active(),
            frontend_active: self.frontend().live.active.get(),
            // As in HAProxy, where a session has left its server and backend before it is logged.
            backend_active: backend.map_or(0, |on| on.slot.live().active.get().saturating_sub(1)),
            server_active: server.map_or(delays.server_sessions, |on| {
                on.slot.live().active.get().saturating_sub(1)
            }),
            retries: delays.retries,
            redispatched: delays.redispatched,
            suffix: self.notes().and_then(|notes| notes.log_suffix.clone()),
        }
    }
}

/// # Hot path: the vDSO reads the clock without a system call.
#[expect(
    clippy::disallowed_methods,
    reason = "the accept date of a log line is wall time"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

fn saturated(millis: u64) -> u32 {
    u32::try_from(millis).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Limits, Loader};
    use crate::live::slot::ConnLimits;
    use crate::state::Snapshot;
    use crate::state::snapshot::Origin;

    /// Fault 40: a log line has the accept time that the wall clock showed at the accept.
    #[test]
    fn fault_40_a_step_of_the_clock_does_not_move_the_accept_time() {
        let loader = Loader {
            limits: Limits::unknown(),
            environment: &|_| None,
            disk: false,
        };
        let text = "[[listen]]\nname = 'l'\nbind = '127.0.0.1:1'\n\
                    servers = [{ name = 's', address = '127.0.0.1:2' }]";
        let (config, _) = loader.load_text("test.toml", text).unwrap();
        let global = Arc::new(GlobalLive::new(Instant::now(), 1));
        let origin = Origin {
            global: Arc::clone(&global),
            maxconn: 10,
            shards: 1,
            now: Instant::now(),
        };
        let snapshot = Snapshot::initial(&config, &origin);
        let worker_stats = WorkerStats {
            token: WorkerToken::new(0),
            global: Arc::clone(&global),
            log: LogQueue::off(Arc::clone(&global)),
        };
        let frontend = Arc::clone(snapshot.frontends[0].as_ref().unwrap());
        let token = &worker_stats.token;
        let slot = ConnSlot::take(&global, frontend, ConnLimits::NONE, token).unwrap();
        let id = SessionId::new(1, (0, 1));
        let before = wall_clock();
        let mut stats = SessionStats::open(id, slot, None, &worker_stats);
        let after = wall_clock();
        let end = Termination::new(Cause::Normal, Phase::Done);
        let accepted = |stats: &SessionStats| stats.record(&end, Duration::from_secs(5)).accepted;
        assert!((before..=after).contains(&accepted(&stats)));
        // The clock was an hour slow when the session came.
        stats.accepted_at -= 3_600_000_000_000;
        assert!(accepted(&stats) <= after - Duration::from_secs(3600));
    }
}
