//! What a request of a check says of its server (`http-check send-state`), in HAProxy's form.

use crate::config::model::ServerPort;
use crate::state::{Backend, Endpoint, OperState, SHARES, Server};
use std::sync::atomic::Ordering::Relaxed;

/// The value of `X-Haproxy-Server-State`.
pub(in crate::check) fn line(backend: &Backend, server: &Server) -> String {
    let (rules, health) = (server.rules(), server.status.health);
    let is_full = health >= rules.full();
    let left = (health + 1).saturating_sub(rules.rise);
    let state = match server.status.oper {
        OperState::Stopped if health == 0 => "DOWN".to_owned(),
        OperState::Stopped => format!("DOWN {health}/{}", rules.rise),
        OperState::Stopping if is_full => "NOLB".to_owned(),
        OperState::Stopping => format!("NOLB {left}/{}", rules.fall),
        _ if is_full => "UP".to_owned(),
        _ => format!("UP {left}/{}", rules.fall),
    };
    let (address, port) = match &server.endpoint {
        Some(Endpoint::Ip(ip, ServerPort::Fixed(port))) => (ip.to_string(), port.to_string()),
        Some(Endpoint::Ip(ip, ServerPort::FromClient(_))) => (ip.to_string(), "0".to_owned()),
        Some(Endpoint::Unix(path)) => (path.display().to_string(), String::new()),
        None => (String::new(), String::new()),
    };
    let system = rustix::system::uname();
    let in_use = backend.in_use();
    let all: u32 = in_use.iter().map(|it| it.eweight).sum();
    let (own, all) = (
        server.eweight(&backend.spec).div_ceil(SHARES),
        all.div_ceil(SHARES),
    );
    let throttle = match server.status.maxconn_percent(rules) {
        percent if server.status.oper == OperState::Starting => {
            format!("; throttle={}%", percent.max(1))
        }
        _ => String::new(),
    };
    format!(
        "{state}; address={address}; port={port}; name={}/{}; node={}; weight={own}/{all}; \
         scur={}/{}; qcur={}{throttle}",
        backend.spec.name,
        server.spec.name,
        system.nodename().to_string_lossy(),
        server.live.active.get(),
        backend.live.active.get(),
        server.live.queued.load(Relaxed),
    )
}
