//! The rows of the statistics, in HAProxy's order: the stats proxy, then the proxies as in the
//! file; of each FRONTEND, its servers, BACKEND. Runs on the admin thread.
//!
//! Invariant: a row is a view of the snapshot; nothing is copied or summed up until a column asks.

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

/// Where in a [`Part`] the next row is.
#[derive(Debug, Clone, Copy)]
enum Position {
    StatsFrontend,
    StatsBackend,
    /// The first row of the part with this index.
    Part(usize),
    /// This server of the part with this index; after the last, the part's closing row.
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
    /// Only rows of this kind.
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

    /// With addresses and algorithms in their columns if `legends`: for a page with `show-legends`
    /// and for clients of the runtime socket that are operators at least. HAProxy's rule.
    #[must_use]
    pub fn with_legends(mut self, legends: bool) -> Self {
        self.legends = legends;
        self
    }

    /// From the first on again, and only those of `kind`; the others cost nothing.
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
                // Beyond the last server: the backend's own row.
                Some(Kind::Backend) if is_backend => return Position::Server(at, usize::MAX),
                _ => break,
            }
        }
        position
    }

    /// The snapshot that they are a view of.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The next row. Lends, so that a row may point into the snapshot.
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

/// Where the rows begin.
fn start(snapshot: &Snapshot) -> Position {
    match &snapshot.stats {
        Some(_) => Position::StatsFrontend,
        None => Position::Part(0),
    }
}

/// What is at `position`, and the position after it.
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

/// Server `index` of `backend`, which is the part `at`; after the last its closing row.
fn of_backend(backend: &Backend, at: usize, index: usize) -> (Object<'_>, Position) {
    match backend.servers.get(index) {
        Some(server) => {
            let object = Object::Server(backend, server);
            (object, Position::Server(at, index + 1))
        }
        None => (Object::Backend(backend), Position::Part(at + 1)),
    }
}

/// Frontends and backends in the order of the file; of one `[[listen]]` the frontend first. As in
/// HAProxy, a disabled proxy has no row.
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
