//! A configuration of HAProxy's → a configuration of rlb's, and a report of what became of each
//! statement.
//!
//! Bytes → words and sections (`lexer`, `condition`, `sections`) → proxies (`statement`, `bind`,
//! `server`, `global`, `log`, `page`) → what is carried over (`choice`, `defaults`) → TOML
//! (`write`). It goes on after every error. What each word becomes stands in
//! [`config::haproxy`](crate::config::haproxy). Runs on the main thread and on that of a reload.
//!
//! Invariant: a configuration that is written without an error is one that `config` accepts; it is
//! loaded before it is handed out.

mod acl;
mod address;
mod argument_count;
mod balance;
mod bind;
mod check;
mod check_request;
mod check_words;
mod choice;
mod condition;
mod context;
mod covered;
mod defaults;
mod defaults_words;
mod dump;
mod environment;
mod expect_proxy;
mod files;
mod format;
mod global;
mod lexer;
mod listen_address;
mod log;
mod log_format;
mod one_sided;
mod other_section;
mod page;
mod prove;
mod proxy;
mod report;
mod retry_on;
mod routes;
mod rules;
mod same_address;
mod sample;
mod sample_names;
mod sections;
mod server;
mod server_from;
mod server_header;
mod server_port;
mod server_tls;
mod server_values;
mod socket;
mod sorry;
mod source;
mod statement;
mod timeouts;
mod toml_string;
mod units;
mod unix_bind;
mod write;

pub use address::look_up;
pub use condition::{FEATURES, condition_holds};
pub use dump::{Dumped, dump};
pub use files::{Converted, HaproxyFiles, of_this_process, read};
pub use global::ProcessWords;
pub use report::{At, Entry, Outcome, Report};
pub use sections::Input;

use crate::config::BINDS_MAX;
use crate::config::haproxy::{Becomes, Index};
use choice::Choice;
use context::Context;
use environment::Environment;
use global::Global;
use prove::{LeftOut, problems};
use proxy::{Proxy, Settings};
use sections::{Kind, Section};

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// How to convert.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Carry over what is weaker than in HAProxy.
    pub allow_degraded: bool,
    /// Leave out every HTTP proxy.
    pub http_drop: bool,
    /// Write HAProxy's defaults where the files say nothing.
    pub haproxy_defaults: bool,
    /// `maxconn` of frontends that say none.
    pub frontend_maxconn: Option<u32>,
    /// Whether the result may run when the files have no listener at all.
    pub no_listener: NoListener,
    /// Tag of log lines where the files say none.
    pub log_tag: Option<&'static str>,
}

/// What becomes of files that have no listener: no proxy that listens, no page, no runtime socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NoListener {
    /// The result is not valid, so that a file that was cut off takes nothing down.
    #[default]
    Refused,
    /// It may run when the files say `master-worker`, as HAProxy's master process does.
    OfMaster,
    /// It may run.
    Accepted,
}

impl NoListener {
    /// Whether the result may run, of files that say `master-worker` or not.
    fn is_accepted(self, master_worker: bool) -> bool {
        match self {
            Self::Refused => false,
            Self::OfMaster => master_worker,
            Self::Accepted => true,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversion {
    /// The configuration of rlb's.
    pub toml: String,
    /// Where each line of it comes from.
    pub lines: Vec<Origin>,
    /// What became of each statement.
    pub report: Report,
    /// What the files say about the process itself.
    pub process: ProcessWords,
    /// Whether the files listen anywhere, on traffic, the statistics or commands.
    pub listens: bool,
}

/// Where a line of the configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// From no single statement.
    Nothing,
    /// From one.
    Statement(At),
    /// The statement of what begins at each column, counted in bytes from 0.
    Parts(Vec<(usize, At)>),
}

/// What a conversion asks besides its files.
#[derive(Clone, Copy)]
pub struct Outside<'a> {
    /// The value of a variable of the process.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The address of a host name.
    pub address: &'a dyn Fn(&str) -> Option<IpAddr>,
    /// The folder that relative paths of sockets are in; `None`: they are errors. Those of certificates stay as they are then.
    pub folder: Option<&'a str>,
    /// The path of a socket without symbolic links in its folder.
    pub real_path: &'a dyn Fn(&Path) -> PathBuf,
}

/// How often what is not valid is left out before nothing is written: a backend, what leads to it, and once more.
const ATTEMPTS_MAX: usize = 4;
/// Most bytes of files that are converted more than once.
const ATTEMPTED_AGAIN_MAX: usize = 1_000_000;

/// Converts files, and proves that the result is valid: a proxy that becomes something that is not is an error of the
/// conversion, and left out.
pub fn convert(inputs: &[Input], options: Options, outside: Outside<'_>) -> Conversion {
    let mut left_out = LeftOut::default();
    let size: usize = inputs.iter().map(|input| input.bytes.len()).sum();
    let most = if size > ATTEMPTED_AGAIN_MAX {
        1
    } else {
        ATTEMPTS_MAX
    };
    loop {
        let (mut conversion, heads) = attempt(inputs, options, &left_out, outside);
        let problems = problems(&conversion, outside.variable);
        let more = left_out.add(&problems, &heads);
        if problems.is_empty() {
            return conversion;
        }
        if more && left_out.attempts < most {
            continue;
        }
        NOTHING_WRITTEN.clone_into(&mut conversion.toml);
        conversion.lines = vec![Origin::Nothing];
        conversion.report.entries.extend(problems);
        conversion.report.sort();
        return conversion;
    }
}

/// What is written when nothing that is valid can be.
const NOTHING_WRITTEN: &str = "# Nothing is written: what these files become is not valid.\n";

/// A conversion that ends with an error in `report`.
fn nothing(mut report: Report, process: ProcessWords) -> Conversion {
    report.sort();
    report.tell_errors_left();
    Conversion {
        toml: NOTHING_WRITTEN.to_owned(),
        lines: vec![Origin::Nothing],
        report,
        process,
        listens: true,
    }
}

/// The first address of what is carried over that is more than rlb takes. Nothing else need be done then.
fn one_too_many(proxies: &[Proxy], choices: &[Choice]) -> Option<At> {
    let all = proxies.iter().zip(choices);
    let carried = all.filter(|(_, choice)| !matches!(choice, Choice::Dropped(_)));
    let binds = carried.flat_map(|(proxy, _)| &proxy.binds);
    binds.map(|bind| bind.at).nth(BINDS_MAX)
}

/// Converts files, for one who loads the result.
fn carry_over(inputs: &[Input], options: Options, outside: Outside<'_>) -> Conversion {
    attempt(inputs, options, &LeftOut::default(), outside).0
}

/// Converts files without what is to be left out; and where each proxy begins.
fn attempt(
    inputs: &[Input],
    options: Options,
    left_out: &LeftOut,
    outside: Outside<'_>,
) -> (Conversion, Vec<At>) {
    let mut report = Report {
        files: inputs.iter().map(|input| input.name.clone()).collect(),
        ..Report::default()
    };
    let Read {
        mut global,
        defaults,
        mut proxies,
        ..
    } = Read::of(inputs, outside, &mut report);
    socket::settle(&mut global.sockets, &mut report);
    let (sockets, real_path) = (&mut global.sockets, outside.real_path);
    same_address::take_paths(&mut proxies, sockets, real_path, &mut report);
    sorry::settle(&mut proxies, &mut report);
    judge_global(&global, options, &mut report);
    let mut choices = choice::choose(&proxies, &left_out.heads, options, &mut report);
    if let Some(at) = one_too_many(&proxies, &choices) {
        let text = format!("more than {BINDS_MAX} addresses to listen on: nothing is written");
        report.error(at, "bind", text);
        return (nothing(report, global.process), Vec::new());
    }
    let mut draft = fit(defaults, proxies, &choices, options, &mut report);
    covered::share_ports(&mut draft.proxies, &choices, &mut report);
    let sockets = (&mut global.sockets, options.allow_degraded);
    same_address::settle(&mut draft.proxies, &mut choices, sockets, &mut report);
    let mut pages = page::pages(&draft.proxies, &choices, &mut report);
    if options.haproxy_defaults {
        defaults::fill_in_global(&mut global, &mut pages);
    }
    if let Some(tag) = options.log_tag {
        global.tag.get_or_insert_with(|| tag.to_owned());
    }
    let listens = listens(&draft.proxies, &choices);
    let carried = carried(&draft.proxies, &choices);
    defaults::tell(&carried, &pages, &global, &mut report);
    if !listens && pages.is_empty() && !options.http_drop {
        tell_of_pages_not_shown(&draft.proxies, &mut report);
    }
    let others = !pages.is_empty() || !global.sockets.is_empty();
    let may_be_idle = options
        .no_listener
        .is_accepted(global.process.master_worker);
    let silent = !listens && !report.changes_traffic() && (others || may_be_idle);
    if !listens && !silent && !report.changes_traffic() && !report.failed() {
        let text =
            "nothing listens: rlb runs this only with `allow-no-listener = true` in `[global]`";
        report.information(text.to_owned());
    }
    report.entries.extend_from_slice(&left_out.problems);
    report.sort();
    report.tell_errors_left();
    let carried = write::Carried {
        global: &global,
        defaults: draft.common.as_ref(),
        proxies: &draft.proxies,
        choices: &choices,
        pages: &pages,
        silent,
    };
    let write::Written { toml, lines } = write::toml(&carried, &report);
    let conversion = Conversion {
        listens: listens || others,
        process: global.process,
        toml,
        lines,
        report,
    };
    (conversion, heads(&draft.proxies))
}

/// The proxies that are proxies of rlb's.
fn carried<'a>(proxies: &'a [Proxy], choices: &[Choice]) -> Vec<&'a Proxy> {
    let all = proxies.iter().zip(choices);
    let carried = all.filter(|(_, choice)| **choice == Choice::Carried);
    carried.map(|(proxy, _)| proxy).collect()
}

/// What the sections say that were read so far.
#[derive(Default)]
struct Read {
    global: Global,
    defaults: Vec<Proxy>,
    /// The last `defaults` of each name.
    names: HashMap<String, usize>,
    proxies: Vec<Proxy>,
}

impl Read {
    fn of(inputs: &[Input], outside: Outside<'_>, report: &mut Report) -> Self {
        let index = Index::shared();
        let mut environment = Environment::new(outside.variable, &report.files);
        let mut read = Self::default();
        let mut unknown = 0;
        let mut told_formats = HashSet::new();
        let mut sink = |section: &Section, environment: &Environment<'_>, report: &mut Report| {
            let mut context = Context {
                report,
                index,
                environment,
                resolve: outside.address,
                folder: outside.folder,
                unix_bind: read.global.unix_bind.clone(),
                tls: read.global.tls.clone(),
                unknown,
                told_formats: std::mem::take(&mut told_formats),
            };
            read.section(&mut context, section);
            unknown = context.unknown;
            told_formats = context.told_formats;
        };
        sections::read(inputs, &mut environment, index, report, &mut sink);
        let mut proxies = read.proxies.iter();
        let is_local = proxies.any(|proxy| proxy.settings.has_own_states());
        global::settle_states(outside.folder, &mut read.global, is_local);
        read
    }

    /// Reads one more.
    fn section(&mut self, context: &mut Context<'_, '_>, section: &Section) {
        match section.kind {
            Kind::Global => global::read(context, &mut self.global, section),
            Kind::Other => other_section::read(context, section),
            Kind::Defaults => {
                let base = from(context, section, &self.names, 2);
                let proxy = one(context, section, base, &self.defaults);
                self.names.insert(proxy.name.clone(), self.defaults.len());
                self.defaults.push(proxy);
            }
            _ => {
                let base = from(context, section, &self.names, 2);
                let base = base.or_else(|| self.defaults.len().checked_sub(1));
                let proxy = one(context, section, base, &self.defaults);
                self.proxies.push(proxy);
            }
        }
    }
}

/// The `defaults` that `from` behind a section's name asks for.
fn from(
    context: &mut Context<'_, '_>,
    section: &Section,
    names: &HashMap<String, usize>,
    first: usize,
) -> Option<usize> {
    let head = &section.head;
    // `defaults from other` has no name of its own.
    let first = if head.word(1) == "from" && section.kind == Kind::Defaults {
        1
    } else {
        first
    };
    if head.word(first) != "from" {
        return None;
    }
    let name = head.word(first + 1);
    let found = names.get(name).copied().filter(|_| !name.is_empty());
    if found.is_none() {
        let text = format!("there is no `defaults {name}` before it");
        context.report.error(head.at(first + 1), head.word(0), text);
    }
    found
}

/// Reads a proxy, or a `defaults`.
fn one(
    context: &mut Context<'_, '_>,
    section: &Section,
    base: Option<usize>,
    defaults: &[Proxy],
) -> Proxy {
    let head = &section.head;
    let keyword = head.word(0);
    let settings = base.map_or_else(Settings::default, |base| defaults[base].settings.clone());
    let entry = context.kept(head.at, keyword);
    let mut proxy = Proxy::new(section, entry, base, settings);
    if section.kind != Kind::Defaults
        && let Err(problem) = crate::config::units::name(&proxy.name)
    {
        context.report.error(head.at(1), keyword, problem.message);
        proxy.unreadable = Some("its name");
    }
    // `listen NAME ADDRESS:PORT`, as in HAProxy 1.4.
    if section.kind != Kind::Defaults && head.words.len() > 2 && head.word(2) != "from" {
        if section.kind == Kind::Backend {
            let text = format!("`{}` is not expected here", head.word(2));
            context.report.error(head.at(2), keyword, text);
        } else {
            bind::read(context, &mut proxy, head, 2);
            let text = "an address behind the name is a `bind`; HAProxy does not take it any more";
            context
                .report
                .push(head.at(2), keyword, Outcome::Information, text);
        }
    }
    for statement in &section.statements {
        statement::read(context, &mut proxy, statement);
    }
    server::settle_used(context, &mut proxy);
    format::settle(context, &proxy);
    proxy.forget_names();
    sorry::forget_acls(&mut proxy);
    let page = &mut proxy.settings.page;
    if page.first_error.is_none() {
        page.first_error.clone_from(&context.report.first_error);
    }
    statement::settle_options(context, &mut proxy);
    server_port::settle(context, &mut proxy);
    server_tls::settle(context, &mut proxy);
    statement::settle_route(context, &mut proxy);
    expect_proxy::settle(&mut proxy);
    covered::leave_out(&mut proxy, context.report);
    proxy
}

/// Where each proxy begins.
fn heads(proxies: &[Proxy]) -> Vec<At> {
    proxies.iter().map(|proxy| proxy.at).collect()
}

/// Judges the words of `global` that change traffic.
fn judge_global(global: &Global, options: Options, report: &mut Report) {
    for mark in &global.marks {
        if mark.row.becomes == Becomes::NeedsAllowDegraded {
            let say = mark.row.say;
            let traffic = !options.allow_degraded;
            report.raise(mark.entry, Outcome::Unsupported, say, traffic);
        }
    }
}

/// The proxies with values that fit each other, and the `defaults` that all have.
struct Draft {
    proxies: Vec<Proxy>,
    common: Option<Proxy>,
}

fn fit(
    mut defaults: Vec<Proxy>,
    mut proxies: Vec<Proxy>,
    choices: &[Choice],
    options: Options,
    report: &mut Report,
) -> Draft {
    let tunnels: HashMap<String, units::Span> = proxies
        .iter()
        .filter(|proxy| proxy.is_back())
        .filter_map(|proxy| {
            let (span, _) = proxy.settings.tunnel.clone()?;
            Some((proxy.name.clone(), span))
        })
        .collect();
    let carried = proxies.iter().zip(choices);
    let mut used: Vec<Option<usize>> = carried
        .filter(|(_, choice)| **choice == Choice::Carried)
        .map(|(proxy, _)| proxy.defaults)
        .collect();
    used.sort_unstable();
    used.dedup();
    let common = match used[..] {
        [Some(one)] => Some(one),
        _ => None,
    };
    for (proxy, choice) in proxies.iter_mut().zip(choices) {
        let target = proxy.target().unwrap_or(&proxy.name);
        // The servers of a `listen` that leads elsewhere are asked by others.
        let sides = [target, &proxy.name].map(|name| tunnels.get(name).cloned());
        // Pages do not have what `[defaults]` says.
        let common = common.filter(|_| *choice != Choice::Page);
        let common = common.map(|one| &defaults[one].settings);
        for key in finish(proxy, common, sides.each_ref().map(Option::as_ref), options) {
            let whole = key.trim_end_matches("-fin");
            let text = format!(
                "{}: `timeout {key}` is shortened to `timeout {whole}`, which is the most",
                proxy.name
            );
            report.information(text);
        }
    }
    for proxy in &mut defaults {
        let tunnel = proxy.settings.tunnel.clone().map(|(span, _)| span);
        finish(proxy, None, [tunnel.as_ref(); 2], options);
    }
    let common = common.map(|one| defaults.swap_remove(one));
    Draft { proxies, common }
}

/// Completes what a proxy says. `common`: what its `defaults` say, when it is written for all proxies; `tunnels`: that of
/// the backend which its clients are led to, and its own.
fn finish(
    proxy: &mut Proxy,
    common: Option<&Settings>,
    tunnels: [Option<&units::Span>; 2],
    options: Options,
) -> Vec<&'static str> {
    if options.haproxy_defaults {
        defaults::fill_in(&mut proxy.settings);
    }
    if let (Some(most), true) = (options.frontend_maxconn, proxy.is_front()) {
        let keys = &mut proxy.settings.keys;
        keys.entry("maxconn").or_insert_with(|| most.to_string());
    }
    retry_on::settle(&mut proxy.settings, common);
    if let Some(common) = common {
        defaults::write_taken_back(&mut proxy.settings, common);
    }
    let mut shorter = defaults::fit(&mut proxy.settings, tunnels);
    shorter.retain(|key| match *key {
        "client-fin" => proxy.is_front(),
        _ => proxy.is_back(),
    });
    defaults::fit_checks(proxy, options.haproxy_defaults);
    shorter
}

/// Says of pages that no client can ask for that they count: HAProxy listens there, and nothing else is left that does.
fn tell_of_pages_not_shown(proxies: &[Proxy], report: &mut Report) {
    let hidden = proxies.iter().filter(|proxy| {
        let settings = &proxy.settings;
        proxy.is_page() && settings.page.not_shown.is_some() && !settings.disabled
    });
    for proxy in hidden {
        report.entries[proxy.entry].traffic = true;
    }
}

/// Whether something that is carried over listens.
fn listens(proxies: &[Proxy], choices: &[Choice]) -> bool {
    proxies.iter().zip(choices).any(|(proxy, choice)| {
        *choice == Choice::Carried && proxy.is_front() && !proxy.settings.disabled
    })
}

#[cfg(test)]
mod tests;
