//! `[[frontend]]`, and the frontend of a `[[listen]]`.

use super::bind;
use super::collisions::Bound;
use super::layers::KeepaliveSettings;
use super::once::Inherited;
use super::{FrontendSide, Half, limits};
use crate::config::diagnostic::Diagnostic;
use crate::config::format::Value;
use crate::config::keys::{
    CLIENT_HS, ClientTimeoutLayer, ClientTimeouts, FrontendLayer, IDLE, ListenerLayer,
};
use crate::config::model::{BackendIndex, Format, Frontend};
use crate::config::scope::{Validator, Written, flag, or_default};
use crate::config::source::Place;
use crate::config::units::format_duration;
use std::time::Duration;

/// A frontend, and the values that are checked together with its backend.
pub(super) struct Draft {
    pub(super) frontend: Frontend,
    pub(super) client: Option<Written<Duration>>,
}

/// Reads a frontend; `default_backend` was resolved before.
pub(super) fn frontend(
    validator: &mut Validator<'_>,
    half: &Half<'_, FrontendSide<'_>>,
    inherited: &Inherited,
    default_backend: BackendIndex,
    bound: &mut Vec<Bound>,
) -> Draft {
    let (scope, table) = (half.scope, &half.table);
    let none = ClientTimeouts::default();
    let timeout = ClientTimeoutLayer::read(validator, scope, table.timeout.unwrap_or(&none))
        .over(&inherited.client);
    let (client, fin) = (timeout.client.as_ref(), timeout.client_fin.as_ref());
    let (timeout_client, timeout_client_fin) = idle_pair(validator, "client", client, fin);
    let shortest = timeout_client.unwrap_or(CLIENT_HS).min(CLIENT_HS);
    let (timeout_client_hs, _) = or_default(timeout.client_hs.as_ref(), shortest);
    let own = ListenerLayer::read(validator, scope, table.own);
    limits::backlog(validator, own.backlog.as_ref());
    let keys = FrontendLayer::read(validator, scope, table.keys).over(&inherited.frontend);
    let disabled = flag(own.disabled.as_ref());
    let owner = bind::Owner {
        scope,
        table: &half.span,
        what: half.what(),
        backlog: own.backlog.map(|written| written.value),
        tcp_only: false,
        started: !disabled,
    };
    let keepalive =
        KeepaliveSettings::read(validator, scope, table.keepalive).over(&inherited.keepalive);
    let meant = Frontend::from_layer(&keys);
    let frontend = Frontend {
        name: half.name(),
        id: half.id,
        order: half.order,
        binds: bind::binds(validator, &owner, table.own.bind.as_ref(), bound),
        disabled,
        default_backend,
        timeout_client,
        timeout_client_fin,
        timeout_client_hs,
        keepalive: keepalive.finish(),
        log_suffix: meant.log_suffix.as_ref().map(Format::mandatory),
        ..meant
    };
    limits::frontend_maxconn(validator, scope, table, &frontend);
    formats(validator, &keys);
    Draft {
        frontend,
        client: timeout.client,
    }
}

/// Refuses a unique id that is a part of itself, and warns of one that nothing makes.
fn formats(validator: &mut Validator<'_>, keys: &FrontendLayer) {
    let written = |key: Option<&Written<Format>>| key.cloned().filter(|it| !it.value.is_empty());
    let id = written(keys.unique_id_format.as_ref());
    if let Some(id) = id.as_ref().filter(|id| id.value.has(Value::UniqueId)) {
        let message = "`unique-id-format` has the unique id itself in it";
        let diagnostic = Diagnostic::error("value", message).at(id.place.clone());
        validator
            .report
            .push(diagnostic.hint("leave out `%ID` and `%[unique-id]`"));
    }
    let suffix = written(keys.log_suffix.as_ref());
    if let Some(suffix) = suffix.filter(|it| id.is_none() && it.value.has(Value::UniqueId)) {
        let message = "`log-suffix` has a unique id, and there is no `unique-id-format`";
        let diagnostic = Diagnostic::warning("no-effect", message).at(suffix.place);
        validator.report.push(diagnostic);
    }
}

/// An idle timeout and its `-fin`, with defaults; `None` is off. Without a `-fin` the idle timeout applies.
pub(super) fn idle_pair(
    validator: &mut Validator<'_>,
    side: &str,
    idle: Option<&Written<Duration>>,
    fin: Option<&Written<Duration>>,
) -> (Option<Duration>, Option<Duration>) {
    let on = |value: Duration| (!value.is_zero()).then_some(value);
    let (idle_value, idle_at) = or_default(idle, IDLE);
    let (fin_value, fin_at) = or_default(fin, idle_value);
    if let (Some(idle), Some(place)) = (on(idle_value), fin_at)
        && fin_value > idle
    {
        validator.report.push(longer(
            (&format!("timeout {side}-fin"), fin_value, place),
            (&format!("timeout {side}"), idle, idle_at),
        ));
    }
    (on(idle_value), on(fin_value))
}

/// "A of 5 s is longer than B of 2 s".
pub(super) fn longer(
    (what, value, place): (&str, Duration, &Place),
    (other, limit, limit_at): (&str, Duration, Option<&Place>),
) -> Diagnostic {
    let (value, limit) = (format_duration(value), format_duration(limit));
    let default = if limit_at.is_none() {
        " (the default)"
    } else {
        ""
    };
    let message = format!("{what} of {value} is longer than {other} of {limit}{default}");
    let diagnostic = Diagnostic::error("timeouts", message)
        .at(place.clone())
        .label(format!("expected at most {limit}"));
    match limit_at {
        Some(at) => diagnostic.also(at.clone(), format!("{other} is set here")),
        None => diagnostic,
    }
}
