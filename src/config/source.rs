//! The text of a configuration file, and places in it.
//!
//! Plain data. Invariant: a [`Place`] is a byte range in the text of its own source, at character boundaries.
//! [`Place::new`] ensures it, whatever the parser has reported.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// A file that was read. It is kept as long as diagnostics refer to it.
#[derive(Debug)]
pub struct Source {
    /// Path as given or found, for people.
    pub name: String,
    /// Whole content.
    pub text: String,
    /// The start of each line; computed for the first position.
    lines: OnceLock<Vec<usize>>,
}

impl Source {
    /// A file and its content.
    pub fn new(name: String, text: String) -> Self {
        Self {
            name,
            text,
            lines: OnceLock::new(),
        }
    }

    /// The line and column of the byte at `at`, which is a character boundary.
    fn position(&self, at: usize) -> Position {
        let lines = self.lines.get_or_init(|| {
            let newlines = self.text.match_indices('\n');
            let starts = newlines.map(|(newline, _)| newline + 1);
            std::iter::once(0).chain(starts).collect()
        });
        let line = lines.partition_point(|start| *start <= at);
        let start = lines[line - 1];
        Position {
            line,
            column: self.text[start..at].chars().count() + 1,
        }
    }
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.text == other.text
    }
}

impl Eq for Source {}

/// A range of text in a [`Source`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub source: Arc<Source>,
    /// Byte range in the source's text.
    pub span: Range<usize>,
}

/// A line and a column, both from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Character in the line, from 1.
    pub column: usize,
}

impl Place {
    /// A place. A range that is not valid in `source` is moved to the nearest valid one.
    pub fn new(source: &Arc<Source>, span: Range<usize>) -> Self {
        let start = floor(&source.text, span.start);
        let end = floor(&source.text, span.end.max(start));
        Self {
            source: Arc::clone(source),
            span: start..end,
        }
    }

    /// The text at this place, as written.
    pub fn text(&self) -> &str {
        &self.source.text[self.span.clone()]
    }

    /// The position of its first character.
    pub fn start(&self) -> Position {
        self.source.position(self.span.start)
    }

    /// The position after its last character.
    pub fn end(&self) -> Position {
        self.source.position(self.span.end)
    }

    /// `file:line`, which names a second place in a message.
    pub fn short(&self) -> String {
        format!("{}:{}", self.source.name, self.start().line)
    }
}

/// The last character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
