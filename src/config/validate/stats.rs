//! `[stats]` and `[readiness]`: the statistics listener, its page, and the conditions of `/readyz`.

use super::bind;
use super::collisions::Bound;
use super::once::once;
use crate::config::address::{self, BindText};
use crate::config::diagnostic::Diagnostic;
use crate::config::keys::{Binds, ReadinessLayer, StatsLayer, StatsPageKeys, StatsPageLayer};
use crate::config::model::{
    Bind, BindAddress, Credentials, FurtherPage, Global, PageAdmin, ProxyId, Readiness, Stats,
    StatsPage,
};
use crate::config::read::ParsedFile;
use crate::config::scope::{Scope, Validator, Written, expected, flag};
use crate::config::shapes::{Located, OneOrMany, Short};
use crate::config::source::Place;
use crate::config::units::Problem;
use crate::config::words;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Paths that do not depend on `uri`.
const TAKEN: [&str; 3] = ["/metrics", "/healthz", "/readyz"];

/// `[stats]`; its id is assigned later.
pub(super) fn stats(
    validator: &mut Validator<'_>,
    files: &[ParsedFile],
    global: &Global,
    bound: &mut Vec<Bound>,
) -> Option<Draft> {
    let (scope, table) = once(validator, files, "stats", |file| &file.stats)?;
    let layer = StatsLayer::read(validator, scope, &table.value);
    let mut stats = Stats::from_layer(&layer);
    let mut shown = Vec::new();
    let first = PageOf {
        what: "[stats]",
        span: &table.span,
        bind: table.value.bind.as_ref(),
        keys: &table.value.page,
    };
    stats.page = first.read(validator, scope, global, (&mut stats.binds, bound));
    shown.push(first.shown(scope));
    for further in &table.value.further {
        let before = stats.binds.len();
        let its = PageOf {
            what: "[[stats.page]]",
            span: &further.span,
            bind: further.value.bind.as_ref(),
            keys: &further.value.page,
        };
        let page = its.read(validator, scope, global, (&mut stats.binds, bound));
        shown.push(its.shown(scope));
        let binds = before..stats.binds.len();
        tell_apart(validator, scope.place(its.span), &stats.binds, before);
        stats.further.push(FurtherPage { binds, page });
    }
    Some(Draft { stats, shown })
}

/// A page as it is written.
struct PageOf<'a> {
    what: &'static str,
    span: &'a Range<usize>,
    bind: Option<&'a Binds>,
    keys: &'a StatsPageKeys,
}

impl PageOf<'_> {
    /// The page; its binds are added to `binds`.
    fn read(
        &self,
        validator: &mut Validator<'_>,
        scope: Scope<'_>,
        global: &Global,
        (binds, bound): (&mut Vec<Bind>, &mut Vec<Bound>),
    ) -> StatsPage {
        self.open_to_everyone(validator, scope);
        let owner = bind::Owner {
            scope,
            table: self.span,
            what: self.what.to_owned(),
            backlog: None,
            tcp_only: true,
            started: true,
        };
        binds.extend(bind::binds(validator, &owner, self.bind, bound));
        page(validator, scope, self.keys, global)
    }

    /// The names in its `scope`.
    fn shown(&self, scope: Scope<'_>) -> Vec<Written<String>> {
        let names = self.keys.scope.iter().flat_map(|list| &list.0);
        let written = |name: &Located<String>| Written {
            value: name.value.clone(),
            place: scope.of(name),
        };
        names.map(written).collect()
    }
}

/// Refuses a page whose binds, those from `first` on, are written like binds before them: a connection would not
/// show which page it is for. Only a port that the kernel chooses can be written twice.
fn tell_apart(validator: &mut Validator<'_>, place: Place, binds: &[Bind], first: usize) {
    let (before, own) = binds.split_at(first);
    let any_port =
        |bind: &&Bind| matches!(bind.address, BindAddress::Tcp(address) if address.port() == 0);
    let again = |bind: &Bind| before.iter().any(|other| Bind::is_same_place(other, bind));
    if own.iter().filter(any_port).any(again) {
        let message =
            "two pages of the statistics have the same address with a port that the kernel chooses";
        let diagnostic = Diagnostic::error("duplicate-address", message)
            .at(place)
            .label("rlb could not tell which page is asked for")
            .hint("write a port");
        validator.report.push(diagnostic);
    }
}

impl PageOf<'_> {
    /// Warns about a page without a password: one that can be changed from other machines, or that is on all addresses.
    fn open_to_everyone(&self, validator: &mut Validator<'_>, scope: Scope<'_>) {
        if self.keys.auth.is_some() {
            return;
        }
        let admin = self.keys.admin.as_ref().map(|admin| admin.value.0);
        let changes = admin == Some(PageAdmin::Everyone);
        for written in self.bind.iter().flat_map(|list| &list.0) {
            let (address, device) = match &written.value {
                Short::Short(text) => (Some(text), None),
                Short::Table(table) => (
                    table.address.as_ref().map(|address| &address.value),
                    table.interface.as_ref().map(|device| device.value.as_str()),
                ),
            };
            let address = address.and_then(|text| address::bind(text).ok());
            let exposure = exposure(address.as_ref(), device);
            let (message, label) = match exposure {
                Some(Exposure::Everywhere) if !changes => (
                    "the statistics are on every address of this machine, without a password",
                    "everyone who reaches it may see them",
                ),
                Some(Exposure::Everywhere | Exposure::OtherMachines) if changes => (
                    "servers can be changed from other machines, without a password",
                    "everyone who reaches it may take servers out of service",
                ),
                _ => continue,
            };
            let code = if changes { "open-admin" } else { "open-stats" };
            let hint = if changes {
                "add `auth = \"admin:${file:/etc/rlb/stats-password}\"`, write `admin = \"localhost\"`, or \
             listen on \"127.0.0.1:8080\""
            } else {
                "listen on one address, as \"127.0.0.1:8080\", or add \
             `auth = \"admin:${file:/etc/rlb/stats-password}\"`"
            };
            let diagnostic = Diagnostic::warning(code, message).label(label).hint(hint);
            validator.report.push_quoting(scope.of(written), diagnostic);
            return;
        }
    }
}

/// From where an address can be reached.
enum Exposure {
    /// Over every address of the machine.
    Everywhere,
    /// From other machines.
    OtherMachines,
}

/// From where a bind can be reached; `None`: only from this machine, or it is not valid.
fn exposure(address: Option<&BindText>, device: Option<&str>) -> Option<Exposure> {
    match (address?, device) {
        (BindText::Tcp(ip, _), None) if ip.is_unspecified() => Some(Exposure::Everywhere),
        (BindText::Tcp(ip, _), device) => {
            let local = device == Some("lo") || ip.to_canonical().is_loopback();
            (!local).then_some(Exposure::OtherMachines)
        }
        // Not possible for the statistics, which is an error of its own.
        (BindText::Descriptor(_) | BindText::Unix(_), _) => None,
    }
}

/// `[stats]`, and the names of the proxies in the `scope` of each page.
pub(super) struct Draft {
    pub(super) stats: Stats,
    /// Of each page.
    shown: Vec<Vec<Written<String>>>,
}

impl Draft {
    /// Sets its `id`, and checks `scope` against the names of all proxies.
    pub(super) fn finish<'a>(
        mut self,
        validator: &mut Validator<'_>,
        id: ProxyId,
        proxies: &(impl Iterator<Item = &'a str> + Clone),
    ) -> Stats {
        let known: HashSet<&str> = proxies.clone().collect();
        for name in self.shown.iter().flatten() {
            if name.value != *self.stats.name && !known.contains(name.value.as_str()) {
                validator.report.push_error(|| {
                    let message = format!("there is no proxy `{}`", name.value);
                    Diagnostic::error("unknown-name", message)
                        .at(name.place.clone())
                        .label("expected a frontend, backend or listen")
                        .maybe_hint(words::did_you_mean(&name.value, proxies.clone()))
                });
            }
        }
        let further = self.stats.further.iter_mut().map(|page| &mut page.page);
        let pages = std::iter::once(&mut self.stats.page).chain(further);
        for (page, shown) in pages.zip(&self.shown) {
            let names = shown.iter().map(|name| name.value.as_str().into());
            page.scope = names.collect();
        }
        self.stats.id = id;
        self.stats
    }
}

fn page(
    validator: &mut Validator<'_>,
    scope: Scope<'_>,
    table: &StatsPageKeys,
    global: &Global,
) -> StatsPage {
    let layer = StatsPageLayer::read(validator, scope, table);
    let description = match (&layer.description, flag(layer.show_desc.as_ref())) {
        (Some(text), _) => Some(Arc::clone(&text.value)),
        (None, true) => global.description.clone(),
        (None, false) => None,
    };
    let plain = StatsPage::from_layer(&layer);
    StatsPage {
        uri: text(validator, layer.uri, uri_problem).unwrap_or(plain.uri),
        refresh: refresh(validator, layer.refresh),
        auth: credentials(validator, scope, table.auth.as_ref()),
        realm: text(validator, layer.realm, realm_problem).unwrap_or(plain.realm),
        description,
        ..plain
    }
}

/// The text of a key, unless `problem` refuses it.
fn text(
    validator: &mut Validator<'_>,
    written: Option<Written<Arc<str>>>,
    problem: impl Fn(&str) -> Option<Problem>,
) -> Option<Arc<str>> {
    let written = written?;
    let Some(problem) = problem(&written.value) else {
        return Some(written.value);
    };
    validator.problem(written.place, "text", "not as it should be", problem);
    None
}

/// What is wrong with the `uri` of a page.
pub fn uri_problem(uri: &str) -> Option<Problem> {
    if TAKEN.contains(&uri) {
        return Some(Problem::new(format!("`{uri}` has a page of its own")));
    }
    let mut begins = ["/", "http://", "https://"].iter();
    let begins = begins.any(|begin| uri.starts_with(begin));
    if !begins || !uri.bytes().all(|byte| byte.is_ascii_graphic()) {
        let problem = Problem::new("a uri is a path without blanks, or a URL");
        return Some(problem.hint("write it as `/stats` or `/haproxy?stats`"));
    }
    let option = uri.contains([';', '#']);
    option.then(|| {
        Problem::new("a uri holds no `;` and no `#`").hint("options follow it: `/stats;csv`")
    })
}

fn realm_problem(realm: &str) -> Option<Problem> {
    let plain = |byte: u8| (byte.is_ascii_graphic() || byte == b' ') && !b"\"\\".contains(&byte);
    (!realm.bytes().all(plain))
        .then(|| Problem::new("a realm is of ASCII letters, without quotes and backslashes"))
}

fn refresh(validator: &mut Validator<'_>, written: Option<Written<Duration>>) -> Option<Duration> {
    let written = written?;
    if written.value.subsec_nanos() != 0 {
        let problem = Problem::new("refresh is a number of whole seconds");
        validator.problem(
            written.place,
            "out-of-range",
            "expected whole seconds",
            problem,
        );
        return None;
    }
    Some(written.value)
}

fn credentials(
    validator: &mut Validator<'_>,
    scope: Scope<'_>,
    written: Option<&OneOrMany<String>>,
) -> Vec<Credentials> {
    let mut all = Vec::new();
    for one in written.map_or(&[][..], |list| &list.0) {
        match one.value.split_once(':') {
            Some((user, password)) if !user.is_empty() && !password.is_empty() => {
                all.push(Credentials(one.value.as_str().into()));
            }
            _ => {
                let diagnostic = Diagnostic::error("auth", "this is no user and password")
                    .at(scope.of(one))
                    .label("expected \"user:password\"")
                    .hint("keep the password in a file of its own: \"admin:${file:/etc/rlb/password}\"");
                validator.report.push(diagnostic);
            }
        }
    }
    all
}

/// `[readiness]`, with its backends looked up in `backends`.
pub(super) fn readiness<'a>(
    validator: &mut Validator<'_>,
    files: &[ParsedFile],
    listener: bool,
    backends: &(impl Iterator<Item = (&'a str, usize)> + Clone),
) -> Readiness {
    let Some((scope, table)) = once(validator, files, "readiness", |file| &file.readiness) else {
        return Readiness::default();
    };
    if !listener {
        let message = "[readiness] without [stats]: nobody can ask for `/readyz`";
        validator.report.push(
            Diagnostic::warning("no-listener", message)
                .at(scope.of(table))
                .hint("add `[stats]` with a `bind`"),
        );
    }
    let known: HashMap<&str, usize> = backends.clone().collect();
    let mut require = Vec::new();
    for (name, number) in &table.value.require {
        let Some((found, servers)) = known.get_key_value(name.value.as_str()) else {
            validator.report.push_error(|| {
                let message = format!("there is no backend `{}`", name.value);
                let names = backends.clone().map(|(name, _)| name);
                Diagnostic::error("unknown-name", message)
                    .at(scope.of(name))
                    .label("expected a backend or listen")
                    .maybe_hint(words::did_you_mean(&name.value, names))
            });
            continue;
        };
        let (found, servers) = (*found, *servers);
        if let Some(count) = required(validator, scope, (found, servers), number) {
            require.push((Arc::from(found), count));
        }
    }
    Readiness {
        require,
        ..Readiness::from_layer(&ReadinessLayer::read(validator, scope, &table.value))
    }
}

fn required(
    validator: &mut Validator<'_>,
    scope: Scope<'_>,
    (backend, servers): (&str, usize),
    number: &Located<i64>,
) -> Option<u32> {
    let most = i64::try_from(servers).unwrap_or(i64::MAX).max(1);
    let written = Some(number.clone());
    let count = validator.number_within(scope, backend, &written, 1..=i64::from(u32::MAX))?;
    if i64::from(count.value) > most {
        let message = format!("`{backend}` has {servers} servers: it can never be ready");
        validator.report.push(
            Diagnostic::error("out-of-range", message)
                .at(count.place)
                .label(expected(1, most)),
        );
        return None;
    }
    Some(count.value)
}
