//! `[[backend]]`, and the backend half of `[[listen]]`.

use super::Half;
use super::frontend::{idle_pair, longer};
use super::layers::{CheckLayer, KeepaliveLayer, ServerLayer};
use super::once::{Inherited, MAXCONN_MAX, RETRIES_MAX};
use super::scope::{Cx, Given, Scope, flag, or_default};
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
    pub(super) server: Option<Given<Duration>>,
}

/// Reads one.
pub(super) fn backend(
    cx: &mut Cx<'_>,
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
    let server = cx
        .idle(scope, "server", &timeout.server)
        .or_else(|| inherited.server.clone());
    let fin = cx.idle(scope, "server-fin", &timeout.server_fin);
    let fin = fin.or_else(|| inherited.server_fin.clone());
    let (timeout_server, timeout_server_fin) =
        idle_pair(cx, "server", server.as_ref(), fin.as_ref());
    let (timeout_connect, connect_attempt) = connect(cx, scope, timeout, inherited);
    let retries = cx.number(scope, "retries", &table.retries, 0..=RETRIES_MAX);
    let fullconn = cx.number(scope, "fullconn", &table.fullconn, 1..=MAXCONN_MAX);
    let keepalive = KeepaliveLayer::read(cx, scope, &table.keepalive).over(inherited.keepalive);
    let base = server_base(cx, half, timeout, inherited);
    let servers = server::servers(cx, half, &base, groups);
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
        fullconn: fullconn.map_or(0, |given| given.value),
        timeout_server,
        timeout_server_fin,
        timeout_connect,
        connect_attempt,
        retries: retries
            .map(|given| given.value)
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
    cx: &mut Cx<'_>,
    scope: Scope<'_>,
    timeout: &BackendTimeouts,
    inherited: &Inherited,
) -> (Duration, Duration) {
    let whole = cx.duration(scope, "timeout connect", &timeout.connect);
    let whole = whole.or_else(|| inherited.connect.clone());
    let attempt = cx.duration(scope, "timeout connect-attempt", &timeout.connect_attempt);
    let attempt = attempt.or_else(|| inherited.connect_attempt.clone());
    let (connect, connect_at) = or_default(whole.as_ref(), CONNECT);
    let (one, one_at) = or_default(attempt.as_ref(), CONNECT_ATTEMPT.min(connect));
    if let Some(place) = one_at
        && one > connect
    {
        cx.report.push(
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
    cx: &mut Cx<'_>,
    half: &Half<'_, file::Backend>,
    timeout: &BackendTimeouts,
    inherited: &Inherited,
) -> ServerLayer {
    let (scope, table) = (half.scope, &half.table);
    let timeout = CheckLayer::timeout(cx.duration(scope, "timeout check", &timeout.check));
    let check = CheckLayer::read(cx, scope, &table.check)
        .over(&timeout.over(&inherited.default_server.check));
    let mut base =
        ServerLayer::read(cx, scope, table.default_server.as_ref()).over(&inherited.default_server);
    base.check = base.check.over(&check);
    base
}

/// Warns about a backend without servers.
pub(super) fn empty(cx: &mut Cx<'_>, half: &Half<'_, file::Backend>, draft: &Draft) {
    let lost = |key| half.scope.lost.had(&half.span, key);
    if draft.backend.servers.is_empty() && !lost("servers") && !lost("nodes") && !lost("port") {
        cx.report.push(
            Diagnostic::warning("no-server", format!("{} has no server", half.what()))
                .at(half.place())
                .label("every connection to it fails")
                .hint("add `servers = [{ name = \"s1\", address = \"10.0.0.1:80\" }]`"),
        );
    }
}
