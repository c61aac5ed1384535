//! What a log line about a server or backend says, as fields of its event. Pure but for
//! [`LogLine::emit_event`], which writes to the events of the process.

use super::{LogLine, ServerEvent};
use crate::config::model::Severity;
use crate::live::CheckReport;
use crate::live::timing::millis;
use crate::log::events::IN_WORDS;
use crate::state::{AdminState, OperState, ServerStatus};
use std::net::IpAddr;
use std::time::Duration;

/// The fields of an event. One that is `None` is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// Name of the backend.
    pub backend: String,
    /// Name of the server.
    pub server: Option<String>,
    /// As in the `status` column of the statistics, after the change.
    pub status: Option<String>,
    /// The same before the change.
    pub status_before: Option<String>,
    /// How long the server was up or down before.
    pub lasted: Option<Duration>,
    /// What brought the change about: the check's result in words, `runtime command`,
    /// `name resolution` or `end of slow start`.
    pub reason: Option<&'static str>,
    /// As in the `check_status` column.
    pub check_status: Option<&'static str>,
    /// The number that the answer to the check had.
    pub check_code: Option<u16>,
    /// What the system or the server said.
    pub check_info: Option<String>,
    /// How long the check took.
    pub check_duration: Option<Duration>,
    /// Sessions that the server has.
    pub sessions: Option<u32>,
    /// Usable servers of the backend that are no backups.
    pub active_servers: Option<u32>,
    /// Usable backup servers of the backend.
    pub backup_servers: Option<u32>,
    /// How much longer the server is held down.
    pub held_for: Option<Duration>,
    /// How often it has gone down, as far as that counts.
    pub flaps: Option<u8>,
    /// The address that a name led to before.
    pub address_before: Option<IpAddr>,
    /// The address that it leads to.
    pub address: Option<IpAddr>,
}

impl Fields {
    pub(super) fn of_backend(backend: &str) -> Self {
        Self {
            backend: backend.to_owned(),
            ..Self::default()
        }
    }

    pub(super) fn of_server(backend: &str, server: &str) -> Self {
        Self {
            server: Some(server.to_owned()),
            ..Self::of_backend(backend)
        }
    }

    pub(super) fn of_address(backend: &str, server: &str, old: IpAddr, new: IpAddr) -> Self {
        Self {
            address_before: Some(old),
            address: Some(new),
            ..Self::of_server(backend, server)
        }
    }

    /// Of a check whose result is logged.
    pub(super) fn of_check(event: ServerEvent<'_>, report: &CheckReport) -> Self {
        let server = event.server;
        let rules = server.spec.check.as_ref().map(|_| server.rules());
        let mut fields = Self::of_server(event.backend, &server.spec.name);
        fields.status = Some(server.status.label(rules).into_owned());
        fields.reason = Some(report.status.description());
        fields.check_status = Some(report.status.code());
        fields.check_code = report.code();
        fields.check_info = Some(report.info.clone()).filter(|info| !info.is_empty());
        fields.check_duration = report.duration;
        fields
    }

    /// Of the step from `before` to the server as it is now.
    pub(super) fn of_change(
        before: &ServerStatus,
        event: ServerEvent<'_>,
        check: Option<&CheckReport>,
    ) -> Self {
        let server = event.server;
        let rules = server.spec.check.as_ref().map(|_| server.rules());
        let waited = |status: &ServerStatus| status.admin.has(AdminState::RMAINT);
        let resolved = waited(before) && !waited(&server.status);
        let mut fields = match check {
            Some(report) => Self::of_check(event, report),
            None => Self {
                status: Some(server.status.label(rules).into_owned()),
                reason: Some(match (before.oper, server.status.oper) {
                    _ if resolved => "name resolution",
                    (OperState::Starting, OperState::Running) => "end of slow start",
                    _ => "runtime command",
                }),
                ..Self::of_server(event.backend, &server.spec.name)
            },
        };
        fields.status_before = Some(before.label(rules).into_owned());
        if before.oper != server.status.oper {
            fields.lasted = Some(server.status.since.saturating_duration_since(before.since));
        }
        fields.sessions = Some(server.live.active.get());
        fields.active_servers = Some(event.usable.active);
        fields.backup_servers = Some(event.usable.backup);
        fields
    }
}

/// One event of `$line` at the level `$level`, which a macro of `tracing` has in its name.
macro_rules! event {
    ($level:ident, $line:expr) => {{
        let Fields {
            backend,
            server,
            status,
            status_before,
            lasted,
            reason,
            check_status,
            check_code,
            check_info,
            check_duration,
            sessions,
            active_servers,
            backup_servers,
            held_for,
            flaps,
            address_before,
            address,
        } = &$line.fields;
        tracing::$level!(
            target: IN_WORDS,
            backend,
            server,
            status,
            status_before,
            lasted_ms = lasted.map(millis),
            reason,
            check_status,
            check_code,
            check_info,
            check_duration_ms = check_duration.map(millis),
            sessions,
            active_servers,
            backup_servers,
            held_for_ms = held_for.map(millis),
            flaps,
            address_before = address_before.map(tracing::field::display),
            address = address.map(tracing::field::display),
            "{}",
            $line.text
        );
    }};
}

impl LogLine {
    /// Writes the event: an error when something has gone down that nobody has asked to.
    pub fn emit_event(&self) {
        match self.severity {
            Severity::Alert if self.planned => event!(info, self),
            Severity::Emerg | Severity::Alert | Severity::Crit | Severity::Err => {
                event!(error, self);
            }
            Severity::Warning if self.planned => event!(info, self),
            Severity::Warning => event!(warn, self),
            Severity::Notice | Severity::Info => event!(info, self),
            Severity::Debug => event!(debug, self),
        }
    }
}
