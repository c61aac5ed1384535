//! The manual page rlb.toml(5), made from the schema of the configuration file: one section per table, in the
//! order of their first use.

use clap_mangen::roff::{Roff, bold, italic, roman};
use serde_json::{Map, Value};
use std::collections::VecDeque;

const DESCRIPTION: &str = "The configuration of rlb(8), in TOML. A key that is not known is an error, \
    and so is a duration without a unit. `rlb check` reports everything that is wrong with a file; \
    `rlb schema` prints the schema that this page is made from, for editors.";

const EXAMPLE: &str = r#"stats = { bind = "*:8080" }

[defaults]
check = "tcp"

[[listen]]
name = "postgres"
bind = "*:5432"
servers = [
  { name = "node01", address = "10.240.0.37:5432" },
  { name = "node02", address = "10.240.0.39:5432", weight = 2 },
]"#;

/// A table of the file: its definition, and where it may be.
struct Table<'a> {
    definition: &'a str,
    places: Vec<String>,
}

/// The page.
pub(super) fn page(schema: &Value) -> String {
    let mut roff = Roff::new();
    roff.control("TH", ["rlb.toml", "5", "", "rlb", "rlb"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("rlb.toml - configuration of the rlb load balancer")]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([roman(DESCRIPTION)]);
    roff.control("SH", ["EXAMPLE"]);
    roff.control("nf", []);
    roff.text([roman(EXAMPLE)]);
    roff.control("fi", []);
    roff.control("SH", ["TABLES OF THE FILE"]);
    keys(&mut roff, schema, schema);
    roff.control("SH", ["KEYS OF THE TABLES"]);
    for table in tables(schema) {
        let definition = &schema["$defs"][table.definition];
        roff.control("SS", [table.places.join(", ").as_str()]);
        if let Some(text) = definition["description"].as_str() {
            roff.text([roman(sentence(text))]);
        }
        keys(&mut roff, schema, definition);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("rlb"), roman("(8)")]);
    roff.to_roff()
}

/// The keys of one table.
fn keys(roff: &mut Roff, schema: &Value, table: &Value) {
    for (name, key) in properties(table) {
        roff.control("TP", []);
        let kinds = kinds(schema, key).join(" or ");
        roff.text([bold(name), roman("  "), italic(kinds)]);
        let text = key["description"].as_str().unwrap_or_default();
        roff.text([roman(sentence(text))]);
    }
}

fn properties(table: &Value) -> impl Iterator<Item = (&String, &Value)> {
    table["properties"]
        .as_object()
        .into_iter()
        .flat_map(Map::iter)
}

/// Descriptions are Markdown of one paragraph, in which line ends have no meaning.
fn sentence(text: &str) -> String {
    text.replace('\n', " ").replace('`', "")
}

/// Every table below the file, each definition once, with all places where it may be.
fn tables(schema: &Value) -> Vec<Table<'_>> {
    let mut found: Vec<Table<'_>> = Vec::new();
    let mut waiting: VecDeque<(String, &Value)> = properties(schema)
        .map(|(name, key)| (heading(name, key), key))
        .collect();
    while let Some((place, key)) = waiting.pop_front() {
        for definition in definitions(key) {
            let table = &schema["$defs"][definition];
            if table["type"] != "object" {
                continue;
            }
            if let Some(known) = found.iter_mut().find(|it| it.definition == definition) {
                // A place below a table with two places has the name of the first.
                if !known.places.contains(&place) {
                    known.places.push(place.clone());
                }
                continue;
            }
            found.push(Table {
                definition,
                places: vec![place.clone()],
            });
            let below = properties(table).map(|(name, key)| (format!("{name} in {place}"), key));
            waiting.extend(below);
        }
    }
    found
}

/// How a table at the top of the file is written.
fn heading(name: &str, key: &Value) -> String {
    match key["type"].as_str() {
        Some("array") => format!("[[{name}]]"),
        Some("object") => format!("[{name}.NAME]"),
        _ => format!("[{name}]"),
    }
}

/// The definitions that a key's value may have, also in lists and named entries.
fn definitions(key: &Value) -> Vec<&str> {
    let mut found = Vec::new();
    if !key.is_object() {
        return found;
    }
    if let Some(name) = reference(key) {
        found.push(name);
    }
    for inner in alternatives(key).chain([&key["items"], &key["additionalProperties"]]) {
        found.extend(definitions(inner));
    }
    found
}

fn reference(key: &Value) -> Option<&str> {
    key["$ref"].as_str()?.strip_prefix("#/$defs/")
}

fn alternatives(key: &Value) -> impl Iterator<Item = &Value> {
    ["anyOf", "oneOf"]
        .into_iter()
        .filter_map(|word| key[word].as_array())
        .flatten()
}

/// What may be written: types, or the allowed words.
fn kinds(schema: &Value, key: &Value) -> Vec<String> {
    let mut kinds = Vec::new();
    let mut add = |kind: String| {
        if !kinds.contains(&kind) && kind != "null" {
            kinds.push(kind);
        }
    };
    if let Some(name) = reference(key) {
        if name == "Duration" {
            add("duration".to_owned());
        } else {
            self::kinds(schema, &schema["$defs"][name])
                .into_iter()
                .for_each(&mut add);
        }
    } else if let Some(words) = key["enum"].as_array() {
        words.iter().map(Value::to_string).for_each(&mut add);
    } else if let Some(word) = key.get("const") {
        add(word.to_string());
    } else {
        let types = match &key["type"] {
            Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
            Value::String(one) => vec![one.as_str()],
            _ => Vec::new(),
        };
        for kind in types {
            add(match kind {
                "object" => "table".to_owned(),
                "array" => {
                    let items = self::kinds(schema, &key["items"]).join(" or ");
                    format!("list of {items}")
                }
                other => other.to_owned(),
            });
        }
    }
    for inner in alternatives(key) {
        self::kinds(schema, inner).into_iter().for_each(&mut add);
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Limits, Loader, schema};

    #[test]
    fn every_key_of_the_schema_is_on_the_page() {
        let schema = schema();
        let page = page(&schema).replace('\\', "");
        let tables = tables(&schema);
        for (name, definition) in schema["$defs"].as_object().unwrap() {
            if definition["type"] == "object" {
                assert!(
                    tables.iter().any(|table| table.definition == name),
                    "{name}"
                );
            }
            for (key, value) in properties(definition) {
                assert!(page.contains(&format!("fB{key}fR")), "{name}.{key}");
                assert!(!kinds(&schema, value).is_empty(), "{name}.{key}: {value}");
            }
        }
    }

    #[test]
    fn the_types_are_plain_words() {
        let schema = schema();
        let kind = |table: &str, key: &str| {
            kinds(&schema, &schema["$defs"][table]["properties"][key]).join(" or ")
        };
        assert_eq!(kind("Frontend", "maxconn"), "integer");
        assert_eq!(
            kind("Frontend", "bind"),
            "string or table or list of string or table"
        );
        assert_eq!(kind("Check", "interval"), "duration");
        assert_eq!(
            kind("Server", "on-marked-down"),
            "\"none\" or \"shutdown-sessions\""
        );
    }

    #[test]
    fn the_example_is_valid() {
        let loader = Loader {
            limits: Limits::unknown(),
            environment: &|_| None,
            disk: false,
        };
        assert!(loader.load_text("example", EXAMPLE).is_ok());
    }
}
