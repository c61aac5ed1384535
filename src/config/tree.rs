//! The parsed file as a tree: what was taken out of it because it was wrong, and where things are.
//!
//! Pure. A wrong value is reported and removed, so that the rest can still be read and judged;
//! [`Lost`] remembers it, so that nobody reports it as missing.

use super::diagnostic::Diagnostic;
use std::collections::HashSet;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What was removed from a file.
#[derive(Debug, Default)]
pub(super) struct Lost {
    keys: HashSet<(Range<usize>, String)>,
    top: HashSet<String>,
    everything: bool,
}

impl Lost {
    /// `key` was removed from the table at `table`, wholly or in part.
    pub(super) fn insert(&mut self, table: &Range<usize>, key: &str) {
        self.keys.insert((table.clone(), key.to_owned()));
    }

    /// Any key may have been lost: the file's structure is broken.
    pub(super) fn everything(&mut self) {
        self.everything = true;
    }

    /// Whether the table at `table` had `key` before something was removed.
    pub(super) fn had(&self, table: &Range<usize>, key: &str) -> bool {
        self.everything || self.keys.contains(&(table.clone(), key.to_owned()))
    }

    /// A whole table below the top-level `key`, or the name of one, was removed.
    pub(super) fn insert_name(&mut self, key: &str) {
        self.top.insert(key.to_owned());
    }

    /// Whether a table below the top-level `key`, or the name of one, was removed: then a reference
    /// to it cannot be judged.
    pub(super) fn names_below(&self, key: &str) -> bool {
        self.everything || self.top.contains(key)
    }
}

/// Removes the value or key at `target`, the innermost one, or else the innermost that holds it.
/// Returns whether anything was found.
pub(super) fn cut(root: &mut DeTable<'_>, target: &Range<usize>, lost: &mut Lost) -> bool {
    [true, false]
        .into_iter()
        .any(|exact| cut_table(root, None, target, lost, exact).is_some())
}

/// What was removed: how deep below the table or list that is looked at, and its key.
struct Cut {
    depth: usize,
    key: String,
}

fn cut_table(
    table: &mut DeTable<'_>,
    span: Option<&Range<usize>>,
    target: &Range<usize>,
    lost: &mut Lost,
    exact: bool,
) -> Option<Cut> {
    let mut found = None;
    for (key, value) in table.iter_mut() {
        if let Some(cut) = cut_value(value, target, lost, exact) {
            let cut = Cut {
                depth: cut.depth + 1,
                ..cut
            };
            note(lost, span, key.get_ref(), &cut);
            return Some(cut);
        }
        if hits(&key.span(), target, exact) || hits(&value.span(), target, exact) {
            found = Some(key.get_ref().clone().into_owned());
        }
    }
    let cut = Cut {
        depth: 0,
        key: found?,
    };
    note(lost, span, &cut.key, &cut);
    table.remove(cut.key.as_str());
    Some(cut)
}

fn cut_value(
    value: &mut Spanned<DeValue<'_>>,
    target: &Range<usize>,
    lost: &mut Lost,
    exact: bool,
) -> Option<Cut> {
    let span = value.span();
    match value.get_mut() {
        DeValue::Table(table) => cut_table(table, Some(&span), target, lost, exact),
        DeValue::Array(array) => {
            let inner = array
                .iter_mut()
                .find_map(|item| cut_value(item, target, lost, exact));
            if let Some(cut) = inner {
                return Some(Cut {
                    depth: cut.depth + 1,
                    ..cut
                });
            }
            let index = array
                .iter()
                .position(|item| hits(&item.span(), target, exact))?;
            let items = array.iter().enumerate().filter(|(at, _)| *at != index);
            *array = items.map(|(_, item)| item.clone()).collect();
            Some(Cut {
                depth: 0,
                key: String::new(),
            })
        }
        _ => None,
    }
}

fn hits(span: &Range<usize>, target: &Range<usize>, exact: bool) -> bool {
    if exact {
        span == target
    } else {
        span.start <= target.start && target.start < span.end
    }
}

fn note(lost: &mut Lost, span: Option<&Range<usize>>, key: &str, cut: &Cut) {
    match span {
        Some(span) => lost.insert(span, key),
        // A top-level key, a table of it, or a table's name.
        None if cut.depth <= 1 || cut.key == "name" => lost.insert_name(key),
        None => {}
    }
}

/// The key path of what stands at `target`: `frontend[postgres].bind[0]`. `None` at the top.
pub(super) fn path(root: &DeTable<'_>, target: &Range<usize>) -> Option<String> {
    let mut best: Option<(usize, String)> = None;
    walk(root, "", &mut |span, path| {
        let holds = span.start <= target.start && target.end <= span.end;
        let shorter = best.as_ref().is_none_or(|(len, _)| span.len() < *len);
        if holds && shorter {
            best = Some((span.len(), path.to_owned()));
        }
    });
    best.map(|(_, path)| path)
}

fn walk(table: &DeTable<'_>, prefix: &str, visit: &mut impl FnMut(Range<usize>, &str)) {
    for (key, value) in table {
        let dot = if prefix.is_empty() { "" } else { "." };
        let path = format!("{prefix}{dot}{}", key.get_ref());
        walk_value(value, &path, visit);
        visit(key.span(), &path);
    }
}

fn walk_value(
    value: &Spanned<DeValue<'_>>,
    path: &str,
    visit: &mut impl FnMut(Range<usize>, &str),
) {
    match value.get_ref() {
        DeValue::Table(table) => walk(table, path, visit),
        DeValue::Array(array) => {
            for (index, item) in array.iter().enumerate() {
                let name = item
                    .get_ref()
                    .get("name")
                    .and_then(|name| name.get_ref().as_str());
                let path = match name {
                    Some(name) => format!("{path}[{name}]"),
                    None => format!("{path}[{index}]"),
                };
                walk_value(item, &path, visit);
            }
        }
        _ => {}
    }
    visit(value.span(), path);
}

/// Fills in the key path of each diagnostic about `text`.
pub(super) fn name_paths<'a>(text: &str, diagnostics: impl Iterator<Item = &'a mut Diagnostic>) {
    let (root, _) = DeTable::parse_recoverable(text);
    for diagnostic in diagnostics {
        if let Some(place) = &diagnostic.place {
            diagnostic.path = path(root.get_ref(), &place.span);
        }
    }
}
