//! One turn of the control task: messages become changes, changes become one published snapshot.
//!
//! Control thread only. Invariant: log lines and orders to workers are sent after the snapshot with the change has
//! been published, so that the statistics agree with them.

mod backend;
mod hold_down;
mod slow_start;

use super::frontends::Followed;
use super::server_events::{self, LogLine, ServerEvent};
use super::server_index::{ServerIndex, ServerRef};
use crate::check::probe::Target;
use crate::check::schedule::IntervalKind;
use crate::config::model::{Check, OnError, ServerAddress};
use crate::live::{CheckReport, CheckStatus, WorkerToken};
use crate::state::overrides::{Overridden, Override};
use crate::state::{
    AdminRequest, AdminState, BackendChange, BackendId, Endpoint, Forced, Frontend, FrontendId,
    FrontendState, Interface, OperState, RuntimeChange, Server, ServerStatus, Snapshot,
    SnapshotBuilder, overrides,
};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// What a turn has changed so far.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    builder: SnapshotBuilder,
    servers: &'a ServerIndex,
    token: &'a WorkerToken,
    now: Instant,
    /// Where the operator's change that is being made was asked for.
    interface: Interface,
    /// Backends of which the sessions of backup servers are to end because a primary came up.
    backups_end: BTreeSet<BackendId>,
    outcome: Outcome,
}

/// What is to be done once a turn has been published.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// To be logged, in order.
    pub(super) lines: Vec<LogLine>,
    /// Servers that went down and whose sessions are to end.
    pub(super) down: Vec<u64>,
    /// Backup servers whose sessions are to end because a primary came up.
    pub(super) up: Vec<u64>,
    /// Servers whose sessions an operator ends.
    pub(super) killed: Vec<u64>,
    /// Host names to look up again, because a server of that name has left maintenance.
    pub(super) look_up: Vec<Arc<str>>,
    /// What operators had set, and what is as the file says now.
    pub(super) dropped: Vec<Override>,
    /// Addresses or checks of servers have changed.
    pub(super) specs_changed: bool,
    /// Frontends that are as the file says again, and did not accept before.
    pub(super) frontends_opened: Vec<Followed>,
    /// Frontends that cannot listen and are disabled therefore.
    pub(super) frontends_paused: Vec<FrontendId>,
    /// Backends whose servers have come up or gone down.
    pub(super) backends_changed: Vec<BackendId>,
}

impl<'a> Batch<'a> {
    /// A turn at `now` on top of `base`.
    pub(super) fn new(
        base: Arc<Snapshot>,
        servers: &'a ServerIndex,
        token: &'a WorkerToken,
        now: Instant,
    ) -> Self {
        Self {
            builder: SnapshotBuilder::new(base),
            servers,
            token,
            now,
            interface: Interface::Cli,
            backups_end: BTreeSet::new(),
            outcome: Outcome::default(),
        }
    }

    /// The new snapshot, if anything has changed, and what is to be done once it is published.
    pub(super) fn finish(mut self) -> (Option<Snapshot>, Outcome) {
        // That they are down is not believed.
        self.outcome.down.retain(|uid| {
            let at = self.servers.get(*uid);
            !at.is_some_and(|at| self.builder.fails_open(at.backend))
        });
        for backend in &self.backups_end {
            let servers = self.builder.servers(*backend).iter();
            let backups = servers.filter(|server| server.spec.backup);
            self.outcome
                .up
                .extend(backups.map(|server| server.live.uid));
        }
        self.outcome.backends_changed = self.builder.backends_changed();
        (self.builder.finish(), self.outcome)
    }

    /// A check of server `uid` has ended.
    pub(super) fn checked(&mut self, uid: u64, report: &CheckReport) {
        if let Some(handle) = self.servers.check_handle(uid) {
            handle.verdict_received();
        }
        let Some((at, before)) = self.find(uid) else {
            return;
        };
        if before.status.admin.is_maint() {
            // Begun before the maintenance: its result has no meaning any more.
            before.live.check.give_up();
            return;
        }
        let (rules, passed) = (before.rules(), report.status.has_passed());
        let mut server = Server::clone(&before);
        let moved = if passed {
            let handle = self.servers.check_handle(uid);
            if handle.is_some_and(|handle| handle.clears_suspicion()) {
                server.live.trust();
            }
            server.live.clear_errors();
            self.release_if_needed(at.backend, &mut server);
            if report.status == CheckStatus::L7OkConditional {
                server.status.check_passed_conditionally(rules, self.now)
            } else {
                server.status.check_passed(rules, self.now)
            }
        } else {
            server.status.check_failed(rules, self.now)
        };
        self.bound_hold_down((at.backend, &before.status), &mut server);
        self.conclude((at, &before), server, report, moved);
    }

    /// So many connects to server `uid` have failed in a row.
    pub(super) fn observed(&mut self, uid: u64, errors: u32) {
        let Some((at, before)) = self.find(uid) else {
            return;
        };
        if before.spec.error_limit().is_none() {
            // A reload has come before.
            return;
        }
        before.live.traffic.mine(self.token).hanafail.add(1);
        if before.status.admin.is_maint() {
            return;
        }
        let on_error = before.spec.on_error;
        if on_error != OnError::FastInter {
            let report = CheckReport {
                status: CheckStatus::HealthAnalyze,
                duration: None,
                code: 0,
                info: server_events::consecutive_errors(errors),
                in_progress: before.live.check.load().in_progress,
            };
            let mut server = Server::clone(&before);
            let moved = server.status.observed(on_error, before.rules(), self.now);
            let ejects = server.status.ejected && !before.status.ejected;
            if !ejects || self.may_eject(at.backend, &before.spec.name) {
                self.bound_hold_down((at.backend, &before.status), &mut server);
                self.conclude((at, &before), server, &report, moved);
            }
        }
        if let Some(handle) = self.servers.check_handle(uid) {
            handle.check_soon(self.now);
        }
    }

    /// `report` has made `server` of `before`; `moved`: its health counter is another.
    fn conclude(
        &mut self,
        (at, before): (ServerRef, &Server),
        server: Server,
        report: &CheckReport,
        moved: bool,
    ) {
        let passed = report.status.has_passed();
        if moved && !passed {
            server.live.traffic.mine(self.token).chkfail.add(1);
        }
        let last = server.live.check.status();
        server.live.check.store(report.clone());
        if moved || last != report.status {
            self.log_health_check(at.backend, &server, report);
        }
        if server.status != before.status {
            let flaps = server.status.flaps;
            self.change(at, &before.status, server, Some(report));
            self.tell_of_hold_down(at, (before.status.flaps, flaps));
        }
    }

    /// An operator wants a server to be in this state. `false`: it is not there (any more).
    pub(super) fn set_admin(&mut self, uid: u64, to: AdminRequest) -> bool {
        let Some((at, before)) = self.find(uid) else {
            return false;
        };
        let mut server = Server::clone(&before);
        let (admin, rules) = (server.status.admin, server.rules());
        let admin = match to {
            AdminRequest::Ready => admin
                .without(AdminState::FMAINT)
                .without(AdminState::FDRAIN),
            AdminRequest::Drain => admin.without(AdminState::FMAINT).with(AdminState::FDRAIN),
            AdminRequest::Maint => admin.without(AdminState::FDRAIN).with(AdminState::FMAINT),
            AdminRequest::AddMaint => admin.with(AdminState::FMAINT),
            AdminRequest::EndMaint => admin.without(AdminState::FMAINT),
            AdminRequest::AddDrain => admin.with(AdminState::FDRAIN),
            AdminRequest::EndDrain => admin.without(AdminState::FDRAIN),
        };
        if to == AdminRequest::Ready {
            server.status.forgive();
        }
        if admin != server.status.admin {
            server.status.set_admin(admin, rules, self.now);
        }
        if server.status != before.status {
            let flaps = server.status.flaps;
            self.change(at, &before.status, server, None);
            self.tell_of_hold_down(at, (before.status.flaps, flaps));
        }
        if to == AdminRequest::Ready
            && before.status.flaps.held
            && let Some(handle) = self.servers.check_handle(uid)
        {
            handle.check_now();
        }
        true
    }

    /// An operator sets a server's weight. `false`: it is not there (any more).
    pub(super) fn set_weight(&mut self, uid: u64, weight: u32) -> bool {
        let Some((at, before)) = self.find(uid) else {
            return false;
        };
        if before.weight != weight {
            let mut server = self.as_of_now(&before);
            server.weight = weight;
            self.change(at, &before.status, server, None);
        }
        true
    }

    /// An operator sets how many sessions a server may have; 0: no limit. `false`: it is not there (any more).
    fn set_maxconn(&mut self, uid: u64, maxconn: u32) -> bool {
        let Some((at, before)) = self.find(uid) else {
            return false;
        };
        if before.spec.maxconn != maxconn {
            let mut server = self.as_of_now(&before);
            server.set_maxconn(maxconn);
            self.change(at, &before.status, server, None);
        }
        true
    }

    /// An operator changes something else. `false`: it is not there (any more).
    pub(super) fn change_runtime(&mut self, change: &RuntimeChange) -> bool {
        match *change {
            RuntimeChange::FrontendMaxconn(id, maxconn) => {
                let frontend = self.builder.frontend_mut(id);
                frontend.map(|it| it.maxconn = Some(maxconn)).is_some()
            }
            RuntimeChange::FrontendState(id, state) => self.set_frontend(id, state),
            RuntimeChange::Publish(id, published) => self.builder.publish(id, published),
            RuntimeChange::ConnectionRate(limit) => {
                self.builder.process_mut().rate_limits.connections = limit;
                true
            }
            RuntimeChange::SessionRate(limit) => {
                self.builder.process_mut().rate_limits.sessions = limit;
                true
            }
            RuntimeChange::Maxconn(maxconn) => {
                self.builder.process_mut().maxconn = maxconn;
                true
            }
            RuntimeChange::StatsMaxconn(maxconn) => {
                self.builder.process_mut().stats_maxconn = Some(maxconn);
                true
            }
            RuntimeChange::Health(uid, to, by) => self.force(uid, to, by),
            RuntimeChange::Address(uid, ref address, ref endpoint) => {
                self.set_address(uid, (address, endpoint))
            }
            RuntimeChange::ServerMaxconn(uid, maxconn) => self.set_maxconn(uid, maxconn),
            RuntimeChange::Check(uid, ref check) => self.set_check(uid, check.clone()),
            RuntimeChange::DropOverrides => {
                self.drop_overrides();
                true
            }
            // Done after the batch.
            RuntimeChange::AddServer(..)
            | RuntimeChange::RenameServer(..)
            | RuntimeChange::RemoveServer(_)
            | RuntimeChange::ClearCounters(_) => true,
        }
    }

    /// An operator lets a frontend accept connections, or not.
    fn set_frontend(&mut self, id: FrontendId, state: FrontendState) -> bool {
        let Some(frontend) = self.builder.frontend_mut(id) else {
            return false;
        };
        frontend.state = state;
        // Whether it has been opened is known, and logged, when its sockets have followed.
        if state != FrontendState::Open {
            let line = server_events::frontend_set(self.builder.base(), id, state);
            self.outcome.lines.extend(line);
        }
        true
    }

    /// A socket of a frontend cannot listen again: the frontend is disabled, unless it is so already.
    pub(super) fn cannot_listen(&mut self, id: FrontendId, port: Option<u16>) {
        let is_open = |frontend: &Frontend| frontend.state() == FrontendState::Open;
        if self.builder.frontend(id).is_some_and(is_open)
            && let Some(frontend) = self.builder.frontend_mut(id)
        {
            frontend.state = FrontendState::Paused;
            let line = server_events::cannot_listen(self.builder.base(), id, port);
            self.outcome.lines.extend(line);
            self.outcome.frontends_paused.push(id);
        }
    }

    /// An operator forces a server's health.
    fn force(&mut self, uid: u64, to: Forced, by: Interface) -> bool {
        let Some((at, before)) = self.find(uid) else {
            return false;
        };
        let mut server = Server::clone(&before);
        server.status.force(to, before.rules(), self.now);
        if server.status != before.status {
            self.interface = by;
            self.change(at, &before.status, server, None);
            self.interface = Interface::Cli;
        }
        true
    }

    /// An operator sets a server's address.
    fn set_address(&mut self, uid: u64, (address, endpoint): (&ServerAddress, &Endpoint)) -> bool {
        let Some((at, before)) = self.find(uid) else {
            return false;
        };
        let mut server = Server::clone(&before);
        server.set_address(address.clone(), endpoint.clone(), self.now);
        server.live.trust();
        self.change(at, &before.status, server, None);
        self.outcome.specs_changed = true;
        true
    }

    /// An operator sets a server's check.
    fn set_check(&mut self, uid: u64, check: Option<Check>) -> bool {
        let Some((at, before)) = self.find(uid) else {
            return false;
        };
        let mut server = Server::clone(&before);
        server.set_check(check);
        self.change(at, &before.status, server, None);
        self.outcome.specs_changed = true;
        true
    }

    /// An operator drops everything that operators have set. Servers that were added or removed follow after the
    /// batch.
    fn drop_overrides(&mut self) {
        self.outcome.dropped = overrides::list(self.builder.base());
        overrides::drop_limits(&mut self.builder);
        let base = self.builder.base();
        let opened = self.builder.frontends_changed().into_iter();
        let opened = opened.map(|id| Followed {
            id,
            line: server_events::frontend_set(base, id, FrontendState::Open),
        });
        self.outcome.frontends_opened = opened.collect();
        for Overridden {
            backend,
            index,
            written,
        } in overrides::overridden(&self.builder, self.now)
        {
            let Some(before) = self.builder.server(backend, index).map(Arc::clone) else {
                continue;
            };
            if written.spec.address != before.spec.address {
                written.live.trust();
            }
            let at = ServerRef { backend, index };
            self.change(at, &before.status, written, None);
        }
        self.outcome.specs_changed = true;
    }

    /// An operator ends a server's sessions.
    pub(super) fn kill_sessions(&mut self, uid: u64) -> bool {
        self.outcome.killed.push(uid);
        true
    }

    /// The host name `name` has `addresses`. Its servers that had none leave the maintenance that waited
    /// for it; those whose address is not among them get the first.
    pub(super) fn resolved(&mut self, name: &str, addresses: &[IpAddr]) {
        for &uid in self.servers.named(name) {
            let Some((at, before)) = self.find(uid) else {
                continue;
            };
            let Some(server) = self.at_one_of(&before, addresses) else {
                continue;
            };
            let Some(backend) = self.builder.backend(at.backend).map(Arc::clone) else {
                continue;
            };
            let (backend, name) = (&backend.spec.name, &before.spec.name);
            if let Some(Endpoint::Ip(old, _)) = before.endpoint {
                let line = server_events::address_changed(backend, name, old, &server);
                self.outcome.lines.extend(line);
                server.live.trust();
                self.change(at, &before.status, server, None);
                if let Some(handle) = self.servers.check_handle(uid) {
                    handle.check_now();
                }
            } else {
                let line = server_events::valid_answer(backend, name);
                self.change(at, &before.status, server, None);
                self.outcome.lines.push(line);
            }
        }
    }

    /// The same at the start: nothing has happened yet, so nothing is logged or counted.
    pub(super) fn resolved_at_start(&mut self, name: &str, addresses: &[IpAddr]) {
        for &uid in self.servers.named(name) {
            let Some((at, before)) = self.find(uid) else {
                continue;
            };
            if let Some(mut server) = self.at_one_of(&before, addresses) {
                let (admin, rules) = (server.status.admin, server.rules());
                server.status = ServerStatus::initial(admin, rules, self.now);
                self.builder.replace(at.backend, at.index, server, self.now);
            }
        }
    }

    /// The server `before` at the first of `addresses`; `None` when it is at one of them already.
    fn at_one_of(&self, before: &Server, addresses: &[IpAddr]) -> Option<Server> {
        let ServerAddress::Name(_, port) = before.spec.address else {
            return None;
        };
        if let Some(Endpoint::Ip(ip, _)) = &before.endpoint
            && addresses.contains(ip)
        {
            return None;
        }
        let mut server = before.clone();
        let endpoint = Endpoint::Ip(*addresses.first()?, port);
        if let Some(handle) = self.servers.check_handle(server.live.uid) {
            handle.set_target(Target::of(&server.spec, &endpoint));
        }
        server.endpoint = Some(endpoint);
        let (admin, rules) = (server.status.admin, server.rules());
        if admin.has(AdminState::RMAINT) {
            let admin = admin.without(AdminState::RMAINT);
            server.status.set_admin(admin, rules, self.now);
        }
        if let Some(handle) = self.servers.check_handle(server.live.uid) {
            handle.set_interval_kind(IntervalKind::of(&server.status, rules));
        }
        Some(server)
    }

    fn find(&self, uid: u64) -> Option<(ServerRef, Arc<Server>)> {
        let at = self.servers.get(uid)?;
        let server = self.builder.server(at.backend, at.index)?;
        (server.live.uid == uid).then(|| (at, Arc::clone(server)))
    }

    /// Replaces the server at `at` with `server`, and does everything that follows from the change.
    fn change(
        &mut self,
        at: ServerRef,
        before: &ServerStatus,
        server: Server,
        check: Option<&CheckReport>,
    ) {
        let after = server.status.clone();
        let shutdown_down = server.spec.shutdown_sessions_on_down;
        let shutdown_up = server.spec.shutdown_backup_sessions_on_up && !server.spec.backup;
        let (usable, uid) = (server.is_usable(), server.live.uid);
        if let Some(handle) = self.servers.check_handle(uid) {
            handle.set_interval_kind(IntervalKind::of(&after, server.rules()));
            if before.admin.is_maint() && !after.admin.is_maint() {
                handle.check_now();
            }
        }
        if before.admin.is_maint() && !after.admin.is_maint() {
            server.live.trust();
            if let ServerAddress::Name(name, _) = &server.spec.address
                && !before.admin.has(AdminState::RMAINT)
            {
                self.outcome.look_up.push(Arc::clone(name));
            }
        }
        if before.oper != OperState::Stopped && after.oper == OperState::Stopped {
            server.live.traffic.mine(self.token).chkdown.add(1);
            if shutdown_down {
                self.outcome.down.push(uid);
            }
        }
        let failed_open = self.builder.fails_open(at.backend);
        let turned = self.builder.replace(at.backend, at.index, server, self.now);
        if before.oper != after.oper && usable && shutdown_up {
            self.backups_end.insert(at.backend);
        }
        self.log_change(at, before, check);
        if self.builder.fails_open(at.backend) != failed_open {
            self.fail_open_changed(at.backend, failed_open);
        }
        if turned != BackendChange::None {
            self.backend_turned(at.backend, turned);
        }
    }

    fn log_change(&mut self, at: ServerRef, before: &ServerStatus, check: Option<&CheckReport>) {
        let Some(event) = self.event_of(at) else {
            return;
        };
        let said = server_events::changed(before, event, check);
        self.outcome.lines.extend(said);
    }

    /// What the log says of a server is made from this. `None`: it is gone.
    fn event_of(&self, at: ServerRef) -> Option<ServerEvent<'_>> {
        let backend = self.builder.backend(at.backend)?;
        Some(ServerEvent {
            backend: &backend.spec.name,
            server: self.builder.server(at.backend, at.index)?,
            usable: self.builder.usable(at.backend),
            check_is_logged: backend.spec.log_health_checks,
            interface: self.interface,
        })
    }

    fn log_health_check(&mut self, id: BackendId, server: &Server, report: &CheckReport) {
        let Some(backend) = self.builder.backend(id) else {
            return;
        };
        if !backend.spec.log_health_checks {
            return;
        }
        let event = ServerEvent {
            backend: &backend.spec.name,
            server,
            usable: self.builder.usable(id),
            check_is_logged: true,
            interface: self.interface,
        };
        let line = server_events::health_check(event, report);
        self.outcome.lines.push(line);
    }
}

#[cfg(test)]
mod tests;
