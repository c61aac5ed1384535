//! HAProxy's JSON: an array of rows, each an array of objects, one for each value that the row has.
//! Admin thread.

use super::columns::{COLUMNS, Value};
use super::rows::{Kind, Row};
use serde_json::json;
use std::fmt::Write;

/// Largest number that every reader of JSON keeps exact.
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// The array of one row.
pub(super) fn array(text: &mut String, row: &Row<'_>) {
    let kind = match row.kind() {
        Kind::Frontend => "Frontend",
        Kind::Backend => "Backend",
        Kind::Server => "Server",
    };
    let (proxy, service) = row.ids();
    text.push('[');
    let mut comma = "";
    for (position, column) in COLUMNS.iter().enumerate() {
        let value = column.value(row);
        if value == Value::Absent {
            continue;
        }
        let (letters, of) = column.typed(row.kind());
        let (origin, nature, scope) = tags(letters);
        let name = column.name;
        // Writing to a string cannot fail. Only the value may need escapes.
        let _ = write!(
            text,
            "{comma}{{\"objType\":\"{kind}\",\"proxyId\":{proxy},\"id\":{service},\
             \"field\":{{\"pos\":{position},\"name\":\"{name}\"}},\"processNum\":1,\
             \"tags\":{{\"origin\":\"{origin}\",\"nature\":\"{nature}\",\"scope\":\"{scope}\"}},\
             \"value\":{{\"type\":\"{of}\",\"value\":"
        );
        self::value(text, &value);
        text.push_str("}}");
        comma = ",";
    }
    text.push(']');
}

fn value(text: &mut String, value: &Value<'_>) {
    let _ = match value {
        Value::Absent => Ok(()),
        Value::Number(number) => write!(text, "{}", number.min(&NUMBER_MAX)),
        Value::Signed(number) => write!(text, "{number}"),
        Value::Text(value) => write!(text, "{}", json!(value)),
    };
}

/// The words for the letters of typed output.
fn tags(letters: &str) -> (&'static str, &'static str, &'static str) {
    let mut letters = letters.chars();
    let origin = match letters.next() {
        Some('M') => "Metric",
        Some('S') => "Status",
        Some('K') => "Key",
        Some('C') => "Config",
        Some('P') => "Product",
        _ => "Unknown",
    };
    let nature = match letters.next() {
        Some('G') => "Gauge",
        Some('L') => "Limit",
        Some('m') => "Min",
        Some('M') => "Max",
        Some('R') => "Rate",
        Some('C') => "Counter",
        Some('D') => "Duration",
        Some('A') => "Age",
        Some('T') => "Time",
        Some('N') => "Name",
        Some('O') => "Output",
        Some('a') => "Avg",
        _ => "Unknown",
    };
    let scope = match letters.next() {
        Some('C') => "Cluster",
        Some('P') => "Process",
        Some('S') => "Service",
        Some('s') => "System",
        _ => "Unknown",
    };
    (origin, nature, scope)
}

/// What [`array`] writes, as a JSON schema (`;json-schema`).
pub fn schema() -> String {
    let word = |words: &[&str]| json!({ "type": "string", "enum": words });
    let number = |kind: &str, least: i64, most: i64| {
        json!({
            "properties": {
                "type": { "type": "string", "enum": [kind] },
                "value": { "type": "integer", "minimum": least, "maximum": most },
            },
            "required": ["type", "value"],
        })
    };
    let exact = i64::try_from(NUMBER_MAX).unwrap_or(i64::MAX);
    let text = json!({
        "properties": {
            "type": { "type": "string", "enum": ["str"] },
            "value": { "type": "string" },
        },
        "required": ["type", "value"],
    });
    let tags = json!({
        "type": "object",
        "properties": {
            "origin": word(&["Metric", "Status", "Key", "Config", "Product", "Unknown"]),
            "nature": word(&["Gauge", "Limit", "Min", "Max", "Rate", "Counter", "Duration", "Age",
                "Time", "Name", "Output", "Avg", "Unknown"]),
            "scope": word(&["Cluster", "Process", "Service", "System", "Unknown"]),
        },
        "required": ["origin", "nature", "scope"],
    });
    let item = json!({
        "title": "InfoItem",
        "type": "object",
        "properties": {
            "objType": word(&["Frontend", "Backend", "Listener", "Server", "Unknown"]),
            "proxyId": { "type": "integer", "minimum": 0 },
            "id": { "type": "integer", "minimum": 0 },
            "field": {
                "type": "object",
                "properties": {
                    "pos": { "type": "integer", "minimum": 0 },
                    "name": { "type": "string" },
                },
                "required": ["pos", "name"],
            },
            "processNum": { "type": "integer", "minimum": 1 },
            "tags": tags,
            "value": {
                "type": "object",
                "oneOf": [
                    number("s32", i32::MIN.into(), i32::MAX.into()),
                    number("s64", -exact, exact),
                    number("u32", 0, u32::MAX.into()),
                    number("u64", 0, exact),
                    text,
                ],
            },
        },
        "required": ["objType", "proxyId", "id", "field", "processNum", "tags", "value"],
    });
    let schema = json!({
        "$schema": "http://json-schema.org/draft-04/schema#",
        "title": "Stat",
        "type": "array",
        "items": { "type": "array", "items": item },
    });
    format!("{schema}\n")
}
