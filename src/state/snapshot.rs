//! The published snapshot: everything that was decided, swapped whole.
//!
//! A worker loads it once per connection and clones the `Arc`s that it counts on, so that a
//! session that lives for days pins three nodes and not an old world.

use super::server::Server;
use crate::balance::Picker;
use crate::config::model;
use crate::live::{BackendLive, FrontendLive, GlobalLive};
use std::sync::Arc;
use std::time::Instant;

/// Names a backend for as long as its name exists, across snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub u32);

/// Everything that was decided.
#[derive(Debug)]
pub struct Snapshot {
    /// What is counted for the process.
    pub global: Arc<GlobalLive>,
    /// Most sessions of the process; configured, or what the descriptor limit holds.
    pub maxconn: u32,
    /// The stats proxy; `None`: no stats listener.
    pub stats: Option<Arc<model::Stats>>,
    /// What is counted for the stats proxy; exists even without a listener.
    pub stats_live: Arc<FrontendLive>,
    /// In file order.
    pub frontends: Vec<Arc<Frontend>>,
    /// By [`BackendId`]; `None` where a backend was removed.
    pub backends: Vec<Option<Arc<Backend>>>,
}

impl Snapshot {
    /// The backend `id`, if it still exists.
    pub fn backend(&self, id: BackendId) -> Option<&Arc<Backend>> {
        self.backends.get(id.0 as usize)?.as_ref()
    }
}

/// A frontend.
#[derive(Debug)]
pub struct Frontend {
    /// As configured.
    pub spec: model::Frontend,
    /// Where its sessions go.
    pub default_backend: BackendId,
    /// What is counted for it.
    pub live: Arc<FrontendLive>,
}

/// A backend.
#[derive(Debug)]
pub struct Backend {
    /// Its lasting name.
    pub id: BackendId,
    /// As configured. Its `servers` are as written; the ones in force are [`Backend::servers`].
    pub spec: Arc<model::Backend>,
    /// What is counted for it.
    pub live: Arc<BackendLive>,
    /// In file order.
    pub servers: Vec<Arc<Server>>,
    /// Chooses among the usable ones of `servers`, by their position.
    pub picker: Picker,
    /// Whether any server can be used, and since when.
    pub status: BackendStatus,
}

/// Whether a backend can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendStatus {
    /// Any server is usable, or there are none at all (HAProxy's rule).
    pub up: bool,
    /// When `up` last changed, or the process started.
    pub since: Instant,
    /// Time spent down before `since`.
    pub down_before: std::time::Duration,
}
