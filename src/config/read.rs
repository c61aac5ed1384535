//! Files to [`File`]s: reads a file and its includes, and finds all problems that do not depend on the meaning
//! of values.
//!
//! There are three passes per file, so that one run reports everything: syntax, with the parser's recovery;
//! unknown keys, in the parsed tree; types, by reading the tree, where a wrong value is reported and removed
//! and the rest is read again. Reads files and nothing else.

use super::Loader;
use super::diagnostic::{Diagnostic, Report};
use super::include::FILES_MAX;
use super::keys::File;
use super::source::{Place, Source};
use super::syntax::Repeats;
use super::tree::{self, RemovedKeys};
use super::{disk, include, interpolate, syntax, unknown, words};
use serde::Deserialize;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, Deserializer};

/// Most bytes of all files of a configuration together.
pub const BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Most keys, values, brackets and lines of all files of a configuration together: time and memory depend on
/// them. Enough for 80,000 servers with one line each.
pub const MARKS_MAX: usize = 500_000;
/// Most of them that are processed again because there was a mistake near them.
const REPEATED_MARKS_MAX: usize = 2_000_000;
/// Most processor time in which the files of a configuration are read. Some files of /proc and /sys are made when they
/// are read. Waiting for a slow disk does not count.
const READ_TIME_MAX: Duration = Duration::from_millis(500);
/// Deepest nesting of includes.
pub const INCLUDE_DEPTH_MAX: usize = 8;

/// One file of the configuration.
#[derive(Debug)]
pub(super) struct ParsedFile {
    pub(super) source: Arc<Source>,
    pub(super) file: File,
    /// Keys that were wrong and are no longer in `file`.
    pub(super) removed: RemovedKeys,
}

/// The result of reading.
#[derive(Debug)]
pub(super) struct Read {
    /// The files, in order.
    pub(super) files: Vec<ParsedFile>,
    /// Files, even if they do not exist, and patterns.
    pub(super) looked_at: Vec<PathBuf>,
}

/// Reads the configuration that begins with `path`: first that file, which may be a pipe if `pipe`, then its
/// includes.
pub(super) fn path(path: &Path, pipe: bool, loader: &Loader<'_>, report: &mut Report) -> Read {
    let mut reader = Reader::new(loader, report);
    reader.pipe = pipe;
    reader.file(path, None);
    reader.finish()
}

/// Reads a configuration from memory.
pub(super) fn memory(name: &str, text: &str, loader: &Loader<'_>, report: &mut Report) -> Read {
    let mut reader = Reader::new(loader, report);
    let source = Source::new(name.to_owned(), text.to_owned());
    reader.source(&Arc::new(source));
    reader.finish()
}

struct Reader<'a> {
    loader: &'a Loader<'a>,
    report: &'a mut Report,
    known: &'static unknown::Known,
    /// Whether the first file may be a pipe.
    pipe: bool,
    references: interpolate::References,
    files: Vec<ParsedFile>,
    /// The files with includes that are being read, outermost first.
    open: Vec<PathBuf>,
    /// The files that were looked for, whether they could be read or not.
    seen: HashSet<PathBuf>,
    /// A bound was reached: no further file is read.
    is_full: bool,
    /// Bytes that were read, those included that are no configuration.
    read_bytes: u64,
    /// Processor time that reading has taken.
    read_time: Duration,
    /// Files and patterns that were looked for.
    looked_at: Vec<PathBuf>,
    /// How much more may be read.
    bytes: u64,
    marks: usize,
    repeats: Repeats,
    entries: usize,
}

impl<'a> Reader<'a> {
    fn new(loader: &'a Loader<'a>, report: &'a mut Report) -> Self {
        Self {
            loader,
            report,
            known: unknown::Known::shared(),
            pipe: false,
            references: interpolate::References::default(),
            files: Vec::new(),
            open: Vec::new(),
            seen: HashSet::new(),
            is_full: false,
            read_bytes: 0,
            read_time: Duration::ZERO,
            looked_at: Vec::new(),
            bytes: BYTES_MAX,
            marks: MARKS_MAX,
            repeats: Repeats(REPEATED_MARKS_MAX),
            entries: include::ENTRIES_MAX,
        }
    }

    fn finish(self) -> Read {
        Read {
            files: self.files,
            looked_at: self.looked_at,
        }
    }

    fn file(&mut self, path: &Path, included_at: Option<&Place>) {
        self.looked_at.push(path.to_owned());
        let name = path.display().to_string();
        let at = |diagnostic: Diagnostic| match included_at {
            Some(place) => diagnostic.at(place.clone()),
            None => diagnostic,
        };
        let begun = processor_time();
        let identity = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if let Some(problem) = self.refuse(&name, &identity) {
            self.report.push(at(problem));
            return;
        }
        self.seen.insert(identity.clone());
        let read = if included_at.is_none() && self.pipe {
            disk::bytes_or_pipe(path, BYTES_MAX)
        } else {
            disk::bytes(path, BYTES_MAX, &mut self.read_bytes)
        };
        self.read_time += processor_time().saturating_sub(begun);
        // HAProxy takes any bytes, so that a file of it need not be UTF-8.
        let is_haproxys = |bytes: &Vec<u8>| words::is_haproxy_file(&String::from_utf8_lossy(bytes));
        if read.as_ref().is_ok_and(is_haproxys) {
            let message = format!("`{name}` is a configuration of HAProxy, not of rlb");
            let problem = Diagnostic::error("haproxy-file", message).hint(words::HAPROXY_FILE);
            self.report.push(at(problem));
            return self.something_is_missing();
        }
        let text = match read.and_then(disk::utf8) {
            Ok(text) => text,
            Err(why) => {
                let message = format!("cannot read `{name}`: {why}");
                self.report
                    .push(at(Diagnostic::error("unreadable", message)));
                return self.something_is_missing();
            }
        };
        self.open.push(identity);
        self.source(&Arc::new(Source::new(name, text)));
        self.open.pop();
    }

    /// Why the file is not read.
    fn refuse(&mut self, name: &str, identity: &PathBuf) -> Option<Diagnostic> {
        let error = |message: String| Some(Diagnostic::error("include", message));
        if self.open.contains(identity) {
            error(format!("`{name}` includes itself"))
        } else if self.seen.contains(identity) {
            let message = format!("`{name}` is included twice, read once");
            Some(Diagnostic::warning("include", message))
        } else if self.open.len() > INCLUDE_DEPTH_MAX {
            error(format!(
                "includes are nested deeper than {INCLUDE_DEPTH_MAX}"
            ))
        } else {
            let bound = if self.seen.len() >= FILES_MAX {
                format!("more than {FILES_MAX} files")
            } else if self.read_bytes > BYTES_MAX {
                format!("the files have more than {BYTES_MAX} bytes")
            } else if self.read_time > READ_TIME_MAX {
                format!("reading the files takes more than {READ_TIME_MAX:?} of processor time")
            } else {
                return None;
            };
            self.is_full = true;
            self.something_is_missing();
            error(format!("{bound}: `{name}` and what follows is not read"))
        }
    }

    /// Marks that keys may be missing. A name that is not defined may be defined in what was not read, so it is
    /// not reported.
    fn something_is_missing(&mut self) {
        if let Some(first) = self.files.first_mut() {
            first.removed.insert_all();
        }
    }

    fn source(&mut self, source: &Arc<Source>) {
        let marks = syntax::marks(&source.text);
        let bytes = source.text.len() as u64;
        if marks > self.marks || bytes > self.bytes {
            let message = if bytes > self.bytes {
                format!("the configuration has more than {BYTES_MAX} bytes")
            } else {
                format!("the configuration has more than {MARKS_MAX} keys, values and lines")
            };
            let problem = Diagnostic::error("too-large", message);
            self.report.push(problem.at(Place::new(source, 0..0)));
            return self.something_is_missing();
        }
        self.marks -= marks;
        self.bytes -= bytes;
        let parsed = self.parse(source, marks);
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
        if self.is_full {
            return;
        }
        let directory = Path::new(&place.source.name)
            .parent()
            .unwrap_or(Path::new(""));
        let full = directory.join(pattern);
        if !include::is_pattern(pattern) {
            self.file(&full, Some(place));
            return;
        }
        self.looked_at.push(full);
        let found = match include::find(directory, pattern, &mut self.entries) {
            Ok(found) => found,
            Err(problem) => {
                let diagnostic = Diagnostic::error("include", problem.message);
                self.report
                    .push_quoting(place.clone(), diagnostic.maybe_hint(problem.hint));
                return self.something_is_missing();
            }
        };
        if found.files.is_empty() && found.problems.is_empty() {
            let problem = Diagnostic::warning("include", "no file matches");
            self.report.push(problem.at(place.clone()));
        }
        if !found.problems.is_empty() {
            self.something_is_missing();
        }
        for message in found.problems {
            self.report
                .push(Diagnostic::error("include", message).at(place.clone()));
        }
        for path in found.files {
            if self.is_full || self.report.is_full() {
                return self.something_is_missing();
            }
            self.file(&path, Some(place));
        }
    }

    /// The three passes over a file with this many marks.
    fn parse(&mut self, source: &Arc<Source>, marks: usize) -> ParsedFile {
        let report = &mut *self.report;
        let mut removed = RemovedKeys::default();
        let repeats = (marks, &mut self.repeats);
        let text = syntax::blank_broken(source, repeats, &mut removed, report);
        let mut table = syntax::parse(&text, &mut removed);
        let references = (self.loader, &mut self.references);
        let secrets =
            interpolate::interpolate(references, source, &mut table, &mut removed, report);
        self.looked_at.extend(secrets);
        unknown::unknown_keys(self.known, source, &mut table, &mut removed, report);
        let file = self.types(source, marks, &mut table, &mut removed);
        ParsedFile {
            source: Arc::clone(source),
            file,
            removed,
        }
    }

    /// Reads the table. A value of the wrong type is reported and removed, and the whole table is read again.
    fn types(
        &mut self,
        source: &Arc<Source>,
        marks: usize,
        table: &mut DeTable<'_>,
        removed: &mut RemovedKeys,
    ) -> File {
        loop {
            match File::deserialize(Deserializer::from(Spanned::new(0..0, table.clone()))) {
                Ok(file) => return file,
                Err(error) => {
                    let at = error.span().unwrap_or_default();
                    type_error(&error, Place::new(source, at.clone()), self.report);
                    if !tree::cut(table, &at, removed) {
                        break;
                    }
                    if self.report.is_full() || !self.repeats.take(marks) {
                        let message =
                            "there may be more wrong types than were looked for in one run";
                        let problem = Diagnostic::error("too-many", message);
                        let end = source.text.len();
                        self.report.push(problem.at(Place::new(source, end..end)));
                        break;
                    }
                }
            }
        }
        removed.insert_all();
        File::default()
    }
}

/// The processor time that this thread has used.
pub(crate) fn processor_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap_or_default()
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
        (_, "a table")
            if written
                .trim_start_matches(['"', '\''])
                .starts_with("socket") =>
        {
            words::instead("stats").map(str::to_owned)
        }
        (_, "a number" | "a boolean") => {
            let quote = written.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            let bare = written.strip_prefix(quote)?.strip_suffix(quote)?;
            let fits = bare.parse::<i64>().is_ok() || bare.parse::<bool>().is_ok();
            fits.then(|| format!("write {bare}, without quotes"))
        }
        (_, "a table" | "a list") => example(expected, place),
        _ => None,
    }
}

/// What to write where a list of tables, or one of them, is written as its most important value.
fn example(expected: &str, place: &Place) -> Option<String> {
    let (before, written) = (&place.source.text[..place.span.start], place.text());
    let (before, _) = before.rsplit_once('=')?;
    let mut words = before.trim_end().rsplit(|it: char| !it.is_alphanumeric());
    match (words.next()?, expected) {
        ("servers", "a list") => Some(format!(
            "write servers = [{{ name = \"s1\", address = {written} }}]"
        )),
        ("servers", _) => Some(format!("write {{ name = \"s1\", address = {written} }}")),
        ("target", _) => Some(
            "write [[log.target]] and `to = \"unix:/dev/log\"` as a key of that table".to_owned(),
        ),
        _ => None,
    }
}
