//! Which metrics a URL asks for: `scope=`, `no-maint`, `metrics=`, as in HAProxy's exporter.

use crate::stats::filter::Filter;
use crate::stats::row::Kind;
use std::sync::Arc;

/// Most names of `metrics=` that are read.
const NAMES_MAX: usize = 64;

/// Scopes of HAProxy's exporter that rlb has no metrics for. HAProxy takes every text that begins with the name
/// of a module for that module.
const EMPTY_SCOPES: [&str; 3] = ["listener", "resolver", "stick_table"];
/// Scopes that rlb has metrics for.
const SCOPES: [&str; 4] = ["global", "frontend", "backend", "server"];

/// Which metrics are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Select {
    /// Scopes that were asked for; `None`: all.
    scopes: Option<Vec<String>>,
    no_maint: bool,
    wanted: Vec<String>,
    unwanted: Vec<String>,
    /// Only these proxies; empty: all.
    only: Vec<Arc<str>>,
}

impl Select {
    /// The query of a URL, by the rules of HAProxy's exporter (`promex_parse_uri`); unknown keys are ignored.
    /// `None` where HAProxy answers 400: there is no such scope, a key has no value or two, or an escape is
    /// broken.
    pub fn of(query: &str) -> Option<Self> {
        let mut select = Self::default();
        let query = query.split_once('#').map_or(query, |(query, _)| query);
        for part in query.split('&') {
            let (key, value) = match part.split_once('=') {
                Some((_, value)) if value.contains('=') => return None,
                Some((key, value)) => (key, Some(decoded(value)?)),
                None => (part, None),
            };
            match &*decoded(key)? {
                "scope" => select.add_scope(value?)?,
                "no-maint" => select.no_maint = true,
                "metrics" => {
                    let names = value?;
                    for name in names.split(',').take(NAMES_MAX) {
                        match name.strip_prefix('-') {
                            Some("") => {}
                            Some(name) => select.unwanted.push(name.to_owned()),
                            None if name.is_empty() => {}
                            None => select.wanted.push(name.to_owned()),
                        }
                    }
                }
                _ => {}
            }
        }
        Some(select)
    }

    /// The same, of the proxies `only` alone, unless there are none.
    #[must_use]
    pub fn within(self, only: &[Arc<str>]) -> Self {
        Self {
            only: only.to_vec(),
            ..self
        }
    }

    /// Adds a scope. An empty one removes those before it; `*` means all.
    fn add_scope(&mut self, scope: String) -> Option<()> {
        let scopes = self.scopes.get_or_insert_default();
        match &*scope {
            "" => scopes.clear(),
            "*" => scopes.extend(SCOPES.map(str::to_owned)),
            name if SCOPES.contains(&name) => scopes.push(scope),
            name if EMPTY_SCOPES.iter().any(|it| name.starts_with(it)) => {}
            _ => return None,
        }
        Some(())
    }

    /// The rows that the metrics show.
    pub(super) fn filter(&self) -> Filter {
        Filter {
            no_maint: self.no_maint,
            only: self.only.clone(),
            ..Filter::default()
        }
    }

    /// Whether metrics of the process are wanted.
    pub(super) fn process(&self) -> bool {
        self.scope("global")
    }

    /// Whether metrics of such rows are wanted.
    pub(super) fn rows(&self, kind: Kind) -> bool {
        self.scope(super::scope(kind))
    }

    fn scope(&self, scope: &str) -> bool {
        let scopes = self.scopes.as_ref();
        scopes.is_none_or(|scopes| scopes.iter().any(|wanted| wanted == scope))
    }

    /// Whether the metric `name` is wanted.
    pub(super) fn wants(&self, name: &str) -> bool {
        let among = |names: &[String]| names.iter().any(|one| one == name);
        !among(&self.unwanted) && (self.wanted.is_empty() || among(&self.wanted))
    }
}

/// `text` with `%` escapes decoded and `+` as a space; `None` when an escape is broken or the result is not
/// UTF-8.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
                u8::try_from(high? * 16 + low?).ok()?
            }
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault 40: HAProxy 3.5 answers each of these the same.
    #[test]
    fn fault_40_addresses_that_ask_for_nothing_are_refused() {
        for query in [
            "scope=bogus",
            "scope",
            "scope=a=b",
            "metrics",
            "scope=%zz",
            "x=%",
        ] {
            assert_eq!(Select::of(query), None, "{query}");
        }
        let kinds = |query: &str| {
            let select = Select::of(query).unwrap();
            (select.process(), select.rows(Kind::Server))
        };
        for (query, expected) in [
            ("", (true, true)),
            ("bogus=1", (true, true)),
            ("metrics=", (true, true)),
            ("scope=*", (true, true)),
            ("scope=", (false, false)),
            ("scope=server&scope=", (false, false)),
            ("scope=listener", (false, false)),
            ("scope=resolverx", (false, false)),
            ("scope=server", (false, true)),
            ("scope=%73erver", (false, true)),
            ("scope=global&scope=server", (true, true)),
        ] {
            assert_eq!(kinds(query), expected, "{query}");
        }
        let select = Select::of("metrics=a,-,,-b").unwrap();
        assert!(select.wants("a") && !select.wants("b") && !select.wants("c"));
    }
}
