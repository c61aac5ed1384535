//! Listening sockets that outlive the process: taken over from the service manager or from the
//! process before at the start, and left with the manager for the next start.
//!
//! Who passed them (systemd's descriptor store, a socket unit, the process before) does not matter: a
//! socket belongs to a bind when it listens on its address with the same options. Runs on the control
//! thread, before and right after READY=1. Invariants: no socket is closed that the configuration still
//! wants, because closing one throws away the connections that wait in it; and no socket is left
//! listening, in the store or here, on an address that the configuration no longer names.

use super::handover::Predecessor;
use crate::config::model::{Bind, BindAddress, Config};
use crate::state::RuntimeState;
use crate::sys::listen_fds::{self, PassedSocket};
use crate::sys::namespace;
use crate::sys::replaced::ReplacedProcesses;
use crate::sys::reset;
use crate::sys::service_manager::{self, ServiceManager, lasts};
use crate::sys::socket::{self, Address, Adjust, Options};
use socket2::{Protocol, SockAddr, Socket, Type};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// How long the service manager may take to close what it is to forget.
const FORGET_MAX: Duration = Duration::from_secs(1);

/// What was passed and is not yet used, and what is to be stored.
#[derive(Debug)]
pub struct Inherited {
    sockets: HashMap<ListenAddress, Vec<Socket>>,
    /// Duplicates of the sockets that we have opened, by their names in the store.
    opened: Vec<(String, OwnedFd)>,
    /// Names that the store is to forget, and why. The manager ignores a process that is not in charge yet.
    unwanted: BTreeMap<String, Unwanted>,
    /// Another process accepts from them until this one is in charge.
    shared: bool,
    /// TCP ports that the process before listens on.
    ports: HashSet<u16>,
    /// Positions of the sockets that the process before has handed over and that nothing here listens on; `None`: it
    /// does not ask.
    unused: Option<Vec<usize>>,
    /// The processes to take over from.
    old: Option<Rc<ReplacedProcesses>>,
    manager: ServiceManager,
}

/// Why a socket that was passed is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unwanted {
    /// Nothing listens there.
    NotConfigured,
    /// A bind listens there, but with other options.
    OtherOptions,
    /// The interface that it was bound to does not exist any more; one of the same name does.
    LostInterface,
}

impl Unwanted {
    fn text(self) -> &'static str {
        match self {
            Self::NotConfigured => "it is not configured any more",
            Self::OtherOptions => "the configuration listens there with other options",
            Self::LostInterface => "its interface was deleted and made again; it is opened again",
        }
    }
}

impl Inherited {
    /// Where the sockets are left.
    pub(super) fn manager(&self) -> ServiceManager {
        self.manager.clone()
    }

    /// Takes over what was passed, as far as `config` listens there; the rest is closed, here and
    /// in the store, so that its addresses are free. And duplicates what the `old` processes listen
    /// on, as far as `config` does; they go on listening until this one is in charge.
    pub fn receive(
        config: &Config,
        manager: ServiceManager,
        old: Option<Rc<ReplacedProcesses>>,
    ) -> Self {
        let passed = listen_fds::receive();
        for (fd, error) in &passed.refused {
            tracing::warn!(fd, %error, "LISTEN_FDS names a descriptor that cannot be taken over");
        }
        let mut sockets = passed.sockets;
        // A number that the configuration has is meant, whatever the name is.
        let api = config.runtime_api.iter().flat_map(|api| &api.sockets);
        let api = api.map(|socket| &socket.address);
        let all = binds(config).map(|bind| &bind.address).chain(api);
        let numbers: HashSet<i32> = all.filter_map(number).collect();
        if !numbers.is_empty()
            || sockets
                .iter()
                .any(|it| !service_manager::is_stored(&it.name))
        {
            listen_fds::note_others();
        }
        for PassedSocket { name, socket } in &mut sockets {
            if numbers.contains(&socket.as_raw_fd()) {
                *name = service_manager::name(&Address::Descriptor(socket.as_raw_fd()));
            }
        }
        if let Some(old) = &old {
            sockets.extend(duplicates(old));
        }
        let shared = sockets.iter().any(|socket| socket.name.is_empty());
        let mut inherited = Self::sort(sockets, config, manager);
        inherited.shared = shared;
        inherited.old = old;
        inherited.forget();
        if let Err(error) = inherited.manager.barrier(FORGET_MAX) {
            tracing::warn!(%error, "the service manager does not read what it is told");
        }
        inherited
    }

    /// Takes over what the process before hands over, and what is in force there. It goes on
    /// listening until this one is in charge.
    ///
    /// # Errors
    /// When that process is gone, or sends something else than expected.
    pub fn take_over(
        predecessor: &Predecessor,
        config: &Config,
        manager: ServiceManager,
    ) -> io::Result<(Self, RuntimeState)> {
        let received = predecessor.receive()?;
        let sockets = received.sockets.len();
        tracing::info!(from = received.from, sockets, "taking over");
        let ports = received.sockets.iter().filter_map(|it| port(&it.socket));
        let ports = if listen_fds::others_have_them() {
            // Whoever has opened them goes on listening there.
            HashSet::new()
        } else {
            ports.collect()
        };
        let mut inherited = Self::sort(received.sockets, config, manager);
        inherited.shared = true;
        inherited.ports = ports;
        inherited.unused = inherited.unused.filter(|_| received.reads_unused);
        Ok((inherited, received.state))
    }

    fn sort(passed: Vec<PassedSocket>, config: &Config, manager: ServiceManager) -> Self {
        let mut wanted: HashMap<ListenAddress, Vec<&Bind>> = HashMap::new();
        for bind in binds(config) {
            if let Some(address) = ListenAddress::of_bind(bind) {
                wanted.entry(address).or_default().push(bind);
            }
        }
        let api = config.runtime_api.iter().flat_map(|api| &api.sockets);
        let api: HashSet<ListenAddress> = api
            .filter_map(|socket| ListenAddress::of_config(&socket.address))
            .collect();
        let mut inherited = Self {
            sockets: HashMap::new(),
            opened: Vec::new(),
            unwanted: BTreeMap::new(),
            shared: false,
            ports: HashSet::new(),
            unused: None,
            old: None,
            manager,
        };
        let mut unused = Vec::new();
        for (index, PassedSocket { name, socket }) in passed.into_iter().enumerate() {
            let numbered = service_manager::descriptor_of(&name).map(ListenAddress::Descriptor);
            let numbered = numbered.filter(|it| wanted.contains_key(it) || api.contains(it));
            let is_duplicate = name.is_empty();
            let address = numbered.or_else(|| ListenAddress::of(&socket, !is_duplicate));
            let binds = address.as_ref().and_then(|address| wanted.get(address));
            let binds = binds.map_or(&[][..], Vec::as_slice);
            let is_api = address.as_ref().is_some_and(|it| api.contains(it));
            match address {
                Some(address)
                    if is_api && fits_api(&socket)
                        || binds.iter().any(|bind| fits(&socket, bind)) =>
                {
                    inherited.sockets.entry(address).or_default().push(socket);
                }
                // A duplicate; the old process has the socket.
                _ if is_duplicate => {}
                _ => {
                    let why = match binds {
                        [] => Unwanted::NotConfigured,
                        _ if socket.device().is_err() => Unwanted::LostInterface,
                        _ => Unwanted::OtherOptions,
                    };
                    inherited.unwanted.insert(name, why);
                    unused.push(index);
                }
            }
        }
        inherited.unused = Some(unused);
        inherited
    }

    /// Has the store forget what is not used.
    fn forget(&mut self) {
        for (name, why) in std::mem::take(&mut self.unwanted) {
            tracing::info!(name, reason = why.text(), "inherited socket closed");
            self.manager.forget(&name);
        }
    }

    /// A socket that was passed and listens at `address`.
    pub(super) fn at(&mut self, address: &BindAddress) -> Option<Socket> {
        let address = ListenAddress::of_config(address)?;
        self.sockets.get_mut(&address)?.pop()
    }

    /// What the process before is to be told of the sockets that it has handed over, if it asks: it accepts what waits
    /// in those that nothing here listens on.
    pub fn unused(&self) -> Option<&[usize]> {
        self.unused.as_deref()
    }

    /// How the options are set when this process is in charge; `None`: no other process accepts from the sockets
    /// until then.
    pub(super) fn adjust_later(&self) -> Option<Adjust> {
        let adjust: Adjust = match self.old {
            // HAProxy sets more of them, and has told nothing.
            Some(_) => reset::adjust,
            None => socket::adjust,
        };
        self.shared.then_some(adjust)
    }

    /// Sets the options of a socket that was passed. Those of one that another process accepts from are set when
    /// this process is in charge ([`super::listeners::Listeners::adjust`]): that process goes on if this one fails.
    pub(super) fn adjust(&self, socket: &Socket, options: &Options) -> io::Result<()> {
        // A bound socket can be passed, too. Whether it can listen is found out before the start is over. One of rlb's
        // own that does not listen is not to: its frontend is disabled.
        let listens = socket.is_listener().unwrap_or(false);
        if self.shared && (listens || self.old.is_none()) {
            return Ok(());
        }
        socket::adjust(socket, options)
    }

    /// Opens sockets where none was passed. Beside one of the process before they do not listen until this process
    /// is in charge.
    pub(super) fn open(&self, options: &Options, shards: usize) -> io::Result<Vec<Socket>> {
        match (&options.address, &self.old) {
            // The process before listens on the port, at another address or with other options.
            (Address::Tcp(address), _) if self.ports.contains(&address.port()) => {
                socket::bind_beside(*address, options, shards)
            }
            (_, Some(old)) => old.listen(options, shards),
            (_, None) => socket::listen(options, shards),
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
        let address = ListenAddress::of_bind(bind);
        let mut sockets: Vec<Socket> = address
            .and_then(|address| self.sockets.get_mut(&address))
            .map(|there| there.extract_if(.., |one| fits(one, bind)).collect())
            .unwrap_or_default();
        for socket in &sockets {
            self.adjust(socket, options)?;
        }
        let inherited = sockets.len();
        if sockets.is_empty() {
            sockets = self.open(options, shards)?;
        }
        while sockets.len() < shards {
            // As long as the process before may stay in charge, no connection may wait in a socket that
            // only this one has: it would be lost if this one ends.
            let next = if self.shared && inherited > 0 {
                sockets[0].try_clone()?
            } else {
                // One that another user has opened (a socket unit) cannot be joined, but shared.
                socket::join(&sockets[0], options).or_else(|_| sockets[0].try_clone())?
            };
            sockets.push(next);
        }
        self.note_opened(&options.address, &sockets[inherited..])?;
        Ok(sockets)
    }

    /// Duplicates what will be stored; the manager knows one that it has passed itself.
    fn note_opened(&mut self, address: &Address, opened: &[Socket]) -> io::Result<()> {
        if !lasts(address) || !self.manager.exists() {
            return Ok(());
        }
        let name = service_manager::name(address);
        for socket in opened {
            let copy = OwnedFd::from(socket.try_clone()?);
            self.opened.push((name.clone(), copy));
        }
        Ok(())
    }

    /// Leaves the sockets that we have opened with the service manager. Called once they serve.
    pub fn store(mut self) {
        self.forget();
        for (name, fd) in self.opened {
            self.manager.keep(&name, vec![fd]);
        }
    }
}

/// Duplicates of what the old processes listen on. They have no name: no manager stores them.
fn duplicates(old: &ReplacedProcesses) -> impl Iterator<Item = PassedSocket> {
    let (sockets, refused) = old.sockets();
    for (pid, error) in refused {
        tracing::warn!(pid, %error, "sockets of the old process not taken over: new ones join them");
    }
    tracing::info!(sockets = sockets.len(), "sockets of the old process found");
    let sockets = sockets.into_iter().filter(reset::can_be_taken_over);
    sockets.map(|socket| PassedSocket {
        name: String::new(),
        socket,
    })
}

/// The TCP port that a socket listens on.
fn port(socket: &Socket) -> Option<u16> {
    let address = socket.local_addr().ok()?.as_socket()?;
    Some(address.port())
}

/// Everywhere that `config` listens.
fn binds(config: &Config) -> impl Iterator<Item = &Bind> {
    let stats = config.stats.iter().flat_map(|stats| &stats.binds);
    let frontends = config.frontends.iter().filter(|one| !one.disabled);
    stats.chain(frontends.flat_map(|frontend| &frontend.binds))
}

fn number(address: &BindAddress) -> Option<i32> {
    match *address {
        BindAddress::Descriptor(number) => Some(number),
        BindAddress::Tcp(_) | BindAddress::Unix(_) => None,
    }
}

/// Where a socket listens, to find it among thousands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum ListenAddress {
    Tcp(SocketAddr),
    Path(PathBuf),
    Abstract(Vec<u8>),
    /// It was passed under this number, wherever it listens.
    Descriptor(i32),
}

impl ListenAddress {
    /// Of a socket; `None` for one that takes no connections. `suspended`: one counts too that does not listen now,
    /// because its frontend is disabled.
    fn of(socket: &Socket, suspended: bool) -> Option<Self> {
        let is_stream = socket.r#type().is_ok_and(|kind| kind == Type::STREAM);
        let listens = socket.is_listener().unwrap_or(false);
        if !is_stream || !(listens || suspended && is_suspended(socket)) {
            return None;
        }
        Self::of_address(&socket.local_addr().ok()?)
    }

    fn of_bind(bind: &Bind) -> Option<Self> {
        Self::of_config(&bind.address)
    }

    fn of_config(address: &BindAddress) -> Option<Self> {
        match address {
            BindAddress::Tcp(address) => Some(Self::Tcp(*address)),
            BindAddress::Unix(path) => Self::at_path(path),
            BindAddress::Descriptor(number) => Some(Self::Descriptor(*number)),
        }
    }

    /// Of a unix socket. A file that was removed leads nobody to the socket any more.
    fn at_path(path: &Path) -> Option<Self> {
        let is_socket = || matches!(socket::file_id(path), Ok(Some(file)) if file.is_socket);
        let there = socket::is_abstract(path) || is_socket();
        let address = socket::unix_address(path).ok().filter(|_| there)?;
        Self::of_address(&address)
    }

    fn of_address(address: &SockAddr) -> Option<Self> {
        let name = || address.as_abstract_namespace().map(<[u8]>::to_vec);
        let path = || address.as_pathname().map(path_in_use);
        address
            .as_socket()
            .map(Self::Tcp)
            .or_else(|| path().map(Self::Path))
            .or_else(|| name().map(Self::Abstract))
    }
}

/// Where a unix socket is found: HAProxy binds one to `PATH.PID.tmp` and renames the file.
fn path_in_use(path: &Path) -> PathBuf {
    let text = path.to_str().unwrap_or_default();
    let renamed = text
        .strip_suffix(".tmp")
        .and_then(|rest| rest.rsplit_once('.'))
        .filter(|(_, pid)| !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()))
        .map(|(path, _)| PathBuf::from(path));
    renamed.unwrap_or_else(|| path.to_owned())
}

/// Whether a TCP socket is bound, and neither listens nor is connected.
fn is_suspended(socket: &Socket) -> bool {
    let is_connected = socket.peer_addr().is_ok();
    let listens = socket.is_listener().unwrap_or(true);
    !listens && !is_connected && port(socket).is_some_and(|port| port != 0)
}

/// Whether a socket that listens where `bind` says also listens as it says. What can be changed of a
/// listening socket may differ.
fn fits(socket: &Socket, bind: &Bind) -> bool {
    let BindAddress::Tcp(address) = &bind.address else {
        return true;
    };
    let protocol = if bind.mptcp {
        Protocol::MPTCP
    } else {
        Protocol::TCP
    };
    same_v6(socket, address, bind.v6only)
        && is_on_interface(socket, bind)
        && socket.protocol().is_ok_and(|it| it == Some(protocol))
        && namespace::has(bind.namespace.as_deref(), socket)
}

/// The same for a runtime socket, which has no such options.
fn fits_api(socket: &Socket) -> bool {
    let address = socket.local_addr().ok().and_then(|it| it.as_socket());
    address.is_none_or(|address| same_v6(socket, &address, None))
}

/// Whether it is bound to the interface of `bind`. While there is no interface of that name, a socket that
/// was bound to one that is gone will do: it is opened again when there is one
/// ([`super::listeners::Listeners::lost`]).
fn is_on_interface(socket: &Socket, bind: &Bind) -> bool {
    match (socket.device(), bind.interface.as_deref()) {
        (Ok(device), wanted) => device.as_deref() == wanted.map(str::as_bytes),
        (Err(_), Some(wanted)) => !socket::interface_exists(wanted, bind.namespace.as_deref()),
        (Err(_), None) => false,
    }
}

/// At other addresses the kernel sets the option by itself.
fn is_v6_wildcard(address: &SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

/// Whether it takes IPv4 as a bind at `address` would that says `wanted`.
fn same_v6(socket: &Socket, address: &SocketAddr, wanted: Option<bool>) -> bool {
    if !is_v6_wildcard(address) {
        return true;
    }
    socket.only_v6().is_ok_and(|only| match wanted {
        Some(wanted) => only == wanted,
        // Beside a socket unit's no other one can be opened: the unit says it.
        None => only == socket::only_v6_by_default() || !socket.reuse_port().unwrap_or(false),
    })
}

#[cfg(test)]
mod tests;
