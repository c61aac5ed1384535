//! The head of the page: the process, the legend, and links to other views.

use super::render;
use super::result::{ActionResult, Message};
use super::text::{age, bit_rate};
use super::trouble::Trouble;
use crate::live::{LastReload, ReloadEnd};
use crate::stats::filter::Filter;
use crate::stats::info::Facts;
use crate::stats::info::RELEASED;
use crate::stats::process::{VERSION, threads};
use askama::Template;
use std::fmt::Write;
use std::sync::Arc;

/// Most characters of a failed reload's reason that the page shows.
const REASON_MAX: usize = 300;

/// Most old processes that the page names.
const OLD_PROCESSES_MAX: usize = 10;

/// What a browser asks for, and with which URL.
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Which rows are shown.
    pub filter: Filter,
    /// Start of the page's URL.
    pub uri: Arc<str>,
    /// Whether a refresh is configured.
    pub refreshable: bool,
    /// Whether the page refreshes itself.
    pub refreshing: bool,
    /// Do not show the version.
    pub hide_version: bool,
    /// Show the name of this machine.
    pub show_node: bool,
    /// Text on the page.
    pub description: Option<Arc<str>>,
    /// Show addresses, ids and algorithms in tooltips.
    pub legends: bool,
    /// Whoever asks may change servers.
    pub admin: bool,
    /// The result of an action, to be shown.
    pub result: Option<ActionResult>,
}

impl View {
    /// Whether servers have check boxes. Not on a page that refreshes itself, because that would clear them.
    pub fn has_checkboxes(&self) -> bool {
        self.admin && !self.refreshing
    }

    /// The URL of this view that shows the result of an action.
    pub fn with_result(&self, result: ActionResult) -> String {
        self.link(&format!(";st={}", result.code()))
    }

    /// The URL of this view with check boxes, if this one has none.
    pub(super) fn changing(&self) -> Option<String> {
        let link = || self.with(|view| view.refreshing = false).link("");
        (self.admin && self.refreshing).then(link)
    }

    /// The URL of this view, with `format` after the configured one.
    pub(super) fn link(&self, format: &str) -> String {
        let mut link = format!("{}{format}", self.uri);
        let filter = &self.filter;
        for (set, option) in [
            (filter.up, ";up"),
            (filter.no_maint, ";no-maint"),
            (filter.problems, ";problems"),
            (self.refreshable && !self.refreshing, ";norefresh"),
        ] {
            if set {
                link.push_str(option);
            }
        }
        if let Some(scope) = &filter.scope {
            link.push_str(";scope=");
            for byte in scope.bytes() {
                if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
                    link.push(char::from(byte));
                } else {
                    // Writing to a string cannot fail.
                    let _ = write!(link, "%{byte:02X}");
                }
            }
        }
        link
    }

    /// This view after `change`.
    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut view = self.clone();
        change(&mut view);
        view
    }

    fn links(&self) -> Links {
        let once = self.with(|view| view.refreshing = false);
        let refresh = self.with(|view| view.refreshing = !view.refreshing);
        Links {
            form: self.uri.split('?').next().unwrap_or_default().to_owned(),
            // A form replaces the query of its URL, so the query of the configured uri becomes fields.
            fields: self
                .uri
                .split_once('?')
                .into_iter()
                .flat_map(|(_, query)| query.split('&'))
                .map(|field| field.split_once('=').unwrap_or((field, "")))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            up: self.with(|view| view.filter.up = !view.filter.up).link(""),
            problems: self
                .with(|view| view.filter.problems = !view.filter.problems)
                .link(""),
            refresh: self.refreshable.then(|| refresh.link("")),
            now: self.link(""),
            csv: once.link(";csv"),
            json: once.link(";json"),
            schema: format!("{};json-schema", self.uri),
        }
    }
}

/// URLs of other views.
struct Links {
    form: String,
    fields: Vec<(String, String)>,
    up: String,
    problems: String,
    refresh: Option<String>,
    now: String,
    csv: String,
    json: String,
    schema: String,
}

#[derive(Template)]
#[template(path = "stats/head.html")]
struct Head<'a> {
    own_version: &'static str,
    version: &'static str,
    released: &'static str,
    hide_version: bool,
    node: Option<&'a str>,
    description: &'a str,
    pid: u32,
    threads: u32,
    uptime: String,
    nofile: u32,
    maxconn: u32,
    reached: u64,
    connections: u32,
    pipes_used: u32,
    pipes: u32,
    rate: u32,
    bit_rate: String,
    tasks: u32,
    idle: u32,
    old_processes: Vec<OldLine>,
    failed_reload: Option<String>,
    trouble: Trouble,
    links: Links,
    scope: &'a str,
    filter: &'a Filter,
    refreshing: bool,
    admin: bool,
    message: Option<Message>,
}

/// A process before this one that still has sessions.
struct OldLine {
    pid: u32,
    sessions: u64,
    /// For how long it has taken no new sessions.
    since: String,
}

/// Appends the head.
pub(super) fn write(text: &mut String, facts: &Facts<'_>, view: &View) {
    let head = Head {
        own_version: env!("CARGO_PKG_VERSION"),
        version: VERSION,
        released: RELEASED,
        hide_version: view.hide_version,
        node: view.show_node.then(|| facts.node()),
        description: view.description.as_deref().unwrap_or_default(),
        pid: facts.process.pid,
        threads: threads(facts.snapshot),
        uptime: facts.uptime_text(),
        nofile: facts.process.nofile,
        maxconn: facts.snapshot.maxconn,
        reached: facts.snapshot.global.traffic.sum(|traffic| &traffic.paused),
        connections: facts.connections(),
        pipes_used: facts.pipes_used(),
        pipes: facts.pipes_used() + facts.pipes_free(),
        rate: facts.rate(),
        bit_rate: bit_rate(facts.process.bytes_out_rate()),
        tasks: facts.tasks(),
        idle: facts.process.idle_percent(),
        old_processes: old_processes(facts),
        failed_reload: failed_reload(facts),
        trouble: Trouble::of(facts.snapshot, &view.filter),
        links: view.links(),
        scope: view.filter.scope.as_deref().unwrap_or_default(),
        filter: &view.filter,
        refreshing: view.refreshing,
        admin: view.admin,
        message: view.result.map(ActionResult::message),
    };
    render(text, &head);
}

fn old_processes(facts: &Facts<'_>) -> Vec<OldLine> {
    let old = facts.snapshot.global.old_processes.load();
    let lines = old.iter().take(OLD_PROCESSES_MAX).map(|process| OldLine {
        pid: process.pid,
        sessions: process.sessions,
        since: age(facts.now.saturating_duration_since(process.since).as_secs()),
    });
    lines.collect()
}

/// When and why the last reload failed, in one line; `None` if it did not.
fn failed_reload(facts: &Facts<'_>) -> Option<String> {
    let last = facts.snapshot.global.reloads.last.load();
    let LastReload { end, at, lines } = last.as_deref()?;
    let word = match end {
        ReloadEnd::Done => return None,
        ReloadEnd::Refused => "failed",
        ReloadEnd::RolledBack => "was taken back",
        ReloadEnd::RollbackFailed => "could not be taken back",
    };
    let ago = age(facts.now.saturating_duration_since(*at).as_secs());
    // The first line is the reason, or the first of several; the log has all of them.
    let first = lines.iter().flat_map(|line| line.lines()).next();
    let first = first.unwrap_or("see the log");
    let mut text = format!("The last reload {word} {ago} ago: ");
    text.extend(first.chars().take(REASON_MAX));
    if first.chars().nth(REASON_MAX).is_some() {
        text.push('…');
    }
    let more = lines.len().saturating_sub(2);
    if more > 0 {
        // Writing to a string cannot fail.
        let _ = write!(text, " (and {more} more)");
    }
    Some(text)
}
