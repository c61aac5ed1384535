//! `balance = "random"`: some servers are drawn, by their weights, and the one with the least load for its weight is
//! chosen. With two draws, the load of the busiest server stays near that of the others, without a look at all of them.

use super::Candidate;
use super::ring::Ring;

/// The servers that are drawn from.
#[derive(Debug, Clone)]
pub struct Random {
    /// A random number finds the nearest place, as a hash does in HAProxy.
    ring: Ring,
    /// The weights in force, by the servers' indices.
    weights: Box<[u32]>,
    draws: u32,
}

impl Random {
    pub(super) fn new(servers: &[Candidate], draws: u32) -> Self {
        let last = servers.iter().map(|server| server.index).max();
        let mut weights = vec![0; last.map_or(0, |last| last as usize + 1)];
        for server in servers {
            weights[server.index as usize] = server.eweight;
        }
        Self {
            ring: Ring::new(servers),
            weights: weights.into(),
            draws,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// The server with the least load of those that `accept` accepts and the `numbers` lead to.
    pub(super) fn pick(
        &self,
        mut numbers: impl FnMut() -> u32,
        load: impl Fn(u32) -> u32,
        mut accept: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        let mut draw = || {
            let start = self.ring.nearest(numbers());
            self.ring.from(start).find(|&index| accept(index))
        };
        let mut best = draw()?;
        for _ in 1..self.draws {
            let drawn = draw()?;
            if drawn != best && self.is_better(drawn, best, &load) {
                best = drawn;
            }
        }
        Some(best)
    }

    /// Whether `one` has less load for its weight than `other`, or as much: the one that was drawn last is taken.
    fn is_better(&self, one: u32, other: u32, load: &impl Fn(u32) -> u32) -> bool {
        let weight = |index: u32| u64::from(self.weights[index as usize]);
        u64::from(load(one)) * weight(other) <= u64::from(load(other)) * weight(one)
    }
}
