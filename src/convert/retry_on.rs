//! `retry-on`: all but one of its words are about HTTP. Where that one, `conn-failure`, is not among them, HAProxy retries
//! no failed connect, in TCP mode too: `retries` is 0 then, whatever the file says of it.

use super::context::Context;
use super::proxy::{Proxy, Settings};
use super::sections::{Kind, Statement};

/// Those of which failed connects are none.
const FOR_HTTP: [&str; 17] = [
    "empty-response",
    "response-timeout",
    "401",
    "403",
    "404",
    "408",
    "421",
    "425",
    "429",
    "500",
    "501",
    "502",
    "503",
    "504",
    "0rtt-rejected",
    "junk-response",
    "none",
];

/// Those of which they are one.
const RETRIED: [&str; 2] = ["conn-failure", "all-retryable-errors"];

/// Reads the statement into `proxy`. Whether failed connects are not retried; otherwise rlb needs nothing.
pub(super) fn read(
    context: &mut Context<'_, '_>,
    proxy: &mut Proxy,
    statement: &Statement,
) -> bool {
    let words: Vec<&str> = statement.words.iter().map(|it| it.text.as_str()).collect();
    let words = &words[1..];
    let unknown = words
        .iter()
        .find(|word| !FOR_HTTP.contains(word) && !RETRIED.contains(word));
    let problem = if proxy.kind == Kind::Frontend {
        Some("it is for backends".to_owned())
    } else if words.is_empty() {
        Some("a value is missing".to_owned())
    } else if words.len() > 1 && words.contains(&"none") {
        Some("`none` stands alone".to_owned())
    } else {
        unknown.map(|word| format!("HAProxy has no `{word}` behind `retry-on`"))
    };
    if let Some(problem) = problem {
        context.report.error(statement.at, "retry-on", problem);
        return true;
    }
    let retried = words.iter().any(|word| RETRIED.contains(word));
    proxy.settings.retries_connects = Some(retried);
    if !retried {
        context.kept(statement.at, "retry-on");
    }
    !retried
}

/// Has `retries` follow. `common`: what the `defaults` say, when it is written for all proxies.
pub(super) fn settle(settings: &mut Settings, common: Option<&Settings>) {
    let none = |settings: &Settings| settings.retries_connects == Some(false);
    if none(settings) {
        settings.keys.insert("retries", "0".to_owned());
    } else if common.is_some_and(none) {
        let own = settings.keys.entry("retries");
        own.or_insert_with(|| crate::config::RETRIES.to_string());
    }
}
