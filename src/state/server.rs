//! A server as decided: specification, resolved address, status.

use super::status::ServerStatus;
use crate::config::model;
use crate::live::ServerLive;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// A server of a backend.
#[derive(Debug, Clone)]
pub struct Server {
    /// As configured.
    pub spec: Arc<model::Server>,
    /// Where connections go now; `None` while its name does not resolve.
    pub endpoint: Option<Endpoint>,
    /// Health and administrative state.
    pub status: ServerStatus,
    /// Weight in force, before administrative drain.
    pub weight: u32,
    /// What is counted for it.
    pub live: Arc<ServerLive>,
}

/// Where a server's connections go, names resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// An address and how to find the port.
    Ip(IpAddr, model::ServerPort),
    /// A unix socket path, or an abstract name that begins with `@`.
    Unix(PathBuf),
}
