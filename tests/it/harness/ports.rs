//! Ports for those that cannot use one that the kernel chooses: no two tests get the same, and the kernel does
//! not choose them.

use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that Linux chooses (`net.ipv4.ip_local_port_range`, from 32768 on), above well-known ports.
const RANGE: Range<u16> = 20_000..32_000;

static NEXT: AtomicU16 = AtomicU16::new(RANGE.start);

/// A loopback address where nobody listens.
#[track_caller]
pub(crate) fn free() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_pair()))
}

/// The first of two neighbouring loopback ports where nobody listens.
#[track_caller]
pub(crate) fn free_pair() -> u16 {
    loop {
        let first = NEXT.fetch_add(2, Ordering::Relaxed);
        assert!(RANGE.contains(&first), "no port is left");
        let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if is_free(first) && is_free(first + 1) {
            return first;
        }
    }
}

/// Whether somebody listens on an IPv4 port of this thread's namespace (`/proc/thread-self/net/tcp`,
/// state `0A`): no connection is made and the port is not taken for a moment.
pub(crate) fn is_listened_on(address: SocketAddr) -> bool {
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp").expect("the kernel prints it");
    let port = format!(":{:04X}", address.port());
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().is_some_and(|local| local.ends_with(&port));
        local && fields.nth(1) == Some("0A")
    })
}
