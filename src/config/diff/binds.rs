//! Which listening addresses stay across a reload, and so keep their sockets.
//!
//! Pure. Used by the report of a reload and by the table of listening sockets, so that what is told
//! and what is done cannot differ. Invariant: an old bind is matched at most once.

use crate::config::model::{Bind, BindAddress, Config};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// A bind of a frontend that is started.
#[derive(Debug, Clone, PartialEq)]
pub struct BindOf {
    /// Name of the frontend.
    pub frontend: Arc<str>,
    /// The bind.
    pub bind: Bind,
}

/// What becomes of a bind of the new configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindFate {
    /// The socket of this old bind goes on, in the same frontend.
    Keeps(usize),
    /// The socket of this old bind goes on, in another frontend than before.
    Moves(usize),
    /// Opened. `beside`: an old bind of this process has the port, on this or an overlapping
    /// address, until the new one is in place.
    Opens {
        /// Whether it joins a port that this process has already.
        beside: bool,
    },
}

/// The binds of all frontends that are started, in file order.
pub fn binds(config: &Config) -> Vec<BindOf> {
    let started = config.frontends.iter().filter(|one| !one.disabled);
    started
        .flat_map(|frontend| {
            frontend.binds.iter().map(|bind| BindOf {
                frontend: Arc::clone(&frontend.name),
                bind: bind.clone(),
            })
        })
        .collect()
}

/// The fate of each of `new`. Those of `old` that no fate names are closed.
pub fn match_binds(old: &[BindOf], new: &[BindOf]) -> Vec<BindFate> {
    let mut own: HashMap<(&str, &BindAddress), VecDeque<usize>> = HashMap::new();
    for (index, one) in old.iter().enumerate() {
        let key = (&*one.frontend, &one.bind.address);
        own.entry(key).or_default().push_back(index);
    }
    let mut taken = vec![false; old.len()];
    let mut fates: Vec<Option<BindFate>> = new
        .iter()
        .map(|one| {
            let waiting = own.get_mut(&(&*one.frontend, &one.bind.address))?;
            let index = *waiting.front()?;
            if !same_socket(&old[index].bind, &one.bind) {
                return None;
            }
            waiting.pop_front();
            taken[index] = true;
            Some(BindFate::Keeps(index))
        })
        .collect();
    let mut left: HashMap<&BindAddress, usize> = HashMap::new();
    for (index, one) in old.iter().enumerate() {
        if !taken[index] && !is_any_port(&one.bind.address) {
            left.insert(&one.bind.address, index);
        }
    }
    let ports = Ports::of(old);
    for (fate, one) in fates.iter_mut().zip(new) {
        if fate.is_some() {
            continue;
        }
        let moved = left
            .get(&one.bind.address)
            .copied()
            .filter(|index| same_socket(&old[*index].bind, &one.bind));
        *fate = Some(match moved {
            Some(index) => {
                left.remove(&one.bind.address);
                BindFate::Moves(index)
            }
            None => BindFate::Opens {
                beside: ports.has(&one.bind.address),
            },
        });
    }
    fates.into_iter().flatten().collect()
}

/// Whether a socket that was opened for `old` does for `new`: everything else about it can be
/// changed while it listens.
fn same_socket(old: &Bind, new: &Bind) -> bool {
    (old.v6only, &old.interface, old.freebind) == (new.v6only, &new.interface, new.freebind)
}

fn is_any_port(address: &BindAddress) -> bool {
    matches!(address, BindAddress::Tcp(address) if address.port() == 0)
}

/// The TCP ports that old binds have.
struct Ports(Vec<u16>);

impl Ports {
    fn of(old: &[BindOf]) -> Self {
        let mut ports: Vec<u16> = old
            .iter()
            .filter_map(|one| match &one.bind.address {
                BindAddress::Tcp(address) if address.port() != 0 => Some(address.port()),
                _ => None,
            })
            .collect();
        ports.sort_unstable();
        Self(ports)
    }

    fn has(&self, address: &BindAddress) -> bool {
        match address {
            BindAddress::Tcp(address) => self.0.binary_search(&address.port()).is_ok(),
            BindAddress::Unix(_) => false,
        }
    }
}
