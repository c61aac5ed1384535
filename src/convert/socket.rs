//! `stats socket ADDRESS[,ADDRESS…] …` in `global`: sockets of `[runtime-api]`.
//!
//! Invariant: of a line that is in error nothing is written. Without one of its words more people could give commands,
//! or more of them.

use super::address::{self, Address, Use};
use super::bind;
use super::context::Context;
use super::lexer::Word;
use super::proxy::Mark;
use super::report::{At, Outcome};
use super::sections::Statement;
use super::toml_string::quote;
use super::units;
use crate::config::haproxy::{Becomes, Place};
use crate::config::{BINDS_MAX, address as addresses};
use std::collections::{BTreeMap, HashSet};
use std::net::Ipv6Addr;

/// The keys of a socket, as rlb writes them.
type Keys = BTreeMap<&'static str, String>;

/// A socket of `[runtime-api]`.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) at: At,
    pub(super) keys: Keys,
}

/// Reads one line into the sockets, of which the addresses are known. What it has that is not carried over.
pub(super) fn read(
    context: &mut Context<'_, '_>,
    (all, known): (&mut Vec<Socket>, &mut HashSet<String>),
    statement: &Statement,
) -> Vec<Mark> {
    let keyword = "stats socket";
    let Some(word) = statement.words.get(2) else {
        context
            .report
            .error(statement.at, keyword, "an address is missing");
        return Vec::new();
    };
    let errors = context.report.errors;
    let word = address::filled_in(word, context.environment);
    let entry = context.kept(statement.at, keyword);
    let (keys, mut marks) = words(context, statement, &word);
    let is_closed = !marks.is_empty();
    let mut sockets: Vec<Socket> = Vec::new();
    for piece in bind::pieces(&word) {
        if all.len() + sockets.len() >= BINDS_MAX {
            let text = format!("more than {BINDS_MAX} sockets for commands");
            context.report.error(statement.at(2), keyword, text);
            break;
        }
        if let Some(address) = listen(context, (known, &mut marks), statement, &piece) {
            sockets.push(Socket {
                at: statement.at,
                keys: with_level(&keys, address),
            });
        }
    }
    let in_error = context.report.errors > errors;
    if in_error || is_closed {
        sockets.clear();
    }
    if sockets.is_empty() {
        let text = if in_error {
            "it is left out: something in it is in error"
        } else {
            "it is left out"
        };
        context.report.raise(entry, Outcome::Dropped, text, false);
    }
    all.extend(sockets);
    marks
}

/// The keys of the socket at `address`. Where the line says who may connect, or everybody may who reaches it, the level is
/// HAProxy's.
fn with_level(keys: &Keys, address: String) -> Keys {
    let mut keys = keys.clone();
    let mut words = ["mode", "owner", "group"].iter();
    if !is_unix(&address) || words.any(|word| keys.contains_key(word)) {
        let level = keys.entry("level");
        level.or_insert_with(|| quote("operator"));
    }
    keys.insert("socket", address);
    keys
}

/// Whether an address, as rlb writes it, is that of a unix socket.
fn is_unix(address: &str) -> bool {
    let begins = ["/", "@", "abns@", "unix:"];
    let address = address.trim_start_matches('"');
    begins.iter().any(|begin| address.starts_with(begin))
}

/// An address without `unix:`, where nothing else can be meant.
fn bare(address: String) -> String {
    match address.strip_prefix("unix:") {
        Some(path) if path.starts_with(['/', '@']) => path.to_owned(),
        _ => address,
    }
}

/// Whether `v6only` closes an address to clients.
fn is_v6_wildcard(text: &str) -> bool {
    let Address::Host { host, .. } = address::parse_for(text, Use::Bind) else {
        return false;
    };
    let host = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let ip = host.and_then(|host| host.parse::<Ipv6Addr>().ok());
    ip.is_some_and(|ip| ip.is_unspecified())
}

/// One address, as rlb writes it.
fn listen(
    context: &mut Context<'_, '_>,
    (known, marks): (&mut HashSet<String>, &mut Vec<Mark>),
    statement: &Statement,
    word: &Word,
) -> Option<String> {
    let (at, keyword) = (statement.at(2), "stats socket");
    let parsed = address::parse_for(&word.text, Use::Bind);
    let rendered = address::render(&parsed);
    let socket = match parsed {
        Address::Host { port: None, .. } => {
            let text = "a runtime socket has a path, or an address and a port";
            context.report.error(at, keyword, text);
            return None;
        }
        Address::Unusable(why) => {
            match context.index.find(Place::Socket, &word.text) {
                Some(row) => {
                    let mark = context.mark(statement.at, keyword, row);
                    marks.push(mark);
                }
                None => context.report.error(at, keyword, why),
            }
            return None;
        }
        _ => bare(rendered.unwrap_or_default()),
    };
    let written = match &word.written {
        Some(_) => address::content(word, context.environment).map(bare),
        None => Some(address::escaped(&socket)),
    };
    if let Err(problem) = addresses::runtime(&socket) {
        context.report.error(at, keyword, problem.message);
        return None;
    }
    let address = quote(&written.unwrap_or(socket));
    if !known.insert(address.clone()) {
        let text = "another line has this address";
        context.report.error(at, keyword, text);
        return None;
    }
    Some(address)
}

/// What stands behind the addresses, and what closes them to clients that rlb would let in.
fn words(
    context: &mut Context<'_, '_>,
    statement: &Statement,
    addresses: &Word,
) -> (Keys, Vec<Mark>) {
    let (mut keys, mut closed) = (Keys::new(), Vec::new());
    let mut index = 3;
    while index < statement.words.len() {
        let (name, value) = (statement.word(index), statement.word(index + 1));
        let at = statement.at(index);
        let keyword = format!("stats socket {name}");
        let row = context.index.find(Place::Socket, name);
        let is_flag = bind::is_flag(name);
        let known = row.is_some() || ["mode", "level"].contains(&name);
        if known && !is_flag && value.is_empty() {
            context.report.error(at, keyword, "a value is missing");
            break;
        }
        match name {
            "mode" => match units::file_mode(value) {
                Ok(mode) => {
                    keys.remove("mode");
                    keys.extend(mode.map(|mode| ("mode", quote(&mode))));
                }
                Err(problem) => context.report.error(at, keyword, problem),
            },
            "user" | "uid" => drop(keys.insert("owner", quote(value))),
            "group" | "gid" => drop(keys.insert("group", quote(value))),
            "level" if ["user", "operator", "admin"].contains(&value) => {
                keys.insert("level", quote(value));
            }
            "level" => {
                let text = format!("HAProxy has no level `{value}`");
                context.report.error(at, keyword, text);
            }
            _ => {
                let Some(row) = row else {
                    context.unknown(at, Place::Socket, &keyword);
                    break;
                };
                let mark = context.mark(at, &keyword, row);
                let mut pieces = addresses.text.split(',');
                let has_effect = name != "v6only" || pieces.any(is_v6_wildcard);
                if row.becomes == Becomes::Weaker && has_effect {
                    closed.push(mark);
                }
            }
        }
        index += if is_flag { 1 } else { 2 };
    }
    (keys, closed)
}
