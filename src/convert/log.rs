//! `log`, of `global` and of proxies.

use super::address::{self, Address, Use};
use super::context::Context;
use super::lexer::Word;
use super::proxy::Target;
use super::report::Outcome;
use super::sections::Statement;
use super::toml_string::quote;
use crate::config::address as addresses;
use std::collections::BTreeMap;

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "auth2",
    "ftp", "ntp", "audit", "alert", "cron2", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];
/// HAProxy's formats.
const FORMATS: [&str; 9] = [
    "rfc3164", "rfc5424", "priority", "short", "timed", "iso", "raw", "local", "unspec",
];
/// HAProxy's lengths of lines.
const LENGTHS: std::ops::RangeInclusive<u32> = 80..=65535;
const LEVELS: [&str; 8] = [
    "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug",
];

/// `log ADDRESS [len N] [format F] [sample S] [profile P] FACILITY [LEVEL [LEAST]]`; `None`: no line
/// goes there, which is reported.
pub(super) fn read(context: &mut Context<'_, '_>, statement: &Statement) -> Option<Target> {
    let Some(word) = statement.words.get(1) else {
        context
            .report
            .error(statement.at, "log", "an address is missing");
        return None;
    };
    let (mut keys, index) = formats(context, statement)?;
    let facility = statement.word(index);
    if FACILITIES.contains(&facility) {
        keys.insert("facility", quote(facility));
    } else {
        let text = match facility {
            "" => "the facility is missing: local0, for example".to_owned(),
            other => format!("HAProxy has no facility `{other}`"),
        };
        context.report.error(statement.at(index), "log", text);
        return None;
    }
    let level = statement.word(index + 1);
    if LEVELS.contains(&level) {
        keys.insert("level", quote(level));
    } else if !level.is_empty() {
        let text = format!("HAProxy has no level `{level}`");
        context.report.error(statement.at(index + 1), "log", text);
    }
    let least = statement.word(index + 2);
    if !least.is_empty() && !LEVELS.contains(&least) {
        let text = format!("HAProxy has no level `{least}`");
        context.report.error(statement.at(index + 2), "log", text);
    } else if let Some(more) = statement.words.get(index + 3) {
        let text = format!("`{}` is not expected here", more.text);
        context.report.error(statement.at(index + 3), "log", text);
    } else if !least.is_empty() {
        let text = "lines keep their own level";
        context
            .report
            .push(statement.at(index + 2), "log", Outcome::Changed, text);
    }
    let word = address::filled_in(word, context.environment);
    let to = sink(context, statement, &word)?;
    context.kept(statement.at, "log");
    // A stream has no facility.
    if ["stdout", "stderr"].contains(&to.as_str())
        && keys.get("format").is_none_or(|it| it == "\"raw\"")
    {
        keys.remove("facility");
    }
    Some(Target { to, keys })
}

/// What stands before the facility: the keys that it becomes, and the index of the facility.
fn formats(
    context: &mut Context<'_, '_>,
    statement: &Statement,
) -> Option<(BTreeMap<&'static str, String>, usize)> {
    let mut keys = BTreeMap::new();
    let mut index = 2;
    while ["len", "format", "sample", "profile"].contains(&statement.word(index)) {
        let at = statement.at(index);
        let (word, value) = (statement.word(index), statement.word(index + 1));
        match (word, value) {
            ("format", "raw" | "rfc3164" | "rfc5424") => {
                keys.insert("format", quote(value));
            }
            ("format", other) if !FORMATS.contains(&other) => {
                let text = format!("HAProxy has no log format `{other}`");
                context.report.error(at, "log format", text);
                return None;
            }
            ("format", _) => {
                let text = format!("rlb has no log format `{value}`: the usual one is used");
                context
                    .report
                    .push(at, "log format", Outcome::Changed, text);
            }
            ("len", _) if !value.parse().is_ok_and(|length| LENGTHS.contains(&length)) => {
                let text = "a length is 80 to 65535";
                context.report.error(at, "log len", text);
                return None;
            }
            ("len", _) => {
                let text = "a line is as long as it is";
                context.report.push(at, "log len", Outcome::NotNeeded, text);
            }
            _ => {
                let text = "every line is written";
                context
                    .report
                    .push(at, format!("log {word}"), Outcome::Changed, text);
            }
        }
        index += 2;
    }
    Some((keys, index))
}

/// The content of `to`.
fn sink(context: &mut Context<'_, '_>, statement: &Statement, word: &Word) -> Option<String> {
    let at = statement.at(1);
    let unsupported = |context: &mut Context<'_, '_>, text: String| {
        context.report.push(at, "log", Outcome::Unsupported, text);
    };
    match &*word.text {
        "stdout" | "fd@1" => return Some("stdout".to_owned()),
        "stderr" | "fd@2" => return Some("stderr".to_owned()),
        _ => {}
    }
    if context.is_unset(at, "log", word) {
        return Some(format!(
            "udp:{}",
            address::content(word, context.environment)?
        ));
    }
    let to = match address::parse_for(&word.text, Use::Log) {
        Address::Unix(path) => format!("unix:{path}"),
        Address::Abstract(name) => format!("unix:@{name}"),
        Address::Padded(name) => format!("abns@{name}"),
        Address::Descriptor(_) | Address::Unusable(_) => {
            unsupported(context, format!("no lines go to `{}`", word.text));
            return None;
        }
        Address::Host { host, port } => {
            let host = if address::is_name(&host) {
                let Some(ip) = (context.resolve)(&host) else {
                    let text = format!("the name `{host}` does not resolve");
                    context.report.error(at, "log", text);
                    return None;
                };
                let text = format!("`{host}` is looked up now: it is {ip}");
                context.report.push(at, "log", Outcome::Changed, text);
                match ip {
                    std::net::IpAddr::V4(ip) => ip.to_string(),
                    std::net::IpAddr::V6(ip) => format!("[{ip}]"),
                }
            } else if let Some(written) = &word.written {
                return Some(format!("udp:{written}"));
            } else {
                host
            };
            format!("udp:{host}:{}", port.as_deref().unwrap_or("514"))
        }
    };
    match addresses::log_sink(&to) {
        Ok(_) => Some(address::escaped(&to)),
        Err(problem) => {
            context.report.error(at, "log", problem.message);
            None
        }
    }
}
