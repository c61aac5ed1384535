//! Clears counters (`clear counters`). Each writing thread calls it for its own shard.

use super::{Backend, Server, Snapshot};
use crate::live::counters::Clear;
use crate::live::{FrontendLive, Traffic, WorkerToken};
use std::sync::atomic::Ordering::Relaxed;

/// Clears what `clear` names in the shard of `token`, for all objects of `snapshot` but the stats proxy.
pub fn counters(snapshot: &Snapshot, clear: Clear, token: &WorkerToken) {
    let traffic = |traffic: &Traffic| match clear {
        Clear::Maxima => traffic.clear_maxima(),
        Clear::All | Clear::Server(_) => traffic.clear(),
    };
    if let Clear::Server(uid) = clear {
        if let Some((_, server)) = server(snapshot, uid) {
            traffic(server.live.traffic.mine(token));
        }
        return;
    }
    for frontend in snapshot.frontends.iter().flatten() {
        traffic(frontend.live.traffic.mine(token));
    }
    for backend in snapshot.backends.iter().flatten() {
        traffic(backend.live.traffic.mine(token));
        if clear == Clear::All {
            backend.live.failed_sessions.mine(token).clear();
            backend.live.retries.clear_denied();
        }
        for server in &backend.servers {
            traffic(server.live.traffic.mine(token));
        }
    }
}

/// Clears the highest rates, which only the control thread writes.
pub fn rate_maxima(snapshot: &Snapshot, clear: Clear) {
    if let Clear::Server(uid) = clear {
        if let Some((_, server)) = server(snapshot, uid) {
            server.live.rate_max.store(0, Relaxed);
        }
        return;
    }
    let frontend = |live: &FrontendLive| {
        live.rate_max.store(0, Relaxed);
        live.conn_rate_max.store(0, Relaxed);
    };
    frontend(&snapshot.stats_live);
    for one in snapshot.frontends.iter().flatten() {
        frontend(&one.live);
    }
    for backend in snapshot.backends.iter().flatten() {
        backend.live.rate_max.store(0, Relaxed);
        for server in &backend.servers {
            server.live.rate_max.store(0, Relaxed);
        }
    }
}

/// The server with this uid, and its backend.
fn server(snapshot: &Snapshot, uid: u64) -> Option<(&Backend, &Server)> {
    let backends = snapshot.backends.iter().flatten();
    let mut servers = backends.flat_map(|backend| {
        let servers = backend.servers.iter();
        servers.map(move |server| (&**backend, &**server))
    });
    servers.find(|(_, server)| server.live.uid == uid)
}
