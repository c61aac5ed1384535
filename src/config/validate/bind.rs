//! `bind`: addresses to listen on, with ranges expanded, and their collisions.

use super::accept_proxy;
use crate::config::address::{self, BindText};
use crate::config::diagnostic::Diagnostic;
use crate::config::keys::{BindLayer, BindTable, Binds};
use crate::config::model::{Bind, BindAddress};
use crate::config::scope::{Scope, Validator, Written};
use crate::config::shapes::{Located, Short};
use crate::config::source::Place;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
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

/// A listening address of the configuration, for the comparison with all others.
pub(super) struct Bound {
    what: String,
    place: Place,
    address: BindAddress,
    v6only: bool,
    interface: Option<Arc<str>>,
    namespace: Option<Arc<str>>,
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
            bound.extend(expanded.iter().map(|bind| Bound {
                what: owner.what.clone(),
                place: place.clone(),
                address: bind.address.clone(),
                v6only: bind.v6only == Some(true),
                interface: bind.interface.clone(),
                namespace: bind.namespace.clone(),
            }));
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
        accept_proxy_from: accept_proxy::read(
            validator,
            scope,
            table,
            (
                layer.accept_proxy.as_ref(),
                owner.tcp_only.then_some(&*owner.what),
            ),
        ),
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
fn restricted(table: &BindTable) -> [(&'static str, Option<Range<usize>>, Suits); 12] {
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

/// Reports addresses that cannot be listened on at once, once for each two entries.
pub(super) fn collisions(validator: &mut Validator<'_>, bound: &[Bound]) {
    let mut ports: HashMap<(u16, Option<&str>), SamePort<'_>> = HashMap::new();
    let mut paths: HashMap<&PathBuf, &Bound> = HashMap::new();
    let mut descriptors: HashMap<i32, &Bound> = HashMap::new();
    let mut told = HashSet::new();
    for later in bound {
        let earlier = match &later.address {
            BindAddress::Unix(path) => paths.insert(path, later),
            BindAddress::Descriptor(number) => descriptors.insert(*number, later),
            BindAddress::Tcp(address) if address.port() == 0 => None,
            BindAddress::Tcp(address) => {
                let port = (address.port(), later.namespace.as_deref());
                let same_port = ports.entry(port).or_default();
                same_port.add(address.ip().to_canonical(), later)
            }
        };
        let Some(earlier) = earlier else { continue };
        let key = |bound: &Bound| (Arc::as_ptr(&bound.place.source), bound.place.span.start);
        if told.insert((key(earlier), key(later))) {
            tell(validator, earlier, later);
        }
    }
}

/// The TCP addresses with one port in one network namespace, in the order of the file. Thousands may have it, each with
/// an address of its own.
#[derive(Default)]
struct SamePort<'a> {
    all: Vec<&'a Bound>,
    /// Positions of those with a wildcard.
    wildcards: Vec<usize>,
    /// Positions of the others by their address.
    own: HashMap<IpAddr, Vec<usize>>,
}

impl<'a> SamePort<'a> {
    /// Adds `later`, whose address is `ip`; the first one with which it collides.
    fn add(&mut self, ip: IpAddr, later: &'a Bound) -> Option<&'a Bound> {
        let position = self.all.len();
        let collides = |earlier: &usize| collide(self.all[*earlier], later);
        let earlier = if ip.is_unspecified() {
            (0..position).find(collides)
        } else {
            let own = self.own.get(&ip).into_iter().flatten();
            let own = own.copied().find(collides);
            let wildcard = self.wildcards.iter().copied().find(collides);
            own.into_iter().chain(wildcard).min()
        };
        let earlier = earlier.map(|earlier| self.all[earlier]);
        let same = if ip.is_unspecified() {
            &mut self.wildcards
        } else {
            self.own.entry(ip).or_default()
        };
        same.push(position);
        self.all.push(later);
        earlier
    }
}

fn tell(validator: &mut Validator<'_>, earlier: &Bound, later: &Bound) {
    let address = match &later.address {
        BindAddress::Tcp(address) => address.to_string(),
        BindAddress::Unix(path) => path.display().to_string(),
        BindAddress::Descriptor(number) => format!("fd@{number}"),
    };
    let whom = &earlier.what;
    let message = format!(
        "{address} is already taken by {whom} in {}",
        earlier.place.short()
    );
    let wildcard = |bound: &Bound| match bound.address {
        BindAddress::Tcp(address) => address.ip().is_unspecified(),
        BindAddress::Unix(_) | BindAddress::Descriptor(_) => false,
    };
    let hint = if wildcard(earlier) != wildcard(later) {
        Some("a wildcard address takes the port on every address of this machine".to_owned())
    } else if earlier.address != later.address {
        Some("`[::]` also takes IPv4, unless the bind says `v6only = true`".to_owned())
    } else {
        None
    };
    validator.report.push(
        Diagnostic::error("bind-collision", message)
            .at(later.place.clone())
            .label("cannot be listened on twice")
            .maybe_hint(hint)
            .also(earlier.place.clone(), "taken here"),
    );
}

/// Whether Linux refuses to listen on both (without `SO_REUSEPORT`); the ports are equal.
fn collide(one: &Bound, other: &Bound) -> bool {
    let (BindAddress::Tcp(a), BindAddress::Tcp(b)) = (&one.address, &other.address) else {
        return false;
    };
    if one.namespace != other.namespace {
        return false;
    }
    if let (Some(device), Some(other)) = (&one.interface, &other.interface)
        && device != other
    {
        return false;
    }
    // An IPv4 address may be written as an IPv6 address.
    let (ip, other_ip) = (a.ip().to_canonical(), b.ip().to_canonical());
    match (ip, other_ip) {
        (IpAddr::V4(a), IpAddr::V4(b)) => a == b || a.is_unspecified() || b.is_unspecified(),
        (IpAddr::V6(a), IpAddr::V6(b)) => a == b || a.is_unspecified() || b.is_unspecified(),
        (IpAddr::V4(_), IpAddr::V6(v6)) => v6.is_unspecified() && !other.v6only,
        (IpAddr::V6(v6), IpAddr::V4(_)) => v6.is_unspecified() && !one.v6only,
    }
}
