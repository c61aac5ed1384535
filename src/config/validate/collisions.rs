//! Whether all sockets of the configuration can listen at once: those of frontends, of the statistics and for commands.
//!
//! Invariant: an address that the kernel would refuse, because another one of the configuration has it, is an error.

use crate::config::address::is_abstract;
use crate::config::diagnostic::Diagnostic;
use crate::config::disk::real_path;
use crate::config::model::{Bind, BindAddress, RuntimeSocket};
use crate::config::scope::Validator;
use crate::config::source::Place;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// A listening address of the configuration, for the comparison with all others.
pub(super) struct Bound {
    what: String,
    place: Place,
    address: BindAddress,
    v6only: bool,
    interface: Option<Arc<str>>,
    namespace: Option<Arc<str>>,
    /// Whether a bind says that others may have a part of its clients; `None`: it is for commands.
    overlap: Option<bool>,
}

impl Bound {
    /// Of a frontend or of the statistics.
    pub(super) fn of_bind(what: &str, place: &Place, bind: &Bind) -> Self {
        Self {
            what: what.to_owned(),
            place: place.clone(),
            address: bind.address.clone(),
            v6only: bind.v6only == Some(true),
            interface: bind.interface.clone(),
            namespace: bind.namespace.clone(),
            overlap: Some(bind.overlap),
        }
    }

    /// For commands.
    pub(super) fn of_socket(place: Place, socket: &RuntimeSocket) -> Self {
        Self {
            what: "[runtime-api]".to_owned(),
            place,
            address: socket.address.clone(),
            v6only: false,
            interface: None,
            namespace: None,
            overlap: None,
        }
    }
}

/// Reports addresses that cannot be listened on at once, once for each two entries. `disk`: whether two paths may be found
/// out to lead to one file.
pub(super) fn collisions(validator: &mut Validator<'_>, bound: &[Bound], disk: bool) {
    let mut ports: HashMap<(u16, Option<&str>), SamePort<'_>> = HashMap::new();
    let mut paths: HashMap<PathBuf, &Bound> = HashMap::new();
    let mut descriptors: HashMap<i32, &Bound> = HashMap::new();
    let mut told = HashSet::new();
    for later in bound {
        let earlier = match &later.address {
            BindAddress::Unix(path) if disk && !is_abstract(path) => {
                paths.insert(real_path(path), later)
            }
            BindAddress::Unix(path) => paths.insert(path.clone(), later),
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
    let hint = if is_divided(earlier, later) && wildcard(earlier) != wildcard(later) {
        let text = "a wildcard address takes the port on every address of this machine; with `overlap = true` in one of \
                    the binds each client goes to the one that has its address alone";
        Some(text.to_owned())
    } else if wildcard(earlier) != wildcard(later) {
        Some("a wildcard address takes the port on every address of this machine".to_owned())
    } else if let (BindAddress::Unix(path), true) =
        (&earlier.address, earlier.address != later.address)
    {
        Some(format!("`{}` leads to the same file", path.display()))
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

/// Whether both cannot listen at once; the ports are equal.
fn collide(one: &Bound, other: &Bound) -> bool {
    let overlaps = [one, other].iter().any(|it| it.overlap == Some(true));
    meet(one, other) && !(overlaps && is_divided(one, other))
}

/// Whether the kernel decides by the address or the device of a client which of two binds gets it, when both listen.
fn is_divided(one: &Bound, other: &Bound) -> bool {
    let (BindAddress::Tcp(a), BindAddress::Tcp(b)) = (&one.address, &other.address) else {
        return false;
    };
    let are_binds = one.overlap.is_some() && other.overlap.is_some();
    let differ = a.ip().to_canonical() != b.ip().to_canonical() || one.interface != other.interface;
    are_binds && differ
}

/// Whether Linux refuses to listen on both (without `SO_REUSEPORT`); the ports are equal.
fn meet(one: &Bound, other: &Bound) -> bool {
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
