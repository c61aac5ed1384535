//! What the words of a server say of the PROXY header with which its connections begin.

use super::context::Context;
use super::log_format;
use super::proxy::ServerKeys;
use super::sections::Statement;
use super::toml_string::quote;
use crate::config::haproxy::Place;
use crate::config::model::ProxyV2Options;
use crate::config::own_tlv::OwnTlv;
use crate::config::units::Problem;

/// The word of the table for a TLV that rlb cannot make.
const OTHER_TLV: &str = "set-proxy-v2-tlv-fmt *";

/// A word about the PROXY header; `index` is that of its value. Whether it is one.
pub(super) fn word(
    context: &mut Context<'_, '_>,
    keys: &mut ServerKeys,
    statement: &Statement,
    (name, index): (&str, usize),
) -> bool {
    if let Some(kind) = OwnTlv::haproxy_type(name) {
        own_tlv(context, keys, statement, (kind, index));
        return true;
    }
    match name {
        "proxy-v2-options" => v2_options(context, keys, statement, index),
        "send-proxy" | "send-proxy-v2" => {
            // As in HAProxy the second version goes before the first.
            let version = if name == "send-proxy" { "v1" } else { "v2" };
            let known = keys.keys.entry("send-proxy").or_default();
            if *known != quote("v2") {
                *known = quote(version);
            }
        }
        "no-send-proxy" | "no-send-proxy-v2" => {
            let version = if name == "no-send-proxy" { "v1" } else { "v2" };
            if keys.keys.get("send-proxy") == Some(&quote(version)) {
                keys.keys.remove("send-proxy");
            }
        }
        "check-send-proxy" => {
            keys.checks.insert("send-proxy", "true".to_owned());
        }
        "no-check-send-proxy" => drop(keys.checks.remove("send-proxy")),
        _ => return false,
    }
    true
}

/// Leaves out what is about the second version alone where that is not sent.
pub(super) fn finish(keys: &mut ServerKeys) {
    if keys.keys.get("send-proxy") != Some(&quote("v2")) {
        keys.keys.remove("proxy-v2-options");
        keys.marks.retain(|mark| {
            let mut only_v2 = ["proxy-v2-options ssl", OTHER_TLV].into_iter();
            !only_v2.any(|word| mark.row.words.contains(&word))
        });
    } else if !keys.tlvs.is_empty() {
        let list = format!("[{}]", keys.tlvs.join(", "));
        keys.keys.insert("proxy-v2-tlvs", list);
    }
}

/// `proxy-v2-options`. What rlb cannot say of a client is looked up in the table.
fn v2_options(
    context: &mut Context<'_, '_>,
    keys: &mut ServerKeys,
    statement: &Statement,
    index: usize,
) {
    let key = "proxy-v2-options";
    for option in statement.word(index).split(',') {
        let before = keys.keys.get(key).map(|text| text.trim_matches('"'));
        let before = before.and_then(ProxyV2Options::parse);
        let mut options = before.unwrap_or_default();
        match option {
            option if options.add(option) => {
                keys.keys.insert(key, quote(&options.to_string()));
            }
            // A name that a client's header has is always passed on, and there is no other.
            "authority" => {}
            _ => {
                let word = format!("proxy-v2-options {option}");
                let Some(row) = context.index.find(Place::Server, &word) else {
                    let text = format!("HAProxy has no option `{option}`");
                    let keyword = "server proxy-v2-options";
                    context.report.error(statement.at(index), keyword, text);
                    continue;
                };
                let keyword = format!("server {word}");
                let mark = context.mark(statement.at(index), &keyword, row);
                keys.marks.push(mark);
            }
        }
    }
}

/// `set-proxy-v2-tlv-fmt(TYPE) FORMAT`, behind those before it. What rlb cannot say of a session is looked up in the table.
fn own_tlv(
    context: &mut Context<'_, '_>,
    keys: &mut ServerKeys,
    statement: &Statement,
    (kind, index): (Result<u8, Problem>, usize),
) {
    let keyword = "server set-proxy-v2-tlv-fmt";
    let at = statement.at(index);
    let problem = match kind {
        Err(ref problem) => Some(problem.message.clone()),
        Ok(_) => log_format::refused(statement.word(index)),
    };
    if let Some(problem) = problem {
        return context.report.error(at, keyword, problem);
    }
    let read = kind.and_then(|kind| OwnTlv::new(kind, statement.word(index)));
    match read {
        Ok(tlv) => keys.tlvs.push(quote(&tlv.to_string())),
        Err(_) => {
            if let Some(row) = context.index.find(Place::Server, OTHER_TLV) {
                let mark = context.mark(at, keyword, row);
                keys.marks.push(mark);
            }
        }
    }
}
