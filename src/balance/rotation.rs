//! The rotation of weighted round robin, computed once per change instead of once per connection.
//!
//! The order is that of worst-case fair weighted fair queueing (WF²Q; Bennett and Zhang, 1996): of the servers
//! whose next share has begun, the one whose share ends first is next. Each server gets exactly its weight per
//! rotation and is never a whole turn ahead of or behind its share: 3/1/1 gives a b a c a.

use super::Candidate;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Most slots of a rotation. Weights are divided by their common divisor. If their sum is still larger than
/// this, they are scaled down to about this, with at least one slot each. The order is exact up to here, and
/// within one part in [`SLOTS_MAX`] beyond.
pub const SLOTS_MAX: usize = 65_536;

/// A rotation: server indices in the order of their turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    slots: Box<[u32]>,
}

impl Rotation {
    /// The rotation of these servers. Weights are at least 1.
    pub(super) fn new(servers: &[Candidate]) -> Self {
        let divisor = servers
            .iter()
            .fold(0, |divisor, server| gcd(divisor, server.eweight))
            .max(1);
        let share = |server: &Candidate| u64::from(server.eweight / divisor);
        let whole: u64 = servers.iter().map(share).sum();
        let shares: Vec<(u32, u64)> = servers
            .iter()
            .map(|server| (server.index, scaled(share(server), whole)))
            .collect();
        Self {
            slots: order(&shares).into_boxed_slice(),
        }
    }

    /// The servers' indices in the order of their turns.
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }
}

/// The share of `weight` when a sum of `whole` must fit into [`SLOTS_MAX`].
fn scaled(weight: u64, whole: u64) -> u64 {
    let most = SLOTS_MAX as u64;
    if whole <= most {
        weight
    } else {
        (weight * most / whole).max(1)
    }
}

/// A waiting share. The literature calls its two keys virtual start and finish time. Both are compared as
/// fractions `count / weight` of a rotation, exactly by cross multiplication.
#[derive(Debug, PartialEq, Eq)]
struct Share {
    count: u64,
    weight: u64,
    position: usize,
}

impl Ord for Share {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.count * other.weight)
            .cmp(&(other.count * self.weight))
            .then(self.position.cmp(&other.position))
    }
}

impl PartialOrd for Share {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

fn order(shares: &[(u32, u64)]) -> Vec<u32> {
    let turns: u64 = shares.iter().map(|&(_, weight)| weight).sum();
    // `due` holds the shares that have begun, ordered by their end; `early` holds the others, ordered by
    // their start.
    let mut due = BinaryHeap::with_capacity(shares.len());
    let mut early: BinaryHeap<Reverse<Share>> = BinaryHeap::new();
    for (position, &(_, weight)) in shares.iter().enumerate() {
        due.push(Reverse(Share {
            count: 1,
            weight,
            position,
        }));
    }
    let mut slots = Vec::with_capacity(usize::try_from(turns).unwrap_or(SLOTS_MAX));
    for turn in 0..turns {
        while let Some(Reverse(share)) = early.peek()
            && share.count * turns <= turn * share.weight
        {
            let Share {
                count,
                weight,
                position,
            } = early.pop().expect("it was just peeked at").0;
            due.push(Reverse(Share {
                count: count + 1,
                weight,
                position,
            }));
        }
        let Reverse(Share {
            count,
            weight,
            position,
        }) = due
            .pop()
            .expect("the shares that have begun by turn t are more than t");
        slots.push(shares[position].0);
        early.push(Reverse(Share {
            count,
            weight,
            position,
        }));
    }
    slots
}

pub(super) fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
