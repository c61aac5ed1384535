//! `unique-id-format`, a `log-format` that goes on where `option tcplog` ends, and which formats HAProxy refuses.

use super::context::{Context, keyword};
use super::log_format;
use super::proxy::Proxy;
use super::report::Outcome;
use super::sections::{Kind, Statement};
use super::toml_string::{quote, string};
use crate::config::format::{Format, Value};

/// HAProxy's format of `option tcplog`.
const TCPLOG: &str = "%ci:%cp [%t] %ft %b/%s %Tw/%Tc/%Tt %B %ts %ac/%fc/%bc/%sc/%rc %sq/%bq";

/// The statements that have a format.
const KEYWORDS: [&str; 4] = [
    "error-log-format",
    "log-format",
    "log-format-sd",
    "unique-id-format",
];

/// Those that HAProxy reads in a backend, too.
const OF_BACKENDS: [&str; 2] = ["error-log-format", "unique-id-format"];

/// Notes the format of a statement that has one: the last of a proxy holds. An option that is a format goes before.
pub(super) fn note(proxy: &mut Proxy, statement: &Statement) {
    let formats = &mut proxy.settings.formats;
    let word = statement.word(0);
    if word == "option" && ["tcplog", "httplog", "httpslog"].contains(&statement.word(1)) {
        formats.remove("log-format");
    }
    let Some(key) = KEYWORDS.into_iter().find(|key| *key == word) else {
        return;
    };
    match statement.words.get(1).filter(|word| word.unset.is_none()) {
        Some(word) => drop(formats.insert(key, (word.text.clone(), statement.at(1)))),
        None => drop(formats.remove(key)),
    }
}

/// The proxy is over: reports each of its formats that HAProxy refuses. It does not look at those of `defaults` that no
/// proxy has, nor at those of proxies that are disabled.
pub(super) fn settle(context: &mut Context<'_, '_>, proxy: &Proxy) {
    if proxy.kind == Kind::Defaults || proxy.settings.disabled {
        return;
    }
    for (key, (text, at)) in &proxy.settings.formats {
        let is_read = proxy.kind != Kind::Backend || OF_BACKENDS.contains(key);
        let problem = log_format::refused(text).filter(|_| is_read);
        if let Some(problem) = problem
            && context.told_formats.insert(*at)
        {
            context.report.error(*at, *key, problem);
        }
    }
}

/// `unique-id-format FORMAT`.
pub(super) fn unique_id(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement) {
    let key = "unique-id-format";
    proxy.settings.keys.remove(key);
    let text = statement.words.get(1).map(string).unwrap_or_default();
    let problem = match Format::parse(&text) {
        Ok(format) if !format.has(Value::UniqueId) => {
            proxy.settings.keys.insert(key, quote(&text));
            context.kept(statement.at, key);
            return;
        }
        Ok(_) => "it has itself in it".to_owned(),
        Err(problem) => problem.message,
    };
    let text = format!("sessions have no unique id: {problem}");
    context
        .report
        .push(statement.at, key, Outcome::Changed, text);
}

/// `log-format FORMAT`. Whether it is that of `option tcplog` with something behind it.
pub(super) fn log(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement) -> bool {
    let key = "log-suffix";
    proxy.settings.keys.remove(key);
    let text = statement.words.get(1).map(string).unwrap_or_default();
    let Some(suffix) = text.strip_prefix(TCPLOG) else {
        return false;
    };
    let suffix = suffix.trim_matches(' ');
    if !suffix.is_empty() {
        if Format::parse(suffix).is_err() {
            return false;
        }
        proxy.settings.keys.insert(key, quote(suffix));
    }
    context.kept(statement.at, keyword(statement));
    true
}
