//! The header of a line: none, RFC 3164's as HAProxy writes it, or RFC 5424's. Pure; runs on the log thread.

use super::clock::month;
use crate::config::model::{Facility, LogFormat};
use crate::live::log_queue::SeverityCode;
use jiff::Zoned;
use std::fmt::Write;
use std::sync::Arc;

/// Longest host name that RFC 5424 allows.
const HOST_MAX: usize = 255;

/// The constant parts of a header.
#[derive(Debug, Clone)]
pub(super) struct Header {
    format: LogFormat,
    facility: Facility,
    tag: Arc<str>,
    host: Arc<str>,
    pid: u32,
    /// The last header, with its severity and its time in the resolution of the format. It is kept because
    /// lines come in bursts.
    last: String,
    of: Option<(SeverityCode, i64)>,
}

impl Header {
    /// A header; `tag` names the program, `host` the machine (`-` when it has no name).
    pub(super) fn new(format: LogFormat, facility: Facility, tag: &Arc<str>, host: &str) -> Self {
        Self {
            format,
            facility,
            tag: Arc::clone(tag),
            host: printable(host).into(),
            pid: std::process::id(),
            last: String::new(),
            of: None,
        }
    }

    /// Appends the header of a line sent at `now`.
    pub(super) fn write(&mut self, line: &mut String, severity: SeverityCode, now: &Zoned) {
        let time = match self.format {
            LogFormat::Raw => return,
            LogFormat::Rfc3164 => now.timestamp().as_second(),
            LogFormat::Rfc5424 => now.timestamp().as_millisecond(),
        };
        if self.of != Some((severity, time)) {
            self.of = Some((severity, time));
            let mut header = std::mem::take(&mut self.last);
            header.clear();
            self.format(&mut header, severity, now);
            self.last = header;
        }
        line.push_str(&self.last);
    }

    fn format(&self, line: &mut String, severity: SeverityCode, now: &Zoned) {
        let priority = u32::from(self.facility.0) * 8 + u32::from(severity);
        // Writing to a string cannot fail.
        let _ = match self.format {
            LogFormat::Raw => Ok(()),
            LogFormat::Rfc3164 => write!(
                line,
                "<{priority}>{} {:2} {:02}:{:02}:{:02} {}[{}]: ",
                month(now),
                now.day(),
                now.hour(),
                now.minute(),
                now.second(),
                self.tag,
                self.pid,
            ),
            LogFormat::Rfc5424 => {
                let seconds = now.offset().seconds();
                let sign = if seconds < 0 { '-' } else { '+' };
                let minutes = seconds.unsigned_abs() / 60;
                write!(
                    line,
                    "<{priority}>1 {:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}{sign}{:02}:{:02} \
                     {} {} {} - - ",
                    now.year(),
                    now.month(),
                    now.day(),
                    now.hour(),
                    now.minute(),
                    now.second(),
                    now.millisecond(),
                    minutes / 60,
                    minutes % 60,
                    self.host,
                    self.tag,
                    self.pid,
                )
            }
        };
    }
}

/// `host` as RFC 5424 requires: printable ASCII without spaces, `-` when nothing is left.
fn printable(host: &str) -> String {
    let name: String = host
        .chars()
        .filter(char::is_ascii_graphic)
        .take(HOST_MAX)
        .collect();
    if name.is_empty() { "-".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(format: LogFormat, severity: SeverityCode, now: &str) -> String {
        let mut header = Header::new(format, Facility(16), &"rlb".into(), "lb 01\n");
        header.pid = 7;
        let mut line = String::new();
        header.write(&mut line, severity, &now.parse().unwrap());
        line
    }

    #[test]
    fn rfc_3164_is_what_haproxy_sends() {
        let now = "2026-11-22T06:51:57.996+00:00[UTC]";
        assert_eq!(
            header(LogFormat::Rfc3164, 6, now),
            "<134>Nov 22 06:51:57 rlb[7]: "
        );
        let now = "2026-03-02T16:05:07+01:00[Europe/Berlin]";
        assert_eq!(
            header(LogFormat::Rfc3164, 1, now),
            "<129>Mar  2 16:05:07 rlb[7]: "
        );
    }

    #[test]
    fn rfc_5424_has_the_offset_and_the_host() {
        assert_eq!(
            header(LogFormat::Rfc5424, 6, "2026-11-22T06:51:57.996+00:00[UTC]"),
            "<134>1 2026-11-22T06:51:57.996+00:00 lb01 rlb 7 - - "
        );
        assert_eq!(
            header(LogFormat::Rfc5424, 0, "2026-11-22T06:51:57-03:30[-03:30]"),
            "<128>1 2026-11-22T06:51:57.000-03:30 lb01 rlb 7 - - "
        );
    }

    #[test]
    fn a_header_is_not_kept_for_another_line() {
        let mut header = Header::new(LogFormat::Rfc3164, Facility(16), &"rlb".into(), "lb");
        header.pid = 7;
        let mut written = |severity, now: &str| {
            let mut line = String::new();
            header.write(&mut line, severity, &now.parse().unwrap());
            line
        };
        let first = "2026-11-22T06:51:57.996+00:00[UTC]";
        let next = "2026-11-22T06:51:58+00:00[UTC]";
        assert_eq!(written(6, first), "<134>Nov 22 06:51:57 rlb[7]: ");
        assert_eq!(written(1, first), "<129>Nov 22 06:51:57 rlb[7]: ");
        assert_eq!(written(1, next), "<129>Nov 22 06:51:58 rlb[7]: ");
    }

    #[test]
    fn raw_has_none() {
        assert_eq!(
            header(LogFormat::Raw, 6, "2026-11-22T06:51:57+00:00[UTC]"),
            ""
        );
    }
}
