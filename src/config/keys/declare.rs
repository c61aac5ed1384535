//! The macro `keys!`, which declares a table of the file: its keys, how each is written, and the struct of the
//! model.
//!
//! One declaration makes
//!
//! - the struct of the table as written, with a field and a [`Key`](crate::config::key::Key) of the same name
//!   for each key. Serde reads it, and it describes itself in the JSON schema, from which the manual page and
//!   the search for unknown keys are made ([`Table`]);
//! - with `layer`: a struct with the validated value of each key of `read` and `meant`. One table can be put
//!   over another (`over`): the nearest value wins;
//! - with `model`: the struct of the model. It has the fields that are listed for it, which `validate` fills
//!   in, and a field for each key of `meant`, which `from_layer` fills in with the value or the default.
//!   `compare` finds the differences of two of them.
//!
//! A key is declared as
//!
//! ```text
//! /// Documentation in one sentence.
//! field_name: Kind = DEFAULT, attribute: VALUE, …;
//! ```
//!
//! where the attributes are the fields of [`Key`](crate::config::key::Key). The name in the file is that of the
//! field in kebab-case. A field of the model is declared as
//!
//! ```text
//! /// Documentation.
//! field_name: Type = PLACEHOLDER, KEY => SHOW;
//! ```
//!
//! where `KEY => SHOW` names the key for which a difference is reported, and the function that shows a value.
//! Without it [`diff`](crate::config::diff) compares the field by hand.

use crate::config::key::{Effect, Key, REQUIRED};
use schemars::{JsonSchema, SchemaGenerator};
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value, json};
use std::fmt::{self, Write};
use std::marker::PhantomData;

/// A table of the file, or a group of keys that several tables have.
pub trait Table: Default {
    /// Name of its definition in the JSON schema.
    const SCHEMA: &'static str;
    /// Its name in messages and documents: `[global]`, `a server`.
    const PLACE: &'static str;
    /// Its documentation.
    const DOC: &'static str;

    /// Takes the value of `key` from `map`, when it is a key of this table.
    fn set<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error>;

    /// Adds its keys to the JSON schema `properties`. `from`: the table from which they are inherited; empty if
    /// they are not.
    fn describe(generator: &mut SchemaGenerator, properties: &mut Map<String, Value>, from: &str);

    /// Adds its keys to `list`, with the table from which they are inherited.
    fn list(list: &mut Vec<Listed>, from: &'static str);
}

/// A key in a table.
#[derive(Debug, Clone, Copy)]
pub struct Listed {
    /// The key.
    pub key: Key,
    /// The table from which it is inherited; empty: none.
    pub from: &'static str,
}

/// Reads a table.
pub(in crate::config) fn deserialize<'de, T: Table, D: Deserializer<'de>>(
    from: D,
) -> Result<T, D::Error> {
    struct V<T>(PhantomData<T>);
    impl<'de, T: Table> Visitor<'de> for V<T> {
        type Value = T;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("a table")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
            let mut table = T::default();
            while let Some(key) = map.next_key::<String>()? {
                // Unknown keys were reported and removed before.
                if !table.set(&key, &mut map)? {
                    return Err(A::Error::custom(format_args!("unknown key `{key}`")));
                }
            }
            Ok(table)
        }
    }
    from.deserialize_map(V(PhantomData))
}

/// The JSON schema of a table.
pub(in crate::config) fn schema<T: Table>(generator: &mut SchemaGenerator) -> schemars::Schema {
    let mut properties = Map::new();
    T::describe(generator, &mut properties, "");
    schemars::json_schema!({
        "type": "object",
        "description": T::DOC.trim(),
        "properties": properties,
        "additionalProperties": false,
    })
}

/// Adds one key with values of type `Field` to the JSON schema of a table.
pub(in crate::config) fn describe<Field: JsonSchema>(
    generator: &mut SchemaGenerator,
    properties: &mut Map<String, Value>,
    key: &Key,
    from: &str,
) {
    let mut schema = generator.subschema_for::<Field>().to_value();
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("description".to_owned(), json!(description(key, from)));
        let whole = schema.get("format").is_some_and(|format| format == "int64");
        if let Some((least, most)) = key.bounds.filter(|_| whole) {
            schema.insert("minimum".to_owned(), json!(least));
            schema.insert("maximum".to_owned(), json!(most));
        }
    }
    properties.insert(key.name.to_owned(), schema);
}

/// The text of a key in the schema and the manual page.
fn description(key: &Key, from: &str) -> String {
    let mut text = key.text().to_owned();
    let default = (key.default)();
    if default == REQUIRED {
        text.push_str(" Required.");
    } else if !default.is_empty() {
        let value = default.starts_with('"') && !default.contains(' ');
        let tick = if value { "`" } else { "" };
        let _ = write!(text, " Default: {tick}{default}{tick}.");
    }
    if !from.is_empty() {
        let _ = write!(text, " Inherited from {from}.");
    }
    if let Some(word) = key.haproxy.iter().find(|word| **word != key.name) {
        let _ = write!(text, " HAProxy: `{word}`.");
    }
    if key.reload == Effect::Restart {
        text.push_str(" A change needs a restart.");
    }
    text
}

/// The name of a field as a key.
macro_rules! key_name {
    ($field:ident) => {{
        const TEXT: &str = stringify!($field);
        const NAME: [u8; TEXT.len()] = crate::config::key::kebab(TEXT);
        match std::str::from_utf8(&NAME) {
            Ok(name) => name,
            Err(_) => panic!("the name of a field is ASCII"),
        }
    }};
}

/// Declares a table; see the head of this file.
macro_rules! keys {
    (
        $(#[doc = $doc:literal])+
        table $table:ident, $schema:literal, $place:literal;
        $(layer $layer:ident;)?
        $(groups { $($groups:tt)* })?
        $(raw { $($raw:tt)* })?
        $(read { $($read:tt)* })?
        $(meant { $($meant:tt)* })?
        $($(#[$meta:meta])+ model $model:ident { $($hand:tt)* })?
    ) => {
        keys! { @table [$($doc)+] $table $schema $place
            { $($($groups)*)? } { $($($raw)*)? $($($read)*)? $($($meant)*)? } }
        keys! { @layer [$($layer)?] $table { $($($read)*)? $($($meant)*)? } }
        keys! { @model [$($(#[$meta])+ $model { $($hand)* })?] [$($layer)?] $table
            { $($($meant)*)? } }
    };

    (@table [$($doc:literal)+] $table:ident $schema:literal $place:literal
        { $($group:ident: $group_type:ident $(= from $from:literal)?;)* }
        { $(
            $(#[doc = $key_doc:literal])+
            $field:ident: $kind:ty = $default:expr $(, $attribute:ident: $value:expr)*;
        )* }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Default)]
        pub struct $table {
            $($(#[doc = $key_doc])+ pub $field: <$kind as Kind>::Field,)*
            $(#[doc = concat!("The keys of [`", stringify!($group_type), "`].")]
            pub $group: $group_type,)*
        }

        #[allow(non_upper_case_globals, reason = "a key has the name of its field")]
        impl $table {
            $(
                $(#[doc = $key_doc])+
                pub const $field: Key = Key {
                    $($attribute: $value,)*
                    ..Key::new(
                        key_name!($field),
                        concat!($($key_doc),+),
                        <$kind as Kind>::WORD,
                        || <$kind as Kind>::default_text($default),
                    )
                };
            )*
        }

        #[allow(unused_variables, reason = "a table may have groups alone")]
        impl Table for $table {
            const SCHEMA: &'static str = $schema;
            const PLACE: &'static str = $place;
            const DOC: &'static str = concat!($($doc),+);

            fn set<'de, A: MapAccess<'de>>(
                &mut self,
                key: &str,
                map: &mut A,
            ) -> Result<bool, A::Error> {
                $(if key == Self::$field.name {
                    self.$field = map.next_value()?;
                    return Ok(true);
                })*
                $(if self.$group.set(key, map)? {
                    return Ok(true);
                })*
                Ok(false)
            }

            fn describe(
                generator: &mut SchemaGenerator,
                properties: &mut Map<String, Value>,
                from: &str,
            ) {
                $(describe::<<$kind as Kind>::Field>(generator, properties, &Self::$field, from);)*
                $(<$group_type as Table>::describe(
                    generator,
                    properties,
                    concat!("" $(, $from)?),
                );)*
            }

            fn list(list: &mut Vec<Listed>, from: &'static str) {
                $(list.push(Listed { key: Self::$field, from });)*
                $(<$group_type as Table>::list(list, concat!("" $(, $from)?));)*
            }
        }

        impl<'de> Deserialize<'de> for $table {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserialize(deserializer)
            }
        }

        impl JsonSchema for $table {
            fn schema_name() -> Cow<'static, str> {
                $schema.into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                schema::<Self>(generator)
            }
        }
    };

    (@layer [] $table:ident {}) => {};
    (@layer [$layer:ident] $table:ident
        { $(
            $(#[doc = $key_doc:literal])+
            $field:ident: $kind:ty = $default:expr $(, $attribute:ident: $value:expr)*;
        )* }
    ) => {
        #[doc = concat!("The validated values of a [`", stringify!($table), "`].")]
        #[derive(Debug, Clone, Default)]
        pub(in crate::config) struct $layer {
            $(pub(in crate::config) $field: Option<Written<<$kind as Plain>::Value>>,)*
        }

        #[allow(dead_code, reason = "a table that appears once inherits from no other")]
        impl $layer {
            /// Judges the values of `table`.
            pub(in crate::config) fn read(
                validator: &mut Validator<'_>,
                scope: Scope<'_>,
                table: &$table,
            ) -> Self {
                Self {
                    $($field: <$kind as Read>::read(
                        validator,
                        scope,
                        &$table::$field,
                        &table.$field,
                    ),)*
                }
            }

            /// These values, and those of `base` where there are none.
            pub(in crate::config) fn over(self, base: &Self) -> Self {
                Self { $($field: self.$field.or_else(|| base.$field.clone()),)* }
            }
        }
    };

    (@model [] [$($layer:ident)?] $table:ident {}) => {};
    (@model
        [$(#[$meta:meta])+ $model:ident { $(
            $(#[doc = $hand_doc:literal])+
            $hand:ident: $hand_type:ty = $placeholder:expr $(, $hand_key:expr => $hand_show:expr)?;
        )* }]
        [$layer:ident] $table:ident
        { $(
            $(#[doc = $key_doc:literal])+
            $field:ident: $kind:ty = $default:expr $(, $attribute:ident: $value:expr)*;
        )* }
    ) => {
        $(#[$meta])+
        #[allow(clippy::struct_excessive_bools, reason = "independent switches, as in the file")]
        pub struct $model {
            $($(#[doc = $hand_doc])+ pub $hand: $hand_type,)*
            $($(#[doc = $key_doc])+ pub $field: <$kind as Plain>::Meant,)*
        }

        /// Every key at its default; what has none is a placeholder.
        impl Default for $model {
            fn default() -> Self {
                Self::from_layer(&$layer::default())
            }
        }

        #[allow(
            dead_code,
            unused_variables,
            clippy::unused_self,
            reason = "not every table needs all of it"
        )]
        impl $model {
            /// The values of `layer`, else the defaults; the other fields are placeholders.
            pub(in crate::config) fn from_layer(layer: &$layer) -> Self {
                Self {
                    $($hand: $placeholder,)*
                    $($field: <$kind as Plain>::meant(
                        layer.$field.as_ref().map(|written| written.value.clone()),
                        $default,
                    ),)*
                }
            }

            /// Adds the keys that differ to `found`.
            pub(in crate::config) fn compare(old: &Self, new: &Self, found: &mut Differences) {
                $($({
                    let show: fn(&$hand_type) -> String = $hand_show;
                    found.compare(&$hand_key, (&old.$hand, &new.$hand), show);
                })?)*
                $(found.compare(
                    &$table::$field,
                    (&old.$field, &new.$field),
                    <$kind as Plain>::show,
                );)*
            }

            /// Takes from `old` what a running process cannot change.
            pub(in crate::config) fn keep_until_restart(&mut self, old: &Self) {
                $($(if $hand_key.reload == Effect::Restart {
                    self.$hand.clone_from(&old.$hand);
                })?)*
                $(if $table::$field.reload == Effect::Restart {
                    self.$field.clone_from(&old.$field);
                })*
            }
        }
    };
}

/// What the code that `keys!` makes has to name.
pub(super) mod prelude {
    pub(in crate::config) use super::super::kinds::{Kind, Plain, Read};
    pub(in crate::config) use super::{
        Listed, Table, describe, deserialize, key_name, keys, schema,
    };
    pub(in crate::config) use crate::config::key::{Differences, Effect, Key};
    pub(in crate::config) use crate::config::scope::{Scope, Validator, Written};
    pub(in crate::config) use schemars::{JsonSchema, Schema, SchemaGenerator};
    pub(in crate::config) use serde::de::{Deserialize, Deserializer, MapAccess};
    pub(in crate::config) use serde_json::{Map, Value};
    pub(in crate::config) use std::borrow::Cow;
}

pub(in crate::config) use {key_name, keys};
