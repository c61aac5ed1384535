//! The statistics as an HTML page in HAProxy's layout, made row by row. Admin thread.
//!
//! Invariant: a chunk ends with a row, and no more than one chunk is in memory. The templates are in
//! `templates/stats/`; they escape everything that is inserted.

mod cells;
mod head;
mod result;
mod row;
mod text;
mod trouble;

pub use head::View;
pub use result::ActionResult;
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
/// The end of the page, and what it says when it shows no table.
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
    /// The backend of the table that is being written, once a server of it is.
    backend: Option<Arc<str>>,
    /// The page with check boxes, if this one has none and there may be some.
    changing: Option<String>,
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

/// The actions of the form and their texts, HAProxy's but those for agents, which servers of rlb do not have.
const ACTIONS: [(&str, &str); 9] = [
    ("ready", "Set state to READY"),
    ("drain", "Set state to DRAIN"),
    ("maint", "Set state to MAINT"),
    ("dhlth", "Health: disable checks"),
    ("ehlth", "Health: enable checks"),
    ("hrunn", "Health: force UP"),
    ("hnolb", "Health: force NOLB"),
    ("hdown", "Health: force DOWN"),
    ("shutdown", "Kill Sessions"),
];

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
            changing: view.changing(),
            backend: None,
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
                    end_table(&mut text, &self.view, (&mut self.backend, &self.changing));
                } else if self.view.filter.problems {
                    text.push_str(NO_PROBLEMS);
                }
                text.push_str(PAGE_END);
                self.progress = Progress::End;
                break;
            };
            let id = row.ids().0;
            if self.progress != Progress::Inside(id) {
                if let Progress::Inside(_) = self.progress {
                    end_table(&mut text, &self.view, (&mut self.backend, &self.changing));
                }
                begin_table(&mut text, &row, &self.view);
                self.progress = Progress::Inside(id);
            }
            if let Object::Server(backend, _) = row.object
                && self.view.admin
                && self.backend.is_none()
            {
                self.backend = Some(Arc::clone(&backend.spec.name));
            }
            let (legends, checkboxes) = (self.view.legends, self.view.has_checkboxes());
            render(&mut text, &row::of(&row, legends, checkboxes));
        }
        text
    }
}

/// Begins the table of `row`.
fn begin_table(text: &mut String, row: &Row<'_>, view: &View) {
    let id = row.ids().0;
    let mode = if row.is_http() { "http" } else { "tcp" };
    let side = match row.object {
        Object::Frontend(_) | Object::StatsFrontend(_) => "frontend",
        Object::Backend(_) | Object::StatsBackend(_) | Object::Server(..) => "backend",
    };
    let tips = if view.legends {
        format!("{side}, mode: {mode}, id: {id}")
    } else {
        String::new()
    };
    let section = Section {
        name: row.proxy(),
        tips,
        form: view.has_checkboxes(),
    };
    render(text, &section);
}

/// Ends a table, in which servers of `backend` are, if any. They have check boxes, or the link leads to a page on which
/// they have.
fn end_table(
    text: &mut String,
    view: &View,
    (backend, changing): (&mut Option<Arc<str>>, &Option<String>),
) {
    let backend = backend.take();
    let link = backend.as_ref().zip(changing.as_ref());
    let end = TableEnd {
        form: view.has_checkboxes(),
        link: link.map(|(backend, link)| format!("{link}#{backend}")),
        backend: backend.as_deref().filter(|_| view.has_checkboxes()),
        actions: &ACTIONS,
    };
    render(text, &end);
}

/// The start of a table.
#[derive(Template)]
#[template(path = "stats/section.html")]
struct Section<'a> {
    name: &'a str,
    tips: String,
    form: bool,
}

/// The end of a table.
#[derive(Template)]
#[template(path = "stats/table_end.html")]
struct TableEnd<'a> {
    form: bool,
    /// With check boxes: the backend of the form.
    backend: Option<&'a str>,
    /// Without: where they are.
    link: Option<String>,
    actions: &'a [(&'a str, &'a str)],
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
