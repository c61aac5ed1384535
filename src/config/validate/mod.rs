//! Makes the [`Config`] from the files as written: fills in every default, resolves every name, checks every
//! value.
//!
//! Pure. Does not stop at a problem: it reports the problem and replaces the value by a placeholder, so that
//! everything else is checked too. `load` uses the result only if no error was reported.

#![expect(
    clippy::ref_option,
    reason = "a key is handed on as it stands, written or not"
)]

mod accept_proxy;
mod backend;
mod bind;
mod check;
mod check_tls;
mod collisions;
mod frontend;
mod health;
mod layers;
mod limits;
mod links;
mod loops;
mod once;
mod runtime_api;
mod server;
mod state_files;
mod stats;

pub use bind::BINDS_MAX;
pub use server::SERVERS_MAX;
pub use stats::uri_problem;

use super::Limits;
use super::diagnostic::{Diagnostic, Report};
use super::keys::{
    BackendKeys, BackendTable, ClientTimeouts, FrontendKeys, FrontendTable, KeepaliveSetting,
    ListenTable, ListenerKeys, ProxyKeys, ProxyLayer, ServerTimeouts, ServersKeys,
};
use super::model::{Config, ProxyId, Stats};
use super::read::ParsedFile;
use super::scope::{Scope, Validator, Written};
use super::shapes::{Located, Maybe};
use super::source::Place;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

/// Id of the first proxy without a written one; the statistics come first.
const PROXY_ID_FIRST: ProxyId = 2;

/// A frontend or a backend, or one of the two in a `[[listen]]`.
struct Half<'a, T> {
    scope: Scope<'a>,
    /// Span of its table.
    span: Range<usize>,
    /// `frontend`, `backend` or `listen`.
    section: &'static str,
    order: u32,
    id: ProxyId,
    name: Option<Located<String>>,
    table: T,
}

impl<T> Half<'_, T> {
    fn place(&self) -> Place {
        self.scope.place(&self.span)
    }

    fn name(&self) -> Arc<str> {
        self.name
            .as_ref()
            .map_or("", |name| name.value.as_str())
            .into()
    }

    /// For messages: "frontend `web`".
    fn what(&self) -> String {
        match &self.name {
            Some(name) => format!("{} `{}`", self.section, name.value),
            None => format!("this {}", self.section),
        }
    }
}

/// The client's side of a `[[frontend]]` or `[[listen]]`.
struct FrontendSide<'a> {
    own: &'a ListenerKeys,
    keys: &'a FrontendKeys,
    timeout: Option<&'a ClientTimeouts>,
    keepalive: &'a Maybe<KeepaliveSetting>,
    /// `None` also in a `[[listen]]`: its sessions go to its own backend.
    default_backend: Option<&'a Located<String>>,
}

/// The servers' side of a `[[backend]]` or `[[listen]]`.
struct BackendSide<'a> {
    own: &'a ServersKeys,
    keys: &'a BackendKeys,
    timeout: Option<&'a ServerTimeouts>,
    keepalive: &'a Maybe<KeepaliveSetting>,
}

impl Half<'_, BackendSide<'_>> {
    /// The place of a server's address; the table, for a server of a node group.
    fn server_place(&self, name: &str) -> Place {
        let servers = self.table.own.servers.iter();
        let mut servers = servers.flat_map(|servers| &servers.value);
        let server = servers.find(|server| {
            let written = server.value.name.as_ref();
            written.is_some_and(|written| written.value == name)
        });
        match server.map(|server| &server.value.address) {
            Some(Some(address)) => self.scope.of(address),
            _ => self.place(),
        }
    }
}

/// The proxies of all files, in the order of the files.
struct Proxies<'a> {
    frontends: Vec<Half<'a, FrontendSide<'a>>>,
    backends: Vec<Half<'a, BackendSide<'a>>>,
}

/// Makes the configuration from the files.
///
/// `disk`: the files that keys name are read, too, and the folders of sockets may be looked at.
pub(super) fn validate(
    files: &[ParsedFile],
    (limits, disk): (&Limits, bool),
    report: &mut Report,
) -> Config {
    let validator = &mut Validator {
        report,
        limits,
        threads: 1,
        binds: 0,
        servers: 0,
        disk,
        tls: HashSet::new(),
    };
    let (global, maxconn) = once::global(validator, files);
    validator.threads = global.threads;
    let log = once::log(validator, files);
    let checks = check::named(validator, files);
    let inherited = once::defaults(validator, files, &checks);
    let mut bound = Vec::new();
    let runtime_api = runtime_api::runtime_api(validator, files, &mut bound);
    let stats = stats::stats(validator, files, &global, &mut bound);
    let groups = server::groups(validator, files);
    let (proxies, stats_id) = proxies(validator, files, stats.is_some());
    let own_name = stats.as_ref().map(|draft| &*draft.stats.name);
    names(validator, &proxies, own_name);
    let stats = stats.map(|draft| draft.finish(validator, stats_id, &proxies.names()));
    let index = links::index(&proxies.backends);
    let backends: Vec<backend::Draft> = proxies
        .backends
        .iter()
        .map(|half| {
            let draft = backend::backend(validator, half, &inherited, &groups);
            backend::empty(validator, half, &draft, &groups);
            draft
        })
        .collect();
    let complete = !files
        .iter()
        .any(|file| file.removed.names_below("backend") || file.removed.names_below("listen"));
    let frontends: Vec<frontend::Draft> = proxies
        .frontends
        .iter()
        .map(|half| {
            let target = links::default_backend(validator, half, &index, complete);
            frontend::frontend(validator, half, &inherited, target, &mut bound)
        })
        .collect();
    let stand_ins = links::StandIns::new(validator, &proxies.backends, &index, complete);
    links::judge(validator, &proxies, &frontends, (&backends, &stand_ins));
    loops::warn(validator, &proxies, &frontends, (&backends, &stand_ins));
    collisions::collisions(validator, &bound, disk);
    let servers = backends.iter().map(|draft| &draft.backend);
    let servers = servers.map(|backend| (&*backend.name, backend.servers.len()));
    let readiness = stats::readiness(validator, files, stats.is_some(), &servers);
    let stats = stats.map(|stats| Stats { readiness, ..stats });
    let mut config = Config {
        global,
        log,
        runtime_api,
        stats,
        frontends: frontends.into_iter().map(|draft| draft.frontend).collect(),
        backends: backends.into_iter().map(|draft| draft.backend).collect(),
    };
    no_listener(validator, files, &config);
    state_files::state_files(validator, files, &proxies.backends, &config);
    links::fullconn(validator, &mut config, &stand_ins);
    limits::global(validator, maxconn.as_ref(), &config);
    config
}

/// Reports a configuration in which nothing listens, unless it is allowed or there are other errors. Such a
/// file was probably cut off, and a reload with it would close every port.
fn no_listener(validator: &mut Validator<'_>, files: &[ParsedFile], config: &Config) {
    if files.is_empty()
        || validator.report.failed()
        || config.frontends.iter().any(|frontend| !frontend.disabled)
        || config.global.allow_no_listener
    {
        return;
    }
    let message = if config.frontends.is_empty() {
        "no listener: there is no frontend and no listen"
    } else {
        "no listener: every frontend and listen is disabled"
    };
    let place = Place::new(&files[0].source, 0..0);
    let diagnostic = Diagnostic::error("no-listener", message).at(place).hint(
        "is the file complete? write `allow-no-listener = true` in [global] if nothing is to listen",
    );
    validator.report.push(diagnostic);
}

/// A section of a file.
enum Section<'a> {
    Frontend(&'a Located<FrontendTable>),
    Backend(&'a Located<BackendTable>),
    Listen(&'a Located<ListenTable>),
}

impl<'a> Section<'a> {
    fn span(&self) -> &'a Range<usize> {
        match self {
            Self::Frontend(table) => &table.span,
            Self::Backend(table) => &table.span,
            Self::Listen(table) => &table.span,
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Frontend(_) => "frontend",
            Self::Backend(_) => "backend",
            Self::Listen(_) => "listen",
        }
    }

    fn proxy(&self) -> &'a ProxyKeys {
        match self {
            Self::Frontend(table) => &table.value.proxy,
            Self::Backend(table) => &table.value.proxy,
            Self::Listen(table) => &table.value.proxy,
        }
    }

    /// The client's side; `None` for a backend.
    fn frontend(&self) -> Option<FrontendSide<'a>> {
        match self {
            Self::Frontend(table) => Some(FrontendSide {
                own: &table.value.own,
                keys: &table.value.keys,
                timeout: table.value.timeout.as_ref().map(|timeout| &timeout.value),
                keepalive: &table.value.keepalive,
                default_backend: table.value.default_backend.as_ref(),
            }),
            Self::Listen(table) => Some(FrontendSide {
                own: &table.value.listener,
                keys: &table.value.frontend,
                timeout: table
                    .value
                    .timeout
                    .as_ref()
                    .map(|timeout| &timeout.value.client),
                keepalive: &table.value.keepalive,
                default_backend: None,
            }),
            Self::Backend(_) => None,
        }
    }

    /// The servers' side; `None` for a frontend.
    fn backend(&self) -> Option<BackendSide<'a>> {
        match self {
            Self::Backend(table) => Some(BackendSide {
                own: &table.value.own,
                keys: &table.value.keys,
                timeout: table.value.timeout.as_ref().map(|timeout| &timeout.value),
                keepalive: &table.value.keepalive,
            }),
            Self::Listen(table) => Some(BackendSide {
                own: &table.value.servers,
                keys: &table.value.backend,
                timeout: table
                    .value
                    .timeout
                    .as_ref()
                    .map(|timeout| &timeout.value.server),
                keepalive: &table.value.keepalive,
            }),
            Self::Frontend(_) => None,
        }
    }
}

/// All proxies with their order and ids, and the id of the statistics.
fn proxies<'a>(
    validator: &mut Validator<'_>,
    files: &'a [ParsedFile],
    stats: bool,
) -> (Proxies<'a>, ProxyId) {
    let mut sections = Vec::new();
    for parsed in files {
        let scope = Scope {
            source: &parsed.source,
            removed: &parsed.removed,
        };
        let file = &parsed.file;
        let mut own: Vec<Section<'_>> = file.frontend.iter().map(Section::Frontend).collect();
        own.extend(file.backend.iter().map(Section::Backend));
        own.extend(file.listen.iter().map(Section::Listen));
        own.sort_by_key(|section| section.span().start);
        sections.extend(own.into_iter().map(|section| (scope, section)));
    }
    let ids: Vec<Option<Written<u32>>> = sections
        .iter()
        .map(|(scope, section)| ProxyLayer::read(validator, *scope, section.proxy()).id)
        .collect();
    let mut taken: HashMap<u32, Place> = HashMap::new();
    for written in ids.iter().flatten() {
        if let Some(before) = taken.insert(written.value, written.place.clone()) {
            validator.report.push(
                Diagnostic::error("duplicate", format!("id {} is used twice", written.value))
                    .at(written.place.clone())
                    .label("each proxy needs its own number")
                    .also(before, "first here"),
            );
        }
    }
    let mut free = (PROXY_ID_FIRST..).filter(|id| !taken.contains_key(id));
    let mut next = move || free.next().unwrap_or(ProxyId::MAX);
    let stats_id = if stats { next() } else { 0 };
    let mut proxies = Proxies {
        frontends: Vec::new(),
        backends: Vec::new(),
    };
    let mut order = 0;
    for ((scope, section), id) in sections.into_iter().zip(ids) {
        let id = id.map_or_else(&mut next, |written| written.value);
        proxies.add(scope, &section, id, &mut order);
    }
    (proxies, stats_id)
}

impl<'a> Proxies<'a> {
    fn names(&self) -> impl Iterator<Item = &str> + Clone {
        let frontends = self.frontends.iter().filter_map(|half| half.name.as_ref());
        let backends = self.backends.iter().filter_map(|half| half.name.as_ref());
        frontends.chain(backends).map(|name| name.value.as_str())
    }

    fn add(&mut self, scope: Scope<'a>, section: &Section<'a>, id: ProxyId, order: &mut u32) {
        fn half<'a, T>(
            scope: Scope<'a>,
            section: &Section<'a>,
            (id, order): (ProxyId, &mut u32),
            table: T,
        ) -> Half<'a, T> {
            *order += 1;
            Half {
                scope,
                span: section.span().clone(),
                section: section.word(),
                order: *order,
                id,
                name: section.proxy().name.clone(),
                table,
            }
        }
        if let Some(table) = section.frontend() {
            self.frontends
                .push(half(scope, section, (id, order), table));
        }
        if let Some(table) = section.backend() {
            self.backends.push(half(scope, section, (id, order), table));
        }
    }
}

/// Every proxy must have a name, and no two frontends or two backends the same.
fn names(validator: &mut Validator<'_>, proxies: &Proxies<'_>, stats: Option<&str>) {
    let mut seen = HashMap::new();
    for half in &proxies.frontends {
        check_name(validator, half, "frontend");
        unique(validator, half, "frontend", &mut seen);
        if let (Some(name), Some(stats)) = (&half.name, stats)
            && name.value == stats
        {
            let message = format!("`{stats}` is the name of the statistics");
            validator.report.push(
                Diagnostic::error("duplicate", message)
                    .at(half.scope.of(name))
                    .hint("give [stats] another `name`"),
            );
        }
    }
    let mut seen = HashMap::new();
    for half in &proxies.backends {
        if half.section == "backend" {
            check_name(validator, half, "backend");
        }
        unique(validator, half, "backend", &mut seen);
    }
}

fn check_name<T>(validator: &mut Validator<'_>, half: &Half<'_, T>, kind: &str) {
    if validator.name(half.scope, &half.name).is_none() {
        let example = format!("name = \"my-{kind}\"");
        validator.missing(half.scope, &half.span, &half.what(), &example);
    }
}

fn unique<T>(
    validator: &mut Validator<'_>,
    half: &Half<'_, T>,
    kind: &str,
    seen: &mut HashMap<String, Place>,
) {
    let Some(name) = &half.name else { return };
    let place = half.scope.of(name);
    if let Some(before) = seen.insert(name.value.clone(), place.clone()) {
        let message = format!(
            "{kind} `{}` is already defined in {}",
            name.value,
            before.short()
        );
        validator.report.push(
            Diagnostic::error("duplicate", message)
                .at(place)
                .label(format!(
                    "each {kind} needs its own name (a listen counts as both)"
                ))
                .also(before, "first here"),
        );
    }
}
