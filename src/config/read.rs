//! Files to [`File`]s: reads a file and what it includes, and finds everything that can be found
//! without knowing what the values mean.
//!
//! Three passes a file, so that one run reports everything: syntax, with the parser's recovery;
//! unknown keys, over the parsed tree; types, by reading the tree, where a wrong value is reported
//! and removed and the rest read again. Touches the disk, nothing else.

use super::Loader;
use super::diagnostic::{DIAGNOSTICS_MAX, Diagnostic, Report};
use super::keys::File;
use super::source::{Place, Source};
use super::tree::{self, RemovedKeys};
use super::{disk, interpolate, syntax, unknown, words};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::Spanned;
use toml::de::Deserializer;

/// Largest file, in bytes.
pub const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Most files of one configuration.
pub const FILES_MAX: usize = 1000;
/// Deepest nesting of includes.
pub const INCLUDE_DEPTH_MAX: usize = 8;

/// One file of the configuration.
#[derive(Debug)]
pub(super) struct ParsedFile {
    pub(super) source: Arc<Source>,
    pub(super) file: File,
    /// What was wrong and is no longer in `file`.
    pub(super) removed: RemovedKeys,
    /// The files of its `${file:…}`.
    secrets: Vec<PathBuf>,
}

/// Reads the configuration that begins with `path`: that file first, then what it includes.
pub(super) fn path(path: &Path, loader: &Loader<'_>, report: &mut Report) -> Vec<ParsedFile> {
    let mut reader = Reader::new(loader, report);
    reader.file(path, None);
    reader.files
}

/// Everything that [`path`] looks at: files that are there, files that are not, and patterns.
pub(super) fn looked_at(path: &Path, loader: &Loader<'_>) -> Vec<PathBuf> {
    let mut report = Report::default();
    let mut reader = Reader::new(loader, &mut report);
    reader.file(path, None);
    let Reader {
        files,
        mut looked_at,
        ..
    } = reader;
    looked_at.extend(files.into_iter().flat_map(|file| file.secrets));
    looked_at
}

/// Reads a configuration from memory.
pub(super) fn memory(
    name: &str,
    text: &str,
    loader: &Loader<'_>,
    report: &mut Report,
) -> Vec<ParsedFile> {
    let mut reader = Reader::new(loader, report);
    let source = Source {
        name: name.to_owned(),
        text: text.to_owned(),
    };
    reader.source(&Arc::new(source));
    reader.files
}

struct Reader<'a> {
    loader: &'a Loader<'a>,
    report: &'a mut Report,
    known: unknown::Known,
    files: Vec<ParsedFile>,
    /// The files whose includes are being read, outermost first.
    open: Vec<PathBuf>,
    seen: Vec<PathBuf>,
    /// Files and patterns that were asked for.
    looked_at: Vec<PathBuf>,
}

impl<'a> Reader<'a> {
    fn new(loader: &'a Loader<'a>, report: &'a mut Report) -> Self {
        let known = unknown::Known::new();
        Self {
            loader,
            report,
            known,
            files: Vec::new(),
            open: Vec::new(),
            seen: Vec::new(),
            looked_at: Vec::new(),
        }
    }

    fn file(&mut self, path: &Path, included_at: Option<&Place>) {
        self.looked_at.push(path.to_owned());
        let name = path.display().to_string();
        let at = |diagnostic: Diagnostic| match included_at {
            Some(place) => diagnostic.at(place.clone()),
            None => diagnostic,
        };
        let text = match disk::text(path, FILE_BYTES_MAX) {
            Ok(text) => text,
            Err(why) => {
                let message = format!("cannot read `{name}`: {why}");
                self.report
                    .push(at(Diagnostic::error("unreadable", message)));
                if let Some(first) = self.files.first_mut() {
                    first.removed.insert_all();
                }
                return;
            }
        };
        let identity = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let problem = if self.open.contains(&identity) {
            Some(Diagnostic::error(
                "include",
                format!("`{name}` includes itself"),
            ))
        } else if self.seen.contains(&identity) {
            Some(Diagnostic::warning(
                "include",
                format!("`{name}` is included twice, read once"),
            ))
        } else if self.open.len() > INCLUDE_DEPTH_MAX {
            let message = format!("includes are nested deeper than {INCLUDE_DEPTH_MAX}");
            Some(Diagnostic::error("include", message))
        } else if self.seen.len() >= FILES_MAX {
            Some(Diagnostic::error(
                "include",
                format!("more than {FILES_MAX} files"),
            ))
        } else {
            None
        };
        if let Some(problem) = problem {
            self.report.push(at(problem));
            return;
        }
        self.seen.push(identity.clone());
        self.open.push(identity);
        self.source(&Arc::new(Source { name, text }));
        self.open.pop();
    }

    fn source(&mut self, source: &Arc<Source>) {
        let parsed = parse(source, self.loader, &self.known, self.report);
        let include = parsed.file.include.clone();
        self.files.push(parsed);
        for pattern in include.into_iter().flat_map(|include| include.0) {
            self.include(&pattern.value, &Place::new(source, pattern.span));
        }
    }

    fn include(&mut self, pattern: &str, place: &Place) {
        if !self.loader.disk {
            self.report
                .push(Diagnostic::error("include", "files are not read here").at(place.clone()));
            return;
        }
        let directory = Path::new(&place.source.name)
            .parent()
            .unwrap_or(Path::new(""));
        let full = directory.join(pattern);
        if !pattern.contains(['*', '?', '[']) {
            self.file(&full, Some(place));
            return;
        }
        self.looked_at.push(full);
        // The directory is a name, whatever stands in it; only what was written is a pattern.
        let escaped = glob::Pattern::escape(&directory.display().to_string());
        let full = Path::new(&escaped).join(pattern).display().to_string();
        // Editors leave hidden files behind.
        let visible = glob::MatchOptions {
            require_literal_leading_dot: true,
            ..glob::MatchOptions::new()
        };
        let paths = match glob::glob_with(&full, visible) {
            Ok(paths) => paths,
            Err(error) => {
                let problem = Diagnostic::error("include", "the pattern is not valid");
                self.report
                    .push_quoting(place.clone(), problem.label(error.msg));
                return;
            }
        };
        let mut found = false;
        // The crate yields the paths of a directory in the order of their names.
        for path in paths {
            match path {
                Ok(path) if path.is_dir() => {}
                Ok(path) => {
                    found = true;
                    self.file(&path, Some(place));
                }
                Err(error) => {
                    let message = format!("cannot read a directory: {}", error.error());
                    self.report
                        .push(Diagnostic::error("include", message).at(place.clone()));
                }
            }
        }
        if !found {
            let problem = Diagnostic::warning("include", "no file matches");
            self.report.push(problem.at(place.clone()));
        }
    }
}

/// The three passes.
fn parse(
    source: &Arc<Source>,
    loader: &Loader<'_>,
    known: &unknown::Known,
    report: &mut Report,
) -> ParsedFile {
    let mut removed = RemovedKeys::default();
    let text = syntax::blank_broken(source, &mut removed, report);
    let mut table = syntax::parse(&text, &mut removed);
    let secrets = interpolate::interpolate(loader, source, &mut table, &mut removed, report);
    unknown::unknown_keys(known, source, &mut table, &mut removed, report);
    for _ in 0..DIAGNOSTICS_MAX {
        match File::deserialize(Deserializer::from(Spanned::new(0..0, table.clone()))) {
            Ok(file) => {
                return ParsedFile {
                    source: Arc::clone(source),
                    file,
                    removed,
                    secrets,
                };
            }
            Err(error) => {
                let at = error.span().unwrap_or_default();
                type_error(&error, Place::new(source, at.clone()), report);
                if report.is_full() || !tree::cut(&mut table, &at, &mut removed) {
                    break;
                }
            }
        }
    }
    removed.insert_all();
    ParsedFile {
        source: Arc::clone(source),
        file: File::default(),
        removed,
        secrets,
    }
}

fn split_expected(message: &str) -> (&str, Option<&str>) {
    match message.split_once(", expected ") {
        Some((what, expected)) => (what, Some(expected)),
        None => (message, None),
    }
}

fn type_error(error: &toml::de::Error, place: Place, report: &mut Report) {
    let (what, expected) = split_expected(error.message());
    let expected = expected.map(|expected| match expected {
        "i64" | "u32" | "u16" => "a number",
        "a sequence" => "a list",
        "a map" => "a table",
        "a string" => "a string in quotes",
        expected if expected.starts_with("struct ") => "a table",
        expected => expected,
    });
    let diagnostic = if let Some(value) = what.strip_prefix("unknown variant ") {
        let bare = value.trim_matches('`');
        let candidates: Vec<&str> = expected
            .unwrap_or_default()
            .split('`')
            .skip(1)
            .step_by(2)
            .collect();
        let hint = words::haproxy_value(bare).or_else(|| words::did_you_mean(bare, candidates));
        Diagnostic::error("unknown-value", format!("unknown value {value}")).maybe_hint(hint)
    } else if let Some(found) = what
        .strip_prefix("invalid type: ")
        .or_else(|| what.strip_prefix("invalid value: "))
    {
        let found = found.replace("sequence", "list").replace("map", "table");
        let hint = type_hint(&found, expected.unwrap_or_default(), &place);
        Diagnostic::error("wrong-type", format!("wrong type: {found}")).maybe_hint(hint)
    } else if what.starts_with("invalid length") {
        Diagnostic::error("wrong-type", "wrong type: list")
    } else if what == "wanted string or table" {
        Diagnostic::error("wrong-type", "wrong type").label("expected a word in quotes")
    } else if let Some((what, hint)) = what.split_once(", write ") {
        Diagnostic::error("value", what)
            .label("expected a number with its unit")
            .hint(format!("write {hint}"))
    } else {
        Diagnostic::error("value", what)
    };
    let diagnostic = match expected {
        Some(expected) => diagnostic.label(format!("expected {expected}")),
        None => diagnostic,
    };
    report.push_quoting(place, diagnostic);
}

fn type_hint(found: &str, expected: &str, place: &Place) -> Option<String> {
    let written = place.text();
    if expected.contains("duration") && found.starts_with("integer") {
        return Some(format!(
            "write \"{written}s\" for seconds or \"{written}ms\" for milliseconds (a bare number \
             in HAProxy is milliseconds)"
        ));
    }
    match (found, expected) {
        (_, "a number" | "a boolean") => {
            let quote = written.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            let bare = written.strip_prefix(quote)?.strip_suffix(quote)?;
            let fits = bare.parse::<i64>().is_ok() || bare.parse::<bool>().is_ok();
            fits.then(|| format!("write {bare}, without quotes"))
        }
        _ => None,
    }
}
