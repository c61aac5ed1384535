//! The kurl-ha cluster in network namespaces: a client, the balancer, three nodes with real services, and
//! faults. Needs root; see `tests/run`.

pub(crate) mod balancer;
pub(crate) mod load;
pub(crate) mod reloadable;
pub(crate) mod reloads;
pub(crate) mod scenarios;
pub(crate) mod services;
pub(crate) mod streams;
