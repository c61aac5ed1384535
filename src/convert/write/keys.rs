//! The keys of proxies, servers and checks as they are written. Pure.

use crate::convert::proxy::{CheckKind, Keepalive, Rule, Server, Settings};
use crate::convert::report::At;
use crate::convert::server_tls::makes_it_alone;
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
        "load-server-state-from-file",
        "server-state-file-name",
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
const OWN: [&str; 11] = [
    "server-state-file-name",
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

/// What the checks of a proxy ask: its keys in a check table, and the steps that need a table of their own.
pub(super) fn question(settings: &Settings) -> (Pairs, Vec<(String, At)>) {
    let typed = |name: &str| vec![("type", quote(name))];
    if !settings.asks() {
        let of_tcp = settings.check == CheckKind::Rules;
        return (if of_tcp { typed("tcp") } else { Pairs::new() }, Vec::new());
    }
    match settings.check {
        CheckKind::Connection | CheckKind::Other => (Pairs::new(), Vec::new()),
        CheckKind::Preset => (settings.preset.clone(), Vec::new()),
        CheckKind::Rules => {
            let is_plain = |pairs: &Pairs| pairs.len() == 1 && pairs[0].0 == "connect";
            let rules = settings.tcp_rules.iter();
            // A connection, and remarks about it, are what the type alone does.
            let asked = rules.clone().filter(|(pairs, _)| pairs[0].0 != "comment");
            let asked: Vec<&Pairs> = asked.map(|(pairs, _)| pairs).collect();
            if asked.is_empty() || (asked.len() == 1 && is_plain(asked[0])) {
                return (typed("tcp"), Vec::new());
            }
            let steps = rules.map(|(pairs, at)| (step(pairs), *at)).collect();
            (typed("tcp"), steps)
        }
        CheckKind::Http => {
            let http = &settings.http;
            let mut pairs = typed("http");
            let requests = http.rules.iter();
            let requests = requests.filter(|(rule, _)| matches!(rule, Rule::Request(..)));
            let in_steps = requests.count() > 1;
            if !in_steps {
                pairs.extend(http.request.iter().cloned());
            }
            let switches = [
                ("disable-on-404", http.disable_on_404),
                ("send-state", http.send_state),
            ];
            let switches = switches.into_iter().filter(|(_, on)| *on);
            let switches = switches.map(|(key, _)| (key, "true".to_owned()));
            let mut steps = Vec::new();
            for (rule, at) in &http.rules {
                match rule {
                    Rule::Step(pairs) => steps.push((step(pairs), *at)),
                    Rule::Request(own, comment) if in_steps => {
                        let own = if own.is_empty() { &http.request } else { own };
                        let mut own = own.clone();
                        if own.is_empty() {
                            own.push(("uri", quote("/")));
                        }
                        own.extend(comment.clone().map(|it| ("comment", it)));
                        steps.push((step(&own), *at));
                    }
                    Rule::Request(..) => {}
                }
            }
            if let [(Rule::Step(only), _)] = &http.rules[..]
                && let [("expect-status", status)] = &only[..]
            {
                pairs.push(("expect-status", status.clone()));
                steps.clear();
            }
            pairs.extend(switches);
            (pairs, steps)
        }
    }
}

fn step(pairs: &Pairs) -> String {
    inline(pairs.iter().map(|(key, value)| (*key, value)))
}

/// The `check` of a server; `asked`: the keys of what is asked of it.
pub(super) fn check(server: &Server, asked: &Pairs) -> Option<String> {
    if !server.keys.check {
        return None;
    }
    // What rlb cannot do as the server needs it would fail always.
    let mut marks = server.keys.marks.iter().map(|mark| mark.row.words);
    let is_alone = marks.any(|words| words.contains(&"check-via-socks4") || makes_it_alone(words));
    let asked = if is_alone { &Pairs::new() } else { asked };
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
    let of_tls = [
        "tls",
        "sni",
        "sni-auto",
        "alpn",
        "verify",
        "verifyhost",
        "ca-file",
        "crl-file",
        "crt",
        "ssl-min-ver",
        "ssl-max-ver",
    ];
    let of_tls = of_tls.into_iter().filter(|_| !is_alone);
    let keys = order.into_iter().chain(of_tls);
    let keys = keys.filter_map(|key| Some((key, server.keys.checks.get(key)?)));
    let asked = asked.iter().map(|(key, value)| (*key, value));
    let mut all: Vec<(&str, &String)> = asked.chain(keys).collect();
    Some(match &mut all[..] {
        [] => "true".to_owned(),
        [("type", kind)] => kind.clone(),
        _ => inline(all),
    })
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
            "init-state",
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
