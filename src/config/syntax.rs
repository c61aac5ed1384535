//! Pass 1 over a file: TOML syntax, with every error and as much of the tree as possible.
//!
//! The parser goes on after a value that it cannot read. But after a missing bracket it takes the following
//! text for a part of the same value. So after such an error the section with the error (from one `[header]` to
//! the next) is overwritten with blanks, and the text is parsed again: the other sections are still checked,
//! and every position stays right. Pure.

use super::diagnostic::{Diagnostic, Report};
use super::source::{Place, Source};
use super::tree::{self, RemovedKeys};
use std::ops::Range;
use std::sync::Arc;
use toml::de::DeTable;

/// Most sections that are blanked out; then the rest is given up.
const ROUNDS_MAX: usize = 32;

/// An upper bound of the parser's work for `text`: its keys, values, brackets and lines. A quoted string is one
/// value.
pub(super) fn marks(text: &str) -> usize {
    let mut marks = 0;
    // The byte that ends the current string or comment; both end with the line.
    let mut inside = None;
    let mut escaped = false;
    for byte in text.bytes() {
        match (inside, byte) {
            (_, b'\n' | b'\r') => {
                inside = None;
                marks += 1;
            }
            (Some(end), byte) => {
                if byte == end && !escaped {
                    inside = None;
                }
                escaped = end == b'"' && byte == b'\\' && !escaped;
            }
            (None, b'"' | b'\'') => {
                inside = Some(byte);
                escaped = false;
            }
            (None, b'#') => inside = Some(b'\n'),
            (None, b'=' | b',' | b'.' | b'[' | b']' | b'{' | b'}') => marks += 1,
            (None, _) => {}
        }
    }
    marks
}

/// How much may be processed again because of mistakes, in [`marks`].
#[derive(Debug)]
pub(super) struct Repeats(pub(super) usize);

impl Repeats {
    /// Whether a text with this many marks may be processed once more.
    pub(super) fn take(&mut self, marks: usize) -> bool {
        let left = self.0.checked_sub(marks.max(1));
        self.0 = left.unwrap_or(0);
        left.is_some()
    }
}

/// Makes most of `text` parse: reports every syntax error, and returns the text with the sections that have
/// errors blanked out.
pub(super) fn blank_broken(
    source: &Arc<Source>,
    (marks, repeats): (usize, &mut Repeats),
    removed: &mut RemovedKeys,
    report: &mut Report,
) -> String {
    let mut text = source.text.clone();
    for _ in 0..ROUNDS_MAX {
        let (_, errors) = DeTable::parse_recoverable(&text);
        let broken = errors.iter().find(|error| !is_local(error));
        let end = broken.map_or(usize::MAX, |error| error.span().unwrap_or_default().start);
        for error in &errors {
            let span = error.span().unwrap_or_default();
            if is_local(error) && span.start < end {
                report.push(explain(error, Place::new(source, span)));
            }
        }
        let Some(error) = broken else { return text };
        removed.insert_all();
        report.push(explain(
            error,
            Place::new(source, error.span().unwrap_or_default()),
        ));
        let section = section(&text, end, in_value(error));
        let blank: String = text[section.clone()]
            .bytes()
            .map(|byte| if byte == b'\n' { '\n' } else { ' ' })
            .collect();
        text.replace_range(section, &blank);
        if text.trim().is_empty() {
            return text;
        }
        if !repeats.take(marks) {
            break;
        }
    }
    let message = "there may be more mistakes in the syntax than were looked for in one run";
    let end = text.len();
    report.push(Diagnostic::error("too-many", message).at(Place::new(source, end..end)));
    " ".repeat(text.len())
}

/// Parses the result of [`blank_broken`]; values that could not be read are removed.
pub(super) fn parse<'t>(text: &'t str, removed: &mut RemovedKeys) -> DeTable<'t> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut table = table.into_inner();
    let bad = errors.iter().filter(|error| is_bad_value(error));
    tree::cut_all(&mut table, bad.filter_map(toml::de::Error::span), removed);
    table
}

fn is_bad_value(error: &toml::de::Error) -> bool {
    error.message().contains("must be quoted")
}

/// Whether the parser loses only one value.
fn is_local(error: &toml::de::Error) -> bool {
    is_bad_value(error) || error.message().starts_with("duplicate key")
}

/// Whether the error concerns the inside of a list or table value.
fn in_value(error: &toml::de::Error) -> bool {
    let message = error.message();
    !message.contains("array table")
        && ["array", "inline table"]
            .iter()
            .any(|what| message.contains(what))
}

/// The section around the byte at `at`. An error inside a value that appears at a header belongs to the section
/// before, where a bracket was not closed.
fn section(text: &str, at: usize, in_value: bool) -> Range<usize> {
    let at = at.min(text.len());
    let mut start = 0;
    let mut line_start = 0;
    for line in text.split_inclusive('\n') {
        let line_end = line_start + line.len();
        if is_header(line) {
            if line_start > at || (in_value && at > 0 && at < line_end) {
                return start..line_start;
            }
            start = line_start;
        }
        line_start = line_end;
    }
    start..text.len()
}

/// `[name` or `[[name` at the start of a line; a list in a configuration never begins like that.
fn is_header(line: &str) -> bool {
    let Some(rest) = line.trim_start().strip_prefix('[') else {
        return false;
    };
    let rest = rest.strip_prefix('[').unwrap_or(rest).trim_start();
    rest.starts_with(|c: char| c.is_ascii_alphabetic())
}

fn explain(error: &toml::de::Error, place: Place) -> Diagnostic {
    let message = error.message();
    let (what, expected) = match message.split_once(", expected ") {
        Some((what, expected)) => (what, Some(expected)),
        None => (message, None),
    };
    let diagnostic = if is_bad_value(error) {
        let what = if place.span.is_empty() {
            "the value is missing"
        } else {
            "not a value"
        };
        Diagnostic::error("syntax", what)
            .label("expected a string in quotes, a number, true, false, a list or a table")
    } else {
        let diagnostic = Diagnostic::error("syntax", what);
        match expected {
            Some(expected) => diagnostic.label(format!("expected {expected}")),
            None => diagnostic,
        }
    };
    let diagnostic = match message {
        _ if is_local(error) => diagnostic,
        _ => diagnostic.hint("the rest of this section is checked once this is right"),
    };
    diagnostic.at(place)
}
