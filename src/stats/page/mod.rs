//! The statistics as an HTML page in HAProxy's layout, made row by row. Admin thread.
//!
//! Invariant: a chunk ends with a row, and no more than one chunk is in memory. The templates are in
//! `templates/stats/`; they escape everything that is inserted.

mod cells;
mod head;
mod row;
mod text;

pub use head::View;
pub use text::age;

use super::info::Facts;
use super::process::Process;
use super::requests::Requests;
use super::row::{Object, Row};
use super::rows::Rows;
use crate::state::Snapshot;
use askama::Template;
use cells::Cell;
use std::sync::Arc;
use std::time::Instant;

/// A chunk ends after this many bytes, at the end of a row.
const CHUNK: usize = 16 * 1024;
/// The end of a table, and the end of the page.
const TABLE_END: &str = "</tbody></table></section>\n";
const NO_PROBLEMS: &str = "<p>No problems: every server that is checked is up.</p>\n";
const PAGE_END: &str = "</div></body></html>\n";

/// The page, chunk by chunk.
#[derive(Debug)]
pub struct Page {
    rows: Rows,
    snapshot: Arc<Snapshot>,
    process: Arc<Process>,
    requests: Arc<Requests>,
    now: Instant,
    view: View,
    progress: Progress,
}

/// How much of the page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Begin,
    /// Between tables, after the head.
    Outside,
    /// In the table of the proxy with this id; a `[[listen]]` has one table.
    Inside(u32),
    End,
}

impl Page {
    /// The page of `snapshot` as of `now`, for `view`.
    pub fn new(
        snapshot: Arc<Snapshot>,
        process: Arc<Process>,
        requests: Arc<Requests>,
        now: Instant,
        view: View,
    ) -> Self {
        let rows = Rows::new(Arc::clone(&snapshot), Arc::clone(&requests), now);
        Self {
            rows: rows.filtered(view.filter.clone()),
            snapshot,
            process,
            requests,
            now,
            view,
            progress: Progress::Begin,
        }
    }

    /// The next rows, whole; empty at the end.
    pub fn chunk(&mut self) -> String {
        if self.progress == Progress::End {
            return String::new();
        }
        let mut text = String::with_capacity(CHUNK + 8 * 1024);
        if self.progress == Progress::Begin {
            let facts = Facts {
                snapshot: &self.snapshot,
                process: &self.process,
                requests: &self.requests,
                now: self.now,
            };
            head::write(&mut text, &facts, &self.view);
            self.progress = Progress::Outside;
        }
        while text.len() < CHUNK {
            let Some(row) = self.rows.next() else {
                if let Progress::Inside(_) = self.progress {
                    text.push_str(TABLE_END);
                } else if self.view.filter.problems {
                    text.push_str(NO_PROBLEMS);
                }
                text.push_str(PAGE_END);
                self.progress = Progress::End;
                break;
            };
            let legends = self.view.legends;
            self.progress = section(&mut text, &row, self.progress, legends);
            render(&mut text, &row::of(&row, legends));
        }
        text
    }
}

/// Ends the table before and begins that of `row`, unless both rows are in the same table.
fn section(text: &mut String, row: &Row<'_>, progress: Progress, legends: bool) -> Progress {
    let id = row.ids().0;
    if progress == Progress::Inside(id) {
        return progress;
    }
    if let Progress::Inside(_) = progress {
        text.push_str(TABLE_END);
    }
    let mode = if row.is_http() { "http" } else { "tcp" };
    let side = match row.object {
        Object::Frontend(_) | Object::StatsFrontend(_) => "frontend",
        Object::Backend(_) | Object::StatsBackend(_) | Object::Server(..) => "backend",
    };
    let tips = if legends {
        format!("{side}, mode: {mode}, id: {id}")
    } else {
        String::new()
    };
    render(
        text,
        &Section {
            name: row.proxy(),
            tips,
        },
    );
    Progress::Inside(id)
}

/// The start of a table.
#[derive(Template)]
#[template(path = "stats/section.html")]
struct Section<'a> {
    name: &'a str,
    tips: String,
}

/// A row of a table.
#[derive(Template)]
#[template(path = "stats/row.html")]
struct RowText {
    class: &'static str,
    id: String,
    cells: Vec<Cell>,
}

fn render(text: &mut String, template: &impl Template) {
    // Writing to a string cannot fail, and neither can the templates.
    let _ = template.render_into(text);
    text.push('\n');
}

#[cfg(test)]
mod tests;
