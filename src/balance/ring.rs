//! HAProxy's ring for consistent hashing: each server has 16 places for each unit of its weight (fewer in a slow start), and
//! a client goes to the server of the place that is nearest to its hash. A server that comes or goes moves only the clients of
//! its own places. It is computed once per change.

use super::Candidate;
use super::hash::avalanche;

/// The servers' places, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    places: Box<[Place]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    hash: u32,
    server: u32,
}

impl Ring {
    /// The ring of these servers.
    pub(super) fn new(servers: &[Candidate]) -> Self {
        let mut places: Vec<Place> = servers
            .iter()
            .flat_map(|server| {
                (0..server.eweight).map(move |number| Place {
                    hash: avalanche(server.key.wrapping_add(number)),
                    server: server.index,
                })
            })
            .collect();
        // Stable: of two servers at one place the first one has it.
        places.sort_by_key(|place| place.hash);
        Self {
            places: places.into(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The place that is nearest to `hash`.
    pub(super) fn nearest(&self, hash: u32) -> usize {
        let len = self.places.len();
        let after = self.places.partition_point(|place| place.hash < hash) % len.max(1);
        let before = (after + len).saturating_sub(1) % len.max(1);
        let distance = |from: u32, to: u32| to.wrapping_sub(from);
        match (self.places.get(before), self.places.get(after)) {
            (Some(one), Some(other)) if distance(one.hash, hash) <= distance(hash, other.hash) => {
                before
            }
            _ => after,
        }
    }

    /// The servers of the places before `start`, the nearest first, once round.
    pub(super) fn before(&self, start: usize) -> impl Iterator<Item = u32> {
        self.from(start).rev()
    }

    /// The servers of the places from `start` on, once round. `start` may be any number.
    pub(super) fn from(&self, start: usize) -> impl DoubleEndedIterator<Item = u32> {
        let start = start.checked_rem(self.places.len()).unwrap_or(0);
        let (before, from) = self.places.split_at(start);
        from.iter().chain(before).map(|place| place.server)
    }
}
