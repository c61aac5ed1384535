//! Ids that were counted and not written. Removing the first server of a backend changes the ids of all others,
//! which is no change of theirs. Pure.

use crate::config::model::{Backend, Bind, Config, Frontend, ProxyId};
use std::collections::HashMap;
use std::hash::Hash;

/// `old`, with the ids of `new` for everything that is in both, where no id of either configuration was
/// written. Written ids stay and are compared.
pub(super) fn count_as(old: &Config, new: &Config) -> Config {
    let mut config = old.clone();
    if proxies_are_counted(old) && proxies_are_counted(new) {
        if let (Some(old), Some(new)) = (&mut config.stats, &new.stats) {
            old.id = new.id;
        }
        let frontends = by_key(&new.frontends, |it| it.name.clone());
        for frontend in &mut config.frontends {
            let same = frontends.get(&frontend.name);
            frontend.id = same.map_or(frontend.id, |same| same.id);
        }
        let backends = by_key(&new.backends, |it| it.name.clone());
        for backend in &mut config.backends {
            let same = backends.get(&backend.name);
            backend.id = same.map_or(backend.id, |same| same.id);
        }
    }
    let frontends = by_key(&new.frontends, |it| it.name.clone());
    for frontend in &mut config.frontends {
        if let Some(same) = frontends.get(&frontend.name) {
            binds(frontend, same);
        }
    }
    let backends = by_key(&new.backends, |it| it.name.clone());
    for backend in &mut config.backends {
        if let Some(same) = backends.get(&backend.name) {
            servers(backend, same);
        }
    }
    config
}

fn binds(old: &mut Frontend, new: &Frontend) {
    let address = |bind: &Bind| bind.address.clone();
    let after = by_key(&new.binds, address);
    let before = by_key(&old.binds, address);
    let stays = |it: &&Bind| after.contains_key(&it.address);
    let stayed = |it: &&Bind| before.contains_key(&it.address);
    let in_order = old.binds.iter().filter(stays).map(address);
    let in_order = in_order.eq(new.binds.iter().filter(stayed).map(address));
    let ids = |binds: &[Bind]| is_counted(binds.iter().map(|it| it.id), 1);
    if in_order && ids(&old.binds) && ids(&new.binds) {
        for bind in &mut old.binds {
            let same = after.get(&bind.address);
            bind.id = same.map_or(bind.id, |same| same.id);
        }
    }
}

fn servers(old: &mut Backend, new: &Backend) {
    let ids = |backend: &Backend| is_counted(backend.servers.iter().map(|it| it.id), 1);
    if ids(old) && ids(new) {
        let after = by_key(&new.servers, |it| it.name.clone());
        for server in &mut old.servers {
            let same = after.get(&server.name);
            server.id = same.map_or(server.id, |same| same.id);
        }
    }
}

/// The frontend and the backend of a listen have one id.
fn proxies_are_counted(config: &Config) -> bool {
    const FIRST: ProxyId = 2;
    let frontends = config.frontends.iter().map(|it| (it.order, it.id));
    let backends = config.backends.iter().map(|it| (it.order, it.id));
    let mut ids: Vec<(u32, ProxyId)> = frontends.chain(backends).collect();
    ids.extend(config.stats.as_ref().map(|stats| (0, stats.id)));
    ids.sort_unstable();
    let mut ids: Vec<ProxyId> = ids.into_iter().map(|(_, id)| id).collect();
    ids.dedup();
    is_counted(ids.into_iter(), FIRST)
}

fn is_counted(ids: impl Iterator<Item = u32>, first: u32) -> bool {
    ids.zip(first..).all(|(id, counted)| id == counted)
}

fn by_key<T, K: Eq + Hash>(all: &[T], key: impl Fn(&T) -> K) -> HashMap<K, &T> {
    all.iter().map(|one| (key(one), one)).collect()
}
