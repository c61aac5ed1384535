//! `unique-id-format`, and a `log-format` that goes on where `option tcplog` ends.

use super::context::{Context, keyword};
use super::proxy::Proxy;
use super::report::Outcome;
use super::sections::Statement;
use super::toml_string::{quote, string};
use crate::config::format::{Format, Value};

/// HAProxy's format of `option tcplog`.
const TCPLOG: &str = "%ci:%cp [%t] %ft %b/%s %Tw/%Tc/%Tt %B %ts %ac/%fc/%bc/%sc/%rc %sq/%bq";

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
