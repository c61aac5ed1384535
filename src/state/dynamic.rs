//! Servers that operators add and remove at run time.
//!
//! Pure; the control task calls it between two batches, because positions of servers change.

use super::server::Server;
use super::status::AdminState;
use super::{Backend, BackendId, Route, Snapshot};
use crate::config::model;
use crate::live::ServerLive;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

/// `snapshot` with one server more in `backend`, in maintenance and not checked. `None`: there is no such backend, or
/// it has a server of that name.
pub fn add(
    snapshot: &Snapshot,
    backend: BackendId,
    spec: &Arc<model::Server>,
    (shards, now): (usize, Instant),
) -> Option<Snapshot> {
    let before = snapshot.backend(backend)?;
    let mut known = before.servers.iter();
    if known.any(|one| one.spec.name == spec.name) {
        return None;
    }
    let mut servers = before.servers.clone();
    servers.push(Arc::new(added(spec, (shards, now))));
    Some(replaced(snapshot, vec![before.with_servers(servers, now)]))
}

/// A server that is added: in maintenance and not checked.
pub(super) fn added(spec: &Arc<model::Server>, (shards, now): (usize, Instant)) -> Server {
    let live = Arc::new(ServerLive::new(Arc::clone(&spec.name), shards));
    let mut first = model::Server::clone(spec);
    first.check = None;
    let mut server = Server::new(first, live, now);
    let admin = server.status.admin.with(AdminState::FMAINT);
    server.status.set_admin(admin, server.rules(), now);
    server.added = Some(Arc::clone(spec));
    server
}

/// `snapshot` without the server `uid`. `None`: it is not there, not in maintenance, or has sessions.
pub fn remove(snapshot: &Snapshot, uid: u64, now: Instant) -> Option<Snapshot> {
    let mut backends = snapshot.backends.iter().flatten();
    let is_it = |server: &Arc<Server>| server.live.uid == uid;
    let before = backends.find(|backend| backend.servers.iter().any(is_it))?;
    let server = before.servers.iter().find(|server| is_it(server))?;
    if !server.status.admin.is_maint() || server.live.active.get() > 0 {
        return None;
    }
    let mut servers = before.servers.clone();
    servers.retain(|server| !is_it(server));
    Some(replaced(snapshot, vec![before.with_servers(servers, now)]))
}

/// `snapshot` with exactly the servers of the file; `None` when it has those.
pub fn as_written(snapshot: &Snapshot, (shards, now): (usize, Instant)) -> Option<Snapshot> {
    let mut changed = Vec::new();
    for backend in snapshot.backends.iter().flatten() {
        let names: HashSet<&str> = backend.servers.iter().map(|one| &*one.spec.name).collect();
        let added = backend.servers.iter().any(|one| one.added.is_some());
        let file = &backend.spec.servers;
        if !added && file.iter().all(|one| names.contains(&*one.name)) {
            continue;
        }
        let server = |spec: &model::Server| {
            let mut known = backend.servers.iter();
            let known = known.find(|one| one.added.is_none() && one.spec.name == spec.name);
            known.map_or_else(
                || {
                    let live = Arc::new(ServerLive::new(Arc::clone(&spec.name), shards));
                    Arc::new(Server::new(spec.clone(), live, now))
                },
                Arc::clone,
            )
        };
        changed.push(backend.with_servers(file.iter().map(server).collect(), now));
    }
    (!changed.is_empty()).then(|| replaced(snapshot, changed))
}

/// `snapshot` with these backends in the place of those with the same id, also where frontends lead to them.
pub(super) fn replaced(snapshot: &Snapshot, changed: Vec<Backend>) -> Snapshot {
    let mut next = snapshot.clone();
    let changed: Vec<Arc<Backend>> = changed.into_iter().map(Arc::new).collect();
    for backend in &changed {
        next.backends[backend.id.index()] = Some(Arc::clone(backend));
    }
    let find = |id: BackendId| changed.iter().find(|one| one.id == id).cloned();
    for frontend in next.frontends.iter_mut().flatten() {
        if let Some(route) = Route::with(&frontend.route, find) {
            *frontend = Arc::new(frontend.routed(route));
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::GlobalLive;
    use crate::state::test_config::{backend, config, frontend, server};
    use crate::state::{CarryOver, Origin};
    use std::collections::HashMap;

    fn names(snapshot: &Snapshot) -> Vec<&str> {
        let backend = snapshot.backends[0].as_ref().unwrap();
        let Route::To(routed) = &snapshot.frontends[0].as_ref().unwrap().route;
        assert!(Arc::ptr_eq(backend, routed), "the frontend leads to it");
        backend.servers.iter().map(|one| &*one.spec.name).collect()
    }

    #[test]
    fn servers_come_and_go_and_a_reload_keeps_them_so() {
        let now = Instant::now();
        let mut file = config(vec![backend("b", vec![server("s1"), server("s2")])]);
        file.frontends.push(frontend("f", 7));
        let origin = Origin {
            global: Arc::new(GlobalLive::new(now, 1)),
            maxconn: 100,
            shards: 1,
            now,
        };
        let first = Snapshot::initial(&file, &origin);
        let id = BackendId::first(0);
        let spec = Arc::new(server("n1"));
        let second = add(&first, id, &spec, (1, now)).unwrap();
        assert_eq!(names(&second), ["s1", "s2", "n1"]);
        assert!(add(&second, id, &spec, (1, now)).is_none(), "there is one");
        let added = &second.backends[0].as_ref().unwrap().servers[2];
        assert!(added.status.admin.is_maint() && added.spec.check.is_none());
        // A server that is not in maintenance stays.
        let s1 = second.backends[0].as_ref().unwrap().servers[0].live.uid;
        assert!(remove(&second, s1, now).is_none());
        let mut backend = Backend::clone(second.backends[0].as_ref().unwrap());
        let mut leaving = Server::clone(&backend.servers[0]);
        leaving
            .status
            .set_admin(AdminState::FMAINT, leaving.rules(), now);
        backend.servers[0] = Arc::new(leaving);
        let third = remove(&replaced(&second, vec![backend]), s1, now).unwrap();
        assert_eq!(names(&third), ["s2", "n1"]);
        // A reload keeps what was added and removed, also when the backend has changed.
        let carry = CarryOver {
            maxconn: 100,
            shards: 1,
            addresses: &HashMap::new(),
            now,
        };
        assert_eq!(names(&third.next_snapshot(&file, &carry)), ["s2", "n1"]);
        let mut other = file.clone();
        other.backends[0].retries = 9;
        let fourth = third.next_snapshot(&other, &carry);
        assert_eq!(names(&fourth), ["s2", "n1"]);
        // What the file itself says anew comes into force.
        other.backends[0].servers[0].weight = 7;
        other.backends[0].servers.push(server("n1"));
        let fifth = fourth.next_snapshot(&other, &carry);
        assert_eq!(names(&fifth), ["s1", "s2", "n1"]);
        let taken = &fifth.backends[0].as_ref().unwrap().servers[2];
        assert!(taken.added.is_none(), "it is in the file now");
        assert_eq!(names(&as_written(&third, (1, now)).unwrap()), ["s1", "s2"]);
        assert!(as_written(&first, (1, now)).is_none());
    }
}
