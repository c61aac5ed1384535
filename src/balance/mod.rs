//! Choosing a server among the usable ones. Pure but for the cursor; runs on workers, built on the
//! control thread.

pub mod rotation;

use rotation::Rotation;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What the picker has to know of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Position in the backend's list of servers.
    pub index: u32,
    /// Weight in force; 0 takes nothing new.
    pub weight: u32,
    /// Used only when no other is usable.
    pub backup: bool,
    /// May take new connections: not down, not in maintenance, not draining.
    pub usable: bool,
}

/// The servers that may be chosen now, in the order of their turns.
///
/// Active servers if any is usable; else the first usable backup, or all of them with `allbackups`
/// (HAProxy's rule).
#[derive(Debug, Clone)]
pub struct Picker {
    rotation: Rotation,
}

/// One session's place in the rotation. Retries and second attempts walk on from it without moving
/// the rotation for others.
#[derive(Debug, Clone, Copy)]
pub struct RotationCursor(usize);

impl RotationCursor {
    /// Takes the next turn: once a session.
    pub fn take(cursor: &AtomicUsize) -> Self {
        Self(cursor.fetch_add(1, Relaxed))
    }
}

impl Picker {
    /// A picker over the usable ones of `candidates`.
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
        Self {
            rotation: Rotation::new(&chosen),
        }
    }

    /// Whether no server can be chosen.
    pub fn is_empty(&self) -> bool {
        self.rotation.slots().is_empty()
    }

    /// The first server from `turn` on that `accept` takes: one pass over the rotation.
    ///
    /// # Hot path: the first slot is the answer unless it was refused.
    pub fn pick(&self, turn: RotationCursor, mut accept: impl FnMut(u32) -> bool) -> Option<u32> {
        let slots = self.rotation.slots();
        let start = turn.0.checked_rem(slots.len())?;
        let (before, from) = slots.split_at(start);
        from.iter()
            .chain(before)
            .copied()
            .find(|&index| accept(index))
    }
}

#[cfg(test)]
mod tests;
