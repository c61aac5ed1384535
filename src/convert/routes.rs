//! Where proxies lead: what HAProxy refuses of it.

use super::proxy::{Mode, Proxy};
use super::report::{At, Report};
use std::collections::{HashMap, HashSet};

/// The word that says where a proxy leads when no condition decides.
pub(super) fn default_word(proxy: &Proxy) -> &'static str {
    if proxy.leads_by_route {
        "use_backend"
    } else {
        "default_backend"
    }
}

/// Reports that a frontend for HTTP leads to a backend for TCP.
pub(super) fn http_to_tcp(
    proxy: &Proxy,
    (proxies, backends): (&[Proxy], &HashMap<&str, usize>),
    report: &mut Report,
) {
    if !proxy.is_front() || proxy.settings.mode != Mode::Http {
        return;
    }
    let word = default_word(proxy);
    let default = proxy.settings.default_backend.iter();
    let default = default.map(|led| (led, word));
    let routes = proxy.routes.iter().map(|led| (led, "use_backend"));
    for ((name, at), keyword) in default.chain(routes) {
        let backend = backends.get(name.as_str()).map(|index| &proxies[*index]);
        if let Some(backend) = backend.filter(|backend| backend.settings.mode == Mode::Tcp) {
            let text = format!("HTTP cannot be led to {}, which is for TCP", backend.what());
            // An inherited one is said of the frontend.
            report.error((*at).max(proxy.at), keyword, text);
        }
    }
}

/// The statements of which a backend that does not exist was told: all proxies have what a `defaults` says.
#[derive(Default)]
pub(super) struct Missing(HashSet<At>);

impl Missing {
    /// Reports the backends that a proxy names and that do not exist.
    pub(super) fn tell(
        &mut self,
        proxy: &Proxy,
        backends: &HashMap<&str, usize>,
        report: &mut Report,
    ) {
        // What follows from the connection is not known yet.
        let routes = proxy.routes.iter().filter(|(name, _)| !name.contains("%["));
        let routes = routes.map(|(name, at)| (name, at, "use_backend"));
        let named = proxy.named.iter();
        let named = named.map(|(name, at, keyword)| (name, at, *keyword));
        // A backend has it without an effect, and does not inherit it.
        let own = proxy.default_entry.is_some() || proxy.leads_by_route;
        let default = proxy.settings.default_backend.iter();
        let default = default.filter(|_| proxy.kind.is_front() || own);
        let word = default_word(proxy);
        let default = default.map(|(name, at)| (name, at, word));
        for (name, at, keyword) in named.chain(routes).chain(default) {
            if !backends.contains_key(name.as_str()) && self.0.insert(*at) {
                let text = format!("there is no backend `{name}`");
                report.error(*at, keyword, text);
            }
        }
    }
}
