//! The rows of the statistics in HAProxy's order: the stats proxy, then the proxies as in the file; for each
//! proxy FRONTEND, its servers, BACKEND. Runs on the admin thread.
//!
//! Invariant: a row refers to the snapshot; nothing is copied or summed up before a column needs it.

use super::filter::Filter;
use super::requests::Requests;
use super::row::{Kind, Object, Row};
use crate::state::{Backend, BackendId, FrontendId, Snapshot};
use std::sync::Arc;
use std::time::Instant;

/// A frontend or a backend, in the order of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Frontend(FrontendId),
    Backend(BackendId),
}

/// The position of the next row in a [`Part`].
#[derive(Debug, Clone, Copy)]
enum Position {
    StatsFrontend,
    StatsBackend,
    /// The first row of the part with this index.
    Part(usize),
    /// This server of the part with this index; after the last server, the backend's own row.
    Server(usize, usize),
}

/// All rows, one by one.
#[derive(Debug)]
pub struct Rows {
    snapshot: Arc<Snapshot>,
    requests: Arc<Requests>,
    now: Instant,
    filter: Filter,
    legends: bool,
    parts: Vec<Part>,
    /// If set, only rows of this kind.
    kind: Option<Kind>,
    next: Position,
}

impl Rows {
    /// The rows of `snapshot` as of `now`.
    pub fn new(snapshot: Arc<Snapshot>, requests: Arc<Requests>, now: Instant) -> Self {
        let next = start(&snapshot);
        Self {
            parts: parts(&snapshot),
            snapshot,
            requests,
            now,
            filter: Filter::default(),
            legends: false,
            kind: None,
            next,
        }
    }

    /// Only those that `filter` shows.
    #[must_use]
    pub fn filtered(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// With addresses and algorithms in their columns if `legends`: for a page with `show-legends`, and for
    /// clients of the runtime socket with at least the operator level, as in HAProxy.
    #[must_use]
    pub fn with_legends(mut self, legends: bool) -> Self {
        self.legends = legends;
        self
    }

    /// Starts again with rows of `kind` only; the others cost nothing.
    pub fn rewind(&mut self, kind: Kind) {
        self.kind = Some(kind);
        self.next = start(&self.snapshot);
    }

    /// The next position that may have a row of the wanted kind.
    fn position(&self) -> Position {
        let mut position = self.next;
        while let Position::Part(at) = position {
            let is_backend = matches!(self.parts.get(at), Some(Part::Backend(_)));
            match self.kind {
                Some(Kind::Frontend) if is_backend => position = Position::Part(at + 1),
                // After the last server: the backend's own row.
                Some(Kind::Backend) if is_backend => return Position::Server(at, usize::MAX),
                _ => break,
            }
        }
        position
    }

    /// The snapshot that the rows refer to.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The next row. It borrows from `self`, so that it can refer to the snapshot.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator cannot lend its items"
    )]
    pub fn next(&mut self) -> Option<Row<'_>> {
        loop {
            let (object, next) = step(&self.snapshot, &self.parts, self.position())?;
            self.next = next;
            let row = Row::new(object, &self.snapshot, &self.requests, self.now);
            let wanted = self.kind.is_none_or(|kind| kind == row.kind());
            if wanted && self.filter.shows(&row) {
                let row = row.counting(self.filter.hides_servers());
                return Some(row.with_legends(self.legends));
            }
        }
    }
}

/// The position of the first row.
fn start(snapshot: &Snapshot) -> Position {
    match &snapshot.stats {
        Some(_) => Position::StatsFrontend,
        None => Position::Part(0),
    }
}

/// The object at `position`, and the position after it.
fn step<'a>(
    snapshot: &'a Snapshot,
    parts: &[Part],
    position: Position,
) -> Option<(Object<'a>, Position)> {
    match position {
        Position::StatsFrontend => {
            let object = Object::StatsFrontend(snapshot.stats.as_deref()?);
            Some((object, Position::StatsBackend))
        }
        Position::StatsBackend => {
            let object = Object::StatsBackend(snapshot.stats.as_deref()?);
            Some((object, Position::Part(0)))
        }
        Position::Part(at) => match *parts.get(at)? {
            Part::Frontend(id) => {
                let frontend = snapshot.frontend(id)?;
                Some((Object::Frontend(frontend), Position::Part(at + 1)))
            }
            Part::Backend(id) => Some(of_backend(snapshot.backend(id)?, at, 0)),
        },
        Position::Server(at, index) => match *parts.get(at)? {
            Part::Backend(id) => Some(of_backend(snapshot.backend(id)?, at, index)),
            Part::Frontend(_) => None,
        },
    }
}

/// Server `index` of `backend`, which is the part `at`; after the last server, the backend itself.
fn of_backend(backend: &Backend, at: usize, index: usize) -> (Object<'_>, Position) {
    match backend.servers.get(index) {
        Some(server) => {
            let object = Object::Server(backend, server);
            (object, Position::Server(at, index + 1))
        }
        None => (Object::Backend(backend), Position::Part(at + 1)),
    }
}

/// Frontends and backends in the order of the file, for a `[[listen]]` the frontend first. As in HAProxy, a
/// disabled proxy has no row.
fn parts(snapshot: &Snapshot) -> Vec<Part> {
    let frontends = snapshot
        .frontends
        .iter()
        .flatten()
        .filter(|frontend| !frontend.spec.disabled)
        .map(|frontend| (frontend.spec.order, Part::Frontend(frontend.id)));
    let backends = snapshot
        .backends
        .iter()
        .flatten()
        .map(|backend| (backend.spec.order, Part::Backend(backend.id)));
    let mut parts: Vec<(u32, Part)> = frontends.chain(backends).collect();
    parts.sort_unstable();
    parts.into_iter().map(|(_, part)| part).collect()
}

#[cfg(test)]
mod tests;
