//! The log lines about servers and backends, in HAProxy's words (section 2.10 of its semantics), and
//! the events that go with them.
//!
//! Pure but for [`LogLine::emit_event`] and [`log_dropped`]; called by the control task with the state before and after a
//! change. Scripts parse these lines as they do HAProxy's, so each byte is the same.

mod backend;
mod fields;
mod hold_down;

pub use backend::BackendEvent;
pub use fields::Fields;
pub use hold_down::held_down;

use crate::config::model::Severity;
use crate::live::{CheckReport, CheckStatus, FrontendLive, LogEntry, LogQueue, Shards, Traffic};
use crate::state::overrides::Override;
use crate::state::{
    AdminState, Backend, Endpoint, Frontend, FrontendId, FrontendState, Interface, OperState,
    Server, ServerStatus, Snapshot, Usable,
};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How bad, for log targets. HAProxy's.
    pub severity: Severity,
    /// An operator has asked for it: the event is no error.
    pub planned: bool,
    /// What happened.
    pub text: String,
    /// The same for programs.
    pub fields: Fields,
}

impl LogLine {
    /// Writes the event, and the line to `log`.
    pub fn log(self, log: &LogQueue) {
        self.emit_event();
        log.send_with(|| LogEntry::Event {
            severity: self.severity as u8,
            text: self.text.into_boxed_str(),
        });
    }
}

/// A server after a change, and where it is.
#[derive(Debug, Clone, Copy)]
pub struct ServerEvent<'a> {
    /// Name of the backend.
    pub backend: &'a str,
    /// The server.
    pub server: &'a Server,
    /// Usable servers of the backend.
    pub usable: Usable,
    /// `log-health-checks`: a line of its own has given the reason of the check already.
    pub check_is_logged: bool,
    /// Where an operator has made the change, unless a check has.
    pub interface: Interface,
}

/// Lines about the step from `before` to the server as it is now: at most one for the operational and
/// two for the administrative state. `check`: the check that brought it about.
pub fn changed(
    before: &ServerStatus,
    event: ServerEvent<'_>,
    check: Option<&CheckReport>,
) -> Vec<LogLine> {
    let said: Vec<(Severity, String)> = if before.admin == event.server.status.admin {
        operational(before, event, check).into_iter().collect()
    } else {
        let maint = maintenance(before, event);
        maint.into_iter().chain(drain(before, event)).collect()
    };
    let fields = Fields::of_change(before, event, check);
    let line = |(severity, text)| LogLine {
        severity,
        planned: check.is_none(),
        text,
        fields: fields.clone(),
    };
    said.into_iter().map(line).collect()
}

/// A health counter has moved, or the verdict is another than before (`log-health-checks`).
pub fn health_check(event: ServerEvent<'_>, report: &CheckReport) -> LogLine {
    let ServerEvent {
        backend, server, ..
    } = event;
    let (rules, health) = (server.rules(), server.status.health);
    let (of, most, word) = if health < rules.rise {
        (health, rules.rise, "DOWN")
    } else if server.weight > 0 {
        (health + 1 - rules.rise, rules.fall, "UP")
    } else {
        (health + 1 - rules.rise, rules.fall, "DRAIN")
    };
    let text = format!(
        "Health check for {}server {backend}/{} {}{}, status: {of}/{most} {word}.",
        if server.spec.backup { "backup " } else { "" },
        server.spec.name,
        match report.status {
            CheckStatus::L7OkConditional => "conditionally succeeded",
            status if status.has_passed() => "succeeded",
            _ => "failed",
        },
        reason(report),
    );
    LogLine {
        severity: Severity::Notice,
        planned: false,
        text,
        fields: Fields::of_check(event, report),
    }
}

/// What HAProxy says of a server whose sessions have failed to connect.
pub fn consecutive_errors(errors: u32) -> String {
    format!("Detected {errors} consecutive errors, last one was: L4 unsuccessful connection")
}

/// Proxies stop, in the order of the file, as at HAProxy's stop. Those that an operator has shut down have been told of.
pub fn proxies_stopped(snapshot: &Snapshot) -> Vec<LogLine> {
    // The two halves of a `[[listen]]` have one number.
    let mut all: BTreeMap<u32, (u32, &str, u64, u64)> = BTreeMap::new();
    let mut told = Vec::new();
    for one in snapshot.frontends.iter().flatten() {
        let spec = &one.spec;
        if one.state() == FrontendState::Stopped {
            told.extend((!spec.disabled).then_some(spec.id));
            continue;
        }
        let entry = all.entry(spec.id).or_insert((spec.order, &spec.name, 0, 0));
        entry.2 = connections(&one.live);
    }
    let backends = snapshot.backends.iter().flatten();
    for one in backends.filter(|one| !told.contains(&one.spec.id)) {
        let spec = &one.spec;
        let entry = all.entry(spec.id).or_insert((spec.order, &spec.name, 0, 0));
        entry.3 = sessions(&one.live.traffic);
    }
    let mut lines: Vec<_> = all.into_values().collect();
    lines.sort_by_key(|(order, ..)| *order);
    let stats = snapshot.stats.iter();
    let stats = stats.map(|it| (0, &*it.name, connections(&snapshot.stats_live), 0));
    let line = |(_, name, connections, sessions)| proxy_stopped(name, (connections, sessions));
    stats.chain(lines).map(line).collect()
}

fn sessions(traffic: &Shards<Traffic>) -> u64 {
    traffic.sum(|traffic| &traffic.stot)
}

fn connections(live: &FrontendLive) -> u64 {
    live.traffic.sum(|traffic| &traffic.conn_tot)
}

fn proxy_stopped(name: &str, (connections, sessions): (u64, u64)) -> LogLine {
    LogLine {
        severity: Severity::Warning,
        planned: true,
        text: format!("Proxy {name} stopped (cumulated conns: FE: {connections}, BE: {sessions})."),
        fields: Fields::of_backend(name),
    }
}

/// An operator sets whether a frontend accepts connections.
pub fn frontend_set(snapshot: &Snapshot, id: FrontendId, state: FrontendState) -> Option<LogLine> {
    let frontend = snapshot.frontend(id)?;
    let name = &*frontend.spec.name;
    let (kind, listen) = kind(snapshot, frontend);
    let word = match state {
        FrontendState::Open => "Resumed",
        FrontendState::Paused => "Paused",
        FrontendState::Stopped => {
            let sessions = listen.map_or(0, |backend| sessions(&backend.live.traffic));
            return Some(proxy_stopped(name, (connections(&frontend.live), sessions)));
        }
    };
    Some(LogLine {
        severity: Severity::Warning,
        planned: true,
        text: format!("{word} {kind} {name}."),
        fields: Fields::of_backend(name),
    })
}

/// A frontend has begun or ceased to listen, because its sessions would find a server or would not.
pub fn frontend_follows(snapshot: &Snapshot, id: FrontendId) -> Option<LogLine> {
    let frontend = snapshot.frontend(id)?;
    let name = &*frontend.spec.name;
    let (kind, _) = kind(snapshot, frontend);
    let backend = &frontend.route.backend().spec.name;
    let text = if frontend.listens() {
        format!("Resumed {kind} {name}: backend {backend} has a server again.")
    } else {
        format!("Paused {kind} {name}: backend {backend} has no server available.")
    };
    Some(LogLine {
        severity: Severity::Warning,
        planned: false,
        text,
        fields: Fields::of_backend(name),
    })
}

/// A frontend was to accept connections again, and a socket of it, at this port if it has one, cannot listen. It stays
/// disabled.
pub fn cannot_listen(snapshot: &Snapshot, id: FrontendId, port: Option<u16>) -> Option<LogLine> {
    let frontend = snapshot.frontend(id)?;
    let name = &*frontend.spec.name;
    let (kind, _) = kind(snapshot, frontend);
    let what = port.map_or_else(
        || "Bind on socket".to_owned(),
        |port| format!("Port {port}"),
    );
    Some(LogLine {
        severity: Severity::Warning,
        planned: false,
        text: format!("{what} busy while trying to enable {kind} {name}."),
        fields: Fields::of_backend(name),
    })
}

/// What HAProxy calls a frontend, and its backend if it is half of a `[[listen]]`.
fn kind<'a>(
    snapshot: &'a Snapshot,
    frontend: &Frontend,
) -> (&'static str, Option<&'a Arc<Backend>>) {
    let mut backends = snapshot.backends.iter().flatten();
    match backends.find(|one| one.spec.id == frontend.spec.id) {
        Some(backend) => ("proxy", Some(backend)),
        None => ("frontend", None),
    }
}

/// A server's name has an address at last; follows the line about the server's state.
pub fn valid_answer(backend: &str, server: &str) -> LogLine {
    LogLine {
        severity: Severity::Notice,
        planned: false,
        text: format!(
            "Server {backend}/{server} administratively READY thanks to valid DNS answer."
        ),
        fields: Fields::of_server(backend, server),
    }
}

/// A server's name leads elsewhere since it was last looked up: `server` as it is now.
pub fn address_changed(backend: &str, name: &str, old: IpAddr, server: &Server) -> Option<LogLine> {
    let Some(Endpoint::Ip(new, _)) = server.endpoint else {
        return None;
    };
    Some(LogLine {
        severity: Severity::Notice,
        planned: false,
        text: format!("{backend}/{name}: IP changed from '{old}' to '{new}' by 'DNS resolver'."),
        fields: Fields::of_address(backend, name, old, new),
    })
}

/// What operators had set is as the file says again.
pub fn log_dropped(overrides: Vec<Override>) {
    for Override {
        object,
        setting,
        file,
        now,
    } in overrides
    {
        tracing::info!(object, setting, was = now, file, "override dropped");
    }
}

fn operational(
    before: &ServerStatus,
    event: ServerEvent<'_>,
    check: Option<&CheckReport>,
) -> Option<(Severity, String)> {
    let after = &event.server.status;
    if before.oper == after.oper {
        return None;
    }
    let word = match after.oper {
        OperState::Stopped => "DOWN",
        OperState::Stopping => "stopping",
        OperState::Starting | OperState::Running => "UP",
    };
    let cause = match check {
        // The end of a slow start.
        None if before.oper == OperState::Starting && after.oper == OperState::Running => {
            String::new()
        }
        None => format!(", changed from {}", event.interface.name()),
        Some(_) if event.check_is_logged => String::new(),
        Some(report) => reason(report),
    };
    let text = format!(
        "{} is {word}{cause}{}.",
        event.subject(),
        event.what_is_left()
    );
    let alert = after.oper == OperState::Stopped && !was_leaving(before);
    Some(if alert { alarm(text) } else { notice(text) })
}

/// Entering, leaving or partly leaving maintenance.
fn maintenance(before: &ServerStatus, event: ServerEvent<'_>) -> Option<(Severity, String)> {
    let after = &event.server.status;
    let subject = event.subject();
    let left = |flag| before.admin.has(flag) && !after.admin.has(flag);
    match (before.admin.is_maint(), after.admin.is_maint()) {
        (false, true) if before.oper == OperState::Stopped => Some(notice(format!(
            "{subject} was DOWN and now enters maintenance."
        ))),
        (false, true) => {
            let text = format!(
                "{subject} is going DOWN for maintenance{}.",
                event.what_is_left()
            );
            Some(if was_leaving(before) {
                notice(text)
            } else {
                alarm(text)
            })
        }
        (true, false) => {
            let (name, why) = if left(AdminState::RMAINT) {
                (event.host_name(), "resolves again")
            } else {
                (String::new(), "leaving forced maintenance")
            };
            Some(notice(format!(
                "{subject}{name} is {}/{} ({why}).",
                up_or_down(after),
                if after.admin.is_drain() {
                    "DRAIN"
                } else {
                    "READY"
                },
            )))
        }
        (true, true) if left(AdminState::RMAINT) => Some(notice(format!(
            "{subject}{} resolves again but remains in maintenance.",
            event.host_name()
        ))),
        (true, true) if left(AdminState::FMAINT) => Some(notice(format!(
            "{subject} is leaving forced maintenance but remains in maintenance."
        ))),
        _ => None,
    }
}

/// Entering or leaving drain; no line for a server in maintenance.
fn drain(before: &ServerStatus, event: ServerEvent<'_>) -> Option<(Severity, String)> {
    let after = &event.server.status;
    if after.admin.is_maint() {
        return None;
    }
    let subject = event.subject();
    match (before.admin.is_drain(), after.admin.is_drain()) {
        (false, true) => Some(notice(format!(
            "{subject} enters drain state{}.",
            event.what_is_left()
        ))),
        (true, false) => Some(notice(format!(
            "{subject} is {} (leaving forced drain).",
            up_or_down(after)
        ))),
        _ => None,
    }
}

impl ServerEvent<'_> {
    fn subject(&self) -> String {
        let kind = if self.server.spec.backup {
            "Backup "
        } else {
            ""
        };
        format!("{kind}Server {}/{}", self.backend, self.server.spec.name)
    }

    fn host_name(&self) -> String {
        match &self.server.spec.address {
            crate::config::model::ServerAddress::Name(name, _) => format!(" ('{name}')"),
            _ => String::new(),
        }
    }

    /// HAProxy's `srv_append_more`. What waited for the server chooses again.
    fn what_is_left(&self) -> String {
        let Usable { active, backup } = self.usable;
        let on_backup = if self.usable.on_backup() {
            " Running on backup."
        } else {
            ""
        };
        if self.server.status.oper == OperState::Stopped {
            let live = &self.server.live;
            let (sessions, waiting) = (live.active.get(), live.queued.load(Relaxed));
            format!(
                ". {active} active and {backup} backup servers left.{on_backup} \
                 {sessions} sessions active, {waiting} requeued, 0 remaining in queue"
            )
        } else {
            format!(
                ". {active} active and {backup} backup servers online.{on_backup} \
                 0 sessions requeued, 0 total in queue"
            )
        }
    }
}

/// HAProxy's `check_append_info`.
fn reason(report: &CheckReport) -> String {
    let mut text = format!(", reason: {}", report.status.description());
    if let Some(code) = report.code() {
        let _ = write!(text, ", code: {code}");
    }
    if !report.info.is_empty() {
        let _ = write!(text, ", info: \"{}\"", encoded(&report.info));
    }
    if let Some(duration) = report.duration {
        let _ = write!(text, ", check duration: {}ms", duration.as_millis());
    }
    text
}

/// HAProxy's `chunk_asciiencode`: what is not printable or has a meaning in a log, as its hexadecimal digits.
fn encoded(info: &str) -> Cow<'_, str> {
    let plain = |byte: u8| (b' '..=b'~').contains(&byte) && !b"&<>\"".contains(&byte);
    if info.bytes().all(plain) {
        return info.into();
    }
    let mut out = String::with_capacity(info.len());
    for byte in info.bytes() {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "<{byte:02X}>");
        }
    }
    out.into()
}

/// No alarm is raised for a server that an operator was taking out already.
fn was_leaving(before: &ServerStatus) -> bool {
    before.oper == OperState::Stopping || before.admin.is_drain()
}

fn up_or_down(status: &ServerStatus) -> &'static str {
    if status.oper == OperState::Stopped {
        "DOWN"
    } else {
        "UP"
    }
}

fn notice(text: String) -> (Severity, String) {
    (Severity::Notice, text)
}

fn alarm(text: String) -> (Severity, String) {
    (Severity::Alert, text)
}

#[cfg(test)]
mod tests;
