//! The processes before this one that still have sessions after an upgrade. Any thread reads, the control thread
//! writes.

use std::time::Instant;

/// A process before this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldProcess {
    /// Its process id.
    pub pid: u32,
    /// Its version of rlb.
    pub version: Box<str>,
    /// When it started.
    pub started: Instant,
    /// Since when it takes no new sessions.
    pub since: Instant,
    /// Sessions that it has now.
    pub sessions: u64,
    /// Upgrades since it served.
    pub upgrades: u32,
}
