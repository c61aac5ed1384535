//! Servers that operators add, remove and rename at run time.
//!
//! Pure; the control task calls it between two batches, because positions of servers change.

use super::server::Server;
use super::status::AdminState;
use super::{Backend, BackendId, Snapshot, overrides};
use crate::config::model;
use crate::live::ServerLive;
use crate::live::queue::Queue;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

/// The id of a server that is to get the lowest one that is free in its backend.
pub const CHOSEN: u32 = 0;

/// `snapshot` with one server more in `backend`, in maintenance and not checked. `None`: there is no such backend, or
/// it has a server of that name or id.
pub fn add(
    snapshot: &Snapshot,
    backend: BackendId,
    spec: &Arc<model::Server>,
    (shards, now): (usize, Instant),
) -> Option<Snapshot> {
    let before = snapshot.backend(backend)?;
    let mut known = before.servers.iter();
    if known.any(|one| one.spec.name == spec.name || one.spec.id == spec.id) {
        return None;
    }
    let mut servers = before.servers.clone();
    servers.push(Arc::new(added(spec, &before.live.queue, (shards, now))));
    give_ids(&before.spec.servers, &mut servers);
    Some(replaced(snapshot, vec![before.with_servers(servers, now)]))
}

/// Gives each server that was added, and whose id is [`CHOSEN`] or that of a server of the `file` or of one before
/// it, the lowest id that is free.
pub(super) fn give_ids(file: &[model::Server], servers: &mut [Arc<Server>]) {
    let written = servers.iter().filter(|one| one.added.is_none());
    let written = written.map(|one| one.spec.id);
    let mut taken: HashSet<u32> = written.collect();
    let mut anew = Vec::new();
    for (index, server) in servers.iter().enumerate() {
        let id = server.spec.id;
        if server.added.is_some() && (id == CHOSEN || !taken.insert(id)) {
            anew.push(index);
        }
    }
    // A server of the file that an operator has removed comes back with its id.
    taken.extend(file.iter().map(|one| one.id));
    let mut free = (1..).filter(|id| !taken.contains(id));
    for index in anew {
        let server = Arc::make_mut(&mut servers[index]);
        let Some(id) = free.next() else { return };
        Arc::make_mut(&mut server.spec).id = id;
        if let Some(added) = &mut server.added {
            Arc::make_mut(added).id = id;
        }
    }
}

/// A server that is added to the backend with this `queue`: in maintenance and not checked.
pub(super) fn added(
    spec: &Arc<model::Server>,
    queue: &Arc<Queue>,
    (shards, now): (usize, Instant),
) -> Server {
    let live = Arc::new(ServerLive::new(queue, shards));
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

/// `snapshot` with another name for the server `uid`, which keeps everything else. `None`: it is not there or not in
/// maintenance, or another server of its backend or of the file has the name.
pub fn rename(snapshot: &Snapshot, uid: u64, name: &Arc<str>, now: Instant) -> Option<Snapshot> {
    let mut backends = snapshot.backends.iter().flatten();
    let is_it = |server: &Arc<Server>| server.live.uid == uid;
    let before = backends.find(|backend| backend.servers.iter().any(is_it))?;
    let index = before.servers.iter().position(is_it)?;
    let old = &before.servers[index];
    let is_back = old.name_in_file.as_ref() == Some(name);
    if !old.status.admin.is_maint() || before.has_name(name) && !is_back {
        return None;
    }
    let mut server = Server::clone(old);
    Arc::make_mut(&mut server.spec).name = Arc::clone(name);
    if is_back {
        (server.added, server.name_in_file) = (None, None);
    } else {
        let mut added = before.written(old)?.clone();
        if old.added.is_none() {
            server.name_in_file = Some(added.name);
        }
        added.name = Arc::clone(name);
        server.added = Some(Arc::new(added));
    }
    let mut servers = before.servers.clone();
    servers[index] = Arc::new(server);
    Some(replaced(snapshot, vec![before.with_servers(servers, now)]))
}

/// A server that an operator has given another name, as the file says.
fn named_as_written(server: &Server, spec: &model::Server, now: Instant) -> Server {
    let mut server = Server::clone(server);
    (server.added, server.name_in_file) = (None, None);
    overrides::as_written(&mut server, spec, now);
    server
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
        let in_file = backend.servers.iter().filter(|one| one.added.is_none());
        let in_file: HashMap<&str, _> = in_file.map(|one| (&*one.spec.name, one)).collect();
        let renamed = backend.servers.iter();
        let renamed = renamed.filter_map(|one| Some((one.name_in_file.as_deref()?, one)));
        let renamed: HashMap<&str, _> = renamed.collect();
        let server = |spec: &model::Server| {
            let name = &*spec.name;
            match (in_file.get(name), renamed.get(name)) {
                (Some(known), _) => Arc::clone(known),
                (None, Some(renamed)) => Arc::new(named_as_written(renamed, spec, now)),
                (None, None) => {
                    let live = Arc::new(ServerLive::new(&backend.live.queue, shards));
                    Arc::new(Server::new(spec.clone(), live, now))
                }
            }
        };
        changed.push(backend.with_servers(file.iter().map(server).collect(), now));
    }
    (!changed.is_empty()).then(|| replaced(snapshot, changed))
}

/// `snapshot` with these backends in the place of those with the same id, also where frontends lead to them.
pub(super) fn replaced(snapshot: &Snapshot, changed: Vec<Backend>) -> Snapshot {
    let mut next = snapshot.clone();
    let changed = changed.into_iter().map(|one| (one.id, Arc::new(one)));
    let changed: HashMap<BackendId, Arc<Backend>> = changed.collect();
    for (id, backend) in &changed {
        next.backends[id.index()] = Some(Arc::clone(backend));
    }
    let find = |id: BackendId| changed.get(&id).cloned();
    for frontend in next.frontends.iter_mut().flatten() {
        if let Some(route) = frontend.route.with(&find) {
            *frontend = Arc::new(frontend.routed(route));
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::CarryOver;
    use crate::state::test_config::{backend, config, frontend, origin, server};
    use std::collections::HashMap;

    fn names(snapshot: &Snapshot) -> Vec<&str> {
        let backend = snapshot.backends[0].as_ref().unwrap();
        let routed = snapshot.frontends[0].as_ref().unwrap().route.backend();
        assert!(Arc::ptr_eq(backend, routed), "the frontend leads to it");
        backend.servers.iter().map(|one| &*one.spec.name).collect()
    }

    fn ids(snapshot: &Snapshot) -> Vec<(&str, u32)> {
        let servers = &snapshot.backends[0].as_ref().unwrap().servers;
        let ids = servers.iter().map(|one| {
            let added = one.added.as_ref();
            assert!(added.is_none_or(|added| added.id == one.spec.id));
            (&*one.spec.name, one.spec.id)
        });
        ids.collect()
    }

    /// Two commands at once, and a later file with more servers, gave several servers of a backend one id.
    #[test]
    fn ids_of_added_servers_are_their_own() {
        let now = Instant::now();
        let numbered = |name, id| model::Server { id, ..server(name) };
        let file = config(vec![backend(
            "b",
            vec![numbered("s1", 1), numbered("s2", 2)],
        )]);
        let origin = origin(now);
        let first = Snapshot::initial(&file, &origin);
        let id = BackendId::first(0);
        let add =
            |base: &Snapshot, name, own| add(base, id, &Arc::new(numbered(name, own)), (1, now));
        // Both were read when there were two servers.
        let second = add(&first, "n1", CHOSEN).unwrap();
        let second = add(&second, "n2", CHOSEN).unwrap();
        assert_eq!(ids(&second), [("s1", 1), ("s2", 2), ("n1", 3), ("n2", 4)]);
        assert!(add(&second, "n3", 4).is_none(), "n2 has it");
        let second = add(&second, "n3", 9).unwrap();
        // The file's own number wins.
        let mut more = file.clone();
        more.backends[0].servers.push(numbered("s3", 3));
        let carry = CarryOver {
            maxconn: 100,
            shards: 1,
            addresses: &HashMap::new(),
            now,
        };
        let third = second.next_snapshot(&more, &carry);
        let expected = [
            ("s1", 1),
            ("s2", 2),
            ("s3", 3),
            ("n1", 5),
            ("n2", 4),
            ("n3", 9),
        ];
        assert_eq!(ids(&third), expected);
        // So it is in the process after this one.
        let text = crate::state::overrides::write(&second);
        let fresh = Arc::new(Snapshot::initial(&more, &origin));
        let next = crate::state::overrides::apply(&fresh, &text, (1, now)).unwrap();
        assert_eq!(ids(&next), expected);
    }

    #[test]
    fn servers_come_and_go_and_a_reload_keeps_them_so() {
        let now = Instant::now();
        let mut file = config(vec![backend("b", vec![server("s1"), server("s2")])]);
        file.frontends.push(frontend("f", 7));
        let origin = origin(now);
        let first = Snapshot::initial(&file, &origin);
        let id = BackendId::first(0);
        let spec = Arc::new(model::Server {
            id: 9,
            ..server("n1")
        });
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
        assert_eq!(added.spec.id, 9, "its own");
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
    /// The names of the servers in this process, in the next one, and after the overrides are dropped.
    fn names_everywhere(snapshot: &Snapshot, file: &model::Config) -> [Vec<String>; 3] {
        let now = Instant::now();
        let origin = origin(now);
        let text = overrides::write(snapshot);
        let fresh = Arc::new(Snapshot::initial(file, &origin));
        let next = overrides::apply(&fresh, &text, (1, now));
        let next = next.map_or(fresh, Arc::new);
        assert_eq!(overrides::list(snapshot), overrides::list(&next));
        let dropped = as_written(snapshot, (1, now));
        let dropped = dropped.unwrap_or_else(|| snapshot.clone());
        [snapshot, &next, &dropped].map(|one| names(one).into_iter().map(str::to_owned).collect())
    }

    /// A server that was renamed keeps what it has, over reloads and upgrades, until the file says something else of it.
    #[test]
    fn a_renamed_server_keeps_all_else() {
        let now = Instant::now();
        let mut down = server("s1");
        (down.disabled, down.id) = (true, 1);
        let two = model::Server {
            id: 2,
            ..server("s2")
        };
        let mut file = config(vec![backend("b", vec![down, two])]);
        file.frontends.push(frontend("f", 7));
        let origin = origin(now);
        let first = Snapshot::initial(&file, &origin);
        let servers = &first.backends[0].as_ref().unwrap().servers;
        let uids: Vec<u64> = servers.iter().map(|one| one.live.uid).collect();
        let to = |base: &Snapshot, uid, name: &str| rename(base, uid, &name.into(), now);
        assert!(to(&first, uids[0], "s2").is_none(), "another has it");
        assert!(to(&first, uids[1], "n").is_none(), "not in maintenance");
        assert!(to(&first, 0, "n").is_none());
        let second = to(&first, uids[0], "n").unwrap();
        assert!(to(&second, uids[0], "s2").is_none());
        let renamed = &second.backends[0].as_ref().unwrap().servers[0];
        assert_eq!((renamed.live.uid, renamed.spec.id), (uids[0], 1));
        let listed = overrides::list(&second);
        let [one] = &listed[..] else {
            panic!("{listed:?}")
        };
        let shown = (&*one.object, one.setting, &*one.file, &*one.now);
        assert_eq!(shown, ("server b/n", "name", "s1", "n"));
        let [mine, next, dropped] = names_everywhere(&second, &file);
        assert_eq!(mine, ["n", "s2"]);
        // In the next process it is behind those of the file, as one that was added.
        assert_eq!(next, ["s2", "n"]);
        assert_eq!(dropped, ["s1", "s2"]);
        let back = as_written(&second, (1, now)).unwrap();
        let back = &back.backends[0].as_ref().unwrap().servers[0];
        assert_eq!((back.live.uid, back.added.is_none()), (uids[0], true));
        // Back to the name of the file, by way of a third one.
        let third = to(&second, uids[0], "m").unwrap();
        assert_eq!(overrides::list(&third)[0].file, "s1");
        let third = to(&third, uids[0], "s1").unwrap();
        assert_eq!(overrides::list(&third), []);

        let carry = CarryOver {
            maxconn: 100,
            shards: 1,
            addresses: &HashMap::new(),
            now,
        };
        let reloaded = |file: &model::Config| {
            let next = second.next_snapshot(file, &carry);
            let backend = next.backends[0].as_ref().unwrap();
            let same = backend.servers.iter().any(|one| one.live.uid == uids[0]);
            let names: Vec<String> = names(&next).into_iter().map(str::to_owned).collect();
            (names.join(" "), same, overrides::list(&next).len())
        };
        let mut other = file.clone();
        other.backends[0].retries = 9;
        assert_eq!(reloaded(&other), ("s2 n".to_owned(), true, 1));
        // The file itself says something else of it, has the new name, or has neither.
        other.backends[0].servers[0].weight = 7;
        assert_eq!(reloaded(&other), ("s1 s2".to_owned(), true, 0));
        other.backends[0].servers[0].name = "n".into();
        assert_eq!(reloaded(&other), ("n s2".to_owned(), true, 0));
        other.backends[0].servers.remove(0);
        assert_eq!(reloaded(&other), ("s2".to_owned(), false, 0));
        let text = overrides::write(&second);
        let fresh = Arc::new(Snapshot::initial(&other, &origin));
        assert!(overrides::apply(&fresh, &text, (1, now)).is_none());
    }
}
