//! A configuration file's text, and places in it.
//!
//! Plain data. Invariant: a [`Place`] is a byte range of its own source's text, at character
//! boundaries; [`Place::new`] sees to it, whatever the parser reported.

use std::ops::Range;
use std::sync::Arc;

/// A file that was read, kept for as long as something may have to be said about it.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// Path as given or found, for people.
    pub name: String,
    /// Whole content.
    pub text: String,
}

/// Some text of a [`Source`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where the text is.
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
    /// A place; a range that is not one of `source` is moved to the nearest that is.
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

    /// Where the text begins.
    pub fn start(&self) -> Position {
        position(&self.source.text, self.span.start)
    }

    /// Where the text ends: the position after its last character.
    pub fn end(&self) -> Position {
        position(&self.source.text, self.span.end)
    }

    /// `file:line`, to point at a second place from within a message.
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

fn position(text: &str, at: usize) -> Position {
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Position {
        line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}
