//! `show servers conn`: the connections of servers, in HAProxy's format. Pure.
//!
//! Columns about idle connections are as for a server of HAProxy without any: rlb keeps none.

use crate::config::model::{ServerAddress, ServerPort};
use crate::state::{Backend, Endpoint};
use std::fmt::Write;

/// HAProxy's default of `pool-purge-delay`, ms.
const PURGE_DELAY_MS: u32 = 5000;

/// The header, for a process with `threads` workers.
pub fn header(threads: usize) -> String {
    format!(
        "# bkname/svname bkid/svid addr port - purge_delay served used_cur used_max need_est \
         idle_sess unsafe_nb safe_nb idle_lim idle_cur idle_per_thr[{threads}]\n"
    )
}

/// The lines of a backend's servers.
pub fn of_backend(backend: &Backend, threads: usize) -> String {
    let mut text = String::new();
    for server in &backend.servers {
        let address = match &server.endpoint {
            Some(Endpoint::Ip(ip, _)) => ip.to_string(),
            Some(Endpoint::Unix(_)) | None => "-".to_owned(),
        };
        let port = match server.spec.address {
            ServerAddress::Name(_, ServerPort::Fixed(port))
            | ServerAddress::Ip(_, ServerPort::Fixed(port)) => port,
            _ => 0,
        };
        let active = server.live.active.get();
        let most = server.live.traffic.max(|traffic| &traffic.smax);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{}/{} {}/{} {address} {port} - {PURGE_DELAY_MS} {active} {active} {most} {most} \
             0 0 0 -1 0",
            backend.spec.name, server.spec.name, backend.spec.id, server.spec.id,
        );
        for _ in 0..threads {
            text.push_str(" 0");
        }
        text.push('\n');
    }
    text
}
