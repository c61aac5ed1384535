//! The statements of `global`.

use super::address::{self, Address};
use super::context::{Context, keyword};
use super::log;
use super::proxy::Target;
use super::report::Outcome;
use super::sections::{Section, Statement};

use super::toml_string::{quote, string};
use super::units::Unit;
use crate::config::haproxy::Place;
use crate::config::{MAXCONN_MAX, THREADS_MAX, address as addresses, units as rlb};
use std::collections::BTreeMap;

/// What `global` says, as rlb writes it.
#[derive(Debug, Default)]
pub(super) struct Global {
    /// Keys of `[global]`.
    pub(super) keys: BTreeMap<&'static str, String>,
    pub(super) targets: Vec<Target>,
    /// `tag` of `[log]`.
    pub(super) tag: Option<String>,
    /// Keys of `[runtime-api]`.
    pub(super) socket: BTreeMap<&'static str, String>,
    /// `withdraw-delay` of `[readiness]`.
    pub(super) withdraw_delay: Option<String>,
    /// `maxconnrate` and its like.
    pub(super) marks: Vec<super::proxy::Mark>,
}

/// Reads a `global` section; several add up.
pub(super) fn read(context: &mut Context<'_, '_>, global: &mut Global, section: &Section) {
    context.report.section = section.number;
    context.kept(section.head.at, "global");
    for statement in &section.statements {
        one(context, global, statement);
    }
}

fn one(context: &mut Context<'_, '_>, global: &mut Global, statement: &Statement) {
    let word = statement.word(0);
    match word {
        "log" => {
            if let Some(target) = log::read(context, statement)
                && !global.targets.contains(&target)
            {
                global.targets.push(target);
            }
        }
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
        "nbthread" => number(context, global, statement, ("threads", THREADS_MAX)),
        "hard-stop-after" | "grace" => {
            if let Some(span) = context.span(statement, 1, Unit::Milliseconds) {
                context.kept(statement.at, word);
                let value = (!span.is_zero()).then(|| quote(&span.text));
                match (word, value) {
                    ("grace", value) => global.withdraw_delay = value,
                    (_, Some(value)) => drop(global.keys.insert("hard-stop-after", value)),
                    (_, None) => drop(global.keys.remove("hard-stop-after")),
                }
            }
        }
        "node" => match rlb::name(statement.word(1)) {
            Ok(()) => {
                global.keys.insert("node", quote(statement.word(1)));
                context.kept(statement.at, word);
            }
            Err(problem) => context.report.error(statement.at(1), word, problem.message),
        },
        "description" => {
            let texts: Vec<String> = statement.words[1..].iter().map(string).collect();
            global.keys.insert("description", quote(&texts.join(" ")));
            context.kept(statement.at, word);
        }
        "stats" if statement.word(1) == "socket" => socket(context, global, statement),
        _ => {
            let keyword = keyword(statement);
            let bare = keyword.strip_prefix("no ").unwrap_or(&keyword);
            let found = context.index.find(Place::Global, bare);
            let found = found.or_else(|| context.index.find(Place::Global, word));
            match found {
                Some(row) => {
                    let mark = context.mark(statement.at, &keyword, row);
                    global.marks.push(mark);
                }
                None => context.unknown(statement.at, Place::Global, bare),
            }
        }
    }
}

fn number(
    context: &mut Context<'_, '_>,
    global: &mut Global,
    statement: &Statement,
    (key, most): (&'static str, i64),
) {
    let word = statement.word(0);
    let Some(number) = context.number(statement, 1) else {
        return;
    };
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

/// `stats socket ADDRESS …`: the first one that is a unix socket is `[runtime-api]`.
fn socket(context: &mut Context<'_, '_>, global: &mut Global, statement: &Statement) {
    let keyword = "stats socket";
    let Some(word) = statement.words.get(2) else {
        return context
            .report
            .error(statement.at, keyword, "an address is missing");
    };
    let word = address::filled_in(word, context.environment);
    let socket = match address::parse(&word.text) {
        _ if !global.socket.is_empty() => {
            let text = "rlb has one runtime socket: it is the first";
            context
                .report
                .push(statement.at, keyword, Outcome::Unsupported, text);
            return;
        }
        Address::Unix(path) => path,
        Address::Abstract(name) => format!("@{name}"),
        _ => {
            let text = "the runtime socket is a unix socket: commands over TCP are not taken";
            context
                .report
                .push(statement.at, keyword, Outcome::Unsupported, text);
            return;
        }
    };
    let written = match &word.written {
        Some(_) => address::content(&word, context.environment)
            .map(|content| content.trim_start_matches("unix:").to_owned()),
        None => Some(address::escaped(&socket)),
    };
    if let Err(problem) = addresses::socket(&socket) {
        return context
            .report
            .error(statement.at(2), keyword, problem.message);
    }
    global
        .socket
        .insert("socket", quote(&written.unwrap_or(socket)));
    context.kept(statement.at, keyword);
    socket_words(context, global, statement);
}

/// What stands behind the address of a `stats socket`.
fn socket_words(context: &mut Context<'_, '_>, global: &mut Global, statement: &Statement) {
    let mut index = 3;
    while index < statement.words.len() {
        let (name, value) = (statement.word(index), statement.word(index + 1));
        let at = statement.at(index);
        let keyword = format!("stats socket {name}");
        match name {
            "mode" => match rlb::mode(value) {
                Ok(_) => drop(global.socket.insert("mode", quote(value))),
                Err(problem) => context.report.error(at, keyword, problem.message),
            },
            "level" if ["user", "operator", "admin"].contains(&value) => {
                global.socket.insert("level", quote(value));
            }
            "level" => {
                let text = format!("HAProxy has no level `{value}`");
                context.report.error(at, keyword, text);
            }
            _ => match context.index.find(Place::Socket, name) {
                Some(row) => drop(context.mark(at, &keyword, row)),
                None => return context.unknown(at, Place::Socket, &keyword),
            },
        }
        let flags = [
            "accept-proxy",
            "v4v6",
            "v6only",
            "ssl",
            "tfo",
            "transparent",
            "defer-accept",
        ];
        index += if flags.contains(&name) { 1 } else { 2 };
    }
}
