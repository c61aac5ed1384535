//! `${NAME}`, `${NAME-default}` and `${file:/path}` inside strings; `$${` stands for `${`.
//!
//! Runs after a file is parsed and before values are read from it, so that a value never becomes syntax. The
//! values never appear in a diagnostic: the report hides them.

use super::Loader;
use super::diagnostic::{Diagnostic, Report};
use super::source::{Place, Source};
use super::tree::{self, RemovedKeys};
use super::units::Problem;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Longest content of a `${file:…}`.
pub const SECRET_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Most bytes of all values of references in a configuration.
pub const REFERENCE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most different values of all references in a configuration.
pub const REFERENCE_VALUES_MAX: usize = 1000;

/// The values of all references in a configuration so far.
#[derive(Debug, Default)]
pub(super) struct References {
    /// The content of each file, or why it could not be read; each is read once.
    files: HashMap<PathBuf, Result<Arc<str>, String>>,
    values: HashSet<Arc<str>>,
    bytes: usize,
}

impl References {
    fn file(&mut self, path: PathBuf) -> Result<Arc<str>, String> {
        if self.files.len() >= REFERENCE_VALUES_MAX && !self.files.contains_key(&path) {
            return Err(format!(
                "more than {REFERENCE_VALUES_MAX} files are asked for"
            ));
        }
        let read = self.files.entry(path).or_insert_with_key(|path| {
            let text = super::disk::text(path, SECRET_FILE_BYTES_MAX)?;
            let text = text.strip_suffix('\n').unwrap_or(&text);
            Ok(text.strip_suffix('\r').unwrap_or(text).into())
        });
        read.clone()
    }

    /// Counts a value; an error when there are too many.
    fn count(&mut self, value: &Arc<str>) -> Result<(), Problem> {
        self.bytes = self.bytes.saturating_add(value.len());
        if self.bytes > REFERENCE_BYTES_MAX {
            let message = format!("references stand for more than {REFERENCE_BYTES_MAX} bytes");
            return Err(Problem::new(message));
        }
        if !self.values.contains(value) {
            if self.values.len() >= REFERENCE_VALUES_MAX {
                let message =
                    format!("references stand for more than {REFERENCE_VALUES_MAX} values");
                return Err(Problem::new(message));
            }
            self.values.insert(Arc::clone(value));
        }
        Ok(())
    }
}

/// Replaces every reference in the strings of `table`. References that cannot be replaced are reported and
/// removed. Returns the files that were looked for, even if they could not be read.
pub(super) fn interpolate(
    (loader, references): (&Loader<'_>, &mut References),
    source: &Arc<Source>,
    table: &mut DeTable<'_>,
    removed: &mut RemovedKeys,
    report: &mut Report,
) -> Vec<PathBuf> {
    let mut pass = Pass {
        loader,
        references,
        source,
        report,
        failed: Vec::new(),
        files: Vec::new(),
    };
    table.iter_mut().for_each(|(_, value)| pass.value(value));
    let Pass { failed, files, .. } = pass;
    tree::cut_all(table, failed, removed);
    files
}

struct Pass<'a> {
    loader: &'a Loader<'a>,
    references: &'a mut References,
    source: &'a Arc<Source>,
    report: &'a mut Report,
    failed: Vec<Range<usize>>,
    files: Vec<PathBuf>,
}

impl Pass<'_> {
    fn value(&mut self, value: &mut Spanned<DeValue<'_>>) {
        let span = value.span();
        match value.get_mut() {
            DeValue::Table(table) => table.iter_mut().for_each(|(_, value)| self.value(value)),
            DeValue::Array(array) => array.iter_mut().for_each(|item| self.value(item)),
            DeValue::String(text) if text.contains("${") => {
                let place = Place::new(self.source, span.clone());
                match self.text(text, &place) {
                    Some(filled) => *text = filled.into(),
                    None => self.failed.push(span),
                }
            }
            _ => {}
        }
    }

    /// `None` when a reference could not be replaced.
    fn text(&mut self, text: &str, place: &Place) -> Option<String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        let mut complete = true;
        let mut filled = false;
        while let Some(at) = rest.find("${") {
            let (before, from) = rest.split_at(at);
            if let Some(kept) = before.strip_suffix('$') {
                out.push_str(kept);
                out.push_str("${");
                rest = &from[2..];
                continue;
            }
            out.push_str(before);
            let Some(end) = from.find('}') else {
                self.report.push_error(|| {
                    Diagnostic::error("reference", "`${` without a closing `}`")
                        .hint("write `$${` for the characters `${` themselves")
                        .at(narrow(place, from))
                });
                return None;
            };
            let reference = &from[..=end];
            match self.reference(&from[2..end]) {
                Ok(Filled::Outside(value)) => {
                    self.report.hide(&value, reference);
                    filled = true;
                    out.push_str(&value);
                }
                Ok(Filled::Default(value)) => out.push_str(&value),
                Err(problem) => {
                    self.report.push_error(|| {
                        Diagnostic::error("reference", problem.message)
                            .maybe_hint(problem.hint)
                            .at(narrow(place, reference))
                    });
                    complete = false;
                }
            }
            rest = &from[end + 1..];
        }
        out.push_str(rest);
        if filled {
            self.report.filled_in(place);
        }
        complete.then_some(out)
    }

    fn reference(&mut self, inner: &str) -> Result<Filled, Problem> {
        if let Some(path) = inner.strip_prefix("file:") {
            let value = self.file(path)?;
            self.references.count(&value)?;
            return Ok(Filled::Outside(value));
        }
        let (name, default) = match inner.split_once('-') {
            Some((name, default)) => (name, Some(default)),
            None => (inner, None),
        };
        let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_';
        let first = name.bytes().next().is_some_and(letter);
        if !first || !name.bytes().all(|b| letter(b) || b.is_ascii_digit()) {
            return Err(Problem::new(format!("`{name}` is not a variable's name"))
                .hint("write `${NAME}`, `${NAME-default}` or `${file:/path}`"));
        }
        match ((self.loader.environment)(name), default) {
            (Some(value), _) => {
                let value = Arc::from(value);
                self.references.count(&value)?;
                Ok(Filled::Outside(value))
            }
            (None, Some(default)) => Ok(Filled::Default(default.to_owned())),
            (None, None) => {
                let message = format!("environment variable `{name}` is not set");
                let hint = format!("set it, or give a default: `${{{name}-default}}`");
                Err(Problem::new(message).hint(hint))
            }
        }
    }

    fn file(&mut self, path: &str) -> Result<Arc<str>, Problem> {
        if !self.loader.disk {
            return Err(Problem::new("files are not read here"));
        }
        let directory = Path::new(&self.source.name)
            .parent()
            .unwrap_or(Path::new(""));
        let full = directory.join(path);
        if !self.references.files.contains_key(&full) {
            self.files.push(full.clone());
        }
        let value = self.references.file(full);
        value.map_err(|why| Problem::new(format!("cannot read `{path}`: {why}")))
    }
}

/// The value of a reference.
enum Filled {
    /// A value from outside the configuration, which is not shown.
    Outside(Arc<str>),
    /// The default that was written with it.
    Default(String),
}

/// The place of `part` in the string at `place`, when it is there unescaped.
fn narrow(place: &Place, part: &str) -> Place {
    match place.text().find(part) {
        Some(at) => {
            let start = place.span.start + at;
            Place::new(&place.source, start..start + part.len())
        }
        None => place.clone(),
    }
}
