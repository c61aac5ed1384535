//! The keys of listening addresses.

use super::declare::prelude::*;
use super::kinds::{Algorithm, Device, Mode, Namespace, Number, Optional, Raw, Span, Switch, Word};
use crate::config::address::Network;
use crate::config::choices::AcceptProxyWord;
use crate::config::key::Effect::{NewSocket, SameSocket};
use crate::config::key::{ID_BOUNDS, REQUIRED};
use crate::config::shapes::{Expected, Maybe, OneOrMany, Short};
use crate::config::show;
use crate::config::values::{AcceptProxy, BindAddress};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// Highest `backlog`.
pub const BACKLOG_MAX: i64 = 1_000_000;
/// What `backlog` may be.
pub(super) const BACKLOG_BOUNDS: (i64, i64) = (1, BACKLOG_MAX);

/// What the kernel takes for `TCP_MAXSEG`.
pub const MSS_BOUNDS: (i64, i64) = (88, 32_767);

/// A list of addresses to listen on, or one of them.
pub type Binds = OneOrMany<Short<String, BindTable>>;

keys! {
    /// One listening address, or a range of ports.
    table BindTable, "Bind", "a bind table";
    layer BindLayer;
    raw {
        /// `"*:80"`, `"127.0.0.1:80"`, `"[::]:80"`, `"*:8000-8010"`, `"unix:/path"` or `"unix:@name"`.
        address: Raw<Maybe<String>> = REQUIRED,
            kind: "address", reload: NewSocket;
        /// Name of the listener. A range of ports adds `:PORT`.
        name: Raw<Maybe<String>> = "the address", kind: "name", haproxy: &["name"],
            reload: SameSocket;
        /// The networks from which a header of the PROXY protocol is taken. Other clients have none.
        accept_proxy_from: Raw<Option<OneOrMany<String>>> = "all",
            kind: "network or list", reload: SameSocket;
    }
    read {
        /// Number among the listeners of its frontend. A range of ports counts on from it.
        id: Optional<Number> = "counted from 1",
            bounds: Some(ID_BOUNDS), haproxy: &["id"], reload: SameSocket;
    }
    meant {
        /// Length of the kernel's accept queue, per worker thread. The kernel cuts it at
        /// `net.core.somaxconn`.
        backlog: Optional<Number> = "the frontend's",
            bounds: Some(BACKLOG_BOUNDS), haproxy: &["backlog"], reload: SameSocket;
        /// Refuse IPv4 on an IPv6 wildcard address (`IPV6_V6ONLY`).
        v6only: Optional<Switch> = "as the system", haproxy: &["v6only"], reload: NewSocket;
        /// Listen on this network device only (`SO_BINDTODEVICE`).
        interface: Optional<Device> = "any", haproxy: &["interface"], reload: NewSocket;
        /// Another bind may have the port on all addresses or on this one: each client is the one's with its address.
        overlap: Switch = false, reload: SameSocket;
        /// Bind an address that this machine does not have yet (`IP_FREEBIND`).
        freebind: Switch = false, reload: NewSocket;
        /// Bind an address that is not this machine's, and take the connections to it that are led here
        /// (`IP_TRANSPARENT`).
        transparent: Switch = false, haproxy: &["transparent"], reload: SameSocket;
        /// Listen in this network namespace, of those that `ip netns` lists.
        namespace: Optional<Namespace> = "rlb's own", haproxy: &["namespace"], reload: NewSocket;
        /// Listen for MPTCP, and for TCP from clients without it.
        mptcp: Switch = false, reload: NewSocket;
        /// Take a connection once its client has sent something, or a second later (`TCP_DEFER_ACCEPT`).
        defer_accept: Switch = false, haproxy: &["defer-accept"], reload: SameSocket;
        /// Take bytes that clients send with the first packet (`TCP_FASTOPEN`), `backlog` clients at once.
        tfo: Switch = false, haproxy: &["tfo"], reload: SameSocket;
        /// Most bytes of a segment, from clients and to them (`TCP_MAXSEG`).
        mss: Optional<Number> = "the kernel's",
            bounds: Some(MSS_BOUNDS), haproxy: &["mss"], reload: SameSocket;
        /// How the kernel controls congestion towards clients (`TCP_CONGESTION`), as `"bbr"`.
        cc: Optional<Algorithm> = "the kernel's", haproxy: &["cc"], reload: SameSocket;
        /// How long what was sent to a client may stay without acknowledgement (`TCP_USER_TIMEOUT`).
        tcp_ut: Optional<Span> = "the kernel's limit", haproxy: &["tcp-ut"], reload: SameSocket;
        /// Whether clients begin with a header of the PROXY protocol, which has the client's address.
        accept_proxy: Word<AcceptProxyWord> = AcceptProxy::Off,
            haproxy: &["accept-proxy"], reload: SameSocket;
        /// File mode of a unix socket, octal, as `"0660"`.
        mode: Optional<Mode> = "by the umask", haproxy: &["mode"], reload: SameSocket;
    }
    /// One listening address.
    #[derive(Debug, Clone, PartialEq)]
    model Bind {
        /// Name of the listener; default its address as written.
        name: Arc<str> = "".into(), BindTable::name => show::text;
        /// Number among the listeners of its frontend, from 1.
        id: u32 = 0, BindTable::id => show::number;
        /// Where.
        address: BindAddress = NOWHERE;
        /// The networks from which a PROXY header is taken; empty: all.
        accept_proxy_from: Vec<Network> = Vec::new(),
            BindTable::accept_proxy_from => show::networks;
    }
}

/// The address of a bind that was not read yet.
pub(super) const NOWHERE: BindAddress = BindAddress::Tcp(SocketAddr::new(
    std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    0,
));

impl Expected for BindTable {
    const EXPECTED: &'static str =
        "an address as \"*:80\" or a table as { address = \"*:80\", backlog = 1024 }";
}

impl Bind {
    /// Whether a socket that was opened for `old` can be used for `new`: everything else can be changed while
    /// it listens. Does not compare the address.
    pub(in crate::config) fn is_same_socket(old: &Self, new: &Self) -> bool {
        let mut found = Differences::default();
        Self::compare(old, new, &mut found);
        found.effect() < Some(NewSocket)
    }

    /// Whether a socket that was opened for `one` is what `other` listens on. Two binds may have one address, each on a
    /// network device of its own.
    pub fn is_same_listener(one: &Self, other: &Self) -> bool {
        Self::is_same_place(one, other) && Self::is_same_socket(one, other)
    }

    /// Whether both are the same address of the same network namespace.
    pub fn is_same_place(one: &Self, other: &Self) -> bool {
        (&one.address, &one.namespace) == (&other.address, &other.namespace)
    }
}
