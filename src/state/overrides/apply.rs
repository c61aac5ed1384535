//! What operators have set in another process, in force again in this one.
//!
//! Pure. The rules are those of a reload ([`crate::state::carry_over`]): a setting stays unless the file's own value
//! for the same thing has changed; a server that was added stays unless the file has one of its name; a server that
//! was removed stays away as long as the file says of it what it said before.

use super::text::{ServerSetting, Setting, read};
use super::{drop_all, list};
use crate::config::model;
use crate::state::server::by_name;
use crate::state::{Backend, BackendId, Endpoint, Server, Snapshot, SnapshotBuilder, dynamic};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

/// `base` with exactly what `text` says was set, of what [`super::text::write`] has; `None`: it is so already.
pub fn apply(
    base: &Arc<Snapshot>,
    text: &str,
    (shards, now): (usize, Instant),
) -> Option<Snapshot> {
    let settings = as_reload(base, read(text));
    let mut next = Arc::clone(base);
    if !list(base).is_empty() {
        let mut builder = SnapshotBuilder::new(Arc::clone(&next));
        drop_all(&mut builder, now);
        next = builder.finish().map_or(next, Arc::new);
        next = dynamic::as_written(&next, (shards, now)).map_or(next, Arc::new);
    }
    next = servers(&next, &settings, (shards, now)).map_or(next, Arc::new);
    let mut builder = SnapshotBuilder::new(Arc::clone(&next));
    values(&mut builder, &settings, now);
    next = builder.finish().map_or(next, Arc::new);
    (!Arc::ptr_eq(base, &next)).then(|| Arc::unwrap_or_clone(next))
}

/// The names of servers that have the name of the file again, with that name, each with its backend's.
type BackToFile<'a> = HashMap<(&'a str, &'a str), &'a Arc<str>>;

/// The servers that an operator has given another name and that have the file's here, because the file has a server of
/// the other name, or does not say of them what it said before.
fn back<'a>(base: &Snapshot, settings: &'a [Setting]) -> BackToFile<'a> {
    let backends = base.backends.iter().flatten();
    let backends: HashMap<&str, _> = backends
        .map(|backend| {
            let file = by_name(&backend.spec.servers);
            (&*backend.spec.name, file)
        })
        .collect();
    let added: HashSet<(&str, &str)> = settings.iter().filter_map(added).collect();
    let back = settings.iter().filter_map(|one| {
        let Setting::Server {
            backend,
            server,
            setting:
                ServerSetting::Added {
                    spec,
                    name_in_file: Some(name),
                },
        } = one
        else {
            return None;
        };
        let file = backends.get(&**backend)?;
        let written = file.get(&**name)?;
        let stays = !file.contains_key(&**server) && is_renamed(written, spec);
        let free = !added.contains(&(&**backend, &**name));
        (!stays && free).then_some(((&**backend, &**server), name))
    });
    back.collect()
}

/// The names, with the one of the file, that [`back`] has for the text of [`super::text::write`]; each with its
/// backend's.
pub fn back_to_file(base: &Snapshot, text: &str) -> HashMap<(Box<str>, Box<str>), Arc<str>> {
    let settings = read(text);
    let back = back(base, &settings).into_iter();
    back.map(|((backend, server), name)| ((backend.into(), server.into()), Arc::clone(name)))
        .collect()
}

/// The settings, those of servers that have the name of the file again under that name.
fn as_reload(base: &Snapshot, settings: Vec<Setting>) -> Vec<Setting> {
    let back = back(base, &settings);
    if back.is_empty() {
        return settings;
    }
    let removed: HashSet<(&str, &str)> = back
        .iter()
        .map(|((backend, _), name)| (*backend, &***name))
        .collect();
    let settings = settings.iter().filter_map(|one| {
        let Setting::Server {
            backend,
            server,
            setting,
        } = one
        else {
            return Some(one.clone());
        };
        let named = back.get(&(&**backend, &**server));
        match (setting, named) {
            (ServerSetting::Removed(_), _) if removed.contains(&(&**backend, &**server)) => None,
            (ServerSetting::Added { .. }, Some(_)) => None,
            (_, Some(name)) => Some(Setting::Server {
                backend: backend.clone(),
                server: (&***name).into(),
                setting: setting.clone(),
            }),
            (_, None) => Some(one.clone()),
        }
    });
    settings.collect()
}

/// The servers that were added and removed.
fn servers(base: &Snapshot, settings: &[Setting], of: (usize, Instant)) -> Option<Snapshot> {
    let mut changed: HashMap<&str, Vec<&ServerSetting>> = HashMap::new();
    for one in settings {
        if let Setting::Server {
            backend, setting, ..
        } = one
        {
            changed.entry(backend).or_default().push(setting);
        }
    }
    let mut backends = Vec::new();
    for backend in base.backends.iter().flatten() {
        let Some(settings) = changed.get(&*backend.spec.name) else {
            continue;
        };
        let mut servers = backend.servers.clone();
        // First, because one that was added may have the name of one that was removed.
        let removed = settings.iter().filter_map(|setting| match setting {
            ServerSetting::Removed(was) => Some((&*was.name, was)),
            _ => None,
        });
        let removed: HashMap<&str, &Arc<model::Server>> = removed.collect();
        servers.retain(|one| removed.get(&*one.spec.name) != Some(&&one.spec));
        let mut names: HashSet<Arc<str>> = servers
            .iter()
            .map(|one| Arc::clone(&one.spec.name))
            .collect();
        let file = by_name(&backend.spec.servers);
        for setting in settings {
            let ServerSetting::Added { spec, name_in_file } = setting else {
                continue;
            };
            let written = |name: &Arc<str>| file.get(&**name).copied();
            let stays = name_in_file
                .as_ref()
                .is_none_or(|name| written(name).is_some_and(|it| is_renamed(it, spec)));
            if stays && names.insert(Arc::clone(&spec.name)) {
                let mut server = dynamic::added(spec, &backend.live.queue, of);
                server.name_in_file.clone_from(name_in_file);
                servers.push(Arc::new(server));
            }
        }
        dynamic::give_ids(&backend.spec.servers, &mut servers);
        let same = servers.len() == backend.servers.len();
        let mut pairs = servers.iter().zip(&backend.servers);
        if !same || pairs.any(|(one, other)| !Arc::ptr_eq(one, other)) {
            backends.push(backend.with_servers(servers, of.1));
        }
    }
    (!backends.is_empty()).then(|| dynamic::replaced(base, backends))
}

/// Whether the file says of a server, now as `written`, what it said when an operator gave it the name of `spec`.
fn is_renamed(written: &model::Server, spec: &model::Server) -> bool {
    let renamed = model::Server {
        name: Arc::clone(&spec.name),
        ..written.clone()
    };
    renamed == *spec
}

/// Everything else.
fn values(builder: &mut SnapshotBuilder, settings: &[Setting], now: Instant) {
    let base = Arc::clone(builder.base());
    let frontends = base.frontends_by_name();
    let servers: HashSet<&str> = settings.iter().filter_map(server_of).collect();
    let backends: HashMap<&str, Known<'_>> = base
        .backends
        .iter()
        .flatten()
        .map(|backend| {
            let name = &*backend.spec.name;
            (name, Known::of(backend, servers.contains(name)))
        })
        .collect();
    let added: HashSet<(&str, &str)> = settings.iter().filter_map(added).collect();
    for setting in settings {
        match setting {
            Setting::Maxconn { file, now } if base.hard_maxconn == *file => {
                builder.process_mut().maxconn = *now;
            }
            Setting::StatsMaxconn { file, now }
                if base.stats.as_ref().is_some_and(|it| it.maxconn == *file) =>
            {
                builder.process_mut().stats_maxconn = Some(*now);
            }
            Setting::FrontendMaxconn {
                frontend,
                file,
                now,
            } => {
                let known = frontends.get(&**frontend);
                if let Some(known) = known.filter(|it| it.spec.maxconn == *file)
                    && let Some(frontend) = builder.frontend_mut(known.id)
                {
                    frontend.maxconn = *now;
                }
            }
            Setting::RateLimits { file, now } => {
                builder.process_mut().rate_limits = now.kept(*file, base.written_rate_limits);
            }
            Setting::FrontendState { frontend, now } => {
                let known = frontends.get(&**frontend);
                if let Some(frontend) = known.and_then(|it| builder.frontend_mut(it.id)) {
                    frontend.state = *now;
                }
            }
            Setting::Unpublished { backend } => {
                if let Some(known) = backends.get(&**backend) {
                    builder.publish(known.id, false);
                }
            }
            Setting::Server {
                backend,
                server,
                setting,
            } => {
                let was_added = added.contains(&(&**backend, &**server));
                if let Some(known) = backends.get(&**backend) {
                    set(builder, (known, server, was_added), setting, now);
                }
            }
            Setting::Maxconn { .. } | Setting::StatsMaxconn { .. } => {}
        }
    }
}

/// The backend and the name of a server that was added.
fn added(setting: &Setting) -> Option<(&str, &str)> {
    match setting {
        Setting::Server {
            backend,
            server,
            setting: ServerSetting::Added { .. },
        } => Some((backend, server)),
        _ => None,
    }
}

/// The name of the backend of a server that something was set of.
fn server_of(setting: &Setting) -> Option<&str> {
    match setting {
        Setting::Server { backend, .. } => Some(backend),
        _ => None,
    }
}

/// A backend, and where its servers are and as what the file has them, by their names.
struct Known<'a> {
    id: BackendId,
    positions: HashMap<&'a str, usize>,
    written: HashMap<&'a str, &'a model::Server>,
}

impl<'a> Known<'a> {
    /// Without the servers unless they are needed.
    fn of(backend: &'a Backend, servers: bool) -> Self {
        let (mut positions, mut written) = (HashMap::new(), HashMap::new());
        if servers {
            let names = backend.servers.iter().map(|one| &*one.spec.name);
            positions = names.zip(0..).collect();
            written = by_name(&backend.spec.servers);
        }
        Self {
            id: backend.id,
            positions,
            written,
        }
    }
}

/// The address or the check of a server, unless it was added then and is in the file now.
fn set(
    builder: &mut SnapshotBuilder,
    (known, name, was_added): (&Known<'_>, &str, bool),
    setting: &ServerSetting,
    now: Instant,
) {
    let id = known.id;
    let Some(&index) = known.positions.get(name) else {
        return;
    };
    let Some(before) = builder.server(id, index).map(Arc::clone) else {
        return;
    };
    let written = before.added.as_deref();
    let Some(written) = written.or_else(|| known.written.get(name).copied()) else {
        return;
    };
    if was_added != before.added.is_some() {
        return;
    }
    let mut server = Server::clone(&before);
    if change(&mut server, written, setting, now) {
        builder.replace(id, index, server, now);
    }
}

/// Sets what was set of a server that the file has as `written`. `false`: the file's own value has changed.
fn change(
    server: &mut Server,
    written: &model::Server,
    setting: &ServerSetting,
    now: Instant,
) -> bool {
    match setting {
        ServerSetting::Address {
            file,
            now: in_force,
        } if written.address == *file => match Endpoint::of(in_force) {
            Some(endpoint) => server.set_address(in_force.clone(), endpoint, now),
            // Operators set no names.
            None => return false,
        },
        ServerSetting::Check {
            file,
            now: in_force,
        } if written.check == *file => server.set_check(in_force.clone()),
        ServerSetting::Maxconn {
            file,
            now: in_force,
        } if written.maxconn == *file => server.set_maxconn(*in_force),
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::text::write;
    use super::*;
    use crate::config::model::{Check, Config, ServerAddress, ServerPort, Stats};
    use crate::state::FrontendId;
    use crate::state::test_config::{backend, config, frontend, origin, server};

    fn start(config: &Config, now: Instant) -> Arc<Snapshot> {
        Arc::new(Snapshot::initial(config, &origin(now)))
    }

    fn file() -> Config {
        let servers = vec![server("s1"), server("s2"), server("s3")];
        let mut config = config(vec![backend("b", servers)]);
        config.frontends.push(frontend("f", 7));
        config.stats = Some(Stats::default());
        config
    }

    /// Everything set that can be set: s1 is elsewhere, s2 is not checked, s3 was removed, n1 was added.
    fn touched(now: Instant) -> Arc<Snapshot> {
        let first = start(&file(), now);
        let id = first.backends[0].as_ref().unwrap().id;
        let added = model::Server {
            id: 9,
            weight: 5,
            disabled: true,
            ..server("n1")
        };
        let mut next = dynamic::add(&first, id, &Arc::new(added), (1, now)).unwrap();
        let mut backend = next.backends[0].as_ref().unwrap().servers.clone();
        backend.retain(|one| &*one.spec.name != "s3");
        let changed = next.backends[0]
            .as_ref()
            .unwrap()
            .with_servers(backend, now);
        next = dynamic::replaced(&next, vec![changed]);
        let mut builder = SnapshotBuilder::new(Arc::new(next));
        builder.process_mut().maxconn = 9;
        builder.process_mut().stats_maxconn = Some(3);
        builder.frontend_mut(FrontendId::first(0)).unwrap().maxconn = Some(0);
        let mut s1 = Server::clone(builder.server(id, 0).unwrap());
        let elsewhere = ServerAddress::Ip([127, 0, 0, 2].into(), ServerPort::Fixed(9));
        s1.set_address(elsewhere.clone(), Endpoint::of(&elsewhere).unwrap(), now);
        builder.replace(id, 0, s1, now);
        let mut s2 = Server::clone(builder.server(id, 1).unwrap());
        s2.set_check(None);
        s2.set_maxconn(7);
        builder.replace(id, 1, s2, now);
        Arc::new(builder.finish().unwrap())
    }

    /// Overrides did not survive an upgrade.
    #[test]
    fn what_was_set_is_in_force_in_the_next_process() {
        let now = Instant::now();
        let before = touched(now);
        assert_eq!(list(&before).len(), 9, "{:?}", list(&before));
        let text = write(&before);
        let fresh = start(&file(), now);
        let next = Arc::new(apply(&fresh, &text, (1, now)).unwrap());
        assert_eq!(list(&next), list(&before));
        assert_eq!(write(&next), text);
        // Once more, as with `go`: what is set stays, and what is set no longer is as the file says.
        let again = apply(&next, &text, (1, now)).map_or(next, Arc::new);
        assert_eq!(write(&again), text);
        let none = apply(&again, "1\n", (1, now)).unwrap();
        assert_eq!(list(&none), []);
        assert!(apply(&fresh, "1\n", (1, now)).is_none());
    }

    /// It was gone after an upgrade, and the file's server of that name was back.
    #[test]
    fn a_server_that_took_the_place_of_one_of_the_file_stays() {
        let now = Instant::now();
        let first = start(&file(), now);
        let in_force = first.backends[0].as_ref().unwrap();
        let mut others = in_force.servers.clone();
        others.retain(|one| &*one.spec.name != "s1");
        let removed = dynamic::replaced(&first, vec![in_force.with_servers(others, now)]);
        let elsewhere = model::Server {
            id: 9,
            address: ServerAddress::Ip([127, 0, 0, 9].into(), ServerPort::Fixed(9)),
            ..server("s1")
        };
        let before = dynamic::add(&removed, in_force.id, &Arc::new(elsewhere), (1, now)).unwrap();
        let addresses = |snapshot: &Snapshot| -> Vec<_> {
            let servers = &snapshot.backends[0].as_ref().unwrap().servers;
            let servers = servers.iter();
            servers
                .map(|one| (one.spec.name.clone(), one.spec.address.clone()))
                .collect()
        };
        let text = write(&before);
        let next = apply(&start(&file(), now), &text, (1, now)).unwrap();
        assert_eq!(addresses(&next), addresses(&before));
        assert_eq!(write(&next), text);
    }

    #[test]
    fn the_files_own_values_win_when_they_have_changed() {
        let now = Instant::now();
        let text = write(&touched(now));
        let mut other = file();
        other.frontends[0].maxconn = Some(50);
        other.stats = Some(Stats {
            maxconn: 77,
            ..Stats::default()
        });
        let servers = &mut other.backends[0].servers;
        servers[0].address = ServerAddress::Ip([127, 0, 0, 3].into(), ServerPort::Fixed(9));
        servers[1].check = Some(Check {
            rise: 9,
            ..Check::default()
        });
        servers[1].maxconn = 5;
        servers[2].weight = 8;
        servers.push(server("n1"));
        let fresh = start(&other, now);
        let next = apply(&fresh, &text, (1, now)).unwrap();
        let left: Vec<_> = list(&next).into_iter().map(|one| one.object).collect();
        assert_eq!(left, ["global"]);
        assert_eq!(next.maxconn, 9);
    }
}
