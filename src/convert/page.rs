//! `stats …` in a proxy: the page of the statistics.

use super::acl;
use super::choice::Choice;
use super::context::{Context, keyword};
use super::proxy::{Exporter, Page, PageNotShown, Proxy};
use super::report::{Outcome, Report};
use super::rules;
use super::sections::{Kind, Statement};
use super::toml_string::{quote, string};
use super::units;
use crate::config::haproxy::Place;
use crate::config::model::PageAdmin;
use crate::config::{units::DURATION_MAX, uri_problem};
use std::collections::HashSet;

/// Reads one statement. All of them switch the page on, those in error too.
pub(super) fn read(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement) {
    detach(context, proxy, statement);
    let errors = context.report.errors;
    read_valid(context, proxy, statement);
    proxy.settings.page.enabled |= context.report.errors > errors;
}

/// The first `stats` of a proxy: nothing of what its `defaults` say of the page holds any more, as in HAProxy.
fn detach(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement) {
    let page = &mut proxy.settings.page;
    if proxy.kind == Kind::Defaults || std::mem::replace(&mut page.own, true) {
        return;
    }
    if !page.auth.is_empty() {
        let text = "as in HAProxy, no `stats` of its `defaults` holds any more, their `stats auth` neither";
        let keyword = keyword(statement);
        context
            .report
            .push(statement.at, keyword, Outcome::Information, text);
    }
    **page = Page {
        own: true,
        first_error: page.first_error.take(),
        ..Page::default()
    };
}

fn read_valid(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement) {
    let keyword = keyword(statement);
    if statement.word(1) == "http-request" && !is_rule(context, proxy, statement) {
        return;
    }
    if statement.word(1) == "auth"
        && let Some(problem) = unset_user(statement)
    {
        return context.report.error(statement.at(2), keyword, problem);
    }
    let page = &mut proxy.settings.page;
    let value = statement.words.get(2).map(string).unwrap_or_default();
    let (mut outcome, mut text) = (Outcome::Kept, "");
    match statement.word(1) {
        "uri" | "realm" | "scope" | "auth" if value.is_empty() => {
            let text = "a value is missing";
            return context.report.error(statement.at, keyword, text);
        }
        "" => {
            let text = "what of the page is missing";
            return context.report.error(statement.at, keyword, text);
        }
        "enable" => {}
        "uri" => {
            page.keys.insert("uri", quote(&value));
            page.not_shown = not_shown(statement.word(2));
        }
        "realm" if is_plain(&value) => {
            page.keys.insert("realm", quote(&value));
        }
        "realm" => {
            text = "the realm is the usual one: this one is not of ASCII letters";
            outcome = Outcome::Changed;
        }
        "refresh" => match refresh(context, page, statement) {
            Some(told) => (outcome, text) = told,
            None => return,
        },
        "auth" if page.users.insert(user(statement).to_owned()) => {
            (outcome, text) = auth(page, statement, value);
        }
        "auth" => {
            text = "the first password of a user holds, as in HAProxy";
            outcome = Outcome::NotNeeded;
        }
        "scope" => {
            let name = match &*value {
                "." => proxy.name.clone(),
                _ => value,
            };
            page.scope.push(name);
        }
        "admin" => return admin(context, proxy, statement, &keyword),
        "hide-version" => switch(page, "hide-version"),
        "show-node" => switch(page, "show-node"),
        "show-legends" => switch(page, "show-legends"),
        "show-desc" if statement.words.len() == 2 => switch(page, "show-desc"),
        "show-desc" => {
            let texts: Vec<String> = statement.words[2..].iter().map(string).collect();
            page.keys.insert("description", quote(&texts.join(" ")));
        }
        _ => return other(context, proxy, statement, &keyword),
    }
    let entry = context.report.push(statement.at, keyword, outcome, text);
    proxy.settings.page.entries.push(entry);
    proxy.settings.page.enabled = true;
}

/// Whether HAProxy takes the rule behind `stats`.
fn is_rule(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement) -> bool {
    let rule = Statement {
        words: statement.words[1..].to_vec(),
        ..statement.clone()
    };
    rules::rule(context, proxy, &rule, "stats http-request")
}

/// The variable that `stats auth` needs and that has no value.
fn unset_user(statement: &Statement) -> Option<String> {
    let name = statement.words.get(2)?.unset.as_ref()?;
    Some(format!("the variable `{name}` is not set"))
}

/// `stats auth` of a user that is new, as the content of a TOML string. What became of it.
fn auth(page: &mut Page, statement: &Statement, value: String) -> (Outcome, &'static str) {
    if is_user_and_password(&value) {
        page.auth.push(value);
        return (Outcome::Kept, "");
    }
    let line = statement.at.line;
    page.open_user = Some(PageNotShown {
        why: format!("`stats auth` in line {line} has no name or no password"),
        haproxy_shows: true,
    });
    let text = "a user of `[stats]` has a name and a password";
    (Outcome::Unsupported, text)
}

/// `stats refresh`. What became of it; `None`: it is in error.
fn refresh(
    context: &mut Context<'_, '_>,
    page: &mut Page,
    statement: &Statement,
) -> Option<(Outcome, &'static str)> {
    let read = units::seconds(statement.word(2));
    let written = context.checked(statement, 2, read)?;
    let seconds = written.min(DURATION_MAX.as_secs());
    page.keys.remove("refresh");
    if seconds > 0 {
        page.keys.insert("refresh", format!("\"{seconds}s\""));
    }
    Some(if seconds == written {
        (Outcome::Kept, "")
    } else {
        (Outcome::Changed, "24 days are the longest time")
    })
}

/// Why a page with this `stats uri` is not carried over.
fn not_shown(uri: &str) -> Option<PageNotShown> {
    let whole = ["http://", "https://"];
    let can_begin = |begin: &&str| begin.starts_with(uri) || uri.starts_with(begin);
    let asked = uri.starts_with('/') || whole.iter().any(can_begin);
    if !asked || !uri.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some(PageNotShown {
            why: format!("no client asks for `{uri}`, so HAProxy does not show it either"),
            haproxy_shows: false,
        });
    }
    uri_problem(uri).map(|problem| PageNotShown {
        why: format!("`[stats]` cannot have its uri: {}", problem.message),
        haproxy_shows: true,
    })
}

/// `stats admin if|unless <condition>`. Several of them allow it when one of them does.
fn admin(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement, keyword: &str) {
    let written = &statement.words[2..];
    if let Some(name) = written.iter().find_map(|word| word.unset.as_ref()) {
        let text = format!("the variable `{name}` is not set");
        return context.report.error(statement.at(2), keyword, text);
    }
    let words: Vec<&str> = written.iter().map(|word| word.text.as_str()).collect();
    let (unless, terms) = match words[..] {
        ["if", ref terms @ ..] => (false, terms),
        ["unless", ref terms @ ..] => (true, terms),
        _ => {
            let text = "`if` or `unless` and a condition are needed";
            return context.report.error(statement.at(2), keyword, text);
        }
    };
    let suites = match acl::suites(terms, &proxy.acls) {
        Ok(suites) => suites,
        Err((word, problem)) => {
            let at = statement.at(3 + word);
            return context.report.error(at, keyword, problem);
        }
    };
    let access = holds_for(&suites, &proxy.acls);
    let access = if unless { opposite(access) } else { access };
    let page = &mut proxy.settings.page;
    let entry = match access {
        Some(PageAdmin::Nobody) => context.report.push(
            statement.at,
            keyword,
            Outcome::NotNeeded,
            "it allows nothing",
        ),
        Some(access) => {
            page.admin = page.admin.max(access);
            let entry = context.kept(statement.at, keyword);
            page.admin_entries.push(entry);
            entry
        }
        None => {
            let text = format!(
                "rlb does not evaluate `{}`, so this allows nothing: servers are changed over the runtime \
                 socket, or write `admin = \"localhost\"` or `admin = true` in `[stats]`",
                words.join(" ")
            );
            context
                .report
                .push(statement.at, keyword, Outcome::Unsupported, text)
        }
    };
    page.entries.push(entry);
    page.enabled = true;
}

/// Notes that the proxy has an `acl` called `name`. One that HAProxy has itself, and that a statement before it has used,
/// gets one more alternative there: what was made of it does not hold any more.
pub(super) fn note_acl(context: &mut Context<'_, '_>, proxy: &mut Proxy, name: &str) {
    proxy.acls.insert(name.to_owned());
    if predefined(name).is_none() {
        return;
    }
    let page = &mut proxy.settings.page;
    page.admin = PageAdmin::Nobody;
    for entry in page.admin_entries.drain(..) {
        let text = format!("`acl {name}` changes it, so this allows nothing");
        let unsupported = Outcome::Unsupported;
        context.report.raise(entry, unsupported, text, false);
    }
}

/// For whom an ACL that HAProxy has itself holds; `None`: rlb does not evaluate it.
fn predefined(name: &str) -> Option<PageAdmin> {
    match name {
        "TRUE" => Some(PageAdmin::Everyone),
        "FALSE" => Some(PageAdmin::Nobody),
        "LOCALHOST" => Some(PageAdmin::Localhost),
        _ => None,
    }
}

/// For whom a condition holds in a proxy with its `own` ACLs. `None`: rlb cannot tell, and nobody gets more than in
/// HAProxy.
fn holds_for(suites: &[Vec<acl::Term<'_>>], own: &HashSet<String>) -> Option<PageAdmin> {
    let mut any = Some(PageAdmin::Nobody);
    for suite in suites {
        let mut every = Some(PageAdmin::Everyone);
        for term in suite {
            let name = term.name.filter(|name| !own.contains(*name));
            let holds = name.and_then(predefined);
            let holds = if term.negated { opposite(holds) } else { holds };
            every = match (every, holds) {
                (Some(PageAdmin::Nobody), _) | (_, Some(PageAdmin::Nobody)) => {
                    Some(PageAdmin::Nobody)
                }
                (Some(every), Some(holds)) => Some(every.min(holds)),
                _ => None,
            };
        }
        any = match (any, every) {
            (Some(PageAdmin::Everyone), _) | (_, Some(PageAdmin::Everyone)) => {
                Some(PageAdmin::Everyone)
            }
            (Some(any), Some(every)) => Some(any.max(every)),
            _ => None,
        };
    }
    any
}

/// For whom a condition does not hold; `None`: rlb has no word for them.
fn opposite(access: Option<PageAdmin>) -> Option<PageAdmin> {
    match access? {
        PageAdmin::Nobody => Some(PageAdmin::Everyone),
        PageAdmin::Everyone => Some(PageAdmin::Nobody),
        PageAdmin::Localhost => None,
    }
}

/// The proxies that are pages of the statistics. The first of them is `[stats]` itself.
pub(super) fn pages(proxies: &[Proxy], choices: &[Choice], report: &mut Report) -> Vec<Proxy> {
    let all = proxies.iter().zip(choices);
    let mut pages: Vec<Proxy> = all
        .filter(|(_, choice)| **choice == Choice::Page)
        .map(|(proxy, _)| proxy.clone())
        .collect();
    for page in &mut pages {
        page.binds.retain(|bind| {
            if bind.is_tcp() {
                return true;
            }
            let text = "`[stats]` listens on TCP addresses alone";
            let entry = report.push(bind.at, "bind", Outcome::Unsupported, text);
            report.entries[entry].traffic = true;
            false
        });
    }
    pages.retain(|page| !page.binds.is_empty());
    let names: HashSet<String> = pages.iter().map(|page| page.name.clone()).collect();
    let carried = proxies.iter().zip(choices);
    let carried = carried.filter(|(_, choice)| **choice == Choice::Carried);
    let carried: HashSet<&str> = carried.map(|(proxy, _)| proxy.name.as_str()).collect();
    let row = pages.first_mut().map(|page| {
        rename(page, &carried, report);
        page.name.clone()
    });
    let row = row.unwrap_or_default();
    let limits = report.by_section(|entry| *entry.keyword == *"maxconn");
    for (index, page) in pages.iter_mut().enumerate() {
        if index > 0 {
            further(page, &row, &limits, report);
        }
        let settings = &mut page.settings;
        // The pages have one row.
        for name in std::mem::take(&mut settings.page.scope) {
            let own = names.contains(&name).then(|| row.clone());
            let other = own.is_none() || carried.contains(name.as_str());
            settings.page.scope.extend(own);
            settings.page.scope.extend(other.then_some(name));
        }
        let keys = &mut settings.page.keys;
        if settings.page.admin > PageAdmin::Nobody {
            keys.insert("admin", settings.page.admin.text().to_owned());
        }
        // HAProxy does not write requests that went well with this option.
        let normal = settings.keys.get("dontlog-normal");
        if normal.is_none_or(|value| value != "true") && settings.logs() {
            settings.page.keys.insert("log", "true".to_owned());
        }
    }
    pages
}

/// Gives the row of the statistics another name when a proxy has its name, which a backend may in HAProxy.
fn rename(page: &mut Proxy, carried: &HashSet<&str>, report: &mut Report) {
    if !carried.contains(page.name.as_str()) {
        return;
    }
    let numbers = (2..).map(|number| format!("{}-{number}", page.name));
    let mut names = std::iter::once("stats".to_owned()).chain(numbers);
    // Each number is another name, and proxies are not without end.
    let free = names.find(|name| !carried.contains(name.as_str()));
    let free = free.unwrap_or_default();
    let text = format!(
        "it is `[stats]`, and its row is `{free}`: `{}` is taken",
        page.name
    );
    let entry = &mut report.entries[page.entry];
    entry.outcome = entry.outcome.max(Outcome::Changed);
    entry.text = text.into();
    page.name = free;
}

/// Says what a page shares with the first one.
fn further(page: &Proxy, first: &str, limits: &[Vec<usize>], report: &mut Report) {
    let text =
        format!("it is a `[[stats.page]]`: the row of `{first}` in the statistics counts it");
    let entry = &mut report.entries[page.entry];
    entry.outcome = entry.outcome.max(Outcome::Changed);
    entry.text = text.into();
    for entry in limits.get(page.section).into_iter().flatten() {
        let text = format!("the limit is that of `{first}`, for all pages together");
        report.raise(*entry, Outcome::Changed, text, false);
    }
}

/// A statement without a key.
fn other(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement, keyword: &str) {
    let Some(row) = context.index.find(Place::Proxy, keyword) else {
        return context.unknown(statement.at, Place::Proxy, keyword);
    };
    let mark = context.mark(statement.at, keyword, row);
    proxy.settings.page.enabled = true;
    proxy.settings.page.entries.push(mark.entry);
    if statement.word(1) == "http-request" {
        proxy.settings.marks.push(mark);
    }
}

/// Whether a statement has the metrics for Prometheus answer.
pub(super) fn is_exporter(statement: &Statement) -> bool {
    let words = ["http-request", "use-service", "prometheus-exporter"];
    (0..)
        .zip(words)
        .all(|(at, word)| statement.word(at) == word)
}

/// Reads such a statement. [`super::choice`] says what becomes of it.
pub(super) fn exporter(
    context: &mut Context<'_, '_>,
    proxy: &mut Proxy,
    statement: &Statement,
    keyword: &str,
) {
    let condition = statement.words[3..].iter();
    let condition: Vec<&str> = condition.map(|word| word.text.as_str()).collect();
    let text = "it has no effect on TCP";
    let entry = context
        .report
        .push(statement.at, keyword, Outcome::NotNeeded, text);
    proxy.settings.exporters.push(Exporter {
        entry,
        is_for_all: matches!(condition[..], [] | ["if", "{", "path", "/metrics", "}"]),
    });
}

/// The user of a `stats auth`.
fn user(statement: &Statement) -> &str {
    let text = statement.word(2);
    text.split_once(':').map_or(text, |(user, _)| user)
}

fn is_user_and_password(text: &str) -> bool {
    let parts = text.split_once(':');
    parts.is_some_and(|(user, password)| !user.is_empty() && !password.is_empty())
}

/// Whether a realm can go into a header, between quotes.
fn is_plain(realm: &str) -> bool {
    let plain = |c: char| (c.is_ascii_graphic() || c == ' ') && c != '"' && c != '\\';
    realm.chars().all(plain)
}

fn switch(page: &mut Page, key: &'static str) {
    page.keys.insert(key, "true".to_owned());
}
