//! The cells of a row: values of the column table as the page shows them.

use super::text::{age, grouped};
use crate::stats::columns::{Value, named};
use crate::stats::row::Row;

/// A cell.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) text: String,
    /// An emphasised part after the text.
    pub(super) loud: String,
    /// Lines of the tooltip.
    pub(super) tips: Vec<String>,
    /// Columns that it spans.
    pub(super) span: u8,
    pub(super) centred: bool,
    /// In italics.
    pub(super) italic: bool,
    /// The server that its check box is for; empty: it has none.
    pub(super) checkbox: String,
    /// Target of the link; empty: no link.
    pub(super) link: String,
    /// It is the status, which stays visible when the table is wider than the window.
    pub(super) status: bool,
}

impl Cell {
    /// Right-aligned text.
    pub(super) fn right(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            loud: String::new(),
            tips: Vec::new(),
            span: 1,
            centred: false,
            italic: false,
            checkbox: String::new(),
            link: String::new(),
            status: false,
        }
    }

    /// Centred text.
    pub(super) fn centre(text: impl Into<String>) -> Self {
        Self {
            centred: true,
            ..Self::right(text)
        }
    }

    /// No text, over `span` columns.
    pub(super) fn empty(span: u8) -> Self {
        Self {
            span,
            ..Self::right("")
        }
    }

    /// With these lines as a tooltip.
    #[must_use]
    pub(super) fn tip(mut self, tips: Vec<String>) -> Self {
        self.tips = tips;
        self
    }

    /// Marks it as the status.
    #[must_use]
    pub(super) fn status(mut self) -> Self {
        self.status = true;
        self
    }

    /// In italics.
    #[must_use]
    pub(super) fn italic(mut self) -> Self {
        self.italic = true;
        self
    }

    /// With this emphasised text after it.
    #[must_use]
    pub(super) fn loud(mut self, text: impl Into<String>) -> Self {
        self.loud = text.into();
        self
    }
}

/// The number of a column; empty where the row has none.
pub(super) fn number(row: &Row<'_>, column: &str) -> Cell {
    Cell::right(shown(row, column, ""))
}

/// A limit; `-` where there is none. HAProxy's 0 means none, too.
pub(super) fn limit(row: &Row<'_>, column: &str) -> Cell {
    match named(column).value(row) {
        Value::Number(0) => Cell::right("-"),
        _ => Cell::right(shown(row, column, "-")),
    }
}

/// The text of a column, or `none` where the row has no value.
pub(super) fn shown(row: &Row<'_>, column: &str, none: &str) -> String {
    match named(column).value(row) {
        Value::Absent => none.to_owned(),
        Value::Number(number) => grouped(number),
        Value::Signed(number) => number.to_string(),
        Value::Fraction(number) => number.to_string(),
        Value::Text(text) => text.into_owned(),
    }
}

/// A time since an event, in seconds; `?` where it is negative, which means never.
pub(super) fn ago(row: &Row<'_>, column: &str) -> Cell {
    match named(column).value(row) {
        Value::Number(seconds) => Cell::right(age(seconds)),
        Value::Signed(seconds) => match u64::try_from(seconds) {
            Ok(seconds) => Cell::right(age(seconds)),
            Err(_) => Cell::right("?"),
        },
        _ => Cell::empty(1),
    }
}
