//! What a reload would do: two configurations compared, by name.
//!
//! Pure. Printed by `rlb diff`, told by every reload. Invariant: two configurations that compare
//! unequal differ in at least one [`Change`]: every field of the model is taken apart by name below,
//! so a new one does not compile until it is compared.

mod binds;
mod logs;
mod proxies;
mod show;

pub use binds::{BindFate, BindOf, Side, binds, match_binds};
pub use logs::match_targets;

use super::model::{self, BindAddress, Config};
use show::{bool_word, duration, number, optional, text};
use std::collections::HashSet;
use std::fmt;

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is new.
    Add,
    /// It goes.
    Remove,
    /// Some of its keys change.
    Change,
    /// Some of its keys differ, and stay as they are until the process is started again.
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

/// A key whose value differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The key, as in the file.
    pub key: &'static str,
    /// Value before.
    pub from: String,
    /// Value after.
    pub to: String,
}

/// One object that differs, and what a reload does about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What happens.
    pub action: Action,
    /// `global`, `log`, `log target`, `runtime-api`, `stats`, `frontend`, `bind`, `backend`,
    /// `server` or `statistics` (the order of their rows).
    pub kind: &'static str,
    /// Its name: `backend/server` of a server, `proxy address` of a bind, where a log target
    /// leads; empty for tables that stand once.
    pub name: String,
    /// The keys that differ; empty for what is added or removed.
    pub keys: Vec<Difference>,
    /// What it means for connections.
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

/// Everything that differs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// In file order; what is removed after what stays.
    pub list: Vec<Change>,
}

impl Changes {
    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Those that a reload cannot make.
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

/// What a reload from `old` to `new` changes.
pub fn plan(old: &Config, new: &Config) -> Changes {
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

/// `new` as far as a running process can take it over: what needs a restart stays as in `old`.
pub fn applicable(old: &Config, new: Config) -> Config {
    let mut config = new;
    config.global.threads = old.global.threads;
    config.runtime_api = match (&old.runtime_api, config.runtime_api) {
        (Some(old), Some(new)) => Some(model::RuntimeApi {
            socket: old.socket.clone(),
            ..new
        }),
        (old, _) => old.clone(),
    };
    config
}

/// Whether nothing that checks have found out about `old` holds for `new`: it is elsewhere, or it
/// is asked something else. Its health then begins anew.
pub fn server_starts_over(old: &model::Server, new: &model::Server) -> bool {
    let asked = |server: &model::Server| {
        let check = server.check.as_ref();
        check.map(|check| (check.kind, check.port, check.address))
    };
    old.address != new.address || asked(old) != asked(new)
}

#[derive(Default)]
struct Found {
    list: Vec<Change>,
}

impl Found {
    fn push(&mut self, action: Action, (kind, name): (&'static str, String), effect: &'static str) {
        self.changed(action, (kind, name), Keys::default(), effect);
    }

    fn changed(
        &mut self,
        action: Action,
        (kind, name): (&'static str, String),
        keys: Keys,
        effect: &'static str,
    ) {
        if action == Action::Change && keys.0.is_empty() {
            return;
        }
        self.list.push(Change {
            action,
            kind,
            name,
            keys: keys.0,
            effect,
        });
    }

    fn restart(&mut self, kind: &'static str, keys: Keys) {
        if !keys.0.is_empty() {
            self.changed(Action::Restart, (kind, String::new()), keys, RESTART);
        }
    }
}

/// What [`Action::Restart`] means for connections.
const RESTART: &str = "stays as it is until rlb is started again";

/// The keys of one object that differ.
#[derive(Default)]
struct Keys(Vec<Difference>);

impl Keys {
    fn compare<T: PartialEq>(
        &mut self,
        key: &'static str,
        (old, new): (&T, &T),
        show: impl Fn(&T) -> String,
    ) {
        if old != new {
            self.0.push(Difference {
                key,
                from: show(old),
                to: show(new),
            });
        }
    }
}

/// Compares fields: `key => field: how to show it`.
macro_rules! compare {
    ($keys:ident, $old:ident, $new:ident; $($key:literal => $field:ident: $show:expr),+ $(,)?) => {
        $($keys.compare($key, (&$old.$field, &$new.$field), $show);)+
    };
}

use compare;

fn global(found: &mut Found, old: &model::Global, new: &model::Global) {
    let model::Global {
        threads: _,
        maxconn: _,
        hard_stop_after: _,
        upgrade_stop_after: _,
        node: _,
        description: _,
        watch: _,
        rollback_window: _,
    } = old;
    let mut restart = Keys::default();
    compare!(restart, old, new; "threads" => threads: number);
    found.restart("global", restart);
    let mut keys = Keys::default();
    compare!(keys, old, new;
        "maxconn" => maxconn: |it| optional(it.as_ref(), number),
        "hard-stop-after" => hard_stop_after: duration,
        "upgrade-stop-after" => upgrade_stop_after: duration,
        "node" => node: |it| optional(it.as_ref(), text),
        "description" => description: |it| optional(it.as_ref(), text),
        "watch" => watch: bool_word,
        "rollback-window" => rollback_window: duration);
    let object = ("global", String::new());
    found.changed(Action::Change, object, keys, "holds at once");
}

fn runtime_api(found: &mut Found, old: &Config, new: &Config) {
    let (old, new) = (old.runtime_api.as_ref(), new.runtime_api.as_ref());
    let path = |api: Option<&model::RuntimeApi>| api.map(|api| api.socket.display().to_string());
    let mut restart = Keys::default();
    restart.compare("socket", (&path(old), &path(new)), |it| {
        it.clone().unwrap_or_else(|| "none".to_owned())
    });
    found.restart("runtime-api", restart);
    let (Some(old), Some(new)) = (old, new) else {
        return;
    };
    let model::RuntimeApi {
        socket: _,
        mode: _,
        level: _,
    } = old;
    let mut keys = Keys::default();
    compare!(keys, old, new;
        "mode" => mode: |it| format!("{it:04o}"),
        "level" => level: |it| it.name().to_owned());
    let object = ("runtime-api", String::new());
    found.changed(Action::Change, object, keys, "holds for the next command");
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
    let model::Stats {
        name: _,
        id: _,
        binds: _,
        maxconn: _,
        page: _,
        readiness: _,
    } = old;
    let mut keys = Keys::default();
    compare!(keys, old, new; "name" => name: text, "id" => id: number, "maxconn" => maxconn: number);
    page(&mut keys, (&old.page, &new.page));
    let (old, new) = (&old.readiness, &new.readiness);
    let model::Readiness {
        require: _,
        withdraw_delay: _,
    } = old;
    compare!(keys, old, new;
        "readiness.require" => require: |it| {
            let all = it.iter().map(|(backend, servers)| format!("{backend}={servers}"));
            all.collect::<Vec<_>>().join(" ")
        },
        "readiness.withdraw-delay" => withdraw_delay: show::secs);
    found.changed(Action::Change, object, keys, "holds at once");
}

fn page(keys: &mut Keys, (old, new): (&model::StatsPage, &model::StatsPage)) {
    let model::StatsPage {
        uri: _,
        refresh: _,
        hide_version: _,
        auth: _,
        realm: _,
        show_node: _,
        description: _,
        legends: _,
        scope: _,
    } = old;
    compare!(keys, old, new;
        "uri" => uri: text,
        "refresh" => refresh: duration,
        "hide-version" => hide_version: bool_word,
        // Users and passwords are not for logs.
        "auth" => auth: |it| format!("{} users", it.len()),
        "realm" => realm: text,
        "show-node" => show_node: bool_word,
        "show-desc" => description: |it| optional(it.as_ref(), text),
        "show-legends" => legends: bool_word,
        "scope" => scope: |it| it.join(" "));
}

/// The proxies' own numbers aside, only their order among those that stay is compared: one more
/// proxy moves all after it.
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
    let mut keys = Keys::default();
    keys.compare("order", (&orders.0, &orders.1), |it| it.join(", "));
    let object = ("statistics", String::new());
    found.changed(Action::Change, object, keys, "holds at once");
}

/// The names in `all` that are in `other` too, in order.
fn names<'a, T>(all: &'a [T], other: &'a [T], name: impl Fn(&'a T) -> &'a str) -> Vec<&'a str> {
    let known: HashSet<&str> = other.iter().map(&name).collect();
    all.iter()
        .map(name)
        .filter(|it| known.contains(it))
        .collect()
}

fn address_of(bind: &model::Bind) -> String {
    match &bind.address {
        BindAddress::Tcp(address) => address.to_string(),
        BindAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

#[cfg(test)]
mod tests;
