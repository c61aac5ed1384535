//! `tcp-request connection expect-proxy layer4`: becomes `accept-proxy` and `accept-proxy-from` of the binds.

use super::context::{Context, keyword};
use super::proxy::{Bind, Proxy};
use super::sections::Statement;
use super::toml_string::quote;
use crate::config::address;

/// Reads the rule into `proxy`. `false`: its condition is not a list of networks, or not every client is asked it.
pub(super) fn read(
    context: &mut Context<'_, '_>,
    proxy: &mut Proxy,
    statement: &Statement,
) -> bool {
    let words: Vec<&str> = statement.words.iter().map(|it| it.text.as_str()).collect();
    let networks = match words[..] {
        [_, _, _, "layer4"] => Some(Vec::new()),
        [_, _, _, "layer4", "if", "{", "src", ref networks @ .., "}"] => listed(networks),
        _ => None,
    };
    let Some(networks) = networks.filter(|_| !proxy.settings.accepts_early) else {
        return false;
    };
    context.kept(statement.at, keyword(statement));
    let all = networks.is_empty();
    match &mut proxy.settings.expect_proxy {
        // Each rule adds to those before it.
        Some(known) if !known.is_empty() && !all => known.extend(networks),
        Some(known) if known.is_empty() => {}
        expected => *expected = Some(networks),
    }
    true
}

fn listed(words: &[&str]) -> Option<Vec<String>> {
    let known = words.iter().all(|word| address::network(word).is_ok());
    (known && !words.is_empty()).then(|| words.iter().map(|word| (*word).to_owned()).collect())
}

/// Gives the binds of `proxy` what its rules say.
pub(super) fn settle(proxy: &mut Proxy) {
    let Some(networks) = &proxy.settings.expect_proxy else {
        return;
    };
    let list: Vec<String> = networks.iter().map(|it| quote(it)).collect();
    for bind in &mut proxy.binds {
        // The address of a client of a unix socket is in no network.
        if bind.keys.contains_key("accept-proxy") || (!list.is_empty() && is_unix(bind)) {
            continue;
        }
        bind.keys.insert("accept-proxy", quote("required"));
        if !list.is_empty() {
            let list = format!("[{}]", list.join(", "));
            bind.keys.insert("accept-proxy-from", list);
        }
    }
}

fn is_unix(bind: &Bind) -> bool {
    bind.address.starts_with("unix:") || bind.address.starts_with("abns@")
}
