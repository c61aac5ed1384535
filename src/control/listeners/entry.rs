//! A bind and its listening sockets: how it listens, and what each worker accepts from.
//!
//! Control thread.

use super::super::loss::{self, Loss};
use crate::config::diff::{BindOf, Side};
use crate::config::model::{Bind, BindAddress, Config, Keepalive};
use crate::state::Frontend;
use crate::sys::service_manager;
use crate::sys::socket::{self, Address, FileId, Options, TcpOptions};
use crate::worker::{HeaderRule, ListenState, Listener, ListenerId};
use socket2::Socket;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

/// A bind and its sockets.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) of: BindOf,
    pub(super) id: ListenerId,
    pub(super) tuning: Tuning,
    /// One a worker or more; one of the statistics.
    pub(super) shards: Vec<Arc<Socket>>,
    /// What the path of a unix socket led to when it was opened.
    pub(super) file: Option<FileId>,
    /// Shared with the workers.
    pub(super) state: Arc<ListenState>,
}

/// What can be changed while a socket listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tuning {
    backlog: u32,
    keepalive: Option<Keepalive>,
    pub(super) tcp: TcpOptions,
    mode: Option<u32>,
}

/// The tuning of binds that do not say it themselves, by the name of the frontend.
pub(super) struct Tunings<'a> {
    traffic: HashMap<&'a str, (u32, Option<Keepalive>)>,
    stats: u32,
}

impl<'a> Tunings<'a> {
    pub(super) fn of(config: &'a Config, maxconn: u32) -> Self {
        let frontends = config.frontends.iter();
        let traffic = frontends.map(|spec| {
            let backlog = spec.maxconn.unwrap_or(maxconn);
            (&*spec.name, (backlog, spec.keepalive))
        });
        Self {
            traffic: traffic.collect(),
            stats: config.stats.as_ref().map_or(0, |stats| stats.maxconn),
        }
    }

    pub(super) fn of_bind(&self, of: &BindOf) -> Tuning {
        let (backlog, keepalive) = match of.side {
            Side::Traffic => self.traffic[&*of.proxy],
            Side::Stats => (self.stats, None),
        };
        Tuning {
            backlog: of.bind.backlog.unwrap_or(backlog),
            keepalive,
            tcp: TcpOptions {
                transparent: of.bind.transparent,
                defer_accept: of.bind.defer_accept,
                tfo: of.bind.tfo,
                mss: of.bind.mss,
                cc: of.bind.cc.clone(),
                tcp_ut: of.bind.tcp_ut,
            },
            mode: of.bind.mode,
        }
    }
}

impl Entry {
    pub(super) fn new(
        of: BindOf,
        id: ListenerId,
        tuning: Tuning,
        shards: Vec<Arc<Socket>>,
    ) -> Self {
        Self {
            state: ListenState::new(tuning.backlog, HeaderRule::of(&of.bind)),
            file: loss::file_of(&of.bind),
            of,
            id,
            tuning,
            shards,
        }
    }

    /// Sets the options of its sockets by `set`. What the system refuses is logged, and leaves that socket as it was.
    pub(super) fn set_options(&self, set: impl Fn(&Socket, &Options) -> io::Result<()>) {
        let options = Options {
            listens: !self.state.is_suspended(),
            ..options(&self.of.bind, &self.tuning, false)
        };
        for shard in &self.shards {
            if let Err(error) = set(shard, &options) {
                let (proxy, address) = (&*self.of.proxy, shown(&self.of.bind));
                tracing::warn!(proxy, address, %error, "a listening socket stays as it was");
            }
        }
    }

    /// Changes what can be changed while it listens. `had`: what connections have inherited so far.
    pub(super) fn tune(&self, had: &TcpOptions) {
        self.state.set_backlog(self.tuning.backlog);
        self.state.set_header(HeaderRule::of(&self.of.bind));
        self.set_options(|socket, options| socket::retune(socket, options, had));
    }

    /// Whether clients of `bind` begin otherwise.
    pub(super) fn has_other_header(&self, bind: &Bind) -> bool {
        HeaderRule::of(&self.of.bind) != HeaderRule::of(bind)
    }

    pub(super) fn loss(&self, thorough: bool) -> Option<Loss> {
        // One whose frontend is disabled is not to listen.
        let thorough = thorough && !self.state.is_suspended();
        Loss::of(&self.of.bind, self.file, &self.shards, thorough)
    }

    /// What one of `workers` workers accepts from. There may be more shards than workers: closing
    /// one would lose what waits in it.
    pub(super) fn of_worker(
        &self,
        worker: usize,
        workers: usize,
        frontends: &HashMap<&str, &Arc<Frontend>>,
    ) -> impl Iterator<Item = Listener> {
        let traffic = self.of.side == Side::Traffic;
        let frontend = traffic
            .then(|| frontends.get(&*self.of.proxy).map(|it| it.id))
            .flatten();
        let shards = self.shards.iter().skip(worker).step_by(workers.max(1));
        shards.filter_map(move |socket| {
            Some(Listener {
                id: self.id,
                frontend: frontend?,
                socket: Arc::clone(socket),
                unix: socket::is_unix(socket),
                state: Arc::clone(&self.state),
            })
        })
    }

    /// Whether it listens on the TCP port of `other`, at an address that has that one's or is part of it.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let (BindAddress::Tcp(mine), BindAddress::Tcp(others)) =
            (&self.of.bind.address, &other.of.bind.address)
        else {
            return false;
        };
        let (ip, other_ip) = (mine.ip(), others.ip());
        let meet = ip == other_ip || ip.is_unspecified() || other_ip.is_unspecified();
        let together = self.of.bind.namespace == other.of.bind.namespace;
        mine.port() != 0 && mine.port() == others.port() && meet && together
    }

    /// Its name in the service manager's store, if it is to be there.
    pub(super) fn stored_as(&self) -> Option<String> {
        let address = address(&self.of.bind);
        service_manager::lasts(&address).then(|| service_manager::name(&address))
    }
}

pub(super) fn address(bind: &Bind) -> Address {
    match &bind.address {
        BindAddress::Tcp(address) => Address::Tcp(*address),
        BindAddress::Unix(path) => Address::Unix(path.clone()),
        BindAddress::Descriptor(number) => Address::Descriptor(*number),
    }
}

pub(super) fn options(bind: &Bind, tuning: &Tuning, join: bool) -> Options {
    Options {
        address: address(bind),
        backlog: tuning.backlog,
        v6only: bind.v6only,
        interface: bind.interface.as_deref().map(str::to_owned),
        freebind: bind.freebind,
        tcp: tuning.tcp.clone(),
        namespace: bind.namespace.clone(),
        mptcp: bind.mptcp,
        mode: tuning.mode,
        owner: (None, None),
        keepalive: tuning
            .keepalive
            .map(|keep| (keep.idle, keep.interval, keep.probes)),
        listens: true,
        join,
    }
}

pub(super) fn announce(proxy: &str, socket: Option<&Socket>) {
    let Some(Ok(address)) = socket.map(Socket::local_addr) else {
        return;
    };
    match (address.as_socket(), address.as_pathname()) {
        (Some(address), _) => tracing::info!(proxy, %address, "listening"),
        (None, Some(path)) => tracing::info!(proxy, address = %path.display(), "listening"),
        (None, None) => tracing::info!(proxy, "listening"),
    }
}

pub(super) fn shown(bind: &Bind) -> String {
    match &bind.address {
        BindAddress::Tcp(address) => address.to_string(),
        BindAddress::Unix(path) => path.display().to_string(),
        BindAddress::Descriptor(number) => format!("fd@{number}"),
    }
}
