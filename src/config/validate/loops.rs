//! Servers that are this process itself: a connection to one returns to the frontend that it came from, again
//! and again until `maxconn` is reached.
//!
//! Pure. Finds what the file alone shows: addresses that are written, and loopback addresses with a wildcard
//! bind. It is a warning, because the file may be for another machine.

use super::links::StandIns;
use super::{Proxies, backend, frontend};
use crate::config::diagnostic::Diagnostic;
use crate::config::model::{BindAddress, Server, ServerAddress, ServerPort};
use crate::config::scope::Validator;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// Most ports of a frontend at which a server without an own port is looked for.
const PORTS_MAX: usize = 16;

/// The listening addresses of all frontends. The numbers are positions in the list of frontends.
#[derive(Default)]
struct Listeners<'a> {
    tcp: HashMap<(IpAddr, u16), usize>,
    /// Wildcard binds, of either family.
    wildcard: HashMap<u16, usize>,
    unix: HashMap<&'a Path, usize>,
}

impl<'a> Listeners<'a> {
    fn new(frontends: &'a [frontend::Draft]) -> Self {
        let mut listeners = Self::default();
        for (at, draft) in frontends.iter().enumerate() {
            if draft.frontend.disabled {
                continue;
            }
            for bind in &draft.frontend.binds {
                match &bind.address {
                    BindAddress::Unix(path) => _ = listeners.unix.insert(path, at),
                    BindAddress::Tcp(address) if address.ip().is_unspecified() => {
                        listeners.wildcard.insert(address.port(), at);
                    }
                    BindAddress::Tcp(address) => {
                        let key = (address.ip().to_canonical(), address.port());
                        listeners.tcp.insert(key, at);
                    }
                    // Where it listens is known once it is passed.
                    BindAddress::Descriptor(_) => {}
                }
            }
        }
        listeners
    }

    /// The frontend that `server` is, for clients of `frontend`.
    fn find(&self, server: &Server, frontend: &frontend::Draft) -> Option<usize> {
        let (ip, port) = match &server.address {
            ServerAddress::Unix(path) => return self.unix.get(path.as_path()).copied(),
            ServerAddress::Ip(ip, port) => (ip.to_canonical(), *port),
            ServerAddress::Name(name, port) if &**name == "localhost" => {
                (IpAddr::V4(Ipv4Addr::LOCALHOST), *port)
            }
            ServerAddress::Name(..) => return None,
        };
        let offset = match port {
            ServerPort::Fixed(port) => return self.at(ip, port),
            ServerPort::FromClient(offset) => offset,
        };
        let binds = frontend.frontend.binds.iter().take(PORTS_MAX);
        binds
            .filter_map(|bind| match &bind.address {
                BindAddress::Tcp(address) => Some(i32::from(address.port()) + offset),
                BindAddress::Unix(_) | BindAddress::Descriptor(_) => None,
            })
            .find_map(|port| self.at(ip, u16::try_from(port).ok()?))
    }

    fn at(&self, ip: IpAddr, port: u16) -> Option<usize> {
        if port == 0 {
            return None;
        }
        let exact = self.tcp.get(&(ip, port));
        let wildcard = || self.wildcard.get(&port).filter(|_| ip.is_loopback());
        exact.or_else(wildcard).copied()
    }
}

/// A server through which one frontend connects to another.
struct Edge<'a> {
    server: &'a Server,
    backend: usize,
    to: usize,
}

/// Warns about each frontend that its servers lead back to, at the first such server.
pub(super) fn warn(
    validator: &mut Validator<'_>,
    proxies: &Proxies<'_>,
    frontends: &[frontend::Draft],
    (backends, stand_ins): (&[backend::Draft], &StandIns),
) {
    let listeners = Listeners::new(frontends);
    let edges: Vec<Vec<Edge<'_>>> = frontends
        .iter()
        .map(|draft| {
            let reached = stand_ins.reached(draft.frontend.default_backend.0);
            let servers = reached.filter_map(|target| {
                let servers = backends.get(target)?.backend.servers.iter();
                Some(servers.map(move |server| (target, server)))
            });
            let mut seen = HashSet::new();
            let edge = |(backend, server)| {
                let to = listeners.find(server, draft)?;
                seen.insert(to).then_some(Edge {
                    server,
                    backend,
                    to,
                })
            };
            servers.flatten().filter_map(edge).collect()
        })
        .collect();
    for (from, back) in loops(&edges) {
        let edge = &edges[from][back];
        let half = &proxies.backends[edge.backend];
        let server = &edge.server.name;
        let frontend = proxies.frontends[edge.to].what();
        let message = if from == edge.to {
            format!("server `{server}` of {} is {frontend} itself", half.what())
        } else {
            format!(
                "server `{server}` of {} leads back to {frontend}",
                half.what()
            )
        };
        let diagnostic = Diagnostic::warning("loop", message)
            .at(half.server_place(server))
            .label("its connections come back")
            .hint("one client would take all of `maxconn`: write the address of another machine");
        validator.report.push(diagnostic);
    }
}

/// The edges that close a loop: a frontend, and the index of its edge. Depth first, without recursion; each
/// frontend is entered once.
fn loops(edges: &[Vec<Edge<'_>>]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut entered = vec![false; edges.len()];
    let mut on_path = vec![false; edges.len()];
    for root in 0..edges.len() {
        if std::mem::replace(&mut entered[root], true) {
            continue;
        }
        on_path[root] = true;
        // A frontend and its next edge.
        let mut path = vec![(root, 0)];
        while let Some((at, next)) = path.last_mut() {
            let Some(edge) = edges[*at].get(*next) else {
                on_path[*at] = false;
                path.pop();
                continue;
            };
            if on_path[edge.to] {
                found.push((*at, *next));
            }
            *next += 1;
            if !std::mem::replace(&mut entered[edge.to], true) {
                on_path[edge.to] = true;
                path.push((edge.to, 0));
            }
        }
    }
    found
}
