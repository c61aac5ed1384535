//! What a reload would change: two configurations compared by name.
//!
//! Pure. `rlb diff` and every reload print it. The code that the declaration of a key makes
//! ([`crate::config::keys`]) compares the keys of an object; this module compares the objects, and what has no
//! key. Invariant: configurations that are not equal differ in at least one [`Change`].

mod binds;
mod json;
mod logs;
mod numbers;
mod proxies;

pub use super::key::Difference;
pub use binds::{BindAction, BindOf, Side, binds, match_binds};
pub use logs::match_targets;

use super::key::{Differences, Effect};
use super::model::{self, Config};
use super::show::NONE;
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
    /// `global`, `log`, `log target`, `runtime-api`, `stats`, `frontend`, `bind`, `backend`,
    /// `server` or `statistics` (the order of their rows).
    pub kind: &'static str,
    /// Its name: `backend/server` for a server, `proxy address` for a bind, the destination for a log target;
    /// empty for tables that exist once.
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
    config.runtime_api = match (&old.runtime_api, config.runtime_api) {
        (Some(old), Some(new)) => Some(model::RuntimeApi {
            sockets: runtime_sockets(old, &new),
            ..new
        }),
        (old, _) => old.clone(),
    };
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
    let mut keys = Differences::default();
    let addresses = |api: &Option<model::RuntimeApi>| {
        let sockets = api.iter().flat_map(|api| &api.sockets);
        let all: Vec<String> = sockets.map(model::RuntimeSocket::place).collect();
        if all.is_empty() {
            NONE.to_owned()
        } else {
            all.join(" ")
        }
    };
    let both = (&addresses(&old.runtime_api), &addresses(&new.runtime_api));
    keys.compare_as("socket", Effect::Restart, both, String::clone);
    let (Some(old), Some(new)) = (&old.runtime_api, &new.runtime_api) else {
        return found.changed("runtime-api", "", keys);
    };
    model::RuntimeApi::compare(old, new, &mut keys);
    let next = runtime_sockets(old, new);
    let alone = next.len() == 1;
    if let (true, Some(old), Some(new)) = (alone, old.sockets.first(), next.first()) {
        model::RuntimeSocket::compare(old, new, &mut keys);
    }
    found.changed("runtime-api", "", keys);
    for (old, new) in old.sockets.iter().zip(&next).filter(|_| !alone) {
        let mut keys = Differences::default();
        model::RuntimeSocket::compare(old, new, &mut keys);
        found.changed("runtime-api", &old.place(), keys);
    }
}

/// The sockets of `old`, which stay until a restart, with what else `new` says about the same addresses. Rights
/// belong to an address: a socket whose address is not in `new` keeps those that it has.
fn runtime_sockets(old: &model::RuntimeApi, new: &model::RuntimeApi) -> Vec<model::RuntimeSocket> {
    let next = |old: &model::RuntimeSocket| {
        let mut same = new.sockets.iter();
        let same = same.find(|one| one.address == old.address);
        same.unwrap_or(old).clone()
    };
    old.sockets.iter().map(next).collect()
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
    model::StatsPage::compare(&old.page, &new.page, &mut keys);
    model::Readiness::compare(&old.readiness, &new.readiness, &mut keys);
    found.changed("stats", "", keys);
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
