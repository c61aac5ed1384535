//! The lines about servers that are held down (`hold-down`). Pure.

use super::{Fields, LogLine, ServerEvent};
use crate::config::model::Severity;
use crate::config::units::format_duration;
use crate::state::OperState;
use std::time::Instant;

/// The server is held down from `now` on, or is so no longer although the time is not over. One that comes up, or goes
/// into maintenance, has a line about that.
pub fn held_down(event: ServerEvent<'_>, now: Instant) -> Option<LogLine> {
    let server = event.server;
    let status = &server.status;
    let rules = server.rules();
    let subject = event.subject();
    let (flaps, left) = (status.flaps, status.held_for(rules, now));
    let (severity, text) = if let Some(left) = left {
        let (count, left) = (flaps.count, format_duration(left));
        let text = format!("{subject} is held down for {left}: it has gone down {count} times.");
        (Severity::Warning, text)
    } else if status.oper != OperState::Stopped || status.admin.is_maint() {
        return None;
    } else if flaps.count > 0 {
        let text = format!("{subject} is held down no longer: the other servers are not enough.");
        (Severity::Notice, text)
    } else {
        let by = event.interface.name();
        let text = format!("{subject} is held down no longer, changed from {by}.");
        (Severity::Notice, text)
    };
    Some(LogLine {
        severity,
        planned: flaps.count == 0,
        text,
        fields: Fields {
            status: Some(server.status_label().into_owned()),
            held_for: left,
            flaps: Some(flaps.count),
            ..Fields::of_server(event.backend, &server.spec.name)
        },
    })
}
