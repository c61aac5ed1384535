//! Small configurations for the tests of `state`, `check` and `control`.

use crate::config::model::{
    Backend, BackendIndex, Balance, Check, CheckKind, Config, Frontend, Global, Log, Server,
    ServerAddress, ServerPort,
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

pub(crate) fn config(backends: Vec<Backend>) -> Config {
    Config {
        global: Global {
            threads: 1,
            maxconn: None,
            hard_stop_after: None,
            upgrade_stop_after: None,
            node: None,
            description: None,
            watch: false,
            rollback_window: None,
        },
        log: Log {
            tag: "rlb".into(),
            targets: vec![],
        },
        runtime_api: None,
        stats: None,
        frontends: vec![],
        backends,
    }
}

/// A frontend in front of the first backend, without listeners.
pub(crate) fn frontend(name: &str, id: u32) -> Frontend {
    Frontend {
        name: name.into(),
        id,
        order: 0,
        binds: vec![],
        disabled: false,
        default_backend: BackendIndex(0),
        maxconn: None,
        timeout_client: None,
        timeout_client_fin: None,
        keepalive: None,
        dontlognull: false,
        dontlog_normal: false,
    }
}

pub(crate) fn backend(name: &str, servers: Vec<Server>) -> Backend {
    Backend {
        name: name.into(),
        id: 3,
        order: 1,
        balance: Balance::RoundRobin,
        allbackups: false,
        fullconn: 200,
        timeout_server: None,
        timeout_server_fin: None,
        timeout_connect: Duration::from_secs(5),
        connect_attempt: Duration::from_millis(300),
        retries: 3,
        keepalive: None,
        log_health_checks: false,
        servers,
    }
}

/// A checked server with every default.
pub(crate) fn server(name: &str) -> Server {
    Server {
        name: name.into(),
        id: 1,
        address: ServerAddress::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST), ServerPort::Fixed(9)),
        weight: 1,
        backup: false,
        disabled: false,
        check: Some(check()),
        shutdown_sessions_on_down: false,
        shutdown_backup_sessions_on_up: false,
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
    Check {
        kind: CheckKind::Tcp,
        interval: Duration::from_secs(2),
        fast_interval: Duration::from_secs(2),
        down_interval: Duration::from_secs(2),
        rise: 2,
        fall: 3,
        timeout: Duration::from_secs(1),
        port: None,
        address: None,
    }
}
