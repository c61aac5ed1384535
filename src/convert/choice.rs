//! Which proxies are carried over, and what their words mean then.
//!
//! A word is judged once it is known what its proxy is: an HTTP word says nothing in TCP, and a check
//! says nothing where no server is checked. What leads to a proxy that is dropped is dropped too.

use super::Options;
use super::proxy::{Bind, Mode, PageNotShown, Proxy};
use super::report::{At, Outcome, Report};
use super::routes::{Missing, default_word, http_to_tcp};
use super::sections::Kind;
use crate::config::haproxy::Becomes;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// What becomes of a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    /// It is a proxy of rlb's.
    Carried,
    /// It is a part of `[stats]`.
    Page,
    /// It is left out, for this reason.
    Dropped(String),
}

/// A proxy that is left out.
struct LeftOut {
    why: String,
    /// Clients notice, and nobody has asked for it.
    counts: bool,
}

/// What becomes of each proxy.
pub(super) fn choose(
    proxies: &[Proxy],
    refused: &HashSet<At>,
    options: Options,
    report: &mut Report,
) -> Vec<Choice> {
    let mut choices: Vec<Result<Choice, LeftOut>> = proxies
        .iter()
        .map(|proxy| alone(proxy, options, report))
        .collect();
    twice(proxies, &mut choices, report);
    refuse(proxies, &mut choices, refused);
    together(proxies, &mut choices, report);
    let sections = report.by_section(|_| true);
    let told = proxies.iter().zip(choices);
    let choices: Vec<Choice> = told
        .map(|(proxy, choice)| {
            let own = sections.get(proxy.section).map_or(&[][..], Vec::as_slice);
            tell(proxy, choice, own, report)
        })
        .collect();
    name_http(proxies, &choices, report);
    choices
}

/// Leaves out the proxies that begin at one of the places `refused`.
fn refuse(proxies: &[Proxy], choices: &mut [Result<Choice, LeftOut>], refused: &HashSet<At>) {
    for (proxy, choice) in proxies.iter().zip(choices) {
        if refused.contains(&proxy.at) {
            *choice = Err(LeftOut {
                why: "what it becomes is not valid".to_owned(),
                counts: true,
            });
        }
    }
}

/// Names each frontend for TCP that leads to a backend for HTTP.
fn name_http(proxies: &[Proxy], choices: &[Choice], report: &mut Report) {
    let backs = proxies.iter().filter(|proxy| proxy.is_back());
    let mut backends: HashMap<&str, &Proxy> = HashMap::new();
    for backend in backs {
        backends.entry(&backend.name).or_insert(backend);
    }
    for (proxy, choice) in proxies.iter().zip(choices) {
        let default = proxy.settings.default_backend.iter();
        let word = default_word(proxy);
        let default = default.map(|led| (led, word));
        let routes = proxy.routes.iter().map(|led| (led, "use_backend"));
        for ((name, at), keyword) in default.chain(routes) {
            let backend = backends.get(name.as_str()).copied();
            let Some(backend) = backend.filter(|backend| proxy.leads_to_http(backend)) else {
                continue;
            };
            let what = backend.what();
            let (outcome, text) = if *choice == Choice::Carried {
                let text = format!("TCP is led to {what}, whose HTTP is carried over as TCP");
                (Outcome::Changed, text)
            } else {
                let text = format!("TCP is led to {what}, which is for HTTP");
                (Outcome::Information, text)
            };
            // An inherited one is said of the frontend.
            let index = report.push((*at).max(proxy.at), keyword, outcome, text);
            report.entries[index].section = proxy.section;
        }
    }
}

/// Says in the report what became of a proxy as a whole, whose entries are `own`.
fn tell(
    proxy: &Proxy,
    choice: Result<Choice, LeftOut>,
    own: &[usize],
    report: &mut Report,
) -> Choice {
    match choice {
        Ok(choice) => {
            if choice == Choice::Page {
                let text = "it is `[stats]`";
                report.raise(proxy.entry, Outcome::Changed, text, false);
                unused(proxy, own, report);
            } else if proxy.settings.mode == Mode::Http {
                let text = "its HTTP is carried over as TCP: a connection stays on one server, \
                            and no header tells the client's address";
                report.raise(proxy.entry, Outcome::Changed, text, false);
            }
            choice
        }
        Err(LeftOut { why, counts }) => {
            let text = Cow::Owned(format!("it goes with {}", proxy.what()));
            for index in own {
                let entry = &mut report.entries[*index];
                if entry.outcome < Outcome::Dropped && entry.outcome != Outcome::Information {
                    entry.outcome = Outcome::Dropped;
                    entry.text.clone_from(&text);
                }
            }
            let entry = &mut report.entries[proxy.entry];
            entry.outcome = Outcome::Dropped;
            entry.text = format!("{} is not carried over: {why}", proxy.what()).into();
            entry.traffic |= counts;
            Choice::Dropped(why)
        }
    }
}

/// Says which statements of a page have no effect, whose entries are among `own`.
fn unused(proxy: &Proxy, own: &[usize], report: &mut Report) {
    for index in own.iter().filter(|index| **index != proxy.entry) {
        let entry = &report.entries[*index];
        let keyword = entry.keyword.trim_start_matches("no ");
        let used = ["mode", "maxconn", "log", "option dontlog-normal"].contains(&keyword)
            || keyword.starts_with("bind")
            || keyword.starts_with("stats ");
        if entry.outcome != Outcome::Kept || used {
            continue;
        }
        let (outcome, text) = match keyword {
            "id" | "rate-limit" | "backlog" => (Outcome::Changed, "`[stats]` has no such key"),
            _ => (
                Outcome::NotNeeded,
                "the page has times and limits of its own",
            ),
        };
        report.raise(*index, outcome, text, false);
    }
}

/// What becomes of a proxy by its own words.
fn alone(proxy: &Proxy, options: Options, report: &mut Report) -> Result<Choice, LeftOut> {
    let http = proxy.settings.mode == Mode::Http;
    if let Some(part) = proxy.unreadable {
        return Err(LeftOut {
            why: part.to_owned(),
            counts: true,
        });
    }
    if proxy.is_page() {
        return page(proxy, options, report);
    }
    for entry in proxy.settings.page.entries.iter().filter(|_| !http) {
        let text = "it has no effect on TCP";
        report.raise(*entry, Outcome::NotNeeded, text, false);
    }
    if http && options.http_drop {
        return Err(LeftOut {
            why: "it is an HTTP proxy".to_owned(),
            counts: false,
        });
    }
    if proxy.is_page_of_frontends() {
        return Err(LeftOut {
            why: "it is a page of the statistics: give `[stats]` its own `bind`".to_owned(),
            counts: false,
        });
    }
    let role = if http { Role::Http } else { Role::Tcp };
    let mut blocked = judge(proxy, role, options, report);
    let not_shown = proxy.settings.page.not_shown.as_ref();
    let haproxy_shows = http && not_shown.is_none_or(|page| page.haproxy_shows);
    for entry in proxy.settings.page.entries.iter().filter(|_| haproxy_shows) {
        let say = "a page beside other traffic is not carried over: give `[stats]` its own `bind`";
        needs_allow_degraded(*entry, say, options, report, &mut blocked);
    }
    let answers_alone = proxy.is_front() && proxy.target().is_none() && proxy.servers.is_empty();
    for exporter in proxy.settings.exporters.iter().filter(|_| http) {
        let say = if answers_alone && proxy.routes.is_empty() {
            "a proxy for metrics alone is not carried over: `/metrics` of `[stats]` has them"
        } else {
            "metrics beside other traffic are not carried over: give `[stats]` its own `bind`"
        };
        needs_allow_degraded(exporter.entry, say, options, report, &mut blocked);
    }
    if proxy.is_back() {
        balance(proxy, options, report, &mut blocked);
    }
    if proxy.is_checked() && !proxy.settings.asks() {
        let rules = proxy.settings.checks.iter();
        for (entry, _, lacks) in rules.filter(|it| it.1 == proxy.settings.check) {
            let alone = "what is not supported leaves the check a connection alone";
            let say = lacks.clone().unwrap_or(alone.into());
            needs_allow_degraded(*entry, say, options, report, &mut blocked);
        }
    }
    match blocked.first() {
        Some(entry) => {
            let entry = &report.entries[*entry];
            let line = entry.at.map_or(0, |at| at.line);
            Err(LeftOut {
                why: format!("`{}` in line {line}", entry.keyword),
                counts: true,
            })
        }
        None => Ok(Choice::Carried),
    }
}

/// A word without which its proxy is weaker.
fn needs_allow_degraded(
    entry: usize,
    say: impl Into<Cow<'static, str>>,
    options: Options,
    report: &mut Report,
    blocked: &mut Vec<usize>,
) {
    report.raise(entry, Outcome::Unsupported, say, !options.allow_degraded);
    if !options.allow_degraded {
        blocked.push(entry);
    }
}

/// What a proxy is carried over as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Tcp,
    Http,
    /// Of the statistics.
    Page,
}

/// Judges the words of a proxy by the table; the entries of those that forbid to carry it over.
fn judge(proxy: &Proxy, role: Role, options: Options, report: &mut Report) -> Vec<usize> {
    let mut blocked = Vec::new();
    for mark in proxy.marks() {
        let (entry, say) = (mark.entry, mark.row.say);
        match (mark.row.becomes, role) {
            (Becomes::Http, Role::Http) => report.raise(entry, Outcome::Changed, say, false),
            (Becomes::HttpDecides, Role::Page) if *report.entries[entry].keyword == *"redirect" => {
                let text = "the page is at its own path";
                report.raise(entry, Outcome::Changed, text, false);
            }
            // Who may see the page must not become more.
            (Becomes::HttpDecides, Role::Http | Role::Page) => {
                report.raise(entry, Outcome::Dropped, say, true);
                blocked.push(entry);
            }
            (Becomes::Missing, _) => {
                report.raise(entry, Outcome::Unsupported, say, true);
                blocked.push(entry);
            }
            (Becomes::NeedsAllowDegraded, _) => {
                needs_allow_degraded(entry, say, options, report, &mut blocked);
            }
            _ => {}
        }
    }
    blocked
}

/// A proxy that shows the statistics.
fn page(proxy: &Proxy, options: Options, report: &mut Report) -> Result<Choice, LeftOut> {
    if proxy.settings.disabled {
        return Err(LeftOut {
            why: "it is disabled".to_owned(),
            counts: false,
        });
    }
    if let Some((keyword, at)) = &proxy.settings.page.first_error {
        let what = match &**keyword {
            "" => "line".to_owned(),
            keyword => format!("`{keyword}` in line"),
        };
        return Err(LeftOut {
            why: format!("{what} {} is not valid", at.line),
            counts: true,
        });
    }
    let page = &proxy.settings.page;
    let not_shown = page.not_shown.as_ref().or(page.open_user.as_ref());
    if let Some(PageNotShown { why, haproxy_shows }) = not_shown {
        return Err(LeftOut {
            why: why.clone(),
            counts: *haproxy_shows,
        });
    }
    if !proxy.binds.is_empty() && !proxy.binds.iter().any(Bind::is_tcp) {
        let why = "`[stats]` listens on TCP addresses alone".to_owned();
        return Err(LeftOut { why, counts: true });
    }
    let mut blocked = judge(proxy, Role::Page, options, report);
    exporters(proxy, report, &mut blocked);
    let Some(entry) = blocked.first() else {
        return Ok(Choice::Page);
    };
    let keyword = &report.entries[*entry].keyword;
    Err(LeftOut {
        why: format!("`{keyword}` is not possible for `[stats]`"),
        counts: true,
    })
}

/// The metrics of a page. `[stats]` answers with them at `/metrics`, to all who may see the page.
fn exporters(proxy: &Proxy, report: &mut Report, blocked: &mut Vec<usize>) {
    let has_users = !proxy.settings.page.auth.is_empty();
    for exporter in &proxy.settings.exporters {
        let entry = exporter.entry;
        if !exporter.is_for_all {
            let text = "`[stats]` has its metrics at `/metrics`, for all who may see the page";
            report.raise(entry, Outcome::Dropped, text, true);
            blocked.push(entry);
        } else if has_users {
            let text = "`/metrics` of `[stats]` asks for the users of `stats auth` too";
            report.raise(entry, Outcome::Changed, text, false);
        } else if report.entries[entry].outcome == Outcome::NotNeeded {
            report.entries[entry].text = "`/metrics` of `[stats]` is always there".into();
        }
    }
}

/// `balance`.
fn balance(proxy: &Proxy, options: Options, report: &mut Report, blocked: &mut Vec<usize>) {
    let Some((algorithm, entry)) = &proxy.settings.balance else {
        return;
    };
    let name = algorithm.split('(').next().unwrap_or_default();
    match name {
        // It was told of the statement.
        _ if report.entries[*entry].outcome == Outcome::Error => blocked.push(*entry),
        "" | "roundrobin" | "static-rr" | "first" | "random" | "leastconn" | "source" => {}
        "hash" if proxy.settings.keys.contains_key("hash-on") => {}
        _ if proxy.servers.len() < 2 => {
            let text = "one server is chosen by any algorithm";
            report.raise(*entry, Outcome::NotNeeded, text, false);
        }
        _ => {
            let text = format!("`roundrobin` chooses the server, not `{name}`");
            needs_allow_degraded(*entry, text, options, report, blocked);
        }
    }
}

/// Reports two proxies of one name on the same side, and leaves the second one out.
fn twice(proxies: &[Proxy], choices: &mut [Result<Choice, LeftOut>], report: &mut Report) {
    let mut names: HashSet<(bool, &str)> = HashSet::new();
    for (proxy, choice) in proxies.iter().zip(choices) {
        let sides = [(true, proxy.kind.is_front()), (false, proxy.is_back())];
        let again = sides
            .iter()
            .filter(|(_, has)| *has)
            .any(|(side, _)| !names.insert((*side, &proxy.name)));
        if again {
            let text = format!("there is a second {}", proxy.what());
            let keyword = report.entries[proxy.entry].keyword.clone();
            report.error(proxy.at, keyword, text);
            *choice = Err(LeftOut {
                why: "another proxy has its name".to_owned(),
                counts: true,
            });
        }
    }
}

/// What becomes of proxies by those that they lead to.
fn together(proxies: &[Proxy], choices: &mut [Result<Choice, LeftOut>], report: &mut Report) {
    let mut backends: HashMap<&str, usize> = HashMap::new();
    for (index, proxy) in proxies.iter().enumerate() {
        if proxy.is_back() {
            backends.entry(&proxy.name).or_insert(index);
        }
        if proxy.kind == Kind::Backend && proxy.settings.disabled && choices[index].is_ok() {
            choices[index] = Err(LeftOut {
                why: "it is disabled".to_owned(),
                counts: false,
            });
        }
    }
    let mut missing = Missing::default();
    let mut led_to: HashMap<usize, (bool, bool)> = HashMap::new();
    for (index, proxy) in proxies.iter().enumerate() {
        // HAProxy does not look where one leads that is disabled.
        if !proxy.settings.disabled {
            missing.tell(proxy, &backends, report);
        }
        if matches!(choices[index], Ok(Choice::Page)) {
            continue;
        }
        if !proxy.settings.disabled {
            http_to_tcp(proxy, (proxies, &backends), report);
        }
        if proxy.kind == Kind::Backend {
            continue;
        }
        let target = proxy.target().and_then(|name| backends.get(name).copied());
        if choices[index].is_ok()
            && let Some(left_out) = unreachable(proxy, target, proxies, choices)
        {
            choices[index] = Err(left_out);
        }
        // Without it clients would get nothing while there is no server.
        let sorry = proxy.sorry_backend.as_ref();
        let sorry = sorry.and_then(|name| backends.get(name.as_str()).copied());
        if choices[index].is_ok()
            && let Some(sorry) =
                sorry.filter(|sorry| !matches!(choices[*sorry], Ok(Choice::Carried)))
        {
            choices[index] = Err(LeftOut {
                why: format!("{} is not", proxies[sorry].what()),
                counts: true,
            });
        }
        let carried = choices[index].is_ok();
        let routes = proxy
            .routes
            .iter()
            .filter_map(|(name, _)| backends.get(name.as_str()));
        let targets = target.iter().chain(routes).copied().collect::<Vec<_>>();
        for target in targets.into_iter().filter(|target| *target != index) {
            let (some, kept) = led_to.entry(target).or_default();
            *some = true;
            *kept |= carried;
        }
    }
    tell_of_servers(proxies, choices, &led_to, report);
    for (index, (some, kept)) in led_to {
        let alone = proxies[index].kind == Kind::Backend;
        if some && !kept && alone && choices[index].is_ok() {
            choices[index] = Err(LeftOut {
                why: "nothing that is carried over leads to it".to_owned(),
                counts: false,
            });
        }
    }
}

/// Says what becomes of the servers of a `listen` that leads elsewhere. `led_to`: the backends that others lead to, and
/// whether one of those is carried over.
fn tell_of_servers(
    proxies: &[Proxy],
    choices: &[Result<Choice, LeftOut>],
    led_to: &HashMap<usize, (bool, bool)>,
    report: &mut Report,
) {
    for (index, proxy) in proxies.iter().enumerate() {
        let Some(target) = proxy.target().filter(|target| *target != proxy.name) else {
            continue;
        };
        let has_servers = proxy.kind == Kind::Listen && !proxy.servers.is_empty();
        if !has_servers || choices[index].is_err() {
            continue;
        }
        let is_asked = led_to.get(&index).is_some_and(|(_, kept)| *kept);
        let text = if is_asked {
            let number = proxy
                .id
                .as_ref()
                .map_or("", |_| "; the frontend has its `id`");
            format!("it is a frontend, which leads to `{target}`, and a backend for others{number}")
        } else {
            format!("its own servers are not used: it leads to `{target}`")
        };
        report.raise(proxy.entry, Outcome::Changed, text, false);
    }
}

/// Why a frontend that could be carried over leads nowhere.
fn unreachable(
    proxy: &Proxy,
    target: Option<usize>,
    proxies: &[Proxy],
    choices: &[Result<Choice, LeftOut>],
) -> Option<LeftOut> {
    let nowhere = |why: &str| {
        Some(LeftOut {
            why: why.to_owned(),
            counts: false,
        })
    };
    if proxy.is_front() && proxy.binds.is_empty() {
        return nowhere("it listens nowhere");
    }
    if !proxy.is_front() {
        return None;
    }
    match target {
        Some(target) => {
            let backend = &proxies[target];
            let drop = match &choices[target] {
                Ok(Choice::Page) => {
                    return Some(LeftOut {
                        why: format!("{} is a page of the statistics", backend.what()),
                        counts: true,
                    });
                }
                Ok(_) => return None,
                Err(drop) => drop,
            };
            // Who drops what is HTTP has not said so of TCP.
            let http = proxy.leads_to_http(backend) && !backend.settings.disabled;
            Some(LeftOut {
                why: if http {
                    format!(
                        "it leads to {}, which is for HTTP and left out",
                        backend.what()
                    )
                } else {
                    format!("{} is not", backend.what())
                },
                counts: drop.counts || http || backend.is_page_of_frontends(),
            })
        }
        None if proxy.settings.default_backend.is_some() => {
            nowhere("it leads to a backend that does not exist")
        }
        None if proxy.settings.mode == Mode::Http && proxy.servers.is_empty() => {
            let missing = match proxy.kind {
                Kind::Frontend => "`default_backend`",
                _ => "servers",
            };
            Some(LeftOut {
                why: format!("it has no {missing}: HAProxy answers every request itself"),
                counts: !proxy.settings.disabled,
            })
        }
        None if proxy.kind == Kind::Frontend => {
            nowhere("it has no `default_backend`, and HAProxy closes every connection to it")
        }
        None => None,
    }
}
