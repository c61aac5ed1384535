//! The source of a metric's value, and the samples that it gives for a row.

use crate::live::{CheckReport, CheckStatus, FailureCause};
use crate::state::{AdminState, Backend, FrontendState, OperState, Server};
use crate::stats::columns::{Value, named};
use crate::stats::row::{Object, Row};

/// Milliseconds per second, the unit of Prometheus.
const MILLIS: f64 = 1000.0;

/// The states of a server, as labels.
const SERVER_STATES: [&str; 5] = ["DOWN", "UP", "MAINT", "DRAIN", "NOLB"];
/// The results of a check that HAProxy has labels for.
const CHECK_STATES: [&str; 16] = [
    "HANA", "SOCKERR", "L4OK", "L4TOUT", "L4CON", "L6OK", "L6TOUT", "L6RSP", "L7TOUT", "L7RSP",
    "L7OK", "L7OKC", "L7STS", "PROCERR", "PROCTOUT", "PROCOK",
];
/// Classes of responses, and their columns.
const RESPONSES: [(&str, &str); 6] = [
    ("1xx", "hrsp_1xx"),
    ("2xx", "hrsp_2xx"),
    ("3xx", "hrsp_3xx"),
    ("4xx", "hrsp_4xx"),
    ("5xx", "hrsp_5xx"),
    ("other", "hrsp_other"),
];

/// The source of a metric's value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    /// This column; no sample where it is absent.
    Column(&'static str),
    /// This column, which is in milliseconds.
    Millis(&'static str),
    /// This column; `NaN`, a limit that is not set, where it is absent.
    Limit(&'static str),
    /// This column, of proxies in HTTP mode only.
    Http(&'static str),
    /// Code of the last check; 0 where it has none, as in HAProxy.
    Code,
    /// One sample per state, 1 for the current one.
    Status,
    /// One sample per result, 1 for the last.
    CheckStatus,
    /// One sample per class of responses.
    Responses,
    /// How many servers of a backend are in each state.
    ServerStates,
    /// How many servers of a backend have each result of the last check.
    CheckStates,
    /// Whether the server is suspected.
    Suspect,
    /// Usual time of a connect to the server.
    UsualConnect,
    /// Sessions of a backend that got no server, one sample per cause.
    FailedSessions,
    /// Retries that a backend's sessions have not made, where they have a budget.
    RetriesDenied,
    /// How much longer a server is held down, where it may be.
    HeldDown,
    /// Always 1; the address of the server is a label.
    Address,
    /// Whether the backend fails open, where it may.
    FailOpen,
    /// The last priority that is in use, where servers have several.
    Priority,
    /// Sessions that were ended by `rebalance`, where it is set or has ended any.
    Rebalanced,
}

/// A sample: an additional label, and the value.
pub(super) type Sample<'a> = (Option<(&'static str, std::borrow::Cow<'a, str>)>, f64);

impl Source {
    /// Passes each sample of `row` to `take`.
    pub(super) fn samples(self, row: &Row<'_>, take: &mut dyn FnMut(Sample<'_>)) {
        match self {
            Self::Column(name) => plain(column(name, row), take),
            Self::Millis(name) => plain(column(name, row).map(|millis| millis / MILLIS), take),
            Self::Limit(name) => plain(Some(column(name, row).unwrap_or(f64::NAN)), take),
            Self::Http(name) if row.is_http() => plain(column(name, row), take),
            Self::Http(_) => {}
            Self::Code => {
                let code = |report: &CheckReport| f64::from(report.code().unwrap_or(0));
                plain(row.check().map(code), take);
            }
            Self::Status => status(row, take),
            Self::CheckStatus => {
                if let Some(report) = row.check() {
                    let code = report.status.code();
                    for state in CHECK_STATES {
                        take(labelled("state", state, f64::from(u8::from(state == code))));
                    }
                }
            }
            Self::Responses => {
                for (class, name) in RESPONSES {
                    if let Some(value) = column(name, row) {
                        take(labelled("code", class, value));
                    }
                }
            }
            Self::ServerStates => of_servers(row, &SERVER_STATES, |one| Some(state(one)), take),
            Self::CheckStates => of_servers(row, &CHECK_STATES, checked, take),
            Self::FailedSessions => failed_sessions(row, take),
            Self::FailOpen => {
                let backend = row.backend().filter(|it| it.spec.fail_open_below > 0);
                plain(backend.map(|it| u8::from(it.status.fail_open).into()), take);
            }
            Self::RetriesDenied => {
                let backend = row.backend().filter(|it| it.spec.retry_budget.is_some());
                let denied = backend.map(|it| Value::Number(it.live.retries.denied()));
                plain(denied.as_ref().and_then(number), take);
            }
            Self::Priority => plain(row.backend().and_then(priority), take),
            Self::Rebalanced => plain(rebalanced(row), take),
            Self::Suspect | Self::UsualConnect | Self::HeldDown | Self::Address => {
                own(self, row, take);
            }
        }
    }
}

/// Sources that only rlb has.
fn own(source: Source, row: &Row<'_>, take: &mut dyn FnMut(Sample<'_>)) {
    let Some(server) = row.server() else {
        return;
    };
    match source {
        Source::Suspect => plain(Some(u8::from(server.live.is_suspect()).into()), take),
        Source::HeldDown => {
            let left = row.held_for().unwrap_or_default().as_secs_f64();
            plain(server.spec.hold_down.as_ref().map(|_| left), take);
        }
        Source::UsualConnect => {
            let usual = server.live.usual_connect();
            plain((!usual.is_zero()).then_some(usual.as_secs_f64()), take);
        }
        _ => {
            if let Some(address) = row.address().filter(|_| row.legends()) {
                take((Some(("address", address)), 1.0));
            }
        }
    }
}

/// The highest priority of the servers in use; `None`: all servers that are no backups have the same, or none of them is
/// in use.
fn priority(backend: &Backend) -> Option<f64> {
    let mut servers = backend.servers.iter().filter(|server| !server.spec.backup);
    let first = servers.next()?.spec.priority;
    if servers.all(|server| server.spec.priority == first) {
        return None;
    }
    let in_use = backend.in_use();
    let active = in_use.iter().filter(|one| !one.backup);
    active.map(|one| one.priority).max().map(f64::from)
}

/// Sessions that were ended by `rebalance`.
fn rebalanced(row: &Row<'_>) -> Option<f64> {
    let spec = match row.object {
        Object::Server(backend, _) | Object::Backend(backend) => &backend.spec,
        _ => return None,
    };
    let sessions = row.count(|traffic| &traffic.rebalanced);
    let shown = spec.rebalance > 0 || sessions > 0;
    number(&Value::Number(sessions)).filter(|_| shown)
}

fn plain(value: Option<f64>, take: &mut dyn FnMut(Sample<'_>)) {
    if let Some(value) = value {
        take((None, value));
    }
}

fn labelled<'a>(name: &'static str, text: &'static str, value: f64) -> Sample<'a> {
    (Some((name, text.into())), value)
}

/// Every cause has a series from the start, so that the first failure is an increase.
fn failed_sessions(row: &Row<'_>, take: &mut dyn FnMut(Sample<'_>)) {
    if let Object::Backend(backend) = row.object {
        for cause in FailureCause::ALL {
            let sessions = backend.live.failed_sessions.sum(|shard| shard.of(cause));
            if let Some(sessions) = number(&Value::Number(sessions)) {
                take(labelled("cause", cause.name(), sessions));
            }
        }
    }
}

/// A number of a row. Counters above 2^53 lose their last digits, as all numbers of Prometheus.
#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus knows no other numbers"
)]
pub(super) fn number(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Number(number) => Some(*number as f64),
        Value::Signed(number) => Some(*number as f64),
        Value::Fraction(number) => Some(*number),
        Value::Absent | Value::Text(_) => None,
    }
}

fn column(name: &str, row: &Row<'_>) -> Option<f64> {
    number(&named(name).value(row))
}

fn status(row: &Row<'_>, take: &mut dyn FnMut(Sample<'_>)) {
    let (states, current) = match row.object {
        Object::Server(_, server) => (&SERVER_STATES[..], state(server)),
        Object::Backend(backend) if !backend.status.up => (&SERVER_STATES[..2], "DOWN"),
        Object::Frontend(frontend) if frontend.state() == FrontendState::Stopped => {
            (&SERVER_STATES[..2], "DOWN")
        }
        _ => (&SERVER_STATES[..2], "UP"),
    };
    for &state in states {
        take(labelled(
            "state",
            state,
            f64::from(u8::from(state == current)),
        ));
    }
}

/// The state of a server, as a label.
fn state(server: &Server) -> &'static str {
    let status = &server.status;
    if status.admin.is_maint() {
        "MAINT"
    } else if status.oper == OperState::Stopped {
        "DOWN"
    } else if status.oper == OperState::Stopping {
        "NOLB"
    } else if status
        .admin
        .has(AdminState(AdminState::FDRAIN.0 | AdminState::IDRAIN.0))
    {
        "DRAIN"
    } else {
        "UP"
    }
}

/// The result of its last check, as a label.
fn checked(server: &Server) -> Option<&'static str> {
    if server.spec.check.is_none() || server.status.admin.is_maint() {
        return None;
    }
    let status: CheckStatus = server.live.check.status();
    Some(status.code())
}

/// How many servers of a backend are in each of `states`.
fn of_servers(
    row: &Row<'_>,
    states: &[&'static str],
    state: fn(&Server) -> Option<&'static str>,
    take: &mut dyn FnMut(Sample<'_>),
) {
    let none = [];
    let servers = match row.object {
        Object::Backend(backend) => backend_servers(backend),
        _ => &none[..],
    };
    if servers.is_empty() {
        return;
    }
    let mut counts = vec![0u32; states.len()];
    for server in servers {
        let at = state(server).and_then(|now| states.iter().position(|one| *one == now));
        if let Some(at) = at {
            counts[at] += 1;
        }
    }
    for (name, count) in states.iter().zip(counts) {
        take(labelled("state", name, count.into()));
    }
}

fn backend_servers(backend: &Backend) -> &[std::sync::Arc<Server>] {
    &backend.servers
}
