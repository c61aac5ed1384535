//! Frontends, binds, backends and servers compared by name. Pure; the part of
//! [`plan`](super::plan) that most reloads are about.

use super::binds::{BindFate, BindOf, Side, binds, match_binds};
use super::show::{address, bool_word, check, duration, keepalive, number, optional, secs, text};
use super::{Action, Found, Keys, address_of, compare, names, server_starts_over};
use crate::config::model::{self, Config};
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
                found.changed(
                    Action::Change,
                    object,
                    keys,
                    "holds for the next connection",
                );
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

fn frontend_keys(
    (old, old_config): (&model::Frontend, &Config),
    (new, new_config): (&model::Frontend, &Config),
) -> Keys {
    // Binds are compared across frontends: a socket may move from one to another.
    let model::Frontend {
        name: _,
        id: _,
        order: _,
        binds: _,
        disabled: _,
        default_backend: _,
        maxconn: _,
        timeout_client: _,
        timeout_client_fin: _,
        keepalive: _,
        dontlognull: _,
        dontlog_normal: _,
    } = old;
    let mut keys = Keys::default();
    compare!(keys, old, new;
        "id" => id: number,
        "disabled" => disabled: bool_word);
    let target = |config: &Config, of: &model::Frontend| {
        let backend = config.backends.get(of.default_backend.0);
        backend.map_or_else(String::new, |backend| backend.name.to_string())
    };
    let targets = (target(old_config, old), target(new_config, new));
    keys.compare("default-backend", (&targets.0, &targets.1), String::clone);
    compare!(keys, old, new;
        "maxconn" => maxconn: |it| optional(it.as_ref(), number),
        "timeout.client" => timeout_client: duration,
        "timeout.client-fin" => timeout_client_fin: duration,
        "keepalive" => keepalive: keepalive,
        "dontlognull" => dontlognull: bool_word,
        "dontlog-normal" => dontlog_normal: bool_word);
    keys
}

pub(super) fn bind_changes(found: &mut Found, old: &Config, new: &Config) {
    let (old, new) = (binds(old), binds(new));
    let mut stays = vec![false; old.len()];
    for (fate, one) in match_binds(&old, &new).into_iter().zip(&new) {
        let object = ("bind", bind_name(one));
        match fate {
            BindFate::Opens { beside: false } => {
                found.push(
                    Action::Add,
                    object,
                    "is opened before anything else changes",
                );
            }
            BindFate::Opens { beside: true } => {
                let effect = "is opened beside the socket that this process has there";
                found.push(Action::Add, object, effect);
            }
            BindFate::Keeps(index) => {
                stays[index] = true;
                let keys = bind_keys(&old[index].bind, &one.bind);
                found.changed(Action::Change, object, keys, "the socket stays open");
            }
            BindFate::Moves(index) => {
                stays[index] = true;
                let mut keys = bind_keys(&old[index].bind, &one.bind);
                let names = (&old[index].proxy, &one.proxy);
                keys.compare("frontend", names, ToString::to_string);
                found.changed(Action::Change, object, keys, "the socket stays open");
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

fn bind_keys(old: &model::Bind, new: &model::Bind) -> Keys {
    let model::Bind {
        name: _,
        id: _,
        address: _,
        v6only: _,
        backlog: _,
        interface: _,
        freebind: _,
        mode: _,
    } = old;
    // v6only, interface and freebind make another socket of it; see `match_binds`.
    let mut keys = Keys::default();
    compare!(keys, old, new;
        "name" => name: text,
        "id" => id: number,
        "backlog" => backlog: |it| optional(it.as_ref(), number),
        "mode" => mode: |it| optional(it.as_ref(), |mode| format!("{mode:04o}")));
    keys
}

fn bind_name(one: &BindOf) -> String {
    format!("{} {}", one.proxy, address_of(&one.bind))
}

pub(super) fn backends(found: &mut Found, old: &Config, new: &Config) {
    let before: HashMap<&str, &model::Backend> = by_name(&old.backends, |one| &one.name);
    let after: HashMap<&str, &model::Backend> = by_name(&new.backends, |one| &one.name);
    for backend in &new.backends {
        let object = ("backend", backend.name.to_string());
        match before.get(&*backend.name) {
            None => {
                found.push(Action::Add, object, "its servers are checked and used");
                for server in &backend.servers {
                    found.push(Action::Add, server_name(backend, server), SERVER_ADDED);
                }
            }
            Some(was) => {
                let keys = backend_keys(was, backend);
                found.changed(
                    Action::Change,
                    object,
                    keys,
                    "holds for the next connection",
                );
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

/// What an added server means for connections.
const SERVER_ADDED: &str = "takes its share at once; a check decides";

fn server_name(backend: &model::Backend, server: &model::Server) -> (&'static str, String) {
    ("server", format!("{}/{}", backend.name, server.name))
}

fn backend_keys(old: &model::Backend, new: &model::Backend) -> Keys {
    let model::Backend {
        name: _,
        id: _,
        order: _,
        balance: _,
        allbackups: _,
        fullconn: _,
        timeout_server: _,
        timeout_server_fin: _,
        timeout_connect: _,
        connect_attempt: _,
        retries: _,
        keepalive: _,
        log_health_checks: _,
        servers: _,
    } = old;
    let mut keys = Keys::default();
    compare!(keys, old, new;
        "id" => id: number,
        "balance" => balance: |it| it.name().to_owned(),
        "allbackups" => allbackups: bool_word,
        "fullconn" => fullconn: number,
        "timeout.server" => timeout_server: duration,
        "timeout.server-fin" => timeout_server_fin: duration,
        "timeout.connect" => timeout_connect: secs,
        "timeout.connect-attempt" => connect_attempt: secs,
        "retries" => retries: number,
        "keepalive" => keepalive: keepalive,
        "log-health-checks" => log_health_checks: bool_word);
    let names = (
        names(&old.servers, &new.servers, |it| &it.name),
        names(&new.servers, &old.servers, |it| &it.name),
    );
    keys.compare("order of servers", (&names.0, &names.1), |it| it.join(" "));
    keys
}

fn servers(found: &mut Found, old: &model::Backend, new: &model::Backend) {
    let before: HashMap<&str, &model::Server> = by_name(&old.servers, |one| &one.name);
    let after: HashMap<&str, &model::Server> = by_name(&new.servers, |one| &one.name);
    for server in &new.servers {
        let object = server_name(new, server);
        match before.get(&*server.name) {
            None => found.push(Action::Add, object, SERVER_ADDED),
            Some(was) => {
                let effect = if server_starts_over(was, server) {
                    "its health begins anew, its sessions go on"
                } else {
                    "holds for the next connection"
                };
                found.changed(Action::Change, object, server_keys(was, server), effect);
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

fn server_keys(old: &model::Server, new: &model::Server) -> Keys {
    let model::Server {
        name: _,
        id: _,
        address: _,
        weight: _,
        backup: _,
        disabled: _,
        check: _,
        shutdown_sessions_on_down: _,
        shutdown_backup_sessions_on_up: _,
    } = old;
    let shutdown = |word: &'static str| move |on: &bool| if *on { word } else { "none" }.to_owned();
    let mut keys = Keys::default();
    compare!(keys, old, new;
        "id" => id: number,
        "address" => address: address,
        "weight" => weight: number,
        "backup" => backup: bool_word,
        "disabled" => disabled: bool_word,
        "check" => check: |it| optional(it.as_ref(), check),
        "on-marked-down" => shutdown_sessions_on_down: shutdown("shutdown-sessions"),
        "on-marked-up" =>
            shutdown_backup_sessions_on_up: shutdown("shutdown-backup-sessions"));
    keys
}

fn by_name<'a, T>(all: &'a [T], name: impl Fn(&'a T) -> &'a str) -> HashMap<&'a str, &'a T> {
    all.iter().map(|one| (name(one), one)).collect()
}
