//! What the words of a server say of TLS. rlb speaks it in checks alone: the words count where a check does.

use super::context::Context;
use super::proxy::{CheckKind, Proxy, Rule, ServerKeys, ServerTls, Settings};
use super::report::Outcome;
use super::sections::Statement;
use super::toml_string::{quote, string};
use crate::config::haproxy::Place;
use crate::config::tls::is_host_name;

/// What the report says while no check needs it.
const UNUSED: &str = "only checks over TLS need it";
/// Versions that rlb does not speak.
const OLD: [&str; 3] = ["SSLv3", "TLSv1.0", "TLSv1.1"];
/// Words of the table with which a check is a connection alone: versions that rlb does not speak, and names that are
/// none.
const OLD_ALONE: &str = "ssl-max-ver TLSv1.1";
const NO_NAME: &str = "check-sni of no name";

/// Whether a row of the table has them.
pub(super) fn makes_it_alone(words: &[&str]) -> bool {
    words.contains(&OLD_ALONE) || words.contains(&NO_NAME)
}

/// A word about TLS; `index` is that of its value. Whether it is one.
pub(super) fn word(
    context: &mut Context<'_, '_>,
    keys: &mut ServerKeys,
    statement: &Statement,
    (name, index): (&str, usize),
) -> bool {
    let tls = &mut keys.tls;
    match name {
        "check-ssl" | "no-check-ssl" => {
            tls.on = name == "check-ssl";
            return true;
        }
        "check-sni" | "check-alpn" | "alpn" | "verify" | "verifyhost" | "ca-file" | "crl-file"
        | "crt" | "ssl-min-ver" | "ssl-max-ver" => {
            valued(context, tls, statement, (name, index));
            return true;
        }
        "check-sni-auto" => drop(tls.keys.remove("sni-auto")),
        "no-check-sni-auto" => drop(tls.keys.insert("sni-auto", "false".to_owned())),
        "no-verifyhost" => drop(tls.keys.remove("verifyhost")),
        "no-sslv3" | "no-tlsv10" | "no-tlsv11" => {}
        "no-tlsv12" => drop(tls.keys.insert("ssl-min-ver", quote("TLSv1.3"))),
        "no-tlsv13" => drop(tls.keys.insert("ssl-max-ver", quote("TLSv1.2"))),
        "force-tlsv12" | "force-tlsv13" => {
            let version = quote(if name == "force-tlsv12" {
                "TLSv1.2"
            } else {
                "TLSv1.3"
            });
            tls.keys.insert("ssl-min-ver", version.clone());
            tls.keys.insert("ssl-max-ver", version);
        }
        "force-sslv3" | "force-tlsv10" | "force-tlsv11" => {
            lacks(context, tls, statement, (name, index), OLD_ALONE);
            return true;
        }
        _ => return false,
    }
    noted(context, tls, statement, (name, index));
    true
}

/// Notes where something is said.
fn noted(
    context: &mut Context<'_, '_>,
    tls: &mut ServerTls,
    statement: &Statement,
    (name, index): (&str, usize),
) -> usize {
    let keyword = format!("{} {name}", statement.word(0));
    let outcome = Outcome::NotNeeded;
    let entry = context
        .report
        .push(statement.at(index), keyword, outcome, UNUSED);
    tls.entries.push(entry);
    entry
}

/// What checks cannot have, with the word of the table about it.
fn lacks(
    context: &mut Context<'_, '_>,
    tls: &mut ServerTls,
    statement: &Statement,
    (name, index): (&str, usize),
    what: &str,
) {
    let keyword = format!("{} {name}", statement.word(0));
    if let Some(row) = context.index.find(Place::Server, what) {
        let mark = context.mark(statement.at(index), &keyword, row);
        tls.marks.push(mark);
    }
}

/// A word with a value.
fn valued(
    context: &mut Context<'_, '_>,
    tls: &mut ServerTls,
    statement: &Statement,
    (name, index): (&str, usize),
) {
    let keyword = format!("{} {name}", statement.word(0));
    let Some(word) = statement.words.get(index) else {
        let at = statement.at(index - 1);
        return context.report.error(at, keyword, "a value is missing");
    };
    let place = (name, index - 1);
    let text = &*word.text;
    let written = string(word);
    match name {
        "verify" if !["none", "required"].contains(&text) => {
            let text = format!("HAProxy has no `{text}` for it");
            context.report.error(statement.at(index), keyword, text);
            // Nothing more is to be said of it.
            tls.keys.insert("verify", quote("none"));
        }
        "check-sni" | "verifyhost" if word.unset.is_none() && !is_host_name(text) => {
            lacks(context, tls, statement, place, NO_NAME);
        }
        "ssl-min-ver" | "ssl-max-ver" => {
            let key = if name == "ssl-min-ver" {
                "ssl-min-ver"
            } else {
                "ssl-max-ver"
            };
            tls.keys.remove(key);
            if key == "ssl-max-ver" && OLD.contains(&text) {
                lacks(context, tls, statement, place, OLD_ALONE);
            } else if OLD.contains(&text) {
                let entry = noted(context, tls, statement, place);
                tls.oldest.push(entry);
            } else if ["TLSv1.2", "TLSv1.3"].contains(&text) {
                tls.keys.insert(key, quote(text));
                noted(context, tls, statement, place);
            } else {
                let text = format!("HAProxy has no `{text}` for it");
                context.report.error(statement.at(index), keyword, text);
            }
        }
        "ca-file" | "crl-file" | "crt" => {
            let (key, base) = match name {
                "ca-file" => ("ca-file", &context.tls.ca_base),
                "crl-file" => ("crl-file", &context.tls.ca_base),
                _ => ("crt", &context.tls.crt_base),
            };
            let is_relative = !text.starts_with(['/', '@']);
            let base = base.as_deref().or(context.folder);
            let path = match base.filter(|_| is_relative && word.unset.is_none()) {
                Some(base) => {
                    let base = super::address::escaped(base.trim_end_matches('/'));
                    format!("{base}/{written}")
                }
                None => written,
            };
            tls.keys.insert(key, quote(&path));
            noted(context, tls, statement, place);
        }
        _ => {
            let (table, key) = match name {
                "check-sni" => (&mut tls.keys, "sni"),
                "check-alpn" => (&mut tls.keys, "alpn"),
                "alpn" => (&mut tls.of_traffic, "alpn"),
                "verify" => (&mut tls.keys, "verify"),
                _ => (&mut tls.keys, "verifyhost"),
            };
            table.insert(key, quote(&written));
            noted(context, tls, statement, place);
        }
    }
}

/// Whether a rule of the check speaks TLS.
fn by_rule(settings: &Settings) -> bool {
    let speaks = |step: &[(&'static str, String)]| step.iter().any(|(key, _)| *key == "tls");
    settings.asks()
        && match settings.check {
            CheckKind::Rules => settings.tcp_rules.iter().any(|(step, _)| speaks(step)),
            CheckKind::Http => settings.http.rules.iter().any(|(rule, _)| match rule {
                Rule::Step(step) => speaks(step),
                Rule::Request(..) => false,
            }),
            _ => false,
        }
}

/// Gives the checks of a proxy's servers what is said of TLS, where they speak it.
pub(super) fn settle(context: &mut Context<'_, '_>, proxy: &mut Proxy) {
    let by_rule = by_rule(&proxy.settings);
    for server in &mut proxy.servers {
        let tls = std::mem::take(&mut server.keys.tls);
        if !server.keys.check || !(tls.on || by_rule) {
            continue;
        }
        for entry in tls.entries {
            let entry = &mut context.report.entries[entry];
            (entry.outcome, entry.text) = (Outcome::Kept, "".into());
        }
        for entry in tls.oldest {
            let text = "TLSv1.2 is the oldest version that rlb speaks";
            context.report.raise(entry, Outcome::Changed, text, false);
        }
        server.keys.marks.extend(tls.marks);
        let checks = &mut server.keys.checks;
        if tls.on {
            checks.insert("tls", "true".to_owned());
        }
        for (key, value) in tls.of_traffic {
            checks.insert(key, value);
        }
        checks.extend(tls.keys);
        if proxy.settings.check == CheckKind::Http
            && let Some(offered) = checks.get("alpn")
        {
            let names = offered.trim_matches('"').split(',');
            let others: Vec<&str> = names.clone().filter(|name| *name != "h2").collect();
            if others.len() < names.count() {
                let others = others.join(",");
                checks.insert("alpn", quote(&others));
                checks.retain(|key, _| *key != "alpn" || !others.is_empty());
                let text = "its check speaks HTTP/1: `h2` is left out of what it offers";
                let changed = Outcome::Changed;
                context.report.push(server.at, "server", changed, text);
            }
        }
        if context.tls.verify_none {
            checks.entry("verify").or_insert_with(|| quote("none"));
        }
        let is_none = checks.get("verify") == Some(&quote("none"));
        if !is_none && !checks.contains_key("ca-file") {
            let text = "its check over TLS verifies the certificate, and it has no `ca-file`: \
                        write one, as `@system-ca`, or `verify none`";
            context.report.error(server.at, "server", text);
        }
        // What follows from a default needs no key.
        if checks.get("verify") == Some(&quote("required")) {
            checks.remove("verify");
        }
    }
}
