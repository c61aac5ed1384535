//! Ids of frontends and backends, which last across snapshots.
//!
//! An id is a position in a table of the snapshot, and the number of the reload that gave it. A removed object
//! leaves its position free, and a later one gets it, so that the tables do not grow with each rename. The
//! number of the reload tells whose an id is. Invariant: no id is given twice.

use std::sync::Arc;

/// A position in a table, and the reload that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Place {
    index: u32,
    reload: u32,
}

/// Names a frontend for as long as its name exists, across snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrontendId(Place);

/// Names a backend for as long as its name exists, across snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(Place);

/// What both kinds of id have.
macro_rules! id {
    ($name:ident) => {
        impl $name {
            /// The id at a position of the first snapshot.
            pub const fn first(index: u32) -> Self {
                Self::given(index, 0)
            }

            /// The id at a position that the reload of this number gives.
            pub(super) const fn given(index: u32, reload: u32) -> Self {
                Self(Place { index, reload })
            }

            /// Its position in the table of a snapshot.
            pub const fn index(self) -> usize {
                self.0.index as usize
            }
        }
    };
}

id!(FrontendId);
id!(BackendId);

/// A table of a snapshot while a reload makes it.
pub(super) struct Table<T> {
    all: Vec<Option<Arc<T>>>,
    /// No position below this one is free.
    full_below: usize,
}

impl<T> Table<T> {
    /// One that has `kept` at their positions.
    pub(super) fn of(kept: impl Iterator<Item = (usize, Arc<T>)>) -> Self {
        let mut all = Vec::new();
        for (index, object) in kept {
            if all.len() <= index {
                all.resize(index + 1, None);
            }
            all[index] = Some(object);
        }
        let full_below = 0;
        Self { all, full_below }
    }

    /// What is at a position.
    pub(super) fn get(&self, index: usize) -> Option<Arc<T>> {
        self.all.get(index)?.clone()
    }

    /// A free position. Call [`Table::add`] before the next.
    pub(super) fn free(&mut self) -> u32 {
        let mut rest = self.all.iter().skip(self.full_below);
        let taken = rest.position(Option::is_none);
        self.full_below = taken.map_or(self.all.len(), |taken| self.full_below + taken);
        u32::try_from(self.full_below).expect("a file of four billion objects does not fit memory")
    }

    /// Puts an object at the position that was free.
    pub(super) fn add(&mut self, object: Arc<T>) {
        match self.all.get_mut(self.full_below) {
            Some(free) => *free = Some(object),
            None => self.all.push(Some(object)),
        }
    }

    /// The finished table.
    pub(super) fn finish(self) -> Vec<Option<Arc<T>>> {
        self.all
    }
}
