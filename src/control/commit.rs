//! The commit of a reload: the one step in which a new configuration comes into force. Control
//! thread, called by the control task between two turns.
//!
//! Invariant: nothing here can fail. Verdicts of checks that are still queued are applied first, so that a verdict
//! about an old address is not taken for one about a new address.

use super::listeners::Prepared;
use super::resolve::Until;
use super::server_events::BackendEvent;
use super::{Control, server_events};
use crate::config::diff::server_starts_over;
use crate::config::model::Config;
use crate::live::CheckReport;
use crate::state::inbox::INBOX_MAX;
use crate::state::{CarryOver, Server, Snapshot, ToControl, overrides};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// Everything that a reload has prepared.
#[derive(Debug)]
pub(super) struct Commit {
    /// What comes into force.
    pub(super) config: Arc<Config>,
    /// Most sessions of the process.
    pub(super) maxconn: u32,
    /// Addresses of host names that were looked up for it.
    pub(super) addresses: HashMap<Arc<str>, IpAddr>,
    /// The sockets, open.
    pub(super) listeners: Prepared,
    /// Gets the sockets back when it is in force.
    pub(super) done: oneshot::Sender<Prepared>,
}

impl Control {
    /// Brings a prepared configuration into force.
    pub(super) async fn commit(&mut self, mut commit: Commit, messages: &mut Vec<ToControl>) {
        while messages.len() < INBOX_MAX
            && let Ok(message) = self.parts.inbox.try_recv()
        {
            messages.push(message);
        }
        self.turn(messages).await;

        let now = Instant::now();
        let base = self.parts.snapshot.load_full();
        // A name may have resolved since the reload was prepared.
        let mut addresses = commit.addresses;
        addresses.extend(base.known_addresses());
        let next = base.next_snapshot(
            &commit.config,
            &CarryOver {
                maxconn: commit.maxconn,
                shards: self.parts.token.shard() + 1,
                addresses: &addresses,
                now,
            },
        );
        let next = Arc::new(next);
        self.publish(&next);
        server_events::log_dropped(overrides::ended(&base, &next));
        // Limits may have been raised.
        next.global.freed.notify_waiters();

        self.follow_servers(&base, &next);
        self.follow_names(&next);
        commit.listeners.keep_files();
        commit.listeners.tune();
        let orders = commit
            .listeners
            .orders(&base, &next, self.parts.workers.count());
        for (worker, orders) in orders.into_iter().enumerate() {
            for order in orders {
                self.parts.workers.tell(worker, order).await;
            }
        }
        self.follow_backends(&base, &next).await;
        self.tell_backends_changed(&base, &next).await;
        self.tell_of_backends(&base, &next);
        // A reloader that has ended meanwhile, at a stop, needs them no more.
        let _ = commit.done.send(commit.listeners);
    }

    /// Ends and starts checks, after the snapshot `next` has followed `base`.
    fn follow_servers(&mut self, base: &Snapshot, next: &Snapshot) {
        start_servers_over(base, next);
        let mut fresh = self.servers.update(base, next, &self.stop_tasks);
        fresh.sort_unstable();
        self.start_checks(|uid| fresh.binary_search(&uid).is_ok());
    }

    /// The same after operators have changed addresses or checks of servers.
    pub(super) fn follow_specs(&mut self, base: &Snapshot) {
        let next = self.parts.snapshot.load_full();
        self.follow_servers(base, &next);
        self.follow_names(&next);
    }

    /// Looks all host names up: a name may lead elsewhere by now. None of those that are gone.
    fn follow_names(&mut self, next: &Snapshot) {
        let servers = &self.servers;
        self.resolver.retain(|name| !servers.named(name).is_empty());
        let unresolved: HashSet<Arc<str>> = unresolved(next).cloned().collect();
        let names: Vec<Arc<str>> = self.servers.names().cloned().collect();
        for name in names {
            let until = if unresolved.contains(&name) {
                Until::Resolved
            } else {
                Until::Once
            };
            self.look_up(&name, until);
        }
    }

    /// Backends that the reload has taken down or brought up, or whose checks are not believed by it, or again.
    fn tell_of_backends(&self, base: &Snapshot, next: &Snapshot) {
        let frontends = next.frontends.iter().flatten();
        let frontends: HashSet<u32> = frontends.map(|one| one.spec.id).collect();
        for backend in next.backends.iter().flatten() {
            let was = base.backend(backend.id);
            let (was_up, failed_open) =
                was.map_or((true, false), |was| (was.status.up, was.status.fail_open));
            let event = BackendEvent {
                spec: &backend.spec,
                listen: frontends.contains(&backend.spec.id),
                servers: &backend.servers,
                usable: backend.usable(),
            };
            if backend.status.fail_open != failed_open {
                self.log(event.fail_open(backend.status.fail_open));
            }
            let up = backend.status.up;
            if was_up && !up {
                let traffic = backend.live.traffic.mine(&self.parts.token);
                traffic.chkdown.add(1);
            }
            if let Some(line) = event.turned(up).filter(|_| was_up != up) {
                self.log(line);
            }
        }
    }
}

/// The host names whose servers have no address.
fn unresolved(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<str>> {
    use crate::config::model::ServerAddress;
    let servers = snapshot
        .backends
        .iter()
        .flatten()
        .flat_map(|backend| &backend.servers);
    servers.filter_map(|server| match &server.spec.address {
        ServerAddress::Name(name, _) if server.endpoint.is_none() => Some(name),
        _ => None,
    })
}

/// Forgets what was found out about servers that are elsewhere now, or that are asked something
/// else.
fn start_servers_over(base: &Snapshot, next: &Snapshot) {
    for backend in next.backends.iter().flatten() {
        let Some(was) = base.backend(backend.id) else {
            continue;
        };
        if Arc::ptr_eq(was, backend) {
            continue;
        }
        let known: HashMap<u64, &Arc<Server>> = was
            .servers
            .iter()
            .map(|server| (server.live.uid, server))
            .collect();
        for server in &backend.servers {
            let Some(was) = known.get(&server.live.uid) else {
                continue;
            };
            if server_starts_over(&was.spec, &server.spec) {
                server.live.trust();
                server.live.check.store(CheckReport::default());
            } else if was.spec.check != server.spec.check {
                server.live.check.give_up();
            }
        }
    }
}
