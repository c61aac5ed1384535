//! `bind`, and the address in a `listen NAME ADDRESS`.

use super::address::{self, Address, Use};
use super::context::Context;
use super::lexer::Word;
use super::listen_address;
use super::proxy::{Bind, Mark, Proxy};
use super::report::{At, Outcome};
use super::sections::Statement;
use super::toml_string::{quote, string};
use super::units::{self, Unit};
use crate::config::address::BindText;
use crate::config::haproxy::{Becomes, Place};
use crate::config::{BINDS_MAX, MSS_BOUNDS, address as addresses, units as rlb};
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

/// Words with a value that are keys of rlb's.
const KEYS: [&str; 9] = [
    "backlog",
    "cc",
    "id",
    "interface",
    "mode",
    "mss",
    "name",
    "namespace",
    "tcp-ut",
];

/// Whether `word` stands alone, without a value behind it.
pub(super) fn is_flag(word: &str) -> bool {
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
    let at = statement.at(first);
    let listeners = proxy.binds.len();
    for piece in pieces(&word) {
        if proxy.binds.len() >= BINDS_MAX {
            let text =
                format!("more than {BINDS_MAX} addresses to listen on: the others are left out");
            return context.report.error(at, "bind", text);
        }
        let piece = context.unix_bind.prefixed(piece);
        let piece = listen_address::in_folder(context, (at, "bind"), piece);
        if let Some(address) = listen(context, proxy, at, &piece) {
            if address.starts_with("unix:") && !address.starts_with("unix:@") {
                if let Some(line) = context.unix_bind.in_error {
                    let text = format!(
                        "it is left out: `unix-bind` in line {line} is in error, and says who may connect"
                    );
                    context.report.error(at, "bind", text);
                    continue;
                }
                owned(context, proxy, at);
            }
            let is_abstract = address.starts_with("unix:@") || address.starts_with("abns@");
            if is_abstract && keys.contains_key("namespace") {
                let text = "the abstract name is in the network namespace of rlb itself";
                context
                    .report
                    .push(at, "bind namespace", Outcome::Changed, text);
            }
            let mut keys = suitable(&keys, &address);
            if let Some(name) = keys.get("name")
                && !proxy.bind_names.insert(name.clone())
            {
                keys.remove("name");
                let text = "its address is its name: another listener has this one";
                context.report.push(at, "bind name", Outcome::Changed, text);
            }
            if address::is_mptcp(&piece.text) {
                keys.insert("mptcp", "true".to_owned());
            }
            let bind = Bind { at, address, keys };
            if is_covered_by_equal(proxy, &bind) {
                let text = "it listens there already: rlb has one listener for it";
                context.report.push(at, "bind", Outcome::Changed, text);
            } else {
                proxy.binds.push(bind);
            }
        }
    }
    let added = &mut proxy.binds[listeners..];
    if keys.contains_key("id") && (added.len() > 1 || added.iter().any(Bind::is_range)) {
        let text = "it can only be used with a single address and port";
        context.report.error(at, "bind id", text);
        for bind in added {
            bind.keys.remove("id");
        }
    }
}

/// Reports that `unix-bind` gives a unix socket an owner, which rlb cannot, as for the words of a bind.
fn owned(context: &mut Context<'_, '_>, proxy: &mut Proxy, at: At) {
    let owner = context.unix_bind.owner;
    let row = owner.and_then(|word| context.index.find(Place::Bind, word));
    if let (Some(owner), Some(row)) = (owner, row) {
        let mark = context.mark(at, &format!("unix-bind {owner}"), row);
        proxy.settings.marks.push(Mark {
            back: false,
            ..mark
        });
    }
}

/// Whether the proxy has listened there so far, with the same keys. HAProxy takes that: each gets a share of the clients.
fn is_covered_by_equal(proxy: &mut Proxy, bind: &Bind) -> bool {
    let key = |key| bind.keys.get(key).cloned();
    let place = (bind.address.clone(), key("namespace"), key("interface"));
    let next = proxy.binds.len();
    let index = *proxy.places.entry(place).or_insert(next);
    let Some(first) = proxy.binds.get(index) else {
        return false;
    };
    let without_name = |bind: &Bind| {
        let mut keys = bind.keys.clone();
        keys.retain(|key, _| !["name", "id"].contains(key));
        keys
    };
    without_name(first) == without_name(bind)
}

/// The addresses of a list. There may be millions: each is made when it is asked for.
pub(super) fn pieces(word: &Word) -> impl Iterator<Item = Word> {
    // HAProxy takes a comma at the end.
    let list = |text| {
        let bare = str::strip_suffix(text, ',').filter(|bare| !bare.is_empty());
        bare.unwrap_or(text)
    };
    let count = |text: &str| text.split(',').count();
    let all = list(&word.text);
    let written = word.written.as_deref().map(list);
    let written = written.filter(|written| count(written) == count(all));
    let mut written = written.map(|written| written.split(','));
    all.split(',').map(move |text| Word {
        text: text.to_owned(),
        written: written.as_mut().and_then(Iterator::next).map(str::to_owned),
        unset: word.unset.clone(),
        column: word.column,
    })
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
            let host = listen_address::of_name(context, (at, "bind"), &word.text, host)?;
            format!("{host}:{port}")
        }
        _ => address::content(&Word::plain(word.text.clone(), 1), context.environment)?,
    };
    match addresses::bind(&bare.replace("$${", "${")) {
        Ok(BindText::Tcp(_, ports)) if *ports.start() == 0 => {
            let text = "HAProxy takes no port 0: write the port";
            context.report.error(at, "bind", text);
            return None;
        }
        Ok(_) => {}
        Err(problem) => {
            context.report.error(at, "bind", problem.message);
            return None;
        }
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
    let mut keys = context.unix_bind.keys();
    let mut index = first;
    while index < statement.words.len() {
        let name = statement.word(index);
        let at = statement.at(index);
        let keyword = format!("bind {name}");
        if !is_flag(name) {
            index += 1;
        }
        // HAProxy 3.0 and later take `thread` without a value.
        if index >= statement.words.len() && is_known(context, name) && name != "thread" {
            context.report.error(at, keyword, "a value is missing");
            return keys;
        }
        match name {
            "name" if rlb::name(statement.word(index)).is_ok() => {
                keys.insert("name", quoted(statement, index));
            }
            "name" => {
                let text = "its address is its name: it is not of letters and digits alone";
                context.report.push(at, keyword, Outcome::Changed, text);
            }
            "id" => {
                if let Some(number) = context.number(statement, index)
                    && number_of(context, proxy, (at, number))
                {
                    keys.insert("id", number.to_string());
                }
            }
            "backlog" => backlog(context, &mut keys, statement, index),
            "accept-proxy" => {
                keys.insert("accept-proxy", "\"required\"".to_owned());
            }
            "v6only" => {
                // It goes before `v4v6`.
                keys.insert("v6only", "true".to_owned());
            }
            "interface" => {
                keys.insert("interface", quoted(statement, index));
            }
            "v4v6" => drop(keys.entry("v6only").or_insert("false".to_owned())),
            _ if option(context, &mut keys, statement, (name, index)) => {}
            "mode" => match units::file_mode(statement.word(index)) {
                Ok(mode) => {
                    keys.remove("mode");
                    keys.extend(mode.map(|mode| ("mode", quote(&mode))));
                }
                Err(problem) => context.report.error(at, keyword, problem),
            },
            _ => {
                let word = if name == "mss" { "mss -" } else { name };
                let Some(row) = context.index.find(Place::Bind, word) else {
                    context.unknown(at, Place::Bind, &keyword);
                    // What a word that nobody knows is followed by is not known either.
                    return keys;
                };
                let mark = context.mark(at, &keyword, row);
                if matches!(row.becomes, Becomes::Missing | Becomes::NeedsAllowDegraded) {
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

/// `backlog`. HAProxy's 0 stands for the default.
fn backlog(
    context: &mut Context<'_, '_>,
    keys: &mut BTreeMap<&'static str, String>,
    statement: &Statement,
    index: usize,
) {
    match context.number_or_zero(statement, index) {
        Some(..0) => {
            let text = "it has to be greater than 0";
            context
                .report
                .error(statement.at(index), "bind backlog", text);
        }
        Some(0) => drop(keys.remove("backlog")),
        Some(number) => drop(keys.insert("backlog", number.to_string())),
        None => {}
    }
}

/// Whether HAProxy has this word behind a `bind`.
fn is_known(context: &Context<'_, '_>, name: &str) -> bool {
    KEYS.contains(&name) || context.index.find(Place::Bind, name).is_some()
}

/// Whether HAProxy takes this number of a listener; what is wrong with it is reported.
fn number_of(context: &mut Context<'_, '_>, proxy: &mut Proxy, (at, number): (At, i64)) -> bool {
    let text = if number <= 0 {
        "it has to be greater than 0"
    } else if !proxy.bind_ids.insert(number) {
        "another bind of the proxy has this number"
    } else {
        return true;
    };
    context.report.error(at, "bind id", text);
    false
}

/// A word that is an option of the socket; `index` is that of its value. Whether it is one.
fn option(
    context: &mut Context<'_, '_>,
    keys: &mut BTreeMap<&'static str, String>,
    statement: &Statement,
    (name, index): (&str, usize),
) -> bool {
    let keyword = format!("bind {name}");
    match name {
        "defer-accept" => drop(keys.insert("defer-accept", "true".to_owned())),
        "tfo" => drop(keys.insert("tfo", "true".to_owned())),
        "transparent" => drop(keys.insert("transparent", "true".to_owned())),
        "namespace" => match rlb::namespace(statement.word(index)) {
            Ok(_) => drop(keys.insert("namespace", quoted(statement, index))),
            Err(problem) => {
                context
                    .report
                    .error(statement.at(index), keyword, problem.message);
            }
        },
        "mss" => return mss(context, keys, statement, index),
        "cc" => match rlb::algorithm(statement.word(index)) {
            Ok(_) => drop(keys.insert("cc", quoted(statement, index))),
            Err(problem) => {
                keys.remove("cc");
                no_algorithm(context, statement, index, (&keyword, &problem));
            }
        },
        "tcp-ut" => {
            if let Some(span) = context.span(statement, index, Unit::Milliseconds) {
                // HAProxy's 0 is the kernel's limit.
                keys.remove("tcp-ut");
                if !span.is_zero() {
                    keys.insert("tcp-ut", quote(&span.text));
                }
            }
        }
        _ => return false,
    }
    true
}

/// Says of a name of an algorithm that no kernel has what HAProxy does with it: it warns at the start and goes on.
pub(super) fn no_algorithm(
    context: &mut Context<'_, '_>,
    statement: &Statement,
    index: usize,
    (keyword, problem): (&str, &rlb::Problem),
) {
    let text = format!("the kernel's own is used: {}", problem.message);
    let at = statement.at(index);
    context.report.push(at, keyword, Outcome::Changed, text);
}

/// `mss`. HAProxy's negative one, a number of bytes less than the connection's own, is looked up in the table.
fn mss(
    context: &mut Context<'_, '_>,
    keys: &mut BTreeMap<&'static str, String>,
    statement: &Statement,
    index: usize,
) -> bool {
    if statement.word(index).starts_with('-') {
        return false;
    }
    let (least, most) = MSS_BOUNDS;
    match context.number(statement, index) {
        Some(number) if (least..=most).contains(&number) => {
            keys.insert("mss", number.to_string());
        }
        Some(number) if !(1..=65_535).contains(&number) => {
            let text = format!("{number} is not within 1 and 65535");
            context.report.error(statement.at(index), "bind mss", text);
        }
        Some(number) => {
            let text = format!("the kernel takes {least} to {most}, and {number} from neither");
            context
                .report
                .push(statement.at(index), "bind mss", Outcome::Changed, text);
        }
        None => {}
    }
    true
}

fn quoted(statement: &Statement, index: usize) -> String {
    let text = statement.words.get(index).map(string);
    quote(&text.unwrap_or_default())
}

/// Keys of sockets that rlb opens itself.
const OPENED: [&str; 4] = ["v6only", "interface", "transparent", "namespace"];
/// Keys of TCP. HAProxy ignores them elsewhere.
const OF_TCP: [&str; 5] = ["defer-accept", "tfo", "mss", "cc", "tcp-ut"];

/// The keys that have a meaning for this address.
fn suitable(
    keys: &BTreeMap<&'static str, String>,
    address: &str,
) -> BTreeMap<&'static str, String> {
    let unix = address.starts_with("unix:") || address.starts_with("abns@");
    let mut keys = keys.clone();
    if address.starts_with("fd@") {
        keys.retain(|key, _| !OPENED.contains(key));
    }
    if unix {
        keys.retain(|key, _| !OPENED.contains(key) && !OF_TCP.contains(key));
    }
    if !unix || address.starts_with("unix:@") || address.starts_with("abns@") {
        keys.remove("mode");
    }
    if !address.starts_with('[') {
        keys.remove("v6only");
    }
    keys
}
