//! Files as written to the [`Config`] that they mean: every default filled in, every name resolved,
//! every value judged.
//!
//! Pure. Never stops at a problem: what is wrong is reported and a placeholder goes on in its
//! stead, so that everything else is judged too. The result is to be used only when nothing was
//! reported as an error; `load` sees to that.

#![expect(
    clippy::ref_option,
    reason = "a key is handed on as it stands, written or not"
)]

mod backend;
mod bind;
mod frontend;
mod layers;
mod limits;
mod links;
mod once;
mod scope;
mod server;
mod stats;

pub use bind::{BACKLOG_MAX, BINDS_MAX};
pub use layers::{RISE_FALL_MAX, WEIGHT_MAX};
pub use limits::{
    RESERVED_DESCRIPTORS_MAX, SESSION_DESCRIPTORS, derived_maxconn, reserved_descriptors,
};
pub use once::{MAXCONN_MAX, RETRIES_MAX, THREADS_MAX};
pub use server::SERVERS_MAX;

use super::Limits;
use super::diagnostic::{Diagnostic, Report};
use super::file::{self, Located, Maybe};
use super::model::{Config, ProxyId, Stats};
use super::read::ParsedFile;
use super::source::Place;
use scope::{ID_MAX, Scope, Validator, Written};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Number of the first proxy that has none of its own; the statistics come first.
const PROXY_ID_FIRST: ProxyId = 2;

/// A frontend or a backend, or that half of a `[[listen]]`.
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

/// The proxies of all files, in the order of the files.
struct Proxies<'a> {
    frontends: Vec<Half<'a, file::Frontend>>,
    backends: Vec<Half<'a, file::Backend>>,
}

/// Turns files into what they mean.
pub(super) fn validate(files: &[ParsedFile], limits: &Limits, report: &mut Report) -> Config {
    let validator = &mut Validator {
        report,
        limits,
        threads: 1,
    };
    let (global, maxconn) = once::global(validator, files);
    validator.threads = global.threads;
    let log = once::log(validator, files);
    let inherited = once::defaults(validator, files);
    let mut bound = Vec::new();
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
    links::judge(validator, &proxies, &frontends, &backends);
    bind::collisions(validator, &bound);
    let servers = backends.iter().map(|draft| &draft.backend);
    let servers = servers.map(|backend| (&*backend.name, backend.servers.len()));
    let readiness = stats::readiness(validator, files, stats.is_some(), &servers);
    let stats = stats.map(|stats| Stats { readiness, ..stats });
    let mut config = Config {
        global,
        log,
        runtime_api: once::runtime_api(validator, files),
        stats,
        frontends: frontends.into_iter().map(|draft| draft.frontend).collect(),
        backends: backends.into_iter().map(|draft| draft.backend).collect(),
    };
    links::fullconn(validator, &mut config);
    limits::global(validator, maxconn.as_ref(), &config);
    config
}

/// What stands in one file.
enum Section<'a> {
    Frontend(&'a Located<file::Frontend>),
    Backend(&'a Located<file::Backend>),
    Listen(&'a Located<file::Listen>),
}

impl Section<'_> {
    fn start(&self) -> usize {
        match self {
            Self::Frontend(table) => table.span.start,
            Self::Backend(table) => table.span.start,
            Self::Listen(table) => table.span.start,
        }
    }

    fn id(&self) -> &Maybe<i64> {
        match self {
            Self::Frontend(table) => &table.value.id,
            Self::Backend(table) => &table.value.id,
            Self::Listen(table) => &table.value.id,
        }
    }
}

/// All proxies with their order and numbers, and the number of the statistics proxy.
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
        own.sort_by_key(Section::start);
        sections.extend(own.into_iter().map(|section| (scope, section)));
    }
    let ids: Vec<Option<Written<u32>>> = sections
        .iter()
        .map(|(scope, section)| validator.number(*scope, "id", section.id(), 1..=ID_MAX))
        .collect();
    let mut taken: HashMap<u32, Place> = HashMap::new();
    for written in ids.iter().flatten() {
        if let Some(before) = taken.insert(written.value, written.place.clone()) {
            validator.report.push(
                Diagnostic::error("duplicate", format!("id {} is used twice", written.value))
                    .at(written.place.clone())
                    .label("a number of a proxy stands once")
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
        let mut place = || {
            *order += 1;
            *order
        };
        match section {
            Section::Frontend(table) => self.frontends.push(Half {
                scope,
                span: table.span.clone(),
                section: "frontend",
                order: place(),
                id,
                name: table.value.name.clone(),
                table: table.value.clone(),
            }),
            Section::Backend(table) => self.backends.push(Half {
                scope,
                span: table.span.clone(),
                section: "backend",
                order: place(),
                id,
                name: table.value.name.clone(),
                table: table.value.clone(),
            }),
            Section::Listen(table) => {
                let (frontend, backend) = table.value.clone().split();
                self.frontends.push(Half {
                    scope,
                    span: table.span.clone(),
                    section: "listen",
                    order: place(),
                    id,
                    name: frontend.name.clone(),
                    table: frontend,
                });
                self.backends.push(Half {
                    scope,
                    span: table.span.clone(),
                    section: "listen",
                    order: place(),
                    id,
                    name: backend.name.clone(),
                    table: backend,
                });
            }
        }
    }
}

/// Every proxy has a name, and no two frontends or two backends the same.
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
                    "a {kind}'s name stands once (a listen counts as both)"
                ))
                .also(before, "first here"),
        );
    }
}
