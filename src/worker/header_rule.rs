//! Which clients of a listener begin with a PROXY header, and what a header has said. Plain data of a worker.
//!
//! Control makes a [`HeaderRule`] of each bind that demands headers; the listener's acceptors ask it.

use crate::config::model::{AcceptProxy, Bind, Network};
use crate::proto::proxy::Addresses;
use std::net::IpAddr;
use std::sync::Arc;

/// What a listener demands of its clients.
#[derive(Debug, PartialEq, Eq)]
pub struct HeaderRule {
    /// Name of the listener, for the log.
    pub(super) listener: Arc<str>,
    pub(super) required: bool,
    /// Empty: all clients.
    from: Vec<Network>,
}

impl HeaderRule {
    /// What `bind` demands; `None`: no header.
    pub fn of(bind: &Bind) -> Option<Arc<Self>> {
        (bind.accept_proxy != AcceptProxy::Off).then(|| {
            Arc::new(Self {
                listener: Arc::clone(&bind.name),
                required: bind.accept_proxy == AcceptProxy::Required,
                from: bind.accept_proxy_from.clone(),
            })
        })
    }

    /// Whether the connection of `peer` may begin with a header; `None`: a client of a unix socket.
    pub(super) fn concerns(&self, peer: Option<IpAddr>) -> bool {
        let is_in = |peer| self.from.iter().any(|network| network.contains(peer));
        self.from.is_empty() || peer.is_some_and(is_in)
    }
}

/// What a header has said.
#[derive(Debug)]
pub(super) struct Announced {
    /// The addresses of the client's connection. `None`: they are those of the socket.
    pub(super) addresses: Option<Addresses>,
    /// Its TLVs, as they were.
    pub(super) tlvs: Box<[u8]>,
}
