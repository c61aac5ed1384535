//! Which clients of a listener begin with a PROXY header, and what is known of a connection by it. Plain data of a worker.
//!
//! Control makes a [`HeaderRule`] of each bind that demands headers or has a `namespace`; the listener's acceptors ask it.

use crate::config::model::{AcceptProxy, Bind, Network};
use crate::proto::proxy::Addresses;
use std::net::SocketAddr;
use std::sync::Arc;

/// What a listener says of its clients.
#[derive(Debug, PartialEq, Eq)]
pub struct HeaderRule {
    /// Name of the listener, for the log.
    pub(super) listener: Arc<str>,
    /// Whether they begin with a PROXY header.
    accept: AcceptProxy,
    /// Who; empty: all clients.
    from: Vec<Network>,
    /// The network namespace that it listens in. Servers are told of it.
    pub(super) namespace: Option<Arc<str>>,
}

impl HeaderRule {
    /// What `bind` says; `None`: nothing.
    pub fn of(bind: &Bind) -> Option<Arc<Self>> {
        let says = bind.accept_proxy != AcceptProxy::Off || bind.namespace.is_some();
        says.then(|| {
            Arc::new(Self {
                listener: Arc::clone(&bind.name),
                accept: bind.accept_proxy,
                from: bind.accept_proxy_from.clone(),
                namespace: bind.namespace.clone(),
            })
        })
    }

    /// Whether each connection that it concerns begins with a header.
    pub(super) fn is_required(&self) -> bool {
        self.accept == AcceptProxy::Required
    }

    /// Whether the connection of `peer` may begin with a header; `None`: a client of a unix socket.
    pub fn concerns(&self, peer: Option<SocketAddr>) -> bool {
        let is_in = |peer| self.from.iter().any(|network| network.contains(peer));
        self.accept != AcceptProxy::Off
            && (self.from.is_empty() || peer.is_some_and(|peer| is_in(peer.ip())))
    }
}

/// What is known of a client's connection beside its socket's addresses.
#[derive(Debug, Default)]
pub struct Announced {
    /// The addresses that its header says. `None`: they are those of the socket.
    pub addresses: Option<Addresses>,
    /// The TLVs of its header, as they were.
    pub(super) tlvs: Box<[u8]>,
    /// The network namespace that it has arrived in, when its listener is in one of its own.
    pub(super) namespace: Option<Arc<str>>,
}
