//! Which metrics an address asks for: `scope=`, `no-maint`, `metrics=`, as HAProxy's exporter.

use crate::stats::filter::Filter;
use crate::stats::row::Kind;

/// Most names of `metrics=` that are looked at.
const NAMES_MAX: usize = 64;

/// Which metrics are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Select {
    /// Scopes that were asked for; none: all.
    scopes: Vec<String>,
    no_maint: bool,
    wanted: Vec<String>,
    unwanted: Vec<String>,
}

impl Select {
    /// What the part of an address behind the `?` asks for. What is not known is ignored.
    pub fn of(query: &str) -> Self {
        let mut select = Self::default();
        for (key, value) in query
            .split('&')
            .map(|part| part.split_once('=').unwrap_or((part, "")))
        {
            match key {
                "scope" if value == "*" || value.is_empty() => select.scopes.clear(),
                "scope" if select.scopes.len() < NAMES_MAX => select.scopes.push(value.to_owned()),
                "no-maint" => select.no_maint = true,
                "metrics" => {
                    for name in value.split(',').take(NAMES_MAX) {
                        match name.strip_prefix('-') {
                            Some(name) => select.unwanted.push(name.to_owned()),
                            None => select.wanted.push(name.to_owned()),
                        }
                    }
                }
                _ => {}
            }
        }
        select
    }

    /// Which rows the metrics are made of.
    pub(super) fn filter(&self) -> Filter {
        Filter {
            no_maint: self.no_maint,
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
        self.scopes.is_empty() || self.scopes.iter().any(|wanted| wanted == scope)
    }

    /// Whether the metric `name` is wanted.
    pub(super) fn wants(&self, name: &str) -> bool {
        let among = |names: &[String]| names.iter().any(|one| one == name);
        !among(&self.unwanted) && (self.wanted.is_empty() || among(&self.wanted))
    }
}
