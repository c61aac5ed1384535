//! Problems of a configuration: what is wrong, where, and what to do about it; as text and as JSON.
//!
//! Every stage of [`crate::config::load`] makes them; `rlb check`, and a start or reload that is refused, print
//! them. A diagnostic owns the text that it refers to, so it may outlive the load.

use super::source::Place;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde_json::{Value, json};
use std::collections::HashSet;

/// Most diagnostics of one load; further ones are only counted.
pub const DIAGNOSTICS_MAX: usize = 300;

/// The severity of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// The configuration can be used, but probably does not do what was intended.
    Warning,
}

impl Severity {
    /// The word of the text and JSON output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its severity.
    pub severity: Severity,
    /// Stable word for the kind of problem, for scripts: `unknown-key`.
    pub code: &'static str,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// The key: `frontend[postgres].bind`. Filled in at the end of the load.
    pub path: Option<String>,
    /// The wrong text; `None` when the problem has no place in a file.
    pub place: Option<Place>,
    /// Text beside the underlined place: what was expected.
    pub label: Option<String>,
    /// What to do: "did you mean …".
    pub hint: Option<String>,
    /// A second place that explains the first.
    pub related: Option<(Place, String)>,
}

impl Diagnostic {
    /// An error of kind `code`.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message.into())
    }

    /// A warning of kind `code`.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message.into())
    }

    fn new(severity: Severity, code: &'static str, message: String) -> Self {
        Self {
            severity,
            code,
            message,
            path: None,
            place: None,
            label: None,
            hint: None,
            related: None,
        }
    }

    /// The same, with its place.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// The same, with a text beside the underlined place.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// The same, with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, with advice when there is any.
    #[must_use]
    pub fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    /// The same, with a second place.
    #[must_use]
    pub fn also(mut self, place: Place, what: impl Into<String>) -> Self {
        self.related = Some((place, what.into()));
        self
    }

    /// One line: `rlb.toml:3:8: error: …`.
    pub fn line(&self) -> String {
        let place = self.place.as_ref().map_or_else(String::new, |place| {
            let start = place.start();
            format!("{}:{}:{}: ", place.source.name, start.line, start.column)
        });
        format!("{place}{}: {}", self.severity.name(), self.message)
    }

    /// In rustc's format: message, file, line, column, the underlined text, the hint. Ends without a newline.
    /// `color` adds terminal escapes.
    pub fn render(&self, color: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(self.message.as_str()).id(self.code);
        let mut group = Group::with_title(title);
        let related = self.related.as_ref().map(|(place, what)| {
            let mark: Mark<'_> = (place, AnnotationKind::Context, Some(what.as_str()));
            mark
        });
        let mut related = related.as_slice();
        if let Some(place) = &self.place {
            let mut marks = vec![(place, AnnotationKind::Primary, self.label.as_deref())];
            if related.iter().any(|(other, _, _)| is_near(place, other)) {
                marks.extend(related);
                related = &[];
            }
            group = add(group, &marks);
        }
        if !related.is_empty() {
            group = add(group, related);
        }
        let mut groups: Vec<Group<'_>> = vec![group];
        if let Some(hint) = &self.hint {
            groups.push(Group::with_title(
                Level::HELP.secondary_title(hint.as_str()),
            ));
        }
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        renderer.render(&groups)
    }

    /// One object of `rlb check --format json`; docs/configuration.md describes it.
    pub fn to_json(&self) -> Value {
        let mut object = json!({
            "severity": self.severity.name(),
            "code": self.code,
            "message": self.message,
            "label": self.label,
            "hint": self.hint,
            "path": self.path,
            "file": null,
            "line": null,
            "column": null,
            "end": null,
            "related": self.related.as_ref().map(|(place, what)| {
                let mut related = location(place);
                related["message"] = json!(what);
                related
            }),
        });
        if let (Some(place), Some(fields)) = (&self.place, object.as_object_mut())
            && let Value::Object(location) = location(place)
        {
            fields.extend(location);
        }
        object
    }
}

fn location(place: &Place) -> Value {
    let (start, end) = (place.start(), place.end());
    json!({
        "file": place.source.name,
        "line": start.line,
        "column": start.column,
        "end": { "line": end.line, "column": end.column },
    })
}

/// Most bytes of lines that are shown: the renderer reads everything that it gets.
const DRAWN_BYTES_MAX: usize = 16 * 1024;

type Mark<'a> = (&'a Place, AnnotationKind, Option<&'a str>);

/// Whether two places are shown in one text.
fn is_near(one: &Place, other: &Place) -> bool {
    let distance = one.span.start.abs_diff(other.span.start);
    one.source == other.source && distance <= DRAWN_BYTES_MAX / 2
}

/// Adds the lines of the marks; when they are too long, only the place.
fn add<'a>(group: Group<'a>, marks: &[Mark<'a>]) -> Group<'a> {
    let first = marks[0].0;
    let source = &first.source;
    let starts = marks.iter().map(|mark| mark.0.span.start);
    let ends = marks.iter().map(|mark| mark.0.span.end);
    let (from, to) = (starts.min().unwrap_or(0), ends.max().unwrap_or(0));
    let start = source.text[..from]
        .rfind('\n')
        .map_or(0, |newline| newline + 1);
    let end = source.text[to..]
        .find('\n')
        .map_or(source.text.len(), |newline| to + newline);
    let position = first.start();
    if end - start > DRAWN_BYTES_MAX {
        let origin = Origin::path(source.name.as_str());
        return group.element(origin.line(position.line).char_column(position.column));
    }
    let line = Place::new(source, from..from).start().line;
    let snippet = Snippet::source(&source.text[start..end])
        .line_start(line)
        .path(source.name.as_str());
    group.element(
        snippet.annotations(marks.iter().map(|(place, kind, label)| {
            kind.span(place.span.start - start..place.span.end - start)
                .label(*label)
        })),
    )
}

/// Collects diagnostics, at most [`DIAGNOSTICS_MAX`], without secrets.
#[derive(Debug, Default)]
pub(super) struct Report {
    diagnostics: Vec<Diagnostic>,
    dropped: usize,
    dropped_error: bool,
    /// Every value that was taken from the environment or a file, and its placeholder.
    secrets: Vec<(String, String)>,
    /// Strings that contain such a value: the address of their source, and their start.
    filled_in: HashSet<(usize, usize)>,
}

/// Identifies a place during a load; all sources exist until its end.
fn key(place: &Place) -> (usize, usize) {
    (
        std::sync::Arc::as_ptr(&place.source).addr(),
        place.span.start,
    )
}

/// Shorter values are not hidden: they would replace parts of ordinary words.
const SECRET_BYTES_MIN: usize = 3;

impl Report {
    /// From now on `value` is shown as `placeholder`.
    pub(super) fn hide(&mut self, value: &str, placeholder: &str) {
        let known = self.secrets.iter().any(|(known, _)| known == value);
        if value.len() >= SECRET_BYTES_MIN && !known {
            self.secrets
                .push((value.to_owned(), placeholder.to_owned()));
            // A longer value may contain a shorter one.
            self.secrets
                .sort_by_key(|(value, _)| std::cmp::Reverse(value.len()));
        }
    }

    /// Remembers that the string at `place` contains a value from the environment or a file.
    pub(super) fn filled_in(&mut self, place: &Place) {
        self.filled_in.insert(key(place));
    }

    /// Adds a diagnostic that quotes the string at `place`, or a part of it. When the string contains a value
    /// from the environment or a file, nothing of it is quoted.
    pub(super) fn push_quoting(&mut self, place: Place, mut diagnostic: Diagnostic) {
        if self.filled_in.contains(&key(&place)) {
            diagnostic.message = format!("what {} stands for is not valid here", place.text());
            diagnostic.hint = None;
        }
        self.push(diagnostic.at(place));
    }

    /// Whether further diagnostics are only counted.
    pub(super) fn is_full(&self) -> bool {
        self.diagnostics.len() >= DIAGNOSTICS_MAX
    }

    /// Whether there is an error among the diagnostics.
    pub(super) fn failed(&self) -> bool {
        self.dropped_error
            || self
                .diagnostics
                .iter()
                .any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// Adds an error that is expensive to make. It is not made if it would only be counted.
    pub(super) fn push_error(&mut self, make: impl FnOnce() -> Diagnostic) {
        if self.is_full() {
            self.count_error();
        } else {
            self.push(make());
        }
    }

    /// Counts an error that is not shown, because the report is full.
    pub(super) fn count_error(&mut self) {
        self.dropped += 1;
        self.dropped_error = true;
    }

    /// Adds a diagnostic.
    pub(super) fn push(&mut self, mut diagnostic: Diagnostic) {
        if self.is_full() {
            self.dropped += 1;
            self.dropped_error |= diagnostic.severity == Severity::Error;
            return;
        }
        let Diagnostic {
            message,
            label,
            hint,
            related,
            ..
        } = &mut diagnostic;
        let texts = [
            label.as_mut(),
            hint.as_mut(),
            related.as_mut().map(|(_, what)| what),
        ];
        for text in texts.into_iter().flatten().chain([message]) {
            for (value, placeholder) in &self.secrets {
                if text.contains(value.as_str()) {
                    *text = text.replace(value.as_str(), placeholder);
                }
            }
        }
        if !self.diagnostics.contains(&diagnostic) {
            self.diagnostics.push(diagnostic);
        }
    }

    /// All diagnostics, errors and warnings, in the order of the files.
    pub(super) fn finish(
        mut self,
        order: &[std::sync::Arc<super::source::Source>],
    ) -> Vec<Diagnostic> {
        self.diagnostics.sort_by_key(|diagnostic| {
            diagnostic.place.as_ref().map_or((usize::MAX, 0), |place| {
                let file = order.iter().position(|source| *source == place.source);
                (file.unwrap_or(usize::MAX), place.span.start)
            })
        });
        if self.dropped > 0 {
            let message = format!("{} more problems are not shown", self.dropped);
            self.diagnostics.push(if self.dropped_error {
                Diagnostic::error("too-many", message)
            } else {
                Diagnostic::warning("too-many", message)
            });
        }
        self.diagnostics
    }
}
