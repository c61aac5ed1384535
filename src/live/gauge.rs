//! A shared, exact number of things that exist now. Only guards write it (`live::slot`).

use crossbeam_utils::CachePadded;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A number on a cache line of its own. Cheap to read from any thread.
#[derive(Debug, Default)]
pub struct Gauge(CachePadded<AtomicU32>);

impl Gauge {
    /// The value now.
    pub fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }

    /// Adds one; returns the new value.
    pub(super) fn raise(&self) -> u32 {
        self.0.fetch_add(1, Relaxed) + 1
    }

    /// Adds one unless `limit` is reached; returns the new value.
    pub(super) fn raise_below(&self, limit: u32) -> Option<u32> {
        self.0
            .fetch_update(Relaxed, Relaxed, |n| (n < limit).then(|| n + 1))
            .ok()
            .map(|n| n + 1)
    }

    /// Subtracts one.
    pub(super) fn lower(&self) {
        let before = self.0.fetch_sub(1, Relaxed);
        debug_assert!(
            before > 0,
            "a gauge went below zero: a guard was dropped twice"
        );
    }
}
