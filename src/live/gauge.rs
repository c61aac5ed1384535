//! A shared, exact number of things that exist now. Only guards write it (`live::slot`, `live::queue`).

use super::sync::{
    AtomicU32,
    Ordering::{Relaxed, SeqCst},
    keep_order,
};
use crossbeam_utils::CachePadded;

/// A number on a cache line of its own. Cheap to read from any thread.
#[derive(Debug, Default)]
pub struct Gauge(CachePadded<AtomicU32>);

impl Gauge {
    /// The value now.
    pub fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }

    /// The value now, in the one order that all changes of gauges have: of two threads that each change one gauge and
    /// then read the other's, one sees the other's change.
    pub(super) fn get_in_order(&self) -> u32 {
        keep_order();
        self.0.load(SeqCst)
    }

    /// Adds one; returns the new value.
    pub(super) fn raise(&self) -> u32 {
        self.0.fetch_add(1, SeqCst) + 1
    }

    /// Adds one unless `limit` is reached; returns the new value.
    pub(super) fn raise_below(&self, limit: u32) -> Option<u32> {
        keep_order();
        self.0
            .fetch_update(SeqCst, SeqCst, |n| (n < limit).then(|| n + 1))
            .ok()
            .map(|n| n + 1)
    }

    /// Subtracts one.
    pub(super) fn lower(&self) {
        let before = self.0.fetch_sub(1, SeqCst);
        debug_assert!(
            before > 0,
            "a gauge went below zero: a guard was dropped twice"
        );
    }
}
