//! The tables that may exist once: `[global]`, `[log]`, `[defaults]`. `[stats]` has its own file.

use super::check::{CheckSettings, NamedChecks};
use super::layers::{KeepaliveSettings, ServerSettings};
use crate::config::address;
use crate::config::diagnostic::Diagnostic;
use crate::config::keys::{
    BackendLayer, ClientTimeoutLayer, File, FrontendLayer, GlobalLayer, LogLayer, LogTargetLayer,
    LogTargetTable, ServerTimeoutLayer, TimeoutTable,
};
use crate::config::model::{Global, Log, LogFormat, LogSink, LogTarget};
use crate::config::read::ParsedFile;
use crate::config::scope::{Scope, Validator, Written};
use crate::config::shapes::Located;
use std::rc::Rc;

/// The only `[key]` of all files. A second one is reported.
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

/// `[global]`, and the written `maxconn`.
pub(super) fn global(
    validator: &mut Validator<'_>,
    files: &[ParsedFile],
) -> (Global, Option<Written<u32>>) {
    let found = once(validator, files, "global", |file| &file.global);
    let layer = found.map_or_else(GlobalLayer::default, |(scope, table)| {
        GlobalLayer::read(validator, scope, &table.value)
    });
    let threads = layer.threads.as_ref();
    let global = Global {
        threads: threads.map_or(validator.limits.cores.max(1), |it| it.value as usize),
        maxconn: layer.maxconn.as_ref().map(|written| written.value),
        ..Global::from_layer(&layer)
    };
    (global, layer.maxconn)
}

/// `[log]`.
pub(super) fn log(validator: &mut Validator<'_>, files: &[ParsedFile]) -> Log {
    let Some((scope, table)) = once(validator, files, "log", |file| &file.log) else {
        return Log::default();
    };
    let targets = table.value.target.iter();
    let targets = targets.filter_map(|target| log_target(validator, scope, target));
    let targets = targets.collect();
    let log = Log {
        targets,
        ..Log::from_layer(&LogLayer::read(validator, scope, &table.value))
    };
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
    target: &Located<LogTargetTable>,
) -> Option<LogTarget> {
    let table = &target.value;
    let Some(to) = &table.to else {
        validator.missing(scope, &target.span, "the log target", "to = \"stdout\"");
        return None;
    };
    let sink = match address::log_sink(&to.value) {
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
        ..LogTarget::from_layer(&LogTargetLayer::read(validator, scope, table))
    })
}

/// `[defaults]`: the settings that proxies inherit, without rlb's own defaults.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    pub(super) frontend: FrontendLayer,
    pub(super) backend: BackendLayer,
    pub(super) client: ClientTimeoutLayer,
    pub(super) server: ServerTimeoutLayer,
    pub(super) keepalive: KeepaliveSettings,
    pub(super) default_server: ServerSettings,
}

/// Reads `[defaults]`.
pub(super) fn defaults(
    validator: &mut Validator<'_>,
    files: &[ParsedFile],
    checks: &Rc<NamedChecks>,
) -> Inherited {
    let found = once(validator, files, "defaults", |file| &file.defaults);
    let Some((scope, table)) = found else {
        return Inherited {
            default_server: ServerSettings {
                check: CheckSettings::bottom(checks),
                ..ServerSettings::default()
            },
            ..Inherited::default()
        };
    };
    let table = &table.value;
    let none = TimeoutTable::default();
    let timeout = table.timeout.as_ref();
    let timeout = timeout.map_or(&none, |timeout| &timeout.value);
    let server = ServerTimeoutLayer::read(validator, scope, &timeout.server);
    let check_timeout = CheckSettings::timeout(server.check.clone());
    let check_timeout = check_timeout.over(&CheckSettings::bottom(checks));
    let check = CheckSettings::read(validator, scope, &table.backend.check).over(&check_timeout);
    let below = ServerSettings {
        check,
        ..ServerSettings::default()
    };
    let default_server = match &table.backend.default_server {
        Some(table) => ServerSettings::read(validator, scope, &table.value).over(&below),
        None => below,
    };
    Inherited {
        frontend: FrontendLayer::read(validator, scope, &table.frontend),
        backend: BackendLayer::read(validator, scope, &table.backend),
        client: ClientTimeoutLayer::read(validator, scope, &timeout.client),
        server,
        keepalive: KeepaliveSettings::read(validator, scope, &table.keepalive),
        default_server,
    }
}
