//! What holds where a file says nothing: rlb's defaults, which are told, or HAProxy's, which are
//! written. And values that depend on each other.

use super::global::Global;
use super::proxy::{Keepalive, Proxy, Settings};
use super::report::Report;
use super::toml_string::quote;
use super::units::Span;
use std::collections::HashSet;

/// Names that are told in one line.
const NAMES_MAX: usize = 5;

/// The interval of checks when none is written, in milliseconds.
const INTERVAL: u64 = 2000;

/// Makes the values of `settings` fit each other. `tunnels`: that of the backend it leads to, and its own. What
/// has become shorter.
pub(super) fn fit(settings: &mut Settings, tunnels: [Option<&Span>; 2]) -> Vec<&'static str> {
    for (key, tunnel) in ["client", "server"].into_iter().zip(tunnels) {
        if let Some(tunnel) = tunnel {
            let shorter = settings
                .timeouts
                .get(key)
                .is_none_or(|span| !span.is_zero() && span.milliseconds < tunnel.milliseconds);
            if shorter && !tunnel.is_zero() {
                settings.timeouts.insert(key, tunnel.clone());
            }
        }
    }
    let mut shorter = Vec::new();
    for (fin, whole) in [("client-fin", "client"), ("server-fin", "server")] {
        let hour = Span {
            text: "1h".to_owned(),
            milliseconds: 3_600_000,
        };
        let whole = settings.timeouts.get(whole).unwrap_or(&hour).clone();
        let longer = settings.timeouts.get(fin).is_some_and(|span| {
            let endless = span.is_zero() && !whole.is_zero();
            endless || (!whole.is_zero() && span.milliseconds > whole.milliseconds)
        });
        if longer {
            settings.timeouts.insert(fin, whole);
            shorter.push(fin);
        }
    }
    shorter
}

/// Writes in a proxy what undoes those values of its `defaults`, which are written for all, that it has taken back by 0.
pub(super) fn write_taken_back(settings: &mut Settings, common: &Settings) {
    for key in ["maxconn", "rate-limit-sessions"] {
        if common.keys.contains_key(key) {
            let own = settings.keys.entry(key);
            own.or_insert_with(|| "0".to_owned());
        }
    }
    let span = |text: &str, milliseconds| Span {
        text: text.to_owned(),
        milliseconds,
    };
    let timeouts = &mut settings.timeouts;
    // The defaults of these depend on other values.
    let connect = timeouts.get("connect").cloned();
    let connect = connect.unwrap_or_else(|| span("5s", 5000));
    let shake = span("10s", 10_000);
    let client = timeouts.get("client").filter(|client| !client.is_zero());
    let shake = match client {
        Some(client) if client.milliseconds < shake.milliseconds => client.clone(),
        _ => shake,
    };
    let check = span("1s", 1000);
    for (key, default) in [("queue", connect), ("client-hs", shake), ("check", check)] {
        if common.timeouts.contains_key(key) {
            timeouts.entry(key).or_insert(default);
        }
    }
}

/// Gives each server a check timeout that is not longer than its interval.
pub(super) fn fit_checks(proxy: &mut Proxy, haproxy: bool) {
    let timeout = proxy.settings.timeouts.get("check").cloned();
    for server in &mut proxy.servers {
        let keys = &mut server.keys;
        let interval = keys.interval.unwrap_or(INTERVAL).max(1);
        let text = keys.checks.get("interval").cloned();
        let text = text.unwrap_or_else(|| quote("2s"));
        let longer = timeout
            .as_ref()
            .is_some_and(|it| it.milliseconds > interval);
        if keys.check && (longer || (haproxy && timeout.is_none())) {
            keys.checks.insert("timeout", text);
        }
    }
}

/// Writes HAProxy's defaults where nothing is written.
pub(super) fn fill_in(settings: &mut Settings) {
    let never = || Span {
        text: "0s".to_owned(),
        milliseconds: 0,
    };
    let timeouts = &mut settings.timeouts;
    timeouts.entry("client").or_insert_with(never);
    timeouts.entry("server").or_insert_with(never);
    let connect = timeouts.entry("connect").or_insert_with(|| Span {
        text: "24d".to_owned(),
        milliseconds: 24 * 86_400_000,
    });
    let connect = connect.clone();
    timeouts.entry("connect-attempt").or_insert(connect);
    for side in [
        &mut settings.client_keepalive,
        &mut settings.server_keepalive,
    ] {
        side.on = side.on.or(Some(false));
    }
}

/// The same in `global`.
pub(super) fn fill_in_global(global: &mut Global, pages: &mut [Proxy]) {
    for socket in &mut global.sockets {
        let level = socket.keys.entry("level");
        level.or_insert_with(|| quote("operator"));
    }
    global.tag.get_or_insert_with(|| "haproxy".to_owned());
    for page in pages {
        let keys = &mut page.settings.page.keys;
        keys.entry("uri").or_insert_with(|| quote("/haproxy?stats"));
        keys.entry("realm")
            .or_insert_with(|| quote("HAProxy Statistics"));
    }
}

/// Tells where rlb's default holds and HAProxy's is another.
pub(super) fn tell(proxies: &[&Proxy], pages: &[Proxy], global: &Global, report: &mut Report) {
    let fronts = || proxies.iter().filter(|proxy| proxy.is_front());
    let backs = || {
        let own = |proxy: &&&Proxy| proxy.is_back() && proxy.target().is_none();
        proxies.iter().filter(own)
    };
    let without = |list: Vec<&&Proxy>, key: &str| -> Vec<String> {
        let unset = list
            .into_iter()
            .filter(|proxy| !proxy.settings.timeouts.contains_key(key));
        unset.map(|proxy| proxy.name.clone()).collect()
    };
    let mut say = |names: Vec<String>, text: &str| tell_of(report, &names, text);
    let text = "no `timeout client`: rlb ends a session after an hour of silence, HAProxy never";
    say(without(fronts().collect(), "client"), text);
    let text = "no `timeout server`: rlb ends a session after an hour of silence, HAProxy never";
    say(without(backs().collect(), "server"), text);
    let text = "no `timeout connect`: rlb waits 5s for all servers together, HAProxy for ever";
    say(without(backs().collect(), "connect"), text);
    let several = backs().filter(|proxy| proxy.servers.len() > 1);
    let text = "rlb asks a second server after 300ms without an answer (`connect-attempt`), HAProxy \
                asks one at a time";
    say(without(several.collect(), "connect-attempt"), text);
    let several =
        backs().filter(|proxy| proxy.servers.len() > 1 && proxy.settings.balance.is_none());
    let several = several.map(|proxy| proxy.name.clone()).collect();
    let text = "no `balance`: rlb takes turns (`roundrobin`); HAProxy draws lots since 3.3";
    say(several, text);
    let off = |keepalive: &Keepalive| keepalive.on.is_none();
    let quiet = proxies.iter().filter(|proxy| {
        (proxy.is_front() && off(&proxy.settings.client_keepalive))
            || (proxy.is_back() && off(&proxy.settings.server_keepalive))
    });
    let quiet = quiet.map(|proxy| proxy.name.clone()).collect();
    say(
        quiet,
        "rlb keeps TCP connections alive (`keepalive`), HAProxy does not",
    );
    let checked = backs().filter(|proxy| {
        let timed = proxy.settings.timeouts.contains_key("check");
        proxy.is_checked() && !timed && !has_check_timeout(proxy)
    });
    let checked = checked.map(|proxy| proxy.name.clone()).collect();
    let text = "a check may take 1s at most, and not longer than its interval; in HAProxy it may \
                take its interval";
    say(checked, text);
    process(proxies, pages, global, report);
}

/// The same of the log, the runtime socket and the page.
fn process(proxies: &[&Proxy], pages: &[Proxy], global: &Global, report: &mut Report) {
    let fronts = || proxies.iter().filter(|proxy| proxy.is_front());
    let mut say = |names: Vec<String>, text: &str| tell_of(report, &names, text);
    let silent = fronts().filter(|proxy| !proxy.settings.logs());
    let silent: Vec<String> = silent.map(|proxy| proxy.name.clone()).collect();
    let logs = fronts().any(|proxy| proxy.settings.logs());
    if logs {
        say(
            silent,
            "rlb writes a line for the sessions of all proxies, of those without a `log` too",
        );
    } else if !global.targets.is_empty() {
        say(
            silent,
            "no proxy has a `log`: no session is written, only events of servers",
        );
    }
    let mut sockets = global.sockets.iter();
    if sockets.any(|one| !one.keys.contains_key("level")) {
        say(
            vec!["stats socket".to_owned()],
            "rlb's level is `admin`, with the file mode 0600; HAProxy's is `operator`",
        );
    }
    let pages = pages.iter().filter(|page| {
        let keys = &page.settings.page.keys;
        !keys.contains_key("uri")
    });
    let pages = pages.map(|page| page.name.clone()).collect();
    say(
        pages,
        "the page is at `/`; HAProxy's is at `/haproxy?stats`, which rlb answers too",
    );
}

fn tell_of(report: &mut Report, names: &[String], text: &str) {
    if !names.is_empty() {
        report.information(format!("{}: {text}", listed(names)));
    }
}

fn has_check_timeout(proxy: &Proxy) -> bool {
    let mut servers = proxy.servers.iter();
    servers.any(|server| server.keys.checks.contains_key("timeout"))
}

/// `a, b, c and 4 more`.
fn listed(names: &[String]) -> String {
    let mut known: HashSet<&str> = HashSet::new();
    let names = names.iter().map(String::as_str);
    let unique: Vec<&str> = names.filter(|name| known.insert(name)).collect();
    let shown = unique[..unique.len().min(NAMES_MAX)].join(", ");
    match unique.len().saturating_sub(NAMES_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
