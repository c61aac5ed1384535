//! Why sessions got no server, and what this machine ran short of: counters by cause, and log events, at most
//! one per cause in [`REPORT_EVERY`]. Called by workers and by the control thread, on failures only.
//!
//! Every cause of a session that ends as `SC`, `sC`, `SQ`, `sQ` or `RC` is a [`FailureCause`]. A shortage is counted twice:
//! each time that a step lacks something ([`Shortages`]), and for each session that fails by it
//! ([`FailedSessions`]).

use super::objects::{BackendLive, FrontendLive, GlobalLive};
use super::sharded::{Counter, WorkerToken};
use crate::sys::limits::Shortage;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Seconds between two events about the same cause.
pub const REPORT_EVERY: u64 = 1;

/// Seconds between two events about the same limit: a `maxconn`, `max-ejected`, or `retry-budget`.
pub const LIMIT_REPORT_EVERY: u64 = 10;

/// Why a session got no server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureCause {
    /// No server could be chosen: there is none, or all are down or in maintenance (`SC`).
    NoServer,
    /// The server that was tried last refused (`SC`).
    Refused,
    /// There is no route to the server that was tried last (`SC`).
    Unreachable,
    /// Connecting to the server that was tried last failed by another error (`SC`).
    ConnectError,
    /// No server answered within `timeout.connect` (`sC`).
    Timeout,
    /// All servers that could be chosen were full for `timeout.queue` (`sQ`), or `maxqueue` was reached (`SQ`).
    Queue,
    /// A shortage on this machine (`RC`).
    Shortage(Shortage),
}

impl FailureCause {
    /// All causes, in the order of [`FailureCause::index`].
    pub const ALL: [Self; 6 + Shortage::ALL.len()] = [
        Self::NoServer,
        Self::Refused,
        Self::Unreachable,
        Self::ConnectError,
        Self::Timeout,
        Self::Queue,
        Self::Shortage(Shortage::ALL[0]),
        Self::Shortage(Shortage::ALL[1]),
        Self::Shortage(Shortage::ALL[2]),
        Self::Shortage(Shortage::ALL[3]),
        Self::Shortage(Shortage::ALL[4]),
        Self::Shortage(Shortage::ALL[5]),
        Self::Shortage(Shortage::ALL[6]),
    ];

    /// The cause of a connect that has failed by `error`.
    pub fn of(error: &io::Error) -> Self {
        if let Some(shortage) = Shortage::of(error) {
            return Self::Shortage(shortage);
        }
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED | libc::ECONNRESET) => Self::Refused,
            Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN) => Self::Unreachable,
            Some(libc::ETIMEDOUT) => Self::Timeout,
            _ if error.kind() == io::ErrorKind::ConnectionRefused => Self::Refused,
            _ => Self::ConnectError,
        }
    }

    /// Its name in metrics and events.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoServer => "no_server",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::ConnectError => "connect_error",
            Self::Timeout => "timeout",
            Self::Queue => "queue",
            Self::Shortage(shortage) => shortage.name(),
        }
    }

    fn index(self) -> usize {
        match self {
            Self::NoServer => 0,
            Self::Refused => 1,
            Self::Unreachable => 2,
            Self::ConnectError => 3,
            Self::Timeout => 4,
            Self::Queue => 5,
            Self::Shortage(shortage) => 6 + shortage as usize,
        }
    }
}

/// Sessions of a backend that got no server, by cause, in one shard.
#[derive(Debug, Default)]
pub struct FailedSessions([Counter; FailureCause::ALL.len()]);

impl FailedSessions {
    /// The count of one cause.
    pub fn of(&self, cause: FailureCause) -> &Counter {
        &self.0[cause.index()]
    }

    /// Starts again at 0. Called by the writer.
    pub fn clear(&self) {
        self.0.iter().for_each(Counter::clear);
    }
}

/// The step that lacked something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShortageStep {
    /// Accepting a client.
    Accept,
    /// Connecting to a server.
    Connect,
    /// A health check.
    Check,
}

impl ShortageStep {
    /// All steps.
    pub const ALL: [Self; 3] = [Self::Accept, Self::Connect, Self::Check];

    /// Its name in metrics and events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Connect => "connect",
            Self::Check => "check",
        }
    }
}

/// Shortages by step and kind, in one shard.
#[derive(Debug, Default)]
pub struct Shortages([[Counter; Shortage::ALL.len()]; ShortageStep::ALL.len()]);

impl Shortages {
    /// The count of `shortage` in `step`.
    pub fn of(&self, step: ShortageStep, shortage: Shortage) -> &Counter {
        &self.0[step as usize][shortage as usize]
    }
}

/// Lets one event pass in a number of seconds, and counts those that it suppresses.
#[derive(Debug, Default)]
pub struct Throttle {
    /// Second of the process's clock from which the next event may be written.
    next: AtomicU64,
    held_back: AtomicU64,
}

impl Throttle {
    /// `Some`: an event may be written in this `second`, and none in the next `every` seconds. The number is
    /// that of the events that were suppressed since the last one.
    pub fn allow(&self, second: u64, every: u64) -> Option<u64> {
        let next = self.next.load(Relaxed);
        let free = second >= next
            && self
                .next
                .compare_exchange(next, second + every, Relaxed, Relaxed)
                .is_ok();
        if free {
            Some(self.held_back.swap(0, Relaxed))
        } else {
            self.held_back.fetch_add(1, Relaxed);
            None
        }
    }
}

/// Limits the log events about failures.
#[derive(Debug, Default)]
pub struct FailureReports {
    failed: [Throttle; FailureCause::ALL.len()],
    shortages: [Throttle; Shortage::ALL.len()],
    /// The `maxconn` of the process.
    pub(super) maxconn: Throttle,
    /// Source addresses whose ports are used up, and those that cannot be used.
    pub(super) sources: [Throttle; 2],
    /// Servers that stay up although their sessions fail.
    ejections: Throttle,
    /// Retries that were not made.
    retries: Throttle,
    /// Options of servers' sockets that were refused.
    pub(super) sockets: Throttle,
}

/// The names and the address of a server, for an event.
#[expect(
    missing_debug_implementations,
    reason = "it holds what can only be displayed"
)]
#[derive(Clone, Copy)]
pub struct ServerName<'a> {
    /// Its backend.
    pub backend: &'a str,
    /// Its own name.
    pub server: &'a str,
    /// Its address; empty when that is not known.
    pub address: &'a dyn std::fmt::Display,
}

impl GlobalLive {
    /// Counts that `step` had a shortage, and writes an event.
    pub fn shortage(
        &self,
        token: &WorkerToken,
        step: ShortageStep,
        shortage: Shortage,
        towards: Option<ServerName<'_>>,
    ) {
        let shortages = &self.traffic.mine(token).shortages;
        shortages.of(step, shortage).add(1);
        let throttle = &self.reports.shortages[shortage as usize];
        let Some(and_others) = throttle.allow(self.second(), REPORT_EVERY) else {
            return;
        };
        let (what, cure, step) = (shortage.description(), shortage.cure(), step.name());
        if let Some(towards) = towards {
            let ServerName {
                backend,
                server,
                address,
            } = towards;
            tracing::warn!(
                step,
                backend,
                server,
                and_others,
                cure,
                "{what} towards {address}"
            );
        } else {
            tracing::warn!(step, and_others, cure, "{what}");
        }
    }

    /// Counts a session of `backend` that got no server, and writes an event. A session that failed by a
    /// shortage has no event of its own: [`GlobalLive::shortage`] has written one.
    pub fn session_failed(
        &self,
        token: &WorkerToken,
        backend: &BackendLive,
        server: Option<&str>,
        cause: FailureCause,
    ) {
        backend.failed_sessions.mine(token).of(cause).add(1);
        if matches!(cause, FailureCause::Shortage(_)) {
            return;
        }
        let throttle = &self.reports.failed[cause.index()];
        if let Some(and_others) = throttle.allow(self.second(), REPORT_EVERY) {
            let (backend, cause) = (&*backend.name, cause.name());
            tracing::warn!(
                backend,
                server,
                cause,
                and_others,
                "session without a server"
            );
        }
    }

    /// Writes an event: `frontend` has as many sessions as its `maxconn` allows, and further clients wait.
    pub fn frontend_maxconn_reached(&self, frontend: &FrontendLive, maxconn: u32) {
        let throttle = &frontend.maxconn_report;
        if let Some(and_others) = throttle.allow(self.second(), LIMIT_REPORT_EVERY) {
            let frontend = &*frontend.name;
            tracing::warn!(frontend, maxconn, and_others, "maxconn of frontend reached");
        }
    }

    /// Writes an event: the process has as many sessions as its `maxconn` allows.
    pub fn process_maxconn_reached(&self, maxconn: u32) {
        let throttle = &self.reports.maxconn;
        if let Some(and_others) = throttle.allow(self.second(), LIMIT_REPORT_EVERY) {
            tracing::warn!(maxconn, and_others, "maxconn of process reached");
        }
    }

    /// Writes an event: connects to `server` fail, and it stays up because of `max-ejected`.
    pub fn not_ejected(&self, backend: &str, server: &str, max_ejected: u32) {
        let throttle = &self.reports.ejections;
        if let Some(and_others) = throttle.allow(self.second(), LIMIT_REPORT_EVERY) {
            tracing::warn!(
                backend,
                server,
                max_ejected,
                and_others,
                "server not taken down: max-ejected reached"
            );
        }
    }

    /// Counts a retry that was not made because of `retry-budget`, and writes an event.
    pub fn retry_denied(&self, backend: &BackendLive, retry_budget: u32) {
        backend.retries.count_denied();
        let throttle = &self.reports.retries;
        if let Some(and_others) = throttle.allow(self.second(), LIMIT_REPORT_EVERY) {
            let backend = &*backend.name;
            tracing::warn!(
                backend,
                retry_budget,
                and_others,
                "no retry: retry-budget used up"
            );
        }
    }

    fn second(&self) -> u64 {
        self.start.elapsed().as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::time::Instant;

    #[test]
    fn every_cause_has_a_name_and_a_count_of_its_own() {
        let names: BTreeSet<_> = FailureCause::ALL.iter().map(|cause| cause.name()).collect();
        assert_eq!(names.len(), FailureCause::ALL.len());
        for (index, cause) in FailureCause::ALL.into_iter().enumerate() {
            assert_eq!(cause.index(), index);
        }
        for (index, shortage) in Shortage::ALL.into_iter().enumerate() {
            assert_eq!(shortage as usize, index);
        }
    }

    #[test]
    fn one_event_in_a_second_and_the_next_counts_the_others() {
        let throttle = Throttle::default();
        assert_eq!(throttle.allow(0, 1), Some(0));
        assert_eq!(throttle.allow(0, 1), None);
        assert_eq!(throttle.allow(0, 1), None);
        assert_eq!(throttle.allow(1, 1), Some(2));
        assert_eq!(throttle.allow(1, 10), None);
        assert_eq!(throttle.allow(7, 10), Some(1));
        assert_eq!(throttle.allow(16, 10), None);
        assert_eq!(throttle.allow(17, 10), Some(1));
    }

    #[test]
    fn shortages_and_failed_sessions_are_counted_by_cause() {
        let (global, token) = (GlobalLive::new(Instant::now(), 1), WorkerToken::new(0));
        let backend = BackendLive::new("b".into(), 1);
        let ports = Shortage::SourcePorts;
        for _ in 0..3 {
            global.shortage(&token, ShortageStep::Connect, ports, None);
        }
        global.shortage(&token, ShortageStep::Accept, Shortage::Descriptors, None);
        let cause = FailureCause::Shortage(ports);
        global.session_failed(&token, &backend, None, cause);
        let times = |step, shortage| {
            global
                .traffic
                .sum(|shard| shard.shortages.of(step, shortage))
        };
        assert_eq!(times(ShortageStep::Connect, ports), 3);
        assert_eq!(times(ShortageStep::Accept, Shortage::Descriptors), 1);
        assert_eq!(times(ShortageStep::Check, Shortage::Memory), 0);
        let failed = |cause| backend.failed_sessions.sum(|shard| shard.of(cause));
        assert_eq!(failed(cause), 1);
        assert_eq!(failed(FailureCause::Refused), 0);
    }

    #[test]
    fn errors_of_connect_have_their_cause() {
        let cause = |code| FailureCause::of(&io::Error::from_raw_os_error(code));
        assert_eq!(cause(libc::ECONNREFUSED), FailureCause::Refused);
        assert_eq!(cause(libc::ENETUNREACH), FailureCause::Unreachable);
        assert_eq!(cause(libc::ETIMEDOUT), FailureCause::Timeout);
        assert_eq!(cause(libc::EINVAL), FailureCause::ConnectError);
        let ports = FailureCause::Shortage(Shortage::SourcePorts);
        assert_eq!(cause(libc::EADDRNOTAVAIL), ports);
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(FailureCause::of(&refused), FailureCause::Refused);
    }
}
