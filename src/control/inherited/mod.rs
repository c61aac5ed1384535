//! Listening sockets that outlive the process: taken over from the service manager at the start,
//! and left with it for the next start.
//!
//! Who passed them (systemd's descriptor store, a socket unit) does not matter: a socket belongs to
//! a bind when it listens on its address in the same way. Runs on the control thread, before and
//! right after READY=1. Invariants: no socket is closed that the configuration still wants, because
//! closing one throws away the connections that wait in it; and nobody is left listening, in the
//! store or here, on an address that the configuration no longer names.

use crate::config::model::{Bind, BindAddress, Config};
use crate::sys::fd_store::{self, FdStore, lasts};
use crate::sys::listen_fds::{self, Received};
use crate::sys::socket::{self, Address, Options};
use socket2::{Socket, Type};
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// How long the service manager may take to close what it shall forget.
const FORGET_MAX: Duration = Duration::from_secs(1);

/// What was passed and is not yet used, and what is to be stored.
#[derive(Debug)]
pub struct Inherited {
    sockets: Vec<Socket>,
    /// Duplicates of the sockets that we have opened, by their names in the store.
    opened: Vec<(String, OwnedFd)>,
    store: FdStore,
}

impl Inherited {
    /// Where the sockets are left.
    pub(super) fn manager(&self) -> FdStore {
        self.store.clone()
    }

    /// Takes over what was passed, as far as `config` listens there; the rest is closed, here and
    /// in the store, so that its addresses are free.
    pub fn receive(config: &Config) -> Self {
        let received = listen_fds::receive().unwrap_or_else(|error| {
            tracing::warn!(%error, "LISTEN_FDS names a descriptor that was not passed");
            Vec::new()
        });
        Self::sort(received, config, FdStore::of_this_process())
    }

    fn sort(received: Vec<Received>, config: &Config, store: FdStore) -> Self {
        let (wanted, rest): (Vec<_>, Vec<_>) = received
            .into_iter()
            .partition(|one| binds(config).any(|bind| belongs(&one.socket, bind)));
        let names: BTreeSet<String> = rest.into_iter().map(|one| one.name).collect();
        for name in &names {
            tracing::info!(name, "closing an inherited socket: not configured any more");
            told(store.forget(name));
        }
        if !names.is_empty() {
            told(store.barrier(FORGET_MAX));
        }
        Self {
            sockets: wanted.into_iter().map(|one| one.socket).collect(),
            opened: Vec::new(),
            store,
        }
    }

    /// The sockets of a bind: at least `shards`, more when more were passed. What is missing is
    /// opened.
    pub(super) fn listen(
        &mut self,
        bind: &Bind,
        options: &Options,
        shards: usize,
    ) -> io::Result<Vec<Socket>> {
        let mut sockets: Vec<Socket> = self
            .sockets
            .extract_if(.., |socket| belongs(socket, bind))
            .collect();
        for socket in &sockets {
            socket::adjust(socket, options)?;
        }
        let inherited = sockets.len();
        if sockets.is_empty() {
            sockets = socket::listen(options, shards)?;
        }
        while sockets.len() < shards {
            // One that another user has opened (a socket unit) cannot be joined, but shared.
            let next = socket::join(&sockets[0], options).or_else(|_| sockets[0].try_clone())?;
            sockets.push(next);
        }
        self.remember(&options.address, &sockets[inherited..])?;
        Ok(sockets)
    }

    /// Duplicates what will be stored; the manager knows one that it has passed itself.
    fn remember(&mut self, address: &Address, opened: &[Socket]) -> io::Result<()> {
        if !lasts(address) || !self.store.exists() {
            return Ok(());
        }
        let name = fd_store::name(address);
        for socket in opened {
            let copy = OwnedFd::from(socket.try_clone()?);
            self.opened.push((name.clone(), copy));
        }
        Ok(())
    }

    /// Leaves the sockets that we have opened with the service manager. Called once they serve.
    pub fn store(self) {
        for (name, fd) in &self.opened {
            told(self.store.keep(name, &[fd.as_fd()]));
        }
    }
}

/// A store that cannot be had costs refused connections at the next crash, nothing now.
pub(super) fn told(result: io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(%error, "cannot use the service manager's descriptor store");
    }
}

/// Everywhere that `config` listens.
fn binds(config: &Config) -> impl Iterator<Item = &Bind> {
    let stats = config.stats.iter().flat_map(|stats| &stats.binds);
    let frontends = config.frontends.iter().filter(|one| !one.disabled);
    stats.chain(frontends.flat_map(|frontend| &frontend.binds))
}

/// Whether `socket` listens where and as `bind` says. What can be changed of a listening socket
/// may differ.
fn belongs(socket: &Socket, bind: &Bind) -> bool {
    let listens = socket.is_listener().unwrap_or(false)
        && socket.r#type().is_ok_and(|kind| kind == Type::STREAM);
    let Ok(address) = socket.local_addr() else {
        return false;
    };
    listens
        && match &bind.address {
            BindAddress::Tcp(wanted) => {
                address.as_socket() == Some(*wanted)
                    && (!is_v6_wildcard(wanted) || same_v6(socket, bind))
                    && socket.device().is_ok_and(|device| {
                        device.as_deref() == bind.interface.as_ref().map(|it| it.as_bytes())
                    })
            }
            BindAddress::Unix(path) => {
                let same = socket::unix_address(path).is_ok_and(|wanted| {
                    wanted.as_pathname() == address.as_pathname()
                        && wanted.as_abstract_namespace() == address.as_abstract_namespace()
                });
                // A file that was removed leads nobody to the socket any more.
                same && (socket::is_abstract(path) || path.exists())
            }
        }
}

/// Elsewhere IPv4 has no say, and the kernel sets the option by itself.
fn is_v6_wildcard(address: &SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

fn same_v6(socket: &Socket, bind: &Bind) -> bool {
    bind.v6only
        .is_none_or(|wanted| socket.only_v6().is_ok_and(|only| only == wanted))
}

#[cfg(test)]
mod tests;
