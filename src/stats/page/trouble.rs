//! What the lines at the top of the page say: what serves no clients now, and which servers are down. Pure.

use crate::state::{AdminState, Backend, Frontend, FrontendState, OperState, Server, Snapshot};
use crate::stats::filter::{Filter, is_full};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// Most proxies that a line names.
const NAMED_MAX: usize = 10;

/// What is wrong now, in the proxies that are shown.
pub(super) struct Trouble {
    /// Backends without a usable server, or with too few.
    pub(super) unusable: Named,
    /// Backends whose checks are not believed.
    pub(super) fail_open: Named,
    /// Frontends that take no connections now, and backends that get no sessions.
    pub(super) closed: Named,
    pub(super) down: Option<Down>,
}

/// Some proxies.
pub(super) struct Named {
    pub(super) proxies: Vec<Proxy>,
    /// How many there are besides.
    pub(super) more: usize,
}

/// A proxy and what is wrong with it.
pub(super) struct Proxy {
    pub(super) name: Arc<str>,
    pub(super) why: String,
}

/// Servers that are down. Those in maintenance do not count.
pub(super) struct Down {
    pub(super) servers: usize,
    pub(super) of: usize,
    /// The backends with the most such servers.
    pub(super) backends: Vec<DownIn>,
    /// How many further backends have such servers.
    pub(super) more: usize,
}

/// The servers of one backend that are down.
pub(super) struct DownIn {
    pub(super) name: Arc<str>,
    pub(super) servers: usize,
    /// It has no others.
    pub(super) all: bool,
}

impl Trouble {
    pub(super) fn of(snapshot: &Snapshot, filter: &Filter) -> Self {
        let mut backends: Vec<&Arc<Backend>> = snapshot.backends.iter().flatten().collect();
        backends.retain(|backend| filter.shows_proxy(&backend.spec.name));
        backends.sort_by_key(|backend| backend.spec.order);
        let mut frontends: Vec<&Arc<Frontend>> = snapshot.frontends.iter().flatten().collect();
        frontends.retain(|frontend| filter.shows_proxy(&frontend.spec.name));
        frontends.sort_by_key(|frontend| frontend.spec.order);
        let unusable = backends.iter().filter(|backend| {
            let none = backend.usable().is_empty() && !backend.status.fail_open;
            none || !backend.status.up && !backend.servers.is_empty()
        });
        let unusable = unusable.map(|it| (&it.spec.name, reasons(it)));
        let fail_open = backends.iter().filter(|backend| backend.status.fail_open);
        let fail_open = fail_open.map(|it| (&it.spec.name, up(it)));
        let closed = frontends.iter();
        let closed = closed.filter_map(|it| Some((&it.spec.name, closed_by(it)?)));
        let unpublished = backends.iter().filter(|backend| !backend.published);
        let unpublished = unpublished.map(|it| (&it.spec.name, "unpublished".to_owned()));
        Self {
            unusable: Named::of(unusable),
            fail_open: Named::of(fail_open),
            closed: Named::of(closed.chain(unpublished)),
            down: Down::of(&backends),
        }
    }
}

impl Named {
    fn of<'a>(all: impl Iterator<Item = (&'a Arc<str>, String)>) -> Self {
        let named = |(name, why): (&Arc<str>, String)| Proxy {
            name: Arc::clone(name),
            why,
        };
        let mut proxies: Vec<Proxy> = all.map(named).collect();
        let more = proxies.len().saturating_sub(NAMED_MAX);
        proxies.truncate(NAMED_MAX);
        Self { proxies, more }
    }
}

impl Down {
    /// `None` when no server is down.
    fn of(all: &[&Arc<Backend>]) -> Option<Self> {
        let (mut servers, mut of, mut backends) = (0, 0, Vec::new());
        for backend in all {
            let count = backend.servers.iter().filter(|it| is_down(it)).count();
            of += backend.servers.len();
            servers += count;
            if count > 0 {
                backends.push(DownIn {
                    name: Arc::clone(&backend.spec.name),
                    servers: count,
                    all: count == backend.servers.len(),
                });
            }
        }
        backends.sort_by(|one, other| {
            let key = |it: &DownIn| (!it.all, std::cmp::Reverse(it.servers));
            key(one).cmp(&key(other)).then(one.name.cmp(&other.name))
        });
        let more = backends.len().saturating_sub(NAMED_MAX);
        backends.truncate(NAMED_MAX);
        (servers > 0).then_some(Self {
            servers,
            of,
            backends,
            more,
        })
    }
}

fn is_down(server: &Server) -> bool {
    server.status.oper == OperState::Stopped && !server.status.admin.is_maint()
}

/// How many servers of a backend are up of those that no operator has taken out: `1 of 5 UP`.
fn up(backend: &Backend) -> String {
    let usable = backend.usable();
    let offered = backend.servers.iter().filter(|server| server.is_offered());
    let up = usable.active + usable.backup;
    format!("{up} of {} UP", offered.count())
}

/// Why none of the servers of a backend can be used: `1 DOWN, 3 DRAIN`; or that too few can: `1 UP, min-servers 2`.
fn reasons(backend: &Backend) -> String {
    let usable = backend.usable();
    if !usable.is_empty() {
        let up = usable.active + usable.backup;
        return format!("{up} UP, min-servers {}", backend.spec.min_servers);
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for server in &backend.servers {
        *counts.entry(reason(server)).or_default() += 1;
    }
    let mut text = String::new();
    for (reason, count) in counts {
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}{count} {reason}");
    }
    if text.is_empty() {
        text.push_str("it has no server");
    }
    text
}

/// Why a server is not usable: its state, as in its row.
fn reason(server: &Server) -> &'static str {
    let status = &server.status;
    if status.admin.has(AdminState::RMAINT) {
        "MAINT (resolution)"
    } else if status.admin.is_maint() {
        "MAINT"
    } else if status.oper == OperState::Stopped {
        "DOWN"
    } else if status.admin.is_drain() {
        "DRAIN"
    } else if status.oper == OperState::Stopping {
        "NOLB"
    } else if server.weight == 0 {
        "with weight 0"
    } else {
        "without an address"
    }
}

/// Why a frontend takes no connections; `None` when it does, or when its file says so.
fn closed_by(frontend: &Frontend) -> Option<String> {
    match frontend.state {
        FrontendState::Open if frontend.route.is_closed() => {
            Some(format!("{}: no server", frontend.label()))
        }
        FrontendState::Open if !is_full(frontend) => None,
        FrontendState::Open => {
            let limit = frontend.maxconn.unwrap_or_default();
            Some(format!("FULL: {limit} sessions at most"))
        }
        state => Some(state.label().to_owned()),
    }
}
