//! One row: a frontend, backend or server at a moment, with the values that the columns need. Runs on the admin
//! thread.

use crate::config::model;
use crate::live::rate::{Rate, per_second};
use crate::live::timing::{Average, average};
use crate::live::{CheckReport, Counter, FrontendLive, Gauge, Shards, Traffic};
use crate::state::{
    Backend, Endpoint, Frontend, FrontendState, OperState, SHARES, Server, Snapshot,
};
use crate::stats::Requests;
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// HAProxy's `type` column. Listeners (3) have no rows: in HAProxy they need `option socket-stats`, and rlb
/// counts by frontend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A frontend.
    Frontend = 0,
    /// A backend.
    Backend = 1,
    /// A server.
    Server = 2,
}

/// What a row shows.
#[derive(Debug, Clone, Copy)]
pub enum Object<'a> {
    /// The stats proxy, as a frontend in HTTP mode.
    StatsFrontend(&'a model::Stats),
    /// The stats proxy, as a backend without servers.
    StatsBackend(&'a model::Stats),
    /// A frontend.
    Frontend(&'a Frontend),
    /// A backend.
    Backend(&'a Backend),
    /// A server and its backend.
    Server(&'a Backend, &'a Server),
}

/// One row of the statistics.
#[derive(Debug)]
pub struct Row<'a> {
    /// What it shows.
    pub object: Object<'a>,
    /// Requests to the stats proxy.
    pub requests: &'a Requests,
    snapshot: &'a Snapshot,
    /// Now, by the clock of the statuses.
    now: Instant,
    /// Now, in ms of the process's clock.
    pub now_ms: u64,
    /// The last check, if it is shown.
    check: Option<CheckReport>,
    /// Whether a backend's status shows how many of its servers are usable.
    counting: bool,
    /// Whether addresses and algorithms are shown.
    legends: bool,
}

impl<'a> Row<'a> {
    /// The row of `object` as of `now`.
    pub(super) fn new(
        object: Object<'a>,
        snapshot: &'a Snapshot,
        requests: &'a Requests,
        now: Instant,
    ) -> Self {
        // HAProxy shows nothing of a check that is off or paused by maintenance.
        let check = match object {
            Object::Server(_, server)
                if server.spec.check.is_some() && !server.status.admin.is_maint() =>
            {
                Some(server.live.check.load())
            }
            _ => None,
        };
        Self {
            object,
            requests,
            snapshot,
            now,
            now_ms: snapshot.global.millis(now),
            check,
            counting: false,
            legends: false,
        }
    }

    /// The same; if `counting`, a backend's status shows how many servers are usable, because some are hidden.
    #[must_use]
    pub(super) fn counting(mut self, counting: bool) -> Self {
        self.counting = counting;
        self
    }

    /// The same with addresses and algorithms in their columns if `legends`, as HAProxy's `STAT_F_SHLGNDS`.
    #[must_use]
    pub(super) fn with_legends(mut self, legends: bool) -> Self {
        self.legends = legends;
        self
    }

    /// Whether addresses and algorithms are shown.
    pub fn legends(&self) -> bool {
        self.legends
    }

    /// Frontend, backend or server.
    pub fn kind(&self) -> Kind {
        match self.object {
            Object::StatsFrontend(_) | Object::Frontend(_) => Kind::Frontend,
            Object::StatsBackend(_) | Object::Backend(_) => Kind::Backend,
            Object::Server(..) => Kind::Server,
        }
    }

    /// Whether it is the stats proxy, which is in HTTP mode.
    pub fn is_http(&self) -> bool {
        matches!(
            self.object,
            Object::StatsFrontend(_) | Object::StatsBackend(_)
        )
    }

    /// The server, in a server's row.
    pub fn server(&self) -> Option<&'a Server> {
        match self.object {
            Object::Server(_, server) => Some(server),
            _ => None,
        }
    }

    /// The backend, in the row of one with servers.
    pub fn backend(&self) -> Option<&'a Backend> {
        match self.object {
            Object::Backend(backend) => Some(backend),
            _ => None,
        }
    }

    /// The last check; `None` where HAProxy shows none.
    pub fn check(&self) -> Option<&CheckReport> {
        self.check.as_ref()
    }

    /// `pxname`.
    pub fn proxy(&self) -> &'a str {
        match self.object {
            Object::StatsFrontend(stats) | Object::StatsBackend(stats) => &stats.name,
            Object::Frontend(frontend) => &frontend.spec.name,
            Object::Backend(backend) | Object::Server(backend, _) => &backend.spec.name,
        }
    }

    /// `svname`.
    pub fn service(&self) -> &'a str {
        match self.object {
            Object::Server(_, server) => &server.spec.name,
            _ if self.kind() == Kind::Frontend => "FRONTEND",
            _ => "BACKEND",
        }
    }

    /// `iid` and `sid`.
    pub fn ids(&self) -> (u32, u32) {
        match self.object {
            Object::StatsFrontend(stats) | Object::StatsBackend(stats) => (stats.id, 0),
            Object::Frontend(frontend) => (frontend.spec.id, 0),
            Object::Backend(backend) => (backend.spec.id, 0),
            Object::Server(backend, server) => (backend.spec.id, server.spec.id),
        }
    }

    /// `slim`.
    pub fn session_limit(&self) -> Option<u32> {
        match self.object {
            Object::StatsFrontend(_) => self.snapshot.stats_limit(),
            // HAProxy's default for `fullconn`.
            Object::StatsBackend(stats) => Some(stats.maxconn.div_ceil(10).max(1)),
            Object::Frontend(frontend) => Some(frontend.maxconn.unwrap_or(self.snapshot.maxconn)),
            Object::Backend(backend) => Some(backend.spec.fullconn),
            Object::Server(_, server) => Some(server.spec.maxconn).filter(|limit| *limit > 0),
        }
    }

    /// `qcur`.
    pub fn queued(&self) -> u32 {
        match self.object {
            Object::Backend(backend) => backend.live.queue.waiting_for_any(),
            Object::Server(_, server) => server.live.queued.load(Relaxed),
            Object::Frontend(_) | Object::StatsFrontend(_) | Object::StatsBackend(_) => 0,
        }
    }

    /// `qlimit`.
    pub fn queue_limit(&self) -> Option<u32> {
        let limit = self.server()?.spec.maxqueue;
        (limit > 0).then_some(limit)
    }

    /// `status`.
    pub fn status(&self) -> Cow<'static, str> {
        match self.object {
            Object::StatsFrontend(_) => FrontendState::Open.label().into(),
            Object::Frontend(frontend) => frontend.label().into(),
            Object::StatsBackend(_) => "UP".into(),
            Object::Backend(backend) => {
                let word = if backend.status.up { "UP" } else { "DOWN" };
                let unpublished = if backend.published { "" } else { " (UNPUB)" };
                if !self.counting || backend.servers.is_empty() {
                    return format!("{word}{unpublished}").into();
                }
                let usable = backend.usable();
                let count = usable.active + usable.backup;
                format!("{word} ({count}/{}){unpublished}", backend.servers.len()).into()
            }
            Object::Server(_, server) => server.status_label(),
        }
    }

    /// `weight`: the one in force of a server; for a backend the sum of those in the rotation. HAProxy rounds up.
    pub fn weight(&self) -> u32 {
        let eweight = match self.object {
            Object::Server(backend, server) => server.eweight(&backend.spec),
            Object::Backend(backend) => backend.in_use().iter().map(|it| it.eweight).sum(),
            _ => 0,
        };
        eweight.div_ceil(SHARES)
    }

    /// `uweight`: the same without slow starts.
    pub fn user_weight(&self) -> u32 {
        match self.object {
            Object::Server(_, server) => server.weight,
            Object::Backend(backend) => backend.in_use().iter().map(|it| it.weight).sum(),
            _ => 0,
        }
    }

    /// `throttle`: percent of its weight that a server has in a slow start. HAProxy's `server_throttle_rate`, which rounds up
    /// by less than one percent.
    pub fn throttle(&self) -> Option<u32> {
        let Object::Server(backend, server) = self.object else {
            return None;
        };
        let status = &server.status;
        if status.oper != OperState::Starting || status.admin.is_drain() || server.weight == 0 {
            return None;
        }
        let eweight = server.eweight(&backend.spec);
        Some((100 * eweight + SHARES - 1) / (SHARES * server.weight))
    }

    /// `act` and `bck`: the role of a server; for a backend how many are usable.
    pub fn usable(&self) -> (u32, u32) {
        match self.object {
            Object::Server(_, server) if server.spec.backup => (0, 1),
            Object::Server(..) => (1, 0),
            Object::Backend(backend) => {
                let usable = backend.usable();
                (usable.active, usable.backup)
            }
            _ => (0, 0),
        }
    }

    /// `lastchg`: seconds since it last went up or down.
    pub fn last_change(&self) -> u64 {
        let since = match self.object {
            Object::Server(_, server) => server.status.since,
            Object::Backend(backend) => backend.status.since,
            _ => self.snapshot.global.start,
        };
        self.now.saturating_duration_since(since).as_secs()
    }

    /// How much longer a server is held down; `None`: it is not.
    pub fn held_for(&self) -> Option<Duration> {
        let server = self.server()?;
        server.status.held_for(server.rules(), self.now)
    }

    /// `downtime`: seconds spent down. Absent for a proxy without servers and a server without a check.
    pub fn downtime(&self) -> Option<u64> {
        let down: Duration = match self.object {
            Object::Server(_, server) => {
                server.spec.check.as_ref()?;
                server.status.downtime(self.now)
            }
            Object::Backend(backend) if !backend.servers.is_empty() => {
                backend.status.downtime(self.now)
            }
            _ => return None,
        };
        Some(down.as_secs())
    }

    /// `addr`, for a server whose address is known.
    pub fn address(&self) -> Option<Cow<'static, str>> {
        let port = |port: &model::ServerPort| match port {
            model::ServerPort::Fixed(port) => i32::from(*port),
            model::ServerPort::FromClient(offset) => *offset,
        };
        match self.server()?.endpoint.as_ref()? {
            Endpoint::Ip(IpAddr::V4(ip), of) => Some(format!("{ip}:{}", port(of)).into()),
            Endpoint::Ip(IpAddr::V6(ip), of) => Some(format!("[{ip}]:{}", port(of)).into()),
            Endpoint::Unix(_) => Some("unix".into()),
        }
    }

    /// `algo`.
    pub fn algorithm(&self) -> Option<&'static str> {
        match self.object {
            Object::Backend(backend) => Some(backend.spec.balance.name()),
            _ => None,
        }
    }

    /// `scur`; 0 for the backend of the stats proxy, where rlb itself answers.
    pub fn active(&self) -> u32 {
        match self.object {
            Object::StatsFrontend(_) => self.snapshot.stats_live.active.get(),
            Object::StatsBackend(_) => 0,
            Object::Frontend(frontend) => Gauge::get(&frontend.live.active),
            Object::Backend(backend) => backend.live.active.get(),
            Object::Server(_, server) => server.live.active.get(),
        }
    }

    /// Sum of a counter; 0 for the backend of the stats proxy.
    pub fn count(&self, counter: impl Fn(&Traffic) -> &Counter) -> u64 {
        match self.object {
            Object::StatsBackend(_) => 0,
            _ => self.traffic().sum(counter),
        }
    }

    /// Bytes from and to clients. HAProxy counts them on both rows of the stats proxy.
    pub fn bytes(&self) -> (u64, u64) {
        let traffic = self.traffic();
        (
            traffic.sum(|traffic| &traffic.bin),
            traffic.sum(|traffic| &traffic.bout),
        )
    }

    /// Largest value of a maximum; 0 for the backend of the stats proxy.
    pub fn max(&self, maximum: impl Fn(&Traffic) -> &crate::live::sharded::Maximum) -> u32 {
        match self.object {
            Object::StatsBackend(_) => 0,
            _ => self.traffic().max(maximum),
        }
    }

    /// Events in the last second; 0 for the backend of the stats proxy.
    pub fn rate(&self, rate: impl Fn(&Traffic) -> &Rate + Clone) -> u32 {
        match self.object {
            Object::StatsBackend(_) => 0,
            _ => per_second(Shards::iter(self.traffic()).map(rate), self.now_ms),
        }
    }

    /// Most sessions in one second so far.
    pub fn rate_max(&self) -> u32 {
        match self.object {
            Object::StatsFrontend(_) => self.snapshot.stats_live.rate_max.load(Relaxed),
            Object::StatsBackend(_) => 0,
            Object::Frontend(frontend) => frontend.live.rate_max.load(Relaxed),
            Object::Backend(backend) => backend.live.rate_max.load(Relaxed),
            Object::Server(_, server) => server.live.rate_max.load(Relaxed),
        }
        .max(self.rate(|traffic| &traffic.rate))
    }

    /// Most sessions that may begin in a second, of a frontend; 0: no limit.
    pub fn rate_limit(&self) -> u32 {
        match self.object {
            Object::Frontend(frontend) => frontend.spec.rate_limit_sessions.unwrap_or(0),
            _ => 0,
        }
    }

    /// Most connections in one second so far, of a frontend.
    pub fn conn_rate_max(&self) -> u32 {
        self.frontend()
            .map_or(0, |live| live.conn_rate_max.load(Relaxed))
            .max(self.rate(|traffic| &traffic.conn_rate))
    }

    /// Average of a time, ms; 0 for the backend of the stats proxy.
    pub fn average(&self, time: impl Fn(&Traffic) -> &Average) -> u64 {
        match self.object {
            Object::StatsBackend(_) => 0,
            _ => average(self.traffic().iter().map(time)),
        }
    }

    /// `lastsess`: seconds since the last session, -1 before the first.
    pub fn last_session(&self) -> i64 {
        let stamps = self.traffic().iter();
        let last = stamps
            .map(|traffic| traffic.last_session.load(Relaxed))
            .max()
            .unwrap_or(0);
        match last.checked_sub(1) {
            Some(at) => i64::try_from(self.now_ms.saturating_sub(at) / 1000).unwrap_or(i64::MAX),
            None => -1,
        }
    }

    fn frontend(&self) -> Option<&'a FrontendLive> {
        match self.object {
            Object::StatsFrontend(_) => Some(&self.snapshot.stats_live),
            Object::Frontend(frontend) => Some(&frontend.live),
            _ => None,
        }
    }

    fn traffic(&self) -> &'a Shards<Traffic> {
        match self.object {
            Object::StatsFrontend(_) | Object::StatsBackend(_) => &self.snapshot.stats_live.traffic,
            Object::Frontend(frontend) => &frontend.live.traffic,
            Object::Backend(backend) => &backend.live.traffic,
            Object::Server(_, server) => &server.live.traffic,
        }
    }
}
