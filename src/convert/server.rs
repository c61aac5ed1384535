//! `server`, `server-template` and `default-server`.

use super::address::{self, Address, Use};
use super::bind;
use super::context::Context;
use super::lexer::Word;
use super::listen_address;
use super::proxy::{Proxy, Server, ServerKeys};
use super::report::Outcome;
use super::sections::Statement;
use super::server_from::from;
use super::server_header;
use super::server_port::{is_portless, without_port_0};
use super::server_tls;
use super::server_values;
use super::toml_string::quote;
use super::units::Unit;
use crate::config::address as addresses;
use crate::config::haproxy::{Becomes, Place};
use crate::config::model::{InitState, OnError};
use crate::config::units as rlb;
use std::collections::HashSet;

/// Words behind an address that have no value.
const FLAGS: &[&str] = &[
    "agent-check",
    "allow-0rtt",
    "backup",
    "check",
    "check-reuse-pool",
    "check-send-proxy",
    "check-sni-auto",
    "check-ssl",
    "check-via-socks4",
    "disabled",
    "enabled",
    "non-stick",
    "renegotiate",
    "send-proxy",
    "send-proxy-v2",
    "send-proxy-v2-ssl",
    "send-proxy-v2-ssl-cn",
    "sni-auto",
    "ssl",
    "ssl-reuse",
    "stick",
    "strict-maxconn",
    "tfo",
    "tls-tickets",
];

/// The values of `hash-key` that rlb has too.
const HASH_KEYS: [&str; 4] = ["id", "id32", "addr", "addr-port"];

fn is_flag(word: &str) -> bool {
    FLAGS.contains(&word) || word.starts_with("no-") || word.starts_with("force-")
}

/// `default-server`: what the servers after it have.
pub(super) fn defaults(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement) {
    if statement.word(1) == "name" {
        return named_defaults(context, statement);
    }
    context.kept(statement.at, "default-server");
    let mut keys = std::mem::take(&mut proxy.settings.server);
    let first = from(context, &mut keys, statement, 1);
    words(context, &mut keys, statement, first);
    proxy.settings.server = keys;
}

/// `default-server name NAME`, which HAProxy 3.5 has: only servers with `from` have what it says.
fn named_defaults(context: &mut Context<'_, '_>, statement: &Statement) {
    let keyword = "default-server name";
    if statement.word(2).is_empty() {
        let text = "a value is missing";
        return context.report.error(statement.at(1), keyword, text);
    }
    if let Some(row) = context.index.find(Place::Server, "name of others") {
        context.mark(statement.at, keyword, row);
    }
    let mut keys = ServerKeys::default();
    let first = from(context, &mut keys, statement, 3);
    words(context, &mut keys, statement, first);
}

/// `server NAME ADDRESS …` and `server-template PREFIX NUMBER ADDRESS …`.
pub(super) fn read(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement) {
    let template = statement.word(0) == "server-template";
    let at = if template { 3 } else { 2 };
    let keyword = statement.word(0);
    let Some(word) = statement.words.get(at) else {
        let text = "a name and an address are needed";
        return context.report.error(statement.at, keyword, text);
    };
    if let Err(problem) = rlb::name(statement.word(1)) {
        let at = statement.at(1);
        return context.report.error(at, keyword, problem.message);
    }
    // Those of a `server-template` have numbers.
    let name = if template {
        TEMPLATE
    } else {
        statement.word(1)
    };
    proxy.server_names.insert(name.to_owned());
    let mut keys = proxy.settings.server.clone();
    let name = if template {
        if let Some(row) = context.index.find(Place::Proxy, keyword) {
            keys.marks.push(context.mark(statement.at, keyword, row));
        }
        format!("{}1", statement.word(1))
    } else {
        context.kept(statement.at, keyword);
        statement.word(1).to_owned()
    };
    let first = from(context, &mut keys, statement, at + 1);
    words(context, &mut keys, statement, first);
    let word = without_port_0(address::filled_in(word, context.environment));
    let word = listen_address::in_folder(context, (statement.at(at), keyword), word);
    let Some(address) = reached(context, proxy, statement, at, &word) else {
        return;
    };
    if address::is_mptcp(&word.text) {
        keys.keys.insert("mptcp", "true".to_owned());
    }
    if matches!(
        address::parse(&word.text),
        Address::Unix(_) | Address::Abstract(_) | Address::Padded(_)
    ) {
        // HAProxy ignores them there.
        keys.keys
            .retain(|key, _| !["cc", "tcp-ut", "namespace"].contains(key));
    }
    let by_name = matches!(
        address::parse_for(&word.text, Use::Server),
        Address::Host { host, .. } if address::is_name(&host)
    );
    server_header::finish(&mut keys);
    let checked = keys.check;
    if !checked {
        unobserved(context, &mut keys, statement);
    }
    keys.marks.retain(|mark| {
        let has = |word: &str| mark.row.words.contains(&word);
        (checked || !(has("check-via-socks4") || has("addr unix*")))
            && (by_name || !(has("resolvers") || has("init-addr")))
    });
    let needs_port = checked && is_portless(&word) && !keys.checks.contains_key("port");
    let name = free_name(context, proxy, statement, name);
    proxy.servers.push(Server {
        at: statement.at,
        name,
        address,
        keys: *keys,
        needs_port,
    });
}

/// Stands for the names of a `server-template`. No server has it.
const TEMPLATE: &str = "";

/// The proxy is over: reports each `use-server` for a server that it does not have.
pub(super) fn settle_used(context: &mut Context<'_, '_>, proxy: &mut Proxy) {
    let names = &proxy.server_names;
    let any = proxy.settings.disabled || names.contains(TEMPLATE);
    for (name, at) in proxy.used_servers.drain(..) {
        if !any && !names.contains(&name) {
            let text = format!("the proxy has no server `{name}`");
            context.report.error(at, "use-server", text);
        }
    }
    proxy.server_names = HashSet::new();
}

/// A name that no other server of the proxy has, and that is none of the rows of the statistics.
fn free_name(
    context: &mut Context<'_, '_>,
    proxy: &mut Proxy,
    statement: &Statement,
    name: String,
) -> String {
    let reserved = ["FRONTEND", "BACKEND"].contains(&name.as_str());
    if !reserved && !proxy.names.contains_key(&name) {
        proxy.names.insert(name.clone(), 2);
        return name;
    }
    // The number at which the last search for this name has ended.
    let mut number = proxy.names.get(&name).copied().unwrap_or(2);
    let free = loop {
        let free = format!("{name}-{number}");
        number += 1;
        if !proxy.names.contains_key(&free) {
            break free;
        }
    };
    proxy.names.insert(name.clone(), number);
    proxy.names.insert(free.clone(), 2);
    let text = format!("its name is `{free}`: `{name}` is taken");
    context
        .report
        .push(statement.at(1), "server", Outcome::Changed, text);
    free
}

/// The address of a server, as the content of a TOML string.
fn reached(
    context: &mut Context<'_, '_>,
    proxy: &mut Proxy,
    statement: &Statement,
    index: usize,
    word: &Word,
) -> Option<String> {
    let at = statement.at(index);
    if context.is_unset(at, "server", word) {
        return address::content(word, context.environment);
    }
    match address::parse_for(&word.text, Use::Server) {
        Address::Unusable(_) | Address::Descriptor(_) => {
            bind::refused(context, proxy, at, Place::Server, word);
            return None;
        }
        Address::Host { host, .. } if ["", "*", "0.0.0.0", "[::]"].contains(&host.as_str()) => {
            let original = Word::plain("0.0.0.0", 1);
            bind::refused(context, proxy, at, Place::Server, &original);
            return None;
        }
        _ => {}
    }
    let plain = address::content(&Word::plain(word.text.clone(), 1), context.environment)?;
    if let Err(problem) = addresses::server(&plain.replace("$${", "${")) {
        context.report.error(at, "server", problem.message);
        return None;
    }
    address::content(word, context.environment)
}

/// What stands behind an address, or in a `default-server`.
fn words(
    context: &mut Context<'_, '_>,
    keys: &mut ServerKeys,
    statement: &Statement,
    first: usize,
) {
    let mut index = first;
    while index < statement.words.len() {
        let name = statement.word(index);
        if !is_flag(name) {
            index += 1;
        }
        if name == "source" {
            let keyword = format!("{} source", statement.word(0));
            let place = (Place::Server, keyword.as_str());
            let read = super::source::read(context, statement, place, index);
            keys.keys.extend(read.value.map(|value| ("source", value)));
            keys.marks.extend(read.mark);
            index = read.last + 1;
            continue;
        }
        if !own(context, keys, statement, name, index)
            && !other(context, keys, statement, name, index)
        {
            return;
        }
        index += 1;
    }
}

/// A word that has a key; `index` is that of its value.
fn own(
    context: &mut Context<'_, '_>,
    keys: &mut ServerKeys,
    statement: &Statement,
    name: &str,
    index: usize,
) -> bool {
    let value = statement.word(index);
    if let Some(bounds) = server_values::NUMBERS.iter().find(|(key, ..)| *key == name) {
        server_values::number(context, keys, statement, index, *bounds);
        return true;
    }
    if server_header::word(context, keys, statement, (name, index))
        || server_tls::word(context, keys, statement, (name, index))
    {
        return true;
    }
    match name {
        "check" => keys.check = true,
        "no-check" => keys.check = false,
        "backup" => drop(keys.keys.insert("backup", "true".to_owned())),
        "disabled" => drop(keys.keys.insert("disabled", "true".to_owned())),
        "no-backup" => drop(keys.keys.remove("backup")),
        "enabled" => drop(keys.keys.remove("disabled")),
        "inter" | "fastinter" | "downinter" => {
            server_values::interval(context, keys, statement, (name, index));
        }
        "slowstart" => {
            if let Some(span) = context.span(statement, index, Unit::Milliseconds) {
                keys.keys.remove("slowstart");
                if !span.is_zero() {
                    keys.keys.insert("slowstart", quote(&span.text));
                }
            }
        }
        "hash-key" if HASH_KEYS.contains(&value) => {
            keys.keys.insert("hash-key", quote(value));
        }
        "hash-key" if value != "guid" => {
            let text = format!("HAProxy has no `{value}` for it");
            context
                .report
                .error(statement.at(index), "server hash-key", text);
        }
        "hash-key" => {
            let text =
                "it is for servers with `guid`, which rlb does not have; their numbers decide";
            let at = statement.at(index);
            context
                .report
                .push(at, "server hash-key", Outcome::Changed, text);
        }
        "addr" => check_address(context, keys, statement, index),
        "observe" => return observe(context, keys, statement, index),
        "on-error" if OnError::of_name(value).is_some() => {
            keys.keys.insert("on-error", quote(value));
        }
        "init-state" if InitState::of_name(value).is_some() => {
            keys.keys.insert("init-state", quote(value));
        }
        "on-marked-down" if value == "shutdown-sessions" => {
            keys.keys.insert("on-marked-down", quote(value));
        }
        "on-marked-up" if value == "shutdown-backup-sessions" => {
            keys.keys.insert("on-marked-up", quote(value));
        }
        "cc" | "tcp-ut" | "namespace" => return option(context, keys, statement, (name, index)),
        "on-error" | "init-state" | "on-marked-down" | "on-marked-up" => {
            let text = format!("HAProxy has no `{value}` for it");
            let keyword = format!("server {name}");
            context.report.error(statement.at(index), keyword, text);
        }
        _ => return false,
    }
    true
}

/// `observe`. Whether it is followed by one of HAProxy's words.
fn observe(
    context: &mut Context<'_, '_>,
    keys: &mut ServerKeys,
    statement: &Statement,
    index: usize,
) -> bool {
    match statement.word(index) {
        "none" => drop(keys.keys.remove("observe")),
        "layer4" => drop(keys.keys.insert("observe", quote("layer4"))),
        "layer7" => {
            let Some(row) = context.index.find(Place::Server, "observe layer7") else {
                return false;
            };
            let mark = context.mark(statement.at(index), "server observe", row);
            keys.marks.push(mark);
        }
        other => {
            let text = format!("HAProxy has no `{other}` for it");
            context
                .report
                .error(statement.at(index), "server observe", text);
        }
    }
    true
}

/// Takes away what has no effect on a server without a check.
fn unobserved(context: &mut Context<'_, '_>, keys: &mut ServerKeys, statement: &Statement) {
    let observed = keys.keys.remove("observe").is_some();
    keys.keys
        .retain(|key, _| !["error-limit", "on-error"].contains(key));
    if observed && let Some(row) = context.index.find(Place::Server, "observe without check") {
        let mark = context.mark(statement.at, "server observe", row);
        keys.marks.push(mark);
    }
}

/// An option of the sockets. Whether it is one that rlb has.
fn option(
    context: &mut Context<'_, '_>,
    keys: &mut ServerKeys,
    statement: &Statement,
    (name, index): (&str, usize),
) -> bool {
    let value = statement.word(index);
    let read = match name {
        "cc" => rlb::algorithm(value),
        "namespace" if value == "*" => {
            // The client's PROXY header says it.
            let Some(row) = context.index.find(Place::Server, "namespace of a header") else {
                return false;
            };
            let mark = context.mark(statement.at(index), "server namespace", row);
            keys.marks.push(mark);
            return true;
        }
        "namespace" => rlb::namespace(value),
        _ => {
            if let Some(span) = context.span(statement, index, Unit::Milliseconds) {
                // HAProxy's 0 is the kernel's limit.
                keys.keys.remove("tcp-ut");
                if !span.is_zero() {
                    keys.keys.insert("tcp-ut", quote(&span.text));
                }
            }
            return true;
        }
    };
    let key = if name == "cc" { "cc" } else { "namespace" };
    match read {
        Ok(_) => drop(keys.keys.insert(key, quote(value))),
        Err(problem) if key == "cc" && !value.is_empty() => {
            keys.keys.remove(key);
            bind::no_algorithm(context, statement, index, ("server cc", &problem));
        }
        Err(problem) => {
            let keyword = format!("server {name}");
            context
                .report
                .error(statement.at(index), keyword, problem.message);
        }
    }
    true
}

/// `addr`: where to check, an address or a name, with a port or without.
fn check_address(
    context: &mut Context<'_, '_>,
    keys: &mut ServerKeys,
    statement: &Statement,
    index: usize,
) {
    let at = statement.at(index);
    let text = statement.word(index);
    let (host, port) = match address::parse(text) {
        Address::Host { host, port } => (host, port),
        Address::Unix(_) | Address::Abstract(_) | Address::Padded(_) => {
            if let Some(row) = context.index.find(Place::Server, "addr unix@") {
                let mark = context.mark(at, "server addr", row);
                keys.marks.push(mark);
            }
            return;
        }
        Address::Descriptor(_) | Address::Unusable(_) => {
            let text = format!("`{text}` is no IP address");
            return context.report.error(at, "server addr", text);
        }
    };
    let bare = match host.trim_matches(['[', ']']) {
        "" | "*" => "0.0.0.0",
        bare => bare,
    };
    let ip = bare.parse().ok().or_else(|| (context.resolve)(&host));
    let Some(ip): Option<std::net::IpAddr> = ip else {
        let text = format!("the name `{host}` does not resolve");
        return context.report.error(at, "server addr", text);
    };
    if ip.is_unspecified() {
        // That of the server.
        keys.checks.remove("address");
    } else {
        keys.checks.insert("address", quote(&ip.to_string()));
    }
    if let Some(port) = port.filter(|port| port.bytes().all(|byte| byte.is_ascii_digit())) {
        keys.checks.insert("port", port);
    }
}

/// The values of words that have no key, where there are only these.
const VALUES: [(&str, &[&str]); 2] = [
    ("log-proto", &["legacy", "octet-count"]),
    ("ws", &["auto", "h1", "h2"]),
];

/// A word of the table. Whether it is known, and so what follows it.
fn other(
    context: &mut Context<'_, '_>,
    keys: &mut ServerKeys,
    statement: &Statement,
    name: &str,
    index: usize,
) -> bool {
    let at = statement.at(if is_flag(name) { index } else { index - 1 });
    let keyword = format!("{} {name}", statement.word(0));
    let Some(row) = context.index.find(Place::Server, name) else {
        context.unknown(at, Place::Server, &keyword);
        return false;
    };
    let value = statement.word(index);
    if VALUES
        .iter()
        .any(|(word, values)| *word == name && !values.contains(&value))
    {
        let text = format!("HAProxy has no `{value}` for it");
        context.report.error(statement.at(index), keyword, text);
        return true;
    }
    let mark = context.mark(at, &keyword, row);
    let silent = matches!(row.becomes, Becomes::Changed | Becomes::NotNeeded);
    if !silent {
        keys.marks.push(mark);
    }
    true
}
