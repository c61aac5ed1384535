//! Opening the listening sockets: all of them before anything is announced.

use super::inherited::Inherited;
use crate::config::model::{Bind, BindAddress, Config, Keepalive};
use crate::sys::socket::{Address, Options};
use crate::worker::Listener;
use socket2::Socket;
use std::io;
use std::net::TcpListener;

/// Every listening socket of the process.
#[derive(Debug)]
pub(super) struct Listeners {
    /// Per worker.
    pub(super) workers: Vec<Vec<Listener>>,
    /// Of the stats listener.
    pub(super) stats: Vec<TcpListener>,
}

/// Opens them, but for those that were passed to us, or says of each that cannot be opened why.
pub(super) fn open(
    config: &Config,
    maxconn: u32,
    inherited: &mut Inherited,
) -> Result<Listeners, Vec<String>> {
    let mut workers: Vec<Vec<Listener>> = (0..config.global.threads).map(|_| Vec::new()).collect();
    let mut stats = Vec::new();
    let mut problems = Vec::new();
    if let Some(spec) = &config.stats {
        for bind in &spec.binds {
            let options = options(bind, spec.maxconn, None);
            match inherited.listen(bind, &options, 1) {
                Ok(sockets) => {
                    announce(&spec.name, &sockets);
                    stats.extend(sockets.into_iter().map(TcpListener::from));
                }
                Err(error) => problems.push(problem(&spec.name, bind, &error)),
            }
        }
    }
    for (index, spec) in config
        .frontends
        .iter()
        .enumerate()
        .filter(|(_, spec)| !spec.disabled)
    {
        let backlog = spec.maxconn.unwrap_or(maxconn);
        for bind in &spec.binds {
            let options = options(bind, backlog, spec.keepalive);
            match inherited.listen(bind, &options, workers.len()) {
                Ok(sockets) => {
                    announce(&spec.name, &sockets);
                    let unix = matches!(bind.address, BindAddress::Unix(_));
                    // There may be more of them than workers: closing one would lose its queue.
                    for (number, socket) in sockets.into_iter().enumerate() {
                        let worker = number % workers.len();
                        workers[worker].push(Listener {
                            frontend: index,
                            socket,
                            unix,
                        });
                    }
                }
                Err(error) => problems.push(problem(&spec.name, bind, &error)),
            }
        }
    }
    if problems.is_empty() {
        Ok(Listeners { workers, stats })
    } else {
        Err(problems)
    }
}

fn options(bind: &Bind, backlog: u32, keepalive: Option<Keepalive>) -> Options {
    Options {
        address: match &bind.address {
            BindAddress::Tcp(address) => Address::Tcp(*address),
            BindAddress::Unix(path) => Address::Unix(path.clone()),
        },
        backlog: bind.backlog.unwrap_or(backlog),
        v6only: bind.v6only,
        interface: bind.interface.as_deref().map(str::to_owned),
        freebind: bind.freebind,
        mode: bind.mode,
        keepalive: keepalive.map(|keep| (keep.idle, keep.interval, keep.probes)),
    }
}

fn announce(proxy: &str, sockets: &[Socket]) {
    let Some(Ok(address)) = sockets.first().map(Socket::local_addr) else {
        return;
    };
    match (address.as_socket(), address.as_pathname()) {
        (Some(address), _) => tracing::info!(proxy, %address, "listening"),
        (None, Some(path)) => tracing::info!(proxy, address = %path.display(), "listening"),
        (None, None) => tracing::info!(proxy, "listening"),
    }
}

fn problem(proxy: &str, bind: &Bind, error: &io::Error) -> String {
    let address = match &bind.address {
        BindAddress::Tcp(address) => address.to_string(),
        BindAddress::Unix(path) => path.display().to_string(),
    };
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => ": another process (or another rlb) listens there",
        io::ErrorKind::PermissionDenied => {
            ": ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE"
        }
        io::ErrorKind::AddrNotAvailable => {
            ": this machine does not have the address (`freebind = true` binds it all the same)"
        }
        _ => "",
    };
    format!("{proxy}: cannot listen on {address}: {error}{hint}")
}
