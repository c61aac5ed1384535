//! The snapshot after a reload: the new configuration's objects, with the state that objects of the same name
//! had before.
//!
//! Pure; called by the control task at the commit of a reload. Invariants: a name keeps its counters (`…Live`)
//! and its id. Health, administrative state, a weight that was set at run time and a resolved address stay,
//! unless the file's own value for the same thing has changed. An object that did not change is shared with the
//! snapshot before.

use super::dynamic;
use super::ids::{BackendId, FrontendId, Table};
use super::server::{Endpoint, Server, by_name};
use super::snapshot::{
    Api, Backend, Frontend, Origin, RateLimits, Route, Snapshot, is_by_slot, is_limited, picker_for,
};
use super::standing::settle;
use super::status::AdminState;
use crate::config::diff::server_starts_over;
use crate::config::model::{self, ServerAddress, StateFiles};
use crate::live::queue::Queue;
use crate::live::{FrontendLive, ServerLive};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// What the next snapshot needs besides the configuration.
#[derive(Debug)]
pub struct CarryOver<'a> {
    /// Most sessions of the process, after the check against the descriptor limit.
    pub maxconn: u32,
    /// Shards of the counters.
    pub shards: usize,
    /// Addresses of the host names that are known.
    pub addresses: &'a HashMap<Arc<str>, IpAddr>,
    /// Time of the commit.
    pub now: Instant,
}

impl Snapshot {
    /// The snapshot after this one when `config` comes into force.
    #[must_use]
    pub fn next_snapshot(&self, config: &model::Config, carry: &CarryOver<'_>) -> Self {
        let (backends, targets) = self.merge_backends(config, carry);
        let stats = config.stats.clone().map(Arc::new);
        let rates = RateLimits::of(&config.global);
        Self {
            global: Arc::clone(&self.global),
            maxconn: if self.hard_maxconn == carry.maxconn {
                self.maxconn
            } else {
                carry.maxconn
            },
            hard_maxconn: carry.maxconn,
            rate_limits: self.rate_limits.kept(self.written_rate_limits, rates),
            written_rate_limits: rates,
            stats_maxconn: self.stats_maxconn.filter(|_| {
                let written =
                    |stats: &Option<Arc<model::Stats>>| stats.as_ref().map(|it| it.maxconn);
                written(&self.stats) == written(&stats)
            }),
            stats_live: self.stats_live_for(stats.as_deref(), carry),
            stats,
            hard_stop_after: config.global.hard_stop_after,
            node: config.global.node.clone(),
            description: config.global.description.clone(),
            state_files: StateFiles::of(&config.global),
            api: Api::of(config.runtime_api.as_ref()),
            frontends: self.merge_frontends(config, &targets, carry),
            backends,
            reload: self.reload.wrapping_add(1),
        }
    }

    /// The addresses that servers with host names have now.
    pub fn known_addresses(&self) -> HashMap<Arc<str>, IpAddr> {
        let backends = self.backends.iter().flatten();
        let servers = backends.flat_map(|backend| &backend.servers);
        servers
            .filter_map(|server| match (&server.spec.address, &server.endpoint) {
                (ServerAddress::Name(name, _), Some(Endpoint::Ip(ip, _))) => {
                    Some((Arc::clone(name), *ip))
                }
                _ => None,
            })
            .collect()
    }

    fn stats_live_for(
        &self,
        stats: Option<&model::Stats>,
        carry: &CarryOver<'_>,
    ) -> Arc<FrontendLive> {
        match stats {
            Some(stats) if stats.name != self.stats_live.name => {
                Arc::new(FrontendLive::new(Arc::clone(&stats.name), carry.shards))
            }
            _ => Arc::clone(&self.stats_live),
        }
    }

    /// The backends by id, and the configuration's backends in its order.
    fn merge_backends(
        &self,
        config: &model::Config,
        carry: &CarryOver<'_>,
    ) -> (Vec<Option<Arc<Backend>>>, Vec<Arc<Backend>>) {
        let known: HashMap<&str, &Arc<Backend>> = self
            .backends
            .iter()
            .flatten()
            .map(|backend| (&*backend.spec.name, backend))
            .collect();
        let kept = config.backends.iter().filter_map(|spec| {
            let before = known.get(&*spec.name)?;
            Some((before.id.index(), merge_backend(before, spec, carry)))
        });
        let mut table = Table::of(kept);
        let in_order = config.backends.iter().map(|spec| {
            let before = known.get(&*spec.name);
            let kept = before.and_then(|before| table.get(before.id.index()));
            kept.unwrap_or_else(|| {
                let id = BackendId::given(table.free(), self.reload.wrapping_add(1));
                let backend = self.new_backend(id, spec, carry);
                table.add(Arc::clone(&backend));
                backend
            })
        });
        let in_order = in_order.collect();
        (table.finish(), in_order)
    }

    fn new_backend(
        &self,
        id: BackendId,
        spec: &model::Backend,
        carry: &CarryOver<'_>,
    ) -> Arc<Backend> {
        let origin = Origin {
            global: Arc::clone(&self.global),
            maxconn: carry.maxconn,
            shards: carry.shards,
            now: carry.now,
        };
        let mut backend = Backend::initial(id, spec, &origin);
        for server in &mut backend.servers {
            if let Some(endpoint) = known_address(&server.spec.address, carry) {
                let mut known = Server::clone(server);
                set_address(&mut known, endpoint, carry);
                *server = Arc::new(known);
            }
        }
        (backend.status.fail_open, backend.status.up) = settle(&mut backend.servers, spec);
        backend.picker = picker_for(&backend.servers, spec);
        Arc::new(backend)
    }

    fn merge_frontends(
        &self,
        config: &model::Config,
        targets: &[Arc<Backend>],
        carry: &CarryOver<'_>,
    ) -> Vec<Option<Arc<Frontend>>> {
        let known = self.frontends_by_name();
        let by_name: HashMap<&str, &Arc<Backend>> =
            targets.iter().map(|one| (&*one.spec.name, one)).collect();
        let find = |name: &str| by_name.get(name).copied();
        let route = |spec: &model::Frontend| Route::new(&targets[spec.default_backend.0], find);
        let kept = config.frontends.iter().filter_map(|spec| {
            let before = known.get(&*spec.name)?;
            let frontend = merge_frontend(before, spec, route(spec));
            Some((before.id.index(), frontend))
        });
        let mut table = Table::of(kept);
        let new = config.frontends.iter();
        for spec in new.filter(|spec| !known.contains_key(&*spec.name)) {
            let id = FrontendId::given(table.free(), self.reload.wrapping_add(1));
            let frontend = Frontend::new(id, route(spec), spec, carry.shards);
            table.add(Arc::new(frontend));
        }
        table.finish()
    }

    /// The frontends by their names.
    pub fn frontends_by_name(&self) -> HashMap<&str, &Arc<Frontend>> {
        let frontends = self.frontends.iter().flatten();
        frontends
            .map(|frontend| (&*frontend.spec.name, frontend))
            .collect()
    }
}

fn merge_frontend(before: &Arc<Frontend>, spec: &model::Frontend, route: Route) -> Arc<Frontend> {
    if *before.spec != *spec {
        let kept = before.spec.maxconn == spec.maxconn;
        return Arc::new(Frontend {
            id: before.id,
            route,
            state: before.state,
            maxconn: if kept { before.maxconn } else { spec.maxconn },
            spec: Arc::new(spec.clone()),
            live: Arc::clone(&before.live),
        });
    }
    if before.route.is_same(&route) {
        return Arc::clone(before);
    }
    Arc::new(before.routed(route))
}

fn merge_backend(
    before: &Arc<Backend>,
    spec: &model::Backend,
    carry: &CarryOver<'_>,
) -> Arc<Backend> {
    if *before.spec == *spec {
        return Arc::clone(before);
    }
    let known = KnownServers::of(before, spec);
    let servers = spec.servers.iter();
    let servers = servers.filter_map(|server| known.follow(server, carry));
    let added = before.servers.iter().filter(|server| known.stays(server));
    let mut servers: Vec<Arc<Server>> = servers.chain(added.cloned()).collect();
    dynamic::give_ids(&spec.servers, &mut servers);
    let status = settle(&mut servers, spec);
    let (generation, renewals) = before.renew(&mut servers);
    Arc::new(Backend {
        id: before.id,
        live: Arc::clone(&before.live),
        picker: picker_for(&servers, spec),
        limited: is_limited(&servers),
        by_slot: is_by_slot(&servers, spec),
        status: before.status.after(status, carry.now),
        published: before.published,
        generation,
        renewals,
        servers,
        spec: Arc::new(spec.clone()),
    })
}

/// The servers of a backend before a reload and in the new file, by their names.
struct KnownServers<'a> {
    /// The queues of the backend.
    queue: &'a Arc<Queue>,
    /// By the names that are in force.
    in_force: HashMap<&'a str, &'a Arc<Server>>,
    /// Those that have another name than in the file, by their names in the file.
    renamed: HashMap<&'a str, &'a Arc<Server>>,
    /// As the file had them.
    written: HashMap<&'a str, &'a model::Server>,
    /// As the file has them now.
    file: HashMap<&'a str, &'a model::Server>,
}

impl<'a> KnownServers<'a> {
    fn of(before: &'a Backend, spec: &'a model::Backend) -> Self {
        let in_force = before.servers.iter();
        let renamed = before.servers.iter();
        Self {
            queue: &before.live.queue,
            in_force: in_force.map(|one| (&*one.spec.name, one)).collect(),
            renamed: renamed
                .filter_map(|one| Some((one.name_in_file.as_deref()?, one)))
                .collect(),
            written: by_name(&before.spec.servers),
            file: by_name(&spec.servers),
        }
    }

    /// Whether a server keeps a name that the file does not have: it was added, or renamed and the file says of it what
    /// it said before.
    fn stays(&self, server: &Server) -> bool {
        let unchanged = |name: &Arc<str>| {
            let now = self.file.get(&**name);
            now.is_some() && now == self.written.get(&**name)
        };
        server.added.is_some()
            && !self.file.contains_key(&*server.spec.name)
            && server.name_in_file.as_ref().is_none_or(unchanged)
    }

    /// Whether the file has a server of the name that an operator has given to this one, beside this one: then this one
    /// gets the file's name again.
    fn goes_back(&self, server: &Server) -> bool {
        let mut name = server.name_in_file.iter();
        name.any(|name| self.file.contains_key(&**name) && !self.in_force.contains_key(&**name))
    }

    /// The server that follows for one of the file; `None`: an operator has removed or renamed it, and the file says of
    /// it what it said before.
    fn follow(&self, server: &model::Server, carry: &CarryOver<'_>) -> Option<Arc<Server>> {
        let was = self.written.get(&*server.name).copied();
        let in_force = self.in_force.get(&*server.name);
        let before = match (in_force, self.renamed.get(&*server.name)) {
            (Some(one), _) if self.goes_back(one) => return Some(self.new_server(server, carry)),
            (None, Some(one)) if self.stays(one) => return None,
            (Some(one), _) | (None, Some(one)) => one,
            (None, None) if was == Some(server) => return None,
            (None, None) => return Some(self.new_server(server, carry)),
        };
        let was = was.unwrap_or(&before.spec);
        Some(merge_server(before, was, server, carry))
    }

    fn new_server(&self, spec: &model::Server, carry: &CarryOver<'_>) -> Arc<Server> {
        let live = Arc::new(ServerLive::new(self.queue, carry.shards));
        let mut server = Server::new(spec.clone(), live, carry.now);
        if let Some(endpoint) = known_address(&server.spec.address, carry) {
            set_address(&mut server, endpoint, carry);
        }
        Arc::new(server)
    }
}

/// `was`: the server as the file had it. What an operator has set since stays as long as the file's own value does.
fn merge_server(
    before: &Arc<Server>,
    was: &model::Server,
    spec: &model::Server,
    carry: &CarryOver<'_>,
) -> Arc<Server> {
    if *was == *spec && before.added.is_none() {
        return Arc::clone(before);
    }
    let mut server = Server::clone(before);
    (server.added, server.name_in_file) = (None, None);
    let mut next = spec.clone();
    if was.address == spec.address {
        next.address.clone_from(&before.spec.address);
    }
    if was.check == spec.check {
        next.check.clone_from(&before.spec.check);
    }
    server.spec = Arc::new(next);
    if was.maxconn == spec.maxconn && before.spec.maxconn != was.maxconn {
        server.set_maxconn(before.spec.maxconn);
    }
    if was.weight != spec.weight {
        server.weight = spec.weight;
    }
    if was.address != spec.address {
        server.endpoint =
            Endpoint::of(&spec.address).or_else(|| known_address(&spec.address, carry));
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
        server.status.set_admin(admin, rules, carry.now);
    }
    if server_starts_over(was, spec) {
        server.status.start_over(rules, carry.now);
    }
    // The time of a slow start that is under way may be another one.
    server.status.step(rules, carry.now);
    Arc::new(server)
}

/// The address of a host name, if it is known; `None` for other kinds of address.
fn known_address(address: &ServerAddress, carry: &CarryOver<'_>) -> Option<Endpoint> {
    match address {
        ServerAddress::Name(name, port) => {
            let ip = carry.addresses.get(name)?;
            Some(Endpoint::Ip(*ip, *port))
        }
        ServerAddress::Ip(..) | ServerAddress::Unix(_) => None,
    }
}

/// Gives an address to a new server with a host name, so that it does not begin in maintenance.
fn set_address(server: &mut Server, endpoint: Endpoint, carry: &CarryOver<'_>) {
    server.endpoint = Some(endpoint);
    let (admin, rules) = (server.status.admin, server.rules());
    let admin = admin.without(AdminState::RMAINT);
    server.status = super::status::ServerStatus::initial(admin, rules, carry.now);
}

#[cfg(test)]
mod tests;
