//! HAProxy's JSON: an array of rows, each an array of objects, one per value of the row. Admin thread.

use super::columns::{COLUMNS, Value};
use super::row::{Kind, Row};
use serde_json::json;
use std::fmt::Write;

/// Largest number that every JSON reader reads exactly.
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
        let name = column.name;
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{comma}{{\"objType\":\"{kind}\",\"proxyId\":{proxy},\"id\":{service},\
             \"field\":{{\"pos\":{position},\"name\":\"{name}\"}},\"processNum\":1,"
        );
        tagged(text, (letters, of), &value);
        text.push('}');
        comma = ",";
    }
    text.push(']');
}

/// The tags and the value, as members of an object. Only the value may need escapes.
pub(super) fn tagged(text: &mut String, (letters, of): (&str, &str), value: &Value<'_>) {
    let (origin, nature, scope) = tags(letters);
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "\"tags\":{{\"origin\":\"{origin}\",\"nature\":\"{nature}\",\"scope\":\"{scope}\"}},\
         \"value\":{{\"type\":\"{of}\",\"value\":"
    );
    self::value(text, value);
    text.push('}');
}

fn value(text: &mut String, value: &Value<'_>) {
    let _ = match value {
        Value::Absent => Ok(()),
        Value::Number(number) => write!(text, "{}", number.min(&NUMBER_MAX)),
        Value::Signed(number) => write!(text, "{number}"),
        Value::Fraction(number) => write!(text, "{number:?}"),
        Value::Text(value) => write!(text, "{}", json!(value)),
    };
}

/// The meanings of the letters of typed output.
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

/// The JSON schema of the items and the rows (`;json-schema`, `show schema json`).
pub fn schema() -> String {
    let info = json!({
        "title": "InfoItem",
        "type": "object",
        "properties": {
            "field": {
                "type": "object",
                "properties": {
                    "pos": { "type": "integer", "minimum": 0 },
                    "name": { "type": "string" },
                },
                "required": ["pos", "name"],
            },
            "processNum": { "type": "integer", "minimum": 1 },
            "tags": tags_schema(),
            "value": value_schema(),
        },
        "required": ["field", "processNum", "tags", "value"],
    });
    let mut row = info.clone();
    let kinds = ["Frontend", "Backend", "Listener", "Server", "Unknown"];
    row["properties"]["objType"] = word(&kinds);
    row["properties"]["proxyId"] = json!({ "type": "integer", "minimum": 0 });
    row["properties"]["id"] = json!({ "type": "integer", "minimum": 0 });
    row["required"] = json!([
        "objType",
        "proxyId",
        "id",
        "field",
        "processNum",
        "tags",
        "value"
    ]);
    let schema = json!({
        "$schema": "http://json-schema.org/draft-04/schema#",
        "oneOf": [
            { "title": "Info", "type": "array", "items": info },
            { "title": "Stat", "type": "array", "items": { "type": "array", "items": row } },
        ],
    });
    format!("{schema}\n")
}

fn word(words: &[&str]) -> serde_json::Value {
    json!({ "type": "string", "enum": words })
}

/// The schema of [`tags`].
fn tags_schema() -> serde_json::Value {
    let natures = [
        "Gauge", "Limit", "Min", "Max", "Rate", "Counter", "Duration", "Age", "Time", "Name",
        "Output", "Avg", "Unknown",
    ];
    json!({
        "type": "object",
        "properties": {
            "origin": word(&["Metric", "Status", "Key", "Config", "Product", "Unknown"]),
            "nature": word(&natures),
            "scope": word(&["Cluster", "Process", "Service", "System", "Unknown"]),
        },
        "required": ["origin", "nature", "scope"],
    })
}

/// A value with its type.
fn value_schema() -> serde_json::Value {
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
    json!({
        "type": "object",
        "oneOf": [
            number("s32", i32::MIN.into(), i32::MAX.into()),
            number("s64", -exact, exact),
            number("u32", 0, u32::MAX.into()),
            number("u64", 0, exact),
            text,
        ],
    })
}
