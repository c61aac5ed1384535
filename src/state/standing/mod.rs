//! How the servers of a backend stand together: how many are usable, whether the checks are believed, and whether the
//! backend is up.
//!
//! Control thread only. Invariant: [`Server::fail_open`] is the same for all servers of a backend, and true while too few
//! of them are up (`fail-open-below`). What is usable follows from it; what is counted for people is what the checks say.

use super::server::{Server, Usable};
use crate::config::model;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The servers of a priority, or the backups, that no operator has taken out.
#[derive(Debug, Clone, Copy, Default)]
struct Tier {
    all: u32,
    /// Those that are up.
    up: u32,
}

/// The counts of a backend. They follow its servers one by one, because log lines show each step.
#[derive(Debug, Clone, Default)]
pub(super) struct Standing {
    usable: Usable,
    /// By `backup` and `priority`.
    tiers: BTreeMap<(bool, u8), Tier>,
}

impl Standing {
    /// Of these servers.
    pub(super) fn of<'a>(servers: impl IntoIterator<Item = &'a Arc<Server>>) -> Self {
        let mut all = Self::default();
        for server in servers {
            all.add(server);
        }
        all
    }

    pub(super) fn add(&mut self, server: &Server) {
        let tier = self.tiers.entry(key(server)).or_default();
        tier.all += u32::from(server.is_offered());
        tier.up += u32::from(server.is_up());
        *self.usable.of_kind(server.spec.backup) += u32::from(server.is_up());
    }

    pub(super) fn remove(&mut self, server: &Server) {
        let tier = self.tiers.entry(key(server)).or_default();
        tier.all -= u32::from(server.is_offered());
        tier.up -= u32::from(server.is_up());
        *self.usable.of_kind(server.spec.backup) -= u32::from(server.is_up());
    }

    /// How many are usable as the checks say.
    pub(super) fn usable(&self) -> Usable {
        self.usable
    }

    /// Whether the checks are not believed: in each tier, and of the backups, fewer are up than `fail-open-below`. So one
    /// tier that is well, or a backup, serves as if there were no such key.
    pub(super) fn fails_open(&self, spec: &model::Backend) -> bool {
        let mut tiers = self.tiers.values().filter(|tier| tier.all > 0).peekable();
        let below = u64::from(spec.fail_open_below);
        tiers.peek().is_some()
            && tiers.all(|tier| u64::from(tier.up) * 100 < u64::from(tier.all) * below)
    }

    /// Whether enough servers are usable.
    pub(super) fn is_up(&self, spec: &model::Backend) -> bool {
        let usable = if self.fails_open(spec) {
            self.tiers.values().map(|tier| tier.all).sum()
        } else {
            self.usable.active + self.usable.backup
        };
        usable >= spec.min_servers.max(1)
    }
}

/// Has [`Server::fail_open`] follow the states of `servers`. Whether the backend fails open, and whether it is up: as in
/// HAProxy one without servers is.
pub(super) fn settle(servers: &mut [Arc<Server>], spec: &model::Backend) -> (bool, bool) {
    let standing = Standing::of(&*servers);
    let fail_open = standing.fails_open(spec);
    for server in servers.iter_mut().filter(|one| one.fail_open != fail_open) {
        Arc::make_mut(server).fail_open = fail_open;
    }
    (fail_open, servers.is_empty() || standing.is_up(spec))
}

fn key(server: &Server) -> (bool, u8) {
    (server.spec.backup, server.spec.priority)
}

#[cfg(test)]
mod tests;
