//! HAProxy's words for the results of checks.

use super::{Facts, is_http};
use crate::config::script::{Action, Expect, Part, Pattern, Protocol, Script, Step, StepFormat};
use std::fmt::Write;

/// What is said of a check that has passed and has nothing else to say.
pub(super) const PASSED: &str = "(tcp-check)";
/// Longest text of a result, in bytes, as in HAProxy.
const INFO_MAX: usize = 127;

/// A text within [`INFO_MAX`], without what would break a line of a log or of the statistics.
pub(super) fn shortened(mut text: String) -> String {
    if text.len() > INFO_MAX {
        let end = (0..=INFO_MAX).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
    }
    if text.contains(char::is_control) {
        text = text.replace(char::is_control, "?");
    }
    text
}

/// Bytes of a service as a text. As in HAProxy it ends with the first zero byte.
pub(super) fn lossy(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// `50494E47`
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(out, "{byte:02X}");
    }
    out
}

/// Where a TCP check has failed for a reason that is none of the step's own.
pub(super) fn place(step: &Step) -> String {
    if step.number == 0 {
        return " at initial connection step of tcp-check".to_owned();
    }
    let mut text = format!(" at step {} of tcp-check", step.number);
    match &step.action {
        Action::Comment => {}
        Action::Connect(connect) => {
            let _ = match connect.port {
                Some(port) => write!(text, " (connect port {port})"),
                None => write!(text, " (connect)"),
            };
        }
        Action::Send(_) | Action::Request(_) => text.push_str(" (send)"),
        Action::Expect(expect) => {
            let _ = match &expect.pattern {
                Pattern::String(bytes) => write!(text, " (expect string '{}')", lossy(bytes)),
                Pattern::Binary(bytes) => write!(text, " (expect binary '{}')", hex(bytes)),
                Pattern::Regex(_) => write!(text, " (expect regex)"),
                Pattern::BinaryRegex(_) => write!(text, " (expect binary regex)"),
                Pattern::Status(_) => write!(text, " (expect HTTP status codes)"),
                Pattern::StatusRegex(_) => write!(text, " (expect HTTP status regex)"),
                Pattern::Header(_) => write!(text, " (expect HTTP header pattern)"),
                Pattern::MysqlGreeting | Pattern::MysqlOk | Pattern::LdapBind => {
                    write!(text, " (expect custom function)")
                }
            };
        }
    }
    if let Some(comment) = &step.comment {
        let _ = write!(text, " comment: '{comment}'");
    }
    text
}

/// What is said of an answer that is not what a step waits for, or has what must not be there (`found`).
pub(super) fn mismatch(
    script: &Script,
    step: &Step,
    expect: &Expect,
    (found, is_empty): (bool, bool),
) -> String {
    let number = step.number;
    if is_empty {
        return format!("TCPCHK got an empty response at step {number}");
    }
    if script.protocol == Protocol::Preset {
        return String::new();
    }
    let head = if found {
        "TCPCHK matched unwanted content"
    } else {
        "TCPCHK did not match content"
    };
    let what = match &expect.pattern {
        Pattern::Status(_) => "(status codes)".to_owned(),
        Pattern::String(bytes) => format!(" '{}'", lossy(bytes)),
        Pattern::Binary(bytes) if is_http(script, &expect.pattern) => {
            format!(" '{}'", lossy(bytes))
        }
        Pattern::Binary(_) => " (binary)".to_owned(),
        Pattern::Regex(_) | Pattern::StatusRegex(_) => " (regex)".to_owned(),
        Pattern::BinaryRegex(_) => " (binary regex)".to_owned(),
        Pattern::Header(_) => " (header pattern)".to_owned(),
        Pattern::MysqlGreeting | Pattern::MysqlOk | Pattern::LdapBind => {
            " (custom function)".to_owned()
        }
    };
    format!("{head}{what} at step {number}")
}

/// What a format makes of the names of a server and its answer.
pub(super) fn format(format: &StepFormat, facts: &Facts, answer: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in format.parts() {
        match part {
            Part::Bytes(bytes) => out.extend_from_slice(bytes),
            Part::Backend => out.extend_from_slice(facts.backend.as_bytes()),
            Part::Server => out.extend_from_slice(facts.server.as_bytes()),
            Part::Hostname => {
                let system = rustix::system::uname();
                out.extend_from_slice(system.nodename().to_bytes());
            }
            Part::Answer {
                first,
                length,
                trimmed,
                line,
            } => {
                // As in HAProxy there is none of it when it is not all there.
                let Some(rest) = answer.get(*first..) else {
                    continue;
                };
                let mut bytes = match length {
                    0 => rest,
                    length => rest.get(..*length).unwrap_or_default(),
                };
                if *trimmed {
                    let begin = bytes.iter().position(|byte| *byte != b' ');
                    bytes = begin.map_or(&[][..], |begin| &bytes[begin..]);
                }
                if *line {
                    let end = bytes.iter().position(|byte| b"\r\n".contains(byte));
                    bytes = end.map_or(bytes, |end| &bytes[..end]);
                }
                out.extend_from_slice(bytes);
            }
        }
    }
    out
}
