//! `bind`: addresses to listen on, with ranges expanded.

use super::accept_proxy;
use super::collisions::Bound;
use crate::config::address::{self, BindText};
use crate::config::diagnostic::Diagnostic;
use crate::config::keys::{BindLayer, BindTable, Binds};
use crate::config::model::{Bind, BindAddress};
use crate::config::scope::{Scope, Validator, Written};
use crate::config::shapes::{Located, Short};
use crate::config::source::Place;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

/// Most listening addresses of a configuration, with ranges expanded.
pub const BINDS_MAX: usize = 16_384;

/// The owner of the binds that are read.
pub(super) struct Owner<'a> {
    pub(super) scope: Scope<'a>,
    /// Span of its table.
    pub(super) table: &'a Range<usize>,
    /// For messages: "frontend `web`".
    pub(super) what: String,
    /// `backlog` of the frontend.
    pub(super) backlog: Option<u32>,
    /// Refuse unix sockets.
    pub(super) tcp_only: bool,
    /// Whether it listens (is not disabled).
    pub(super) started: bool,
}

/// The binds of `owner`; all addresses that it listens on are added to `bound`.
pub(super) fn binds(
    validator: &mut Validator<'_>,
    owner: &Owner<'_>,
    list: Option<&Binds>,
    bound: &mut Vec<Bound>,
) -> Vec<Bind> {
    let empty = list.is_none_or(|list| list.0.is_empty());
    if empty {
        validator.missing(owner.scope, owner.table, &owner.what, "bind = \"*:80\"");
    }
    let mut seen = Seen::default();
    let mut binds: Vec<(Bind, bool)> = Vec::new();
    for written in list.iter().flat_map(|list| &list.0) {
        let place = owner.scope.of(written);
        let table = match &written.value {
            Short::Table(table) => table.clone(),
            Short::Short(text) => BindTable {
                address: Some(Located {
                    value: text.clone(),
                    span: written.span.clone(),
                }),
                ..BindTable::default()
            },
        };
        let Some(expanded) = one(validator, owner, &table, &written.span, &mut seen) else {
            continue;
        };
        if owner.started {
            let of = |bind| Bound::of_bind(&owner.what, &place, bind);
            bound.extend(expanded.iter().map(of));
        }
        binds.extend(expanded.into_iter().map(|bind| {
            let explicit = bind.id != 0;
            (bind, explicit)
        }));
    }
    number(binds)
}

/// Gives each bind without an id the lowest free one, from 1.
fn number(binds: Vec<(Bind, bool)>) -> Vec<Bind> {
    let taken: HashSet<u32> = binds.iter().map(|(bind, _)| bind.id).collect();
    let mut next = 1;
    let assign = |(mut bind, explicit): (Bind, bool)| {
        if !explicit {
            while taken.contains(&next) {
                next += 1;
            }
            bind.id = next;
            next += 1;
        }
        bind
    };
    binds.into_iter().map(assign).collect()
}

/// Names and ids of the listeners of one frontend.
#[derive(Default)]
struct Seen {
    names: HashMap<Arc<str>, Place>,
    ids: HashMap<u32, Place>,
}

/// One entry of `bind`, expanded; ids that were not written are 0.
fn one(
    validator: &mut Validator<'_>,
    owner: &Owner<'_>,
    table: &BindTable,
    span: &Range<usize>,
    seen: &mut Seen,
) -> Option<Vec<Bind>> {
    let scope = owner.scope;
    let name = validator.name(scope, &table.name);
    let layer = BindLayer::read(validator, scope, table);
    super::limits::backlog(validator, layer.backlog.as_ref());
    let id = layer.id.as_ref();
    let (address, text) = address(validator, scope, table, span)?;
    suits(validator, owner, table, address, &text);
    privileges(validator, &layer);
    let sockets = match &text {
        BindText::Unix(_) | BindText::Descriptor(_) => 1,
        BindText::Tcp(_, ports) => ports.clone().count(),
    };
    if !count(validator, sockets, || scope.of(address)) {
        return None;
    }
    remember(validator, scope, table, id.map(|id| (id, sockets)), seen);
    let meant = Bind {
        accept_proxy_from: accept_proxy::read(validator, scope, table, layer.accept_proxy.as_ref()),
        ..Bind::from_layer(&layer)
    };
    let backlog = meant.backlog.or(owner.backlog);
    let make = |index: u32, address: BindAddress, written: String, suffix: Option<u16>| Bind {
        name: match (&name, suffix) {
            (Some(name), None) => Arc::clone(name),
            (Some(name), Some(port)) => format!("{name}:{port}").into(),
            (None, _) => written.into(),
        },
        id: id.map_or(0, |id| id.value.saturating_add(index)),
        address,
        backlog,
        ..meant.clone()
    };
    Some(match text {
        BindText::Unix(path) => {
            vec![make(
                0,
                BindAddress::Unix(path),
                address.value.clone(),
                None,
            )]
        }
        BindText::Descriptor(number) => {
            let there = BindAddress::Descriptor(number);
            vec![make(0, there, address.value.clone(), None)]
        }
        BindText::Tcp(ip, ports) => {
            let host = address.value.rsplit_once(':').map_or("", |(host, _)| host);
            let range = ports.start() != ports.end();
            (0..)
                .zip(ports)
                .map(|(index, port)| {
                    let address = BindAddress::Tcp(SocketAddr::new(ip, port));
                    make(
                        index,
                        address,
                        format!("{host}:{port}"),
                        range.then_some(port),
                    )
                })
                .collect()
        }
    })
}

/// Counts sockets before they are created. Whether that many are allowed; reported once.
fn count(validator: &mut Validator<'_>, sockets: usize, place: impl FnOnce() -> Place) -> bool {
    if validator.binds > BINDS_MAX {
        return false;
    }
    validator.binds += sockets;
    if validator.binds > BINDS_MAX {
        let message = format!("more than {BINDS_MAX} addresses to listen on");
        let diagnostic = Diagnostic::error("out-of-range", message).at(place());
        validator.report.push(diagnostic);
        return false;
    }
    true
}

/// The address of `table`, which is required.
fn address<'t>(
    validator: &mut Validator<'_>,
    scope: Scope<'_>,
    table: &'t BindTable,
    span: &Range<usize>,
) -> Option<(&'t Located<String>, BindText)> {
    let Some(address) = &table.address else {
        validator.missing(scope, span, "the bind", "address = \"*:80\"");
        return None;
    };
    match address::bind(&address.value) {
        Ok(text) => Some((address, text)),
        Err(problem) => {
            let expected = "expected \"ADDRESS:PORT\"";
            validator.problem(scope.of(address), "address", expected, problem);
            None
        }
    }
}

/// Refuses keys that have no meaning for this kind of address.
fn suits(
    validator: &mut Validator<'_>,
    owner: &Owner<'_>,
    table: &BindTable,
    address: &Located<String>,
    text: &BindText,
) {
    let scope = owner.scope;
    let is_abstract = matches!(text, BindText::Unix(path) if address::is_abstract(path));
    for (key, span, suits) in restricted(table) {
        let what = match (text, suits) {
            (BindText::Unix(_), Suits::File) if is_abstract => "an abstract socket",
            (BindText::Unix(_), Suits::File) | (BindText::Descriptor(_), Suits::Tcp) => continue,
            (BindText::Unix(_), _) => "a unix socket",
            (BindText::Descriptor(_), _) => "a socket that is passed",
            (BindText::Tcp(..), Suits::File) => "a TCP address",
            (BindText::Tcp(ip, _), Suits::OpenedV6) if ip.is_ipv4() => "an IPv4 address",
            (BindText::Tcp(..), _) => continue,
        };
        let Some(span) = span else { continue };
        let message = format!("`{key}` has no meaning for {what}");
        let place = scope.place(&span);
        validator
            .report
            .push(Diagnostic::error("no-meaning", message).at(place));
    }
    let message = match text {
        BindText::Unix(_) => format!("{} listens on TCP only", owner.what),
        BindText::Descriptor(_) => format!("{} opens its own sockets", owner.what),
        BindText::Tcp(..) => return,
    };
    if owner.tcp_only {
        validator
            .report
            .push(Diagnostic::error("address", message).at(scope.of(address)));
    }
}

/// Warns of what this process may not do. As in HAProxy the bind listens all the same.
fn privileges(validator: &mut Validator<'_>, layer: &BindLayer) {
    let transparent = layer.transparent.as_ref().filter(|it| it.value);
    if let (false, Some(transparent)) = (validator.limits.net_admin, transparent) {
        let what = "rlb needs CAP_NET_ADMIN or CAP_NET_RAW for this";
        validator.report.push(
            Diagnostic::warning("capability", what)
                .at(transparent.place.clone())
                .label("this process has neither: the address is bound as by `freebind`")
                .hint("add `AmbientCapabilities=CAP_NET_ADMIN` and `CapabilityBoundingSet=CAP_NET_ADMIN` to the unit of the service"),
        );
    }
}

/// The addresses for which a key has a meaning.
#[derive(Clone, Copy)]
enum Suits {
    /// TCP, also of a socket that is passed.
    Tcp,
    /// TCP that rlb opens itself.
    Opened,
    /// The same over IPv6.
    OpenedV6,
    /// The path of a unix socket.
    File,
}

/// The keys of `table` that have no meaning for every address, where they are written, and what they suit.
fn restricted(table: &BindTable) -> [(&'static str, Option<Range<usize>>, Suits); 13] {
    macro_rules! key {
        ($field:ident, $suits:ident) => {
            (
                BindTable::$field.name,
                table.$field.as_ref().map(|written| written.span.clone()),
                Suits::$suits,
            )
        };
    }
    [
        key!(v6only, OpenedV6),
        key!(interface, Opened),
        key!(overlap, Opened),
        key!(freebind, Opened),
        key!(mode, File),
        key!(transparent, Opened),
        key!(namespace, Opened),
        key!(mptcp, Opened),
        key!(defer_accept, Tcp),
        key!(tfo, Tcp),
        key!(mss, Tcp),
        key!(cc, Tcp),
        key!(tcp_ut, Tcp),
    ]
}

fn remember(
    validator: &mut Validator<'_>,
    scope: Scope<'_>,
    table: &BindTable,
    id: Option<(&Written<u32>, usize)>,
    seen: &mut Seen,
) {
    let mut twice = |what: String, place: Place, before: Option<Place>| {
        if let Some(before) = before {
            validator.report.push(
                Diagnostic::error(
                    "duplicate",
                    format!("{what} is used twice in this frontend"),
                )
                .at(place)
                .also(before, "first here"),
            );
        }
    };
    if let Some(name) = &table.name {
        let place = scope.of(name);
        let before = seen.names.insert(name.value.as_str().into(), place.clone());
        twice(format!("bind name `{}`", name.value), place, before);
    }
    // The ids of a port range are consecutive.
    if let Some((id, sockets)) = id {
        for value in (id.value..).take(sockets) {
            let before = seen.ids.insert(value, id.place.clone());
            twice(format!("bind id {value}"), id.place.clone(), before);
        }
    }
}
