//! Small configurations for the tests of `state`, `check` and `control`.

use crate::config::model::{
    Backend, BackendIndex, Check, Config, Frontend, Global, Log, Server, ServerAddress, ServerPort,
};
use crate::live::GlobalLive;
use crate::state::Origin;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

/// A process with one shard that starts at `now`.
pub(crate) fn origin(now: Instant) -> Origin {
    Origin {
        global: Arc::new(GlobalLive::new(now, 1)),
        maxconn: 100,
        shards: 1,
        now,
    }
}

pub(crate) fn config(backends: Vec<Backend>) -> Config {
    Config {
        global: Global::default(),
        log: Log::default(),
        runtime_api: None,
        stats: None,
        frontends: vec![],
        backends,
    }
}

/// A frontend with the first backend as its default, without listeners.
pub(crate) fn frontend(name: &str, id: u32) -> Frontend {
    Frontend {
        name: name.into(),
        id,
        default_backend: BackendIndex(0),
        timeout_client: None,
        timeout_client_fin: None,
        keepalive: None,
        ..Frontend::default()
    }
}

pub(crate) fn backend(name: &str, servers: Vec<Server>) -> Backend {
    Backend {
        name: name.into(),
        id: 3,
        order: 1,
        fullconn: 200,
        timeout_server: None,
        timeout_server_fin: None,
        keepalive: None,
        servers,
        ..Backend::default()
    }
}

/// A checked server with every default.
pub(crate) fn server(name: &str) -> Server {
    Server {
        name: name.into(),
        id: 1,
        address: ServerAddress::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST), ServerPort::Fixed(9)),
        check: Some(check()),
        ..Server::default()
    }
}

/// A checked server at `address`.
pub(crate) fn server_at(name: &str, address: SocketAddr) -> Server {
    Server {
        address: ServerAddress::Ip(address.ip(), ServerPort::Fixed(address.port())),
        ..server(name)
    }
}

pub(crate) fn check() -> Check {
    Check::default()
}
