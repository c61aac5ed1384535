//! Counts and results of reloads. Any thread reads, the control thread writes.

use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// How a reload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadEnd {
    /// The new configuration is in force.
    Done,
    /// It was refused; nothing changed.
    Refused,
    /// It was rolled back to the configuration before.
    RolledBack,
    /// The rollback to the configuration before failed.
    RollbackFailed,
}

/// The last reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastReload {
    /// How it ended.
    pub end: ReloadEnd,
    /// When it ended.
    pub at: Instant,
    /// The changes or the reasons, one line each.
    pub lines: Vec<String>,
}

/// Counts of reloads.
#[derive(Debug, Default)]
pub struct Reloads {
    /// Reloads that took effect.
    pub succeeded: AtomicU64,
    /// Reloads that were refused.
    pub failed: AtomicU64,
    /// Reloads that were rolled back.
    pub rolled_back: AtomicU64,
    /// Reloads whose rollback failed.
    pub rollbacks_failed: AtomicU64,
    /// The last one; `None` before the first.
    pub last: ArcSwapOption<LastReload>,
}

impl Reloads {
    /// A reload has ended.
    pub fn ended(&self, last: LastReload) {
        let count = match last.end {
            ReloadEnd::Done => &self.succeeded,
            ReloadEnd::Refused => &self.failed,
            ReloadEnd::RolledBack => &self.rolled_back,
            ReloadEnd::RollbackFailed => &self.rollbacks_failed,
        };
        count.fetch_add(1, Relaxed);
        self.last.store(Some(Arc::new(last)));
    }
}
