//! `stats …` in a proxy: the page of the statistics.

use super::acl;
use super::choice::Choice;
use super::context::{Context, keyword};
use super::proxy::{Bind, Page, Proxy};
use super::report::{Outcome, Report};
use super::sections::{Kind, Statement};
use super::toml_string::{quote, string};
use super::units::Unit;
use crate::config::haproxy::Place;
use crate::config::model::PageAdmin;
use std::collections::{HashMap, HashSet};

/// Reads one statement. All of them switch the page on. One in error keeps the page from being carried over: without
/// it more could be seen or changed there, and by more people.
pub(super) fn read(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement) {
    detach(context, proxy, statement);
    let errors = context.report.errors;
    read_valid(context, proxy, statement);
    if context.report.errors > errors {
        let page = &mut proxy.settings.page;
        page.broken
            .get_or_insert((keyword(statement), statement.at));
        page.enabled = true;
    }
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
    proxy.settings.page = Page {
        own: true,
        redefined: std::mem::take(&mut page.redefined),
        broken: page.broken.take(),
        ..Page::default()
    };
}

fn read_valid(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement) {
    let keyword = keyword(statement);
    let page = &mut proxy.settings.page;
    let value = statement.words.get(2).map(string).unwrap_or_default();
    match statement.word(1) {
        "uri" | "realm" | "scope" if value.is_empty() => {
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
        }
        "realm" if is_plain(&value) => {
            page.keys.insert("realm", quote(&value));
        }
        "realm" => {
            let text = "the realm is the usual one: this one is not of ASCII letters";
            context
                .report
                .push(statement.at, keyword, Outcome::Changed, text);
            page.enabled = true;
            return;
        }
        "refresh" => {
            let Some(span) = context.span(statement, 2, Unit::Seconds) else {
                return;
            };
            let seconds = span.milliseconds.div_ceil(1000);
            if seconds > 0 {
                page.keys.insert("refresh", format!("\"{seconds}s\""));
            }
        }
        "auth" if !is_user_and_password(&value) => {
            let text = "a user, a colon and a password are needed";
            return context.report.error(statement.at(2), keyword, text);
        }
        "auth" => page.auth.push(value),
        "scope" => {
            let name = match &*value {
                "." => proxy.name.clone(),
                _ => value,
            };
            page.scope.push(name);
        }
        "admin" => return admin(context, proxy, statement, &keyword),
        "hide-version" => switch(proxy, "hide-version"),
        "show-node" => switch(proxy, "show-node"),
        "show-legends" => switch(proxy, "show-legends"),
        "show-desc" => {
            let texts: Vec<String> = statement.words[2..].iter().map(string).collect();
            if texts.is_empty() {
                switch(proxy, "show-desc");
            } else {
                page.keys.insert("description", quote(&texts.join(" ")));
            }
        }
        _ => return other(context, proxy, statement, &keyword),
    }
    let entry = context.kept(statement.at, keyword);
    proxy.settings.page.entries.push(entry);
    proxy.settings.page.enabled = true;
}

/// `stats admin if|unless <condition>`. Several of them allow it when one of them does.
fn admin(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement, keyword: &str) {
    let words: Vec<&str> = statement.words[2..]
        .iter()
        .map(|word| word.text.as_str())
        .collect();
    if let Some((word, problem)) = acl::unknown(words.get(1..).unwrap_or_default(), &proxy.acls) {
        return context
            .report
            .error(statement.at(3 + word), keyword, problem);
    }
    let page = &mut proxy.settings.page;
    let entry = match admin_access(&words, &page.redefined) {
        Err(problem) => return context.report.error(statement.at(2), keyword, problem),
        Ok(Some(PageAdmin::Nobody)) => context.report.push(
            statement.at,
            keyword,
            Outcome::NotNeeded,
            "it allows nothing",
        ),
        Ok(Some(access)) => {
            page.admin = page.admin.max(access);
            let entry = context.kept(statement.at, keyword);
            page.admin_entries.push(entry);
            entry
        }
        Ok(None) => {
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

/// The predefined conditions that rlb evaluates, and for whom each holds.
const PREDEFINED: [(&str, PageAdmin); 3] = [
    ("TRUE", PageAdmin::Everyone),
    ("FALSE", PageAdmin::Nobody),
    ("LOCALHOST", PageAdmin::Localhost),
];

/// Notes that the proxy has an `acl` called `name`.
pub(super) fn note_condition(proxy: &mut Proxy, name: &str) {
    proxy.acls.insert(name.to_owned());
    let redefined = &mut proxy.settings.page.redefined;
    let predefined = PREDEFINED.iter().find(|(known, _)| *known == name);
    if let Some((known, _)) = predefined.filter(|(known, _)| !redefined.contains(known)) {
        redefined.push(known);
    }
}

/// For whom the condition of `stats admin` holds, unless it uses one of the `redefined` conditions.
/// `None`: rlb cannot tell, and nobody gets more than in HAProxy.
///
/// # Errors
/// What HAProxy misses.
fn admin_access(words: &[&str], redefined: &[&str]) -> Result<Option<PageAdmin>, String> {
    let (negated, terms) = match words {
        ["if", terms @ ..] => (false, terms),
        ["unless", terms @ ..] => (true, terms),
        _ => return Err("`if` or `unless` and a condition are needed".to_owned()),
    };
    if terms.is_empty() {
        return Err("a condition is needed".to_owned());
    }
    let mut any = Some(PageAdmin::Nobody);
    for all in acl::alternatives(terms)? {
        let mut every = Some(PageAdmin::Everyone);
        for term in all {
            let known = PREDEFINED.iter().find(|(name, _)| Some(*name) == term.name);
            let known = known.filter(|(name, _)| !redefined.contains(name));
            let holds = known.map(|(_, access)| *access);
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
    Ok(if negated { opposite(any) } else { any })
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
    // A connection to a port that the kernel has chosen does not show which of two pages it is for.
    let mut any_port: HashMap<(String, Option<String>), usize> = HashMap::new();
    for (index, page) in pages.iter_mut().enumerate() {
        page.binds.retain(|bind| {
            let text = if !bind.is_tcp() {
                "`[stats]` listens on TCP addresses alone"
            } else if is_taken(&mut any_port, bind, index) {
                "two pages of the statistics have this address and no port: write one"
            } else {
                return true;
            };
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

/// Whether another page than `page` has this address with a port that the kernel chooses.
fn is_taken(
    any_port: &mut HashMap<(String, Option<String>), usize>,
    bind: &Bind,
    page: usize,
) -> bool {
    if !bind.address.ends_with(":0") {
        return false;
    }
    let namespace = bind.keys.get("namespace").cloned();
    let place = (bind.address.clone(), namespace);
    *any_port.entry(place).or_insert(page) != page
}

/// A statement without a key.
fn other(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement, keyword: &str) {
    let Some(row) = context.index.find(Place::Proxy, keyword) else {
        return context.unknown(statement.at, Place::Proxy, keyword);
    };
    let mark = context.mark(statement.at, keyword, row);
    proxy.settings.page.enabled |= statement.word(1) != "timeout";
    if statement.word(1) == "http-request" {
        proxy.settings.marks.push(mark);
    }
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

fn switch(proxy: &mut Proxy, key: &'static str) {
    proxy.settings.page.keys.insert(key, "true".to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_never_allows_more_than_in_haproxy() {
        use PageAdmin::{Everyone, Localhost, Nobody};
        for (text, expected) in [
            ("if TRUE", Some(Everyone)),
            ("unless FALSE", Some(Everyone)),
            ("if FALSE", Some(Nobody)),
            ("unless TRUE", Some(Nobody)),
            ("if LOCALHOST", Some(Localhost)),
            ("unless LOCALHOST", None),
            ("if !LOCALHOST", None),
            ("if ! LOCALHOST", None),
            ("if !FALSE", Some(Everyone)),
            ("if ! FALSE", Some(Everyone)),
            ("if !!FALSE", Some(Nobody)),
            ("if TRUE LOCALHOST", Some(Localhost)),
            ("if LOCALHOST FALSE", Some(Nobody)),
            ("if LOCALHOST || TRUE", Some(Everyone)),
            ("if LOCALHOST or FALSE", Some(Localhost)),
            ("if MINE", None),
            ("unless MINE", None),
            ("if MINE || TRUE", Some(Everyone)),
            ("if MINE || LOCALHOST", None),
            ("if MINE FALSE", Some(Nobody)),
            ("if { src 127.0.0.1 }", None),
            ("if LOCALHOST { src 127.0.0.1 }", None),
            ("if { path or TRUE or x }", None),
            ("if true", None),
        ] {
            let words: Vec<&str> = text.split(' ').collect();
            assert_eq!(admin_access(&words, &[]), Ok(expected), "{text}");
        }
        let own = admin_access(&["if", "TRUE"], &["TRUE"]);
        assert_eq!(own, Ok(None));
        for bad in [&[][..], &["if"], &["unless"], &["TRUE"]] {
            assert!(admin_access(bad, &[]).is_err(), "{bad:?}");
        }
    }
}
