//! `bind`, and the address in a `listen NAME ADDRESS`.

use super::address::{self, Address, Use};
use super::context::Context;
use super::lexer::Word;
use super::proxy::{Bind, Mark, Proxy};
use super::report::{At, Outcome};
use super::sections::Statement;
use super::toml_string::string;
use crate::config::haproxy::{Becomes, Place};
use crate::config::{address as addresses, units as rlb};
use std::collections::BTreeMap;

/// Words behind an address that have no value.
const FLAGS: &[&str] = &[
    "accept-proxy",
    "allow-0rtt",
    "defer-accept",
    "generate-certificates",
    "prefer-client-ciphers",
    "quic-force-retry",
    "ssl",
    "strict-sni",
    "tfo",
    "tls-tickets",
    "transparent",
    "v4v6",
    "v6only",
];

/// Whether `word` stands alone, without a value behind it.
fn is_flag(word: &str) -> bool {
    FLAGS.contains(&word) || word.starts_with("no-") || word.starts_with("force-")
}

/// Reads the addresses of word `first`, and what stands behind them.
pub(super) fn read(
    context: &mut Context<'_, '_>,
    proxy: &mut Proxy,
    statement: &Statement,
    first: usize,
) {
    proxy.listens = true;
    let Some(word) = statement.words.get(first) else {
        return context
            .report
            .error(statement.at, "bind", "an address is missing");
    };
    let word = address::filled_in(word, context.environment);
    context.kept(statement.at, "bind");
    let keys = words(context, proxy, statement, first + 1);
    for piece in pieces(&word) {
        let at = statement.at(first);
        if let Some(address) = listen(context, proxy, at, &piece) {
            let keys = suitable(&keys, &address);
            proxy.binds.push(Bind { at, address, keys });
        }
    }
}

/// The addresses of a list.
fn pieces(word: &Word) -> Vec<Word> {
    let texts: Vec<&str> = word.text.split(',').collect();
    let written: Option<Vec<&str>> = word.written.as_ref().map(|it| it.split(',').collect());
    let written = written.filter(|written| written.len() == texts.len());
    let piece = |(index, text): (usize, &&str)| Word {
        text: (*text).to_owned(),
        written: written.as_ref().map(|it| it[index].to_owned()),
        ..word.clone()
    };
    texts.iter().enumerate().map(piece).collect()
}

/// One address, as the content of a TOML string.
fn listen(context: &mut Context<'_, '_>, proxy: &mut Proxy, at: At, word: &Word) -> Option<String> {
    if context.is_unset(at, "bind", word) {
        return address::content(word, context.environment);
    }
    let parsed = address::parse_for(&word.text, Use::Bind);
    let bare = match &parsed {
        Address::Unusable(_) => {
            refused(context, proxy, at, Place::Bind, word);
            return None;
        }
        Address::Host { port: None, .. } => {
            let text = format!("`{}` has no port", word.text);
            context.report.error(at, "bind", text);
            return None;
        }
        Address::Host {
            host,
            port: Some(port),
        } if address::is_name(host) => {
            // What cannot be a name is not asked for.
            if let Err(problem) = addresses::server(host) {
                context.report.error(at, "bind", problem.message);
                return None;
            }
            let Some(ip) = (context.resolve)(host) else {
                let text = format!("the name `{host}` does not resolve");
                context.report.error(at, "bind", text);
                return None;
            };
            let text = format!("`{host}` is looked up now: it is {ip}");
            context.report.push(at, "bind", Outcome::Changed, text);
            let host = match ip {
                std::net::IpAddr::V4(ip) => ip.to_string(),
                std::net::IpAddr::V6(ip) => format!("[{ip}]"),
            };
            format!("{host}:{port}")
        }
        _ => address::content(&Word::plain(word.text.clone(), 1), context.environment)?,
    };
    if let Err(problem) = addresses::bind(&bare.replace("$${", "${")) {
        context.report.error(at, "bind", problem.message);
        return None;
    }
    match (&parsed, &word.written) {
        (Address::Host { host, .. }, _) if address::is_name(host) => Some(bare),
        (_, Some(_)) => address::content(word, context.environment),
        _ => Some(bare),
    }
}

/// Reports an address that rlb cannot use.
pub(super) fn refused(
    context: &mut Context<'_, '_>,
    proxy: &mut Proxy,
    at: At,
    place: Place,
    word: &Word,
) {
    let keyword = match place {
        Place::Bind => "bind",
        _ => "server",
    };
    let Some(row) = context.index.find(place, &word.text) else {
        let text = format!("`{}` is not an address", word.text);
        return context.report.error(at, keyword, text);
    };
    let family = word.text.split_inclusive('@').next().unwrap_or_default();
    let mark = context.mark(at, &format!("{keyword} {family}"), row);
    proxy.settings.marks.push(Mark {
        front: place == Place::Bind,
        back: place == Place::Server,
        ..mark
    });
}

/// What stands behind the addresses, as keys of a bind table.
fn words(
    context: &mut Context<'_, '_>,
    proxy: &mut Proxy,
    statement: &Statement,
    first: usize,
) -> BTreeMap<&'static str, String> {
    let mut keys = BTreeMap::new();
    let mut index = first;
    while index < statement.words.len() {
        let name = statement.word(index);
        let at = statement.at(index);
        let keyword = format!("bind {name}");
        if !is_flag(name) {
            index += 1;
        }
        match name {
            "name" if rlb::name(statement.word(index)).is_ok() => {
                keys.insert("name", quoted(statement, index));
            }
            "name" => {
                let text = "its address is its name: it is not of letters and digits alone";
                context.report.push(at, keyword, Outcome::Changed, text);
            }
            "id" | "backlog" => {
                let key = if name == "id" { "id" } else { "backlog" };
                if let Some(number) = context.number(statement, index) {
                    keys.insert(key, number.max(1).to_string());
                }
            }
            "accept-proxy" => {
                keys.insert("accept-proxy", "\"required\"".to_owned());
            }
            "v6only" => {
                keys.insert("v6only", "true".to_owned());
            }
            "interface" => {
                keys.insert("interface", quoted(statement, index));
            }
            "mode" => match rlb::mode(statement.word(index)) {
                Ok(_) => {
                    keys.insert("mode", quoted(statement, index));
                }
                Err(problem) => context.report.error(at, keyword, problem.message),
            },
            _ => {
                if name == "transparent" {
                    keys.insert("freebind", "true".to_owned());
                }
                let Some(row) = context.index.find(Place::Bind, name) else {
                    context.unknown(at, Place::Bind, &keyword);
                    // What a word that nobody knows is followed by is not known either.
                    return keys;
                };
                let mark = context.mark(at, &keyword, row);
                if matches!(row.becomes, Becomes::Missing | Becomes::Weaker) {
                    proxy.settings.marks.push(Mark {
                        back: false,
                        ..mark
                    });
                }
            }
        }
        index += 1;
    }
    keys
}

fn quoted(statement: &Statement, index: usize) -> String {
    let text = statement.words.get(index).map(string);
    super::toml_string::quote(&text.unwrap_or_default())
}

/// The keys that have a meaning for this address.
fn suitable(
    keys: &BTreeMap<&'static str, String>,
    address: &str,
) -> BTreeMap<&'static str, String> {
    let unix = address.starts_with("unix:") || address.starts_with("abns@");
    let mut keys = keys.clone();
    if address.starts_with("fd@") {
        keys.retain(|key, _| ["name", "id", "backlog", "accept-proxy"].contains(key));
    }
    if unix {
        keys.retain(|key, _| !["v6only", "interface", "freebind"].contains(key));
    }
    if !unix || address.starts_with("unix:@") || address.starts_with("abns@") {
        keys.remove("mode");
    }
    if !address.starts_with('[') {
        keys.remove("v6only");
    }
    keys
}
