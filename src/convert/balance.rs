//! `balance` and what belongs to it. [`super::choice`] judges the algorithms that rlb does not have.

use super::context::Context;
use super::proxy::Proxy;
use super::report::Outcome;
use super::sample;
use super::sections::Statement;
use super::toml_string::quote;
use crate::config::model::{HashFunction, HashOn, HashType};

/// The algorithms of HAProxy's, without what stands in parentheses.
pub(super) const ALGORITHMS: [&str; 12] = [
    "roundrobin",
    "static-rr",
    "first",
    "random",
    "leastconn",
    "source",
    "hash",
    "uri",
    "url_param",
    "hdr",
    "rdp-cookie",
    "log-hash",
];

/// `balance ALGORITHM …`.
pub(super) fn read(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement) {
    let entry = context.kept(statement.at, "balance");
    if let Some(problem) = refused(statement) {
        context.report.raise(entry, Outcome::Error, problem, false);
    }
    proxy.settings.balance = Some((statement.word(1).to_owned(), entry));
    let keys = &mut proxy.settings.keys;
    keys.remove("balance");
    keys.remove("random-draws");
    keys.remove("hash-on");
    if statement.word(1) == "hash"
        && let Ok(hash_on) = HashOn::parse(statement.word(2))
    {
        keys.insert("balance", quote("hash"));
        keys.insert("hash-on", quote(&hash_on.to_string()));
    }
    let (name, argument) = split(statement.word(1));
    if ["source", "static-rr", "first", "random", "leastconn"].contains(&name) {
        keys.insert("balance", quote(name));
    }
    if name == "random"
        && let Some(draws) = argument.and_then(draws)
    {
        keys.insert("random-draws", draws.to_string());
    }
}

/// An algorithm, and what stands in parentheses behind it.
fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once('(') {
        Some((name, rest)) => (name, Some(rest.strip_suffix(')').unwrap_or(rest))),
        None => (text, None),
    }
}

/// How many servers `random` draws.
fn draws(argument: &str) -> Option<i64> {
    let draws = argument.parse().ok()?;
    (1..=crate::config::DRAWS_MAX)
        .contains(&draws)
        .then_some(draws)
}

/// What HAProxy refuses.
fn refused(statement: &Statement) -> Option<String> {
    let (written, behind) = (statement.word(1), statement.word(2));
    let (name, argument) = split(written);
    let known = written.is_empty() || ALGORITHMS.contains(&name) || written == "sticky";
    let is_open = argument.is_some() && !written.ends_with(')');
    let text = match name {
        _ if !known => format!("HAProxy has no algorithm `{name}`"),
        _ if is_open => "a closing parenthesis is missing".to_owned(),
        "random" if argument.is_some_and(|it| !it.is_empty() && draws(it).is_none()) => {
            "`random` draws a number of servers from 1 on".to_owned()
        }
        "hdr" if argument.unwrap_or_default().is_empty() => {
            "the name of a header is missing: `hdr(NAME)`".to_owned()
        }
        "url_param" if behind.is_empty() => "the name of a parameter is missing".to_owned(),
        "hash" if behind.is_empty() => "a sample expression is missing".to_owned(),
        "hash" => {
            let more = statement.words.get(3);
            let more = more.map(|word| format!("`{}` is not expected here", word.text));
            return sample::expression(behind).err().or(more);
        }
        "uri" => return wrong_of_uri(statement),
        _ => return None,
    };
    Some(text)
}

/// What is wrong behind `balance uri`.
fn wrong_of_uri(statement: &Statement) -> Option<String> {
    let mut index = 2;
    while index < statement.words.len() {
        index += match statement.word(index) {
            "len" | "depth" => 2,
            "whole" | "path-only" => 1,
            other => return Some(format!("`{other}` is not expected here")),
        };
    }
    None
}

/// `hash-balance-factor PERCENT`.
pub(super) fn factor(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement) {
    let keyword = "hash-balance-factor";
    let Some(factor) = context.number_or_zero(statement, 1) else {
        return;
    };
    let most = crate::config::FACTOR_MAX;
    if factor != 0 && !(101..=most).contains(&factor) {
        let text = "write 0 or more than 100";
        return context.report.error(statement.at, keyword, text);
    }
    context.kept(statement.at, keyword);
    proxy.settings.keys.insert(keyword, factor.to_string());
}

/// `hash-type METHOD [FUNCTION [avalanche]]`.
pub(super) fn hash_type(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement) {
    const METHODS: [&str; 2] = ["map-based", "consistent"];
    const FUNCTIONS: [&str; 6] = ["", "sdbm", "djb2", "wt6", "crc32", "none"];
    let [method, function, modifier] = [1, 2, 3].map(|index| statement.word(index));
    let known = METHODS.contains(&method)
        && FUNCTIONS.contains(&function)
        && ["", "avalanche"].contains(&modifier);
    if !known {
        let text = "write `map-based` or `consistent`, a function, and `avalanche`";
        return context.report.error(statement.at, "hash-type", text);
    }
    let consistent = method == "consistent";
    let is_default = function.is_empty();
    let function = match function {
        "djb2" => HashFunction::Djb2,
        "wt6" => HashFunction::Wt6,
        "crc32" => HashFunction::Crc32,
        "none" => HashFunction::None,
        _ => HashFunction::Sdbm,
    };
    let meant = HashType {
        consistent,
        function,
        avalanche: modifier == "avalanche" || (consistent && is_default),
    };
    context.kept(statement.at, "hash-type");
    proxy.settings.keys.insert("hash-type", quote(meant.name()));
}

/// `hash-preserve-affinity WORD`.
pub(super) fn preserve_affinity(
    context: &mut Context<'_, '_>,
    proxy: &mut Proxy,
    statement: &Statement,
) {
    let (word, key) = (statement.word(1), "hash-preserve-affinity");
    if !["always", "maxconn", "maxqueue"].contains(&word) {
        let text = "write `always`, `maxconn` or `maxqueue`";
        return context.report.error(statement.at, key, text);
    }
    context.kept(statement.at, key);
    proxy.settings.keys.insert(key, quote(word));
}
