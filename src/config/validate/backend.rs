//! `[[backend]]`, and the backend of a `[[listen]]`.

use super::check::CheckSettings;
use super::frontend::{idle_pair, longer};
use super::layers::{KeepaliveSettings, ServerSettings};
use super::once::Inherited;
use super::server::{self, Groups};
use super::{BackendSide, Half};
use crate::config::diagnostic::Diagnostic;
use crate::config::keys::{
    BackendKeys, BackendLayer, CONNECT, CONNECT_ATTEMPT, ServerTimeoutLayer, ServerTimeouts,
    ServersLayer, TABLE_MAX, prime_from,
};
use crate::config::model::{Backend, Balance};
use crate::config::scope::{Validator, Written, flag, or_default};
use crate::config::source::Place;
use std::time::Duration;

/// A backend, and the values that are checked together with its frontends. Its `fullconn` is 0 if it was not
/// written.
pub(super) struct Draft {
    pub(super) backend: Backend,
    pub(super) server: Option<Written<Duration>>,
}

/// Reads a backend.
pub(super) fn backend(
    validator: &mut Validator<'_>,
    half: &Half<'_, BackendSide<'_>>,
    inherited: &Inherited,
    groups: &Groups<'_>,
) -> Draft {
    let (scope, table) = (half.scope, &half.table);
    let none = ServerTimeouts::default();
    let timeout = ServerTimeoutLayer::read(validator, scope, table.timeout.unwrap_or(&none));
    let check_timeout = timeout.check.clone();
    let timeout = timeout.over(&inherited.server);
    let (server, fin) = (timeout.server.as_ref(), timeout.server_fin.as_ref());
    let (timeout_server, timeout_server_fin) = idle_pair(validator, "server", server, fin);
    let (timeout_connect, connect_attempt) = connect(validator, &timeout);
    let own = ServersLayer::read(validator, scope, table.own);
    let written = BackendLayer::read(validator, scope, table.keys);
    let keys = written.clone().over(&inherited.backend);
    let keepalive =
        KeepaliveSettings::read(validator, scope, table.keepalive).over(&inherited.keepalive);
    let base = server_base(validator, half, check_timeout, inherited);
    let servers = server::servers(validator, half, own.port.as_ref(), &base, groups);
    if let Some(source) = &keys.source {
        for server in servers.iter().filter(|server| server.source.is_none()) {
            server::fits(validator, (&server.name, &server.address), source);
        }
    }
    let mut backend = Backend {
        name: half.name(),
        id: half.id,
        order: half.order,
        allbackups: flag(own.allbackups.as_ref()),
        fullconn: own.fullconn.map_or(0, |written| written.value),
        timeout_server,
        timeout_server_fin,
        timeout_connect,
        timeout_queue: timeout
            .queue
            .map_or(timeout_connect, |written| written.value),
        timeout_no_server: timeout.no_server.map_or(Duration::ZERO, |it| it.value),
        connect_attempt,
        keepalive: keepalive.finish(),
        sorry_backend: table
            .own
            .sorry_backend
            .as_ref()
            .map(|it| it.value.as_str().into()),
        server_state_file_name: own.server_state_file_name.map(|written| written.value),
        servers,
        ..Backend::from_layer(&keys)
    };
    without_effect(validator, &written, &backend);
    few_slots(validator, half, &written, &backend);
    tiers(validator, &written, &backend);
    if !backend.balance.shares_by_weight() {
        no_shares(validator, &written, backend.balance);
        backend.rebalance = 0;
    }
    Draft {
        backend,
        server: timeout.server,
    }
}

/// Warns about keys of the backend itself that its algorithm does not look at.
fn without_effect(validator: &mut Validator<'_>, written: &BackendLayer, backend: &Backend) {
    fn changed<T: PartialEq>(written: Option<&Written<T>>, default: &T) -> Option<Place> {
        let changed = written.filter(|it| it.value != *default);
        changed.map(|it| it.place.clone())
    }
    let default = Backend::default();
    let (balance, hash_type) = (backend.balance, backend.hash_type);
    let hashes = matches!(balance, Balance::Source | Balance::Hash);
    let moves_few = (hashes && hash_type.consistent) || balance == Balance::Maglev;
    let keys = [
        (
            &BackendKeys::random_draws,
            changed(written.random_draws.as_ref(), &default.random_draws),
            balance == Balance::Random,
        ),
        (
            &BackendKeys::hash_type,
            changed(written.hash_type.as_ref(), &default.hash_type),
            hashes,
        ),
        (
            &BackendKeys::hash_on,
            changed(written.hash_on.as_ref(), &default.hash_on),
            matches!(balance, Balance::Hash | Balance::Maglev),
        ),
        (
            &BackendKeys::maglev_table_size,
            changed(
                written.maglev_table_size.as_ref(),
                &default.maglev_table_size,
            ),
            balance == Balance::Maglev,
        ),
        (
            &BackendKeys::hash_balance_factor,
            changed(
                written.hash_balance_factor.as_ref(),
                &default.hash_balance_factor,
            ),
            moves_few,
        ),
        (
            &BackendKeys::hash_preserve_affinity,
            changed(
                written.hash_preserve_affinity.as_ref(),
                &default.hash_preserve_affinity,
            ),
            moves_few,
        ),
    ];
    for (key, place, effective) in keys {
        let Some(place) = place.filter(|_| !effective) else {
            continue;
        };
        let of_type = [
            BackendKeys::hash_on.name,
            BackendKeys::maglev_table_size.name,
        ];
        let beside = if hashes && !of_type.contains(&key.name) {
            format!("`hash-type = \"{}\"`", hash_type.name())
        } else {
            format!("`balance = \"{}\"`", balance.name())
        };
        let message = format!("`{}` has no effect with {beside}", key.name);
        let diagnostic = Diagnostic::warning("no-effect", message).at(place);
        validator.report.push(diagnostic);
    }
}

/// Warns about keys of the backend itself that its servers leave without an effect.
fn tiers(validator: &mut Validator<'_>, written: &BackendLayer, backend: &Backend) {
    let servers = &backend.servers;
    let mut active = servers.iter().filter(|server| !server.backup);
    let first = active.next().map(|server| server.priority);
    let has_tiers = active.any(|server| Some(server.priority) != first);
    let is_checked = servers.iter().any(|server| server.check.is_some());
    let keys = [
        (
            &BackendKeys::spill_below,
            written.spill_below.as_ref(),
            has_tiers,
            "all servers that are no backups have the same priority",
            "write `priority = 1` at those that are used when others are not enough",
        ),
        (
            &BackendKeys::fail_open_below,
            written.fail_open_below.as_ref(),
            is_checked,
            "no server is checked",
            "write a `check`",
        ),
    ];
    for (key, written, effective, why, hint) in keys {
        let Some(written) = written.filter(|it| it.value > 0 && !effective) else {
            continue;
        };
        if servers.is_empty() {
            continue;
        }
        let message = format!("`{}` has no effect", key.name);
        let diagnostic = Diagnostic::warning("no-effect", message).at(written.place.clone());
        validator.report.push(diagnostic.label(why).hint(hint));
    }
}

/// Refuses `rebalance` of the backend itself with an algorithm that has no shares by weight.
fn no_shares(validator: &mut Validator<'_>, written: &BackendLayer, balance: Balance) {
    let Some(written) = written.rebalance.as_ref().filter(|it| it.value > 0) else {
        return;
    };
    let name = balance.name();
    let why = match balance {
        Balance::First => "it fills one server after the other",
        Balance::Ewma => "its shares follow the times of connects",
        _ => "a client would come to the same server again",
    };
    let message = format!("`rebalance` has no meaning with `balance = \"{name}\"`");
    let diagnostic = Diagnostic::error("no-meaning", message).at(written.place.clone());
    let diagnostic = diagnostic.label(why);
    let hint = "write `balance = \"leastconn\"`, \"roundrobin\", \"static-rr\" or \"random\", or leave it out";
    validator.report.push(diagnostic.hint(hint));
}

/// Slots of a table of `maglev` for each server, of which shares are rough if there are fewer.
const SLOTS_EACH: u32 = 100;

/// Warns about a table of `maglev` with few slots for its servers: with fewer slots than servers some get no client.
fn few_slots(
    validator: &mut Validator<'_>,
    half: &Half<'_, BackendSide<'_>>,
    written: &BackendLayer,
    backend: &Backend,
) {
    let (size, count) = (backend.maglev_table_size, backend.servers.len());
    let servers = u32::try_from(count).unwrap_or(u32::MAX);
    let enough = servers.saturating_mul(SLOTS_EACH);
    if backend.balance != Balance::Maglev || size >= enough {
        return;
    }
    let most = u32::try_from(TABLE_MAX).unwrap_or(u32::MAX);
    let next = prime_from(enough.min(most));
    if size == next {
        return;
    }
    let key = BackendKeys::maglev_table_size.name;
    let message = format!(
        "{key} {size} is too small for the {servers} servers of {}",
        half.what()
    );
    let label = if size < servers {
        format!("{} servers get no client", servers - size)
    } else {
        format!("a server has {} slots", size / servers)
    };
    let place = written.maglev_table_size.as_ref();
    let diagnostic = Diagnostic::warning("too-small", message)
        .at(place.map_or_else(|| half.place(), |it| it.place.clone()))
        .label(label)
        .hint(format!("write `{key} = {next}`"));
    validator.report.push(diagnostic);
}

/// `timeout connect` and `connect-attempt`.
fn connect(validator: &mut Validator<'_>, timeout: &ServerTimeoutLayer) -> (Duration, Duration) {
    let (connect, connect_at) = or_default(timeout.connect.as_ref(), CONNECT);
    let attempt = timeout.connect_attempt.as_ref();
    let (one, one_at) = or_default(attempt, CONNECT_ATTEMPT.min(connect / 2));
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

/// The settings that the servers of this backend inherit: the nearest of `[defaults]`, the backend's `timeout`
/// and `check`, and its `default-server`.
fn server_base(
    validator: &mut Validator<'_>,
    half: &Half<'_, BackendSide<'_>>,
    check_timeout: Option<Written<Duration>>,
    inherited: &Inherited,
) -> ServerSettings {
    let (scope, keys) = (half.scope, half.table.keys);
    let timeout = CheckSettings::timeout(check_timeout).over(&inherited.default_server.check);
    let check = CheckSettings::read(validator, scope, &keys.check).over(&timeout);
    let below = ServerSettings {
        keys: inherited.default_server.keys.clone(),
        check,
    };
    match &keys.default_server {
        Some(table) => ServerSettings::read(validator, scope, &table.value).over(&below),
        None => below,
    }
}

/// Warns about a backend without servers, or whose servers all have weight 0 while no other backend stands in for it.
pub(super) fn empty(
    validator: &mut Validator<'_>,
    half: &Half<'_, BackendSide<'_>>,
    draft: &Draft,
    groups: &Groups<'_>,
) {
    let removed = |key| half.scope.removed.contains(&half.span, key);
    // An unknown group was reported.
    let unknown = half
        .table
        .own
        .nodes
        .as_ref()
        .is_some_and(|nodes| !groups.contains_key(nodes.value.as_str()));
    let removed = unknown
        || validator.servers > server::SERVERS_MAX
        || removed("servers")
        || removed("nodes")
        || removed("port");
    let servers = &draft.backend.servers;
    let stands_alone = draft.backend.sorry_backend.is_none();
    if stands_alone && !servers.is_empty() && servers.iter().all(|server| server.weight == 0) {
        let message = format!("every server of {} has weight 0", half.what());
        validator.report.push(
            Diagnostic::warning("no-weight", message)
                .at(half.place())
                .label("every connection to it fails")
                .hint("write a `weight` of 1 to 256 at one of them"),
        );
    }
    let least = draft.backend.min_servers;
    if least as usize > servers.len() && !servers.is_empty() && !removed {
        let message = format!(
            "{} has {} servers and `min-servers` {least}",
            half.what(),
            servers.len()
        );
        validator.report.push(
            Diagnostic::warning("no-server", message)
                .at(half.place())
                .label("it is always DOWN")
                .hint("write a lower `min-servers`, or add servers"),
        );
    }
    if servers.is_empty() && !removed {
        validator.report.push(
            Diagnostic::warning("no-server", format!("{} has no server", half.what()))
                .at(half.place())
                .label("every connection to it fails")
                .hint("add `servers = [{ name = \"s1\", address = \"10.0.0.1:80\" }]`"),
        );
    }
}
