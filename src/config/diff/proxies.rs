//! Compares frontends, binds, backends and servers by name. Pure; part of [`plan`](super::plan).

use super::binds::{BindAction, BindOf, Side, binds, match_binds};
use super::{Action, Found, names};
use crate::config::key::{Differences, Effect};
use crate::config::keys::FrontendTable;
use crate::config::model::{self, Config};
use crate::config::show;
use std::collections::HashMap;

pub(super) fn frontends(found: &mut Found, old: &Config, new: &Config) {
    let before: HashMap<&str, &model::Frontend> = by_name(&old.frontends, |one| &one.name);
    let after: HashMap<&str, &model::Frontend> = by_name(&new.frontends, |one| &one.name);
    for frontend in &new.frontends {
        let object = ("frontend", frontend.name.to_string());
        match before.get(&*frontend.name) {
            None => found.push(
                Action::Add,
                object,
                "accepts once all of this reload is in place",
            ),
            Some(was) => {
                let keys = frontend_keys((was, old), (frontend, new));
                found.changed("frontend", &frontend.name, keys);
            }
        }
    }
    for frontend in &old.frontends {
        if !after.contains_key(&*frontend.name) {
            let object = ("frontend", frontend.name.to_string());
            let effect = "accepts no more; its sessions end by themselves";
            found.push(Action::Remove, object, effect);
        }
    }
}

/// Binds are compared over all frontends, because a socket may move from one to another.
fn frontend_keys(
    (old, old_config): (&model::Frontend, &Config),
    (new, new_config): (&model::Frontend, &Config),
) -> Differences {
    let mut keys = Differences::default();
    model::Frontend::compare(old, new, &mut keys);
    let target = |config: &Config, of: &model::Frontend| {
        let backend = config.backends.get(of.default_backend.0);
        backend.map_or_else(String::new, |backend| backend.name.to_string())
    };
    let targets = (&target(old_config, old), &target(new_config, new));
    keys.compare(&FrontendTable::default_backend, targets, String::clone);
    keys
}

pub(super) fn bind_changes(found: &mut Found, old: &Config, new: &Config) {
    let (old, new) = (binds(old), binds(new));
    let mut stays = vec![false; old.len()];
    for (action, one) in match_binds(&old, &new).into_iter().zip(&new) {
        let object = ("bind", bind_name(one));
        match action {
            BindAction::Opens { beside: false } => {
                found.push(
                    Action::Add,
                    object,
                    "is opened before anything else changes",
                );
            }
            BindAction::Opens { beside: true } => {
                let effect = "is opened beside the socket that this process has there";
                found.push(Action::Add, object, effect);
            }
            BindAction::Keeps(index) => {
                stays[index] = true;
                let mut keys = Differences::default();
                model::Bind::compare(&old[index].bind, &one.bind, &mut keys);
                found.changed("bind", &bind_name(one), keys);
            }
            BindAction::Moves(index) => {
                stays[index] = true;
                let mut keys = Differences::default();
                model::Bind::compare(&old[index].bind, &one.bind, &mut keys);
                let names = (&old[index].proxy, &one.proxy);
                keys.compare_as("frontend", Effect::SameSocket, names, ToString::to_string);
                found.changed("bind", &bind_name(one), keys);
            }
        }
    }
    for (one, stays) in old.iter().zip(stays) {
        if !stays {
            let effect = match one.side {
                Side::Traffic => {
                    "accepts what is queued and closes; its sessions end by themselves"
                }
                Side::Stats => {
                    "accepts what is queued and closes; answers on their way are finished"
                }
            };
            found.push(Action::Remove, ("bind", bind_name(one)), effect);
        }
    }
}

fn bind_name(one: &BindOf) -> String {
    format!("{} {}", one.proxy, show::bind_address(&one.bind.address))
}

pub(super) fn backends(found: &mut Found, old: &Config, new: &Config) {
    let before: HashMap<&str, &model::Backend> = by_name(&old.backends, |one| &one.name);
    let after: HashMap<&str, &model::Backend> = by_name(&new.backends, |one| &one.name);
    for backend in &new.backends {
        let object = ("backend", backend.name.to_string());
        match before.get(&*backend.name) {
            None => {
                let checked = backend.servers.iter().any(|server| server.check.is_some());
                let effect = if checked {
                    "its servers are checked and used"
                } else {
                    "its servers are used"
                };
                found.push(Action::Add, object, effect);
                for server in &backend.servers {
                    let object = server_name(backend, server);
                    found.push(Action::Add, object, added(server));
                }
            }
            Some(was) => {
                found.changed("backend", &backend.name, backend_keys(was, backend));
                servers(found, was, backend);
            }
        }
    }
    for backend in &old.backends {
        if !after.contains_key(&*backend.name) {
            let object = ("backend", backend.name.to_string());
            found.push(Action::Remove, object, "its sessions end by themselves");
        }
    }
}

/// The effect of an added server on connections.
fn added(server: &model::Server) -> &'static str {
    if server.check.is_some() {
        "takes its share at once; a check decides"
    } else {
        "takes its share at once"
    }
}

fn server_name(backend: &model::Backend, server: &model::Server) -> (&'static str, String) {
    ("server", format!("{}/{}", backend.name, server.name))
}

fn backend_keys(old: &model::Backend, new: &model::Backend) -> Differences {
    let mut keys = Differences::default();
    model::Backend::compare(old, new, &mut keys);
    let names = (
        &names(&old.servers, &new.servers, |it| &it.name),
        &names(&new.servers, &old.servers, |it| &it.name),
    );
    keys.compare_as("order of servers", Effect::NextConnection, names, |it| {
        it.join(" ")
    });
    keys
}

fn servers(found: &mut Found, old: &model::Backend, new: &model::Backend) {
    let before: HashMap<&str, &model::Server> = by_name(&old.servers, |one| &one.name);
    let after: HashMap<&str, &model::Server> = by_name(&new.servers, |one| &one.name);
    for server in &new.servers {
        let object = server_name(new, server);
        match before.get(&*server.name) {
            None => found.push(Action::Add, object, added(server)),
            Some(was) => {
                let keys = model::Server::differences(was, server);
                found.changed("server", &object.1, keys);
            }
        }
    }
    for server in &old.servers {
        if !after.contains_key(&*server.name) {
            let effect = "is used no more; its sessions end by themselves";
            found.push(Action::Remove, server_name(old, server), effect);
        }
    }
}

fn by_name<'a, T>(all: &'a [T], name: impl Fn(&'a T) -> &'a str) -> HashMap<&'a str, &'a T> {
    all.iter().map(|one| (name(one), one)).collect()
}
