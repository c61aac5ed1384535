//! What a reload would change: two configurations compared by name.
//!
//! Pure. `rlb diff` and every reload print it. The code that the declaration of a key makes
//! ([`crate::config::keys`]) compares the keys of an object; this module compares the objects, and what has no
//! key. Invariant: configurations that do not do the same differ in at least one [`Change`].

mod binds;
mod json;
mod logs;
mod numbers;
mod pages;
mod proxies;
mod sockets;

pub use super::key::Difference;
pub use binds::{BindAction, BindOf, Side, binds, match_binds};
pub use logs::match_targets;

use super::key::{Differences, Effect};
use super::model::{self, Config};
use std::collections::HashSet;
use std::fmt;

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is new.
    Add,
    /// It is no longer there.
    Remove,
    /// Some of its keys change.
    Change,
    /// Some of its keys differ, and keep their values until a restart.
    Restart,
}

impl Action {
    /// The word of the JSON output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Remove => "remove",
            Self::Change => "change",
            Self::Restart => "needs-restart",
        }
    }

    fn mark(self) -> char {
        match self {
            Self::Add => '+',
            Self::Remove => '-',
            Self::Change => '~',
            Self::Restart => '!',
        }
    }
}

/// One object that differs, and what a reload does with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What happens.
    pub action: Action,
    /// `global`, `log`, `log target`, `runtime-api`, `stats`, `stats page`, `frontend`, `bind`, `backend`,
    /// `server` or `statistics` (the order of their rows).
    pub kind: &'static str,
    /// Its name: `backend/server` for a server, `proxy address` for a bind, the destination for a log target, the
    /// address for a runtime socket and for a page; empty for tables that exist once.
    pub name: String,
    /// The keys that differ; empty for an object that is added or removed.
    pub keys: Vec<Difference>,
    /// The effect on connections.
    pub effect: &'static str,
}

impl fmt::Display for Change {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.action.mark(), self.kind)?;
        if !self.name.is_empty() {
            write!(out, " {}", self.name)?;
        }
        for (index, one) in self.keys.iter().enumerate() {
            let comma = if index == 0 { ":" } else { "," };
            write!(out, "{comma} {} {} -> {}", one.key, one.from, one.to)?;
        }
        if self.action == Action::Restart {
            write!(out, " (needs restart)")
        } else {
            write!(out, " ({})", self.effect)
        }
    }
}

/// All differences.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// In file order; removed objects after those that stay.
    pub list: Vec<Change>,
}

impl Changes {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Changes that need a restart.
    pub fn restarts(&self) -> impl Iterator<Item = &Change> {
        self.of(Action::Restart)
    }

    fn of(&self, action: Action) -> impl Iterator<Item = &Change> {
        self.list.iter().filter(move |one| one.action == action)
    }

    /// One line: `2 added, 1 changed, 1 needs restart`, or `nothing differs`.
    pub fn summary(&self) -> String {
        let words = [
            (Action::Add, "added"),
            (Action::Remove, "removed"),
            (Action::Change, "changed"),
            (Action::Restart, "needs restart"),
        ];
        let counted: Vec<String> = words
            .into_iter()
            .map(|(action, word)| (self.of(action).count(), word))
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        if counted.is_empty() {
            "nothing differs".to_owned()
        } else {
            counted.join(", ")
        }
    }
}

/// The changes of a reload from `old` to `new`.
pub fn plan(old: &Config, new: &Config) -> Changes {
    let old = &numbers::count_as(old, new);
    let mut found = Found::default();
    let Config {
        global: _,
        log: _,
        runtime_api: _,
        stats: _,
        frontends: _,
        backends: _,
    } = old;
    global(&mut found, &old.global, &new.global);
    logs::log(&mut found, &old.log, &new.log);
    runtime_api(&mut found, old, new);
    stats(&mut found, old.stats.as_ref(), new.stats.as_ref());
    proxies::frontends(&mut found, old, new);
    proxies::bind_changes(&mut found, old, new);
    proxies::backends(&mut found, old, new);
    order(&mut found, old, new);
    Changes { list: found.list }
}

/// `new` as far as a running process can use it: values that need a restart stay as in `old`.
pub fn applicable(old: &Config, new: Config) -> Config {
    let mut config = new;
    config.global.keep_until_restart(&old.global);
    config
}

/// Whether the health of `new` starts over, because its address or its check's target differs from `old`.
pub fn server_starts_over(old: &model::Server, new: &model::Server) -> bool {
    model::Server::differences(old, new).effect() == Some(Effect::HealthAnew)
}

#[derive(Default)]
struct Found {
    list: Vec<Change>,
}

impl Found {
    fn push(&mut self, action: Action, (kind, name): (&'static str, String), effect: &'static str) {
        self.list.push(Change {
            action,
            kind,
            name,
            keys: Vec::new(),
            effect,
        });
    }

    /// Adds the keys of one object; those that need a restart become a change of their own.
    fn changed(&mut self, kind: &'static str, name: &str, keys: Differences) {
        let (restart, other) = keys.split();
        for (action, keys) in [(Action::Restart, restart), (Action::Change, other)] {
            let Some(effect) = keys.iter().map(|one| one.effect).max() else {
                continue;
            };
            self.list.push(Change {
                action,
                kind,
                name: name.to_owned(),
                keys,
                effect: effect.text(),
            });
        }
    }
}

fn global(found: &mut Found, old: &model::Global, new: &model::Global) {
    let mut keys = Differences::default();
    model::Global::compare(old, new, &mut keys);
    found.changed("global", "", keys);
}

fn runtime_api(found: &mut Found, old: &Config, new: &Config) {
    let sockets = |config: &Config| {
        let api = config.runtime_api.as_ref();
        api.map_or_else(Vec::new, |api| api.sockets.clone())
    };
    let (old_sockets, new_sockets) = (sockets(old), sockets(new));
    let mut keys = Differences::default();
    if let (Some(old), Some(new)) = (&old.runtime_api, &new.runtime_api) {
        model::RuntimeApi::compare(old, new, &mut keys);
        let places = |all: &[model::RuntimeSocket]| -> Vec<String> {
            all.iter().map(model::RuntimeSocket::place).collect()
        };
        let (old, new) = (places(&old_sockets), places(&new_sockets));
        let orders = (
            names(&old, &new, String::as_str),
            names(&new, &old, String::as_str),
        );
        let orders = (&orders.0, &orders.1);
        keys.compare_as("order", Effect::NextCommand, orders, |it| it.join(" "));
    }
    found.changed("runtime-api", "", keys);
    for socket in &new_sockets {
        let name = socket.place();
        let mut known = old_sockets.iter();
        if let Some(old) = known.find(|one| one.address == socket.address) {
            let mut keys = Differences::default();
            model::RuntimeSocket::compare(old, socket, &mut keys);
            found.changed("runtime-api", &name, keys);
        } else {
            let effect = "is opened before anything else changes";
            found.push(Action::Add, ("runtime-api", name), effect);
        }
    }
    for gone in &old_sockets {
        if !new_sockets.iter().any(|one| one.address == gone.address) {
            let effect = "accepts what is queued and closes; commands that run are answered";
            found.push(Action::Remove, ("runtime-api", gone.place()), effect);
        }
    }
}

fn stats(found: &mut Found, old: Option<&model::Stats>, new: Option<&model::Stats>) {
    let object = ("stats", String::new());
    let (old, new) = match (old, new) {
        (None, None) => return,
        (Some(old), Some(new)) => (old, new),
        (None, Some(_)) => return found.push(Action::Add, object, "answers at once"),
        (Some(_), None) => {
            let effect = "answers no more; those on their way are finished";
            return found.push(Action::Remove, object, effect);
        }
    };
    // Its binds are compared with those of the frontends.
    let mut keys = Differences::default();
    model::Stats::compare(old, new, &mut keys);
    model::Readiness::compare(&old.readiness, &new.readiness, &mut keys);
    pages::pages(found, keys, (old, new));
}

/// Compares the order of the proxies that are in both files. Positions are not compared, because one new proxy
/// moves all that follow.
fn order(found: &mut Found, old: &Config, new: &Config) {
    fn proxies(config: &Config) -> Vec<(u32, String)> {
        let frontends = config.frontends.iter();
        let mut all: Vec<(u32, String)> = frontends
            .map(|one| (one.order, format!("frontend {}", one.name)))
            .chain(
                config
                    .backends
                    .iter()
                    .map(|one| (one.order, format!("backend {}", one.name))),
            )
            .collect();
        all.sort();
        all
    }
    let (old, new) = (proxies(old), proxies(new));
    let orders = (
        names(&old, &new, |(_, name)| name),
        names(&new, &old, |(_, name)| name),
    );
    let mut keys = Differences::default();
    let orders = (&orders.0, &orders.1);
    keys.compare_as("order", Effect::AtOnce, orders, |it| it.join(", "));
    found.changed("statistics", "", keys);
}

/// The names in `all` that are in `other` too, in order.
fn names<'a, T>(all: &'a [T], other: &'a [T], name: impl Fn(&'a T) -> &'a str) -> Vec<&'a str> {
    let known: HashSet<&str> = other.iter().map(&name).collect();
    all.iter()
        .map(name)
        .filter(|it| known.contains(it))
        .collect()
}

#[cfg(test)]
mod tests;
