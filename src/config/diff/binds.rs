//! Decides which listening addresses stay over a reload and keep their sockets.
//!
//! Pure. The report of a reload and the table of listening sockets both use it, so that the report is true.
//! Invariant: an old bind is matched at most once.

use crate::config::model::{Bind, BindAddress, Config};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

/// Who accepts connections of a bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The statistics: the admin thread, with one socket.
    Stats,
    /// A frontend: the workers, with one socket each.
    Traffic,
}

/// A bind of the statistics, or of a frontend that is not disabled.
#[derive(Debug, Clone, PartialEq)]
pub struct BindOf {
    /// Who accepts.
    pub side: Side,
    /// Name of the frontend, or of the stats proxy.
    pub proxy: Arc<str>,
    /// The bind.
    pub bind: Bind,
}

impl BindOf {
    /// What must be equal for a socket to stay with its proxy. There is only one stats proxy, so its name does
    /// not matter.
    fn key(&self) -> (Option<&str>, Where<'_>) {
        let frontend = (self.side == Side::Traffic).then_some(&*self.proxy);
        (frontend, self.place())
    }

    fn place(&self) -> Where<'_> {
        (&self.bind.address, self.bind.namespace.as_deref())
    }
}

/// An address, and the network namespace that it is in.
type Where<'a> = (&'a BindAddress, Option<&'a str>);

/// What a reload does with a bind of the new configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindAction {
    /// The socket of this old bind stays, in the same frontend.
    Keeps(usize),
    /// The socket of this old bind stays, in another frontend than before.
    Moves(usize),
    /// A new socket is opened. `beside`: an old bind of this process has the port, on this or an overlapping
    /// address, until the new socket is in place.
    Opens {
        /// Whether it joins a port that this process has already.
        beside: bool,
    },
}

/// The binds of the statistics, then those of all frontends that are not disabled, in file order.
pub fn binds(config: &Config) -> Vec<BindOf> {
    let of = |side: Side, proxy: &Arc<str>, bind: &Bind| BindOf {
        side,
        proxy: Arc::clone(proxy),
        bind: bind.clone(),
    };
    let stats = config.stats.iter().flat_map(|stats| {
        let binds = stats.binds.iter();
        binds.map(|bind| of(Side::Stats, &stats.name, bind))
    });
    let started = config.frontends.iter().filter(|one| !one.disabled);
    let traffic = started.flat_map(|frontend| {
        let binds = frontend.binds.iter();
        binds.map(|bind| of(Side::Traffic, &frontend.name, bind))
    });
    stats.chain(traffic).collect()
}

/// The action for each of `new`. A bind of `old` that no action keeps or moves is closed.
pub fn match_binds(old: &[BindOf], new: &[BindOf]) -> Vec<BindAction> {
    let mut own: HashMap<_, VecDeque<usize>> = HashMap::new();
    for (index, one) in old.iter().enumerate() {
        own.entry(one.key()).or_default().push_back(index);
    }
    let mut taken = vec![false; old.len()];
    let mut actions: Vec<Option<BindAction>> = new
        .iter()
        .map(|one| {
            let waiting = own.get_mut(&one.key())?;
            let index = *waiting.front()?;
            if !Bind::is_same_socket(&old[index].bind, &one.bind) {
                return None;
            }
            waiting.pop_front();
            taken[index] = true;
            Some(BindAction::Keeps(index))
        })
        .collect();
    // No socket moves between traffic and statistics: each worker has a socket of an address, the statistics
    // have only one.
    let mut left: HashMap<Where<'_>, usize> = HashMap::new();
    for (index, one) in old.iter().enumerate() {
        if one.side == Side::Traffic && !taken[index] && !is_any_port(&one.bind.address) {
            left.insert(one.place(), index);
        }
    }
    let ports = Ports::of(old);
    for (action, one) in actions.iter_mut().zip(new) {
        if action.is_some() {
            continue;
        }
        let moved = left.get(&one.place()).copied();
        let moved = moved
            .filter(|_| one.side == Side::Traffic)
            .filter(|index| Bind::is_same_socket(&old[*index].bind, &one.bind));
        *action = Some(match moved {
            Some(index) => {
                left.remove(&one.place());
                BindAction::Moves(index)
            }
            None => BindAction::Opens {
                beside: ports.has(one),
            },
        });
    }
    actions.into_iter().flatten().collect()
}

fn is_any_port(address: &BindAddress) -> bool {
    matches!(address, BindAddress::Tcp(address) if address.port() == 0)
}

/// The TCP addresses of old binds, by port.
struct Ports<'a>(HashMap<(u16, Option<&'a str>), Vec<IpAddr>>);

impl<'a> Ports<'a> {
    fn of(old: &'a [BindOf]) -> Self {
        let mut ports: HashMap<_, Vec<IpAddr>> = HashMap::new();
        for one in old {
            if let BindAddress::Tcp(address) = &one.bind.address
                && address.port() != 0
            {
                let port = (address.port(), one.bind.namespace.as_deref());
                ports.entry(port).or_default().push(address.ip());
            }
        }
        Self(ports)
    }

    /// Whether one of them overlaps the address of `one`, so that the kernel would refuse it.
    fn has(&self, one: &'a BindOf) -> bool {
        let BindAddress::Tcp(address) = &one.bind.address else {
            return false;
        };
        let port = (address.port(), one.bind.namespace.as_deref());
        let (ip, all) = (address.ip(), self.0.get(&port));
        let overlaps = |old: &IpAddr| *old == ip || old.is_unspecified() || ip.is_unspecified();
        all.is_some_and(|all| all.iter().any(overlaps))
    }
}
