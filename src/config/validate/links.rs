//! References between proxies: the backend of each frontend, and checks of the two together.

use super::{BackendSide, FrontendSide, Half, Proxies, backend, frontend};
use crate::config::NOFILE_UNKNOWN;
use crate::config::descriptors;
use crate::config::diagnostic::Diagnostic;
use crate::config::keys::IDLE;
use crate::config::model::{
    BackendIndex, BindAddress, Config, NoServer, Server, ServerAddress, ServerPort,
};
use crate::config::scope::{Scope, Validator, Written, or_default};
use crate::config::shapes::Located;
use crate::config::units::format_duration;
use crate::config::words;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// A larger ratio between the idle timeouts of the two sides causes a warning.
const IDLE_RATIO_MAX: u32 = 10;

/// Backends by name; the first of two with the same name (which was reported).
pub(super) type Index<'a> = BTreeMap<&'a str, BackendIndex>;

pub(super) fn index<'a>(backends: &'a [Half<'_, BackendSide<'_>>]) -> Index<'a> {
    let mut index = Index::new();
    for (at, half) in backends.iter().enumerate() {
        if let Some(name) = &half.name {
            index.entry(name.value.as_str()).or_insert(BackendIndex(at));
        }
    }
    index
}

/// The backend of `half`: the backend of a listen, otherwise the one that it names. `complete`: no backend of
/// the files was removed because of another problem.
pub(super) fn default_backend(
    validator: &mut Validator<'_>,
    half: &Half<'_, FrontendSide<'_>>,
    index: &Index<'_>,
    complete: bool,
) -> BackendIndex {
    let nowhere = BackendIndex(usize::MAX);
    if half.section == "listen" {
        return half
            .name
            .as_ref()
            .and_then(|name| index.get(name.value.as_str()).copied())
            .unwrap_or(nowhere);
    }
    let Some(written) = half.table.default_backend else {
        let example = "default-backend = \"NAME\"";
        validator.missing(half.scope, &half.span, &half.what(), example);
        return nowhere;
    };
    named(validator, (half.scope, written), index, complete).unwrap_or(nowhere)
}

/// The backend of a name that is `written`. `complete`: see [`default_backend`].
fn named(
    validator: &mut Validator<'_>,
    (scope, written): (Scope<'_>, &Located<String>),
    index: &Index<'_>,
    complete: bool,
) -> Option<BackendIndex> {
    let name = written.value.as_str();
    if let Some(found) = index.get(name) {
        return Some(*found);
    }
    if complete {
        validator.report.push_error(|| {
            let hint = words::did_you_mean(name, index.keys().copied());
            let hint = hint.unwrap_or_else(|| match index.len() {
                0 => "define it: `[[backend]]`".to_owned(),
                1..=8 => {
                    let names: Vec<String> = index.keys().map(|name| format!("`{name}`")).collect();
                    format!("there is {}", names.join(", "))
                }
                many => format!("none of the {many} backends has a name like it"),
            });
            Diagnostic::error("unknown-backend", format!("there is no backend `{name}`"))
                .at(scope.of(written))
                .label("expected the name of a backend")
                .hint(hint)
        });
    }
    None
}

/// Which backend stands in for which (`sorry-backend`), by position.
pub(super) struct StandIns(Vec<Option<usize>>);

impl StandIns {
    /// As the files say. No backend stands in for itself: a name that leads back is an error, and leads nowhere.
    pub(super) fn new(
        validator: &mut Validator<'_>,
        backends: &[Half<'_, BackendSide<'_>>],
        index: &Index<'_>,
        complete: bool,
    ) -> Self {
        let mut all = Self(vec![None; backends.len()]);
        for (at, half) in backends.iter().enumerate() {
            let Some(written) = &half.table.own.sorry_backend else {
                continue;
            };
            let target = named(validator, (half.scope, written), index, complete);
            let Some(BackendIndex(target)) = target else {
                continue;
            };
            if all.reached(target).any(|one| one == at) {
                let message = format!("the `sorry-backend` of {} leads back to it", half.what());
                let diagnostic = Diagnostic::error("loop", message)
                    .at(half.scope.of(written))
                    .label("its sessions would come back")
                    .hint("name a backend with servers of its own");
                validator.report.push(diagnostic);
                continue;
            }
            all.0[at] = Some(target);
        }
        all
    }

    /// A backend, and those that stand in for it, in their order.
    pub(super) fn reached(&self, backend: usize) -> impl Iterator<Item = usize> + '_ {
        let stands_in = |at: &usize| self.0.get(*at).copied().flatten();
        std::iter::successors(Some(backend), stands_in)
    }
}

/// Checks each frontend together with its backend.
pub(super) fn judge(
    validator: &mut Validator<'_>,
    proxies: &Proxies<'_>,
    frontends: &[frontend::Draft],
    (backends, stand_ins): (&[backend::Draft], &StandIns),
) {
    let mut used = HashSet::new();
    let mut told = HashSet::new();
    let mut told_of_ids = HashSet::new();
    let mut offsets_of = HashMap::new();
    let pairs = proxies.frontends.iter().zip(frontends).flat_map(|pair| {
        let reached = stand_ins.reached(pair.1.frontend.default_backend.0);
        reached.map(move |target| (pair, target))
    });
    for ((half, draft), target) in pairs {
        let (Some(backend), Some(backend_half)) =
            (backends.get(target), proxies.backends.get(target))
        else {
            continue;
        };
        used.insert(target);
        without_id(
            validator,
            (half, draft),
            (backend_half, backend),
            &mut told_of_ids,
        );
        idle(validator, draft.client.as_ref(), backend.server.as_ref());
        let offsets = offsets_of.entry(target).or_insert_with(|| offsets(backend));
        impossible_ports(validator, (half, draft), backend_half, offsets);
        let unix = draft
            .frontend
            .binds
            .iter()
            .any(|b| matches!(b.address, BindAddress::Unix(_)));
        if unix && told.insert(target) && follows_client(backend) {
            let message = format!(
                "{} has a server without a port, and {} listens on a unix socket, which has none",
                backend_half.what(),
                half.what()
            );
            validator
                .report
                .push(Diagnostic::error("no-port", message).at(half.place()));
        }
    }
    // A frontend with an unknown backend may mean a backend that is otherwise unused.
    let complete = frontends
        .iter()
        .all(|draft| draft.frontend.default_backend.0 < backends.len());
    let targets = frontends.iter().map(|it| it.frontend.default_backend.0);
    let named: HashSet<usize> = targets.collect();
    for (at, half) in proxies.backends.iter().enumerate() {
        if used.contains(&at) && !named.contains(&at) {
            no_frontend_to_pause(validator, half, &backends[at]);
        }
        let whole = complete && !half.scope.removed.names_below("frontend");
        if !used.contains(&at) && half.section == "backend" && whole {
            validator.report.push(
                Diagnostic::warning(
                    "unused-backend",
                    format!("nothing leads to {}", half.what()),
                )
                .at(half
                    .name
                    .as_ref()
                    .map_or_else(|| half.place(), |n| half.scope.of(n)))
                .label("it is no default-backend and no sorry-backend"),
            );
        }
    }
}

/// Warns of `no-server = "stop-listening"` in a backend that stands in for others and that no frontend names.
fn no_frontend_to_pause(
    validator: &mut Validator<'_>,
    half: &Half<'_, BackendSide<'_>>,
    draft: &backend::Draft,
) {
    let written = half.table.keys.no_server.as_ref();
    let stops = draft.backend.no_server == NoServer::StopListening;
    let Some(written) = written.filter(|_| stops) else {
        return;
    };
    let message = format!(
        "{} has `no-server = \"stop-listening\"`, and no frontend has it as its `default-backend`",
        half.what()
    );
    let diagnostic = Diagnostic::warning("no-effect", message)
        .at(half.scope.of(written))
        .hint("the backend that a frontend names says whether the frontend listens");
    validator.report.push(diagnostic);
}

/// Warns once of a backend whose servers are to get the unique id of sessions that have none.
fn without_id(
    validator: &mut Validator<'_>,
    (half, draft): (&Half<'_, FrontendSide<'_>>, &frontend::Draft),
    (backend_half, backend): (&Half<'_, BackendSide<'_>>, &backend::Draft),
    told: &mut HashSet<usize>,
) {
    let target = draft.frontend.default_backend.0;
    let mut servers = backend.backend.servers.iter();
    let sends = |server: &Server| server.proxy_v2_options.unique_id();
    if draft.frontend.unique_id_format.is_none() && servers.any(sends) && told.insert(target) {
        let message = format!(
            "{} has servers with `proxy-v2-options = \"unique-id\"`, and {} has no `unique-id-format`",
            backend_half.what(),
            half.what()
        );
        let diagnostic = Diagnostic::warning("no-effect", message).at(half.place());
        validator.report.push(diagnostic);
    }
}

/// The servers with the lowest and the highest offset to the client's port, and the offsets.
fn offsets(backend: &backend::Draft) -> Vec<(Arc<str>, i32)> {
    let servers = backend.backend.servers.iter();
    let offsets = servers.filter_map(|server| match server.address {
        ServerAddress::Ip(_, ServerPort::FromClient(offset))
        | ServerAddress::Name(_, ServerPort::FromClient(offset)) => Some((&server.name, offset)),
        _ => None,
    });
    let lowest = offsets.clone().min_by_key(|(_, offset)| *offset);
    let highest = offsets.max_by_key(|(_, offset)| *offset);
    let both = lowest.into_iter().chain(highest);
    both.map(|(name, offset)| (Arc::clone(name), offset))
        .collect()
}

/// Reports a server whose port, relative to the client's, is out of range for a bind of the frontend.
fn impossible_ports(
    validator: &mut Validator<'_>,
    (half, draft): (&Half<'_, FrontendSide<'_>>, &frontend::Draft),
    backend: &Half<'_, BackendSide<'_>>,
    offsets: &[(Arc<str>, i32)],
) {
    let binds = draft.frontend.binds.iter();
    let ports = binds.filter_map(|bind| match &bind.address {
        BindAddress::Tcp(address) if address.port() != 0 => Some(i32::from(address.port())),
        _ => None,
    });
    for (server, offset) in offsets {
        let none = |port: &i32| !(1..=i32::from(u16::MAX)).contains(&(port + offset));
        let Some(port) = ports.clone().find(none) else {
            continue;
        };
        let message = format!(
            "there is no port {} for server `{server}`: {} listens on {port}",
            port + offset,
            half.what()
        );
        let diagnostic = Diagnostic::error("no-port", message)
            .at(backend.server_place(server))
            .label(format!("the client's port {offset:+}"));
        validator.report.push(diagnostic);
        return;
    }
}

fn follows_client(backend: &backend::Draft) -> bool {
    backend.backend.servers.iter().any(|server| {
        matches!(
            server.address,
            ServerAddress::Ip(_, ServerPort::FromClient(_))
                | ServerAddress::Name(_, ServerPort::FromClient(_))
        )
    })
}

/// Warns about different idle timeouts: the shorter one ends a silent session on both sides.
fn idle(
    validator: &mut Validator<'_>,
    client: Option<&Written<Duration>>,
    server: Option<&Written<Duration>>,
) {
    let (client, client_at) = or_default(client, IDLE);
    let (server, server_at) = or_default(server, IDLE);
    let (short, long) = (client.min(server), client.max(server));
    if short.is_zero() || long <= short.saturating_mul(IDLE_RATIO_MAX) {
        return;
    }
    // At least one was written, because the defaults are equal.
    let (Some(place), other) = (match (client_at, server_at) {
        (Some(at), other) => (Some(at), other),
        (None, at) => (at, None),
    }) else {
        return;
    };
    let message = format!(
        "the idle timeouts of the two sides differ much: client {}, server {}",
        format_duration(client),
        format_duration(server)
    );
    let mut diagnostic = Diagnostic::warning("timeouts", message)
        .at(place.clone())
        .label(if other.is_none() {
            "the other side has the default"
        } else {
            "one side"
        })
        .hint("the shorter one ends silent sessions: give both the same value");
    if let Some(other) = other {
        diagnostic = diagnostic.also(other.clone(), "the other side");
    }
    validator.report.push(diagnostic);
}

/// Sets `fullconn` where none was written: a tenth, rounded up, of the sum of the maxconn of the frontends with
/// this backend that are not disabled, as HAProxy does.
pub(super) fn fullconn(validator: &Validator<'_>, config: &mut Config, stand_ins: &StandIns) {
    let nofile = validator.limits.nofile.unwrap_or(NOFILE_UNKNOWN);
    let fits = || descriptors::capacity(config, nofile).map_or(1, |fits| fits.maxconn);
    let global = config.global.maxconn.unwrap_or_else(fits);
    let mut sums = vec![0u64; config.backends.len()];
    for frontend in config.frontends.iter().filter(|one| !one.disabled) {
        for target in stand_ins.reached(frontend.default_backend.0) {
            if let Some(sum) = sums.get_mut(target) {
                *sum += u64::from(frontend.maxconn.unwrap_or(global));
            }
        }
    }
    for (backend, sum) in config.backends.iter_mut().zip(sums) {
        if backend.fullconn == 0 {
            backend.fullconn = u32::try_from(sum.div_ceil(10)).unwrap_or(u32::MAX).max(1);
        }
    }
}
