//! `[[backend]]`, and the backend half of `[[listen]]`.

use super::Half;
use super::frontend::{idle_pair, longer};
use super::layers::{CheckLayer, KeepaliveLayer, ServerLayer};
use super::once::{Inherited, MAXCONN_MAX, RETRIES_MAX};
use super::scope::{Scope, Validator, Written, flag, or_default};
use super::server::{self, Groups};
use crate::config::diagnostic::Diagnostic;
use crate::config::file::{self, BackendTimeouts};
use crate::config::model::{Backend, Balance};
use std::time::Duration;

/// `timeout connect` when none is written.
const CONNECT: Duration = Duration::from_secs(5);
/// `timeout connect-attempt` when none is written; never longer than `timeout connect`.
const CONNECT_ATTEMPT: Duration = Duration::from_millis(300);
/// `retries` when none is written.
const RETRIES: u32 = 3;

/// A backend, and what the links between proxies are judged by. Its `fullconn` is 0 unless it was
/// written.
pub(super) struct Draft {
    pub(super) backend: Backend,
    pub(super) server: Option<Written<Duration>>,
}

/// Reads one.
pub(super) fn backend(
    validator: &mut Validator<'_>,
    half: &Half<'_, file::Backend>,
    inherited: &Inherited,
    groups: &Groups<'_>,
) -> Draft {
    let (scope, table) = (half.scope, &half.table);
    let none = BackendTimeouts::default();
    let timeout = table
        .timeout
        .as_ref()
        .map_or(&none, |timeout| &timeout.value);
    let server = validator
        .idle(scope, "server", &timeout.server)
        .or_else(|| inherited.server.clone());
    let fin = validator.idle(scope, "server-fin", &timeout.server_fin);
    let fin = fin.or_else(|| inherited.server_fin.clone());
    let (timeout_server, timeout_server_fin) =
        idle_pair(validator, "server", server.as_ref(), fin.as_ref());
    let (timeout_connect, connect_attempt) = connect(validator, scope, timeout, inherited);
    let retries = validator.number(scope, "retries", &table.retries, 0..=RETRIES_MAX);
    let fullconn = validator.number(scope, "fullconn", &table.fullconn, 1..=MAXCONN_MAX);
    let keepalive =
        KeepaliveLayer::read(validator, scope, &table.keepalive).over(inherited.keepalive);
    let base = server_base(validator, half, timeout, inherited);
    let servers = server::servers(validator, half, &base, groups);
    let backend = Backend {
        name: half.name(),
        id: half.id,
        order: half.order,
        balance: table
            .balance
            .as_ref()
            .map(|word| word.value.0)
            .or(inherited.balance)
            .unwrap_or(Balance::RoundRobin),
        allbackups: flag(&table.allbackups, false),
        fullconn: fullconn.map_or(0, |written| written.value),
        timeout_server,
        timeout_server_fin,
        timeout_connect,
        connect_attempt,
        retries: retries
            .map(|written| written.value)
            .or(inherited.retries)
            .unwrap_or(RETRIES),
        keepalive: keepalive.finish(),
        log_health_checks: flag(&table.log_health_checks, inherited.log_health_checks),
        servers,
    };
    Draft { backend, server }
}

/// `timeout connect` and `connect-attempt`.
fn connect(
    validator: &mut Validator<'_>,
    scope: Scope<'_>,
    timeout: &BackendTimeouts,
    inherited: &Inherited,
) -> (Duration, Duration) {
    let whole = validator.duration(scope, "timeout connect", &timeout.connect);
    let whole = whole.or_else(|| inherited.connect.clone());
    let attempt = validator.duration(scope, "timeout connect-attempt", &timeout.connect_attempt);
    let attempt = attempt.or_else(|| inherited.connect_attempt.clone());
    let (connect, connect_at) = or_default(whole.as_ref(), CONNECT);
    let (one, one_at) = or_default(attempt.as_ref(), CONNECT_ATTEMPT.min(connect));
    if let Some(place) = one_at
        && one > connect
    {
        validator.report.push(
            longer(
                ("timeout connect-attempt", one, place),
                ("timeout connect", connect, connect_at),
            )
            .hint("no second server would ever be asked"),
        );
    }
    (connect, one)
}

/// What the servers of this backend inherit: the nearest of `[defaults]`, the backend, and its
/// `default-server`.
fn server_base(
    validator: &mut Validator<'_>,
    half: &Half<'_, file::Backend>,
    timeout: &BackendTimeouts,
    inherited: &Inherited,
) -> ServerLayer {
    let (scope, table) = (half.scope, &half.table);
    let timeout = CheckLayer::timeout(validator.duration(scope, "timeout check", &timeout.check));
    let check = CheckLayer::read(validator, scope, &table.check)
        .over(&timeout.over(&inherited.default_server.check));
    let mut base = ServerLayer::read(validator, scope, table.default_server.as_ref())
        .over(&inherited.default_server);
    base.check = base.check.over(&check);
    base
}

/// Warns about a backend without servers.
pub(super) fn empty(
    validator: &mut Validator<'_>,
    half: &Half<'_, file::Backend>,
    draft: &Draft,
    groups: &Groups<'_>,
) {
    let removed = |key| half.scope.removed.contains(&half.span, key);
    // A group that does not exist was reported.
    let unknown = half
        .table
        .nodes
        .as_ref()
        .is_some_and(|nodes| !groups.contains_key(nodes.value.as_str()));
    let removed = unknown || removed("servers") || removed("nodes") || removed("port");
    if draft.backend.servers.is_empty() && !removed {
        validator.report.push(
            Diagnostic::warning("no-server", format!("{} has no server", half.what()))
                .at(half.place())
                .label("every connection to it fails")
                .hint("add `servers = [{ name = \"s1\", address = \"10.0.0.1:80\" }]`"),
        );
    }
}
