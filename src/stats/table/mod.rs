//! The rows as a table: CSV, HAProxy's typed lines, or JSON, made chunk by chunk. Admin thread.
//!
//! Invariant: a chunk ends with a row, and no more than one chunk is in memory.

use super::row::Row;
use super::rows::Rows;
use super::{csv, json, typed};

/// A chunk ends after this many bytes, at the end of a row.
pub(super) const CHUNK: usize = 16 * 1024;

/// The format of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `;csv`
    Csv,
    /// `;typed`: one line per value.
    Typed,
    /// `;json`: an array per row, an object per value.
    Json,
}

/// All rows in one format.
#[derive(Debug)]
pub struct Table {
    format: Format,
    rows: Rows,
    begun: bool,
    ended: bool,
}

impl Table {
    /// `rows` in `format`.
    pub fn new(format: Format, rows: Rows) -> Self {
        Self {
            format,
            rows,
            begun: false,
            ended: false,
        }
    }

    /// The next rows, whole; empty at the end.
    pub fn chunk(&mut self) -> String {
        if self.ended {
            return String::new();
        }
        let mut text = String::with_capacity(CHUNK + 1024);
        let mut first = !self.begun;
        if first {
            self.begun = true;
            self.format.begin(&mut text);
        }
        while text.len() < CHUNK {
            let Some(row) = self.rows.next() else {
                self.ended = true;
                self.format.end(&mut text);
                break;
            };
            self.format.row(&mut text, &row, first);
            first = false;
        }
        text
    }
}

impl Format {
    fn begin(self, text: &mut String) {
        match self {
            Self::Csv => csv::header(text),
            Self::Typed => {}
            Self::Json => text.push('['),
        }
    }

    fn row(self, text: &mut String, row: &Row<'_>, first: bool) {
        match self {
            Self::Csv => csv::line(text, row),
            Self::Typed => typed::lines(text, row),
            Self::Json => {
                if !first {
                    text.push(',');
                }
                json::array(text, row);
            }
        }
    }

    fn end(self, text: &mut String) {
        if self == Self::Json {
            text.push_str("]\n");
        }
    }
}

#[cfg(test)]
mod tests;
