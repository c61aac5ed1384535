//! Pass 2 over a file: finds every unknown key, and the key that was probably meant.
//!
//! The known keys come from the JSON schema of [`File`], so that they are the same that the next pass reads;
//! the hints come from the declarations. Pure.

use super::diagnostic::{Diagnostic, Report};
use super::haproxy;
use super::key::Key;
use super::keys::{self, File, TableKeys};
use super::source::{Place, Source};
use super::tree::RemovedKeys;
use super::words;
use serde_json::{Map, Value};
use std::ops::Range;
use std::sync::{Arc, LazyLock};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// Most tables that a hint names for a key that is in the wrong table.
const HOMES_MAX: usize = 5;

/// The keys that a file may have, as a JSON schema.
pub(super) struct Known {
    schema: Value,
    tables: &'static [TableKeys],
}

/// The values that are allowed at one place of the file.
struct Shape<'a> {
    /// Its named keys.
    keys: Vec<(&'a str, &'a Value)>,
    /// The schema of values in a table with free keys.
    free: Option<&'a Value>,
    /// The schema of items in a list.
    items: Option<&'a Value>,
    /// Short forms are also allowed.
    either: bool,
}

impl Shape<'_> {
    fn is_table(&self) -> bool {
        !self.keys.is_empty() || self.free.is_some()
    }

    /// What was expected and what to write, when `value` is a list and a table is expected, or the other way
    /// round.
    fn misfit(
        &self,
        known: &Known,
        value: &DeValue<'_>,
        header: &str,
    ) -> Option<(&'static str, String)> {
        match value {
            _ if self.either => None,
            DeValue::Array(_) if self.is_table() && self.items.is_none() => Some((
                "expected a table",
                format!("write [{header}]: the table appears only once"),
            )),
            DeValue::Table(table) if self.items.is_some() && !self.is_table() => {
                // "[frontend.web]", like a node group, or "[backend.servers]".
                let inside = table
                    .iter()
                    .next()
                    .filter(|(_, value)| value.get_ref().is_table());
                let items = self.items.map(|items| known.shape(items));
                let is_key = |key: &DeString<'_>| {
                    let mut keys = items.iter().flat_map(|items| &items.keys);
                    keys.any(|(known, _)| *known == key.as_ref())
                };
                let hint = match inside {
                    Some((key, _)) if is_key(key.get_ref()) => format!(
                        "write [[{header}]] with its `name`, and `{}` as a key of that table",
                        key.get_ref()
                    ),
                    Some((key, _)) => {
                        format!("write [[{header}]] and `name = \"{}\"`", key.get_ref())
                    }
                    None => format!("write [[{header}]]"),
                };
                Some(("expected a list of tables", hint))
            }
            _ => None,
        }
    }
}

impl Known {
    /// They are the same for the life of the process; to make the schema takes longer than to read a small
    /// file.
    pub(super) fn shared() -> &'static Self {
        static KNOWN: LazyLock<Known> = LazyLock::new(|| Known {
            schema: shape_only(schemars::schema_for!(File).to_value()),
            tables: keys::tables(),
        });
        &KNOWN
    }

    fn shape<'a>(&'a self, schema: &'a Value) -> Shape<'a> {
        let mut shape = Shape {
            keys: Vec::new(),
            free: None,
            items: None,
            either: false,
        };
        self.collect(schema, &mut shape);
        shape
    }

    fn collect<'a>(&'a self, schema: &'a Value, shape: &mut Shape<'a>) {
        let Some(object) = schema.as_object() else {
            return;
        };
        if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
            let target = reference
                .strip_prefix('#')
                .and_then(|path| self.schema.pointer(path));
            if let Some(target) = target {
                self.collect(target, shape);
            }
        }
        for one in object
            .get("anyOf")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            self.collect(one, shape);
        }
        let forms = object.get("anyOf").and_then(Value::as_array);
        let null = |one: &&Value| one.get("type").and_then(Value::as_str) != Some("null");
        shape.either |= forms.is_some_and(|forms| forms.iter().filter(null).count() > 1);
        let properties = object.get("properties").and_then(Value::as_object);
        shape.keys.extend(
            properties
                .into_iter()
                .flat_map(Map::iter)
                .map(|(k, v)| (k.as_str(), v)),
        );
        if let Some(free) = object
            .get("additionalProperties")
            .filter(|value| value.is_object())
        {
            shape.free = Some(free);
        }
        if let Some(items) = object.get("items") {
            shape.items = Some(items);
        }
    }

    /// The tables that have `key`, at most [`HOMES_MAX`], those at the top of the file first.
    fn homes(&self, key: &str) -> Vec<&'static str> {
        let has = |table: &&TableKeys| table.keys.iter().any(|one| one.key.name == key);
        let tables = self.tables.iter().filter(has);
        let mut homes: Vec<&str> = tables.map(|table| table.place).collect();
        homes.dedup();
        homes.truncate(HOMES_MAX);
        homes
    }

    /// What to write for HAProxy's `name` in the table with this `shape`, by the declaration of rlb's key.
    fn declared(&self, name: &str, shape: &Shape<'_>) -> Option<String> {
        let plain = |word: &str| word.to_lowercase().replace(['_', '.', ' '], "-");
        let written = plain(name);
        let means = |word: &str| {
            let word = plain(word);
            written == word || word.strip_prefix("option-") == Some(&written)
        };
        self.tables.iter().find_map(|table| {
            let mut keys = table.keys.iter().map(|listed| &listed.key);
            let key = keys.find(|key| {
                let mut words = key.haproxy.iter().copied().chain(key.label);
                key.name != name && words.any(means)
            })?;
            if shape.keys.iter().any(|(known, _)| *known == key.name) {
                return Some(format!("it is `{}` here", key.name));
            }
            Some(instead(table.place, key))
        })
    }
}

/// What [`Known::shape`] reads of a schema. The rest, which has the documentation of every key, is dropped: this
/// value stays in memory.
fn shape_only(schema: Value) -> Value {
    let Value::Object(object) = schema else {
        return schema;
    };
    let kept: Map<String, Value> = object
        .into_iter()
        .filter_map(|(word, value)| {
            let value = match (word.as_str(), value) {
                ("$ref", value) => value,
                ("type", value) if value == "null" => value,
                ("properties" | "$defs", Value::Object(named)) => named
                    .into_iter()
                    .map(|(name, value)| (name, shape_only(value)))
                    .collect(),
                ("anyOf", Value::Array(all)) => all.into_iter().map(shape_only).collect(),
                ("items" | "additionalProperties", value) => shape_only(value),
                _ => return None,
            };
            Some((word, value))
        })
        .collect();
    Value::Object(kept)
}

/// Reports and removes every unknown key.
pub(super) fn unknown_keys(
    known: &Known,
    source: &Arc<Source>,
    table: &mut DeTable<'_>,
    removed: &mut RemovedKeys,
    report: &mut Report,
) {
    let mut walk = Walk {
        known,
        source,
        removed,
        report,
        top: String::new(),
    };
    walk.table(&known.schema, table, None);
}

struct Walk<'a> {
    known: &'a Known,
    source: &'a Arc<Source>,
    removed: &'a mut RemovedKeys,
    report: &'a mut Report,
    /// The current top-level key.
    top: String,
}

impl Walk<'_> {
    fn value(&mut self, schema: &Value, value: &mut Spanned<DeValue<'_>>) {
        let span = value.span();
        match value.get_mut() {
            DeValue::Table(table) => self.table(schema, table, Some(&span)),
            DeValue::Array(array) => {
                let shape = self.known.shape(schema);
                if let Some(items) = shape.items {
                    array.iter_mut().for_each(|item| self.value(items, item));
                }
            }
            _ => {}
        }
    }

    fn table(&mut self, schema: &Value, table: &mut DeTable<'_>, span: Option<&Range<usize>>) {
        let shape = self.known.shape(schema);
        if !shape.is_table() {
            return;
        }
        let mut unknown = Vec::new();
        let mut misfits = Vec::new();
        for (key, value) in table.iter_mut() {
            let name = key.get_ref().as_ref();
            if span.is_none() {
                name.clone_into(&mut self.top);
            }
            match shape.keys.iter().find(|(known, _)| *known == name) {
                Some((_, schema)) => {
                    let place = Place::new(self.source, value.span());
                    let text = place.text();
                    let is_header = text.starts_with('[') && !text.contains(',');
                    let header = text.trim_matches(['[', ']']);
                    // A table without a header of its own: [frontend.web].
                    let implied = !is_header && span.is_none() && value.get_ref().is_table();
                    let header = if implied || header.starts_with(&format!("{name}.")) {
                        name
                    } else {
                        header
                    };
                    let shape = self.known.shape(schema);
                    if let Some((expected, hint)) =
                        shape.misfit(self.known, value.get_ref(), header)
                    {
                        let what = format!("wrong type: {}", value.get_ref().type_str());
                        let hint = (is_header || implied).then_some(hint);
                        self.report.push(
                            Diagnostic::error("wrong-type", what)
                                .at(place.clone())
                                .label(expected)
                                .maybe_hint(hint),
                        );
                        misfits.push(name.to_owned());
                    } else {
                        self.value(schema, value);
                    }
                }
                None if shape.free.is_some() => {
                    shape
                        .free
                        .into_iter()
                        .for_each(|free| self.value(free, value));
                }
                None => {
                    unknown.push(key.clone());
                    self.unknown(name, key.span(), &shape);
                }
            }
        }
        for key in misfits {
            match span {
                Some(span) => self.removed.insert(span, &key),
                None => self.removed.insert_name(&key),
            }
            table.remove(key.as_str());
        }
        for key in unknown {
            self.misspelt(&key, table, span, &shape);
        }
    }

    /// Removes an unknown key from `table`. When it is clear which key was meant, its value moves to that key
    /// and is checked too. Otherwise the key that was probably meant is recorded as removed, so that it is not
    /// reported as missing.
    fn misspelt(
        &mut self,
        key: &Spanned<DeString<'_>>,
        table: &mut DeTable<'_>,
        span: Option<&Range<usize>>,
        shape: &Shape<'_>,
    ) {
        let name = key.get_ref().as_ref();
        let value = table.remove(name);
        if self.report.is_full() {
            return;
        }
        let Some(meant) = meant(name, shape) else {
            return;
        };
        let schema = shape.keys.iter().find(|(known, _)| *known == meant);
        if let (Some(mut value), Some((_, schema))) = (value, schema)
            && words::is_clear(name, meant)
            && !table.contains_key(meant)
            && self
                .known
                .shape(schema)
                .misfit(self.known, value.get_ref(), meant)
                .is_none()
        {
            self.value(schema, &mut value);
            table.insert(Spanned::new(key.span(), meant.to_owned().into()), value);
            return;
        }
        match span {
            Some(span) => {
                self.removed.insert(span, meant);
                if meant == "name" {
                    self.removed.insert_name(&self.top);
                }
            }
            None => self.removed.insert_name(meant),
        }
    }

    /// What to say of a key that the table around this one has, which appears once.
    fn of_the_table_around(&self, name: &str) -> Option<String> {
        let around = format!("[{}]", self.top);
        let mut tables = self.known.tables.iter();
        let table = tables.find(|table| table.place == around)?;
        let mut keys = table.keys.iter();
        let has = keys.any(|listed| listed.key.name == name);
        has.then(|| format!("`{name}` is a key of {around}"))
    }

    fn unknown(&mut self, name: &str, span: Range<usize>, shape: &Shape<'_>) {
        // Finding a hint is expensive, and it would not be shown.
        if self.report.is_full() {
            return self.report.count_error();
        }
        let near = words::closest(name, shape.keys.iter().map(|(key, _)| *key));
        let same_letters = near.is_some_and(|near| near == name.to_lowercase().replace('_', "-"));
        let homes = self.known.homes(name);
        let hint = if same_letters {
            words::did_you_mean(name, near)
        } else if let Some(instead) = words::instead(name)
            .map(str::to_owned)
            .or_else(|| self.known.declared(name, shape))
            .or_else(|| self.of_the_table_around(name))
            .or_else(|| haproxy::hint(name).filter(|_| homes.is_empty()))
        {
            Some(instead)
        } else if near.is_some() {
            words::did_you_mean(name, near)
        } else if homes.is_empty() {
            let keys: Vec<String> = shape
                .keys
                .iter()
                .map(|(key, _)| format!("`{key}`"))
                .collect();
            Some(format!("known here: {}", keys.join(", ")))
        } else {
            Some(format!("`{name}` is a key of {}", homes.join(", ")))
        };
        self.report.push(
            Diagnostic::error("unknown-key", format!("unknown key `{name}`"))
                .at(Place::new(self.source, span))
                .label("not a key of this table")
                .maybe_hint(hint),
        );
    }
}

/// What to write for `key` of the table at `place`.
fn instead(place: &str, key: &Key) -> String {
    let name = key.name;
    match place {
        "a timeout table" => {
            let value = key.example.map_or_else(key.default, str::to_owned);
            format!("write `timeout = {{ {name} = {value} }}`")
        }
        "a check table" => format!("in a `check` table it is `{name}`"),
        "a keepalive table" => format!("in a `keepalive` table it is `{name}`"),
        "[[frontend]]" => format!("it is `{name}` of the frontend"),
        "[[backend]]" => format!("it is `{name}` of the backend"),
        _ if place.starts_with('[') && !place.starts_with("[[") && place != "[defaults]" => {
            format!("it is `{name}`, in `{place}`")
        }
        _ => format!("it is `{name}`"),
    }
}

/// The known key that an unknown one was probably meant to be.
fn meant<'s>(name: &str, shape: &Shape<'s>) -> Option<&'s str> {
    if name == "server" && shape.keys.iter().any(|(key, _)| *key == "servers") {
        return Some("servers");
    }
    words::closest(name, shape.keys.iter().map(|(key, _)| *key))
}
