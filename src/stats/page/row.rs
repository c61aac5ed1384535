//! A row of the page: 31 columns, their content for each kind of row, and the colour.

use super::RowText;
use super::cells::{Cell, ago, limit, number, shown};
use super::text::age;
use crate::state::{Backend, Endpoint, OperState, Server};
use crate::stats::row::{Object, Row};
use std::fmt::Write;

/// The row: with addresses and ids in tooltips if `legends`, and with the check box of a server if `checkboxes`.
pub(super) fn of(row: &Row<'_>, legends: bool, checkboxes: bool) -> RowText {
    let (class, label, cells) = match row.object {
        Object::Server(_, server) => (
            class(server),
            row.service(),
            server_row(row, server, legends),
        ),
        Object::Frontend(_) | Object::StatsFrontend(_) => ("frontend", "Frontend", frontend(row)),
        Object::Backend(_) | Object::StatsBackend(_) => {
            ("backend", "Backend", backend(row, legends))
        }
    };
    let id = format!("{}/{label}", row.proxy());
    let mut cells = cells;
    if let Some(name) = cells.first_mut() {
        name.link = format!("#{id}");
        if checkboxes && row.server().is_some() {
            row.service().clone_into(&mut name.checkbox);
        }
    }
    RowText { class, id, cells }
}

/// HAProxy's class of a server's row, decided in the order of its `stats_dump_fields_html`.
fn class(server: &Server) -> &'static str {
    let (status, full) = (&server.status, server.rules().full());
    if status.admin.is_maint() {
        return "maintain";
    }
    let [active, backup] = match status.oper {
        OperState::Stopped if status.health == 0 => ["active_down", "backup_down"],
        OperState::Stopped => ["active_going_up", "backup_going_up"],
        _ if status.admin.is_drain() => ["active_draining", "backup_draining"],
        OperState::Stopping if status.health < full => ["active_going_down", "backup_going_down"],
        OperState::Stopping => ["active_nolb", "backup_nolb"],
        _ if server.spec.check.is_none() => ["active_no_check", "backup_no_check"],
        _ if status.health < full => ["active_going_down", "backup_going_down"],
        _ if server.weight == 0 => ["active_draining", "backup_draining"],
        _ => ["active_up", "backup_up"],
    };
    if server.spec.backup { backup } else { active }
}

fn frontend(row: &Row<'_>) -> Vec<Cell> {
    let rates = |what: &str, connections: &str, sessions: &str| {
        vec![
            format!("{what} connection rate: {}/s", shown(row, connections, "0")),
            format!("{what} session rate: {}/s", shown(row, sessions, "0")),
        ]
    };
    let mut total = vec![
        format!("Cum. connections: {}", shown(row, "conn_tot", "0")),
        format!("Cum. sessions: {}", shown(row, "stot", "0")),
    ];
    if row.is_http() {
        total.push(format!(
            "Cum. HTTP requests: {}",
            shown(row, "req_tot", "0")
        ));
        for (class, column) in [
            ("2xx", "hrsp_2xx"),
            ("4xx", "hrsp_4xx"),
            ("5xx", "hrsp_5xx"),
        ] {
            total.push(format!(
                "- HTTP {class} responses: {}",
                shown(row, column, "0")
            ));
        }
    }
    vec![
        Cell::centre("Frontend"),
        Cell::empty(3),
        number(row, "rate").tip(rates("Current", "conn_rate", "rate")),
        number(row, "rate_max").tip(rates("Max", "conn_rate_max", "rate_max")),
        limit(row, "rate_lim"),
        number(row, "scur"),
        number(row, "smax"),
        limit(row, "slim"),
        number(row, "stot").tip(total),
        Cell::empty(1),
        Cell::empty(1),
        number(row, "bin"),
        number(row, "bout"),
        number(row, "dreq"),
        number(row, "dresp"),
        number(row, "ereq"),
        Cell::empty(1),
        Cell::empty(1),
        Cell::empty(1),
        Cell::empty(1),
        Cell::centre(row.status()).status(),
        Cell::empty(8),
    ]
}

/// The cells from queue to warnings of a server or a backend.
fn traffic(row: &Row<'_>) -> Vec<Cell> {
    let resets = format!(
        "Connection resets during transfers: {} client, {} server",
        shown(row, "cli_abrt", "0"),
        shown(row, "srv_abrt", "0"),
    );
    let is_server = row.server().is_some();
    let optional = |column: &str| {
        if is_server {
            Cell::empty(1)
        } else {
            number(row, column)
        }
    };
    let mut sessions = number(row, "scur");
    if let Some(server) = row.server() {
        sessions = sessions.tip(current(row, server));
    }
    vec![
        number(row, "qcur"),
        number(row, "qmax"),
        if is_server {
            limit(row, "qlimit")
        } else {
            Cell::empty(1)
        },
        number(row, "rate"),
        number(row, "rate_max"),
        Cell::empty(1),
        sessions,
        number(row, "smax"),
        limit(row, "slim"),
        number(row, "stot").tip(total(row)),
        number(row, "lbtot"),
        ago(row, "lastsess"),
        number(row, "bin"),
        number(row, "bout"),
        optional("dreq"),
        number(row, "dresp"),
        Cell::empty(1),
        number(row, "econ"),
        number(row, "eresp").tip(vec![resets]),
        retries(row),
        number(row, "wredis"),
    ]
}

/// Retries; of a backend with a `retry-budget` those too that it has not allowed.
fn retries(row: &Row<'_>) -> Cell {
    let cell = number(row, "wretr");
    match row.object {
        Object::Backend(backend) if backend.spec.retry_budget.is_some() => {
            let denied = backend.live.retries.denied();
            cell.tip(vec![format!("Not made because of retry-budget: {denied}")])
        }
        _ => cell,
    }
}

fn current(row: &Row<'_>, server: &Server) -> Vec<String> {
    let mut tips = vec![
        format!("Current active connections: {}", shown(row, "scur", "0")),
        format!("Active connections limit: {}", shown(row, "slim", "-")),
    ];
    let usual = server.live.usual_connect();
    if !usual.is_zero() {
        let millis = usual.as_secs_f64() * 1000.0;
        tips.push(format!("Usual connect time: {millis:.1} ms"));
    }
    tips
}

fn total(row: &Row<'_>) -> Vec<String> {
    let times = |what: &str, max: &str, average: &str| {
        format!(
            "- {what} time: {} / {} ms",
            shown(row, max, "0"),
            shown(row, average, "0")
        )
    };
    vec![
        format!("Cum. sessions: {}", shown(row, "stot", "0")),
        "Max / Avg over the last successful connections".to_owned(),
        times("Queue", "qtime_max", "qtime"),
        times("Connect", "ctime_max", "ctime"),
        times("Total", "ttime_max", "ttime"),
    ]
}

fn server_row(row: &Row<'_>, server: &Server, legends: bool) -> Vec<Cell> {
    let mut name = Cell::centre(row.service());
    if legends {
        let kind = match &server.endpoint {
            Some(Endpoint::Ip(ip, _)) if ip.is_ipv4() => "IPv4: ",
            Some(Endpoint::Ip(..)) => "IPv6: ",
            _ => "",
        };
        let address = row.address().unwrap_or_else(|| "address not known".into());
        name = name.tip(vec![format!("{kind}{address}, id: {}", server.spec.id)]);
    }
    let mark = |set: bool| Cell::centre(if set { "Y" } else { "-" });
    let mut cells = vec![name];
    cells.extend(traffic(row));
    cells.extend([
        status(row, server).status(),
        last_check(row),
        Cell::centre(format!("{}/{}", row.weight(), row.user_weight())),
        mark(!server.spec.backup),
        mark(server.spec.backup),
    ]);
    if server.spec.check.is_some() {
        cells.push(failed_checks(row, server));
        cells.push(number(row, "chkdown"));
        cells.push(ago(row, "downtime"));
    } else {
        cells.push(Cell::empty(3));
    }
    let throttle = row.throttle().map(|percent| format!("{percent} %"));
    cells.push(Cell::centre(throttle.unwrap_or_else(|| "-".to_owned())));
    cells
}

/// Failed checks; then, where sessions count for the health, how often they have.
fn failed_checks(row: &Row<'_>, server: &Server) -> Cell {
    if server.spec.observe {
        let both = ["chkfail", "hanafail"].map(|name| shown(row, name, "0"));
        let tip = "Failed Health Checks/Health Analyses".to_owned();
        return Cell::right(both.join("/")).tip(vec![tip]);
    }
    number(row, "chkfail").tip(vec!["Failed Health Checks".to_owned()])
}

/// The time since the last change, the state, and an arrow while it changes; then a mark if the server takes
/// traffic, but is suspected and so asked last, or how long it is held down.
fn status(row: &Row<'_>, server: &Server) -> Cell {
    let cell = state(row, server);
    if let Some(left) = row.held_for() {
        // A time that is not over is none of 0 seconds.
        let left = age(left.as_secs() + 1);
        return cell.loud(format!(" held {left}"));
    }
    if server.is_usable() && server.live.is_suspect() {
        return cell.loud(" asked last");
    }
    cell
}

fn state(row: &Row<'_>, server: &Server) -> Cell {
    let text = row.status();
    if text == "no check" {
        return Cell::centre(text).italic();
    }
    let status = &server.status;
    let changing = server.spec.check.is_some() && !status.admin.is_maint();
    let arrow = match status.oper {
        OperState::Stopping => " ↓",
        OperState::Stopped if changing && status.health > 0 => " ↑",
        OperState::Running | OperState::Starting
            if changing && status.health < server.rules().full() =>
        {
            " ↓"
        }
        _ => "",
    };
    Cell::centre(format!("{} {text}{arrow}", age(row.last_change())))
}

/// `L4OK in 0ms` or `L7OK/200 in 1ms`, with a description.
fn last_check(row: &Row<'_>) -> Cell {
    let Some(report) = row.check() else {
        return Cell::empty(1);
    };
    let mut text = shown(row, "check_status", "");
    // Writing to a string cannot fail.
    if let Some(code) = report.code() {
        let _ = write!(text, "/{code}");
    }
    if let Some(duration) = report.duration {
        let _ = write!(text, " in {}ms", duration.as_millis());
    }
    let description = report.status.description();
    let tip = if report.info.is_empty() {
        description.to_owned()
    } else {
        format!("{description}: {}", report.info)
    };
    Cell::centre(text).tip(vec![tip])
}

fn backend(row: &Row<'_>, legends: bool) -> Vec<Cell> {
    let mut name = Cell::centre("Backend");
    if let (true, Some(algorithm)) = (legends, row.algorithm()) {
        name = name.tip(vec![format!("balancing: {algorithm}")]);
    }
    let since = age(row.last_change());
    let state = match row.object {
        Object::Backend(Backend { status, .. }) if !status.up => {
            Cell::centre(format!("{since} ")).loud(row.status())
        }
        _ => Cell::centre(format!("{since} {}", row.status())),
    };
    let (active, backup) = row.usable();
    let mut cells = vec![name];
    cells.extend(traffic(row));
    cells.extend([
        state.status(),
        Cell::empty(1),
        Cell::centre(format!("{}/{}", row.weight(), shown(row, "uweight", "0"))),
        Cell::centre(active.to_string()),
        Cell::centre(backup.to_string()),
        Cell::empty(1),
        number(row, "chkdown"),
        ago(row, "downtime"),
        Cell::empty(1),
    ]);
    cells
}
