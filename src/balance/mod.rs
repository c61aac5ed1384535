//! Chooses a server among the usable ones. Pure except for the cursor. Workers call it; the control thread
//! builds the pickers.

pub mod rotation;

use rotation::Rotation;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What the picker needs to know of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Position in the backend's list of servers.
    pub index: u32,
    /// Weight in force; a server with weight 0 is not chosen.
    pub weight: u32,
    /// Used only when no other is usable.
    pub backup: bool,
    /// May receive new sessions: not down, not in maintenance, not draining.
    pub usable: bool,
}

/// The servers that may be chosen now, and the algorithm that chooses.
///
/// Active servers if any is usable; else the first usable backup, or all of them with `allbackups`
/// (HAProxy's rule).
#[derive(Debug, Clone)]
pub enum Picker {
    /// `balance = "roundrobin"`.
    RoundRobin(Rotation),
}

/// What is known of a session when its server is chosen. Retries and second attempts use the same input.
#[derive(Debug, Clone, Copy)]
pub struct PickInput {
    /// Its position in the rotation. Retries go on from there.
    pub cursor: RotationCursor,
}

impl PickInput {
    /// The input of a new session: advances the backend's cursor. Called once per session.
    pub fn take(cursor: &AtomicUsize) -> Self {
        let cursor = RotationCursor(cursor.fetch_add(1, Relaxed));
        Self { cursor }
    }
}

/// A position in a rotation.
#[derive(Debug, Clone, Copy)]
pub struct RotationCursor(usize);

impl Picker {
    /// A picker over the usable `candidates`.
    pub fn new(candidates: &[Candidate], allbackups: bool) -> Self {
        let usable = |backup: bool| {
            candidates
                .iter()
                .filter(move |c| c.usable && c.weight > 0 && c.backup == backup)
                .map(|c| (c.index, c.weight))
        };
        let mut chosen: Vec<(u32, u32)> = usable(false).collect();
        if chosen.is_empty() {
            chosen = usable(true)
                .take(if allbackups { usize::MAX } else { 1 })
                .collect();
        }
        Self::RoundRobin(Rotation::new(&chosen))
    }

    /// Whether no server can be chosen.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::RoundRobin(rotation) => rotation.slots().is_empty(),
        }
    }

    /// The first server that `accept` accepts, in the order of the algorithm.
    ///
    /// # Hot path: usually the first one.
    pub fn pick(&self, input: &PickInput, mut accept: impl FnMut(u32) -> bool) -> Option<u32> {
        match self {
            Self::RoundRobin(rotation) => {
                let slots = rotation.slots();
                let start = input.cursor.0.checked_rem(slots.len())?;
                let (before, from) = slots.split_at(start);
                let mut order = from.iter().chain(before).copied();
                order.find(|&index| accept(index))
            }
        }
    }
}

#[cfg(test)]
mod tests;
