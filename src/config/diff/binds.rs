//! Decides which listening addresses stay over a reload and keep their sockets.
//!
//! Pure. The report of a reload and the table of listening sockets both use it, so that the report is true.
//! Invariant: an old bind is matched at most once.

use super::sockets::Sockets;
use crate::config::model::{Bind, BindAddress, Config};
use std::collections::HashMap;
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
    /// With whom its socket stays. There is only one stats proxy, so its name does not matter.
    fn owner(&self) -> Option<&str> {
        (self.side == Side::Traffic).then_some(&*self.proxy)
    }
}

/// What a reload does with a bind of the new configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindAction {
    /// The socket of this old bind stays, in the same frontend.
    Keeps(usize),
    /// The socket of this old bind stays, in another frontend than before.
    Moves(usize),
    /// A new socket is opened. `beside`: an old bind of this process has the port, on this or an overlapping
    /// address, until the new socket is in place, or another new one has it, which says `overlap`.
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
    let numbered = || old.iter().enumerate();
    let all = numbered().map(|(index, one)| (index, one.owner(), &one.bind));
    let mut own = Sockets::of(all);
    let kept: Vec<Option<usize>> = new
        .iter()
        .map(|one| own.take(one.owner(), &one.bind))
        .collect();
    let mut taken = vec![false; old.len()];
    for index in kept.iter().flatten() {
        taken[*index] = true;
    }
    // No socket moves between traffic and statistics: each worker has a socket of an address, the statistics
    // have only one.
    let can_move = |one: &BindOf| one.side == Side::Traffic && !is_any_port(&one.bind.address);
    let left = numbered().filter(|(index, one)| !taken[*index] && can_move(one));
    let mut left = Sockets::of(left.map(|(index, one)| (index, (), &one.bind)));
    let ports = Ports::of(old);
    // Those before it in the new configuration. Where no bind says so, none of them overlaps another.
    let mut before = Ports::default();
    let overlap = new.iter().any(|one| one.bind.overlap);
    let all = kept.into_iter().zip(new);
    all.map(|(kept, one)| {
        let beside = ports.has(one) || before.has(one);
        if overlap {
            before.add(one);
        }
        if let Some(index) = kept {
            return BindAction::Keeps(index);
        }
        let traffic = one.side == Side::Traffic;
        let moved = traffic.then(|| left.take((), &one.bind));
        match moved.flatten() {
            Some(index) => BindAction::Moves(index),
            None => BindAction::Opens { beside },
        }
    })
    .collect()
}

fn is_any_port(address: &BindAddress) -> bool {
    matches!(address, BindAddress::Tcp(address) if address.port() == 0)
}

/// The TCP addresses of binds, by port.
#[derive(Default)]
struct Ports<'a>(HashMap<(u16, Option<&'a str>), Vec<IpAddr>>);

impl<'a> Ports<'a> {
    fn of(old: &'a [BindOf]) -> Self {
        let mut ports = Self::default();
        for one in old {
            ports.add(one);
        }
        ports
    }

    fn add(&mut self, one: &'a BindOf) {
        if let BindAddress::Tcp(address) = &one.bind.address
            && address.port() != 0
        {
            let port = (address.port(), one.bind.namespace.as_deref());
            self.0.entry(port).or_default().push(address.ip());
        }
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
