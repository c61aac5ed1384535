//! The tables that stand once: `[global]`, `[log]`, `[defaults]`. `[stats]` has a file of its own.

use super::layers::{CheckLayer, KeepaliveLayer, ServerLayer};
use super::scope::{Scope, Validator, Written, flag};
use crate::config::diagnostic::Diagnostic;
use crate::config::file::{self, File, Located};
use crate::config::model::{
    ApiLevel, Balance, Facility, Global, Log, LogFormat, LogSink, LogTarget, RuntimeApi, Severity,
};
use crate::config::read::ParsedFile;
use crate::config::units;
use std::time::Duration;

/// Most worker threads.
pub const THREADS_MAX: i64 = 1024;
/// Highest `maxconn`.
pub const MAXCONN_MAX: i64 = 100_000_000;
/// Highest `retries`.
pub const RETRIES_MAX: i64 = 100;
/// File mode of the runtime socket when none is written: its owner alone.
const API_MODE: u32 = 0o600;
/// `local0`.
const FACILITY: Facility = Facility(16);

/// The one `[key]` of all files. A second one is reported.
pub(super) fn once<'a, T>(
    validator: &mut Validator<'_>,
    files: &'a [ParsedFile],
    key: &str,
    table: impl Fn(&File) -> &Option<Located<T>>,
) -> Option<(Scope<'a>, &'a Located<T>)> {
    let mut first: Option<(Scope<'a>, &'a Located<T>)> = None;
    for parsed in files {
        let scope = Scope {
            source: &parsed.source,
            removed: &parsed.removed,
        };
        let Some(found) = table(&parsed.file) else {
            continue;
        };
        match first {
            None => first = Some((scope, found)),
            Some((before, kept)) => {
                let earlier = before.of(kept);
                let message = format!("[{key}] is already in {}", earlier.short());
                validator.report.push(
                    Diagnostic::error("duplicate-table", message)
                        .at(scope.of(found))
                        .label("it may stand once in all files")
                        .also(earlier, "first here"),
                );
            }
        }
    }
    first
}

/// `[global]`, and where `maxconn` was written.
pub(super) fn global(
    validator: &mut Validator<'_>,
    files: &[ParsedFile],
) -> (Global, Option<Written<u32>>) {
    let found = once(validator, files, "global", |file| &file.global);
    let mut global = Global {
        threads: validator.limits.cores.max(1),
        maxconn: None,
        hard_stop_after: None,
        upgrade_stop_after: None,
        node: None,
        description: None,
        watch: false,
        rollback_window: None,
    };
    let Some((scope, table)) = found else {
        return (global, None);
    };
    let table = &table.value;
    if let Some(threads) = validator.number(scope, "threads", &table.threads, 1..=THREADS_MAX) {
        global.threads = threads.value as usize;
    }
    let maxconn = validator.number(scope, "maxconn", &table.maxconn, 1..=MAXCONN_MAX);
    global.maxconn = maxconn.as_ref().map(|written| written.value);
    let hard_stop = validator.duration(scope, "hard-stop-after", &table.hard_stop_after);
    global.hard_stop_after = hard_stop.map(|written| written.value);
    let upgrade_stop = validator.duration(scope, "upgrade-stop-after", &table.upgrade_stop_after);
    global.upgrade_stop_after = upgrade_stop.map(|written| written.value);
    let window = validator.duration(scope, "rollback-window", &table.rollback_window);
    global.rollback_window = window.map(|written| written.value);
    global.watch = flag(&table.watch, false);
    global.node = validator.name(scope, &table.node);
    global.description = table
        .description
        .as_ref()
        .map(|text| text.value.as_str().into());
    (global, maxconn)
}

/// `[log]`.
pub(super) fn log(validator: &mut Validator<'_>, files: &[ParsedFile]) -> Log {
    let found = once(validator, files, "log", |file| &file.log);
    let mut log = Log {
        tag: "rlb".into(),
        targets: Vec::new(),
    };
    let Some((scope, table)) = found else {
        return log;
    };
    if let Some(tag) = validator.name(scope, &table.value.tag) {
        log.tag = tag;
    }
    log.targets = table
        .value
        .target
        .iter()
        .filter_map(|target| log_target(validator, scope, target))
        .collect();
    if table.value.target.is_empty() && !scope.removed.contains(&table.span, "target") {
        validator.report.push(
            Diagnostic::warning("no-log-target", "[log] has no target: no session is logged")
                .at(scope.of(table))
                .hint("add `[[log.target]]` with `to = \"stdout\"`"),
        );
    }
    log
}

fn log_target(
    validator: &mut Validator<'_>,
    scope: Scope<'_>,
    target: &Located<file::LogTarget>,
) -> Option<LogTarget> {
    let table = &target.value;
    let Some(to) = &table.to else {
        validator.missing(scope, &target.span, "the log target", "to = \"stdout\"");
        return None;
    };
    let sink = match units::log_sink(&to.value) {
        Ok(sink) => sink,
        Err(problem) => {
            validator.problem(scope.of(to), "address", "expected a log target", problem);
            return None;
        }
    };
    let syslog = matches!(sink, LogSink::Unix(_) | LogSink::Udp(_));
    let format = if syslog {
        LogFormat::Rfc3164
    } else {
        LogFormat::Raw
    };
    Some(LogTarget {
        sink,
        format: table.format.as_ref().map_or(format, |word| word.value.0),
        facility: table
            .facility
            .as_ref()
            .map_or(FACILITY, |word| word.value.0),
        level: table
            .level
            .as_ref()
            .map_or(Severity::Info, |word| word.value.0),
    })
}

/// `[runtime-api]`.
pub(super) fn runtime_api(
    validator: &mut Validator<'_>,
    files: &[ParsedFile],
) -> Option<RuntimeApi> {
    let (scope, table) = once(validator, files, "runtime-api", |file| &file.runtime_api)?;
    let mode = table.value.mode.as_ref().and_then(|written| {
        let mode = units::mode(&written.value);
        mode.map_err(|problem| {
            validator.problem(scope.of(written), "value", "expected a file mode", problem);
        })
        .ok()
    });
    let Some(socket) = &table.value.socket else {
        let example = "socket = \"/run/rlb/admin.sock\"";
        validator.missing(scope, &table.span, "[runtime-api]", example);
        return None;
    };
    match units::unix_path(&socket.value) {
        Ok(path) => Some(RuntimeApi {
            socket: path,
            mode: mode.unwrap_or(API_MODE),
            level: table
                .value
                .level
                .as_ref()
                .map_or(ApiLevel::Admin, |word| word.value.0),
        }),
        Err(problem) => {
            validator.problem(scope.of(socket), "address", "expected a path", problem);
            None
        }
    }
}

/// `[defaults]`: what proxies inherit, still without rlb's own defaults.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    pub(super) client: Option<Written<Duration>>,
    pub(super) client_fin: Option<Written<Duration>>,
    pub(super) server: Option<Written<Duration>>,
    pub(super) server_fin: Option<Written<Duration>>,
    pub(super) connect: Option<Written<Duration>>,
    pub(super) connect_attempt: Option<Written<Duration>>,
    pub(super) maxconn: Option<u32>,
    pub(super) retries: Option<u32>,
    pub(super) balance: Option<Balance>,
    pub(super) keepalive: KeepaliveLayer,
    pub(super) dontlognull: bool,
    pub(super) dontlog_normal: bool,
    pub(super) log_health_checks: bool,
    pub(super) default_server: ServerLayer,
}

/// Reads `[defaults]`.
pub(super) fn defaults(validator: &mut Validator<'_>, files: &[ParsedFile]) -> Inherited {
    let found = once(validator, files, "defaults", |file| &file.defaults);
    let Some((scope, table)) = found else {
        return Inherited::default();
    };
    let table = &table.value;
    let none = file::Timeouts::default();
    let timeout = table
        .timeout
        .as_ref()
        .map_or(&none, |timeout| &timeout.value);
    let check_timeout =
        CheckLayer::timeout(validator.duration(scope, "timeout check", &timeout.check));
    let check = CheckLayer::read(validator, scope, &table.check).over(&check_timeout);
    let mut default_server = ServerLayer::read(validator, scope, table.default_server.as_ref());
    default_server.check = default_server.check.over(&check);
    Inherited {
        client: validator.idle(scope, "client", &timeout.client),
        client_fin: validator.idle(scope, "client-fin", &timeout.client_fin),
        server: validator.idle(scope, "server", &timeout.server),
        server_fin: validator.idle(scope, "server-fin", &timeout.server_fin),
        connect: validator.duration(scope, "timeout connect", &timeout.connect),
        connect_attempt: validator.duration(
            scope,
            "timeout connect-attempt",
            &timeout.connect_attempt,
        ),
        maxconn: validator
            .number(scope, "maxconn", &table.maxconn, 1..=MAXCONN_MAX)
            .map(|n| n.value),
        retries: validator
            .number(scope, "retries", &table.retries, 0..=RETRIES_MAX)
            .map(|n| n.value),
        balance: table.balance.as_ref().map(|word| word.value.0),
        keepalive: KeepaliveLayer::read(validator, scope, &table.keepalive),
        dontlognull: flag(&table.dontlognull, false),
        dontlog_normal: flag(&table.dontlog_normal, false),
        log_health_checks: flag(&table.log_health_checks, false),
        default_server,
    }
}
