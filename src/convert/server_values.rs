//! The numbers and times of servers: what HAProxy refuses, and what it takes the nearest value for.

use super::context::Context;
use super::proxy::ServerKeys;
use super::report::Outcome;
use super::sections::Statement;
use super::toml_string::quote;
use super::units::Unit;
use crate::config::{ERROR_LIMIT_MAX, MAXCONN_MAX, RISE_FALL_MAX, WEIGHT_MAX};

/// Numbers that HAProxy refuses outside of these bounds; of the others it takes the nearest that it can have.
const REFUSED: [(&str, i64, i64); 5] = [
    ("rise", 1, i64::MAX),
    ("fall", 1, i64::MAX),
    ("weight", 0, 256),
    ("error-limit", 1, i64::MAX),
    ("id", 1, u32::MAX as i64),
];

/// The words whose values are numbers, and the bounds of these.
pub(super) const NUMBERS: [(&str, i64, i64); 9] = [
    ("rise", 1, RISE_FALL_MAX),
    ("fall", 1, RISE_FALL_MAX),
    ("port", 1, 65_535),
    ("weight", 0, WEIGHT_MAX),
    ("maxconn", 0, MAXCONN_MAX),
    ("minconn", 0, MAXCONN_MAX),
    ("maxqueue", 0, MAXCONN_MAX),
    ("error-limit", 1, ERROR_LIMIT_MAX),
    ("id", 1, i32::MAX as i64),
];

/// The words that HAProxy takes as the last one of a line: the value is 0.
const ZERO_AT_THE_END: [&str; 4] = ["weight", "maxconn", "minconn", "maxqueue"];

/// A number with its bounds; outside of them it is the nearest that is possible, as in HAProxy.
pub(super) fn number(
    context: &mut Context<'_, '_>,
    keys: &mut ServerKeys,
    statement: &Statement,
    index: usize,
    (key, least, most): (&'static str, i64, i64),
) {
    let is_left_out = index >= statement.words.len() && ZERO_AT_THE_END.contains(&key);
    let number = if is_left_out {
        Some(0)
    } else {
        context.number_or_zero(statement, index)
    };
    let Some(number) = number else {
        return;
    };
    let mut refused = REFUSED.iter();
    if let Some((_, first, last)) = refused.find(|(word, ..)| *word == key)
        && !(*first..=*last).contains(&number)
    {
        let text = match *last {
            i64::MAX => format!("{number} is less than {first}"),
            to => format!("{number} is not within {first} and {to}"),
        };
        let keyword = format!("server {key}");
        return context.report.error(statement.at(index), keyword, text);
    }
    if (key, number) == ("port", 0) {
        // That of the server, whatever a `default-server` says.
        keys.checks.remove(key);
        return;
    }
    let meant = number.clamp(least, most);
    if meant != number {
        let text = format!("{meant} instead of {number}: {least} to {most} is possible");
        let keyword = format!("server {key}");
        context
            .report
            .push(statement.at(index), keyword, Outcome::Changed, text);
    }
    let table = match key {
        "rise" | "fall" | "port" => &mut keys.checks,
        _ => &mut keys.keys,
    };
    table.insert(key, meant.to_string());
}

/// `inter`, `fastinter` and `downinter`.
pub(super) fn interval(
    context: &mut Context<'_, '_>,
    keys: &mut ServerKeys,
    statement: &Statement,
    (name, index): (&str, usize),
) {
    let Some(span) = context.span(statement, index, Unit::Milliseconds) else {
        return;
    };
    if span.is_zero() {
        let keyword = format!("server {name}");
        let text = "it is longer than 0";
        return context.report.error(statement.at(index), keyword, text);
    }
    let (key, milliseconds) = match name {
        "inter" => ("interval", Some(span.milliseconds)),
        "fastinter" => ("fast-interval", keys.interval),
        _ => ("down-interval", keys.interval),
    };
    keys.interval = milliseconds;
    keys.checks.insert(key, quote(&span.text));
}
