//! The keys of proxies, servers and checks as they are written. Pure.

use crate::convert::proxy::{Keepalive, Server, Settings};
use crate::convert::toml_string::quote;
use std::collections::BTreeMap;

/// Keys and values of a table, in the order in which they are written.
pub(super) type Pairs = Vec<(&'static str, String)>;

/// A table on one line.
pub(super) fn inline<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a String)>) -> String {
    let mut out = String::from("{ ");
    for (index, (key, value)) in pairs.into_iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        for part in [comma, key, " = ", value] {
            out.push_str(part);
        }
    }
    out.push_str(" }");
    out
}

fn keepalive(keepalive: &Keepalive) -> Option<String> {
    if !keepalive.on? {
        return Some("false".to_owned());
    }
    let keys = [
        ("idle", &keepalive.idle),
        ("interval", &keepalive.interval),
        ("probes", &keepalive.probes),
    ];
    let keys: Vec<(&str, &String)> = keys
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.as_ref()?)))
        .collect();
    Some(if keys.is_empty() {
        "true".to_owned()
    } else {
        inline(keys)
    })
}

/// The keys of both sides that `settings` has, those of `timeout` apart.
pub(super) fn pairs(settings: &Settings, front: bool, back: bool) -> (Pairs, Pairs) {
    let mut own = Pairs::new();
    let fronts = [
        "maxconn",
        "rate-limit-sessions",
        "backlog",
        "dontlognull",
        "dontlog-normal",
        "unique-id-format",
        "log-suffix",
    ];
    let backs = [
        "balance",
        "random-draws",
        "hash-type",
        "hash-on",
        "hash-balance-factor",
        "hash-preserve-affinity",
        "retries",
        "allbackups",
        "fullconn",
        "abortonclose",
        "log-health-checks",
        "source",
        "sorry-backend",
    ];
    let chosen = |keys: &[&'static str], on: bool| -> Pairs {
        let keys = keys.iter().filter(|_| on);
        keys.filter_map(|key| Some((*key, settings.keys.get(key)?.clone())))
            .collect()
    };
    own.extend(chosen(&fronts, front));
    own.extend(chosen(&backs, back));
    let hashes = settings
        .keys
        .get("balance")
        .is_some_and(|it| it.contains("source") || it.contains("hash"));
    own.retain(|(key, _)| hashes || !key.starts_with("hash-"));
    let client = keepalive(&settings.client_keepalive).filter(|_| front);
    let server = keepalive(&settings.server_keepalive).filter(|_| back);
    // One key for both sides: the one that says more.
    let both = match (client, server) {
        (Some(client), Some(server)) if client == "false" || client == "true" => {
            Some(if server == "false" { client } else { server })
        }
        (client, server) => client.or(server),
    };
    own.extend(both.map(|value| ("keepalive", value)));
    let timeouts = [
        ("client", front),
        ("client-fin", front),
        ("client-hs", front),
        ("server", back),
        ("server-fin", back),
        ("connect", back),
        ("connect-attempt", back),
        ("queue", back),
        ("check", back),
    ];
    let timeouts = timeouts.into_iter().filter(|(_, on)| *on);
    let timeouts = timeouts.filter_map(|(key, _)| {
        let span = settings.timeouts.get(key)?;
        Some((key, quote(&span.text)))
    });
    (own, timeouts.collect())
}

/// Keys of a proxy that `[defaults]` does not have.
const OWN: [&str; 10] = [
    "sorry-backend",
    "balance",
    "random-draws",
    "hash-type",
    "hash-on",
    "hash-balance-factor",
    "hash-preserve-affinity",
    "backlog",
    "allbackups",
    "fullconn",
];

/// The `check` of a server; `rules`: its backend has `option tcp-check`.
pub(super) fn check(server: &Server, rules: bool) -> Option<String> {
    if !server.keys.check {
        return None;
    }
    if server.keys.checks.is_empty() {
        let word = if rules {
            quote("tcp")
        } else {
            "true".to_owned()
        };
        return Some(word);
    }
    let order = [
        "interval",
        "fast-interval",
        "down-interval",
        "rise",
        "fall",
        "timeout",
        "port",
        "address",
        "send-proxy",
    ];
    let keys = order.into_iter();
    let keys = keys.filter_map(|key| Some((key, server.keys.checks.get(key)?)));
    let kind = quote("tcp");
    let kind = rules.then_some(("type", &kind));
    Some(inline(kind.into_iter().chain(keys)))
}

/// The keys that all of several servers have.
pub(super) fn shared(servers: &[Server]) -> BTreeMap<&'static str, String> {
    let [first, rest @ ..] = servers else {
        return BTreeMap::new();
    };
    if rest.is_empty() {
        return BTreeMap::new();
    }
    let mut shared = first.keys.keys.clone();
    shared.retain(|key, value| {
        let common = [
            "weight",
            "hash-key",
            "maxconn",
            "minconn",
            "maxqueue",
            "slowstart",
            "on-marked-down",
            "on-marked-up",
            "observe",
            "error-limit",
            "on-error",
            "send-proxy",
            "proxy-v2-options",
            "proxy-v2-tlvs",
            "source",
        ]
        .contains(key);
        common
            && rest
                .iter()
                .all(|server| server.keys.keys.get(key) == Some(value))
    });
    shared
}

/// What of a `defaults` stands in `[defaults]`.
pub(super) fn inherited(settings: &Settings) -> (Pairs, Pairs) {
    let (mut pairs, timeouts) = pairs(settings, true, true);
    let one_sided = keepalive(&settings.client_keepalive) != keepalive(&settings.server_keepalive);
    pairs.retain(|(key, _)| match *key {
        "keepalive" => !one_sided,
        key => !OWN.contains(&key),
    });
    (pairs, timeouts)
}
