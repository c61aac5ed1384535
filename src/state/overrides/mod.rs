//! What operators have set at run time and the file says otherwise: the list of it, its end, and how the next
//! process has it.
//!
//! Pure. Health that an operator has forced is not among it, because the next checks decide it anew.

mod apply;
#[cfg(test)]
mod many_servers;
mod source_text;
mod text;

pub use apply::{apply, back_to_file};
pub use text::write;

use super::server::{Endpoint, Server, by_name};
use super::status::AdminState;
use super::{Backend, BackendId, FrontendId, FrontendState, Snapshot, SnapshotBuilder};
use crate::config::model::{self, Check, ServerAddress, ServerPort};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

/// Something that was set at run time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// `global`, `frontend NAME`, `backend NAME` or `server BACKEND/NAME`.
    pub object: String,
    /// What was set, by the name of its key.
    pub setting: &'static str,
    /// What the file says.
    pub file: String,
    /// What is in force.
    pub now: String,
}

impl Override {
    /// Whether it is the state of a frontend.
    pub fn is_state_of_frontend(&self) -> bool {
        self.setting == "state" && self.object.starts_with("frontend ")
    }
}

/// What something was set of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Object {
    Process,
    Stats,
    Frontend(FrontendId),
    Backend(BackendId),
    /// By its uid.
    Server(u64),
    /// A server of the file that was removed.
    Removed(BackendId, Arc<str>),
}

/// All of it: the process, the frontends and the servers, each in the order of the file.
pub fn list(snapshot: &Snapshot) -> Vec<Override> {
    let found = Found::of(snapshot).0;
    found.into_iter().map(|(_, one)| one).collect()
}

/// Those of `base` that the reload to `next` has not kept. An object that the file no longer has is not among them.
pub fn ended(base: &Snapshot, next: &Snapshot) -> Vec<Override> {
    let mut before = Found::of(base).0;
    if before.is_empty() {
        return Vec::new();
    }
    let now = Found::of(next).0;
    let kept: HashSet<_> = now.iter().map(|(of, one)| (of, one.setting)).collect();
    let servers = next.backends.iter().flatten().flat_map(|it| &it.servers);
    let servers: HashSet<u64> = servers.map(|one| one.live.uid).collect();
    let mut written = HashMap::new();
    for (of, _) in &before {
        if let Object::Removed(id, _) = of
            && let Some(backend) = next.backend(*id)
        {
            let servers = || by_name(&backend.spec.servers);
            written.entry(*id).or_insert_with(servers);
        }
    }
    let is_there = |object: &Object| match object {
        Object::Process => true,
        Object::Stats => next.stats.is_some(),
        Object::Frontend(id) => next.frontend(*id).is_some(),
        Object::Backend(id) => next.backend(*id).is_some(),
        Object::Server(uid) => servers.contains(uid),
        Object::Removed(id, name) => written.get(id).is_some_and(|it| it.contains_key(&**name)),
    };
    before.retain(|(of, one)| !kept.contains(&(of, one.setting)) && is_there(of));
    before.into_iter().map(|(_, one)| one).collect()
}

/// What was found, and of what.
struct Found(Vec<(Object, Override)>);

impl Found {
    fn of(snapshot: &Snapshot) -> Self {
        let mut found = Self(Vec::new());
        found.of_process(snapshot);
        let mut frontends: Vec<_> = snapshot.frontends.iter().flatten().collect();
        frontends.sort_by_key(|one| one.spec.order);
        for one in frontends {
            let shown = |limit: Option<u32>| limit.map_or_else(none, |limit| limit.to_string());
            let name = format!("frontend {}", one.spec.name);
            let of = (Object::Frontend(one.id), &*name);
            let values = (shown(one.spec.maxconn), shown(one.maxconn));
            found.add(&of, "maxconn", values);
            let states = (
                frontend_state(FrontendState::Open),
                frontend_state(one.state),
            );
            found.add(&of, "state", states);
        }
        let mut backends: Vec<_> = snapshot.backends.iter().flatten().collect();
        backends.sort_by_key(|one| one.spec.order);
        for backend in backends {
            let name = format!("backend {}", backend.spec.name);
            let of = (Object::Backend(backend.id), &*name);
            let values = (published(true), published(backend.published));
            found.add(&of, "state", values);
            found.of_servers(backend);
        }
        found
    }

    fn of_process(&mut self, snapshot: &Snapshot) {
        let of = (Object::Process, "global");
        let (file, now) = (snapshot.hard_maxconn, snapshot.maxconn);
        self.add(&of, "maxconn", (file.to_string(), now.to_string()));
        let (file, now) = (snapshot.written_rate_limits, snapshot.rate_limits);
        let values = (limit(file.connections), limit(now.connections));
        self.add(&of, "connections-rate", values);
        let values = (limit(file.sessions), limit(now.sessions));
        self.add(&of, "sessions-rate", values);
        if let (Some(stats), Some(set)) = (&snapshot.stats, snapshot.stats_maxconn) {
            let name = format!("frontend {}", stats.name);
            let values = (stats.maxconn.to_string(), set.to_string());
            self.add(&(Object::Stats, &name), "maxconn", values);
        }
    }

    fn of_servers(&mut self, backend: &Backend) {
        let file = by_name(&backend.spec.servers);
        let mut missing = file.clone();
        for server in &backend.servers {
            missing.remove(&*server.spec.name);
            if let Some(name) = &server.name_in_file {
                missing.remove(&**name);
            }
            let written = server.added.as_deref();
            let written = written.or_else(|| file.get(&*server.spec.name).copied());
            if let Some(written) = written {
                self.of_server((backend, server), written);
            }
        }
        let file = backend.spec.servers.iter();
        for gone in file.filter(|one| missing.contains_key(&*one.name)) {
            let name = format!("server {}/{}", backend.spec.name, gone.name);
            let of = (Object::Removed(backend.id, Arc::clone(&gone.name)), &*name);
            self.add(&of, "server", (address(&gone.address), none()));
        }
    }

    fn of_server(&mut self, (backend, server): (&Backend, &Server), file: &model::Server) {
        let states = (state(configured(file)), state(server.status.admin));
        if server.added.is_none()
            && states.0 == states.1
            && file.weight == server.weight
            && file.address == server.spec.address
            && file.check == server.spec.check
            && file.maxconn == server.spec.maxconn
        {
            return;
        }
        let name = format!("server {}/{}", backend.spec.name, server.spec.name);
        let of = (Object::Server(server.live.uid), &*name);
        if let Some(name) = &server.name_in_file {
            let values = (name.to_string(), server.spec.name.to_string());
            self.add(&of, "name", values);
        } else if server.added.is_some() {
            let values = (none(), address(&server.spec.address));
            self.add(&of, "server", values);
        }
        let weights = (file.weight.to_string(), server.weight.to_string());
        self.add(&of, "weight", weights);
        self.add(&of, "state", (states.0.to_owned(), states.1.to_owned()));
        let addresses = (address(&file.address), address(&server.spec.address));
        self.add(&of, "address", addresses);
        let limits = (limit(file.maxconn), limit(server.spec.maxconn));
        self.add(&of, "maxconn", limits);
        let checks = (
            check(file.check.as_ref()),
            check(server.spec.check.as_ref()),
        );
        self.add(&of, "check", checks);
    }

    /// Adds a setting whose two values differ.
    fn add(
        &mut self,
        (of, name): &(Object, &str),
        setting: &'static str,
        (file, now): (String, String),
    ) {
        if file != now {
            let object = (*name).to_owned();
            let one = Override {
                object,
                setting,
                file,
                now,
            };
            self.0.push((of.clone(), one));
        }
    }
}

/// A server that differs from what the file says of it.
#[derive(Debug)]
pub struct Overridden {
    /// Its backend.
    pub backend: BackendId,
    /// Its position there.
    pub index: usize,
    /// As the file says.
    pub written: Server,
}

/// Sets everything as the file says.
pub(super) fn drop_all(builder: &mut SnapshotBuilder, now: Instant) {
    drop_limits(builder);
    for one in overridden(builder, now) {
        builder.replace(one.backend, one.index, one.written, now);
    }
}

/// Sets the limits of the process, the statistics and the frontends, and whether frontends and backends are open, as the file
/// says.
pub fn drop_limits(builder: &mut SnapshotBuilder) {
    let base = Arc::clone(builder.base());
    let process = builder.process_mut();
    process.maxconn = base.hard_maxconn;
    process.rate_limits = base.written_rate_limits;
    process.stats_maxconn = None;
    for one in base.frontends.iter().flatten() {
        let now = builder.frontend(one.id).map(|it| (it.maxconn, it.state));
        if now.is_some_and(|now| now != (one.spec.maxconn, FrontendState::Open))
            && let Some(frontend) = builder.frontend_mut(one.id)
        {
            frontend.maxconn = one.spec.maxconn;
            frontend.state = FrontendState::Open;
        }
    }
    for backend in base.backends.iter().flatten() {
        if !builder.is_published(backend.id) {
            builder.publish(backend.id, true);
        }
    }
}

/// The servers of which operators have set something, as the file says.
pub fn overridden(builder: &SnapshotBuilder, now: Instant) -> Vec<Overridden> {
    let mut found = Vec::new();
    for backend in builder.base().backends.iter().flatten() {
        let file = by_name(&backend.spec.servers);
        for (index, before) in builder.servers(backend.id).iter().enumerate() {
            let Some(file) = file.get(&*before.spec.name) else {
                continue;
            };
            let mut written = Server::clone(before);
            as_written(&mut written, file, now);
            let same = written.spec == before.spec
                && written.weight == before.weight
                && written.status == before.status;
            if !same {
                found.push(Overridden {
                    backend: backend.id,
                    index,
                    written,
                });
            }
        }
    }
    found
}

/// Sets a server as the file says.
pub(super) fn as_written(server: &mut Server, file: &model::Server, now: Instant) {
    let rules = server.rules();
    if *server.spec != *file {
        if server.spec.address != file.address {
            // A name is looked up again.
            server.endpoint = Endpoint::of(&file.address).or(server.endpoint.take());
        }
        server.spec = Arc::new(file.clone());
        server.status.set_rules(rules, server.rules());
    }
    server.weight = file.weight;
    let unresolved = server.status.admin.has(AdminState::RMAINT);
    let mut admin = configured(file);
    if unresolved && server.endpoint.is_none() {
        admin = admin.with(AdminState::RMAINT);
    }
    if admin != server.status.admin {
        server.status.set_admin(admin, server.rules(), now);
    }
}

/// The administrative state that a server of the file begins with.
fn configured(file: &model::Server) -> AdminState {
    if file.disabled {
        AdminState::CMAINT.with(AdminState::FMAINT)
    } else {
        AdminState::READY
    }
}

/// As `set server … state` calls it.
fn state(admin: AdminState) -> &'static str {
    if admin.has(AdminState::FMAINT) {
        "maint"
    } else if admin.has(AdminState::FDRAIN) {
        "drain"
    } else {
        "ready"
    }
}

fn address(address: &ServerAddress) -> String {
    let port = |port: &ServerPort| match port {
        ServerPort::Fixed(port) => format!(":{port}"),
        ServerPort::FromClient(offset) => format!(":{offset:+}"),
    };
    match address {
        ServerAddress::Ip(ip, of) if ip.is_ipv6() => format!("[{ip}]{}", port(of)),
        ServerAddress::Ip(ip, of) => format!("{ip}{}", port(of)),
        ServerAddress::Name(name, of) => format!("{name}{}", port(of)),
        ServerAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// Whether there is a check, and where it connects to if that is not the server's address.
fn check(check: Option<&Check>) -> String {
    let Some(check) = check else {
        return "off".to_owned();
    };
    let address = check.address.map(|it| it.to_string());
    let port = check.port.map(|it| format!(":{it}"));
    match (address, port) {
        (None, None) => "on".to_owned(),
        (address, port) => address.unwrap_or_default() + &port.unwrap_or_default(),
    }
}

fn frontend_state(state: FrontendState) -> String {
    state.label().to_lowercase()
}

fn published(published: bool) -> String {
    let word = if published {
        "published"
    } else {
        "unpublished"
    };
    word.to_owned()
}

/// A limit of a rate; 0: none.
fn limit(limit: u32) -> String {
    if limit == 0 {
        return none();
    }
    limit.to_string()
}

fn none() -> String {
    "none".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::FrontendId;
    use crate::state::test_config::{backend, config, frontend, origin, server};

    #[test]
    fn what_was_set_is_listed_and_dropped() {
        let now = Instant::now();
        let mut config = config(vec![backend("b", vec![server("s1"), server("s2")])]);
        config.frontends.push(frontend("f", 7));
        let origin = origin(now);
        let first = Arc::new(Snapshot::initial(&config, &origin));
        assert_eq!(list(&first), []);
        let mut builder = SnapshotBuilder::new(Arc::clone(&first));
        builder.process_mut().maxconn = 9;
        builder.process_mut().rate_limits.sessions = 8;
        assert!(builder.publish(first.backends[0].as_ref().unwrap().id, false));
        let frontend = builder.frontend_mut(FrontendId::first(0)).unwrap();
        frontend.maxconn = Some(5);
        frontend.state = FrontendState::Stopped;
        let backend = first.backends[0].as_ref().unwrap();
        let mut changed = Server::clone(&backend.servers[1]);
        changed.weight = 7;
        changed.set_maxconn(3);
        let maint = AdminState::READY.with(AdminState::FMAINT);
        changed.status.set_admin(maint, changed.rules(), now);
        Arc::make_mut(&mut changed.spec).check = None;
        let elsewhere = ServerAddress::Ip([127, 0, 0, 2].into(), ServerPort::Fixed(9));
        Arc::make_mut(&mut changed.spec).address = elsewhere.clone();
        changed.endpoint = Endpoint::of(&elsewhere);
        builder.replace(backend.id, 1, changed, now);
        let second = Arc::new(builder.finish().unwrap());
        let lines: Vec<String> = list(&second)
            .into_iter()
            .map(|one| format!("{} {} {} {}", one.object, one.setting, one.file, one.now))
            .collect();
        assert_eq!(
            lines,
            [
                "global maxconn 100 9",
                "global sessions-rate none 8",
                "frontend f maxconn none 5",
                "frontend f state open stop",
                "backend b state published unpublished",
                "server b/s2 weight 1 7",
                "server b/s2 state ready maint",
                "server b/s2 address 127.0.0.1:9 127.0.0.2:9",
                "server b/s2 maxconn none 3",
                "server b/s2 check on off",
            ]
        );
        let mut builder = SnapshotBuilder::new(Arc::clone(&second));
        assert_eq!(builder.frontends_changed(), []);
        drop_all(&mut builder, now);
        let third = builder.finish().unwrap();
        assert_eq!(list(&third), []);
        let server = &third.backends[0].as_ref().unwrap().servers[1];
        assert!(third.backends[0].as_ref().unwrap().published);
        assert!(server.is_usable());
    }
}
