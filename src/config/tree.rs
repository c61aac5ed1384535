//! The parsed file as a tree: the keys that were removed because they were wrong, and the places of keys.
//!
//! Pure. A wrong value is reported and removed, so that the rest can be read and checked. [`RemovedKeys`]
//! remembers it, so that it is not reported as missing.

use super::diagnostic::Diagnostic;
use std::collections::HashSet;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Keys that were removed from a file.
#[derive(Debug, Default)]
pub(super) struct RemovedKeys {
    keys: HashSet<(Range<usize>, String)>,
    top: HashSet<String>,
    everything: bool,
}

impl RemovedKeys {
    /// `key` was removed from the table at `table`, completely or in part.
    pub(super) fn insert(&mut self, table: &Range<usize>, key: &str) {
        self.keys.insert((table.clone(), key.to_owned()));
    }

    /// Any key may have been removed: the file's structure is broken.
    pub(super) fn insert_all(&mut self) {
        self.everything = true;
    }

    /// Whether the table at `table` had `key` before something was removed.
    pub(super) fn contains(&self, table: &Range<usize>, key: &str) -> bool {
        self.everything || self.keys.contains(&(table.clone(), key.to_owned()))
    }

    /// A whole table below the top-level `key`, or the name of one, was removed.
    pub(super) fn insert_name(&mut self, key: &str) {
        self.top.insert(key.to_owned());
    }

    /// Whether a table below the top-level `key`, or the name of one, was removed. If so, a reference to it
    /// cannot be checked.
    pub(super) fn names_below(&self, key: &str) -> bool {
        self.everything || self.top.contains(key)
    }
}

/// Removes the innermost value or key at `target`, otherwise the innermost one that contains it. Returns
/// whether one was found.
pub(super) fn cut(
    root: &mut DeTable<'_>,
    target: &Range<usize>,
    removed: &mut RemovedKeys,
) -> bool {
    [true, false]
        .into_iter()
        .any(|exact| cut_table(root, None, target, removed, exact).is_some())
}

/// Removes the values and keys at `targets`, as [`cut`] does, in one walk if they are at exactly these places.
/// When too many are not, the whole table is given up.
pub(super) fn cut_all(
    root: &mut DeTable<'_>,
    targets: impl IntoIterator<Item = Range<usize>>,
    removed: &mut RemovedKeys,
) {
    /// Most targets that get a walk of their own.
    const WALKS_MAX: usize = 32;
    let mut targets: HashSet<Range<usize>> = targets.into_iter().collect();
    if !targets.is_empty() {
        cut_exact(root, None, &mut targets, removed);
    }
    if targets.len() > WALKS_MAX {
        removed.insert_all();
        root.clear();
    }
    for target in targets {
        cut(root, &target, removed);
    }
}

/// Removes the values and keys that are exactly at one of `targets`, and removes these targets.
fn cut_exact(
    table: &mut DeTable<'_>,
    span: Option<&Range<usize>>,
    targets: &mut HashSet<Range<usize>>,
    removed: &mut RemovedKeys,
) -> Vec<Cut> {
    let mut cuts = Vec::new();
    let mut own = Vec::new();
    for (key, value) in table.iter_mut() {
        let inner = cut_exact_value(value, targets, removed);
        for mut cut in inner {
            cut.depth += 1;
            record(removed, span, key.get_ref(), &cut);
            cuts.push(cut);
        }
        // Both may be targets.
        let (by_key, by_value) = (targets.remove(&key.span()), targets.remove(&value.span()));
        if by_key || by_value {
            own.push(key.get_ref().clone().into_owned());
        }
    }
    for key in own {
        table.remove(key.as_str());
        let cut = Cut { depth: 0, key };
        record(removed, span, &cut.key, &cut);
        cuts.push(cut);
    }
    cuts
}

fn cut_exact_value(
    value: &mut Spanned<DeValue<'_>>,
    targets: &mut HashSet<Range<usize>>,
    removed: &mut RemovedKeys,
) -> Vec<Cut> {
    let span = value.span();
    match value.get_mut() {
        DeValue::Table(table) => cut_exact(table, Some(&span), targets, removed),
        DeValue::Array(array) => {
            let mut cuts = Vec::new();
            for item in array.iter_mut() {
                let inner = cut_exact_value(item, targets, removed);
                cuts.extend(inner.into_iter().map(|cut| Cut {
                    depth: cut.depth + 1,
                    ..cut
                }));
            }
            if array.iter().any(|item| targets.contains(&item.span())) {
                let items = array.iter().filter(|item| !targets.remove(&item.span()));
                *array = items.cloned().collect();
                cuts.push(Cut {
                    depth: 0,
                    key: String::new(),
                });
            }
            cuts
        }
        _ => Vec::new(),
    }
}

/// What was removed: its depth below the current table or list, and its key.
struct Cut {
    depth: usize,
    key: String,
}

fn cut_table(
    table: &mut DeTable<'_>,
    span: Option<&Range<usize>>,
    target: &Range<usize>,
    removed: &mut RemovedKeys,
    exact: bool,
) -> Option<Cut> {
    let mut found = None;
    for (key, value) in table.iter_mut() {
        if let Some(cut) = cut_value(value, target, removed, exact) {
            let cut = Cut {
                depth: cut.depth + 1,
                ..cut
            };
            record(removed, span, key.get_ref(), &cut);
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
    record(removed, span, &cut.key, &cut);
    table.remove(cut.key.as_str());
    Some(cut)
}

fn cut_value(
    value: &mut Spanned<DeValue<'_>>,
    target: &Range<usize>,
    removed: &mut RemovedKeys,
    exact: bool,
) -> Option<Cut> {
    let span = value.span();
    match value.get_mut() {
        DeValue::Table(table) => cut_table(table, Some(&span), target, removed, exact),
        DeValue::Array(array) => {
            let inner = array
                .iter_mut()
                .find_map(|item| cut_value(item, target, removed, exact));
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

fn record(removed: &mut RemovedKeys, span: Option<&Range<usize>>, key: &str, cut: &Cut) {
    match span {
        Some(span) => removed.insert(span, key),
        // A top-level key, a table below it, or a table's name.
        None if cut.depth <= 1 || cut.key == "name" => removed.insert_name(key),
        None => {}
    }
}

/// Fills in the key path of each diagnostic of `text`: `frontend[postgres].bind[0]`.
pub(super) fn name_paths<'a>(text: &str, diagnostics: impl Iterator<Item = &'a mut Diagnostic>) {
    let (root, _) = DeTable::parse_recoverable(text);
    let mut wanted: Vec<_> = diagnostics
        .filter_map(|diagnostic| {
            let span = diagnostic.place.as_ref()?.span.clone();
            Some((span, usize::MAX, diagnostic))
        })
        .collect();
    wanted.sort_by_key(|(span, _, _)| span.start);
    let mut naming = Naming {
        stack: Vec::new(),
        wanted,
    };
    naming.table(root.get_ref());
}

/// A walk over a tree that tracks its path.
struct Naming<'t, 'd> {
    stack: Vec<Step<'t>>,
    /// The span of a diagnostic, the length of the smallest span so far that contains it, and the diagnostic;
    /// sorted by the start of the span.
    wanted: Vec<(Range<usize>, usize, &'d mut Diagnostic)>,
}

enum Step<'t> {
    Key(&'t str),
    Name(&'t str),
    Index(usize),
}

impl<'t> Naming<'t, '_> {
    fn table(&mut self, table: &'t DeTable<'_>) {
        for (key, value) in table {
            self.stack.push(Step::Key(key.get_ref()));
            self.value(value);
            self.visit(&key.span());
            self.stack.pop();
        }
    }

    fn value(&mut self, value: &'t Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => self.table(table),
            DeValue::Array(array) => {
                for (index, item) in array.iter().enumerate() {
                    let name = item.get_ref().get("name");
                    let name = name.and_then(|name| name.get_ref().as_str());
                    self.stack.push(name.map_or(Step::Index(index), Step::Name));
                    self.value(item);
                    self.stack.pop();
                }
            }
            _ => {}
        }
        // After its content: the span of a header is also that of its list, and the item is meant.
        self.visit(&value.span());
    }

    fn visit(&mut self, span: &Range<usize>) {
        let first = { &self.wanted }.partition_point(|(target, _, _)| target.start < span.start);
        for (target, best, diagnostic) in &mut self.wanted[first..] {
            if target.start > span.end {
                break;
            }
            if span.start <= target.start && target.end <= span.end && span.len() < *best {
                *best = span.len();
                diagnostic.path = Some(spell(&self.stack));
            }
        }
    }
}

fn spell(stack: &[Step<'_>]) -> String {
    let mut path = String::new();
    for step in stack {
        match step {
            Step::Key(key) if path.is_empty() => path.push_str(key),
            Step::Key(key) => path.extend([".", key]),
            Step::Name(name) => path.extend(["[", name, "]"]),
            Step::Index(index) => path.extend(["[", &index.to_string(), "]"]),
        }
    }
    path
}
