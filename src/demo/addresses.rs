//! Addresses of the demo's services. Each has one port, on 127.0.0.1 for the frontend and on the loopback
//! addresses of the nodes.
//!
//! Invariant: the nodes' ports stay bound after they were chosen, so that a second demo chooses others.

use std::fmt::Write;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener;
use std::time::Duration;

/// Ports that are tried for a service, its default first.
const PORTS_MAX: u16 = 100;
/// Default port of the statistics.
const STATS_PORT: u16 = 8080;

/// Names and addresses of the nodes; the last is the one that goes away.
pub const NODES: [(&str, Ipv4Addr); 3] = [
    ("node01", Ipv4Addr::new(127, 0, 0, 11)),
    ("node02", Ipv4Addr::new(127, 0, 0, 12)),
    ("node03", Ipv4Addr::new(127, 0, 0, 13)),
];

/// The protocol of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// HTTP: a page that names its node.
    Page,
    /// PostgreSQL's protocol, as much as `psql` needs to query the node's name.
    Postgres,
    /// Gives back what it gets.
    Echo,
}

/// One of the four services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// First part of the names of its frontend and backend.
    pub name: &'static str,
    /// Its protocol.
    pub kind: Kind,
    /// Its port, of the frontend and on every node.
    pub port: u16,
}

impl Service {
    /// The address that clients connect to.
    pub fn frontend(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

/// The services with their default ports, which are 10,000 above the usual ones.
const SERVICES: [Service; 4] = [
    Service {
        name: "app",
        kind: Kind::Page,
        port: 10080,
    },
    Service {
        name: "postgres",
        kind: Kind::Postgres,
        port: 15432,
    },
    Service {
        name: "admin-console",
        kind: Kind::Page,
        port: 18800,
    },
    Service {
        name: "kube-api",
        kind: Kind::Echo,
        port: 16443,
    },
];

/// Listeners of the nodes, in the order of [`NODES`]; of each node in the order of the services.
pub(super) type Listeners = Vec<Vec<TcpListener>>;

/// All addresses of a demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The services.
    pub services: [Service; 4],
    /// The address of the statistics.
    pub stats: SocketAddr,
}

impl Addresses {
    /// Chooses free ports and binds those of the nodes. The claim keeps the statistics' port from another demo
    /// that starts at the same time; the nodes' listeners do that for the other ports.
    pub(super) fn take() -> io::Result<(Self, Listeners, Claim)> {
        let mut services = SERVICES;
        let mut listeners: Listeners = NODES.iter().map(|_| Vec::new()).collect();
        for service in &mut services {
            let (port, bound) = first_free(service.port, on_all_nodes)?;
            service.port = port;
            for (node, listener) in listeners.iter_mut().zip(bound) {
                node.push(listener);
            }
        }
        let (port, claim) = first_free(STATS_PORT, |port| {
            let claim = claim(port)?;
            bind(Ipv4Addr::LOCALHOST, port)?;
            Ok(claim)
        })?;
        let stats = (Ipv4Addr::LOCALHOST, port).into();
        Ok((Self { services, stats }, listeners, claim))
    }

    /// The configuration of a load balancer for these addresses.
    pub(super) fn config(&self, check_interval: Duration) -> String {
        let mut text = format!(
            "[global]\nhard-stop-after = \"2s\"\n[stats]\nbind = \"{}\"\n[node-group.demo]\n",
            self.stats
        );
        // Writing to a String cannot fail.
        for (name, address) in NODES {
            let _ = writeln!(text, "{name} = \"{address}\"");
        }
        let interval = check_interval.as_millis();
        let _ = writeln!(
            text,
            "[defaults]\ncheck = {{ type = \"tcp\", interval = \"{interval}ms\" }}"
        );
        for service in &self.services {
            let (name, frontend) = (service.name, service.frontend());
            let _ = writeln!(
                text,
                "[[frontend]]\nname = \"{name}-frontend\"\nbind = \"{frontend}\"\n\
                 default-backend = \"{name}-backend\"\n\
                 [[backend]]\nname = \"{name}-backend\"\nnodes = \"demo\"\nport = {}",
                service.port
            );
        }
        text
    }
}

/// Binds the first port from `usual` on that `bind` can bind.
fn first_free<T>(usual: u16, mut bind: impl FnMut(u16) -> io::Result<T>) -> io::Result<(u16, T)> {
    let mut last = None;
    for port in usual..usual.saturating_add(PORTS_MAX) {
        match bind(port) {
            Ok(bound) => return Ok((port, bound)),
            Err(error) => last = Some(error),
        }
    }
    let why = last.map_or_else(String::new, |error| format!(": {error}"));
    Err(io::Error::other(format!(
        "no free port from {usual} on{why}"
    )))
}

/// Binds `port` on every node, and checks that it is free for the frontend.
fn on_all_nodes(port: u16) -> io::Result<Vec<TcpListener>> {
    let listeners = NODES
        .iter()
        .map(|(_, address)| bind(*address, port))
        .collect::<io::Result<_>>()?;
    bind(Ipv4Addr::LOCALHOST, port)?;
    Ok(listeners)
}

/// A claim to a port among demos: a unix socket with an abstract name, which ends with the process.
pub(super) type Claim = UnixListener;

fn claim(port: u16) -> io::Result<Claim> {
    let name = std::os::unix::net::SocketAddr::from_abstract_name(format!("rlb-demo-{port}"))?;
    UnixListener::bind_addr(&name)
}

/// A non-blocking listener.
pub(super) fn bind(address: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((address, port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Limits, Loader};

    #[test]
    fn two_demos_share_no_address() {
        let (one, _held, _claim) = Addresses::take().unwrap();
        let (other, _held_too, _claim_too) = Addresses::take().unwrap();
        for (left, right) in one.services.iter().zip(&other.services) {
            assert_ne!(left.port, right.port);
        }
        assert_ne!(one.stats, other.stats);
    }

    #[test]
    fn the_configuration_is_valid_without_a_warning() {
        let (addresses, _held, _claim) = Addresses::take().unwrap();
        let loader = Loader {
            limits: Limits::unknown(),
            environment: &|_| None,
            disk: false,
        };
        let (config, warnings) = loader
            .load_text("demo", &addresses.config(Duration::from_secs(1)))
            .unwrap();
        assert_eq!(warnings, []);
        assert_eq!((config.frontends.len(), config.backends.len()), (4, 4));
        assert!(config.backends.iter().all(|one| one.servers.len() == 3));
    }
}
