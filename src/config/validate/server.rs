//! Servers: those of a backend's list, and those of its node group.

use super::health::{self, HealthKeys};
use super::layers::ServerSettings;
use super::{BackendSide, Half};
use crate::config::address;
use crate::config::diagnostic::Diagnostic;
use crate::config::keys::{
    NOWHERE, NodeGroup, NodeOwnLayer, NodeTable, ServerKeys, ServerOwnLayer, ServerTable,
};
use crate::config::model::{
    Check, InitState, ProxyV2Options, SendProxy, Server, ServerAddress, ServerPort, ServerSocket,
    Source,
};
use crate::config::read::ParsedFile;
use crate::config::scope::{Scope, Validator, Written};
use crate::config::shapes::{Located, Short};
use crate::config::source::Place;
use crate::config::units::{self, Problem};
use crate::config::words;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Most servers of a configuration. Those of a node group count for each backend that uses it.
pub const SERVERS_MAX: usize = 65_536;

/// `[node-group.NAME]` tables by name.
pub(super) type Groups<'a> = HashMap<&'a str, (Scope<'a>, &'a Located<NodeGroup>, Place)>;

/// All node groups of all files. Two with the same name are reported.
pub(super) fn groups<'a>(validator: &mut Validator<'_>, files: &'a [ParsedFile]) -> Groups<'a> {
    let mut groups = Groups::new();
    for parsed in files {
        let scope = Scope {
            source: &parsed.source,
            removed: &parsed.removed,
        };
        for (name, group) in &parsed.file.node_group {
            let place = scope.of(name);
            if let Some((_, _, before)) = groups.get(name.value.as_str()) {
                let message = format!("node group `{}` is already defined", name.value);
                validator.report.push(
                    Diagnostic::error("duplicate", message)
                        .at(place)
                        .also(before.clone(), "here"),
                );
                continue;
            }
            groups.insert(&name.value, (scope, group, place));
        }
    }
    groups
}

/// A server before ids are assigned.
struct Draft {
    server: Server,
    id: Option<Written<u32>>,
    name_at: Option<Place>,
    /// Where its keys about health are written.
    health: HealthKeys,
}

/// The servers of one backend: `servers` first, then those of `nodes`.
pub(super) fn servers(
    validator: &mut Validator<'_>,
    half: &Half<'_, BackendSide<'_>>,
    port: Option<&Written<u16>>,
    base: &ServerSettings,
    groups: &Groups<'_>,
) -> Vec<Server> {
    let mut drafts = Vec::new();
    let own = half.table.own.servers.as_ref();
    let own = own.map(|servers| &servers.value);
    if count(validator, half, own.map_or(0, Vec::len)) {
        for written in own.into_iter().flatten() {
            drafts.push(listed(validator, half.scope, written, base));
        }
    }
    drafts.extend(from_group(validator, half, port, base, groups));
    let of_health = drafts.iter().map(|draft| (&draft.server, &draft.health));
    let of_health: Vec<_> = of_health.collect();
    health::not_checked(validator, &half.what(), &of_health, &base.keys);
    unique(validator, &half.what(), &drafts);
    number(drafts)
}

/// Counts servers before they are created. Whether that many are allowed; reported once.
fn count(validator: &mut Validator<'_>, half: &Half<'_, BackendSide<'_>>, servers: usize) -> bool {
    if validator.servers > SERVERS_MAX {
        return servers == 0;
    }
    validator.servers += servers;
    if validator.servers > SERVERS_MAX {
        let message = format!(
            "more than {SERVERS_MAX} servers, with those of {}",
            half.what()
        );
        let diagnostic = Diagnostic::error("out-of-range", message).at(half.place());
        validator.report.push(diagnostic);
        return false;
    }
    true
}

fn listed(
    validator: &mut Validator<'_>,
    scope: Scope<'_>,
    written: &Located<ServerTable>,
    base: &ServerSettings,
) -> Draft {
    let table = &written.value;
    let own = ServerSettings::read(validator, scope, &table.keys);
    let id = ServerOwnLayer::read(validator, scope, table).id;
    let name = validator.name(scope, &table.name).unwrap_or_else(|| {
        validator.missing(scope, &written.span, "the server", "name = \"s1\"");
        "".into()
    });
    let address = if let Some(address) = &table.address {
        let parsed = address::server(&address.value);
        parse(validator, parsed, scope.of(address), SERVER_EXPECTED)
    } else {
        validator.missing(
            scope,
            &written.span,
            "the server",
            "address = \"10.0.0.1:80\"",
        );
        NOWHERE
    };
    if let ServerAddress::Unix(_) = address {
        only_tcp(validator, &own);
    }
    let maxqueue = own.keys.maxqueue.clone();
    let settings = own.over(base);
    without_queue(validator, maxqueue.as_ref(), &settings);
    let address_at = table
        .address
        .as_ref()
        .map_or_else(|| scope.of(written), |a| scope.of(a));
    let name_at = table.name.as_ref().map(|name| scope.of(name));
    let server = build(validator, name, address, &address_at, &settings);
    Draft {
        server,
        id,
        name_at,
        health: HealthKeys::of(&settings.keys),
    }
}

fn from_group(
    validator: &mut Validator<'_>,
    half: &Half<'_, BackendSide<'_>>,
    port: Option<&Written<u16>>,
    base: &ServerSettings,
    groups: &Groups<'_>,
) -> Vec<Draft> {
    let (scope, table) = (half.scope, half.table.own);
    let Some(nodes) = &table.nodes else {
        if let Some(port) = &table.port
            && !scope.removed.contains(&half.span, "nodes")
        {
            validator.report.push(
                Diagnostic::error("no-meaning", "`port` has no meaning without `nodes`")
                    .at(scope.of(port))
                    .hint("it is the port of the servers that come from a node group"),
            );
        }
        return Vec::new();
    };
    if table.port.is_none() && !scope.removed.contains(&half.span, "port") {
        validator.report.push(
            Diagnostic::error(
                "missing-key",
                format!("{} has `nodes` but no `port`", half.what()),
            )
            .at(scope.of(nodes))
            .label("expected a `port` beside it")
            .hint("add `port = 5432`, the port of its servers"),
        );
    }
    let Some((group_scope, group, _)) = groups.get(nodes.value.as_str()) else {
        if !scope.removed.names_below("node-group") {
            validator.report.push_error(|| {
                let names = groups.keys().copied();
                let message = format!("there is no node group `{}`", nodes.value);
                Diagnostic::error("unknown-node-group", message)
                    .at(scope.of(nodes))
                    .maybe_hint(
                        words::did_you_mean(&nodes.value, names)
                            .or_else(|| Some(format!("define it: [node-group.{}]", nodes.value))),
                    )
            });
        }
        return Vec::new();
    };
    if !count(validator, half, group.value.len()) {
        return Vec::new();
    }
    // A wrong port was reported; any port is sufficient for checking the rest.
    let port = port.map_or(1, |port| port.value);
    let mut nodes: Vec<_> = group.value.iter().collect();
    nodes.sort_by_key(|(name, _)| name.span.start);
    let node = |(name, node)| one_node(validator, *group_scope, (name, node), base, port);
    nodes.into_iter().filter_map(node).collect()
}

fn one_node(
    validator: &mut Validator<'_>,
    scope: Scope<'_>,
    (name, node): (&Located<String>, &Located<Short<String, NodeTable>>),
    base: &ServerSettings,
    port: u16,
) -> Option<Draft> {
    let name_text = validator.name(scope, &Some(name.clone()))?;
    let (host, settings, id) = match &node.value {
        Short::Short(host) => (
            Located {
                value: host.clone(),
                span: node.span.clone(),
            },
            base.clone(),
            None,
        ),
        Short::Table(table) => {
            let own = ServerSettings::read(validator, scope, &table.keys);
            let maxqueue = own.keys.maxqueue.clone();
            let settings = own.over(base);
            without_queue(validator, maxqueue.as_ref(), &settings);
            let id = NodeOwnLayer::read(validator, scope, table).id;
            let Some(host) = table.host.clone() else {
                validator.missing(scope, &node.span, "the node", "host = \"10.0.0.1\"");
                return None;
            };
            (host, settings, id)
        }
    };
    let parsed = address::node(&host.value, port);
    let address = parse(
        validator,
        parsed,
        scope.of(&host),
        "expected a host, without a port",
    );
    let server = build(validator, name_text, address, &scope.of(&host), &settings);
    Some(Draft {
        server,
        id,
        name_at: Some(scope.of(name)),
        health: HealthKeys::of(&settings.keys),
    })
}

const SERVER_EXPECTED: &str = "expected \"HOST:PORT\"";

fn parse(
    validator: &mut Validator<'_>,
    parsed: Result<ServerAddress, Problem>,
    place: Place,
    expected: &str,
) -> ServerAddress {
    parsed.unwrap_or_else(|problem| {
        validator.problem(place, "address", expected, problem);
        NOWHERE
    })
}

fn build(
    validator: &mut Validator<'_>,
    name: Arc<str>,
    address: ServerAddress,
    address_at: &Place,
    settings: &ServerSettings,
) -> Server {
    let meant = Server::from_layer(&settings.keys);
    let check = settings.check.finish(validator, meant.send_proxy);
    options(validator, settings, meant.send_proxy);
    at_start(validator, settings, meant.slowstart);
    in_no_tier(validator, settings, meant.backup);
    if let Some(check) = &check {
        checkable(validator, &name, &address, address_at, check);
    } else {
        never_up(validator, settings, &name);
    }
    if let Some(source) = &settings.keys.source {
        fits(validator, (&name, &address), source);
    }
    let is_unix = matches!(address, ServerAddress::Unix(_));
    Server {
        name,
        address,
        check,
        // As in HAProxy, those of a `default-server` are for TCP.
        socket: ServerSocket::of(&settings.keys).filter(|_| !is_unix),
        hold_down: health::hold_down(validator, &settings.keys),
        ..meant
    }
}

/// Warns about a `maxqueue` of a server for which nobody waits, because it has no limit.
fn without_queue(
    validator: &mut Validator<'_>,
    maxqueue: Option<&Written<u32>>,
    settings: &ServerSettings,
) {
    let is_set = |key: Option<&Written<u32>>| key.is_some_and(|it| it.value > 0);
    let keys = &settings.keys;
    let limited = is_set(keys.maxconn.as_ref()) || is_set(keys.minconn.as_ref());
    if let Some(maxqueue) = maxqueue.filter(|it| it.value > 0 && !limited) {
        let message = "`maxqueue` has no effect without `maxconn`";
        let diagnostic = Diagnostic::warning("no-effect", message).at(maxqueue.place.clone());
        validator.report.push(diagnostic);
    }
}

/// Refuses options of TCP that a unix socket has itself.
fn only_tcp(validator: &mut Validator<'_>, own: &ServerSettings) {
    let keys = &own.keys;
    let written = [
        (&ServerKeys::cc, keys.cc.as_ref().map(|it| &it.place)),
        (
            &ServerKeys::tcp_ut,
            keys.tcp_ut.as_ref().map(|it| &it.place),
        ),
        (
            &ServerKeys::namespace,
            keys.namespace.as_ref().map(|it| &it.place),
        ),
        (&ServerKeys::mptcp, keys.mptcp.as_ref().map(|it| &it.place)),
    ];
    for (key, place) in written {
        let Some(place) = place else { continue };
        let message = format!("`{}` has no meaning for a unix socket", key.name);
        let diagnostic = Diagnostic::error("no-meaning", message).at(place.clone());
        validator.report.push(diagnostic);
    }
}

/// Warns of a slow start at the start that takes no time.
fn at_start(validator: &mut Validator<'_>, settings: &ServerSettings, slowstart: Duration) {
    if let Some(written) = &settings.keys.slowstart_at_start
        && written.value
        && slowstart.is_zero()
    {
        let message = "`slowstart-at-start` has no meaning without `slowstart`";
        let diagnostic = Diagnostic::warning("no-meaning", message).at(written.place.clone());
        validator.report.push(diagnostic);
    }
}

/// Warns about a server that begins as down and that no check brings up.
fn never_up(validator: &mut Validator<'_>, settings: &ServerSettings, name: &str) {
    if let Some(written) = &settings.keys.init_state
        && matches!(written.value, InitState::Down | InitState::FullyDown)
    {
        let message = format!("server `{name}` begins as down, and no check brings it up");
        let diagnostic = Diagnostic::warning("no-check", message).at(written.place.clone());
        validator.report.push(diagnostic);
    }
}

/// Refuses a priority of a backup server, which is in no tier.
fn in_no_tier(validator: &mut Validator<'_>, settings: &ServerSettings, backup: bool) {
    if let Some(priority) = &settings.keys.priority
        && priority.value > 0
        && backup
    {
        let message = "`priority` has no meaning for a backup server";
        let diagnostic = Diagnostic::error("no-meaning", message)
            .at(priority.place.clone())
            .label("backup servers are used after those of all priorities")
            .hint("leave out one of the two, or write `priority = 0` at the server");
        validator.report.push(diagnostic);
    }
}

/// Refuses options and TLVs of a header that is not sent.
fn options(validator: &mut Validator<'_>, settings: &ServerSettings, header: SendProxy) {
    if let Some(options) = &settings.keys.proxy_v2_options
        && options.value != ProxyV2Options::None
        && header != SendProxy::V2
    {
        let message = "`proxy-v2-options` has no meaning without `send-proxy = \"v2\"`";
        let diagnostic = Diagnostic::error("no-meaning", message).at(options.place.clone());
        validator.report.push(diagnostic);
    }
    if let Some(tlvs) = &settings.keys.proxy_v2_tlvs
        && !tlvs.value.is_empty()
        && header != SendProxy::V2
    {
        let message = "`proxy-v2-tlvs` has no meaning without `send-proxy = \"v2\"`";
        let diagnostic = Diagnostic::error("no-meaning", message).at(tlvs.place.clone());
        validator.report.push(diagnostic);
    }
}

/// A server is reached from an address of its own family.
pub(super) fn fits(
    validator: &mut Validator<'_>,
    (name, address): (&str, &ServerAddress),
    source: &Written<Source>,
) {
    let ServerAddress::Ip(ip, _) = address else {
        return;
    };
    if source.value.iter().any(|one| one.fits(*ip)) {
        return;
    }
    let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
    let message = format!("server `{name}` cannot be reached from this `source`");
    validator.report.push(
        Diagnostic::error("source", message)
            .at(source.place.clone())
            .label(format!(
                "expected an {family} address, as that of the server"
            )),
    );
}

/// A check needs a port to connect to, of its own or in every step that connects.
fn checkable(
    validator: &mut Validator<'_>,
    name: &str,
    address: &ServerAddress,
    address_at: &Place,
    check: &Check,
) {
    let script = check.script.as_deref();
    let with_ports = script.is_some_and(|script| script.connects().all(|step| step.port.is_some()));
    let (message, hint) = match address {
        ServerAddress::Ip(_, ServerPort::FromClient(_))
        | ServerAddress::Name(_, ServerPort::FromClient(_))
            if check.port.is_none() && !with_ports =>
        {
            (
                format!("server `{name}` is checked but has no port of its own"),
                "write the port after the address, or a `port` in `check`",
            )
        }
        ServerAddress::Unix(_) if check.port.is_some() != check.address.is_some() => (
            format!(
                "server `{name}` is a unix socket, and its check has only half of a TCP address"
            ),
            "write `port` and `address` in `check`, or neither",
        ),
        _ => return,
    };
    validator.report.push(
        Diagnostic::error("no-port", message)
            .at(address_at.clone())
            .hint(hint),
    );
}

fn unique(validator: &mut Validator<'_>, backend: &str, drafts: &[Draft]) {
    let mut names: HashMap<&str, Option<&Place>> = HashMap::new();
    let mut ids: HashMap<u32, &Place> = HashMap::new();
    for draft in drafts {
        let name = &*draft.server.name;
        if name.is_empty() {
            continue;
        }
        if let (true, Some(place)) = (units::is_row(name), &draft.name_at) {
            let message = format!("`{name}` cannot be the name of a server");
            let diagnostic = Diagnostic::error("name", message)
                .at(place.clone())
                .label("every proxy has a row of this name in the statistics");
            validator.report.push(diagnostic);
        }
        let before = names.insert(name, draft.name_at.as_ref());
        if let (Some(before), Some(place)) = (before, &draft.name_at) {
            let message = format!("server `{name}` is already defined in {backend}");
            let mut diagnostic = Diagnostic::error("duplicate", message).at(place.clone());
            if let Some(before) = before {
                diagnostic = diagnostic.also(before.clone(), "first here");
            }
            validator.report.push(diagnostic);
        }
        let Some(id) = &draft.id else { continue };
        if let Some(before) = ids.insert(id.value, &id.place) {
            let message = format!("server id {} is used twice in {backend}", id.value);
            validator.report.push(
                Diagnostic::error("duplicate", message)
                    .at(id.place.clone())
                    .also(before.clone(), "first here"),
            );
        }
    }
}

/// Gives each server without an id the first free one from its number among the servers on, as HAProxy does.
fn number(drafts: Vec<Draft>) -> Vec<Server> {
    let taken: HashSet<u32> = drafts
        .iter()
        .filter_map(|d| d.id.as_ref())
        .map(|g| g.value)
        .collect();
    let mut next = 1_u32;
    let mut finish = |draft: Draft| {
        while draft.id.is_none() && taken.contains(&next) {
            next += 1;
        }
        let id = draft.id.map_or(next, |written| written.value);
        // A server that has an id counts too.
        next += 1;
        Server { id, ..draft.server }
    };
    drafts.into_iter().map(&mut finish).collect()
}
