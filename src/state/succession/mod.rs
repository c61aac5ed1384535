//! The snapshot after a reload: the new configuration's objects with what their names already had.
//!
//! Pure; called by the control task at the commit of a reload. Invariants: what is counted for a
//! name (`…Live`) goes on, and so does its id; health, administrative state, a weight set at run
//! time and a resolved address go on unless the file's own value for that very thing has changed; an
//! object that is not touched is shared with the snapshot before.

use super::draft::Usable;
use super::server::{Endpoint, Server};
use super::snapshot::{
    Backend, BackendId, Frontend, FrontendId, Origin, Snapshot, backend_id, frontend_id, picker_for,
};
use super::status::AdminState;
use crate::config::diff::server_starts_over;
use crate::config::model::{self, ServerAddress};
use crate::live::{FrontendLive, ServerLive};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// What the next snapshot needs besides the configuration.
#[derive(Debug)]
pub struct Heir<'a> {
    /// Most sessions of the process, already decided.
    pub maxconn: u32,
    /// Shards of everything counted.
    pub shards: usize,
    /// Addresses of host names, as far as they are known.
    pub addresses: &'a HashMap<Arc<str>, IpAddr>,
    /// Time of the commit.
    pub now: Instant,
}

impl Snapshot {
    /// The snapshot that follows this one when `config` comes into force.
    #[must_use]
    pub fn succeed(&self, config: &model::Config, heir: &Heir<'_>) -> Self {
        let (backends, targets) = self.heirs_of_backends(config, heir);
        let stats = config.stats.clone().map(Arc::new);
        Self {
            global: Arc::clone(&self.global),
            maxconn: heir.maxconn,
            stats_live: self.stats_live_for(stats.as_deref(), heir),
            stats,
            hard_stop_after: config.global.hard_stop_after,
            node: config.global.node.clone(),
            description: config.global.description.clone(),
            api_level: config.runtime_api.as_ref().map(|api| api.level),
            frontends: self.heirs_of_frontends(config, &targets, heir),
            backends,
        }
    }

    fn stats_live_for(&self, stats: Option<&model::Stats>, heir: &Heir<'_>) -> Arc<FrontendLive> {
        match stats {
            Some(stats) if stats.name != self.stats_live.name => {
                Arc::new(FrontendLive::new(Arc::clone(&stats.name), heir.shards))
            }
            _ => Arc::clone(&self.stats_live),
        }
    }

    /// By id; and the ids of the configuration's backends in its own order.
    fn heirs_of_backends(
        &self,
        config: &model::Config,
        heir: &Heir<'_>,
    ) -> (Vec<Option<Arc<Backend>>>, Vec<BackendId>) {
        let known: HashMap<&str, &Arc<Backend>> = self
            .backends
            .iter()
            .flatten()
            .map(|backend| (&*backend.spec.name, backend))
            .collect();
        let mut all: Vec<Option<Arc<Backend>>> = vec![None; self.backends.len()];
        let mut ids = Vec::with_capacity(config.backends.len());
        for spec in &config.backends {
            if let Some(before) = known.get(&*spec.name) {
                ids.push(before.id);
                all[before.id.0 as usize] = Some(heir_of_backend(before, spec, heir));
            } else {
                let id = backend_id(all.len());
                ids.push(id);
                all.push(Some(self.new_backend(id, spec, heir)));
            }
        }
        (all, ids)
    }

    fn new_backend(&self, id: BackendId, spec: &model::Backend, heir: &Heir<'_>) -> Arc<Backend> {
        let origin = Origin {
            global: Arc::clone(&self.global),
            maxconn: heir.maxconn,
            shards: heir.shards,
            now: heir.now,
        };
        let mut backend = Backend::initial(id, spec, &origin);
        for server in &mut backend.servers {
            if let Some(endpoint) = known_address(&server.spec.address, heir) {
                let mut known = Server::clone(server);
                arrive(&mut known, endpoint, heir);
                *server = Arc::new(known);
            }
        }
        backend.picker = picker_for(&backend.servers, spec.allbackups);
        backend.status.up = is_up(&backend.servers);
        Arc::new(backend)
    }

    fn heirs_of_frontends(
        &self,
        config: &model::Config,
        targets: &[BackendId],
        heir: &Heir<'_>,
    ) -> Vec<Option<Arc<Frontend>>> {
        let known: HashMap<&str, &Arc<Frontend>> = self
            .frontends
            .iter()
            .flatten()
            .map(|frontend| (&*frontend.spec.name, frontend))
            .collect();
        let mut all: Vec<Option<Arc<Frontend>>> = vec![None; self.frontends.len()];
        for spec in &config.frontends {
            let target = targets[spec.default_backend.0];
            if let Some(before) = known.get(&*spec.name) {
                all[before.id.0 as usize] = Some(heir_of_frontend(before, spec, target));
            } else {
                let id = frontend_id(all.len());
                let frontend = Frontend::new((id, target), spec, heir.shards);
                all.push(Some(Arc::new(frontend)));
            }
        }
        all
    }

    /// The id of a frontend by its name.
    pub fn frontend_id(&self, name: &str) -> Option<FrontendId> {
        let mut frontends = self.frontends.iter().flatten();
        frontends
            .find(|frontend| *frontend.spec.name == *name)
            .map(|frontend| frontend.id)
    }
}

fn heir_of_frontend(
    before: &Arc<Frontend>,
    spec: &model::Frontend,
    target: BackendId,
) -> Arc<Frontend> {
    if before.spec == *spec && before.default_backend == target {
        return Arc::clone(before);
    }
    Arc::new(Frontend {
        id: before.id,
        default_backend: target,
        spec: spec.clone(),
        live: Arc::clone(&before.live),
    })
}

fn heir_of_backend(before: &Arc<Backend>, spec: &model::Backend, heir: &Heir<'_>) -> Arc<Backend> {
    if *before.spec == *spec {
        return Arc::clone(before);
    }
    let known: HashMap<&str, &Arc<Server>> = before
        .servers
        .iter()
        .map(|server| (&*server.spec.name, server))
        .collect();
    let servers: Vec<Arc<Server>> = spec
        .servers
        .iter()
        .map(|server| match known.get(&*server.name) {
            Some(before) => heir_of_server(before, server, heir),
            None => new_server(server, heir),
        })
        .collect();
    let up = is_up(&servers);
    Arc::new(Backend {
        id: before.id,
        live: Arc::clone(&before.live),
        picker: picker_for(&servers, spec.allbackups),
        status: if up == before.status.up {
            before.status
        } else {
            before.status.turned(up, heir.now)
        },
        servers,
        spec: Arc::new(spec.clone()),
    })
}

/// HAProxy's rule: a backend without servers counts as up.
fn is_up(servers: &[Arc<Server>]) -> bool {
    servers.is_empty() || !Usable::count(servers.iter().map(AsRef::as_ref)).is_empty()
}

fn new_server(spec: &model::Server, heir: &Heir<'_>) -> Arc<Server> {
    let live = Arc::new(ServerLive::new(Arc::clone(&spec.name), heir.shards));
    let mut server = Server::new(spec.clone(), live, heir.now);
    if let Some(endpoint) = known_address(&server.spec.address, heir) {
        arrive(&mut server, endpoint, heir);
    }
    Arc::new(server)
}

fn heir_of_server(before: &Arc<Server>, spec: &model::Server, heir: &Heir<'_>) -> Arc<Server> {
    let was = &before.spec;
    if **was == *spec {
        return Arc::clone(before);
    }
    let mut server = Server::clone(before);
    server.spec = Arc::new(spec.clone());
    if was.weight != spec.weight {
        server.weight = spec.weight;
    }
    if was.address != spec.address {
        server.endpoint =
            Endpoint::of(&spec.address).or_else(|| known_address(&spec.address, heir));
    }
    let mut admin = server.status.admin;
    if was.disabled != spec.disabled {
        let configured = AdminState::FMAINT.with(AdminState::CMAINT);
        admin = if spec.disabled {
            admin.with(configured)
        } else {
            admin.without(configured)
        };
    }
    admin = if server.endpoint.is_none() {
        admin.with(AdminState::RMAINT)
    } else {
        admin.without(AdminState::RMAINT)
    };
    let (rules_before, rules) = (before.rules(), server.rules());
    server.status.set_rules(rules_before, rules);
    if admin != server.status.admin {
        server.status.set_admin(admin, rules, heir.now);
    }
    if server_starts_over(was, spec) {
        server.status.start_over(rules, heir.now);
    }
    Arc::new(server)
}

/// Where a host name leads; `None` for other addresses.
fn known_address(address: &ServerAddress, heir: &Heir<'_>) -> Option<Endpoint> {
    match address {
        ServerAddress::Name(name, port) => {
            let ip = heir.addresses.get(name)?;
            Some(Endpoint::Ip(*ip, *port))
        }
        ServerAddress::Ip(..) | ServerAddress::Unix(_) => None,
    }
}

/// A new server whose name is resolved needs no maintenance for it.
fn arrive(server: &mut Server, endpoint: Endpoint, heir: &Heir<'_>) {
    server.endpoint = Some(endpoint);
    let (admin, rules) = (server.status.admin, server.rules());
    let admin = admin.without(AdminState::RMAINT);
    server.status = super::status::ServerStatus::initial(admin, rules, heir.now);
}

#[cfg(test)]
mod tests;
