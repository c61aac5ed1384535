//! `stats …` in a proxy: the page of the statistics.

use super::context::{Context, keyword};
use super::proxy::Proxy;
use super::report::Outcome;
use super::sections::Statement;

use super::toml_string::{quote, string};
use super::units::Unit;
use crate::config::haproxy::Place;

/// Reads one statement. All of them switch the page on.
pub(super) fn read(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement) {
    let keyword = keyword(statement);
    let page = &mut proxy.settings.page;
    let value = statement.words.get(2).map(string).unwrap_or_default();
    match statement.word(1) {
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
        "auth" => {
            let full = value
                .split_once(':')
                .is_some_and(|(user, password)| !user.is_empty() && !password.is_empty());
            if !full {
                let text = "a user, a colon and a password are needed";
                return context.report.error(statement.at(2), keyword, text);
            }
            page.auth.push(value);
        }
        "scope" => {
            let name = match &*value {
                "." => proxy.name.clone(),
                _ => value,
            };
            page.scope.push(name);
        }
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

/// Whether a realm can go into a header, between quotes.
fn is_plain(realm: &str) -> bool {
    let plain = |c: char| (c.is_ascii_graphic() || c == ' ') && c != '"' && c != '\\';
    realm.chars().all(plain)
}

fn switch(proxy: &mut Proxy, key: &'static str) {
    proxy.settings.page.keys.insert(key, "true".to_owned());
}
