//! The statements of `global`.

use super::context::{Context, GlobalTls, keyword};
use super::proxy::{Mark, Target};
use super::report::Outcome;
use super::sections::{Section, Statement};
use super::{argument_count, log, socket};

use super::toml_string::{quote, string};
use super::units::{self, Unit};
use super::unix_bind::UnixBind;
use crate::config::haproxy::Place;
use crate::config::{API_MAXCONN_MAX, MAXCONN_MAX, THREADS_MAX, units as rlb};
use std::collections::{BTreeMap, HashSet};

/// What `global` says, as rlb writes it.
#[derive(Debug, Default)]
pub(super) struct Global {
    /// Number of its last section in the report.
    pub(super) section: usize,
    /// Keys of `[global]`.
    pub(super) keys: BTreeMap<&'static str, String>,
    pub(super) targets: Vec<Target>,
    /// `tag` of `[log]`.
    pub(super) tag: Option<String>,
    /// Keys of `[runtime-api]` that all sockets have.
    pub(super) api: BTreeMap<&'static str, String>,
    /// The keys of each of its sockets.
    pub(super) sockets: Vec<socket::Socket>,
    /// Their numbers.
    pub(super) socket_ids: HashSet<i64>,
    pub(super) unix_bind: UnixBind,
    /// `server-state-file` and `server-state-base` as they are written.
    pub(super) state_file: Option<String>,
    pub(super) state_base: Option<String>,
    pub(super) tls: GlobalTls,
    /// `withdraw-delay` of `[readiness]`.
    pub(super) withdraw_delay: Option<String>,
    /// What is not carried over.
    pub(super) marks: Vec<Mark>,
    /// What it says about the process itself.
    pub(super) process: ProcessWords,
}

/// What `global` says about the process itself. It has an effect when the program runs under the name
/// `haproxy`.
#[expect(clippy::struct_excessive_bools, reason = "switches of HAProxy's")]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessWords {
    /// `daemon`: it goes into the background.
    pub daemon: bool,
    /// `master-worker`: signals reload it.
    pub master_worker: bool,
    /// `pidfile`.
    pub pid_file: Option<String>,
    /// `quiet`: a start says nothing.
    pub quiet: bool,
    /// `zero-warning`: a warning is an error.
    pub zero_warning: bool,
    /// The first of `user` and `uid`, a name or a number.
    pub user: Option<String>,
    /// The first of `group` and `gid`.
    pub group: Option<String>,
    /// The names of `setcap`: capabilities that stay when root is given up.
    pub capabilities: Vec<String>,
}

/// The capabilities that HAProxy's `setcap` knows.
const CAPABILITIES: [&str; 4] = [
    "cap_net_raw",
    "cap_net_admin",
    "cap_net_bind_service",
    "cap_sys_admin",
];

impl ProcessWords {
    fn read(&mut self, statement: &Statement) {
        match statement.word(0) {
            "daemon" => self.daemon = true,
            "master-worker" => self.master_worker = true,
            "pidfile" => self.pid_file = Some(statement.word(1).to_owned()),
            "quiet" => self.quiet = true,
            "zero-warning" => self.zero_warning = true,
            "user" | "uid" => drop(
                self.user
                    .get_or_insert_with(|| statement.word(1).to_owned()),
            ),
            "group" | "gid" => drop(
                self.group
                    .get_or_insert_with(|| statement.word(1).to_owned()),
            ),
            _ => {}
        }
    }
}

/// Reads a `global` section; several add up.
pub(super) fn read(context: &mut Context<'_, '_>, global: &mut Global, section: &Section) {
    context.report.section = section.number;
    global.section = section.number;
    context.kept(section.head.at, "global");
    for statement in &section.statements {
        one(context, global, statement);
    }
}

fn one(context: &mut Context<'_, '_>, global: &mut Global, statement: &Statement) {
    let word = statement.word(0);
    if let Some((index, problem)) = argument_count::refused(Place::Global, statement) {
        return context.report.error(statement.at(index), word, problem);
    }
    match word {
        "log" => global.targets.extend(log::read(context, statement)),
        "log-tag" => match rlb::name(statement.word(1)) {
            Ok(()) => {
                global.tag = Some(statement.word(1).to_owned());
                context.kept(statement.at, word);
            }
            Err(problem) => {
                let text = format!("{}: the tag is `rlb`", problem.message);
                context
                    .report
                    .push(statement.at, word, Outcome::Changed, text);
            }
        },
        "maxconn" => number(context, global, statement, ("maxconn", MAXCONN_MAX)),
        "maxconnrate" => number(context, global, statement, ("maxconnrate", MAXCONN_MAX)),
        "maxsessrate" => number(context, global, statement, ("maxsessrate", MAXCONN_MAX)),
        "nbthread" => number(context, global, statement, ("threads", THREADS_MAX)),
        "hard-stop-after" | "grace" => {
            stop_time(context, global, statement);
        }
        "node" => match rlb::name(statement.word(1)) {
            Ok(()) => {
                global.keys.insert("node", quote(statement.word(1)));
                context.kept(statement.at, word);
            }
            Err(problem) => context.report.error(statement.at(1), word, problem.message),
        },
        "server-state-file" | "server-state-base" => states(context, global, statement),
        "description" => describe(context, global, statement),
        "stats" if statement.word(1) == "socket" => {
            let sockets = (&mut global.sockets, &mut global.socket_ids);
            global
                .marks
                .extend(socket::read(context, sockets, statement));
        }
        "stats" if ["timeout", "maxconn"].contains(&statement.word(1)) => {
            socket_limit(context, global, statement);
        }
        "ca-base" | "crt-base" | "ssl-server-verify" => tls(context, &mut global.tls, statement),
        "unix-bind" => unix_bind(context, &mut global.unix_bind, statement),
        "setcap" => capabilities(context, global, statement),
        "harden.reject-privileged-ports.tcp" if statement.word(1) == "off" => {
            let text = "it is off in rlb too";
            context
                .report
                .push(statement.at, word, Outcome::NotNeeded, text);
        }
        _ => {
            global.process.read(statement);
            let keyword = keyword(statement);
            let bare = keyword.strip_prefix("no ").unwrap_or(&keyword);
            // `stats` alone says nothing.
            let alone = |word: &&str| *word != "stats";
            let words = [bare, word].into_iter().filter(alone);
            let mut found = words.filter_map(|word| context.index.find(Place::Global, word));
            match found.next() {
                Some(row) => {
                    let mark = context.mark(statement.at, &keyword, row);
                    global.marks.push(mark);
                }
                None => context.unknown(statement.at, Place::Global, bare),
            }
        }
    }
}

fn describe(context: &mut Context<'_, '_>, global: &mut Global, statement: &Statement) {
    let texts: Vec<String> = statement.words[1..].iter().map(string).collect();
    global.keys.insert("description", quote(&texts.join(" ")));
    context.kept(statement.at, "description");
}

/// `server-state-file` and `server-state-base`.
fn states(context: &mut Context<'_, '_>, global: &mut Global, statement: &Statement) {
    let (word, path) = (statement.word(0), statement.word(1).to_owned());
    context.kept(statement.at, word);
    if word == "server-state-base" {
        global.state_base = Some(path);
    } else {
        global.state_file = Some(path);
    }
}

/// Writes the paths of server-state files. HAProxy takes a relative one from the folder that it is started in. `is_local`:
/// a backend has a file of its own.
pub(super) fn settle_states(folder: Option<&str>, global: &mut Global, is_local: bool) {
    let is_relative = |path: &&String| !path.starts_with('/');
    let needs_base = is_local
        || global
            .state_file
            .as_ref()
            .is_some_and(|it| is_relative(&it));
    let base = match (&global.state_base, folder) {
        (Some(base), Some(folder)) if is_relative(&base) => Some(format!("{folder}/{base}")),
        (Some(base), _) => Some(base.clone()),
        (None, folder) => folder.filter(|_| needs_base).map(str::to_owned),
    };
    let keys = [
        ("server-state-base", base),
        ("server-state-file", global.state_file.take()),
    ];
    for (key, path) in keys {
        global.keys.extend(path.map(|path| (key, quote(&path))));
    }
}

/// `hard-stop-after` and `grace`.
fn stop_time(context: &mut Context<'_, '_>, global: &mut Global, statement: &Statement) {
    let word = statement.word(0);
    let Some(span) = context.span(statement, 1, Unit::Milliseconds) else {
        return;
    };
    context.kept(statement.at, word);
    let value = (!span.is_zero()).then(|| quote(&span.text));
    match (word, value) {
        ("grace", value) => global.withdraw_delay = value,
        (_, Some(value)) => drop(global.keys.insert("hard-stop-after", value)),
        (_, None) => drop(global.keys.remove("hard-stop-after")),
    }
}

/// `setcap NAME,NAME…`.
fn capabilities(context: &mut Context<'_, '_>, global: &mut Global, statement: &Statement) {
    let word = statement.word(0);
    let names: Vec<&str> = statement.word(1).split(',').collect();
    let known = |name: &&str| CAPABILITIES.contains(name);
    if let Some(name) = names.iter().find(|name| !known(name)) {
        let all = CAPABILITIES.join(", ");
        let text = format!("HAProxy has no capability `{name}` here: there is {all}");
        return context.report.error(statement.at(1), word, text);
    }
    let names = names.into_iter().map(str::to_owned);
    global.process.capabilities.extend(names);
    let Some(row) = context.index.find(Place::Global, word) else {
        return context.unknown(statement.at, Place::Global, word);
    };
    let mark = context.mark(statement.at, word, row);
    global.marks.push(mark);
}

fn number(
    context: &mut Context<'_, '_>,
    global: &mut Global,
    statement: &Statement,
    (key, most): (&'static str, i64),
) {
    let word = statement.word(0);
    let Some(number) = context.number_or_zero(statement, 1) else {
        return;
    };
    if key == "threads" && !(1..=most).contains(&number) {
        let text = format!("{number} is not within 1 and {most}");
        return context.report.error(statement.at(1), word, text);
    }
    if number <= 0 {
        let text = "0 stands for the default";
        context
            .report
            .push(statement.at, word, Outcome::NotNeeded, text);
        return;
    }
    context.kept(statement.at, word);
    global.keys.insert(key, number.min(most).to_string());
}

/// What all servers have of TLS.
fn tls(context: &mut Context<'_, '_>, tls: &mut GlobalTls, statement: &Statement) {
    let (word, value) = (statement.word(0), statement.word(1));
    match (word, value) {
        ("ca-base", _) => tls.ca_base = Some(value.to_owned()),
        ("crt-base", _) => tls.crt_base = Some(value.to_owned()),
        (_, "none" | "required") => tls.verify_none = value == "none",
        _ => {
            let text = format!("HAProxy has no `{value}` for it");
            return context.report.error(statement.at(1), word, text);
        }
    }
    context.kept(statement.at, word);
}

/// `stats timeout` and `stats maxconn`.
fn socket_limit(context: &mut Context<'_, '_>, global: &mut Global, statement: &Statement) {
    let keyword = format!("stats {}", statement.word(1));
    if statement.word(1) == "timeout" {
        let Some(span) = context.span(statement, 2, Unit::Milliseconds) else {
            return;
        };
        if span.is_zero() {
            let text = "it is longer than 0";
            return context.report.error(statement.at(2), keyword, text);
        }
        global.api.insert("timeout", quote(&span.text));
    } else {
        let Some(number) = context.number(statement, 2) else {
            return;
        };
        if number <= 0 {
            let text = "it is greater than 0";
            return context.report.error(statement.at(2), keyword, text);
        }
        let within = number.min(API_MAXCONN_MAX);
        global.api.insert("maxconn", within.to_string());
        if within != number {
            let text = format!("`maxconn` is {within}: rlb takes 1 to {API_MAXCONN_MAX}");
            let changed = Outcome::Changed;
            context.report.push(statement.at, keyword, changed, text);
            return;
        }
    }
    context.kept(statement.at, keyword);
}

/// `unix-bind`; several add up.
fn unix_bind(context: &mut Context<'_, '_>, own: &mut UnixBind, statement: &Statement) {
    let errors = context.report.errors;
    unix_bind_words(context, own, statement);
    if context.report.errors > errors {
        own.in_error.get_or_insert(statement.at.line);
    }
}

fn unix_bind_words(context: &mut Context<'_, '_>, own: &mut UnixBind, statement: &Statement) {
    context.kept(statement.at, "unix-bind");
    let mut index = 1;
    while index < statement.words.len() {
        let (name, value) = (statement.word(index), statement.word(index + 1));
        let at = statement.at(index);
        let keyword = format!("unix-bind {name}");
        let owner = ["user", "uid", "group", "gid"];
        match name {
            "prefix" | "user" | "uid" | "group" | "gid" if value.is_empty() => {
                return context.report.error(at, keyword, "a value is missing");
            }
            "prefix" if own.prefix.is_some() => {
                let text = "another one stands before it";
                context.report.error(at, keyword, text);
            }
            "prefix" => own.prefix = Some(value.to_owned()),
            "mode" => {
                own.mode = units::leading_file_mode(value);
                if !value.contains(|c: char| c.is_digit(8)) {
                    let text = "it is no octal number, and so 0: the files are left as they are";
                    let information = Outcome::Information;
                    context.report.push(at, keyword, information, text);
                }
            }
            _ => {
                let Some(word) = owner.into_iter().find(|word| *word == name) else {
                    let text = "write `prefix`, `mode`, `uid`, `gid`, `user` or `group`";
                    return context.report.error(at, keyword, text);
                };
                own.owner = Some(word);
            }
        }
        index += 2;
    }
}
