//! Snapshots to measure; shared by the benches.

use rlb::config::model::{
    Backend, Balance, Config, Global, Log, Server, ServerAddress, ServerPort,
};
use rlb::live::GlobalLive;
use rlb::state::{Origin, Snapshot};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A snapshot of `backends` backends with `servers` servers each, as on a machine of four cores.
pub(crate) fn snapshot(backends: u32, servers: u32) -> Snapshot {
    let (now, shards) = (Instant::now(), 5);
    let config = Config {
        global: Global {
            threads: 4,
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
        backends: (0..backends).map(|id| backend(id, servers)).collect(),
    };
    let origin = Origin {
        global: Arc::new(GlobalLive::new(now, shards)),
        maxconn: 20_000,
        shards,
        now,
    };
    Snapshot::initial(&config, &origin)
}

fn backend(id: u32, servers: u32) -> Backend {
    Backend {
        name: format!("b{id}").into(),
        id: id + 2,
        order: id,
        balance: Balance::RoundRobin,
        allbackups: false,
        fullconn: 2_000,
        timeout_server: None,
        timeout_server_fin: None,
        timeout_connect: Duration::from_secs(5),
        connect_attempt: Duration::from_millis(300),
        retries: 3,
        keepalive: None,
        log_health_checks: false,
        servers: (1..=servers).map(server).collect(),
    }
}

fn server(id: u32) -> Server {
    Server {
        name: format!("s{id}").into(),
        id,
        address: ServerAddress::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST), ServerPort::Fixed(80)),
        weight: 1,
        backup: false,
        disabled: false,
        check: None,
        shutdown_sessions_on_down: false,
        shutdown_backup_sessions_on_up: false,
    }
}
