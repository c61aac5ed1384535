//! What HAProxy refuses in a `defaults`. Pure.

use super::sections::Statement;

/// What HAProxy takes in no `defaults`: a word, or two.
const NEVER_IN_DEFAULTS: [&str; 20] = [
    "bind",
    "capture",
    "declare",
    "description",
    "dispatch",
    "filter",
    "force-persist",
    "guid",
    "id",
    "ignore-persist",
    "monitor fail",
    "redirect",
    "server",
    "server-template",
    "stats admin",
    "stats http-request",
    "stick",
    "stick-table",
    "use-server",
    "use_backend",
];

/// What it takes only in one that has a name.
const IN_NAMED_DEFAULTS: [&str; 6] = [
    "acl",
    "http-after-response",
    "http-request",
    "http-response",
    "tcp-request",
    "tcp-response",
];

/// Why a statement cannot stand in `defaults`; `anonymous`: they have no name.
pub(super) fn refused(statement: &Statement, anonymous: bool) -> Option<&'static str> {
    let first = statement.word(0);
    let is = |phrase: &&str| {
        let (word, second) = phrase.split_once(' ').unwrap_or((phrase, ""));
        word == first && (second.is_empty() || second == statement.word(1))
    };
    if NEVER_IN_DEFAULTS.iter().any(is) {
        return Some("it cannot stand in `defaults`");
    }
    let anonymous = anonymous && IN_NAMED_DEFAULTS.contains(&first);
    anonymous.then_some("it cannot stand in `defaults` without a name")
}
