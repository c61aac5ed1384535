//! `show servers state`, HAProxy's format of a server-state file: shows what operators and checks have decided,
//! and passes it to the next process. For that one a line has more words at its end, each `NAME=VALUE`:
//!
//! | word | |
//! |---|---|
//! | `since_ns` | when the operational state began, by the monotonic clock, which all processes of a machine share |
//! | `ejected` | 1: down because connects of sessions failed |
//! | `flaps` | how often it has gone down, for `hold-down` |
//! | `held` | 1: it is held down |
//!
//! A version that does not know a word ignores it.
//!
//! Pure.

mod read;

pub use read::{Unreadable, read, read_file};

use crate::config::model::{ServerAddress, ServerPort};
use crate::live::CheckStatus;
use crate::state::{Backend, Endpoint, Flaps, Server, Snapshot};
use std::fmt::Write;
use std::time::{Duration, Instant};

/// The words that only the next process gets.
const SINCE: &str = "since_ns";
const EJECTED: &str = "ejected";
const FLAPS: &str = "flaps";
const HELD: &str = "held";

/// Version of the format of `show servers state`, and its header.
pub const HEADER: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state \
    srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status \
    srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id \
    srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr \
    srv_agent_addr srv_agent_port\n";

/// The whole text for the next process. `now` is `monotonic` by the monotonic clock.
pub fn for_next_process(snapshot: &Snapshot, (now, monotonic): (Instant, Duration)) -> String {
    let mut text = HEADER.to_owned();
    for backend in snapshot.backends.iter().flatten() {
        for server in &backend.servers {
            line(&mut text, (backend, server), now);
            let age = now.saturating_duration_since(server.status.since);
            let since = monotonic.saturating_sub(age).as_nanos();
            // Writing to a string cannot fail.
            let _ = write!(text, " {SINCE}={since}");
            if server.status.ejected {
                let _ = write!(text, " {EJECTED}=1");
            }
            let Flaps { count, held } = server.status.flaps;
            if count > 0 {
                let _ = write!(text, " {FLAPS}={count}");
            }
            if held {
                let _ = write!(text, " {HELD}=1");
            }
            text.push('\n');
        }
    }
    text
}

/// The text of a server-state file with the servers of these backends.
pub fn file<'a>(backends: impl Iterator<Item = &'a Backend>, now: Instant) -> String {
    let mut text = HEADER.to_owned();
    for backend in backends {
        text.push_str(&of_backend(backend, now));
    }
    text
}

/// The lines of a backend's servers.
pub fn of_backend(backend: &Backend, now: Instant) -> String {
    let mut text = String::new();
    for server in &backend.servers {
        line(&mut text, (backend, server), now);
        text.push('\n');
    }
    text
}

/// The line of a server, without its end.
fn line(text: &mut String, (backend, server): (&Backend, &Server), now: Instant) {
    let address = match &server.endpoint {
        Some(Endpoint::Ip(ip, _)) => ip.to_string(),
        Some(Endpoint::Unix(_)) | None => "-".to_owned(),
    };
    let (name, port) = match &server.spec.address {
        ServerAddress::Name(name, port) => (&**name, *port),
        ServerAddress::Ip(_, port) => ("-", *port),
        ServerAddress::Unix(_) => ("-", ServerPort::Fixed(0)),
    };
    let port = match port {
        ServerPort::Fixed(port) => port,
        ServerPort::FromClient(_) => 0,
    };
    let check = Check::of(server);
    let status = &server.status;
    let since = now.saturating_duration_since(status.since).as_secs();
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "{} {} {} {} {address} {} {} {} {} {since} {} {} {} {} 0 0 0 {name} {port} - 0 {} {} - 0",
        backend.spec.id,
        backend.spec.name,
        server.spec.id,
        server.spec.name,
        status.oper as u8,
        status.admin.0,
        server.weight,
        server.spec.weight,
        check.status,
        check.result,
        check.health,
        check.state,
        check.port,
        check.address,
    );
}

/// The columns of a line that concern the check.
struct Check {
    status: u8,
    /// HAProxy's `enum chk_result`: 0 unknown, 2 failed, 3 passed, 4 passed conditionally.
    result: u8,
    health: u32,
    /// HAProxy's `CHK_ST_*`: 1 in progress, 2 configured, 4 enabled, 8 paused.
    state: u8,
    port: u16,
    address: String,
}

impl Check {
    fn of(server: &Server) -> Self {
        let Some(spec) = &server.spec.check else {
            return Self {
                status: CheckStatus::Initializing as u8,
                result: 0,
                health: 1,
                state: 0,
                port: 0,
                address: "-".to_owned(),
            };
        };
        let report = server.live.check.load();
        let paused = if server.status.admin.is_maint() { 8 } else { 0 };
        Self {
            status: report.status as u8,
            result: match report.status {
                CheckStatus::Unknown | CheckStatus::Initializing => 0,
                CheckStatus::L7OkConditional => 4,
                status if status.has_passed() => 3,
                _ => 2,
            },
            health: server.status.health,
            state: 6 | paused | u8::from(report.in_progress),
            port: spec.port.unwrap_or(0),
            address: spec
                .address
                .map_or_else(|| "-".to_owned(), |address| address.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
