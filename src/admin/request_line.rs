//! The line of a request in the log: HAProxy's of a session with the statistics, in the form of `option tcplog`, with the
//! letters `LR`. Admin thread.
//!
//! Invariants: every request for the page and the metrics has one line, also when its client goes before it has the whole
//! answer. The probes `/healthz` and `/readyz` have none. The line is sent when the last byte of the answer is written,
//! at the latest when the connection ends.

use super::Shared;
use super::target::Resource;
use crate::config::model::Bind;
use crate::live::{Cause, LogEntry, Phase, SessionRecord};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// What answers a request, in the place of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// The page and its tables.
    Stats,
    /// The metrics.
    Metrics,
    /// Nothing does: there is no such page.
    None,
}

impl Service {
    /// The one of a request; `None`: the request has no line.
    pub(super) fn of(resource: &Resource) -> Option<Self> {
        match resource {
            Resource::Health | Resource::Ready => None,
            Resource::Metrics(_) => Some(Self::Metrics),
            Resource::Page | Resource::Table(_) | Resource::Schema | Resource::Action => {
                Some(Self::Stats)
            }
            Resource::BadRequest | Resource::NotFound | Resource::MethodNotAllowed => {
                Some(Self::None)
            }
        }
    }

    /// HAProxy's name.
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Stats => Some("<STATS>"),
            Self::Metrics => Some("<PROMEX>"),
            Self::None => None,
        }
    }
}

/// A request whose line is not sent yet.
#[derive(Debug)]
struct Open {
    service: Service,
    since: Instant,
    accepted: SystemTime,
    /// Bytes that the connection had written before.
    before: u64,
}

/// The requests of a connection, of which one is answered at a time.
#[derive(Debug, Default)]
pub(super) struct RequestLines {
    /// Bytes written on the connection.
    written: Cell<u64>,
    open: RefCell<Option<Open>>,
    /// hyper has taken the whole answer.
    answered: Cell<bool>,
}

impl RequestLines {
    /// Bytes were written.
    pub(super) fn wrote(&self, bytes: usize) {
        self.written.set(self.written.get() + bytes as u64);
    }

    /// A request has come, and is to have a line.
    pub(super) fn begin(&self, service: Service) {
        self.answered.set(false);
        self.open.replace(Some(Open {
            service,
            since: Instant::now(),
            accepted: wall_clock(),
            before: self.written.get(),
        }));
    }

    /// Everything that hyper has taken is written.
    pub(super) fn flushed(&self, shared: &Shared, client: Option<SocketAddr>) {
        if self.answered.get() {
            self.end(shared, client);
        }
    }

    /// The connection ends, or the answer is complete.
    pub(super) fn end(&self, shared: &Shared, client: Option<SocketAddr>) {
        if let Some(open) = self.open.take() {
            let served = open.service != Service::None;
            let record = Line {
                client,
                accepted: open.accepted,
                service: open.service,
                total: open.since.elapsed(),
                bytes: self.written.get() - open.before,
                cause: if served { Cause::Local } else { Cause::Proxy },
            };
            record.send(shared);
        }
    }

    /// A request that hyper could not read has ended the connection.
    pub(super) fn unreadable(
        &self,
        shared: &Shared,
        (client, bind): (Option<SocketAddr>, &Bind),
        cause: Cause,
    ) {
        // A request that is being answered has its own line.
        if !shared.logs_requests(bind) || self.open.borrow().is_some() {
            return;
        }
        let record = Line {
            client,
            accepted: wall_clock(),
            service: Service::None,
            total: Duration::ZERO,
            bytes: 0,
            cause,
        };
        record.send(shared);
    }
}

/// Dropped by hyper together with the body of an answer, when it has taken all of it.
#[derive(Debug)]
pub(super) struct AnswerEnd(pub(super) Rc<super::connection::ConnectionState>);

impl Drop for AnswerEnd {
    fn drop(&mut self) {
        self.0.lines.answered.set(true);
    }
}

/// What differs from line to line.
struct Line {
    client: Option<SocketAddr>,
    accepted: SystemTime,
    service: Service,
    total: Duration,
    bytes: u64,
    cause: Cause,
}

impl Line {
    fn send(self, shared: &Shared) {
        let snapshot = shared.snapshot.load();
        let live = &snapshot.stats_live;
        let active = live.active.get();
        let server = self.service.name();
        shared.log.send_with(|| {
            LogEntry::Session(Box::new(SessionRecord {
                queue_positions: (0, 0),
                client: self.client,
                accepted: self.accepted,
                frontend: Arc::clone(&live.name),
                backend: Arc::clone(&live.name),
                server: server.map(Arc::from),
                wait: server.map(|_| Duration::ZERO),
                connect: server.map(|_| Duration::ZERO),
                total: self.total,
                bytes_in: 0,
                bytes_out: self.bytes,
                cause: self.cause,
                phase: Phase::Request,
                active: snapshot.global.active.get() + active,
                frontend_active: active,
                backend_active: 0,
                server_active: 0,
                retries: 0,
                redispatched: false,
                suffix: None,
            }))
        });
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the accept date of a log line is wall time"
)]
pub(super) fn wall_clock() -> SystemTime {
    SystemTime::now()
}
